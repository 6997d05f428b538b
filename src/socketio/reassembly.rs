//! A packet whose attachments have not all come: bounded in number, bytes and time, for one client
//! and for all together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::packet::{Packet, PacketBody};
use crate::engineio::{ByteBudget, ByteShare};

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
    pub body: PacketBody,
    pub attachments: Vec<Bytes>,
}

#[derive(Debug)]
pub struct Incomplete {
    complete: Complete,
    wanted: usize,
    share: ByteShare,
    /// When all parts must be there.
    pub deadline: Instant,
    _timer: Timer,
}

impl Incomplete {
    /// `bytes`: the length of the header's text; `limit`: from now to the last attachment, watched
    /// by `timer`. The caller has seen that the packet announces attachments.
    pub fn begin(
        packet: Packet<'_>,
        bytes: usize,
        budget: Arc<ByteBudget>,
        limit: Duration,
        timer: Timer,
    ) -> Result<Self, ReassemblyError> {
        let mut share = ByteShare::new(budget);
        if !share.try_grow(bytes) {
            return Err(ReassemblyError::Overload);
        }
        Ok(Self {
            complete: Complete {
                namespace: packet.namespace.to_owned(),
                body: packet.body,
                attachments: Vec::new(),
            },
            wanted: packet.attachments,
            share,
            deadline: Instant::now() + limit,
            _timer: timer,
        })
    }

    pub fn add(&mut self, attachment: Bytes, max: usize) -> Result<(), ReassemblyError> {
        if self.share.held().saturating_add(attachment.len()) > max {
            return Err(ReassemblyError::TooLarge);
        }
        if !self.share.try_grow(attachment.len()) {
            return Err(ReassemblyError::Overload);
        }
        self.complete.attachments.push(attachment);
        Ok(())
    }

    pub fn is_complete(&self) -> bool {
        self.complete.attachments.len() >= self.wanted
    }

    pub fn finish(self) -> Complete {
        self.complete
    }
}
