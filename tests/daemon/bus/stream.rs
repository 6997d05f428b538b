//! The stream as the log of an edge: what it gives is the daemon's log, in order and once, whatever
//! becomes of Redis.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use satwatch::bus::stream::{
    BegunStream, Older, OlderError, OlderEvent, OlderPage, Stream, StreamEnd, StreamParts,
};
use satwatch::bus::{BusState, BusStatus};
use satwatch::events::{Dispatch, EventLog, Given, Reader, Selection};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{KEY, caught_up, current, log, pay, start};
use crate::common::daemon::request;
use crate::common::{Daemon, Node, RedisServer, wait_until};

/// The daemon, over HTTP.
struct Primary {
    url: String,
    is_away: AtomicBool,
    pages: AtomicBool,
}

#[derive(serde::Deserialize)]
struct Answer {
    events: Vec<Event>,
    next: String,
}

#[derive(serde::Deserialize)]
struct Event {
    event: String,
    data: Box<RawValue>,
}

impl Older for Primary {
    fn page(&self, after: String) -> BoxFuture<'_, Result<OlderPage, OlderError>> {
        async move {
            if self.is_away.load(Ordering::Relaxed) {
                return Err(OlderError::Away("it is away".to_owned()));
            }
            self.pages.store(true, Ordering::Relaxed);
            let path = format!("/events?address=all&descriptor=all&after={after}&limit=1000");
            let url = format!("{}{path}", self.url);
            let asked = tokio::task::spawn_blocking(move || request("GET", &url, &[], None));
            let away = |cause: &dyn std::fmt::Display| OlderError::Away(cause.to_string());
            let answer = asked.await.expect("it does not panic");
            let answer = answer.map_err(|cause| away(&cause))?;
            assert_eq!(answer.status, 200, "{}", answer.text);
            let page: Answer = serde_json::from_str(&answer.text).map_err(|cause| away(&cause))?;
            let events = page.events.into_iter().map(|it| OlderEvent {
                cursor: cursor(it.data.get()),
                event: it.event,
                data: it.data.get().to_owned(),
            });
            Ok(OlderPage {
                events: events.collect(),
                next: page.next,
            })
        }
        .boxed()
    }
}

fn cursor(data: &str) -> String {
    let data: Value = serde_json::from_str(data).expect("JSON");
    data["cursor"].as_str().expect("a cursor").to_owned()
}

/// As clients get it.
type Heard = (u64, String, Value);

#[derive(Default)]
struct Told {
    /// Where each log was begun with.
    begun: Vec<u64>,
    heard: Vec<Heard>,
    /// From the first event on, each time that it was asked for.
    all: Vec<Vec<Heard>>,
}

struct Edge {
    told: Arc<Mutex<Told>>,
    status: watch::Receiver<BusStatus>,
    read: Arc<tokio::sync::Notify>,
    primary: Arc<Primary>,
    stop: CancellationToken,
}

fn everything() -> Selection {
    Selection {
        scripts: None,
        descriptors: None,
        blocks: true,
    }
}

/// Up to the log's end if it is not to follow.
async fn read(log: &EventLog, reader: &mut Reader<()>) -> Option<Heard> {
    loop {
        match reader.next().await.expect("the log can be read") {
            Given::Event(entry) => {
                let encoded = entry.encoded(&log.encoder).expect("it is encoded");
                let data = serde_json::from_str(encoded.json()).expect("JSON");
                return Some((entry.number, encoded.name().to_owned(), data));
            }
            Given::Item(()) => return None,
            _ => {}
        }
    }
}

async fn follow(begun: BegunStream, told: Arc<Mutex<Told>>, again: Arc<tokio::sync::Notify>) {
    let head = *begun.head.borrow();
    let log = EventLog::new(begun.source, begun.encoder, begun.head);
    let (dispatch, handle) = Dispatch::new(log.clone());
    tokio::spawn(dispatch.run(CancellationToken::new()));
    let mut reader = Reader::<()>::of_selection(&log, &handle, everything(), head);
    reader.follow().await.expect("dispatch runs");
    told.lock().unwrap().begun.push(head);
    let follow = async {
        while let Some(heard) = read(&log, &mut reader).await {
            told.lock().unwrap().heard.push(heard);
        }
    };
    let read_all = async {
        loop {
            again.notified().await;
            let mut reader = Reader::<()>::of_selection(&log, &handle, everything(), 0);
            reader.put(log.head(), ());
            let mut all = Vec::new();
            while let Some(heard) = read(&log, &mut reader).await {
                all.push(heard);
            }
            told.lock().unwrap().all.push(all);
        }
    };
    tokio::select! {
        end = begun.follower.run(&log) => assert_eq!(end, StreamEnd::OtherLog),
        () = follow => {}
        () = read_all => {}
    }
}

