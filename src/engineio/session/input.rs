//! What comes in: polling requests, WebSockets, the layer above.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::error::{CloseReason, Refused};
use super::super::message::MessageGroup;
use super::super::packet::{Frame, Packet, Revision};
use super::super::payload::{self, Packets};
use super::{
    CloseAnswer, Heartbeat, Inbound, Output, Phase, PollAnswer, Post, PostAnswer, Probe, Session,
    SocketEnd, SocketRole, Transport,
};

/// A poll that comes while a WebSocket has been probed is answered this long after, as the
/// reference server does: soon, but a client that polls on does not spin.
const NOOP_DELAY: Duration = Duration::from_millis(100);

/// Polling requests.
impl Session {
    /// A GET. It waits for [`Output::Poll`] unless it is refused here.
    pub fn poll_opened(&mut self, now: Instant) -> Result<(), Refused> {
        self.tick(now);
        if self.is_closed() {
            return Err(Refused::SessionUnknown);
        }
        // Its deadline may have passed just now: the poll before this one has its answer, but was
        // not given it.
        let unanswered = self
            .outputs
            .iter()
            .any(|output| matches!(output, Output::Poll(_)));
        match &mut self.transport {
            Transport::WebSocket { .. } => Err(Refused::BadRequest),
            Transport::Polling { waiting, .. } if *waiting || unanswered => {
                self.finish_with(CloseReason::TransportError, CloseAnswer::Close);
                Err(Refused::BadRequest)
            }
            Transport::Polling { waiting, noop_at } => {
                *waiting = true;
                if self.probe.is_some_and(|probe| probe.probed) {
                    *noop_at = Some(now + NOOP_DELAY);
                }
                match self.phase {
                    Phase::Closing { reason, .. } if self.queue.is_empty() => {
                        self.finish_with(reason, CloseAnswer::NoopClose)
                    }
                    _ => {}
                }
                Ok(())
            }
        }
    }

    /// The headers of a POST. Its body is to be read unless it is refused here. `octets`: it says
    /// it is `application/octet-stream`, which only revision 3 knows.
    pub fn post_opened(&mut self, now: Instant, octets: bool) -> Result<(), Refused> {
        self.tick(now);
        if self.is_closed() {
            return Err(Refused::SessionUnknown);
        }
        if matches!(self.transport, Transport::WebSocket { .. }) {
            return Err(Refused::BadRequest);
        }
        if self.post != Post::None || (octets && self.encoding.revision() == Revision::Four) {
            self.finish(CloseReason::TransportError);
            return Err(Refused::BadRequest);
        }
        self.post = Post::Reading { octets };
        Ok(())
    }

    /// The whole body of the accepted POST; [`Output::Post`] answers it, when its packets are
    /// handled or when one of them pauses the session: python-socketio gives a POST five seconds.
    pub fn post_body(&mut self, now: Instant, body: Bytes) {
        self.tick(now);
        if self.is_closed() {
            self.outputs.push_back(Output::Post(PostAnswer::Gone));
            return;
        }
        let octets = self.post == Post::Reading { octets: true };
        self.post = Post::Handling;
        let packets = Packets::of(body, self.encoding.revision(), octets);
        self.received.push_back(Inbound::Payload {
            packets,
            started: false,
        });
    }

    /// The body was over a limit. The reference server lets the session live, but its messages are
    /// lost, python-socketio's sender stops without telling and the JavaScript client gives the
    /// session up: ending it makes all of them notice and reconnect.
    pub fn post_refused(&mut self, now: Instant) {
        self.tick(now);
        self.finish(CloseReason::TransportError);
    }

    /// A request was dropped before its answer: what was in that answer, or in that body, is lost,
    /// and so is the session.
    pub fn request_lost(&mut self, now: Instant) {
        self.tick(now);
        if matches!(self.transport, Transport::Polling { .. }) {
            self.finish(CloseReason::TransportClose);
        }
    }
}

/// WebSockets.
impl Session {
    /// A WebSocket with this session's id is open. `false`: it is to be closed, the session goes on
    /// as it is.
    pub fn socket_opened(&mut self, now: Instant) -> bool {
        self.tick(now);
        let closing = self
            .outputs
            .iter()
            .any(|output| matches!(output, Output::CloseSocket(SocketRole::Probe, _)));
        let welcome = self.limits.upgrades
            && !closing
            && self.phase == Phase::Open
            && self.probe.is_none()
            && matches!(self.transport, Transport::Polling { .. });
        if welcome {
            self.probe = Some(Probe {
                until: now + self.limits.upgrade_timeout,
                probed: false,
                writing: false,
            });
        }
        welcome
    }

    /// A message came on a socket.
    pub fn frame(&mut self, now: Instant, role: SocketRole, frame: Frame) {
        self.tick(now);
        match role {
            _ if self.is_closed() => {}
            SocketRole::Main => self.received.push_back(Inbound::Frame(frame)),
            SocketRole::Probe => self.probe_frame(now, frame),
        }
    }

    /// All that was given with [`Output::Write`] to this socket is out.
    pub fn written(&mut self, now: Instant, role: SocketRole) {
        match (role, &mut self.transport, &mut self.probe) {
            (SocketRole::Main, Transport::WebSocket { write_by }, _) => {
                *write_by = None;
                self.writing = 0;
            }
            (SocketRole::Probe, _, Some(probe)) => probe.writing = false,
            _ => {}
        }
        self.tick(now);
    }

