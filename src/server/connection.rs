//! One connection, from accept to its end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::accept::{Accepted, Arrival, TELLING};
use super::answer::TimedBody;
use super::idle::IdleTracker;
use super::{HTTP_1_1_REQUIRED, KEEP_ALIVE, Limits, MAX_HEAD, OnPlain, Peer, SHUTDOWN_GRACE, tls};

/// What all connections share.
pub(super) struct Connections {
    pub builder: http1::Builder,
    pub limits: Limits,
    /// `None`: plain HTTP.
    pub tls: Option<(TlsAcceptor, OnPlain)>,
    pub shutdown: CancellationToken,
    pub abort: CancellationToken,
}

/// Bytes of an answer that TLS has sealed and the client not taken: one record. The rest waits
/// where it is counted.
const SEALED: usize = 16 * 1024;

/// What a client has begun with.
enum Opening {
    Tls(Box<TlsStream<TcpStream>>),
    /// HTTP where TLS is spoken.
    Plain(TcpStream),
}

impl Connections {
    pub(super) async fn serve<F, Fut, B>(&self, accepted: Accepted, handler: Arc<F>)
    where
        F: Fn(Request<Incoming>, Peer) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Accepted { stream, arrival } = accepted;
        let Some((acceptor, on_plain)) = &self.tls else {
            return self.http(stream, arrival, false, handler).await;
        };
        // On the heap, so that plain connections have no room for it.
        let opening = Box::pin(self.open(acceptor, stream, &arrival));
        match opening.await {
            Ok(Opening::Tls(stream)) => Box::pin(self.http(stream, arrival, true, handler)).await,
            Ok(Opening::Plain(stream)) => {
                let on_plain = on_plain.clone();
                let refuse = move |request: Request<Incoming>, peer: Peer| {
                    on_plain(&request, peer.address);
                    std::future::ready(tls::https_required(&request))
                };
                Box::pin(self.http(stream, arrival, false, Arc::new(refuse))).await;
            }
            // The client's doing.
            Err(error) => tracing::debug!(peer = %arrival.address, %error, "no TLS handshake"),
        }
    }

    /// The handshake, which takes part in the time for the first request's head.
    async fn open(
        &self,
        acceptor: &TlsAcceptor,
        stream: TcpStream,
        arrival: &Arrival,
    ) -> io::Result<Opening> {
        let opening = async {
            let first = tls::first_byte(&stream).await?;
            match tls::is_handshake(first) {
                true => {
                    let accepting = acceptor
                        .accept_with(stream, |tls| tls.set_buffer_limit(Some(SEALED)))
                        .await?;
                    Ok(Opening::Tls(Box::new(accepting)))
                }
                false => Ok(Opening::Plain(stream)),
            }
        };
        let why = tokio::select! {
            opened = opening => return opened,
            () = self.shutdown.cancelled() => "the server stops",
            () = arrival.unfinished.displaced.notified() => "it made room for a newer connection",
            () = sleep_until(arrival.at + self.limits.header_time) => "it took too long",
        };
        Err(io::Error::other(why))
    }

    pub(super) async fn http<S, F, Fut, B>(
        &self,
        stream: S,
        arrival: Arrival,
        over_tls: bool,
        handler: Arc<F>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Fn(Request<Incoming>, Peer) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Arrival {
            address,
            at,
            slot,
            unfinished,
        } = arrival;
        let peer = Peer { address, over_tls };
        let displaced = unfinished.displaced.clone();
        let tracker = Arc::new(IdleTracker::new(at, unfinished));
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
                // An upgraded connection is no longer ours, and one that is closed idles no more.
                if answer.status() != StatusCode::SWITCHING_PROTOCOLS
                    && !answer.headers().contains_key(CONNECTION)
                {
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
                        tracing::debug!(peer = %address, %error, "connection ended");
                        if error.is_parse_version_h2()
                            && let Some(parts) = http.into_parts()
                        {
                            tokio::select! {
                                () = refuse_http_2(parts.io.into_inner()) => {}
                                () = self.abort.cancelled() => {}
                                () = displaced.notified() => {}
                            }
                        }
                    }
                    break;
                }
                () = self.abort.cancelled() => break,
                () = displaced.notified() => if !tracker.had_a_request() {
                    break;
                },
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

pub(super) fn builder() -> http1::Builder {
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
    let _ = timeout(TELLING, async {
        stream.write_all(HTTP_1_1_REQUIRED).await?;
        stream.shutdown().await?;
        let mut discarded = [0; 1024];
        while stream.read(&mut discarded).await? > 0 {}
        Ok::<_, io::Error>(())
    })
    .await;
}
