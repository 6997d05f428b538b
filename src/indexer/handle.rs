//! [`Handle`]: what others send to the thread, and what they hear back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::HistogramVec;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::store::{AuthEdit, ConsumerEdit, Cutoff, OwnerEdits, StoreError, TokenKey, Writer};
use crate::tracker::{ApplyError, BlockId, DescriptorRow, Diff, Input, Transition, WatchRow};

/// What an input led to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Our tip after the input.
    pub tip: Option<BlockId>,
    /// Number of the last event before or of this input: later ones are not its doing.
    pub head: u64,
    /// Scripts that it put on the watch list.
    pub added: usize,
    /// What the mempool has lost is not all evicted yet.
    pub is_evicting: bool,
}

/// The indexer has ended; the daemon is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the indexer has stopped")]
pub struct IndexerStopped;

/// Why an input has no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputRefused {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Stopped(#[from] IndexerStopped),
}

pub(super) enum Command {
    Input(InputJob),
    Monitoring {
        on: bool,
        answer: oneshot::Sender<()>,
    },
    Prune {
        cutoff: Cutoff,
        answer: oneshot::Sender<usize>,
    },
    Consumer {
        name: String,
        edits: Vec<ConsumerEdit>,
        sync: bool,
        answer: oneshot::Sender<()>,
    },
    Auth(AuthJob),
    Stop,
}

pub(super) struct InputJob {
    pub(super) input: Input,
    pub(super) answer: Option<oneshot::Sender<Result<Done, ApplyError>>>,
    /// The token for which it puts scripts on the watch list, if one does.
    pub(super) owner: Option<TokenKey>,
    /// Scripts that its portions before this one put on the watch list.
    pub(super) added: usize,
    /// Held while a block waits.
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

impl InputJob {
    /// Nobody waits for it.
    pub(super) fn unanswered(input: Input) -> Self {
        Self {
            input,
            answer: None,
            owner: None,
            added: 0,
            _room: None,
        }
    }
}

/// What is to be remembered of credentials.
pub(super) struct AuthJob {
    edits: Vec<AuthEdit>,
    sync: bool,
    answer: oneshot::Sender<()>,
}

impl AuthJob {
    pub(super) fn carry_out(self, writer: &mut Writer) -> Result<(), StoreError> {
        writer.edit_auth(&self.edits, self.sync)?;
        _ = self.answer.send(());
        Ok(())
    }
}

/// A command, and when somebody began to send it.
pub(super) struct Sent {
    pub(super) at: Instant,
    pub(super) command: Command,
}

impl Sent {
    pub(super) fn now(command: Command) -> Self {
        let at = Instant::now();
        Self { at, command }
    }
}

/// Sends to the indexer. Clones are cheap.
#[derive(Clone)]
pub struct Handle {
    pub(super) inbox: mpsc::Sender<Sent>,
    /// When the oldest of the commands was sent that the thread is busy with, or since when it is
    /// busy with a portion of something large.
    pub(super) oldest: Arc<Mutex<Option<Instant>>>,
    pub(super) blocks: Arc<Semaphore>,
    pub(super) head: watch::Receiver<u64>,
    pub(super) derive: Arc<Notify>,
    pub(super) step_times: HistogramVec,
}

impl Handle {
    /// One whose thread gets to nothing that it is sent, while the other half is kept.
    #[cfg(test)]
    pub(crate) fn busy() -> (Self, impl Send + 'static) {
        let (inbox, waiting) = mpsc::channel(super::INBOX);
        let (publish, head) = watch::channel(0);
        let handle = Self {
            inbox,
            oldest: Arc::default(),
            blocks: Arc::new(Semaphore::new(super::WAITING_BLOCKS)),
            head,
            derive: Arc::default(),
            step_times: super::count_step_times(),
        };
        (handle, (waiting, publish))
    }

    /// Applies an input and answers after its commit.
    pub async fn apply(&self, input: Input) -> Result<Done, InputRefused> {
        self.apply_of(input, None).await
    }

    /// The same of an input that puts scripts on the watch list for a token, if one does.
    pub async fn apply_of(
        &self,
        input: Input,
        owner: Option<TokenKey>,
    ) -> Result<Done, InputRefused> {
        let (answer, answered) = oneshot::channel();
        self.queue(input, Some(answer), owner).await?;
        Ok(self.answer(answered).await??)
    }

    /// Queues an input, when there is room. Nobody hears if it is refused.
    pub async fn post(&self, input: Input) -> Result<(), IndexerStopped> {
        self.queue(input, None, None).await
    }

