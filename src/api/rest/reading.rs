//! Reading a consumer over REST, and where one stands.

use std::sync::Arc;
use std::time::Duration;

use super::events::{LIMIT_DEFAULT, ReadEvents};
use super::respond::Answer;
use crate::api::App;
use crate::api::socket::over;
use crate::clock::now_ms;
use crate::consumers::{Consumer, Over, Refused, Wish, consumer_name};
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
        let reading = consumer
            .readers
            .begin(Wish::WhenFree)
            .map_err(|refused| over(name, refused))?;
        let from = match after {
            Some(number) => number,
            None => {
                let consumer = consumer.clone();
                self.read(move |app| app.place_of(&consumer)).await?
            }
        };
        let ended = reading.seat.clone();
        let until = async move {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = ended.ended() => {}
            }
        };
        let enough = (wait > Duration::ZERO).then_some(until);
        let selection = consumer.filter.clone();
        let batch = self.events.read(selection, from, limit, enough).await;
        match reading.seat.is_over() {
            // What it has is right, and nobody else was told that it is done.
            None | Some(Over::Taken | Over::Left) => {}
            Some(why) => return Err(over(name, Refused::Over(why))),
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

    /// Where a consumer stands; a refusal with its balances when retention has passed it. Blocks
    /// the thread.
    pub(in crate::api) fn place_of(&self, consumer: &Consumer) -> Result<u64, ApiError> {
        let number = consumer.place().number;
        self.check_place(number, consumer)?;
        Ok(number)
    }

    pub(in crate::api) fn check_place(
        &self,
        number: u64,
        consumer: &Consumer,
    ) -> Result<(), ApiError> {
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

    /// Moves every consumer to right before the next event that it wants. So that nobody who has
    /// acknowledged all that it wanted is told that it missed something when retention deletes the
    /// rest: to be called before.
    pub(in crate::api) async fn pass_what_nobody_wants(self: &Arc<Self>) -> Result<(), ApiError> {
        let consumers = self.consumers.all();
        loop {
            let counted = consumers.clone();
            let lags = self.read(move |app| app.consumers.lags(&counted, now_ms()));
            let mut is_done = true;
            for (consumer, lag) in consumers.iter().zip(lags.await?) {
                // One that did miss something is to be told.
                if !self.expired(consumer.place().number)? {
                    self.consumers.pass_unwanted(consumer).await?;
                    is_done &= lag.exact || lag.events > 0;
                }
            }
            if is_done {
                return Ok(());
            }
        }
    }
}
