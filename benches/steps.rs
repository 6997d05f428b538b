//! How long the indexer's thread is held by the largest things that people ask of it, with a real
//! store. Meanwhile a payment could wait: each line says how long the longest one would have.
//!
//! ```text
//! cargo bench --bench steps            all of it
//! cargo bench --bench steps scans      what has this word in its name
//! ```
//!
//! Target (architecture.md, law 2): nothing but a block holds the thread longer than 20 ms.
//! `STEPS_SHARE=10` divides all counts by ten.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, BlockHash, Network, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid, Witness,
    transaction,
};
use satwatch::indexer::{self, Done, Handle, InputRefused};
use satwatch::store::{ChainInfo, StoreReader, open_at_boot};
use satwatch::tracker::{
    ApplyError, Baseline, BlockId, DescriptorId, DescriptorRequest, FollowUp, FoundOutput, Input,
    Keychain, Portion, ScanEnd, ScanId, ScriptHash, Seen, WatchRequest,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const NOW: u64 = 1_700_000_000_000;
/// Addresses of one request.
const BULK: u64 = 10_000;
/// Outputs of one portion of a baseline.
const PART: usize = 500;

fn tip() -> BlockId {
    BlockId {
        height: 100,
        hash: BlockHash::from_byte_array([1; 32]),
    }
}

fn spk(family: u8, number: u64) -> ScriptBuf {
    let mut bytes = vec![0x00, 0x14, family];
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.resize(22, 0);
    ScriptBuf::from_bytes(bytes)
}

/// Pays this script, and one that nobody watches.
fn payment(to: ScriptBuf, number: u64) -> Transaction {
    let previous_output = OutPoint {
        txid: Txid::hash(&number.to_le_bytes()),
        vout: 0,
    };
    let input = TxIn {
        previous_output,
        witness: Witness::from_slice(&[[1; 71].as_slice(), &[2; 33]]),
        ..TxIn::default()
    };
    let output = |script_pubkey| TxOut {
        value: Amount::from_sat(1000),
        script_pubkey,
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![output(to), output(spk(9, number))],
    }
}

fn watch(family: u8, numbers: std::ops::Range<u64>) -> Input {
    let request = |number| WatchRequest {
        spk: spk(family, number),
        label: None,
        depths: Vec::new(),
        baseline: Baseline::Skip,
    };
    Input::Watch {
        scripts: numbers.map(request).collect(),
        now: NOW,
    }
}

fn scripts(family: u8, numbers: std::ops::Range<u64>) -> Vec<ScriptHash> {
    numbers
        .map(|number| ScriptHash::of(&spk(family, number)))
        .collect()
}

struct Running {
    handle: Handle,
    follow_ups: mpsc::Receiver<FollowUp>,
    reader: StoreReader,
    thread: std::thread::JoinHandle<Result<(), indexer::IndexerError>>,
}

impl Running {
    async fn start(folder: &Path) -> Self {
        let chain = ChainInfo {
            network: Network::Regtest,
            genesis: BlockHash::all_zeros(),
        };
        let (writer, reader) =
            open_at_boot(folder, Some(chain), NOW, "boot").expect("the store opens");
        let (follow_ups, asked) = mpsc::channel(1 << 16);
        let tracker = indexer::load(&reader, [7; 16]).expect("the store loads");
        let head = writer.head();
        let (handle, thread) = indexer::spawn(tracker, writer, head, follow_ups);
        let running = Self {
            handle,
            follow_ups: asked,
            reader,
            thread,
        };
        let start = Input::Start {
            first_height: tip().height,
            blocks: vec![(tip().hash, 5)],
            now: NOW,
        };
        running.apply(start).await;
        running
    }

    async fn apply(&self, input: Input) -> Done {
        self.handle.apply(input).await.expect("it is legal")
    }

    /// The first `count` scripts of family 1, so many a request.
    async fn watch_all(&self, count: u64, at_once: u64) {
        for first in (0..count).step_by(at_once as usize) {
            self.apply(watch(1, first..count.min(first + at_once)))
                .await;
        }
    }

    async fn post_all(&self, inputs: impl Iterator<Item = Input>) {
        for input in inputs {
            self.handle.post(input).await.expect("it runs");
        }
        self.flush().await;
    }

    /// Everything before this is committed.
    async fn flush(&self) {
        self.apply(Input::TxRemoved { txids: Vec::new() }).await;
    }

    async fn fill_mempool(&self, count: u64) {
        let seen = |number| Input::TxSeen {
            tx: (&payment(spk(8, number), number)).into(),
            seen: Seen::Accepted,
            now: NOW,
        };
        self.post_all((0..count).map(seen)).await;
    }

    /// Does `work` while something small asks again and again how long it has to wait.
    async fn measure<T>(&self, name: &str, work: impl Future<Output = T>) {
        let (handle, done) = (
            self.handle.clone(),
            tokio_util::sync::CancellationToken::new(),
        );
        let stop = done.clone();
        let probe = tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            while !stop.is_cancelled() {
                let asked = Instant::now();
                let nothing = Input::TxRemoved { txids: Vec::new() };
                handle.apply(nothing).await.expect("it is legal");
                longest = longest.max(asked.elapsed());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            longest
        });
        let began = Instant::now();
        work.await;
        let took = began.elapsed();
        done.cancel();
        let longest = probe.await.expect("the probe ends");
        println!(
            "{name:<72} {:>9.1} ms in all, {:>9.1} ms the longest wait",
            took.as_secs_f64() * 1e3,
            longest.as_secs_f64() * 1e3
        );
    }

    async fn stop(self) {
        self.handle.stop().await;
        self.thread.join().expect("no panic").expect("no error");
    }
}

