//! Bad input gets the contract's errors and changes nothing.

use serde_json::{Value, json};

use crate::common::{Answer, Client, Daemon, Node};

/// A mainnet address: valid, but not here.
const MAINNET: &str = "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq";
/// One wrong letter.
const MISTYPED: &str = "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdz";

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];

/// Everything that a refused request must leave as it was.
fn state(daemon: &Daemon) -> Value {
    let status = daemon.get("/status").json;
    let keys = [
        "is_running",
        "realtime_monitoring",
        "watched_addresses",
        "address_count",
        "total_utxos",
        "transactions",
        "cursor",
        "tip",
        "scans",
    ];
    keys.iter()
        .map(|key| ((*key).to_owned(), status[*key].clone()))
        .collect()
}

/// A sentence for a person and a code for a program.
fn check(error: &Value, context: &str) {
    let sentence = error["error"]
        .as_str()
        .unwrap_or_else(|| panic!("{context}: no sentence in {error}"));
    assert!(sentence.len() > 10, "{context}: {sentence}");
    let code = error["code"]
        .as_str()
        .unwrap_or_else(|| panic!("{context}: no code in {error}"));
    assert!(
        !code.is_empty()
            && code
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
        "{context}: {code}"
    );
}

fn refused(answer: &Answer, status: u16, context: &str) {
    assert_eq!(answer.status, status, "{context}: {}", answer.text);
    check(&answer.json, context);
}

#[test]
fn malformed_requests_are_refused_and_change_nothing() {
    let node = Node::start();
    let mut daemon = Daemon::with(&node, &[("limits.body_bytes", "65536")]);
    let watched = node.address();
    daemon.watch(&watched);
    let before = state(&daemon);
    let unwatched = node.address();
    let nul = format!("/balance/{}", "%00".repeat(8));
    let long = format!("/balance/{}", "a".repeat(2000));
    let cases: &[(&str, &str, &[u8], u16)] = &[
        ("POST", "/add_address", b"", 400),
        ("POST", "/add_address", b"{", 400),
        ("POST", "/add_address", b"null", 400),
        ("POST", "/add_address", b"[]", 400),
        ("POST", "/add_address", b"\"text\"", 400),
        ("POST", "/add_address", b"{\"address\": 5}", 400),
        ("POST", "/add_address", b"{\"address\": null}", 400),
        ("POST", "/add_address", b"{\"address\": \"\"}", 400),
        ("POST", "/add_address", b"{\"address\": \"hello\"}", 400),
        ("POST", "/add_address", b"{\"address\": \"\xff\xfe\"}", 400),
        (
            "POST",
            "/add_address",
            "{\"address\": \"é1234\"}".as_bytes(),
            400,
        ),
        ("POST", "/add_address", b"{\"addresses\": \"hello\"}", 400),
        ("POST", "/add_address", b"{} trailing", 400),
        ("GET", "/balance/hello", b"", 400),
        ("GET", "/balance/", b"", 400),
        ("GET", "/balance/%ff%fe", b"", 400),
        ("GET", &nul, b"", 400),
        ("GET", &long, b"", 400),
        ("GET", "/utxos/hello", b"", 400),
        ("GET", "/transactions/hello", b"", 400),
        ("POST", "/scan_history/hello", b"{}", 400),
        (
            "POST",
            "/scan_history/WATCHED",
            b"{\"blocks_back\": -1}",
            400,
        ),
        (
            "POST",
            "/scan_history/WATCHED",
            b"{\"blocks_back\": \"many\"}",
            400,
        ),
        ("POST", "/scan_history/WATCHED", b"{", 400),
        ("GET", "/transactions/WATCHED?limit=many", b"", 400),
        ("GET", "/transactions/WATCHED?limit=-1", b"", 400),
        ("GET", "/transactions/WATCHED?before=%F0%9F%92%A9", b"", 400),
        ("GET", "/balance/UNWATCHED", b"", 404),
        ("GET", "/utxos/UNWATCHED", b"", 404),
        ("GET", "/transactions/UNWATCHED", b"", 404),
        ("GET", "/nothing/here", b"", 404),
        ("GET", "/Status", b"", 404),
        ("POST", "/", b"", 405),
    ];
    for (method, path, body, status) in cases {
        let path = path
            .replace("UNWATCHED", &unwatched)
            .replace("WATCHED", &watched);
        let body = (*method == "POST").then_some(*body);
        let answer = daemon.request(method, &path, JSON, body);
        refused(&answer, *status, &format!("{method} {path} {body:?}"));
    }
    let unknown = daemon.get(&format!("/balance/{unwatched}"));
    assert!(
        unknown.text.contains("add_address"),
        "it says how to watch it: {}",
        unknown.text
    );
    assert_eq!(state(&daemon), before);
    assert!(daemon.is_running());
}

