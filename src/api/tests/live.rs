use serde_json::json;

use super::*;

fn subscribe(address: &Address) -> Value {
    json!({"address": address.to_string()})
}

fn number(cursor: &Value) -> u64 {
    cursor
        .as_str()
        .unwrap()
        .rsplit_once('-')
        .unwrap()
        .1
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_subscriber_hears_its_own_address_and_nothing_else() {
    let daemon = Daemon::start().await;
    let (mine, other) = (address(1), address(2));
    let (mut a, mut b) = (daemon.client().await, daemon.client().await);
    a.emit("subscribe_address", subscribe(&mine)).await;
    b.emit("subscribe_address", subscribe(&other)).await;
    let subscribed = a.expect("subscribed").await;
    assert_eq!(
        (&subscribed["address"], &subscribed["balance"]["balance"]),
        (&json!(mine.to_string()), &json!(0))
    );
    assert_eq!(subscribed["cursor"], subscribed["balance"]["cursor"]);
    b.expect("subscribed").await;
    let tx = daemon.pay(&mine, 1_788_761_965, 9).await;
    let new = a.expect("new_transactions").await;
    assert_eq!(
        new["transactions"][0]["txid"],
        tx.compute_txid().to_string()
    );
    let change = a.expect("balance_change").await;
    assert_eq!(
        (&change["old_balance"], &change["new_balance"]),
        (&json!(0), &json!(1_788_761_965))
    );
    assert_eq!(number(&change["cursor"]), number(&new["cursor"]) + 1);
    daemon.mine(&other, vec![tx]).await;
    daemon.told().await;
    let names =
        |events: Vec<(String, Value)>| events.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(
        names(a.queued()),
        ["transaction_update"],
        "the balance stays the same"
    );
    assert_eq!(
        names(b.queued()),
        ["new_transactions", "balance_change"],
        "the coinbase"
    );
}

#[tokio::test]
async fn blocks_come_to_those_who_asked() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client().await;
    client.say(r#"27["subscribe_blocks"]"#).await;
    let reply = client.expect("subscribed_blocks").await;
    assert_eq!(client.acknowledgement(7).await, reply);
    assert_eq!(
        (&reply["tip"]["height"], &reply["tip"]["time"]),
        (&json!(100), &json!(1_600_000_000.0))
    );
    let fork = daemon.tip();
    let block = daemon.mine(&address(1), Vec::new()).await;
    let heard = client.expect("block").await;
    assert_eq!(
        (&heard["height"], &heard["hash"]),
        (&json!(101), &json!(block.block_hash().to_string()))
    );
    daemon.apply(Input::Disconnect { to: fork, now: NOW }).await;
    let heard = client.expect("reorg").await;
    assert_eq!(
        (&heard["depth"], &heard["fork_point"]["height"]),
        (&json!(1), &json!(100))
    );
}

#[tokio::test]
async fn an_acknowledgement_is_the_reply_or_the_error() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client().await;
    client
        .say(&format!(
            "21{}",
            json!(["subscribe_address", subscribe(&address(1))])
        ))
        .await;
    let reply = client.expect("subscribed").await;
    assert_eq!(client.acknowledgement(1).await, reply);
    client
        .say(&format!(
            "22{}",
            json!(["unsubscribe_address", subscribe(&address(1))])
        ))
        .await;
    let reply = client.expect("unsubscribed").await;
    assert_eq!(client.acknowledgement(2).await, reply);
    for (argument, code) in [
        (json!({"address": "nonsense"}), "invalid_address"),
        (
            json!({"address": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"}),
            "wrong_network",
        ),
        (json!({}), "missing_field"),
        (json!("text"), "invalid_json"),
        (
            json!({"address": address(2).to_string(), "confirmations": [145]}),
            "invalid_field",
        ),
        (
            json!({"address": address(2).to_string(), "after": 7}),
            "invalid_field",
        ),
        (
            json!({"address": address(2).to_string(), "after": "7"}),
            "invalid_cursor",
        ),
        (
            json!({"address": address(2).to_string(), "snapshot": "no"}),
            "invalid_field",
        ),
    ] {
        client
            .say(&format!("23{}", json!(["subscribe_address", argument])))
            .await;
        let error = client.expect("error").await;
        assert_eq!(error["code"], code, "{argument}");
        assert_eq!(client.acknowledgement(3).await, error);
    }
    client.emit("no_such_event", json!({})).await;
    assert_eq!(client.expect("error").await["code"], "unknown_event");
    client.say(r#"2["subscribe_address"]"#).await;
    assert_eq!(client.expect("error").await["code"], "invalid_json");
    assert_eq!(
        daemon.reader.snapshot().counts().unwrap().addresses,
        1,
        "bad input adds nothing"
    );
}

#[tokio::test]
async fn attachments_are_refused_and_the_session_goes_on() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client().await;
    let event = r#"["subscribe_address",{"address":{"_placeholder":true,"num":0}}]"#;
    client.say(&format!("51-7{event}")).await;
    let attachment = Message::Binary(bytes::Bytes::from_static(b"x"));
    if let Some(work) = client.layer.message(&client.session, attachment) {
        work.await;
    }
    let error = client.expect("error").await;
    assert_eq!(error["code"], "attachments_not_taken");
    assert_eq!(client.acknowledgement(7).await, error);
    // As it advises.
    client
        .emit("subscribe_address", subscribe(&address(1)))
        .await;
    client.expect("subscribed").await;
}

#[tokio::test]
async fn a_list_is_answered_with_a_list() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client().await;
    let addresses: Vec<String> = (1..=50).map(|n| address(n).to_string()).collect();
    client
        .emit(
            "subscribe_addresses",
            json!({"addresses": addresses, "confirmations": [3, 6]}),
        )
        .await;
    let reply = client.expect("subscribed").await;
    assert_eq!(
        (&reply["addresses"], &reply["count"]),
        (&json!(addresses), &json!(50))
    );
    assert_eq!(reply["balances"][49]["address"], addresses[49]);
    daemon.pay(&address(50), 1000, 9).await;
    assert_eq!(
        client.expect("new_transactions").await["address"],
        addresses[49]
    );
    let (_, listed) = daemon.get("/addresses?limit=1").await;
    assert_eq!(listed["addresses"][0]["confirmations"], json!([1, 3, 6]));
    client
        .emit(
            "subscribe_address",
            json!({"address": addresses[0], "snapshot": false}),
        )
        .await;
    let events = client.queued();
    assert!(
        events.last().unwrap().1.get("balance").is_none(),
        "{events:?}"
    );
}

#[tokio::test]
async fn ten_thousand_addresses_are_subscribed_to_in_one_go() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client().await;
    let text = |n: u32| {
        let program: Vec<u8> = n.to_be_bytes().into_iter().cycle().take(20).collect();
        let program = WitnessProgram::new(WitnessVersion::V0, &program).unwrap();
        Address::from_witness_program(program, KnownHrp::Regtest).to_string()
    };
    let addresses: Vec<String> = (0..10_000).map(text).collect();
    client
        .say(&format!(
            "20{}",
            json!(["subscribe_addresses", {"addresses": addresses}])
        ))
        .await;
    let reply = client.expect("subscribed").await;
    assert_eq!(
        (
            &reply["count"],
            reply["addresses"].as_array().unwrap().len()
        ),
        (&json!(10_000), 10_000)
    );
    assert!(
        reply.get("balances").is_none()
            && reply["message"]
                .as_str()
                .unwrap()
                .contains("GET /addresses")
    );
    assert_eq!(client.acknowledgement(0).await, reply);
    let counts = daemon.services.overview.dispatch.counts().await.unwrap();
    assert_eq!((counts.subscribers, counts.subscriptions), (1, 10_000));
    client.say("1").await;
    while daemon
        .services
        .overview
        .dispatch
        .counts()
        .await
        .unwrap()
        .subscriptions
        > 0
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_client_has_a_limited_number_of_subscriptions() {
    let mut config = config::Config::default();
    config.limits.subscriptions = 2;
    let daemon = Daemon::with(config).await;
    let mut client = daemon.client().await;
    client
        .emit(
            "subscribe_addresses",
            json!({"addresses": [address(1).to_string(), address(2).to_string()]}),
        )
        .await;
    client.expect("subscribed").await;
    client
        .emit("subscribe_address", subscribe(&address(3)))
        .await;
    assert_eq!(
        client.expect("error").await["code"],
        "too_many_subscriptions"
    );
    assert_eq!(
        daemon.reader.snapshot().counts().unwrap().addresses,
        2,
        "a refused subscription watches nothing"
    );
    client
        .emit("subscribe_address", subscribe(&address(2)))
        .await;
    client.expect("subscribed").await;
}

#[tokio::test]
async fn nothing_comes_after_unsubscribing_or_leaving() {
    let daemon = Daemon::start().await;
    let (mut a, mut b) = (daemon.client().await, daemon.client().await);
    for client in [&mut a, &mut b] {
        client
            .emit("subscribe_address", subscribe(&address(1)))
            .await;
        client.expect("subscribed").await;
    }
    a.emit("unsubscribe_address", subscribe(&address(1))).await;
    a.expect("unsubscribed").await;
    b.say("1").await;
    daemon.pay(&address(1), 1000, 9).await;
    daemon.told().await;
    assert_eq!((a.queued(), b.queued()), (Vec::new(), Vec::new()));
    let counts = daemon.services.overview.dispatch.counts().await.unwrap();
    assert_eq!((counts.subscribers, counts.subscriptions), (0, 0));
}

#[tokio::test]
async fn a_replay_brings_what_came_after_the_cursor_once_and_then_goes_live() {
    let daemon = Daemon::start().await;
    let (mine, other) = (address(1), address(2));
    let mut first = daemon.client().await;
    first
        .emit(
            "subscribe_addresses",
            json!({"addresses": [mine.to_string(), other.to_string()]}),
        )
        .await;
    let cursor = first.expect("subscribed").await["cursor"].clone();
    for n in 1..=5 {
        daemon.pay(&mine, 1000, n).await;
        daemon.pay(&other, 1000, 100 + n).await;
    }
    daemon.told().await;
    let live: Vec<_> = first
        .queued()
        .into_iter()
        .filter(|(_, data)| data["address"] == mine.to_string())
        .collect();
    assert_eq!(live.len(), 10);

    let mut second = daemon.client().await;
    second
        .emit(
            "subscribe_address",
            json!({"address": mine.to_string(), "after": cursor}),
        )
        .await;
    let subscribed = second.expect("subscribed").await;
    assert_eq!(
        (&subscribed["cursor"], &subscribed["balance"]["balance"]),
        (&cursor, &json!(5000))
    );
    let mut replayed = second.queued();
    let (name, caught_up) = replayed.pop().unwrap();
    assert_eq!(
        (name.as_str(), &caught_up["address"]),
        ("caught_up", &json!(mine.to_string()))
    );
    assert_eq!(replayed, live, "the same events as those who were there");
    daemon.pay(&mine, 1000, 6).await;
    assert!(
        number(&second.expect("new_transactions").await["cursor"]) > number(&caught_up["cursor"])
    );
}

#[tokio::test]
async fn a_cursor_of_another_log_is_answered_with_a_fresh_snapshot() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client().await;
    for after in [
        json!("ffffffffffffffff-3"),
        json!(daemon.services.reads.encoder.cursor(1 << 60)),
    ] {
        client
            .say(&format!("25{}", json!(["subscribe_address", {"address": address(1).to_string(), "after": after, "snapshot": false}])))
            .await;
        assert_eq!(client.expect("error").await["code"], "cursor_unknown");
        let reply = client.expect("subscribed").await;
        assert_eq!(
            (&reply["code"], &reply["cursor"]),
            (
                &json!("cursor_unknown"),
                &json!(daemon.services.reads.encoder.cursor(0))
            )
        );
        assert!(reply["balance"].is_object());
        assert_eq!(client.acknowledgement(5).await, reply);
    }
    daemon.pay(&address(1), 1000, 9).await;
    client.expect("new_transactions").await;
}

