//! One client in one namespace: the handle that the application sends through, and the answers it
//! waits for.
//!
//! Sending never waits: it queues, or says at once that it cannot.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connection::Connection;
use super::encode::{self, EncodeError, Encoded};
use super::handler::DisconnectReason;
use super::packet;
use crate::engineio::{self, CloseReason, Group, Handshake, Outbox};

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

/// Who a socket is.
pub struct Identity {
    pub id: Box<str>,
    pub namespace: Arc<str>,
}

struct Inner {
    identity: Identity,
    key: u64,
    handshake: Arc<Handshake>,
    outbox: Outbox,
    connection: Weak<Connection>,
    /// Locked while a packet is queued, so that nothing comes behind a DISCONNECT.
    left: Mutex<bool>,
    awaited: Mutex<Awaited>,
    stage: Mutex<Stage>,
    /// The application's.
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// Answers that are still to come.
#[derive(Default)]
struct Awaited {
    left: bool,
    last_id: u64,
    replies: HashMap<u64, oneshot::Sender<Reply>>,
}

/// What the application was told of the socket.
#[derive(Default)]
enum Stage {
    /// Nothing yet, or it is being told right now.
    #[default]
    New,
    /// The client left before the application had heard of it to the end.
    LeftEarly(DisconnectReason),
    Introduced,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("id", &self.id())
            .field("namespace", &self.namespace())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Socket {
    pub(super) fn new(
        identity: Identity,
        handshake: Arc<Handshake>,
        outbox: Outbox,
        connection: Weak<Connection>,
    ) -> Self {
        static KEYS: AtomicU64 = AtomicU64::new(0);
        let key = KEYS.fetch_add(1, Ordering::Relaxed);
        let (left, awaited, stage) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self(Arc::new(Inner {
            identity,
            key,
            handshake,
            outbox,
            connection,
            left,
            awaited,
            stage,
            kept: OnceLock::new(),
        }))
    }

    /// 20 characters `[A-Za-z0-9_-]`, new for every CONNECT. Not the Engine.IO session id, which is
    /// a secret.
    pub fn id(&self) -> &str {
        &self.0.identity.id
    }

    /// A number that no other socket of this process has or had.
    pub fn key(&self) -> u64 {
        self.0.key
    }

    pub fn namespace(&self) -> &str {
        &self.0.identity.namespace
    }

    pub fn handshake(&self) -> &Handshake {
        &self.0.handshake
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.0.identity
    }

    pub(super) fn connection(&self) -> Option<Arc<Connection>> {
        self.0.connection.upgrade()
    }

    /// The client has left the namespace or is being closed.
    pub fn is_closed(&self) -> bool {
        *lock(&self.0.left) || self.0.outbox.is_closed()
    }

    /// Bytes that wait to be sent on this client's session, over all its namespaces.
    pub fn queued_bytes(&self) -> usize {
        self.0.outbox.queued_bytes()
    }

    /// Whether the queue of this client's session, which its namespaces share, is at most half
    /// full.
    pub fn has_room(&self) -> bool {
        self.0.outbox.has_room()
    }

    /// Waits until at most one `nth` of that queue, 4 or more, is full, or it is closed.
    pub async fn drained(&self, nth: usize) {
        self.0.outbox.drained(nth).await;
    }

    /// Moves as long as the client reads.
    pub fn taken(&self) -> u64 {
        self.0.outbox.taken()
    }

    /// Queues an event with one argument.
    pub fn emit<T: Serialize + ?Sized>(&self, name: &str, data: &T) -> Result<(), SendError> {
        self.emit_binary(name, data, &[])
    }

    /// Queues an event with one argument in which each [`super::Placeholder`] stands for one of at
    /// most 10 attachments.
    pub fn emit_binary<T: Serialize + ?Sized>(
        &self,
        name: &str,
        data: &T,
        attachments: &[Bytes],
    ) -> Result<(), SendError> {
        self.send(&Encoded::asking(
            self.namespace(),
            None,
            name,
            data,
            attachments,
        )?)
    }

    /// Queues an event that was encoded for this socket's namespace.
    pub fn send(&self, event: &Encoded) -> Result<(), SendError> {
        let _here = self.here()?;
        Ok(self.0.outbox.try_send(event.group().clone())?)
    }

    /// Queues an event only if the transport can write it now, else drops it. True if it was
    /// queued.
    pub fn send_volatile(&self, event: &Encoded) -> Result<bool, SendError> {
        let _here = self.here()?;
        Ok(self.0.outbox.try_send_volatile(event.group().clone())?)
    }

    /// The client does not leave while this is held.
    fn here(&self) -> Result<MutexGuard<'_, bool>, SendError> {
        let left = lock(&self.0.left);
        match *left {
            true => Err(SendError::Closed),
            false => Ok(left),
        }
    }

    /// Queues a packet that is no event, or asks for an answer.
    fn send_group(&self, packet: Group) -> Result<(), SendError> {
        let _here = self.here()?;
        Ok(self.0.outbox.try_send(packet)?)
    }

