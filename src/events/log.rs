//! The log in pages, shared by all who read it.
//!
//! A page is read once for everybody who wants it, each event in it is encoded once, when the first
//! one wants it, and the places of each topic in it are known, so that a reader finds its own
//! events without walking over those of others. The newest page is read by dispatch right behind
//! the commit; older ones are read off the runtime, at most [`Source::reads`] at a time. What the
//! cache holds is bounded in bytes. Where the log is kept is its [`Source`]'s to know.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::page::Page;
use super::source::{PageError, Source};
use crate::wire::EventEncoder;

/// Pages that are kept, and bytes of all of them, about. One is kept whatever it has.
const KEPT: usize = 1024;
const KEPT_BYTES: usize = 32 << 20;
/// How exactly and how far back we know when an event was written.
const MOMENT: Duration = Duration::from_millis(100);
const MOMENTS: usize = 600;

#[derive(Default)]
pub(super) struct Cache {
    /// By the number after which each begins.
    pages: BTreeMap<u64, Arc<Page>>,
    /// As they came; the oldest goes first.
    order: VecDeque<u64>,
    bytes: usize,
}

impl Cache {
    pub(super) fn get(&self, number: u64) -> Option<Arc<Page>> {
        let (_, page) = self.pages.range(..=number).next_back()?;
        page.covers(number).then(|| page.clone())
    }

    pub(super) fn insert(&mut self, page: &Arc<Page>) {
        if page.is_empty() || self.get(page.after).is_some_and(|it| it.next >= page.next) {
            return;
        }
        if let Some(old) = self.pages.insert(page.after, page.clone()) {
            self.bytes = self.bytes.saturating_sub(old.bytes);
            self.order.retain(|after| *after != page.after);
        }
        self.order.push_back(page.after);
        self.bytes = self.bytes.saturating_add(page.bytes);
        while self.pages.len() > 1 && (self.pages.len() > KEPT || self.bytes > KEPT_BYTES) {
            let oldest = self.order.pop_front();
            if let Some(page) = oldest.and_then(|after| self.pages.remove(&after)) {
                self.bytes = self.bytes.saturating_sub(page.bytes);
            }
        }
    }
}

/// The log as its readers see it.
pub struct EventLog {
    source: Arc<dyn Source>,
    pub encoder: EventEncoder,
    head: watch::Receiver<u64>,
    cache: Mutex<Cache>,
    /// When the log had come to which number.
    moments: Mutex<VecDeque<(u64, Instant)>>,
    reads: Arc<Semaphore>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No call under the locks can leave them half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EventLog {
    /// `head`: the number of the last event, after each commit.
    pub fn new(
        source: impl Source,
        encoder: EventEncoder,
        head: watch::Receiver<u64>,
    ) -> Arc<Self> {
        let reads = Arc::new(Semaphore::new(source.reads()));
        Arc::new(Self {
            source: Arc::new(source),
            encoder,
            head,
            cache: Mutex::default(),
            moments: Mutex::default(),
            reads,
        })
    }

    /// Number of the last event that was written.
    pub fn head(&self) -> u64 {
        *self.head.borrow()
    }

    pub(super) fn commits(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    /// What comes after `number`, if it is in memory.
    pub fn cached(&self, number: u64) -> Option<Arc<Page>> {
        lock(&self.cache).get(number)
    }

    /// What comes after `number`, up to a page of it. Its `next` is beyond `number` unless the log
    /// ends there.
    pub async fn page(self: Arc<Self>, number: u64) -> Result<Arc<Page>, PageError> {
        if let Some(page) = self.page_at_hand(number) {
            return page;
        }
        // In a task of its own: whoever asks may not look again for long, and must not keep a turn,
        // nor a place in front of others, meanwhile.
        let read = async move {
            let turn = self.reads.clone().acquire_owned().await;
            let turn = turn.map_err(|_| PageError::Stopped)?;
            // The turn is given back when the read is done, also when nobody waits for it any more.
            let read = tokio::spawn(async move {
                let page = self.read(number).await;
                drop(turn);
                page
            });
            read.await.map_err(|_| PageError::Stopped)?
        };
        AbortOnDropHandle::new(tokio::spawn(read))
            .await
            .map_err(|_| PageError::Stopped)?
    }

    /// The same for dispatch, which everybody waits for: it waits for nobody's turn.
    pub(super) async fn newest_page(&self, number: u64) -> Result<Arc<Page>, PageError> {
        match self.page_at_hand(number) {
            Some(page) => page,
            None => self.read(number).await,
        }
    }

    /// From memory, or so few new events that they are read here.
    fn page_at_hand(&self, number: u64) -> Option<Result<Arc<Page>, PageError>> {
        if let Some(page) = self.cached(number) {
            return Some(Ok(page));
        }
        let read = self.source.read_near(number, self.head())?;
        Some(read.map(|page| self.keep(page)))
    }

    async fn read(&self, number: u64) -> Result<Arc<Page>, PageError> {
        match self.cached(number) {
            Some(page) => Ok(page),
            None => Ok(self.keep(self.source.read(number).await?)),
        }
    }

    /// Has it at hand for others, too.
    pub fn keep(&self, page: Page) -> Arc<Page> {
        let page = Arc::new(page);
        lock(&self.cache).insert(&page);
        page
    }

    /// As when nobody has read any of it lately.
    #[cfg(test)]
    pub fn forget_pages(&self) {
        *lock(&self.cache) = Cache::default();
    }

    /// The log has come to this number.
    pub fn note_moment(&self, number: u64, now: Instant) {
        let mut moments = lock(&self.moments);
        match moments.back_mut() {
            // The older moment stays: it is when the first of them was written.
            Some((last, at)) if now.saturating_duration_since(*at) < MOMENT => *last = number,
            _ => moments.push_back((number, now)),
        }
        while moments.len() > MOMENTS {
            moments.pop_front();
        }
    }

    /// How long ago the event with this number was written: at least so long when that is far back.
    pub(super) fn age(&self, number: u64, now: Instant) -> Duration {
        let moments = lock(&self.moments);
        let place = moments.partition_point(|(last, _)| *last < number);
        moments
            .get(place)
            .map_or(Duration::ZERO, |(_, at)| now.saturating_duration_since(*at))
    }
}
