//! `scan_progress` and `scan_complete`: who hears of scans, and when.

use serde_json::json;

use super::scans::{running, script};
use super::webhooks::until;
use super::*;
use crate::events::Notice;
use crate::history::ScanProgress;
use crate::tracker::{ScanEnd, ScanId};

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

impl Daemon {
    /// Watched, with its balance known, and subscribed to.
    async fn listener(&self, numbers: &[u8]) -> Client {
        let mut client = self.client().await;
        for n in numbers {
            self.watch_from_now(*n).await;
            client
                .emit(
                    "subscribe_address",
                    json!({"address": address(*n).to_string()}),
                )
                .await;
            client.expect("subscribed").await;
        }
        client
    }

    async fn list(&self, numbers: &[u8], body: Value) -> ScanId {
        let mut body = body;
        body["addresses"] = numbers
            .iter()
            .map(|n| Value::from(address(*n).to_string()))
            .collect();
        let (status, answer) = self.post("/scan_history", &body.to_string()).await;
        assert_eq!(status, 202, "{answer}");
        super::scans::id_of(&answer)
    }
}

#[tokio::test]
async fn whoever_is_subscribed_to_an_address_of_a_scan_hears_how_it_is_doing_once() {
    let daemon = Daemon::start().await;
    let (mut of_two, mut of_one, mut of_none) = (
        daemon.listener(&[1, 2]).await,
        daemon.listener(&[2]).await,
        daemon.listener(&[3]).await,
    );
    let scan = daemon.list(&[1, 2], json!({"from_height": 50})).await;
    daemon.scans.send_replace(vec![running(scan, 60)]);
    for client in [&mut of_two, &mut of_one] {
        let told = client.expect("scan_progress").await;
        assert_eq!(
            (&told["scan_id"], &told["status"], &told["height"]),
            (&json!(scan.to_string()), &json!("scanning"), &json!(59))
        );
        assert!(
            told["timestamp"].is_f64() && told.get("cursor").is_none(),
            "{told}"
        );
        let (_, shown) = daemon.get(&format!("/scans/{scan}")).await;
        assert_eq!(
            told.as_object().unwrap().len(),
            shown.as_object().unwrap().len() + 1
        );
        assert!(
            shown
                .as_object()
                .unwrap()
                .iter()
                .all(|(name, value)| told[name] == *value),
            "{told} {shown}"
        );
    }
    daemon.scans.send_replace(vec![running(scan, 70)]);
    assert_eq!(of_two.expect("scan_progress").await["height"], 69);
    daemon.told().await;
    assert!(of_two.queued().is_empty() && of_none.queued().is_empty());
    assert_eq!(
        daemon.reader.snapshot().head().unwrap(),
        0,
        "nothing of it is in the log"
    );
}

#[tokio::test]
async fn a_cancelled_scan_is_told_at_once_and_last() {
    let daemon = Daemon::start().await;
    let mut client = daemon.listener(&[1]).await;
    let scan = daemon.scan(1, json!({"from_height": 50})).await;
    daemon.scans.send_replace(vec![running(scan, 60)]);
    client.expect("scan_progress").await;
    // The node's side has not noticed when it says this.
    daemon.scans.send_replace(vec![running(scan, 70)]);
    let (_, cancelled) = daemon.delete(&format!("/scans/{scan}")).await;
    let mut heard = client.expect("scan_progress").await;
    if heard["status"] == "scanning" {
        heard = client.expect("scan_progress").await;
    }
    assert_eq!(
        (&heard["status"], &heard["percent"]),
        (&cancelled["status"], &cancelled["percent"])
    );
    let other = daemon.scan(1, json!({"from_height": 50})).await;
    daemon
        .scans
        .send_replace(vec![running(scan, 80), running(other, 80)]);
    let next = client.expect("scan_progress").await;
    assert_eq!(
        next["scan_id"],
        other.to_string(),
        "no more of the cancelled one"
    );
}

#[tokio::test]
async fn news_of_a_scan_that_ended_meanwhile_is_dropped() {
    let daemon = Daemon::start().await;
    let mut client = daemon.listener(&[1, 2]).await;
    let (scan, other) = (
        daemon.list(&[1, 2], json!({"from_height": 0})).await,
        daemon.list(&[1, 2], json!({"from_height": 0})).await,
    );
    daemon.merge_baseline(&[1, 2]).await;
    let shape = daemon.get(&format!("/scans/{scan}")).await.1;
    let tell = async |scan: ScanId, scripts: &[u8], as_of| {
        let scripts: Vec<_> = scripts.iter().map(|n| script(*n)).collect();
        let notice = Notice {
            subject: scan.0,
            packet: socketio::Encoded::event("/", "scan_progress", &shape).unwrap(),
            as_of,
        };
        daemon.services.scans.notify(&scripts, notice);
        daemon.told().await;
    };
    let head = || Some(daemon.services.events.log.head());
    tell(scan, &[1, 2], head()).await;
    let before = head();
    assert_eq!(names(&client.queued()), ["scan_progress"]);
    daemon.complete(scan).await;
    tell(scan, &[1, 2], before).await;
    daemon
        .apply(Input::Unwatch {
            scripts: vec![script(2)],
            now: NOW,
        })
        .await;
    tell(other, &[1, 2], before).await;
    assert_eq!(
        names(&client.queued()),
        ["scan_complete", "scan_complete", "unwatched"]
    );
    tell(other, &[1], None).await;
    assert_eq!(names(&client.queued()), ["scan_progress"]);
}

