//! The tracker without any I/O: a pretended node (`tests/common/pretended`) lives, the tracker gets
//! what a follower would send (`world.rs`), and after every step the rows and the events must say
//! what the node's chain and mempool say (`tests/common/pretended/laws.rs`).

mod adds;
mod arbitrary_descriptors;
mod arbitrary_inputs;
mod descriptor_scans;
mod descriptors;
mod evictions;
mod forget;
mod history_scan;
mod interleave;
mod labels;
mod late_watch;
mod lifecycle;
mod memory;
mod operations;
mod portions;
#[path = "../common/pretended/mod.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod pretended;
mod props;
mod repeats;
mod replaceable;
mod runner;
mod scan_equivalence;
mod scenarios;
mod scripts;
mod shorthand;
mod stale_mempool;
mod wallet_baselines;
mod wallet_lives;
mod wallets;
mod world;
