//! What stands behind the events of clients: who is let in, and what is watched.
//!
//! Sessions, readers and topics are the same everywhere. What has the store answers from it
//! ([`store_backend`](super::store_backend)); what has none asks a daemon that has.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answers::{Connected, Subscribed, SubscribedBlocks};
use super::subscription::Subscription;
use crate::api::access::Caller;
use crate::auth::{Credential, KeptCredential, Principal};
use crate::consumers::Consumers;
use crate::reads::Reads;
use crate::wire::ApiError;

/// A client that was let in.
#[derive(Debug)]
pub struct Admitted {
    pub principal: Principal,
    pub caller: Caller,
    /// What it showed, where others are asked for it.
    pub credential: Option<Arc<KeptCredential>>,
}

/// Who a client is, and what it showed.
pub type WhoItIs = (Principal, Option<Arc<KeptCredential>>);

/// Consumers are read where the store is.
pub struct OwnConsumers {
    pub consumers: Arc<Consumers>,
    pub reads: Reads,
}

pub trait Backend: Send + Sync {
    /// Whether a client has to say who it is.
    fn asks_who(&self) -> bool;

    /// Who a client is, and what it showed if that is needed later. `at`: where it comes from.
    fn admit<'a>(
        &'a self,
        credential: Credential<'a>,
        at: &'a Caller,
    ) -> BoxFuture<'a, Result<WhoItIs, ApiError>>;

    /// The first event, on the spot.
    fn connected(&self) -> Result<Connected, ApiError>;

    /// Has what is wanted watched, and tells what is known of it. Its topics are registered with
    /// dispatch already. A refusal has begun nothing.
    fn begin<'a>(
        &'a self,
        client: &'a Admitted,
        wanted: Arc<Subscription>,
    ) -> BoxFuture<'a, Result<BegunSubscription, ApiError>>;

    /// An error says where consumers are read instead.
    fn consumers(&self) -> Result<&OwnConsumers, ApiError>;
}

/// A subscription has begun. Also as one daemon tells another.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct BegunSubscription {
    /// What the client is answered with: `subscribed`, or `subscribed_blocks`.
    #[schemars(with = "SubscribedEither")]
    pub subscribed: Box<RawValue>,
    /// Of the last event that it includes.
    pub number: u64,
    /// Of that event.
    pub cursor: String,
    /// The number after which a replay begins; `null` when there is none.
    pub after: Option<u64>,
    /// The event `error` that says why there is none although one was asked for.
    #[schemars(with = "Option<ApiError>")]
    pub error: Option<Box<RawValue>>,
}

/// One of the two.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "what is written already looks like this")]
enum SubscribedEither {
    Subject(Box<Subscribed>),
    Blocks(SubscribedBlocks),
}
