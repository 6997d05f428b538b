//! Connection state recovery: a client that is lost at any moment hears everything once.

use std::collections::{HashMap, VecDeque};

use futures_util::FutureExt;
use serde_json::json;

use super::*;
use crate::api::subscriptions::Topic;
use crate::engineio::CloseReason;

/// A client that asks to be recoverable, and comes back with what it remembers, as the stock
/// JavaScript client does.
pub struct Recovering {
    pub client: Client,
    room: usize,
    sid: String,
    pid: String,
    pub offset: String,
    /// Has reached it and was not looked at yet.
    read: VecDeque<Heard>,
}

/// What a packet said.
#[derive(Debug)]
enum Heard {
    Connected { recovered: bool },
    Event { name: String, data: Value },
    Acknowledgement,
}

impl Daemon {
    pub async fn recovering(&self) -> Recovering {
        self.recovering_with_room(1000).await
    }

    /// `room`: messages that its queue holds.
    async fn recovering_with_room(&self, room: usize) -> Recovering {
        let (client, [sid, pid, offset]) = (
            self.silent_client(room),
            [String::new(), String::new(), String::new()],
        );
        let mut recovering = Recovering {
            client,
            room,
            sid,
            pid,
            offset,
            read: VecDeque::new(),
        };
        recovering.client.say(r#"0{"recover":true}"#).await;
        assert!(matches!(
            recovering.hear().await,
            Heard::Connected { recovered: false }
        ));
        assert!(
            matches!(recovering.hear().await, Heard::Event { name, .. } if name == "connected")
        );
        recovering
    }

    /// A session that has not said anything.
    fn silent_client(&self, room: usize) -> Client {
        let (sender, queue) = outbox(room, 1 << 20);
        let handshake = Handshake {
            headers: HeaderMap::new(),
            query: "EIO=4".to_owned(),
            peer: None,
        };
        Client {
            layer: self.layer.clone(),
            session: self.layer.open(sender.clone(), handshake),
            outbox: sender,
            queue,
        }
    }
}

impl Recovering {
    pub fn lose(&self) {
        self.client
            .layer
            .close(&self.client.session, CloseReason::TransportClose);
    }

    /// Comes back on a new connection, and reads while it does. What is unread of the old one is
    /// lost.
    pub async fn come_back(&mut self, daemon: &Daemon) {
        let _old = std::mem::replace(&mut self.client, daemon.silent_client(self.room));
        let payload = json!({"recover": true, "pid": self.pid, "offset": self.offset});
        let packet = Message::text(&format!("0{payload}"));
        if let Some(work) = self.client.layer.message(&self.client.session, packet) {
            self.read_during(work).await;
        }
    }

    /// Reads while `work` is done: a client that does not read would hold it up.
    async fn read_during(&mut self, work: impl Future<Output = ()>) {
        let mut work = std::pin::pin!(work);
        while (&mut work).now_or_never().is_none() {
            self.read(usize::MAX);
            tokio::task::yield_now().await;
        }
    }

    /// Takes up to `most` packets out of the queue.
    fn read(&mut self, most: usize) {
        for _ in 0..most {
            let Some(group) = self.client.queue.try_recv() else {
                return;
            };
            let heard = self.understand(&packet_text(group));
            self.read.push_back(heard);
        }
    }

    async fn hear(&mut self) -> Heard {
        match self.read.pop_front() {
            Some(heard) => heard,
            None => {
                let packet = self.client.hear().await;
                self.understand(&packet)
            }
        }
    }

    fn queued(&mut self) -> Option<Heard> {
        if self.read.is_empty() {
            self.read(1);
        }
        self.read.pop_front()
    }

    fn understand(&mut self, packet: &str) -> Heard {
        if packet.starts_with('3') {
            return Heard::Acknowledgement;
        }
        if let Some(ids) = packet.strip_prefix('0') {
            let ids: Value = serde_json::from_str(ids).unwrap();
            let (sid, pid) = (
                ids["sid"].as_str().unwrap().to_owned(),
                ids["pid"].as_str().unwrap().to_owned(),
            );
            let recovered = pid == self.pid;
            assert_eq!(sid == self.sid, recovered);
            (self.sid, self.pid) = (sid, pid);
            return Heard::Connected { recovered };
        }
        let array: Vec<Value> =
            serde_json::from_str(packet.strip_prefix('2').expect("nothing else comes")).unwrap();
        let [name, data, offset] =
            <[Value; 3]>::try_from(array).expect("every event has an offset");
        self.offset = offset.as_str().unwrap().to_owned();
        Heard::Event {
            name: name.as_str().unwrap().to_owned(),
            data,
        }
    }

