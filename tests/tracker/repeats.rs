//! Coinbases that come again, as they may where BIP 34 is not active.

use std::collections::VecDeque;

use satwatch::tracker::{Input, Seen, Status};

use crate::runner::Stretch;
use crate::shorthand::{balance, history, out, status, told, watching};
use crate::world::{Heard, World, script, tx};

/// Script 1 mined a coinbase at height 1, which was spent at height 2, and it comes again at height
/// 3. Answers the coinbase, its spender and the events of the last block.
fn twice(
    world: &mut World,
) -> (
    bitcoin::Transaction,
    bitcoin::Transaction,
    Vec<satwatch::tracker::Event>,
) {
    let coinbase = world.coinbase(&[(1, 5_000)]);
    let _ = world.mine_with(coinbase.clone(), &[]);
    let spend = tx(&[out(&coinbase, 0)], &[(9, 4_000)]);
    let _ = world.mine(9, std::slice::from_ref(&spend));
    let events = world.mine_with(coinbase.clone(), &[]).events;
    (coinbase, spend, events)
}

#[test]
fn a_coinbase_that_comes_again_has_its_outputs_and_is_not_announced_again() {
    let mut world = watching();
    let (coinbase, _, events) = twice(&mut world);
    assert_eq!(
        told(&events),
        ["confirmed>confirmed 1", "balance 0>5000", "block"]
    );
    world.check();
    assert_eq!(history(&world, 1), [(2, 0, 5_000), (3, 5_000, 0)]);
    assert_eq!(world.view.watches[&script(1)].utxo_count, 1);
    // It can be spent like any other, to others than before.
    let again = tx(&[out(&coinbase, 0)], &[(9, 3_000)]);
    assert_eq!(
        told(&world.accept(&again).events),
        ["new 1", "balance 5000>0"]
    );
    world.check();
    let _ = world.mine(9, &[again]);
    world.check();
    assert_eq!(balance(&world, 1).total(), 0);
}

#[test]
fn a_reorg_that_takes_the_second_back_leaves_the_first_spent_as_it_was() {
    let mut world = watching();
    let (coinbase, spend, _) = twice(&mut world);
    let again = tx(&[out(&coinbase, 0)], &[(9, 3_000)]);
    let _ = world.accept(&again);
    world.restart();
    let back = world.disconnect(1);
    assert_eq!(
        told(&back.events),
        ["reorg 1", "confirmed>confirmed 2", "mempool>evicted 0"]
    );
    world.check();
    assert!(
        matches!(status(&world, &coinbase), Status::Confirmed { block, .. } if block.height == 1)
    );
    let row = &world.view.outputs[&out(&coinbase, 0)];
    assert_eq!(row.spent.map(|it| it.txid), Some(spend.compute_txid()));
    // And further back, to where nothing has spent it.
    let _ = world.disconnect(1);
    world.check();
    assert_eq!(
        balance(&world, 1).total(),
        0,
        "its spender is in the mempool"
    );
    let _ = world.disconnect(1);
    world.check();
    assert_eq!(status(&world, &coinbase), Status::Evicted);
    world.kept().check_change_sets();
}

#[test]
fn a_reorg_may_leave_both_out_and_bring_the_second_alone() {
    let mut world = watching();
    let (coinbase, _, _) = twice(&mut world);
    let _ = world.disconnect(3);
    world.check();
    let events = world.mine_with(coinbase, &[]).events;
    assert_eq!(
        told(&events),
        ["evicted>confirmed 1", "balance 0>5000", "block"]
    );
    world.check();
}

#[test]
fn a_coinbase_that_nobody_had_spent_is_overwritten_and_does_not_come_back() {
    let mut world = watching();
    let coinbase = world.coinbase(&[(1, 5_000), (1, 600)]);
    let _ = world.mine_with(coinbase.clone(), &[]);
    let spend = tx(&[out(&coinbase, 1)], &[(9, 500)]);
    let _ = world.accept(&spend);
    let again = world.mine_with(coinbase.clone(), &[]);
    assert_eq!(told(&again.events), ["confirmed>confirmed 1", "block"]);
    world.check();
    assert_eq!(
        (balance(&world, 1).confirmed, balance(&world, 1).unconfirmed),
        (5_600, -600)
    );
    let back = world.disconnect(1);
    assert_eq!(
        told(&back.events),
        [
            "reorg 1",
            "confirmed>confirmed 1",
            "mempool>evicted 0",
            "balance 5000>0"
        ]
    );
    world.check();
    assert_eq!(world.view.watches[&script(1)].utxo_count, 0);
}

/// With `blocks` at a time.
fn scanned(blocks: u32, is_watched_between: bool) {
    let mut world = World::new();
    if is_watched_between {
        let coinbase = world.coinbase(&[(1, 5_000)]);
        let _ = world.mine_with(coinbase.clone(), &[]);
        let _ = world.mine(9, &[tx(&[out(&coinbase, 0)], &[(9, 4_000)])]);
        world.watch(1, &[]);
        let _ = world.mine_with(coinbase, &[]);
    } else {
        let _ = twice(&mut world);
        world.watch(1, &[]);
    }
    let coinbase = world.chain[3].txdata[0].clone();
    let _ = world.mine(9, &[tx(&[out(&coinbase, 0)], &[(9, 3_000)])]);
    let mut live = World::new();
    live.watch(1, &[]);
    live.chain = world.chain.clone();
    live.follow();
    let stretch = Stretch {
        blocks,
        too_much: false,
    };
    // The later ones first, which then were created before the scan.
    for from in [3, 2, 0] {
        let _ = world.open_scan(&[1], from, None);
        world.finish_scans(stretch);
        world.check();
    }
    assert_eq!(history(&world, 1), history(&live, 1));
    assert_eq!(world.view.outputs, live.view.outputs);
    let earlier = |world: &World| world.view.txs[&coinbase.compute_txid()].earlier.clone();
    assert_eq!(earlier(&world), earlier(&live));
    for _ in 0..4 {
        let (here, there) = (world.disconnect(1), live.disconnect(1));
        assert_eq!(told(&here.events), told(&there.events));
        world.scan_if_wanted();
        world.check();
    }
}

