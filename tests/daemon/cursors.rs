//! Cursors: where they are, what they live through, and what a client hears whose cursor is not
//! good any more. Depths of confirmation that were asked for, which are events with cursors like
//! any other.

use satwatch::store;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Answer, COIN, Client, Daemon, Node, ledger, wait_until};
use crate::reorg::NEVER;
use crate::reorg::story::agrees;

/// A daemon on a store that the test can open while it is down.
struct Life {
    node: Node,
    daemon: Daemon,
    address: String,
    store: TempDir,
}

impl Life {
    fn begin() -> Self {
        let node = Node::start();
        let store = tempfile::Builder::new()
            .prefix("satwatch-store-")
            .tempdir()
            .expect("a temporary folder can be made");
        let path = store.path().join("of-the-daemon").display().to_string();
        let daemon = Daemon::with(&node, &[("store.path", &path)]);
        let address = node.address();
        daemon.watch(&address);
        Self {
            node,
            daemon,
            address,
            store,
        }
    }

    /// Pays the address and waits until that is known.
    fn pay(&self, satoshi: i64) -> String {
        let before = self.daemon.balance(&self.address)["balance"]
            .as_i64()
            .expect("satoshi");
        let txid = self.node.pay(&self.address, satoshi);
        wait_until("the payment is known", || {
            (self.daemon.balance(&self.address)["balance"] == before + satoshi).then_some(())
        });
        txid
    }

    /// Deletes the events from before this time, as retention does, while the daemon is down. How
    /// many that were.
    fn forget_events_before(&mut self, milliseconds: u64) -> usize {
        self.daemon.stop();
        let (mut writer, reader) =
            store::open(&self.store.path().join("of-the-daemon"), None, 0, &|| false)
                .expect("nobody has it open");
        // By the clock alone: the chain of a test is young.
        let cutoff = store::Cutoff {
            before: milliseconds,
            now: u64::MAX,
            young: u32::MAX,
        };
        let count = writer.prune_events(&cutoff).expect("it can be written");
        drop(reader);
        writer.close().expect("it can be written");
        self.daemon.restart();
        count
    }

    fn after(&self, cursor: &str) -> Answer {
        self.daemon.get(&format!(
            "/events?limit=1000&address={}&after={cursor}",
            self.address
        ))
    }
}

fn cursor_of(object: &Value) -> String {
    object["cursor"]
        .as_str()
        .unwrap_or_else(|| panic!("no cursor in {object}"))
        .to_owned()
}

fn number(cursor: &str) -> u64 {
    cursor
        .rsplit('-')
        .next()
        .and_then(|number| number.parse().ok())
        .expect("a cursor ends with a number")
}

/// The cursors of the events of an answer.
fn listed(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(cursor_of)
        .collect()
}

/// What a client that comes back with a cursor is told up to `caught_up`, in the order of the
/// cursors.
fn replayed(daemon: &Daemon, address: &str, after: &str) -> Vec<String> {
    let client = Client::connect(daemon);
    let subscribed = client.ask(
        "subscribe_address",
        &json!({ "address": address, "after": after }),
    );
    assert_eq!(subscribed["code"], Value::Null, "{subscribed}");
    client.event("caught_up", |_| true);
    let names = ["new_transactions", "transaction_update", "balance_change"];
    let mut cursors: Vec<_> = names
        .iter()
        .flat_map(|name| client.all(name))
        .map(|data| cursor_of(&data))
        .collect();
    cursors.sort_by_key(|cursor| number(cursor));
    cursors
}

