//! Clients that come back after a break with their cursor: the stock JavaScript client, and the
//! example clients of this repository.

use std::net::TcpListener;

use serde_json::Value;

use crate::common::{COIN, Daemon, Node, Program};

const PAYMENTS: i64 = 6;

/// Both kinds of events and their cursors as a client printed them.
fn heard(client: &Program) -> Vec<(Value, Value)> {
    let lines = client.lines();
    let events = lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let events = events
        .filter(|line| line["event"] == "new_transactions" || line["event"] == "balance_change");
    events
        .map(|line| (line["event"].clone(), line["data"]["cursor"].clone()))
        .collect()
}

/// For a daemon that has the same port again after a restart.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|free| free.local_addr())
        .expect("the system has a free port")
        .to_string()
}

/// Lines that begin so.
fn count(client: &Program, start: &str) -> usize {
    client
        .lines()
        .iter()
        .filter(|line| line.starts_with(start))
        .count()
}

#[test]
fn a_client_that_loses_its_connection_with_every_payment_hears_everything_once() {
    let node = Node::start();
    let listen = free_address();
    let mut daemon = Daemon::with(&node, &[("server.listen", &listen)]);
    let (address, url) = (node.address(), daemon.url());
    let cut: Vec<_> = ["polling", "websocket", "upgrade"]
        .map(|mode| Program::node("cut.js", &[&url, &address, mode]))
        .into();
    let plain = [
        Program::python("listen.py", &[&url, &address, "websocket"]),
        Program::node("listen.js", &[&url, &address, "polling"]),
    ];
    for client in cut.iter().chain(&plain) {
        client.event("subscribed", |data| data["address"] == *address);
    }
    for _ in 0..PAYMENTS {
        node.pay(&address, COIN);
    }
    for client in cut.iter().chain(&plain) {
        client.event("balance_change", |data| {
            data["new_balance"] == PAYMENTS * COIN
        });
    }
    // Back again it hears live events again, not only those that it missed.
    node.pay(&address, COIN);
    for client in cut.iter().chain(&plain) {
        client.event("balance_change", |data| {
            data["new_balance"] == (PAYMENTS + 1) * COIN
        });
    }
    let mut all = heard(&plain[0]);
    // Handlers of the synchronous Python client run in threads, so that one may overtake another.
    all.sort_by_key(|(_, cursor)| {
        cursor
            .as_str()
            .and_then(|cursor| cursor.rsplit('-').next()?.parse::<u64>().ok())
    });
    assert!(all.len() as i64 > PAYMENTS, "{all:#?}");
    for client in cut.iter().chain(&plain[1..]) {
        assert_eq!(heard(client), all, "once and in order");
    }
    for client in &cut {
        let connections = count(client, r#"{"event":"connect","data":{"recovered":false}}"#);
        assert!(connections > 1, "{}", client.lines().join("\n"));
    }
    daemon.stop();
    daemon.restart();
    let txid = node.pay(&address, COIN);
    for client in &cut {
        client.event("new_transactions", |data| {
            data["transactions"][0]["txid"] == *txid
        });
    }
}

#[test]
fn case_20_the_example_clients_miss_nothing_and_double_nothing_over_a_kill() {
    let node = Node::start();
    let listen = free_address();
    let mut daemon = Daemon::with(&node, &[("server.listen", &listen)]);
    let (address, url) = (node.address(), daemon.url());
    let clients = [
        Program::node("../../contrib/js/watch.js", &[&url, &address]),
        Program::python("../../contrib/python/watch.py", &[&url, &address]),
        Program::python("../../regtest/listen.py", &[&url, &address]),
    ];
    for client in &clients {
        client.event("subscribed", |_| true);
    }
    let mut balance = 0;
    let mut pay = |hear: bool| {
        node.pay(&address, COIN);
        balance += COIN;
        for client in clients.iter().filter(|_| hear) {
            client.event("balance_change", |data| data["new_balance"] == balance);
        }
    };
    pay(true);
    for _ in 0..2 {
        daemon.kill();
        pay(false);
        daemon.restart();
        pay(true);
    }
    let page = daemon.get(&format!("/events?address={address}")).json;
    let log: Vec<_> = page["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| (entry["event"].clone(), entry["data"]["cursor"].clone()))
        .collect();
    assert_eq!(log.len(), 10, "{page:#}");
    for client in &clients {
        assert_eq!(heard(client), log, "{:#?}", client.lines());
    }
}
