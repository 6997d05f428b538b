//! Calls about the node as it is now.

use bitcoin::{BlockHash, ScriptBuf, Txid};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::json;

use super::answers::{Blockchain, Header, MempoolInfo, MempoolTxids, Network, Notification};
use super::client::{Rpc, shape};
use super::method::Method;
use crate::bitcoind::NodeError;
use crate::bitcoind::http::Limit;
use crate::tracker::RawTx;

const NOT_FOUND: i32 = -5;
const OUT_OF_RANGE: i32 = -8;

impl Rpc {
    /// Makes the call with parameters that change nothing.
    pub async fn try_out(&self, method: Method) -> Result<(), NodeError> {
        let limit = match method {
            Method::RawMempool => Limit::HEAVY,
            _ => Limit::LIGHT,
        };
        let answer = self.call(method, method.trial(), limit).await;
        answer.map(|IgnoredAny| ())
    }

    async fn light<T: DeserializeOwned + Send + 'static>(
        &self,
        method: Method,
    ) -> Result<T, NodeError> {
        self.call(method, json!([]), Limit::LIGHT).await
    }

    pub async fn blockchain(&self) -> Result<Blockchain, NodeError> {
        self.light(Method::BlockchainInfo).await
    }

    pub async fn network(&self) -> Result<Network, NodeError> {
        self.light(Method::NetworkInfo).await
    }

    /// Seconds since the node's start.
    pub async fn uptime(&self) -> Result<u64, NodeError> {
        self.light(Method::Uptime).await
    }

    pub async fn notifications(&self) -> Result<Vec<Notification>, NodeError> {
        self.light(Method::ZmqNotifications).await
    }

    pub async fn best_block(&self) -> Result<BlockHash, NodeError> {
        self.light(Method::BestBlockHash).await
    }

    pub async fn genesis(&self) -> Result<BlockHash, NodeError> {
        self.call(Method::BlockHash, json!([0]), Limit::LIGHT).await
    }

    pub async fn mempool_info(&self) -> Result<MempoolInfo, NodeError> {
        self.light(Method::MempoolInfo).await
    }

    pub async fn mempool_txids(&self) -> Result<MempoolTxids, NodeError> {
        self.call(Method::RawMempool, json!([false, true]), Limit::HEAVY)
            .await
    }

    /// The node's block hashes at these heights; `None` above its tip.
    pub async fn hashes(&self, heights: Vec<u32>) -> Result<Vec<Option<BlockHash>>, NodeError> {
        self.batches(
            Method::BlockHash,
            heights.into_iter().map(|height| json!([height])).collect(),
            OUT_OF_RANGE,
        )
        .await
    }

    pub async fn headers(&self, hashes: Vec<BlockHash>) -> Result<Vec<Option<Header>>, NodeError> {
        self.batches(
            Method::BlockHeader,
            hashes.into_iter().map(|hash| json!([hash])).collect(),
            NOT_FOUND,
        )
        .await
    }

    /// Transactions of the mempool (and, on a node with `txindex`, of blocks); `None` where there
    /// is none.
    pub async fn transactions(&self, txids: Vec<Txid>) -> Result<Vec<Option<RawTx>>, NodeError> {
        let params = txids.iter().map(|txid| json!([txid, false])).collect();
        // Any bytes in hex.
        let found: Vec<Option<ScriptBuf>> = self
            .batches(Method::RawTransaction, params, NOT_FOUND)
            .await?;
        let answers = txids.into_iter().zip(found);
        answers
            .map(|(txid, raw)| raw.map(|raw| transaction(txid, raw)).transpose())
            .collect()
    }

    /// Which of these the mempool holds.
    pub async fn in_mempool(&self, txids: Vec<Txid>) -> Result<Vec<bool>, NodeError> {
        let params = txids.into_iter().map(|txid| json!([txid])).collect();
        let found: Vec<Option<IgnoredAny>> = self
            .batches(Method::MempoolEntry, params, NOT_FOUND)
            .await?;
        Ok(found.iter().map(Option::is_some).collect())
    }
}

/// The one that was asked for.
fn transaction(txid: Txid, raw: ScriptBuf) -> Result<RawTx, NodeError> {
    let tx = RawTx::parse(raw.into_bytes()).filter(|tx| tx.txid() == txid);
    tx.ok_or_else(|| shape(Method::RawTransaction, &"another transaction, or none"))
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::consensus::encode::serialize;
    use bitcoin::transaction::Version;
    use bitcoin::{Transaction, TxIn};

    use super::*;

    #[test]
    fn another_transaction_than_was_asked_for_is_no_answer() {
        let tx = |n| Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(n),
            input: vec![TxIn::default()],
            output: vec![],
        };
        let (asked, raw) = (tx(1).compute_txid(), |n| serialize(&tx(n)).into());
        assert_eq!(transaction(asked, raw(1)), Ok(RawTx::from(&tx(1))));
        assert!(transaction(asked, raw(2)).is_err());
        assert!(transaction(asked, vec![1].into()).is_err());
    }
}
