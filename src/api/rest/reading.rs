//! Reading a consumer over REST, and where one stands.

use std::sync::Arc;
use std::time::Duration;

use super::events::{LIMIT_DEFAULT, ReadEvents};
use super::respond::Answer;
use crate::api::App;
use crate::consumers::{Consumer, consumer_name};
use crate::events::PageError;
use crate::events::cursors::BALANCES;
use crate::store::Scripts;
use crate::tracker::ScriptHash;
use crate::wire::ApiError;
use crate::wire::address::{self, KnownAddress};
use crate::wire::request::types::{Limit, Wait};

impl App {
    /// `GET /events?consumer=`
    pub(in crate::api) async fn consumer_events(
        self: &Arc<Self>,
        name: &str,
        query: ReadEvents,
    ) -> Result<Answer, ApiError> {
        let consumer = self.consumers.get(consumer_name(name)?)?;
        if !query.address.is_empty() {
            return Err(ApiError::invalid_parameter(
                "address",
                "left out beside \"consumer\", which says what it wants",
            ));
        }
        let limit = query.limit.map_or(LIMIT_DEFAULT, Limit::get);
        let wait = query.wait.map_or(Duration::ZERO, Wait::seconds);
        let after = query.after.map(|text| self.place(&text)).transpose()?;
        let lease = consumer.leases.acquire();
        let lease = lease.map_err(|reason| reason.error(name))?;
        let from = match after {
            Some(number) => number,
            None => self.begin_of(&consumer).await?,
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
        let batch = self.events.read(selection, from, limit, enough).await;
        // What it has when somebody takes over is right, and nobody was told that it is done.
        if let Some(reason) = consumer.leases.closed() {
            return Err(reason.error(name));
        }
        match batch {
            Ok(batch) => self.events.answer(batch).await,
            Err(PageError::Expired) => {
                let check = move |app: &App| app.check_place(from, &consumer);
                self.read(check).await?;
                Err(ApiError::internal(&"events that are kept were not found"))
            }
            Err(cause) => Err(cause.into()),
        }
    }

    /// Where reading a consumer begins; a refusal with its balances when retention has taken what
    /// it wants.
    pub(in crate::api) async fn begin_of(
        self: &Arc<Self>,
        consumer: &Arc<Consumer>,
    ) -> Result<u64, ApiError> {
        let (unread, place) = (consumer.unread().await?, consumer.place().number);
        if unread.missed.is_some() || place > unread.head {
            let consumer = consumer.clone();
            self.read(move |app| app.check_place(place, &consumer))
                .await?;
        }
        Ok(unread.after)
    }

    /// Refuses a place behind which events are gone, with the consumer's balances. Blocks the
    /// thread.
    fn check_place(&self, number: u64, consumer: &Consumer) -> Result<(), ApiError> {
        let Err(error) = self.place(&self.wire.cursor(number)) else {
            return Ok(());
        };
        Err(self.with_balances(error, &self.addresses_of(consumer)?))
    }

    /// Those of a consumer that are watched; none when they are too many to tell their balances.
    fn addresses_of(&self, consumer: &Consumer) -> Result<Vec<KnownAddress>, ApiError> {
        let snapshot = self.reader.snapshot();
        let known = |spk: &bitcoin::ScriptBuf| KnownAddress {
            text: address::text(spk, self.wire.network),
            script: ScriptHash::of(spk),
            spk: spk.clone(),
        };
        let most = BALANCES.saturating_add(1);
        let mut addresses = match &consumer.wants.scripts {
            Scripts::All => snapshot
                .watches(None, most)?
                .iter()
                .map(|(_, row)| known(&row.spk))
                .collect::<Vec<_>>(),
            Scripts::These(spks) => spks.iter().take(most).map(known).collect(),
        };
        if addresses.len() > BALANCES {
            return Ok(Vec::new());
        }
        let mut watched = Vec::with_capacity(addresses.len());
        for address in addresses.drain(..) {
            if snapshot.watch(&address.script)?.is_some() {
                watched.push(address);
            }
        }
        Ok(watched)
    }
}
