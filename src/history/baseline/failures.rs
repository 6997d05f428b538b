//! Scans that fail, and what is done in place of them.

use std::collections::HashSet;
use std::time::Duration;

use bitcoin::ScriptBuf;
use tokio::sync::watch;

use super::{LeftOut, Waiting};
use crate::bitcoind::{NodeError, NodeErrorKind, Retry};

/// Pause after a failure, doubled with each further one up to the second; up to the third after
/// something that a person has to mend.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const LONG_PAUSE: Duration = Duration::from_secs(60);

/// What failures lead to.
#[derive(Debug, Default)]
pub(super) struct Failures {
    pub(super) in_a_row: u32,
    /// Scripts of the next scan at most.
    pub(super) most: Option<usize>,
    /// The next scan asks for nothing beyond them.
    pub(super) is_plain: bool,
    pub(super) left_out: watch::Sender<LeftOut>,
    /// Scripts that alone took too long: the others go first.
    pub(super) later: HashSet<ScriptBuf>,
}

impl Failures {
    /// Before what failed is tried again.
    pub(super) fn pause(&mut self, error: &NodeError) -> Duration {
        let longest = match error.retry() {
            Retry::Transient => LONGEST_PAUSE,
            Retry::Persistent => LONG_PAUSE,
        };
        let pause = (PAUSE * 2_u32.pow(self.in_a_row.min(8))).min(longest);
        self.in_a_row = self.in_a_row.saturating_add(1);
        pause
    }

    /// A scan failed that asked for scripts that are not watched, too: it is tried without them
    /// first. Whether the failure may be due to them.
    pub(super) fn scan_beyond_failed(&mut self, kind: NodeErrorKind) -> bool {
        use NodeErrorKind::{Rpc, Shape, TimedOut, TooLong};
        if !matches!(kind, TooLong | TimedOut | Shape | Rpc(_)) {
            return false;
        }
        (self.is_plain, self.in_a_row) = (true, 0);
        true
    }

    /// A scan of these scripts failed.
    pub(super) fn scan_failed(&mut self, kind: NodeErrorKind, scanned: &[Waiting]) {
        if !matches!(kind, NodeErrorKind::TooLong | NodeErrorKind::TimedOut) {
            return;
        }
        match scanned {
            [] => {}
            [(spk, added)] if kind == NodeErrorKind::TooLong => {
                tracing::warn!(
                    "bitcoind cannot tell what output script {} owns: it is too much for one answer (GET /status says what to do)",
                    spk.to_hex_string()
                );
                self.left_out
                    .send_modify(|known| _ = known.insert(spk.clone(), *added));
            }
            [(spk, _)] => _ = self.later.insert(spk.clone()),
            many => self.most = Some(many.len() / 2),
        }
        // The next scan is another one.
        self.in_a_row = 0;
    }

    pub(super) fn scanned(&mut self) {
        self.most = self.most.and_then(|most| most.checked_mul(2));
        self.is_plain = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Added;
    use super::*;

    #[test]
    fn pauses_grow_and_are_longest_where_a_person_has_to_mend_something() {
        for (kind, seconds) in [
            (NodeErrorKind::Busy, [1, 2, 4, 5, 5, 5, 5, 5]),
            (NodeErrorKind::MethodRefused, [1, 2, 4, 8, 16, 32, 60, 60]),
        ] {
            let error = NodeError::new(kind, "no");
            let mut failures = Failures::default();
            assert_eq!(seconds.map(|_| failures.pause(&error).as_secs()), seconds);
        }
    }

    #[test]
    fn one_script_whose_outputs_are_too_many_keeps_no_other_waiting() {
        let mut waiting: Vec<_> = (0..100).map(|n| ScriptBuf::from_bytes(vec![n])).collect();
        let bad = waiting[42].clone();
        let (mut failures, mut scans) = (Failures::default(), 0);
        loop {
            let left_out = failures.left_out.borrow().clone();
            let all = waiting.iter().filter(|spk| !left_out.contains_key(*spk));
            if all.clone().next().is_none() {
                break;
            }
            scans += 1;
            let most = failures.most.unwrap_or(usize::MAX);
            let scanned: Vec<_> = all
                .take(most)
                .map(|spk| (spk.clone(), Added::default()))
                .collect();
            if scanned.iter().any(|(spk, _)| *spk == bad) {
                failures.scan_failed(NodeErrorKind::TooLong, &scanned);
            } else {
                failures.scanned();
                waiting.retain(|spk| scanned.iter().all(|(other, _)| other != spk));
            }
            assert!(scans < 40, "{waiting:?}");
        }
        assert_eq!(waiting, [bad]);
    }

    #[test]
    fn a_scan_that_fails_with_scripts_beyond_is_tried_without_them_first() {
        let mut failures = Failures::default();
        assert!(!failures.scan_beyond_failed(NodeErrorKind::Busy));
        assert!(!failures.is_plain);
        for kind in [NodeErrorKind::TooLong, NodeErrorKind::Rpc(-5)] {
            assert!(failures.scan_beyond_failed(kind));
            assert_eq!((failures.is_plain, failures.most), (true, None));
            failures.scanned();
            assert!(!failures.is_plain);
        }
    }

    #[test]
    fn only_what_is_too_long_is_left_out() {
        let mut failures = Failures::default();
        let many = vec![(ScriptBuf::new(), Added::default()); 8];
        failures.scan_failed(NodeErrorKind::Busy, &many);
        assert_eq!(failures.most, None);
        failures.scan_failed(NodeErrorKind::TimedOut, &many);
        assert_eq!(failures.most, Some(4));
        failures.scan_failed(NodeErrorKind::TimedOut, &many[..1]);
        assert_eq!(failures.most, Some(4), "never none at all");
        assert!(failures.left_out.borrow().is_empty());
        assert!(
            failures.later.contains(&ScriptBuf::new()),
            "others go first"
        );
    }
}
