//! Addresses that are taken off the watch list, and everybody who has to do with them.

use serde_json::json;

use super::scans::script;
use super::webhooks::{ANY, Receiver, until};
use super::*;

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

fn number(data: &Value) -> u64 {
    data["cursor"]
        .as_str()
        .unwrap()
        .rsplit_once('-')
        .unwrap()
        .1
        .parse()
        .unwrap()
}

impl Daemon {
    async fn remove(&self, n: u8) -> Value {
        let (status, answer) = self.delete(&format!("/addresses/{}", address(n))).await;
        assert_eq!(
            (status, &answer["address"]),
            (200, &json!(address(n).to_string())),
            "{answer}"
        );
        answer
    }

    async fn subscriber(&self, n: u8) -> Client {
        let mut client = self.client().await;
        client
            .emit(
                "subscribe_address",
                json!({"address": address(n).to_string()}),
            )
            .await;
        client.expect("subscribed").await;
        client
    }
}

#[tokio::test]
async fn a_removed_address_is_forgotten_and_others_are_not() {
    let daemon = Daemon::start().await;
    let (mine, other) = (
        daemon.watch_from_now(1).await,
        daemon.watch_from_now(2).await,
    );
    let tx = daemon.pay(&address(1), 1000, 1).await;
    daemon.mine(&address(2), vec![tx]).await;
    let kept = daemon.get(&format!("/balance/{other}")).await.1["balance"].clone();
    let answer = daemon.remove(1).await;
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("not watched any more"),
        "{answer}"
    );
    for path in ["balance", "utxos", "transactions", "events?address="] {
        let path = format!("/{path}/{mine}").replace("=/", "=");
        let (status, error) = daemon.get(&path).await;
        assert_eq!(
            (status, &error["code"]),
            (404, &json!("not_watched")),
            "{path}"
        );
    }
    for path in ["audit", "scan_history"] {
        let (_, error) = daemon.post(&format!("/{path}/{mine}"), "").await;
        assert_eq!(error["code"], "not_watched", "{path}");
    }
    let (_, listed) = daemon.get("/addresses").await;
    assert_eq!(
        (&listed["total"], &listed["addresses"][0]["address"]),
        (&json!(1), &json!(other))
    );
    assert_eq!(
        daemon.get(&format!("/balance/{other}")).await.1["balance"],
        kept
    );
    let (_, log) = daemon.get("/events").await;
    let last = log["events"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&last["event"], &last["data"]["address"], &last["cursor"]),
        (&json!("unwatched"), &json!(mine), &answer["cursor"])
    );
    let (status, error) = daemon.delete(&format!("/addresses/{mine}")).await;
    assert_eq!((status, &error["code"]), (404, &json!("not_watched")));
    assert_eq!(
        daemon.delete("/addresses/nonsense").await.1["code"],
        "invalid_address"
    );
    daemon.watch_from_now(1).await;
    let (_, balance) = daemon.get(&format!("/balance/{mine}")).await;
    assert_eq!(
        (&balance["balance"], &balance["coverage"]["complete"]),
        (&json!(0), &json!(false)),
        "as if it had never been watched"
    );
}

#[tokio::test]
async fn who_adds_what_is_still_being_removed_waits_and_nobody_else_does() {
    let daemon = Daemon::start().await;
    daemon.watch_from_now(1).await;
    daemon.watch_from_now(2).await;
    for n in 0..8 {
        let outpoint = OutPoint {
            txid: Txid::from_byte_array([7; 32]),
            vout: n,
        };
        let mut tx = spend(outpoint, address(1).script_pubkey(), 1000);
        tx.output = vec![tx.output[0].clone(); 800];
        let (tx, seen, now) = ((&tx).into(), Seen::Accepted, NOW);
        daemon.apply(Input::TxSeen { tx, seen, now }).await;
    }
    daemon.remove(1).await;
    assert!(daemon.reader.forgetting().count() > 0);
    // Whoever comes first: also a removal, behind which everybody would wait if the list were held.
    let (mine, _, _, _) = tokio::join!(
        daemon.watch_from_now(1),
        daemon.subscriber(1),
        daemon.remove(2),
        daemon.subscriber(3)
    );
    assert_eq!(daemon.reader.forgetting().count(), 0);
    let (_, balance) = daemon.get(&format!("/balance/{mine}")).await;
    assert_eq!(balance["balance"], 0);
    let row = daemon.reader.snapshot().watch(&script(1)).unwrap().unwrap();
    assert_eq!((row.tx_count, row.utxo_count), (0, 0));
}

