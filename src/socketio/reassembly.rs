//! A packet whose attachments have not all come: bounded in number, bytes and time, for one client
//! and for all together.
//!
//! When there is no room for what just came, the slowest packets are ended, as `engineio` does it
//! with its messages: otherwise whoever begins enough packets and then sends no more would make
//! everybody else be refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::packet::{Body, Packet};

/// Why the parts of a packet were refused; the connection is closed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReassemblyError {
    #[error("a text packet where an attachment must come")]
    TextBetween,
    #[error("an attachment that no packet announced")]
    NotAnnounced,
    #[error("the packet is too large with its attachments")]
    TooLarge,
    #[error("the attachments of all clients together take too much memory")]
    Overload,
    #[error("the attachments did not come in time")]
    Timeout,
}

/// Bytes of a packet that are not counted, so that small binary events go through whatever others
/// do.
const UNCOUNTED: usize = 4096;
/// Less than this is no movement: a byte now and then would keep a packet from ever being the
/// slowest.
const MOVEMENT: usize = 4096;
/// Times below this say nothing but that the machine is busy.
const SHORT: Duration = Duration::from_millis(10);
/// How long a whole packet may take, in times from one part to the next; a packet of many tiny
/// parts would otherwise last for ever.
const WHOLE: u32 = 4;

/// Bytes that incomplete packets of all clients may hold together.
#[derive(Debug)]
pub struct Budget {
    table: Mutex<Table>,
    max: usize,
}

#[derive(Debug, Default)]
struct Table {
    used: usize,
    last_id: u64,
    /// The packets that are counted.
    held: HashMap<u64, Counted>,
}

#[derive(Debug)]
struct Counted {
    bytes: usize,
    /// When it last moved, and how much of it there was then.
    moved: (Instant, usize),
    refused: Arc<Notify>,
}

impl Counted {
    fn slowness(&self, bytes: usize, now: Instant) -> u128 {
        (bytes as u128).saturating_mul(
            now.saturating_duration_since(self.moved.0)
                .max(SHORT)
                .as_micros(),
        )
    }
}

impl Table {
    fn refuse(&mut self, id: u64) {
        if let Some(counted) = self.held.remove(&id) {
            self.used -= counted.bytes;
            counted.refused.notify_one();
        }
    }

    /// Makes room for `excess` bytes: ends the slowest packets beyond `bar`, as many as it takes,
    /// or none if that is not enough.
    fn relieve(&mut self, newcomer: u64, bar: u128, now: Instant, excess: usize) -> bool {
        let mut slower: Vec<_> = self
            .held
            .iter()
            .filter(|(id, _)| **id != newcomer)
            .map(|(id, counted)| (counted.slowness(counted.bytes, now), counted.bytes, *id))
            .filter(|(slowness, ..)| *slowness > bar)
            .collect();
        slower.sort_unstable_by(|one, other| other.cmp(one));
        let freeable = slower
            .iter()
            .fold(0usize, |sum, (_, bytes, _)| sum.saturating_add(*bytes));
        if freeable < excess {
            return false;
        }
        let enough = self.used - excess;
        for (.., id) in slower {
            if self.used <= enough {
                break;
            }
            self.refuse(id);
        }
        true
    }
}

impl Budget {
    pub fn new(max: usize) -> Self {
        Self {
            table: Mutex::default(),
            max,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The share of a packet that begins.
    pub fn share(self: &Arc<Self>) -> Arc<Share> {
        let mut table = self.table();
        table.last_id += 1;
        Arc::new(Share {
            id: table.last_id,
            budget: self.clone(),
            refused: Arc::default(),
        })
    }

    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.table().used
    }
}

/// What one packet takes of the budget.
#[derive(Debug)]
pub struct Share {
    id: u64,
    budget: Arc<Budget>,
    refused: Arc<Notify>,
}

impl Share {
    /// Waits until the packet has to make room for others.
    pub async fn refused(&self) {
        self.refused.notified().await;
    }

