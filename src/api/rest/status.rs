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
//! limits                each with what of it is in use, and whom it has kept out since the start; of connections_per_address
//!                       that of the address that has most
//! settings              why those that were read last (SIGHUP) are not in force, and which of them take a restart
//! tls                   the certificate in force, and why that of the files is not; null without TLS
//! zmq.*.believed        the feed is known to be this node's; another one's messages are only a reason to ask the node
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hyper::StatusCode;
use prometheus::HistogramVec;
use serde::Serialize;
use tokio::sync::watch;

use super::budget::Budget;
use super::events::EventQueries;
use super::respond::{self, Answer};
use crate::api::Listening;
use crate::api::access::Access;
use crate::api::monitoring::Monitoring;
use crate::api::quotas::Quotas;
use crate::api::scans::Scans;
use crate::auth::Guard;
use crate::bitcoind::findings::too_many_outputs;
use crate::bitcoind::{self, Finding, NodeStatus, TopicStatus};
use crate::certificates::{CertificateStatus, Certificates};
use crate::clock::now_ms;
use crate::config::{Limits, SettingsStatus};
use crate::consumers::{Consumer, Consumers, Unread};
use crate::events;
use crate::history::LeftOut;
use crate::limits::{LimitUse, Places};
use crate::reads::{Reads, StoreView};
use crate::webhooks::Webhooks;
use crate::wire::json::{object, seconds};
use crate::wire::{ApiError, address};

/// Addresses that `/status` lists; `GET /addresses` has them all.
const LISTED: usize = 1000;
/// Consumers that `/status` lists.
const LISTED_CONSUMERS: usize = 100;
/// Open history scans that it lists; `GET /scans` has more.
const LISTED_SCANS: usize = 100;

/// What `/status` and `/metrics` look at.
pub struct Overview {
    pub reads: Reads,
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
    pub left_out: watch::Receiver<LeftOut>,
    pub auth: Guard,
    pub listening: Listening,
    pub access: Arc<Access>,
    pub quotas: Arc<Quotas>,
    /// Of all clients together.
    pub subscriptions: Places,
    pub limits: watch::Receiver<Limits>,
    pub settings: watch::Receiver<SettingsStatus>,
}

impl Overview {
    /// The status and its cursor. `sessions`: open Engine.IO sessions. Short work, so that long
    /// answers do not keep it from those who ask what is wrong: a dozen single rows, and what it
    /// lists.
    async fn status(
        self: &Arc<Self>,
        sessions: usize,
    ) -> Result<(impl Serialize + use<>, String), ApiError> {
        let counts = self.dispatch.counts().await?;
        // `subscribers`: sessions that subscribed to something; `lagging`: those of these that are
        // told from the log because they read more slowly than events come.
        let clients = object! {
            sessions,
            subscribers: counts.subscribers,
            subscriptions: counts.subscriptions,
            lagging: counts.lagging,
            rest_bytes: self.budget.held(),
        };
        let consumers = self.consumer_shapes().await?;
        let overview = self.clone();
        let read = move |view: &StoreView<'_>| overview.describe(view, clients, consumers);
        self.reads.run(read).await
    }

