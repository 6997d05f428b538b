//! Addresses that are taken off the list: gone with all that is known of them alone, and as new
//! when they come back.

use serde_json::{Value, json};

use crate::common::{COIN, Client, Daemon, Node, RpcProxy, ledger};
use crate::history::play::{confirmed_of, slow};
use crate::history::{complete, ends, look, open, oracle::Chain, under_way};
use crate::reorg::NEVER;

fn remove(daemon: &Daemon, address: &str) -> Value {
    let answer = daemon.request("DELETE", &format!("/addresses/{address}"), &[], None);
    assert_eq!(
        (answer.status, &answer.json["address"]),
        (200, &json!(address)),
        "{}",
        answer.text
    );
    assert_eq!(
        answer.headers["satwatch-cursor"].to_str().expect("a text"),
        answer.json["cursor"]
    );
    answer.json
}

#[test]
fn a_removed_address_is_forgotten_and_those_that_share_its_transactions_keep_them() {
    let node = Node::start();
    let mut daemon = Daemon::with(&node, &[NEVER]);
    let (gone, stays) = (node.address(), node.address());
    let (leaver, stayer) = (
        Client::subscribed(&daemon, &gone),
        Client::subscribed(&daemon, &stays),
    );
    for address in [&gone, &stays] {
        daemon.wait_complete(address);
    }
    // From the one to the other, confirmed and waiting, and the other way round.
    let first = node.send(&node.payment(&node.coin(5 * COIN), &gone, 4 * COIN));
    let second = node.send(&node.signed(
        &[(first, 0)],
        &[(&stays, 2 * COIN), (&gone, 2 * COIN - 10_000)],
    ));
    node.mine(1);
    let third = node.send(&node.signed(
        &[(second.clone(), 0)],
        &[(&gone, COIN), (&stays, COIN - 10_000)],
    ));
    daemon.wait_balance(&stays, 2 * COIN, -COIN - 10_000);
    daemon.wait_balance(&gone, 2 * COIN - 10_000, COIN);
    let before = daemon.state(&stays);

    let removed = remove(&daemon, &gone);
    let told = leaver.event("unwatched", |data| data["address"] == *gone);
    assert_eq!(
        (&told["cursor"], &told["tip"]["height"]),
        (&removed["cursor"], &json!(node.height()))
    );
    for path in ["balance", "transactions", "utxos", "audit"] {
        let method = if path == "audit" { "POST" } else { "GET" };
        let answer = daemon.request(method, &format!("/{path}/{gone}"), &[], None);
        assert_eq!(
            (answer.status, &answer.json["code"]),
            (404, &json!("not_watched")),
            "{path}: {}",
            answer.text
        );
    }
    let again = daemon.request("DELETE", &format!("/addresses/{gone}"), &[], None);
    assert_eq!(
        (again.status, &again.json["code"]),
        (404, &json!("not_watched")),
        "{}",
        again.text
    );
    assert_eq!(daemon.state(&stays), before, "others keep what they have");
    assert_eq!(
        daemon.get("/status").json["watched_addresses"],
        json!([stays])
    );

    // Nobody hears of it any more, also not after a restart.
    let heard = leaver.all("new_transactions").len();
    node.pay(&gone, COIN);
    node.mine(1);
    stayer.event("transaction_update", |data| {
        data["txid"] == *third && data["status"] == "confirmed"
    });
    assert_eq!(
        (
            leaver.all("new_transactions").len(),
            leaver.all("unwatched").len(),
            stayer.all("unwatched").len()
        ),
        (heard, 1, 0)
    );
    ledger::check(&daemon);
    daemon.stop();
    daemon.restart();
    assert_eq!(
        daemon.get("/status").json["watched_addresses"],
        json!([stays])
    );

    // It comes back as an address that nobody ever heard of, and the reorg of what is shared is
    // right for both.
    let added = daemon.post(
        "/add_address",
        &json!({ "address": gone, "history": { "from_height": 0 } }),
    );
    assert_eq!(added.status, 200, "{}", added.text);
    complete(
        &daemon,
        added.json["scan_id"]
            .as_str()
            .unwrap_or_else(|| panic!("{}", added.text)),
    );
    let right = |daemon: &Daemon| {
        let chain = Chain::of(&node);
        for address in [&gone, &stays] {
            assert_eq!(
                confirmed_of(daemon, address),
                chain.transactions(address, 0, chain.height()),
                "{address}"
            );
            assert_eq!(
                daemon.balance(address)["confirmed_balance"],
                chain.balance(address),
                "{address}"
            );
        }
    };
    right(&daemon);
    let lost = node.rpc("getblockhash", json!([node.height() - 1]));
    node.rpc("invalidateblock", json!([lost]));
    daemon.wait_tip(&node);
    right(&daemon);
    node.mine(1);
    daemon.wait_tip(&node);
    right(&daemon);
    ledger::check(&daemon);
}

#[test]
fn an_address_that_leaves_during_a_scan_holds_nobody_up() {
    let node = Node::start();
    let addresses: Vec<String> = (0..3).map(|_| node.address()).collect();
    for address in &addresses {
        node.pay(address, COIN);
    }
    node.mine(1);
    node.mine_to_nobody(150);
    let proxy = RpcProxy::of(&node);
    let daemon = Daemon::with(&node, &[NEVER, ("bitcoind.rpc_url", &proxy.url())]);
    addresses.iter().for_each(|address| daemon.watch(address));
    slow(&proxy, 40);
    let all = open(&daemon, &addresses, json!({ "from_height": 0 }));
    let alone = open(&daemon, &addresses[..1], json!({ "from_height": 2 }));
    under_way(&daemon, &proxy, &all, 20);
    remove(&daemon, &addresses[0]);
    // Added again, it waits for no scan and none speaks for it.
    let added = daemon.post("/add_address", &json!({ "address": addresses[0] }));
    assert_eq!(added.status, 200, "{}", added.text);
    daemon.wait_complete(&addresses[0]);
    slow(&proxy, 0);
    complete(&daemon, &all);
    ends(&daemon, &all, &addresses[1..]);
    let scan = crate::common::wait_until("a scan of nobody ends", || {
        let scan = look(&daemon, &alone);
        ["complete", "cancelled"]
            .contains(&scan["status"].as_str().expect("a text"))
            .then_some(scan)
    });
    assert_eq!(scan["transactions"], 0, "{scan}");
    let balance = daemon.balance(&addresses[0]);
    assert_eq!(
        (
            &balance["confirmed_balance"],
            &balance["coverage"]["from_height"]
        ),
        (&json!(COIN), &json!(node.height() + 1)),
        "{balance}"
    );
    assert_eq!(
        daemon.get(&format!("/transactions/{}", addresses[0])).json["total"],
        0
    );
    let again = open(&daemon, &addresses[..1], json!({ "from_height": 0 }));
    complete(&daemon, &again);
    let chain = Chain::of(&node);
    for address in &addresses {
        assert_eq!(
            confirmed_of(&daemon, address),
            chain.transactions(address, 0, chain.height()),
            "{address}"
        );
    }
    ledger::check(&daemon);
}
