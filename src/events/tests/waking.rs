//! Whom dispatch wakes, for what, and what it counts.

use super::*;

fn notice(subject: u64, as_of: Option<u64>) -> Notice {
    Notice {
        subject,
        packet: crate::socketio::Encoded::event_raw("/", "scan_progress", "{}").unwrap(),
        as_of,
    }
}

/// A reader that has been given all there is of its topics.
async fn at_the_end(world: &World, topics: &[u8]) -> Subscriber {
    let mut subscriber = world.reader();
    subscriber.register(topics).await;
    subscriber.subscribe(topics, world.head(), None);
    subscriber.drain(world).await.unwrap();
    subscriber.given.clear();
    subscriber
}

/// What wakes it, before any other time passes.
async fn next_of(
    mut subscriber: Subscriber,
    world: &mut World,
    act: impl FnOnce(&mut World),
) -> Heard {
    let waiting = tokio::spawn(async move {
        std::future::poll_fn(|cx| subscriber.poll_with(cx))
            .await
            .unwrap()
    });
    world.settle().await;
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    act(world);
    let woken = tokio::time::timeout(Duration::from_secs(1), waiting).await;
    woken.expect("it is woken").unwrap()
}

#[tokio::test(start_paused = true)]
async fn reader_that_waits_is_woken_by_an_event_of_its_topics_and_by_a_notice() {
    let mut world = World::new();
    let subscriber = at_the_end(&world, &[1]).await;
    let heard = next_of(subscriber, &mut world, |world| world.commit(&[2, 1])).await;
    assert_eq!(heard, Heard::Event(2));
    let subscriber = at_the_end(&world, &[1]).await;
    let heard = next_of(subscriber, &mut world, |world| {
        world.dispatch.notify(vec![topic(1)], notice(7, None));
    });
    assert_eq!(heard.await, Heard::Notice(7));
}

#[tokio::test(start_paused = true)]
async fn dispatch_reads_the_new_page_once_and_only_for_readers() {
    let mut world = World::new();
    world.commit(&[1]);
    world.settle().await;
    assert!(world.log.cached(0).is_none(), "nobody reads");
    let subscriber = at_the_end(&world, &[1]).await;
    world.commit(&[2]);
    world.settle().await;
    assert!(world.log.cached(1).is_some());
    drop(subscriber);
    world.settle().await;
    world.commit(&[1]);
    world.settle().await;
    assert!(world.log.cached(2).is_none(), "nobody reads any more");
}

#[tokio::test(start_paused = true)]
async fn counts_are_those_of_clients_with_topics() {
    let mut world = World::new();
    world.commit(&[3]);
    let mut first = at_the_end(&world, &[1, 2]).await;
    let second = at_the_end(&world, &[2]).await;
    let _idle = at_the_end(&world, &[]).await;
    let mut everything =
        Reader::<()>::of_selection(&world.log, &world.dispatch, Selection::everything(), 0);
    everything.follow().await.unwrap();
    world.settle().await;
    let counts = |subscribers, subscriptions| Counts {
        subscribers,
        subscriptions,
        lagging: 0,
        position: 1,
    };
    assert_eq!(world.dispatch.counts().await, Ok(counts(2, 3)));
    first.unsubscribe(1);
    assert_eq!(world.dispatch.counts().await, Ok(counts(2, 2)));
    first.unsubscribe(2);
    assert_eq!(world.dispatch.counts().await, Ok(counts(1, 1)));
    drop(second);
    assert_eq!(world.dispatch.counts().await, Ok(counts(0, 0)));
}

#[tokio::test(start_paused = true)]
async fn lag_is_counted_whether_a_reader_has_looked_or_not() {
    let mut world = World::new();
    let mut looks = at_the_end(&world, &[1]).await;
    let mut stays = at_the_end(&world, &[1]).await;
    let lagging = async |world: &World| world.dispatch.counts().await.unwrap().lagging;
    world.commit(&[1, 1]);
    world.settle().await;
    assert!(looks.poll().is_ready());
    tokio::time::advance(LAG_AGE - Duration::from_millis(1)).await;
    assert_eq!(lagging(&world).await, 0);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(lagging(&world).await, 2);
    looks.drain(&world).await.unwrap();
    assert_eq!(lagging(&world).await, 1);
    stays.drain(&world).await.unwrap();
    assert_eq!(lagging(&world).await, 0);
}

#[tokio::test(start_paused = true)]
async fn lag_is_told_once_and_its_end_too() {
    let mut world = World::new();
    let mut subscriber = world.reader();
    subscriber.register(&[1]).await;
    subscriber.subscribe(&[1], 0, None);
    subscriber.drain(&world).await.unwrap();
    world.commit(&[1, 1, 2]);
    world.settle().await;
    tokio::time::advance(LAG_AGE).await;
    world.commit(&[1]);
    subscriber.given.clear();
    subscriber.drain(&world).await.unwrap();
    let expected = [
        Heard::Lagged(0),
        Heard::Event(1),
        Heard::Event(2),
        Heard::Event(4),
        Heard::CaughtUp(4),
    ];
    assert_eq!(subscriber.given, expected);
    world.commit(&[1]);
    subscriber.drain(&world).await.unwrap();
    assert_eq!(subscriber.given.last(), Some(&Heard::Event(5)));
    assert_eq!(world.dispatch.counts().await.unwrap().lagging, 0);
}

#[tokio::test(start_paused = true)]
async fn notice_comes_when_the_reader_is_at_the_end_and_not_behind_a_later_event() {
    let mut world = World::new();
    let mut subscriber = world.reader();
    subscriber.register(&[1, 2]).await;
    subscriber.subscribe(&[1, 2], 0, None);
    subscriber.drain(&world).await.unwrap();
    let both = vec![topic(1), topic(2)];
    for subject in [7, 7, 8] {
        world
            .dispatch
            .notify(both.clone(), notice(subject, Some(0)));
    }
    subscriber.given.clear();
    subscriber.drain(&world).await.unwrap();
    assert_eq!(subscriber.given, [Heard::Notice(7), Heard::Notice(8)]);
    world.dispatch.notify(both.clone(), notice(7, Some(0)));
    world.dispatch.notify(both, notice(8, None));
    world.commit(&[1]);
    subscriber.given.clear();
    subscriber.drain(&world).await.unwrap();
    assert_eq!(subscriber.given, [Heard::Event(1), Heard::Notice(8)]);
}
