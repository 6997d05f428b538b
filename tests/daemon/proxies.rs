//! The daemon behind nginx, Caddy and HAProxy, with the lines of `contrib/proxy`. What is behind
//! both with several edges: `edge/balanced.rs`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::page::Browser;
use crate::common::client::open_websocket_at;
use crate::common::daemon::request;
use crate::common::node::free_port;
use crate::common::{Answer, COIN, Daemon, Node, repository, wait_until};

pub const HOST: &str = "satwatch.example";

/// A running proxy. Dropping it ends the process and removes its folder.
pub struct Proxy {
    pub port: u16,
    process: Child,
    folder: TempDir,
}

impl Proxy {
    /// Runs `program` on a configuration, which `write` puts into a folder for a port, and which
    /// `arguments` name.
    fn start(
        program: &str,
        write: impl FnOnce(&Path, u16),
        arguments: impl FnOnce(&Path) -> Vec<String>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let port = free_port();
        write(folder.path(), port);
        let log = File::create(folder.path().join("log")).expect("the folder is ours");
        let process = Command::new(installed(program))
            .args(arguments(folder.path()))
            .env("HOME", folder.path())
            .env("XDG_DATA_HOME", folder.path())
            .env("XDG_CONFIG_HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
        let mut proxy = Self {
            port,
            process,
            folder,
        };
        wait_until("the proxy listens", || {
            let ended = proxy.process.try_wait().expect("it is our child");
            assert!(ended.is_none(), "{program} ended:\n{}", proxy.log());
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        proxy
    }

    /// Before the daemon at this port, with `changes` of our lines.
    fn nginx(daemon: u16, changes: &[(&str, &str)]) -> Self {
        let changes = [&[("listen 80;", "listen PORT;")], changes].concat();
        Self::nginx_with(&ours("nginx.conf", daemon, &changes))
    }

    /// Before these edges, with `changes` of our lines.
    pub fn nginx_edges(edges: &[u16], changes: &[(&str, &str)]) -> Self {
        let changes = [&[("listen 80;", "listen PORT;")], changes].concat();
        Self::nginx_with(&ours_of("edges-nginx.conf", edges, &changes))
    }

    fn nginx_with(servers: &str) -> Self {
        let write = |folder: &Path, port: u16| {
            let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()))
                .concat();
            let servers = servers.replace("listen PORT;", &format!("listen 127.0.0.1:{port};"));
            let all = format!(
                "daemon off; master_process off; pid {}/pid; error_log stderr;\n\
                 events {{}}\nhttp {{\naccess_log off;\n{paths}{servers}}}\n",
                folder.display()
            );
            fs::write(folder.join("nginx.conf"), all).expect("the folder is ours");
        };
        Self::start("nginx", write, |folder| {
            let file = folder.join("nginx.conf").display().to_string();
            ["-e", "stderr", "-c", &file].map(str::to_owned).into()
        })
    }

    fn caddy(daemon: u16) -> Self {
        let text = ours("Caddyfile", daemon, &[("satwatch.example {", "SITE {")]);
        let write = |folder: &Path, port: u16| {
            let site = format!("http://{HOST}:{port} {{");
            let text = format!("{{\nadmin off\n}}\n{}", text.replace("SITE {", &site));
            fs::write(folder.join("Caddyfile"), text).expect("the folder is ours");
        };
        Self::start("caddy", write, |folder| {
            let file = folder.join("Caddyfile").display().to_string();
            ["run", "--adapter", "caddyfile", "--config", &file]
                .map(str::to_owned)
                .into()
        })
    }

    fn haproxy(daemon: u16, changes: &[(&str, &str)]) -> Self {
        let changes = [&[("bind :80 ", "bind PORT ")], changes].concat();
        Self::haproxy_with(&ours("haproxy.cfg", daemon, &changes))
    }

    /// Before these edges.
    pub fn haproxy_edges(edges: &[u16]) -> Self {
        let changes = [("bind :80 ", "bind PORT ")];
        Self::haproxy_with(&ours_of("edges-haproxy.cfg", edges, &changes))
    }

    fn haproxy_with(text: &str) -> Self {
        let write = |folder: &Path, port: u16| {
            let text = text.replace("bind PORT ", &format!("bind 127.0.0.1:{port} "));
            fs::write(folder.join("haproxy.cfg"), text).expect("the folder is ours");
        };
        Self::start("haproxy", write, |folder| {
            let file = folder.join("haproxy.cfg").display().to_string();
            ["-db", "-f", &file].map(str::to_owned).into()
        })
    }

    pub fn host(&self) -> String {
        format!("{HOST}:{}", self.port)
    }

    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let host = self.host();
        let headers = [&[("Host", host.as_str())], headers].concat();
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        request(method, &url, &headers, Some(body.as_bytes()))
            .unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the proxy's log\n{}", self.log());
        }
    }
}

