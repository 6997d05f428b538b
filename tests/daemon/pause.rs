//! `POST /start` and `POST /stop`: while stopped nothing changes; the start catches up, in order
//! and with events; both are remembered.

use serde_json::{Value, json};

use crate::common::oracle::{self, Balances};
use crate::common::rpc_proxy::Mood;
use crate::common::{COIN, Client, Daemon, Node, RpcProxy, ledger, wait_until};

fn switch(daemon: &Daemon, path: &str) {
    let answer = daemon.request("POST", path, &[], None);
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(is_on(daemon), path == "/start", "{}", answer.text);
}

fn agrees(daemon: &Daemon, node: &Node, address: &str) -> Balances {
    daemon.wait_tip(node);
    let right = oracle::balances(node, address);
    daemon.wait_balance(address, right.confirmed, right.unconfirmed);
    daemon.wait_ready();
    right
}

fn is_on(daemon: &Daemon) -> bool {
    daemon.get("/status").json["realtime_monitoring"] == true
}

/// A payment that is confirmed, one that is replaced, one that a block conflicts with, one that is
/// reorganized away and back.
#[test]
fn all_that_happened_while_it_was_stopped_is_told_in_order() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);
    daemon.wait_complete(&address);
    let reorganized = node.pay(&address, COIN);
    let block = node.mine(1).remove(0);
    let replaced = node.pay(&address, 2 * COIN);
    let coin = node.coin(3 * COIN);
    let conflicted = node.send(&node.signed(
        std::slice::from_ref(&coin.outpoint),
        &[(&address, coin.satoshi - 1_000)],
    ));
    let unconfirmed = 2 * COIN + coin.satoshi - 1_000;
    daemon.wait_balance(&address, COIN, unconfirmed);
    client.event("balance_change", |data| {
        data["new_balance"] == COIN + unconfirmed
    });
    let seen = client.all("balance_change").len();
    switch(&daemon, "/stop");

    node.rpc("invalidateblock", json!([block]));
    let successor = node.payer("bumpfee", json!([replaced]))["txid"]
        .as_str()
        .expect("text")
        .to_owned();
    let other = node.signed(&[coin.outpoint], &[(&node.address(), coin.satoshi - 1_000)]);
    node.mine_only(&[&reorganized, &other]);
    node.mine_only(&[]);
    let waiting = node.pay(&address, 4 * COIN);
    let status = daemon.get("/status").json;
    assert_eq!(
        (&status["is_running"], &status["following"]),
        (&json!(false), &json!(false))
    );
    assert!(
        status["not_following_because"]
            .as_str()
            .is_some_and(|why| why.contains("POST /start")),
        "{status}"
    );
    assert_eq!(
        status["service_available"], true,
        "the node is there all the same: {status}"
    );
    assert_eq!(
        client.all("balance_change").len(),
        seen,
        "nothing is told while it is stopped"
    );
    let ready = daemon.get("/health/ready");
    assert!(
        ready.status == 503 && ready.text.contains("POST /start"),
        "{}",
        ready.text
    );

    switch(&daemon, "/start");
    client.event("new_transactions", |data| {
        data["transactions"][0]["txid"] == *waiting
    });
    let update = client.event("transaction_update", |data| {
        data["txid"] == *replaced && data["status"] == "replaced"
    });
    assert_eq!(update["replaced_by"], *successor);
    let end = client.event("transaction_update", |data| {
        data["txid"] == *conflicted && data["status"] == "conflicted"
    });
    assert_eq!(end["previous_status"], "mempool");
    assert_eq!(
        agrees(&daemon, &node, &address),
        Balances {
            confirmed: COIN,
            unconfirmed: 6 * COIN
        }
    );
    let history = daemon.get(&format!("/transactions/{address}")).json;
    let status_of = |txid: &str| {
        let list = history["transactions"].as_array().expect("a list");
        list.iter()
            .find(|transaction| transaction["txid"] == *txid)
            .map(|transaction| transaction["status"].clone())
    };
    assert_eq!(
        (status_of(&reorganized), status_of(&successor)),
        (Some(json!("confirmed")), Some(json!("mempool")))
    );

    // What the client heard is the log, in its order.
    let events = ledger::check(&daemon);
    let logged: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "balance_change")
        .map(|event| event["data"]["cursor"].clone())
        .collect();
    wait_until("all is heard", || {
        (client.all("balance_change").len() == logged.len()).then_some(())
    });
    let heard: Vec<_> = client
        .all("balance_change")
        .iter()
        .map(|data| data["cursor"].clone())
        .collect();
    assert_eq!(heard, logged);
}

