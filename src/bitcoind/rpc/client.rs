//! The client: calls and batches, and what went wrong with one. `bitcoincore-rpc` is named here
//! only, for the requests and responses of JSON-RPC.

use std::fmt::Display;
use std::sync::Arc;

use bitcoincore_rpc::jsonrpc::{self, Request, Response};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tokio::task::spawn_blocking;

use super::method::Method;
use crate::bitcoind::http::{Credentials, Http, Limit, cut_short};
use crate::bitcoind::url::NodeUrl;
use crate::bitcoind::{NodeError, NodeErrorKind};
use crate::remedy::Remedy;

/// Calls in one HTTP request.
pub const BATCH: usize = 500;

/// Block hashes or headers that the node has at hand.
const FEW: usize = 20;

const WARMING_UP: i32 = -28;
/// Longer answers are read beside the runtime: a megabyte of JSON takes some milliseconds.
const SHORT: usize = 64 << 10;

/// One node. Clones share its connections.
#[derive(Clone)]
pub struct Rpc {
    pub(super) http: Arc<Http>,
    /// Held by the running scan: the node runs one at a time. Others of ours wait in the order in
    /// which they came. It holds the scans of ours that may still run although their answers were
    /// lost.
    pub(super) turn: Arc<tokio::sync::Mutex<Vec<Method>>>,
}

impl Rpc {
    /// Connects at the first call.
    pub fn new(url: NodeUrl, credentials: Credentials) -> Self {
        Self {
            http: Arc::new(Http::new(url, credentials)),
            turn: Arc::default(),
        }
    }

    /// The same node over connections of their own, so that much work holds up nobody else.
    pub fn apart(&self) -> Self {
        Self::new(self.url().clone(), self.http.credentials.clone())
    }

    /// Who we are to the node, as it stands in `rpcwhitelist`.
    pub fn user(&self) -> String {
        self.http.user()
    }

    pub fn url(&self) -> &NodeUrl {
        &self.http.url
    }

    /// Any call; `params` is an array. An error of the node is [`NodeErrorKind::Rpc`] with its
    /// code.
    pub(super) async fn call<T: DeserializeOwned + Send + 'static>(
        &self,
        method: Method,
        params: Value,
        limit: Limit,
    ) -> Result<T, NodeError> {
        let body = to_raw_value(&params).and_then(|params| body(method, &params));
        let body = body.map_err(|error| shape(method, &error))?;
        self.ask(method, body, limit).await
    }

    /// The same with a [`body`] that is made.
    pub(super) async fn ask<T: DeserializeOwned + Send + 'static>(
        &self,
        method: Method,
        body: Vec<u8>,
        limit: Limit,
    ) -> Result<T, NodeError> {
        let answer = self.http.post(method.name(), body, limit).await?;
        read(answer, move |answer| {
            let answer: Response =
                serde_json::from_slice(answer).map_err(|error| shape(method, &error))?;
            answer.result().map_err(|error| failed(method, error))
        })
        .await
    }

    /// `params`: one array for each call. An answer with the code `absent` is `None`.
    pub(super) async fn batches<T: DeserializeOwned + Send + 'static>(
        &self,
        method: Method,
        params: Vec<Value>,
        absent: i32,
    ) -> Result<Vec<Option<T>>, NodeError> {
        let mut all = Vec::with_capacity(params.len());
        for chunk in params.chunks(BATCH) {
            let raw = chunk
                .iter()
                .map(to_raw_value)
                .collect::<Result<Vec<_>, _>>();
            let body = raw.and_then(|raw| {
                let calls = (0..)
                    .zip(&raw)
                    .map(|(id, params)| request(method, id, params));
                serde_json::to_vec(&calls.collect::<Vec<_>>())
            });
            let body = body.map_err(|error| shape(method, &error))?;
            let limit = match method {
                Method::BlockHash | Method::BlockHeader if chunk.len() <= FEW => Limit::LIGHT,
                _ => Limit::HEAVY,
            };
            let answer = self.http.post(method.name(), body, limit).await?;
            let count = chunk.len();
            let found = read(answer, move |answer| batch(method, answer, count, absent));
            all.extend(found.await?);
        }
        Ok(all)
    }
}

