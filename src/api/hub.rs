//! The hub: one task that owns all subscriptions and moves events from the log to the sockets.
//!
//! # Laws
//!
//! 1. The head that wakes it carries no events; it reads them from the log, in the order of their numbers, up to that head.
//! 2. An event is encoded once, and only if somebody listens; each subscriber gets the same bytes.
//! 3. Nothing here waits for a client. A socket whose queue is full is closed at once and hears nothing more on that session, so
//!    that what it got is without a gap; it comes back with its last cursor.
//! 4. `seen` is the number up to which live subscribers have been told. Who joins says from which number on events are owed to it:
//!    later ones than `seen` first go to the others, those up to `seen` it gets from the log, and from then on it is live.
//!    All of that happens between two events, so none is missing and none comes twice.
//!
//! # A subscription, step by step (`super::live` does 2 and 3, which may take long, outside of this task)
//!
//! ```text
//! 1 pause     is there room for it; topics that the socket already hears are taken off, told up to `seen` = p
//! 2           watch the scripts; snapshot of the store at head h >= p: the answer with balance and cursor h
//! 3           events (p, h] of the topics taken off, so that subscribing again loses nothing
//! 4 join      send 3, the answer, the events (h, seen]; live from `seen` on
//! ```

use std::collections::HashSet;
use std::sync::Arc;

use bitcoin::Network;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::cursor::Cursor;
use super::error::ApiError;
use super::json;
use super::subscriptions::{Subscriptions, Topic};
use crate::socketio::{Ack, CloseReason, Encoded, SendError, Socket};
use crate::store::{Reader, StoreError};
use crate::tracker::Event;

/// The only namespace.
pub const NAMESPACE: &str = "/";
/// Events read from the log at a time.
pub const PAGE: usize = 1000;
const COMMANDS: usize = 1024;

/// An event and its acknowledgement, which carries the same object.
pub struct Reply {
    pub name: &'static str,
    pub json: String,
    pub ack: Option<Ack>,
}

impl Reply {
    pub fn send(self, socket: &Socket) -> Result<(), SendError> {
        socket.send(&Encoded::event_raw(NAMESPACE, self.name, &self.json)?)?;
        match self.ack {
            None => Ok(()),
            Some(ack) => ack.send(&RawValue::from_string(self.json).map_err(crate::socketio::EncodeError::from)?),
        }
    }
}

/// Step 4 of a subscription.
pub struct Join {
    pub socket: Socket,
    pub topics: Vec<Topic>,
    /// Events after this number are owed to the socket.
    pub from: u64,
    /// Sent before the reply.
    pub before: Vec<Encoded>,
    pub reply: Option<Reply>,
    /// Sent when nothing is owed any more, with the cursor added: the end of a replay.
    pub caught_up: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Step 1 of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    /// The topics that were live until now.
    pub live: Vec<Topic>,
    /// They were told up to this number.
    pub seen: u64,
}

/// What `/status` shows of the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub subscribers: usize,
    pub subscriptions: usize,
    /// Live subscribers have been told up to this number.
    pub seen: u64,
}

enum Command {
    Pause { id: String, topics: Vec<Topic>, answer: oneshot::Sender<Result<Paused, ApiError>> },
    Join { join: Box<Join>, done: oneshot::Sender<()> },
    Unsubscribe { socket: Socket, topic: Topic, reply: Reply, done: oneshot::Sender<()> },
    Leave { id: String },
    Counts { answer: oneshot::Sender<Counts> },
}

/// Commands to the hub. Each call is answered when the hub has done it.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

impl Handle {
    pub async fn pause(&self, id: &str, topics: Vec<Topic>) -> Result<Paused, ApiError> {
        self.ask(|answer| Command::Pause { id: id.to_owned(), topics, answer }).await?
    }

    pub async fn join(&self, join: Join) -> Result<(), ApiError> {
        self.ask(|done| Command::Join { join: Box::new(join), done }).await
    }

    pub async fn unsubscribe(&self, socket: &Socket, topic: Topic, reply: Reply) -> Result<(), ApiError> {
        self.ask(|done| Command::Unsubscribe { socket: socket.clone(), topic, reply, done }).await
    }

    pub async fn counts(&self) -> Result<Counts, ApiError> {
        self.ask(|answer| Command::Counts { answer }).await
    }

    /// The socket is gone. Does not wait.
    pub fn leave(&self, id: &str) {
        let Err(mpsc::error::TrySendError::Full(command)) = self.commands.try_send(Command::Leave { id: id.to_owned() }) else { return };
        let commands = self.commands.clone();
        // A stopped hub has no subscriptions to clean up.
        tokio::spawn(async move { drop(commands.send(command).await) });
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| ApiError::stopping())?;
        answered.await.map_err(|_| ApiError::stopping())
    }
}

/// How events look on the wire here: the log's id and the network are part of every one.
#[derive(Debug, Clone)]
pub struct Wire {
    pub log: Arc<str>,
    pub network: Network,
}

impl Wire {
    pub fn cursor(&self, number: u64) -> String {
        Cursor { log: &self.log, number }.to_string()
    }

    /// The event as every subscriber gets it.
    pub fn encode(&self, number: u64, event: &Event) -> Result<Encoded, SendError> {
        let (name, json) = json::event(event, self.cursor(number), self.network);
        Ok(Encoded::event_raw(NAMESPACE, name, &json)?)
    }
}

pub struct Hub {
    reader: Reader,
    wire: Wire,
    head: watch::Receiver<u64>,
    commands: mpsc::Receiver<Command>,
    subscriptions: Subscriptions<Socket>,
    /// Every live subscriber has been told up to this number.
    seen: u64,
    /// Subscriptions that one socket may have.
    limit: usize,
}

