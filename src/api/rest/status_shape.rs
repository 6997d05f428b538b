//! How the status looks: what `GET /status` answers, part by part.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;

use crate::api::scans::ScanShape;
use crate::bitcoind::{self, Finding, NodeStatus, TopicStatus};
use crate::bus::{BusState, BusStatus, Side};
use crate::certificates::{CertificateStatus, Certificates};
use crate::config::SettingsStatus;
use crate::reads::TipShape;
use crate::webhooks::WebhookWord;
use crate::wire::json::seconds;

/// What the daemon knows of itself and of the node, and how old that is. Ages and durations are in
/// seconds, times in seconds since the Unix epoch.
#[derive(Serialize, JsonSchema)]
pub struct Status {
    /// Monitoring is on.
    pub is_running: bool,
    /// The same.
    pub realtime_monitoring: bool,
    /// The first 1000; `GET /addresses` has them all.
    pub watched_addresses: Vec<String>,
    pub address_count: u64,
    pub descriptor_count: u64,
    /// Scripts of descriptors that are watched.
    pub derived_scripts: u64,
    pub total_utxos: u64,
    /// Transactions that are known.
    pub transactions: u64,
    /// The chain is not main.
    pub testnet: bool,
    /// The node answers.
    pub service_available: bool,
    /// Of the daemon.
    pub version: &'static str,
    pub network: &'static str,
    /// Since the start.
    pub uptime: f64,
    #[schemars(with = "Vec<String>")]
    pub listen: Vec<SocketAddr>,
    pub urls: Vec<String>,
    #[schemars(with = "Vec<String>")]
    pub metrics_listen: Vec<SocketAddr>,
    /// `null` without TLS.
    pub tls: Option<TlsShape>,
    /// By their names in the section `limits` of the settings.
    pub limits: BTreeMap<&'static str, LimitShape>,
    pub settings: SettingsShape,
    pub authentication: AuthenticationShape,
    /// What the node does comes here.
    pub following: bool,
    pub not_following_because: Option<String>,
    /// Since the daemon heard from the node while it followed it: what it answers was the node's
    /// state then. `null` if it has not followed since its start.
    pub data_age: Option<f64>,
    /// What is to be said when the machine's clock and the newest block are more than two hours
    /// apart while it follows.
    pub clock: Option<String>,
    pub tip: Option<TipShape>,
    /// It includes every event up to this one.
    pub cursor: String,
    pub zmq: ZmqShape,
    pub reconcile: ReconcileShape,
    pub mempool: MempoolShape,
    pub node: NodeShape,
    pub clients: ClientsShape,
    /// The first 100; `GET /consumers` has them all.
    pub consumers: Vec<ConsumerLine>,
    pub consumer_count: usize,
    /// The log on Redis; `null` without `bus.url`.
    pub bus: Option<BusShape>,
    /// Open history scans, newest first; `GET /scans` has more.
    pub scans: Vec<ScanShape>,
    /// Open history scans.
    pub scan_count: usize,
}

