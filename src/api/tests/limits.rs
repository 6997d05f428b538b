//! What clients may ask for and how often, who they are on the network, and the access log.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use serde_json::json;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// With these limits.
async fn limited(set: impl FnOnce(&mut config::Limits)) -> Daemon {
    let mut config = config::Config::default();
    set(&mut config.limits);
    Daemon::with(config).await
}

/// Asks until that is too often.
async fn until_refused(daemon: &Daemon, path: &str) -> (HeaderMap, Value) {
    for _ in 0..1000 {
        let request = Request::get(path).header("host", "localhost:5005");
        let (status, headers, body) = daemon.request(request.body(Full::default()).unwrap()).await;
        if status == StatusCode::TOO_MANY_REQUESTS {
            return (headers, serde_json::from_str(&body).unwrap());
        }
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    panic!("never refused");
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back_and_which_limit_it_is() {
    let daemon = limited(|limits| limits.requests_per_second = 1).await;
    let (headers, refusal) = until_refused(&daemon, "/addresses").await;
    assert_eq!(headers["retry-after"], "1");
    assert_eq!(refusal["code"], "rate_limited");
    assert_eq!(refusal["limit"], "requests_per_second");
    let sentence = refusal["error"].as_str().unwrap();
    assert!(
        sentence.contains("limits.requests_per_second (1)"),
        "{sentence}"
    );
    // Who reads nothing but a stream, too.
    let request = Request::get("/events/stream").header("accept", "text/event-stream");
    let request = request.header("host", "localhost:5005");
    let (status, _, told) = daemon.request(request.body(Full::default()).unwrap()).await;
    assert_eq!(status, 200);
    let begin = "retry: 1000\nevent: satwatch_error\ndata: {";
    assert!(
        told.starts_with(begin) && told.contains("rate_limited"),
        "{told}"
    );
    // What looks after the daemon is not kept out by what others do.
    assert_eq!(daemon.get("/health/live").await.0, 200);
    let refused = daemon.services.intake.access.limits()[0].refused;
    assert!(refused > 0);
}

#[tokio::test]
async fn metrics_count_where_no_token_is_asked_for_and_health_does_not() {
    let daemon = limited(|limits| limits.requests_per_second = 1).await;
    let ask = async |path: &str| {
        let request = Request::get(path).header("host", "localhost:5005");
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let answer = daemon.router.handle_metrics(request, PEER).await;
        assert!(!answer.headers().contains_key("satwatch-cursor"));
        answer.status()
    };
    let mut last = StatusCode::OK;
    for _ in 0..1000 {
        last = ask("/metrics").await;
        if last != StatusCode::OK {
            break;
        }
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask("/health/live").await, StatusCode::OK);
}

#[tokio::test]
async fn who_asks_for_something_else_at_metrics_listen_is_told_what_is_there() {
    let daemon = Daemon::start().await;
    let request = Request::get("/status").header("host", "localhost:5005");
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let answer = daemon.router.handle_metrics(request, PEER).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let sentence = answer["error"].as_str().unwrap();
    let there = "/metrics, /health/live, /health/ready";
    assert!(sentence.contains(there), "{sentence}");
    assert!(!sentence.contains("GET /status"), "{sentence}");
}

#[tokio::test]
async fn a_costly_request_that_cannot_be_read_costs_as_much_as_another() {
    let daemon = limited(|limits| limits.costly_per_minute = 1).await;
    for body in ["{", "{\"adresses\": []}", ""] {
        let (status, refusal) = daemon.post("/add_addresses", body).await;
        assert_eq!(status, 400, "{refusal}");
    }
    let some = json!({"addresses": [address(1).to_string()], "history": "none"}).to_string();
    let statuses = [
        daemon.post("/add_addresses", &some).await.0,
        daemon.post("/add_addresses", &some).await.0,
    ];
    assert_eq!(statuses, [200, 429]);
}

#[tokio::test]
async fn costly_requests_have_a_limit_of_their_own() {
    let daemon = limited(|limits| limits.costly_per_minute = 1).await;
    let add = |n| json!({"addresses": [address(n).to_string()], "history": "none"}).to_string();
    assert_eq!(daemon.post("/add_addresses", &add(1)).await.0, 200);
    let (status, refusal) = daemon.post("/add_addresses", &add(2)).await;
    assert_eq!(
        (status, &refusal["limit"]),
        (429, &json!("costly_per_minute"))
    );
    let one = json!({"address": address(3).to_string(), "history": "none"}).to_string();
    assert_eq!(daemon.post("/add_address", &one).await.0, 200);
    assert_eq!(daemon.reader.snapshot().counts().unwrap().addresses, 2);
    let limits = &daemon.get("/status").await.1["limits"];
    assert_eq!(
        limits["costly_per_minute"],
        json!({"limit": 1, "used": 1, "refused": 1})
    );
}

#[tokio::test]
async fn a_list_that_adds_several_is_costly_by_every_way_and_one_of_what_is_watched_is_not() {
    let daemon = limited(|limits| limits.costly_per_minute = 1).await;
    let pair = |n: u8| json!({"addresses": [address(n).to_string(), address(n + 1).to_string()]});
    let mut client = daemon.client().await;
    for _ in 0..2 {
        client.emit("subscribe_addresses", pair(1)).await;
        assert_eq!(client.event().await.0, "subscribed");
    }
    client.emit("subscribe_addresses", pair(3)).await;
    let (event, refusal) = client.event().await;
    assert_eq!(
        (&*event, &refusal["limit"]),
        ("error", &json!("costly_per_minute"))
    );
    let put = async |n| daemon.call("PUT", "/consumers/shop", &pair(n)).await;
    // From another address, as far as these clients have one.
    assert_eq!(put(5).await.0, 201);
    let (status, refusal) = put(7).await;
    assert_eq!(
        (status, &refusal["limit"]),
        (429, &json!("costly_per_minute"))
    );
    assert_eq!(put(1).await.0, 200);
    assert_eq!(daemon.reader.snapshot().counts().unwrap().addresses, 4);
}

#[tokio::test]
async fn events_over_socket_io_count_and_the_session_stays_open() {
    let daemon = limited(|limits| limits.requests_per_second = 1).await;
    let mut client = daemon.client().await;
    let mut number = 0;
    let refusal = loop {
        number += 1;
        assert!(number < 1000, "never refused");
        let address = address(1).to_string();
        let packet = json!(["unsubscribe_address", {"address": address}]);
        client.say(&format!("2{number}{packet}")).await;
        let (event, data) = client.event().await;
        assert_eq!(client.acknowledgement(number).await, data);
        if event == "error" {
            break data;
        }
    };
    assert_eq!(refusal["code"], "rate_limited");
    assert_eq!(refusal["limit"], "requests_per_second");
    assert!(client.packet().is_none(), "it is still there");
}

#[tokio::test]
async fn connects_over_socket_io_count_and_the_session_stays_open() {
    let daemon = limited(|limits| limits.requests_per_second = 1).await;
    let mut client = daemon.client().await;
    let mut number = 0;
    let refusal = loop {
        number += 1;
        assert!(number < 1000, "never refused");
        client.say("1").await;
        client.say("0").await;
        let answer = client.hear().await;
        if let Some(refusal) = answer.strip_prefix('4') {
            break serde_json::from_str::<Value>(refusal).unwrap();
        }
        assert!(answer.starts_with("0{"), "{answer}");
        client.expect("connected").await;
    };
    assert_eq!(refusal["data"]["code"], "rate_limited");
    assert_eq!(refusal["data"]["limit"], "requests_per_second");
    assert!(!client.outbox.is_closed());
}

#[tokio::test]
async fn handshakes_count_and_what_carries_a_session_does_not() {
    let daemon = limited(|limits| limits.requests_per_second = 1).await;
    let ask = async |query: &str| {
        let request = Request::get(format!("/socket.io/?EIO=4&transport=polling{query}"));
        let request = request.header("host", "localhost:5005");
        daemon.request(request.body(Full::default()).unwrap()).await
    };
    for number in 0.. {
        assert!(number < 1000, "never refused");
        let (status, _, body) = ask("").await;
        if status != StatusCode::OK {
            assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{body}");
            assert!(body.contains("requests_per_second"), "{body}");
            break;
        }
    }
    let (status, ..) = ask("&sid=unknown").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "it was looked up");
}

#[tokio::test]
async fn all_subscriptions_together_are_bounded_and_their_places_come_back() {
    let daemon = limited(|limits| limits.subscriptions_in_all = 3).await;
    let used = || daemon.services.overview.subscriptions.limit().used;
    let list = |ns: &[u8]| {
        let addresses: Vec<_> = ns.iter().map(|n| address(*n).to_string()).collect();
        json!({ "addresses": addresses })
    };
    let (mut first, mut second) = (daemon.client().await, daemon.client().await);
    first.emit("subscribe_addresses", list(&[1, 2])).await;
    first.expect("subscribed").await;
    // Again costs nothing.
    first.emit("subscribe_addresses", list(&[1, 2])).await;
    first.expect("subscribed").await;
    assert_eq!(used(), 2);
    second.emit("subscribe_addresses", list(&[3, 4])).await;
    let refusal = second.expect("error").await;
    assert_eq!(refusal["code"], "quota_reached");
    assert_eq!(refusal["limit"], "subscriptions_in_all");
    assert_eq!(daemon.reader.snapshot().counts().unwrap().addresses, 2);
    let address = json!({"address": address(1).to_string()});
    first.emit("unsubscribe_address", address.clone()).await;
    first.emit("unsubscribe_address", address).await;
    assert_eq!(used(), 1);
    second.emit("subscribe_addresses", list(&[3, 4])).await;
    second.expect("subscribed").await;
    assert_eq!(used(), 3);
    second.say("1").await;
    assert_eq!(used(), 1);
}

#[tokio::test]
async fn requests_that_wait_are_bounded_and_their_places_come_back() {
    let daemon = limited(|limits| limits.waiting_requests = 1).await;
    let router = daemon.router.clone();
    let waiting = tokio::spawn(async move {
        let request = Request::get("/events?wait=60").header("host", "localhost:5005");
        router
            .handle(request.body(Full::<Bytes>::default()).unwrap(), PEER)
            .await
    });
    while daemon.services.events.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    let (status, refusal) = daemon.get("/events?wait=60").await;
    assert_eq!((status, &refusal["code"]), (429, &json!("quota_reached")));
    assert_eq!(refusal["limit"], "waiting_requests");
    assert_eq!(daemon.get("/events").await.0, 200);
    waiting.abort();
    assert!(waiting.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(daemon.services.events.waiting(), 0);
}

#[tokio::test]
async fn the_status_tells_every_limit_of_the_settings() {
    let daemon = Daemon::start().await;
    let limits = &daemon.get("/status").await.1["limits"];
    let settings = include_str!("../../../settings.toml");
    let (_, section) = settings.split_once("[limits]\n").expect("the section");
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let settings = lines.filter_map(|line| line.trim_start_matches("# ").split_once(" = "));
    let mut count = 0;
    for (name, value) in settings {
        assert_eq!(limits[name]["limit"].to_string(), value, "{name}");
        count += 1;
    }
    assert_eq!(count, limits.as_object().expect("an object").len());
}

#[tokio::test]
async fn limits_that_change_hold_at_once_and_take_nothing_away() {
    let daemon = Daemon::start().await;
    let consumer = async |name: &str| {
        let request = Request::put(format!("/consumers/{name}"))
            .header("host", "localhost:5005")
            .header("content-type", "application/json")
            .body(Full::from("{}"));
        daemon.request(request.unwrap()).await.0.as_u16()
    };
    assert_eq!([consumer("a").await, consumer("b").await], [201, 201]);
    daemon.limits.send_modify(|limits| limits.consumers = 1);
    let statuses = [
        consumer("a").await,
        consumer("b").await,
        consumer("c").await,
    ];
    assert_eq!(statuses, [200, 200, 409]);
    let limits = &daemon.get("/status").await.1["limits"];
    let expected = json!({"limit": 1, "used": 2, "refused": 0});
    assert_eq!(limits["consumers"], expected);
    daemon.limits.send_modify(|limits| limits.consumers = 3);
    assert_eq!(consumer("c").await, 201);

    let mut client = daemon.client().await;
    let list = |ns: &[u8]| {
        let addresses: Vec<_> = ns.iter().map(|n| address(*n).to_string()).collect();
        json!({ "addresses": addresses })
    };
    client.emit("subscribe_addresses", list(&[1, 2])).await;
    client.expect("subscribed").await;
    daemon.limits.send_modify(|limits| limits.subscriptions = 1);
    client.emit("subscribe_addresses", list(&[1, 2])).await;
    client.expect("subscribed").await;
    client.emit("subscribe_addresses", list(&[3])).await;
    assert_eq!(client.expect("error").await["limit"], "subscriptions");

    let budget = &daemon.services.intake.budget;
    let mut held = budget.charge();
    held.try_grow(2 << 20).unwrap();
    daemon
        .limits
        .send_modify(|limits| limits.rest_bytes = 1 << 20);
    assert!(budget.charge().try_grow(1 << 16).is_err() && held.try_grow(1).is_ok());
}

/// What is written to the log by this thread, while it is held.
#[derive(Clone, Default)]
pub(super) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    pub(super) fn begin() -> (Self, DefaultGuard) {
        let captured = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_writer(captured.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        // While there is one subscriber, whichever thread writes a line for the first time decides
        // for all whether such lines are written.
        crate::access::Line {
            who: "",
            address: None,
            what: "",
            concerns: None,
            outcome: "",
        }
        .write_change();
        tracing::callsite::rebuild_interest_cache();
        captured.0.lock().unwrap().clear();
        (captured, guard)
    }

    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(bytes.clone()).unwrap()
    }

    /// The lines of the access log: message, who, address, what, whom it concerns, outcome.
    pub(super) fn lines(&self) -> Vec<[String; 6]> {
        let text = self.text();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines = lines.filter(|line| line["target"] == "satwatch::access");
        let fields = ["message", "who", "address", "what", "concerns", "outcome"];
        lines
            .map(|line| fields.map(|name| line["fields"][name].as_str().unwrap_or("").to_owned()))
            .collect()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Captured {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn each_change_has_a_line_that_says_who_from_where_what_and_no_secret() {
    let mut config = config::Config::default();
    config.server.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    config.webhooks.allow_private = true;
    let daemon = Daemon::with(config).await;
    let (log, _guard) = Captured::begin();
    let some = address(1).to_string();
    let ask = async |method: &str, path: &str, body: Value| {
        let request = Request::builder().method(method).uri(path);
        let request = request
            .header("host", "localhost:5005")
            .header("content-type", "application/json")
            .header("x-forwarded-for", "6.6.6.6, 203.0.113.7");
        let body = match body {
            Value::Null => Full::default(),
            body => Full::from(body.to_string()),
        };
        daemon.request(request.body(body).unwrap()).await.0.as_u16()
    };
    let none = "none";
    let hook = json!({
        "addresses": [some],
        "url": "https://127.0.0.1:1/hush-hush",
        "headers": {"authorization": "Bearer hush-hush"},
    });
    for (method, path, body) in [
        (
            "POST",
            "/add_address".to_owned(),
            json!({"address": some, "history": none, "label": "hush-hush"}),
        ),
        (
            "POST",
            "/add_addresses".to_owned(),
            json!({"addresses": [address(2).to_string(), some], "history": none}),
        ),
        ("POST", "/stop".to_owned(), Value::Null),
        ("PUT", "/consumers/shop".to_owned(), hook),
        ("DELETE", "/consumers/shop".to_owned(), Value::Null),
        ("DELETE", format!("/addresses/{some}"), Value::Null),
    ] {
        assert!(
            (200..300).contains(&ask(method, &path, body).await),
            "{path}"
        );
    }
    // Neither changes nor refusals.
    assert_eq!(ask("GET", "/addresses", Value::Null).await, 200);
    assert_eq!(
        ask("POST", "/add_address", json!({"address": "x"})).await,
        400
    );
    let line = |what: &str, concerns: &str| {
        ["changed", "anybody", "203.0.113.7", what, concerns, "ok"].map(str::to_owned)
    };
    assert_eq!(
        log.lines(),
        [
            line("POST /add_address", &some),
            line("POST /add_addresses", "2 addresses"),
            line("POST /stop", ""),
            line("PUT /consumers/{name}", "shop"),
            line("DELETE /consumers/{name}", "shop"),
            line("DELETE /addresses/{address}", &some),
        ]
    );
    assert!(!log.text().contains("hush-hush"), "{}", log.text());
}

#[tokio::test]
async fn each_refusal_has_a_line_and_an_untrusted_peer_is_who_it_is() {
    let daemon = limited(|limits| limits.costly_per_minute = 1).await;
    let (log, _guard) = Captured::begin();
    let ask = async |path: &str, name: &'static str, value: &str| {
        let request = Request::get(path)
            .header("host", "localhost:5005")
            .header("x-forwarded-for", "203.0.113.7")
            .header(name, value);
        daemon
            .request(request.body(Full::default()).unwrap())
            .await
            .0
            .as_u16()
    };
    assert_eq!(ask("/status", "origin", "https://evil.example").await, 403);
    assert_eq!(ask("/a", "x-a", "b").await, 404);
    for _ in 0..2 {
        daemon
            .post("/scan_history", "{\"addresses\": [\"x\"]}")
            .await;
    }
    let line = |what: &str, concerns: &str, outcome: &str| {
        ["refused", "anybody", "127.0.0.1", what, concerns, outcome].map(str::to_owned)
    };
    assert_eq!(
        log.lines(),
        [
            line("GET", "/status", "origin_not_allowed"),
            line("POST /scan_history", "1 address", "rate_limited"),
        ]
    );
}

#[tokio::test]
async fn what_a_subscription_watches_has_a_line_and_repeating_it_has_none() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client().await;
    let (log, _guard) = Captured::begin();
    let some = address(1).to_string();
    for _ in 0..2 {
        client
            .emit("subscribe_address", json!({"address": some}))
            .await;
        client.expect("subscribed").await;
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0][3..5], ["subscribe_address".to_owned(), some]);
}

#[tokio::test]
async fn lines_are_bounded_and_those_left_out_are_counted() {
    let daemon = limited(|limits| limits.costly_per_minute = 1).await;
    let (log, _guard) = Captured::begin();
    const MANY: usize = 1000;
    for _ in 0..MANY {
        daemon
            .post("/scan_history", "{\"addresses\": [\"x\"]}")
            .await;
    }
    let written = log.lines().len();
    assert!(written < MANY - 1, "{written}");
    let stop = CancellationToken::new();
    stop.cancel();
    daemon
        .services
        .intake
        .access
        .clone()
        .keep_telling(stop)
        .await;
    let text = log.text();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["fields"]["whose"], "127.0.0.1");
    // All but the first request were refused.
    assert_eq!(last["fields"]["lines"], MANY - 1 - written);
}
