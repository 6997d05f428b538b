//! One request in, one answer out: who may ask, where it goes, and what every answer carries.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use hyper::body::Body;
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderName, HeaderValue, VARY,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::time::sleep;

use crate::api::access::{Caller, Concerns, Cost};
use crate::api::browser::{self, AllowedOrigin, OriginPolicy};
use crate::api::rest::body::AnswerBody;
use crate::api::rest::budget;
use crate::api::rest::event_stream;
use crate::api::rest::matched::{self, Matched};
use crate::api::rest::respond::{self, Answer};
use crate::api::rest::route::{Mark, Route};
use crate::api::rest::sent::{Found, Sent};
use crate::api::rest::session::LoggedInOrOut;
use crate::api::role::Role;
use crate::api::session::Asking;
use crate::api::socket::SocketApi;
use crate::api::{credential, session};
use crate::auth::{Credential, KeptCredential, Principal, Scope, Waits};
use crate::server::Peer;
use crate::wire::error::{ApiError, shortened};
use crate::wire::request::descriptors::descriptor_id;
use crate::{socketio, web};

/// What `metrics.listen` is for.
const METRICS_PATHS: [&str; 3] = ["/metrics", "/health/live", "/health/ready"];

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entrance {
    /// `server.listen`
    Clients,
    /// `metrics.listen`
    Metrics,
}

/// What is found out about a request, for its line in the access log.
struct Seen {
    caller: Caller,
    entrance: Entrance,
    method: Method,
    route: Option<&'static Route>,
    /// The part of its path.
    part: String,
    concerns: Concerns,
    /// How far the log is.
    may_know: bool,
    /// Its success is a change, if its route makes some.
    changed: bool,
}

/// Answers the requests of all clients.
pub struct Router {
    role: Role,
    policy: OriginPolicy,
    socketio: socketio::Service<SocketApi>,
    /// Seconds; 0 asks browsers for nothing.
    hsts: u64,
}

impl Router {
    pub(super) fn new(
        role: Role,
        policy: OriginPolicy,
        socketio: socketio::Service<SocketApi>,
        hsts: u64,
    ) -> Self {
        Self {
            role,
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

    async fn answer<B>(&self, mut request: Request<B>, peer: Peer, entrance: Entrance) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let head = request.method() == Method::HEAD;
        let access = self.role.access();
        let client = access.client(peer.address.ip(), request.headers());
        let checked = self
            .policy
            .check(request.uri(), request.headers(), peer.over_tls);
        let (mut answer, allowed) = match checked {
            Ok(allowed) => {
                self.look_at_page(&mut request, allowed.as_ref(), peer.over_tls);
                (self.route(request, client, entrance).await, allowed)
            }
            Err(refusal) => {
                let what = request.method().as_str();
                let concerns = Some(request.uri().path());
                access.refused(&Caller::at(client), what, concerns, &refusal);
                (respond::error(&refusal), None)
            }
        };
        browser::mark(answer.headers_mut(), allowed);
        if peer.over_tls {
            browser::insist_on_tls(answer.headers_mut(), self.hsts);
        }
        if head { without_body(answer) } else { answer }
    }

    /// Says whether another page asks, and leaves of the cookies what may speak.
    fn look_at_page<B>(
        &self,
        request: &mut Request<B>,
        allowed: Option<&AllowedOrigin>,
        over_tls: bool,
    ) {
        let foreign = browser::is_foreign(allowed, request.headers());
        let secure = over_tls || session::is_secure(request.headers());
        let cookie = self.role.cookie();
        cookie.reduce(request.headers_mut(), foreign);
        request.extensions_mut().insert(Asking { foreign, secure });
    }

    async fn route<B>(&self, request: Request<B>, client: IpAddr, entrance: Entrance) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path();
        if matches!(entrance, Entrance::Metrics) && !METRICS_PATHS.contains(&path) {
            return respond::error(&not_for_metrics(path));
        }
        if request.method() == Method::OPTIONS {
            return options(&request);
        }
        if self.socketio.matches(path) {
            return self.socketio(request, client).await;
        }
        match matched::find(path) {
            Some(matched) => {
                let seen = Seen {
                    caller: Caller::at(client),
                    entrance,
                    method: request.method().clone(),
                    route: None,
                    part: matched.part.clone(),
                    concerns: Concerns::default(),
                    may_know: entrance == Entrance::Clients && !self.role.backend().asks_who(),
                    changed: true,
                };
                self.rest(matched, request, seen).await
            }
            None => page(&request).unwrap_or_else(|error| respond::error(&error)),
        }
    }

