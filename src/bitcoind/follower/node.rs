//! The follower's side of the node itself: finding it, its failures, its restarts, what it offers.

use std::time::Duration;

use tokio::time::Instant;

use super::status_publisher::{NotReady, StatusPublisher};
use super::{CONNECT_DELAY, CallOutcome, Follower};
use crate::bitcoind::findings::findings;
use crate::bitcoind::rpc::{Blockchain, MempoolInfo, Network, Notification, Rpc};
use crate::bitcoind::url::host_of;
use crate::bitcoind::zmq::{Feed, ZmqTopic};
use crate::bitcoind::{DiscoveredNode, Endpoints, NodeError, discover};
use crate::clock::now_ms;
use crate::config;
use crate::remedy::Remedy;
use crate::store::StoreReader;

/// Pause after the first failure, doubled up to the second one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After so long without a failure the next one is a first one.
const FORGIVEN: Duration = Duration::from_secs(15);

/// How failures follow one another. One call that always fails may stand between others that go
/// well, so a success ends the failure and not the memory of it.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failing: bool,
    pause: Duration,
    until: Option<Instant>,
}

impl Backoff {
    /// A call failed. When the next one may be made.
    fn failed(&mut self, now: Instant) -> Instant {
        self.failing = true;
        match self.until {
            // Calls that run side by side fail together: that is one failure.
            Some(until) if now < until => return until,
            Some(until) if now < until + FORGIVEN => {
                self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
            }
            _ => self.pause = FIRST_PAUSE,
        }
        let until = now + self.pause;
        self.until = Some(until);
        until
    }

    /// A call went well. True if the one before did not.
    fn answered(&mut self) -> bool {
        std::mem::take(&mut self.failing)
    }

    pub(super) fn failing(&self) -> bool {
        self.failing
    }
}

