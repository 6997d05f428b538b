//! Socket.IO, protocol revision 5, and 4 for clients over Engine.IO 3 (see [`dialect`]); the
//! server's side, above [`crate::engineio`].
//!
//! # Laws
//! 1. A packet that breaks the grammar or the rules closes the whole connection, and the reason is
//!    logged at debug level.
//! 2. Nothing a client sends makes us panic, recurse, or hold more memory than the configured
//!    limits.
//! 3. Events of one client reach the application one at a time and in order; so do acknowledgements
//!    leave at most once.
//! 4. Sending never waits. An event for many is encoded once; per client it costs a queue push.
//! 5. Every `connected` is followed by exactly one `disconnected`.
//! 6. The Engine.IO session id is a secret; sockets have ids of their own.
//!
//! # Flow
//! ```text
//! engineio session ──Message──► connection: packet (grammar), json (depth, placeholders), reassembly (attachments)
//!                                   │ namespace: who may get it
//!                                   ▼
//!                                 Step ──► layer ──► Handler::{authorize, event, disconnected} ──Work──► back to the session
//! application ──► emit: Encoded ──► Socket ──► engineio outbox
//! ```
//! Work that the application returns is polled by the client's own session, which meanwhile takes
//! nothing more from this client: no task per event, and a client that asks faster than it is
//! answered waits.
//!
//! Rooms are not here: the application that wants to tell many clients keeps the list itself (a
//! [`Socket`] is cheap to clone) and sends one [`Encoded`] to each of them once
//! ([`Encoded::send_to_all`]).
//!
//! Where the reference server differs:
//! - A packet that arrives between a CONNECT and its answer waits for the answer instead of closing
//!   the connection, because the session reads nothing while it is authorized. So no second CONNECT
//!   overtakes the first; one to a namespace that the client is in closes the connection, as there.
//! - Packets for a namespace that the server has just disconnected are ignored (see [`namespace`]).
//! - There is no connection state recovery: `pid` and `offset` in a CONNECT are taken and ignored,
//!   as a server does that has it switched off.
//! - There is no broadcast acknowledgement, and every awaited acknowledgement has a time limit.
//! - A packet that breaks the grammar gives the reason `parse error`, not `forced close`: it tells
//!   whose fault it was.
//! - Text is as strict as RFC 8259: `NaN` and numbers with a leading zero close the connection.
//!   What is legal JSON but no Rust value (a lone surrogate, `1e400`) reaches the application as it
//!   was written; only in an event's name it closes the connection.
//! - A placeholder's `num` is written as a whole number: `0`, not `0.0`.

mod config;
mod connection;
mod dialect;
mod encode;
mod handler;
mod json;
mod layer;
mod namespace;
mod packet;
mod reassembly;
mod service;
mod socket;
#[cfg(test)]
mod tests;

pub use config::{Config, LayerConfig};
pub use connection::Connection;
pub use encode::{EncodeError, Encoded, Placeholder};
pub use handler::{ConnectRefused, ConnectRequest, DisconnectReason, Event, Handler};
pub use layer::Layer;
pub use packet::{MAX_ARGS, MAX_ATTACHMENTS};
pub use service::Service;
pub use socket::{Ack, AckError, Reply, SendError, Socket};

pub use crate::engineio::{CloseReason, Handshake, Work};