/// Whoever subscribes at any moment, again and again, gets every event exactly once: what came as
/// events after its first cursor is the log without gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn subscribing_while_events_arrive_loses_and_doubles_nothing() {
    let daemon = Arc::new(Daemon::start().await);
    let mine = address(1);
    daemon
        .post("/add_address", &subscribe(&mine).to_string())
        .await;
    let payer = tokio::spawn({
        let (daemon, mine) = (daemon.clone(), mine.clone());
        async move {
            for n in 1..=200 {
                daemon.pay(&mine, 1000, n).await;
            }
        }
    });
    let mut clients = Vec::new();
    for _ in 0..20 {
        let client = daemon.client().await;
        for again in 0..4 {
            client
                .emit(
                    "subscribe_address",
                    json!({"address": mine.to_string(), "snapshot": again == 0}),
                )
                .await;
            tokio::task::yield_now().await;
        }
        clients.push(client);
    }
    payer.await.unwrap();
    daemon.told().await;
    let head = daemon.reader.snapshot().head().unwrap();
    assert_eq!(head, 400);
    for mut client in clients {
        let (mut subscribed, mut last) = (0, 0);
        // Waits for what comes: a page of the log may just be read for it.
        while subscribed < 4 || last < head {
            let (name, data) = client.event().await;
            let cursor = number(&data["cursor"]);
            match (name.as_str(), subscribed) {
                ("subscribed", 0) => last = cursor,
                ("subscribed", _) => assert!(
                    cursor >= last,
                    "a snapshot is never older than what came before it"
                ),
                _ => {
                    assert_eq!(cursor, last + 1);
                    last = cursor;
                }
            }
            subscribed += u64::from(name == "subscribed");
        }
        assert_eq!(client.queued(), []);
    }
}

