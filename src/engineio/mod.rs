//! Engine.IO, protocol revisions 4 and 3, server side: long-polling and WebSocket sessions for the
//! layer above ([`Handler`]).
//!
//! Source: the protocol documents (socketio/socket.io, `docs/engine.io-protocol/v4-current.md` and
//! `v3.md`) and, where it is silent, what the reference server (npm `engine.io` 6.6) does on the
//! wire. Where we differ from the reference on purpose, the code that decides says why.
//!
//! Laws:
//! 1. [`session::Session`] is a state machine without I/O: methods are its inputs (time is an
//!    argument), `next_output` and `deadline` what comes out. Upgrade, heartbeat, double requests
//!    and the order of closing are decided there and nowhere else.
//! 2. Transports only move bytes: `polling` turns HTTP requests into those of the session's inbox
//!    and waits for the answer; `websocket` moves frames, which `frames` reads (pure), and knows
//!    the closing handshake.
//! 3. Each session has one task (`task`) that owns the machine, its sockets, its pending requests
//!    and the work of the layer above.
//! 4. One way out: the session's `registry::RegisteredSession` goes and [`Handler::close`] is
//!    called in one function of the task, exactly once.
//! 5. Everything is bounded: the outbox in messages and bytes, a body and a frame by `max_payload`,
//!    an inbox in requests, every wait by a deadline; what all clients have begun to send, by a
//!    [`ByteBudget`]. Nothing here waits for a slow client but its own task. A polling answer that
//!    was given to HTTP is the connection's, whose time is the HTTP server's to bound.
//! 6. The outbox is for answers: while it is half full, the client's packets wait, so a client that
//!    does not take its answers gets none of its further requests handled. What is sent beside
//!    answers is pulled: [`Handler::poll_next`] is asked when the transport can take something and
//!    the outbox is empty, so nothing is queued for a slow client.
//! 7. A layer above that wants a session to end is heard whatever the client does:
//!    [`Handler::poll_end`] is asked whenever the task is about to wait.
//! 8. A handshake is no client yet: a session is a stranger's until the layer above lets it in
//!    ([`Outbox::let_in`]), however much is asked for it. At the limit of sessions the oldest
//!    stranger makes room; those that were let in keep theirs. A layer above that knows its clients
//!    can hold strangers to messages that take no room of others ([`Outbox::small_until_let_in`]);
//!    one that takes everybody lets in at [`Handler::open`], or with the first message.
//! 9. Nothing here knows what the messages mean; this folder imports nothing of the crate around
//!    it.
//!
//! ```text
//!  request --> service --> request (query -> what is asked)
//!                |             refused: error (exact status and JSON)
//!                +-- handshake ------> registry (permit, sid) --> task
//!                +-- GET / POST -----> polling --- SessionRequest -> inbox --+
//!                +-- 101 ------------> websocket --- WebSocket -----> inbox --+--> task { session, sockets, outbox } --> Handler
//! ```
//!
//! Life of a session's transport:
//! ```text
//!  polling --ws with sid--> probing --2probe/3probe--> probed --5--> websocket
//!     ^                        |                          |
//!     +---- ws closed, timeout, anything else ------------+       (polling goes on)
//! ```
//!
//! Revision 3 is a matter of `request` (which one a client speaks), `packet` and `payload` (how
//! things are written) and `session` (the client pings). It is told to the layer above by
//! [`Handshake::revision`].

mod admission;
mod budget;
mod config;
mod error;
mod frames;
mod handler;
mod inbox;
mod message;
mod outbox;
mod packet;
mod payload;
mod polling;
mod registry;
mod request;
mod service;
mod session;
mod task;
mod upgrade;
mod websocket;

pub(crate) use budget::{ByteBudget, ByteShare};
pub use config::Config;
pub use error::CloseReason;
pub use handler::{Handler, Handshake, Work};
pub use message::{Message, MessageGroup, Text};
pub use outbox::{Outbox, SendError};
pub use packet::Revision;
pub use service::Service;

/// No part of the interface: for the tests of the layers above and the fuzz targets alone.
#[doc(hidden)]
pub mod internals {
    pub use super::outbox::{Next, OutboxReceiver, outbox};
    pub use super::packet::{Encoding, Frame, Packet};
    pub use super::session::{
        Limits, Output, PollAnswer, Session, SocketEnd, SocketRole, WRITE_SIZE,
    };

    pub mod payload {
        pub use super::super::payload::{Body, MAX_PACKETS, Packets, encode, fitting};
    }
}
