//! What edges ask: a subscription that begins here is the one of a client of ours, and who is let
//! in is heard at once.

use hyper::Method;
use hyper::header::AUTHORIZATION;
use serde_json::json;

use super::auth::Guarded;
use super::descriptors::wallet;
use super::limits::Captured;
use super::*;
use crate::api::socket::Subscription;
use crate::api::socket::requests;
use crate::auth::{InForce, Scope, TokenText, TokensFile};
use crate::clock::now_ms;
use crate::primary::EdgeState;

/// As tools show it; not ours.
const PRIVATE: &str = "wpkh(tprv8ZgxMBicQKsPeDgjzdC36fs6bMjGApWDNLR9erAXMs5skhMv36j9MV5ecvfavji5khqjWaWSFhN3YcCUUdiKH6isR4Pwy3U5y5egddBr16m/0/*)";

impl Daemon {
    async fn begin_at_edge(&self, event: &str, argument: &Value) -> (u16, Value) {
        let body = json!({"event": event, "argument": argument});
        self.post("/edge/subscription", &body.to_string()).await
    }

    async fn edge_state(&self) -> EdgeState {
        let (status, state) = self.get("/edge").await;
        assert_eq!(status, 200, "{state}");
        serde_json::from_value(state).expect("it is read as it is written")
    }

    /// As a subscription is read.
    async fn wanted(&self, said: &Value) -> Subscription {
        let name = said["event"].as_str().expect("a name");
        let wanted = requests::find(name).expect("an event").wanted;
        let argument = serde_json::from_value(said["argument"].clone());
        let parsing = &self.services.descriptors.parsing;
        let read = wanted.expect("it begins one")(parsing, argument.ok());
        read.await.expect("it is good")
    }
}

/// Arguments of all kinds that are good once these are watched.
fn subscriptions(after: &str) -> Vec<(&'static str, Value)> {
    let [one, two] = [1, 2].map(|n| address(n).to_string());
    vec![
        ("subscribe_address", json!({"address": one})),
        (
            "subscribe_address",
            json!({"address": one, "after": after, "snapshot": false, "confirmations": [6, 2]}),
        ),
        ("subscribe_addresses", json!({"addresses": [two, one]})),
        (
            "subscribe_addresses",
            json!({"addresses": [{"address": one}], "after": after}),
        ),
        (
            "subscribe_descriptor",
            json!({"descriptor": wallet(), "after": "another-7"}),
        ),
        ("subscribe_blocks", json!({})),
    ]
}

#[tokio::test]
async fn what_begins_for_an_edge_is_what_a_client_hears() {
    let daemon = Daemon::start().await;
    daemon.derive();
    let after = daemon.edge_state().await.cursor;
    daemon
        .begin_at_edge(
            "subscribe_address",
            &json!({"address": address(1).to_string()}),
        )
        .await;
    daemon.pay(&address(1), 5, 1).await;
    let mut replays = 0;
    for (event, argument) in subscriptions(&after) {
        let (status, first) = daemon.begin_at_edge(event, &argument).await;
        assert_eq!(status, 200, "{event} {argument}: {first}");
        // A second time, when nothing has to be added any more.
        let (_, begun) = daemon.begin_at_edge(event, &argument).await;
        let mut client = daemon.client().await;
        client.emit(event, argument.clone()).await;
        if !begun["error"].is_null() {
            assert_eq!(client.expect("error").await, begun["error"]);
            assert_eq!(begun["error"]["code"], "cursor_unknown");
        }
        let name = match event {
            "subscribe_blocks" => "subscribed_blocks",
            _ => "subscribed",
        };
        assert_eq!(client.expect(name).await, begun["subscribed"], "{argument}");
        let head = daemon.reader.snapshot().head().unwrap();
        let encoder = &daemon.services.reads.encoder;
        assert_eq!(begun["number"], head);
        assert_eq!(begun["cursor"], encoder.cursor(head));
        let from = match &begun["after"] {
            Value::Null => head,
            number => {
                assert_eq!(argument["after"], after);
                replays += 1;
                number.as_u64().expect("a number")
            }
        };
        let told = &begun["subscribed"]["cursor"];
        assert_eq!(told, &json!(encoder.cursor(from)), "{event} {argument}");
    }
    assert_eq!(replays, 2);
}

