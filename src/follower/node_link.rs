//! What both sides know: whether they are on, whether the node answers, what it offers, which feeds
//! are its own.

use std::time::Instant;

use super::actions::{Action, Call, Inspection, Now};
use super::backoff::Backoff;
use super::feed_check::FeedCheck;
use super::status_builder::StatusBuilder;
use super::times::INSPECTION;
use crate::bitcoind::findings::findings;
use crate::bitcoind::rpc::{Blockchain, Notification};
use crate::bitcoind::url::NodeUrl;
use crate::bitcoind::zmq::ZmqTopic;
use crate::bitcoind::{Endpoints, NodeError, discover};
use crate::config;
use crate::follower::mempool_snapshot::MempoolSnapshot;

/// Seconds by which a clock that is set may move the start of the node.
const CLOCK_SLACK: u64 = 3;

pub struct NodeLink {
    /// Monitoring is.
    pub(super) on: bool,
    settings: config::Bitcoind,
    /// Of its RPC.
    url: NodeUrl,
    /// The store's, as `getblockchaininfo` names it.
    network: &'static str,
    pub(super) status: StatusBuilder,
    endpoints: Endpoints,
    feed_check: FeedCheck,
    backoff: Backoff,
    /// When the next inspection is due.
    inspect_at: Instant,
    inspecting: bool,
    /// When the node was started, in seconds since the Unix epoch.
    started: Option<u64>,
}

/// What an inspection showed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Inspected {
    /// The node publishes elsewhere than it did.
    pub(super) subscribed: bool,
    pub(super) restarted: bool,
}

impl NodeLink {
    pub fn new(
        settings: config::Bitcoind,
        url: NodeUrl,
        network: &'static str,
        status: StatusBuilder,
        on: bool,
        now: Now,
    ) -> Self {
        Self {
            on,
            settings,
            url,
            network,
            status,
            endpoints: Endpoints::default(),
            feed_check: FeedCheck::default(),
            backoff: Backoff::default(),
            inspect_at: now.instant,
            inspecting: false,
            started: None,
        }
    }

    /// When what is due at `at` may be asked.
    pub(super) fn not_before(&self, at: Instant) -> Instant {
        self.backoff.not_before(at)
    }

    pub(super) fn may_call(&self, now: Now) -> bool {
        self.not_before(now.instant) <= now.instant
    }

    pub(super) fn failing(&self) -> bool {
        self.backoff.failing()
    }

    /// A call failed: no more calls for a while.
    pub(super) fn failed(&mut self, error: &NodeError, now: Now) {
        self.status.node_failed(error, now.ms);
        self.backoff.failed(now.instant);
    }

    pub(super) fn answered(&mut self, now: Now) {
        if self.backoff.answered() {
            tracing::info!("bitcoind answers again");
            self.inspect_at = now.instant;
        }
        self.status.node_answered(now.ms);
    }

    /// The node says how its chain is. An error if that is not the store's.
    pub(super) fn chain(&mut self, node: &Blockchain) -> Result<(), NodeError> {
        self.status.node(node);
        match node.chain == self.network {
            true => Ok(()),
            false => Err(discover::wrong_chain(&self.url, &node.chain, self.network)),
        }
    }

    /// The next inspection is due now.
    pub(super) fn want_inspection(&mut self, now: Now) {
        self.inspect_at = now.instant;
    }

    pub(super) fn inspection_at(&self) -> Option<Instant> {
        (!self.inspecting).then(|| self.not_before(self.inspect_at))
    }

    pub(super) fn start_inspection(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.inspection_at().is_some_and(|at| at <= now.instant) {
            self.inspecting = true;
            self.inspect_at = now.instant + INSPECTION;
            actions.push(Action::Call(Call::Inspect));
        }
    }

