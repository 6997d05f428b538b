//! Tokens of the primary, at an edge.

use satwatch::remedy::Remedy;
use serde_json::{Value, json};

use super::{World, refusal};
use crate::auth::client;
use crate::common::{Answer, COIN, Client, Daemon, Program, wait_until};
use crate::event_stream::Stream;

/// A token of the primary, which has some before this.
fn token(world: &World, name: &str, scope: &str) -> String {
    let token = world.primary.new_token(name, scope);
    world.primary.wait_status(&token, 200);
    token
}

impl World {
    /// With tokens, and an edge that has one.
    fn with_tokens() -> (Self, Daemon) {
        let world = Self::start();
        let own = world.primary.new_token("edge", "read");
        world.primary.wait_status("", 401);
        world.primary.wait_status(&own, 200);
        let edge = world.edge_with(&[("edge.token", &own)]);
        (world, edge)
    }
}

fn bearer(daemon: &Daemon, token: &str, method: &str, path: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
    ];
    let body = (*body != Value::Null).then(|| body.to_string());
    daemon.request(method, path, &headers, body.as_deref().map(str::as_bytes))
}

fn connected(edge: &Daemon, token: &str) -> Program {
    let program = client("js", edge, token, ["auth", "websocket"]);
    program.event("ack", |_| true);
    program
}

#[test]
fn an_edge_lets_in_whom_its_primary_lets_in_and_for_as_long() {
    let (world, edge) = World::with_tokens();
    let primary = &world.primary;
    let address = world.node.address();
    let (reader, watcher) = (
        token(&world, "reader", "read"),
        token(&world, "watcher", "watch"),
    );
    // In the same words.
    let add = json!({ "address": address });
    for (text, method, path, body) in [
        ("", "GET", "/events", &Value::Null),
        ("", "GET", "/addresses", &Value::Null),
        ("sw_nonsense", "GET", "/events", &Value::Null),
        ("sw_nonsense", "GET", "/addresses", &Value::Null),
        (&reader, "POST", "/add_address", &add),
        (&reader, "GET", "/consumers/none/dead_letters", &Value::Null),
    ] {
        let ask = |daemon: &Daemon| {
            let answer = bearer(daemon, text, method, path, body);
            let challenge = answer.headers.get("www-authenticate").cloned();
            (answer.status, answer.text, challenge)
        };
        let expected = ask(primary);
        assert!([401, 403].contains(&expected.0), "{expected:?}");
        assert_eq!(ask(&edge), expected, "{method} {path} {text}");
    }
    let words = |daemon: &Daemon, token: &str, how| {
        client("js", daemon, token, how).event("refused", |_| true)
    };
    for how in [["auth", "websocket"], ["header", "polling"]] {
        for text in ["", "sw_nonsense"] {
            assert_eq!(words(&edge, text, how), words(primary, text, how));
        }
    }
    assert_eq!(primary.get_as(&reader, "/addresses").json["total"], 0);
    let added = bearer(&edge, &watcher, "POST", "/add_address", &add);
    assert_eq!(added.status, 200, "{}", added.text);

    // Both transports, python too, and a stream.
    let [mut going, mut staying] = [&reader, &watcher].map(|token| {
        [
            connected(&edge, token),
            client("python", &edge, token, ["header", "polling"]),
        ]
    });
    let secret = format!("Bearer {reader}");
    let mut stream = Stream::with(&edge, "", &[("Authorization", &secret)]);
    for program in going.iter().chain(&staying) {
        program.event("ack", |_| true);
    }
    primary.token(&["revoke", "reader"]);
    for program in &mut going {
        let told = program.event("refused", |_| true);
        assert_eq!(told["code"], "unauthorized", "{told}");
        program.event("disconnect", |_| true);
    }
    assert_eq!(stream.refusal()["code"], "unauthorized");
    assert_eq!(edge.get_as(&reader, "/events").status, 401);
    let hash = world.node.mine(1).remove(0);
    for program in &mut staying {
        program.event("block", |data| data["hash"] == *hash);
        let printed = program.lines().join("\n");
        assert!(!printed.contains("disconnect"), "{printed}");
    }

    // One that was made later, for a while.
    let short = [
        "new",
        "--name",
        "short",
        "--scope",
        "read",
        "--expires",
        "6s",
    ];
    let short = primary.token(&short);
    primary.wait_status(&short, 200);
    let program = connected(&edge, &short);
    let told = program.event("refused", |_| true);
    assert_eq!(told["code"], "unauthorized", "{told}");
    program.event("disconnect", |_| true);
    assert_eq!(edge.get_as(&short, "/events").status, 401);
    for text in [&reader, &watcher, &short] {
        assert!(!edge.log().contains(text.as_str()));
    }
}

