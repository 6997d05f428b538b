//! JSON-RPC over HTTP/1.1 with kept connections, as a transport of `bitcoincore-rpc`'s `jsonrpc`
//! crate.
//!
//! Its own transports either serialize all callers and send a request again after a time-out, or
//! open a connection per call; none re-reads the cookie, which is new at every start of the node.
//! What bitcoind answers (seen on 29.5):
//!
//! ```text
//! 200, 404, 500 with JSON   an answer; 500 and 404 carry an error object, a batch is always 200
//! 401                       wrong credentials, after 250 ms; none, at once
//! 403                       rpcallowip refuses the address, with or without credentials; or rpcwhitelist
//!                           refuses the method (a batch is refused whole)
//! 503, not JSON             the work queue is full
//! ```
mod errors;
mod limits;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use bitcoincore_rpc::jsonrpc::{self, Request, Response};

use super::{NodeError, NodeErrorKind};
use crate::remedy::Remedy;
use errors::HttpFailure;
pub(super) use errors::is_out_of_files;
use limits::{CallLimit, HEAVY_LIMIT, LIGHT_LIMIT, limit_of, starts_scan};

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// bitcoind closes idle connections after 30 s (`-rpcservertimeout`).
const IDLE_LIMIT: Duration = Duration::from_secs(25);

/// How we show the node who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The file that the node writes at each start.
    Cookie(PathBuf),
    User {
        user: String,
        password: String,
        /// The `bitcoin.conf` that they are from; otherwise from our settings.
        conf: Option<PathBuf>,
    },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cookie(path) => f.debug_tuple("Cookie").field(path).finish(),
            Self::User { user, .. } => f
                .debug_struct("User")
                .field("user", user)
                .finish_non_exhaustive(),
        }
    }
}

/// One pool of connections to the node. Calls block; see [`super::rpc`] for the async side.
pub(super) struct Http {
    agent: ureq::Agent,
    url: String,
    credentials: Credentials,
    /// The `Authorization` value that worked last.
    authorization: Mutex<Option<String>>,
}

