use serde_json::json;

use super::*;

#[tokio::test]
async fn an_added_address_has_its_balance_outputs_and_transactions_at_once() {
    let daemon = Daemon::start().await;
    let (mine, other) = (address(1), address(2));
    let (status, added) = daemon
        .post(
            "/add_address",
            &json!({"address": mine.to_string(), "label": "shop", "history": "none"}).to_string(),
        )
        .await;
    assert_eq!(
        (status, &added["address"], &added["label"]),
        (200, &json!(mine.to_string()), &json!("shop"))
    );
    let tx = daemon.pay(&mine, 1_788_761_965, 9).await;

    let (status, balance) = daemon.get(&format!("/balance/{mine}")).await;
    assert_eq!(status, 200);
    assert_eq!(
        (
            &balance["confirmed_balance"],
            &balance["unconfirmed_balance"]
        ),
        (&json!(0), &json!(1_788_761_965))
    );
    assert_eq!(
        (&balance["balance_btc"], &balance["utxo_count"]),
        (&json!(17.88761965), &json!(1))
    );
    assert_eq!(balance["tip"]["height"], 100);

    daemon.mine(&other, vec![tx.clone()]).await;
    let (_, utxos) = daemon.get(&format!("/utxos/{mine}")).await;
    assert_eq!(
        (&utxos["count"], &utxos["utxos"][0]["tx_hash"]),
        (&json!(1), &json!(tx.compute_txid().to_string()))
    );
    assert_eq!(
        (
            &utxos["utxos"][0]["confirmed"],
            &utxos["utxos"][0]["block_height"]
        ),
        (&json!(true), &json!(101))
    );

    let spending = spend(
        OutPoint {
            txid: tx.compute_txid(),
            vout: 0,
        },
        other.script_pubkey(),
        1_000,
    );
    daemon
        .apply(Input::TxSeen {
            tx: (&spending).into(),
            seen: Seen::Accepted,
            now: NOW,
        })
        .await;
    let (_, utxos) = daemon.get(&format!("/utxos/{mine}")).await;
    assert_eq!(utxos["count"], 0, "spent in the mempool");
    let (_, utxos) = daemon
        .get(&format!("/utxos/{mine}?include_spent=true"))
        .await;
    assert_eq!(
        utxos["utxos"][0]["spent_by"],
        spending.compute_txid().to_string()
    );

    let (_, first) = daemon.get(&format!("/transactions/{mine}?limit=1")).await;
    assert_eq!((&first["count"], &first["total"]), (&json!(1), &json!(2)));
    assert_eq!(
        first["transactions"][0]["txid"],
        spending.compute_txid().to_string()
    );
    assert_eq!(first["transactions"][0]["net"], -1_788_761_965);
    let (_, second) = daemon
        .get(&format!(
            "/transactions/{mine}?limit=1&before={}",
            first["next"].as_str().unwrap()
        ))
        .await;
    assert_eq!(
        second["transactions"][0]["txid"],
        tx.compute_txid().to_string()
    );
    assert_eq!(
        (&second["transactions"][0]["confirmations"], &second["next"]),
        (&json!(1), &Value::Null)
    );
    assert_eq!(
        second["transactions"][0]["block_time"],
        json!(1_600_000_100.0)
    );
}

#[tokio::test]
async fn a_coinbase_is_immature_until_it_may_be_spent() {
    let daemon = Daemon::start().await;
    let (miner, other) = (address(1), address(2));
    daemon
        .post(
            "/add_address",
            &json!({"address": miner.to_string()}).to_string(),
        )
        .await;
    daemon.mine(&miner, Vec::new()).await;
    let immature = async |daemon: &Daemon| {
        daemon.get(&format!("/balance/{miner}")).await.1["immature"]
            .as_u64()
            .unwrap()
    };
    for _ in 0..98 {
        daemon.mine(&other, Vec::new()).await;
    }
    assert_eq!(immature(&daemon).await, 5_000_000_000, "99 confirmations");
    daemon.mine(&other, Vec::new()).await;
    assert_eq!(immature(&daemon).await, 0, "100 confirmations");
    assert_eq!(
        daemon.get(&format!("/utxos/{miner}")).await.1["utxos"][0]["mature"],
        true
    );
}

