//! The machine around the daemon: IPv6, names, open files, signals, health checks without a host.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::Command;
use std::time::Instant;

use serde_json::json;

use crate::common::node::{Options, free_port};
use crate::common::{COIN, Client, Daemon, Node, wait_until};

#[test]
fn case_04_zmq_rpc_and_listening_over_ipv6() {
    let zmq = format!("tcp://[::1]:{}", free_port());
    let topics = ["rawblock", "rawtx", "sequence"].map(|topic| format!("-zmqpub{topic}={zmq}"));
    // RPC is answered on both loopback addresses unless bitcoind is told otherwise.
    let node = Node::with(Options {
        topics: &[],
        extra: topics.to_vec(),
        ..Options::default()
    });
    let rpc = node.rpc_url().replace("127.0.0.1", "[::1]");
    let settings = [
        ("bitcoind.rpc_url", rpc.as_str()),
        ("server.listen", "[::1]:0"),
        // Nothing but ZMQ brings news within the time of this test.
        ("monitor.reconcile_interval", "3600"),
    ];
    let daemon = Daemon::with(&node, &settings);
    assert!(
        daemon.url().starts_with("http://[::1]:"),
        "{}",
        daemon.url()
    );
    let status = daemon.get("/status").json;
    assert_eq!(
        status["listen"],
        json!([daemon.url().trim_start_matches("http://")])
    );
    for topic in ["rawtx", "rawblock", "sequence"] {
        let feed = &status["zmq"][topic];
        assert_eq!(
            (&feed["endpoint"], &feed["connected"]),
            (&json!(zmq), &json!(true)),
            "{status}"
        );
    }
    let address = node.address();
    daemon.watch(&address);
    node.pay(&address, COIN);
    daemon.wait_balance(&address, 0, COIN);
    node.mine(1);
    daemon.wait_balance(&address, COIN, 0);
    let scan = daemon.post(
        &format!("/scan_history/{address}"),
        &json!({ "from_height": 0 }),
    );
    assert_eq!(scan.status, 202, "{}", scan.text);
    daemon.wait_complete(&address);
}

/// What comes back on a connection of its own until the daemon closes it.
fn exchange(daemon: &Daemon, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", daemon.port())).expect("the daemon listens");
    stream
        .write_all(request.as_bytes())
        .expect("the daemon reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn case_06_health_over_http_1_0_and_without_a_host() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    for path in ["/health/ready", "/health/live"] {
        for request in [
            format!("GET {path} HTTP/1.0\r\n\r\n"),
            format!("HEAD {path} HTTP/1.0\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n"),
        ] {
            let answer = exchange(&daemon, &request);
            assert!(answer.contains(" 200 OK\r\n"), "{request}{answer}");
        }
    }
    let others = exchange(&daemon, "GET /status HTTP/1.0\r\n\r\n");
    assert!(others.contains("host_missing"), "{others}");
    let with_host = exchange(&daemon, "GET /status HTTP/1.0\r\nHost: localhost\r\n\r\n");
    assert!(with_host.contains(" 200 OK\r\n"), "{with_host}");
}

/// More idle clients than a process may have open files by default, and work that needs some.
fn idle_clients_and_a_scan(limits: &str) -> (Daemon, Vec<TcpStream>) {
    const IDLE: usize = 356;
    let node = Node::start();
    let address = node.address();
    node.pay(&address, COIN);
    node.mine(1);
    let limits = format!("--nofile={limits}");
    let daemon = Daemon::launched_by(&["prlimit", &limits], &node, &[]);
    daemon.wait_ready();
    let idle = (0..IDLE)
        .map(|_| TcpStream::connect(("127.0.0.1", daemon.port())).expect("it is queued"))
        .collect();
    // They say nothing: those that are too many make room, the others leave after ten seconds.
    let client = Client::connect(&daemon);
    client.emit(
        "subscribe_address",
        &json!({ "address": address, "snapshot": false }),
    );
    client.event("subscribed", |_| true);
    let scan = daemon.post(
        &format!("/scan_history/{address}"),
        &json!({ "from_height": 0 }),
    );
    assert_eq!(scan.status, 202, "{}", scan.text);
    daemon.wait_complete(&address);
    daemon.wait_balance(&address, COIN, 0);
    let log = daemon.log();
    for trouble in ["Too many open files", "cookie", "cannot accept"] {
        assert!(!log.contains(trouble), "{trouble}:\n{log}");
    }
    (daemon, idle)
}

#[test]
fn case_17_the_soft_limit_of_open_files_is_raised() {
    let (mut daemon, idle) = idle_clients_and_a_scan("256:4096");
    assert!(!daemon.log().contains("is reached"));
    drop(idle);
    daemon.stop();
}

#[test]
fn case_17_below_a_low_hard_limit_silent_clients_make_room_and_the_rest_goes_on() {
    let began = Instant::now();
    let (mut daemon, idle) = idle_clients_and_a_scan("256:256");
    let log = daemon.log();
    assert!(
        log.contains("limits.connections is 10000, but 256 open files"),
        "{log}"
    );
    let said = log
        .matches("limits.unfinished_handshakes is reached")
        .count();
    let minutes = usize::try_from(began.elapsed().as_secs() / 60).expect("few");
    assert!(
        (1..=minutes + 1).contains(&said),
        "{said} times in {minutes} minutes:\n{log}"
    );
    drop(idle);
    daemon.stop();
}

#[test]
fn case_18_two_signals_at_once_are_one() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    // What waits for an answer makes the stop take a moment.
    let mut waiting = TcpStream::connect(("127.0.0.1", daemon.port())).expect("the daemon listens");
    write!(
        waiting,
        "POST /add_address HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n"
    )
    .expect("the daemon reads");
    wait_until("the daemon serves the request", || {
        (daemon.get("/health/live").status == 200).then_some(())
    });
    let pair = "kill -TERM $0; sleep 0.002; kill -TERM $0; sleep 0.01; kill -INT $0";
    let sent = Command::new("bash")
        .args(["-c", pair, &daemon.pid().to_string()])
        .status()
        .expect("bash can be run");
    assert!(sent.success());
    assert_eq!(daemon.ended().code(), Some(0), "{}", daemon.log());
}

#[test]
fn case_19_a_name_is_listened_on_at_all_its_addresses() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[("server.listen", "localhost:0")]);
    let addresses = ("localhost", daemon.port())
        .to_socket_addrs()
        .expect("localhost is known");
    for address in addresses {
        let mut stream =
            TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let request = format!(
            "GET /health/live HTTP/1.0\r\nHost: localhost:{}\r\n\r\n",
            address.port()
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.contains(" 200 OK\r\n"), "{address}: {answer}");
    }
}
