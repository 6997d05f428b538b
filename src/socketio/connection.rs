//! One client's session as Socket.IO sees it: which namespaces it is in, and what each of its
//! messages means.
//!
//! The state sits behind a lock that is held for a few lines, never while the application or an
//! `.await` runs: besides the session's own task, the application may disconnect a socket at any
//! time from anywhere.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::Instant;

use super::config::LayerConfig;
use super::dialect::Dialect;
use super::encode;
use super::handler::{ConnectRefused, ConnectRequest, DisconnectReason, Event};
use super::namespace::{Namespaces, StateError};
use super::packet::{self, Body, ParseError};
use super::reassembly::{Budget, Complete, Incomplete, ReassemblyError, Share, Timer};
use super::socket::{Ack, Identity, Reply, Socket};
use crate::engineio::{self, CloseReason, Group, Handshake, Message, Outbox};

/// Why a connection is closed because of what its client did.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error(transparent)]
    Reassembly(#[from] ReassemblyError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("no namespace joined in time")]
    ConnectTimeout,
    #[error("the application did not decide on a CONNECT in time")]
    AuthorizeTimeout,
}

/// What a message asks of the application.
#[derive(Debug)]
pub enum Step {
    Nothing,
    Authorize(ConnectRequest),
    Event(Socket, Event),
    Left(Socket),
}

/// Who hears of sockets that the server disconnects.
pub trait Owner: Send + Sync + 'static {
    fn disconnected(&self, socket: &Socket, reason: DisconnectReason);
}

/// What all connections of a layer share.
#[derive(Debug)]
pub struct Limits {
    pub config: LayerConfig,
    pub budget: Arc<Budget>,
}

/// The state of one client.
pub struct Connection {
    outbox: Outbox,
    handshake: Arc<Handshake>,
    limits: Arc<Limits>,
    owner: Arc<dyn Owner>,
    dialect: Dialect,
    /// False while a client of revision 4 is being let into `/`.
    ready: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    namespaces: Namespaces,
    incomplete: Option<Incomplete>,
    /// Which socket is asked next for something to send.
    turn: usize,
    /// Runs until the first namespace is joined.
    connect_timer: Option<Timer>,
    /// Lets a client of revision 4 into `/`.
    unasked: Option<Timer>,
}

