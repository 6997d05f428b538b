//! Socket.IO as the layer above Engine.IO sessions.

use std::sync::Arc;

use super::config::LayerConfig;
use super::connection::{Connection, Limits, Owner, Step, Violation};
use super::emit::Socket;
use super::handler::{ConnectRequest, DisconnectReason, Handler};
use super::reassembly::Budget;
use crate::engineio::{self, CloseReason, Handshake, Message, Outbox, Work};

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
        Self { shared: Arc::new(Shared { handler, limits: Arc::new(Limits { config, budget }) }) }
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
        Self { shared: self.shared.clone() }
    }
}

impl<H: Handler> Owner for Shared<H> {
    fn disconnected(&self, socket: &Socket, reason: DisconnectReason) {
        self.handler.disconnected(socket, reason);
    }
}

impl<H: Handler> Shared<H> {
    /// The answer to a CONNECT. The socket is registered before its answer is queued, so that nothing is missed in between.
    /// Bounded, because the session reads nothing from its client meanwhile.
    async fn connect(self: Arc<Self>, connection: Arc<Connection>, request: ConnectRequest) {
        let decision = self.handler.authorize(request.clone());
        let Ok(decision) = tokio::time::timeout(self.limits.config.connect_timeout, decision).await else {
            return connection.fail(&Violation::AuthorizeTimeout);
        };
        match decision {
            Ok(()) => {
                if let Some(socket) = connection.join(&request.namespace) {
                    self.handler.connected(&socket, &request);
                }
            }
            Err(refusal) => connection.refuse(&request.namespace, &refusal),
        }
    }
}

impl<H: Handler> engineio::Handler for Layer<H> {
    type Session = Connection;

    fn open(&self, outbox: Outbox, handshake: Handshake) -> Arc<Connection> {
        Connection::open(outbox, handshake, self.shared.limits.clone(), self.shared.clone())
    }

    fn message(&self, connection: &Arc<Connection>, message: Message) -> Option<Work> {
        match connection.take(message) {
            Ok(Step::Nothing) => None,
            Ok(Step::Authorize(request)) => Some(Box::pin(self.shared.clone().connect(connection.clone(), request))),
            Ok(Step::Event(socket, event)) => self.shared.handler.event(&socket, event),
            Ok(Step::Left(socket)) => {
                self.shared.handler.disconnected(&socket, DisconnectReason::ClientNamespaceDisconnect);
                None
            }
            Err(violation) => {
                connection.fail(&violation);
                None
            }
        }
    }

    fn close(&self, connection: &Arc<Connection>, reason: CloseReason) {
        connection.end(DisconnectReason::Session(reason));
    }
}
