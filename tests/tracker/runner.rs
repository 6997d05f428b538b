//! A pretended runner of history scans: reads from the rows which scans are open and how far they
//! are, reads the node's blocks, hands what it finds in stretches, and holds the laws of
//! `tracker::past` against each answer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bitcoin::{OutPoint, TxOut};
use satwatch::tracker::{
    ApplyError, Baseline, BlockId, Event, EventKind, FoundOutput, Input, Phase, ScanEnd, ScanId,
    ScanRow, ScanState, ScannedBlock, ScannedTx, ScriptHash, Transition, View, WatchRequest,
};

use crate::memory::memory;
use crate::world::{World, script, spk};

type Created = HashMap<OutPoint, (TxOut, u32, bool)>;

/// How one stretch is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stretch {
    /// At most so many blocks.
    pub blocks: u32,
    /// Hand every transaction of a block, and every output that they spend.
    pub too_much: bool,
}

impl World {
    /// Asks for the history of these scripts as the API does: first for a baseline, if they have
    /// none.
    pub fn open_scan(&mut self, numbers: &[u8], from: u32, to: Option<u32>) -> ScanId {
        let scan = ScanId(1 + self.view.scans.keys().map(|scan| scan.0).max().unwrap_or(0));
        let find = |number: &u8| WatchRequest {
            spk: spk(*number),
            label: None,
            depths: Vec::new(),
            baseline: Baseline::IfMissing,
        };
        let scripts = numbers.iter().map(find).collect();
        self.forget_all();
        self.watched.extend(numbers);
        numbers
            .iter()
            .for_each(|number| _ = self.unfinished.remove(number));
        let _ = self.apply(Input::Watch {
            scripts,
            now: self.now,
        });
        let mut scripts: Vec<_> = numbers.iter().map(|number| script(*number)).collect();
        let rest = scripts.split_off(scripts.len() / 2);
        if !scripts.is_empty() {
            let _ = self.apply(Input::ScanScripts { scan, scripts });
        }
        let scripts = rest;
        let input = Input::OpenScan {
            scan,
            scripts,
            from,
            to,
            now: self.now,
        };
        let _ = self.apply(input.clone());
        assert_eq!(self.refused(input), ApplyError::ScanExists(scan));
        scan
    }

    /// The scans that have not ended, ascending.
    pub fn open_scans(&self) -> Vec<ScanId> {
        self.view.open_scans()
    }

    /// Scans are made until nothing is left of them, in stretches of so many blocks.
    pub fn finish_scans(&mut self, stretch: Stretch) {
        self.scan_if_wanted();
        while let Some(&scan) = self.open_scans().first() {
            assert!(self.step_scan(scan, stretch), "nothing holds the scan up");
        }
    }

    pub fn scan_if_wanted(&mut self) {
        if self.view.watches.values().any(|row| row.coverage.pending) {
            self.scan();
        }
    }

    /// One step of this scan and of all that are as far: a stretch of blocks, or its end. False
    /// while a baseline is to come.
    pub fn step_scan(&mut self, scan: ScanId, stretch: Stretch) -> bool {
        let Some(input) = self.next_step(scan, stretch) else {
            return false;
        };
        let _ = self.deliver(input).expect("nothing has changed meanwhile");
        true
    }

    /// What a runner would send next.
    pub fn next_step(&self, scan: ScanId, stretch: Stretch) -> Option<Input> {
        let row = &self.view.scans[&scan];
        if self.waits(&scan) {
            return None;
        }
        let target = self.target(scan, row);
        if row.next > target {
            let upto = self.block_id(target.max(row.next.saturating_sub(1)));
            return Some(Input::CloseScan {
                scan,
                end: ScanEnd::Complete(upto),
                now: self.now,
            });
        }
        let as_far = |other: &ScanId| self.view.scans[other].next == row.next && !self.waits(other);
        let scans: Vec<ScanId> = self.open_scans().into_iter().filter(as_far).collect();
        let upto = target.min(row.next.saturating_add(stretch.blocks.max(1) - 1));
        Some(self.stretch(scans, row.next, upto, stretch.too_much))
    }

