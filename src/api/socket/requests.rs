//! What clients may say over Socket.IO: the table of events, and their arguments.

use std::future::Future;
use std::pin::Pin;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::answers::{
    Subscribed, SubscribedBlocks, SubscribedConsumer, Unsubscribed, UnsubscribedConsumer,
};
use super::consumers::{AckEvent, SubscribeConsumer, UnsubscribeConsumer};
use super::subscription::{NamedDescriptor, Subject, Subscription};
use super::{Call, Parsing};
use crate::api::rest::consumer_shape::Acked;
use crate::api::rest::watchlist::distinct;
use crate::auth::{Scope, needed};
use crate::socketio::Ack;
use crate::wire::address;
use crate::wire::error::{ApiError, shortened};
use crate::wire::json::ServerEvent;
use crate::wire::request::descriptors::DescriptorText;
use crate::wire::request::types::{Addresses, Depths, Unlabelled};
use crate::wire::request::{self, Later, Nothing, Request};
use crate::wire::schema::{self, SchemaOf};

/// A row of the table of events.
pub struct ClientEvent {
    pub name: &'static str,
    /// What the client must be allowed to do.
    pub scope: Option<Scope>,
    /// What it does.
    pub summary: &'static str,
    pub argument: SchemaOf,
    /// The event that answers it.
    pub reply: &'static str,
    /// Of one that begins a subscription: what is wanted.
    pub wanted: Option<for<'a> fn(&'a Parsing, Option<Later>) -> Selection<'a>>,
    pub(super) answer: for<'a> fn(&'a Call, Args<'a>, &'a mut Option<Ack>) -> Answering<'a>,
}

type Selection<'a> = Pin<Box<dyn Future<Output = Result<Subscription, ApiError>> + Send + 'a>>;
type Args<'a> = &'a [Box<RawValue>];
type Answering<'a> = Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send + 'a>>;

/// Name, scope, whether it `begins` a subscription, what it does, its argument, the event that
/// answers it.
macro_rules! events {
    ($(
        $name:literal $scope:ident $($begins:ident)? $summary:literal ($asked:ident: $argument:ty) => $reply:ty
            |$call:ident, $ack:ident| $answer:expr;
    )*) => {
        /// The events of clients.
        pub static EVENTS: &[ClientEvent] = &[$(ClientEvent {
            name: $name,
            scope: needed!($scope),
            summary: $summary,
            argument: schema::of::<$argument>,
            reply: <$reply as ServerEvent>::NAME,
            wanted: wanted!($($begins)? $argument),
            answer: |$call, args, $ack| Box::pin(async move {
                let $asked: $argument = argument(args)?;
                $answer
            }),
        }),*];
    };
}

macro_rules! wanted {
    (begins $argument:ty) => {
        Some(|parsing, sent| {
            Box::pin(async move {
                let asked: $argument = request::later(sent)?;
                asked.wanted(parsing).await
            })
        })
    };
    ($argument:ty) => {
        None
    };
}

// What is not watched yet, and new depths, need more (`crate::api::watchlist`).
events! {
    "subscribe_address" read begins "Watches an address, and tells its events" (asked: SubscribeAddress)
        => Subscribed |call, ack| call.subscribe(asked, ack).await;
    "subscribe_addresses" read begins "The same of a list" (asked: SubscribeAddresses)
        => Subscribed |call, ack| call.subscribe(asked, ack).await;
    "unsubscribe_address" read "No more events of an address" (asked: UnsubscribeAddress)
        => Unsubscribed |call, ack| call.unsubscribe_address(asked, ack);
    "subscribe_descriptor" read begins "Watches a descriptor, and tells its events" (asked: SubscribeDescriptor)
        => Subscribed |call, ack| call.subscribe(asked, ack).await;
    "unsubscribe_descriptor" read "No more events of a descriptor" (asked: UnsubscribeDescriptor)
        => Unsubscribed |call, ack| call.unsubscribe_descriptor(asked, ack).await;
    "subscribe_blocks" read begins "Tells blocks and reorgs" (asked: Nothing)
        => SubscribedBlocks |call, ack| call.subscribe(asked, ack).await;
    "subscribe_consumer" watch "Reads a consumer" (asked: SubscribeConsumer)
        => SubscribedConsumer |call, ack| call.subscribe_consumer(asked, ack).await;
    "unsubscribe_consumer" watch "Reads a consumer no more" (asked: UnsubscribeConsumer)
        => UnsubscribedConsumer |call, ack| call.unsubscribe_consumer(asked, ack);
    "ack" watch "Everything up to a cursor is done for a consumer" (asked: AckEvent)
        => Acked |call, ack| call.acknowledge(asked, ack).await;
}

