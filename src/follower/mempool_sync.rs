//! The mempool's side: what ZMQ tells, and readings of the whole. No I/O, no clock.

use std::time::{Duration, Instant};

use bitcoin::{BlockHash, Txid};

use super::acceptances::Acceptances;
use super::actions::{Action, Call, Now};
use super::chain_sync::{ChainNews, ChainSync};
use super::node_link::NodeLink;
use super::times::{LONGEST_REST, LONGEST_ROUND, REST, SOON, WAIT};
use super::turn::Turn;
use super::tx_calls::TxCalls;
use crate::bitcoind::NodeError;
use crate::bitcoind::rpc::MempoolInfo;
use crate::bitcoind::zmq::ZmqTopic;
use crate::follower::mempool_events::{AcceptanceMatcher, EvictionQueue};
use crate::follower::mempool_snapshot::{
    MempoolRead, MempoolSnapshot, Pending, Reading, Round, WantedReading, parents_first,
};
use crate::indexer::Done;
use crate::tracker::input::Seen;
use crate::tracker::{ApplyError, BlockId, FollowUp, Input, RawTx, Replacement};

#[derive(Default)]
pub(super) struct MempoolSync {
    matcher: AcceptanceMatcher,
    eviction: EvictionQueue,
    calls: TxCalls,
    want: Option<WantedReading>,
    /// A reading is on its way.
    reading: Option<Reading>,
    /// How long the last reading took, and when it ended.
    pub(super) last_reading: Duration,
    last_read: Option<Instant>,
    /// A reading was applied and what it lacked is being fetched; then comes the verdict on what it
    /// did not hold, until all of that is evicted.
    round: Option<Round>,
    /// The number of the first change that the last reading did not hold; 0 since `sequence` broke.
    /// What comes with a lower one says nothing of the mempool as we know it.
    read_to: u64,
    acceptances: Acceptances,
    pending: Option<Pending>,
    /// A round has been begun and finished since the feed or the node broke off.
    whole: bool,
    /// They broke off since the last reading began.
    broken_off: bool,
    /// When a running reconciliation began.
    reconciling: Option<Instant>,
    /// What the tracker was told last of which transactions the node lets be replaced.
    replacement: Option<Replacement>,
}

impl MempoolSync {
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// An answer is the next event.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Monitoring was started or stopped.
    pub(super) fn stop(&mut self) {
        let mut calls = std::mem::take(&mut self.calls);
        calls.stop();
        self.spoil();
        *self = Self {
            calls,
            reading: self.reading.take(),
            acceptances: Acceptances::stopped(),
            ..Self::default()
        };
    }

    /// The feed broke: halves will not meet, and a reading cannot be corrected.
    pub(super) fn forget_notices(&mut self) {
        self.matcher.clear();
        self.spoil();
    }

    /// Another node or another run of it may publish these. (A restart that a topic's numbers show
    /// may be told long after the connection broke, and after a reading of the new run.)
    pub(super) fn count_anew(&mut self, topics: &[ZmqTopic]) {
        if topics.contains(&ZmqTopic::Sequence) {
            self.read_to = 0;
            self.acceptances.count_anew();
        }
    }

    /// The feed or the node broke off: until the next round is finished, something may be missing.
    /// A reading that is wanted may come too soon for a new connection; the caller wants another.
    pub(super) fn break_off(&mut self) {
        (self.whole, self.broken_off, self.want) = (false, true, None);
    }

    /// Calls fail.
    pub(super) fn node_failed(&mut self) {
        self.break_off();
        self.reconciling = None;
    }

