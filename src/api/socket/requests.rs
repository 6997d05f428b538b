//! What clients may say over Socket.IO: the table of events, and their arguments.

use std::future::Future;
use std::pin::Pin;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::Call;
use crate::auth::{Scope, needed};
use crate::socketio::Ack;
use crate::wire::address;
use crate::wire::error::{ApiError, shortened};
use crate::wire::request::descriptors::DescriptorText;
use crate::wire::request::types::{Addresses, Depths, Unlabelled};
use crate::wire::request::{self, Nothing, Request};

/// A row of the table of events.
pub struct ClientEvent {
    pub name: &'static str,
    /// What the client must be allowed to do.
    pub scope: Option<Scope>,
    pub(super) answer: for<'a> fn(&'a Call, Args<'a>, &'a mut Option<Ack>) -> Answering<'a>,
}

type Args<'a> = &'a [Box<RawValue>];
type Answering<'a> = Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send + 'a>>;

/// Name, scope.
macro_rules! events {
    ($($name:literal $scope:ident |$call:ident, $args:ident, $ack:ident| $answer:expr;)*) => {
        /// The events of clients.
        pub static EVENTS: &[ClientEvent] = &[$(ClientEvent {
            name: $name,
            scope: needed!($scope),
            answer: |$call, $args, $ack| Box::pin(async move { $answer }),
        }),*];
    };
}

// What is not watched yet, and new depths, need more (`crate::api::watchlist`).
events! {
    "subscribe_address" read |call, args, ack| {
        call.subscribe_address(argument(args)?, ack).await
    };
    "subscribe_addresses" read |call, args, ack| {
        call.subscribe_addresses(argument(args)?, ack).await
    };
    "unsubscribe_address" read |call, args, ack| call.unsubscribe_address(argument(args)?, ack);
    "subscribe_descriptor" read |call, args, ack| {
        call.subscribe_descriptor(argument(args)?, ack).await
    };
    "unsubscribe_descriptor" read |call, args, ack| {
        call.unsubscribe_descriptor(argument(args)?, ack).await
    };
    "subscribe_blocks" read |call, args, ack| {
        let Nothing {} = argument(args)?;
        call.subscribe_blocks(ack).await
    };
    "subscribe_consumer" watch |call, args, ack| {
        call.subscribe_consumer(argument(args)?, ack).await
    };
    "unsubscribe_consumer" watch |call, args, ack| {
        call.unsubscribe_consumer(argument(args)?, ack)
    };
    "ack" watch |call, args, ack| call.acknowledge(argument(args)?, ack).await;
}

/// The row of an event.
pub fn find(name: &str) -> Result<&'static ClientEvent, ApiError> {
    let mut events = EVENTS.iter();
    let found = events.find(|event| event.name == name);
    found.ok_or_else(|| unknown_event(name))
}

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

/// `subscribe_descriptor`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscribeDescriptor {
    pub descriptor_id: Option<String>,
    pub descriptor: Option<DescriptorText>,
    pub after: Option<String>,
    pub confirmations: Option<Depths>,
    pub snapshot: Option<bool>,
}

impl Request for SubscribeDescriptor {
    const EXAMPLE: &'static str = "{\"descriptor_id\": \"<id>\"}";
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("id", "write it as `descriptor_id`"),
        ("address", "the event subscribe_address takes an address"),
        ("label", DESCRIPTOR_OPTION),
        ("history", DESCRIPTOR_OPTION),
        ("gap_limit", DESCRIPTOR_OPTION),
        ("range", DESCRIPTOR_OPTION),
        ("cursor", "write it as `after`"),
    ];
}

const DESCRIPTOR_OPTION: &str = "POST /descriptors takes it";

/// `unsubscribe_descriptor`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnsubscribeDescriptor {
    pub descriptor_id: Option<String>,
    pub descriptor: Option<DescriptorText>,
}

impl Request for UnsubscribeDescriptor {
    const EXAMPLE: &'static str = "{\"descriptor_id\": \"<id>\"}";
}

/// Whom or what an event is about, for the access log; also of one that is not read any further.
/// The text of a descriptor is not logged.
pub fn concerns(args: Args<'_>) -> Option<String> {
    #[derive(Deserialize)]
    struct About {
        address: Option<String>,
        addresses: Option<Vec<IgnoredAny>>,
        consumer: Option<String>,
        descriptor_id: Option<String>,
    }
    let about: About = serde_json::from_str(args.first()?.get()).ok()?;
    let list = about.addresses.map(|list| address::count(list.len()));
    let named = about.address.or(list).or(about.consumer);
    named.or(about.descriptor_id)
}

/// The one argument of an event. Anything beside it would be overlooked.
fn argument<T: Request>(args: &[Box<RawValue>]) -> Result<T, ApiError> {
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

fn unknown_event(name: &str) -> ApiError {
    let known: Vec<&str> = EVENTS.iter().map(|event| event.name).collect();
    let message = format!(
        "There is no event {}; this daemon knows {}.",
        shortened(name),
        known.join(", ")
    );
    ApiError::bad_request("unknown_event", message)
}
