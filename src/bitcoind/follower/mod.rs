//! One async task that turns notices, asks and looks at the node into ordered inputs for the
//! indexer.
//!
//! It is the only source of chain inputs, so it knows our tip. Everything that waits for the node
//! runs beside it as a piece of work and comes back as an [`Outcome`]; the loop itself waits for
//! the indexer only.
//!
//! ```text
//! notice (zmq)      block on our tip: Connect. Anything else about blocks: look.
//!                   transaction: TxSeen when the node has said that its mempool took it; removal: TxGone, then Settle
//! look              tips compared by hash, fork point searched: Disconnect, then fetch and Connect     [`chain`]
//! reading           the whole mempool at our tip, corrected by what came meanwhile: Snapshot            [`pool`]
//! ask (tracker)     fetch or check transactions in batches
//! tick, gap, reconnect, restart, start      look, then read the mempool
//! notice of a feed that may be another node's: the same, see [`trust`]
//! ```

mod board;
mod chain;
mod node;
mod pool;
mod trust;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{BlockHash, Transaction, Txid};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::board::{Board, Obstacle};
use super::audit::{self, AuditRequest, Audits};
use super::baseline::{self, Baselines, Place};
use super::chain::Look;
use super::mempool::Reading;
use super::rescan::{self, Rescans, ScanProgress};
use super::rpc::Rpc;
use super::zmq::{Body, Feed, Frame, Notice, Stamped, Topic};
use super::{Endpoints, Found, NodeError, Status};
use crate::config;
use crate::indexer::{Handle, Stopped};
use crate::store::{Reader, StoreError};
use crate::tracker::{Ask, BlockId};

/// Gaps come in swarms; they are healed together, and not more often than this.
const GAP_DELAY: Duration = Duration::from_millis(50);
const GAP_SPACING: Duration = Duration::from_millis(500);
/// The subscription reaches the node a moment after the connection.
const CONNECT_DELAY: Duration = Duration::from_millis(50);
/// Between two inspections of the node at most: how it is must be known also when it is seldom
/// reconciled.
const INSPECTION: Duration = Duration::from_secs(10);
/// Audits that may wait, the running one aside.
const AUDITS: usize = 1;
/// Notices handled before everything else has its turn.
const TURN: usize = 256;

/// What the follower is made of.
pub struct Follower {
    pub settings: config::Bitcoind,
    /// The node, if it answered at start; otherwise it is looked for until it does.
    pub found: Option<Found>,
    pub reconcile_interval: Duration,
}

/// Why the follower ended, if not because of the shutdown. The daemon cannot go on without it.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Indexer(#[from] Stopped),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the rest of the daemon has of the node.
pub struct Node {
    pub status: watch::Receiver<Status>,
    /// Of the open history scans that are known here by now.
    pub scans: watch::Receiver<Vec<ScanProgress>>,
    /// Few may wait.
    pub audits: mpsc::Sender<AuditRequest>,
}

/// Starts following. `asks` is what the tracker wants to know; `monitoring` false sends nothing to
/// the indexer.
pub fn spawn(
    follower: Follower,
    indexer: Handle,
    reader: Reader,
    asks: mpsc::Receiver<Ask>,
    monitoring: watch::Receiver<bool>,
    shutdown: CancellationToken,
) -> (Node, JoinHandle<Result<(), FollowError>>) {
    let (board, status) = Board::new(follower.reconcile_interval);
    let (progress, scans) = watch::channel(Vec::new());
    let state = status.clone();
    let (audits, requests) = mpsc::channel(AUDITS);
    let task = async move {
        let mut board = board;
        let found = match follower.found {
            Some(found) => found,
            None => {
                let search = node::search(&follower.settings, &reader, &mut board);
                tokio::select! {
                    found = search => found,
                    () = shutdown.cancelled() => return Ok(()),
                }
            }
        };
        let rpc = found.rpc.clone();
        let end = shutdown.child_token();
        let follow = Follow::new(
            found,
            follower.settings,
            follower.reconcile_interval,
            board,
            indexer,
            reader,
            asks,
            monitoring,
        )?;
        let apart = rpc.apart();
        let rescans = follow.rescans(apart.clone(), state, progress);
        let audits = Audits {
            rpc: rpc.clone(),
            reader: follow.reader.clone(),
            place: follow.place.subscribe(),
            requests,
        };
        let mut beside = tokio::spawn(run_beside(follow.baselines(), rescans, audits, end.clone()));
        let mut following = pin!(follow.run(end.clone()));
        let (followed, merged) = tokio::select! {
            followed = &mut following => {
                end.cancel();
                // It ends a scan of ours, with a time limit.
                (followed, beside.await)
            }
            merged = &mut beside => {
                // Without an error its inputs have ended, and the follower's too; with one the
                // daemon cannot go on.
                if !matches!(merged, Ok(Ok(()))) {
                    end.cancel();
                }
                (following.await, merged)
            }
        };
        rpc.close();
        apart.close();
        followed?;
        match merged {
            Ok(merged) => Ok(merged?),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Ok(()),
        }
    };
    (
        Node {
            status,
            scans,
            audits,
        },
        tokio::spawn(task),
    )
}

