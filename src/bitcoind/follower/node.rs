//! The follower's side of the node itself: finding it, its failures, its restarts, what it offers.

use std::time::Duration;

use tokio::time::Instant;

use super::board::{Board, Obstacle};
use super::{CONNECT_DELAY, Follow, Outcome};
use crate::bitcoind::rpc::{self, Blockchain, Network, Notification};
use crate::bitcoind::zmq::Feed;
use crate::bitcoind::{Endpoints, Found, NodeError, discover};
use crate::clock::now_ms;
use crate::config;
use crate::store::Reader;

/// Pause after the first failure, doubled up to the second one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Looks for a node of our chain until there is one.
pub(super) async fn search(settings: &config::Bitcoind, reader: &Reader, board: &mut Board) -> Found {
    let chain = reader.chain();
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match discover::find_on(settings, Some(chain.network)).await {
            Ok(found) if found.chain == chain => return found,
            Ok(found) => {
                discover::wrong_chain(found.rpc.url(), &format!("with genesis {}", found.chain.genesis), &chain.genesis.to_string())
            }
            Err(error) => error,
        };
        board.node_failed(&error);
        board.publish(Some(Obstacle::Node));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What changes only when the node is restarted. Nodes may forbid some of it.
pub(super) struct Inspection {
    uptime: Option<u64>,
    found: Option<(Blockchain, Network, Vec<Notification>)>,
}

impl Follow {
    /// The node was restarted: nothing that came before counts, and it may offer other things.
    pub(super) fn restarted(&mut self) {
        self.rpc.forget_offers();
        self.pool.forget_news();
        self.chain.told.clear();
        self.want_inspection = true;
        self.resync(CONNECT_DELAY, true);
    }

    /// A call failed: no more calls for a while, and everything anew when the node is back.
    pub(super) fn node_failed(&mut self, error: &NodeError) {
        self.board.node_failed(error);
        let pause = (FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(10))).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.pause_until = Instant::now() + pause;
        self.reconciling = None;
        self.pool.whole = false;
        self.resync(Duration::ZERO, true);
    }

    pub(super) fn node_answered(&mut self) {
        if std::mem::take(&mut self.failures) > 0 {
            tracing::info!("bitcoind answers again");
            self.want_inspection = true;
        }
        self.board.node_answered();
    }

    pub(super) fn inspect(&mut self) {
        self.want_inspection = false;
        self.inspecting = true;
        let rpc = self.rpc.clone();
        self.work.spawn(async move {
            let uptime = rpc.uptime().await.ok();
            let found = match (rpc.blockchain().await, rpc.network().await, rpc.notifications().await) {
                (Ok(node), Ok(program), Ok(notifications)) => Some((node, program, notifications)),
                _ => None,
            };
            Outcome::Inspected(Inspection { uptime, found })
        });
    }

    pub(super) fn inspected(&mut self, inspection: Inspection) {
        self.inspecting = false;
        if let Some((node, program, notifications)) = inspection.found {
            let endpoints = discover::endpoints(&self.settings, &notifications, rpc::host_of(self.rpc.url()));
            self.board.notes(discover::findings(&self.settings, self.rpc.url(), &node, &program, &notifications, &endpoints));
            self.board.program(program);
            if endpoints != self.endpoints {
                self.subscribe(endpoints);
                self.resync(Duration::ZERO, true);
            }
        }
        if let Some(uptime) = inspection.uptime {
            let started = (now_ms() / 1000).saturating_sub(uptime);
            // Some seconds of slack for clocks that are set.
            if self.node_started.replace(started).is_some_and(|known| started > known + 3) {
                tracing::info!("bitcoind was restarted");
                self.restarted();
            }
        }
    }

    /// Receives from these endpoints from now on.
    pub(super) fn subscribe(&mut self, endpoints: Endpoints) {
        self.pool.forget_news();
        self.board.endpoints(&endpoints);
        self.feed = Feed::open(&endpoints).unwrap_or_else(|error| {
            tracing::error!(
                "cannot subscribe to ZMQ ({error}): correct bitcoind.zmq_rawtx, zmq_rawblock and zmq_sequence; only the poll works"
            );
            None
        });
        self.endpoints = endpoints;
    }
}