#[tokio::test]
async fn bad_input_gets_the_right_error_and_changes_nothing() {
    let daemon = Daemon::start().await;
    let known = address(1).to_string();
    for (path, body, status, code) in [
        ("/add_address", "", 400, "invalid_json"),
        ("/add_address", "{", 400, "invalid_json"),
        ("/add_address", "[]", 400, "invalid_json"),
        ("/add_address", "{}", 400, "missing_field"),
        ("/add_address", r#"{"address":5}"#, 400, "invalid_field"),
        (
            "/add_address",
            r#"{"address":"nonsense"}"#,
            400,
            "invalid_address",
        ),
        (
            "/add_address",
            r#"{"address":"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"}"#,
            400,
            "wrong_network",
        ),
        (
            "/add_address",
            &format!(r#"{{"address":"{known}","label":7}}"#),
            400,
            "invalid_field",
        ),
        (
            "/add_address",
            &format!(r#"{{"address":"{known}","history":"all"}}"#),
            400,
            "invalid_field",
        ),
        (
            "/add_address",
            &format!(r#"{{"address":"{known}","history":{{"from_height":-1}}}}"#),
            400,
            "invalid_field",
        ),
        (
            "/add_address",
            &format!(r#"{{"address":"{known}","history":{{"from_height":101}}}}"#),
            400,
            "invalid_range",
        ),
        (
            "/add_address",
            &format!(r#"{{"address":"{known}","confirmations":[0]}}"#),
            400,
            "invalid_field",
        ),
        (
            "/add_addresses",
            &format!(r#"{{"addresses":["{known}","x"]}}"#),
            400,
            "invalid_address",
        ),
        ("/scan_history/nonsense", "", 400, "invalid_address"),
        (&format!("/scan_history/{known}"), "", 404, "not_watched"),
        (
            &format!("/scan_history/{known}"),
            r#"{"blocks_back":0}"#,
            400,
            "invalid_field",
        ),
        (
            &format!("/scan_history/{known}"),
            r#"{"blocks_back":1.5}"#,
            400,
            "invalid_field",
        ),
        ("/nowhere", "{}", 404, "not_found"),
        ("/status", "{}", 405, "method_not_allowed"),
        ("/", "{}", 405, "method_not_allowed"),
    ] {
        let (got, error) = daemon.post(path, body).await;
        assert_eq!(
            (got, error["code"].as_str().unwrap()),
            (status, code),
            "{path} {body} {error}"
        );
        assert!(error["error"].as_str().unwrap().len() > 20);
    }
    for (path, status, code) in [
        (format!("/balance/{known}"), 404, "not_watched"),
        (format!("/utxos/{known}"), 404, "not_watched"),
        (format!("/transactions/{known}"), 404, "not_watched"),
        (format!("/events?address={known}"), 404, "not_watched"),
        ("/balance/%00%ff".to_owned(), 400, "invalid_address"),
        (
            format!("/transactions/{known}?limit=0"),
            400,
            "invalid_parameter",
        ),
        (
            format!("/transactions/{known}?before=zz"),
            400,
            "invalid_parameter",
        ),
        (
            format!("/utxos/{known}?include_spent=7"),
            400,
            "invalid_parameter",
        ),
        ("/addresses?after=x".to_owned(), 400, "invalid_address"),
        ("/events?after=x".to_owned(), 400, "invalid_cursor"),
        ("/events?after=ffff-1".to_owned(), 410, "cursor_unknown"),
        ("/events?wait=61".to_owned(), 400, "invalid_parameter"),
        ("/add_address".to_owned(), 405, "method_not_allowed"),
        ("/%2e%2e/etc/passwd".to_owned(), 404, "not_found"),
    ] {
        let (got, error) = daemon.get(&path).await;
        assert_eq!(
            (got, error["code"].as_str().unwrap()),
            (status, code),
            "{path} {error}"
        );
    }
    let snapshot = daemon.reader.snapshot();
    assert_eq!(
        (
            snapshot.counts().unwrap().addresses,
            snapshot.head().unwrap()
        ),
        (0, 0)
    );
}

#[tokio::test]
async fn bodies_are_bounded_and_must_be_json() {
    let mut config = config::Config::default();
    config.limits.body_bytes = 100;
    let daemon = Daemon::with(config).await;
    let (status, error) = daemon.post("/add_address", &" ".repeat(101)).await;
    assert_eq!((status, &error["code"]), (413, &json!("payload_too_large")));
    let request = Request::post("/add_address")
        .header("host", "localhost")
        .header("content-type", "application/x-www-form-urlencoded");
    let (status, _, body) = daemon
        .request(request.body(Full::from("{}")).unwrap())
        .await;
    assert_eq!(status, 415);
    assert!(body.contains("application/json"), "{body}");
}

#[tokio::test]
async fn many_addresses_are_added_at_once_and_paged_through() {
    let daemon = Daemon::start().await;
    let addresses: Vec<String> = (1..=25).map(|n| address(n).to_string()).collect();
    let (status, added) = daemon
        .post(
            "/add_addresses",
            &json!({"addresses": addresses, "history": "none"}).to_string(),
        )
        .await;
    assert_eq!(
        (status, &added["count"], &added["added"]),
        (200, &json!(25), &json!(25))
    );
    let twice =
        json!({"addresses": [addresses[0], {"address": addresses[0], "label": "a"}]}).to_string();
    assert_eq!(daemon.post("/add_addresses", &twice).await.1["added"], 0);
    let (mut seen, mut path) = (Vec::new(), "/addresses?limit=10".to_owned());
    loop {
        let (status, page) = daemon.get(&path).await;
        assert_eq!((status, &page["total"]), (200, &json!(25)));
        seen.extend(
            page["addresses"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it["address"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/addresses?limit=10&after={next}");
    }
    seen.sort();
    let mut expected = addresses.clone();
    expected.sort();
    assert_eq!(seen, expected);
    assert_eq!(daemon.get("/status").await.1["address_count"], 25);
}

#[tokio::test]
async fn the_log_is_read_in_pages_by_address_and_waited_for() {
    let daemon = Daemon::start().await;
    let (mine, other) = (address(1), address(2));
    for address in [&mine, &other] {
        daemon
            .post(
                "/add_address",
                &json!({"address": address.to_string(), "history": "none"}).to_string(),
            )
            .await;
    }
    daemon.pay(&mine, 1000, 8).await;
    daemon.pay(&other, 2000, 9).await;
    let (_, all) = daemon.get("/events").await;
    let names: Vec<_> = all["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "new_transactions",
            "balance_change",
            "new_transactions",
            "balance_change"
        ]
    );
    assert_eq!(
        (&all["next"], &all["next"]),
        (&all["head"], &all["events"][3]["cursor"])
    );
    let (_, mine_only) = daemon.get(&format!("/events?address={mine}")).await;
    assert_eq!(
        mine_only["events"].as_array().unwrap(),
        &all["events"].as_array().unwrap()[..2]
    );
    assert_eq!(
        mine_only["next"], all["head"],
        "what does not match was looked at too"
    );
    let (_, rest) = daemon
        .get(&format!(
            "/events?limit=1&after={}",
            all["events"][1]["cursor"].as_str().unwrap()
        ))
        .await;
    assert_eq!(
        rest["events"].as_array().unwrap(),
        &all["events"].as_array().unwrap()[2..3]
    );

    let path = format!(
        "/events?wait=30&address={mine}&after={}",
        all["head"].as_str().unwrap()
    );
    let (waited, ()) = tokio::join!(daemon.get(&path), async {
        daemon.pay(&other, 3000, 10).await;
        daemon.pay(&mine, 4000, 11).await;
    });
    let events = waited.1["events"].as_array().unwrap().clone();
    assert!(
        !events.is_empty()
            && events
                .iter()
                .all(|it| it["data"]["address"] == mine.to_string()),
        "{events:?}"
    );
}

#[tokio::test]
async fn start_and_stop_are_idempotent_and_remembered() {
    let daemon = Daemon::start().await;
    for (path, monitoring) in [
        ("/stop", false),
        ("/stop", false),
        ("/start", true),
        ("/start", true),
    ] {
        let (status, answer) = daemon.post(path, "").await;
        assert_eq!(status, 200);
        assert!(answer["message"].is_string());
        assert_eq!(daemon.reader.monitoring().unwrap(), Some(monitoring));
        assert_eq!(daemon.get("/status").await.1["is_running"], monitoring);
    }
    assert_eq!(
        daemon.post("/start", "").await.1["status"]["tip"]["height"],
        100
    );
}

#[tokio::test]
async fn ready_means_following_and_says_why_not() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.get("/health/live").await.0, 200);
    daemon
        .node
        .send_modify(|node| node.reason = Some("The node does not answer.".to_owned()));
    let (status, error) = daemon.get("/health/ready").await;
    assert_eq!(
        (status, &error["error"], &error["code"]),
        (
            503,
            &json!("The node does not answer."),
            &json!("not_ready")
        )
    );
    daemon.node.send_modify(|node| node.following = true);
    assert_eq!(daemon.get("/health/ready").await.0, 200);
    daemon.post("/stop", "").await;
    assert_eq!(daemon.get("/health/ready").await.0, 503);
}

#[tokio::test]
async fn browsers_get_cors_answers_or_a_refusal() {
    let daemon = Daemon::start().await;
    let with = |method: &str, path: &str, origin: &str| {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1:5005")
            .header("origin", origin)
            .body(Full::default())
            .unwrap()
    };
    let (status, headers, _) = daemon
        .request(with("GET", "/nowhere", "http://localhost:3000"))
        .await;
    assert_eq!(
        (status.as_u16(), &headers["access-control-allow-origin"]),
        (404, &"http://localhost:3000".parse().unwrap())
    );
    let (status, headers, body) = daemon
        .request(with("GET", "/status", "https://evil.example"))
        .await;
    assert_eq!(status, 403);
    assert!(
        !headers.contains_key("access-control-allow-origin")
            && body.contains("server.allowed_origins"),
        "{body}"
    );
    let (status, _, _) = daemon
        .request(with("GET", "/socket.io/?EIO=4&transport=polling", "null"))
        .await;
    assert_eq!(status, 403);
    for path in ["/add_address", "/socket.io/"] {
        let (status, headers, body) = daemon
            .request(with("OPTIONS", path, "http://localhost:3000"))
            .await;
        assert_eq!((status.as_u16(), body.as_str()), (204, ""));
        assert!(
            headers.contains_key("access-control-allow-methods")
                && headers.contains_key("access-control-allow-headers")
        );
    }
}

#[tokio::test]
async fn head_is_get_without_the_body_and_the_page_is_served() {
    let daemon = Daemon::start().await;
    for path in ["/", "/realtime_client.html", "/health/live"] {
        let request = |method: &str| {
            Request::builder()
                .method(method)
                .uri(path)
                .header("host", "localhost")
                .body(Full::default())
                .unwrap()
        };
        let (status, _, body) = daemon.request(request("GET")).await;
        let (head_status, headers, head_body) = daemon.request(request("HEAD")).await;
        assert_eq!(
            (status.as_u16(), head_status.as_u16(), head_body.as_str()),
            (200, 200, "")
        );
        assert_eq!(headers["content-length"], body.len().to_string());
    }
}

#[tokio::test]
async fn status_tells_nothing_good_of_a_node_that_is_away() {
    let daemon = Daemon::start().await;
    let finding = |ok, what: &str| crate::bitcoind::Finding {
        ok,
        what: what.to_owned(),
        remedy: None,
    };
    daemon.node.send_modify(|node| {
        node.available = true;
        node.notes = vec![finding(true, "It answers."), finding(false, "It prunes.")];
    });
    let told = async || {
        let (_, status) = daemon.get("/status").await;
        let notes = status["node"]["notes"].as_array().unwrap().iter();
        notes.map(|note| note["what"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(told().await, ["It answers.", "It prunes."]);
    daemon.node.send_modify(|node| node.available = false);
    assert_eq!(told().await, ["It prunes."]);
}
