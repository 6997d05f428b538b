//! A packet whose attachments have not all come: bounded in number, bytes and time, for one client
//! and for all together.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

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

/// A packet with all its parts.
#[derive(Debug)]
pub struct Complete {
    pub namespace: String,
    pub body: PacketBody,
    pub attachments: Vec<Bytes>,
}

#[derive(Debug)]
pub struct Incomplete {
    pub complete: Complete,
    wanted: usize,
    share: ByteShare,
    /// When all parts must be there.
    pub deadline: Instant,
}

impl Incomplete {
    /// `bytes`: the length of the header's text. The caller has seen that the packet announces
    /// attachments.
    pub fn begin(
        packet: Packet<'_>,
        bytes: usize,
        budget: Arc<ByteBudget>,
        deadline: Instant,
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
            deadline,
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
}
