//! `subscribe_consumer`, `unsubscribe_consumer`, `ack`: reading a consumer over Socket.IO.
//!
//! A reading takes the consumer's seat first, so that whoever had it is given nothing more; then
//! its reader begins where the consumer stands. What ends it is told in place of the next event.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::client::{Reply, packet};
use super::{Call, SocketServices};
use crate::api::App;
use crate::api::rest::events::ONE_READER;
use crate::clock::now_ms;
use crate::consumers::{self, Consumer, Over, Refused, Wish, consumer_name};
use crate::events::{PageError, Reader};
use crate::socketio::{Ack, Encoded};
use crate::wire::json::{self, Balance};
use crate::wire::request::Request;
use crate::wire::{ApiError, NAMESPACE};

/// The event `subscribed_consumer`.
#[derive(Serialize)]
struct Subscribed {
    consumer: String,
    message: String,
    /// Events after this one follow.
    cursor: String,
    head: String,
    lag: u64,
    lag_exact: bool,
    /// Why it does not begin where the consumer stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    balances: Option<Vec<Balance>>,
}

/// `subscribe_consumer`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscribeConsumer {
    consumer: String,
}

impl Request for SubscribeConsumer {
    const EXAMPLE: &'static str = "{\"consumer\": \"<name>\"}";
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        (
            "after",
            "a consumer goes on where it stands; PUT /consumers/<name> with `after` moves it",
        ),
        ("shared", ONE_READER),
    ];
}

/// `unsubscribe_consumer`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnsubscribeConsumer {
    consumer: String,
}

impl Request for UnsubscribeConsumer {
    const EXAMPLE: &'static str = "{\"consumer\": \"<name>\"}";
}

/// `ack`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AckEvent {
    consumer: String,
    cursor: String,
}

impl Request for AckEvent {
    const EXAMPLE: &'static str =
        "{\"consumer\": \"<name>\", \"cursor\": \"<cursor of the last event that is done>\"}";
}

impl Call {
    pub(super) async fn subscribe_consumer(
        &self,
        asked: SubscribeConsumer,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let name = asked.consumer;
        let consumer = self.services.app.consumers.get(consumer_name(&name)?)?;
        let client = self.client()?;
        if let Some(other) = client.consumer().filter(|other| *other != name) {
            return Err(alone(&other));
        }
        if client.has_subscriptions() {
            return Err(alone(&name));
        }
        client.read_consumer(None);
        let seat = consumer
            .readers
            .begin(Wish::TakeOver)
            .map_err(|refused| over(&name, refused))?;
        let described = consumer.clone();
        let begun = self
            .services
            .app
            .read(move |app| app.begin_reading(&described));
        let (json, from) = begun.await?;
        let SocketServices { log, dispatch, .. } = &*self.services;
        let mut reader = Reader::of_selection(log, dispatch, consumer.filter.clone(), from);
        reader.follow().await.map_err(|_| ApiError::stopping())?;
        let head = log.head().max(from);
        reader.put(head, caught_up(&name, self.services.app.wire.cursor(head))?);
        client.answer(Reply {
            name: "subscribed_consumer",
            json,
            ack: ack.take(),
        })?;
        client.read_consumer(Some(Reading::new(consumer, seat, reader)));
        Ok(())
    }

    pub(super) fn unsubscribe_consumer(
        &self,
        asked: UnsubscribeConsumer,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        #[derive(Serialize)]
        struct Unsubscribed {
            consumer: String,
            message: String,
        }
        let (consumer, client) = (asked.consumer, self.client()?);
        consumer_name(&consumer)?;
        if client.consumer().is_some_and(|name| name == consumer) {
            client.read_consumer(None);
        }
        let message = format!("No more events of {consumer} come here; it stays where it is.");
        client.answer(Reply {
            name: "unsubscribed_consumer",
            json: json::to_text(&Unsubscribed { consumer, message }),
            ack: ack.take(),
        })
    }

    pub(super) async fn acknowledge(
        &self,
        asked: AckEvent,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let name = consumer_name(&asked.consumer)?;
        let acked = self.services.app.acknowledge(name, &asked.cursor).await?;
        self.client()?.answer(Reply {
            name: "acked",
            json: json::to_text(&acked),
            ack: ack.take(),
        })
    }
}

impl App {
    /// Where a reading begins, and how the reader is told.
    fn begin_reading(&self, consumer: &Arc<Consumer>) -> Result<(String, u64), ApiError> {
        let lag = self.consumers.lag_of(consumer, now_ms())?;
        let head = self.wire.cursor(self.reader.snapshot().head()?);
        let consumer_name = consumer.name.clone();
        let message = format!(
            "Reading {consumer_name}; acknowledge with the event ack {{\"consumer\", \"cursor\"}}."
        );
        let cursor = self.wire.cursor(consumer.place().number);
        let mut shape = Subscribed {
            consumer: consumer_name,
            message,
            cursor,
            head,
            lag: lag.events,
            lag_exact: lag.exact,
            error: None,
            code: None,
            first: None,
            balances: None,
        };
        if let Err(problem) = self.place_of(consumer) {
            let Some(restart) = problem.restart else {
                return Err(problem);
            };
            (shape.cursor, shape.first, shape.balances) =
                (restart.cursor, Some(restart.first), restart.balances);
            (shape.error, shape.code) = (Some(problem.message), Some(problem.code));
        }
        let from = self.number(&shape.cursor)?;
        Ok((json::to_text(&shape), from))
    }
}

