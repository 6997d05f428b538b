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
//!
//! # A recoverable client
//!
//! It carries an offset (`super::recovery`), which moves with every event that the hub sends it and stands still with what others send.
//! When it is lost its topics are kept; when it comes back, `super::live` replays the log from its offset as in any replay, and
//! `rejoin` sends the rest and makes it live, between two events again.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bitcoin::Network;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::cursor::Cursor;
use super::error::ApiError;
use super::json;
use super::recovery::{self, Mark, Recoverable};
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
    fn event(&self) -> Result<Encoded, SendError> {
        Ok(Encoded::event_raw(NAMESPACE, self.name, &self.json)?)
    }

    /// The event, and the acknowledgement behind it.
    pub fn send(self, socket: &Socket) -> Result<(), SendError> {
        socket.send(&self.event()?)?;
        self.acknowledge()
    }

    fn acknowledge(self) -> Result<(), SendError> {
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
    pub before: Vec<(u64, Encoded)>,
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
    Pause { socket: Socket, topics: Vec<Topic>, answer: oneshot::Sender<Result<Paused, ApiError>> },
    Join { join: Box<Join>, done: oneshot::Sender<()> },
    Unsubscribe { socket: Socket, topic: Topic, reply: Reply, done: oneshot::Sender<()> },
    Leave { socket: Socket },
    Lost { id: String, mark: u64, answer: oneshot::Sender<Option<Vec<Topic>>> },
    Rejoin { socket: Socket, from: u64, done: oneshot::Sender<()> },
    Forget { id: String },
    Counts { answer: oneshot::Sender<Counts> },
}

/// Commands to the hub. Each call is answered when the hub has done it.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

impl Handle {
    pub async fn pause(&self, socket: &Socket, topics: Vec<Topic>) -> Result<Paused, ApiError> {
        self.ask(|answer| Command::Pause { socket: socket.clone(), topics, answer }).await?
    }

    pub async fn join(&self, join: Join) -> Result<(), ApiError> {
        self.ask(|done| Command::Join { join: Box::new(join), done }).await
    }

    pub async fn unsubscribe(&self, socket: &Socket, topic: Topic, reply: Reply) -> Result<(), ApiError> {
        self.ask(|done| Command::Unsubscribe { socket: socket.clone(), topic, reply, done }).await
    }

    /// What a lost client was subscribed to, if `mark` says that it knows.
    pub async fn lost(&self, id: &str, mark: u64) -> Result<Option<Vec<Topic>>, ApiError> {
        self.ask(|answer| Command::Lost { id: id.to_owned(), mark, answer }).await
    }

    /// A lost client is back and has got the events up to `from`.
    pub async fn rejoin(&self, socket: &Socket, from: u64) -> Result<(), ApiError> {
        self.ask(|done| Command::Rejoin { socket: socket.clone(), from, done }).await
    }

    pub async fn counts(&self) -> Result<Counts, ApiError> {
        self.ask(|answer| Command::Counts { answer }).await
    }

    /// The socket is gone. Does not wait.
    pub fn leave(&self, socket: &Socket) {
        self.tell(Command::Leave { socket: socket.clone() });
    }

    /// A lost client cannot come back any more. Does not wait.
    pub fn forget(&self, id: &str) {
        self.tell(Command::Forget { id: id.to_owned() });
    }

    fn tell(&self, command: Command) {
        let Err(mpsc::error::TrySendError::Full(command)) = self.commands.try_send(command) else { return };
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

/// How a member is told.
struct Listener {
    socket: Socket,
    /// Of a recoverable client.
    mark: Option<Mark>,
}

impl Listener {
    fn tell(&self, event: &Encoded, cursor: &str) -> bool {
        let result = match &self.mark {
            None => self.socket.send(event),
            Some(mark) => self.socket.send_at(event, &recovery::offset(cursor, mark.load(Ordering::Relaxed))),
        };
        sent(&self.socket, result)
    }
}

pub struct Hub {
    reader: Reader,
    wire: Wire,
    head: watch::Receiver<u64>,
    commands: mpsc::Receiver<Command>,
    subscriptions: Subscriptions<Listener>,
    recoverable: Recoverable,
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
        let (subscriptions, recoverable) = (Subscriptions::default(), Recoverable::default());
        (Self { reader, wire, head, commands, subscriptions, recoverable, seen, limit }, Handle { commands: sender })
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
            Command::Pause { socket, topics, answer } => {
                let _ = answer.send(self.pause(&socket, topics));
            }
            Command::Join { join, done } => {
                self.join(*join)?;
                let _ = done.send(());
            }
            Command::Unsubscribe { socket, topic, reply, done } => {
                self.unsubscribe(&socket, topic, reply);
                let _ = done.send(());
            }
            Command::Leave { socket } => self.leave(&socket),
            Command::Lost { id, mark, answer } => {
                let _ = answer.send(self.lost(&id, mark));
            }
            Command::Rejoin { socket, from, done } => {
                self.rejoin(socket, from)?;
                let _ = done.send(());
            }
            Command::Forget { id } => self.recoverable.forget(&id),
            Command::Counts { answer } => {
                let (subscribers, subscriptions) = (self.subscriptions.members(), self.subscriptions.count());
                let counts = Counts { subscribers, subscriptions, seen: self.seen };
                let _ = answer.send(counts);
            }
        }
        Ok(())
    }

