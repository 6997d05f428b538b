//! TLS: who can speak to the daemon over it, what happens when the certificate is renewed, and what
//! is said to those who speak otherwise. And the limits of connections.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::SystemTime;

use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

use crate::common::http::connect_from;
use crate::common::tls::{self, DAY, Files, Stream};
use crate::common::{COIN, Daemon, Node, Program, wait_until};

fn start(node: &Node, files: &Files, more: &[(&str, &str)]) -> Daemon {
    let tls = files.settings();
    let mut settings: Vec<(&str, &str)> = tls.iter().map(|(name, it)| (*name, &**it)).collect();
    settings.extend(more);
    Daemon::with(node, &settings)
}

#[test]
fn stock_clients_hear_payments_over_tls_on_every_transport() {
    let (node, files) = (Node::start(), Files::new());
    let daemon = start(&node, &files, &[]);
    let (url, address) = (daemon.url(), node.address());
    assert!(url.starts_with("https://"), "{url}");
    let trusted = files.cert().display().to_string();
    let variables = [
        "NODE_EXTRA_CA_CERTS",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
        "WEBSOCKET_CLIENT_CA_BUNDLE",
    ];
    let trust = variables.map(|name| (name, &*trusted));
    let clients: Vec<Program> = ["polling", "websocket", "upgrade"]
        .into_iter()
        .flat_map(|mode| {
            let arguments = [&*url, &*address, mode];
            [
                Program::node_in(&trust, "listen.js", &arguments),
                Program::python_in(&trust, "listen.py", &arguments),
                Program::python_in(&trust, "listen_async.py", &arguments),
            ]
        })
        .chain([Program::python_in(
            &trust,
            "../../regtest/listen.py",
            &[&url, &address],
        )])
        .collect();
    for client in &clients {
        client.event("subscribed", |data| data["address"] == *address);
    }
    let txid = node.pay(&address, COIN);
    for client in &clients {
        client.event("new_transactions", |data| {
            data["transactions"][0]["txid"] == *txid
        });
        client.event("balance_change", |data| data["new_balance"] == COIN);
    }
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--cacert", &trusted])
        .arg(format!("{url}/status"))
        .output()
        .expect("curl can be run");
    let status: Value = serde_json::from_slice(&output.stdout).expect("the status");
    assert_eq!(status["urls"][0], *url, "{status}");
    assert_eq!(status["tls"]["problem"], Value::Null);
    assert!(status["tls"]["not_after"].as_f64() > Some(2e9 - 4e8));
}

