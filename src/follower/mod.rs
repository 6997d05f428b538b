//! What turns notices, asks and looks at the node into ordered inputs for the indexer.
//!
//! # Laws
//!
//! 1. ZMQ is a hint, RPC is the truth. Whatever ZMQ tells may come twice, late or never; whatever
//!    it should have told is found by looking (each reconcile interval, and at once after a gap, a
//!    reconnect or anything that does not fit).
//! 2. What ZMQ tells never waits for a call: calls run beside the loop that handles notices.
//! 3. A block is connected only on our tip, wherever it came from. Whether the node's chain is
//!    another one is decided from hashes, never from heights; a node that is still syncing is
//!    waited for, not followed backwards.
//! 4. "In the mempool" is what the node said (`sequence`, a snapshot, `getmempoolentry`), never
//!    what `rawtx` carried; and what `sequence` said before a block that is ours already, or before
//!    a disconnect or a stop, is asked about ([`acceptances`]).
//!
//! # Flow
//!
//! What decides is pure: [`Follower`] takes one event at a time, with the time at which it
//! happened, and says what is to be done. It is made of two machines, [`ChainSync`] and
//! [`MempoolSync`], and of what both know of the node, [`NodeLink`]. What waits is thin: the
//! [`shell`] carries the actions out and brings back what comes of them. The shell waits for the
//! indexer only; whatever waits for the node runs beside it.
//!
//! ```text
//! notice (zmq)      block on our tip that was not taken back: Connect. Anything else about blocks: look.
//!                   transaction: TxSeen when the node has said that its mempool took it; removal: TxRemoved, then EvictMissing
//! look              tips compared by hash, fork point searched: Disconnect, then fetch and Connect     [`chain_sync`]
//! reading           the whole mempool at our tip, corrected by what came meanwhile: MempoolSnapshot, then
//!                   EvictMissing until all that it lacks is evicted                                     [`mempool_sync`]
//! ask (tracker)     fetch or check transactions in batches                                              [`tx_calls`]
//! tick, gap, reconnect, restart, start      look, then read the mempool
//! notice of a feed that may be another node's: the same, see [`feed_check`]
//! ```

mod acceptances;
mod actions;
mod backoff;
mod calls;
mod chain_sync;
mod feed_check;
mod fork;
mod look;
mod mempool_events;
mod mempool_snapshot;
mod mempool_sync;
mod node_link;
mod recent_blocks;
mod shell;
pub mod start;
mod status_builder;
#[cfg(test)]
mod tests;
mod times;
mod turn;
mod tx_calls;

use std::time::{Duration, Instant};

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Txid};

use self::actions::{Action, Answer, FollowerEvent, Now};
use self::chain_sync::{ChainNews, ChainSync};
use self::fork::TipComparison;
use self::mempool_snapshot::MempoolRead;
use self::mempool_sync::MempoolSync;
use self::node_link::{Inspected, NodeLink};
use self::status_builder::NotReady;
use self::times::{CONNECTED, GAP_SPACING, SOON};
use self::turn::Turn;
use crate::bitcoind::SyncPosition;
use crate::bitcoind::zmq::{
    MessageBody, Notice, Sequence, SequenceEvent, Stamped, ZmqMessage, ZmqTopic,
};
use crate::bitcoind::{NodeError, NodeStatus};
use crate::indexer::IndexerStopped;
use crate::store::StoreError;
use crate::tracker::BlockId;

/// The machines by themselves, for `tests/simulation` and `benches/tracker.rs`.
#[doc(hidden)]
pub mod machines {
    pub use super::Follower;
    pub use super::actions::{Action, Answer, Call, FollowerEvent, Inspection, Now};
    pub use super::fork::{Relation, TipComparison};
    pub use super::look::{LookError, Questions, look, read_mempool, start_window};
    pub use super::mempool_snapshot::{MempoolRead, MempoolSnapshot};
    pub use super::node_link::NodeLink;
    pub use super::status_builder::StatusBuilder;
    pub use crate::bitcoind::url::NodeUrl;
}

/// Why the follower ended, if not because of the shutdown. The daemon cannot go on without it.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Indexer(#[from] IndexerStopped),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The whole of what decides. No I/O, no channel, no clock.
pub struct Follower {
    node: NodeLink,
    chain: ChainSync,
    mempool: MempoolSync,
    /// Between two polls.
    interval: Duration,
    next_poll: Instant,
    /// When gaps were healed last, or will be.
    gap_at: Option<Instant>,
}

