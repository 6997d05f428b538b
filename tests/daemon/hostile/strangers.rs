//! Sessions of Socket.IO that never say who they are, where a token is needed: as many as there may
//! be and more, each asked for in every way, and packets that are begun and not ended.

use serde_json::json;

use super::raw;
use super::well_behaved::WellBehaved;
use crate::common::{Daemon, wait_until};

/// Sessions at the same time; connections likewise.
const SESSIONS: usize = 60;
const WEBSOCKETS: usize = 30;

fn ask(port: u16, method: &str, query: &str, body: &str) -> String {
    let length = body.len();
    let path = format!("/socket.io/?EIO=4&transport=polling{query}");
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    raw::exchange(
        port,
        format!("{head}Content-Length: {length}\r\n\r\n{body}"),
    )
}

/// A daemon where a token is needed, which is the second.
fn daemon(node: &crate::common::Node) -> (Daemon, String) {
    let daemon = Daemon::with(node, &[("limits.connections", &*SESSIONS.to_string())]);
    let token = daemon.token(&["new", "--name", "good", "--scope", "watch"]);
    wait_until("the token is in force", || {
        (daemon.get("/status").status == 401).then_some(())
    });
    (daemon, token)
}

/// One new client of each kind gets in.
fn newcomers(port: u16, connect: &str) {
    let query = format!("&sid={}", raw::polling_session(port));
    assert_eq!(raw::statuses(&ask(port, "POST", &query, connect)), [200]);
    let answer = ask(port, "GET", &query, "");
    assert!(answer.contains("40{\"sid\""), "{answer}");
    ask(port, "POST", &query, "1");
    let stream = raw::websocket(port);
    raw::send(&stream, raw::frame(0x81, connect.as_bytes()));
    raw::send(&stream, raw::frame(0x88, b""));
    let answer = raw::rest(&stream);
    assert!(answer.contains("40{\"sid\""), "{answer}");
}

#[test]
fn sessions_without_a_token_keep_nobody_out_who_has_one() {
    let node = super::node();
    let (daemon, token) = daemon(&node);
    let port = daemon.port();
    let well_behaved = WellBehaved::with_token(&node, &daemon, Some(&token));
    let connect = format!("40{}", json!({ "token": token }));

    // Each is asked for at once: by a good request, by a bad one, with a CONNECT that is refused.
    for number in 0..2 * SESSIONS {
        let query = format!("&sid={}", raw::polling_session(port));
        let (method, body, expected) = [
            ("POST", "3", 200),
            ("DELETE", "", 400),
            ("POST", "40{\"token\":\"sw_no\"}", 200),
        ][number % 3];
        let answer = ask(port, method, &query, body);
        assert_eq!(raw::statuses(&answer), [expected], "{number}: {answer}");
    }
    newcomers(port, &connect);
    well_behaved.hear();
    // On WebSockets, which stay. Those behind the last place push out the first.
    let silent: Vec<_> = (0..WEBSOCKETS).map(|_| raw::websocket(port)).collect();
    for _ in 0..SESSIONS {
        raw::polling_session(port);
    }
    for stream in &silent {
        raw::rest(stream);
    }
    newcomers(port, &connect);
    well_behaved.end();
}

#[test]
fn packets_without_a_token_take_no_room_of_those_with_one() {
    let node = super::node();
    let (daemon, token) = daemon(&node);
    let port = daemon.port();
    let well_behaved = WellBehaved::with_token(&node, &daemon, Some(&token));
    let connect = format!("40{}", json!({ "token": token }));
    let long = format!("40{}", json!({ "more": "x".repeat(10_000) }));

    let query = format!("&sid={}", raw::polling_session(port));
    let refused = ask(port, "POST", &query, &long);
    assert_eq!(raw::statuses(&refused), [413], "{refused}");
    assert!(refused.contains("Payload too large"), "{refused}");
    let stream = raw::websocket(port);
    // It is refused at its beginning.
    let frame = raw::frame(0x81, long.as_bytes());
    raw::send(&stream, &frame[..100]);
    let mut said = Vec::new();
    std::io::Read::read_to_end(&mut &stream, &mut said).expect("it is closed");
    assert!(said.ends_with(&[0x88, 2, 0x03, 0xf1]), "1009: {said:?}");

    // With the token, as long ones as ever.
    let stream = raw::websocket(port);
    let event = format!(
        "42{}",
        json!(["subscribe_address", { "address": "x".repeat(10_000) }])
    );
    for packet in [&connect, &event] {
        raw::send(&stream, raw::frame(0x81, packet.as_bytes()));
    }
    let mut said = String::new();
    while !said.contains("invalid_address") {
        let mut some = [0; 4096];
        let read = std::io::Read::read(&mut &stream, &mut some).expect("it is open");
        assert_ne!(read, 0, "{said}");
        said += &String::from_utf8_lossy(&some[..read]);
    }
    drop(stream);
    newcomers(port, &connect);
    well_behaved.end();
}
