//! What REST says of a wallet, beside what the node says of it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{add, id, of, of_owner, wait_balance, wait_complete};
use crate::common::{COIN, Daemon, Node, wait_until};

/// Outpoints and addresses of a list, whatever it calls them.
fn outputs(list: &Value, txid: &str, vout: &str) -> BTreeSet<String> {
    let all = list.as_array().expect("a list").iter();
    all.map(|it| format!("{}:{} {}", it[txid], it[vout], it["address"]))
        .collect()
}

fn satoshi(amount: &Value) -> i64 {
    (amount.as_f64().expect("a number") * 1e8).round() as i64
}

/// The node's wallet is the measure of the balance and the outputs of ours.
fn agrees(node: &Node, daemon: &Daemon, id: &str) {
    let balances = node.owner("getbalances", json!([]))["mine"].take();
    let theirs = satoshi(&balances["trusted"]) + satoshi(&balances["untrusted_pending"]);
    let balance = of(daemon, id, "/balance");
    assert_eq!(balance["balance"], json!(theirs), "{balance}");
    let unspent = node.owner("listunspent", json!([0, 9_999_999, [], true]));
    let ours = of(daemon, id, "/utxos");
    assert_eq!(
        outputs(&ours["utxos"], "tx_hash", "output_index"),
        outputs(&unspent, "txid", "vout"),
    );
    for utxo in ours["utxos"].as_array().expect("a list") {
        let info = node.owner("getaddressinfo", json!([utxo["address"]]));
        let path = info["hdkeypath"].as_str().expect("a path");
        let keychain = if utxo["keychain"] == "external" { 0 } else { 1 };
        let end = format!("/{keychain}/{}", utxo["index"]);
        assert!(path.ends_with(&end), "{path} {utxo}");
    }
}

/// Pays somebody, with the change in the same descriptor.
fn send(node: &Node, address: &str, bitcoin: f64) -> Value {
    let options = json!({ "change_type": "bech32" });
    let sent = node.owner(
        "send",
        json!([{ address: bitcoin }, null, "unset", null, options]),
    );
    sent["txid"].clone()
}

#[test]
fn a_wallet_with_a_past_is_added_and_followed_as_the_node_follows_it() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    // Before it is added: paid, and some of it spent with change.
    for coins in 1..=3 {
        node.pay(&node.address(), coins * COIN);
    }
    node.mine(1);
    let elsewhere = node.payer("getnewaddress", json!([]));
    let elsewhere = elsewhere.as_str().expect("an address");
    send(&node, elsewhere, 1.5);
    node.mine(1);
    let added = add(
        &daemon,
        &json!({ "descriptor": of_owner(&node), "label": "owner" }),
    );
    let wallet = id(&added);
    assert_eq!(added["coverage"]["pending"], true, "{added}");
    wait_complete(&daemon, &wallet);
    agrees(&node, &daemon, &wallet);
    let audited = daemon.post(&format!("/audit/descriptors/{wallet}"), &json!({}));
    assert_eq!(
        (&audited.json["agrees"], &audited.json["descriptor_id"]),
        (&json!(true), &json!(wallet)),
        "{}",
        audited.text
    );
    let coverage = of(&daemon, &wallet, "")["coverage"].take();
    assert_eq!(coverage["utxos_complete"], true);

    // From now on: an address of ours is one of the wallet, and what is paid there is told.
    let given = daemon.post(&format!("/descriptors/{wallet}/next_address"), &json!({}));
    let address = given.json["address"]
        .as_str()
        .expect("an address")
        .to_owned();
    let info = node.owner("getaddressinfo", json!([address]));
    assert_eq!(info["ismine"], true, "{}", given.text);
    let before = of(&daemon, &wallet, "/balance")["confirmed_balance"].as_i64();
    let before = before.expect("a number");
    node.pay(&address, COIN);
    wait_balance(&daemon, &wallet, before, COIN);
    node.mine(1);
    wait_balance(&daemon, &wallet, before + COIN, 0);
    // A payment of several of its coins with change is one transaction.
    let txid = send(&node, elsewhere, 3.5);
    let paid = || {
        let list = of(&daemon, &wallet, "/transactions");
        let first = list["transactions"][0].clone();
        (first["txid"] == txid).then_some(first)
    };
    let told = wait_until("the payment is told", paid);
    let theirs = node.owner("gettransaction", json!([txid]));
    let net = satoshi(&theirs["amount"]) + satoshi(&theirs["fee"]);
    assert_eq!(told["net"], json!(net), "{told}");
    node.mine(1);
    daemon.wait_tip(&node);
    agrees(&node, &daemon, &wallet);

    // It is all there after a restart, and what was given away is not given again.
    let index = given.json["index"].as_u64().expect("an index");
    daemon.stop();
    daemon.restart();
    agrees(&node, &daemon, &wallet);
    let next = daemon.post(&format!("/descriptors/{wallet}/next_address"), &json!({}));
    assert!(next.json["index"].as_u64() > Some(index), "{}", next.text);
}
