//! Reading consumers: over Socket.IO and REST, alone and side by side, slowly, and to the end of
//! their readings.

use std::collections::BTreeMap;

use super::*;

impl Client {
    async fn read(&self, name: &str) {
        self.emit("subscribe_consumer", json!({ "consumer": name }))
            .await;
    }

    /// Hears `subscribed_consumer` and what follows up to `caught_up`: the reply, and the numbers
    /// of the events.
    async fn backlog(&mut self) -> (Value, Vec<u64>) {
        let reply = self.expect("subscribed_consumer").await;
        let mut numbers = Vec::new();
        loop {
            let (name, data) = self.event().await;
            if name == "caught_up" {
                assert_eq!(data["consumer"], reply["consumer"]);
                return (reply, numbers);
            }
            numbers.push(number(&data["cursor"]));
        }
    }

    async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            let (name, data) = self.event().await;
            assert!(
                ["new_transactions", "balance_change", "block"].contains(&name.as_str()),
                "{name} {data}"
            );
            numbers.push(number(&data["cursor"]));
        }
        numbers
    }
}

/// A daemon with a watched address, a consumer of all, and `payments` after it: two events each.
async fn shop(payments: u8) -> Daemon {
    let daemon = Daemon::start().await;
    daemon.watch(1).await;
    daemon.consumer("shop", json!({})).await;
    for n in 1..=payments {
        daemon.pay(&address(1), 1000, n).await;
    }
    daemon
}

/// An ack comes while the reading begins.
#[tokio::test]
async fn a_reading_names_the_place_that_was_acknowledged_when_it_began() {
    let daemon = shop(1).await;
    let second = daemon.watch(2).await;
    let wants = json!({ "addresses": [second], "after": daemon.cursor_of(0) });
    daemon.consumer("second", wants).await;
    daemon.pay(&address(2), 1000, 2).await;
    let mut reader = daemon.client().await;
    let subscribe = r#"2["subscribe_consumer",{"consumer":"second"}]"#;
    let work = reader
        .layer
        .message(&reader.session, Message::text(subscribe));
    let mut work = Box::pin(work.expect("it is worked on"));
    let is_done = poll_fn(|context| Poll::Ready(work.as_mut().poll(context).is_ready())).await;
    assert!(!is_done, "it looks what is unread");
    // One look after the other: now that one has ended.
    daemon.get("/consumers/second").await;
    assert_eq!(daemon.ack("second", 4).await.0, 200);
    work.await;
    let (reply, numbers) = reader.backlog().await;
    assert_eq!(reply["cursor"], daemon.cursor_of(0));
    assert_eq!(numbers, [3, 4], "the first one that it wants is the third");
}

