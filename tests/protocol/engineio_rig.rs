//! An Engine.IO server on a port of its own, or in memory for tests in paused time, and clients
//! that do only what they are told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::USER_AGENT;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use satwatch::engineio::{
    CloseReason, Config, Handler, Handshake, Message, MessageGroup, Outbox, Service, Work,
};
use satwatch::server::ConnectionSlot;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;

/// Longer than anything here takes; a test that waits for what never comes fails instead of
/// hanging.
pub const PATIENCE: Duration = Duration::from_secs(20);

// The server

/// Echoes, and lets in who says anything; some texts make it do something else.
#[derive(Default)]
pub struct Echo {
    pub seen: Mutex<Vec<String>>,
    changed: watch::Sender<usize>,
    pub release: Notify,
    pub outboxes: Mutex<Vec<Outbox>>,
}

impl Echo {
    pub fn note(&self, what: impl Into<String>) {
        self.seen
            .lock()
            .expect("no test panics under this lock")
            .push(what.into());
        self.changed.send_modify(|count| *count += 1);
    }

    pub fn seen(&self) -> Vec<String> {
        self.seen
            .lock()
            .expect("no test panics under this lock")
            .clone()
    }

    pub async fn wait_for_count(&self, count: usize) {
        let mut changed = self.changed.subscribe();
        within(changed.wait_for(|seen| *seen >= count))
            .await
            .expect("the handler lives");
    }

    pub async fn wait_for(&self, what: &str) {
        let mut changed = self.changed.subscribe();
        within(async {
            while !self.seen().iter().any(|seen| seen == what) {
                changed.changed().await.expect("the handler lives");
            }
        })
        .await;
    }
}

/// Says when it is dropped.
struct Dropped(Arc<Echo>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.note("work dropped");
    }
}

pub struct EchoHandler {
    echo: Arc<Echo>,
}

impl Handler for EchoHandler {
    type Session = Outbox;

    fn open(&self, outbox: Outbox, handshake: Handshake) -> Arc<Outbox> {
        let agent = handshake
            .headers
            .get("user-agent")
            .and_then(|agent| agent.to_str().ok())
            .unwrap_or("-")
            .to_owned();
        assert!(!handshake.headers.contains_key("upgrade") && handshake.peer.is_some());
        self.echo.note(format!("open {} {agent}", handshake.query));
        if handshake.query.ends_with("&small") {
            outbox.small_until_let_in();
        }
        self.echo
            .outboxes
            .lock()
            .expect("no test panics under this lock")
            .push(outbox.clone());
        Arc::new(outbox)
    }

    fn message(&self, outbox: &Arc<Outbox>, message: Message) -> Option<Work> {
        outbox.let_in();
        let Message::Text(text) = &message else {
            outbox
                .try_send(MessageGroup::One(message))
                .expect("the outbox has room");
            return None;
        };
        self.echo.note(format!("message {}", text.as_str()));
        match text.as_str() {
            "work" => {
                let (echo, outbox) = (self.echo.clone(), outbox.clone());
                return Some(Box::pin(async move {
                    let dropped = Dropped(echo);
                    dropped.0.release.notified().await;
                    outbox
                        .try_send(MessageGroup::One(Message::text("worked")))
                        .expect("the outbox has room");
                    drop(dropped);
                }));
            }
            "bye" => {
                outbox
                    .try_send(MessageGroup::One(Message::text("last words")))
                    .expect("the outbox has room");
                outbox.close(CloseReason::ForcedClose);
            }
            "panic" => panic!("on purpose"),
            "flood" => {
                while outbox
                    .try_send(MessageGroup::One(Message::text(&"x".repeat(100_000))))
                    .is_ok()
                {}
            }
            "big" => outbox
                .try_send(MessageGroup::One(Message::text(&"é".repeat(200_000))))
                .expect("it fits any outbox that has room"),
            "many" => (0..40).for_each(|number| {
                outbox
                    .try_send(MessageGroup::One(Message::text(&number.to_string())))
                    .expect("room")
            }),
            _ => outbox
                .try_send(MessageGroup::One(message))
                .expect("the outbox has room"),
        }
        None
    }

