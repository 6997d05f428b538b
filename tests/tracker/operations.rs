//! What happens in random lives of a node: the operations, how they are drawn, and how they are
//! lived.

use bitcoin::{Block, Transaction};
use proptest::prelude::*;
use satwatch::tracker::{DescriptorRow, Input, Seen, Status};

use crate::pretended::descriptors::KEYCHAINS;
pub use crate::pretended::pick;
use crate::world::{Heard, World};

#[derive(Debug, Clone)]
pub enum Op {
    /// Spend some outputs that can be spent, to some scripts (0 is an OP_RETURN); `zero` adds an
    /// output of nothing.
    Pay {
        inputs: Vec<u16>,
        to: Vec<u8>,
        zero: bool,
        heard: Heard,
    },
    /// Spend an input of each of these mempool transactions.
    Replace {
        victims: Vec<u16>,
        to: u8,
        heard: Heard,
    },
    Evict {
        victim: u16,
        heard: Heard,
    },
    /// An evicted or replaced transaction comes back, if its inputs allow it.
    Return {
        index: u16,
        heard: Heard,
    },
    /// Mine the mempool transactions whose bit is set (and that can be mined); perhaps with a
    /// double spend, to somebody, of one.
    Mine {
        bits: u16,
        double_spend: Option<(u16, u8)>,
        coinbase_to: u8,
        removals_first: bool,
        again: Option<Again>,
    },
    Reorg {
        depth: u8,
        bits: Vec<u16>,
        heard: Heard,
        what: Branch,
    },
    /// `lost`: the answers to what the tracker asks for do not come, until the next reading.
    LateWatch {
        number: u8,
        lost: bool,
        slow: bool,
    },
    Scan,
    /// An output of one of the scripts that wait for theirs.
    ScanPortion,
    Again,
    Restart,
    /// The process dies after so many commits.
    Crash {
        after: u8,
    },
    Snapshot,
}

