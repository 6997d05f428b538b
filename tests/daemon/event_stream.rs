//! `GET /events/stream` beside a real node, read as curl and a browser read it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::common::{COIN, DEADLINE, Daemon, Node};

/// One event of a stream; of a sign of life only the id is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: Option<String>,
    pub name: String,
    pub data: Value,
}

/// A stream that is open. What it says next is waited for.
pub struct Stream {
    reader: BufReader<TcpStream>,
    /// What has come and was not looked at.
    text: String,
}

impl Stream {
    pub fn open(daemon: &Daemon, query: &str) -> Self {
        Self::with(daemon, query, &[])
    }

    pub fn with(daemon: &Daemon, query: &str, headers: &[(&str, &str)]) -> Self {
        let (head, stream) = Self::ask(daemon, query, headers);
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(
            head.contains("content-type: text/event-stream") && head.contains("no-store"),
            "{head}"
        );
        stream
    }

    /// The head of the answer, in small letters.
    pub fn ask(daemon: &Daemon, query: &str, headers: &[(&str, &str)]) -> (String, Self) {
        let port = daemon.port();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        let wait = stream.set_read_timeout(Some(DEADLINE));
        wait.expect("a socket takes options");
        let mut request =
            format!("GET /events/stream{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let sent = stream.write_all(request.as_bytes());
        sent.expect("the daemon reads");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = reader.read_line(&mut head).expect("an answer");
            assert!(read > 0, "it ended in its head: {head}");
        }
        let text = String::new();
        (head.to_lowercase(), Self { reader, text })
    }

    /// What comes next; nothing when the answer has ended as it should.
    pub fn next_or_end(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (read(event), rest.to_owned());
                self.text = rest;
                return Some(event);
            }
            let mut size = String::new();
            self.reader.read_line(&mut size).expect("a part in time");
            let size = usize::from_str_radix(size.trim(), 16).expect("the length of a part");
            let mut part = vec![0; size + 2];
            self.reader.read_exact(&mut part).expect("the whole part");
            if size == 0 {
                assert_eq!(self.text, "", "it ends behind an event");
                return None;
            }
            part.truncate(size);
            self.text += &String::from_utf8(part).expect("text");
        }
    }

    fn next(&mut self) -> Event {
        self.next_or_end().expect("it goes on")
    }

    /// The next event of the log.
    pub fn event(&mut self) -> Event {
        loop {
            let event = self.next();
            if !event.name.is_empty() {
                return event;
            }
        }
    }

    /// The only word of a stream that cannot begin. Its length is known, so it has no parts.
    fn refusal_alone(&mut self) -> Value {
        let (mut text, mut line) = (String::new(), String::new());
        while !text.ends_with("\n\n") {
            line.clear();
            self.reader.read_line(&mut line).expect("a line in time");
            text += &line;
        }
        let refusal = read(text.trim_end());
        assert_eq!((&*refusal.name, &refusal.id), ("satwatch_error", &None));
        refusal.data
    }

    /// The last word of a stream behind some events.
    fn refusal_later(&mut self) -> Value {
        assert_eq!(self.event().name, "balance_change");
        self.refusal()
    }

    /// The last word of a stream: why it ended.
    pub fn refusal(&mut self) -> Value {
        let refusal = self.event();
        assert_eq!((&*refusal.name, &refusal.id), ("satwatch_error", &None));
        assert_eq!(self.next_or_end(), None, "it ends with that");
        refusal.data
    }
}

fn read(text: &str) -> Event {
    let mut event = Event {
        id: None,
        name: String::new(),
        data: Value::Null,
    };
    for line in text.lines() {
        let (field, value) = line.split_once(": ").expect("a field");
        match field {
            "id" => event.id = Some(value.to_owned()),
            "event" => event.name = value.to_owned(),
            "data" => event.data = serde_json::from_str(value).expect("JSON"),
            "retry" if text.contains("satwatch_error") => assert_eq!(value, "60000"),
            "retry" => assert_eq!(value, "1000"),
            _ => panic!("{line}"),
        }
    }
    event
}

fn watched(daemon: &Daemon, node: &Node) -> String {
    let address = node.address();
    daemon.watch(&address);
    daemon.wait_complete(&address);
    address
}

/// The log of an address as `GET /events` has it.
fn logged(daemon: &Daemon, address: &str) -> Vec<Event> {
    let answer = daemon.get(&format!("/events?limit=1000&address={address}"));
    let events = answer.json["events"].as_array().expect("a list").iter();
    let event = |it: &Value| Event {
        id: it["cursor"].as_str().map(str::to_owned),
        name: it["event"].as_str().expect("a name").to_owned(),
        data: it["data"].clone(),
    };
    events.map(event).collect()
}

#[test]
fn a_stream_has_each_event_once_over_breaks_and_restarts() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let address = watched(&daemon, &node);
    let query = format!("?address={address}");
    let mut heard = Vec::new();
    let mut stream = Stream::open(&daemon, &query);
    let begin = stream.next();
    assert!(begin.id.is_some() && begin.name.is_empty());
    for round in 0..3 {
        node.pay(&address, COIN);
        node.mine(1);
        // Seen, its balance, confirmed.
        heard.extend((0..3).map(|_| stream.event()));
        if round == 0 {
            daemon.stop();
            assert_eq!(stream.next_or_end(), None, "a stop ends it in order");
            daemon.restart();
        }
        let last = heard.last().and_then(|it: &Event| it.id.clone());
        let last = last.expect("events have cursors");
        // `after` is what the page began with, and older.
        let first = heard[0].id.as_deref().expect("a cursor");
        let again = format!("{query}&after={first}");
        stream = Stream::with(&daemon, &again, &[("Last-Event-ID", &last)]);
        assert_eq!(stream.next().id.as_deref(), Some(&*last));
    }
    assert_eq!(heard, logged(&daemon, &address));
    let mut whole = Stream::open(&daemon, &query);
    let again: Vec<_> = heard.iter().map(|_| whole.event()).collect();
    assert_eq!(again, heard);
}

