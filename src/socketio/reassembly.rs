//! A packet whose attachments have not all come: bounded in number, bytes and time, for one client and for all together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
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

/// Bytes that incomplete packets of all clients may hold together.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    pub fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max }
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.max);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok()
    }

    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
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
    budget: Arc<Budget>,
    /// When the next part must be there.
    pub deadline: Instant,
    _timer: Timer,
}

impl Incomplete {
    /// `bytes`: the length of the header's text. The caller has seen that the packet announces attachments.
    pub fn begin(packet: Packet<'_>, bytes: usize, budget: &Arc<Budget>, deadline: Instant, timer: Timer) -> Result<Self, ReassemblyError> {
        if !budget.take(bytes) {
            return Err(ReassemblyError::Overload);
        }
        let (namespace, body, wanted, attachments) = (packet.namespace.to_owned(), packet.body, packet.attachments, Vec::new());
        Ok(Self { namespace, body, wanted, attachments, bytes, budget: budget.clone(), deadline, _timer: timer })
    }

    pub fn add(&mut self, attachment: Bytes, max: usize) -> Result<(), ReassemblyError> {
        if self.bytes.saturating_add(attachment.len()) > max {
            return Err(ReassemblyError::TooLarge);
        }
        if !self.budget.take(attachment.len()) {
            return Err(ReassemblyError::Overload);
        }
        self.bytes = self.bytes.saturating_add(attachment.len());
        self.attachments.push(attachment);
        Ok(())
    }

    pub fn is_complete(&self) -> bool {
        self.attachments.len() >= self.wanted
    }

    pub fn finish(mut self) -> Complete {
        let body = std::mem::replace(&mut self.body, Body::EmptyEvent);
        Complete { namespace: std::mem::take(&mut self.namespace), body, attachments: std::mem::take(&mut self.attachments) }
    }
}

impl Drop for Incomplete {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}