#[test]
fn cursors_are_in_every_answer_and_every_event() {
    let life = Life::begin();
    let Life {
        node,
        daemon,
        address,
        ..
    } = &life;
    let client = Client::connect(daemon);
    let connected = client.event("connected", |_| true);
    let subscribed = client.ask("subscribe_address", &json!({ "address": address }));
    let blocks = client.ask("subscribe_blocks", &json!({}));
    for hello in [&connected, &subscribed, &subscribed["balance"], &blocks] {
        cursor_of(hello);
    }
    life.pay(COIN);
    node.mine(1);
    agrees(daemon, node, address);
    client.event("block", |data| data["hash"] == *node.tip());
    let log = ledger::read(daemon);
    assert!(log.len() >= 4, "{log:?}");
    let log_id = cursor_of(&connected)
        .rsplit_once('-')
        .expect("it ends with a number")
        .0
        .to_owned();
    for event in &log {
        assert_eq!(cursor_of(event), cursor_of(&event["data"]));
        assert!(cursor_of(event).starts_with(&log_id), "{event}");
        assert!(
            client
                .all(event["event"].as_str().expect("a name"))
                .contains(&event["data"]),
            "{event}"
        );
    }
    let head = cursor_of(log.last().expect("not empty"));
    for path in [
        "/status",
        "/addresses",
        "/balance/",
        "/utxos/",
        "/transactions/",
    ] {
        let path = if path.ends_with('/') {
            format!("{path}{address}")
        } else {
            path.to_owned()
        };
        let answer = daemon.get(&path);
        assert_eq!(
            (
                answer.headers["satwatch-cursor"].to_str().expect("a text"),
                &answer.json["cursor"]
            ),
            (&*head, &json!(head)),
            "{path}"
        );
    }
    for path in [
        "/nowhere/at/all",
        "/balance/x",
        "/events?after=x",
        "/metrics",
        "/health/ready",
    ] {
        let answer = daemon.get(path);
        let has = answer
            .headers
            .get("satwatch-cursor")
            .is_some_and(|cursor| cursor == head.as_str());
        assert!(
            has || answer.json["code"] == "not_found",
            "{path} {:?}",
            answer.headers
        );
    }
    for (path, body) in [
        ("/add_address", json!({ "address": address })),
        ("/scan_history/", json!({})),
    ] {
        let path = if path.ends_with('/') {
            format!("{path}{address}")
        } else {
            path.to_owned()
        };
        let answer = daemon.post(&path, &body);
        assert_eq!(
            answer.headers["satwatch-cursor"].to_str().expect("a text"),
            cursor_of(&answer.json),
            "{path}"
        );
    }
}

#[test]
fn a_cursor_lives_through_restarts_and_kills_of_daemon_and_node() {
    let mut life = Life::begin();
    let begin = cursor_of(&life.daemon.balance(&life.address));
    let mut known: Vec<String> = Vec::new();
    for round in 0..4 {
        life.pay(20_000 + round);
        match round {
            0 => {
                life.daemon.stop();
                life.daemon.restart();
            }
            1 => {
                life.daemon.kill();
                life.node.pay(&life.address, 50_000);
                life.daemon.restart();
            }
            2 => {
                life.node.stop();
                life.node.restart();
                life.daemon.wait_ready();
            }
            _ => {
                life.node.kill();
                life.daemon.kill();
                life.node.restart();
                life.daemon.restart();
            }
        }
        agrees(&life.daemon, &life.node, &life.address);
        let cursors = listed(&life.after(&begin));
        assert_eq!(
            cursors[..known.len()],
            known,
            "what was told keeps its place"
        );
        known = cursors;
        // From each place on: what comes later, once and in order.
        for place in [0, known.len() / 2, known.len() - 1] {
            assert_eq!(listed(&life.after(&known[place])), known[place + 1..]);
            assert_eq!(
                replayed(&life.daemon, &life.address, &known[place]),
                known[place + 1..]
            );
        }
        assert_eq!(replayed(&life.daemon, &life.address, &begin), known);
    }
    ledger::check(&life.daemon);
}

