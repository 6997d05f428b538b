//! A pretended node with its chain and mempool, the follower's duties, and the naive model that rescans everything.

use std::collections::{BTreeMap, HashMap, HashSet};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness,
};
use satwatch::tracker::{
    ApplyError, Ask, Balance, BlockId, Event, EventKind, FoundOutput, Input, MemoryView, Overlay, Past, Phase, ScriptHash, Seen, Status,
    Tracker, Transition, WatchRequest,
};

/// Scripts with a small number are the ones that tests watch; any number is a valid witness program.
pub fn spk(number: u8) -> ScriptBuf {
    ScriptBuf::from_bytes([vec![0x00, 0x14], vec![number; 20]].concat())
}

pub fn script(number: u8) -> ScriptHash {
    ScriptHash::of(&spk(number))
}

pub struct World {
    pub tracker: Tracker,
    pub view: MemoryView,
    pub events: Vec<Event>,
    pub chain: Vec<Block>,
    pub mempool: Vec<Transaction>,
    pub watched: HashSet<u8>,
    salt: u64,
    pub now: u64,
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
        output: outputs.iter().map(|(to, value)| TxOut { value: Amount::from_sat(*value), script_pubkey: spk(*to) }).collect(),
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

impl World {
    /// A chain of one block, whose coinbase pays script 200 in ten outputs; nothing is watched.
    pub fn new() -> Self {
        let mut world = Self {
            tracker: Tracker::new([7; 16]),
            view: MemoryView::default(),
            events: Vec::new(),
            chain: Vec::new(),
            mempool: Vec::new(),
            watched: HashSet::new(),
            salt: 0,
            now: 1_000_000,
        };
        let outputs = [(200, 1_000_000); 10];
        let genesis = block(BlockHash::all_zeros(), 0, vec![world.coinbase(&outputs)]);
        let start = vec![(genesis.block_hash(), genesis.header.time)];
        world.chain.push(genesis);
        let _ = world.send(Input::Start { first_height: 0, blocks: start, now: 0 });
        world
    }

    pub fn coinbase(&mut self, outputs: &[(u8, u64)]) -> Transaction {
        self.salt += 1;
        let mut coinbase = tx(&[OutPoint::null()], outputs);
        coinbase.input[0].script_sig = ScriptBuf::from_bytes(self.salt.to_le_bytes().to_vec());
        coinbase
    }

    pub fn tip(&self) -> BlockId {
        let block = self.chain.last().expect("the chain has a genesis");
        BlockId { height: self.chain.len() as u32 - 1, hash: block.block_hash() }
    }

    /// Applies one input, answers what the tracker asks for as a follower would, and says what the input itself did.
    pub fn send(&mut self, input: Input) -> Transition {
        self.now += 1000;
        let transition = self.try_send(input).expect("the input is legal");
        for ask in transition.asks.clone() {
            match ask {
                Ask::Check(tx) => {
                    if self.mempool.contains(&tx) {
                        let _ = self.send(Input::TxSeen { tx, seen: Seen::Accepted, now: self.now });
                    }
                }
                Ask::Fetch(txids) => {
                    let wanted: Vec<Transaction> = self.mempool.iter().filter(|tx| txids.contains(&tx.compute_txid())).cloned().collect();
                    for tx in wanted {
                        let _ = self.send(Input::TxSeen { tx, seen: Seen::Fetched, now: self.now });
                    }
                }
                Ask::Baseline => self.scan(),
            }
        }
        transition
    }

    /// Applies one input to the tracker and the view; on a refusal the view stays as it was.
    pub fn try_send(&mut self, input: Input) -> Result<Transition, ApplyError> {
        let overlay = Overlay::new(&self.view);
        let transition = self.tracker.apply(&overlay, input)?;
        self.view.commit(&transition.changes);
        self.events.extend(transition.events.clone());
        Ok(transition)
    }

    pub fn watch(&mut self, number: u8, depths: &[u8]) {
        let request = WatchRequest { spk: spk(number), label: None, depths: depths.to_vec(), past: Past::Find };
        let _ = self.send(Input::Watch { scripts: vec![request], now: self.now });
        self.watched.insert(number);
    }

    /// `scantxoutset` for every script that waits for it.
    fn scan(&mut self) {
        let pending = self.view.watches.iter().filter(|(_, row)| row.coverage.pending);
        let scripts: Vec<(ScriptHash, ScriptBuf)> = pending.map(|(script, row)| (*script, row.spk.clone())).collect();
        let unspent = self.unspent();
        let of_scripts = unspent.iter().filter(|(_, (out, ..))| scripts.iter().any(|(_, spk)| *spk == out.script_pubkey));
        let outputs = of_scripts
            .map(|(outpoint, (out, height, coinbase))| FoundOutput {
                outpoint: *outpoint,
                spk: out.script_pubkey.clone(),
                value: out.value,
                height: *height,
                coinbase: *coinbase,
            })
            .collect();
        let scripts = scripts.into_iter().map(|(script, _)| script).collect();
        let _ = self.send(Input::Baseline { block: self.tip(), scripts, outputs, now: self.now });
    }