/// What asks the node for the past of scripts. The first one that cannot go on ends all.
async fn run_beside(
    baselines: Baselines,
    rescans: Rescans,
    audits: Audits,
    end: CancellationToken,
) -> Result<(), StoreError> {
    let all = tokio::try_join!(
        baseline::run(baselines, end.clone()),
        rescan::run(rescans, end.clone()),
        audit::run(audits, end)
    );
    all.map(|_| ())
}

/// What a piece of work came back with. `tip` is our tip when it was asked for.
enum Outcome {
    Looked {
        ours: Option<BlockId>,
        prompted: bool,
        result: Result<Look, NodeError>,
    },
    Windowed(Result<Option<StartWindow>, NodeError>),
    Read(Result<Reading, NodeError>),
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

struct Follow {
    rpc: Rpc,
    settings: config::Bitcoind,
    indexer: Handle,
    reader: Reader,
    asks: mpsc::Receiver<Ask>,
    monitoring: watch::Receiver<bool>,
    board: Board,
    feed: Option<Feed>,
    endpoints: Endpoints,
    trust: trust::Trust,
    work: JoinSet<Outcome>,
    /// Monitoring is on.
    on: bool,
    tip: Option<BlockId>,
    place: watch::Sender<Place>,
    baseline: Arc<Notify>,
    rescan: Arc<Notify>,
    chain: chain::ChainSide,
    pool: pool::PoolSide,
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

impl Follow {
    #[allow(
        clippy::too_many_arguments,
        reason = "each is a part of its own; called once"
    )]
    fn new(
        found: Found,
        settings: config::Bitcoind,
        interval: Duration,
        mut board: Board,
        indexer: Handle,
        reader: Reader,
        asks: mpsc::Receiver<Ask>,
        mut monitoring: watch::Receiver<bool>,
    ) -> Result<Self, FollowError> {
        let tip = reader.snapshot().tip()?;
        let on = *monitoring.borrow_and_update();
        let now = Instant::now();
        board.found(&found);
        let mut follow = Self {
            rpc: found.rpc,
            settings,
            indexer,
            reader,
            asks,
            monitoring,
            board,
            feed: None,
            endpoints: Endpoints::default(),
            trust: trust::Trust::default(),
            work: JoinSet::new(),
            on,
            tip,
            place: watch::channel(Place {
                tip,
                at_node_tip: false,
            })
            .0,
            baseline: Arc::new(Notify::new()),
            rescan: Arc::new(Notify::new()),
            chain: chain::ChainSide::default(),
            pool: pool::PoolSide::default(),
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
        follow.subscribe(found.zmq);
        follow.resync(Duration::ZERO, true);
        Ok(follow)
    }

    fn baselines(&self) -> Baselines {
        Baselines {
            rpc: self.rpc.clone(),
            reader: self.reader.clone(),
            indexer: self.indexer.clone(),
            wake: self.baseline.clone(),
            place: self.place.subscribe(),
        }
    }

    fn rescans(
        &self,
        rpc: Rpc,
        status: watch::Receiver<Status>,
        progress: watch::Sender<Vec<ScanProgress>>,
    ) -> Rescans {
        Rescans {
            rpc,
            reader: self.reader.clone(),
            indexer: self.indexer.clone(),
            wake: self.rescan.clone(),
            place: self.place.subscribe(),
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
                block = chain::next_block(&mut self.chain.blocks) => self.fetched_block(block).await?,
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

    /// When there is something to do without news.
    fn wake_at(&self) -> Instant {
        let inspection = (self.want_inspection && !self.inspecting).then_some(self.pause_until);
        let expiries = [
            self.pool.join.next_expiry(),
            self.finds_due(),
            self.board.publish_at(),
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
                self.want_reading(Duration::ZERO);
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
    /// found was missed.
    fn resync(&mut self, after: Duration, prompted: bool) {
        self.want_look(after, prompted);
        self.want_reading(after);
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

    async fn message(&mut self, frame: Frame, at: u64) -> Result<(), FollowError> {
        self.board.heard(frame.topic, frame.number, at);
        if !self.on {
            return Ok(());
        }
        if frame.topic != Topic::Rawtx && !self.board.topic_up(frame.topic) {
            self.hint(&frame);
            return Ok(());
        }
        match frame.body {
            Body::Tx(raw) => self.tx(&raw, at).await,
            Body::Block(raw) => self.block(raw, at).await,
            Body::Sequence(sequence) => self.sequence(sequence, at).await,
        }
    }

    fn gap(&mut self, topic: Topic, lost: u64) {
        tracing::debug!("{lost} {} messages were lost", topic.name());
        self.board.gap(topic, lost);
        if topic == Topic::Rawblock {
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
        let spacing = GAP_SPACING.max(self.pool.last_reading * 10);
        let at = self
            .gap_at
            .map_or(now, |last| last + spacing)
            .max(now + GAP_DELAY);
        self.gap_at = Some(at);
        self.resync(at - now, false);
    }

    fn connected(&mut self, topics: &[Topic]) {
        self.board.connected(topics, true);
        self.pool.whole = false;
        self.resync(CONNECT_DELAY, true);
    }

    fn disconnected(&mut self, topics: &[Topic]) {
        self.board.connected(topics, false);
        self.trust.forget();
        self.weigh();
        self.pool.forget_news();
        self.pool.whole = false;
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
            Ask::Check(tx) => self.pool.check(tx),
            Ask::Fetch(txids) => self.pool.want(txids),
        }
    }

    /// Monitoring was started or stopped.
    fn switch(&mut self) {
        let on = *self.monitoring.borrow_and_update();
        if on == self.on {
            return;
        }
        self.on = on;
        self.pool.stop();
        self.chain.stop();
        self.reconciling = None;
        if on {
            self.resync(Duration::ZERO, true);
        }
    }

    async fn outcome(&mut self, outcome: Outcome) -> Result<(), FollowError> {
        match outcome {
            Outcome::Looked {
                ours,
                prompted,
                result,
            } => self.looked(ours, prompted, result).await,
            Outcome::Windowed(result) => self.windowed(result).await,
            Outcome::Read(result) => {
                if let Ok(Reading::Whole(snapshot)) = &result {
                    self.judge(snapshot);
                }
                self.was_read(result).await
            }
            Outcome::Fetched {
                wanted,
                tip,
                result,
            } => self.fetched(wanted, tip, result).await,
            Outcome::Checked { asked, tip, result } => self.checked(asked, tip, result).await,
            Outcome::Inspected(inspection) => {
                self.inspected(inspection);
                Ok(())
            }
        }
    }

    fn set_tip(&mut self, tip: Option<BlockId>) {
        self.tip = tip;
        self.pool.tip_moved();
    }

    fn publish(&mut self) {
        let place = Place {
            tip: self.tip,
            at_node_tip: self.on && self.at_node_tip(),
        };
        self.place
            .send_if_modified(|known| std::mem::replace(known, place) != place);
        let obstacle = self.obstacle();
        self.board.publish(obstacle);
    }

    /// What keeps us from following.
    fn obstacle(&self) -> Option<Obstacle> {
        let waiting = || self.chain.waiting.clone().map(Obstacle::Chain);
        match () {
            () if !self.on => Some(Obstacle::Stopped),
            () if self.backoff.failing() => Some(Obstacle::Node),
            () if self.tip.is_none() && self.board.syncing() => Some(Obstacle::Syncing),
            () if !self.at_node_tip() => Some(waiting().unwrap_or(Obstacle::CatchingUp)),
            () if self.board.syncing() => Some(Obstacle::Syncing),
            () if !self.board.feeds_up() => Some(Obstacle::Feed),
            () if !self.pool.whole => Some(Obstacle::Mempool),
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
