//! Socket.IO over loopback: the whole way from bytes on a socket to the application and back, on both transports.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use satwatch::socketio::{
    CloseReason, Config, ConnectRefused, ConnectRequest, DisconnectReason, Encoded, Event, Handler, Placeholder, Service, Socket, Work,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Far above what anything here takes; reached only by a failing test.
const DEADLINE: Duration = Duration::from_secs(30);

/// Does what events are named after.
#[derive(Clone)]
struct App {
    sockets: Arc<Mutex<Vec<Socket>>>,
    joined: Arc<watch::Sender<usize>>,
    left: mpsc::UnboundedSender<DisconnectReason>,
    replies: mpsc::UnboundedSender<String>,
}

impl Handler for App {
    async fn authorize(&self, request: ConnectRequest) -> Result<(), ConnectRefused> {
        tokio::task::yield_now().await;
        match &*request.namespace {
            "/" | "/custom" => Ok(()),
            _ => Err(ConnectRefused { message: "Invalid namespace".to_owned(), data: None }),
        }
    }

    fn connected(&self, socket: &Socket, _: &ConnectRequest) {
        socket.emit("hello", &json!({ "id": socket.id() })).expect("the queue of a new client has room");
        self.sockets.lock().unwrap().push(socket.clone());
        self.joined.send_modify(|joined| *joined += 1);
    }

    fn event(&self, socket: &Socket, event: Event) -> Option<Work> {
        match event.name.as_str() {
            "echo" => {
                let back = Encoded::event_with(socket.namespace(), "echo", &event.args, &event.attachments).expect("it came so");
                socket.send(&back).expect("a reading client has room");
                None
            }
            "slow" => Some(Box::pin(async move {
                tokio::task::yield_now().await;
                event.ack.expect("it was asked for").send("slow").expect("a reading client has room");
            })),
            "question" => {
                let reply = socket.emit_with_ack("question", "?", DEADLINE);
                let replies = self.replies.clone();
                tokio::spawn(async move {
                    let reply = reply.await.expect("the client answers");
                    replies.send(reply.args[0].to_string()).expect("the test listens");
                });
                None
            }
            "binary" => {
                let data = json!({ "a": Placeholder(1), "b": [Placeholder(0)] });
                socket.emit_binary("binary", &data, &[Bytes::from_static(b"\0\x1e"), Bytes::new()]).expect("a reading client has room");
                None
            }
            "kick" => {
                socket.disconnect(event.arg(0).expect("a boolean"));
                None
            }
            _ => None,
        }
    }

    fn disconnected(&self, _: &Socket, reason: DisconnectReason) {
        // The test may be over.
        let _ = self.left.send(reason);
    }
}

struct Server {
    at: SocketAddr,
    app: App,
    service: Service<App>,
    left: mpsc::UnboundedReceiver<DisconnectReason>,
    replies: mpsc::UnboundedReceiver<String>,
}

impl Server {
    async fn start() -> Self {
        let ((left_in, left), (replies_in, replies)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let app = App { sockets: Arc::default(), joined: Arc::new(watch::Sender::new(0)), left: left_in, replies: replies_in };
        let service = Service::new(Config::default(), app.clone());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, service.clone()));
        Self { at, app, service, left, replies }
    }

    async fn left(&mut self) -> DisconnectReason {
        within(self.left.recv()).await.unwrap()
    }

    async fn joined(&self, wanted: usize) {
        within(self.app.joined.subscribe().wait_for(|joined| *joined >= wanted)).await.unwrap();
    }
}

