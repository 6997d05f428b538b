//! What goes to clients: events, acknowledgements, and the handle they are sent through.
//!
//! Sending never waits: it queues, or says at once that it cannot. An [`Encoded`] event is built once and its bytes are shared by
//! all clients it goes to.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connection::Connection;
use super::json::{self, JsonError};
use super::packet::{self, Kind, MAX_ATTACHMENTS};
use crate::engineio::{self, CloseReason, Group, Handshake, Message, Outbox, Text};

/// Why something cannot be written as a packet.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("the data cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the event name {0:?} is reserved by the client libraries")]
    Reserved(String),
    #[error("{0} attachments, and clients accept at most {MAX_ATTACHMENTS}")]
    Attachments(usize),
    #[error(transparent)]
    Placeholder(#[from] JsonError),
}

/// Why something was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("the client's queue is full: it reads too slowly")]
    Full,
    #[error("the client has left")]
    Closed,
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl From<engineio::SendError> for SendError {
    fn from(error: engineio::SendError) -> Self {
        match error {
            engineio::SendError::Full => Self::Full,
            engineio::SendError::Closed => Self::Closed,
        }
    }
}

/// Why there is no answer to an event that asked for one.
#[derive(Debug, thiserror::Error)]
pub enum AckError {
    #[error("the client did not answer in time")]
    Timeout,
    #[error("the client left before it answered")]
    Disconnected,
    #[error(transparent)]
    Send(#[from] SendError),
}

/// A packet in its final form for one namespace. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Encoded(Group);

impl Encoded {
    /// An event with one argument.
    pub fn event<T: Serialize + ?Sized>(namespace: &str, name: &str, data: &T) -> Result<Self, EncodeError> {
        event(namespace, None, name, |text| push_argument(text, data), &[])
    }

    /// An event with one argument that is JSON already.
    pub fn event_raw(namespace: &str, name: &str, json: &str) -> Result<Self, EncodeError> {
        let raw: &RawValue = serde_json::from_str(json)?;
        let push = |text: &mut String| {
            text.push(',');
            text.push_str(raw.get());
            Ok(())
        };
        event(namespace, None, name, push, &[])
    }

    /// An event with any number of arguments, in which each [`Placeholder`] stands for one of the attachments.
    pub fn event_with(namespace: &str, name: &str, args: &[Box<RawValue>], attachments: &[Bytes]) -> Result<Self, EncodeError> {
        let push = |text: &mut String| {
            for arg in args {
                text.push(',');
                text.push_str(arg.get());
            }
            Ok(())
        };
        event(namespace, None, name, push, attachments)
    }

    pub(super) fn connect(namespace: &str, sid: &str) -> Self {
        Self::text(Text::compose(namespace.len().saturating_add(40), |text| {
            packet::push_head(text, Kind::Connect, 0, namespace, None);
            // The id is base64url, so there is nothing to escape.
            text.push_str("{\"sid\":\"");
            text.push_str(sid);
            text.push_str("\"}");
        }))
    }

    pub(super) fn connect_error(namespace: &str, message: &str, data: Option<&serde_json::Value>) -> Self {
        #[derive(serde::Serialize)]
        struct Refusal<'a> {
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            data: Option<&'a serde_json::Value>,
        }
        Self::text(Text::compose(namespace.len().saturating_add(message.len()).saturating_add(40), |text| {
            packet::push_head(text, Kind::ConnectError, 0, namespace, None);
            packet::push_json(text, &Refusal { message, data }).expect("text and JSON values can be written as JSON");
        }))
    }

    pub(super) fn disconnect(namespace: &str) -> Self {
        let capacity = namespace.len().saturating_add(4);
        Self::text(Text::compose(capacity, |text| packet::push_head(text, Kind::Disconnect, 0, namespace, None)))
    }

    fn text(text: Text) -> Self {
        Self(Group::One(Message::Text(text)))
    }

    /// The header with its attachments, which nothing may come between.
    fn group(text: Text, attachments: &[Bytes]) -> Self {
        if attachments.is_empty() {
            return Self::text(text);
        }
        let header = std::iter::once(Message::Text(text));
        Self(Group::Many(header.chain(attachments.iter().cloned().map(Message::Binary)).collect()))
    }

    pub(super) fn send_to(&self, outbox: &Outbox) -> Result<(), SendError> {
        Ok(outbox.try_send(self.0.clone())?)
    }
}

/// Appends an event's argument, which follows its name or another argument.
fn push_argument<T: Serialize + ?Sized>(text: &mut String, argument: &T) -> Result<(), EncodeError> {
    text.push(',');
    Ok(packet::push_json(text, argument)?)
}