/// A WebSocket over TLS that is in the namespace and hears of an address.
fn subscribed(daemon: &Daemon, trusted: &Path, address: &str) -> WebSocket<Stream> {
    let mut stream = tls::connect(daemon.port(), trusted, tls::VERSIONS).expect("it is trusted");
    let request = format!(
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        daemon.port()
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("it answers");
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    let mut socket = WebSocket::from_raw_socket(stream, Role::Client, None);
    for packet in [
        "40".to_owned(),
        format!(r#"42["subscribe_address",{{"address":"{address}"}}]"#),
    ] {
        socket.send(Message::text(packet)).expect("it reads");
    }
    hears(&mut socket, "subscribed");
    socket
}

/// Reads until an event of that name comes.
fn hears(socket: &mut WebSocket<Stream>, name: &str) -> String {
    let start = format!("42[\"{name}\"");
    loop {
        let message = socket.read().expect("the session goes on");
        match message.to_text() {
            Ok("2") => socket.send(Message::text("3")).expect("it reads"),
            Ok(text) if text.starts_with(&start) => return text.to_owned(),
            _ => {}
        }
    }
}

#[test]
fn a_renewed_certificate_is_taken_over_under_open_sessions_and_a_bad_one_is_not() {
    let (node, files) = (Node::start(), Files::new());
    let daemon = start(&node, &files, &[]);
    let address = node.address();
    // What clients trust, whatever becomes of the files.
    let first = files.folder().join("first.pem");
    fs::copy(files.cert(), &first).expect("ours");
    let mut session = subscribed(&daemon, &first, &address);
    let status = |trusted: &Path| {
        let stream = tls::connect(daemon.port(), trusted, tls::VERSIONS).ok()?;
        let url = format!("{}/status", daemon.url());
        let answer = crate::common::http::exchange(stream, "GET", &url, &[], b"");
        serde_json::from_slice::<Value>(&answer.expect("it answers").body).ok()
    };
    let problem = |words: &str| {
        wait_until(words, || {
            let status = status(&first)?;
            let problem = status["tls"]["problem"].as_str()?.to_owned();
            problem.contains(words).then_some(())
        });
    };

    let next = Files::new();
    fs::copy(next.key(), files.key()).expect("ours");
    problem("was not made for the key");
    let whole = fs::read(next.cert()).expect("it is there");
    fs::write(files.cert(), &whole[..whole.len() / 2]).expect("ours");
    problem("no whole certificate");
    let old = Files::made_at(SystemTime::now() - 826 * DAY);
    fs::copy(old.key(), files.key()).expect("ours");
    fs::copy(old.cert(), files.cert()).expect("ours");
    problem("ended on");
    fs::remove_file(files.key()).expect("ours");
    problem("cannot be read");
    let log = daemon.log();
    assert!(
        log.contains("the certificate of before stays in force"),
        "{log}"
    );

    fs::copy(next.key(), files.key()).expect("ours");
    fs::write(files.cert(), &whole).expect("ours");
    let told = wait_until("the new certificate is shown", || status(next.cert()));
    assert_eq!(told["tls"]["problem"], Value::Null);
    assert!(status(&first).is_none(), "the old one is shown no more");
    let txid = node.pay(&address, COIN);
    assert!(hears(&mut session, "new_transactions").contains(&txid));
}

#[test]
fn sighup_has_the_files_read_again_and_the_daemon_goes_on() {
    let (node, files) = (Node::start(), Files::new());
    let daemon = start(&node, &files, &[]);
    daemon.hang_up();
    wait_until("the log line", || {
        let log = daemon.log();
        log.contains("the certificate was read again").then_some(())
    });
    assert_eq!(daemon.get("/health/live").status, 200);
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let (node, files) = (Node::start(), Files::new());
    let daemon = start(&node, &files, &[("server.hsts", "3600")]);
    for (version, spoken) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let stream = tls::connect(daemon.port(), files.cert(), &[version]).expect("a handshake");
        assert_eq!(stream.conn.protocol_version(), Some(spoken));
        let url = format!("{}/health/live", daemon.url());
        let answer = crate::common::http::exchange(stream, "GET", &url, &[], b"");
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["strict-transport-security"], "max-age=3600");
    }
    // A ClientHello of TLS 1.1 with one suite of its time.
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let mut stream = TcpStream::connect(("127.0.0.1", daemon.port())).expect("it listens");
    stream.write_all(&hello).expect("it reads");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    // A fatal alert.
    assert!(
        answer.len() == 7 && answer[0] == 21 && answer[5] == 2,
        "{answer:?}"
    );
}

#[test]
fn plain_http_on_the_tls_port_is_told_where_to_go() {
    let (node, files) = (Node::start(), Files::new());
    let daemon = start(&node, &files, &[]);
    let host = format!("127.0.0.1:{}", daemon.port());
    let answer =
        crate::common::daemon::request("GET", &format!("http://{host}/status?a=b"), &[], None)
            .expect("a readable answer");
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json["code"], "https_required", "{}", answer.text);
    let sentence = answer.json["error"].as_str().expect("a sentence");
    assert!(
        sentence.ends_with(&format!("https://{host}/status?a=b")),
        "{sentence}"
    );
    assert!(answer.headers.get("strict-transport-security").is_none());
    let line = "what=\"GET\" concerns=\"/status\" outcome=\"https_required\"";
    wait_until("it is in the access log", || {
        daemon.log().contains(line).then_some(())
    });
    let url = format!("http://{host}");
    let mut listening = Program::python("../../regtest/listen.py", &[&url, &node.address()]);
    let said = listening.ends(1);
    assert!(said.contains(&format!("https://{host}")), "{said}");
}

#[test]
fn under_tls_only_https_is_the_daemons_own_origin() {
    let (node, files) = (Node::start(), Files::new());
    let daemon = start(&node, &files, &[("server.allowed_hosts", "shop.example")]);
    for (origin, status) in [("https://shop.example", 200), ("http://shop.example", 403)] {
        let headers = [("Host", "shop.example"), ("Origin", origin)];
        let answer = daemon.request("GET", "/health/live", &headers, None);
        assert_eq!(answer.status, status, "{origin}: {}", answer.text);
    }
}

