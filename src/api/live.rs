//! Socket.IO: what clients may say, and what they hear besides events.
//!
//! The slow parts of a subscription happen here, in the client's own work, so that they hold up nobody else; the exact hand-over to
//! live is the hub's (its module doc has the steps). A client's next packet is looked at when the work for this one is done.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::App;
use super::address::{self, KnownAddress};
use super::error::{ApiError, shortened};
use super::fields::Fields;
use super::hub::{Join, NAMESPACE, PAGE, Paused, Reply, events_between};
use super::json::{self, Balance};
use super::recovery;
use super::status::Tip;
use super::subscriptions::Topic;
use super::watching::{balance_in, distinct};
use crate::socketio::{self, Ack, CloseReason, ConnectRefused, ConnectRequest, DisconnectReason, Encoded, SendError, Socket, Work};

/// A client that takes nothing for this long while we replay to it is closed.
const STALLED: Duration = Duration::from_secs(30);
/// How often we look whether its queue has room again.
const PAUSE: Duration = Duration::from_millis(10);
/// Less than this waiting to be sent: the client keeps up and can go live.
const DRAINED_BYTES: usize = 64 << 10;

/// The answer to a longer list carries no balances: it would not fit the queue of a client twice (the event and its acknowledgement).
const BALANCES: usize = 1000;

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
        if &*request.namespace == NAMESPACE { Ok(()) } else { Err(ConnectRefused { message: "Invalid namespace".to_owned(), data: None }) }
    }

    /// The first event has an offset too, so that a client that hears nothing more can be recovered.
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
        let state = snapshot.head().and_then(|head| Ok((head, Tip::of(&snapshot)?)));
        // A queue that cannot take the first events belongs to a client that is gone.
        let _ = match state {
            Ok((head, tip)) => {
                let message = "Connected to satwatch; emit subscribe_address with {\"address\": \"…\"} to hear about an address.";
                let (network, cursor) = (address::network_name(self.app.wire.network), self.app.wire.cursor(head));
                let offset = recovery::offset(&cursor, recovery::NOTHING);
                let shape = Connected { message, version: env!("CARGO_PKG_VERSION"), network, tip, cursor };
                Encoded::event(NAMESPACE, "connected", &shape).map_err(Into::into).and_then(|event| socket.send_at(&event, &offset))
            }
            Err(cause) => socket.emit("error", &ApiError::from(cause)),
        };
    }

    fn event(&self, socket: &Socket, event: socketio::Event) -> Option<Work> {
        let client = Client { app: self.app.clone(), socket: socket.clone() };
        Some(Box::pin(client.obey(event)))
    }

    fn disconnected(&self, socket: &Socket, _reason: DisconnectReason) {
        self.app.hub.leave(socket);
    }

    fn is_recoverable(&self, _request: &ConnectRequest) -> bool {
        true
    }

    async fn can_resume(&self, id: &str, _request: &ConnectRequest, offset: &str) -> bool {
        let Some((cursor, mark)) = recovery::parse(offset) else { return false };
        self.app.place(cursor).is_ok() && matches!(self.app.hub.lost(id, mark).await, Ok(Some(_)))
    }

    async fn resume(&self, socket: &Socket, _request: &ConnectRequest, offset: &str) {
        let client = Client { app: self.app.clone(), socket: socket.clone() };
        if let Err(error) = client.come_back(offset).await {
            // It believes to be recovered; so it tries again, with the offset that it has got to.
            tracing::info!(id = socket.id(), %error, "a lost client could not be recovered");
            socket.close(CloseReason::ForcedClose);
        }
    }

    fn forgotten(&self, id: &str) {
        self.app.hub.forget(id);
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
        self.addresses.iter().map(|address| Topic::Script(address.script)).collect()
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
        let argument = event.args.first().map_or("null", |raw| raw.get());
        let fields = || Fields::parse(argument.as_bytes());
        let result = match event.name.as_str() {
            "subscribe_address" => self.subscribe_one(fields(), &mut ack).await,
            "subscribe_addresses" => self.subscribe_many(fields(), &mut ack).await,
            "unsubscribe_address" => self.unsubscribe(fields(), &mut ack).await,
            "subscribe_blocks" => self.subscribe_blocks(&mut ack).await,
            other => Err(unknown_event(other)),
        };
        if let Err(error) = result {
            // A client that cannot be told has left.
            let _ = self.socket.emit("error", &error);
            let _ = ack.map(|ack| ack.send(&error));
        }
    }

    async fn subscribe_one(&self, fields: Result<Fields, ApiError>, ack: &mut Option<Ack>) -> Result<(), ApiError> {
        let fields = fields?;
        let addresses = [fields.address(self.app.wire.network)?].into();
        self.subscribe(wish(&fields, addresses, false)?, ack).await
    }

    async fn subscribe_many(&self, fields: Result<Fields, ApiError>, ack: &mut Option<Ack>) -> Result<(), ApiError> {
        let fields = fields?;
        let addresses = distinct(fields.addresses(self.app.wire.network)?).into();
        self.subscribe(wish(&fields, addresses, true)?, ack).await
    }

    async fn subscribe(&self, wish: Wish, ack: &mut Option<Ack>) -> Result<(), ApiError> {
        let topics = wish.topics();
        let place = match &wish.after {
            None => None,
            Some(text) => match self.app.place(text) {
                Ok(number) => Some(Ok(number)),
                Err(error) if matches!(error.code, "cursor_unknown" | "cursor_expired") => Some(Err(error)),
                Err(error) => return Err(error),
            },
        };
        let paused = self.app.hub.pause(&self.socket, topics.clone()).await?;
        if let Err(error) = self.app.ensure_watched(wish.addresses.clone(), wish.depths.clone()).await {
            // What was heard before goes on.
            let Paused { live: topics, seen: from } = paused;
            let back = Join { socket: self.socket.clone(), topics, from, before: Vec::new(), reply: None, caught_up: None };
            self.app.hub.join(back).await?;
            return Err(error);
        }
        match place {
            None => self.go_live(wish, topics, paused, None, ack).await,
            Some(Err(error)) => self.go_live(wish, topics, paused, Some(error), ack).await,
            Some(Ok(from)) => self.replay(wish, topics, from, ack).await,
        }
    }

    /// Answers with a snapshot; events go on from there. `problem`: why it is not a replay.
    async fn go_live(
        &self,
        wish: Wish,
        topics: Vec<Topic>,
        paused: Paused,
        problem: Option<ApiError>,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        if let Some(error) = &problem {
            let _ = self.socket.emit("error", error);
        }
        let described = self.app.read(move |app| {
            let (json, head) = app.subscribed(&wish, None, problem.as_ref())?;
            let before = events_between(&app.reader, &app.wire, paused.seen, head, &paused.live)?;
            Ok((json, head, before))
        });
        let (json, from, before) = described.await?;
        let reply = Some(Reply { name: "subscribed", json, ack: ack.take() });
        let join = Join { socket: self.socket.clone(), topics, from, before, reply, caught_up: None };
        self.app.hub.join(join).await
    }

    /// Answers, sends what came after `from`, and goes live at the end of the log. The client may take its time, but must go on.
    async fn replay(&self, wish: Wish, topics: Vec<Topic>, from: u64, ack: &mut Option<Ack>) -> Result<(), ApiError> {
        let mut caught_up = Map::new();
        match (wish.many, wish.addresses.first()) {
            (false, Some(address)) => drop(caught_up.insert("address".to_owned(), address.text.clone().into())),
            _ => {
                let texts = wish.addresses.iter().map(|address| Value::from(address.text.clone()));
                caught_up.insert("addresses".to_owned(), texts.collect());
            }
        }
        let (json, _) = self.app.read(move |app| app.subscribed(&wish, Some(from), None)).await?;
        let reply = Reply { name: "subscribed", json, ack: ack.take() };
        if reply.send(&self.socket).is_err() {
            self.socket.close(CloseReason::SlowConsumer);
            return Ok(());
        }
        let Some(from) = self.replay_log(&topics, from, None).await? else { return Ok(()) };
        let join = Join { socket: self.socket.clone(), topics, from, before: Vec::new(), reply: None, caught_up: Some(caught_up) };
        self.app.hub.join(join).await
    }

    /// A lost client gets what it missed after its offset, and is live again.
    async fn come_back(&self, offset: &str) -> Result<(), ApiError> {
        let gone = || ApiError::internal(&"what a lost client had is not kept any more");
        let (cursor, mark) = recovery::parse(offset).ok_or_else(gone)?;
        let from = self.app.place(cursor)?;
        let topics = self.app.hub.lost(self.socket.id(), mark).await?.ok_or_else(gone)?;
        self.socket.set_offset(offset);
        match self.replay_log(&topics, from, Some(mark)).await? {
            Some(from) => self.app.hub.rejoin(&self.socket, from).await,
            None => Ok(()),
        }
    }

    /// Sends the events of `topics` after `from`, page by page; with a mark, each with its offset. The number up to which that is
    /// done, near the head; `None` when the client has left.
    async fn replay_log(&self, topics: &[Topic], mut from: u64, mark: Option<u64>) -> Result<Option<u64>, ApiError> {
        let wanted: Arc<HashSet<Topic>> = Arc::new(topics.iter().copied().collect());
        loop {
            let wanted = wanted.clone();
            let ReplayPage { events, last, more } = self.app.read(move |app| app.replay_page(from, &wanted)).await?;
            for (number, event) in &events {
                let offset = mark.map(|mark| recovery::offset(&self.app.wire.cursor(*number), mark));
                if !self.send_when_there_is_room(event, offset.as_deref()).await {
                    return Ok(None);
                }
            }
            from = last;
            if !more && !self.is_drained_within(STALLED).await {
                return Ok(None);
            }
            if !more && *self.app.indexer.head().borrow() < from.saturating_add(PAGE as u64) {
                return Ok(Some(from));
            }
        }
    }

    /// False when the client has left or stalls, and is closed then.
    async fn send_when_there_is_room(&self, event: &Encoded, offset: Option<&str>) -> bool {
        let mut waited = Duration::ZERO;
        loop {
            let sent = match offset {
                None => self.socket.send(event),
                Some(offset) => self.socket.send_at(event, offset),
            };
            match sent {
                Ok(()) => return true,
                Err(SendError::Full) if waited < STALLED => {}
                Err(SendError::Closed) => return false,
                Err(_) => {
                    self.socket.close(CloseReason::SlowConsumer);
                    return false;
                }
            }
            tokio::time::sleep(PAUSE).await;
            waited = waited.saturating_add(PAUSE);
        }
    }

    async fn is_drained_within(&self, limit: Duration) -> bool {
        let mut waited = Duration::ZERO;
        while self.socket.queued_bytes() > DRAINED_BYTES {
            if self.socket.is_closed() || waited >= limit {
                self.socket.close(CloseReason::SlowConsumer);
                return false;
            }
            tokio::time::sleep(PAUSE).await;
            waited = waited.saturating_add(PAUSE);
        }
        true
    }

    async fn subscribe_blocks(&self, ack: &mut Option<Ack>) -> Result<(), ApiError> {
        #[derive(Serialize)]
        struct SubscribedBlocks {
            message: &'static str,
            tip: Option<Tip>,
            cursor: String,
        }
        let topics = vec![Topic::Blocks];
        let paused = self.app.hub.pause(&self.socket, topics.clone()).await?;
        let described = self.app.read(move |app| {
            let snapshot = app.reader.snapshot();
            let (head, tip) = (snapshot.head()?, Tip::of(&snapshot)?);
            let shape = SubscribedBlocks { message: "Subscribed to blocks and reorgs.", tip, cursor: app.wire.cursor(head) };
            let before = events_between(&app.reader, &app.wire, paused.seen, head, &paused.live)?;
            Ok((json::to_text(&shape), head, before))
        });
        let (json, from, before) = described.await?;
        let reply = Some(Reply { name: "subscribed_blocks", json, ack: ack.take() });
        self.app.hub.join(Join { socket: self.socket.clone(), topics, from, before, reply, caught_up: None }).await
    }

    async fn unsubscribe(&self, fields: Result<Fields, ApiError>, ack: &mut Option<Ack>) -> Result<(), ApiError> {
        #[derive(Serialize)]
        struct Unsubscribed {
            address: String,
            message: String,
        }
        let address = fields?.address(self.app.wire.network)?;
        let message = format!("No more events about {} come here; it is still watched.", address.text);
        let json = json::to_text(&Unsubscribed { address: address.text, message });
        let reply = Reply { name: "unsubscribed", json, ack: ack.take() };
        self.app.hub.unsubscribe(&self.socket, Topic::Script(address.script), reply).await
    }
}

