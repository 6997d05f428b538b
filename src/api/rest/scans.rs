//! History scans over REST: asking for them, looking at them, cancelling them.

use std::collections::HashSet;
use std::sync::Arc;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::respond::{self, Reply, WithCursor};
use crate::api::access::Concerns;
use crate::api::descriptors::Descriptors;
use crate::api::scans::{self, ScanShape, Scans};
use crate::auth::Principal;
use crate::reads::{StoreView, run_detached};
use crate::tracker::{Baseline, ScanId, ScriptHash, WatchRequest};
use crate::wire::ApiError;
use crate::wire::address::{self, KnownAddress};
use crate::wire::error::shortened;
use crate::wire::json::CoverageShape;
use crate::wire::request::Request;
use crate::wire::request::descriptors::descriptor_id;
use crate::wire::request::history::{BlocksBack, Range, RangeRequest};
use crate::wire::request::types::{Addresses, Height, Unlabelled};

/// Scans that `GET /scans` lists.
const LISTED: usize = 1000;

/// The id in a path, as we write it.
fn parse(text: &str) -> Option<ScanId> {
    let scan = u64::from_str_radix(text, 16).ok().map(ScanId)?;
    (scan.to_string() == text).then_some(scan)
}

fn no_such_scan(text: &str) -> ApiError {
    let message = format!(
        "There is no scan {}; GET /scans lists those that there are.",
        shortened(text)
    );
    ApiError::not_found("no_such_scan", message)
}

/// `POST /scan_history/{address}`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScanOne {
    /// How far to look back, in place of heights; 1000 blocks when nothing is said.
    blocks_back: Option<BlocksBack>,
    from_height: Option<Height>,
    /// Absent: up to where live watching took over.
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
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScanList {
    addresses: Option<Addresses<Unlabelled>>,
    /// In place of addresses.
    descriptor_id: Option<String>,
    /// How far to look back, in place of heights; 1000 blocks when nothing is said.
    blocks_back: Option<BlocksBack>,
    from_height: Option<Height>,
    /// Absent: up to where live watching took over.
    to_height: Option<Height>,
}

impl Request for ScanList {
    const EXAMPLE: &'static str = "{\"addresses\": [\"<address>\", …]}";
    const INSTEAD: &'static [(&'static str, &'static str)] = &[(
        "address",
        "put it into `addresses`, or into the path: POST /scan_history/<address>",
    )];

    fn concerns(&self) -> Option<String> {
        let addresses = self.addresses.as_ref()?;
        Some(address::count(addresses.count()))
    }
}

/// A history scan that is begun.
#[derive(Serialize, JsonSchema)]
pub struct BegunScan {
    /// Scripts that are to be scanned.
    count: usize,
    scan_id: String,
    /// If that was the way to say it.
    blocks_back: Option<u32>,
    from_height: u32,
    to_height: Option<u32>,
    message: String,
    status: Scanning,
}

/// It is begun.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Scanning {
    Scanning,
}

/// The same of one address.
#[derive(Serialize, JsonSchema)]
pub struct BegunAddressScan {
    address: String,
    #[serde(flatten)]
    scan: BegunScan,
    /// Absent when the address is not watched any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage: Option<CoverageShape>,
}

/// The same of a list, or of a descriptor.
#[derive(Serialize, JsonSchema)]
pub struct BegunListScan {
    #[serde(skip_serializing_if = "Option::is_none")]
    descriptor_id: Option<String>,
    #[serde(flatten)]
    scan: BegunScan,
}

/// History scans, open ones first, newest first.
#[derive(Serialize, JsonSchema)]
pub struct ScanPage {
    count: usize,
    scans: Vec<ScanShape>,
}

