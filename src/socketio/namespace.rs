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
enum Slot {
    Connecting,
    Joined(Socket),
    Left,
}

impl Slot {
    fn holds(&self, socket: &Socket) -> bool {
        matches!(self, Self::Joined(joined) if joined.key() == socket.key())
    }
}

/// A client's namespaces: few, so a list.
#[derive(Debug, Default)]
pub struct Namespaces {
    slots: Vec<(Arc<str>, Slot)>,
}

impl Namespaces {
    /// Those that the client is in.
    pub fn joined(&self) -> impl Iterator<Item = &Socket> {
        self.slots.iter().filter_map(|(_, slot)| match slot {
            Slot::Joined(socket) => Some(socket),
            Slot::Connecting | Slot::Left => None,
        })
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.slots.iter().position(|(slot, _)| &**slot == name)
    }

    fn slot(&mut self, name: &str) -> Option<&mut Slot> {
        self.slots
            .iter_mut()
            .find(|(slot, _)| &**slot == name)
            .map(|(_, slot)| slot)
    }

    /// CONNECT came. Returns the shared name.
    pub fn begin(&mut self, name: &str, limit: usize) -> Result<Arc<str>, StateError> {
        if let Some(at) = self.position(name) {
            if !matches!(self.slots.get(at), Some((_, Slot::Left))) {
                return Err(StateError::AlreadyConnected);
            }
            self.slots.swap_remove(at);
        }
        if self.slots.len() >= limit {
            // Namespaces left long ago give way.
            self.slots.retain(|(_, slot)| !matches!(slot, Slot::Left));
        }
        if self.slots.len() >= limit {
            return Err(StateError::TooMany);
        }
        let name: Arc<str> = name.into();
        self.slots.push((name.clone(), Slot::Connecting));
        Ok(name)
    }

    /// The client was admitted; false when it is not connecting (any more).
    pub fn join(&mut self, socket: Socket) -> bool {
        match self.slot(socket.namespace()) {
            Some(slot @ Slot::Connecting) => {
                *slot = Slot::Joined(socket);
                true
            }
            _ => false,
        }
    }

    /// The CONNECT was refused, or its answer could not be sent.
    pub fn forget(&mut self, name: &str) {
        self.slots.retain(|(slot, _)| &**slot != name);
    }

    /// Who gets a packet for this namespace; nobody if the server has disconnected the client from
    /// it.
    pub fn receiver(&mut self, name: &str) -> Result<Option<Socket>, StateError> {
        match self.slot(name) {
            Some(Slot::Joined(socket)) => Ok(Some(socket.clone())),
            Some(Slot::Left) => Ok(None),
            Some(Slot::Connecting) | None => Err(StateError::NotJoined),
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
            .slot(socket.namespace())
            .filter(|slot| slot.holds(socket))
        {
            Some(slot) => {
                *slot = Slot::Left;
                true
            }
            None => false,
        }
    }

    /// The connection ended: who was joined.
    pub fn drain(&mut self) -> Vec<Socket> {
        let joined: Vec<Socket> = self.joined().cloned().collect();
        self.slots = Vec::new();
        joined
    }
}
