//! The hub: one task that owns all subscriptions and moves events from the log to the sockets.
//!
//! # Laws
//!
//! 1. The head that wakes it carries no events; it reads them from the log, in the order of their
//!    numbers, up to that head.
//! 2. An event is encoded once, and only if somebody listens; each subscriber gets the same bytes.
//! 3. Nothing here waits for a client, and never is more than a page read for one. A socket whose
//!    queue is full at event n stops being live at n - 1 and [`lag`]s: it is told from the log, at
//!    its own pace, by a task of its own. The hub makes it live again between two events, when what
//!    is still owed fits its queue. Only one that takes nothing is closed (`super::replay`).
//! 4. `seen` is the number up to which live subscribers have been told. Who joins says from which
//!    number on events are owed to it: later ones than `seen` first go to the others, those up to
//!    `seen` it gets from the log, and from then on it is live. All of that happens between two
//!    events, so none is missing and none comes twice.
//!
//! # A subscription, step by step
//!
//! `super::live` does 2 and 3, which may take long, outside of this task.
//!
//! ```text
//! 1 pause     is there room for it; if the socket already hears one of the topics, all that it hears is taken off, told up to
//!             `seen` = p. Not while it lags
//! 2           watch the scripts; snapshot of the store at head h >= p: the answer with balance and cursor h
//! 3           tell the events (p, h] of the topics taken off, so that subscribing again loses nothing (`Handle::join_paused`)
//! 4 join      send the answer, the events (h, seen]; live from `seen` on. What does not fit the queue is handed back
//! 5           wait for room, tell the log up to about the head if the answer is out, then 4 again (`Handle::join`)
//! ```
//! So all that one socket hears comes in the order of the numbers, but what a subscription with
//! `after` asks for comes beside the rest, and so does, for a moment, what one with more than
//! [`PAUSED_WHOLE`] subscriptions asks for again.

mod handle;
mod lag;
mod pages;
mod scan;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::subscriptions::{Subscriptions, Topic};
use crate::socketio::{Encoded, SendError, Socket};
use crate::store::{Reader, StoreError};
use crate::tracker::Event;
pub use crate::wire::{EventEncoder as Wire, NAMESPACE};
use handle::{Command, NotPaused, Unsent};
pub use handle::{Counts, Handle, Join, Joined, Paused, Pausing, Reply, ScanNews};
use lag::Lag;
pub use pages::{Entry, PageError, Pages};

/// Events read from the log at a time.
pub const PAGE: usize = 1000;
const COMMANDS: usize = 1024;
/// A socket with more subscriptions is not taken off as a whole when it asks again for one of them:
/// the hub would be busy with that.
const PAUSED_WHOLE: usize = 1000;

pub struct Hub {
    reader: Reader,
    wire: Wire,
    pages: Arc<Pages>,
    head: watch::Receiver<u64>,
    commands: mpsc::Receiver<Command>,
    /// For those who lag; weak, so that the hub ends with the last one who could command it.
    sender: mpsc::WeakSender<Command>,
    /// The live ones.
    subscriptions: Subscriptions<Socket>,
    /// By the socket's key.
    lagging: HashMap<u64, Arc<Lag>>,
    /// Every live subscriber has been told up to this number.
    seen: u64,
    /// Subscriptions that one socket may have.
    limit: usize,
}

