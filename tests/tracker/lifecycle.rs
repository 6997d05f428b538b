//! One transaction's life per address: replaced, conflicted, evicted, returned, mined after all;
//! and what a subscriber hears of it.

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Transaction, Txid};
use satwatch::tracker::{Balance, Cause, Event, EventKind, Input, Phase, Seen, Status};

use crate::shorthand::{coin, out, status, told, watching};
use crate::world::{Heard, World, script, tx};

fn causes(events: &[Event]) -> Vec<Cause> {
    let cause = |event: &Event| match event.kind {
        EventKind::BalanceChange { cause, .. } => Some(cause),
        _ => None,
    };
    events.iter().filter_map(cause).collect()
}

#[test]
fn a_chain_replaced_twice_names_each_successor_once() {
    let mut world = watching();
    let first = tx(&[coin(&world, 0)], &[(1, 700)]);
    let second = tx(&[coin(&world, 0)], &[(1, 690)]);
    let third = tx(&[coin(&world, 0)], &[(9, 680)]);
    let _ = world.accept(&first);
    assert_eq!(
        told(&world.accept(&second).events),
        ["mempool>replaced 0", "new 1", "balance 700>690"]
    );
    assert_eq!(
        told(&world.accept(&third).events),
        ["mempool>replaced 0", "balance 690>0"]
    );
    assert_eq!(
        status(&world, &first),
        Status::Replaced {
            by: second.compute_txid()
        }
    );
    assert_eq!(
        status(&world, &second),
        Status::Replaced {
            by: third.compute_txid()
        }
    );
    world.check();
}

#[test]
fn one_replacement_of_several_transactions_tells_of_each_and_of_their_descendants() {
    let mut world = watching();
    let first = tx(&[coin(&world, 0)], &[(1, 700)]);
    let second = tx(&[coin(&world, 1)], &[(1, 300)]);
    let child = tx(&[out(&first, 0), out(&second, 0)], &[(1, 990)]);
    for tx in [&first, &second, &child] {
        let _ = world.accept(tx);
    }
    let both = tx(&[coin(&world, 0), coin(&world, 1)], &[(9, 900)]);
    let events = world.accept(&both).events;
    assert_eq!(
        told(&events),
        [
            "mempool>replaced 0",
            "mempool>replaced 0",
            "mempool>replaced 0",
            "balance 990>0"
        ]
    );
    assert_eq!(causes(&events), [Cause::Transaction(both.compute_txid())]);
    world.check();
    world.kept().check_fates();
}

#[test]
fn a_replaced_payment_that_is_mined_after_all_is_confirmed_and_its_successor_conflicted() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let successor = tx(&[coin(&world, 0)], &[(1, 690)]);
    let _ = (world.accept(&payment), world.accept(&successor));
    let events = world.mine(9, std::slice::from_ref(&payment)).events;
    assert_eq!(
        told(&events),
        [
            "mempool>conflicted 0",
            "replaced>confirmed 1",
            "balance 690>700",
            "block"
        ]
    );
    assert_eq!(
        status(&world, &successor),
        Status::Conflicted {
            by: payment.compute_txid()
        }
    );
    world.check();
}

#[test]
fn a_payment_whose_replacement_is_in_the_very_block_that_tells_of_it_is_conflicted() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let _ = world.accept(&payment);
    let replacement = tx(&[coin(&world, 0)], &[(1, 650)]);
    let events = world.mine(9, std::slice::from_ref(&replacement)).events;
    assert_eq!(
        told(&events),
        ["mempool>conflicted 0", "new 1", "balance 700>650", "block"]
    );
    world.check();
    world.kept().check_fates();
}

#[test]
fn a_conflict_that_the_node_announced_before_its_block_is_no_eviction() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let child = tx(&[out(&payment, 0)], &[(9, 650)]);
    let _ = (world.accept(&payment), world.accept(&child));
    let double_spend = tx(&[coin(&world, 0)], &[(9, 500)]);
    let txids = vec![payment.compute_txid(), child.compute_txid()];
    assert_eq!(
        told(&world.send(Input::TxRemoved { txids }).events),
        [""; 0]
    );
    let events = world.mine(9, std::slice::from_ref(&double_spend)).events;
    assert_eq!(
        told(&events),
        ["mempool>conflicted 0", "mempool>conflicted 0", "block"]
    );
    assert_eq!(
        told(
            &world
                .send(Input::EvictMissing {
                    spared: Vec::new(),
                    now: 1
                })
                .events
        ),
        [""; 0],
        "the verdict was given"
    );
    world.check();
}