#[tokio::test]
async fn of_those_who_remove_an_address_at_once_one_did() {
    let daemon = Daemon::start().await;
    let mine = daemon.watch_from_now(1).await;
    let path = format!("/addresses/{mine}");
    let (a, b, c) = tokio::join!(
        daemon.delete(&path),
        daemon.delete(&path),
        daemon.delete(&path)
    );
    let mut statuses = [a.0, b.0, c.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 404, 404]);
    assert_eq!(
        daemon.get("/events").await.1["events"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_client_that_leaves_while_it_removes_an_address_holds_up_nobody() {
    let daemon = Daemon::start().await;
    for steps in 0..12 {
        let mine = daemon.watch_from_now(1).await;
        let request = Request::delete(format!("/addresses/{mine}"))
            .header("host", "localhost")
            .body(Full::<Bytes>::default())
            .unwrap();
        let mut asking = Box::pin(daemon.router.handle(request, PEER));
        for _ in 0..steps {
            if std::future::poll_fn(|context| std::task::Poll::Ready(asking.as_mut().poll(context)))
                .await
                .is_ready()
            {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(asking);
        // Whether it came to it or not, and whenever, the list can be changed again.
        daemon.watch_from_now(2).await;
        daemon.remove(2).await;
        let (status, answer) = daemon.delete(&format!("/addresses/{mine}")).await;
        assert!(status == 200 || status == 404, "{answer}");
        until("it is done", async || {
            daemon
                .reader
                .snapshot()
                .watch(&script(1))
                .unwrap()
                .is_none()
        })
        .await;
    }
}

#[tokio::test]
async fn a_subscriber_hears_that_it_is_unwatched_then_nothing_and_again_when_it_is_added_again() {
    let daemon = Daemon::start().await;
    daemon.watch_from_now(2).await;
    let mut client = daemon.subscriber(1).await;
    let answer = daemon.remove(1).await;
    let heard = client.expect("unwatched").await;
    assert_eq!(
        (&heard["address"], &heard["cursor"]),
        (&json!(address(1).to_string()), &answer["cursor"])
    );
    daemon.pay(&address(1), 1000, 1).await;
    daemon.mine(&address(1), Vec::new()).await;
    daemon.told().await;
    assert!(client.queued().is_empty());
    assert_eq!(
        daemon
            .services
            .overview
            .dispatch
            .counts()
            .await
            .unwrap()
            .subscriptions,
        1,
        "it stays subscribed"
    );
    daemon.watch_from_now(1).await;
    daemon.pay(&address(1), 2000, 2).await;
    daemon.told().await;
    assert_eq!(
        names(&client.queued()),
        ["new_transactions", "balance_change"]
    );
    client
        .emit(
            "unsubscribe_address",
            json!({"address": address(1).to_string()}),
        )
        .await;
    client.expect("unsubscribed").await;
    assert_eq!(
        daemon
            .services
            .overview
            .dispatch
            .counts()
            .await
            .unwrap()
            .subscriptions,
        0
    );
}

/// Wherever the removal comes in between: who put it on the list again is told so.
#[tokio::test]
async fn who_adds_what_is_removed_meanwhile_is_not_told_that_it_was_watched_already() {
    let daemon = Daemon::start().await;
    let mine = address(1).to_string();
    let requests = [
        ("/add_address", json!({ "address": mine })),
        ("/add_addresses", json!({ "addresses": [mine] })),
    ];
    // Of each request: not new, new.
    let mut outcomes = [[0; 2]; 2];
    for round in 0..30 {
        // The last one is answered before the removal.
        let steps = [0, 1, 2, 3, 4, u32::MAX][round % 6];
        for (place, (path, body)) in requests.iter().enumerate() {
            daemon.watch_from_now(1).await;
            let body = body.to_string();
            let mut adding = Box::pin(daemon.post(path, &body));
            let mut answer = None;
            for _ in 0..steps {
                let polled = std::future::poll_fn(|cx| Poll::Ready(adding.as_mut().poll(cx)));
                if let Poll::Ready(ready) = polled.await {
                    answer = Some(ready);
                    break;
                }
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            daemon.remove(1).await;
            let (status, answer) = match answer {
                Some(answer) => answer,
                None => adding.await,
            };
            let said = answer["message"].as_str().unwrap_or_default();
            let is_new = match answer["added"].as_u64() {
                Some(added) => added == 1,
                None => said.contains("from now on"),
            };
            let row = daemon.reader.snapshot().watch(&script(1)).unwrap();
            assert_eq!(is_new, row.is_some(), "after {steps} steps: {answer}");
            // Or it was added and removed before the answer looked at it.
            let is_gone = status == 404 && answer["code"] == "not_watched";
            assert!(status == 200 || is_gone, "{answer}");
            outcomes[place][usize::from(is_new)] += 1;
        }
    }
    assert!(!outcomes.as_flattened().contains(&0), "{outcomes:?}");
}

#[tokio::test]
async fn subscribing_again_adds_it_again() {
    let daemon = Daemon::start().await;
    let mut client = daemon.subscriber(1).await;
    let removed = daemon.remove(1).await;
    client.expect("unwatched").await;
    client
        .emit(
            "subscribe_address",
            json!({"address": address(1).to_string()}),
        )
        .await;
    let again = client.expect("subscribed").await;
    assert!(
        number(&again) >= number(&removed) && again["balance"]["coverage"]["pending"] == true,
        "{again}"
    );
    assert!(
        daemon
            .reader
            .snapshot()
            .watch(&script(1))
            .unwrap()
            .is_some()
    );
    daemon.pay(&address(1), 2000, 2).await;
    daemon.told().await;
    assert_eq!(
        names(&client.queued()),
        ["new_transactions", "balance_change"]
    );
}

/// Whatever meets whatever: who was answered with `subscribed` is told when its address is not
/// watched any more.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_subscribed_is_watched_or_told_otherwise() {
    let daemon = Daemon::start().await;
    let path = format!("/addresses/{}", address(1));
    let wishes = [
        json!({"address": address(1).to_string()}),
        json!({"address": address(1).to_string(), "snapshot": false}),
        json!({"address": address(1).to_string(), "confirmations": [2]}),
    ];
    for round in 0..150 {
        let mut client = daemon.client().await;
        let wish = wishes[round % wishes.len()].clone();
        let (_, mut removed) = tokio::join!(client.emit("subscribe_address", wish), async {
            let mut removed = 0;
            for _ in 0..round % 4 {
                removed += usize::from(daemon.delete(&path).await.0 == 200);
            }
            removed
        });
        daemon.told().await;
        let mut is_watched = None;
        for (name, data) in client.queued() {
            match name.as_str() {
                "subscribed" => is_watched = Some(true),
                "unwatched" => is_watched = Some(false),
                "error" => assert_eq!(data["code"], "not_watched"),
                other => panic!("{other} {data}"),
            }
        }
        let watched = daemon
            .reader
            .snapshot()
            .watch(&script(1))
            .unwrap()
            .is_some();
        assert!(
            is_watched.is_none_or(|it| it == watched),
            "round {round}: {is_watched:?} {watched}"
        );
        removed += usize::from(daemon.delete(&path).await.0 == 200);
        assert!(removed <= 5, "{removed}");
    }
}

#[tokio::test]
async fn a_replay_goes_through_the_end_of_watching() {
    let daemon = Daemon::start().await;
    daemon.watch_from_now(1).await;
    let start = daemon.get("/status").await.1["cursor"].clone();
    daemon.pay(&address(1), 1000, 1).await;
    daemon.remove(1).await;
    let mut client = daemon.client().await;
    client
        .emit(
            "subscribe_address",
            json!({"address": address(1).to_string(), "after": start}),
        )
        .await;
    let heard = client.queued();
    assert_eq!(
        names(&heard),
        [
            "subscribed",
            "new_transactions",
            "balance_change",
            "unwatched",
            "caught_up"
        ]
    );
    assert_eq!(
        heard[0].1["balance"]["balance"], 0,
        "it is watched again, from now on"
    );
}

#[tokio::test]
async fn a_long_poll_for_an_address_ends_with_its_unwatching() {
    let daemon = Daemon::start().await;
    let mine = daemon.watch_from_now(1).await;
    let head = daemon.get("/status").await.1["cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/events?wait=30&address={mine}&after={head}");
    let (waited, _) = tokio::join!(daemon.get(&path), daemon.remove(1));
    match waited.0 {
        200 => assert_eq!(waited.1["events"][0]["event"], "unwatched"),
        // It was removed before it was looked for.
        status => assert_eq!((status, &waited.1["code"]), (404, &json!("not_watched"))),
    }
    let (_, log) = daemon.get(&format!("/events?after={head}")).await;
    assert_eq!(
        log["events"][0]["event"], "unwatched",
        "the whole log still has it"
    );
}

#[tokio::test]
async fn a_consumer_hears_of_it_and_goes_on_when_it_is_added_again() {
    let daemon = Daemon::start().await;
    daemon.watch_from_now(2).await;
    let listed = json!({"addresses": [address(1).to_string(), address(2).to_string()]});
    daemon.define("list", listed.clone()).await;
    daemon.define("all", json!({})).await;
    let mut client = daemon.client().await;
    client
        .emit("subscribe_consumer", json!({"consumer": "list"}))
        .await;
    client.expect("subscribed_consumer").await;
    client.expect("caught_up").await;
    let removed = daemon.remove(1).await;
    assert_eq!(
        client.expect("unwatched").await["cursor"],
        removed["cursor"]
    );
    for name in ["list", "all"] {
        let (_, shown) = daemon.get(&format!("/consumers/{name}")).await;
        assert_eq!(
            (&shown["lag"], &shown["head"]),
            (&json!(1), &removed["cursor"]),
            "{shown}"
        );
    }
    assert_eq!(
        daemon.get("/consumers/list").await.1["addresses"]
            .as_array()
            .unwrap()
            .len(),
        2,
        "what it wants is its own affair"
    );
    daemon.pay(&address(1), 1000, 1).await;
    daemon.watch_from_now(1).await;
    daemon.pay(&address(1), 2000, 2).await;
    assert_eq!(
        client.expect("new_transactions").await["transactions"][0]["received"],
        2000
    );
    client.expect("balance_change").await;
    daemon.remove(1).await;
    client.expect("unwatched").await;
    let (status, _) = daemon.define("list", listed).await;
    assert_eq!(status, 200);
    assert!(
        daemon
            .reader
            .snapshot()
            .watch(&script(1))
            .unwrap()
            .is_some(),
        "to define it again watches what it names"
    );
}

#[tokio::test]
async fn a_consumer_whose_cursor_expired_gets_the_balances_of_what_is_still_watched() {
    let daemon = Daemon::start().await;
    let addresses = json!([address(1).to_string(), address(2).to_string()]);
    daemon
        .define("list", json!({ "addresses": addresses }))
        .await;
    daemon.pay(&address(1), 1000, 1).await;
    daemon.remove(1).await;
    daemon
        .indexer
        .prune_events(old_by_clock(u64::MAX))
        .await
        .unwrap();
    let (status, gone) = daemon.get("/events?consumer=list").await;
    assert_eq!((status, &gone["code"]), (410, &json!("cursor_expired")));
    let balances: Vec<_> = gone["balances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|balance| balance["address"].clone())
        .collect();
    assert_eq!(balances, [json!(address(2).to_string())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_told_last_and_keeps_no_lane_for_it() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(204, 0).await);
    daemon
        .define(
            "hook",
            json!({"addresses": [address(1).to_string()], "url": receiver.url}),
        )
        .await;
    daemon.pay(&address(1), 1000, 1).await;
    until("the first event is in flight", async || {
        receiver.cursors().len() == 1
    })
    .await;
    let removed = daemon.remove(1).await;
    receiver.gate.add_permits(ANY);
    until("the last one has come", async || {
        receiver.cursors().len() == 3
    })
    .await;
    let events: Vec<_> = receiver
        .bodies
        .lock()
        .unwrap()
        .iter()
        .map(|body| body["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(events, ["new_transactions", "balance_change", "unwatched"]);
    assert_eq!(receiver.cursors()[2], removed["cursor"]);
    until("nothing is left", async || {
        let webhook = daemon.webhook("hook").await;
        webhook["pending"] == 0 && webhook["in_flight"] == 0 && webhook["state"] == "waiting"
    })
    .await;
    daemon.watch_from_now(1).await;
    daemon.pay(&address(1), 2000, 2).await;
    until("they come again", async || receiver.cursors().len() == 5).await;
}

#[tokio::test]
async fn a_scan_goes_on_for_the_others() {
    let daemon = Daemon::start().await;
    for n in [1, 2] {
        daemon.watch_from_now(n).await;
    }
    let body =
        json!({"addresses": [address(1).to_string(), address(2).to_string()], "from_height": 0});
    let (_, answer) = daemon.post("/scan_history", &body.to_string()).await;
    daemon.remove(1).await;
    let (_, scan) = daemon
        .get(&format!("/scans/{}", answer["scan_id"].as_str().unwrap()))
        .await;
    assert_eq!(
        (&scan["status"], &scan["address_count"], &scan["address"]),
        (&json!("queued"), &json!(1), &json!(address(2).to_string()))
    );
    daemon.remove(2).await;
    let (_, scan) = daemon
        .get(&format!("/scans/{}", answer["scan_id"].as_str().unwrap()))
        .await;
    assert_eq!(
        (&scan["status"], &scan["address_count"]),
        (&json!("cancelled"), &json!(0))
    );
}

/// A scan asks for the balances of its addresses, which must not put one on the list again that was
/// just taken off it.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_is_asked_for_while_its_address_is_removed_does_not_bring_it_back() {
    let daemon = Daemon::start().await;
    for round in 0..60 {
        let mine = daemon.watch_from_now(1).await;
        let (scan, removal) = (
            format!("/scan_history/{mine}"),
            format!("/addresses/{mine}"),
        );
        let ((scanned, answer), (removed, _)) =
            tokio::join!(daemon.post(&scan, "{}"), daemon.delete(&removal));
        assert_eq!(removed, 200);
        assert!(scanned == 202 || scanned == 404, "{answer}");
        assert!(
            daemon
                .reader
                .snapshot()
                .watch(&script(1))
                .unwrap()
                .is_none(),
            "round {round}"
        );
    }
}
