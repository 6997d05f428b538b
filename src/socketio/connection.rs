//! One client's session as Socket.IO sees it: which namespaces it is in, and what each of its
//! messages means.
//!
//! The state sits behind a lock that is held for a few lines, never while the application or an
//! `.await` runs: besides the session's own task, the application may disconnect a socket at any
//! time from anywhere.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::config::LayerConfig;
use super::connect::{ConnectRefused, ConnectRequest, DisconnectReason};
use super::encode;
use super::handler::Event;
use super::namespace::{Namespaces, StateError};
use super::packet::{self, PacketBody, ParseError};
use super::reassembly::{Complete, Incomplete, ReassemblyError};
use super::revision::ProtocolRevision;
use super::revision_4::ImplicitConnect;
use super::socket::{Ack, Disconnect, Socket};
use crate::engineio::{self, ByteBudget, CloseReason, Handshake, Message, MessageGroup, Outbox};

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
pub enum Action {
    Nothing,
    Authorize(ConnectRequest),
    Event(Socket, Event),
    Left(Socket),
}

/// Who hears of sockets that the server disconnects.
pub trait DisconnectListener: Send + Sync + 'static {
    fn disconnected(&self, socket: &Socket, reason: DisconnectReason);
}

/// What all connections of a layer share.
#[derive(Debug)]
pub struct Limits {
    pub config: LayerConfig,
    pub budget: Arc<ByteBudget>,
}

/// The state of one client.
pub struct Connection {
    outbox: Outbox,
    handshake: Arc<Handshake>,
    limits: Arc<Limits>,
    listener: Arc<dyn DisconnectListener>,
    revision: ProtocolRevision,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    namespaces: Namespaces,
    incomplete: Option<Box<Incomplete>>,
    /// Which socket is asked next for something to send.
    turn: usize,
    /// While the client is in no namespace: when it must have joined one.
    connect_by: Option<Instant>,
    /// Of a client of revision 4.
    implicit_connect: Option<ImplicitConnect>,
}

impl State {
    /// A client has left a namespace.
    fn left(&mut self, limits: &Limits) {
        if self.namespaces.joined().next().is_none() {
            self.connect_by = Some(now() + limits.config.connect_timeout);
        }
    }
}

