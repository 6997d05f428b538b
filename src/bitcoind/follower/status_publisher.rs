//! The published [`NodeStatus`], and what changes it. Great changes go out at once, counters a few
//! times a second.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::bitcoind::findings::initial_download;
use crate::bitcoind::rpc::{Blockchain, MempoolInfo, Network};
use crate::bitcoind::zmq::ZmqTopic;
use crate::bitcoind::{
    DiscoveredNode, Endpoints, Finding, NodeError, NodeErrorKind, NodeInfo, NodeStatus, TopicStatus,
};
use crate::clock::now_ms;

/// Between two publications of mere counters.
const PACE: Duration = Duration::from_millis(200);

/// What keeps us from following.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::bitcoind) enum NotReady {
    /// Monitoring is stopped.
    Stopped,
    /// Calls fail; the status has the error.
    Node,
    /// The node's chain is not followed for now; says why.
    Chain(String),
    CatchingUp,
    Syncing,
    Mempool,
    Feed,
}

pub(in crate::bitcoind) struct StatusPublisher {
    status: NodeStatus,
    sender: watch::Sender<NodeStatus>,
    not_ready: Option<NotReady>,
    /// Something changed since the last publication.
    dirty: bool,
    /// It must go out now.
    urgent: bool,
    published: Instant,
}

impl StatusPublisher {
    pub(in crate::bitcoind) fn new(interval: Duration) -> (Self, watch::Receiver<NodeStatus>) {
        let mut status = NodeStatus {
            reason: Some("looking for bitcoind".into()),
            ..NodeStatus::default()
        };
        status.reconcile.interval = interval.as_secs();
        let (sender, receiver) = watch::channel(status.clone());
        let not_ready = Some(NotReady::Node);
        (
            Self {
                status,
                sender,
                not_ready,
                dirty: false,
                urgent: false,
                published: Instant::now(),
            },
            receiver,
        )
    }

    pub(super) fn found(&mut self, found: &DiscoveredNode) {
        for finding in &found.notes {
            match &finding.remedy {
                None => tracing::info!("{}", finding.what),
                Some(remedy) => tracing::warn!("{}; {remedy}", finding.what),
            }
        }
        let status = &mut self.status;
        status.available = true;
        status.error = None;
        status.unavailable_since = None;
        status.last_answer = Some(now_ms());
        status.node.clone_from(&found.node);
        status.notes.clone_from(&found.notes);
        self.urgent = true;
    }

    pub(super) fn node_failed(&mut self, error: &NodeError) {
        let status = &mut self.status;
        let text = error.to_string();
        if status.error.as_ref() != Some(&text) {
            tracing::warn!("{text}");
        }
        status.error = Some(text);
        // A refusal is an answer; a full queue, a page of HTML or another chain is none.
        if !matches!(
            error.kind,
            NodeErrorKind::Rpc(_) | NodeErrorKind::MethodRefused
        ) {
            status.available = false;
            status.unavailable_since.get_or_insert_with(now_ms);
        }
        self.urgent = true;
    }

    pub(super) fn node_answered(&mut self) {
        self.node_available();
        if self.status.error.take().is_some() {
            self.urgent = true;
        }
    }

    /// It answered a call, while another one fails.
    pub(super) fn node_available(&mut self) {
        self.contact(now_ms());
        let status = &mut self.status;
        status.last_answer = Some(now_ms());
        status.unavailable_since = None;
        self.dirty = true;
        if !std::mem::replace(&mut status.available, true) {
            self.urgent = true;
        }
    }

    /// The node told or answered something: while we follow it, what we know is what it knows.
    fn contact(&mut self, at: u64) {
        if self.not_ready.is_none() {
            self.status.current_at = Some(at);
        }
    }

    pub(super) fn network(&mut self, network: &Network) {
        self.status.node.set_network(network);
        self.dirty = true;
    }

    pub(super) fn node(&mut self, node: &Blockchain) {
        self.status.node.set_chain(node);
        self.dirty = true;
    }

    pub(super) fn node_info(&self) -> &NodeInfo {
        &self.status.node
    }

    /// A block came over ZMQ: the node is at least so high.
    pub(super) fn node_height(&mut self, height: u32) {
        self.status.node.blocks = height;
        self.status.node.headers = self.status.node.headers.max(height);
        self.dirty = true;
    }

    pub(super) fn notes(&mut self, notes: Vec<Finding>) {
        self.status.notes = notes;
        self.dirty = true;
    }

    pub(super) fn endpoints(&mut self, endpoints: &Endpoints) {
        for (topic, endpoint) in ZmqTopic::ALL.into_iter().zip([
            &endpoints.rawtx,
            &endpoints.rawblock,
            &endpoints.sequence,
        ]) {
            let status = self.topic(topic);
            status.connected = false;
            status.endpoint.clone_from(endpoint);
        }
        self.urgent = true;
    }

