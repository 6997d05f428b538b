//! `GET /status`, `GET /health/*`: what the daemon knows of itself and of the node, and how old
//! that is ([`status_shape`](super::status_shape)).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use hyper::StatusCode;
use prometheus::HistogramVec;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;

use super::budget::Budget;
use super::events::EventQueries;
use super::respond::{self, Done, Reply};
use super::status_shape::{
    AuthenticationShape, BusShape, ClientsShape, ConsumerLine, LimitShape, MempoolShape, NodeShape,
    ReconcileShape, SettingsShape, Status, TlsShape, TopicShape, ZmqShape, age,
};
use crate::api::Listening;
use crate::api::access::Access;
use crate::api::monitoring::Monitoring;
use crate::api::quotas::Quotas;
use crate::api::scans::Scans;
use crate::auth::Guard;
use crate::bitcoind::findings::too_many_outputs;
use crate::bus::BusStatus;
use crate::clock::now_ms;
use crate::config::{Limits, SettingsStatus};
use crate::consumers::{Consumer, Consumers, Unread};
use crate::events;
use crate::history::LeftOut;
use crate::limits::{LimitUse, Places};
use crate::reads::{Reads, StoreView, TipShape};
use crate::webhooks::Webhooks;
use crate::wire::json::seconds;
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
    pub bus: Option<watch::Receiver<BusStatus>>,
}