#[tokio::test]
async fn a_reader_gets_what_is_not_acknowledged_then_what_comes_and_the_same_as_subscribers() {
    let daemon = shop(0).await;
    let mut subscriber = daemon.client().await;
    subscriber
        .emit(
            "subscribe_address",
            json!({ "address": address(1).to_string() }),
        )
        .await;
    subscriber.expect("subscribed").await;
    for n in 1..=3 {
        daemon.pay(&address(1), 1000, n).await;
    }
    let mut reader = daemon.client().await;
    reader
        .say(r#"27["subscribe_consumer",{"consumer":"shop"}]"#)
        .await;
    let reply = reader.expect("subscribed_consumer").await;
    assert_eq!(
        (&reply["consumer"], &reply["cursor"], &reply["head"]),
        (
            &json!("shop"),
            &json!(daemon.cursor_of(0)),
            &json!(daemon.cursor_of(6))
        )
    );
    assert_eq!((&reply["lag"], reply.get("error")), (&json!(6), None));
    assert_eq!(reader.acknowledgement(7).await, reply);
    let mut heard = Vec::new();
    for _ in 0..6 {
        heard.push(reader.event().await);
    }
    let caught_up = reader.expect("caught_up").await;
    assert_eq!(
        (&caught_up["consumer"], &caught_up["cursor"]),
        (&json!("shop"), &json!(daemon.cursor_of(6)))
    );
    daemon.pay(&address(1), 1000, 4).await;
    heard.push(reader.event().await);
    heard.push(reader.event().await);
    daemon.told().await;
    assert_eq!(
        heard,
        subscriber.queued(),
        "byte for byte what the subscriber got"
    );
    assert_eq!(daemon.get("/consumers/shop").await.1["readers"], 1);

    let ack = json!({ "consumer": "shop", "cursor": daemon.cursor_of(5) });
    reader.say(&format!("28{}", json!(["ack", ack]))).await;
    let acked = reader.expect("acked").await;
    assert_eq!(
        acked,
        json!({"consumer": "shop", "cursor": daemon.cursor_of(5), "lag": 3})
    );
    assert_eq!(reader.acknowledgement(8).await, acked);
    let mut next = daemon.client().await;
    next.read("shop").await;
    assert_eq!(
        next.backlog().await.1,
        [6, 7, 8],
        "what was not acknowledged comes again"
    );
}

#[tokio::test]
async fn a_consumer_hears_its_addresses_and_blocks_if_it_wants_them() {
    let daemon = Daemon::start().await;
    daemon.watch(2).await;
    daemon
        .consumer("one", json!({"addresses": [address(1).to_string()]}))
        .await;
    daemon
        .consumer("blocks", json!({"addresses": [], "blocks": true}))
        .await;
    daemon.consumer("all", json!({})).await;
    let (mut one, mut blocks, mut all) = (
        daemon.client().await,
        daemon.client().await,
        daemon.client().await,
    );
    for (client, name) in [
        (&mut one, "one"),
        (&mut blocks, "blocks"),
        (&mut all, "all"),
    ] {
        client.read(name).await;
        client.backlog().await;
    }
    daemon.pay(&address(1), 1000, 1).await;
    daemon.pay(&address(2), 1000, 2).await;
    daemon.watch(3).await;
    daemon.pay(&address(3), 1000, 3).await;
    daemon.mine(&address(9), Vec::new()).await;
    assert_eq!(one.numbers(2).await, [1, 2]);
    assert_eq!(blocks.numbers(1).await, [7]);
    assert_eq!(
        all.numbers(6).await,
        [1, 2, 3, 4, 5, 6],
        "addresses that came later too, blocks not"
    );
    daemon.pay(&address(1), 1000, 4).await;
    assert_eq!(
        (one.numbers(2).await, all.numbers(2).await),
        (vec![8, 9], vec![8, 9])
    );
}

#[tokio::test]
async fn the_newest_reader_takes_over_and_the_older_hears_nothing_more() {
    let daemon = shop(2).await;
    let (mut old, mut new) = (daemon.client().await, daemon.client().await);
    old.read("shop").await;
    old.backlog().await;
    new.read("shop").await;
    assert_eq!(new.backlog().await.1, [1, 2, 3, 4]);
    let taken = old.expect("error").await;
    assert_eq!(
        (&taken["code"], &taken["consumer"]),
        (&json!("consumer_taken"), &json!("shop"))
    );
    daemon.pay(&address(1), 1000, 3).await;
    assert_eq!(new.numbers(2).await, [5, 6]);
    assert_eq!(old.queued(), []);
    old.emit(
        "subscribe_address",
        json!({ "address": address(1).to_string() }),
    )
    .await;
    old.expect("subscribed").await;
    assert_eq!(daemon.get("/consumers/shop").await.1["readers"], 1);
    new.read("shop").await;
    assert_eq!(
        new.backlog().await.1,
        [1, 2, 3, 4, 5, 6],
        "the same client again begins again, and is not told that it took over"
    );
}

#[tokio::test]
async fn a_connection_reads_one_consumer_or_has_subscriptions_of_its_own() {
    let daemon = shop(0).await;
    daemon.consumer("other", json!({})).await;
    let mut client = daemon.client().await;
    client.read("shop").await;
    client.backlog().await;
    let address = json!({ "address": address(1).to_string() });
    for (name, argument) in [
        ("subscribe_address", address.clone()),
        (
            "subscribe_addresses",
            json!({ "addresses": [address["address"]] }),
        ),
        ("subscribe_blocks", Value::Null),
        ("subscribe_consumer", json!({"consumer": "other"})),
    ] {
        client.emit(name, argument).await;
        assert_eq!(
            client.expect("error").await["code"],
            "consumer_alone",
            "{name}"
        );
    }
    client
        .say(&format!(
            "25{}",
            json!(["unsubscribe_consumer", {"consumer": "shop"}])
        ))
        .await;
    let reply = client.expect("unsubscribed_consumer").await;
    assert_eq!(reply["consumer"], "shop");
    assert_eq!(client.acknowledgement(5).await, reply);
    assert_eq!(daemon.get("/consumers/shop").await.1["readers"], 0);
    client.emit("subscribe_address", address.clone()).await;
    client.expect("subscribed").await;
    client.read("shop").await;
    assert_eq!(client.expect("error").await["code"], "consumer_alone");
    client.emit("unsubscribe_address", address).await;
    client.expect("unsubscribed").await;
    client.read("shop").await;
    client.expect("subscribed_consumer").await;
    for (name, argument, code) in [
        ("subscribe_consumer", json!({}), "missing_field"),
        (
            "subscribe_consumer",
            json!({"consumer": 7}),
            "invalid_field",
        ),
        (
            "subscribe_consumer",
            json!({"consumer": "a b"}),
            "invalid_name",
        ),
        (
            "subscribe_consumer",
            json!({"consumer": "nobody"}),
            "no_such_consumer",
        ),
        (
            "subscribe_consumer",
            json!({"consumer": "shop", "shared": true}),
            "unknown_field",
        ),
        ("unsubscribe_consumer", json!({}), "missing_field"),
        ("ack", json!({"consumer": "shop"}), "missing_field"),
        (
            "ack",
            json!({"consumer": "nobody", "cursor": daemon.cursor_of(0)}),
            "no_such_consumer",
        ),
        (
            "ack",
            json!({"consumer": "shop", "cursor": "x"}),
            "invalid_cursor",
        ),
        (
            "ack",
            json!({"consumer": "shop", "cursor": daemon.cursor_of(99)}),
            "cursor_unknown",
        ),
    ] {
        client.say(&format!("26{}", json!([name, argument]))).await;
        let mut error = client.event().await;
        if error.0 == "caught_up" {
            error = client.event().await;
        }
        assert_eq!(
            (error.0.as_str(), &error.1["code"]),
            ("error", &json!(code)),
            "{name} {argument}"
        );
        assert_eq!(client.acknowledgement(6).await, error.1);
    }
}

#[tokio::test]
async fn nothing_comes_after_unsubscribing_or_leaving() {
    let daemon = shop(1).await;
    let (mut a, mut b) = (daemon.client().await, daemon.client().await);
    a.read("shop").await;
    a.backlog().await;
    a.emit("unsubscribe_consumer", json!({"consumer": "shop"}))
        .await;
    a.expect("unsubscribed_consumer").await;
    b.read("shop").await;
    b.backlog().await;
    b.say("1").await;
    while daemon.services.consumers.get("shop").unwrap().readers() > 0 {
        tokio::task::yield_now().await;
    }
    daemon.pay(&address(1), 1000, 2).await;
    daemon.told().await;
    assert_eq!((a.queued(), b.queued()), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_new_definition_or_a_deletion_ends_readings_and_an_equal_one_does_not() {
    let daemon = shop(1).await;
    let mut client = daemon.client().await;
    client.read("shop").await;
    client.backlog().await;
    daemon.consumer("shop", json!({})).await;
    daemon.pay(&address(1), 1000, 2).await;
    assert_eq!(
        client.numbers(2).await,
        [3, 4],
        "an equal definition disturbs nobody"
    );
    daemon.consumer("shop", json!({"blocks": true})).await;
    let error = client.expect("error").await;
    assert_eq!(
        (&error["code"], &error["consumer"]),
        (&json!("consumer_changed"), &json!("shop"))
    );
    daemon.mine(&address(9), Vec::new()).await;
    client.read("shop").await;
    assert_eq!(client.backlog().await.1, [1, 2, 3, 4, 5]);
    daemon
        .consumer(
            "shop",
            json!({"blocks": true, "after": daemon.cursor_of(3)}),
        )
        .await;
    assert_eq!(client.expect("error").await["code"], "consumer_changed");
    client.read("shop").await;
    assert_eq!(client.backlog().await.1, [4, 5]);
    daemon.call("DELETE", "/consumers/shop", &Value::Null).await;
    assert_eq!(client.expect("error").await["code"], "consumer_gone");
    daemon.pay(&address(1), 1000, 3).await;
    daemon.told().await;
    assert_eq!(client.queued(), []);
}

#[tokio::test]
async fn a_slow_reader_gets_everything_at_its_own_pace() {
    let daemon = shop(100).await;
    let mut slow = daemon.client().await;
    slow.read("shop").await;
    let (_, mut numbers) = {
        for n in 101..=150 {
            daemon.pay(&address(1), 1000, n).await;
        }
        slow.backlog().await
    };
    while numbers.len() < 300 {
        numbers.extend(slow.numbers(1).await);
    }
    assert_eq!(numbers, (1..=300).collect::<Vec<_>>());
    assert!(!slow.outbox.is_closed());
}

#[tokio::test]
async fn a_cursor_that_retention_has_passed_is_answered_with_a_fresh_start() {
    let daemon = shop(3).await;
    daemon
        .indexer
        .prune_events(old_by_clock(NOW + 1))
        .await
        .unwrap();
    let (status, gone) = daemon.get("/events?consumer=shop").await;
    assert_eq!((status, &gone["code"]), (410, &json!("cursor_expired")));
    assert_eq!(
        (&gone["cursor"], &gone["first"]),
        (&json!(daemon.cursor_of(6)), &json!(daemon.cursor_of(6)))
    );
    assert_eq!(
        (
            &gone["balances"][0]["address"],
            &gone["balances"][0]["balance"]
        ),
        (&json!(address(1).to_string()), &json!(3000))
    );
    let mut client = daemon.client().await;
    client.read("shop").await;
    let (reply, numbers) = client.backlog().await;
    assert_eq!(
        (&reply["code"], &reply["cursor"], numbers),
        (
            &json!("cursor_expired"),
            &json!(daemon.cursor_of(6)),
            Vec::new()
        )
    );
    assert_eq!(
        (&reply["balances"], &reply["lag"]),
        (&gone["balances"], &json!(0))
    );
    daemon.pay(&address(1), 1000, 4).await;
    assert_eq!(client.numbers(2).await, [7, 8], "it goes on from there");
    assert_eq!(
        daemon.get("/consumers/shop").await.1["cursor"],
        daemon.cursor_of(0),
        "only an ack moves it"
    );
    assert_eq!(
        daemon.ack("shop", 5).await.1["cursor"],
        daemon.cursor_of(5),
        "also to a place that is gone"
    );
    assert_eq!(daemon.ack("shop", 7).await.1["lag"], 1);
    client
        .emit("unsubscribe_consumer", json!({"consumer": "shop"}))
        .await;
    client.expect("unsubscribed_consumer").await;
    let page = daemon.get("/events?consumer=shop").await.1;
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn retention_of_what_a_consumer_does_not_want_is_no_loss_to_it() {
    let daemon = shop(2).await;
    let one = json!({ "addresses": [address(1).to_string()] });
    for (name, addresses) in [
        ("done", one.clone()),
        ("behind", one.clone()),
        ("other", json!({ "addresses": [address(7).to_string()] })),
    ] {
        assert_eq!(daemon.put(name, addresses).await.0, 201);
    }
    daemon.pay(&address(1), 500, 90).await;
    daemon.ack("done", 6).await;
    let retain = async |daemon: &Daemon| {
        let prune = || daemon.indexer.prune_events(old_by_clock(NOW + 1));
        daemon.services.consumers.retain(prune).await.unwrap()
    };
    assert_eq!(retain(&daemon).await, 6);
    let check = async |daemon: &Daemon| {
        for (name, acked, status) in [("done", 6, 200), ("behind", 4, 410), ("other", 4, 200)] {
            let (_, shape) = daemon.get(&format!("/consumers/{name}")).await;
            assert_eq!(
                (number(&shape["cursor"]), &shape["lag"]),
                (acked, &json!(0)),
                "{name} stays where it was acknowledged"
            );
            let (read, _) = daemon.get(&format!("/events?consumer={name}")).await;
            assert_eq!(read, status, "{name}");
        }
    };
    check(&daemon).await;
    assert_eq!(retain(&daemon).await, 0);
    let daemon = daemon.again().await;
    check(&daemon).await;
    daemon.watch(7).await;
    daemon.pay(&address(7), 500, 91).await;
    let mut client = daemon.client().await;
    client.read("other").await;
    assert_eq!(client.backlog().await.1, [7, 8]);
}

#[tokio::test]
async fn ack_of_a_reading_that_others_ended_is_refused_and_moves_nothing() {
    let daemon = shop(2).await;
    let place = || {
        daemon
            .services
            .consumers
            .get("shop")
            .unwrap()
            .place()
            .number
    };
    let ack = json!({"consumer": "shop", "cursor": daemon.cursor_of(3)});
    let (mut old, mut new) = (daemon.client().await, daemon.client().await);
    old.read("shop").await;
    old.backlog().await;
    new.read("shop").await;
    new.backlog().await;
    // Also before it was told.
    old.say(&format!("27{}", json!(["ack", ack.clone()]))).await;
    assert_eq!(old.expect("error").await["code"], "consumer_taken");
    assert_eq!(old.acknowledgement(7).await["code"], "consumer_taken");
    let told = old.expect("error").await;
    assert_eq!(
        (&told["code"], &told["consumer"]),
        (&json!("consumer_taken"), &json!("shop"))
    );
    assert_eq!(place(), 0);

    let back = json!({"blocks": true, "after": daemon.cursor_of(1)});
    daemon.consumer("shop", back).await;
    assert_eq!(new.expect("error").await["code"], "consumer_changed");
    for _ in 0..2 {
        new.emit("ack", ack.clone()).await;
        assert_eq!(new.expect("error").await["code"], "consumer_changed");
    }
    assert_eq!(place(), 1);
    new.read("shop").await;
    assert_eq!(new.backlog().await.1, [2, 3, 4]);
    new.emit("ack", ack.clone()).await;
    assert_eq!(new.expect("acked").await["lag"], 1);

    // Who left by itself, and who never read it, acknowledges what it knows.
    new.emit("unsubscribe_consumer", json!({"consumer": "shop"}))
        .await;
    new.expect("unsubscribed_consumer").await;
    let ack = json!({"consumer": "shop", "cursor": daemon.cursor_of(4)});
    new.emit("ack", ack.clone()).await;
    assert_eq!(new.expect("acked").await["lag"], 0);
    let mut other = daemon.client().await;
    other.emit("ack", ack.clone()).await;
    assert_eq!(other.expect("acked").await["lag"], 0);

    // Another one with its name is another one.
    daemon.call("DELETE", "/consumers/shop", &Value::Null).await;
    let first = json!({ "after": daemon.cursor_of(0) });
    daemon.consumer("shop", first).await;
    new.emit("ack", ack).await;
    assert_eq!(new.expect("error").await["code"], "consumer_gone");
    assert_eq!(place(), 0);
}

#[tokio::test]
async fn ack_is_refused_after_a_take_over_also_when_another_consumer_is_read_since() {
    let daemon = shop(2).await;
    daemon.consumer("other", json!({})).await;
    let (mut old, mut new) = (daemon.client().await, daemon.client().await);
    old.read("shop").await;
    old.backlog().await;
    new.read("shop").await;
    new.backlog().await;
    assert_eq!(old.expect("error").await["code"], "consumer_taken");
    old.read("other").await;
    old.backlog().await;
    let ack = json!({"consumer": "shop", "cursor": daemon.cursor_of(3)});
    old.emit("ack", ack.clone()).await;
    assert_eq!(old.expect("error").await["code"], "consumer_taken");
    let shop = daemon.services.consumers.get("shop").unwrap();
    assert_eq!(shop.place().number, 0);
    // Until it reads it again.
    let leave = json!({"consumer": "other"});
    old.emit("unsubscribe_consumer", leave).await;
    old.expect("unsubscribed_consumer").await;
    old.read("shop").await;
    old.backlog().await;
    old.emit("ack", ack).await;
    assert_eq!(old.expect("acked").await["lag"], 1);
}

#[tokio::test]
async fn reading_that_has_ended_is_not_known_to_dispatch_any_more() {
    let daemon = shop(1).await;
    let mut client = daemon.client().await;
    client.read("shop").await;
    client.backlog().await;
    daemon.call("DELETE", "/consumers/shop", &Value::Null).await;
    assert_eq!(client.expect("error").await["code"], "consumer_gone");
    tokio::task::yield_now().await;
    // Whoever was let go is gone when this is answered.
    daemon.told().await;
    daemon.services.events.log.forget_pages();
    daemon.pay(&address(1), 1000, 2).await;
    daemon.told().await;
    let pages = &daemon.services.events.log;
    assert!(pages.cached(2).is_none(), "nobody is there to read for");
}

#[tokio::test]
async fn retention_that_passes_a_slow_reader_ends_its_reading_with_a_fresh_cursor() {
    let daemon = shop(150).await;
    let mut slow = daemon.client().await;
    slow.read("shop").await;
    slow.expect("subscribed_consumer").await;
    slow.numbers(10).await;
    daemon
        .indexer
        .prune_events(old_by_clock(NOW + 1))
        .await
        .unwrap();
    // As after some time: the pages that others read lately are not kept any more.
    daemon.services.events.log.forget_pages();
    let mut last = 10;
    let error = loop {
        let (name, data) = slow.event().await;
        if name == "error" {
            break data;
        }
        last += 1;
        assert_eq!(number(&data["cursor"]), last, "no gap before it is told");
    };
    assert_eq!(
        (&error["code"], &error["cursor"]),
        (&json!("cursor_expired"), &json!(daemon.cursor_of(300)))
    );
    assert!(last < 300);
}

#[tokio::test]
async fn rest_reads_beside_nobody() {
    let daemon = shop(2).await;
    let (_, page) = daemon.get("/events?consumer=shop&limit=3").await;
    assert_eq!(
        page["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| number(&it["cursor"]))
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(
        (&page["next"], &page["head"]),
        (&json!(daemon.cursor_of(3)), &json!(daemon.cursor_of(4)))
    );
    assert_eq!(
        daemon.get("/events?consumer=shop&limit=3").await.1["events"],
        page["events"],
        "reading moves nothing"
    );
    let (_, rest) = daemon
        .get(&format!(
            "/events?consumer=shop&after={}",
            daemon.cursor_of(3)
        ))
        .await;
    assert_eq!(rest["events"].as_array().unwrap().len(), 1);
    let mut client = daemon.client().await;
    client.read("shop").await;
    client.backlog().await;
    let (status, busy) = daemon.get("/events?consumer=shop").await;
    assert_eq!((status, &busy["code"]), (409, &json!("consumer_busy")));
    let advice = busy["error"].as_str().unwrap();
    assert!(advice.contains("make a second consumer"), "{advice}");
    daemon.consumer("second", json!({})).await;
    assert_eq!(daemon.get("/events?consumer=second").await.0, 200);
    for (path, code) in [
        (
            format!("/events?consumer=shop&address={}", address(1)),
            "invalid_parameter",
        ),
        ("/events?consumer=a%20b".to_owned(), "invalid_name"),
        ("/events?consumer=shop&after=x".to_owned(), "invalid_cursor"),
        (
            "/events?consumer=shop&shared=true".to_owned(),
            "unknown_field",
        ),
        (
            "/events?consumer=shop&limit=0".to_owned(),
            "invalid_parameter",
        ),
        (
            "/events?consumer=shop&wait=61".to_owned(),
            "invalid_parameter",
        ),
    ] {
        let (status, error) = daemon.get(&path).await;
        assert_eq!(
            (status, error["code"].as_str().unwrap()),
            (400, code),
            "{path}"
        );
    }
    daemon.pay(&address(1), 1000, 3).await;
    assert_eq!(
        client.numbers(2).await,
        [5, 6],
        "the reader was not disturbed"
    );
}

#[tokio::test]
async fn a_long_poll_waits_and_ends_when_a_socket_takes_over_or_it_is_dropped() {
    let daemon = Arc::new(shop(1).await);
    daemon.ack("shop", 2).await;
    let poll = |path: &'static str| {
        let daemon = daemon.clone();
        tokio::spawn(async move { daemon.get(path).await })
    };
    let reads = async |count| {
        while daemon.services.consumers.get("shop").unwrap().readers() != count {
            tokio::task::yield_now().await;
        }
    };
    let waiting = poll("/events?consumer=shop&wait=60");
    reads(1).await;
    assert_eq!(
        daemon.get("/events?consumer=shop").await.1["code"],
        "consumer_busy"
    );
    daemon.pay(&address(1), 1000, 2).await;
    assert_eq!(
        waiting.await.unwrap().1["events"].as_array().unwrap().len(),
        2
    );
    daemon.ack("shop", 4).await;

    let waiting = poll("/events?consumer=shop&wait=60");
    reads(1).await;
    let mut client = daemon.client().await;
    client.read("shop").await;
    let (status, page) = waiting.await.unwrap();
    assert_eq!(
        (status, &page["events"], &page["next"]),
        (200, &json!([]), &json!(daemon.cursor_of(4))),
        "with what it has"
    );
    client.backlog().await;
    client
        .emit("unsubscribe_consumer", json!({"consumer": "shop"}))
        .await;

    let waiting = poll("/events?consumer=shop&wait=60");
    reads(1).await;
    waiting.abort();
    reads(0).await;
    let waiting = poll("/events?consumer=shop&wait=60");
    reads(1).await;
    daemon.call("DELETE", "/consumers/shop", &Value::Null).await;
    assert_eq!(waiting.await.unwrap().1["code"], "consumer_gone");
}

#[tokio::test]
async fn an_aborted_subscription_and_a_client_that_is_lost_meanwhile_leave_no_reader_behind() {
    let daemon = shop(20).await;
    let client = daemon.client().await;
    client.emit("no_such_event", json!({})).await;
    // No room for both the reply and its acknowledgement, so the work waits; then the client is
    // lost.
    let packet = r#"27["subscribe_consumer",{"consumer":"shop"}]"#;
    let mut work = daemon
        .layer
        .message(&client.session, Message::text(packet))
        .unwrap();
    while daemon.services.consumers.get("shop").unwrap().readers() == 0 {
        tokio::select! {
            biased;
            () = &mut work => break,
            () = tokio::task::yield_now() => {}
        }
    }
    drop(work);
    drop(client);
    while daemon.services.consumers.get("shop").unwrap().readers() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Readers of all kinds come, go, take over and die at any moment, with acknowledgements behind
/// what they have got, while events arrive. What they got, without repetitions, is the log; nobody
/// gets again what was acknowledged before it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_that_come_and_go_at_any_moment_have_every_event_between_them() {
    let daemon = Arc::new(shop(0).await);
    let payer = tokio::spawn({
        let daemon = daemon.clone();
        async move {
            for n in 1..=250 {
                daemon.pay(&address(1), 1000, n).await;
                tokio::task::yield_now().await;
            }
        }
    });
    let mut got: BTreeMap<u64, Value> = BTreeMap::new();
    let mut round = 0_u64;
    while daemon
        .services
        .consumers
        .get("shop")
        .unwrap()
        .place()
        .number
        < 500
    {
        round += 1;
        let place = daemon
            .services
            .consumers
            .get("shop")
            .unwrap()
            .place()
            .number;
        let mut client = daemon.client().await;
        client.read("shop").await;
        let reply = client.expect("subscribed_consumer").await;
        let mut last = number(&reply["cursor"]);
        assert!(last >= place, "what was acknowledged does not come again");
        for turn in 0..(round * 7) % 23 {
            let (name, data) = client.event().await;
            if name == "caught_up" || name == "acked" {
                continue;
            }
            assert_eq!(
                number(&data["cursor"]),
                last + 1,
                "in order, without a gap: {name}"
            );
            last += 1;
            let before = got.insert(last, data.clone());
            assert!(
                before.is_none_or(|before| before == data),
                "the same event is the same bytes"
            );
            if turn % 5 == round % 5 {
                client
                    .emit("ack", json!({"consumer": "shop", "cursor": data["cursor"]}))
                    .await;
            }
            if last == 500 {
                client
                    .emit("ack", json!({"consumer": "shop", "cursor": data["cursor"]}))
                    .await;
                break;
            }
        }
        match round % 3 {
            // Taken over by the next.
            0 => tokio::spawn(async move { while client.packet().is_some() {} }).abort(),
            1 => client.say("1").await,
            _ => drop(client),
        }
    }
    payer.await.unwrap();
    assert_eq!(
        got.keys().copied().collect::<Vec<_>>(),
        (1..=500).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn ack_is_answered_while_a_reading_that_retention_overtook_looks_for_where_it_goes_on() {
    let daemon = Daemon::start().await;
    daemon.watch(1).await;
    let mut readings = Vec::new();
    for steps in 0..12 {
        let name = format!("shop-{steps}");
        daemon.consumer(&name, json!({})).await;
        readings.push((steps, name, daemon.client().await));
    }
    for n in 1..=50 {
        daemon.pay(&address(1), 1000, n).await;
    }
    daemon.mine(&address(9), Vec::new()).await;
    for n in 51..=100 {
        daemon.pay(&address(1), 1000, n).await;
    }
    for (_, name, slow) in &mut readings {
        slow.read(name).await;
        slow.expect("subscribed_consumer").await;
        slow.numbers(10).await;
    }
    let below_the_block = store::Cutoff {
        young: 102,
        ..old_by_clock(NOW + 1)
    };
    daemon.indexer.prune_events(below_the_block).await.unwrap();
    for (steps, name, mut slow) in readings {
        // What others read lately is not kept any more.
        daemon.services.events.log.forget_pages();
        // The session asks for more so many times, and not while it works on a packet.
        let heard: Vec<_> = {
            let mut heard = Vec::new();
            for _ in 0..steps {
                heard.extend(slow.packet());

                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            heard.iter().map(|packet| event_of(packet)).collect()
        };
        let ack = json!({"consumer": name, "cursor": daemon.cursor_of(5)});
        slow.emit("ack", ack).await;
        let mut names: Vec<_> = heard.into_iter().map(|(name, _)| name).collect();
        while !(names.contains(&"acked".to_owned()) && names.contains(&"error".to_owned())) {
            names.push(slow.event().await.0);
        }
    }
}

#[tokio::test]
async fn ack_of_who_left_is_refused_once_somebody_else_reads_or_it_is_another_consumer() {
    let daemon = shop(2).await;
    daemon.consumer("other", json!({})).await;
    let (mut old, mut new) = (daemon.client().await, daemon.client().await);
    let ack = json!({"consumer": "shop", "cursor": daemon.cursor_of(3)});
    let leave = |name: &str| json!({ "consumer": name });
    old.read("shop").await;
    old.backlog().await;
    old.emit("unsubscribe_consumer", leave("shop")).await;
    old.expect("unsubscribed_consumer").await;
    new.read("shop").await;
    new.backlog().await;
    old.emit("ack", ack.clone()).await;
    assert_eq!(old.expect("error").await["code"], "consumer_taken");

    new.emit("unsubscribe_consumer", leave("shop")).await;
    new.expect("unsubscribed_consumer").await;
    new.read("other").await;
    new.backlog().await;
    let first = json!({ "after": daemon.cursor_of(0), "blocks": true });
    daemon.consumer("shop", first).await;
    new.emit("ack", ack).await;
    assert_eq!(new.expect("error").await["code"], "consumer_changed");
    let shop = daemon.services.consumers.get("shop").unwrap();
    assert_eq!(shop.place().number, 0);
}
