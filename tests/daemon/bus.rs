//! The log on Redis, with a real redis-server: whatever becomes of it or of the daemon, the streams
//! are the log, in order and once, or the status says what is wrong.

mod examples;
mod refused;
mod stream;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{COIN, Daemon, Node, RedisServer, wait_until};

pub const KEY: &str = "{satwatch:regtest}";
/// What a stream is compared by: number, name, subject, cursor, data.
type Told = (u64, String, String, String, Value);

fn start(node: &Node, redis: &RedisServer) -> Daemon {
    Daemon::with(node, &[("bus.url", &redis.url())])
}

fn status(daemon: &Daemon) -> Value {
    daemon.get("/status").json["bus"].clone()
}

/// Waits until all of the log is written.
pub fn caught_up(daemon: &Daemon) -> Value {
    wait_until("the stream follows the log", || {
        let bus = status(daemon);
        (bus["state"] == "writing" && bus["lag"] == 0).then_some(bus)
    })
}

fn waits(daemon: &Daemon, words: &str) -> Value {
    wait_until(words, || {
        let bus = status(daemon);
        let problem = bus["problem"].as_str().unwrap_or_default();
        (bus["state"] == "waiting" && problem.contains(words)).then_some(bus)
    })
}

fn pointer(redis: &RedisServer) -> HashMap<String, String> {
    redis.ask(&["HGETALL", KEY])
}

fn current(redis: &RedisServer) -> String {
    pointer(redis)["current"].clone()
}

/// The current stream; checks that each entry says which was before it.
fn stream(redis: &RedisServer) -> Vec<Told> {
    let key = format!("{KEY}:{}", current(redis));
    let entries: Vec<(String, Vec<String>)> = redis.ask(&["XRANGE", &key, "-", "+"]);
    let mut before = None;
    let read = |(id, words): (String, Vec<String>)| {
        let (number, zero) = id.split_once('-').expect("an id");
        let number: u64 = number.parse().expect("a number");
        let (names, values): (Vec<_>, Vec<_>) =
            words.chunks(2).map(|pair| (&*pair[0], &*pair[1])).unzip();
        assert_eq!(names, ["after", "event", "subject", "cursor", "data"]);
        let after: u64 = values[0].parse().expect("a number");
        assert!(
            before.is_none_or(|before| before == after) && zero == "0",
            "{id} {after}"
        );
        before = Some(number);
        let [event, subject, cursor] = [1, 2, 3].map(|at: usize| values[at].to_owned());
        let data = serde_json::from_str(values[4]).expect("JSON");
        (number, event, subject, cursor, data)
    };
    entries.into_iter().map(read).collect()
}

/// The daemon's log.
fn log(daemon: &Daemon) -> Vec<Told> {
    let answer = daemon
        .get("/events?limit=1000&address=all&descriptor=all")
        .json;
    let events = answer["events"].as_array().expect("events").iter();
    let read = |event: &Value| {
        let cursor = event["data"]["cursor"]
            .as_str()
            .expect("a cursor")
            .to_owned();
        let (_, number) = cursor.rsplit_once('-').expect("a number");
        let data = &event["data"];
        let subject = data["address"].as_str().or(data["descriptor_id"].as_str());
        let subject = subject.unwrap_or_default();
        (
            number.parse().expect("a number"),
            event["event"].as_str().expect("a name").to_owned(),
            subject.to_owned(),
            cursor,
            event["data"].clone(),
        )
    };
    events.map(read).collect()
}

/// The stream is the log from the first entry on.
fn is_the_log(redis: &RedisServer, daemon: &Daemon) -> usize {
    caught_up(daemon);
    let (stream, log) = (stream(redis), log(daemon));
    let kept = log.len().saturating_sub(stream.len());
    assert!(!stream.is_empty(), "{}", daemon.log());
    assert_eq!(stream, log[kept..], "{}", daemon.log());
    stream.len()
}

fn pay(node: &Node, daemon: &Daemon, address: &str) {
    node.pay(address, COIN);
    node.mine(1);
    daemon.wait_tip(node);
}

