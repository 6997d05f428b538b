//! HTTP/1.1 with the node: one client over hyper, for JSON-RPC and for REST.
//!
//! # Laws
//!
//! 1. What a call may take is an argument of it, a [`Limit`] of time and of bytes.
//! 2. At most [`CALLS`] that may keep the node busy are under way. The node works on one that
//!    nobody waits for any more, so it counts until it is answered, or its time is over. Short ones
//!    and a scan do not count and do not wait for those that do: of them there are few.
//! 3. As many connections idle. (One that was begun for a call which then got an idle one is kept,
//!    so there may be a few more than calls.)
//! 4. A call whose connection ends before anything was answered is sent once more, on another one.
//!    The node closes connections that idle, maybe in the moment in which one is used. It may also
//!    have done what was asked before it was gone; that does no harm to reads. A scan is not sent
//!    again: the first one may run, and a second one is refused as long as it does.
//! 5. A connection whose other side is gone without a word ends within [`SILENT`].
//!
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
mod outgoing;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use hyper_util::client::legacy::connect::{HttpConnector, HttpInfo};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::NodeError;
use super::url::NodeUrl;
use crate::config::Secret;
pub(crate) use errors::cut_short;
use errors::is_no_http;
pub(super) use errors::is_out_of_files;
use outgoing::Outgoing;

/// For two of these clients beside what else asks the node: Core 32 takes 16 connections.
const CALLS: usize = 6;
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// bitcoind closes idle connections after 30 s (`-rpcservertimeout`).
const IDLE_LIMIT: Duration = Duration::from_secs(25);
/// For calls that have no limit: nothing that was sent is confirmed, or nothing was sent and nobody
/// answers whether he is there. Longer than a network is away for a moment, or a long scan would
/// begin again.
const SILENT: Duration = Duration::from_secs(300);
/// Keeps what stands between us and the node from forgetting the connection of a long scan.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// What a busy node says with 503. One that starts says something else over REST, and so does what
/// stands before a node that offers none.
const WORK_QUEUE: &[u8] = b"Work queue";
/// A slow line may bring an answer in pieces for so many times the limit of one.
const PIECES: u32 = 10;
/// Memory for an answer before it is there, whatever the node says of its length.
const RESERVED: usize = 16 << 20;

/// What a call may take: time, from its beginning (which may wait for other calls) to the first
/// piece of the answer and from piece to piece, and bytes of the answer. An endless one must not
/// fill the memory.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    time: Duration,
    bytes: usize,
    /// Among [`CALLS`].
    counts: bool,
}

impl Limit {
    /// What the node has at hand.
    pub(super) const LIGHT: Self = Self::new(10, 8, false);
    /// A block in hex has at most 8 MB.
    pub(super) const BLOCK: Self = Self::new(60, 16, true);
    /// A block, or what it spends (240 MB at worst), from a node on this machine: milliseconds.
    pub(super) const REST: Self = Self::new(15, 512, true);
    /// The mempool and batches, and a block with all that it spends in JSON: a busy node on a slow
    /// disk needs seconds. Five hundred transactions are 400 MB at worst.
    pub(super) const HEAVY: Self = Self::new(60, 512, true);
    /// For calls that are watched while they run: a scan of all unspent outputs takes minutes, on a
    /// slow disk an hour. A busy address has very many.
    pub(super) const WATCHED: Self = Self {
        time: Duration::MAX,
        ..Self::new(0, 1024, false)
    };

    const fn new(seconds: u64, megabytes: usize, counts: bool) -> Self {
        Self {
            time: Duration::from_secs(seconds),
            bytes: megabytes << 20,
            counts,
        }
    }

    fn is_watched(self) -> bool {
        self.time == Duration::MAX
    }
}

/// How we show the node who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The file that the node writes at each start.
    Cookie(PathBuf),
    User {
        user: String,
        password: Secret,
        /// The `bitcoin.conf` that they are from; otherwise from our settings.
        conf: Option<PathBuf>,
    },
}

