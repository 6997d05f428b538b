//! `GET /events`: the log, oldest first, the same bytes as the socket's; and what a client's cursor
//! means.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::body::AnswerBody;
use super::budget::Budget;
use super::respond::{self, Reply};
use crate::events::{self, Batch, EventLog, PageError, Reader, Selection, cursors};
use crate::limits::{Held, LimitUse, Places};
use crate::reads::{Reads, StoreView, Threads};
use crate::tracker::DescriptorId;
use crate::wire::address::{self, KnownAddress};
use crate::wire::json::{EventRow, LOG_EVENTS};
use crate::wire::request::Request;
use crate::wire::request::descriptors::DescriptorSelection;
use crate::wire::request::types::{Limit, Wait};
use crate::wire::{ApiError, EventEncoder};

pub const LIMIT_DEFAULT: usize = 100;
pub const LIMIT_MOST: u32 = 1000;

/// Up to so many bytes of events are rendered where they are.
const FEW_BYTES: usize = 20_000;

/// `GET /events`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadEvents {
    /// A cursor; from the first event that is kept on when absent.
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
    /// 100 when absent.
    pub limit: Option<Limit<LIMIT_MOST>>,
    /// Seconds to wait for an event when there is none.
    pub wait: Option<Wait>,
}

/// A part of the log, oldest first. It is put together from events that are encoded once for all.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "what is put together looks like this")]
pub struct EventPage {
    events: Vec<LoggedEvent>,
    /// The `after` of the next page.
    next: String,
    /// The last event that there is.
    head: String,
}

/// An event of the log: its cursor, its name, and its data as subscribers get it.
struct LoggedEvent;

impl JsonSchema for LoggedEvent {
    fn schema_name() -> Cow<'static, str> {
        "LoggedEvent".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut shape = |row: &EventRow| {
            let data = (row.data)(generator);
            json_schema!({
                "type": "object",
                "description": row.summary,
                "properties": {
                    "cursor": {"type": "string"},
                    "event": {"const": row.name},
                    "data": data,
                },
                "required": ["cursor", "event", "data"],
            })
        };
        let shapes: Vec<Schema> = LOG_EVENTS.iter().map(&mut shape).collect();
        json_schema!({"description": "An event of the log.", "oneOf": shapes})
    }
}

impl Request for ReadEvents {
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("cursor", "write it as `after`"),
        ("since", "write a cursor as `after`"),
        ("shared", ONE_READER),
    ];
}

/// What to do where two are to read what one consumer wants.
pub const ONE_READER: &str =
    "a consumer has one reader; make a second consumer, which gets the same events";

/// Knows what is meant by the cursor of a request, and by those whom it names.
pub trait Judge: Send + Sync {
    /// Those of whom a request names some, and the number after which to read for them. All
    /// addresses that are named must be watched.
    fn begin(
        &self,
        addresses: Vec<String>,
        descriptors: Vec<String>,
        after: Option<String>,
    ) -> BoxFuture<'_, Result<(Named, u64), ApiError>>;

    /// Why what comes after a number is not there.
    fn expired(&self, named: Named, number: u64) -> BoxFuture<'_, ApiError>;
}

/// Reading the log for requests.
pub struct EventQueries {
    pub threads: Threads,
    pub budget: Budget,
    pub log: Arc<EventLog>,
    pub dispatch: events::Handle,
    /// Ends waiting.
    pub stop: CancellationToken,
    /// One of them is held by each request that waits.
    pub waiting: Places,
}

