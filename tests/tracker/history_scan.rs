//! History scans, each case told as what a person would find in an address's history.

use bitcoin::Transaction;
use satwatch::tracker::{
    ApplyError, Balance, BlockId, Coverage, Input, ScanEnd, ScanId, ScanState, Status, View,
};

use crate::runner::Stretch;
use crate::shorthand::{balance, block_id, coin, history, mine, out, status, told};
use crate::world::{Heard, World, script, tx};

const BLOCK: Stretch = Stretch {
    blocks: 1,
    too_much: false,
};
const ALL: Stretch = Stretch {
    blocks: 100,
    too_much: false,
};

fn coverage(world: &World, number: u8) -> Coverage {
    world.view.watches[&script(number)].coverage.clone()
}

#[test]
fn a_spend_that_lies_stretches_after_its_output_is_found_and_no_balance_moves() {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(1, 700), (1, 50)]);
    let spend = tx(&[out(&payment, 0)], &[(9, 600)]);
    mine(&mut world, &[&[&payment], &[], &[], &[&spend], &[]]);
    let scan = world.open_scan(&[1], 0, None);
    assert_eq!(
        balance(&world, 1),
        Balance {
            confirmed: 50,
            unconfirmed: 0
        }
    );
    assert_eq!(
        coverage(&world, 1),
        Coverage {
            from_height: 6,
            utxos_complete: true,
            pending: false,
            ..Coverage::default()
        }
    );
    assert_eq!(
        world.view.scans_of(&script(1), None, usize::MAX),
        Ok(vec![scan])
    );
    let before = world.events.len();
    for _ in 0..6 {
        assert!(
            !world.view.outputs.contains_key(&out(&payment, 0)) || world.view.scans[&scan].next > 4,
            "nobody needs it until it is spent"
        );
        assert!(world.step_scan(scan, BLOCK));
    }
    assert_eq!(told(&world.events[before..]), [""; 0], "history is no news");
    assert!(world.step_scan(scan, BLOCK));
    assert_eq!(told(&world.events[before..]), ["scanned 2"]);
    assert_eq!(history(&world, 1), [(1, 750, 0), (4, 0, 700)]);
    assert_eq!(
        coverage(&world, 1),
        Coverage {
            from_height: 0,
            utxos_complete: true,
            pending: false,
            ..Coverage::default()
        }
    );
    assert_eq!(
        world.view.scans_of(&script(1), None, usize::MAX),
        Ok(vec![])
    );
    assert_eq!(
        (
            world.view.scans[&scan].found,
            world.view.watches[&script(1)].utxo_count
        ),
        (2, 1)
    );
    world.check();
}

#[test]
fn a_chain_of_spends_in_one_block_is_followed_to_its_end() {
    let mut world = World::new();
    let first = tx(&[coin(&world, 0)], &[(1, 700)]);
    let second = tx(&[out(&first, 0)], &[(1, 600)]);
    let third = tx(&[out(&second, 0)], &[(9, 500)]);
    mine(&mut world, &[&[&first, &second, &third]]);
    let _ = world.open_scan(&[1], 0, None);
    world.finish_scans(ALL);
    assert_eq!(
        history(&world, 1),
        [(1, 700, 0), (1, 600, 700), (1, 0, 600)]
    );
    world.check();
}

#[test]
fn each_scan_of_a_common_walk_counts_what_it_found_itself() {
    let mut world = World::new();
    let (one, both) = (
        tx(&[coin(&world, 0)], &[(1, 700)]),
        tx(&[coin(&world, 1)], &[(1, 30), (2, 5)]),
    );
    mine(&mut world, &[&[&one], &[&both]]);
    let (first, second, third) = (
        world.open_scan(&[1], 0, None),
        world.open_scan(&[2], 0, None),
        world.open_scan(&[3], 0, None),
    );
    assert!(world.step_scan(first, ALL));
    let found = [first, second, third]
        .map(|scan| (world.view.scans[&scan].found, world.view.scans[&scan].next));
    assert_eq!(found, [(2, 3), (1, 3), (0, 3)]);
    world.finish_scans(ALL);
    world.check();
}

