//! What ZMQ tells of the mempool, put together: [`AcceptanceMatcher`] makes one "accepted" out of
//! `rawtx` and `sequence`, [`EvictionQueue`] knows when successors of removed transactions are out
//! of time, [`InFlightTxs`] remembers what was heard while calls were on their way. No I/O, no
//! clock.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::time::Instant;

use super::times::{BLOCK, FETCH_AFTER, KEEP, LONGEST, SUCCESSORS, VERDICT_SPACING};
use bitcoin::Txid;

use crate::tracker::RawTx;
use crate::tracker::fingerprints::TxidMap;

/// Bounds of what waits; a block's burst is at most some ten thousand transactions and 4 MB.
const HALVES: usize = 50_000;
const BYTES: usize = 64 << 20;

/// `rawtx` tells what a transaction is, `sequence` that the mempool took it. Either may come first
/// when they come from different addresses; either may be lost.
#[derive(Default)]
pub(super) struct AcceptanceMatcher {
    halves: TxidMap<Half>,
    /// Oldest first; entries whose half has gone or is newer are skipped.
    order: VecDeque<(Instant, Txid)>,
    /// Announced and not fetched yet, oldest first, with the same remark; the first one is waited
    /// for.
    announced: VecDeque<(Instant, Txid)>,
    bytes: usize,
}

struct Half {
    since: Instant,
    what: What,
}

enum What {
    Tx(RawTx),
    Accepted,
}

impl AcceptanceMatcher {
    /// A transaction over `rawtx`. Given back if the node has announced it already.
    pub(super) fn tx(&mut self, tx: RawTx, now: Instant) -> Option<RawTx> {
        let txid = tx.txid();
        if let Some(Half {
            what: What::Accepted,
            ..
        }) = self.take(&txid)
        {
            return Some(tx);
        }
        self.insert(txid, What::Tx(tx), now);
        None
    }

    /// The node announced that its mempool took it. The transaction, if it has come already.
    pub(super) fn accepted(&mut self, txid: Txid, now: Instant) -> Option<RawTx> {
        if let Some(tx) = self.take_tx(&txid) {
            return Some(tx);
        }
        self.insert(txid, What::Accepted, now);
        None
    }

    /// The transaction, if it waits here: spares a call.
    pub(super) fn take_tx(&mut self, txid: &Txid) -> Option<RawTx> {
        match self.take(txid)?.what {
            What::Tx(tx) => Some(tx),
            What::Accepted => None,
        }
    }

    /// It left the mempool: nothing about it waits any more.
    pub(super) fn forget(&mut self, txid: &Txid) {
        self.take(txid);
    }

    /// A block was announced, and on one address all `rawtx` of it came before: none of them will
    /// be announced.
    pub(super) fn forget_txs(&mut self) {
        self.halves
            .retain(|_, half| matches!(half.what, What::Accepted));
        self.bytes = 0;
    }

    /// The mempool was read, and what was announced before and is in it is fetched.
    pub(super) fn forget_announced(&mut self) {
        self.halves
            .retain(|_, half| matches!(half.what, What::Tx(_)));
        self.announced.clear();
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Drops what is too old, and answers which announced transactions must be fetched because
    /// their `rawtx` is lost or late.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Txid> {
        let mut late = Vec::new();
        while let Some((since, txid)) = self.announced.front().copied() {
            if now < since + FETCH_AFTER {
                break;
            }
            late.push(txid);
            self.announced.pop_front();
            self.skip_stale();
        }
        while let Some((since, txid)) = self.order.front().copied() {
            if now < since + KEEP && self.halves.len() <= HALVES && self.bytes <= BYTES {
                break;
            }
            self.order.pop_front();
            if self.is_announced(since, &txid) && now < since + FETCH_AFTER {
                // There is no room for it.
                late.push(txid);
            }
            if self
                .halves
                .get(&txid)
                .is_some_and(|half| half.since == since)
            {
                self.take(&txid);
            }
        }
        late
    }

    /// An announced transaction is waited for.
    pub(super) fn waits(&self) -> bool {
        !self.announced.is_empty()
    }

    /// It was announced then, and has not met its transaction.
    fn is_announced(&self, since: Instant, txid: &Txid) -> bool {
        self.halves
            .get(txid)
            .is_some_and(|half| half.since == since && matches!(half.what, What::Accepted))
    }

    fn skip_stale(&mut self) {
        while let Some((since, txid)) = self.announced.front()
            && !self.is_announced(*since, txid)
        {
            self.announced.pop_front();
        }
    }

