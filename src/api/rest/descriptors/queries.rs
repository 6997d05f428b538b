//! What is known about a descriptor: its balance, transactions and outputs, as of an address.

use crate::api::rest::address_queries::{
    ListTransactions, Listed, TransactionList, TransactionPage,
};
use crate::api::rest::budget::Budget;
use crate::api::rest::respond::{self, Reply, WithCursor};
use crate::api::rest::utxos::{ListUtxos, UtxoPage, UtxosOf, list_utxos};
use crate::reads::{Reads, StoreView};
use crate::tracker::{Replacement, SubjectId};
use crate::wire::ApiError;
use crate::wire::json::{Balance, BalanceOf};
use crate::wire::request::descriptors::descriptor_id;

/// `GET /descriptors/{id}/balance`
pub async fn balance(reads: &Reads, id: &str) -> Result<Reply<Balance>, ApiError> {
    let id = descriptor_id(id)?;
    let read = move |view: &StoreView<'_>| view.descriptor_balance(&id);
    let balance = reads.run(read).await?;
    Ok(respond::ok_at(&balance.cursor, &balance))
}

/// `GET /descriptors/{id}/transactions?limit=&before=`: each once, with what it does to all scripts
/// together.
pub async fn transactions(
    reads: &Reads,
    budget: &Budget,
    policy: Replacement,
    id: &str,
    query: ListTransactions,
) -> Result<Reply<WithCursor<TransactionPage>>, ApiError> {
    let id = descriptor_id(id)?;
    let list = TransactionList::new(query, policy, budget)?;
    let read = move |view: &StoreView<'_>| {
        let (row, wallet) = view.wallet_rows(&id)?;
        list.answer(
            view,
            Listed {
                subject: SubjectId::Descriptor(id),
                of: BalanceOf::Descriptor {
                    descriptor_id: id.to_string(),
                },
                total: row.tx_count,
                coverage: view.descriptor_coverage(&id, &row, &wallet)?,
            },
        )
    };
    reads.run_long(read).await
}

/// `GET /descriptors/{id}/utxos?include_spent=&limit=&after=`
pub async fn utxos(
    reads: &Reads,
    budget: &Budget,
    id: &str,
    query: ListUtxos,
) -> Result<Reply<UtxoPage>, ApiError> {
    list_utxos(
        reads,
        budget,
        UtxosOf::Descriptor(descriptor_id(id)?),
        query,
    )
    .await
}