    /// A session's first request counts; those after it are how its transport works.
    async fn socketio<B>(&self, request: Request<B>, client: IpAddr) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let query = request.uri().query().unwrap_or_default();
        let is_first = form_urlencoded::parse(query.as_bytes()).all(|(name, _)| name != "sid");
        if is_first {
            let (access, caller) = (self.role.access(), Caller::at(client));
            if let Err(refusal) = access.take(&caller, Cost::Request) {
                access.refused(&caller, "handshake", None, &refusal);
                return respond::error(&refusal);
            }
        }
        let answer = self.socketio.handle(request, Some(client)).await;
        answer.map(AnswerBody::from_full)
    }

    async fn rest<B>(&self, matched: Matched, request: Request<B>, mut seen: Seen) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        // Looked at before: an answer that does not say itself what it includes includes at least
        // this.
        let log = &self.role.events().log;
        let is_event_source = event_stream::is_event_source(request.headers());
        let known = log.encoder.cursor(log.head());
        let answer = self.answer_route(&mut seen, matched, request).await;
        self.note(&seen, answer.as_ref().err());
        if answer.as_ref().is_err_and(budget::is_overloaded) {
            sleep(budget::PAUSE).await;
        }
        let streams = seen.route.is_some_and(|route| route.has(Mark::Stream));
        let mut answer = answer.unwrap_or_else(|error| {
            let told = event_stream::refusal(&error, is_event_source);
            told.filter(|_| streams)
                .unwrap_or_else(|| respond::error(&error))
        });
        if seen.may_know {
            respond::set_cursor(&mut answer, &known);
        }
        answer
    }

    async fn answer_route<B>(
        &self,
        seen: &mut Seen,
        matched: Matched,
        request: Request<B>,
    ) -> Result<Answer, ApiError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let route = matched.route(request.method())?;
        seen.route = Some(route);
        if let Role::Edge(edge) = &self.role
            && !edge.answers(route)
        {
            // The primary looks who asks, and logs what changes.
            (seen.may_know, seen.changed) = (false, false);
            self.role.access().take(&seen.caller, Cost::Request)?;
            return edge.pass_on(&seen.caller, request).await;
        }
        // What is asked at `metrics.listen` needs no token.
        let needed = route.scope.filter(|_| seen.entrance == Entrance::Clients);
        let (principal, shown) = self.admit(seen, route, needed, request.headers()).await?;
        seen.may_know |= principal.may(Scope::Read);
        let found = Found {
            part: matched.part,
            sessions: self.socketio.session_count(),
            principal: principal.clone(),
            caller: seen.caller.clone(),
            concerns: seen.concerns.clone(),
        };
        let sent = Sent::read(self.role.intake(), route, found, request).await?;
        // The body may have taken long to come.
        check(needed, &principal)?;
        let answering = match &self.role {
            Role::Own(services) => route.answer(services.clone(), sent).boxed(),
            Role::Edge(edge) => edge.clone().answer(route, sent, shown).boxed(),
        };
        if route.method != Method::GET {
            // What is being changed is changed, and told.
            let answered = answering.await;
            return match needed {
                Some(_) => answered,
                None => self.note_who(seen, answered),
            };
        }
        let mut answer = tokio::select! {
            biased;
            () = principal.ended(Waits::Request) => return Err(ended(needed, &principal)),
            answer = answering => answer?,
        };
        answer.body_mut().give_to(principal);
        Ok(answer)
    }

    /// Who asks, if they may ask for this, and not too often.
    async fn admit(
        &self,
        seen: &mut Seen,
        route: &Route,
        needed: Option<Scope>,
        headers: &HeaderMap,
    ) -> Result<(Principal, Option<Arc<KeptCredential>>), ApiError> {
        let (access, caller) = (self.role.access(), &mut seen.caller);
        let Some(needed) = needed else {
            if !route.has(Mark::Uncounted) {
                access.take(caller, Cost::Request)?;
            }
            return Ok((Principal::nobody(), None));
        };
        let credential = credential(headers);
        let admitted = self.role.backend().admit(credential, caller).await;
        if let Ok((principal, _)) = &admitted {
            *caller = Caller::of(principal, caller);
        }
        access.take(caller, Cost::Request)?;
        let is_wrong = |error: &ApiError| error.status == StatusCode::UNAUTHORIZED;
        if admitted.as_ref().is_err_and(is_wrong) && credential != Credential::None {
            access.take(caller, Cost::Costly)?;
        }
        let (principal, shown) = admitted?;
        principal.require(needed)?;
        Ok((principal, shown))
    }

    /// Finds out from the answer of an open route who asked. A credential that is wrong counts as
    /// elsewhere; a good one is not kept out by those.
    fn note_who(
        &self,
        seen: &mut Seen,
        mut answered: Result<Answer, ApiError>,
    ) -> Result<Answer, ApiError> {
        match &mut answered {
            Ok(answer) => match answer.extensions_mut().remove() {
                Some(LoggedInOrOut(principal)) => {
                    seen.caller = Caller::of(&principal, &seen.caller)
                }
                None => seen.changed = false,
            },
            Err(error) if error.status == StatusCode::UNAUTHORIZED => {
                self.role.access().take(&seen.caller, Cost::Costly)?;
            }
            Err(_) => {}
        }
        answered
    }

    /// The line of a change or a refusal.
    fn note(&self, seen: &Seen, error: Option<&ApiError>) {
        let Some(route) = seen.route else {
            return;
        };
        let (access, caller) = (self.role.access(), &seen.caller);
        let what = format!("{} {}", seen.method, route.path);
        let concerns = match &*seen.part {
            "" => seen.concerns.get().map(String::as_str),
            part => Some(part),
        };
        match error {
            Some(error) => access.refused(caller, &what, concerns, error),
            None if seen.changed && route.is_logged_change() => {
                // A whole id looks like a key, which is not shown. Here it is none: it was found.
                let short = concerns.and_then(|text| descriptor_id(text).ok());
                let short = short.map(|id| id.short());
                access.changed(caller, &what, short.as_deref().or(concerns))
            }
            None => {}
        }
    }

    /// The line of a request that was refused because it came without TLS.
    pub fn note_plain<B>(&self, request: &Request<B>, peer: SocketAddr) {
        let access = self.role.access();
        let client = access.client(peer.ip(), request.headers());
        access.refused_plain(client, request.method().as_str(), request.uri().path());
    }

    /// Takes over the bounds of another configuration on sessions that open from now on.
    pub fn set_session_limits(&self, config: &socketio::Config) {
        socketio::set_limits(&self.socketio, config);
    }

    /// Tells all Socket.IO sessions goodbye and waits until they are gone.
    pub async fn shutdown(&self) {
        self.socketio.shutdown().await;
    }

    /// Open Socket.IO sessions.
    pub fn session_count(&self) -> usize {
        self.socketio.session_count()
    }
}

