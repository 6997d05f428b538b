//! The log in pages, shared by all who read it.
//!
//! A page is read once for everybody who wants it, each event in it is encoded once, when the first
//! one wants it, and the places of each topic in it are known, so that a reader finds its own
//! events without walking over those of others. The newest page is read by dispatch right behind
//! the commit; older ones are read off the runtime, at most [`READS`] at a time. What the cache
//! holds is bounded in bytes. Numbers that were skipped and events that retention has taken are
//! dealt with in [`EventLog::read`] and nowhere else.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::dispatch::DispatchStopped;
use super::filter::{Topic, TopicFilter};
use crate::store::{StoreError, StoreReader};
use crate::tracker::{Event, EventKind};
use crate::wire::{ApiError, EncodedEvent, EventEncoder};

/// Events of a page at most.
pub const PAGE: usize = 1000;
/// A page ends behind the event with which it has this many bytes, about.
pub(super) const PAGE_BYTES: usize = 4 << 20;
/// Events read from the store before we look at their bytes.
const STEP: usize = 100;
/// Pages that are kept, and bytes of all of them, about. One is kept whatever it has.
const KEPT: usize = 1024;
const KEPT_BYTES: usize = 32 << 20;
/// Who reads older pages at a time.
const READS: usize = 2;
/// As many new events are read on the spot: they are in memory still, and it takes microseconds.
const NEAR: u64 = 32;
/// With up to this many topics a reader asks the page for the places of each.
const FEW: usize = 8;
/// How exactly and how far back we know when an event was written.
const MOMENT: Duration = Duration::from_millis(100);
const MOMENTS: usize = 600;

/// One event of a page, shared by all readers.
pub struct LogEntry {
    pub number: u64,
    pub topic: Topic,
    pub event: Event,
    encoded: OnceLock<Option<EncodedEvent>>,
}

impl fmt::Debug for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogEntry").field(&self.number).finish()
    }
}

impl LogEntry {
    /// What it takes, about.
    pub(super) fn weight(&self) -> usize {
        weight(&self.event)
    }

    /// The event as every subscriber gets it. `None` cannot happen: it is our own JSON under our
    /// own names.
    pub fn encoded(&self, encoder: &EventEncoder) -> Option<&EncodedEvent> {
        let encode = || {
            encoder
                .encode(self.number, &self.event)
                .inspect_err(|cause| tracing::error!(self.number, %cause, "not encoded"))
                .ok()
        };
        self.encoded.get_or_init(encode).as_ref()
    }
}

/// What an event takes as it is and encoded, about. Only a list of transactions can be long: a
/// block may pay one address in each of its own.
fn weight(event: &Event) -> usize {
    let transactions = if let EventKind::NewTransactions { transactions, .. } = &event.kind {
        transactions.len()
    } else {
        1
    };
    transactions.saturating_add(1).saturating_mul(600)
}

/// All events after one number up to another.
pub struct Page {
    after: u64,
    /// The last number that is looked at here. Numbers may be skipped, so it need not be an
    /// event's.
    pub next: u64,
    bytes: usize,
    entries: Vec<Arc<LogEntry>>,
    topics: HashMap<Topic, Vec<Arc<LogEntry>>>,
}

impl Page {
    pub(super) fn new(after: u64, next: u64, events: Vec<(u64, Event)>) -> Self {
        let mut topics: HashMap<Topic, Vec<Arc<LogEntry>>> = HashMap::new();
        let (mut entries, mut bytes) = (Vec::with_capacity(events.len()), 0_usize);
        for (number, event) in events {
            let topic = Topic::of(&event.kind);
            bytes = bytes.saturating_add(weight(&event));
            let entry = Arc::new(LogEntry {
                number,
                topic,
                event,
                encoded: OnceLock::new(),
            });
            topics.entry(topic).or_default().push(entry.clone());
            entries.push(entry);
        }
        Self {
            after,
            next,
            bytes,
            entries,
            topics,
        }
    }

    /// The events after this number.
    pub fn entries_after(&self, number: u64) -> &[Arc<LogEntry>] {
        let start = self.entries.partition_point(|entry| entry.number <= number);
        self.entries.get(start..).unwrap_or_default()
    }

    fn covers(&self, number: u64) -> bool {
        (self.after..self.next).contains(&number)
    }

