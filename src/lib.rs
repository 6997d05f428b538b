//! satwatch tells people the moment their bitcoin moves: it sits beside a Bitcoin Core node, keeps
//! what concerns the watched addresses in RocksDB, and pushes every change over Socket.IO and REST.
//!
//! # Data flow
//!
//! ```text
//! bitcoind --ZMQ, RPC--> follower, history --Input--> indexer: tracker.apply -> Transition -> store.commit (one batch)
//!                                                          |                                     state + event log
//!                                                          v head: a number, nothing else            |
//!    clients <-- engineio <-- socketio <-- api::socket <--+                                          |
//!  receivers <-- HTTP ----------------------- webhooks <--+-- events ------- reads the log ----------+
//!      Redis <------------------------------- bus <-------+
//!    clients <-- server --------------------- api::rest <-+-- reads -------- one snapshot -----------+
//! ```
//!
//! An edge (`satwatch edge`) has the lower half alone: its log is the stream on Redis
//! ([`bus::stream`]), and what needs the store is asked of another daemon ([`primary`]).
//!
//! # Five laws
//!
//! 1. The core ([`tracker`]) is pure: no I/O, clock, lock, channel or log in it.
//! 2. One owner, one commit: one thread owns the tracker and the writing side of the store; rows,
//!    events and tip go into one batch. A failed commit ends the process, and the restart reads
//!    what was committed.
//! 3. The log is the message bus: a commit publishes a number, and whoever sends to clients reads
//!    the log.
//! 4. The protocol layers ([`engineio`], [`socketio`], [`server`]) know nothing of what is sent
//!    over them.
//! 5. Talking to the node is separate from indexing: the indexer never waits for the network.
//!
//! # Layers
//!
//! A module may import what stands behind the arrow, and nothing else of ours; `tests/layering`
//! checks it.
//!
//! ```text
//! clock, shutdown, web, remedy  -> (nothing)
//! config, open_files       -> remedy
//! auth                     -> access, store (its rows), indexer, clock, remedy
//! certificates             -> config (its section), remedy
//! tracker, descriptors     -> (nothing)
//! store                    -> tracker
//! indexer                  -> tracker, store
//! derivation               -> tracker, descriptors, store (reading), indexer, clock
//! bitcoind                 -> tracker (its plain types), store (the chain's name), config (its section), clock, remedy
//! history                  -> tracker, descriptors, store (reading), indexer, bitcoind, clock
//! follower                 -> tracker, store (reading), indexer, bitcoind, history, config (its section), clock, remedy
//! access                   -> (nothing)
//! limits                   -> config (its sections), server (what a limit's use looks like)
//! engineio                 -> (nothing)
//! socketio                 -> engineio
//! server                   -> (nothing)
//! wire                     -> tracker, store (the list of starts), socketio (encoded events)
//! reads                    -> tracker, store (reading), wire
//! events                   -> tracker, store (reading), socketio (encoded packets), wire, reads
//! consumers                -> tracker, store, indexer, events, reads, wire, config (its section)
//! bus                      -> store (reading), events, wire, config (its section), remedy, clock
//! http_client              -> (nothing)
//! primary                  -> auth, wire, bus (older pages of a stream), config (its section), http_client, remedy, clock
//! webhooks                 -> tracker, store, indexer, events, consumers, reads, wire, config (its section), clock
//! api                      -> access, auth, limits, events, consumers, webhooks, bus (its status), primary, reads, tracker, store (reading), indexer, bitcoind (its status), history (its requests), descriptors (parsing), derivation (waiting for it), socketio, wire, web, server (its plain types), certificates (their status), config (its sections), clock
//! watch                    -> config (its sections), descriptors (to find private keys), http_client, remedy
//! progress                 -> store (reading), bitcoind (its status), history (how far scans are)
//! app, cli, doctor, token  -> everything
//! ```
//!
//! The follower reads the store because it asks which baselines are open and which block is our tip
//! at its start; `api` reads `bitcoind::NodeStatus` through a watch channel because `/status` and
//! `/health/ready` tell it.
//!
//! [`app`] builds all of it and takes it down again; [`token`] is `satwatch token …`; [`watch`] is
//! `satwatch watch`, a client; [`progress`] draws on the daemon's terminal; `main` is flags,
//! logging and the exit code.

pub mod access;
pub mod api;
pub mod app;
pub mod auth;
pub mod bitcoind;
pub mod bus;
pub mod certificates;
pub mod cli;
pub mod clock;
pub mod config;
pub mod consumers;
pub mod derivation;
pub mod descriptors;
pub mod doctor;
pub mod engineio;
pub mod events;
pub mod follower;
pub mod history;
pub mod http_client;
pub mod indexer;
pub mod limits;
pub mod open_files;
pub mod primary;
pub mod progress;
pub mod reads;
pub mod remedy;
pub mod server;
pub mod shutdown;
pub mod socketio;
pub mod store;
#[cfg(test)]
mod test_end;
pub mod token;
pub mod tracker;
pub mod watch;
pub mod web;
pub mod webhooks;
pub mod wire;
