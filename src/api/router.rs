//! One request in, one answer out: who may ask, where it goes, and what every answer carries.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::time::sleep;

use crate::api::browser::{self, OriginPolicy};
use crate::api::rest::body::AnswerBody;
use crate::api::rest::budget;
use crate::api::rest::respond::{self, Answer};
use crate::api::rest::route::{self, Matched, Route};
use crate::api::rest::sent::Sent;
use crate::api::socket::SocketApi;
use crate::api::{Services, credential};
use crate::auth::Principal;
use crate::clock::now_ms;
use crate::indexer::IndexerStopped;
use crate::server::Peer;
use crate::wire::error::ApiError;
use crate::{socketio, web};

/// What `metrics.listen` is for.
const METRICS_PATHS: [&str; 3] = ["/metrics", "/health/live", "/health/ready"];

/// Where a request came in.
#[derive(Debug, Clone, Copy)]
enum Entrance {
    /// `server.listen`
    Clients,
    /// `metrics.listen`
    Metrics,
}

/// Answers the requests of all clients.
pub struct Router {
    services: Arc<Services>,
    policy: OriginPolicy,
    socketio: socketio::Service<SocketApi>,
    /// Seconds; 0 asks browsers for nothing.
    hsts: u64,
}

impl Router {
    pub(super) fn new(
        services: Arc<Services>,
        policy: OriginPolicy,
        socketio: socketio::Service<SocketApi>,
        hsts: u64,
    ) -> Self {
        Self {
            services,
            policy,
            socketio,
            hsts,
        }
    }

    /// Answers a request. A polling or long-polling request may take up to a minute.
    pub async fn handle<B>(&self, request: Request<B>, peer: Peer) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.answer(request, peer, Entrance::Clients).await
    }

    /// Answers a request that came to `metrics.listen`, where nobody needs a token.
    pub async fn handle_metrics<B>(&self, request: Request<B>, peer: Peer) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.answer(request, peer, Entrance::Metrics).await
    }

    async fn answer<B>(&self, request: Request<B>, peer: Peer, entrance: Entrance) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let head = request.method() == Method::HEAD;
        let checked = self
            .policy
            .check(request.uri(), request.headers(), peer.over_tls);
        let (mut answer, allowed) = match checked {
            Ok(allowed) => (self.route(request, peer, entrance).await, allowed),
            Err(refusal) => (respond::error(&refusal), None),
        };
        browser::mark(answer.headers_mut(), allowed);
        if peer.over_tls {
            browser::insist_on_tls(answer.headers_mut(), self.hsts);
        }
        if head { without_body(answer) } else { answer }
    }

    async fn route<B>(&self, request: Request<B>, peer: Peer, entrance: Entrance) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path();
        if matches!(entrance, Entrance::Metrics) && !METRICS_PATHS.contains(&path) {
            return respond::error(&ApiError::no_such_route(path));
        }
        if request.method() == Method::OPTIONS {
            return options(&request);
        }
        if self.socketio.matches(path) {
            let answer = self.socketio.handle(request, Some(peer.address.ip())).await;
            return answer.map(AnswerBody::from_full);
        }
        match route::find(path) {
            Some(matched) => self.rest(matched, request, entrance).await,
            None => page(&request).unwrap_or_else(|error| respond::error(&error)),
        }
    }

    async fn rest<B>(&self, matched: Matched, request: Request<B>, entrance: Entrance) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        // Looked at before: an answer that does not say itself what it includes includes at least
        // this.
        let log = &self.services.events.log;
        let known = log.encoder.cursor(log.head());
        let sessions = self.socketio.session_count();
        let answer = async {
            let route = matched.route(request.method())?;
            let principal = self.admit(route, request.headers(), entrance)?;
            let part = matched.part;
            let sent =
                Sent::read(&self.services, route, part, sessions, principal, request).await?;
            route.answer(self.services.clone(), sent).await
        };
        let answer = answer.await;
        if answer.as_ref().is_err_and(budget::is_overloaded) {
            sleep(budget::PAUSE).await;
        }
        let mut answer = answer.unwrap_or_else(|error| respond::error(&error));
        respond::set_cursor(&mut answer, &known);
        answer
    }

    /// Who asks, if they may ask for this.
    fn admit(
        &self,
        route: &Route,
        headers: &HeaderMap,
        entrance: Entrance,
    ) -> Result<Principal, ApiError> {
        let (Some(needed), Entrance::Clients) = (route.scope, entrance) else {
            return Ok(Principal::nobody());
        };
        let credential = credential(headers);
        let principal = self.services.auth.admit(credential)?;
        principal.require(needed)?;
        Ok(principal)
    }

    /// Tells all Socket.IO sessions goodbye and waits until they are gone.
    pub async fn shutdown(&self) {
        self.socketio.shutdown().await;
    }

    /// Deletes old events, a portion with each `prune`, so that no consumer misses what it did not
    /// want.
    pub async fn retain<Pruned>(&self, prune: impl Fn() -> Pruned) -> Result<usize, ApiError>
    where
        Pruned: Future<Output = Result<usize, IndexerStopped>>,
    {
        self.services.consumers.retain(prune).await
    }

    /// What is to be said when the machine's clock and the chain differ.
    pub async fn clock_note(&self) -> Result<Option<String>, ApiError> {
        let Services {
            reads, overview, ..
        } = &*self.services;
        let monitoring = overview.monitoring.clone();
        reads
            .run(move |view| Ok(monitoring.clock_note(view, now_ms())?))
            .await
    }

    /// Open Socket.IO sessions.
    pub fn session_count(&self) -> usize {
        self.socketio.session_count()
    }
}

/// A file of the web page.
fn page<B>(request: &Request<B>) -> Result<Answer, ApiError> {
    let path = request.uri().path();
    let asset = web::asset(path).ok_or_else(|| ApiError::no_such_route(path))?;
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return Err(ApiError::method_not_allowed(
            request.method().as_str(),
            "GET, HEAD, OPTIONS".to_owned(),
        ));
    }
    let mut answer = respond::body(asset.content_type, asset.body);
    for (name, value) in web::HEADERS {
        answer.headers_mut().insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    Ok(answer)
}

/// The answer to OPTIONS, a browser's preflight above all. It touches no session and no state.
fn options<B>(request: &Request<B>) -> Answer {
    let mut answer = Response::new(AnswerBody::default());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let allow = route::find(request.uri().path()).map_or_else(
        || "GET, HEAD, POST, PUT, DELETE, OPTIONS".to_owned(),
        |matched| matched.allow(),
    );
    respond::set_allow(&mut answer, &allow);
    browser::preflight(request.headers(), answer.headers_mut());
    answer
}

/// The same answer as for GET, as HEAD wants it: with the length if it is known, without the bytes.
fn without_body(mut answer: Answer) -> Answer {
    if let Some(length) = answer.body().size_hint().exact() {
        answer
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *answer.body_mut() = AnswerBody::default();
    answer
}
