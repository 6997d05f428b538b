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
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Entry, Handle, NAMESPACE, PageError, Wire};
use crate::api::recovery::{self, Mark};
use crate::api::replay::{self, END, Room};
use crate::api::subscriptions::Topic;
use crate::socketio::{CloseReason, Encoded, SendError, Socket};

pub struct Lag {
    pub socket: Socket,
    /// Of a recoverable client.
    pub mark: Option<Mark>,
    /// The client hears `lagged` and `caught_up`. One that came back after a loss does not.
    pub is_told: bool,
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
    pub fn new(
        socket: Socket,
        mark: Option<Mark>,
        topics: Vec<Topic>,
        at: u64,
        is_told: bool,
    ) -> Arc<Self> {
        let state = Mutex::new(State {
            topics: topics.into_iter().collect(),
            at,
        });
        Arc::new(Self {
            socket,
            mark,
            is_told,
            over: CancellationToken::new(),
            state,
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offset(&self, wire: &Wire, number: u64) -> Option<String> {
        self.mark
            .as_ref()
            .map(|mark| recovery::offset(&wire.cursor(number), mark.load(Ordering::Relaxed)))
    }

    /// Everything up to `number` is out with this.
    pub fn send(&self, wire: &Wire, number: u64, event: &Encoded) -> Result<(), SendError> {
        match self.offset(wire, number) {
            None => self.socket.send(event),
            Some(offset) => self.socket.send_at(event, &offset),
        }
    }

    /// The end of it, when the client is told of one.
    pub fn caught_up(&self, wire: &Wire, number: u64) -> Option<Result<Encoded, SendError>> {
        let message = "You have been told everything up to here; events come as they happen again.";
        let shape = Lagged {
            cursor: wire.cursor(number),
            head: None,
            message,
        };
        self.is_told
            .then(|| Ok(Encoded::event(NAMESPACE, "caught_up", &shape)?))
    }

    /// One step of the replay.
    fn tell(&self, wire: &Wire, entry: &Entry) -> Result<(), SendError> {
        let mut state = self.lock();
        if state.topics.contains(&entry.topic)
            && let Some(event) = entry.encoded(wire)
        {
            replay::offer(
                &self.socket,
                event,
                self.offset(wire, entry.number).as_deref(),
            )?;
        }
        state.at = entry.number;
        Ok(())
    }

    async fn catch_up(&self, hub: &Handle) -> Result<(), PageError> {
        let pages = &hub.pages;
        if self.is_told {
            if !replay::room(&self.socket, Room::Quarter).await {
                return Ok(());
            }
            let message = "You read more slowly than events come; from this cursor on you are told from the log. Nothing is missing.";
            let (cursor, head) = (
                pages.wire.cursor(self.lock().at),
                Some(pages.wire.cursor(pages.head()?)),
            );
            let Ok(event) = Encoded::event(
                NAMESPACE,
                "lagged",
                &Lagged {
                    cursor,
                    head,
                    message,
                },
            ) else {
                return Ok(());
            };
            if !replay::send(&self.socket, &event).await {
                return Ok(());
            }
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
