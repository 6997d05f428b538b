//! `GET /events`: the log, oldest first, the same bytes as the socket's; and what a client's cursor
//! means.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::body::AnswerBody;
use super::budget::Budget;
use super::respond::{self, Answer};
use crate::events::{self, Batch, EventLog, PageError, Selection, cursors};
use crate::reads::Reads;
use crate::store::StoreReader;
use crate::wire::address::{self, KnownAddress};
use crate::wire::request::Request;
use crate::wire::request::types::{Limit, Wait};
use crate::wire::{ApiError, EventEncoder};

pub const LIMIT_DEFAULT: usize = 100;
pub const LIMIT_MOST: u32 = 1000;

/// Up to so many bytes of events are rendered where they are.
const FEW_BYTES: usize = 20_000;

/// `GET /events`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadEvents {
    pub after: Option<String>,
    #[serde(default)]
    pub address: Vec<String>,
    pub consumer: Option<String>,
    pub limit: Option<Limit<LIMIT_MOST>>,
    pub wait: Option<Wait>,
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

/// Reading the log for requests.
pub struct EventQueries {
    pub reads: Reads,
    pub budget: Budget,
    pub encoder: EventEncoder,
    pub log: Arc<EventLog>,
    pub dispatch: events::Handle,
    /// Ends waiting.
    pub stop: CancellationToken,
    pub waiting: Arc<AtomicUsize>,
}

/// A request that waits for events.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl EventQueries {
    /// `GET /events?after=&address=&limit=&wait=`; `address` may be repeated. `asked`: when the
    /// request came; the wait counts from there.
    pub async fn events(&self, query: ReadEvents, asked: Instant) -> Result<Answer, ApiError> {
        let limit = query.limit.map_or(LIMIT_DEFAULT, Limit::get);
        let wait = query.wait.map_or(Duration::ZERO, Wait::seconds);
        let (texts, after, encoder) = (query.address, query.after, self.encoder.clone());
        let begun = self.reads.run(move |reader| {
            let texts = texts.iter();
            let addresses = texts.map(|text| address::parse(text, encoder.network));
            let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
            let from = begin(reader, &encoder, &addresses, after.as_deref())?;
            Ok((addresses, from))
        });
        let (addresses, from) = begun.await?;
        let selection = match addresses.is_empty() {
            true => Selection::everything(),
            false => Selection {
                scripts: Some(Arc::new(
                    addresses.iter().map(|address| address.script).collect(),
                )),
                blocks: false,
            },
        };
        let enough = (wait > Duration::ZERO).then(|| sleep_until(asked + wait));
        match self.read(selection, from, limit, enough).await {
            Ok(batch) => self.answer(batch).await,
            Err(PageError::Expired) => {
                let encoder = self.encoder.clone();
                let look = move |reader: &StoreReader| check(reader, &encoder, from, &addresses);
                self.reads.run(look).await?;
                Err(ApiError::internal(&"events that are kept were not found"))
            }
            Err(cause) => Err(cause.into()),
        }
    }

    /// Requests that wait for events now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
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
        let _waiting = enough.as_ref().map(|_| Waiting::new(&self.waiting));
        let enough = enough.map(|enough| async {
            tokio::select! {
                () = enough => {}
                () = self.stop.cancelled() => {}
            }
        });
        let request = events::Request {
            selection,
            after,
            limit,
        };
        events::read(&self.log, &self.dispatch, request, enough).await
    }

    /// A part of the log as `GET /events` answers it.
    pub async fn answer(&self, batch: Batch) -> Result<Answer, ApiError> {
        let (encoder, budget) = (self.encoder.clone(), self.budget.clone());
        if batch.bytes <= FEW_BYTES {
            return batch_answer(&batch, &encoder, &budget);
        }
        let render = move |_: &StoreReader| batch_answer(&batch, &encoder, &budget);
        self.reads.run_long(render).await
    }
}

/// The JSON of each event is a slice of its one encoding. Nothing is put together when there is no
/// room for it.
fn batch_answer(
    batch: &Batch,
    encoder: &EventEncoder,
    budget: &Budget,
) -> Result<Answer, ApiError> {
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
    let body = AnswerBody::from_full(text.into());
    Ok(respond::json_text_at(StatusCode::OK, &next, body))
}

/// The number after which to read: that of `after`, or the one before the first event. All
/// addresses must be watched.
fn begin(
    reader: &StoreReader,
    encoder: &EventEncoder,
    addresses: &[KnownAddress],
    after: Option<&str>,
) -> Result<u64, ApiError> {
    let snapshot = reader.snapshot();
    for address in addresses {
        if snapshot.watch(&address.script)?.is_none() {
            return Err(ApiError::not_watched(&address.text));
        }
    }
    match after {
        Some(text) => cursors::place(reader, encoder, text)
            .map_err(|error| cursors::with_balances(reader, encoder, error, addresses)),
        None => Ok(reader.first_seq()?.saturating_sub(1)),
    }
}

/// Whether what follows a number is still kept.
fn check(
    reader: &StoreReader,
    encoder: &EventEncoder,
    number: u64,
    addresses: &[KnownAddress],
) -> Result<(), ApiError> {
    match cursors::place(reader, encoder, &encoder.cursor(number)) {
        Ok(_) => Ok(()),
        Err(error) => Err(cursors::with_balances(reader, encoder, error, addresses)),
    }
}