impl Follower {
    pub fn new(node: NodeLink, tip: Option<BlockId>, interval: Duration, now: Now) -> Self {
        Self {
            node,
            chain: ChainSync::new(tip),
            mempool: MempoolSync::default(),
            interval,
            next_poll: now.instant + interval,
            gap_at: None,
        }
    }

    /// Takes an event that happened now. What is to be done, in this order.
    #[must_use]
    pub fn handle(&mut self, event: FollowerEvent, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        let is_woken = matches!(event, FollowerEvent::Woken);
        self.take(event, now, &mut actions);
        if !self.chain.is_pending() && !self.mempool.is_pending() {
            self.advance(is_woken, now, &mut actions);
        }
        actions
    }

    /// When there is something to do although nothing is told.
    pub fn wake_at(&self) -> Instant {
        let times = [
            self.node.inspection_at(),
            self.chain.look_at(&self.node),
            self.mempool.wake_at(&self.chain, &self.node),
        ];
        times
            .into_iter()
            .flatten()
            .fold(self.next_poll, Instant::min)
    }

    pub fn position(&self) -> SyncPosition {
        SyncPosition {
            tip: self.chain.tip(),
            at_node_tip: self.node.on && self.chain.at_node_tip(),
        }
    }

    /// What is known of the node.
    pub fn status(&mut self, now: Now) -> &NodeStatus {
        let not_ready = self.not_ready();
        self.node.status.build(not_ready, now.ms)
    }

    /// What keeps us from following.
    fn not_ready(&self) -> Option<NotReady> {
        let (status, at_node_tip) = (&self.node.status, self.chain.at_node_tip());
        let waiting = || self.chain.waiting().cloned().map(NotReady::Chain);
        match () {
            () if !self.node.on => Some(NotReady::Stopped),
            () if self.node.failing() => Some(NotReady::Node),
            () if self.chain.tip().is_none() && status.syncing() => Some(NotReady::Syncing),
            () if !at_node_tip => Some(waiting().unwrap_or(NotReady::CatchingUp)),
            () if status.syncing() => Some(NotReady::Syncing),
            () if !status.feeds_up() => Some(NotReady::Feed),
            () if !self.mempool.is_whole() => Some(NotReady::Mempool),
            () => None,
        }
    }

    fn take(&mut self, event: FollowerEvent, now: Now, actions: &mut Vec<Action>) {
        match event {
            FollowerEvent::Found(endpoints) => {
                self.node.subscribe(endpoints, actions);
                self.subscribed(now, actions);
            }
            FollowerEvent::Notice(stamped) => self.notice(stamped, now, actions),
            FollowerEvent::Applied(result) if self.chain.is_pending() => {
                let tip = result.map(|done| done.tip);
                let news = self.chain.applied(tip, &mut self.node, now, actions);
                self.chain_news(news, now);
            }
            FollowerEvent::Applied(result) => {
                self.mempool.applied(result, &mut self.node, now);
            }
            // It comes from inputs that were sent before monitoring was stopped; the next start
            // reads the mempool.
            FollowerEvent::Asked(_) if !self.node.on => {}
            FollowerEvent::Asked(follow_up) => self.mempool.follow_up(follow_up),
            FollowerEvent::Fetched(block) => {
                let result = self.chain.fetched(block, now, actions);
                self.failed(result, now);
            }
            FollowerEvent::Answered(answer) => self.answered(answer, now, actions),
            FollowerEvent::Monitoring(on) => self.switch(on, now, actions),
            FollowerEvent::Woken => {}
        }
    }

    /// Does what is due and has no predecessor running. `is_woken`: no notice waits.
    fn advance(&mut self, is_woken: bool, now: Now, actions: &mut Vec<Action>) {
        if now.instant >= self.next_poll {
            self.next_poll = now.instant + self.interval;
            self.node.want_inspection(now);
            self.chain.want_look(now.instant, false);
            if self.node.on {
                self.mempool.poll(&self.node, now);
            }
        }
        self.node.start_inspection(now, actions);
        self.chain.start_look(&self.node, now, actions);
        self.with_mempool(now, actions, |mempool, turn| {
            mempool.advance(is_woken, turn)
        });
    }

    fn with_mempool<T>(
        &mut self,
        now: Now,
        actions: &mut Vec<Action>,
        run: impl FnOnce(&mut MempoolSync, &mut Turn) -> T,
    ) -> T {
        let mut turn = Turn {
            chain: &self.chain,
            node: &mut self.node,
            now,
            actions,
        };
        run(&mut self.mempool, &mut turn)
    }

    /// Look, and read the mempool after it. `prompted`: something told us to; otherwise what is
    /// found has not come over ZMQ.
    fn resync(&mut self, at: Instant, prompted: bool) {
        self.chain.want_look(at, prompted);
        self.mempool.want_reading(at, prompted);
    }