impl Connection {
    /// Called in a tokio runtime, because of the connect timeout.
    pub(super) fn open(
        outbox: Outbox,
        handshake: Handshake,
        limits: Arc<Limits>,
        owner: Arc<dyn Owner>,
    ) -> Arc<Self> {
        let dialect = Dialect::from(handshake.revision());
        let (state, ready) = (
            Mutex::default(),
            watch::Sender::new(dialect == Dialect::Five),
        );
        let connection = Arc::new(Self {
            outbox,
            handshake: Arc::new(handshake),
            limits,
            owner,
            dialect,
            ready,
            state,
        });
        let (weak, limit) = (
            Arc::downgrade(&connection),
            connection.limits.config.connect_timeout,
        );
        connection.state().connect_timer = Some(Timer::spawn(connect_timeout(weak, limit)));
        connection
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the client's sockets in turn, the one behind the last that had something first. The
    /// application is not called under the lock.
    pub(super) fn poll_sockets<T>(&self, mut poll: impl FnMut(&Socket) -> Poll<T>) -> Poll<T> {
        let (turn, count) = {
            let state = self.state();
            (state.turn, state.namespaces.joined().count())
        };
        for place in (0..count).map(|place| turn.wrapping_add(place) % count) {
            let Some(socket) = self.state().namespaces.joined().nth(place).cloned() else {
                continue;
            };
            if let Poll::Ready(found) = poll(&socket) {
                self.state().turn = place.wrapping_add(1);
                return Poll::Ready(found);
            }
        }
        Poll::Pending
    }

    /// Whether any of the client's sockets says so.
    pub(super) fn any_socket(&self, mut says: impl FnMut(&Socket) -> bool) -> bool {
        let said = self.poll_sockets(|socket| match says(socket) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        said.is_ready()
    }

    /// The session asks for what there is to send.
    pub(super) fn wake(&self) {
        self.outbox.wake();
    }

    /// The CONNECT to `/` that a client of revision 4 does not send.
    pub(super) fn unasked(&self) -> Option<ConnectRequest> {
        match self.dialect {
            Dialect::Four => self
                .begin(&mut self.state(), "/", self.dialect.auth(None, None))
                .ok(),
            Dialect::Five => None,
        }
    }

    fn begin(
        &self,
        state: &mut State,
        namespace: &str,
        auth: Box<RawValue>,
    ) -> Result<ConnectRequest, StateError> {
        let namespace = state
            .namespaces
            .begin(namespace, self.limits.config.max_namespaces)?;
        Ok(ConnectRequest {
            namespace,
            auth,
            handshake: self.handshake.clone(),
        })
    }

    /// Runs what lets a client of revision 4 into `/`, and only then looks at its messages. Ends
    /// with the connection.
    pub(super) fn first(self: &Arc<Self>, admission: impl Future<Output = ()> + Send + 'static) {
        struct Ready(Arc<Connection>);
        impl Drop for Ready {
            fn drop(&mut self) {
                self.0.ready.send_replace(true);
            }
        }
        let ready = Ready(self.clone());
        let timer = Timer::spawn(async move {
            let _ready = ready;
            admission.await;
        });
        self.state().unasked = Some(timer);
    }

    pub(super) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    pub(super) async fn ready(&self) {
        // The sender lives in `self`.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Takes the next message. After an `Err` the connection is to be closed with
    /// [`Connection::fail`].
    pub(super) fn take(self: &Arc<Self>, message: Message) -> Result<Step, Violation> {
        if self.outbox.is_closed() {
            return Ok(Step::Nothing);
        }
        match message {
            Message::Text(text) => self.take_text(text.as_str()),
            Message::Binary(bytes) => self.take_binary(bytes),
        }
    }

    fn take_text(self: &Arc<Self>, text: &str) -> Result<Step, Violation> {
        let mut state = self.state();
        if state.incomplete.is_some() {
            return Err(ReassemblyError::TextBetween.into());
        }
        let mut packet = packet::parse(text)?;
        let query;
        (packet.namespace, query) = self.dialect.split(packet.namespace);
        if packet.attachments == 0 {
            return self.accept(&mut state, packet.namespace, query, packet.body, Vec::new());
        }
        // Without this, whoever has joined nothing could make us hold attachments.
        state.namespaces.receiver(packet.namespace)?;
        if text.len() > self.limits.config.max_packet_bytes {
            return Err(ReassemblyError::TooLarge.into());
        }
        let (patience, share) = (
            self.limits.config.attachment_timeout,
            self.limits.budget.share(),
        );
        let timer = Timer::spawn(attachment_timeout(
            Arc::downgrade(self),
            Instant::now() + patience,
            share.clone(),
        ));
        state.incomplete = Some(Incomplete::begin(
            packet,
            text.len(),
            share,
            patience,
            timer,
        )?);
        Ok(Step::Nothing)
    }

    fn take_binary(&self, bytes: Bytes) -> Result<Step, Violation> {
        let mut state = self.state();
        let incomplete = state
            .incomplete
            .as_mut()
            .ok_or(ReassemblyError::NotAnnounced)?;
        incomplete.add(
            bytes,
            self.limits.config.max_packet_bytes,
            self.limits.config.attachment_timeout,
        )?;
        if let Some(incomplete) = state
            .incomplete
            .take_if(|incomplete| incomplete.is_complete())
        {
            let Complete {
                namespace,
                body,
                attachments,
            } = incomplete.finish();
            return self.accept(&mut state, &namespace, None, body, attachments);
        }
        Ok(Step::Nothing)
    }

    fn accept(
        &self,
        state: &mut State,
        namespace: &str,
        query: Option<&str>,
        body: Body,
        attachments: Vec<Bytes>,
    ) -> Result<Step, Violation> {
        Ok(match body {
            Body::Connect(payload) => {
                Step::Authorize(self.begin(state, namespace, self.dialect.auth(payload, query))?)
            }
            Body::Disconnect => match state.namespaces.client_leaves(namespace)? {
                Some(socket) => {
                    socket.leave();
                    Step::Left(socket)
                }
                None => Step::Nothing,
            },
            Body::EmptyEvent => {
                state.namespaces.receiver(namespace)?;
                Step::Nothing
            }
            Body::Event { name, args, id } => match state.namespaces.receiver(namespace)? {
                Some(socket) => {
                    let ack = id.map(|id| Ack::new(socket.clone(), id));
                    Step::Event(
                        socket,
                        Event {
                            name,
                            args,
                            attachments,
                            ack,
                        },
                    )
                }
                None => Step::Nothing,
            },
            Body::Ack { id, args } => {
                if let Some(socket) = state.namespaces.receiver(namespace)? {
                    socket.reply(id, Reply { args, attachments });
                }
                Step::Nothing
            }
        })
    }

    /// The client was admitted: registers it, so that nothing is missed, and stops the connect
    /// timeout. `None` when it has left meanwhile.
    pub(super) fn join(self: &Arc<Self>, identity: Identity) -> Option<Socket> {
        let socket = Socket::new(
            identity,
            self.handshake.clone(),
            self.outbox.clone(),
            Arc::downgrade(self),
        );
        let mut state = self.state();
        if !state.namespaces.join(socket.clone()) {
            return None;
        }
        state.connect_timer = None;
        Some(socket)
    }

    /// Queues the answer to the CONNECT of a client that was registered. False if the connection is
    /// ending.
    pub(super) fn answer(&self, socket: &Socket) -> bool {
        self.queue(self.dialect.answer(socket.identity()))
    }

    /// Takes back the registration of a client that nobody was told of.
    pub(super) fn forget(&self, socket: &Socket) {
        socket.leave();
        self.state().namespaces.forget(socket.namespace());
    }

    /// The application has heard of a new socket to the end; a client that has left meanwhile
    /// leaves now.
    pub(super) fn introduced(&self, socket: &Socket) {
        if let Some(reason) = socket.introduced() {
            self.owner.disconnected(socket, reason);
        }
    }

    fn tell_left(&self, socket: &Socket, reason: DisconnectReason) {
        if socket.has_left(reason) {
            self.owner.disconnected(socket, reason);
        }
    }

    /// The client was refused; other namespaces of the connection go on.
    pub(super) fn refuse(&self, namespace: &str, refusal: &ConnectRefused) {
        self.state().namespaces.forget(namespace);
        self.queue(self.dialect.refusal(namespace, refusal));
    }

    /// Queues a packet that the protocol owes the client; if there is no room for it the client is
    /// lost.
    fn queue(&self, packet: Group) -> bool {
        let sent = self.outbox.try_send(packet);
        if sent == Err(engineio::SendError::Full) {
            self.outbox.close(CloseReason::SlowConsumer);
        }
        sent.is_ok()
    }

    /// The server disconnects one socket.
    pub(super) fn disconnect(&self, socket: &Socket) {
        {
            let mut state = self.state();
            if !state.namespaces.server_disconnects(socket) {
                return;
            }
            socket.leave();
            // Under the lock, or the answer to the client's next CONNECT could come before it.
            self.queue(encode::disconnect(socket.namespace()));
        }
        self.tell_left(socket, DisconnectReason::ServerNamespaceDisconnect);
    }

    /// The server disconnects the client from everything and ends its session.
    pub(super) fn disconnect_all(&self) {
        let joined: Vec<Socket> = self.state().namespaces.joined().cloned().collect();
        for socket in joined {
            self.disconnect(&socket);
        }
        self.outbox.close(CloseReason::ForcedClose);
    }

    /// Closes the connection for something its client did. The application hears of it at once: the
    /// session may last until the client has fetched its goodbye.
    pub(super) fn fail(&self, violation: &Violation) {
        tracing::debug!(peer = ?self.handshake.peer, reason = %violation, "closing a Socket.IO connection");
        let (told, close) = match violation {
            Violation::Parse(_) | Violation::Reassembly(_) => (
                DisconnectReason::Session(CloseReason::ParseError),
                CloseReason::ParseError,
            ),
            Violation::State(_) | Violation::ConnectTimeout | Violation::AuthorizeTimeout => (
                DisconnectReason::ForcedServerClose,
                CloseReason::ForcedClose,
            ),
        };
        self.outbox.close(close);
        self.end(told);
    }

    /// The connection is over: everyone in it leaves. Nothing happens the second time.
    pub(super) fn end(&self, reason: DisconnectReason) {
        let sockets = {
            let mut state = self.state();
            state.incomplete = None;
            state.connect_timer = None;
            state.unasked = None;
            state.namespaces.drain()
        };
        for socket in &sockets {
            socket.leave();
        }
        for socket in &sockets {
            self.tell_left(socket, reason);
        }
    }
}

async fn connect_timeout(connection: Weak<Connection>, limit: std::time::Duration) {
    tokio::time::sleep(limit).await;
    if let Some(connection) = connection.upgrade() {
        connection.fail(&Violation::ConnectTimeout);
    }
}

/// Each part of a packet moves the deadline; the task is stopped when the packet is complete.
async fn attachment_timeout(
    connection: Weak<Connection>,
    mut deadline: Instant,
    share: Arc<Share>,
) {
    let mut why = ReassemblyError::Timeout;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {}
            () = share.refused() => {
                why = ReassemblyError::Overload;
                break;
            }
        }
        let Some(connection) = connection.upgrade() else {
            return;
        };
        match connection
            .state()
            .incomplete
            .as_ref()
            .map(|incomplete| incomplete.deadline)
        {
            Some(later) if later > deadline => deadline = later,
            Some(_) => break,
            None => return,
        }
    }
    if let Some(connection) = connection.upgrade() {
        connection.fail(&why.into());
    }
}

/// 20 characters of base64url: 120 random bits.
pub fn new_id() -> Box<str> {
    let mut bytes = [0; 15];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    URL_SAFE_NO_PAD.encode(bytes).into()
}