/// The row of an event.
pub fn find(name: &str) -> Result<&'static ClientEvent, ApiError> {
    let mut events = EVENTS.iter();
    let found = events.find(|event| event.name == name);
    found.ok_or_else(|| unknown_event(name))
}

/// `subscribe_address`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscribeAddress {
    pub address: String,
    /// A cursor: what came after it is told first.
    pub after: Option<String>,
    pub confirmations: Option<Depths>,
    /// Balances come with the answer; true when absent.
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
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscribeAddresses {
    pub addresses: Addresses<Unlabelled>,
    /// A cursor: what came after it is told first.
    pub after: Option<String>,
    pub confirmations: Option<Depths>,
    /// Balances come with the answer; true when absent.
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
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnsubscribeAddress {
    pub address: String,
}

impl Request for UnsubscribeAddress {
    const EXAMPLE: &'static str = "{\"address\": \"<address>\"}";
}

/// `subscribe_descriptor`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscribeDescriptor {
    pub descriptor_id: Option<String>,
    pub descriptor: Option<DescriptorText>,
    /// A cursor: what came after it is told first.
    pub after: Option<String>,
    pub confirmations: Option<Depths>,
    /// Balances come with the answer; true when absent.
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
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnsubscribeDescriptor {
    pub descriptor_id: Option<String>,
    pub descriptor: Option<DescriptorText>,
}

impl Request for UnsubscribeDescriptor {
    const EXAMPLE: &'static str = "{\"descriptor_id\": \"<id>\"}";
}

/// The argument of an event that begins a subscription.
pub trait Begins: Request {
    /// What is wanted; nothing is looked up for it.
    fn wanted(
        self,
        parsing: &Parsing,
    ) -> impl Future<Output = Result<Subscription, ApiError>> + Send;
}

impl Begins for SubscribeAddress {
    async fn wanted(self, parsing: &Parsing) -> Result<Subscription, ApiError> {
        let subject = Subject::Addresses {
            addresses: [parsing.address(&self.address)?].into(),
            many: false,
        };
        let Self {
            confirmations,
            after,
            snapshot,
            ..
        } = self;
        Ok(Subscription::new(subject, confirmations, after, snapshot))
    }
}

impl Begins for SubscribeAddresses {
    async fn wanted(self, parsing: &Parsing) -> Result<Subscription, ApiError> {
        let Self {
            addresses: listed,
            after,
            confirmations,
            snapshot,
        } = self;
        let network = parsing.network;
        let parse = move || {
            let parsed = listed.parse(network)?;
            Ok(distinct(parsed.into_iter().map(|(address, _)| address)).into())
        };
        let subject = Subject::Addresses {
            addresses: parsing.threads.run_long(parse).await?,
            many: true,
        };
        Ok(Subscription::new(subject, confirmations, after, snapshot))
    }
}

impl Begins for SubscribeDescriptor {
    async fn wanted(self, parsing: &Parsing) -> Result<Subscription, ApiError> {
        let wanted = NamedDescriptor::read(parsing, self.descriptor_id, self.descriptor);
        let subject = Subject::Descriptor(wanted.await?);
        let (confirmations, after) = (self.confirmations, self.after);
        Ok(Subscription::new(
            subject,
            confirmations,
            after,
            self.snapshot,
        ))
    }
}

impl Begins for Nothing {
    async fn wanted(self, _parsing: &Parsing) -> Result<Subscription, ApiError> {
        Ok(Subscription::new(Subject::Blocks, None, None, None))
    }
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
