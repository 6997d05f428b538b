//! How far behind a consumer is, and where reading it begins: at its quiet number.
//!
//! A reader of the log of its own looks ahead of the consumer's place for the first event that the
//! consumer wants, and stays there until that one is acknowledged. So each event is looked at once,
//! and while there is none for the consumer its reader is at the end of the log without reading it
//! (`crate::events`, rule 1). It looks when somebody asks, and can be given up at any moment.
//!
//! A look goes only so far: after a restart there may be millions of events that the consumer does
//! not want. It answers with what it knows then, and the next one goes on there.

use std::sync::Arc;

use crate::events::{EventLog, Handle, PageError, Reader, Selection};
use crate::store;

/// Numbers of the log that one look goes through at most.
pub const LOOK_MOST: u64 = 50_000;

/// What a consumer has not acknowledged, as far as was looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread {
    /// The number that was acknowledged when it was looked.
    pub acked: u64,
    /// The quiet number: nothing that the consumer wants is between its place and here.
    pub after: u64,
    /// Number of the last event of the log.
    pub head: u64,
    /// Numbers between the two that were given to some event.
    behind: u64,
    /// When the oldest happened, in milliseconds since the Unix epoch; `None`: none was found.
    oldest: Option<u64>,
    /// Retention has taken events behind its place up to here, some that it wants among them.
    pub missed: Option<u64>,
}

impl Unread {
    /// Numbers from the oldest unread event, or from where nobody has looked yet, to the end of the
    /// log; 0 when there is none.
    pub fn lag(&self) -> u64 {
        self.behind
    }

    /// The oldest unread event was found, or that there is none.
    pub fn is_certain(&self) -> bool {
        self.oldest.is_some() || self.after >= self.head
    }

    /// Age of the oldest unread event in milliseconds; 0 when none was found.
    pub fn age(&self, now: u64) -> u64 {
        self.oldest.map_or(0, |time| now.saturating_sub(time))
    }
}

#[derive(Debug, Clone, Copy)]
struct Found {
    number: u64,
    time: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registered {
    /// With the first look.
    NotYet,
    Yes,
    /// The definition has ended.
    NoMore,
}

/// The reader that looks ahead of one definition of a consumer.
pub struct Lookahead {
    log: Arc<EventLog>,
    store: store::StoreReader,
    dispatch: Handle,
    selection: Selection,
    reader: Reader<()>,
    registration: Registered,
    /// The first event behind the consumer's place that it wants.
    found: Option<Found>,
    /// What retention has taken before it was acknowledged.
    missed: u64,
}

impl Lookahead {
    /// `quiet`: nothing that is wanted is between the consumer's place and there.
    pub fn new(
        log: &Arc<EventLog>,
        dispatch: &Handle,
        store: &store::StoreReader,
        selection: &Selection,
        quiet: u64,
    ) -> Self {
        Self {
            log: log.clone(),
            store: store.clone(),
            dispatch: dispatch.clone(),
            selection: selection.clone(),
            reader: Reader::of_selection(log, dispatch, selection.clone(), quiet),
            registration: Registered::NotYet,
            found: None,
            missed: 0,
        }
    }

    /// Dispatch does not know of it any more. What is asked of it still is read from the log.
    pub fn leave(&mut self) {
        let (log, place) = (&self.log, self.reader.place());
        self.reader = Reader::of_selection(log, &self.dispatch, self.selection.clone(), place);
        self.registration = Registered::NoMore;
    }

    /// What is unread when everything up to `acked` is done, as far as a look at `most` numbers
    /// goes.
    pub async fn look(&mut self, acked: u64, most: u64) -> Result<Unread, PageError> {
        if self.registration == Registered::NotYet {
            let registered = self.reader.follow().await;
            registered.map_err(|_| PageError::Stopped)?;
            self.registration = Registered::Yes;
        }
        let head = self.log.head();
        while !self.is_at_unread(acked)? {
            self.found = None;
            self.reader.skip_to(acked.max(self.missed));
            match self.reader.next_within(most, head).await {
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
        let head = match self.found {
            Some(_) => self.log.head().max(after),
            // What was written meanwhile was not looked at.
            None => head.max(after),
        };
        let skipped = self.log.encoder.starts.skipped(after, head);
        Ok(Unread {
            acked,
            after,
            head,
            behind: (head - after).saturating_sub(skipped),
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
