//! The task that tells readers that there is something for them, without saying what.
//!
//! It reads each new page of the log (which everybody then has from memory), marks the readers of
//! the events in it and moves its position afterwards. A mark carries the number of the first event
//! since the reader last looked. So a reader that reads the position first and then finds no mark
//! knows that nothing up to that position is for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::filter::Topic;
use super::index::Index;
use super::log::EventLog;
use super::source::{PAGE, PageError};
use crate::socketio::Encoded;
use crate::store::StoreError;
use crate::wire::ApiError;

/// A reader lags when it has not taken what was written this long ago.
pub const LAG_AGE: Duration = Duration::from_secs(5);
/// No mark.
const CLEAN: u64 = u64::MAX;
/// Notices that wait for a reader at most.
const NOTICES: usize = 16;

/// Something without a place in the order: only the latest of its subject means anything.
#[derive(Debug, Clone)]
pub struct Notice {
    /// What it is about; a newer one takes the place of an older one.
    pub subject: u64,
    pub packet: Encoded,
    /// It was true when the log had come to here, and is not given behind a later event; `None`: it
    /// stays true.
    pub as_of: Option<u64>,
}

/// What dispatch and one reader share.
#[derive(Debug)]
pub(super) struct Mark {
    first: AtomicU64,
    waker: AtomicWaker,
    notices: Mutex<VecDeque<Notice>>,
    /// Set by the reader: the first number that it has not read, while it has to read on.
    unread: AtomicU64,
    /// It counts as a subscriber.
    is_client: bool,
}

impl Mark {
    fn new(is_client: bool) -> Arc<Self> {
        Arc::new(Self {
            is_client,
            first: AtomicU64::new(CLEAN),
            waker: AtomicWaker::new(),
            notices: Mutex::default(),
            unread: AtomicU64::new(CLEAN),
        })
    }

    /// There is an event for the reader.
    fn set(&self, number: u64) {
        // Always a write, so that whoever takes the mark sees what was known when it was set last.
        if self.first.fetch_min(number, Ordering::AcqRel) == CLEAN {
            self.waker.wake();
        }
    }

    /// The first event since this was last asked.
    pub(super) fn take(&self) -> Option<u64> {
        Some(self.first.swap(CLEAN, Ordering::AcqRel)).filter(|first| *first != CLEAN)
    }

    /// The reader has read up to here, and has to read on; `None`: it has not.
    pub(super) fn set_unread(&self, after: Option<u64>) {
        let unread = after.map_or(CLEAN, |after| after.saturating_add(1));
        self.unread.store(unread, Ordering::Relaxed);
    }

    /// A number that the reader has not come to although there is something for it behind that.
    fn waits_for(&self) -> Option<u64> {
        let first = self.first.load(Ordering::Relaxed);
        Some(first.min(self.unread.load(Ordering::Relaxed))).filter(|number| *number != CLEAN)
    }

    pub(super) fn wake_by(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    fn notify(&self, notice: &Notice) {
        let mut notices = self.notices();
        notices.retain(|it| it.subject != notice.subject);
        if notices.len() >= NOTICES {
            notices.pop_front();
        }
        notices.push_back(notice.clone());
        drop(notices);
        self.waker.wake();
    }

    /// The oldest notice that is still true for a reader who was given everything up to `place`.
    pub(super) fn take_notice(&self, place: u64) -> Option<Notice> {
        let mut notices = self.notices();
        notices.retain(|notice| notice.as_of.is_none_or(|as_of| place <= as_of));
        notices.pop_front()
    }

    fn notices(&self) -> MutexGuard<'_, VecDeque<Notice>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far dispatch is.
#[derive(Debug)]
pub(super) struct Progress {
    /// All readers of events up to here are marked.
    position: AtomicU64,
    /// The log up to here was read: set before the readers of it are marked.
    read: AtomicU64,
}

impl Progress {
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Acquire)
    }
}

/// What `/status` shows of the readers that clients have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Those that are subscribed to something.
    pub subscribers: usize,
    /// Pairs of subscriber and topic.
    pub subscriptions: usize,
    /// Subscribers that do not keep up.
    pub lagging: usize,
    /// Readers of events up to this number were woken.
    pub position: u64,
}