    /// The node accepts a transaction: what it conflicts with leaves, with descendants.
    pub fn accept(&mut self, tx: &Transaction) -> Transition {
        self.displace_conflicts(tx);
        self.mempool.push(tx.clone());
        self.send(Input::TxSeen { tx: tx.clone(), seen: Seen::Accepted, now: self.now })
    }

    /// Removes from the node's mempool what conflicts with `tx` and all descendants; returns their ids.
    pub fn displace_conflicts(&mut self, tx: &Transaction) -> Vec<Txid> {
        let spent: HashSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
        let me = tx.compute_txid();
        let clashes =
            |other: &Transaction| other.compute_txid() != me && other.input.iter().any(|input| spent.contains(&input.previous_output));
        let roots: Vec<Txid> = self.mempool.iter().filter(|other| clashes(other)).map(|other| other.compute_txid()).collect();
        self.drop_with_descendants(&roots)
    }

    pub fn drop_with_descendants(&mut self, roots: &[Txid]) -> Vec<Txid> {
        let mut gone: Vec<Txid> = roots.to_vec();
        loop {
            let child = self
                .mempool
                .iter()
                .find(|tx| !gone.contains(&tx.compute_txid()) && tx.input.iter().any(|input| gone.contains(&input.previous_output.txid)));
            match child {
                Some(tx) => gone.push(tx.compute_txid()),
                None => break,
            }
        }
        self.mempool.retain(|tx| !gone.contains(&tx.compute_txid()));
        gone
    }

    /// Mines a block of these transactions on the tip and tells the tracker, as `rawblock` does.
    pub fn mine(&mut self, coinbase_to: u8, txs: &[Transaction]) -> Transition {
        let mut txdata = vec![self.coinbase(&[(coinbase_to, 5_000)])];
        txdata.extend_from_slice(txs);
        self.salt += 1;
        let block = block(self.tip().hash, self.salt as u32, txdata);
        self.connect(block)
    }

    pub fn connect(&mut self, block: Block) -> Transition {
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            if !tx.is_coinbase() {
                self.displace_conflicts(tx);
            }
            self.mempool.retain(|other| other.compute_txid() != txid);
        }
        self.chain.push(block.clone());
        self.send(Input::Connect { block, height: self.tip().height, now: self.now })
    }

    /// Disconnects `depth` blocks: their transactions return to the mempool but for coinbases and what spends those.
    pub fn disconnect(&mut self, depth: usize) -> Transition {
        let stale = self.chain.split_off(self.chain.len() - depth);
        let mut lost = Vec::new();
        let mut back = Vec::new();
        for tx in stale.into_iter().flat_map(|block| block.txdata) {
            match tx.is_coinbase() {
                true => lost.push(tx.compute_txid()),
                false => back.push(tx),
            }
        }
        back.append(&mut self.mempool);
        self.mempool = back;
        let gone = self.drop_with_descendants(&lost);
        let transition = self.send(Input::Disconnect { to: self.tip(), now: self.now });
        // Of transactions between strangers the tracker knows nothing: the node says what fell with their coinbase and what it
        // accepted again.
        for tx in self.mempool.clone() {
            let _ = self.send(Input::TxSeen { tx, seen: Seen::Accepted, now: self.now });
        }
        let _ = self.send(Input::TxGone { txids: gone });
        let _ = self.send(Input::Settle { now: self.now });
        transition
    }

    pub fn snapshot(&mut self) {
        let txids = self.mempool.iter().map(|tx| tx.compute_txid()).collect();
        let _ = self.send(Input::Snapshot { tip: self.tip().hash, txids, now: self.now });
        let _ = self.send(Input::Settle { now: self.now });
    }

    /// A new process: everything in memory is read from the rows again.
    pub fn restart(&mut self) {
        let mut tracker = Tracker::new([9; 16]);
        tracker.load_tip(self.view.tip);
        self.view.watches.values().for_each(|row| tracker.load_watch(row));
        let open = |spent: Option<satwatch::tracker::Spend>| spent.is_none_or(|spend| spend.height.is_none());
        self.view.outputs.iter().filter(|(_, row)| open(row.spent)).for_each(|(outpoint, _)| tracker.load_outpoint(outpoint));
        self.view.txs.iter().filter(|(_, row)| row.status == Status::Mempool).for_each(|(txid, row)| tracker.load_unconfirmed(*txid, row));
        self.tracker = tracker;
        self.snapshot();
    }