/// `POST /scan_history/{address}`
pub async fn scan_history(
    scans: &Arc<Scans>,
    principal: &Principal,
    address: &str,
    scan: ScanOne,
) -> Result<Reply<WithCursor<BegunAddressScan>>, ApiError> {
    let range = RangeRequest::new(scan.blocks_back, scan.from_height, scan.to_height)?;
    let address = scans.reads.address(address)?;
    let (script, text) = (address.script, address.text.clone());
    let (answer, cursor) = begin_answered(scans, principal, vec![address], false, range).await?;
    let read = move |view: &StoreView<'_>| {
        let row = view.watch(&script)?;
        let coverage = row.map(|row| view.coverage(&script, &row));
        Ok(coverage.transpose()?)
    };
    let coverage = scans.reads.run(read).await?;
    let answer = BegunAddressScan {
        address: text,
        scan: answer,
        coverage,
    };
    let accepted = StatusCode::ACCEPTED;
    Ok(respond::with_cursor(accepted, &cursor, answer))
}

/// `POST /scan_history`: one scan for all addresses, or none when one of them is not watched; or
/// one for a descriptor.
pub async fn scan_history_of_list(
    descriptors: &Arc<Descriptors>,
    principal: &Principal,
    scan: ScanList,
    concerns: &Concerns,
) -> Result<Reply<WithCursor<BegunListScan>>, ApiError> {
    let scans = &descriptors.scans;
    let listed = match (scan.addresses, scan.descriptor_id) {
        (Some(listed), None) => listed,
        (Some(_), Some(_)) => {
            let what = "left out beside \"addresses\": each has a scan of its own";
            return Err(ApiError::invalid_field("descriptor_id", what));
        }
        (None, Some(id)) => {
            let id = descriptor_id(&id)?;
            let range = RangeRequest::new(scan.blocks_back, scan.from_height, scan.to_height)?;
            let (count, range, scan, head) = descriptors.scan_history(id, range).await?;
            // It was found, and is no key that somebody sent by mistake.
            let _ = concerns.set(id.short());
            let answer = BegunListScan {
                descriptor_id: Some(id.to_string()),
                scan: answer(count, range, scan),
            };
            let cursor = scans.reads.encoder.cursor(head);
            return Ok(respond::with_cursor(StatusCode::ACCEPTED, &cursor, answer));
        }
        (None, None) => {
            let example = format!("{} or {{\"descriptor_id\": \"<id>\"}}", ScanList::EXAMPLE);
            return Err(ApiError::missing_field("addresses", &example));
        }
    };
    let parse = move |view: &StoreView<'_>| {
        let parsed = listed.parse(view.encoder.network)?;
        Ok(parsed.into_iter().map(|(address, _)| address).collect())
    };
    let addresses = scans.reads.run_long(parse).await?;
    let range = RangeRequest::new(scan.blocks_back, scan.from_height, scan.to_height)?;
    let (scan, cursor) = begin_answered(scans, principal, addresses, true, range).await?;
    let answer = BegunListScan {
        descriptor_id: None,
        scan,
    };
    let accepted = StatusCode::ACCEPTED;
    Ok(respond::with_cursor(accepted, &cursor, answer))
}

/// `is_list`: it asked for a list. The answer, and its cursor.
async fn begin_answered(
    scans: &Arc<Scans>,
    principal: &Principal,
    addresses: Vec<KnownAddress>,
    is_list: bool,
    range: RangeRequest,
) -> Result<(BegunScan, String), ApiError> {
    let (owned, principal) = (scans.clone(), principal.clone());
    let begun =
        run_detached(async move { begin(&owned, &principal, addresses, is_list, range).await });
    let (count, range, scan, head) = begun.await?;
    let cursor = scans.reads.encoder.cursor(head);
    Ok((answer(count, range, scan), cursor))
}