#[tokio::test]
async fn an_answer_comes_once_wherever_the_queue_fills() {
    let daemon = Daemon::start().await;
    for waiting in 0..=3 {
        let mut client = daemon.client().await;
        client
            .emit("subscribe_address", subscribe(&address(1)))
            .await;
        client.expect("subscribed").await;
        for _ in 0..waiting {
            daemon.mine(&address(2), Vec::new()).await;
        }
        client.emit("subscribe_blocks", json!({})).await;
        client.expect("subscribed_blocks").await;
        for _ in 0..waiting {
            daemon.mine(&address(2), Vec::new()).await;
        }
        daemon.told().await;
        let packet = format!(
            "28{}",
            json!(["unsubscribe_address", subscribe(&address(1))])
        );
        let mut work = client
            .layer
            .message(&client.session, Message::text(&packet))
            .unwrap();
        let mut heard = Vec::new();
        while futures_util::FutureExt::now_or_never(&mut work).is_none() {
            heard.extend(client.packet());
            tokio::task::yield_now().await;
        }
        heard.extend(std::iter::from_fn(|| client.packet()));
        let replies: Vec<_> = heard
            .iter()
            .filter(|text| !text.starts_with("2[\"block\""))
            .map(|text| &text[..16])
            .collect();
        assert_eq!(
            replies,
            ["2[\"unsubscribed\"", "38[{\"address\":\"b"],
            "{waiting} waited"
        );
    }
}

