//! What unrelated traffic costs from the bytes of a ZMQ message to the verdict, beside the floor of
//! parsing and hashing it, and what the tracker's memory costs.
//!
//! ```text
//! cargo bench --bench tracker
//! ```
//!
//! Target (architecture.md, decision 9): unwatched traffic costs at most 1.5 times parsing and
//! hashing it, however many scripts are watched. The floor deserializes, computes the txid, hashes
//! each output script with SHA-256 and each spent outpoint with SipHash, as any indexer has to.
//! Everything here is made of transactions with two inputs and two outputs (370 bytes).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Transaction, TxIn, TxMerkleNode,
    TxOut, Txid, Witness, transaction,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use satwatch::bitcoind::Endpoints;
use satwatch::bitcoind::rpc::{Blockchain, MempoolInfo};
use satwatch::bitcoind::zmq::{
    MessageBody, Notice, Sequence, SequenceEvent, Stamped, ZmqMessage, ZmqTopic,
};
use satwatch::config;
use satwatch::follower::machines::{
    Action, Answer, Follower, FollowerEvent, MempoolRead, MempoolSnapshot, NodeLink, NodeUrl, Now,
    Relation, StatusBuilder, TipComparison,
};
use satwatch::indexer::Done;
use satwatch::tracker::fingerprints::Fingerprints;
use satwatch::tracker::{
    Baseline, BlockId, Coverage, Input, MemoryView, ScriptHash, Tracker, WatchRequest, WatchRow,
};

const TRANSACTIONS: u64 = 100_000;
const IN_BLOCK: usize = 4_000;
const WATCHED: [u64; 3] = [1_000, 100_000, 10_000_000];
/// Of each measurement; the quickest one counts, because the machine may be busy with something
/// else meanwhile.
const TURNS: usize = 5;

/// Counts the bytes that are in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system's allocator; the counter has no influence on it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn script(family: u8, number: u64) -> ScriptBuf {
    let mut bytes = vec![0x00, 0x14, family];
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.resize(22, 0);
    ScriptBuf::from_bytes(bytes)
}

fn unrelated(number: u64) -> Transaction {
    let input = |index: u32| TxIn {
        previous_output: OutPoint {
            txid: Txid::hash(&(number * 2 + u64::from(index)).to_le_bytes()),
            vout: index,
        },
        script_sig: ScriptBuf::new(),
        sequence: bitcoin::Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::from_slice(&[[1; 71].as_slice(), &[2; 33]]),
    };
    let output = |index: u64| TxOut {
        value: Amount::from_sat(number),
        script_pubkey: script(2, number * 2 + index),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input(0), input(1)],
        output: vec![output(0), output(1)],
    }
}

fn watch_row(number: u64) -> WatchRow {
    WatchRow {
        spk: script(1, number),
        listed: true,
        derivations: Vec::new(),
        label: String::new(),
        added: 0,
        depths: vec![1],
        coverage: Coverage::default(),
        balance: Default::default(),
        utxo_count: 0,
        outputs: 0,
        tx_count: 0,
        updated: 0,
    }
}

/// The first block of the chain here.
fn tip() -> BlockId {
    BlockId {
        height: 0,
        hash: BlockHash::all_zeros(),
    }
}

const INTERVAL: Duration = Duration::from_secs(3600);

/// From the messages of a node to the tracker's verdicts, without sockets and threads between.
struct Path {
    follower: Follower,
    now: Now,
    tracker: Tracker,
    view: MemoryView,
    events: usize,
}

impl Path {
    /// At the node's tip, with so many watched scripts.
    fn new(watched: u64) -> Self {
        let instant = Instant::now();
        let now = Now { instant, ms: 1 };
        let mut path = Self {
            follower: follower(now),
            now,
            tracker: Tracker::new([7; 16]),
            view: MemoryView::default(),
            events: 0,
        };
        path.apply(Input::Start {
            first_height: tip().height,
            blocks: vec![(tip().hash, 0)],
            now: 0,
        });
        (0..watched).for_each(|number| path.tracker.load_watch(&watch_row(number)));
        path.begin();
        path
    }

