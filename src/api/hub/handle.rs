//! What one says to the hub, and what comes back.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Entry, NAMESPACE, PageError, Pages};
use crate::api::error::ApiError;
use crate::api::replay::{self, END, Room};
use crate::api::subscriptions::Topic;
use crate::socketio::{Ack, EncodeError, Encoded, SendError, Socket};
use crate::tracker::{ScanId, ScriptHash};

/// How long a request for a subscription waits until the client has caught up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An event and its acknowledgement, which carries the same object.
pub struct Reply {
    pub name: &'static str,
    pub json: String,
    pub ack: Option<Ack>,
}

impl Reply {
    pub fn event(&self) -> Result<Encoded, SendError> {
        Ok(Encoded::event_raw(NAMESPACE, self.name, &self.json)?)
    }

    /// Queues the acknowledgement, or keeps it when there is no room.
    pub fn acknowledge(&mut self) -> Result<(), SendError> {
        let Some(ack) = self.ack.take() else {
            return Ok(());
        };
        let raw: &RawValue = serde_json::from_str(&self.json).map_err(EncodeError::from)?;
        ack.try_send(raw).map_err(|(error, ack)| {
            self.ack = Some(ack);
            error
        })
    }

    /// The event, and the acknowledgement behind it, when there is room. False when the client has
    /// left.
    pub async fn send(self, socket: &Socket) -> bool {
        let Ok(event) = self.event() else {
            return false;
        };
        replay::send(socket, &event).await && self.send_acknowledgement(socket).await
    }

    /// What is left when the event is out.
    pub async fn send_acknowledgement(mut self, socket: &Socket) -> bool {
        let mut wanted = Room::Quarter;
        loop {
            match self.acknowledge() {
                Ok(()) => return true,
                Err(SendError::Full) => {}
                Err(_) => return false,
            }
            if !replay::room(socket, std::mem::replace(&mut wanted, Room::Empty)).await {
                return false;
            }
        }
    }
}

/// Step 4 of a subscription.
pub struct Join {
    pub socket: Socket,
    pub topics: Vec<Topic>,
    /// Events after this number are owed to the socket, behind the reply.
    pub from: u64,
    pub reply: Option<Reply>,
    /// Sent when nothing is owed any more, with the cursor added: the end of a replay.
    pub caught_up: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Join {
    /// Makes the socket live with these topics; it was told of them up to `from`.
    pub fn at(socket: &Socket, topics: Vec<Topic>, from: u64) -> Self {
        Self {
            socket: socket.clone(),
            topics,
            from,
            reply: None,
            caught_up: None,
        }
    }
}

/// What became of a [`Join`].
#[derive(Default)]
pub struct Joined {
    /// What did not fit the client's queue: to be tried again, once the client has been told the
    /// log up to about the head.
    pub rest: Option<Join>,
    /// Its event is out, its acknowledgement not yet.
    pub reply: Option<Reply>,
    /// The client lags in its other subscriptions; it is to be tried again when that is over.
    pub lag: Option<CancellationToken>,
}

/// What of an answer is still to be sent.
pub enum Unsent {
    Nothing,
    All(Reply),
    Acknowledgement(Reply),
}

/// Which live topics a pause takes off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pausing {
    /// All that the socket has, if it has one of those that it asks for: what it hears stays in the
    /// order of the numbers.
    All,
    /// Those that it asks for again after an older cursor; the others go on meanwhile.
    Asked,
}

/// Step 1 of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    /// The topics that were live until now.
    pub live: Vec<Topic>,
    /// They were told up to this number.
    pub seen: u64,
}

/// Why it does not begin.
pub enum NotPaused {
    Refused(ApiError),
    /// Not before this is over.
    Lagging(CancellationToken),
}

/// What `/status` shows of the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub subscribers: usize,
    pub subscriptions: usize,
    /// Subscribers that are being told from the log because they read too slowly.
    pub lagging: usize,
    /// Live subscribers have been told up to this number.
    pub seen: u64,
}

/// How a history scan is doing: for those who are subscribed to any of its scripts, each once, if
/// their queues have room.
pub struct ScanNews {
    pub scan: ScanId,
    pub scripts: Arc<[ScriptHash]>,
    pub event: Encoded,
    /// It says that the scan has ended. What says something else is dropped when the scan has ended
    /// meanwhile.
    pub is_last: bool,
}

fn lagging() -> ApiError {
    let message = "You read more slowly than events come and are still being told what you missed. Wait for `caught_up`, then subscribe; or use another connection.";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "lagging", message)
}

pub(super) enum Command {
    Pause {
        socket: Socket,
        topics: Vec<Topic>,
        pausing: Pausing,
        answer: oneshot::Sender<Result<Paused, NotPaused>>,
    },
    Join {
        join: Box<Join>,
        answer: oneshot::Sender<Joined>,
    },
    Unsubscribe {
        socket: Socket,
        topic: Topic,
        reply: Reply,
        answer: oneshot::Sender<Unsent>,
    },
    Leave {
        socket: Socket,
    },
    Resume {
        socket: Socket,
        answer: oneshot::Sender<bool>,
    },
    Scan {
        news: ScanNews,
    },
    SubscriptionsOf {
        socket: Socket,
        answer: oneshot::Sender<usize>,
    },
    Counts {
        answer: oneshot::Sender<Counts>,
    },
}

/// Commands to the hub. Each call is answered when the hub has done it.
#[derive(Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub pages: Arc<Pages>,
}

impl Handle {
    /// A client that lags catches up first.
    pub async fn pause(&self, socket: &Socket, topics: Vec<Topic>) -> Result<Paused, ApiError> {
        self.pause_what(socket, topics, Pausing::All).await
    }

