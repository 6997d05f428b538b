//! What keeps the bus from writing: the one cause, in the status, by `doctor` and in the log, and
//! each remedy helps. The password is nowhere.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use super::{KEY, caught_up, is_the_log, pay, status, waits};
use crate::common::node::free_port;
use crate::common::{Daemon, Node, RedisServer, tls, wait_until};
use crate::doctor::{Doctor, bare};

const PASSWORD: &str = "hunter2-of-redis";

fn doctor(node: &Node, url: &str) -> Doctor {
    Doctor::beside(node).with("bus.url", url)
}

fn with_login(redis: &RedisServer, login: &str) -> String {
    redis.url().replace("://", &format!("://{login}@"))
}

#[test]
fn a_wrong_password_and_a_user_who_may_not_are_told_apart_and_the_remedies_help() {
    let node = Node::start();
    let redis = RedisServer::with(&["--requirepass", PASSWORD]);
    let wrong = with_login(&redis, ":wrong-password");
    for url in [redis.url(), wrong.clone()] {
        let (what, remedy) = doctor(&node, &url).problem();
        assert!(what.contains("does not take user and password"), "{what}");
        assert!(
            remedy.starts_with("correct user and password in bus.url"),
            "{remedy}"
        );
        assert!(!what.contains("wrong-password"), "{what}");
    }
    let mut daemon = Daemon::with(&node, &[("bus.url", &wrong)]);
    waits(&daemon, "does not take user and password");
    let right = with_login(&redis, &format!(":{PASSWORD}"));
    doctor(&node, &right).finds_nothing();
    daemon.stop();
    daemon.set("bus.url", &right);
    daemon.restart();
    let bus = caught_up(&daemon);
    assert_eq!(bus["url"], redis.url());
    let told = [
        daemon.get("/status").text,
        daemon.get("/metrics").text,
        daemon.log(),
    ];
    assert!(told.iter().all(|text| !text.contains(PASSWORD)), "{told:?}");

    let user = "a_user";
    let _: String = redis.ask(&["ACL", "SETUSER", user, "on", &format!(">{PASSWORD}")]);
    let theirs = with_login(&redis, &format!("{user}:{PASSWORD}"));
    let (what, remedy) = doctor(&node, &theirs).problem();
    assert!(what.contains("does not let the user"), "{what}");
    // As a person would follow it, in a shell.
    let line = remedy.strip_prefix("run: ").expect("a line");
    let line = line.replace(" NAME ", &format!(" {user} "));
    // The doctor's name of the stream is that of the node's chain.
    assert!(line.contains(KEY), "{line}");
    let line = line.replace(
        "redis-cli",
        &format!("redis-cli -p {} -a {PASSWORD}", redis.port),
    );
    let run = Command::new("sh")
        .args(["-c", &line])
        .output()
        .expect("a shell");
    assert!(
        String::from_utf8_lossy(&run.stdout).contains("OK"),
        "{run:?}"
    );
    doctor(&node, &theirs).finds_nothing();
    daemon.stop();
    daemon.set("bus.url", &theirs);
    daemon.restart();
    let address = node.address();
    daemon.watch(&address);
    pay(&node, &daemon, &address);
    caught_up(&daemon);
    daemon.stop();
    let expires: Option<String> = redis.ask(&["HGET", KEY, "expires"]);
    assert_eq!(expires, None, "it may give the lease back, too");

    // And in another database.
    doctor(&node, &format!("{theirs}/1")).finds_nothing();
    let _: String = redis.ask(&["ACL", "SETUSER", user, "-select"]);
    let (what, remedy) = doctor(&node, &format!("{theirs}/1")).problem();
    assert!(what.contains("does not let the user"), "{what}");
    assert!(remedy.contains("+select"), "{remedy}");
    let (what, _) = doctor(&node, &format!("{}/1", redis.url())).problem();
    assert!(what.contains("does not take user and password"), "{what}");
    // Who may only read.
    let _: String = redis.ask(&["ACL", "SETUSER", user, "-hdel", "+select"]);
    let (what, _) = doctor(&node, &theirs).problem();
    assert!(what.contains("does not let the user"), "{what}");
}

