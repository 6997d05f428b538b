//! Scripts that are added late: what waits in the mempool, what they owned before, and what a reorg
//! makes of it.

use bitcoin::OutPoint;
use satwatch::tracker::{ApplyError, Balance, Baseline, EventKind, Input, Seen, WatchRequest};

use crate::shorthand::{balance, coin, out, told, watching};
use crate::world::{Heard, World, script, spk, tx};

#[test]
fn an_address_added_late_is_told_at_once_of_a_known_transaction_that_pays_it() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700), (2, 200)]);
    let _ = world.accept(&payment);
    // The process dies right after the commit: what the tracker asks for is never fetched.
    world.dies_after = Some(0);
    world.watch(2, &[]);
    assert_eq!(
        balance(&world, 2),
        Balance {
            confirmed: 0,
            unconfirmed: 200
        }
    );
    assert_eq!(
        told(&world.events),
        ["new 1", "balance 0>700", "new 1", "balance 0>200"]
    );
    world.check();
}

#[test]
fn what_an_answer_did_not_bring_is_asked_for_again_with_every_reading() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(2, 200)]);
    let _ = world.accept(&payment);
    // Monitoring is stopped, so nobody fetches the stranger's payment that an address is added for.
    world.deaf = true;
    world.watch(2, &[]);
    world.snapshot();
    assert_eq!(balance(&world, 2), Balance::default());
    world.deaf = false;
    world.snapshot();
    assert_eq!(
        balance(&world, 2),
        Balance {
            confirmed: 0,
            unconfirmed: 200
        }
    );
    let transition = world.send(Input::MempoolSnapshot {
        tip: world.tip().hash,
        txids: [payment.compute_txid()].into(),
        now: 1,
    });
    assert!(
        transition.follow_ups.is_empty(),
        "it is not asked for once it has come"
    );
    world.check();
}

#[test]
fn a_shared_transaction_survives_the_reorg_of_the_block_in_which_a_scan_found_its_output() {
    for heard in [Heard::Sequence, Heard::Rawtx, Heard::Poll] {
        let mut world = watching();
        let payment = tx(&[coin(&world, 0)], &[(1, 700), (2, 200)]);
        let _ = world.mine(9, std::slice::from_ref(&payment));
        world.watch(2, &[]);
        assert_eq!(
            balance(&world, 2),
            Balance {
                confirmed: 200,
                unconfirmed: 0
            }
        );
        let _ = world.disconnect_heard(1, heard);
        assert_eq!(
            balance(&world, 2),
            Balance {
                confirmed: 0,
                unconfirmed: 200
            },
            "{heard:?}"
        );
        world.check();
        let _ = world.mine(9, &[payment]);
        world.check();
    }
}

#[test]
fn what_a_scan_found_in_a_block_stays_there_though_the_node_takes_the_block_back_for_a_moment() {
    for seen in [Seen::Accepted, Seen::Fetched, Seen::Rawtx] {
        let mut world = watching();
        let payment = tx(&[coin(&world, 0)], &[(2, 200)]);
        let _ = world.mine(9, std::slice::from_ref(&payment));
        world.watch(2, &[]);
        let before = world.view.clone();
        // The node took the block back, accepted its payment, and gave the block again before we
        // looked at its chain.
        let transition = world.send(Input::TxSeen {
            tx: (&payment).into(),
            seen,
            now: 1,
        });
        assert!(
            transition.events.is_empty() && transition.follow_ups.is_empty(),
            "{seen:?}: {transition:?}"
        );
        world.snapshot();
        assert_eq!(before, world.view, "{seen:?}");
        // And for good: what was heard too early is read after the disconnect.
        let _ = world.disconnect_heard(1, Heard::Poll);
        assert_eq!(
            balance(&world, 2),
            Balance {
                confirmed: 0,
                unconfirmed: 200
            }
        );
        world.check();
    }
}

#[test]
fn a_scan_puts_right_what_a_block_that_was_taken_back_for_a_moment_made_unconfirmed() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(2, 200)]);
    let _ = world.mine(9, std::slice::from_ref(&payment));
    world.slow_scans = true;
    world.watch(2, &[]);
    let early = world.send(Input::TxSeen {
        tx: (&payment).into(),
        seen: Seen::Accepted,
        now: 1,
    });
    assert_eq!(told(&early.events), ["new 1", "balance 0>200"]);
    let before = world.events.len();
    world.scan();
    world.snapshot();
    assert_eq!(told(&world.events[before..]), ["mempool>confirmed 1"]);
    assert_eq!(
        balance(&world, 2),
        Balance {
            confirmed: 200,
            unconfirmed: 0
        }
    );
    world.check();
    world.slow_scans = false;
    let _ = world.disconnect_heard(1, Heard::Poll);
    assert_eq!(
        balance(&world, 2),
        Balance {
            confirmed: 0,
            unconfirmed: 200
        }
    );
    world.check();
}

