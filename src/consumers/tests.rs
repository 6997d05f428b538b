//! Consumers over a real store, indexer and dispatch, against a list of all that was written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Waker};

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network, ScriptBuf};
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::events::{Dispatch, EventLog, Handle, Reader};
use crate::indexer;
use crate::reads::Reads;
use crate::store::{self, ChainInfo, Cutoff};
use crate::test_end::{IndexerThread, StoreFolder};
use crate::tracker::{Baseline, Input, ScriptHash, WatchRequest};
use crate::wire::{ApiError, EventEncoder};

const NOW: u64 = 1_754_336_318_173;
const NAME: &str = "shop";

fn spk(n: u8) -> ScriptBuf {
    ScriptBuf::from_bytes(vec![n])
}

/// What a consumer of these scripts wants; `None`: of all.
fn wants(scripts: Option<&BTreeSet<u8>>) -> store::ConsumerRow {
    store::ConsumerRow {
        created: NOW,
        scripts: scripts.map(|scripts| scripts.iter().map(|n| spk(*n)).collect()),
        descriptors: Some(Vec::new()),
        blocks: false,
        webhook: None,
    }
}

/// Numbers that one look goes through, so that most go through several.
const LOOK_MOST: u64 = 3;

/// A daemon's log and consumers, until it is killed.
struct World {
    folder: StoreFolder,
    reader: store::StoreReader,
    reads: Reads,
    indexer: indexer::Handle,
    thread: IndexerThread,
    log: Arc<EventLog>,
    dispatch: Handle,
    stop: CancellationToken,
    consumers: Arc<Consumers>,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = entry
            .map(|entry| (entry.path(), to.join(entry.file_name())))
            .unwrap();
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

impl World {
    fn on(folder: StoreFolder) -> Self {
        Self::at_boot(folder, "first")
    }

    fn at_boot(folder: StoreFolder, boot: &str) -> Self {
        let chain = ChainInfo {
            network: Network::Regtest,
            genesis: BlockHash::all_zeros(),
        };
        let (writer, reader) = store::open_at_boot(folder.path(), Some(chain), NOW, boot).unwrap();
        let tracker = indexer::load(&reader, [7; 16]).unwrap();
        let head = writer.head();
        let (indexer, thread) = indexer::spawn(tracker, writer, head, mpsc::channel(1000).0);
        let encoder = EventEncoder::new(reader.starts().clone(), Network::Regtest);
        let log = EventLog::new(reader.clone(), encoder, indexer.head());
        let (task, dispatch) = Dispatch::new(log.clone());
        let stop = CancellationToken::new();
        tokio::spawn(task.run(stop.clone()));
        let reads = Reads::new(reader.clone());
        let (reading, writes, known) = (reads.clone(), indexer.clone(), dispatch.clone());
        let limits = tokio::sync::watch::channel(crate::config::Limits::default()).1;
        let consumers = Consumers::load(
            &reader,
            reading,
            writes,
            log.clone(),
            known,
            limits,
            LOOK_MOST,
        );
        Self {
            folder,
            reader,
            reads,
            indexer,
            thread: IndexerThread::new(thread),
            log,
            dispatch,
            stop,
            consumers: consumers.unwrap(),
        }
    }

    async fn new() -> Self {
        let world = Self::on(StoreFolder::new());
        let first_height = 100;
        let blocks = vec![(BlockHash::from_byte_array([1; 32]), 1_600_000_000)];
        let start = Input::Start {
            first_height,
            blocks,
            now: NOW,
        };
        world.indexer.apply(start).await.unwrap();
        world
    }

    /// Another process on the same store.
    async fn again(self) -> Self {
        let Self {
            folder,
            indexer,
            thread,
            stop,
            consumers,
            dispatch,
            log,
            reader,
            reads,
        } = self;
        stop.cancel();
        let reading = Arc::downgrade(&log);
        drop((indexer, consumers, dispatch, log, reader));
        // Dispatch, and reads that were given up.
        while reading.strong_count() > 0 || !reads.is_idle() {
            tokio::task::yield_now().await;
        }
        drop(reads);
        thread.join().await;
        Self::on(folder)
    }

    /// As the disk has it after a power loss, while this one goes on.
    fn after_power_loss(&self) -> Self {
        let folder = StoreFolder::new();
        copy(self.folder.path(), folder.path());
        Self::at_boot(folder, "second")
    }