/// `count`: scripts that are to be scanned.
fn answer(count: usize, range: Range, scan: ScanId) -> BegunScan {
    let Range {
        blocks_back,
        from,
        to,
    } = range;
    let end = to.map_or_else(
        || "where it is covered already".to_owned(),
        |to| format!("block {to}"),
    );
    BegunScan {
        count,
        scan_id: scan.to_string(),
        blocks_back,
        from_height: from,
        to_height: to,
        message: format!(
            "Blocks from {from} up to {end} are to be scanned; GET /scans/{scan} says how far it is."
        ),
        status: Scanning::Scanning,
    }
}

/// How many scripts are to be scanned, over which heights, the scan, and the head after that.
async fn begin(
    scans: &Scans,
    principal: &Principal,
    addresses: Vec<KnownAddress>,
    is_list: bool,
    range: RangeRequest,
) -> Result<(usize, Range, ScanId, u64), ApiError> {
    let _list = scans.watchlist.hold().await;
    let planned = scans.reads.run_rows(addresses.len(), move |view| {
        let (scripts, without_baseline) = plan(view, &addresses, is_list)?;
        let range = scans::range_of(view, range)?;
        Ok((range, scripts, without_baseline))
    });
    let (range, scripts, without_baseline) = planned.await?;
    if !without_baseline.is_empty() {
        scans.watchlist.watch(principal, without_baseline).await?;
    }
    let count = scripts.len();
    let (scan, done) = scans.open(scripts, range).await?;
    Ok((count, range, scan, done.head))
}

/// The scripts that are to be scanned, and those of them that need their balance first.
fn plan(
    view: &StoreView<'_>,
    addresses: &[KnownAddress],
    is_list: bool,
) -> Result<(Vec<ScriptHash>, Vec<WatchRequest>), ApiError> {
    let mut seen = HashSet::new();
    let (mut scripts, mut without_baseline) = (Vec::new(), Vec::new());
    for (place, address) in addresses.iter().enumerate() {
        let row = view.watched(address).map_err(|error| match is_list {
            true => error.at("addresses", place),
            false => error,
        })?;
        if !seen.insert(address.script) {
            continue;
        }
        scripts.push(address.script);
        if !row.coverage.utxos_complete {
            without_baseline.push(WatchRequest {
                spk: row.spk,
                label: None,
                depths: Vec::new(),
                baseline: Baseline::IfMissing,
            });
        }
    }
    Ok((scripts, without_baseline))
}

/// `GET /scans`: open ones first, newest first.
pub async fn list_scans(scans: &Arc<Scans>) -> Result<Reply<ScanPage>, ApiError> {
    let known = scans.clone();
    let read = scans.reads.run_long(move |view| {
        let scans = known.all(view, LISTED)?;
        let list = ScanPage {
            count: scans.len(),
            scans,
        };
        Ok(respond::ok_at(&view.cursor()?, &list))
    });
    read.await
}

/// `GET /scans/{id}`
pub async fn scan(scans: &Scans, id: &str) -> Result<Reply<ScanShape>, ApiError> {
    let scan = parse(id).ok_or_else(|| no_such_scan(id))?;
    let progress = scans.progress_of(scan);
    let read = scans.reads.run(move |view| {
        let shape = scans::shape(view, scan, progress.as_ref())?;
        Ok(shape.map(|shape| (shape, view.cursor())))
    });
    let (shape, cursor) = read.await?.ok_or_else(|| no_such_scan(id))?;
    Ok(respond::ok_at(&cursor?, &shape))
}

/// `DELETE /scans/{id}`: what it has found stays.
pub async fn cancel_scan(scans: &Arc<Scans>, id: &str) -> Result<Reply<ScanShape>, ApiError> {
    let scan = parse(id).ok_or_else(|| no_such_scan(id))?;
    let owned = scans.clone();
    let cancelled = run_detached(async move { owned.cancel(scan).await });
    let (shape, head) = cancelled.await?.ok_or_else(|| no_such_scan(id))?;
    let cursor = scans.reads.encoder.cursor(head);
    Ok(respond::ok_at(&cursor, &shape))
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
