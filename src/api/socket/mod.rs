//! Socket.IO: what clients may say, and what they hear.
//!
//! # Laws
//!
//! 1. What a client is sent is pulled: its session asks [`Client::poll_next`] when its transport
//!    can take something. Answers are items in the order of the client's reader, so each comes
//!    where its cursor says (`crate::events`, rules 2 to 4).
//! 2. The work for a packet ends by itself, and the next packet is looked at when it is done. Reads
//!    of the store are made off the runtime.
//! 3. Whose token has ended has its session ended at once, whatever its transport or the work for
//!    its packet does ([`Client::poll_end`]); places and leases come back with that. The last event
//!    is an `error` with the reason. Whose transport does not take it hears the same at its next
//!    CONNECT.
//! 4. A connection reads a consumer or has subscriptions of its own, not both: an event that both
//!    want would be told twice.
//!
//! ```text
//! packet ──► requests (which event, its argument) ──► subscribe   register, Backend::begin, Client::subscribe
//!              wanted: what it is about           ──► consumers   read one, acknowledge
//! subscribe, CONNECT ──► backend   watches and takes the snapshot; who is let in. store_backend:
//!                                  the one that has the store
//! session's transport is free ──► Client::poll_next ──► Reader, or the consumer's
//! ```

mod answers;
mod backend;
mod client;
pub mod consumers;
pub mod requests;
mod store_backend;
mod subscribe;
mod subscription;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::task::{Context, Poll};

use bitcoin::Network;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::api::access::{Access, Caller, Cost};
use crate::api::{credential, session};
use crate::auth::{Credential, Scope};
use crate::config::Limits;
use crate::descriptors::WalletDescriptor;
use crate::events::{self, EventLog};
use crate::limits::Places;
use crate::reads::Threads;
use crate::socketio::{
    self, Ack, CloseReason, ConnectRefused, ConnectRequest, DisconnectReason, Encoded, Socket, Work,
};
use crate::wire::address::{self, KnownAddress};
use crate::wire::error::shortened;
use crate::wire::request::descriptors::DescriptorText;
use crate::wire::{ApiError, NAMESPACE};
use answers::ErrorEvent;
pub use answers::{ANSWERS, Connected};
pub use backend::{Admitted, Backend, BegunSubscription, OwnConsumers};
use client::Client;
pub use requests::EVENTS;
pub use store_backend::StoreBackend;
pub use subscription::{Subject, Subscription};

/// What the events of clients are answered with.
pub struct SocketServices {
    pub backend: Arc<dyn Backend>,
    pub parsing: Parsing,
    pub log: Arc<EventLog>,
    pub dispatch: events::Handle,
    pub subscriptions: Subscriptions,
    pub access: Arc<Access>,
}

/// Reading what clients name.
#[derive(Clone)]
pub struct Parsing {
    pub network: Network,
    pub threads: Threads,
}

impl Parsing {
    fn address(&self, text: &str) -> Result<KnownAddress, ApiError> {
        address::parse(text, self.network)
    }

    pub async fn descriptor(&self, text: DescriptorText) -> Result<WalletDescriptor, ApiError> {
        let network = self.network;
        let parse = move || Ok(WalletDescriptor::parse(text.reveal(), network)?);
        self.threads.run(0, parse).await
    }
}

/// How many topics clients may subscribe to.
pub struct Subscriptions {
    pub limits: watch::Receiver<Limits>,
    pub in_all: Places,
}

impl Subscriptions {
    /// Of one client.
    fn of_one(&self) -> usize {
        self.limits.borrow().subscriptions
    }
}

/// The application behind Socket.IO.
#[derive(Clone)]
pub struct SocketApi(pub Arc<SocketServices>);

/// A CONNECT payload. Other programs add fields of their own.
#[derive(Default, Deserialize)]
struct ConnectPayload {
    token: Option<Value>,
    /// Of the page; the other half of its session is a cookie of the handshake.
    page_key: Option<Value>,
}

impl SocketApi {
    /// Who wants to connect: as the CONNECT payload says or, of older clients, the headers of the
    /// handshake.
    async fn admit(&self, request: &ConnectRequest) -> Result<Admitted, ApiError> {
        let payload = serde_json::from_str(request.auth.get()).unwrap_or_default();
        let ConnectPayload { token, page_key } = payload;
        let headers = &request.handshake.headers;
        let credential = match (&token, &page_key, session::id(headers)) {
            (Some(token), _, _) => Credential::Token(token.as_str().unwrap_or_default()),
            (None, Some(page_key), Some(id)) => Credential::Session {
                id,
                page_key: page_key.as_str().unwrap_or_default(),
            },
            (None, _, _) => credential(headers),
        };
        let (access, at) = (&self.0.access, caller(request));
        let admitted = self.0.backend.admit(credential, &at).await;
        let caller = match &admitted {
            Ok((principal, _)) => Caller::of(principal, &at),
            Err(_) => at.clone(),
        };
        access.take(&caller, Cost::Request)?;
        let is_wrong = |error: &ApiError| error.status == StatusCode::UNAUTHORIZED;
        if admitted.as_ref().is_err_and(is_wrong) && credential != Credential::None {
            access.take(&at, Cost::Costly)?;
        }
        let (principal, credential) = admitted?;
        principal.require(Scope::Read)?;
        Ok(Admitted {
            principal,
            caller,
            credential,
        })
    }
}

