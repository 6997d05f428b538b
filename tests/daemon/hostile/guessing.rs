//! Wrong tokens by every way that takes one, without a break. They are counted by address, and from
//! the same address good tokens go on, new connections included.

use std::time::Instant;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

use super::raw;
use super::well_behaved::{Reach, WellBehaved};
use crate::common::{Answer, Daemon, wait_until};

const A_MINUTE: usize = 60;
const GUESSES: usize = 200;
/// Lines of the access log that one client may cause at once, and in a second.
const LINES: [usize; 2] = [200, 20];

fn guess(number: usize) -> String {
    format!("sw_{number:043}")
}

fn bearer(daemon: &Daemon, token: &str, method: &str, path: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Authorization", &*bearer),
        ("Content-Type", "application/json"),
    ];
    daemon.request(method, path, &headers, Some(body.as_bytes()))
}

/// CONNECT packets on one WebSocket: the code of each answer.
fn connects(daemon: &Daemon, tokens: impl Iterator<Item = String>) -> Vec<Value> {
    let mut socket = WebSocket::from_raw_socket(raw::websocket(daemon.port()), Role::Client, None);
    let mut codes = Vec::new();
    for token in tokens {
        let packet = format!("40{}", json!({ "token": token }));
        socket.send(Message::text(packet)).expect("it reads");
        let answer = loop {
            let message = socket.read().expect("the session goes on");
            let text = message.into_text().expect("text");
            match text.strip_prefix("4") {
                Some(packet) => break packet.to_owned(),
                None if text == "2" => socket.send(Message::text("3")).expect("it reads"),
                None => {}
            }
        };
        let refusal = answer.strip_prefix("4");
        let refusal: Value =
            refusal.map_or(Value::Null, |it| serde_json::from_str(it).expect("JSON"));
        codes.push(refusal["data"]["code"].clone());
    }
    codes
}

/// The token in a header of the handshake, as older clients send it: the answer to their CONNECT.
fn by_header(port: u16, token: &str) -> String {
    let ask = |method: &str, query: &str, body: &str| {
        raw::exchange(
            port,
            format!(
                "{method} /socket.io/?EIO=4&transport=polling{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Authorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        )
    };
    let open = ask("GET", "", "");
    let (_, rest) = open.split_once("\"sid\":\"").expect("a session");
    let query = format!("&sid={}", rest.split('"').next().unwrap_or_default());
    ask("POST", &query, "40");
    let answer = ask("GET", &query, "");
    ask("POST", &query, "1");
    answer
}

#[test]
fn guessing_is_slowed_down_and_the_good_token_of_the_same_address_goes_on() {
    let node = super::node();
    let settings = [
        ("limits.costly_per_minute", &*A_MINUTE.to_string()),
        ("log.format", "json"),
    ];
    let daemon = Daemon::with(&node, &settings);
    let good = daemon.token(&["new", "--name", "good", "--scope", "watch"]);
    wait_until("the token is in force", || {
        (bearer(&daemon, &good, "GET", "/token", "").status == 200).then_some(())
    });
    let well_behaved = WellBehaved::with_token(&node, &daemon, Some(&good));

    let began = Instant::now();
    let rest = (0..GUESSES).map(|it| bearer(&daemon, &guess(it), "GET", "/status", "").json);
    let logins = (0..GUESSES).map(|it| {
        let body = json!({ "token": guess(it) }).to_string();
        bearer(&daemon, "", "POST", "/session", &body).json
    });
    let code = |answer: Value| answer["code"].clone();
    let ways: [(&str, Vec<Value>); 4] = [
        ("rest", rest.map(code).collect()),
        ("login", logins.map(code).collect()),
        ("connect", connects(&daemon, (0..GUESSES).map(guess))),
        (
            "header",
            (0..20)
                .map(|it| match by_header(daemon.port(), &guess(it)) {
                    said if said.contains("rate_limited") => json!("rate_limited"),
                    said if said.contains("unauthorized") => json!("unauthorized"),
                    said => json!(said),
                })
                .collect(),
        ),
    ];
    let mut judged = 0;
    for (way, codes) in &ways {
        let is_refused = |code: &&Value| **code == "unauthorized" || **code == "rate_limited";
        assert!(
            codes.iter().all(|code| is_refused(&code)),
            "{way}: {codes:?}"
        );
        assert!(
            codes.contains(&json!("rate_limited")),
            "{way} has no bucket of its own: {codes:?}"
        );
        judged += codes.iter().filter(|code| **code == "unauthorized").count();
    }
    // Those of the minute, and what has run into the bucket again meanwhile.
    assert!(
        judged < 3 * A_MINUTE,
        "{judged} of {} were looked at",
        3 * GUESSES + 20
    );

    // From the same address, with the good token: asking, what costs much, logging in, both ways
    // of connecting anew.
    well_behaved.hear();
    let reach = Reach::of(&daemon, Some(&good));
    reach.ask("GET", "/status", &Value::Null);
    let list = json!({ "addresses": [node.address()], "history": "none" });
    reach.ask("POST", "/add_addresses", &list);
    let body = json!({ "token": good }).to_string();
    let login = bearer(&daemon, "", "POST", "/session", &body);
    assert_eq!(login.status, 200, "{}", login.text);
    let codes = connects(&daemon, std::iter::once(good.clone()));
    assert_eq!(codes, [Value::Null]);
    assert!(by_header(daemon.port(), &good).contains("\r\n\r\n40{"));

    well_behaved.end();
    let log = daemon.log();
    assert!(!log.contains(&guess(1)) && !log.contains(&good), "{log}");
    let refused = log.matches("\"refused\"").count();
    let seconds = began.elapsed().as_secs() as usize + 1;
    let most = LINES[0] + LINES[1] * seconds;
    assert!(
        (1..=most).contains(&refused),
        "{refused} lines in {seconds} s"
    );
}
