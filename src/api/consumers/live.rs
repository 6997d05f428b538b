//! Consumers over Socket.IO: reading one, ending that, and acknowledging.
//!
//! # A reading, step by step
//!
//! ```text
//! 1 seat     who reads it has to go: from now on nothing is sent to it any more
//! 2 reply    `subscribed_consumer` with the place that the reading begins at
//! 3 task     reads the log on from there at the client's pace; at its end once `caught_up`, and
//!            then with every commit
//! 4 end      the task tells why, unless the client knows; whoever waits for the next reading of
//!            this socket waits for that
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::name::consumer_name;
use super::readers::{Over, Reading, Refused, Seat, Wish};
use super::{Consumer, Registry};
use crate::api::App;
use crate::api::error::ApiError;
use crate::api::events::ONE_READER;
use crate::api::hub::{NAMESPACE, PageError};
use crate::api::json::{self, Balance};
use crate::api::replay::{self, Room};
use crate::api::request::Request;
use crate::socketio::{Ack, Encoded, SendError, Socket};

/// The sockets that read a consumer, by their keys.
#[derive(Debug, Default)]
pub struct Sockets(Mutex<HashMap<u64, Open>>);

#[derive(Debug, Clone)]
struct Open {
    name: String,
    seat: Arc<Seat>,
    /// The task has said its last word.
    done: CancellationToken,
}

impl Sockets {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this socket reads, if it still does.
    fn reads(&self, socket: &Socket) -> Option<String> {
        self.lock()
            .get(&socket.key())
            .filter(|open| open.seat.is_over().is_none())
            .map(|open| open.name.clone())
    }

    /// Ends what this socket reads; to be waited for.
    fn end(&self, socket: &Socket) -> Option<CancellationToken> {
        let open = self.lock().get(&socket.key()).cloned()?;
        open.seat.end(Over::Left);
        Some(open.done)
    }

    fn remove(&self, socket: &Socket, seat: &Arc<Seat>) {
        let mut sockets = self.lock();
        if sockets
            .get(&socket.key())
            .is_some_and(|open| Arc::ptr_eq(&open.seat, seat))
        {
            sockets.remove(&socket.key());
        }
    }
}

impl Registry {
    /// Refuses what a socket that reads a consumer may not do.
    pub fn check_not_reading(&self, socket: &Socket) -> Result<(), ApiError> {
        self.sockets
            .reads(socket)
            .map_or(Ok(()), |name| Err(alone(&name)))
    }

    /// The socket is gone.
    pub fn socket_left(&self, socket: &Socket) {
        self.sockets.end(socket);
    }
}

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

impl App {
    /// `subscribe_consumer`
    pub(in crate::api) async fn subscribe_consumer(
        self: &Arc<Self>,
        socket: &Socket,
        asked: SubscribeConsumer,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let name = asked.consumer;
        let consumer = self.consumers.get(consumer_name(&name)?)?;
        if let Some(other) = self
            .consumers
            .sockets
            .reads(socket)
            .filter(|other| *other != name)
        {
            return Err(alone(&other));
        }
        if self.hub.subscriptions_of(socket).await? > 0 {
            return Err(alone(&name));
        }
        if let Some(done) = self.consumers.sockets.end(socket) {
            done.cancelled().await;
        }
        let reading = consumer
            .readers
            .begin(Wish::TakeOver)
            .map_err(|refused| over(&name, refused))?;
        let described = consumer.clone();
        let (json, from) = self.read(move |app| app.begin_reading(&described)).await?;
        if !reply(socket, "subscribed_consumer", json, ack).await {
            return Ok(());
        }
        let (done, seat) = (CancellationToken::new(), reading.seat.clone());
        let open = Open {
            name,
            seat: seat.clone(),
            done: done.clone(),
        };
        self.consumers.sockets.lock().insert(socket.key(), open);
        if socket.is_closed() {
            // Nobody may have been there to be told of that.
            seat.end(Over::Left);
        }
        let reader = Reader {
            app: self.clone(),
            socket: socket.clone(),
            consumer,
            reading,
            from,
            _done: done.drop_guard(),
        };
        tokio::spawn(reader.run());
        Ok(())
    }

