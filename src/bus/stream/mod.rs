//! The log of an edge: the stream in Redis, and what it has no more from the primary.
//!
//! # Laws
//!
//! 1. The head goes over an event only when everything before it was had: an entry whose `after` is
//!    beyond our number waits until the stretch has come from the primary. What we have is skipped
//!    by its number. So order is never broken and nothing is had twice, whatever becomes of Redis.
//! 2. An entry is taken only if its cursor is of the log that the pointer's `starts` are of.
//! 3. It is another log when its first start is another, or when our place, or one that a client
//!    was told of, is not of it (a copy of the daemon's folder was put back, or a power loss took
//!    what we have had). Then the task ends: nothing of the old log holds any more. A new stream of
//!    the same log is gone on with.
//! 4. A read waits while Redis and the primary are away. It fails only when the daemon has deleted
//!    what follows, or when the task has ended.
//! 5. Reads have a connection of their own, which nobody blocks.
//!
//! ```text
//! place     what an entry, or a new pointer, means at the place where we are (pure)
//! places    what clients were told of by the primary, beyond the stream's end
//! entries   from what Redis or the primary answers to entries of a page
//! commands  what is asked of Redis
//! source    pages on demand
//! follower  the task: XREAD BLOCK -> place -> page -> head
//! ```

mod commands;
mod entries;
mod follower;
mod place;
mod places;
mod source;

use std::sync::Arc;

use bitcoin::Network;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::connection::Place as RedisPlace;
use super::keys::Keys;
use super::problem::Side;
use super::status::{BusStatus, StatusReporter};
use crate::config::BusUrl;
use crate::wire::EventEncoder;

pub use follower::StreamFollower;
pub use places::PlacesTold;
pub use source::StreamSource;

/// What the stream is read by.
pub struct StreamParts {
    pub url: BusUrl,
    /// `bus.stream`.
    pub stream: Option<String>,
    pub network: Network,
    pub older: Arc<dyn Older>,
}

/// The daemon that writes the stream.
pub trait Older: Send + Sync + 'static {
    /// All events after a cursor, those of descriptors as well, as `GET /events` answers. It must
    /// come to an end in bounded time.
    fn page(&self, after: String) -> BoxFuture<'_, Result<OlderPage, OlderError>>;
}

#[derive(Debug, Clone, Default)]
pub struct OlderPage {
    pub events: Vec<OlderEvent>,
    /// The cursor to go on from.
    pub next: String,
}

#[derive(Debug, Clone)]
pub struct OlderEvent {
    pub cursor: String,
    pub event: String,
    /// JSON, as it came.
    pub data: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OlderError {
    #[error("{0}")]
    Away(String),
    #[error("it has deleted them (events.retention_days)")]
    Expired,
    #[error("it does not know the cursor")]
    Unknown,
    #[error("{0}")]
    Refused(String),
}

/// The stream, before and between its logs.
pub struct Stream {
    redis: RedisPlace,
    network: Network,
    older: Arc<dyn Older>,
    reporter: Arc<StatusReporter>,
}

/// One log, from the moment on when it was begun with.
pub struct BegunStream {
    pub source: StreamSource,
    pub encoder: EventEncoder,
    pub head: watch::Receiver<u64>,
    /// For what the primary tells of beyond the stream's end.
    pub places: PlacesTold,
    /// To be run; everything else ends with it.
    pub follower: StreamFollower,
}

/// Why the task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// Everything is to be begun anew, with [`Stream::begin`].
    OtherLog,
}

impl Stream {
    pub fn new(parts: StreamParts) -> (Self, watch::Receiver<BusStatus>) {
        let keys = Keys::new(parts.stream.as_deref(), parts.network);
        let (reporter, status) = StatusReporter::new(Side::Reader, parts.url.to_string());
        let stream = Self {
            redis: RedisPlace {
                url: parts.url,
                keys,
            },
            network: parts.network,
            older: parts.older,
            reporter: Arc::new(reporter),
        };
        (stream, status)
    }
}

#[cfg(test)]
mod tests;
