//! The programs of `contrib/bus`, with the stock clients of Redis and of Socket.IO.

use std::os::unix::fs::symlink;

use serde_json::Value;
use tempfile::TempDir;

use super::{KEY, caught_up, is_the_log, pay, start, stream};
use crate::common::program::{node_command, python_command};
use crate::common::{Node, Program, RedisServer, installed, repository, wait_until};

const NAME: &str = "satwatch:regtest";

/// The programs for Node.js, beside the installed packages.
fn modules() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    symlink(
        installed().join("js/node_modules"),
        folder.path().join("node_modules"),
    )
    .expect("the folder is ours");
    for name in ["read.mjs", "emit.mjs"] {
        let from = repository().join("contrib/bus").join(name);
        std::fs::copy(from, folder.path().join(name)).expect("the folder is ours");
    }
    folder
}

fn node_program(folder: &TempDir, name: &str, words: &[&str]) -> Program {
    let mut command = node_command();
    command.arg(folder.path().join(name)).args(words);
    Program::of(command, name)
}

fn python_program(words: &[&str]) -> Program {
    let mut command = python_command();
    command
        .arg(repository().join("contrib/bus/read.py"))
        .args(words);
    Program::of(command, "read.py")
}

/// What was printed, by cursors.
fn cursors(program: &Program) -> Vec<String> {
    let lines = program.lines();
    let events = lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let cursor = |event: Value| {
        assert_eq!(event["cursor"], event["data"]["cursor"]);
        event["cursor"].as_str().expect("a cursor").to_owned()
    };
    events.map(cursor).collect()
}

#[test]
fn readers_print_the_log_once_over_a_restart_with_a_lost_tail_and_a_flush_and_say_what_they_cannot_bridge()
 {
    let (node, mut redis) = (Node::start(), RedisServer::start());
    let mut daemon = start(&node, &redis);
    let (folder, url) = (modules(), redis.url());
    let address = node.address();
    daemon.watch(&address);
    pay(&node, &daemon, &address);
    is_the_log(&redis, &daemon);
    let first = stream(&redis)[0].3.clone();
    let words = [&*url, NAME, &first];
    let readers = [
        python_program(&words),
        node_program(&folder, "read.mjs", &words),
    ];
    let all_read = || {
        caught_up(&daemon);
        let written = super::log(&daemon);
        let expected: Vec<_> = written
            .iter()
            .map(|told| told.3.clone())
            .skip_while(|cursor| *cursor != first)
            .skip(1)
            .collect();
        for reader in &readers {
            wait_until("it has read all", || {
                (cursors(reader).last() == expected.last()).then_some(())
            });
            assert_eq!(cursors(reader), expected);
        }
    };
    all_read();
    let _: String = redis.ask(&["SAVE"]);
    pay(&node, &daemon, &address);
    all_read();
    redis.kill();
    pay(&node, &daemon, &address);
    redis.restart();
    all_read();
    let _: redis::Value = redis.ask(&["FLUSHALL"]);
    wait_until("the next stream", || {
        let current: Option<String> = redis.ask(&["HGET", KEY, "current"]);
        current
    });
    pay(&node, &daemon, &address);
    all_read();

    // A stream that was left is read to its end: the next one begins where it ends.
    let (left, end) = (super::current(&redis), stream(&redis));
    let (end, last) = (&end[end.len() - 2], &end[end.len() - 1]);
    let _: u64 = redis.ask(&["XDEL", &format!("{KEY}:{left}"), &format!("{}-0", last.0)]);
    wait_until("the next stream", || {
        (super::current(&redis) != left).then_some(())
    });
    caught_up(&daemon);
    let key = format!("{KEY}:{}", super::current(&redis));
    let _: u64 = redis.ask(&["XTRIM", &key, "MAXLEN", "1"]);
    let finish = [
        python_program(&words),
        node_program(&folder, "read.mjs", &words),
    ];
    for reader in &finish {
        wait_until("it has read both", || {
            let read = cursors(reader);
            let tail = read.iter().rev().take(2);
            tail.eq([&last.3, &end.3]).then_some(())
        });
    }
    drop(finish);

    // What was trimmed they do not pass over.
    let _: u64 = redis.ask(&["DEL", &format!("{KEY}:{left}")]);
    let mut late = [
        python_program(&words),
        node_program(&folder, "read.mjs", &words),
    ];
    for reader in &mut late {
        let said = reader.ends(1);
        assert!(
            said.contains(&format!("get what follows {first} from satwatch")),
            "{said}"
        );
    }
    // And of another log they say so.
    let words = [&*url, NAME, "other-5"];
    let mut foreign = [
        python_program(&words),
        node_program(&folder, "read.mjs", &words),
    ];
    for reader in &mut foreign {
        let said = reader.ends(1);
        assert!(said.contains("the log is another one now"), "{said}");
    }
    drop(readers);

    // From now on: what a new stream is filled up with is the past.
    daemon.stop();
    let _: redis::Value = redis.ask(&["FLUSHALL"]);
    let words = [&*url, NAME];
    let fresh = [
        python_program(&words),
        node_program(&folder, "read.mjs", &words),
    ];
    wait_until("they have asked", || {
        let clients: String = redis.ask(&["CLIENT", "LIST"]);
        (clients.matches("cmd=hmget").count() == 2).then_some(())
    });
    daemon.restart();
    caught_up(&daemon);
    wait_until("they wait for news", || {
        let clients: String = redis.ask(&["CLIENT", "LIST"]);
        (clients.matches("cmd=xread").count() == 2).then_some(())
    });
    let from: String = redis.ask(&["HGET", KEY, "from"]);
    pay(&node, &daemon, &address);
    caught_up(&daemon);
    let written = super::log(&daemon);
    let news = written.iter().map(|told| told.3.clone());
    let news: Vec<_> = news.skip_while(|cursor| *cursor != from).skip(1).collect();
    assert!(!news.is_empty());
    for reader in &fresh {
        wait_until("it has read the news", || {
            (cursors(reader).last() == news.last()).then_some(())
        });
        assert_eq!(cursors(reader), news);
    }
}