#[test]
fn a_transaction_that_is_known_through_another_address_is_completed_and_counted_once() {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(2, 200), (1, 700)]);
    world.watch(1, &[]);
    mine(&mut world, &[&[&payment], &[]]);
    let spend = tx(&[out(&payment, 0), out(&payment, 1)], &[(9, 800)]);
    mine(&mut world, &[&[&spend], &[]]);
    let scan = world.open_scan(&[2], 0, None);
    world.finish_scans(BLOCK);
    assert_eq!(
        (history(&world, 1), history(&world, 2)),
        (
            vec![(1, 700, 0), (3, 0, 700)],
            vec![(1, 200, 0), (3, 0, 200)]
        )
    );
    assert_eq!(world.view.scans[&scan].found, 2);
    assert_eq!(world.view.blocks[&1].touched, [payment.compute_txid()]);
    world.check();
    // The reorg of both takes everything back, for both.
    let _ = world.disconnect(4);
    assert_eq!(
        (balance(&world, 1), balance(&world, 2)),
        (Balance::default(), Balance::default())
    );
    world.check();
}

#[test]
fn transactions_of_a_block_stand_in_its_order_whatever_order_they_were_found_in() {
    let mut world = World::new();
    world.watch(2, &[]);
    let txs: Vec<Transaction> = (0..4)
        .map(|vout| tx(&[coin(&world, vout)], &[(1 + vout as u8 % 2, 700)]))
        .collect();
    let _ = world.mine(1, &txs);
    let _ = world.open_scan(&[1], 0, None);
    world.finish_scans(ALL);
    let txids: Vec<_> = world.chain[1]
        .txdata
        .iter()
        .map(|tx| tx.compute_txid())
        .collect();
    assert_eq!(world.view.blocks[&1].touched, txids);
    world.check();
}

#[test]
fn what_was_created_before_the_first_block_of_a_scan_is_told_with_its_spend_and_goes_with_either_block()
 {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let spend = tx(&[out(&payment, 0)], &[(9, 600)]);
    mine(&mut world, &[&[&payment], &[], &[&spend], &[]]);
    let _ = world.open_scan(&[1], 2, None);
    world.finish_scans(BLOCK);
    assert_eq!(
        (history(&world, 1), coverage(&world, 1).from_height),
        (vec![(3, 0, 700)], 2)
    );
    let output = &world.view.outputs[&out(&payment, 0)];
    assert_eq!(
        (output.height, output.spent.and_then(|spend| spend.height)),
        (Some(1), Some(3))
    );
    world.check();
    let events = world.disconnect(2).events;
    assert_eq!(
        told(&events),
        ["reorg 2", "confirmed>mempool 0"],
        "the output counts again, and so does its spend"
    );
    assert_eq!(
        balance(&world, 1),
        Balance {
            confirmed: 700,
            unconfirmed: -700
        }
    );
    world.check();
    let _ = world.disconnect(2);
    assert_eq!(balance(&world, 1), Balance::default());
    world.check();
    mine(&mut world, &[&[&payment], &[&spend]]);
    world.check();
}

#[test]
fn a_coinbase_from_before_the_first_block_takes_its_spender_along() {
    let mut world = World::new();
    let _ = world.mine(1, &[]);
    let coinbase = world.chain[1].txdata[0].clone();
    let spend = tx(&[out(&coinbase, 0)], &[(1, 4_000), (9, 900)]);
    mine(&mut world, &[&[], &[&spend], &[]]);
    let _ = world.open_scan(&[1], 3, None);
    world.finish_scans(ALL);
    assert_eq!(history(&world, 1), [(3, 4_000, 5_000)]);
    let _ = world.disconnect(4);
    assert_eq!(
        (status(&world, &spend), balance(&world, 1)),
        (Status::Evicted, Balance::default())
    );
    world.check();
}

#[test]
fn a_reorg_below_a_scans_place_sets_it_back_and_what_it_found_there_goes() {
    let mut world = World::new();
    let early = tx(&[coin(&world, 0)], &[(1, 700)]);
    let late = tx(&[coin(&world, 1)], &[(1, 30)]);
    mine(&mut world, &[&[&early], &[], &[&late], &[], &[]]);
    let scan = world.open_scan(&[1], 0, None);
    assert!(world.step_scan(scan, Stretch { blocks: 4, ..ALL }));
    let stale = world.next_step(scan, ALL).expect("there is more");
    world.slow_scans = true;
    let _ = world.disconnect(3);
    assert_eq!(
        (world.view.scans[&scan].next, coverage(&world, 1).pending),
        (3, true)
    );
    assert!(
        world.next_step(scan, ALL).is_none(),
        "it waits for the baseline"
    );
    let refused = world.deliver(stale).unwrap_err();
    assert!(
        matches!(
            refused,
            ApplyError::NotInChain { .. } | ApplyError::ScanMoved { .. }
        ),
        "{refused}"
    );
    // The other branch has it in another block.
    mine(&mut world, &[&[], &[&late], &[]]);
    world.finish_scans(BLOCK);
    assert_eq!(history(&world, 1), [(1, 700, 0), (4, 30, 0)]);
    assert_eq!(coverage(&world, 1).from_height, 0);
    world.check();
}

