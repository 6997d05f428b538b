//! The client: its connections, calls and batches, and what went wrong with one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bitcoincore_rpc::{Client, RpcApi, jsonrpc};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::method::Method;
use super::offer::Offer;
use crate::bitcoind::block_rest::BlockRest;
use crate::bitcoind::http::{Credentials, Http, Shared};
use crate::bitcoind::url::host_is_loopback;
use crate::bitcoind::{NodeError, NodeErrorKind};
use crate::remedy::Remedy;

/// Calls in one HTTP request.
pub const BATCH: usize = 500;

const WARMING_UP: i32 = -28;

/// One node. Clones share its connections.
#[derive(Clone)]
pub struct Rpc(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) url: String,
    pub(super) credentials: Credentials,
    pub(super) quick: Client,
    pub(super) quick_http: Arc<Http>,
    /// For blocks.
    pub(super) blocks: BlockRest,
    /// The running scan: it takes minutes, so it has a connection of its own, and can be given up.
    pub(super) scan: Mutex<Option<Arc<Http>>>,
    /// Held by it: the node runs one scan at a time. Others of ours wait in the order in which they
    /// came.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    pub(super) closed: AtomicBool,
    /// REST at all.
    pub(super) rest: Offer,
    /// What a block spends, over REST.
    pub(super) rest_spent: Offer,
}

pub(super) fn client(http: &Arc<Http>) -> Client {
    Client::from_jsonrpc(jsonrpc::Client::with_transport(Shared(http.clone())))
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
            blocks: BlockRest::new(url),
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

    /// Any call. An error of the node is [`NodeErrorKind::Rpc`] with its code.
    pub async fn call<T: DeserializeOwned + Send + 'static>(
        &self,
        method: Method,
        params: Vec<Value>,
    ) -> Result<T, NodeError> {
        self.blocking(move |inner| call(&inner.quick, method, &params))
            .await
    }

    /// `params`: one array of parameters per call. Answers with one of the `absent` codes are
    /// `None`.
    pub(super) async fn batches<T: DeserializeOwned + Send + 'static>(
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

    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, NodeError> + Send + 'static,
    ) -> Result<T, NodeError> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .unwrap_or_else(|_| Err(cut_short()))
    }
}

pub(super) fn cut_short() -> NodeError {
    NodeError::transient(
        NodeErrorKind::Unreachable,
        "a call to bitcoind was cut short: the daemon stops".into(),
    )
}

pub(super) fn call<T: DeserializeOwned>(
    client: &Client,
    method: Method,
    params: &[Value],
) -> Result<T, NodeError> {
    client
        .call(method.name(), params)
        .map_err(|error| node_error(method, error))
}

pub(super) fn batch<T: DeserializeOwned>(
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

pub(super) fn shape(method: Method, what: &dyn std::fmt::Display) -> NodeError {
    NodeError::persistent(
        NodeErrorKind::Shape,
        format!(
            "bitcoind's answer to {} is not understood ({what})",
            method.name()
        ),
    )
    .advise(Remedy::UpdateBitcoind)
}

pub(super) fn node_error(method: Method, error: bitcoincore_rpc::Error) -> NodeError {
    match error {
        bitcoincore_rpc::Error::JsonRpc(jsonrpc::Error::Transport(inner)) => {
            match inner.downcast::<NodeError>() {
                Ok(error) => *error,
                Err(other) => NodeError::transient(
                    NodeErrorKind::Unreachable,
                    format!(
                        "the connection to bitcoind failed during {} ({other})",
                        method.name()
                    ),
                ),
            }
        }
        bitcoincore_rpc::Error::JsonRpc(jsonrpc::Error::Rpc(error)) if error.code == WARMING_UP => {
            NodeError::transient(
                NodeErrorKind::WarmingUp,
                format!("bitcoind is starting ({})", error.message),
            )
            .advise(Remedy::Wait)
        }
        bitcoincore_rpc::Error::JsonRpc(jsonrpc::Error::Rpc(error)) => NodeError::persistent(
            NodeErrorKind::Rpc(error.code),
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

/// Whether an error says that the block is not there any more.
pub(crate) fn is_pruned(error: &NodeError) -> bool {
    error.kind == NodeErrorKind::Rpc(-1) && error.message.contains("pruned")
}
