//! `subscribe_consumer`, `unsubscribe_consumer`, `ack`: reading a consumer over Socket.IO.
//!
//! A reading takes over the consumer's lease first, so that whoever had it is given nothing more;
//! then its reader begins where the consumer does. What ends it is told in place of the next event,
//! and what its client acknowledges afterwards is refused with the same.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::answers::{CaughtUp, ErrorEvent, SubscribedConsumer, UnsubscribedConsumer};
use super::backend::OwnConsumers;
use super::client::packet;
use super::{Call, SocketServices};
use crate::api::rest::consumers::acknowledge;
use crate::api::rest::events::ONE_READER;
use crate::api::rest::reading::begin_of;
use crate::consumers::{Consumer, EndReason, Lease, LeaseId, consumer_name};
use crate::events::{PageError, Reader};
use crate::reads::{Reads, run_detached};
use crate::socketio::{Ack, Encoded};
use crate::wire::json::ServerEvent;
use crate::wire::request::Request;
use crate::wire::{ApiError, cursor};

/// `subscribe_consumer`
#[derive(Debug, Deserialize, JsonSchema)]
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
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnsubscribeConsumer {
    consumer: String,
}

impl Request for UnsubscribeConsumer {
    const EXAMPLE: &'static str = "{\"consumer\": \"<name>\"}";
}

/// `ack`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AckEvent {
    consumer: String,
    /// Of the last event that is done.
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
        let OwnConsumers { consumers, reads } = self.services.backend.consumers()?;
        let consumer = consumers.get(consumer_name(&name)?)?;
        let client = self.client()?;
        client.may_read(&name)?;
        let lease = consumer.leases.take_over();
        let lease = lease.map_err(|reason| reason.error(&name))?;
        let SocketServices { log, dispatch, .. } = &*self.services;
        let (shape, from) = begin_reading(reads, &consumer).await?;
        let mut reader = Reader::of_selection(log, dispatch, consumer.filter.clone(), from);
        reader.follow().await.map_err(|_| ApiError::stopping())?;
        let head = log.head().max(from);
        reader.put(head, caught_up(&name, reads.encoder.cursor(head))?);
        client.answer(&shape, ack.take())?;
        client.read_consumer(ConsumerReading::new(reads, consumer, lease, reader));
        Ok(())
    }

    pub(super) fn unsubscribe_consumer(
        &self,
        asked: UnsubscribeConsumer,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        self.services.backend.consumers()?;
        let (consumer, client) = (asked.consumer, self.client()?);
        consumer_name(&consumer)?;
        client.leave_consumer(&consumer);
        let message = format!("No more events of {consumer} come here; it stays where it is.");
        client.answer(&UnsubscribedConsumer { consumer, message }, ack.take())
    }

    pub(super) async fn acknowledge(
        &self,
        asked: AckEvent,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let OwnConsumers { consumers, reads } = self.services.backend.consumers()?;
        let name = consumer_name(&asked.consumer)?;
        // Who reads it, or did, acknowledges what it was when that began.
        let (consumer, lease) = match self.client()?.acknowledges(name) {
            Some((consumer, lease)) => (consumer, Some(lease)),
            None => (consumers.get(name)?, None),
        };
        let acked = acknowledge(reads, &consumer, lease, &asked.cursor).await?;
        let acked = acked.map_err(|reason| reason.error(name))?;
        self.client()?.answer(&acked, ack.take())
    }
}

/// The event `subscribed_consumer`, and where the reading begins.
async fn begin_reading(
    reads: &Reads,
    consumer: &Arc<Consumer>,
) -> Result<(SubscribedConsumer, u64), ApiError> {
    // Why it does not begin where the consumer stands.
    let (problem, restart, unread, from) = match begin_of(reads, consumer).await {
        Ok(unread) => (None, None, unread, unread.after),
        Err(ApiError {
            restart: Some(restart),
            message,
            code,
            ..
        }) => {
            let from = cursor::read(&reads.encoder.starts(), &restart.cursor);
            let from = from.map_err(|_| ApiError::internal(&"our own cursor is not known"))?;
            let unread = consumer.unread().await?;
            (Some((message, code)), Some(restart), unread, from)
        }
        Err(error) => return Err(error),
    };
    let (cursor, first, balances) = match restart {
        Some(restart) => (restart.cursor, Some(restart.first), restart.balances),
        // As of that look: what is acknowledged since is told all the same.
        None => (reads.encoder.cursor(unread.acked), None, None),
    };
    let (error, code) = problem.unzip();
    let shape = SubscribedConsumer {
        consumer: consumer.name.clone(),
        message: format!(
            "Reading {}; acknowledge with the event ack {{\"consumer\", \"cursor\"}}.",
            consumer.name
        ),
        cursor,
        head: reads.encoder.cursor(unread.head),
        lag: match error {
            Some(_) => {
                let skipped = reads.encoder.starts().skipped(from, unread.head);
                unread.head.saturating_sub(from).saturating_sub(skipped)
            }
            None => unread.lag(),
        },
        error,
        code,
        first,
        balances,
    };
    Ok((shape, from))
}