/// Part of the log: what is wanted of it, the last number looked at, and whether there is more.
struct ReplayPage {
    events: Vec<(u64, Encoded)>,
    last: u64,
    more: bool,
}

impl App {
    /// The event `subscribed` as JSON, and the head of the snapshot in it. `after`: the cursor of a replay instead of the snapshot's.
    fn subscribed(&self, wish: &Wish, after: Option<u64>, problem: Option<&ApiError>) -> Result<(String, u64), ApiError> {
        let snapshot = self.reader.snapshot();
        let head = snapshot.head()?;
        let short = wish.addresses.len() <= BALANCES;
        let balances = match short && (wish.snapshot || problem.is_some()) {
            true => Some(wish.addresses.iter().map(|address| balance_in(&snapshot, address, &self.wire)).collect::<Result<Vec<_>, _>>()?),
            false => None,
        };
        let cursor = self.wire.cursor(after.unwrap_or(head));
        let mut shape =
            Subscribed { cursor, error: problem.map(|it| it.message.as_str()), code: problem.map(|it| it.code), ..Default::default() };
        match (wish.many, wish.addresses.first()) {
            (false, Some(address)) => {
                shape.address = Some(&address.text);
                shape.message = format!("Subscribed to {}.", address.text);
                shape.balance = balances.and_then(|balances| balances.into_iter().next());
            }
            _ => {
                shape.addresses = Some(wish.addresses.iter().map(|address| address.text.as_str()).collect());
                shape.count = Some(wish.addresses.len());
                let hint = if short { "" } else { " For balances of so many, read GET /addresses." };
                shape.message = format!("Subscribed to {} addresses.{hint}", wish.addresses.len());
                shape.balances = balances;
            }
        }
        Ok((json::to_text(&shape), head))
    }

