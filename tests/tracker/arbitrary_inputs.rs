//! Whatever is well-formed may come: nothing of it makes the tracker panic, and what is refused
//! leaves rows and memory as they were.
//!
//! The node would refuse nearly all of this. Amounts beyond all money are a fatal error (see
//! `ApplyError::is_fatal`), never a panic.

use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, Block, BlockHash, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid};
use proptest::prelude::*;
use satwatch::tracker::{
    Baseline, BlockId, FoundOutput, Input, MemoryView, Portion, ScanEnd, ScanId, ScannedBlock,
    ScannedTx, ScriptHash, Seen, Tracker, WatchRequest,
};

use crate::arbitrary_descriptors;
use crate::pretended::laws::check_against;
use crate::world::{block, spk, tx};

/// One output: which script, and how much.
type Out = (Script, u64);

#[derive(Debug, Clone)]
enum Script {
    Known(u8),
    Bytes(Vec<u8>),
}

/// Inputs name earlier transactions by index, or nobody knows what; 0 is a coinbase's.
#[derive(Debug, Clone)]
struct Junk {
    inputs: Vec<(u8, u32)>,
    outputs: Vec<Out>,
}

#[derive(Debug, Clone)]
enum Act {
    Seen(u8, Seen),
    Gone(Vec<u8>),
    /// Sparing these.
    Settle(Vec<u8>),
    /// Transactions by index, on our tip or on nothing; a broken merkle root.
    Connect {
        txs: Vec<u8>,
        on_tip: bool,
        broken: bool,
    },
    Disconnect(u8),
    Snapshot {
        txids: Vec<u8>,
        tip: bool,
    },
    Watch {
        script: u8,
        depths: Vec<u8>,
        again: bool,
    },
    Baseline {
        scripts: Vec<u8>,
        outputs: Vec<Found>,
        on_tip: bool,
    },
    Unwatch(Vec<u8>),
    WatchPart {
        scripts: Vec<u8>,
        is_last: bool,
    },
    Forget,
    EvictMore,
    Part {
        script: u8,
        portion: u8,
        outputs: Vec<Found>,
    },
    ScanScripts {
        scan: u8,
        scripts: Vec<u8>,
    },
    Open {
        scan: u8,
        scripts: Vec<u8>,
        from: u32,
        to: Option<u32>,
    },
    Skip {
        scans: Vec<u8>,
        horizon: u32,
    },
    /// Blocks: a height, whether it is ours, and transactions by index.
    Past {
        scans: Vec<u8>,
        scripts: Vec<Vec<u8>>,
        first: Option<u32>,
        blocks: Vec<(u32, bool, Vec<u8>)>,
        upto: (u32, bool),
        spent: Vec<Found>,
    },
    Close {
        scan: u8,
        upto: Option<(u32, bool)>,
    },
    Descriptor(arbitrary_descriptors::Act),
    Reload,
}

/// Transaction by index, output, script, value, height, coinbase.
type Found = (u8, u32, u8, u64, u32, bool);

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0u64..10_000, 2 => Just(2_100_000_000_000_000), 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn junk() -> impl Strategy<Value = Junk> {
    let script = prop_oneof![
        4 => (0u8..5).prop_map(Script::Known),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Script::Bytes),
    ];
    let outputs = prop_oneof![
        12 => prop::collection::vec((script, value()), 0..5),
        1 => (1u8..4).prop_map(|number| vec![(Script::Known(number), 3); 2_000]),
    ];
    (prop::collection::vec((0u8..12, 0u32..4), 0..4), outputs)
        .prop_map(|(inputs, outputs)| Junk { inputs, outputs })
}

