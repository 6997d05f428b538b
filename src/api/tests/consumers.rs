use std::future::poll_fn;
use std::task::Poll;

use serde_json::json;

use super::*;

mod reading;

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

impl Daemon {
    pub(super) async fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json");
        let (status, _, body) = self.request(request.body(Full::from(body)).unwrap()).await;
        (status.as_u16(), serde_json::from_str(&body).unwrap())
    }

    pub(super) async fn put(&self, name: &str, body: Value) -> (u16, Value) {
        self.call("PUT", &format!("/consumers/{name}"), &body).await
    }

    /// Defines a consumer, which must succeed.
    async fn consumer(&self, name: &str, body: Value) {
        let (status, answer) = self.put(name, body).await;
        assert!(status == 200 || status == 201, "{status} {answer}");
    }

    async fn watch(&self, n: u8) -> String {
        let text = address(n).to_string();
        assert_eq!(
            self.post("/add_address", &json!({ "address": text }).to_string())
                .await
                .0,
            200
        );
        text
    }

    fn cursor_of(&self, number: u64) -> String {
        self.services.reads.encoder.cursor(number)
    }

    fn last_number(&self) -> u64 {
        self.reader.snapshot().head().unwrap()
    }

    async fn ack(&self, name: &str, number: u64) -> (u16, Value) {
        self.call(
            "POST",
            &format!("/consumers/{name}/ack"),
            &json!({ "cursor": self.cursor_of(number) }),
        )
        .await
    }

    /// Begins a request and gives it up after some steps, as a client does that leaves.
    async fn give_up(&self, method: &str, path: &str, body: &Value, steps: usize) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost");
        let mut asking = Box::pin(self.router.handle(
            request.body(Full::<Bytes>::from(body.to_string())).unwrap(),
            PEER,
        ));
        for _ in 0..steps {
            if poll_fn(|context| Poll::Ready(asking.as_mut().poll(context)))
                .await
                .is_ready()
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Kills it and starts another one on its store.
    async fn again(self) -> Self {
        let folder = self.kill().await;
        let (daemon, dispatch) = Self::on(folder, config::Config::default());
        tokio::spawn(dispatch.run(daemon.stop.clone()));
        daemon
    }
}