/// The end of what had happened when the reading began.
fn caught_up(consumer: &str, cursor: String) -> Result<Encoded, ApiError> {
    let consumer = consumer.to_owned();
    Ok(CaughtUp::Consumer { consumer, cursor }.encode()?)
}

type Begins = Pin<Box<dyn Future<Output = Result<u64, ApiError>> + Send>>;

/// A consumer that is read, or was: its client still acknowledges what it got.
pub struct ConsumerReading {
    consumer: Arc<Consumer>,
    lease: LeaseId,
    /// `None` once it has ended.
    active: Option<Box<ActiveReading>>,
}

struct ActiveReading {
    reads: Reads,
    lease: Lease,
    reader: Reader<Encoded>,
    /// Comes when the lease ends.
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Retention has overtaken the reader: where it goes on, or that it has missed something.
    begins: Option<Begins>,
}

impl ConsumerReading {
    fn new(reads: &Reads, consumer: Arc<Consumer>, lease: Lease, reader: Reader<Encoded>) -> Self {
        Self {
            consumer,
            lease: lease.id(),
            active: Some(Box::new(ActiveReading {
                reads: reads.clone(),
                end: Box::pin(lease.ended()),
                lease,
                reader,
                begins: None,
            })),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.consumer.name
    }

    /// The name of what it reads; `None` once it has ended.
    pub(super) fn reads(&self) -> Option<&str> {
        self.active.as_ref().map(|_| self.name())
    }

    /// What its client acknowledges, and the lease under which it read that.
    pub(super) fn acknowledges(&self) -> (Arc<Consumer>, LeaseId) {
        (self.consumer.clone(), self.lease)
    }

    /// Its client wants no more.
    pub(super) fn leave(&mut self) {
        self.active = None;
    }

    /// The next packet. Once it has ended and the client knows why, there is none.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Encoded> {
        let Some(active) = &mut self.active else {
            return Poll::Pending;
        };
        match std::task::ready!(active.poll_next(&self.consumer, cx)) {
            Ok(packet) => Poll::Ready(packet),
            Err(error) => self.end_with(error),
        }
    }

    /// Says why, and nothing more after it.
    fn end_with(&mut self, error: ApiError) -> Poll<Encoded> {
        self.leave();
        let consumer = Some(self.consumer.name.clone());
        // Cannot fail: it is our own JSON under our own name.
        let said = ErrorEvent { error, consumer }.encode();
        said.map_or(Poll::Pending, Poll::Ready)
    }
}

impl ActiveReading {
    /// The next packet, or why the reading ends.
    fn poll_next(
        &mut self,
        consumer: &Arc<Consumer>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Encoded, ApiError>> {
        let ended = |reason: EndReason| Poll::Ready(Err(reason.error(&consumer.name)));
        loop {
            // A reading that has ended is given nothing more, however late it notices.
            let _ = self.end.as_mut().poll(cx);
            if let Some(reason) = self.lease.has_ended() {
                return ended(reason);
            }
            if let Some(begins) = &mut self.begins {
                // An error: the client was too slow for retention; it says where to go on.
                let after = std::task::ready!(begins.as_mut().poll(cx))?;
                if after <= self.reader.place() {
                    let what = "events that are kept were not found";
                    return Poll::Ready(Err(ApiError::internal(&what)));
                }
                self.reader.skip_to(after);
                self.begins = None;
            }
            let reader = &mut self.reader;
            let given = match self.lease.unless_ended(|| reader.poll_next(cx)) {
                Ok(given) => std::task::ready!(given),
                Err(reason) => return ended(reason),
            };
            match given {
                Ok(given) => match packet(given, &self.reads.encoder) {
                    Ok(Some(packet)) => return Poll::Ready(Ok(packet)),
                    Ok(None) => {}
                    Err(cause) => return Poll::Ready(Err(cause.into())),
                },
                Err(PageError::Expired) => {
                    let (reads, consumer) = (self.reads.clone(), consumer.clone());
                    let begins = async move { Ok(begin_of(&reads, &consumer).await?.after) };
                    // Also when the session does not ask for more for long.
                    self.begins = Some(Box::pin(run_detached(begins)));
                }
                Err(cause) => return Poll::Ready(Err(cause.into())),
            }
        }
    }
}

pub(super) fn alone(name: &str) -> ApiError {
    let message = format!(
        "A connection reads one consumer ({name}) or has subscriptions of its own, not both; end the one first, or use another connection."
    );
    ApiError::new(StatusCode::CONFLICT, "consumer_alone", message)
}
