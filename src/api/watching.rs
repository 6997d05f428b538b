//! What is known about a watched address: its balance, outputs and transactions. Each answer comes
//! from one snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::App;
use super::address::{self, KnownAddress};
use super::error::ApiError;
use super::hub::Wire;
use super::json::{Balance, Block, CoverageShape, Transaction, Utxo, first_immature};
use super::request::Request;
use super::request::types::Limit;
use super::respond::{self, Answer};
use crate::store::{HistoryCursor, Snapshot};
use crate::tracker::{TxSummary, WatchRow};

const TRANSACTIONS_DEFAULT: usize = 1000;
const TRANSACTIONS_MOST: u32 = 5000;

/// `GET /utxos/{address}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListUtxos {
    include_spent: Option<bool>,
}

impl Request for ListUtxos {
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("min_confirmations", CONFIRMATIONS),
        ("confirmations", CONFIRMATIONS),
        ("minconf", CONFIRMATIONS),
    ];
    const OF_ADDRESS: bool = true;
}

const CONFIRMATIONS: &str = "each output says its `confirmations`, choose by that";

/// `GET /transactions/{address}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListTransactions {
    limit: Option<Limit<TRANSACTIONS_MOST>>,
    before: Option<String>,
}

impl Request for ListTransactions {
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("page", NEXT_PAGE),
        ("offset", NEXT_PAGE),
        ("after", NEXT_PAGE),
    ];
    const OF_ADDRESS: bool = true;
}

const NEXT_PAGE: &str = "write the `next` of the page before as `before`";

/// The row of a watched address, or 404.
pub fn watched(snapshot: &Snapshot<'_>, address: &KnownAddress) -> Result<WatchRow, ApiError> {
    snapshot
        .watch(&address.script)?
        .ok_or_else(|| ApiError::not_watched(&address.text))
}

/// The balance of an address in a snapshot.
pub fn balance_in(
    snapshot: &Snapshot<'_>,
    address: &KnownAddress,
    wire: &Wire,
) -> Result<Balance, ApiError> {
    let row = watched(snapshot, address)?;
    let tip = snapshot.tip()?;
    let immature = match row.utxo_count {
        0 => 0,
        _ => snapshot.coinbase_value(&address.script, first_immature(tip))?,
    };
    Ok(Balance::new(
        &address.text,
        &row,
        immature,
        tip,
        wire.cursor(snapshot.head()?),
    ))
}

impl App {
    pub(super) fn address(&self, text: &str) -> Result<KnownAddress, ApiError> {
        address::parse(text, self.wire.network)
    }

    /// `GET /balance/{address}`
    pub(super) async fn balance(self: &Arc<Self>, address: &str) -> Result<Answer, ApiError> {
        let address = self.address(address)?;
        self.read(move |app| {
            let balance = balance_in(&app.reader.snapshot(), &address, &app.wire)?;
            Ok(respond::json_at(StatusCode::OK, &balance.cursor, &balance))
        })
        .await
    }

    /// `GET /utxos/{address}?include_spent=`
    pub(super) async fn utxos(
        self: &Arc<Self>,
        address: &str,
        query: ListUtxos,
    ) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Utxos {
            address: String,
            count: usize,
            utxos: Vec<Utxo>,
            coverage: CoverageShape,
            tip: Option<Block>,
            cursor: String,
        }
        let address = self.address(address)?;
        let include_spent = query.include_spent.unwrap_or(false);
        self.read(move |app| {
            let snapshot = app.reader.snapshot();
            let row = watched(&snapshot, &address)?;
            let tip = snapshot.tip()?;
            let mut rows = snapshot.utxos(&address.script, include_spent)?;
            // Oldest first, unconfirmed last.
            rows.sort_by_key(|(outpoint, row)| (row.height.unwrap_or(u32::MAX), *outpoint));
            let utxos: Vec<_> = rows
                .iter()
                .map(|(outpoint, row)| Utxo::new(&address.text, outpoint, row, tip))
                .collect();
            let (coverage, cursor) = (
                CoverageShape::from(&row.coverage),
                app.wire.cursor(snapshot.head()?),
            );
            let (count, tip) = (utxos.len(), tip.map(Block::from));
            let utxos = Utxos {
                address: address.text,
                count,
                utxos,
                coverage,
                tip,
                cursor,
            };
            Ok(respond::json_at(StatusCode::OK, &utxos.cursor, &utxos))
        })
        .await
    }

    /// `GET /transactions/{address}?limit=&before=`: newest first; `next` is the `before` of the
    /// next page.
    pub(super) async fn transactions(
        self: &Arc<Self>,
        address: &str,
        query: ListTransactions,
    ) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Page {
            address: String,
            count: usize,
            total: u64,
            transactions: Vec<Transaction>,
            next: Option<String>,
            coverage: CoverageShape,
            tip: Option<Block>,
            cursor: String,
        }
        let address = self.address(address)?;
        let limit = query.limit.map_or(TRANSACTIONS_DEFAULT, Limit::get);
        let before = query.before.map(|text| text.parse::<HistoryCursor>());
        let before = before.transpose();
        let before = before.map_err(|_| {
            ApiError::invalid_parameter("before", "the \"next\" of an earlier page")
        })?;
        let policy = self.node.borrow().mempool.replacement;
        self.read(move |app| {
            let snapshot = app.reader.snapshot();
            let row = watched(&snapshot, &address)?;
            let tip = snapshot.tip()?;
            let page = snapshot.history(&address.script, before.as_ref(), limit)?;
            let mut times: HashMap<u32, Option<u32>> = HashMap::new();
            let mut transactions = Vec::with_capacity(page.transactions.len());
            for (txid, row) in &page.transactions {
                let time = match row.status {
                    crate::tracker::Status::Confirmed { block, .. } => {
                        match times.get(&block.height) {
                            Some(time) => *time,
                            None => {
                                let time = snapshot.block(block.height)?.map(|block| block.time);
                                times.insert(block.height, time);
                                time
                            }
                        }
                    }
                    _ => None,
                };
                transactions.push(Transaction::new(
                    &TxSummary::of(*txid, row, &address.script, time, policy),
                    tip,
                ));
            }
            let page = Page {
                address: address.text,
                count: transactions.len(),
                total: row.tx_count,
                transactions,
                next: page.next.map(|next| next.to_string()),
                coverage: CoverageShape::from(&row.coverage),
                tip: tip.map(Block::from),
                cursor: app.wire.cursor(snapshot.head()?),
            };
            Ok(respond::json_at(StatusCode::OK, &page.cursor, &page))
        })
        .await
    }
}