#[tokio::test]
async fn a_consumer_is_defined_shown_listed_and_deleted() {
    let daemon = Daemon::start().await;
    daemon.watch(1).await;
    daemon.pay(&address(1), 1000, 1).await;
    let (status, made) = daemon.put("shop", Value::Null).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(
        (&made["name"], &made["addresses"], &made["blocks"]),
        (&json!("shop"), &json!("all"), &json!(false))
    );
    assert_eq!(
        (&made["cursor"], &made["head"]),
        (&json!(daemon.cursor_of(2)), &json!(daemon.cursor_of(2))),
        "a new one begins now"
    );
    assert_eq!(
        (&made["lag"], &made["lag_seconds"], made.get("lag_exact")),
        (&json!(0), &json!(0.0), None)
    );
    assert_eq!(
        (&made["readers"], &made["webhook"]),
        (&json!(0), &Value::Null)
    );
    assert!(
        made["message"].is_string()
            && made.get("secret").is_none()
            && made["created"].as_f64().unwrap() > 1.7e9,
        "{made}"
    );
    let (status, list) = daemon
        .put(
            "few",
            json!({"addresses": [address(3).to_string(), address(2).to_string()], "blocks": true}),
        )
        .await;
    assert_eq!(status, 201);
    let mut named: Vec<_> = list["addresses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it.as_str().unwrap().to_owned())
        .collect();
    named.sort();
    let mut wanted = [address(2).to_string(), address(3).to_string()];
    wanted.sort();
    assert_eq!(named, wanted);
    assert_eq!(
        daemon.reader.snapshot().counts().unwrap().addresses,
        3,
        "its addresses are watched"
    );

    let (_, all) = daemon.get("/consumers").await;
    assert_eq!(
        (&all["count"], &all["cursor"]),
        (&json!(2), &json!(daemon.cursor_of(2)))
    );
    assert_eq!(
        (
            &all["consumers"][0]["name"],
            &all["consumers"][0]["addresses"]
        ),
        (&json!("few"), &json!(2))
    );
    assert_eq!(
        (
            &all["consumers"][1]["name"],
            &all["consumers"][1]["addresses"]
        ),
        (&json!("shop"), &json!("all"))
    );
    let (_, one) = daemon.get("/consumers/few").await;
    assert_eq!(
        (&one["addresses"], &one["blocks"]),
        (&list["addresses"], &json!(true))
    );

    let (status, answer) = daemon.call("DELETE", "/consumers/few", &Value::Null).await;
    assert_eq!((status, &answer["name"]), (200, &json!("few")));
    for (method, path) in [
        ("GET", "/consumers/few"),
        ("DELETE", "/consumers/few"),
        ("GET", "/events?consumer=few"),
    ] {
        let (status, error) = daemon.call(method, path, &Value::Null).await;
        assert_eq!(
            (status, &error["code"]),
            (404, &json!("no_such_consumer")),
            "{method} {path}"
        );
    }
    assert_eq!(daemon.ack("few", 1).await.0, 404);
    assert_eq!(daemon.get("/consumers").await.1["count"], 1);
    assert_eq!(
        daemon.reader.snapshot().counts().unwrap().addresses,
        3,
        "its addresses stay watched"
    );
}

#[tokio::test]
async fn a_definition_again_is_the_same_and_another_one_keeps_the_place() {
    let daemon = Daemon::start().await;
    daemon.watch(1).await;
    let (_, first) = daemon
        .put(
            "shop",
            json!({"addresses": [address(1).to_string(), address(2).to_string()]}),
        )
        .await;
    daemon.pay(&address(1), 1000, 1).await;
    for body in [
        json!({"addresses": [address(1).to_string(), address(2).to_string()]}),
        json!({"addresses": [address(2).to_string(), address(1).to_string(), address(1).to_string()], "blocks": false}),
    ] {
        let (status, again) = daemon.put("shop", body).await;
        assert_eq!(
            (status, &again["cursor"], &again["created"]),
            (200, &first["cursor"], &first["created"])
        );
        assert_eq!(again["lag"], 2);
    }
    daemon.ack("shop", 1).await;
    let (status, changed) = daemon.put("shop", json!({"blocks": true})).await;
    assert_eq!(
        (status, &changed["addresses"], &changed["blocks"]),
        (200, &json!("all"), &json!(true))
    );
    assert_eq!(
        (&changed["cursor"], &changed["created"], &changed["lag"]),
        (&json!(daemon.cursor_of(1)), &first["created"], &json!(1))
    );
    let (_, moved) = daemon
        .put(
            "shop",
            json!({"blocks": true, "after": daemon.cursor_of(0)}),
        )
        .await;
    assert_eq!(
        (&moved["cursor"], &moved["lag"]),
        (&json!(daemon.cursor_of(0)), &json!(2)),
        "the only way backwards"
    );
    let (_, moved) = daemon
        .put(
            "shop",
            json!({"blocks": true, "after": daemon.cursor_of(2)}),
        )
        .await;
    assert_eq!(
        (&moved["cursor"], &moved["lag"]),
        (&json!(daemon.cursor_of(2)), &json!(0))
    );
    let (status, late) = daemon
        .put("late", json!({"after": daemon.cursor_of(1)}))
        .await;
    assert_eq!(
        (status, &late["cursor"], &late["lag"]),
        (201, &json!(daemon.cursor_of(1)), &json!(1))
    );
}

#[tokio::test]
async fn bad_definitions_are_refused_and_change_nothing() {
    let mut config = config::Config::default();
    config.limits.consumers = 1;
    let daemon = Daemon::with(config).await;
    let some = address(1).to_string();
    for (name, body, status, code) in [
        ("a%20b", json!({}), 400, "invalid_name"),
        ("%ff", json!({}), 400, "invalid_name"),
        ("", json!({}), 400, "invalid_name"),
        (&"x".repeat(65), json!({}), 400, "invalid_name"),
        ("a", json!({"addresses": []}), 400, "invalid_field"),
        ("a", json!({"addresses": "some"}), 400, "invalid_field"),
        (
            "a",
            json!({"addresses": [some, "x"]}),
            400,
            "invalid_address",
        ),
        (
            "a",
            json!({"addresses": [some], "blocks": 1}),
            400,
            "invalid_field",
        ),
        (
            "a",
            json!({"addresses": [some], "confirmations": [0]}),
            400,
            "invalid_field",
        ),
        (
            "a",
            json!({"addresses": [], "descriptors": "all", "confirmations": [6]}),
            400,
            "invalid_field",
        ),
        (
            "a",
            json!({"addresses": [], "blocks": true, "confirmations": [6]}),
            400,
            "invalid_field",
        ),
        (
            "a",
            json!({"addresses": "all", "confirmations": [1]}),
            400,
            "invalid_field",
        ),
        (
            "a",
            json!({"addresses": [some], "after": 7}),
            400,
            "invalid_field",
        ),
        (
            "a",
            json!({"addresses": [some], "after": "x"}),
            400,
            "invalid_cursor",
        ),
        (
            "a",
            json!({"addresses": [some], "after": "ffffffffffffffff-1"}),
            410,
            "cursor_unknown",
        ),
        (
            "a",
            json!({"addresses": [some], "after": daemon.cursor_of(1)}),
            410,
            "cursor_unknown",
        ),
        (
            "a",
            json!({"addresses": [some], "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}),
            400,
            "missing_field",
        ),
        (
            "a",
            json!({"addresses": [some], "url": "nonsense"}),
            400,
            "invalid_field",
        ),
        (
            "a",
            json!({"addresses": [some], "url": 7}),
            400,
            "invalid_field",
        ),
    ] {
        let (got, error) = daemon.put(name, body.clone()).await;
        assert_eq!(
            (got, error["code"].as_str().unwrap()),
            (status, code),
            "{name} {body} {error}"
        );
    }
    assert_eq!(daemon.get("/consumers").await.1["count"], 0);
    assert_eq!(daemon.reader.snapshot().counts().unwrap().addresses, 0);
    daemon.consumer("one", json!({})).await;
    let (status, error) = daemon.put("two", json!({"addresses": [some]})).await;
    assert_eq!(
        (status, &error["code"]),
        (409, &json!("too_many_consumers"))
    );
    assert_eq!(
        daemon.reader.snapshot().counts().unwrap().addresses,
        0,
        "a refused consumer watches nothing"
    );
    assert_eq!(
        daemon.put("one", json!({"blocks": true})).await.0,
        200,
        "there is room for those that are there"
    );
    assert_eq!(
        daemon
            .put("blocks", json!({"addresses": [], "blocks": true}))
            .await
            .0,
        409
    );
    for path in ["/consumers/a/b", "/consumers/"] {
        assert!(
            [400, 404].contains(&daemon.call("GET", path, &Value::Null).await.0),
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_ack_moves_forward_only_and_only_to_what_is_there() {
    let daemon = Daemon::start().await;
    daemon.watch(1).await;
    daemon.consumer("shop", json!({})).await;
    for n in 1..=5 {
        daemon.pay(&address(1), 1000, n).await;
    }
    let (status, acked) = daemon.ack("shop", 4).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&acked["consumer"], &acked["cursor"], &acked["lag"]),
        (&json!("shop"), &json!(daemon.cursor_of(4)), &json!(6))
    );
    for behind in [3, 4, 0] {
        let (status, acked) = daemon.ack("shop", behind).await;
        assert_eq!(
            (status, &acked["cursor"], &acked["lag"]),
            (200, &json!(daemon.cursor_of(4)), &json!(6)),
            "{behind}"
        );
    }
    for (cursor, status, code) in [
        (json!(daemon.cursor_of(11)), 410, "cursor_unknown"),
        (json!("ffffffffffffffff-5"), 410, "cursor_unknown"),
        (json!("5"), 400, "invalid_cursor"),
        (json!(5), 400, "invalid_field"),
        (Value::Null, 400, "missing_field"),
    ] {
        let (got, error) = daemon
            .call("POST", "/consumers/shop/ack", &json!({ "cursor": cursor }))
            .await;
        assert_eq!((got, &error["code"]), (status, &json!(code)), "{cursor}");
    }
    daemon
        .consumer("hooked", json!({"url": "https://shop.example/hook"}))
        .await;
    let (status, error) = daemon.ack("hooked", 10).await;
    assert_eq!(
        (status, &error["code"]),
        (409, &json!("consumer_has_webhook"))
    );
    assert_eq!(
        daemon.get("/consumers/shop").await.1["cursor"],
        daemon.cursor_of(4)
    );
}

#[tokio::test]
async fn a_consumer_and_its_place_survive_the_death_of_the_daemon() {
    let daemon = Daemon::start().await;
    daemon.watch(1).await;
    daemon
        .consumer(
            "shop",
            json!({"addresses": [address(1).to_string()], "blocks": true}),
        )
        .await;
    daemon.consumer("gone", json!({})).await;
    for n in 1..=3 {
        daemon.pay(&address(1), 1000, n).await;
    }
    daemon.ack("shop", 4).await;
    daemon.call("DELETE", "/consumers/gone", &Value::Null).await;
    let (_, before) = daemon.get("/consumers/shop").await;
    let daemon = daemon.again().await;
    let (_, mut after) = daemon.get("/consumers/shop").await;
    assert_eq!(
        (&after["cursor"], &after["lag"]),
        (&json!(daemon.cursor_of(4)), &json!(2))
    );
    after["lag_seconds"] = before["lag_seconds"].clone();
    assert_eq!(after, before);
    assert_eq!(daemon.get("/consumers").await.1["count"], 1);
    let (_, page) = daemon.get("/events?consumer=shop").await;
    assert_eq!(
        page["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| number(&event["cursor"]))
            .collect::<Vec<_>>(),
        [5, 6]
    );
}

#[tokio::test]
async fn status_says_how_far_behind_consumers_are() {
    let daemon = Daemon::start().await;
    daemon.watch(1).await;
    daemon.watch(2).await;
    daemon.consumer("all", json!({"blocks": true})).await;
    daemon
        .consumer("one", json!({"addresses": [address(1).to_string()]}))
        .await;
    daemon.pay(&address(1), 1000, 1).await;
    daemon.pay(&address(2), 1000, 2).await;
    daemon.mine(&address(9), Vec::new()).await;
    let lags = async || {
        let (_, status) = daemon.get("/status").await;
        assert_eq!(status["consumer_count"], 2);
        let consumers = status["consumers"].as_array().unwrap().clone();
        assert_eq!(
            (&consumers[0]["name"], &consumers[1]["name"]),
            (&json!("all"), &json!("one"))
        );
        consumers
            .iter()
            .map(|it| {
                (
                    it["lag"].as_u64().unwrap(),
                    it["lag_seconds"].as_f64().unwrap() > 0.0,
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        lags().await,
        [(5, true), (5, true)],
        "from the first event on that each wants"
    );
    daemon.ack("all", 5).await;
    daemon.ack("one", 2).await;
    assert_eq!(lags().await, [(0, false), (0, false)]);
    daemon.pay(&address(1), 1000, 3).await;
    assert_eq!(lags().await, [(2, true), (2, true)]);
    daemon
        .put(
            "one",
            json!({"addresses": [address(1).to_string()], "after": daemon.cursor_of(0)}),
        )
        .await;
    assert_eq!(lags().await, [(2, true), (7, true)]);
    let (_, status) = daemon.get("/status").await;
    assert_eq!(
        (
            &status["consumers"][0]["readers"],
            &status["consumers"][0]["webhook_state"]
        ),
        (&json!(0), &Value::Null)
    );
    daemon
        .indexer
        .prune_events(old_by_clock(NOW + 1))
        .await
        .unwrap();
    assert_eq!(
        lags().await,
        [(0, false), (0, false)],
        "what retention took is not there to be read"
    );
}

#[tokio::test]
async fn what_a_client_asked_for_before_it_left_is_in_memory_as_in_the_store() {
    let daemon = Daemon::start().await;
    daemon.watch(1).await;
    daemon.pay(&address(1), 1000, 1).await;
    let end = json!({ "cursor": daemon.cursor_of(daemon.last_number()) });
    for steps in 1..4 {
        for name in ["changed", "acknowledged", "deleted"] {
            daemon
                .consumer(name, json!({ "after": daemon.cursor_of(0) }))
                .await;
        }
        daemon
            .give_up(
                "PUT",
                &format!("/consumers/created{steps}"),
                &json!({}),
                steps,
            )
            .await;
        daemon
            .give_up(
                "PUT",
                "/consumers/changed",
                &json!({ "blocks": true }),
                steps,
            )
            .await;
        daemon
            .give_up("POST", "/consumers/acknowledged/ack", &end, steps)
            .await;
        daemon
            .give_up("DELETE", "/consumers/deleted", &json!({}), steps)
            .await;
        let same = async {
            loop {
                // The indexer has done what it was asked for before.
                daemon
                    .indexer
                    .edit_consumer("nobody", Vec::new(), false)
                    .await
                    .unwrap();
                let all = daemon.services.consumers.all();
                let known: Vec<_> = all
                    .iter()
                    .map(|it| (it.name.clone(), it.wants.clone(), it.place()))
                    .collect();
                // While one is deleted its rows may be read in part.
                if daemon.reader.consumers().is_ok_and(|it| it == known) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, same)
            .await
            .expect("the memory says what the store says");
        daemon.give_up("POST", "/stop", &json!({}), steps).await;
        let stopped = async {
            daemon
                .indexer
                .edit_consumer("nobody", Vec::new(), false)
                .await
                .unwrap();
            while daemon.services.overview.monitoring.is_on()
                != daemon.reader.monitoring().unwrap().unwrap_or(true)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, stopped)
            .await
            .expect("what is done is what is remembered");
    }
}

#[tokio::test]
async fn an_ack_is_told_where_the_consumer_is_and_whether_there_is_one() {
    let daemon = Daemon::start().await;
    daemon.watch(1).await;
    daemon.pay(&address(1), 1000, 1).await;
    daemon
        .consumer("shop", json!({ "after": daemon.cursor_of(0) }))
        .await;
    let cursor = daemon.cursor_of(1);
    let (status, answer) = daemon
        .call("POST", "/consumers/shop/ack", &json!({ "cursor": cursor }))
        .await;
    assert_eq!(
        (status, &answer["message"]),
        (
            200,
            &json!("Everything up to this cursor is done for shop.")
        )
    );
    let (status, answer) = daemon
        .call(
            "POST",
            "/consumers/shpo/ack",
            &json!({ "cursor": "of_another_log-1" }),
        )
        .await;
    assert_eq!(
        (status, &answer["code"]),
        (404, &json!("no_such_consumer")),
        "the name is what is wrong first"
    );
}

#[tokio::test]
async fn a_definition_again_says_what_it_changed_of_the_addresses() {
    let daemon = Daemon::start().await;
    let mine = daemon.watch(1).await;
    let asked = json!({ "addresses": [mine] });
    daemon.consumer("one", asked.clone()).await;
    let same = "The consumer one was like that already.";
    assert_eq!(daemon.put("one", asked.clone()).await.1["message"], same);
    let also = format!(
        "{same} Of its addresses 1 were not watched yet, or not with these confirmations, and are now."
    );
    let deeper = json!({ "addresses": [mine], "confirmations": [3] });
    assert_eq!(daemon.put("one", deeper.clone()).await.1["message"], also);
    assert_eq!(daemon.put("one", deeper).await.1["message"], same);
    let removed = daemon.delete(&format!("/addresses/{mine}")).await;
    assert_eq!(removed.0, 200);
    assert_eq!(daemon.put("one", asked).await.1["message"], also);
}
