//! History scans over REST: asking for them, looking at them, cancelling them.

use std::collections::HashSet;
use std::sync::Arc;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::respond::{self, Answer};
use crate::api::scans::{self, ScanShape, Scans};
use crate::reads::run_detached;
use crate::store::Snapshot;
use crate::tracker::{Past, ScanId, ScriptHash, WatchRequest};
use crate::wire::ApiError;
use crate::wire::address::{self, KnownAddress};
use crate::wire::error::shortened;
use crate::wire::json::CoverageShape;
use crate::wire::request::Request;
use crate::wire::request::history::{BlocksBack, Range, RangeRequest};
use crate::wire::request::types::{Addresses, Height, Unlabelled};

/// Scans that `GET /scans` lists.
const LISTED: usize = 1000;

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

/// Whose history is to be scanned.
struct ScanRequest {
    addresses: Vec<KnownAddress>,
    /// It asked for a list, and is answered with one.
    is_list: bool,
    range: RangeRequest,
}

/// `POST /scan_history/{address}`
pub async fn scan_history(
    scans: &Arc<Scans>,
    address: &str,
    scan: ScanOne,
) -> Result<Answer, ApiError> {
    let range = RangeRequest::new(scan.blocks_back, scan.from_height, scan.to_height)?;
    let request = ScanRequest {
        addresses: vec![address::parse(address, scans.encoder.network)?],
        is_list: false,
        range,
    };
    begin_answered(scans, request).await
}

/// `POST /scan_history`: one scan for all addresses, or none when one of them is not watched.
pub async fn scan_history_of_list(scans: &Arc<Scans>, scan: ScanList) -> Result<Answer, ApiError> {
    let (listed, network) = (scan.addresses, scans.encoder.network);
    let addresses = scans.reads.run_long(move |_| listed.parse(network)).await?;
    let range = RangeRequest::new(scan.blocks_back, scan.from_height, scan.to_height)?;
    let request = ScanRequest {
        addresses,
        is_list: true,
        range,
    };
    begin_answered(scans, request).await
}

async fn begin_answered(scans: &Arc<Scans>, request: ScanRequest) -> Result<Answer, ApiError> {
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
    let one = request
        .addresses
        .first()
        .filter(|_| !request.is_list)
        .cloned();
    let begun = run_detached({
        let scans = scans.clone();
        async move { begin(&scans, request).await }
    });
    let (Plan { range, scripts, .. }, scan, head) = begun.await?;
    let Range {
        blocks_back,
        from,
        to,
    } = range;
    let end = to.map_or_else(
        || "where it is covered already".to_owned(),
        |to| format!("block {to}"),
    );
    let message =
        format!("Scanning blocks from {from} up to {end}; GET /scans/{scan} says how far it is.");
    let row = match &one {
        None => None,
        Some(KnownAddress { script, .. }) => {
            let script = *script;
            let read = scans
                .reads
                .snapshot(move |snapshot| Ok(snapshot.watch(&script)?));
            read.await?
        }
    };
    let answer = Scanning {
        address: one.map(|address| address.text),
        count: scripts.len(),
        scan_id: scan.to_string(),
        blocks_back,
        from_height: from,
        to_height: to,
        message,
        status: "scanning",
        coverage: row.map(|row| CoverageShape::from(&row.coverage)),
        cursor: scans.encoder.cursor(head),
    };
    Ok(respond::json_at(
        StatusCode::ACCEPTED,
        &answer.cursor,
        &answer,
    ))
}

/// What is to be scanned, and the scripts of it that need their balance first.
struct Plan {
    range: Range,
    scripts: Vec<ScriptHash>,
    without_baseline: Vec<WatchRequest>,
}

/// The plan that is being carried out, its scan, and the head after that.
async fn begin(scans: &Scans, request: ScanRequest) -> Result<(Plan, ScanId, u64), ApiError> {
    let _list = scans.watchlist.hold().await;
    let planned = scans
        .reads
        .run_long(move |reader| plan(&reader.snapshot(), &request));
    let mut plan = planned.await?;
    let requests = std::mem::take(&mut plan.without_baseline);
    if !requests.is_empty() {
        scans.watchlist.watch(requests).await?;
    }
    let (scan, head) = scans.open(plan.scripts.clone(), plan.range).await?;
    Ok((plan, scan, head))
}

fn plan(snapshot: &Snapshot<'_>, request: &ScanRequest) -> Result<Plan, ApiError> {
    let mut seen = HashSet::new();
    let (mut scripts, mut without_baseline) = (Vec::new(), Vec::new());
    for (place, address) in request.addresses.iter().enumerate() {
        let Some(row) = snapshot.watch(&address.script)? else {
            let error = ApiError::not_watched(&address.text);
            return Err(match request.is_list {
                true => error.at(place),
                false => error,
            });
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
    let range = request.range.range(scans::tip(snapshot)?)?;
    scans::check_room(snapshot)?;
    Ok(Plan {
        range,
        scripts,
        without_baseline,
    })
}

/// `GET /scans`: open ones first, newest first.
pub async fn list_scans(scans: &Arc<Scans>) -> Result<Answer, ApiError> {
    #[derive(Serialize)]
    struct ScanPage {
        scans: Vec<ScanShape>,
        count: usize,
    }
    let known = scans.clone();
    let read = scans.reads.run_long(move |reader| {
        let snapshot = reader.snapshot();
        let scans = known.all(&snapshot, LISTED)?;
        let answer = ScanPage {
            count: scans.len(),
            scans,
        };
        let cursor = known.encoder.cursor(snapshot.head()?);
        Ok(respond::json_at(StatusCode::OK, &cursor, &answer))
    });
    read.await
}

/// `GET /scans/{id}`
pub async fn scan(scans: &Scans, id: &str) -> Result<Answer, ApiError> {
    let scan = parse(id).ok_or_else(|| no_such_scan(id))?;
    let (encoder, progress) = (scans.encoder.clone(), scans.progress_of(scan));
    let read = scans.reads.snapshot(move |snapshot| {
        let shape = scans::shape(snapshot, &encoder, scan, progress.as_ref())?;
        Ok((shape, encoder.cursor(snapshot.head()?)))
    });
    let (shape, cursor) = read.await?;
    let shape = shape.ok_or_else(|| no_such_scan(id))?;
    Ok(respond::json_at(StatusCode::OK, &cursor, &shape))
}

/// `DELETE /scans/{id}`: what it has found stays.
pub async fn cancel_scan(scans: &Arc<Scans>, id: &str) -> Result<Answer, ApiError> {
    let scan = parse(id).ok_or_else(|| no_such_scan(id))?;
    let cancelled = run_detached({
        let scans = scans.clone();
        async move { scans.cancel(scan).await }
    });
    let (shape, head) = cancelled.await?.ok_or_else(|| no_such_scan(id))?;
    let cursor = scans.encoder.cursor(head);
    Ok(respond::json_at(StatusCode::OK, &cursor, &shape))
}

#[cfg(test)]
mod tests {
    use super::*;

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
