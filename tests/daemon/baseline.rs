//! The confirmed balance of an address that was used before it was added: whatever comes in its
//! way, it is found, and until then the answers say that it is not.

use std::time::Duration;

use serde_json::{Value, json};

use satwatch::remedy::Remedy;

use crate::common::oracle::{self, Balances};
use crate::common::rpc_proxy::Mood;
use crate::common::{COIN, Client, Daemon, Node, RpcProxy, ledger, wait_until};

/// What a node says that makes such a scan for somebody else.
pub const SOMEBODY_ELSE: Mood = Mood::Answer(
    500,
    r#"{"result":null,"error":{"code":-8,"message":"Scan already in progress, use action \"abort\" or \"status\""},"id":0}"#,
);

/// Field order is drop order.
struct Stage {
    daemon: Daemon,
    proxy: RpcProxy,
    node: Node,
}

impl Stage {
    fn begin() -> Self {
        let node = Node::start();
        let proxy = RpcProxy::of(&node);
        let daemon = Daemon::with(
            &node,
            &[
                ("monitor.reconcile_interval", "1"),
                ("bitcoind.rpc_url", &proxy.url()),
            ],
        );
        Self {
            daemon,
            proxy,
            node,
        }
    }

    /// An address that was paid `satoshi` and keeps one of three payments.
    fn used(&self, satoshi: i64) -> String {
        let address = self.node.address();
        for _ in 0..2 {
            let paid = self.node.send(&self.node.payment(
                &self.node.coin(satoshi + COIN),
                &address,
                satoshi,
            ));
            self.node.mine(1);
            self.node.send(
                &self
                    .node
                    .signed(&[(paid, 0)], &[(&self.node.address(), satoshi - 10_000)]),
            );
            self.node.mine(1);
        }
        self.node.pay(&address, satoshi);
        self.node.mine(1);
        self.daemon.wait_tip(&self.node);
        address
    }

    fn add(&self, address: &str) -> Value {
        let added = self
            .daemon
            .post("/add_address", &json!({ "address": address }));
        assert_eq!(added.status, 200, "{}", added.text);
        added.json
    }

    /// Every answer about the address says that its past is not known yet.
    fn is_pending(&self, address: &str) {
        let balance = self.daemon.balance(address);
        let listed = self.daemon.get("/addresses").json;
        let row = listed["addresses"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|row| row["address"] == *address)
            .cloned();
        for coverage in [
            &balance["coverage"],
            &row.expect("it is listed")["coverage"],
        ] {
            let said = ["pending", "complete", "utxos_complete"].map(|name| coverage[name].clone());
            assert_eq!(
                said,
                [json!(true), json!(false), json!(false)],
                "{balance} {listed}"
            );
        }
    }

    fn agrees(&self, address: &str, right: Balances) {
        self.daemon.wait_complete(address);
        self.daemon
            .wait_balance(address, right.confirmed, right.unconfirmed);
        self.daemon.wait_tip(&self.node);
        assert_eq!(oracle::balances(&self.node, address), right);
    }
}

fn confirmed(satoshi: i64) -> Balances {
    Balances {
        confirmed: satoshi,
        unconfirmed: 0,
    }
}

#[test]
fn a_scan_of_somebody_else_is_waited_for_and_the_balance_comes_with_its_cause() {
    let stage = Stage::begin();
    let address = stage.used(3 * COIN);
    stage.proxy.set_for("scantxoutset", SOMEBODY_ELSE);
    let client = Client::subscribed(&stage.daemon, &address);
    let subscribed = client.event("subscribed", |_| true);
    assert_eq!(
        (
            &subscribed["balance"]["coverage"]["pending"],
            &subscribed["balance"]["balance"]
        ),
        (&json!(true), &json!(0)),
        "{subscribed}"
    );
    wait_until("it has asked", || {
        stage.proxy.calls().get("scantxoutset").map(drop)
    });
    stage.is_pending(&address);
    // What is seen meanwhile counts, and is told as it comes.
    let txid = stage.node.pay(&address, COIN);
    client.event("new_transactions", |data| {
        data["transactions"][0]["txid"] == *txid
    });
    stage.is_pending(&address);
    stage.node.mine(1);
    client.event("transaction_update", |data| data["status"] == "confirmed");
    stage.is_pending(&address);
    stage.proxy.set(Mood::Pass);
    stage.agrees(&address, confirmed(4 * COIN));
    let change = client.event("balance_change", |data| data["cause"]["kind"] == "baseline");
    assert_eq!(
        (&change["old_balance"], &change["new_balance"]),
        (&json!(COIN), &json!(4 * COIN)),
        "{change}"
    );
    assert_eq!(change["confirmed_balance"], 4 * COIN);
    assert_eq!(
        client
            .all("balance_change")
            .iter()
            .filter(|data| data["cause"]["kind"] == "baseline")
            .count(),
        1
    );
    ledger::check(&stage.daemon);
}

