//! Where one client stands in each namespace.
//!
//! ```text
//!            CONNECT            admitted                  client's DISCONNECT
//! (absent) ──────────► Connecting ──────────► Joined ─────────────────────────► (absent)
//!    ▲                     │ refused             │ server's disconnect
//!    └─────────────────────┘                     ▼
//!                                              Left ── CONNECT ──► Connecting
//! ```
//! `Left` exists because packets that the client sent before it learned of the server's disconnect
//! are no fault of its own: they are ignored, where the reference server closes the whole
//! connection with all other namespaces on it.

use std::sync::Arc;

use super::socket::Socket;

/// Why a packet did not fit the state of its namespace; the connection is closed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("CONNECT to a namespace that the client is in or is joining")]
    AlreadyConnected,
    #[error("a packet for a namespace that the client has not joined")]
    NotJoined,
    #[error("the client is in too many namespaces")]
    TooMany,
}

#[derive(Debug)]
enum Membership {
    Connecting,
    Joined(Socket),
    Left,
}

impl Membership {
    fn holds(&self, socket: &Socket) -> bool {
        matches!(self, Self::Joined(joined) if joined.key() == socket.key())
    }
}

/// A client's namespaces: few, so a list.
#[derive(Debug, Default)]
pub struct Namespaces {
    memberships: Vec<(Arc<str>, Membership)>,
}

impl Namespaces {
    /// Those that the client is in.
    pub fn joined(&self) -> impl Iterator<Item = &Socket> {
        self.memberships
            .iter()
            .filter_map(|(_, membership)| match membership {
                Membership::Joined(socket) => Some(socket),
                Membership::Connecting | Membership::Left => None,
            })
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.memberships
            .iter()
            .position(|(membership, _)| &**membership == name)
    }

    fn membership(&mut self, name: &str) -> Option<&mut Membership> {
        self.memberships
            .iter_mut()
            .find(|(membership, _)| &**membership == name)
            .map(|(_, membership)| membership)
    }

    /// CONNECT came. Returns the shared name.
    pub fn begin(&mut self, name: &str, limit: usize) -> Result<Arc<str>, StateError> {
        if let Some(at) = self.position(name) {
            if !matches!(self.memberships.get(at), Some((_, Membership::Left))) {
                return Err(StateError::AlreadyConnected);
            }
            self.memberships.swap_remove(at);
        }
        if self.memberships.len() >= limit {
            // Namespaces left long ago give way.
            self.memberships
                .retain(|(_, membership)| !matches!(membership, Membership::Left));
        }
        if self.memberships.len() >= limit {
            return Err(StateError::TooMany);
        }
        if self.memberships.is_empty() {
            // Nearly every client is in one.
            self.memberships.reserve_exact(1);
        }
        let name: Arc<str> = name.into();
        self.memberships
            .push((name.clone(), Membership::Connecting));
        Ok(name)
    }

    /// The client was admitted; false when it is not connecting (any more).
    pub fn join(&mut self, socket: Socket) -> bool {
        match self.membership(socket.namespace()) {
            Some(membership @ Membership::Connecting) => {
                *membership = Membership::Joined(socket);
                true
            }
            _ => false,
        }
    }

    /// The CONNECT was refused, or its answer could not be sent.
    pub fn forget(&mut self, name: &str) {
        self.memberships
            .retain(|(membership, _)| &**membership != name);
    }

    /// Who gets a packet for this namespace; nobody if the server has disconnected the client from
    /// it.
    pub fn receiver(&mut self, name: &str) -> Result<Option<Socket>, StateError> {
        match self.membership(name) {
            Some(Membership::Joined(socket)) => Ok(Some(socket.clone())),
            Some(Membership::Left) => Ok(None),
            Some(Membership::Connecting) | None => Err(StateError::NotJoined),
        }
    }

    /// The client's DISCONNECT.
    pub fn client_leaves(&mut self, name: &str) -> Result<Option<Socket>, StateError> {
        let socket = self.receiver(name)?;
        self.forget(name);
        Ok(socket)
    }

    /// The server's disconnect of one socket; false if it is not there any more.
    pub fn server_disconnects(&mut self, socket: &Socket) -> bool {
        match self
            .membership(socket.namespace())
            .filter(|membership| membership.holds(socket))
        {
            Some(membership) => {
                *membership = Membership::Left;
                true
            }
            None => false,
        }
    }

    /// The connection ended: who was joined.
    pub fn drain(&mut self) -> Vec<Socket> {
        let joined: Vec<Socket> = self.joined().cloned().collect();
        self.memberships = Vec::new();
        joined
    }
}