impl Connection {
    pub(super) fn open(
        outbox: Outbox,
        handshake: Handshake,
        limits: Arc<Limits>,
        listener: Arc<dyn DisconnectListener>,
    ) -> Arc<Self> {
        let revision = ProtocolRevision::from(handshake.revision());
        let connect_by = Some(now() + limits.config.connect_timeout);
        Arc::new(Self {
            outbox,
            handshake: Arc::new(handshake),
            limits,
            listener,
            revision,
            state: Mutex::new(State {
                connect_by,
                ..State::default()
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the client's sockets in turn, first the one behind the last that had something. The
    /// application is not called under the lock.
    pub(super) fn poll_sockets<T>(&self, mut poll: impl FnMut(&Socket) -> Poll<T>) -> Poll<T> {
        let (turn, count, first) = {
            let state = self.state();
            let mut joined = state.namespaces.joined();
            let first = joined.next().cloned();
            (state.turn, joined.count().saturating_add(1), first)
        };
        // Nearly every client is in one namespace.
        match first {
            None => return Poll::Pending,
            Some(only) if count == 1 => return poll(&only),
            Some(_) => {}
        }
        for place in (0..count).map(|place| turn.wrapping_add(place) % count) {
            if let Some(socket) = self.joined_at(place)
                && let Poll::Ready(found) = poll(&socket)
            {
                self.state().turn = place.wrapping_add(1);
                return Poll::Ready(found);
            }
        }
        Poll::Pending
    }

    fn joined_at(&self, place: usize) -> Option<Socket> {
        self.state().namespaces.joined().nth(place).cloned()
    }

    /// Whether any of the client's sockets says so. Moves no turn: a socket that is full would
    /// otherwise be passed over until it is not.
    pub(super) fn any_socket(&self, mut says: impl FnMut(&Socket) -> bool) -> bool {
        (0..)
            .map_while(|place| self.joined_at(place))
            .any(|socket| says(&socket))
    }

    /// The session asks for what there is to send.
    pub(super) fn wake(&self) {
        self.outbox.wake();
    }

    /// The CONNECT to `/` that a client of revision 4 does not send.
    pub(super) fn implicit_connect(&self) -> Option<ConnectRequest> {
        match self.revision {
            ProtocolRevision::Four => self
                .begin(&mut self.state(), "/", self.revision.auth(None, None))
                .ok(),
            ProtocolRevision::Five => None,
        }
    }

    pub(super) fn run_implicit_connect(&self, connect: impl Future<Output = ()> + Send + 'static) {
        self.state().implicit_connect = Some(ImplicitConnect::run(connect));
    }

    /// Waits for the end of the implicit connect, if there is one that is not over.
    pub(super) fn implicit_connect_under_way(
        &self,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        match self.revision {
            ProtocolRevision::Four => self.state().implicit_connect.as_ref()?.under_way(),
            ProtocolRevision::Five => None,
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

    /// Takes the next message. After an `Err` the connection is to be closed with
    /// [`Connection::fail`].
    pub(super) fn take(&self, message: Message) -> Result<Action, Violation> {
        if self.outbox.is_closed() {
            return Ok(Action::Nothing);
        }
        match message {
            Message::Text(text) => self.take_text(text.as_str()),
            Message::Binary(bytes) => self.take_binary(bytes),
        }
    }

    fn take_text(&self, text: &str) -> Result<Action, Violation> {
        let mut state = self.state();
        if state.incomplete.is_some() {
            return Err(ReassemblyError::TextBetween.into());
        }
        let mut packet = packet::parse(text)?;
        let query;
        (packet.namespace, query) = self.revision.split(packet.namespace);
        if packet.attachments == 0 {
            return self.accept(&mut state, packet.namespace, query, packet.body, Vec::new());
        }
        // Without this, whoever has joined nothing could make us hold attachments.
        state.namespaces.receiver(packet.namespace)?;
        if text.len() > self.limits.config.max_packet_bytes {
            return Err(ReassemblyError::TooLarge.into());
        }
        let deadline = now() + self.limits.config.attachment_timeout;
        let budget = self.limits.budget.clone();
        let incomplete = Incomplete::begin(packet, text.len(), budget, deadline)?;
        state.incomplete = Some(Box::new(incomplete));
        Ok(Action::Nothing)
    }

    fn take_binary(&self, bytes: Bytes) -> Result<Action, Violation> {
        let mut state = self.state();
        let incomplete = state
            .incomplete
            .as_mut()
            .ok_or(ReassemblyError::NotAnnounced)?;
        let bytes = match self.limits.config.keep_attachments {
            true => bytes,
            false => Bytes::new(),
        };
        incomplete.add(bytes, self.limits.config.max_packet_bytes)?;
        if let Some(incomplete) = state
            .incomplete
            .take_if(|incomplete| incomplete.is_complete())
        {
            let Complete {
                namespace,
                body,
                attachments,
            } = incomplete.complete;
            return self.accept(&mut state, &namespace, None, body, attachments);
        }
        Ok(Action::Nothing)
    }

    fn accept(
        &self,
        state: &mut State,
        namespace: &str,
        query: Option<&str>,
        body: PacketBody,
        attachments: Vec<Bytes>,
    ) -> Result<Action, Violation> {
        Ok(match body {
            PacketBody::Connect(payload) => Action::Authorize(self.begin(
                state,
                namespace,
                self.revision.auth(payload, query),
            )?),
            PacketBody::Disconnect => match state.namespaces.client_leaves(namespace)? {
                Some(socket) => {
                    socket.leave();
                    state.left(&self.limits);
                    Action::Left(socket)
                }
                None => Action::Nothing,
            },
            PacketBody::Event { name, args, id } => match state.namespaces.receiver(namespace)? {
                Some(socket) => {
                    let ack = id.map(|id| Ack::new(socket.clone(), id));
                    Action::Event(
                        socket,
                        Event {
                            name,
                            args,
                            attachments,
                            ack,
                        },
                    )
                }
                None => Action::Nothing,
            },
            PacketBody::EmptyEvent | PacketBody::Ack => {
                state.namespaces.receiver(namespace)?;
                Action::Nothing
            }
        })
    }

    /// When [`Self::tick`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let state = self.state();
        let incomplete = state.incomplete.as_ref();
        let attachments = incomplete.map(|incomplete| incomplete.deadline);
        state.connect_by.into_iter().chain(attachments).min()
    }

    /// Closes the connection for what has not come in time.
    pub(super) fn tick(&self, now: Instant) {
        let state = self.state();
        if state.connect_by.is_some_and(|by| by <= now) {
            drop(state);
            return self.fail(&Violation::ConnectTimeout);
        }
        let incomplete = state.incomplete.as_ref();
        if incomplete.is_some_and(|incomplete| incomplete.deadline <= now) {
            drop(state);
            self.fail(&ReassemblyError::Timeout.into());
        }
    }

    /// The client was admitted: registers it, so that nothing is missed, and ends the connect
    /// timeout. `None` when it has left meanwhile.
    pub(super) fn join(self: &Arc<Self>, namespace: Arc<str>) -> Option<Socket> {
        let connection: Weak<Self> = Arc::downgrade(self);
        let socket = Socket::new(
            namespace,
            self.handshake.clone(),
            self.outbox.clone(),
            connection,
        );
        let mut state = self.state();
        if !state.namespaces.join(socket.clone()) {
            return None;
        }
        state.connect_by = None;
        self.outbox.let_in();
        Some(socket)
    }

    /// Queues the answer to the CONNECT of a client that was registered. False if the connection is
    /// ending.
    pub(super) fn answer(&self, socket: &Socket) -> bool {
        self.queue(self.revision.answer(socket.namespace(), socket.id()))
    }

    /// Takes back the registration of a client that nobody was told of.
    pub(super) fn forget(&self, socket: &Socket) {
        socket.leave();
        self.state().namespaces.forget(socket.namespace());
    }

    /// `connected` of the application has returned; a client that has left meanwhile leaves now.
    pub(super) fn connect_announced(&self, socket: &Socket) {
        if let Some(reason) = socket.connect_announced() {
            self.listener.disconnected(socket, reason);
        }
    }

    fn announce_left(&self, socket: &Socket, reason: DisconnectReason) {
        if socket.has_left(reason) {
            self.listener.disconnected(socket, reason);
        }
    }

    /// The client was refused; other namespaces of the connection go on.
    pub(super) fn refuse(&self, namespace: &str, refusal: &ConnectRefused) {
        self.state().namespaces.forget(namespace);
        self.queue(self.revision.refusal(namespace, refusal));
    }

    /// Queues a packet that the protocol owes the client; if there is no room for it the client is
    /// lost.
    fn queue(&self, packet: MessageGroup) -> bool {
        let sent = self.outbox.try_send(packet);
        if sent == Err(engineio::SendError::Full) {
            self.outbox.close(CloseReason::SlowConsumer);
        }
        sent.is_ok()
    }

    /// Closes the connection for something its client did. The application hears of it at once: the
    /// session may last until the client has fetched the close packet.
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
            state.connect_by = None;
            state.implicit_connect = None;
            state.namespaces.drain()
        };
        for socket in &sockets {
            socket.leave();
        }
        for socket in &sockets {
            self.announce_left(socket, reason);
        }
    }
}

impl Disconnect for Connection {
    fn disconnect(&self, socket: &Socket) {
        {
            let mut state = self.state();
            if !state.namespaces.server_disconnects(socket) {
                return;
            }
            socket.leave();
            state.left(&self.limits);
            // Under the lock, or the answer to the client's next CONNECT could come before it.
            self.queue(encode::disconnect(socket.namespace()));
        }
        self.announce_left(socket, DisconnectReason::ServerNamespaceDisconnect);
    }

    fn disconnect_all(&self) {
        let joined: Vec<Socket> = self.state().namespaces.joined().cloned().collect();
        for socket in joined {
            self.disconnect(&socket);
        }
        self.outbox.close(CloseReason::ForcedClose);
    }
}

/// Tokio's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