    fn chain_news(&mut self, news: Option<ChainNews>, now: Now) {
        if let Some(news) = news {
            self.mempool.chain_news(news, self.chain.tip(), now);
        }
    }

    /// Messages come from these endpoints from now on.
    fn subscribed(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.mempool.count_anew(&ZmqTopic::ALL);
        self.mempool.forget_notices();
        self.chain.forget_notices(now, actions);
        self.chain.want_look(now.instant, true);
        self.mempool.want_reading(now.instant + CONNECTED, true);
    }

    fn notice(&mut self, stamped: Stamped, now: Now, actions: &mut Vec<Action>) {
        match stamped.notice {
            Notice::Message(message) => self.message(message, stamped.at, now, actions),
            Notice::Gap { topic, lost } => self.gap(topic, lost, now, actions),
            Notice::Restarted(_) => self.restarted(now, actions),
            Notice::Connected(topics) => {
                self.chain.feed_is_new(now, actions);
                self.connected(&topics, true, now);
            }
            Notice::Disconnected(topics) => {
                self.forget_notices(now, actions);
                self.connected(&topics, false, now);
            }
        }
    }

    fn connected(&mut self, topics: &[ZmqTopic], is_up: bool, now: Now) {
        self.node.status.connected(topics, is_up);
        self.mempool.count_anew(topics);
        self.mempool.break_off();
        self.resync(now.instant + SOON, true);
    }

    /// Nothing that came before counts, and somebody else may publish from now on.
    fn forget_notices(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.node.forget_proof();
        self.mempool.forget_notices();
        self.chain.forget_notices(now, actions);
    }

    /// Nothing about the mempool counts before there is a tip.
    fn message(&mut self, message: ZmqMessage, at: u64, now: Now, actions: &mut Vec<Action>) {
        let ZmqMessage {
            topic,
            number,
            body,
        } = message;
        self.node.status.heard(topic, number, at);
        if !self.node.on {
            return;
        }
        let is_hint = topic != ZmqTopic::Rawtx && !self.node.topic_up(topic);
        match body {
            MessageBody::Tx(_) if self.chain.tip().is_none() => {}
            MessageBody::Tx(raw) => {
                self.with_mempool(now, actions, |mempool, turn| mempool.tx(raw, at, turn))
            }
            MessageBody::Block(_) if is_hint => self.chain.want_look(now.instant, true),
            MessageBody::Block(raw) => self.chain.block(raw, at, now, actions),
            MessageBody::Sequence(sequence) if is_hint => self.sequence_hint(&sequence, now),
            MessageBody::Sequence(sequence) => self.sequence(&sequence, at, now, actions),
        }
    }

    fn sequence(&mut self, sequence: &Sequence, at: u64, now: Now, actions: &mut Vec<Action>) {
        let Sequence { hash, what } = *sequence;
        let (txid, hash) = (
            Txid::from_byte_array(hash),
            BlockHash::from_byte_array(hash),
        );
        match what {
            // It may be confirmed in the window that the store starts with; else the first reading
            // brings it.
            SequenceEvent::Accepted(_) | SequenceEvent::Removed(_)
                if self.chain.tip().is_none() => {}
            SequenceEvent::Accepted(number) => self.with_mempool(now, actions, |mempool, turn| {
                mempool.accepted(txid, number, at, turn)
            }),
            SequenceEvent::Removed(number) => self.with_mempool(now, actions, |mempool, turn| {
                mempool.removed(txid, number, turn)
            }),
            SequenceEvent::BlockConnected => {
                self.mempool.block_announced(hash, &self.chain, now);
                if self.node.rawtx_in_order() {
                    self.mempool.forget_block_txs();
                }
                let follows = self.node.topic_up(ZmqTopic::Rawblock);
                self.chain.block_announced(hash, follows, now);
            }
            SequenceEvent::BlockDisconnected => {
                self.mempool.block_disconnected(hash);
                self.chain.block_disconnected(hash, now, actions);
            }
        }
    }

    /// A message of a feed that is not known to be our node's: a reason to ask the node.
    fn sequence_hint(&mut self, sequence: &Sequence, now: Now) {
        match sequence.what {
            SequenceEvent::BlockConnected | SequenceEvent::BlockDisconnected => {
                self.chain.want_look(now.instant + SOON, true)
            }
            SequenceEvent::Removed(_) => self.heal(true, now),
            SequenceEvent::Accepted(number) => {
                let txid = Txid::from_byte_array(sequence.hash);
                self.node.feed_check().accepted(number, txid);
                if self.node.topic_up(ZmqTopic::Rawtx) {
                    // The transaction comes.
                    self.mempool.want_proof(now);
                } else {
                    self.heal(true, now);
                }
            }
        }
    }

