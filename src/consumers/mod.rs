//! Named consumers: readers of the log whose cursor the daemon keeps, so that they need no storage
//! of their own.
//!
//! # Laws
//!
//! 1. A consumer's cursor moves only when it is told so: by the reader's `ack`, forward only, or by
//!    `PUT` with `after`. A webhook's moves with its deliveries. Before retention deletes events it
//!    passes those that the consumer does not want, so that they are no loss to it. Who moves one
//!    backwards stops its readers first: what they still acknowledge would move it forward again.
//! 2. A reader gets every event that the consumer wants after the cursor, in the order of their
//!    numbers; what it got and did not acknowledge comes again to the next reader. So an event may
//!    come twice, with the same cursor, but never not at all.
//! 3. One reader a name: who comes later takes over, and the one before is told so.
//! 4. A connection reads a consumer or has subscriptions of its own, not both: an event that both
//!    want would be told twice.
//!
//! ```text
//! registry   the consumers and their places; the store's rows are written before the memory changes
//! readers    who reads one
//! name       what they may be called
//! lag        how far behind each is
//! ```

mod lag;
mod name;
mod readers;
mod registry;

pub use lag::Lag;
pub use name::consumer_name;
pub use readers::{Over, Reading, Refused, Wish};
pub use registry::{Consumer, Consumers, Defined};