#[test]
fn a_reorg_above_a_scans_place_leaves_it_there() {
    let mut world = World::new();
    mine(&mut world, &[&[], &[], &[], &[]]);
    let scan = world.open_scan(&[1], 0, None);
    assert!(world.step_scan(scan, Stretch { blocks: 2, ..ALL }));
    let _ = world.disconnect(1);
    assert_eq!(world.view.scans[&scan].next, 2);
    let stretch = world
        .next_step(scan, BLOCK)
        .expect("the baseline was made again");
    mine(&mut world, &[&[]]);
    let _ = world
        .deliver(stretch)
        .expect("what was read below the fork still holds");
    world.finish_scans(ALL);
    world.check();
}

#[test]
fn a_reorg_below_where_a_scan_began_sets_it_back_to_there_and_no_further() {
    let mut world = World::new();
    mine(&mut world, &[&[], &[], &[], &[]]);
    let scan = world.open_scan(&[1], 3, None);
    assert!(world.step_scan(scan, BLOCK));
    let _ = world.disconnect(4);
    assert_eq!(world.view.scans[&scan].next, 3);
    world.finish_scans(ALL);
    assert_eq!(
        coverage(&world, 1).from_height,
        1,
        "it is watched from below there on"
    );
    world.check();
}

#[test]
fn coverage_that_is_raised_again_while_a_scan_is_made_makes_it_longer() {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let spend = tx(&[out(&payment, 0)], &[(9, 600)]);
    mine(&mut world, &[&[&payment], &[], &[], &[&spend]]);
    let scan = world.open_scan(&[1], 0, None);
    assert!(world.step_scan(scan, Stretch { blocks: 3, ..ALL }));
    // The block of the spend goes, and it is in the next one before anybody knows again that its
    // output was there.
    world.slow_scans = true;
    let (_, _) = world.disconnect_heard(1, Heard::Poll);
    assert!(!world.view.outputs.contains_key(&out(&payment, 0)));
    mine(&mut world, &[&[], &[&spend]]);
    world.scan();
    assert_eq!(
        (
            coverage(&world, 1).from_height,
            world.view.scans[&scan].next
        ),
        (6, 3),
        "block 5 is not known from watching"
    );
    let early = ScanEnd::Complete(world.tip());
    assert!(matches!(
        world.refused(Input::CloseScan {
            scan,
            end: early,
            now: 1
        }),
        ApplyError::ScanMoved { .. }
    ));
    world.finish_scans(BLOCK);
    assert_eq!(history(&world, 1), [(1, 700, 0), (5, 0, 700)]);
    assert_eq!(coverage(&world, 1).from_height, 0);
    world.check();
}

#[test]
fn a_scan_ends_where_it_was_told_to_and_covers_only_what_meets_what_is_covered() {
    let mut world = World::new();
    let txs: Vec<Transaction> = (0..4)
        .map(|vout| tx(&[coin(&world, vout)], &[(1, 700)]))
        .collect();
    mine(
        &mut world,
        &[&[&txs[0]], &[&txs[1]], &[&txs[2]], &[&txs[3]]],
    );
    let _ = world.open_scan(&[1], 2, Some(2));
    world.finish_scans(ALL);
    assert_eq!(
        (history(&world, 1).len(), coverage(&world, 1).from_height),
        (1, 5),
        "between them is what nobody has looked at"
    );
    world.check();
    let _ = world.open_scan(&[1], 2, None);
    world.finish_scans(ALL);
    assert_eq!(
        (history(&world, 1).len(), coverage(&world, 1).from_height),
        (3, 2)
    );
    let _ = world.open_scan(&[1], 0, Some(1));
    world.finish_scans(ALL);
    assert_eq!(
        (history(&world, 1).len(), coverage(&world, 1).from_height),
        (4, 0)
    );
    world.check();
}

