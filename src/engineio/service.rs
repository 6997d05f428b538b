//! From a request to its answer: refuses what is wrong, opens sessions, hands requests to the
//! session they belong to.
//!
//! The order of the checks is that of the reference server: transport, session id, method (of a
//! handshake), WebSocket handshake, protocol version. Its check for illegal bytes in `Origin` is
//! hyper's here.

use std::any::Any;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, StatusCode};
use tokio::time::timeout;
use tracing::debug;

use super::admission::Admission;
use super::budget::ByteBudget;
use super::config::Config;
use super::error::Refused;
use super::handler::{Handler, Handshake};
use super::inbox::{SessionInbox, SessionRequest};
use super::outbox::outbox_of;
use super::packet::{Encoding, Packet};
use super::payload;
use super::polling::{self, Answer, BodyLimits};
use super::registry::{RegisteredSession, SessionPermit, SessionRegistry};
use super::request::{Query, TransportName};
use super::session::{self, Session};
use super::task::{SessionTask, now};
use super::upgrade;
use super::websocket::WebSocket;

/// What becomes of a request that is not refused.
enum Routed<G, P> {
    Answered(Answer),
    Poll(G),
    Post(P),
}

/// An Engine.IO server for one path. Clones are the same server.
pub struct Service<H: Handler> {
    inner: Arc<Inner<H>>,
}

struct Inner<H> {
    config: Config,
    /// Of each session that opens; from `config`, until others are set.
    limits: RwLock<Arc<session::Limits>>,
    handler: Arc<H>,
    registry: Arc<SessionRegistry>,
    received: Arc<ByteBudget>,
}

impl<H: Handler> Clone for Service<H> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<H: Handler> Service<H> {
    pub fn new(config: Config, handler: H) -> Self {
        let registry = SessionRegistry::new(config.max_sessions);
        let received = ByteBudget::new(config.total_received_bytes);
        Self {
            inner: Arc::new(Inner {
                limits: RwLock::new(config.session_limits().into()),
                config,
                handler: Arc::new(handler),
                registry,
                received,
            }),
        }
    }

    /// Takes over the bounds of another configuration on a message and on the number of sessions.
    /// Sessions that are open stay as they are, with the `maxPayload` that their clients were told.
    pub fn set_limits(&self, config: &Config) {
        let limits = &self.inner.limits;
        *limits.write().unwrap_or_else(PoisonError::into_inner) = config.session_limits().into();
        self.inner.registry.set_most(config.max_sessions);
    }

    pub fn handler(&self) -> &Arc<H> {
        &self.inner.handler
    }

    /// Sessions that are open, and handshakes on their way to one.
    pub fn session_count(&self) -> usize {
        self.inner.registry.count()
    }

    /// Bytes of messages from clients that are not whole or not done with; small ones do not count.
    pub fn received_bytes(&self) -> usize {
        self.inner.received.used()
    }

    /// Whether a request for this path belongs here. Exactly: a prefix would take other paths'
    /// requests.
    pub fn matches(&self, path: &str) -> bool {
        path == self.inner.config.path
    }

    /// Refuses new sessions, ends all others and waits until they are gone.
    pub async fn shutdown(&self) {
        self.inner.registry.shutdown().await;
    }

