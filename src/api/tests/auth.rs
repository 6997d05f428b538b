//! Who may ask for what: every route and every event with every scope, made from their tables; what
//! depends on the content; and what ends with a token.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Request};
use serde_json::{Value, json};

use super::descriptors::wallet;
use super::limits::Captured;
use super::strict::requests_of;
use super::{Client, Daemon, PATIENCE, address, event_of};
use crate::api::rest::routes::ROUTES;
use crate::api::socket::EVENTS;
use crate::auth::{Credential, InForce, Scope, Token, TokenText, TokensFile};
use crate::clock::now_ms;
use crate::engineio::internals::outbox;
use crate::engineio::{Handler, Handshake};

/// A daemon and a token of each scope.
pub(super) struct Guarded {
    pub(super) daemon: Daemon,
    tokens: Vec<Token>,
    texts: Vec<TokenText>,
}

impl Guarded {
    pub(super) async fn start() -> Self {
        let daemon = Daemon::start().await;
        let some = address(1).to_string();
        daemon
            .post("/add_address", &json!({"address": some}).to_string())
            .await;
        daemon
            .follow_ups("PUT", "/consumers/shop", &json!({}))
            .await;
        let hook =
            json!({"url": "https://hooks.example/a?key=hidden", "headers": {"x-key": "hidden"}});
        daemon.follow_ups("PUT", "/consumers/hook", &hook).await;
        let mut file = TokensFile::default();
        let texts = Scope::ALL.map(|scope| {
            let text = TokenText::random();
            file.add(scope.name(), scope, &text, None, now_ms())
                .expect("new");
            text
        });
        let guarded = Self {
            daemon,
            tokens: file.tokens,
            texts: texts.into(),
        };
        guarded.put_in_force(&guarded.tokens);
        guarded
    }

    pub(super) fn put_in_force(&self, tokens: &[Token]) {
        let tokens = InForce::Tokens(tokens.to_vec());
        self.daemon.services.auth.put_in_force(tokens);
    }

    pub(super) fn text(&self, scope: Scope) -> &str {
        let place = Scope::ALL.iter().position(|it| *it == scope);
        self.texts[place.expect("it is one")].reveal()
    }

    pub(super) async fn ask(
        &self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> (u16, Value) {
        let (status, _, json) = self.ask_whole(method, path, token, body).await;
        (status, json)
    }

    async fn ask_whole(
        &self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> (u16, HeaderMap, Value) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost:5005");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            Value::Null => Full::default(),
            body => Full::from(body.to_string()),
        };
        let (status, headers, text) = self.daemon.request(request.body(body).unwrap()).await;
        let json = serde_json::from_str(&text).unwrap_or_default();
        (status.as_u16(), headers, json)
    }

    /// A client's first packet, and what it is answered with.
    async fn connect(&self, packet: &str, header: Option<&str>, query: &str) -> (Client, String) {
        let (sender, queue) = outbox(1000, 1 << 20);
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
        }
        let handshake = Handshake {
            headers,
            query: query.to_owned(),
            peer: None,
        };
        let layer = self.daemon.layer.clone();
        let session = layer.open(sender.clone(), handshake);
        let mut client = Client {
            layer,
            session,
            outbox: sender,
            queue,
        };
        if !packet.is_empty() {
            client.say(packet).await;
        }
        // A client of Socket.IO 2 is let in beside its session.
        loop {
            match client.packet() {
                Some(answer) => return (client, answer),
                None => tokio::task::yield_now().await,
            }
        }
    }

    pub(super) async fn client(&self, scope: Scope) -> Client {
        let packet = format!("0{}", json!({"token": self.text(scope)}));
        let (mut client, answer) = self.connect(&packet, None, "EIO=4").await;
        assert!(answer.starts_with("0{\"sid\":"), "{answer}");
        client.expect("connected").await;
        client
    }

    /// What may not change by what is refused.
    fn state(&self) -> (u64, Vec<String>, u64, bool) {
        let snapshot = self.daemon.reader.snapshot();
        let consumers = self.daemon.services.consumers.all();
        let consumers = consumers
            .iter()
            .map(|it| format!("{} {:?}", it.name, it.place()));
        (
            snapshot.counts().unwrap().addresses,
            consumers.collect(),
            snapshot.head().unwrap(),
            self.daemon.reader.monitoring().unwrap().is_some(),
        )
    }
}

