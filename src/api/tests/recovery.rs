//! Connection state recovery: a client that is lost at any moment hears everything once.

use std::collections::HashMap;

use futures_util::FutureExt;
use serde_json::json;

use super::*;
use crate::api::subscriptions::Topic;
use crate::engineio::CloseReason;

/// A client that asks to be recoverable, and comes back with what it remembers, as the stock JavaScript client does.
struct Recovering {
    client: Client,
    sid: String,
    pid: String,
    offset: String,
}

/// What a packet said.
#[derive(Debug)]
enum Heard {
    Connected { recovered: bool },
    Event { name: String, data: Value },
    Acknowledgement,
}

impl Daemon {
    async fn recovering(&self) -> Recovering {
        let (client, [sid, pid, offset]) = (self.silent_client(), [String::new(), String::new(), String::new()]);
        let mut recovering = Recovering { client, sid, pid, offset };
        recovering.client.say(r#"0{"recover":true}"#).await;
        assert!(matches!(recovering.hear().await, Heard::Connected { recovered: false }));
        assert!(matches!(recovering.hear().await, Heard::Event { name, .. } if name == "connected"));
        recovering
    }

    /// A session that has not said anything.
    fn silent_client(&self) -> Client {
        let (sender, queue) = outbox(1000, 1 << 20);
        let handshake = Handshake { headers: HeaderMap::new(), query: "EIO=4".to_owned(), peer: None };
        Client { layer: self.layer.clone(), session: self.layer.open(sender.clone(), handshake), outbox: sender, queue }
    }
}

impl Recovering {
    fn lose(&self) {
        self.client.layer.close(&self.client.session, CloseReason::TransportClose);
    }

    /// Comes back on a new connection. What is unread of the old one is lost.
    async fn come_back(&mut self, daemon: &Daemon) {
        let _old = std::mem::replace(&mut self.client, daemon.silent_client());
        let payload = json!({"recover": true, "pid": self.pid, "offset": self.offset});
        self.client.say(&format!("0{payload}")).await;
    }

    async fn hear(&mut self) -> Heard {
        let packet = self.client.hear().await;
        self.understand(&packet)
    }

    fn queued(&mut self) -> Option<Heard> {
        let packet = packet_text(self.client.queue.try_recv()?);
        Some(self.understand(&packet))
    }

    fn understand(&mut self, packet: &str) -> Heard {
        if packet.starts_with('3') {
            return Heard::Acknowledgement;
        }
        if let Some(ids) = packet.strip_prefix('0') {
            let ids: Value = serde_json::from_str(ids).unwrap();
            let (sid, pid) = (ids["sid"].as_str().unwrap().to_owned(), ids["pid"].as_str().unwrap().to_owned());
            let recovered = pid == self.pid;
            assert_eq!(sid == self.sid, recovered);
            (self.sid, self.pid) = (sid, pid);
            return Heard::Connected { recovered };
        }
        let array: Vec<Value> = serde_json::from_str(packet.strip_prefix('2').expect("nothing else comes")).unwrap();
        let [name, data, offset] = <[Value; 3]>::try_from(array).expect("every event has an offset");
        self.offset = offset.as_str().unwrap().to_owned();
        Heard::Event { name: name.as_str().unwrap().to_owned(), data }
    }