    fn scripts_of(&self, scan: &ScanId) -> Vec<ScriptHash> {
        self.view.scan_scripts(scan, usize::MAX).unwrap()
    }

    fn waits(&self, scan: &ScanId) -> bool {
        self.scripts_of(scan)
            .iter()
            .any(|script| self.view.watches[script].coverage.pending)
    }

    /// The last height that a scan has to come to; below its place when there is nothing left.
    fn target(&self, scan: ScanId, row: &ScanRow) -> u32 {
        let covered = |script: &ScriptHash| self.view.watches[script].coverage.from_height;
        let highest = self
            .scripts_of(&scan)
            .iter()
            .map(covered)
            .max()
            .unwrap_or(0);
        let tip = self.view.tip.expect("the tracker has a tip").height;
        highest
            .saturating_sub(1)
            .min(row.to.unwrap_or(u32::MAX))
            .min(tip)
    }

    fn block_id(&self, height: u32) -> BlockId {
        let height = height.min(self.tip().height);
        BlockId {
            height,
            hash: self.chain[height as usize].block_hash(),
        }
    }

    fn stretch(&self, scans: Vec<ScanId>, first: u32, upto: u32, too_much: bool) -> Input {
        let scripts: Vec<Arc<HashSet<ScriptHash>>> = scans
            .iter()
            .map(|scan| Arc::new(self.scripts_of(scan).into_iter().collect()))
            .collect();
        // Only who began above the first block needs to be told what was created below.
        let firsts: Vec<u32> = scans
            .iter()
            .map(|scan| self.view.scans[scan].first())
            .collect();
        let created = self.created();
        let wanted = |out: &TxOut| {
            scripts
                .iter()
                .any(|scripts| scripts.contains(&ScriptHash::of(&out.script_pubkey)))
        };
        let mut blocks = Vec::new();
        for height in first..=upto.min(self.tip().height) {
            let block = &self.chain[height as usize];
            let mut transactions = Vec::new();
            for (position, tx) in (0..).zip(&block.txdata) {
                let spent: Vec<FoundOutput> = tx
                    .input
                    .iter()
                    .filter_map(|input| found(&created, input.previous_output))
                    .collect();
                let matters = tx.output.iter().any(wanted)
                    || spent.iter().any(|found| wanted(&as_out(found)));
                if matters || too_much {
                    let told = |found: &FoundOutput| {
                        too_much || firsts.iter().any(|first| found.height < *first)
                    };
                    transactions.push(ScannedTx {
                        position,
                        tx: tx.clone(),
                        spent: spent.into_iter().filter(told).collect(),
                    });
                }
            }
            if !transactions.is_empty() {
                blocks.push(ScannedBlock {
                    block: self.block_id(height),
                    time: block.header.time,
                    transactions,
                });
            }
        }
        Input::ScanBlocks {
            scans,
            scripts,
            first,
            blocks,
            upto: self.block_id(upto),
            now: self.now,
        }
    }

    /// Every output that was ever created on this chain.
    fn created(&self) -> Created {
        let mut created = HashMap::new();
        for (height, block) in (0..).zip(&self.chain) {
            for tx in &block.txdata {
                let outputs = (0..).zip(&tx.output);
                let txid = tx.compute_txid();
                created.extend(outputs.map(|(vout, out)| {
                    (
                        OutPoint { txid, vout },
                        (out.clone(), height, tx.is_coinbase()),
                    )
                }));
            }
        }
        created
    }