/// The end of what had happened when the reading began.
fn caught_up(consumer: &str, cursor: String) -> Result<Encoded, ApiError> {
    #[derive(Serialize)]
    struct CaughtUp<'a> {
        consumer: &'a str,
        cursor: String,
    }
    Encoded::event(NAMESPACE, "caught_up", &CaughtUp { consumer, cursor })
        .map_err(|cause| ApiError::internal(&cause))
}

type EndMessage = Pin<Box<dyn Future<Output = Option<Encoded>> + Send>>;

/// A consumer that is read.
pub struct Reading {
    consumer: Arc<Consumer>,
    seat: consumers::Reading,
    reader: Reader<Encoded>,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Why it ends, on its way to the client.
    end_message: Option<EndMessage>,
}

impl Reading {
    fn new(consumer: Arc<Consumer>, seat: consumers::Reading, reader: Reader<Encoded>) -> Self {
        let ended = seat.seat.clone();
        Self {
            consumer,
            seat,
            reader,
            over: Box::pin(async move { ended.ended().await }),
            end_message: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.consumer.name
    }

    /// The next packet; `None` when it has ended and the client knows why.
    pub(super) fn poll_next(
        &mut self,
        app: &Arc<App>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Encoded>> {
        if let Some(end_message) = &mut self.end_message {
            let said = std::task::ready!(end_message.as_mut().poll(cx));
            self.end_message = Some(Box::pin(ready(None)));
            return Poll::Ready(said);
        }
        let mut is_over = self.over.as_mut().poll(cx).is_ready();
        while !is_over {
            let reader = &mut self.reader;
            // A reading that is over is given nothing more, however late it notices.
            let Ok(given) = self.seat.seat.unless_over(|| reader.poll_next(cx)) else {
                is_over = true;
                continue;
            };
            match std::task::ready!(given) {
                Ok(given) => match packet(given, &app.wire) {
                    Ok(Some(packet)) => return Poll::Ready(Some(packet)),
                    Ok(None) => {}
                    Err(cause) => return self.end(ready(Some(ApiError::internal(&cause))), cx),
                },
                Err(PageError::Stopped) => return Poll::Pending,
                // The client was too slow for retention; this error says where to go on.
                Err(PageError::Expired) => {
                    let (app, consumer) = (app.clone(), self.consumer.clone());
                    let from = self.reader.place();
                    let why = async move {
                        let look = app.read(move |app| app.check_place(from, &consumer));
                        look.await.err()
                    };
                    return self.end(why, cx);
                }
                Err(PageError::Store(cause)) => {
                    return self.end(ready(Some(ApiError::internal(&cause))), cx);
                }
            }
        }
        let why = match self.seat.seat.is_over() {
            None | Some(Over::Left) => None,
            Some(why) => Some(over(&self.consumer.name, Refused::Over(why))),
        };
        self.end(ready(why), cx)
    }

    /// Says why, and nothing more after it.
    fn end(
        &mut self,
        why: impl Future<Output = Option<ApiError>> + Send + 'static,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Encoded>> {
        #[derive(Serialize)]
        struct Said<'a> {
            #[serde(flatten)]
            error: &'a ApiError,
            consumer: &'a str,
        }
        self.seat.seat.end(Over::Left);
        let consumer = self.consumer.name.clone();
        self.end_message = Some(Box::pin(async move {
            let error = why.await?;
            let said = Said {
                error: &error,
                consumer: &consumer,
            };
            Encoded::event(NAMESPACE, "error", &said).ok()
        }));
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

pub(super) fn alone(name: &str) -> ApiError {
    let message = format!(
        "A connection reads one consumer ({name}) or has subscriptions of its own, not both; end the one first, or use another connection."
    );
    ApiError::new(StatusCode::CONFLICT, "consumer_alone", message)
}

/// Why somebody does not read (any more).
pub fn over(name: &str, refused: Refused) -> ApiError {
    let conflict = |code, message| ApiError::new(StatusCode::CONFLICT, code, message);
    match refused {
        Refused::Busy => conflict(
            "consumer_busy",
            format!(
                "Somebody reads {name} already; wait until that ends, or make a second consumer with PUT /consumers/<another name>, which gets the same events."
            ),
        ),
        Refused::Over(Over::Taken | Over::Left) => conflict(
            "consumer_taken",
            format!("A newer reader of {name} took over; no more events of it come here."),
        ),
        Refused::Over(Over::Changed) => conflict(
            "consumer_changed",
            format!("{name} is defined differently now, or begins elsewhere; read it anew."),
        ),
        Refused::Over(Over::Gone) => ApiError::new(
            StatusCode::GONE,
            "consumer_gone",
            format!("{name} was deleted."),
        ),
    }
}
