//! What added addresses owned before they were added: one scan ([`super::utxo_scan`]) for all that
//! wait.
//!
//! It is merged in parts, each at our tip of that moment, so that what happens at that moment need
//! not wait for all of it.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::ScriptBuf;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::utxo_scan::{Outputs, ScanPart};
use super::{Interrupted, NodeContext, blocking};
use crate::bitcoind::rpc;
use crate::bitcoind::{NodeError, NodeErrorKind};
use crate::clock::now_ms;
use crate::indexer::{IndexerStopped, InputRefused};
use crate::store::StoreError;
use crate::tracker::{ApplyError, BlockId, Input, ScriptHash};

/// The scripts of one scan, by their bytes in the request: it costs about the same for one and for
/// many, and the node takes 32 MB. Some 300 000 of the usual ones.
const REQUEST: usize = 16 << 20;
/// Scripts and outputs that are merged at once: the indexer needs some ten milliseconds for them.
const PART: usize = 2000;
/// Scripts that are added one after the other share a scan: it begins when none has come for the
/// first of these times, or the first one has waited for the second.
const FEW: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// The same once so many wait that more of them are to be expected.
const MANY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
const ARE_MANY: usize = 1000;
/// Pause after something that only time mends.
const PAUSE: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(200);
/// Between two looks at the store without being told.
const LOOK: Duration = Duration::from_secs(10);

/// Merges baselines until `shutdown`; ends a running scan of ours then. A store that cannot be read
/// ends it at once.
pub(super) async fn run(
    context: NodeContext,
    wake: Arc<Notify>,
    shutdown: CancellationToken,
) -> Result<(), StoreError> {
    let rpc = context.rpc.clone();
    let work = BaselineTask { context, wake };
    tokio::select! {
        ended = work.serve() => ended,
        () = shutdown.cancelled() => {
            // Otherwise the node would go on scanning for minutes, and refuse the scan of our next
            // start.
            rpc.scans_ended().await;
            Ok(())
        }
    }
}

struct BaselineTask {
    context: NodeContext,
    wake: Arc<Notify>,
}

impl BaselineTask {
    async fn serve(mut self) -> Result<(), StoreError> {
        let mut told = None;
        loop {
            match self.round().await {
                Ok(()) => told = None,
                Err(Interrupted::Moved) => tokio::time::sleep(AGAIN).await,
                Err(Interrupted::Over) => return Ok(()),
                Err(Interrupted::Store(error)) => {
                    tracing::error!("cannot read which addresses wait for their outputs: {error}");
                    return Err(error);
                }
                Err(Interrupted::Node(error) | Interrupted::Away(error)) => {
                    let text = error.to_string();
                    if told.as_ref() != Some(&text) {
                        tracing::warn!(
                            "the unspent outputs of added addresses are not known yet: {text}"
                        );
                        told = Some(text);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Waits for work, scans, merges.
    async fn round(&mut self) -> Result<(), Interrupted> {
        self.context
            .wait_for(|position| position.at_node_tip)
            .await?;
        if self.pending(1).await?.is_empty() {
            // A wake-up may be dropped when very many come at once.
            let _ = tokio::time::timeout(LOOK, self.wake.notified()).await;
        }
        let spks = self.gather().await?;
        let count = spks.len();
        // Much may have happened while there was nothing to do: then wait again.
        if count == 0 || !self.context.is_at_node_tip() {
            return Ok(());
        }
        tracing::debug!("scanning the node's unspent outputs for {count} added addresses");
        let mut outputs = Outputs::scan(&self.context.rpc, spks, PART).await?;
        let mut merged = 0;
        while !outputs.parts.is_empty() {
            // Nothing is told while monitoring is stopped.
            self.context
                .wait_for(|position| position.at_node_tip)
                .await?;
            outputs.roll_forward(&mut self.context).await?;
            let Some(part) = outputs.parts.pop() else {
                break;
            };
            match self.merge(outputs.block, &part).await? {
                true => merged += part.found.len(),
                false => outputs.parts.push(part),
            }
        }
        tracing::info!(
            "merged {merged} unspent outputs of {count} added addresses at block {}",
            outputs.block.height
        );
        Ok(())
    }

    /// The scripts of the next scan, once no more of them seem to come.
    async fn gather(&self) -> Result<Vec<ScriptBuf>, Interrupted> {
        let began = Instant::now();
        self.gather_until(began, FEW).await;
        if self.pending(ARE_MANY).await?.len() == ARE_MANY {
            self.gather_until(began, MANY).await;
        }
        self.pending(usize::MAX).await
    }

    async fn gather_until(&self, began: Instant, (quiet, most): (Duration, Duration)) {
        while began.elapsed() < most
            && tokio::time::timeout(quiet, self.wake.notified())
                .await
                .is_ok()
        {}
    }

    /// Scripts that wait, at most `limit` and as many as fit into a request.
    async fn pending(&self, limit: usize) -> Result<Vec<ScriptBuf>, Interrupted> {
        let reader = self.context.reader.clone();
        blocking(move || {
            let mut room = REQUEST;
            let mut spks = Vec::new();
            for pending in reader.snapshot().pending_baselines().take(limit) {
                let (_, row) = pending?;
                let Some(left) = room.checked_sub(rpc::scan_bytes(&row.spk)) else {
                    break;
                };
                room = left;
                spks.push(row.spk);
            }
            Ok(spks)
        })
        .await
    }

    /// Answers whether it was merged; otherwise there is a new block.
    async fn merge(&self, block: BlockId, part: &ScanPart) -> Result<bool, Interrupted> {
        let scripts = part.spks.iter().map(|spk| ScriptHash::of(spk)).collect();
        let outputs = part.found.values().cloned().collect();
        match self
            .context
            .indexer
            .apply(Input::Baseline {
                block,
                scripts,
                outputs,
                now: now_ms(),
            })
            .await
        {
            Ok(_) => Ok(true),
            Err(InputRefused::Apply(ApplyError::NotOurTip { .. })) => Ok(false),
            Err(InputRefused::Apply(error)) => {
                Err(NodeError::new(NodeErrorKind::Shape, error.to_string()).into())
            }
            Err(InputRefused::Stopped(IndexerStopped)) => Err(Interrupted::Over),
        }
    }
}
