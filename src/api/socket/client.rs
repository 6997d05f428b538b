//! What is kept for a client: its readers, and the answers that have a place among the events.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use serde_json::value::RawValue;

use super::SocketServices;
use super::answers::{CaughtUp, ErrorEvent, Lagged};
use super::backend::Admitted;
use super::consumers::ConsumerReading;
use crate::auth::{Scope, Waits};
use crate::consumers::{Consumer, LeaseId};
use crate::events::{Given, PageError, Reader, Registration, Topic};
use crate::limits::Held;
use crate::socketio::{Ack, EncodeError, Encoded};
use crate::wire::json::{ServerEvent, to_raw};
use crate::wire::{ApiError, EventEncoder, NAMESPACE};

/// Answers that may wait for a client before no more of its packets are taken, and their bytes.
const WAITING: usize = 32;
const WAITING_BYTES: usize = 64 << 10;

/// Readings of other consumers that are remembered for a client.
const FORMER: usize = 64;

/// Kept with the client's socket.
pub struct Client {
    pub admitted: Admitted,
    /// `None` once it has left.
    state: Mutex<Option<ClientState>>,
}

struct ClientState {
    /// Comes when its principal is let in no longer.
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    reader: Reader<Encoded>,
    /// Those of its reader.
    subscriptions: Held,
    /// Of the answers that wait in it.
    bytes: usize,
    consumer: Option<ConsumerReading>,
    /// What it read before, of other consumers; the newest last.
    former: VecDeque<ConsumerReading>,
}

impl ClientState {
    fn read_consumer(&mut self, reading: ConsumerReading) {
        if let Some(mut before) = self.consumer.take() {
            before.leave();
            self.former.push_back(before);
        }
        self.former.retain(|it| it.name() != reading.name());
        if self.former.len() > FORMER {
            self.former.pop_front();
        }
        self.consumer = Some(reading);
    }

    fn put(&mut self, at: u64, answer: Encoded) {
        self.bytes += answer.bytes();
        self.reader.put(at, answer);
    }
}

/// An event and its acknowledgement, which carries the same object: the packets, in order.
pub fn packets<E: ServerEvent>(event: &E, ack: Option<Ack>) -> Result<Vec<Encoded>, EncodeError> {
    written_packets(E::NAME, &to_raw(event), ack)
}

/// The same of an event that is written already.
pub fn written_packets(
    name: &str,
    json: &RawValue,
    ack: Option<Ack>,
) -> Result<Vec<Encoded>, EncodeError> {
    let mut packets = vec![Encoded::event_raw(NAMESPACE, name, json.get())?];
    if let Some(ack) = ack {
        packets.push(ack.into_packet(json)?);
    }
    Ok(packets)
}