impl Hub {
    /// `head` wakes it up; `limit`: subscriptions of one socket.
    pub fn new(reader: Reader, wire: Wire, head: watch::Receiver<u64>, limit: usize) -> (Self, Handle) {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let seen = *head.borrow();
        (Self { reader, wire, head, commands, subscriptions: Subscriptions::default(), seen, limit }, Handle { commands: sender })
    }

    /// Runs until `stop`, the end of the indexer, or a store that cannot be read.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), StoreError> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                woken = self.head.changed() => {
                    if woken.is_err() {
                        return Ok(());
                    }
                    let head = *self.head.borrow_and_update();
                    while self.seen < head {
                        self.deliver_page(head)?;
                        tokio::task::yield_now().await;
                    }
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command)?,
                    None => return Ok(()),
                },
            }
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), StoreError> {
        // An answer that nobody waits for any more is not needed: its client has left.
        match command {
            Command::Pause { id, topics, answer } => {
                let _ = answer.send(self.pause(&id, topics));
            }
            Command::Join { join, done } => {
                self.join(*join)?;
                let _ = done.send(());
            }
            Command::Unsubscribe { socket, topic, reply, done } => {
                self.subscriptions.remove(socket.id(), &topic);
                if !sent(&socket, reply.send(&socket)) {
                    self.subscriptions.leave(socket.id());
                }
                let _ = done.send(());
            }
            Command::Leave { id } => self.subscriptions.leave(&id),
            Command::Counts { answer } => {
                let (subscribers, subscriptions) = (self.subscriptions.members(), self.subscriptions.count());
                let counts = Counts { subscribers, subscriptions, seen: self.seen };
                let _ = answer.send(counts);
            }
        }
        Ok(())
    }

    fn pause(&mut self, id: &str, topics: Vec<Topic>) -> Result<Paused, ApiError> {
        let (live, new): (Vec<_>, Vec<_>) = topics.into_iter().partition(|topic| self.subscriptions.contains(id, topic));
        if self.subscriptions.count_of(id).saturating_add(new.len()) > self.limit {
            let message = format!(
                "One client may subscribe to at most {} addresses (limits.subscriptions); unsubscribe from some, or use another connection.",
                self.limit
            );
            return Err(ApiError::bad_request("too_many_subscriptions", message));
        }
        for topic in &live {
            self.subscriptions.remove(id, topic);
        }
        Ok(Paused { live, seen: self.seen })
    }

    fn join(&mut self, join: Join) -> Result<(), StoreError> {
        while self.seen < join.from {
            self.deliver_page(join.from)?;
        }
        let owed = events_between(&self.reader, &self.wire, join.from, self.seen, &join.topics)?;
        let Join { socket, topics, before, reply, caught_up, .. } = join;
        let cursor = self.wire.cursor(self.seen);
        let send = || {
            before.iter().try_for_each(|event| socket.send(event))?;
            reply.map_or(Ok(()), |reply| reply.send(&socket))?;
            owed.iter().try_for_each(|event| socket.send(event))?;
            let Some(mut object) = caught_up else { return Ok(()) };
            object.insert("cursor".to_owned(), cursor.into());
            socket.emit("caught_up", &object)
        };
        if sent(&socket, send()) {
            let id = socket.id().to_owned();
            self.subscriptions.add(&id, socket, topics);
        } else {
            self.subscriptions.leave(socket.id());
        }
        Ok(())
    }

    /// Tells live subscribers the next events, at most a page and none after `head`.
    fn deliver_page(&mut self, head: u64) -> Result<(), StoreError> {
        if self.subscriptions.is_empty() {
            self.seen = head;
            return Ok(());
        }
        let events = self.reader.read_events(self.seen, PAGE)?;
        let last = events.len() < PAGE;
        for (number, event) in events {
            if number > head {
                self.seen = head;
                return Ok(());
            }
            self.deliver(number, &event);
            self.seen = number;
        }
        if last {
            // Numbers may be skipped: none of those up to the head is left.
            self.seen = head;
        }
        Ok(())
    }

    fn deliver(&mut self, number: u64, event: &Event) {
        let topic = Topic::of(&event.kind);
        if !self.subscriptions.listens(&topic) {
            return;
        }
        match self.wire.encode(number, event) {
            Ok(encoded) => self.subscriptions.tell(&topic, |socket| sent(socket, socket.send(&encoded))),
            // Our own JSON under our own names: cannot happen, and must not stop the others if it does.
            Err(cause) => tracing::error!(number, %cause, "an event could not be encoded"),
        }
    }
}

/// The events of `topics` after `from` and up to `to`.
pub fn events_between(reader: &Reader, wire: &Wire, from: u64, to: u64, topics: &[Topic]) -> Result<Vec<Encoded>, StoreError> {
    let mut found = Vec::new();
    if from >= to || topics.is_empty() {
        return Ok(found);
    }
    let topics: HashSet<&Topic> = topics.iter().collect();
    let mut after = from;
    loop {
        let events = reader.read_events(after, PAGE)?;
        let more = events.len() == PAGE;
        for (number, event) in events {
            if number > to {
                return Ok(found);
            }
            after = number;
            if topics.contains(&Topic::of(&event.kind)) {
                found.extend(wire.encode(number, &event).ok());
            }
        }
        if !more {
            return Ok(found);
        }
    }
}

/// True if it was sent. A client that does not keep up is closed: it would have a gap otherwise.
fn sent(socket: &Socket, result: Result<(), SendError>) -> bool {
    match result {
        Ok(()) => true,
        Err(SendError::Closed) => false,
        Err(cause) => {
            tracing::info!(id = socket.id(), %cause, "closing a client");
            socket.close(CloseReason::SlowConsumer);
            false
        }
    }
}
