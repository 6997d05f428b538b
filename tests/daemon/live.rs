//! From the node to a subscriber: pushed over ZMQ, found by the poll when there is none, told once.

use serde_json::json;

use crate::common::node::Options;
use crate::common::{COIN, Client, Daemon, Node, wait_until};

/// With an hour between reconciliations, only a push can bring these.
const NEVER: (&str, &str) = ("monitor.reconcile_interval", "3600");

#[test]
fn a_payment_and_its_confirmation_are_pushed_not_polled() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[NEVER]);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);

    let txid = node.pay(&address, COIN);
    let news = client.event("new_transactions", |data| {
        data["transactions"][0]["txid"] == *txid
    });
    assert_eq!(news["address"], *address);
    assert_eq!(news["count"], 1);
    let transaction = &news["transactions"][0];
    assert_eq!(
        (
            &transaction["received"],
            &transaction["sent"],
            &transaction["net"]
        ),
        (&json!(COIN), &json!(0), &json!(COIN))
    );
    assert_eq!(
        (&transaction["status"], &transaction["confirmations"]),
        (&json!("mempool"), &json!(0))
    );
    let change = client.event("balance_change", |_| true);
    assert_eq!(
        (&change["old_balance"], &change["new_balance"]),
        (&json!(0), &json!(COIN))
    );
    assert_eq!(
        (&change["old_balance_btc"], &change["new_balance_btc"]),
        (&json!(0.0), &json!(1.0))
    );
    assert_eq!(
        (&change["confirmed_balance"], &change["unconfirmed_balance"]),
        (&json!(0), &json!(COIN))
    );
    assert_eq!(
        (&change["delta"], &change["cause"]["txid"]),
        (&json!(COIN), &json!(txid))
    );

    let block = node.mine(1).remove(0);
    let update = client.event("transaction_update", |data| data["txid"] == *txid);
    assert_eq!(
        (&update["previous_status"], &update["status"]),
        (&json!("mempool"), &json!("confirmed"))
    );
    assert_eq!(
        (&update["confirmations"], &update["block_height"]),
        (&json!(1), &json!(node.height()))
    );
    assert_eq!(update["block_hash"], *block);
    daemon.wait_balance(&address, COIN, 0);
}

#[test]
fn without_zmq_the_poll_finds_payments_and_blocks() {
    let node = Node::with(Options {
        topics: &[],
        ..Options::default()
    });
    let daemon = Daemon::launched(&node, &[("monitor.reconcile_interval", "1")]);
    daemon.wait_tip(&node);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);

    let txid = node.pay(&address, COIN);
    client.event("new_transactions", |data| {
        data["transactions"][0]["txid"] == *txid
    });
    client.event("balance_change", |data| data["new_balance"] == COIN);
    node.mine(1);
    client.event("transaction_update", |data| {
        data["txid"] == *txid && data["status"] == "confirmed"
    });
    daemon.wait_balance(&address, COIN, 0);
    let zmq = daemon.get("/status").json["zmq"].to_string();
    assert!(
        !zmq.contains("\"connected\":true"),
        "no feed is connected: {zmq}"
    );
}

/// A transaction comes over rawtx when it enters the mempool and again with its block; the block
/// itself brings it a third time.
#[test]
fn a_transaction_is_announced_once_and_a_balance_changes_once() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);

    let first = node.pay(&address, COIN);
    client.event("balance_change", |data| data["new_balance"] == COIN);
    node.mine(1);
    client.event("transaction_update", |data| data["txid"] == *first);
    node.mine(2);
    // Everything about the first comes before anything about the second.
    let second = node.pay(&address, 2 * COIN);
    client.event("balance_change", |data| data["new_balance"] == 3 * COIN);

    let announced: Vec<_> = client
        .all("new_transactions")
        .iter()
        .map(|data| data["transactions"][0]["txid"].clone())
        .collect();
    assert_eq!(announced, [json!(first), json!(second)]);
    let changes: Vec<_> = client
        .all("balance_change")
        .iter()
        .map(|data| (data["old_balance"].clone(), data["new_balance"].clone()))
        .collect();
    assert_eq!(
        changes,
        [(json!(0), json!(COIN)), (json!(COIN), json!(3 * COIN))]
    );
    let updates: Vec<_> = client
        .all("transaction_update")
        .iter()
        .map(|data| data["txid"].clone())
        .collect();
    assert_eq!(updates, [json!(first)]);
}

