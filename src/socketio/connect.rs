//! Joining and leaving a namespace: what the application is asked, answers and is told.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::engineio::{CloseReason, Handshake};

/// A CONNECT to one namespace, before it is answered.
#[derive(Debug, Clone)]
pub struct ConnectRequest {
    pub namespace: Arc<str>,
    /// The CONNECT payload, a JSON object; `{}` when the client sent none. For Socket.IO 2 clients
    /// the query in the namespace's name.
    pub auth: Box<RawValue>,
    pub handshake: Arc<Handshake>,
}

/// The refusal of a CONNECT: `{"message", "data"?}` in CONNECT_ERROR.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnectRefused {
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

/// Why one namespace's connection ended; the words are those of the reference server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DisconnectReason {
    #[error("{0}")]
    Session(CloseReason),
    #[error("client namespace disconnect")]
    ClientNamespaceDisconnect,
    #[error("server namespace disconnect")]
    ServerNamespaceDisconnect,
    #[error("forced server close")]
    ForcedServerClose,
}
