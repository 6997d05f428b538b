//! `scan_progress`: how open history scans are doing, told to those who are subscribed to one of
//! their addresses.
//!
//! It is not in the log and has no cursor: only the latest of it means anything. A client that does
//! not keep up gets less of it, and nobody is told of a scan that goes on behind an event that says
//! otherwise.
//!
//! However many scans are open, a second brings [`ROUND`] of them and [`ROUND_SCRIPTS`] of their
//! scripts to dispatch at most; those that were told longest ago come first. A scan that only waits
//! for its turn is not worth a word.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{ScanShape, Scans, shape_of};
use crate::clock::now_ms;
use crate::events::Notice;
use crate::history::ScanProgress;
use crate::reads::StoreView;
use crate::socketio::Encoded;
use crate::tracker::{ScanId, ScanState, ScriptHash};
use crate::wire::error::ApiError;
use crate::wire::json::{ServerEvent, seconds, server_events};

/// Between two words about a scan.
const PACE: Duration = Duration::from_secs(1);
/// Scans that are told about in one round.
const ROUND: usize = 100;
/// Scripts of them, unless the first alone has more.
const ROUND_SCRIPTS: usize = 100_000;

server_events! {
    /// What is told of scans besides the log.
    PROGRESS_EVENTS {
        "scan_progress" ScanProgressEvent, "How far an open history scan is, once a second; it is not in the log and has no cursor";
    }
}

/// How far a history scan is.
#[derive(Serialize, JsonSchema)]
struct ScanProgressEvent {
    #[serde(flatten)]
    scan: ScanShape,
    /// Seconds since the Unix epoch.
    timestamp: f64,
}

/// The event for a scan.
pub fn event(scan: ScanShape) -> Result<Encoded, ApiError> {
    let timestamp = seconds(now_ms());
    Ok(ScanProgressEvent { scan, timestamp }.encode()?)
}

/// Remembers what was told of each scan last, and in which round.
#[derive(Default)]
struct Teller {
    last: HashMap<ScanId, (ScanProgress, u64)>,
    round: u64,
}

impl Teller {
    /// The scans that there is news of, those that were told longest ago first. Forgets those that
    /// have ended.
    fn due(&mut self, scans: &[ScanProgress]) -> Vec<ScanProgress> {
        self.round = self.round.saturating_add(1);
        if !self.last.is_empty() {
            let open: HashSet<_> = scans.iter().map(|progress| progress.scan).collect();
            self.last.retain(|scan, _| open.contains(scan));
        }
        let is_due = |now: &&ScanProgress| match self.last.get(&now.scan) {
            Some((last, _)) => last != *now && (now.running || state(last) != state(now)),
            None => now.running || now.waits_for.is_some(),
        };
        let mut due: Vec<_> = scans.iter().filter(is_due).cloned().collect();
        due.sort_by_key(|now| self.last.get(&now.scan).map(|(_, round)| *round));
        due
    }
}

/// What is worth a word when it changes.
fn state(progress: &ScanProgress) -> (bool, bool) {
    (progress.running, progress.waits_for.is_some())
}

/// Tells until the daemon stops.
pub async fn run(scans: Arc<Scans>, stop: CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = tell(&scans) => {}
    }
}

async fn tell(scans: &Scans) {
    let (mut progress, mut teller) = (scans.progress.clone(), Teller::default());
    let mut is_more = false;
    while is_more || progress.changed().await.is_ok() {
        let due = teller.due(&progress.borrow_and_update());
        // The cause of a failure is in the log, and the next round may do better.
        is_more = teller.tell(scans, due).await.unwrap_or_default();
        tokio::time::sleep(PACE).await;
    }
}

