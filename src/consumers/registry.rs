//! All consumers by name: defining, forgetting, and retention, before which the quiet number of
//! each is written down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{RwLock, watch};

use super::consumer::{Consumer, ConsumerProgress, Shared};
use super::lag::Unread;
use super::lease::EndReason;
use crate::config::Limits;
use crate::events::{EventLog, Handle};
use crate::indexer::{self, IndexerStopped};
use crate::reads::Reads;
use crate::store::{
    self, ConsumerEdit, ConsumerPlace, PRUNE_LIMIT, StoreError, StoreReader, TokenKey,
};
use crate::wire::error::ApiError;

/// What a definition led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defined {
    Created,
    Changed,
    /// It was like that already: whoever reads it goes on.
    Same,
}

/// All consumers. Changes of definitions come one at a time.
pub struct Consumers {
    shared: Arc<Shared>,
    consumers: Mutex<BTreeMap<String, Arc<Consumer>>>,
    defining: tokio::sync::Mutex<()>,
    limits: watch::Receiver<Limits>,
}

impl Consumers {
    /// `look_most`: numbers of the log that one look goes through at most.
    pub fn load(
        reader: &StoreReader,
        reads: Reads,
        indexer: indexer::Handle,
        log: Arc<EventLog>,
        dispatch: Handle,
        limits: watch::Receiver<Limits>,
        look_most: u64,
    ) -> Result<Arc<Self>, StoreError> {
        let shared = Arc::new(Shared {
            reads,
            indexer,
            log,
            dispatch,
            retention: RwLock::default(),
            look_most,
        });
        let mut consumers = BTreeMap::new();
        for (name, wants, place) in reader.consumers()? {
            let quiet = reader.quiet(&name)?.unwrap_or(0);
            let progress = ConsumerProgress::new(place);
            let consumer = Consumer::new(&shared, name.clone(), wants, progress, quiet);
            consumers.insert(name, consumer);
        }
        Ok(Arc::new(Self {
            shared,
            consumers: Mutex::new(consumers),
            defining: tokio::sync::Mutex::default(),
            limits,
        }))
    }

