//! What a reader holds, and what else happens when that changes.

use super::*;

#[tokio::test(start_paused = true)]
async fn subscription_is_counted_and_held_until_it_ends() {
    let world = World::new();
    let mut subscriber = world.reader();
    let all = [1, 2, 3].map(topic);
    assert_eq!(subscriber.reader.count_with(&all), 3);
    subscriber.register(&[1, 2]).await;
    subscriber.subscribe(&[1, 2], 0, None);
    assert_eq!(subscriber.reader.count_with(&[]), 2);
    assert_eq!(subscriber.reader.count_with(&all), 3);
    let held = |subscriber: &Subscriber| all.map(|topic| subscriber.reader.holds(&topic));
    assert_eq!(held(&subscriber), [true, true, false]);
    subscriber.unsubscribe(1);
    assert_eq!(held(&subscriber), [false, true, false]);
    assert_eq!(subscriber.reader.waiting(), 2, "the answers");
    subscriber.drain(&world).await.unwrap();
    assert_eq!(subscriber.reader.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn unsubscription_is_answered_behind_all_that_waits() {
    let mut world = World::new();
    world.commit(&[1]);
    let mut subscriber = world.reader();
    subscriber.register(&[1]).await;
    subscriber.subscribe(&[1], 1, Some(0));
    subscriber.unsubscribe(1);
    subscriber.drain(&world).await.unwrap();
    let last = subscriber.given.last();
    assert_eq!(last, Some(&Heard::Item(Item::Unsubscribed(1))));
    assert_eq!(subscriber.events(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn replay_that_is_joined_from_further_back_gives_nothing_twice() {
    let mut world = World::new();
    let mut subscriber = world.reader();
    subscriber.register(&[1, 2]).await;
    subscriber.subscribe(&[1, 2], 0, None);
    world.commit(&[1, 2, 1, 2, 1, 2]);
    subscriber.drain(&world).await.unwrap();
    subscriber.given.clear();
    subscriber.subscribe(&[1], 6, Some(0));
    while subscriber.events().len() < 2 {
        assert!(subscriber.poll().is_ready());
    }
    subscriber.subscribe(&[2], 6, Some(0));
    subscriber.drain(&world).await.unwrap();
    assert_eq!(subscriber.events(), [1, 3, 2, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn subscription_of_a_clean_reader_does_not_meet_what_retention_took() {
    let mut world = World::new();
    let mut subscriber = world.reader();
    subscriber.register(&[1]).await;
    subscriber.subscribe(&[1], 0, None);
    subscriber.drain(&world).await.unwrap();
    world.commit(&[2; 10]);
    world.settle().await;
    world.forget_up_to(10);
    world.log.forget_pages();
    subscriber.register(&[3]).await;
    subscriber.subscribe(&[3], 10, None);
    world.commit(&[3]);
    subscriber.drain(&world).await.unwrap();
    assert_eq!(subscriber.events(), [11]);
}
