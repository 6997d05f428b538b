//! What addresses and descriptors are called, and who hears that it changed.

use super::*;
use crate::api::tests::webhooks::{Receiver, until};

impl Daemon {
    async fn patch(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = Request::patch(path)
            .header("host", "localhost:5005")
            .header("content-type", "application/json")
            .body(Full::from(body.to_string()))
            .unwrap();
        let (status, _, body) = self.request(request).await;
        (status.as_u16(), serde_json::from_str(&body).unwrap())
    }

    pub(super) async fn label(&self, path: &str, label: Value) -> Value {
        let (status, answer) = self.patch(path, &json!({"label": label})).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// All changes of labels that are in the log: of whom, from what and to what.
    async fn label_changes(&self) -> Vec<[Value; 3]> {
        let (_, log) = self.get("/events?descriptor=all").await;
        let (_, of_addresses) = self.get("/events").await;
        let all = [&log, &of_addresses].map(|log| log["events"].as_array().unwrap().clone());
        let mut all = all.concat();
        all.sort_by_key(|event| event["cursor"].as_str().unwrap().to_owned());
        let changes = all.iter().filter(|event| event["event"] == "label_change");
        let shown = changes.map(|event| {
            let data = &event["data"];
            assert_eq!(data["cursor"], event["cursor"]);
            assert!(
                data["timestamp"].is_f64() && data["tip"]["height"] == 100,
                "{data}"
            );
            let about = [&data["address"], &data["descriptor_id"]];
            let about = about.into_iter().find(|it| it.is_string()).unwrap();
            [about, &data["previous_label"], &data["label"]].map(Clone::clone)
        });
        shown.collect()
    }
}

/// `previous` is the label before each change, the first one that it was added with.
fn changes(about: &str, labels: &[&str]) -> Vec<[Value; 3]> {
    let pairs = labels.windows(2);
    pairs
        .map(|it| [json!(about), json!(it[0]), json!(it[1])])
        .collect()
}

#[tokio::test]
async fn a_label_of_an_address_is_changed_and_taken_away_with_an_event_each() {
    let daemon = Daemon::start().await;
    let mine = address(1).to_string();
    let add = async |label: &str| {
        let body = json!({"address": mine, "label": label, "history": "none"}).to_string();
        assert_eq!(daemon.post("/add_address", &body).await.0, 200);
    };
    add("shop").await;
    assert_eq!(
        daemon.label_changes().await,
        [] as [[Value; 3]; 0],
        "a new address's first label is not an event"
    );
    let mut client = daemon.client().await;
    client
        .emit("subscribe_address", json!({"address": mine}))
        .await;
    client.expect("subscribed").await;
    let path = format!("/addresses/bitcoin:{mine}");
    let answer = daemon.label(&path, json!("till")).await;
    assert_eq!(
        (&answer["address"], &answer["label"]),
        (&json!(mine), &json!("till"))
    );
    let heard = client.expect("label_change").await;
    assert_eq!(
        (&heard["label"], &heard["previous_label"], &heard["cursor"]),
        (&json!("till"), &json!("shop"), &answer["cursor"])
    );
    // The same again is no news, also by adding it again; another one by that is.
    daemon.label(&path, json!("till")).await;
    add("till").await;
    add("bar").await;
    assert_eq!(daemon.label(&path, Value::Null).await["label"], "");
    daemon.label(&path, json!("")).await;
    let listed = daemon.get("/addresses").await.1["addresses"][0]["label"].clone();
    assert_eq!(listed, "");
    let expected = changes(&mine, &["shop", "till", "bar", ""]);
    assert_eq!(daemon.label_changes().await, expected);
    daemon.told().await;
    assert_eq!(client.queued().len(), 2);
}

#[tokio::test]
async fn a_label_of_a_descriptor_and_of_its_addresses_is_changed_with_an_event_each() {
    let daemon = Daemon::start().await;
    daemon.derive();
    let id = daemon.add_wallet(json!({"label": "shop"})).await;
    let path = format!("/descriptors/{id}");
    let answer = daemon.label(&path, json!("till")).await;
    assert_eq!(
        (&answer["descriptor_id"], &answer["label"]),
        (&json!(id), &json!("till"))
    );
    daemon.label(&path, json!("till")).await;
    for label in ["till", "bar"] {
        let body = json!({"descriptor": wallet(), "label": label}).to_string();
        assert_eq!(daemon.post("/descriptors", &body).await.0, 200);
    }
    daemon.label(&path, Value::Null).await;
    assert_eq!(daemon.of(&id, "").await["label"], "");
    let of_wallet = changes(&id, &["shop", "till", "bar", ""]);
    assert_eq!(daemon.label_changes().await, of_wallet);
    // One of its addresses is called something when it is given away, and otherwise later.
    let (_, given) = daemon.next_address(&id, json!({"label": "order 7"})).await;
    let given = given["address"].as_str().unwrap().to_owned();
    daemon
        .label(&format!("/addresses/{given}"), json!("order 8"))
        .await;
    let listed = daemon.of(&id, "/addresses?limit=1").await;
    assert_eq!(listed["addresses"][0]["label"], "order 8");
    assert_eq!(daemon.get("/addresses").await.1["total"], 0, "not by that");
    let of_address = changes(&given, &["", "order 7", "order 8"]);
    assert_eq!(
        daemon.label_changes().await,
        [of_wallet, of_address].concat()
    );
}

#[tokio::test]
async fn a_label_that_cannot_be_changed_is_refused_and_stays() {
    let (daemon, id) = Daemon::with_wallet().await;
    let mine = daemon.watch_from_now(1).await;
    let (of_mine, of_wallet) = (format!("/addresses/{mine}"), format!("/descriptors/{id}"));
    let long = "x".repeat(257);
    let refused = [
        (&*of_mine, json!({}), 400, "missing_field"),
        (&of_mine, json!({"label": 1}), 400, "invalid_field"),
        (&of_mine, json!({"label": long}), 400, "invalid_field"),
        (&of_wallet, json!({"label": long}), 400, "invalid_field"),
        (&of_wallet, json!({"name": "x"}), 400, "unknown_field"),
        (
            &*format!("/addresses/{}", address(2)),
            json!({"label": "x"}),
            404,
            "not_watched",
        ),
        (
            &*format!("/descriptors/{}", "ab".repeat(32)),
            json!({"label": "x"}),
            404,
            "no_such_descriptor",
        ),
        (
            "/addresses/nonsense",
            json!({"label": "x"}),
            400,
            "invalid_address",
        ),
    ];
    let head = daemon.reader.snapshot().head().unwrap();
    for (path, body, status, code) in refused {
        let answer = daemon.patch(path, &body).await;
        assert_eq!(
            (answer.0, &answer.1["code"]),
            (status, &json!(code)),
            "{path} {body}"
        );
    }
    assert_eq!(daemon.reader.snapshot().head().unwrap(), head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_told_of_a_label() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(204, 9).await);
    let mine = daemon.watch_from_now(1).await;
    daemon.define("shop", json!({ "url": receiver.url })).await;
    daemon
        .label(&format!("/addresses/{mine}"), json!("till"))
        .await;
    until("it is sent", async || {
        !receiver.bodies.lock().unwrap().is_empty()
    })
    .await;
    let sent = receiver.bodies.lock().unwrap()[0].clone();
    assert_eq!(
        (&sent["event"], &sent["data"]["label"]),
        (&json!("label_change"), &json!("till")),
        "{sent}"
    );
}
