//! A tracker with its rows, the pretended node that it hears of, and the follower's duties.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::ops::{Deref, DerefMut};

use bitcoin::{Block, OutPoint, Transaction, Txid};
use satwatch::tracker::{
    ApplyError, Baseline, BlockId, ChangeSet, Event, FollowUp, Input, MemoryView, Overlay,
    Replacement, ScriptHash, Seen, Tracker, Transition, WatchRequest,
};

use crate::pretended::descriptors::check_places;
use crate::pretended::descriptors::{self, Wallet};
use crate::pretended::laws::Kept;
use crate::pretended::{Node, load};
pub use crate::pretended::{block, script, spk, tx};

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

/// How far a baseline in portions is.
#[derive(Debug, Clone)]
pub struct Merging {
    pub number: u8,
    /// As of this block.
    pub block: BlockId,
    pub sent: HashSet<OutPoint>,
    /// All others are in the last portion, which is sent again and again.
    pub is_last: bool,
}

pub struct World {
    pub node: Node,
    pub tracker: Tracker,
    key: [u8; 16],
    pub view: MemoryView,
    pub events: Vec<Event>,
    /// Every transition, with the events that it told.
    pub past: Vec<(ChangeSet, Vec<Event>)>,
    /// Height of the first block that the tracker started with: no reorg goes below it.
    pub first_known: usize,
    pub watched: HashSet<u8>,
    /// Those of them that are new in an add which is not finished.
    pub unfinished: HashSet<u8>,
    /// Descriptors that are watched.
    pub wallets: BTreeSet<Wallet>,
    /// Scripts that are watched beyond their windows at least.
    pub lookahead: u32,
    /// Derived scripts come when a test says so.
    pub slow_derive: bool,
    /// So does the past of scripts that join a descriptor.
    pub slow_joins: bool,
    /// The script whose outputs are merged in portions.
    pub merging: Option<Merging>,
    /// Calls to the node fail: what the tracker asks for is lost.
    pub deaf: bool,
    /// Scans take their time: they wait for [`World::scan`].
    pub slow_scans: bool,
    /// Portions of an eviction come when a test says so.
    pub slow_evictions: bool,
    /// The tracker hears of nothing by itself: news wait here for [`World::hear`], blocks for
    /// [`World::follow`].
    pub late: Option<VecDeque<Input>>,
    /// The process dies after this many more commits, before it does what the tracker asks for.
    pub dies_after: Option<u8>,
    pub now: u64,
}

/// The pretended node lets be replaced what signals, so that inheritance counts.
fn with_policy(mut tracker: Tracker) -> Tracker {
    let policy = Input::Policy(Replacement::Signalled);
    let told = tracker.apply(&MemoryView::default(), policy);
    assert_eq!(told, Ok(Transition::default()));
    tracker
}

impl Deref for World {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Node {
        &mut self.node
    }
}

impl World {
    /// A node with one block, which the tracker starts with; nothing is watched.
    pub fn new() -> Self {
        let mut world = Self::before_the_start();
        world.start(1);
        world
    }