    fn gap(&mut self, topic: ZmqTopic, lost: u64, now: Now, actions: &mut Vec<Action>) {
        tracing::debug!("{lost} {} messages were lost", topic.name());
        self.node.status.gap(topic, lost);
        if topic != ZmqTopic::Rawtx {
            self.chain.doubt(false, now, actions);
        }
        if topic == ZmqTopic::Rawblock {
            // It will not come any more; what else is missing may have been of no account.
            self.chain.want_look(now.instant + SOON, false);
        }
        self.heal(false, now);
    }

    /// Looks and reads soon, and not too often.
    fn heal(&mut self, prompted: bool, now: Now) {
        let spacing = GAP_SPACING.max(self.mempool.last_reading * 10);
        let at = match self.gap_at {
            // What is wanted until then may have been done earlier, for another reason.
            Some(due) if due > now.instant => due,
            Some(last) => (last + spacing).max(now.instant + SOON),
            None => now.instant + SOON,
        };
        self.gap_at = Some(at);
        self.resync(at, prompted);
    }

    /// The node was restarted: nothing that came before counts.
    fn restarted(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.forget_notices(now, actions);
        self.node.want_inspection(now);
        self.resync(now.instant + SOON, true);
    }

    /// Monitoring was started or stopped.
    fn switch(&mut self, on: bool, now: Now, actions: &mut Vec<Action>) {
        if std::mem::replace(&mut self.node.on, on) == on {
            return;
        }
        self.mempool.stop();
        self.chain.stop(actions);
        if on {
            self.resync(now.instant, true);
        }
    }

    fn answered(&mut self, answer: Answer, now: Now, actions: &mut Vec<Action>) {
        let result = match answer {
            Answer::Look(result) => self.looked(result, now, actions),
            Answer::StartWindow(result) => {
                self.chain.call_ended(result.is_err());
                let is_on = self.node.on;
                result.map(|it| self.chain.windowed(it.filter(|_| is_on), now, actions))
            }
            Answer::Mempool(result) => self.mempool_read(result, now, actions),
            Answer::Transactions { txids, tip, found } => {
                self.with_mempool(now, actions, |mempool, turn| {
                    mempool.fetched(txids, tip, found, turn)
                })
            }
            Answer::InMempool { txs, tip, held } => {
                self.with_mempool(now, actions, |mempool, turn| {
                    mempool.checked(txs, tip, held, turn)
                })
            }
            Answer::Inspection(result) => self
                .node
                .inspected(result, now, actions)
                .map(|inspected| self.inspected(inspected, now, actions)),
        };
        self.failed(result, now);
    }

    /// If a call failed: no more calls for a while, and everything anew when the node is back.
    fn failed(&mut self, result: Result<(), NodeError>, now: Now) {
        if let Err(error) = result {
            self.node.failed(&error, now);
            self.mempool.node_failed();
            self.resync(now.instant, true);
        }
    }

    fn looked(
        &mut self,
        result: Result<TipComparison, NodeError>,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<(), NodeError> {
        let of = self.chain.call_ended(result.is_err());
        let look = result?;
        self.node.answered(now);
        self.node.chain(&look.node)?;
        if self.node.on {
            let news = self.chain.looked(of, &look, &mut self.node, now, actions);
            self.chain_news(news, now);
        }
        Ok(())
    }

    fn mempool_read(
        &mut self,
        result: Result<MempoolRead, NodeError>,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<(), NodeError> {
        let of = self.mempool.reading_ended(now);
        let read = result?;
        self.node.answered(now);
        match &read {
            MempoolRead::Whole(snapshot) => self.node.judge(snapshot),
            MempoolRead::Moved => self.chain.want_look(now.instant + SOON, true),
            MempoolRead::Loading(_) => {}
        }
        // What was heard meanwhile of a feed that was not believed may not be in this one.
        if of.as_ref().is_some_and(|reading| reading.proof_after) {
            self.mempool.want_proof(now);
        }
        self.with_mempool(now, actions, |mempool, turn| mempool.read(of, read, turn));
        Ok(())
    }

    fn inspected(&mut self, inspected: Inspected, now: Now, actions: &mut Vec<Action>) {
        if inspected.subscribed {
            self.subscribed(now, actions);
        }
        if inspected.restarted {
            tracing::info!("bitcoind was restarted");
            self.restarted(now, actions);
        }
    }
}
