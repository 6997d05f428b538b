//! What the page shows after it was away, and while something fails: each payment once.

use serde_json::json;

use crate::common::{Daemon, Node, wait_until};
use crate::page_views::{CONNECTED, Page, descriptor, known_wallet, started};

/// A wallet, and an address that it has given away.
fn with_a_wallet() -> (Node, Daemon, String) {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let body = json!({ "descriptor": descriptor(&node), "label": "Shop" });
    daemon.post("/descriptors", &body);
    let id = known_wallet(&daemon);
    let given = daemon.post(&format!("/descriptors/{id}/next_address"), &json!({}));
    let address = given.json["address"].as_str().expect("an address");
    (node, daemon, address.to_owned())
}

fn paid(node: &Node, daemon: &Daemon, address: &str) {
    node.pay(address, 1_000);
    wait_until("the payment is known", || {
        let balance = daemon.get(&format!("/balance/{address}")).json;
        (balance["balance"] == 1_000).then_some(())
    });
}

#[test]
fn a_wallet_that_was_paid_while_the_page_was_away_has_one_row_of_it() {
    let (node, daemon, address) = with_a_wallet();
    let page = Page::open(&daemon);
    page.wait("#list .name", "^Shop$");
    page.wait("#first", "No payment yet");
    page.act(json!({ "do": "open", "text": "about:blank" }));
    paid(&node, &daemon, &address);
    page.act(json!({ "do": "open" }));
    page.wait("#away-text", "^1 thing while you were away$");
    page.wait("#feed .pay .name", "^Shop$");
    assert_eq!(page.count("#feed .pay"), 1);
    page.ends_well();
}

#[test]
fn an_address_on_the_list_that_is_a_wallets_has_one_row_with_the_wallets_name() {
    let (node, daemon, address) = with_a_wallet();
    daemon.watch(&address);
    paid(&node, &daemon, &address);
    let page = Page::open(&daemon);
    for _ in 0..2 {
        page.wait("#feed .pay .whose", "^bcrt1");
        page.wait("#feed .pay .name", "^Shop$");
        assert_eq!(page.count("#feed .pay"), 1);
        assert_eq!(
            page.count("#list li"),
            2,
            "it is on the list by itself, too"
        );
        page.act(json!({ "do": "reload" }));
    }
    page.ends_well();
}

#[test]
fn a_fault_of_the_page_is_no_broken_connection_and_takes_no_other_event_with_it() {
    let (node, daemon, address) = started();
    let other = node.address();
    daemon.watch(&other);
    daemon.wait_complete(&other);
    let page = Page::open(&daemon);
    page.wait("#first", "No payment yet");
    page.run(
        "{ const real = Number.isFinite; Number.isFinite = () => { Number.isFinite = real; throw new Error('a fault'); }; }",
    );
    // Its events come together: those of one address, then those of the other.
    let outputs = json!([{ address: 0.000_01 }, { other: 0.000_01 }]);
    node.payer("send", json!({ "outputs": outputs, "fee_rate": 2 }));
    page.wait("#feed .pay .amount", "0.000.010.00");
    page.wait("#list li:nth-child(1) .sum", "0.000.010.00");
    page.wait("#list li:nth-child(2) .sum", "0.000.010.00");
    page.wait(CONNECTED.0, CONNECTED.1);
    let faults = page.act(json!({ "do": "faults" })).to_string();
    assert!(faults.contains("a fault"), "it is seen: {faults}");
    page.ends_well();
}

#[test]
fn a_browser_that_shows_no_notifications_of_pages_says_so() {
    let (_node, daemon, _) = started();
    let page = Page::open(&daemon);
    page.wait(CONNECTED.0, CONNECTED.1);
    page.run(
        "{ window.Notification = class { static requestPermission = async () => 'granted'; constructor() { throw new TypeError('Illegal constructor'); } }; }",
    );
    page.click("#alerts");
    page.click("#notify");
    page.click("#try-alert");
    page.wait("#alert-note", "^This browser shows no notifications");
    page.ends_well();
}

#[test]
fn while_only_waiting_is_refused_the_list_is_not_read_again() {
    let (node, daemon, address) = started();
    let page = Page::open(&daemon);
    page.wait("#first", "No payment yet");
    page.run(
        "window.refused = window.lists = 0; window.real = window.fetch; window.fetch = (url, how) => { lists += /addresses[?]/.test(url); if (!/wait=[1-9]/.test(url)) return real(url, how); refused += 1; return Promise.resolve(new Response('{\"error\": \"Too many.\"}', { status: 429 })); }; null",
    );
    node.pay(&address, 1_000);
    page.wait("#feed .pay .amount", "0.000.010.00");
    let lists = page.run(
        "new Promise((done) => { const look = setInterval(() => refused > 2 && (clearInterval(look), done(lists)), 50); })",
    );
    assert_eq!(lists, 0);
    page.run("window.fetch = window.real; null");
    node.pay(&address, 2_000);
    page.wait("#feed .pay .amount", "0.000.020.00");
    page.ends_well();
}

#[test]
fn what_the_list_does_not_have_any_more_is_not_counted_twice() {
    let (_node, daemon, _) = started();
    let page = Page::open(&daemon);
    page.wait("#first", "No payment yet");
    let total = page.run(
        "Promise.all(['state', 'sync'].map((name) => import(`/${name}.js`))).then(([state, sync]) => { state.put('address', 'a', {}); state.put('address', 'b', {}); return sync.relist().then(() => state.state.total); })",
    );
    assert_eq!(total, 1);
    page.ends_well();
}

#[test]
fn a_link_that_cannot_be_read_leaves_the_page_alive() {
    let (_node, daemon, address) = started();
    let page = Page::open(&daemon);
    let url = format!("{}/?again#/address/%", daemon.url());
    page.act(json!({ "do": "open", "text": url }));
    page.wait(CONNECTED.0, CONNECTED.1);
    page.go(&format!("#/address/{address}"));
    page.wait("#detail-title", "^Order 1042$");
    page.ends_well();
}
