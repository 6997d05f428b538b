//! The seam upward: what the layer above sees of a session.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::HeaderMap;

use super::error::CloseReason;
use super::message::{Message, MessageGroup};
use super::outbox::Outbox;
use super::packet::{Encoding, Revision};
use super::request::Query;

/// What the client's first request said.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// Those that `Config::keep_headers` names.
    pub headers: HeaderMap,
    /// The raw query string, without the question mark.
    pub query: String,
    pub peer: Option<IpAddr>,
}

impl Handshake {
    /// The protocol revision of the client. A session is opened only with one that this says.
    pub fn revision(&self) -> Revision {
        Query::parse(&self.query)
            .encoding
            .map_or(Revision::Four, Encoding::revision)
    }
}

/// Work that the layer above does because of a message. It has to end: a session whose work goes on
/// takes nothing from its client, not even its close packet, and its ping timeout rests meanwhile.
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
    fn poll_next(&self, session: &Arc<Self::Session>, cx: &mut Context<'_>) -> Poll<MessageGroup> {
        let _ = (session, cx);
        Poll::Pending
    }

    /// Whether answers of the layer above already wait to be pulled in such number that the session
    /// is to take no further packet of its client: frames are not read, the rest of a POST waits.
    /// It becomes true by what the client asks for alone, and is asked after that; and false by
    /// pulling, after which it is asked again. Must be quick and must not block.
    fn is_full(&self, session: &Arc<Self::Session>) -> bool {
        let _ = session;
        false
    }

    /// When [`tick`](Self::tick) is due; asked when the session is about to wait. Must be quick and
    /// must not block.
    fn deadline(&self, session: &Arc<Self::Session>) -> Option<Instant> {
        let _ = session;
        None
    }

    /// The deadline has passed, by tokio's clock. It must be another or none afterwards.
    fn tick(&self, session: &Arc<Self::Session>, now: Instant) {
        let _ = (session, now);
    }

    /// Why the session is to end now, by what the layer above knows beside the client's packets.
    /// Asked whenever the session is about to wait, whatever its transport does and also while
    /// [`Work`] is under way. `Pending` means that the waker of `cx` was registered.
    ///
    /// Not asked again after `Ready`: the work is dropped, nothing more is taken from the client,
    /// and the transport has a moment for what is queued. Must be quick and must not block.
    fn poll_end(&self, session: &Arc<Self::Session>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let _ = (session, cx);
        Poll::Pending
    }

    /// The session ended; called exactly once for each `open`, also when the session's task panics
    /// or is aborted. Unfinished work has been dropped.
    fn close(&self, session: &Arc<Self::Session>, reason: CloseReason);
}
