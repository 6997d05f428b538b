//! Named lives: what a person would ask about, each told as the events that a subscriber of script
//! 1 hears.

use bitcoin::OutPoint;
use satwatch::tracker::{
    ApplyError, Balance, Baseline, BlockId, Input, MemoryView, Seen, Status, Tracker, WatchRequest,
};

use crate::shorthand::{coin, status, told, watching};
use crate::world::{World, block, script, spk, tx};

#[test]
fn a_payment_is_announced_once_and_then_confirmed() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700), (9, 100)]);
    assert_eq!(
        told(&world.accept(&payment).events),
        ["new 1", "balance 0>700"]
    );
    assert_eq!(told(&world.accept(&payment).events), [""; 0]);
    assert_eq!(
        told(&world.mine(9, &[payment]).events),
        ["mempool>confirmed 1", "block"]
    );
    assert_eq!(
        world.view.watches[&script(1)].balance,
        Balance {
            confirmed: 700,
            unconfirmed: 0
        }
    );
}

#[test]
fn a_payment_first_seen_in_a_block_is_announced_as_confirmed() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    assert_eq!(
        told(&world.mine(1, &[payment]).events),
        ["new 2", "balance 0>5700", "block"]
    );
}

#[test]
fn a_payment_spent_inside_its_block_leaves_nothing_but_history() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let spend = tx(
        &[OutPoint {
            txid: payment.compute_txid(),
            vout: 0,
        }],
        &[(9, 600)],
    );
    assert_eq!(
        told(&world.mine(9, &[payment, spend]).events),
        ["new 2", "block"]
    );
    assert_eq!(world.view.watches[&script(1)].utxo_count, 0);
    assert_eq!(world.view.watches[&script(1)].tx_count, 2);
}

#[test]
fn several_outputs_and_a_self_payment_are_one_balance_change() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700), (1, 0), (1, 300)]);
    assert_eq!(
        told(&world.accept(&payment).events),
        ["new 1", "balance 0>1000"]
    );
    let to_self = tx(
        &[OutPoint {
            txid: payment.compute_txid(),
            vout: 0,
        }],
        &[(1, 690)],
    );
    assert_eq!(
        told(&world.accept(&to_self).events),
        ["new 1", "balance 1000>990"]
    );
}

#[test]
fn a_replacement_that_pays_only_strangers_names_its_successor() {
    for announced in [false, true] {
        let mut world = watching();
        let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
        let child = tx(
            &[OutPoint {
                txid: payment.compute_txid(),
                vout: 0,
            }],
            &[(1, 650)],
        );
        let _ = (world.accept(&payment), world.accept(&child));
        let stranger = tx(&[coin(&world, 0)], &[(9, 500)]);
        if announced {
            let txids = vec![child.compute_txid(), payment.compute_txid()];
            assert_eq!(
                told(&world.send(Input::TxRemoved { txids }).events),
                [""; 0],
                "the reason may follow at once"
            );
        }
        let transition = world.accept(&stranger);
        assert_eq!(
            told(&transition.events),
            ["mempool>replaced 0", "mempool>replaced 0", "balance 650>0"]
        );
        let by = stranger.compute_txid();
        assert_eq!(
            (status(&world, &payment), status(&world, &child)),
            (Status::Replaced { by }, Status::Replaced { by })
        );
        world.check();
    }
}

#[test]
fn a_replaced_ancestor_that_nobody_watches_takes_its_child_along() {
    let mut world = watching();
    let parent = tx(&[coin(&world, 0)], &[(8, 900)]);
    let child = tx(
        &[OutPoint {
            txid: parent.compute_txid(),
            vout: 0,
        }],
        &[(1, 700)],
    );
    let _ = (world.accept(&parent), world.accept(&child));
    let replacement = tx(&[coin(&world, 0)], &[(9, 500)]);
    assert_eq!(
        told(&world.accept(&replacement).events),
        ["mempool>replaced 0", "balance 700>0"]
    );
    assert_eq!(
        status(&world, &child),
        Status::Replaced {
            by: replacement.compute_txid()
        }
    );
}

#[test]
fn a_block_with_a_double_spend_conflicts_the_payment_and_its_child() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let child = tx(
        &[OutPoint {
            txid: payment.compute_txid(),
            vout: 0,
        }],
        &[(1, 650)],
    );
    let _ = (world.accept(&payment), world.accept(&child));
    let double_spend = tx(&[coin(&world, 0)], &[(9, 500)]);
    let told = told(&world.mine(9, std::slice::from_ref(&double_spend)).events);
    assert_eq!(
        told,
        [
            "mempool>conflicted 0",
            "mempool>conflicted 0",
            "balance 650>0",
            "block"
        ]
    );
    assert_eq!(
        status(&world, &child),
        Status::Conflicted {
            by: double_spend.compute_txid()
        }
    );
    world.check();
}