#[test]
fn an_address_of_another_network_is_refused_with_both_named() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let before = state(&daemon);
    for path in ["/balance/", "/utxos/", "/transactions/"] {
        let answer = daemon.get(&format!("{path}{MAINNET}"));
        refused(&answer, 400, path);
        let sentence = answer.json["error"].as_str().expect("checked above");
        assert!(
            sentence.contains("main") && sentence.contains("regtest"),
            "{sentence}"
        );
    }
    let added = daemon.post("/add_address", &json!({ "address": MAINNET }));
    refused(&added, 400, "add_address");
    assert!(
        added.text.contains("main") && added.text.contains("regtest"),
        "{}",
        added.text
    );
    let mistyped = daemon.post("/add_address", &json!({ "address": MISTYPED }));
    refused(&mistyped, 400, "a mistyped address");
    assert_ne!(
        mistyped.json["code"], added.json["code"],
        "a wrong network is not a wrong address"
    );
    assert_eq!(state(&daemon), before);
}

#[test]
fn a_wrong_method_is_told_the_right_one() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let cases = [
        ("POST", "/status", "GET"),
        ("DELETE", "/status", "GET"),
        ("GET", "/add_address", "POST"),
        ("GET", "/start", "POST"),
        ("GET", "/stop", "POST"),
        ("PUT", "/add_address", "POST"),
        ("POST", "/balance/x", "GET"),
        ("POST", "/utxos/x", "GET"),
        ("POST", "/transactions/x", "GET"),
        ("GET", "/scan_history/x", "POST"),
    ];
    for (method, path, allowed) in cases {
        let body: Option<&[u8]> = matches!(method, "POST" | "PUT").then_some(b"{}");
        let answer = daemon.request(method, path, JSON, body);
        refused(&answer, 405, &format!("{method} {path}"));
        let allow = answer
            .headers
            .get("allow")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        assert!(
            allow.split(',').any(|word| word.trim() == allowed),
            "{method} {path}: Allow is {allow:?}"
        );
    }
    assert_eq!(daemon.get("/status").json["realtime_monitoring"], true);
}

#[test]
fn an_oversized_body_is_refused() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[("limits.body_bytes", "4096")]);
    let before = state(&daemon);
    let body = json!({ "address": node.address(), "label": "x".repeat(5000) });
    refused(
        &daemon.post("/add_address", &body),
        413,
        "5 kB where 4 kB are allowed",
    );
    assert_eq!(state(&daemon), before);
}

#[test]
fn unknown_and_malformed_events_get_an_error_and_the_connection_goes_on() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let before = state(&daemon);
    let client = Client::connect(&daemon);
    let cases = [
        ("no_such_event", json!({ "address": "x" })),
        ("subscribe_address", json!(null)),
        ("subscribe_address", json!([])),
        ("subscribe_address", json!("text")),
        ("subscribe_address", json!({})),
        ("subscribe_address", json!({ "address": 5 })),
        ("subscribe_address", json!({ "address": "" })),
        ("subscribe_address", json!({ "address": "é1234" })),
        ("subscribe_address", json!({ "address": MAINNET })),
        ("unsubscribe_address", json!({})),
        ("unsubscribe_address", json!({ "address": "hello" })),
        ("subscribe_addresses", json!({ "addresses": "hello" })),
        ("subscribe_addresses", json!({ "addresses": [MAINNET] })),
    ];
    for (number, (name, data)) in cases.iter().enumerate() {
        check(
            &client.ask(name, data),
            &format!("acknowledged {name} {data}"),
        );
        // Without an acknowledgement the same comes as an event.
        let earlier = client.all("error").len();
        client.emit(name, data);
        let error = client.event_after(earlier, "error", |_| true);
        check(&error, &format!("case {number}: {name} {data}"));
    }
    assert_eq!(state(&daemon), before);
    let address = node.address();
    let answer = client.ask("subscribe_address", &json!({ "address": address }));
    assert_eq!(
        answer["address"], *address,
        "the connection is as good as before: {answer}"
    );
}

