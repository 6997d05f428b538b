//! HTTP/1.1 with the node: one client over hyper, for JSON-RPC and for REST.
//!
//! # Laws
//!
//! 1. What a call may take is an argument of it, a [`Limit`] of time and of bytes.
//! 2. A call that nobody waits for any more is a dropped future: its connection ends with it. What
//!    the node has begun it goes on with; only a scan takes so long that it is ended there, too
//!    ([`super::rpc`]).
//! 3. At most [`CALLS`] are under way, and as many connections idle. (One that was begun for a call
//!    which then got an idle one is kept, so there may be a few more than calls.)
//! 4. A call whose connection ends before anything was answered is sent once more, on another one.
//!    The node closes connections that idle, maybe in the moment in which one is used. It may also
//!    have done what was asked before it was gone; that does no harm: all our calls are reads, but
//!    for the start of a scan, and a second one is refused as long as the first one runs.
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

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{HttpConnector, HttpInfo};
use hyper_util::rt::TokioExecutor;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::NodeError;
use super::url::NodeUrl;
use crate::config::Secret;
pub(super) use errors::is_out_of_files;

/// For two of these clients beside what else asks the node: Core 32 takes 16 connections.
const CALLS: usize = 6;
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// bitcoind closes idle connections after 30 s (`-rpcservertimeout`).
const IDLE_LIMIT: Duration = Duration::from_secs(25);

/// What a call may take, from the connection to the last byte: time, and bytes of the answer. An
/// endless one must not fill the memory.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    time: Option<Duration>,
    bytes: usize,
}

impl Limit {
    pub(super) const LIGHT: Self = Self::new(Some(10), 8);
    /// A block is at most 4 MB, what it spends about as much, and both twice that in hex.
    pub(super) const BLOCK: Self = Self::new(Some(60), 16);
    /// The mempool and batches, and a block with all that it spends in JSON: a busy node on a slow
    /// disk needs seconds. Five hundred transactions are 400 MB at worst.
    pub(super) const HEAVY: Self = Self::new(Some(60), 512);
    /// For calls that are watched while they run: a scan of all unspent outputs takes minutes, on a
    /// slow disk an hour. A busy address has very many.
    pub(super) const WATCHED: Self = Self::new(None, 1024);