#[test]
fn an_evicted_payment_may_come_back_and_is_not_announced_again() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let _ = world.accept(&payment);
    world.mempool.clear();
    let _ = world.send(Input::TxRemoved {
        txids: vec![payment.compute_txid()],
    });
    assert_eq!(
        told(
            &world
                .send(Input::EvictMissing {
                    spared: Vec::new(),
                    now: 1
                })
                .events
        ),
        ["mempool>evicted 0", "balance 700>0"]
    );
    assert_eq!(
        told(&world.accept(&payment).events),
        ["evicted>mempool 0", "balance 0>700"]
    );
    assert_eq!(
        told(&world.mine(9, &[payment]).events),
        ["mempool>confirmed 1", "block"]
    );
}

#[test]
fn a_reorg_returns_payments_and_forgets_coinbases_and_what_spends_them() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let _ = world.mine(1, std::slice::from_ref(&payment));
    let coinbase = world.chain[1].txdata[0].clone();
    let spend = tx(
        &[OutPoint {
            txid: coinbase.compute_txid(),
            vout: 0,
        }],
        &[(1, 4_000)],
    );
    let _ = world.accept(&spend);
    let events = world.disconnect(1).events;
    let mut heard = told(&events);
    heard.sort();
    assert_eq!(
        heard,
        [
            "balance 4700>700",
            "confirmed>evicted 0",
            "confirmed>mempool 0",
            "mempool>evicted 0",
            "reorg 1"
        ]
    );
    assert_eq!(status(&world, &coinbase), Status::Evicted);
    assert_eq!(
        told(&world.mine(9, &[payment]).events),
        ["mempool>confirmed 1", "block"]
    );
    world.check();
}

#[test]
fn five_hundred_blocks_go_and_come_without_the_node() {
    let mut world = watching();
    let mut last = coin(&world, 0);
    for _ in 0..500 {
        let payment = tx(&[last], &[(1, 1_000)]);
        last = OutPoint {
            txid: payment.compute_txid(),
            vout: 0,
        };
        let _ = world.mine(9, &[payment]);
    }
    let blocks: Vec<_> = world.chain[1..].to_vec();
    assert_eq!(told(&world.disconnect(500).events)[0], "reorg 500");
    assert_eq!(
        world.view.watches[&script(1)].balance,
        Balance {
            confirmed: 0,
            unconfirmed: 1_000
        }
    );
    for block in blocks {
        assert_eq!(
            told(&world.connect(block).events),
            ["mempool>confirmed 1", "block"]
        );
    }
    assert_eq!(
        world.view.watches[&script(1)].balance,
        Balance {
            confirmed: 1_000,
            unconfirmed: 0
        }
    );
}

#[test]
fn depths_are_told_and_told_again_after_a_reorg() {
    let mut world = World::new();
    world.watch(1, &[2, 3]);
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    assert_eq!(
        told(&world.mine(9, std::slice::from_ref(&payment)).events),
        ["new 1", "balance 0>700", "block"]
    );
    assert_eq!(
        told(&world.mine(9, &[]).events),
        ["confirmed>confirmed 2", "block"]
    );
    assert_eq!(
        told(&world.mine(9, &[]).events),
        ["confirmed>confirmed 3", "block"]
    );
    assert_eq!(told(&world.mine(9, &[]).events), ["block"]);
    assert_eq!(
        told(&world.disconnect(3).events),
        ["reorg 3"],
        "the payment's own block stays"
    );
    assert_eq!(
        told(&world.mine(9, &[]).events),
        ["confirmed>confirmed 2", "block"]
    );
}

#[test]
fn an_address_added_late_finds_what_waits_in_the_mempool() {
    let mut world = World::new();
    let parent = tx(&[coin(&world, 0)], &[(1, 700), (1, 200)]);
    let child = tx(
        &[OutPoint {
            txid: parent.compute_txid(),
            vout: 1,
        }],
        &[(9, 150)],
    );
    let _ = (world.accept(&parent), world.accept(&child));
    world.watch(1, &[]);
    assert_eq!(
        world.view.watches[&script(1)].balance,
        Balance {
            confirmed: 0,
            unconfirmed: 700
        }
    );
    world.check();
}

