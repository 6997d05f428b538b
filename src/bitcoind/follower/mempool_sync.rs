//! The follower's side of the mempool: what ZMQ tells, and readings of the whole.

use std::time::Duration;

use bitcoin::consensus::encode;
use bitcoin::hashes::Hash;
use bitcoin::{Transaction, Txid};
use tokio::time::Instant;

use super::chain_sync::block_hash;
use super::tx_calls::TxCalls;
use super::{CallOutcome, FollowError, Follower};
use crate::bitcoind::NodeError;
use crate::bitcoind::mempool_events::{AcceptanceMatcher, EvictionTimer};
use crate::bitcoind::mempool_snapshot::{self, EventsSinceRequest, MempoolRead, MempoolSnapshot};
use crate::bitcoind::rpc::MempoolInfo;
use crate::bitcoind::zmq::{Sequence, SequenceEvent, ZmqTopic};
use crate::clock::now_ms;
use crate::indexer::InputRefused;
use crate::tracker::input::Seen;
use crate::tracker::{Input, Replacement};

/// Until the node has loaded its mempool, or its tip stands still.
const LOADING: Duration = Duration::from_millis(500);
const MOVED: Duration = Duration::from_millis(50);
/// A node that lists a hundred thousand transactions answers nothing else for half a second,
/// payments included. While every change is told, the poll takes at most one fiftieth of the node's
/// time for that, and reads at least once a minute.
const REST: u32 = 50;
const LONGEST_REST: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct MempoolSync {
    pub(super) matcher: AcceptanceMatcher,
    pub(super) eviction: EvictionTimer,
    pub(super) calls: TxCalls,
    /// A reading is on its way; what was heard since.
    since: Option<EventsSinceRequest>,
    want_reading: Option<WantedReading>,
    reading_began: Option<Instant>,
    /// How long the last reading took, and when it ended.
    pub(super) last_reading: Duration,
    last_read: Option<Instant>,
    /// A reading was applied and what it lacked is being fetched; then comes the verdict on what it
    /// did not hold.
    round: bool,
    /// A round has been finished since the feed or the node broke off.
    pub(super) whole: bool,
    /// The poll or a gap wanted the running reading or round, and all was whole when it was begun:
    /// what it finds has not come over ZMQ.
    repairing: bool,
    /// Removed ones that are not sent yet.
    gone: Vec<Txid>,
    /// What the tracker was told last of which transactions the node lets be replaced.
    replacement: Option<Replacement>,
}

#[derive(Clone, Copy)]
struct WantedReading {
    at: Instant,
    /// Something told us to read.
    prompted: bool,
}

impl MempoolSync {
    /// Monitoring was started or stopped.
    pub(super) fn stop(&mut self) {
        let mut calls = std::mem::take(&mut self.calls);
        calls.stop();
        let since = self.since.take().map(spoiled);
        *self = Self {
            calls,
            since,
            reading_began: self.reading_began,
            ..Self::default()
        };
    }

    /// The feed broke: halves will not meet, and a reading cannot be corrected.
    pub(super) fn forget_events(&mut self) {
        self.matcher.clear();
        self.since = self.since.take().map(spoiled);
    }

    pub(super) fn tip_moved(&mut self) {
        self.since = self.since.take().map(spoiled);
    }

    /// What is fetched now has not come over ZMQ, or not yet.
    pub(super) fn is_repairing(&self) -> bool {
        self.round && self.repairing
    }
}

fn spoiled(mut since: EventsSinceRequest) -> EventsSinceRequest {
    since.spoil();
    since
}

impl Follower {
    /// A transaction over `rawtx`.
    pub(super) async fn tx(&mut self, raw: &[u8], at: u64) -> Result<(), FollowError> {
        let Ok(tx) = encode::deserialize::<Transaction>(raw) else {
            return Ok(());
        };
        let now = Instant::now();
        if tx.is_coinbase() {
            self.mempool.eviction.block_begins(now);
            return Ok(());
        }
        let txid = tx.compute_txid();
        if self.publisher.topic_up(ZmqTopic::Sequence) {
            let joined = self.mempool.matcher.tx(txid, tx, raw.len(), now);
            self.expire(now);
            return match joined {
                Some(tx) => self.send(tx, Seen::Accepted, at).await,
                None => Ok(()),
            };
        }
        if let Some(since) = &mut self.mempool.since {
            since.seen(txid);
        }
        self.mempool.calls.accepted(&txid);
        self.send(tx, Seen::Rawtx, at).await
    }

