//! One session as a state machine without I/O.
//!
//! Methods are the inputs; whoever drives the machine calls [`Session::next_output`] after each
//! until it gives nothing more, does what it says, hands over messages from the outbox while
//! [`Session::wants_message`], and calls [`Session::tick`] at [`Session::deadline`]. Every input
//! takes the time and runs the deadlines that have passed first, so that a timer that fires late
//! changes nothing.
//!
//! What a client sends is handled strictly in order, its close packet included, and not at all
//! while the layer above works on a message ([`Session::pause`]) or has no room for more answers
//! ([`Session::hold_back`]). The ping timeout is suspended meanwhile, because a pong may be among
//! what is not looked at; but not that of a polling client that is held back: it has to poll.
//!
//! Closing. When the layer above closes ([`CloseReason::ForcedClose`]), what is queued is sent;
//! then a WebSocket is closed, a waiting poll gets `1` and a later one `6`, `1`. A shutdown sends
//! what it can at once and then forgets the session, so that a later poll gets a 400: an Engine.IO
//! `1` keeps python-socketio from reconnecting, which only that should. For the same reason a `1`
//! never goes over a WebSocket. A client that does not read ([`CloseReason::SlowConsumer`]) is sent
//! nothing more: what waits for it is what is too much. What answers the packets before a client's
//! own close packet, or before its error, goes to the poll that waits, as it would have gone out on
//! a WebSocket by then. That is the last answer; what it has no room for is lost.

mod input;
mod output;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::error::CloseReason;
use super::message::Message;
use super::packet::{Encoding, Frame, Packet};
use super::payload::{self, Body, Packets};
use queue::PacketQueue;

/// A ping that is queued later than this does not count from when it was due: the machine was
/// asleep, not the client.
const TIMER_SLACK: Duration = Duration::from_millis(100);

/// Bytes of messages that a WebSocket is given for one write. A longer message is given alone and
/// goes out in fragments of this size.
pub const WRITE_SIZE: usize = 16 << 10;

/// How long a polling client's close packet waits for a poll that it sent at the same time on
/// another connection. That poll gets its `6`; one that is sent after that POST's answer finds no
/// session.
const CLOSE_RACE_GRACE: Duration = Duration::from_millis(50);

/// The times and bounds of a session; the meaning of each is told in `Config`.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
    pub upgrade_timeout: Duration,
    pub write_timeout: Duration,
    pub close_timeout: Duration,
    pub max_payload: usize,
    pub upgrades: bool,
}

/// A session's sockets: the one it lives on, or the one it may move to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketRole {
    Main,
    Probe,
}

/// How a socket ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketEnd {
    /// The client closed it or is gone.
    Closed,
    /// It broke the WebSocket protocol; the code to close with.
    Failed(u16),
    /// A message over the limit.
    TooLarge,
}

/// The answer to the waiting poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PollAnswer {
    Payload(Body),
    /// The session is over: 400.
    Gone,
}

