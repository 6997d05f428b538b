//! The limits of the reusable layers, from the settings. The layers are told when these change;
//! what is above them asks for the limits in force each time.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Limits, TrustedProxy};
use crate::{api, engineio, open_files, server, socketio};

/// Connections for metrics at the same time; more wait.
pub const METRICS_CONNECTIONS: usize = 64;

/// Of a stop, for answers that are being worked on.
const DRAIN_TIME: Duration = Duration::from_millis(1000);

pub fn server_limits(limits: &Limits, proxies: &[TrustedProxy]) -> server::Limits {
    // Its hard limit may have been raised from outside since the start.
    open_files::raise();
    let open_files = open_files::limit();
    if let Some(problem) = open_files::problem(limits.connections, open_files) {
        tracing::warn!("{problem}");
    }
    server::Limits {
        connections: limits.connections.min(open_files::for_clients(open_files)),
        connections_per_address: limits.connections_per_address,
        proxies: proxies.iter().map(TrustedProxy::network).collect(),
        unfinished_handshakes: limits.unfinished_handshakes,
        drain_time: DRAIN_TIME,
        ..server::Limits::default()
    }
}

pub fn socketio_config(limits: &Limits) -> socketio::Config {
    let default = socketio::Config::default();
    let engine = engineio::Config {
        max_payload: limits.packet_bytes,
        max_sessions: limits.connections,
        ..default.engine
    };
    // No event takes attachments.
    let layer = socketio::LayerConfig {
        keep_attachments: false,
        max_packet_bytes: limits.packet_bytes,
        ..default.layer
    };
    socketio::Config { engine, layer }
}

/// The layers below, while they run.
pub struct Layers {
    pub clients: server::Usage,
    pub metrics: Option<server::Usage>,
    pub router: Arc<api::Router>,
}

impl Layers {
    /// Has them keep to other limits. What is there stays.
    pub fn set(&self, limits: &Limits, proxies: &[TrustedProxy]) {
        let of_server = server_limits(limits, proxies);
        self.clients.set_limits(&of_server);
        if let Some(metrics) = &self.metrics {
            metrics.set_limits(&server::Limits {
                connections: METRICS_CONNECTIONS,
                ..of_server
            });
        }
        self.router.set_session_limits(&socketio_config(limits));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_let_a_connection_idle_twice_as_long_as_a_ping_takes() {
        let limits = Limits::default();
        let pings = socketio_config(&limits).engine;
        assert!(
            server_limits(&limits, &[]).idle_time >= (pings.ping_interval + pings.ping_timeout) * 2,
            "a polling client answers pings on a connection that idles meanwhile"
        );
    }
}