#[tokio::test]
async fn what_an_edge_passes_on_is_what_its_client_wants() {
    let daemon = Daemon::start().await;
    let mut said: Vec<_> = subscriptions("a-1");
    said.push((
        "subscribe_descriptor",
        json!({"descriptor_id": "00".repeat(32)}),
    ));
    for (event, argument) in said {
        let asked = json!({"event": event, "argument": argument});
        let wanted = daemon.wanted(&asked).await;
        let passed_on = daemon.wanted(&wanted.said()).await;
        assert_eq!(format!("{wanted:?}"), format!("{passed_on:?}"));
        assert_eq!(wanted.said()["event"], event);
    }
}

#[tokio::test]
async fn it_is_refused_with_the_same_words() {
    let daemon = Daemon::start().await;
    let (log, _guard) = Captured::begin();
    let some = address(1).to_string();
    let before = daemon.reader.snapshot().head().unwrap();
    for (event, argument) in [
        ("subscribe_address", json!({"addres": some})),
        ("subscribe_address", json!({"address": some, "label": "x"})),
        ("subscribe_address", json!({"address": "x"})),
        ("subscribe_address", json!({"address": some, "after": "?"})),
        ("subscribe_address", json!({})),
        ("subscribe_address", json!([some])),
        ("subscribe_address", Value::Null),
        ("subscribe_addresses", json!({"addresses": [some, 5]})),
        ("subscribe_addresses", json!({"addresses": [some, "x"]})),
        ("subscribe_blocks", json!({"after": "x"})),
        ("subscribe_descriptor", json!({})),
        (
            "subscribe_descriptor",
            json!({"descriptor_id": "00".repeat(32)}),
        ),
        ("subscribe_descriptor", json!({"descriptor": PRIVATE})),
        (
            "subscribe_descriptor",
            json!({"descriptor": PRIVATE, "descriptor_id": "x"}),
        ),
        ("no_such_event", json!({})),
    ] {
        let (status, refusal) = daemon.begin_at_edge(event, &argument).await;
        assert!([400, 404].contains(&status), "{event}: {refusal}");
        let mut client = daemon.client().await;
        client.emit(event, argument.clone()).await;
        assert_eq!(client.expect("error").await, refusal, "{event} {argument}");
        assert!(!refusal.to_string().contains("tprv"), "{refusal}");
    }
    // Begins nothing: an edge has its own words for those.
    for event in requests::EVENTS.iter().filter(|it| it.wanted.is_none()) {
        let (status, refusal) = daemon.begin_at_edge(event.name, &json!({})).await;
        assert_eq!((status, &refusal["code"]), (400, &json!("invalid_field")));
        let sentence = refusal["error"].as_str().expect("a sentence");
        assert!(sentence.contains("subscribe_blocks"), "{sentence}");
    }
    assert_eq!(daemon.reader.snapshot().head().unwrap(), before);
    let counts = daemon.reader.snapshot().counts().unwrap();
    assert_eq!(counts.addresses, 0, "nothing was changed");
    assert_eq!(log.lines(), [[""; 6]; 0]);
}

