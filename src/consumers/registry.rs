//! The consumers in memory: what the store's rows say, and a sign for those who work for one that
//! it has changed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;

use super::lag::{LOOK_MOST, Lookahead, Unread};
use super::lease::{EndReason, LeaseId, Leases};
use crate::events::{EventLog, Handle, Selection};
use crate::indexer::{self, IndexerStopped};
use crate::store::{self, ConsumerEdit, PRUNE_LIMIT, Place, Scripts, StoreError, StoreReader};
use crate::tracker::ScriptHash;
use crate::wire::error::ApiError;

/// What all consumers stand on.
struct Shared {
    reader: StoreReader,
    indexer: indexer::Handle,
    log: Arc<EventLog>,
    dispatch: Handle,
    /// Held for writing while retention deletes a portion of events, for reading by whoever moves a
    /// place or changes a definition.
    retention: RwLock<()>,
    /// Numbers of the log that one look goes through at most.
    look_most: u64,
}

impl Shared {
    async fn write(
        &self,
        name: &str,
        edits: Vec<ConsumerEdit>,
        sync: bool,
    ) -> Result<(), ApiError> {
        let written = self.indexer.edit_consumer(name, edits, sync).await;
        written.map_err(|_| ApiError::stopping())
    }
}

/// Where a consumer is; stays when it is defined anew.
struct Progress {
    place: watch::Sender<Place>,
    /// Held from reading the place to having written a new one.
    moving: tokio::sync::Mutex<()>,
}

impl Progress {
    fn new(place: Place) -> Arc<Self> {
        Arc::new(Self {
            place: watch::Sender::new(place),
            moving: tokio::sync::Mutex::default(),
        })
    }
}

/// One consumer, as it is defined now; a new definition makes a new one, with the same place.
pub struct Consumer {
    pub name: String,
    pub wants: store::Consumer,
    pub filter: Selection,
    /// It was defined anew or forgotten: whoever works for it ends.
    pub ended: CancellationToken,
    pub leases: Arc<Leases>,
    lookahead: tokio::sync::Mutex<Lookahead>,
    /// The quiet number in the store, or an older one.
    kept: AtomicU64,
    progress: Arc<Progress>,
    shared: Arc<Shared>,
}

impl Consumer {
    /// `quiet`: nothing that it wants is between its place and there.
    fn new(
        shared: &Arc<Shared>,
        name: String,
        wants: store::Consumer,
        progress: Arc<Progress>,
        quiet: u64,
    ) -> Arc<Self> {
        let scripts = match &wants.scripts {
            Scripts::All => None,
            Scripts::These(spks) => Some(Arc::new(
                spks.iter().map(|spk| ScriptHash::of(spk)).collect(),
            )),
        };
        let filter = Selection {
            scripts,
            blocks: wants.blocks,
        };
        let Shared {
            log,
            dispatch,
            reader,
            look_most,
            ..
        } = &**shared;
        let quiet = quiet.max(progress.place.borrow().number);
        let lookahead = Lookahead::new(log, dispatch, reader, &filter, quiet, *look_most);
        Arc::new(Self {
            name,
            wants,
            filter,
            ended: CancellationToken::new(),
            leases: Arc::default(),
            lookahead: tokio::sync::Mutex::new(lookahead),
            kept: AtomicU64::new(quiet),
            progress,
            shared: shared.clone(),
        })
    }

    /// How many read it now.
    pub fn readers(&self) -> usize {
        self.leases.count()
    }

    fn end(self: &Arc<Self>, reason: EndReason) {
        self.ended.cancel();
        self.leases.close(reason);
        let ended = self.clone();
        // Behind a look that is under way.
        tokio::spawn(async move { ended.lookahead.lock().await.leave() });
    }

    pub fn place(&self) -> Place {
        *self.progress.place.borrow()
    }

    /// What it has not acknowledged, as far as one look goes.
    pub async fn unread(&self) -> Result<Unread, ApiError> {
        let mut lookahead = self.lookahead.lock().await;
        Ok(lookahead.look(self.place().number).await?)
    }