#[test]
fn a_conflict_through_strangers_reaches_the_descendant_that_touches_us() {
    let mut world = watching();
    let stranger = tx(&[coin(&world, 0)], &[(8, 900), (8, 50)]);
    let middle = tx(&[out(&stranger, 0)], &[(8, 800)]);
    let ours = tx(&[out(&middle, 0), out(&stranger, 1)], &[(1, 700)]);
    for tx in [&stranger, &middle, &ours] {
        let _ = world.accept(tx);
    }
    let double_spend = tx(&[coin(&world, 0)], &[(9, 1)]);
    let by = double_spend.compute_txid();
    assert_eq!(
        told(&world.mine(9, &[double_spend]).events),
        ["mempool>conflicted 0", "balance 700>0", "block"]
    );
    assert_eq!(status(&world, &ours), Status::Conflicted { by });
}

#[test]
fn a_double_spend_on_the_other_branch_conflicts_what_came_back_from_the_stale_one() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let spend = tx(&[out(&payment, 0)], &[(1, 600)]);
    let _ = world.mine(9, &[payment.clone(), spend.clone()]);
    let first = told(&world.disconnect(1).events);
    assert_eq!(
        first,
        ["reorg 1", "confirmed>mempool 0", "confirmed>mempool 0"],
        "the sum stays, so no balance is told"
    );
    let double_spend = tx(&[coin(&world, 0)], &[(9, 500)]);
    let events = world.mine(9, &[double_spend]).events;
    assert_eq!(
        told(&events),
        [
            "mempool>conflicted 0",
            "mempool>conflicted 0",
            "balance 600>0",
            "block"
        ]
    );
    assert_eq!(causes(&events), [Cause::Block(world.tip().hash)]);
    // And the first branch wins in the end.
    let _ = world.disconnect(1);
    let again = told(&world.mine(9, &[payment, spend]).events);
    assert_eq!(
        again,
        [
            "conflicted>confirmed 1",
            "conflicted>confirmed 1",
            "balance 0>600",
            "block"
        ]
    );
    world.check();
}

#[test]
fn the_same_transaction_may_stand_elsewhere_on_the_other_branch() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let other = tx(&[coin(&world, 1)], &[(9, 700)]);
    let _ = world.mine(9, std::slice::from_ref(&payment));
    let _ = world.disconnect(1);
    let _ = world.mine(9, &[]);
    let _ = world.mine(9, &[other, payment.clone()]);
    let Status::Confirmed { block, position } = status(&world, &payment) else {
        panic!("it is confirmed")
    };
    assert_eq!((block, position), (world.tip(), 2));
    assert_eq!(world.view.txs[&payment.compute_txid()].order, (2 << 32) + 2);
    assert_eq!(world.view.watches[&script(1)].tx_count, 1);
    world.check();
}

#[test]
fn the_same_block_may_go_and_come() {
    let mut world = World::new();
    world.watch(1, &[2]);
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let _ = world.mine(1, std::slice::from_ref(&payment));
    let _ = world.mine(9, &[]);
    let before = world.view.watches[&script(1)].balance;
    let (_, stale) = world.disconnect_heard(2, Heard::Poll);
    let before_them = world.events.len();
    for block in stale {
        let _ = world.connect(block);
    }
    let told = told(&world.events[before_them..]);
    assert_eq!(
        told[..2],
        ["evicted>confirmed 1", "mempool>confirmed 1"],
        "in block order: the coinbase, then the payment"
    );
    assert_eq!(
        told[2..],
        [
            "balance 700>5700",
            "block",
            "confirmed>confirmed 2",
            "confirmed>confirmed 2",
            "block"
        ]
    );
    assert_eq!(before, world.view.watches[&script(1)].balance);
    world.check();
}

