//! Three edges behind HAProxy and nginx, with the lines of `contrib/proxy`.

use std::collections::BTreeSet;
use std::net::TcpStream;

use serde_json::{Value, json};

use super::{World, begun, printed};
use crate::common::http::{Response, connect_from, exchange};
use crate::common::{Daemon, Program, wait_until};
use crate::proxies::{HOST, Proxy};

/// Three of them, and a proxy in front.
fn behind(start: impl Fn(&[u16]) -> Proxy) -> (World, Vec<Daemon>, Proxy) {
    let world = World::start();
    let settings = [
        ("server.allowed_hosts", HOST),
        ("server.trusted_proxies", "127.0.0.1"),
    ];
    let edges: Vec<_> = (0..3).map(|_| world.edge_with(&settings)).collect();
    let ports: Vec<_> = edges.iter().map(Daemon::port).collect();
    let proxy = start(&ports);
    wait_until("the proxy takes the edges for healthy", || {
        (proxy.get("/health/ready").status == 200).then_some(())
    });
    (world, edges, proxy)
}

/// A polling session through the proxy, as a client at this address that keeps cookies, or does
/// not.
struct Polling<'a> {
    proxy: &'a Proxy,
    from: [u8; 4],
    cookie: Option<String>,
    path: String,
}

impl<'a> Polling<'a> {
    fn open(proxy: &'a Proxy, from: [u8; 4], keeps: bool) -> Self {
        let mut polling = Self {
            proxy,
            from,
            cookie: None,
            path: "/socket.io/?EIO=4&transport=polling".to_owned(),
        };
        let opened = polling.ask("GET", "");
        let cookie = opened.headers.get("set-cookie").filter(|_| keeps);
        polling.cookie = cookie.map(|cookie| {
            let cookie = cookie.to_str().expect("text");
            cookie.split(';').next().expect("a cookie").to_owned()
        });
        let text = String::from_utf8(opened.body).expect("text");
        let session: Value = serde_json::from_str(&text[1..]).expect("the handshake");
        polling.path += &format!("&sid={}", session["sid"].as_str().expect("a session id"));
        polling
    }

    fn ask(&self, method: &str, body: &str) -> Response {
        let stream: TcpStream = connect_from(self.from, self.proxy.port).expect("it listens");
        let url = format!("http://{}{}", self.proxy.host(), self.path);
        let cookie = self.cookie.iter().map(|it| ("Cookie", it.as_str()));
        let headers: Vec<_> = cookie.collect();
        exchange(stream, method, &url, &headers, body.as_bytes()).expect("it answers")
    }

    /// Whether its requests come to the edge where it began.
    fn works(&self) -> bool {
        let joined = self.ask("POST", "40");
        (0..3).all(|n| {
            let ask = format!("42{n}{}", json!(["unsubscribe_address", {}]));
            joined.status == 200 && self.ask("POST", &ask).status == 200
        }) && self.ask("GET", "").body.starts_with(b"40{")
    }
}

/// How many of the edges have sessions.
fn used(edges: &[Daemon]) -> usize {
    let has_some = |edge: &&Daemon| {
        let metrics = edge.get("/metrics").text;
        let mut lines = metrics.lines();
        let line = lines.find(|line| line.starts_with("satwatch_sessions "));
        let line = line.unwrap_or_else(|| panic!("{metrics}"));
        !line.ends_with(" 0")
    };
    edges.iter().filter(has_some).count()
}

/// Stock clients and those of this repository hear everything once while an edge is killed, and
/// then the next, and come back.
fn loses_nobody(world: &World, edges: &mut [Daemon], proxy: &Proxy) {
    let address = world.node.address();
    world.primary.watch(&address);
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let clients: Vec<_> = (0..2)
        .flat_map(|_| {
            [
                Program::node("cut.js", &[&url, &address, "polling"]),
                Program::node("cut.js", &[&url, &address, "websocket"]),
                Program::node("../../contrib/js/watch.js", &[&url, &address]),
                Program::python("../../contrib/python/watch.py", &[&url, &address]),
                Program::python("../../regtest/listen.py", &[&url, &address]),
            ]
        })
        .collect();
    let mut from = 0;
    for client in &clients {
        from = from.max(begun(&client.event("subscribed", |_| true)));
    }
    for edge in edges {
        edge.kill();
        world.pay(&address);
        for client in &clients {
            world.has_heard_all(&address, from, || printed(client));
        }
        edge.restart();
        world.pay(&address);
    }
    for client in &clients {
        world.has_heard_all(&address, from, || printed(client));
    }
}

#[test]
fn polling_sessions_stay_at_their_edge_behind_haproxy_and_clients_outlive_every_edge() {
    let (world, mut edges, proxy) = behind(Proxy::haproxy_edges);
    let mut at = BTreeSet::new();
    let mut sessions = Vec::new();
    for n in 1..=12 {
        for keeps in [true, false] {
            let session = Polling::open(&proxy, [127, 0, 0, n], keeps);
            assert!(session.works(), "{n} {keeps}");
            at.extend(session.cookie.clone());
            sessions.push(session);
        }
    }
    assert!(at.len() > 1, "{at:?}");
    assert_eq!(used(&edges), at.len());
    // By the cookie, wherever it asks from.
    for session in sessions.iter_mut().filter(|it| it.cookie.is_some()) {
        session.from = [127, 0, 1, 1];
        assert!(session.ask("POST", "42[\"unsubscribe_address\",{}]").status == 200);
    }
    loses_nobody(&world, &mut edges, &proxy);
}

#[test]
fn polling_sessions_stay_at_their_edge_behind_nginx_and_clients_outlive_every_edge() {
    let (world, mut edges, proxy) = behind(|ports| Proxy::nginx_edges(ports, &[]));
    for n in 1..=12 {
        let session = Polling::open(&proxy, [127, 0, 0, n], false);
        assert!(session.works(), "{n}");
    }
    assert!(used(&edges) > 1);
    loses_nobody(&world, &mut edges, &proxy);
}

#[test]
fn polling_sessions_stay_at_their_edge_behind_nginx_by_a_cookie() {
    let by_cookie = [
        ("hash $remote_addr", "hash $uid_got$uid_set"),
        ("# userid on;", "userid on;"),
        ("# userid_name", "userid_name"),
    ];
    let (_world, edges, proxy) = behind(|ports| Proxy::nginx_edges(ports, &by_cookie));
    // All at one address.
    for n in 1..=12 {
        let session = Polling::open(&proxy, [127, 0, 0, 1], true);
        assert!(session.cookie.is_some() && session.works(), "{n}");
    }
    assert!(used(&edges) > 1);
}