impl Overview {
    /// The status and its cursor. `sessions`: open Engine.IO sessions. Short work, so that long
    /// answers do not keep it from those who ask what is wrong: a dozen single rows, and what it
    /// lists.
    async fn status(self: &Arc<Self>, sessions: usize) -> Result<Status, ApiError> {
        let counts = self.dispatch.counts().await?;
        let clients = ClientsShape {
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

    fn describe(
        &self,
        view: &StoreView<'_>,
        clients: ClientsShape,
        consumers: Vec<ConsumerLine>,
    ) -> Result<Status, ApiError> {
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
        Ok(Status {
            is_running: is_on,
            realtime_monitoring: is_on,
            watched_addresses: watched.collect(),
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
            tls: self.listening.certificates.as_ref().map(TlsShape::new),
            limits: self.limits_shape()?,
            settings: SettingsShape::new(&self.settings.borrow()),
            authentication: AuthenticationShape {
                on: self.auth.is_on(),
                problem: self.auth.problem(),
            },
            following: is_on && node.following,
            not_following_because: self.monitoring.not_ready(),
            data_age: age(node.current_at, now),
            clock: self.monitoring.clock_note(view, now)?,
            tip: view.tip_shape()?,
            cursor: view.cursor()?,
            zmq: ZmqShape {
                rawtx: TopicShape::new(&node.zmq.rawtx, now),
                rawblock: TopicShape::new(&node.zmq.rawblock, now),
                sequence: TopicShape::new(&node.zmq.sequence, now),
            },
            reconcile: ReconcileShape {
                interval: node.reconcile.interval,
                last_run: node.reconcile.last_run.map(seconds),
                last_duration: seconds(node.reconcile.last_duration_ms),
                repairs: node.reconcile.repairs,
            },
            mempool: MempoolShape {
                size: node.mempool.size,
                loaded: node.mempool.loaded,
                age: age(node.mempool.at, now),
            },
            node: NodeShape::new(node, now),
            clients,
            consumers,
            consumer_count: self.consumers.count(),
            bus: self
                .bus_status()
                .map(|bus| Ok::<_, ApiError>(BusShape::new(&bus, self.bus_lag(view, &bus)?)))
                .transpose()?,
            scans,
            scan_count,
        })
    }

    pub fn bus_status(&self) -> Option<BusStatus> {
        self.bus.as_ref().map(|bus| bus.borrow().clone())
    }

    /// Events that are not in the stream yet; all that are kept before it is known where it ends.
    pub fn bus_lag(&self, view: &StoreView<'_>, bus: &BusStatus) -> Result<u64, ApiError> {
        let log = &self.events.log;
        let written = match bus.number {
            Some(written) => written,
            None => view.reader.first_seq()?.saturating_sub(1),
        };
        let head = log.head().max(written);
        let skipped = log.encoder.starts().skipped(written, head);
        Ok(head.saturating_sub(written).saturating_sub(skipped))
    }

    /// By name. A bound on one request, or on one client, has no use of its own.
    fn limits_shape(&self) -> Result<BTreeMap<&'static str, LimitShape>, ApiError> {
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
        let shape = |limit, used, refused| LimitShape {
            limit,
            used,
            refused,
        };
        let in_use = in_use.map(|it| (it.name, shape(it.limit, Some(it.used), Some(it.refused))));
        let of_one = [
            ("body_bytes", limits.body_bytes),
            ("descriptor_scripts", limits.descriptor_scripts),
            ("packet_bytes", limits.packet_bytes),
            ("subscriptions", limits.subscriptions),
        ];
        let of_one = of_one.map(|(name, limit)| (name, shape(limit, None, None)));
        Ok(in_use.chain(of_one).collect())
    }

    /// The first consumers; `GET /consumers` has them all.
    async fn consumer_shapes(&self) -> Result<Vec<ConsumerLine>, ApiError> {
        let consumers = self.consumers.unread(LISTED_CONSUMERS).await?;
        let shape = |(consumer, unread): &(Arc<Consumer>, Unread)| ConsumerLine {
            name: consumer.name.clone(),
            cursor: self.reads.encoder.cursor(unread.acked),
            lag: unread.lag(),
            lag_seconds: seconds(unread.age(now_ms())),
            readers: consumer.readers(),
            webhook_state: self.webhooks.state_word(consumer),
        };
        Ok(consumers.iter().map(shape).collect())
    }
}

/// The process answers.
#[derive(Serialize, JsonSchema)]
pub struct Live {
    live: bool,
    /// Of the daemon.
    version: &'static str,
}

/// The daemon follows the node.
#[derive(Serialize, JsonSchema)]
pub struct Ready {
    ready: bool,
    tip: Option<TipShape>,
}

impl Ready {
    pub fn at(tip: Option<TipShape>) -> Self {
        Self { ready: true, tip }
    }
}

/// Monitoring is on.
#[derive(Serialize, JsonSchema)]
pub struct Started {
    message: String,
    status: Status,
}

/// `GET /health/live`: the process answers.
pub fn live() -> Reply<Live> {
    respond::ok(&Live {
        live: true,
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// `GET /health/ready`: 200 once the daemon follows the node's tip and its feeds and keeps up with
/// them, else 503 with the reason.
pub async fn ready(overview: &Overview) -> Result<Reply<Ready>, ApiError> {
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
    Ok(respond::ok(&Ready::at(tip)))
}

/// `GET /status`
pub async fn status(overview: &Arc<Overview>, sessions: usize) -> Result<Reply<Status>, ApiError> {
    let status = overview.status(sessions).await?;
    Ok(respond::ok_at(&status.cursor, &status))
}

/// `POST /start`
pub async fn start_monitoring(
    overview: &Arc<Overview>,
    sessions: usize,
) -> Result<Reply<Started>, ApiError> {
    let message = match overview.monitoring.switch(true).await? {
        true => "Monitoring started; what was missed while it was stopped is being caught up on.",
        false => "Monitoring was on already.",
    };
    let (message, status) = (message.to_owned(), overview.status(sessions).await?);
    Ok(respond::ok(&Started { message, status }))
}

/// `POST /stop`
pub async fn stop_monitoring(overview: &Overview) -> Result<Reply<Done>, ApiError> {
    let message = match overview.monitoring.switch(false).await? {
        true => "Monitoring stopped, also across restarts; POST /start goes on where it was.",
        false => "Monitoring was stopped already.",
    };
    let message = message.to_owned();
    Ok(respond::ok(&Done { message }))
}
