//! Accepts connections and serves HTTP/1.1 on one port, over TLS if told so. Knows no routes. A
//! client that speaks HTTP/2 is told to speak HTTP/1.1, one that speaks HTTP where TLS is spoken to
//! use https.
//!
//! # Laws
//!
//! 1. Room is waited for *before* `accept`: beyond the cap, clients wait in the system's queue and
//!    cost us nothing. Whose connection it is shows only behind `accept`: one of an address that
//!    has too many is turned away and takes no room from others. Those that are told why are not
//!    counted: they are few at a time, and told briefly.
//! 2. The slot, which is the place among all and among those of the address, travels with a request
//!    that may be upgraded (as a [`ConnectionSlot`] in its extensions), so that whoever takes over
//!    the socket can go on counting it: hyper's connection ends with the upgrade.
//! 3. A connection is unfinished until the head of its first request has come, the handshake of TLS
//!    before it included. Beyond [`Limits::unfinished_handshakes`] the oldest one of the address
//!    that has most of them is dropped: a flood pushes out its own, and if it comes from all over,
//!    whoever means well is done in a moment. Unfinished ones are half of the connections at most,
//!    and so are those of one address.
//! 4. A connection without a request in work ends [`Limits::header_time`] after accept if it never
//!    had one, and [`Limits::idle_time`] after its last answer otherwise; that bounds the time for
//!    a later head too. hyper's own timer is off: it runs while a connection idles between two
//!    requests. An answer may take as long as it moves: it is cut off when its client has taken
//!    none of it for [`Limits::idle_time`].
//! 5. The head of a request is bounded here (16 KiB, 100 headers: hyper answers 431); its body is
//!    the handler's to bound.
//! 6. A panic in a handler ends that connection only: each has its own task.
//! 7. At shutdown nothing new is accepted, open requests are finished until [`Limits::drain_time`],
//!    what is still open then is dropped.
//! 8. No limit is silent: [`Usage`] says what each has in use and whom it kept out, the log that it
//!    was reached, once a minute.
//! 9. The numbers of connections may be changed while the server runs ([`Usage::set_limits`]). A
//!    lower one ends nothing: it keeps further connections out.
//!
//! ```text
//! room -> accept -> slot (all, address) -> one task: (TLS handshake ->) hyper (HTTP/1.1) -> handler(request, peer) -> response
//!                       none: 429              ends by: client, error, idle, shutdown + drain, making room, upgrade (the stream
//!                                              goes to who asked for it)
//! ```

mod accept;
mod answer;
mod connection;
mod idle;
mod listen;
mod tls;
mod usage;

use std::any::Any;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::HeaderName;
use hyper::{Request, Response};
use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use accept::Acceptor;
use connection::{Connections, builder};
pub use listen::of_this_machine;
pub use tls::tls_config;
use usage::Counts;
pub use usage::{LimitUse, Usage};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// Read buffer and largest request head, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// What a client that speaks HTTP/2 gets (RFC 9113): SETTINGS without a setting, and GOAWAY with
/// the error code HTTP_1_1_REQUIRED.
const HTTP_1_1_REQUIRED: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0d";
/// How long a connection that was asked to end may take over it.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// What keeps a connection counted: kept by whoever has its socket, and of no other use.
pub type ConnectionSlot = Arc<dyn Any + Send + Sync>;

/// Hears of each request that came as plain HTTP where TLS is spoken; it is refused.
pub type OnPlain = Arc<dyn Fn(&Request<Incoming>, SocketAddr) + Send + Sync>;

/// Who asks, and how.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub address: SocketAddr,
    pub over_tls: bool,
}

/// Bounds on connections.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open at the same time.
    pub connections: usize,
    /// Of them those of one address, of an IPv6 network of 64 bits, and half at most; those from
    /// 127.0.0.1 and ::1 are not counted.
    pub connections_per_address: usize,
    /// Whose connections are not counted either: proxies, behind which many may be.
    pub proxies: Vec<IpNet>,
    /// Of them those that have not sent the head of their first request, and half at most.
    pub unfinished_handshakes: usize,
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
            connections_per_address: 1000,
            proxies: Vec::new(),
            unfinished_handshakes: 1000,
            header_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(90),
            drain_time: Duration::from_secs(2),
        }
    }
}

/// A bound port, on one or several addresses.
pub struct Server {
    listeners: Vec<TcpListener>,
    limits: Limits,
    counts: Arc<Counts>,
    tls: Option<(Arc<ServerConfig>, OnPlain)>,
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
        Ok(Self {
            listeners,
            counts: Counts::new(&limits),
            limits,
            tls: None,
        })
    }

    /// Every connection is to be over TLS, as `config` (of [`tls_config`]) says.
    pub fn with_tls(mut self, config: Arc<ServerConfig>, on_plain: OnPlain) -> Self {
        self.tls = Some((config, on_plain));
        self
    }

    /// What is in use of the limits.
    pub fn usage(&self) -> Usage {
        Usage(self.counts.clone())
    }

    /// The addresses in use.
    pub fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Serves until `shutdown`, then drains; returns when no connection is left.
    pub async fn serve<F, Fut, B>(self, handler: Arc<F>, shutdown: CancellationToken)
    where
        F: Fn(Request<Incoming>, Peer) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Self {
            listeners,
            limits,
            counts,
            tls,
        } = self;
        let tasks = TaskTracker::new();
        let abort = CancellationToken::new();
        let mut acceptor = Acceptor::new(&listeners, counts, tls.is_none());
        let connections = Arc::new(Connections {
            builder: builder(),
            limits,
            tls: tls.map(|(config, on_plain)| (config.into(), on_plain)),
            shutdown: shutdown.clone(),
            abort: abort.clone(),
        });
        let accepting = async {
            loop {
                let accepted = acceptor.next(&tasks).await;
                let (connections, handler) = (connections.clone(), handler.clone());
                tasks.spawn(async move { connections.serve(accepted, handler).await });
            }
        };
        tokio::select! {
            () = accepting => {}
            () = shutdown.cancelled() => {}
        }
        drop(listeners);
        tasks.close();
        if timeout(connections.limits.drain_time, tasks.wait())
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

#[cfg(test)]
mod tests;