#[tokio::test]
async fn it_takes_what_the_clients_token_may_and_is_logged_as_its_event() {
    let guarded = Guarded::start().await;
    let (log, _guard) = Captured::begin();
    let new = address(9).to_string();
    let body = json!({"event": "subscribe_address", "argument": {"address": new}});
    let ask = async |scope| {
        let (method, token) = (Method::POST, Some(guarded.text(scope)));
        let asked = guarded.ask(&method, "/edge/subscription", token, &body);
        asked.await
    };
    let (status, refusal) = ask(Scope::Read).await;
    assert_eq!((status, &refusal["code"]), (403, &json!("forbidden")));
    let mut client = guarded.client(Scope::Read).await;
    client
        .emit("subscribe_address", body["argument"].clone())
        .await;
    assert_eq!(client.expect("error").await, refusal);
    assert_eq!(ask(Scope::Watch).await.0, 200);
    assert_eq!(ask(Scope::Read).await.0, 200, "it is watched now");
    let lines = log.lines();
    let told: Vec<_> = lines
        .iter()
        .map(|line| [&*line[1], &line[3], &line[4], &line[5]])
        .collect();
    assert_eq!(
        told,
        [
            ["read", "POST /edge/subscription", &new, "forbidden"],
            ["read", "subscribe_address", &new, "forbidden"],
            ["watch", "subscribe_address", &new, "ok"],
        ]
    );
}

#[tokio::test]
async fn what_is_refused_leaves_no_topic_behind() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client().await;
    let unknown = json!({"descriptor_id": "00".repeat(32)});
    client.emit("subscribe_descriptor", unknown).await;
    let error = client.expect("error").await;
    assert_eq!(error["code"], "no_such_descriptor");
    let some = address(1).to_string();
    let malformed = json!({"address": some, "after": "?"});
    client.emit("subscribe_address", malformed).await;
    assert_eq!(client.expect("error").await["code"], "invalid_cursor");
    let subscriptions = async || {
        let counts = daemon.services.overview.dispatch.counts();
        counts.await.expect("dispatch runs").subscriptions
    };
    assert_eq!(subscriptions().await, 0);
    let held = || daemon.services.overview.subscriptions.limit().used;
    assert_eq!(held(), 0);
    client
        .emit("subscribe_address", json!({"address": some}))
        .await;
    client.expect("subscribed").await;
    assert_eq!((subscriptions().await, held()), (1, 1));
}

#[tokio::test]
async fn an_edge_is_told_of_the_log_and_of_tokens_without_their_names() {
    let daemon = Daemon::start().await;
    daemon.pay(&address(1), 5, 1).await;
    let open = daemon.edge_state().await;
    assert!(!open.authentication && open.tokens.is_empty());
    let (encoder, head) = (&daemon.services.reads.encoder, daemon.reader.snapshot());
    assert_eq!(open.cursor, encoder.cursor(head.head().unwrap()));
    assert_eq!(open.first, encoder.cursor(0));
    let starts = encoder.starts();
    let starts = starts
        .parts()
        .map(|(id, first, held)| (id.to_owned(), first, held));
    let starts: Vec<_> = starts.collect();
    assert_eq!(open.starts, starts);
    assert_eq!(open.cookie, format!("satwatch_5005_{NOW:x}"));
    assert_eq!(open.network, "regtest");
    let (_, status) = daemon.get("/status").await;
    assert_eq!(open.version, status["version"]);

    let mut file = TokensFile::default();
    let (text, past) = (TokenText::random(), Some(1));
    file.add("reader", Scope::Read, &text, None, 0)
        .expect("new");
    let other = TokenText::random();
    file.add("expired", Scope::Admin, &other, past, 0)
        .expect("new");
    let tokens = InForce::Tokens(file.tokens.clone());
    daemon.services.auth.put_in_force(tokens);
    let request = Request::get("/edge").header("host", "localhost:5005");
    let request = request.header(AUTHORIZATION, format!("Bearer {}", text.reveal()));
    let (_, _, told) = daemon.request(request.body(Full::default()).unwrap()).await;
    let state: EdgeState = serde_json::from_str(&told).expect("as it is written");
    assert!(state.authentication && state.revision != open.revision);
    let tokens: Vec<_> = state
        .tokens
        .iter()
        .map(|it| (&*it.id, it.scope, it.expires))
        .collect();
    let id = file.tokens[0].id.to_string();
    assert_eq!(tokens, [(&*id, Scope::Read, None)], "none that has expired");
    let hash = file.tokens[0].hash.to_string();
    assert!(!told.contains("reader") && !told.contains(&hash), "{told}");
}