    const fn new(seconds: Option<u64>, megabytes: usize) -> Self {
        let time = match seconds {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => None,
        };
        Self {
            time,
            bytes: megabytes << 20,
        }
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
    client: Client<HttpConnector, Full<Bytes>>,
    calls: Semaphore,
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
        Self {
            client: Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE_LIMIT)
                .pool_max_idle_per_host(CALLS)
                .build(connector),
            calls: Semaphore::new(CALLS),
            url,
            credentials,
            login: Mutex::new(None),
        }
    }

    /// Sends one JSON body, calls of `method`, and returns the JSON that came back, whatever it
    /// says.
    pub(super) async fn post(
        &self,
        method: &str,
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

    /// `GET` of a path under `/rest/`. `None`: the node does not have it, or offers no REST.
    pub(super) async fn get(&self, path: &str, limit: Limit) -> Result<Option<Bytes>, NodeError> {
        let uri = format!("http://{}/rest/{path}", self.url.authority());
        let request = Request::get(uri).body(Full::default());
        let request = request.expect("host and path are good");
        let answer = self.exchange("REST", request, limit).await?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            503 => Err(self.busy("REST")),
            _ => Ok(None),
        }
    }

    async fn call(
        &self,
        method: &str,
        body: Bytes,
        login: Option<&HeaderValue>,
        limit: Limit,
    ) -> Result<Answer, NodeError> {
        let mut request = Request::post(self.url.uri()).header(CONTENT_TYPE, "application/json");
        if let Some(login) = login {
            request = request.header(AUTHORIZATION, login);
        }
        let request = request.body(Full::new(body));
        let request = request.expect("address and header are good");
        self.exchange(method, request, limit).await
    }

    /// The HTTP status of a call without credentials, 401 from a node that lets our address in, and
    /// that address.
    async fn knock(&self) -> Result<(u16, Option<IpAddr>), NodeError> {
        let body = Bytes::from_static(br#"{"method":"uptime"}"#);
        let answer = self.call("uptime", body, None, Limit::LIGHT).await?;
        Ok((answer.status, answer.from))
    }

    /// `what`: is asked for, in words.
    async fn exchange(
        &self,
        what: &str,
        request: Request<Full<Bytes>>,
        limit: Limit,
    ) -> Result<Answer, NodeError> {
        let _call = self.calls.acquire().await;
        let exchange = async {
            let mut answer = self.client.request(request.clone()).await;
            if answer.as_ref().is_err_and(|error| !error.is_connect()) {
                answer = self.client.request(request).await;
            }
            let (head, body) = answer
                .map_err(|error| self.unanswered(what, &error))?
                .into_parts();
            let body = Limited::new(body, limit.bytes).collect().await;
            Ok(Answer {
                status: head.status.as_u16(),
                body: body
                    .map_err(|error| self.cut_off(what, &*error, limit.bytes))?
                    .to_bytes(),
                from: head
                    .extensions
                    .get()
                    .map(|info: &HttpInfo| info.local_addr().ip()),
            })
        };
        match limit.time {
            None => exchange.await,
            Some(time) => timeout(time, exchange)
                .await
                .unwrap_or_else(|_| Err(self.timed_out(what))),
        }
    }

    async fn judge(&self, method: &str, answer: Answer) -> Result<Bytes, NodeError> {
        let start = answer.body.iter().find(|byte| !byte.is_ascii_whitespace());
        match answer.status {
            200 | 404 | 500 if matches!(start, Some(b'{' | b'[')) => Ok(answer.body),
            403 => Err(match self.knock().await {
                Ok((403, from)) => self.address_refused(from),
                _ => self.method_refused(method),
            }),
            503 => Err(self.busy(method)),
            status => Err(self.not_json(method, status)),
        }
    }

    /// Who we are in `rpcwhitelist`, once a call was made.
    pub(super) fn user(&self) -> String {
        let login = self.login.lock().unwrap_or_else(PoisonError::into_inner);
        let user = login.as_ref().map(|(user, _)| user.clone());
        user.unwrap_or_else(|| "__cookie__".to_owned())
    }

    /// The value of `Authorization`, read again if the node refused the one that we have.
    async fn login(&self, refused: Option<&HeaderValue>) -> Result<HeaderValue, NodeError> {
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
        let value = HeaderValue::try_from(format!("Basic {value}")).expect("base64 is ASCII");
        let user = pair.split(':').next().unwrap_or_default();
        *kept() = Some((user.to_owned(), value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::bitcoind::NodeErrorKind;

    const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1";

    async fn listener() -> (TcpListener, Http) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let credentials = Credentials::User {
            user: "user".into(),
            password: Secret("password".into()),
            conf: None,
        };
        let http = Http::new(NodeUrl::parse(&address).unwrap(), credentials);
        (listener, http)
    }

    /// Reads a request. `false`: the connection has ended.
    async fn asked(stream: &mut TcpStream) -> bool {
        stream.read(&mut [0; 1000]).await.unwrap_or(0) > 0
    }

    /// A server that gives each connection these answers, one for each request, and ends it at the
    /// request after them; at once after an answer without an end.
    async fn server(answers: &'static [&'static str]) -> Http {
        let (listener, http) = listener().await;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                for answer in answers {
                    asked(&mut stream).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
                if !answers.contains(&HALF) {
                    asked(&mut stream).await;
                }
            }
        });
        http
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_one_that_ends_unanswered_is_replaced() {
        let http = server(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx",
        ])
        .await;
        for _ in 0..3 {
            let found = http.get("a", Limit::BLOCK).await;
            assert_eq!(found, Ok(Some("abc".into())));
            assert_eq!(http.get("a", Limit::BLOCK).await, Ok(None));
        }
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_breaks_off_or_never_ends_is_none() {
        for (answers, kind, words) in [
            (&[][..], NodeErrorKind::Unreachable, "broke during uptime"),
            (&[HALF], NodeErrorKind::Unreachable, "broke during uptime"),
            (
                &["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1,2,3,4]"],
                NodeErrorKind::Shape,
                "answered uptime with more than 0 MB",
            ),
            (
                &["HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"],
                NodeErrorKind::Busy,
                "has no room for uptime",
            ),
        ] {
            let limit = Limit {
                bytes: 8,
                ..Limit::LIGHT
            };
            let http = server(answers).await;
            let error = http.post("uptime", Vec::new(), limit).await.unwrap_err();
            assert!(
                error.kind == kind && error.message.contains(words),
                "{error}"
            );
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn connections_are_used_again() {
        let (listener, http) = listener().await;
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    while asked(&mut stream).await {
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
                        stream.write_all(answer).await.unwrap();
                    }
                });
            }
        });
        let calls = async || {
            for _ in 0..200 {
                http.get("a", Limit::BLOCK).await.unwrap();
            }
        };
        tokio::join!(calls(), calls(), calls());
        let all = accepted.load(Ordering::Relaxed);
        assert!(all <= 2 * CALLS, "{all}");
    }

    #[tokio::test]
    async fn a_call_is_given_up_when_its_time_is_over() {
        let (_listener, http) = listener().await;
        let limit = Limit {
            time: Some(Duration::from_millis(20)),
            ..Limit::LIGHT
        };
        let error = http.post("uptime", Vec::new(), limit).await.unwrap_err();
        assert_eq!(error.kind, NodeErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn the_connection_of_a_call_that_nobody_waits_for_ends() {
        let (listener, http) = listener().await;
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(asked(&mut stream).await);
            stream
        };
        let mut stream = tokio::select! {
            _ = http.get("a", Limit::BLOCK) => unreachable!("nobody answers"),
            stream = served => stream,
        };
        assert!(!asked(&mut stream).await);
    }

    #[tokio::test]
    async fn only_so_many_calls_are_under_way_at_once() {
        let (listener, http) = listener().await;
        let calls = (0..2 * CALLS).map(|_| http.get("a", Limit::BLOCK));
        let accepted = async {
            let mut streams = Vec::new();
            while streams.len() < CALLS {
                streams.push(listener.accept().await.unwrap());
            }
            let more = timeout(Duration::from_millis(100), listener.accept()).await;
            assert!(more.is_err(), "{more:?}");
        };
        tokio::select! {
            _ = futures_util::future::join_all(calls) => unreachable!("nobody answers"),
            () = accepted => {}
        }
    }
}