    /// Writes one event of this script.
    async fn write(&self, n: u8) {
        let request = WatchRequest {
            spk: spk(n),
            label: None,
            depths: Vec::new(),
            baseline: Baseline::Skip,
        };
        let scripts = vec![request];
        let watch = Input::Watch { scripts, now: NOW };
        self.indexer.apply(watch).await.unwrap();
        let scripts = vec![ScriptHash::of(&spk(n))];
        let unwatch = Input::Unwatch { scripts, now: NOW };
        self.indexer.apply(unwatch).await.unwrap();
    }

    async fn define(&self, scripts: Option<&BTreeSet<u8>>, at: Option<u64>) -> Arc<Consumer> {
        let wants = wants(scripts);
        let define = |_: Option<&store::ConsumerRow>| Ok(wants);
        let head = self.log.head();
        let defined = self
            .consumers
            .define(NAME, define, at, head, NOW, None)
            .await;
        defined.unwrap().0
    }

    fn consumer(&self) -> Arc<Consumer> {
        self.consumers.get(NAME).unwrap()
    }

    async fn prune(&self) -> usize {
        let old = Cutoff {
            before: NOW + 1,
            now: u64::MAX,
            young: u32::MAX,
        };
        self.indexer.prune_events(old).await.unwrap()
    }

    async fn retain(&self) {
        let prune = || async { Ok(self.prune().await) };
        self.consumers.retain(prune).await.unwrap();
        // As after some time.
        self.log.forget_pages();
    }

    async fn ack(&self, number: u64) {
        let moved = self.consumer().move_to(number, None, Vec::new(), NOW).await;
        moved.unwrap().unwrap();
    }

    /// All numbers that a reader gets which begins where the consumer does.
    async fn read(&self) -> Vec<u64> {
        let consumer = self.consumer();
        let after = consumer.unread().await.unwrap().after;
        let selection = consumer.filter.clone();
        let mut reader = Reader::of_selection(&self.log, &self.dispatch, selection, after);
        let at_once: Option<std::future::Ready<()>> = None;
        let read = reader.read_batch(after, usize::MAX, at_once).await;
        let events = read.unwrap().events;
        events.iter().map(|entry| entry.number).collect()
    }
}

#[derive(Debug, Clone)]
enum Op {
    Write(u8),
    /// As a part of the log.
    Ack(u8),
    Define {
        scripts: Option<BTreeSet<u8>>,
        /// Where it begins, as a part of the log.
        at: Option<u8>,
    },
    Retain,
    Kill,
    /// Asks, and does not wait for the answer; meanwhile something is written so many times.
    Ask(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let scripts = prop::option::weighted(0.8, prop::collection::btree_set(1..5_u8, 1..3));
    let at = prop::option::weighted(0.3, any::<u8>());
    prop_oneof![
        8 => (1..5_u8).prop_map(Op::Write),
        4 => any::<u8>().prop_map(Op::Ack),
        1 => (scripts, at).prop_map(|(scripts, at)| Op::Define { scripts, at }),
        1 => Just(Op::Retain),
        1 => Just(Op::Kill),
        2 => (0..6_u8).prop_map(Op::Ask),
    ]
}

/// What must be true of the consumer.
#[derive(Debug)]
struct Model {
    /// Script of each number that was written.
    written: BTreeMap<u64, u8>,
    /// The first number that retention left.
    first: u64,
    scripts: Option<BTreeSet<u8>>,
    acked: u64,
    /// Nothing wanted was known to be between the place and here when retention came last.
    quiet: u64,
}

impl Model {
    fn head(&self) -> u64 {
        self.written
            .last_key_value()
            .map_or(0, |(number, _)| *number)
    }

    /// The numbers that it wants and has not acknowledged.
    fn unread(&self) -> impl Iterator<Item = u64> {
        self.written
            .range(self.acked + 1..)
            .filter(|(_, n)| self.scripts.as_ref().is_none_or(|all| all.contains(n)))
            .map(|(number, _)| *number)
    }

    fn part(&self, byte: u8, from: u64) -> u64 {
        from + (self.head() - from) * u64::from(byte) / 255
    }

    fn retain(&mut self) {
        let next = self.unread().next();
        // Behind what is gone nothing is known.
        if self.acked.max(self.quiet) + 1 >= self.first {
            self.quiet = self.quiet.max(next.map_or(self.head(), |next| next - 1));
        }
        self.first = self.head() + 1;
    }

