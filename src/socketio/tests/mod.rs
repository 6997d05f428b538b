//! The rules without a network: messages go in through the Engine.IO seam, and what is queued and
//! called is looked at.

mod any;
mod attachments;
mod connection;
mod four;
mod pull;
mod sending;

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::internals::SocketIoHandler;
use super::*;
use crate::engineio::internals::{Next, OutboxReceiver, outbox};
use crate::engineio::{Handler as _, Message, MessageGroup};

/// Writes down what it is told, and does what events and fields of the CONNECT payload are named
/// after.
#[derive(Clone, Default)]
struct App {
    log: Arc<Mutex<Vec<String>>>,
    sockets: Arc<Mutex<Vec<Socket>>>,
    /// Rights to answer that were kept.
    acks: Arc<Mutex<Vec<Ack>>>,
    /// What is to be pulled for each namespace.
    waiting: Arc<Mutex<Vec<Encoded>>>,
    /// Namespaces of the sockets that were asked for something, in order.
    asked: Arc<Mutex<Vec<String>>>,
    /// Namespaces whose sockets are not wanted any more.
    unwanted: Arc<Mutex<Vec<String>>>,
}

impl App {
    fn note(&self, line: String) {
        self.log.lock().unwrap().push(line);
    }
}

fn has(request: &ConnectRequest, field: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(request.auth.get())
        .is_ok_and(|auth| auth.get(field).is_some())
}

impl Handler for App {
    type Admitted = ();

    async fn authorize(&self, request: ConnectRequest) -> Result<(), ConnectRefused> {
        match &*request.namespace {
            _ if has(&request, "refuse") => Err(ConnectRefused {
                message: "refused".to_owned(),
                data: None,
            }),
            "/" | "/custom" => Ok(()),
            "/never" => pending().await,
            "/private" => {
                let data = Some(
                    serde_json::json!({"auth": serde_json::from_str::<serde_json::Value>(request.auth.get()).unwrap()}),
                );
                Err(ConnectRefused {
                    message: "not \"authorized\"".to_owned(),
                    data,
                })
            }
            name if name.starts_with("/n") => Ok(()),
            _ => Err(ConnectRefused {
                message: "Invalid namespace".to_owned(),
                data: None,
            }),
        }
    }

    fn connected(&self, socket: &Socket, request: &ConnectRequest, (): ()) {
        self.note(format!("connected {} {}", socket.namespace(), request.auth));
        self.sockets.lock().unwrap().push(socket.clone());
        socket.emit("hello", &1).unwrap();
        if has(request, "kick") {
            socket.disconnect(false);
            self.note("kicked".to_owned());
        }
    }