#[test]
fn the_cursor_of_another_log_or_beyond_this_one_is_unknown_and_comes_with_a_snapshot() {
    let mut life = Life::begin();
    life.pay(COIN);
    let old = cursor_of(&life.daemon.balance(&life.address));
    let beyond = format!(
        "{}-{}",
        old.rsplit_once('-').expect("it ends with a number").0,
        number(&old) + 1
    );
    assert_eq!(
        (
            life.after(&beyond).status,
            &life.after(&beyond).json["code"]
        ),
        (410, &json!("cursor_unknown"))
    );

    // The store is moved away: the same addresses in a new log, with the same numbers.
    life.daemon.stop();
    std::fs::rename(
        life.store.path().join("of-the-daemon"),
        life.store.path().join("moved"),
    )
    .expect("it is ours");
    life.daemon.restart();
    life.daemon.watch(&life.address);
    life.daemon.wait_balance(&life.address, 0, COIN);
    life.pay(2 * COIN);
    let answer = life.after(&old);
    assert_eq!(
        (answer.status, &answer.json["code"]),
        (410, &json!("cursor_unknown")),
        "{}",
        answer.text
    );
    assert_eq!(answer.json["balances"][0]["balance"], 3 * COIN);

    let client = Client::connect(&life.daemon);
    let subscribed = client.ask(
        "subscribe_address",
        &json!({ "address": life.address, "after": old }),
    );
    assert_eq!(
        (&subscribed["code"], &subscribed["balance"]["balance"]),
        (&json!("cursor_unknown"), &json!(3 * COIN))
    );
    let error = client.event("error", |_| true);
    assert_eq!(error["code"], "cursor_unknown");
    for fresh in [
        cursor_of(&answer.json),
        cursor_of(&subscribed),
        cursor_of(&error),
    ] {
        assert_eq!(
            listed(&life.after(&fresh)),
            Vec::<String>::new(),
            "from here on nothing is missing"
        );
    }
    life.pay(4 * COIN);
    client.event("balance_change", |data| data["new_balance"] == 7 * COIN);
    assert_eq!(client.all("balance_change").len(), 1);
    assert_eq!(listed(&life.after(&cursor_of(&answer.json))).len(), 2);
}

#[test]
fn an_expired_cursor_comes_with_a_snapshot_from_which_one_goes_on_without_a_gap() {
    let mut life = Life::begin();
    let begin = cursor_of(&life.daemon.balance(&life.address));
    for satoshi in [10_000, 20_000, 40_000] {
        life.pay(satoshi);
    }
    let log = ledger::read(&life.daemon);
    // The third payment and what follows stays.
    let kept = log
        .iter()
        .position(|event| event["data"]["new_balance"] == 30_000)
        .expect("two are paid")
        + 1;
    let from = log[kept]["data"]["timestamp"].as_f64().expect("seconds");
    assert_eq!(
        life.forget_events_before((from * 1000.0).round() as u64),
        kept
    );

    let first = cursor_of(&log[kept - 1]);
    let expected: Vec<_> = log[kept..].iter().map(cursor_of).collect();
    assert_eq!(
        listed(&life.after(&first)),
        expected,
        "the last cursor that is good"
    );
    assert_eq!(replayed(&life.daemon, &life.address, &first), expected);
    assert_eq!(
        listed(&life.daemon.get("/events")),
        expected,
        "without a cursor: from the first that is kept"
    );
    for expired in log[..kept - 1].iter().map(cursor_of).chain([begin.clone()]) {
        let answer = life.after(&expired);
        assert_eq!(
            (answer.status, &answer.json["code"], &answer.json["first"]),
            (410, &json!("cursor_expired"), &json!(first))
        );
        assert_eq!(
            answer.json["balances"],
            json!([life.daemon.balance(&life.address)])
        );
        assert!(
            answer.json["error"]
                .as_str()
                .expect("a sentence")
                .contains("events.retention_days"),
            "{}",
            answer.text
        );
        let client = Client::connect(&life.daemon);
        let subscribed = client.ask(
            "subscribe_address",
            &json!({ "address": life.address, "after": expired, "snapshot": false }),
        );
        assert_eq!(
            (&subscribed["code"], &subscribed["balance"]["balance"]),
            (&json!("cursor_expired"), &json!(70_000)),
            "{subscribed}"
        );
        assert_eq!(client.event("error", |_| true)["first"], *first);
        assert_eq!(subscribed["cursor"], answer.json["cursor"]);
    }
    // The snapshot, and from there on each once, over REST and on the socket.
    let restart = life.after(&begin).json;
    let client = Client::connect(&life.daemon);
    client.ask(
        "subscribe_address",
        &json!({ "address": life.address, "after": begin }),
    );
    life.pay(80_000);
    let answer = life.after(&cursor_of(&restart));
    assert_eq!(
        answer.json["events"][1]["data"]["old_balance"],
        restart["balances"][0]["balance"]
    );
    assert_eq!(listed(&answer).len(), 2);
    let change = client.event("balance_change", |_| true);
    assert_eq!(
        (&change, client.all("balance_change").len()),
        (&answer.json["events"][1]["data"], 1)
    );
}

