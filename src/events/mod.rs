//! The event log, to those who read it.
//!
//! # Delivery contract
//!
//! In number order for each subscription, each event once, none skipped, from the cursor on that
//! the answer named; named consumers and webhooks at least once. The same event is the same bytes
//! for everybody. A subscriber is a filter and a place in the log, and delivering is reading: live
//! is a reader at the end, slow is one behind it, a replay is one with an older place. Nothing is
//! queued for anybody. A slow reader costs its place and holds up nobody.
//!
//! # The way of one event
//!
//! ```text
//!  1 indexer commits                          store::Writer::commit, then the head in a watch channel
//!  2 Dispatch::run        wakes with the head
//!  3 Dispatch::mark_page  reads the new page  EventLog::newest_page, Source::read, Page
//!  4 Index::of            the readers of the event's topic
//!  5 Mark::set            the first mark wakes the task that pulls the reader
//!  6 engineio::SessionTask  its transport can take something: Handler::poll_next, down to
//!  7 Client::poll_next    (api::socket)
//!  8 Reader::poll_next    look: position and mark; page: from memory; step: the next event of the filter
//!  9 LogEntry::encoded    once for all
//! 10 engineio::Session    all that fits into one write
//! ```
//!
//! # Rules
//!
//! P is dispatch's position, `place` that of a reader. Each rule closes a hole and has its tests.
//!
//! 1. Marks. Dispatch marks the readers of the events up to the head first, and moves P afterwards;
//!    a mark carries the number of its first event. A reader looks at P, then takes the mark, then
//!    reads pages. A clean reader's place becomes that number less one when it is marked, and P
//!    when it is not. A marked reader reads as far as dispatch had read when the mark was set: a
//!    second event before the reader looks sets no second mark.
//! 2. Subscribing. The topic is registered with dispatch first, acknowledged; then the snapshot of
//!    the store is taken, at h. Events of the topic after h are wanted. What was promised for a
//!    topic that is held already stays promised. The answer is an item of the reader at h: it is
//!    given when everything up to h was, so no cursor that a client can save overtakes an event.
//!    Where the log comes from elsewhere (an edge), h may be beyond its end: the reader is woken
//!    when P has come to h, whether an event of it is there or not.
//! 3. `after` = X, and a snapshot that the reader has passed already, are the same: X at `place` or
//!    beyond: nothing before X is wanted. X before `place`: a replay gives (X, `place`] of these
//!    topics only, and then the reader goes on where it was. What is asked for while a replay runs
//!    joins it. Nobody lags while a replay runs. `caught_up` is an item at the head of the request.
//! 4. Unsubscribing. The topic leaves filter and replay at once; the answer is an item behind all
//!    that wait.
//! 5. While a packet of a client is handled its reader is not asked for more; between two packets
//!    it is asked once. The client's packets wait while too many items do.
//! 6. Retention. The [`Source`] of a log looks at the first kept number as it reads, in one place,
//!    and answers [`PageError::Expired`].
//! 7. Lag is told by the age of the first event that was not taken, not because a page fell out of
//!    memory. A clean reader does not lag, however far the log goes on without it.
//! 8. What has no place in the order is a [`Notice`]: one for each subject, the latest.

mod batch;
pub mod cursors;
mod dispatch;
mod filter;
mod index;
mod log;
mod page;
mod reader;
mod source;
#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use dispatch::{Counts, Dispatch, DispatchStopped, Handle, LAG_AGE, Notice, Registration};
pub use filter::{Selection, Topic};
pub use log::EventLog;
pub use page::{LogEntry, Page};
pub use reader::{Given, Reader};
pub use source::{PAGE, PAGE_BYTES, PageError, Source};