#[tokio::test]
async fn every_route_takes_a_token_of_its_scope_and_no_less() {
    let guarded = Guarded::start().await;
    let before = guarded.state();
    let (unknown, malformed) = (TokenText::random(), "sw_1");
    let mut counts = (0, 0);
    // First all that must be refused, then what is let in: that may change something.
    for refused in [true, false] {
        for (route, method, path) in requests_of(ROUTES) {
            let tokens = Scope::ALL.map(|scope| (Some(scope), Some(guarded.text(scope))));
            let nobody = [None, Some(unknown.reveal()), Some(malformed)].map(|text| (None, text));
            for (scope, token) in nobody.into_iter().chain(tokens) {
                let may = match (route.scope, scope) {
                    (None, _) => true,
                    (Some(needed), Some(scope)) => scope >= needed,
                    (Some(_), None) => false,
                };
                if may == refused {
                    continue;
                }
                // No route takes this, so that nothing is done where it may be.
                let path = format!("{path}?no_such_parameter=1");
                let asked = format!("{method} {path} as {scope:?}");
                let (status, headers, answer) =
                    guarded.ask_whole(&method, &path, token, &Value::Null).await;
                if may {
                    assert_eq!(status, 400, "{asked}: {answer}");
                    counts.0 += 1;
                    continue;
                }
                counts.1 += 1;
                let (expected, code) = match scope {
                    Some(_) => (403, "forbidden"),
                    None => (401, "unauthorized"),
                };
                assert_eq!(status, expected, "{asked}: {answer}");
                assert!(!headers.contains_key("satwatch-cursor") || scope >= Some(Scope::Read));
                assert_eq!(
                    headers.contains_key(WWW_AUTHENTICATE),
                    scope.is_none(),
                    "{asked}"
                );
                if method != Method::HEAD {
                    assert_eq!(answer["code"], code, "{asked}: {answer}");
                }
                // Also with what the route takes.
                let again = guarded.ask(&method, &path, token, &json!({})).await;
                assert_eq!(again.0, expected, "{asked}");
            }
        }
        assert_eq!(guarded.state(), before, "nothing was changed");
    }
    assert!(
        counts.0 > ROUTES.len() && counts.1 > 3 * ROUTES.len(),
        "{counts:?}"
    );
}

#[tokio::test]
async fn bodies_of_who_is_not_known_are_small() {
    let guarded = Guarded::start().await;
    let spaces = |count| Full::from(" ".repeat(count));
    for (count, refused) in [(4096, false), (4097, true)] {
        let request = Request::get("/health/live")
            .header("host", "localhost:5005")
            .header("content-type", "application/json");
        let (status, ..) = guarded
            .daemon
            .request(request.body(spaces(count)).unwrap())
            .await;
        assert_eq!(status == 413, refused, "{count}: {status}");
    }
}