    /// When [`Self::expire`] has something to do.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let fetch = self
            .announced
            .front()
            .map(|(since, _)| *since + FETCH_AFTER);
        let drop = self.order.front().map(|(since, _)| *since + KEEP);
        fetch.into_iter().chain(drop).min()
    }

    /// None of it waits here yet.
    fn insert(&mut self, txid: Txid, what: What, now: Instant) {
        match &what {
            What::Tx(tx) => self.bytes += tx.bytes().len(),
            What::Accepted => self.announced.push_back((now, txid)),
        }
        self.halves.insert(txid, Half { since: now, what });
        self.order.push_back((now, txid));
    }

    fn take(&mut self, txid: &Txid) -> Option<Half> {
        let half = self.halves.remove(txid)?;
        if let What::Tx(tx) = &half.what {
            self.bytes = self.bytes.saturating_sub(tx.bytes().len());
        }
        if self.halves.is_empty() {
            self.order.clear();
        }
        self.skip_stale();
        Some(half)
    }
}

/// Removals that are remembered; more at once are judged with the next verdict.
const REMOVALS: usize = 50_000;

/// When to say of what left the mempool that it was evicted: of each transaction when the time for
/// its successor is over.
#[derive(Default)]
pub(super) struct EvictionQueue {
    /// Not judged yet, oldest first.
    removed: VecDeque<(Instant, Txid)>,
    block_until: Option<Instant>,
    /// No verdict before.
    not_before: Option<Instant>,
}

impl EvictionQueue {
    /// It left.
    pub(super) fn removed(&mut self, txid: Txid, now: Instant) {
        if self.removed.len() >= REMOVALS {
            self.removed.pop_front();
        }
        self.removed.push_back((now, txid));
    }

    /// A coinbase came over `rawtx`, or a block was announced: it is being connected or
    /// disconnected.
    pub(super) fn block_begins(&mut self, now: Instant) {
        self.block_until = Some(now + BLOCK);
    }

    /// That block has been dealt with.
    pub(super) fn block_ends(&mut self) {
        self.block_until = None;
    }

    /// When the next verdict is due. `fetching`: transactions are on their way that may be
    /// successors.
    pub(super) fn due(&self, fetching: bool) -> Option<Instant> {
        let (removed, _) = self.removed.front()?;
        let at = self.verdict_on(*removed, fetching);
        Some(self.not_before.map_or(at, |before| at.max(before)))
    }

    /// When what was removed then is out of time.
    fn verdict_on(&self, removed: Instant, fetching: bool) -> Instant {
        let mut at = removed + SUCCESSORS;
        if let Some(until) = self.block_until {
            at = at.max(until);
        }
        if fetching {
            at = at.max(removed + BLOCK);
        }
        at.min(removed + LONGEST)
    }

    /// A verdict is given now. Those that it spares.
    pub(super) fn settle(&mut self, fetching: bool, now: Instant) -> Vec<Txid> {
        while let Some((removed, _)) = self.removed.front()
            && self.verdict_on(*removed, fetching) <= now
        {
            self.removed.pop_front();
        }
        self.not_before = Some(now + VERDICT_SPACING);
        self.waiting()
    }

    /// Those that are not judged yet.
    pub(super) fn waiting(&self) -> Vec<Txid> {
        self.removed.iter().map(|(_, txid)| *txid).collect()
    }
}

/// What was heard while calls about transactions were on their way.
#[derive(Default)]
pub(super) struct InFlightTxs {
    asked: TxidMap<InFlight>,
}

/// A transaction that is asked for right now, in one call.
#[derive(Default)]
struct InFlight {
    /// The answer may be from before something that was heard since.
    is_doubtful: bool,
    /// It is to be asked for once more.
    again: bool,
}

/// What an answer about a transaction is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Worth {
    pub(super) stands: bool,
    /// Unless it was found, and stands, it is to be asked for again.
    pub(super) again: bool,
}

impl InFlightTxs {
    /// It is to be asked for. Not now if it is already; then once more after the answer. What was
    /// heard before the call does not matter: the node publishes what it has done already.
    pub(super) fn ask(&mut self, txid: Txid) -> bool {
        match self.asked.entry(txid) {
            Entry::Occupied(mut asked) => {
                asked.get_mut().again = true;
                false
            }
            Entry::Vacant(free) => {
                free.insert(InFlight::default());
                true
            }
        }
    }

    pub(super) fn accept(&mut self, txid: &Txid) {
        if let Some(asked) = self.asked.get_mut(txid) {
            asked.is_doubtful = false;
        }
    }

    /// It left the mempool, maybe since the answer was given.
    pub(super) fn doubt(&mut self, txid: &Txid) {
        if let Some(asked) = self.asked.get_mut(txid) {
            asked.is_doubtful = true;
        }
    }

    /// The same of all.
    pub(super) fn doubt_all(&mut self) {
        let asked = self.asked.values_mut();
        asked.for_each(|asked| asked.is_doubtful = true);
    }

