//! What is known here of the open scans, read from the store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::{Snapshot, StoreError, StoreReader};
use crate::tracker::{ScanId, ScanRow, ScanState, ScriptHash};

pub(super) type OpenScans = BTreeMap<ScanId, OpenScan>;

/// An open scan.
pub(super) struct OpenScan {
    pub(super) row: ScanRow,
    /// First height from which all its scripts are known; while a baseline is to come, of those
    /// that were looked at.
    pub(super) reach: u32,
    /// One of its scripts whose baseline is to come.
    pub(super) pending: Option<ScriptHash>,
    pub(super) held: Option<ScanPause>,
}

/// Why a scan does not go on for a while.
pub(super) struct ScanPause {
    pub(super) until: Instant,
    pub(super) why: String,
}

impl OpenScan {
    /// First height that need not be scanned, as far as is known.
    pub(super) fn end(&self) -> u32 {
        self.row
            .to
            .map_or(self.reach, |to| self.reach.min(to.saturating_add(1)))
    }

    /// Nothing keeps it from going on, or from ending.
    pub(super) fn is_free(&self, now: Instant) -> bool {
        self.pending.is_none() && self.held.as_ref().is_none_or(|held| held.until <= now)
    }

    pub(super) fn hold(&mut self, pause: Duration, why: String) {
        self.held = Some(ScanPause {
            until: Instant::now() + pause,
            why,
        });
    }
}

/// Brings `scans` up to what the store says. Scripts are read anew only for scans that went another
/// way than we led them, or that would go beyond our tip: after a reorg their scripts may be
/// covered from lower down.
pub(super) fn refresh(reader: &StoreReader, scans: &mut OpenScans) -> Result<(), StoreError> {
    let above = reader
        .snapshot()
        .tip()?
        .map_or(0, |tip| tip.height.saturating_add(1));
    let open: BTreeSet<ScanId> = reader.snapshot().open_scans()?.into_iter().collect();
    scans.retain(|scan, _| open.contains(scan));
    for scan in open {
        let snapshot = reader.snapshot();
        let Some(row) = snapshot
            .scan(&scan)?
            .filter(|row| row.state == ScanState::Open)
        else {
            scans.remove(&scan);
            continue;
        };
        match scans.get_mut(&scan) {
            Some(open)
                if goes_same_way(&open.row, &row)
                    && open.end() <= above
                    && !has_come(&snapshot, open.pending)? =>
            {
                open.row = row
            }
            known => {
                let held = known.and_then(|open| open.held.take());
                let (reach, pending) = survey(&snapshot, &scan)?;
                scans.insert(
                    scan,
                    OpenScan {
                        row,
                        reach,
                        pending,
                        held,
                    },
                );
            }
        }
    }
    Ok(())
}

/// What cannot be told from the row: how far down the scripts are known by now.
pub(super) fn survey_again(
    reader: &StoreReader,
    scan: &ScanId,
    open: &mut OpenScan,
) -> Result<(), StoreError> {
    (open.reach, open.pending) = survey(&reader.snapshot(), scan)?;
    Ok(())
}

fn goes_same_way(known: &ScanRow, row: &ScanRow) -> bool {
    (known.next, known.horizon, known.scripts) == (row.next, row.horizon, row.scripts)
}

/// Whether a baseline that was waited for is there.
fn has_come(snapshot: &Snapshot<'_>, pending: Option<ScriptHash>) -> Result<bool, StoreError> {
    let Some(script) = pending else {
        return Ok(false);
    };
    Ok(snapshot
        .watch(&script)?
        .is_none_or(|row| !row.coverage.pending))
}

fn survey(snapshot: &Snapshot<'_>, scan: &ScanId) -> Result<(u32, Option<ScriptHash>), StoreError> {
    let mut reach = 0;
    for script in snapshot.scan_scripts(scan)? {
        let Some(coverage) = snapshot.watch(&script)?.map(|row| row.coverage) else {
            continue;
        };
        reach = reach.max(coverage.from_height);
        if coverage.pending {
            return Ok((reach, Some(script)));
        }
    }
    Ok((reach, None))
}
