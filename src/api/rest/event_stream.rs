//! `GET /events/stream`: the log as server-sent events (HTML standard, "Server-sent events").
//!
//! Each event is its cursor (`id`), its name (`event`) and its bytes (`data`), from the same reader
//! as everybody's. A stream holds one place of `limits.waiting_requests`, and at most
//! [`CHUNK_BYTES`] and one event of text: a client that does not take them holds up nobody.
//!
//! A browser that loses its connection comes back with the last `id` in `Last-Event-ID`, which wins
//! over `after`. So an `id` alone goes out where nothing happens, with the place of the reader: who
//! comes back after quiet days asks for nothing that retention may have taken. What a browser could
//! not read as an answer (the cursor is of no use, the token has ended, somebody else has taken the
//! consumer over) is told as an event, `satwatch_error`, and the stream ends; so is every refusal
//! of a request whose `Accept` is `text/event-stream` alone. That event has no `id`: who does not
//! understand it comes back with the same cursor, a minute later or when the refusal says, hears it
//! again, and is never led over a gap.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use hyper::header::{ACCEPT, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::body::AnswerBody;
use super::events::{EventQueries, Judge, Named, ONE_READER};
use super::reading;
use super::respond::{self, Answer, EVENT_STREAM, Reply};
use crate::auth::{Principal, Scope, Waits};
use crate::consumers::{Consumer, Consumers, Lease, Leases};
use crate::events::{EventLog, Given, PageError, Reader};
use crate::limits::Held;
use crate::reads::Reads;
use crate::wire::ApiError;
use crate::wire::json::to_text;
use crate::wire::request::Request;

/// Between two signs of life: less than proxies and idle connections wait (nginx: 60 seconds).
const BEAT: Duration = Duration::from_secs(15);
/// Milliseconds after which a browser comes back.
const RETRY: u32 = 1000;
/// The same when it was told why its stream ended, and not when to come back.
const RETRY_REFUSED: u32 = 60_000;
/// Events that are ready are sent together up to so many bytes.
pub const CHUNK_BYTES: usize = 16 * 1024;
/// nginx passes on at once what has this header.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// `GET /events/stream`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamEvents {
    /// A cursor; from the first event that is kept on when absent. The header `Last-Event-ID` wins
    /// over it.
    pub after: Option<String>,
    /// Events of these addresses; it may come more than once, or say `all`.
    #[serde(default)]
    pub address: Vec<String>,
    /// Events of these descriptors; it may come more than once, or say `all`.
    #[serde(default)]
    pub descriptor: Vec<String>,
    /// In place of these two: what this consumer wants and has not acknowledged. It takes the scope
    /// `watch`.
    pub consumer: Option<String>,
}

/// Server-sent events: `id` is the cursor, `event` the name, `data` the JSON that subscribers get.
/// The event `satwatch_error` says why the stream ends.
#[derive(JsonSchema)]
#[schemars(inline, extend("contentMediaType" = "text/event-stream"))]
pub struct EventStreamText(#[allow(dead_code, reason = "it looks like this")] String);

impl Request for StreamEvents {
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("cursor", "write it as `after`"),
        ("since", "write a cursor as `after`"),
        ("limit", "a stream has none; GET /events has"),
        ("wait", "a stream waits by itself"),
        ("shared", ONE_READER),
    ];
}

/// `last`: the header `Last-Event-ID`.
pub async fn stream_events(
    events: &EventQueries,
    judge: Arc<dyn Judge>,
    query: StreamEvents,
    last: Option<String>,
    principal: Principal,
) -> Result<Reply<EventStreamText>, ApiError> {
    let place = events.waiting_place()?;
    let after = last.filter(|last| !last.is_empty()).or(query.after);
    let begun = judge.begin(query.address, query.descriptor, after);
    let (named, from) = begun.await?;
    let of = Of::Named(named, judge);
    stream(events, of, from, principal, place).await
}

/// The same of what a consumer wants.
pub async fn stream_consumer(
    events: &EventQueries,
    (consumers, reads): (&Consumers, &Reads),
    name: &str,
    query: StreamEvents,
    last: Option<String>,
    principal: Principal,
) -> Result<Reply<EventStreamText>, ApiError> {
    let place = events.waiting_place()?;
    let after = last.filter(|last| !last.is_empty()).or(query.after);
    reading::check_named(&query.address, &query.descriptor)?;
    // A browser comes back before the connection that it lost is seen to have ended.
    let take = Leases::take_over;
    let (consumer, lease, from) = reading::open(reads, consumers, name, after, take).await?;
    let of = Of::Consumer(consumer, Arc::new(lease), reads.clone());
    stream(events, of, from, principal, place).await
}

