//! `GET /utxos/{address}`: the unspent outputs of an address, in pages or all of them, from one
//! snapshot. All of many are read and written as the client takes them: an answer holds
//! [`PART`] of them at a time.

use bitcoin::OutPoint;
use bytes::Bytes;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::address_queries::AddressQueries;
use super::body::{AnswerBody, BodyParts};
use super::budget::PART_ROWS;
use super::respond::{self, Answer};
use crate::reads::watched;
use crate::store::{HeldSnapshot, UtxoPage};
use crate::tracker::BlockId;
use crate::wire::address::{self, KnownAddress};
use crate::wire::error::ApiError;
use crate::wire::json::{Block, CoverageShape, Utxo, to_text};
use crate::wire::request::Request;
use crate::wire::request::types::Limit;

const PAGE_DEFAULT: usize = 1000;
const PAGE_MOST: u32 = 5000;
/// Up to so many are written at once, also when all are asked for.
const SMALL: u64 = 1000;
/// Outputs of one part of an answer, of some 350 bytes each.
const PART: usize = 200;

/// `GET /utxos/{address}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListUtxos {
    include_spent: Option<bool>,
    limit: Option<Limit<PAGE_MOST>>,
    after: Option<String>,
}

impl Request for ListUtxos {
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("min_confirmations", CONFIRMATIONS),
        ("confirmations", CONFIRMATIONS),
        ("minconf", CONFIRMATIONS),
        ("page", NEXT_PAGE),
        ("offset", NEXT_PAGE),
        ("before", NEXT_PAGE),
    ];
    const OF_ADDRESS: bool = true;
}

const CONFIRMATIONS: &str = "each output says its `confirmations`, choose by that";
const NEXT_PAGE: &str = "write the `next` of the page before as `after`";

#[derive(Serialize)]
struct Utxos<'a> {
    address: &'a str,
    count: u64,
    total: u64,
    utxos: Vec<Utxo<'a>>,
    next: Option<String>,
    coverage: CoverageShape,
    tip: Option<Block>,
    cursor: String,
}

/// What is listed.
struct UtxoList {
    snapshot: HeldSnapshot,
    address: KnownAddress,
    include_spent: bool,
    tip: Option<BlockId>,
}

impl UtxoList {
    fn page(&self, after: Option<&OutPoint>, limit: usize) -> Result<UtxoPage, ApiError> {
        let (snapshot, script) = (self.snapshot.get(), &self.address.script);
        Ok(snapshot.utxos(script, self.include_spent, after, limit)?)
    }

    fn shapes<'a>(&'a self, page: &'a UtxoPage) -> impl Iterator<Item = Utxo<'a>> {
        page.utxos
            .iter()
            .map(|(outpoint, row)| Utxo::new(&self.address.text, outpoint, row, self.tip))
    }
}

/// `GET /utxos/{address}?include_spent=&limit=&after=`: in the order of their transactions' ids
/// (in the bytes' own order), which stays the same when they are confirmed; `next` is the
/// `after` of the next page.
pub async fn utxos(
    queries: &AddressQueries,
    address: &str,
    query: ListUtxos,
) -> Result<Answer, ApiError> {
    let AddressQueries {
        reads,
        encoder,
        budget,
        ..
    } = queries.clone();
    let address = address::parse(address, encoder.network)?;
    let after = query.after.map(|text| text.parse::<OutPoint>()).transpose();
    let after = after
        .map_err(|_| ApiError::invalid_parameter("after", "the \"next\" of an earlier page"))?;
    let limit = query.limit.map(Limit::get);
    let limit = limit.or(after.map(|_| PAGE_DEFAULT));
    let include_spent = query.include_spent.unwrap_or(false);
    let parts_reads = reads.clone();
    reads
        .run_long(move |reader| {
            let snapshot = reader.held_snapshot();
            let row = watched(snapshot.get(), &address)?;
            let total = match include_spent {
                true => snapshot.get().count_unspent(&address.script)?,
                false => row.utxo_count,
            };
            let (tip, head) = (snapshot.get().tip()?, snapshot.get().head()?);
            let list = UtxoList {
                snapshot,
                address,
                include_spent,
                tip,
            };
            let all = limit.is_none() && total > SMALL;
            budget.check_rows(match limit {
                _ if all => PART_ROWS,
                limit => limit.map_or(total, |limit| total.min(limit as u64)),
            })?;
            let page = match all {
                true => UtxoPage {
                    utxos: Vec::new(),
                    next: None,
                },
                false => list.page(after.as_ref(), limit.unwrap_or(usize::MAX))?,
            };
            let utxos = Utxos {
                address: &list.address.text,
                count: if all { total } else { page.utxos.len() as u64 },
                total,
                utxos: list.shapes(&page).collect(),
                next: page.next.map(|next| next.to_string()),
                coverage: CoverageShape::from(&row.coverage),
                tip: tip.map(Block::from),
                cursor: encoder.cursor(head),
            };
            let cursor = utxos.cursor.clone();
            if !all {
                return Ok(respond::json_at(StatusCode::OK, &cursor, &utxos));
            }
            let text = to_text(&utxos);
            let parts = AllUtxos::new(&text, list)?;
            let body = AnswerBody::parts(parts_reads, parts);
            Ok(respond::json_text_at(StatusCode::OK, &cursor, body))
        })
        .await
}

/// All outputs of a list, part by part.
struct AllUtxos {
    list: UtxoList,
    after: Option<OutPoint>,
    /// What is written before the first output, until it is.
    head: String,
    /// An output has been written.
    begun: bool,
    /// What is written after the last one, until it is.
    behind: Option<String>,
}

impl AllUtxos {
    /// `text`: the answer without outputs.
    fn new(text: &str, list: UtxoList) -> Result<Self, ApiError> {
        const EMPTY: &str = "\"utxos\":[]";
        let (before, behind) = text
            .split_once(EMPTY)
            .ok_or_else(|| ApiError::internal(&"an answer without a place for its outputs"))?;
        Ok(Self {
            list,
            after: None,
            head: format!("{before}\"utxos\":["),
            begun: false,
            behind: Some(format!("]{behind}")),
        })
    }
}

impl BodyParts for AllUtxos {
    fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let Some(behind) = self.behind.take() else {
            return Ok(None);
        };
        let page = self.list.page(self.after.as_ref(), PART)?;
        let mut text = std::mem::take(&mut self.head);
        for utxo in self.list.shapes(&page) {
            text.push_str(if self.begun { "," } else { "" });
            text.push_str(&to_text(&utxo));
            self.begun = true;
        }
        self.after = page.next;
        match self.after {
            Some(_) => self.behind = Some(behind),
            None => text.push_str(&behind),
        }
        Ok(Some(text.into()))
    }
}
