//! Random lives of a node. After every step (see `World::check`):
//!
//! 1. every watched balance equals that of a naive rescan of chain and mempool, whatever way the tracker was told of things;
//! 2. every transaction's row says what the node says: in this block, in the mempool, or gone;
//! 3. each balance change starts where the one before ended, and the last one told is the balance;
//! 4. a transaction is announced once per script, and its later phases follow the legal table without a break;
//! 5. no coinbase is ever unconfirmed;
//! 6. telling the same thing twice changes nothing and says nothing;
//! 7. disconnecting what was just connected restores every confirmed balance;
//! 8. a restart from the rows goes on as if nothing had happened.

use bitcoin::{OutPoint, Transaction};
use proptest::prelude::*;
use satwatch::tracker::{Input, Seen};

use crate::world::{World, tx};

#[derive(Debug, Clone)]
enum Op {
    /// Spend the n-th output that can be spent, to two scripts.
    Pay {
        input: u16,
        to: (u8, u8),
        heard: Heard,
    },
    /// Spend the same input as the n-th mempool transaction does.
    Replace {
        victim: u16,
        to: u8,
        announced: bool,
    },
    Evict {
        victim: u16,
    },
    /// Mine the mempool transactions whose bit is set (and that can be mined); perhaps a double spend of the n-th one instead.
    Mine {
        bits: u16,
        double_spend: Option<u16>,
        coinbase_to: u8,
    },
    Reorg {
        depth: u8,
        bits: u16,
    },
    LateWatch {
        number: u8,
    },
    Again,
    Restart,
    Snapshot,
}

#[derive(Debug, Clone, Copy)]
enum Heard {
    Accepted,
    Rawtx,
    Lost,
}

fn op() -> impl Strategy<Value = Op> {
    let to = 1u8..8;
    let heard = prop_oneof![Just(Heard::Accepted), Just(Heard::Rawtx), Just(Heard::Lost)];
    prop_oneof![
        6 => (any::<u16>(), (to.clone(), to.clone()), heard).prop_map(|(input, to, heard)| Op::Pay { input, to, heard }),
        3 => (any::<u16>(), to.clone(), any::<bool>()).prop_map(|(victim, to, announced)| Op::Replace { victim, to, announced }),
        1 => any::<u16>().prop_map(|victim| Op::Evict { victim }),
        3 => (any::<u16>(), prop::option::of(any::<u16>()), to.clone())
            .prop_map(|(bits, double_spend, coinbase_to)| Op::Mine { bits, double_spend, coinbase_to }),
        2 => (1u8..5, any::<u16>()).prop_map(|(depth, bits)| Op::Reorg { depth, bits }),
        1 => to.prop_map(|number| Op::LateWatch { number }),
        1 => Just(Op::Again),
        1 => Just(Op::Restart),
        1 => Just(Op::Snapshot),
    ]
}

/// Outputs that nothing spends yet, on the chain or in the mempool, with their value.
fn spendable(world: &World) -> Vec<(OutPoint, u64)> {
    let mut open: Vec<(OutPoint, u64)> = world.unspent().into_iter().map(|(outpoint, (out, ..))| (outpoint, out.value.to_sat())).collect();
    for tx in &world.mempool {
        open.extend((0..).zip(&tx.output).map(|(vout, out)| (OutPoint { txid: tx.compute_txid(), vout }, out.value.to_sat())));
    }
    let spent: Vec<OutPoint> = world.mempool.iter().flat_map(|tx| tx.input.iter().map(|input| input.previous_output)).collect();
    open.retain(|(outpoint, value)| !spent.contains(outpoint) && *value > 10);
    open
}

fn pick<T: Clone>(list: &[T], index: u16) -> Option<T> {
    list.get(usize::from(index) % list.len().max(1)).cloned()
}

