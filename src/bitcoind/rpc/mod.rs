//! The calls that satwatch makes, through `bitcoincore-rpc`'s client over our own transport
//! ([`super::http`]).
//!
//! # Laws
//!
//! 1. Answers are read with our own structs ([`answers`]): everything that a call does not need may
//!    be missing, so Core and Knots of any year fit (the crate's own structs fail on Core 31 and
//!    later, which dropped fields).
//! 2. Only what [`Method`] lists can be called, so the line for `rpcwhitelist` is complete.
//! 3. Blocking work runs on tokio's blocking threads; nothing here holds up the runtime.
//!
//! # Flow
//!
//! ```text
//! calls, blocks, scan ──► client (call, batch) ──► super::http ──► bitcoind
//!        blocks ────────► super::block_rest, where the node offers it (offer) ──► bitcoind
//! ```

mod answers;
mod blocks;
mod calls;
mod client;
pub(super) mod method;
mod offer;
mod scan;

pub use answers::{
    Blockchain, Header, MempoolInfo, MempoolTxids, Network, Notification, RbfPolicy,
};
pub use blocks::{FilterIndex, FilterScan, Prevout};
pub(crate) use client::is_pruned;
pub use client::{BATCH, Rpc};
pub use method::{Method, whitelist_line};
pub use scan::{Unspent, UtxoScan, scan_bytes};
