//! The events that the daemon sends, by their names: nothing else is one.

use schemars::JsonSchema;
use serde::Serialize;

use crate::socketio::{EncodeError, Encoded};
use crate::wire::schema::SchemaOf;

/// The only Socket.IO namespace.
pub const NAMESPACE: &str = "/";

/// The data of an event.
pub trait ServerEvent: Serialize + JsonSchema {
    const NAME: &'static str;

    /// The packet.
    fn encode(&self) -> Result<Encoded, EncodeError> {
        Encoded::event(NAMESPACE, Self::NAME, self)
    }
}

/// A row of a list of events.
pub struct EventRow {
    pub name: &'static str,
    /// When it comes.
    pub summary: &'static str,
    pub data: SchemaOf,
}

/// A list of events: name, type of the data, when it comes.
macro_rules! server_events {
    ($(#[$meta:meta])* $list:ident { $($name:literal $data:ty, $summary:literal;)* }) => {
        $(impl $crate::wire::json::ServerEvent for $data {
            const NAME: &'static str = $name;
        })*

        $(#[$meta])*
        pub static $list: &[$crate::wire::json::EventRow] = &[$($crate::wire::json::EventRow {
            name: $name,
            summary: $summary,
            data: $crate::wire::schema::of::<$data>,
        }),*];
    };
}
pub(crate) use server_events;
