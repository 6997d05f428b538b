//! The owner thread: the only place where state changes.
//!
//! It owns the [`Tracker`] and the store's [`Writer`]. It takes whatever inputs are waiting,
//! applies them one after the other (each sees the changes of those before it), commits them as one
//! batch and then publishes the new head. An answer to an input is given only after its commit. A
//! failed commit ends the thread, and with it the process: the tracker's memory is then ahead of
//! the store, and the restart reads what was committed.
//!
//! ```text
//! Handle::apply, post ──> inbox (bounded; few blocks) ──> apply … apply ──> one commit ──> head ──> asks ──> answers
//! ```
//!
//! The thread ends with `Ok` and a clean stop of the store when [`Handle::stop`] is called or every
//! [`Handle`] is gone.
//!
//! A batch ends when it has taken [`BUDGET`], whatever waits, and before an input that is large by
//! itself, such as a block: the thread's steps are short, and how long they are is counted
//! ([`Handle::step_times`]).
//!
//! An input with many scripts is applied in portions, between others that wait, and answered after
//! the last one. So is what removed addresses leave, and what the mempool has lost; of the latter
//! nothing more is told once monitoring is stopped.
//!
//! A refused input is answered to its sender and changes nothing; of a large one of which a portion
//! is refused, the scripts that are new in it are taken off again. What nobody could repeat after a
//! power loss (blocks, what a person asked for) is synced; mempool inputs are not, since the
//! mempool is read again at start.

mod handle;
mod inputs;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use prometheus::{HistogramOpts, HistogramVec};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

pub use handle::{Done, Handle, IndexerStopped, InputRefused};
pub use inputs::must_last;

use handle::{Command, InputJob, Sent, added_by, note_owner};
use inputs::{cut, in_parts, is_block, is_large, size_of};

use crate::clock::now_ms;
use crate::store::{OwnerEdits, StoreError, StoreReader, Writer};
use crate::tracker::{ApplyError, FollowUp, Input, Overlay, Tracker, Transition};

/// Inputs that may wait.
const INBOX: usize = 256;

/// Blocks among them: one is megabytes.
const WAITING_BLOCKS: usize = 4;

/// Inputs of one commit; scripts and outputs count as much as inputs do.
const BATCH: usize = 256;

/// After this time a batch takes no further input: all of them wait for its commit.
const BUDGET: Duration = Duration::from_millis(10);

/// Scripts that a large input applies in one step: less than ten milliseconds of work.
pub const PORTION: usize = 500;

/// Bounds of the counted times, in seconds.
const STEP_TIMES: [f64; 12] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0,
];

/// Why the thread ended, if not because it was told to.
#[derive(Debug, thiserror::Error)]
pub enum IndexerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fatal(#[from] ApplyError),
}

/// The tracker as the store's rows say. `key` must be random.
pub fn load(reader: &StoreReader, key: [u8; 16]) -> Result<Tracker, StoreError> {
    let mut tracker = Tracker::new(key);
    tracker.load_tip(reader.snapshot().tip()?);
    for watch in reader.watches() {
        let (_, row) = watch?;
        tracker.load_watch(&row);
    }
    for outpoint in reader.unspent_outpoints() {
        tracker.load_outpoint(&outpoint?);
    }
    for scan in reader.snapshot().open_scans()? {
        tracker.load_scan(scan);
    }
    for scan in reader.snapshot().ended_scans_with_scripts()? {
        tracker.load_ended_scan(scan);
    }
    for script in reader.snapshot().adding()? {
        tracker.load_adding(script);
    }
    for (descriptor, row) in reader.snapshot().descriptors(None, usize::MAX)? {
        tracker.load_descriptor(descriptor, &row);
    }
    for place in reader.snapshot().joining() {
        tracker.load_joining(place?);
    }
    for descriptor in reader.snapshot().leaving() {
        tracker.load_leaving(descriptor?);
    }
    for script in reader.forgetting() {
        tracker.load_forgetting(script?);
    }
    for transaction in reader.unconfirmed_txs() {
        let (txid, row, tx) = transaction?;
        tracker.load_unconfirmed(txid, &row, &tx);
    }
    Ok(tracker)
}

