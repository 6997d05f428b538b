//! What the official Engine.IO 4 and Socket.IO 5 conformance suites are run against, and the proof
//! that both layers stand alone.
//!
//! `/engine.io/` echoes every message. `/socket.io/` admits everyone to `/` and `/custom`, greets
//! with `auth` and the CONNECT payload, answers `message` with `message-back` and the same
//! arguments, and acknowledges `message-with-ack` with them. Listens on 127.0.0.1 and [::1], port
//! 3000 or `PORT`.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use satwatch::engineio::{self, Message, MessageGroup, Outbox};
use satwatch::socketio::{
    self, CloseReason, ConnectRefused, ConnectRequest, DisconnectReason, Encoded, Event, Handshake,
    Socket, Work,
};
use tokio::net::TcpListener;

/// Sends every message back.
struct Echo;

impl engineio::Handler for Echo {
    type Session = Outbox;

    fn open(&self, outbox: Outbox, _: Handshake) -> Arc<Outbox> {
        outbox.let_in();
        Arc::new(outbox)
    }

    fn message(&self, outbox: &Arc<Outbox>, message: Message) -> Option<Work> {
        if outbox.try_send(MessageGroup::One(message)).is_err() {
            outbox.close(CloseReason::SlowConsumer);
        }
        None
    }

    fn close(&self, _: &Arc<Outbox>, _: CloseReason) {}
}

/// The application that the Socket.IO suite expects.
struct Suite;

impl socketio::Handler for Suite {
    type Admitted = ();

    async fn authorize(&self, request: ConnectRequest) -> Result<(), ConnectRefused> {
        match &*request.namespace {
            "/" | "/custom" => Ok(()),
            _ => Err(ConnectRefused {
                message: "Invalid namespace".to_owned(),
                data: None,
            }),
        }
    }

    /// The suite's client listens for one message at a time and would lose `auth` if it came in one
    /// read with the CONNECT answer, so it is sent a while later, and well before the first ping.
    fn connected(&self, socket: &Socket, request: &ConnectRequest, (): ()) {
        let (socket, auth) = (socket.clone(), request.auth.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            // The client may be gone.
            let _ = socket.emit("auth", &auth);
        });
    }

    fn event(&self, socket: &Socket, event: Event) -> Option<Work> {
        let sent = match (event.name.as_str(), event.ack) {
            ("message", _) => Encoded::event_with(
                socket.namespace(),
                "message-back",
                &event.args,
                &event.attachments,
            )
            .map_err(Into::into)
            .and_then(|packet| socket.send(&packet)),
            ("message-with-ack", Some(ack)) => ack.send_with(&event.args, &event.attachments),
            _ => Ok(()),
        };
        if sent.is_err() {
            socket.close(CloseReason::SlowConsumer);
        }
        None
    }

    fn disconnected(&self, _: &Socket, _: DisconnectReason) {}
}

#[derive(Clone)]
struct Services {
    echo: engineio::Service<Echo>,
    suite: socketio::Service<Suite>,
}

impl Services {
    fn new() -> Self {
        let engine = engineio::Config {
            ping_interval: Duration::from_millis(300),
            ping_timeout: Duration::from_millis(200),
            max_payload: 1_000_000,
            ..engineio::Config::default()
        };
        let layer = socketio::LayerConfig {
            connect_timeout: Duration::from_secs(1),
            ..socketio::LayerConfig::default()
        };
        let echo = engineio::Service::new(engine.clone(), Echo);
        let engine = engineio::Config {
            path: "/socket.io/".to_owned(),
            ..engine
        };
        Self {
            echo,
            suite: socketio::service(socketio::Config { engine, layer }, Suite),
        }
    }

    /// Not an async function: the session is to hear of the request at once.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>> {
        match request.uri().path() {
            path if self.echo.matches(path) => Box::pin(self.echo.handle(request, Some(peer))),
            _ => Box::pin(self.suite.handle(request, Some(peer))),
        }
    }
}

async fn serve(listener: TcpListener, services: Services) -> io::Result<()> {
    loop {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let services = services.clone();
        let service = service_fn(move |request| {
            let answer = services.answer(request, peer.ip());
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::spawn(async move {
            // What went wrong with one connection is its client's concern.
            let _ = connection.await;
        });
    }
}

/// One thread, so that connections are read in the order in which they came: the suite sends two
/// polls five milliseconds apart and wants to see the second one refused. Several threads would
/// take them in any order when the machine is busy.
#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let port = match std::env::var("PORT") {
        Ok(port) => port
            .parse()
            .map_err(|error| io::Error::other(format!("PORT: {error}")))?,
        Err(_) => 3000,
    };
    let services = Services::new();
    let four = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("listening on {}", four.local_addr()?);
    match TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await {
        Ok(six) => {
            tokio::try_join!(serve(four, services.clone()), serve(six, services)).map(|_| ())
        }
        // A machine without IPv6.
        Err(_) => serve(four, services).await,
    }
}