/// The node's answer is of a block that is not its tip any more when it comes.
#[test]
fn blocks_that_come_between_the_scan_and_its_merging_are_counted() {
    let stage = Stage::begin();
    let (spent, paid, passed_on) = (stage.used(COIN), stage.used(2 * COIN), stage.used(3 * COIN));
    let all = [&spent, &paid, &passed_on];
    let coin = |address: &str| {
        let unspent = stage
            .node
            .owner("listunspent", json!([0, 9_999_999, [address]]));
        (
            unspent[0]["txid"].as_str().expect("it has one").to_owned(),
            unspent[0]["vout"].as_u64().expect("a number"),
        )
    };
    let coins = [coin(&spent), coin(&passed_on)];
    stage
        .proxy
        .set_for("scantxoutset", Mood::Late(Duration::from_secs(1)));
    let added = stage
        .daemon
        .post("/add_addresses", &json!({ "addresses": all }));
    assert_eq!(added.status, 200, "{}", added.text);
    wait_until("the proxy has the answer of now", || {
        stage.proxy.answers().get("scantxoutset").map(drop)
    });
    stage.node.send(
        &stage
            .node
            .signed(&coins[..1], &[(&stage.node.address(), COIN - 10_000)]),
    );
    let onward = stage.node.send(
        &stage
            .node
            .signed(&coins[1..], &[(&paid, 3 * COIN - 10_000)]),
    );
    stage.node.mine(1);
    stage.node.send(
        &stage
            .node
            .signed(&[(onward, 0)], &[(&passed_on, 3 * COIN - 20_000)]),
    );
    stage.node.mine(1);
    let waiting = stage.node.pay(&paid, 5 * COIN);
    stage.agrees(&spent, confirmed(0));
    stage.agrees(
        &paid,
        Balances {
            confirmed: 2 * COIN,
            unconfirmed: 5 * COIN,
        },
    );
    stage.agrees(&passed_on, confirmed(3 * COIN - 20_000));
    assert_eq!(
        stage.daemon.get(&format!("/transactions/{paid}")).json["transactions"][0]["txid"],
        *waiting
    );
    ledger::check(&stage.daemon);
}

#[test]
fn what_is_not_found_yet_is_looked_for_after_a_restart_of_daemon_or_node() {
    let mut stage = Stage::begin();
    let (first, second, third) = (stage.used(COIN), stage.used(2 * COIN), stage.used(3 * COIN));
    stage.proxy.set_for("scantxoutset", SOMEBODY_ELSE);
    stage.add(&first);
    stage.is_pending(&first);
    stage.daemon.stop();
    stage.daemon.restart();
    stage.is_pending(&first);
    stage.add(&second);
    stage.daemon.kill();
    stage.daemon.restart();
    for address in [&first, &second] {
        stage.is_pending(address);
    }
    stage.node.stop();
    wait_until("the node is missed", || {
        (stage.daemon.get("/health/ready").status == 503).then_some(())
    });
    stage.add(&third);
    stage.is_pending(&third);
    stage.proxy.set(Mood::Pass);
    stage.node.restart();
    for (address, right) in [(&first, COIN), (&second, 2 * COIN), (&third, 3 * COIN)] {
        stage.agrees(address, confirmed(right));
    }
    ledger::check(&stage.daemon);
}

#[test]
fn a_daemon_that_stops_ends_the_scan_that_its_node_makes_for_it() {
    let mut stage = Stage::begin();
    let address = stage.used(COIN);
    stage
        .proxy
        .set_for("scantxoutset", Mood::Late(Duration::from_secs(3)));
    stage.add(&address);
    let asked = |stage: &Stage| {
        stage
            .proxy
            .calls()
            .get("scantxoutset")
            .copied()
            .unwrap_or(0)
    };
    wait_until("the scan is asked for", || {
        (asked(&stage) == 1).then_some(())
    });
    stage.daemon.stop();
    assert_eq!(asked(&stage), 2, "start, abort");
    stage.proxy.set(Mood::Pass);
    stage.daemon.restart();
    stage.agrees(&address, confirmed(COIN));
}

/// While monitoring is stopped nothing changes, also not this.
#[test]
fn an_address_that_is_added_while_monitoring_is_stopped_is_right_after_the_start() {
    let stage = Stage::begin();
    let address = stage.used(COIN);
    assert_eq!(stage.daemon.request("POST", "/stop", &[], None).status, 200);
    stage.add(&address);
    stage.node.pay(&address, COIN);
    stage.node.mine(1);
    stage.node.pay(&address, COIN);
    stage.is_pending(&address);
    assert_eq!(
        stage.proxy.calls().get("scantxoutset"),
        None,
        "the node is not asked either"
    );
    assert_eq!(
        stage.daemon.request("POST", "/start", &[], None).status,
        200
    );
    stage.agrees(
        &address,
        Balances {
            confirmed: 2 * COIN,
            unconfirmed: COIN,
        },
    );
    ledger::check(&stage.daemon);
}

