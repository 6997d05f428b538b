//! Clients that read more slowly than events come: they are told from the log and come back to
//! live, without a gap and without a double.

use std::collections::BTreeSet;

use futures_util::FutureExt;
use serde_json::json;

use super::*;
use crate::api::subscriptions::Topic;

/// The numbers of the log's events that belong to these topics, after a number.
fn wanted(daemon: &Daemon, topics: &BTreeSet<Topic>, after: u64) -> Vec<u64> {
    let events = daemon.app.reader.read_events(after, 100_000).unwrap();
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

impl Client {
    /// Reads until an event of this name has come.
    async fn read_to(&mut self, name: &str) -> Vec<(String, Value)> {
        let mut heard = Vec::new();
        while heard
            .last()
            .is_none_or(|(last, _): &(String, Value)| last != name)
        {
            heard.push(self.event().await);
        }
        heard
    }

    /// Reads while this packet is worked on.
    async fn say_and_read(&mut self, packet: &str) -> Vec<(String, Value)> {
        let work = self
            .layer
            .message(&self.session, Message::text(packet))
            .expect("it is work");
        self.read_during(work).await
    }

    async fn read_during(&mut self, work: impl Future<Output = ()>) -> Vec<(String, Value)> {
        let (mut work, mut heard) = (std::pin::pin!(work), Vec::new());
        while (&mut work).now_or_never().is_none() {
            heard.extend(self.queued());
            tokio::task::yield_now().await;
        }
        heard
    }
}

impl Daemon {
    async fn lagging(&self) -> usize {
        self.app.hub.counts().await.unwrap().lagging
    }

    async fn subscribed(&self, room: usize, n: u8) -> Client {
        let mut client = self.client_with_room(room).await;
        client
            .emit(
                "subscribe_address",
                json!({"address": address(n).to_string()}),
            )
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

#[tokio::test]
async fn a_client_that_reads_too_slowly_is_told_from_the_log_and_is_live_again_and_delays_nobody() {
    let daemon = Daemon::start().await;
    let (mut slow, mut quick) = (
        daemon.subscribed(3, 1).await,
        daemon.subscribed(1000, 1).await,
    );
    daemon.pay_often(1, 1..=20).await;
    let expected = quick.queued();
    assert_eq!(expected.len(), 40);
    assert_eq!(daemon.lagging().await, 1);
    let (_, status) = daemon.get("/status").await;
    assert_eq!(
        (
            &status["clients"]["subscribers"],
            &status["clients"]["lagging"]
        ),
        (&json!(2), &json!(1))
    );

    let mut heard = slow.read_to("caught_up").await;
    let at = heard.iter().position(|(name, _)| name == "lagged").unwrap();
    let (_, lagged) = heard.remove(at);
    assert_eq!(
        (number(&lagged), at),
        (3, 3),
        "it was told this far: three is what its queue holds"
    );
    assert_eq!(lagged["head"], daemon.app.wire.cursor(40));
    let (_, caught_up) = heard.pop().unwrap();
    assert_eq!(number(&caught_up), 40);
    assert!(
        lagged["message"].is_string()
            && caught_up["message"].is_string()
            && caught_up.get("head").is_none()
    );
    assert_eq!(heard, expected, "the same events, byte for byte");

    assert_eq!(daemon.lagging().await, 0);
    daemon.pay_often(1, [21]).await;
    assert_eq!(slow.queued(), quick.queued(), "live");
}

#[tokio::test]
async fn a_lag_ends_exactly_wherever_the_queue_fills() {
    let daemon = Daemon::start().await;
    daemon
        .post(
            "/add_address",
            &json!({"address": address(1).to_string()}).to_string(),
        )
        .await;
    let topics = BTreeSet::from([topic(1), Topic::Blocks]);
    let mut satoshi = 1000;
    for room in 2..=6 {
        for burst in 1..=9 {
            let mut client = daemon.client_with_room(room).await;
            let from = client
                .say_and_read(&format!(
                    "2{}",
                    json!(["subscribe_address", {"address": address(1).to_string()}])
                ))
                .await;
            let mut heard = client.say_and_read(r#"2["subscribe_blocks"]"#).await;
            heard.extend(client.queued());
            let from = from
                .iter()
                .chain(&heard)
                .find(|(name, _)| name == "subscribed")
                .map(|(_, data)| number(data))
                .unwrap();
            // Some at once, and then one more with each that is read: the end of one lag is the
            // beginning of the next.
            for step in 0..burst * 2 {
                if step % 3 == 2 {
                    daemon.mine(&address(1), Vec::new()).await;
                }
                satoshi += 1;
                daemon.pay(&address(1), satoshi, 9).await;
                if step >= burst {
                    heard.push(client.event().await);
                }
            }
            daemon.told().await;
            while daemon.lagging().await > 0 {
                heard.extend(client.queued());
            }
            heard.extend(client.queued());
            assert_eq!(
                numbers(&heard),
                wanted(&daemon, &topics, from),
                "room {room}, burst {burst}"
            );
            let lags = names(&heard);
            let lags: Vec<_> = lags
                .into_iter()
                .filter(|name| matches!(*name, "lagged" | "caught_up"))
                .collect();
            assert!(
                lags.chunks(2).all(|pair| pair == ["lagged", "caught_up"]),
                "{lags:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_read_at_any_pace_while_blocks_and_reorgs_come_hear_everything_once() {
    let daemon = Arc::new(Daemon::start().await);
    let texts: Vec<String> = (1..=3).map(|n| address(n).to_string()).collect();
    let readers = (2..=13usize).map(|room| {
        let (daemon, texts) = (daemon.clone(), texts.clone());
        async move {
            let mut client = daemon.client_with_room(room).await;
            let mut heard = client
                .say_and_read(&format!(
                    "2{}",
                    json!(["subscribe_addresses", {"addresses": texts}])
                ))
                .await;
            heard.extend(client.say_and_read(r#"2["subscribe_blocks"]"#).await);
            (client, heard)
        }
    });
    let mut readers = futures_util::future::join_all(readers).await;
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
    while !history.is_finished() || daemon.lagging().await > 0 {
        round += 1;
        for (place, (client, heard)) in readers.iter_mut().enumerate() {
            if round % (place + 1) == 0 {
                heard.extend(
                    client
                        .queue
                        .try_recv()
                        .map(|group| event_of(&packet_text(group))),
                );
            }
        }
        tokio::task::yield_now().await;
    }
    history.await.unwrap();
    daemon.told().await;
    let topics = BTreeSet::from([topic(1), topic(2), topic(3), Topic::Blocks]);
    let mut lags = 0;
    for (mut client, mut heard) in readers {
        while daemon.lagging().await > 0 {
            heard.extend(client.queued());
        }
        heard.extend(client.queued());
        lags += names(&heard)
            .iter()
            .filter(|name| **name == "lagged")
            .count();
        assert_eq!(numbers(&heard), wanted(&daemon, &topics, 0));
    }
    assert!(lags > 6, "they were slow: {lags}");
}

#[tokio::test]
async fn nothing_of_a_topic_comes_behind_the_end_of_its_subscription_also_in_a_lag() {
    let daemon = Daemon::start().await;
    for read_before in 0..12 {
        let mut client = daemon.subscribed(4, 1).await;
        let from = daemon.app.reader.snapshot().head().unwrap();
        client
            .emit(
                "subscribe_address",
                json!({"address": address(2).to_string()}),
            )
            .await;
        client.expect("subscribed").await;
        for salt in 1..=10 {
            daemon.pay(&address(1), 1000, salt + 20 * read_before).await;
            daemon
                .pay(&address(2), 1000, salt + 10 + 20 * read_before)
                .await;
        }
        daemon.told().await;
        assert_eq!(daemon.lagging().await, 1);
        let mut heard = Vec::new();
        for _ in 0..read_before {
            heard.push(client.event().await);
        }
        heard.extend(
            client
                .say_and_read(&format!(
                    "2{}",
                    json!(["unsubscribe_address", {"address": address(1).to_string()}])
                ))
                .await,
        );
        daemon.pay(&address(1), 1000, 19 + 20 * read_before).await;
        if !names(&heard).contains(&"caught_up") {
            heard.extend(client.read_to("caught_up").await);
        }
        heard.extend(client.queued());
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
async fn a_subscription_during_a_lag_begins_when_that_is_over() {
    let daemon = Daemon::start().await;
    let mut client = daemon.subscribed(4, 1).await;
    daemon.pay_often(1, 1..=10).await;
    let mut heard = client
        .say_and_read(&format!(
            "2{}",
            json!(["subscribe_address", {"address": address(2).to_string()}])
        ))
        .await;
    heard.extend(client.queued());
    assert_eq!(names(&heard), ["lagged", "caught_up", "subscribed"]);
    assert_eq!(numbers(&heard), (1..=20).collect::<Vec<_>>());
    daemon.pay_often(2, [11]).await;
    assert_eq!(numbers(&client.queued()), [21, 22]);
}

#[tokio::test]
async fn a_subscription_that_would_wait_too_long_is_refused_and_changes_nothing() {
    let daemon = Daemon::start().await;
    let mut client = daemon.subscribed(4, 1).await;
    daemon.pay_often(1, 1..=10).await;
    let packet = format!(
        "27{}",
        json!(["subscribe_address", {"address": address(2).to_string()}])
    );
    let work = client
        .layer
        .message(&client.session, Message::text(&packet))
        .unwrap();
    tokio::pin!(work);
    tokio::time::pause();
    let mut heard = Vec::new();
    // It takes one every 11 seconds: slow, but it does not stall.
    let mut is_refused = false;
    for step in 1..=6 {
        is_refused = tokio::time::timeout(Duration::from_secs(11), &mut work)
            .await
            .is_ok();
        assert!(!is_refused || step == 6, "after a minute");
        heard.push(packet_text(
            client.queue.try_recv().expect("something always waits"),
        ));
    }
    tokio::time::resume();
    while !is_refused {
        is_refused = work.as_mut().now_or_never().is_some();
        heard.extend(std::iter::from_fn(|| client.queue.try_recv()).map(packet_text));
        tokio::task::yield_now().await;
    }
    while !heard.iter().any(|text| text.starts_with("2[\"caught_up\"")) {
        heard.push(client.hear().await);
    }
    let heard: Vec<_> = heard
        .iter()
        .filter(|text| text.starts_with('2'))
        .map(|text| event_of(text))
        .collect();
    let (_, error) = heard.iter().find(|(name, _)| name == "error").unwrap();
    assert_eq!(error["code"], "lagging");
    assert_eq!(numbers(&heard), (1..=20).collect::<Vec<_>>());
    assert_eq!(daemon.app.reader.snapshot().counts().unwrap().addresses, 1);
}

/// The client begins to lag at each moment of a subscription's work.
#[tokio::test]
async fn a_lag_that_begins_in_the_middle_of_a_subscription_does_not_mix_with_it() {
    let mut seen = BTreeSet::new();
    for polls in 0..40 {
        let daemon = Daemon::start().await;
        let mut client = daemon.subscribed(4, 1).await;
        daemon
            .post(
                "/add_address",
                &json!({"address": address(2).to_string()}).to_string(),
            )
            .await;
        // The second subscription to 1 is owed what comes while it is being worked on.
        let packet = json!(["subscribe_addresses", {"addresses": [address(2).to_string(), address(1).to_string()]}]);
        let mut work = client
            .layer
            .message(&client.session, Message::text(&format!("2{packet}")))
            .unwrap();
        let mut is_done = false;
        for _ in 0..polls {
            is_done = is_done || (&mut work).now_or_never().is_some();
            tokio::task::yield_now().await;
        }
        for salt in 1..=9 {
            daemon.pay(&address(1 + salt % 2), 1000, salt).await;
        }
        daemon.told().await;
        let was_lagging = daemon.lagging().await > 0;
        let mut heard = match is_done {
            true => Vec::new(),
            false => client.read_during(work).await,
        };
        while daemon.lagging().await > 0 {
            heard.extend(client.queued());
        }
        daemon.pay_often(1, [10]).await;
        daemon.pay_often(2, [11]).await;
        while daemon.lagging().await > 0 {
            heard.extend(client.queued());
        }
        heard.extend(client.queued());
        seen.insert((is_done, was_lagging));
        let (_, subscribed) = heard.iter().find(|(name, _)| name == "subscribed").unwrap();
        for (n, from) in [(1, 0), (2, number(subscribed))] {
            let text = address(n).to_string();
            let of: Vec<_> = heard
                .iter()
                .filter(|(_, data)| data["address"] == text)
                .cloned()
                .collect();
            assert_eq!(
                numbers(&of),
                wanted(&daemon, &BTreeSet::from([topic(n)]), from),
                "after {polls} polls: {n}"
            );
        }
    }
    assert!(seen.len() > 1, "it was at more than one place: {seen:?}");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed_and_loses_nothing() {
    let daemon = Daemon::start().await;
    let (mut stalled, mut quick) = (
        daemon.subscribed(4, 1).await,
        daemon.subscribed(1000, 1).await,
    );
    daemon.pay_often(1, 1..=10).await;
    let before = stalled.event().await;
    assert_eq!(daemon.lagging().await, 1);
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert!(!stalled.outbox.is_closed());
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(stalled.outbox.is_closed());
    tokio::time::resume();
    while daemon.lagging().await > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(daemon.app.hub.counts().await.unwrap().subscribers, 1);
    assert_eq!(stalled.queued(), [], "nothing more is sent to it");

    let mut back = daemon.client_with_room(4).await;
    let packet = json!(["subscribe_address", {"address": address(1).to_string(), "after": before.1["cursor"]}]);
    let mut heard = vec![before];
    heard.extend(back.say_and_read(&format!("2{packet}")).await);
    heard.extend(back.queued());
    assert_eq!(numbers(&heard), numbers(&quick.queued()));
    assert_eq!(names(&heard), ["subscribed", "caught_up"]);
}

#[tokio::test]
async fn a_client_that_reads_slowly_all_the_time_is_not_closed() {
    let daemon = Daemon::start().await;
    let mut slow = daemon.subscribed(2, 1).await;
    daemon.pay_often(1, 1..=6).await;
    tokio::time::pause();
    let mut heard = Vec::new();
    while names(&heard).last() != Some(&"caught_up") {
        tokio::time::sleep(Duration::from_secs(20)).await;
        // What it is sent is read from the disk, which the clock does not wait for.
        heard.push(slow.event().await);
    }
    assert_eq!(numbers(&heard), (1..=12).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_replay_to_a_slow_client_with_many_addresses_is_whole_and_leaves_room_for_what_comes_meanwhile()
 {
    let daemon = Daemon::start().await;
    daemon
        .post(
            "/add_address",
            &json!({"address": address(1).to_string()}).to_string(),
        )
        .await;
    daemon
        .post(
            "/add_address",
            &json!({"address": address(2).to_string()}).to_string(),
        )
        .await;
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
    for room in [2, 3, 40] {
        let from = daemon.app.wire.cursor(10);
        let mut client = daemon.client_with_room(room).await;
        let packet = json!(["subscribe_addresses", {"addresses": addresses, "after": from}]);
        let work = client
            .layer
            .message(&client.session, Message::text(&format!("21{packet}")))
            .unwrap();
        let pay = async {
            for salt in 1..=20 {
                daemon
                    .pay(&address(2), 1000, 100 + salt + 25 * (room % 5) as u8)
                    .await;
            }
        };
        let mut heard = Vec::new();
        let (mut work, mut pay) = (work, Box::pin(pay));
        let mut is_paid = false;
        while (&mut work).now_or_never().is_none() {
            is_paid = is_paid || (&mut pay).now_or_never().is_some();
            heard.extend(client.queue.try_recv().map(packet_text));
            tokio::task::yield_now().await;
        }
        if !is_paid {
            pay.await;
        }
        daemon.told().await;
        while daemon.lagging().await > 0 {
            heard.extend(client.queue.try_recv().map(packet_text));
        }
        heard.extend(std::iter::from_fn(|| client.queue.try_recv()).map(packet_text));
        let acknowledgements = heard.iter().filter(|text| text.starts_with("31")).count();
        let heard: Vec<_> = heard
            .iter()
            .filter(|text| text.starts_with('2'))
            .map(|text| event_of(text))
            .collect();
        assert_eq!(acknowledgements, 1);
        assert_eq!(names(&heard)[0], "subscribed");
        assert!(names(&heard).contains(&"caught_up"));
        assert_eq!(
            numbers(&heard),
            wanted(&daemon, &BTreeSet::from([topic(1), topic(2)]), 10),
            "room {room}"
        );
    }
}

#[tokio::test]
async fn one_that_lags_is_forgotten_when_it_leaves() {
    let daemon = Daemon::start().await;
    let (by_packet, by_loss) = (daemon.subscribed(4, 1).await, daemon.subscribed(4, 1).await);
    daemon.pay_often(1, 1..=10).await;
    assert_eq!(daemon.lagging().await, 2);
    by_packet.say("1").await;
    by_loss.layer.close(
        &by_loss.session,
        crate::engineio::CloseReason::TransportClose,
    );
    while daemon.lagging().await > 0 {
        tokio::task::yield_now().await;
    }
    let counts = daemon.app.hub.counts().await.unwrap();
    assert_eq!((counts.subscribers, counts.subscriptions), (0, 0));
}

#[tokio::test]
async fn what_retention_took_from_a_lagging_client_ends_its_session() {
    let daemon = Daemon::start().await;
    let mut client = daemon.subscribed(4, 1).await;
    daemon.pay_often(1, 1..=10).await;
    assert_eq!(daemon.lagging().await, 1);
    daemon.app.hub.pages.forget();
    daemon
        .app
        .indexer
        .prune_events(old_by_clock(u64::MAX))
        .await
        .unwrap();
    while daemon.lagging().await > 0 {
        client.queued();
        tokio::task::yield_now().await;
    }
    assert!(client.outbox.is_closed());
    let mut back = daemon.client().await;
    let packet = json!({"address": address(1).to_string(), "after": daemon.app.wire.cursor(4)});
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
    let (pages, mut at, mut numbers, mut count) = (&daemon.app.hub.pages, 0, Vec::new(), 0);
    loop {
        let page = pages.page_now(at).unwrap();
        numbers.extend(page.after(at).iter().map(|entry| entry.number));
        (at, count) = (page.next, count + 1);
        if page.is_last {
            break;
        }
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