#[tokio::test]
async fn a_scan_that_only_waits_for_its_turn_is_not_told() {
    let daemon = Daemon::start().await;
    let mut client = daemon.listener(&[1]).await;
    let (queued, waiting, working) = (
        daemon.scan(1, json!({})).await,
        daemon.scan(1, json!({})).await,
        daemon.scan(1, json!({})).await,
    );
    let idle = |scan, waits_for| ScanProgress {
        running: false,
        waits_for,
        ..running(scan, 0)
    };
    let scans = vec![
        idle(queued, None),
        idle(waiting, Some("The node is away.".to_owned())),
        running(working, 5),
    ];
    daemon.scans.send_replace(scans);
    let mut heard = [
        client.expect("scan_progress").await,
        client.expect("scan_progress").await,
    ];
    heard.sort_by_key(|told| told["status"].as_str().unwrap().to_owned());
    assert_eq!(
        (&heard[0]["scan_id"], &heard[0]["status"]),
        (&json!(working.to_string()), &json!("scanning"))
    );
    assert_eq!(
        (&heard[1]["waits_for"], &heard[1]["status"]),
        (&json!("The node is away."), &json!("waiting"))
    );
    daemon.told().await;
    assert!(client.queued().is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_read_gets_the_latest_of_it_only() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client().await;
    daemon.watch_from_now(1).await;
    client
        .emit(
            "subscribe_address",
            json!({"address": address(1).to_string()}),
        )
        .await;
    let scan = daemon.scan(1, json!({})).await;
    let event = socketio::Encoded::event("/", "scan_progress", &json!({})).unwrap();
    for _ in 0..100 {
        let notice = Notice {
            subject: scan.0,
            packet: event.clone(),
            as_of: None,
        };
        daemon.services.scans.notify(&[script(1)], notice);
    }
    daemon.told().await;
    client.expect("subscribed").await;
    assert_eq!(
        names(&client.queued()),
        ["scan_progress"],
        "only the latest means anything"
    );
    daemon.pay(&address(1), 1000, 1).await;
    daemon.told().await;
    assert_eq!(
        names(&client.queued()),
        ["new_transactions", "balance_change"]
    );
}

/// `scan_complete` goes where every event of the log goes, the same everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_scan_reaches_subscribers_replays_consumers_and_webhooks() {
    let (daemon, receiver) = (
        Daemon::posting().await,
        super::webhooks::Receiver::start(204, super::webhooks::ANY).await,
    );
    let mut live = daemon.listener(&[1, 2]).await;
    let mine = json!([address(1).to_string()]);
    daemon.define("mine", json!({ "addresses": mine })).await;
    daemon
        .define("hook", json!({ "addresses": mine, "url": receiver.url }))
        .await;
    let mut reader = daemon.client().await;
    reader
        .emit("subscribe_consumer", json!({"consumer": "mine"}))
        .await;
    reader.expect("subscribed_consumer").await;
    reader.expect("caught_up").await;
    let scan = daemon.list(&[1, 2], json!({"from_height": 0})).await;
    daemon.merge_baseline(&[1, 2]).await;
    let start = daemon
        .services
        .reads
        .encoder
        .cursor(daemon.reader.snapshot().head().unwrap());
    daemon.complete(scan).await;

    let (_, log) = daemon
        .get(&format!("/events?after={start}&address={}", address(1)))
        .await;
    let event = log["events"][0]["data"].clone();
    assert_eq!(
        (&log["events"][0]["event"], &event["scan_id"]),
        (&json!("scan_complete"), &json!(scan.to_string()))
    );
    let heard = [
        live.expect("scan_complete").await,
        live.expect("scan_complete").await,
    ];
    assert!(
        heard.contains(&event) && heard[0]["address"] != heard[1]["address"],
        "one for each address: {heard:?}"
    );
    assert_eq!(reader.expect("scan_complete").await, event);
    let mut late = daemon.client().await;
    late.emit(
        "subscribe_address",
        json!({"address": address(1).to_string(), "after": start}),
    )
    .await;
    late.expect("subscribed").await;
    assert_eq!(late.expect("scan_complete").await, event);
    late.expect("caught_up").await;
    until("it is posted", async || {
        !receiver.bodies.lock().unwrap().is_empty()
    })
    .await;
    let body = receiver.bodies.lock().unwrap()[0].clone();
    assert_eq!(
        (&body["event"], &body["data"]),
        (&json!("scan_complete"), &event)
    );
}

#[tokio::test]
async fn a_cancelled_scan_writes_nothing_into_the_log() {
    let daemon = Daemon::start().await;
    daemon.watch_from_now(1).await;
    let scan = daemon.scan(1, json!({})).await;
    assert_eq!(daemon.delete(&format!("/scans/{scan}")).await.0, 200);
    let end = Input::CloseScan {
        scan,
        end: ScanEnd::Complete(daemon.tip()),
        now: NOW,
    };
    assert!(
        daemon.indexer.apply(end).await.is_err(),
        "the node's side comes too late"
    );
    assert_eq!(daemon.get("/events").await.1["events"], json!([]));
}