    /// Answers a request. Must run on a tokio runtime. Whoever serves the connection is to set
    /// `TCP_NODELAY`: what is written here is whole.
    ///
    /// An `Arc<dyn Any + Send + Sync>` in the extensions of a request for a WebSocket is kept as
    /// long as that: whoever serves the connection can count it so.
    ///
    /// The session hears of the request before this returns, and of its end when the answer is
    /// dropped: hyper drops the answer of a client that has gone, possibly without polling it.
    pub fn handle<B>(
        &self,
        request: Request<B>,
        peer: Option<IpAddr>,
    ) -> impl Future<Output = Answer> + use<H, B>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let is_upgrade = upgrade::is_wanted(&request);
        let routed = self.route(request, peer, is_upgrade);
        async move {
            match routed {
                Ok(Routed::Answered(answer)) => answer,
                Ok(Routed::Poll(answer)) => answer.await,
                Ok(Routed::Post(answer)) => answer.await,
                Err(refused) if is_upgrade => refused.websocket(),
                Err(refused) => refused.polling(),
            }
        }
    }

    fn route<B>(
        &self,
        request: Request<B>,
        peer: Option<IpAddr>,
        upgrade: bool,
    ) -> Result<
        Routed<impl Future<Output = Answer> + use<H, B>, impl Future<Output = Answer> + use<H, B>>,
        Refused,
    >
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if !self.matches(request.uri().path()) {
            let mut response = Answer::default();
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(Routed::Answered(response));
        }
        let inner = &self.inner;
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let encoding = query
            .encoding
            .filter(|encoding| *encoding == Encoding::Four || inner.config.revision_3);
        let transport = query.transport.ok_or(Refused::TransportUnknown)?;
        let websocket = transport == TransportName::WebSocket;
        if let Some(sid) = query.sid {
            let inbox = inner.registry.find(&sid).ok_or(Refused::SessionUnknown)?;
            // A poll that asks for an upgrade would take packets that its connection cannot carry.
            if websocket != upgrade || encoding.map(Encoding::revision) != Some(inbox.revision) {
                return Err(Refused::BadRequest);
            }
            return match *request.method() {
                Method::GET if websocket => inner.attach(request, inbox).map(Routed::Answered),
                Method::GET => Ok(Routed::Poll(polling::get(inbox))),
                Method::POST if !websocket => {
                    let answer = polling::post(inbox, request, inner.body_limits());
                    Ok(Routed::Post(answer))
                }
                // The reference server answers 500 with an empty body, as if it were its own fault.
                _ => Err(Refused::BadRequest),
            };
        }
        if request.method() != Method::GET {
            return Err(Refused::BadHandshakeMethod);
        }
        if websocket != upgrade {
            return Err(Refused::BadRequest);
        }
        let encoding = encoding.ok_or(Refused::UnsupportedVersion)?;
        let permit = inner.registry.reserve()?;
        let answer = if websocket {
            self.open_websocket(request, peer, encoding, permit)
        } else {
            self.open_polling(&request, peer, encoding, permit)
        };
        answer.map(Routed::Answered)
    }

    fn open_polling<B>(
        &self,
        request: &Request<B>,
        peer: Option<IpAddr>,
        encoding: Encoding,
        permit: SessionPermit,
    ) -> Result<Answer, Refused> {
        let inner = &self.inner;
        let limits = inner.limits();
        let admission = Admission::new(limits.max_payload);
        let registered = permit.enter(encoding.revision(), admission)?;
        let open = limits.open_packet(registered.sid(), limits.upgrades);
        let machine = Session::polling(now(), limits, encoding);
        let task = inner.open(registered, inner.handshake(request, peer), machine, None);
        tokio::spawn(task.run());
        let open = vec![Packet::Open(open.into())];
        Ok(polling::payload(payload::encode(open, encoding)))
    }

    fn open_websocket<B>(
        &self,
        mut request: Request<B>,
        peer: Option<IpAddr>,
        encoding: Encoding,
        permit: SessionPermit,
    ) -> Result<Answer, Refused> {
        let response = switching(&request)?;
        let upgrade = hyper::upgrade::on(&mut request);
        let slot = request.extensions_mut().remove();
        let inner = self.inner.clone();
        let handshake = inner.handshake(&request, peer);
        let running = inner.registry.running();
        tokio::spawn(async move {
            let limits = inner.limits();
            let admission = Admission::new(limits.max_payload);
            let opened = inner.socket(upgrade, admission.clone(), slot);
            let Some(socket) = opened.await else {
                return;
            };
            // The service may have begun to end meanwhile.
            let Ok(registered) = permit.enter(encoding.revision(), admission) else {
                return socket.close_gracefully(Some(1001)).await;
            };
            let open = limits.open_packet(registered.sid(), false);
            let machine = Session::websocket(now(), limits, encoding, open.into());
            let task = inner.open(registered, handshake, machine, Some(socket));
            drop(running);
            // A task of its own, because this one's future has the size of the upgrade.
            tokio::spawn(task.run());
        });
        Ok(response)
    }
}

