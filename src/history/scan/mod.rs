//! History scans: what scripts did in blocks before they were watched.
//!
//! # Laws
//!
//! 1. Where a scan is, is in its row and nowhere else. What is kept in memory for it is made from
//!    the store, and dropped when the tracker refuses something, when the node fails in the middle
//!    of a block, when the scans that go together change their way.
//! 2. A block counts when it hashes to what was asked for and builds on the block before it.
//!    Whether that chain is ours is for the tracker to say, which also sets scans back when a reorg
//!    takes blocks from them.
//! 3. The live feed comes first: connections of our own, at most four blocks fetched at a time (six
//!    with those that nobody waits for any more), searched beside the runtime, and merged in small
//!    inputs, one at a time.
//! 4. Scans at the same height go together: a block is fetched and searched once for all of them
//!    and their scripts. What grows is only what is found.
//! 5. A scan that cannot go on says why, waits, and holds up no other.
//!
//! # Flow
//!
//! ```text
//! scheduler (store): shortest first, all at the same height --> batch (store): scripts, their outputs
//!                                                                 |
//! node --getblockhash, or scanblocks [`filters`]--> block_fetcher: in order --> block_matcher: hits --ScanBlocks--> indexer
//!                                                    |                            ^
//!                                 scans above height 0: what the blocks spend ----+
//! ```
//!
//! [`scan_loop`] does it in rounds, [`progress`] tells subscribers how far it is.
//!
//! A scan from height 0 meets every output before its spend. One that begins higher does not, so it
//! is told by the node what each block spends. So is one of a descriptor whose scripts came into it
//! on its way: it goes back for what those did before (`crate::tracker`, history scans of
//! descriptors).

mod batch;
mod block_fetcher;
mod block_matcher;
mod filters;
mod inputs;
mod progress;
mod scan_loop;
mod scheduler;

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::NodeContext;
use crate::bitcoind::NodeStatus;
use crate::store::StoreError;
use crate::tracker::ScanId;

/// Where the blocks of interest are learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanMethod {
    /// Compact block filters name the few blocks that matter.
    Filters,
    /// Every block is read.
    Blocks,
}

/// How an open scan is doing. What is lasting is in its row ([`crate::tracker::ScanRow`]).
#[derive(Debug, Clone, PartialEq)]
pub struct ScanProgress {
    pub scan: ScanId,
    /// Last height that it has to come to, as far as is known.
    pub target: u32,
    /// First height that is not scanned yet.
    pub next: u32,
    /// It is being worked on; otherwise it waits for its turn.
    pub running: bool,
    pub method: Option<ScanMethod>,
    /// Blocks a second, while it runs.
    pub rate: Option<f64>,
    /// Why nothing goes on, as a sentence for a person.
    pub waits_for: Option<String>,
}

/// Works on open scans until `shutdown`; ends a running call of ours then. A store that cannot be
/// read ends it at once.
pub(super) async fn run(
    context: NodeContext,
    wake: Arc<Notify>,
    progress: watch::Sender<Vec<ScanProgress>>,
    status: watch::Receiver<NodeStatus>,
    shutdown: CancellationToken,
) -> Result<(), StoreError> {
    let rpc = context.rpc.clone();
    let progress = progress::ProgressPublisher::new(progress, status);
    tokio::select! {
        ended = scan_loop::Runner::new(context, wake, progress).serve() => ended,
        () = shutdown.cancelled() => {
            // Otherwise the node would go on, and refuse the call of our next start.
            rpc.scans_ended().await;
            Ok(())
        }
    }
}