    /// The reading that is on its way cannot be corrected.
    fn spoil(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.since.spoil();
        }
    }

    pub(super) fn chain_news(&mut self, news: ChainNews, tip: Option<BlockId>, now: Now) {
        match news {
            ChainNews::Connected => {
                self.spoil();
                self.eviction.block_ends();
                if let Some(tip) = tip {
                    self.acceptances.connected(tip.hash);
                }
            }
            ChainNews::Disconnected => {
                self.spoil();
                self.acceptances.disconnected();
                self.want_reading(now.instant, true);
            }
            ChainNews::AtNodeTip => self.eviction.block_ends(),
            ChainNews::Waiting => self.reconciling = None,
        }
    }

    /// The node said that it connected a block.
    pub(super) fn block_announced(&mut self, hash: BlockHash, chain: &ChainSync, now: Now) {
        let is_tip = chain.is_at(hash);
        self.acceptances.announced(hash, is_tip);
        if !is_tip {
            self.spoil();
            self.eviction.block_begins(now.instant);
        }
    }

    /// All `rawtx` of a block that was announced have come, if they come in order.
    pub(super) fn forget_block_txs(&mut self) {
        self.matcher.forget_txs();
    }

    /// The node said that it disconnected a block.
    pub(super) fn block_disconnected(&mut self, hash: BlockHash) {
        self.acceptances.taken_back(hash);
        self.spoil();
        self.eviction.block_ends();
    }

    /// A transaction over `rawtx`.
    pub(super) fn tx(&mut self, raw: Vec<u8>, at: u64, turn: &mut Turn) {
        let Some(tx) = RawTx::parse(raw) else {
            return;
        };
        if tx.is_coinbase() {
            return self.eviction.block_begins(turn.now.instant);
        }
        if turn.node.topic_up(ZmqTopic::Sequence) {
            if let Some(tx) = self.matcher.tx(tx, turn.now.instant) {
                turn.send(tx, self.acceptances.heard_as(), at);
            }
            return;
        }
        if let Some(reading) = &mut self.reading {
            reading.since.seen(tx.txid());
        }
        self.calls.accepted(&tx.txid());
        turn.send(tx, Seen::Rawtx, at);
    }

    /// The node said that its mempool took a transaction.
    pub(super) fn accepted(&mut self, txid: Txid, number: u64, at: u64, turn: &mut Turn) {
        if let Some(reading) = &mut self.reading {
            reading.since.accepted(number, txid);
        }
        if number < self.read_to {
            return;
        }
        self.calls.accepted(&txid);
        if let Some(tx) = self.matcher.take_tx(&txid) {
            turn.send(tx, self.acceptances.heard_as(), at);
        } else if turn.node.rawtx_in_order() || !turn.node.topic_up(ZmqTopic::Rawtx) {
            // It will not come any more. What it replaces has been announced as removed, so a
            // fetched transaction is as good as an accepted one.
            self.calls.fetch_first(txid);
        } else {
            self.matcher.accepted(txid, turn.now.instant);
        }
    }

    /// The node said that a transaction left its mempool, and not why.
    pub(super) fn removed(&mut self, txid: Txid, number: u64, turn: &mut Turn) {
        if let Some(reading) = &mut self.reading {
            reading.since.removed(number, txid);
        }
        if number < self.read_to {
            return;
        }
        self.calls.doubt(&txid);
        self.matcher.forget(&txid);
        self.eviction.removed(txid, turn.now.instant);
        turn.actions
            .push(Action::Post(Input::TxRemoved { txids: vec![txid] }));
    }

    /// What the tracker wants to know.
    pub(super) fn follow_up(&mut self, follow_up: FollowUp) {
        match follow_up {
            FollowUp::Check(tx) => self.calls.check(tx),
            FollowUp::Fetch(txids) => self.calls.fetch(txids),
            // They wake others.
            FollowUp::Baseline | FollowUp::Scans | FollowUp::Derive => {}
        }
    }

    /// When what left is to be judged. Not while blocks are missing or looked for: the reason may
    /// be in one of them. Nor during a round, whose successors are still being fetched.
    pub(super) fn settle_at(&self, chain: &ChainSync) -> Option<Instant> {
        if !chain.at_node_tip() || chain.is_moving() {
            return None;
        }
        let at = self.eviction.due(self.fetching())?;
        let round = self.round.as_ref();
        Some(round.map_or(at, |round| at.max(round.began + LONGEST_ROUND)))
    }

    /// Transactions are on their way that may be successors.
    fn fetching(&self) -> bool {
        self.calls.fetching() || self.calls.checking() || self.matcher.waits()
    }

    fn settle(&mut self, turn: &mut Turn) {
        let at = self.settle_at(turn.chain);
        if at.is_some_and(|at| at <= turn.now.instant) {
            let spared = self.eviction.settle(self.fetching(), turn.now.instant);
            let now = turn.now.ms;
            turn.actions
                .push(Action::Post(Input::EvictMissing { spared, now }));
        }
    }

    pub(super) fn want_reading(&mut self, at: Instant, prompted: bool) {
        let want = self.want.get_or_insert(WantedReading { at, prompted });
        want.at = want.at.min(at);
        want.prompted |= prompted;
    }

    /// A reading for the proof that a feed is our node's, which the node is given time for.
    pub(super) fn want_proof(&mut self, now: Now) {
        if let Some(reading) = &mut self.reading {
            reading.proof_after = true;
            return;
        }
        let soon = now.instant + SOON;
        let at = self.rested_at().map_or(soon, |rested| rested.max(soon));
        self.want_reading(at, true);
    }

    /// The poll reads the mempool, if it is due.
    pub(super) fn poll(&mut self, node: &NodeLink, now: Now) {
        let told =
            self.whole && node.topic_up(ZmqTopic::Sequence) && node.topic_up(ZmqTopic::Rawtx);
        if !told || self.rested_at().is_none_or(|at| at <= now.instant) {
            self.reconciling.get_or_insert(now.instant);
            self.want_reading(now.instant, false);
        }
    }

    /// Until when the node should be left alone after the last reading.
    fn rested_at(&self) -> Option<Instant> {
        let rest = (self.last_reading * REST).min(LONGEST_REST);
        self.last_read.map(|ended| ended + rest)
    }

    /// When the mempool is to be read: at the node's tip only, and not while the last reading is
    /// being worked off.
    pub(super) fn read_at(&self, chain: &ChainSync, node: &NodeLink) -> Option<Instant> {
        let is_free = self.reading.is_none()
            && self.round.is_none()
            && chain.at_node_tip()
            && !chain.is_moving();
        let want = self.want.as_ref().filter(|_| is_free)?;
        let at = node.not_before(want.at);
        // A look that is due goes first.
        Some(match chain.look_at(node) {
            Some(look) if look <= at => at.max(look + SOON),
            _ => at,
        })
    }

    fn start_reading(&mut self, turn: &mut Turn) {
        let is_due = self
            .read_at(turn.chain, turn.node)
            .is_some_and(|at| at <= turn.now.instant);
        let Some(want) = self.want.take_if(|_| is_due) else {
            return;
        };
        self.broken_off = false;
        let repairs = !want.prompted && self.whole && turn.node.topic_up(ZmqTopic::Rawtx);
        self.reading = Some(Reading::begun(turn.now.instant, repairs));
        turn.actions.push(Action::Call(Call::ReadMempool));
    }

    /// The reading has ended, maybe without an answer. What was heard since it began.
    pub(super) fn reading_ended(&mut self, now: Now) -> Option<Reading> {
        let reading = self.reading.take()?;
        self.last_read = Some(now.instant);
        self.last_reading = now.instant.saturating_duration_since(reading.began);
        Some(reading)
    }

    /// What the node answered.
    pub(super) fn read(&mut self, of: Option<Reading>, read: MempoolRead, turn: &mut Turn) {
        let (again, ms) = (turn.now.instant + SOON, turn.now.ms);
        let repairs = of.as_ref().is_some_and(|reading| reading.repairs);
        match read {
            MempoolRead::Loading(info) => {
                turn.node.status.mempool(info, ms);
                self.tell_policy(info, turn);
                (self.reconciling, self.read_to) = (None, 0);
                self.want_reading(turn.now.instant + WAIT, true);
            }
            MempoolRead::Moved => self.want_reading(again, !repairs),
            MempoolRead::Whole(snapshot) => {
                let info = MempoolInfo {
                    size: snapshot.txids.len() as u64,
                    ..snapshot.info
                };
                turn.node.status.mempool(info, ms);
                self.tell_policy(info, turn);
                let corrected = of.and_then(|reading| reading.since.correct(snapshot));
                let stands =
                    |snapshot: &MempoolSnapshot| turn.node.on && turn.chain.is_at(snapshot.tip);
                match corrected.filter(stands) {
                    Some(snapshot) => self.apply(snapshot, repairs, turn),
                    None => self.want_reading(again, !repairs),
                }
            }
        }
    }

    /// Which transactions the node lets be replaced, when it is not what it was.
    fn tell_policy(&mut self, info: MempoolInfo, turn: &mut Turn) {
        let replacement = info.replacement(turn.node.status.node_info().version);
        if self.replacement.replace(replacement) != Some(replacement) {
            turn.actions.push(Action::Post(Input::Policy(replacement)));
        }
    }

    fn apply(&mut self, snapshot: MempoolSnapshot, repairs: bool, turn: &mut Turn) {
        self.read_to = snapshot.sequence.unwrap_or(0);
        self.acceptances.read(snapshot.sequence.is_some());
        self.calls.doubt_all();
        self.matcher.forget_announced();
        self.round = Some(Round::begun(turn.now.instant, repairs));
        self.pending = Some(Pending::Snapshot);
        turn.actions.push(Action::Apply(Input::MempoolSnapshot {
            tip: snapshot.tip,
            txids: snapshot.txids,
            now: turn.now.ms,
        }));
    }

    /// When to give the verdict on what a reading did not hold: after what it held in addition has
    /// come. Not while blocks are missing, as above.
    fn verdict_at(&self, chain: &ChainSync) -> Option<Instant> {
        let round = self.round.as_ref()?;
        (!self.calls.fetching() && chain.at_node_tip()).then_some(round.verdict_at)
    }

    /// What was told to have left is spared: it has its own time.
    fn finish_round(&mut self, turn: &mut Turn) {
        let at = self.verdict_at(turn.chain);
        if at.is_some_and(|at| at <= turn.now.instant) {
            self.pending = Some(Pending::EndOfRound);
            let (spared, now) = (self.eviction.waiting(), turn.now.ms);
            turn.actions
                .push(Action::Apply(Input::EvictMissing { spared, now }));
        }
    }

    /// The answer to what is pending, after what the tracker asks for.
    pub(super) fn applied(
        &mut self,
        result: Result<Done, ApplyError>,
        node: &mut NodeLink,
        now: Now,
    ) {
        if let Err(error) = &result {
            tracing::warn!("{error}");
        }
        // What came may have made others matter, which are fetched first.
        let is_end = self.pending.take() == Some(Pending::EndOfRound) && !self.calls.fetching();
        let Some(round) = self.round.as_mut().filter(|_| is_end) else {
            return;
        };
        // Until then the rows still say that all of it is in the mempool.
        if result.is_ok_and(|done| done.is_evicting) {
            round.verdict_at = now.instant + SOON;
            return;
        }
        self.round = None;
        self.whole = !self.broken_off;
        if let Some(began) = self.reconciling.take() {
            let took = now.instant.saturating_duration_since(began);
            node.status.reconciled(took, now.ms);
        }
    }

    /// What a fetch brought. `tip`: ours when it was asked for.
    pub(super) fn fetched(
        &mut self,
        txids: Vec<Txid>,
        tip: Option<BlockId>,
        found: Result<Vec<Option<RawTx>>, NodeError>,
        turn: &mut Turn,
    ) -> Result<(), NodeError> {
        let worth = self.calls.fetched(&txids);
        let found = match found {
            Ok(found) if tip == turn.chain.tip() => found,
            // A block came in between, and what was found may conflict with it: ask again.
            unusable => {
                self.calls.fetch_again(txids);
                return unusable.map(|_| ());
            }
        };
        turn.node.answered(turn.now);
        if !turn.node.on {
            return Ok(());
        }
        let repairs = self.round.as_ref().is_some_and(|round| round.repairs);
        let answers = txids.into_iter().zip(found).zip(worth);
        for tx in parents_first(self.calls.standing(answers)) {
            if repairs {
                tracing::debug!("{} has not come over ZMQ", tx.txid());
                turn.node.status.repaired(1);
            }
            turn.send(tx, Seen::Fetched, turn.now.ms);
        }
        Ok(())
    }

    /// Which transactions that came over `rawtx` alone the mempool holds. `tip`: as above.
    pub(super) fn checked(
        &mut self,
        txs: Vec<RawTx>,
        tip: Option<BlockId>,
        held: Result<Vec<bool>, NodeError>,
        turn: &mut Turn,
    ) -> Result<(), NodeError> {
        let worth = self.calls.checked(&txs);
        let held = match held {
            Ok(held) if tip == turn.chain.tip() => held,
            unusable => {
                self.calls.check_again(txs);
                return unusable.map(|_| ());
            }
        };
        let answers = txs.into_iter().zip(held).zip(worth);
        for tx in self.calls.held(answers) {
            if turn.node.on {
                turn.send(tx, Seen::Accepted, turn.now.ms);
            }
        }
        Ok(())
    }

    /// Does what is due. `is_woken`: no notice waits, so a successor that came has been seen.
    pub(super) fn advance(&mut self, is_woken: bool, turn: &mut Turn) {
        for txid in self.matcher.expire(turn.now.instant) {
            self.calls.fetch_first(txid);
        }
        if !turn.node.on {
            return;
        }
        self.start_reading(turn);
        if turn.node.may_call(turn.now) {
            self.calls.start(turn.chain.tip(), turn.actions);
        }
        if is_woken {
            self.settle(turn);
        }
        self.finish_round(turn);
    }

    /// When there is something to do although nothing is told.
    pub(super) fn wake_at(&self, chain: &ChainSync, node: &NodeLink) -> Option<Instant> {
        let times = [
            self.matcher.next_expiry(),
            self.read_at(chain, node).filter(|_| node.on),
            self.settle_at(chain).filter(|_| node.on),
            self.verdict_at(chain).filter(|_| node.on),
        ];
        times.into_iter().flatten().min()
    }
}