    /// The names of the queued events; the answer to CONNECT is `CONNECTED` or `recovered`.
    fn names(&mut self) -> Vec<String> {
        let name = |heard| match heard {
            Heard::Connected { recovered: true } => "recovered".to_owned(),
            Heard::Connected { recovered: false } => "CONNECTED".to_owned(),
            Heard::Event { name, .. } => name,
            Heard::Acknowledgement => "ack".to_owned(),
        };
        std::iter::from_fn(|| self.queued()).map(name).collect()
    }
}

#[tokio::test]
async fn a_lost_client_comes_back_to_its_subscriptions_and_what_it_missed() {
    let daemon = Daemon::start().await;
    let mut client = daemon.recovering().await;
    client.client.emit("subscribe_address", json!({"address": address(1).to_string()})).await;
    client.client.emit("subscribe_blocks", json!({})).await;
    daemon.mine(&address(1), Vec::new()).await;
    daemon.told().await;
    assert_eq!(client.names(), ["subscribed", "subscribed_blocks", "new_transactions", "balance_change", "block"]);
    client.lose();
    daemon.mine(&address(1), Vec::new()).await;
    daemon.mine(&address(2), Vec::new()).await;
    daemon.told().await;
    let counts = daemon.app.hub.counts().await.unwrap();
    assert_eq!((counts.subscribers, counts.subscriptions), (0, 0), "who is lost does not count");
    client.come_back(&daemon).await;
    assert_eq!(client.names(), ["recovered", "new_transactions", "balance_change", "block", "block"]);
    daemon.mine(&address(1), Vec::new()).await;
    daemon.told().await;
    assert_eq!(client.names(), ["new_transactions", "balance_change", "block"]);
}

#[tokio::test]
async fn a_client_that_heard_only_the_greeting_is_recovered() {
    let daemon = Daemon::start().await;
    let mut client = daemon.recovering().await;
    client.lose();
    daemon.mine(&address(1), Vec::new()).await;
    client.come_back(&daemon).await;
    assert_eq!(client.names(), ["recovered"]);
    client.client.emit("subscribe_blocks", json!({})).await;
    daemon.mine(&address(1), Vec::new()).await;
    daemon.told().await;
    assert_eq!(client.names(), ["subscribed_blocks", "block"]);
}

#[tokio::test]
async fn a_client_that_does_not_know_its_subscriptions_is_a_new_one() {
    let daemon = Daemon::start().await;
    let mut client = daemon.recovering().await;
    client.client.emit("subscribe_address", json!({"address": address(1).to_string()})).await;
    client.lose();
    client.come_back(&daemon).await;
    assert_eq!(client.names(), ["CONNECTED", "connected"], "it never heard `subscribed`");
    // And one whose cursor is of another log.
    client.lose();
    client.offset = "ffffffffffffffff-0.0".to_owned();
    client.come_back(&daemon).await;
    assert_eq!(client.names(), ["CONNECTED", "connected"]);
}

#[tokio::test]
async fn a_client_that_reads_too_slowly_is_recovered_without_a_gap() {
    let daemon = Daemon::start().await;
    let mut client = daemon.recovering().await;
    let (sender, queue) = outbox(5, 1 << 20);
    let handshake = Handshake { headers: HeaderMap::new(), query: String::new(), peer: None };
    client.client = Client { layer: daemon.layer.clone(), session: daemon.layer.open(sender.clone(), handshake), outbox: sender, queue };
    client.client.say(r#"0{"recover":true}"#).await;
    client.client.emit("subscribe_blocks", json!({})).await;
    assert_eq!(client.names(), ["CONNECTED", "connected", "subscribed_blocks"]);
    for _ in 0..20 {
        daemon.mine(&address(1), Vec::new()).await;
    }
    daemon.told().await;
    assert!(client.client.outbox.is_closed());
    let before = client.names().len();
    client.client.layer.close(&client.client.session, CloseReason::SlowConsumer);
    client.come_back(&daemon).await;
    let after = client.names();
    assert_eq!((before + after.len(), after[0].as_str()), (21, "recovered"));
}

#[tokio::test]
async fn a_stock_client_beside_a_recoverable_one_hears_one_argument() {
    let daemon = Daemon::start().await;
    let (mut plain, mut client) = (daemon.client().await, daemon.recovering().await);
    plain.emit("subscribe_blocks", json!({})).await;
    client.client.emit("subscribe_blocks", json!({})).await;
    daemon.mine(&address(1), Vec::new()).await;
    daemon.told().await;
    assert_eq!(client.names(), ["subscribed_blocks", "block"]);
    let names: Vec<_> = plain.queued().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["subscribed_blocks", "block"]);
}

/// What a client must have heard, by the log.
struct Witness {
    log: Vec<(u64, Topic)>,
    /// Each topic that the client knows it is subscribed to, and the number up to which it has heard of it.
    heard: HashMap<Topic, u64>,
    recoveries: usize,
    fresh: usize,
}

impl Witness {
    fn refresh(&mut self, daemon: &Daemon) {
        let last = self.log.last().map_or(0, |(number, _)| *number);
        let events = daemon.app.reader.read_events(last, 100_000).unwrap();
        self.log.extend(events.iter().map(|(number, event)| (*number, Topic::of(&event.kind))));
    }

    fn next(&self, topic: &Topic, after: u64) -> Option<u64> {
        self.log.iter().find(|(number, of)| *number > after && of == topic).map(|(number, _)| *number)
    }