#[test]
fn an_address_whose_outputs_are_too_many_is_named_and_holds_up_no_other() {
    let stage = Stage::begin();
    let (address, other) = (stage.used(3 * COIN), stage.used(COIN));
    let advice = Remedy::WatchFromNow.to_string();
    let notes = || {
        let status = stage.daemon.get("/status").json;
        let notes = status["node"]["notes"].as_array().expect("a list").clone();
        let named = notes.into_iter().filter(|note| note["remedy"] == *advice);
        named
            .map(|note| note["what"].to_string())
            .collect::<Vec<_>>()
    };
    let remove = || {
        let path = format!("/addresses/{address}");
        let removed = stage.daemon.request("DELETE", &path, &[], None);
        assert_eq!(removed.status, 200, "{}", removed.text);
    };
    stage.proxy.set_for("scantxoutset", Mood::Begun(2 << 30));
    stage.add(&address);
    let named = wait_until("it is named", || Some(notes()).filter(|it| !it.is_empty()));
    assert!(named.len() == 1 && named[0].contains(&address), "{named:?}");
    stage.is_pending(&address);
    stage.proxy.set_for("scantxoutset", Mood::Pass);
    stage.add(&other);
    stage.agrees(&other, confirmed(COIN));
    stage.is_pending(&address);

    // As it is advised.
    remove();
    let path = "/add_address";
    let body = json!({ "address": address, "history": "none" });
    let added = stage.daemon.post(path, &body).json;
    assert_eq!(added["coverage"]["pending"], false, "{added}");
    // And once the node can tell it.
    remove();
    stage.add(&address);
    stage.agrees(&address, confirmed(3 * COIN));
    assert_eq!(notes(), [""; 0]);
}

#[test]
fn a_wallet_goes_on_without_an_address_whose_outputs_are_too_many() {
    let stage = Stage::begin();
    let address = stage.used(3 * COIN);
    let info = stage.node.owner("getaddressinfo", json!([address]));
    let body = json!({ "descriptor": info["desc"] });
    stage.proxy.set_for("scantxoutset", Mood::Begun(2 << 30));
    let added = stage.daemon.post("/descriptors", &body);
    assert_eq!(added.status, 201, "{}", added.text);
    let id = added.json["descriptor_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let path = format!("/descriptors/{id}");
    let coverage = || stage.daemon.get(&path).json["coverage"].clone();
    let left_out = wait_until("it goes on", || {
        Some(coverage()).filter(|coverage| coverage["pending"] == false)
    });
    let said = ["complete", "utxos_complete"].map(|name| left_out[name].clone());
    assert_eq!(said, [json!(false), json!(false)], "{left_out}");
    let advice = Remedy::WatchDescriptorFromNow {
        descriptor: id.clone(),
    };
    let advice = advice.to_string();
    let note = left_out["note"].as_str().expect("what to do");
    assert!(
        note.contains("external/0") && note.contains(&advice),
        "{note}"
    );
    let notes = || {
        let status = stage.daemon.get("/status").json;
        let notes = status["node"]["notes"].as_array().expect("a list").clone();
        notes
            .iter()
            .filter(|note| note["remedy"] == *advice)
            .count()
    };
    assert_eq!(notes(), 1);
    let balance = || stage.daemon.get(&format!("{path}/balance")).json["balance"].clone();
    assert_eq!(balance(), 0);
    stage.node.pay(&address, COIN);
    wait_until("it counts from now on", || {
        (balance() == COIN).then_some(())
    });

    // As it is advised.
    let remove = || {
        let removed = stage.daemon.request("DELETE", &path, &[], None);
        assert_eq!(removed.status, 200, "{}", removed.text);
    };
    remove();
    let mut from_now = body.clone();
    from_now["history"] = json!("none");
    let again = stage.daemon.post("/descriptors", &from_now);
    assert_eq!(again.status, 201, "{}", again.text);
    let shown = coverage();
    assert_eq!(
        (&shown["pending"], shown.get("note")),
        (&json!(false), None)
    );
    // And once the node can tell it.
    remove();
    stage.proxy.set_for("scantxoutset", Mood::Pass);
    assert_eq!(stage.daemon.post("/descriptors", &body).status, 201);
    wait_until("it is whole", || {
        (coverage()["complete"] == true).then_some(())
    });
    assert_eq!(balance(), 4 * COIN);
    assert_eq!(notes(), 0);
}
