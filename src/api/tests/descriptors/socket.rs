//! Descriptors over Socket.IO, in the log, and for consumers.

use hyper::Method;

use super::*;
use crate::api::tests::auth::Guarded;

fn of(events: &[(String, Value)]) -> Vec<(&str, String)> {
    let about = |data: &Value| match (&data["address"], &data["descriptor_id"]) {
        (Value::String(address), _) => address.clone(),
        (_, Value::String(_)) => "wallet".to_owned(),
        _ => "chain".to_owned(),
    };
    events
        .iter()
        .map(|(name, data)| (name.as_str(), about(data)))
        .collect()
}

fn logged(answer: &Value) -> Vec<(String, Value)> {
    let events = answer["events"].as_array().unwrap().iter();
    events
        .map(|it| (it["event"].as_str().unwrap().to_owned(), it["data"].clone()))
        .collect()
}

#[tokio::test]
async fn a_subscriber_hears_of_a_descriptor_and_not_of_its_addresses() {
    let (daemon, id) = Daemon::with_wallet().await;
    let mut client = daemon.client().await;
    let body = json!({"descriptor_id": id, "confirmations": [2]});
    client.emit("subscribe_descriptor", body).await;
    let subscribed = client.expect("subscribed").await;
    assert_eq!(subscribed["descriptor_id"], json!(id));
    assert_eq!(
        (
            &subscribed["balance"]["balance"],
            &subscribed["balance"]["descriptor_id"]
        ),
        (&json!(0), &json!(id))
    );
    let tx = daemon.pay(&derived(0, 0), 5000, 1).await;
    daemon.told().await;
    let heard = client.queued();
    assert_eq!(
        of(&heard),
        [
            ("new_transactions", "wallet".to_owned()),
            ("balance_change", "wallet".to_owned())
        ]
    );
    assert_eq!(heard[1].1["new_balance"], 5000);
    daemon.mine(&address(9), vec![tx]).await;
    daemon.mine(&address(9), vec![]).await;
    daemon.told().await;
    let depths: Vec<_> = client
        .queued()
        .iter()
        .filter(|(name, _)| name == "transaction_update")
        .map(|(_, data)| data["confirmations"].as_u64().unwrap())
        .collect();
    assert_eq!(depths, [1, 2]);
    client
        .emit("unsubscribe_descriptor", json!({"descriptor_id": id}))
        .await;
    assert_eq!(
        client.expect("unsubscribed").await["descriptor_id"],
        json!(id)
    );
    daemon.pay(&derived(0, 1), 5000, 2).await;
    daemon.told().await;
    assert_eq!(client.queued(), []);
}

#[tokio::test]
async fn who_subscribes_to_both_hears_both_and_subscribing_lists_the_address() {
    let (daemon, id) = Daemon::with_wallet().await;
    let mut client = daemon.client().await;
    let mine = derived(0, 0).to_string();
    let body = json!({"address": mine});
    client.emit("subscribe_address", body).await;
    assert_eq!(client.expect("subscribed").await["balance"]["balance"], 0);
    assert_eq!(daemon.get("/addresses").await.1["total"], 1);
    client
        .emit(
            "subscribe_descriptor",
            json!({"descriptor": wallet(), "snapshot": false}),
        )
        .await;
    let subscribed = client.expect("subscribed").await;
    assert_eq!(
        (&subscribed["descriptor_id"], &subscribed["balance"]),
        (&json!(id), &Value::Null)
    );
    daemon.pay(&derived(0, 0), 5000, 1).await;
    daemon.told().await;
    let heard = client.queued();
    let mut about = of(&heard);
    about.sort_unstable();
    let mut expected = vec![];
    for name in ["balance_change", "new_transactions"] {
        expected.extend([(name, mine.clone()), (name, "wallet".to_owned())]);
    }
    expected.sort_unstable();
    assert_eq!(about, expected);
    let mut cursors: Vec<_> = heard.iter().map(|it| it.1["cursor"].clone()).collect();
    cursors.dedup();
    assert_eq!(cursors.len(), 4, "each number once");
}

impl Daemon {
    /// Removes it, with all its rows.
    async fn remove_wallet(&self, id: &str) {
        assert_eq!(self.delete(&format!("/descriptors/{id}")).await.0, 200);
        while self.reader.snapshot().leaving().next().is_some() {
            self.apply(Input::Forget { now: NOW }).await;
        }
    }
}

#[tokio::test]
async fn who_listens_to_an_unused_address_hears_it_also_when_its_descriptor_is_gone() {
    let (daemon, id) = Daemon::with_wallet().await;
    let (mine, other) = (derived(0, 5), derived(0, 6));
    let mut client = daemon.client().await;
    let body = json!({"address": mine.to_string()});
    client.emit("subscribe_address", body).await;
    client.expect("subscribed").await;
    let body = json!({"addresses": [other.to_string()]});
    assert_eq!(daemon.put("shop", body).await.0, 201);
    daemon.remove_wallet(&id).await;
    daemon.pay(&mine, 5000, 1).await;
    daemon.pay(&other, 7000, 2).await;
    daemon.told().await;
    let names: Vec<_> = of(&client.queued())
        .into_iter()
        .map(|it| it.0.to_owned())
        .collect();
    assert_eq!(names, ["new_transactions", "balance_change"]);
    let (_, answer) = daemon.get("/events?consumer=shop").await;
    assert_eq!(logged(&answer).len(), 2, "{answer}");
}

