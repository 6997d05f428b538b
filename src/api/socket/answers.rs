//! What clients hear besides the log and the progress of scans.

use bitcoin::Network;
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::rest::consumer_shape::Acked;
use crate::reads::TipShape;
use crate::tracker::DescriptorId;
use crate::wire::error_codes::ErrorCode;
use crate::wire::json::{Balance, server_events};
use crate::wire::{ApiError, address};

server_events! {
    /// What clients hear besides the log and the progress of scans.
    ANSWERS {
        "connected" Connected, "The connection stands; it comes first";
        "subscribed" Subscribed, "A subscription stands; the answer to subscribe_address, subscribe_addresses and subscribe_descriptor";
        "unsubscribed" Unsubscribed, "A subscription has ended; the answer to unsubscribe_address and unsubscribe_descriptor";
        "subscribed_blocks" SubscribedBlocks, "Blocks and reorgs follow; the answer to subscribe_blocks";
        "subscribed_consumer" SubscribedConsumer, "A consumer is read; the answer to subscribe_consumer";
        "unsubscribed_consumer" UnsubscribedConsumer, "A consumer is not read any more; the answer to unsubscribe_consumer";
        "acked" Acked, "A consumer has moved; the answer to ack";
        "caught_up" CaughtUp, "Everything up to its cursor was told: the end of a replay, of what a consumer had not acknowledged, or of a lag";
        "lagged" Lagged, "The client reads more slowly than events come, and is told from the log";
        "error" ErrorEvent, "What the client sent is refused, a consumer's reading has ended, or the session ends";
    }
}

/// The first event.
#[derive(Serialize, JsonSchema)]
pub struct Connected {
    message: &'static str,
    /// Of the daemon.
    version: &'static str,
    network: &'static str,
    tip: Option<TipShape>,
    /// The last event that there is.
    cursor: String,
}

impl Connected {
    pub fn new(network: Network, tip: Option<TipShape>, cursor: String) -> Self {
        Self {
            message: "Connected to satwatch; emit subscribe_address with {\"address\": \"…\"} to hear about an address.",
            version: env!("CARGO_PKG_VERSION"),
            network: address::network_name(network),
            tip,
            cursor,
        }
    }
}

/// Those that there are.
#[derive(Default, Serialize, JsonSchema)]
pub struct Names {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
    /// When a list was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) addresses: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) descriptor_id: Option<String>,
}

impl Names {
    pub(super) fn of_descriptor(id: DescriptorId) -> Self {
        Self {
            descriptor_id: Some(id.to_string()),
            ..Self::default()
        }
    }
}

/// Events follow.
#[derive(Serialize, JsonSchema)]
pub struct Subscribed {
    pub(super) message: String,
    #[serde(flatten)]
    pub(super) names: Names,
    /// Of a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) balance: Option<Balance>,
    /// Of a list that is not long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) balances: Option<Vec<Balance>>,
    /// Events after this one follow.
    pub(super) cursor: String,
    /// Why there is no replay although one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ErrorCode>")]
    pub(super) code: Option<&'static str>,
}

/// Blocks and reorgs follow.
#[derive(Serialize, JsonSchema)]
pub struct SubscribedBlocks {
    pub(super) message: &'static str,
    pub(super) tip: Option<TipShape>,
    /// Events after this one follow.
    pub(super) cursor: String,
}

/// No more events follow.
#[derive(Serialize, JsonSchema)]
pub struct Unsubscribed {
    #[serde(flatten)]
    pub(super) names: Names,
    pub(super) message: String,
}

/// A consumer is read now.
#[derive(Serialize, JsonSchema)]
pub struct SubscribedConsumer {
    pub(super) consumer: String,
    pub(super) message: String,
    /// Events after this one follow.
    pub(super) cursor: String,
    /// The last event that there is.
    pub(super) head: String,
    /// Events that follow at once.
    pub(super) lag: u64,
    /// Why it does not begin where the consumer stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ErrorCode>")]
    pub(super) code: Option<&'static str>,
    /// The oldest cursor that can still be read after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) balances: Option<Vec<Balance>>,
}

/// A consumer is not read any more.
#[derive(Serialize, JsonSchema)]
pub struct UnsubscribedConsumer {
    pub(super) consumer: String,
    pub(super) message: String,
}

/// Something that a client does is refused, or its reading ends.
#[derive(Serialize, JsonSchema)]
pub struct ErrorEvent {
    #[serde(flatten)]
    pub error: ApiError,
    /// Whose reading ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
}

impl From<ApiError> for ErrorEvent {
    fn from(error: ApiError) -> Self {
        let consumer = None;
        Self { error, consumer }
    }
}

/// A client reads more slowly than events come.
#[derive(Serialize, JsonSchema)]
pub struct Lagged {
    /// Everything up to this event was told.
    pub(super) cursor: String,
    /// The last event that there is.
    pub(super) head: String,
    pub(super) message: &'static str,
}

/// A client has heard everything that there was.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub enum CaughtUp {
    /// Of events that it was told of more slowly than they happened.
    Lag {
        cursor: String,
        message: &'static str,
    },
    /// Of a replay that a subscription asked for.
    Replay {
        cursor: String,
        #[serde(flatten)]
        names: Names,
    },
    /// Of what a consumer had not acknowledged.
    Consumer { consumer: String, cursor: String },
}
