//! The tracker without any I/O: a pretended node (`world.rs`) lives, the tracker gets what a
//! follower would send, and after every step the rows and the events must say what the node's chain
//! and mempool say (`check.rs`).

mod check;
mod forget;
mod held;
mod interleave;
mod junk;
mod late;
mod lifecycle;
mod memory;
mod ops;
mod past;
mod props;
mod replaceable;
mod runner;
mod scenarios;
mod scripts;
#[path = "../common/status_changes.rs"]
mod status_changes;
mod told;
mod truth;
mod world;