    async fn check(&self, world: &World) {
        let mut unread = world.consumer().unread().await.unwrap();
        let kept: Vec<u64> = self.unread().filter(|it| *it >= self.first).collect();
        while !unread.is_certain() {
            assert_eq!(
                unread.lag(),
                self.head() - unread.after,
                "{unread:?} {self:?}"
            );
            assert_eq!((unread.age(NOW + 7), unread.head), (0, self.head()));
            if unread.missed.is_none() && unread.after + 1 >= self.first {
                assert!(kept.first().is_none_or(|next| *next > unread.after));
            }
            let after = unread.after;
            unread = world.consumer().unread().await.unwrap();
            let goes_on = unread.after > after || unread.is_certain();
            assert!(goes_on || unread.missed.is_some(), "{unread:?} {self:?}");
        }
        let lag = kept.first().map_or(0, |next| self.head() + 1 - next);
        assert_eq!(unread.lag(), lag, "{unread:?} {self:?}");
        assert_eq!(unread.age(NOW + 7), if lag > 0 { 7 } else { 0 });
        assert_eq!(unread.head, self.head());
        if self.unread().any(|number| number < self.first) {
            assert!(unread.missed.is_some(), "{unread:?} {self:?}");
        } else if self.acked.max(self.quiet) + 1 >= self.first {
            assert_eq!(unread.missed, None, "{self:?}");
        }
        if unread.missed.is_none() {
            assert_eq!(world.read().await, kept, "{self:?}");
        }
        assert_eq!(world.consumer().place().number, self.acked);
    }
}

async fn live(ops: Vec<Op>) {
    let mut world = World::new().await;
    world.define(None, None).await;
    let mut model = Model {
        written: BTreeMap::new(),
        first: 1,
        scripts: None,
        acked: 0,
        quiet: 0,
    };
    for op in ops {
        match op {
            Op::Write(n) => {
                world.write(n).await;
                model.written.insert(model.head() + 1, n);
            }
            Op::Ack(byte) => {
                model.acked = model.part(byte, model.acked);
                world.ack(model.acked).await;
            }
            Op::Define { scripts, at } => {
                let at = at.map(|byte| model.part(byte, model.first - 1));
                world.define(scripts.as_ref(), at).await;
                if at.is_some() || scripts != model.scripts {
                    model.quiet = 0;
                }
                model.acked = at.unwrap_or(model.acked);
                model.scripts = scripts;
            }
            Op::Retain => {
                world.retain().await;
                model.retain();
            }
            Op::Kill => world = world.again().await,
            Op::Ask(steps) => {
                let consumer = world.consumer();
                let mut asking = Box::pin(consumer.unread());
                for _ in 0..steps {
                    let mut cx = Context::from_waker(Waker::noop());
                    if asking.as_mut().poll(&mut cx).is_ready() {
                        break;
                    }
                    world.write(1).await;
                    model.written.insert(model.head() + 1, 1);
                }
            }
        }
        model.check(&world).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// What is unread is what a filter over all that was written says, whatever came between.
    #[test]
    fn quiet_number_hides_nothing_and_spares_what_is_not_wanted(ops in prop::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(live(ops));
    }
}

#[tokio::test]
async fn quiet_number_is_at_the_head_without_reading_when_nothing_is_wanted() {
    let world = World::new().await;
    let consumer = world.define(Some(&BTreeSet::from([2])), None).await;
    assert_eq!(consumer.unread().await.unwrap().after, 0);
    for _ in 0..3 {
        world.write(1).await;
    }
    while world.dispatch.counts().await.unwrap().position < 3 {
        tokio::task::yield_now().await;
    }
    world.log.forget_pages();
    let unread = consumer.unread().await.unwrap();
    assert_eq!((unread.after, unread.lag(), unread.head), (3, 0, 3));
    assert!(world.log.cached(0).is_none(), "nothing was read");
    assert_eq!(consumer.place().number, 0, "only an ack moves it");
}

#[tokio::test]
async fn retention_makes_acks_and_definitions_wait() {
    let world = World::new().await;
    let one = BTreeSet::from([1]);
    let consumer = world.define(Some(&one), None).await;
    for n in [1, 2, 2] {
        world.write(n).await;
    }
    let prune = || async {
        // Each would move the place to where what is deleted now is not known to be unwanted.
        let mut ack = Box::pin(consumer.move_to(1, None, Vec::new(), NOW));
        let mut define = Box::pin(world.define(None, None));
        let mut forget = Box::pin(world.consumers.forget(NAME, |_| Ok(())));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..10 {
            assert!(ack.as_mut().poll(&mut cx).is_pending());
            assert!(define.as_mut().poll(&mut cx).is_pending());
            assert!(forget.as_mut().poll(&mut cx).is_pending());
            tokio::task::yield_now().await;
        }
        Ok(0)
    };
    world.consumers.retain(prune).await.unwrap();
    // Acknowledged before: nothing is missed.
    world.ack(1).await;
    world.retain().await;
    assert_eq!(consumer.unread().await.unwrap().missed, None);
    drop(consumer);
    let world = world.again().await;
    assert_eq!(world.consumer().unread().await.unwrap().missed, None);
    assert_eq!(world.reader.first_seq().unwrap(), 4);
}

#[tokio::test]
async fn whether_a_consumer_may_be_removed_is_asked_about_what_it_is_then() {
    let world = World::new().await;
    world.define(Some(&BTreeSet::from([1])), None).await;
    // It is being changed when its removal is asked for.
    let define = world.define(None, None);
    let forget = world.consumers.forget(NAME, |known| {
        assert_eq!(known.scripts, None);
        Ok(())
    });
    let (_, forgotten) = futures_util::join!(define, forget);
    assert!(forgotten.is_ok());
}

#[tokio::test]
async fn consumer_that_may_not_be_removed_stays() {
    let world = World::new().await;
    let consumer = world.define(None, None).await;
    let refused = world.consumers.forget(NAME, |known| {
        assert_eq!(*known, consumer.wants);
        Err(ApiError::stopping())
    });
    assert!(refused.await.is_err());
    assert!(world.consumers.get(NAME).is_ok());
    assert!(world.consumers.forget(NAME, |_| Ok(())).await.is_ok());
    assert!(world.consumers.get(NAME).is_err());
}

#[tokio::test]
async fn quiet_number_of_one_definition_does_not_count_for_the_next() {
    let world = World::new().await;
    world.define(Some(&BTreeSet::from([2])), None).await;
    for _ in 0..3 {
        world.write(1).await;
    }
    world.consumers.retain(|| async { Ok(0) }).await.unwrap();
    assert_eq!(world.reader.quiet(NAME).unwrap(), Some(3));
    world.define(Some(&BTreeSet::from([1, 2])), None).await;
    assert_eq!(world.reader.quiet(NAME).unwrap(), None);
    assert_eq!(world.read().await, [1, 2, 3]);
    world.consumers.retain(|| async { Ok(0) }).await.unwrap();
    world.ack(3).await;
    world.define(None, Some(1)).await;
    assert_eq!(world.reader.quiet(NAME).unwrap(), None);
    assert_eq!(world.read().await, [2, 3]);
    let world = world.again().await;
    assert_eq!(world.read().await, [2, 3]);
}

#[tokio::test]
async fn lag_of_a_long_log_is_told_before_all_of_it_was_looked_through() {
    let world = World::new().await;
    let consumer = world.define(Some(&BTreeSet::from([2])), None).await;
    for _ in 0..LOOK_MOST * 3 {
        world.write(1).await;
    }
    let unread = consumer.unread().await.unwrap();
    assert!(!unread.is_certain());
    assert_eq!((unread.after, unread.lag()), (LOOK_MOST, LOOK_MOST * 2));
    assert_eq!((unread.age(NOW + 7), unread.missed), (0, None));
    let unread = consumer.unread().await.unwrap();
    assert_eq!((unread.after, unread.lag()), (LOOK_MOST * 2, LOOK_MOST));
    // Retention has to know.
    world.retain().await;
    let unread = consumer.unread().await.unwrap();
    assert!(unread.is_certain());
    assert_eq!((unread.lag(), unread.missed), (0, None));
}

#[tokio::test]
async fn lag_leaves_out_the_numbers_that_a_power_loss_skipped() {
    let world = World::new().await;
    let consumer = world.define(None, None).await;
    for _ in 0..2 {
        world.write(1).await;
    }
    assert_eq!(consumer.unread().await.unwrap().lag(), 2);
    let world = world.after_power_loss();
    world.write(1).await;
    assert!(world.log.head() > 1000, "numbers were skipped");
    let consumer = world.consumer();
    assert_eq!(consumer.unread().await.unwrap().lag(), 3);
    world.ack(2).await;
    assert_eq!(consumer.unread().await.unwrap().lag(), 1);
}

#[tokio::test]
async fn definition_that_selects_the_same_keeps_what_was_known_when_retention_came() {
    let world = World::new().await;
    let selected = BTreeSet::from([2]);
    world.define(Some(&selected), None).await;
    for _ in 0..LOOK_MOST * 3 {
        world.write(1).await;
    }
    world.retain().await;
    let changed = store::ConsumerRow {
        webhook: Some(webhook()),
        ..wants(Some(&selected))
    };
    let define = |_: Option<&store::ConsumerRow>| Ok(changed);
    let defined = world
        .consumers
        .define(NAME, define, None, 0, NOW, None)
        .await;
    assert_eq!(defined.unwrap().1, Defined::Changed);
    let unread = world.consumer().unread().await.unwrap();
    assert_eq!((unread.missed, unread.lag()), (None, 0));
}

#[tokio::test]
async fn start_looks_through_what_was_written_and_keeps_what_it_found() {
    let world = World::new().await;
    world.define(Some(&BTreeSet::from([2])), None).await;
    for _ in 0..LOOK_MOST * 3 {
        world.write(1).await;
    }
    let world = world.again().await;
    assert_eq!(world.reader.quiet(NAME).unwrap(), None);
    world.consumers.start().await.unwrap();
    assert_eq!(world.reader.quiet(NAME).unwrap(), Some(LOOK_MOST * 3));
    // It is known to dispatch, and has nothing to look through.
    let unread = world.consumers.unread(1).await.unwrap()[0].1;
    assert!(unread.is_certain() && unread.lag() == 0);
}

#[tokio::test]
async fn retention_lets_acks_through_between_two_portions() {
    let world = World::new().await;
    let consumer = world.define(None, None).await;
    for _ in 0..2 {
        world.write(1).await;
    }
    let (acking, portions) = (std::cell::OnceCell::new(), std::cell::Cell::new(0));
    let prune = || async {
        portions.set(portions.get() + 1);
        if portions.get() == 1 {
            let consumer = consumer.clone();
            let ack = async move { consumer.move_to(1, None, Vec::new(), NOW).await };
            let ack = acking.get_or_init(|| tokio::spawn(ack));
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert!(!ack.is_finished());
            return Ok(store::PRUNE_LIMIT);
        }
        assert_eq!(consumer.place().number, 1);
        Ok(1)
    };
    let count = world.consumers.retain(prune).await.unwrap();
    assert_eq!((count, portions.get()), (store::PRUNE_LIMIT + 1, 2));
}

fn webhook() -> store::Webhook {
    store::Webhook {
        url: "https://shop.example/".to_owned(),
        secrets: Vec::new(),
        headers: Vec::new(),
    }
}

#[tokio::test]
async fn definition_waits_for_no_look_and_its_predecessor_leaves_dispatch() {
    let world = World::new().await;
    let consumer = world.define(None, None).await;
    world.write(1).await;
    let under_way = consumer.lookahead.lock().await;
    let changed = store::ConsumerRow {
        webhook: Some(webhook()),
        ..wants(None)
    };
    let define = |_: Option<&store::ConsumerRow>| Ok(changed);
    let defined = world
        .consumers
        .define(NAME, define, None, 1, NOW, None)
        .await;
    assert_eq!(defined.unwrap().1, Defined::Changed);
    drop(under_way);
    assert_eq!(consumer.unread().await.unwrap().lag(), 1);
    // Whoever was let go is not known any more when this is answered.
    world.dispatch.counts().await.unwrap();
    world.log.forget_pages();
    world.write(1).await;
    while world.dispatch.counts().await.unwrap().position < 2 {
        tokio::task::yield_now().await;
    }
    assert!(world.log.cached(1).is_none(), "nobody is there to read for");
    assert_eq!(consumer.unread().await.unwrap().lag(), 2);
}

#[tokio::test]
async fn ack_that_waits_while_its_reading_is_taken_over_is_refused() {
    let world = World::new().await;
    let consumer = world.define(None, None).await;
    world.write(1).await;
    let lease = consumer.leases.take_over().unwrap();
    let ack = Box::pin(consumer.move_to(1, Some(lease.id()), Vec::new(), NOW));
    let ack = std::cell::RefCell::new(ack);
    let portion = world.consumers.retain(|| {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(ack.borrow_mut().as_mut().poll(&mut cx).is_pending());
        async { Ok(0) }
    });
    portion.await.unwrap();
    let newer = consumer.leases.take_over().unwrap();
    assert_eq!(ack.into_inner().await.unwrap(), Err(EndReason::Taken));
    assert_eq!(consumer.place().number, 0);
    let acked = consumer.move_to(1, Some(newer.id()), Vec::new(), NOW).await;
    assert_eq!(acked.unwrap().map(|place| place.number), Ok(1));
}

#[tokio::test]
async fn place_that_is_acknowledged_again_has_not_moved_since() {
    let world = World::new().await;
    let consumer = world.define(None, None).await;
    world.write(1).await;
    let first = store::ConsumerPlace {
        number: 1,
        moved: NOW,
    };
    for (number, now) in [(1, NOW), (1, NOW + 1), (0, NOW + 2)] {
        let moved = consumer.move_to(number, None, Vec::new(), now).await;
        assert_eq!(moved.unwrap(), Ok(first));
    }
    assert_eq!(consumer.place(), first);
}
