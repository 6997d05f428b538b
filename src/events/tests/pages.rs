//! Pages: what is found in them, where they end, and which of them are kept.

use std::collections::{HashMap, HashSet};

use bitcoin::Txid;
use tokio::time::Instant;

use super::super::filter::TopicFilter;
use super::super::log::Cache;
use super::*;
use crate::tracker::{Status, TxSummary};

/// The numbers after `after` up to `next`, each an event.
fn page(after: u64, next: u64) -> Arc<Page> {
    let events = (after + 1..=next).map(|number| (number, event(1)));
    Arc::new(Page::of_events(after, next, events.collect()))
}

/// An event whose weight is that of so many transactions, and one.
fn long_event(transactions: usize) -> Written {
    let transaction = TxSummary {
        txid: Txid::all_zeros(),
        received: 1,
        sent: 0,
        status: Status::Mempool,
        block_time: None,
        first_seen: NOW,
        replaceable: false,
    };
    Written {
        kind: EventKind::NewTransactions {
            subject: subject(1),
            transactions: vec![transaction; transactions],
        },
        ..event(1)
    }
}

fn heavy_page(after: u64, transactions: usize) -> Arc<Page> {
    let events = vec![(after + 1, long_event(transactions))];
    Arc::new(Page::of_events(after, after + 1, events))
}

#[test]
fn page_finds_the_next_event_that_a_filter_wants() {
    let topics: Vec<u8> = (0..60_u16).map(|n| (n * 7 % 12) as u8).collect();
    let events: Vec<_> = (1..).zip(topics.iter().map(|n| event(*n))).collect();
    let page = Page::of_events(0, 60, events);
    let scripts = |count: u8| (1..=count).map(|n| ScriptHash([n; 32]));
    let (mut maps, mut selections) = (Vec::new(), Vec::new());
    // More topics than are looked up one by one, and fewer.
    for count in [1, 8, 9, 11] {
        let first = |n: u8| (1..).zip(&topics).find(|(_, topic)| **topic == n);
        let from = |n: u8| (topic(n), first(n).unwrap().0);
        maps.push((0..count).map(from).collect());
        for blocks in [false, true] {
            let scripts = Some(Arc::new(scripts(count).collect::<HashSet<_>>()));
            let descriptors = Some(Arc::default());
            for scripts in [scripts, None] {
                let descriptors = descriptors.clone();
                selections.push(Selection {
                    scripts,
                    descriptors,
                    blocks,
                });
            }
        }
    }
    let maps = maps.iter().map(TopicFilter::Topics);
    let filters: Vec<_> = maps
        .chain(selections.iter().map(TopicFilter::Selection))
        .collect();
    let is_wanted = |filter: &TopicFilter<'_>, n: u8, number: u64| match filter {
        TopicFilter::Topics(topics) => topics.get(&topic(n)).is_some_and(|from| number > *from),
        TopicFilter::Selection(Selection { blocks, .. }) if n == 0 => *blocks,
        TopicFilter::Selection(Selection { scripts, .. }) => match scripts {
            None => true,
            Some(scripts) => scripts.contains(&ScriptHash([n; 32])),
        },
    };
    for filter in &filters {
        for after in 0..=60 {
            let found = page.next_wanted(after, filter);
            let found = found.map(|entry| entry.number);
            let mut later = (1..).zip(&topics).filter(|(number, _)| *number > after);
            let expected = later.find(|(number, n)| is_wanted(filter, **n, *number));
            assert_eq!(found, expected.map(|(number, _)| number), "{filter:?}");
        }
    }
    assert!(
        page.next_wanted(0, &TopicFilter::Topics(&HashMap::new()))
            .is_none()
    );
}

#[tokio::test]
async fn page_ends_behind_its_events_or_its_bytes_or_at_the_end_of_the_log() {
    let mut world = World::new();
    world.commit(&[1; 1500]);
    let ends = async |number| {
        let page = world.log.clone().page(number).await.unwrap();
        (page.entries_after(0).len(), page.next)
    };
    assert_eq!(ends(0).await, (PAGE, 1000));
    assert_eq!(ends(1000).await, (500, 1500));
    world.log.forget_pages();
    assert_eq!(ends(1480).await, (20, 1500));
    // Two of these are more than a page has.
    world.write(vec![long_event(5000); 3]);
    let ends = async |number| world.log.clone().page(number).await.unwrap().next;
    assert_eq!(ends(1500).await, 1502);
    assert_eq!(ends(1502).await, 1503);
    assert_eq!(ends(1503).await, 1503, "the end of the log");
}

