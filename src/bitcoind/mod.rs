//! Everything that talks to the node.
//!
//! # Laws
//!
//! 1. Nothing here knows what an answer means for watched addresses: that is [`crate::follower`]'s
//!    and [`crate::history`]'s to say.
//! 2. A call that failed says in one sentence which call, why and what to do ([`NodeError`]), and
//!    whether trying again can help ([`Retry`]).
//! 3. Every call has a time limit or is watched while it runs, every queue a bound. What the node
//!    works on counts, also when nobody waits for it any more.
//!
//! # Flow
//!
//! ```text
//! bitcoind --ZMQ--> zmq (one thread: receive, stamp, count) --Notice--> follower
//! bitcoind <------------- HTTP ------------------- http, rpc <----- follower, history
//! ```
//!
//! [`discover`] finds the node, with the help of its [`conf`]; [`findings`] say what is wrong with
//! it; [`NodeStatus`] is what the follower knows of it now.

mod conf;
pub mod discover;
pub(crate) mod findings;
mod http;
pub mod rpc;
mod status;
pub(crate) mod url;
pub mod zmq;

use crate::remedy::Remedy;
pub use discover::{DiscoveredNode, Endpoints, NodeInfo, find};
pub use findings::{Finding, try_calls};
pub use http::Credentials;
pub(crate) use http::cut_short;
pub use rpc::Rpc;
pub use status::{
    MempoolStatus, NodeStatus, ReconcileStatus, SyncPosition, TopicStatus, ZmqStatus,
};

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
    /// The node wants credentials, and its cookie file is not there or not whole.
    NoCookie,
    /// The node wants credentials, and we may not read its cookie file.
    CookieForbidden,
    /// The cookie is of another node or of an earlier start.
    CookieRefused,
    /// Wrong user or password.
    LoginRefused,
    /// `rpcallowip` refuses our address.
    AddressRefused,
    /// `rpcwhitelist` refuses this call.
    MethodRefused,
    /// This process has no file descriptor left.
    TooManyFiles,
    /// The work queue is full (HTTP 503), or somebody else's work is in the way.
    Busy,
    /// The node starts (-28).
    WarmingUp,
    /// Any other JSON-RPC error, with its code.
    Rpc(i32),
    /// The answer is not what this call answers.
    Shape,
    /// The answer is longer than one may be.
    TooLong,
    /// The node is not of the store's chain.
    OtherChain,
    /// The settings do not fit this node.
    Setup,
}

/// A call that failed. The text is a sentence for a person: which call, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", .remedy.as_ref().map_or(String::new(), |remedy| format!(": {remedy}")))]
pub struct NodeError {
    pub kind: NodeErrorKind,
    pub message: String,
    pub remedy: Option<Remedy>,
}

impl NodeError {
    pub(crate) fn new(kind: NodeErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            remedy: None,
        }
    }

    /// What answers gave something that no node gives.
    pub(crate) fn no_node(what: &str) -> Self {
        let what = format!("bitcoind answered with {what}");
        Self::new(NodeErrorKind::Shape, what).advise(Remedy::NameRpcPort)
    }

    pub(crate) fn advise(self, remedy: Remedy) -> Self {
        Self {
            remedy: Some(remedy),
            ..self
        }
    }

    pub fn retry(&self) -> Retry {
        match self.kind {
            NodeErrorKind::Unreachable
            | NodeErrorKind::TimedOut
            | NodeErrorKind::NoCookie
            | NodeErrorKind::CookieRefused
            | NodeErrorKind::TooManyFiles
            | NodeErrorKind::Busy
            | NodeErrorKind::WarmingUp => Retry::Transient,
            _ => Retry::Persistent,
        }
    }
}
