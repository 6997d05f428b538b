//! A token that is revoked while its client is told thousands of events from the log: it gets
//! nothing more, and another client in the middle of the same gets all of it.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::SockRef;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

use super::raw;
use super::well_behaved::{Reach, TOLD, WellBehaved};
use crate::common::{COIN, Daemon, Node, wait_until};
use crate::lag::addresses;

const ADDRESSES: u32 = 400;
/// Each tells of every address, with the depths.
const DEPTHS: [u32; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// Between two events for a slow reader: it takes minutes for all.
const PACE: Duration = Duration::from_millis(30);

/// A client that reads only when it is told to, and for which the system holds little.
struct Reluctant(WebSocket<TcpStream>);

impl Reluctant {
    fn connect(daemon: &Daemon, token: &str) -> Self {
        let stream = raw::websocket(daemon.port());
        SockRef::from(&stream)
            .set_recv_buffer_size(16 << 10)
            .expect("a socket takes options");
        let mut client = Self(WebSocket::from_raw_socket(stream, Role::Client, None));
        client.send(&format!("40{}", json!({ "token": token })));
        client
    }

    fn send(&mut self, packet: &str) {
        self.0.send(Message::text(packet)).expect("it reads");
    }

    /// Asks for all that came after the cursor, and reads the first of it.
    fn begin(&mut self, addresses: &[String], after: &str) -> (String, u64) {
        let wish = json!({ "addresses": addresses, "after": after, "snapshot": false });
        self.send(&format!("42{}", json!(["subscribe_addresses", wish])));
        loop {
            if let Some((name, number)) = self.event().expect("it is open")
                && !["connected", "subscribed"].contains(&&*name)
            {
                return (name, number);
            }
        }
    }

    /// Name and number of the next packet if it is an event; the outer `None` at the end of the
    /// connection.
    fn event(&mut self) -> Option<Option<(String, u64)>> {
        let message = self.0.read().ok()?;
        let text = message.to_text().ok()?;
        if text == "2" {
            self.0.send(Message::text("3")).ok()?;
        }
        if message.is_close() {
            return None;
        }
        let event = text.strip_prefix("42").map(serde_json::from_str);
        Some(event.map(|event| {
            let (name, data): (String, Value) = event.expect("a name and one argument");
            let cursor = data["cursor"].as_str().unwrap_or_default();
            let number = cursor.rsplit('-').next().and_then(|it| it.parse().ok());
            (name, number.unwrap_or_default())
        }))
    }
}

impl Reluctant {
    /// The numbers of the events behind the first, one at a time while it is slow, up to the end of
    /// the replay or of the connection; whether it was the former.
    fn read(mut self, first: u64, is_slow: &AtomicBool) -> (Vec<u64>, bool) {
        let mut numbers = vec![first];
        while let Some(event) = self.event() {
            match event {
                Some((name, _)) if name == "caught_up" => return (numbers, true),
                Some((name, number)) if TOLD.contains(&&*name) => numbers.push(number),
                _ => {}
            }
            if is_slow.load(Ordering::Relaxed) {
                sleep(PACE);
            }
        }
        (numbers, false)
    }
}

/// Pays many addresses, and brings each to several depths.
fn fill(node: &Node, addresses: &[String]) {
    let coin = node.coin(2 * COIN);
    let back = (
        node.address(),
        coin.satoshi - 50_000 * i64::from(ADDRESSES) - 200_000,
    );
    let outputs = addresses.iter().map(|address| (address.as_str(), 50_000));
    let outputs: Vec<_> = outputs.chain([(back.0.as_str(), back.1)]).collect();
    node.send(&node.signed(&[coin.outpoint], &outputs));
    for _ in DEPTHS {
        node.mine_to_nobody(1);
    }
}

#[test]
fn a_revoked_reader_in_the_middle_of_a_replay_gets_nothing_more_and_others_all_of_it() {
    // Others would spend its coins.
    let node = Arc::new(Node::start());
    let daemon = Daemon::start(&node);
    let [stays, goes] =
        ["stays", "goes"].map(|name| daemon.token(&["new", "--name", name, "--scope", "watch"]));
    wait_until("the tokens are in force", || {
        let status = |token: &str| {
            let bearer = format!("Bearer {token}");
            daemon
                .request("GET", "/token", &[("Authorization", &*bearer)], None)
                .status
        };
        (status("") == 401 && status(&goes) == 200).then_some(())
    });
    let reach = Reach::of(&daemon, Some(&stays));
    let addresses = addresses(0..ADDRESSES);
    reach.ask(
        "POST",
        "/add_addresses",
        &json!({ "addresses": addresses, "history": "none" }),
    );
    let events = |after: &str| {
        let path = format!("/events?after={after}&limit=1000");
        reach.ask("GET", &path, &Value::Null)
    };
    let before = reach.ask("GET", "/status", &Value::Null)["cursor"].clone();
    let before = before.as_str().expect("a cursor").to_owned();
    let wish = json!({ "addresses": addresses, "confirmations": DEPTHS, "snapshot": false });
    let mut depths = Reluctant::connect(&daemon, &stays);
    depths.send(&format!("42{}", json!(["subscribe_addresses", wish])));
    while depths
        .event()
        .expect("it is open")
        .is_none_or(|(name, _)| name != "subscribed")
    {}
    drop(depths);
    fill(&node, &addresses);
    let mut log = Vec::new();
    wait_until("all of it is in the log", || {
        log.clear();
        let mut after = before.clone();
        loop {
            let page = events(&after);
            let page_events = page["events"].as_array().expect("a list").clone();
            after = page["next"].as_str().expect("a cursor").to_owned();
            if page_events.is_empty() {
                break;
            }
            log.extend(page_events);
        }
        log.retain(|event| {
            let address = event["data"]["address"].as_str().unwrap_or_default();
            addresses.iter().any(|it| it == address)
        });
        (log.len() == addresses.len() * (2 + DEPTHS.len())).then_some(())
    });

    // Only now, because it would spend the coin of what fills the log.
    let well_behaved = WellBehaved::with_token(&node, &daemon, Some(&stays));
    let is_slow = Arc::new(AtomicBool::new(true));
    let [going, staying] = [&goes, &stays].map(|token| {
        let mut client = Reluctant::connect(&daemon, token);
        let (first, is_slow) = (client.begin(&addresses, &before).1, is_slow.clone());
        spawn(move || client.read(first, &is_slow))
    });
    well_behaved.hear();
    daemon.token(&["revoke", "goes"]);
    wait_until("it is out of force", || {
        let bearer = format!("Bearer {goes}");
        let answer = daemon.request("GET", "/token", &[("Authorization", &*bearer)], None);
        (answer.status == 401).then_some(())
    });
    wait_until("its subscriptions are free", || {
        let status = reach.ask("GET", "/status", &Value::Null);
        let used = status["limits"]["subscriptions_in_all"]["used"].as_u64();
        (used == Some(u64::from(ADDRESSES) + 2)).then_some(())
    });
    is_slow.store(false, Ordering::Relaxed);
    let (numbers, is_whole) = going.join().expect("it does not panic");
    assert!(!is_whole, "it is told nothing more");
    let all: Vec<u64> = log
        .iter()
        .map(|event| crate::common::ledger::number(&event["cursor"]))
        .collect();
    assert!(all.starts_with(&numbers), "what was on its way, in order");
    assert!(
        numbers.len() < all.len(),
        "it was in the middle: {} of {}",
        numbers.len(),
        all.len()
    );
    println!(
        "the revoked reader got {} of {} events",
        numbers.len(),
        all.len()
    );

    let (numbers, is_whole) = staying.join().expect("it does not panic");
    assert!(is_whole, "it goes on");
    assert_eq!(numbers, all, "each once, in order");
    well_behaved.end();
}