pub(super) struct Http {
    client: Client<HttpConnector, Outgoing>,
    calls: Arc<Semaphore>,
    /// Bytes that went to and fro for calls that are watched.
    moved: Arc<AtomicUsize>,
    pub(super) url: NodeUrl,
    pub(super) credentials: Credentials,
    /// User and `Authorization` of the last call.
    login: Mutex<Option<(String, HeaderValue)>>,
}

struct Answer {
    status: u16,
    body: Bytes,
    /// The address under which the node sees us, unless it is changed on the way.
    from: Option<IpAddr>,
}

impl Http {
    pub(super) fn new(url: NodeUrl, credentials: Credentials) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_LIMIT));
        // A request is one small packet; the answer to it must not wait for anything.
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEP_ALIVE));
        connector.set_keepalive_interval(Some((SILENT - KEEP_ALIVE) / 2));
        connector.set_keepalive_retries(Some(2));
        #[cfg(target_os = "linux")]
        connector.set_tcp_user_timeout(Some(SILENT));
        Self {
            client: Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_LIMIT)
                .pool_max_idle_per_host(CALLS)
                .build(connector),
            calls: Arc::new(Semaphore::new(CALLS)),
            moved: Arc::default(),
            url,
            credentials,
            login: Mutex::new(None),
        }
    }

    /// Sends one JSON body, calls of `method`, and returns the JSON that came back, whatever it
    /// says.
    pub(super) async fn post(
        self: &Arc<Self>,
        method: &'static str,
        body: Vec<u8>,
        limit: Limit,
    ) -> Result<Bytes, NodeError> {
        let body = Bytes::from(body);
        let mut refused = None;
        loop {
            let login = self.login(refused.as_ref()).await?;
            if refused.as_ref() == Some(&login) {
                return Err(self.unauthorized());
            }
            let answer = self.call(method, body.clone(), Some(&login), limit).await?;
            if answer.status != 401 {
                return self.judge(method, answer).await;
            }
            refused = Some(login);
        }
    }

    /// `GET` of a path under `/rest/`. `None`: the node does not have it, offers no REST, or starts
    /// (what RPC says better).
    pub(super) async fn get(self: &Arc<Self>, path: &str) -> Result<Option<Bytes>, NodeError> {
        let uri = format!("http://{}/rest/{path}", self.url.authority());
        let request = Request::get(uri).body(Outgoing::default());
        let request = request.expect("host and path are good");
        let answer = self.exchange("REST", request, Limit::REST).await?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            503 if answer.body.starts_with(WORK_QUEUE) => Err(self.busy("REST")),
            _ => Ok(None),
        }
    }

    /// Bytes that went to and fro so far for calls that are watched.
    pub(super) fn moved(&self) -> usize {
        self.moved.load(Ordering::Relaxed)
    }

    async fn call(
        self: &Arc<Self>,
        method: &'static str,
        body: Bytes,
        login: Option<&HeaderValue>,
        limit: Limit,
    ) -> Result<Answer, NodeError> {
        let mut request = Request::post(self.url.uri()).header(CONTENT_TYPE, "application/json");
        if let Some(login) = login {
            request = request.header(AUTHORIZATION, login);
        }
        let moved = limit.is_watched().then(|| self.moved.clone());
        let request = request.body(Outgoing::new(body, moved));
        let request = request.expect("address and header are good");
        self.exchange(method, request, limit).await
    }

    /// The HTTP status of a call without credentials, 401 from a node that lets our address in, and
    /// that address.
    async fn knock(self: &Arc<Self>) -> Result<(u16, Option<IpAddr>), NodeError> {
        let body = Bytes::from_static(br#"{"method":"uptime"}"#);
        let answer = self.call("uptime", body, None, Limit::LIGHT).await?;
        Ok((answer.status, answer.from))
    }

    /// `what`: is asked for, in words.
    async fn exchange(
        self: &Arc<Self>,
        what: &'static str,
        request: Request<Outgoing>,
        limit: Limit,
    ) -> Result<Answer, NodeError> {
        if !limit.counts {
            return self.send(what, request, limit, limit.time).await;
        }
        let end = Instant::now() + limit.time;
        let permit = timeout(limit.time, self.calls.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| self.timed_out(what))?;
        let http = self.clone();
        let sent = tokio::spawn(async move {
            let _permit = permit;
            let left = end.saturating_duration_since(Instant::now());
            http.send(what, request, limit, left).await
        });
        sent.await.unwrap_or_else(|_| Err(cut_short()))
    }

    /// `first`: time for the first piece of the answer.
    async fn send(
        &self,
        what: &str,
        request: Request<Outgoing>,
        limit: Limit,
        first: Duration,
    ) -> Result<Answer, NodeError> {
        let exchange = async {
            let head = timeout(first, self.head(request, limit)).await;
            let (head, body) = head
                .map_err(|_| self.timed_out(what))?
                .map_err(|error| self.unanswered(what, &error))?
                .into_parts();
            let length = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
            if length > limit.bytes {
                return Err(self.too_long(what, limit.bytes));
            }
            let mut bytes = Vec::with_capacity(length.min(RESERVED));
            let mut body = Limited::new(body, limit.bytes);
            loop {
                let piece = timeout(limit.time, body.frame()).await;
                let Some(piece) = piece.map_err(|_| self.timed_out(what))? else {
                    break;
                };
                let piece = piece.map_err(|error| self.cut_off(what, &*error, limit.bytes))?;
                let piece = piece.into_data().unwrap_or_default();
                if limit.is_watched() {
                    self.moved.fetch_add(piece.len(), Ordering::Relaxed);
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(Answer {
                status: head.status.as_u16(),
                body: bytes.into(),
                from: head
                    .extensions
                    .get()
                    .map(|info: &HttpInfo| info.local_addr().ip()),
            })
        };
        timeout(limit.time.saturating_mul(PIECES), exchange)
            .await
            .unwrap_or_else(|_| Err(self.timed_out(what)))
    }

    async fn head(
        &self,
        request: Request<Outgoing>,
        limit: Limit,
    ) -> Result<Response<Incoming>, legacy::Error> {
        let answer = self.client.request(request.clone()).await;
        match &answer {
            Err(error) if !error.is_connect() && !is_no_http(error) && !limit.is_watched() => {
                self.client.request(request).await
            }
            _ => answer,
        }
    }

    async fn judge(self: &Arc<Self>, method: &str, answer: Answer) -> Result<Bytes, NodeError> {
        let start = answer.body.iter().find(|byte| !byte.is_ascii_whitespace());
        match answer.status {
            200 | 404 | 500 if matches!(start, Some(b'{' | b'[')) => Ok(answer.body),
            403 => Err(match self.knock().await {
                Ok((403, from)) => self.address_refused(from),
                _ => self.method_refused(method),
            }),
            503 => Err(self.busy(method)),
            502 | 504 => Err(self.away(method, answer.status)),
            status => Err(self.not_json(method, status)),
        }
    }

    /// Who we are in `rpcwhitelist`; of a cookie's user once a call was made.
    pub(super) fn user(&self) -> String {
        if let Credentials::User { user, .. } = &self.credentials {
            return user.clone();
        }
        let login = self.login.lock().unwrap_or_else(PoisonError::into_inner);
        let user = login.as_ref().map(|(user, _)| user.clone());
        user.unwrap_or_else(|| "__cookie__".to_owned())
    }

    /// The value of `Authorization`, read again if the node refused the one that we have.
    async fn login(
        self: &Arc<Self>,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, NodeError> {
        let kept = || self.login.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = &*kept()
            && Some(known) != refused
        {
            return Ok(known.clone());
        }
        let pair = match &self.credentials {
            Credentials::User { user, password, .. } => format!("{user}:{}", password.0),
            Credentials::Cookie(path) => {
                let file = path.clone();
                let read = spawn_blocking(move || std::fs::read_to_string(file)).await;
                match read.unwrap_or_else(|error| Err(error.into())) {
                    Ok(cookie) => cookie.trim().to_owned(),
                    Err(error) => return Err(self.no_cookie(path, &error).await),
                }
            }
        };
        let value = base64::engine::general_purpose::STANDARD.encode(&pair);
        let mut value = HeaderValue::try_from(format!("Basic {value}")).expect("base64 is ASCII");
        value.set_sensitive(true);
        let user = pair.split(':').next().unwrap_or_default();
        *kept() = Some((user.to_owned(), value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
mod tests;
