//! Reading for a request: up to so many events, now or when there are some.

use std::sync::Arc;

use futures_util::future::OptionFuture;

use super::page::LogEntry;
use super::reader::Reader;
use super::source::{PAGE_BYTES, PageError};

/// Numbers of the log that are looked at for one request: a selection that matches nothing must not
/// read the whole log at once.
const LOOK_MOST: u64 = 50_000;

/// Part of the log.
#[derive(Debug)]
pub struct Batch {
    /// What is wanted, in order.
    pub events: Vec<Arc<LogEntry>>,
    /// What they take, about.
    pub bytes: usize,
    /// Nothing that is wanted is between the last event and this number.
    pub next: u64,
    /// Number of the last event in the log when this was read.
    pub head: u64,
}

impl Reader<()> {
    /// Up to `limit` events after a number, and not many more than [`PAGE_BYTES`]. When the log has
    /// none, waits for some until `enough` is over, if there is one; dispatch knows of the reader
    /// from its first waiting on. It may be given up at any moment.
    pub async fn read_batch(
        &mut self,
        after: u64,
        limit: usize,
        enough: Option<impl Future<Output = ()>>,
    ) -> Result<Batch, PageError> {
        self.go_to(after);
        let head = self.log().head();
        let end = self.end_within(LOOK_MOST, head);
        let can_wait = enough.is_some();
        let mut enough = std::pin::pin!(OptionFuture::from(enough));
        let (mut events, mut bytes, mut is_waiting) = (Vec::new(), 0_usize, false);
        while events.len() < limit && bytes < PAGE_BYTES {
            let given = tokio::select! {
                biased;
                given = self.next_event() => given?,
                Some(()) = &mut enough => break,
            };
            match given {
                Some(event) => {
                    if std::mem::take(&mut is_waiting) {
                        // And what was written with it.
                        let until = self.log().head().max(self.place());
                        self.put(until, ());
                    }
                    bytes = bytes.saturating_add(event.weight());
                    events.push(event);
                }
                None if can_wait && events.is_empty() && end >= head => {
                    is_waiting = true;
                    self.follow().await?;
                }
                None => break,
            }
        }
        Ok(Batch {
            events,
            bytes,
            next: self.place(),
            // The store may be ahead of what was announced.
            head: self.log().head().max(self.place()),
        })
    }
}
