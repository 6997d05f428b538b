//! The log on Redis, for readers on other machines and in other languages (`contrib/docs/bus.md`).
//!
//! # Laws
//!
//! 1. A stream in Redis is a stretch of the log: what follows an entry in it follows it in the log,
//!    each event once. Each entry carries the number of the event before it, so that nobody takes
//!    what was trimmed for numbers that were skipped.
//! 2. The exporter has no place of its own: it goes on from the stream's last entry, whatever
//!    became of Redis or of the daemon. So nothing has to be kept in step with Redis, nobody can
//!    delete the place, and it holds up no retention.
//! 3. A script in Redis appends a batch only if the lease is ours, the stream is the current one,
//!    and its last entry is the one that we expect. So neither a broken connection nor a second
//!    writer leaves a gap, and what is sent again is refused.
//! 4. A stream that this log cannot continue (its last entry is not of this log, it was emptied, or
//!    retention has taken what follows) is left for readers to finish with, and the next one begun.
//!    The one that was left last goes at once when Redis has no memory. One that this start has
//!    begun and that has no entry yet is gone on with.
//!    One of another log, with another first start, is not touched: readers could not go on.
//! 5. The daemon waits for Redis nowhere. Each call has a bound of time, in a task of its own.
//! 6. Who writes holds a lease, by the start's id. It is taken only when it has lapsed or was given
//!    back; who finds another one there stops writing and says so. One that would last for longer
//!    than leases do has lapsed: Redis's clock was set back.
//! 7. The password of the URL is in no log line, status or error.
//! 8. Who reads without a cursor begins where the log ended when the lease was taken, or behind it:
//!    what a stream is filled up with is no news.
//!
//! ```text
//! keys, entry   how it looks in Redis; an edge reads by the same
//! exporter      what is done next, from what was found (pure)
//! connection    to Redis: the URL, the scripts, what an error means
//! task          log -> exporter -> scripts
//! status        what is told of it
//! problem       what can be wrong, and what to do
//! stream        the other way round: the log of an edge, from the stream
//! ```
//!
//! # One node
//!
//! All keys have one hash tag, so a cluster keeps them on one node: who is told `MOVED` connects
//! there, and needs no client of the whole cluster. Likewise Sentinels are asked where the master
//! is at each connect, and after a failover the old one's refusal to write leads to the next
//! connect.

mod connection;
pub mod entry;
mod exporter;
pub mod keys;
mod problem;
mod status;
pub mod stream;
mod task;

pub use connection::try_out;
pub use problem::{Problem, Side};
pub use status::{BusState, BusStatus};
pub use task::{BusParts, BusTask};
