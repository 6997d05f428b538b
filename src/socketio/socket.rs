//! One client in one namespace: the handle that the application sends through.
//!
//! Sending never waits: it queues, or says at once that it cannot.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::connect::DisconnectReason;
use super::encode::{self, EncodeError, Encoded};
use super::packet;
use crate::engineio::{self, CloseReason, Handshake, MessageGroup, Outbox};

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

/// One client in one namespace. Cloning is cheap and gives the same client.
#[derive(Clone)]
pub struct Socket(Arc<Inner>);

/// The connection that a socket is on.
pub trait Disconnect: Send + Sync {
    /// The server disconnects one socket.
    fn disconnect(&self, socket: &Socket);

    /// The server disconnects the client from everything and ends its session.
    fn disconnect_all(&self);
}

struct Inner {
    id: Box<str>,
    key: u64,
    namespace: Arc<str>,
    handshake: Arc<Handshake>,
    outbox: Outbox,
    connection: Weak<dyn Disconnect>,
    /// Locked while a packet is queued, so that nothing comes behind a DISCONNECT.
    left: Mutex<bool>,
    announcement: Mutex<Announcement>,
    /// The application's.
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// What the application was told of the socket.
#[derive(Default)]
enum Announcement {
    /// Nothing yet, or it is being told right now.
    #[default]
    New,
    /// The client left before the application had heard of it to the end.
    LeftEarly(DisconnectReason),
    Made,
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
        namespace: Arc<str>,
        handshake: Arc<Handshake>,
        outbox: Outbox,
        connection: Weak<dyn Disconnect>,
    ) -> Self {
        static KEYS: AtomicU64 = AtomicU64::new(0);
        Self(Arc::new(Inner {
            id: new_id(),
            key: KEYS.fetch_add(1, Ordering::Relaxed),
            namespace,
            handshake,
            outbox,
            connection,
            left: Mutex::default(),
            announcement: Mutex::default(),
            kept: OnceLock::new(),
        }))
    }

    /// 20 characters `[A-Za-z0-9_-]`, new for every CONNECT. Not the Engine.IO session id, which is
    /// a secret.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// A number that no other socket of this process has or had.
    pub fn key(&self) -> u64 {
        self.0.key
    }

    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    pub fn handshake(&self) -> &Handshake {
        &self.0.handshake
    }

    /// The client has left the namespace or is being closed.
    pub fn is_closed(&self) -> bool {
        *lock(&self.0.left) || self.0.outbox.is_closed()
    }

    /// Queues an event with one argument.
    pub fn emit<T: Serialize + ?Sized>(&self, name: &str, data: &T) -> Result<(), SendError> {
        self.send(&Encoded::event(self.namespace(), name, data)?)
    }

    /// Queues an event that was encoded for this socket's namespace.
    pub fn send(&self, event: &Encoded) -> Result<(), SendError> {
        let _here = self.here()?;
        Ok(self.0.outbox.try_send(event.clone().into_group())?)
    }

    /// The client does not leave while this is held.
    fn here(&self) -> Result<MutexGuard<'_, bool>, SendError> {
        let left = lock(&self.0.left);
        match *left {
            true => Err(SendError::Closed),
            false => Ok(left),
        }
    }

    /// Queues a packet that is no event.
    fn send_group(&self, packet: MessageGroup) -> Result<(), SendError> {
        let _here = self.here()?;
        Ok(self.0.outbox.try_send(packet)?)
    }

    /// Nothing is sent to this socket any more. All ways out of a namespace lead through here.
    pub(super) fn leave(&self) {
        *lock(&self.0.left) = true;
    }

    /// `connected` of the application has returned. With a reason when the client has left
    /// meanwhile.
    pub(super) fn connect_announced(&self) -> Option<DisconnectReason> {
        match std::mem::replace(&mut *lock(&self.0.announcement), Announcement::Made) {
            Announcement::LeftEarly(reason) => Some(reason),
            Announcement::New | Announcement::Made => None,
        }
    }

    /// The client has left. True if the application is to be told now; if not,
    /// [`Socket::connect_announced`] says so later.
    pub(super) fn has_left(&self, reason: DisconnectReason) -> bool {
        let mut announcement = lock(&self.0.announcement);
        let is_made = matches!(*announcement, Announcement::Made);
        if !is_made {
            *announcement = Announcement::LeftEarly(reason);
        }
        is_made
    }

    /// Disconnects the client from this namespace, or, with `close`, from all its namespaces, and
    /// then ends its session behind what is queued. The application's `disconnected` is called
    /// before this returns; from within `connected`, right behind that.
    pub fn disconnect(&self, close: bool) {
        if let Some(connection) = self.0.connection.upgrade() {
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

    /// Answers with any number of arguments; each `{"_placeholder":true,"num":i}` in them stands
    /// for one of the attachments.
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

/// 20 characters of base64url: 120 random bits.
fn new_id() -> Box<str> {
    let mut bytes = [0; 15];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    URL_SAFE_NO_PAD.encode(bytes).into()
}