async fn accept(listener: TcpListener, service: Service<App>) {
    loop {
        let (stream, peer) = listener.accept().await.unwrap();
        let service = service.clone();
        let answer = service_fn(move |request| {
            let service = service.clone();
            async move { Ok::<_, Infallible>(service.handle(request, Some(peer.ip())).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).with_upgrades();
        tokio::spawn(async move {
            let _ = connection.await;
        });
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it happens long before the deadline")
}

/// A client over a WebSocket.
struct Ws(WebSocketStream<TcpStream>);

impl Ws {
    /// Opens a WebSocket, for a session that polls or a new one.
    async fn open(at: SocketAddr, sid: Option<&str>) -> Self {
        let sid = sid.map_or(String::new(), |sid| format!("&sid={sid}"));
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket{sid} HTTP/1.1\r\nHost: {at}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(stream.read_u8()).await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        Self(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }

    /// Opens a session and joins `/`.
    async fn join(at: SocketAddr) -> Self {
        let mut ws = Self::open(at, None).await;
        assert!(ws.text().await.starts_with('0'));
        ws.send("40").await;
        assert!(ws.text().await.starts_with("40{\"sid\":\""));
        assert!(ws.text().await.starts_with("42[\"hello\","));
        ws
    }

    async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The next message; `None` when the server has closed.
    async fn next(&mut self) -> Option<Message> {
        match within(self.0.next()).await {
            Some(Ok(Message::Close(_)) | Err(_)) | None => None,
            Some(Ok(message)) => Some(message),
        }
    }

    async fn text(&mut self) -> String {
        self.next().await.expect("the server goes on").into_text().unwrap().to_string()
    }

    async fn binary(&mut self) -> Vec<u8> {
        match self.next().await {
            Some(Message::Binary(bytes)) => bytes.to_vec(),
            other => panic!("not binary: {other:?}"),
        }
    }
}

/// A client that polls, with a connection for each request.
struct Polling {
    at: SocketAddr,
    sid: String,
}

impl Polling {
    async fn open(at: SocketAddr) -> Self {
        let (status, body) = request(at, "GET", "", "").await;
        assert_eq!(status, 200);
        let opened: serde_json::Value = serde_json::from_str(&body[1..]).unwrap();
        Self { at, sid: opened["sid"].as_str().unwrap().to_owned() }
    }

    async fn join(at: SocketAddr) -> Self {
        let polling = Self::open(at).await;
        polling.post("40").await;
        let packets = polling.packets(2).await;
        assert!(packets[0].starts_with("40{\"sid\":\"") && packets[1].starts_with("42[\"hello\","), "{packets:?}");
        polling
    }

    async fn post(&self, body: &str) {
        assert_eq!(request(self.at, "POST", &self.sid, body).await, (200, "ok".to_owned()));
    }

    async fn get(&self) -> (u16, String) {
        request(self.at, "GET", &self.sid, "").await
    }

    /// As many packets, from as many answers as it takes.
    async fn packets(&self, count: usize) -> Vec<String> {
        let mut packets = Vec::new();
        while packets.len() < count {
            let (status, body) = self.get().await;
            assert_eq!(status, 200, "{body}");
            packets.extend(body.split('\u{1e}').filter(|packet| *packet != "6").map(str::to_owned));
        }
        assert_eq!(packets.len(), count, "{packets:?}");
        packets
    }
}

async fn request(at: SocketAddr, method: &str, sid: &str, body: &str) -> (u16, String) {
    let sid = if sid.is_empty() { String::new() } else { format!("&sid={sid}") };
    let head = format!(
        "{method} /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn a_websocket_client_gets_events_answers_and_attachments() {
    let server = Server::start().await;
    let mut ws = Ws::join(server.at).await;
    ws.send(r#"42["echo","é",1e400]"#).await;
    ws.send(r#"427["slow"]"#).await;
    ws.send(r#"452-["echo",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#).await;
    ws.0.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    ws.0.send(Message::binary(vec![])).await.unwrap();
    ws.send(r#"42["binary"]"#).await;
    assert_eq!(ws.text().await, r#"42["echo","é",1e400]"#);
    assert_eq!(ws.text().await, r#"437["slow"]"#);
    assert_eq!(ws.text().await, r#"452-["echo",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#);
    assert_eq!((ws.binary().await, ws.binary().await), (vec![1, 2, 3], vec![]));
    assert_eq!(ws.text().await, r#"452-["binary",{"a":{"_placeholder":true,"num":1},"b":[{"_placeholder":true,"num":0}]}]"#);
    assert_eq!((ws.binary().await, ws.binary().await), (vec![0, 0x1e], vec![]));
}

#[tokio::test]
async fn a_polling_client_gets_events_answers_and_attachments() {
    let server = Server::start().await;
    let client = Polling::join(server.at).await;
    client
        .post("42[\"echo\",\"é\"]\u{1e}427[\"slow\"]\u{1e}451-[\"echo\",{\"_placeholder\":true,\"num\":0}]\u{1e}bAQID\u{1e}42[\"binary\"]")
        .await;
    let expected = [
        r#"42["echo","é"]"#,
        r#"437["slow"]"#,
        r#"451-["echo",{"_placeholder":true,"num":0}]"#,
        "bAQID",
        r#"452-["binary",{"a":{"_placeholder":true,"num":1},"b":[{"_placeholder":true,"num":0}]}]"#,
        "bAB4=",
        "b",
    ];
    assert_eq!(client.packets(expected.len()).await, expected);
}

#[tokio::test]
async fn events_keep_their_order_over_an_upgrade() {
    let server = Server::start().await;
    let client = Polling::join(server.at).await;
    let socket = server.app.sockets.lock().unwrap()[0].clone();
    client.post(r#"42["echo",0]"#).await;
    assert_eq!(client.packets(1).await, [r#"42["echo",0]"#]);
    let mut ws = Ws::open(server.at, Some(&client.sid)).await;
    ws.send("2probe").await;
    assert_eq!(ws.text().await, "3probe");
    for i in 1..=50 {
        socket.emit("n", &i).unwrap();
    }
    ws.send("5").await;
    for i in 51..=100 {
        socket.emit("n", &i).unwrap();
    }
    ws.send(r#"42["echo",1]"#).await;
    for i in 1..=100 {
        assert_eq!(ws.text().await, format!(r#"42["n",{i}]"#));
    }
    assert_eq!(ws.text().await, r#"42["echo",1]"#);
    assert_eq!(client.get().await.0, 400);
}

#[tokio::test]
async fn one_encoded_event_goes_to_all_clients_once() {
    const EVENTS: usize = 40;
    let server = Server::start().await;
    let (mut clients, mut polling) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        clients.push(Ws::join(server.at).await);
        polling.push(Polling::join(server.at).await);
    }
    server.joined(10).await;
    let sockets = server.app.sockets.lock().unwrap().clone();
    for i in 0..EVENTS {
        let event = Encoded::event("/", "all", &i).unwrap();
        for socket in &sockets {
            socket.send(&event).unwrap();
        }
    }
    let expected: Vec<_> = (0..EVENTS).map(|i| format!(r#"42["all",{i}]"#)).collect();
    for client in &mut clients {
        for line in &expected {
            assert_eq!(&client.text().await, line);
        }
    }
    for client in &polling {
        assert_eq!(client.packets(EVENTS).await, expected);
    }
}

#[tokio::test]
async fn namespaces_share_a_connection() {
    let mut server = Server::start().await;
    let mut ws = Ws::join(server.at).await;
    ws.send("40/other").await;
    assert_eq!(ws.text().await, r#"44/other,{"message":"Invalid namespace"}"#);
    ws.send(r#"40/custom,{"a":1}"#).await;
    assert!(ws.text().await.starts_with("40/custom,{\"sid\":\""));
    assert!(ws.text().await.starts_with("42/custom,[\"hello\","));
    ws.send("41/custom").await;
    assert_eq!(server.left().await, DisconnectReason::ClientNamespaceDisconnect);
    ws.send(r#"42["kick",false]"#).await;
    assert_eq!(ws.text().await, "41");
    assert_eq!(server.left().await, DisconnectReason::ServerNamespaceDisconnect);
    ws.send("40/custom").await;
    assert!(ws.text().await.starts_with("40/custom,{\"sid\":\""));
}

#[tokio::test]
async fn the_server_gets_an_answer_to_its_question() {
    let mut server = Server::start().await;
    let mut ws = Ws::join(server.at).await;
    ws.send(r#"42["question"]"#).await;
    assert_eq!(ws.text().await, r#"421["question","?"]"#);
    ws.send(r#"431["yes"]"#).await;
    assert_eq!(within(server.replies.recv()).await.unwrap(), r#""yes""#);
}

#[tokio::test]
async fn a_violation_closes_only_the_connection_it_came_on() {
    let mut server = Server::start().await;
    let (mut good, mut bad) = (Ws::join(server.at).await, Ws::join(server.at).await);
    let polling = Polling::join(server.at).await;
    bad.send("42{}").await;
    assert!(bad.next().await.is_none());
    assert_eq!(server.left().await, DisconnectReason::Session(CloseReason::ParseError));
    request(server.at, "POST", &polling.sid, r#"42/elsewhere,["a"]"#).await;
    assert_eq!(server.left().await, DisconnectReason::ForcedServerClose);
    good.send(r#"42["echo"]"#).await;
    assert_eq!(good.text().await, r#"42["echo"]"#);
}

#[tokio::test]
async fn a_disconnect_with_close_comes_before_the_end() {
    let mut server = Server::start().await;
    let mut ws = Ws::join(server.at).await;
    ws.send(r#"42["kick",true]"#).await;
    assert_eq!(ws.text().await, "41");
    assert!(ws.next().await.is_none());
    assert_eq!(server.left().await, DisconnectReason::ServerNamespaceDisconnect);
}

#[tokio::test]
async fn a_lost_connection_and_a_stopping_server_are_told_apart() {
    let mut server = Server::start().await;
    let ws = Ws::join(server.at).await;
    drop(ws);
    assert_eq!(server.left().await, DisconnectReason::Session(CloseReason::TransportClose));
    let mut ws = Ws::join(server.at).await;
    let service = server.service.clone();
    let stopping = tokio::spawn(async move { service.shutdown().await });
    assert!(ws.next().await.is_none());
    assert_eq!(server.left().await, DisconnectReason::Session(CloseReason::ServerShuttingDown));
    within(stopping).await.unwrap();
    assert_eq!(server.service.session_count(), 0);
}
