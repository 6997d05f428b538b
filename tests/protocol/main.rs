//! The protocol layers over real connections on the loopback, without a node.

mod engineio;
mod engineio_3;
mod engineio_bounds;
mod engineio_conformance;
mod engineio_end;
mod engineio_frames;
mod engineio_pull;
mod engineio_rig;
mod engineio_sessions;
mod fuzzed;
mod hostile;
mod socketio;
mod socketio_rig;
