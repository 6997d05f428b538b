//! Limits of the Socket.IO layer.

use std::time::Duration;

use crate::engineio;

/// Limits of the Socket.IO layer; those of the sessions below are in `engine`.
#[derive(Debug, Clone)]
pub struct Config {
    pub engine: engineio::Config,
    pub layer: LayerConfig,
}

impl Default for Config {
    /// Engine.IO's, on the path that clients of Socket.IO ask for.
    fn default() -> Self {
        let engine = engineio::Config {
            path: "/socket.io/".to_owned(),
            ..engineio::Config::default()
        };
        Self {
            engine,
            layer: LayerConfig::default(),
        }
    }
}

/// What [`super::SocketIoHandler`] holds its clients to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerConfig {
    /// From the opening of a session, or since it has left its last namespace, until it has joined
    /// one; authorization counts.
    pub connect_timeout: Duration,
    /// Namespaces that one client may be in at a time.
    pub max_namespaces: usize,
    /// Whether the attachments of clients' packets are kept. For an application whose events take
    /// none they are dropped as they come: each is empty in the event, and the application says no.
    pub keep_attachments: bool,
    /// Bytes of one packet with all the attachments that are kept.
    pub max_packet_bytes: usize,
    /// Bytes of all packets of all clients whose attachments have not all come, those up to 4 KiB
    /// aside; whoever brings more is closed.
    pub max_incomplete_bytes: usize,
    /// From a packet to the last of its attachments.
    pub attachment_timeout: Duration,
}

impl Default for LayerConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(45),
            max_namespaces: 32,
            keep_attachments: true,
            max_packet_bytes: 10_000_000,
            max_incomplete_bytes: 64_000_000,
            attachment_timeout: Duration::from_secs(45),
        }
    }
}
