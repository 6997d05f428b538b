//! Clients that read more slowly than events come: they hear everything, at their own pace, without
//! a gap and without a double.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::events::{LAG_AGE, Topic};

/// The numbers of the log's events that belong to these topics, after a number.
fn wanted(daemon: &Daemon, topics: &BTreeSet<Topic>, after: u64) -> Vec<u64> {
    let events = daemon.reader.read_events(after, 100_000).unwrap();
    events
        .iter()
        .filter(|(_, event)| topics.contains(&Topic::of(&event.kind)))
        .map(|(number, _)| *number)
        .collect()
}

fn topic(n: u8) -> Topic {
    Topic::Script(crate::tracker::ScriptHash::of(&address(n).script_pubkey()))
}

fn number(data: &Value) -> u64 {
    data["cursor"]
        .as_str()
        .unwrap()
        .rsplit_once('-')
        .unwrap()
        .1
        .parse()
        .unwrap()
}

fn is_of_the_log(name: &str) -> bool {
    matches!(
        name,
        "new_transactions" | "balance_change" | "transaction_update" | "block" | "reorg"
    )
}

/// The numbers of those that are of the log.
fn numbers(heard: &[(String, Value)]) -> Vec<u64> {
    heard
        .iter()
        .filter(|(name, _)| is_of_the_log(name))
        .map(|(_, data)| number(data))
        .collect()
}

fn names(heard: &[(String, Value)]) -> Vec<&str> {
    heard
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| !is_of_the_log(name))
        .collect()
}

impl Daemon {
    async fn lagging(&self) -> usize {
        self.services
            .overview
            .dispatch
            .counts()
            .await
            .unwrap()
            .lagging
    }

    async fn subscribed(&self, n: u8) -> Client {
        let mut client = self.client().await;
        let address = address(n).to_string();
        client
            .emit("subscribe_address", json!({ "address": address }))
            .await;
        client.expect("subscribed").await;
        client
    }

    async fn pay_often(&self, n: u8, salts: impl IntoIterator<Item = u8>) {
        for salt in salts {
            self.pay(&address(n), 1000, salt).await;
        }
        self.told().await;
    }
}

/// Time for a client to begin to lag.
async fn a_while() {
    tokio::time::pause();
    tokio::time::advance(LAG_AGE).await;
    tokio::time::resume();
}

impl Client {
    /// Everything that there is, also what is read from the disk.
    async fn rest(&mut self) -> Vec<(String, Value)> {
        let mut heard = Vec::new();
        while let Ok(packet) = tokio::time::timeout(Duration::from_millis(200), self.hear()).await {
            heard.push(event_of(&packet));
        }
        heard
    }
}