/// A file of `contrib/proxy`, in which each of `changes` and the daemon's address are found.
fn ours(name: &str, daemon: u16, changes: &[(&str, &str)]) -> String {
    let daemon = format!("127.0.0.1:{daemon}");
    changed(
        name,
        &[&[("127.0.0.1:5005", daemon.as_str())], changes].concat(),
    )
}

/// The same of a file that has the addresses of edges.
fn ours_of(name: &str, edges: &[u16], changes: &[(&str, &str)]) -> String {
    let ports = (5006..).zip(edges);
    let ports: Vec<_> = ports
        .map(|(theirs, port)| {
            let edge = format!("127.0.0.1:{port}");
            (format!("127.0.0.1:{theirs} "), edge + " ")
        })
        .collect();
    let ports = ports.iter().map(|(from, to)| (from.as_str(), to.as_str()));
    changed(
        name,
        &ports.chain(changes.iter().copied()).collect::<Vec<_>>(),
    )
}

fn changed(name: &str, changes: &[(&str, &str)]) -> String {
    let path = repository().join("contrib/proxy").join(name);
    let mut text = fs::read_to_string(path).expect("it is in the repository");
    for (from, to) in changes {
        assert!(text.contains(from), "{name} has no {from:?}");
        text = text.replace(from, to);
    }
    text
}

fn installed(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{program} is missing: run contrib/setup.sh, which installs it"))
}

/// REST, polling, WebSocket, health and the page through a proxy, with what the documents say to
/// set.
fn works_behind(start: impl Fn(u16) -> Proxy) {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let proxy = start(daemon.port());
    let refused = proxy.get("/status");
    assert_eq!(
        (refused.status, &refused.json["code"]),
        (403, &json!("host_not_allowed")),
        "{}",
        refused.text
    );
    let remedy = format!("\"{HOST}\" to server.allowed_hosts");
    let message = refused.json["error"].as_str().expect("a sentence");
    assert!(message.contains(&remedy), "{message}");
    drop((proxy, daemon));

    let settings = [
        ("server.allowed_hosts", HOST),
        ("server.trusted_proxies", "127.0.0.1"),
        ("log.format", "json"),
    ];
    let daemon = Daemon::with(&node, &settings);
    let proxy = start(daemon.port());
    // A proxy that looks after the health of what is behind it may need a moment.
    wait_until("the proxy takes the daemon for healthy", || {
        (proxy.get("/health/ready").status == 200).then_some(())
    });
    assert!(proxy.get("/").text.starts_with("<!doctype html>"));

    let address = node.address();
    let own = format!("http://{}", proxy.host());
    let add = |origin: &str| {
        let headers = [("Content-Type", "application/json"), ("Origin", origin)];
        let body = json!({ "address": address }).to_string();
        proxy.request("POST", "/add_address", &headers, &body)
    };
    let added = add(&own);
    assert_eq!(added.status, 200, "its own page: {}", added.text);
    for foreign in [
        "http://evil.example",
        "http://localhost:3000",
        &own.replace("http:", "https:"),
    ] {
        assert_eq!(add(foreign).json["code"], "origin_not_allowed", "{foreign}");
    }

    let opened = proxy.get("/socket.io/?EIO=4&transport=polling");
    assert_eq!(opened.status, 200, "{}", opened.text);
    let session: Value = serde_json::from_str(&opened.text[1..]).expect("the handshake");
    let path = format!(
        "/socket.io/?EIO=4&transport=polling&sid={}",
        session["sid"].as_str().expect("a session id")
    );
    let joined = proxy.request("POST", &path, &[("Origin", &own)], "40");
    assert_eq!((joined.status, joined.text.as_str()), (200, "ok"));
    let answer = proxy.get(&path);
    assert!(answer.text.starts_with("40{"), "{}", answer.text);
    // A poll that waits until something happens is answered then.
    let subscribe = format!("42{}", json!(["subscribe_address", { "address": address }]));
    assert_eq!(proxy.request("POST", &path, &[], &subscribe).text, "ok");
    wait_until("the subscription is answered", || {
        proxy.get(&path).text.contains("subscribed").then_some(())
    });
    node.pay(&address, COIN);
    wait_until("a payment comes by polling", || {
        proxy
            .get(&path)
            .text
            .contains("new_transactions")
            .then_some(())
    });

    drop(open_websocket_at(proxy.port, &proxy.host()));
    tells_who_asks(&proxy, &daemon);
}

