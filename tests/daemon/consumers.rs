//! Named consumers beside a real node: stock clients that read one, are killed at any moment and
//! started again, and the daemon too.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::common::node::free_port;
use crate::common::{COIN, Client, Daemon, Node, Program, ledger, wait_until};

const ADDRESSES: usize = 12;

/// A daemon that watches some addresses, and a consumer of all of them.
struct Shop {
    node: Node,
    daemon: Daemon,
    addresses: Vec<String>,
}

impl Shop {
    fn open() -> Self {
        Self::with(&[])
    }

    fn with(settings: &[(&str, &str)]) -> Self {
        let node = Node::start();
        let daemon = Daemon::with(&node, settings);
        let addresses: Vec<_> = (0..ADDRESSES).map(|_| node.address()).collect();
        let body = json!({ "addresses": addresses, "blocks": true });
        assert_eq!(put(&daemon, "shop", &body).0, 201);
        addresses
            .iter()
            .for_each(|address| daemon.wait_complete(address));
        Self {
            node,
            daemon,
            addresses,
        }
    }

    /// One payment to each address in a transaction, and the block with it.
    fn sell(&self) {
        let amount = crate::common::node::bitcoin(COIN / 100);
        let outputs: serde_json::Map<_, _> = self
            .addresses
            .iter()
            .map(|address| (address.clone(), json!(amount)))
            .collect();
        self.node.payer("sendmany", json!(["", outputs]));
        self.node.mine_to_nobody(1);
        self.daemon.wait_tip(&self.node);
    }

    fn consumer(&self) -> Value {
        self.daemon.get("/consumers/shop").json
    }
}

fn put(daemon: &Daemon, name: &str, body: &Value) -> (u16, Value) {
    let headers = [("Content-Type", "application/json")];
    let answer = daemon.request(
        "PUT",
        &format!("/consumers/{name}"),
        &headers,
        Some(body.to_string().as_bytes()),
    );
    (answer.status, answer.json)
}

fn number(cursor: &Value) -> u64 {
    cursor
        .as_str()
        .and_then(|text| text.rsplit_once('-')?.1.parse().ok())
        .unwrap_or_else(|| panic!("{cursor} is no cursor"))
}

/// What one client printed: where it began, its events in order, and the last place that it was
/// told is acknowledged.
struct Reading {
    from: u64,
    events: Vec<(u64, Value)>,
    acked: u64,
}

fn reading(program: &Program) -> Option<Reading> {
    let mut reading: Option<Reading> = None;
    for line in program.lines() {
        // The last one may be half a line: it was killed.
        let Ok(line) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let (name, data) = (line["event"].as_str().unwrap_or_default(), &line["data"]);
        match (name, &mut reading) {
            ("connected", _) => {}
            ("subscribed_consumer", reading) => {
                assert!(reading.is_none(), "one subscription: {line}");
                assert_eq!(data.get("error"), None, "{line}");
                let from = number(&data["cursor"]);
                *reading = Some(Reading {
                    from,
                    events: Vec::new(),
                    acked: from,
                });
            }
            ("acked", Some(reading)) => reading.acked = number(&data["cursor"]),
            ("caught_up", Some(_)) => {}
            (_, Some(reading)) => reading.events.push((number(&data["cursor"]), plain(&line))),
            (_, None) => panic!("nothing comes before the subscription: {line}"),
        }
    }
    reading
}

/// All that was read, in the order of the readings, is the log: each reading without a gap from
/// where it began, which is not before what an earlier one knew to be acknowledged; and together
/// everything.
fn check(daemon: &Daemon, readings: &[Reading]) {
    let log = log(daemon);
    let mut got: BTreeMap<u64, &Value> = BTreeMap::new();
    let mut acked = 0;
    for reading in readings {
        assert!(
            reading.from >= acked,
            "begins at {} although {acked} was acknowledged",
            reading.from
        );
        assert!(
            reading.from <= got.keys().next_back().copied().unwrap_or(0),
            "begins behind what anybody got"
        );
        let expected = log
            .range(reading.from + 1..)
            .take(reading.events.len())
            .map(|(number, event)| (*number, event));
        let events = || {
            reading
                .events
                .iter()
                .map(|(number, event)| (*number, event))
        };
        assert_same(
            "in order, without a gap or a repetition",
            events(),
            expected,
        );
        got.extend(events());
        acked = reading.acked.max(acked);
    }
    assert_same(
        "between them they got everything",
        got,
        log.iter().map(|(number, event)| (*number, event)),
    );
    assert!(
        log.len() > 100,
        "there was something to read: {}",
        log.len()
    );
}