/// What breaks the protocol itself ends that one connection.
#[test]
fn broken_packets_end_only_their_own_connection() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let address = node.address();
    let good = Client::subscribed(&daemon, &address);
    for packet in [
        "4é1234",
        "42[",
        "42{}",
        "4",
        "9",
        "abc",
        "4b",
        "42[\"connect\"]",
        "451-[\"x\",{\"_placeholder\":true,\"num\":9}]",
        "42\u{0}",
    ] {
        let bad = Client::connect(&daemon);
        bad.send(packet);
        bad.wait_closed();
    }
    node.pay(&address, 1_000_000);
    good.event("balance_change", |data| data["new_balance"] == 1_000_000);
    assert!(daemon.is_running());
}

/// Keys that somebody sends by mistake are in no answer and in no log line, at whatever level.
#[test]
fn case_09_no_key_comes_back_or_into_the_log() {
    const WORDS: &str =
        "legal winner thank year wave sausage worth useful legal winner thank yellow";
    let keys = [
        "KwFfpDsaF7yxCELuyrH9gP5XL7TAt5b9HPWC1xCQbmrxvhJgMQHb",
        "cMcfH8sRgBgDMfpBNG6H3haaxLkaYXgqMRef8Nev6tWyBSNr6c3n",
        "xprv9s21ZrQH143K24wRdsX9TnFuNKBUZJDDM4DfJkKgF4HkNxzHqVaWQNr7mnpffA1Q6tHGs2QhJAfmJFL3zg3Rj45hjkA4qaPX6BFpzGf4WsL",
        WORDS,
    ];
    let node = Node::start();
    let daemon = Daemon::with(&node, &[("log.level", "trace")]);
    let before = state(&daemon);
    let mut said = String::new();
    for key in keys {
        let path = key.replace(' ', "%20");
        for route in ["balance", "utxos", "transactions", "adress"] {
            let answer = daemon.get(&format!("/{route}/{path}"));
            assert!([400, 404].contains(&answer.status), "{}", answer.text);
            said += &answer.text;
        }
        for query in [
            format!("/events?address={path}"),
            format!("/addresses?{path}=1"),
        ] {
            let answer = daemon.get(&query);
            refused(&answer, 400, "a query");
            said += &answer.text;
        }
        for (path, body) in [
            ("/add_address", json!({ "address": key })),
            ("/add_address", json!({ key: "address" })),
            ("/add_addresses", json!({ "addresses": [key] })),
            (
                "/scan_history",
                json!({ "addresses": [{ "address": key }] }),
            ),
        ] {
            let answer = daemon.post(path, &body);
            refused(&answer, 400, path);
            said += &answer.text;
        }
        let broken = format!("{{\"address\": {key}}}");
        let answer = daemon.request("POST", "/add_address", JSON, Some(broken.as_bytes()));
        refused(&answer, 400, "no JSON");
        said += &answer.text;
        let client = Client::connect(&daemon);
        for name in ["subscribe_address", "unsubscribe_address", key] {
            let answer = client.ask(name, &json!({ "address": key }));
            check(&answer, "an event");
            said += &answer.to_string();
        }
        client.send(&format!("42[{key}"));
        client.wait_closed();
    }
    let log = daemon.log();
    assert!(
        log.contains("closing a Socket.IO connection"),
        "it is at trace: {log}"
    );
    for (place, text) in [("an answer", &said), ("the log", &log)] {
        for word in keys.iter().flat_map(|key| key.split(' ')) {
            assert!(!text.contains(word), "{word} is in {place}");
        }
    }
    assert_eq!(state(&daemon), before);
}
