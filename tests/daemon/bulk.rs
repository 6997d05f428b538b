//! Very many addresses at once, and fewer again.

use std::collections::{BTreeMap, HashSet};

use bitcoin::hashes::Hash;
use bitcoin::{Address, Network, PubkeyHash};
use serde_json::{Value, json};

use crate::common::node::bitcoin;
use crate::common::{COIN, Daemon, Node, ledger, wait_until};
use crate::history::play::confirmed_of;
use crate::history::{complete, open, oracle::Chain};
use crate::reorg::NEVER;

const COUNT: usize = 20_000;

fn stranger(number: usize) -> String {
    Address::p2pkh(PubkeyHash::hash(&number.to_le_bytes()), Network::Regtest).to_string()
}

/// All pages of `GET /addresses`.
fn pages(daemon: &Daemon) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = daemon.get(&format!("/addresses?limit=1000{after}"));
        assert_eq!(page.status, 200, "{}", page.text);
        for row in page.json["addresses"].as_array().expect("a list") {
            let known = all.insert(
                row["address"].as_str().expect("a text").to_owned(),
                row.clone(),
            );
            assert!(known.is_none(), "listed once: {row}");
        }
        match page.json["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

fn count(daemon: &Daemon) -> Value {
    daemon.get("/status").json["address_count"].clone()
}

#[test]
fn twenty_thousand_addresses_are_added_in_two_calls_and_are_all_right() {
    let node = Node::start();
    // In each half some that had something: paid twice, and one payment spent.
    let owned: Vec<String> = (0..40).map(|_| node.address()).collect();
    for round in 1..=2 {
        let amounts: serde_json::Map<_, _> = owned
            .iter()
            .enumerate()
            .map(|(n, address)| (address.clone(), json!(bitcoin(round * 100_000 + n as i64))))
            .collect();
        node.payer("sendmany", json!(["", amounts]));
        node.mine(1);
    }
    let spent = node.owner("listunspent", json!([0, 9_999_999, [owned[0], owned[39]]]));
    let older = spent
        .as_array()
        .expect("a list")
        .iter()
        .filter(|coin| coin["amount"].as_f64() < Some(0.002));
    let name = |coin: &Value| {
        (
            coin["txid"].as_str().expect("a text").to_owned(),
            coin["vout"].as_u64().expect("a number"),
        )
    };
    let coins: Vec<_> = older.map(name).collect();
    node.send(&node.signed(&coins, &[(&node.address(), 150_000)]));
    node.mine(1);
    let daemon = Daemon::with(&node, &[NEVER]);
    let all: Vec<String> = (0..COUNT)
        .map(|n| {
            if n % 500 == 7 {
                owned[n / 500].clone()
            } else {
                stranger(n)
            }
        })
        .collect();
    for half in all.chunks(10_000) {
        let labelled: Vec<Value> =
            half.iter().map(|address| json!({ "address": address, "label": format!("of {}", &address[address.len() - 6..]) })).collect();
        let added = daemon.post("/add_addresses", &json!({ "addresses": labelled }));
        assert_eq!(
            added.status,
            200,
            "{}",
            added.text.chars().take(500).collect::<String>()
        );
    }
    assert_eq!(count(&daemon), COUNT);
    let listed = wait_until("all balances are found", || {
        let listed = pages(&daemon);
        listed
            .values()
            .all(|row| row["coverage"]["complete"] == true)
            .then_some(listed)
    });
    assert_eq!(listed.keys().collect::<HashSet<_>>(), all.iter().collect());
    for (address, row) in &listed {
        assert_eq!(
            row["label"],
            format!("of {}", &address[address.len() - 6..]),
            "{row}"
        );
    }
    let chain = Chain::of(&node);
    let is_right = |address: &String| {
        let balance = daemon.balance(address);
        assert_eq!(
            (
                &balance["confirmed_balance"],
                &balance["coverage"]["complete"]
            ),
            (&json!(chain.balance(address)), &json!(true)),
            "{address}"
        );
    };
    owned.iter().chain(&all[..50]).for_each(is_right);

    // Ten are taken away again, owners and strangers; all others stay.
    let removed: Vec<String> = owned[..5].iter().chain(&all[100..105]).cloned().collect();
    for address in &removed {
        let answer = daemon.request("DELETE", &format!("/addresses/{address}"), &[], None);
        assert_eq!(
            (answer.status, &answer.json["address"]),
            (200, &json!(address)),
            "{}",
            answer.text
        );
        for path in ["balance", "transactions", "utxos"] {
            assert_eq!(
                daemon.get(&format!("/{path}/{address}")).status,
                404,
                "{path}"
            );
        }
    }
    assert_eq!(count(&daemon), COUNT - removed.len());
    assert_eq!(
        daemon.get("/status").json["total_utxos"],
        2 * 35 - 1,
        "one of those that stay has spent"
    );
    owned[5..].iter().for_each(is_right);
    assert_eq!(pages(&daemon).len(), COUNT - removed.len());
    let id = {
        let added = daemon.post(
            "/add_addresses",
            &json!({ "addresses": removed, "history": { "from_height": 0 } }),
        );
        assert_eq!(added.status, 200, "{}", added.text);
        added.json["scan_id"]
            .as_str()
            .unwrap_or_else(|| panic!("{}", added.text))
            .to_owned()
    };
    complete(&daemon, &id);
    for address in &removed {
        is_right(address);
        assert_eq!(
            confirmed_of(&daemon, address),
            chain.transactions(address, 0, chain.height()),
            "{address}"
        );
    }
    assert_eq!(count(&daemon), COUNT);

    // One job of ten thousand, strangers with it.
    let id = open(&daemon, &all[..10_000], json!({ "from_height": 0 }));
    let scan = complete(&daemon, &id);
    assert_eq!(scan["address_count"], 10_000);
    for address in &owned[..20] {
        assert_eq!(
            confirmed_of(&daemon, address),
            chain.transactions(address, 0, chain.height()),
            "{address}"
        );
    }
    node.pay(&owned[3], COIN);
    node.mine(1);
    daemon.wait_balance(&owned[3], chain.balance(&owned[3]) + COIN, 0);
    ledger::check(&daemon);
}