/// Who connects, before it is known who they are.
fn caller(request: &ConnectRequest) -> Caller {
    let unknown = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    Caller::at(request.handshake.peer.unwrap_or(unknown))
}

/// Clients of revision 4 are told `data` alone.
fn connect_refused(error: &ApiError) -> ConnectRefused {
    ConnectRefused {
        message: error.message.clone(),
        data: serde_json::to_value(error).ok(),
    }
}

impl socketio::Handler for SocketApi {
    type Admitted = Admitted;

    fn asks_who(&self) -> bool {
        self.0.backend.asks_who()
    }

    async fn authorize(&self, request: ConnectRequest) -> Result<Admitted, ConnectRefused> {
        if &*request.namespace == NAMESPACE {
            self.admit(&request).await.map_err(|refusal| {
                let access = &self.0.access;
                access.refused(&caller(&request), "connect", None, &refusal);
                connect_refused(&refusal)
            })
        } else {
            Err(ConnectRefused {
                message: "Invalid namespace".to_owned(),
                data: None,
            })
        }
    }

    fn connected(&self, socket: &Socket, _request: &ConnectRequest, admitted: Admitted) {
        let client = Client::new(&self.0, admitted);
        // Cannot fail: it is our own JSON under our own names.
        let _ = match self.0.backend.connected() {
            Ok(shape) => client.answer(&shape, None),
            Err(error) => client.answer(&ErrorEvent::from(error), None),
        };
        socket.keep(client);
    }

    fn event(&self, socket: &Socket, event: socketio::Event) -> Option<Work> {
        let call = Call {
            services: self.0.clone(),
            socket: socket.clone(),
        };
        Some(Box::pin(call.run(event)))
    }

    fn poll_next(&self, socket: &Socket, cx: &mut Context<'_>) -> Poll<Encoded> {
        let Some(client) = socket.kept::<Client>() else {
            return Poll::Pending;
        };
        match client.poll_next(&self.0, cx) {
            Poll::Ready(Ok(packet)) => Poll::Ready(packet),
            Poll::Ready(Err(cause)) => {
                // It comes back with the cursor that it has, and is told what to do. Its transport
                // just ends: after the packet of a close python-socketio does not come back.
                tracing::info!(id = socket.id(), %cause, "closing a client that cannot be told more");
                client.leave();
                socket.close(CloseReason::SlowConsumer);
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_full(&self, socket: &Socket) -> bool {
        socket.kept::<Client>().is_some_and(Client::is_full)
    }

    fn poll_end(&self, socket: &Socket, cx: &mut Context<'_>) -> Poll<Encoded> {
        let client = socket.kept::<Client>();
        client.map_or(Poll::Pending, |client| client.poll_end(cx))
    }

    fn disconnected(&self, socket: &Socket, _reason: DisconnectReason) {
        if let Some(client) = socket.kept::<Client>() {
            client.leave();
        }
    }
}

/// One event of a client while it is handled.
struct Call {
    services: Arc<SocketServices>,
    socket: Socket,
}

impl Call {
    async fn run(self, event: socketio::Event) {
        let mut ack = event.ack;
        let answered = match event.attachments.is_empty() {
            true => self.answer(&event.name, &event.args, &mut ack).await,
            false => Err(attachments_not_taken()),
        };
        if let Err(error) = answered {
            if let Ok(client) = self.client() {
                let access = &self.services.access;
                let (what, concerns) = (shortened(&event.name), requests::concerns(&event.args));
                access.refused(&client.admitted.caller, &what, concerns.as_deref(), &error);
            }
            // A client that cannot be told has left.
            let _ = self
                .client()
                .and_then(|client| client.answer(&ErrorEvent::from(error), ack));
        }
    }

    fn client(&self) -> Result<&Client, ApiError> {
        self.socket.kept::<Client>().ok_or_else(ApiError::stopping)
    }

    async fn answer(
        &self,
        name: &str,
        args: &[Box<RawValue>],
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let admitted = &self.client()?.admitted;
        self.services.access.take(&admitted.caller, Cost::Request)?;
        let event = requests::find(name)?;
        if let Some(needed) = event.scope {
            admitted.principal.require(needed)?;
        }
        (event.answer)(self, args, ack).await
    }
}

fn attachments_not_taken() -> ApiError {
    ApiError::bad_request(
        "attachments_not_taken",
        "Events take no attachments (Buffer, ArrayBuffer, bytes): send text and numbers.",
    )
}