    fn close(&self, outbox: &Arc<Outbox>, reason: CloseReason) {
        assert!(
            outbox
                .try_send(MessageGroup::One(Message::text("too late")))
                .is_ok()
                || outbox.is_closed()
        );
        self.echo.note(format!("close {reason}"));
    }
}

/// A connection, whatever it runs over.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection for S {}

pub type Stream = Box<dyn Connection>;

/// Bytes that a connection in memory holds each way.
const ROOM: usize = 64 << 10;

pub struct Server {
    /// `None`: connections are in memory, so that paused time goes on only when all wait.
    pub addr: Option<SocketAddr>,
    pub service: Service<EchoHandler>,
    /// One clone is in the extensions of each request that can be upgraded, as `server` does it
    /// with its slots.
    pub slot: ConnectionSlot,
}

impl Server {
    pub async fn start(change: impl FnOnce(&mut Config)) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let server = Arc::new(Self {
            addr: Some(listener.local_addr().expect("bound")),
            ..Self::in_memory(change)
        });
        let (service, slot) = (server.service.clone(), server.slot.clone());
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                tokio::spawn(serve(service.clone(), stream, peer, slot.clone()));
            }
        });
        server
    }

    pub fn in_memory(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            max_payload: 1000,
            keep_headers: &[USER_AGENT],
            ..Config::default()
        };
        change(&mut config);
        let service = Service::new(
            config,
            EchoHandler {
                echo: Arc::default(),
            },
        );
        Self {
            addr: None,
            service,
            slot: slot(),
        }
    }

    async fn connect(&self) -> Stream {
        let Some(addr) = self.addr else {
            let (ours, theirs) = tokio::io::duplex(ROOM);
            let peer = SocketAddr::from(([127, 0, 0, 1], 1));
            tokio::spawn(serve(self.service.clone(), theirs, peer, self.slot.clone()));
            return Box::new(ours);
        };
        let stream = TcpStream::connect(addr).await;
        Box::new(stream.expect("the server listens"))
    }

    pub fn echo(&self) -> Arc<Echo> {
        self.service.handler().echo.clone()
    }

    /// Of the session that was opened so many sessions after the first.
    pub fn outbox(&self, number: usize) -> Outbox {
        let echo = self.echo();
        let outboxes = echo
            .outboxes
            .lock()
            .expect("no test panics under this lock");
        outboxes[number].clone()
    }

    /// One request on a connection of its own.
    pub async fn http(&self, method: &str, query: &str, body: &str) -> Answer {
        self.http_with(method, query, "", body).await
    }

    pub async fn http_with(&self, method: &str, query: &str, headers: &str, body: &str) -> Answer {
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        let head = format!(
            "{method} /engine.io/?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}{length}\r\n"
        );
        let mut stream = self.raw(&format!("{head}{body}")).await;
        answer(&mut stream).await
    }

    /// Sends this and leaves the connection open.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> Stream {
        let mut stream = self.connect().await;
        stream
            .write_all(bytes.as_ref())
            .await
            .expect("the server reads");
        stream
    }

    pub async fn open_polling(&self) -> String {
        let answer = self.http("GET", "EIO=4&transport=polling", "").await;
        assert_eq!(answer.status, 200);
        sid_of(&answer.body)
    }

    pub async fn get(&self, sid: &str) -> Answer {
        self.http("GET", &format!("EIO=4&transport=polling&sid={sid}"), "")
            .await
    }

    pub async fn post(&self, sid: &str, body: &str) -> Answer {
        self.http("POST", &format!("EIO=4&transport=polling&sid={sid}"), body)
            .await
    }

    /// A GET that nobody waits for yet.
    pub async fn pending_get(&self, sid: &str) -> Stream {
        self.raw(&format!("GET /engine.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    /// The content type and the body of an answer that is no text.
    pub async fn http_bytes(
        &self,
        method: &str,
        query: &str,
        headers: &str,
        body: &[u8],
    ) -> (String, Vec<u8>) {
        let length = format!("content-length: {}\r\n", body.len());
        let head = format!(
            "{method} /engine.io/?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}{length}\r\n"
        );
        let mut stream = self.raw(&head).await;
        stream.write_all(body).await.expect("the server reads");
        let mut bytes = Vec::new();
        within(stream.read_to_end(&mut bytes))
            .await
            .expect("the server answers");
        let end = bytes
            .windows(4)
            .position(|end| end == b"\r\n\r\n")
            .expect("a head");
        let body = bytes.split_off(end + 4);
        let answer = Answer {
            status: 0,
            head: String::from_utf8(bytes).expect("text"),
            body: String::new(),
        };
        (
            answer.header("content-type").expect("a type").to_owned(),
            body,
        )
    }

    pub async fn websocket(&self, query: &str) -> Socket {
        self.websocket_of(4, query).await
    }

    pub async fn websocket_of(&self, revision: u8, query: &str) -> Socket {
        let stream = self.connect().await;
        let url = format!("ws://x/engine.io/?EIO={revision}&transport=websocket{query}");
        Socket(
            within(tokio_tungstenite::client_async(url, stream))
                .await
                .expect("a 101")
                .0,
        )
    }

    /// A session on a WebSocket, past its open packet.
    pub async fn open_websocket(&self) -> Socket {
        let mut socket = self.websocket("").await;
        assert!(socket.text().await.starts_with("0{"));
        socket
    }
}

/// Times that paused time passes before [`PATIENCE`].
pub fn fast(config: &mut Config) {
    config.ping_interval = Duration::from_secs(3);
    config.ping_timeout = Duration::from_secs(2);
}

/// The slot of all connections of one server.
pub fn slot() -> ConnectionSlot {
    Arc::new(())
}

pub async fn serve<S>(
    service: Service<EchoHandler>,
    stream: S,
    peer: SocketAddr,
    slot: ConnectionSlot,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(slot.clone());
        let answer = service.handle(request, Some(peer.ip()));
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    // A client that leaves is an error here and the subject of a test there.
    let _ = hyper::server::conn::http1::Builder::new()
        .half_close(false)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades()
        .await;
}

// Clients

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it comes in time")
}

/// In paused time: lets all that is ready run.
pub async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            line.split_once(": ")
                .filter(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        })
    }

    pub fn is(&self, status: u16, body: &str) -> bool {
        (self.status, self.body.as_str()) == (status, body)
    }
}