#[test]
fn a_payment_evicted_with_its_parent_returns_with_it_and_keeps_its_first_sight() {
    let mut world = watching();
    let parent = tx(&[coin(&world, 0)], &[(8, 900)]);
    let child = tx(&[out(&parent, 0)], &[(1, 700)]);
    let _ = (world.accept(&parent), world.accept(&child));
    let first_seen = world.view.txs[&child.compute_txid()].first_seen;
    let left = world.drop_with_descendants(&[parent.compute_txid()], Status::Evicted);
    let before = world.events.len();
    world.tell(&[], left, Heard::Sequence);
    assert_eq!(
        told(&world.events[before..]),
        ["mempool>evicted 0", "balance 700>0"]
    );
    assert_eq!(
        causes(&world.events[before..]),
        [Cause::Removed(child.compute_txid())]
    );
    let _ = world.accept(&parent);
    assert_eq!(
        told(&world.accept(&child).events),
        ["evicted>mempool 0", "balance 0>700"]
    );
    let row = &world.view.txs[&child.compute_txid()];
    assert_eq!(
        (row.first_seen, world.view.watches[&script(1)].tx_count),
        (first_seen, 1)
    );
    world.check();
}

#[test]
fn a_removal_and_a_return_before_the_verdict_are_nothing() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let _ = world.accept(&payment);
    let txids = vec![payment.compute_txid(), Txid::all_zeros()];
    let _ = world.send(Input::TxRemoved { txids });
    assert_eq!(told(&world.accept(&payment).events), [""; 0]);
    let settled = world.send(Input::EvictMissing {
        spared: Vec::new(),
        now: 1,
    });
    assert!(settled.changes.is_empty() && settled.events.is_empty());
}

#[test]
fn what_is_spared_is_judged_later_unless_it_descends_from_what_is_judged() {
    let mut world = watching();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let child = tx(&[out(&payment, 0)], &[(1, 650)]);
    let other = tx(&[coin(&world, 1)], &[(1, 300)]);
    let txs = [&payment, &child, &other];
    for tx in txs {
        let _ = world.accept(tx);
    }
    let txids = txs.map(Transaction::compute_txid);
    let _ = world.send(Input::TxRemoved {
        txids: txids.to_vec(),
    });
    let mut phases_after = |spared: &[Txid]| {
        let _ = world.send(Input::EvictMissing {
            spared: spared.to_vec(),
            now: 1,
        });
        txids.map(|txid| world.view.txs[&txid].status.phase())
    };
    assert_eq!(
        phases_after(&txids[1..]),
        [Phase::Evicted, Phase::Evicted, Phase::Mempool]
    );
    assert_eq!(phases_after(&[]), [Phase::Evicted; 3]);
}

#[test]
fn a_reading_of_another_tip_is_no_verdict() {
    let mut world = watching();
    let _ = world.accept(&tx(&[coin(&world, 0)], &[(1, 700)]));
    let snapshot = Input::MempoolSnapshot {
        tip: BlockHash::all_zeros(),
        txids: Default::default(),
        now: 1,
    };
    let _ = (
        world.send(snapshot),
        world.send(Input::EvictMissing {
            spared: Vec::new(),
            now: 1,
        }),
    );
    world.check();
}

#[test]
fn what_the_node_accepted_before_we_heard_of_the_reorg_replaces_what_was_in_the_stale_block() {
    let mut world = watching();
    let parent = tx(&[coin(&world, 0)], &[(1, 700)]);
    let spend = tx(&[out(&parent, 0)], &[(9, 600)]);
    let child = tx(&[out(&spend, 0)], &[(1, 500)]);
    let _ = world.mine(9, std::slice::from_ref(&parent));
    let _ = world.mine(9, &[spend.clone(), child.clone()]);
    // The node has gone back one block and accepted this; its word of that overtakes the blocks.
    let rival = tx(&[out(&parent, 0)], &[(1, 690)]);
    let _ = world.send(Input::TxSeen {
        tx: (&rival).into(),
        seen: Seen::Accepted,
        now: 1,
    });
    world.chain.pop();
    world.mempool = vec![rival.clone()];
    let _ = world.send(Input::Disconnect {
        to: world.tip(),
        now: 1,
    });
    assert_eq!(
        status(&world, &spend),
        Status::Replaced {
            by: rival.compute_txid()
        }
    );
    assert_eq!(
        status(&world, &child),
        Status::Replaced {
            by: rival.compute_txid()
        }
    );
    assert_eq!(
        world.view.watches[&script(1)].balance,
        Balance {
            confirmed: 700,
            unconfirmed: -10
        }
    );
    world.check();
}