impl Hub {
    /// `head` wakes it up; `limit`: subscriptions of one socket.
    pub fn new(
        reader: Reader,
        wire: Wire,
        head: watch::Receiver<u64>,
        limit: usize,
    ) -> (Self, Handle) {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let pages = Arc::new(Pages::new(reader.clone(), wire.clone()));
        let seen = *head.borrow();
        let hub = Self {
            reader,
            wire,
            pages: pages.clone(),
            head,
            commands,
            sender: sender.downgrade(),
            subscriptions: Subscriptions::default(),
            lagging: HashMap::new(),
            seen,
            limit,
        };
        (
            hub,
            Handle {
                commands: sender,
                pages,
            },
        )
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
            Command::Pause {
                socket,
                topics,
                pausing,
                answer,
            } => drop(answer.send(self.pause(&socket, topics, pausing))),
            Command::Join { join, answer } => drop(answer.send(self.join(*join)?)),
            Command::Unsubscribe {
                socket,
                topic,
                reply,
                answer,
            } => drop(answer.send(self.unsubscribe(&socket, topic, reply))),
            Command::Leave { socket } => self.leave(&socket),
            Command::Resume { socket, answer } => drop(answer.send(self.resume(&socket)?)),
            Command::Scan { news } => self.tell_scan(&news)?,
            Command::SubscriptionsOf { socket, answer } => {
                let _ = answer.send(self.count_of(socket.key()));
            }
            Command::Counts { answer } => drop(answer.send(self.counts())),
        }
        Ok(())
    }

    fn count_of(&self, key: u64) -> usize {
        let lagging = self.lagging.get(&key).map(|lag| lag.lock().topics.len());
        lagging.unwrap_or_else(|| self.subscriptions.count_of(key))
    }

    fn counts(&self) -> Counts {
        let lagging = self
            .lagging
            .values()
            .map(|lag| lag.lock().topics.len())
            .sum::<usize>();
        Counts {
            subscribers: self
                .subscriptions
                .members()
                .saturating_add(self.lagging.len()),
            subscriptions: self.subscriptions.count().saturating_add(lagging),
            lagging: self.lagging.len(),
            seen: self.seen,
        }
    }

    fn pause(
        &mut self,
        socket: &Socket,
        topics: Vec<Topic>,
        pausing: Pausing,
    ) -> Result<Paused, NotPaused> {
        let key = socket.key();
        if socket.is_closed() {
            // Nobody hears this. What is kept of it from now on nobody would take away.
            return Err(NotPaused::Refused(ApiError::stopping()));
        }
        if let Some(lag) = self.lagging.get(&key) {
            return Err(NotPaused::Lagging(lag.over.clone()));
        }
        let (mut live, new): (Vec<_>, Vec<_>) = topics
            .into_iter()
            .partition(|topic| self.subscriptions.contains(key, topic));
        if self.subscriptions.count_of(key).saturating_add(new.len()) > self.limit {
            let message = format!(
                "One client may subscribe to at most {} addresses (limits.subscriptions); unsubscribe from some, or use another connection.",
                self.limit
            );
            return Err(NotPaused::Refused(ApiError::bad_request(
                "too_many_subscriptions",
                message,
            )));
        }
        if pausing == Pausing::All
            && !live.is_empty()
            && self.subscriptions.count_of(key) <= PAUSED_WHOLE
        {
            live = self.subscriptions.leave(key);
        }
        for topic in &live {
            self.subscriptions.remove(key, topic);
        }
        Ok(Paused {
            live,
            seen: self.seen,
        })
    }

    fn join(&mut self, mut join: Join) -> Result<Joined, StoreError> {
        while self.seen < join.from {
            self.deliver_page(join.from)?;
        }
        let socket = join.socket.clone();
        if socket.is_closed() {
            self.leave(&socket);
            return Ok(Joined::default());
        }
        if let Some(lag) = self.lagging.get(&socket.key()) {
            return Ok(Joined {
                lag: Some(lag.over.clone()),
                rest: Some(join),
                reply: None,
            });
        }
        let topics: HashSet<&Topic> = if join.from < self.seen {
            join.topics.iter().collect()
        } else {
            HashSet::new()
        };
        let (owed, next) = self.owed(join.from, |topic| topics.contains(topic))?;
        let (paid, reply) = self.pay(&mut join, owed, next);
        match paid {
            Ok(true) => {
                let topics = std::mem::take(&mut join.topics);
                self.subscriptions.add(socket.key(), socket, topics);
                Ok(Joined {
                    reply,
                    ..Joined::default()
                })
            }
            Ok(false) | Err(SendError::Full) => Ok(Joined {
                rest: Some(join),
                reply,
                lag: None,
            }),
            Err(_) => {
                self.leave(&socket);
                Ok(Joined::default())
            }
        }
    }

    /// The events that are wanted after `from`, and the number up to which these are all: `seen`,
    /// or the end of a page.
    fn owed(
        &self,
        from: u64,
        is_wanted: impl Fn(&Topic) -> bool,
    ) -> Result<(VecDeque<(u64, Encoded)>, u64), StoreError> {
        let (mut owed, mut next) = (VecDeque::new(), from);
        while next < self.seen {
            let page = match self.pages.page_now(next) {
                Ok(page) => page,
                Err(PageError::Store(cause)) => return Err(cause),
                // Whoever goes on in the log is told why it cannot.
                Err(_) => break,
            };
            let wanted = page
                .after(next)
                .iter()
                .take_while(|entry| entry.number <= self.seen)
                .filter(|entry| is_wanted(&entry.topic));
            owed.extend(
                wanted.filter_map(|entry| Some((entry.number, entry.encoded(&self.wire)?.clone()))),
            );
            next = page.next;
            // A kept page that was the last one when it was read is not all that is owed.
            if !page.is_last {
                break;
            }
        }
        Ok((owed, next.min(self.seen)))
    }

    /// Sends what a join has to send, and takes from it what is out: true when that is all of it.
    /// `next`: with `owed` everything is sent up to there. Beside it a reply that lacks its
    /// acknowledgement.
    fn pay(
        &self,
        join: &mut Join,
        mut owed: VecDeque<(u64, Encoded)>,
        next: u64,
    ) -> (Result<bool, SendError>, Option<Reply>) {
        let is_whole = next >= self.seen;
        let mut unanswered = None;
        let socket = join.socket.clone();
        let mut step = || -> Result<bool, SendError> {
            if let Some(reply) = &join.reply {
                socket.send(&reply.event()?)?;
                unanswered = join
                    .reply
                    .take()
                    .and_then(|mut reply| reply.acknowledge().is_err().then_some(reply));
            }
            while let Some((number, event)) = owed.front() {
                socket.send(event)?;
                join.from = *number;
                owed.pop_front();
            }
            join.from = next;
            if let Some(object) = join.caught_up.as_mut().filter(|_| is_whole) {
                object.insert("cursor".to_owned(), self.wire.cursor(self.seen).into());
                socket.send(&Encoded::event(NAMESPACE, "caught_up", object)?)?;
            }
            Ok(is_whole)
        };
        let paid = step();
        (paid, unanswered.filter(|reply| reply.ack.is_some()))
    }

    fn unsubscribe(&mut self, socket: &Socket, topic: Topic, mut reply: Reply) -> Unsent {
        if socket.is_closed() {
            self.leave(socket);
            return Unsent::Nothing;
        }
        let lag = self.lagging.get(&socket.key()).cloned();
        let mut state = lag.as_ref().map(|lag| lag.lock());
        match &mut state {
            Some(state) => state.topics.remove(&topic),
            None => self.subscriptions.remove(socket.key(), &topic),
        };
        let sent = reply.event().and_then(|event| socket.send(&event));
        // Until here: what the lag sends comes behind the reply.
        drop(state);
        match sent {
            Ok(_) if reply.acknowledge().is_err() && reply.ack.is_some() => {
                Unsent::Acknowledgement(reply)
            }
            Ok(_) => Unsent::Nothing,
            Err(SendError::Full) => Unsent::All(reply),
            Err(_) => {
                self.leave(socket);
                Unsent::Nothing
            }
        }
    }

    fn leave(&mut self, socket: &Socket) {
        match self.lagging.remove(&socket.key()) {
            None => drop(self.subscriptions.leave(socket.key())),
            Some(lag) => {
                lag.over.cancel();
                self.forget_pages();
            }
        }
    }

    fn forget_pages(&self) {
        if self.lagging.is_empty() {
            self.pages.forget();
        }
    }

    /// A member is told from the log from now on, after the number `at`.
    fn lag(&mut self, socket: Socket, topics: Vec<Topic>, at: u64) {
        let Some(commands) = self.sender.upgrade() else {
            return;
        };
        let lag = Lag::new(socket, topics, at);
        self.lagging.insert(lag.socket.key(), lag.clone());
        tokio::spawn(lag::run(
            lag,
            Handle {
                commands,
                pages: self.pages.clone(),
            },
        ));
    }

    /// A lagging member near the head is sent the rest. True if it is live again, or gone;
    /// otherwise its lag goes on.
    fn resume(&mut self, socket: &Socket) -> Result<bool, StoreError> {
        let Some(lag) = self.lagging.get(&socket.key()).cloned() else {
            return Ok(true);
        };
        let at = lag.lock().at;
        while self.seen < at {
            self.deliver_page(at)?;
        }
        let mut state = lag.lock();
        let (owed, next) = self.owed(at, |topic| state.topics.contains(topic))?;
        let step = || -> Result<bool, SendError> {
            for (number, event) in owed {
                socket.send(&event)?;
                state.at = number;
            }
            state.at = next;
            if next < self.seen {
                return Ok(false);
            }
            socket.send(&lag::caught_up(&self.wire, next)?)?;
            Ok(true)
        };
        let caught_up = step();
        let is_live = matches!(caught_up, Ok(true)) && !socket.is_closed();
        let topics = if is_live {
            std::mem::take(&mut state.topics)
        } else {
            HashSet::new()
        };
        drop(state);
        match caught_up {
            Ok(false) | Err(SendError::Full) => return Ok(false),
            Ok(true) if is_live => {
                self.lagging.remove(&socket.key());
                self.forget_pages();
                self.subscriptions.add(socket.key(), socket.clone(), topics);
                lag.over.cancel();
            }
            Ok(true) | Err(_) => self.leave(socket),
        }
        Ok(true)
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
                for (socket, topics) in self
                    .subscriptions
                    .tell(&topic, |socket| socket.send(&encoded).is_ok())
                {
                    if !socket.is_closed() {
                        self.lag(socket, topics, self.seen);
                    }
                }
            }
            // Our own JSON under our own names: cannot happen, and must not stop the others if it
            // does.
            Err(cause) => tracing::error!(number, %cause, "an event could not be encoded"),
        }
    }
}

/// Who waits for the end of a lag waits no longer.
impl Drop for Hub {
    fn drop(&mut self) {
        self.lagging.values().for_each(|lag| lag.over.cancel());
    }
}
