//! The tracker without any I/O: a pretended node (`world.rs`) lives, the tracker gets what a follower would send, and after every
//! step the rows must say what the node's chain and mempool say.

mod props;
mod scenarios;
mod world;
