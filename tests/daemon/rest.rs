//! The eight routes of the specification, with every field that it and the contract name.

use serde_json::{Value, json};

use crate::common::{COIN, Client, Daemon, Node, Program, wait_until};

/// Checks that an object has these keys, whatever else it has.
fn has(object: &Value, keys: &[&str]) {
    let missing: Vec<_> = keys
        .iter()
        .filter(|key| object.get(**key).is_none())
        .collect();
    assert!(missing.is_empty(), "{missing:?} are missing in {object:#}");
}

#[test]
fn status_says_what_is_going_on() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    daemon.watch(&address);
    node.pay(&address, COIN);
    daemon.wait_balance(&address, 0, COIN);
    let answer = daemon.get("/status");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.headers["content-type"]
            .to_str()
            .expect("ASCII")
            .split(';')
            .next(),
        Some("application/json")
    );
    let status = answer.json;
    has(
        &status,
        &[
            "version",
            "uptime",
            "listen",
            "cursor",
            "node",
            "reconcile",
            "mempool",
            "clients",
            "scans",
        ],
    );
    has(
        &status["reconcile"],
        &["interval", "last_run", "last_duration", "repairs"],
    );
    assert_eq!(
        (&status["is_running"], &status["realtime_monitoring"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(
        (&status["watched_addresses"], &status["address_count"]),
        (&json!([address]), &json!(1))
    );
    assert_eq!(
        (&status["total_utxos"], &status["transactions"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        (&status["testnet"], &status["service_available"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(
        (&status["network"], &status["tip"]["height"]),
        (&json!("regtest"), &json!(node.height()))
    );
    assert_eq!(status["tip"]["hash"], *node.tip());
    for topic in ["rawtx", "rawblock", "sequence"] {
        has(
            &status["zmq"][topic],
            &[
                "endpoint",
                "connected",
                "last_sequence",
                "last_message_age",
                "gaps",
                "lost",
            ],
        );
        assert_eq!(status["zmq"][topic]["connected"], true, "{topic}");
    }
}

#[test]
fn addresses_are_added_and_read() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    let added = daemon.post(
        "/add_address",
        &json!({ "address": address, "label": "rent" }),
    );
    assert_eq!(
        (added.status, &added.json["address"]),
        (200, &json!(address)),
        "{}",
        added.text
    );
    has(&added.json, &["message", "coverage", "cursor"]);
    daemon.wait_complete(&address);

    let confirmed = node.pay(&address, COIN);
    let block = node.mine(1).remove(0);
    let waiting = node.pay(&address, COIN / 4);
    daemon.wait_balance(&address, COIN, COIN / 4);
    let balance = daemon.balance(&address);
    has(
        &balance,
        &["last_updated", "immature", "coverage", "tip", "cursor"],
    );
    has(
        &balance["coverage"],
        &["from_height", "complete", "utxos_complete", "pending"],
    );
    assert_eq!(
        (
            &balance["confirmed_balance_btc"],
            &balance["unconfirmed_balance_btc"]
        ),
        (&json!(1.0), &json!(0.25))
    );
    assert_eq!(
        (&balance["balance"], &balance["balance_btc"]),
        (&json!(COIN + COIN / 4), &json!(1.25))
    );
    assert_eq!(
        (&balance["address"], &balance["utxo_count"]),
        (&json!(address), &json!(2))
    );

    let history = daemon.get(&format!("/transactions/{address}")).json;
    assert_eq!(
        (&history["address"], &history["count"]),
        (&json!(address), &json!(2))
    );
    let newest = &history["transactions"][0];
    has(
        newest,
        &[
            "first_seen",
            "replaceable",
            "replaced_by",
            "block_hash",
            "block_time",
            "net_btc",
        ],
    );
    assert_eq!(
        (&newest["txid"], &newest["status"], &newest["block_height"]),
        (&json!(waiting), &json!("mempool"), &Value::Null)
    );
    let older = &history["transactions"][1];
    assert_eq!(
        (&older["txid"], &older["status"], &older["confirmations"]),
        (&json!(confirmed), &json!("confirmed"), &json!(1))
    );
    assert_eq!(
        (&older["received"], &older["sent"], &older["net"]),
        (&json!(COIN), &json!(0), &json!(COIN))
    );
    assert_eq!(
        (&older["block_height"], &older["block_hash"]),
        (&json!(node.height()), &json!(block))
    );

    let page = daemon.get(&format!("/transactions/{address}?limit=1")).json;
    assert_eq!(page["transactions"], json!([newest]));
    let next = page["next"].as_str().expect("there is more");
    let rest = daemon
        .get(&format!("/transactions/{address}?limit=1&before={next}"))
        .json;
    assert_eq!(rest["transactions"], json!([older]));

    let utxos = daemon.get(&format!("/utxos/{address}")).json;
    assert_eq!(
        (&utxos["address"], &utxos["count"]),
        (&json!(address), &json!(2))
    );
    let list = utxos["utxos"].as_array().expect("a list");
    let old = list
        .iter()
        .find(|utxo| utxo["tx_hash"] == *confirmed)
        .expect("the confirmed one is listed");
    has(old, &["output_index", "coinbase", "mature"]);
    assert_eq!(
        (&old["value"], &old["value_btc"], &old["confirmed"]),
        (&json!(COIN), &json!(1.0), &json!(true))
    );
    assert_eq!(
        (&old["address"], &old["confirmations"], &old["block_height"]),
        (&json!(address), &json!(1), &json!(node.height()))
    );
}

#[test]
fn scan_history_finds_what_an_address_had_before_it_was_added() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    node.pay(&address, COIN);
    node.mine(1);
    // Otherwise the payment comes after the address, and is seen.
    daemon.wait_tip(&node);
    daemon.post(
        "/add_address",
        &json!({ "address": address, "history": "none" }),
    );
    let balance = daemon.balance(&address);
    assert_eq!(
        (
            &balance["confirmed_balance"],
            &balance["coverage"]["complete"]
        ),
        (&json!(0), &json!(false)),
        "known to be unknown"
    );

    let path = format!("/scan_history/{address}");
    let scan = daemon.post(&path, &json!({ "blocks_back": 10 }));
    assert_eq!(scan.status, 202, "{}", scan.text);
    has(&scan.json, &["message"]);
    assert_eq!(
        (
            &scan.json["address"],
            &scan.json["blocks_back"],
            &scan.json["status"]
        ),
        (&json!(address), &json!(10), &json!("scanning"))
    );
    daemon.wait_complete(&address);
    daemon.wait_balance(&address, COIN, 0);

    let without_body = daemon.request("POST", &path, &[], None);
    assert_eq!(
        (without_body.status, &without_body.json["blocks_back"]),
        (202, &json!(1000)),
        "{}",
        without_body.text
    );
    assert_eq!(
        without_body.json["status"], "scanning",
        "a scan can be asked for again"
    );
    daemon.wait_complete(&address);
    assert_eq!(daemon.balance(&address)["balance"], json!(COIN));
}

#[test]
fn stopped_monitoring_hears_nothing_and_start_catches_up_with_events() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let address = node.address();
    daemon.watch(&address);
    let tip = daemon.get("/status").json["tip"].clone();

    for _ in 0..2 {
        let stopped = daemon.request("POST", "/stop", &[], None);
        assert_eq!(stopped.status, 200, "{}", stopped.text);
        has(&stopped.json, &["message"]);
    }
    assert_eq!(daemon.get("/status").json["realtime_monitoring"], false);
    // It is remembered; the daemon listens and answers all the same.
    daemon.stop();
    daemon.launch_again();
    assert_eq!(daemon.get("/status").json["realtime_monitoring"], false);
    node.pay(&address, COIN);
    node.mine(2);
    assert_eq!(daemon.get("/status").json["tip"], tip);
    let client = Client::subscribed(&daemon, &address);

    for _ in 0..2 {
        let started = daemon.request("POST", "/start", &[], None);
        assert_eq!(
            (
                started.status,
                &started.json["status"]["realtime_monitoring"]
            ),
            (200, &json!(true)),
            "{}",
            started.text
        );
        has(&started.json, &["message"]);
    }
    // The state first: what it lacks, no event can tell.
    daemon.wait_ready();
    daemon.wait_balance(&address, COIN, 0);
    client.event("new_transactions", |_| true);
    client.event("balance_change", |data| data["new_balance"] == COIN);
}

/// The samples that Prometheus' own parser reads, as `name{label}` and value.
fn metrics(daemon: &Daemon) -> std::collections::BTreeMap<String, f64> {
    let mut program = Program::python("metrics.py", &[&daemon.url()]);
    program.event("end", |_| true);
    program.ends_well();
    let samples = program.lines().into_iter().filter_map(|line| {
        let line: Value = serde_json::from_str(&line).ok()?;
        let (sample, labels) = (&line["data"], line["data"]["labels"].as_object()?);
        let labels: Vec<_> = labels.values().filter_map(Value::as_str).collect();
        let name = sample["name"].as_str()?;
        let name = if labels.is_empty() {
            name.to_owned()
        } else {
            format!("{name}{{{}}}", labels.join(","))
        };
        Some((name, sample["value"].as_f64()?))
    });
    samples.collect()
}

#[test]
fn prometheus_reads_the_metrics_and_they_are_the_state() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    daemon.watch(&address);
    let client = Client::subscribed(&daemon, &address);
    node.pay(&address, COIN);
    daemon.wait_balance(&address, 0, COIN);
    let told = wait_until("the mempool was counted", || {
        let told = metrics(&daemon);
        (told["satwatch_mempool_transactions"] == 1.0).then_some(told)
    });
    let status = daemon.get("/status").json;
    let version = status["version"].as_str().expect("a text");
    for (name, value) in [
        (format!("satwatch_build_info{{{version}}}"), 1.0),
        ("satwatch_tip_height".to_owned(), node.height() as f64),
        ("satwatch_node_blocks".to_owned(), node.height() as f64),
        ("satwatch_event_first".to_owned(), 1.0),
        ("satwatch_event_head".to_owned(), 2.0),
        ("satwatch_following".to_owned(), 1.0),
        ("satwatch_monitoring".to_owned(), 1.0),
        ("satwatch_node_available".to_owned(), 1.0),
        ("satwatch_sessions".to_owned(), 1.0),
        ("satwatch_subscribers".to_owned(), 1.0),
        ("satwatch_subscriptions".to_owned(), 1.0),
        ("satwatch_lagging".to_owned(), 0.0),
        ("satwatch_waiting_requests".to_owned(), 0.0),
        ("satwatch_watched_addresses".to_owned(), 1.0),
        ("satwatch_utxos".to_owned(), 1.0),
        ("satwatch_transactions".to_owned(), 1.0),
        ("satwatch_zmq_connected{rawtx}".to_owned(), 1.0),
        ("satwatch_zmq_gaps_total{sequence}".to_owned(), 0.0),
        ("satwatch_zmq_lost_total{rawblock}".to_owned(), 0.0),
        ("satwatch_reconcile_repairs_total".to_owned(), 0.0),
    ] {
        assert_eq!(told.get(&name), Some(&value), "{name} in {told:#?}");
    }
    for name in [
        "satwatch_uptime_seconds",
        "satwatch_data_age_seconds",
        "satwatch_zmq_last_message_age_seconds{rawtx}",
    ] {
        assert!(told[name] >= 0.0, "{name}");
    }
    assert!(told["satwatch_indexer_step_seconds_count{other}"] > 0.0);
    drop(client);
    wait_until("the session is gone", || {
        (metrics(&daemon)["satwatch_subscriptions"] == 0.0).then_some(())
    });
    node.stop();
    wait_until("the node is missed", || {
        let told = metrics(&daemon);
        (told["satwatch_node_available"] == 0.0
            && told["satwatch_following"] == 0.0
            && told["satwatch_tip_height"] > 0.0)
            .then_some(())
    });
}
