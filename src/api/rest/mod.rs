//! REST: one file for each resource, one row of the table for each route.
//!
//! # Laws
//!
//! * A route is a row of the table in [`routes`]: method, path, what it takes, how its answer
//!   looks, what answers it. Nothing else spells one, and the contract is made from it.
//! * What a request says is read by a type that refuses what it does not know ([`sent`]); nothing
//!   in it is overlooked.
//! * Bodies and answers under way count in one budget ([`budget`]); a long answer is rendered part
//!   by part, when the connection takes it ([`body`]).
//! * The store is read, and long bodies are parsed, away from the runtime's workers
//!   (`crate::reads`).
//!
//! ```text
//! router ─► matched ─► sent ─► route ─► a resource ─► respond ─► body
//!              status     status, start, stop, health; status_shape: how it looks
//!              watchlist  addresses: add, take off
//!              addresses  the watch list in pages
//!              labels     what addresses and descriptors are called
//!              address_queries   balance, transactions
//!              utxos      unspent outputs, in pages or whole
//!              scans      history scans: ask for, look at, cancel
//!              descriptors  wallets: add, list, take off; what is known of one; its addresses
//!              audit      our outputs beside the node's
//!              events     the log, with long polling; event_stream: as server-sent events
//!              consumers  named consumers: define, list, forget, acknowledge (consumer_shape: how
//!                         they look); reading: read one
//!              webhooks   dead letters, a test delivery, another try
//!              edge       what edges ask: subscriptions, and who is let in
//!              token      who asks
//!              session    the page logs in and out
//!              metrics    for Prometheus
//! ```

pub mod address_queries;
pub mod addresses;
pub mod audit;
pub mod body;
pub mod budget;
pub mod consumer_shape;
pub mod consumers;
pub mod descriptors;
pub mod edge;
pub mod event_stream;
pub mod events;
pub mod labels;
pub mod matched;
pub mod metrics;
pub mod reading;
pub mod respond;
pub mod route;
pub mod routes;
pub mod scans;
pub mod sent;
pub mod session;
pub mod status;
mod status_shape;
mod token;
pub mod utxos;
pub mod watchlist;
pub mod webhooks;
