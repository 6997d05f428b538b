//! The modules of contrib/ when something of what they ask is refused.

use std::fs;

use serde_json::{Value, json};

use super::modules::start;
use crate::common::node::free_port;
use crate::common::{COIN, Daemon, Node, Program};

const WATCH: [&str; 2] = ["../../contrib/js/watch.js", "../../contrib/python/watch.py"];
const CONSUME: [&str; 2] = [
    "../../contrib/js/consumer.js",
    "../../contrib/python/consumer.py",
];

/// What a program has printed as JSON, in order.
fn printed(program: &Program) -> Vec<Value> {
    let lines = program.lines();
    lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn cursors(program: &Program) -> Vec<Value> {
    let printed = printed(program);
    printed
        .iter()
        .map(|event| event["data"]["cursor"].clone())
        .collect()
}

fn count(pretended: &Program, event: &str) -> usize {
    printed(pretended)
        .iter()
        .filter(|asked| asked["event"] == event)
        .count()
}

/// A daemon that refuses each of some requests once.
fn pretended() -> (Program, String) {
    let port = free_port();
    let daemon = Program::python("pretended.py", &[&port.to_string()]);
    (daemon, format!("http://127.0.0.1:{port}/"))
}

#[test]
fn a_wallet_that_is_gone_ends_a_client_that_comes_back_with_its_cursor() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let all = node.owner("listdescriptors", json!([]));
    let all = all["descriptors"].as_array().expect("a list");
    let wallet = all
        .iter()
        .find_map(|it| it["desc"].as_str().filter(|it| it.starts_with("wpkh(")));
    let added = daemon.post("/descriptors", &json!({ "descriptor": wallet }));
    let id = added.json["descriptor_id"].as_str().expect("it is added");
    let (address, url) = (node.address(), daemon.url());
    let begin = || {
        WATCH.map(|script| {
            let name = script.rsplit('/').next().expect("a name");
            let file = folder.path().join(name).display().to_string();
            start(script, &[("CURSOR_FILE", &file)], &[&url, &address, id])
        })
    };
    let mut clients = begin();
    for client in &clients {
        client.event("subscribed", |data| data["descriptor_id"] == id);
        client.event("subscribed", |data| data["addresses"][0] == *address);
    }
    node.pay(&address, COIN);
    for client in &mut clients {
        client.event("balance_change", |data| data["address"] == *address);
    }
    // The next event says that the work with the last one is done.
    node.pay(&address, COIN);
    for client in &mut clients {
        client.event("balance_change", |data| data["new_balance"] == 2 * COIN);
        client.kill();
    }
    let gone = daemon.request("DELETE", &format!("/descriptors/{id}"), &[], None);
    assert_eq!(gone.status, 200, "{}", gone.text);
    for mut client in begin() {
        let said = client.ends(1);
        assert!(said.contains("no descriptor with this id"), "{said}");
    }
}

#[test]
fn what_is_refused_for_now_is_asked_again_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let started = WATCH.map(|script| {
        let name = script.rsplit('/').next().expect("a name");
        let file = folder.path().join(name);
        let wallet = "a".repeat(64);
        let places = json!({"addresses": "p-0", wallet.as_str(): "p-0"});
        fs::write(&file, places.to_string()).expect("the folder is ours");
        let (daemon, url) = pretended();
        let environment = [("CURSOR_FILE", &*file.display().to_string())];
        let client = start(script, &environment, &[&url, "address", &wallet]);
        (script, daemon, client)
    });
    for (script, daemon, client) in started {
        daemon.event("subscribe_addresses", |data| data["after"] == "p-0");
        client.event("label_change", |data| data["cursor"] == "p-3");
        assert_eq!(cursors(&client), ["p-1", "p-2", "p-1", "p-3"], "{script}");
        let asked = ["subscribe_addresses", "subscribe_descriptor"];
        let counts = asked.map(|event| count(&daemon, event));
        assert_eq!(counts, [1, 2], "{script}");
    }
}

#[test]
fn an_acknowledgement_is_given_again_and_nothing_is_taken_between_two_readings() {
    let started = CONSUME.map(|script| {
        let (daemon, url) = pretended();
        let client = start(script, &[], &[&url, "shop", "address"]);
        (script, daemon, client)
    });
    for (script, daemon, client) in started {
        // Before the third reading the daemon has ended the connection.
        for last in ["p-13", "p-23", "p-33"] {
            daemon.event("ack", |data| data["cursor"] == last);
        }
        let names = |numbers: &[u8]| -> Vec<String> {
            numbers.iter().map(|number| format!("p-{number}")).collect()
        };
        let taken = names(&[11, 12, 13, 21, 22, 23, 31, 32, 33]);
        assert_eq!(cursors(&client), taken, "{script}");
        let acked: Vec<Value> = printed(&daemon)
            .into_iter()
            .filter(|asked| asked["event"] == "ack")
            .map(|asked| asked["data"]["cursor"].clone())
            .collect();
        let given = names(&[11, 12, 13, 13, 21, 22, 23, 31, 32, 33]);
        assert_eq!(acked, given, "{script}: the refused one twice");
        assert_eq!(count(&daemon, "subscribe_consumer"), 3, "{script}");
    }
}
