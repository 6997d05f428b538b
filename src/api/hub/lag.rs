//! A subscriber that reads more slowly than events come: it is told from the log until it has
//! caught up.
//!
//! ```text
//!                 queue full at event n                    the rest fits (between two events)
//! live in the hub ─────────────────────► lagging from n-1 ─────────────────────────────────► live in the hub
//!                                         │  ▲ │                                    `caught_up`
//!                                `lagged` └──┘ └─ takes nothing for 30 s, retention passes it, leaves ──► gone
//! ```
//! Its topics live here meanwhile, so that the hub does not touch it with each event. Whoever sends
//! it an event looks at them and queues it under one lock; so does whoever takes a topic away, and
//! nothing of that topic comes behind the answer.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Entry, Handle, NAMESPACE, PageError, Wire};
use crate::api::replay::{self, END, Room};
use crate::api::subscriptions::Topic;
use crate::socketio::{CloseReason, Encoded, SendError, Socket};

pub struct Lag {
    pub socket: Socket,
    /// Cancelled when the client is live again or gone.
    pub over: CancellationToken,
    state: Mutex<State>,
}

pub struct State {
    pub topics: HashSet<Topic>,
    /// It was told up to this number.
    pub at: u64,
}

#[derive(Serialize)]
struct Lagged<'a> {
    cursor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<String>,
    message: &'a str,
}

impl Lag {
    pub fn new(socket: Socket, topics: Vec<Topic>, at: u64) -> Arc<Self> {
        let state = Mutex::new(State {
            topics: topics.into_iter().collect(),
            at,
        });
        Arc::new(Self {
            socket,
            over: CancellationToken::new(),
            state,
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One step of the replay.
    fn tell(&self, wire: &Wire, entry: &Entry) -> Result<(), SendError> {
        let mut state = self.lock();
        if state.topics.contains(&entry.topic)
            && let Some(event) = entry.encoded(wire)
        {
            replay::offer(&self.socket, event)?;
        }
        state.at = entry.number;
        Ok(())
    }

    async fn catch_up(&self, hub: &Handle) -> Result<(), PageError> {
        let pages = &hub.pages;
        if !replay::room(&self.socket, Room::Quarter).await {
            return Ok(());
        }
        let message = "You read more slowly than events come; from this cursor on you are told from the log. Nothing is missing.";
        let shape = Lagged {
            cursor: pages.wire.cursor(self.lock().at),
            head: Some(pages.wire.cursor(pages.head()?)),
            message,
        };
        let Ok(event) = Encoded::event(NAMESPACE, "lagged", &shape) else {
            return Ok(());
        };
        if !replay::send(&self.socket, &event).await {
            return Ok(());
        }
        loop {
            let at = self.lock().at;
            let Some(at) = replay::send_log(pages, &self.socket, at, END, |entry| {
                self.tell(&pages.wire, entry)
            })
            .await?
            else {
                return Ok(());
            };
            self.lock().at = at;
            if hub
                .resume(&self.socket)
                .await
                .map_err(|_| PageError::Stopped)?
            {
                return Ok(());
            }
        }
    }
}

/// The end of a lag.
pub fn caught_up(wire: &Wire, number: u64) -> Result<Encoded, SendError> {
    let message = "You have been told everything up to here; events come as they happen again.";
    let shape = Lagged {
        cursor: wire.cursor(number),
        head: None,
        message,
    };
    Ok(Encoded::event(NAMESPACE, "caught_up", &shape)?)
}

/// Runs until the client is live again or gone.
pub async fn run(lag: Arc<Lag>, hub: Handle) {
    let ended = tokio::select! {
        biased;
        () = lag.over.cancelled() => return,
        ended = lag.catch_up(&hub) => ended,
    };
    if let Err(cause) = ended {
        // It comes back with the cursor that it has, and is told what to do.
        tracing::info!(id = lag.socket.id(), %cause, "closing a client that lags");
        lag.socket.close(CloseReason::ForcedClose);
    }
    if !lag.over.is_cancelled() {
        hub.leave(&lag.socket);
    }
}