    /// From the first block and an empty mempool on.
    fn begin(&mut self) {
        self.tracker.load_tip(Some(tip()));
        self.view.tip.insert((), tip());
        self.follower = follower(self.now);
        let endpoint = Some("tcp://127.0.0.1:28332".to_owned());
        let endpoints = Endpoints {
            rawtx: endpoint.clone(),
            rawblock: endpoint.clone(),
            sequence: endpoint,
        };
        let node: Blockchain = serde_json::from_value(serde_json::json!({
            "chain": "main", "blocks": tip().height, "headers": tip().height, "bestblockhash": tip().hash,
        }))
        .expect("it is one");
        let relation = Relation::Same;
        let snapshot = MempoolSnapshot {
            tip: tip().hash,
            txids: BTreeSet::new(),
            sequence: Some(1),
            info: MempoolInfo::default(),
        };
        self.handle(FollowerEvent::Found(endpoints));
        for _ in 0..2 {
            let look = TipComparison {
                node: node.clone(),
                relation: relation.clone(),
            };
            self.handle(FollowerEvent::Answered(Answer::Look(Ok(look))));
            let read = MempoolRead::Whole(snapshot.clone());
            self.handle(FollowerEvent::Answered(Answer::Mempool(Ok(read))));
            self.notice(Notice::Connected(ZmqTopic::ALL.to_vec()));
            self.now.instant += Duration::from_secs(1);
        }
    }

    /// As the follower's shell does.
    fn handle(&mut self, event: FollowerEvent) {
        let (mut next, mut events) = (Some(event), VecDeque::new());
        while let Some(event) = next {
            for action in self.follower.handle(event, self.now) {
                match action {
                    Action::Post(input) => self.apply(input),
                    Action::Apply(input) => {
                        self.apply(input);
                        let done = Done {
                            tip: self.tracker.tip(),
                            is_evicting: self.tracker.is_evicting(),
                            ..Done::default()
                        };
                        events.push_back(FollowerEvent::Applied(Ok(done)));
                    }
                    _ => {}
                }
            }
            next = events.pop_front();
        }
    }

    fn apply(&mut self, input: Input) {
        let transition = self.tracker.apply(&self.view, input).expect("it is legal");
        assert!(transition.follow_ups.is_empty());
        self.events += transition.events.len();
        self.view.commit(&transition.changes);
    }

    fn notice(&mut self, notice: Notice) {
        self.handle(FollowerEvent::Notice(Stamped { at: 1, notice }));
    }

    fn message(&mut self, topic: ZmqTopic, body: MessageBody) {
        let number = 0;
        self.notice(Notice::Message(ZmqMessage {
            topic,
            number,
            body,
        }));
    }

    fn sequence(&mut self, hash: [u8; 32], what: SequenceEvent) {
        let body = MessageBody::Sequence(Sequence { hash, what });
        self.message(ZmqTopic::Sequence, body);
    }

    /// They come over `rawtx` and are announced over `sequence`.
    fn accept(&mut self, transactions: Vec<(Txid, Vec<u8>)>) {
        let count = transactions.len();
        for (txid, body) in transactions {
            self.message(ZmqTopic::Rawtx, MessageBody::Tx(body));
            self.sequence(txid.to_byte_array(), SequenceEvent::Accepted(2));
        }
        assert_eq!(self.tracker.mempool_len(), count);
    }

    /// They come over `rawtx` because they are in a block, which is announced.
    fn repeat(&mut self, transactions: Vec<(Txid, Vec<u8>)>) {
        for (_, body) in transactions {
            self.message(ZmqTopic::Rawtx, MessageBody::Tx(body));
        }
        self.sequence([1; 32], SequenceEvent::BlockConnected);
    }

    fn connect(&mut self, block: Vec<u8>) {
        self.message(ZmqTopic::Rawblock, MessageBody::Block(block));
        assert_eq!(self.tracker.tip().map(|tip| tip.height), Some(1));
    }

    fn empty(&mut self) {
        self.begin();
        self.apply(Input::MempoolSnapshot {
            tip: tip().hash,
            txids: BTreeSet::new(),
            now: 1,
        });
        self.apply(Input::EvictMissing {
            spared: Vec::new(),
            now: 1,
        });
        while self.tracker.is_evicting() {
            self.apply(Input::EvictMore);
        }
        assert_eq!(self.tracker.mempool_len(), 0);
    }
}

