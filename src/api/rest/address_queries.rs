//! What is known about a watched address: its balance and transactions. Each answer comes from one
//! snapshot.

use std::collections::HashMap;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::budget::Budget;
use super::respond::{self, Answer};
use crate::bitcoind;
use crate::reads::{Reads, balance_in, watched};
use crate::store::HistoryCursor;
use crate::tracker::TxSummary;
use crate::wire::EventEncoder;
use crate::wire::address;
use crate::wire::error::ApiError;
use crate::wire::json::{Block, CoverageShape, Transaction};
use crate::wire::request::Request;
use crate::wire::request::types::Limit;

const TRANSACTIONS_DEFAULT: usize = 1000;
const TRANSACTIONS_MOST: u32 = 5000;

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

/// What answers about watched addresses are made of.
#[derive(Clone)]
pub struct AddressQueries {
    pub reads: Reads,
    pub encoder: EventEncoder,
    pub budget: Budget,
    pub node: watch::Receiver<bitcoind::NodeStatus>,
}

impl AddressQueries {
    /// `GET /balance/{address}`
    pub async fn balance(&self, address: &str) -> Result<Answer, ApiError> {
        let address = address::parse(address, self.encoder.network)?;
        let encoder = self.encoder.clone();
        self.reads
            .snapshot(move |snapshot| {
                let balance = balance_in(snapshot, &address, &encoder)?;
                Ok(respond::json_at(StatusCode::OK, &balance.cursor, &balance))
            })
            .await
    }

    /// `GET /transactions/{address}?limit=&before=`: newest first; `next` is the `before` of the
    /// next page.
    pub async fn transactions(
        &self,
        address: &str,
        query: ListTransactions,
    ) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct TransactionPage {
            address: String,
            count: usize,
            total: u64,
            transactions: Vec<Transaction>,
            next: Option<String>,
            coverage: CoverageShape,
            tip: Option<Block>,
            cursor: String,
        }
        let address = address::parse(address, self.encoder.network)?;
        let limit = query.limit.map_or(TRANSACTIONS_DEFAULT, Limit::get);
        let before = query.before.map(|text| text.parse::<HistoryCursor>());
        let before = before.transpose();
        let before = before.map_err(|_| {
            ApiError::invalid_parameter("before", "the \"next\" of an earlier page")
        })?;
        let policy = self.node.borrow().mempool.replacement;
        let Self {
            encoder, budget, ..
        } = self.clone();
        self.reads
            .run_long(move |reader| {
                let snapshot = reader.snapshot();
                let row = watched(&snapshot, &address)?;
                budget.check_rows(row.tx_count.min(limit as u64))?;
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
                                    let time =
                                        snapshot.block(block.height)?.map(|block| block.time);
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
                let page = TransactionPage {
                    address: address.text,
                    count: transactions.len(),
                    total: row.tx_count,
                    transactions,
                    next: page.next.map(|next| next.to_string()),
                    coverage: CoverageShape::from(&row.coverage),
                    tip: tip.map(Block::from),
                    cursor: encoder.cursor(snapshot.head()?),
                };
                Ok(respond::json_at(StatusCode::OK, &page.cursor, &page))
            })
            .await
    }
}
