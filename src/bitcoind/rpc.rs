//! The calls that satwatch makes, through `bitcoincore-rpc`'s client over our own transport
//! ([`super::http`]).
//!
//! Answers are read with our own structs: everything that a call does not need may be missing, so
//! Core and Knots of any year fit (the crate's own structs fail on Core 31 and later, which dropped
//! fields). Blocking work runs on tokio's blocking threads; nothing here holds up the runtime.

mod method;
mod past;
mod scan;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bitcoin::consensus::encode;
use bitcoin::{Block, BlockHash, Transaction, Txid};
use bitcoincore_rpc::{Client, RpcApi, jsonrpc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::past::Offer;
use super::http::{Credentials, Http, Shared};
use super::rest::Rest;
use super::{Cause, NodeError};
use crate::remedy::Remedy;
use crate::tracker::Replacement;

pub use self::method::{Method, whitelist_line};
pub use self::past::{FilterIndex, FilterScan, Prevout};
pub use self::scan::{Scan, Unspent, scan_bytes};

/// Calls in one HTTP request.
pub const BATCH: usize = 500;

const NOT_FOUND: i32 = -5;
const OUT_OF_RANGE: i32 = -8;
const WARMING_UP: i32 = -28;

/// One node. Clones share its connections.
#[derive(Clone)]
pub struct Rpc(Arc<Inner>);

struct Inner {
    url: String,
    credentials: Credentials,
    quick: Client,
    quick_http: Arc<Http>,
    /// For blocks.
    blocks: Rest,
    /// The running scan: it takes minutes, so it has a connection of its own, and can be given up.
    scan: Mutex<Option<Arc<Http>>>,
    /// Held by it: the node runs one scan at a time. Others of ours wait in the order in which they
    /// came.
    turn: Arc<tokio::sync::Mutex<()>>,
    closed: AtomicBool,
    /// REST at all.
    rest: Offer,
    /// What a block spends, over REST.
    rest_spent: Offer,
}

fn client(http: &Arc<Http>) -> Client {
    Client::from_jsonrpc(jsonrpc::Client::with_transport(Shared(http.clone())))
}

/// `getblockchaininfo`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Blockchain {
    /// `main`, `test`, `testnet4`, `signet` or `regtest`.
    pub chain: String,
    pub blocks: u32,
    #[serde(default)]
    pub headers: u32,
    pub bestblockhash: BlockHash,
    /// In the header of the tip; Core 23 and later say it.
    #[serde(default)]
    pub time: Option<u32>,
    #[serde(default)]
    pub mediantime: Option<u32>,
    /// The node's guess how much of the chain it has, up to 1.
    #[serde(default)]
    pub verificationprogress: Option<f64>,
    #[serde(default)]
    pub initialblockdownload: bool,
    /// On signet, from Core 28 on.
    #[serde(default)]
    pub signet_challenge: Option<String>,
    #[serde(default)]
    pub pruned: bool,
    /// First height whose block is still there, on a pruned node.
    #[serde(default)]
    pub pruneheight: Option<u32>,
}

impl Blockchain {
    /// A chain on which nobody may be mining: regtest, and a signet of one's own. There the node
    /// says for ever that it is in its initial download when its tip is a day old.
    pub fn is_private(&self) -> bool {
        match self.chain.as_str() {
            "regtest" => true,
            "signet" => match &self.signet_challenge {
                Some(challenge) => challenge != PUBLIC_SIGNET,
                // The node knows no rate of transactions of such a chain: it reckons to have all.
                None => self.verificationprogress == Some(1.0),
            },
            _ => false,
        }
    }

    /// When the tip was mined, by its header. Up to an hour less where the node tells the median.
    pub fn tip_time(&self) -> Option<u32> {
        self.time.or(self.mediantime)
    }
}

/// The challenge of the signet that everybody uses.
const PUBLIC_SIGNET: &str = "512103ad5e0edad18cb1f0fc0d28a3d4f1f3e445640337489abb10404f2d1e086be430\
                             210359ef5021964fe22d6f8e05b2463c9540ce96883fe3b278760f048f5189f2e6c452ae";

/// `getblockheader`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Header {
    pub hash: BlockHash,
    pub height: u32,
    pub time: u32,
    #[serde(default)]
    pub previousblockhash: Option<BlockHash>,
}