/// Takes back what the last process added without coming to the end of the request. To be done
/// before anybody adds anything.
pub async fn undo_unfinished_add(
    handle: &Handle,
    reader: &StoreReader,
    now: u64,
) -> Result<(), IndexerError> {
    let adding = reader.snapshot().adding()?;
    for scripts in adding.chunks(PORTION) {
        let scripts = scripts.to_vec();
        // If the thread has ended, its own result says why.
        _ = handle.apply(Input::Unwatch { scripts, now }).await;
    }
    Ok(())
}

/// Starts the thread. `tracker` was [loaded](load) from the store that `writer` writes, `head` is
/// its head now. What the tracker asks for goes to `follow_ups`; what finds it full is dropped, and
/// a later mempool snapshot asks for it again. Scripts that descriptors want are told of by
/// [`Handle::derive`].
pub fn spawn(
    tracker: Tracker,
    writer: Writer,
    head: u64,
    follow_ups: mpsc::Sender<FollowUp>,
) -> (Handle, JoinHandle<Result<(), IndexerError>>) {
    let (sender, inbox) = mpsc::channel(INBOX);
    let (publish, head) = watch::channel(head);
    let step_times = count_step_times();
    let oldest = Arc::new(Mutex::new(None));
    let handle = Handle {
        inbox: sender,
        oldest: oldest.clone(),
        blocks: Arc::new(Semaphore::new(WAITING_BLOCKS)),
        head,
        derive: Arc::default(),
        step_times: step_times.clone(),
    };
    let indexer = Indexer {
        tracker,
        writer,
        inbox,
        oldest,
        head: publish,
        follow_ups,
        derive: handle.derive.clone(),
        large: VecDeque::new(),
        takes_back: false,
        is_stopped: false,
        step_times,
        budget: BUDGET,
    };
    let thread = thread::Builder::new()
        .name("indexer".to_owned())
        .spawn(move || indexer.run());
    (
        handle,
        thread.expect("the system can start one more thread"),
    )
}

fn count_step_times() -> HistogramVec {
    let help =
        "How long the thread that writes was held at a time, by a block or by anything else.";
    let options = HistogramOpts::new("indexer_step_seconds", help).buckets(STEP_TIMES.to_vec());
    let times = HistogramVec::new(options, &["step"]).expect("names and bounds are good");
    for step in [BLOCK, OTHER] {
        times.with_label_values(&[step]);
    }
    times
}

/// Labels of step times.
const BLOCK: &str = "block";
const OTHER: &str = "other";

struct Indexer {
    tracker: Tracker,
    writer: Writer,
    inbox: mpsc::Receiver<Sent>,
    oldest: Arc<Mutex<Option<Instant>>>,
    head: watch::Sender<u64>,
    follow_ups: mpsc::Sender<FollowUp>,
    /// Descriptors want more of their scripts.
    derive: Arc<Notify>,
    /// Inputs that are applied a portion at a time, between others.
    large: VecDeque<InputJob>,
    /// What is new in a large add of which a portion was refused goes again, before the next one.
    takes_back: bool,
    /// Monitoring is. A start without it has nothing to evict.
    is_stopped: bool,
    step_times: HistogramVec,
    budget: Duration,
}

impl Indexer {
    fn run(mut self) -> Result<(), IndexerError> {
        let (mut jobs, mut ends) = (VecDeque::new(), false);
        while !ends {
            let first = match self.has_more() {
                false => self.inbox.blocking_recv().ok_or(TryRecvError::Disconnected),
                true => self.inbox.try_recv(),
            };
            let other = match first {
                Ok(Sent { at, command }) => {
                    self.set_oldest(Some(at));
                    self.drain(command, &mut jobs)
                }
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(Command::Stop),
            };
            while !jobs.is_empty() {
                self.commit(&mut jobs)?;
            }
            match other {
                None => {}
                Some(Command::Stop) => ends = true,
                Some(command) => self.carry_out(command)?,
            }
            self.set_oldest(None);
            if !ends {
                self.go_on(&mut jobs)?;
            }
        }
        Ok(self.writer.close()?)
    }

