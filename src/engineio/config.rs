//! What a service is told when it is made.

use std::time::Duration;

use hyper::header::HeaderName;

use super::session::Limits;

#[derive(Debug, Clone)]
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
    /// Sessions at once. Beyond, the oldest whose client is not let in makes room; when all are,
    /// further handshakes are answered 503.
    pub max_sessions: usize,
    /// Messages that wait for one client, in its outbox, at most; one with its attachments counts
    /// once. From half of either bound on, no further packet of the client is handled.
    pub outbox_messages: usize,
    /// Bytes with which an outbox is full; the message that fills it may be of any size.
    pub outbox_bytes: usize,
    /// Bytes of messages that clients began to send, or that the layer above has not let go of,
    /// together; beyond it what begins to come is refused. Small ones (4 KiB) do not count.
    pub total_received_bytes: usize,
    /// Whether a polling session may move to a WebSocket.
    pub upgrades: bool,
    /// Whether clients of revision 3 (`EIO=3`: Socket.IO 1 and 2) are served too. JSONP, which only
    /// browsers without XMLHttpRequest 2 used, is not.
    pub revision_3: bool,
    /// Those headers of the first request that are given to the layer above.
    pub keep_headers: &'static [HeaderName],
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
            outbox_messages: 64,
            outbox_bytes: 64 << 10,
            total_received_bytes: 64 << 20,
            upgrades: true,
            revision_3: true,
            keep_headers: &[],
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