fn follower(now: Now) -> Follower {
    let (settings, status) = (config::Bitcoind::default(), StatusBuilder::new(INTERVAL));
    let url = NodeUrl::parse("http://127.0.0.1:8332").expect("an address");
    let node = NodeLink::new(settings, url, "main", status, true, now);
    Follower::new(node, Some(tip()), INTERVAL, now)
}

fn hash_all(fingerprints: &Fingerprints, tx: &Transaction) -> u64 {
    let scripts = tx
        .output
        .iter()
        .map(|out| u64::from(ScriptHash::of(&out.script_pubkey).0[0]));
    let spends = tx
        .input
        .iter()
        .map(|input| fingerprints.outpoint(&input.previous_output));
    scripts.chain(spends).fold(0, u64::wrapping_add)
}

fn parse_and_hash(fingerprints: &Fingerprints, raw: &[(Txid, Vec<u8>)]) {
    for (_, raw) in raw {
        let tx: Transaction = deserialize(raw).expect("it was serialized here");
        black_box((tx.compute_txid(), hash_all(fingerprints, &tx)));
    }
}

fn parse_and_hash_block(fingerprints: &Fingerprints, raw: &[u8]) {
    let block: Block = deserialize(raw).expect("it was serialized here");
    assert!(block.check_merkle_root());
    let hashes = block.txdata.iter().map(|tx| hash_all(fingerprints, tx));
    black_box(hashes.fold(0, u64::wrapping_add));
}

fn unrelated_raw() -> Vec<(Txid, Vec<u8>)> {
    let all = (0..TRANSACTIONS).map(unrelated);
    all.map(|tx| (tx.compute_txid(), serialize(&tx))).collect()
}

