//! The calls that satwatch makes, over [`super::http`].
//!
//! # Laws
//!
//! 1. Answers are read with our own structs ([`answers`]): everything that a call does not need may
//!    be missing, so Core and Knots of any year fit (the structs of `bitcoincore-rpc` fail on Core
//!    31 and later, which dropped fields).
//! 2. Only what [`Method`] lists can be called, so the line for `rpcwhitelist` is complete.
//! 3. Long answers are read on tokio's blocking threads; nothing here holds up the runtime.
//!
//! # Flow
//!
//! ```text
//! calls, blocks, scan --> client (call, batches) --> http: POST --> bitcoind
//!        blocks ------------------------------------> http: GET, if bitcoind is on this machine
//! ```

mod answers;
mod blocks;
mod calls;
mod client;
pub(super) mod method;
mod scan;

pub use answers::{
    Blockchain, Header, MempoolInfo, MempoolTxids, Network, Notification, RbfPolicy,
};
pub use blocks::{FilterIndex, Prevout};
pub(crate) use client::is_pruned;
pub use client::{BATCH, Rpc};
pub use method::{Method, whitelist_line};
pub use scan::{FilterScan, ScanRange, Unspent, UtxoScan, scan_bytes};