    /// From `before` bytes to `bytes`. `false`: there is no room, or it had to make room meanwhile.
    fn grow(&self, before: usize, bytes: usize) -> bool {
        if bytes <= UNCOUNTED {
            return true;
        }
        let (mut table, now) = (self.budget.table(), Instant::now());
        let counted = match table.held.get(&self.id) {
            Some(counted) => counted,
            None if before > UNCOUNTED => return false,
            None => table.held.entry(self.id).or_insert(Counted {
                bytes: 0,
                moved: (now, 0),
                refused: self.refused.clone(),
            }),
        };
        let (bar, more) = (
            counted.slowness(bytes, now),
            bytes.saturating_sub(counted.bytes),
        );
        let excess = table
            .used
            .saturating_add(more)
            .saturating_sub(self.budget.max);
        if excess > 0 && !table.relieve(self.id, bar, now, excess) {
            return false;
        }
        table.used += more;
        if let Some(counted) = table.held.get_mut(&self.id) {
            counted.bytes = bytes;
            if bytes - counted.moved.1 >= MOVEMENT {
                counted.moved = (now, bytes);
            }
        }
        true
    }

    fn release(&self) {
        let mut table = self.budget.table();
        if let Some(counted) = table.held.remove(&self.id) {
            table.used -= counted.bytes;
        }
    }
}

/// A task that is stopped when this is dropped.
#[derive(Debug)]
pub struct Timer(AbortHandle);

impl Timer {
    pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task).abort_handle())
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A packet with all its parts.
#[derive(Debug)]
pub struct Complete {
    pub namespace: String,
    pub body: Body,
    pub attachments: Vec<Bytes>,
}

#[derive(Debug)]
pub struct Incomplete {
    namespace: String,
    body: Body,
    wanted: usize,
    attachments: Vec<Bytes>,
    bytes: usize,
    share: Arc<Share>,
    /// When the next part must be there.
    pub deadline: Instant,
    /// When all parts must be.
    last: Instant,
    _timer: Timer,
}

impl Incomplete {
    /// `bytes`: the length of the header's text; `patience`: from one part to the next. The caller
    /// has seen that the packet announces attachments.
    pub fn begin(
        packet: Packet<'_>,
        bytes: usize,
        share: Arc<Share>,
        patience: Duration,
        timer: Timer,
    ) -> Result<Self, ReassemblyError> {
        if !share.grow(0, bytes) {
            share.release();
            return Err(ReassemblyError::Overload);
        }
        let now = Instant::now();
        let (deadline, last) = (now + patience, now + patience.saturating_mul(WHOLE));
        let (namespace, body, wanted, attachments) = (
            packet.namespace.to_owned(),
            packet.body,
            packet.attachments,
            Vec::new(),
        );
        Ok(Self {
            namespace,
            body,
            wanted,
            attachments,
            bytes,
            share,
            deadline,
            last,
            _timer: timer,
        })
    }

    pub fn add(
        &mut self,
        attachment: Bytes,
        max: usize,
        patience: Duration,
    ) -> Result<(), ReassemblyError> {
        let bytes = self.bytes.saturating_add(attachment.len());
        if bytes > max {
            return Err(ReassemblyError::TooLarge);
        }
        if !self.share.grow(self.bytes, bytes) {
            return Err(ReassemblyError::Overload);
        }
        self.bytes = bytes;
        self.attachments.push(attachment);
        self.deadline = self.last.min(Instant::now() + patience);
        Ok(())
    }

    pub fn is_complete(&self) -> bool {
        self.attachments.len() >= self.wanted
    }

    pub fn finish(mut self) -> Complete {
        let body = std::mem::replace(&mut self.body, Body::EmptyEvent);
        Complete {
            namespace: std::mem::take(&mut self.namespace),
            body,
            attachments: std::mem::take(&mut self.attachments),
        }
    }
}

impl Drop for Incomplete {
    fn drop(&mut self) {
        self.share.release();
    }
}
