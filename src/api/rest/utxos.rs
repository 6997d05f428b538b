//! `GET /utxos/{address}`: the unspent outputs of an address (or a descriptor), in pages or all of
//! them, from one snapshot. All of many are read and written as the client takes them: an answer
//! holds [`PART`] of them at a time.

use bitcoin::{Network, OutPoint};
use bytes::Bytes;
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::body::AnswerBody;
use super::budget::{Budget, PART_ROWS};
use super::respond::{self, Reply};
use crate::reads::{Reads, StoreView, descriptor_coverage, wallet_rows};
use crate::store::{self, HeldSnapshot, Snapshot};
use crate::tracker::{BlockId, DescriptorId, OutputRow};
use crate::wire::address::{self, KnownAddress};
use crate::wire::error::ApiError;
use crate::wire::json::{BalanceOf, Block, CoverageShape, Utxo, to_raw, to_text, utxo_shape};
use crate::wire::request::Request;
use crate::wire::request::types::Limit;

const PAGE_DEFAULT: usize = 1000;
const PAGE_MOST: u32 = 5000;
/// Up to so many are written at once, also when all are asked for.
const SMALL: u64 = 1000;
/// Outputs of one part of an answer, of some 350 bytes each.
const PART: usize = 200;

/// `GET /utxos/{address}`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListUtxos {
    /// Those too that a mempool transaction spends.
    include_spent: Option<bool>,
    /// All of them without `limit` and `after`.
    limit: Option<Limit<PAGE_MOST>>,
    /// The `next` of the page before.
    after: Option<String>,
}

/// Unspent outputs, in the order of the bytes of their transactions' ids.
#[derive(Serialize, JsonSchema)]
pub struct UtxoPage {
    #[serde(flatten)]
    of: BalanceOf,
    count: u64,
    /// On all pages.
    total: u64,
    #[schemars(with = "Vec<Utxo<'static>>")]
    utxos: Vec<Box<RawValue>>,
    /// The `after` of the next page; `null` on the last one.
    next: Option<String>,
    coverage: CoverageShape,
    tip: Option<Block>,
    /// It includes every event up to this one.
    cursor: String,
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
}

const CONFIRMATIONS: &str = "each output says its `confirmations`, choose by that";
const NEXT_PAGE: &str = "write the `next` of the page before as `after`";

/// Whose outputs are asked for.
pub enum UtxosOf {
    Address(KnownAddress),
    Descriptor(DescriptorId),
}

/// Whose outputs are listed, as answers name them, and how many there are.
struct Owner {
    of: BalanceOf,
    total: u64,
    coverage: CoverageShape,
}

impl UtxosOf {
    fn owner(&self, at: &Snapshot<'_>, include_spent: bool) -> Result<Owner, ApiError> {
        Ok(match self {
            Self::Address(address) => {
                let row = at.watch(&address.script)?;
                let row = row.ok_or_else(|| ApiError::not_watched(&address.text))?;
                Owner {
                    of: BalanceOf::Address {
                        address: address.text.clone(),
                    },
                    total: match include_spent {
                        true => at.count_unspent(&address.script)?,
                        false => row.utxo_count,
                    },
                    coverage: CoverageShape::of_address(&row, at.is_in_scan(&address.script)?),
                }
            }
            Self::Descriptor(id) => {
                let (row, wallet) = wallet_rows(at, id)?;
                Owner {
                    of: BalanceOf::Descriptor {
                        descriptor_id: id.to_string(),
                    },
                    total: match include_spent {
                        true => at.count_owned(id)?,
                        false => row.utxo_count,
                    },
                    coverage: descriptor_coverage(at, id, &row, &wallet)?,
                }
            }
        })
    }
}

/// What is listed.
struct UtxoList {
    snapshot: HeldSnapshot,
    of: UtxosOf,
    network: Network,
    include_spent: bool,
    tip: Option<BlockId>,
}

/// A part of it: each output as JSON.
struct ShapedPage {
    utxos: Vec<Box<RawValue>>,
    next: Option<OutPoint>,
}

impl UtxoList {
    fn page(&self, after: Option<&OutPoint>, limit: usize) -> Result<ShapedPage, ApiError> {
        let (snapshot, spent) = (self.snapshot.get(), self.include_spent);
        let store::UtxoPage { utxos, next } = match &self.of {
            UtxosOf::Address(address) => snapshot.utxos(&address.script, spent, after, limit)?,
            UtxosOf::Descriptor(id) => snapshot.descriptor_utxos(id, spent, after, limit)?,
        };
        let shapes = utxos
            .iter()
            .map(|(outpoint, row)| self.shape(outpoint, row));
        Ok(ShapedPage {
            utxos: shapes.collect::<Result<_, _>>()?,
            next,
        })
    }

