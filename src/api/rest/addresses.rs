//! `GET /addresses`: the watch list, in pages.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::budget::Budget;
use super::respond::{self, Reply, WithCursor};
use crate::reads::{Reads, StoreView};
use crate::wire::ApiError;
use crate::wire::json::{Block, Btc, CoverageShape, OwnerShape, seconds};
use crate::wire::request::Request;
use crate::wire::request::types::Limit;

const PAGE_DEFAULT: usize = 1000;
const PAGE_MOST: u32 = 10_000;

/// `GET /addresses`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListAddresses {
    /// 1000 when absent.
    limit: Option<Limit<PAGE_MOST>>,
    /// The `next` of the page before.
    after: Option<String>,
}

/// A page of the watch list, in the order of script hashes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AddressPage {
    addresses: Vec<WatchedAddress>,
    count: usize,
    /// On all pages.
    total: u64,
    /// The `after` of the next page; `null` on the last one.
    next: Option<String>,
    tip: Option<Block>,
}

/// An address that is watched. Amounts are in satoshi.
#[derive(Debug, Serialize, JsonSchema)]
struct WatchedAddress {
    address: String,
    label: String,
    /// The descriptors that have it, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    owners: Vec<OwnerShape>,
    /// Seconds since the Unix epoch.
    added: f64,
    confirmed_balance: i64,
    confirmed_balance_btc: Btc,
    /// What the mempool adds to the confirmed balance, or takes from it.
    unconfirmed_balance: i64,
    unconfirmed_balance_btc: Btc,
    /// Confirmed and unconfirmed together.
    balance: i64,
    balance_btc: Btc,
    utxo_count: u64,
    transaction_count: u64,
    /// Seconds since the Unix epoch.
    last_updated: f64,
    /// Depths that are told.
    confirmations: Vec<u8>,
    coverage: CoverageShape,
}

impl Request for ListAddresses {
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("page", "write the `next` of the page before as `after`"),
        ("offset", "write the `next` of the page before as `after`"),
    ];
}

/// `GET /addresses?limit=&after=`: in the order of their script hashes; `next` is the `after`
/// of the next page.
pub async fn addresses(
    reads: &Reads,
    budget: &Budget,
    query: ListAddresses,
) -> Result<Reply<WithCursor<AddressPage>>, ApiError> {
    let limit = query.limit.map_or(PAGE_DEFAULT, Limit::get);
    let budget = budget.clone();
    let after = query.after.map(|text| reads.address(&text)).transpose()?;
    let read = move |view: &StoreView<'_>| {
        let rows = view.watches(after.as_ref().map(|address| &address.script), limit)?;
        budget.check_rows(rows.len() as u64)?;
        let shapes = rows.iter().map(|(script, row)| {
            let (balance, total) = (row.balance, row.balance.total());
            Ok(WatchedAddress {
                address: view.address_of(&row.spk),
                label: row.label.clone(),
                owners: row.derivations.iter().map(OwnerShape::new).collect(),
                added: seconds(row.added),
                confirmed_balance: balance.confirmed,
                confirmed_balance_btc: Btc(balance.confirmed),
                unconfirmed_balance: balance.unconfirmed,
                unconfirmed_balance_btc: Btc(balance.unconfirmed),
                balance: total,
                balance_btc: Btc(total),
                utxo_count: row.utxo_count,
                transaction_count: row.tx_count,
                last_updated: seconds(row.updated),
                confirmations: row.depths.clone(),
                coverage: view.coverage(script, row)?,
            })
        });
        let last = rows.last().filter(|_| rows.len() == limit);
        let page = AddressPage {
            addresses: shapes.collect::<Result<Vec<_>, ApiError>>()?,
            count: rows.len(),
            total: view.counts()?.addresses,
            next: last.map(|(_, row)| view.address_of(&row.spk)),
            tip: view.tip()?.map(Block::from),
        };
        Ok(respond::with_cursor(StatusCode::OK, &view.cursor()?, page))
    };
    reads.run_long(read).await
}