    /// The answer about it has come.
    pub(super) fn answer(&mut self, txid: &Txid) -> Worth {
        let asked = self.asked.remove(txid).unwrap_or_default();
        Worth {
            stands: !asked.is_doubtful,
            again: asked.is_doubtful || asked.again,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, ScriptBuf, Transaction, TxOut};

    use super::*;

    fn tx(n: u32) -> (Txid, RawTx) {
        let tx = RawTx::from(&Transaction {
            version: Version(2),
            lock_time: LockTime::from_consensus(n),
            input: vec![],
            output: vec![],
        });
        (tx.txid(), tx)
    }

    /// Four of them have no room.
    fn large(n: u8) -> RawTx {
        let output = TxOut {
            script_pubkey: ScriptBuf::from_bytes(vec![n; BYTES / 4]),
            value: Amount::ZERO,
        };
        RawTx::from(&Transaction {
            version: Version(2),
            lock_time: LockTime::ZERO,
            input: vec![],
            output: vec![output],
        })
    }

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn both_halves_make_one_acceptance_in_either_order() {
        let (mut join, now) = (AcceptanceMatcher::default(), Instant::now());
        let (txid, a) = tx(1);
        assert_eq!(join.tx(a.clone(), now), None);
        assert_eq!(join.accepted(txid, now), Some(a.clone()));
        assert_eq!(join.accepted(txid, now), None);
        assert_eq!(join.tx(a.clone(), now), Some(a.clone()));
        assert_eq!(join.tx(a, now), None, "nothing of the first pair is left");
    }

    #[test]
    fn a_blocks_transactions_are_forgotten_and_announcements_are_not() {
        let (mut join, now) = (AcceptanceMatcher::default(), Instant::now());
        let ((one, a), (two, b)) = (tx(1), tx(2));
        join.tx(a, now);
        join.accepted(two, now);
        join.forget_txs();
        assert_eq!(join.accepted(one, now), None);
        assert_eq!(join.tx(b.clone(), now), Some(b));
    }

    #[test]
    fn a_removed_transaction_does_not_come_back_by_its_old_half() {
        let (mut join, now) = (AcceptanceMatcher::default(), Instant::now());
        let (txid, a) = tx(1);
        join.tx(a, now);
        join.forget(&txid);
        assert_eq!(join.accepted(txid, now), None);
    }

    #[test]
    fn an_announcement_without_its_transaction_is_fetched_once_and_then_dropped() {
        let (mut join, start) = (AcceptanceMatcher::default(), Instant::now());
        let (txid, a) = tx(1);
        join.accepted(txid, start);
        assert_eq!(join.expire(after(start, 50)), []);
        assert_eq!(join.next_expiry(), Some(after(start, 100)));
        assert_eq!(join.expire(after(start, 100)), [txid]);
        assert_eq!(join.expire(after(start, 200)), []);
        assert_eq!(join.expire(after(start, 3000)), []);
        assert_eq!(join.next_expiry(), None);
        assert_eq!(join.tx(a, after(start, 3001)), None);
    }

    /// Somebody was busy until it was too old to wait, or more came at once than there is room for.
    #[test]
    fn an_announcement_is_not_dropped_without_being_fetched() {
        let (mut join, start) = (AcceptanceMatcher::default(), Instant::now());
        let (one, _) = tx(100);
        join.accepted(one, start);
        assert_eq!(join.expire(after(start, 3000)), [one]);
        assert_eq!(join.next_expiry(), None);
        join.accepted(one, start);
        (0..5).for_each(|n| _ = join.tx(large(n), start));
        assert_eq!(join.expire(start), [one]);
        assert_eq!(join.expire(after(start, 100)), []);
    }

    /// A queue of them is not looked through with each notice.
    #[test]
    fn announcements_that_have_met_are_not_kept_before_one_that_waits() {
        let (mut join, start) = (AcceptanceMatcher::default(), Instant::now());
        for n in 0..10 {
            join.accepted(tx(n).0, start);
        }
        (0..9).rev().for_each(|n| _ = join.tx(tx(n).1, start));
        assert!(join.waits());
        assert_eq!(join.announced, [(start, tx(9).0)]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let (mut join, now) = (AcceptanceMatcher::default(), Instant::now());
        for n in 0..10 {
            join.tx(large(n), now);
            join.expire(now);
        }
        assert!(join.bytes <= BYTES);
        assert!(join.halves.contains_key(&large(9).txid()));
        assert!(!join.halves.contains_key(&large(0).txid()));
    }

    #[test]
    fn an_announcement_is_waited_for_until_its_transaction_comes_or_is_fetched() {
        let (mut join, start) = (AcceptanceMatcher::default(), Instant::now());
        let ((one, a), (two, _)) = (tx(1), tx(2));
        assert!(!join.waits());
        join.accepted(one, start);
        join.accepted(two, start);
        join.tx(a, start);
        assert!(join.waits());
        assert_eq!(join.expire(after(start, 100)), [two]);
        assert!(!join.waits(), "from now on it is a fetch");
    }

    /// Its verdicts at these milliseconds: how many are spared.
    fn spared(queue: &mut EvictionQueue, start: Instant, ms: &[u64]) -> Vec<usize> {
        let verdict = |at: &u64| queue.settle(false, after(start, *at)).len();
        ms.iter().map(verdict).collect()
    }

    #[test]
    fn each_removal_has_its_own_time() {
        let (mut queue, start) = (EvictionQueue::default(), Instant::now());
        assert_eq!(queue.due(false), None);
        queue.removed(tx(1).0, start);
        queue.removed(tx(2).0, after(start, 30));
        assert_eq!(queue.due(false), Some(after(start, 250)));
        assert_eq!(queue.settle(false, after(start, 250)), [tx(2).0]);
        // Not one by one.
        assert_eq!(queue.due(false), Some(after(start, 350)));
        assert_eq!(queue.settle(false, after(start, 350)), []);
        assert_eq!(queue.due(false), None);
    }

    #[test]
    fn a_block_under_way_and_a_fetch_put_the_verdict_off() {
        let (mut queue, start) = (EvictionQueue::default(), Instant::now());
        queue.removed(tx(1).0, start);
        assert_eq!(queue.due(true), Some(after(start, 1000)));
        assert_eq!(queue.settle(true, after(start, 999)), [tx(1).0]);
        queue.not_before = None;
        queue.block_begins(after(start, 1));
        assert_eq!(queue.due(false), Some(after(start, 1001)));
        queue.block_ends();
        assert_eq!(queue.due(false), Some(after(start, 250)));
    }

    /// The coinbase of the block before may come after that block itself, from another address.
    #[test]
    fn a_block_that_ended_before_it_began_does_not_hide_the_next_one() {
        let (mut queue, start) = (EvictionQueue::default(), Instant::now());
        queue.block_begins(start);
        queue.removed(tx(1).0, after(start, 5000));
        assert_eq!(queue.due(false), Some(after(start, 5250)));
        queue.block_begins(after(start, 5001));
        assert_eq!(queue.due(false), Some(after(start, 6001)));
    }

    #[test]
    fn blocks_without_pause_do_not_put_the_verdict_off_for_ever() {
        let (mut queue, start) = (EvictionQueue::default(), Instant::now());
        queue.removed(tx(1).0, start);
        queue.block_begins(after(start, 1900));
        assert_eq!(queue.due(true), Some(after(start, 2000)));
    }

    /// What left a moment ago may still get its successor, also while others leave all the time.
    #[test]
    fn removals_without_pause_are_judged_one_after_the_other() {
        let (mut queue, start) = (EvictionQueue::default(), Instant::now());
        for n in 0..20 {
            queue.removed(tx(n).0, after(start, 50 * u64::from(n)));
        }
        assert_eq!(
            spared(&mut queue, start, &[250, 350, 600, 1200, 2000]),
            [19, 17, 12, 0, 0]
        );
        for n in 0..REMOVALS + 5 {
            queue.removed(tx(n as u32).0, after(start, 3000));
        }
        assert_eq!(spared(&mut queue, start, &[3001]), [REMOVALS]);
    }

    #[test]
    fn an_answer_stands_unless_its_transaction_left_after_the_question() {
        let mut during = InFlightTxs::default();
        let [a, b, c, d] = [1, 2, 3, 4].map(|n| tx(n).0);
        during.doubt(&a);
        for txid in [a, b, c] {
            assert!(during.ask(txid));
        }
        for txid in [b, c, d] {
            during.doubt(&txid);
        }
        during.accept(&c);
        let stands = |txid| during.answer(&txid).stands;
        assert_eq!([a, b, c, d].map(stands), [true, false, true, true]);
        during.ask(a);
        during.doubt_all();
        assert!(!during.answer(&a).stands);
        assert!(
            during.asked.is_empty(),
            "nothing is kept of what has been answered"
        );
    }

    #[test]
    fn what_is_asked_for_twice_is_asked_for_once_more_after_the_first_answer() {
        let mut during = InFlightTxs::default();
        let (a, _) = tx(1);
        assert!(during.ask(a));
        assert!(!during.ask(a));
        let worth = |stands, again| Worth { stands, again };
        assert_eq!(during.answer(&a), worth(true, true));
        assert!(during.ask(a));
        assert_eq!(during.answer(&a), worth(true, false));
        during.ask(a);
        during.doubt(&a);
        assert_eq!(during.answer(&a), worth(false, true));
    }
}
