//! `GET /status`, `GET /health/*`: what the daemon knows of itself and of the node, and how old
//! that is.
//!
//! ```text
//! data_age              since the daemon heard from the node while it followed it: what it answers was the node's state then.
//!                       Moments while it follows, growing while it does not (node away, monitoring stopped); null if it has not
//!                       followed since its start
//! node.tip_age          since the time in the header of the node's tip
//! node.last_answer_age  since the node answered a call; unavailable_since: when calls began to fail
//! clock                 what is to be said when the machine's clock and the newest block are more than two hours apart
//!                       while it follows; else null
//! mempool.age           since the size was asked for
//! reconcile.repairs     blocks and transactions that the poll, or a look after a gap, found although the feed was up; some may
//!                       have been on their way
//! zmq.*.believed        the feed is known to be this node's; another one's messages are only a reason to ask the node
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::StatusCode;
use prometheus::HistogramVec;
use serde::Serialize;

use super::budget::Budget;
use super::events::EventQueries;
use super::respond::{self, Answer};
use crate::api::monitoring::Monitoring;
use crate::api::scans::{ScanShape, Scans};
use crate::bitcoind;
use crate::clock::now_ms;
use crate::consumers::Consumers;
use crate::events;
use crate::reads::Reads;
use crate::store::{Snapshot, StoreError};
use crate::webhooks::Webhooks;
use crate::wire::json::{self, Block, Text};
use crate::wire::{ApiError, EventEncoder, address};

/// Addresses that `/status` lists; `GET /addresses` has them all.
const LISTED: usize = 1000;
/// Consumers that `/status` lists.
const LISTED_CONSUMERS: usize = 100;
/// Open history scans that it lists; `GET /scans` has more.
const LISTED_SCANS: usize = 100;

/// The tip with the time in its header; the time is `null` when the block came before the store
/// knows blocks.
#[derive(Debug, Serialize)]
pub struct Tip {
    height: u32,
    hash: Text<bitcoin::BlockHash>,
    time: Option<f64>,
}

impl Tip {
    pub fn of(snapshot: &Snapshot<'_>) -> Result<Option<Self>, StoreError> {
        let Some(tip) = snapshot.tip()? else {
            return Ok(None);
        };
        let time = snapshot
            .block(tip.height)?
            .map(|block| f64::from(block.time));
        let Block { height, hash } = tip.into();
        Ok(Some(Self { height, hash, time }))
    }
}

#[derive(Debug, Serialize)]
pub struct StatusShape {
    is_running: bool,
    realtime_monitoring: bool,
    watched_addresses: Vec<String>,
    address_count: u64,
    total_utxos: u64,
    transactions: u64,
    testnet: bool,
    service_available: bool,
    version: &'static str,
    network: &'static str,
    uptime: f64,
    listen: Vec<SocketAddr>,
    following: bool,
    not_following_because: Option<String>,
    data_age: Option<f64>,
    clock: Option<String>,
    tip: Option<Tip>,
    cursor: String,
    node: Node,
    zmq: Zmq,
    reconcile: Reconcile,
    mempool: MempoolShape,
    clients: ClientCounts,
    consumers: Vec<ConsumerState>,
    consumer_count: usize,
    scans: Vec<ScanShape>,
    scan_count: usize,
}

