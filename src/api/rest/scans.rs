//! History scans: asking for them, looking at them, cancelling them. The work is done by
//! `crate::bitcoind`; what is lasting of a scan is its row, how it is doing right now comes from
//! there.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::respond::{self, Answer};
use crate::api::App;
use crate::api::progress;
use crate::bitcoind::{ScanMethod, ScanProgress};
use crate::clock::now_ms;
use crate::events::Notice;
use crate::indexer::InputRefused;
use crate::reads::run_detached;
use crate::store::Snapshot;
use crate::tracker::{
    ApplyError, Input, Past, ScanEnd, ScanId, ScanRow, ScanState, ScriptHash, WatchRequest,
};
use crate::wire::address::{self, KnownAddress};
use crate::wire::error::{ApiError, shortened};
use crate::wire::json::{self, CoverageShape};
use crate::wire::request::Request;
use crate::wire::request::history::{Asked, BlocksBack, Range};
use crate::wire::request::types::{Addresses, Height, Unlabelled};

/// Scans that may be open.
const OPEN_MOST: usize = 10_000;
/// Scans that `GET /scans` lists.
const LISTED: usize = 1000;

/// One history scan, as every answer and `scan_progress` show it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shape {
    scan_id: String,
    status: &'static str,
    /// While it is open, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    address_count: u32,
    from_height: u32,
    to_height: Option<u32>,
    horizon: Option<u32>,
    height: Option<u32>,
    blocks_done: u32,
    blocks_total: Option<u32>,
    percent: f64,
    transactions: u64,
    method: Option<&'static str>,
    blocks_per_second: Option<f64>,
    seconds_left: Option<u64>,
    waits_for: Option<String>,
    created: f64,
    updated: f64,
}

impl Shape {
    /// `progress`: of a scan that is open, if the node's side knows of it by now. `tip`: height of
    /// the tip. Right after a reorg the progress may be further.
    fn new(
        scan: ScanId,
        row: &ScanRow,
        address: Option<String>,
        progress: Option<&ScanProgress>,
        tip: Option<u32>,
    ) -> Self {
        let progress = progress.filter(|_| row.state == ScanState::Open);
        let running = progress.filter(|progress| progress.running);
        let top = tip.map_or(0, |tip| tip.saturating_add(1)).max(row.next);
        let (first, next) = (
            row.first(),
            running.map_or(row.next, |running| running.next.clamp(row.next, top)),
        );
        let blocks_done = next.saturating_sub(first);
        let height = next.checked_sub(1).filter(|height| *height >= first);
        let target = row.to.or_else(|| match row.state {
            ScanState::Open => progress.map(|progress| progress.target),
            ScanState::Complete => height,
            ScanState::Cancelled => None,
        });
        let blocks_total = match row.state {
            // It may have met the coverage of its scripts before it came to where it was told to.
            ScanState::Complete => Some(blocks_done),
            _ => target.map(|target| {
                target
                    .saturating_add(1)
                    .saturating_sub(first)
                    .max(blocks_done)
            }),
        };
        let blocks_left = blocks_total.map(|total| total.saturating_sub(blocks_done));
        let rate = running
            .and_then(|running| running.rate)
            .filter(|rate| rate.is_finite() && *rate > 0.0);
        Self {
            scan_id: scan.to_string(),
            status: word(row, progress),
            address,
            address_count: row.scripts,
            from_height: row.from,
            to_height: target,
            horizon: row.horizon,
            height,
            blocks_done,
            blocks_total,
            percent: percent(row.state, blocks_done, blocks_total),
            transactions: row.found,
            method: progress
                .and_then(|progress| progress.method)
                .map(|method| match method {
                    ScanMethod::Filters => "filters",
                    ScanMethod::Blocks => "blocks",
                }),
            blocks_per_second: rate.map(tenths),
            // A cast of a float saturates.
            seconds_left: rate
                .zip(blocks_left)
                .map(|(rate, left)| (f64::from(left) / rate).ceil() as u64),
            waits_for: progress.and_then(|progress| progress.waits_for.clone()),
            created: json::seconds(row.created),
            updated: json::seconds(row.updated),
        }
    }
}

