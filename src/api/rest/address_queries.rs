//! What is known about a watched address: its balance and transactions. Each answer comes from one
//! snapshot.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::budget::Budget;
use super::respond::{self, Reply, WithCursor};
use crate::reads::{Reads, StoreView};
use crate::store::HistoryCursor;
use crate::tracker::{Replacement, Status, SubjectId, TxSummary};
use crate::wire::error::ApiError;
use crate::wire::json::{Balance, BalanceOf, Block, CoverageShape, Transaction};
use crate::wire::request::Request;
use crate::wire::request::types::Limit;

const TRANSACTIONS_DEFAULT: usize = 1000;
const TRANSACTIONS_MOST: u32 = 5000;

/// `GET /transactions/{address}`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListTransactions {
    /// 1000 when absent.
    limit: Option<Limit<TRANSACTIONS_MOST>>,
    /// The `next` of the page before.
    before: Option<String>,
}

/// A page of transactions, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TransactionPage {
    #[serde(flatten)]
    of: BalanceOf,
    count: usize,
    /// On all pages.
    total: u64,
    transactions: Vec<Transaction>,
    /// The `before` of the next page; `null` on the last one.
    next: Option<String>,
    coverage: CoverageShape,
    tip: Option<Block>,
}

impl Request for ListTransactions {
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("page", NEXT_PAGE),
        ("offset", NEXT_PAGE),
        ("after", NEXT_PAGE),
    ];
}

const NEXT_PAGE: &str = "write the `next` of the page before as `before`";

/// `GET /balance/{address}`
pub async fn balance(reads: &Reads, address: &str) -> Result<Reply<Balance>, ApiError> {
    let address = reads.address(address)?;
    let answer = reads.run(move |view| view.balance(&address)).await?;
    Ok(respond::ok_at(&answer.cursor, &answer))
}

/// `GET /transactions/{address}?limit=&before=`: newest first; `next` is the `before` of the next
/// page.
pub async fn transactions(
    reads: &Reads,
    budget: &Budget,
    policy: Replacement,
    address: &str,
    query: ListTransactions,
) -> Result<Reply<WithCursor<TransactionPage>>, ApiError> {
    let address = reads.address(address)?;
    let list = TransactionList::new(query, policy, budget)?;
    let read = move |view: &StoreView<'_>| {
        let row = view.watched(&address)?;
        let listed = Listed {
            subject: SubjectId::Script(address.script),
            of: BalanceOf::Address {
                address: address.text,
            },
            total: row.tx_count,
            coverage: view.coverage(&address.script, &row)?,
        };
        list.answer(view, listed)
    };
    reads.run_long(read).await
}

/// Which part of a history is asked for.
pub struct TransactionList {
    limit: usize,
    before: Option<HistoryCursor>,
    policy: Replacement,
    budget: Budget,
}

/// Whose history it is.
pub struct Listed {
    pub subject: SubjectId,
    pub of: BalanceOf,
    pub total: u64,
    pub coverage: CoverageShape,
}

impl TransactionList {
    pub fn new(
        query: ListTransactions,
        policy: Replacement,
        budget: &Budget,
    ) -> Result<Self, ApiError> {
        let before = query.before.map(|text| text.parse::<HistoryCursor>());
        let before = before.transpose();
        let before = before.map_err(|_| {
            ApiError::invalid_parameter("before", "the \"next\" of an earlier page")
        })?;
        Ok(Self {
            limit: query.limit.map_or(TRANSACTIONS_DEFAULT, Limit::get),
            before,
            policy,
            budget: budget.clone(),
        })
    }

    pub fn answer(
        self,
        view: &StoreView<'_>,
        listed: Listed,
    ) -> Result<Reply<WithCursor<TransactionPage>>, ApiError> {
        let Listed {
            subject,
            of,
            total,
            coverage,
        } = listed;
        self.budget.check_rows(total.min(self.limit as u64))?;
        let tip = view.tip()?;
        let page = view.history(&subject, self.before.as_ref(), self.limit)?;
        let mut transactions = Vec::with_capacity(page.transactions.len());
        for (txid, row) in &page.transactions {
            let block = match row.status {
                Status::Confirmed { block, .. } => view.block(&block.height)?,
                _ => None,
            };
            let time = block.map(|block| block.time);
            let summary = TxSummary::of(*txid, row, &subject, time, self.policy);
            transactions.push(Transaction::new(&summary, tip));
        }
        let page = TransactionPage {
            of,
            count: transactions.len(),
            total,
            transactions,
            next: page.next.map(|next| next.to_string()),
            coverage,
            tip: tip.map(Block::from),
        };
        Ok(respond::with_cursor(StatusCode::OK, &view.cursor()?, page))
    }
}
