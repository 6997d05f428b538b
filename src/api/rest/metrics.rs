//! `GET /metrics`: the Prometheus text format. Every value is read from what owns it when somebody
//! asks; nothing is counted here, so nothing can drift. What is not known (an age before the first
//! message) is left out.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use prometheus::{CounterVec, GaugeVec, Opts, Registry, TextEncoder};

use super::respond::{self, Answer};
use super::status::{Overview, tip_time};
use crate::bitcoind::{self, TopicStatus};
use crate::clock::now_ms;
use crate::consumers::{Consumer, Unread};
use crate::events;
use crate::store::StoreReader;
use crate::webhooks::Counters;
use crate::wire::error::ApiError;
use crate::wire::json::seconds;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl From<prometheus::Error> for ApiError {
    fn from(cause: prometheus::Error) -> Self {
        Self::internal(&cause)
    }
}

impl Overview {
    /// `GET /metrics`. `sessions`: open Engine.IO sessions. Short work: a few single rows and the
    /// ids of open scans; dead letters are counted only until their webhook has counted them.
    pub async fn metrics(self: &Arc<Self>, sessions: usize) -> Result<Answer, ApiError> {
        let counts = self.dispatch.counts().await?;
        let consumers = self.consumers.unread(usize::MAX).await?;
        let overview = self.clone();
        let text = self.reads.run(move |reader| {
            let writer = MetricsWriter::new()?;
            overview.describe_daemon(&writer)?;
            overview.describe_state(&writer, reader)?;
            overview.describe_clients(&writer, sessions, counts)?;
            overview.describe_consumers(&writer, &consumers)?;
            overview.describe_node(&writer, &overview.monitoring.node(), now_ms())?;
            Ok(TextEncoder::new().encode_to_string(&writer.0.gather())?)
        });
        let mut answer = respond::body(StatusCode::OK, CONTENT_TYPE, text.await?);
        answer
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(answer)
    }

    fn describe_daemon(&self, writer: &MetricsWriter) -> Result<(), ApiError> {
        let version = [([env!("CARGO_PKG_VERSION")], 1.0)];
        writer.gauges(
            "build_info",
            "What runs here; always 1.",
            ["version"],
            version,
        )?;
        writer.gauge(
            "uptime_seconds",
            "Since the daemon started.",
            self.started.elapsed().as_secs_f64(),
        )?;
        writer.gauge(
            "monitoring",
            "1 unless a person stopped it (POST /stop).",
            flag(self.monitoring.is_on()),
        )
    }

    fn describe_state(&self, writer: &MetricsWriter, reader: &StoreReader) -> Result<(), ApiError> {
        let snapshot = reader.snapshot();
        let (counts, first) = (snapshot.counts()?, reader.first_seq()?);
        writer.gauge(
            "tip_height",
            "Height of the last block that is included.",
            snapshot.tip()?.map(|tip| tip.height),
        )?;
        writer.gauge(
            "event_head",
            "Number of the last event in the log.",
            number(snapshot.head()?),
        )?;
        writer.gauge(
            "event_first",
            "Number of the first event that is kept.",
            number(first),
        )?;
        writer.gauge(
            "watched_addresses",
            "Addresses on the watch list.",
            number(counts.addresses),
        )?;
        writer.gauge(
            "utxos",
            "Unspent outputs of watched addresses.",
            number(counts.utxos),
        )?;
        writer.gauge(
            "transactions",
            "Transactions of watched addresses.",
            number(counts.transactions),
        )?;
        writer.gauge(
            "scans_open",
            "History scans that have not ended.",
            number(snapshot.open_scans()?.len() as u64),
        )?;
        writer.gauge(
            "scan_blocks_left",
            "Blocks that open history scans still have to pass, each scan counted by itself.",
            number(self.scans.blocks_left()),
        )?;
        Ok(writer.0.register(Box::new(self.step_times.clone()))?)
    }

    fn describe_clients(
        &self,
        writer: &MetricsWriter,
        sessions: usize,
        counts: events::Counts,
    ) -> Result<(), ApiError> {
        let size = |size: usize| number(size as u64);
        writer.gauge("sessions", "Open Engine.IO sessions.", size(sessions))?;
        writer.gauge(
            "subscribers",
            "Sessions that subscribed to something.",
            size(counts.subscribers),
        )?;
        writer.gauge(
            "subscriptions",
            "Subscriptions of all sessions.",
            size(counts.subscriptions),
        )?;
        writer.gauge(
            "lagging",
            "Sessions that read so slowly that they are told from the log, until they have caught up.",
            size(counts.lagging),
        )?;
        writer.gauge(
            "waiting_requests",
            "REST requests that wait for events.",
            size(self.events.waiting()),
        )?;
        writer.gauge(
            "rest_bytes",
            "Bytes of REST requests and answers under way that count for limits.rest_bytes.",
            size(self.budget.held()),
        )
    }

