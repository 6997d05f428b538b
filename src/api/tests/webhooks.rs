//! Webhooks over the real store and tracker, posting to a receiver on this machine: definitions
//! that change, retention, dead letters.

mod definition;
mod operations;
mod partitions;

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::*;

/// Says `status` to everything, once `gate` lets it.
pub struct Receiver {
    pub url: String,
    status: AtomicU16,
    /// Says 500 to what has this in its body.
    refused: Mutex<Option<String>>,
    /// More headers of its answers, and their body.
    answer: Mutex<(&'static str, &'static str)>,
    /// Heads of requests, in the order in which they came.
    heads: Mutex<Vec<String>>,
    pub gate: Semaphore,
    /// Bodies, in the order in which they came.
    pub bodies: Mutex<Vec<Value>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

impl Receiver {
    pub async fn start(status: u16, permits: usize) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Arc::new(Self {
            url: format!("http://{}/", listener.local_addr().unwrap()),
            status: AtomicU16::new(status),
            refused: Mutex::default(),
            answer: Mutex::default(),
            heads: Mutex::default(),
            gate: Semaphore::new(permits),
            bodies: Mutex::default(),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
        });
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        receiver
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        while let Ok(1..) = stream.read_buf(&mut bytes).await {
            let Some((head, body)) = whole_request(&bytes) else {
                continue;
            };
            self.heads.lock().unwrap().push(head);
            bytes.clear();
            let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_open.fetch_max(open, Ordering::SeqCst);
            let refused = self.refused.lock().unwrap().clone();
            let refused = refused.is_some_and(|text| body.to_string().contains(&text));
            self.bodies.lock().unwrap().push(body);
            tokio::select! {
                permit = self.gate.acquire() => permit.unwrap().forget(),
                // The daemon has hung up.
                _ = stream.read_u8() => {}
            }
            self.open.fetch_sub(1, Ordering::SeqCst);
            let status = match refused {
                true => 500,
                false => self.status.load(Ordering::SeqCst),
            };
            let (headers, body) = *self.answer.lock().unwrap();
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} Word\r\n{headers}content-length: {length}\r\n\r\n{body}"
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    pub fn cursors(&self) -> Vec<String> {
        self.bodies
            .lock()
            .unwrap()
            .iter()
            .map(|body| body["cursor"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn whole_request(bytes: &[u8]) -> Option<(String, Value)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.to_owned(), serde_json::from_str(body).ok()?))
}

pub async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

pub const ANY: usize = 1_000_000;

/// Gives up after `seconds`.
fn settings(seconds: u64) -> config::Webhooks {
    config::Webhooks {
        allow_private: true,
        give_up_after: seconds,
        ..config::Webhooks::default()
    }
}

impl Daemon {
    pub async fn posting() -> Self {
        Self::with(config::Config {
            webhooks: config::Webhooks {
                allow_private: true,
                timeout: 20,
                give_up_after: 1,
                ..config::Webhooks::default()
            },
            ..config::Config::default()
        })
        .await
    }

    /// On the store of a daemon that was killed.
    fn posting_on(folder: StoreFolder, webhooks: config::Webhooks) -> Self {
        let config = config::Config {
            webhooks,
            ..config::Config::default()
        };
        let (daemon, dispatch) = Self::on(folder, config);
        tokio::spawn(dispatch.run(daemon.stop.clone()));
        for consumer in daemon.services.consumers.all() {
            daemon.services.consumer_routes.webhooks.spawn(&consumer);
        }
        daemon
    }

    /// The same store, after a kill.
    async fn restarted(self, webhooks: config::Webhooks) -> Self {
        Self::posting_on(self.kill().await, webhooks)
    }

    pub async fn define(&self, name: &str, definition: Value) -> (u16, Value) {
        let request = Request::put(format!("/consumers/{name}"))
            .header("host", "localhost:5005")
            .header("content-type", "application/json");
        let (status, _, body) = self
            .request(request.body(Full::from(definition.to_string())).unwrap())
            .await;
        (status.as_u16(), serde_json::from_str(&body).unwrap())
    }

    async fn add(&self, n: u8) {
        let (status, body) = self
            .post(
                "/add_address",
                &json!({ "address": address(n).to_string() }).to_string(),
            )
            .await;
        assert_eq!(status, 200, "{body}");
    }

    pub async fn webhook(&self, name: &str) -> Value {
        let (status, body) = self.get(&format!("/consumers/{name}")).await;
        assert_eq!(status, 200, "{body}");
        body["webhook"].clone()
    }

