//! HTTP to the primary.

use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Method, StatusCode};
use reqwest::Response;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::auth::{Credential, KeptCredential};
use crate::config::{Edge, Secret};
use crate::http_client::{self, root};
use crate::wire::ApiError;

const PAGE_KEY: HeaderName = HeaderName::from_static("satwatch-page");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// Between two signs of life of a connection on which nothing comes: an audit may take an hour.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// So long a primary that is away is waited for where a client would have to come back otherwise: a
/// restart takes less.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);
/// Questions, and requests that are passed on, under way at a time; more wait. The primary takes a
/// thousand connections of one address.
const ASKED: usize = 64;
const PASSED: usize = 512;
/// Of an answer that is read whole. A page of the log may have so much.
const MOST_BYTES: usize = 64 << 20;

/// What the primary is asked.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    /// With its query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
}

impl Request {
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            headers: HeaderMap::new(),
            body: None,
        }
    }

    pub fn post(path: &str, body: String) -> Self {
        let json = HeaderValue::from_static("application/json");
        Self {
            method: Method::POST,
            body: Some(body.into()),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, json)]),
            ..Self::get(path)
        }
    }

    /// With what a client showed.
    pub fn shown_by(mut self, shown: &KeptCredential, cookie: &str) -> Self {
        let headers = match shown.shown() {
            Credential::None => Vec::new(),
            Credential::Token(text) => vec![(AUTHORIZATION, format!("Bearer {text}"))],
            Credential::Session { id, page_key } => vec![
                (COOKIE, cookies(cookie, id)),
                (PAGE_KEY, page_key.to_owned()),
            ],
        };
        for (name, text) in headers {
            // What is no header's text is no credential.
            if let Ok(mut value) = HeaderValue::from_str(&text) {
                value.set_sensitive(true);
                self.headers.insert(name, value);
            }
        }
        self
    }

    /// For a client at this address.
    pub fn on_behalf_of(mut self, client: IpAddr) -> Self {
        let value = HeaderValue::from_str(&client.to_canonical().to_string());
        if let Ok(value) = value {
            self.headers.insert(X_FORWARDED_FOR, value);
        }
        self
    }
}

/// The header `Cookie` with what may be the id of a session: several with spaces between them.
pub fn cookies(name: &str, ids: &str) -> String {
    let ids = ids.split(' ');
    let cookies: Vec<_> = ids.map(|id| format!("{name}={id}")).collect();
    cookies.join("; ")
}

/// What it answers, whatever that says.
pub struct PrimaryAnswer {
    answer: Response,
    client: PrimaryClient,
    /// A place among those that are under way.
    _held: Option<OwnedSemaphorePermit>,
}

impl PrimaryAnswer {
    pub fn status(&self) -> StatusCode {
        self.answer.status()
    }

    pub fn headers(&self) -> &HeaderMap {
        self.answer.headers()
    }

    /// The next part of its body.
    pub async fn part(&mut self) -> Result<Option<Bytes>, ApiError> {
        let part = self.answer.chunk().await;
        part.map_err(|error| self.client.not_answered(&error))
    }

    /// The whole of it, or its refusal.
    async fn bytes(mut self) -> Result<Vec<u8>, ApiError> {
        let status = self.status();
        let retry_after = self.headers().get(RETRY_AFTER).and_then(seconds);
        let mut bytes = Vec::new();
        while let Some(part) = self.part().await? {
            if bytes.len().saturating_add(part.len()) > MOST_BYTES {
                return Err(self.client.strange("its answer is too long"));
            }
            bytes.extend_from_slice(&part);
        }
        match status.is_success() {
            true => Ok(bytes),
            false => Err(self.client.refusal(status, &bytes, retry_after)),
        }
    }

    /// The whole of it as JSON, or its refusal.
    pub async fn read<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        let client = self.client.clone();
        let bytes = self.bytes().await?;
        let said = serde_json::from_slice(&bytes);
        let said = said.map_err(|cause| client.strange(&cause.to_string()))?;
        // Another program that answers there does not come to this.
        client.note(None);
        Ok(said)
    }
}

/// Asks the primary. Cheap to clone.
#[derive(Clone)]
pub struct PrimaryClient(Arc<Inner>);

/// It does not answer.
#[derive(Debug, Clone)]
struct Away {
    since: Instant,
    why: String,
}

struct Inner {
    http: reqwest::Client,
    /// Without a slash at its end.
    url: String,
    /// Of `edge.token`.
    own: Option<HeaderValue>,
    asked: Arc<Semaphore>,
    passed: Arc<Semaphore>,
    away: watch::Sender<Option<Away>>,
}

impl PrimaryClient {
    /// `url`: `edge.upstream`.
    pub fn new(settings: &Edge, url: &str) -> reqwest::Result<Self> {
        let agent = concat!("satwatch-edge/", env!("CARGO_PKG_VERSION"));
        let http = http_client::builder(agent, url, Vec::new())
            .connect_timeout(CONNECT_TIME)
            .tcp_keepalive(KEEPALIVE);
        let own = settings.token.as_ref().and_then(|Secret(text)| {
            // The settings have looked that it is a header's text.
            let mut value = HeaderValue::from_str(&format!("Bearer {text}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(Self(Arc::new(Inner {
            http: http.build()?,
            url: url.trim_end_matches('/').to_owned(),
            own,
            asked: Arc::new(Semaphore::new(ASKED)),
            passed: Arc::new(Semaphore::new(PASSED)),
            away: watch::Sender::new(None),
        })))
    }

    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Why it is away, if it is.
    pub fn away(&self) -> Option<String> {
        let away = self.0.away.borrow();
        away.as_ref().map(|away| away.why.clone())
    }