    /// A page of the log for a replay.
    fn replay_page(&self, from: u64, wanted: &HashSet<Topic>) -> Result<ReplayPage, ApiError> {
        let head = self.reader.snapshot().head()?;
        let events = self.reader.read_events(from, PAGE)?;
        // Retention may have taken some while we looked.
        self.place(&self.wire.cursor(from))?;
        let (last, more) = (events.last().map_or(from, |(number, _)| *number), events.len() == PAGE);
        // Numbers may be skipped: when there is no more, none of those up to the head is left.
        let last = if more { last } else { last.max(head) };
        let wanted = events.iter().filter(|(_, event)| wanted.contains(&Topic::of(&event.kind)));
        let encoded = wanted.map(|(number, event)| Ok((*number, self.wire.encode(*number, event)?))).collect::<Result<_, SendError>>();
        Ok(ReplayPage { events: encoded.map_err(|cause| ApiError::internal(&cause))?, last, more })
    }
}

fn wish(fields: &Fields, addresses: Arc<[KnownAddress]>, many: bool) -> Result<Wish, ApiError> {
    Ok(Wish { addresses, many, depths: fields.depths()?, after: fields.text("after")?, snapshot: fields.flag("snapshot", true)? })
}

fn unknown_event(name: &str) -> ApiError {
    let message = format!(
        "There is no event {}; this daemon knows subscribe_address, subscribe_addresses, unsubscribe_address and subscribe_blocks.",
        shortened(name)
    );
    ApiError::bad_request("unknown_event", message)
}
