//! Socket.IO, protocol revision 5, and 4 for clients over Engine.IO 3 (see [`revision`]); the
//! server's side, above [`crate::engineio`].
//!
//! # Laws
//! 1. A packet that breaks the grammar or the rules closes the whole connection, and the reason is
//!    logged at debug level.
//! 2. Nothing a client sends makes us panic, recurse, or hold more memory than the configured
//!    limits.
//! 3. Events of one client reach the application one at a time and in order; each is acknowledged
//!    at most once.
//! 4. Sending never waits. An event for many is encoded once.
//! 5. Every `connected` is followed by exactly one `disconnected`.
//! 6. The Engine.IO session id is a secret; sockets have ids of their own.
//! 7. Who has joined a namespace is let in for as long as the session lasts
//!    ([`crate::engineio`], law 8); until then it is a stranger.
//!
//! # Flow
//! ```text
//! engineio session ──Message──► connection: packet (grammar), json (depth, placeholders), reassembly (attachments)
//!                                   │ namespace: who may get it
//!                                   ▼
//!                                 Action ──► session_handler ──► Handler::{authorize, event, disconnected} ──Work──► back to the session
//! answers:      application ──► Encoded ──► Socket::send ──► engineio outbox
//! all the rest: engineio session asks ──► Handler::poll_next ──► Encoded
//! ```
//! Work that the application returns is polled by the client's own session, which meanwhile takes
//! nothing more from this client: no task per event, and a client that asks faster than it is
//! answered waits.
//!
//! What an application sends to many clients it encodes once ([`Encoded`]) and gives to each of
//! them, pushed ([`Socket::send`]) or pulled ([`Handler::poll_next`]). There are no rooms.
//!
//! Where the reference server differs:
//! - A packet that arrives between a CONNECT and its answer waits for the answer instead of closing
//!   the connection, because the session reads nothing while it is authorized. So no second CONNECT
//!   overtakes the first; one to a namespace that the client is in closes the connection, as there.
//! - Packets for a namespace that the server has just disconnected are ignored (see [`namespace`]).
//! - A session that has left its last namespace is closed when it joins none within the connect
//!   timeout; the reference server closes only those that never joined one.
//! - There is no connection state recovery: `pid` and `offset` in a CONNECT are taken and ignored,
//!   as a server does that has it switched off.
//! - Clients are not asked for acknowledgements; one that comes is checked and dropped.
//! - A packet that breaks the grammar gives the reason `parse error`, not `forced close`: it tells
//!   whose fault it was.
//! - Text is as strict as RFC 8259: `NaN` and numbers with a leading zero close the connection.
//!   What is legal JSON but no Rust value (a lone surrogate, `1e400`) reaches the application as it
//!   was written; only in an event's name it closes the connection.
//! - A placeholder's `num` is written as a whole number: `0`, not `0.0`.

mod config;
mod connect;
mod connection;
mod encode;
mod handler;
mod json;
mod namespace;
mod packet;
mod reassembly;
mod revision;
mod revision_4;
mod service;
mod session_handler;
mod socket;
#[cfg(test)]
mod tests;

pub use config::{Config, LayerConfig};
pub use connect::{ConnectRefused, ConnectRequest, DisconnectReason};
#[cfg(test)]
pub use connection::Connection;
pub use encode::{EncodeError, Encoded};
pub use handler::{Event, Handler};
pub use service::{Service, service, set_limits};
pub use socket::{Ack, SendError, Socket};

pub use crate::engineio::{CloseReason, Handshake, Work};

/// No part of the interface: for tests of the application and the fuzz targets alone.
#[doc(hidden)]
pub mod internals {
    pub use super::session_handler::SocketIoHandler;
}
