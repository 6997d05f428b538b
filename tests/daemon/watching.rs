//! An address is right from the start, whatever it had before it was added.

use serde_json::{Value, json};

use crate::common::node::bitcoin;
use crate::common::oracle::{self, Balances};
use crate::common::{COIN, Client, Daemon, Node};

/// Spends everything that `address` has to another one, without a fee worth speaking of; the
/// transaction's id.
fn spend_all(node: &Node, address: &str, to: &str) -> String {
    const FEE: i64 = 10_000;
    let unspent = node.owner("listunspent", json!([0, 9_999_999, [address]]));
    let unspent = unspent.as_array().expect("listunspent answers with a list");
    let total: f64 = unspent
        .iter()
        .filter_map(|output| output["amount"].as_f64())
        .sum();
    let inputs: Vec<Value> = unspent
        .iter()
        .map(|output| json!({ "txid": output["txid"], "vout": output["vout"] }))
        .collect();
    let rest = bitcoin((total * COIN as f64).round() as i64 - FEE);
    let raw = node.rpc("createrawtransaction", json!([inputs, { to: rest }]));
    let signed = node.owner("signrawtransactionwithwallet", json!([raw]));
    let txid = node.rpc("sendrawtransaction", json!([signed["hex"]]));
    txid.as_str()
        .expect("sendrawtransaction answers with a txid")
        .to_owned()
}

#[test]
fn an_address_added_while_its_payment_waits_in_the_mempool_has_it() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    let txid = node.pay(&address, COIN);
    let client = Client::subscribed(&daemon, &address);
    daemon.wait_balance(&address, 0, COIN);
    daemon.wait_complete(&address);
    let history = daemon.get(&format!("/transactions/{address}")).json;
    assert_eq!(
        (&history["count"], &history["transactions"][0]["txid"]),
        (&json!(1), &json!(txid))
    );

    node.mine(1);
    client.event("transaction_update", |data| {
        data["txid"] == *txid && data["status"] == "confirmed"
    });
    daemon.wait_balance(&address, COIN, 0);
}

#[test]
fn an_address_added_late_gets_its_confirmed_outputs_and_their_later_spend() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    node.pay(&address, COIN);
    node.mine(1);
    node.pay(&address, 2 * COIN);
    node.mine(1);
    daemon.watch(&address);
    let balance = daemon.balance(&address);
    assert_eq!(
        (&balance["confirmed_balance"], &balance["utxo_count"]),
        (&json!(3 * COIN), &json!(2))
    );
    assert_eq!(balance["coverage"]["utxos_complete"], true);

    let client = Client::subscribed(&daemon, &address);
    let elsewhere = node.address();
    let spend = spend_all(&node, &address, &elsewhere);
    let change = client.event("balance_change", |data| data["cause"]["txid"] == *spend);
    assert_eq!(
        (&change["old_balance"], &change["new_balance"]),
        (&json!(3 * COIN), &json!(0))
    );
    daemon.wait_balance(&address, 3 * COIN, -3 * COIN);
    let utxos = daemon.get(&format!("/utxos/{address}")).json;
    assert_eq!(
        utxos["count"], 0,
        "a wallet must not pick what is being spent: {utxos}"
    );
    let spent = daemon
        .get(&format!("/utxos/{address}?include_spent=true"))
        .json;
    assert_eq!(
        (&spent["count"], &spent["utxos"][0]["spent_by"]),
        (&json!(2), &json!(spend))
    );
    node.mine(1);
    daemon.wait_balance(&address, 0, 0);
}

/// The output is confirmed and its spend waits in the mempool when the address is added.
#[test]
fn an_address_added_while_it_is_being_spent_from_shows_the_spend() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let (address, elsewhere) = (node.address(), node.address());
    node.pay(&address, COIN);
    node.mine(1);
    spend_all(&node, &address, &elsewhere);
    daemon.watch(&address);
    daemon.wait_balance(&address, COIN, -COIN);
    assert_eq!(
        oracle::balances(&node, &address),
        Balances {
            confirmed: COIN,
            unconfirmed: -COIN
        }
    );
}

#[test]
fn many_addresses_added_at_once_are_all_right() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let addresses: Vec<_> = (1..=20).map(|n| (node.address(), n * COIN / 100)).collect();
    for (address, amount) in &addresses {
        node.pay(address, *amount);
    }
    node.mine(1);
    for (address, _) in &addresses {
        let added = daemon.post("/add_address", &json!({ "address": address }));
        assert_eq!(added.status, 200, "{}", added.text);
    }
    for (address, amount) in &addresses {
        daemon.wait_complete(address);
        daemon.wait_balance(address, *amount, 0);
    }
    assert_eq!(daemon.get("/status").json["address_count"], 20);
}

#[test]
fn adding_an_address_twice_changes_nothing() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    node.pay(&address, COIN);
    node.mine(1);
    daemon.watch(&address);
    let before = daemon.balance(&address);
    daemon.watch(&address);
    assert_eq!(
        daemon.balance(&address)["confirmed_balance"],
        before["confirmed_balance"]
    );
    assert_eq!(daemon.get("/status").json["address_count"], 1);
}