impl EventQueries {
    /// `GET /events?after=&address=&descriptor=&limit=&wait=`. `asked`: when the request came; the
    /// wait counts from there.
    pub async fn events(
        &self,
        judge: &dyn Judge,
        query: ReadEvents,
        asked: Instant,
    ) -> Result<Reply<EventPage>, ApiError> {
        let limit = query.limit.map_or(LIMIT_DEFAULT, Limit::get);
        let wait = query.wait.map_or(Duration::ZERO, Wait::seconds);
        let _place = self.place(wait)?;
        let begun = judge.begin(query.address, query.descriptor, query.after);
        let (named, from) = begun.await?;
        let selection = named.selection();
        let enough = (wait > Duration::ZERO).then(|| sleep_until(asked + wait));
        match self.read(selection, from, limit, enough).await {
            Ok(batch) => self.answer(batch).await,
            Err(PageError::Expired) => Err(judge.expired(named, from).await),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Requests that wait for events now.
    pub fn waiting(&self) -> usize {
        self.waiting.limit().used
    }

    /// A place to wait for so long; none for who does not wait.
    pub fn place(&self, wait: Duration) -> Result<Option<Held>, ApiError> {
        if wait.is_zero() {
            return Ok(None);
        }
        self.waiting_place().map(Some)
    }

    pub fn waiting_place(&self) -> Result<Held, ApiError> {
        let LimitUse { name, limit, .. } = self.waiting.limit();
        self.waiting.take(1).ok_or_else(|| {
            let message = format!(
                "{limit} requests wait for events, as many as may (limits.{name}); ask again in a moment, or GET /events without \"wait\"."
            );
            let status = StatusCode::TOO_MANY_REQUESTS;
            ApiError::new(status, "quota_reached", message).retry_after(1).of_limit(name)
        })
    }

    /// Up to `limit` events after a number; waits for some until `enough` is over or the daemon
    /// stops.
    pub async fn read(
        &self,
        selection: Selection,
        after: u64,
        limit: usize,
        enough: Option<impl Future<Output = ()>>,
    ) -> Result<Batch, PageError> {
        let enough = enough.map(|enough| async {
            self.stop.run_until_cancelled(enough).await;
        });
        let mut reader = Reader::of_selection(&self.log, &self.dispatch, selection, after);
        match reader.read_batch(after, limit, enough).await {
            // It was about to wait when the daemon began to stop: it is answered like those that
            // waited then.
            Err(PageError::Stopped) => Ok(Batch {
                events: Vec::new(),
                bytes: 0,
                next: after,
                head: self.log.head().max(after),
            }),
            batch => batch,
        }
    }

    /// A part of the log as `GET /events` answers it.
    pub async fn answer(&self, batch: Batch) -> Result<Reply<EventPage>, ApiError> {
        let budget = self.budget.clone();
        if batch.bytes <= FEW_BYTES {
            return batch_answer(&batch, &self.log.encoder, &budget);
        }
        let log = self.log.clone();
        let render = move || batch_answer(&batch, &log.encoder, &budget);
        self.threads.run_long(render).await
    }
}

/// Of this daemon's own log.
impl Judge for Reads {
    fn begin(
        &self,
        addresses: Vec<String>,
        descriptors: Vec<String>,
        after: Option<String>,
    ) -> BoxFuture<'_, Result<(Named, u64), ApiError>> {
        let begin = async move {
            let named = Named::parse(&addresses, descriptors, self.encoder.network)?;
            let rows = addresses.len();
            self.run_rows(rows, move |view| {
                let ids = named.descriptors;
                let known = ids.map(|ids| view.known_descriptors("descriptor", ids));
                let descriptors = known.transpose()?;
                let named = Named {
                    descriptors,
                    ..named
                };
                let from = begin(view, &named, after.as_deref())?;
                Ok((named, from))
            })
            .await
        };
        begin.boxed()
    }

    fn expired(&self, named: Named, number: u64) -> BoxFuture<'_, ApiError> {
        let check = self.run(move |view| {
            cursors::check(view, number).map_err(|error| named.with_balances(view, error))
        });
        let kept = || ApiError::internal(&"events that are kept were not found");
        async move { check.await.err().unwrap_or_else(kept) }.boxed()
    }
}

