//! History scans: opening them, looking at them, cancelling them, and telling subscribers how far
//! they are. The work is done by `crate::bitcoind`; what is lasting of a scan is its row, how it is
//! doing right now comes from there.
//!
//! ```text
//! shape      how one looks to clients
//! progress   `scan_progress`, beside the log
//! ```

pub mod progress;
mod shape;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use hyper::StatusCode;
use tokio::sync::watch;

pub use shape::ScanShape;

use super::watchlist::Watchlist;
use crate::bitcoind::ScanProgress;
use crate::clock::now_ms;
use crate::events::{self, Notice, Topic};
use crate::indexer::{self, InputRefused};
use crate::reads::{Reads, run_detached};
use crate::store::Snapshot;
use crate::tracker::{ApplyError, Input, ScanEnd, ScanId, ScanState, ScriptHash, WatchRequest};
use crate::wire::request::history::{HistoryOption, Range};
use crate::wire::{ApiError, EventEncoder, address};

/// Scans that may be open.
const OPEN_MOST: usize = 10_000;

/// The scans of addresses on the watch list.
pub struct Scans {
    pub reads: Reads,
    pub encoder: EventEncoder,
    pub watchlist: Arc<Watchlist>,
    pub indexer: indexer::Handle,
    pub dispatch: events::Handle,
    /// Of the open ones that the node's side knows of.
    pub progress: watch::Receiver<Vec<ScanProgress>>,
}

/// The height of the tip, which the first block brings.
pub fn tip(snapshot: &Snapshot<'_>) -> Result<u32, ApiError> {
    let message =
        "No block is known yet; ask again when the daemon follows the node (GET /health/ready).";
    let not_ready = || ApiError {
        retry_after: Some(1),
        ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", message)
    };
    snapshot.tip()?.map(|tip| tip.height).ok_or_else(not_ready)
}

/// Whether one more scan may be opened.
pub fn check_room(snapshot: &Snapshot<'_>) -> Result<(), ApiError> {
    let open = snapshot.open_scans()?.len();
    if open < OPEN_MOST {
        return Ok(());
    }
    let message = format!(
        "{open} history scans are open already; wait until some are complete, or cancel some (DELETE /scans/{{id}})."
    );
    Err(ApiError {
        retry_after: Some(60),
        ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_scans", message)
    })
}

fn ended(scan: ScanId) -> ApiError {
    let message = format!(
        "The scan {scan} has ended already, GET /scans/{scan} says how; nothing was changed."
    );
    ApiError::conflict("scan_ended", message)
}

impl Scans {
    /// Watches scripts, and has their history scanned if that is wanted: the scan, and the head
    /// after that. A history that the chain does not have is refused before anything is watched.
    pub async fn watch(
        self: &Arc<Self>,
        scripts: Vec<WatchRequest>,
        history: HistoryOption,
    ) -> Result<(Option<ScanId>, u64), ApiError> {
        let HistoryOption::From(from) = history else {
            return Ok((None, self.watchlist.watch(scripts).await?));
        };
        let ranged = self.reads.snapshot(move |snapshot| {
            let range = Range::starting(from, tip(snapshot)?)?;
            check_room(snapshot)?;
            Ok(range)
        });
        let (range, scans) = (ranged.await?, self.clone());
        run_detached(async move {
            let _list = scans.watchlist.hold().await;
            let hashes = scripts
                .iter()
                .map(|request| ScriptHash::of(&request.spk))
                .collect();
            scans.watchlist.watch(scripts).await?;
            let (scan, head) = scans.open(hashes, range).await?;
            Ok((Some(scan), head))
        })
        .await
    }

    /// Opens a scan of those scripts that are watched: its id, and the head after that. To be asked
    /// for while the watch list is held.
    pub async fn open(
        &self,
        scripts: Vec<ScriptHash>,
        range: Range,
    ) -> Result<(ScanId, u64), ApiError> {
        loop {
            let scan = ScanId(getrandom::u64().map_err(|cause| ApiError::internal(&cause))?);
            let Range { from, to, .. } = range;
            match self
                .indexer
                .apply(Input::OpenScan {
                    scan,
                    scripts: scripts.clone(),
                    from,
                    to,
                    now: now_ms(),
                })
                .await
            {
                Ok(done) => return Ok((scan, done.head)),
                Err(InputRefused::Apply(ApplyError::ScanExists(_))) => {}
                Err(refused) => return Err(refused.into()),
            }
        }
    }