fn act() -> impl Strategy<Value = Act> {
    let seen = prop_oneof![Just(Seen::Accepted), Just(Seen::Fetched), Just(Seen::Rawtx)];
    let some = || prop::collection::vec(any::<u8>(), 0..6);
    let found = || {
        (
            any::<u8>(),
            0u32..4,
            0u8..5,
            value(),
            0u32..12,
            any::<bool>(),
        )
    };
    prop_oneof![
        6 => (any::<u8>(), seen).prop_map(|(tx, seen)| Act::Seen(tx, seen)),
        1 => some().prop_map(Act::Gone),
        1 => some().prop_map(Act::Settle),
        5 => (some(), prop::bool::weighted(0.9), prop::bool::weighted(0.1)).prop_map(|(txs, on_tip, broken)| Act::Connect { txs, on_tip, broken }),
        2 => any::<u8>().prop_map(Act::Disconnect),
        1 => (some(), any::<bool>()).prop_map(|(txids, tip)| Act::Snapshot { txids, tip }),
        2 => (1u8..5, some(), any::<bool>()).prop_map(|(script, depths, again)| Act::Watch { script, depths, again }),
        2 => (some(), prop::collection::vec(found(), 0..4), prop::bool::weighted(0.9))
            .prop_map(|(scripts, outputs, on_tip)| Act::Baseline { scripts, outputs, on_tip }),
        1 => Just(Act::Reload),
        1 => Just(Act::Forget),
        1 => Just(Act::EvictMore),
        1 => (some(), any::<bool>()).prop_map(|(scripts, is_last)| Act::WatchPart { scripts, is_last }),
        2 => (1u8..5, 0u8..3, prop::collection::vec(found(), 0..4))
            .prop_map(|(script, portion, outputs)| Act::Part { script, portion, outputs }),
        1 => (0u8..3, some()).prop_map(|(scan, scripts)| Act::ScanScripts { scan, scripts }),
        8 => past(),
        8 => arbitrary_descriptors::act().prop_map(Act::Descriptor),
    ]
}

fn height() -> impl Strategy<Value = u32> {
    prop_oneof![12 => 0u32..10, 1 => Just(u32::MAX), 1 => Just(u32::MAX - 1)]
}

/// What has to do with history scans.
fn past() -> impl Strategy<Value = Act> {
    let some = || prop::collection::vec(any::<u8>(), 0..4);
    let block = || (height(), prop::bool::weighted(0.9));
    let blocks = prop::collection::vec((height(), prop::bool::weighted(0.9), some()), 0..4);
    let found = || {
        (
            any::<u8>(),
            0u32..4,
            0u8..5,
            value(),
            0u32..12,
            any::<bool>(),
        )
    };
    let scripts = prop::collection::vec(some(), 0..3);
    prop_oneof![
        1 => some().prop_map(Act::Unwatch),
        3 => (0u8..4, some(), height(), prop::option::of(height())).prop_map(|(scan, scripts, from, to)| Act::Open { scan, scripts, from, to }),
        1 => (some(), height()).prop_map(|(scans, horizon)| Act::Skip { scans, horizon }),
        8 => (some(), scripts, prop::option::weighted(0.1, height()), blocks, block(), prop::collection::vec(found(), 0..4))
            .prop_map(|(scans, scripts, first, blocks, upto, spent)| Act::Past { scans, scripts, first, blocks, upto, spent }),
        2 => (0u8..4, prop::option::weighted(0.8, block())).prop_map(|(scan, upto)| Act::Close { scan, upto }),
    ]
}

fn scan(number: u8) -> ScanId {
    ScanId(u64::from(number % 4))
}

fn script(number: u8) -> ScriptHash {
    ScriptHash::of(&spk(number % 5))
}

