//! Socket.IO: what clients may say, and what they hear besides events.
//!
//! The slow parts of a subscription happen here, in the client's own work, so that they hold up
//! nobody else; the exact hand-over to live is the hub's (its module doc has the steps). A client's
//! next packet is looked at when the work for this one is done.

mod requests;

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::App;
use super::address::{self, KnownAddress};
use super::error::ApiError;
use super::hub::{Join, NAMESPACE, Pausing, Reply};
use super::json::{self, Balance};
use super::request::Nothing;
use super::status::Tip;
use super::subscriptions::Topic;
use super::watching::{balance_in, watched};
use super::watchlist::distinct;
use crate::socketio::{self, Ack, ConnectRefused, ConnectRequest, DisconnectReason, Socket, Work};

pub use requests::EVENTS;
use requests::{
    Kind, SubscribeAddress, SubscribeAddresses, UnsubscribeAddress, argument, unknown_event,
};

/// The answer to a longer list carries no balances: it would not fit the queue of a client twice
/// (the event and its acknowledgement).
const BALANCES: usize = 1000;

/// How often an address that somebody takes off the list just when it is subscribed to is put on it
/// again.
const ADDED_AGAIN: u32 = 3;

/// The application behind Socket.IO.
pub struct Live {
    app: Arc<App>,
}

impl Live {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

impl socketio::Handler for Live {
    async fn authorize(&self, request: ConnectRequest) -> Result<(), ConnectRefused> {
        if &*request.namespace == NAMESPACE {
            Ok(())
        } else {
            Err(ConnectRefused {
                message: "Invalid namespace".to_owned(),
                data: None,
            })
        }
    }

    fn connected(&self, socket: &Socket, _request: &ConnectRequest) {
        #[derive(Serialize)]
        struct Connected {
            message: &'static str,
            version: &'static str,
            network: &'static str,
            tip: Option<Tip>,
            cursor: String,
        }
        let snapshot = self.app.reader.snapshot();
        let state = snapshot
            .head()
            .and_then(|head| Ok((head, Tip::of(&snapshot)?)));
        // A queue that cannot take the first events belongs to a client that is gone.
        let _ = match state {
            Ok((head, tip)) => {
                let message = "Connected to satwatch; emit subscribe_address with {\"address\": \"…\"} to hear about an address.";
                let (network, cursor) = (
                    address::network_name(self.app.wire.network),
                    self.app.wire.cursor(head),
                );
                let shape = Connected {
                    message,
                    version: env!("CARGO_PKG_VERSION"),
                    network,
                    tip,
                    cursor,
                };
                socket.emit("connected", &shape)
            }
            Err(cause) => socket.emit("error", &ApiError::from(cause)),
        };
    }

    fn event(&self, socket: &Socket, event: socketio::Event) -> Option<Work> {
        let client = Client {
            app: self.app.clone(),
            socket: socket.clone(),
        };
        Some(Box::pin(client.obey(event)))
    }

    fn disconnected(&self, socket: &Socket, _reason: DisconnectReason) {
        self.app.hub.leave(socket);
        self.app.consumers.socket_left(socket);
    }
}

/// One client while one of its events is worked on.
struct Client {
    app: Arc<App>,
    socket: Socket,
}

/// What a client wants to subscribe to.
struct Wish {
    addresses: Arc<[KnownAddress]>,
    /// It asked for a list, and is answered with one.
    many: bool,
    depths: Vec<u8>,
    /// Replay what came after this cursor.
    after: Option<String>,
    snapshot: bool,
}

impl Wish {
    fn topics(&self) -> Vec<Topic> {
        self.addresses
            .iter()
            .map(|address| Topic::Script(address.script))
            .collect()
    }
}

/// The event `subscribed`: one address, or a list when a list was asked for.
#[derive(Serialize, Default)]
struct Subscribed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    balance: Option<Balance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    balances: Option<Vec<Balance>>,
    /// Events after this one follow.
    cursor: String,
    /// Why there is no replay although one was asked for: the cursor is not good any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

impl Client {
    async fn obey(self, event: socketio::Event) {
        let mut ack = event.ack;
        if let Err(error) = self.answer(&event.name, &event.args, &mut ack).await {
            let reply = Reply {
                name: "error",
                json: json::to_text(&error),
                ack,
            };
            // A client that cannot be told has left.
            let _ = reply.send(&self.socket).await;
        }
    }

