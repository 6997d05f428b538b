//! History scans: opening them, looking at them, cancelling them, and telling subscribers how far
//! they are. The work is done by `crate::history`; what is lasting of a scan is its row, how it is
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
use tokio::time::sleep;

pub use shape::ScanShape;
use shape::scan_shape;

use super::watchlist::{AGAIN, Watchlist};
use crate::auth::Principal;
use crate::clock::now_ms;
use crate::events::{self, Notice, Topic};
use crate::history::ScanProgress;
use crate::indexer::{self, Done, InputRefused};
use crate::reads::{Reads, StoreView, run_detached};
use crate::tracker::{
    ApplyError, Input, ScanEnd, ScanId, ScanRow, ScanState, ScriptHash, WatchRequest,
};
use crate::wire::ApiError;
use crate::wire::json::BalanceOf;
use crate::wire::request::history::{HistoryOption, Range, RangeRequest};

/// Scans that may be open.
const OPEN_MOST: usize = 10_000;

/// The scans of addresses on the watch list.
pub struct Scans {
    pub reads: Reads,
    pub watchlist: Arc<Watchlist>,
    pub indexer: indexer::Handle,
    pub dispatch: events::Handle,
    /// Of the open ones that the node's side knows of.
    pub progress: watch::Receiver<Vec<ScanProgress>>,
}

/// The heights of one more scan, if there is room for it.
pub fn range_of(view: &StoreView<'_>, range: RangeRequest) -> Result<Range, ApiError> {
    // The first block brings the tip.
    let message =
        "No block is known yet; ask again when the daemon follows the node (GET /health/ready).";
    let tip = view.tip()?;
    let tip = tip.ok_or_else(|| ApiError::unavailable("not_ready", message))?;
    let range = range.range(tip.height)?;
    let open = view.open_scans()?.len();
    if open < OPEN_MOST {
        return Ok(range);
    }
    let message = format!(
        "{open} history scans are open already; wait until some are complete, or cancel some (DELETE /scans/{{id}})."
    );
    let status = StatusCode::TOO_MANY_REQUESTS;
    Err(ApiError::new(status, "too_many_scans", message).retry_after(60))
}

fn ended(scan: ScanId) -> ApiError {
    let message = format!(
        "The scan {scan} has ended already, GET /scans/{scan} says how; nothing was changed."
    );
    ApiError::conflict("scan_ended", message)
}

impl Scans {
    /// Watches scripts, and has their history scanned if that is wanted: the scan, and what came of
    /// both. A history that the chain does not have is refused before anything is watched.
    pub async fn watch(
        self: &Arc<Self>,
        principal: &Principal,
        scripts: Vec<WatchRequest>,
        history: HistoryOption,
    ) -> Result<(Option<ScanId>, Done), ApiError> {
        let HistoryOption::From(from) = history else {
            return Ok((None, self.watchlist.watch(principal, scripts).await?));
        };
        let ranged = self.reads.run_rows(scripts.len(), move |view| {
            let range = range_of(view, RangeRequest::Heights { from, to: None })?;
            let hashes = scripts.iter().map(|request| ScriptHash::of(&request.spk));
            Ok((range, hashes.collect(), scripts))
        });
        let ((range, hashes, scripts), scans) = (ranged.await?, self.clone());
        let principal = principal.clone();
        run_detached(async move {
            loop {
                let list = scans.watchlist.hold().await;
                let watching = scans.watchlist.try_to_watch(&principal, scripts.clone());
                if let Some(Done { added, .. }) = watching.await? {
                    let (scan, done) = scans.open(hashes, range).await?;
                    return Ok((Some(scan), Done { added, ..done }));
                }
                drop(list);
                sleep(AGAIN).await;
            }
        })
        .await
    }

    /// Opens a scan of those scripts that are watched. To be asked for while the watch list is
    /// held.
    pub async fn open(
        &self,
        scripts: Vec<ScriptHash>,
        range: Range,
    ) -> Result<(ScanId, Done), ApiError> {
        let Range { from, to, .. } = range;
        let open = |scan| Input::OpenScan {
            scan,
            scripts: scripts.clone(),
            from,
            to,
            now: now_ms(),
        };
        self.open_as(open).await
    }

