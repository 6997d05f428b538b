//! No part of the interface: what clients may say, for the fuzz targets alone.

use hyper::Method;

use super::rest::{
    address_queries, addresses, consumers, descriptors, edge, event_stream, events, labels,
    matched, scans, session, utxos, watchlist, webhooks,
};
use super::socket::{consumers as socket_consumers, requests};
use crate::wire::error::ApiError;
use crate::wire::request::{self, Nothing};

/// The path of a request as the table of routes has it.
pub fn find_route(path: &str, method: &Method) -> Result<&'static str, ApiError> {
    let matched = matched::find(path).ok_or_else(|| ApiError::no_such_route(path))?;
    matched.route(method).map(|route| route.path)
}

/// A type that routes or events read.
pub struct Said {
    pub name: &'static str,
    /// From a body, or an event's argument.
    pub object: fn(&[u8]) -> Result<(), ApiError>,
    /// From a query, percent-decoded.
    pub query: fn(&str) -> Result<(), ApiError>,
}

macro_rules! said {
    ($($type:path,)*) => {
        pub const SAID: &[Said] = &[$(Said {
            name: stringify!($type),
            object: |text| request::object::<$type>(text).map(drop),
            query: |text| request::query::<$type>(text, true).map(drop),
        }),*];
    };
}

said! {
    Nothing,
    address_queries::ListTransactions,
    addresses::ListAddresses,
    consumers::AckConsumer,
    consumers::PutConsumer,
    descriptors::AddDescriptor,
    descriptors::ListDescriptors,
    descriptors::addresses::ListDerived,
    descriptors::addresses::NextAddress,
    edge::BeginSubscription,
    edge::FollowTokens,
    event_stream::StreamEvents,
    events::ReadEvents,
    labels::ChangeLabel,
    scans::ScanList,
    scans::ScanOne,
    session::LogIn,
    utxos::ListUtxos,
    watchlist::AddAddress,
    watchlist::AddAddresses,
    webhooks::DropDeadLetters,
    webhooks::ListDeadLetters,
    webhooks::ResendDeadLetters,
    requests::SubscribeAddress,
    requests::SubscribeAddresses,
    requests::SubscribeDescriptor,
    requests::UnsubscribeAddress,
    requests::UnsubscribeDescriptor,
    socket_consumers::AckEvent,
    socket_consumers::SubscribeConsumer,
    socket_consumers::UnsubscribeConsumer,
}