/// Each may spend any output of those before it, several times, and each other's inputs.
fn build(junk: &[Junk]) -> Vec<Transaction> {
    let mut txs: Vec<Transaction> = Vec::new();
    for (salt, one) in (0..).zip(junk) {
        let mut built = tx(&[], &[]);
        built.version = bitcoin::transaction::Version(salt % 7);
        for (from, vout) in &one.inputs {
            let previous_output = match (from, txs.len()) {
                (0, _) => OutPoint::null(),
                (1, _) | (_, 0) => OutPoint {
                    txid: Txid::from_byte_array([*from; 32]),
                    vout: *vout,
                },
                (from, known) => OutPoint {
                    txid: txs[usize::from(*from) % known].compute_txid(),
                    vout: *vout,
                },
            };
            built.input.push(TxIn {
                previous_output,
                ..TxIn::default()
            });
        }
        for (script, value) in &one.outputs {
            let script_pubkey = match script {
                Script::Known(number) => spk(*number),
                Script::Bytes(bytes) => ScriptBuf::from_bytes(bytes.clone()),
            };
            built.output.push(TxOut {
                value: Amount::from_sat(*value),
                script_pubkey,
            });
        }
        txs.push(built);
    }
    txs
}

struct Heap {
    txs: Vec<Transaction>,
    tracker: Tracker,
    view: MemoryView,
    nonce: u32,
}

impl Heap {
    fn tx(&self, index: u8) -> Transaction {
        self.txs[usize::from(index) % self.txs.len()].clone()
    }

    fn txid(&self, index: u8) -> Txid {
        self.tx(index).compute_txid()
    }

    fn input(&mut self, act: &Act) -> Input {
        let tip = self.view.tip().unwrap_or(BlockId {
            height: 0,
            hash: BlockHash::all_zeros(),
        });
        let now = 5_000;
        match act {
            Act::Seen(index, seen) => Input::TxSeen {
                tx: (&self.tx(*index)).into(),
                seen: *seen,
                now,
            },
            Act::Gone(indexes) => Input::TxRemoved {
                txids: indexes.iter().map(|index| self.txid(*index)).collect(),
            },
            Act::Settle(spared) => Input::EvictMissing {
                spared: spared.iter().map(|index| self.txid(*index)).collect(),
                now,
            },
            Act::Reload => Input::EvictMissing {
                spared: Vec::new(),
                now,
            },
            Act::Connect {
                txs,
                on_tip,
                broken,
            } => {
                self.nonce += 1;
                let previous = if *on_tip {
                    tip.hash
                } else {
                    BlockHash::from_byte_array([9; 32])
                };
                let txdata: Vec<Transaction> = txs.iter().map(|index| self.tx(*index)).collect();
                let mut block = match txdata.is_empty() {
                    true => Block {
                        txdata,
                        ..block(previous, self.nonce, vec![self.tx(0)])
                    },
                    false => block(previous, self.nonce, txdata),
                };
                if *broken {
                    block.txdata.push(self.tx(1));
                }
                Input::Connect {
                    block: (&block).into(),
                    height: tip.height + 1,
                    now,
                }
            }
            Act::Disconnect(depth) => {
                let height = tip.height.saturating_sub(u32::from(depth % 8));
                let hash = self
                    .view
                    .blocks
                    .get(&height)
                    .map_or(BlockHash::all_zeros(), |row| row.hash);
                Input::Disconnect {
                    to: BlockId { height, hash },
                    now,
                }
            }
            Act::Snapshot { txids, tip: at_tip } => {
                let tip = if *at_tip {
                    tip.hash
                } else {
                    BlockHash::all_zeros()
                };
                Input::MempoolSnapshot {
                    tip,
                    txids: txids.iter().map(|index| self.txid(*index)).collect(),
                    now,
                }
            }
            Act::Watch {
                script,
                depths,
                again,
            } => {
                let baseline = if *again {
                    Baseline::Refresh
                } else {
                    Baseline::IfMissing
                };
                Input::Watch {
                    scripts: vec![WatchRequest {
                        spk: spk(*script),
                        label: depths
                            .first()
                            .map(|depth| arbitrary_descriptors::label(*depth)),
                        depths: depths.clone(),
                        baseline,
                    }],
                    now,
                }
            }
            Act::WatchPart { scripts, is_last } => {
                let request = |number: &u8| WatchRequest {
                    spk: spk(*number),
                    label: Some(arbitrary_descriptors::label(*number)),
                    depths: Vec::new(),
                    baseline: Baseline::IfMissing,
                };
                Input::WatchPart {
                    scripts: scripts.iter().map(request).collect(),
                    is_last: *is_last,
                    now,
                }
            }
            Act::Descriptor(act) => act.input(&self.view, now),
            Act::Forget => Input::Forget { now },
            Act::EvictMore => Input::EvictMore,
            Act::Part {
                script: number,
                portion,
                outputs,
            } => Input::BaselinePart {
                block: tip,
                script: script(*number),
                portion: [Portion::First, Portion::Next, Portion::Last][usize::from(*portion)],
                outputs: outputs.iter().map(|found| self.found(found)).collect(),
                now,
            },
            Act::ScanScripts {
                scan: number,
                scripts,
            } => Input::ScanScripts {
                scan: scan(*number),
                scripts: scripts.iter().map(|number| script(*number)).collect(),
            },
            Act::Baseline {
                scripts,
                outputs,
                on_tip,
            } => {
                let height = if *on_tip { tip.height } else { tip.height + 1 };
                let scripts = scripts.iter().map(|number| script(*number)).collect();
                let outputs = outputs.iter().map(|found| self.found(found)).collect();
                Input::Baseline {
                    block: BlockId { height, ..tip },
                    scripts,
                    outputs,
                    now,
                }
            }
            Act::Unwatch(scripts) => Input::Unwatch {
                scripts: scripts.iter().map(|number| script(*number)).collect(),
                now,
            },
            Act::Open {
                scan: number,
                scripts,
                from,
                to,
            } => {
                let scripts = scripts.iter().map(|number| script(*number)).collect();
                Input::OpenScan {
                    scan: scan(*number),
                    scripts,
                    from: *from,
                    to: *to,
                    now,
                }
            }
            Act::Skip { scans, horizon } => Input::SkipPruned {
                scans: scans.iter().map(|number| scan(*number)).collect(),
                horizon: *horizon,
                now,
            },
            Act::Past { .. } => self.past(act, now),
            Act::Close { scan: number, upto } => {
                let end = upto.map_or(ScanEnd::Cancelled(None), |(height, ours)| {
                    ScanEnd::Complete(self.block(height, ours))
                });
                Input::CloseScan {
                    scan: scan(*number),
                    end,
                    now,
                }
            }
        }
    }