#[tokio::test]
async fn who_listens_to_an_address_is_told_when_it_is_only_its_descriptors_again() {
    let (daemon, id) = Daemon::with_wallet().await;
    let mine = derived(0, 5).to_string();
    let mut client = daemon.client().await;
    client
        .emit("subscribe_address", json!({"address": mine}))
        .await;
    client.expect("subscribed").await;
    let (status, removed) = daemon.delete(&format!("/addresses/{mine}")).await;
    assert_eq!(status, 200, "{removed}");
    let told = client.expect("unwatched").await;
    assert_eq!(
        (&told["address"], &told["cursor"]),
        (&json!(mine), &removed["cursor"])
    );
    daemon.remove_wallet(&id).await;
    daemon.told().await;
    assert_eq!(client.queued(), [], "it knows already");
}

#[tokio::test]
async fn who_may_only_read_is_told_why_an_address_of_a_descriptor_is_not_subscribed_to() {
    let guarded = Guarded::start().await;
    guarded.daemon.derive();
    let body = json!({"descriptor": wallet(), "history": "none"});
    let token = Some(guarded.text(Scope::Watch));
    let added = guarded
        .ask(&Method::POST, "/descriptors", token, &body)
        .await;
    assert_eq!(added.0, 201, "{added:?}");
    let (mine, id) = (derived(0, 5).to_string(), &added.1["descriptor_id"]);
    let mut client = guarded.client(Scope::Read).await;
    client
        .emit("subscribe_address", json!({"address": mine}))
        .await;
    let error = client.expect("error").await;
    let why = format!(
        "{mine} is watched for its descriptor alone, not by itself. This needs a token of scope watch; yours has read."
    );
    assert_eq!(
        (&error["code"], &error["error"]),
        (&json!("forbidden"), &json!(why))
    );
    // The descriptor is watched.
    client
        .emit("subscribe_descriptor", json!({"descriptor_id": id}))
        .await;
    client.expect("subscribed").await;
}

#[tokio::test]
async fn a_descriptor_that_is_not_watched_is_added_by_who_may() {
    let daemon = Daemon::start().await;
    daemon.derive();
    let mut client = daemon.client().await;
    let unknown = json!({"descriptor_id": "0".repeat(64)});
    for (body, code) in [
        (unknown, "no_such_descriptor"),
        (json!({}), "missing_field"),
        (
            json!({"descriptor": wallet(), "descriptor_id": "0".repeat(64)}),
            "invalid_field",
        ),
        (
            json!({"descriptor": "tprv8ZgxMBicQKsPeDgjzdC36fs6bMjGApWDNLR9erAXMs5skhMv36j9MV5ecvfavji5khqjWaWSFhN3YcCUUdiKH6isR4Pwy3U5y5egddBr16m", "descriptor_id": "0"}),
            "private_key",
        ),
        (
            json!({"descriptor": wallet(), "history": "none"}),
            "unknown_field",
        ),
    ] {
        client.emit("subscribe_descriptor", body).await;
        let error = client.expect("error").await;
        assert_eq!(error["code"], json!(code), "{error}");
    }
    assert_eq!(daemon.reader.snapshot().descriptor_count().unwrap(), 0);
    client
        .emit("subscribe_descriptor", json!({"descriptor": wallet()}))
        .await;
    let subscribed = client.expect("subscribed").await;
    assert_eq!(
        subscribed["balance"]["coverage"]["pending"], true,
        "{subscribed}"
    );
    assert_eq!(daemon.reader.snapshot().descriptor_count().unwrap(), 1);
}

#[tokio::test]
async fn what_was_missed_is_told_from_a_cursor() {
    let (daemon, id) = Daemon::with_wallet().await;
    let cursor = daemon.of(&id, "").await["cursor"].clone();
    daemon.pay(&derived(0, 0), 5000, 1).await;
    daemon.pay(&derived(1, 2), 7000, 2).await;
    daemon.told().await;
    let mut client = daemon.client().await;
    let body = json!({"descriptor_id": id, "after": cursor});
    client.emit("subscribe_descriptor", body).await;
    let subscribed = client.expect("subscribed").await;
    assert_eq!(subscribed["balance"]["balance"], 12_000);
    let names: Vec<_> = client.queued().into_iter().map(|(name, _)| name).collect();
    let both = ["new_transactions", "balance_change"];
    assert_eq!(names, [both[0], both[1], both[0], both[1], "caught_up"]);
}