#[test]
fn numbers_are_not_given_again_when_every_event_was_deleted() {
    let mut life = Life::begin();
    life.pay(10_000);
    let head = cursor_of(&life.daemon.balance(&life.address));
    let count = life.forget_events_before(u64::MAX);
    assert_eq!(count as u64, number(&head));
    assert_eq!(cursor_of(&life.daemon.balance(&life.address)), head);
    assert_eq!(
        (
            listed(&life.after(&head)),
            listed(&life.daemon.get("/events"))
        ),
        (vec![], vec![])
    );
    life.pay(20_000);
    let new = listed(&life.after(&head));
    let numbers: Vec<_> = new.iter().map(|cursor| number(cursor)).collect();
    assert_eq!(numbers, [number(&head) + 1, number(&head) + 2]);
    life.daemon.kill();
    life.daemon.restart();
    assert_eq!(life.forget_events_before(u64::MAX), 2);
    life.pay(40_000);
    assert_eq!(listed(&life.after(&new[1])).len(), 2);
}

#[test]
fn what_is_not_a_cursor_is_refused_everywhere() {
    let life = Life::begin();
    life.pay(10_000);
    let client = Client::connect(&life.daemon);
    let long = format!("{}-1", "a".repeat(4000));
    for text in [
        "",
        "-",
        "x",
        "5",
        "ffff-",
        "-5",
        "ffff-1e3",
        "ffff--1x",
        "ffff-18446744073709551616",
        "\u{0}",
        "é-é",
        "null",
        &long,
    ] {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for path in ["/events?after=", "/events?wait=60&after="] {
            let answer = life.daemon.get(&format!("{path}{encoded}"));
            assert_eq!(
                (answer.status, &answer.json["code"]),
                (400, &json!("invalid_cursor")),
                "{path}{text} {}",
                answer.text
            );
        }
        let answer = client.ask(
            "subscribe_address",
            &json!({ "address": life.address, "after": text }),
        );
        assert_eq!(answer["code"], "invalid_cursor", "{text} {answer}");
    }
    for wrong in [json!(5), json!(["x"]), json!({}), json!(true)] {
        let answer = client.ask(
            "subscribe_address",
            &json!({ "address": life.address, "after": wrong }),
        );
        assert_eq!(answer["code"], "invalid_field", "{wrong} {answer}");
    }
    life.pay(20_000);
    assert_eq!(
        client.all("balance_change"),
        Vec::<Value>::new(),
        "a refused subscription is none"
    );
}

/// The confirmations of a transaction's updates, with their cursors.
fn depths(daemon: &Daemon, txid: &str) -> Vec<(i64, String)> {
    let updates = ledger::read(daemon)
        .into_iter()
        .filter(|event| event["event"] == "transaction_update" && event["data"]["txid"] == *txid);
    updates
        .map(|event| {
            (
                event["data"]["confirmations"].as_i64().expect("a number"),
                cursor_of(&event),
            )
        })
        .collect()
}

fn reached(daemon: &Daemon, txid: &str) -> Vec<i64> {
    depths(daemon, txid)
        .into_iter()
        .map(|(depth, _)| depth)
        .collect()
}

