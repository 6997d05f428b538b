//! The [`NodeStatus`] that is published, and what changes it.

use std::time::Duration;

use crate::bitcoind::findings::initial_download;
use crate::bitcoind::rpc::{Blockchain, MempoolInfo, Network};
use crate::bitcoind::zmq::ZmqTopic;
use crate::bitcoind::{
    Endpoints, Finding, NodeError, NodeErrorKind, NodeInfo, NodeStatus, TopicStatus,
};

/// What keeps us from following.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotReady {
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

/// Times are in milliseconds since the Unix epoch.
pub struct StatusBuilder {
    status: NodeStatus,
    not_ready: Option<NotReady>,
}

impl StatusBuilder {
    pub fn new(interval: Duration) -> Self {
        let mut status = NodeStatus::default();
        status.reconcile.interval = interval.as_secs();
        Self {
            status,
            not_ready: Some(NotReady::Node),
        }
    }

    /// There is a node of our chain.
    pub(super) fn found(&mut self, node: &NodeInfo, notes: &[Finding], now: u64) {
        for finding in notes {
            match &finding.remedy {
                None => tracing::info!("{}", finding.what),
                Some(remedy) => tracing::warn!("{}; {remedy}", finding.what),
            }
        }
        let status = &mut self.status;
        status.available = true;
        status.error = None;
        status.unavailable_since = None;
        status.last_answer = Some(now);
        status.node = node.clone();
        status.notes = notes.to_vec();
    }

