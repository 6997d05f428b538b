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
//! A refused input is answered to its sender and changes nothing. What nobody could repeat after a
//! power loss (blocks, what a person asked for) is synced; mempool inputs are not, since the
//! mempool is read again at start.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use prometheus::{HistogramOpts, HistogramVec};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::store::{ConsumerEdit, Cutoff, StoreError, StoreReader, Writer};
use crate::tracker::{ApplyError, Ask, BlockId, Input, Overlay, Tracker};

/// Inputs that may wait.
const INBOX: usize = 256;

/// Blocks among them: one is megabytes.
const WAITING_BLOCKS: usize = 4;

/// Inputs of one commit; scripts and outputs count as much as inputs do.
const BATCH: usize = 256;

/// After this time a batch takes no further input: all of them wait for its commit.
const BUDGET: Duration = Duration::from_millis(10);

/// Bounds of the counted times, in seconds.
const STEP_TIMES: [f64; 12] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0,
];

/// What an input led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Our tip after the input.
    pub tip: Option<BlockId>,
    /// Number of the last event before or of this input: later ones are not its doing.
    pub head: u64,
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

/// Why the thread ended, if not because it was told to.
#[derive(Debug, thiserror::Error)]
pub enum IndexerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fatal(#[from] ApplyError),
}

enum Command {
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
    Stop,
}

struct InputJob {
    input: Input,
    answer: Option<oneshot::Sender<Result<Done, ApplyError>>>,
    /// Held while a block waits.
    _room: Option<OwnedSemaphorePermit>,
}

/// Sends to the indexer. Clones are cheap.
#[derive(Clone)]
pub struct Handle {
    inbox: mpsc::Sender<Command>,
    blocks: Arc<Semaphore>,
    head: watch::Receiver<u64>,
    step_times: HistogramVec,
}

impl Handle {
    /// Applies an input and answers after its commit.
    pub async fn apply(&self, input: Input) -> Result<Done, InputRefused> {
        let (answer, answered) = oneshot::channel();
        self.queue(input, Some(answer)).await?;
        Ok(self.answer(answered).await??)
    }

    /// Queues an input, when there is room. Nobody hears if it is refused.
    pub async fn post(&self, input: Input) -> Result<(), IndexerStopped> {
        self.queue(input, None).await
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

    /// Number of the last committed event. A wake-up only: read the log from where you are. Ends
    /// when the indexer does.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    /// How long the thread was held each time, by a batch with a block in it or by anything else.
    pub fn step_times(&self) -> HistogramVec {
        self.step_times.clone()
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
        self.inbox.send(command).await.map_err(|_| IndexerStopped)
    }
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
    for script in reader.forgetting() {
        tracker.load_forgetting(script?);
    }
    for transaction in reader.unconfirmed_txs() {
        let (txid, row) = transaction?;
        tracker.load_unconfirmed(txid, &row);
    }
    Ok(tracker)
}

/// Starts the thread. `tracker` was [loaded](load) from the store that `writer` writes, `head` is
/// its head now. What the tracker asks for goes to `asks`; an ask that finds it full is dropped, a
/// later mempool snapshot leads to it again.
pub fn spawn(
    tracker: Tracker,
    writer: Writer,
    head: u64,
    asks: mpsc::Sender<Ask>,
) -> (Handle, JoinHandle<Result<(), IndexerError>>) {
    let (sender, inbox) = mpsc::channel(INBOX);
    let (publish, head) = watch::channel(head);
    let step_times = count_step_times();
    let handle = Handle {
        inbox: sender,
        blocks: Arc::new(Semaphore::new(WAITING_BLOCKS)),
        head,
        step_times: step_times.clone(),
    };
    let indexer = Indexer {
        tracker,
        writer,
        inbox,
        head: publish,
        asks,
        too_early: VecDeque::new(),
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
    inbox: mpsc::Receiver<Command>,
    head: watch::Sender<u64>,
    asks: mpsc::Sender<Ask>,
    /// Inputs that wait until scripts which they watch are forgotten.
    too_early: VecDeque<InputJob>,
    step_times: HistogramVec,
    budget: Duration,
}

impl Indexer {
    fn run(mut self) -> Result<(), IndexerError> {
        let (mut jobs, mut ends) = (VecDeque::new(), false);
        while !ends {
            let first = match self.tracker.is_forgetting() {
                false => self.inbox.blocking_recv().ok_or(TryRecvError::Disconnected),
                true => self.inbox.try_recv(),
            };
            let other = match first {
                Ok(command) => self.drain(command, &mut jobs),
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
            if self.tracker.is_forgetting() && !ends {
                self.forget(&mut jobs)?;
            }
        }
        Ok(self.writer.close()?)
    }

    /// One portion of what forgotten scripts have left; then it is the turn of what waits. Who
    /// waited for the last of it comes in again.
    fn forget(&mut self, jobs: &mut VecDeque<InputJob>) -> Result<(), IndexerError> {
        jobs.push_back(InputJob {
            input: Input::Forget,
            answer: None,
            _room: None,
        });
        self.commit(jobs)?;
        if !self.tracker.is_forgetting() {
            jobs.append(&mut self.too_early);
            while !jobs.is_empty() {
                self.commit(jobs)?;
            }
        }
        Ok(())
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
            Command::Prune { cutoff, answer } => {
                _ = answer.send(self.writer.prune_events(&cutoff)?)
            }
        }
        self.count_step(OTHER, began);
        Ok(())
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
                Command::Input(job) => {
                    size += size_of(&job.input);
                    jobs.push_back(job);
                }
                other => return Some(other),
            }
            next = if size < BATCH {
                self.inbox.try_recv().ok()
            } else {
                None
            };
        }
        None
    }

