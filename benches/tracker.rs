//! What unrelated traffic costs the tracker, beside the floor of parsing and hashing it, and what
//! its memory costs.
//!
//! ```text
//! cargo bench --bench tracker
//! ```
//!
//! Target (architecture.md, decision 9): unwatched traffic costs at most 1.5 times parsing and
//! hashing it. The floor deserializes, computes the txid, hashes each output script with SHA-256
//! and each spent outpoint with SipHash, as any indexer has to. Everything here is made of 100 000
//! transactions with two inputs and two outputs (370 bytes) that touch nothing watched.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashSet;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness, transaction,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use satwatch::tracker::filter::Fingerprints;
use satwatch::tracker::{
    Coverage, Input, MemoryView, Past, ScriptHash, Seen, Tracker, WatchRequest, WatchRow,
};

const TRANSACTIONS: u64 = 100_000;
const IN_BLOCK: usize = 4_000;
const WATCHED: [u64; 3] = [1, 1_000, 100_000];

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
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
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
        label: String::new(),
        added: 0,
        depths: vec![1],
        coverage: Coverage::default(),
        balance: Default::default(),
        utxo_count: 0,
        tx_count: 0,
        updated: 0,
    }
}

/// A tracker at a tip, that watches so many scripts.
fn tracker(watched: u64) -> (Tracker, MemoryView) {
    let mut tracker = Tracker::new([7; 16]);
    let mut view = MemoryView::default();
    let blocks = vec![(BlockHash::all_zeros(), 0)];
    let start = tracker
        .apply(
            &view,
            Input::Start {
                first_height: 0,
                blocks,
                now: 0,
            },
        )
        .expect("nothing was started before");
    view.commit(&start.changes);
    (0..watched).for_each(|number| tracker.load_watch(&watch_row(number)));
    (tracker, view)
}