/// What each row of the table is for; a new row is to be thought about here, too.
#[test]
fn scopes_are_those_of_the_contract() {
    let of = |scope: Option<Scope>| {
        let rows = ROUTES.iter().filter(move |route| route.scope == scope);
        let rows = rows.map(|route| format!("{} {}", route.method, route.path));
        let events = EVENTS.iter().filter(move |event| event.scope == scope);
        rows.chain(events.map(|event| event.name.to_owned()))
            .collect::<Vec<_>>()
    };
    let open = [
        "POST /session",
        "DELETE /session",
        "GET /health/live",
        "GET /health/ready",
        "GET /openapi.json",
        "GET /asyncapi.json",
    ];
    assert_eq!(of(None), open);
    assert_eq!(of(Some(Scope::LEAST)), ["GET /token", "GET /metrics"]);
    // Nobody changes anything with a token of scope read; what begins for an edge asks for more
    // where something has to be watched, as an event of a client does.
    let of_read = of(Some(Scope::Read));
    let reads = of_read.iter().filter(|row| row.contains(' '));
    let reads = reads.filter(|row| *row != "POST /edge/subscription");
    assert!(
        reads.into_iter().all(|row| row.starts_with("GET ")),
        "{of_read:?}"
    );
    let of_admin = of(Some(Scope::Admin));
    for row in [
        "POST /start",
        "POST /stop",
        "POST /audit/{address}",
        "POST /consumers/{name}/test",
    ] {
        assert!(of_admin.iter().any(|it| it == row), "{row}");
    }
}

#[tokio::test]
async fn every_event_takes_a_client_of_its_scope_and_no_less() {
    let guarded = Guarded::start().await;
    let before = guarded.state();
    for scope in [Scope::Read, Scope::Watch, Scope::Admin] {
        let mut client = guarded.client(scope).await;
        for event in EVENTS {
            let needed = event.scope.expect("no event is open");
            client.emit(event.name, json!({"no_such_field": 1})).await;
            let error = client.expect("error").await;
            let code = if scope >= needed {
                "unknown_field"
            } else {
                "forbidden"
            };
            assert_eq!(error["code"], code, "{} as {scope}: {error}", event.name);
        }
    }
    assert_eq!(guarded.state(), before, "nothing was changed");
}

#[tokio::test]
async fn a_connect_says_who_wants_in_by_payload_or_header() {
    let guarded = Guarded::start().await;
    let (read, unknown) = (guarded.text(Scope::Read), TokenText::random());
    let payload = |token: &str| format!("0{}", json!({"token": token, "more": 1}));
    let header = format!("Bearer {read}");
    let metrics = payload(guarded.text(Scope::Metrics));
    for (packet, header, code) in [
        ("0".to_owned(), None, Some("unauthorized")),
        ("0{\"token\":null}".to_owned(), None, Some("unauthorized")),
        ("0{\"token\":5}".to_owned(), None, Some("unauthorized")),
        (payload("sw_x"), None, Some("unauthorized")),
        (
            payload(unknown.reveal()),
            Some(&header),
            Some("unauthorized"),
        ),
        (metrics, None, Some("forbidden")),
        (payload(read), None, None),
        ("0".to_owned(), Some(&header), None),
        ("0{\"token\":null}".to_owned(), Some(&header), None),
    ] {
        let (_client, answer) = guarded
            .connect(&packet, header.map(String::as_str), "EIO=4")
            .await;
        match code {
            None => assert!(answer.starts_with("0{\"sid\":"), "{packet}: {answer}"),
            Some(code) => {
                let error: Value =
                    serde_json::from_str(answer.strip_prefix('4').expect("refused")).unwrap();
                assert_eq!(error["data"]["code"], code, "{packet}: {answer}");
                assert_eq!(error["data"]["error"], error["message"], "{answer}");
            }
        }
    }
    // Clients of Socket.IO 2 send no CONNECT, and hear the data alone.
    let (_client, answer) = guarded.connect("", Some(&header), "EIO=3").await;
    assert_eq!(answer, "0");
    let (_client, answer) = guarded.connect("", None, "EIO=3").await;
    assert!(
        answer.starts_with('4') && answer.contains("\"code\":\"unauthorized\""),
        "{answer}"
    );
}

