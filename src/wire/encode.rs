//! Events as clients get them.

use std::sync::Arc;

use bitcoin::Network;

use super::{cursor, json};
use crate::socketio::{Encoded, SendError};
use crate::store::Starts;
use crate::tracker::Event;

/// The only Socket.IO namespace.
pub const NAMESPACE: &str = "/";

/// Encodes events, with what their cursors and addresses are made with.
#[derive(Debug, Clone)]
pub struct EventEncoder {
    pub starts: Arc<Starts>,
    pub network: Network,
}

impl EventEncoder {
    pub fn cursor(&self, number: u64) -> String {
        cursor::write(&self.starts, number)
    }

    /// The event as every subscriber gets it.
    pub fn encode(&self, number: u64, event: &Event) -> Result<Encoded, SendError> {
        let (name, json) = json::event(event, self.cursor(number), self.network);
        Ok(Encoded::event_raw(NAMESPACE, name, &json)?)
    }
}