#[test]
fn every_event_is_written_once_and_a_restart_goes_on_with_the_same_stream() {
    let (node, redis) = (Node::start(), RedisServer::start());
    let mut daemon = start(&node, &redis);
    let address = node.address();
    daemon.watch(&address);
    let listed = node.owner("listdescriptors", json!([]));
    let listed = listed["descriptors"].as_array().expect("a list");
    let mut texts = listed.iter().filter_map(|one| one["desc"].as_str());
    let wallet = texts.find(|text| text.starts_with("wpkh("));
    let added = daemon.post("/descriptors", &json!({ "descriptor": wallet }));
    let id = added.json["descriptor_id"].as_str().expect("an id");
    pay(&node, &daemon, &address);
    let before = is_the_log(&redis, &daemon);
    assert!(before >= 3, "{before}");
    let of_wallet = stream(&redis).iter().any(|told| told.2 == id);
    assert!(of_wallet, "{:?}", stream(&redis));
    let (bus, found) = (status(&daemon), pointer(&redis));
    let key = format!("{KEY}:{}", found["current"]);
    assert_eq!(
        (&bus["stream"], &bus["url"]),
        (&key.into(), &redis.url().into())
    );
    assert_eq!(bus["problem"], Value::Null);
    assert_eq!(found["network"], "regtest");
    let starts: Vec<(String, u64, u64)> = serde_json::from_str(&found["starts"]).expect("a list");
    assert_eq!(starts.last().expect("a start").0, found["writer"]);
    let metrics = daemon.get("/metrics").text;
    for line in [
        "satwatch_bus_writing 1",
        "satwatch_bus_lag 0",
        "satwatch_bus_problems_total 0",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    daemon.stop();
    let expires = pointer(&redis).get("expires").cloned();
    assert_eq!(expires, None, "the lease is given back");

    daemon.restart();
    pay(&node, &daemon, &address);
    assert!(is_the_log(&redis, &daemon) > before);
    assert_eq!(current(&redis), found["current"]);

    // Killed, it cannot give the lease back.
    daemon.kill();
    daemon.restart();
    pay(&node, &daemon, &address);
    is_the_log(&redis, &daemon);
    assert_eq!(current(&redis), found["current"]);
    assert!(
        !daemon.log().contains("a stream is begun"),
        "{}",
        daemon.log()
    );
}

#[test]
fn redis_that_loses_its_last_entries_gets_them_again_and_a_flushed_one_gets_a_new_stream() {
    let (node, mut redis) = (Node::start(), RedisServer::start());
    let daemon = start(&node, &redis);
    let address = node.address();
    daemon.watch(&address);
    pay(&node, &daemon, &address);
    is_the_log(&redis, &daemon);
    let first = current(&redis);
    let _: String = redis.ask(&["SAVE"]);
    pay(&node, &daemon, &address);
    let written = is_the_log(&redis, &daemon);
    redis.kill();
    waits(&daemon, "cannot be reached");
    pay(&node, &daemon, &address);
    redis.restart();
    assert!(is_the_log(&redis, &daemon) > written);
    assert_eq!(current(&redis), first, "with the same stream");

    // While nothing happens it is seen, too.
    for (words, what) in [
        (&["FLUSHALL"][..], "there was none"),
        (&["DEL", KEY], "there was none"),
        (&["XTRIM", "STREAM", "MAXLEN", "0"], "is empty"),
    ] {
        let before = current(&redis);
        let key = format!("{KEY}:{before}");
        let words: Vec<_> = words
            .iter()
            .map(|it| if *it == "STREAM" { &key } else { *it })
            .collect();
        let _: redis::Value = redis.ask(&words);
        wait_until("the next stream", || {
            let next: Option<String> = redis.ask(&["HGET", KEY, "current"]);
            next.filter(|next| *next != before)
        });
        assert!(daemon.log().contains(what), "{what}: {}", daemon.log());
        is_the_log(&redis, &daemon);
    }
    // What somebody else has put there is no cursor, whatever its bytes.
    let key = format!("{KEY}:{}", current(&redis));
    let mut connection = redis.connection().expect("Redis answers");
    let mut foreign = redis::cmd("XADD");
    foreign.arg(&key).arg("*").arg("cursor").arg(&b"\xff"[..]);
    let _: String = foreign.query(&mut connection).expect("an id");
    wait_until("the next stream", || {
        daemon.log().contains("is not of this log").then_some(())
    });
    is_the_log(&redis, &daemon);
    // Its ids are beyond its last entry.
    let key = format!("{KEY}:{}", current(&redis));
    let last = stream(&redis).last().expect("an entry").0;
    let _: u64 = redis.ask(&["XDEL", &key, &format!("{last}-0")]);
    wait_until("the next stream", || {
        daemon.log().contains("refuses their ids").then_some(())
    });
    is_the_log(&redis, &daemon);
}

#[test]
fn a_trimmed_stream_is_a_stretch_of_the_log_and_entries_say_what_is_missing() {
    let (node, redis) = (
        Node::start(),
        RedisServer::with(&["--stream-node-max-entries", "1"]),
    );
    let daemon = Daemon::with(&node, &[("bus.url", &redis.url()), ("bus.max_length", "6")]);
    let address = node.address();
    daemon.watch(&address);
    for _ in 0..3 {
        pay(&node, &daemon, &address);
    }
    assert_eq!(is_the_log(&redis, &daemon), 6);
    // A new one begins with as many.
    let _: redis::Value = redis.ask(&["FLUSHALL"]);
    wait_until("the next stream", || {
        let current: Option<String> = redis.ask(&["HGET", KEY, "current"]);
        current
    });
    assert_eq!(is_the_log(&redis, &daemon), 6);
    let key = format!("{KEY}:{}", current(&redis));
    let first: Vec<(String, Vec<String>)> = redis.ask(&["XRANGE", &key, "-", "+", "COUNT", "1"]);
    assert_eq!(
        format!("{}-0", first[0].1[1].parse::<u64>().unwrap() + 1),
        first[0].0
    );
}

#[test]
fn a_lease_that_would_last_for_hours_is_none_and_a_pointer_of_somebody_else_is_told() {
    let (node, redis) = (Node::start(), RedisServer::start());
    let mut daemon = start(&node, &redis);
    caught_up(&daemon);
    daemon.stop();
    let of_another = |left: u64| {
        let (now, _): (u64, u64) = redis.ask(&["TIME"]);
        let expires = ((now + left) * 1000).to_string();
        let words = ["HSET", KEY, "writer", "other", "expires", &expires];
        let _: u64 = redis.ask(&words);
    };
    // Redis's clock was set back by an hour.
    of_another(3600);
    daemon.restart();
    let address = node.address();
    daemon.watch(&address);
    pay(&node, &daemon, &address);
    is_the_log(&redis, &daemon);
    daemon.stop();
    let n = current(&redis);
    for foreign in ["x", "007", ""] {
        let _: u64 = redis.ask(&["HSET", KEY, "current", foreign]);
        daemon.restart();
        waits(&daemon, "something else at the keys");
        daemon.stop();
    }
    let _: u64 = redis.ask(&["HSET", KEY, "current", &n]);
    daemon.restart();
    is_the_log(&redis, &daemon);
    assert_eq!(current(&redis), n);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("cp can be run").success());
}