#[tokio::test]
async fn who_may_read_cannot_make_the_daemon_watch_anything() {
    let guarded = Guarded::start().await;
    let before = guarded.state();
    let mut client = guarded.client(Scope::Read).await;
    let (log, _guard) = Captured::begin();
    let (known, new) = (address(1).to_string(), address(9).to_string());
    for (name, wanted) in [
        ("subscribe_address", json!({"address": new})),
        ("subscribe_addresses", json!({"addresses": [known, new]})),
        (
            "subscribe_address",
            json!({"address": known, "confirmations": [6]}),
        ),
    ] {
        client.emit(name, wanted).await;
        let error = client.expect("error").await;
        assert_eq!(error["code"], "forbidden", "{error}");
    }
    client
        .emit("subscribe_address", json!({"address": known}))
        .await;
    assert_eq!(client.expect("subscribed").await["address"], known);
    let asked = guarded.ask(
        &Method::GET,
        "/events?consumer=shop",
        Some(guarded.text(Scope::Read)),
        &Value::Null,
    );
    assert_eq!(asked.await.0, 403);
    client
        .emit("ack", json!({"consumer": "shop", "cursor": "0-0"}))
        .await;
    assert_eq!(client.expect("error").await["code"], "forbidden");
    let lines = log.lines();
    let about: Vec<_> = lines.iter().map(|line| (&*line[3], &*line[4])).collect();
    assert_eq!(
        about,
        [
            ("subscribe_address", &*new),
            ("subscribe_addresses", "2 addresses"),
            ("subscribe_address", &known),
            ("GET /events", ""),
            ("ack", "shop"),
        ]
    );
    assert_eq!(guarded.state(), before, "nothing was changed");
    let mut watcher = guarded.client(Scope::Watch).await;
    watcher
        .emit(
            "subscribe_address",
            json!({"address": new, "confirmations": [6]}),
        )
        .await;
    assert_eq!(watcher.expect("subscribed").await["address"], new);
}

#[tokio::test]
async fn who_may_only_read_hears_that_and_not_how_many_depths_there_are() {
    let guarded = Guarded::start().await;
    guarded.daemon.derive();
    let token = Some(guarded.text(Scope::Watch));
    let asked = json!({"descriptor": wallet(), "history": "none"});
    let add = |depths: std::ops::RangeInclusive<u8>| {
        let mut body = asked.clone();
        body["confirmations"] = depths.collect::<Vec<_>>().into();
        body
    };
    let mut id = Value::Null;
    for depths in [1..=8, 9..=16] {
        let (method, body) = (Method::POST, add(depths));
        let (status, added) = guarded.ask(&method, "/descriptors", token, &body).await;
        assert!([200, 201].contains(&status), "{added}");
        id = added["descriptor_id"].clone();
    }
    for (scope, code) in [
        (Scope::Read, "forbidden"),
        (Scope::Watch, "too_many_confirmations"),
    ] {
        let mut client = guarded.client(scope).await;
        let argument = json!({"descriptor_id": id, "confirmations": [99]});
        client.emit("subscribe_descriptor", argument).await;
        assert_eq!(client.expect("error").await["code"], code);
    }
}

