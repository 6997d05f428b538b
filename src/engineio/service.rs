//! From a request to its answer: refuses what is wrong, opens sessions, hands requests to the session they belong to.
//!
//! The order of the checks is that of the reference server: transport, session id, method (of a handshake), WebSocket handshake, allow
//! hook, protocol version. Its check for illegal bytes in `Origin` is hyper's here.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::timeout;
use tracing::debug;

use super::config::Config;
use super::error::Refused;
use super::handler::{Handler, Handshake};
use super::outbox::outbox;
use super::polling;
use super::registry::{Command, Entry, Mailbox, Registry, Slot};
use super::request::{Query, TransportName};
use super::session::Session;
use super::task::{Task, now};
use super::websocket::{self, Socket};

type Answer = Response<Full<Bytes>>;

/// An Engine.IO server for one path. Clones are the same server.
pub struct Service<H: Handler> {
    inner: Arc<Inner<H>>,
}

struct Inner<H> {
    config: Config,
    handler: Arc<H>,
    registry: Arc<Registry>,
}

impl<H: Handler> Clone for Service<H> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<H: Handler> Service<H> {
    pub fn new(config: Config, handler: H) -> Self {
        let registry = Registry::new(config.max_sessions);
        Self { inner: Arc::new(Inner { config, handler: Arc::new(handler), registry }) }
    }

    pub fn handler(&self) -> &Arc<H> {
        &self.inner.handler
    }

    /// Sessions that are open, and handshakes on their way to one.
    pub fn session_count(&self) -> usize {
        self.inner.registry.count()
    }

    /// Whether a request for this path belongs here. Exactly: a prefix would take other paths' requests.
    pub fn matches(&self, path: &str) -> bool {
        path == self.inner.config.path
    }

    /// Refuses new sessions, ends all others and waits until they are gone.
    pub async fn shutdown(&self) {
        self.inner.registry.shutdown().await;
    }

    /// Answers a request. Must run on a tokio runtime; dropping the future is how a client that went away is noticed.
    pub async fn handle<B>(&self, request: Request<B>, peer: Option<IpAddr>) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if !self.matches(request.uri().path()) {
            let mut response = Answer::default();
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
        let upgrade = websocket::is_wanted(&request);
        match self.route(request, peer, upgrade).await {
            Ok(response) => response,
            Err(refused) if upgrade => refused.websocket(),
            Err(refused) => refused.polling(),
        }
    }

    async fn route<B>(&self, request: Request<B>, peer: Option<IpAddr>, upgrade: bool) -> Result<Answer, Refused>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let inner = &self.inner;
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let version_4 = query.version_4;
        let transport = query.transport.ok_or(Refused::TransportUnknown)?;
        let websocket = transport == TransportName::WebSocket;
        if let Some(sid) = query.sid {
            let mailbox = inner.registry.find(&sid).ok_or(Refused::SessionUnknown)?;
            // A poll that asks for an upgrade would take packets that its connection cannot carry.
            if websocket != upgrade || !version_4 {
                return Err(Refused::BadRequest);
            }
            return match *request.method() {
                Method::GET if websocket => inner.attach(request, mailbox),
                Method::GET => Ok(polling::get(mailbox).await),
                Method::POST if !websocket => {
                    Ok(polling::post(mailbox, request, inner.config.max_payload, inner.config.body_timeout).await)
                }
                _ => Err(Refused::BadRequest),
            };
        }
        if request.method() != Method::GET {
            return Err(Refused::BadHandshakeMethod);
        }
        if websocket != upgrade {
            return Err(Refused::BadRequest);
        }
        if let Some(allow) = &inner.config.allow {
            allow(request.headers()).map_err(Refused::Forbidden)?;
        }
        if !version_4 {
            return Err(Refused::UnsupportedVersion);
        }
        let slot = inner.registry.reserve()?;
        if websocket { self.open_websocket(request, peer, slot) } else { self.open_polling(&request, peer, slot) }
    }

    fn open_polling<B>(&self, request: &Request<B>, peer: Option<IpAddr>, slot: Slot) -> Result<Answer, Refused> {
        let inner = &self.inner;
        let entry = slot.enter()?;
        let open = inner.config.open_packet(entry.sid(), inner.config.upgrades);
        let machine = Session::polling(now(), inner.config.session_limits());
        let task = inner.open(entry, handshake(request, peer), machine, None);
        tokio::spawn(task.run());
        Ok(polling::payload(open.into()))
    }

    fn open_websocket<B>(&self, mut request: Request<B>, peer: Option<IpAddr>, slot: Slot) -> Result<Answer, Refused> {
        let response = switching(&request)?;
        let upgrade = hyper::upgrade::on(&mut request);
        let handshake = handshake(&request, peer);
        let inner = self.inner.clone();
        let running = inner.registry.running();
        tokio::spawn(async move {
            let Some(socket) = inner.socket(upgrade).await else { return };
            // The service may have begun to end meanwhile.
            let Ok(entry) = slot.enter() else { return socket.goodbye(Some(1001)).await };
            let open = inner.config.open_packet(entry.sid(), false);
            let machine = Session::websocket(now(), inner.config.session_limits(), open.into());
            let task = inner.open(entry, handshake, machine, Some(socket));
            drop(running);
            // A task of its own, because this one's future has the size of the upgrade.
            tokio::spawn(task.run());
        });
        Ok(response)
    }
}

