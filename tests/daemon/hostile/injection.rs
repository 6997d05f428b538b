//! Ends of lines, and bytes that move a terminal's cursor, in whatever the daemon repeats: in
//! headers of answers, in the log, in refusals.

use std::io::Read;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

use super::raw;
use super::well_behaved::WellBehaved;
use crate::common::{Daemon, wait_until};

/// Ends of lines as they may be written; behind each comes what would be a line of its own.
const BREAKS: [&str; 9] = [
    "%0d%0a",
    "%0a",
    "%0d",
    "%0D%0A%0D%0A",
    "%c4%8a",
    "%e2%80%a8",
    "%c2%85",
    "%00",
    "%1b%5b2J%1b%5b1;1H",
];
const FORGED: &str = "FORGED:";

/// Requests that repeat the injected text in their path, query or headers; `END` stands for the
/// end of a line.
const PLACES: [&str; 14] = [
    "GET /xENDFORGED:%20x HTTP/1.1\r\nHost: localhost\r\n",
    "GET /balance/xENDFORGED:%20x HTTP/1.1\r\nHost: localhost\r\n",
    "GET /consumers/xENDFORGED:%20x HTTP/1.1\r\nHost: localhost\r\n",
    "DELETE /consumers/xENDFORGED:%20x HTTP/1.1\r\nHost: localhost\r\n",
    "GET /events?after=xENDFORGED:%20x HTTP/1.1\r\nHost: localhost\r\n",
    "GET /events?xENDFORGED:%20x=1 HTTP/1.1\r\nHost: localhost\r\n",
    "GET /socket.io/?EIO=4&transport=polling&sid=xENDFORGED:%20x HTTP/1.1\r\nHost: localhost\r\n",
    "OPTIONS /xENDFORGED:%20x HTTP/1.1\r\nHost: localhost\r\n",
    "GET /status HTTP/1.1\r\nHost: xENDFORGED:%20x\r\n",
    "GET /status HTTP/1.1\r\nHost: localhost\r\nOrigin: http://xENDFORGED:%20x\r\n",
    "OPTIONS /status HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:1\r\nAccess-Control-Request-Headers: xENDFORGED:%20x\r\n",
    "GET /status HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1ENDFORGED:%20x\r\n",
    "GET /status HTTP/1.1\r\nHost: localhost\r\nForwarded: for=\"192.0.2.1ENDFORGED:%20x\"\r\n",
    "GET /status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer xENDFORGED:%20x\r\n",
];

/// The same bytes as they are, decoded.
fn decoded(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}

/// No header of any answer, and no further answer, was made by what was sent.
fn check(answer: &str, request: &[u8]) {
    let shown = String::from_utf8_lossy(request);
    assert_eq!(raw::statuses(answer).len(), 1, "{shown:?}: {answer:?}");
    let (head, _) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    for line in head.split("\r\n") {
        let line = line.trim_start();
        assert!(
            !line.starts_with(FORGED) && !line.contains(['\n', '\r', '\0', '\x1b']),
            "{shown:?}: {answer:?}"
        );
    }
}

/// Every line of the log is one that the daemon wrote: it begins with a time, and has nothing that
/// a terminal obeys.
fn check_log(log: &str) {
    assert!(log.contains("FORGED"), "something of it was said");
    for line in log
        .split(['\n', '\u{2028}', '\u{2029}', '\u{85}'])
        .filter(|line| !line.is_empty())
    {
        let begins = line
            .trim_start()
            .starts_with(|it: char| it.is_ascii_digit());
        assert!(begins && !line.contains(char::is_control), "{line:?}");
    }
}

#[test]
fn nothing_that_is_sent_becomes_a_header_or_a_line_of_the_log() {
    let node = super::node();
    let settings = [
        ("server.trusted_proxies", "127.0.0.1"),
        ("limits.requests_per_second", "100"),
    ];
    let daemon = Daemon::with(&node, &settings);
    let [good, bad] =
        ["good", "bad"].map(|name| daemon.token(&["new", "--name", name, "--scope", "watch"]));
    wait_until("the tokens are in force", || {
        (daemon.get("/status").status == 401).then_some(())
    });
    let forged = daemon
        .command_of(&["token", "new", "--name", "x\nFORGED: x", "--scope", "read"])
        .output()
        .expect("cargo has built the binary");
    assert!(!forged.status.success(), "a name is one line: {forged:?}");
    let well_behaved = WellBehaved::with_token(&node, &daemon, Some(&good));

    for token in ["", &bad] {
        for (place, end) in PLACES
            .iter()
            .flat_map(|it| BREAKS.map(move |end| (it, end)))
        {
            let written = place.replace("END", end);
            let (line, headers) = written.split_once("\r\n").expect("a request line");
            // Headers take bytes as they are.
            let raw_headers = [format!("{line}\r\n").into_bytes(), decoded(headers)].concat();
            let mut requests = vec![written.clone().into_bytes()];
            // An empty line would end the request.
            if !headers.contains("%0D%0A%0D%0A") {
                requests.push(raw_headers);
            }
            for request in requests {
                let credential = match token {
                    "" => String::new(),
                    token => format!("Authorization: Bearer {token}\r\n"),
                };
                let end = format!("{credential}Connection: close\r\n\r\n");
                let request = [&request[..], end.as_bytes()].concat();
                check(&raw::exchange(daemon.port(), &request), &request);
            }
        }
    }
    let text = "x\r\nFORGED: x\u{2028}FORGED\u{85}FORGED\u{1b}[2J\0";
    let bearer = format!("Bearer {bad}");
    for (path, body) in [
        ("/add_address", json!({ "address": text })),
        (
            "/add_address",
            json!({ "address": node.address(), "label": text }),
        ),
        ("/add_address", json!({ text: 1 })),
        ("/session", json!({ "token": text })),
        ("/scan_history", json!({ "addresses": [text] })),
    ] {
        let (headers, body) = (
            [
                ("Content-Type", "application/json"),
                ("Authorization", &*bearer),
            ],
            body.to_string(),
        );
        let answer = daemon.request("POST", path, &headers, Some(body.as_bytes()));
        assert!(
            answer.headers.get("forged").is_none(),
            "{path}: {}",
            answer.text
        );
    }
    events(&daemon, &bad, text);
    wait_until("refused events are in the log", || {
        daemon.log().contains("rate_limited").then_some(())
    });
    well_behaved.end();
    check_log(&daemon.log());
}

/// Names of events are repeated where they are refused: so many that some are.
fn events(daemon: &Daemon, token: &str, name: &str) {
    let stream = raw::websocket(daemon.port());
    let mut reading = stream.try_clone().expect("a socket handle can be cloned");
    let drained = std::thread::spawn(move || reading.read_to_end(&mut Vec::new()));
    let mut socket = WebSocket::from_raw_socket(stream, Role::Client, None);
    let packets = [format!("40{}", json!({ "token": token }))].into_iter();
    let event = format!("42{}", json!([name, Value::Null]));
    for packet in packets.chain(std::iter::repeat_n(event, 1500)) {
        socket.send(Message::text(packet)).expect("it reads");
    }
    wait_until("an event is refused", || {
        daemon.log().contains("rate_limited").then_some(())
    });
    socket
        .get_ref()
        .shutdown(std::net::Shutdown::Both)
        .expect("it is open");
    drained.join().expect("it does not panic").ok();
}