#[test]
fn who_was_let_in_goes_on_while_the_primary_is_away_and_nobody_new_is() {
    let (mut world, edge) = World::with_tokens();
    let (known, new) = (token(&world, "known", "read"), token(&world, "new", "read"));
    let program = connected(&edge, &known);
    world.primary.kill();
    let refused = edge.get_as(&new, "/events");
    assert_eq!(
        (refused.status, &refused.json["code"]),
        (503, &json!("primary_unavailable")),
        "{}",
        refused.text
    );
    assert_eq!(edge.get_as(&known, "/events?after=0").status, 400);
    // Revoked meanwhile.
    world.primary.token(&["revoke", "known"]);
    world.primary.restart_unready();
    assert_eq!(program.event("refused", |_| true)["code"], "unauthorized");
    wait_until("it is let in", || {
        (edge.get_as(&new, "/events").status == 200).then_some(())
    });
}

impl Daemon {
    /// Its health is open to everybody.
    fn restart_unready(&mut self) {
        self.launch_again();
        self.wait_ready();
    }
}

#[test]
fn the_page_logs_in_through_an_edge_and_is_logged_out_by_the_primary() {
    let (world, edge) = World::with_tokens();
    let address = world.node.address();
    let token = token(&world, "browser", "watch");
    let json = ("Content-Type", "application/json");
    let log_in = |daemon: &Daemon| {
        let body = json!({ "token": token }).to_string();
        let own = daemon.url();
        let headers = [json, ("Origin", own.as_str())];
        let answer = daemon.request("POST", "/session", &headers, Some(body.as_bytes()));
        assert_eq!(answer.status, 200, "{}", answer.text);
        let cookie = answer.headers["set-cookie"].to_str().expect("text");
        assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
        let (cookie, _) = cookie.split_once(';').expect("attributes");
        let key = answer.json["page_key"].as_str().expect("a key").to_owned();
        (cookie.to_owned(), key)
    };
    let ask = |daemon: &Daemon, (cookie, key): &(String, String), method: &str, path: &str| {
        let own = daemon.url();
        let mut headers = vec![("Cookie", cookie.as_str()), ("Origin", &own), json];
        headers.extend((!key.is_empty()).then_some(("Satwatch-Page", key.as_str())));
        let body = (method == "POST").then(|| json!({ "address": address }).to_string());
        daemon.request(method, path, &headers, body.as_deref().map(str::as_bytes))
    };
    let (session, other) = (log_in(&edge), log_in(&edge));
    // Read here and passed on, and good at the primary, too.
    for (daemon, path) in [
        (&edge, "/events"),
        (&edge, "/addresses"),
        (&world.primary, "/events"),
    ] {
        assert_eq!(ask(daemon, &session, "GET", path).status, 200, "{path}");
    }
    assert_eq!(ask(&edge, &session, "POST", "/add_address").status, 200);
    // One half is nothing, nor is another page's.
    let half = (session.0.clone(), String::new());
    for path in ["/events", "/addresses"] {
        assert_eq!(ask(&edge, &half, "GET", path).status, 401, "{path}");
        let headers = [
            ("Cookie", session.0.as_str()),
            ("Satwatch-Page", &session.1),
            ("Origin", "http://evil.example"),
        ];
        let foreign = edge.request("GET", path, &headers, None);
        assert_eq!(foreign.json["code"], "origin_not_allowed", "{path}");
    }
    let headers = [
        ("Cookie", session.0.as_str()),
        ("Satwatch-Page", &session.1),
    ];
    let mut stream = Stream::with(&edge, "", &headers);

    assert_eq!(
        ask(&world.primary, &session, "DELETE", "/session").status,
        200
    );
    assert_eq!(stream.refusal()["code"], "unauthorized");
    assert_eq!(ask(&edge, &session, "GET", "/events").status, 401);
    assert_eq!(ask(&edge, &other, "GET", "/events").status, 200);
    assert_eq!(ask(&edge, &other, "DELETE", "/session").status, 200);
    for daemon in [&edge, &world.primary] {
        assert_eq!(ask(daemon, &other, "GET", "/events").status, 401);
    }
}

