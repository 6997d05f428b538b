//! Descriptors over REST.
//!
//! # Laws
//!
//! * The text of a descriptor is in one request, `POST /descriptors`; all others name it by its id,
//!   so that it stands in no path and no log.
//! * What is told of a descriptor is told from one snapshot, like what is told of an address.
//!
//! ```text
//! mod        add, list, look at, take off
//! queries    balance, transactions, utxos: as of an address
//! addresses  its addresses, and the next one to give away
//! ```

pub mod addresses;
pub mod queries;

use std::sync::Arc;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::budget::Budget;
use super::respond::{self, Reply, WithCursor};
use crate::api::access::Concerns;
use crate::api::descriptors::{Addition, Descriptors};
use crate::auth::Principal;
use crate::reads::{Reads, StoreView};
use crate::tracker::DescriptorId;
use crate::wire::ApiError;
use crate::wire::json::{Block, DescriptorShape, descriptor_shape};
use crate::wire::request::Request;
use crate::wire::request::descriptors::{DescriptorText, GapLimit, IndexRange, descriptor_id};
use crate::wire::request::history::HistoryOption;
use crate::wire::request::types::{Depths, Label, Limit, Whole};

const PAGE_DEFAULT: usize = 100;
const PAGE_MOST: u32 = 1000;

/// `POST /descriptors`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddDescriptor {
    descriptor: DescriptorText,
    label: Option<Label>,
    gap_limit: Option<GapLimit>,
    range: Option<IndexRange>,
    history: Option<HistoryOption>,
    confirmations: Option<Depths>,
}

impl Request for AddDescriptor {
    const EXAMPLE: &'static str = "{\"descriptor\": \"wpkh(<xpub>/<0;1>/*)\"}";
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("desc", "write it as `descriptor`"),
        ("xpub", "write it as `descriptor`"),
        ("from_height", "write `\"history\": {\"from_height\": 0}`"),
        (
            "internal",
            "write both keychains into one descriptor: wpkh(<xpub>/<0;1>/*)",
        ),
    ];
}

/// `GET /descriptors`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListDescriptors {
    /// 100 when absent.
    limit: Option<Limit<PAGE_MOST>>,
    /// The `next` of the page before.
    after: Option<String>,
}

impl Request for ListDescriptors {
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("page", "write the `next` of the page before as `after`"),
        ("offset", "write the `next` of the page before as `after`"),
    ];
}

/// A descriptor that is watched now.
#[derive(Serialize, JsonSchema)]
pub struct AddedDescriptor {
    #[serde(flatten)]
    shape: DescriptorShape,
    message: String,
    /// The history scan that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    scan_id: Option<String>,
}

/// A page of descriptors, in the order of their ids.
#[derive(Serialize, JsonSchema)]
pub struct DescriptorPage {
    descriptors: Vec<DescriptorShape>,
    count: usize,
    /// On all pages.
    total: u64,
    /// The `after` of the next page; `null` on the last one.
    next: Option<String>,
    tip: Option<Block>,
}

/// A descriptor that is not watched any more.
#[derive(Serialize, JsonSchema)]
pub struct RemovedDescriptor {
    descriptor_id: String,
    message: &'static str,
}

/// How a descriptor looks.
fn shape(view: &StoreView<'_>, id: DescriptorId) -> Result<DescriptorShape, ApiError> {
    let (row, wallet) = view.wallet_rows(&id)?;
    let coverage = view.descriptor_coverage(&id, &row, &wallet)?;
    Ok(descriptor_shape(id, &row, &wallet, coverage))
}