    async fn answer(
        &self,
        name: &str,
        args: &[Box<RawValue>],
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let known = EVENTS.iter().find(|(known, _)| *known == name);
        let (_, kind) = known.ok_or_else(|| unknown_event(name))?;
        let (app, socket) = (&self.app, &self.socket);
        match kind {
            Kind::SubscribeAddress => self.subscribe(self.one(argument(args)?)?, ack).await,
            Kind::SubscribeAddresses => self.subscribe(self.many(argument(args)?)?, ack).await,
            Kind::UnsubscribeAddress => self.unsubscribe(argument(args)?, ack).await,
            Kind::SubscribeBlocks => {
                let Nothing {} = argument(args)?;
                self.subscribe_blocks(ack).await
            }
            Kind::SubscribeConsumer => app.subscribe_consumer(socket, argument(args)?, ack).await,
            Kind::UnsubscribeConsumer => {
                app.unsubscribe_consumer(socket, argument(args)?, ack).await
            }
            Kind::Ack => app.ack_event(socket, argument(args)?, ack).await,
        }
    }

    fn one(&self, asked: SubscribeAddress) -> Result<Wish, ApiError> {
        Ok(Wish {
            addresses: [self.app.address(&asked.address)?].into(),
            many: false,
            depths: asked.confirmations.unwrap_or_default().0,
            after: asked.after,
            snapshot: asked.snapshot.unwrap_or(true),
        })
    }

    fn many(&self, asked: SubscribeAddresses) -> Result<Wish, ApiError> {
        let addresses = asked.addresses.parse(self.app.wire.network)?;
        Ok(Wish {
            addresses: distinct(addresses).into(),
            many: true,
            depths: asked.confirmations.unwrap_or_default().0,
            after: asked.after,
            snapshot: asked.snapshot.unwrap_or(true),
        })
    }

    async fn subscribe(&self, wish: Wish, ack: &mut Option<Ack>) -> Result<(), ApiError> {
        self.app.consumers.check_not_reading(&self.socket)?;
        let topics = wish.topics();
        let place = match &wish.after {
            None => None,
            Some(text) => match self.app.place(text) {
                Ok(number) => Some(Ok(number)),
                Err(error) if matches!(error.code, "cursor_unknown" | "cursor_expired") => {
                    Some(Err(error))
                }
                Err(error) => return Err(error),
            },
        };
        let (after, problem) = match place {
            None => (None, None),
            Some(Ok(number)) => (Some(number), None),
            Some(Err(error)) => (None, Some(error)),
        };
        let pausing = if after.is_some() {
            Pausing::Asked
        } else {
            Pausing::All
        };
        let paused = self
            .app
            .hub
            .pause_what(&self.socket, topics.clone(), pausing)
            .await?;
        let wish = Arc::new(wish);
        let (json, head) = match self.watch(&wish, after, problem.clone()).await {
            Ok(described) => described,
            Err(error) => {
                // What was heard before goes on.
                self.app.hub.go_on(&self.socket, paused).await?;
                return Err(error);
            }
        };
        if let Some(error) = problem
            && !(Reply {
                name: "error",
                json: json::to_text(&error),
                ack: None,
            })
            .send(&self.socket)
            .await
        {
            return Ok(());
        }
        let reply = Reply {
            name: "subscribed",
            json,
            ack: ack.take(),
        };
        match after {
            // Events go on from the snapshot in the answer.
            None => {
                self.app
                    .hub
                    .join_paused(
                        paused,
                        Join {
                            reply: Some(reply),
                            ..Join::at(&self.socket, topics, head)
                        },
                    )
                    .await
            }
            Some(from) => {
                self.replay(&wish, reply, Join::at(&self.socket, topics, from))
                    .await
            }
        }
    }

    /// Sees to it that they are watched: the answer, and the head of the snapshot in it. `problem`:
    /// why it is not a replay.
    async fn watch(
        &self,
        wish: &Arc<Wish>,
        after: Option<u64>,
        problem: Option<ApiError>,
    ) -> Result<(String, u64), ApiError> {
        let mut tries = ADDED_AGAIN;
        loop {
            self.app
                .ensure_watched(wish.addresses.clone(), wish.depths.clone())
                .await?;
            let (wish, problem) = (wish.clone(), problem.clone());
            match self
                .app
                .read(move |app| app.subscribed(&wish, after, problem.as_ref()))
                .await
            {
                // Somebody has taken it off the list meanwhile. Who is answered with `subscribed`
                // hears of what is watched.
                Err(error) if error.code == "not_watched" && tries > 0 => tries -= 1,
                described => return described,
            }
        }
    }

