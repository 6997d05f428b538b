//! Very many transactions that left the mempool are evicted in portions.

use bitcoin::{Transaction, Txid};
use satwatch::tracker::{EventKind, Input, Phase, Transition};

use crate::pretended::laws::script_of;
use crate::shorthand::{balance, coin, out};
use crate::world::{World, script, tx};

/// Scripts 1 and 2 are watched, and portions come when the test sends them.
fn watching() -> World {
    let mut world = World::new();
    world.watch(1, &[]);
    world.watch(2, &[]);
    world.slow_evictions = true;
    world
}

/// The node has lost these, and the verdict is given; what the first portion did.
fn lose(world: &mut World, txs: &[Transaction]) -> Transition {
    let txids: Vec<Txid> = txs.iter().map(Transaction::compute_txid).collect();
    world
        .mempool
        .retain(|tx| !txids.contains(&tx.compute_txid()));
    let _ = world.send(Input::TxRemoved { txids });
    let (spared, now) = (Vec::new(), world.now);
    world.send(Input::EvictMissing { spared, now })
}

fn phase(world: &World, tx: &Transaction) -> Phase {
    world.view.txs[&tx.compute_txid()].status.phase()
}

#[test]
fn very_many_are_evicted_in_portions_each_once_and_parents_first() {
    let mut world = watching();
    // Its child would be the first by its id.
    let (parent, child) = (0..)
        .map(|more| {
            let parent = tx(&[coin(&world, 0)], &[(1, 700), (9, 50 + more)]);
            let child = tx(&[out(&parent, 0)], &[(2, 600)]);
            (parent, child)
        })
        .find(|(parent, child)| child.compute_txid() < parent.compute_txid())
        .expect("half of them are so");
    let others = (1..9).map(|n| tx(&[coin(&world, n)], &[(1, 10)]));
    let txs: Vec<Transaction> = [parent, child].into_iter().chain(others).collect();
    for tx in &txs {
        let _ = world.accept(tx);
    }
    let mut portions = vec![lose(&mut world, &txs)];
    while world.tracker.is_evicting() {
        portions.push(world.send(Input::EvictMore));
    }
    assert!(portions.len() > 3, "{}", portions.len());
    let (mut evicted, mut balance) = (0, 80);
    for portion in portions {
        assert!(portion.changes.len() <= 20, "{}", portion.changes.len());
        for event in portion.events {
            match event.kind {
                EventKind::TransactionUpdate { transaction, .. } => {
                    assert_eq!(transaction.status.phase(), Phase::Evicted);
                    evicted += 1;
                }
                EventKind::BalanceChange { subject, new, .. }
                    if script_of(&subject) == script(1) =>
                {
                    assert!(new.total() < balance, "what was spent never comes back");
                    balance = new.total();
                }
                _ => {}
            }
        }
    }
    // Of the child two scripts are told.
    assert_eq!((evicted, balance), (txs.len() + 1, 0));
    world.check();
}

#[test]
fn what_happens_to_one_between_two_portions_is_told_in_place_of_its_eviction() {
    let mut world = watching();
    let mut txs: Vec<_> = (0..5).map(|n| tx(&[coin(&world, n)], &[(1, 10)])).collect();
    txs.sort_by_key(Transaction::compute_txid);
    for tx in &txs {
        let _ = world.accept(tx);
    }
    let _ = lose(&mut world, &txs);
    let [first, second, back, mined, replaced] = &txs[..] else {
        unreachable!("there are five")
    };
    assert_eq!(phase(&world, second), Phase::Evicted);
    let _ = world.accept(back);
    let _ = world.mine(9, std::slice::from_ref(mined));
    let by = tx(&[replaced.input[0].previous_output], &[(2, 9)]);
    let _ = world.accept(&by);
    assert!(!world.tracker.is_evicting());
    assert!(world.send(Input::EvictMore).changes.is_empty());
    let phases = [first, back, mined, replaced, &by].map(|tx| phase(&world, tx));
    let expected = [
        Phase::Evicted,
        Phase::Mempool,
        Phase::Confirmed,
        Phase::Replaced,
        Phase::Mempool,
    ];
    assert_eq!(phases, expected);
    world.check();
}

#[test]
fn a_reading_is_the_last_word_on_what_is_being_evicted() {
    let mut world = watching();
    let txs: Vec<_> = (0..5).map(|n| tx(&[coin(&world, n)], &[(1, 10)])).collect();
    for tx in &txs {
        let _ = world.accept(tx);
    }
    let _ = lose(&mut world, &txs);
    // The node has them again, and nobody heard so.
    world.mempool = txs.clone();
    world.snapshot();
    assert!(!world.tracker.is_evicting());
    assert!(txs.iter().all(|tx| phase(&world, tx) == Phase::Mempool));
    world.check();
}

#[test]
fn a_process_that_dies_between_two_portions_evicts_the_others_after_the_next_start() {
    let mut world = watching();
    let parent = tx(&[coin(&world, 0)], &[(1, 700), (9, 50)]);
    let child = tx(&[out(&parent, 0)], &[(2, 600)]);
    let others = (1..6).map(|n| tx(&[coin(&world, n)], &[(1, 10)]));
    let txs: Vec<Transaction> = [parent, child].into_iter().chain(others).collect();
    for tx in &txs {
        let _ = world.accept(tx);
    }
    let before = world.events.len();
    let _ = lose(&mut world, &txs);
    world.tracker = world.loaded();
    assert!(!world.tracker.is_evicting(), "the rows say nothing of it");
    let is_left = |tx: &&Transaction| phase(&world, tx) == Phase::Mempool;
    let left = txs.iter().filter(is_left).count();
    assert!((1..txs.len()).contains(&left), "{left}");
    world.slow_evictions = false;
    world.snapshot();
    let mut evicted = Vec::new();
    for event in &world.events[before..] {
        if let EventKind::TransactionUpdate { transaction, .. } = &event.kind {
            assert_eq!(transaction.status.phase(), Phase::Evicted);
            evicted.push(transaction.txid);
        }
    }
    // Of the child two scripts are told.
    let mut expected: Vec<Txid> = txs.iter().map(Transaction::compute_txid).collect();
    expected.push(txs[1].compute_txid());
    evicted.sort_unstable();
    expected.sort_unstable();
    assert_eq!(evicted, expected, "each is told once");
    assert_eq!([1, 2].map(|it| balance(&world, it).total()), [0, 0]);
    world.check();
}

#[test]
fn a_script_that_is_added_between_two_portions_keeps_nothing_of_what_goes() {
    let mut world = watching();
    let mut txs: Vec<_> = (0..6)
        .map(|n| tx(&[coin(&world, n)], &[(1, 10), (3, 5)]))
        .collect();
    // Not tracked before script 3 is watched.
    txs.push(tx(&[coin(&world, 6)], &[(3, 5)]));
    for tx in &txs {
        let _ = world.accept(tx);
    }
    let _ = lose(&mut world, &txs);
    world.watch(3, &[]);
    assert!(world.tracker.is_evicting());
    assert_ne!(balance(&world, 3).total(), 0, "some are still to go");
    while world.tracker.is_evicting() {
        let _ = world.send(Input::EvictMore);
    }
    assert_eq!([1, 3].map(|it| balance(&world, it).total()), [0, 0]);
    let mut tracked = txs[..6].iter();
    assert!(tracked.all(|tx| phase(&world, tx) == Phase::Evicted));
    world.check();
}