/// A client at another address than the proxy's, who claims to be somebody else.
fn tells_who_asks(proxy: &Proxy, daemon: &Daemon) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let (from, to) = (([127, 0, 0, 2], 0), ([127, 0, 0, 1], proxy.port));
    let [from, to] = [from, to].map(SocketAddr::from);
    socket.bind(&from.into()).expect("it is on this machine");
    socket.connect(&to.into()).expect("it listens");
    let head = format!(
        "DELETE /consumers/who HTTP/1.1\r\nHost: {}\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n",
        proxy.host()
    );
    let put = proxy.request(
        "PUT",
        "/consumers/who",
        &[("Content-Type", "application/json")],
        "{}",
    );
    assert_eq!(put.status, 201, "{}", put.text);
    let mut answer = String::new();
    (&socket).write_all(head.as_bytes()).expect("it reads");
    (&socket).read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let line = wait_until("it is in the log", || {
        let log = daemon.log();
        let line = log
            .lines()
            .find(|line| line.contains("DELETE /consumers/{name}"))?;
        Some(line.to_owned())
    });
    assert!(line.contains("\"address\":\"127.0.0.2\""), "{line}");
}

#[test]
fn rest_polling_and_websocket_behind_nginx() {
    works_behind(|daemon| Proxy::nginx(daemon, &[]));
}

#[test]
fn rest_polling_and_websocket_behind_caddy() {
    works_behind(Proxy::caddy);
}

#[test]
fn rest_polling_and_websocket_behind_haproxy() {
    works_behind(|daemon| Proxy::haproxy(daemon, &[]));
}

/// In place of a daemon: is healthy at once, answers an audit when it is told to, and nothing else.
fn silent_but_for_an_audit() -> (u16, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it listens").port();
    let (tell, told) = channel();
    spawn(move || {
        let told = Arc::new(Mutex::new(told));
        for stream in listener.incoming() {
            let (mut stream, told) = (stream.expect("a connection"), told.clone());
            spawn(move || {
                let mut head = [0; 4096];
                let count = stream.read(&mut head).unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..count]).into_owned();
                if head.starts_with("POST /audit/") {
                    let _ = told.lock().expect("one audit").recv();
                } else if !head.starts_with("GET /health/") {
                    // Until the proxy has enough of it.
                    while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
                }
                let _ = stream.write_all(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
                );
            });
        }
    });
    (port, tell)
}

/// `start` makes a proxy with our lines before this port, which waits one second where they say 90.
fn waits_longer_for_an_audit(start: impl FnOnce(u16) -> Proxy) {
    let (port, tell) = silent_but_for_an_audit();
    let proxy = start(port);
    wait_until("the proxy takes the daemon for healthy", || {
        (proxy.get("/health/ready").status == 200).then_some(())
    });
    std::thread::scope(|scope| {
        let audit = scope.spawn(|| proxy.request("POST", "/audit/ADDRESS", &[], ""));
        // Twice, so that the audit has waited for longer than the one second.
        for _ in 0..2 {
            assert_eq!(proxy.get("/status").status, 504);
        }
        tell.send(()).expect("it listens");
        let audit = audit.join().expect("it is answered");
        assert_eq!((audit.status, audit.text.as_str()), (200, "{}"));
    });
}

#[test]
fn nginx_waits_longer_for_an_audit() {
    let second = ("proxy_read_timeout 90s", "proxy_read_timeout 1s");
    waits_longer_for_an_audit(|daemon| Proxy::nginx(daemon, &[second]));
}

#[test]
fn haproxy_waits_longer_for_an_audit() {
    let seconds = ["server", "client"]
        .map(|side| (format!("timeout {side} 90s"), format!("timeout {side} 1s")));
    let seconds = seconds
        .each_ref()
        .map(|(from, to)| (from.as_str(), to.as_str()));
    waits_longer_for_an_audit(|daemon| Proxy::haproxy(daemon, &seconds));
}

/// nginx that is told nothing but where to: HTTP/1.0, and no upgrade.
#[test]
fn case_08_the_page_works_behind_a_proxy_that_passes_no_websockets_on() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    let proxy = Proxy::nginx_with(&format!(
        "server {{ listen PORT; location / {{ proxy_pass http://127.0.0.1:{}; }} }}\n",
        daemon.port()
    ));
    let url = format!("http://127.0.0.1:{}/", proxy.port);
    let browser = Browser::open(&url, &address, &[]);
    let txid = node.pay(&address, 12_345_678);
    let seen = browser.seen();
    assert_eq!(
        (&seen["payment"]["txid"], &seen["balance"]),
        (&json!(txid), &json!("12345678")),
        "{seen}"
    );
    assert_eq!(seen["connection"], "Connected");
}