#[tokio::test]
async fn batch_ends_behind_its_bytes_too() {
    let mut world = World::new();
    world.write(vec![long_event(5000); 3]);
    let selection = Selection {
        scripts: None,
        descriptors: Some(Arc::default()),
        blocks: false,
    };
    let mut reader = Reader::of_selection(&world.log, &world.dispatch, selection, 0);
    for (after, expected) in [(0, 2), (2, 1)] {
        let at_once: Option<std::future::Ready<()>> = None;
        let batch = reader.read_batch(after, 1000, at_once).await.unwrap();
        assert_eq!(batch.events.len(), expected);
        assert_eq!(batch.next, after + expected as u64);
    }
}

#[tokio::test]
async fn page_is_read_once_for_all() {
    let mut world = World::new();
    world.commit(&[1; 100]);
    assert!(world.log.cached(0).is_none());
    let page = world.log.clone().page(0).await.unwrap();
    for number in [0, 50, 99] {
        let again = world.log.clone().page(number).await.unwrap();
        assert!(Arc::ptr_eq(&page, &again), "what covers {number} is here");
    }
    assert!(world.log.cached(100).is_none(), "nothing comes after it");
    let entry = page.entries_after(0).first().unwrap();
    let encoded = entry.encoded(&world.log.encoder).unwrap();
    assert!(std::ptr::eq(
        encoded,
        entry.encoded(&world.log.encoder).unwrap()
    ));
}

#[test]
fn cache_keeps_the_longer_of_two_pages_and_none_without_events() {
    let mut cache = Cache::default();
    cache.insert(&Arc::new(Page::of_events(0, 5, Vec::new())));
    assert!(cache.get(0).is_none());
    for (next, kept) in [(10, 10), (5, 10), (20, 20)] {
        cache.insert(&page(0, next));
        assert_eq!(cache.get(0).unwrap().next, kept);
    }
    cache.insert(&page(20, 30));
    let ends = [0, 19, 20, 29].map(|number| cache.get(number).unwrap().next);
    assert_eq!(ends, [20, 20, 30, 30]);
    assert!(cache.get(30).is_none());
}

#[test]
fn cache_keeps_so_many_pages_of_which_the_oldest_go_first() {
    let mut cache = Cache::default();
    // Read twice, the second time when the log was longer: it counts from then on.
    for (after, next) in [(0, 1), (10, 11), (0, 2)] {
        cache.insert(&page(after, next));
    }
    for after in 20..20 + 1023 {
        cache.insert(&page(after, after + 1));
    }
    assert!(cache.get(10).is_none(), "it came first");
    for after in [0, 20, 20 + 1022] {
        assert!(cache.get(after).is_some(), "{after}");
    }
    cache.insert(&page(2000, 2001));
    assert!(cache.get(0).is_none() && cache.get(20).is_some());
}

#[test]
fn cache_is_bounded_in_bytes_and_keeps_one_page_whatever_it_has() {
    let mut cache = Cache::default();
    // Eight are more than all may have.
    for after in 0..8 {
        cache.insert(&heavy_page(after, 7500));
    }
    let kept = |cache: &Cache| {
        (0..9)
            .filter(|n| cache.get(*n).is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(&cache), [1, 2, 3, 4, 5, 6, 7]);
    cache.insert(&heavy_page(8, 60_000));
    assert_eq!(kept(&cache), [8]);
    cache.insert(&page(9, 10));
    assert_eq!(kept(&cache), [0; 0]);
    assert!(cache.get(9).is_some());
}

#[tokio::test(start_paused = true)]
async fn age_is_that_of_the_first_event_of_its_moment() {
    let world = World::new();
    let (log, start) = (&world.log, Instant::now());
    let at = |ms| start + Duration::from_millis(ms);
    log.note_moment(1, at(0));
    log.note_moment(3, at(99));
    log.note_moment(5, at(100));
    let ages = [1, 2, 3, 4, 5, 6].map(|number| log.age(number, at(1000)).as_millis());
    assert_eq!(ages, [1000, 1000, 1000, 900, 900, 0]);
    for n in 2..601 {
        log.note_moment(5 + n, at(100 * n));
    }
    assert_eq!(log.age(1, at(60_000)).as_millis(), 59_900, "at least");
    assert_eq!(log.age(6, at(60_000)).as_millis(), 59_800);
}

#[tokio::test(start_paused = true)]
async fn page_is_read_although_those_in_front_do_not_look_again() {
    let mut world = World::new();
    world.commit(&[1; 3000]);
    let asked: Vec<Subscriber> = (0..20)
        .map(|_| {
            let mut subscriber = world.reader();
            subscriber.subscribe(&[1], world.head(), Some(0));
            // A slow client: it has asked for a page, and takes nothing more.
            while subscriber.poll().is_ready() {}
            subscriber
        })
        .collect();
    world.log.forget_pages();
    let mut other = world.reader();
    other.register(&[1]).await;
    // More than dispatch reads on the spot.
    world.commit(&[1; 100]);
    world.settle().await;
    other.subscribe(&[1], world.head(), Some(0));
    other.drain(&world).await.unwrap();
    assert_eq!(other.events().len(), 3100);
    drop(asked);
}
