//! Descriptors over Socket.IO.

use serde_json::json;

use super::{add, id, of_owner, wait_complete};
use crate::common::{COIN, Client, Daemon, Node, Program};

#[test]
fn a_client_that_brings_its_descriptor_hears_of_the_wallet_and_after_a_break_of_what_it_missed() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let client = Client::connect(&daemon);
    let body = json!({ "descriptor": of_owner(&node), "confirmations": [2] });
    let subscribed = client.ask("subscribe_descriptor", &body);
    let wallet = id(&subscribed);
    wait_complete(&daemon, &wallet);
    let address = node.address();
    let txid = node.pay(&address, COIN);
    let seen = client.event("new_transactions", |data| data["descriptor_id"] == *wallet);
    assert_eq!(seen["transactions"][0]["txid"], json!(txid));
    let change = client.event("balance_change", |data| data["new_balance"] == COIN);
    assert_eq!(change["address"], json!(null), "{change}");
    let cursor = change["cursor"].clone();
    drop(client);
    node.mine(2);
    let other = Client::connect(&daemon);
    let body = json!({ "descriptor_id": wallet, "after": cursor });
    other.ask("subscribe_descriptor", &body);
    other.event("transaction_update", |data| data["confirmations"] == 2);
    let all = other.all("transaction_update");
    let depths: Vec<_> = all.iter().map(|it| it["confirmations"].clone()).collect();
    assert_eq!(depths, [json!(1), json!(2)]);
    other.event("caught_up", |data| data["descriptor_id"] == *wallet);
}

#[test]
fn who_listens_to_a_removed_descriptor_is_told() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let added = add(
        &daemon,
        &json!({ "descriptor": of_owner(&node), "history": "none" }),
    );
    let wallet = id(&added);
    let client = Client::connect(&daemon);
    client.ask("subscribe_descriptor", &json!({ "descriptor_id": wallet }));
    let removed = daemon.request("DELETE", &format!("/descriptors/{wallet}"), &[], None);
    assert_eq!(removed.status, 200, "{}", removed.text);
    let told = client.event("unwatched", |data| data["descriptor_id"] == *wallet);
    assert_eq!(told["cursor"], removed.json["cursor"]);
}

#[test]
fn the_example_clients_take_a_wallet_beside_an_address() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let (descriptor, url) = (of_owner(&node), daemon.url());
    let other = node.payer("getnewaddress", json!([]));
    let other = other.as_str().expect("an address");
    let wallet = id(&add(&daemon, &json!({ "descriptor": descriptor })));
    let clients = [
        Program::node("../../contrib/js/watch.js", &[&url, other, &descriptor]),
        Program::python("../../contrib/python/watch.py", &[&url, &wallet, other]),
    ];
    for client in &clients {
        client.event("subscribed", |data| data["descriptor_id"] == *wallet);
        client.event("subscribed", |data| data["addresses"] == json!([other]));
    }
    node.pay(&node.address(), COIN);
    node.pay(other, COIN);
    for client in &clients {
        client.event("balance_change", |data| {
            data["descriptor_id"] == *wallet && data["new_balance"] == COIN
        });
        client.event("balance_change", |data| data["address"] == *other);
    }
}
