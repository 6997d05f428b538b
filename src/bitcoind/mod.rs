//! Everything that talks to the node.
//!
//! # Laws
//!
//! 1. ZMQ is a hint, RPC is the truth. Whatever ZMQ tells may come twice, late or never; whatever
//!    it should have told is found by looking (each reconcile interval, and at once after a gap, a
//!    reconnect or anything that does not fit).
//! 2. What ZMQ tells never waits for a call: calls run beside the loop that handles notices.
//! 3. A block is connected only on our tip, wherever it came from. Whether the node's chain is
//!    another one is decided from hashes, never from heights; a node that is still syncing is
//!    waited for, not followed backwards.
//! 4. "In the mempool" is what the node said (`sequence`, a snapshot, `getmempoolentry`), never
//!    what `rawtx` carried.
//! 5. Every call has a time limit, every retry a pause, every queue a bound.
//!
//! # Flow
//!
//! ```text
//! bitcoind --ZMQ--> zmq (one thread: receive, stamp, count) --Notice--> follower --Input--> indexer
//!                                                                        |    ^
//!                                          fork, mempool_snapshot: calls that run beside it
//!                                                                        v    |
//! bitcoind <-------------------- HTTP -------------------------------- rpc, http, block_rest
//!          beside the follower, in a task of their own: baseline and audit (scantxoutset), rescan (history scans)
//! ```
//!
//! [`discover`] finds the node, with the help of its [`conf`]; [`findings`] say what is wrong with
//! it; [`NodeStatus`] is what the follower knows of it now.

mod audit;
mod baseline;
mod block_rest;
mod conf;
pub mod discover;
mod findings;
mod follower;
mod fork;
mod http;
mod mempool_events;
mod mempool_snapshot;
mod rescan;
pub mod rpc;
mod status;
mod url;
mod utxo_scan;
pub mod zmq;

use crate::remedy::Remedy;
pub use audit::{AuditRequest, Audited};
pub use discover::{DiscoveredNode, Endpoints, NodeInfo, find};
pub use findings::{Finding, try_calls};
pub use follower::FollowError;
pub use follower::start::{FollowerConfig, FollowerHandles, spawn};
pub use http::Credentials;
pub use rescan::{ScanMethod, ScanProgress};
pub use rpc::Rpc;
pub use status::{MempoolStatus, NodeStatus, ReconcileStatus, TopicStatus, ZmqStatus};

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The node is away, starting or busy.
    Transient,
    /// Somebody has to change something.
    Persistent,
}

/// What went wrong between us and the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeErrorKind {
    /// No connection, or it broke.
    Unreachable,
    TimedOut,
    /// The node wants credentials, and its cookie file cannot be read.
    NoCookie,
    /// Wrong credentials.
    Unauthorized,
    /// `rpcallowip` refuses our address.
    AddressRefused,
    /// `rpcwhitelist` refuses this call.
    MethodRefused,
    /// This process has no file descriptor left.
    TooManyFiles,
    /// The work queue is full (HTTP 503).
    Busy,
    /// The node starts (-28).
    WarmingUp,
    /// Any other JSON-RPC error, with its code.
    Rpc(i32),
    /// The answer is not what this call answers.
    Shape,
    /// The node is not of the store's chain.
    OtherChain,
    /// The settings do not fit this node.
    Setup,
}

/// A call that failed. The text is a sentence for a person: which call, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", .remedy.as_ref().map_or(String::new(), |remedy| format!(": {remedy}")))]
pub struct NodeError {
    pub retry: Retry,
    pub kind: NodeErrorKind,
    pub message: String,
    pub remedy: Option<Remedy>,
}

impl NodeError {
    pub(crate) fn transient(kind: NodeErrorKind, message: String) -> Self {
        Self {
            retry: Retry::Transient,
            kind,
            message,
            remedy: None,
        }
    }

    pub(crate) fn persistent(kind: NodeErrorKind, message: String) -> Self {
        Self {
            retry: Retry::Persistent,
            kind,
            message,
            remedy: None,
        }
    }

    pub(crate) fn advise(self, remedy: Remedy) -> Self {
        Self {
            remedy: Some(remedy),
            ..self
        }
    }
}
