//! A pretended runner of history scans: reads from the rows which scans are open and how far they
//! are, reads the node's blocks, hands what it finds in stretches, and holds the laws of
//! `tracker::scan_blocks` against each answer.

use std::collections::BTreeMap;

use satwatch::tracker::{
    ApplyError, Baseline, Event, EventKind, FollowUp, Input, Phase, ScanEnd, ScanId, ScanState,
    ScriptHash, Transition, View, WatchRequest,
};

use crate::memory::memory;
use crate::pretended::laws::script_of;
pub use crate::pretended::scans::Stretch;
use crate::pretended::scans::next_step;
use crate::world::{World, script, spk};

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
        next_step(&self.node, &self.view, scan, stretch, self.now)
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
                    let left = self.view.scan_scripts(scan, usize::MAX).unwrap();
                    scripts.retain(|script| !left.contains(script));
                    assert!(!scripts.is_empty() && !left.is_empty());
                }
                self.check_end(&scripts, *scan, *end, &events)
            }
            _ => {}
        }
        let _ = self.refused(input);
        if transition.follow_ups.contains(&FollowUp::Derive) && !self.slow_derive {
            self.derive();
        }
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
            // One that is just being removed may still stand in it.
            .filter_map(|script| Some((*script, self.view.watches.get(script)?.tx_count)))
            .collect();
        assert_eq!(told, expected, "scripts of scan {scan} hear of its end");
        let left = self.view.scan_scripts(&scan, usize::MAX).unwrap().len();
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
            subject,
            scan,
            transactions,
            ..
        } if *scan == closed => (script_of(subject), *transactions),
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
    // A use that it finds may move the window of a wallet.
    let asks = transition.follow_ups.iter();
    let asks: Vec<_> = asks.filter(|it| **it != FollowUp::Derive).collect();
    assert!(asks.is_empty(), "a scan asks for nothing else: {asks:?}");
}
