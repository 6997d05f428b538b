//! Clients that mean no good, at a whole daemon, and beside them clients that mean well.
//!
//! # The law
//!
//! Whatever the hostile ones do, who means well notices nothing: each of three clients (a WebSocket
//! of Socket.IO, a polling one, and a reader of `GET /events`) hears every event of its address
//! once and in order, on the connection that it began with, and is refused nothing; the daemon
//! stays ready; and what the hostile ones took is given back: connections, sessions,
//! subscriptions, bytes, open files. [`well_behaved`] holds it.
//!
//! One file is one family of attacks, with a daemon that its tests share as far as they can. What
//! holds an attack off is a bound or a check somewhere; each test was seen to fail without it.
//! `tests/protocol/hostile.rs` does the like to the protocol layers alone, a thousand at a time.

use std::sync::{Arc, Mutex, Weak};

use crate::common::Node;

mod cross_site;
mod floods;
mod guessing;
mod injection;
mod oversized;
mod paths;
mod raw;
mod revoked_replay;
mod slow;
mod smuggling;
mod strangers;
mod subscriptions;
mod tls;
mod well_behaved;

/// One node for all tests that run at the same time: each watches and pays addresses of its own.
fn node() -> Arc<Node> {
    static NODE: Mutex<Weak<Node>> = Mutex::new(Weak::new());
    let mut shared = NODE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    shared.upgrade().unwrap_or_else(|| {
        let node = Arc::new(Node::start());
        *shared = Arc::downgrade(&node);
        node
    })
}
