//! The calls that the follower wants made, and the search for a node.

use std::time::Duration;

use bitcoin::BlockHash;
use tokio::sync::watch;

use super::actions::{Answer, Call, Inspection};
use super::look::{LookError, look, read_mempool, start_window};
use super::status_builder::{NotReady, StatusBuilder};
use super::times::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::bitcoind::rpc::Rpc;
use crate::bitcoind::{DiscoveredNode, NodeError, NodeStatus, discover};
use crate::clock::now_ms;
use crate::config;
use crate::store::{StoreError, StoreReader};
use crate::tracker::RawTx;

/// Looks for a node of our chain until there is one.
pub(super) async fn search(
    settings: &config::Bitcoind,
    reader: &StoreReader,
    builder: &mut StatusBuilder,
    status: &watch::Sender<NodeStatus>,
) -> DiscoveredNode {
    let chain = reader.chain();
    let mut pause: Duration = FIRST_PAUSE;
    loop {
        let error = match discover::find_on(settings, Some(chain.network)).await {
            Ok(found) if found.chain == chain => return found,
            Ok(found) => discover::wrong_chain(
                found.rpc.url(),
                &format!("with genesis {}", found.chain.genesis),
                &chain.genesis.to_string(),
            ),
            Err(error) => error,
        };
        let now = now_ms();
        builder.node_failed(&error, now);
        status.send_replace(builder.build(Some(NotReady::Node), now).clone());
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Makes a call. Only the store is a reason to end.
pub(super) async fn make(call: Call, rpc: Rpc, reader: StoreReader) -> Result<Answer, StoreError> {
    Ok(match call {
        Call::Look { ours } => match look(&rpc, |height| our_block(&reader, height), ours).await {
            Ok(look) => Answer::Look(Ok(look)),
            Err(LookError::Node(error)) => Answer::Look(Err(error)),
            Err(LookError::Store(error)) => return Err(error),
        },
        Call::StartWindow => Answer::StartWindow(start_window(&rpc).await),
        Call::ReadMempool => Answer::Mempool(read_mempool(&rpc).await),
        Call::Transactions { txids, tip } => Answer::Transactions {
            found: rpc.transactions(txids.clone()).await,
            txids,
            tip,
        },
        Call::InMempool { txs, tip } => Answer::InMempool {
            held: rpc.in_mempool(txs.iter().map(RawTx::txid).collect()).await,
            txs,
            tip,
        },
        Call::Inspect => Answer::Inspection(inspect(&rpc).await.map(Box::new)),
    })
}

fn our_block(reader: &StoreReader, height: u32) -> Result<Option<BlockHash>, StoreError> {
    let block = reader.snapshot().block(&height)?;
    Ok(block.map(|block| block.hash))
}

async fn inspect(rpc: &Rpc) -> Result<Inspection, NodeError> {
    Ok(Inspection {
        // Without an answer the others would wait as long as this one did.
        node: rpc.blockchain().await?,
        mempool: rpc.mempool_info().await.ok(),
        uptime: rpc.uptime().await.ok(),
        network: rpc.network().await,
        notifications: rpc.notifications().await,
    })
}