/// The coinbase of an earlier block comes again.
#[derive(Debug, Clone, Copy)]
pub struct Again {
    index: u16,
    overwrites: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branch {
    New,
    /// Its coinbases are those of the stale one.
    SameCoinbases,
    /// The stale blocks themselves.
    Same,
}

/// `Sequence` alone, or any way of hearing.
pub fn heard(all: bool) -> BoxedStrategy<Heard> {
    match all {
        true => prop_oneof![Just(Heard::Sequence), Just(Heard::Rawtx), Just(Heard::Poll)].boxed(),
        false => Just(Heard::Sequence).boxed(),
    }
}

/// What the node does.
pub fn node_op(all_ways: bool) -> BoxedStrategy<Op> {
    let to = 1u8..8;
    let index = any::<u16>;
    let heard = || heard(all_ways);
    let again = (index(), prop::bool::weighted(0.3))
        .prop_map(|(index, overwrites)| Again { index, overwrites });
    // Strangers' ones, of which the tracker knows nothing, have other fates than it thinks.
    let again = match all_ways {
        true => prop::option::weighted(0.4, again).boxed(),
        false => Just(None).boxed(),
    };
    let branch = prop_oneof![3 => Just(Branch::New), 1 => Just(Branch::SameCoinbases), 1 => Just(Branch::Same)];
    prop_oneof![
        8 => (prop::collection::vec(index(), 1..4), prop::collection::vec(0u8..8, 1..5), prop::bool::weighted(0.2), heard())
            .prop_map(|(inputs, to, zero, heard)| Op::Pay { inputs, to, zero, heard }),
        3 => (prop::collection::vec(index(), 1..4), to.clone(), heard()).prop_map(|(victims, to, heard)| Op::Replace { victims, to, heard }),
        1 => (index(), heard()).prop_map(|(victim, heard)| Op::Evict { victim, heard }),
        1 => (index(), heard()).prop_map(|(index, heard)| Op::Return { index, heard }),
        3 => (index(), prop::option::of((index(), 1u8..10)), to, any::<bool>(), again).prop_map(|(bits, double_spend, coinbase_to, removals_first, again)| {
            Op::Mine { bits, double_spend, coinbase_to, removals_first, again }
        }),
        2 => (1u8..8, prop::collection::vec(index(), 0..3), heard(), branch)
            .prop_map(|(depth, bits, heard, what)| Op::Reorg { depth, bits, heard, what }),
    ]
    .boxed()
}

/// Everything that may happen.
pub fn op() -> BoxedStrategy<Op> {
    let number = 4u8..8;
    prop_oneof![
        24 => node_op(true),
        2 => (number, any::<bool>(), any::<bool>()).prop_map(|(number, lost, slow)| Op::LateWatch { number, lost, slow }),
        1 => Just(Op::Scan),
        4 => Just(Op::ScanPortion),
        1 => Just(Op::Again),
        1 => Just(Op::Restart),
        1 => (0u8..4).prop_map(|after| Op::Crash { after }),
        1 => Just(Op::Snapshot),
    ]
    .boxed()
}

fn returning(world: &World, index: u16) -> Option<Transaction> {
    let gone = |status: &Status| matches!(status, Status::Evicted | Status::Replaced { .. });
    let mut rows: Vec<_> = world
        .view
        .txs
        .iter()
        .filter(|(_, row)| gone(&row.status))
        .map(|(txid, _)| (txid, &world.view.raw_txs[txid]))
        .filter(|(_, tx)| !tx.is_coinbase())
        .collect();
    rows.sort_by_key(|(txid, _)| **txid);
    let open = world.spendable();
    let tx = Transaction::clone(pick(&rows, index)?.1);
    tx.input
        .iter()
        .all(|input| {
            open.iter()
                .any(|(outpoint, _)| *outpoint == input.previous_output)
        })
        .then_some(tx)
        .filter(|tx| !world.is_mined(tx))
}

pub fn run(world: &mut World, op: &Op) {
    match op {
        Op::Pay {
            inputs,
            to,
            zero,
            heard,
        } => {
            let Some(tx) = world.payment(inputs, to, *zero) else {
                return;
            };
            let left = world.take_in(&tx);
            world.tell(&[tx], left, *heard);
        }
        Op::Replace { victims, to, heard } => {
            let Some(tx) = world.replacement(victims, *to) else {
                return;
            };
            let left = world.take_in(&tx);
            world.tell(&[tx], left, *heard);
        }
        Op::Evict { victim, heard } => {
            let Some(victim) = pick(&world.mempool, *victim) else {
                return;
            };
            let left = world.drop_with_descendants(&[victim.compute_txid()], Status::Evicted);
            world.tell(
                &[],
                left,
                if *heard == Heard::Rawtx {
                    Heard::Poll
                } else {
                    *heard
                },
            );
        }
        Op::Return { index, heard } => {
            let Some(tx) = returning(world, *index) else {
                return;
            };
            let left = world.take_in(&tx);
            world.tell(&[tx], left, *heard);
        }
        Op::Mine {
            bits,
            double_spend,
            coinbase_to,
            removals_first,
            again,
        } => {
            // What the tracker does not see come it does not see overwritten.
            let hears = world.late.is_none();
            let again = again
                .and_then(|again| world.coinbase_again(again.index, again.overwrites && hears));
            let coinbase = again.unwrap_or_else(|| world.coinbase(&[(*coinbase_to, 5_000)]));
            mine(world, *bits, *double_spend, coinbase, *removals_first)
        }
        Op::Reorg {
            depth,
            bits,
            heard,
            what,
        } => reorg(world, usize::from(*depth), bits, *heard, *what),
        Op::LateWatch { number, lost, slow } => {
            (world.deaf, world.slow_scans) = (*lost, world.slow_scans || *slow);
            world.watch(*number, &[1, 2]);
            if std::mem::take(&mut world.deaf) {
                world.snapshot();
            }
        }
        Op::Scan => {
            world.slow_scans = false;
            world.scan();
        }
        Op::ScanPortion => world.scan_portion(),
        Op::Again => again(world),
        Op::Restart => world.restart(),
        Op::Crash { after } => world.dies_after = Some(*after),
        Op::Snapshot => world.snapshot(),
    }
}

impl World {
    /// What a block does is told in the transition that it causes, as long as no more scripts join
    /// descriptors than this.
    fn scripts_that_hear(&self) -> Option<usize> {
        let hears = self.dies_after.is_none() && self.late.is_none();
        let hears = hears && !self.tracker.has_to_join();
        hears.then_some(self.view.derivations.len())
    }
}

fn mine(
    world: &mut World,
    bits: u16,
    double_spend: Option<(u16, u8)>,
    coinbase: Transaction,
    removals_first: bool,
) {
    let mut txs = world.minable(bits);
    let rival = double_spend.and_then(|(index, to)| world.double_spend(index, to, &txs));
    txs.extend(rival);
    if removals_first {
        let left = txs
            .iter()
            .flat_map(|tx| {
                world.displace_conflicts(
                    tx,
                    Status::Conflicted {
                        by: tx.compute_txid(),
                    },
                )
            })
            .collect();
        let _ = world.send(Input::TxRemoved { txids: left });
    }
    let hear = world.scripts_that_hear();
    let events = world.mine_with(coinbase, &txs).events;
    if hear == Some(world.view.derivations.len()) {
        world.check_depths(&events);
    }
}

fn reorg(world: &mut World, depth: usize, bits: &[u16], heard: Heard, what: Branch) {
    let depth = depth.min(world.chain.len() - 1 - world.first_known);
    if depth == 0 {
        return;
    }
    let (_, stale) = world.disconnect_heard(depth, heard);
    if world.late.is_none() {
        world.check();
    }
    // A coinbase that came again is restored by its block: what the tracker does not see go and
    // come back, it does not see restored.
    let is_repeated = |block: &Block| world.repeated.contains(&block.txdata[0].compute_txid());
    let restores = world.late.is_some() && stale.iter().any(is_repeated);
    for (index, block) in stale.into_iter().enumerate() {
        if what == Branch::Same && !restores {
            let _ = world.connect(block);
            continue;
        }
        let txs = bits
            .get(index)
            .map_or_else(Vec::new, |bits| world.minable(*bits));
        let hear = world.scripts_that_hear();
        let events = match what {
            Branch::SameCoinbases
                if world.late.is_none() || !world.is_overwritten_by(&block.txdata[0]) =>
            {
                world.mine_with(block.txdata[0].clone(), &txs).events
            }
            _ => world.mine(2, &txs).events,
        };
        if hear == Some(world.view.derivations.len()) {
            world.check_depths(&events);
        }
    }
}

/// Everything that the node could say a second time.
fn again(world: &mut World) {
    // A process that dies meanwhile takes back what was not finished, and begins again with the
    // baselines and the scripts that are to come.
    let mut watches = world.view.watches.values();
    // Outputs of which the last portion has matched a part of the spends: the rest is news.
    if world
        .merging
        .as_ref()
        .is_some_and(|merging| merging.is_last)
    {
        return;
    }
    // What joins a descriptor, or leaves with one, is news.
    if world.tracker.has_to_join() || !world.view.leaving.is_empty() {
        return;
    }
    let is_lacking = |row: &DescriptorRow| {
        let mut keychains = KEYCHAINS.iter();
        keychains.any(|it| row.wants_beyond(*it, world.lookahead).is_some())
    };
    let is_settled = world.unfinished.is_empty()
        && !watches.any(|row| row.coverage.pending)
        && !world.view.descriptors.values().any(is_lacking);
    if world.dies_after.is_some() && !is_settled {
        return;
    }
    let before = world.view.clone();
    let confirmed: Vec<Transaction> = world
        .chain
        .iter()
        .flat_map(|block| block.txdata.clone())
        .collect();
    let unconfirmed = world
        .mempool
        .clone()
        .into_iter()
        .map(|tx| (tx, Seen::Accepted));
    for (tx, seen) in unconfirmed.chain(confirmed.into_iter().map(|tx| (tx, Seen::Rawtx))) {
        let transition = world.send(Input::TxSeen {
            tx: (&tx).into(),
            seen,
            now: world.now,
        });
        assert!(
            transition.changes.is_empty() && transition.events.is_empty(),
            "a second time says nothing: {transition:?}"
        );
    }
    assert_eq!(before, world.view);
    let to = world.tip();
    let _ = world.send(Input::Disconnect { to, now: world.now });
    world.snapshot();
    assert_eq!(before, world.view, "what is known already changes nothing");
}
