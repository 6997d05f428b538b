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

use crate::events::{EventLog, PageError, Reader};
use crate::reads::Reads;
use crate::wire::error::ApiError;

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

/// The reader that looks ahead of one definition of a consumer.
pub struct Lookahead {
    log: Arc<EventLog>,
    reads: Reads,
    reader: Reader<()>,
    /// Number and time of the first event behind the consumer's place that it wants.
    found: Option<(u64, u64)>,
    /// What retention has taken before it was acknowledged.
    missed: u64,
}

impl Lookahead {
    pub fn new(log: &Arc<EventLog>, reads: &Reads, reader: Reader<()>) -> Self {
        Self {
            log: log.clone(),
            reads: reads.clone(),
            reader,
            found: None,
            missed: 0,
        }
    }

    /// Dispatch does not know of it any more. What is asked of it still is read from the log.
    pub fn leave(&mut self) {
        self.reader.unfollow();
    }

    /// What is unread when everything up to `acked` is done, as far as a look at `most` numbers
    /// goes. `follow`: the definition has not ended.
    pub async fn look(&mut self, acked: u64, most: u64, follow: bool) -> Result<Unread, ApiError> {
        if follow {
            self.reader.follow().await?;
        }
        let head = self.log.head();
        let mut gone = self.gone().await?;
        loop {
            match self.found.take() {
                Some((number, _)) if number > acked && number <= gone => self.missed = gone,
                found @ Some((number, _)) if number > acked => {
                    self.found = found;
                    break;
                }
                _ => {}
            }
            self.reader.skip_to(acked.max(self.missed));
            match self.reader.next_within(most, head).await {
                Ok(Some(entry)) => self.found = Some((entry.number, entry.time)),
                Ok(None) => break,
                // Retention has taken what it had not come past.
                Err(PageError::Expired) => {
                    gone = self.gone().await?;
                    self.missed = gone;
                }
                Err(cause) => return Err(cause.into()),
            }
        }
        let (after, head) = match self.found {
            Some((number, _)) => {
                let after = number.saturating_sub(1);
                (after, self.log.head().max(after))
            }
            // What was written meanwhile was not looked at.
            None => (self.reader.place(), head.max(self.reader.place())),
        };
        let skipped = self.log.encoder.starts().skipped(after, head);
        Ok(Unread {
            acked,
            after,
            head,
            behind: (head - after).saturating_sub(skipped),
            oldest: self.found.map(|(_, time)| time),
            missed: (self.missed > acked).then_some(self.missed),
        })
    }

    /// Retention has taken all events up to this number.
    async fn gone(&mut self) -> Result<u64, ApiError> {
        let first = self.reads.run(|view| Ok(view.reader.first_seq()?));
        Ok(first.await?.saturating_sub(1))
    }
}
