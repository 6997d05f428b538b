//! News that come late, early, twice or not at all, while blocks arrive at their own pace: the
//! confirmed state is the same as if blocks alone had come, and one reading of the mempool at the
//! node's tip mends everything else.

use std::collections::VecDeque;

use bitcoin::{Transaction, Txid};
use proptest::prelude::*;
use satwatch::tracker::{Input, MemoryView, Seen, Spend, Status};

use crate::operations::{Op, node_op, pick, run};
use crate::world::World;

#[derive(Debug, Clone)]
enum Act {
    Node(Op),
    /// So many of the news that wait arrive, or are lost.
    Hear {
        count: u8,
        lost: bool,
    },
    /// The tracker's chain catches up with the node's.
    Follow,
    /// Sparing what was ever there, by the bits of this in turn.
    Settle {
        spared: u8,
    },
    Read,
    /// A script is added, whose unspent outputs are found by a later scan.
    Watch {
        number: u8,
    },
    Scan,
    /// Any transaction that ever was, said to be here or gone.
    Stale {
        index: u16,
        seen: Option<Seen>,
    },
}

/// `stale` and `added`: how often the unproven is said, and a script is added.
fn act(stale: u32, added: u32) -> impl Strategy<Value = Act> {
    let seen = prop_oneof![
        Just(None),
        Just(Some(Seen::Accepted)),
        Just(Some(Seen::Fetched)),
        Just(Some(Seen::Rawtx))
    ];
    prop_oneof![
        8 => node_op(true).prop_map(Act::Node),
        6 => (1u8..30, prop::bool::weighted(0.1)).prop_map(|(count, lost)| Act::Hear { count, lost }),
        2 => Just(Act::Follow),
        1 => any::<u8>().prop_map(|spared| Act::Settle { spared }),
        1 => Just(Act::Read),
        added => (4u8..8).prop_map(|number| Act::Watch { number }),
        added => Just(Act::Scan),
        stale => (any::<u16>(), seen).prop_map(|(index, seen)| Act::Stale { index, seen }),
    ]
}

/// A world that hears late, with scripts 1 to 3 watched.
fn late() -> World {
    let mut world = World::new();
    for number in [1, 2, 3] {
        world.watch(number, &[1, 2]);
    }
    world.late = Some(VecDeque::new());
    world
}

fn act_on(world: &mut World, act: &Act, ever: &mut Vec<Transaction>) {
    match act {
        Act::Node(op) => run(world, op),
        Act::Hear { count, lost } => world.hear(usize::from(*count), *lost),
        Act::Follow => world.follow(),
        Act::Settle { spared } => {
            let is_spared = |(n, _): &(usize, &Transaction)| spared >> (n % 8) & 1 == 1;
            let spared = ever.iter().enumerate().filter(is_spared);
            let spared = spared.map(|(_, tx)| tx.compute_txid()).collect();
            let now = world.now;
            let _ = world.apply(Input::EvictMissing { spared, now });
        }
        Act::Read => world.read(),
        Act::Watch { number } => {
            if !world.watched.contains(number) {
                world.watch(*number, &[1]);
            }
        }
        Act::Scan => scan(world),
        Act::Stale { index, seen } => {
            let Some(tx) = pick(ever, *index) else { return };
            let input = match *seen {
                Some(seen) => Input::TxSeen {
                    tx: (&tx).into(),
                    seen,
                    now: world.now,
                },
                None => Input::TxRemoved {
                    txids: vec![tx.compute_txid()],
                },
            };
            let _ = world.apply(input);
        }
    }
    let known = |tx: &&Transaction| !ever.contains(tx);
    let fresh: Vec<Transaction> = world.mempool.iter().filter(known).cloned().collect();
    ever.extend(fresh);
}

/// A scan speaks for the node's tip, and is merged when that is the tracker's too.
fn scan(world: &mut World) {
    world.follow();
    if world.view.watches.values().any(|row| row.coverage.pending) {
        world.scan();
    }
}

/// What rows say about blocks: balances, outputs, spends and transactions.
fn confirmed(view: &MemoryView) -> impl PartialEq + std::fmt::Debug {
    let mut balances: Vec<_> = view
        .watches
        .iter()
        .map(|(script, row)| (*script, row.balance.confirmed))
        .collect();
    let spent = |spend: Option<Spend>| spend.filter(|spend| spend.height.is_some());
    let mut outputs: Vec<_> = view
        .outputs
        .iter()
        .filter(|(_, row)| row.height.is_some())
        .map(|(o, row)| (*o, row.value, row.height, spent(row.spent)))
        .collect();
    let mut txs: Vec<(Txid, Status, u64, Vec<_>)> = Vec::new();
    for (txid, row) in view
        .txs
        .iter()
        .filter(|(_, row)| matches!(row.status, Status::Confirmed { .. }))
    {
        let mut touches: Vec<_> = row
            .touches
            .iter()
            .map(|touch| (touch.script, touch.received, touch.sent))
            .collect();
        touches.sort();
        txs.push((*txid, row.status, row.order, touches));
    }
    let mut blocks: Vec<_> = view
        .blocks
        .iter()
        .map(|(height, row)| (*height, row.clone()))
        .collect();
    balances.sort();
    outputs.sort_by_key(|(outpoint, ..)| *outpoint);
    txs.sort_by_key(|(txid, ..)| *txid);
    blocks.sort_by_key(|(height, _)| *height);
    (balances, outputs, txs, blocks)
}

proptest! {
    #[test]
    fn any_interleaving_gives_the_confirmed_state_of_the_blocks_alone(acts in prop::collection::vec(act(4, 0), 1..50)) {
        let mut world = late();
        let mut ever = Vec::new();
        for act in &acts {
            act_on(&mut world, act, &mut ever);
        }
        world.follow();
        let mut blocks_alone = late();
        blocks_alone.chain = world.chain.clone();
        blocks_alone.follow();
        prop_assert_eq!(confirmed(&world.view), confirmed(&blocks_alone.view));
        world.kept().check_change_sets();
    }

    #[test]
    fn one_reading_of_the_mempool_mends_whatever_came_late_or_never(acts in prop::collection::vec(act(0, 2), 1..50), lost in any::<bool>()) {
        let mut world = late();
        world.slow_scans = true;
        for act in &acts {
            act_on(&mut world, act, &mut Vec::new());
        }
        world.hear(usize::MAX, lost);
        scan(&mut world);
        world.read();
        world.check();
    }
}