/// Mempool transactions of this selection whose unconfirmed parents are selected too, parents first.
fn minable(world: &World, bits: u16) -> Vec<Transaction> {
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

fn run(world: &mut World, op: &Op) {
    match *op {
        Op::Pay { input, to, heard } => {
            let Some((outpoint, value)) = pick(&spendable(world), input) else { return };
            let tx = tx(&[outpoint], &[(to.0, value / 2), (to.1, value / 2 - 1)]);
            match heard {
                Heard::Accepted => drop(world.accept(&tx)),
                Heard::Rawtx => {
                    world.mempool.push(tx.clone());
                    let _ = world.send(Input::TxSeen { tx, seen: Seen::Rawtx, now: world.now });
                }
                Heard::Lost => {
                    world.mempool.push(tx);
                    world.snapshot();
                }
            }
        }
        Op::Replace { victim, to, announced } => {
            let Some(victim) = pick(&world.mempool, victim) else { return };
            let value = victim.output.iter().map(|out| out.value.to_sat()).sum::<u64>();
            let tx = tx(&[victim.input[0].previous_output], &[(to, value.saturating_sub(7).max(1))]);
            if world.mempool.contains(&tx) {
                return;
            }
            if announced {
                let gone = world.displace_conflicts(&tx);
                let _ = world.send(Input::TxGone { txids: gone });
            }
            let _ = world.accept(&tx);
        }
        Op::Evict { victim } => {
            let Some(victim) = pick(&world.mempool, victim) else { return };
            let gone = world.drop_with_descendants(&[victim.compute_txid()]);
            let _ = world.send(Input::TxGone { txids: gone });
            let _ = world.send(Input::Settle { now: world.now });
        }
        Op::Mine { bits, double_spend, coinbase_to } => {
            let mut txs = minable(world, bits);
            if let Some(victim) = double_spend.and_then(|index| pick(&world.mempool, index)) {
                let input = victim.input[0].previous_output;
                let on_chain = world.unspent().contains_key(&input);
                if on_chain && !txs.iter().any(|tx| tx.input.iter().any(|other| other.previous_output == input)) {
                    txs.push(tx(&[input], &[(3, 11), (9, 12)]));
                }
            }
            let _ = world.mine(coinbase_to, &txs);
        }
        Op::Reorg { depth, bits } => {
            let depth = usize::from(depth).min(world.chain.len() - 1);
            if depth == 0 {
                return;
            }
            let _ = world.disconnect(depth);
            world.check();
            for _ in 0..=depth {
                let txs = minable(world, bits);
                let _ = world.mine(2, &txs);
            }
        }
        Op::LateWatch { number } => {
            if !world.watched.contains(&number) {
                world.watch(number, &[1, 2]);
            }
        }
        Op::Again => again(world),
        Op::Restart => world.restart(),
        Op::Snapshot => world.snapshot(),
    }
}

/// Everything that the node could say a second time.
fn again(world: &mut World) {
    let before = world.view.clone();
    let confirmed: Vec<Transaction> = world.chain.iter().flat_map(|block| block.txdata.clone()).collect();
    let unconfirmed = world.mempool.clone().into_iter().map(|tx| (tx, Seen::Accepted));
    for (tx, seen) in unconfirmed.chain(confirmed.into_iter().map(|tx| (tx, Seen::Rawtx))) {
        let transition = world.send(Input::TxSeen { tx, seen, now: world.now });
        assert!(transition.changes.is_empty() && transition.events.is_empty(), "a second time says nothing: {transition:?}");
    }
    assert_eq!(before, world.view);
    world.snapshot();
    assert_eq!(before, world.view, "a snapshot without news changes nothing");
}

proptest! {

    #[test]
    fn the_tracker_says_what_the_node_knows(ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for number in [1, 2, 3] {
            world.watch(number, &[1, 3]);
        }
        for op in &ops {
            run(&mut world, op);
            world.check();
        }
    }

    #[test]
    fn disconnect_takes_connect_back(ops in prop::collection::vec(op(), 1..30), bits in any::<u16>()) {
        let mut world = World::new();
        for number in [1, 2, 3] {
            world.watch(number, &[1]);
        }
        for op in &ops {
            run(&mut world, op);
        }
        let before: Vec<i64> = [1, 2, 3].iter().map(|number| world.true_balance(*number).confirmed).collect();
        let txs = minable(&world, bits);
        let _ = world.mine(1, &txs);
        let _ = world.disconnect(1);
        world.check();
        let after: Vec<i64> = [1, 2, 3].iter().map(|number| world.true_balance(*number).confirmed).collect();
        prop_assert_eq!(before, after);
    }
}