    /// Its answer to a request of a client, whatever that says. It may take long (an audit does),
    /// but not longer than a primary that does not answer at all is waited for.
    pub async fn pass(&self, request: Request) -> Result<PrimaryAnswer, ApiError> {
        let held = self.0.passed.clone().acquire_owned().await.ok();
        let answer = tokio::select! {
            answer = self.send(request) => answer?,
            () = self.is_long_away() => return Err(unavailable()),
        };
        if answer.status().is_success() {
            self.note(None);
        }
        Ok(PrimaryAnswer {
            _held: held,
            ..answer
        })
    }

    /// Waits until it is away.
    pub async fn goes_away(&self) {
        let mut away = self.0.away.subscribe();
        // An error means that nobody asks any more.
        let _ = away.wait_for(Option::is_some).await;
    }

    async fn is_long_away(&self) {
        let mut away = self.0.away.subscribe();
        loop {
            let since = away.borrow_and_update().as_ref().map(|away| away.since);
            let long = async {
                match since {
                    Some(since) => sleep_until(since + PATIENCE).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = long => return,
                changed = away.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn send(&self, request: Request) -> Result<PrimaryAnswer, ApiError> {
        let url = format!("{}{}", self.0.url, request.path);
        let mut sending = self.0.http.request(request.method, url);
        sending = sending.headers(request.headers);
        if let Some(body) = request.body {
            sending = sending.body(body);
        }
        match sending.send().await {
            Ok(answer) => Ok(PrimaryAnswer {
                answer,
                client: self.clone(),
                _held: None,
            }),
            Err(error) => Err(self.not_answered(&error)),
        }
    }

    /// The same with `edge.token`.
    pub async fn send_own(&self, mut request: Request) -> Result<PrimaryAnswer, ApiError> {
        if let Some(own) = &self.0.own {
            request.headers.insert(AUTHORIZATION, own.clone());
        }
        self.send(request).await
    }

    /// What a client has asked: an answer as JSON, or its refusal. Waits a while for a primary that
    /// is away, and asks again.
    pub async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, ApiError> {
        let _held = self.0.asked.clone().acquire_owned().await;
        // Who asks when it has been away for longer than that waits no more.
        let since = self.0.away.borrow().as_ref().map(|away| away.since);
        let by = since.unwrap_or_else(Instant::now) + PATIENCE;
        loop {
            let asked = timeout_at(by.max(Instant::now()) + CONNECT_TIME, async {
                self.send(request.clone()).await?.read().await
            });
            let refusal = match asked.await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(refusal)) => refusal,
                Err(_) => unavailable(),
            };
            let passes = refusal.code == "stopping"
                || refusal.code == "primary_unavailable" && refusal.written.is_none();
            if !passes || Instant::now() + PAUSE >= by {
                return Err(refusal);
            }
            sleep(PAUSE).await;
            // Whoever follows it notices that it is back.
            let mut away = self.0.away.subscribe();
            let _ = timeout_at(by, away.wait_for(Option::is_none)).await;
        }
    }

    fn refusal(&self, status: StatusCode, bytes: &[u8], retry_after: Option<u32>) -> ApiError {
        match ApiError::written(status, bytes) {
            Some(refusal) => ApiError {
                retry_after,
                ..refusal
            },
            // A proxy in front of it.
            None => self.note_away(&format!("what answers there says {status}")),
        }
    }

    fn not_answered(&self, error: &reqwest::Error) -> ApiError {
        // An answer that breaks off says nothing of others.
        if error.is_connect() {
            self.note(Some(&root(error)));
        }
        tracing::debug!("no answer of the primary: {}", root(error));
        unavailable()
    }

    /// It does not answer what every primary does.
    pub fn note_away(&self, why: &str) -> ApiError {
        self.note(Some(why));
        unavailable()
    }

    /// It answers something that is not satwatch's.
    fn strange(&self, why: &str) -> ApiError {
        self.note_away(&format!("its answer is not one of satwatch: {why}"))
    }

    /// Says it when it changes.
    fn note(&self, why: Option<&str>) {
        let url = &self.0.url;
        self.0.away.send_if_modified(|away| {
            let changed = away.is_some() != why.is_some();
            match why {
                Some(why) if changed => tracing::warn!("the primary at {url} is away: {why}"),
                None if changed => tracing::info!("the primary at {url} answers again"),
                _ => {}
            }
            let since = away.as_ref().map_or_else(Instant::now, |it| it.since);
            *away = why.map(|why| Away {
                since,
                why: why.to_owned(),
            });
            changed
        });
    }
}

fn unavailable() -> ApiError {
    let message = "The primary of this edge does not answer; try again in a moment. What is subscribed to goes on meanwhile.";
    ApiError::unavailable("primary_unavailable", message)
}

fn seconds(value: &HeaderValue) -> Option<u32> {
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_to_a_primary_that_hangs_is_given_up_once_it_is_known_to_be_away() {
        // The kernel takes the connection; nobody answers.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", silent.local_addr().expect("it is bound"));
        let client = PrimaryClient::new(&Edge::default(), &url).expect("a URL");
        let passed = tokio::spawn({
            let client = client.clone();
            async move { client.pass(Request::get("/status")).await.map(|_| ()) }
        });
        sleep(Duration::from_secs(3600)).await;
        assert!(!passed.is_finished(), "an audit takes long");
        client.note_away("it has not answered in time");
        let refused = passed.await.expect("it ends").expect_err("nobody answers");
        assert_eq!(refused.code, "primary_unavailable");
    }
}