impl<H: Handler> Inner<H> {
    fn body_limits(&self) -> BodyLimits {
        BodyLimits {
            time: self.config.body_timeout,
            budget: self.received.clone(),
        }
    }

    /// What the layer above gets to know of the first request.
    fn handshake<B>(&self, request: &Request<B>, peer: Option<IpAddr>) -> Handshake {
        Handshake {
            headers: copied(request.headers(), self.config.keep_headers),
            query: request.uri().query().unwrap_or_default().to_owned(),
            peer,
        }
    }

    /// Tells the layer above of a session and makes its task.
    fn open(
        &self,
        registered: RegisteredSession,
        handshake: Handshake,
        machine: Session,
        main: Option<Box<WebSocket>>,
    ) -> Box<SessionTask<H>> {
        let (sender, receiver) = outbox_of(
            registered.inbox.admission.clone(),
            self.config.outbox_messages,
            self.config.outbox_bytes,
        );
        let state = self.handler.open(sender, handshake);
        SessionTask::new(
            self.handler.clone(),
            state,
            registered,
            receiver,
            machine,
            main,
        )
    }

    /// The WebSocket with an existing session's id: whether it is welcome is the session's to say,
    /// after the 101.
    fn attach<B>(
        self: &Arc<Self>,
        mut request: Request<B>,
        inbox: Arc<SessionInbox>,
    ) -> Result<Answer, Refused> {
        let response = switching(&request)?;
        let upgrade = hyper::upgrade::on(&mut request);
        let slot = request.extensions_mut().remove();
        let inner = self.clone();
        let running = self.registry.running();
        tokio::spawn(async move {
            let opened = inner.socket(upgrade, inbox.admission.clone(), slot);
            let Some(socket) = opened.await else {
                return;
            };
            if let Err(SessionRequest::Socket(socket)) = inbox.push(SessionRequest::Socket(socket))
            {
                socket.close_gracefully(None).await;
            }
            drop(running);
        });
        Ok(response)
    }
}

/// 101, or why not.
fn switching<B>(request: &Request<B>) -> Result<Answer, Refused> {
    let accept = upgrade::accept(request).ok_or(Refused::BadRequest)?;
    let mut response = Answer::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend(upgrade::accepted(accept));
    Ok(response)
}

impl<H> Inner<H> {
    fn limits(&self) -> Arc<session::Limits> {
        let limits = self.limits.read();
        limits.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The WebSocket on the connection behind a 101. `None`: the client went away before it got it.
    async fn socket(
        &self,
        upgrade: OnUpgrade,
        admission: Arc<Admission>,
        slot: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Option<Box<WebSocket>> {
        match timeout(self.config.upgrade_timeout, upgrade).await {
            Ok(Ok(upgraded)) => Some(WebSocket::open(
                upgraded,
                admission,
                self.received.clone(),
                slot,
            )),
            Ok(Err(error)) => {
                debug!(%error, "the client left during the WebSocket handshake");
                None
            }
            Err(_) => None,
        }
    }
}

/// Those of the headers that are `kept`, which may be secrets. Values are copied: hyper's are parts
/// of the connection's read buffer and would keep all of it.
fn copied(headers: &HeaderMap, kept: &[HeaderName]) -> HeaderMap {
    let mut copies = HeaderMap::new();
    for name in kept {
        for value in headers.get_all(name) {
            if let Ok(mut value) = HeaderValue::from_bytes(value.as_bytes()) {
                value.set_sensitive(true);
                copies.append(name, value);
            }
        }
    }
    copies
}

impl session::Limits {
    /// The open packet: exactly these keys, times in milliseconds.
    fn open_packet(&self, sid: &str, upgrades: bool) -> String {
        let upgrades = if upgrades { r#"["websocket"]"# } else { "[]" };
        format!(
            r#"0{{"sid":"{sid}","upgrades":{upgrades},"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
            self.ping_interval.as_millis(),
            self.ping_timeout.as_millis(),
            self.max_payload
        )
    }
}