fn fill(tracker: &mut Tracker, view: &MemoryView, raw: &[Vec<u8>]) {
    for raw in raw {
        let tx: Transaction = deserialize(raw).expect("it was serialized here");
        let transition = tracker
            .apply(
                view,
                Input::TxSeen {
                    tx,
                    seen: Seen::Accepted,
                    now: 1,
                },
            )
            .expect("it is legal");
        assert!(transition.changes.is_empty() && transition.asks.is_empty());
    }
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

fn parse_and_hash(fingerprints: &Fingerprints, raw: &[Vec<u8>]) {
    for raw in raw {
        let tx: Transaction = deserialize(raw).expect("it was serialized here");
        black_box((tx.compute_txid(), hash_all(fingerprints, &tx)));
    }
}

fn seen(c: &mut Criterion) {
    let raw: Vec<Vec<u8>> = (0..TRANSACTIONS)
        .map(|number| serialize(&unrelated(number)))
        .collect();
    let mut group = c.benchmark_group("100 000 unrelated transactions");
    group
        .throughput(Throughput::Elements(TRANSACTIONS))
        .sample_size(10)
        .measurement_time(Duration::from_secs(4));
    let fingerprints = Fingerprints::new(&[7; 16]);
    group.bench_function("floor: parse and hash", |b| {
        b.iter(|| parse_and_hash(&fingerprints, &raw));
    });
    for watched in WATCHED {
        group.bench_function(format!("parse and TxSeen, {watched} watched"), |b| {
            let full = || tracker(watched);
            b.iter_batched_ref(
                full,
                |(tracker, view)| fill(tracker, view, &raw),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn snapshot(c: &mut Criterion) {
    let raw: Vec<Vec<u8>> = (0..TRANSACTIONS)
        .map(|number| serialize(&unrelated(number)))
        .collect();
    let txids: HashSet<Txid> = (0..TRANSACTIONS)
        .map(|number| unrelated(number).compute_txid())
        .collect();
    let (mut tracker, view) = tracker(1_000);
    fill(&mut tracker, &view, &raw);
    let mut group = c.benchmark_group("a reading of 100 000 transactions without news");
    group
        .throughput(Throughput::Elements(TRANSACTIONS))
        .sample_size(10)
        .measurement_time(Duration::from_secs(2));
    group.bench_function("Snapshot", |b| {
        b.iter_batched(
            || Input::Snapshot {
                tip: BlockHash::all_zeros(),
                txids: txids.clone(),
                now: 2,
            },
            |input| {
                let transition = tracker.apply(&view, input).expect("it is our tip");
                assert!(transition.asks.is_empty());
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn connect(c: &mut Criterion) {
    let txdata: Vec<Transaction> = (0..IN_BLOCK as u64).map(unrelated).collect();
    let raw_txs: Vec<Vec<u8>> = txdata.iter().map(serialize).collect();
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
    let raw = serialize(&block);
    let fingerprints = Fingerprints::new(&[7; 16]);
    let mut group = c.benchmark_group("a block of 4000 unrelated transactions");
    group
        .throughput(Throughput::Elements(IN_BLOCK as u64))
        .sample_size(20)
        .measurement_time(Duration::from_secs(3));
    group.bench_function("floor: parse, check and hash", |b| {
        b.iter(|| {
            let block: Block = deserialize(&raw).expect("it was serialized here");
            assert!(block.check_merkle_root());
            black_box(
                block
                    .txdata
                    .iter()
                    .map(|tx| hash_all(&fingerprints, tx))
                    .fold(0, u64::wrapping_add),
            );
        });
    });
    for (name, known) in [("that came before", true), ("unseen", false)] {
        group.bench_function(format!("parse and Connect, {name}"), |b| {
            let prepare = || {
                let (mut tracker, view) = tracker(1_000);
                fill(&mut tracker, &view, if known { &raw_txs } else { &[] });
                (tracker, view)
            };
            let connect = |(tracker, view): &mut (Tracker, MemoryView)| {
                let block = deserialize(&raw).expect("it was serialized here");
                let _ = black_box(
                    tracker
                        .apply(
                            view,
                            Input::Connect {
                                block,
                                height: 1,
                                now: 2,
                            },
                        )
                        .expect("it builds on the tip"),
                );
            };
            b.iter_batched_ref(prepare, connect, BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// Watching a script asks the mempool's index who pays it, however many transactions there are.
fn watch(c: &mut Criterion) {
    let raw: Vec<Vec<u8>> = (0..TRANSACTIONS)
        .map(|number| serialize(&unrelated(number)))
        .collect();
    let (mut tracker, view) = tracker(0);
    fill(&mut tracker, &view, &raw);
    let mut number = 0;
    c.bench_function("Watch one more script beside 100 000 transactions", |b| {
        b.iter(|| {
            number += 1;
            let request = WatchRequest {
                spk: script(3, number),
                label: None,
                depths: Vec::new(),
                past: Past::Leave,
            };
            let _ = black_box(
                tracker
                    .apply(
                        &view,
                        Input::Watch {
                            scripts: vec![request],
                            now: 2,
                        },
                    )
                    .expect("it is legal"),
            );
        });
    });
}

/// The ratio that the target is about, printed. Both sides take turns and the quickest turn of each
/// counts, because criterion's groups run minutes apart and the machine may be busy with something
/// else by then.
fn ratio(_: &mut Criterion) {
    let raw: Vec<Vec<u8>> = (0..TRANSACTIONS)
        .map(|number| serialize(&unrelated(number)))
        .collect();
    let fingerprints = Fingerprints::new(&[7; 16]);
    let timed = |work: &mut dyn FnMut()| {
        let began = Instant::now();
        work();
        began.elapsed().as_secs_f64() * 1e6 / TRANSACTIONS as f64
    };
    let (mut floor, mut ours) = (f64::MAX, f64::MAX);
    for _ in 0..10 {
        floor = floor.min(timed(&mut || parse_and_hash(&fingerprints, &raw)));
        let (mut tracker, view) = tracker(1_000);
        ours = ours.min(timed(&mut || fill(&mut tracker, &view, &raw)));
    }
    println!(
        "cost: {ours:.2} us per unrelated transaction, {floor:.2} us to parse and hash it, ratio {:.2}",
        ours / floor
    );
}

fn in_use(make: impl FnOnce()) -> usize {
    let before = IN_USE.load(Relaxed);
    make();
    IN_USE.load(Relaxed).saturating_sub(before)
}

/// Bytes in use, printed: the allocator's own overhead is not in them.
fn memory(_: &mut Criterion) {
    let (mut tracker, view) = tracker(0);
    let report = |what: &str, bytes: usize, count: u64| {
        println!(
            "memory: {:.1} bytes per {what}",
            bytes as f64 / count as f64
        )
    };
    let raw: Vec<Vec<u8>> = (0..TRANSACTIONS)
        .map(|number| serialize(&unrelated(number)))
        .collect();
    let bytes = in_use(|| fill(&mut tracker, &view, &raw));
    report(
        "mempool transaction with two inputs and two outputs",
        bytes,
        TRANSACTIONS,
    );
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

criterion_group!(benches, memory, ratio, seen, snapshot, connect, watch);
criterion_main!(benches);
