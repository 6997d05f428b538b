//! `GET /metrics`: the Prometheus text format. Every value is read from what owns it when somebody
//! asks; nothing is counted here, so nothing can drift. What is not known (an age before the first
//! message) is left out.

use std::sync::Arc;
use std::time::Instant;

use hyper::header::{CACHE_CONTROL, HeaderValue};
use prometheus::{CounterVec, GaugeVec, Opts, Registry, TextEncoder};
use schemars::JsonSchema;

use super::budget::Budget;
use super::events::EventQueries;
use super::respond::{self, Answer, Reply};
use super::status::Overview;
use super::status_shape::{age, tip_time};
use crate::bitcoind::{NodeStatus, TopicStatus};
use crate::bus::BusState;
use crate::clock::now_ms;
use crate::consumers::{Consumer, Unread};
use crate::events;
use crate::reads::StoreView;
use crate::webhooks::WebhookStats;
use crate::wire::error::ApiError;
use crate::wire::json::seconds;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The Prometheus text format.
#[derive(JsonSchema)]
#[schemars(inline, extend("contentMediaType" = "text/plain"))]
pub struct PrometheusText(#[allow(dead_code, reason = "it looks like this")] String);

impl From<prometheus::Error> for ApiError {
    fn from(cause: prometheus::Error) -> Self {
        Self::internal(&cause)
    }
}

impl Overview {
    /// `GET /metrics`. `sessions`: open Engine.IO sessions. Short work: a few single rows and the
    /// ids of open scans; dead letters are counted only until their webhook has counted them.
    pub async fn metrics(
        self: &Arc<Self>,
        sessions: usize,
    ) -> Result<Reply<PrometheusText>, ApiError> {
        let counts = self.dispatch.counts().await?;
        let consumers = self.consumers.unread(usize::MAX).await?;
        let overview = self.clone();
        let text = self.reads.run(move |view| {
            let mut text = MetricsText::new()?;
            overview.describe_daemon(&mut text, sessions, &counts);
            overview.describe_state(&mut text, view)?;
            overview.describe_consumers(&mut text, &consumers)?;
            overview.describe_bus(&mut text, view)?;
            overview.describe_node(&mut text, &overview.monitoring.node(), now_ms());
            text.text()
        });
        Ok(Reply::written(answer(text.await?)))
    }

    fn describe_daemon(&self, text: &mut MetricsText, sessions: usize, counts: &events::Counts) {
        text.add_process(self.started);
        let help = "1 unless a person stopped it (POST /stop).";
        text.add_single("monitoring", help, flag(self.monitoring.is_on()));
        text.add_clients(sessions, counts, &self.events, &self.budget);
    }

    fn describe_state(&self, text: &mut MetricsText, view: &StoreView<'_>) -> Result<(), ApiError> {
        let counts = view.counts()?;
        let height = view.tip()?.map(|tip| tip.height.into());
        let help = "Height of the last block that is included.";
        text.add_single("tip_height", help, height);
        let help = "Number of the last event in the log.";
        text.add_single("event_head", help, number(view.head()?));
        let help = "Number of the first event that is kept.";
        text.add_single("event_first", help, number(view.reader.first_seq()?));
        let help = "Addresses on the watch list.";
        text.add_single("watched_addresses", help, number(counts.addresses));
        let help = "Descriptors that are watched.";
        text.add_single("descriptors", help, number(view.descriptor_count()?));
        let help = "Addresses that are watched for their descriptors alone.";
        text.add_single("derived_scripts", help, number(counts.derived));
        let help = "Unspent outputs of watched addresses.";
        text.add_single("utxos", help, number(counts.utxos));
        let help = "Transactions of watched addresses.";
        text.add_single("transactions", help, number(counts.transactions));
        let help = "History scans that have not ended.";
        text.add_single("scans_open", help, size(view.open_scans()?.len()));
        let help =
            "Blocks that open history scans still have to pass, each scan counted by itself.";
        text.add_single("scan_blocks_left", help, number(self.scans.blocks_left()));
        Ok(text.registry.register(Box::new(self.step_times.clone()))?)
    }

    fn describe_consumers(
        &self,
        text: &mut MetricsText,
        consumers: &[(Arc<Consumer>, Unread)],
    ) -> Result<(), ApiError> {
        let now = now_ms();
        let mut add = |name, help, value: &dyn Fn(&Consumer, &Unread) -> Option<f64>| {
            let values = consumers.iter();
            let values = values.map(|(it, unread)| (&*it.name, value(it, unread)));
            text.add(name, help, "consumer", values);
        };
        let help = "Events of the log from the first on that the consumer wants and has not acknowledged; 0 when there is none.";
        add("consumer_lag", help, &|_, unread| number(unread.lag()));
        let help =
            "Age of the oldest event that the consumer has not acknowledged; 0 when there is none.";
        add("consumer_lag_seconds", help, &|_, unread| {
            Some(seconds(unread.age(now)))
        });
        let help = "Who reads the consumer now.";
        add("consumer_readers", help, &|it, _| size(it.readers()));

        let webhooks = self.webhooks.all_stats()?;
        let mut add = |name, help, value: fn(&WebhookStats) -> Option<f64>| {
            let values = webhooks.iter().map(|(name, it)| (&**name, value(it)));
            text.add(name, help, "consumer", values);
        };
        let help = "Posts to the webhook.";
        add("webhook_attempts_total", help, |it| number(it.attempts));
        let help = "Posts that failed.";
        add("webhook_failures_total", help, |it| {
            number(it.failed_attempts)
        });
        let help = "Posts on their way.";
        add("webhook_in_flight", help, |it| size(it.in_flight));
        let help = "Events that were given up; see GET /consumers/{name}/dead_letters.";
        add("webhook_dead_letters", help, |it| {
            size(it.dead_letters.unwrap_or_default())
        });
        Ok(())
    }

    /// Nothing without one.
    fn describe_bus(&self, text: &mut MetricsText, view: &StoreView<'_>) -> Result<(), ApiError> {
        let Some(bus) = self.bus_status() else {
            return Ok(());
        };
        let help = "1 while the stream in Redis follows the log.";
        text.add_single("bus_writing", help, flag(bus.state == BusState::Working));
        let help = "Events that are not in the stream yet.";
        text.add_single("bus_lag", help, number(self.bus_lag(view, &bus)?));
        let help = "Events written to the stream.";
        text.add_single("bus_entries_total", help, number(bus.entries));
        let help = "Times that writing to the stream had to wait.";
        text.add_single("bus_problems_total", help, number(bus.problems));
        Ok(())
    }

    fn describe_node(&self, text: &mut MetricsText, status: &NodeStatus, now: u64) {
        let (node, zmq) = (&status.node, &status.zmq);
        let known = |height: u32| status.last_answer.map(|_| height.into());
        let help = "1 while the daemon follows the node's tip and its feeds.";
        let following = self.monitoring.is_on() && status.following;
        text.add_single("following", help, flag(following));
        let help = "Since the daemon heard from the node while it followed it.";
        text.add_single("data_age_seconds", help, age(status.current_at, now));
        let help = "1 while the node answers.";
        text.add_single("node_available", help, flag(status.available));
        let help = "Height of the node's chain when it was asked last.";
        text.add_single("node_blocks", help, known(node.blocks));
        let help = "Height of the node's best header when it was asked last.";
        text.add_single("node_headers", help, known(node.headers));
        let help = "Connections of the node to other nodes.";
        text.add_single("node_connections", help, node.connections.map(Into::into));
        let help = "Since the time in the header of the node's tip.";
        text.add_single("node_tip_age_seconds", help, age(tip_time(node), now));
        let help = "Transactions in the node's mempool when it was read last.";
        text.add_single("mempool_transactions", help, number(status.mempool.size));
        let help = "What a poll, or a look after a gap, found although ZMQ was up; some of it may have been on its way.";
        let repairs = number(status.reconcile.repairs);
        text.add_single("reconcile_repairs_total", help, repairs);

        let topics = [
            ("rawtx", &zmq.rawtx),
            ("rawblock", &zmq.rawblock),
            ("sequence", &zmq.sequence),
        ];
        let mut add = |name, help, value: &dyn Fn(&TopicStatus) -> Option<f64>| {
            let values = topics.map(|(topic, it)| (topic, value(it)));
            text.add(name, help, "topic", values);
        };
        let help = "1 while the topic is subscribed to.";
        add("zmq_connected", help, &|it| flag(it.connected));
        let help = "Times that messages were missing.";
        add("zmq_gaps_total", help, &|it| number(it.gaps));
        let help = "Messages that were missing.";
        add("zmq_lost_total", help, &|it| number(it.lost));
        let help = "Since the last message of the topic.";
        add("zmq_last_message_age_seconds", help, &|it| {
            age(it.last_message, now)
        });
    }
}

/// What `GET /metrics` answers with.
pub fn answer(text: String) -> Answer {
    let mut answer = respond::body(CONTENT_TYPE, text);
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// No count here comes near 2^53, up to where a float is exact.
pub fn number(count: u64) -> Option<f64> {
    Some(count as f64)
}

fn size(count: usize) -> Option<f64> {
    number(count as u64)
}

pub fn flag(is_so: bool) -> Option<f64> {
    Some(f64::from(u8::from(is_so)))
}

/// The metrics of one answer.
pub struct MetricsText {
    registry: Registry,
    /// The first thing that went wrong: a name twice, or one that is none.
    failed: Option<prometheus::Error>,
}

impl MetricsText {
    pub fn new() -> Result<Self, ApiError> {
        let registry = Registry::new_custom(Some("satwatch".to_owned()), None)?;
        Ok(Self {
            registry,
            failed: None,
        })
    }

    pub fn text(self) -> Result<String, ApiError> {
        match self.failed {
            Some(cause) => Err(cause.into()),
            None => Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?),
        }
    }

    pub fn add_single(&mut self, name: &str, help: &str, value: Option<f64>) {
        self.add(name, help, "", [("", value)]);
    }

    /// What runs, and since when.
    pub fn add_process(&mut self, started: Instant) {
        let version = [(env!("CARGO_PKG_VERSION"), Some(1.0))];
        let help = "What runs here; always 1.";
        self.add("build_info", help, "version", version);
        let uptime = Some(started.elapsed().as_secs_f64());
        self.add_single("uptime_seconds", "Since the daemon started.", uptime);
    }

    /// Who is connected. `sessions`: open ones of Engine.IO.
    pub fn add_clients(
        &mut self,
        sessions: usize,
        counts: &events::Counts,
        events: &EventQueries,
        budget: &Budget,
    ) {
        self.add_single("sessions", "Open Engine.IO sessions.", size(sessions));
        let help = "Sessions that subscribed to something.";
        self.add_single("subscribers", help, size(counts.subscribers));
        let help = "Subscriptions of all sessions.";
        self.add_single("subscriptions", help, size(counts.subscriptions));
        let help = "Sessions that read so slowly that they are told from the log, until they have caught up.";
        self.add_single("lagging", help, size(counts.lagging));
        let help = "REST requests that wait for events.";
        self.add_single("waiting_requests", help, size(events.waiting()));
        let help = "Bytes of REST requests and answers under way that count for limits.rest_bytes.";
        self.add_single("rest_bytes", help, size(budget.held()));
    }

    /// A counter when its name says so, else a gauge; left out without a value.
    fn add<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, Option<f64>)>,
    ) {
        let values = values
            .into_iter()
            .filter_map(|(of, value)| Some((of, value?)));
        let added = self.register(name, help, label, values);
        self.failed = self.failed.take().or(added.err());
    }

    fn register<'a>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'a str, f64)>,
    ) -> prometheus::Result<()> {
        let names: &[&str] = if label.is_empty() { &[] } else { &[label] };
        let opts = Opts::new(name, help);
        if name.ends_with("_total") {
            let counters = CounterVec::new(opts, names)?;
            for (of, value) in values {
                let labels = [of];
                let labels = labels.get(..names.len()).unwrap_or_default();
                counters.get_metric_with_label_values(labels)?.inc_by(value);
            }
            return self.registry.register(Box::new(counters));
        }
        let gauges = GaugeVec::new(opts, names)?;
        for (of, value) in values {
            let labels = [of];
            let labels = labels.get(..names.len()).unwrap_or_default();
            gauges.get_metric_with_label_values(labels)?.set(value);
        }
        self.registry.register(Box::new(gauges))
    }
}