#[test]
fn a_depth_that_is_reached_again_is_told_again_with_a_cursor_of_its_own() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[NEVER]);
    let address = node.address();
    let client = Client::connect(&daemon);
    client.ask(
        "subscribe_address",
        &json!({ "address": address, "confirmations": [1, 3, 6] }),
    );
    let txid = node.pay(&address, COIN);
    let blocks = node.mine(6);
    agrees(&daemon, &node, &address);
    node.rpc("invalidateblock", json!([blocks[1]]));
    agrees(&daemon, &node, &address);
    node.mine(1);
    agrees(&daemon, &node, &address);
    node.mine(7);
    agrees(&daemon, &node, &address);
    let told = depths(&daemon, &txid);
    assert_eq!(
        told.iter().map(|(depth, _)| *depth).collect::<Vec<_>>(),
        [1, 3, 6, 3, 6]
    );
    let numbers: Vec<_> = told.iter().map(|(_, cursor)| number(cursor)).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "{numbers:?}"
    );
    // Who has seen the first time at 6 is told the rest.
    let rest = replayed(&daemon, &address, &told[2].1);
    assert_eq!(rest, [told[3].1.clone(), told[4].1.clone()]);
    wait_until("the live client has all of them", || {
        (client.all("transaction_update").len() == 5).then_some(())
    });
}

#[test]
fn depths_of_several_subscribers_and_later_ones_add_up_and_are_replayed() {
    let node = Node::start();
    let mut daemon = Daemon::with(&node, &[NEVER]);
    let (address, other) = (node.address(), node.address());
    let (two, four) = (Client::connect(&daemon), Client::connect(&daemon));
    two.ask(
        "subscribe_address",
        &json!({ "address": address, "confirmations": [2] }),
    );
    four.ask(
        "subscribe_address",
        &json!({ "address": address, "confirmations": [4] }),
    );
    two.ask("subscribe_address", &json!({ "address": other }));
    let (txid, plain) = (node.pay(&address, COIN), node.pay(&other, COIN));
    node.mine(3);
    agrees(&daemon, &node, &address);
    // Depths belong to the address: each subscriber hears all of them.
    assert_eq!(reached(&daemon, &txid), [1, 2]);
    for client in [&two, &four] {
        client.event("transaction_update", |data| {
            data["txid"] == *txid && data["confirmations"] == 2
        });
    }
    // Asked for at 3: 3 is past, 5 is to come. Everybody is away when 4 is reached.
    let late = Client::connect(&daemon);
    let place = cursor_of(&late.ask(
        "subscribe_address",
        &json!({ "address": address, "confirmations": [3, 5] }),
    ));
    drop((two, four, late));
    node.mine(1);
    agrees(&daemon, &node, &address);
    daemon.stop();
    node.mine(1);
    daemon.restart();
    agrees(&daemon, &node, &address);
    assert_eq!(reached(&daemon, &txid), [1, 2, 4, 5]);
    assert_eq!(replayed(&daemon, &address, &place).len(), 2);
    assert_eq!(reached(&daemon, &plain), [1], "nobody asked for more");
    // A reorg below: what was added late is told as well when it is reached again.
    let first = node.rpc("getblockhash", json!([node.height() - 3]));
    node.rpc("invalidateblock", json!([first]));
    agrees(&daemon, &node, &address);
    node.mine(5);
    agrees(&daemon, &node, &address);
    assert_eq!(reached(&daemon, &txid), [1, 2, 4, 5, 2, 3, 4, 5]);
    let listed = daemon.get("/addresses").json["addresses"]
        .as_array()
        .expect("a list")
        .clone();
    let asked = listed
        .iter()
        .find(|it| it["address"] == *address)
        .expect("it is watched");
    assert_eq!(
        asked["confirmations"],
        json!([1, 2, 3, 4, 5]),
        "the first confirmation is always told"
    );
    ledger::check(&daemon);
}
