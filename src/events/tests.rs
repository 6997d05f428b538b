//! Readers over a real store and dispatch, in paused time. Commits are put between any two steps of
//! what a reader does, and whether dispatch has seen them is chosen as well.

mod batch;
mod beyond;
mod index;
mod lives;
mod pages;
mod subscriptions;
mod waking;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network, ScriptBuf};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::store::{self, ChainInfo, Cutoff, StoreError, Writer};
use crate::test_end::StoreFolder;
use crate::tracker::{BlockId, Event as Written, EventKind, ScriptHash, Subject, Transition};
use crate::wire::EventEncoder;

const NOW: u64 = 1_754_336_318_173;

fn topic(n: u8) -> Topic {
    match n {
        0 => Topic::Blocks,
        n => Topic::Script(ScriptHash([n; 32])),
    }
}

/// What a reader of these tests has in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    /// `ask`: how many subscriptions were asked for before.
    Subscribed {
        topics: Vec<u8>,
        from: u64,
        ask: usize,
    },
    Unsubscribed(u8),
    CaughtUp(u64),
}

fn subject(n: u8) -> Subject {
    Subject::Script {
        spk: ScriptBuf::from_bytes(vec![n]),
        script: ScriptHash([n; 32]),
        derivations: Vec::new(),
    }
}

/// An event of this topic.
fn event(n: u8) -> Written {
    let block = BlockId {
        height: 1,
        hash: BlockHash::all_zeros(),
    };
    let kind = match n {
        0 => EventKind::Block {
            block,
            time: 1,
            transactions: 1,
        },
        n => EventKind::Unwatched {
            subject: subject(n),
        },
    };
    Written {
        time: NOW,
        tip: Some(block),
        kind,
    }
}

/// A store that events are written into, and dispatch.
struct World {
    folder: StoreFolder,
    writer: Writer,
    head: watch::Sender<u64>,
    log: Arc<EventLog>,
    dispatch: Handle,
    /// Topic of each number.
    written: BTreeMap<u64, u8>,
    stop: DropGuard,
    task: JoinHandle<Result<(), StoreError>>,
}

impl World {
    fn new() -> Self {
        Self::at_boot(StoreFolder::new(), "first")
    }

    fn at_boot(folder: StoreFolder, boot: &str) -> Self {
        let chain = ChainInfo {
            network: Network::Regtest,
            genesis: BlockHash::all_zeros(),
        };
        let (writer, reader) = store::open_at_boot(folder.path(), Some(chain), NOW, boot).unwrap();
        let head = watch::Sender::new(writer.head());
        let encoder = EventEncoder::new(reader.starts().clone(), Network::Regtest);
        let log = EventLog::new(reader, encoder, head.subscribe());
        let (dispatch, handle) = Dispatch::new(log.clone());
        let stop = CancellationToken::new();
        let task = tokio::spawn(dispatch.run(stop.clone()));
        Self {
            folder,
            writer,
            head,
            log,
            dispatch: handle,
            written: BTreeMap::new(),
            stop: stop.drop_guard(),
            task,
        }
    }

    /// The machine loses its power; what was written is there, and numbers are skipped.
    async fn lose_power(self) -> Self {
        let Self {
            folder,
            written,
            stop,
            task,
            writer,
            log,
            ..
        } = self;
        drop(stop);
        task.await.unwrap().unwrap();
        drop((writer, log));
        Self {
            written,
            ..Self::at_boot(folder, "second")
        }
    }

    /// Writes one event for each of these topics, in one commit.
    fn commit(&mut self, topics: &[u8]) {
        self.commit_unannounced(topics);
        self.announce();
    }

    /// Nobody has been told yet.
    fn commit_unannounced(&mut self, topics: &[u8]) {
        let head = self.append(topics.iter().map(|n| event(*n)).collect());
        let first = head + 1 - topics.len() as u64;
        self.written.extend((first..).zip(topics.iter().copied()));
    }

    fn announce(&self) {
        self.head.send_replace(self.writer.head());
    }