    /// The same by the input that opens it.
    pub async fn open_as(
        &self,
        open: impl Fn(ScanId) -> Input,
    ) -> Result<(ScanId, Done), ApiError> {
        loop {
            let scan = ScanId(getrandom::u64().map_err(|cause| ApiError::internal(&cause))?);
            match self.indexer.apply(open(scan)).await {
                Ok(done) => return Ok((scan, done)),
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
            .run(move |view| Ok((view.scan(&scan)?, view.scan_scripts(&scan)?)));
        let (Some(row), scripts) = before.await? else {
            return Ok(None);
        };
        if row.state != ScanState::Open {
            return Err(ended(scan));
        }
        let target = self.progress_of(scan).map(|progress| progress.target);
        let (end, now) = (ScanEnd::Cancelled(target), now_ms());
        let close = Input::CloseScan { scan, end, now };
        let done = match self.indexer.apply(close).await {
            Ok(done) => done,
            Err(InputRefused::Apply(ApplyError::NoSuchScan(_))) => return Err(ended(scan)),
            Err(refused) => return Err(refused.into()),
        };
        let read = move |view: &StoreView<'_>| shape(view, scan, None);
        let Some(shape) = self.reads.run(read).await? else {
            return Ok(None);
        };
        let notice = Notice {
            subject: scan.0,
            packet: progress::event(shape.clone())?,
            as_of: None,
        };
        self.notify(&scripts, notice);
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
    pub fn all(&self, view: &StoreView<'_>, most: usize) -> Result<Vec<ScanShape>, ApiError> {
        let scans = view.scans(None).collect::<Result<Vec<_>, _>>()?;
        self.shapes(view, scans, most)
    }

    /// Some open scans, newest first, and how many are open.
    pub fn open_ones(
        &self,
        view: &StoreView<'_>,
        most: usize,
    ) -> Result<(Vec<ScanShape>, usize), ApiError> {
        let open = view.open_scans()?;
        let rows = open.iter().take(most);
        let rows =
            rows.filter_map(|scan| Some(view.scan(scan).transpose()?.map(|row| (*scan, row))));
        let shapes = self.shapes(view, rows.collect::<Result<_, _>>()?, most)?;
        Ok((shapes, open.len()))
    }

    fn shapes(
        &self,
        view: &StoreView<'_>,
        mut scans: Vec<(ScanId, ScanRow)>,
        most: usize,
    ) -> Result<Vec<ScanShape>, ApiError> {
        scans.sort_unstable_by_key(|(scan, row)| {
            (row.state != ScanState::Open, Reverse(row.created), *scan)
        });
        scans.truncate(most);
        let progress = self.progress.borrow().clone();
        let progress: HashMap<_, _> = progress.iter().map(|known| (known.scan, known)).collect();
        let scans = scans.iter();
        scans
            .map(|(scan, row)| shape_of(view, *scan, row, progress.get(scan).copied()))
            .collect()
    }
}

/// How a scan looks; `None` when there is none.
pub fn shape(
    view: &StoreView<'_>,
    scan: ScanId,
    progress: Option<&ScanProgress>,
) -> Result<Option<ScanShape>, ApiError> {
    let row = view.scan(&scan)?;
    row.map(|row| shape_of(view, scan, &row, progress))
        .transpose()
}

fn shape_of(
    view: &StoreView<'_>,
    scan: ScanId,
    row: &ScanRow,
    progress: Option<&ScanProgress>,
) -> Result<ScanShape, ApiError> {
    let of = match view.descriptor_scan(&scan)? {
        Some(of) => Some(BalanceOf::Descriptor {
            descriptor_id: of.descriptor.to_string(),
        }),
        // Of an open one that has just one.
        None if row.scripts == 1 => {
            address_of(view, scan)?.map(|address| BalanceOf::Address { address })
        }
        None => None,
    };
    let tip = view.tip()?.map(|tip| tip.height);
    Ok(scan_shape(scan, row, of, progress, tip))
}

fn address_of(view: &StoreView<'_>, scan: ScanId) -> Result<Option<String>, ApiError> {
    let scripts = view.scan_scripts(&scan)?;
    let Ok([script]) = <[ScriptHash; 1]>::try_from(scripts) else {
        return Ok(None);
    };
    let row = view.watch(&script)?;
    Ok(row.map(|row| view.address_of(&row.spk)))
}
