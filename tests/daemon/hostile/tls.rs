//! TLS: ciphers of before, handshakes that stand still or crawl, connections that are closed by
//! halves, and what a connection holds.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;

use super::raw;
use super::well_behaved::WellBehaved;
use crate::common::tls::{self, Files, Stream};
use crate::common::{Daemon, Node, wait_until};

const EACH: usize = 40;

struct Stage {
    node: Arc<Node>,
    daemon: Daemon,
    files: Files,
}

impl Stage {
    fn start(more: &[(&str, &str)]) -> Self {
        let (node, files) = (super::node(), Files::new());
        let tls = files.settings();
        let mut settings: Vec<(&str, &str)> = tls.iter().map(|(name, it)| (*name, &**it)).collect();
        settings.extend(more);
        let daemon = Daemon::with(&node, &settings);
        Self {
            node,
            daemon,
            files,
        }
    }

    fn connect(&self) -> Stream {
        tls::connect(self.daemon.port(), self.files.cert(), tls::VERSIONS).expect("a handshake")
    }

    /// The same, for which the system holds little.
    fn connect_narrow(&self) -> Stream {
        let socket = raw::connect(self.daemon.port());
        SockRef::from(&socket)
            .set_recv_buffer_size(16 << 10)
            .expect("a socket takes options");
        tls::connect_on(socket, self.files.cert(), tls::VERSIONS).expect("a handshake")
    }

    fn used(&self, limit: &str) -> u64 {
        let used = self.daemon.get("/status").json["limits"][limit]["used"].as_u64();
        used.expect("a limit")
    }
}

/// What `openssl s_client` says with these words.
fn s_client(port: u16, trusted: &Path, words: &[&str]) -> String {
    let output = Command::new("timeout")
        .args(["60", "openssl", "s_client", "-connect"])
        .arg(format!("127.0.0.1:{port}"))
        .arg("-CAfile")
        .arg(trusted)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("openssl can be run");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

/// A ClientHello of TLS 1.2 that offers one suite, with X25519, P-256 and the usual signatures.
fn hello(suite: [u8; 2]) -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23][..],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 10, 0, 8, 4, 3, 5, 3, 8, 4, 4, 1],
        &[0, 23, 0, 0],
    ]
    .concat();
    let length = |bytes: &[u8]| (bytes.len() as u16).to_be_bytes();
    let mut body = [&[3, 3][..], &[7; 32], &[0], &[0, 2], &suite, &[1, 0]].concat();
    body.extend(length(&extensions));
    body.extend(extensions);
    let message = [&[1, 0][..], &length(&body), &body].concat();
    [&[22, 3, 1][..], &length(&message), &message].concat()
}

#[test]
fn only_ciphers_with_forward_secrecy_and_authentication_are_spoken() {
    let stage = Stage::start(&[]);
    let well_behaved = WellBehaved::begin(&stage.node, &stage.daemon);
    let port = stage.daemon.port();
    // CBC, exchange of the key by RSA, nothing secret, no certificate, 3DES, RC4, export.
    for suite in [
        0xc009_u16, 0xc00a, 0xc013, 0xc014, 0xc023, 0xc027, 0xc024, 0xc028, 0x009c, 0x009d, 0x002f,
        0x0035, 0x003c, 0x0033, 0x0039, 0x009e, 0xc008, 0xc012, 0x000a, 0x0005, 0x0004, 0xc007,
        0xc006, 0x0001, 0x003b, 0xc015, 0xc018, 0x006d, 0x0003, 0x0008, 0x0000, 0xcca8,
    ] {
        let answer = {
            let stream = raw::connect(port);
            raw::send(&stream, hello(suite.to_be_bytes()));
            let mut all = Vec::new();
            let _ = std::io::Read::read_to_end(&mut &stream, &mut all);
            all
        };
        // One record: a fatal alert, handshake_failure.
        let is_refused = answer.len() == 7 && answer[0] == 21 && answer[5..] == [2, 40];
        assert!(is_refused, "{suite:04x}: {answer:?}");
    }
    // The same ClientHello with a suite that is spoken goes on: it is not that which was refused.
    let stream = raw::connect(port);
    raw::send(&stream, hello([0xc0, 0x2b]));
    let mut record = [0; 6];
    std::io::Read::read_exact(&mut &stream, &mut record).expect("an answer");
    assert_eq!((record[0], record[5]), (22, 2), "a ServerHello: {record:?}");
    drop(stream);
    let said = |words: &[&str]| s_client(port, stage.files.cert(), words);
    for (words, cipher) in [
        (&["-tls1_3"][..], "TLSv1.3, Cipher is TLS_"),
        (&["-tls1_2"], "TLSv1.2, Cipher is ECDHE-ECDSA-"),
    ] {
        let said = said(words);
        assert!(
            said.contains(cipher) && said.contains("Verify return code: 0 (ok)"),
            "{said}"
        );
    }
    for words in [
        &["-tls1_2", "-cipher", "AES128-SHA:AES256-SHA:@SECLEVEL=0"][..],
        &[
            "-tls1_2",
            "-cipher",
            "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0",
        ],
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
    ] {
        let said = said(words);
        assert!(said.contains("Cipher is (NONE)"), "{words:?}: {said}");
    }
    // Who speaks HTTP/2 alone is told so by TLS.
    let two = said(&["-alpn", "h2"]);
    assert!(two.contains("no application protocol"), "{two}");
    let both = said(&["-alpn", "h2,http/1.1"]);
    assert!(both.contains("ALPN protocol: http/1.1"), "{both}");
    well_behaved.end();
}

