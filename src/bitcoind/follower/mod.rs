//! One async task that turns notices, asks and looks at the node into ordered inputs for the
//! indexer.
//!
//! It is the only source of chain inputs, so it knows our tip. Everything that waits for the node
//! runs beside it as a piece of work and comes back as a [`CallOutcome`]; the loop itself waits for
//! the indexer only.
//!
//! ```text
//! notice (zmq)      block on our tip: Connect. Anything else about blocks: look.
//!                   transaction: TxSeen when the node has said that its mempool took it; removal: TxGone, then Settle
//! look              tips compared by hash, fork point searched: Disconnect, then fetch and Connect     [`chain_sync`]
//! reading           the whole mempool at our tip, corrected by what came meanwhile: Snapshot            [`mempool_sync`]
//! ask (tracker)     fetch or check transactions in batches                                              [`tx_calls`]
//! tick, gap, reconnect, restart, start      look, then read the mempool
//! notice of a feed that may be another node's: the same, see [`feed_check`]
//! ```

mod chain_sync;
mod feed_check;
mod mempool_sync;
mod node;
pub(super) mod start;
mod status_publisher;
mod tx_calls;

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{BlockHash, Transaction, Txid};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::status_publisher::{NotReady, StatusPublisher};
use super::baseline::Baselines;
use super::fork::TipComparison;
use super::mempool_snapshot::MempoolRead;
use super::rescan::{Rescans, ScanProgress};
use super::rpc::Rpc;
use super::status::SyncPosition;
use super::zmq::{Feed, MessageBody, Notice, Stamped, ZmqMessage, ZmqTopic};
use super::{DiscoveredNode, Endpoints, NodeError, NodeStatus};
use crate::config;
use crate::indexer::{Handle, IndexerStopped};
use crate::store::{StoreError, StoreReader};
use crate::tracker::{Ask, BlockId};

/// Gaps come in swarms; they are healed together, and not more often than this.
const GAP_DELAY: Duration = Duration::from_millis(50);
const GAP_SPACING: Duration = Duration::from_millis(500);
/// The subscription reaches the node a moment after the connection.
const CONNECT_DELAY: Duration = Duration::from_millis(50);
/// Between two inspections of the node at most: how it is must be known also when it is seldom
/// reconciled.
const INSPECTION: Duration = Duration::from_secs(10);
/// Notices handled before everything else has its turn.
const TURN: usize = 256;

/// Why the follower ended, if not because of the shutdown. The daemon cannot go on without it.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Indexer(#[from] IndexerStopped),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a piece of work came back with. `tip` is our tip when it was asked for.
enum CallOutcome {
    Looked {
        ours: Option<BlockId>,
        prompted: bool,
        result: Result<TipComparison, NodeError>,
    },
    Windowed(Result<Option<StartWindow>, NodeError>),
    Read(Result<MempoolRead, NodeError>),
    Fetched {
        wanted: Vec<Txid>,
        tip: Option<BlockId>,
        result: Result<Vec<Option<Transaction>>, NodeError>,
    },
    Checked {
        asked: Vec<(Txid, Transaction)>,
        tip: Option<BlockId>,
        result: Result<Vec<bool>, NodeError>,
    },
    Inspected(Result<node::Inspection, NodeError>),
}

/// First height, then hash and time of each block.
type StartWindow = (u32, Vec<(BlockHash, u32)>);

struct Follower {
    rpc: Rpc,
    settings: config::Bitcoind,
    indexer: Handle,
    reader: StoreReader,
    asks: mpsc::Receiver<Ask>,
    monitoring: watch::Receiver<bool>,
    publisher: StatusPublisher,
    feed: Option<Feed>,
    endpoints: Endpoints,
    feed_check: feed_check::FeedCheck,
    work: JoinSet<CallOutcome>,
    /// Monitoring is on.
    on: bool,
    tip: Option<BlockId>,
    position: watch::Sender<SyncPosition>,
    baseline: Arc<Notify>,
    rescan: Arc<Notify>,
    chain: chain_sync::ChainSync,
    mempool: mempool_sync::MempoolSync,
    interval: Duration,
    next_tick: Instant,
    /// When a running reconciliation began.
    reconciling: Option<Instant>,
    /// No calls before this.
    pause_until: Instant,
    backoff: node::Backoff,
    /// When gaps were healed last, or will be.
    gap_at: Option<Instant>,
    want_inspection: bool,
    inspecting: bool,
    next_inspection: Instant,
    /// When the node was started, in seconds since the Unix epoch.
    node_started: Option<u64>,
}

