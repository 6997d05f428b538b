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

/// What [`super::Layer`] holds its clients to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerConfig {
    /// From the opening of a session until it has joined its first namespace; authorization counts.
    pub connect_timeout: Duration,
    /// Namespaces that one client may be in at a time.
    pub max_namespaces: usize,
    /// Bytes of one packet with all its attachments. An application without binary events from
    /// clients does well to set it low.
    pub max_packet_bytes: usize,
    /// Bytes of all packets of all clients whose attachments have not all come, those up to 4 KiB
    /// aside; beyond, the slowest are closed.
    pub max_incomplete_bytes: usize,
    /// From one part of a packet with attachments to the next; the whole packet may take four times
    /// that.
    pub attachment_timeout: Duration,
}

impl Default for LayerConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(45),
            max_namespaces: 32,
            max_packet_bytes: 10_000_000,
            max_incomplete_bytes: 64_000_000,
            attachment_timeout: Duration::from_secs(45),
        }
    }
}
