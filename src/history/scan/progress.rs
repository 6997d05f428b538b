//! What subscribers are told of the open scans: which ones are worked on, how far they are, how
//! fast, and what the others wait for.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::open_scans::{OpenScan, OpenScans};
use super::{ScanMethod, ScanProgress};
use crate::bitcoind::NodeStatus;
use crate::tracker::ScanId;

/// Between two publications of progress that only goes on.
pub(super) const PACE: Duration = Duration::from_millis(250);

const BASELINE: &str = "the unspent outputs of its addresses are being looked up first";

/// The scans that are being worked on.
#[derive(Default)]
struct RunningScans {
    scans: BTreeSet<ScanId>,
    next: u32,
    method: Option<ScanMethod>,
    /// Blocks a second.
    rate: Option<f64>,
}

pub(super) struct ProgressPublisher {
    progress: watch::Sender<Vec<ScanProgress>>,
    /// Says why we are not at the node's tip.
    status: watch::Receiver<NodeStatus>,
    running: RunningScans,
    published: Instant,
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
            running: RunningScans::default(),
            published: Instant::now(),
            at_tip: true,
        }
    }

    /// The scans that are being worked on.
    pub(super) fn running(&self) -> &BTreeSet<ScanId> {
        &self.running.scans
    }

    /// These scans are being worked on from now on, from height `next`.
    pub(super) fn start(
        &mut self,
        open: &OpenScans,
        scans: BTreeSet<ScanId>,
        next: u32,
        rate: Option<f64>,
    ) {
        self.running = RunningScans {
            scans,
            next,
            method: None,
            rate,
        };
        self.publish(open);
    }

    pub(super) fn set_method(&mut self, open: &OpenScans, method: ScanMethod, rate: Option<f64>) {
        if self.running.method.replace(method) != Some(method) {
            self.running.rate = rate;
            self.publish(open);
        }
    }

    /// The scans that are being worked on have come to height `next`.
    pub(super) fn advance(&mut self, open: &OpenScans, next: u32, rate: Option<f64>) {
        (self.running.next, self.running.rate) = (next, rate);
        if self.published.elapsed() >= PACE {
            self.publish(open);
        }
    }

    /// Nothing is being worked on now.
    pub(super) fn stop(&mut self, open: &OpenScans) {
        self.running = RunningScans::default();
        self.publish(open);
    }

    /// We are at the node's tip, or not any more; then nothing is being worked on.
    pub(super) fn set_at_tip(&mut self, open: &OpenScans, at_tip: bool) {
        let was = std::mem::replace(&mut self.at_tip, at_tip);
        match at_tip {
            true if was => {}
            true => self.publish(open),
            false => self.stop(open),
        }
    }

    pub(super) fn publish(&mut self, open: &OpenScans) {
        self.published = Instant::now();
        let progress = open.iter().map(|(scan, open)| {
            // One that failed is not said to run before it has come further: the node may still be
            // away.
            let running = Some(&self.running)
                .filter(|running| open.held.is_none() && running.scans.contains(scan));
            ScanProgress {
                scan: *scan,
                target: open.end().saturating_sub(1),
                next: running.map_or(open.row.next, |running| running.next.max(open.row.next)),
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
            (true, Some(_)) => Some(BASELINE.to_owned()),
            (true, None) => open.held.as_ref().map(|held| held.why.clone()),
        }
    }

    fn not_at_tip(&self) -> String {
        match &self.status.borrow().reason {
            Some(reason) => format!("satwatch is not at the node's tip: {reason}"),
            None => "satwatch is not at the node's tip: it is catching up".to_owned(),
        }
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
            pending: None,
            held: None,
        }
    }

    #[test]
    fn a_scan_that_failed_runs_again_only_once_it_has_come_further() {
        let (sender, mut seen) = watch::channel(Vec::new());
        let (_keep, status) = watch::channel(NodeStatus::default());
        let mut publisher = ProgressPublisher::new(sender, status);
        let scan = ScanId(1);
        let mut open = OpenScans::from([(scan, open_scan())]);
        publisher.start(&open, BTreeSet::from([scan]), 5, None);
        assert!(seen.borrow_and_update()[0].running);

        // The pause is over at once, and the scan is tried again.
        let held = open.get_mut(&scan).unwrap();
        held.hold(Duration::ZERO, "the node is away".into());
        publisher.stop(&open);
        assert!(seen.has_changed().unwrap());
        let waits = seen.borrow_and_update()[0].clone();
        assert!(!waits.running);
        assert_eq!(waits.waits_for.as_deref(), Some("the node is away"));
        publisher.start(&open, BTreeSet::from([scan]), 5, None);
        publisher.stop(&open);
        assert!(!seen.has_changed().unwrap(), "nothing new is told");

        publisher.start(&open, BTreeSet::from([scan]), 5, None);
        open.get_mut(&scan).unwrap().held = None;
        publisher.publish(&open);
        let runs = seen.borrow_and_update()[0].clone();
        assert!(runs.running);
        assert_eq!(runs.waits_for, None);
    }
}