#[test]
fn a_spend_between_the_watch_and_its_scan_is_found_again_after_a_reorg() {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let _ = world.mine(9, std::slice::from_ref(&payment));
    world.slow_scans = true;
    world.watch(1, &[]);
    assert_eq!(world.view.watches[&script(1)].coverage.from_height, 2);
    // The scan sees the chain after this block, and so never the output.
    let spend = tx(&[out(&payment, 0)], &[(9, 600)]);
    let _ = world.mine(9, &[spend]);
    world.scan();
    assert_eq!(
        world.view.watches[&script(1)].coverage.from_height,
        3,
        "block 2 may have held more than we know"
    );
    world.slow_scans = false;
    let _ = world.disconnect(1);
    assert_eq!(
        balance(&world, 1),
        Balance {
            confirmed: 700,
            unconfirmed: -700
        }
    );
    world.check();
}

#[test]
fn a_scan_that_speaks_for_another_block_is_refused_and_the_next_one_counts() {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let _ = world.mine(9, std::slice::from_ref(&payment));
    world.slow_scans = true;
    world.watch(1, &[]);
    let old = world.tip();
    let _ = world.mine(9, &[]);
    let baseline = Input::Baseline {
        block: old,
        scripts: vec![script(1)],
        outputs: Vec::new(),
        now: 1,
    };
    assert_eq!(
        world.try_send(baseline).unwrap_err(),
        ApplyError::NotOurTip {
            tip: Some(world.tip()),
            block: old
        }
    );
    assert!(world.view.watches[&script(1)].coverage.pending);
    world.scan();
    assert_eq!(told(&world.events), ["block", "block", "balance 0>700"]);
    world.check();
}

#[test]
fn a_scan_finds_the_output_that_a_strangers_transaction_in_the_mempool_spends() {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let _ = world.mine(9, std::slice::from_ref(&payment));
    let spend = tx(&[out(&payment, 0)], &[(9, 600)]);
    let _ = world.accept(&spend);
    world.watch(1, &[]);
    assert_eq!(
        balance(&world, 1),
        Balance {
            confirmed: 700,
            unconfirmed: -700
        }
    );
    assert_eq!(
        told(&world.events),
        ["block", "balance 0>700", "new 1", "balance 700>0"]
    );
    world.check();
}

#[test]
fn a_known_transaction_that_turns_out_to_spend_from_the_address_says_so() {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let _ = world.mine(9, std::slice::from_ref(&payment));
    world.slow_scans = true;
    world.watch(1, &[]);
    let spend = tx(&[out(&payment, 0)], &[(9, 100), (1, 590)]);
    assert_eq!(
        told(&world.accept(&spend).events),
        ["new 1", "balance 0>590"]
    );
    let before = world.events.len();
    world.scan();
    assert_eq!(
        told(&world.events[before..]),
        ["mempool>mempool 0"],
        "found and spent: the sum stays"
    );
    let EventKind::TransactionUpdate { transaction, .. } = &world.events[before].kind else {
        panic!("{:?}", world.events)
    };
    assert_eq!((transaction.received, transaction.sent), (590, 700));
    assert_eq!(
        balance(&world, 1),
        Balance {
            confirmed: 700,
            unconfirmed: -110
        }
    );
}

#[test]
fn a_child_that_is_fetched_before_its_parent_is_put_right() {
    let mut world = watching();
    let parent = tx(&[coin(&world, 0)], &[(1, 700)]);
    let child = tx(&[out(&parent, 0)], &[(1, 650)]);
    world.mempool = vec![child.clone(), parent.clone()];
    world.snapshot();
    assert_eq!(
        told(&world.events),
        ["new 1", "balance 0>650", "mempool>mempool 0", "new 1"]
    );
    let touch = world.view.txs[&child.compute_txid()].touches[0];
    assert_eq!((touch.received, touch.sent), (650, 700));
    world.check();
}