#[tokio::test]
async fn who_reads_a_stream_alone_hears_every_refusal_in_it_and_each_has_a_line() {
    let guarded = Guarded::start().await;
    let (log, _guard) = Captured::begin();
    let ask = async |token: Option<&str>, query: &str, accept: &'static str, body: &'static str| {
        let request = Request::get(format!("/events/stream{query}"));
        let request = request.header("host", "localhost:5005");
        let mut request = request.header("accept", accept);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::from(body)).unwrap();
        let (status, _, text) = guarded.daemon.request(request).await;
        (status.as_u16(), text)
    };
    let alone = "text/event-stream";
    let (metrics, read) = (guarded.text(Scope::Metrics), guarded.text(Scope::Read));
    for (token, query, body, code) in [
        (None, "", "", "unauthorized"),
        (Some("sw_wrong"), "", "", "unauthorized"),
        (Some(metrics), "", "", "forbidden"),
        (Some(read), "?consumer=shop", "", "forbidden"),
        (Some(read), "", "no JSON", "invalid_json"),
    ] {
        let (status, text) = ask(token, query, alone, body).await;
        let begin = "retry: 60000\nevent: satwatch_error\ndata: {";
        assert!(status == 200 && text.starts_with(begin), "{status} {text}");
        assert!(text.contains(&format!("\"code\":\"{code}\"")), "{text}");
        let (status, text) = ask(token, query, "*/*", body).await;
        assert!([400, 401, 403].contains(&status), "{status} {text}");
    }
    let lines = log.lines();
    let told: Vec<_> = lines.iter().map(|line| (&*line[3], &*line[5])).collect();
    let refused = ["unauthorized", "unauthorized", "forbidden", "forbidden"];
    let twice = refused.iter().flat_map(|code| [code, code]);
    let expected: Vec<_> = twice.map(|code| ("GET /events/stream", *code)).collect();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn webhooks_and_where_they_go_are_for_admins() {
    let guarded = Guarded::start().await;
    let hook = json!({"url": "https://hooks.example/b"});
    let (none, empty) = (Value::Null, json!({}));
    for scope in [Scope::Read, Scope::Watch, Scope::Admin] {
        let token = Some(guarded.text(scope));
        for path in ["/consumers", "/consumers/hook"] {
            let (status, answer) = guarded.ask(&Method::GET, path, token, &none).await;
            let text = answer.to_string();
            assert_eq!(status, 200, "{text}");
            assert_eq!(
                text.contains("hooks.example"),
                scope == Scope::Admin,
                "{scope}: {text}"
            );
            assert!(text.contains("\"state\":\""), "{text}");
            assert!(!text.contains("key=hidden"), "{text}");
        }
    }
    let before = guarded.state();
    let watch = Some(guarded.text(Scope::Watch));
    for (method, path, body) in [
        (Method::PUT, "/consumers/new", &hook),
        (Method::PUT, "/consumers/shop", &hook),
        (
            Method::PUT,
            "/consumers/shop",
            &json!({"headers": {"x": "y"}}),
        ),
        (Method::PUT, "/consumers/hook", &empty),
        (Method::DELETE, "/consumers/hook", &none),
    ] {
        let (status, answer) = guarded.ask(&method, path, watch, body).await;
        assert_eq!(
            (status, &answer["code"]),
            (403, &json!("forbidden")),
            "{method} {path}"
        );
    }
    assert_eq!(guarded.state(), before, "nothing was changed");
    assert_eq!(
        guarded
            .ask(&Method::PUT, "/consumers/mine", watch, &empty)
            .await
            .0,
        201
    );
    assert_eq!(
        guarded
            .ask(&Method::DELETE, "/consumers/mine", watch, &none)
            .await
            .0,
        200
    );
    let admin = Some(guarded.text(Scope::Admin));
    assert_eq!(
        guarded
            .ask(&Method::DELETE, "/consumers/hook", admin, &none)
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn sessions_and_requests_under_way_end_with_their_token_and_others_notice_nothing() {
    let mut guarded = Guarded::start().await;
    let mut read = guarded.client(Scope::Read).await;
    let mut watch = guarded.client(Scope::Watch).await;
    let known = address(1);
    for client in [&mut read, &mut watch] {
        client
            .emit("subscribe_address", json!({"address": known.to_string()}))
            .await;
        client.expect("subscribed").await;
        assert_eq!(client.packet(), None);
    }
    // As the client of a transport that can take something: it waits for the next packet.
    let left: Vec<_> = guarded
        .tokens
        .iter()
        .filter(|it| it.name != "read")
        .cloned()
        .collect();
    let (token, path) = (
        guarded.text(Scope::Read).to_owned(),
        "/events?wait=50&after=",
    );
    let head = {
        let answer = guarded
            .ask(&Method::GET, "/status", Some(&token), &Value::Null)
            .await;
        answer.1["cursor"].as_str().expect("a cursor").to_owned()
    };
    let long_poll = async {
        let path = format!("{path}{head}");
        guarded
            .ask(&Method::GET, &path, Some(&token), &Value::Null)
            .await
    };
    let revoked = async {
        while guarded.daemon.services.events.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        guarded.put_in_force(&left);
    };
    let hears = read.hear();
    let (answer, (), heard) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(long_poll, revoked, hears) })
            .await
            .expect("both end");
    assert_eq!((answer.0, &answer.1["code"]), (401, &json!("unauthorized")));
    let (name, error) = event_of(&heard);
    assert_eq!(name, "error");
    assert_eq!(error, answer.1, "as the long poll has it");
    assert_eq!(read.hear().await, "1", "the packet that says goodbye");
    assert!(read.outbox.is_closed());
    guarded.daemon.pay(&known, 5, 1).await;
    guarded.daemon.told().await;
    assert_eq!(read.packet(), None);
    assert_eq!(watch.expect("new_transactions").await["count"], 1);
    guarded.tokens = left;
}

