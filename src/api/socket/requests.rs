//! What clients may say over Socket.IO: events and their arguments.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::wire::error::{ApiError, shortened};
use crate::wire::request::types::{Addresses, Depths, Unlabelled};
use crate::wire::request::{self, Request};

/// The events of clients by their names.
pub const EVENTS: [&str; 7] = [
    "subscribe_address",
    "subscribe_addresses",
    "unsubscribe_address",
    "subscribe_blocks",
    "subscribe_consumer",
    "unsubscribe_consumer",
    "ack",
];

/// `subscribe_address`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscribeAddress {
    pub address: String,
    pub after: Option<String>,
    pub confirmations: Option<Depths>,
    pub snapshot: Option<bool>,
}

impl Request for SubscribeAddress {
    const EXAMPLE: &'static str = "{\"address\": \"<address>\"}";
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("addresses", "the event subscribe_addresses takes a list"),
        ("label", LABEL),
        ("history", HISTORY),
        ("from_height", HISTORY),
        ("cursor", "write it as `after`"),
    ];
}

/// `subscribe_addresses`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscribeAddresses {
    pub addresses: Addresses<Unlabelled>,
    pub after: Option<String>,
    pub confirmations: Option<Depths>,
    pub snapshot: Option<bool>,
}

impl Request for SubscribeAddresses {
    const EXAMPLE: &'static str = "{\"addresses\": [\"<address>\", …]}";
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("label", LABEL),
        ("history", HISTORY),
        ("from_height", HISTORY),
        ("cursor", "write it as `after`"),
    ];
}

const LABEL: &str = "POST /add_address takes a label";
const HISTORY: &str = "POST /add_address takes `\"history\": {\"from_height\": 0}`";

/// `unsubscribe_address`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnsubscribeAddress {
    pub address: String,
}

impl Request for UnsubscribeAddress {
    const EXAMPLE: &'static str = "{\"address\": \"<address>\"}";
}

/// The one argument of an event. Anything beside it would be overlooked.
pub fn argument<T: Request>(args: &[Box<RawValue>]) -> Result<T, ApiError> {
    let mut args = args
        .iter()
        .map(|raw| Some(raw.get()).filter(|text| *text != "null"));
    let first = args.next().flatten();
    if let Some(place) = args.position(|arg| arg.is_some()) {
        let message = format!(
            "An event takes one argument, a JSON object such as {}; argument {} is unknown.",
            T::EXAMPLE,
            place.saturating_add(2)
        );
        return Err(ApiError::bad_request("unknown_field", message));
    }
    request::body(first.map(str::as_bytes))
}

pub fn unknown_event(name: &str) -> ApiError {
    let message = format!(
        "There is no event {}; this daemon knows {}.",
        shortened(name),
        EVENTS.join(", ")
    );
    ApiError::bad_request("unknown_event", message)
}
