//! `GET /addresses`: the watch list, in pages.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::address_queries::AddressQueries;
use super::respond::{self, Answer};
use crate::tracker::WatchRow;
use crate::wire::ApiError;
use crate::wire::address;
use crate::wire::json::{self, Block, Btc, CoverageShape};
use crate::wire::request::Request;
use crate::wire::request::types::Limit;

const PAGE_DEFAULT: usize = 1000;
const PAGE_MOST: u32 = 10_000;

/// `GET /addresses`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListAddresses {
    limit: Option<Limit<PAGE_MOST>>,
    after: Option<String>,
}

impl Request for ListAddresses {
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("page", "write the `next` of the page before as `after`"),
        ("offset", "write the `next` of the page before as `after`"),
    ];
}

/// `GET /addresses?limit=&after=`: in the order of their script hashes; `next` is the `after`
/// of the next page.
pub async fn addresses(queries: &AddressQueries, query: ListAddresses) -> Result<Answer, ApiError> {
    #[derive(Serialize)]
    struct Watched {
        address: String,
        label: String,
        added: f64,
        confirmed_balance: i64,
        confirmed_balance_btc: Btc,
        unconfirmed_balance: i64,
        unconfirmed_balance_btc: Btc,
        balance: i64,
        balance_btc: Btc,
        utxo_count: u64,
        transaction_count: u64,
        last_updated: f64,
        confirmations: Vec<u8>,
        coverage: CoverageShape,
    }
    #[derive(Serialize)]
    struct AddressPage<'a> {
        addresses: Vec<Watched>,
        count: usize,
        total: u64,
        next: Option<String>,
        tip: Option<Block>,
        cursor: &'a str,
    }
    let limit = query.limit.map_or(PAGE_DEFAULT, Limit::get);
    let AddressQueries {
        reads,
        encoder,
        budget,
        ..
    } = queries.clone();
    let after = query
        .after
        .map(|text| address::parse(&text, encoder.network))
        .transpose()?;
    reads
        .run_long(move |reader| {
            let snapshot = reader.snapshot();
            let rows = snapshot.watches(after.as_ref().map(|address| &address.script), limit)?;
            budget.check_rows(rows.len() as u64)?;
            let shape = |row: &WatchRow| Watched {
                address: address::text(&row.spk, encoder.network),
                label: row.label.clone(),
                added: json::seconds(row.added),
                confirmed_balance: row.balance.confirmed,
                confirmed_balance_btc: Btc(row.balance.confirmed),
                unconfirmed_balance: row.balance.unconfirmed,
                unconfirmed_balance_btc: Btc(row.balance.unconfirmed),
                balance: row.balance.total(),
                balance_btc: Btc(row.balance.total()),
                utxo_count: row.utxo_count,
                transaction_count: row.tx_count,
                last_updated: json::seconds(row.updated),
                confirmations: row.depths.clone(),
                coverage: CoverageShape::from(&row.coverage),
            };
            let addresses: Vec<_> = rows.iter().map(|(_, row)| shape(row)).collect();
            let next = addresses
                .last()
                .filter(|_| addresses.len() == limit)
                .map(|last| last.address.clone());
            let (count, total) = (addresses.len(), snapshot.counts()?.addresses);
            let (tip, cursor) = (
                snapshot.tip()?.map(Block::from),
                encoder.cursor(snapshot.head()?),
            );
            Ok(respond::json_at(
                StatusCode::OK,
                &cursor,
                &AddressPage {
                    addresses,
                    count,
                    total,
                    next,
                    tip,
                    cursor: &cursor,
                },
            ))
        })
        .await
}
