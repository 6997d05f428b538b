//! A pretended node: a chain and a mempool, what happens to them at random, and how the follower
//! would tell of it.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness, transaction,
};
use proptest::prelude::*;
use satwatch::tracker::{
    Balance, Baseline, BlockId, FoundOutput, Input, ScanId, ScannedBlock, ScannedTx, ScriptHash,
    Seen, WatchRequest,
};

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

pub fn spk(number: u8) -> ScriptBuf {
    ScriptBuf::from_bytes([vec![0, 20], vec![number; 20]].concat())
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

fn tx(inputs: &[OutPoint], outputs: &[(u8, u64)]) -> Transaction {
    let input = |previous_output: &OutPoint| TxIn {
        previous_output: *previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    };
    let output = |(to, value): &(u8, u64)| TxOut {
        value: Amount::from_sat(*value),
        script_pubkey: spk(*to),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.iter().map(input).collect(),
        output: outputs.iter().map(output).collect(),
    }
}

fn spends(tx: &Transaction, parents: &[Txid]) -> bool {
    tx.input
        .iter()
        .any(|input| parents.contains(&input.previous_output.txid))
}

fn pick<T: Clone>(list: &[T], index: u16) -> Option<T> {
    list.get(usize::from(index) % list.len().max(1)).cloned()
}

/// Output, height, coinbase.
type Unspent = BTreeMap<OutPoint, (TxOut, u32, bool)>;

pub struct Node {
    pub chain: Vec<Block>,
    pub mempool: Vec<Transaction>,
    /// Milliseconds since the Unix epoch.
    pub now: u64,
    salt: u32,
}

impl Node {
    /// One block, whose coinbase pays ten outputs to a script that nobody watches.
    pub fn new() -> Self {
        let mut node = Self {
            chain: Vec::new(),
            mempool: Vec::new(),
            now: 0,
            salt: 0,
        };
        node.extend(&[(200, 1_000_000); 10], Vec::new());
        node
    }

    pub fn id(&self, height: usize) -> BlockId {
        BlockId {
            height: height as u32,
            hash: self.chain[height].block_hash(),
        }
    }

    pub fn tip(&self) -> BlockId {
        self.id(self.chain.len() - 1)
    }

    /// Lets something happen; how the follower tells of it.
    pub fn happen(&mut self, op: &Op, now: u64) -> Vec<Input> {
        self.now = now;
        match *op {
            Op::Pay { input, to } => match pick(&self.spendable(), input) {
                Some((outpoint, value)) => {
                    self.accept(tx(&[outpoint], &[(to.0, value / 2), (to.1, value / 2 - 1)]))
                }
                None => Vec::new(),
            },
            Op::Replace { victim, to } => match pick(&self.mempool, victim) {
                Some(victim) => {
                    let value: u64 = victim.output.iter().map(|out| out.value.to_sat()).sum();
                    let successor = tx(
                        &[victim.input[0].previous_output],
                        &[(to, value.saturating_sub(7).max(1))],
                    );
                    if self.mempool.contains(&successor) {
                        Vec::new()
                    } else {
                        self.accept(successor)
                    }
                }
                None => Vec::new(),
            },
            Op::Evict { victim } => match pick(&self.mempool, victim) {
                Some(victim) => {
                    let txids = self.drop_with_descendants(vec![victim.compute_txid()]);
                    vec![
                        Input::TxRemoved { txids },
                        Input::EvictMissing {
                            spared: Vec::new(),
                            now,
                        },
                    ]
                }
                None => Vec::new(),
            },
            Op::Mine {
                bits,
                double_spend,
                to,
            } => {
                let mut txs = self.minable(bits);
                txs.extend(double_spend.and_then(|victim| self.double_spend(victim, &txs)));
                vec![self.mine(to, txs)]
            }
            Op::Reorg { depth, bits } => {
                self.reorganize(usize::from(depth).min(self.chain.len() - 1), bits)
            }
            Op::Watch { number } => vec![watch(number, now)],
            Op::Unwatch { number } => vec![Input::Unwatch {
                scripts: vec![ScriptHash::of(&spk(number))],
                now,
            }],
            Op::Scan { bits, from, to } => {
                let scripts = (0..7)
                    .filter(|bit| bits & (1 << bit) != 0)
                    .map(|bit| ScriptHash::of(&spk(bit + 1)))
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

    fn accept(&mut self, tx: Transaction) -> Vec<Input> {
        let txids = self.displace_conflicts(&tx);
        self.mempool.push(tx.clone());
        let gone = (!txids.is_empty()).then_some(Input::TxRemoved { txids });
        gone.into_iter()
            .chain([Input::TxSeen {
                tx: (&tx).into(),
                seen: Seen::Accepted,
                now: self.now,
            }])
            .collect()
    }

    fn mine(&mut self, to: u8, txs: Vec<Transaction>) -> Input {
        for tx in &txs {
            self.displace_conflicts(tx);
            self.mempool.retain(|other| other != tx);
        }
        self.extend(&[(to, 5_000)], txs);
        let block = self.chain.last().expect("it was just added").into();
        Input::Connect {
            block,
            height: self.tip().height,
            now: self.now,
        }
    }

    fn extend(&mut self, coinbase_to: &[(u8, u64)], txs: Vec<Transaction>) {
        self.salt += 1;
        let mut coinbase = tx(&[OutPoint::null()], coinbase_to);
        coinbase.input[0].script_sig = ScriptBuf::from_bytes(self.salt.to_le_bytes().to_vec());
        let header = Header {
            version: Version::TWO,
            prev_blockhash: self
                .chain
                .last()
                .map_or(BlockHash::all_zeros(), Block::block_hash),
            merkle_root: TxMerkleNode::all_zeros(),
            time: self.salt,
            bits: CompactTarget::from_consensus(0),
            nonce: self.salt,
        };
        let mut block = Block {
            header,
            txdata: [vec![coinbase], txs].concat(),
        };
        block.header.merkle_root = block.compute_merkle_root().expect("a block has a coinbase");
        self.chain.push(block);
    }

    fn reorganize(&mut self, depth: usize, bits: u16) -> Vec<Input> {
        if depth == 0 {
            return Vec::new();
        }
        let stale = self.chain.split_off(self.chain.len() - depth);
        let (coinbases, mut back): (Vec<_>, Vec<_>) = stale
            .into_iter()
            .flat_map(|block| block.txdata)
            .partition(Transaction::is_coinbase);
        back.append(&mut self.mempool);
        self.mempool = back;
        let gone =
            self.drop_with_descendants(coinbases.iter().map(Transaction::compute_txid).collect());
        let now = self.now;
        let mut told = vec![Input::Disconnect {
            to: self.tip(),
            now,
        }];
        told.extend(self.mempool.iter().map(|tx| Input::TxSeen {
            tx: tx.into(),
            seen: Seen::Accepted,
            now,
        }));
        told.extend([
            Input::TxRemoved { txids: gone },
            Input::EvictMissing {
                spared: Vec::new(),
                now,
            },
        ]);
        for _ in 0..=depth {
            let txs = self.minable(bits);
            told.push(self.mine(2, txs));
        }
        told
    }

    /// A transaction for the next block that spends what the n-th one in the mempool spends.
    fn double_spend(&self, victim: u16, chosen: &[Transaction]) -> Option<Transaction> {
        let input = pick(&self.mempool, victim)?.input[0].previous_output;
        let free = !chosen
            .iter()
            .any(|tx| tx.input.iter().any(|other| other.previous_output == input));
        (free && self.unspent().contains_key(&input)).then(|| tx(&[input], &[(3, 11), (9, 12)]))
    }

    fn displace_conflicts(&mut self, tx: &Transaction) -> Vec<Txid> {
        let spent: HashSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
        let clashes = |other: &&Transaction| {
            *other != tx
                && other
                    .input
                    .iter()
                    .any(|input| spent.contains(&input.previous_output))
        };
        let roots = self
            .mempool
            .iter()
            .filter(clashes)
            .map(Transaction::compute_txid)
            .collect();
        self.drop_with_descendants(roots)
    }

    fn drop_with_descendants(&mut self, mut gone: Vec<Txid>) -> Vec<Txid> {
        let child = |gone: &[Txid], pool: &[Transaction]| {
            let mut children = pool
                .iter()
                .filter(|tx| spends(tx, gone))
                .map(Transaction::compute_txid);
            children.find(|txid| !gone.contains(txid))
        };
        while let Some(txid) = child(&gone, &self.mempool) {
            gone.push(txid);
        }
        self.mempool.retain(|tx| !gone.contains(&tx.compute_txid()));
        gone
    }

    /// Mempool transactions whose bit is set and whose unconfirmed parents are among them, parents
    /// first.
    fn minable(&self, bits: u16) -> Vec<Transaction> {
        let unconfirmed: Vec<Txid> = self.mempool.iter().map(Transaction::compute_txid).collect();
        let mut chosen: Vec<Transaction> = Vec::new();
        loop {
            let ids: Vec<Txid> = chosen.iter().map(Transaction::compute_txid).collect();
            let missing: Vec<Txid> = unconfirmed
                .iter()
                .filter(|txid| !ids.contains(txid))
                .copied()
                .collect();
            let ready = |(place, tx): &(usize, &Transaction)| {
                bits & (1 << (place % 16)) != 0 && !chosen.contains(tx) && !spends(tx, &missing)
            };
            match self.mempool.iter().enumerate().find(ready) {
                Some((_, tx)) => chosen.push(tx.clone()),
                None => return chosen,
            }
        }
    }

    /// Outputs that nothing spends, on the chain or in the mempool, with their value.
    fn spendable(&self) -> Vec<(OutPoint, u64)> {
        let mut open: Vec<_> = self
            .unspent()
            .into_iter()
            .map(|(outpoint, (out, ..))| (outpoint, out.value.to_sat()))
            .collect();
        for tx in &self.mempool {
            open.extend((0..).zip(&tx.output).map(|(vout, out)| {
                (
                    OutPoint {
                        txid: tx.compute_txid(),
                        vout,
                    },
                    out.value.to_sat(),
                )
            }));
        }
        let spent: HashSet<OutPoint> = self
            .mempool
            .iter()
            .flat_map(|tx| tx.input.iter().map(|input| input.previous_output))
            .collect();
        open.retain(|(outpoint, value)| !spent.contains(outpoint) && *value > 10);
        open
    }

    fn unspent(&self) -> Unspent {
        let mut unspent = BTreeMap::new();
        for (height, block) in (0..).zip(&self.chain) {
            for tx in &block.txdata {
                tx.input
                    .iter()
                    .for_each(|input| drop(unspent.remove(&input.previous_output)));
                for (vout, out) in (0..).zip(&tx.output) {
                    unspent.insert(
                        OutPoint {
                            txid: tx.compute_txid(),
                            vout,
                        },
                        (out.clone(), height, tx.is_coinbase()),
                    );
                }
            }
        }
        unspent
    }

    /// `scantxoutset` for these scripts.
    pub fn found(&self, scripts: &[ScriptHash]) -> Vec<FoundOutput> {
        let unspent = self
            .unspent()
            .into_iter()
            .filter(|(_, (out, ..))| scripts.contains(&ScriptHash::of(&out.script_pubkey)));
        let found = unspent.map(|(outpoint, (out, height, coinbase))| FoundOutput {
            outpoint,
            spk: out.script_pubkey,
            value: out.value,
            height,
            coinbase,
        });
        found.collect()
    }

    /// What happened to a script in blocks, oldest first: height, transaction, received, sent.
    pub fn true_history(&self, script: &ScriptHash) -> Vec<(u32, Txid, u64, u64)> {
        let mine = |out: &TxOut| {
            if ScriptHash::of(&out.script_pubkey) == *script {
                out.value.to_sat()
            } else {
                0
            }
        };
        let mut owned: BTreeMap<OutPoint, u64> = BTreeMap::new();
        let mut history = Vec::new();
        for (height, block) in (0..).zip(&self.chain) {
            for tx in &block.txdata {
                let txid = tx.compute_txid();
                let sent = tx
                    .input
                    .iter()
                    .filter_map(|input| owned.remove(&input.previous_output))
                    .sum();
                let received = tx.output.iter().map(mine).sum();
                owned.extend(
                    (0..)
                        .zip(&tx.output)
                        .filter(|(_, out)| mine(out) > 0)
                        .map(|(vout, out)| (OutPoint { txid, vout }, mine(out))),
                );
                if received + sent > 0 {
                    history.push((height, txid, received, sent));
                }
            }
        }
        history
    }

    /// What a scan of `scripts` that began at height `from` learns from the blocks of these
    /// heights.
    pub fn past(
        &self,
        scripts: &[ScriptHash],
        from: u32,
        heights: RangeInclusive<u32>,
    ) -> Vec<ScannedBlock> {
        let mut owned: BTreeMap<OutPoint, FoundOutput> = BTreeMap::new();
        let mut past = Vec::new();
        for (height, block) in (0..=*heights.end()).zip(&self.chain) {
            let mut transactions = Vec::new();
            for (position, tx) in (0..).zip(&block.txdata) {
                let txid = tx.compute_txid();
                let spent: Vec<_> = tx
                    .input
                    .iter()
                    .filter_map(|input| owned.remove(&input.previous_output))
                    .collect();
                let outputs = (0..)
                    .zip(&tx.output)
                    .filter(|(_, out)| scripts.contains(&ScriptHash::of(&out.script_pubkey)));
                let paid = outputs.map(|(vout, out)| FoundOutput {
                    outpoint: OutPoint { txid, vout },
                    spk: out.script_pubkey.clone(),
                    value: out.value,
                    height,
                    coinbase: tx.is_coinbase(),
                });
                let before = owned.len();
                owned.extend(paid.map(|output| (output.outpoint, output)));
                if before < owned.len() || !spent.is_empty() {
                    let spent = spent
                        .into_iter()
                        .filter(|output| output.height < from)
                        .collect();
                    transactions.push(ScannedTx {
                        position,
                        tx: tx.clone(),
                        spent,
                    });
                }
            }
            if heights.contains(&height) && !transactions.is_empty() {
                past.push(ScannedBlock {
                    block: self.id(height as usize),
                    time: block.header.time,
                    transactions,
                });
            }
        }
        past
    }

    /// The balance of a script by a rescan of chain and mempool.
    pub fn true_balance(&self, script: &ScriptHash) -> Balance {
        let mine = |out: &TxOut| {
            if ScriptHash::of(&out.script_pubkey) == *script {
                out.value.to_sat() as i64
            } else {
                0
            }
        };
        let chain = self.unspent();
        let spent = |outpoint: &OutPoint| {
            let parent = self
                .mempool
                .iter()
                .find(|tx| tx.compute_txid() == outpoint.txid);
            let on_chain = || chain.get(outpoint).map_or(0, |(out, ..)| mine(out));
            parent.map_or_else(on_chain, |parent| {
                mine(&parent.output[outpoint.vout as usize])
            })
        };
        let received: i64 = self
            .mempool
            .iter()
            .flat_map(|tx| &tx.output)
            .map(mine)
            .sum();
        let sent: i64 = self
            .mempool
            .iter()
            .flat_map(|tx| &tx.input)
            .map(|input| spent(&input.previous_output))
            .sum();
        Balance {
            confirmed: chain.values().map(|(out, ..)| mine(out)).sum(),
            unconfirmed: received - sent,
        }
    }
}
