//! What a service is told when it is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;

use super::session::Limits;

/// Decides by the headers of a handshake whether a session may be opened; the error is the message that the client gets.
pub type Allow = Arc<dyn Fn(&HeaderMap) -> Result<(), String> + Send + Sync>;

#[derive(Clone)]
pub struct Config {
    /// The exact path of all requests, trailing slash included.
    pub path: String,
    /// From one answered ping (or the opening) to the next ping.
    pub ping_interval: Duration,
    /// How long a ping may stay unanswered.
    pub ping_timeout: Duration,
    /// How long a WebSocket may take to finish an upgrade; the session goes on polling when it does not.
    pub upgrade_timeout: Duration,
    /// How long a frame may stay unwritten before the session ends.
    pub write_timeout: Duration,
    /// How long a closing session may take to get rid of what is queued.
    pub close_timeout: Duration,
    /// How long the body of a POST may take.
    pub body_timeout: Duration,
    /// Bytes of one WebSocket message or polling body, from the client; also what a polling answer is filled up to.
    pub max_payload: usize,
    /// Sessions at once; further handshakes are answered 503.
    pub max_sessions: usize,
    /// Messages that may wait for one client; one with its attachments counts once.
    pub queue_messages: usize,
    /// Bytes that may wait for one client.
    pub queue_bytes: usize,
    /// Whether a polling session may move to a WebSocket.
    pub upgrades: bool,
    /// Asked at the handshake only: after it the session id is the credential.
    pub allow: Option<Allow>,
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
            upgrades: true,
            allow: None,
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
        f.debug_struct("Config").field("path", &self.path).field("allow", &self.allow.is_some()).finish_non_exhaustive()
    }
}
