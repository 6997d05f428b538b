//! A primary that becomes one which an edge cannot serve.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

use satwatch::remedy::Remedy;
use serde_json::{Value, json};

use super::{World, refusal, says};
use crate::common::daemon::request;
use crate::common::{Client, Daemon, wait_until};

type Changes = Arc<Mutex<Vec<(&'static str, Value)>>>;

/// Answers `GET /edge` as the primary does, at once, with other values in some fields, and nothing
/// else.
struct Pretended {
    url: String,
    changes: Changes,
}

impl Pretended {
    fn of(primary: &Daemon) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let at = listener.local_addr().expect("it listens");
        let changes = Changes::default();
        let (primary, of_thread) = (primary.url(), changes.clone());
        spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (primary, changes) = (primary.clone(), of_thread.clone());
                spawn(move || answer(stream, &primary, &changes));
            }
        });
        Self {
            url: format!("http://{at}"),
            changes,
        }
    }

    fn says(&self, changes: &[(&'static str, Value)]) {
        *self.changes.lock().expect("nobody panics") = changes.to_vec();
    }
}

fn answer(mut stream: TcpStream, primary: &str, changes: &Changes) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        if first.is_empty() {
            first.clone_from(&line);
        }
        line.clear();
    }
    // It has no news more often than that.
    sleep(Duration::from_millis(200));
    let mut told = request("GET", &format!("{primary}/edge"), &[], None)
        .ok()?
        .json;
    for (name, value) in changes.lock().expect("nobody panics").iter() {
        told[*name] = value.clone();
    }
    let (status, body) = match first.starts_with("GET /edge") {
        true => ("200 OK", told.to_string()),
        false => ("404 Not Found", String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}",
        body.len()
    );
    stream
        .write_all(format!("{head}\r\n\r\n{body}").as_bytes())
        .ok()
}

#[test]
fn an_edge_of_another_version_does_not_start_and_a_running_one_goes_on() {
    let world = World::start();
    let pretended = Pretended::of(&world.primary);
    pretended.says(&[("version", "999.0.0".into())]);
    let mut edge = Daemon::edge(&pretended.url, &world.redis, &[]);
    let said = refusal(&edge, &[], 1);
    let ours = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "has version 999.0.0, and this edge {ours}: {}",
        Remedy::SameVersion
    );
    assert!(said.contains(&expected), "{said}");
    // As it says.
    pretended.says(&[]);
    edge.restart();
    pretended.says(&[("version", "999.0.0".into())]);
    says(&edge, "the primary has version 999.0.0");
    assert_eq!(edge.get("/events").status, 200);
    assert!(edge.is_running());
}

#[test]
fn an_edge_whose_primary_is_on_another_network_ends_and_serves_that_when_it_is_restarted() {
    let world = World::start();
    let pretended = Pretended::of(&world.primary);
    let mut edge = Daemon::edge(&pretended.url, &world.redis, &[]);
    edge.restart();
    pretended.says(&[("network", "signet".into())]);
    wait_until("it ends", || (!edge.is_running()).then_some(()));
    assert_eq!(edge.ended().code(), Some(1));
    let expected = format!(
        "the primary is on signet, and this edge serves regtest: {}",
        Remedy::RestartEdge
    );
    says(&edge, &expected);
    edge.begin();
    says(&edge, "no satwatch writes a stream {satwatch:signet}");
    edge.stop();
}

#[test]
fn while_the_primary_has_another_log_than_the_stream_nobody_is_served() {
    let world = World::start();
    let pretended = Pretended::of(&world.primary);
    let mut edge = Daemon::edge(&pretended.url, &world.redis, &[]);
    edge.restart();
    let client = Client::connect(&edge);
    pretended.says(&[("starts", json!([["ffffffffffffffff", 0, 0]]))]);
    client.wait_closed();
    says(
        &edge,
        "the stream is of another log than that of the primary",
    );
    let ask = || request("GET", &format!("{}/events", edge.url()), &[], None);
    assert!(ask().is_err());
    pretended.says(&[]);
    wait_until("it serves again", || {
        ask().ok().filter(|it| it.status == 200)
    });
}