    fn describe<Clients: Serialize, Reader: Serialize>(
        &self,
        view: &StoreView<'_>,
        clients: Clients,
        consumers: Vec<Reader>,
    ) -> Result<(impl Serialize + use<Clients, Reader>, String), ApiError> {
        let (mut node, now) = (self.monitoring.node(), now_ms());
        let left_out = self.left_out.borrow().clone();
        let left_out = left_out.iter().take(LISTED);
        let left_out = left_out.map(|(spk, added)| {
            let descriptor = added.of.map(|descriptor| descriptor.to_string());
            too_many_outputs(&view.address_of(spk), descriptor)
        });
        node.notes.extend(left_out);
        let (counts, network, is_on) = (
            view.counts()?,
            view.encoder.network,
            self.monitoring.is_on(),
        );
        let watches = view.watches(None, LISTED)?;
        let watched = watches.iter().map(|(_, row)| view.address_of(&row.spk));
        let (scans, scan_count) = self.scans.open_ones(view, LISTED_SCANS)?;
        let cursor = view.cursor()?;
        let status = object! {
            is_running: is_on,
            realtime_monitoring: is_on,
            watched_addresses: watched.collect::<Vec<_>>(),
            address_count: counts.addresses,
            descriptor_count: view.descriptor_count()?,
            derived_scripts: counts.derived,
            total_utxos: counts.utxos,
            transactions: counts.transactions,
            testnet: network != bitcoin::Network::Bitcoin,
            service_available: node.available,
            version: env!("CARGO_PKG_VERSION"),
            network: address::network_name(network),
            uptime: self.started.elapsed().as_secs_f64(),
            listen: self.listening.addresses.clone(),
            urls: self.listening.urls(),
            metrics_listen: self.listening.metrics.clone(),
            tls: self.listening.certificates.as_ref().map(tls_shape),
            limits: self.limits_shape()?,
            settings: settings_shape(&self.settings.borrow()),
            authentication: object! { on: self.auth.is_on(), problem: self.auth.problem() },
            following: is_on && node.following,
            not_following_because: self.monitoring.not_ready(),
            data_age: age(node.current_at, now),
            clock: self.monitoring.clock_note(view, now)?,
            tip: view.tip_shape()?,
            cursor: cursor.clone(),
            zmq: object! {
                rawtx: topic_shape(&node.zmq.rawtx, now),
                rawblock: topic_shape(&node.zmq.rawblock, now),
                sequence: topic_shape(&node.zmq.sequence, now),
            },
            reconcile: object! {
                interval: node.reconcile.interval,
                last_run: node.reconcile.last_run.map(seconds),
                last_duration: seconds(node.reconcile.last_duration_ms),
                repairs: node.reconcile.repairs,
            },
            mempool: object! {
                size: node.mempool.size,
                loaded: node.mempool.loaded,
                age: age(node.mempool.at, now),
            },
            node: node_shape(node, now),
            clients,
            consumers,
            consumer_count: self.consumers.count(),
            scans,
            scan_count,
        };
        Ok((status, cursor))
    }

    /// By name. `refused`: whom the limit has kept out since the start. A bound on one request, or
    /// on one client, has no use of its own.
    fn limits_shape(&self) -> Result<impl Serialize + use<>, ApiError> {
        let limits = self.limits.borrow().clone();
        let held = |name, limit, used| LimitUse {
            name,
            limit,
            used,
            refused: 0,
        };
        let in_use = [
            held("rest_bytes", limits.rest_bytes, self.budget.held()),
            held("consumers", limits.consumers, self.consumers.count()),
            self.subscriptions.limit(),
            self.events.waiting.limit(),
        ];
        let metrics = self.listening.metrics_usage.as_ref().map(|usage| {
            let [connections, ..] = usage.limits();
            held("metrics_connections", connections.limit, connections.used)
        });
        let in_use = in_use.into_iter().chain(self.listening.usage.limits());
        let in_use = in_use
            .chain(metrics)
            .chain(self.access.limits())
            .chain(self.quotas.limits()?);
        let shape = |limit, used, refused| object! { limit, ?used, ?refused };
        let in_use = in_use.map(|it| (it.name, shape(it.limit, Some(it.used), Some(it.refused))));
        let of_one = [
            ("body_bytes", limits.body_bytes),
            ("descriptor_scripts", limits.descriptor_scripts),
            ("packet_bytes", limits.packet_bytes),
            ("subscriptions", limits.subscriptions),
        ];
        let of_one = of_one.map(|(name, limit)| (name, shape(limit, None, None)));
        Ok(in_use.chain(of_one).collect::<BTreeMap<_, _>>())
    }