async fn stream(
    events: &EventQueries,
    of: Of,
    from: u64,
    principal: Principal,
    place: Held,
) -> Result<Reply<EventStreamText>, ApiError> {
    let selection = match &of {
        Of::Named(named, _) => named.selection(),
        Of::Consumer(consumer, ..) => consumer.filter.clone(),
    };
    let mut reader = Reader::of_selection(&events.log, &events.dispatch, selection, from);
    reader.follow().await.map_err(PageError::from)?;
    let mut beat = interval_at(Instant::now() + BEAT, BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let cursor = events.log.encoder.cursor(from);
    let first = Bytes::from(format!("retry: {RETRY}\nid: {cursor}\n\n"));
    let stream = EventStream {
        first: Some(first),
        reader,
        beat,
        end: of.end(principal),
        of,
        log: events.log.clone(),
        stop: events.stop.clone(),
        _place: place,
    };
    let chunks = futures_util::stream::try_unfold(Some(stream), async |stream| match stream {
        Some(stream) => stream.next().await,
        None => Ok(None),
    });
    let mut answer = answer(AnswerBody::unending(Box::pin(chunks), CHUNK_BYTES));
    respond::set_cursor(&mut answer, &cursor);
    Ok(Reply::written(answer))
}

/// Whether who asks reads a stream and nothing else, as a browser's `EventSource` does.
pub fn is_event_source(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .is_some_and(|accept| accept == EVENT_STREAM)
}

/// A refusal of a stream as one: `EventSource` shows no other answer, and where to go on
/// ([`Restart`](crate::wire::error::Restart)) is for programs that read a stream.
pub fn refusal(refusal: &ApiError, is_event_source: bool) -> Option<Answer> {
    let is_told = is_event_source || refusal.restart.is_some();
    is_told.then(|| answer(AnswerBody::whole(refused(refusal))))
}

fn answer(body: AnswerBody) -> Answer {
    let mut answer = respond::text(StatusCode::OK, EVENT_STREAM, body);
    let headers = answer.headers_mut();
    headers.insert(UNBUFFERED, HeaderValue::from_static("no"));
    answer
}

/// For whom a stream is.
enum Of {
    Named(Named, Arc<dyn Judge>),
    Consumer(Arc<Consumer>, Arc<Lease>, Reads),
}

/// Why a stream ends.
type End = Pin<Box<dyn Future<Output = ApiError> + Send>>;

impl Of {
    /// Waits until who asked may not read on.
    fn end(&self, principal: Principal) -> End {
        let ended = principal.ended(Waits::Request);
        let token = async move {
            ended.await;
            let refusal = principal.require(Scope::Metrics).err();
            refusal.map_or_else(ApiError::stopping, ApiError::from)
        };
        let Self::Consumer(consumer, lease, _) = self else {
            return Box::pin(token);
        };
        let (consumer, lease) = (consumer.clone(), lease.clone());
        Box::pin(async move {
            tokio::select! {
                refusal = token => refusal,
                () = lease.ended() => {
                    let reason = consumer.leases.ended(lease.id());
                    reason.map_or_else(ApiError::stopping, |reason| reason.error(&consumer.name))
                }
            }
        })
    }

    /// Why what comes after a number is not there.
    async fn expired(self, number: u64) -> ApiError {
        match self {
            Self::Named(named, judge) => judge.expired(named, number).await,
            Self::Consumer(consumer, _, reads) => reading::expired(&reads, number, &consumer).await,
        }
    }
}

struct EventStream {
    first: Option<Bytes>,
    reader: Reader<()>,
    beat: Interval,
    end: End,
    of: Of,
    log: Arc<EventLog>,
    stop: CancellationToken,
    _place: Held,
}

/// What is sent, and what is left of the stream.
type Next = Option<(Bytes, Option<EventStream>)>;

impl EventStream {
    async fn next(mut self) -> Result<Next, ApiError> {
        if let Some(first) = self.first.take() {
            return Ok(Some((first, Some(self))));
        }
        loop {
            let given = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(None),
                refusal = &mut self.end => return Ok(Some((refused(&refusal), None))),
                given = self.reader.next() => given,
                _ = self.beat.tick() => {
                    let beat = format!("id: {}\n\n", self.cursor());
                    return Ok(Some((beat.into(), Some(self))));
                }
            };
            let mut text = String::new();
            match given {
                Ok(given) => self.write(&mut text, given),
                Err(PageError::Stopped) => return Ok(None),
                Err(PageError::Expired) => {
                    let refusal = self.of.expired(self.reader.place()).await;
                    return Ok(Some((refused(&refusal), None)));
                }
                Err(cause @ PageError::Store(_)) => return Err(cause.into()),
            }
            // An error comes again.
            while text.len() < CHUNK_BYTES
                && let Some(Ok(given)) = self.reader.next().now_or_never()
            {
                self.write(&mut text, given);
            }
            if !text.is_empty() {
                self.beat.reset();
                return Ok(Some((text.into(), Some(self))));
            }
        }
    }

    fn write(&self, text: &mut String, given: Given<()>) {
        let Given::Event(entry) = given else {
            return;
        };
        let encoder = &self.log.encoder;
        if let Some(event) = entry.encoded(encoder) {
            let cursor = encoder.cursor(entry.number);
            let (name, data) = (event.name(), event.json());
            text.push_str(&format!("id: {cursor}\nevent: {name}\ndata: {data}\n\n"));
        }
    }

    /// All that is wanted up to there was given.
    fn cursor(&self) -> String {
        self.log.encoder.cursor(self.reader.place())
    }
}

/// When to come back, if the refusal says that. Otherwise a browser that does not close the stream
/// comes back late, so that two that read for one consumer do not take it from each other again and
/// again.
fn refused(refusal: &ApiError) -> Bytes {
    let data = to_text(refusal);
    let retry = refusal
        .retry_after
        .map_or(RETRY_REFUSED, |seconds| seconds.saturating_mul(1000));
    format!("retry: {retry}\nevent: satwatch_error\ndata: {data}\n\n").into()
}