/// A daemon with a copy of this one's folder, stopped.
fn copy_of(daemon: &mut Daemon, node: &Node, redis: &RedisServer) -> Daemon {
    let mut other = start(node, redis);
    other.stop();
    std::fs::remove_dir_all(other.store()).expect("the folder is ours");
    daemon.stop();
    copy(&daemon.store(), &other.store());
    daemon.restart();
    caught_up(daemon);
    other
}

#[test]
fn a_copy_of_the_folder_that_is_put_back_begins_the_next_stream() {
    let (node, redis) = (Node::start(), RedisServer::start());
    let mut daemon = start(&node, &redis);
    let address = node.address();
    daemon.watch(&address);
    daemon.stop();
    let (store, kept) = (daemon.store(), daemon.store().with_extension("copy"));
    copy(&store, &kept);
    daemon.restart();
    pay(&node, &daemon, &address);
    is_the_log(&redis, &daemon);
    let before = current(&redis);
    daemon.stop();
    std::fs::remove_dir_all(&store).expect("the folder is ours");
    copy(&kept, &store);
    daemon.restart();
    daemon.wait_tip(&node);
    is_the_log(&redis, &daemon);
    assert_ne!(current(&redis), before);
    assert!(
        daemon.log().contains("is not of this log"),
        "{}",
        daemon.log()
    );
    let left: i64 = redis.ask(&["TTL", &format!("{KEY}:{before}")]);
    assert!(left > 0, "readers may finish with it: {left}");
}

#[test]
fn a_second_daemon_waits_until_the_first_has_stopped() {
    let (node, redis) = (Node::start(), RedisServer::start());
    let mut first = start(&node, &redis);
    caught_up(&first);
    let mut second = copy_of(&mut first, &node, &redis);
    second.restart();
    let bus = waits(&second, "another satwatch");
    let remedy = bus["remedy"].as_str().expect("a remedy");
    assert!(remedy.contains("stop the other satwatch"), "{remedy}");
    let address = node.address();
    first.watch(&address);
    pay(&node, &first, &address);
    is_the_log(&redis, &first);
    let before = current(&redis);
    first.stop();
    is_the_log(&redis, &second);
    assert_ne!(current(&redis), before, "it knows nothing of the payment");

    // The other way that is advised.
    first.set("bus.stream", "other");
    first.restart();
    caught_up(&first);
    let length: u64 = redis.ask(&["HLEN", "{other}"]);
    assert_eq!(length, 7);
}