    /// The same chain; the tracker knows no block yet.
    pub fn before_the_start() -> Self {
        Self {
            node: Node::new(),
            tracker: with_policy(load(&MemoryView::default(), [7; 16])),
            key: [7; 16],
            first_known: 0,
            view: MemoryView::default(),
            events: Vec::new(),
            past: Vec::new(),
            watched: HashSet::new(),
            unfinished: HashSet::new(),
            wallets: BTreeSet::new(),
            lookahead: descriptors::LOOKAHEAD,
            slow_derive: false,
            slow_joins: false,
            merging: None,
            deaf: false,
            slow_scans: false,
            slow_evictions: false,
            late: None,
            dies_after: None,
            now: 1_000_000,
        }
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

    /// Applies one input, now or [late](Self::late).
    pub fn send(&mut self, input: Input) -> Transition {
        match (&mut self.late, &input) {
            (Some(late), Input::TxSeen { .. } | Input::TxRemoved { .. }) => late.push_back(input),
            (
                Some(_),
                Input::Connect { .. }
                | Input::Disconnect { .. }
                | Input::MempoolSnapshot { .. }
                | Input::EvictMissing { .. },
            ) => {}
            _ => return self.apply(input),
        }
        Transition::default()
    }

    /// Applies one input, answers what the tracker asks for as a follower would, and says what the
    /// input itself did.
    pub fn apply(&mut self, input: Input) -> Transition {
        self.now += 1000;
        if matches!(input, Input::Disconnect { to, .. } if Some(to) != self.tracker.tip()) {
            self.merging = None;
        }
        let mut transition = self.try_send(input).expect("the input is legal");
        while !self.slow_evictions && self.tracker.is_evicting() {
            let more = self.try_send(Input::EvictMore).expect("it may always come");
            transition.changes.add(more.changes);
            transition.events.extend(more.events);
        }
        while !self.slow_joins && self.tracker.has_to_join() {
            let more = self.join();
            transition.changes.add(more.changes);
            transition.events.extend(more.events);
            transition.follow_ups.extend(more.follow_ups);
        }
        if self.dies() {
            self.restart();
            return transition;
        }
        for ask in transition.follow_ups.clone() {
            match ask {
                FollowUp::Derive if self.slow_derive => {}
                FollowUp::Derive => self.derive(),
                FollowUp::Check(_) | FollowUp::Fetch(_) if self.deaf => {}
                FollowUp::Check(tx) => {
                    let is_it = |known: &Transaction| known.compute_txid() == tx.txid();
                    if self.mempool.iter().any(is_it) {
                        let _ = self.apply(Input::TxSeen {
                            tx,
                            seen: Seen::Accepted,
                            now: self.now,
                        });
                    }
                }
                FollowUp::Fetch(txids) => {
                    let wanted: Vec<Transaction> = self
                        .mempool
                        .iter()
                        .filter(|tx| txids.contains(&tx.compute_txid()))
                        .cloned()
                        .collect();
                    for tx in wanted {
                        let _ = self.apply(Input::TxSeen {
                            tx: (&tx).into(),
                            seen: Seen::Fetched,
                            now: self.now,
                        });
                    }
                }
                FollowUp::Baseline if self.slow_scans => {}
                FollowUp::Baseline => self.scan(),
                // Scans go on when a test says so.
                FollowUp::Scans => {}
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
        self.check_asks(&transition);
        self.view.commit(&transition.changes);
        self.events.extend(transition.events.clone());
        self.past
            .push((transition.changes.clone(), transition.events.clone()));
        Ok(transition)
    }

    pub fn watch(&mut self, number: u8, depths: &[u8]) {
        self.forget_all();
        self.unfinished.remove(&number);
        let request = WatchRequest {
            spk: spk(number),
            label: None,
            depths: depths.to_vec(),
            baseline: Baseline::IfMissing,
        };
        let _ = self.send(Input::Watch {
            scripts: vec![request],
            now: self.now,
        });
        self.watched.insert(number);
    }

    /// `scantxoutset` for every script that waits for it. It speaks for the node's tip: while ours
    /// is another, it is asked for later.
    pub fn scan(&mut self) {
        if self.tracker.tip() != Some(self.tip()) {
            return;
        }
        let pending = self
            .view
            .watches
            .iter()
            .filter(|(_, row)| row.coverage.pending);
        let scripts: Vec<ScriptHash> = pending.map(|(script, _)| *script).collect();
        let outputs = self.found(&scripts);
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
            tx: tx.into(),
            seen: Seen::Accepted,
            now: self.now,
        })
    }

    /// The tracker hears that these came and those left, one way or another.
    pub fn tell(&mut self, came: &[Transaction], left: Vec<Txid>, heard: Heard) {
        match heard {
            Heard::Sequence => {
                let _ = self.send(Input::TxRemoved { txids: left });
                for tx in came {
                    let _ = self.send(Input::TxSeen {
                        tx: tx.into(),
                        seen: Seen::Accepted,
                        now: self.now,
                    });
                }
                let _ = self.send(Input::EvictMissing {
                    spared: Vec::new(),
                    now: self.now,
                });
            }
            Heard::Rawtx => {
                for tx in came {
                    let _ = self.send(Input::TxSeen {
                        tx: tx.into(),
                        seen: Seen::Rawtx,
                        now: self.now,
                    });
                }
                self.snapshot();
            }
            Heard::Poll => self.snapshot(),
        }
    }

    /// Mines a block of these transactions on the tip and tells the tracker, as `rawblock` does.
    pub fn mine(&mut self, coinbase_to: u8, txs: &[Transaction]) -> Transition {
        let coinbase = self.coinbase(&[(coinbase_to, 5_000)]);
        self.mine_with(coinbase, txs)
    }

    pub fn mine_with(&mut self, coinbase: Transaction, txs: &[Transaction]) -> Transition {
        let block = self.next_block(coinbase, txs);
        self.connect(block)
    }

    pub fn connect(&mut self, block: Block) -> Transition {
        let raw = (&block).into();
        self.adopt(block);
        self.send(Input::Connect {
            block: raw,
            height: self.tip().height,
            now: self.now,
        })
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
                    tx: (&tx).into(),
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

    pub fn snapshot(&mut self) {
        if self.late.is_none() {
            self.read();
        }
    }

    /// The whole mempool is read now.
    pub fn read(&mut self) {
        let txids = self.mempool.iter().map(|tx| tx.compute_txid()).collect();
        let _ = self.apply(Input::MempoolSnapshot {
            tip: self.tip().hash,
            txids,
            now: self.now,
        });
        let _ = self.apply(Input::EvictMissing {
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
                block: (&block).into(),
                height,
                now: self.now,
            });
        }
    }

    /// A new process: everything in memory is read from the rows again.
    pub fn restart(&mut self) {
        self.key = [9; 16];
        self.tracker = self.loaded();
        self.merging = None;
        self.undo_unfinished_add();
        self.snapshot();
        if !self.slow_derive {
            self.derive();
        }
        while !self.slow_joins && self.tracker.has_to_join() {
            let _ = self.join();
        }
        if !self.slow_scans && self.view.watches.values().any(|row| row.coverage.pending) {
            self.scan();
        }
    }

    /// A tracker as the rows say.
    pub fn loaded(&self) -> Tracker {
        with_policy(load(&self.view, self.key)).looking_ahead(self.lookahead)
    }

    /// The same world at the same instant, whose daemon has just been restarted.
    pub fn restarted_twin(&self) -> World {
        let mut twin = World {
            node: self.node.clone(),
            tracker: self.loaded(),
            view: self.view.clone(),
            events: self.events.clone(),
            past: self.past.clone(),
            watched: self.watched.clone(),
            unfinished: self.unfinished.clone(),
            wallets: self.wallets.clone(),
            merging: self.merging.clone(),
            late: self.late.clone(),
            ..*self
        };
        twin.restart();
        twin.now = self.now;
        twin
    }

    /// The laws of what is kept.
    pub fn kept(&self) -> Kept<'_> {
        Kept {
            node: &self.node,
            view: &self.view,
            watched: &self.watched,
            past: &self.past,
        }
    }

    /// Compares rows and events with the truth, and memory with the rows; every broken law is a
    /// panic with its name.
    pub fn check(&self) {
        // What is being forgotten counts for nobody.
        let view = &self.visible();
        let kept = Kept {
            view,
            ..self.kept()
        };
        kept.check();
        kept.check_descriptors(&self.wallets, !self.tracker.has_to_join());
        check_places(&self.view);
        self.check_memory();
        self.check_unfinished_add();
    }

    pub fn check_depths(&self, events: &[Event]) {
        let view = &self.visible();
        Kept {
            view,
            ..self.kept()
        }
        .check_depths(events);
    }
}
