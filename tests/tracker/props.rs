//! Random lives of a node. The twelve laws, and where they are held against the tracker:
//!
//! 1. every row equals the naive model that rescans chain and mempool, whatever way the tracker was
//!    told of things: balances, outputs, spends, histories, amounts ([`World::check`], after every
//!    operation);
//! 2. `Disconnect` after `Connect` restores every row but for what the block brought to light;
//! 3. any interleaving of transactions and blocks gives the same confirmed state, and one reading
//!    of the mempool mends the rest (`interleave.rs`);
//! 4. every input delivered twice changes nothing the second time (`Op::Again`);
//! 5. the rows are the fold of the change sets, inverses lead back exactly
//!    ([`Kept::check_change_sets`]), and what a subscriber was told is the fold of the events
//!    (`check_events`);
//! 6. statuses of a transaction for a script follow the legal table;
//! 7. a conflict in a block always drops what it conflicts with and its descendants, and deaths
//!    name their cause;
//! 8. no coinbase is ever unconfirmed;
//! 9. nothing well-formed makes `apply` panic, and what it refuses changes nothing
//!    (`arbitrary_inputs.rs`);
//! 10. a process that dies between any two commits goes on from the rows as if nothing had
//!     happened;
//! 11. history scans bring what watching from the first block on would have
//!     (`scan_equivalence.rs`);
//! 12. a script that is forgotten counts for nothing at once and leaves nothing behind
//!     (`forget.rs`), and memory is always what the rows say (`memory.rs`).

use proptest::prelude::*;
use satwatch::tracker::{MemoryView, Status};

use crate::operations::{Op, node_op, op, run};
use crate::pretended::status_changes::is_legal;
use crate::world::World;

/// Scripts 1 to 3 are watched.
fn watching(depths: &[u8]) -> World {
    let mut world = World::new();
    for number in [1, 2, 3] {
        world.watch(number, depths);
    }
    world
}

/// The rows without times, and without transactions that are only remembered.
fn living(view: &MemoryView) -> MemoryView {
    let mut view = view.clone();
    view.txs
        .retain(|_, row| matches!(row.status, Status::Confirmed { .. } | Status::Mempool));
    for row in view.txs.values_mut() {
        if row.status == Status::Mempool {
            row.order = 0;
        }
    }
    for row in view.watches.values_mut() {
        (row.updated, row.tx_count) = (0, 0);
    }
    view
}

proptest! {
    #[test]
    fn the_tracker_says_what_the_node_knows(ops in prop::collection::vec(op(), 1..50)) {
        let mut world = watching(&[1, 3]);
        for op in &ops {
            run(&mut world, op);
            world.check();
        }
        run(&mut world, &Op::Scan);
        world.check();
        world.kept().check_change_sets();
    }

    #[test]
    fn deaths_name_their_cause_and_only_descendants_inherit(ops in prop::collection::vec(node_op(false), 1..50)) {
        let mut world = watching(&[1, 2]);
        for op in &ops {
            run(&mut world, op);
            world.check();
            world.kept().check_fates();
            world.kept().check_inherited();
        }
    }

    #[test]
    fn disconnect_takes_connect_back(ops in prop::collection::vec(node_op(true), 1..30), blocks in prop::collection::vec(any::<u16>(), 1..4)) {
        let mut world = watching(&[1]);
        for op in &ops {
            run(&mut world, op);
        }
        let before = world.view.clone();
        for bits in &blocks {
            let txs = world.minable(*bits);
            let _ = world.mine(9, &txs);
        }
        let _ = world.disconnect(blocks.len());
        world.check();
        prop_assert_eq!(living(&before), living(&world.view));
    }

    #[test]
    fn a_restart_at_any_commit_goes_on_as_if_nothing_had_happened(
        before in prop::collection::vec(op(), 1..25),
        after in prop::collection::vec(node_op(true), 1..15),
    ) {
        let mut world = watching(&[1, 3]);
        for op in before.iter().filter(|op| !matches!(op, Op::Crash { .. })) {
            run(&mut world, op);
        }
        // A baseline begins anew.
        world.finish_last_portion();
        let mut twin = world.restarted_twin();
        for op in &after {
            prop_assert_eq!(&world.view, &twin.view);
            prop_assert_eq!(&world.events, &twin.events);
            run(&mut world, op);
            run(&mut twin, op);
        }
        prop_assert_eq!(&world.view, &twin.view);
        prop_assert_eq!(&world.events, &twin.events);
    }
}

#[test]
fn status_changes_are_those_of_the_documented_table() {
    assert!(is_legal("mempool", "replaced", false));
    assert!(is_legal("mempool", "mempool", true));
    assert!(!is_legal("mempool", "mempool", false));
    assert!(is_legal("confirmed", "confirmed", false));
    assert!(!is_legal("confirmed", "conflicted", false));
    assert!(!is_legal("evicted", "replaced", true));
    assert!(!is_legal("unknown", "evicted", true));
}
