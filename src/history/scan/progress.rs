//! What subscribers are told of the open scans: which ones are worked on, how far they are, how
//! fast, and what the others wait for.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::scheduler::{OpenScan, OpenScans};
use super::{ScanMethod, ScanProgress};
use crate::bitcoind::{NodeError, NodeErrorKind, NodeStatus};
use crate::tracker::ScanId;

/// Over so long the rate is measured.
const MEASURE: Duration = Duration::from_secs(1);

const BASELINE: &str = "the unspent outputs of its addresses are being looked up first";

/// The scans that are being worked on.
struct RunningScans {
    scans: BTreeSet<ScanId>,
    method: Option<ScanMethod>,
    /// Blocks a second.
    rate: Option<f64>,
    /// Blocks since the rate was measured, and when that was.
    blocks: u32,
    measured: Instant,
}

impl RunningScans {
    fn new(scans: BTreeSet<ScanId>) -> Self {
        Self {
            scans,
            method: None,
            rate: None,
            blocks: 0,
            measured: Instant::now(),
        }
    }
}

pub(super) struct ProgressPublisher {
    progress: watch::Sender<Vec<ScanProgress>>,
    /// Says why we are not at the node's tip.
    status: watch::Receiver<NodeStatus>,
    running: RunningScans,
    at_tip: bool,
}

impl ProgressPublisher {
    pub(super) fn new(
        progress: watch::Sender<Vec<ScanProgress>>,
        status: watch::Receiver<NodeStatus>,
    ) -> Self {
        Self {
            progress,
            status,
            running: RunningScans::new(BTreeSet::new()),
            at_tip: true,
        }
    }

    /// The scans that are being worked on.
    pub(super) fn running(&self) -> &BTreeSet<ScanId> {
        &self.running.scans
    }

    /// These scans, or none, are being worked on from now on.
    pub(super) fn set_running(&mut self, open: &OpenScans, scans: BTreeSet<ScanId>) {
        if scans != self.running.scans {
            self.running = RunningScans::new(scans);
        }
        self.publish(open);
    }

    pub(super) fn set_method(&mut self, open: &OpenScans, method: ScanMethod) {
        self.running.method = Some(method);
        self.publish(open);
    }

    /// The scans that are being worked on have come so many blocks further.
    pub(super) fn advance(&mut self, open: &OpenScans, blocks: u32) {
        let running = &mut self.running;
        running.blocks = running.blocks.saturating_add(blocks);
        let took = running.measured.elapsed();
        if running.rate.is_none() || took >= MEASURE {
            running.rate = Some(f64::from(running.blocks) / took.as_secs_f64().max(1e-3));
            (running.blocks, running.measured) = (0, Instant::now());
        }
        self.publish(open);
    }

    /// We are at the node's tip, or not any more; then nothing is being worked on.
    pub(super) fn set_at_tip(&mut self, open: &OpenScans, at_tip: bool) {
        let was = std::mem::replace(&mut self.at_tip, at_tip);
        if !at_tip {
            self.set_running(open, BTreeSet::new());
        } else if !was {
            self.publish(open);
        }
    }

    pub(super) fn publish(&mut self, open: &OpenScans) {
        let progress = open.iter().map(|(scan, open)| {
            // One that failed is not said to run before it has come further: the node may still be
            // away.
            let running = Some(&self.running)
                .filter(|running| open.held.is_none() && running.scans.contains(scan));
            ScanProgress {
                scan: *scan,
                target: open.end().saturating_sub(1),
                next: open.row.next,
                running: running.is_some(),
                method: running.and_then(|running| running.method),
                rate: running.and_then(|running| running.rate),
                waits_for: self.waits_for(open),
            }
        });
        let progress = progress.collect();
        self.progress.send_if_modified(|known| {
            let differs = *known != progress;
            *known = progress;
            differs
        });
    }

    fn waits_for(&self, open: &OpenScan) -> Option<String> {
        match (self.at_tip, open.pending) {
            (false, _) => Some(self.not_at_tip()),
            (true, true) => Some(BASELINE.to_owned()),
            (true, false) => open.held.as_ref().map(|held| held.why.clone()),
        }
    }

    fn not_at_tip(&self) -> String {
        match &self.status.borrow().reason {
            Some(reason) => format!("satwatch is not at the node's tip: {reason}"),
            None => "satwatch is not at the node's tip: it is catching up".to_owned(),
        }
    }
}

/// What was told of the node's failures since it last answered.
#[derive(Default)]
pub(super) struct ToldFailure(Option<NodeError>);

impl ToldFailure {
    /// Why scans wait, which is logged when it is new. Of calls that are not answered in time the
    /// first is named: the others are late for the same reason.
    pub(super) fn tell(&mut self, error: &NodeError) -> String {
        let is_late = |error: &NodeError| error.kind == NodeErrorKind::TimedOut;
        let told = self.0.as_ref();
        if told.is_none_or(|told| told != error && !(is_late(told) && is_late(error))) {
            tracing::warn!("history scans wait: {error}");
            self.0 = Some(error.clone());
        }
        self.0.as_ref().unwrap_or(error).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::{ScanRow, ScanState};

    fn open_scan() -> OpenScan {
        let row = ScanRow {
            created: 0,
            updated: 0,
            state: ScanState::Open,
            from: 0,
            to: None,
            horizon: None,
            next: 5,
            scripts: 1,
            found: 0,
        };
        OpenScan {
            row,
            reach: 100,
            pending: false,
            descriptor: None,
            missing: 0,
            held: None,
        }
    }

    #[test]
    fn a_node_that_hangs_is_one_reason_whichever_call_it_does_not_answer() {
        let mut told = ToldFailure::default();
        for (kind, text, reason) in [
            (NodeErrorKind::TimedOut, "no REST", "no REST"),
            (NodeErrorKind::TimedOut, "no hash", "no REST"),
            (NodeErrorKind::Unreachable, "it broke", "it broke"),
            (NodeErrorKind::Unreachable, "refused", "refused"),
            (NodeErrorKind::TimedOut, "no hash", "no hash"),
        ] {
            assert_eq!(told.tell(&NodeError::new(kind, text)), reason);
        }
    }

    #[test]
    fn a_scan_that_failed_runs_again_only_once_it_has_come_further() {
        let (sender, mut seen) = watch::channel(Vec::new());
        let (_keep, status) = watch::channel(NodeStatus::default());
        let mut publisher = ProgressPublisher::new(sender, status);
        let scan = ScanId(1);
        let mut open = OpenScans::from([(scan, open_scan())]);
        publisher.set_running(&open, BTreeSet::from([scan]));
        assert!(seen.borrow_and_update()[0].running);

        // The pause is over at once, and the scan is tried again.
        let held = open.get_mut(&scan).unwrap();
        held.hold(Duration::ZERO, "the node is away".into());
        publisher.set_running(&open, BTreeSet::new());
        assert!(seen.has_changed().unwrap());
        let waits = seen.borrow_and_update()[0].clone();
        assert!(!waits.running);
        assert_eq!(waits.waits_for.as_deref(), Some("the node is away"));
        publisher.set_running(&open, BTreeSet::from([scan]));
        publisher.set_running(&open, BTreeSet::new());
        assert!(!seen.has_changed().unwrap(), "nothing new is told");

        publisher.set_running(&open, BTreeSet::from([scan]));
        open.get_mut(&scan).unwrap().held = None;
        publisher.publish(&open);
        let runs = seen.borrow_and_update()[0].clone();
        assert!(runs.running);
        assert_eq!(runs.waits_for, None);
    }
}