/// Why nothing more can be given.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Page(#[from] PageError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl Client {
    pub fn new(services: &SocketServices, admitted: Admitted) -> Self {
        let reader = Reader::of_topics(&services.log, &services.dispatch);
        let ended = Box::pin(admitted.principal.ended(Waits::Session));
        Self {
            admitted,
            state: Mutex::new(Some(ClientState {
                ended,
                reader,
                subscriptions: services.subscriptions.in_all.none(),
                bytes: 0,
                consumer: None,
                former: VecDeque::new(),
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<ClientState>> {
        // No call under the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the state, unless the client has left.
    fn with<T>(&self, act: impl FnOnce(&mut ClientState) -> T) -> Option<T> {
        self.lock().as_mut().map(act)
    }

    /// The client has left: nothing is read for it any more.
    pub fn leave(&self) {
        // Dropped behind the lock.
        let _state = self.lock().take();
    }

    pub fn is_full(&self) -> bool {
        self.with(|state| state.reader.waiting() > WAITING || state.bytes > WAITING_BYTES)
            .unwrap_or_default()
    }

    /// An answer, given next.
    pub fn answer<E: ServerEvent>(&self, event: &E, ack: Option<Ack>) -> Result<(), ApiError> {
        let packets = packets(event, ack)?;
        self.with(|state| {
            let place = state.reader.place();
            packets
                .into_iter()
                .for_each(|packet| state.put(place, packet));
        });
        Ok(())
    }

    /// Its place with dispatch, and those of the topics that it does not have yet; refused when it
    /// may not have so many.
    pub fn may_subscribe(
        &self,
        topics: &[Topic],
        limit: usize,
    ) -> Result<(Arc<Registration>, Vec<Topic>), ApiError> {
        let answer = self.with(|state| {
            if let Some(reading) = state.consumer.as_ref().and_then(ConsumerReading::reads) {
                return Err(super::consumers::alone(reading));
            }
            let new = topics.iter().filter(|topic| !state.reader.holds(topic));
            let new: Vec<Topic> = new.copied().collect();
            if !new.is_empty() && state.reader.count_with(topics) > limit {
                let message = format!(
                    "One connection may have at most {limit} subscriptions (limits.subscriptions); unsubscribe from some, or use another connection."
                );
                let error = ApiError::bad_request("too_many_subscriptions", message);
                return Err(error.of_limit("subscriptions"));
            }
            Ok((state.reader.registration().clone(), new))
        });
        answer.unwrap_or_else(|| Err(ApiError::stopping()))
    }

    /// Adds topics and their answers to what is read; `caught_up` with its place. `held`: for those
    /// that it did not have.
    pub fn subscribe(
        &self,
        topics: &[Topic],
        held: Held,
        from: SubscriptionStart,
        reply: Vec<Encoded>,
    ) {
        self.with(|state| {
            state.subscriptions.add(held);
            let is_replay = from.caught_up.is_some();
            state.reader.subscribe(topics, from.number, is_replay);
            for packet in reply {
                state.put(from.number, packet);
            }
            if let Some((head, packet)) = from.caught_up {
                state.put(head, packet);
            }
        });
    }

    pub fn unsubscribe(&self, topic: &Topic, reply: Vec<Encoded>) {
        self.with(|state| {
            if state.reader.holds(topic) {
                state.subscriptions.give_back(1);
            }
            state.reader.unsubscribe(topic);
            for packet in reply {
                state.bytes += packet.bytes();
                state.reader.put_last(packet);
            }
        });
    }

    /// Lets go of the consumer with this name if it reads it; refused when it reads another, or has
    /// subscriptions of its own.
    pub fn may_read(&self, name: &str) -> Result<(), ApiError> {
        let answer = self.with(|state| {
            let reads = state.consumer.as_ref().and_then(ConsumerReading::reads);
            if let Some(other) = reads.filter(|other| *other != name) {
                return Err(super::consumers::alone(other));
            }
            if state.reader.count_with(&[]) > 0 {
                return Err(super::consumers::alone(name));
            }
            Ok(())
        });
        answer.unwrap_or_else(|| Err(ApiError::stopping()))?;
        self.leave_consumer(name);
        Ok(())
    }

    /// Another consumer to read; the one before is let go.
    pub fn read_consumer(&self, reading: ConsumerReading) {
        self.with(|state| state.read_consumer(reading));
    }

    /// No more of this consumer is read.
    pub fn leave_consumer(&self, name: &str) {
        self.with(|state| {
            let reading = state.consumer.as_mut().filter(|it| it.name() == name);
            reading.map(ConsumerReading::leave)
        });
    }

    /// What it acknowledges under this name, and the lease under which it read that, if it reads
    /// that consumer or did.
    pub fn acknowledges(&self, name: &str) -> Option<(Arc<Consumer>, LeaseId)> {
        self.with(|state| {
            let mut readings = state.consumer.iter().chain(&state.former);
            let reading = readings.find(|reading| reading.name() == name)?;
            Some(reading.acknowledges())
        })
        .flatten()
    }

    /// Ready when its principal is let in no longer: the `error` event that says why.
    pub fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Encoded> {
        if !self.admitted.principal.has_ended() {
            let end = self.with(|state| state.ended.as_mut().poll(cx));
            ready!(end.unwrap_or(Poll::Pending));
        }
        let refusal = self.admitted.principal.require(Scope::Read).err();
        let error = refusal.map_or_else(ApiError::stopping, ApiError::from);
        let event = ErrorEvent::from(error).encode();
        Poll::Ready(event.expect("an error is text and numbers"))
    }

    /// The next packet.
    pub fn poll_next(
        &self,
        services: &SocketServices,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Encoded, ReadError>> {
        if self.admitted.principal.has_ended() {
            // `poll_end`, which is asked next, says so.
            return Poll::Pending;
        }
        let mut state = self.lock();
        let Some(ClientState {
            reader,
            bytes,
            consumer,
            ..
        }) = &mut *state
        else {
            return Poll::Pending;
        };
        while let Poll::Ready(given) = reader.poll_next(cx)? {
            if let Given::Item(answer) = &given {
                *bytes = bytes.saturating_sub(answer.bytes());
            }
            if let Some(packet) = packet(given, &services.log.encoder)? {
                return Poll::Ready(Ok(packet));
            }
        }
        if let Some(reading) = consumer
            && let Poll::Ready(packet) = reading.poll_next(cx)
        {
            return Poll::Ready(Ok(packet));
        }
        Poll::Pending
    }
}

/// Where a subscription begins.
pub struct SubscriptionStart {
    /// Events after this one are wanted.
    pub number: u64,
    /// Of a replay, which reads again what lies between there and the head, also of topics that
    /// the client has: said when it has everything up to this number.
    pub caught_up: Option<(u64, Encoded)>,
}

/// What a reader gives as the client gets it.
pub fn packet(
    given: Given<Encoded>,
    encoder: &EventEncoder,
) -> Result<Option<Encoded>, EncodeError> {
    match given {
        Given::Event(event) => {
            let encoded = event.encoded(encoder);
            Ok(encoded.map(|encoded| encoded.frame().clone()))
        }
        Given::Item(packet) => Ok(Some(packet)),
        Given::Notice(notice) => Ok(Some(notice.packet)),
        Given::Lagged { place, head } => {
            let lagged = Lagged {
                cursor: encoder.cursor(place),
                head: encoder.cursor(head),
                message: "You read more slowly than events come; from this cursor on you are told from the log. Nothing is missing.",
            };
            lagged.encode().map(Some)
        }
        Given::CaughtUp { place } => {
            let caught_up = CaughtUp::Lag {
                cursor: encoder.cursor(place),
                message: "You have been told everything up to here; events come as they happen again.",
            };
            caught_up.encode().map(Some)
        }
    }
}