#[derive(Debug, Serialize)]
struct ConsumerState {
    name: String,
    cursor: String,
    lag: u64,
    lag_seconds: f64,
    readers: usize,
    webhook_state: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Node {
    available: bool,
    error: Option<String>,
    unavailable_since: Option<f64>,
    last_answer_age: Option<f64>,
    version: u64,
    subversion: String,
    chain: String,
    blocks: u32,
    headers: u32,
    initial_block_download: bool,
    pruned: bool,
    prune_height: Option<u32>,
    tip_age: Option<f64>,
    connections: Option<u32>,
    network_active: Option<bool>,
    relays_transactions: Option<bool>,
    notes: Vec<Note>,
}

#[derive(Debug, Serialize)]
struct Note {
    ok: bool,
    what: String,
    remedy: Option<String>,
}

#[derive(Debug, Serialize)]
struct Zmq {
    rawtx: ZmqTopic,
    rawblock: ZmqTopic,
    sequence: ZmqTopic,
}

impl Zmq {
    fn of(zmq: &bitcoind::ZmqStatus, now: u64) -> Self {
        Self {
            rawtx: ZmqTopic::of(&zmq.rawtx, now),
            rawblock: ZmqTopic::of(&zmq.rawblock, now),
            sequence: ZmqTopic::of(&zmq.sequence, now),
        }
    }
}

#[derive(Debug, Serialize)]
struct ZmqTopic {
    endpoint: Option<String>,
    connected: bool,
    believed: bool,
    last_sequence: Option<u32>,
    last_message_age: Option<f64>,
    gaps: u64,
    lost: u64,
}

impl ZmqTopic {
    fn of(topic: &bitcoind::TopicStatus, now: u64) -> Self {
        Self {
            endpoint: topic.endpoint.clone(),
            connected: topic.connected,
            believed: topic.believed,
            last_sequence: topic.last_sequence,
            last_message_age: age(topic.last_message, now),
            gaps: topic.gaps,
            lost: topic.lost,
        }
    }
}

#[derive(Debug, Serialize)]
struct Reconcile {
    interval: u64,
    last_run: Option<f64>,
    last_duration: f64,
    repairs: u64,
}

impl Reconcile {
    fn of(reconcile: &bitcoind::ReconcileStatus) -> Self {
        Self {
            interval: reconcile.interval,
            last_run: reconcile.last_run.map(json::seconds),
            last_duration: json::seconds(reconcile.last_duration_ms),
            repairs: reconcile.repairs,
        }
    }
}

#[derive(Debug, Serialize)]
struct MempoolShape {
    size: u64,
    loaded: bool,
    age: Option<f64>,
}

/// Seconds.
fn age(then: Option<u64>, now: u64) -> Option<f64> {
    then.map(|then| json::seconds(now.saturating_sub(then)))
}

/// `sessions`: open Engine.IO sessions; `subscribers`: those of them that subscribed to something;
/// `lagging`: those of these that are told from the log because they read more slowly than events
/// come.
#[derive(Debug, Serialize)]
struct ClientCounts {
    sessions: usize,
    subscribers: usize,
    subscriptions: usize,
    lagging: usize,
    rest_bytes: usize,
}

/// What `/status` and `/metrics` look at.
pub struct Overview {
    pub reads: Reads,
    pub encoder: EventEncoder,
    pub budget: Budget,
    pub dispatch: events::Handle,
    pub monitoring: Arc<Monitoring>,
    pub scans: Arc<Scans>,
    pub events: Arc<EventQueries>,
    pub consumers: Arc<Consumers>,
    pub webhooks: Arc<Webhooks>,
    pub started: Instant,
    /// Of the indexer.
    pub step_times: HistogramVec,
    /// The addresses in use, which `server.listen` with port 0 does not say.
    pub listen: Vec<SocketAddr>,
}

impl Overview {
    /// `sessions`: open Engine.IO sessions. Short work, so that long answers do not keep it from
    /// those who ask what is wrong: a dozen single rows, the first addresses and the open scans.
    async fn status(self: &Arc<Self>, sessions: usize) -> Result<StatusShape, ApiError> {
        let events::Counts {
            subscribers,
            subscriptions,
            lagging,
            ..
        } = self.dispatch.counts().await?;
        let clients = ClientCounts {
            sessions,
            subscribers,
            subscriptions,
            lagging,
            rest_bytes: self.budget.held(),
        };
        let consumers = self.consumer_states().await?;
        let overview = self.clone();
        let read = move |snapshot: &Snapshot<'_>| overview.describe(snapshot, clients, consumers);
        self.reads.snapshot(read).await
    }

    fn describe(
        &self,
        snapshot: &Snapshot<'_>,
        clients: ClientCounts,
        consumers: Vec<ConsumerState>,
    ) -> Result<StatusShape, ApiError> {
        let (node, now) = (self.monitoring.node(), now_ms());
        let (counts, network, is_on) = (
            snapshot.counts()?,
            self.encoder.network,
            self.monitoring.is_on(),
        );
        let watches = snapshot.watches(None, LISTED)?;
        let (scans, scan_count) = self.scans.open_ones(snapshot, LISTED_SCANS)?;
        Ok(StatusShape {
            is_running: is_on,
            realtime_monitoring: is_on,
            watched_addresses: watches
                .iter()
                .map(|(_, row)| address::text(&row.spk, network))
                .collect(),
            address_count: counts.addresses,
            total_utxos: counts.utxos,
            transactions: counts.transactions,
            testnet: network != bitcoin::Network::Bitcoin,
            service_available: node.available,
            version: env!("CARGO_PKG_VERSION"),
            network: address::network_name(network),
            uptime: self.started.elapsed().as_secs_f64(),
            listen: self.listen.clone(),
            following: is_on && node.following,
            not_following_because: self.monitoring.not_ready(),
            data_age: age(node.current_at, now),
            clock: self.monitoring.clock_note(snapshot, now)?,
            tip: Tip::of(snapshot)?,
            cursor: self.encoder.cursor(snapshot.head()?),
            zmq: Zmq::of(&node.zmq, now),
            reconcile: Reconcile::of(&node.reconcile),
            mempool: MempoolShape {
                size: node.mempool.size,
                loaded: node.mempool.loaded,
                age: age(node.mempool.at, now),
            },
            node: Node::of(node, now),
            clients,
            consumers,
            consumer_count: self.consumers.count(),
            scans,
            scan_count,
        })
    }

