//! What comes out, and what is done with each packet when its turn comes.

use std::collections::VecDeque;
use std::time::Instant;

use super::super::error::CloseReason;
use super::super::packet::{Packet, PacketError, Revision};
use super::super::payload::{self, MAX_PACKETS};
use super::{
    CLOSE_RACE_GRACE, CloseAnswer, Heartbeat, Inbound, Output, Phase, PollAnswer, Post, PostAnswer,
    Session, SocketRole, Transport, WRITE_SIZE,
};

/// What comes out.
impl Session {
    /// Whether the driver may read from this socket. From the main one it reads one frame at a
    /// time; when the session is closing, to see the client's end.
    pub fn wants_frame(&self, role: SocketRole) -> bool {
        match role {
            SocketRole::Main => self.received.is_empty() && self.takes_packets(),
            SocketRole::Probe => self.probe.is_some_and(|probe| !probe.writing),
        }
    }

    fn takes_packets(&self) -> bool {
        !(self.paused || self.held_back) || self.phase != Phase::Open
    }

    /// A pong may be among what is not looked at.
    pub(super) fn is_ping_suspended(&self) -> bool {
        let is_websocket = matches!(self.transport, Transport::WebSocket { .. });
        self.paused || (self.held_back && is_websocket)
    }

    /// Whether the transport could take a message now.
    pub fn wants_message(&self) -> bool {
        // A client that closes is still due the answers to what it sent before.
        matches!(self.phase, Phase::Open | Phase::Leaving { .. })
            && match self.transport {
                Transport::WebSocket { write_by } => {
                    write_by.is_none() && self.queue.bytes() < WRITE_SIZE
                }
                Transport::Polling { waiting, .. } => {
                    waiting
                        && self.queue.len() < MAX_PACKETS
                        && self.queue.bytes() < self.limits.max_payload
                }
            }
    }

    /// Bytes that were handed over and are not out yet. An answered poll's are HTTP's.
    pub fn held_bytes(&self) -> usize {
        self.queue.bytes().saturating_add(self.writing)
    }

    /// The next thing to do, in order.
    pub fn next_output(&mut self, now: Instant) -> Option<Output> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                if self.outputs.is_empty() {
                    // Most of what comes out does not wait there.
                    self.outputs = VecDeque::new();
                }
                return Some(output);
            }
            if self.is_closed() {
                return None;
            }
            if self.is_gathering {
                match self.queue.pop_for_write(self.writing) {
                    Some(packet) => {
                        self.writing += payload::encoded_len(&packet);
                        let frame = packet.into_frame(self.encoding);
                        return Some(Output::Write(SocketRole::Main, frame));
                    }
                    None => self.is_gathering = false,
                }
            }
            if let Some(packet) = self.next_packet() {
                self.packet(now, packet);
            } else if self.post_is_done() {
                self.post = Post::None;
                return Some(Output::Post(PostAnswer::Ok));
            } else if !self.flush(now) {
                return None;
            }
        }
    }

    /// The next packet from the client whose turn has come.
    fn next_packet(&mut self) -> Option<Result<Packet, PacketError>> {
        while self.takes_packets() {
            match self.received.front_mut()? {
                Inbound::Payload { packets, started } => {
                    *started = true;
                    if let Some(packet) = packets.next() {
                        return Some(packet);
                    }
                    self.received.pop_front();
                }
                Inbound::Frame(_) => {
                    if let Some(Inbound::Frame(frame)) = self.received.pop_front() {
                        return Some(Packet::from_frame(frame, self.encoding.revision()));
                    }
                }
            }
        }
        None
    }

    /// The body of the waiting POST is the last one that came.
    fn post_is_done(&self) -> bool {
        let is_held = matches!(self.phase, Phase::Leaving { .. });
        self.post == Post::Handling
            && !is_held
            && !matches!(
                self.received.back(),
                Some(Inbound::Payload { started: false, .. })
            )
    }

    fn packet(&mut self, now: Instant, packet: Result<Packet, PacketError>) {
        let Ok(packet) = packet else {
            return self.finish_with(CloseReason::ParseError, CloseAnswer::Fault);
        };
        match (&mut self.heartbeat, &packet) {
            (heartbeat @ Heartbeat::PongBy { .. }, Packet::Pong { .. }) => {
                *heartbeat = Heartbeat::PingAt(now + self.limits.ping_interval)
            }
            (
                Heartbeat::PongBy {
                    until,
                    extended: extended @ false,
                },
                _,
            ) => {
                *until = now + self.limits.ping_timeout;
                *extended = true;
            }
            (Heartbeat::SilentUntil(until), _) => {
                *until = now + self.limits.ping_interval + self.limits.ping_timeout
            }
            _ => {}
        }
        let revision = self.encoding.revision();
        match packet {
            Packet::Message(message) if self.phase == Phase::Open => {
                self.outputs.push_back(Output::Deliver(message))
            }
            Packet::Close
                if self.phase == Phase::Open
                    && self.post == Post::Handling
                    && matches!(self.transport, Transport::Polling { waiting: false, .. }) =>
            {
                self.phase = Phase::Leaving {
                    until: now + CLOSE_RACE_GRACE,
                };
                self.received.clear();
                self.drop_probe(None);
            }
            Packet::Close => self.finish_with(CloseReason::TransportClose, CloseAnswer::Noop),
            Packet::Ping { .. } if revision == Revision::Three => self.queue.push_pong(),
            Packet::Pong { .. } if revision == Revision::Three => {
                self.finish_with(CloseReason::TransportError, CloseAnswer::Fault)
            }
            // Only the server pings.
            Packet::Ping { .. } => {
                self.finish_with(CloseReason::TransportError, CloseAnswer::Fault)
            }
            // A pong out of turn, and what only a server or a probing socket sends, mean nothing.
            Packet::Message(_)
            | Packet::Pong { .. }
            | Packet::Open(_)
            | Packet::Upgrade
            | Packet::Noop => {}
        }
    }

    /// Gives the transport what it can take. `false`: nothing came of it.
    fn flush(&mut self, now: Instant) -> bool {
        match &mut self.transport {
            Transport::WebSocket {
                write_by: write_by @ None,
            } if !self.queue.is_empty() => {
                *write_by = Some(now + self.limits.write_timeout);
                self.is_gathering = true;
                true
            }
            Transport::WebSocket { write_by: None } => match self.phase {
                Phase::Closing { reason, .. } => {
                    self.finish(reason);
                    true
                }
                _ => false,
            },
            // The poll that crossed the client's close packet.
            Transport::Polling { waiting: true, .. }
                if matches!(self.phase, Phase::Leaving { .. }) =>
            {
                self.finish_with(CloseReason::TransportClose, CloseAnswer::Noop);
                true
            }
            Transport::Polling {
                waiting: waiting @ true,
                noop_at,
            } if !self.queue.is_empty() => {
                *waiting = false;
                *noop_at = None;
                let body = self.queue.take_body(self.encoding, self.limits.max_payload);
                self.outputs
                    .push_back(Output::Poll(PollAnswer::Payload(body)));
                if let Phase::Closing { reason, .. } = self.phase
                    && reason != CloseReason::ForcedClose
                {
                    self.finish(reason);
                }
                true
            }
            _ => false,
        }
    }
}