    /// Queues an event with one argument at once; the future gives the client's answer, or an error
    /// when it has not come within `limit` from now. Each [`super::Placeholder`] in the data stands
    /// for one of the attachments. Do not await it in the work of [`super::Handler::event`] of the
    /// same client: its packets, and so its answer, are only looked at when that work is done.
    pub fn emit_with_ack<T: Serialize + ?Sized>(
        &self,
        name: &str,
        data: &T,
        attachments: &[Bytes],
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Reply, AckError>> + Send + 'static>> {
        let deadline = Instant::now().checked_add(limit);
        let sent = self.await_reply().and_then(|(waiting, reply)| {
            let packet =
                Encoded::asking(self.namespace(), Some(waiting.id), name, data, attachments)
                    .map_err(SendError::from)?;
            self.send_group(packet.group().clone())?;
            Ok((waiting, reply))
        });
        Box::pin(async move {
            let (_waiting, reply) = sent?;
            let reply = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, reply)
                    .await
                    .map_err(|_| AckError::Timeout)?,
                // So far away that the clock cannot say it.
                None => reply.await,
            };
            reply.map_err(|_| AckError::Disconnected)
        })
    }

    fn await_reply(&self) -> Result<(Waiting, oneshot::Receiver<Reply>), AckError> {
        let mut awaited = lock(&self.0.awaited);
        if awaited.left {
            return Err(SendError::Closed.into());
        }
        awaited.last_id = awaited.last_id.wrapping_add(1);
        let id = awaited.last_id;
        let (sender, receiver) = oneshot::channel();
        awaited.replies.insert(id, sender);
        Ok((
            Waiting {
                socket: self.clone(),
                id,
            },
            receiver,
        ))
    }

    /// An ACK came. One that nobody waits for (any more) is dropped.
    pub(super) fn reply(&self, id: u64, reply: Reply) {
        let waiting = lock(&self.0.awaited).replies.remove(&id);
        if let Some(waiting) = waiting {
            // The one who asked may be gone.
            let _ = waiting.send(reply);
        }
    }

    /// Nothing is sent to this socket any more, and nobody waits for its answers. All ways out of a
    /// namespace lead through here.
    pub(super) fn leave(&self) {
        *lock(&self.0.left) = true;
        let mut awaited = lock(&self.0.awaited);
        awaited.left = true;
        awaited.replies = HashMap::new();
    }

    /// The application has heard of the socket to the end. With a reason when the client has left
    /// meanwhile.
    pub(super) fn introduced(&self) -> Option<DisconnectReason> {
        match std::mem::replace(&mut *lock(&self.0.stage), Stage::Introduced) {
            Stage::LeftEarly(reason) => Some(reason),
            Stage::New | Stage::Introduced => None,
        }
    }

    /// The client has left. True if the application is to be told now; if not,
    /// [`Socket::introduced`] says so later.
    pub(super) fn has_left(&self, reason: DisconnectReason) -> bool {
        let mut stage = lock(&self.0.stage);
        let known = matches!(*stage, Stage::Introduced);
        if !known {
            *stage = Stage::LeftEarly(reason);
        }
        known
    }

    /// Disconnects the client from this namespace, or, with `close`, from all its namespaces, and
    /// then ends its session behind what is queued. The application's `disconnected` is called
    /// before this returns; from within `connected`, right behind that.
    pub fn disconnect(&self, close: bool) {
        if let Some(connection) = self.connection() {
            match close {
                false => connection.disconnect(self),
                true => connection.disconnect_all(),
            }
        }
    }

    /// Keeps something of the application with the socket, as long as that is; the first one stays.
    pub fn keep<T: Any + Send + Sync>(&self, value: T) {
        // A second one is dropped.
        let _ = self.0.kept.set(Box::new(value));
    }

    /// What is kept.
    pub fn kept<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.kept.get()?.downcast_ref()
    }

    /// Ends the client's whole session without telling its namespaces; clients take it for a lost
    /// connection and come back.
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
        lock(&self.socket.0.awaited).replies.remove(&self.id);
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

    /// Answers with one argument, or gives the right to do so back when that could not be queued.
    pub fn try_send<T: Serialize + ?Sized>(self, data: &T) -> Result<(), (SendError, Self)> {
        let again = Self {
            socket: self.socket.clone(),
            id: self.id,
        };
        self.send(data).map_err(|error| (error, again))
    }

    /// The answer as a packet, for whoever sends it in its place among others.
    pub fn into_packet(self, data: &RawValue) -> Result<Encoded, EncodeError> {
        let push = |text: &mut String| {
            text.push_str(data.get());
            Ok(())
        };
        Ok(Encoded::of(encode::ack(
            self.socket.namespace(),
            self.id,
            push,
            &[],
        )?))
    }

    /// Answers with one argument.
    pub fn send<T: Serialize + ?Sized>(self, data: &T) -> Result<(), SendError> {
        self.answer(|text| Ok(packet::push_json(text, data)?), &[])
    }

    /// Answers with any number of arguments, in which each [`super::Placeholder`] stands for one of
    /// the attachments.
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

    fn answer(
        self,
        push: impl FnOnce(&mut String) -> Result<(), EncodeError>,
        attachments: &[Bytes],
    ) -> Result<(), SendError> {
        let packet = encode::ack(self.socket.namespace(), self.id, push, attachments)?;
        self.socket.send_group(packet)
    }
}
