//! What happens at random to the pretended node, and how the follower would tell of it.

use std::ops::Deref;

use bitcoin::Transaction;
use proptest::prelude::*;
use satwatch::tracker::{Baseline, Input, ScanId, Seen, Status, WatchRequest};

use super::pretended::{Node, pick, script, spk};

#[derive(Debug, Clone)]
pub enum Op {
    /// Spends the n-th output that can be spent, to two scripts.
    Pay {
        input: u16,
        to: (u8, u8),
    },
    /// Spends what the n-th mempool transaction spends, to one script.
    Replace {
        victim: u16,
        to: u8,
    },
    Evict {
        victim: u16,
    },
    /// A block with the mempool transactions whose bit is set; perhaps with a double spend of the
    /// n-th one.
    Mine {
        bits: u16,
        double_spend: Option<u16>,
        to: u8,
    },
    /// Another branch, longer by one.
    Reorg {
        depth: u8,
        bits: u16,
    },
    Watch {
        number: u8,
    },
    Unwatch {
        number: u8,
    },
    /// A history scan of the scripts whose bit is set. Both heights are taken as parts of the
    /// chain.
    Scan {
        bits: u8,
        from: u8,
        to: Option<u8>,
    },
    /// Ends the n-th open scan before its time.
    Cancel {
        scan: u16,
    },
}

pub fn op() -> impl Strategy<Value = Op> {
    let to = 1..8_u8;
    prop_oneof![
        6 => (any::<u16>(), (to.clone(), to.clone())).prop_map(|(input, to)| Op::Pay { input, to }),
        3 => (any::<u16>(), to.clone()).prop_map(|(victim, to)| Op::Replace { victim, to }),
        1 => any::<u16>().prop_map(|victim| Op::Evict { victim }),
        4 => (any::<u16>(), prop::option::of(any::<u16>()), to.clone())
            .prop_map(|(bits, double_spend, to)| Op::Mine { bits, double_spend, to }),
        2 => (1..5_u8, any::<u16>()).prop_map(|(depth, bits)| Op::Reorg { depth, bits }),
        1 => (4..8_u8).prop_map(|number| Op::Watch { number }),
        1 => (1..8_u8).prop_map(|number| Op::Unwatch { number }),
        2 => (1..128_u8, any::<u8>(), prop::option::weighted(0.3, any::<u8>())).prop_map(|(bits, from, to)| Op::Scan { bits, from, to }),
        1 => any::<u16>().prop_map(|scan| Op::Cancel { scan }),
    ]
}

pub fn watch(number: u8, now: u64) -> Input {
    let request = WatchRequest {
        spk: spk(number),
        label: None,
        depths: vec![1, 3],
        baseline: Baseline::IfMissing,
    };
    Input::Watch {
        scripts: vec![request],
        now,
    }
}

pub struct FollowedNode {
    node: Node,
    /// Milliseconds since the Unix epoch.
    pub now: u64,
}

impl Deref for FollowedNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

fn accepted(tx: &Transaction, now: u64) -> Input {
    Input::TxSeen {
        tx: tx.into(),
        seen: Seen::Accepted,
        now,
    }
}

fn evict_missing(now: u64) -> Input {
    Input::EvictMissing {
        spared: Vec::new(),
        now,
    }
}

impl FollowedNode {
    pub fn new() -> Self {
        let (node, now) = (Node::new(), 0);
        Self { node, now }
    }

    /// Lets something happen; how the follower tells of it.
    pub fn happen(&mut self, op: &Op, now: u64) -> Vec<Input> {
        self.now = now;
        match *op {
            Op::Pay { input, to } => {
                let payment = self.payment(&[input], &[to.0, to.1], false);
                self.accept(payment)
            }
            Op::Replace { victim, to } => {
                let replacement = self.replacement(&[victim], to);
                self.accept(replacement)
            }
            Op::Evict { victim } => match pick(&self.mempool, victim) {
                Some(victim) => {
                    let roots = [victim.compute_txid()];
                    let txids = self.node.drop_with_descendants(&roots, Status::Evicted);
                    vec![Input::TxRemoved { txids }, evict_missing(now)]
                }
                None => Vec::new(),
            },
            Op::Mine {
                bits,
                double_spend,
                to,
            } => {
                let mut txs = self.minable(bits);
                txs.extend(double_spend.and_then(|victim| self.double_spend(victim, 3, &txs)));
                let again = self.coinbase_again(bits, false);
                let again = again.filter(|_| bits.is_multiple_of(4));
                let coinbase = again.unwrap_or_else(|| self.node.coinbase(&[(to, 5_000)]));
                vec![self.mine(coinbase, &txs)]
            }
            Op::Reorg { depth, bits } => {
                self.reorganize(usize::from(depth).min(self.chain.len() - 1), bits)
            }
            Op::Watch { number } => vec![watch(number, now)],
            Op::Unwatch { number } => vec![Input::Unwatch {
                scripts: vec![script(number)],
                now,
            }],
            Op::Scan { bits, from, to } => {
                let scripts = (0..7)
                    .filter(|bit| bits & (1 << bit) != 0)
                    .map(|bit| script(bit + 1))
                    .collect();
                let part = |of: u8, heights: u32| u32::from(of) * heights / 256;
                let from = if from < 128 {
                    0
                } else {
                    part(2 * (from - 128), self.chain.len() as u32)
                };
                let to = to.map(|to| from + part(to, self.chain.len() as u32 - from));
                vec![Input::OpenScan {
                    scan: ScanId(now),
                    scripts,
                    from,
                    to,
                    now,
                }]
            }
            // Which are open is not the node's business.
            Op::Cancel { .. } => Vec::new(),
        }
    }

    fn accept(&mut self, tx: Option<Transaction>) -> Vec<Input> {
        let Some(tx) = tx else {
            return Vec::new();
        };
        let txids = self.node.take_in(&tx);
        let removed = (!txids.is_empty()).then_some(Input::TxRemoved { txids });
        removed
            .into_iter()
            .chain([accepted(&tx, self.now)])
            .collect()
    }

    fn mine(&mut self, coinbase: Transaction, txs: &[Transaction]) -> Input {
        let block = self.node.next_block(coinbase, txs);
        let raw = (&block).into();
        self.node.adopt(block);
        Input::Connect {
            block: raw,
            height: self.tip().height,
            now: self.now,
        }
    }

    fn reorganize(&mut self, depth: usize, bits: u16) -> Vec<Input> {
        if depth == 0 {
            return Vec::new();
        }
        let (_, txids) = self.node.abandon(depth);
        let (to, now) = (self.tip(), self.now);
        let mut told = vec![Input::Disconnect { to, now }];
        told.extend(self.mempool.iter().map(|tx| accepted(tx, now)));
        told.extend([Input::TxRemoved { txids }, evict_missing(now)]);
        for _ in 0..=depth {
            let txs = self.minable(bits);
            let coinbase = self.node.coinbase(&[(2, 5_000)]);
            told.push(self.mine(coinbase, &txs));
        }
        told
    }
}