    fn pause(&mut self, socket: &Socket, topics: Vec<Topic>) -> Result<Paused, ApiError> {
        let key = socket.key();
        let (live, new): (Vec<_>, Vec<_>) = topics.into_iter().partition(|topic| self.subscriptions.contains(key, topic));
        if self.subscriptions.count_of(key).saturating_add(new.len()) > self.limit {
            let message = format!(
                "One client may subscribe to at most {} addresses (limits.subscriptions); unsubscribe from some, or use another connection.",
                self.limit
            );
            return Err(ApiError::bad_request("too_many_subscriptions", message));
        }
        if socket.is_recoverable() {
            self.recoverable.begin_change(socket.id(), key);
            socket.set_offset(&recovery::changing(&self.wire.cursor(self.seen)));
        }
        for topic in &live {
            self.subscriptions.remove(key, topic);
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
        let mark = self.recoverable.end_change(socket.id(), socket.key());
        let send = || {
            let alone = |(_, event): (u64, Encoded)| (event, None);
            let mut events: Vec<_> = before.into_iter().map(alone).collect();
            if let Some(reply) = reply {
                events.push((reply.event()?, Some(reply)));
            }
            events.extend(owed.into_iter().map(alone));
            if let Some(mut object) = caught_up {
                object.insert("cursor".to_owned(), cursor.clone().into());
                events.push((Encoded::event(NAMESPACE, "caught_up", &object)?, None));
            }
            send_in_order(&socket, events, offset_at(&cursor, mark.as_ref()))
        };
        let result = send();
        self.settle(&socket, mark, topics, result);
        Ok(())
    }

    /// The end of a change: the socket is live with these topics, or gone.
    fn settle(&mut self, socket: &Socket, mark: Option<Mark>, topics: Vec<Topic>, result: Result<(), SendError>) {
        match sent(socket, result) {
            true => self.subscriptions.add(socket.key(), Listener { socket: socket.clone(), mark }, topics),
            false => self.leave(socket),
        }
    }

    fn unsubscribe(&mut self, socket: &Socket, topic: Topic, reply: Reply) {
        self.subscriptions.remove(socket.key(), &topic);
        if socket.is_recoverable() {
            self.recoverable.begin_change(socket.id(), socket.key());
        }
        let mark = self.recoverable.end_change(socket.id(), socket.key());
        let cursor = self.wire.cursor(self.seen);
        let result = reply.event().and_then(|event| send_in_order(socket, vec![(event, Some(reply))], offset_at(&cursor, mark.as_ref())));
        if !sent(socket, result) {
            self.leave(socket);
        }
    }

    fn leave(&mut self, socket: &Socket) {
        let topics = self.subscriptions.leave(socket.key());
        self.recoverable.lose(socket.id(), socket.key(), topics);
    }

    fn lost(&mut self, id: &str, mark: u64) -> Option<Vec<Topic>> {
        // The client may be back before its old socket's `Leave` is.
        if let Some(key) = self.recoverable.key(id) {
            let topics = self.subscriptions.leave(key);
            self.recoverable.lose(id, key, topics);
        }
        self.recoverable.topics(id, mark)
    }

    fn rejoin(&mut self, socket: Socket, from: u64) -> Result<(), StoreError> {
        while self.seen < from {
            self.deliver_page(from)?;
        }
        // One that never subscribed to anything has nothing to come back to.
        let Some((topics, mark)) = self.recoverable.come_back(socket.id(), socket.key()) else { return Ok(()) };
        let owed = events_between(&self.reader, &self.wire, from, self.seen, &topics)?;
        let listener = Listener { socket, mark: Some(mark) };
        let is_live = owed.iter().all(|(number, event)| listener.tell(event, &self.wire.cursor(*number)));
        let socket = listener.socket.clone();
        self.subscriptions.add(socket.key(), listener, topics);
        if !is_live {
            self.leave(&socket);
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
            Ok(encoded) => {
                let cursor = self.wire.cursor(number);
                for (listener, topics) in self.subscriptions.tell(&topic, |listener| listener.tell(&encoded, &cursor)) {
                    self.recoverable.lose(listener.socket.id(), listener.socket.key(), topics);
                }
            }
            // Our own JSON under our own names: cannot happen, and must not stop the others if it does.
            Err(cause) => tracing::error!(number, %cause, "an event could not be encoded"),
        }
    }
}

/// The events of `topics` after `from` and up to `to`, with their numbers.
pub fn events_between(reader: &Reader, wire: &Wire, from: u64, to: u64, topics: &[Topic]) -> Result<Vec<(u64, Encoded)>, StoreError> {
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
                found.extend(wire.encode(number, &event).ok().map(|event| (number, event)));
            }
        }
        if !more {
            return Ok(found);
        }
    }
}

fn offset_at(cursor: &str, mark: Option<&Mark>) -> Option<String> {
    mark.map(|mark| recovery::offset(cursor, mark.load(Ordering::Relaxed)))
}

/// What a change of subscriptions sends. Only the last event has the new offset: who has that has everything.
fn send_in_order(socket: &Socket, mut events: Vec<(Encoded, Option<Reply>)>, offset: Option<String>) -> Result<(), SendError> {
    let last = events.pop();
    for (event, reply) in events {
        socket.send(&event)?;
        reply.map_or(Ok(()), Reply::acknowledge)?;
    }
    if let Some(offset) = offset {
        socket.set_offset(&offset);
    }
    let Some((event, reply)) = last else { return Ok(()) };
    socket.send(&event)?;
    reply.map_or(Ok(()), Reply::acknowledge)
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