    pub(super) fn connected(&mut self, topics: &[ZmqTopic], connected: bool) {
        for topic in topics {
            let status = self.topic(*topic);
            status.connected = connected;
            let endpoint = status.endpoint.clone().unwrap_or_default();
            match connected {
                true => tracing::info!("ZMQ {} connected at {endpoint}", topic.name()),
                false => tracing::warn!("ZMQ {} at {endpoint} is disconnected", topic.name()),
            }
        }
        self.urgent = true;
    }

    pub(super) fn believed(&mut self, topic: ZmqTopic, believed: bool) {
        let status = self.topic(topic);
        if std::mem::replace(&mut status.believed, believed) != believed {
            self.urgent = true;
        }
    }

    pub(super) fn heard(&mut self, topic: ZmqTopic, number: u32, at: u64) {
        let status = self.topic(topic);
        status.last_sequence = Some(number);
        status.last_message = Some(at);
        self.contact(at);
        self.dirty = true;
    }

    pub(super) fn gap(&mut self, topic: ZmqTopic, lost: u64) {
        let status = self.topic(topic);
        status.gaps += 1;
        status.lost = status.lost.saturating_add(lost);
        self.dirty = true;
    }

    pub(super) fn reconciled(&mut self, took: Duration) {
        self.status.reconcile.last_run = Some(now_ms());
        self.status.reconcile.last_duration_ms =
            u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.dirty = true;
    }

    pub(super) fn repaired(&mut self, count: u64) {
        self.status.reconcile.repairs += count;
        self.dirty = true;
    }

    pub(super) fn mempool(&mut self, info: MempoolInfo) {
        self.status.mempool.size = info.size;
        self.status.mempool.loaded = info.loaded;
        self.status.mempool.replacement = info.replacement(self.status.node.version);
        self.status.mempool.at = Some(now_ms());
        self.dirty = true;
    }

    /// The node downloads the chain for the first time or after a long pause.
    pub(super) fn syncing(&self) -> bool {
        self.status.node.initial_block_download && !self.status.node.private
    }

    /// Every topic that the node offers is connected.
    pub(super) fn feeds_up(&self) -> bool {
        ZmqTopic::ALL
            .into_iter()
            .all(|topic| self.look(topic).endpoint.is_none() || self.look(topic).connected)
    }

    /// It is connected, and known to be our node's.
    pub(super) fn topic_up(&self, topic: ZmqTopic) -> bool {
        self.look(topic).connected && self.look(topic).believed
    }

    /// Publishes if there is reason to.
    pub(in crate::bitcoind) fn publish(&mut self, not_ready: Option<NotReady>) {
        if not_ready != self.not_ready {
            if not_ready.is_none() {
                tracing::info!("following bitcoind at block {}", self.status.node.blocks);
                self.status.current_at = Some(now_ms());
            }
            self.not_ready = not_ready;
            self.urgent = true;
        }
        let due = self.urgent || (self.dirty && self.published.elapsed() >= PACE);
        if !due {
            return;
        }
        self.status.following = self.not_ready.is_none();
        self.status.reason = self.reason();
        self.sender.send_replace(self.status.clone());
        (self.dirty, self.urgent) = (false, false);
        self.published = Instant::now();
    }

    /// When a mere counter is to be published.
    pub(super) fn publish_at(&self) -> Option<Instant> {
        self.dirty.then(|| self.published + PACE)
    }

    fn reason(&self) -> Option<String> {
        let status = &self.status;
        Some(match self.not_ready.as_ref()? {
            NotReady::Stopped => "monitoring is stopped".into(),
            NotReady::Node => status
                .error
                .clone()
                .unwrap_or_else(|| "bitcoind does not answer".into()),
            NotReady::Chain(why) => why.clone(),
            NotReady::CatchingUp => {
                format!("catching up with bitcoind at block {}", status.node.blocks)
            }
            NotReady::Syncing => initial_download(&status.node, now_ms() / 1000),
            NotReady::Mempool if !status.mempool.loaded => "bitcoind is loading its mempool".into(),
            NotReady::Mempool => "reading bitcoind's mempool".into(),
            NotReady::Feed => {
                let down = ZmqTopic::ALL.into_iter().find_map(|topic| {
                    self.look(topic)
                        .endpoint
                        .as_ref()
                        .filter(|_| !self.look(topic).connected)
                });
                format!(
                    "ZMQ at {} is not connected",
                    down.map_or("", String::as_str)
                )
            }
        })
    }

    fn topic(&mut self, topic: ZmqTopic) -> &mut TopicStatus {
        match topic {
            ZmqTopic::Rawtx => &mut self.status.zmq.rawtx,
            ZmqTopic::Rawblock => &mut self.status.zmq.rawblock,
            ZmqTopic::Sequence => &mut self.status.zmq.sequence,
        }
    }

    fn look(&self, topic: ZmqTopic) -> &TopicStatus {
        match topic {
            ZmqTopic::Rawtx => &self.status.zmq.rawtx,
            ZmqTopic::Rawblock => &self.status.zmq.rawblock,
            ZmqTopic::Sequence => &self.status.zmq.sequence,
        }
    }
}