    fn write(&mut self, events: Vec<Written>) {
        self.append(events);
        self.announce();
    }

    /// The number of the last one.
    fn append(&mut self, events: Vec<Written>) -> u64 {
        let transition = Transition {
            events,
            ..Transition::default()
        };
        self.writer.commit(&[transition], false).unwrap()
    }

    fn head(&self) -> u64 {
        self.log.head()
    }

    /// Lets dispatch come to the head.
    async fn settle(&self) {
        while self.dispatch.counts().await.unwrap().position < self.head() {
            tokio::task::yield_now().await;
        }
    }

    /// Retention takes all events; `number` is the last one.
    fn forget_up_to(&mut self, number: u64) {
        let old = Cutoff {
            before: NOW + 1,
            now: u64::MAX,
            young: u32::MAX,
        };
        assert_eq!(number, self.head());
        assert_eq!(self.writer.prune_events(&old).unwrap() as u64, number);
    }

    fn reader(&self) -> Subscriber {
        Subscriber {
            reader: Reader::of_topics(&self.log, &self.dispatch),
            asks: 0,
            given: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Event(u64),
    Item(Item),
    Lagged(u64),
    CaughtUp(u64),
    Notice(u64),
    /// Unsubscribed from here on, whenever the answer comes, and what was asked for before.
    Left(u8, usize),
}

/// A reader and what it has given.
struct Subscriber {
    reader: Reader<Item>,
    asks: usize,
    given: Vec<Heard>,
}

impl Subscriber {
    /// The three steps of a subscription. What is written between them is chosen by the caller.
    async fn register(&self, topics: &[u8]) {
        let new = topics.iter().map(|n| topic(*n));
        let new = new.filter(|topic| !self.reader.holds(topic)).collect();
        let registration = self.reader.registration().clone();
        registration.add(new).await.unwrap();
    }

    fn subscribe(&mut self, topics: &[u8], snapshot: u64, after: Option<u64>) {
        let all: Vec<Topic> = topics.iter().map(|n| topic(*n)).collect();
        let from = after.unwrap_or(snapshot);
        self.reader.subscribe(&all, from, after.is_some());
        let (topics, ask) = (topics.to_vec(), self.asks);
        self.reader
            .put(from, Item::Subscribed { topics, from, ask });
        self.asks += 1;
        if after.is_some() {
            self.reader.put(snapshot, Item::CaughtUp(snapshot));
        }
    }

    fn unsubscribe(&mut self, n: u8) {
        self.reader.unsubscribe(&topic(n));
        self.given.push(Heard::Left(n, self.asks));
        self.reader.put_last(Item::Unsubscribed(n));
    }

    /// The next thing that is there.
    fn poll(&mut self) -> Poll<Result<Heard, PageError>> {
        self.poll_with(&mut Context::from_waker(Waker::noop()))
    }

    fn poll_with(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard, PageError>> {
        self.reader.poll_next(cx).map_ok(|given| {
            let heard = match given {
                Given::Event(event) => Heard::Event(event.number),
                Given::Item(item) => Heard::Item(item),
                Given::Lagged { place, .. } => Heard::Lagged(place),
                Given::CaughtUp { place } => Heard::CaughtUp(place),
                Given::Notice(notice) => Heard::Notice(notice.subject),
            };
            self.given.push(heard.clone());
            heard
        })
    }

    /// Takes all that there is.
    async fn drain(&mut self, world: &World) -> Result<(), PageError> {
        world.settle().await;
        let mut quiet = 0;
        // A page may be on its way from the disk.
        while quiet < 3 {
            match self.poll() {
                Poll::Ready(Ok(_)) => quiet = 0,
                Poll::Ready(Err(cause)) => return Err(cause),
                Poll::Pending => {
                    quiet += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
        Ok(())
    }

    fn events(&self) -> Vec<u64> {
        let numbers = self.given.iter().filter_map(|heard| match heard {
            Heard::Event(number) => Some(*number),
            _ => None,
        });
        numbers.collect()
    }

    /// What a client may conclude from what it heard, held against what was written. Everything was
    /// drained.
    fn check(&self, written: &BTreeMap<u64, u8>) {
        // Of each topic: the number after which it was promised last, and what came since.
        let mut held: BTreeMap<u8, (u64, BTreeSet<u64>)> = BTreeMap::new();
        let mut left: BTreeMap<u8, usize> = BTreeMap::new();
        let due = |held: &BTreeMap<u8, (u64, BTreeSet<u64>)>, up_to: u64| {
            for (n, (from, seen)) in held {
                let missing = written
                    .iter()
                    .filter(|(number, topic)| {
                        **topic == *n && **number > *from && **number <= up_to
                    })
                    .find(|(number, _)| !seen.contains(number));
                assert_eq!(missing, None, "topic {n} up to {up_to}: {:?}", self.given);
            }
        };
        for heard in &self.given {
            match heard {
                Heard::Event(number) => {
                    let topic = written[number];
                    let (from, seen) = held.get_mut(&topic).unwrap_or_else(|| {
                        panic!(
                            "{number} is of topic {topic}, which is not held: {:?}",
                            self.given
                        )
                    });
                    assert!(
                        number > from && seen.insert(*number),
                        "{number} of topic {topic} again: {:?}",
                        self.given
                    );
                    assert_eq!(seen.last(), Some(number), "out of order: {:?}", self.given);
                }
                Heard::Item(Item::Subscribed { topics, from, ask }) => {
                    // Everything up to its cursor is before it, unless it is a replay.
                    if !self.is_replay(*from, heard) {
                        due(&held, *from);
                    }
                    for n in topics {
                        if left.get(n).is_none_or(|asks| ask >= asks) {
                            held.insert(*n, (*from, BTreeSet::new()));
                        }
                    }
                }
                Heard::Left(n, asks) => {
                    held.remove(n);
                    left.insert(*n, *asks);
                }
                Heard::Item(Item::Unsubscribed(_)) => {}
                Heard::Item(Item::CaughtUp(head)) => due(&held, *head),
                Heard::CaughtUp(place) | Heard::Lagged(place) => due(&held, *place),
                Heard::Notice(_) => {}
            }
        }
        due(&held, u64::MAX);
    }

    /// Something with a greater number was heard before this.
    fn is_replay(&self, from: u64, item: &Heard) -> bool {
        let before = self.given.iter().take_while(|heard| *heard != item);
        before.into_iter().any(|heard| match heard {
            Heard::Event(number) => *number > from,
            Heard::Item(Item::Subscribed { from: other, .. } | Item::CaughtUp(other)) => {
                *other > from
            }
            _ => false,
        })
    }
}

#[tokio::test(start_paused = true)]
async fn subscription_misses_and_doubles_nothing_wherever_a_commit_comes_between_its_steps() {
    for after in [None, Some(0), Some(1), Some(2)] {
        for place in 0..4 {
            for settled in [false, true] {
                let mut world = World::new();
                let mut subscriber = world.reader();
                world.commit(&[1, 2]);
                subscriber.register(&[2]).await;
                subscriber.subscribe(&[2], world.head(), None);
                for step in 0..4 {
                    if step == place {
                        world.commit(&[2, 1]);
                        world.commit(&[1, 2, 1]);
                        if settled {
                            world.settle().await;
                        }
                    }
                    match step {
                        0 => subscriber.register(&[1]).await,
                        1 => while subscriber.poll().is_ready() {},
                        2 => {
                            // The snapshot is of now, or older.
                            let head = world.head();
                            subscriber.subscribe(&[1], head, after);
                        }
                        _ => while subscriber.poll().is_ready() {},
                    }
                }
                world.commit(&[1]);
                subscriber.drain(&world).await.unwrap();
                subscriber.check(&world.written);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn subscription_whose_snapshot_the_reader_has_passed_gets_what_came_behind_it() {
    let mut world = World::new();
    let mut subscriber = world.reader();
    subscriber.register(&[1]).await;
    subscriber.subscribe(&[1], 0, None);
    subscriber.register(&[2]).await;
    let snapshot = world.head();
    world.commit(&[2, 1]);
    world.settle().await;
    while subscriber.poll().is_ready() {}
    subscriber.subscribe(&[2], snapshot, None);
    subscriber.drain(&world).await.unwrap();
    assert_eq!(
        subscriber.events(),
        [2, 1],
        "a replay of the new topic alone"
    );
}

#[tokio::test(start_paused = true)]
async fn mark_that_is_set_while_another_waits_is_not_lost() {
    let mut world = World::new();
    let mut subscriber = world.reader();
    subscriber.register(&[1]).await;
    subscriber.subscribe(&[1], 0, None);
    subscriber.drain(&world).await.unwrap();
    for _ in 0..3 {
        world.commit(&[1]);
        world.settle().await;
    }
    // One mark for all three.
    subscriber.drain(&world).await.unwrap();
    assert_eq!(subscriber.events(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn clean_reader_neither_lags_nor_expires() {
    let mut world = World::new();
    let mut subscriber = world.reader();
    subscriber.register(&[1]).await;
    subscriber.subscribe(&[1], 0, None);
    subscriber.drain(&world).await.unwrap();
    world.commit(&[2; 10]);
    world.settle().await;
    tokio::time::advance(LAG_AGE * 10).await;
    world.forget_up_to(10);
    world.commit(&[2, 1]);
    subscriber.drain(&world).await.unwrap();
    assert_eq!(subscriber.events(), [12]);
    assert!(
        !subscriber
            .given
            .iter()
            .any(|heard| matches!(heard, Heard::Lagged(_)))
    );
}

#[tokio::test(start_paused = true)]
async fn retention_that_passes_a_reader_is_told_in_one_place() {
    let mut world = World::new();
    let mut subscriber = world.reader();
    subscriber.register(&[1]).await;
    subscriber.subscribe(&[1], 0, None);
    for _ in 0..3 {
        world.commit(&[1; 1000]);
    }
    world.forget_up_to(3000);
    world.commit(&[1]);
    let ended = subscriber.drain(&world).await;
    assert!(matches!(ended, Err(PageError::Expired)), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn unsubscribed_topic_is_not_heard_of_behind_the_answer_also_during_a_replay() {
    let mut world = World::new();
    world.commit(&[1, 2, 1, 2]);
    let mut subscriber = world.reader();
    subscriber.register(&[1, 2]).await;
    subscriber.subscribe(&[1, 2], 4, Some(0));
    for _ in 0..3 {
        assert!(subscriber.poll().is_ready());
    }
    subscriber.unsubscribe(1);
    world.commit(&[1, 2]);
    subscriber.drain(&world).await.unwrap();
    assert_eq!(subscriber.events(), [1, 2, 4, 6]);
    subscriber.check(&world.written);
}

#[tokio::test(start_paused = true)]
async fn commit_that_dispatch_has_read_before_it_was_announced_is_given() {
    let mut world = World::new();
    // Dispatch reads pages only when somebody wants any.
    let other = world.reader();
    other.register(&[3]).await;
    world.commit(&[1]);
    world.commit_unannounced(&[1]);
    world.settle().await;
    assert_eq!(
        (
            world.dispatch.counts().await.unwrap().position,
            world.head()
        ),
        (2, 1)
    );
    let selection = Selection {
        scripts: Some(Arc::new([ScriptHash([1; 32])].into())),
        descriptors: Some(Arc::default()),
        blocks: false,
    };
    let mut reader = Reader::of_selection(&world.log, &world.dispatch, selection, 0);
    reader.follow().await.unwrap();
    let mut given = Vec::new();
    while let Poll::Ready(next) = reader.poll_next(&mut Context::from_waker(Waker::noop())) {
        let next: Given<()> = next.unwrap();
        given.extend(match next {
            Given::Event(entry) => Some(entry.number),
            _ => None,
        });
    }
    assert_eq!((given, reader.place()), (vec![1, 2], 2));
}