/// Whether a principal may do what needs a scope, if it does, now.
fn check(needed: Option<Scope>, principal: &Principal) -> Result<(), ApiError> {
    match needed {
        Some(needed) => Ok(principal.require(needed)?),
        None => Ok(()),
    }
}

/// The refusal of a request whose principal has ended while it was answered.
fn ended(needed: Option<Scope>, principal: &Principal) -> ApiError {
    let refused = check(needed, principal).err();
    refused.unwrap_or_else(ApiError::stopping)
}

fn not_for_metrics(path: &str) -> ApiError {
    let message = format!(
        "There is nothing at {} here: metrics.listen has {} alone. The rest is at server.listen.",
        shortened(path),
        METRICS_PATHS.join(", ")
    );
    ApiError::not_found("not_found", message)
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
    let is_gzipped = takes_gzip(request.headers());
    let body = if is_gzipped {
        &asset.gzipped
    } else {
        asset.body.as_bytes()
    };
    let mut answer = respond::body(asset.content_type, Bytes::from_static(body));
    let headers = answer.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    if is_gzipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    for (name, value) in web::HEADERS {
        answer.headers_mut().insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    Ok(answer)
}

/// Whether `Accept-Encoding` (RFC 9110, 12.5.3) names gzip, and not to refuse it.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).into_iter();
    let codings =
        values.filter_map(|value| value.to_str().ok()?.split(',').find_map(weight_of_gzip));
    codings.into_iter().any(|weight| weight > 0.0)
}

fn weight_of_gzip(coding: &str) -> Option<f32> {
    let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
    let weight = weight.trim().strip_prefix("q=");
    (name.trim().eq_ignore_ascii_case("gzip")).then(|| weight?.parse().ok())?
}

/// The answer to OPTIONS, a browser's preflight above all. It touches no session and no state.
fn options<B>(request: &Request<B>) -> Answer {
    let mut answer = Response::new(AnswerBody::default());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let allow = matched::find(request.uri().path()).map_or_else(
        || "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".to_owned(),
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