    /// One portion of what is to be evicted or forgotten, and one of a large input; then it is the
    /// turn of what waits.
    fn go_on(&mut self, jobs: &mut VecDeque<InputJob>) -> Result<(), IndexerError> {
        if !self.has_more() {
            return Ok(());
        }
        self.set_oldest(Some(Instant::now()));
        if self.is_stopped {
            self.tracker.put_off_evictions();
        }
        if self.tracker.is_evicting() {
            jobs.push_back(InputJob::unanswered(Input::EvictMore));
            self.commit(jobs)?;
        }
        if self.tracker.has_to_join() {
            jobs.push_back(InputJob::unanswered(Input::Join { now: now_ms() }));
            self.commit(jobs)?;
        }
        if self.tracker.has_to_forget() {
            jobs.push_back(InputJob::unanswered(Input::Forget { now: now_ms() }));
            self.commit(jobs)?;
        }
        jobs.extend(self.next_portion());
        while !jobs.is_empty() {
            self.commit(jobs)?;
        }
        self.set_oldest(None);
        Ok(())
    }

    /// Whether there is something to go on with.
    fn has_more(&self) -> bool {
        self.tracker.is_evicting()
            || self.tracker.has_to_join()
            || self.tracker.has_to_forget()
            || !self.large.is_empty()
            || self.takes_back
    }

    /// The next portion of the first large input; the last one has its answer. A script that was
    /// removed since the first portion of an add is waited for.
    fn next_portion(&mut self) -> Option<InputJob> {
        if self.takes_back {
            let (scripts, now) = (self.tracker.some_adding(PORTION), now_ms());
            self.takes_back = !scripts.is_empty();
            if self.takes_back {
                return Some(InputJob::unanswered(Input::Unwatch { scripts, now }));
            }
        }
        let first = self.large.front_mut()?;
        if let Input::WatchPart { scripts, .. } = &first.input {
            let next = &scripts[..scripts.len().min(PORTION)];
            if self.tracker.still_forgetting(next).is_some() {
                return None;
            }
        }
        match cut(&mut first.input) {
            Some(portion) => Some(InputJob {
                owner: first.owner,
                ..InputJob::unanswered(portion)
            }),
            None => self.large.pop_front(),
        }
    }

    /// What is no input.
    fn carry_out(&mut self, command: Command) -> Result<(), IndexerError> {
        let began = Instant::now();
        match command {
            Command::Input(_) | Command::Stop => {
                unreachable!("inputs are in the batch, the stop ends the thread")
            }
            Command::Monitoring { on, answer } => {
                self.writer.remember_monitoring(on)?;
                self.is_stopped = !on;
                _ = answer.send(());
            }
            Command::Consumer {
                name,
                edits,
                sync,
                answer,
            } => {
                self.writer.edit_consumer(&name, &edits, sync)?;
                _ = answer.send(());
            }
            Command::Auth(job) => job.carry_out(&mut self.writer)?,
            Command::Prune { cutoff, answer } => {
                _ = answer.send(self.writer.prune_events(&cutoff)?)
            }
        }
        self.count_step(OTHER, began);
        Ok(())
    }

    fn set_oldest(&self, oldest: Option<Instant>) {
        *self.oldest.lock().unwrap_or_else(PoisonError::into_inner) = oldest;
    }

    fn count_step(&self, step: &str, began: Instant) {
        let times = self.step_times.with_label_values(&[step]);
        times.observe(began.elapsed().as_secs_f64());
    }

