//! A pretended node for all tests of the core: its chain and its mempool, what can happen to them,
//! and what became of transactions. It tells nobody: how its news reach the tracker is the business
//! of each test. [`laws`] holds what is kept against it.

pub mod descriptors;
pub mod fold;
pub mod laws;
pub mod scans;
#[path = "../status_changes.rs"]
pub mod status_changes;

use std::collections::{BTreeMap, HashMap, HashSet};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness,
};
use satwatch::tracker::{BlockId, FoundOutput, MemoryView, ScriptHash, Spend, Status, Tracker};

/// Output, height, coinbase.
pub type Unspent = BTreeMap<OutPoint, (TxOut, u32, bool)>;

/// Scripts with a small number are the ones that tests watch; 0 is an OP_RETURN, those of
/// [`WALLETS`](descriptors::WALLETS) are of wallets, any other number a witness program.
pub fn spk(number: u8) -> ScriptBuf {
    match number {
        0 => ScriptBuf::new_op_return([7; 8]),
        _ if descriptors::WALLETS.contains(&number) => descriptors::spk_of_wallet(number),
        _ => ScriptBuf::from_bytes([vec![0x00, 0x14], vec![number; 20]].concat()),
    }
}

pub fn script(number: u8) -> ScriptHash {
    ScriptHash::of(&spk(number))
}

pub fn tx(inputs: &[OutPoint], outputs: &[(u8, u64)]) -> Transaction {
    let input = |previous_output: &OutPoint| TxIn {
        previous_output: *previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    };
    Transaction {
        version: TxVersion::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.iter().map(input).collect(),
        output: outputs
            .iter()
            .map(|(to, value)| TxOut {
                value: Amount::from_sat(*value),
                script_pubkey: spk(*to),
            })
            .collect(),
    }
}

pub fn block(previous: BlockHash, nonce: u32, txdata: Vec<Transaction>) -> Block {
    let header = Header {
        version: Version::TWO,
        prev_blockhash: previous,
        merkle_root: TxMerkleNode::all_zeros(),
        time: nonce,
        bits: CompactTarget::from_consensus(0),
        nonce,
    };
    let mut block = Block { header, txdata };
    block.header.merkle_root = block.compute_merkle_root().expect("a block has a coinbase");
    block
}

/// A tracker as the rows say, which forgets in small portions.
pub fn load(view: &MemoryView, key: [u8; 16]) -> Tracker {
    let mut tracker = Tracker::new(key)
        .in_portions_of(4)
        .looking_ahead(descriptors::LOOKAHEAD);
    tracker.load_tip(view.tip());
    view.watches
        .values()
        .for_each(|row| tracker.load_watch(row));
    let open = |spent: Option<Spend>| spent.is_none_or(|spend| spend.height.is_none());
    view.outputs
        .iter()
        .filter(|(_, row)| open(row.spent))
        .for_each(|(outpoint, _)| tracker.load_outpoint(outpoint));
    view.txs
        .iter()
        .filter(|(_, row)| row.status == Status::Mempool)
        .for_each(|(txid, row)| tracker.load_unconfirmed(*txid, row, &view.raw_txs[txid]));
    view.open_scans()
        .into_iter()
        .for_each(|scan| tracker.load_scan(scan));
    let open = view.open_scans();
    let scans = view.scan_scripts.keys().map(|(scan, _)| *scan);
    let ended = scans.filter(|scan| !open.contains(scan));
    ended.for_each(|scan| tracker.load_ended_scan(scan));
    let adding = view.adding.values().flatten();
    adding.for_each(|script| tracker.load_adding(*script));
    view.forgetting
        .keys()
        .for_each(|script| tracker.load_forgetting(*script));
    let descriptors = view.descriptors.iter();
    descriptors.for_each(|(descriptor, row)| tracker.load_descriptor(*descriptor, row));
    let joining = view.joining.keys();
    joining.for_each(|place| tracker.load_joining(*place));
    let leaving = view.leaving.keys();
    leaving.for_each(|descriptor| tracker.load_leaving(*descriptor));
    tracker
}

fn spends_any(tx: &Transaction, spent: &HashSet<OutPoint>) -> bool {
    let mut inputs = tx.input.iter();
    inputs.any(|input| spent.contains(&input.previous_output))
}

