//! Where a log is kept, as [`EventLog`](super::EventLog) reads it: in the store of this daemon.
//!
//! Numbers that were skipped and events that retention has taken are dealt with here and nowhere
//! else.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::spawn_blocking;

use super::page::{Page, weight};
use crate::store::{StoreError, StoreReader};
use crate::wire::ApiError;

/// Events of a page at most.
pub const PAGE: usize = 1000;
/// A page ends behind the event with which it has this many bytes, about.
pub const PAGE_BYTES: usize = 4 << 20;
/// Events read from the store before we look at their bytes.
const STEP: usize = 100;
/// Who reads older pages at a time.
const READS: usize = 2;
/// As many new events are read on the spot: they are in memory still, and it takes microseconds.
const NEAR: u64 = 32;

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

impl From<PageError> for ApiError {
    fn from(error: PageError) -> Self {
        match error {
            PageError::Stopped => Self::stopping(),
            cause @ (PageError::Expired | PageError::Store(_)) => Self::internal(&cause),
        }
    }
}

/// Where a log is kept.
pub trait Source: Send + Sync + 'static {
    /// Who reads older pages at a time.
    fn reads(&self) -> usize;

    /// What comes after a number, up to a page of it. Its `next` is beyond the number unless the
    /// log ends there. It holds up no thread of the runtime, and goes on to its end when nobody
    /// waits for it any more.
    fn read(&self, after: u64) -> BoxFuture<'static, Result<Page, PageError>>;

    /// The same on the spot, if it takes microseconds. `head`: the last event's number.
    fn read_near(&self, after: u64, head: u64) -> Option<Result<Page, PageError>>;
}

impl Source for StoreReader {
    fn reads(&self) -> usize {
        READS
    }

    fn read(&self, after: u64) -> BoxFuture<'static, Result<Page, PageError>> {
        let store = self.clone();
        let read = spawn_blocking(move || read_store(&store, after));
        async move { read.await.map_err(|_| PageError::Stopped)? }.boxed()
    }

    fn read_near(&self, after: u64, head: u64) -> Option<Result<Page, PageError>> {
        (head.saturating_sub(after) <= NEAR).then(|| read_store(self, after))
    }
}

fn read_store(store: &StoreReader, after: u64) -> Result<Page, PageError> {
    let head = store.snapshot().head()?;
    let (mut events, mut bytes, mut last, mut is_end) = (Vec::new(), 0_usize, after, false);
    while !is_end && events.len() < PAGE && bytes < PAGE_BYTES {
        let read = store.read_events(last, STEP)?;
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
    if after.saturating_add(1) < store.first_seq()? {
        return Err(PageError::Expired);
    }
    // Numbers may be skipped: none of those up to the head is left.
    let next = if is_end { last.max(head) } else { last };
    Ok(Page::of_events(after, next, events))
}
