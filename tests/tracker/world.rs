//! A pretended node with its chain and mempool, and the follower's duties. `check.rs` compares what
//! the tracker says with it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness,
};
use satwatch::tracker::{
    ApplyError, Ask, BlockId, ChangeSet, Event, FoundOutput, Input, MemoryView, Overlay, Past,
    Replacement, ScriptHash, Seen, Spend, Status, Tracker, Transition, WatchRequest,
};

/// Scripts with a small number are the ones that tests watch; 0 is an OP_RETURN, any other number a
/// witness program.
pub fn spk(number: u8) -> ScriptBuf {
    match number {
        0 => ScriptBuf::new_op_return([7; 8]),
        _ => ScriptBuf::from_bytes([vec![0x00, 0x14], vec![number; 20]].concat()),
    }
}

/// How the node's news reach the tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Over `rawtx` and `sequence`.
    Sequence,
    /// Over `rawtx` alone; what leaves is found by the next reading of the whole mempool.
    Rawtx,
    /// Not at all: the next reading finds it.
    Poll,
}

pub fn script(number: u8) -> ScriptHash {
    ScriptHash::of(&spk(number))
}

pub struct World {
    pub tracker: Tracker,
    key: [u8; 16],
    pub view: MemoryView,
    pub events: Vec<Event>,
    /// Every transition, with the events that it told.
    pub past: Vec<(ChangeSet, Vec<Event>)>,
    pub chain: Vec<Block>,
    /// Height of the first block that the tracker started with: no reorg goes below it.
    pub first_known: usize,
    pub mempool: Vec<Transaction>,
    pub watched: HashSet<u8>,
    /// What became of transactions that are neither in the chain nor in the mempool.
    pub fates: HashMap<Txid, Status>,
    /// Calls to the node fail: what the tracker asks for is lost.
    pub deaf: bool,
    /// Scans take their time: they wait for [`World::scan`].
    pub slow_scans: bool,
    /// The tracker hears of nothing by itself: news wait here for [`World::hear`], blocks for
    /// [`World::follow`].
    pub late: Option<VecDeque<Input>>,
    /// The process dies after this many more commits, before it does what the tracker asks for.
    pub dies_after: Option<u8>,
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

/// The pretended node lets be replaced what signals, so that inheritance counts.
fn tracker(key: [u8; 16]) -> Tracker {
    let mut tracker = Tracker::new(key);
    let policy = Input::Policy(Replacement::Signalled);
    let told = tracker.apply(&MemoryView::default(), policy);
    assert_eq!(told, Ok(Transition::default()));
    tracker
}

impl World {
    /// A chain of one block, whose coinbase pays script 200 in ten outputs; nothing is watched.
    pub fn new() -> Self {
        let mut world = Self::before_the_start();
        world.start(1);
        world
    }

    /// The same chain; the tracker knows no block yet.
    pub fn before_the_start() -> Self {
        let mut world = Self {
            tracker: tracker([7; 16]),
            key: [7; 16],
            first_known: 0,
            view: MemoryView::default(),
            events: Vec::new(),
            past: Vec::new(),
            chain: Vec::new(),
            mempool: Vec::new(),
            watched: HashSet::new(),
            fates: HashMap::new(),
            deaf: false,
            slow_scans: false,
            late: None,
            dies_after: None,
            salt: 0,
            now: 1_000_000,
        };
        let outputs = [(200, 1_000_000); 10];
        let genesis = block(BlockHash::all_zeros(), 0, vec![world.coinbase(&outputs)]);
        world.chain.push(genesis);
        world
    }

    /// The tracker starts with the last `window` blocks.
    pub fn start(&mut self, window: usize) {
        self.first_known = self.chain.len().saturating_sub(window);
        let blocks = self.chain[self.first_known..]
            .iter()
            .map(|block| (block.block_hash(), block.header.time))
            .collect();
        let _ = self.send(Input::Start {
            first_height: self.first_known as u32,
            blocks,
            now: 0,
        });
    }

    pub fn coinbase(&mut self, outputs: &[(u8, u64)]) -> Transaction {
        self.salt += 1;
        let mut coinbase = tx(&[OutPoint::null()], outputs);
        coinbase.input[0].script_sig = ScriptBuf::from_bytes(self.salt.to_le_bytes().to_vec());
        coinbase
    }