    /// Cancels a scan and tells those who are subscribed to one of its addresses: how it looks then
    /// and the head after that; `None` when there is none.
    pub async fn cancel(&self, scan: ScanId) -> Result<Option<(ScanShape, u64)>, ApiError> {
        let before = self
            .reads
            .snapshot(move |snapshot| Ok((snapshot.scan(&scan)?, snapshot.scan_scripts(&scan)?)));
        let (Some(row), scripts) = before.await? else {
            return Ok(None);
        };
        if row.state != ScanState::Open {
            return Err(ended(scan));
        }
        let (end, now) = (ScanEnd::Cancelled, now_ms());
        let close = Input::CloseScan { scan, end, now };
        let done = match self.indexer.apply(close).await {
            Ok(done) => done,
            Err(InputRefused::Apply(ApplyError::NoSuchScan(_))) => return Err(ended(scan)),
            Err(refused) => return Err(refused.into()),
        };
        let (progress, encoder) = (self.progress_of(scan), self.encoder.clone());
        let read =
            move |snapshot: &Snapshot<'_>| shape(snapshot, &encoder, scan, progress.as_ref());
        let Some(shape) = self.reads.snapshot(read).await? else {
            return Ok(None);
        };
        let notice = Notice {
            subject: scan.0,
            packet: progress::event(&shape)?,
            as_of: None,
        };
        self.notify(&scripts.unwrap_or_default(), notice);
        Ok(Some((shape, done.head)))
    }

    /// Tells those who are subscribed to any of the scripts.
    pub fn notify(&self, scripts: &[ScriptHash], notice: Notice) {
        let topics = scripts.iter().map(|script| Topic::Script(*script));
        self.dispatch.notify(topics.collect(), notice);
    }

    /// How an open scan is doing right now, if the node's side knows of it.
    pub fn progress_of(&self, scan: ScanId) -> Option<ScanProgress> {
        let progress = self.progress.borrow();
        progress.iter().find(|known| known.scan == scan).cloned()
    }

    /// Blocks that open scans still have to pass, as far as is known.
    pub fn blocks_left(&self) -> u64 {
        let left = |progress: &ScanProgress| {
            u64::from(progress.target)
                .saturating_add(1)
                .saturating_sub(u64::from(progress.next))
        };
        self.progress.borrow().iter().map(left).sum()
    }

    /// All scans, open ones first, newest first.
    pub fn all(&self, snapshot: &Snapshot<'_>, most: usize) -> Result<Vec<ScanShape>, ApiError> {
        let mut order = Vec::new();
        for entry in snapshot.scans(None) {
            let (scan, row) = entry?;
            order.push((row.state != ScanState::Open, Reverse(row.created), scan));
        }
        order.sort_unstable();
        order.truncate(most);
        self.shapes(snapshot, order.into_iter().map(|(.., scan)| scan))
    }

    /// The first open scans, newest first, and how many are open.
    pub fn open_ones(
        &self,
        snapshot: &Snapshot<'_>,
        most: usize,
    ) -> Result<(Vec<ScanShape>, usize), ApiError> {
        let mut order = Vec::new();
        for scan in snapshot.open_scans()? {
            let created = snapshot.scan(&scan)?.map_or(0, |row| row.created);
            order.push((Reverse(created), scan));
        }
        let count = order.len();
        order.sort_unstable();
        order.truncate(most);
        let shapes = self.shapes(snapshot, order.into_iter().map(|(_, scan)| scan))?;
        Ok((shapes, count))
    }

    fn shapes(
        &self,
        snapshot: &Snapshot<'_>,
        scans: impl Iterator<Item = ScanId>,
    ) -> Result<Vec<ScanShape>, ApiError> {
        let progress = self.progress.borrow().clone();
        let progress: HashMap<_, _> = progress.iter().map(|known| (known.scan, known)).collect();
        scans
            .filter_map(|scan| {
                let progress = progress.get(&scan).copied();
                shape(snapshot, &self.encoder, scan, progress).transpose()
            })
            .collect()
    }
}

/// How a scan looks; `None` when there is none.
pub fn shape(
    snapshot: &Snapshot<'_>,
    encoder: &EventEncoder,
    scan: ScanId,
    progress: Option<&ScanProgress>,
) -> Result<Option<ScanShape>, ApiError> {
    let Some(row) = snapshot.scan(&scan)? else {
        return Ok(None);
    };
    let address = match row.scripts {
        1 => address_of(snapshot, encoder, scan)?,
        _ => None,
    };
    let tip = snapshot.tip()?.map(|tip| tip.height);
    Ok(Some(ScanShape::new(scan, &row, address, progress, tip)))
}

/// The address of an open scan that has just one.
fn address_of(
    snapshot: &Snapshot<'_>,
    encoder: &EventEncoder,
    scan: ScanId,
) -> Result<Option<String>, ApiError> {
    let Some([script]) = snapshot
        .scan_scripts(&scan)?
        .as_deref()
        .and_then(|scripts| <[ScriptHash; 1]>::try_from(scripts).ok())
    else {
        return Ok(None);
    };
    let row = snapshot.watch(&script)?;
    Ok(row.map(|row| address::text(&row.spk, encoder.network)))
}