    /// Where a reading begins, and how the reader is told.
    fn begin_reading(&self, consumer: &Arc<Consumer>) -> Result<(String, u64), ApiError> {
        let lag = self.lag_of(consumer)?;
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

    /// `unsubscribe_consumer`
    pub(in crate::api) async fn unsubscribe_consumer(
        self: &Arc<Self>,
        socket: &Socket,
        asked: UnsubscribeConsumer,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        #[derive(Serialize)]
        struct Unsubscribed {
            consumer: String,
            message: String,
        }
        let consumer = asked.consumer;
        consumer_name(&consumer)?;
        if self
            .consumers
            .sockets
            .reads(socket)
            .is_some_and(|name| name == consumer)
            && let Some(done) = self.consumers.sockets.end(socket)
        {
            done.cancelled().await;
        }
        let message = format!("No more events of {consumer} come here; it stays where it is.");
        reply(
            socket,
            "unsubscribed_consumer",
            json::to_text(&Unsubscribed { consumer, message }),
            ack,
        )
        .await;
        Ok(())
    }

    /// `ack`
    pub(in crate::api) async fn ack_event(
        self: &Arc<Self>,
        socket: &Socket,
        asked: AckEvent,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let name = consumer_name(&asked.consumer)?;
        let acked = self.acknowledge(name, &asked.cursor).await?;
        reply(socket, "acked", json::to_text(&acked), ack).await;
        Ok(())
    }
}

/// Sends an event and the acknowledgement behind it, when there is room. False when the client has
/// left.
async fn reply(socket: &Socket, name: &'static str, json: String, ack: &mut Option<Ack>) -> bool {
    let Ok(event) = Encoded::event_raw(NAMESPACE, name, &json) else {
        return false;
    };
    if !replay::send(socket, &event).await {
        return false;
    }
    let Ok(data) = serde_json::value::RawValue::from_string(json) else {
        return false;
    };
    let (mut left, mut wanted) = (ack.take(), Room::Quarter);
    while let Some(ack) = left.take() {
        match ack.try_send(&data) {
            Ok(()) => {}
            Err((SendError::Full, ack))
                if replay::room(socket, std::mem::replace(&mut wanted, Room::Empty)).await =>
            {
                left = Some(ack)
            }
            Err(_) => return false,
        }
    }
    true
}

fn alone(name: &str) -> ApiError {
    let message = format!(
        "A connection reads one consumer ({name}) or has subscriptions of its own, not both; end the one first, or use another connection."
    );
    ApiError::new(StatusCode::CONFLICT, "consumer_alone", message)
}

/// Why somebody does not read (any more).
pub(super) fn over(name: &str, refused: Refused) -> ApiError {
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

/// Step 3 and 4 of a reading.
struct Reader {
    app: Arc<App>,
    socket: Socket,
    consumer: Arc<Consumer>,
    reading: Reading,
    /// Events up to this one are sent.
    from: u64,
    _done: DropGuard,
}

/// Why a reading ended.
enum End {
    Over(Over),
    /// The client has left, or the daemon stops.
    Silent,
    Failed(ApiError),
}

impl Reader {
    async fn run(mut self) {
        let error = match self.read_on().await {
            End::Silent | End::Over(Over::Left) => None,
            End::Over(why) => Some(over(&self.consumer.name, Refused::Over(why))),
            End::Failed(error) => Some(error),
        };
        self.reading.seat.end(Over::Left);
        if let Some(event) = error.and_then(|error| self.farewell(&error)) {
            replay::send(&self.socket, &event).await;
        }
        self.app
            .consumers
            .sockets
            .remove(&self.socket, &self.reading.seat);
    }

    fn farewell(&self, error: &ApiError) -> Option<Encoded> {
        #[derive(Serialize)]
        struct Farewell<'a> {
            #[serde(flatten)]
            error: &'a ApiError,
            consumer: &'a str,
        }
        Encoded::event(
            NAMESPACE,
            "error",
            &Farewell {
                error,
                consumer: &self.consumer.name,
            },
        )
        .ok()
    }

    async fn read_on(&mut self) -> End {
        let (mut head, mut is_live) = (self.app.indexer.head(), false);
        loop {
            let step = if *head.borrow_and_update() > self.from {
                self.tell_page().await
            } else if !is_live {
                is_live = true;
                self.caught_up().await
            } else {
                self.more(&mut head).await
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Waits for the next commit.
    async fn more(&self, head: &mut watch::Receiver<u64>) -> Result<(), End> {
        tokio::select! {
            biased;
            () = self.reading.seat.ended() => self.is_on(),
            () = self.app.stop.cancelled() => Err(End::Silent),
            woken = head.changed() => woken.map_err(|_| End::Silent),
        }
    }

    fn is_on(&self) -> Result<(), End> {
        self.reading.seat.unless_over(|| ()).map_err(End::Over)
    }

    /// Sends what is wanted of the next page of the log, up to the first event that there is no
    /// room for; waits for that without the page.
    async fn tell_page(&mut self) -> Result<(), End> {
        self.is_on()?;
        let page = match self.app.hub.pages.page(self.from).await {
            Ok(page) => page,
            Err(PageError::Stopped) => return Err(End::Silent),
            // The client was too slow for retention; this error says where to go on.
            Err(PageError::Expired) => {
                return Err(self
                    .app
                    .check_place(self.from, &self.consumer)
                    .map_or_else(End::Failed, |()| End::Silent));
            }
            Err(cause) => return Err(End::Failed(cause.into())),
        };
        let mut waiting = None;
        for entry in page.after(self.from) {
            if self.consumer.wants_topic(&entry.topic) {
                let event = entry.encoded(&self.app.wire).ok_or_else(not_encoded)?;
                if !self.offer(event)? {
                    waiting = Some((entry.number, event.clone()));
                    break;
                }
            }
            self.from = entry.number;
        }
        let next = page.next;
        drop(page);
        match waiting {
            None => self.from = self.from.max(next),
            Some((number, event)) => {
                self.send(&event).await?;
                self.from = number;
            }
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn caught_up(&self) -> Result<(), End> {
        #[derive(Serialize)]
        struct CaughtUp<'a> {
            consumer: &'a str,
            cursor: String,
        }
        let shape = CaughtUp {
            consumer: &self.consumer.name,
            cursor: self.app.wire.cursor(self.from),
        };
        let event = Encoded::event(NAMESPACE, "caught_up", &shape).map_err(|_| not_encoded())?;
        self.send(&event).await
    }

    /// Waits for room, and sends unless the reading is over then.
    async fn send(&self, event: &Encoded) -> Result<(), End> {
        let mut wanted = Room::Quarter;
        while !self.offer(event)? {
            let is_there = tokio::select! {
                biased;
                () = self.reading.seat.ended() => true,
                is_there = replay::room(&self.socket, std::mem::replace(&mut wanted, Room::Empty)) => is_there,
            };
            if !is_there {
                return Err(End::Silent);
            }
        }
        Ok(())
    }

    /// Sends unless the reading is over; `false` when there is no room.
    fn offer(&self, event: &Encoded) -> Result<bool, End> {
        match self
            .reading
            .seat
            .unless_over(|| replay::offer(&self.socket, event))
            .map_err(End::Over)?
        {
            Ok(()) => Ok(true),
            Err(SendError::Full) => Ok(false),
            Err(SendError::Closed) => Err(End::Silent),
            Err(SendError::Encode(_)) => Err(not_encoded()),
        }
    }
}

/// Cannot happen: it is our own JSON under our own names.
fn not_encoded() -> End {
    End::Failed(ApiError::internal(&"an event could not be encoded"))
}