/// `POST /descriptors`: 201 for a new one, 200 for one that is there, which only gets what is new.
/// Its window only grows: a lower `gap_limit` or `range` than it has leaves it as it is, since who
/// asked for the greater may count on it. The answer has what holds, and says so of the gap limit.
pub async fn add_descriptor(
    descriptors: &Arc<Descriptors>,
    principal: &Principal,
    asked: AddDescriptor,
    concerns: &Concerns,
) -> Result<Reply<WithCursor<AddedDescriptor>>, ApiError> {
    let wallet = descriptors.parsing.descriptor(asked.descriptor).await?;
    let _ = concerns.set(DescriptorId(wallet.id()).short());
    let gap_limit = asked.gap_limit.map(|Whole(limit)| limit);
    let addition = Addition {
        label: asked.label.map(|Label(label)| label),
        gap_limit,
        last: asked.range.map(|range| range.last),
        depths: asked.confirmations.unwrap_or_default().0,
        history: asked.history,
    };
    let added = descriptors.add(principal, &wallet, addition).await?;
    let reads = &descriptors.scans.reads;
    let read = reads.run(move |view| {
        let (row, _) = view.wallet_rows(&added.id)?;
        Ok((shape(view, added.id)?, row.gap_limit))
    });
    let (shape, holds) = read.await?;
    let (status, message) = match added.is_new {
        true => (
            StatusCode::CREATED,
            "Watching this descriptor from now on.".to_owned(),
        ),
        false => (StatusCode::OK, watched_already(gap_limit, holds)),
    };
    let answer = AddedDescriptor {
        shape,
        message,
        scan_id: added.scan.map(|scan| scan.to_string()),
    };
    let cursor = reads.encoder.cursor(added.head);
    Ok(respond::with_cursor(status, &cursor, answer))
}

fn watched_already(asked: Option<u32>, holds: u32) -> String {
    let known = "This descriptor was watched already";
    match asked.filter(|asked| *asked < holds) {
        Some(_) => format!("{known}, with a gap limit of {holds}, which stays: it only grows."),
        None => format!("{known}."),
    }
}

/// `GET /descriptors?limit=&after=`: in the order of their ids; `next` is the `after` of the next
/// page.
pub async fn list_descriptors(
    reads: &Reads,
    budget: &Budget,
    query: ListDescriptors,
) -> Result<Reply<WithCursor<DescriptorPage>>, ApiError> {
    let limit = query.limit.map_or(PAGE_DEFAULT, Limit::get);
    let after = query.after.map(|text| descriptor_id(&text)).transpose();
    let after = after
        .map_err(|_| ApiError::invalid_parameter("after", "the \"next\" of an earlier page"))?;
    let budget = budget.clone();
    let read = move |view: &StoreView<'_>| {
        let rows = view.descriptors(after.as_ref(), limit)?;
        budget.check_rows(rows.len() as u64)?;
        let shapes = rows.iter().map(|(id, _)| shape(view, *id));
        let last = rows.last().filter(|_| rows.len() == limit);
        let page = DescriptorPage {
            descriptors: shapes.collect::<Result<Vec<_>, _>>()?,
            count: rows.len(),
            total: view.descriptor_count()?,
            next: last.map(|(id, _)| id.to_string()),
            tip: view.tip()?.map(Block::from),
        };
        Ok(respond::with_cursor(StatusCode::OK, &view.cursor()?, page))
    };
    reads.run_long(read).await
}

/// `GET /descriptors/{id}`
pub async fn descriptor(
    reads: &Reads,
    id: &str,
) -> Result<Reply<WithCursor<DescriptorShape>>, ApiError> {
    let id = descriptor_id(id)?;
    let read = move |view: &StoreView<'_>| {
        let shape = shape(view, id)?;
        Ok(respond::with_cursor(StatusCode::OK, &view.cursor()?, shape))
    };
    reads.run(read).await
}

/// `DELETE /descriptors/{id}`: addresses of it that were added by themselves stay watched.
pub async fn remove_descriptor(
    descriptors: &Descriptors,
    id: &str,
) -> Result<Reply<WithCursor<RemovedDescriptor>>, ApiError> {
    let id = descriptor_id(id)?;
    let head = descriptors.remove(id).await?;
    let message = "This descriptor is not watched any more, nor are its addresses but for those that were added by themselves or are of another one. The addresses that it gave away are forgotten: added again, it begins anew.";
    let removed = RemovedDescriptor {
        descriptor_id: id.to_string(),
        message,
    };
    let cursor = descriptors.scans.reads.encoder.cursor(head);
    Ok(respond::with_cursor(StatusCode::OK, &cursor, removed))
}