    fn past(&self, act: &Act, now: u64) -> Input {
        let Act::Past {
            scans,
            scripts,
            first,
            blocks,
            upto,
            spent,
        } = act
        else {
            unreachable!("only these are asked for")
        };
        let scans: Vec<ScanId> = scans.iter().map(|number| scan(*number)).collect();
        let place = scans
            .first()
            .and_then(|scan| self.view.scans.get(scan))
            .map_or(0, |row| row.next);
        let spent: Vec<FoundOutput> = spent.iter().map(|found| self.found(found)).collect();
        let one = |index: &u8| ScannedTx {
            position: u32::from(*index),
            tx: self.tx(*index),
            spent: spent.clone(),
        };
        // Mostly in order, or all would be refused.
        let mut blocks: Vec<_> = blocks
            .iter()
            .map(|(height, ours, txs)| (self.block(*height, *ours), txs))
            .collect();
        blocks.sort_by_key(|(block, _)| block.height);
        let blocks = blocks
            .into_iter()
            .map(|(block, txs)| ScannedBlock {
                block,
                time: 7,
                transactions: txs.iter().map(one).collect(),
            })
            .collect();
        let scripts = scripts
            .iter()
            .map(|scripts| Arc::new(scripts.iter().map(|number| script(*number)).collect()))
            .collect();
        Input::ScanBlocks {
            scans,
            scripts,
            first: first.unwrap_or(place),
            blocks,
            upto: self.block(upto.0, upto.1),
            now,
        }
    }