fn word(row: &ScanRow, progress: Option<&ScanProgress>) -> &'static str {
    match (row.state, progress) {
        (ScanState::Complete, _) => "complete",
        (ScanState::Cancelled, _) => "cancelled",
        (ScanState::Open, Some(progress)) if progress.running => "scanning",
        (ScanState::Open, Some(progress)) if progress.waits_for.is_some() => "waiting",
        (ScanState::Open, _) => "queued",
    }
}

/// With one decimal; 100 only when it is complete.
fn percent(state: ScanState, done: u32, total: Option<u32>) -> f64 {
    match (state, total) {
        (ScanState::Complete, _) => 100.0,
        (_, Some(total)) if total > 0 => {
            tenths((f64::from(done) * 100.0 / f64::from(total)).min(99.9))
        }
        _ => 0.0,
    }
}

/// Down to one decimal.
fn tenths(number: f64) -> f64 {
    (number * 10.0).floor() / 10.0
}

/// Blocks that an open scan still has to pass, as far as is known.
pub fn blocks_left(progress: &ScanProgress) -> u64 {
    u64::from(progress.target)
        .saturating_add(1)
        .saturating_sub(u64::from(progress.next))
}

/// The id in a path.
fn parse(text: &str) -> Option<ScanId> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let digits = text.len() == 16 && text.bytes().all(is_digit);
    u64::from_str_radix(text, 16)
        .ok()
        .filter(|_| digits)
        .map(ScanId)
}

fn no_such_scan(text: &str) -> ApiError {
    let message = format!(
        "There is no scan {}; GET /scans lists those that there are.",
        shortened(text)
    );
    ApiError::new(StatusCode::NOT_FOUND, "no_such_scan", message)
}

fn ended(scan: ScanId) -> ApiError {
    let message = format!(
        "The scan {scan} has ended already, GET /scans/{scan} says how; nothing was changed."
    );
    ApiError::new(StatusCode::CONFLICT, "scan_ended", message)
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

/// `POST /scan_history/{address}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanOne {
    blocks_back: Option<BlocksBack>,
    from_height: Option<Height>,
    to_height: Option<Height>,
}

impl Request for ScanOne {
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("address", "the path names the address"),
        (
            "addresses",
            "the path names the address; POST /scan_history takes a list",
        ),
    ];
}

/// `POST /scan_history`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanList {
    addresses: Addresses<Unlabelled>,
    blocks_back: Option<BlocksBack>,
    from_height: Option<Height>,
    to_height: Option<Height>,
}

impl Request for ScanList {
    const EXAMPLE: &'static str = "{\"addresses\": [\"<address>\", …]}";
    const INSTEAD: &'static [(&'static str, &'static str)] = &[(
        "address",
        "put it into `addresses`, or into the path: POST /scan_history/<address>",
    )];
}

/// What is to be scanned, and the scripts of it that need their balance first.
struct Plan {
    range: Range,
    scripts: Vec<ScriptHash>,
    without_baseline: Vec<WatchRequest>,
}

impl App {
    /// `POST /scan_history/{address}`
    pub(in crate::api) async fn scan_history(
        self: &Arc<Self>,
        address: &str,
        scan: ScanOne,
    ) -> Result<Answer, ApiError> {
        let asked = Asked::new(scan.blocks_back, scan.from_height, scan.to_height)?;
        self.scan_histories(vec![self.address(address)?], false, asked)
            .await
    }

    /// `POST /scan_history`: one scan for all addresses, or none when one of them is not watched.
    pub(in crate::api) async fn scan_history_of_list(
        self: &Arc<Self>,
        scan: ScanList,
    ) -> Result<Answer, ApiError> {
        let (listed, network) = (scan.addresses, self.wire.network);
        let addresses = self.reads.run_long(move |_| listed.parse(network)).await?;
        let asked = Asked::new(scan.blocks_back, scan.from_height, scan.to_height)?;
        self.scan_histories(addresses, true, asked).await
    }