    pub(super) async fn sequence(
        &mut self,
        sequence: Sequence,
        at: u64,
    ) -> Result<(), FollowError> {
        match sequence.what {
            SequenceEvent::Accepted(number) => {
                self.accepted(Txid::from_byte_array(sequence.hash), number, at)
                    .await
            }
            SequenceEvent::Removed(number) => {
                self.removed(Txid::from_byte_array(sequence.hash), number);
                Ok(())
            }
            SequenceEvent::BlockConnected => {
                let hash = block_hash(sequence.hash);
                if self.tip.is_none_or(|tip| tip.hash != hash) {
                    self.mempool.tip_moved();
                    self.mempool.eviction.block_begins(Instant::now());
                }
                if self.rawtx_in_order() {
                    self.mempool.matcher.forget_txs();
                }
                self.block_announced(hash);
                Ok(())
            }
            SequenceEvent::BlockDisconnected => {
                self.mempool.tip_moved();
                self.mempool.eviction.block_ends();
                self.block_disconnected(block_hash(sequence.hash));
                Ok(())
            }
        }
    }

    /// `rawtx` and `sequence` come over one connection, so in the order of the events.
    fn rawtx_in_order(&self) -> bool {
        self.endpoints.rawtx == self.endpoints.sequence
    }

    async fn accepted(&mut self, txid: Txid, number: u64, at: u64) -> Result<(), FollowError> {
        if let Some(since) = &mut self.mempool.since {
            since.accepted(number, txid);
        }
        self.mempool.calls.accepted(&txid);
        if let Some(tx) = self.mempool.matcher.take_tx(&txid) {
            return self.send(tx, Seen::Accepted, at).await;
        }
        if self.rawtx_in_order() || !self.publisher.topic_up(ZmqTopic::Rawtx) {
            // It will not come any more.
            self.fetch_announced(txid);
        } else {
            self.mempool.matcher.accepted(txid, Instant::now());
        }
        Ok(())
    }

    /// Ahead of others. What it replaces has been announced as removed, so a fetched transaction is
    /// as good as an accepted one.
    fn fetch_announced(&mut self, txid: Txid) {
        self.mempool.calls.fetch_first(txid);
    }

    fn removed(&mut self, txid: Txid, number: u64) {
        if let Some(since) = &mut self.mempool.since {
            since.removed(number, txid);
        }
        self.mempool.calls.removed(&txid);
        self.mempool.matcher.forget(&txid);
        self.mempool.gone.push(txid);
        self.mempool.eviction.gone(Instant::now());
    }

    /// Sends the removals that came since the last input, as one.
    pub(super) async fn flush_gone(&mut self) -> Result<(), FollowError> {
        if !self.mempool.gone.is_empty() {
            let txids = std::mem::take(&mut self.mempool.gone);
            self.indexer.post(Input::TxGone { txids }).await?;
        }
        Ok(())
    }

    pub(super) async fn send(
        &mut self,
        tx: Transaction,
        seen: Seen,
        now: u64,
    ) -> Result<(), FollowError> {
        self.flush_gone().await?;
        Ok(self.indexer.post(Input::TxSeen { tx, seen, now }).await?)
    }

    /// Drops halves that are too old, fetches what was announced and did not come.
    pub(super) fn expire(&mut self, now: Instant) {
        for txid in self.mempool.matcher.expire(now) {
            self.fetch_announced(txid);
        }
    }

    /// Not while blocks are missing: the reason may be in one of them.
    pub(super) fn settle_at(&self) -> Option<Instant> {
        if self.mempool.eviction.is_idle() || !self.may_settle() {
            return None;
        }
        self.mempool
            .eviction
            .due(self.mempool.calls.fetching() || self.mempool.matcher.waits())
    }

    fn may_settle(&self) -> bool {
        self.at_node_tip() && self.chain.blocks.is_none()
    }

    pub(super) async fn settle(&mut self, now: Instant) -> Result<(), FollowError> {
        if self.on && self.settle_at().is_some_and(|at| at <= now) {
            self.mempool.eviction.settled();
            self.flush_gone().await?;
            self.indexer.post(Input::Settle { now: now_ms() }).await?;
        }
        Ok(())
    }

    /// `prompted`: something told us to; otherwise what is found has not come over ZMQ.
    pub(super) fn want_reading(&mut self, after: Duration, prompted: bool) {
        let at = Instant::now() + after;
        let known = self.mempool.want_reading;
        self.mempool.want_reading = Some(WantedReading {
            at: known.map_or(at, |known| known.at.min(at)),
            prompted: prompted || known.is_some_and(|known| known.prompted),
        });
    }

    /// Whether the poll should read the mempool, or may leave it to the feed this time.
    pub(super) fn reading_is_due(&self, now: Instant) -> bool {
        let told = self.mempool.whole
            && self.publisher.topic_up(ZmqTopic::Sequence)
            && self.publisher.topic_up(ZmqTopic::Rawtx);
        let rest = (self.mempool.last_reading * REST).min(LONGEST_REST);
        !told
            || self
                .mempool
                .last_read
                .is_none_or(|ended| now >= ended + rest)
    }