    /// Sends what a runner has read, perhaps some time ago, and sends it again.
    pub fn deliver(&mut self, input: Input) -> Result<Transition, ApplyError> {
        let (rows, before) = (self.view.clone(), memory(&self.tracker));
        let transition = match self.try_send(input.clone()) {
            Ok(transition) => transition,
            Err(refused) => {
                assert!(!refused.is_fatal(), "{refused}");
                assert_eq!(
                    (&rows, before),
                    (&self.view, memory(&self.tracker)),
                    "what is refused changes nothing"
                );
                return Err(refused);
            }
        };
        match &input {
            Input::ScanBlocks { .. } => check_quiet(&transition),
            Input::CloseScan { scan, end, .. } => {
                let mut scripts = rows.scan_scripts(scan, usize::MAX).unwrap();
                let mut events = transition.events.clone();
                // A complete one ends for a portion of its scripts at a time, as far as they are
                // covered.
                while self.view.scans[scan].state == ScanState::Open
                    && let Ok(portion) = self.try_send(input.clone())
                {
                    events.extend(portion.events);
                }
                if self.view.scans[scan].state == ScanState::Open {
                    let left = self.scripts_of(scan);
                    scripts.retain(|script| !left.contains(script));
                    assert!(!scripts.is_empty() && !left.is_empty());
                }
                self.check_end(&scripts, *scan, *end, &events)
            }
            _ => {}
        }
        let _ = self.refused(input);
        Ok(transition)
    }

    /// Sends what must be refused and must not change anything.
    pub fn refused(&mut self, input: Input) -> ApplyError {
        let (rows, before) = (self.view.clone(), memory(&self.tracker));
        let refused = self
            .try_send(input)
            .expect_err("a second time is one too many");
        assert_eq!(
            (&rows, before),
            (&self.view, memory(&self.tracker)),
            "what is refused changes nothing"
        );
        refused
    }

    /// The end of a scan is told once to each of its scripts, with its number of transactions; a
    /// cancelled one is not told.
    fn check_end(&self, scripts: &[ScriptHash], scan: ScanId, end: ScanEnd, events: &[Event]) {
        let told: BTreeMap<ScriptHash, u64> = events
            .iter()
            .map(|event| told_end(&event.kind, scan))
            .collect();
        assert_eq!(told.len(), events.len(), "each script is told once");
        let complete = matches!(end, ScanEnd::Complete(_));
        let expected: BTreeMap<ScriptHash, u64> = scripts
            .iter()
            .filter(|_| complete)
            .map(|script| (*script, self.view.watches[script].tx_count))
            .collect();
        assert_eq!(told, expected, "scripts of scan {scan} hear of its end");
        let left = self.scripts_of(&scan).len();
        let state = match complete {
            true if left > 0 => ScanState::Open,
            true => ScanState::Complete,
            false => ScanState::Cancelled,
        };
        assert_eq!(self.view.scans[&scan].state, state);
        // A cancelled one is emptied later.
        assert!(left == 0 || complete || self.tracker.has_to_forget());
    }
}

fn told_end(kind: &EventKind, closed: ScanId) -> (ScriptHash, u64) {
    match kind {
        EventKind::ScanComplete {
            script,
            scan,
            transactions,
            ..
        } if *scan == closed => (*script, *transactions),
        kind => panic!("{kind:?} is no end of scan {closed}"),
    }
}

/// History is no news: nothing is told but what it corrects. A balance is, only when a transaction
/// of an old block was held for unconfirmed.
fn check_quiet(transition: &Transition) {
    let corrects = |event: &Event| {
        matches!(
            event.kind,
            EventKind::TransactionUpdate {
                previous: Phase::Mempool,
                ..
            }
        )
    };
    let corrected = transition.events.iter().any(corrects);
    for event in &transition.events {
        match event.kind {
            EventKind::TransactionUpdate { .. } => {}
            EventKind::BalanceChange { .. } if corrected => {}
            _ => panic!("a scan tells of nothing but what it corrects: {event:?}"),
        }
    }
    assert!(
        transition.follow_ups.is_empty(),
        "a scan asks for nothing: {:?}",
        transition.follow_ups
    );
}

fn found(created: &Created, outpoint: OutPoint) -> Option<FoundOutput> {
    let (out, height, coinbase) = created.get(&outpoint)?;
    Some(FoundOutput {
        outpoint,
        spk: out.script_pubkey.clone(),
        value: out.value,
        height: *height,
        coinbase: *coinbase,
    })
}

fn as_out(found: &FoundOutput) -> TxOut {
    TxOut {
        value: found.value,
        script_pubkey: found.spk.clone(),
    }
}
