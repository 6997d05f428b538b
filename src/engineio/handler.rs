//! The seam upward: what the layer above sees of a session.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::HeaderMap;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::outbox::{Group, Outbox};
use super::packet::{Dialect, Revision};
use super::request::Query;

/// The text of a message as a complete Engine.IO packet: the type digit `4` and what follows.
///
/// It is kept that way so that one encoded text can be written to any number of WebSockets as it
/// is: a clone shares the bytes and a frame needs no second buffer to put the digit in front. It
/// must not contain U+001E, the separator of polling payloads (JSON never does); a polling session
/// sends its neighbour U+001F in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Utf8Bytes);

impl Text {
    /// Copies `text` once, behind the digit.
    pub fn new(text: &str) -> Self {
        Self::compose(text.len(), |frame| frame.push_str(text))
    }

    /// Writes the text in place: `write` gets the digit and appends to it. `capacity` is the
    /// expected length without the digit.
    pub fn compose(capacity: usize, write: impl FnOnce(&mut String)) -> Self {
        let mut frame = String::with_capacity(capacity.saturating_add(1));
        frame.push('4');
        write(&mut frame);
        debug_assert!(frame.starts_with('4'), "compose appends only");
        Self(frame.into())
    }

    /// A whole packet as it came; `None` when it is not a message.
    pub fn from_frame(frame: Utf8Bytes) -> Option<Self> {
        frame.as_str().starts_with('4').then_some(Self(frame))
    }

    /// What is behind the digit.
    pub fn as_str(&self) -> &str {
        let mut chars = self.0.as_str().chars();
        chars.next();
        chars.as_str()
    }

    /// The whole packet.
    pub fn frame(&self) -> &Utf8Bytes {
        &self.0
    }
}

/// A message of the layer above, either way. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Text(Text),
    Binary(Bytes),
}

impl Message {
    pub fn text(text: &str) -> Self {
        Self::Text(Text::new(text))
    }

    /// Bytes of the message itself, without a type digit.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.as_str().len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Text> for Message {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

/// What the client's first request said.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// Without those that concern only the transport. Empty unless `Config::keep_headers`.
    pub headers: HeaderMap,
    /// The raw query string, without the question mark.
    pub query: String,
    pub peer: Option<IpAddr>,
}

impl Handshake {
    /// The protocol revision of the client. A session is opened only with one that this says.
    pub fn revision(&self) -> Revision {
        Query::parse(&self.query)
            .dialect
            .map_or(Revision::Four, Dialect::revision)
    }
}

/// Why a session ended; the words are those of the reference server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CloseReason {
    #[error("transport error")]
    TransportError,
    #[error("transport close")]
    TransportClose,
    #[error("forced close")]
    ForcedClose,
    #[error("ping timeout")]
    PingTimeout,
    #[error("parse error")]
    ParseError,
    #[error("server shutting down")]
    ServerShuttingDown,
    /// The client does not read: its queue stayed full.
    #[error("slow consumer")]
    SlowConsumer,
}

/// Work that the layer above does because of a message. It has to end: a session whose work goes on
/// takes nothing from its client, not even its goodbye, and its ping timeout rests meanwhile.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// The layer above. Called for one session one call at a time and in order; it must not block,
/// because the session's task waits for it.
pub trait Handler: Send + Sync + 'static {
    /// What the layer above keeps for a session.
    type Session: Send + Sync + 'static;

    /// A session was opened; the client learns it after this returned. Answers go through `outbox`;
    /// what is sent beside answers is pulled by [`poll_next`](Self::poll_next).
    fn open(&self, outbox: Outbox, handshake: Handshake) -> Arc<Self::Session>;

    /// A message came. When work is returned, the session polls it itself and takes nothing more
    /// from this client until it is done, while its outbound messages and heartbeat go on: that is
    /// the back-pressure on a client that asks faster than we answer.
    fn message(&self, session: &Arc<Self::Session>, message: Message) -> Option<Work>;

    /// The next group that the layer above wants to send beside answers. It is not queued: the
    /// session asks when its transport can take something, its outbox is empty and no [`Work`] is
    /// under way, so a client that reads slowly costs no memory here.
    ///
    /// The session asks again and again until this says `Pending` or the write, or the answer to a
    /// waiting poll, is full. `Pending` means that the waker of `cx` was registered and is woken
    /// when there may be something; it may be woken for nothing. Between two packets of the client
    /// the session asks at least once if its transport can take something. A session that is
    /// closing does not ask.
    ///
    /// A group that was returned is the session's: when the session ends before it is written, it
    /// is lost. Must be quick and must not block.
    fn poll_next(&self, session: &Arc<Self::Session>, cx: &mut Context<'_>) -> Poll<Group> {
        let _ = (session, cx);
        Poll::Pending
    }

    /// Whether answers of the layer above already wait to be pulled in such number that the session
    /// is to take no further packet of its client: frames are not read, the rest of a POST waits.
    /// Asked again after each pull, so it must become false by pulling. Must be quick and must not
    /// block.
    fn is_full(&self, session: &Arc<Self::Session>) -> bool {
        let _ = session;
        false
    }

    /// The session ended; called exactly once for each `open`, also when the session's task panics
    /// or is aborted. Unfinished work has been dropped.
    fn close(&self, session: &Arc<Self::Session>, reason: CloseReason);
}
