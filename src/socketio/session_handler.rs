//! Socket.IO as the layer above Engine.IO sessions.

use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Instant;

use super::config::LayerConfig;
use super::connect::{ConnectRequest, DisconnectReason};
use super::connection::{Action, Connection, DisconnectListener, Limits, Violation};
use super::encode::Encoded;
use super::handler::Handler;
use super::socket::{Disconnect, Socket};
use crate::engineio::{
    self, ByteBudget, CloseReason, Handshake, Message, MessageGroup, Outbox, Work,
};

/// Gives an application ([`Handler`]) the Socket.IO clients of an Engine.IO service.
pub struct SocketIoHandler<H> {
    shared: Arc<Shared<H>>,
}

struct Shared<H> {
    handler: H,
    /// Of each connection that opens.
    limits: RwLock<Arc<Limits>>,
}

impl<H> Shared<H> {
    fn limits(&self) -> Arc<Limits> {
        let limits = self.limits.read();
        limits.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<H: Handler> SocketIoHandler<H> {
    pub fn new(config: LayerConfig, handler: H) -> Self {
        let budget = ByteBudget::new(config.max_incomplete_bytes);
        Self {
            shared: Arc::new(Shared {
                handler,
                limits: RwLock::new(Arc::new(Limits { config, budget })),
            }),
        }
    }

    /// Takes over another configuration but for `max_incomplete_bytes`. Connections that are open
    /// stay as they are.
    pub fn set_limits(&self, config: LayerConfig) {
        let budget = self.shared.limits().budget.clone();
        let limits = &self.shared.limits;
        *limits.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(Limits { config, budget });
    }
}

#[cfg(test)]
impl<H> SocketIoHandler<H> {
    pub fn budget(&self) -> Arc<ByteBudget> {
        self.shared.limits().budget.clone()
    }
}

impl<H> Clone for SocketIoHandler<H> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<H: Handler> DisconnectListener for Shared<H> {
    fn disconnected(&self, socket: &Socket, reason: DisconnectReason) {
        self.handler.disconnected(socket, reason);
    }
}

/// Held while the application's `connected` runs. When that is over, even by a panic, the socket
/// counts as announced.
struct AnnounceGuard<'a> {
    connection: &'a Connection,
    socket: &'a Socket,
}

impl Drop for AnnounceGuard<'_> {
    fn drop(&mut self) {
        self.connection.connect_announced(self.socket);
    }
}

impl<H: Handler> Shared<H> {
    /// The answer to a CONNECT. Bounded, because the session reads nothing from its client
    /// meanwhile.
    async fn connect(self: Arc<Self>, connection: Arc<Connection>, request: ConnectRequest) {
        let decision = self.handler.authorize(request.clone());
        let Ok(decision) =
            tokio::time::timeout(self.limits().config.connect_timeout, decision).await
        else {
            return connection.fail(&Violation::AuthorizeTimeout);
        };
        match decision {
            Ok(admitted) => self.admit(&connection, &request, admitted),
            Err(refusal) => connection.refuse(&request.namespace, &refusal),
        }
    }

    fn admit(&self, connection: &Arc<Connection>, request: &ConnectRequest, admitted: H::Admitted) {
        let Some(socket) = connection.join(request.namespace.clone()) else {
            return;
        };
        if !connection.answer(&socket) {
            return connection.forget(&socket);
        }
        let _announcement = AnnounceGuard {
            connection,
            socket: &socket,
        };
        self.handler.connected(&socket, request, admitted);
        // A client of revision 4 is let in beside its session, which may have asked before.
        connection.wake();
    }
}

impl<H: Handler> Shared<H> {
    fn message(self: &Arc<Self>, connection: &Arc<Connection>, message: Message) -> Option<Work> {
        match connection.take(message) {
            Ok(Action::Nothing) => None,
            Ok(Action::Authorize(request)) => {
                Some(Box::pin(self.clone().connect(connection.clone(), request)))
            }
            Ok(Action::Event(socket, event)) => self.handler.event(&socket, event),
            Ok(Action::Left(socket)) => {
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

impl<H: Handler> engineio::Handler for SocketIoHandler<H> {
    type Session = Connection;

    fn open(&self, outbox: Outbox, handshake: Handshake) -> Arc<Connection> {
        if self.shared.handler.asks_who() {
            outbox.small_until_let_in();
        }
        let connection =
            Connection::open(outbox, handshake, self.shared.limits(), self.shared.clone());
        if let Some(request) = connection.implicit_connect() {
            let connect = self.shared.clone().connect(connection.clone(), request);
            connection.run_implicit_connect(connect);
        }
        connection
    }

    fn message(&self, connection: &Arc<Connection>, message: Message) -> Option<Work> {
        let Some(over) = connection.implicit_connect_under_way() else {
            return self.shared.message(connection, message);
        };
        let (shared, connection) = (self.shared.clone(), connection.clone());
        Some(Box::pin(async move {
            over.await;
            if let Some(work) = shared.message(&connection, message) {
                work.await;
            }
        }))
    }

    fn poll_next(&self, connection: &Arc<Connection>, cx: &mut Context<'_>) -> Poll<MessageGroup> {
        let handler = &self.shared.handler;
        let packet = connection.poll_sockets(|socket| handler.poll_next(socket, cx));
        packet.map(Encoded::into_group)
    }

    fn is_full(&self, connection: &Arc<Connection>) -> bool {
        connection.any_socket(|socket| self.shared.handler.is_full(socket))
    }

    fn deadline(&self, connection: &Arc<Connection>) -> Option<Instant> {
        connection.deadline()
    }

    fn tick(&self, connection: &Arc<Connection>, now: Instant) {
        connection.tick(now);
    }

    fn poll_end(&self, connection: &Arc<Connection>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        // Each is asked, because each has to know the waker.
        let mut is_wanted = true;
        connection.any_socket(|socket| {
            if let Poll::Ready(last) = self.shared.handler.poll_end(socket, cx) {
                is_wanted = false;
                // It may have no room for it.
                let _ = socket.send(&last);
            }
            false
        });
        if is_wanted {
            return Poll::Pending;
        }
        connection.disconnect_all();
        Poll::Ready(CloseReason::ForcedClose)
    }

    fn close(&self, connection: &Arc<Connection>, reason: CloseReason) {
        connection.end(DisconnectReason::Session(reason));
    }
}
