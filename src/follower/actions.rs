//! What the follower is told, and what it wants done.

use std::time::Instant;

use bitcoin::{BlockHash, Txid};

use super::fork::{StartWindow, TipComparison};
use super::mempool_snapshot::MempoolRead;
use crate::bitcoind::rpc::{Blockchain, MempoolInfo, Network, Notification};
use crate::bitcoind::zmq::Stamped;
use crate::bitcoind::{Endpoints, NodeError};
use crate::indexer::Done;
use crate::tracker::{ApplyError, BlockId, FollowUp, Input, RawBlock, RawTx};

/// When an event happened.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Never goes back: for everything that is waited for.
    pub instant: Instant,
    /// Milliseconds since the Unix epoch: for what is told.
    pub ms: u64,
}

#[derive(Debug)]
pub enum FollowerEvent {
    /// There is a node of our chain, which publishes here. The first event.
    Found(Endpoints),
    Notice(Stamped),
    /// The answer to [`Action::Apply`].
    Applied(Result<Done, ApplyError>),
    /// The tracker asks; what wakes others does not come here.
    Asked(FollowUp),
    /// The next block of [`Action::Fetch`]; `None` after the last one. Nothing follows an error.
    Fetched(Option<Result<RawBlock, NodeError>>),
    /// The answer to [`Action::Call`].
    Answered(Answer),
    /// Monitoring was switched on or off; may say what is known.
    Monitoring(bool),
    /// Time has passed, and every notice that came until now has been handed over before: only then
    /// is it known that no successor of what left came in time.
    Woken,
}

/// Carried out in order. The last one may be [`Apply`](Self::Apply); its answer is the next event,
/// but for what the tracker asks.
#[derive(Debug)]
pub enum Action {
    /// An input whose answer decides what comes next. What the tracker asks because of it and all
    /// inputs before it comes ahead of the answer.
    Apply(Input),
    /// An input after which nothing has to be decided; that it is refused is told to nobody.
    Post(Input),
    /// Ask the node, beside everything else.
    Call(Call),
    /// Fetch these blocks, in order, beside everything else; in place of what is being fetched.
    Fetch(Vec<BlockHash>),
    /// Nothing of it comes any more.
    StopFetch,
    /// Receive from here, and from nowhere else any more.
    Subscribe(Endpoints),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// How the node's chain relates to ours.
    Look {
        ours: Option<BlockId>,
    },
    /// The blocks that an empty store starts with.
    StartWindow,
    ReadMempool,
    /// Those that the mempool holds. `tip` is ours, and comes back with the answer; the same below.
    Transactions {
        txids: Vec<Txid>,
        tip: Option<BlockId>,
    },
    /// Which of these the mempool holds.
    InMempool {
        txs: Vec<RawTx>,
        tip: Option<BlockId>,
    },
    Inspect,
}

#[derive(Debug)]
pub enum Answer {
    Look(Result<TipComparison, NodeError>),
    /// `None` if the node's tip moved meanwhile.
    StartWindow(Result<Option<StartWindow>, NodeError>),
    Mempool(Result<MempoolRead, NodeError>),
    Transactions {
        txids: Vec<Txid>,
        tip: Option<BlockId>,
        found: Result<Vec<Option<RawTx>>, NodeError>,
    },
    InMempool {
        txs: Vec<RawTx>,
        tip: Option<BlockId>,
        held: Result<Vec<bool>, NodeError>,
    },
    Inspection(Result<Box<Inspection>, NodeError>),
}

/// How the node is, and what changes only when it is restarted. Nodes may forbid all but the first.
#[derive(Debug, Clone)]
pub struct Inspection {
    pub node: Blockchain,
    pub mempool: Option<MempoolInfo>,
    /// Seconds.
    pub uptime: Option<u64>,
    pub network: Result<Network, NodeError>,
    pub notifications: Result<Vec<Notification>, NodeError>,
}