#[test]
fn only_the_grandchild_of_strangers_touches_us_and_falls_with_them() {
    let mut world = watching();
    let stranger = tx(&[coin(&world, 0)], &[(8, 900)]);
    let child = tx(&[out(&stranger, 0)], &[(8, 800)]);
    let grandchild = tx(&[out(&child, 0)], &[(1, 700)]);
    for tx in [&stranger, &child, &grandchild] {
        let _ = world.accept(tx);
    }
    world.restart();
    let double_spend = tx(&[coin(&world, 0)], &[(8, 1)]);
    assert_eq!(
        told(&world.mine(9, &[double_spend]).events),
        ["mempool>conflicted 0", "balance 700>0", "block"]
    );
    world.check();
}

#[test]
fn a_reorg_below_the_watch_asks_for_the_past_again_and_one_above_it_does_not() {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let spend = tx(&[out(&payment, 0)], &[(9, 600)]);
    let _ = world.mine(9, std::slice::from_ref(&payment));
    let _ = world.mine(9, &[spend]);
    world.watch(1, &[]);
    let _ = world.mine(9, &[]);
    world.slow_scans = true;
    let _ = world.disconnect(1);
    assert!(
        !world.view.watches[&script(1)].coverage.pending,
        "everything since the watch is known"
    );
    let _ = world.disconnect(1);
    let coverage = world.view.watches[&script(1)].coverage.clone();
    assert_eq!(
        (
            coverage.from_height,
            coverage.utxos_complete,
            coverage.pending
        ),
        (2, false, true)
    );
    world.scan();
    assert_eq!(
        balance(&world, 1),
        Balance {
            confirmed: 700,
            unconfirmed: -700
        }
    );
    world.check();
}

#[test]
fn a_coinbase_that_a_scan_found_takes_its_spender_along_when_its_block_goes() {
    let mut world = World::new();
    let _ = world.mine(1, &[]);
    let coinbase = world.chain[1].txdata[0].clone();
    let _ = world.mine(9, &[]);
    world.watch(1, &[]);
    let spend = tx(&[out(&coinbase, 0)], &[(1, 4_000)]);
    assert_eq!(
        told(&world.accept(&spend).events),
        ["new 1", "balance 5000>4000"]
    );
    let events = world.disconnect(2).events;
    assert_eq!(
        told(&events),
        ["reorg 2", "mempool>evicted 0", "balance 4000>0"]
    );
    world.check();
}

#[test]
fn a_scan_counts_for_scripts_that_wait_for_it_and_never_twice() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let _ = world.mine(9, std::slice::from_ref(&payment));
    let found = |number: u8, outpoint: OutPoint| satwatch::tracker::FoundOutput {
        outpoint,
        spk: spk(number),
        value: bitcoin::Amount::from_sat(700),
        height: 1,
        coinbase: false,
    };
    // Neither asked for, nor watched.
    let outputs = vec![found(1, coin(&world, 3)), found(2, coin(&world, 4))];
    let baseline = Input::Baseline {
        block: world.tip(),
        scripts: vec![script(1), script(2)],
        outputs,
        now: 1,
    };
    assert!(world.send(baseline).changes.is_empty());
    // Asked for again: what is known stays as it is.
    world.slow_scans = true;
    let again = WatchRequest {
        spk: spk(1),
        label: None,
        depths: Vec::new(),
        baseline: Baseline::Refresh,
    };
    let _ = world.send(Input::Watch {
        scripts: vec![again],
        now: 1,
    });
    let _ = world.accept(&tx(&[out(&payment, 0)], &[(9, 1)]));
    world.scan();
    assert_eq!(
        balance(&world, 1),
        Balance {
            confirmed: 700,
            unconfirmed: -700
        }
    );
    assert_eq!(
        world.view.watches[&script(1)].coverage.from_height,
        1,
        "nothing was unknown, so nothing is"
    );
    world.check();
}

#[test]
fn a_stranger_that_turned_out_to_matter_is_not_asked_for_once_its_block_has_come() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let spend = tx(&[out(&payment, 0)], &[(9, 600)]);
    // The parent is not known, so its child matters to nobody.
    world.mempool = vec![payment.clone(), spend.clone()];
    let _ = world.send(Input::TxSeen {
        tx: (&spend).into(),
        seen: Seen::Accepted,
        now: 1,
    });
    let transition = world.mine(9, &[payment, spend]);
    assert_eq!(
        (told(&transition.events), transition.follow_ups),
        (vec!["new 2".to_owned(), "block".to_owned()], Vec::new())
    );
    world.check();
}