#[tokio::test]
async fn sessions_without_a_token_end_with_the_first_one() {
    let daemon = Daemon::start().await;
    let mut anonymous = daemon.client().await;
    let mut file = TokensFile::default();
    let text = TokenText::random();
    file.add("a", Scope::Read, &text, None, now_ms())
        .expect("new");
    daemon
        .services
        .auth
        .put_in_force(InForce::Tokens(file.tokens));
    // Also what it says before it has heard of it.
    anonymous.emit("subscribe_blocks", json!({})).await;
    let error = anonymous.expect("error").await;
    assert_eq!(error["code"], "unauthorized");
    let sentence = error["error"].as_str().expect("a sentence");
    assert!(sentence.contains("since a moment ago"), "{error}");
    assert_eq!(anonymous.hear().await, "1");
    assert_eq!(daemon.get("/status").await.0, 401);
    assert_eq!(daemon.get("/health/live").await.0, 200);
    assert!(
        daemon
            .services
            .auth
            .admit(Credential::Token(text.reveal()))
            .is_ok()
    );
}

#[tokio::test]
async fn an_answer_in_parts_ends_with_its_token() {
    let guarded = Guarded::start().await;
    let known = address(1);
    for salt in 1..=200 {
        guarded.daemon.pay(&known, 1000, salt).await;
    }
    let request = Request::get(format!("/utxos/{known}"))
        .header("host", "localhost:5005")
        .header(
            AUTHORIZATION,
            format!("Bearer {}", guarded.text(Scope::Read)),
        )
        .body(Full::<Bytes>::default())
        .unwrap();
    let answer = guarded.daemon.router.handle(request, super::PEER).await;
    assert_eq!(answer.status(), 200);
    guarded.put_in_force(&[]);
    let whole = http_body_util::BodyExt::collect(answer.into_body());
    let error = tokio::time::timeout(Duration::from_secs(30), whole)
        .await
        .expect("it ends");
    assert_eq!(error.err().map(|it| it.code), Some("unauthorized"));
}

#[tokio::test]
async fn a_token_is_told_what_it_is() {
    let guarded = Guarded::start().await;
    let (_, told) = guarded
        .ask(
            &Method::GET,
            "/token",
            Some(guarded.text(Scope::Watch)),
            &Value::Null,
        )
        .await;
    assert_eq!(told["name"], "watch");
    assert_eq!(told["scopes"], json!(["metrics", "read", "watch"]));
    assert_eq!(
        (&told["authentication"], &told["expires"]),
        (&json!(true), &Value::Null)
    );
    assert!(
        !told
            .to_string()
            .contains(&guarded.tokens[2].hash.to_string()),
        "{told}"
    );
    let least = Some(guarded.text(Scope::Metrics));
    let (status, told) = guarded
        .ask(&Method::GET, "/token", least, &Value::Null)
        .await;
    assert_eq!((status, &told["scopes"]), (200, &json!(["metrics"])));
    let daemon = Daemon::start().await;
    let (status, told) = daemon.get("/token").await;
    assert_eq!((status, &told["authentication"]), (200, &json!(false)));
    assert_eq!(told["scopes"], json!(["metrics", "read", "watch", "admin"]));
}
