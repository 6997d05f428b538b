//! Events of one partition come in order, and partitions do not wait for each other.

use std::collections::HashSet;

use super::*;
use crate::tracker::ScriptHash;

fn head(daemon: &Daemon) -> u64 {
    daemon.reader.snapshot().head().unwrap()
}

fn partition(n: u8) -> u8 {
    ScriptHash::of(&address(n).script_pubkey()).0[0] % 8
}

/// An address that the receiver refuses, and two of one other partition.
fn refused_and_others() -> [u8; 3] {
    let other = (2..)
        .find(|n| partition(*n) != partition(1))
        .expect("there is one");
    let third = (other + 1..).find(|n| partition(*n) == partition(other));
    [1, other, third.expect("there is one")]
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_a_failing_one_holds_up_itself_alone_and_the_others_come_once_also_over_a_kill() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(200, ANY).await);
    let daemon = daemon.restarted(settings(1_000)).await;
    let [refused, other, _] = refused_and_others();
    for n in [refused, other] {
        daemon.add(n).await;
    }
    daemon.define("shop", json!({ "url": receiver.url })).await;
    *receiver.refused.lock().unwrap() = Some(address(refused).to_string());
    for salt in 1..=3 {
        daemon.pay(&address(refused), 5_000, salt).await;
        daemon.pay(&address(other), 5_000, salt + 10).await;
    }
    let (held, free) = (
        daemon.cursors_of(refused).await,
        daemon.cursors_of(other).await,
    );
    until("the other partition is done", async || {
        let rows = daemon.reader.partitions_done("shop").unwrap();
        rows.contains(&(u64::from(partition(other)), head(&daemon)))
    })
    .await;
    let mut got = receiver.cursors();
    got.retain(|cursor| *cursor != held[0]);
    assert_eq!(got, free, "of the failing partition its first alone");
    let place = daemon
        .services
        .consumers
        .get("shop")
        .unwrap()
        .place()
        .number;
    assert_eq!(daemon.services.reads.encoder.cursor(place + 1), held[0]);

    let folder = daemon.kill().await;
    receiver.bodies.lock().unwrap().clear();
    *receiver.refused.lock().unwrap() = None;
    let daemon = Daemon::posting_on(folder, settings(1_000));
    until("the place is at the head", async || {
        daemon
            .services
            .consumers
            .get("shop")
            .unwrap()
            .place()
            .number
            == head(&daemon)
    })
    .await;
    assert_eq!(receiver.cursors(), held, "nothing else comes again");
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_what_a_new_definition_wants_behind_the_place_is_not_done() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(200, ANY).await);
    let daemon = daemon.restarted(settings(1_000)).await;
    let all = refused_and_others();
    for n in all {
        daemon.add(n).await;
    }
    let [refused, other, added] = all;
    let define = async |numbers: &[u8]| {
        let addresses: Vec<_> = numbers.iter().map(|n| address(*n).to_string()).collect();
        let definition = json!({ "url": receiver.url, "addresses": addresses });
        daemon.define("shop", definition).await
    };
    define(&[refused, other]).await;
    *receiver.refused.lock().unwrap() = Some(address(refused).to_string());
    for n in [refused, added, other] {
        daemon.pay(&address(n), 5_000, n).await;
    }
    let wanted = daemon.cursors_of(added).await;
    let last = daemon.cursors_of(other).await.pop().unwrap();
    until("the other one is told", async || {
        receiver.cursors().contains(&last)
    })
    .await;
    assert!(!receiver.cursors().contains(&wanted[0]));
    define(&all).await;
    until("what is wanted now comes, too", async || {
        wanted.iter().all(|it| receiver.cursors().contains(it))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_posted_side_by_side_and_the_place_waits_for_the_slowest() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(204, 0).await);
    for n in 1..=12 {
        daemon.add(n).await;
    }
    let (_, made) = daemon.define("shop", json!({ "url": receiver.url })).await;
    for n in 1..=12 {
        daemon.pay(&address(n), 5_000, n).await;
    }
    let partitions = (1..=12).map(partition).collect::<HashSet<_>>().len();
    assert!(partitions > 3);
    until("one of each partition is in flight", async || {
        receiver.open.load(Ordering::SeqCst) == partitions
    })
    .await;
    let webhook = daemon.webhook("shop").await;
    assert_eq!(
        (&webhook["in_flight"], &webhook["state"]),
        (&json!(partitions), &json!("delivering")),
        "{webhook}"
    );
    assert_eq!(
        daemon.get("/consumers/shop").await.1["cursor"],
        made["cursor"]
    );
    receiver.gate.add_permits(ANY);
    let head = head(&daemon);
    until("the place is at the head", async || {
        daemon
            .services
            .consumers
            .get("shop")
            .unwrap()
            .place()
            .number
            == head
    })
    .await;
    let rows = daemon.reader.partitions_done("shop").unwrap();
    assert!(rows.iter().all(|(_, done)| *done <= head), "{rows:?}");
    assert_eq!(
        (
            receiver.most_open.load(Ordering::SeqCst),
            receiver.cursors().len()
        ),
        (partitions, 24)
    );
    until("it waits for events", async || {
        daemon.webhook("shop").await["state"] == "waiting"
    })
    .await;
}