/// A server of Socket.IO with the stock adapter, and one of its clients.
const CLUSTER: &str = r#"
const { createServer } = require("http");
const { createClient } = require("redis");
const { Server } = require("socket.io");
const { createAdapter } = require("@socket.io/redis-adapter");
const { io } = require("socket.io-client");
const [url, address] = process.argv.slice(2);
(async () => {
    const [publish, subscribe] = [createClient({ url }), createClient({ url })];
    await Promise.all([publish.connect(), subscribe.connect()]);
    const http = createServer();
    const server = new Server(http, { adapter: createAdapter(publish, subscribe) });
    server.on("connection", (socket) => { socket.join(address); socket.emit("joined"); });
    http.listen(0, "127.0.0.1", () => {
        const client = io(`http://127.0.0.1:${http.address().port}`);
        client.onAny((event, data) => console.log(JSON.stringify({ event, data })));
    });
})();
"#;

#[test]
fn a_socket_io_cluster_of_somebody_else_is_fed_room_by_room() {
    let (node, redis) = (Node::start(), RedisServer::start());
    let daemon = start(&node, &redis);
    let address = node.address();
    daemon.watch(&address);
    caught_up(&daemon);
    let (folder, url) = (modules(), redis.url());
    std::fs::write(folder.path().join("cluster.js"), CLUSTER).expect("the folder is ours");
    let cluster = node_program(&folder, "cluster.js", &[&url, &address]);
    cluster.event("joined", |_| true);
    let mut emitter = node_program(&folder, "emit.mjs", &[&url, NAME]);
    // It waits at the end of the stream.
    wait_until("it has begun to read", || {
        let clients: String = redis.ask(&["CLIENT", "LIST"]);
        clients.contains("cmd=xread").then_some(())
    });
    pay(&node, &daemon, &address);
    cluster.event("balance_change", |data| data["address"] == *address);
    // What comes while it is not running it emits when it is.
    wait_until("its place is kept", || {
        let kept: Option<String> = redis.ask(&["GET", &format!("{KEY}:emitted")]);
        (kept == stream(&redis).last().map(|told| told.3.clone())).then_some(())
    });
    emitter.kill();
    pay(&node, &daemon, &address);
    is_the_log(&redis, &daemon);
    let balance = stream(&redis);
    let mut balance = balance.iter().rev().filter(|it| it.1 == "balance_change");
    let cursor = balance.next().expect("an event").3.clone();
    let _emitter = node_program(&folder, "emit.mjs", &[&url, NAME]);
    cluster.event("balance_change", |data| data["cursor"] == *cursor);
    let told = cluster.lines().join("\n");
    assert!(!told.contains("\"block\""), "that is another room: {told}");
}