    async fn scan_histories(
        self: &Arc<Self>,
        addresses: Vec<KnownAddress>,
        many: bool,
        asked: Asked,
    ) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Scanning {
            #[serde(skip_serializing_if = "Option::is_none")]
            address: Option<String>,
            count: usize,
            scan_id: String,
            blocks_back: Option<u32>,
            from_height: u32,
            to_height: Option<u32>,
            message: String,
            status: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            coverage: Option<CoverageShape>,
            cursor: String,
        }
        let app = self.clone();
        let begun = run_detached(async move { app.begin_scan(addresses, many, asked).await });
        let (Plan { range, scripts, .. }, scan, head, address) = begun.await?;
        let Range {
            blocks_back,
            from,
            to,
        } = range;
        let end = to.map_or_else(
            || "where it is covered already".to_owned(),
            |to| format!("block {to}"),
        );
        let message = format!(
            "Scanning blocks from {from} up to {end}; GET /scans/{scan} says how far it is."
        );
        let script = scripts.first().copied().filter(|_| address.is_some());
        let coverage = match script {
            None => None,
            Some(script) => {
                self.read(move |app| Ok(app.reader.snapshot().watch(&script)?))
                    .await?
            }
        };
        let answer = Scanning {
            address,
            count: scripts.len(),
            scan_id: scan.to_string(),
            blocks_back,
            from_height: from,
            to_height: to,
            message,
            status: "scanning",
            coverage: coverage.map(|row| CoverageShape::from(&row.coverage)),
            cursor: self.wire.cursor(head),
        };
        Ok(respond::json_at(
            StatusCode::ACCEPTED,
            &answer.cursor,
            &answer,
        ))
    }

    /// The plan that is being carried out, its scan, the head after that, and the address if it was
    /// not a list.
    async fn begin_scan(
        self: &Arc<Self>,
        addresses: Vec<KnownAddress>,
        many: bool,
        asked: Asked,
    ) -> Result<(Plan, ScanId, u64, Option<String>), ApiError> {
        let _list = self.list.read().await;
        let address = addresses
            .first()
            .filter(|_| !many)
            .map(|address| address.text.clone());
        let mut plan = self
            .read(move |app| app.plan(&addresses, many, asked))
            .await?;
        let requests = std::mem::take(&mut plan.without_baseline);
        if !requests.is_empty() {
            self.indexer
                .apply(Input::Watch {
                    scripts: requests,
                    now: now_ms(),
                })
                .await?;
        }
        let (scan, head) = self.open_scan(plan.scripts.clone(), plan.range).await?;
        Ok((plan, scan, head, address))
    }

    /// Blocks the thread.
    fn plan(&self, addresses: &[KnownAddress], many: bool, asked: Asked) -> Result<Plan, ApiError> {
        let snapshot = self.reader.snapshot();
        let mut seen = HashSet::new();
        let (mut scripts, mut without_baseline) = (Vec::new(), Vec::new());
        for (place, address) in addresses.iter().enumerate() {
            let Some(row) = snapshot.watch(&address.script)? else {
                let error = ApiError::not_watched(&address.text);
                return Err(if many { error.at(place) } else { error });
            };
            if !seen.insert(address.script) {
                continue;
            }
            scripts.push(address.script);
            if !row.coverage.utxos_complete {
                without_baseline.push(WatchRequest {
                    spk: row.spk,
                    label: None,
                    depths: Vec::new(),
                    past: Past::Find,
                });
            }
        }
        let range = asked.range(tip(&snapshot)?)?;
        check_room(&snapshot)?;
        Ok(Plan {
            range,
            scripts,
            without_baseline,
        })
    }

    /// Opens a scan of those scripts that are watched: its id, and the head after that.
    pub(in crate::api) async fn open_scan(
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

    /// `GET /scans`: open ones first, newest first.
    pub(in crate::api) async fn list_scans(self: &Arc<Self>) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Scans {
            scans: Vec<Shape>,
            count: usize,
        }
        self.read(|app| {
            let snapshot = app.reader.snapshot();
            let mut order = Vec::new();
            for entry in snapshot.scans(None) {
                let (scan, row) = entry?;
                order.push((row.state != ScanState::Open, Reverse(row.created), scan));
            }
            order.sort_unstable();
            order.truncate(LISTED);
            let scans = app.shapes(&snapshot, order.into_iter().map(|(.., scan)| scan))?;
            let answer = Scans {
                count: scans.len(),
                scans,
            };
            Ok(respond::json_at(
                StatusCode::OK,
                &app.wire.cursor(snapshot.head()?),
                &answer,
            ))
        })
        .await
    }

    /// `GET /scans/{id}`
    pub(in crate::api) async fn scan(self: &Arc<Self>, id: &str) -> Result<Answer, ApiError> {
        let (scan, text) = (parse(id), id.to_owned());
        self.read(move |app| {
            let snapshot = app.reader.snapshot();
            let scan = scan.ok_or_else(|| no_such_scan(&text))?;
            let shape = app
                .shape(&snapshot, scan)?
                .ok_or_else(|| no_such_scan(&text))?;
            Ok(respond::json_at(
                StatusCode::OK,
                &app.wire.cursor(snapshot.head()?),
                &shape,
            ))
        })
        .await
    }

    /// `DELETE /scans/{id}`: what it has found stays.
    pub(in crate::api) async fn cancel_scan(
        self: &Arc<Self>,
        id: &str,
    ) -> Result<Answer, ApiError> {
        let scan = parse(id).ok_or_else(|| no_such_scan(id))?;
        let (app, text) = (self.clone(), id.to_owned());
        run_detached(async move { app.cancel(scan, &text).await }).await
    }

    async fn cancel(self: &Arc<Self>, scan: ScanId, text: &str) -> Result<Answer, ApiError> {
        let before = self.read(move |app| {
            let snapshot = app.reader.snapshot();
            Ok((
                snapshot.scan(&scan)?,
                snapshot.scan_scripts(&scan)?.unwrap_or_default(),
            ))
        });
        let (row, scripts) = before.await?;
        let row = row.ok_or_else(|| no_such_scan(text))?;
        if row.state != ScanState::Open {
            return Err(ended(scan));
        }
        let done = match self
            .indexer
            .apply(Input::CloseScan {
                scan,
                end: ScanEnd::Cancelled,
                now: now_ms(),
            })
            .await
        {
            Ok(done) => done,
            Err(InputRefused::Apply(ApplyError::NoSuchScan(_))) => return Err(ended(scan)),
            Err(refused) => return Err(refused.into()),
        };
        let shape = self
            .read(move |app| app.shape(&app.reader.snapshot(), scan))
            .await?
            .ok_or_else(|| no_such_scan(text))?;
        let notice = Notice {
            subject: scan.0,
            packet: progress::event(&shape)?,
            as_of: None,
        };
        progress::notify(self, &scripts, notice);
        Ok(respond::json_at(
            StatusCode::OK,
            &self.wire.cursor(done.head),
            &shape,
        ))
    }

    /// The first open scans, newest first, and how many are open.
    pub(in crate::api) fn open_scans(
        &self,
        snapshot: &Snapshot<'_>,
        most: usize,
    ) -> Result<(Vec<Shape>, usize), ApiError> {
        let mut order = Vec::new();
        for scan in snapshot.open_scans()? {
            let created = snapshot.scan(&scan)?.map_or(0, |row| row.created);
            order.push((Reverse(created), scan));
        }
        let count = order.len();
        order.sort_unstable();
        order.truncate(most);
        Ok((
            self.shapes(snapshot, order.into_iter().map(|(_, scan)| scan))?,
            count,
        ))
    }

    fn shapes(
        &self,
        snapshot: &Snapshot<'_>,
        scans: impl Iterator<Item = ScanId>,
    ) -> Result<Vec<Shape>, ApiError> {
        let progress: HashMap<_, _> = self
            .scans
            .borrow()
            .iter()
            .map(|progress| (progress.scan, progress.clone()))
            .collect();
        scans
            .filter_map(|scan| {
                self.shape_with(snapshot, scan, progress.get(&scan))
                    .transpose()
            })
            .collect()
    }

    /// How a scan is doing.
    fn shape(&self, snapshot: &Snapshot<'_>, scan: ScanId) -> Result<Option<Shape>, ApiError> {
        let progress = self
            .scans
            .borrow()
            .iter()
            .find(|progress| progress.scan == scan)
            .cloned();
        self.shape_with(snapshot, scan, progress.as_ref())
    }

    pub(in crate::api) fn shape_with(
        &self,
        snapshot: &Snapshot<'_>,
        scan: ScanId,
        progress: Option<&ScanProgress>,
    ) -> Result<Option<Shape>, ApiError> {
        let Some(row) = snapshot.scan(&scan)? else {
            return Ok(None);
        };
        let address = if row.scripts == 1 {
            self.address_of(snapshot, scan)?
        } else {
            None
        };
        let tip = snapshot.tip()?.map(|tip| tip.height);
        Ok(Some(Shape::new(scan, &row, address, progress, tip)))
    }

    /// The address of an open scan that has just one.
    fn address_of(
        &self,
        snapshot: &Snapshot<'_>,
        scan: ScanId,
    ) -> Result<Option<String>, ApiError> {
        let Some([script]) = snapshot
            .scan_scripts(&scan)?
            .as_deref()
            .and_then(|scripts| <[ScriptHash; 1]>::try_from(scripts).ok())
        else {
            return Ok(None);
        };
        Ok(snapshot
            .watch(&script)?
            .map(|row| address::text(&row.spk, self.wire.network)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: ScanRow = ScanRow {
        created: 1_754_336_318_173,
        updated: 1_754_336_319_000,
        state: ScanState::Open,
        from: 100,
        to: None,
        horizon: None,
        next: 100,
        scripts: 1,
        found: 0,
    };

    fn progress(next: u32, rate: Option<f64>) -> ScanProgress {
        ScanProgress {
            scan: ScanId(0xab),
            target: 299,
            next,
            running: true,
            method: Some(ScanMethod::Blocks),
            rate,
            waits_for: None,
        }
    }

    fn shape(row: &ScanRow, progress: Option<&ScanProgress>) -> Shape {
        Shape::new(ScanId(0xab), row, Some("x".to_owned()), progress, Some(300))
    }

    #[test]
    fn a_scan_looks_as_specified() {
        let row = ScanRow {
            next: 150,
            found: 7,
            ..OPEN
        };
        assert_eq!(
            json::to_text(&shape(&row, Some(&progress(166, Some(12.37))))),
            r#"{"scan_id":"00000000000000ab","status":"scanning","address":"x","address_count":1,"from_height":100,"to_height":299,"horizon":null,"height":165,"blocks_done":66,"blocks_total":200,"percent":33.0,"transactions":7,"method":"blocks","blocks_per_second":12.3,"seconds_left":11,"waits_for":null,"created":1754336318.173,"updated":1754336319.0}"#
        );
        assert_eq!(
            json::to_text(&Shape::new(
                ScanId(u64::MAX),
                &ScanRow { scripts: 2, ..OPEN },
                None,
                None,
                None
            )),
            r#"{"scan_id":"ffffffffffffffff","status":"queued","address_count":2,"from_height":100,"to_height":null,"horizon":null,"height":null,"blocks_done":0,"blocks_total":null,"percent":0.0,"transactions":0,"method":null,"blocks_per_second":null,"seconds_left":null,"waits_for":null,"created":1754336318.173,"updated":1754336319.0}"#
        );
    }

    #[test]
    fn what_it_waits_for_is_said_and_no_rate_then() {
        let waiting = ScanProgress {
            running: false,
            waits_for: Some("The node is away.".to_owned()),
            ..progress(120, Some(5.0))
        };
        let shape = shape(&ScanRow { next: 120, ..OPEN }, Some(&waiting));
        assert_eq!(
            (shape.status, shape.waits_for.as_deref()),
            ("waiting", Some("The node is away."))
        );
        assert_eq!(
            (shape.blocks_per_second, shape.seconds_left, shape.height),
            (None, None, Some(119))
        );
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let shape = super::Shape::new(
                ScanId(1),
                &OPEN,
                None,
                Some(&progress(120, Some(rate))),
                Some(300),
            );
            assert_eq!(
                (shape.blocks_per_second, shape.seconds_left),
                (None, None),
                "{rate}"
            );
        }
        let slow = super::Shape::new(
            ScanId(1),
            &OPEN,
            None,
            Some(&progress(120, Some(1e-300))),
            Some(300),
        );
        assert_eq!(slow.seconds_left, Some(u64::MAX));
    }

    #[test]
    fn percent_is_a_hundred_only_when_it_is_complete() {
        let to = |next, to, state| {
            shape(
                &ScanRow {
                    next,
                    to: Some(to),
                    state,
                    ..OPEN
                },
                None,
            )
            .percent
        };
        assert_eq!(to(100, 100_099, ScanState::Open), 0.0);
        assert_eq!(to(100_099, 100_099, ScanState::Open), 99.9);
        assert_eq!(to(100_100, 100_099, ScanState::Open), 99.9);
        assert_eq!(to(100_100, 100_099, ScanState::Complete), 100.0);
        assert_eq!(to(50_100, 100_099, ScanState::Cancelled), 50.0);
        assert_eq!(
            to(200_000, 100_099, ScanState::Open),
            99.9,
            "further than it was told to"
        );
        let whole = shape(
            &ScanRow {
                from: 0,
                next: u32::MAX,
                to: Some(u32::MAX),
                ..OPEN
            },
            None,
        );
        assert_eq!((whole.blocks_total, whole.percent), (Some(u32::MAX), 99.9));
    }

    #[test]
    fn a_scan_for_which_nothing_was_left_has_no_blocks() {
        for from in [0, 100] {
            let row = ScanRow {
                from,
                next: from,
                state: ScanState::Complete,
                ..OPEN
            };
            let shape = shape(&row, None);
            assert_eq!(
                (shape.percent, shape.blocks_done, shape.blocks_total),
                (100.0, 0, Some(0)),
                "{from}"
            );
            assert_eq!((shape.height, shape.to_height), (None, None), "{from}");
        }
        let met = shape(
            &ScanRow {
                next: 160,
                to: Some(180),
                state: ScanState::Complete,
                ..OPEN
            },
            None,
        );
        assert_eq!(
            (met.blocks_done, met.blocks_total, met.height, met.to_height),
            (60, Some(60), Some(159), Some(180))
        );
    }

    #[test]
    fn after_a_reorg_it_is_not_said_to_be_above_the_tip() {
        let at = |tip| {
            Shape::new(
                ScanId(1),
                &ScanRow { next: 131, ..OPEN },
                None,
                Some(&progress(221, None)),
                tip,
            )
            .height
        };
        assert_eq!(
            (at(Some(130)), at(Some(300)), at(None)),
            (Some(130), Some(220), Some(130))
        );
    }

    #[test]
    fn blocks_below_the_horizon_are_not_counted() {
        let row = ScanRow {
            horizon: Some(250),
            next: 250,
            ..OPEN
        };
        let shape = shape(&row, Some(&progress(255, None)));
        assert_eq!(
            (shape.from_height, shape.horizon, shape.height),
            (100, Some(250), Some(254))
        );
        assert_eq!(
            (shape.blocks_done, shape.blocks_total, shape.percent),
            (5, Some(50), 10.0)
        );
    }

    #[test]
    fn an_id_is_sixteen_lower_case_hex_digits() {
        assert_eq!(parse("00000000000000ab"), Some(ScanId(0xab)));
        assert_eq!(parse(&ScanId(u64::MAX).to_string()), Some(ScanId(u64::MAX)));
        for text in [
            "",
            "ab",
            "00000000000000AB",
            "0000000000000000ab",
            "+0000000000000ab",
            "0x000000000000ab",
            "000000000000000g",
            "é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
