//! The seam upward: what an application sees of its Socket.IO clients.

use std::future::Future;
use std::task::{Context, Poll};

use bytes::Bytes;
use serde_json::value::RawValue;

use super::connect::{ConnectRefused, ConnectRequest, DisconnectReason};
use super::encode::Encoded;
use super::socket::{Ack, Socket};
use crate::engineio::Work;

/// One event from a client.
#[derive(Debug)]
pub struct Event {
    pub name: String,
    /// The arguments after the name. Binary ones are `{"_placeholder":true,"num":i}`, `i` an index
    /// into `attachments` (checked).
    pub args: Vec<Box<RawValue>>,
    pub attachments: Vec<Bytes>,
    /// Present when the client asked for an acknowledgement.
    pub ack: Option<Ack>,
}

/// The application. One socket's calls come one at a time and in the order of its packets, from the
/// task of its session. Only `disconnected` may come from elsewhere and beside `event`, for example
/// from within [`Socket::disconnect`]; it comes after `connected` has returned.
pub trait Handler: Send + Sync + 'static {
    /// What is known of a client that was admitted.
    type Admitted: Send;

    /// Whether a client that opens a session now has to say who it is. Then it is held to packets
    /// of 4 KiB until it has joined a namespace: strangers take no room of those who are known.
    fn asks_who(&self) -> bool {
        false
    }

    /// Admits a client to a namespace or refuses it. An unknown namespace is refused with the
    /// message `Invalid namespace`. The connection is closed when this takes longer than the
    /// connect timeout.
    fn authorize(
        &self,
        request: ConnectRequest,
    ) -> impl Future<Output = Result<Self::Admitted, ConnectRefused>> + Send;

    /// The client was admitted and its CONNECT answer is queued: what is emitted here comes right
    /// behind it.
    fn connected(&self, socket: &Socket, request: &ConnectRequest, admitted: Self::Admitted);

    /// An event came. Returned work is finished before the next packet of this client is looked at,
    /// so it must end by itself.
    fn event(&self, socket: &Socket, event: Event) -> Option<Work>;

    /// What the application wants to send to this socket beside what it emits, pulled: asked for
    /// when the connection's transport can take something and none of the client's packets is in
    /// work. Pending: the waker was registered, and is woken when there may be something. Must be
    /// quick and must not block. The sockets of a connection are asked in turn.
    fn poll_next(&self, _socket: &Socket, _cx: &mut Context<'_>) -> Poll<Encoded> {
        Poll::Pending
    }

    /// So much waits in [`Handler::poll_next`] that no further packet of this client is taken;
    /// asked again after each pull.
    fn is_full(&self, _socket: &Socket) -> bool {
        false
    }

    /// Ready when this client is wanted no more, with the last event that it is told, if its
    /// transport still takes one: all its namespaces are left, and its session ends at once,
    /// whatever its transport or work that [`Handler::event`] returned does; that is dropped.
    /// Pending: the waker was registered. Must be quick and must not block.
    fn poll_end(&self, _socket: &Socket, _cx: &mut Context<'_>) -> Poll<Encoded> {
        Poll::Pending
    }

    /// The client left the namespace; called exactly once for each `connected`. Nothing can be sent
    /// to it any more.
    fn disconnected(&self, socket: &Socket, reason: DisconnectReason);
}