    /// The chain's unspent outputs by rescanning it: output, height, coinbase.
    pub fn unspent(&self) -> BTreeMap<OutPoint, (TxOut, u32, bool)> {
        let mut unspent = BTreeMap::new();
        for (height, block) in (0..).zip(&self.chain) {
            for tx in &block.txdata {
                tx.input.iter().for_each(|input| drop(unspent.remove(&input.previous_output)));
                for (vout, out) in (0..).zip(&tx.output) {
                    unspent.insert(OutPoint { txid: tx.compute_txid(), vout }, (out.clone(), height, tx.is_coinbase()));
                }
            }
        }
        unspent
    }

    /// What the balance of a script is by rescanning chain and mempool.
    pub fn true_balance(&self, number: u8) -> Balance {
        let mine = |out: &TxOut| out.script_pubkey == spk(number);
        let chain = self.unspent();
        let value = |out: &TxOut| out.value.to_sat() as i64;
        let confirmed: i64 = chain.values().filter(|(out, ..)| mine(out)).map(|(out, ..)| value(out)).sum();
        let by_txid: HashMap<Txid, &Transaction> = self.mempool.iter().map(|tx| (tx.compute_txid(), tx)).collect();
        let previous = |outpoint: &OutPoint| match by_txid.get(&outpoint.txid) {
            Some(parent) => parent.output.get(outpoint.vout as usize).cloned(),
            None => chain.get(outpoint).map(|(out, ..)| out.clone()),
        };
        let mut unconfirmed = 0;
        for tx in &self.mempool {
            unconfirmed += tx.output.iter().filter(|out| mine(out)).map(value).sum::<i64>();
            let spent = tx.input.iter().filter_map(|input| previous(&input.previous_output)).filter(|out| mine(out));
            unconfirmed -= spent.map(|out| value(&out)).sum::<i64>();
        }
        Balance { confirmed, unconfirmed }
    }

    /// Compares rows and events with the truth; every broken law is a panic with its name.
    pub fn check(&self) {
        assert_eq!(self.view.tip, Some(self.tip()), "the tip is the node's");
        for number in &self.watched {
            let row = &self.view.watches[&script(*number)];
            assert_eq!(row.balance, self.true_balance(*number), "balance of script {number}");
        }
        for (txid, row) in &self.view.txs {
            let height = self.chain.iter().position(|block| block.txdata.iter().any(|tx| tx.compute_txid() == *txid));
            let unconfirmed = self.mempool.iter().any(|tx| tx.compute_txid() == *txid);
            match row.status {
                Status::Confirmed { block, .. } => assert_eq!(height, Some(block.height as usize), "{txid} is where its row says"),
                Status::Mempool => assert!(unconfirmed && height.is_none() && !row.tx.is_coinbase(), "{txid} is unconfirmed"),
                _ => assert!(!unconfirmed && height.is_none(), "{txid} is gone"),
            }
        }
        self.check_events();
    }

    fn check_events(&self) {
        let mut balances: HashMap<ScriptHash, i64> = HashMap::new();
        let mut phases: HashMap<(ScriptHash, Txid), Phase> = HashMap::new();
        for event in &self.events {
            match &event.kind {
                EventKind::BalanceChange { script, old, new, .. } => {
                    let last = balances.insert(*script, new.total()).unwrap_or(0);
                    assert_eq!(old.total(), last, "each balance change starts where the one before ended");
                    assert_ne!(old.total(), new.total(), "a balance change changes the balance");
                }
                EventKind::NewTransactions { script, transactions, .. } => {
                    for new in transactions {
                        let before = phases.insert((*script, new.txid), new.status.phase());
                        assert_eq!(before, None, "{} is announced once", new.txid);
                    }
                }
                EventKind::TransactionUpdate { script, previous, transaction, .. } => {
                    let before = phases.insert((*script, transaction.txid), transaction.status.phase());
                    assert_eq!(before, Some(*previous), "an update starts where the one before ended");
                    assert!(legal(*previous, transaction.status.phase()), "{previous:?} -> {:?}", transaction.status);
                }
                EventKind::Block { .. } | EventKind::Reorg { .. } => {}
            }
        }
        for number in &self.watched {
            let told = balances.get(&script(*number)).copied().unwrap_or(0);
            assert_eq!(told, self.view.watches[&script(*number)].balance.total(), "the last balance told is the balance");
        }
        for ((script, txid), phase) in &phases {
            let row = &self.view.txs[txid];
            assert!(row.touches.iter().any(|touch| touch.script == *script), "{txid} was told to a script that it touches");
            assert_eq!(row.status.phase(), *phase, "the last phase told of {txid} is its phase");
        }
    }
}

/// The table in `tracker::event`.
fn legal(from: Phase, to: Phase) -> bool {
    use Phase::{Confirmed, Conflicted, Evicted, Mempool, Replaced};
    match from {
        Mempool => to != Mempool,
        Confirmed => matches!(to, Mempool | Evicted | Confirmed),
        Replaced | Conflicted | Evicted => matches!(to, Mempool | Confirmed),
    }
}
