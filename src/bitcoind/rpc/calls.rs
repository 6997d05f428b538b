//! Calls about the node as it is now.

use bitcoin::consensus::encode;
use bitcoin::{Block, BlockHash, Transaction, Txid};
use serde_json::json;

use super::answers::{Blockchain, Header, MempoolInfo, MempoolTxids, Network, Notification};
use super::client::{Rpc, shape};
use super::method::Method;
use crate::bitcoind::{NodeError, NodeErrorKind};

const NOT_FOUND: i32 = -5;
const OUT_OF_RANGE: i32 = -8;

impl Rpc {
    /// Makes the call with parameters that change nothing.
    pub async fn try_out(&self, method: Method) -> Result<(), NodeError> {
        let answer: Result<serde::de::IgnoredAny, _> = self.call(method, method.trial()).await;
        answer.map(|_| ())
    }

    pub async fn blockchain(&self) -> Result<Blockchain, NodeError> {
        self.call(Method::BlockchainInfo, vec![]).await
    }

    pub async fn network(&self) -> Result<Network, NodeError> {
        self.call(Method::NetworkInfo, vec![]).await
    }

    /// Seconds since the node's start.
    pub async fn uptime(&self) -> Result<u64, NodeError> {
        self.call(Method::Uptime, vec![]).await
    }

    pub async fn notifications(&self) -> Result<Vec<Notification>, NodeError> {
        self.call(Method::ZmqNotifications, vec![]).await
    }

    pub async fn best_block(&self) -> Result<BlockHash, NodeError> {
        self.call(Method::BestBlockHash, vec![]).await
    }

    pub async fn genesis(&self) -> Result<BlockHash, NodeError> {
        self.call(Method::BlockHash, vec![json!(0)]).await
    }

    pub async fn mempool_info(&self) -> Result<MempoolInfo, NodeError> {
        self.call(Method::MempoolInfo, vec![]).await
    }

    pub async fn mempool_txids(&self) -> Result<MempoolTxids, NodeError> {
        self.call(Method::RawMempool, vec![json!(false), json!(true)])
            .await
    }

    /// The node's block hashes at these heights; `None` above its tip.
    pub async fn hashes(&self, heights: Vec<u32>) -> Result<Vec<Option<BlockHash>>, NodeError> {
        self.batches(
            Method::BlockHash,
            heights.into_iter().map(|height| json!([height])).collect(),
            &[OUT_OF_RANGE],
        )
        .await
    }

    pub async fn headers(&self, hashes: Vec<BlockHash>) -> Result<Vec<Option<Header>>, NodeError> {
        self.batches(
            Method::BlockHeader,
            hashes.into_iter().map(|hash| json!([hash])).collect(),
            &[NOT_FOUND],
        )
        .await
    }

    /// Transactions of the mempool (and, on a node with `txindex`, of blocks); `None` where there
    /// is none.
    pub async fn transactions(
        &self,
        txids: Vec<Txid>,
    ) -> Result<Vec<Option<Transaction>>, NodeError> {
        let params = txids.into_iter().map(|txid| json!([txid, false])).collect();
        let found: Vec<Option<String>> = self
            .batches(Method::RawTransaction, params, &[NOT_FOUND])
            .await?;
        self.blocking(move |_| {
            let parse = |hex: String| {
                encode::deserialize_hex(&hex).map_err(|error| shape(Method::RawTransaction, &error))
            };
            found
                .into_iter()
                .map(|hex| hex.map(parse).transpose())
                .collect()
        })
        .await
    }

    /// Which of these the mempool holds.
    pub async fn in_mempool(&self, txids: Vec<Txid>) -> Result<Vec<bool>, NodeError> {
        let params = txids.into_iter().map(|txid| json!([txid])).collect();
        let found: Vec<Option<serde::de::IgnoredAny>> = self
            .batches(Method::MempoolEntry, params, &[NOT_FOUND])
            .await?;
        Ok(found.iter().map(Option::is_some).collect())
    }

    /// One block, over REST where a node on this machine offers it (ten times cheaper than hex in
    /// JSON).
    pub async fn block(&self, hash: BlockHash) -> Result<Block, NodeError> {
        let raw = self.raw_block(hash, Vec::new()).await?;
        self.blocking(move |_| {
            let block = encode::deserialize(&raw).map_err(|error| shape(Method::Block, &error))?;
            checked(&hash, block)
        })
        .await
    }
}

fn checked(hash: &BlockHash, block: Block) -> Result<Block, NodeError> {
    if block.block_hash() == *hash {
        return Ok(block);
    }
    Err(NodeError::persistent(
        NodeErrorKind::Shape,
        format!("bitcoind answered with another block than {hash}"),
    ))
}
