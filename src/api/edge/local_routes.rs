//! The routes that an edge answers by itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use tokio::time::timeout_at;

use super::backend::{at_primary, unavailable};
use super::judge::EdgeJudge;
use super::services::EdgeServices;
use crate::api::rest::event_stream::{self, StreamEvents};
use crate::api::rest::events::ReadEvents;
use crate::api::rest::metrics::{self, MetricsText};
use crate::api::rest::respond::{self, Answer};
use crate::api::rest::route::Route;
use crate::api::rest::sent::Sent;
use crate::api::rest::status::{self, Ready};
use crate::auth::KeptCredential;
use crate::wire::request::types::Wait;
use crate::wire::{ApiError, cursor};

/// Beside its waiting, for a page that neither Redis nor the primary has at hand.
const LONGEST: Duration = Duration::from_secs(25);
/// For what the primary has told of to come over the stream.
const DUE: Duration = Duration::from_secs(3);
const EVENTS: &str = "/events";
const STREAM: &str = "/events/stream";
const LIVE: &str = "/health/live";
const READY: &str = "/health/ready";
const METRICS: &str = "/metrics";
/// For edges, which an edge has not.
const EDGE: [&str; 2] = ["/edge", "/edge/subscription"];

impl EdgeServices {
    /// Whether a route is not the primary's.
    pub fn answers(&self, route: &Route) -> bool {
        [EVENTS, STREAM, LIVE, READY, METRICS].contains(&route.path) || EDGE.contains(&route.path)
    }

    /// One of those. `shown`: by the client.
    pub async fn answer(
        self: Arc<Self>,
        route: &'static Route,
        sent: Sent,
        shown: Option<Arc<KeptCredential>>,
    ) -> Result<Answer, ApiError> {
        let mut answer = match route.path {
            EVENTS => {
                let asked: ReadEvents = sent.query()?;
                if asked.consumer.is_some() {
                    return Err(at_primary());
                }
                let named = (asked.address.clone(), asked.descriptor.clone());
                let judge = self.judge(named, shown, sent.caller_address());
                let by = sent.asked + asked.wait.map_or(Duration::ZERO, Wait::seconds) + LONGEST;
                let answered = timeout_at(by, self.events.events(&judge, asked, sent.asked)).await;
                answered.map_err(|_| unavailable())??.answer
            }
            STREAM => {
                let asked: StreamEvents = sent.query()?;
                if asked.consumer.is_some() {
                    return Err(at_primary());
                }
                let named = (asked.address.clone(), asked.descriptor.clone());
                let judge = self.judge(named, shown, sent.caller_address());
                let (principal, last) = (sent.principal.clone(), sent.last_event_id.clone());
                let told = event_stream::stream_events(
                    &self.events,
                    Arc::new(judge),
                    asked,
                    last,
                    principal,
                );
                told.await?.answer
            }
            LIVE => {
                sent.nothing()?;
                status::live().answer
            }
            READY => {
                sent.nothing()?;
                self.ready()?
            }
            METRICS => {
                sent.nothing()?;
                self.metrics(sent.sessions).await?
            }
            path => return Err(ApiError::no_such_route(path)),
        };
        respond::charge(&mut answer, &self.intake.budget, true)?;
        Ok(answer)
    }

    /// Of a request that names these.
    fn judge(
        self: &Arc<Self>,
        (addresses, descriptors): (Vec<String>, Vec<String>),
        shown: Option<Arc<KeptCredential>>,
        client: IpAddr,
    ) -> EdgeJudge {
        EdgeJudge {
            edge: self.clone(),
            shown,
            client,
            addresses,
            descriptors,
        }
    }

    /// Whether clients are told what happens: of the stream, and by a primary that answers.
    fn ready(&self) -> Result<Answer, ApiError> {
        let problem = self.stream.borrow().problem.clone();
        let stream = problem.map(|problem| format!("the stream is not read: {problem}"));
        let away = self.backend.client.away();
        let away = away.map(|why| format!("the primary is away: {why}"));
        if let Some(reason) = stream.or(away).or_else(|| self.behind()) {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Err(ApiError::new(status, "not_ready", reason));
        }
        let tip = self.backend.primary.borrow().tip.clone();
        Ok(respond::ok(&Ready::at(tip)).answer)
    }

    /// Why clients hear less than the primary has told us of.
    fn behind(&self) -> Option<String> {
        let (log, heard) = (&self.events.log, self.backend.primary.borrow());
        let is_due = heard.at.elapsed() >= DUE;
        let is_there = cursor::read(&log.encoder.starts(), &heard.cursor)
            .is_ok_and(|number| number <= log.head());
        (is_due && !is_there).then(|| {
            let (theirs, ours) = (&heard.cursor, log.encoder.cursor(log.head()));
            format!("the primary is at {theirs}, and the stream has come to {ours}: see bus in its /status")
        })
    }

    async fn metrics(&self, sessions: usize) -> Result<Answer, ApiError> {
        let counts = self.events.dispatch.counts().await?;
        let mut text = MetricsText::new()?;
        text.add_process(self.started);
        text.add_clients(sessions, &counts, &self.events, &self.intake.budget);
        let help = "Number of the last event of the stream.";
        text.add_single("event_head", help, metrics::number(self.events.log.head()));
        let reads = self.stream.borrow().problem.is_none();
        let help = "1 while the edge reads the stream.";
        text.add_single("edge_reads", help, metrics::flag(reads));
        let help = "1 while the primary answers.";
        let answers = self.backend.client.away().is_none();
        text.add_single("edge_primary", help, metrics::flag(answers));
        Ok(metrics::answer(text.text()?))
    }
}
