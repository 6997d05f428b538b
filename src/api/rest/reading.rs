//! Reading a consumer over REST, and where one stands.

use std::sync::Arc;
use std::time::Duration;

use super::events::{EventQueries, LIMIT_DEFAULT, ReadEvents};
use super::respond::Answer;
use crate::consumers::{Consumer, Consumers, consumer_name};
use crate::events::{PageError, cursors};
use crate::reads::Reads;
use crate::store::{Scripts, StoreReader};
use crate::tracker::ScriptHash;
use crate::wire::address::{self, KnownAddress};
use crate::wire::request::types::{Limit, Wait};
use crate::wire::{ApiError, EventEncoder};

/// `GET /events?consumer=`
pub async fn consumer_events(
    events: &EventQueries,
    consumers: &Consumers,
    name: &str,
    query: ReadEvents,
) -> Result<Answer, ApiError> {
    let consumer = consumers.get(consumer_name(name)?)?;
    if !query.address.is_empty() {
        return Err(ApiError::invalid_parameter(
            "address",
            "left out beside \"consumer\", which says what it wants",
        ));
    }
    let limit = query.limit.map_or(LIMIT_DEFAULT, Limit::get);
    let wait = query.wait.map_or(Duration::ZERO, Wait::seconds);
    let EventQueries { reads, encoder, .. } = events;
    let after = match query.after {
        Some(text) => {
            let encoder = encoder.clone();
            let place = reads.run(move |reader| cursors::place(reader, &encoder, &text));
            Some(place.await?)
        }
        None => None,
    };
    let lease = consumer.leases.acquire();
    let lease = lease.map_err(|reason| reason.error(name))?;
    let from = match after {
        Some(number) => number,
        None => begin_of(reads, encoder, &consumer).await?,
    };
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
        Err(PageError::Expired) => {
            check_place(reads, encoder, from, &consumer).await?;
            Err(ApiError::internal(&"events that are kept were not found"))
        }
        Err(cause) => Err(cause.into()),
    }
}

/// Where reading a consumer begins; a refusal with its balances when retention has taken what it
/// wants.
pub async fn begin_of(
    reads: &Reads,
    encoder: &EventEncoder,
    consumer: &Arc<Consumer>,
) -> Result<u64, ApiError> {
    // What is acknowledged meanwhile is not missed.
    let place = consumer.place().number;
    let unread = consumer.unread().await?;
    if unread.missed.is_some() {
        check_place(reads, encoder, place, consumer).await?;
    }
    Ok(unread.after.max(place))
}

/// Refuses a place behind which events are gone, with the consumer's balances.
async fn check_place(
    reads: &Reads,
    encoder: &EventEncoder,
    number: u64,
    consumer: &Arc<Consumer>,
) -> Result<(), ApiError> {
    let (encoder, consumer) = (encoder.clone(), consumer.clone());
    let check = reads.run(move |reader| {
        let Err(error) = cursors::place(reader, &encoder, &encoder.cursor(number)) else {
            return Ok(());
        };
        let addresses = watched_of(reader, &encoder, &consumer)?;
        Err(cursors::with_balances(reader, &encoder, error, &addresses))
    });
    check.await
}

/// The addresses of a consumer that are watched; none when they are too many to tell their
/// balances.
fn watched_of(
    reader: &StoreReader,
    encoder: &EventEncoder,
    consumer: &Consumer,
) -> Result<Vec<KnownAddress>, ApiError> {
    let snapshot = reader.snapshot();
    let known = |spk: &bitcoin::ScriptBuf| KnownAddress {
        text: address::text(spk, encoder.network),
        script: ScriptHash::of(spk),
        spk: spk.clone(),
    };
    let most = cursors::BALANCES.saturating_add(1);
    let addresses: Vec<_> = match &consumer.wants.scripts {
        Scripts::All => {
            let rows = snapshot.watches(None, most)?;
            rows.iter().map(|(_, row)| known(&row.spk)).collect()
        }
        Scripts::These(spks) => spks.iter().take(most).map(known).collect(),
    };
    if addresses.len() > cursors::BALANCES {
        return Ok(Vec::new());
    }
    let mut watched = Vec::with_capacity(addresses.len());
    for address in addresses {
        if snapshot.watch(&address.script)?.is_some() {
            watched.push(address);
        }
    }
    Ok(watched)
}