    pub(super) fn inspected(
        &mut self,
        result: Result<Box<Inspection>, NodeError>,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<Inspected, NodeError> {
        self.inspecting = false;
        let inspection = result?;
        if inspection.node.chain != self.network {
            // Its feeds must not be subscribed; the next look says so.
            return Ok(Inspected::default());
        }
        match self.failing() {
            // Another call fails, and its reason stands until it does not.
            true => self.status.node_available(now.ms),
            false => self.status.node_answered(now.ms),
        }
        self.status.node(&inspection.node);
        if let Ok(network) = &inspection.network {
            self.status.network(network);
        }
        if let Some(mempool) = inspection.mempool {
            self.status.mempool(mempool, now.ms);
        }
        let listed = inspection.notifications.as_ref();
        let subscribed = listed.is_ok_and(|listed| self.listed(listed, actions));
        self.status.notes(findings(
            &self.settings,
            self.status.node_info(),
            self.url.host(),
            inspection.network.as_ref().map(|_| ()),
            inspection.notifications.as_deref(),
            &self.endpoints,
            now.ms / 1000,
        ));
        Ok(Inspected {
            subscribed,
            restarted: inspection
                .uptime
                .is_some_and(|uptime| self.runs_since((now.ms / 1000).saturating_sub(uptime))),
        })
    }

    /// Whether it was started again since the last inspection.
    fn runs_since(&mut self, started: u64) -> bool {
        self.started
            .replace(started)
            .is_some_and(|known| started > known + CLOCK_SLACK)
    }

    /// The node says what it publishes where. True if that is elsewhere than it was.
    fn listed(&mut self, notifications: &[Notification], actions: &mut Vec<Action>) -> bool {
        let host = self.url.host().to_owned();
        let endpoints = discover::endpoints(&self.settings, notifications, &host);
        let elsewhere = endpoints != self.endpoints;
        if elsewhere {
            self.subscribe(endpoints, actions);
        }
        let lists = |topic| discover::lists(notifications, &host, topic, &self.endpoints);
        let (rawblock, sequence) = (lists(ZmqTopic::Rawblock), lists(ZmqTopic::Sequence));
        self.feed_check.list(rawblock, sequence);
        self.believe();
        elsewhere
    }

    /// Receives from these endpoints from now on.
    pub(super) fn subscribe(&mut self, endpoints: Endpoints, actions: &mut Vec<Action>) {
        self.status.endpoints(&endpoints);
        self.feed_check.forget();
        // What the settings do not name is where the node says it is.
        self.feed_check.list(
            self.settings.zmq_rawblock.is_none(),
            self.settings.zmq_sequence.is_none(),
        );
        self.endpoints.clone_from(&endpoints);
        self.believe();
        actions.push(Action::Subscribe(endpoints));
    }

    fn believe(&mut self) {
        for topic in ZmqTopic::ALL {
            self.status
                .believed(topic, self.feed_check.believes(topic, &self.endpoints));
        }
    }

    /// Somebody else may publish from now on: it has to be proved again that it is our node.
    pub(super) fn forget_proof(&mut self) {
        self.feed_check.forget();
        self.believe();
    }

    pub(super) fn feed_check(&mut self) -> &mut FeedCheck {
        &mut self.feed_check
    }

    /// Takes a reading of the mempool for the proof that a feed is our node's.
    pub(super) fn judge(&mut self, snapshot: &MempoolSnapshot) {
        if self.feed_check.judge(snapshot) {
            tracing::info!(
                "what is published at {} is bitcoind's own",
                self.endpoints.sequence.as_deref().unwrap_or_default()
            );
            self.believe();
        }
    }

    /// It is connected, and known to be our node's.
    pub(super) fn topic_up(&self, topic: ZmqTopic) -> bool {
        self.status.topic_up(topic)
    }

    /// The node offers blocks over ZMQ.
    pub(super) fn offers_blocks(&self) -> bool {
        self.endpoints.rawblock.is_some()
    }

    /// `rawtx` and `sequence` come over one connection, so in the order of the events.
    pub(super) fn rawtx_in_order(&self) -> bool {
        self.endpoints.rawtx == self.endpoints.sequence
    }
}