#[test]
fn blocks_that_the_node_has_no_more_are_left_out_and_the_coverage_says_so() {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let spend = tx(&[out(&payment, 0)], &[(1, 600)]);
    mine(&mut world, &[&[&payment], &[], &[&spend], &[]]);
    let scan = world.open_scan(&[1], 0, None);
    let _ = world.apply(Input::SkipPruned {
        scans: vec![scan],
        horizon: 2,
        now: 1,
    });
    let row = &world.view.scans[&scan];
    assert_eq!(
        (row.from, row.horizon, row.first(), row.next),
        (0, Some(2), 2, 2)
    );
    world.finish_scans(ALL);
    assert_eq!(
        (history(&world, 1), coverage(&world, 1).from_height),
        (vec![(3, 600, 700)], 2)
    );
    world.check();
}

#[test]
fn a_script_that_is_added_again_while_a_scan_is_made_begins_a_life_of_its_own() {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(1, 700), (2, 40)]);
    let spend = tx(&[out(&payment, 0)], &[(9, 600)]);
    mine(&mut world, &[&[&payment], &[], &[&spend]]);
    let scan = world.open_scan(&[1, 2], 0, None);
    assert!(world.step_scan(scan, Stretch { blocks: 2, ..ALL }));
    let stretch = world.next_step(scan, ALL).expect("there is more");
    world.forget(1);
    assert_eq!(
        (
            world.view.scan_scripts(&scan, usize::MAX).unwrap(),
            world.view.scans[&scan].scripts
        ),
        (vec![script(2)], 1)
    );
    world.watch(1, &[]);
    assert_eq!(
        (
            world.view.scans_of(&script(1), None, usize::MAX),
            history(&world, 1)
        ),
        (Ok(vec![]), vec![])
    );
    // The runner did not know.
    let _ = world.deliver(stretch).expect("it is as far as before");
    world.check();
    world.finish_scans(ALL);
    assert_eq!(
        (
            coverage(&world, 1).from_height,
            coverage(&world, 2).from_height
        ),
        (4, 0)
    );
    let _ = world.open_scan(&[1], 0, None);
    world.finish_scans(ALL);
    assert_eq!(history(&world, 1), [(1, 700, 0), (3, 0, 700)]);
    world.check();
}

#[test]
fn a_scan_whose_scripts_are_all_forgotten_ends_and_tells_nobody() {
    let mut world = World::new();
    let scan = world.open_scan(&[1], 0, None);
    world.forget(1);
    let before = world.events.len();
    world.finish_scans(ALL);
    assert_eq!(
        (
            told(&world.events[before..]),
            world.view.scan_scripts(&scan, usize::MAX)
        ),
        (vec![], Ok(vec![]))
    );
    assert_eq!(
        world.view.scans[&scan].state,
        ScanState::Cancelled,
        "it did not complete anything"
    );
}

#[test]
fn a_scan_that_nobody_is_watched_for_ends_at_once() {
    let mut world = World::new();
    let open = Input::OpenScan {
        scan: ScanId(7),
        scripts: vec![script(5), script(5)],
        from: 0,
        to: None,
        now: 1,
    };
    let _ = world.apply(open);
    assert_eq!(world.view.scans[&ScanId(7)].scripts, 0);
    world.finish_scans(ALL);
}

#[test]
fn a_coinbase_that_is_in_two_blocks_stands_where_it_came_last() {
    let mut world = World::new();
    let twice = world.coinbase(&[(1, 5_000)]);
    let _ = world.mine_with(twice.clone(), &[]);
    let _ = world.mine_with(twice.clone(), &[]);
    mine(&mut world, &[&[]]);
    let mut live = World::new();
    live.watch(1, &[]);
    live.chain = world.chain.clone();
    live.follow();
    let _ = world.open_scan(&[1], 0, None);
    for _ in 0..2 {
        world.finish_scans(BLOCK);
        assert_eq!(
            (history(&world, 1), balance(&world, 1)),
            (history(&live, 1), balance(&live, 1))
        );
        assert_eq!(world.view.outputs, live.view.outputs);
        assert_eq!(
            (
                &world.view.blocks[&1].touched,
                &world.view.blocks[&2].touched
            ),
            (&live.view.blocks[&1].touched, &live.view.blocks[&2].touched)
        );
        world.check();
        // Once more over blocks that are known.
        let scan = world.open_scan(&[1], 0, Some(1));
        let (tip, now) = (world.tip(), world.now);
        let past = Input::ScanBlocks {
            scans: vec![scan],
            scripts: vec![],
            first: 0,
            blocks: vec![],
            upto: BlockId {
                height: 0,
                ..block_id(&world, 0)
            },
            now,
        };
        let _ = world.deliver(past).expect("nothing was found");
        assert_eq!(world.view.tip(), Some(tip));
    }
}