    /// The first consumers; `GET /consumers` has them all.
    async fn consumer_shapes(&self) -> Result<Vec<impl Serialize + use<>>, ApiError> {
        let consumers = self.consumers.unread(LISTED_CONSUMERS).await?;
        let shape = |(consumer, unread): &(Arc<Consumer>, Unread)| {
            object! {
                name: consumer.name.clone(),
                cursor: self.reads.encoder.cursor(unread.acked),
                lag: unread.lag(),
                lag_seconds: seconds(unread.age(now_ms())),
                readers: consumer.readers(),
                webhook_state: self.webhooks.state_word(consumer),
            }
        };
        Ok(consumers.iter().map(shape).collect())
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

fn topic_shape(topic: &TopicStatus, now: u64) -> impl Serialize + use<> {
    object! {
        endpoint: topic.endpoint.clone(),
        connected: topic.connected,
        believed: topic.believed,
        last_sequence: topic.last_sequence,
        last_message_age: age(topic.last_message, now),
        gaps: topic.gaps,
        lost: topic.lost,
    }
}

fn node_shape(status: NodeStatus, now: u64) -> impl Serialize {
    let node = status.node;
    let note = |finding: Finding| {
        object! {
            ok: finding.ok,
            what: finding.what,
            remedy: finding.remedy.map(|remedy| remedy.to_string()),
        }
    };
    let mut notes = status.notes;
    // While the node is away, what was good with it was so.
    notes.retain(|finding| status.available || !finding.ok);
    object! {
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
        notes: notes.into_iter().map(note).collect::<Vec<_>>(),
    }
}

fn settings_shape(settings: &SettingsStatus) -> impl Serialize + use<> {
    object! {
        problem: settings.problem.as_ref().map(ToString::to_string),
        take_restart: settings.take_restart.clone(),
    }
}

fn tls_shape(certificates: &Certificates) -> impl Serialize + use<> {
    let CertificateStatus {
        files,
        pair,
        since,
        problem,
    } = certificates.status();
    object! {
        cert: files.cert,
        names: pair.names,
        not_before: unix_time(pair.not_before),
        not_after: unix_time(pair.not_after),
        since: unix_time(since),
        problem: problem.map(|problem| problem.to_string()),
    }
}

fn unix_time(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// `GET /health/live`: the process answers.
pub fn live() -> Answer {
    respond::ok(&object! { live: true, version: env!("CARGO_PKG_VERSION") })
}

/// `GET /health/ready`: 200 once the daemon follows the node's tip and its feeds and keeps up with
/// them, else 503 with the reason.
pub async fn ready(overview: &Overview) -> Result<Answer, ApiError> {
    let monitoring = &overview.monitoring;
    if let Some(reason) = monitoring.not_ready().or_else(|| monitoring.behind()) {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not_ready",
            reason,
        ));
    }
    // Anybody may ask, so it waits in no queue of those who may do more.
    let tip = overview.reads.on_the_spot(|view| view.tip_shape())?;
    Ok(respond::ok(&object! { ready: true, tip }))
}

/// `GET /status`
pub async fn status(overview: &Arc<Overview>, sessions: usize) -> Result<Answer, ApiError> {
    let (status, cursor) = overview.status(sessions).await?;
    Ok(respond::ok_at(&cursor, &status))
}

/// `POST /start`
pub async fn start_monitoring(
    overview: &Arc<Overview>,
    sessions: usize,
) -> Result<Answer, ApiError> {
    let message = match overview.monitoring.switch(true).await? {
        true => "Monitoring started; what was missed while it was stopped is being caught up on.",
        false => "Monitoring was on already.",
    };
    let (status, _) = overview.status(sessions).await?;
    Ok(respond::ok(&object! { message, status }))
}

/// `POST /stop`
pub async fn stop_monitoring(overview: &Overview) -> Result<Answer, ApiError> {
    let message = match overview.monitoring.switch(false).await? {
        true => "Monitoring stopped, also across restarts; POST /start goes on where it was.",
        false => "Monitoring was stopped already.",
    };
    Ok(respond::ok(&object! { message }))
}
