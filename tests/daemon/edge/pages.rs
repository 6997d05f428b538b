//! The same through an edge as at its primary: REST, the log of events, the web page.

use std::thread;

use serde_json::{Value, json};

use super::World;
use crate::common::{Answer, COIN, Daemon, wait_until};
use crate::event_stream::Stream;
use crate::page::Browser;

/// Status, type and body without what changes by itself.
fn said(answer: Answer) -> (u16, String, Value) {
    let kind = answer.headers.get("content-type");
    let kind = kind.map_or("", |kind| kind.to_str().expect("text"));
    let mut json = match answer.json {
        Value::Null => Value::from(answer.text),
        json => json,
    };
    if let Some(fields) = json.as_object_mut() {
        for volatile in ["last_updated", "cursor"] {
            fields.remove(volatile);
        }
    }
    (answer.status, kind.to_owned(), json)
}

fn same(world: &World, edge: &Daemon, method: &str, path: &str, body: Option<&str>) -> u16 {
    let headers = [("Content-Type", "application/json")];
    let ask =
        |daemon: &Daemon| said(daemon.request(method, path, &headers, body.map(str::as_bytes)));
    let expected = ask(&world.primary);
    assert_eq!(ask(edge), expected, "{method} {path}");
    expected.0
}

#[test]
fn what_is_passed_on_is_answered_as_at_the_primary() {
    let world = World::start();
    let edge = world.edge();
    let (address, other) = (world.node.address(), world.node.address());
    // POST, through the edge.
    edge.watch(&address);
    world.pay(&address);
    for (method, path, body, status) in [
        ("GET", format!("/balance/{address}"), None, 200),
        ("GET", format!("/transactions/{address}?limit=1"), None, 200),
        (
            "GET",
            format!("/utxos/{address}?include_spent=true"),
            None,
            200,
        ),
        ("GET", "/addresses".into(), None, 200),
        ("GET", "/openapi.json".into(), None, 200),
        ("GET", "/balance/nonsense".into(), None, 400),
        ("GET", format!("/balance/{other}"), None, 404),
        ("GET", "/nowhere".into(), None, 404),
        ("GET", "/scans/none".into(), None, 404),
        ("PUT", "/status".into(), None, 405),
        ("POST", "/add_address".into(), Some("{"), 400),
        ("POST", "/add_address".into(), Some("{\"address\": 5}"), 400),
        ("DELETE", format!("/addresses/{other}"), None, 404),
        ("GET", format!("/transactions/{address}?limit=x"), None, 400),
    ] {
        assert_eq!(same(&world, &edge, method, &path, body), status, "{path}");
    }
    assert_eq!(edge.get("/status").json["address_count"], 1);
    let added = edge.post("/add_address", &json!({ "address": other }));
    assert_eq!(added.status, 200, "{}", added.text);
    assert_eq!(world.primary.get("/addresses").json["total"], 2);
    let deleted = edge.request("DELETE", &format!("/addresses/{other}"), &[], None);
    assert_eq!(deleted.status, 200, "{}", deleted.text);
    assert_eq!(world.primary.get("/addresses").json["total"], 1);
    // What an edge has not.
    assert_eq!(edge.get("/edge").status, 404);
    assert_eq!(edge.get("/health/live").status, 200);
    let metrics = edge.get("/metrics").text;
    for line in ["satwatch_edge_reads 1", "satwatch_edge_primary 1"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    // The page and its files.
    let page = edge.get("/");
    assert!(page.text.starts_with("<!doctype html>"), "{}", page.text);
    assert_eq!(page.text, world.primary.get("/").text);
    let files = page
        .text
        .split('"')
        .filter(|it| it.ends_with(".js") || it.ends_with(".css"));
    let mut count = 0;
    for file in files {
        let path = format!("/{}", file.trim_start_matches(['.', '/']));
        assert_eq!(same(&world, &edge, "GET", &path, None), 200, "{path}");
        count += 1;
    }
    assert!(count > 0, "{}", page.text);
}

#[test]
fn the_log_is_read_at_an_edge_as_at_the_primary() {
    let world = World::start();
    let edge = world.edge();
    let (address, other) = (world.node.address(), world.node.address());
    world.primary.watch(&address);
    for _ in 0..2 {
        world.pay(&address);
    }
    let head = world.primary.get("/edge").json["cursor"].clone();
    let head = head.as_str().expect("a cursor");
    wait_until("the edge has it all", || {
        let metrics = edge.get("/metrics").text;
        let (_, number) = head.rsplit_once('-')?;
        metrics
            .contains(&format!("satwatch_event_head {number}\n"))
            .then_some(())
    });
    let first = world.primary.get("/events?limit=1&address=all").json["next"].clone();
    let first = first.as_str().expect("a cursor");
    for query in [
        "".to_owned(),
        "?address=all&limit=1000".to_owned(),
        format!("?address={address}&limit=2"),
        format!("?address={address}&after={first}"),
        format!("?address={address}&after={head}"),
        format!("?address={other}"),
        "?address=nonsense".to_owned(),
        "?after=nonsense".to_owned(),
        "?after=nobody-5".to_owned(),
        format!("?descriptor={}", "ab".repeat(32)),
        "?limit=0".to_owned(),
    ] {
        same(&world, &edge, "GET", &format!("/events{query}"), None);
    }

    // A long poll, and server-sent events from the last id on.
    let path = format!("/events?address={address}&after={head}&wait=60");
    let mut stream = Stream::open(&edge, &format!("?address={address}&after={head}"));
    let polled = thread::scope(|scope| {
        let polled = scope.spawn(|| edge.get(&path));
        world.node.pay(&address, COIN);
        polled.join().expect("it is answered")
    });
    let event = polled.json["events"][0].clone();
    assert!(event["event"].is_string(), "{}", polled.text);
    let told = stream.event();
    let cursor = told.data["cursor"].as_str().map(str::to_owned);
    assert_eq!((told.id, &event["data"]), (cursor.clone(), &told.data));
    assert_eq!(event["event"], *told.name);
    let last = [("Last-Event-ID", cursor.as_deref().expect("a cursor"))];
    world.node.mine(1);
    let next = [&edge, &world.primary].map(|daemon| {
        let mut again = Stream::with(daemon, &format!("?address={address}"), &last);
        again.event()
    });
    assert_eq!(next[0], next[1]);
    assert_ne!(next[0].id, cursor);
}

#[test]
fn the_page_works_at_an_edge() {
    let world = World::start();
    let edge = world.edge();
    let address = world.node.address();
    let browser = Browser::open(&format!("{}/", edge.url()), &address, &[]);
    let txid = world.node.pay(&address, 12_345_678);
    let seen = browser.seen();
    assert_eq!(
        (&seen["payment"]["txid"], &seen["balance"]),
        (&json!(txid), &json!("12345678")),
        "{seen}"
    );
    assert_eq!(seen["connection"], "Connected");
}