fn is_child(tx: &Transaction, parents: &[Txid]) -> bool {
    let mut inputs = tx.input.iter();
    inputs.any(|input| parents.contains(&input.previous_output.txid))
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

#[derive(Debug, Clone)]
pub struct Node {
    pub chain: Vec<Block>,
    pub mempool: Vec<Transaction>,
    /// What became of transactions that are neither in the chain nor in the mempool.
    pub fates: HashMap<Txid, Status>,
    /// Outputs of a coinbase in the block with this hash that nobody had spent when it came again:
    /// they do not come back with the end of the later one.
    pub overwritten: HashSet<(BlockHash, OutPoint)>,
    /// Coinbases that ever were in two blocks of its chain.
    pub repeated: HashSet<Txid>,
    /// Makes blocks and coinbases differ.
    salt: u64,
}

impl Node {
    /// A chain of one block, whose coinbase pays script 200 in ten outputs.
    pub fn new() -> Self {
        let mut node = Self {
            chain: Vec::new(),
            mempool: Vec::new(),
            fates: HashMap::new(),
            overwritten: HashSet::new(),
            repeated: HashSet::new(),
            salt: 0,
        };
        let outputs = [(200, 1_000_000); 10];
        let genesis = block(BlockHash::all_zeros(), 0, vec![node.coinbase(&outputs)]);
        node.chain.push(genesis);
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

    pub fn coinbase(&mut self, outputs: &[(u8, u64)]) -> Transaction {
        self.salt += 1;
        let mut coinbase = tx(&[OutPoint::null()], outputs);
        coinbase.input[0].script_sig = ScriptBuf::from_bytes(self.salt.to_le_bytes().to_vec());
        coinbase
    }

    /// The coinbase of a block that may come again: whose outputs are all spent, or, if it
    /// `overwrites`, any.
    pub fn coinbase_again(&self, index: u16, overwrites: bool) -> Option<Transaction> {
        let coinbases = self.chain.iter().skip(1).map(|block| &block.txdata[0]);
        let may_come = |coinbase: &&Transaction| overwrites || !self.is_overwritten_by(coinbase);
        let coinbases: Vec<_> = coinbases.filter(may_come).cloned().collect();
        pick(&coinbases, index)
    }

    /// Whether some of its outputs are there already, and not spent.
    pub fn is_overwritten_by(&self, coinbase: &Transaction) -> bool {
        let (unspent, txid) = (self.unspent(), coinbase.compute_txid());
        let mut vouts = 0..coinbase.output.len() as u32;
        vouts.any(|vout| unspent.contains_key(&OutPoint { txid, vout }))
    }

    /// Which of one, and of what it descends from, spends the same output of a coinbase that came
    /// again as the other: maybe each another one of the two.
    pub fn spender_of_repeated<'a>(
        &self,
        one: Txid,
        other: Txid,
        find: &impl Fn(&Txid) -> Option<&'a Transaction>,
    ) -> Option<Txid> {
        let spent = |txid| {
            let inputs = find(&txid).into_iter().flat_map(|tx| &tx.input);
            inputs.map(|input| input.previous_output)
        };
        spent(one).find_map(|spends| match self.repeated.contains(&spends.txid) {
            true => spent(other).any(|also| also == spends).then_some(one),
            false => self.spender_of_repeated(spends.txid, other, find),
        })
    }

    /// Whether a block holds it: the node does not take it a second time.
    pub fn is_mined(&self, tx: &Transaction) -> bool {
        self.chain.iter().any(|block| block.txdata.contains(tx))
    }

    /// A block of these transactions on the tip, which nobody has yet.
    pub fn next_block(&mut self, coinbase: Transaction, txs: &[Transaction]) -> Block {
        let mut txdata = vec![coinbase];
        txdata.extend_from_slice(txs);
        self.salt += 1;
        block(self.tip().hash, self.salt as u32, txdata)
    }

    /// Its mempool takes a transaction; what it conflicts with leaves, with descendants, and is
    /// answered.
    pub fn take_in(&mut self, tx: &Transaction) -> Vec<Txid> {
        let by = tx.compute_txid();
        let gone = self.displace_conflicts(tx, Status::Replaced { by });
        self.mempool.retain(|known| known.compute_txid() != by);
        self.mempool.push(tx.clone());
        self.fates.remove(&by);
        gone
    }

    /// Removes from the mempool what conflicts with `tx` and all descendants; their ids.
    pub fn displace_conflicts(&mut self, tx: &Transaction, fate: Status) -> Vec<Txid> {
        let spent: HashSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
        let clashing = self.mempool.iter().filter(|it| spends_any(it, &spent));
        let me = tx.compute_txid();
        let roots: Vec<Txid> = clashing
            .map(Transaction::compute_txid)
            .filter(|txid| *txid != me)
            .collect();
        self.drop_with_descendants(&roots, fate)
    }

    pub fn drop_with_descendants(&mut self, roots: &[Txid], fate: Status) -> Vec<Txid> {
        let mut gone: Vec<Txid> = roots.to_vec();
        if gone.is_empty() {
            return gone;
        }
        loop {
            let child = self
                .mempool
                .iter()
                .find(|tx| is_child(tx, &gone) && !gone.contains(&tx.compute_txid()));
            match child {
                Some(tx) => gone.push(tx.compute_txid()),
                None => break,
            }
        }
        self.mempool.retain(|tx| !gone.contains(&tx.compute_txid()));
        self.fates.extend(gone.iter().map(|txid| (*txid, fate)));
        gone
    }

    /// It connects a block; what left its mempool because of conflicts.
    pub fn adopt(&mut self, block: Block) -> Vec<Txid> {
        let mut gone = Vec::new();
        let (unspent, hash) = (self.unspent(), block.block_hash());
        self.overwritten
            .retain(|(created_in, _)| *created_in != hash);
        let coinbase = block.txdata[0].compute_txid();
        if self.is_mined(&block.txdata[0]) {
            self.repeated.insert(coinbase);
        }
        let again = unspent
            .iter()
            .filter(|(outpoint, _)| outpoint.txid == coinbase);
        let again =
            again.map(|(outpoint, (_, height, _))| (self.id(*height as usize).hash, *outpoint));
        self.overwritten.extend(again.collect::<Vec<_>>());
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            if !tx.is_coinbase() {
                gone.extend(self.displace_conflicts(tx, Status::Conflicted { by: txid }));
            }
            self.mempool.retain(|other| other.compute_txid() != txid);
            self.fates.remove(&txid);
        }
        self.chain.push(block);
        gone
    }

    /// It disconnects `depth` blocks: transactions return to the mempool but for coinbases and what
    /// spends those. The blocks, oldest first, and what is gone.
    pub fn abandon(&mut self, depth: usize) -> (Vec<Block>, Vec<Txid>) {
        let stale = self.chain.split_off(self.chain.len() - depth);
        let mut gone = Vec::new();
        for tx in stale
            .iter()
            .rev()
            .flat_map(|block| block.txdata.iter().rev())
        {
            match tx.is_coinbase() {
                true => {
                    gone.extend(self.drop_with_descendants(&[tx.compute_txid()], Status::Evicted))
                }
                false => self.mempool.insert(0, tx.clone()),
            }
        }
        (stale, gone)
    }

    /// The chain's unspent outputs by rescanning it.
    pub fn unspent(&self) -> Unspent {
        let mut unspent = BTreeMap::new();
        for (height, block) in (0..).zip(&self.chain) {
            for tx in &block.txdata {
                let (txid, coinbase) = (tx.compute_txid(), tx.is_coinbase());
                tx.input
                    .iter()
                    .for_each(|input| drop(unspent.remove(&input.previous_output)));
                for (vout, out) in (0..).zip(&tx.output) {
                    let outpoint = OutPoint { txid, vout };
                    if !self.overwritten.contains(&(block.block_hash(), outpoint)) {
                        unspent.insert(outpoint, (out.clone(), height, coinbase));
                    }
                }
            }
        }
        unspent
    }

    /// `scantxoutset` for these scripts.
    pub fn found(&self, scripts: &[ScriptHash]) -> Vec<FoundOutput> {
        let unspent = self.unspent().into_iter();
        unspent
            .filter(|(_, (out, ..))| scripts.contains(&ScriptHash::of(&out.script_pubkey)))
            .map(|(outpoint, (out, height, coinbase))| FoundOutput {
                outpoint,
                spk: out.script_pubkey,
                value: out.value,
                height,
                coinbase,
            })
            .collect()
    }

    /// Outputs that nothing spends yet, on the chain or in the mempool, with their value.
    pub fn spendable(&self) -> Vec<(OutPoint, u64)> {
        let mut open: Vec<(OutPoint, TxOut)> = self
            .unspent()
            .into_iter()
            .map(|(outpoint, (out, ..))| (outpoint, out))
            .collect();
        for tx in &self.mempool {
            let txid = tx.compute_txid();
            let outputs = (0..).zip(&tx.output);
            open.extend(outputs.map(|(vout, out)| (OutPoint { txid, vout }, out.clone())));
        }
        let spent: HashSet<OutPoint> = self
            .mempool
            .iter()
            .flat_map(|tx| tx.input.iter().map(|input| input.previous_output))
            .collect();
        open.retain(|(outpoint, out)| {
            !spent.contains(outpoint) && !out.script_pubkey.is_op_return()
        });
        open.into_iter()
            .map(|(outpoint, out)| (outpoint, out.value.to_sat()))
            .collect()
    }

    /// Mempool transactions of this selection whose unconfirmed parents are selected too, parents
    /// first.
    pub fn minable(&self, bits: u16) -> Vec<Transaction> {
        let pool: Vec<Txid> = self.mempool.iter().map(Transaction::compute_txid).collect();
        let mut chosen: Vec<usize> = Vec::new();
        let place = |txid: &Txid| pool.iter().position(|known| known == txid);
        loop {
            let ready = self.mempool.iter().enumerate().find(|(index, tx)| {
                bits & (1 << (index % 16)) != 0
                    && !chosen.contains(index)
                    && tx.input.iter().all(|input| {
                        place(&input.previous_output.txid)
                            .is_none_or(|parent| chosen.contains(&parent))
                    })
            });
            match ready {
                Some((index, _)) => chosen.push(index),
                None => break,
            }
        }
        let txs = chosen.into_iter().map(|index| self.mempool[index].clone());
        txs.collect()
    }

    /// A transaction for the next block that spends, to somebody, what the n-th one in the mempool
    /// spends, but none of `chosen`.
    pub fn double_spend(&self, index: u16, to: u8, chosen: &[Transaction]) -> Option<Transaction> {
        let input = pick(&self.mempool, index)?.input[0].previous_output;
        let mut spent = chosen.iter().flat_map(|tx| &tx.input);
        let is_free = !spent.any(|other| other.previous_output == input);
        let rival = tx(&[input], &[(to, 11), (9, 12)]);
        let is_able = is_free && self.unspent().contains_key(&input);
        (is_able && !self.is_mined(&rival)).then_some(rival)
    }

    /// A payment that spends some outputs that can be spent.
    pub fn payment(&self, inputs: &[u16], to: &[u8], zero: bool) -> Option<Transaction> {
        let inputs = pick_some(&self.spendable(), inputs);
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
        (!self.is_mined(&tx)).then_some(tx)
    }

    /// A transaction that spends an input of each victim, and nothing that would go with them.
    pub fn replacement(&self, victims: &[u16], to: u8) -> Option<Transaction> {
        let victims = pick_some(&self.mempool, victims);
        let mut inputs: Vec<OutPoint> = Vec::new();
        for victim in &victims {
            let input = victim.input[0].previous_output;
            if !inputs.contains(&input) {
                inputs.push(input);
            }
        }
        // An input that a victim or its descendants made goes with them.
        let mut gone: Vec<Txid> = victims.iter().map(Transaction::compute_txid).collect();
        for _ in 0..self.mempool.len() {
            let children = self.mempool.iter().filter(|tx| is_child(tx, &gone));
            let fresh: Vec<_> = children
                .map(Transaction::compute_txid)
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
        let is_new = !self.mempool.contains(&tx) && !self.is_mined(&tx);
        (!inputs.is_empty() && is_new).then_some(tx)
    }
}