    /// Registers those that were loaded with dispatch, looks through what was written since their
    /// quiet numbers, and writes the new ones down. To be run once, beside the rest.
    pub async fn start(&self) -> Result<(), ApiError> {
        for consumer in self.all() {
            // Who cannot be read keeps nobody from being registered; it is found again below.
            _ = consumer.unread_within(1).await;
        }
        self.retain(|| async { Ok(0) }).await?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Consumer>>> {
        self.consumers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, name: &str) -> Result<Arc<Consumer>, ApiError> {
        self.lock()
            .get(name)
            .cloned()
            .ok_or_else(|| no_such_consumer(name))
    }

    /// Refuses a name for which there is no room, before anything is done for it.
    pub fn check_room(&self, name: &str) -> Result<(), ApiError> {
        let consumers = self.lock();
        if consumers.contains_key(name) || consumers.len() < self.most() {
            Ok(())
        } else {
            Err(too_many(consumers.len()))
        }
    }

    fn most(&self) -> usize {
        self.limits.borrow().consumers
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// In the order of their names.
    pub fn all(&self) -> Vec<Arc<Consumer>> {
        self.lock().values().cloned().collect()
    }

    /// The first `most` of them, with what each has not acknowledged, as far as one look of all of
    /// them together goes.
    pub async fn unread(&self, most: usize) -> Result<Vec<(Arc<Consumer>, Unread)>, ApiError> {
        let mut consumers = self.all();
        // One that ended just now is behind the place that its successor begins at.
        consumers.retain(|consumer| !consumer.ended.is_cancelled());
        consumers.truncate(most);
        let share = self.shared.look_most / (consumers.len() as u64).max(1);
        let mut all = Vec::with_capacity(consumers.len());
        for consumer in consumers {
            let unread = consumer.unread_within(share.max(1)).await?;
            all.push((consumer, unread));
        }
        Ok(all)
    }

    /// Creates or changes a consumer. `wants`: makes the definition from the one that it replaces;
    /// of an equal one the time of creation does not count. `at`: where it begins to read; absent,
    /// a known one stays where it is and a new one begins at `head`. `owner`: the token that
    /// makes it, if one does. To be run to its end, as [`Self::forget`].
    pub async fn define(
        &self,
        name: &str,
        wants: impl FnOnce(Option<&store::ConsumerRow>) -> Result<store::ConsumerRow, ApiError>,
        at: Option<u64>,
        head: u64,
        now: u64,
        owner: Option<TokenKey>,
    ) -> Result<(Arc<Consumer>, Defined), ApiError> {
        let _defining = self.defining.lock().await;
        let _kept = self.shared.retention.read().await;
        let (known, count) = {
            let consumers = self.lock();
            (consumers.get(name).cloned(), consumers.len())
        };
        let wants = wants(known.as_ref().map(|known| &known.wants))?;
        let Some(known) = known else {
            if count >= self.most() {
                return Err(too_many(count));
            }
            let place = ConsumerPlace {
                number: at.unwrap_or(head),
                moved: now,
            };
            let mut edits = vec![
                ConsumerEdit::Forget,
                ConsumerEdit::Define(wants.clone()),
                ConsumerEdit::Move(place),
            ];
            edits.extend(owner.map(ConsumerEdit::Owner));
            self.shared.write(name, edits, true).await?;
            let consumer = self.insert(name, wants, ConsumerProgress::new(place), 0);
            return Ok((consumer, Defined::Created));
        };
        let wants = store::ConsumerRow {
            created: known.wants.created,
            ..wants
        };
        if known.wants == wants && at.is_none() {
            return Ok((known, Defined::Same));
        }
        // Whoever moves the place waits, and then finds that its consumer has ended.
        let _moving = known.progress.moving.lock().await;
        let place = at.map(|number| ConsumerPlace { number, moved: now });
        let selects_the_same = known.wants.selects() == wants.selects();
        let quiet = match place {
            None if selects_the_same => known.kept(),
            _ => 0,
        };
        let edits = changes(&known.wants, &wants, selects_the_same, place);
        self.shared.write(name, edits, true).await?;
        known.end(EndReason::Changed);
        if let Some(place) = place {
            known.progress.place.send_replace(place);
        }
        let consumer = self.insert(name, wants, known.progress.clone(), quiet);
        Ok((consumer, Defined::Changed))
    }

    fn insert(
        &self,
        name: &str,
        wants: store::ConsumerRow,
        progress: Arc<ConsumerProgress>,
        quiet: u64,
    ) -> Arc<Consumer> {
        let consumer = Consumer::new(&self.shared, name.to_owned(), wants, progress, quiet);
        self.lock().insert(consumer.name.clone(), consumer.clone());
        consumer
    }

    /// Removes a consumer with all that is known of it. To be run to its end: a caller that gives
    /// up between the store's rows and the memory would leave a consumer here that is gone after a
    /// restart.
    /// `may`: whether the one that there is then may be removed.
    pub async fn forget(
        &self,
        name: &str,
        may: impl FnOnce(&store::ConsumerRow) -> Result<(), ApiError>,
    ) -> Result<Arc<Consumer>, ApiError> {
        let _defining = self.defining.lock().await;
        let _kept = self.shared.retention.read().await;
        let known = self.get(name)?;
        may(&known.wants)?;
        let moving = known.progress.moving.lock().await;
        let edits = vec![ConsumerEdit::Forget];
        self.shared.write(name, edits, true).await?;
        known.end(EndReason::Deleted);
        self.lock().remove(name);
        drop(moving);
        Ok(known)
    }

    /// Deletes old events, a portion with each `prune`, which answers how many they were, until one
    /// is not full. Before each, every consumer's quiet number is written down, and nobody moves
    /// until the portion is gone: who has acknowledged all that it wanted of it has missed nothing.
    /// Who moves or is defined waits for one portion. Answers how many are gone.
    pub async fn retain<Pruned>(&self, prune: impl Fn() -> Pruned) -> Result<usize, ApiError>
    where
        Pruned: Future<Output = Result<usize, IndexerStopped>>,
    {
        let mut total: usize = 0;
        loop {
            // What takes long, while they may move.
            for consumer in self.all() {
                consumer.look_through().await?;
            }
            let _nobody_moves = self.shared.retention.write().await;
            if !self.keep_quiet().await? {
                continue;
            }
            let count = prune().await.map_err(|_| ApiError::stopping())?;
            total = total.saturating_add(count);
            if count < PRUNE_LIMIT {
                return Ok(total);
            }
        }
    }

    /// False: it is not certain what some consumer has not acknowledged, because it moved or much
    /// was written just now.
    async fn keep_quiet(&self) -> Result<bool, ApiError> {
        for consumer in self.all() {
            if !consumer.keep_quiet().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What a new definition, and a new place, change of the rows.
fn changes(
    known: &store::ConsumerRow,
    wants: &store::ConsumerRow,
    selects_the_same: bool,
    place: Option<ConsumerPlace>,
) -> Vec<ConsumerEdit> {
    let mut edits = vec![ConsumerEdit::Define(wants.clone()), ConsumerEdit::Resume];
    edits.extend(place.map(ConsumerEdit::Rewind));
    if !selects_the_same {
        // What it wants now and did not want before is not done beyond its place.
        edits.push(ConsumerEdit::ForgetBeyondPlace);
    }
    let url = |wants: &store::ConsumerRow| wants.webhook.as_ref().map(|it| it.url.clone());
    if url(known) != url(wants) {
        // Another receiver has its own time before events are given up.
        edits.push(ConsumerEdit::ForgetFailures);
    }
    edits
}

fn too_many(count: usize) -> ApiError {
    let message = format!(
        "There are {count} consumers already (limits.consumers); DELETE those that nobody needs."
    );
    ApiError::conflict("too_many_consumers", message)
}

fn no_such_consumer(name: &str) -> ApiError {
    let message = format!(
        "There is no consumer {}; create it with PUT /consumers/{{name}}.",
        crate::wire::error::shortened(name)
    );
    ApiError::not_found("no_such_consumer", message)
}
