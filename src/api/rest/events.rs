//! `GET /events`: the log, oldest first, the same bytes as the socket's; and what a client's cursor
//! means.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::body::AnswerBody;
use super::respond::{self, Answer};
use crate::api::App;
use crate::events::{self, Batch, Event, PageError, Selection, cursors};
use crate::wire::address::KnownAddress;
use crate::wire::error::ApiError;
use crate::wire::request::Request;
use crate::wire::request::types::{Limit, Wait};

pub const LIMIT_DEFAULT: usize = 100;
pub const LIMIT_MOST: u32 = 1000;

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

impl App {
    /// The number in a cursor of this log, which may be ahead of it.
    pub(in crate::api) fn number(&self, text: &str) -> Result<u64, ApiError> {
        cursors::number(&self.reader, &self.wire, text)
    }

    /// Where in the log a client's cursor stands.
    pub(in crate::api) fn place(&self, text: &str) -> Result<u64, ApiError> {
        cursors::place(&self.reader, &self.wire, text)
    }

    /// Whether retention has taken an event after this number.
    pub(in crate::api) fn expired(&self, after: u64) -> Result<bool, ApiError> {
        Ok(cursors::is_expired(&self.reader, after)?)
    }

    /// The refusal of a cursor with the balances of the addresses.
    pub(in crate::api) fn with_balances(
        &self,
        error: ApiError,
        addresses: &[KnownAddress],
    ) -> ApiError {
        cursors::with_balances(&self.reader, &self.wire, error, addresses)
    }

    /// `GET /events?after=&address=&limit=&wait=`; `address` may be repeated. `asked`: when the
    /// request came; the wait counts from there.
    pub(in crate::api) async fn events(
        self: &Arc<Self>,
        query: ReadEvents,
        asked: Instant,
    ) -> Result<Answer, ApiError> {
        if let Some(name) = query.consumer.clone() {
            return self.consumer_events(&name, query).await;
        }
        let limit = query.limit.map_or(LIMIT_DEFAULT, Limit::get);
        let wait = query.wait.map_or(Duration::ZERO, Wait::seconds);
        let addresses = query.address.iter().map(|text| self.address(text));
        let addresses: Arc<[KnownAddress]> = addresses.collect::<Result<Vec<_>, _>>()?.into();
        let after = query.after.map(Arc::<str>::from);
        let (wanted, text) = (addresses.clone(), after.clone());
        let from = self
            .read(move |app| app.begin(&wanted, text.as_deref()))
            .await?;
        let selection = match addresses.is_empty() {
            true => Selection::everything(),
            false => Selection {
                scripts: Some(Arc::new(
                    addresses.iter().map(|address| address.script).collect(),
                )),
                blocks: false,
            },
        };
        let _waiting = if wait > Duration::ZERO {
            Some(self.may_wait()?)
        } else {
            None
        };
        let enough = (wait > Duration::ZERO).then(|| sleep_until(asked + wait));
        match self.read_events(selection, from, limit, enough).await {
            Ok(batch) => Ok(self.batch_answer(&batch)),
            Err(PageError::Expired) => Err(self.expired_from(from, addresses).await?),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Retention has taken what followed this number while it was read.
    async fn expired_from(
        self: &Arc<Self>,
        from: u64,
        addresses: Arc<[KnownAddress]>,
    ) -> Result<ApiError, ApiError> {
        self.read(move |app| {
            Ok(match app.place(&app.wire.cursor(from)) {
                Err(error) => app.with_balances(error, &addresses),
                Ok(_) => ApiError::internal(&"events that are kept were not found"),
            })
        })
        .await
    }

    /// To be held by a request that waits for events; `/metrics` counts them.
    pub(in crate::api) fn may_wait(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        let message = "Too many requests wait for events already (as many as limits.connections allows connections); use Socket.IO, or try again later.";
        let full = |_| ApiError {
            retry_after: Some(1),
            ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_waiting", message)
        };
        self.waiting.try_acquire().map_err(full)
    }

    pub(in crate::api) fn waiting_requests(&self) -> usize {
        self.config
            .limits
            .connections
            .saturating_sub(self.waiting.available_permits())
    }

    /// Up to `limit` events after a number; waits for some until `enough` is over or the daemon
    /// stops.
    pub(in crate::api) async fn read_events(
        &self,
        selection: Selection,
        after: u64,
        limit: usize,
        enough: Option<impl Future<Output = ()>>,
    ) -> Result<Batch, PageError> {
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

    /// A part of the log as `GET /events` answers it: the JSON of each event is a slice of its one
    /// encoding.
    pub(in crate::api) fn batch_answer(&self, batch: &Batch) -> Answer {
        let (next, head) = (self.wire.cursor(batch.next), self.wire.cursor(batch.head));
        let mut text = String::from("{\"events\":[");
        let entries = batch.events.iter().filter_map(Event::entry);
        let encoded = entries.filter_map(|entry| Some((entry, entry.encoded(&self.wire)?)));
        for (place, (entry, event)) in encoded.enumerate() {
            let comma = if place > 0 { "," } else { "" };
            let cursor = self.wire.cursor(entry.number);
            let (name, data) = (event.name(), event.json());
            // Cursors and names of events need no escapes.
            text.push_str(&format!(
                "{comma}{{\"cursor\":\"{cursor}\",\"event\":\"{name}\",\"data\":{data}}}"
            ));
        }
        text.push_str(&format!("],\"next\":\"{next}\",\"head\":\"{head}\"}}"));
        respond::json_text_at(StatusCode::OK, &next, AnswerBody::from_full(text.into()))
    }

    /// The number after which to read: that of `after`, or the one before the first event. All
    /// addresses must be watched.
    fn begin(&self, addresses: &[KnownAddress], after: Option<&str>) -> Result<u64, ApiError> {
        let snapshot = self.reader.snapshot();
        for address in addresses {
            if snapshot.watch(&address.script)?.is_none() {
                return Err(ApiError::not_watched(&address.text));
            }
        }
        match after {
            Some(text) => self
                .place(text)
                .map_err(|error| self.with_balances(error, addresses)),
            None => Ok(self.reader.first_seq()?.saturating_sub(1)),
        }
    }
}
