//! A Socket.IO server on the loopback and bare clients for both transports.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use satwatch::socketio::{
    Config, ConnectRefused, ConnectRequest, DisconnectReason, Encoded, Event, Handler, Service,
    Socket, Work,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Far above what anything here takes; reached only by a failing test.
const DEADLINE: Duration = Duration::from_secs(30);

/// Does what events are named after.
#[derive(Clone)]
pub struct App {
    pub sockets: Arc<Mutex<Vec<Socket>>>,
    pub joined: Arc<watch::Sender<usize>>,
    pub left: mpsc::UnboundedSender<DisconnectReason>,
    /// Whoever wants to `/slow` waits for it.
    pub gate: Arc<Notify>,
}

impl Handler for App {
    type Admitted = ();

    async fn authorize(&self, request: ConnectRequest) -> Result<(), ConnectRefused> {
        tokio::task::yield_now().await;
        match &*request.namespace {
            "/" | "/custom" => Ok(()),
            "/slow" => {
                self.gate.notified().await;
                Ok(())
            }
            _ => Err(ConnectRefused {
                message: "Invalid namespace".to_owned(),
                data: None,
            }),
        }
    }

    fn connected(&self, socket: &Socket, _: &ConnectRequest, (): ()) {
        socket
            .emit("hello", &json!({ "id": socket.id() }))
            .expect("the queue of a new client has room");
        self.sockets.lock().unwrap().push(socket.clone());
        self.joined.send_modify(|joined| *joined += 1);
    }

    fn event(&self, socket: &Socket, event: Event) -> Option<Work> {
        match event.name.as_str() {
            "echo" => {
                let back = Encoded::event_with(
                    socket.namespace(),
                    "echo",
                    &event.args,
                    &event.attachments,
                )
                .expect("it came so");
                socket.send(&back).expect("a reading client has room");
                None
            }
            "slow" => Some(Box::pin(async move {
                tokio::task::yield_now().await;
                event
                    .ack
                    .expect("it was asked for")
                    .send("slow")
                    .expect("a reading client has room");
            })),
            "kick" => {
                socket.disconnect(event.args[0].get() == "true");
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

pub struct Server {
    pub at: SocketAddr,
    pub app: App,
    pub service: Service<App>,
    pub left: mpsc::UnboundedReceiver<DisconnectReason>,
}

impl Server {
    pub async fn start() -> Self {
        let (left_in, left) = mpsc::unbounded_channel();
        let app = App {
            sockets: Arc::default(),
            joined: Arc::new(watch::Sender::new(0)),
            left: left_in,
            gate: Arc::default(),
        };
        let service = satwatch::socketio::service(Config::default(), app.clone());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, service.clone()));
        Self {
            at,
            app,
            service,
            left,
        }
    }

    pub async fn left(&mut self) -> DisconnectReason {
        within(self.left.recv()).await.unwrap()
    }

    pub async fn joined(&self, wanted: usize) {
        within(
            self.app
                .joined
                .subscribe()
                .wait_for(|joined| *joined >= wanted),
        )
        .await
        .unwrap();
    }
}

pub async fn accept(listener: TcpListener, service: Service<App>) {
    loop {
        let (stream, peer) = listener.accept().await.unwrap();
        let service = service.clone();
        let answer = service_fn(move |request| {
            let answer = service.handle(request, Some(peer.ip()));
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), answer)
            .with_upgrades();
        tokio::spawn(async move {
            let _ = connection.await;
        });
    }
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("it happens long before the deadline")
}

/// A client over a WebSocket.
pub struct Ws(pub WebSocketStream<TcpStream>);

impl Ws {
    /// Opens a WebSocket, for a session that polls or a new one.
    pub async fn open(at: SocketAddr, sid: Option<&str>) -> Self {
        let sid = sid.map_or(String::new(), |sid| format!("&sid={sid}"));
        Self::asking(at, &format!("EIO=4{sid}")).await
    }

    pub async fn asking(at: SocketAddr, query: &str) -> Self {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request = format!(
            "GET /socket.io/?transport=websocket&{query} HTTP/1.1\r\nHost: {at}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(stream.read_u8()).await.unwrap());
        }
        assert!(
            head.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&head)
        );
        Self(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }

    /// Opens a session and joins `/`.
    pub async fn join(at: SocketAddr) -> Self {
        let mut ws = Self::open(at, None).await;
        assert!(ws.text().await.starts_with('0'));
        ws.send("40").await;
        assert!(ws.text().await.starts_with("40{\"sid\":\""));
        assert!(ws.text().await.starts_with("42[\"hello\","));
        ws
    }

    pub async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The next message; `None` when the server has closed.
    pub async fn next(&mut self) -> Option<Message> {
        match within(self.0.next()).await {
            Some(Ok(Message::Close(_)) | Err(_)) | None => None,
            Some(Ok(message)) => Some(message),
        }
    }

    pub async fn text(&mut self) -> String {
        self.next()
            .await
            .expect("the server goes on")
            .into_text()
            .unwrap()
            .to_string()
    }

    pub async fn binary(&mut self) -> Vec<u8> {
        match self.next().await {
            Some(Message::Binary(bytes)) => bytes.to_vec(),
            other => panic!("not binary: {other:?}"),
        }
    }
}

/// A client that polls, with a connection for each request.
pub struct Polling {
    pub at: SocketAddr,
    pub sid: String,
}

impl Polling {
    pub async fn open(at: SocketAddr) -> Self {
        let (status, body) = request(at, "GET", "", "").await;
        assert_eq!(status, 200);
        let opened: serde_json::Value = serde_json::from_str(&body[1..]).unwrap();
        Self {
            at,
            sid: opened["sid"].as_str().unwrap().to_owned(),
        }
    }

    pub async fn join(at: SocketAddr) -> Self {
        let polling = Self::open(at).await;
        polling.post("40").await;
        let packets = polling.packets(2).await;
        assert!(
            packets[0].starts_with("40{\"sid\":\"") && packets[1].starts_with("42[\"hello\","),
            "{packets:?}"
        );
        polling
    }

    pub async fn post(&self, body: &str) {
        assert_eq!(
            request(self.at, "POST", &self.sid, body).await,
            (200, "ok".to_owned())
        );
    }

    pub async fn get(&self) -> (u16, String) {
        request(self.at, "GET", &self.sid, "").await
    }

    /// As many packets, from as many answers as it takes.
    pub async fn packets(&self, count: usize) -> Vec<String> {
        let mut packets = Vec::new();
        while packets.len() < count {
            let (status, body) = self.get().await;
            assert_eq!(status, 200, "{body}");
            packets.extend(
                body.split('\u{1e}')
                    .filter(|packet| *packet != "6")
                    .map(str::to_owned),
            );
        }
        assert_eq!(packets.len(), count, "{packets:?}");
        packets
    }
}

pub async fn request(at: SocketAddr, method: &str, sid: &str, body: &str) -> (u16, String) {
    let sid = if sid.is_empty() {
        String::new()
    } else {
        format!("&sid={sid}")
    };
    let head = format!(
        "{method} /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}
