//! Reorganizations and restarts: afterwards every balance is what the node itself says.

use serde_json::json;

use crate::common::oracle::{self, Balances};
use crate::common::{COIN, Client, Daemon, Node};

/// The daemon's numbers become the node's own.
fn agrees(daemon: &Daemon, node: &Node, address: &str) -> Balances {
    daemon.wait_tip(node);
    let right = oracle::balances(node, address);
    daemon.wait_balance(address, right.confirmed, right.unconfirmed);
    right
}

#[test]
fn a_disconnected_payment_goes_back_to_the_mempool_and_is_confirmed_again() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[("monitor.reconcile_interval", "1")]);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);
    let txid = node.pay(&address, COIN);
    let block = node.mine(1).remove(0);
    client.event("transaction_update", |data| data["status"] == "confirmed" && data["block_hash"] == *block);

    node.rpc("invalidateblock", json!([block]));
    client.event("transaction_update", |data| data["previous_status"] == "confirmed" && data["status"] == "mempool");
    assert_eq!(agrees(&daemon, &node, &address), Balances { confirmed: 0, unconfirmed: COIN });

    let again = node.mine(2).remove(0);
    client.event("transaction_update", |data| data["status"] == "confirmed" && data["block_hash"] == *again);
    assert_eq!(agrees(&daemon, &node, &address), Balances { confirmed: COIN, unconfirmed: 0 });
    let announced = client.all("new_transactions");
    assert_eq!(announced.len(), 1, "announced once, also over a reorg: {announced:?}");
    let history = daemon.get(&format!("/transactions/{address}")).json;
    assert_eq!((&history["count"], &history["transactions"][0]["txid"]), (&json!(1), &json!(txid)));
}

#[test]
fn a_lost_coinbase_is_taken_back() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[("monitor.reconcile_interval", "1")]);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);
    let blocks = node.mine_to(&address, 3);
    client.event("balance_change", |data| data["new_balance"] == 150 * COIN);

    node.rpc("invalidateblock", json!([blocks[0]]));
    client.event("balance_change", |data| data["new_balance"] == 0);
    assert_eq!(agrees(&daemon, &node, &address), Balances { confirmed: 0, unconfirmed: 0 });
    assert_eq!(daemon.get(&format!("/utxos/{address}")).json["count"], 0);

    let known = client.all("balance_change").len();
    node.rpc("reconsiderblock", json!([blocks[0]]));
    client.event_after(known, "balance_change", |data| data["new_balance"] == 150 * COIN);
    agrees(&daemon, &node, &address);
}

#[test]
fn what_happened_while_the_daemon_was_down_is_caught_up_with_events() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let address = node.address();
    daemon.watch(&address);
    node.pay(&address, COIN);
    let lost = node.mine(1).remove(0);
    daemon.wait_balance(&address, COIN, 0);
    let before = daemon.balance(&address)["cursor"].as_str().expect("a cursor is text").to_owned();
    daemon.stop();

    // A reorg, a payment in a block and one in the mempool.
    node.rpc("invalidateblock", json!([lost]));
    let mined = node.pay(&address, 2 * COIN);
    node.mine(3);
    let waiting = node.pay(&address, 4 * COIN);
    daemon.restart();

    assert_eq!(agrees(&daemon, &node, &address), Balances { confirmed: 3 * COIN, unconfirmed: 4 * COIN });
    let events = daemon.get(&format!("/events?after={before}&address={address}")).json;
    let events = events["events"].as_array().expect("a list of events");
    let announced: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "new_transactions")
        .map(|event| event["data"]["transactions"][0]["txid"].clone())
        .collect();
    assert_eq!(announced, [json!(mined), json!(waiting)]);
    let mut balance = json!(COIN);
    for change in events.iter().filter(|event| event["event"] == "balance_change") {
        assert_eq!(change["data"]["old_balance"], balance, "each change starts where the one before ended");
        balance = change["data"]["new_balance"].clone();
    }
    assert_eq!(balance, 7 * COIN);
}

#[test]
fn a_killed_daemon_goes_on_where_it_was() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let address = node.address();
    daemon.watch(&address);
    node.pay(&address, COIN);
    node.mine(1);
    node.pay(&address, 2 * COIN);
    daemon.wait_balance(&address, COIN, 2 * COIN);
    daemon.kill();
    node.mine(1);
    node.pay(&address, 4 * COIN);
    daemon.restart();
    assert_eq!(agrees(&daemon, &node, &address), Balances { confirmed: 3 * COIN, unconfirmed: 4 * COIN });
    let history = daemon.get(&format!("/transactions/{address}")).json;
    assert_eq!(history["count"], 3, "none missing, none twice: {history}");
}

#[test]
fn a_second_daemon_on_the_same_store_is_refused() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let output = daemon.second();
    assert!(!output.status.success(), "a second daemon must not start");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("store"), "it says why: {said}");
    assert_eq!(daemon.get("/status").status, 200, "the first is none the worse");
}
