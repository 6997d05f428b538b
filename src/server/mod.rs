//! Accepts connections and serves HTTP/1.1 on one port. Knows no routes. A client that speaks
//! HTTP/2 is told to speak HTTP/1.1.
//!
//! # Laws
//!
//! 1. A connection slot is taken *before* `accept`: beyond the cap, clients wait in the system's
//!    queue and cost us nothing. The slot travels with a request that may be upgraded (as an
//!    `Arc<OwnedSemaphorePermit>` in its extensions), so that whoever takes over the socket can go
//!    on counting it: hyper's connection ends with the upgrade.
//! 2. A connection without a request in work ends [`Limits::header_time`] after accept if it never
//!    had one, and [`Limits::idle_time`] after its last answer otherwise; that bounds the time for
//!    a later head too. hyper's own timer is off: it runs while a connection idles between two
//!    requests. An answer may take as long as it moves: it is cut off when its client has taken
//!    none of it for [`Limits::idle_time`].
//! 3. The head of a request is bounded here (16 KiB, 100 headers: hyper answers 431); its body is
//!    the handler's to bound.
//! 4. A panic in a handler ends that connection only: each has its own task.
//! 5. At shutdown nothing new is accepted, open requests are finished until [`Limits::drain_time`],
//!    what is still open then is dropped.
//!
//! ```text
//! slot -> accept -> one task: hyper (HTTP/1.1) -> handler(request, peer) -> response
//!                        ends by: client, error, idle, shutdown + drain, upgrade (the stream goes
//!                                 to who asked for it)
//! ```

mod answer;
mod idle;
mod listen;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use answer::TimedBody;
use idle::IdleTracker;
pub use listen::of_this_machine;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// Read buffer and largest request head, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// What a client that speaks HTTP/2 gets (RFC 9113): SETTINGS without a setting, and GOAWAY with
/// the error code HTTP_1_1_REQUIRED.
const HTTP_1_1_REQUIRED: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0d";
/// How long a connection that was asked to end may take over it.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Between two log lines that say the same.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Bounds on connections.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open at the same time.
    pub connections: usize,
    /// From accept to the end of the first request's head.
    pub header_time: Duration,
    /// From the last answer to the end of the next request's head, and between two steps of an
    /// answer; HTTP/1.1 answers say it in `Keep-Alive`. A polling client answers each ping on the
    /// connection that it has, so this must be clearly longer than ping interval and ping timeout
    /// together.
    pub idle_time: Duration,
    /// For open requests at shutdown.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(90),
            drain_time: Duration::from_secs(2),
        }
    }
}

/// A bound port, on one or several addresses.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
    limits: Limits,
}

impl Server {
    /// Binds all of `addrs` (not empty); port 0 picks a free one, the same on all. An address that
    /// this machine does not have is left out if there is another. Clients may connect from here
    /// on, they are answered once [`serve`](Self::serve) runs.
    pub async fn bind(addrs: &[SocketAddr], limits: Limits) -> io::Result<Self> {
        let mut tried = Vec::new();
        let mut chosen = None;
        for mut addr in addrs.iter().copied() {
            if let (0, Some(port)) = (addr.port(), chosen) {
                addr.set_port(port);
            }
            let listener = listen::listen(addr);
            if let Ok(listener) = &listener {
                chosen = Some(listener.local_addr()?.port());
            }
            tried.push((addr, listener));
        }
        let listeners = of_this_machine(tried)
            .into_iter()
            .map(|(_, listener)| listener)
            .collect::<io::Result<_>>()?;
        Ok(Self { listeners, limits })
    }

    /// The addresses in use.
    pub fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Serves until `shutdown`, then drains; returns when no connection is left.
    pub async fn serve<F, Fut, B>(self, handler: Arc<F>, shutdown: CancellationToken)
    where
        F: Fn(Request<Incoming>, SocketAddr) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Self { listeners, limits } = self;
        let slots = Arc::new(Semaphore::new(
            limits.connections.min(Semaphore::MAX_PERMITS),
        ));
        let tasks = TaskTracker::new();
        let abort = CancellationToken::new();
        let connection = Arc::new(Connections {
            builder: builder(),
            limits,
            shutdown: shutdown.clone(),
            abort: abort.clone(),
        });
        let accepting = async {
            let (mut full, mut failing) = (Seldom::default(), Seldom::default());
            loop {
                let slot = take_slot(&slots, &mut full).await;
                let (stream, peer) = accept(&listeners, &mut failing).await;
                let connection = connection.clone();
                let handler = handler.clone();
                tasks.spawn(async move {
                    connection
                        .serve(stream, peer, Arc::new(slot), handler)
                        .await
                });
            }
        };
        tokio::select! {
            () = accepting => {}
            () = shutdown.cancelled() => {}
        }
        drop(listeners);
        tasks.close();
        if timeout(connection.limits.drain_time, tasks.wait())
            .await
            .is_err()
        {
            tracing::info!(
                connections = tasks.len(),
                "connections still open after the time for last answers are dropped"
            );
            abort.cancel();
            tasks.wait().await;
        }
    }
}