    /// Remembers that a person started or stopped monitoring; answers when it is on the disk.
    pub async fn remember_monitoring(&self, on: bool) -> Result<(), IndexerStopped> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Monitoring { on, answer }).await?;
        self.answer(answered).await
    }

    /// Deletes the oldest of the old events; answers how many. There may be more when they are
    /// [`PRUNE_LIMIT`](crate::store::PRUNE_LIMIT).
    pub async fn prune_events(&self, cutoff: Cutoff) -> Result<usize, IndexerStopped> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Prune { cutoff, answer }).await?;
        self.answer(answered).await
    }

    /// Writes what became of a named reader of the log; answers when it is written, and with `sync`
    /// on the disk.
    pub async fn edit_consumer(
        &self,
        name: &str,
        edits: Vec<ConsumerEdit>,
        sync: bool,
    ) -> Result<(), IndexerStopped> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Consumer {
            name: name.to_owned(),
            edits,
            sync,
            answer,
        })
        .await?;
        self.answer(answered).await
    }

    /// Writes what is remembered of credentials; answers when it is written, and with `sync` on the
    /// disk.
    pub async fn edit_auth(&self, edits: Vec<AuthEdit>, sync: bool) -> Result<(), IndexerStopped> {
        let (answer, answered) = oneshot::channel();
        let job = AuthJob {
            edits,
            sync,
            answer,
        };
        self.send(Command::Auth(job)).await?;
        self.answer(answered).await
    }

    /// Number of the last committed event. A wake-up only: read the log from where you are. Ends
    /// when the indexer does.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    /// Wakes one that derives scripts: descriptors want more of them. May come without need.
    pub fn derive(&self) -> Arc<Notify> {
        self.derive.clone()
    }

    /// How long the thread was held each time, by a batch with a block in it or by anything else.
    pub fn step_times(&self) -> HistogramVec {
        self.step_times.clone()
    }

    /// How long the oldest of the commands waits that are not done. Large inputs, which let others
    /// pass, do not count.
    pub fn behind(&self) -> Duration {
        let oldest = *self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed())
    }

    /// Ends the indexer after what is queued by now; its thread's result says how it went.
    pub async fn stop(&self) {
        // An error means that it has ended already.
        _ = self.send(Command::Stop).await;
    }

    /// Waits until the indexer has ended, for whatever reason.
    pub async fn stopped(&self) {
        self.inbox.closed().await;
    }

    /// Whether the indexer has ended, for whatever reason.
    pub fn has_stopped(&self) -> bool {
        self.inbox.is_closed()
    }

    async fn queue(
        &self,
        input: Input,
        answer: Option<oneshot::Sender<Result<Done, ApplyError>>>,
        owner: Option<TokenKey>,
    ) -> Result<(), IndexerStopped> {
        let room = match input {
            Input::Connect { .. } => Some(
                self.blocks
                    .clone()
                    .acquire_owned()
                    .await
                    .map_err(|_| IndexerStopped)?,
            ),
            _ => None,
        };
        self.send(Command::Input(InputJob {
            input,
            answer,
            owner,
            added: 0,
            _room: room,
        }))
        .await
    }

    /// Waits for an answer. Without one the indexer is ending; who hears that may ask at once
    /// whether it [has](Self::has_stopped).
    async fn answer<T>(&self, answered: oneshot::Receiver<T>) -> Result<T, IndexerStopped> {
        match answered.await {
            Ok(answer) => Ok(answer),
            Err(_) => {
                self.stopped().await;
                Err(IndexerStopped)
            }
        }
    }

    async fn send(&self, command: Command) -> Result<(), IndexerStopped> {
        let sent = Sent::now(command);
        self.inbox.send(sent).await.map_err(|_| IndexerStopped)
    }
}

/// Scripts that were put on the watch list.
pub(super) fn added_by(transition: &Transition) -> usize {
    let watches = transition.changes.watches.values();
    let is_new = |diff: &&Diff<WatchRow>| !is_listed(&diff.old) && is_listed(&diff.new);
    watches.filter(is_new).count()
}

/// Whose the scripts are that an input has put on the watch list, and the descriptors; nobody's,
/// those it took off. And how many scripts the descriptors have.
pub(super) fn note_owner(
    owners: &mut OwnerEdits,
    transition: &Transition,
    owner: Option<TokenKey>,
) {
    for (script, diff) in &transition.changes.watches {
        match (is_listed(&diff.old), is_listed(&diff.new)) {
            (false, true) => owners.address(script, owner),
            (true, false) => owners.address(script, None),
            (true, true) | (false, false) => {}
        }
    }
    for (descriptor, diff) in &transition.changes.descriptors {
        let scripts = |row: &Option<DescriptorRow>| row.as_ref().map_or(0, |row| row.scripts());
        let (before, now) = (scripts(&diff.old), scripts(&diff.new));
        if before != now {
            owners.scripts(descriptor, before, now);
        }
        match (&diff.old, &diff.new) {
            (None, Some(_)) => owners.descriptor(descriptor, owner),
            (Some(_), None) => owners.descriptor(descriptor, None),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}

/// Those that are watched for descriptors alone do not count.
fn is_listed(row: &Option<WatchRow>) -> bool {
    row.as_ref().is_some_and(|row| row.listed)
}