/// Reads to the end of the connection.
pub async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut text = Vec::new();
    within(stream.read_to_end(&mut text))
        .await
        .expect("the server answers");
    let text = String::from_utf8(text).expect("text");
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("an HTTP answer: {text:?}"));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

pub fn sid_of(open: &str) -> String {
    let json: serde_json::Value =
        serde_json::from_str(open.strip_prefix('0').expect("an open packet")).expect("JSON");
    json["sid"].as_str().expect("a text").to_owned()
}

pub struct Socket<S = Stream>(pub WebSocketStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub async fn send(&mut self, text: &str) {
        self.0
            .send(tungstenite::Message::text(text))
            .await
            .expect("the server reads");
    }

    pub async fn next(&mut self) -> tungstenite::Message {
        within(self.0.next())
            .await
            .expect("still open")
            .expect("a frame")
    }

    pub async fn text(&mut self) -> String {
        self.next()
            .await
            .into_text()
            .expect("text")
            .as_str()
            .to_owned()
    }

    /// The code of the close frame; everything before it must have been read.
    pub async fn closed(&mut self) -> Option<u16> {
        match self.next().await {
            tungstenite::Message::Close(frame) => frame.map(|frame| frame.code.into()),
            other => panic!("a close, not {other:?}"),
        }
    }
}