    /// Answers, sends what came later, and goes live at the end of the log. The client may take its
    /// time, but must go on.
    async fn replay(&self, wish: &Wish, reply: Reply, join: Join) -> Result<(), ApiError> {
        let mut caught_up = Map::new();
        match (wish.many, wish.addresses.first()) {
            (false, Some(address)) => {
                drop(caught_up.insert("address".to_owned(), address.text.clone().into()))
            }
            _ => {
                let texts = wish
                    .addresses
                    .iter()
                    .map(|address| Value::from(address.text.clone()));
                caught_up.insert("addresses".to_owned(), texts.collect());
            }
        }
        if !reply.send(&self.socket).await {
            return Ok(());
        }
        self.app
            .hub
            .join(
                Join {
                    caught_up: Some(caught_up),
                    ..join
                },
                true,
            )
            .await
    }

    async fn subscribe_blocks(&self, ack: &mut Option<Ack>) -> Result<(), ApiError> {
        #[derive(Serialize)]
        struct SubscribedBlocks {
            message: &'static str,
            tip: Option<Tip>,
            cursor: String,
        }
        self.app.consumers.check_not_reading(&self.socket)?;
        let topics = vec![Topic::Blocks];
        let paused = self.app.hub.pause(&self.socket, topics.clone()).await?;
        let described = self.app.read(move |app| {
            let snapshot = app.reader.snapshot();
            let (head, tip) = (snapshot.head()?, Tip::of(&snapshot)?);
            let shape = SubscribedBlocks {
                message: "Subscribed to blocks and reorgs.",
                tip,
                cursor: app.wire.cursor(head),
            };
            Ok((json::to_text(&shape), head))
        });
        let (json, from) = match described.await {
            Ok(described) => described,
            Err(error) => {
                self.app.hub.go_on(&self.socket, paused).await?;
                return Err(error);
            }
        };
        let reply = Some(Reply {
            name: "subscribed_blocks",
            json,
            ack: ack.take(),
        });
        self.app
            .hub
            .join_paused(
                paused,
                Join {
                    reply,
                    ..Join::at(&self.socket, topics, from)
                },
            )
            .await
    }

    async fn unsubscribe(
        &self,
        asked: UnsubscribeAddress,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        #[derive(Serialize)]
        struct Unsubscribed {
            address: String,
            message: String,
        }
        let address = self.app.address(&asked.address)?;
        let message = format!("No more events about {} come here.", address.text);
        let json = json::to_text(&Unsubscribed {
            address: address.text,
            message,
        });
        let reply = Reply {
            name: "unsubscribed",
            json,
            ack: ack.take(),
        };
        self.app
            .hub
            .unsubscribe(&self.socket, Topic::Script(address.script), reply)
            .await
    }
}

impl App {
    /// The event `subscribed` as JSON, and the head of the snapshot in it, in which all are
    /// watched. `after`: the cursor of a replay instead of the snapshot's.
    fn subscribed(
        &self,
        wish: &Wish,
        after: Option<u64>,
        problem: Option<&ApiError>,
    ) -> Result<(String, u64), ApiError> {
        let snapshot = self.reader.snapshot();
        let head = snapshot.head()?;
        let short = wish.addresses.len() <= BALANCES;
        let balances = match short && (wish.snapshot || problem.is_some()) {
            true => Some(
                wish.addresses
                    .iter()
                    .map(|address| balance_in(&snapshot, address, &self.wire))
                    .collect::<Result<Vec<_>, _>>()?,
            ),
            false => {
                wish.addresses
                    .iter()
                    .try_for_each(|address| watched(&snapshot, address).map(drop))?;
                None
            }
        };
        let cursor = self.wire.cursor(after.unwrap_or(head));
        let mut shape = Subscribed {
            cursor,
            error: problem.map(|it| it.message.as_str()),
            code: problem.map(|it| it.code),
            ..Default::default()
        };
        match (wish.many, wish.addresses.first()) {
            (false, Some(address)) => {
                shape.address = Some(&address.text);
                shape.message = format!("Subscribed to {}.", address.text);
                shape.balance = balances.and_then(|balances| balances.into_iter().next());
            }
            _ => {
                shape.addresses = Some(
                    wish.addresses
                        .iter()
                        .map(|address| address.text.as_str())
                        .collect(),
                );
                shape.count = Some(wish.addresses.len());
                let hint = if short {
                    ""
                } else {
                    " For balances of so many, read GET /addresses."
                };
                shape.message = format!("Subscribed to {} addresses.{hint}", wish.addresses.len());
                shape.balances = balances;
            }
        }
        Ok((json::to_text(&shape), head))
    }
}