    /// When the mempool is to be read: at the node's tip only, and not while the last reading is
    /// being worked off.
    pub(super) fn read_at(&self) -> Option<Instant> {
        let free = self.on
            && self.mempool.since.is_none()
            && !self.mempool.round
            && self.at_node_tip()
            && !self.chain_moves();
        let at = self
            .mempool
            .want_reading
            .filter(|_| free)?
            .at
            .max(self.pause_until);
        // A look that is due goes first.
        Some(self.look_at().map_or(
            at,
            |look| if look <= at { at.max(look + MOVED) } else { at },
        ))
    }

    pub(super) fn read(&mut self) {
        let wanted = self.mempool.want_reading.take();
        self.mempool.repairing = self.mempool.whole
            && self.publisher.topic_up(ZmqTopic::Rawtx)
            && wanted.is_some_and(|wanted| !wanted.prompted);
        self.mempool.since = Some(EventsSinceRequest::default());
        self.mempool.reading_began = Some(Instant::now());
        let rpc = self.rpc.clone();
        self.work
            .spawn(async move { CallOutcome::Read(mempool_snapshot::read(&rpc).await) });
    }

    pub(super) async fn was_read(
        &mut self,
        result: Result<MempoolRead, NodeError>,
    ) -> Result<(), FollowError> {
        let since = self.mempool.since.take();
        self.mempool.last_reading = self
            .mempool
            .reading_began
            .take()
            .map_or(Duration::ZERO, |began| began.elapsed());
        self.mempool.last_read = Some(Instant::now());
        let reading = match result {
            Ok(reading) => reading,
            Err(error) => {
                self.node_failed(&error);
                return Ok(());
            }
        };
        self.node_answered();
        match reading {
            MempoolRead::Loading(info) => {
                self.publisher.mempool(info);
                self.tell_policy(info).await?;
                self.reconciling = None;
                self.want_reading(LOADING, true);
            }
            MempoolRead::Moved => {
                self.want_reading(MOVED, !self.mempool.repairing);
                self.want_look(MOVED, true);
            }
            MempoolRead::Whole(snapshot) => {
                self.publisher.mempool(MempoolInfo {
                    size: snapshot.txids.len() as u64,
                    ..snapshot.info
                });
                self.tell_policy(snapshot.info).await?;
                let corrected = since.and_then(|since| since.correct(snapshot));
                match corrected.filter(|snapshot| {
                    self.on && self.tip.is_some_and(|tip| tip.hash == snapshot.tip)
                }) {
                    Some(snapshot) => self.apply(snapshot).await?,
                    None => self.want_reading(MOVED, !self.mempool.repairing),
                }
            }
        }
        Ok(())
    }

    /// Which transactions the node lets be replaced, when it is not what it was.
    async fn tell_policy(&mut self, info: MempoolInfo) -> Result<(), FollowError> {
        let replacement = info.replacement(self.publisher.node_info().version);
        if self.mempool.replacement.replace(replacement) != Some(replacement) {
            self.indexer.post(Input::Policy(replacement)).await?;
        }
        Ok(())
    }

    async fn apply(&mut self, snapshot: MempoolSnapshot) -> Result<(), FollowError> {
        self.flush_gone().await?;
        self.mempool.round = true;
        self.drained(Input::Snapshot {
            tip: snapshot.tip,
            txids: snapshot.txids,
            now: now_ms(),
        })
        .await
    }

    /// The verdict on what a reading did not hold, after what it held in addition has come.
    pub(super) async fn finish_round(&mut self) -> Result<(), FollowError> {
        if self.mempool.calls.fetching() {
            return Ok(());
        }
        if !self.mempool.round {
            return Ok(());
        }
        self.flush_gone().await?;
        if self.mempool.eviction.is_idle() && self.may_settle() {
            self.drained(Input::Settle { now: now_ms() }).await?;
        } else {
            // What left just now may get a successor yet, or be in a block that comes: one verdict
            // on both.
            self.drained(Input::TxGone { txids: Vec::new() }).await?;
            self.mempool.eviction.gone(Instant::now());
        }
        if self.mempool.calls.fetching() {
            // What came made others matter.
            return Ok(());
        }
        self.mempool.round = false;
        self.mempool.whole = true;
        if let Some(began) = self.reconciling.take() {
            self.publisher.reconciled(began.elapsed());
        }
        Ok(())
    }

    /// Applies an input and takes what the tracker asks for because of all inputs up to it: the
    /// indexer hands that out before it answers.
    async fn drained(&mut self, input: Input) -> Result<(), FollowError> {
        match self.indexer.apply(input).await {
            Ok(_) => {}
            Err(InputRefused::Stopped(stopped)) => return Err(stopped.into()),
            Err(InputRefused::Apply(error)) => tracing::warn!("{error}"),
        }
        while let Ok(ask) = self.asks.try_recv() {
            self.ask(ask);
        }
        Ok(())
    }
}
