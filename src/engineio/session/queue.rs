//! What goes out next, and how much it is.

use std::collections::VecDeque;

use super::super::packet::{Encoding, Packet};
use super::super::payload::{self, Body};
use super::WRITE_SIZE;

/// Packets that an emptied queue keeps memory for.
const KEPT_CAPACITY: usize = 8;

#[derive(Debug, Default)]
pub(super) struct PacketQueue {
    packets: VecDeque<Packet>,
    /// Of all packets, as a polling body would have them.
    bytes: usize,
    pongs: usize,
}

impl PacketQueue {
    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// One that waits already answers this ping too: a client that pings without reading must not
    /// fill the queue.
    pub(super) fn push_pong(&mut self) {
        if self.pongs == 0 {
            self.push(Packet::Pong { probe: false });
        }
    }

    pub(super) fn push(&mut self, packet: Packet) {
        self.pongs += usize::from(matches!(packet, Packet::Pong { .. }));
        self.bytes = self.bytes.saturating_add(payload::encoded_len(&packet));
        self.packets.push_back(packet);
    }

    pub(super) fn pop(&mut self) -> Option<Packet> {
        let packet = self.packets.pop_front()?;
        // Most sessions are idle.
        if self.packets.is_empty() && self.packets.capacity() > KEPT_CAPACITY {
            self.packets = VecDeque::new();
        }
        self.bytes = self.bytes.saturating_sub(payload::encoded_len(&packet));
        self.pongs -= usize::from(matches!(packet, Packet::Pong { .. }));
        Some(packet)
    }

    /// The next packet that goes into a write behind `before` bytes; a longer one goes alone.
    pub(super) fn pop_for_write(&mut self, before: usize) -> Option<Packet> {
        let len = payload::encoded_len(self.packets.front()?);
        let fits = before == 0 || before.saturating_add(len) <= WRITE_SIZE;
        fits.then(|| self.pop()).flatten()
    }

    /// As many as the answer to one poll may have.
    pub(super) fn take_body(&mut self, encoding: Encoding, max_payload: usize) -> Body {
        let count = payload::fitting(self.packets.iter(), encoding, max_payload);
        let packets = std::iter::from_fn(|| self.pop()).take(count).collect();
        payload::encode(packets, encoding)
    }
}