#[test]
fn amounts_that_were_told_too_low_between_watch_and_baseline_are_told_again() {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    mine(&mut world, &[&[&payment]]);
    world.slow_scans = true;
    world.watch(1, &[]);
    let spend = tx(&[out(&payment, 0)], &[(9, 100), (1, 590)]);
    assert_eq!(
        told(&world.mine(9, std::slice::from_ref(&spend)).events),
        ["new 1", "balance 0>590", "block"]
    );
    world.scan();
    let before = world.events.len();
    let _ = world.open_scan(&[1], 0, None);
    world.finish_scans(ALL);
    assert_eq!(
        told(&world.events[before..]),
        ["confirmed>confirmed 1", "scanned 2"]
    );
    assert_eq!(history(&world, 1), [(1, 700, 0), (2, 590, 700)]);
    world.check();
}

#[test]
fn depths_that_are_still_to_come_are_told_of_what_a_scan_found() {
    let mut world = World::new();
    let (old, young) = (
        tx(&[coin(&world, 0)], &[(1, 700)]),
        tx(&[coin(&world, 1)], &[(1, 30)]),
    );
    mine(&mut world, &[&[&old], &[], &[&young]]);
    world.watch(1, &[3]);
    let _ = world.open_scan(&[1], 0, None);
    world.finish_scans(ALL);
    assert_eq!(
        told(&world.mine(9, &[]).events),
        ["block"],
        "two deep, and four"
    );
    assert_eq!(
        told(&world.mine(9, &[]).events),
        ["confirmed>confirmed 3", "block"]
    );
}

#[test]
fn a_reorg_is_refused_below_the_blocks_that_are_known_one_after_the_other() {
    let mut world = World::before_the_start();
    world.late = Some(std::collections::VecDeque::new());
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    mine(&mut world, &[&[&payment], &[], &[]]);
    world.late = None;
    world.start(1);
    let _ = world.open_scan(&[1], 0, None);
    world.finish_scans(ALL);
    assert_eq!(
        (history(&world, 1), world.view.blocks.len()),
        (vec![(1, 700, 0)], 2)
    );
    let to = block_id(&world, 1);
    assert_eq!(
        world.refused(Input::Disconnect { to, now: 1 }),
        ApplyError::NotInChain {
            tip: Some(world.tip()),
            to
        }
    );
    mine(&mut world, &[&[]]);
    assert_eq!(told(&world.disconnect(1).events), ["reorg 1"]);
    world.check();
}

#[test]
fn a_stretch_that_goes_backwards_or_names_blocks_out_of_it_is_refused() {
    let mut world = World::new();
    mine(&mut world, &[&[], &[], &[]]);
    let scan = world.open_scan(&[1], 1, None);
    let stretch = |first: u32, upto: usize, world: &World| Input::ScanBlocks {
        scans: vec![scan],
        scripts: Vec::new(),
        first,
        blocks: Vec::new(),
        upto: block_id(world, upto),
        now: 1,
    };
    let past = stretch(1, 0, &world);
    assert!(matches!(
        world.refused(past),
        ApplyError::BadStretch { first: 1, .. }
    ));
    let past = stretch(2, 3, &world);
    assert!(matches!(
        world.refused(past),
        ApplyError::ScanMoved { height: 2, .. }
    ));
    for heights in [&[0, 1][..], &[2, 1], &[1, 1], &[1, 3]] {
        let Input::ScanBlocks {
            scans,
            scripts,
            first,
            upto,
            now,
            ..
        } = stretch(1, 2, &world)
        else {
            unreachable!()
        };
        let one = |height: &usize| satwatch::tracker::ScannedBlock {
            block: block_id(&world, *height),
            time: 0,
            transactions: Vec::new(),
        };
        let blocks = heights.iter().map(one).collect();
        assert!(
            matches!(
                world.refused(Input::ScanBlocks {
                    scans,
                    scripts,
                    first,
                    blocks,
                    upto,
                    now
                }),
                ApplyError::BadStretch { .. }
            ),
            "{heights:?}"
        );
    }
}
