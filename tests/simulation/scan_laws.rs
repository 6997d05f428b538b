//! History scans: how each of them must have ended, and what it must have found.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::AddAssign;

use satwatch::tracker::{Event, EventKind, ScanId, ScanState, ScriptHash, SubjectId};

use crate::pretended::laws::{Kept, script_of};
use crate::pretended::script;

/// What a person did to scans.
#[derive(Default)]
pub struct Scans {
    /// Those that were opened, and a person was told so; with their scripts that have been watched
    /// ever since.
    opened: BTreeMap<ScanId, HashSet<u8>>,
    /// A person wanted them cancelled; it may have been too late.
    cancelled: HashSet<ScanId>,
}

/// What the scans of some lives came to, and the lives that ended because of the node.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub complete: u64,
    pub cancelled: u64,
    /// Complete ones that a horizon made skip blocks.
    pub skipped: u64,
    /// Histories up to a height that were compared with the chain.
    pub bounded: u64,
    /// The node threw away blocks that we did not have.
    pub gaps: u64,
}

impl Tally {
    pub fn of_a_gap() -> Self {
        Self {
            gaps: 1,
            ..Self::default()
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.complete += other.complete;
        self.cancelled += other.cancelled;
        self.skipped += other.skipped;
        self.bounded += other.bounded;
        self.gaps += other.gaps;
    }
}

impl Scans {
    pub fn opened(&mut self, scan: ScanId, scripts: &[ScriptHash], watched: &HashSet<u8>) {
        let is_in_it = |number: &&u8| scripts.contains(&script(**number));
        let steady = watched.iter().filter(is_in_it).copied().collect();
        self.opened.insert(scan, steady);
    }

    pub fn cancels(&mut self, scan: ScanId) {
        self.cancelled.insert(scan);
    }

    /// A script is not watched any more, or may not have been for a moment.
    pub fn unwatched(&mut self, number: u8) {
        for steady in self.opened.values_mut() {
            steady.remove(&number);
        }
    }

    /// In the end every scan has ended: complete, unless somebody cancelled it or took away its
    /// scripts. A complete one was told once to each script, and what it was made for is in the
    /// rows: it is as if the script had been watched from its first block on.
    pub fn check(&self, kept: &Kept, log: &[(u64, Event)]) -> Tally {
        assert_eq!(kept.view.open_scans(), [], "in the end each scan has ended");
        assert!(
            kept.view.scan_scripts.is_empty(),
            "an ended scan keeps no scripts"
        );
        let (told, standing) = (told(log), standing(kept, log));
        let mut tally = Tally::default();
        for (scan, steady) in &self.opened {
            let row = kept.view.scans.get(scan);
            let row = row.expect("a scan that a person was told of is there");
            if row.state != ScanState::Complete {
                tally.cancelled += 1;
                assert!(
                    steady.is_empty() || self.cancelled.contains(scan),
                    "nobody has cancelled {scan}"
                );
                continue;
            }
            tally.complete += 1;
            tally.skipped += u64::from(row.horizon.is_some());
            for number in steady {
                let times = told.get(&(script(*number), *scan));
                assert_eq!(
                    times,
                    Some(&1),
                    "{scan} told script {number} once that it ended"
                );
                let stands = standing.contains(&(script(*number), *scan));
                if let Some(to) = row.to.filter(|_| stands) {
                    tally.bounded += 1;
                    kept.check_history(*number, row.first()..=to);
                }
            }
        }
        self.check_coverage(kept, log);
        tally
    }

    /// What a scan without a last block was made for is covered, and what is covered is
    /// [compared](crate::pretended::laws) with the chain.
    fn check_coverage(&self, kept: &Kept, log: &[(u64, Event)]) {
        let mut complete = HashMap::new();
        for (_, event) in log {
            match &event.kind {
                EventKind::ScanComplete {
                    subject,
                    scan,
                    from,
                    ..
                } if kept.view.scans[scan].to.is_none() => {
                    _ = complete.insert((script_of(subject), *from), *scan)
                }
                EventKind::Unwatched { subject } => {
                    complete.retain(|(of, _), _| SubjectId::Script(*of) != subject.id())
                }
                // A baseline is asked for anew, and speaks for its own block.
                EventKind::Reorg { fork_point, .. } => {
                    complete.retain(|(_, from), _| *from <= fork_point.height + 1);
                }
                _ => {}
            }
        }
        // Of one that was unwatched and stays for a wallet, the end may not be told.
        let is_steady = |scan: &ScanId, of: ScriptHash| {
            let mut steady = self.opened.get(scan).into_iter().flatten();
            steady.any(|number| script(*number) == of)
        };
        complete.retain(|(of, _), scan| is_steady(scan, *of));
        for ((script, from), scan) in complete {
            let covered = kept.view.watches[&script].coverage.from_height;
            assert!(
                covered <= from,
                "{scan} told that the history from {from} on is known, and it is known from {covered} on"
            );
        }
    }
}

fn told(log: &[(u64, Event)]) -> HashMap<(ScriptHash, ScanId), u64> {
    let mut told = HashMap::new();
    for (_, event) in log {
        if let EventKind::ScanComplete { subject, scan, .. } = &event.kind {
            *told.entry((script_of(subject), *scan)).or_default() += 1;
        }
    }
    told
}

/// The ends of scans below whose last block no reorg went later. The blocks up to it need not be
/// covered, and are known all the same; those of another branch are not.
fn standing(kept: &Kept, log: &[(u64, Event)]) -> HashSet<(ScriptHash, ScanId)> {
    let mut standing = HashSet::new();
    for (_, event) in log {
        match &event.kind {
            EventKind::ScanComplete { subject, scan, .. } => {
                _ = standing.insert((script_of(subject), *scan))
            }
            EventKind::Reorg { fork_point, .. } => standing.retain(|(_, scan)| {
                let to = kept.view.scans[scan].to;
                to.is_none_or(|to| to <= fork_point.height)
            }),
            _ => {}
        }
    }
    standing
}
