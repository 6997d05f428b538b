//! Webhooks as their receivers see them: with moods, through restarts and kills of the daemon,
//! verified by the stock libraries.

mod receiver;
mod rotation;
mod socks;
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::common::daemon::request;
use crate::common::{Answer, COIN, Daemon, Node, Program, ledger, wait_until};
use receiver::{Post, Receiver, Reply};

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];
/// To localhost, and impatient.
const SETTINGS: &[(&str, &str)] = &[
    ("webhooks.allow_private", "true"),
    ("webhooks.timeout", "1"),
    ("webhooks.give_up_after", "600"),
    ("monitor.reconcile_interval", "1"),
];
/// Deliveries of one webhook at the same time: what a kill may repeat.
const IN_FLIGHT: usize = 8;

fn put(daemon: &Daemon, name: &str, definition: &Value) -> Answer {
    daemon.request(
        "PUT",
        &format!("/consumers/{name}"),
        JSON,
        Some(definition.to_string().as_bytes()),
    )
}

fn consumer(daemon: &Daemon, name: &str) -> Value {
    let answer = daemon.get(&format!("/consumers/{name}"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json
}

fn letters(daemon: &Daemon, query: &str) -> Value {
    let answer = daemon.get(&format!("/consumers/shop/dead_letters{query}"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json
}

/// Waits until nothing is left to be delivered.
fn wait_delivered(daemon: &Daemon, name: &str) {
    wait_until("everything is delivered", || {
        let consumer = consumer(daemon, name);
        let is_done = consumer["lag"] == 0
            && consumer["webhook"]["pending"] == 0
            && consumer["webhook"]["in_flight"] == 0;
        is_done.then_some(())
    });
}

fn key(data: &Value) -> String {
    data["address"].as_str().unwrap_or_default().to_owned()
}

fn number(post: &Post) -> u64 {
    let cursor = post.json["cursor"].as_str().expect("a cursor is text");
    cursor
        .rsplit('-')
        .next()
        .and_then(|number| number.parse().ok())
        .expect("a cursor ends with a number")
}

fn pay_all(node: &Node, addresses: &[String], satoshi: i64) {
    let amount = crate::common::node::bitcoin(satoshi);
    let outputs: serde_json::Map<_, _> = addresses
        .iter()
        .map(|address| (address.clone(), json!(amount)))
        .collect();
    node.payer("sendmany", json!(["", outputs]));
}

/// A receiver that fails half the time, in every way.
fn fails_half_the_time() -> impl FnMut(&Post) -> Reply + Send + 'static {
    const FAILURES: [Reply; 8] = [
        Reply::Status(500),
        Reply::With(302, "Location: /elsewhere"),
        Reply::Close,
        Reply::Status(400),
        Reply::Hang,
        Reply::With(429, "Retry-After: 1"),
        Reply::With(503, "Retry-After: nonsense"),
        Reply::With(307, "Location: /elsewhere"),
    ];
    let (mut state, mut failures) = (7_u64, FAILURES.iter().cycle());
    move |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        match (state >> 33) % 2 {
            0 => Reply::Status(204),
            _ => *failures.next().expect("it has no end"),
        }
    }
}

#[test]
fn a_receiver_that_fails_half_the_time_gets_everything_in_order_through_stops_and_kills() {
    let (node, receiver) = (Node::start(), Receiver::start(fails_half_the_time()));
    let mut daemon = Daemon::with(&node, SETTINGS);
    let addresses: Vec<_> = (0..5).map(|_| node.address()).collect();
    addresses.iter().for_each(|address| daemon.watch(address));
    let made = put(
        &daemon,
        "shop",
        &json!({ "url": receiver.url("localhost"), "blocks": true }),
    );
    assert_eq!(made.status, 201, "{}", made.text);
    let begin = made.json["cursor"]
        .as_str()
        .expect("a cursor is text")
        .to_owned();
    let mut kills = 0;
    for round in 0..4 {
        pay_all(&node, &addresses, COIN / 10 + round);
        if round % 2 == 1 {
            node.mine(1);
        }
        let seen = receiver.posts().len();
        wait_until("some more attempts", || {
            (receiver.posts().len() >= seen + 6).then_some(())
        });
        match round {
            0 | 2 => daemon.kill(),
            1 => daemon.stop(),
            _ => continue,
        }
        kills += 1;
        pay_all(&node, &addresses, COIN / 20 + round);
        daemon.restart();
    }
    daemon.wait_tip(&node);
    wait_until("the transactions of the mempool are seen", || {
        let events = ledger::read(&daemon);
        let seen = events
            .iter()
            .filter(|event| event["event"] == "new_transactions")
            .count();
        (seen >= 7 * addresses.len()).then_some(())
    });
    receiver.set(|_| Reply::Status(200));
    wait_delivered(&daemon, "shop");

    let wanted: Vec<Value> = ledger::read(&daemon)
        .into_iter()
        .filter(|event| event["cursor"].as_str() > Some(&begin) || longer(event, &begin))
        .collect();
    let mut delivered: BTreeMap<String, Value> = BTreeMap::new();
    let (mut last, mut repeated) = (BTreeMap::new(), 0);
    for post in receiver.accepted() {
        let cursor = post.json["cursor"]
            .as_str()
            .expect("a cursor is text")
            .to_owned();
        assert_eq!(post.headers["webhook-id"], format!("shop_{cursor}"));
        assert_eq!(
            post.headers["user-agent"],
            format!("satwatch/{}", env!("CARGO_PKG_VERSION"))
        );
        let event =
            json!({ "cursor": cursor, "event": post.json["event"], "data": post.json["data"] });
        if delivered.insert(cursor, event).is_some() {
            repeated += 1;
        } else {
            let before = last.insert(key(&post.json["data"]), number(&post));
            assert!(
                before < Some(number(&post)),
                "{} behind {before:?}",
                post.body
            );
        }
    }
    assert_eq!(delivered.len(), wanted.len(), "each event was accepted");
    for event in &wanted {
        assert_eq!(
            delivered.get(event["cursor"].as_str().expect("text")),
            Some(event)
        );
    }
    assert!(
        repeated <= kills * IN_FLIGHT,
        "{repeated} repeated for {kills} restarts"
    );
    assert!(
        receiver
            .posts()
            .iter()
            .all(|(post, _)| post.path == "/hook?shop=1"),
        "redirects are not followed"
    );
    assert_eq!(letters(&daemon, "")["total"], 0);
}

/// Numbers have no leading zeros, so a longer cursor is a later one.
fn longer(event: &Value, than: &str) -> bool {
    event["cursor"]
        .as_str()
        .is_some_and(|cursor| cursor.len() > than.len())
}

#[test]
fn a_dead_letter_is_kept_through_a_restart_and_sent_again_or_dropped_when_a_person_says_so() {
    let node = Node::start();
    let (good, bad) = (node.address(), node.address());
    let refused = bad.clone();
    let receiver = Receiver::start(move |post| {
        Reply::Status(if post.body.contains(&refused) {
            500
        } else {
            200
        })
    });
    let mut settings = SETTINGS.to_vec();
    settings[2].1 = "1";
    let mut daemon = Daemon::with(&node, &settings);
    [&good, &bad]
        .into_iter()
        .for_each(|address| daemon.watch(address));
    let made = put(
        &daemon,
        "shop",
        &json!({ "url": receiver.url("127.0.0.1") }),
    );
    assert_eq!(made.status, 201, "{}", made.text);
    node.pay(&bad, COIN);
    node.pay(&good, COIN);
    wait_until("the two events of the payment are dead letters", || {
        (letters(&daemon, "")["total"] == 2).then_some(())
    });
    wait_delivered(&daemon, "shop");
    let first = letters(&daemon, "?limit=1");
    let letter = &first["dead_letters"][0];
    assert_eq!(
        (&first["count"], &first["total"], &first["next"]),
        (&json!(1), &json!(2), &letter["cursor"])
    );
    assert_eq!(
        (&letter["data"]["address"], &letter["resending"]),
        (&json!(bad), &json!(false)),
        "{letter}"
    );
    assert!(
        letter["error"]
            .as_str()
            .is_some_and(|error| error.contains("500") && error.contains("a mood")),
        "{letter}"
    );
    assert!(
        letter["attempts"].as_u64() >= Some(2)
            && letter["first_failed"].as_f64() < letter["last_tried"].as_f64(),
        "{letter}"
    );
    let rest = letters(
        &daemon,
        &format!("?after={}", first["next"].as_str().expect("text")),
    );
    assert_eq!((&rest["count"], &rest["next"]), (&json!(1), &Value::Null));
    let good_events: BTreeSet<_> = receiver
        .accepted()
        .iter()
        .map(|post| key(&post.json["data"]))
        .collect();
    assert_eq!(
        good_events,
        BTreeSet::from([good]),
        "the other address went on"
    );

    daemon.kill();
    daemon.restart();
    assert_eq!(letters(&daemon, "")["total"], 2);
    let resend =
        |daemon: &Daemon, body: &Value| daemon.post("/consumers/shop/dead_letters/resend", body);
    let unknown = format!("{}9", letter["cursor"].as_str().expect("text"));
    for (body, status) in [
        (json!({ "cursors": [letter["cursor"], unknown] }), 410),
        (
            json!({ "cursors": [letter["cursor"], made.json["cursor"]] }),
            404,
        ),
        (json!({ "cursors": "x" }), 400),
        (json!({ "cursors": ["x"] }), 400),
    ] {
        let answer = resend(&daemon, &body);
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    receiver.set(|_| Reply::Status(200));
    let answer = resend(&daemon, &json!({ "cursors": [letter["cursor"]] }));
    assert_eq!(
        (answer.status, &answer.json["count"]),
        (202, &json!(1)),
        "{}",
        answer.text
    );
    wait_until("it is taken from the list", || {
        (letters(&daemon, "")["total"] == 1).then_some(())
    });
    assert!(
        receiver
            .accepted()
            .iter()
            .any(|post| post.json["cursor"] == letter["cursor"]
                && post.json["data"] == letter["data"])
    );
    let dropped = daemon.request("DELETE", "/consumers/shop/dead_letters", &[], None);
    assert_eq!(
        (
            dropped.status,
            &dropped.json["count"],
            &letters(&daemon, "")["total"]
        ),
        (200, &json!(1), &json!(0)),
        "{}",
        dropped.text
    );
}

#[test]
fn addresses_that_are_not_on_the_public_internet_are_refused_by_literal_and_by_name() {
    let (node, receiver) = (Node::start(), Receiver::start(|_| Reply::Status(200)));
    let daemon = Daemon::start(&node);
    let address = node.address();
    daemon.watch(&address);
    for host in [
        "127.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "10.0.0.1",
        "169.254.169.254",
    ] {
        let answer = put(&daemon, "shop", &json!({ "url": receiver.url(host) }));
        assert_eq!(
            (answer.status, &answer.json["code"]),
            (400, &json!("webhook_target_refused")),
            "{}",
            answer.text
        );
        assert!(
            answer.json["error"]
                .as_str()
                .is_some_and(|error| error.contains("webhooks.allow_private")),
            "{}",
            answer.text
        );
    }
    for bad in [
        json!({ "url": "ftp://shop.example/" }),
        json!({ "url": "http://u:p@shop.example/" }),
        json!({ "secret": "whsec_eHh4" }),
        json!({ "url": 7 }),
    ] {
        assert_eq!(put(&daemon, "shop", &bad).status, 400, "{bad}");
    }
    assert_eq!(
        daemon.get("/consumers/shop").status,
        404,
        "a refused definition has changed nothing"
    );
    assert_eq!(
        put(
            &daemon,
            "shop",
            &json!({ "url": receiver.url("localhost") })
        )
        .status,
        201,
        "names are looked at when they are used"
    );
    node.pay(&address, COIN);
    let error = wait_until("the delivery fails", || {
        consumer(&daemon, "shop")["webhook"]["last_error"]
            .as_str()
            .map(str::to_owned)
    });
    assert!(
        error.contains("localhost") && error.contains("webhooks.allow_private"),
        "{error}"
    );
    let webhook = &consumer(&daemon, "shop")["webhook"];
    assert_eq!(
        (&webhook["state"], &webhook["last_success"]),
        (&json!("failing"), &Value::Null),
        "{webhook}"
    );
    assert!(receiver.posts().is_empty(), "nothing was posted");
}

/// The example receivers print what they have verified.
#[test]
fn the_stock_libraries_verify_the_signatures_and_refuse_forged_ones() {
    let node = Node::start();
    let daemon = Daemon::with(&node, SETTINGS);
    let address = node.address();
    daemon.watch(&address);
    for (name, is_python) in [("python", true), ("js", false)] {
        let port = crate::common::node::free_port();
        let url = format!("http://127.0.0.1:{port}/");
        let made = put(
            &daemon,
            name,
            &json!({ "addresses": [address], "url": url }),
        );
        let secret = made.json["secret"]
            .as_str()
            .unwrap_or_else(|| panic!("a secret is made: {}", made.text))
            .to_owned();
        let program = example(is_python, port, &secret);
        program.line("that it listens", |line| {
            line.contains("listening").then_some(())
        });
        break_off(port);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("it is after 1970").as_secs().to_string();
        for (signature, body) in [
            ("v1,AAAA", &b"{}"[..]),
            ("v1,A", b"{}"),
            ("abc", b"{}"),
            ("v1,AAAA", b"\xff"),
        ] {
            let headers = [
                ("webhook-id", "x_1"),
                ("webhook-timestamp", &*now),
                ("webhook-signature", signature),
            ];
            let forged = request("POST", &url, &headers, Some(body));
            let forged = forged.unwrap_or_else(|error| panic!("{name}, {signature}: {error}"));
            assert_eq!(forged.status, 400, "{name}, {signature}");
        }
        node.pay(&address, COIN);
        program.event("balance_change", |data| data["address"] == *address);
        wait_delivered(&daemon, name);
    }
    let again = put(
        &daemon,
        "js",
        &json!({ "addresses": [address], "url": "http://127.0.0.1:9/" }),
    );
    assert_eq!(
        (again.status, &again.json["secret"]),
        (200, &Value::Null),
        "a secret is shown once and kept: {}",
        again.text
    );
}

/// As a peer does that goes in the middle of its body.
fn break_off(port: u16) {
    let mut peer = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    peer.write_all(b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 100\r\n\r\n{")
        .expect("it takes that");
}

fn example(is_python: bool, port: u16, secret: &str) -> Program {
    let (environment, port) = ([("WEBHOOK_SECRET", secret)], port.to_string());
    match is_python {
        true => Program::python_in(&environment, "../../contrib/python/webhook.py", &[&port]),
        false => Program::node_in(&environment, "../../contrib/js/webhook.js", &[&port]),
    }
}