    /// Moves the place forward to `number`; stays where it is when it is there or further already.
    /// `more` is written with it. Where it is then; `None`, and nothing was written, when the
    /// consumer has ended. To be run to its end, as [`Consumers::forget`].
    pub async fn move_to(
        &self,
        number: u64,
        more: Vec<ConsumerEdit>,
        now: u64,
    ) -> Result<Option<Place>, ApiError> {
        Ok(self.step(number, more, now, None).await?.ok())
    }

    /// Moves the place forward to `number`, which was read under `lease`, if under one. Why not,
    /// and nothing was written, when that or the consumer has ended. To be run to its end.
    pub async fn acknowledge(
        &self,
        number: u64,
        lease: Option<LeaseId>,
        now: u64,
    ) -> Result<Result<Place, EndReason>, ApiError> {
        self.step(number, Vec::new(), now, lease).await
    }

    async fn step(
        &self,
        number: u64,
        mut more: Vec<ConsumerEdit>,
        now: u64,
        lease: Option<LeaseId>,
    ) -> Result<Result<Place, EndReason>, ApiError> {
        let _kept = self.shared.retention.read().await;
        let _moving = self.progress.moving.lock().await;
        let (place, moved) = (self.place(), Place { number, moved: now });
        let ended = match lease {
            Some(lease) => self.leases.ended(lease),
            None => self.leases.closed(),
        };
        if let Some(reason) = ended {
            return Ok(Err(reason));
        }
        if number > place.number {
            more.push(ConsumerEdit::Move(moved));
        }
        if !more.is_empty() {
            self.shared.write(&self.name, more, false).await?;
        }
        if number > place.number {
            self.progress.place.send_replace(moved);
        }
        Ok(Ok(self.place()))
    }

    /// Writes edits beside its place, on the disk when this returns; false, and nothing was
    /// written, when the consumer has ended.
    pub async fn edit(&self, edits: Vec<ConsumerEdit>) -> Result<bool, ApiError> {
        let _moving = self.progress.moving.lock().await;
        if self.ended.is_cancelled() {
            return Ok(false);
        }
        self.shared.write(&self.name, edits, true).await?;
        Ok(true)
    }

    /// Looks until what is unread is certain.
    async fn look_through(&self) -> Result<(), ApiError> {
        while !self.unread().await?.is_certain() {}
        Ok(())
    }

    /// Writes its quiet number down, while nobody moves or changes it. Not when it has missed
    /// something: that is to be found again. False, and nothing was written, when one look does not
    /// tell what is unread.
    async fn keep_quiet(&self) -> Result<bool, ApiError> {
        let unread = self.unread().await?;
        if !unread.is_certain() {
            return Ok(false);
        }
        let kept = self.kept.load(Ordering::Relaxed);
        if unread.missed.is_none() && unread.after > kept.max(self.place().number) {
            let edits = vec![ConsumerEdit::Quiet(unread.after)];
            self.shared.write(&self.name, edits, false).await?;
            self.kept.store(unread.after, Ordering::Relaxed);
        }
        Ok(true)
    }
}

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
    /// Consumers that there may be.
    limit: usize,
}

impl Consumers {
    pub fn load(
        reader: &StoreReader,
        indexer: indexer::Handle,
        log: Arc<EventLog>,
        dispatch: Handle,
        limit: usize,
    ) -> Result<Arc<Self>, StoreError> {
        Self::load_with(reader, indexer, log, dispatch, limit, LOOK_MOST)
    }

    /// `look_most`: numbers of the log that one look goes through at most.
    pub(super) fn load_with(
        reader: &StoreReader,
        indexer: indexer::Handle,
        log: Arc<EventLog>,
        dispatch: Handle,
        limit: usize,
        look_most: u64,
    ) -> Result<Arc<Self>, StoreError> {
        let shared = Arc::new(Shared {
            reader: reader.clone(),
            indexer,
            log,
            dispatch,
            retention: RwLock::default(),
            look_most,
        });
        let mut consumers = BTreeMap::new();
        for (name, wants, place) in reader.consumers()? {
            let quiet = reader.quiet(&name)?.unwrap_or(0);
            let progress = Progress::new(place);
            let consumer = Consumer::new(&shared, name.clone(), wants, progress, quiet);
            consumers.insert(name, consumer);
        }
        Ok(Arc::new(Self {
            shared,
            consumers: Mutex::new(consumers),
            defining: tokio::sync::Mutex::default(),
            limit,
        }))
    }