    fn describe_consumers(
        &self,
        writer: &MetricsWriter,
        consumers: &[(Arc<Consumer>, Unread)],
    ) -> Result<(), ApiError> {
        let of_each = |value: fn(&Unread) -> f64| {
            consumers
                .iter()
                .map(move |(consumer, unread)| ([&*consumer.name], value(unread)))
        };
        let help = "Events of the log from the first on that the consumer wants and has not acknowledged; 0 when there is none.";
        writer.gauges(
            "consumer_lag",
            help,
            ["consumer"],
            of_each(|unread| number(unread.lag())),
        )?;
        let help =
            "Age of the oldest event that the consumer has not acknowledged; 0 when there is none.";
        writer.gauges(
            "consumer_lag_seconds",
            help,
            ["consumer"],
            of_each(|unread| seconds(unread.age(now_ms()))),
        )?;
        let readers = consumers
            .iter()
            .map(|(consumer, _)| ([&*consumer.name], number(consumer.readers() as u64)));
        writer.gauges(
            "consumer_readers",
            "Who reads the consumer now.",
            ["consumer"],
            readers,
        )?;

        let webhooks = self.webhooks.counters()?;
        let of_each = |value: fn(&Counters) -> f64| {
            webhooks
                .iter()
                .map(move |(name, counters)| ([&**name], value(counters)))
        };
        writer.counters(
            "webhook_attempts_total",
            "Posts to the webhook.",
            ["consumer"],
            of_each(|it| number(it.attempts)),
        )?;
        writer.counters(
            "webhook_failures_total",
            "Posts that failed.",
            ["consumer"],
            of_each(|it| number(it.failures)),
        )?;
        writer.gauges(
            "webhook_in_flight",
            "Posts on their way.",
            ["consumer"],
            of_each(|it| number(it.in_flight as u64)),
        )?;
        let help = "Events that were given up; see GET /consumers/{name}/dead_letters.";
        writer.gauges(
            "webhook_dead_letters",
            help,
            ["consumer"],
            of_each(|it| number(it.dead_letters as u64)),
        )
    }

    fn describe_node(
        &self,
        writer: &MetricsWriter,
        node: &bitcoind::NodeStatus,
        now: u64,
    ) -> Result<(), ApiError> {
        let following = self.monitoring.is_on() && node.following;
        writer.gauge(
            "following",
            "1 while the daemon follows the node's tip and its feeds.",
            flag(following),
        )?;
        writer.gauge(
            "data_age_seconds",
            "Since the daemon heard from the node while it followed it.",
            age(node.current_at, now),
        )?;
        writer.gauge(
            "node_available",
            "1 while the node answers.",
            flag(node.available),
        )?;
        let known = node.last_answer.is_some();
        writer.gauge(
            "node_blocks",
            "Height of the node's chain when it was asked last.",
            known.then_some(node.node.blocks),
        )?;
        writer.gauge(
            "node_headers",
            "Height of the node's best header when it was asked last.",
            known.then_some(node.node.headers),
        )?;
        writer.gauge(
            "node_connections",
            "Connections of the node to other nodes.",
            node.node.connections,
        )?;
        writer.gauge(
            "node_tip_age_seconds",
            "Since the time in the header of the node's tip.",
            age(tip_time(&node.node), now),
        )?;
        writer.gauge(
            "mempool_transactions",
            "Transactions in the node's mempool when it was read last.",
            number(node.mempool.size),
        )?;
        writer.counter(
            "reconcile_repairs_total",
            "What a poll, or a look after a gap, found although ZMQ was up; some of it may have been on its way.",
            number(node.reconcile.repairs),
        )?;
        let topics = [
            ("rawtx", &node.zmq.rawtx),
            ("rawblock", &node.zmq.rawblock),
            ("sequence", &node.zmq.sequence),
        ];
        let of_each =
            |value: fn(&TopicStatus) -> f64| topics.map(|(name, topic)| ([name], value(topic)));
        writer.gauges(
            "zmq_connected",
            "1 while the topic is subscribed to.",
            ["topic"],
            of_each(|topic| flag(topic.connected)),
        )?;
        writer.counters(
            "zmq_gaps_total",
            "Times that messages were missing.",
            ["topic"],
            of_each(|topic| number(topic.gaps)),
        )?;
        writer.counters(
            "zmq_lost_total",
            "Messages that were missing.",
            ["topic"],
            of_each(|topic| number(topic.lost)),
        )?;
        let ages = topics
            .into_iter()
            .filter_map(|(name, topic)| Some(([name], age(topic.last_message, now)?)));
        writer.gauges(
            "zmq_last_message_age_seconds",
            "Since the last message of the topic.",
            ["topic"],
            ages,
        )
    }
}

/// No count here comes near 2^53, up to where a float is exact.
fn number(count: u64) -> f64 {
    count as f64
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn age(then: Option<u64>, now: u64) -> Option<f64> {
    then.map(|then| number(now.saturating_sub(then)) / 1000.0)
}

/// The metrics of one answer, with the prefix `satwatch_`.
struct MetricsWriter(Registry);

impl MetricsWriter {
    fn new() -> Result<Self, ApiError> {
        Ok(Self(Registry::new_custom(
            Some("satwatch".to_owned()),
            None,
        )?))
    }

    /// Left out without a value.
    fn gauge(&self, name: &str, help: &str, value: impl Into<Value>) -> Result<(), ApiError> {
        self.gauges(name, help, [], value.into().0.map(|value| ([], value)))
    }

    fn counter(&self, name: &str, help: &str, value: f64) -> Result<(), ApiError> {
        self.counters(name, help, [], [([], value)])
    }

    fn gauges<'a, const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([&'a str; N], f64)>,
    ) -> Result<(), ApiError> {
        let gauges = GaugeVec::new(Opts::new(name, help), &labels)?;
        for (labels, value) in values {
            gauges.get_metric_with_label_values(&labels)?.set(value);
        }
        Ok(self.0.register(Box::new(gauges))?)
    }

    fn counters<'a, const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([&'a str; N], f64)>,
    ) -> Result<(), ApiError> {
        let counters = CounterVec::new(Opts::new(name, help), &labels)?;
        for (labels, value) in values {
            counters
                .get_metric_with_label_values(&labels)?
                .inc_by(value);
        }
        Ok(self.0.register(Box::new(counters))?)
    }
}

struct Value(Option<f64>);

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self(Some(value))
    }
}

impl<T: Into<f64>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        Self(value.map(Into::into))
    }
}