    pub fn tip(&self) -> BlockId {
        let block = self.chain.last().expect("the chain has a genesis");
        BlockId {
            height: self.chain.len() as u32 - 1,
            hash: block.block_hash(),
        }
    }

    /// Applies one input, now or [late](Self::late).
    pub fn send(&mut self, input: Input) -> Transition {
        match (&mut self.late, &input) {
            (Some(late), Input::TxSeen { .. } | Input::TxGone { .. }) => late.push_back(input),
            (
                Some(_),
                Input::Connect { .. }
                | Input::Disconnect { .. }
                | Input::Snapshot { .. }
                | Input::Settle { .. },
            ) => {}
            _ => return self.apply(input),
        }
        Transition::default()
    }

    /// Applies one input, answers what the tracker asks for as a follower would, and says what the
    /// input itself did.
    pub fn apply(&mut self, input: Input) -> Transition {
        self.now += 1000;
        let transition = self.try_send(input).expect("the input is legal");
        if self.dies() {
            self.restart();
            return transition;
        }
        for ask in transition.asks.clone() {
            match ask {
                Ask::Check(_) | Ask::Fetch(_) if self.deaf => {}
                Ask::Check(tx) => {
                    if self.mempool.contains(&tx) {
                        let _ = self.apply(Input::TxSeen {
                            tx,
                            seen: Seen::Accepted,
                            now: self.now,
                        });
                    }
                }
                Ask::Fetch(txids) => {
                    let wanted: Vec<Transaction> = self
                        .mempool
                        .iter()
                        .filter(|tx| txids.contains(&tx.compute_txid()))
                        .cloned()
                        .collect();
                    for tx in wanted {
                        let _ = self.apply(Input::TxSeen {
                            tx,
                            seen: Seen::Fetched,
                            now: self.now,
                        });
                    }
                }
                Ask::Baseline if self.slow_scans => {}
                Ask::Baseline => self.scan(),
                // Scans go on when a test says so.
                Ask::Scans => {}
            }
        }
        transition
    }

    fn dies(&mut self) -> bool {
        let dies = self.dies_after == Some(0);
        self.dies_after = self.dies_after.and_then(|commits| commits.checked_sub(1));
        dies
    }

    /// Applies one input to the tracker and the view; on a refusal the view stays as it was.
    pub fn try_send(&mut self, input: Input) -> Result<Transition, ApplyError> {
        let overlay = Overlay::new(&self.view);
        let transition = self.tracker.apply(&overlay, input)?;
        self.view.commit(&transition.changes);
        self.events.extend(transition.events.clone());
        self.past
            .push((transition.changes.clone(), transition.events.clone()));
        Ok(transition)
    }

    pub fn watch(&mut self, number: u8, depths: &[u8]) {
        let request = WatchRequest {
            spk: spk(number),
            label: None,
            depths: depths.to_vec(),
            past: Past::Find,
        };
        let _ = self.send(Input::Watch {
            scripts: vec![request],
            now: self.now,
        });
        self.watched.insert(number);
    }

    /// `scantxoutset` for every script that waits for it.
    pub fn scan(&mut self) {
        let pending = self
            .view
            .watches
            .iter()
            .filter(|(_, row)| row.coverage.pending);
        let scripts: Vec<(ScriptHash, ScriptBuf)> = pending
            .map(|(script, row)| (*script, row.spk.clone()))
            .collect();
        let unspent = self.unspent();
        let of_scripts = unspent
            .iter()
            .filter(|(_, (out, ..))| scripts.iter().any(|(_, spk)| *spk == out.script_pubkey));
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
        let _ = self.send(Input::Baseline {
            block: self.tip(),
            scripts,
            outputs,
            now: self.now,
        });
    }

    /// The node accepts a transaction: what it conflicts with leaves, with descendants.
    pub fn accept(&mut self, tx: &Transaction) -> Transition {
        self.take_in(tx);
        self.send(Input::TxSeen {
            tx: tx.clone(),
            seen: Seen::Accepted,
            now: self.now,
        })
    }

    /// As [`Self::accept`], without any word of it; what left.
    pub fn take_in(&mut self, tx: &Transaction) -> Vec<Txid> {
        let by = tx.compute_txid();
        let gone = self.displace_conflicts(tx, Status::Replaced { by });
        self.mempool.retain(|known| known.compute_txid() != by);
        self.mempool.push(tx.clone());
        gone
    }