/// The answer to the waiting POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostAnswer {
    Ok,
    /// Its packets ended the session: 400.
    Bad,
    /// The session was over before: 400.
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Poll(PollAnswer),
    Post(PostAnswer),
    /// Write this behind what was given before; `written` is due when all of it is out.
    Write(SocketRole, Frame),
    /// Close this socket, with a code; it is not heard of again.
    CloseSocket(SocketRole, Option<u16>),
    /// The probing socket is the main one from now on.
    Promote,
    /// Give this to the layer above; if that starts work, `pause` before the next output.
    Deliver(Message),
    /// The session is over. Comes once; only answers and `CloseSocket` follow.
    Closed(CloseReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Closing {
        reason: CloseReason,
        until: Instant,
    },
    /// The client's close packet is in the POST that waits for its answer, and no poll is waiting.
    Leaving {
        until: Instant,
    },
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Polling {
        waiting: bool,
        noop_at: Option<Instant>,
    },
    /// `write_by` while something is being written.
    WebSocket { write_by: Option<Instant> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heartbeat {
    PingAt(Instant),
    /// `extended`: other packets prolonged the wait, which they do once (a slow upload stands in
    /// the pong's way).
    PongBy {
        until: Instant,
        extended: bool,
    },
    /// Revision 3: the client pings, and anything it sends shows that it lives.
    SilentUntil(Instant),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Probe {
    until: Instant,
    /// `2probe` was answered.
    probed: bool,
    writing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Post {
    None,
    /// Its body is being read. `octets`: it says that it is binary.
    Reading {
        octets: bool,
    },
    /// Its packets are in `received`.
    Handling,
}

/// What the waiting requests and the socket are told at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloseAnswer {
    /// The session is forgotten: 400.
    None,
    /// The client sent what it must not: what is queued, or else as `None`.
    Fault,
    /// `1`
    Close,
    /// `6`, `1`: to a poll that came when the session was closing already.
    NoopClose,
    /// The client itself closed: what is queued, or else `6`.
    Noop,
    /// The code of the closing WebSocket.
    Code(u16),
}

impl CloseAnswer {
    fn poll_answer(
        self,
        mut queue: PacketQueue,
        encoding: Encoding,
        max_payload: usize,
    ) -> PollAnswer {
        let packets = match self {
            Self::Fault | Self::Noop if !queue.is_empty() => {
                return PollAnswer::Payload(queue.take_body(encoding, max_payload));
            }
            Self::None | Self::Fault | Self::Code(_) => return PollAnswer::Gone,
            Self::Close => vec![Packet::Close],
            Self::NoopClose => vec![Packet::Noop, Packet::Close],
            Self::Noop => vec![Packet::Noop],
        };
        PollAnswer::Payload(payload::encode(packets, encoding))
    }
}

/// Something from the client that waits for its turn.
#[derive(Debug)]
enum Inbound {
    Frame(Frame),
    Payload { packets: Packets, started: bool },
}

#[derive(Debug)]
pub struct Session {
    limits: Arc<Limits>,
    encoding: Encoding,
    phase: Phase,
    transport: Transport,
    heartbeat: Heartbeat,
    probe: Option<Probe>,
    post: Post,
    paused: bool,
    held_back: bool,
    /// At most two POST bodies or one frame: the driver reads nothing while something waits here.
    received: VecDeque<Inbound>,
    /// What goes out next; filled from the outbox only as far as the transport can take it.
    queue: PacketQueue,
    /// Bytes that are being written.
    writing: usize,
    /// What fits is given to the write that has begun.
    is_gathering: bool,
    outputs: VecDeque<Output>,
}

/// Opening.
impl Session {
    /// A session whose open packet was the answer to its handshake.
    pub fn polling(now: Instant, limits: impl Into<Arc<Limits>>, encoding: Encoding) -> Self {
        Self::new(
            now,
            limits.into(),
            encoding,
            Transport::Polling {
                waiting: false,
                noop_at: None,
            },
        )
    }

    /// A session on a fresh WebSocket; `open` (the packet's text) is its first frame.
    pub fn websocket(
        now: Instant,
        limits: impl Into<Arc<Limits>>,
        encoding: Encoding,
        open: Utf8Bytes,
    ) -> Self {
        let mut session = Self::new(
            now,
            limits.into(),
            encoding,
            Transport::WebSocket { write_by: None },
        );
        session.queue.push(Packet::Open(open));
        session
    }

    fn new(now: Instant, limits: Arc<Limits>, encoding: Encoding, transport: Transport) -> Self {
        let heartbeat = match encoding {
            Encoding::Four => Heartbeat::PingAt(now + limits.ping_interval),
            Encoding::Three { .. } => {
                Heartbeat::SilentUntil(now + limits.ping_interval + limits.ping_timeout)
            }
        };
        Self {
            limits,
            encoding,
            phase: Phase::Open,
            transport,
            heartbeat,
            probe: None,
            post: Post::None,
            paused: false,
            held_back: false,
            received: VecDeque::new(),
            queue: PacketQueue::default(),
            writing: 0,
            is_gathering: false,
            outputs: VecDeque::new(),
        }
    }
}

/// Time.
impl Session {
    /// When `tick` is due. `None` only when the session is over or paused in the wait for a sign of
    /// life.
    pub fn deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Closed => return None,
            Phase::Closing { until, .. } | Phase::Leaving { until } => Some(until),
            Phase::Open => match self.heartbeat {
                Heartbeat::PingAt(at) => Some(at),
                Heartbeat::PongBy { until, .. } | Heartbeat::SilentUntil(until) => {
                    (!self.is_ping_suspended()).then_some(until)
                }
            },
        };
        let transport = match self.transport {
            Transport::Polling { noop_at, .. } => noop_at,
            Transport::WebSocket { write_by } => write_by,
        };
        [phase, transport, self.probe.map(|probe| probe.until)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        if self.probe.is_some_and(|probe| now >= probe.until) {
            self.drop_probe(None);
        }
        match self.transport {
            Transport::Polling {
                noop_at: Some(at), ..
            } if now >= at => self.answer_noop(),
            Transport::WebSocket { write_by: Some(by) } if now >= by => {
                self.finish(CloseReason::TransportError)
            }
            _ => {}
        }
        match (self.phase, self.heartbeat) {
            (Phase::Closing { reason, until }, _) if now >= until => self.finish(reason),
            (Phase::Leaving { until }, _) if now >= until => {
                self.finish_with(CloseReason::TransportClose, CloseAnswer::Noop)
            }
            (Phase::Open, Heartbeat::PingAt(at)) if now >= at => {
                self.queue.push(Packet::Ping { probe: false });
                let queued = if now < at + TIMER_SLACK { at } else { now };
                self.heartbeat = Heartbeat::PongBy {
                    until: queued + self.limits.ping_timeout,
                    extended: false,
                };
                // A timeout shorter than the lateness is over already.
                self.tick(now);
            }
            (Phase::Open, Heartbeat::PongBy { until, .. } | Heartbeat::SilentUntil(until))
                if now >= until && !self.is_ping_suspended() =>
            {
                self.finish(CloseReason::PingTimeout);
            }
            _ => {}
        }
    }
}

/// The end.
impl Session {
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Neither side has begun to close.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    fn finish(&mut self, reason: CloseReason) {
        self.finish_with(reason, CloseAnswer::None);
    }

    /// The one way to the end. A session that was closing keeps the reason it had.
    fn finish_with(&mut self, reason: CloseReason, close_answer: CloseAnswer) {
        let reason = match self.phase {
            Phase::Closed => return,
            Phase::Closing { reason, .. } => reason,
            Phase::Open | Phase::Leaving { .. } => reason,
        };
        self.phase = Phase::Closed;
        let queue = std::mem::take(&mut self.queue);
        self.writing = 0;
        self.received = VecDeque::new();
        self.outputs.push_back(Output::Closed(reason));
        match &mut self.transport {
            Transport::Polling { waiting, noop_at } => {
                *noop_at = None;
                if std::mem::take(waiting) {
                    self.outputs
                        .push_back(Output::Poll(close_answer.poll_answer(
                            queue,
                            self.encoding,
                            self.limits.max_payload,
                        )));
                }
            }
            Transport::WebSocket { .. } => {
                let code = match close_answer {
                    CloseAnswer::Code(code) => Some(code),
                    // The reference server gives no code; 1001 tells a client that it may come
                    // back.
                    _ => (reason == CloseReason::ServerShuttingDown).then_some(1001),
                };
                self.outputs
                    .push_back(Output::CloseSocket(SocketRole::Main, code));
            }
        }
        if std::mem::replace(&mut self.post, Post::None) == Post::Handling {
            let answer = match reason {
                _ if close_answer == CloseAnswer::Noop => PostAnswer::Ok,
                CloseReason::ParseError | CloseReason::TransportError => PostAnswer::Bad,
                _ => PostAnswer::Gone,
            };
            self.outputs.push_back(Output::Post(answer));
        }
        self.drop_probe(None);
    }
}