    /// A part of it is out: the client reads.
    pub fn write_progressed(&mut self, now: Instant, role: SocketRole) {
        if let (SocketRole::Main, Transport::WebSocket { write_by: Some(by) }) =
            (role, &mut self.transport)
        {
            *by = now + self.limits.write_timeout;
        }
        self.tick(now);
    }

    /// A socket ended by itself.
    pub fn socket_ended(&mut self, now: Instant, role: SocketRole, end: SocketEnd) {
        self.tick(now);
        let (code, reason) = match end {
            SocketEnd::Closed => (None, CloseReason::TransportClose),
            SocketEnd::Failed(code) => (Some(code), CloseReason::TransportError),
            SocketEnd::TooLarge => (Some(1009), CloseReason::TransportError),
        };
        match role {
            SocketRole::Main => {
                self.finish_with(reason, code.map_or(CloseAnswer::None, CloseAnswer::Code))
            }
            SocketRole::Probe => self.drop_probe(code),
        }
    }

    /// Frames of a socket that is not ours yet. Whatever goes wrong here ends that socket, never
    /// the session.
    fn probe_frame(&mut self, now: Instant, frame: Frame) {
        let Some(probe) = &mut self.probe else { return };
        match Packet::from_frame(frame, self.encoding.revision()) {
            Ok(Packet::Ping { probe: true }) => {
                probe.probed = true;
                probe.writing = true;
                self.outputs.push_back(Output::Write(
                    SocketRole::Probe,
                    Packet::Pong { probe: true }.into_frame(self.encoding),
                ));
                self.answer_noop();
            }
            // Without a probe before it, it is taken as the reference server does.
            Ok(Packet::Upgrade) if self.phase == Phase::Open => self.upgrade(now),
            _ => self.drop_probe(None),
        }
    }

    fn upgrade(&mut self, now: Instant) {
        let Some(probe) = self.probe.take() else {
            return;
        };
        self.answer_noop();
        self.transport = Transport::WebSocket {
            write_by: probe.writing.then_some(now + self.limits.write_timeout),
        };
        self.outputs.push_back(Output::Promote);
    }

    pub(super) fn drop_probe(&mut self, code: Option<u16>) {
        if self.probe.take().is_some() {
            self.outputs
                .push_back(Output::CloseSocket(SocketRole::Probe, code));
        }
    }

    /// Sends a waiting poll home.
    pub(super) fn answer_noop(&mut self) {
        if let Transport::Polling { waiting, noop_at } = &mut self.transport {
            *noop_at = None;
            if std::mem::take(waiting) {
                self.outputs
                    .push_back(Output::Poll(PollAnswer::Payload(payload::encode(
                        vec![Packet::Noop],
                        self.encoding,
                    ))));
            }
        }
    }
}

/// The layer above.
impl Session {
    /// A group from the outbox. It stays together: nothing else comes between its messages.
    pub fn send(&mut self, group: MessageGroup) {
        match group {
            _ if self.is_closed() => {}
            MessageGroup::One(message) => self.queue.push(Packet::Message(message)),
            MessageGroup::Many(messages) => messages
                .iter()
                .for_each(|message| self.queue.push(Packet::Message(message.clone()))),
        }
    }

    /// The layer above works on the message just delivered.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// The work is done.
    pub fn resume(&mut self, now: Instant) {
        self.paused = false;
        self.taken_up(now);
    }

    /// Whether the layer above has no room for more answers.
    pub fn hold_back(&mut self, now: Instant, held_back: bool) {
        if std::mem::replace(&mut self.held_back, held_back) && !held_back {
            self.taken_up(now);
        }
    }

    /// The client's packets are looked at again.
    fn taken_up(&mut self, now: Instant) {
        match &mut self.heartbeat {
            Heartbeat::PingAt(_) => {}
            // The client's sign of life may have been waiting for us.
            Heartbeat::PongBy { until, .. } | Heartbeat::SilentUntil(until) => {
                *until = (*until).max(now + self.limits.ping_timeout)
            }
        }
        self.tick(now);
    }

    /// The layer above gives up a client that does not read.
    pub fn abandon(&mut self, reason: CloseReason) {
        self.finish(reason);
    }

    /// The layer above ends the session. All of its outbox has been given to `send` before.
    pub fn close(&mut self, now: Instant, reason: CloseReason) {
        self.close_until(now, reason, now + self.limits.close_timeout);
    }

    /// As [`close`](Self::close), with a time of its own for what is queued.
    pub fn close_until(&mut self, now: Instant, reason: CloseReason, until: Instant) {
        self.tick(now);
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Closing { reason, until };
        self.drop_probe(None);
        if let Transport::Polling { waiting, .. } = self.transport {
            let is_final = reason == CloseReason::ForcedClose;
            match (waiting, self.queue.is_empty()) {
                (true, true) if is_final => self.finish_with(reason, CloseAnswer::Close),
                (false, _) if is_final => {}
                (true, false) => {}
                _ => self.finish(reason),
            }
        }
    }
}