    /// The tracker hears that these came and those left, one way or another.
    pub fn tell(&mut self, came: &[Transaction], left: Vec<Txid>, heard: Heard) {
        match heard {
            Heard::Sequence => {
                let _ = self.send(Input::TxGone { txids: left });
                for tx in came {
                    let _ = self.send(Input::TxSeen {
                        tx: tx.clone(),
                        seen: Seen::Accepted,
                        now: self.now,
                    });
                }
                let _ = self.send(Input::Settle {
                    spared: Vec::new(),
                    now: self.now,
                });
            }
            Heard::Rawtx => {
                for tx in came {
                    let _ = self.send(Input::TxSeen {
                        tx: tx.clone(),
                        seen: Seen::Rawtx,
                        now: self.now,
                    });
                }
                self.snapshot();
            }
            Heard::Poll => self.snapshot(),
        }
    }

    /// Removes from the node's mempool what conflicts with `tx` and all descendants; returns their
    /// ids.
    pub fn displace_conflicts(&mut self, tx: &Transaction, fate: Status) -> Vec<Txid> {
        let spent: HashSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
        let me = tx.compute_txid();
        let clashes = |other: &Transaction| {
            other.compute_txid() != me
                && other
                    .input
                    .iter()
                    .any(|input| spent.contains(&input.previous_output))
        };
        let roots: Vec<Txid> = self
            .mempool
            .iter()
            .filter(|other| clashes(other))
            .map(|other| other.compute_txid())
            .collect();
        self.drop_with_descendants(&roots, fate)
    }

    pub fn drop_with_descendants(&mut self, roots: &[Txid], fate: Status) -> Vec<Txid> {
        let mut gone: Vec<Txid> = roots.to_vec();
        loop {
            let child = self.mempool.iter().find(|tx| {
                !gone.contains(&tx.compute_txid())
                    && tx
                        .input
                        .iter()
                        .any(|input| gone.contains(&input.previous_output.txid))
            });
            match child {
                Some(tx) => gone.push(tx.compute_txid()),
                None => break,
            }
        }
        self.mempool.retain(|tx| !gone.contains(&tx.compute_txid()));
        self.fates.extend(gone.iter().map(|txid| (*txid, fate)));
        gone
    }

    /// Mines a block of these transactions on the tip and tells the tracker, as `rawblock` does.
    pub fn mine(&mut self, coinbase_to: u8, txs: &[Transaction]) -> Transition {
        let coinbase = self.coinbase(&[(coinbase_to, 5_000)]);
        self.mine_with(coinbase, txs)
    }

    pub fn mine_with(&mut self, coinbase: Transaction, txs: &[Transaction]) -> Transition {
        let mut txdata = vec![coinbase];
        txdata.extend_from_slice(txs);
        self.salt += 1;
        let block = block(self.tip().hash, self.salt as u32, txdata);
        self.connect(block)
    }

    pub fn connect(&mut self, block: Block) -> Transition {
        self.adopt(block.clone());
        self.send(Input::Connect {
            block,
            height: self.tip().height,
            now: self.now,
        })
    }