    async fn cursors_of(&self, n: u8) -> Vec<String> {
        let (_, log) = self
            .get(&format!("/events?address={}&limit=1000", address(n)))
            .await;
        log["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["cursor"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_definition_goes_on_where_the_old_one_was_and_two_of_a_key_are_never_in_flight() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(204, 0).await);
    daemon.add(1).await;
    daemon.define("shop", json!({ "url": receiver.url })).await;
    daemon.pay(&address(1), 5_000, 1).await;
    daemon.pay(&address(1), 6_000, 2).await;
    for round in 1..=3 {
        until("the first event is in flight", async || {
            receiver.cursors().len() == round
        })
        .await;
        let (status, body) = daemon
            .define("shop", json!({ "url": format!("{}{round}", receiver.url) }))
            .await;
        assert_eq!((status, &body["secret"]), (200, &Value::Null), "{body}");
    }
    until("it is in flight once more", async || {
        receiver.cursors().len() == 4
    })
    .await;
    // The receiver may notice the end of an attempt later than the beginning of the next one.
    until("the attempts before have ended", async || {
        receiver.open.load(Ordering::SeqCst) == 1
    })
    .await;
    receiver.most_open.store(1, Ordering::SeqCst);
    receiver.gate.add_permits(ANY);
    let log = daemon.cursors_of(1).await;
    until("everything has come", async || {
        receiver.cursors().last() == log.last()
    })
    .await;
    let mut got = receiver.cursors();
    assert_eq!(
        got[..4],
        vec![log[0].clone(); 4],
        "in flight when the definition changed, so it came again"
    );
    got.dedup();
    assert_eq!((got, receiver.most_open.load(Ordering::SeqCst)), (log, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_retention_took_before_they_were_delivered_are_passed_and_shown() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(500, ANY).await);
    daemon.add(1).await;
    daemon.define("shop", json!({ "url": receiver.url })).await;
    daemon.pay(&address(1), 5_000, 1).await;
    until("it was tried", async || !receiver.cursors().is_empty()).await;
    let log = daemon.cursors_of(1).await;
    daemon
        .indexer
        .prune_events(old_by_clock(NOW + 1))
        .await
        .unwrap();
    daemon.pay(&address(1), 6_000, 2).await;
    until("what is gone is passed", async || {
        daemon.webhook("shop").await["missed_up_to"] == *log.last().unwrap()
    })
    .await;
    receiver.status.store(200, Ordering::SeqCst);
    let log = daemon.cursors_of(1).await;
    assert_eq!(log.len(), 2);
    let got = || {
        let mut cursors = receiver.cursors();
        cursors.dedup();
        cursors
    };
    until("what is left comes", async || got().ends_with(&log)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_outlive_their_webhook_and_a_forgotten_consumer_leaves_nothing() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(500, ANY).await);
    daemon.add(1).await;
    daemon.define("shop", json!({ "url": receiver.url })).await;
    daemon.pay(&address(1), 5_000, 1).await;
    let total = async || {
        daemon.get("/consumers/shop/dead_letters").await.1["total"]
            .as_u64()
            .unwrap()
    };
    until("two dead letters", async || total().await == 2).await;
    assert_eq!(daemon.webhook("shop").await["dead_letters"], 2);
    daemon.define("shop", json!({})).await;
    assert_eq!(
        (daemon.webhook("shop").await, total().await),
        (Value::Null, 2)
    );
    let (status, body) = daemon
        .post("/consumers/shop/dead_letters/resend", "{}")
        .await;
    assert_eq!((status, &body["code"]), (409, &json!("no_webhook")));
    let (_, list) = daemon.get("/consumers/shop/dead_letters").await;
    let one = format!(
        "/consumers/shop/dead_letters?cursor={}",
        list["dead_letters"][0]["cursor"].as_str().unwrap()
    );
    let dropped = daemon.delete(&one).await;
    assert_eq!(
        (dropped.0, &dropped.1["count"], total().await),
        (200, &json!(1), 1)
    );
    assert_eq!(daemon.delete(&one).await.1["code"], "no_such_dead_letter");
    receiver.status.store(204, Ordering::SeqCst);
    daemon.define("shop", json!({ "url": receiver.url })).await;
    let (status, body) = daemon
        .post("/consumers/shop/dead_letters/resend", "{}")
        .await;
    assert_eq!((status, &body["count"]), (202, &json!(1)));
    until("it is delivered", async || total().await == 0).await;
    assert_eq!(daemon.delete("/consumers/shop").await.0, 200);
    for path in ["", "/dead_letters"] {
        assert_eq!(
            daemon.get(&format!("/consumers/shop{path}")).await.1["code"],
            "no_such_consumer"
        );
    }
    until("its task has ended", async || {
        daemon.services.consumer_routes.webhooks.is_idle()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_to_be_sent_again_is_sent_after_a_kill_before_newer_events_of_its_key() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(500, ANY).await);
    daemon.add(1).await;
    daemon.define("shop", json!({ "url": receiver.url })).await;
    daemon.pay(&address(1), 5_000, 1).await;
    until("two dead letters", async || {
        daemon.webhook("shop").await["dead_letters"] == 2
    })
    .await;
    let letters = daemon.cursors_of(1).await;
    receiver.gate.forget_permits(ANY);
    daemon.pay(&address(1), 6_000, 2).await;
    let twice = [&letters[..], &letters[..]].concat();
    let (status, body) = daemon
        .post(
            "/consumers/shop/dead_letters/resend",
            &json!({ "cursors": twice }).to_string(),
        )
        .await;
    assert_eq!((status, &body["count"]), (202, &json!(2)), "each once");
    let log = daemon.cursors_of(1).await;
    let folder = daemon.kill().await;
    receiver.bodies.lock().unwrap().clear();
    receiver.status.store(200, Ordering::SeqCst);
    receiver.gate.add_permits(ANY);
    let daemon = Daemon::posting_on(folder, settings(1_000));
    until("everything has come", async || {
        receiver.cursors().len() >= 4
    })
    .await;
    assert_eq!(receiver.cursors(), log);
    until("the list is empty", async || {
        daemon.webhook("shop").await["dead_letters"] == 0
    })
    .await;
}

#[tokio::test]
async fn one_of_those_who_create_a_webhook_at_once_is_told_the_secret() {
    let daemon = Daemon::posting().await;
    let put = async || {
        daemon
            .define("shop", json!({ "url": "http://127.0.0.1:1/" }))
            .await
    };
    let (a, b, c) = tokio::join!(put(), put(), put());
    let told: Vec<_> = [&a, &b, &c]
        .into_iter()
        .filter(|(_, body)| body["secret"].is_string())
        .collect();
    assert!(matches!(told[..], [(201, _)]), "{told:?}");
}

#[tokio::test]
async fn a_consumer_of_a_deleted_name_has_a_secret_of_its_own() {
    let daemon = Daemon::posting().await;
    let definition = json!({ "url": "http://127.0.0.1:1/" });
    daemon.define("shop", definition.clone()).await;
    let secret = || {
        daemon
            .services
            .consumers
            .get("shop")
            .unwrap()
            .wants
            .webhook
            .clone()
            .unwrap()
            .secrets[0]
            .key
            .clone()
    };
    let before = secret();
    let ((deleted, _), (created, body)) = tokio::join!(
        daemon.delete("/consumers/shop"),
        daemon.define("shop", definition.clone())
    );
    assert_eq!((deleted, created), (200, 201), "{body}");
    assert!(body["secret"].is_string() && secret() != before, "{body}");
}

#[tokio::test]
async fn a_definition_that_was_overtaken_does_not_hide_the_webhook_of_the_newer_one() {
    let daemon = Daemon::posting().await;
    daemon
        .define("shop", json!({ "url": "http://127.0.0.1:1/old" }))
        .await;
    let old = daemon.services.consumers.get("shop").unwrap();
    daemon
        .define("shop", json!({ "url": "http://127.0.0.1:1/new" }))
        .await;
    daemon.services.consumer_routes.webhooks.spawn(&old);
    assert_eq!(
        daemon.delete("/consumers/shop/dead_letters").await.0,
        200,
        "its task answers"
    );
}

#[tokio::test]
async fn a_slip_in_a_request_about_dead_letters_forgets_none() {
    let daemon = Daemon::posting().await;
    daemon
        .define("shop", json!({ "url": "http://127.0.0.1:1/" }))
        .await;
    for (path, code) in [
        ("/consumers/shop/dead_letters?cursors=a-1", "unknown_field"),
        ("/consumers/shop/dead_letters?cursor=", "invalid_cursor"),
        ("/consumers/a%20b/dead_letters", "invalid_name"),
    ] {
        let (status, body) = daemon.delete(path).await;
        assert_eq!((status, &body["code"]), (400, &json!(code)), "{path}");
    }
    assert_eq!(
        daemon.get("/consumers/a%20b/dead_letters").await.1["code"],
        "invalid_name"
    );
    assert_eq!(
        daemon
            .post("/consumers/a%20b/dead_letters/resend", "{}")
            .await
            .1["code"],
        "invalid_name"
    );
}