impl Http {
    /// `url`: `http://host:port[/path]`, no slash at the end.
    pub(super) fn new(url: &str, credentials: Credentials) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(8)
            .max_idle_connections_per_host(8)
            .max_idle_age(IDLE_LIMIT)
            .timeout_connect(Some(CONNECT_LIMIT))
            .build()
            .new_agent();
        Self {
            agent,
            url: url.to_owned(),
            credentials,
            authorization: Mutex::new(None),
        }
    }

    /// Ends all calls, those that wait for an answer included. Later calls fail.
    pub(super) fn close(&self) {
        self.agent.clone().shutdown();
    }

    /// Sends one JSON body, calls of `method`, and returns the JSON that came back, whatever it
    /// says.
    fn exchange(
        &self,
        method: &str,
        body: &[u8],
        limit: CallLimit,
        repeatable: bool,
    ) -> Result<Vec<u8>, NodeError> {
        let mut repeats = u8::from(repeatable);
        let mut renewed = false;
        loop {
            let authorization = self.authorization(false)?;
            match self.send(method, body, Some(&authorization), limit) {
                Ok((401, _)) if !renewed && self.authorization(true)? != authorization => {
                    renewed = true
                }
                Ok((401, _)) => return Err(self.unauthorized()),
                Ok((status, body)) => return self.judge(method, status, body),
                Err(HttpFailure::Broken(_)) if repeats > 0 => repeats -= 1,
                Err(HttpFailure::Broken(error) | HttpFailure::Other(error)) => return Err(error),
            }
        }
    }

    /// HTTP status and body.
    fn send(
        &self,
        method: &str,
        body: &[u8],
        authorization: Option<&str>,
        limit: CallLimit,
    ) -> Result<(u16, Vec<u8>), HttpFailure> {
        let mut request = self
            .agent
            .post(self.url.as_str())
            .header("Content-Type", "application/json");
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        let request = request.config().timeout_global(Some(limit.time)).build();
        let mut answer = request
            .send(body)
            .map_err(|error| self.failure(method, error))?;
        let body = answer
            .body_mut()
            .with_config()
            .limit(limit.bytes)
            .read_to_vec()
            .map_err(|error| self.failure(method, error))?;
        Ok((answer.status().as_u16(), body))
    }

    fn judge(&self, method: &str, status: u16, body: Vec<u8>) -> Result<Vec<u8>, NodeError> {
        let json = matches!(
            body.iter().find(|byte| !byte.is_ascii_whitespace()),
            Some(b'{' | b'[')
        );
        match status {
            200 | 404 | 500 if json => Ok(body),
            403 => Err(match self.knock() {
                Ok(403) => self.address_refused(),
                _ => self.method_refused(method),
            }),
            503 => Err(NodeError::transient(
                NodeErrorKind::Busy,
                format!(
                    "bitcoind at {} has no room for {method} (rpcworkqueue is full)",
                    self.url
                ),
            )
            .advise(Remedy::EnlargeWorkQueue)),
            _ => Err(NodeError::persistent(
                NodeErrorKind::Shape,
                format!(
                    "{} answered {method} with HTTP {status} without JSON",
                    self.url
                ),
            )
            .advise(Remedy::NameRpcPort)),
        }
    }

    /// The HTTP status of a call without credentials: 401 from a node that lets our address in.
    fn knock(&self) -> Result<u16, NodeError> {
        match self.send("uptime", br#"{"method":"uptime"}"#, None, LIGHT_LIMIT) {
            Ok((status, _)) => Ok(status),
            Err(HttpFailure::Broken(error) | HttpFailure::Other(error)) => Err(error),
        }
    }

    /// As it stands in `rpcwhitelist`.
    pub(super) fn user(&self) -> String {
        match &self.credentials {
            Credentials::User { user, .. } => user.clone(),
            Credentials::Cookie(path) => std::fs::read_to_string(path)
                .ok()
                .and_then(|cookie| Some(cookie.split_once(':')?.0.to_owned()))
                .unwrap_or_else(|| "__cookie__".to_owned()),
        }
    }

    /// The header's value; `renew` reads the cookie again.
    fn authorization(&self, renew: bool) -> Result<String, NodeError> {
        let mut kept = self
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let (Some(value), false) = (kept.as_ref(), renew) {
            return Ok(value.clone());
        }
        let pair = match &self.credentials {
            Credentials::User { user, password, .. } => format!("{user}:{password}"),
            Credentials::Cookie(path) => std::fs::read_to_string(path)
                .map_err(|error| self.no_cookie(path, &error))?
                .trim()
                .to_owned(),
        };
        let value = format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(pair)
        );
        *kept = Some(value.clone());
        Ok(value)
    }
}

fn transport_error(error: NodeError) -> jsonrpc::Error {
    jsonrpc::Error::Transport(Box::new(error))
}

/// The pool as a transport: `jsonrpc` wants to own what it uses.
pub(super) struct Shared(pub(super) std::sync::Arc<Http>);

impl jsonrpc::client::Transport for Shared {
    fn send_request(&self, request: Request) -> Result<Response, jsonrpc::Error> {
        let body = serde_json::to_vec(&request)?;
        // A scan that is sent twice would fail with "Scan already in progress"; everything else
        // that we ask is a read.
        let answer = self
            .0
            .exchange(
                request.method,
                &body,
                limit_of(&request),
                !starts_scan(&request),
            )
            .map_err(transport_error)?;
        Ok(serde_json::from_slice(&answer)?)
    }

    fn send_batch(&self, requests: &[Request]) -> Result<Vec<Response>, jsonrpc::Error> {
        let body = serde_json::to_vec(requests)?;
        // All of a batch are of one method.
        let method = requests.first().map_or("nothing", |request| request.method);
        let answer = self
            .0
            .exchange(method, &body, HEAVY_LIMIT, true)
            .map_err(transport_error)?;
        match serde_json::from_slice::<Vec<Response>>(&answer) {
            Ok(responses) => Ok(responses),
            // A batch that is refused whole (warm-up) comes back as one error.
            Err(error) => match serde_json::from_slice::<Response>(&answer)
                .ok()
                .and_then(|response| response.error)
            {
                Some(refusal) => Err(jsonrpc::Error::Rpc(refusal)),
                None => Err(error.into()),
            },
        }
    }

    fn fmt_target(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.url)
    }
}
