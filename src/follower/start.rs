//! Starting the follower, and beside it what asks the node for the past of scripts: baselines,
//! history scans, audits. They end together.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::node_link::NodeLink;
use super::shell::{self, Shell};
use super::status_builder::{NotReady, StatusBuilder};
use super::{FollowError, Follower, calls};
use crate::bitcoind::{DiscoveredNode, NodeStatus};
use crate::clock::now_ms;
use crate::config;
use crate::history::{self, AuditRequest, HistoryChannels, LeftOut, ScanProgress};
use crate::indexer::Handle;
use crate::store::{StoreError, StoreReader};
use crate::tracker::FollowUp;

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
    pub left_out: watch::Receiver<LeftOut>,
    /// Few may wait.
    pub audits: mpsc::Sender<AuditRequest>,
}

/// Starts following. `follow_ups` is what the tracker wants to know; `monitoring` false sends the
/// indexer nothing of the chain and of the mempool, but for the node's policy.
pub fn spawn(
    config: FollowerConfig,
    indexer: Handle,
    reader: StoreReader,
    follow_ups: mpsc::Receiver<FollowUp>,
    monitoring: watch::Receiver<bool>,
    shutdown: CancellationToken,
) -> (FollowerHandles, JoinHandle<Result<(), FollowError>>) {
    let mut builder = StatusBuilder::new(config.reconcile_interval);
    let (sender, status) = watch::channel(builder.build(Some(NotReady::Node), now_ms()).clone());
    let (progress, scans) = watch::channel(Vec::new());
    let (too_long, left_out) = watch::channel(LeftOut::new());
    let (audits, requests) = mpsc::channel(AUDITS);
    let handles = FollowerHandles {
        status: status.clone(),
        scans,
        left_out,
        audits,
    };
    let task = async move {
        let found = match config.found.clone() {
            Some(found) => found,
            None => tokio::select! {
                found = calls::search(&config.settings, &reader, &mut builder, &sender) => found,
                () = shutdown.cancelled() => return Ok(()),
            },
        };
        builder.found(&found.node, &found.notes, now_ms());
        let end = shutdown.child_token();
        let follower = follower(&config, &found, builder, &reader, &monitoring)?;
        let shell = Shell::new(
            follower,
            found.rpc.clone(),
            reader,
            indexer,
            follow_ups,
            monitoring,
            sender,
        );
        let channels = HistoryChannels {
            baseline: shell.baseline.clone(),
            scans: shell.scans.clone(),
            audits: requests,
            status,
            left_out: too_long,
            progress,
        };
        let beside = history::run(shell.context(), channels, end.clone());
        let following = shell.run(found.zmq, end.clone());
        run_together(following, tokio::spawn(beside), end).await
    };
    (handles, tokio::spawn(task))
}

fn follower(
    config: &FollowerConfig,
    found: &DiscoveredNode,
    status: StatusBuilder,
    reader: &StoreReader,
    monitoring: &watch::Receiver<bool>,
) -> Result<Follower, StoreError> {
    let now = shell::now();
    let node = NodeLink::new(
        config.settings.clone(),
        found.rpc.url().clone(),
        reader.chain().network.to_core_arg(),
        status,
        *monitoring.borrow(),
        now,
    );
    let tip = reader.snapshot().tip()?;
    Ok(Follower::new(node, tip, config.reconcile_interval, now))
}

/// Runs both until one of them ends, then ends the other.
async fn run_together(
    following: impl Future<Output = Result<(), FollowError>>,
    mut beside: JoinHandle<Result<(), StoreError>>,
    end: CancellationToken,
) -> Result<(), FollowError> {
    let mut following = pin!(following);
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
