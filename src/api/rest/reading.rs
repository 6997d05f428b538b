//! Reading a consumer over REST, and where one stands.

use std::sync::Arc;
use std::time::Duration;

use super::events::{EventPage, EventQueries, LIMIT_DEFAULT, ReadEvents};
use super::respond::Reply;
use crate::consumers::{Consumer, Consumers, EndReason, Lease, Leases, Unread, consumer_name};
use crate::events::{PageError, cursors};
use crate::reads::{Reads, StoreView};
use crate::store::StoreError;
use crate::tracker::DescriptorId;
use crate::wire::ApiError;
use crate::wire::address::KnownAddress;
use crate::wire::request::types::{Limit, Wait};

/// `GET /events?consumer=`
pub async fn consumer_events(
    events: &EventQueries,
    reads: &Reads,
    consumers: &Consumers,
    name: &str,
    query: ReadEvents,
) -> Result<Reply<EventPage>, ApiError> {
    let wait = query.wait.map_or(Duration::ZERO, Wait::seconds);
    let limit = query.limit.map_or(LIMIT_DEFAULT, Limit::get);
    check_named(&query.address, &query.descriptor)?;
    let _place = events.place(wait)?;
    let (consumer, lease, from) =
        open(reads, consumers, name, query.after, Leases::acquire).await?;
    let ended = lease.ended();
    let until = async move {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = ended => {}
        }
    };
    let enough = (wait > Duration::ZERO).then_some(until);
    let selection = consumer.filter.clone();
    let batch = events.read(selection, from, limit, enough).await;
    // What it has when somebody takes over is right, and nobody was told that it is done.
    if let Some(reason) = consumer.leases.closed() {
        return Err(reason.error(name));
    }
    match batch {
        Ok(batch) => events.answer(batch).await,
        Err(PageError::Expired) => Err(expired(reads, from, &consumer).await),
        Err(cause) => Err(cause.into()),
    }
}

/// Addresses and descriptors are named by who reads for no consumer.
pub fn check_named(addresses: &[String], descriptors: &[String]) -> Result<(), ApiError> {
    for (name, texts) in [("address", addresses), ("descriptor", descriptors)] {
        if !texts.is_empty() {
            let what = "left out beside \"consumer\", which says what it wants";
            return Err(ApiError::invalid_parameter(name, what));
        }
    }
    Ok(())
}

/// The one reader of a consumer, which reads after a cursor, or what is not acknowledged. `lease`:
/// how it becomes that.
pub async fn open(
    reads: &Reads,
    consumers: &Consumers,
    name: &str,
    after: Option<String>,
    lease: fn(&Arc<Leases>) -> Result<Lease, EndReason>,
) -> Result<(Arc<Consumer>, Lease, u64), ApiError> {
    let consumer = consumers.get(consumer_name(name)?)?;
    let after = match after {
        Some(text) => Some(reads.run(move |view| cursors::place(view, &text)).await?),
        None => None,
    };
    let lease = lease(&consumer.leases).map_err(|reason| reason.error(name))?;
    let from = match after {
        Some(number) => number,
        None => begin_of(reads, &consumer).await?.after,
    };
    Ok((consumer, lease, from))
}

/// Why what comes after a number is not there for a consumer.
pub async fn expired(reads: &Reads, number: u64, consumer: &Arc<Consumer>) -> ApiError {
    let kept = || ApiError::internal(&"events that are kept were not found");
    let check = check_place(reads, number, consumer).await;
    check.err().unwrap_or_else(kept)
}

/// What a consumer has not acknowledged: reading it begins after that look's quiet number. A
/// refusal with its balances when retention has taken what it wants.
pub async fn begin_of(reads: &Reads, consumer: &Arc<Consumer>) -> Result<Unread, ApiError> {
    // What is acknowledged meanwhile is not missed.
    let place = consumer.place().number;
    let unread = consumer.unread().await?;
    if unread.missed.is_some() {
        check_place(reads, place, consumer).await?;
    }
    Ok(unread)
}

/// Refuses a place behind which events are gone, with the consumer's balances.
async fn check_place(reads: &Reads, number: u64, consumer: &Arc<Consumer>) -> Result<(), ApiError> {
    let consumer = consumer.clone();
    let check = reads.run(move |view| {
        let Err(error) = cursors::check(view, number) else {
            return Ok(());
        };
        let addresses = addresses_of(view, &consumer)?;
        let descriptors = descriptors_of(view, &consumer)?;
        Err(cursors::with_balances(
            view,
            error,
            &addresses,
            &descriptors,
        ))
    });
    check.await
}

/// The addresses of a consumer, or more of them than balances are told of.
fn addresses_of(
    view: &StoreView<'_>,
    consumer: &Consumer,
) -> Result<Vec<KnownAddress>, StoreError> {
    let most = cursors::BALANCES.saturating_add(1);
    let spks: Vec<_> = match &consumer.wants.scripts {
        None => {
            let rows = view.watches(None, most)?.into_iter();
            rows.map(|(_, row)| row.spk).collect()
        }
        Some(spks) => spks.iter().take(most).cloned().collect(),
    };
    Ok(spks.into_iter().map(|spk| view.known(spk)).collect())
}

/// Likewise its descriptors.
fn descriptors_of(
    view: &StoreView<'_>,
    consumer: &Consumer,
) -> Result<Vec<DescriptorId>, StoreError> {
    let most = cursors::BALANCES.saturating_add(1);
    match &consumer.wants.descriptors {
        None => {
            let rows = view.descriptors(None, most)?.into_iter();
            Ok(rows.map(|(id, _)| id).collect())
        }
        Some(ids) => Ok(ids.iter().take(most).copied().collect()),
    }
}
