//! The protocol layers over real connections on the loopback, without a node.

mod engineio;
mod socketio;