/// What a client prints of an entry of the log.
fn told(entry: &Value) -> Value {
    plain(&json!({ "event": entry["event"], "data": entry["data"] }))
}

/// The same value with every number as JavaScript has it: 5.0 is 5.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| (name.clone(), plain(value)))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// The events of the log with their numbers.
fn log(daemon: &Daemon) -> BTreeMap<u64, Value> {
    ledger::read(daemon)
        .iter()
        .map(|entry| (number(&entry["cursor"]), told(entry)))
        .collect()
}

/// Panics with the first difference: all of both would be megabytes.
fn assert_same<'a>(
    what: &str,
    got: impl IntoIterator<Item = (u64, &'a Value)>,
    expected: impl IntoIterator<Item = (u64, &'a Value)>,
) {
    let (mut got, mut expected) = (got.into_iter(), expected.into_iter());
    loop {
        let (one, other) = (got.next(), expected.next());
        assert_eq!(one, other, "{what}");
        if one.is_none() {
            return;
        }
    }
}

/// Readers that are killed after some events, another one each time, while the node lives on; every
/// third time the daemon is killed too.
fn killed_readers_have_everything_between_them(start: impl Fn(&str, &str) -> Program) {
    let mut shop = Shop::open();
    let mut readings = Vec::new();
    for (round, kill_after) in [3, 0, 17, 40, 1, 29].into_iter().enumerate() {
        shop.sell();
        let mut program = start(&shop.daemon.url(), ["7", "1", "4"][round % 3]);
        shop.sell();
        wait_until("it hears some events", || {
            reading(&program)
                .filter(|reading| reading.events.len() >= kill_after)
                .map(|_| ())
        });
        if round % 3 == 2 {
            shop.daemon.kill();
        }
        program.kill();
        readings.extend(reading(&program));
        if round % 3 == 2 {
            shop.daemon.restart();
        }
    }
    let last = start(&shop.daemon.url(), "1");
    last.event("caught_up", |_| true);
    wait_until("everything is acknowledged", || {
        (shop.consumer()["lag"] == 0).then_some(())
    });
    readings.extend(reading(&last));
    check(&shop.daemon, &readings);
}

#[test]
fn socket_io_clients_that_are_killed_have_every_event_between_them() {
    killed_readers_have_everything_between_them(|url, every| {
        Program::node("consume.js", &[url, "shop", every])
    });
}

#[test]
fn python_socketio_clients_that_are_killed_have_every_event_between_them() {
    killed_readers_have_everything_between_them(|url, every| {
        Program::python("consume.py", &[url, "shop", every])
    });
}

#[test]
fn a_stock_client_reads_on_by_itself_over_deaths_of_the_daemon() {
    // A port that stays the same, so that the client finds it again.
    let listen = format!("127.0.0.1:{}", free_port());
    let mut shop = Shop::with(&[("server.listen", &listen)]);
    let client = Program::node("consume.js", &[&shop.daemon.url(), "shop", "3"]);
    for _ in 0..3 {
        shop.sell();
        shop.daemon.kill();
        shop.daemon.restart();
        shop.sell();
    }
    wait_until("everything is acknowledged", || {
        (shop.consumer()["lag"] == 0).then_some(())
    });
    let mut got = BTreeMap::new();
    for line in client
        .lines()
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
    {
        if !["connected", "subscribed_consumer", "acked", "caught_up"]
            .contains(&line["event"].as_str().unwrap_or_default())
        {
            got.insert(number(&line["data"]["cursor"]), plain(&line));
        }
    }
    let (got, log) = (
        got.iter().map(|(number, event)| (*number, event)),
        log(&shop.daemon),
    );
    assert_same(
        "everything, over all connections",
        got,
        log.iter().map(|(number, event)| (*number, event)),
    );
}

#[test]
fn the_example_backends_of_this_repository_do_each_piece_of_work_and_acknowledge_it() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let url = daemon.url();
    let addresses = [node.address(), node.address()];
    let start = |name: &str, address: &str| match name {
        "js" => Program::node("../../contrib/js/consumer.js", &[&url, name, address]),
        _ => Program::python("../../contrib/python/consumer.py", &[&url, name, address]),
    };
    let lag = |name: &str| daemon.get(&format!("/consumers/{name}")).json["lag"].clone();
    for (name, address) in ["js", "py"].into_iter().zip(&addresses) {
        let mut first = start(name, address);
        first.line("that it reads", |line| {
            line.contains("events to catch up on").then_some(())
        });
        let txid = node.pay(address, COIN);
        first.event("balance_change", |data| data["new_balance"] == COIN);
        wait_until("its work is acknowledged", || {
            (lag(name) == 0).then_some(())
        });
        first.kill();
        node.pay(address, COIN);
        daemon.wait_balance(address, 0, 2 * COIN);
        let second = start(name, address);
        second.event("balance_change", |data| data["new_balance"] == 2 * COIN);
        wait_until("its work is acknowledged", || {
            (lag(name) == 0).then_some(())
        });
        assert!(
            !second.lines().iter().any(|line| line.contains(&txid)),
            "what was acknowledged does not come again"
        );
        // Another one takes over, and the older ends.
        let mut third = start(name, address);
        third.line("that it reads", |line| {
            line.contains("events to catch up on").then_some(())
        });
        second.line("that it is not needed", |line| {
            line.contains("took over").then_some(())
        });
        third.kill();
    }
}