    pub async fn pause_what(
        &self,
        socket: &Socket,
        topics: Vec<Topic>,
        pausing: Pausing,
    ) -> Result<Paused, ApiError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let over = match self
                .ask(|answer| Command::Pause {
                    socket: socket.clone(),
                    topics: topics.clone(),
                    pausing,
                    answer,
                })
                .await?
            {
                Ok(paused) => return Ok(paused),
                Err(NotPaused::Refused(error)) => return Err(error),
                Err(NotPaused::Lagging(over)) => over,
            };
            tokio::time::timeout_at(deadline, over.cancelled())
                .await
                .map_err(|_| lagging())?;
        }
    }

    /// The paused topics go on where they were.
    pub async fn go_on(&self, socket: &Socket, paused: Paused) -> Result<(), ApiError> {
        self.join(Join::at(socket, paused.live, paused.seen), false)
            .await
    }

    /// The paused topics first are told up to the reply, and are live again with the others behind
    /// it.
    pub async fn join_paused(&self, paused: Paused, mut join: Join) -> Result<(), ApiError> {
        if self
            .tell_log(&join.socket, &paused.live, paused.seen, join.from)
            .await?
            .is_none()
        {
            return Ok(());
        }
        join.topics.extend(paused.live);
        self.join(join, false).await
    }

    /// As [`replay::send_log`], what these topics are told.
    async fn tell_log(
        &self,
        socket: &Socket,
        topics: &[Topic],
        from: u64,
        until: u64,
    ) -> Result<Option<u64>, PageError> {
        if topics.is_empty() || from >= until {
            return Ok(Some(from));
        }
        let topics: HashSet<&Topic> = topics.iter().collect();
        let tell = |entry: &Entry| match entry
            .encoded(&self.pages.wire)
            .filter(|_| topics.contains(&entry.topic))
        {
            Some(event) => replay::offer(socket, event),
            None => Ok(()),
        };
        replay::send_log(&self.pages, socket, from, until, tell).await
    }

    /// Makes the socket live, however long it takes to tell the client what it is owed until then.
    /// `is_far`: that is much of the log. Nothing more happens when the client has left.
    pub async fn join(&self, mut join: Join, mut is_far: bool) -> Result<(), ApiError> {
        let (socket, mut wanted) = (join.socket.clone(), Room::Quarter);
        loop {
            if is_far {
                match self.tell_log(&socket, &join.topics, join.from, END).await? {
                    Some(at) => join.from = at,
                    None => return Ok(()),
                }
            }
            let before = (join.from, join.reply.is_some());
            let Joined { rest, reply, lag } = self
                .ask(|answer| Command::Join {
                    join: Box::new(join),
                    answer,
                })
                .await?;
            if let Some(reply) = reply
                && !reply.send_acknowledgement(&socket).await
            {
                return Ok(());
            }
            let Some(rest) = rest else { return Ok(()) };
            let is_further = before != (rest.from, rest.reply.is_some());
            if is_further || lag.is_some() {
                // A queue that others fill at the same time need not be empty ever.
                wanted = Room::Quarter;
            }
            if let Some(over) = lag {
                over.cancelled().await;
            }
            if !replay::room(&socket, std::mem::replace(&mut wanted, Room::Empty)).await {
                return Ok(());
            }
            is_far = rest.reply.is_none();
            join = rest;
        }
    }

    /// No event of this topic comes behind the reply.
    pub async fn unsubscribe(
        &self,
        socket: &Socket,
        topic: Topic,
        mut reply: Reply,
    ) -> Result<(), ApiError> {
        let mut wanted = Room::Quarter;
        loop {
            reply = match self
                .ask(|answer| Command::Unsubscribe {
                    socket: socket.clone(),
                    topic,
                    reply,
                    answer,
                })
                .await?
            {
                Unsent::Nothing => return Ok(()),
                Unsent::All(reply) => reply,
                Unsent::Acknowledgement(reply) => {
                    reply.send_acknowledgement(socket).await;
                    return Ok(());
                }
            };
            if !replay::room(socket, std::mem::replace(&mut wanted, Room::Empty)).await {
                return Ok(());
            }
        }
    }

    /// The client of a lag takes the rest at once, if it can: true when it is live, or gone.
    pub(super) async fn resume(&self, socket: &Socket) -> Result<bool, ApiError> {
        self.ask(|answer| Command::Resume {
            socket: socket.clone(),
            answer,
        })
        .await
    }

    pub async fn subscriptions_of(&self, socket: &Socket) -> Result<usize, ApiError> {
        self.ask(|answer| Command::SubscriptionsOf {
            socket: socket.clone(),
            answer,
        })
        .await
    }

    pub async fn counts(&self) -> Result<Counts, ApiError> {
        self.ask(|answer| Command::Counts { answer }).await
    }

    /// Does not wait until they are told.
    pub async fn tell_scan(&self, news: ScanNews) -> Result<(), ApiError> {
        self.commands
            .send(Command::Scan { news })
            .await
            .map_err(|_| ApiError::stopping())
    }

    /// The socket is gone. Does not wait.
    pub fn leave(&self, socket: &Socket) {
        self.tell(Command::Leave {
            socket: socket.clone(),
        });
    }

    fn tell(&self, command: Command) {
        let Err(mpsc::error::TrySendError::Full(command)) = self.commands.try_send(command) else {
            return;
        };
        let commands = self.commands.clone();
        // A stopped hub has no subscriptions to clean up.
        tokio::spawn(async move { drop(commands.send(command).await) });
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(command(answer))
            .await
            .map_err(|_| ApiError::stopping())?;
        answered.await.map_err(|_| ApiError::stopping())
    }
}