    /// The first event after `number` that the filter wants.
    pub(super) fn next_wanted(
        &self,
        number: u64,
        filter: &TopicFilter<'_>,
    ) -> Option<&Arc<LogEntry>> {
        let of = |topic: &Topic, from: u64| {
            let entries = self.topics.get(topic)?;
            entries.get(entries.partition_point(|it| it.number <= from.max(number)))
        };
        match filter {
            // The usual case: one payment, one address.
            TopicFilter::Topics(topics) if topics.len() <= FEW && self.entries.len() <= FEW => {
                let is_wanted = |entry: &&Arc<LogEntry>| {
                    let is_wanted = |(topic, from): (&Topic, &u64)| {
                        *topic == entry.topic && entry.number > *from.max(&number)
                    };
                    topics.iter().any(is_wanted)
                };
                self.entries.iter().find(is_wanted)
            }
            TopicFilter::Topics(topics) if topics.len() <= FEW => topics
                .iter()
                .filter_map(|(topic, from)| of(topic, *from))
                .min_by_key(|entry| entry.number),
            TopicFilter::Selection(selection) if selection.names().is_some_and(|it| it <= FEW) => {
                let first = selection.topics().filter_map(|topic| of(&topic, 0));
                first.min_by_key(|entry| entry.number)
            }
            filter => {
                let mut later = self.entries_after(number).iter();
                later.find(|entry| filter.wants(&entry.topic, entry.number))
            }
        }
    }
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    #[error("retention has taken what comes next")]
    Expired,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the daemon is stopping")]
    Stopped,
}

impl From<DispatchStopped> for PageError {
    fn from(_: DispatchStopped) -> Self {
        Self::Stopped
    }
}

impl From<PageError> for ApiError {
    fn from(error: PageError) -> Self {
        match error {
            PageError::Stopped => Self::stopping(),
            cause @ (PageError::Expired | PageError::Store(_)) => Self::internal(&cause),
        }
    }
}

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
        if page.entries.is_empty() || self.get(page.after).is_some_and(|it| it.next >= page.next) {
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
    reader: StoreReader,
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
        reader: StoreReader,
        encoder: EventEncoder,
        head: watch::Receiver<u64>,
    ) -> Arc<Self> {
        Arc::new(Self {
            reader,
            encoder,
            head,
            cache: Mutex::default(),
            moments: Mutex::default(),
            reads: Arc::new(Semaphore::new(READS)),
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
            self.read_apart(number, Some(turn.map_err(|_| PageError::Stopped)?))
                .await
        };
        AbortOnDropHandle::new(tokio::spawn(read))
            .await
            .map_err(|_| PageError::Stopped)?
    }

    /// The same for dispatch, which everybody waits for: it waits for nobody's turn.
    pub(super) async fn newest_page(self: Arc<Self>, number: u64) -> Result<Arc<Page>, PageError> {
        match self.page_at_hand(number) {
            Some(page) => page,
            None => self.read_apart(number, None).await,
        }
    }

    /// From memory, or so few new events that they are read here.
    fn page_at_hand(&self, number: u64) -> Option<Result<Arc<Page>, PageError>> {
        if let Some(page) = self.cached(number) {
            return Some(Ok(page));
        }
        (self.head().saturating_sub(number) <= NEAR).then(|| self.read(number))
    }

    /// Reads off the runtime. The turn is given back when the read is done, also when nobody waits
    /// for it any more.
    async fn read_apart(
        self: Arc<Self>,
        number: u64,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Arc<Page>, PageError> {
        let read = move || {
            let _turn = turn;
            self.cached(number).map_or_else(|| self.read(number), Ok)
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| PageError::Stopped)?
    }

    /// As when nobody has read any of it lately.
    #[cfg(test)]
    pub fn forget_pages(&self) {
        *lock(&self.cache) = Cache::default();
    }

    fn read(&self, number: u64) -> Result<Arc<Page>, PageError> {
        let head = self.reader.snapshot().head()?;
        let (mut events, mut bytes, mut last, mut is_end) = (Vec::new(), 0_usize, number, false);
        while !is_end && events.len() < PAGE && bytes < PAGE_BYTES {
            let read = self.reader.read_events(last, STEP)?;
            is_end = read.len() < STEP;
            for (number, event) in read {
                if bytes >= PAGE_BYTES {
                    is_end = false;
                    break;
                }
                last = number;
                bytes = bytes.saturating_add(weight(&event));
                events.push((number, event));
            }
        }
        // Afterwards: retention may have taken some while we looked.
        if number.saturating_add(1) < self.reader.first_seq()? {
            return Err(PageError::Expired);
        }
        // Numbers may be skipped: none of those up to the head is left.
        let next = if is_end { last.max(head) } else { last };
        let page = Arc::new(Page::new(number, next, events));
        lock(&self.cache).insert(&page);
        Ok(page)
    }

    /// The log has come to this number.
    pub(super) fn note_moment(&self, number: u64, now: Instant) {
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