    pub(super) fn node_failed(&mut self, error: &NodeError, now: u64) {
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
            status.unavailable_since.get_or_insert(now);
        }
    }

    pub(super) fn node_answered(&mut self, now: u64) {
        self.node_available(now);
        self.status.error = None;
    }

    /// It answered a call, while another one fails.
    pub(super) fn node_available(&mut self, now: u64) {
        self.contact(now);
        let status = &mut self.status;
        status.last_answer = Some(now);
        status.unavailable_since = None;
        status.available = true;
    }

    /// The node told or answered something: while we follow it, what we know is what it knows.
    fn contact(&mut self, at: u64) {
        if self.not_ready.is_none() {
            self.status.current_at = Some(at);
        }
    }

    pub(super) fn network(&mut self, network: &Network) {
        self.status.node.set_network(network);
    }

    pub(super) fn node(&mut self, node: &Blockchain) {
        self.status.node.set_chain(node);
    }

    pub(super) fn node_info(&self) -> &NodeInfo {
        &self.status.node
    }

    /// A block came over ZMQ: the node is at least so high.
    pub(super) fn node_height(&mut self, height: u32) {
        self.status.node.blocks = height;
        self.status.node.headers = self.status.node.headers.max(height);
    }

    pub(super) fn notes(&mut self, notes: Vec<Finding>) {
        self.status.notes = notes;
    }

    pub(super) fn endpoints(&mut self, endpoints: &Endpoints) {
        for (topic, endpoint) in ZmqTopic::ALL.into_iter().zip([
            &endpoints.rawtx,
            &endpoints.rawblock,
            &endpoints.sequence,
        ]) {
            let status = self.topic_mut(topic);
            status.connected = false;
            status.endpoint.clone_from(endpoint);
        }
    }

    pub(super) fn connected(&mut self, topics: &[ZmqTopic], connected: bool) {
        for topic in topics {
            let status = self.topic_mut(*topic);
            status.connected = connected;
            let endpoint = status.endpoint.clone().unwrap_or_default();
            match connected {
                true => tracing::info!("ZMQ {} connected at {endpoint}", topic.name()),
                false => tracing::warn!("ZMQ {} at {endpoint} is disconnected", topic.name()),
            }
        }
    }

    pub(super) fn believed(&mut self, topic: ZmqTopic, believed: bool) {
        self.topic_mut(topic).believed = believed;
    }

    pub(super) fn heard(&mut self, topic: ZmqTopic, number: u32, at: u64) {
        let status = self.topic_mut(topic);
        status.last_sequence = Some(number);
        status.last_message = Some(at);
        self.contact(at);
    }

    pub(super) fn gap(&mut self, topic: ZmqTopic, lost: u64) {
        let status = self.topic_mut(topic);
        status.gaps += 1;
        status.lost = status.lost.saturating_add(lost);
    }

    pub(super) fn reconciled(&mut self, took: Duration, now: u64) {
        self.status.reconcile.last_run = Some(now);
        self.status.reconcile.last_duration_ms =
            u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    }

    pub(super) fn repaired(&mut self, count: u64) {
        self.status.reconcile.repairs += count;
    }

    pub(super) fn mempool(&mut self, info: MempoolInfo, now: u64) {
        self.status.mempool.size = info.size;
        self.status.mempool.loaded = info.loaded;
        self.status.mempool.replacement = info.replacement(self.status.node.version);
        self.status.mempool.at = Some(now);
    }

    /// The node downloads the chain for the first time or after a long pause.
    pub(super) fn syncing(&self) -> bool {
        self.status.node.initial_block_download && !self.status.node.private
    }

    /// Every topic that the node offers is connected.
    pub(super) fn feeds_up(&self) -> bool {
        self.topic_down().is_none()
    }

    fn topic_down(&self) -> Option<&TopicStatus> {
        let mut topics = ZmqTopic::ALL.into_iter().map(|topic| self.topic(topic));
        topics.find(|topic| topic.endpoint.is_some() && !topic.connected)
    }

    /// It is connected, and known to be our node's.
    pub(super) fn topic_up(&self, topic: ZmqTopic) -> bool {
        self.topic(topic).connected && self.topic(topic).believed
    }

    /// The status as it is to be published, given what keeps us from following.
    pub(super) fn build(&mut self, not_ready: Option<NotReady>, now: u64) -> &NodeStatus {
        if not_ready.is_none() && self.not_ready.is_some() {
            tracing::info!("following bitcoind at block {}", self.status.node.blocks);
            self.status.current_at = Some(now);
        }
        self.not_ready = not_ready;
        self.status.following = self.not_ready.is_none();
        self.status.reason = self.reason(now);
        &self.status
    }

    fn reason(&self, now: u64) -> Option<String> {
        let status = &self.status;
        Some(match self.not_ready.as_ref()? {
            NotReady::Stopped => "monitoring is stopped".into(),
            NotReady::Node => status
                .error
                .clone()
                .unwrap_or_else(|| "looking for bitcoind".into()),
            NotReady::Chain(why) => why.clone(),
            NotReady::CatchingUp => {
                format!("catching up with bitcoind at block {}", status.node.blocks)
            }
            NotReady::Syncing => initial_download(&status.node, now / 1000),
            NotReady::Mempool if !status.mempool.loaded => "bitcoind is loading its mempool".into(),
            NotReady::Mempool => "reading bitcoind's mempool".into(),
            NotReady::Feed => {
                let endpoint = self
                    .topic_down()
                    .and_then(|topic| topic.endpoint.as_deref())
                    .unwrap_or_default();
                format!("ZMQ at {endpoint} is not connected")
            }
        })
    }

    fn topic_mut(&mut self, topic: ZmqTopic) -> &mut TopicStatus {
        match topic {
            ZmqTopic::Rawtx => &mut self.status.zmq.rawtx,
            ZmqTopic::Rawblock => &mut self.status.zmq.rawblock,
            ZmqTopic::Sequence => &mut self.status.zmq.sequence,
        }
    }

    fn topic(&self, topic: ZmqTopic) -> &TopicStatus {
        match topic {
            ZmqTopic::Rawtx => &self.status.zmq.rawtx,
            ZmqTopic::Rawblock => &self.status.zmq.rawblock,
            ZmqTopic::Sequence => &self.status.zmq.sequence,
        }
    }
}
