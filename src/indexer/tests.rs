use std::path::Path;

use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness, absolute, block, transaction,
};
use tempfile::tempdir;
use tokio::sync::oneshot;

use super::*;
use crate::store::{ChainInfo, Cutoff, open_at_boot};
use crate::tracker::{
    Baseline, BlockId, EventKind, ScanEnd, ScanId, ScriptHash, Seen, WatchRequest,
};

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
    let baseline = if baseline {
        Baseline::IfMissing
    } else {
        Baseline::Skip
    };
    Input::Watch {
        scripts: vec![WatchRequest {
            spk: spk(n),
            label: None,
            depths: Vec::new(),
            baseline,
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
        tx: (&pays(n)).into(),
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
            block: (&block).into(),
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
    follow_ups: mpsc::Receiver<FollowUp>,
    reader: StoreReader,
}

fn run(path: &Path) -> Running {
    let (writer, reader) = open(path, "boot");
    let (follow_ups, asked) = mpsc::channel(8);
    let tracker = load(&reader, [7; 16]).expect("the store loads");
    let head = writer.head();
    let (handle, thread) = spawn(tracker, writer, head, follow_ups);
    Running {
        handle,
        thread,
        follow_ups: asked,
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

fn indexer(writer: Writer, inbox: mpsc::Receiver<Sent>, budget: Duration) -> Indexer {
    Indexer {
        tracker: Tracker::new([7; 16]),
        writer,
        inbox,
        oldest: Arc::default(),
        head: watch::channel(0).0,
        follow_ups: mpsc::channel(1).0,
        derive: Arc::default(),
        large: VecDeque::new(),
        takes_back: false,
        is_stopped: false,
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
        owner: None,
        added: 0,
        _room: None,
    };
    (job, answered)
}

fn large_watch() -> Input {
    let request = WatchRequest {
        spk: spk(1),
        label: None,
        depths: Vec::new(),
        baseline: Baseline::Skip,
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
    let (mut jobs, mut answers): (VecDeque<_>, VecDeque<_>) = inputs.into_iter().map(job).unzip();
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
        end: ScanEnd::Cancelled(None),
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

fn unwatch(n: u8) -> Input {
    let scripts = vec![ScriptHash::of(&spk(n))];
    Input::Unwatch { scripts, now: NOW }
}

/// An indexer that forgets in portions of four, and two scripts of fifty transactions each that are
/// not watched any more.
fn forgetting(path: &Path) -> (Indexer, StoreReader) {
    let (writer, reader) = open(path, "boot");
    let mut indexer = indexer(writer, mpsc::channel(1).1, BUDGET);
    indexer.tracker = Tracker::new([7; 16]).in_portions_of(4);
    let mut inputs = vec![start(), watch(1, false), watch(2, false)];
    for (script, n) in (1..3).flat_map(|script| (0..50).map(move |n| (script, n))) {
        let mut tx = pays(script);
        tx.input[0].previous_output.vout = n;
        let (tx, seen, now) = ((&tx).into(), Seen::Accepted, NOW);
        inputs.push(Input::TxSeen { tx, seen, now });
    }
    inputs.extend([unwatch(1), unwatch(2)]);
    let mut jobs = inputs.into_iter().map(InputJob::unanswered).collect();
    while !VecDeque::is_empty(&jobs) {
        indexer.commit(&mut jobs).unwrap();
    }
    assert_eq!(reader.forgetting().count(), 2);
    (indexer, reader)
}

#[test]
fn who_adds_what_is_being_forgotten_is_refused_until_it_is_gone() {
    let folder = tempdir().unwrap();
    let (mut indexer, reader) = forgetting(folder.path());
    let add = |indexer: &mut Indexer, n| {
        let (job, mut answered) = job(watch(n, false));
        indexer.commit(&mut VecDeque::from([job])).unwrap();
        answered.try_recv().unwrap().map(|_| ())
    };
    let script = |n| ScriptHash::of(&spk(n));
    let refused = |n| Err(ApplyError::StillForgetting(script(n)));
    assert_eq!(add(&mut indexer, 1), refused(1));
    assert_eq!(add(&mut indexer, 3), Ok(()), "nobody else waits");
    while reader.forgetting().count() == 2 {
        indexer.go_on(&mut VecDeque::new()).unwrap();
    }
    let left = reader.forgetting().next().unwrap().unwrap();
    let (gone, going) = if left == script(1) { (2, 1) } else { (1, 2) };
    assert_eq!(add(&mut indexer, gone), Ok(()));
    assert_eq!(add(&mut indexer, going), refused(going));
    let row = reader.snapshot().watch(&script(gone)).unwrap();
    let row = row.expect("it is watched again");
    assert_eq!((row.tx_count, row.balance.unconfirmed), (0, 0));
    while indexer.has_more() {
        indexer.go_on(&mut VecDeque::new()).unwrap();
    }
    assert_eq!(add(&mut indexer, going), Ok(()));
    assert_eq!(reader.snapshot().counts().unwrap().transactions, 0);
}

#[test]
fn a_large_add_of_what_is_being_forgotten_is_refused_and_one_that_has_begun_waits() {
    let folder = tempdir().unwrap();
    let (mut indexer, reader) = forgetting(folder.path());
    let requests = |scripts: Vec<ScriptBuf>| {
        let request = |spk| WatchRequest {
            spk,
            label: None,
            depths: Vec::new(),
            baseline: Baseline::Skip,
        };
        let scripts = scripts.into_iter().map(request).collect();
        Input::Watch { scripts, now: NOW }
    };
    let mut jobs = VecDeque::new();
    let of_it = [many(600), vec![spk(1)]].concat();
    let (add, mut answered) = job(requests(of_it.clone()));
    assert!(indexer.drain(Command::Input(add), &mut jobs).is_none());
    indexer.commit(&mut jobs).unwrap();
    let refused = answered.try_recv().unwrap();
    assert!(matches!(refused, Err(ApplyError::StillForgetting(_))));
    // As if it had been removed since its first portion.
    let (mut add, mut answered) = job(requests(of_it));
    if let Input::Watch { scripts, now } = add.input {
        let is_last = true;
        add.input = Input::WatchPart {
            scripts,
            is_last,
            now,
        };
    }
    indexer.large.push_back(add);
    let portions = |reader: &StoreReader| reader.snapshot().counts().unwrap().addresses;
    indexer.go_on(&mut jobs).unwrap();
    indexer.go_on(&mut jobs).unwrap();
    assert_eq!(portions(&reader), 500);
    let script = ScriptHash::of(&spk(1));
    while reader.forgetting().any(|left| left.unwrap() == script) {
        assert!(answered.try_recv().is_err());
        indexer.go_on(&mut jobs).unwrap();
    }
    indexer.go_on(&mut jobs).unwrap();
    assert!(answered.try_recv().unwrap().is_ok());
    assert_eq!(portions(&reader), 601);
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
        let (tx, seen, now) = ((&tx).into(), Seen::Accepted, NOW);
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

fn verdict() -> (InputJob, Answered) {
    let (spared, now) = (Vec::new(), NOW);
    job(Input::EvictMissing { spared, now })
}

/// One that evicts nine payments, two at a time, after its verdict.
fn evicting(writer: Writer) -> (Indexer, Answered) {
    let (_, inbox) = mpsc::channel(8);
    let mut indexer = indexer(writer, inbox, BUDGET);
    indexer.tracker = Tracker::new([7; 16]).in_portions_of(4);
    let (mut inputs, mut txids) = (vec![start(), watch(1, false)], Vec::new());
    for n in 0..9 {
        let mut tx = pays(1);
        tx.input[0].previous_output.vout = n;
        txids.push(tx.compute_txid());
        let (tx, seen, now) = ((&tx).into(), Seen::Accepted, NOW);
        inputs.push(Input::TxSeen { tx, seen, now });
    }
    inputs.push(Input::TxRemoved { txids });
    let mut jobs: VecDeque<_> = inputs.into_iter().map(|input| job(input).0).collect();
    let (first, said) = verdict();
    jobs.push_back(first);
    while !jobs.is_empty() {
        indexer.commit(&mut jobs).unwrap();
    }
    (indexer, said)
}

#[test]
fn what_the_mempool_has_lost_is_evicted_in_portions_without_being_asked_again() {
    let folder = tempdir().unwrap();
    let (writer, reader) = open(folder.path(), "boot");
    let (mut indexer, mut said_first) = evicting(writer);
    let left = || reader.unconfirmed_txs().count();
    let mut portions = vec![left()];
    while indexer.has_more() {
        indexer.go_on(&mut VecDeque::new()).unwrap();
        portions.push(left());
    }
    assert_eq!(portions, [7, 5, 3, 1, 0]);
    let (last, mut said_last) = verdict();
    indexer.commit(&mut VecDeque::from([last])).unwrap();
    let is_evicting = |said: &mut Answered| said.try_recv().unwrap().unwrap().is_evicting;
    assert!(is_evicting(&mut said_first) && !is_evicting(&mut said_last));
}

/// The mempool is read again at the next start, which is the last word on what is left.
#[test]
fn while_monitoring_is_stopped_nothing_more_is_evicted() {
    let folder = tempdir().unwrap();
    let (writer, reader) = open(folder.path(), "boot");
    let (mut indexer, _) = evicting(writer);
    let left = || reader.unconfirmed_txs().count();
    let switch = |indexer: &mut Indexer, on| {
        let answer = oneshot::channel().0;
        let switched = indexer.carry_out(Command::Monitoring { on, answer });
        switched.unwrap();
    };
    let go_on = |indexer: &mut Indexer| {
        for _ in 0..9 {
            indexer.go_on(&mut VecDeque::new()).unwrap();
        }
    };
    switch(&mut indexer, false);
    go_on(&mut indexer);
    assert_eq!((left(), indexer.has_more()), (7, false));
    // The follower gave it before it heard of the stop.
    let late = VecDeque::from([verdict().0]);
    indexer.commit(&mut { late }).unwrap();
    go_on(&mut indexer);
    assert_eq!((left(), indexer.has_more()), (5, false));
    switch(&mut indexer, true);
    go_on(&mut indexer);
    assert_eq!(left(), 5, "nobody has read the mempool yet");
    indexer.commit(&mut VecDeque::from([verdict().0])).unwrap();
    go_on(&mut indexer);
    assert_eq!(left(), 0);
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
            .try_send(Sent::now(Command::Input(job(waiting).0)))
            .unwrap_or_else(|_| panic!("there is room"));
    }
    let mut batches = Vec::new();
    while let Ok(first) = indexer.inbox.try_recv() {
        let mut jobs = VecDeque::new();
        assert!(indexer.drain(first.command, &mut jobs).is_none());
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
        mut follow_ups,
        reader,
        ..
    } = run(folder.path());
    handle.apply(start()).await.unwrap();
    handle.post(watch(1, true)).await.unwrap();
    assert_eq!(follow_ups.recv().await, Some(FollowUp::Baseline));
    assert_eq!(reader.snapshot().pending_baselines().count(), 1);
}

#[tokio::test]
async fn a_follower_that_does_not_take_asks_holds_nothing_up() {
    let folder = tempdir().unwrap();
    let Running {
        handle,
        follow_ups: _full,
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
        follow_ups,
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
    drop((reader, follow_ups));
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
        oldest: Arc::default(),
        blocks: Arc::new(Semaphore::new(1)),
        head: watch::channel(0).1,
        derive: Arc::default(),
        step_times: count_step_times(),
    };
    let waiting = tokio::spawn(async move { (handle.apply(start()).await, handle.has_stopped()) });
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
            tx: (&spend).into(),
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

fn many(count: u16) -> Vec<ScriptBuf> {
    let spk = |n: u16| ScriptBuf::from_bytes([&[0, 20][..], &n.to_be_bytes(), &[7; 18]].concat());
    (0..count).map(spk).collect()
}

fn watch_many(count: u16) -> Input {
    let request = |spk| WatchRequest {
        spk,
        label: None,
        depths: Vec::new(),
        baseline: Baseline::Skip,
    };
    Input::Watch {
        scripts: many(count).into_iter().map(request).collect(),
        now: NOW,
    }
}

#[tokio::test]
async fn a_large_add_lets_others_pass_and_leaves_nothing_when_it_is_cut_short() {
    let folder = tempdir().unwrap();
    let (writer, reader) = open(folder.path(), "boot");
    let (inbox_end, inbox) = mpsc::channel(8);
    let mut indexer = indexer(writer, inbox, BUDGET);
    let ((large, mut added), (small, mut other)) = (job(watch_many(1200)), job(watch(1, false)));
    inbox_end
        .try_send(Sent::now(Command::Input(small)))
        .unwrap_or_else(|_| panic!("there is room"));
    let mut jobs = VecDeque::new();
    assert!(indexer.drain(Command::Input(large), &mut jobs).is_none());
    for portions in 1..3 {
        indexer.go_on(&mut jobs).unwrap();
        assert_eq!(
            reader.snapshot().adding().unwrap().len(),
            portions * PORTION
        );
    }
    assert!(other.try_recv().unwrap().is_ok() && added.try_recv().is_err());
    assert_eq!(reader.snapshot().counts().unwrap().addresses, 1001);
    drop((indexer, reader));
    let Running {
        handle,
        thread,
        reader,
        ..
    } = run(folder.path());
    undo_unfinished_add(&handle, &reader, NOW).await.unwrap();
    assert_eq!(reader.snapshot().counts().unwrap().addresses, 1);
    assert!(reader.snapshot().adding().unwrap().is_empty());
    assert_eq!(*handle.head().borrow(), 0, "nobody is told");
    for (count, new) in [(1200, 1200), (1300, 100)] {
        let done = handle.apply(watch_many(count)).await.unwrap();
        assert_eq!(done.added, new);
    }
    undo_unfinished_add(&handle, &reader, NOW).await.unwrap();
    assert_eq!(reader.snapshot().counts().unwrap().addresses, 1301);
    handle.stop().await;
    thread.join().unwrap().unwrap();
}

#[tokio::test]
async fn a_large_scan_is_opened_ended_and_emptied_in_portions() {
    let folder = tempdir().unwrap();
    let Running {
        handle,
        thread,
        reader,
        ..
    } = run(folder.path());
    handle.apply(start()).await.unwrap();
    handle.apply(watch_many(1200)).await.unwrap();
    let open = |scan| Input::OpenScan {
        scan,
        scripts: many(1200).iter().map(|spk| ScriptHash::of(spk)).collect(),
        from: 0,
        to: Some(0),
        now: NOW,
    };
    let scripts = |scan| reader.snapshot().scan_scripts(&scan).unwrap().len();
    handle.apply(open(ScanId(1))).await.unwrap();
    let row = reader.snapshot().scan(&ScanId(1)).unwrap().unwrap();
    assert_eq!((row.scripts, scripts(ScanId(1))), (1200, 1200));
    let script = ScriptHash::of(&many(1)[0]);
    assert!(reader.snapshot().is_in_scan(&script).unwrap());
    let close = |end| Input::CloseScan {
        scan: ScanId(1),
        end,
        now: NOW,
    };
    handle.apply(close(ScanEnd::Cancelled(None))).await.unwrap();
    assert!(!reader.snapshot().is_in_scan(&script).unwrap());
    while scripts(ScanId(1)) > 0 {
        tokio::task::yield_now().await;
    }
    handle.stop().await;
    thread.join().unwrap().unwrap();
}

#[tokio::test]
async fn what_an_ended_scan_or_one_that_was_never_opened_left_goes_after_the_next_start() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path(), "boot");
    let mut tracker = load(&reader, [7; 16]).unwrap().in_portions_of(4);
    let scripts: Vec<_> = many(20).iter().map(|spk| ScriptHash::of(spk)).collect();
    let (from, to, now) = (0, None, NOW);
    let (scan, end) = (ScanId(u64::MAX), ScanEnd::Cancelled(None));
    let inputs = [
        start(),
        watch_many(20),
        Input::OpenScan {
            scan,
            scripts: scripts.clone(),
            from,
            to,
            now,
        },
        Input::CloseScan { scan, end, now },
        Input::ScanScripts {
            scan: ScanId(1),
            scripts: scripts.clone(),
        },
        Input::OpenScan {
            scan: ScanId(2),
            scripts,
            from,
            to,
            now,
        },
    ];
    for input in inputs {
        let transition = tracker.apply(&writer, input).unwrap();
        writer.commit(&[transition], false).unwrap();
    }
    let ended = |reader: &StoreReader| reader.snapshot().ended_scans_with_scripts().unwrap();
    assert_eq!(ended(&reader), [ScanId(1), scan]);
    drop((writer, reader));
    let Running {
        handle,
        thread,
        reader,
        ..
    } = run(folder.path());
    while !ended(&reader).is_empty() {
        tokio::task::yield_now().await;
    }
    let left = reader.snapshot().scan_scripts(&ScanId(2)).unwrap();
    assert_eq!(left.len(), 20, "the open one keeps its own");
    handle.stop().await;
    thread.join().unwrap().unwrap();
}

#[test]
fn the_indexer_is_behind_by_the_age_of_what_it_is_busy_with() {
    let folder = tempdir().unwrap();
    let (writer, _reader) = open(folder.path(), "boot");
    let (sender, inbox) = mpsc::channel(8);
    let indexer = indexer(writer, inbox, BUDGET);
    let handle = Handle {
        inbox: sender.clone(),
        oldest: indexer.oldest.clone(),
        blocks: Arc::new(Semaphore::new(1)),
        head: indexer.head.subscribe(),
        derive: Arc::default(),
        step_times: count_step_times(),
    };
    assert_eq!(handle.behind(), Duration::ZERO);
    let minute = Duration::from_secs(60);
    indexer.set_oldest(Instant::now().checked_sub(minute));
    assert!(handle.behind() >= minute);
    sender
        .try_send(Sent::now(Command::Stop))
        .unwrap_or_else(|_| panic!("there is room"));
    indexer.run().unwrap();
    assert_eq!(
        handle.behind(),
        Duration::ZERO,
        "it has done what it was sent"
    );
}

/// Calls back when it is woken.
struct Look<F>(F);

impl<F: Fn() + Send + Sync + 'static> std::task::Wake for Look<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

#[test]
fn the_indexer_is_behind_by_the_age_of_a_portion_that_it_is_busy_with() {
    let folder = tempdir().unwrap();
    let (writer, _reader) = open(folder.path(), "boot");
    let mut indexer = indexer(writer, mpsc::channel(1).1, BUDGET);
    let (large, mut answered) = job(watch_many(600));
    let mut jobs = VecDeque::new();
    assert!(indexer.drain(Command::Input(large), &mut jobs).is_none());
    // Who hears the answer looks while the last portion is not done.
    let (oldest, seen) = (indexer.oldest.clone(), Arc::new(Mutex::new(None)));
    let was_busy = seen.clone();
    let look = Look(move || *seen.lock().unwrap() = Some(oldest.lock().unwrap().is_some()));
    let waker = Arc::new(look).into();
    let mut context = std::task::Context::from_waker(&waker);
    let answered = std::pin::Pin::new(&mut answered);
    assert!(answered.poll(&mut context).is_pending());
    indexer.go_on(&mut jobs).unwrap();
    indexer.go_on(&mut jobs).unwrap();
    assert_eq!(*was_busy.lock().unwrap(), Some(true));
    assert!(indexer.oldest.lock().unwrap().is_none());
}

#[test]
fn a_large_add_of_which_a_portion_is_refused_ends_and_what_is_new_in_it_goes_again() {
    for refused_of in [700, 1199] {
        let folder = tempdir().unwrap();
        let (writer, reader) = open(folder.path(), "boot");
        let (_inbox_end, inbox) = mpsc::channel(8);
        let mut indexer = indexer(writer, inbox, BUDGET);
        let add = |numbers: std::ops::Range<usize>, depths: std::ops::RangeInclusive<u8>| {
            let request = |spk| WatchRequest {
                spk,
                label: None,
                depths: depths.clone().collect(),
                baseline: Baseline::Skip,
            };
            let scripts = many(1200).drain(numbers).map(request).collect();
            job(Input::Watch { scripts, now: NOW })
        };
        let mut jobs = VecDeque::new();
        // Of these one has all that there may be, and another is new in the large add.
        for depths in [1..=8, 9..=16] {
            let (small, _) = add(refused_of..refused_of + 1, depths);
            jobs.push_back(small);
        }
        indexer.commit(&mut jobs).unwrap();
        let (large, mut answered) = add(0..1200, 17..=17);
        assert!(indexer.drain(Command::Input(large), &mut jobs).is_none());
        let (next, mut other) = add(0..600, 2..=2);
        assert!(indexer.drain(Command::Input(next), &mut jobs).is_none());
        indexer.go_on(&mut jobs).unwrap();
        assert_eq!(reader.snapshot().counts().unwrap().addresses, 501);
        while answered.is_empty() {
            indexer.go_on(&mut jobs).unwrap();
        }
        let refused = answered.try_recv().unwrap();
        assert!(matches!(refused, Err(ApplyError::TooManyDepths { .. })));
        while indexer.takes_back {
            assert!(other.is_empty(), "the next one waits");
            indexer.go_on(&mut jobs).unwrap();
        }
        assert!(reader.snapshot().adding().unwrap().len() <= PORTION);
        while indexer.has_more() {
            indexer.go_on(&mut jobs).unwrap();
        }
        assert!(reader.snapshot().adding().unwrap().is_empty());
        assert_eq!(other.try_recv().unwrap().map(|done| done.added), Ok(600));
        assert_eq!(reader.snapshot().counts().unwrap().addresses, 601);
    }
}