    /// Registers those that were loaded with dispatch, and begins to look through what was written
    /// since their quiet numbers. To be run once, beside the rest.
    pub async fn start(&self) {
        for consumer in self.all() {
            if let Err(cause) = consumer.unread().await {
                tracing::debug!(consumer = consumer.name, %cause, "not looked ahead");
            }
        }
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
        if consumers.contains_key(name) || consumers.len() < self.limit {
            Ok(())
        } else {
            Err(too_many(consumers.len()))
        }
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// In the order of their names.
    pub fn all(&self) -> Vec<Arc<Consumer>> {
        self.lock().values().cloned().collect()
    }

    /// The first `most` of them, with what each has not acknowledged.
    pub async fn unread(&self, most: usize) -> Result<Vec<(Arc<Consumer>, Unread)>, ApiError> {
        let mut all = Vec::new();
        for consumer in self.all().into_iter().take(most) {
            let unread = consumer.unread().await?;
            all.push((consumer, unread));
        }
        Ok(all)
    }

    /// Creates or changes a consumer. `wants`: makes the definition from the one that it replaces;
    /// of an equal one the time of creation does not count. `at`: where it begins to read; absent,
    /// a known one stays where it is and a new one begins at `head`. To be run to its end, as
    /// [`Self::forget`].
    pub async fn define(
        &self,
        name: &str,
        wants: impl FnOnce(Option<&store::Consumer>) -> Result<store::Consumer, ApiError>,
        at: Option<u64>,
        head: u64,
        now: u64,
    ) -> Result<(Arc<Consumer>, Defined), ApiError> {
        let _defining = self.defining.lock().await;
        let _kept = self.shared.retention.read().await;
        let (known, count) = {
            let consumers = self.lock();
            (consumers.get(name).cloned(), consumers.len())
        };
        let wants = wants(known.as_ref().map(|known| &known.wants))?;
        let Some(known) = known else {
            if count >= self.limit {
                return Err(too_many(count));
            }
            let place = Place {
                number: at.unwrap_or(head),
                moved: now,
            };
            let edits = vec![
                ConsumerEdit::Forget,
                ConsumerEdit::Define(wants.clone()),
                ConsumerEdit::Move(place),
            ];
            self.shared.write(name, edits, true).await?;
            let consumer = self.insert(name, wants, Progress::new(place), 0);
            return Ok((consumer, Defined::Created));
        };
        let wants = store::Consumer {
            created: known.wants.created,
            ..wants
        };
        if known.wants == wants && at.is_none() {
            return Ok((known, Defined::Same));
        }
        // Whoever moves the place waits, and then finds that its consumer has ended.
        let _moving = known.progress.moving.lock().await;
        let place = at.map(|number| Place { number, moved: now });
        let selects_the_same =
            (&known.wants.scripts, known.wants.blocks) == (&wants.scripts, wants.blocks);
        let quiet = match place {
            None if selects_the_same => known.kept.load(Ordering::Relaxed),
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
        wants: store::Consumer,
        progress: Arc<Progress>,
        quiet: u64,
    ) -> Arc<Consumer> {
        let consumer = Consumer::new(&self.shared, name.to_owned(), wants, progress, quiet);
        self.lock().insert(consumer.name.clone(), consumer.clone());
        consumer
    }

    /// Removes a consumer with all that is known of it. To be run to its end: a caller that gives
    /// up between the store's rows and the memory would leave a consumer here that is gone after a
    /// restart.
    pub async fn forget(&self, name: &str) -> Result<Arc<Consumer>, ApiError> {
        let _defining = self.defining.lock().await;
        let _kept = self.shared.retention.read().await;
        let known = self.get(name)?;
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
    known: &store::Consumer,
    wants: &store::Consumer,
    selects_the_same: bool,
    place: Option<Place>,
) -> Vec<ConsumerEdit> {
    let mut edits = vec![ConsumerEdit::Define(wants.clone()), ConsumerEdit::Resume];
    edits.extend(place.map(ConsumerEdit::Rewind));
    if !selects_the_same {
        // What it wants now and did not want before is not done beyond its place.
        edits.push(ConsumerEdit::ForgetBeyondPlace);
    }
    let url = |wants: &store::Consumer| wants.webhook.as_ref().map(|it| it.url.clone());
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