impl Edge {
    fn start(redis: &RedisServer, daemon: &Daemon) -> Self {
        let primary = Arc::new(Primary {
            url: daemon.url(),
            is_away: AtomicBool::new(false),
            pages: AtomicBool::new(false),
        });
        let (stream, status) = Stream::new(StreamParts {
            url: redis.url().parse().expect("a URL"),
            stream: None,
            network: bitcoin::Network::Regtest,
            older: primary.clone(),
        });
        let (told, read) = (Arc::default(), Arc::<tokio::sync::Notify>::default());
        let stop = CancellationToken::new();
        let ours: Arc<Mutex<Told>> = Arc::clone(&told);
        let (again, ended) = (read.clone(), stop.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(ended.run_until_cancelled(async {
                loop {
                    let begun = stream.begin().await;
                    follow(begun, ours.clone(), again.clone()).await;
                }
            }));
        });
        Self {
            told,
            status,
            read,
            primary,
            stop,
        }
    }

    fn told<T>(&self, look: impl FnOnce(&Told) -> T) -> T {
        look(&self.told.lock().expect("nobody has panicked"))
    }

    fn wait_begun(&self, times: usize) -> u64 {
        wait_until("the edge has begun", || {
            self.told(|told| told.begun.get(times - 1).copied())
        })
    }

    /// Waits until it has heard the daemon's log from where it began, in order and once.
    fn is_the_log(&self, daemon: &Daemon) {
        caught_up(daemon);
        let begun = self.told(|told| told.begun[0]);
        let all = events(daemon);
        let expected: Vec<_> = all.into_iter().filter(|it| it.0 > begun).collect();
        wait_until("the edge has heard of all", || {
            self.told(|told| (told.heard.len() >= expected.len()).then_some(()))
        });
        self.told(|told| assert_eq!(told.heard, expected));
    }

    /// Reads from the first event on.
    fn reads_all(&self, daemon: &Daemon) {
        let before = self.told(|told| told.all.len());
        self.read.notify_one();
        let all = wait_until("all was read", || {
            self.told(|told| told.all.get(before).cloned())
        });
        assert_eq!(all, events(daemon));
    }

    fn waits(&self, words: &str) {
        wait_until(words, || {
            let status = self.status.borrow();
            let problem = status.problem.as_ref().map(ToString::to_string);
            let is_said = problem.is_some_and(|problem| problem.contains(words));
            (status.state == BusState::Waiting && is_said).then_some(())
        });
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn events(daemon: &Daemon) -> Vec<Heard> {
    let told = log(daemon).into_iter();
    told.map(|(number, event, _, _, data)| (number, event, data))
        .collect()
}

#[test]
fn the_log_of_an_edge_is_the_log_whatever_becomes_of_redis() {
    let (node, mut redis) = (Node::start(), RedisServer::start());
    let mut daemon = start(&node, &redis);
    daemon.stop();
    daemon.set("bus.max_length", "4");
    daemon.restart();
    let address = node.address();
    daemon.watch(&address);
    pay(&node, &daemon, &address);
    caught_up(&daemon);
    let edge = Edge::start(&redis, &daemon);
    let head = edge.wait_begun(1);
    assert_eq!(Some(head), events(&daemon).last().map(|it| it.0));
    pay(&node, &daemon, &address);
    edge.is_the_log(&daemon);
    assert!(!edge.primary.pages.load(Ordering::Relaxed));
    // What was before it began.
    edge.reads_all(&daemon);

    // A Redis that has lost all has a stream of the last four events, and the others come from the
    // daemon.
    edge.primary.is_away.store(true, Ordering::Relaxed);
    redis.kill();
    edge.waits("cannot be reached");
    for _ in 0..3 {
        pay(&node, &daemon, &address);
    }
    redis.restart();
    edge.waits("cannot be had from the primary: it is away");
    edge.primary.is_away.store(false, Ordering::Relaxed);
    edge.is_the_log(&daemon);
    assert!(edge.primary.pages.load(Ordering::Relaxed));
    edge.reads_all(&daemon);

    // A new stream, with what we have.
    for words in [&["FLUSHALL"][..], &["DEL", KEY]] {
        let before = current(&redis);
        let _: redis::Value = redis.ask(words);
        wait_until("the next stream", || {
            let next: Option<String> = redis.ask(&["HGET", KEY, "current"]);
            next.filter(|next| *next != before)
        });
        pay(&node, &daemon, &address);
        edge.is_the_log(&daemon);
    }
    // Another start of the daemon.
    daemon.stop();
    daemon.restart();
    pay(&node, &daemon, &address);
    edge.is_the_log(&daemon);
    let key = format!("{KEY}:{}", current(&redis));
    let _: u64 = redis.ask(&["XTRIM", &key, "MAXLEN", "1"]);
    edge.reads_all(&daemon);
    assert_eq!(edge.told(|told| told.begun.len()), 1);
    let key = edge.status.borrow().stream.clone();
    assert_eq!(key, Some(format!("{KEY}:{}", current(&redis))));
}

#[test]
fn another_log_is_begun_anew_with() {
    let (node, redis) = (Node::start(), RedisServer::start());
    let edge = {
        let mut daemon = start(&node, &redis);
        caught_up(&daemon);
        let edge = Edge::start(&redis, &daemon);
        edge.wait_begun(1);
        daemon.stop();
        edge
    };
    let _: redis::Value = redis.ask(&["DEL", KEY]);
    edge.waits("no satwatch writes a stream");
    let daemon = start(&node, &redis);
    edge.wait_begun(2);
    let address = node.address();
    daemon.watch(&address);
    pay(&node, &daemon, &address);
    caught_up(&daemon);
    let last = events(&daemon).pop();
    wait_until("the edge has heard of it", || {
        edge.told(|told| (told.heard.last() == last.as_ref()).then_some(()))
    });
}