impl Teller {
    /// One round: true when there was more than fits one.
    async fn tell(&mut self, scans: &Scans, due: Vec<ScanProgress>) -> Result<bool, ApiError> {
        let mut left = ROUND_SCRIPTS;
        for (count, progress) in due.into_iter().enumerate() {
            if count == ROUND || left == 0 {
                return Ok(true);
            }
            let Some((shape, scripts, head)) = look(scans, progress.clone()).await? else {
                continue;
            };
            left = left.saturating_sub(scripts.len());
            let notice = Notice {
                subject: progress.scan.0,
                packet: event(shape)?,
                as_of: Some(head),
            };
            scans.notify(&scripts, notice);
            self.last.insert(progress.scan, (progress, self.round));
        }
        Ok(false)
    }
}

/// How a scan is doing, its scripts, and the number of the last event then; `None` when it has
/// ended.
async fn look(
    scans: &Scans,
    now: ScanProgress,
) -> Result<Option<(ScanShape, Vec<ScriptHash>, u64)>, ApiError> {
    let look = move |view: &StoreView<'_>| {
        let row = view.scan(&now.scan)?;
        let Some(row) = row.filter(|row| row.state == ScanState::Open) else {
            return Ok(None);
        };
        let shape = shape_of(view, now.scan, &row, Some(&now))?;
        let scripts = view.scan_scripts(&now.scan)?;
        Ok(Some((shape, scripts, view.head()?)))
    };
    scans.reads.run_long(look).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(n: u64, next: u32, running: bool, waits: bool) -> ScanProgress {
        let waits_for = waits.then(|| "the node".to_owned());
        ScanProgress {
            scan: ScanId(n),
            target: 1000,
            next,
            running,
            method: None,
            rate: None,
            waits_for,
        }
    }

    /// One round in which all that is due is told, up to `most`.
    fn round(teller: &mut Teller, scans: &[ScanProgress], most: usize) -> Vec<u64> {
        let due = teller.due(scans);
        due.into_iter()
            .take(most)
            .map(|progress| {
                let (scan, round) = (progress.scan, teller.round);
                teller.last.insert(scan, (progress, round));
                scan.0
            })
            .collect()
    }

    #[test]
    fn a_scan_that_waits_for_its_turn_is_not_worth_a_word_until_it_runs() {
        let mut teller = Teller::default();
        let queued: Vec<_> = (0..10_000).map(|n| scan(n, 0, false, false)).collect();
        assert!(round(&mut teller, &queued, ROUND).is_empty());
        assert!(teller.last.is_empty());
        assert_eq!(
            round(
                &mut teller,
                &[scan(1, 5, true, false), scan(2, 0, false, false)],
                ROUND
            ),
            [1]
        );
    }

    #[test]
    fn what_has_not_changed_is_told_once_and_every_change_of_state_is_told() {
        let mut teller = Teller::default();
        for (now, told) in [
            (scan(1, 5, true, false), true),
            (scan(1, 5, true, false), false),
            (scan(1, 6, true, false), true),
            (scan(1, 6, false, false), true),
            (scan(1, 6, false, false), false),
            (scan(1, 6, false, true), true),
            (scan(1, 7, false, true), false),
            (scan(1, 7, true, false), true),
        ] {
            assert_eq!(
                round(&mut teller, std::slice::from_ref(&now), ROUND).len(),
                usize::from(told),
                "{now:?}"
            );
        }
    }

    #[test]
    fn when_there_are_too_many_for_a_round_all_have_their_turn() {
        let mut teller = Teller::default();
        let mut told = Vec::new();
        for at in 0..4 {
            let scans: Vec<_> = (0..10).map(|n| scan(n, at, true, false)).collect();
            told.extend(round(&mut teller, &scans, 4));
        }
        assert_eq!(
            told[..10].iter().collect::<HashSet<_>>().len(),
            10,
            "{told:?}"
        );
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let mut teller = Teller::default();
        let scans = [0, 1, 2].map(|n| scan(n, 0, true, false));
        round(&mut teller, &scans, ROUND);
        teller.due(&scans[2..]);
        assert_eq!(teller.last.keys().copied().collect::<Vec<_>>(), [ScanId(2)]);
    }
}
