//! Connection rules without a network: messages go in through the Engine.IO seam, and what is queued and called is looked at.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::engineio::{Group, Handler as _, Message, OutboxReceiver, outbox};

/// Writes down what it is told, and does what events are named after.
#[derive(Clone, Default)]
struct App {
    log: Arc<Mutex<Vec<String>>>,
    sockets: Arc<Mutex<Vec<Socket>>>,
}

impl App {
    fn note(&self, line: String) {
        self.log.lock().unwrap().push(line);
    }
}

impl Handler for App {
    async fn authorize(&self, request: ConnectRequest) -> Result<(), ConnectRefused> {
        match &*request.namespace {
            "/" | "/custom" => Ok(()),
            "/never" => pending().await,
            "/private" => {
                let data = Some(serde_json::json!({"auth": serde_json::from_str::<serde_json::Value>(request.auth.get()).unwrap()}));
                Err(ConnectRefused { message: "not \"authorized\"".to_owned(), data })
            }
            name if name.starts_with("/n") => Ok(()),
            _ => Err(ConnectRefused { message: "Invalid namespace".to_owned(), data: None }),
        }
    }

    fn connected(&self, socket: &Socket, request: &ConnectRequest) {
        self.note(format!("connected {} {}", socket.namespace(), request.auth));
        self.sockets.lock().unwrap().push(socket.clone());
        socket.emit("hello", &1).unwrap();
    }

    fn event(&self, socket: &Socket, event: Event) -> Option<Work> {
        let args: Vec<_> = event.args.iter().map(|arg| arg.get()).collect();
        self.note(format!("event {} {} {} +{}", socket.namespace(), event.name, args.join(" "), event.attachments.len()));
        match event.name.as_str() {
            "echo" => socket.send(&Encoded::event_with(socket.namespace(), "echo", &event.args, &event.attachments).unwrap()).unwrap(),
            "ack" => event.ack.unwrap().send_with(&event.args, &event.attachments).unwrap(),
            "leave" => socket.disconnect(false),
            "leave all" => socket.disconnect(true),
            "work" => {
                let app = self.clone();
                return Some(Box::pin(async move { app.note("work done".to_owned()) }));
            }
            _ => {}
        }
        None
    }

    fn disconnected(&self, socket: &Socket, reason: DisconnectReason) {
        self.note(format!("disconnected {} {reason}", socket.namespace()));
    }
}

struct Client {
    app: App,
    layer: Layer<App>,
    session: Arc<Connection>,
    sent: OutboxReceiver,
}

impl Client {
    fn new() -> Self {
        Self::with(LayerConfig::default(), 100)
    }

    fn with(config: LayerConfig, queue: usize) -> Self {
        let app = App::default();
        Self::of(Layer::new(config, app.clone()), app, queue)
    }

    fn of(layer: Layer<App>, app: App, queue: usize) -> Self {
        let (outbox, sent) = outbox(queue, 1_000_000);
        let handshake = Handshake { headers: Default::default(), query: String::new(), peer: None };
        let session = layer.open(outbox, handshake);
        Self { app, layer, session, sent }
    }

    /// A client that is in `/` and has read its greeting.
    async fn joined() -> Self {
        let mut client = Self::new();
        client.text("0").await;
        client.received();
        client.logged();
        client
    }

    fn start(&self, text: &str) -> Option<Work> {
        self.layer.message(&self.session, Message::text(text))
    }

    async fn text(&self, text: &str) {
        if let Some(work) = self.start(text) {
            work.await;
        }
    }

    async fn binary(&self, bytes: &'static [u8]) {
        if let Some(work) = self.layer.message(&self.session, Message::Binary(Bytes::from_static(bytes))) {
            work.await;
        }
    }