#[tokio::test]
async fn a_long_poll_is_answered_when_who_is_let_in_has_changed_or_the_daemon_stops() {
    let guarded = Guarded::start().await;
    let (daemon, auth) = (&guarded.daemon, &guarded.daemon.services.auth);
    let token = guarded.text(Scope::Read).to_owned();
    let ask = async |path: String| {
        let asked = guarded.ask(&Method::GET, &path, Some(&token), &Value::Null);
        let (status, state) = tokio::time::timeout(PATIENCE, asked)
            .await
            .expect("in time");
        assert_eq!(status, 200, "{state}");
        serde_json::from_value::<EdgeState>(state).expect("a state")
    };
    let until_waiting = async || {
        while daemon.services.events.waiting() == 0 {
            tokio::task::yield_now().await;
        }
    };
    let first = ask("/edge".to_owned()).await;
    // Of another process, or none: there is nothing to wait for.
    for known in ["?after=x-7&wait=60", "?wait=60"] {
        let state = ask(format!("/edge{known}")).await;
        assert_eq!(state.revision, first.revision);
    }
    let mut known = first.revision;
    let mut tokens: Vec<_> = auth.tokens().iter().map(|it| it.token.clone()).collect();
    let changes: [fn(&mut Vec<crate::auth::Token>); 3] = [
        |tokens| _ = tokens.pop(),
        |tokens| tokens[0].scope = Scope::Read,
        |tokens| tokens[0].expires = Some(u64::MAX),
    ];
    for change in changes {
        change(&mut tokens);
        let path = format!("/edge?after={known}&wait=60");
        let changed = async {
            until_waiting().await;
            guarded.put_in_force(&tokens);
        };
        let (state, ()) = tokio::join!(ask(path), changed);
        assert_ne!(state.revision, known);
        assert_eq!(state.tokens.len(), tokens.len());
        known = state.revision;
    }
    let path = format!("/edge?after={known}&wait=60");
    let stopped = async {
        until_waiting().await;
        daemon.stop.cancel();
    };
    let (state, ()) = tokio::join!(ask(path), stopped);
    assert_eq!(state.revision, known);
    assert_eq!(daemon.services.events.waiting(), 0);
}

#[tokio::test]
async fn what_waits_for_tokens_counts_among_the_requests_that_wait() {
    let daemon = Daemon::start().await;
    let revision = daemon.edge_state().await.revision;
    daemon
        .limits
        .send_modify(|limits| limits.waiting_requests = 1);
    let _place = daemon
        .services
        .events
        .waiting_place()
        .expect("the only one");
    let path = format!("/edge?after={revision}&wait=60");
    let (status, refusal) = daemon.get(&path).await;
    assert_eq!(
        (status, &refusal["limit"]),
        (429, &json!("waiting_requests"))
    );
    let path = format!("/edge?after={revision}");
    let (status, _) = daemon.get(&path).await;
    assert_eq!(status, 200, "who does not wait takes no place");
}

#[tokio::test]
async fn a_session_of_the_page_that_ends_is_a_change() {
    let daemon = Daemon::start().await;
    let mut file = TokensFile::default();
    let text = TokenText::random();
    file.add("page", Scope::Read, &text, None, now_ms())
        .expect("new");
    let auth = &daemon.services.auth;
    auth.put_in_force(InForce::Tokens(file.tokens));
    let log_in = || {
        let begun = auth.log_in(text.reveal()).expect("it is known");
        begun.expect("authentication is on").secrets
    };
    let mut known = auth.revision();
    let secrets = log_in();
    assert_eq!(auth.revision(), known, "nobody has ended");
    assert!(auth.log_out(&secrets.id, "another").is_empty());
    assert_eq!(auth.revision(), known, "both halves end it");
    auth.log_out(&secrets.id, &secrets.page_key);
    assert_ne!(auth.revision(), known);
    // The oldest of a token ends when there are too many.
    for _ in 0..100 {
        known = auth.revision();
        log_in();
        if auth.revision() != known {
            return;
        }
    }
    panic!("there are too many, and none has ended");
}