#[test]
fn handshakes_that_nobody_finishes_cost_the_oldest_of_them_and_nobody_else() {
    let (node, files) = (Node::start(), Files::new());
    let daemon = start(&node, &files, &[("limits.unfinished_handshakes", "4")]);
    let address = node.address();
    let mut session = subscribed(&daemon, files.cert(), &address);
    let mut slow: Vec<TcpStream> = (0..12)
        .map(|_| {
            let stream = TcpStream::connect(("127.0.0.1", daemon.port()));
            let mut stream = stream.expect("it listens");
            // The beginning of a ClientHello.
            stream.write_all(&[22, 3, 1]).expect("it reads");
            stream
        })
        .collect();
    let mut byte = [0];
    let ended = slow[0].read(&mut byte);
    assert!(matches!(ended, Ok(0) | Err(_)), "the oldest made room");
    let limits = daemon.get("/status").json["limits"].clone();
    let unfinished = &limits["unfinished_handshakes"];
    assert_eq!(unfinished["limit"], 4, "{limits}");
    assert!(unfinished["refused"].as_u64() >= Some(8), "{limits}");
    assert!(
        daemon
            .log()
            .contains("limits.unfinished_handshakes is reached")
    );
    let txid = node.pay(&address, COIN);
    assert!(hears(&mut session, "new_transactions").contains(&txid));
}

#[test]
fn an_address_with_too_many_connections_is_told_so_and_others_notice_nothing() {
    let node = Node::start();
    let settings = [
        ("limits.connections_per_address", "2"),
        ("server.trusted_proxies", "127.0.0.4"),
    ];
    let daemon = Daemon::with(&node, &settings);
    let from = |address| connect_from(address, daemon.port()).expect("it listens");
    let ask = |mut stream: TcpStream| {
        let request = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        stream.write_all(request).expect("it reads");
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).expect("it answers");
        answer.truncate(read);
        (stream, String::from_utf8(answer).expect("text"))
    };
    let crowd = [127, 0, 0, 2];
    let _held = [(); 2].map(|()| {
        let (stream, answer) = ask(from(crowd));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        stream
    });
    let (_, refused) = ask(from(crowd));
    assert!(
        refused.starts_with("HTTP/1.1 429") && refused.contains("limits.connections_per_address"),
        "{refused}"
    );
    let (_, other) = ask(from([127, 0, 0, 3]));
    assert!(other.starts_with("HTTP/1.1 200"), "{other}");
    let _proxied = [(); 4].map(|()| {
        let (stream, answer) = ask(from([127, 0, 0, 4]));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        stream
    });
    let limit = daemon.get("/status").json["limits"]["connections_per_address"].clone();
    assert_eq!(
        (&limit["limit"], &limit["used"], &limit["refused"]),
        (&2.into(), &2.into(), &1.into()),
        "{limit}"
    );
    assert!(
        daemon
            .log()
            .contains("limits.connections_per_address is reached")
    );
}

#[test]
fn metrics_have_an_address_of_their_own_where_nothing_else_is() {
    let (node, files) = (Node::start(), Files::new());
    let daemon = start(&node, &files, &[("metrics.listen", "0.0.0.0:0")]);
    let status = daemon.get("/status").json;
    let listen = status["metrics_listen"][0].as_str().expect("an address");
    let listen = listen.replace("0.0.0.0", "127.0.0.1");
    let get = |path: &str| {
        let url = format!("http://{listen}{path}");
        crate::common::daemon::request("GET", &url, &[], None).expect("an answer")
    };
    assert!(get("/metrics").text.contains("satwatch_tip_height"));
    assert_eq!(get("/health/live").status, 200);
    for path in ["/status", "/", "/socket.io/?EIO=4&transport=polling"] {
        assert_eq!(get(path).status, 404, "{path}");
    }
    assert_eq!(status["limits"]["metrics_connections"]["limit"], 64);
    let warning = "reads the metrics, names of consumers among them, without a token";
    wait_until("the warning", || {
        daemon.log().contains(warning).then_some(())
    });
}

