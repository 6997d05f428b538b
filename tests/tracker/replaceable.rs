//! Case 1: which unconfirmed transactions can be replaced, under each policy of the node.

use bitcoin::transaction::Version;
use bitcoin::{Sequence, Transaction};
use satwatch::tracker::{EventKind, Input, Replacement, Seen};

use crate::shorthand::{coin, out, watching};
use crate::world::{World, tx};

use Replacement::{Any, Never, Signalled};

/// It does not signal.
fn final_one(mut tx: Transaction) -> Transaction {
    for input in &mut tx.input {
        input.sequence = Sequence::MAX;
    }
    tx
}

fn version_three(tx: Transaction) -> Transaction {
    Transaction {
        version: Version(3),
        ..final_one(tx)
    }
}

/// Whether the row says so, which REST answers from.
fn can(world: &World, tx: &Transaction, policy: Replacement) -> bool {
    world.view.txs[&tx.compute_txid()].is_replaceable(policy)
}

/// What the event that announced it said.
fn announced(world: &World, tx: &Transaction) -> bool {
    let txid = tx.compute_txid();
    let said = world.events.iter().find_map(|event| match &event.kind {
        EventKind::NewTransactions { transactions, .. } => transactions
            .iter()
            .find(|transaction| transaction.txid == txid),
        _ => None,
    });
    said.expect("it was announced").replaceable
}

#[test]
fn case_01_what_can_be_replaced_is_what_the_node_lets_be_replaced() {
    for (policy, told) in [
        (Any, [true, true, true]),
        (Signalled, [true, false, true]),
        (Never, [false, false, false]),
    ] {
        let mut world = watching();
        let _ = world.send(Input::Policy(policy));
        let signals = tx(&[coin(&world, 0)], &[(1, 700)]);
        let is_final = final_one(tx(&[coin(&world, 1)], &[(1, 700)]));
        let truc = version_three(tx(&[coin(&world, 2)], &[(1, 700)]));
        for (payment, told) in [&signals, &is_final, &truc].into_iter().zip(told) {
            let _ = world.accept(payment);
            let said = (announced(&world, payment), can(&world, payment, policy));
            assert_eq!(said, (told, told), "{policy:?} {payment:?}");
        }
        let _ = world.mine(9, &[signals.clone(), is_final, truc]);
        assert!(!can(&world, &signals, policy), "it is confirmed");
    }
}

#[test]
fn until_the_policy_is_known_nothing_is_told_to_be_final() {
    let mut world = watching();
    let _ = world.send(Input::Policy(Replacement::default()));
    let payment = final_one(tx(&[coin(&world, 0)], &[(1, 700)]));
    let _ = world.accept(&payment);
    assert!(announced(&world, &payment));
}

/// A chain of strangers' transactions, of which only the first signals; the last pays script 1.
fn family(world: &World) -> [Transaction; 3] {
    let first = tx(&[coin(world, 0)], &[(9, 900)]);
    let second = final_one(tx(&[out(&first, 0), coin(world, 1)], &[(9, 800)]));
    let third = final_one(tx(&[out(&second, 0)], &[(1, 700)]));
    [first, second, third]
}

#[test]
fn case_01_a_descendant_inherits_while_its_ancestor_is_unconfirmed() {
    let mut world = watching();
    let _ = world.send(Input::Policy(Signalled));
    let [first, second, third] = family(&world);
    for tx in [&first, &second, &third] {
        let _ = world.accept(tx);
    }
    assert!(announced(&world, &third) && can(&world, &third, Signalled));
    // A process that knows only rows goes by them.
    let mut twin = world.restarted_twin();
    assert!(can(&twin, &third, Signalled));
    for world in [&mut world, &mut twin] {
        let transition = world.mine(9, std::slice::from_ref(&first));
        assert_eq!(transition.events.len(), 1, "only the block is told");
        assert!(!can(world, &third, Signalled));
    }
    let (_, _) = (world.disconnect(1), world.accept(&first));
    assert!(can(&world, &third, Signalled), "the ancestor is back");
    let _ = world.mine(9, &[first, second, third.clone()]);
    assert!(!can(&world, &third, Signalled));
}

#[test]
fn case_01_a_block_that_confirms_several_generations_leaves_nothing_inherited() {
    let mut world = watching();
    let _ = world.send(Input::Policy(Signalled));
    let [first, second, third] = family(&world);
    for tx in [&first, &second, &third] {
        let _ = world.accept(tx);
    }
    let _ = world.mine(9, &[first, second]);
    assert!(!can(&world, &third, Signalled));
    world.kept().check_inherited();
}

#[test]
fn case_01_an_ancestor_that_is_heard_of_late_counts() {
    let mut world = watching();
    let _ = world.send(Input::Policy(Signalled));
    let [first, second, third] = family(&world);
    let _ = world.accept(&third);
    assert!(!announced(&world, &third));
    for (tx, seen) in [(&first, Seen::Accepted), (&second, Seen::Fetched)] {
        let now = world.now;
        let _ = world.send(Input::TxSeen {
            tx: tx.into(),
            seen,
            now,
        });
    }
    assert!(can(&world, &third, Signalled));
}

#[test]
fn case_01_what_came_unproven_counts_with_the_next_reading() {
    let mut world = watching();
    let [first, second, third] = family(&world);
    for tx in [&third, &second, &first] {
        world.mempool.insert(0, tx.clone());
    }
    let _ = world.send(Input::TxSeen {
        tx: (&third).into(),
        seen: Seen::Accepted,
        now: world.now,
    });
    for tx in [&second, &first] {
        let _ = world.send(Input::TxSeen {
            tx: tx.into(),
            seen: Seen::Rawtx,
            now: world.now,
        });
    }
    world.read();
    assert!(can(&world, &third, Signalled));
}
