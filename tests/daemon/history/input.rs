//! Bad input: each gets its status and code, and nothing is changed.

use serde_json::{Value, json};

use crate::common::{COIN, Daemon, Node};

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];

/// Everything that a refused request must leave as it was.
fn state(daemon: &Daemon) -> Value {
    let [status, scans, addresses] =
        ["/status", "/scans", "/addresses"].map(|path| daemon.get(path).json);
    let keys = [
        "address_count",
        "total_utxos",
        "transactions",
        "cursor",
        "tip",
        "scans",
    ];
    let status: Value = keys
        .iter()
        .map(|key| ((*key).to_owned(), status[*key].clone()))
        .collect();
    json!([status, scans, addresses])
}

fn refused(daemon: &Daemon, method: &str, path: &str, body: Option<&str>, right: (u16, &str)) {
    let headers = if body.is_some() { JSON } else { &[] };
    let answer = daemon.request(method, path, headers, body.map(str::as_bytes));
    let (status, code) = right;
    let shown: String = body.unwrap_or_default().chars().take(200).collect();
    assert_eq!(
        (answer.status, &answer.json["code"]),
        (status, &json!(code)),
        "{method} {path} {shown}: {}",
        answer.text
    );
    assert!(
        answer.json["error"]
            .as_str()
            .is_some_and(|sentence| sentence.len() > 10),
        "{}",
        answer.text
    );
}