    /// The first consumers; `GET /consumers` has them all.
    async fn consumer_states(&self) -> Result<Vec<ConsumerState>, ApiError> {
        let consumers = self.consumers.unread(LISTED_CONSUMERS).await?;
        let states = consumers.iter().map(|(consumer, unread)| ConsumerState {
            name: consumer.name.clone(),
            cursor: self.encoder.cursor(unread.acked),
            lag: unread.lag(),
            lag_seconds: json::seconds(unread.age(now_ms())),
            readers: consumer.readers(),
            webhook_state: self.webhooks.state_word(consumer),
        });
        Ok(states.collect())
    }
}

/// `GET /health/live`: the process answers.
pub fn live() -> Answer {
    #[derive(Serialize)]
    struct Live {
        live: bool,
        version: &'static str,
    }
    respond::json(
        StatusCode::OK,
        &Live {
            live: true,
            version: env!("CARGO_PKG_VERSION"),
        },
    )
}

/// `GET /health/ready`: 200 once the daemon follows the node's tip and its feeds, else 503 with
/// the reason.
pub async fn ready(overview: &Overview) -> Result<Answer, ApiError> {
    #[derive(Serialize)]
    struct Ready {
        ready: bool,
        tip: Option<Tip>,
    }
    if let Some(reason) = overview.monitoring.not_ready() {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not_ready",
            reason,
        ));
    }
    let tip = overview.reads.snapshot(|snapshot| Ok(Tip::of(snapshot)?));
    let (ready, tip) = (true, tip.await?);
    Ok(respond::json(StatusCode::OK, &Ready { ready, tip }))
}

/// `GET /status`
pub async fn status(overview: &Arc<Overview>, sessions: usize) -> Result<Answer, ApiError> {
    let status = overview.status(sessions).await?;
    Ok(respond::json_at(StatusCode::OK, &status.cursor, &status))
}

/// `POST /start`
pub async fn start_monitoring(
    overview: &Arc<Overview>,
    sessions: usize,
) -> Result<Answer, ApiError> {
    #[derive(Serialize)]
    struct Started {
        message: &'static str,
        status: StatusShape,
    }
    let message = match overview.monitoring.switch(true).await? {
        true => "Monitoring started; what was missed while it was stopped is being caught up on.",
        false => "Monitoring was on already.",
    };
    Ok(respond::json(
        StatusCode::OK,
        &Started {
            message,
            status: overview.status(sessions).await?,
        },
    ))
}

/// `POST /stop`
pub async fn stop_monitoring(overview: &Overview) -> Result<Answer, ApiError> {
    #[derive(Serialize)]
    struct Stopped {
        message: &'static str,
    }
    let message = match overview.monitoring.switch(false).await? {
        true => "Monitoring stopped, also across restarts; POST /start goes on where it was.",
        false => "Monitoring was stopped already.",
    };
    Ok(respond::json(StatusCode::OK, &Stopped { message }))
}

/// In milliseconds.
pub fn tip_time(node: &bitcoind::NodeInfo) -> Option<u64> {
    node.tip_time.map(|seconds| u64::from(seconds) * 1000)
}

impl Node {
    fn of(node: bitcoind::NodeStatus, now: u64) -> Self {
        let note = |finding: bitcoind::Finding| Note {
            ok: finding.ok,
            what: finding.what,
            remedy: finding.remedy.map(|remedy| remedy.to_string()),
        };
        let tip_age = age(tip_time(&node.node), now);
        Self {
            available: node.available,
            error: node.error,
            unavailable_since: node.unavailable_since.map(json::seconds),
            last_answer_age: age(node.last_answer, now),
            version: node.node.version,
            subversion: node.node.subversion,
            chain: node.node.chain,
            blocks: node.node.blocks,
            headers: node.node.headers,
            initial_block_download: node.node.initial_block_download,
            pruned: node.node.pruned,
            prune_height: node.node.prune_height,
            tip_age,
            connections: node.node.connections,
            network_active: node.node.network_active,
            relays_transactions: node.node.relays_transactions,
            notes: node.notes.into_iter().map(note).collect(),
        }
    }
}