#[test]
fn handshakes_that_crawl_and_connections_that_are_closed_by_halves_hold_nothing() {
    let stage = Stage::start(&[]);
    let well_behaved = WellBehaved::begin(&stage.node, &stage.daemon);
    let port = stage.daemon.port();
    let hello = hello([0xc0, 0x2b]);
    // Nothing, a part, a byte at a time, a whole one that is not gone on with, records of nothing.
    let mut crawling: Vec<(TcpStream, usize)> = (0..EACH)
        .flat_map(|_| {
            let begin = |first: &[u8]| {
                let stream = raw::connect(port);
                assert!(raw::send(&stream, first));
                stream
            };
            let empty = [22, 3, 1, 0, 0];
            [&b""[..], &hello[..40], &hello[..1], &hello, &empty]
                .map(|first| (begin(first), first.len()))
        })
        .collect();
    well_behaved.hear();
    wait_until("the daemon has ended all of them", || {
        crawling.retain_mut(|(stream, sent)| {
            if *sent < 40 {
                raw::send(&*stream, &hello[*sent..*sent + 1]);
                *sent += 1;
            }
            stream.set_nonblocking(true).expect("a socket");
            // A ServerHello may have come.
            let is_over = loop {
                match std::io::Read::read(&mut &*stream, &mut [0; 4096]) {
                    Ok(0) => break true,
                    Ok(_) => {}
                    Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
                }
            };
            stream.set_nonblocking(false).expect("a socket");
            !is_over
        });
        std::thread::sleep(Duration::from_millis(250));
        crawling.is_empty().then_some(())
    });
    well_behaved.hear();

    // While a request waits: closed below TLS, and in TLS alone.
    let address = stage.node.address();
    stage.daemon.watch(&address);
    let wait = format!("GET /events?address={address}&wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for in_tls in [false, true] {
        let mut waiting: Vec<Stream> = (0..EACH).map(|_| stage.connect()).collect();
        for stream in &mut waiting {
            stream.write_all(wait.as_bytes()).expect("it reads");
            stream.flush().expect("it reads");
        }
        wait_until("they wait", || {
            (stage.used("waiting_requests") >= EACH as u64).then_some(())
        });
        for stream in &mut waiting {
            if in_tls {
                stream.conn.send_close_notify();
                stream.flush().expect("it reads");
            } else {
                stream.sock.shutdown(Shutdown::Write).expect("it is open");
            }
        }
        wait_until("their places are free", || {
            (stage.used("waiting_requests") <= 1).then_some(())
        });
        well_behaved.given_back();
    }
    well_behaved.end();
}

/// A WebSocket over TLS goes on counting as a connection, and gives its places back; and a stop is
/// not held up by who does not read.
#[test]
fn a_websocket_over_tls_keeps_its_places_and_a_stop_waits_for_nobody() {
    let mut stage = Stage::start(&[("limits.connections_per_address", "3")]);
    let well_behaved = WellBehaved::begin(&stage.node, &stage.daemon);
    let upgrade = raw::UPGRADE;
    let from = [127, 0, 0, 5];
    let open = || {
        let socket = crate::common::http::connect_from(from, stage.daemon.port())?;
        let mut stream = tls::connect_on(socket, stage.files.cert(), tls::VERSIONS)?;
        stream.write_all(upgrade.as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            std::io::Read::read_exact(&mut stream, &mut byte)?;
            head.extend(byte);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{head:?}");
        Ok::<_, std::io::Error>(stream)
    };
    let mut held: Vec<Stream> = (0..3).map(|_| open().expect("a place")).collect();
    assert_eq!(stage.used("connections_per_address"), 3);
    assert_eq!(stage.used("connections"), 7);
    assert!(open().is_err(), "no more of this address");
    // One that leaves without a word, one that takes its leave.
    held.pop()
        .expect("three")
        .sock
        .shutdown(Shutdown::Both)
        .expect("it is open");
    let mut leaving = held.pop().expect("two");
    leaving.write_all(&raw::frame(0x88, b"")).expect("it reads");
    leaving.conn.send_close_notify();
    leaving.flush().expect("it reads");
    wait_until("their places are free", || {
        (stage.used("connections_per_address") == 1).then_some(())
    });
    held.push(open().expect("a place again"));
    drop((held, leaving));
    well_behaved.given_back();
    well_behaved.end();

    // Long answers that nobody reads, half handshakes, requests that wait.
    let addresses: Vec<String> = (0..300).map(|_| stage.node.address()).collect();
    let list = serde_json::json!({ "addresses": addresses, "history": "none" });
    assert_eq!(stage.daemon.post("/add_addresses", &list).status, 200);
    let many = "GET /addresses?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(400);
    let mut deaf: Vec<Stream> = (0..EACH).map(|_| stage.connect_narrow()).collect();
    for (place, stream) in deaf.iter_mut().enumerate() {
        let sent = match place % 3 {
            0 => many.as_str(),
            1 => upgrade,
            _ => "GET /events?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        };
        stream.write_all(sent.as_bytes()).expect("it reads");
        stream.flush().expect("it reads");
    }
    let _silent: Vec<TcpStream> = (0..EACH)
        .map(|_| raw::connect(stage.daemon.port()))
        .collect();
    wait_until("they are all there", || {
        (stage.used("connections") >= 2 * EACH as u64).then_some(())
    });
    let mut before = 0;
    wait_until("answers are stuck that nobody reads", || {
        std::thread::sleep(Duration::from_millis(300));
        let held = std::mem::replace(&mut before, stage.used("rest_bytes"));
        (held > 0 && held == before).then_some(())
    });
    // Within the time that it has, with 0.
    stage.daemon.stop();
    assert!(
        stage
            .daemon
            .log()
            .contains("connections still open after the time for last answers are dropped")
    );
    drop(deaf);
}