/// The JSON of each event is a slice of its one encoding. Nothing is put together when there is no
/// room for it.
fn batch_answer(
    batch: &Batch,
    encoder: &EventEncoder,
    budget: &Budget,
) -> Result<Reply<EventPage>, ApiError> {
    let encoded = batch
        .events
        .iter()
        .filter_map(|entry| entry.encoded(encoder));
    budget.check_room(encoded.map(|event| event.json().len()).sum())?;
    let (next, head) = (encoder.cursor(batch.next), encoder.cursor(batch.head));
    let mut text = String::from("{\"events\":[");
    let entries = batch.events.iter();
    let encoded = entries.filter_map(|entry| Some((entry, entry.encoded(encoder)?)));
    for (place, (entry, event)) in encoded.enumerate() {
        let comma = if place > 0 { "," } else { "" };
        let cursor = encoder.cursor(entry.number);
        let (name, data) = (event.name(), event.json());
        // Cursors and names of events need no escapes.
        text.push_str(&format!(
            "{comma}{{\"cursor\":\"{cursor}\",\"event\":\"{name}\",\"data\":{data}}}"
        ));
    }
    text.push_str(&format!("],\"next\":\"{next}\",\"head\":\"{head}\"}}"));
    let mut answer = respond::json_text(StatusCode::OK, AnswerBody::whole(text));
    respond::set_cursor(&mut answer, &next);
    Ok(Reply::written(answer))
}

/// Those of whom a request names some.
pub struct Named {
    /// `None`: all, and blocks.
    addresses: Option<Vec<KnownAddress>>,
    /// `None`: all.
    descriptors: Option<Vec<DescriptorId>>,
}

impl Named {
    pub fn parse(
        addresses: &[String],
        descriptors: Vec<String>,
        network: Network,
    ) -> Result<Self, ApiError> {
        let descriptors = wanted_descriptors(descriptors)?;
        Ok(Self {
            addresses: wanted_addresses(addresses, network)?,
            descriptors,
        })
    }

    /// Whether some are named one by one.
    pub fn names_some(&self) -> bool {
        let is_some = |count: Option<usize>| count.is_some_and(|count| count > 0);
        is_some(self.addresses.as_ref().map(Vec::len))
            || is_some(self.descriptors.as_ref().map(Vec::len))
    }

    /// Who names nobody gets everything.
    pub fn selection(&self) -> Selection {
        let (addresses, descriptors) = (self.addresses.as_ref(), self.descriptors.as_ref());
        if addresses.is_some_and(Vec::is_empty) && descriptors.is_some_and(Vec::is_empty) {
            return Selection::everything();
        }
        Selection {
            scripts: addresses.map(|all| Arc::new(all.iter().map(|it| it.script).collect())),
            descriptors: descriptors.map(|ids| Arc::new(ids.iter().copied().collect())),
            blocks: addresses.is_none(),
        }
    }

    fn with_balances(&self, view: &StoreView<'_>, error: ApiError) -> ApiError {
        let addresses = self.addresses.as_deref().unwrap_or_default();
        let descriptors = self.descriptors.as_deref().unwrap_or_default();
        cursors::with_balances(view, error, addresses, descriptors)
    }
}

/// `address`, which may be repeated, or once the word `all`.
fn wanted_addresses(
    texts: &[String],
    network: Network,
) -> Result<Option<Vec<KnownAddress>>, ApiError> {
    match texts {
        [all] if all == "all" => Ok(None),
        [text] => Ok(Some(vec![address::parse(text, network)?])),
        texts => {
            let texts = texts.iter().map(|text| Ok(text.as_str()));
            address::parse_all("address", texts, network).map(Some)
        }
    }
}

/// `descriptor`, which may be repeated, or once the word `all`.
fn wanted_descriptors(texts: Vec<String>) -> Result<Option<Vec<DescriptorId>>, ApiError> {
    let all = texts == ["all"];
    DescriptorSelection(Some(texts).filter(|_| !all)).parse("descriptor")
}

/// The number after which to read: that of `after`, or the one before the first event. All
/// addresses that are named must be watched.
fn begin(view: &StoreView<'_>, named: &Named, after: Option<&str>) -> Result<u64, ApiError> {
    for address in named.addresses.iter().flatten() {
        view.watched(address)?;
    }
    match after {
        Some(text) => cursors::place(view, text).map_err(|error| named.with_balances(view, error)),
        None => Ok(view.reader.first_seq()?.saturating_sub(1)),
    }
}
