//! Wallets of the node that are watched as descriptors, with what the node itself says of them as
//! the measure.

mod derivation;
mod derivation_oracle;
mod inside;
mod oracle;
mod refusals;
mod rest;
mod scans;
mod socket;

use serde_json::{Value, json};

use crate::common::{Daemon, Node, wait_until};

/// The public descriptor of the node's wallet whose addresses are paid in these tests.
fn of_owner(node: &Node) -> String {
    let listed = node.owner("listdescriptors", json!([]));
    let all = listed["descriptors"].as_array().expect("a list");
    let text = all
        .iter()
        .map(|it| it["desc"].as_str().expect("a text"))
        .find(|text| text.starts_with("wpkh(") && text.contains("/0/*)"))
        .expect("a wallet has such a descriptor");
    let (text, _) = text.split_once('#').expect("a checksum");
    text.replace("/0/*)", "/<0;1>/*)")
}

/// Adds it: the answer.
fn add(daemon: &Daemon, body: &Value) -> Value {
    let added = daemon.post("/descriptors", body);
    assert_eq!(added.status, 201, "{}", added.text);
    added.json
}

fn id(shown: &Value) -> String {
    shown["descriptor_id"].as_str().expect("an id").to_owned()
}

fn of(daemon: &Daemon, id: &str, what: &str) -> Value {
    let answer = daemon.get(&format!("/descriptors/{id}{what}"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json
}

/// Waits until all is known of its past.
fn wait_complete(daemon: &Daemon, id: &str) {
    wait_until("what the wallet had before is found", || {
        let balance = of(daemon, id, "/balance");
        (balance["coverage"]["complete"] == true).then_some(())
    });
}

/// Waits until confirmed and unconfirmed balance are these.
fn wait_balance(daemon: &Daemon, id: &str, confirmed: i64, unconfirmed: i64) {
    wait_until("the balance of the wallet", || {
        let balance = of(daemon, id, "/balance");
        let told = [
            &balance["confirmed_balance"],
            &balance["unconfirmed_balance"],
        ];
        (told == [&json!(confirmed), &json!(unconfirmed)]).then_some(())
    });
}