/// The daemon is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the daemon is stopping")]
pub struct DispatchStopped;

impl From<DispatchStopped> for PageError {
    fn from(_: DispatchStopped) -> Self {
        Self::Stopped
    }
}

impl From<DispatchStopped> for ApiError {
    fn from(_: DispatchStopped) -> Self {
        Self::stopping()
    }
}

enum Command {
    Add {
        key: u64,
        mark: Arc<Mark>,
        topics: Vec<Topic>,
        done: oneshot::Sender<()>,
    },
    Remove {
        key: u64,
        topics: Vec<Topic>,
    },
    Leave {
        key: u64,
    },
    Notify {
        topics: Vec<Topic>,
        notice: Notice,
    },
    WakeAt {
        key: u64,
        mark: Arc<Mark>,
        number: u64,
    },
    Counts {
        answer: oneshot::Sender<Counts>,
    },
}

/// To be run as a task of its own.
pub struct Dispatch {
    log: Arc<EventLog>,
    index: Index<Arc<Mark>>,
    commands: mpsc::UnboundedReceiver<Command>,
    progress: Arc<Progress>,
    /// By number and key: who is woken when the position has come there.
    waiting: BTreeMap<(u64, u64), Arc<Mark>>,
}

/// Talks to dispatch. Commands are not bounded by their queue: each reader has at most one addition
/// under way, and a few removals and wishes to be woken for each packet of its client.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    progress: Arc<Progress>,
    keys: Arc<AtomicU64>,
}

impl Dispatch {
    pub fn new(log: Arc<EventLog>) -> (Self, Handle) {
        let (sender, commands) = mpsc::unbounded_channel();
        let head = log.head();
        let progress = Arc::new(Progress {
            position: AtomicU64::new(head),
            read: AtomicU64::new(head),
        });
        let handle = Handle {
            commands: sender,
            progress: progress.clone(),
            keys: Arc::default(),
        };
        let dispatch = Self {
            log,
            index: Index::default(),
            commands,
            progress,
            waiting: BTreeMap::new(),
        };
        (dispatch, handle)
    }