    /// The names of the queued events; the answer to CONNECT is `CONNECTED` or `recovered`.
    pub fn names(&mut self) -> Vec<String> {
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
    client
        .client
        .emit(
            "subscribe_address",
            json!({"address": address(1).to_string()}),
        )
        .await;
    client.client.emit("subscribe_blocks", json!({})).await;
    daemon.mine(&address(1), Vec::new()).await;
    daemon.told().await;
    assert_eq!(
        client.names(),
        [
            "subscribed",
            "subscribed_blocks",
            "new_transactions",
            "balance_change",
            "block"
        ]
    );
    client.lose();
    daemon.mine(&address(1), Vec::new()).await;
    daemon.mine(&address(2), Vec::new()).await;
    daemon.told().await;
    let counts = daemon.app.hub.counts().await.unwrap();
    assert_eq!(
        (counts.subscribers, counts.subscriptions),
        (0, 0),
        "who is lost does not count"
    );
    client.come_back(&daemon).await;
    assert_eq!(
        client.names(),
        [
            "recovered",
            "new_transactions",
            "balance_change",
            "block",
            "block"
        ]
    );
    daemon.mine(&address(1), Vec::new()).await;
    daemon.told().await;
    assert_eq!(
        client.names(),
        ["new_transactions", "balance_change", "block"]
    );
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
    client
        .client
        .emit(
            "subscribe_address",
            json!({"address": address(1).to_string()}),
        )
        .await;
    client.lose();
    client.come_back(&daemon).await;
    assert_eq!(
        client.names(),
        ["CONNECTED", "connected"],
        "it never heard `subscribed`"
    );
    // And one whose cursor is of another log.
    client.lose();
    client.offset = "ffffffffffffffff-0.0".to_owned();
    client.come_back(&daemon).await;
    assert_eq!(client.names(), ["CONNECTED", "connected"]);
}

#[tokio::test]
async fn a_client_that_is_lost_while_it_lags_is_recovered_without_a_gap() {
    let daemon = Daemon::start().await;
    // Lost before it hears that it lags, in the middle, and right before the end.
    for heard_before in [2, 6, 20] {
        let mut client = daemon.recovering_with_room(5).await;
        client.client.emit("subscribe_blocks", json!({})).await;
        assert_eq!(client.names(), ["subscribed_blocks"]);
        for _ in 0..20 {
            daemon.mine(&address(1), Vec::new()).await;
        }
        daemon.told().await;
        let mut blocks = 0;
        while blocks < heard_before {
            if let Heard::Event { name, .. } = client.hear().await {
                blocks += usize::from(name == "block");
            }
        }
        client.lose();
        client.come_back(&daemon).await;
        assert!(matches!(
            client.hear().await,
            Heard::Connected { recovered: true }
        ));
        daemon.mine(&address(1), Vec::new()).await;
        let head = daemon
            .app
            .wire
            .cursor(daemon.app.reader.snapshot().head().unwrap());
        assert_eq!(daemon.app.hub.counts().await.unwrap().lagging, 0);
        while !client.offset.starts_with(&format!("{head}.")) {
            client.hear().await;
        }
    }
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
    /// Each topic that the client knows it is subscribed to, and the number up to which it has
    /// heard of it.
    heard: HashMap<Topic, u64>,
    recoveries: usize,
    fresh: usize,
    lags: usize,
    /// The last two that it wanted newly, or no more. Until that is over, the end of a lag says
    /// nothing of them: they are not part of it.
    wanted: [Option<Topic>; 2],
}

impl Witness {
    fn refresh(&mut self, daemon: &Daemon) {
        let last = self.log.last().map_or(0, |(number, _)| *number);
        let events = daemon.app.reader.read_events(last, 100_000).unwrap();
        self.log.extend(
            events
                .iter()
                .map(|(number, event)| (*number, Topic::of(&event.kind))),
        );
    }