#[tokio::test]
async fn slow_client_is_told_that_it_lags_hears_the_same_bytes_and_delays_nobody() {
    let daemon = Daemon::start().await;
    let (mut slow, mut quick) = (daemon.subscribed(1).await, daemon.subscribed(1).await);
    daemon.pay_often(1, 1..=20).await;
    let expected = quick.queued();
    assert_eq!(expected.len(), 40);
    let first: Vec<_> = [slow.event().await, slow.event().await, slow.event().await].into();
    assert_eq!(first, expected[..3], "it does not lag yet");
    a_while().await;
    let (name, lagged) = slow.event().await;
    assert_eq!((name.as_str(), number(&lagged)), ("lagged", 3));
    assert_eq!(lagged["head"], daemon.services.reads.encoder.cursor(40));
    assert_eq!(daemon.lagging().await, 1);
    let (_, status) = daemon.get("/status").await;
    assert_eq!(
        (
            &status["clients"]["subscribers"],
            &status["clients"]["lagging"]
        ),
        (&json!(2), &json!(1))
    );
    let mut heard = slow.rest().await;
    let (name, caught_up) = heard.pop().unwrap();
    assert_eq!((name.as_str(), number(&caught_up)), ("caught_up", 40));
    assert!(
        lagged["message"].is_string()
            && caught_up["message"].is_string()
            && caught_up.get("head").is_none()
    );
    assert_eq!(heard, expected[3..], "the same events, byte for byte");
    assert_eq!(daemon.lagging().await, 0);
    daemon.pay_often(1, [21]).await;
    assert_eq!(slow.queued(), quick.queued(), "live");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_read_at_any_pace_while_blocks_and_reorgs_come_hear_everything_once() {
    let daemon = Arc::new(Daemon::start().await);
    let texts: Vec<String> = (1..=3).map(|n| address(n).to_string()).collect();
    let mut readers = Vec::new();
    for _ in 0..12 {
        let client = daemon.client().await;
        client
            .emit("subscribe_addresses", json!({ "addresses": texts }))
            .await;
        client.emit("subscribe_blocks", Value::Null).await;
        readers.push((client, Vec::new()));
    }
    let history = tokio::spawn({
        let daemon = daemon.clone();
        async move {
            for salt in 1..=250 {
                let fork = daemon.tip();
                daemon.pay(&address(1 + salt % 3), 1000, salt).await;
                if salt % 5 == 0 {
                    daemon.mine(&address(1 + salt % 2), Vec::new()).await;
                }
                if salt % 25 == 0 {
                    daemon.apply(Input::Disconnect { to: fork, now: NOW }).await;
                }
            }
        }
    });
    let mut round = 0;
    while !history.is_finished() {
        round += 1;
        for (place, (client, heard)) in readers.iter_mut().enumerate() {
            if round % (place + 1) == 0 {
                heard.extend(client.packet().map(|packet| event_of(&packet)));
            }
        }
        tokio::task::yield_now().await;
    }
    history.await.unwrap();
    daemon.told().await;
    let topics = BTreeSet::from([topic(1), topic(2), topic(3), Topic::Blocks]);
    let all = wanted(&daemon, &topics, 0);
    for (mut client, mut heard) in readers {
        heard.extend(client.rest().await);
        assert_eq!(numbers(&heard), all);
    }
}

#[tokio::test]
async fn nothing_of_a_topic_comes_behind_the_end_of_its_subscription() {
    let daemon = Daemon::start().await;
    for read_before in 0..12 {
        let mut client = daemon.subscribed(1).await;
        let from = daemon.reader.snapshot().head().unwrap();
        let second = json!({"address": address(2).to_string()});
        client.emit("subscribe_address", second).await;
        client.expect("subscribed").await;
        for salt in 1..=10 {
            daemon.pay(&address(1), 1000, salt + 20 * read_before).await;
            daemon
                .pay(&address(2), 1000, salt + 10 + 20 * read_before)
                .await;
        }
        daemon.told().await;
        let mut heard = Vec::new();
        for _ in 0..read_before {
            heard.push(client.event().await);
        }
        let first = json!({"address": address(1).to_string()});
        client.emit("unsubscribe_address", first).await;
        daemon.pay(&address(1), 1000, 19 + 20 * read_before).await;
        heard.extend(client.rest().await);
        let end = heard
            .iter()
            .position(|(name, _)| name == "unsubscribed")
            .unwrap();
        let of = |n: u8| {
            let text = address(n).to_string();
            move |(name, data): &&(String, Value)| is_of_the_log(name) && data["address"] == text
        };
        assert_eq!(heard[end..].iter().find(of(1)), None);
        let first: Vec<u64> = heard
            .iter()
            .filter(of(1))
            .map(|(_, data)| number(data))
            .collect();
        let second: Vec<u64> = heard
            .iter()
            .filter(of(2))
            .map(|(_, data)| number(data))
            .collect();
        assert_eq!(wanted(&daemon, &BTreeSet::from([topic(2)]), from), second);
        assert!(
            wanted(&daemon, &BTreeSet::from([topic(1)]), from).starts_with(&first),
            "and nothing before it is skipped"
        );
    }
}

#[tokio::test]
async fn subscription_of_a_client_that_lags_comes_in_its_place() {
    let daemon = Daemon::start().await;
    let mut client = daemon.subscribed(1).await;
    daemon.pay_often(1, 1..=10).await;
    a_while().await;
    let second = json!({"address": address(2).to_string()});
    client.emit("subscribe_address", second).await;
    daemon.pay_often(2, [11]).await;
    let heard = client.rest().await;
    assert_eq!(names(&heard), ["lagged", "subscribed", "caught_up"]);
    assert_eq!(numbers(&heard), (1..=22).collect::<Vec<_>>());
    let at = heard.iter().position(|(name, _)| name == "subscribed");
    let (_, subscribed) = &heard[at.unwrap()];
    assert_eq!(number(subscribed), 20);
    assert_eq!(numbers(&heard[..at.unwrap()]).last(), Some(&20));
}

#[tokio::test]
async fn replay_with_many_addresses_is_whole_while_more_comes() {
    let daemon = Daemon::start().await;
    for n in 1..=2 {
        let body = json!({"address": address(n).to_string()}).to_string();
        daemon.post("/add_address", &body).await;
    }
    daemon.pay_often(1, 1..=60).await;
    let others = (0..5000u32).map(|n| {
        let program: Vec<u8> = n.to_be_bytes().into_iter().cycle().take(32).collect();
        Address::from_witness_program(
            WitnessProgram::new(WitnessVersion::V1, &program).unwrap(),
            KnownHrp::Regtest,
        )
        .to_string()
    });
    let addresses: Vec<String> = [address(1).to_string(), address(2).to_string()]
        .into_iter()
        .chain(others)
        .collect();
    let mut client = daemon.client().await;
    let from = daemon.services.reads.encoder.cursor(10);
    let packet = json!(["subscribe_addresses", {"addresses": addresses, "after": from}]);
    let work = client
        .layer
        .message(&client.session, Message::text(&format!("21{packet}")))
        .unwrap();
    let pay = async {
        for salt in 1..=20 {
            daemon.pay(&address(2), 1000, 100 + salt).await;
        }
    };
    tokio::join!(work, pay);
    daemon.told().await;
    let mut heard = Vec::new();
    while let Ok(packet) = tokio::time::timeout(Duration::from_millis(200), client.hear()).await {
        heard.push(packet);
    }
    let acknowledged = heard.iter().position(|text| text.starts_with("31"));
    assert_eq!(acknowledged, Some(1), "behind the answer");
    heard.remove(1);
    let heard: Vec<_> = heard.iter().map(|text| event_of(text)).collect();
    assert_eq!(names(&heard), ["subscribed", "caught_up"]);
    let topics = BTreeSet::from([topic(1), topic(2)]);
    assert_eq!(numbers(&heard), wanted(&daemon, &topics, 10));
}

#[tokio::test]
async fn client_that_leaves_is_forgotten_however_it_leaves() {
    let daemon = Daemon::start().await;
    let (by_packet, by_loss) = (daemon.subscribed(1).await, daemon.subscribed(1).await);
    daemon.pay_often(1, 1..=10).await;
    assert_eq!(
        daemon
            .services
            .overview
            .dispatch
            .counts()
            .await
            .unwrap()
            .subscribers,
        2
    );
    by_packet.say("1").await;
    by_loss.layer.close(
        &by_loss.session,
        crate::engineio::CloseReason::TransportClose,
    );
    let counts = daemon.services.overview.dispatch.counts().await.unwrap();
    assert_eq!((counts.subscribers, counts.subscriptions), (0, 0));
}

#[tokio::test]
async fn what_retention_took_from_a_slow_client_ends_its_session() {
    let daemon = Daemon::start().await;
    let mut client = daemon.subscribed(1).await;
    daemon.pay_often(1, 1..=60).await;
    daemon.services.events.log.forget_pages();
    daemon.told().await;
    let all = old_by_clock(u64::MAX);
    daemon.indexer.prune_events(all).await.unwrap();
    while !client.outbox.is_closed() {
        client.queued();
        tokio::task::yield_now().await;
    }
    let mut back = daemon.client().await;
    let packet = json!({"address": address(1).to_string(), "after": daemon.services.reads.encoder.cursor(4)});
    back.emit("subscribe_address", packet).await;
    assert_eq!(back.expect("error").await["code"], "cursor_expired");
}

#[tokio::test]
async fn a_page_of_large_events_is_a_short_one() {
    let daemon = Daemon::start().await;
    daemon
        .post(
            "/add_address",
            &json!({"address": address(1).to_string()}).to_string(),
        )
        .await;
    for salt in 1..=4 {
        let spend = |vout| {
            spend(
                OutPoint {
                    txid: Txid::from_byte_array([salt; 32]),
                    vout,
                },
                address(1).script_pubkey(),
                1000,
            )
        };
        daemon
            .mine(&address(2), (0..3000).map(spend).collect())
            .await;
    }
    let (mut at, mut numbers, mut count) = (0, Vec::new(), 0);
    while at < daemon.services.events.log.head() {
        let page = daemon.services.events.log.clone().page(at).await.unwrap();
        numbers.extend(page.entries_after(0).iter().map(|entry| entry.number));
        (at, count) = (page.next, count + 1);
    }
    assert_eq!(
        numbers,
        wanted(&daemon, &BTreeSet::from([topic(1), Topic::Blocks]), 0)
    );
    assert!(
        count > 1 && numbers.len() < 20,
        "{} events on {count} pages",
        numbers.len()
    );
}