    /// Applies the first of these inputs, as many as fit into the budget and at least one, and
    /// commits them. A large one is only ever the first: nothing that came before waits for it.
    fn commit(&mut self, jobs: &mut VecDeque<InputJob>) -> Result<(), IndexerError> {
        let (began, mut step) = (Instant::now(), OTHER);
        let mut overlay = Overlay::new(&self.writer);
        let (mut transitions, mut answers) = (
            Vec::with_capacity(jobs.len()),
            Vec::with_capacity(jobs.len()),
        );
        let (mut count, mut sync, mut taken) = (0, false, 0);
        while let Some(job) = jobs.pop_front_if(|next| {
            taken == 0 || size_of(&next.input) < BATCH && began.elapsed() < self.budget
        }) {
            if self.tracker.is_too_early(&job.input) {
                self.too_early.push_back(job);
                continue;
            }
            taken += 1;
            let lasting = must_last(&job.input);
            if is_block(&job.input) {
                step = BLOCK;
            }
            let result = match self.tracker.apply(&overlay, job.input) {
                Ok(transition) => {
                    overlay.add(&transition.changes);
                    count += transition.events.len() as u64;
                    sync |= lasting;
                    transitions.push(transition);
                    Ok(Done {
                        tip: self.tracker.tip(),
                        head: self.writer.head_after(count),
                    })
                }
                Err(error) if error.is_fatal() => return Err(error.into()),
                Err(error) => Err(error),
            };
            answers.extend(job.answer.map(|answer| (answer, result)));
        }
        let head = self.writer.commit(&transitions, sync)?;
        self.head
            .send_if_modified(|published| std::mem::replace(published, head) != head);
        for ask in transitions
            .into_iter()
            .flat_map(|transition| transition.asks)
        {
            if self.asks.try_send(ask).is_err() {
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

/// What an input adds to a batch, in about the rows of one transaction. Blocks, and the end of a
/// scan, which does not say how many scripts it had, fill one.
fn size_of(input: &Input) -> usize {
    match input {
        Input::Watch { scripts, .. } => scripts.len().max(1),
        Input::Baseline {
            scripts, outputs, ..
        } => (scripts.len() + outputs.len()).max(1),
        Input::Unwatch { scripts, .. } | Input::OpenScan { scripts, .. } => scripts.len().max(1),
        Input::Past { blocks, .. } => blocks
            .iter()
            .map(|block| block.transactions.len())
            .sum::<usize>()
            .max(1),
        Input::Start { .. }
        | Input::Connect { .. }
        | Input::Disconnect { .. }
        | Input::CloseScan { .. }
        | Input::Forget => BATCH,
        Input::Snapshot { .. } | Input::SkipPast { .. } | Input::Policy(_) => 1,
        Input::TxSeen { .. } | Input::TxGone { .. } | Input::Settle { .. } => 1,
    }
}

/// Whether an input is about blocks, as large as they are.
fn is_block(input: &Input) -> bool {
    matches!(
        input,
        Input::Start { .. } | Input::Connect { .. } | Input::Disconnect { .. }
    )
}

/// Whether a change by this input must survive a power loss.
pub fn must_last(input: &Input) -> bool {
    match input {
        Input::Start { .. }
        | Input::Connect { .. }
        | Input::Disconnect { .. }
        | Input::Watch { .. }
        | Input::Baseline { .. } => true,
        Input::Unwatch { .. } | Input::OpenScan { .. } | Input::CloseScan { .. } => true,
        // A scan goes on from where the store says that it is.
        Input::Past { .. } | Input::SkipPast { .. } | Input::Forget => false,
        Input::TxSeen { .. }
        | Input::TxGone { .. }
        | Input::Settle { .. }
        | Input::Snapshot { .. }
        | Input::Policy(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bitcoin::hashes::Hash;
    use bitcoin::{
        Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Transaction, TxIn,
        TxMerkleNode, TxOut, Witness, absolute, block, transaction,
    };
    use tempfile::tempdir;

    use super::*;
    use crate::store::{ChainInfo, open_at_boot};
    use crate::tracker::{EventKind, Past, ScanEnd, ScanId, ScriptHash, Seen, WatchRequest};

    const NOW: u64 = 1_700_000_000_000;

    fn start() -> Input {
        Input::Start {
            first_height: 100,
            blocks: vec![(BlockHash::from_byte_array([1; 32]), 5)],
            now: NOW,
        }
    }

    fn spk(n: u8) -> ScriptBuf {
        ScriptBuf::from_bytes([&[0, 20][..], &[n; 20]].concat())
    }

    fn watch(n: u8, baseline: bool) -> Input {
        let past = if baseline { Past::Find } else { Past::Leave };
        Input::Watch {
            scripts: vec![WatchRequest {
                spk: spk(n),
                label: None,
                depths: Vec::new(),
                past,
            }],
            now: NOW,
        }
    }

    fn pays(n: u8) -> Transaction {
        let previous_output = OutPoint {
            txid: bitcoin::Txid::from_byte_array([n; 32]),
            vout: 0,
        };
        let input = TxIn {
            previous_output,
            witness: Witness::from_slice(&[[n; 4]]),
            ..TxIn::default()
        };
        let output = TxOut {
            value: Amount::from_sat(1_000),
            script_pubkey: spk(n),
        };
        Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![input],
            output: vec![output],
        }
    }

    fn accepted(n: u8) -> Input {
        Input::TxSeen {
            tx: pays(n),
            seen: Seen::Accepted,
            now: NOW,
        }
    }

    fn connect(previous: BlockHash, height: u32, txdata: Vec<Transaction>) -> (BlockHash, Input) {
        let header = block::Header {
            version: block::Version::TWO,
            prev_blockhash: previous,
            merkle_root: TxMerkleNode::all_zeros(),
            time: height,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        let mut block = Block { header, txdata };
        block.header.merkle_root = block.compute_merkle_root().expect("it has a transaction");
        (
            block.block_hash(),
            Input::Connect {
                block,
                height,
                now: NOW,
            },
        )
    }

    fn open(path: &Path, boot: &str) -> (Writer, StoreReader) {
        let chain = ChainInfo {
            network: Network::Regtest,
            genesis: BlockHash::all_zeros(),
        };
        open_at_boot(path, Some(chain), NOW, boot).expect("the store opens")
    }

    struct Running {
        handle: Handle,
        thread: JoinHandle<Result<(), IndexerError>>,
        asks: mpsc::Receiver<Ask>,
        reader: StoreReader,
    }

    fn run(path: &Path) -> Running {
        let (writer, reader) = open(path, "boot");
        let (asks, asked) = mpsc::channel(8);
        let tracker = load(&reader, [7; 16]).expect("the store loads");
        let head = writer.head();
        let (handle, thread) = spawn(tracker, writer, head, asks);
        Running {
            handle,
            thread,
            asks: asked,
            reader,
        }
    }

    #[tokio::test]
    async fn an_answer_comes_after_the_commit_and_the_head_with_it() {
        let folder = tempdir().unwrap();
        let Running {
            handle,
            thread,
            reader,
            ..
        } = run(folder.path());
        let head = handle.head();
        let tip = handle.apply(start()).await.unwrap().tip;
        assert_eq!(
            (tip.map(|tip| tip.height), reader.snapshot().tip().unwrap()),
            (Some(100), tip)
        );
        handle.apply(watch(1, false)).await.unwrap();
        let done = handle.apply(accepted(1)).await.unwrap();
        let events = reader.read_events(0, 99).unwrap();
        assert!(
            matches!(events[0].1.kind, EventKind::NewTransactions { .. }),
            "{events:?}"
        );
        assert_eq!(
            (done.head, *head.borrow(), reader.snapshot().head().unwrap()),
            (2, 2, 2)
        );
        assert_eq!(
            reader
                .snapshot()
                .watch(&ScriptHash::of(&spk(1)))
                .unwrap()
                .unwrap()
                .balance
                .unconfirmed,
            1_000
        );
        handle.stop().await;
        thread.join().unwrap().unwrap();
    }

    fn indexer(writer: Writer, inbox: mpsc::Receiver<Command>, budget: Duration) -> Indexer {
        Indexer {
            tracker: Tracker::new([7; 16]),
            writer,
            inbox,
            head: watch::channel(0).0,
            asks: mpsc::channel(1).0,
            too_early: VecDeque::new(),
            step_times: count_step_times(),
            budget,
        }
    }

    type Answered = oneshot::Receiver<Result<Done, ApplyError>>;

    fn job(input: Input) -> (InputJob, Answered) {
        let (answer, answered) = oneshot::channel();
        let job = InputJob {
            input,
            answer: Some(answer),
            _room: None,
        };
        (job, answered)
    }

    fn large_watch() -> Input {
        let request = WatchRequest {
            spk: spk(1),
            label: None,
            depths: Vec::new(),
            past: Past::Leave,
        };
        Input::Watch {
            scripts: vec![request; BATCH],
            now: NOW,
        }
    }

    /// How many of these inputs each commit has, and that those alone are answered by it.
    fn batches(budget: Duration, inputs: Vec<Input>) -> Vec<usize> {
        let folder = tempdir().unwrap();
        let (writer, _reader) = open(folder.path(), "boot");
        let mut indexer = indexer(writer, mpsc::channel(1).1, budget);
        indexer
            .commit(&mut VecDeque::from([job(start()).0]))
            .unwrap();
        let (mut jobs, mut answers): (VecDeque<_>, VecDeque<_>) =
            inputs.into_iter().map(job).unzip();
        let mut batches = Vec::new();
        while !jobs.is_empty() {
            let waiting = jobs.len();
            indexer.commit(&mut jobs).unwrap();
            batches.push(waiting - jobs.len());
            for mut answered in answers.drain(..waiting - jobs.len()) {
                assert!(answered.try_recv().is_ok());
            }
            for answered in &mut answers {
                assert_eq!(
                    answered.try_recv(),
                    Err(oneshot::error::TryRecvError::Empty)
                );
            }
        }
        batches
    }

    #[test]
    fn a_batch_that_has_had_its_time_takes_nothing_more() {
        let inputs = || vec![watch(1, false), accepted(1), accepted(2)];
        assert_eq!(batches(Duration::ZERO, inputs()), [1, 1, 1]);
        assert_eq!(batches(Duration::MAX, inputs()), [3]);
    }

    #[test]
    fn nothing_waits_for_a_large_input_behind_it() {
        let (_, block) = connect(BlockHash::from_byte_array([1; 32]), 101, vec![pays(1)]);
        let back = Input::Disconnect {
            to: BlockId {
                height: 100,
                hash: BlockHash::from_byte_array([1; 32]),
            },
            now: NOW,
        };
        let open = Input::OpenScan {
            scan: ScanId(1),
            scripts: vec![ScriptHash::of(&spk(1))],
            from: 0,
            to: None,
            now: NOW,
        };
        let close = Input::CloseScan {
            scan: ScanId(1),
            end: ScanEnd::Cancelled,
            now: NOW,
        };
        for large in [block, back, large_watch(), close] {
            let inputs = vec![
                watch(1, false),
                open.clone(),
                accepted(1),
                large,
                accepted(2),
            ];
            assert_eq!(batches(Duration::MAX, inputs), [3, 2]);
        }
    }

    #[tokio::test]
    async fn inputs_of_one_batch_see_each_other_and_know_their_own_head() {
        let folder = tempdir().unwrap();
        let (writer, reader) = open(folder.path(), "boot");
        let (_inbox_end, inbox) = mpsc::channel(1);
        let mut indexer = indexer(writer, inbox, BUDGET);
        let head = indexer.head.subscribe();
        let (hash, block) = connect(BlockHash::from_byte_array([1; 32]), 101, vec![pays(1)]);
        let stray = connect(BlockHash::from_byte_array([9; 32]), 102, vec![pays(2)]).1;
        let inputs = [
            start(),
            watch(1, false),
            accepted(1),
            stray,
            block,
            watch(2, false),
        ];
        let (mut jobs, answers): (VecDeque<_>, Vec<_>) = inputs.into_iter().map(job).unzip();
        while !jobs.is_empty() {
            indexer.commit(&mut jobs).unwrap();
        }
        let mut results = Vec::new();
        for answered in answers {
            results.push(
                answered
                    .await
                    .unwrap()
                    .map(|done| (done.tip.unwrap().height, done.head)),
            );
        }
        let stray_refused = matches!(results.remove(3), Err(ApplyError::DoesNotConnect { .. }));
        assert!(stray_refused);
        let done: Vec<_> = results.into_iter().map(Result::unwrap).collect();
        let last = *head.borrow();
        assert_eq!(
            done,
            [(100, 0), (100, 0), (100, 2), (101, last), (101, last)]
        );
        assert!(last > 2);
        let snapshot = reader.snapshot();
        assert_eq!(
            (
                snapshot.head().unwrap(),
                snapshot.tip().unwrap().unwrap().hash
            ),
            (last, hash)
        );
        assert_eq!(
            snapshot
                .watch(&ScriptHash::of(&spk(1)))
                .unwrap()
                .unwrap()
                .balance
                .confirmed,
            1_000
        );
    }

    #[tokio::test]
    async fn who_adds_what_is_being_forgotten_waits_for_it_and_nobody_else_does() {
        let folder = tempdir().unwrap();
        let (writer, reader) = open(folder.path(), "boot");
        let (asks, _asked) = mpsc::channel(8);
        let tracker = load(&reader, [7; 16]).unwrap().in_portions_of(4);
        let (handle, thread) = spawn(tracker, writer, 0, asks);
        handle.apply(start()).await.unwrap();
        handle.apply(watch(1, false)).await.unwrap();
        for n in 0..50 {
            let mut tx = pays(1);
            tx.input[0].previous_output.vout = n;
            let seen = Seen::Accepted;
            let now = NOW;
            handle.post(Input::TxSeen { tx, seen, now }).await.unwrap();
        }
        let gone = Input::Unwatch {
            scripts: vec![ScriptHash::of(&spk(1))],
            now: NOW,
        };
        let removed = handle.apply(gone).await.unwrap();
        let (added, other) =
            tokio::join!(handle.apply(watch(1, false)), handle.apply(watch(2, false)));
        assert_eq!((other.unwrap().head, added.unwrap().head), (101, 101));
        assert_eq!(removed.head, 101);
        let row = reader.snapshot().watch(&ScriptHash::of(&spk(1))).unwrap();
        let row = row.expect("it is watched again");
        assert_eq!((row.tx_count, row.balance.unconfirmed), (0, 0));
        assert_eq!(reader.forgetting().count(), 0);
        assert_eq!(reader.snapshot().counts().unwrap().transactions, 0);
        handle.stop().await;
        thread.join().unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_was_being_forgotten_at_the_stop_goes_after_the_next_start() {
        let folder = tempdir().unwrap();
        let (mut writer, reader) = open(folder.path(), "boot");
        let mut tracker = load(&reader, [7; 16]).unwrap().in_portions_of(4);
        let mut inputs = vec![start(), watch(1, false)];
        inputs.extend((0..9).map(|n| {
            let mut tx = pays(1);
            tx.input[0].previous_output.vout = n;
            let (seen, now) = (Seen::Accepted, NOW);
            Input::TxSeen { tx, seen, now }
        }));
        let (scripts, now) = (vec![ScriptHash::of(&spk(1))], NOW);
        inputs.push(Input::Unwatch { scripts, now });
        for input in inputs {
            let transition = tracker.apply(&writer, input).unwrap();
            writer.commit(&[transition], false).unwrap();
        }
        assert_eq!(reader.forgetting().count(), 1);
        drop((writer, reader));
        let Running {
            handle,
            thread,
            reader,
            ..
        } = run(folder.path());
        while reader.forgetting().count() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(reader.snapshot().counts().unwrap().transactions, 0);
        handle.stop().await;
        thread.join().unwrap().unwrap();
    }

    /// Each request may bring ten thousand scripts: all that wait in one batch would be gigabytes.
    #[test]
    fn a_large_request_ends_its_batch() {
        let folder = tempdir().unwrap();
        let (writer, _reader) = open(folder.path(), "boot");
        let (inbox_end, inbox) = mpsc::channel(8);
        let mut indexer = indexer(writer, inbox, BUDGET);
        let large = large_watch;
        for waiting in [accepted(1), large(), large(), accepted(2)] {
            inbox_end
                .try_send(Command::Input(job(waiting).0))
                .unwrap_or_else(|_| panic!("there is room"));
        }
        let mut batches = Vec::new();
        while let Ok(first) = indexer.inbox.try_recv() {
            let mut jobs = VecDeque::new();
            assert!(indexer.drain(first, &mut jobs).is_none());
            batches.push(jobs.len());
        }
        assert_eq!(batches, [2, 1, 1]);
    }

    #[tokio::test]
    async fn a_refused_input_changes_nothing_and_the_next_one_is_taken() {
        let folder = tempdir().unwrap();
        let Running {
            handle,
            thread,
            reader,
            ..
        } = run(folder.path());
        handle.apply(start()).await.unwrap();
        let refused = handle
            .apply(connect(BlockHash::all_zeros(), 101, vec![pays(1)]).1)
            .await;
        assert!(
            matches!(
                refused,
                Err(InputRefused::Apply(ApplyError::DoesNotConnect { .. }))
            ),
            "{refused:?}"
        );
        assert_eq!(reader.snapshot().tip().unwrap().unwrap().height, 100);
        let done = handle
            .apply(connect(BlockHash::from_byte_array([1; 32]), 101, vec![pays(1)]).1)
            .await
            .unwrap();
        assert_eq!(done.tip.unwrap().height, 101);
        drop(handle);
        thread.join().unwrap().unwrap();
    }

    #[tokio::test]
    async fn more_blocks_than_may_wait_all_arrive_in_order() {
        let folder = tempdir().unwrap();
        let Running {
            handle,
            thread,
            reader,
            ..
        } = run(folder.path());
        handle.post(start()).await.unwrap();
        let mut previous = BlockHash::from_byte_array([1; 32]);
        let blocks = 5 * u32::try_from(WAITING_BLOCKS).unwrap();
        for height in 101..=100 + blocks {
            let (hash, block) = connect(previous, height, vec![pays(1)]);
            handle.post(block).await.unwrap();
            previous = hash;
        }
        drop(handle);
        thread.join().unwrap().unwrap();
        assert_eq!(
            reader.snapshot().tip().unwrap().unwrap().height,
            100 + blocks
        );
    }

    #[tokio::test]
    async fn what_the_tracker_asks_for_goes_out_after_the_commit() {
        let folder = tempdir().unwrap();
        let Running {
            handle,
            mut asks,
            reader,
            ..
        } = run(folder.path());
        handle.apply(start()).await.unwrap();
        handle.post(watch(1, true)).await.unwrap();
        assert_eq!(asks.recv().await, Some(Ask::Baseline));
        assert_eq!(reader.snapshot().pending_baselines().count(), 1);
    }

    #[tokio::test]
    async fn a_follower_that_does_not_take_asks_holds_nothing_up() {
        let folder = tempdir().unwrap();
        let Running {
            handle,
            asks: _full,
            reader,
            ..
        } = run(folder.path());
        handle.apply(start()).await.unwrap();
        for n in 0..20 {
            handle.apply(watch(n, true)).await.unwrap();
        }
        assert_eq!(reader.snapshot().pending_baselines().count(), 20);
    }

    #[tokio::test]
    async fn a_stop_finishes_what_is_queued_and_closes_the_store_cleanly() {
        let folder = tempdir().unwrap();
        let Running {
            handle,
            thread,
            reader,
            asks,
        } = run(folder.path());
        let head = handle.head();
        for input in [start(), watch(1, false), accepted(1)] {
            handle.post(input).await.unwrap();
        }
        handle.stop().await;
        handle.stopped().await;
        thread.join().unwrap().unwrap();
        assert!(handle.has_stopped());
        assert_eq!(
            handle.apply(watch(2, false)).await,
            Err(InputRefused::Stopped(IndexerStopped))
        );
        assert_eq!(handle.post(watch(2, false)).await, Err(IndexerStopped));
        assert!(
            head.has_changed().is_err(),
            "those who wait for the head wake up"
        );
        drop((reader, asks));
        // Numbers are skipped after another boot unless the stop was clean.
        let (writer, reader) = open(folder.path(), "another boot");
        assert_eq!(
            (
                writer.head(),
                reader.snapshot().tip().unwrap().unwrap().height
            ),
            (2, 100)
        );
    }

    /// The daemon tells why the indexer ended; if what came of it were heard first, it would tell
    /// that instead.
    #[tokio::test]
    async fn who_hears_that_it_stopped_finds_it_stopped() {
        let (sender, mut inbox) = mpsc::channel(1);
        let handle = Handle {
            inbox: sender,
            blocks: Arc::new(Semaphore::new(1)),
            head: watch::channel(0).1,
            step_times: count_step_times(),
        };
        let waiting =
            tokio::spawn(async move { (handle.apply(start()).await, handle.has_stopped()) });
        // A commit fails: its answers are gone, and the thread ends, soon.
        drop(inbox.recv().await.expect("the input arrives"));
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        drop(inbox);
        assert_eq!(
            waiting.await.unwrap(),
            (Err(InputRefused::Stopped(IndexerStopped)), true)
        );
    }

    #[tokio::test]
    async fn the_next_start_goes_on_where_this_one_ended() {
        let folder = tempdir().unwrap();
        let Running {
            handle,
            thread,
            reader,
            ..
        } = run(folder.path());
        for input in [start(), watch(1, false), accepted(1)] {
            handle.apply(input).await.unwrap();
        }
        handle.remember_monitoring(true).await.unwrap();
        handle.stop().await;
        thread.join().unwrap().unwrap();
        drop(reader);

        let Running { handle, reader, .. } = run(folder.path());
        assert_eq!(
            (*handle.head().borrow(), reader.monitoring().unwrap()),
            (2, Some(true))
        );
        assert_eq!(
            handle.apply(accepted(1)).await.unwrap().head,
            2,
            "it is known, so nothing is told twice"
        );
        let spend = Transaction {
            input: vec![TxIn {
                previous_output: OutPoint {
                    txid: pays(1).compute_txid(),
                    vout: 0,
                },
                ..TxIn::default()
            }],
            ..pays(3)
        };
        handle
            .apply(Input::TxSeen {
                tx: spend,
                seen: Seen::Accepted,
                now: NOW,
            })
            .await
            .unwrap();
        let watch = reader
            .snapshot()
            .watch(&ScriptHash::of(&spk(1)))
            .unwrap()
            .unwrap();
        assert_eq!(
            (watch.balance.total(), watch.tx_count),
            (0, 2),
            "the output was loaded, so its spend is seen"
        );
    }

    #[tokio::test]
    async fn retention_is_asked_for_through_the_handle() {
        let folder = tempdir().unwrap();
        let Running { handle, reader, .. } = run(folder.path());
        for input in [start(), watch(1, false), accepted(1)] {
            handle.apply(input).await.unwrap();
        }
        let by_clock = |before| Cutoff {
            before,
            now: u64::MAX,
            young: u32::MAX,
        };
        assert_eq!(handle.prune_events(by_clock(NOW)).await.unwrap(), 0);
        assert_eq!(handle.prune_events(by_clock(NOW + 1)).await.unwrap(), 2);
        assert_eq!(
            (
                reader.first_seq().unwrap(),
                reader.read_events(0, 9).unwrap()
            ),
            (3, vec![])
        );
    }
}