#[test]
fn what_was_answered_is_remembered_even_by_a_daemon_that_is_killed() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let address = node.address();
    daemon.watch(&address);
    for _ in 0..2 {
        switch(&daemon, "/stop");
        daemon.kill();
        daemon.launch_again();
        assert!(!is_on(&daemon));
    }
    node.pay(&address, COIN);
    node.mine(1);
    for _ in 0..2 {
        switch(&daemon, "/start");
        daemon.kill();
        daemon.launch_again();
        assert!(is_on(&daemon));
    }
    agrees(&daemon, &node, &address);
    ledger::check(&daemon);
}

#[test]
fn without_autostart_it_waits_for_the_start_and_what_a_person_said_wins_later() {
    let node = Node::start();
    let mut daemon = Daemon::launched(&node, &[("monitor.autostart", "false")]);
    assert!(!is_on(&daemon));
    let address = node.address();
    let added = daemon.post("/add_address", &json!({ "address": address }));
    assert_eq!(added.status, 200, "{}", added.text);
    node.pay(&address, COIN);
    node.mine(1);
    assert_eq!(
        daemon.get("/status").json["tip"],
        Value::Null,
        "nothing was ever followed"
    );
    switch(&daemon, "/start");
    daemon.wait_complete(&address);
    agrees(&daemon, &node, &address);
    daemon.stop();
    daemon.launch_again();
    assert!(is_on(&daemon), "the setting is for the first start only");
    agrees(&daemon, &node, &address);
    ledger::check(&daemon);
}

#[test]
fn an_address_added_while_stopped_says_that_its_balance_is_not_whole() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let (known, address) = (node.address(), node.address());
    daemon.watch(&known);
    node.pay(&address, COIN);
    node.mine(1);
    daemon.wait_tip(&node);
    switch(&daemon, "/stop");
    node.pay(&address, 2 * COIN);
    node.mine(3);
    node.pay(&address, 4 * COIN);
    let added = daemon.post("/add_address", &json!({ "address": address }));
    assert_eq!(added.status, 200, "{}", added.text);
    assert_eq!(added.json["coverage"]["complete"], false, "{}", added.text);
    let balance = daemon.balance(&address);
    assert_eq!(
        (&balance["balance"], &balance["coverage"]["complete"]),
        (&json!(0), &json!(false)),
        "{balance}"
    );
    let client = Client::subscribed(&daemon, &address);
    switch(&daemon, "/start");
    daemon.wait_complete(&address);
    assert_eq!(
        agrees(&daemon, &node, &address),
        Balances {
            confirmed: 3 * COIN,
            unconfirmed: 4 * COIN
        }
    );
    client.event("balance_change", |data| data["new_balance"] == 7 * COIN);
    agrees(&daemon, &node, &known);
    ledger::check(&daemon);
}

/// Blocks come one call at a time and slowly, so that each stop falls into the middle of the work.
#[test]
fn a_catch_up_that_is_stopped_and_started_again_and_again_ends_right() {
    let node = Node::start();
    let proxy = RpcProxy::of(&node);
    let daemon = Daemon::with(&node, &[("bitcoind.rpc_url", &proxy.url())]);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);
    daemon.wait_complete(&address);
    switch(&daemon, "/stop");
    for _ in 0..30 {
        node.pay(&address, COIN / 10);
        node.mine(1);
    }
    let height = |daemon: &Daemon| {
        daemon.get("/status").json["tip"]["height"]
            .as_i64()
            .expect("a height")
    };
    let begin = height(&daemon);
    proxy.set_for("rest", Mood::Slow(std::time::Duration::from_millis(100)));
    for round in 1..=4 {
        switch(&daemon, "/start");
        wait_until("some blocks are caught up", || {
            (height(&daemon) >= begin + 4 * round).then_some(())
        });
        switch(&daemon, "/stop");
    }
    assert!(height(&daemon) < node.height(), "it was stopped on the way");
    switch(&daemon, "/start");
    agrees(&daemon, &node, &address);
    ledger::check(&daemon);
    let announced: Vec<_> = client
        .all("new_transactions")
        .iter()
        .map(|data| data["count"].clone())
        .collect();
    assert_eq!(announced.iter().filter_map(Value::as_u64).sum::<u64>(), 30);
}
