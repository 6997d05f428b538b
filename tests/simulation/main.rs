//! The real follower, tracker, store, event log and readers against a pretended node, in thousands
//! of lives under a seeded clock: news late, lost, doubled and one topic before the other; answers
//! from the past; reorgs of any depth; replacement, eviction, restart; pruning; power loss at any
//! commit; history scans and their ends; readers that are slow and vanish.
//!
//! A life is a script ([`script`]), drawn from a seed. Time is passed, not waited for, and nothing
//! runs beside the test, so the same seed is the same life. While it goes on, no event may tell
//! what never was ([`laws`]); in the end, when the node has fallen silent and all was looked at
//! again ([`life`]), rows and events must be the node's truth, each reader must have had each event
//! once, and where nothing was lost, the story that was told must be exact.
//!
//! A failure prints its seed and a script from which nothing more can be removed. To see what
//! happens in it:
//!
//! ```text
//! SIMULATION_SEED=1234 cargo test --test simulation rough_in_memory
//! ```
//!
//! Each test lives the same few lives each time. `SIMULATION_LIVES=200000` lives so many others,
//! from a random seed on.

mod bitcoind;
mod calls;
mod clock;
mod feed;
mod hunt;
mod laws;
mod life;
#[path = "../common/pretended/mod.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod pretended;
mod process;
mod random;
mod readers;
mod rows;
mod scan_laws;
mod scanning;
mod script;
mod wallets;
mod seam {
    pub use satwatch::follower::machines::*;
}

use script::{Store, Weather};

#[test]
fn calm_in_memory() {
    hunt::hunt("calm_in_memory", Weather::Calm, Store::Memory, 500);
}

#[test]
fn rough_in_memory() {
    hunt::hunt("rough_in_memory", Weather::Rough, Store::Memory, 1500);
}

/// Finds, for one, scans that are not set back by a reorg.
#[test]
fn scans_in_memory() {
    hunt::hunt("scans_in_memory", Weather::Scans, Store::Memory, 100);
}

#[test]
fn rough_on_disk() {
    hunt::hunt("rough_on_disk", Weather::Rough, Store::Disk, 40);
}

#[test]
fn the_same_seed_is_the_same_life() {
    hunt::check_repeatable();
}
