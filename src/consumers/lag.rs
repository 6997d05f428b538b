//! How far behind a consumer is, and where reading it begins: at its quiet number.
//!
//! A reader of the log of its own looks ahead of the consumer's place for the first event that the
//! consumer wants, and stays there until that one is acknowledged. So each event is looked at once,
//! and while there is none for the consumer its reader is at the end of the log without reading it
//! (`crate::events`, rule 1). It looks when somebody asks, and can be given up at any moment.

use std::sync::Arc;

use crate::events::{EventLog, Handle, PageError, Reader, Selection};
use crate::store;

/// What a consumer has not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread {
    /// The quiet number: nothing that the consumer wants is between its place and here.
    pub after: u64,
    /// Number of the last event of the log.
    pub head: u64,
    /// When the oldest happened, in milliseconds since the Unix epoch; `None`: there are none.
    oldest: Option<u64>,
    /// Retention has taken events behind its place up to here, some that it wants among them.
    pub missed: Option<u64>,
}

impl Unread {
    /// Numbers from the oldest unread event to the end of the log; 0 when there is none.
    pub fn lag(&self) -> u64 {
        match self.oldest {
            Some(_) => self.head.saturating_sub(self.after),
            None => 0,
        }
    }

    /// Age of the oldest unread event in milliseconds; 0 when there is none.
    pub fn age(&self, now: u64) -> u64 {
        self.oldest.map_or(0, |time| now.saturating_sub(time))
    }
}

#[derive(Debug, Clone, Copy)]
struct Found {
    number: u64,
    time: u64,
}

/// The reader that looks ahead of one definition of a consumer.
pub struct Lookahead {
    log: Arc<EventLog>,
    store: store::StoreReader,
    reader: Reader<()>,
    is_registered: bool,
    /// The first event behind the consumer's place that it wants.
    found: Option<Found>,
    /// What retention has taken before it was acknowledged.
    missed: u64,
    /// The quiet number in the store, or an older one.
    pub(super) kept: u64,
}

impl Lookahead {
    /// `quiet`: nothing that is wanted is between the consumer's place and there.
    pub fn new(
        log: &Arc<EventLog>,
        dispatch: &Handle,
        store: &store::StoreReader,
        filter: &Selection,
        quiet: u64,
    ) -> Self {
        Self {
            log: log.clone(),
            store: store.clone(),
            reader: Reader::of_selection(log, dispatch, filter.clone(), quiet),
            is_registered: false,
            found: None,
            missed: 0,
            kept: quiet,
        }
    }

    /// What is unread when everything up to `acked` is done.
    pub async fn look(&mut self, acked: u64) -> Result<Unread, PageError> {
        if !self.is_registered {
            let registered = self.reader.follow().await;
            registered.map_err(|_| PageError::Stopped)?;
            self.is_registered = true;
        }
        let head = self.log.head();
        while !self.is_at_unread(acked)? {
            self.found = None;
            self.reader.skip_to(acked.max(self.missed));
            match self.reader.next_until(head).await {
                Ok(Some(event)) => {
                    self.found = Some(Found {
                        number: event.number,
                        time: event.event.time,
                    });
                }
                Ok(None) => break,
                Err(PageError::Expired) => self.miss()?,
                Err(cause) => return Err(cause),
            }
        }
        let after = match self.found {
            Some(found) => found.number.saturating_sub(1),
            None => self.reader.place(),
        };
        Ok(Unread {
            after,
            head: self.log.head().max(after),
            oldest: self.found.map(|found| found.time),
            missed: (self.missed > acked).then_some(self.missed),
        })
    }

    /// Whether the event that was found is unread and still in the log.
    fn is_at_unread(&mut self, acked: u64) -> Result<bool, PageError> {
        let Some(found) = self.found.filter(|found| found.number > acked) else {
            return Ok(false);
        };
        let is_kept = found.number >= self.store.first_seq()?;
        if !is_kept {
            self.miss()?;
        }
        Ok(is_kept)
    }

    /// Retention has taken what it had not come past.
    fn miss(&mut self) -> Result<(), PageError> {
        self.missed = self.store.first_seq()?.saturating_sub(1);
        Ok(())
    }
}