fn event(
    namespace: &str,
    id: Option<u64>,
    name: &str,
    push_args: impl FnOnce(&mut String) -> Result<(), EncodeError>,
    attachments: &[Bytes],
) -> Result<Encoded, EncodeError> {
    if packet::is_reserved(name) {
        return Err(EncodeError::Reserved(name.to_owned()));
    }
    let push = |text: &mut String| {
        packet::push_json(text, name)?;
        push_args(text)
    };
    array_packet(Kind::Event, namespace, id, push, attachments)
}

/// A packet whose payload is an array; `kind` is the one without attachments.
fn array_packet(
    kind: Kind,
    namespace: &str,
    id: Option<u64>,
    push_elements: impl FnOnce(&mut String) -> Result<(), EncodeError>,
    attachments: &[Bytes],
) -> Result<Encoded, EncodeError> {
    if attachments.len() > MAX_ATTACHMENTS {
        return Err(EncodeError::Attachments(attachments.len()));
    }
    let kind = match (kind, attachments.is_empty()) {
        (Kind::Event, false) => Kind::BinaryEvent,
        (Kind::Ack, false) => Kind::BinaryAck,
        (kind, _) => kind,
    };
    let mut outcome = Ok(());
    let text = Text::compose(256, |text| {
        packet::push_head(text, kind, attachments.len(), namespace, id);
        let json_at = text.len();
        text.push('[');
        outcome = push_elements(text).and_then(|()| {
            text.push(']');
            match attachments.is_empty() {
                true => Ok(()),
                false => Ok(json::check(text.as_bytes().get(json_at..).unwrap_or_default(), attachments.len())?),
            }
        });
    });
    outcome.map(|()| Encoded::group(text, attachments))
}

/// Stands in the data for the attachment with this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placeholder(pub usize);

impl Serialize for Placeholder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("_placeholder", &true)?;
        map.serialize_entry("num", &self.0)?;
        map.end()
    }
}

/// A client's answer to an event.
#[derive(Debug)]
pub struct Reply {
    pub args: Vec<Box<RawValue>>,
    pub attachments: Vec<Bytes>,
}

impl Reply {
    /// The argument at `index`, `null` when absent.
    pub fn arg<T: DeserializeOwned>(&self, index: usize) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.args.get(index).map_or("null", |raw| raw.get()))
    }
}

/// One client in one namespace. Cloning is cheap and gives the same client.
#[derive(Clone)]
pub struct Socket(Arc<Inner>);

struct Inner {
    id: Box<str>,
    namespace: Arc<str>,
    handshake: Arc<Handshake>,
    outbox: Outbox,
    connection: Weak<Connection>,
    left: AtomicBool,
    awaited: Mutex<Awaited>,
}

/// Answers that are still to come.
#[derive(Default)]
struct Awaited {
    left: bool,
    last_id: u64,
    replies: HashMap<u64, oneshot::Sender<Reply>>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("id", &self.0.id).field("namespace", &self.0.namespace).finish_non_exhaustive()
    }
}

impl Socket {
    pub(super) fn new(id: String, namespace: Arc<str>, handshake: Arc<Handshake>, outbox: Outbox, connection: Weak<Connection>) -> Self {
        let (left, awaited) = (AtomicBool::new(false), Mutex::default());
        Self(Arc::new(Inner { id: id.into(), namespace, handshake, outbox, connection, left, awaited }))
    }