#[test]
fn what_is_no_redis_of_ours_is_told_apart_and_the_remedies_help() {
    let node = bare();
    let port = free_port();
    let nobody = format!("redis://127.0.0.1:{port}");
    let (what, remedy) = doctor(&node, &nobody).problem();
    assert!(what.contains("cannot be reached"), "{what}");
    assert!(
        remedy.contains("set bus.url to where it listens"),
        "{remedy}"
    );

    // A Redis of long ago, as far as it says.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reading = BufReader::new(stream.try_clone().expect("a socket"));
            let mut writing = stream;
            thread::spawn(move || {
                let mut line = String::new();
                while reading.read_line(&mut line).is_ok_and(|read| read > 0) {
                    let word = line.trim().to_ascii_uppercase();
                    let info = "redis_version:5.0.14\r\n";
                    let answer = match word.as_str() {
                        "INFO" => format!("${}\r\n{info}\r\n", info.len()),
                        "CLIENT" => "-ERR unknown subcommand\r\n".to_owned(),
                        _ => String::new(),
                    };
                    line.clear();
                    if writing.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let (what, remedy) = doctor(&node, &format!("redis://127.0.0.1:{port}")).problem();
    assert!(what.contains("Redis 5.0.14 is too old"), "{what}");
    assert!(remedy.contains("Redis 6.2 or later"), "{remedy}");
    let redis = RedisServer::with(&["--unixsocket", "redis.sock"]);
    doctor(&node, &redis.url()).finds_nothing();
    let socket = redis.folder().join("redis.sock");
    doctor(&node, &format!("unix://{}", socket.display())).finds_nothing();

    // Keys of somebody else, and a stream of another network.
    let _: u64 = redis.ask(&["RPUSH", KEY, "x"]);
    let (what, remedy) = doctor(&node, &redis.url()).problem();
    assert!(what.contains("something else at the keys"), "{what}");
    assert!(remedy.starts_with("set bus.stream"), "{remedy}");
    let other = |name: &str| doctor(&node, &redis.url()).with("bus.stream", name);
    other("mine").finds_nothing();
    let _: u64 = redis.ask(&["HSET", "{mine}", "current", "5", "network", "main"]);
    let (what, remedy) = other("mine").problem();
    assert!(what.contains("of another network (main)"), "{what}");
    assert!(remedy.starts_with("set bus.stream"), "{remedy}");
    other("mine2").finds_nothing();

    // Sentinels.
    let conf = redis.folder().join("sentinel.conf");
    let line = format!("sentinel monitor shop 127.0.0.1 {} 1\n", redis.port);
    std::fs::write(&conf, line).expect("the folder is ours");
    let sentinel = RedisServer::sentinel(&conf.display().to_string());
    let url = |name: &str| {
        format!(
            "redis+sentinel://127.0.0.1:{},127.0.0.1:{}/{name}",
            free_port(),
            sentinel.port
        )
    };
    let (what, remedy) = doctor(&node, &url("other"))
        .with("bus.stream", "mine2")
        .problem();
    assert!(what.contains("no Sentinel knows a master other"), "{what}");
    assert!(remedy.contains("sentinel.conf"), "{remedy}");
    doctor(&node, &url("shop"))
        .with("bus.stream", "mine2")
        .finds_nothing();
}

#[test]
fn a_full_redis_and_a_replica_are_told_and_the_remedies_help() {
    let node = Node::start();
    let redis = RedisServer::with(&["--stream-node-max-entries", "1"]);
    let port = redis.port.to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    let mut daemon = Daemon::with(&node, &[("bus.url", &redis.url())]);
    let address = node.address();
    daemon.watch(&address);
    pay(&node, &daemon, &address);
    is_the_log(&redis, &daemon);
    let _: String = redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    let bus = waits(&daemon, "no memory left");
    assert!(
        bus["remedy"]
            .as_str()
            .expect("a remedy")
            .starts_with("raise maxmemory")
    );
    pay(&node, &daemon, &address);
    assert!(status(&daemon)["lag"].as_u64() > Some(0));
    let (what, _) = doctor(&node, &redis.url()).problem();
    assert!(what.contains("no memory left"), "{what}");
    let _: String = redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    is_the_log(&redis, &daemon);

    // The other way that is advised, with 6 MB in the stream before the last entry.
    daemon.stop();
    fill(&redis);
    let limit = used_memory(&redis).saturating_sub(1 << 20).to_string();
    let _: String = redis.ask(&["CONFIG", "SET", "maxmemory", &limit]);
    daemon.restart();
    waits(&daemon, "no memory left");
    daemon.stop();
    daemon.set("bus.max_length", "5");
    daemon.restart();
    pay(&node, &daemon, &address);
    pay(&node, &daemon, &address);
    pay(&node, &daemon, &address);
    is_the_log(&redis, &daemon);

    // A stream that was left goes at once, and none is begun again and again.
    daemon.stop();
    let _: String = redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    fill(&redis);
    let left = super::current(&redis);
    let limit = used_memory(&redis).saturating_sub(1 << 20).to_string();
    let _: String = redis.ask(&["XADD", &format!("{KEY}:{left}"), "*", "cursor", "x"]);
    let _: String = redis.ask(&["CONFIG", "SET", "maxmemory", &limit]);
    daemon.restart();
    is_the_log(&redis, &daemon);
    assert_eq!(daemon.log().matches("a stream is begun").count(), 1);
    let exists: u64 = redis.ask(&["EXISTS", &format!("{KEY}:{left}")]);
    assert_eq!(exists, 0);
    let _: String = redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);

    let (what, _) = doctor(&node, &replica.url()).problem();
    assert!(what.contains("is a replica"), "{what}");
    daemon.stop();
    daemon.set("bus.url", &replica.url());
    daemon.restart();
    let bus = waits(&daemon, "is a replica");
    let remedy = bus["remedy"].as_str().expect("a remedy");
    assert!(remedy.starts_with("set bus.url to the master"), "{remedy}");
    daemon.stop();
    daemon.set("bus.url", &redis.url());
    daemon.restart();
    is_the_log(&redis, &daemon);
}

fn used_memory(redis: &RedisServer) -> u64 {
    let info: String = redis.ask(&["INFO", "memory"]);
    let mut lines = info.lines();
    let used = lines.find_map(|line| line.strip_prefix("used_memory:"));
    used.expect("it says so").parse().expect("a number")
}

/// Puts 6 MB of somebody's before the last entry of the stream.
fn fill(redis: &RedisServer) {
    let key = format!("{KEY}:{}", super::current(redis));
    let last: Vec<(String, Vec<String>)> = redis.ask(&["XREVRANGE", &key, "+", "-", "COUNT", "1"]);
    let (id, fields) = last.first().expect("an entry");
    let _: u64 = redis.ask(&["DEL", &key]);
    let large = "x".repeat(100_000);
    for n in 1..=60 {
        let _: String = redis.ask(&["XADD", &key, &format!("0-{n}"), "large", &large]);
    }
    let mut words = vec!["XADD", &key, id];
    words.extend(fields.iter().map(|word| &**word));
    let _: String = redis.ask(&words);
}

#[test]
fn a_master_that_is_to_have_replicas_writes_with_them_alone() {
    let node = Node::start();
    let redis = RedisServer::with(&[
        "--min-replicas-to-write",
        "1",
        "--repl-diskless-sync-delay",
        "0",
    ]);
    let daemon = Daemon::with(&node, &[("bus.url", &redis.url())]);
    let bus = waits(&daemon, "without its replicas");
    let remedy = bus["remedy"].as_str().expect("a remedy");
    assert!(remedy.starts_with("start the replicas"), "{remedy}");
    let address = node.address();
    daemon.watch(&address);
    pay(&node, &daemon, &address);
    assert!(status(&daemon)["lag"].as_u64() > Some(0));
    let port = redis.port.to_string();
    let mut replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    is_the_log(&redis, &daemon);
    replica.kill();
    waits(&daemon, "without its replicas");
    let _: String = redis.ask(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    is_the_log(&redis, &daemon);
}

#[test]
fn tls_is_spoken_and_a_certificate_that_is_not_trusted_is_the_cause_that_is_named() {
    let (node, pair) = (Node::start(), tls::Files::new());
    let port = free_port().to_string();
    let [cert, key] = [pair.cert(), pair.key()].map(|path| path.display().to_string());
    let redis = RedisServer::with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &cert,
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://localhost:{port}");
    let (what, remedy) = doctor(&node, &url).problem();
    assert!(what.contains("no secure connection"), "{what}");
    assert!(remedy.contains("SSL_CERT_FILE"), "{remedy}");
    let daemon = Daemon::with(&node, &[("bus.url", &url), ("SSL_CERT_FILE", &cert)]);
    let address = node.address();
    daemon.watch(&address);
    pay(&node, &daemon, &address);
    is_the_log(&redis, &daemon);
}

#[test]
fn a_node_of_a_cluster_sends_to_the_one_that_has_the_keys() {
    let node = Node::start();
    let ports = [free_port(), free_port()].map(|port| port.to_string());
    let servers = ports
        .each_ref()
        .map(|port| RedisServer::with(&["--cluster-enabled", "yes", "--cluster-port", port]));
    let [first, second] = &servers;
    let slot: u64 = first.ask(&["CLUSTER", "KEYSLOT", KEY]);
    let ours = slot.to_string();
    let _: String = second.ask(&["CLUSTER", "ADDSLOTS", &ours]);
    for (from, to) in [(0, slot - 1), (slot + 1, 16_383)] {
        let range = [from, to].map(|slot| slot.to_string());
        let _: String = first.ask(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]);
    }
    let port = second.port.to_string();
    let _: String = first.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &ports[1]]);
    wait_until("the cluster is whole", || {
        let is_whole = |server: &RedisServer| {
            let info: String = server.ask(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok")
        };
        servers.iter().all(is_whole).then_some(())
    });
    let daemon = Daemon::with(&node, &[("bus.url", &first.url())]);
    let address = node.address();
    daemon.watch(&address);
    pay(&node, &daemon, &address);
    is_the_log(second, &daemon);
}
