//! Clients that stop reading while thousands of events come: one that goes on is told all of it
//! from the log, one that never does is disconnected and reads on with its cursor.

use std::io::ErrorKind;
use std::net::TcpStream;

use bitcoin::{Address, KnownHrp, WitnessProgram, WitnessVersion};
use serde_json::{Value, json};
use socket2::SockRef;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::common::{COIN, Daemon, Node, open_websocket, wait_until};
use crate::contract::events_are_as_told;

/// Addresses that one transaction pays.
const ADDRESSES: u32 = 2000;
const DEPTHS: [u32; 6] = [1, 2, 3, 4, 5, 6];

/// A Socket.IO client that reads only when it is told to.
struct Reluctant(WebSocket<TcpStream>);

impl Reluctant {
    fn connect(daemon: &Daemon) -> Self {
        let socket = open_websocket(daemon);
        // So that the system does not hold for it what it does not read.
        SockRef::from(&socket)
            .set_recv_buffer_size(64 << 10)
            .expect("a socket takes options");
        let mut client = Self(WebSocket::from_raw_socket(socket, Role::Client, None));
        client.send("40");
        client.read_to("connected");
        client
    }

    fn send(&mut self, packet: &str) {
        self.0
            .send(Message::text(packet))
            .expect("the daemon reads");
    }

    fn subscribe(&mut self, addresses: &[String], after: Option<&Value>) {
        let mut wish =
            json!({ "addresses": addresses, "confirmations": DEPTHS, "snapshot": false });
        if let Some(after) = after {
            wish["after"] = after.clone();
        }
        self.send(&format!("42{}", json!(["subscribe_addresses", wish])));
    }

    /// The next event; `None` at the end of the connection.
    fn event(&mut self) -> Option<(String, Value)> {
        loop {
            let text = match self.0.read() {
                Ok(Message::Text(text)) => text,
                Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => continue,
            };
            if text.as_str() == "2" {
                self.send("3");
            }
            if let Some(event) = text.strip_prefix("42") {
                let [name, data] =
                    serde_json::from_str::<[Value; 2]>(event).expect("a name and one argument");
                return Some((name.as_str().expect("a name is text").to_owned(), data));
            }
        }
    }

    /// All events up to the first of this name.
    fn read_to(&mut self, name: &str) -> Vec<(String, Value)> {
        let mut heard = Vec::new();
        while heard
            .last()
            .is_none_or(|(last, _): &(String, Value)| last != name)
        {
            heard.push(
                self.event()
                    .unwrap_or_else(|| panic!("the connection ends before {name} comes")),
            );
        }
        heard
    }
}

/// Addresses of nobody, each of a number of its own.
pub fn addresses(numbers: std::ops::Range<u32>) -> Vec<String> {
    let text = |n: u32| {
        let program: Vec<u8> = n.to_be_bytes().into_iter().cycle().take(20).collect();
        let program = WitnessProgram::new(WitnessVersion::V0, &program).expect("twenty bytes");
        Address::from_witness_program(program, KnownHrp::Regtest).to_string()
    };
    numbers.map(text).collect()
}

/// The log after a cursor, without blocks, as pairs like those that clients hear.
fn log(daemon: &Daemon, mut after: Value) -> Vec<(String, Value)> {
    let mut events = Vec::new();
    loop {
        let page = daemon
            .get(&format!(
                "/events?limit=1000&after={}",
                after.as_str().expect("a cursor is text")
            ))
            .json;
        let entries = page["events"].as_array().expect("a list of events");
        if entries.is_empty() {
            return events;
        }
        after = entries[entries.len() - 1]["cursor"].clone();
        let named = entries.iter().map(|entry| {
            (
                entry["event"].as_str().expect("a name").to_owned(),
                entry["data"].clone(),
            )
        });
        events.extend(named.filter(|(name, _)| name != "block"));
    }
}

#[test]
fn clients_that_stop_reading_are_told_from_the_log_or_come_back_with_their_cursor() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let addresses = addresses(0..ADDRESSES);
    let (mut slow, mut dead) = (Reluctant::connect(&daemon), Reluctant::connect(&daemon));
    let mut cursors = Vec::new();
    for client in [&mut slow, &mut dead] {
        client.subscribe(&addresses, None);
        cursors.extend(
            client
                .read_to("subscribed")
                .pop()
                .map(|(_, data)| data["cursor"].clone()),
        );
    }

    let coin = node.coin(2 * COIN);
    let outputs: Vec<_> = addresses
        .iter()
        .map(|address| (address.as_str(), 50_000))
        .collect();
    let fee = 200_000;
    let back = node.address();
    let outputs: Vec<_> = outputs
        .into_iter()
        .chain([(
            back.as_str(),
            coin.satoshi - 50_000 * i64::from(ADDRESSES) - fee,
        )])
        .collect();
    node.send(&node.signed(&[coin.outpoint], &outputs));
    for _ in DEPTHS {
        node.mine_to_nobody(1);
    }
    // More than fits what the operating system holds for a connection.
    let clients = || daemon.get("/status").json["clients"].clone();
    wait_until("both lag", || (clients()["lagging"] == 2).then_some(()));

    let mut heard = slow.read_to("caught_up");
    let last = addresses.len() * (2 + DEPTHS.len());
    while heard
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "lagged" | "caught_up"))
        .count()
        < last
    {
        heard.push(slow.event().expect("it is not closed"));
    }
    assert!(heard.iter().any(|(name, _)| name == "lagged"));
    let about_lag = heard
        .iter()
        .filter(|(name, _)| matches!(name.as_str(), "lagged" | "caught_up"));
    events_are_as_told(&daemon, about_lag.map(|(name, data)| (name.as_str(), data)));
    heard.retain(|(name, _)| !matches!(name.as_str(), "lagged" | "caught_up"));
    let expected = log(&daemon, cursors[0].clone());
    assert_eq!(expected.len(), last);
    assert!(heard == expected, "everything once, in order");

    wait_until("the other is disconnected", || {
        (clients()["subscribers"] == 1 && clients()["sessions"] == 1).then_some(())
    });
    let mut got = Vec::new();
    while let Some((name, data)) = dead.event() {
        if !matches!(name.as_str(), "lagged" | "caught_up") {
            got.push((name, data));
        }
    }
    let after = got.last().map_or(&cursors[1], |(_, data)| &data["cursor"]);
    let mut back = Reluctant::connect(&daemon);
    back.subscribe(&addresses, Some(after));
    back.read_to("subscribed");
    let rest = back.read_to("caught_up");
    got.extend(
        rest.into_iter()
            .filter(|(name, _)| !matches!(name.as_str(), "lagged" | "caught_up")),
    );
    assert!(
        got == log(&daemon, cursors[1].clone()),
        "nothing is missing: {} of {last}",
        got.len()
    );
}