/// The node's whole mempool is read.
async fn reading(share: u64, folder: &Path) {
    let running = Running::start(folder).await;
    let pool = 300_000 / share;
    running.fill_mempool(pool).await;
    let snapshot = Input::MempoolSnapshot {
        tip: tip().hash,
        txids: (0..pool)
            .map(|n| payment(spk(8, n), n).compute_txid())
            .collect(),
        now: NOW,
    };
    let name = format!("a reading of {pool} mempool transactions");
    running.measure(&name, running.apply(snapshot)).await;
    running.stop().await;
}

/// The node has lost all that it held, as when it starts without its mempool file.
async fn evictions(share: u64, folder: &Path) {
    let running = Running::start(folder).await;
    let count = 50_000 / share;
    running.watch_all(count, BULK).await;
    let seen = |number| Input::TxSeen {
        tx: (&payment(spk(1, number), number)).into(),
        seen: Seen::Accepted,
        now: NOW,
    };
    running.post_all((0..count).map(seen)).await;
    let tracked = || running.reader.unconfirmed_txs().count() as u64;
    assert_eq!(tracked(), count);
    let (tip, txids, now) = (tip().hash, BTreeSet::new(), NOW);
    let snapshot = Input::MempoolSnapshot { tip, txids, now };
    running.apply(snapshot).await;
    let spared = Vec::new();
    let verdict = Input::EvictMissing { spared, now };
    let name = format!("{count} payments evicted at once");
    // As the follower does.
    let work = async {
        while running.apply(verdict.clone()).await.is_evicting {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    running.measure(&name, work).await;
    assert_eq!(tracked(), 0);
    running.stop().await;
}

async fn subscriptions(share: u64, folder: &Path) {
    let running = Running::start(folder).await;
    let (pool, count) = (300_000 / share, 4000 / share);
    running.fill_mempool(pool).await;
    let name = format!("{count} new subscriptions beside {pool} mempool transactions");
    let work = async {
        let mut all = JoinSet::new();
        for number in 0..count {
            let handle = running.handle.clone();
            all.spawn(async move { handle.apply(watch(1, number..number + 1)).await });
        }
        for watched in all.join_all().await {
            watched.expect("it is legal");
        }
    };
    running.measure(&name, work).await;
    running.stop().await;
}

async fn exchange(share: u64, folder: &Path) {
    let mut running = Running::start(folder).await;
    let (addresses, payments) = (100_000 / share, 50_000 / share);
    running.fill_mempool(300_000 / share).await;
    let waiting = move |number: u64| payment(spk(1, number * 2), 1_000_000 + number);
    let seen = |how| {
        move |number: u64| Input::TxSeen {
            tx: (&waiting(number)).into(),
            seen: how,
            now: NOW,
        }
    };
    running
        .post_all((0..payments).map(seen(Seen::Accepted)))
        .await;
    while running.follow_ups.try_recv().is_ok() {}
    let name = format!("{addresses} addresses added, {BULK} a request, {payments} payments wait");
    running
        .measure(&name, running.watch_all(addresses, BULK))
        .await;
    let mut asked = 0;
    while let Ok(ask) = running.follow_ups.try_recv() {
        if let FollowUp::Fetch(txids) = ask {
            asked += txids.len() as u64;
        }
    }
    assert_eq!(asked, payments, "all that pay them are asked for");
    let name = format!("{payments} payments fetched for them");
    let work = running.post_all((0..payments).map(seen(Seen::Fetched)));
    running.measure(&name, work).await;
    running.stop().await;
}

async fn scans(share: u64, folder: &Path) {
    let running = Running::start(folder).await;
    let (count, others) = (BULK / share, 1000 / share);
    running.watch_all(count, 1000).await;
    let open = |scan| Input::OpenScan {
        scan: ScanId(scan),
        scripts: scripts(1, 0..count - 1),
        from: 0,
        to: None,
        now: NOW,
    };
    let close = |scan, end| Input::CloseScan {
        scan: ScanId(scan),
        end,
        now: NOW,
    };
    let name = format!("a scan of {count} addresses opened");
    running.measure(&name, running.apply(open(1))).await;
    let past = Input::ScanBlocks {
        scans: vec![ScanId(1)],
        scripts: vec![std::sync::Arc::new(
            scripts(1, 0..count - 1).into_iter().collect(),
        )],
        first: 0,
        blocks: Vec::new(),
        upto: tip(),
        now: NOW,
    };
    running.apply(past).await;
    let name = format!("a scan of {count} addresses completed");
    let end = close(1, ScanEnd::Complete(tip()));
    // As the runner does.
    let work = async { while running.handle.apply(end.clone()).await.is_ok() {} };
    running.measure(&name, work).await;
    running.apply(open(2)).await;
    let name = format!("a scan of {count} addresses cancelled");
    let end = close(2, ScanEnd::Cancelled(None));
    running.measure(&name, running.apply(end)).await;
    for scan in 0..others {
        running.apply(open(10 + scan)).await;
    }
    let mut input = open(10 + others);
    if let Input::OpenScan { scripts, .. } = &mut input {
        scripts.push(ScriptHash::of(&spk(1, count - 1)));
    }
    running.apply(input).await;
    let name = format!("an address of one scan removed beside {others} scans of {count} addresses");
    let unwatch = |number| Input::Unwatch {
        scripts: scripts(1, number..number + 1),
        now: NOW,
    };
    running
        .measure(&name, running.apply(unwatch(count - 1)))
        .await;
    let name = format!(
        "an address of {} scans of {count} addresses removed",
        others + 1
    );
    running.measure(&name, running.apply(unwatch(0))).await;
    let held = running.reader.snapshot().open_scans();
    assert_eq!(held.expect("it can be read").len() as u64, others + 1);
    running.stop().await;
}

/// Deposits are added while one transaction that is known already spends all of them.
async fn sweep(share: u64, folder: &Path) {
    let running = Running::start(folder).await;
    let count = 1400 / share;
    let deposit = |number: u64| OutPoint {
        txid: Txid::hash(&number.to_le_bytes()),
        vout: 0,
    };
    let input = |number| TxIn {
        previous_output: deposit(number),
        ..TxIn::default()
    };
    let tx = Transaction {
        input: (0..count).map(input).collect(),
        ..payment(spk(2, 0), 0)
    };
    running.apply(watch(2, 0..1)).await;
    let sweep = Input::TxSeen {
        tx: (&tx).into(),
        seen: Seen::Accepted,
        now: NOW,
    };
    running.apply(sweep).await;
    let mut deposits = watch(1, 0..count);
    if let Input::Watch { scripts, .. } = &mut deposits {
        scripts
            .iter_mut()
            .for_each(|request| request.baseline = Baseline::IfMissing);
    }
    running.apply(deposits).await;
    let found = |number| FoundOutput {
        outpoint: deposit(number),
        spk: spk(1, number),
        value: Amount::from_sat(1000),
        height: 50,
        coinbase: false,
    };
    let baseline = Input::Baseline {
        block: tip(),
        scripts: scripts(1, 0..count),
        outputs: (0..count).map(found).collect(),
        now: NOW,
    };
    let name = format!("{count} deposits found that one unconfirmed transaction spends");
    running.measure(&name, running.apply(baseline)).await;
    let deposit = ScriptHash::of(&spk(1, 0));
    let swept = running.reader.snapshot().watch(&deposit);
    let balance = swept
        .expect("it can be read")
        .expect("it is watched")
        .balance;
    assert_eq!((balance.confirmed, balance.unconfirmed), (1000, -1000));
    running.stop().await;
}

async fn giant(share: u64, folder: &Path) {
    let running = Running::start(folder).await;
    let count = 1_000_000 / share;
    let mut add = watch(1, 0..1);
    if let Input::Watch { scripts, .. } = &mut add {
        scripts[0].baseline = Baseline::IfMissing;
    }
    running.apply(add).await;
    let found = |number: u64| FoundOutput {
        outpoint: OutPoint {
            txid: Txid::hash(&number.to_le_bytes()),
            vout: 0,
        },
        spk: spk(1, 0),
        value: Amount::from_sat(1000),
        height: 50,
        coinbase: false,
    };
    let part = |portion, outputs| Input::BaselinePart {
        block: tip(),
        script: ScriptHash::of(&spk(1, 0)),
        portion,
        outputs,
        now: NOW,
    };
    let name = format!("the baseline of an address with {count} outputs");
    // As the baseline's task does.
    let work = async {
        running.apply(part(Portion::First, Vec::new())).await;
        for first in (0..count).step_by(PART) {
            let outputs = (first..count.min(first + PART as u64)).map(found).collect();
            running.apply(part(Portion::Next, outputs)).await;
        }
        let last = part(Portion::Last, Vec::new());
        while running.handle.apply(last.clone()).await.is_ok() {}
    };
    running.measure(&name, work).await;
    let unwatch = Input::Unwatch {
        scripts: scripts(1, 0..1),
        now: NOW,
    };
    let name = format!("an address with {count} outputs removed and added again");
    let work = async {
        running.apply(unwatch).await;
        // As the API does while it is being forgotten.
        while let Err(refused) = running.handle.apply(watch(1, 0..1)).await {
            let is_going = matches!(refused, InputRefused::Apply(ApplyError::StillForgetting(_)));
            assert!(is_going, "{refused:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    running.measure(&name, work).await;
    running.stop().await;
}

/// A wallet of very many scripts: added, paid, removed. An event of it costs about as much as one
/// of an address among as many, none of which was paid just before.
async fn wallet(share: u64, folder: &Path) {
    let running = Running::start(folder).await;
    let (count, paid) = (100_000 / share, 5000 / share);
    running.apply(watch(2, 0..1)).await;
    let descriptor = DescriptorId([7; 32]);
    let request = DescriptorRequest {
        text: String::new(),
        keychains: 1,
        is_ranged: true,
        label: None,
        gap_limit: Some(20),
        range: count as u32,
        depths: Vec::new(),
        baseline: Baseline::Skip,
    };
    let add = Input::AddDescriptor {
        descriptor,
        request,
        now: NOW,
    };
    running.apply(add).await;
    let derived = |first: u64| Input::Derived {
        descriptor,
        keychain: Keychain::External,
        first: first as u32,
        spks: (first..count.min(first + PART as u64))
            .map(|number| spk(1, number))
            .collect(),
        now: NOW,
    };
    let name = format!("a wallet of {count} scripts added");
    let work = async {
        for first in (0..count).step_by(PART) {
            running.apply(derived(first)).await;
        }
    };
    running.measure(&name, work).await;
    for first in (0..count).step_by(PART) {
        running
            .apply(watch(3, first..count.min(first + PART as u64)))
            .await;
    }
    let payees = [
        ("one address", 2),
        ("as many addresses", 3),
        ("the wallet", 1),
    ];
    for (what, family) in payees {
        let to = |number: u64| if family == 2 { 0 } else { number * 17 % count };
        let seen = |number: u64| Input::TxSeen {
            tx: (&payment(spk(family, to(number)), number + u64::from(family) * count)).into(),
            seen: Seen::Accepted,
            now: NOW,
        };
        let before = *running.handle.head().borrow();
        let inputs: Vec<Input> = (0..paid).map(seen).collect();
        let began = Instant::now();
        running.post_all(inputs.into_iter()).await;
        let micros = began.elapsed().as_secs_f64() * 1e6;
        let events = (*running.handle.head().borrow() - before) as f64;
        println!(
            "{paid} payments to {what}: {:.1} us each, {:.2} us an event",
            micros / paid as f64,
            micros / events
        );
    }
    let remove = Input::RemoveDescriptor {
        descriptor,
        now: NOW,
    };
    let name = format!("a wallet of {count} scripts and {paid} payments removed");
    let work = async {
        running.apply(remove).await;
        let is_leaving = || running.reader.snapshot().leaving().next().is_some();
        while is_leaving() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    running.measure(&name, work).await;
    running.stop().await;
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let share = std::env::var("STEPS_SHARE").ok();
    let share = share.map_or(1, |share| share.parse().expect("STEPS_SHARE is a number"));
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    let folder = || tempfile::tempdir().expect("a temporary folder can be made");
    if wanted("reading") {
        reading(share, folder().path()).await;
    }
    if wanted("evictions") {
        evictions(share, folder().path()).await;
    }
    if wanted("subscriptions") {
        subscriptions(share, folder().path()).await;
    }
    if wanted("exchange") {
        exchange(share, folder().path()).await;
    }
    if wanted("sweep") {
        sweep(share, folder().path()).await;
    }
    if wanted("scans") {
        scans(share, folder().path()).await;
    }
    if wanted("giant") {
        giant(share, folder().path()).await;
    }
    if wanted("wallet") {
        wallet(share, folder().path()).await;
    }
}
