//! More of everything than anybody needs: each is refused, or ends its own connection, and the
//! daemon does not grow by it.

use std::io::Read;
use std::thread::spawn;

use serde_json::json;

use super::raw;
use super::well_behaved::WellBehaved;
use crate::common::{Daemon, wait_until};

const MEGABYTE: usize = 1 << 20;
/// How much the daemon's memory may grow, in KiB: what is being received is bounded by 64 MiB, one
/// body by 4 MiB.
const GROWTH: u64 = 256 << 10;

const GET: &str = "GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
const POST: &str = "POST /add_address HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

fn post(body: &str) -> String {
    format!("{POST}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// What is asked for over HTTP, by name, and how it may be answered; 0: by the end of the
/// connection alone.
fn requests() -> Vec<(&'static str, String, &'static [u16])> {
    let x = |count: usize| "x".repeat(count);
    let deep = |count: usize| format!("{}{}", "[".repeat(count), "]".repeat(count));
    let (chunked, head) = (
        format!("{POST}Transfer-Encoding: chunked\r\n\r\n"),
        &[0, 431][..],
    );
    let numbers = |number: &str| {
        post(&format!(
            r#"{{"address":"x","history":{{"from_height":{number}}}}}"#
        ))
    };
    vec![
        (
            "method",
            format!("{} / HTTP/1.1\r\n\r\n", x(MEGABYTE)),
            &[0, 400, 431],
        ),
        (
            "request line",
            get(&format!("/{}", x(MEGABYTE))),
            &[0, 414, 431],
        ),
        ("path", get(&format!("/{}", x(15_000))), &[404]),
        ("parts of a path", get(&"/x".repeat(7000)), &[404]),
        (
            "part of a path",
            get(&format!("/balance/{}", x(15_000))),
            &[400],
        ),
        (
            "query",
            get(&format!("/events?after={}", x(15_000))),
            &[400],
        ),
        (
            "parameters",
            get(&format!("/events?{}", "address=x&".repeat(1500))),
            &[400],
        ),
        (
            "unknown parameters",
            get(&format!("/events?{}", "x&".repeat(7000))),
            &[400],
        ),
        (
            "parameters of a session",
            get(&format!("/socket.io/?{}", "sid=x&".repeat(2500))),
            &[400],
        ),
        ("limit", get("/events?limit=99999999999999999999"), &[400]),
        ("limit below 0", get("/events?limit=-1"), &[400]),
        ("wait", get("/events?wait=1e9"), &[400]),
        ("header", format!("{GET}X: {}\r\n\r\n", x(MEGABYTE)), head),
        (
            "name of a header",
            format!("{GET}{}: x\r\n\r\n", x(MEGABYTE)),
            &[0, 400, 431],
        ),
        (
            "headers",
            format!("{GET}{}\r\n", "X: x\r\n".repeat(1000)),
            head,
        ),
        (
            "many headers",
            format!("{GET}{}\r\n", "X: x\r\n".repeat(100_000)),
            head,
        ),
        (
            "host",
            get("/status").replace("localhost", &x(15_000)),
            &[403],
        ),
        (
            "origin",
            format!("{GET}Origin: http://{}\r\n\r\n", x(15_000)),
            &[403],
        ),
        (
            "token",
            format!("{GET}Authorization: Bearer {}\r\n\r\n", x(15_000)),
            &[200],
        ),
        (
            "cookies",
            format!("{GET}Cookie: {}\r\n\r\n", "a=b; ".repeat(3000)),
            &[200],
        ),
        (
            "forwarding",
            format!(
                "{GET}X-Forwarded-For: {}\r\n\r\n",
                "192.0.2.1, ".repeat(1000)
            ),
            &[200],
        ),
        (
            "length",
            format!("{POST}Content-Length: 18446744073709551615\r\n\r\n"),
            &[400, 413, 431],
        ),
        (
            "announced body",
            format!("{POST}Content-Length: 99999999\r\n\r\n"),
            &[413],
        ),
        ("body", post(&x(5 * MEGABYTE)), &[413]),
        (
            "chunks",
            format!(
                "{chunked}{}",
                format!("10000\r\n{}\r\n", x(1 << 16)).repeat(100)
            ),
            &[413],
        ),
        (
            "chunk",
            format!("{chunked}FFFFFFFFFFFFFFF\r\n{}", x(5 * MEGABYTE)),
            &[0, 413],
        ),
        (
            "size of a chunk",
            format!("{chunked}FFFFFFFFFFFFFFFFF\r\n{}", x(100)),
            &[400, 413],
        ),
        (
            "digits of a chunk",
            format!("{chunked}{}1\r\nx\r\n0\r\n\r\n", "0".repeat(MEGABYTE)),
            &[0, 400],
        ),
        (
            "extension of a chunk",
            format!("{chunked}1;{}\r\nx\r\n", x(MEGABYTE)),
            &[0, 400],
        ),
        (
            "extensions",
            format!("{chunked}{}", "1;xxxxxxxx\r\n \r\n".repeat(10_000)),
            &[0, 400],
        ),
        (
            "trailers",
            format!("{chunked}0\r\n{}\r\n", "X: x\r\n".repeat(100_000)),
            &[0, 400],
        ),
        (
            "trailer",
            format!("{chunked}0\r\nX: {}\r\n\r\n", x(MEGABYTE)),
            &[0, 400],
        ),
        ("depth", post(&deep(1_000_000)), &[400, 413]),
        (
            "depth of a field",
            post(&format!(r#"{{"address":{}}}"#, deep(100_000))),
            &[400, 413],
        ),
        (
            "depth of objects",
            post(&r#"{"address":"#.repeat(100_000)),
            &[400, 413],
        ),
        (
            "fields",
            post(&format!(
                "{{{}\"x\":1}}",
                "\"address\":\"x\",".repeat(100_000)
            )),
            &[400, 413],
        ),
        (
            "field",
            post(&format!("{{\"{}\":1}}", x(4_000_000))),
            &[400, 413],
        ),
        (
            "address",
            post(&format!(r#"{{"address":"{}"}}"#, x(4_000_000))),
            &[400, 413],
        ),
        (
            "escapes",
            post(&format!(r#"{{"address":"{}"}}"#, "\\ud83d".repeat(600_000))),
            &[400, 413],
        ),
        ("exponent", numbers("1e999999999"), &[400, 413]),
        ("digits", numbers(&"9".repeat(3_000_000)), &[400, 413]),
        (
            "fraction",
            numbers(&format!("0.{}1", "0".repeat(3_000_000))),
            &[400, 413],
        ),
        ("height", numbers("99999999999999999999"), &[400, 413]),
        ("height below 0", numbers("-1"), &[400, 413]),
        (
            "list",
            post(&format!("[{}\"x\"]", "\"x\",".repeat(900_000)))
                .replace("/add_address", "/add_addresses"),
            &[400, 413],
        ),
        (
            "list of addresses",
            post(&format!(
                "{{\"addresses\":[{}\"x\"]}}",
                "\"x\",".repeat(900_000)
            ))
            .replace("/add_address", "/add_addresses"),
            &[400, 413],
        ),
    ]
}

/// What polling clients post.
fn payloads() -> Vec<(&'static str, String, &'static [u16])> {
    let event = |name: &str| format!("42[\"{name}\",null]");
    vec![
        ("payload", "x".repeat(2 * MEGABYTE), &[413]),
        ("packets", "3\x1e".repeat(100_000), &[200, 400, 413]),
        (
            "packets of Socket.IO",
            format!("{}3", "42[\"x\"]\x1e".repeat(20_000)),
            &[200, 400, 413],
        ),
        ("message", format!("4{}", "x".repeat(900_000)), &[200, 400]),
        ("name of an event", event(&"x".repeat(900_000)), &[200, 400]),
    ]
}

/// Frames of a WebSocket that is in the namespace.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let text = |packet: &str| raw::frame(0x81, packet.as_bytes());
    let announced =
        |first: u8, length: u64| [&[first, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    let deep = |count: usize| format!("42[\"x\",{}{}]", "[".repeat(count), "]".repeat(count));
    let addresses = |count: usize| {
        format!(
            "42[\"subscribe_addresses\",{{\"addresses\":[{}\"x\"]}}]",
            "\"x\",".repeat(count)
        )
    };
    vec![
        ("frame", announced(0x81, u64::MAX)),
        ("half that", announced(0x82, u64::MAX >> 1)),
        ("a bit too much", announced(0x81, 1_000_001)),
        ("message", raw::frame(0x81, &[b'4'; 2 * MEGABYTE])),
        (
            "fragments",
            [
                raw::frame(0x01, b"4"),
                raw::frame(0x00, &[b'x'; 50_000]).repeat(100),
            ]
            .concat(),
        ),
        (
            "fragments without data",
            [
                raw::frame(0x01, b"4"),
                raw::frame(0x00, b"").repeat(100_000),
            ]
            .concat(),
        ),
        ("control frame", announced(0x89, 126)),
        ("pings", raw::frame(0x89, &[b'x'; 125]).repeat(20_000)),
        ("event", text(&format!("42[\"{}\"]", "x".repeat(900_000)))),
        (
            "number of an acknowledgement",
            text(&format!("42{}[\"x\"]", "9".repeat(900_000))),
        ),
        ("namespace", text(&format!("40/{},", "x".repeat(900_000)))),
        (
            "namespaces",
            (0..10_000)
                .flat_map(|it| text(&format!("40/{it},")))
                .collect(),
        ),
        ("attachments", text("5999999999-[\"x\"]")),
        (
            "digits of attachments",
            text(&format!("5{}-[\"x\"]", "9".repeat(900_000))),
        ),
        (
            "attachment",
            [
                text("51-[\"x\",{\"_placeholder\":true,\"num\":0}]"),
                raw::frame(0x82, &[0; 2 * MEGABYTE]),
            ]
            .concat(),
        ),
        ("depth", text(&deep(100_000))),
        ("depth below the limit of a packet", text(&deep(490_000))),
        (
            "arguments",
            text(&format!("42[\"x\"{}]", ",1".repeat(400_000))),
        ),
        ("addresses", text(&addresses(200_000))),
        (
            "credential",
            text(&format!("40{}", json!({ "token": "x".repeat(900_000) }))),
        ),
        ("packets", text("42[\"x\"]").repeat(20_000)),
    ]
}

fn peak(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|it| it.split_whitespace().next()?.parse().ok());
    number.expect("KiB")
}

#[test]
fn what_is_too_large_is_refused_and_the_daemon_does_not_grow_by_it() {
    let node = super::node();
    let daemon = Daemon::start(&node);
    let well_behaved = WellBehaved::begin(&node, &daemon);
    let (port, before) = (daemon.port(), peak(&daemon));
    let check = |name: &str, answer: String, expected: &[u16]| {
        let status = raw::statuses(&answer).first().copied().unwrap_or(0);
        let shown: String = answer.chars().take(500).collect();
        assert!(expected.contains(&status), "{name}: {status} {shown}");
        assert!(answer.len() < 20_000, "{name} is not repeated at length");
    };
    for (name, request, expected) in requests() {
        check(name, raw::exchange(port, request), expected);
    }
    well_behaved.hear();
    for (name, payload, expected) in payloads() {
        let sid = raw::polling_session(port);
        let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
        let ask = |body: &str| {
            let request = post(body).replace("/add_address", &path);
            raw::exchange(port, request.replace("application/json", "text/plain"))
        };
        check(name, ask("40"), &[200]);
        // Nothing more is taken of a client whose answers wait, so they are fetched.
        let poll = get(&path);
        let polling = spawn(move || while raw::exchange(port, &poll).contains(" 200 OK") {});
        check(name, ask(&payload), expected);
        // It is over, or ended here.
        check(name, ask("1"), &[200, 400]);
        polling.join().expect("it does not panic");
    }
    well_behaved.hear();
    for (name, bytes) in frames() {
        let stream = raw::websocket(port);
        raw::send(&stream, raw::frame(0x81, b"40"));
        // What comes back is read meanwhile: it is not the daemon's to keep.
        let mut reading = stream.try_clone().expect("a socket handle can be cloned");
        let read = spawn(move || {
            let mut all = Vec::new();
            reading.read_to_end(&mut all).ok();
            all.len()
        });
        raw::send(&stream, &bytes);
        raw::send(&stream, raw::frame(0x88, b""));
        let said = read.join().expect("it does not panic");
        assert!(said < 30 * bytes.len() + 20_000, "{name}: {said}");
    }
    well_behaved.end();
    let grown = peak(&daemon) - before;
    println!("the daemon's peak grew by {grown} KiB");
    assert!(grown < GROWTH, "{grown} KiB");
    wait_until("nothing of it is watched", || {
        (daemon.get("/addresses").json["total"] == 1).then_some(())
    });
}