/// What all connections share.
struct Connections {
    builder: http1::Builder,
    limits: Limits,
    shutdown: CancellationToken,
    abort: CancellationToken,
}

impl Connections {
    async fn serve<S, F, Fut, B>(
        &self,
        stream: S,
        peer: SocketAddr,
        slot: Arc<OwnedSemaphorePermit>,
        handler: Arc<F>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Fn(Request<Incoming>, SocketAddr) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let tracker = Arc::new(IdleTracker::new(Instant::now()));
        let keep_alive =
            HeaderValue::from_str(&format!("timeout={}", self.limits.idle_time.as_secs()))
                .expect("digits make a header");
        let service = service_fn(|mut request: Request<Incoming>| {
            let work = IdleTracker::begin(&tracker);
            if request.extensions().get::<OnUpgrade>().is_some() {
                request.extensions_mut().insert(slot.clone());
            }
            // hyper drops a request whose client has gone already without polling its future:
            // polled once here, the handler hears of every request, and of its end.
            let mut answer = Box::pin(handler(request, peer));
            let first = answer
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            let keep_alive = keep_alive.clone();
            async move {
                let mut answer = match first {
                    Poll::Ready(answer) => answer,
                    Poll::Pending => answer.await,
                };
                // An upgraded connection is no longer ours.
                if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                    answer.headers_mut().insert(KEEP_ALIVE, keep_alive);
                }
                Ok::<_, Infallible>(answer.map(|body| TimedBody::new(body, work)))
            }
        });
        let mut http = self
            .builder
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut deadline = tracker.deadline(&self.limits);
        let mut ending = false;
        loop {
            tokio::select! {
                // Errors are the client's doing: garbage, a reset, a head that is too slow.
                result = &mut http => {
                    if let Err(error) = result {
                        tracing::debug!(%peer, %error, "connection ended");
                        if error.is_parse_version_h2()
                            && let Some(parts) = http.into_parts()
                        {
                            refuse_http_2(parts.io.into_inner()).await;
                        }
                    }
                    break;
                }
                () = self.abort.cancelled() => break,
                () = self.shutdown.cancelled(), if !ending => {
                    ending = true;
                    std::pin::Pin::new(&mut http).graceful_shutdown();
                    deadline = Instant::now() + self.limits.drain_time + SHUTDOWN_GRACE;
                }
                () = sleep_until(deadline) => {
                    let next = tracker.deadline(&self.limits);
                    if next > deadline {
                        deadline = next;
                    } else if ending || !tracker.had_a_request() {
                        break;
                    } else {
                        ending = true;
                        std::pin::Pin::new(&mut http).graceful_shutdown();
                        deadline = Instant::now() + SHUTDOWN_GRACE;
                    }
                }
            }
        }
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        // A client that closes its sending side has gone: a waiting poll must not outlive it.
        .half_close(false);
    builder
}

/// Says that HTTP/1.1 is required. What the client still sends is read and thrown away, because
/// closing a TCP connection with unread bytes resets it and the client may not see the answer.
async fn refuse_http_2(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let _ = timeout(SHUTDOWN_GRACE, async {
        stream.write_all(HTTP_1_1_REQUIRED).await?;
        stream.shutdown().await?;
        let mut discarded = [0; 1024];
        while stream.read(&mut discarded).await? > 0 {}
        Ok::<_, io::Error>(())
    })
    .await;
}

async fn take_slot(slots: &Arc<Semaphore>, full: &mut Seldom) -> OwnedSemaphorePermit {
    if let Ok(slot) = slots.clone().try_acquire_owned() {
        return slot;
    }
    if full.may_say(Instant::now()) {
        tracing::warn!(
            "the limit of open connections is reached: new clients wait until others leave"
        );
    }
    slots
        .clone()
        .acquire_owned()
        .await
        .expect("the semaphore is never closed")
}

/// The next connection. Errors of one connection are skipped; those of the system (out of file
/// descriptors) are waited out.
async fn accept(listeners: &[TcpListener], failing: &mut Seldom) -> (TcpStream, SocketAddr) {
    let mut pause = Duration::from_millis(10);
    loop {
        let accepted = poll_fn(|context| {
            let mut polled = listeners
                .iter()
                .map(|listener| listener.poll_accept(context));
            polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
        });
        match accepted.await {
            Ok((stream, peer)) => {
                // Events are small and must not wait for more. An error here means that the client
                // has gone already.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if failing.may_say(Instant::now()) {
                    tracing::warn!(%error, "cannot accept connections; trying again and again");
                }
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

/// When something was said last that is not to fill the log.
#[derive(Debug, Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn may_say(&mut self, now: Instant) -> bool {
        let may = self.0.is_none_or(|last| now - last >= LOG_INTERVAL);
        if may {
            self.0 = Some(now);
        }
        may
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

#[cfg(test)]
mod tests;