    fn block(&self, height: u32, ours: bool) -> BlockId {
        let known = self
            .view
            .blocks
            .get(&height)
            .filter(|_| ours)
            .map(|row| row.hash);
        BlockId {
            height,
            hash: known.unwrap_or(BlockHash::from_byte_array([8; 32])),
        }
    }

    fn found(&self, (index, vout, script, value, height, coinbase): &Found) -> FoundOutput {
        FoundOutput {
            outpoint: OutPoint {
                txid: self.txid(*index),
                vout: *vout,
            },
            spk: spk(*script),
            value: Amount::from_sat(*value),
            height: *height,
            coinbase: *coinbase,
        }
    }

    fn loaded(&self) -> Tracker {
        let mut tracker = Tracker::new([4; 16]).in_portions_of(3);
        tracker.load_tip(self.view.tip());
        self.view
            .watches
            .values()
            .for_each(|row| tracker.load_watch(row));
        self.view
            .outputs
            .keys()
            .for_each(|outpoint| tracker.load_outpoint(outpoint));
        let unconfirmed = self
            .view
            .txs
            .iter()
            .filter(|(_, row)| row.status == satwatch::tracker::Status::Mempool);
        unconfirmed.for_each(|(txid, row)| {
            tracker.load_unconfirmed(*txid, row, &self.view.raw_txs[txid]);
        });
        self.view
            .open_scans()
            .into_iter()
            .for_each(|scan| tracker.load_scan(scan));
        let open = self.view.open_scans();
        let scans = self.view.scan_scripts.keys().map(|(scan, _)| *scan);
        let ended = scans.filter(|scan| !open.contains(scan));
        ended.for_each(|scan| tracker.load_ended_scan(scan));
        let adding = self.view.adding.values().flatten();
        adding.for_each(|script| tracker.load_adding(*script));
        let forgetting = self.view.forgetting.keys();
        forgetting.for_each(|script| tracker.load_forgetting(*script));
        let descriptors = self.view.descriptors.iter();
        descriptors.for_each(|(descriptor, row)| tracker.load_descriptor(*descriptor, row));
        let joining = self.view.joining.keys();
        joining.for_each(|place| tracker.load_joining(*place));
        let leaving = self.view.leaving.keys();
        leaving.for_each(|descriptor| tracker.load_leaving(*descriptor));
        tracker
    }
}

proptest! {
    #[test]
    fn nothing_well_formed_panics_and_what_is_refused_changes_nothing(
        junk in prop::collection::vec(junk(), 2..14),
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let mut heap = Heap { txs: build(&junk), tracker: Tracker::new([3; 16]).in_portions_of(3), view: MemoryView::default(), nonce: 0 };
        let blocks = vec![(BlockHash::from_byte_array([1; 32]), 1), (BlockHash::from_byte_array([2; 32]), 2)];
        let start = heap.tracker.apply(&heap.view, Input::Start { first_height: 3, blocks, now: 1 }).unwrap();
        heap.view.commit(&start.changes);
        for number in [1, 2] {
            let input = heap.input(&Act::Watch { script: number, depths: vec![0, 2, 255], again: false });
            let watch = heap.tracker.apply(&heap.view, input).unwrap();
            heap.view.commit(&watch.changes);
        }
        for act in &acts {
            if matches!(act, Act::Reload) {
                heap.tracker = heap.loaded();
            }
            let input = heap.input(act);
            let memory = format!("{:?}", heap.tracker);
            match heap.tracker.apply(&heap.view, input) {
                Ok(transition) => {
                    check_against(&heap.view, &transition.changes);
                    heap.view.commit(&transition.changes)
                }
                // The process ends: nothing of it was committed.
                Err(error) if error.is_fatal() => heap.tracker = heap.loaded(),
                Err(_) => prop_assert_eq!(memory, format!("{:?}", heap.tracker)),
            }
            prop_assert_eq!(heap.tracker.tip(), heap.view.tip());
        }
    }
}