#[test]
fn a_daemon_with_another_log_leaves_the_stream_alone() {
    let (node, redis) = (Node::start(), RedisServer::start());
    let mut first = start(&node, &redis);
    let address = node.address();
    first.watch(&address);
    pay(&node, &first, &address);
    is_the_log(&redis, &first);
    let mut second = start(&node, &redis);
    waits(&second, "of another log");
    first.stop();
    let before = pointer(&redis);
    let key = format!("{KEY}:{}", before["current"]);
    second.stop();
    second.restart();
    let bus = waits(&second, "of another log");
    assert_eq!(bus["remedy"], "set bus.stream to another name");
    assert_eq!(pointer(&redis), before);
    let length: u64 = redis.ask(&["XLEN", &key]);
    second.stop();
    second.set("bus.stream", "other");
    second.restart();
    caught_up(&second);
    first.restart();
    pay(&node, &first, &address);
    assert!(is_the_log(&redis, &first) as u64 > length);
    assert_eq!(current(&redis), before["current"]);
}

#[test]
fn who_was_held_up_for_longer_than_the_lease_writes_no_more() {
    let (node, redis) = (Node::start(), RedisServer::start());
    let mut first = start(&node, &redis);
    caught_up(&first);
    let mut second = copy_of(&mut first, &node, &redis);
    let signal = |name: &str| {
        let sent = Command::new("kill")
            .args([name, &first.pid().to_string()])
            .status();
        assert!(sent.expect("kill can be run").success());
    };
    signal("-STOP");
    second.restart();
    caught_up(&second);
    signal("-CONT");
    waits(&first, "another satwatch");
    let address = node.address();
    for daemon in [&first, &second] {
        daemon.watch(&address);
    }
    pay(&node, &second, &address);
    is_the_log(&redis, &second);
}

#[test]
fn a_daemon_that_starts_before_redis_writes_when_it_comes_and_stops_in_time_while_it_hangs() {
    let (node, mut redis) = (Node::start(), RedisServer::start());
    redis.kill();
    let mut daemon = start(&node, &redis);
    let bus = waits(&daemon, "cannot be reached");
    let remedy = bus["remedy"].as_str().expect("a remedy");
    assert!(remedy.contains("start Redis"), "{remedy}");
    let address = node.address();
    daemon.watch(&address);
    pay(&node, &daemon, &address);
    redis.restart();
    is_the_log(&redis, &daemon);
    assert_eq!(
        daemon.log().matches("the bus does not write").count(),
        1,
        "each change is told once: {}",
        daemon.log()
    );

    redis.signal("-STOP");
    pay(&node, &daemon, &address);
    daemon.wait_balance(&address, 2 * COIN, 0);
    daemon.stop();
    assert!(
        !daemon.log().contains("going on without"),
        "{}",
        daemon.log()
    );
    redis.signal("-CONT");
    daemon.restart();
    is_the_log(&redis, &daemon);
}

#[test]
fn a_replica_that_is_promoted_without_the_last_entries_gets_them_through_the_sentinel() {
    let (node, mut master) = (Node::start(), RedisServer::start());
    let port = master.port.to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    let conf = replica.folder().join("sentinel.conf");
    std::fs::write(
        &conf,
        format!("sentinel monitor satwatch 127.0.0.1 {port} 1\n"),
    )
    .expect("the folder is ours");
    let conf = conf.display().to_string();
    let sentinel = RedisServer::sentinel(&conf);
    let url = format!("redis+sentinel://127.0.0.1:{}/satwatch", sentinel.port);
    let daemon = Daemon::with(&node, &[("bus.url", &url)]);
    let address = node.address();
    daemon.watch(&address);
    pay(&node, &daemon, &address);
    is_the_log(&master, &daemon);
    wait_until("the replica has the stream", || {
        let master: HashMap<String, String> = master.ask(&["HGETALL", KEY]);
        let key = format!("{KEY}:{}", master["current"]);
        let count: u64 = replica.ask(&["XLEN", &key]);
        (count > 0).then_some(())
    });
    wait_until("the sentinel knows the replica", || {
        let known: Vec<redis::Value> = sentinel.ask(&["SENTINEL", "REPLICAS", "satwatch"]);
        (!known.is_empty()).then_some(())
    });
    let before = current(&replica);
    // It does not hear of what comes now.
    let _: String = replica.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    pay(&node, &daemon, &address);
    let written = is_the_log(&master, &daemon);
    master.kill();
    let _: String = replica.ask(&["REPLICAOF", "NO", "ONE"]);
    assert!(stream(&replica).len() < written, "it lags");
    let moved = [
        ["SENTINEL", "REMOVE", "satwatch", "", "", ""],
        [
            "SENTINEL",
            "MONITOR",
            "satwatch",
            "127.0.0.1",
            &replica.port.to_string(),
            "1",
        ],
    ];
    for words in moved {
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let _: String = sentinel.ask(&words);
    }
    pay(&node, &daemon, &address);
    assert!(is_the_log(&replica, &daemon) > written);
    assert_eq!(current(&replica), before);
}
