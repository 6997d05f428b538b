//! What goes over the wire, once for REST, Socket.IO and webhooks.
//!
//! # Laws
//!
//! 1. A domain value has one shape ([`json`]), whoever asks for it and in which protocol.
//! 2. An event has one encoding ([`EventEncoder`]): the Socket.IO frame. The JSON that REST and
//!    webhooks send is a slice of it. So every reader gets the same bytes, each event is encoded
//!    once, and this is why a module below `api` knows [`socketio::Encoded`].
//! 3. Below this module a watched thing is a script and its hash; addresses exist here and above
//!    ([`address`]). The daemon's numbers of events become cursors here ([`cursor`]).
//! 4. Requests are read strictly ([`request`]): what is not known is refused with what to do
//!    instead. A refusal is one type ([`ApiError`]) and looks the same in both protocols.
//! 5. What a client sent is shown again only when it holds no key ([`secret`]).
//! 6. What is serialized or parsed here describes itself ([`schema`]): the contracts that the
//!    daemon serves are made from the same types.
//! 7. Pure: no I/O, clock or task. It reads the store's list of starts and nothing else of it.
//!
//! # Flow
//!
//! ```text
//! bytes of a client ──► request ──► a type ──► address, cursor ──► script, number   or ApiError
//! tracker's rows    ──► json ──► text of an answer
//! tracker's event   ──► EventEncoder (json, cursor, address) ──► frame; its JSON is a slice
//! ```
//!
//! [`socketio::Encoded`]: crate::socketio::Encoded

pub mod address;
pub mod cursor;
mod encode;
pub mod error;
pub mod error_codes;
pub mod json;
pub mod request;
pub mod schema;
pub mod secret;
mod text;

pub use encode::{EncodedEvent, EventEncoder, LogStarts};
pub use error::ApiError;
pub use json::NAMESPACE;
