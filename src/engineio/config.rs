//! What a service is told when it is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;

use super::cors::Cors;
use super::session::Limits;

/// Decides by the headers of a handshake whether a session may be opened; the error is the message
/// that the client gets.
pub type Allow = Arc<dyn Fn(&HeaderMap) -> Result<(), String> + Send + Sync>;

#[derive(Clone)]
pub struct Config {
    /// The exact path of all requests, trailing slash included.
    pub path: String,
    /// From one answered ping (or the opening) to the next ping.
    pub ping_interval: Duration,
    /// How long a ping may stay unanswered.
    pub ping_timeout: Duration,
    /// How long a WebSocket may take to finish an upgrade; the session goes on polling when it does
    /// not.
    pub upgrade_timeout: Duration,
    /// How long a frame may stay unwritten before the session ends.
    pub write_timeout: Duration,
    /// How long a closing session may take to get rid of what is queued.
    pub close_timeout: Duration,
    /// How long the body of a POST may take.
    pub body_timeout: Duration,
    /// Bytes of one WebSocket message or polling body, from the client; also what a polling answer
    /// is filled up to. The frames of one message may take 64 KiB more on the wire, so one of this
    /// size may come in fragments of 128 bytes and more.
    pub max_payload: usize,
    /// Sessions at once; further handshakes are answered 503.
    pub max_sessions: usize,
    /// Messages that may wait for one client; one with its attachments counts once.
    pub queue_messages: usize,
    /// Bytes that may wait for one client.
    pub queue_bytes: usize,
    /// Bytes that may wait for all clients together; beyond it the slowest are closed. A message to
    /// many counts for each of them, though they share its bytes, so this is well above what it
    /// takes in memory.
    pub total_queued_bytes: usize,
    /// Bytes of messages that clients began to send, or that the layer above has not let go of,
    /// together; beyond it the slowest of those that are not whole yet are ended. Small ones (4
    /// KiB) do not count.
    pub total_received_bytes: usize,
    /// Whether a polling session may move to a WebSocket.
    pub upgrades: bool,
    /// Whether clients of revision 3 (`EIO=3`: Socket.IO 1 and 2) are served too. JSONP, which only
    /// browsers without XMLHttpRequest 2 used, is not.
    pub revision_3: bool,
    /// Asked at the handshake only: after it the session id is the credential. It is where `Origin`
    /// is checked, which CORS does not do.
    pub allow: Option<Allow>,
    /// Lets pages of other origins read the answers; off, as in the reference server.
    pub cors: Option<Cors>,
    /// The name of a cookie with the session id on the answer to a polling handshake, for a load
    /// balancer that sends all requests of a session to one server. Never a credential: a request's
    /// cookies are not looked at. A session that opens as a WebSocket is one connection and needs
    /// none. Must be a cookie name (RFC 6265: no space, comma, semicolon, equals sign).
    pub cookie: Option<String>,
}

impl Default for Config {
    /// The reference server's values, with bounds where it has none.
    fn default() -> Self {
        Self {
            path: "/engine.io/".to_owned(),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            max_payload: 1_000_000,
            max_sessions: 10_000,
            queue_messages: 1024,
            queue_bytes: 4 << 20,
            total_queued_bytes: 512 << 20,
            total_received_bytes: 64 << 20,
            upgrades: true,
            revision_3: true,
            allow: None,
            cors: None,
            cookie: None,
        }
    }
}

impl Config {
    pub(super) fn session_limits(&self) -> Limits {
        Limits {
            ping_interval: self.ping_interval,
            ping_timeout: self.ping_timeout,
            upgrade_timeout: self.upgrade_timeout,
            write_timeout: self.write_timeout,
            close_timeout: self.close_timeout,
            max_payload: self.max_payload,
            upgrades: self.upgrades,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("path", &self.path)
            .field("allow", &self.allow.is_some())
            .finish_non_exhaustive()
    }
}
