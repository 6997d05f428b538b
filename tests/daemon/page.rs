//! The daemon's own page in a real browser: an address is added, and a payment to it appears.

use serde_json::{Value, json};

use crate::common::{COIN, Daemon, Node, Program};

#[test]
fn a_payment_appears_on_the_page() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    node.pay(&address, COIN);
    node.mine(1);

    let mut page = Program::node("page.mjs", &[&daemon.url(), &address]);
    page.line("READY", |line| (line == "READY").then_some(()));
    let txid = node.pay(&address, COIN / 4);
    let seen = page.line("what it saw", |line| serde_json::from_str::<Value>(line).ok().filter(Value::is_object));
    page.ends_well();
    assert_eq!((&seen["network"], &seen["height"], &seen["label"]), (&json!("regtest"), &json!(node.height()), &json!("test")));
    assert_eq!((&seen["before"], &seen["balance"]), (&json!(COIN.to_string()), &json!((COIN + COIN / 4).to_string())));
    assert_eq!((&seen["confirmed"], &seen["unconfirmed"]), (&json!(COIN.to_string()), &json!((COIN / 4).to_string())));
    assert_eq!((&seen["payment"]["txid"], &seen["payment"]["amount"]), (&json!(txid), &json!((COIN / 4).to_string())));
}
