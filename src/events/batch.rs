//! Reading for a request: up to so many events, now or when there are some.

use std::sync::Arc;

use super::dispatch::Handle;
use super::filter::Selection;
use super::log::{Entry, EventLog, PAGE_BYTES, PageError};
use super::reader::{Given, Reader};

/// Numbers of the log that are looked at for one request: a selection that matches nothing must not
/// read the whole log at once.
const LOOK_MOST: u64 = 50_000;

/// Part of the log.
#[derive(Debug)]
pub struct Batch {
    /// What is wanted, in order.
    pub events: Vec<Arc<Entry>>,
    /// What they take, about.
    pub bytes: usize,
    /// Nothing that is wanted is between the last event and this number.
    pub next: u64,
    /// Number of the last event in the log when this was read.
    pub head: u64,
}

/// What is to be read.
#[derive(Debug)]
pub struct Request {
    pub selection: Selection,
    pub after: u64,
    pub limit: usize,
}

/// Up to `limit` events after a number, and not many more than [`PAGE_BYTES`]. When the log has
/// none, waits for some until `enough` is over, if there is one.
pub async fn read(
    log: &Arc<EventLog>,
    dispatch: &Handle,
    request: Request,
    enough: Option<impl Future<Output = ()>>,
) -> Result<Batch, PageError> {
    let Request {
        selection,
        after,
        limit,
    } = request;
    let mut reader = BatchReader::new(log, dispatch, selection, after);
    reader.read(after, limit, enough).await
}

/// Reads one batch after the other. Dispatch knows of it from its first waiting on.
pub struct BatchReader {
    log: Arc<EventLog>,
    dispatch: Handle,
    selection: Selection,
    reader: Reader<()>,
    follows: bool,
}

impl BatchReader {
    /// Begins after the number `after`.
    pub fn new(log: &Arc<EventLog>, dispatch: &Handle, selection: Selection, after: u64) -> Self {
        Self {
            log: log.clone(),
            dispatch: dispatch.clone(),
            reader: Reader::of_selection(log, dispatch, selection.clone(), after),
            selection,
            follows: false,
        }
    }

    #[cfg(test)]
    pub fn follows(&self) -> bool {
        self.follows
    }

    fn go_to(&mut self, after: u64) {
        let is_half_known = self.reader.registration().is_known() && !self.follows;
        if after < self.reader.place() || is_half_known {
            // A reader does not go back; and one that was given up while dispatch learned of it may
            // have been passed by events that it was not marked for.
            *self = Self::new(&self.log, &self.dispatch, self.selection.clone(), after);
        }
        self.reader.skip_to(after);
    }

    /// As [`read`]. It may be given up at any moment.
    pub async fn read(
        &mut self,
        after: u64,
        limit: usize,
        enough: Option<impl Future<Output = ()>>,
    ) -> Result<Batch, PageError> {
        self.go_to(after);
        let head = self.log.head();
        let end = self.reader.end_within(LOOK_MOST, head);
        let can_wait = enough.is_some();
        let enough = async {
            match enough {
                Some(enough) => enough.await,
                None => std::future::pending().await,
            }
        };
        let mut enough = std::pin::pin!(enough);
        let (mut events, mut bytes, mut is_waiting) = (Vec::new(), 0_usize, false);
        while events.len() < limit && bytes < PAGE_BYTES {
            let given = tokio::select! {
                biased;
                given = self.reader.next() => given?,
                () = &mut enough => break,
            };
            match given {
                Given::Event(event) => {
                    if std::mem::take(&mut is_waiting) {
                        // And what was written with it.
                        let until = self.log.head().max(self.reader.place());
                        self.reader.put(until, ());
                    }
                    bytes = bytes.saturating_add(event.weight());
                    events.push(event);
                }
                Given::Item(()) if can_wait && events.is_empty() && end >= head => {
                    is_waiting = true;
                    self.follow().await?;
                }
                Given::Item(()) => break,
                Given::Lagged { .. } | Given::CaughtUp { .. } | Given::Notice(_) => {}
            }
        }
        Ok(Batch {
            events,
            bytes,
            next: self.reader.place(),
            // The store may be ahead of what was announced.
            head: self.log.head().max(self.reader.place()),
        })
    }

    /// What was written until dispatch knows of it, it reads by itself.
    async fn follow(&mut self) -> Result<(), PageError> {
        if !self.follows {
            let followed = self.reader.follow().await;
            followed.map_err(|_| PageError::Stopped)?;
            self.follows = true;
        }
        Ok(())
    }
}
