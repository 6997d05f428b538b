//! What watched scripts did before they were watched, asked of the node.
//!
//! # Laws
//!
//! 1. What is to be done stands in the store: which addresses wait for their outputs, which scans
//!    are open. A wake-up only says that something changed; a dropped one is made good by a look.
//! 2. An answer speaks for one block. It is carried over the blocks that came since, and merged at
//!    our tip or not at all ([`utxo_scan`]).
//! 3. The live feed comes first: what is found is merged in small inputs, one at a time, while we
//!    are at the node's tip.
//! 4. A scan of ours that nobody waits for any more is ended in the node as well.
//! 5. Scripts of a descriptor are asked for when all that it wants are derived
//!    (`crate::derivation`, which needs no node). Uses beyond them make it want more
//!    ([`baseline`]), so that a wallet is found whole without a scan for each thousand of its
//!    scripts.
//!
//! # Flow
//!
//! ```text
//! store: addresses that wait --> baseline: scantxoutset for all of them --Baseline--> indexer
//! store: open scans -----------> scan: blocks, or filters and some blocks --ScanBlocks-> indexer
//! api: a request --------------> audit: scantxoutset for one address or descriptor -> its answer
//! ```

mod audit;
mod baseline;
mod scan;
mod utxo_scan;

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bitcoind::{NodeError, NodeStatus, Rpc, SyncPosition};
use crate::indexer::Handle;
use crate::store::{StoreError, StoreReader};

pub use audit::{Audit, AuditRequest, Audited};
pub use baseline::{Added, LeftOut};
pub use scan::{ScanMethod, ScanProgress};

/// What every task of this room works with.
#[derive(Clone)]
pub struct NodeContext {
    pub rpc: Rpc,
    pub reader: StoreReader,
    pub indexer: Handle,
    pub position: watch::Receiver<SyncPosition>,
}

/// How the tasks hear of work and tell of it.
pub struct HistoryChannels {
    /// Addresses wait for their outputs.
    pub baseline: Arc<Notify>,
    /// History scans were opened or ended.
    pub scans: Arc<Notify>,
    pub audits: mpsc::Receiver<AuditRequest>,
    /// Says why we are not at the node's tip.
    pub status: watch::Receiver<NodeStatus>,
    /// Of the addresses that wait, those whose outputs the node cannot tell.
    pub left_out: watch::Sender<LeftOut>,
    /// Progress of the scans that are known to be open, in any order.
    pub progress: watch::Sender<Vec<ScanProgress>>,
}

/// Why work on the past did not go on.
#[derive(Debug)]
enum Interrupted {
    /// Our chain or the node's moved on meanwhile: begin again.
    Moved,
    /// The node does not do this.
    Node(NodeError),
    /// The node does nothing for anybody.
    Away(NodeError),
    /// The indexer or the follower has ended.
    Over,
    Store(StoreError),
}

impl From<NodeError> for Interrupted {
    fn from(error: NodeError) -> Self {
        Self::Node(error)
    }
}

impl From<StoreError> for Interrupted {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Works until `shutdown`, and ends running scans of ours then. A store that cannot be read ends it
/// at once.
pub async fn run(
    context: NodeContext,
    channels: HistoryChannels,
    shutdown: CancellationToken,
) -> Result<(), StoreError> {
    let HistoryChannels {
        baseline,
        scans,
        audits,
        status,
        left_out,
        progress,
    } = channels;
    // The blocks of history scans must not keep the follower's calls waiting.
    let apart = NodeContext {
        rpc: context.rpc.apart(),
        ..context.clone()
    };
    let end = shutdown.child_token();
    let mut tasks = JoinSet::new();
    tasks.spawn(baseline::run(
        context.clone(),
        baseline,
        left_out,
        end.clone(),
    ));
    tasks.spawn(scan::run(apart, scans, progress, status, end.clone()));
    tasks.spawn(audit::run(context, audits, end.clone()));
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Ok(()),
        };
        if ended.is_err() {
            end.cancel();
        }
        result = result.and(ended);
    }
    result
}

impl NodeContext {
    async fn wait_for(
        &mut self,
        what: impl FnMut(&SyncPosition) -> bool,
    ) -> Result<SyncPosition, Interrupted> {
        let position = self.position.wait_for(what).await;
        position
            .map(|position| *position)
            .map_err(|_| Interrupted::Over)
    }

    fn is_at_node_tip(&self) -> bool {
        self.position.borrow().at_node_tip
    }
}

/// Work that takes long or reads much, beside the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Interrupted> + Send + 'static,
) -> Result<T, Interrupted> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Interrupted::Over),
    }
}