    /// The node connects a block, without any word of it; what left its mempool because of
    /// conflicts.
    pub fn adopt(&mut self, block: Block) -> Vec<Txid> {
        let mut gone = Vec::new();
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

    /// Disconnects `depth` blocks, and the node says over `sequence` what it accepted again.
    pub fn disconnect(&mut self, depth: usize) -> Transition {
        self.disconnect_heard(depth, Heard::Sequence).0
    }

    /// Disconnects `depth` blocks; of transactions between strangers the tracker knows nothing
    /// until it hears of them.
    pub fn disconnect_heard(&mut self, depth: usize, heard: Heard) -> (Transition, Vec<Block>) {
        let (stale, gone) = self.abandon(depth);
        if heard == Heard::Rawtx {
            for tx in stale.iter().rev().flat_map(|block| block.txdata.clone()) {
                let _ = self.send(Input::TxSeen {
                    tx,
                    seen: Seen::Rawtx,
                    now: self.now,
                });
            }
        }
        let transition = self.send(Input::Disconnect {
            to: self.tip(),
            now: self.now,
        });
        let came = self.mempool.clone();
        self.tell(&came, gone, heard);
        (transition, stale)
    }

    /// The node disconnects, without any word of it: transactions return to the mempool but for
    /// coinbases and what spends those.
    pub fn abandon(&mut self, depth: usize) -> (Vec<Block>, Vec<Txid>) {
        let stale = self.chain.split_off(self.chain.len() - depth);
        let mut lost = Vec::new();
        let mut back = Vec::new();
        for tx in stale.iter().flat_map(|block| &block.txdata) {
            match tx.is_coinbase() {
                true => lost.push(tx.compute_txid()),
                false => back.push(tx.clone()),
            }
        }
        back.append(&mut self.mempool);
        self.mempool = back;
        let gone = self.drop_with_descendants(&lost, Status::Evicted);
        (stale, gone)
    }

    pub fn snapshot(&mut self) {
        if self.late.is_none() {
            self.read();
        }
    }

    /// The whole mempool is read now.
    pub fn read(&mut self) {
        let txids = self.mempool.iter().map(|tx| tx.compute_txid()).collect();
        let _ = self.apply(Input::Snapshot {
            tip: self.tip().hash,
            txids,
            now: self.now,
        });
        let _ = self.apply(Input::Settle {
            spared: Vec::new(),
            now: self.now,
        });
    }

    /// The first of the news that wait arrive, or are lost.
    pub fn hear(&mut self, count: usize, lost: bool) {
        for _ in 0..count {
            let Some(input) = self.late.as_mut().and_then(VecDeque::pop_front) else {
                return;
            };
            if !lost {
                let _ = self.apply(input);
            }
        }
    }

    /// The tracker's chain becomes the node's.
    pub fn follow(&mut self) {
        let ours = |height: u32| self.view.blocks.get(&height).map(|row| row.hash);
        let known = (0..).zip(&self.chain).skip(self.first_known);
        let common = self.first_known
            + known
                .take_while(|(height, block)| ours(*height) == Some(block.block_hash()))
                .count();
        let to = BlockId {
            height: common as u32 - 1,
            hash: self.chain[common - 1].block_hash(),
        };
        let _ = self.apply(Input::Disconnect { to, now: self.now });
        for (height, block) in (0..).zip(self.chain.clone()).skip(common) {
            let _ = self.apply(Input::Connect {
                block,
                height,
                now: self.now,
            });
        }
    }

    /// A new process: everything in memory is read from the rows again.
    pub fn restart(&mut self) {
        self.key = [9; 16];
        self.tracker = self.loaded();
        self.snapshot();
        if !self.slow_scans && self.view.watches.values().any(|row| row.coverage.pending) {
            self.scan();
        }
    }

    /// A tracker as the rows say.
    pub fn loaded(&self) -> Tracker {
        let mut tracker = tracker(self.key);
        tracker.load_tip(self.view.tip);
        self.view
            .watches
            .values()
            .for_each(|row| tracker.load_watch(row));
        let open = |spent: Option<Spend>| spent.is_none_or(|spend| spend.height.is_none());
        self.view
            .outputs
            .iter()
            .filter(|(_, row)| open(row.spent))
            .for_each(|(outpoint, _)| tracker.load_outpoint(outpoint));
        self.view
            .txs
            .iter()
            .filter(|(_, row)| row.status == Status::Mempool)
            .for_each(|(txid, row)| tracker.load_unconfirmed(*txid, row));
        self.view
            .scan_scripts
            .keys()
            .for_each(|scan| tracker.load_scan(*scan));
        tracker
    }

    /// The same world at the same instant, whose daemon has just been restarted.
    pub fn restarted_twin(&self) -> World {
        let mut twin = World {
            tracker: self.loaded(),
            view: self.view.clone(),
            events: self.events.clone(),
            past: self.past.clone(),
            chain: self.chain.clone(),
            mempool: self.mempool.clone(),
            watched: self.watched.clone(),
            fates: self.fates.clone(),
            late: self.late.clone(),
            ..*self
        };
        twin.restart();
        twin.now = self.now;
        twin
    }

    /// The chain's unspent outputs by rescanning it: output, height, coinbase.
    pub fn unspent(&self) -> BTreeMap<OutPoint, (TxOut, u32, bool)> {
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
}