/// Looks for a node of our chain until there is one.
pub(super) async fn search(
    settings: &config::Bitcoind,
    reader: &StoreReader,
    publisher: &mut StatusPublisher,
) -> DiscoveredNode {
    let chain = reader.chain();
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match discover::find_on(settings, Some(chain.network)).await {
            Ok(found) if found.chain == chain => return found,
            Ok(found) => discover::wrong_chain(
                found.rpc.url(),
                &format!("with genesis {}", found.chain.genesis),
                &chain.genesis.to_string(),
            ),
            Err(error) => error,
        };
        publisher.node_failed(&error);
        publisher.publish(Some(NotReady::Node));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How the node is, and what changes only when it is restarted. Nodes may forbid all but the first.
pub(super) struct Inspection {
    node: Blockchain,
    mempool: Option<MempoolInfo>,
    uptime: Option<u64>,
    network: Result<Network, NodeError>,
    notifications: Result<Vec<Notification>, NodeError>,
}

async fn inspection(rpc: Rpc) -> Result<Inspection, NodeError> {
    Ok(Inspection {
        // Without an answer the others would wait as long as this one did.
        node: rpc.blockchain().await?,
        mempool: rpc.mempool_info().await.ok(),
        uptime: rpc.uptime().await.ok(),
        network: rpc.network().await,
        notifications: rpc.notifications().await,
    })
}

impl Follower {
    /// The node was restarted: nothing that came before counts, and it may offer other things.
    pub(super) fn restarted(&mut self) {
        self.rpc.forget_offers();
        self.feed_check.forget();
        self.publish_feeds();
        self.mempool.forget_events();
        self.chain.told.clear();
        self.want_inspection = true;
        self.resync(CONNECT_DELAY, true);
    }

    /// A call failed: no more calls for a while, and everything anew when the node is back.
    pub(super) fn node_failed(&mut self, error: &NodeError) {
        self.publisher.node_failed(error);
        self.pause_until = self.backoff.failed(Instant::now());
        self.reconciling = None;
        self.mempool.whole = false;
        self.resync(Duration::ZERO, true);
    }

    pub(super) fn node_answered(&mut self) {
        if self.backoff.answered() {
            tracing::info!("bitcoind answers again");
            self.want_inspection = true;
        }
        self.publisher.node_answered();
    }

    pub(super) fn inspect(&mut self) {
        self.want_inspection = false;
        self.inspecting = true;
        let rpc = self.rpc.clone();
        self.work
            .spawn(async move { CallOutcome::Inspected(inspection(rpc).await) });
    }

    pub(super) fn inspected(&mut self, inspection: Result<Inspection, NodeError>) {
        self.inspecting = false;
        let inspection = match inspection {
            // Whose feeds must not be subscribed; the next look says so.
            Ok(found) if found.node.chain != self.reader.chain().network.to_core_arg() => return,
            Ok(found) => found,
            Err(error) => return self.node_failed(&error),
        };
        match self.backoff.failing() {
            // Another call fails, and its reason stands until it does not.
            true => self.publisher.node_available(),
            false => self.publisher.node_answered(),
        }
        self.publisher.node(&inspection.node);
        if let Ok(network) = &inspection.network {
            self.publisher.network(network);
        }
        if let Some(mempool) = inspection.mempool {
            self.publisher.mempool(mempool);
        }
        if let Ok(notifications) = &inspection.notifications {
            self.listed(notifications);
        }
        self.publisher.notes(findings(
            &self.settings,
            self.publisher.node_info(),
            inspection.network.as_ref().map(|_| ()),
            inspection.notifications.as_deref(),
            &self.endpoints,
            now_ms() / 1000,
        ));
        if let Some(uptime) = inspection.uptime {
            let started = (now_ms() / 1000).saturating_sub(uptime);
            // Some seconds of slack for clocks that are set.
            if self
                .node_started
                .replace(started)
                .is_some_and(|known| started > known + 3)
            {
                tracing::info!("bitcoind was restarted");
                self.restarted();
            }
        }
    }

    /// The node says what it publishes where.
    fn listed(&mut self, notifications: &[Notification]) {
        let host = host_of(self.rpc.url());
        let endpoints = discover::endpoints(&self.settings, notifications, host);
        if endpoints != self.endpoints {
            self.subscribe(endpoints);
            self.resync(Duration::ZERO, true);
        }
        let host = host_of(self.rpc.url());
        let listed = |topic| discover::lists(notifications, host, topic, &self.endpoints);
        let (rawblock, sequence) = (listed(ZmqTopic::Rawblock), listed(ZmqTopic::Sequence));
        self.feed_check.list(rawblock, sequence);
        self.publish_feeds();
    }

    /// Receives from these endpoints from now on.
    pub(super) fn subscribe(&mut self, endpoints: Endpoints) {
        self.mempool.forget_events();
        self.publisher.endpoints(&endpoints);
        self.feed_check.forget();
        // What the settings do not name is where the node says it is.
        self.feed_check.list(
            self.settings.zmq_rawblock.is_none(),
            self.settings.zmq_sequence.is_none(),
        );
        self.feed = Feed::open(&endpoints).unwrap_or_else(|error| {
            tracing::error!(
                "cannot subscribe to ZMQ ({error}), only the poll works: {}",
                Remedy::ReachEndpoint
            );
            None
        });
        self.endpoints = endpoints;
        self.publish_feeds();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn pauses_grow_from_failure_to_failure_whatever_goes_well_in_between() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let until = backoff.failed(now);
            assert!(backoff.failing());
            assert!(backoff.answered() && !backoff.answered());
            pauses.push((until - now).as_millis());
            now = after(until, 50);
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        now += FORGIVEN;
        assert_eq!(
            backoff.failed(now),
            after(now, 250),
            "a node that was well for long is asked again soon"
        );
    }

    #[test]
    fn calls_that_fail_together_are_one_failure() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        for ms in 0..10 {
            assert_eq!(backoff.failed(after(now, ms)), after(now, 250));
        }
        assert_eq!(backoff.failed(after(now, 250)), after(now, 750));
    }
}
