//! Starting the follower, and beside it what asks the node for the past of scripts: baselines,
//! history scans, audits. They end together.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::status_publisher::StatusPublisher;
use super::{FollowError, Follower, node};
use crate::bitcoind::audit::{self, AuditRequest, AuditTask};
use crate::bitcoind::baseline::{self, Baselines};
use crate::bitcoind::rescan::{self, Rescans, ScanProgress};
use crate::bitcoind::{DiscoveredNode, NodeStatus};
use crate::config;
use crate::indexer::Handle;
use crate::store::{StoreError, StoreReader};
use crate::tracker::Ask;

/// Audits that may wait, the running one aside.
const AUDITS: usize = 1;

/// What the follower is made of.
pub struct FollowerConfig {
    pub settings: config::Bitcoind,
    /// The node, if it answered at start; otherwise it is looked for until it does.
    pub found: Option<DiscoveredNode>,
    pub reconcile_interval: Duration,
}

/// What the rest of the daemon has of the node.
pub struct FollowerHandles {
    pub status: watch::Receiver<NodeStatus>,
    /// Of the open history scans that are known here by now.
    pub scans: watch::Receiver<Vec<ScanProgress>>,
    /// Few may wait.
    pub audits: mpsc::Sender<AuditRequest>,
}

/// Starts following. `asks` is what the tracker wants to know; `monitoring` false sends nothing to
/// the indexer.
pub fn spawn(
    follower: FollowerConfig,
    indexer: Handle,
    reader: StoreReader,
    asks: mpsc::Receiver<Ask>,
    monitoring: watch::Receiver<bool>,
    shutdown: CancellationToken,
) -> (FollowerHandles, JoinHandle<Result<(), FollowError>>) {
    let (publisher, status) = StatusPublisher::new(follower.reconcile_interval);
    let (progress, scans) = watch::channel(Vec::new());
    let state = status.clone();
    let (audits, requests) = mpsc::channel(AUDITS);
    let task = async move {
        let mut publisher = publisher;
        let found = match follower.found {
            Some(found) => found,
            None => tokio::select! {
                found = node::search(&follower.settings, &reader, &mut publisher) => found,
                () = shutdown.cancelled() => return Ok(()),
            },
        };
        let rpc = found.rpc.clone();
        let end = shutdown.child_token();
        let follower = Follower::new(
            found,
            follower.settings,
            follower.reconcile_interval,
            publisher,
            indexer,
            reader,
            asks,
            monitoring,
        )?;
        let apart = rpc.apart();
        let rescans = follower.rescans(apart.clone(), state, progress);
        let audits = AuditTask {
            rpc: rpc.clone(),
            reader: follower.reader.clone(),
            position: follower.position.subscribe(),
            requests,
        };
        let beside = run_beside(follower.baselines(), rescans, audits, end.clone());
        let ended = run_together(follower, tokio::spawn(beside), end).await;
        rpc.close();
        apart.close();
        ended
    };
    (
        FollowerHandles {
            status,
            scans,
            audits,
        },
        tokio::spawn(task),
    )
}

/// Runs both until one of them ends, then ends the other.
async fn run_together(
    follower: Follower,
    mut beside: JoinHandle<Result<(), StoreError>>,
    end: CancellationToken,
) -> Result<(), FollowError> {
    let mut following = pin!(follower.run(end.clone()));
    let (followed, merged) = tokio::select! {
        followed = &mut following => {
            end.cancel();
            // It ends a scan of ours, with a time limit.
            (followed, beside.await)
        }
        merged = &mut beside => {
            // Without an error its inputs have ended, and the follower's too; with one the daemon
            // cannot go on.
            if !matches!(merged, Ok(Ok(()))) {
                end.cancel();
            }
            (following.await, merged)
        }
    };
    followed?;
    match merged {
        Ok(merged) => Ok(merged?),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Ok(()),
    }
}

/// What asks the node for the past of scripts. The first one that cannot go on ends all.
async fn run_beside(
    baselines: Baselines,
    rescans: Rescans,
    audits: AuditTask,
    end: CancellationToken,
) -> Result<(), StoreError> {
    let all = tokio::try_join!(
        baseline::run(baselines, end.clone()),
        rescan::run(rescans, end.clone()),
        audit::run(audits, end)
    );
    all.map(|_| ())
}