/// `getnetworkinfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Network {
    /// 290500 is 29.5.0.
    #[serde(default)]
    pub version: u64,
    #[serde(default)]
    pub subversion: String,
    /// False with `blocksonly`.
    #[serde(default)]
    pub localrelay: Option<bool>,
    #[serde(default)]
    pub networkactive: Option<bool>,
    #[serde(default)]
    pub connections: Option<u32>,
}

/// `getmempoolinfo`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct MempoolInfo {
    /// False while the node still reads the mempool of its last run. Nodes that do not say are
    /// taken to be through.
    #[serde(default = "yes")]
    pub loaded: bool,
    #[serde(default)]
    pub size: u64,
    /// Absent where there is no choice: before Core 24, and in the newest.
    #[serde(default)]
    pub fullrbf: Option<bool>,
    /// Of Knots.
    #[serde(default)]
    pub rbf_policy: RbfPolicy,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RbfPolicy {
    Never,
    #[default]
    #[serde(other)]
    AsFullrbf,
}

impl MempoolInfo {
    /// `version`: of the node, 290500 is 29.5.0; 0 if it does not tell.
    pub fn replacement(&self, version: u64) -> Replacement {
        let any = self.fullrbf.unwrap_or(!(1..240_000).contains(&version));
        match (self.rbf_policy, any) {
            (RbfPolicy::Never, _) => Replacement::Never,
            (RbfPolicy::AsFullrbf, true) => Replacement::Any,
            (RbfPolicy::AsFullrbf, false) => Replacement::Signalled,
        }
    }
}

/// `getrawmempool false true`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MempoolTxids {
    pub txids: Vec<Txid>,
    /// The next number of `sequence`'s A and R: the list holds exactly what came before it.
    #[serde(default)]
    pub mempool_sequence: Option<u64>,
}

/// One line of `getzmqnotifications`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Notification {
    /// `pubrawtx`, …
    #[serde(rename = "type")]
    pub kind: String,
    pub address: String,
    #[serde(default)]
    pub hwm: Option<i64>,
}

fn yes() -> bool {
    true
}

impl Rpc {
    /// `url`: `http://host:port`. Connects at the first call.
    pub fn new(url: &str, credentials: Credentials) -> Self {
        let quick_http = Arc::new(Http::new(url, credentials.clone()));
        // REST has no authentication, so it is used on this machine only.
        let rest = || {
            if host_is_loopback(url) {
                Offer::default()
            } else {
                Offer::absent()
            }
        };
        Self(Arc::new(Inner {
            quick: client(&quick_http),
            quick_http,
            blocks: Rest::new(url),
            credentials,
            scan: Mutex::new(None),
            turn: Arc::default(),
            closed: AtomicBool::new(false),
            rest: rest(),
            rest_spent: rest(),
            url: url.to_owned(),
        }))
    }

    /// The same node over connections of their own, so that much work holds up nobody else.
    pub fn apart(&self) -> Self {
        Self::new(&self.0.url, self.0.credentials.clone())
    }

    /// Who we are to the node, as it stands in `rpcwhitelist`.
    pub fn user(&self) -> String {
        self.0.quick_http.user()
    }

    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Ends all calls, waiting ones included; later ones fail. For the end of the daemon.
    pub fn close(&self) {
        self.0.quick_http.close();
        self.0.blocks.close();
        self.0.closed.store(true, Ordering::Relaxed);
        self.0.end_scan();
    }

    /// The node was restarted, maybe with other options: find out again what it offers.
    pub fn forget_offers(&self) {
        if host_is_loopback(&self.0.url) {
            self.0.rest.forget();
            self.0.rest_spent.forget();
        }
    }

    /// Any call. An error of the node is [`Cause::Rpc`] with its code.
    pub async fn call<T: DeserializeOwned + Send + 'static>(
        &self,
        method: Method,
        params: Vec<Value>,
    ) -> Result<T, NodeError> {
        self.blocking(move |inner| call(&inner.quick, method, &params))
            .await
    }

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

    /// `params`: one array of parameters per call. Answers with one of the `absent` codes are
    /// `None`.
    async fn batches<T: DeserializeOwned + Send + 'static>(
        &self,
        method: Method,
        params: Vec<Value>,
        absent: &'static [i32],
    ) -> Result<Vec<Option<T>>, NodeError> {
        self.blocking(move |inner| {
            let mut all = Vec::with_capacity(params.len());
            for chunk in params.chunks(BATCH) {
                all.extend(batch(&inner.quick, method, chunk, absent)?);
            }
            Ok(all)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, NodeError> + Send + 'static,
    ) -> Result<T, NodeError> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .unwrap_or_else(|_| Err(cut_short()))
    }
}

