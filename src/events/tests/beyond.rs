//! Answers for a place that the log has not come to: of an edge, whose log comes behind that of
//! the daemon that answers.

use super::*;

/// All that is there, with dispatch at the head.
async fn heard(subscriber: &mut Subscriber, world: &World) -> Vec<Heard> {
    subscriber.given.clear();
    subscriber.drain(world).await.expect("the log can be read");
    subscriber.given.clone()
}

fn subscribed(n: u8, from: u64, ask: usize) -> Heard {
    let topics = vec![n];
    Heard::Item(Item::Subscribed { topics, from, ask })
}

#[tokio::test(start_paused = true)]
async fn answer_beyond_the_log_is_given_behind_the_events_up_to_it() {
    let mut world = World::new();
    let mut subscriber = world.reader();
    world.commit(&[2]);
    subscriber.register(&[2]).await;
    subscriber.subscribe(&[2], 1, None);
    assert_eq!(heard(&mut subscriber, &world).await, [subscribed(2, 1, 0)]);
    subscriber.register(&[1]).await;
    subscriber.subscribe(&[1], 4, None);
    assert_eq!(heard(&mut subscriber, &world).await, []);
    world.commit(&[1, 2]);
    assert_eq!(heard(&mut subscriber, &world).await, [Heard::Event(3)]);
    // One commit goes over the number.
    world.commit(&[2, 2, 1]);
    let expected = [
        Heard::Event(4),
        subscribed(1, 4, 1),
        Heard::Event(5),
        Heard::Event(6),
    ];
    assert_eq!(heard(&mut subscriber, &world).await, expected);
}

#[tokio::test(start_paused = true)]
async fn replay_that_ends_beyond_the_log_is_finished_when_the_log_is_there() {
    for after in [0, 2, 3] {
        let mut world = World::new();
        let mut subscriber = world.reader();
        world.commit(&[1, 1]);
        subscriber.register(&[1]).await;
        subscriber.subscribe(&[1], 4, Some(after));
        let before = heard(&mut subscriber, &world).await;
        let is_there = |it: &Heard| *it == Heard::Item(Item::CaughtUp(4));
        assert!(!before.iter().any(is_there), "{before:?}");
        world.commit(&[1, 1, 1]);
        let mut all = before;
        all.extend(heard(&mut subscriber, &world).await);
        let mut expected = vec![subscribed(1, after, 0)];
        expected.extend((after + 1..=4).map(Heard::Event));
        expected.extend([Heard::Item(Item::CaughtUp(4)), Heard::Event(5)]);
        assert_eq!(all, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn reader_without_events_is_woken_for_its_answer() {
    for step in [1, 2] {
        let mut world = World::new();
        world.commit(&[2]);
        let mut subscriber = world.reader();
        subscriber.register(&[1]).await;
        // Behind one that is put in front of it.
        for from in [4, 3] {
            subscriber.subscribe(&[1], from, None);
            assert!(subscriber.poll().is_pending());
        }
        let (sender, mut woken) = tokio::sync::mpsc::unbounded_channel();
        let waiting = tokio::spawn(async move {
            while let Ok(heard) = std::future::poll_fn(|cx| subscriber.poll_with(cx)).await {
                if sender.send(heard).is_err() {
                    return;
                }
            }
        });
        world.commit(&[2]);
        world.settle().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(woken.try_recv().is_err(), "the log is not there");
        for _ in 0..2 / step {
            world.commit(&vec![2; step]);
        }
        world.settle().await;
        for expected in [subscribed(1, 3, 1), subscribed(1, 4, 0)] {
            let heard = tokio::time::timeout(Duration::from_secs(1), woken.recv()).await;
            assert_eq!(heard.expect("it is woken"), Some(expected));
        }
        waiting.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn unsubscription_is_answered_behind_an_answer_that_waits() {
    let mut world = World::new();
    let mut subscriber = world.reader();
    subscriber.register(&[1]).await;
    subscriber.subscribe(&[1], 2, None);
    subscriber.unsubscribe(1);
    assert_eq!(heard(&mut subscriber, &world).await, []);
    world.commit(&[1, 1, 1]);
    let expected = [subscribed(1, 2, 0), Heard::Item(Item::Unsubscribed(1))];
    assert_eq!(heard(&mut subscriber, &world).await, expected);
}
