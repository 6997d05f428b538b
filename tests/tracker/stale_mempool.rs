//! Transactions that we hold for unconfirmed though they are in an old block: the node took their
//! blocks back for a moment, before the past of their scripts was known, and told of them before we
//! looked at its chain. Baseline and history scan put that right.

use bitcoin::Transaction;
use satwatch::tracker::{Balance, Baseline, Input, ScanId, Seen, Status, WatchRequest};

use crate::runner::Stretch;
use crate::shorthand::{balance, block_id, coin, history, mine, out, status, told};
use crate::world::{World, script, spk, tx};

const BLOCK: Stretch = Stretch {
    blocks: 1,
    too_much: false,
};
const ALL: Stretch = Stretch {
    blocks: 100,
    too_much: false,
};

/// Script 2 waits for its baseline, and the node tells of these.
fn held_for_unconfirmed(world: &mut World, txs: &[&Transaction]) {
    world.slow_scans = true;
    world.watch(2, &[]);
    for tx in txs {
        let _ = world.send(Input::TxSeen {
            tx: (*tx).into(),
            seen: Seen::Accepted,
            now: 1,
        });
    }
}

#[test]
fn what_an_old_payment_of_which_one_output_is_left_paid_besides_does_not_come_to_life_again() {
    let mut world = World::new();
    world.watch(3, &[]);
    let payment = tx(&[coin(&world, 0)], &[(2, 200), (2, 300), (9, 1)]);
    let spend = tx(&[out(&payment, 1)], &[(9, 250)]);
    mine(&mut world, &[&[&payment], &[&spend]]);
    held_for_unconfirmed(&mut world, &[&payment, &spend]);
    world.scan();
    assert_eq!(
        balance(&world, 2),
        Balance {
            confirmed: 200,
            unconfirmed: 0
        }
    );
    world.snapshot();
    assert_eq!(
        balance(&world, 2),
        Balance {
            confirmed: 200,
            unconfirmed: 0
        },
        "the spend is in a block that we do not know"
    );
    world.check();
    let _ = world.open_scan(&[2], 0, None);
    world.finish_scans(BLOCK);
    assert_eq!(history(&world, 2), [(1, 500, 0), (2, 0, 300)]);
    assert_eq!(
        status(&world, &payment),
        Status::Confirmed {
            block: block_id(&world, 1),
            position: 1
        }
    );
    world.check();
}

#[test]
fn a_scan_puts_right_what_was_held_for_unconfirmed_though_it_is_in_an_old_block() {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(2, 200)]);
    let spend = tx(&[out(&payment, 0)], &[(9, 150), (2, 40)]);
    let last = tx(&[out(&spend, 1)], &[(9, 30)]);
    mine(&mut world, &[&[&payment], &[&spend], &[&last]]);
    held_for_unconfirmed(&mut world, &[&payment, &spend]);
    assert_eq!(
        balance(&world, 2),
        Balance {
            confirmed: 0,
            unconfirmed: 40
        }
    );
    world.scan();
    let scan = world.open_scan(&[2], 0, None);
    let input = world.next_step(scan, ALL).expect("its baseline is merged");
    let before = world.events.len();
    let _ = world
        .try_send(input)
        .expect("nothing has changed meanwhile");
    assert_eq!(
        told(&world.events[before..]),
        ["mempool>confirmed 3", "mempool>confirmed 2", "balance 40>0"]
    );
    world.finish_scans(ALL);
    assert_eq!(history(&world, 2), [(1, 200, 0), (2, 40, 200), (3, 0, 40)]);
    world.snapshot();
    world.check();
}

#[test]
fn a_spend_shows_that_what_was_held_for_unconfirmed_is_in_a_block_below_the_scan() {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(2, 200)]);
    let spend = tx(&[out(&payment, 0)], &[(9, 150)]);
    mine(&mut world, &[&[&payment], &[], &[&spend], &[]]);
    held_for_unconfirmed(&mut world, &[&payment]);
    world.scan();
    let scan = world.open_scan(&[2], 2, None);
    let input = world.next_step(scan, ALL).expect("its baseline is merged");
    let before = world.events.len();
    let _ = world.deliver(input).expect("nothing has changed meanwhile");
    assert_eq!(
        told(&world.events[before..]),
        ["mempool>evicted 0", "balance 200>0"]
    );
    world.finish_scans(ALL);
    world.snapshot();
    assert_eq!(world.view.outputs[&out(&payment, 0)].height, Some(1));
    world.check();
    let _ = world.disconnect(2);
    assert_eq!(
        balance(&world, 2),
        Balance {
            confirmed: 200,
            unconfirmed: -200
        }
    );
    world.check();
}

#[test]
fn a_transaction_that_nobody_of_the_scan_has_to_do_with_is_left_alone() {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(2, 200)]);
    mine(&mut world, &[&[&payment], &[]]);
    held_for_unconfirmed(&mut world, &[&payment]);
    let request = WatchRequest {
        spk: spk(1),
        label: None,
        depths: Vec::new(),
        baseline: Baseline::Skip,
    };
    let _ = world.send(Input::Watch {
        scripts: vec![request],
        now: 1,
    });
    let _ = world.apply(Input::OpenScan {
        scan: ScanId(1),
        scripts: vec![script(1)],
        from: 0,
        to: None,
        now: 1,
    });
    let before = (world.view.txs.clone(), world.view.outputs.clone());
    let stretch = world
        .next_step(
            ScanId(1),
            Stretch {
                too_much: true,
                ..ALL
            },
        )
        .expect("nobody of it waits");
    let _ = world
        .deliver(stretch)
        .expect("nothing has changed meanwhile");
    assert_eq!((world.view.txs.clone(), world.view.outputs.clone()), before);
    world.check_memory();
}

#[test]
fn a_depth_is_told_once_of_what_is_in_its_block_for_a_script_that_is_gone() {
    let mut world = World::new();
    world.watch(3, &[]);
    let payment = tx(&[coin(&world, 0)], &[(3, 10), (2, 200)]);
    mine(&mut world, &[&[&payment]]);
    world.forget(3);
    world.slow_scans = true;
    world.watch(2, &[2]);
    let _ = world.send(Input::TxSeen {
        tx: (&payment).into(),
        seen: Seen::Accepted,
        now: 1,
    });
    world.scan();
    let events = world.mine(9, &[]).events;
    assert_eq!(told(&events), ["confirmed>confirmed 2", "block"]);
}
