//! What happens in random lives of a node: the operations, how they are drawn, and how they are
//! lived.

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Sequence, Transaction};
use proptest::prelude::*;
use satwatch::tracker::{Input, Seen, Status};

use crate::world::{Heard, World, tx};

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
    Again,
    Restart,
    /// The process dies after so many commits.
    Crash {
        after: u8,
    },
    Snapshot,
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
    let branch = prop_oneof![3 => Just(Branch::New), 1 => Just(Branch::SameCoinbases), 1 => Just(Branch::Same)];
    prop_oneof![
        8 => (prop::collection::vec(index(), 1..4), prop::collection::vec(0u8..8, 1..5), prop::bool::weighted(0.2), heard())
            .prop_map(|(inputs, to, zero, heard)| Op::Pay { inputs, to, zero, heard }),
        3 => (prop::collection::vec(index(), 1..4), to.clone(), heard()).prop_map(|(victims, to, heard)| Op::Replace { victims, to, heard }),
        1 => (index(), heard()).prop_map(|(victim, heard)| Op::Evict { victim, heard }),
        1 => (index(), heard()).prop_map(|(index, heard)| Op::Return { index, heard }),
        3 => (index(), prop::option::of((index(), 1u8..10)), to, any::<bool>()).prop_map(|(bits, double_spend, coinbase_to, removals_first)| {
            Op::Mine { bits, double_spend, coinbase_to, removals_first }
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
        1 => Just(Op::Again),
        1 => Just(Op::Restart),
        1 => (0u8..4).prop_map(|after| Op::Crash { after }),
        1 => Just(Op::Snapshot),
    ]
    .boxed()
}

/// Outputs that nothing spends yet, on the chain or in the mempool, with their value.
pub fn spendable(world: &World) -> Vec<(OutPoint, u64)> {
    let mut open: Vec<(OutPoint, bitcoin::TxOut)> = world
        .unspent()
        .into_iter()
        .map(|(outpoint, (out, ..))| (outpoint, out))
        .collect();
    for tx in &world.mempool {
        open.extend((0..).zip(&tx.output).map(|(vout, out)| {
            (
                OutPoint {
                    txid: tx.compute_txid(),
                    vout,
                },
                out.clone(),
            )
        }));
    }
    let spent: Vec<OutPoint> = world
        .mempool
        .iter()
        .flat_map(|tx| tx.input.iter().map(|input| input.previous_output))
        .collect();
    open.retain(|(outpoint, out)| !spent.contains(outpoint) && !out.script_pubkey.is_op_return());
    open.into_iter()
        .map(|(outpoint, out)| (outpoint, out.value.to_sat()))
        .collect()
}

pub fn pick<T: Clone>(list: &[T], index: u16) -> Option<T> {
    list.get(usize::from(index) % list.len().max(1)).cloned()
}

/// Different elements of `list`.
fn pick_some<T: Clone + PartialEq>(list: &[T], indexes: &[u16]) -> Vec<T> {
    let mut picked = Vec::new();
    for index in indexes {
        picked.extend(pick(list, *index).filter(|item| !picked.contains(item)));
    }
    picked
}

/// Mempool transactions of this selection whose unconfirmed parents are selected too, parents
/// first.
pub fn minable(world: &World, bits: u16) -> Vec<Transaction> {
    let mut chosen: Vec<Transaction> = Vec::new();
    let is_unconfirmed = |txid| world.mempool.iter().any(|tx| tx.compute_txid() == txid);
    loop {
        let ready = world.mempool.iter().enumerate().find(|(index, tx)| {
            bits & (1 << (index % 16)) != 0
                && !chosen.contains(tx)
                && tx.input.iter().all(|input| {
                    let parent = input.previous_output.txid;
                    !is_unconfirmed(parent) || chosen.iter().any(|tx| tx.compute_txid() == parent)
                })
        });
        match ready {
            Some((_, tx)) => chosen.push(tx.clone()),
            None => return chosen,
        }
    }
}

/// A payment that spends some outputs that can be spent.
pub fn payment(world: &World, inputs: &[u16], to: &[u8], zero: bool) -> Option<Transaction> {
    let inputs = pick_some(&spendable(world), inputs);
    let value: u64 = inputs.iter().map(|(_, value)| value).sum();
    let share = value.saturating_sub(1) / to.len() as u64;
    let mut outputs: Vec<(u8, u64)> = to.iter().map(|to| (*to, share)).collect();
    if zero {
        outputs.push((to[0], 0));
    }
    let outpoints: Vec<OutPoint> = inputs.iter().map(|(outpoint, _)| *outpoint).collect();
    let first = outpoints.first()?;
    let mut tx = tx(&outpoints, &outputs);
    // One in two does not signal that it may be replaced.
    if first.txid.to_byte_array()[0].is_multiple_of(2) {
        tx.input
            .iter_mut()
            .for_each(|input| input.sequence = Sequence::MAX);
    }
    Some(tx)
}

/// A transaction that spends an input of each victim, and nothing that would go with them.
pub fn replacement(world: &World, victims: &[u16], to: u8) -> Option<Transaction> {
    let victims = pick_some(&world.mempool, victims);
    let mut inputs: Vec<OutPoint> = Vec::new();
    for victim in &victims {
        let input = victim.input[0].previous_output;
        if !inputs.contains(&input) {
            inputs.push(input);
        }
    }
    // An input that a victim or its descendants made goes with them.
    let mut gone: Vec<bitcoin::Txid> = victims.iter().map(|tx| tx.compute_txid()).collect();
    for _ in 0..world.mempool.len() {
        let children = world.mempool.iter().filter(|tx| {
            tx.input
                .iter()
                .any(|input| gone.contains(&input.previous_output.txid))
        });
        let fresh: Vec<_> = children
            .map(|tx| tx.compute_txid())
            .filter(|txid| !gone.contains(txid))
            .collect();
        gone.extend(fresh);
    }
    inputs.retain(|input| !gone.contains(&input.txid));
    let value: u64 = victims
        .iter()
        .flat_map(|tx| &tx.output)
        .map(|out| out.value.to_sat())
        .sum();
    let tx = tx(&inputs, &[(to, value.saturating_sub(7).max(1))]);
    (!inputs.is_empty() && !world.mempool.contains(&tx)).then_some(tx)
}

fn returning(world: &World, index: u16) -> Option<Transaction> {
    let gone = |status: &Status| matches!(status, Status::Evicted | Status::Replaced { .. });
    let mut rows: Vec<_> = world
        .view
        .txs
        .iter()
        .filter(|(_, row)| gone(&row.status) && !row.tx.is_coinbase())
        .collect();
    rows.sort_by_key(|(txid, _)| **txid);
    let open = spendable(world);
    let tx = pick(&rows, index)?.1.tx.clone();
    tx.input
        .iter()
        .all(|input| {
            open.iter()
                .any(|(outpoint, _)| *outpoint == input.previous_output)
        })
        .then_some(tx)
}

pub fn run(world: &mut World, op: &Op) {
    match op {
        Op::Pay {
            inputs,
            to,
            zero,
            heard,
        } => {
            let Some(tx) = payment(world, inputs, to, *zero) else {
                return;
            };
            let left = world.take_in(&tx);
            world.tell(&[tx], left, *heard);
        }
        Op::Replace { victims, to, heard } => {
            let Some(tx) = replacement(world, victims, *to) else {
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
        } => mine(world, *bits, *double_spend, *coinbase_to, *removals_first),
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
        Op::Again => again(world),
        Op::Restart => world.restart(),
        Op::Crash { after } => world.dies_after = Some(*after),
        Op::Snapshot => world.snapshot(),
    }
}

fn mine(
    world: &mut World,
    bits: u16,
    double_spend: Option<(u16, u8)>,
    coinbase_to: u8,
    removals_first: bool,
) {
    let mut txs = minable(world, bits);
    if let Some((index, to)) = double_spend
        && let Some(victim) = pick(&world.mempool, index)
    {
        let input = victim.input[0].previous_output;
        let on_chain = world.unspent().contains_key(&input);
        if on_chain
            && !txs
                .iter()
                .any(|tx| tx.input.iter().any(|other| other.previous_output == input))
        {
            txs.push(tx(&[input], &[(to, 11), (9, 12)]));
        }
    }
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
        let _ = world.send(Input::TxGone { txids: left });
    }
    let whole = world.dies_after.is_none() && world.late.is_none();
    let events = world.mine(coinbase_to, &txs).events;
    if whole {
        world.check_depths(&events);
    }
}

fn reorg(world: &mut World, depth: usize, bits: &[u16], heard: Heard, what: Branch) {
    let depth = depth.min(world.chain.len() - 1 - world.first_known);
    if depth == 0 {
        return;
    }
    let (_, stale) = world.disconnect_heard(depth, heard);
    let whole = world.dies_after.is_none() && world.late.is_none();
    if world.late.is_none() {
        world.check();
    }
    for (index, block) in stale.into_iter().enumerate() {
        if what == Branch::Same {
            let _ = world.connect(block);
            continue;
        }
        let txs = bits
            .get(index)
            .map_or_else(Vec::new, |bits| minable(world, *bits));
        let events = match what {
            Branch::SameCoinbases => world.mine_with(block.txdata[0].clone(), &txs).events,
            _ => world.mine(2, &txs).events,
        };
        if whole {
            world.check_depths(&events);
        }
    }
}

/// Everything that the node could say a second time.
fn again(world: &mut World) {
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
            tx,
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