fn cut_short() -> NodeError {
    NodeError::transient(
        Cause::Unreachable,
        "a call to bitcoind was cut short: the daemon stops".into(),
    )
}

fn checked(hash: &BlockHash, block: Block) -> Result<Block, NodeError> {
    if block.block_hash() == *hash {
        return Ok(block);
    }
    Err(NodeError::persistent(
        Cause::Shape,
        format!("bitcoind answered with another block than {hash}"),
    ))
}

fn call<T: DeserializeOwned>(
    client: &Client,
    method: Method,
    params: &[Value],
) -> Result<T, NodeError> {
    client
        .call(method.name(), params)
        .map_err(|error| node_error(method, error))
}

fn batch<T: DeserializeOwned>(
    client: &Client,
    method: Method,
    params: &[Value],
    absent: &[i32],
) -> Result<Vec<Option<T>>, NodeError> {
    let wrong = |error: jsonrpc::Error| node_error(method, error.into());
    let client = client.get_jsonrpc_client();
    let raw = params
        .iter()
        .map(serde_json::value::to_raw_value)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| shape(method, &error))?;
    let requests: Vec<_> = raw
        .iter()
        .map(|params| client.build_request(method.name(), Some(params)))
        .collect();
    let answers = client.send_batch(&requests).map_err(wrong)?;
    let read = |answer: Option<jsonrpc::Response>| {
        let answer = answer.ok_or_else(|| shape(method, &"an answer is missing"))?;
        match &answer.error {
            Some(error) if absent.contains(&error.code) => Ok(None),
            _ => answer.result().map(Some).map_err(wrong),
        }
    };
    answers.into_iter().map(read).collect()
}

fn shape(method: Method, what: &dyn std::fmt::Display) -> NodeError {
    NodeError::persistent(
        Cause::Shape,
        format!(
            "bitcoind's answer to {} is not understood ({what})",
            method.name()
        ),
    )
    .advise(Remedy::UpdateBitcoind)
}

fn node_error(method: Method, error: bitcoincore_rpc::Error) -> NodeError {
    match error {
        bitcoincore_rpc::Error::JsonRpc(jsonrpc::Error::Transport(inner)) => {
            match inner.downcast::<NodeError>() {
                Ok(error) => *error,
                Err(other) => NodeError::transient(
                    Cause::Unreachable,
                    format!(
                        "the connection to bitcoind failed during {} ({other})",
                        method.name()
                    ),
                ),
            }
        }
        bitcoincore_rpc::Error::JsonRpc(jsonrpc::Error::Rpc(error)) if error.code == WARMING_UP => {
            NodeError::transient(
                Cause::WarmingUp,
                format!("bitcoind is starting ({})", error.message),
            )
            .advise(Remedy::Wait)
        }
        bitcoincore_rpc::Error::JsonRpc(jsonrpc::Error::Rpc(error)) => NodeError::persistent(
            Cause::Rpc(error.code),
            format!(
                "bitcoind refuses {}: {} ({})",
                method.name(),
                error.message,
                error.code
            ),
        ),
        other => shape(method, &other),
    }
}

fn host_is_loopback(url: &str) -> bool {
    let host = host_of(url);
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// The host in `http://host:port/path`, with the brackets of an IPv6 address.
pub(super) fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Whether an error says that the block is not there any more.
pub(super) fn is_pruned(error: &NodeError) -> bool {
    error.cause == Cause::Rpc(-1) && error.message.contains("pruned")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_tell_its_policy_has_that_of_its_version() {
        for (answer, version, replacement) in [
            ("{}", 220_000, Replacement::Signalled),
            ("{}", 230_100, Replacement::Signalled),
            ("{}", 310_000, Replacement::Any),
            ("{}", 0, Replacement::Any),
            (r#"{"fullrbf": false}"#, 280_000, Replacement::Signalled),
            (r#"{"fullrbf": true}"#, 240_000, Replacement::Any),
            (r#"{"rbf_policy": "never"}"#, 290_000, Replacement::Never),
            (r#"{"rbf_policy": "never"}"#, 230_000, Replacement::Never),
        ] {
            let info: MempoolInfo = serde_json::from_str(answer).expect("an answer");
            assert_eq!(info.replacement(version), replacement, "{answer} {version}");
        }
    }
}