/// `satwatch` with these words, and the settings for these files; as another user if it says so.
fn satwatch(files: &Files, words: &[&str], runner: &[&str]) -> Output {
    let words = runner
        .iter()
        .chain(&[env!("CARGO_BIN_EXE_satwatch")])
        .chain(words);
    let words: Vec<&str> = words.copied().collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(files.folder());
    for (name, value) in files.settings() {
        let name = name.replace('.', "__").to_uppercase();
        command.env(format!("SATWATCH__{name}"), value);
    }
    command.output().expect("cargo has built the binary")
}

#[test]
fn what_is_wrong_with_the_files_of_tls_is_told_apart_and_each_remedy_helps() {
    let check = |files: &Files, code: i32, words: &[&str]| {
        let output = satwatch(files, &["--check"], &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        for words in words {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert!(!words.is_empty() || said.is_empty(), "{said}");
    };
    let files = Files::new();
    check(&files, 0, &[]);
    let mode = |mode| fs::set_permissions(files.key(), fs::Permissions::from_mode(mode));
    mode(0o644).expect("ours");
    check(
        &files,
        0,
        &["others on this machine may read", "run: chmod 600"],
    );
    mode(0o600).expect("ours");
    check(&files, 0, &[]);

    let other = Files::new();
    let own = fs::read(files.key()).expect("ours");
    fs::copy(other.key(), files.key()).expect("ours");
    check(
        &files,
        2,
        &["was not made for the key", "the key that it was made for"],
    );
    let doctor = |words: &str| {
        let report = satwatch(&files, &["doctor"], &[]);
        let report = String::from_utf8_lossy(&report.stdout).into_owned();
        assert!(report.contains(words), "{words}: {report}");
    };
    doctor(" BAD  TLS: the certificate in");
    let protected = Command::new("openssl")
        .args(["pkey", "-aes256", "-passout", "pass:x", "-in"])
        .arg(other.key())
        .arg("-out")
        .arg(files.key())
        .status();
    assert!(protected.expect("openssl can be run").success());
    check(&files, 2, &["under a passphrase", "openssl pkey -in"]);
    fs::write(files.key(), "").expect("ours");
    check(&files, 2, &["no whole private key", "satwatch cert new"]);
    fs::write(files.key(), &own).expect("ours");
    check(&files, 0, &[]);
    doctor("  ok  TLS: a certificate for ");

    fs::remove_file(files.cert()).expect("ours");
    check(&files, 2, &["cannot be read", "set server.tls.cert"]);
    // As cert new says it: nothing is written over what is there.
    let refused = satwatch(&files, &["cert", "new"], &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("move it away first"), "{said}");
    assert!(!files.cert().exists() && fs::read(files.key()).is_ok_and(|key| key == own));
    fs::rename(files.key(), files.folder().join("away")).expect("ours");
    let made = satwatch(&files, &["cert", "new", "--host", "shop.lan"], &[]);
    assert!(made.status.success(), "{made:?}");
    let said = String::from_utf8_lossy(&made.stdout);
    assert!(
        said.contains("requests for shop.lan") && said.contains("server.allowed_hosts"),
        "{said}"
    );
    let mode = fs::metadata(files.key())
        .expect("made")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    check(&files, 0, &[]);

    let now = SystemTime::now();
    check(
        &Files::made_at(now - 826 * DAY),
        2,
        &["ended on", "renew it"],
    );
    check(
        &Files::made_at(now - 815 * DAY),
        0,
        &["ends soon", "renew it"],
    );
    check(
        &Files::made_at(now + 9 * DAY),
        0,
        &["begins only", "set this machine's clock"],
    );
}

#[test]
fn a_start_without_a_good_pair_says_why_and_does_not_begin() {
    let (node, files) = (Node::start(), Files::new());
    let mut daemon = start(&node, &files, &[]);
    daemon.stop();
    let key = fs::read(files.key()).expect("ours");
    fs::copy(Files::new().key(), files.key()).expect("ours");
    let output = daemon.second();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("was not made for the key"), "{said}");
    fs::write(files.key(), key).expect("ours");
    daemon.restart();
}

#[test]
fn a_key_that_may_not_be_read_is_to_be_readable() {
    let files = Files::new();
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    };
    open(&files.folder(), 0o755);
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let refused = satwatch(&files, &["--check"], &nobody);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    let advice = "let the user that satwatch runs as read";
    assert!(said.contains(advice), "as root: {said}");
    open(files.key(), 0o644);
    let read = satwatch(&files, &["--check"], &nobody);
    assert_eq!(read.status.code(), Some(0), "{read:?}");
}
