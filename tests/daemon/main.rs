//! The daemon from the outside: the built binary beside a real node, through REST, Socket.IO and
//! the stock clients.
//!
//! One binary for all of it, because each links RocksDB. The tests run in parallel, each with a
//! node and a daemon of its own.

#[path = "../common/mod.rs"]
mod common;

mod advice;
mod audit;
mod auth;
mod baseline;
mod browser;
mod bulk;
mod bus;
mod chain;
mod clients;
mod consumers;
mod contract;
mod copies;
mod crash;
mod cursors;
mod descriptors;
mod doctor;
mod documents;
mod edge;
mod event_stream;
mod feed;
mod history;
mod hostile;
mod kit;
mod lag;
mod limits;
mod literals;
mod live;
mod login;
mod mempool;
mod moods;
mod network;
mod page;
mod page_breaks;
mod page_views;
mod pause;
mod progress;
mod proxies;
mod refusals;
mod remedies;
mod reorg;
mod replaceable;
mod reread;
mod rest;
mod stop;
mod tls;
mod tokens_file;
mod unwatch;
mod watch;
mod watching;
mod webhooks;