#[test]
fn impossible_scans_are_refused_and_change_nothing() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let (watched, stranger) = (node.address(), node.address());
    node.pay(&watched, COIN);
    node.mine(1);
    daemon.wait_tip(&node);
    daemon.watch(&watched);
    let before = state(&daemon);
    let tip = node.height();
    let above = tip + 1;
    let range: [String; 10] = [
        format!(r#"{{"from_height": {above}}}"#),
        format!(r#"{{"to_height": {above}}}"#),
        format!(r#"{{"from_height": 4294967295, "to_height": {tip}}}"#),
        r#"{"from_height": 20, "to_height": 19}"#.into(),
        r#"{"from_height": 1, "to_height": 0}"#.into(),
        r#"{"blocks_back": 5, "from_height": 3}"#.into(),
        r#"{"blocks_back": 5, "to_height": 3}"#.into(),
        r#"{"blocks_back": 5, "from_height": 3, "to_height": 9}"#.into(),
        format!(r#"{{"from_height": {above}, "to_height": {above}}}"#),
        r#"{"to_height": 4294967295}"#.into(),
    ];
    for body in &range {
        refused(
            &daemon,
            "POST",
            &format!("/scan_history/{watched}"),
            Some(body),
            (400, "invalid_range"),
        );
        let listed = format!(r#"{{"addresses": ["{watched}"], {}"#, &body[1..]);
        refused(
            &daemon,
            "POST",
            "/scan_history",
            Some(&listed),
            (400, "invalid_range"),
        );
    }
    let told = daemon.post(
        &format!("/scan_history/{watched}"),
        &json!({ "from_height": above }),
    );
    assert!(
        told.text.contains(&tip.to_string()),
        "the tip is named: {}",
        told.text
    );
    for field in ["blocks_back", "from_height", "to_height"] {
        for value in [
            "-1",
            "1.5",
            "\"7\"",
            "\"\"",
            "[]",
            "{}",
            "true",
            "1e400000000",
            "-0.5",
            "0.1e-5",
            "4294967296",
            "18446744073709551616",
        ] {
            let body = format!(r#"{{"{field}": {value}}}"#);
            let code = if value == "1e400000000" {
                "invalid_json"
            } else {
                "invalid_field"
            };
            refused(
                &daemon,
                "POST",
                &format!("/scan_history/{watched}"),
                Some(&body),
                (400, code),
            );
        }
    }
    refused(
        &daemon,
        "POST",
        &format!("/scan_history/{watched}"),
        Some(r#"{"blocks_back": 0}"#),
        (400, "invalid_field"),
    );
    for body in ["[]", "7", "\"all\"", "{", "null"] {
        refused(
            &daemon,
            "POST",
            &format!("/scan_history/{watched}"),
            Some(body),
            (400, "invalid_json"),
        );
    }
    assert_eq!(state(&daemon), before);

    refused(
        &daemon,
        "POST",
        &format!("/scan_history/{stranger}"),
        Some("{}"),
        (404, "not_watched"),
    );
    refused(
        &daemon,
        "POST",
        "/scan_history/nonsense",
        Some("{}"),
        (400, "invalid_address"),
    );
    let lists = [
        (json!({ "addresses": [] }), (400, "invalid_field")),
        (json!({ "addresses": watched }), (400, "invalid_field")),
        (
            json!({ "addresses": vec![&watched; 10_001] }),
            (400, "invalid_field"),
        ),
        (json!({ "addresses": [watched, 5] }), (400, "invalid_field")),
        (
            json!({ "addresses": [watched, "nonsense"] }),
            (400, "invalid_address"),
        ),
        (
            json!({ "addresses": [watched, stranger] }),
            (404, "not_watched"),
        ),
        (json!({}), (400, "missing_field")),
    ];
    for (body, right) in &lists {
        refused(
            &daemon,
            "POST",
            "/scan_history",
            Some(&body.to_string()),
            *right,
        );
    }
    let placed = daemon.post(
        "/scan_history",
        &json!({ "addresses": [watched, watched, stranger] }),
    );
    assert!(
        placed.text.contains("addresses[2]") && placed.text.contains(&stranger),
        "which one is named: {}",
        placed.text
    );
    for id in [
        "0123456789abcdef",
        "0",
        "nonsense",
        "0123456789abcdeg",
        "00123456789abcdef0",
        "%00",
        "-1",
        &"f".repeat(3000),
    ] {
        refused(
            &daemon,
            "GET",
            &format!("/scans/{id}"),
            None,
            (404, "no_such_scan"),
        );
        refused(
            &daemon,
            "DELETE",
            &format!("/scans/{id}"),
            None,
            (404, "no_such_scan"),
        );
    }
    let histories = [
        json!({ "from_height": above }),
        json!({ "from_height": -1 }),
        json!({ "from_height": 1.5 }),
        json!({ "from_height": "3" }),
        json!({}),
        json!("all"),
        json!(3),
        json!([]),
    ];
    for history in &histories {
        let code = if *history == json!({ "from_height": above }) {
            "invalid_range"
        } else {
            "invalid_field"
        };
        refused(
            &daemon,
            "POST",
            "/add_address",
            Some(&json!({ "address": stranger, "history": history }).to_string()),
            (400, code),
        );
        refused(
            &daemon,
            "POST",
            "/add_addresses",
            Some(&json!({ "addresses": [stranger], "history": history }).to_string()),
            (400, code),
        );
    }
    refused(
        &daemon,
        "DELETE",
        &format!("/addresses/{stranger}"),
        None,
        (404, "not_watched"),
    );
    refused(
        &daemon,
        "DELETE",
        "/addresses/nonsense",
        None,
        (400, "invalid_address"),
    );
    refused(
        &daemon,
        "POST",
        &format!("/audit/{stranger}"),
        Some("{}"),
        (404, "not_watched"),
    );
    refused(
        &daemon,
        "POST",
        "/audit/nonsense",
        Some("{}"),
        (400, "invalid_address"),
    );
    for (method, path) in [
        ("POST", "/scans"),
        ("PUT", "/scans/0123456789abcdef"),
        ("GET", "/scan_history"),
        ("DELETE", "/scan_history"),
        ("GET", "/audit/x"),
        ("DELETE", "/audit/x"),
        ("POST", "/addresses/x"),
    ] {
        let body = matches!(method, "POST" | "PUT").then_some("{}");
        refused(&daemon, method, path, body, (405, "method_not_allowed"));
    }
    assert_eq!(state(&daemon), before);
}
