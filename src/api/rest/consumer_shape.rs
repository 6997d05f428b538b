//! How consumers look.

use schemars::JsonSchema;
use serde::Serialize;

use crate::webhooks;

/// What an acknowledgement is answered with.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Acked {
    pub consumer: String,
    /// Everything up to this event is done.
    pub cursor: String,
    /// Events that it wants and has not acknowledged.
    pub lag: u64,
    /// The consumer was further on already.
    #[serde(skip)]
    pub was_further: bool,
}

/// A named reader of events.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Consumer")]
pub struct ConsumerShape {
    pub name: String,
    pub addresses: FilterShape,
    pub descriptors: FilterShape,
    /// It wants blocks and reorgs.
    pub blocks: bool,
    /// Everything up to this event is acknowledged.
    pub cursor: String,
    /// The last event that there is.
    pub head: String,
    /// Events that it wants and has not acknowledged.
    pub lag: u64,
    /// Age of the oldest of these.
    pub lag_seconds: f64,
    /// Seconds since the Unix epoch.
    pub created: f64,
    /// Seconds since the Unix epoch.
    pub last_moved: f64,
    /// Clients that read it now.
    pub readers: usize,
    pub webhook: Option<webhooks::WebhookState>,
}

/// Whose events a consumer wants.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "ConsumerFilter")]
pub enum FilterShape {
    All(All),
    /// How many, in a list of consumers.
    Count(usize),
    /// Which ones.
    Listed(Vec<String>),
}

/// Those of all.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum All {
    All,
}

impl FilterShape {
    pub fn count<T>(wanted: Option<&[T]>) -> Self {
        wanted.map_or(Self::All(All::All), |listed| Self::Count(listed.len()))
    }

    pub fn listed<T>(wanted: Option<&[T]>, text: impl Fn(&T) -> String) -> Self {
        match wanted {
            None => Self::All(All::All),
            Some(listed) => Self::Listed(listed.iter().map(text).collect()),
        }
    }
}

/// All consumers.
#[derive(Serialize, JsonSchema)]
pub struct ConsumerList {
    pub consumers: Vec<ConsumerShape>,
    pub count: usize,
}

/// A consumer that is defined.
#[derive(Serialize, JsonSchema)]
pub struct DefinedConsumer {
    #[serde(flatten)]
    pub shape: ConsumerShape,
    pub message: String,
    /// What its deliveries are signed with, when it was made now: it is not shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// A consumer that is gone.
#[derive(Serialize, JsonSchema)]
pub struct DeletedConsumer {
    pub name: String,
    pub message: String,
}

/// What is done for a consumer.
#[derive(Serialize, JsonSchema)]
pub struct Acknowledged {
    #[serde(flatten)]
    pub acked: Acked,
    pub message: String,
}