impl<H: Handler> Inner<H> {
    /// Tells the layer above of a session and makes its task.
    fn open(&self, entry: Entry, handshake: Handshake, machine: Session, main: Option<Box<Socket>>) -> Box<Task<H>> {
        let (sender, receiver) = outbox(self.config.queue_messages, self.config.queue_bytes);
        let state = self.handler.open(sender, handshake);
        Task::new(self.handler.clone(), state, entry, receiver, machine, main)
    }

    /// The WebSocket with an existing session's id: whether it is welcome is the session's to say, after the 101.
    fn attach<B>(self: &Arc<Self>, mut request: Request<B>, mailbox: Arc<Mailbox>) -> Result<Answer, Refused> {
        let response = switching(&request)?;
        let upgrade = hyper::upgrade::on(&mut request);
        let inner = self.clone();
        let running = self.registry.running();
        tokio::spawn(async move {
            let Some(socket) = inner.socket(upgrade).await else { return };
            if let Err(Command::Socket(socket)) = mailbox.post(Command::Socket(socket)) {
                socket.goodbye(None).await;
            }
            drop(running);
        });
        Ok(response)
    }
}

/// 101, or why not.
fn switching<B>(request: &Request<B>) -> Result<Answer, Refused> {
    let accept = websocket::accept(request).ok_or(Refused::BadRequest)?;
    let mut response = Answer::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend(websocket::accepted(accept));
    Ok(response)
}

impl<H> Inner<H> {
    /// The WebSocket on the connection behind a 101. `None`: the client went away before it got it.
    async fn socket(&self, upgrade: OnUpgrade) -> Option<Box<Socket>> {
        match timeout(self.config.upgrade_timeout, upgrade).await {
            Ok(Ok(upgraded)) => Some(Socket::open(upgraded, self.config.max_payload).await),
            Ok(Err(error)) => {
                debug!(%error, "the client left during the WebSocket handshake");
                None
            }
            Err(_) => None,
        }
    }
}

impl Config {
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

/// What the layer above gets to know of the first request. Values are copied: hyper's are parts of the connection's read buffer and
/// would keep all of it.
fn handshake<B>(request: &Request<B>, peer: Option<IpAddr>) -> Handshake {
    let kept = |name: &HeaderName| ![CONNECTION, UPGRADE, TRANSFER_ENCODING].contains(name) && !name.as_str().starts_with("sec-websocket-");
    let count = request.headers().keys().filter(|name| kept(name)).count();
    let mut headers = HeaderMap::with_capacity(count);
    for (name, value) in request.headers().iter().filter(|(name, _)| kept(name)) {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.append(name, value);
        }
    }
    Handshake { headers, query: request.uri().query().unwrap_or_default().to_owned(), peer }
}
