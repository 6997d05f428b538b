//! The consumers in memory: what the store's rows say, and a sign for those who work for one that
//! it has changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::lag::Counter;
use super::readers::{Over, Readers};
use crate::events::Selection;
use crate::indexer;
use crate::store::{self, ConsumerEdit, Place, Scripts, StoreError, StoreReader};
use crate::tracker::ScriptHash;
use crate::wire::error::ApiError;

/// One consumer, as it is defined now; a new definition makes a new one, with the same place.
pub struct Consumer {
    pub name: String,
    pub wants: store::Consumer,
    pub filter: Selection,
    /// It was defined anew or forgotten: whoever works for it ends.
    pub ended: CancellationToken,
    pub readers: Arc<Readers>,
    pub(super) counter: Mutex<Counter>,
    progress: Arc<Progress>,
}

/// What stays when a consumer is defined anew.
struct Progress {
    indexer: indexer::Handle,
    place: watch::Sender<Place>,
    /// Held from reading the place to having written a new one.
    moving: tokio::sync::Mutex<()>,
}

impl Progress {
    fn new(indexer: &indexer::Handle, place: Place) -> Arc<Self> {
        Arc::new(Self {
            indexer: indexer.clone(),
            place: watch::Sender::new(place),
            moving: tokio::sync::Mutex::default(),
        })
    }

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

impl Consumer {
    fn new(name: String, wants: store::Consumer, progress: Arc<Progress>) -> Arc<Self> {
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
        let (readers, counter) = (Arc::default(), Mutex::default());
        Arc::new(Self {
            name,
            wants,
            filter,
            ended: CancellationToken::new(),
            readers,
            counter,
            progress,
        })
    }

    /// How many read it now.
    pub fn readers(&self) -> usize {
        self.readers.count()
    }

    fn end(&self, why: Over) {
        self.ended.cancel();
        self.readers.close(why);
    }

    pub fn place(&self) -> Place {
        *self.progress.place.borrow()
    }

    /// Moves the place forward to `number`; stays where it is when it is there or further already.
    /// `more` is written with it. Where it is then; `None`, and nothing was written, when the
    /// consumer has ended. To be run to its end, as [`Consumers::forget`].
    pub async fn move_to(
        &self,
        number: u64,
        mut more: Vec<ConsumerEdit>,
        now: u64,
    ) -> Result<Option<Place>, ApiError> {
        let _moving = self.progress.moving.lock().await;
        let (place, moved) = (self.place(), Place { number, moved: now });
        if self.ended.is_cancelled() {
            return Ok(None);
        }
        if number > place.number {
            more.push(ConsumerEdit::Move(moved));
        }
        if !more.is_empty() {
            self.progress.write(&self.name, more, false).await?;
        }
        if number > place.number {
            self.progress.place.send_replace(moved);
        }
        Ok(Some(self.place()))
    }

    /// Writes edits beside its place, on the disk when this returns; false, and nothing was
    /// written, when the consumer has ended.
    pub async fn edit(&self, edits: Vec<ConsumerEdit>) -> Result<bool, ApiError> {
        let _moving = self.progress.moving.lock().await;
        if self.ended.is_cancelled() {
            return Ok(false);
        }
        self.progress.write(&self.name, edits, true).await?;
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
    pub(super) reader: StoreReader,
    indexer: indexer::Handle,
    consumers: Mutex<BTreeMap<String, Arc<Consumer>>>,
    defining: tokio::sync::Mutex<()>,
    /// Consumers that there may be.
    limit: usize,
}

impl Consumers {
    pub fn load(
        reader: &StoreReader,
        indexer: indexer::Handle,
        limit: usize,
    ) -> Result<Self, StoreError> {
        let consumers = reader.consumers()?.into_iter().map(|(name, wants, place)| {
            let progress = Progress::new(&indexer, place);
            (name.clone(), Consumer::new(name, wants, progress))
        });
        Ok(Self {
            reader: reader.clone(),
            consumers: Mutex::new(consumers.collect()),
            defining: tokio::sync::Mutex::default(),
            indexer,
            limit,
        })
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
            let progress = Progress::new(&self.indexer, place);
            progress.write(name, edits, true).await?;
            let consumer = Consumer::new(name.to_owned(), wants, progress);
            return Ok((self.replace(consumer), Defined::Created));
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
        let mut edits = vec![ConsumerEdit::Define(wants.clone()), ConsumerEdit::Resume];
        edits.extend(place.map(ConsumerEdit::Rewind));
        if (&known.wants.scripts, known.wants.blocks) != (&wants.scripts, wants.blocks) {
            // What it wants now and did not want before is not done behind its place.
            edits.push(ConsumerEdit::ForgetPartitions);
        }
        let url = |wants: &store::Consumer| wants.webhook.as_ref().map(|it| it.url.clone());
        if url(&known.wants) != url(&wants) {
            // Another receiver has its own time before events are given up.
            edits.push(ConsumerEdit::ForgetFailures);
        }
        known.progress.write(name, edits, true).await?;
        known.end(Over::Changed);
        if let Some(place) = place {
            known.progress.place.send_replace(place);
        }
        Ok((
            self.replace(Consumer::new(
                name.to_owned(),
                wants,
                known.progress.clone(),
            )),
            Defined::Changed,
        ))
    }

    fn replace(&self, consumer: Arc<Consumer>) -> Arc<Consumer> {
        self.lock().insert(consumer.name.clone(), consumer.clone());
        consumer
    }

    /// Removes a consumer with all that is known of it. To be run to its end: a caller that gives
    /// up between the store's rows and the memory would leave a consumer here that is gone after a
    /// restart.
    pub async fn forget(&self, name: &str) -> Result<Arc<Consumer>, ApiError> {
        let _defining = self.defining.lock().await;
        let known = self.get(name)?;
        let moving = known.progress.moving.lock().await;
        let edits = vec![ConsumerEdit::Forget];
        known.progress.write(name, edits, true).await?;
        known.end(Over::Gone);
        self.lock().remove(name);
        drop(moving);
        Ok(known)
    }
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
