//! Named consumers: readers of the log whose cursor the daemon keeps, so that they need no storage
//! of their own.
//!
//! # Laws
//!
//! 1. A consumer's cursor moves only when it is told so: by an `ack`, forward only, or by `PUT`
//!    with `after`. A webhook's moves with its deliveries.
//! 2. Reading begins at the quiet number, up to which nothing that the consumer wants follows its
//!    cursor. A reader gets every event that the consumer wants after that, in the order of their
//!    numbers; what it got and did not acknowledge comes again to the next reader. So an event may
//!    come twice, with the same cursor, but never not at all.
//! 3. One reader a name: who comes later takes over, and the one before is told so.
//! 4. What a session acknowledges after its reading was taken over, or its consumer was changed or
//!    deleted, is refused: it would move past what its successor has not done.
//! 5. Lag and expiry are measured from the quiet number: a consumer neither lags nor expires over
//!    events that it does not want.
//! 6. Nobody who asks waits for more than one look, which goes through so many numbers and no more
//!    (`lag::LOOK_MOST`): what is behind them counts as unread until a later look. Nobody waits for
//!    more of retention than one portion.
//!
//! # The quiet number
//!
//! That nothing wanted is between the cursor and a number depends on what is wanted and on the
//! cursor. It stays true when the cursor moves forward, so an ack leaves the quiet number alone and
//! whoever uses it takes the greater of both. It is kept in memory, by `lag::Lookahead`, which
//! belongs to one definition: `PUT` makes another one that begins at the cursor, and in the store
//! the row goes in the batch that writes the definition or the new place. It is written down before
//! retention deletes events, since it cannot be found again afterwards, and with each pass of
//! retention that deletes none, so that a start has less to look through (`Consumers::retain`):
//!
//! * Restart, kill: what was written since is looked through again at the start, from the row or
//!   the cursor on, beside the rest; a part of it with each question meanwhile.
//! * Power loss: the row is not synced, but the store loses its end only, and the row stands behind
//!   the events that it speaks of and before the deletions that need it. Numbers are never given
//!   twice, so an old row says nothing about new events.
//! * Retention overtakes an unread event: the row stays before it, and the consumer is told that it
//!   missed something, after a restart as well.
//! * Retention beside acks and definitions: they wait until a portion is gone. An ack in between
//!   would stand before an event that was not looked at and is not there any more.
//!
//! ```text
//! registry   the consumers by name; the store's rows are written before the memory changes
//! consumer   one: what it wants, its place
//! lag        the quiet number, and how far behind each is
//! lease      who reads one
//! name       what they may be called
//! ```

mod consumer;
mod lag;
mod lease;
mod name;
mod registry;
#[cfg(test)]
mod tests;

pub use consumer::Consumer;
pub use lag::{LOOK_MOST, Unread};
pub use lease::{EndReason, Lease, LeaseId, Leases};
pub use name::consumer_name;
pub use registry::{Consumers, Defined};