    /// What was sent since the last call; groups are joined by `+`, ids of sockets are not shown.
    fn received(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(group) = self.sent.try_recv() {
            let messages = match group {
                Group::One(message) => vec![message],
                Group::Many(messages) => messages.to_vec(),
            };
            let shown = messages.iter().map(|message| match message {
                Message::Text(text) => match text.as_str().split_once(r#"{"sid":""#) {
                    Some((head, rest)) => {
                        let (id, tail) = rest.split_at(20);
                        assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'), "{id}");
                        format!(r#"{head}{{"sid":"…{tail}"#)
                    }
                    None => text.as_str().to_owned(),
                },
                Message::Binary(bytes) => format!("{bytes:?}"),
            });
            lines.push(shown.collect::<Vec<_>>().join(" + "));
        }
        lines
    }

    fn logged(&self) -> Vec<String> {
        std::mem::take(&mut *self.app.log.lock().unwrap())
    }

    fn closing(&self) -> Option<CloseReason> {
        self.sent.closing().now_or_never()
    }

    fn end(&self, reason: CloseReason) {
        self.layer.close(&self.session, reason);
    }

    fn socket(&self) -> Socket {
        self.app.sockets.lock().unwrap().last().unwrap().clone()
    }
}

#[tokio::test]
async fn a_connect_is_answered_before_anything_else() {
    let mut client = Client::new();
    client.text(r#"0{"token":"x"}"#).await;
    client.text("0/custom,").await;
    assert_eq!(client.received(), [r#"0{"sid":"…"}"#, r#"2["hello",1]"#, r#"0/custom,{"sid":"…"}"#, r#"2/custom,["hello",1]"#]);
    assert_eq!(client.logged(), [r#"connected / {"token":"x"}"#, "connected /custom {}"]);
    let ids: Vec<_> = client.app.sockets.lock().unwrap().iter().map(|socket| socket.id().to_owned()).collect();
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_open() {
    let mut client = Client::new();
    client.text("0/random").await;
    client.text(r#"0/private,{"a":1}"#).await;
    client.text("0/private").await;
    client.text("0").await;
    assert_eq!(
        client.received(),
        [
            r#"4/random,{"message":"Invalid namespace"}"#,
            r#"4/private,{"message":"not \"authorized\"","data":{"auth":{"a":1}}}"#,
            r#"4/private,{"message":"not \"authorized\"","data":{"auth":{}}}"#,
            r#"0{"sid":"…"}"#,
            r#"2["hello",1]"#,
        ]
    );
    assert_eq!(client.closing(), None);
}

#[tokio::test]
async fn packets_out_of_place_close_the_connection() {
    for (before, packet, reason) in [
        // Nothing joined.
        (&[][..], r#"2["a"]"#, CloseReason::ForcedClose),
        (&[], "2", CloseReason::ForcedClose),
        (&[], "1", CloseReason::ForcedClose),
        (&[], "31[]", CloseReason::ForcedClose),
        (&[], r#"51-["a",{"_placeholder":true,"num":0}]"#, CloseReason::ForcedClose),
        // Another namespace joined.
        (&["0"], r#"2/custom,["a"]"#, CloseReason::ForcedClose),
        (&["0"], "1/custom,", CloseReason::ForcedClose),
        (&["0"], "0", CloseReason::ForcedClose),
        (&["0", "0/custom"], "0/custom,{}", CloseReason::ForcedClose),
        // Refused, or left by the client.
        (&["0", "0/private"], r#"2/private,["a"]"#, CloseReason::ForcedClose),
        (&["0", "1"], r#"2["a"]"#, CloseReason::ForcedClose),
        (&["0", "1"], "1", CloseReason::ForcedClose),
        // Malformed.
        (&["0"], "", CloseReason::ParseError),
        (&["0"], "abc", CloseReason::ParseError),
        (&["0"], r#"2["a""#, CloseReason::ParseError),
        (&["0"], r#"2["disconnect"]"#, CloseReason::ParseError),
        (&["0"], "4{}", CloseReason::ParseError),
    ] {
        let client = Client::new();
        for text in before {
            client.text(text).await;
        }
        assert_eq!(client.closing(), None, "{before:?}");
        client.logged();
        client.text(packet).await;
        assert_eq!(client.closing(), Some(reason), "{before:?} {packet}");
        let log = client.logged();
        assert!(log.iter().all(|line| line.starts_with("disconnected")), "{before:?} {packet}: {log:?}");
        // Nothing is heard from the client any more.
        client.text(r#"2["late"]"#).await;
        assert!(client.start("0/n1").is_none());
        assert_eq!(client.logged(), [""; 0]);
    }
}

#[tokio::test]
async fn a_violation_is_the_reason_that_sockets_are_told() {
    for (packet, told) in [("2x", "parse error"), ("2/x,[1]", "forced server close")] {
        let client = Client::joined().await;
        client.text("0/custom").await;
        client.logged();
        client.text(packet).await;
        assert_eq!(client.logged(), [format!("disconnected / {told}"), format!("disconnected /custom {told}")]);
        client.end(CloseReason::TransportClose);
        assert_eq!(client.logged(), [""; 0]);
    }
    let client = Client::joined().await;
    client.end(CloseReason::PingTimeout);
    assert_eq!(client.logged(), ["disconnected / ping timeout"]);
}

#[tokio::test]
async fn a_namespace_that_is_being_joined_takes_no_packets() {
    for packet in ["0/never", r#"2/never,["a"]"#, "1/never"] {
        let client = Client::joined().await;
        let work = client.start("0/never");
        client.text(packet).await;
        assert_eq!(client.closing(), Some(CloseReason::ForcedClose), "{packet}");
        drop(work);
    }
}

#[tokio::test]
async fn whoever_leaves_while_being_admitted_was_never_there() {
    let mut client = Client::new();
    let work = client.start("0").unwrap();
    client.end(CloseReason::TransportClose);
    work.await;
    assert_eq!(client.logged(), [""; 0]);
    assert_eq!(client.received(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_joins_nothing_is_closed_in_time() {
    let config = LayerConfig { connect_timeout: Duration::from_secs(45), ..LayerConfig::default() };
    let (idle, refused, left) = (Client::new(), Client::new(), Client::with(config, 100));
    refused.text("0/private").await;
    left.text("0").await;
    left.text("1").await;
    tokio::time::sleep(Duration::from_millis(44_999)).await;
    assert_eq!((idle.closing(), refused.closing()), (None, None));
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!((idle.closing(), refused.closing()), (Some(CloseReason::ForcedClose), Some(CloseReason::ForcedClose)));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(left.closing(), None);
}

#[tokio::test(start_paused = true)]
async fn a_decision_on_a_connect_is_bounded() {
    let client = Client::joined().await;
    let asked = tokio::time::Instant::now();
    client.text("0/never").await;
    assert_eq!(asked.elapsed().as_secs(), 45);
    assert_eq!(client.closing(), Some(CloseReason::ForcedClose));
    assert_eq!(client.logged(), ["disconnected / forced server close"]);
}

#[tokio::test]
async fn nothing_is_heard_from_a_client_that_is_being_closed() {
    let client = Client::joined().await;
    client.socket().close(CloseReason::SlowConsumer);
    client.text(r#"2["late"]"#).await;
    assert_eq!(client.logged(), [""; 0]);
    client.end(CloseReason::SlowConsumer);
    assert_eq!(client.logged(), ["disconnected / slow consumer"]);
}

#[tokio::test]
async fn events_come_in_order_and_are_acknowledged() {
    let mut client = Client::joined().await;
    client.text(r#"2["work",1]"#).await;
    client.text(r#"20["ack",1,"x",[2]]"#).await;
    client.text(r#"2["echo",1e400,"\ud83d"]"#).await;
    client.text("2").await;
    assert_eq!(client.logged(), ["event / work 1 +0", "work done", r#"event / ack 1 "x" [2] +0"#, r#"event / echo 1e400 "\ud83d" +0"#]);
    assert_eq!(client.received(), [r#"30[1,"x",[2]]"#, r#"2["echo",1e400,"\ud83d"]"#]);
}

#[tokio::test]
async fn attachments_are_put_together() {
    let mut client = Client::joined().await;
    client.text(r#"52-["echo",{"_placeholder":true,"num":1},{"a":[{"_placeholder":true,"num":0}]}]"#).await;
    client.binary(b"one").await;
    assert_eq!(client.logged(), [""; 0]);
    client.binary(b"two").await;
    client.text(r#"51-12["ack",{"_placeholder":true,"num":0}]"#).await;
    client.binary(b"").await;
    client.text(r#"2["echo",{"_placeholder":true,"num":0}]"#).await;
    assert_eq!(
        client.received(),
        [
            r#"52-["echo",{"_placeholder":true,"num":1},{"a":[{"_placeholder":true,"num":0}]}] + b"one" + b"two""#,
            r#"61-12[{"_placeholder":true,"num":0}] + b"""#,
            r#"2["echo",{"_placeholder":true,"num":0}]"#,
        ]
    );
    assert_eq!(client.layer.budget().used(), 0);
}

#[tokio::test]
async fn attachments_come_alone_and_announced() {
    const HEADER: &str = r#"52-["a",{"_placeholder":true,"num":1}]"#;
    for between in [r#"2["a"]"#, "1", "0/custom", HEADER] {
        let client = Client::joined().await;
        client.text(HEADER).await;
        client.binary(b"one").await;
        client.text(between).await;
        assert_eq!(client.closing(), Some(CloseReason::ParseError), "{between}");
        assert_eq!(client.layer.budget().used(), 0);
    }
    let client = Client::joined().await;
    client.binary(b"one").await;
    assert_eq!(client.closing(), Some(CloseReason::ParseError));
    let client = Client::joined().await;
    client.text(r#"51-["a"]"#).await;
    client.binary(b"one").await;
    client.binary(b"two").await;
    assert_eq!(client.closing(), Some(CloseReason::ParseError));
    assert_eq!(client.logged(), ["event / a  +1", "disconnected / parse error"]);
}

#[tokio::test(start_paused = true)]
async fn attachments_are_bounded_in_bytes_and_time() {
    const HEADER: &str = r#"53-["a"]"#;
    let config = LayerConfig { max_packet_bytes: 20, max_incomplete_bytes: 40, ..LayerConfig::default() };
    let large = Client::with(config.clone(), 100);
    large.text("0").await;
    large.text(HEADER).await;
    large.binary(b"123456789012").await;
    assert_eq!(large.closing(), None);
    large.binary(b"1").await;
    assert_eq!(large.closing(), Some(CloseReason::ParseError));

    let app = App::default();
    let layer = Layer::new(config, app.clone());
    let clients: Vec<_> = (0..3).map(|_| Client::of(layer.clone(), app.clone(), 100)).collect();
    for client in &clients {
        client.text("0").await;
        client.text(HEADER).await;
        client.binary(b"12345678").await;
    }
    let closed: Vec<_> = clients.iter().map(Client::closing).collect();
    assert_eq!(closed, [None, None, Some(CloseReason::ParseError)]);

    // The first goes on slowly, the second gives up.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        clients[0].binary(b"x").await;
    }
    let closed: Vec<_> = clients.iter().map(Client::closing).collect();
    assert_eq!(closed, [None, Some(CloseReason::ParseError), Some(CloseReason::ParseError)]);
    assert_eq!(layer.budget().used(), 0);
}

#[tokio::test]
async fn leaving_one_namespace_leaves_the_others() {
    let mut client = Client::joined().await;
    client.text("0/custom").await;
    client.text("1").await;
    client.text(r#"2/custom,["echo"]"#).await;
    client.text("0").await;
    assert_eq!(
        client.logged(),
        ["connected /custom {}", "disconnected / client namespace disconnect", "event /custom echo  +0", "connected / {}"]
    );
    assert_eq!(client.received().len(), 5);
    client.end(CloseReason::TransportClose);
    assert_eq!(client.logged(), ["disconnected /custom transport close", "disconnected / transport close"]);
    assert_eq!(client.closing(), None);
}

#[tokio::test]
async fn packets_on_their_way_when_the_server_disconnects_are_ignored() {
    let mut client = Client::joined().await;
    let socket = client.socket();
    client.text("0/custom").await;
    client.received();
    client.logged();
    client.text(r#"2["leave"]"#).await;
    assert_eq!(client.logged(), ["event / leave  +0", "disconnected / server namespace disconnect"]);
    assert!(matches!(socket.emit("a", &1), Err(SendError::Closed)));
    socket.disconnect(false);
    for late in [r#"2["late"]"#, "31[]", "2", r#"51-["late"]"#] {
        client.text(late).await;
    }
    client.binary(b"late").await;
    client.text("1").await;
    client.text(r#"2/custom,["echo"]"#).await;
    client.text("0").await;
    assert_eq!(client.received(), ["1", r#"2/custom,["echo"]"#, r#"0{"sid":"…"}"#, r#"2["hello",1]"#]);
    assert_eq!(client.logged(), ["event /custom echo  +0", "connected / {}"]);
    assert_eq!(client.closing(), None);
}

#[tokio::test]
async fn disconnecting_with_close_tells_all_namespaces_and_ends_the_session() {
    let mut client = Client::joined().await;
    client.text("0/custom").await;
    client.received();
    client.logged();
    client.text(r#"2["leave all"]"#).await;
    assert_eq!(client.received(), ["1", "1/custom,"]);
    assert_eq!(client.closing(), Some(CloseReason::ForcedClose));
    client.end(CloseReason::ForcedClose);
    assert_eq!(
        client.logged(),
        ["event / leave all  +0", "disconnected / server namespace disconnect", "disconnected /custom server namespace disconnect"]
    );
}

#[tokio::test]
async fn a_client_is_in_few_namespaces_at_a_time() {
    let client = Client::with(LayerConfig { max_namespaces: 3, ..LayerConfig::default() }, 1000);
    for i in 0..20 {
        client.text(&format!("0/n{i}")).await;
        client.text(&format!("{}/n{i},{}", if i % 2 == 0 { 1 } else { 2 }, if i % 2 == 0 { "" } else { r#"["leave"]"# })).await;
    }
    for i in 0..3 {
        client.text(&format!("0/n{i}")).await;
    }
    assert_eq!(client.closing(), None);
    client.text("0/n4").await;
    assert_eq!(client.closing(), Some(CloseReason::ForcedClose));
}

#[tokio::test(start_paused = true)]
async fn the_server_can_ask_for_an_answer() {
    const LIMIT: Duration = Duration::from_secs(10);
    let mut client = Client::joined().await;
    let socket = client.socket();
    let (first, second, third) =
        (socket.emit_with_ack("a", &[1], LIMIT), socket.emit_with_ack("b", "x", LIMIT), socket.emit_with_ack("c", "", LIMIT));
    assert_eq!(client.received(), [r#"21["a",[1]]"#, r#"22["b","x"]"#, r#"23["c",""]"#]);
    // Out of order, twice, and for nobody.
    client.text(r#"62-2["é",{"_placeholder":true,"num":1}]"#).await;
    client.binary(b"one").await;
    client.binary(b"two").await;
    client.text("31").await;
    client.text("31[2]").await;
    client.text("399[2]").await;
    assert_eq!(first.await.unwrap().args.len(), 0);
    let reply = second.await.unwrap();
    assert_eq!((reply.arg::<String>(0).unwrap().as_str(), reply.attachments.len()), ("é", 2));
    assert!(matches!(third.await, Err(AckError::Timeout)));
    client.text("33[]").await;

    let leaving = socket.emit_with_ack("d", &1, LIMIT);
    client.text("1").await;
    assert!(matches!(leaving.await, Err(AckError::Disconnected)));
    assert!(matches!(socket.emit_with_ack("e", &1, LIMIT).await, Err(AckError::Send(SendError::Closed))));
    assert_eq!(client.closing(), None);
}

#[tokio::test]
async fn what_cannot_be_a_packet_is_not_sent() {
    let mut client = Client::joined().await;
    let socket = client.socket();
    let data = [Bytes::from_static(b"x")];
    let eleven = vec![Bytes::new(); 11];
    assert!(matches!(socket.emit("connect", &1), Err(SendError::Encode(_))));
    assert!(matches!(socket.emit("a", &std::collections::HashMap::from([((1, 2), 3)])), Err(SendError::Encode(_))));
    assert!(matches!(socket.emit_binary("a", &Placeholder(1), &data), Err(SendError::Encode(_))));
    assert!(matches!(socket.emit_binary("a", &Placeholder(0), &eleven), Err(SendError::Encode(_))));
    assert!(Encoded::event_raw("/", "a", "1,2").is_err());
    assert_eq!(client.received(), [""; 0]);
    socket.emit_binary("é", &[Placeholder(0), Placeholder(0)], &data).unwrap();
    socket.send(&Encoded::event_raw("/", "a", r#" {"b":1.0} "#).unwrap()).unwrap();
    assert_eq!(
        client.received(),
        [r#"51-["é",[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]] + b"x""#, r#"2["a",{"b":1.0}]"#]
    );
}

#[tokio::test]
async fn a_client_without_room_for_an_answer_is_closed() {
    let client = Client::with(LayerConfig::default(), 1);
    client.text("0/unknown").await;
    client.text("0").await;
    assert_eq!(client.closing(), Some(CloseReason::SlowConsumer));
    client.end(CloseReason::SlowConsumer);
    assert_eq!(client.logged(), [""; 0]);
}

#[derive(Debug, Clone)]
enum Input {
    Text(String),
    Binary(usize),
}

fn input() -> impl Strategy<Value = Input> {
    let namespace = prop_oneof![Just(""), Just("/custom,"), Just("/n1,"), Just("/private,"), Just("/x")];
    let body = prop_oneof![
        Just(String::new()),
        "(echo|ack|leave|leave all|work|é)".prop_map(|name| format!("[\"{name}\",1]")),
        Just(r#"7["a",{"_placeholder":true,"num":0}]"#.to_owned()),
        any::<String>(),
    ];
    prop_oneof![
        8 => ("(0|1|2|3|51-|62-)", namespace, body).prop_map(|(kind, namespace, body)| Input::Text(kind + namespace + &body)),
        2 => (0_usize..100).prop_map(Input::Binary),
        1 => any::<String>().prop_map(Input::Text),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_messages_leave_pairs_of_connected_and_disconnected(inputs in prop::collection::vec(input(), 0..40)) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            let mut client = Client::new();
            for input in inputs {
                let work = match input {
                    // The application acknowledges only what asks for it.
                    Input::Text(text) if text.contains("ack") && !text.contains('7') => None,
                    Input::Text(text) => client.start(&text),
                    Input::Binary(len) => client.layer.message(&client.session, Message::Binary(vec![0; len].into())),
                };
                if let Some(work) = work {
                    work.await;
                }
                client.received();
            }
            client.end(CloseReason::TransportClose);
            let log = client.logged();
            let count = |word: &str| log.iter().filter(|line| line.starts_with(word)).count();
            assert_eq!(count("connected"), count("disconnected"));
            assert_eq!(client.layer.budget().used(), 0);
        });
    }
}