/// Whoever keeps one cursor for all that it hears misses nothing.
#[tokio::test]
async fn what_a_client_hears_stays_in_order_while_it_subscribes_again() {
    let daemon = Daemon::start().await;
    let mut between = 0;
    for polls in 0..30 {
        let mut client = daemon.client().await;
        client
            .emit(
                "subscribe_addresses",
                json!({"addresses": [address(1).to_string(), address(2).to_string()]}),
            )
            .await;
        let from = number(&client.expect("subscribed").await["cursor"]);
        let packet = format!("2{}", json!(["subscribe_address", subscribe(&address(1))]));
        let mut work = client
            .layer
            .message(&client.session, Message::text(&packet))
            .unwrap();
        let (mut is_done, mut heard) = (false, Vec::new());
        for _ in 0..polls {
            is_done = is_done || futures_util::FutureExt::now_or_never(&mut work).is_some();
            tokio::task::yield_now().await;
        }
        for salt in 0..6 {
            daemon
                .pay(&address(1 + salt % 2), 1000, 7 * polls + salt)
                .await;
            daemon.told().await;
            // The session asks for nothing while it works on a packet.
            if is_done {
                heard.extend(client.queued());
            }
        }
        between += usize::from(!is_done);
        while !is_done {
            is_done = futures_util::FutureExt::now_or_never(&mut work).is_some();
            tokio::task::yield_now().await;
        }
        daemon.pay(&address(2), 1000, 7 * polls + 6).await;
        daemon.told().await;
        heard.extend(client.queued());
        let at = heard
            .iter()
            .position(|(name, _)| name == "subscribed")
            .unwrap();
        let (_, answer) = heard.remove(at);
        let numbers: Vec<u64> = heard
            .iter()
            .map(|(_, data)| number(&data["cursor"]))
            .collect();
        assert_eq!(
            numbers,
            (from + 1..=from + 14).collect::<Vec<_>>(),
            "after {polls} polls"
        );
        assert_eq!(
            numbers
                .iter()
                .filter(|event| **event <= number(&answer["cursor"]))
                .count(),
            at,
            "the answer is in its place"
        );
    }
    assert!(
        between > 3,
        "something came while it was worked on: {between}"
    );
}