#[test]
fn an_acknowledgement_survives_a_kill_and_a_lost_connection_frees_the_consumer() {
    let mut shop = Shop::open();
    shop.sell();
    let head = number(&shop.consumer()["head"]);
    let mut client = Client::connect(&shop.daemon);
    let reply = client.ask("subscribe_consumer", &json!({ "consumer": "shop" }));
    assert_eq!(number(&reply["cursor"]), 0, "{reply}");
    client.event("caught_up", |data| number(&data["cursor"]) == head);
    let cursors: Vec<Value> = client
        .all("new_transactions")
        .iter()
        .map(|data| data["cursor"].clone())
        .collect();
    for cursor in &cursors {
        let acked = client.ask("ack", &json!({ "consumer": "shop", "cursor": cursor }));
        assert_eq!(acked["cursor"], *cursor);
    }
    shop.daemon.kill();
    shop.daemon.restart();
    assert_eq!(shop.consumer()["cursor"], cursors[cursors.len() - 1]);

    client = Client::connect(&shop.daemon);
    client.ask("subscribe_consumer", &json!({ "consumer": "shop" }));
    assert_eq!(
        shop.daemon.get("/events?consumer=shop").json["code"],
        "consumer_busy"
    );
    drop(client);
    wait_until("the consumer is free", || {
        (shop.daemon.get("/events?consumer=shop").status == 200).then_some(())
    });

    let mut poll = std::net::TcpStream::connect(("127.0.0.1", shop.daemon.port()))
        .expect("the daemon listens");
    let path = format!(
        "/events?consumer=shop&after={}&wait=60",
        shop.consumer()["head"].as_str().expect("a cursor")
    );
    std::io::Write::write_all(
        &mut poll,
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes(),
    )
    .expect("the daemon reads");
    wait_until("the long poll reads it", || {
        (shop.consumer()["readers"] == 1).then_some(())
    });
    drop(poll);
    wait_until("an aborted request frees it", || {
        (shop.consumer()["readers"] == 0).then_some(())
    });
}