#[test]
fn an_edge_needs_a_token_where_the_primary_asks_for_one() {
    let world = World::start();
    let own = world.primary.new_token("edge", "read");
    world.primary.wait_status(&own, 200);
    for wrong in [None, Some("sw_0123456789"), Some("metrics")] {
        let mut edge = world.edge_to_be(&[]);
        match wrong {
            Some("metrics") => edge.set("edge.token", &world.primary.new_token("m", "metrics")),
            Some(text) => edge.set("edge.token", text),
            None => {}
        }
        let said = refusal(&edge, &[], 1);
        assert!(said.contains(&Remedy::NameEdgeToken.to_string()), "{said}");
        assert!(!said.contains("sw_"), "{said}");
    }
    // As it says.
    let edge = world.edge_with(&[("edge.token", &own)]);
    assert_eq!(edge.get("/events").status, 401);
    assert_eq!(edge.get_as(&own, "/events").status, 200);
    assert!(!edge.log().contains(&own));
}

#[test]
fn an_edge_that_others_reach_has_a_primary_with_tokens() {
    let world = World::start();
    let mut edge = world.edge_to_be(&[("server.listen", "0.0.0.0:0")]);
    let said = refusal(&edge, &[], 1);
    assert!(said.contains(&Remedy::TokenAtPrimary.to_string()), "{said}");
    // One way that it says,
    edge.set("server.listen", "127.0.0.1:0");
    edge.restart();
    assert_eq!(edge.get("/events").status, 200);
    edge.stop();
    // and the other.
    let token = world.primary.new_token("edge", "read");
    world.primary.wait_status(&token, 200);
    edge.set("server.listen", "0.0.0.0:0");
    edge.set("edge.token", &token);
    edge.restart();
    let port = edge.port();
    let asked = |token: &str| {
        let (url, bearer) = (
            format!("http://127.0.0.1:{port}/events"),
            format!("Bearer {token}"),
        );
        let headers = [("Authorization", bearer.as_str())];
        crate::common::daemon::request("GET", &url, &headers, None).expect("it answers")
    };
    assert_eq!((asked("sw_no").status, asked(&token).status), (401, 200));
    // It ends with what it needs.
    world.primary.token(&["off"]);
    wait_until("it ends", || (!edge.is_running()).then_some(()));
    assert_eq!(edge.ended().code(), Some(1));
    let said = edge.log();
    assert!(said.contains(&Remedy::TokenAtPrimary.to_string()), "{said}");
}

#[test]
fn sessions_end_at_an_edge_when_the_primary_begins_to_ask_for_tokens() {
    let mut world = World::start();
    let token = world.primary.token(&["generate"]);
    // It has one that counts later.
    let edge = world.edge_with(&[("edge.token", &token)]);
    let mut without = world.edge();
    let address = world.node.address();
    let open = [&edge, &without].map(|edge| Client::subscribed(edge, &address));
    let mut streams = [&edge, &without].map(|edge| Stream::open(edge, ""));
    world.node.pay(&address, COIN);
    for (client, stream) in open.iter().zip(&mut streams) {
        client.event("balance_change", |data| data["new_balance"] == COIN);
        stream.event();
    }
    let file = world.primary.store().with_file_name("first");
    std::fs::write(&file, &token).expect("the folder is ours");
    world.primary.stop();
    world
        .primary
        .set("auth.first_token_file", &file.display().to_string());
    world.primary.launch_again();
    for client in &open {
        client.wait_closed();
    }
    let refused = edge.get("/events");
    assert_eq!(refused.status, 401, "{}", refused.text);
    assert_eq!(edge.get_as(&token, "/events").status, 200);
    // One that may not hear who is let in serves nobody.
    wait_until("it ends", || (!without.is_running()).then_some(()));
    assert_eq!(without.ended().code(), Some(1));
    let said = without.log();
    assert!(said.contains(&Remedy::NameEdgeToken.to_string()), "{said}");
    without.set("edge.token", &token);
    without.restart();
    assert_eq!(without.get_as(&token, "/events").status, 200);
}