#[test]
fn an_address_added_before_the_first_block_is_covered_from_the_next_one_on() {
    let mut tracker = Tracker::new([1; 16]);
    let mut view = MemoryView::default();
    let mut send = |view: &mut MemoryView, input: Input| {
        view.commit(
            &tracker
                .apply(view, input)
                .expect("the input is legal")
                .changes,
        )
    };
    let request = WatchRequest {
        spk: spk(1),
        label: None,
        depths: Vec::new(),
        baseline: Baseline::Skip,
    };
    send(
        &mut view,
        Input::Watch {
            scripts: vec![request],
            now: 1,
        },
    );
    let genesis = World::new().chain[0].block_hash();
    send(
        &mut view,
        Input::Start {
            first_height: 7,
            blocks: vec![(genesis, 1)],
            now: 2,
        },
    );
    assert_eq!(view.watches[&script(1)].coverage.from_height, 8);
}

#[test]
fn rawtx_alone_proves_nothing_about_a_watched_script() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let transition = world.send(Input::TxSeen {
        tx: (&payment).into(),
        seen: Seen::Rawtx,
        now: 1,
    });
    assert_eq!(
        (transition.events.len(), transition.follow_ups.len()),
        (0, 1)
    );
    world.check();
    world.mempool.push(payment.clone());
    let _ = world.send(Input::TxSeen {
        tx: (&payment).into(),
        seen: Seen::Rawtx,
        now: 1,
    });
    assert_eq!(told(&world.events), ["new 1", "balance 0>700"]);
}

#[test]
fn a_stale_answer_does_not_displace_what_the_node_accepted_later() {
    let mut world = watching();
    let old = tx(&[coin(&world, 0)], &[(1, 700)]);
    let new = tx(&[coin(&world, 0)], &[(1, 690)]);
    let _ = world.accept(&new);
    assert_eq!(
        told(
            &world
                .send(Input::TxSeen {
                    tx: (&old).into(),
                    seen: Seen::Fetched,
                    now: 1
                })
                .events
        ),
        [""; 0]
    );
    world.check();
}

#[test]
fn the_same_coinbase_may_be_in_both_branches() {
    let mut world = watching();
    let _ = world.mine(1, &[]);
    let coinbase = world.chain[1].txdata[0].clone();
    assert_eq!(
        told(&world.disconnect(1).events),
        ["reorg 1", "confirmed>evicted 0", "balance 5000>0"]
    );
    let again = block(world.tip().hash, 77, vec![coinbase]);
    assert_eq!(
        told(&world.connect(again).events),
        ["evicted>confirmed 1", "balance 0>5000", "block"]
    );
    world.check();
}

#[test]
fn refused_inputs_change_nothing() {
    let mut world = watching();
    let _ = world.mine(1, &[]);
    let before = world.view.clone();
    let tip = world.tip();
    let stranger = block(
        world.chain[0].block_hash(),
        5,
        vec![tx(&[OutPoint::null()], &[(1, 1)])],
    );
    let refused = world
        .try_send(Input::Connect {
            block: (&stranger).into(),
            height: 2,
            now: 1,
        })
        .unwrap_err();
    assert_eq!(
        refused,
        ApplyError::DoesNotConnect {
            tip: Some(tip),
            previous: world.chain[0].block_hash()
        }
    );
    let mut broken = block(tip.hash, 5, vec![tx(&[OutPoint::null()], &[(1, 1)])]);
    broken.txdata[0].output[0].script_pubkey = spk(2);
    let refused = world
        .try_send(Input::Connect {
            block: (&broken).into(),
            height: 2,
            now: 1,
        })
        .unwrap_err();
    assert_eq!(refused, ApplyError::BadBlock(broken.block_hash()));
    let to = BlockId {
        height: 1,
        hash: broken.block_hash(),
    };
    assert_eq!(
        world
            .try_send(Input::Disconnect { to, now: 1 })
            .unwrap_err(),
        ApplyError::NotInChain { tip: Some(tip), to }
    );
    let baseline = Input::Baseline {
        block: to,
        scripts: vec![script(1)],
        outputs: Vec::new(),
        now: 1,
    };
    assert_eq!(
        world.try_send(baseline).unwrap_err(),
        ApplyError::NotOurTip {
            tip: Some(tip),
            block: to
        }
    );
    assert_eq!(before, world.view);
    assert_eq!(world.tracker.tip(), Some(tip));
    let _ = world.mine(1, &[]);
    world.check();
}