    /// Runs until `stop`, the end of the indexer, or a store that cannot be read.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut commits = self.log.commits();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                woken = commits.changed() => {
                    if woken.is_err() {
                        return Ok(());
                    }
                    let head = *commits.borrow_and_update();
                    self.log.note_moment(head, Instant::now());
                    if let Err(PageError::Store(cause)) = self.mark_up_to(head).await {
                        return Err(cause);
                    }
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.execute(command),
                    None => return Ok(()),
                },
            }
        }
    }

    async fn mark_up_to(&mut self, head: u64) -> Result<(), PageError> {
        loop {
            let position = self.progress.position();
            if position >= head {
                return Ok(());
            }
            let next = if self.index.is_empty() {
                head
            } else {
                self.mark_page(position).await?
            };
            self.progress.read.fetch_max(next, Ordering::AcqRel);
            self.progress.position.store(next, Ordering::Release);
            self.wake_up_to(next);
        }
    }

    fn wake_up_to(&mut self, position: u64) {
        while let Some(entry) = self.waiting.first_entry()
            && entry.key().0 <= position
        {
            entry.remove().waker.wake();
        }
    }

    /// Marks the readers of the page behind `position`; the number that it goes to.
    async fn mark_page(&mut self, position: u64) -> Result<u64, PageError> {
        let page = match self.log.newest_page(position).await {
            Ok(page) => page,
            // Retention has overtaken us. Readers find that out by themselves: whoever wanted any
            // of it reads from where it is.
            Err(PageError::Expired) => {
                let head = self.log.head();
                self.progress.read.fetch_max(head, Ordering::AcqRel);
                let marks = self.index.members().map(|(mark, _)| mark);
                marks.for_each(|mark| mark.set(position.saturating_add(1)));
                return Ok(head);
            }
            Err(cause) => return Err(cause),
        };
        self.progress.read.fetch_max(page.next, Ordering::AcqRel);
        for entries in page.entries_after(position).chunks(PAGE / 10) {
            for entry in entries {
                for mark in self.index.of(&entry.topic) {
                    mark.set(entry.number);
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(page.next)
    }

    fn counts(&self) -> Counts {
        let now = Instant::now();
        let mut counts = Counts {
            position: self.progress.position(),
            ..Counts::default()
        };
        let clients = self.index.members().filter(|(mark, _)| mark.is_client);
        for (mark, topics) in clients.filter(|(_, topics)| *topics > 0) {
            counts.subscribers += 1;
            counts.subscriptions = counts.subscriptions.saturating_add(topics);
            let age = mark.waits_for().map(|number| self.log.age(number, now));
            counts.lagging += usize::from(age.is_some_and(|age| age >= LAG_AGE));
        }
        counts
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Add {
                key,
                mark,
                topics,
                done,
            } => {
                self.index.add(key, mark, topics);
                // Whoever does not wait any more has left, and says so next.
                let _ = done.send(());
            }
            Command::Remove { key, topics } => topics.iter().for_each(|topic| {
                self.index.remove(key, topic);
            }),
            Command::Leave { key } => {
                self.index.leave(key);
                self.waiting.retain(|(_, other), _| *other != key);
            }
            Command::WakeAt { key, mark, number } => {
                self.waiting.insert((number, key), mark);
                self.wake_up_to(self.progress.position());
            }
            Command::Notify { topics, notice } => {
                for mark in topics.iter().flat_map(|topic| self.index.of(topic)) {
                    mark.notify(&notice);
                }
            }
            Command::Counts { answer } => {
                let _ = answer.send(self.counts());
            }
        }
    }
}

impl Handle {
    /// A place for one reader, which is woken by nothing yet.
    /// `is_client`: it counts as a subscriber.
    pub(super) fn registration(&self, is_client: bool) -> Registration {
        Registration {
            key: self.keys.fetch_add(1, Ordering::Relaxed),
            mark: Mark::new(is_client),
            handle: self.clone(),
            is_known: AtomicBool::new(false),
        }
    }

    /// Tells the readers of any of the topics what has no place in the order.
    pub fn notify(&self, topics: Vec<Topic>, notice: Notice) {
        let _ = self.commands.send(Command::Notify { topics, notice });
    }

    pub async fn counts(&self) -> Result<Counts, DispatchStopped> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Counts { answer });
        answered.await.map_err(|_| DispatchStopped)
    }
}

/// A reader's place with dispatch; given back when it is dropped.
#[derive(Debug)]
pub struct Registration {
    key: u64,
    mark: Arc<Mark>,
    handle: Handle,
    is_known: AtomicBool,
}

impl Registration {
    /// A place for another reader of the same kind.
    pub(super) fn another(&self) -> Self {
        self.handle.registration(self.mark.is_client)
    }

    /// The reader is marked for each event of these that is written from now on, and for those
    /// that dispatch has not come to yet.
    pub async fn add(&self, topics: Vec<Topic>) -> Result<(), DispatchStopped> {
        self.is_known.store(true, Ordering::Relaxed);
        let (done, is_done) = oneshot::channel();
        let _ = self.handle.commands.send(Command::Add {
            key: self.key,
            mark: self.mark.clone(),
            topics,
            done,
        });
        is_done.await.map_err(|_| DispatchStopped)
    }

    pub fn remove(&self, topics: Vec<Topic>) {
        let key = self.key;
        let _ = self.handle.commands.send(Command::Remove { key, topics });
    }

    /// The reader is woken when dispatch has come to this number.
    pub(super) fn wake_at(&self, number: u64) {
        let _ = self.handle.commands.send(Command::WakeAt {
            key: self.key,
            mark: self.mark.clone(),
            number,
        });
    }

    /// Dispatch marks it.
    pub(super) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    pub(super) fn mark(&self) -> &Mark {
        &self.mark
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.handle.progress
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if *self.is_known.get_mut() {
            let _ = self.handle.commands.send(Command::Leave { key: self.key });
        }
    }
}