/// A limit, and what of it is in use.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Limit")]
pub struct LimitShape {
    pub limit: usize,
    /// Absent of a bound on one request, or on one client; of `connections_per_address` that of
    /// the address that has most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<usize>,
    /// Whom it has kept out since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Authentication")]
pub struct AuthenticationShape {
    pub on: bool,
    /// Why the tokens file is not in force.
    pub problem: Option<String>,
}

/// The feeds of the node.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Zmq")]
pub struct ZmqShape {
    pub rawtx: TopicShape,
    pub rawblock: TopicShape,
    pub sequence: TopicShape,
}

/// A feed of the node.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ZmqTopic")]
pub struct TopicShape {
    /// `null`: the node does not offer it, the poll stands in.
    endpoint: Option<String>,
    connected: bool,
    /// It is known to be this node's; another one's messages are only a reason to ask the node.
    believed: bool,
    /// The node's own number of the last message.
    last_sequence: Option<u32>,
    last_message_age: Option<f64>,
    /// Times that messages were missing.
    gaps: u64,
    /// Messages that were missing.
    lost: u64,
}

impl TopicShape {
    pub fn new(topic: &TopicStatus, now: u64) -> Self {
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

/// The poll that finds what the feeds do not tell.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Reconcile")]
pub struct ReconcileShape {
    pub interval: u64,
    pub last_run: Option<f64>,
    pub last_duration: f64,
    /// Blocks and transactions that the poll, or a look after a gap, found although the feed was
    /// up; some may have been on their way.
    pub repairs: u64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Mempool")]
pub struct MempoolShape {
    /// Transactions in the node's mempool.
    pub size: u64,
    /// False while the node reads the mempool of its last run.
    pub loaded: bool,
    /// Since the size was asked for.
    pub age: Option<f64>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Clients")]
pub struct ClientsShape {
    /// Of Socket.IO.
    pub sessions: usize,
    /// Sessions that subscribed to something.
    pub subscribers: usize,
    pub subscriptions: usize,
    /// Subscribers that are told from the log because they read more slowly than events come.
    pub lagging: usize,
    /// Bytes of requests and answers under way.
    pub rest_bytes: usize,
}

/// A consumer in short.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ConsumerInShort")]
pub struct ConsumerLine {
    pub name: String,
    /// Everything up to this event is acknowledged.
    pub cursor: String,
    /// Events that it wants and has not acknowledged.
    pub lag: u64,
    /// Age of the oldest of these.
    pub lag_seconds: f64,
    /// Clients that read it now.
    pub readers: usize,
    /// `null` without a webhook.
    pub webhook_state: Option<WebhookWord>,
}

/// The log on Redis.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Bus")]
pub struct BusShape {
    state: BusWord,
    /// When that began.
    since: f64,
    /// Without user and password.
    url: String,
    /// Key of the stream that is written, or was last since the start.
    stream: Option<String>,
    /// Number of the last event in it; `null`: it is empty, or not known yet.
    written: Option<u64>,
    /// Events that are not in it yet.
    lag: u64,
    /// Why it waits.
    problem: Option<String>,
    /// What to do about it.
    remedy: Option<String>,
    /// Events written since the start.
    entries: u64,
}

/// `writing`: the stream follows the log. `waiting`: it does not, and is tried again.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "BusState")]
enum BusWord {
    Starting,
    Writing,
    Waiting,
}

impl BusShape {
    pub fn new(bus: &BusStatus, lag: u64) -> Self {
        let problem = bus.problem.as_ref();
        let remedy = problem.and_then(|problem| problem.remedy(Side::Writer));
        Self {
            state: match bus.state {
                BusState::Starting => BusWord::Starting,
                BusState::Working => BusWord::Writing,
                BusState::Waiting => BusWord::Waiting,
            },
            since: seconds(bus.since),
            url: bus.url.clone(),
            stream: bus.stream.clone(),
            written: bus.number,
            lag,
            problem: problem.map(ToString::to_string),
            remedy: remedy.map(|remedy| remedy.to_string()),
            entries: bus.entries,
        }
    }
}

/// The node.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Node")]
pub struct NodeShape {
    /// It answers calls.
    available: bool,
    /// Why it does not, or what it refuses.
    error: Option<String>,
    /// When calls began to fail.
    unavailable_since: Option<f64>,
    /// Since it answered a call.
    last_answer_age: Option<f64>,
    /// 290500 is 29.5.0.
    version: u64,
    /// Since the time in the header of its tip.
    tip_age: Option<f64>,
    subversion: String,
    /// As `getblockchaininfo` names it.
    chain: String,
    blocks: u32,
    headers: u32,
    initial_block_download: bool,
    pruned: bool,
    prune_height: Option<u32>,
    /// To other nodes.
    connections: Option<u32>,
    network_active: Option<bool>,
    /// False with `blocksonly`.
    relays_transactions: Option<bool>,
    notes: Vec<NoteShape>,
}

/// What is good or not with the node.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NodeNote")]
struct NoteShape {
    ok: bool,
    what: String,
    /// What to do when it is not well.
    remedy: Option<String>,
}

impl NodeShape {
    pub fn new(status: NodeStatus, now: u64) -> Self {
        let node = status.node;
        let note = |finding: Finding| NoteShape {
            ok: finding.ok,
            what: finding.what,
            remedy: finding.remedy.map(|remedy| remedy.to_string()),
        };
        let mut notes = status.notes;
        // While the node is away, what was good with it was so.
        notes.retain(|finding| status.available || !finding.ok);
        Self {
            available: status.available,
            error: status.error,
            unavailable_since: status.unavailable_since.map(seconds),
            last_answer_age: age(status.last_answer, now),
            version: node.version,
            tip_age: age(tip_time(&node), now),
            subversion: node.subversion,
            chain: node.chain,
            blocks: node.blocks,
            headers: node.headers,
            initial_block_download: node.initial_block_download,
            pruned: node.pruned,
            prune_height: node.prune_height,
            connections: node.connections,
            network_active: node.network_active,
            relays_transactions: node.relays_transactions,
            notes: notes.into_iter().map(note).collect(),
        }
    }
}

/// The settings that were read last (SIGHUP).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Settings")]
pub struct SettingsShape {
    /// Why they are not in force.
    problem: Option<String>,
    /// Those that take a restart.
    take_restart: Vec<String>,
}

impl SettingsShape {
    pub fn new(settings: &SettingsStatus) -> Self {
        Self {
            problem: settings.problem.as_ref().map(ToString::to_string),
            take_restart: settings.take_restart.clone(),
        }
    }
}

/// The certificate in force.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Tls")]
pub struct TlsShape {
    #[schemars(with = "String")]
    cert: PathBuf,
    /// Host names and addresses that it is for.
    names: Vec<String>,
    not_before: f64,
    not_after: f64,
    /// When it was taken over.
    since: f64,
    /// Why that of the files is not in force.
    problem: Option<String>,
}

impl TlsShape {
    pub fn new(certificates: &Certificates) -> Self {
        let CertificateStatus {
            files,
            pair,
            since,
            problem,
        } = certificates.status();
        Self {
            cert: files.cert,
            names: pair.names,
            not_before: unix_time(pair.not_before),
            not_after: unix_time(pair.not_after),
            since: unix_time(since),
            problem: problem.map(|problem| problem.to_string()),
        }
    }
}

/// Seconds.
pub fn age(then: Option<u64>, now: u64) -> Option<f64> {
    then.map(|then| seconds(now.saturating_sub(then)))
}

/// In milliseconds.
pub fn tip_time(node: &bitcoind::NodeInfo) -> Option<u64> {
    node.tip_time.map(|time| u64::from(time) * 1000)
}

fn unix_time(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}
