//! History scans: what an address did before it was added, found in the node's blocks.

pub mod oracle;
pub mod play;
pub mod world;

mod input;
mod jobs;
mod nodes;
mod scan_equivalence;

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::rpc_proxy::{Mood, RpcProxy};
use crate::common::{Daemon, ledger, wait_for, wait_until};

/// Asks for a scan of one address or of several; its id.
pub fn open(daemon: &Daemon, addresses: &[String], body: Value) -> String {
    let (path, mut body) = match addresses {
        [one] => (format!("/scan_history/{one}"), body),
        _ => ("/scan_history".to_owned(), body),
    };
    if addresses.len() != 1 {
        body["addresses"] = json!(addresses);
    }
    let answer = daemon.post(&path, &body);
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(
        (&answer.json["status"], &answer.json["count"]),
        (&json!("scanning"), &json!(addresses.len())),
        "{}",
        answer.text
    );
    let id = answer.json["scan_id"]
        .as_str()
        .unwrap_or_else(|| panic!("{}", answer.text))
        .to_owned();
    assert!(
        id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
    id
}

/// `GET /scans/{id}`.
pub fn look(daemon: &Daemon, id: &str) -> Value {
    let answer = daemon.get(&format!("/scans/{id}"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["scan_id"], *id, "{}", answer.text);
    answer.json
}

/// No scan goes on, until [`under_way`] or `slow` lets it.
pub fn hold(proxy: &RpcProxy) {
    for method in ["rest", "scanblocks"] {
        proxy.set_for(method, Mood::Granted(Duration::from_millis(40)));
    }
    proxy.grant(0);
}

/// Lets a scan go on until it has come above `height` and is not done; what it says then. It stays
/// about there, because the node's blocks are held back, until `slow` is called.
pub fn under_way(daemon: &Daemon, proxy: &RpcProxy, id: &str, height: i64) -> Value {
    hold(proxy);
    let scan = wait_until("the scan is under way", || {
        proxy.grant(4);
        let scan = look(daemon, id);
        assert_ne!(
            scan["status"], "complete",
            "it was to be caught in the middle: {scan}"
        );
        scan["height"]
            .as_i64()
            .is_some_and(|now| now > height)
            .then_some(scan)
    });
    proxy.grant(0);
    scan
}

/// Waits until a scan is complete, looking at it all the time; its last word.
pub fn complete(daemon: &Daemon, id: &str) -> Value {
    let mut last = Value::Null;
    let done = wait_for(crate::common::DEADLINE, || {
        last = look(daemon, id);
        plausible(&last);
        (last["status"] == "complete").then_some(())
    });
    assert!(
        done.is_some(),
        "the scan does not end: {last}\n{}",
        daemon.log()
    );
    assert_eq!(
        (&last["percent"], &last["waits_for"], &last["seconds_left"]),
        (&json!(100.0), &Value::Null, &Value::Null),
        "{last}"
    );
    assert_eq!(last["blocks_done"], last["blocks_total"], "{last}");
    last
}

/// The numbers of a scan fit each other.
pub fn plausible(scan: &Value) {
    let number = |name: &str| scan[name].as_f64();
    let status = scan["status"].as_str().expect("a text");
    assert!(
        ["queued", "scanning", "waiting", "complete", "cancelled"].contains(&status),
        "{scan}"
    );
    let percent = number("percent").expect("a number");
    assert!(
        (0.0..=100.0).contains(&percent) && (percent * 10.0).fract().abs() < 1e-6,
        "{scan}"
    );
    assert_eq!(percent == 100.0, status == "complete", "{scan}");
    let done = number("blocks_done").expect("a number");
    if let Some(total) = number("blocks_total") {
        assert!(
            done <= total && (total == 0.0 || (done / total * 100.0 - percent).abs() <= 0.1),
            "{scan}"
        );
    }
    let from = number("from_height").expect("a number");
    if let Some(height) = number("height") {
        let first = number("horizon").unwrap_or(from).max(from);
        assert!(
            height - first + 1.0 <= done + 0.5 && height >= first,
            "{scan}"
        );
    }
    assert!(
        number("created") <= number("updated") && number("created") > Some(1.6e9),
        "{scan}"
    );
}

/// The log after a cursor.
pub fn after(daemon: &Daemon, cursor: &Value) -> Vec<Value> {
    let from = ledger::number(cursor);
    ledger::read(daemon)
        .into_iter()
        .filter(|event| ledger::number(&event["cursor"]) > from)
        .collect()
}

/// The `scan_complete` events of a scan: exactly one for each of its addresses.
pub fn ends(daemon: &Daemon, id: &str, addresses: &[String]) -> Vec<Value> {
    let named =
        |event: &Value| event["event"] == "scan_complete" && event["data"]["scan_id"] == *id;
    let ends: Vec<Value> = ledger::read(daemon)
        .into_iter()
        .filter(named)
        .map(|event| event["data"].clone())
        .collect();
    let told: HashSet<&str> = ends
        .iter()
        .filter_map(|end| end["address"].as_str())
        .collect();
    assert_eq!(
        told,
        addresses.iter().map(String::as_str).collect(),
        "{ends:?}"
    );
    assert_eq!(ends.len(), addresses.len(), "one each: {ends:?}");
    assert!(
        ends.iter().all(|end| end["status"] == "complete"),
        "{ends:?}"
    );
    ends
}

/// All pages of `GET /transactions`, which are small on purpose.
pub fn listed(daemon: &Daemon, address: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut before = String::new();
    loop {
        let page = daemon.get(&format!("/transactions/{address}?limit=50{before}"));
        assert_eq!(page.status, 200, "{}", page.text);
        all.extend(
            page.json["transactions"]
                .as_array()
                .expect("a list")
                .iter()
                .cloned(),
        );
        match page.json["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => {
                assert_eq!(
                    page.json["total"],
                    all.len(),
                    "every transaction is listed once"
                );
                return all;
            }
        }
    }
}

/// The object with these fields only.
pub fn only(object: &Value, fields: &[&str]) -> Value {
    fields
        .iter()
        .map(|field| ((*field).to_owned(), object[*field].clone()))
        .collect()
}
