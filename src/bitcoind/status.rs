//! What the follower knows of the node now. One value, published whole; times are in milliseconds
//! since the Unix epoch.
//!
//! How old it is: `last_answer` is when the node answered a call, `current_at` when we last knew to
//! be where it is.

use super::{Finding, NodeInfo};
use crate::tracker::{BlockId, Replacement};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node answers our calls.
    pub available: bool,
    /// Why it does not, or what it refuses.
    pub error: Option<String>,
    pub unavailable_since: Option<u64>,
    /// When it answered last.
    pub last_answer: Option<u64>,
    /// When we last heard from it while we followed it: the state that we tell was the node's then.
    /// `None`: not since our start.
    pub current_at: Option<u64>,
    /// What it says of itself; its tip may be newer than the last look.
    pub node: NodeInfo,
    pub zmq: ZmqStatus,
    pub reconcile: ReconcileStatus,
    pub mempool: MempoolStatus,
    /// We are at the node's tip, know its mempool, and the feeds that it offers are up.
    pub following: bool,
    /// Why not.
    pub reason: Option<String>,
    /// What could be better with the node, each with its remedy; good findings too.
    pub notes: Vec<Finding>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ZmqStatus {
    pub rawtx: TopicStatus,
    pub rawblock: TopicStatus,
    pub sequence: TopicStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicStatus {
    /// `None`: the node does not offer it, the poll stands in.
    pub endpoint: Option<String>,
    pub connected: bool,
    /// It is known to be our node's; what another one says is only a reason to ask.
    pub believed: bool,
    /// The node's own number of the last message.
    pub last_sequence: Option<u32>,
    pub last_message: Option<u64>,
    /// Times that messages were missing, and how many in all.
    pub gaps: u64,
    pub lost: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReconcileStatus {
    /// Seconds.
    pub interval: u64,
    pub last_run: Option<u64>,
    pub last_duration_ms: u64,
    /// Blocks and transactions that the poll, or a look after a gap, found although the feed was
    /// up. Some may have been on their way: the node answers a call before it publishes what the
    /// call told of. What only left the mempool does not count.
    pub repairs: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MempoolStatus {
    /// Transactions in the node's mempool when it was read last.
    pub size: u64,
    /// False while the node reads the mempool of its last run.
    pub loaded: bool,
    /// When that was.
    pub at: Option<u64>,
    /// Which transactions the node lets be replaced.
    pub replacement: Replacement,
}

/// Where the follower is: what is at our tip, and only while it is the node's, can be compared with
/// answers of the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncPosition {
    pub tip: Option<BlockId>,
    /// Monitoring is on and our tip was the node's when we looked last.
    pub at_node_tip: bool,
}