    fn shape(&self, outpoint: &OutPoint, row: &OutputRow) -> Result<Box<RawValue>, ApiError> {
        let id = match &self.of {
            UtxosOf::Address(address) => {
                return Ok(to_raw(&utxo_shape(
                    &address.text,
                    None,
                    outpoint,
                    row,
                    self.tip,
                )));
            }
            UtxosOf::Descriptor(id) => id,
        };
        let watch = self.snapshot.get().watch(&row.script)?;
        let watch = watch.ok_or_else(|| ApiError::internal(&"an output without its script"))?;
        // The first, if it stands in several.
        let mut places = watch.derivations.iter();
        let place = places.find(|place| place.descriptor == *id);
        let address = address::text(&watch.spk, self.network);
        Ok(to_raw(&utxo_shape(
            &address, place, outpoint, row, self.tip,
        )))
    }
}

/// `GET /utxos/{address}?include_spent=&limit=&after=`: in the order of their transactions' ids
/// (in the bytes' own order), which stays the same when they are confirmed; `next` is the
/// `after` of the next page.
pub async fn utxos(
    reads: &Reads,
    budget: &Budget,
    address: &str,
    query: ListUtxos,
) -> Result<Reply<UtxoPage>, ApiError> {
    let of = UtxosOf::Address(reads.address(address)?);
    list_utxos(reads, budget, of, query).await
}

/// The same of an address or a descriptor.
pub async fn list_utxos(
    reads: &Reads,
    budget: &Budget,
    of: UtxosOf,
    query: ListUtxos,
) -> Result<Reply<UtxoPage>, ApiError> {
    let after = query.after.map(|text| text.parse::<OutPoint>()).transpose();
    let after = after
        .map_err(|_| ApiError::invalid_parameter("after", "the \"next\" of an earlier page"))?;
    let limit = query.limit.map(Limit::get);
    let limit = limit.or(after.map(|_| PAGE_DEFAULT));
    let include_spent = query.include_spent.unwrap_or(false);
    let (parts_reads, budget) = (reads.clone(), budget.clone());
    let read = move |view: &StoreView<'_>| {
        let held = view.reader.held_snapshot();
        let snapshot = held.get();
        let Owner {
            of: named,
            total,
            coverage,
        } = of.owner(snapshot, include_spent)?;
        let (tip, cursor) = (snapshot.tip()?, view.encoder.cursor(snapshot.head()?));
        let list = UtxoList {
            snapshot: held,
            of,
            network: view.encoder.network,
            include_spent,
            tip,
        };
        let all = limit.is_none() && total > SMALL;
        budget.check_rows(match limit {
            _ if all => PART_ROWS,
            limit => limit.map_or(total, |limit| total.min(limit as u64)),
        })?;
        let page = match all {
            true => ShapedPage {
                utxos: Vec::new(),
                next: None,
            },
            false => list.page(after.as_ref(), limit.unwrap_or(usize::MAX))?,
        };
        let text = to_text(&UtxoPage {
            of: named,
            count: if all { total } else { page.utxos.len() as u64 },
            total,
            utxos: page.utxos,
            next: page.next.map(|next| next.to_string()),
            coverage,
            tip: tip.map(Block::from),
            cursor: cursor.clone(),
        });
        let body = match all {
            true => AnswerBody::parts(parts_reads, all_utxos(&text, list)?),
            false => AnswerBody::whole(text),
        };
        let mut answer = respond::json_text(StatusCode::OK, body);
        respond::set_cursor(&mut answer, &cursor);
        Ok(Reply::written(answer))
    };
    reads.run_long(read).await
}

/// All outputs of a list, part by part. `text`: the answer without outputs.
fn all_utxos(
    text: &str,
    list: UtxoList,
) -> Result<impl Iterator<Item = Result<Bytes, ApiError>> + use<>, ApiError> {
    const EMPTY: &str = "\"utxos\":[]";
    let (before, behind) = text
        .split_once(EMPTY)
        .ok_or_else(|| ApiError::internal(&"an answer without a place for its outputs"))?;
    let mut text = format!("{before}\"utxos\":[");
    let mut behind = Some(format!("]{behind}"));
    let (mut after, mut comma) = (None, "");
    Ok(std::iter::from_fn(move || {
        let last = behind.take()?;
        let page = match list.page(after.as_ref(), PART) {
            Ok(page) => page,
            Err(error) => return Some(Err(error)),
        };
        for utxo in page.utxos {
            text.push_str(std::mem::replace(&mut comma, ","));
            text.push_str(utxo.get());
        }
        after = page.next;
        match after {
            Some(_) => behind = Some(last),
            None => text.push_str(&last),
        }
        Some(Ok(std::mem::take(&mut text).into()))
    }))
}