impl Follower {
    #[allow(
        clippy::too_many_arguments,
        reason = "each is a part of its own; called once"
    )]
    fn new(
        found: DiscoveredNode,
        settings: config::Bitcoind,
        interval: Duration,
        mut publisher: StatusPublisher,
        indexer: Handle,
        reader: StoreReader,
        asks: mpsc::Receiver<Ask>,
        mut monitoring: watch::Receiver<bool>,
    ) -> Result<Self, FollowError> {
        let tip = reader.snapshot().tip()?;
        let on = *monitoring.borrow_and_update();
        let now = Instant::now();
        publisher.found(&found);
        let mut follower = Self {
            rpc: found.rpc,
            settings,
            indexer,
            reader,
            asks,
            monitoring,
            publisher,
            feed: None,
            endpoints: Endpoints::default(),
            feed_check: feed_check::FeedCheck::default(),
            work: JoinSet::new(),
            on,
            tip,
            position: watch::channel(SyncPosition {
                tip,
                at_node_tip: false,
            })
            .0,
            baseline: Arc::new(Notify::new()),
            rescan: Arc::new(Notify::new()),
            chain: chain_sync::ChainSync::default(),
            mempool: mempool_sync::MempoolSync::default(),
            interval,
            next_tick: now + interval,
            reconciling: None,
            pause_until: now,
            backoff: node::Backoff::default(),
            gap_at: None,
            want_inspection: true,
            inspecting: false,
            next_inspection: now + INSPECTION,
            node_started: None,
        };
        follower.subscribe(found.zmq);
        follower.resync(Duration::ZERO, true);
        Ok(follower)
    }

    fn baselines(&self) -> Baselines {
        Baselines {
            rpc: self.rpc.clone(),
            reader: self.reader.clone(),
            indexer: self.indexer.clone(),
            wake: self.baseline.clone(),
            position: self.position.subscribe(),
        }
    }

    fn rescans(
        &self,
        rpc: Rpc,
        status: watch::Receiver<NodeStatus>,
        progress: watch::Sender<Vec<ScanProgress>>,
    ) -> Rescans {
        Rescans {
            rpc,
            reader: self.reader.clone(),
            indexer: self.indexer.clone(),
            wake: self.rescan.clone(),
            position: self.position.subscribe(),
            status,
            progress,
        }
    }

    async fn run(mut self, shutdown: CancellationToken) -> Result<(), FollowError> {
        loop {
            self.start_work();
            self.finish_round().await?;
            self.publish();
            let wake = self.wake_at();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                notice = next_notice(&mut self.feed) => self.notices(notice).await?,
                Some(outcome) = self.work.join_next() => match outcome {
                    Ok(outcome) => self.outcome(outcome).await?,
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => {}
                },
                block = chain_sync::next_block(&mut self.chain.blocks) => self.fetched_block(block).await?,
                Some(ask) = self.asks.recv() => self.ask(ask),
                Ok(()) = self.monitoring.changed() => self.switch(),
                () = tokio::time::sleep_until(wake) => self.timers().await?,
            }
        }
    }

    /// Starts what is due and has no predecessor running.
    fn start_work(&mut self) {
        let now = Instant::now();
        if self.want_inspection && !self.inspecting && now >= self.pause_until {
            self.inspect();
        }
        if self.look_at().is_some_and(|at| at <= now) {
            self.look();
        }
        if self.read_at().is_some_and(|at| at <= now) {
            self.read();
        }
        self.start_fetches();
        self.start_checks();
    }

    /// When there is something to do although nothing was told.
    fn wake_at(&self) -> Instant {
        let inspection = (self.want_inspection && !self.inspecting).then_some(self.pause_until);
        let expiries = [
            self.mempool.matcher.next_expiry(),
            self.publisher.publish_at(),
        ];
        let times = [inspection, self.look_at(), self.read_at(), self.settle_at()]
            .into_iter()
            .chain(expiries);
        times
            .flatten()
            .fold(self.next_tick.min(self.next_inspection), Instant::min)
    }

    async fn timers(&mut self) -> Result<(), FollowError> {
        let now = Instant::now();
        if now >= self.next_tick {
            self.next_tick = now + self.interval;
            self.want_inspection = true;
            self.want_look(Duration::ZERO, false);
            if self.on && self.reading_is_due(now) {
                self.reconciling.get_or_insert(now);
                self.want_reading(Duration::ZERO, false);
            }
        }
        if now >= self.next_inspection {
            self.want_inspection = true;
            self.next_inspection = now + INSPECTION;
        }
        self.expire(now);
        self.settle(now).await
    }

    /// Look, and read the mempool after it. `prompted`: something told us to; otherwise what is
    /// found has not come over ZMQ.
    fn resync(&mut self, after: Duration, prompted: bool) {
        self.want_look(after, prompted);
        self.want_reading(after, prompted);
    }

    async fn notices(&mut self, first: Option<Stamped>) -> Result<(), FollowError> {
        if first.is_none() {
            // The thread never ends by itself, so this is the end of a dying process; the poll goes
            // on.
            self.feed = None;
        }
        let (mut next, mut turn) = (first, TURN);
        while let Some(Stamped { at, notice }) = next {
            match notice {
                Notice::Message(frame) => self.message(frame, at).await?,
                Notice::Gap { topic, lost } => self.gap(topic, lost),
                Notice::Restarted(_) => self.restarted(),
                Notice::Connected(topics) => self.connected(&topics),
                Notice::Disconnected(topics) => self.disconnected(&topics),
            }
            turn -= 1;
            next = if turn > 0 {
                self.feed.as_mut().and_then(Feed::try_recv)
            } else {
                None
            };
        }
        self.flush_gone().await
    }

    async fn message(&mut self, frame: ZmqMessage, at: u64) -> Result<(), FollowError> {
        self.publisher.heard(frame.topic, frame.number, at);
        if !self.on {
            return Ok(());
        }
        if frame.topic != ZmqTopic::Rawtx && !self.publisher.topic_up(frame.topic) {
            self.unproved_message(&frame);
            return Ok(());
        }
        match frame.body {
            MessageBody::Tx(raw) => self.tx(&raw, at).await,
            MessageBody::Block(raw) => self.block(raw, at).await,
            MessageBody::Sequence(sequence) => self.sequence(sequence, at).await,
        }
    }

    fn gap(&mut self, topic: ZmqTopic, lost: u64) {
        tracing::debug!("{lost} {} messages were lost", topic.name());
        self.publisher.gap(topic, lost);
        if topic == ZmqTopic::Rawblock {
            // A lost block will not come any more; what else is missing may have been of no
            // account.
            self.want_look(GAP_DELAY, true);
        }
        self.heal();
    }

    /// Looks and reads soon, and not too often.
    fn heal(&mut self) {
        let now = Instant::now();
        if self.gap_at.is_some_and(|at| at > now) {
            // A resync is due already, and will find this too.
            return;
        }
        let spacing = GAP_SPACING.max(self.mempool.last_reading * 10);
        let at = self
            .gap_at
            .map_or(now, |last| last + spacing)
            .max(now + GAP_DELAY);
        self.gap_at = Some(at);
        self.resync(at - now, false);
    }

    fn connected(&mut self, topics: &[ZmqTopic]) {
        self.publisher.connected(topics, true);
        self.mempool.whole = false;
        self.resync(CONNECT_DELAY, true);
    }

    fn disconnected(&mut self, topics: &[ZmqTopic]) {
        self.publisher.connected(topics, false);
        self.feed_check.forget();
        self.publish_feeds();
        self.mempool.forget_events();
        self.mempool.whole = false;
        self.chain.told.clear();
        self.resync(CONNECT_DELAY, true);
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Baseline => self.baseline.notify_one(),
            Ask::Scans => self.rescan.notify_one(),
            // Both come from inputs that were sent before monitoring was stopped; the next start
            // reads the mempool.
            Ask::Check(_) | Ask::Fetch(_) if !self.on => {}
            Ask::Check(tx) => self.mempool.calls.check(tx),
            Ask::Fetch(txids) => self.mempool.calls.fetch(txids),
        }
    }

    /// Monitoring was started or stopped.
    fn switch(&mut self) {
        let on = *self.monitoring.borrow_and_update();
        if on == self.on {
            return;
        }
        self.on = on;
        self.mempool.stop();
        self.chain.stop();
        self.reconciling = None;
        if on {
            self.resync(Duration::ZERO, true);
        }
    }

    async fn outcome(&mut self, outcome: CallOutcome) -> Result<(), FollowError> {
        match outcome {
            CallOutcome::Looked {
                ours,
                prompted,
                result,
            } => self.looked(ours, prompted, result).await,
            CallOutcome::Windowed(result) => self.windowed(result).await,
            CallOutcome::Read(result) => {
                if let Ok(MempoolRead::Whole(snapshot)) = &result {
                    self.judge(snapshot);
                }
                self.was_read(result).await
            }
            CallOutcome::Fetched {
                wanted,
                tip,
                result,
            } => self.fetched(wanted, tip, result).await,
            CallOutcome::Checked { asked, tip, result } => self.checked(asked, tip, result).await,
            CallOutcome::Inspected(inspection) => {
                self.inspected(inspection);
                Ok(())
            }
        }
    }

    fn set_tip(&mut self, tip: Option<BlockId>) {
        self.tip = tip;
        self.mempool.tip_moved();
    }

    fn publish(&mut self) {
        let position = SyncPosition {
            tip: self.tip,
            at_node_tip: self.on && self.at_node_tip(),
        };
        self.position
            .send_if_modified(|known| std::mem::replace(known, position) != position);
        let not_ready = self.not_ready();
        self.publisher.publish(not_ready);
    }

    /// What keeps us from following.
    fn not_ready(&self) -> Option<NotReady> {
        let waiting = || self.chain.waiting.clone().map(NotReady::Chain);
        match () {
            () if !self.on => Some(NotReady::Stopped),
            () if self.backoff.failing() => Some(NotReady::Node),
            () if self.tip.is_none() && self.publisher.syncing() => Some(NotReady::Syncing),
            () if !self.at_node_tip() => Some(waiting().unwrap_or(NotReady::CatchingUp)),
            () if self.publisher.syncing() => Some(NotReady::Syncing),
            () if !self.publisher.feeds_up() => Some(NotReady::Feed),
            () if !self.mempool.whole => Some(NotReady::Mempool),
            () => None,
        }
    }
}

/// The next notice; never without a feed.
async fn next_notice(feed: &mut Option<Feed>) -> Option<Stamped> {
    match feed {
        Some(feed) => feed.recv().await,
        None => std::future::pending().await,
    }
}