#[test]
fn history_scans_bring_both_in_any_order() {
    for blocks in [1, 2, 9] {
        scanned(blocks, false);
        scanned(blocks, true);
    }
}

#[test]
fn a_script_that_was_added_between_the_two_knows_the_second_alone() {
    let mut world = watching();
    let coinbase = world.coinbase(&[(1, 5_000), (2, 700)]);
    let _ = world.mine_with(coinbase.clone(), &[]);
    let spends = [out(&coinbase, 0), out(&coinbase, 1)];
    let _ = world.mine(9, &[tx(&spends, &[(9, 4_000)])]);
    world.watch(2, &[]);
    let again = world.mine_with(coinbase.clone(), &[]);
    assert_eq!(
        told(&again.events),
        [
            "confirmed>confirmed 1",
            "new 1",
            "balance 0>5000",
            "balance 0>700",
            "block"
        ]
    );
    world.check();
    let _ = world.disconnect(1);
    world.check();
    assert_eq!(
        (balance(&world, 1).total(), balance(&world, 2).total()),
        (0, 0)
    );
    // Who is removed takes along what was hidden.
    let _ = world.mine_with(coinbase, &[]);
    world.forget(1);
    world.check();
    let _ = world.disconnect(1);
    world.check();
}

/// The node took its block back for a moment and told of that; the first was spent before anybody
/// watched.
#[test]
fn a_baseline_that_finds_the_spender_of_the_first_in_its_block_leaves_the_second_unspent() {
    let mut world = World::before_the_start();
    world.late = Some(VecDeque::new());
    let coinbase = world.coinbase(&[(1, 5_000)]);
    let _ = world.mine_with(coinbase.clone(), &[]);
    let spend = tx(&[out(&coinbase, 0)], &[(2, 4_000)]);
    let _ = world.mine(9, std::slice::from_ref(&spend));
    world.late = None;
    world.start(3);
    world.snapshot();
    world.watch(1, &[]);
    world.slow_scans = true;
    world.watch(2, &[]);
    let _ = world.send(Input::TxSeen {
        tx: (&spend).into(),
        seen: Seen::Accepted,
        now: 1,
    });
    let _ = world.mine_with(coinbase, &[]);
    world.scan();
    world.check();
    assert_eq!(balance(&world, 1).confirmed, 5_000);
    assert_eq!(balance(&world, 2).confirmed, 4_000);
}

/// A coinbase is spent before anything is known of whom it pays, and comes again. A reorg takes the
/// second and the spend back: the spend looks as if it were of the second, which is gone, until the
/// baseline finds the first.
#[test]
fn a_spender_of_the_first_in_the_mempool_is_lost_with_the_second_until_the_baseline() {
    let mut world = World::before_the_start();
    world.late = Some(VecDeque::new());
    let coinbase = world.coinbase(&[(1, 5_000)]);
    let _ = world.mine_with(coinbase.clone(), &[]);
    let spend = tx(&[out(&coinbase, 0)], &[(9, 4_000)]);
    let _ = world.mine(9, std::slice::from_ref(&spend));
    world.late = None;
    world.start(2);
    world.slow_scans = true;
    world.watch(1, &[]);
    let _ = world.mine_with(coinbase, &[]);
    world.check();
    // That it is in the mempool again is heard of before the reorg.
    let (back, _) = world.disconnect_heard(2, Heard::Rawtx);
    assert_eq!(
        told(&back.events),
        ["reorg 2", "confirmed>evicted 0", "mempool>evicted 0"]
    );
    assert_eq!(status(&world, &spend), Status::Evicted);
    world.check();
    world.scan();
    assert_eq!(status(&world, &spend), Status::Mempool);
    world.check();
    assert_eq!(balance(&world, 1).confirmed, 5_000);
    assert_eq!(balance(&world, 1).unconfirmed, -5_000);
}

/// The block in which the first one was spent, and the one that created it again, are not connected
/// yet: so what spends the second one and that spend's output displaces what it spends.
#[test]
fn what_spends_an_output_of_what_it_displaces_has_no_row_before_the_blocks_come() {
    let mut world = watching();
    let coinbase = world.coinbase(&[(9, 5_000)]);
    let _ = world.mine_with(coinbase.clone(), &[]);
    world.late = Some(VecDeque::new());
    let first = tx(&[out(&coinbase, 0)], &[(1, 4_000)]);
    let _ = world.accept(&first);
    let _ = world.mine(9, std::slice::from_ref(&first));
    let _ = world.mine_with(coinbase.clone(), &[]);
    let both = tx(&[out(&coinbase, 0), out(&first, 0)], &[(9, 8_000)]);
    let _ = world.accept(&both);
    world.hear(usize::MAX, false);
    assert!(matches!(status(&world, &first), Status::Replaced { .. }));
    assert!(!world.view.txs.contains_key(&both.compute_txid()));
    world.check_memory();
    world.follow();
    world.read();
    world.late = None;
    world.check();
    assert_eq!(status(&world, &both), Status::Mempool);
    assert_eq!(
        (balance(&world, 1).confirmed, balance(&world, 1).unconfirmed),
        (4_000, -4_000)
    );
    world.kept().check_change_sets();
}