#[test]
fn a_transaction_first_seen_in_a_block_is_announced_from_there() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);

    node.mine_to(&address, 1);
    let news = client.event("new_transactions", |_| true);
    assert_eq!(
        (
            &news["transactions"][0]["status"],
            &news["transactions"][0]["confirmations"]
        ),
        (&json!("confirmed"), &json!(1))
    );
    let change = client.event("balance_change", |data| data["new_balance"] == 50 * COIN);
    assert_eq!(change["confirmed_balance"], 50 * COIN);
    let balance = daemon.balance(&address);
    assert_eq!(
        (&balance["confirmed_balance"], &balance["immature"]),
        (&json!(50 * COIN), &json!(50 * COIN))
    );
}

#[test]
fn a_replaced_payment_is_told_as_replaced() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);

    let old = node.pay(&address, COIN);
    client.event("new_transactions", |data| {
        data["transactions"][0]["txid"] == *old
    });
    let new = node.payer("bumpfee", json!([old]))["txid"].clone();
    client.event("new_transactions", |data| {
        data["transactions"][0]["txid"] == new
    });
    let update = client.event("transaction_update", |data| data["txid"] == *old);
    assert_eq!(
        (&update["previous_status"], &update["status"]),
        (&json!("mempool"), &json!("replaced"))
    );
    assert_eq!(update["replaced_by"], new);
    daemon.wait_balance(&address, 0, COIN);
}

#[test]
fn every_subscriber_hears_it_and_one_who_left_does_not() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let (address, other) = (node.address(), node.address());
    let stays = Client::subscribed(&daemon, &address);
    let leaves = Client::subscribed(&daemon, &address);
    leaves.emit("subscribe_address", &json!({ "address": other }));
    leaves.event("subscribed", |data| data["address"] == *other);

    node.pay(&address, COIN);
    let (heard, also) = (
        stays.event("balance_change", |_| true),
        leaves.event("balance_change", |_| true),
    );
    assert_eq!(heard, also, "one event is the same for all, its cursor too");

    leaves.emit("unsubscribe_address", &json!({ "address": address }));
    let gone = leaves.event("unsubscribed", |data| data["address"] == *address);
    assert!(gone["message"].is_string(), "{gone}");
    node.pay(&address, COIN);
    stays.event("balance_change", |data| data["new_balance"] == 2 * COIN);
    node.pay(&other, COIN);
    leaves.event("balance_change", |data| data["address"] == *other);
    let of_the_first = leaves
        .all("balance_change")
        .iter()
        .filter(|data| data["address"] == *address)
        .count();
    assert_eq!(of_the_first, 1);
}

#[test]
fn blocks_are_told_to_those_who_subscribed_to_them() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let client = Client::connect(&daemon);
    let hello = client.event("connected", |_| true);
    assert!(
        hello["message"].is_string()
            && hello["network"] == "regtest"
            && hello["tip"]["hash"] == *node.tip(),
        "{hello}"
    );
    client.ask("subscribe_blocks", &json!({}));
    let hash = node.mine(1).remove(0);
    let block = client.event("block", |data| data["hash"] == *hash);
    assert_eq!(block["height"], node.height());
}

/// A node that restarts has a new cookie, new sequence numbers and, for a while, no answers.
#[test]
fn a_restart_of_the_node_is_survived() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[("monitor.reconcile_interval", "1")]);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);
    node.pay(&address, COIN);
    client.event("balance_change", |data| data["new_balance"] == COIN);

    node.stop();
    wait_until("the daemon says that the node is away", || {
        (daemon.get("/status").json["service_available"] == false).then_some(())
    });
    assert_eq!(daemon.get("/health/ready").status, 503);
    assert_eq!(
        daemon.balance(&address)["balance"],
        COIN,
        "what it knows is still served"
    );
    node.restart();
    daemon.wait_ready();

    node.pay(&address, 2 * COIN);
    client.event("balance_change", |data| data["new_balance"] == 3 * COIN);
    node.mine(1);
    daemon.wait_balance(&address, 3 * COIN, 0);
}

#[test]
fn a_stop_ends_every_connection_and_exits_with_zero() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let address = node.address();
    let clients = [
        Client::subscribed(&daemon, &address),
        Client::connect(&daemon),
    ];
    daemon.stop();
    clients.iter().for_each(Client::wait_closed);
}