#[test]
fn a_rival_that_is_leaving_makes_way_for_what_returns_from_the_stale_block() {
    let mut world = watching();
    let parent = tx(&[coin(&world, 0)], &[(1, 700)]);
    let spend = tx(&[out(&parent, 0)], &[(1, 600)]);
    let rival = tx(&[out(&parent, 0)], &[(1, 690)]);
    let _ = world.mine(9, std::slice::from_ref(&parent));
    let _ = world.mine(9, std::slice::from_ref(&spend));
    let _ = world.send(Input::TxSeen {
        tx: (&rival).into(),
        seen: Seen::Accepted,
        now: 1,
    });
    let _ = world.send(Input::TxRemoved {
        txids: vec![rival.compute_txid()],
    });
    let told = told(&world.disconnect(1).events);
    assert_eq!(
        told,
        [
            "reorg 1",
            "mempool>replaced 0",
            "confirmed>mempool 0",
            "balance 1290>600"
        ]
    );
    assert_eq!(
        status(&world, &rival),
        Status::Replaced {
            by: spend.compute_txid()
        }
    );
    world.check();
}

#[test]
fn a_stranger_of_the_stale_block_and_its_unproven_rival_do_not_both_stay() {
    let mut world = watching();
    let parent = tx(&[coin(&world, 0)], &[(1, 700)]);
    let spend = tx(&[out(&parent, 0)], &[(9, 600)]);
    let _ = world.mine(9, std::slice::from_ref(&parent));
    let _ = world.mine(9, std::slice::from_ref(&spend));
    // A transaction of the other branch comes over `rawtx` before we hear of that branch, and is in
    // no mempool.
    let rival = tx(&[out(&parent, 0)], &[(8, 690)]);
    let _ = world.send(Input::TxSeen {
        tx: (&rival).into(),
        seen: Seen::Rawtx,
        now: 1,
    });
    assert_eq!(
        told(&world.disconnect(1).events),
        ["reorg 1", "confirmed>mempool 0"]
    );
    let told = told(&world.mine(9, std::slice::from_ref(&rival)).events);
    assert_eq!(told, ["mempool>conflicted 0", "new 1", "block"]);
    world.check();
}

#[test]
fn depths_count_from_the_block_that_holds_the_payment_now() {
    let mut world = World::new();
    world.watch(1, &[2, 3]);
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let _ = world.mine(9, std::slice::from_ref(&payment));
    let _ = world.mine(9, &[]);
    // Two blocks go, three come, the payment in the second of them.
    let _ = world.disconnect(2);
    assert_eq!(told(&world.mine(9, &[]).events), ["block"]);
    assert_eq!(
        told(&world.mine(9, std::slice::from_ref(&payment)).events),
        ["mempool>confirmed 1", "block"]
    );
    assert_eq!(
        told(&world.mine(9, &[]).events),
        ["confirmed>confirmed 2", "block"]
    );
    world.watch(1, &[4]);
    assert_eq!(
        told(&world.mine(9, &[]).events),
        ["confirmed>confirmed 3", "block"]
    );
    world.restart();
    assert_eq!(
        told(&world.mine(9, &[]).events),
        ["confirmed>confirmed 4", "block"]
    );
}

#[test]
fn history_is_newest_first_by_place_and_what_died_stands_where_it_died() {
    let mut world = watching();
    let order = |world: &World, tx: &bitcoin::Transaction| world.view.txs[&tx.compute_txid()].order;
    let [mined, waiting, dead] = [0, 1, 2].map(|vout| tx(&[coin(&world, vout)], &[(1, 700)]));
    for tx in [&mined, &waiting, &dead] {
        let _ = world.accept(tx);
    }
    let left = world.drop_with_descendants(&[dead.compute_txid()], Status::Evicted);
    world.tell(&[], left, Heard::Sequence);
    let _ = world.mine(9, std::slice::from_ref(&mined));
    assert!(order(&world, &waiting) > order(&world, &mined));
    assert_eq!(
        order(&world, &dead) >> 32,
        1,
        "it died when block 1 was next"
    );
    let before = order(&world, &waiting);
    world.snapshot();
    let _ = world.accept(&waiting);
    assert_eq!(
        order(&world, &waiting),
        before,
        "being told again moves nothing"
    );
}