#[test]
fn a_stream_without_events_says_where_it_is() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let quiet = watched(&daemon, &node);
    let paid = watched(&daemon, &node);
    let mut stream = Stream::open(&daemon, &format!("?address={quiet}"));
    assert!(stream.next().id.is_some());
    let mut other = Stream::open(&daemon, &format!("?address={paid}"));
    node.pay(&paid, COIN);
    let (_, last) = (other.event(), other.event());
    assert_eq!(last.name, "balance_change");
    // In 15 seconds.
    let beat = stream.next();
    assert_eq!((&*beat.name, beat.id), ("", last.id));
}

#[test]
fn a_label_that_changes_is_told_in_the_stream_as_in_the_log() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = watched(&daemon, &node);
    let mut stream = Stream::open(&daemon, &format!("?address={address}"));
    let body = json!({ "label": "Order 1042" }).to_string();
    let headers = [("Content-Type", "application/json")];
    let path = format!("/addresses/{address}");
    let changed = daemon.request("PATCH", &path, &headers, Some(body.as_bytes()));
    assert_eq!(changed.status, 200, "{}", changed.text);
    let told = stream.event();
    assert_eq!(told.name, "label_change");
    assert_eq!(
        (&told.data["label"], &told.data["previous_label"]),
        (&json!("Order 1042"), &json!(""))
    );
    assert_eq!([told], *logged(&daemon, &address));
}

#[test]
fn a_cursor_of_no_use_is_told_in_the_stream() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = watched(&daemon, &node);
    let cursor = daemon.balance(&address)["cursor"].clone();
    let foreign = format!("{}-7", "0".repeat(16));
    let mut stream = Stream::open(&daemon, &format!("?address={address}&after={foreign}"));
    let refusal = stream.refusal_alone();
    assert_eq!(
        (&refusal["code"], &refusal["cursor"]),
        (&json!("cursor_unknown"), &cursor),
        "{refusal}"
    );
    assert_eq!(refusal["balances"][0]["address"], address);
    for (query, code) in [
        ("?after=x", "invalid_cursor"),
        ("?limit=3", "unknown_field"),
        ("?address=x", "invalid_address"),
        ("?consumer=nobody", "no_such_consumer"),
    ] {
        let answer = daemon.get(&format!("/events/stream{query}"));
        assert!((400..500).contains(&answer.status), "{}", answer.text);
        assert_eq!(answer.json["code"], code, "{}", answer.text);
    }
    let node_address = node.address();
    let answer = daemon.get(&format!("/events/stream?address={node_address}"));
    assert_eq!(answer.json["code"], "not_watched", "{}", answer.text);
}

#[test]
fn a_stream_reads_for_a_consumer_until_somebody_takes_over() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = watched(&daemon, &node);
    let defined = daemon.request(
        "PUT",
        "/consumers/shop",
        &[],
        Some(json!({ "addresses": [address] }).to_string().as_bytes()),
    );
    assert_eq!(defined.status, 201, "{}", defined.text);
    node.pay(&address, COIN);
    let mut stream = Stream::open(&daemon, "?consumer=shop");
    let first = stream.event();
    assert_eq!(first.name, "new_transactions");
    assert_eq!(stream.event().name, "balance_change");
    // As a browser does that has lost its connection, which nobody has noticed.
    let mut other = Stream::open(&daemon, "?consumer=shop");
    assert_eq!(stream.refusal()["code"], "consumer_taken");
    assert_eq!(other.event(), first);
    let acked = daemon.post("/consumers/shop/ack", &json!({ "cursor": first.id }));
    assert_eq!(acked.status, 200, "{}", acked.text);
    let gone = daemon.request("DELETE", "/consumers/shop", &[], None);
    assert_eq!(gone.status, 200, "{}", gone.text);
    assert_eq!(other.refusal_later()["code"], "consumer_gone");
}

#[test]
fn streams_count_among_the_requests_that_wait() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[("limits.waiting_requests", "1")]);
    let mut stream = Stream::open(&daemon, "");
    let refused = daemon.get("/events/stream");
    assert_eq!(
        (refused.status, &refused.json["limit"]),
        (429, &json!("waiting_requests")),
        "{}",
        refused.text
    );
    node.mine(1);
    assert_eq!(stream.event().name, "block");
    drop(stream);
    crate::common::wait_until("its place is free", || {
        let (head, _) = Stream::ask(&daemon, "", &[]);
        head.starts_with("http/1.1 200").then_some(())
    });
}

#[test]
fn a_stream_ends_with_its_token_and_says_so() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let token = daemon.new_token("reader", "read");
    daemon.wait_status(&token, 200);
    let bearer = format!("Bearer {token}");
    let refused = daemon.get("/events/stream");
    assert_eq!(refused.status, 401, "{}", refused.text);
    let mut stream = Stream::with(&daemon, "", &[("Authorization", &bearer)]);
    assert!(stream.next().id.is_some());
    daemon.token(&["revoke", "reader"]);
    assert_eq!(stream.refusal()["code"], "unauthorized");
}