    fn next(&self, topic: &Topic, after: u64) -> Option<u64> {
        self.log
            .iter()
            .find(|(number, of)| *number > after && of == topic)
            .map(|(number, _)| *number)
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
        let number = data["cursor"]
            .as_str()
            .map(|cursor| cursor.rsplit_once('-').unwrap().1.parse().unwrap());
        let script = |topics: &HashMap<&str, Topic>| {
            data["address"]
                .as_str()
                .and_then(|address| topics.get(address).copied())
        };
        let texts: Vec<String> = (1..=2).map(|n| address(n).to_string()).collect();
        let topics: HashMap<&str, Topic> = (1..=2)
            .zip(&texts)
            .map(|(n, text)| (text.as_str(), topic(n)))
            .collect();
        match name {
            "connected" => {}
            "lagged" => self.lags += 1,
            "caught_up" => {
                for (topic, heard) in self
                    .heard
                    .iter()
                    .filter(|(topic, _)| !self.wanted.contains(&Some(**topic)))
                {
                    let missed = self
                        .next(topic, *heard)
                        .filter(|missed| *missed <= number.unwrap());
                    assert_eq!(missed, None, "everything up to {data} was told");
                }
            }
            "error" => panic!("{data}"),
            "unsubscribed" => drop(self.heard.remove(&script(&topics).unwrap())),
            "subscribed" | "subscribed_blocks" => {
                let (topic, cursor) = (script(&topics).unwrap_or(Topic::Blocks), number.unwrap());
                let before = self.heard.insert(topic, cursor);
                let missed = before
                    .and_then(|before| self.next(&topic, before))
                    .filter(|missed| *missed <= cursor);
                assert_eq!(missed, None, "what was heard before the answer is whole");
            }
            _ => {
                let (topic, number) = (script(&topics).unwrap_or(Topic::Blocks), number.unwrap());
                let before = *self
                    .heard
                    .get(&topic)
                    .unwrap_or_else(|| panic!("nobody subscribed to {name} {data}"));
                assert_eq!(
                    self.next(&topic, before),
                    Some(number),
                    "{name} is the next one"
                );
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
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_lost_at_any_moment_hears_everything_once() {
    let witness = lost_at_any_moment(1000, 4, 1500).await;
    assert!(
        witness.recoveries > 30 && witness.fresh > 10,
        "both happened: {} and {}",
        witness.recoveries,
        witness.fresh
    );
    assert_eq!(witness.lags, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_that_is_lost_at_any_moment_hears_everything_once() {
    // While it lags its subscriptions do not change, so there are few moments at which it cannot be
    // recovered.
    let mut fresh = 0;
    for (room, seed) in [(2, 5), (3, 6), (4, 7), (7, 8)] {
        let witness = lost_at_any_moment(room, seed, 600).await;
        assert!(witness.recoveries > 10, "{}", witness.recoveries);
        assert!(witness.lags > 4, "it was slow: {}", witness.lags);
        fresh += witness.fresh;
    }
    assert!(fresh > 3, "both happened: {fresh}");
}

/// `room`: messages that the client's queue holds.
async fn lost_at_any_moment(room: usize, seed: u64, steps: usize) -> Witness {
    let daemon = Daemon::start().await;
    let mut witness = Witness {
        log: Vec::new(),
        heard: HashMap::new(),
        recoveries: 0,
        fresh: 0,
        lags: 0,
        wanted: [None; 2],
    };
    let mut client = daemon.recovering_with_room(room).await;
    let mut dice = Dice(seed);
    // One with a short queue reads little at a time.
    let (mouthful, gulp, blocks) = if room < 100 {
        (room, 2 * room, 3)
    } else {
        (60, 1000, 1)
    };
    for _ in 0..steps {
        match dice.roll(10) {
            0..=1 => {
                for _ in 0..blocks {
                    daemon
                        .mine(&address(1 + dice.roll(2) as u8), Vec::new())
                        .await;
                }
            }
            2..=5 => {
                client.read(dice.roll(mouthful as u64) as usize);
            }
            6..=8 => {
                let n = 1 + dice.roll(2) as u8;
                let text = address(n).to_string();
                let kind = dice.roll(5);
                let of = if kind == 0 { Topic::Blocks } else { topic(n) };
                if kind == 1 || !witness.heard.contains_key(&of) {
                    witness.wanted = [witness.wanted[1], Some(of)];
                }
                let packet = match kind {
                    0 => json!(["subscribe_blocks"]),
                    1 => json!(["unsubscribe_address", {"address": text}]),
                    _ => json!(["subscribe_address", {"address": text}]),
                };
                let mut work = client
                    .client
                    .layer
                    .message(
                        &client.client.session,
                        Message::text(&format!("27{packet}")),
                    )
                    .unwrap();
                if dice.roll(8) > 0 {
                    client.read_during(work).await;
                } else {
                    // Lost in the middle of it.
                    for _ in 0..dice.roll(6) {
                        if (&mut work).now_or_never().is_some() {
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                    if dice.roll(4) > 0 {
                        // The hub has begun with it; otherwise it may be as if the packet had never
                        // come.
                        daemon.app.hub.counts().await.unwrap();
                    }
                    drop(work);
                    client.lose();
                    client.come_back(&daemon).await;
                }
            }
            _ => {
                client.read(dice.roll(3) as usize * gulp);
                // It may be back before anybody has missed it.
                if dice.roll(2) == 0 {
                    client.lose();
                }
                client.come_back(&daemon).await;
                client.read(dice.roll(3) as usize * gulp);
            }
        }
        while let Some(heard) = client.read.pop_front() {
            witness.hears(&daemon, &heard);
        }
    }
    daemon.told().await;
    while daemon.app.hub.counts().await.unwrap().lagging > 0 {
        client.read(1);
        tokio::task::yield_now().await;
    }
    while let Some(heard) = client.queued() {
        witness.hears(&daemon, &heard);
    }
    witness.refresh(&daemon);
    for (topic, heard) in &witness.heard {
        assert_eq!(witness.next(topic, *heard), None);
    }
    witness
}
