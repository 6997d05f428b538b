//! Pages of the log as they are sent, shared by all who are told from it.
//!
//! A burst that overruns one client overruns many, and they then want the same pages at about the
//! same time. So the last few pages are kept, as many as their bytes allow, and each event in them
//! is encoded once, when the first one wants it. At most [`TURNS`] read the disk at a time, so that
//! live delivery has the machine to itself. Who waits for its client gives its page back first: a
//! thousand slow clients hold no page each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hyper::StatusCode;
use tokio::sync::Semaphore;

use super::{PAGE, Wire};
use crate::api::error::ApiError;
use crate::api::subscriptions::Topic;
use crate::socketio::Encoded;
use crate::store::{Reader, StoreError};
use crate::tracker::{Event, EventKind};

/// Pages that are kept.
const KEPT: usize = 8;
/// Bytes of all of them, about. One is kept whatever it has.
const KEPT_BYTES: usize = 32 << 20;
/// A page ends behind the event with which it has this many bytes, about.
const PAGE_BYTES: usize = 4 << 20;
/// Events read from the disk before we look at their bytes.
const STEP: usize = 100;
/// Who reads the disk at a time.
const TURNS: usize = 2;

pub struct Entry {
    pub number: u64,
    pub topic: Topic,
    event: Event,
    encoded: OnceLock<Option<Encoded>>,
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

impl Entry {
    /// `None` cannot happen: it is our own JSON under our own names.
    pub fn encoded(&self, wire: &Wire) -> Option<&Encoded> {
        let encode = || {
            wire.encode(self.number, &self.event)
                .inspect_err(|cause| tracing::error!(self.number, %cause, "not encoded"))
                .ok()
        };
        self.encoded.get_or_init(encode).as_ref()
    }
}

/// All events after one number up to another.
pub struct Page {
    after: u64,
    /// The last number that is looked at here. Numbers may be skipped, so it need not be an
    /// event's.
    pub next: u64,
    /// It went to the end of the log when it was read.
    pub is_last: bool,
    bytes: usize,
    entries: Vec<Entry>,
}

impl Page {
    /// Those after `number`.
    pub fn after(&self, number: u64) -> &[Entry] {
        let place = self.entries.partition_point(|entry| entry.number <= number);
        self.entries.get(place..).unwrap_or_default()
    }

    fn has_more_than(&self, number: u64) -> bool {
        (self.after..self.next).contains(&number)
    }
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    #[error("retention has taken what comes next")]
    Expired,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("reading was given up")]
    Stopped,
}

impl From<PageError> for ApiError {
    fn from(error: PageError) -> Self {
        match error {
            PageError::Stopped => Self::stopping(),
            PageError::Expired => {
                let message = "Events that were still owed to you were deleted (events.retention_days). Subscribe again, and go on from the balance and cursor in the answer.";
                Self::new(StatusCode::GONE, "cursor_expired", message)
            }
            cause => Self::internal(&cause),
        }
    }
}

pub struct Pages {
    reader: Reader,
    pub wire: Wire,
    kept: Mutex<VecDeque<Arc<Page>>>,
    turns: Semaphore,
}

impl Pages {
    pub fn new(reader: Reader, wire: Wire) -> Self {
        Self {
            reader,
            wire,
            kept: Mutex::default(),
            turns: Semaphore::new(TURNS),
        }
    }

    pub fn head(&self) -> Result<u64, StoreError> {
        self.reader.snapshot().head()
    }

    /// What comes after `number`, up to a page of it.
    pub async fn page(self: &Arc<Self>, number: u64) -> Result<Arc<Page>, PageError> {
        if let Some(page) = self.kept(number) {
            return Ok(page);
        }
        let _turn = self.turns.acquire().await.map_err(|_| PageError::Stopped)?;
        let pages = self.clone();
        tokio::task::spawn_blocking(move || pages.page_now(number))
            .await
            .map_err(|_| PageError::Stopped)?
    }

    /// The same, for one who may block the thread.
    pub fn page_now(&self, number: u64) -> Result<Arc<Page>, PageError> {
        if let Some(page) = self.kept(number) {
            return Ok(page);
        }
        let head = self.head()?;
        let (mut entries, mut bytes, mut last, mut is_last) = (Vec::new(), 0_usize, number, false);
        while !is_last && entries.len() < PAGE && bytes < PAGE_BYTES {
            let events = self.reader.read_events(last, STEP)?;
            is_last = events.len() < STEP;
            for (number, event) in events {
                last = number;
                bytes = bytes.saturating_add(weight(&event));
                entries.push(Entry {
                    number,
                    topic: Topic::of(&event.kind),
                    event,
                    encoded: OnceLock::new(),
                });
                if bytes >= PAGE_BYTES {
                    is_last = false;
                    break;
                }
            }
        }
        // Afterwards: retention may have taken some while we looked.
        if number.saturating_add(1) < self.reader.first_seq()? {
            return Err(PageError::Expired);
        }
        let next = if is_last { last.max(head) } else { last };
        let page = Arc::new(Page {
            after: number,
            next,
            is_last,
            bytes,
            entries,
        });
        self.keep(&page);
        Ok(page)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Page>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self, number: u64) -> Option<Arc<Page>> {
        self.lock()
            .iter()
            .filter(|page| page.has_more_than(number))
            .max_by_key(|page| page.next)
            .cloned()
    }

    fn keep(&self, page: &Arc<Page>) {
        if page.entries.is_empty() {
            return;
        }
        let mut kept = self.lock();
        kept.retain(|other| other.after < page.after || other.next > page.next);
        kept.push_back(page.clone());
        let bytes = |kept: &VecDeque<Arc<Page>>| {
            kept.iter()
                .map(|page| page.bytes)
                .fold(0, usize::saturating_add)
        };
        while kept.len() > 1 && (kept.len() > KEPT || bytes(&kept) > KEPT_BYTES) {
            kept.pop_front();
        }
    }

    /// Nobody is behind any more.
    pub fn forget(&self) {
        self.lock().clear();
    }
}
