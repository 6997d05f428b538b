//! Socket.IO: what clients may say, and what they hear.
//!
//! # Laws
//!
//! 1. What a client is sent is pulled: its session asks [`Client::poll_next`] when its transport
//!    can take something. Answers are items in the order of the client's reader, so each comes
//!    where its cursor says (`crate::events`, rules 2 to 4).
//! 2. The work for a packet ends by itself, and the next packet is looked at when it is done. Reads
//!    of the store are made off the runtime.
//! 3. A connection reads a consumer or has subscriptions of its own, not both: an event that both
//!    want would be told twice.
//!
//! ```text
//! packet ──► requests (which event, its argument) ──► subscribe   watch, register, snapshot, Client::subscribe
//!                                                 ──► consumers   read one, acknowledge
//! session's transport is free ──► Client::poll_next ──► Reader, or the consumer's
//! ```

mod client;
mod consumers;
mod requests;
mod subscribe;

use std::sync::Arc;
use std::task::{Context, Poll};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::rest::status::Tip;
use crate::api::watchlist::Watchlist;
use crate::consumers::Consumers;
use crate::events::{self, EventLog};
use crate::reads::Reads;
use crate::socketio::{
    self, Ack, CloseReason, ConnectRefused, ConnectRequest, DisconnectReason, Encoded, Socket, Work,
};
use crate::store::Snapshot;
use crate::wire::request::Nothing;
use crate::wire::{ApiError, EventEncoder, NAMESPACE, address, json};
use client::{Client, Reply};
pub use requests::EVENTS;
use requests::{ClientEvent, argument, unknown_event};

/// What the events of clients are answered with.
pub struct SocketServices {
    pub reads: Reads,
    pub encoder: EventEncoder,
    pub log: Arc<EventLog>,
    pub dispatch: events::Handle,
    pub watchlist: Arc<Watchlist>,
    pub consumers: Arc<Consumers>,
    /// Topics that one client may subscribe to.
    pub subscriptions: usize,
}

/// The application behind Socket.IO.
#[derive(Clone)]
pub struct SocketApi(pub Arc<SocketServices>);

/// The first event.
fn connected_event(snapshot: &Snapshot<'_>, encoder: &EventEncoder) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Connected {
        message: &'static str,
        version: &'static str,
        network: &'static str,
        tip: Option<Tip>,
        cursor: String,
    }
    Ok(json::to_text(&Connected {
        message: "Connected to satwatch; emit subscribe_address with {\"address\": \"…\"} to hear about an address.",
        version: env!("CARGO_PKG_VERSION"),
        network: address::network_name(encoder.network),
        tip: Tip::of(snapshot)?,
        cursor: encoder.cursor(snapshot.head()?),
    }))
}

impl socketio::Handler for SocketApi {
    async fn authorize(&self, request: ConnectRequest) -> Result<(), ConnectRefused> {
        if &*request.namespace == NAMESPACE {
            Ok(())
        } else {
            Err(ConnectRefused {
                message: "Invalid namespace".to_owned(),
                data: None,
            })
        }
    }

    fn connected(&self, socket: &Socket, _request: &ConnectRequest) {
        let SocketServices { reads, encoder, .. } = &*self.0;
        let client = Client::new(&self.0);
        let described = reads.on_the_spot(|snapshot| connected_event(snapshot, encoder));
        let (name, json) = match described {
            Ok(json) => ("connected", json),
            Err(error) => ("error", json::to_text(&error)),
        };
        // Cannot fail: it is our own JSON under our own names.
        let _ = client.answer(Reply::without_ack(name, json));
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
            let json = json::to_text(&error);
            let reply = Reply {
                name: "error",
                json,
                ack,
            };
            // A client that cannot be told has left.
            let _ = self.client().and_then(|client| client.answer(reply));
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
        let known = EVENTS.iter().find(|(known, _)| *known == name);
        let (_, kind) = known.ok_or_else(|| unknown_event(name))?;
        match kind {
            ClientEvent::SubscribeAddress => self.subscribe_address(argument(args)?, ack).await,
            ClientEvent::SubscribeAddresses => self.subscribe_addresses(argument(args)?, ack).await,
            ClientEvent::UnsubscribeAddress => self.unsubscribe_address(argument(args)?, ack),
            ClientEvent::SubscribeBlocks => {
                let Nothing {} = argument(args)?;
                self.subscribe_blocks(ack).await
            }
            ClientEvent::SubscribeConsumer => self.subscribe_consumer(argument(args)?, ack).await,
            ClientEvent::UnsubscribeConsumer => self.unsubscribe_consumer(argument(args)?, ack),
            ClientEvent::Ack => self.acknowledge(argument(args)?, ack).await,
        }
    }
}

fn attachments_not_taken() -> ApiError {
    ApiError::bad_request(
        "attachments_not_taken",
        "Events take no attachments (Buffer, ArrayBuffer, bytes): send text and numbers.",
    )
}