    fn event(&self, socket: &Socket, event: Event) -> Option<Work> {
        let args: Vec<_> = event.args.iter().map(|arg| arg.get()).collect();
        self.note(format!(
            "event {} {} {} +{}",
            socket.namespace(),
            event.name,
            args.join(" "),
            event.attachments.len()
        ));
        match event.name.as_str() {
            "echo" => socket
                .send(
                    &Encoded::event_with(
                        socket.namespace(),
                        "echo",
                        &event.args,
                        &event.attachments,
                    )
                    .unwrap(),
                )
                .unwrap(),
            "ack" => event
                .ack
                .unwrap()
                .send_with(&event.args, &event.attachments)
                .unwrap(),
            "later" => self.acks.lock().unwrap().extend(event.ack),
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

    fn poll_next(&self, socket: &Socket, _: &mut Context<'_>) -> Poll<Encoded> {
        let namespace = socket.namespace().to_owned();
        let mut waiting = self.waiting.lock().unwrap();
        let head = match namespace.as_str() {
            "/" => "2[".to_owned(),
            name => format!("2{name},"),
        };
        let place = waiting.iter().position(|it| it.text().starts_with(&head));
        self.asked.lock().unwrap().push(namespace);
        place.map_or(Poll::Pending, |place| Poll::Ready(waiting.remove(place)))
    }

    fn is_full(&self, socket: &Socket) -> bool {
        socket.namespace() == "/custom" && self.waiting.lock().unwrap().len() > 2
    }

    fn poll_end(&self, socket: &Socket, _: &mut Context<'_>) -> Poll<Encoded> {
        let unwanted = self.unwanted.lock().unwrap();
        match unwanted.iter().any(|it| it == socket.namespace()) {
            true => Poll::Ready(Encoded::event(socket.namespace(), "bye", &1).unwrap()),
            false => Poll::Pending,
        }
    }

    fn disconnected(&self, socket: &Socket, reason: DisconnectReason) {
        self.note(format!("disconnected {} {reason}", socket.namespace()));
    }
}

/// The line with `…` for each id, which has 20 characters.
fn without_ids(line: &str) -> String {
    const KEY: &str = "{\"sid\":\"";
    let Some((head, rest)) = line.split_once(KEY) else {
        return line.to_owned();
    };
    let (id, tail) = rest.split_at(20);
    let is_id_char = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    assert!(id.chars().all(is_id_char), "{id}");
    format!("{head}{KEY}…{tail}")
}

struct Client {
    app: App,
    layer: SocketIoHandler<App>,
    session: Arc<Connection>,
    sent: OutboxReceiver,
}

impl Client {
    fn new() -> Self {
        Self::with(LayerConfig::default(), 100)
    }

    fn with(config: LayerConfig, queue: usize) -> Self {
        let app = App::default();
        Self::of(SocketIoHandler::new(config, app.clone()), app, queue)
    }

    fn of(layer: SocketIoHandler<App>, app: App, queue: usize) -> Self {
        Self::speaking("EIO=4", layer, app, queue)
    }

    fn speaking(query: &str, layer: SocketIoHandler<App>, app: App, queue: usize) -> Self {
        let (outbox, sent) = outbox(queue, 1_000_000);
        let handshake = Handshake {
            headers: Default::default(),
            query: query.to_owned(),
            peer: None,
        };
        let session = layer.open(outbox, handshake);
        Self {
            app,
            layer,
            session,
            sent,
        }
    }

    /// A client that is in `/` and has read its greeting.
    async fn joined() -> Self {
        let mut client = Self::new();
        client.text("0").await;
        client.received();
        client.logged();
        client
    }

    /// A client of revision 4. Nobody has looked yet whether it may join `/`.
    fn four() -> Self {
        let app = App::default();
        Self::speaking(
            "EIO=3",
            SocketIoHandler::new(LayerConfig::default(), app.clone()),
            app,
            100,
        )
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
        if let Some(work) = self
            .layer
            .message(&self.session, Message::Binary(Bytes::from_static(bytes)))
        {
            work.await;
        }
    }

    async fn wait(&self, time: Duration) {
        tokio::time::sleep(time).await;
        self.tick();
    }

    /// What the session does when its deadline has passed.
    fn tick(&self) {
        let now = tokio::time::Instant::now().into_std();
        let deadline = self.layer.deadline(&self.session);
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.layer.tick(&self.session, now);
        }
    }

    /// What was sent since the last call; groups are joined by `+`, ids of sockets are not shown.
    fn received(&mut self) -> Vec<String> {
        self.raw().iter().map(|line| without_ids(line)).collect()
    }

    fn raw(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Next::Group(group) = self.sent.take() {
            let messages = match group {
                MessageGroup::One(message) => vec![message],
                MessageGroup::Many(messages) => messages.to_vec(),
            };
            let shown = messages.iter().map(|message| match message {
                Message::Text(text) => text.as_str().to_owned(),
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
        self.sent.closing()
    }

    fn end(&self, reason: CloseReason) {
        self.layer.close(&self.session, reason);
    }

    fn socket(&self) -> Socket {
        self.app.sockets.lock().unwrap().last().unwrap().clone()
    }
}
