//! Socket.IO as the layer above Engine.IO sessions.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::config::LayerConfig;
use super::connection::{Connection, Limits, Owner, Step, Violation, new_id};
use super::handler::{ConnectRequest, DisconnectReason, Handler};
use super::reassembly::Budget;
use super::socket::{Identity, Socket};
use crate::engineio::{self, CloseReason, Group, Handshake, Message, Outbox, Work};

/// Gives an application ([`Handler`]) the Socket.IO clients of an Engine.IO service.
pub struct Layer<H> {
    shared: Arc<Shared<H>>,
}

struct Shared<H> {
    handler: H,
    limits: Arc<Limits>,
}

impl<H: Handler> Layer<H> {
    pub fn new(config: LayerConfig, handler: H) -> Self {
        let budget = Arc::new(Budget::new(config.max_incomplete_bytes));
        Self {
            shared: Arc::new(Shared {
                handler,
                limits: Arc::new(Limits { config, budget }),
            }),
        }
    }
}

#[cfg(test)]
impl<H> Layer<H> {
    pub fn budget(&self) -> &Budget {
        &self.shared.limits.budget
    }
}

impl<H> Clone for Layer<H> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<H: Handler> Owner for Shared<H> {
    fn disconnected(&self, socket: &Socket, reason: DisconnectReason) {
        self.handler.disconnected(socket, reason);
    }
}

/// The application is hearing of a socket. When that is over, even by a panic or because the client
/// is lost, the socket counts as known.
struct Introduction<'a> {
    connection: &'a Connection,
    socket: &'a Socket,
}

impl<'a> Introduction<'a> {
    fn begin(connection: &'a Connection, socket: &'a Socket) -> Self {
        Self { connection, socket }
    }
}

impl Drop for Introduction<'_> {
    fn drop(&mut self) {
        self.connection.introduced(self.socket);
    }
}

impl<H: Handler> Shared<H> {
    /// The answer to a CONNECT. Bounded, because the session reads nothing from its client
    /// meanwhile.
    async fn connect(self: Arc<Self>, connection: Arc<Connection>, request: ConnectRequest) {
        let decision = self.handler.authorize(request.clone());
        let Ok(decision) = tokio::time::timeout(self.limits.config.connect_timeout, decision).await
        else {
            return connection.fail(&Violation::AuthorizeTimeout);
        };
        match decision {
            Ok(()) => self.admit(&connection, &request).await,
            Err(refusal) => connection.refuse(&request.namespace, &refusal),
        }
    }

    async fn admit(&self, connection: &Arc<Connection>, request: &ConnectRequest) {
        let identity = Identity {
            id: new_id(),
            namespace: request.namespace.clone(),
        };
        let Some(socket) = connection.join(identity) else {
            return;
        };
        if !connection.answer(&socket) {
            return connection.forget(&socket);
        }
        let _introduction = Introduction::begin(connection, &socket);
        self.handler.connected(&socket, request);
        // A client of revision 4 is let in beside its session, which may have asked before.
        connection.wake();
    }
}

impl<H: Handler> Shared<H> {
    fn message(self: &Arc<Self>, connection: &Arc<Connection>, message: Message) -> Option<Work> {
        match connection.take(message) {
            Ok(Step::Nothing) => None,
            Ok(Step::Authorize(request)) => {
                Some(Box::pin(self.clone().connect(connection.clone(), request)))
            }
            Ok(Step::Event(socket, event)) => self.handler.event(&socket, event),
            Ok(Step::Left(socket)) => {
                self.disconnected(&socket, DisconnectReason::ClientNamespaceDisconnect);
                None
            }
            Err(violation) => {
                connection.fail(&violation);
                None
            }
        }
    }
}

impl<H: Handler> engineio::Handler for Layer<H> {
    type Session = Connection;

    fn open(&self, outbox: Outbox, handshake: Handshake) -> Arc<Connection> {
        let connection = Connection::open(
            outbox,
            handshake,
            self.shared.limits.clone(),
            self.shared.clone(),
        );
        if let Some(request) = connection.unasked() {
            connection.first(self.shared.clone().connect(connection.clone(), request));
        }
        connection
    }

    fn message(&self, connection: &Arc<Connection>, message: Message) -> Option<Work> {
        if connection.is_ready() {
            return self.shared.message(connection, message);
        }
        let (shared, connection) = (self.shared.clone(), connection.clone());
        Some(Box::pin(async move {
            connection.ready().await;
            if let Some(work) = shared.message(&connection, message) {
                work.await;
            }
        }))
    }

    fn poll_next(&self, connection: &Arc<Connection>, cx: &mut Context<'_>) -> Poll<Group> {
        let handler = &self.shared.handler;
        let packet = connection.poll_sockets(|socket| handler.poll_next(socket, cx));
        packet.map(|packet| packet.group().clone())
    }

    fn is_full(&self, connection: &Arc<Connection>) -> bool {
        connection.any_socket(|socket| self.shared.handler.is_full(socket))
    }

    fn close(&self, connection: &Arc<Connection>, reason: CloseReason) {
        connection.end(DisconnectReason::Session(reason));
    }
}