    /// 20 characters `[A-Za-z0-9_-]`, new for every CONNECT. Not the Engine.IO session id, which is a secret.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    pub fn handshake(&self) -> &Handshake {
        &self.0.handshake
    }

    /// The client has left the namespace or is being closed.
    pub fn is_closed(&self) -> bool {
        self.0.left.load(Ordering::Acquire) || self.0.outbox.is_closed()
    }

    /// Bytes that wait to be sent on this client's session, over all its namespaces.
    pub fn queued_bytes(&self) -> usize {
        self.0.outbox.queued_bytes()
    }

    /// Queues an event with one argument.
    pub fn emit<T: Serialize + ?Sized>(&self, name: &str, data: &T) -> Result<(), SendError> {
        self.send(&Encoded::event(self.namespace(), name, data)?)
    }

    /// Queues an event with one argument in which each [`Placeholder`] stands for one of at most 10 attachments.
    pub fn emit_binary<T: Serialize + ?Sized>(&self, name: &str, data: &T, attachments: &[Bytes]) -> Result<(), SendError> {
        self.send(&event(self.namespace(), None, name, |text| push_argument(text, data), attachments)?)
    }

    /// Queues a packet that was encoded for this socket's namespace.
    pub fn send(&self, packet: &Encoded) -> Result<(), SendError> {
        if self.0.left.load(Ordering::Acquire) {
            return Err(SendError::Closed);
        }
        packet.send_to(&self.0.outbox)
    }

    /// Queues a packet only if the transport can write it now, else drops it. True if it was queued.
    pub fn send_volatile(&self, packet: &Encoded) -> Result<bool, SendError> {
        match self.0.left.load(Ordering::Acquire) {
            true => Err(SendError::Closed),
            false => Ok(self.0.outbox.try_send_volatile(packet.0.clone())?),
        }
    }

    /// Queues an event with one argument at once; the future gives the client's answer, or an error when it has not come within
    /// `limit` from now. Do not await it in the work of [`super::Handler::event`] of the same client: its packets, and so its
    /// answer, are only looked at when that work is done.
    pub fn emit_with_ack<T: Serialize + ?Sized>(
        &self,
        name: &str,
        data: &T,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Reply, AckError>> + Send + 'static>> {
        let deadline = Instant::now().checked_add(limit);
        let sent = self.await_reply().and_then(|(waiting, reply)| {
            let packet = event(self.namespace(), Some(waiting.id), name, |text| push_argument(text, data), &[]).map_err(SendError::from)?;
            self.send(&packet)?;
            Ok((waiting, reply))
        });
        Box::pin(async move {
            let (_waiting, reply) = sent?;
            let reply = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, reply).await.map_err(|_| AckError::Timeout)?,
                // So far away that the clock cannot say it.
                None => reply.await,
            };
            reply.map_err(|_| AckError::Disconnected)
        })
    }

    fn await_reply(&self) -> Result<(Waiting, oneshot::Receiver<Reply>), AckError> {
        let mut awaited = self.awaited();
        if awaited.left {
            return Err(SendError::Closed.into());
        }
        awaited.last_id = awaited.last_id.wrapping_add(1);
        let id = awaited.last_id;
        let (sender, receiver) = oneshot::channel();
        awaited.replies.insert(id, sender);
        Ok((Waiting { socket: self.clone(), id }, receiver))
    }

    fn awaited(&self) -> std::sync::MutexGuard<'_, Awaited> {
        self.0.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An ACK came. One that nobody waits for (any more) is dropped.
    pub(super) fn reply(&self, id: u64, reply: Reply) {
        let waiting = self.awaited().replies.remove(&id);
        if let Some(waiting) = waiting {
            // The one who asked may be gone.
            let _ = waiting.send(reply);
        }
    }

    /// Nothing is sent to this socket any more, and nobody waits for its answers. All ways out of a namespace lead through here.
    pub(super) fn leave(&self) {
        self.0.left.store(true, Ordering::Release);
        let mut awaited = self.awaited();
        awaited.left = true;
        awaited.replies = HashMap::new();
    }

    /// Disconnects the client from this namespace, or, with `close`, from all its namespaces, and then ends its session behind
    /// what is queued. The application's `disconnected` is called before this returns.
    pub fn disconnect(&self, close: bool) {
        if let Some(connection) = self.0.connection.upgrade() {
            match close {
                false => connection.disconnect(self),
                true => connection.disconnect_all(),
            }
        }
    }

    /// Ends the client's whole session without telling its namespaces; clients take it for a lost connection and come back.
    pub fn close(&self, reason: CloseReason) {
        self.0.outbox.close(reason);
    }
}

/// A place in the list of awaited answers, given back when dropped.
struct Waiting {
    socket: Socket,
    id: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.socket.awaited().replies.remove(&self.id);
    }
}

/// The right to answer an event once. Dropped without use: no answer.
#[derive(Debug)]
pub struct Ack {
    socket: Socket,
    id: u64,
}

impl Ack {
    pub(super) fn new(socket: Socket, id: u64) -> Self {
        Self { socket, id }
    }

    /// Answers with one argument.
    pub fn send<T: Serialize + ?Sized>(self, data: &T) -> Result<(), SendError> {
        self.answer(|text| Ok(packet::push_json(text, data)?), &[])
    }

    /// Answers with any number of arguments, in which each [`Placeholder`] stands for one of the attachments.
    pub fn send_with(self, args: &[Box<RawValue>], attachments: &[Bytes]) -> Result<(), SendError> {
        let push = |text: &mut String| {
            for (i, arg) in args.iter().enumerate() {
                text.push_str(if i > 0 { "," } else { "" });
                text.push_str(arg.get());
            }
            Ok(())
        };
        self.answer(push, attachments)
    }

    fn answer(self, push: impl FnOnce(&mut String) -> Result<(), EncodeError>, attachments: &[Bytes]) -> Result<(), SendError> {
        let packet = array_packet(Kind::Ack, self.socket.namespace(), Some(self.id), push, attachments)?;
        self.socket.send(&packet)
    }
}