#[tokio::test]
async fn the_log_tells_of_descriptors_to_who_names_them() {
    let (daemon, id) = Daemon::with_wallet().await;
    let mine = derived(0, 0).to_string();
    daemon.pay(&derived(0, 0), 5000, 1).await;
    daemon.told().await;
    let about = async |query: &str| {
        let (status, answer) = daemon.get(&format!("/events{query}")).await;
        assert_eq!(status, 200, "{answer}");
        let all: Vec<_> = of(&logged(&answer)).into_iter().map(|it| it.1).collect();
        all
    };
    assert_eq!(about("").await, [mine.clone(), mine.clone()]);
    assert_eq!(
        about(&format!("?descriptor={id}")).await,
        ["wallet", "wallet"]
    );
    assert_eq!(about("?descriptor=all").await, ["wallet", "wallet"]);
    assert_eq!(about("?address=all").await, [mine.clone(), mine.clone()]);
    for query in [
        format!("?descriptor={id}&address={mine}"),
        "?address=all&descriptor=all".to_owned(),
    ] {
        let mut both = about(&query).await;
        both.sort_unstable();
        assert_eq!(both, [mine.as_str(), &mine, "wallet", "wallet"]);
    }
    let (_, answer) = daemon.get("/events").await;
    let owned = &logged(&answer)[0].1;
    let owner = json!({"descriptor_id": id, "keychain": "external", "index": 0});
    assert_eq!(owned["owners"], json!([owner]));
    for (query, status, code) in [
        (
            format!("?descriptor={}", "0".repeat(64)),
            404,
            "no_such_descriptor",
        ),
        (
            "?descriptor=all&descriptor=all".to_owned(),
            404,
            "no_such_descriptor",
        ),
        (
            format!("?descriptor={id}&after=0000000000000000-1"),
            410,
            "cursor_unknown",
        ),
    ] {
        let (found, error) = daemon.get(&format!("/events{query}")).await;
        assert_eq!(
            (found, &error["code"]),
            (status, &json!(code)),
            "{query} {error}"
        );
        if status == 410 {
            assert_eq!(error["balances"][0]["descriptor_id"], json!(id), "{error}");
        }
    }
}

#[tokio::test]
async fn a_consumer_hears_of_descriptors_when_it_names_them_or_all() {
    let (daemon, id) = Daemon::with_wallet().await;
    let mine = derived(0, 0).to_string();
    for (name, body, shown) in [
        ("plain", json!({}), json!([])),
        (
            "wallet",
            json!({"addresses": [], "descriptors": [id]}),
            json!([id]),
        ),
        (
            "all",
            json!({"addresses": [], "descriptors": "all"}),
            json!("all"),
        ),
        ("both", json!({"descriptors": [id, id]}), json!([id])),
    ] {
        let (status, put) = daemon.put(name, body.clone()).await;
        assert_eq!((status, &put["descriptors"]), (201, &shown), "{put}");
        let (status, _) = daemon.put(name, body).await;
        assert_eq!(status, 200, "it was like that already");
    }
    daemon.pay(&derived(0, 0), 5000, 1).await;
    daemon.told().await;
    let about = async |name: &str| {
        let (_, answer) = daemon.get(&format!("/events?consumer={name}")).await;
        let mut all: Vec<_> = of(&logged(&answer)).into_iter().map(|it| it.1).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(
        about("plain").await,
        [mine.as_str(), &mine],
        "as before there were descriptors"
    );
    assert_eq!(about("wallet").await, ["wallet", "wallet"]);
    assert_eq!(about("all").await, ["wallet", "wallet"]);
    assert_eq!(
        about("both").await,
        [mine.as_str(), &mine, "wallet", "wallet"]
    );
    let (_, shown) = daemon.get("/consumers/wallet").await;
    assert_eq!(
        shown["lag"], 3,
        "from the first that it wants up to the head"
    );
    for (body, status, code) in [
        (json!({"addresses": []}), 400, "invalid_field"),
        (
            json!({"addresses": [], "descriptors": []}),
            400,
            "invalid_field",
        ),
        (
            json!({"descriptors": ["0".repeat(64)]}),
            404,
            "no_such_descriptor",
        ),
        (json!({"descriptors": id}), 400, "invalid_field"),
        (json!({"descriptors": [1]}), 400, "invalid_field"),
    ] {
        let (found, error) = daemon.put("new", body).await;
        assert_eq!((found, &error["code"]), (status, &json!(code)), "{error}");
    }
    assert_eq!(daemon.get("/consumers/new").await.0, 404);
    // It stays as it is when it is read again.
    let folder = daemon.kill().await;
    let (daemon, _dispatch) = Daemon::on(folder, config::Config::default());
    for (name, shown) in [
        ("wallet", json!([id])),
        ("all", json!("all")),
        ("plain", json!([])),
    ] {
        let wants = daemon.services.consumers.get(name).unwrap().wants.clone();
        let known = wants
            .descriptors
            .map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>());
        let known = known.map_or(json!("all"), |ids| json!(ids));
        assert_eq!(known, shown, "{name}");
    }
}