fn snapshot(c: &mut Criterion) {
    let raw = unrelated_raw();
    let txids: BTreeSet<Txid> = raw.iter().map(|(txid, _)| *txid).collect();
    let mut path = Path::new(1_000);
    path.accept(raw);
    let mut group = c.benchmark_group("a reading of 100 000 transactions without news");
    group
        .throughput(Throughput::Elements(TRANSACTIONS))
        .sample_size(10)
        .measurement_time(Duration::from_secs(2));
    group.bench_function("Snapshot", |b| {
        b.iter_batched(
            || Input::MempoolSnapshot {
                tip: BlockHash::all_zeros(),
                txids: txids.clone(),
                now: 2,
            },
            |input| path.apply(input),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// A block on the tip, of `count` transactions of which each hundredth pays a watched script if
/// `pays`.
fn block(count: usize, pays: bool) -> Vec<u8> {
    let mut txdata: Vec<Transaction> = (0..count as u64).map(unrelated).collect();
    for (number, tx) in txdata.iter_mut().step_by(100).enumerate().filter(|_| pays) {
        tx.output[0].script_pubkey = script(1, number as u64);
    }
    let header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 1,
        bits: CompactTarget::from_consensus(0),
        nonce: 0,
    };
    let mut block = Block { header, txdata };
    block.header.merkle_root = block.compute_merkle_root().expect("it has transactions");
    serialize(&block)
}

/// Watching a script asks the mempool's index who pays it, however many transactions there are.
fn watch(c: &mut Criterion) {
    let mut path = Path::new(0);
    path.accept(unrelated_raw());
    let mut number = 0;
    c.bench_function("Watch one more script beside 100 000 transactions", |b| {
        b.iter(|| {
            number += 1;
            let scripts = vec![request(3, number)];
            path.apply(Input::Watch { scripts, now: 2 });
        });
    });
}

/// The quickest turn, in seconds.
fn quickest<T>(mut prepare: impl FnMut() -> T, mut work: impl FnMut(T)) -> f64 {
    let turn = |_| {
        let prepared = prepare();
        let began = Instant::now();
        work(prepared);
        began.elapsed().as_secs_f64()
    };
    (0..TURNS).map(turn).fold(f64::MAX, f64::min)
}

fn report(what: &str, count: usize, seconds: f64, floor: f64) {
    let each = |seconds: f64| seconds * 1e6 / count as f64;
    println!(
        "path: {:.2} us per {what}, {:.2} us to parse and hash it, ratio {:.2}",
        each(seconds),
        each(floor),
        seconds / floor
    );
}

/// What the target is about, printed.
fn path(_: &mut Criterion) {
    let raw = unrelated_raw();
    let in_block = &raw[..IN_BLOCK];
    let (unwatched, paying) = (block(IN_BLOCK, false), block(IN_BLOCK, true));
    let fingerprints = Fingerprints::new(&[7; 16]);
    for watched in WATCHED {
        println!("path: with {watched} watched scripts");
        let path = RefCell::new(Path::new(watched));
        let floor = quickest(|| (), |()| parse_and_hash(&fingerprints, &raw));
        let fresh = || {
            path.borrow_mut().empty();
            raw.clone()
        };
        let seconds = quickest(fresh, |raw| path.borrow_mut().accept(raw));
        report("accepted transaction", raw.len(), seconds, floor);

        let floor = quickest(|| (), |()| parse_and_hash(&fingerprints, in_block));
        let fresh = || {
            path.borrow_mut().empty();
            in_block.to_vec()
        };
        let seconds = quickest(fresh, |raw| path.borrow_mut().repeat(raw));
        report(
            "transaction that is repeated for a block",
            IN_BLOCK,
            seconds,
            floor,
        );

        let floor = quickest(|| (), |()| parse_and_hash_block(&fingerprints, &unwatched));
        for (name, before) in [("that came before", in_block), ("that did not", &[])] {
            let fresh = || {
                path.borrow_mut().empty();
                path.borrow_mut().accept(before.to_vec());
                unwatched.clone()
            };
            let seconds = quickest(fresh, |block| path.borrow_mut().connect(block));
            report(
                &format!("transaction in a block {name}"),
                IN_BLOCK,
                seconds,
                floor,
            );
        }

        let mut path = path.into_inner();
        path.empty();
        let scripts = (0..IN_BLOCK as u64 / 100).map(|number| request(1, number));
        let scripts = scripts.collect();
        path.apply(Input::Watch { scripts, now: 1 });
        let (block, before) = (paying.clone(), path.events);
        let began = Instant::now();
        path.connect(block);
        println!(
            "path: {:.1} ms for a block of {IN_BLOCK} with one in a hundred watched, {} events",
            began.elapsed().as_secs_f64() * 1e3,
            path.events - before
        );
    }
}

fn request(family: u8, number: u64) -> WatchRequest {
    WatchRequest {
        spk: script(family, number),
        label: None,
        depths: Vec::new(),
        baseline: Baseline::Skip,
    }
}

fn in_use(make: impl FnOnce()) -> usize {
    let before = IN_USE.load(Relaxed);
    make();
    IN_USE.load(Relaxed).saturating_sub(before)
}

/// Bytes in use, printed: the allocator's own overhead is not in them.
fn memory(_: &mut Criterion) {
    let mut path = Path::new(0);
    let report = |what: &str, bytes: usize, count: u64| {
        println!(
            "memory: {:.1} bytes per {what}",
            bytes as f64 / count as f64
        )
    };
    let raw = unrelated_raw();
    let bytes = in_use(|| path.accept(raw.clone()));
    report(
        "mempool transaction with two inputs and two outputs",
        bytes,
        TRANSACTIONS,
    );
    let mut tracker = path.tracker;
    let count = 1_000_000;
    let bytes = in_use(|| (0..count).for_each(|number| tracker.load_watch(&watch_row(number))));
    report("watched script (of a million)", bytes, count);
    let outpoint = |number: u64| OutPoint {
        txid: Txid::hash(&number.to_le_bytes()),
        vout: 0,
    };
    let bytes = in_use(|| (0..count).for_each(|number| tracker.load_outpoint(&outpoint(number))));
    report("watched outpoint (of a million)", bytes, count);
}

criterion_group!(benches, memory, path, snapshot, watch);
criterion_main!(benches);
