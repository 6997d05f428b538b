//! The two protocol layers under the daemon's name and without the rest of it, so that fuzzing
//! needs no RocksDB.

#[path = "../../../src/engineio/mod.rs"]
pub mod engineio;
#[path = "../../../src/socketio/mod.rs"]
pub mod socketio;
