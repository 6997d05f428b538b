//! The harness for tests with a real node: a bitcoind of its own for each test, the daemon as a
//! child process, and clients.
//!
//! ```text
//! Node     regtest bitcoind in a temporary folder, with a wallet      (node.rs)
//! Daemon   the built `satwatch`, or an edge of one, on a port that it picked (daemon.rs)
//! Client   Socket.IO over a bare WebSocket, for what tests look at    (client.rs)
//! Program  a script in another language, its output line by line      (program.rs)
//! Feed     a line between both that loses ZMQ messages                (feed.rs)
//! RedisServer a redis-server in a temporary folder                    (redis_server.rs)
//! RpcProxy a line between both with the moods of a node's RPC         (rpc_proxy.rs)
//! oracle   what the node itself says about an address                 (oracle.rs)
//! ledger   the daemon's event log and its laws                        (ledger.rs)
//! tls      pairs of certificate and key, and connections over TLS     (tls.rs)
//! status_changes   the legal changes of a status                      (status_changes.rs)
//! ```
//!
//! Everything ends, by process id, when its value is dropped. Nothing is skipped: without a node or
//! a client package the test fails, and says that `contrib/setup.sh` installs it. Waiting is always
//! for a condition, with a generous deadline that only a failing test reaches.

// Each test binary uses its part of this.
#![allow(dead_code)]

pub mod client;
pub mod daemon;
pub mod feed;
pub mod http;
pub mod ledger;
pub mod node;
pub mod oracle;
pub mod program;
pub mod redis_server;
pub mod rpc_proxy;
pub mod status_changes;
pub mod tls;

pub use client::{Client, open_websocket};
pub use daemon::{Answer, Daemon};
pub use feed::Feed;
pub use node::Node;
pub use program::Program;
pub use redis_server::RedisServer;
pub use rpc_proxy::RpcProxy;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a condition may take before the test fails. Far above what any of them needs, even on a
/// busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Satoshi in one bitcoin.
pub const COIN: i64 = 100_000_000;

/// Looks until there is something; panics with `what` when the deadline passes.
pub fn wait_until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_for(DEADLINE, look).unwrap_or_else(|| panic!("not within {DEADLINE:?}: {what}"))
}

/// Looks until there is something or the time is over.
pub fn wait_for<T>(time: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + time;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The top of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where `contrib/setup.sh` puts what it installs.
pub fn installed() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache")
    });
    cache.join("satwatch")
}