/// What is sent for one call.
pub(super) fn body(method: Method, params: &RawValue) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&request(method, 0, params))
}

fn request(method: Method, id: usize, params: &RawValue) -> Request<'_> {
    Request {
        method: method.name(),
        params: Some(params),
        id: id.into(),
        jsonrpc: Some("2.0"),
    }
}

/// The answers of `count` calls, in their order.
fn batch<T: DeserializeOwned>(
    method: Method,
    answer: &[u8],
    count: usize,
    absent: i32,
) -> Result<Vec<Option<T>>, NodeError> {
    let mut answers: Vec<Response> = serde_json::from_slice(answer).map_err(|error| {
        // A batch that is refused whole (warm-up) comes back as one error.
        match serde_json::from_slice::<Response>(answer).map(Response::check_error) {
            Ok(Err(refusal)) => failed(method, refusal),
            _ => shape(method, &error),
        }
    })?;
    answers.sort_by_key(|answer| answer.id.as_u64());
    let ids = answers.iter().map(|answer| answer.id.as_u64());
    if !ids.eq((0..count as u64).map(Some)) {
        return Err(shape(method, &"an answer is missing"));
    }
    let read = |answer: Response| match &answer.error {
        Some(error) if error.code == absent => Ok(None),
        _ => answer.result().map(Some),
    };
    let answers = answers.into_iter().map(read).collect::<Result<_, _>>();
    answers.map_err(|error| failed(method, error))
}

/// Reads an answer, a long one beside the runtime.
async fn read<T: Send + 'static>(
    answer: Bytes,
    work: impl FnOnce(&[u8]) -> Result<T, NodeError> + Send + 'static,
) -> Result<T, NodeError> {
    if answer.len() <= SHORT {
        return work(&answer);
    }
    let work = spawn_blocking(move || work(&answer)).await;
    work.unwrap_or_else(|_| Err(cut_short()))
}

pub(super) fn shape(method: Method, what: &dyn Display) -> NodeError {
    NodeError::new(
        NodeErrorKind::Shape,
        format!(
            "bitcoind's answer to {} is not understood ({what})",
            method.name()
        ),
    )
    .advise(Remedy::UpdateBitcoind)
}

fn failed(method: Method, error: jsonrpc::Error) -> NodeError {
    match error {
        jsonrpc::Error::Rpc(error) if error.code == WARMING_UP => NodeError::new(
            NodeErrorKind::WarmingUp,
            format!("bitcoind is starting ({})", error.message),
        )
        .advise(Remedy::Wait),
        jsonrpc::Error::Rpc(error) => NodeError::new(
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(answer: &str) -> Result<Vec<Option<u32>>, NodeError> {
        batch(Method::BlockHash, answer.as_bytes(), 2, -8)
    }

    #[test]
    fn the_answers_of_a_batch_are_in_the_order_of_its_calls() {
        let absent = r#"{"error":{"code":-8,"message":"out of range"},"id":0}"#;
        let known = r#"{"result":7,"id":1}"#;
        for answer in [format!("[{absent},{known}]"), format!("[{known},{absent}]")] {
            assert_eq!(hashes(&answer), Ok(vec![None, Some(7)]), "{answer}");
        }
        for (answer, kind) in [
            (format!("[{known}]"), NodeErrorKind::Shape),
            (format!("[{known},{known}]"), NodeErrorKind::Shape),
            ("7".to_owned(), NodeErrorKind::Shape),
            (absent.replace("-8", "-28"), NodeErrorKind::WarmingUp),
            (
                format!("[{known},{}]", absent.replace("-8", "-5")),
                NodeErrorKind::Rpc(-5),
            ),
        ] {
            assert_eq!(hashes(&answer).unwrap_err().kind, kind, "{answer}");
        }
    }
}
