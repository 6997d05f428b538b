//! One consumer in memory, as its rows in the store say: what it wants, its place, and a sign for
//! those who work for it that it has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bitcoin::ScriptBuf;
use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;

use super::lag::{Lookahead, Unread};
use super::lease::{EndReason, LeaseId, Leases};
use crate::events::{EventLog, Handle, Reader, Selection};
use crate::indexer;
use crate::reads::{Reads, run_detached};
use crate::store::{self, ConsumerEdit, ConsumerPlace};
use crate::tracker::ScriptHash;
use crate::wire::error::ApiError;

/// What all consumers stand on.
pub(super) struct Shared {
    pub(super) reads: Reads,
    pub(super) indexer: indexer::Handle,
    pub(super) log: Arc<EventLog>,
    pub(super) dispatch: Handle,
    /// Held for writing while retention deletes a portion of events, for reading by whoever moves a
    /// place or changes a definition.
    pub(super) retention: RwLock<()>,
    /// Numbers of the log that one look goes through at most.
    pub(super) look_most: u64,
}

impl Shared {
    pub(super) async fn write(
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
pub(super) struct ConsumerProgress {
    pub(super) place: watch::Sender<ConsumerPlace>,
    /// Held from reading the place to having written a new one.
    pub(super) moving: tokio::sync::Mutex<()>,
}

impl ConsumerProgress {
    pub(super) fn new(place: ConsumerPlace) -> Arc<Self> {
        Arc::new(Self {
            place: watch::Sender::new(place),
            moving: tokio::sync::Mutex::default(),
        })
    }
}

/// One consumer, as it is defined now; a new definition makes a new one, with the same place.
pub struct Consumer {
    pub name: String,
    pub wants: store::ConsumerRow,
    pub filter: Selection,
    /// It was defined anew or forgotten: whoever works for it ends.
    pub ended: CancellationToken,
    pub leases: Arc<Leases>,
    pub(super) lookahead: tokio::sync::Mutex<Lookahead>,
    /// The quiet number in the store, or an older one.
    kept: AtomicU64,
    pub(super) progress: Arc<ConsumerProgress>,
    shared: Arc<Shared>,
}

impl Consumer {
    /// `quiet`: nothing that it wants is between its place and there.
    pub(super) fn new(
        shared: &Arc<Shared>,
        name: String,
        wants: store::ConsumerRow,
        progress: Arc<ConsumerProgress>,
        quiet: u64,
    ) -> Arc<Self> {
        let hash = |spk: &ScriptBuf| ScriptHash::of(spk);
        let hashes = |spks: &Vec<_>| Arc::new(spks.iter().map(hash).collect());
        let scripts = wants.scripts.as_ref().map(hashes);
        let descriptors = wants.descriptors.as_ref();
        let filter = Selection {
            scripts,
            descriptors: descriptors.map(|ids| Arc::new(ids.iter().copied().collect())),
            blocks: wants.blocks,
        };
        let (log, quiet) = (&shared.log, quiet.max(progress.place.borrow().number));
        let reader = Reader::of_selection(log, &shared.dispatch, filter.clone(), quiet);
        let lookahead = Lookahead::new(log, &shared.reads, reader);
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

    pub(super) fn end(self: &Arc<Self>, reason: EndReason) {
        self.ended.cancel();
        self.leases.close(reason);
        let ended = self.clone();
        // Behind a look that is under way.
        tokio::spawn(async move { ended.lookahead.lock().await.leave() });
    }

    pub fn place(&self) -> ConsumerPlace {
        *self.progress.place.borrow()
    }

    /// What it has not acknowledged, as far as one look goes.
    pub async fn unread(self: &Arc<Self>) -> Result<Unread, ApiError> {
        self.unread_within(self.shared.look_most).await
    }

    /// The same, as far as a look at so many numbers of the log goes.
    pub(super) async fn unread_within(self: &Arc<Self>, most: u64) -> Result<Unread, ApiError> {
        let consumer = self.clone();
        // In a task of its own: whoever asks may not be polled again for long, and everybody who
        // acknowledges or asks waits for the lock that is held meanwhile.
        run_detached(async move {
            let mut lookahead = consumer.lookahead.lock().await;
            let follow = !consumer.ended.is_cancelled();
            lookahead.look(consumer.place().number, most, follow).await
        })
        .await
    }

    /// Moves the place forward to `number`, which was read under `lease`, if under one; stays where
    /// it is when it is there or further already. `more` is written with it. Where it is then; why
    /// not, and nothing was written, when the lease or the consumer has ended. To be run to its
    /// end, as [`super::Consumers::forget`].
    pub async fn move_to(
        &self,
        number: u64,
        lease: Option<LeaseId>,
        mut more: Vec<ConsumerEdit>,
        now: u64,
    ) -> Result<Result<ConsumerPlace, EndReason>, ApiError> {
        let _kept = self.shared.retention.read().await;
        let _moving = self.progress.moving.lock().await;
        let ended = match lease {
            Some(lease) => self.leases.ended(lease),
            None => self.leases.closed(),
        };
        if let Some(reason) = ended {
            return Ok(Err(reason));
        }
        let (place, moved) = (self.place(), ConsumerPlace { number, moved: now });
        let moved = if number > place.number { moved } else { place };
        if moved != place {
            more.push(ConsumerEdit::Move(moved));
        }
        if !more.is_empty() {
            self.shared.write(&self.name, more, false).await?;
        }
        self.progress.place.send_replace(moved);
        Ok(Ok(moved))
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

    /// The quiet number in the store, or an older one.
    pub(super) fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Looks until what is unread is certain.
    pub(super) async fn look_through(self: &Arc<Self>) -> Result<(), ApiError> {
        while !self.unread().await?.is_certain() {}
        Ok(())
    }

    /// Writes its quiet number down, while nobody moves or changes it. Not when it has missed
    /// something: that is to be found again. False, and nothing was written, when one look does not
    /// tell what is unread.
    pub(super) async fn keep_quiet(self: &Arc<Self>) -> Result<bool, ApiError> {
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
