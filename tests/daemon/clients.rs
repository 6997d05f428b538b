//! The stock clients, as their users have them: `socket.io-client` and `python-socketio`, and the
//! examples of the specification.

mod cursors;
mod echo;
mod limited;
mod modules;
mod refused;

use std::time::Duration;

use serde_json::Value;

use crate::common::{COIN, DEADLINE, Daemon, Node, Program, repository, wait_until};

/// The address in the specification's examples.
const EXAMPLE_ADDRESS: &str = "n43gfthwVPBopwaTMjmpMAT4Nqzf95NKcy";

/// An example of the specification as it stands but for address and port.
pub fn example(name: &str, address: &str, port: u16) -> String {
    let text = std::fs::read_to_string(repository().join("tests/clients").join(name))
        .expect("the example is in the repository");
    let changed = text
        .replace(EXAMPLE_ADDRESS, address)
        .replace("localhost:5005", &format!("localhost:{port}"));
    assert!(
        changed.contains(address) && changed.contains(&port.to_string()),
        "{name} names an address and a port"
    );
    changed
}

/// Pays until the example has printed a change of the balance; nothing is mined, so what it prints
/// is unconfirmed.
pub fn prints_an_unconfirmed_payment(
    node: &Node,
    daemon: &Daemon,
    address: &str,
    program: &Program,
) {
    program.line("that it is connected", |line| {
        line.contains("Connected to SPV server").then_some(())
    });
    // The example does not tell when its subscription stands, so it is paid until it hears of a
    // payment.
    wait_until("the address is watched", || {
        (daemon.get("/status").json["address_count"] == 1).then_some(())
    });
    let mut paid = 0;
    let heard = (0..DEADLINE.as_secs() / 3).any(|_| {
        paid += COIN / 2;
        node.pay(address, COIN / 2);
        program
            .line_within(Duration::from_secs(3), |line| {
                line.contains("New: ").then_some(())
            })
            .is_some()
    });
    assert!(
        heard,
        "no balance change was printed:\n{}",
        program.lines().join("\n")
    );
    daemon.wait_balance(address, 0, paid);
    let total = paid as f64 / COIN as f64;
    program.line("the new balance", |line| {
        let printed = line.trim().strip_prefix("New: ")?.strip_suffix(" BTC")?;
        (printed.parse::<f64>() == Ok(total)).then_some(())
    });
    program.line("whose balance changed", |line| {
        line.contains(&format!("Balance changed for {address}"))
            .then_some(())
    });
    program.line("the new transaction", |line| {
        line.contains(&format!("New transactions for {address}"))
            .then_some(())
    });
}

#[test]
fn the_javascript_example_of_the_specification_works() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    // In a browser `io` comes with the page's script tag.
    let script = format!(
        "const {{ io }} = require('socket.io-client');\n{}",
        example("spec_example.js", &address, daemon.port())
    );
    let program = Program::node_text("the JavaScript example", &script);
    prints_an_unconfirmed_payment(&node, &daemon, &address, &program);
}

#[test]
fn the_python_example_of_the_specification_works() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    let program = Program::python_text(
        "the Python example",
        &example("spec_example.py", &address, daemon.port()),
    );
    prints_an_unconfirmed_payment(&node, &daemon, &address, &program);
}

/// Starts a client for each way to connect, waits until all are subscribed, pays once, and compares
/// what they heard.
fn every_transport_hears_the_same(start: impl Fn(&str, &str, &str) -> Program) {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    let url = daemon.url();
    let clients: Vec<_> = ["polling", "websocket", "upgrade"]
        .map(|mode| (mode, start(&url, &address, mode)))
        .into();
    for (mode, client) in &clients {
        let transport = if *mode == "polling" {
            "polling"
        } else {
            "websocket"
        };
        client.event("transport", |name| name == transport);
        let hello = client.event("connected", |_| true);
        assert!(hello["message"].is_string(), "{mode}: {hello}");
        let subscribed = client.event("subscribed", |data| data["address"] == *address);
        assert_eq!(
            client.event("ack", |_| true),
            subscribed,
            "{mode}: the acknowledgement is the reply event's object"
        );
    }
    let txid = node.pay(&address, COIN);
    let heard: Vec<(Value, Value)> = clients
        .iter()
        .map(|(_, client)| {
            let news = client.event("new_transactions", |data| {
                data["transactions"][0]["txid"] == *txid
            });
            (
                news,
                client.event("balance_change", |data| data["new_balance"] == COIN),
            )
        })
        .collect();
    assert!(heard.iter().all(|one| *one == heard[0]), "{heard:#?}");
}

#[test]
fn socket_io_client_hears_payments_over_every_transport() {
    every_transport_hears_the_same(|url, address, mode| {
        Program::node("listen.js", &[url, address, mode])
    });
}

#[test]
fn python_socketio_hears_payments_over_every_transport() {
    every_transport_hears_the_same(|url, address, mode| {
        Program::python("listen.py", &[url, address, mode])
    });
}

#[test]
fn python_socketio_with_asyncio_hears_payments_over_every_transport() {
    every_transport_hears_the_same(|url, address, mode| {
        Program::python("listen_async.py", &[url, address, mode])
    });
}

#[test]
fn socket_io_client_2_hears_payments_over_every_transport() {
    every_transport_hears_the_same(|url, address, mode| {
        Program::node("listen.js", &[url, address, mode, "socket.io-client-2"])
    });
}

#[test]
fn python_socketio_4_hears_payments_over_every_transport() {
    every_transport_hears_the_same(|url, address, mode| {
        Program::python_eio3("listen.py", &[url, address, mode])
    });
}