    fn hears(&mut self, daemon: &Daemon, heard: &Heard) {
        self.refresh(daemon);
        let (name, data) = match heard {
            Heard::Connected { recovered: true } => return self.recoveries += 1,
            Heard::Connected { recovered: false } => {
                self.fresh += 1;
                return self.heard.clear();
            }
            Heard::Acknowledgement => return,
            Heard::Event { name, data } => (name.as_str(), data),
        };
        let number = data["cursor"].as_str().map(|cursor| cursor.rsplit_once('-').unwrap().1.parse().unwrap());
        let script = |topics: &HashMap<&str, Topic>| data["address"].as_str().and_then(|address| topics.get(address).copied());
        let texts: Vec<String> = (1..=2).map(|n| address(n).to_string()).collect();
        let topics: HashMap<&str, Topic> = (1..=2).zip(&texts).map(|(n, text)| (text.as_str(), topic(n))).collect();
        match name {
            "connected" | "caught_up" => {}
            "error" => panic!("{data}"),
            "unsubscribed" => drop(self.heard.remove(&script(&topics).unwrap())),
            "subscribed" | "subscribed_blocks" => {
                let (topic, cursor) = (script(&topics).unwrap_or(Topic::Blocks), number.unwrap());
                let before = self.heard.insert(topic, cursor);
                let missed = before.and_then(|before| self.next(&topic, before)).filter(|missed| *missed <= cursor);
                assert_eq!(missed, None, "what was heard before the answer is whole");
            }
            _ => {
                let (topic, number) = (script(&topics).unwrap_or(Topic::Blocks), number.unwrap());
                let before = *self.heard.get(&topic).unwrap_or_else(|| panic!("nobody subscribed to {name} {data}"));
                assert_eq!(self.next(&topic, before), Some(number), "{name} is the next one");
                self.heard.insert(topic, number);
            }
        }
    }
}

fn topic(n: u8) -> Topic {
    let script = address(n).script_pubkey();
    Topic::Script(crate::tracker::ScriptHash::of(&script))
}

/// Pseudo-random numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_lost_at_any_moment_hears_everything_once() {
    let daemon = Daemon::start().await;
    let mut witness = Witness { log: Vec::new(), heard: HashMap::new(), recoveries: 0, fresh: 0 };
    let mut client = daemon.recovering().await;
    let mut dice = Dice(4);
    for _ in 0..1500 {
        match dice.roll(10) {
            0..=1 => drop(daemon.mine(&address(1 + dice.roll(2) as u8), Vec::new()).await),
            2..=5 => {
                for _ in 0..dice.roll(60) {
                    if let Some(heard) = client.queued() {
                        witness.hears(&daemon, &heard);
                    }
                }
            }
            6..=8 => {
                let text = address(1 + dice.roll(2) as u8).to_string();
                let packet = match dice.roll(5) {
                    0 => json!(["subscribe_blocks"]),
                    1 => json!(["unsubscribe_address", {"address": text}]),
                    _ => json!(["subscribe_address", {"address": text}]),
                };
                let mut work = client.client.layer.message(&client.client.session, Message::text(&format!("27{packet}"))).unwrap();
                if dice.roll(8) > 0 {
                    work.await;
                } else {
                    // Lost in the middle of it.
                    for _ in 0..dice.roll(6) {
                        if (&mut work).now_or_never().is_some() {
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                    drop(work);
                    client.lose();
                    client.come_back(&daemon).await;
                }
            }
            _ => {
                for _ in 0..dice.roll(3) * 1000 {
                    let Some(heard) = client.queued() else { break };
                    witness.hears(&daemon, &heard);
                }
                // It may be back before anybody has missed it.
                if dice.roll(2) == 0 {
                    client.lose();
                }
                client.come_back(&daemon).await;
                for _ in 0..dice.roll(3) * 1000 {
                    let Some(heard) = client.queued() else { break };
                    witness.hears(&daemon, &heard);
                }
            }
        }
    }
    if client.client.outbox.is_closed() {
        client.come_back(&daemon).await;
    }
    daemon.told().await;
    while let Some(heard) = client.queued() {
        witness.hears(&daemon, &heard);
    }
    witness.refresh(&daemon);
    for (topic, heard) in &witness.heard {
        assert_eq!(witness.next(topic, *heard), None);
    }
    assert!(witness.recoveries > 30 && witness.fresh > 30, "both happened: {} and {}", witness.recoveries, witness.fresh);
}