    /// The inputs that are waiting, `first` on, up to a command of another kind.
    fn drain(&mut self, first: Command, jobs: &mut VecDeque<InputJob>) -> Option<Command> {
        let (mut next, mut size) = (Some(first), 0);
        while let Some(command) = next {
            match command {
                Command::Input(mut job) if is_large(&job.input) && !self.is_too_early(&job) => {
                    job.input = in_parts(job.input);
                    self.large.push_back(job);
                }
                Command::Input(job) => {
                    size += size_of(&job.input);
                    jobs.push_back(job);
                }
                other => return Some(other),
            }
            next = if size < BATCH {
                self.inbox.try_recv().ok().map(|sent| sent.command)
            } else {
                None
            };
        }
        None
    }

    /// A large add that would wait is refused at once, as others are.
    fn is_too_early(&self, job: &InputJob) -> bool {
        let is_too_early = |scripts: &[_]| self.tracker.still_forgetting(scripts).is_some();
        matches!(&job.input, Input::Watch { scripts, .. } if is_too_early(scripts))
    }

    /// Applies the first of these inputs, as many as fit into the budget and at least one, and
    /// commits them. A large one is only ever the first: nothing that came before waits for it.
    fn commit(&mut self, jobs: &mut VecDeque<InputJob>) -> Result<(), IndexerError> {
        let (began, mut step) = (Instant::now(), OTHER);
        let mut overlay = Overlay::new(&self.writer);
        let (mut all, mut answers) = (Transition::default(), Vec::with_capacity(jobs.len()));
        let (mut sync, mut taken, mut owners) = (false, 0, OwnerEdits::default());
        while let Some(job) = jobs.pop_front_if(|next| {
            taken == 0 || size_of(&next.input) < BATCH && began.elapsed() < self.budget
        }) {
            taken += 1;
            let (lasting, owner) = (must_last(&job.input), job.owner);
            let is_of_large = matches!(job.input, Input::WatchPart { .. });
            let is_part = matches!(job.input, Input::WatchPart { is_last: false, .. });
            if is_block(&job.input) {
                step = BLOCK;
            }
            let result = match self.tracker.apply(&overlay, job.input) {
                Ok(transition) => {
                    // What said nothing new is on the disk already.
                    let is_empty = transition.changes.is_empty() && transition.events.is_empty();
                    let added = job.added + added_by(&transition);
                    if let Some(whole) = self.large.front_mut().filter(|_| is_part) {
                        whole.added += added;
                    }
                    sync |= lasting && !is_empty;
                    note_owner(&mut owners, &transition, owner);
                    overlay.add(transition.changes);
                    all.events.extend(transition.events);
                    all.follow_ups.extend(transition.follow_ups);
                    Ok(Done {
                        tip: self.tracker.tip(),
                        head: self.writer.head_after(all.events.len() as u64),
                        added,
                        is_evicting: self.tracker.is_evicting(),
                    })
                }
                Err(error) if error.is_fatal() => return Err(error.into()),
                Err(error) => {
                    self.takes_back |= is_of_large;
                    let whole = self.large.pop_front_if(|_| is_part);
                    let answer = whole.and_then(|whole| whole.answer);
                    answers.extend(answer.map(|answer| (answer, Err(error.clone()))));
                    Err(error)
                }
            };
            answers.extend(job.answer.map(|answer| (answer, result)));
        }
        all.changes = overlay.into_changes();
        let all_of_it = std::slice::from_ref(&all);
        let head = self.writer.commit_owned(all_of_it, &owners, sync)?;
        self.head
            .send_if_modified(|published| std::mem::replace(published, head) != head);
        for ask in all.follow_ups {
            if ask == FollowUp::Derive {
                self.derive.notify_one();
            } else if self.follow_ups.try_send(ask).is_err() {
                tracing::debug!("the follower is busy, dropped what the tracker asked for");
            }
        }
        for (answer, result) in answers {
            // Who does not wait for the answer does not need it.
            _ = answer.send(result);
        }
        self.count_step(step, began);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
