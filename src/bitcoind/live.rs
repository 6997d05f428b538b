//! Live news put together: [`Join`] makes one "accepted" out of `rawtx` and `sequence`, [`Settling`] knows when successors of
//! removed transactions are out of time, [`During`] remembers what was heard while calls were on their way. No I/O, no clock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use bitcoin::{Transaction, Txid};
use tokio::time::Instant;

/// How long a half waits for the other. The `rawtx` of a block's transactions never get one.
const KEEP: Duration = Duration::from_secs(3);
/// How long an announcement waits for its `rawtx` from another address, before the transaction is fetched.
const FETCH_AFTER: Duration = Duration::from_millis(100);
/// Bounds of what waits; a block's burst is at most some ten thousand transactions and 4 MB.
const HALVES: usize = 50_000;
const BYTES: usize = 64 << 20;

/// `rawtx` tells what a transaction is, `sequence` that the mempool took it. Either may come first when they come from
/// different addresses; either may be lost.
#[derive(Default)]
pub(super) struct Join {
    halves: HashMap<Txid, Half>,
    /// Oldest first; entries whose half has gone or is newer are skipped.
    order: VecDeque<(Instant, Txid)>,
    /// Announced and not fetched yet, oldest first, with the same remark.
    announced: VecDeque<(Instant, Txid)>,
    bytes: usize,
}

struct Half {
    since: Instant,
    what: What,
}

enum What {
    Tx(Box<Transaction>, usize),
    Accepted,
}

impl Join {
    /// A transaction over `rawtx`, `size` bytes long. Given back if the node has announced it already.
    pub(super) fn tx(&mut self, txid: Txid, tx: Transaction, size: usize, now: Instant) -> Option<Transaction> {
        if let Some(Half { what: What::Accepted, .. }) = self.take(&txid) {
            return Some(tx);
        }
        self.insert(txid, What::Tx(Box::new(tx), size), now);
        None
    }

    /// The node announced that its mempool took it. The transaction, if it has come already.
    pub(super) fn accepted(&mut self, txid: Txid, now: Instant) -> Option<Transaction> {
        if let Some(tx) = self.take_tx(&txid) {
            return Some(tx);
        }
        self.insert(txid, What::Accepted, now);
        None
    }

    /// The transaction, if it waits here: spares a call.
    pub(super) fn take_tx(&mut self, txid: &Txid) -> Option<Transaction> {
        match self.take(txid)? {
            Half { what: What::Tx(tx, _), .. } => Some(*tx),
            Half { what: What::Accepted, .. } => None,
        }
    }

    /// It left the mempool: nothing about it waits any more.
    pub(super) fn forget(&mut self, txid: &Txid) {
        self.take(txid);
    }

    /// A block was announced, and on one address all `rawtx` of it came before: none of them will be announced.
    pub(super) fn forget_txs(&mut self) {
        self.halves.retain(|_, half| matches!(half.what, What::Accepted));
        self.bytes = 0;
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Drops what is too old, and answers which announced transactions must be fetched because their `rawtx` is lost or late.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Txid> {
        let mut late = Vec::new();
        while let Some((since, txid)) = self.order.front().copied() {
            if now < since + KEEP && self.halves.len() <= HALVES && self.bytes <= BYTES {
                break;
            }
            self.order.pop_front();
            if self.halves.get(&txid).is_some_and(|half| half.since == since) {
                self.take(&txid);
            }
        }
        while let Some((since, txid)) = self.announced.front().copied() {
            if now < since + FETCH_AFTER {
                break;
            }
            self.announced.pop_front();
            if self.halves.get(&txid).is_some_and(|half| half.since == since && matches!(half.what, What::Accepted)) {
                late.push(txid);
            }
        }
        late
    }

    /// When [`Self::expire`] has something to do.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let fetch = self.announced.front().map(|(since, _)| *since + FETCH_AFTER);
        let drop = self.order.front().map(|(since, _)| *since + KEEP);
        fetch.into_iter().chain(drop).min()
    }

    fn insert(&mut self, txid: Txid, what: What, now: Instant) {
        match what {
            What::Tx(_, size) => self.bytes += size,
            What::Accepted => self.announced.push_back((now, txid)),
        }
        if let Some(Half { what: What::Tx(_, size), .. }) = self.halves.insert(txid, Half { since: now, what }) {
            self.bytes = self.bytes.saturating_sub(size);
        }
        self.order.push_back((now, txid));
    }

    fn take(&mut self, txid: &Txid) -> Option<Half> {
        let half = self.halves.remove(txid)?;
        if let What::Tx(_, size) = half.what {
            self.bytes = self.bytes.saturating_sub(size);
        }
        if self.halves.is_empty() {
            self.order.clear();
            self.announced.clear();
        }
        Some(half)
    }
}

/// After a removal, its reason follows within moments (a replacement, a block) or not at all.
const SUCCESSORS: Duration = Duration::from_millis(50);
/// A removal just before a block is a conflict with it, and the block comes after all of its transactions.
const BLOCK: Duration = Duration::from_secs(1);
/// Removals without pause must not put off the verdict for ever.
const LONGEST: Duration = Duration::from_secs(2);

/// When to say that what left the mempool was evicted.
#[derive(Default)]
pub(super) struct Settling {
    first: Option<Instant>,
    due: Option<Instant>,
    block_until: Option<Instant>,
}

impl Settling {
    /// Something left.
    pub(super) fn gone(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.due = Some(now + SUCCESSORS);
    }

    /// A coinbase came over `rawtx`: a block is being connected or disconnected.
    pub(super) fn block_begins(&mut self, now: Instant) {
        self.block_until.get_or_insert(now + BLOCK);
    }

    /// That block has been dealt with.
    pub(super) fn block_ends(&mut self) {
        self.block_until = None;
    }

    /// When to settle. `fetching`: transactions are on their way that may be the successors.
    pub(super) fn due(&self, fetching: bool) -> Option<Instant> {
        let due = self.due?;
        let mut at = due;
        if let Some(until) = self.block_until {
            at = at.max(until);
        }
        if fetching {
            at = at.max(due + BLOCK);
        }
        Some(self.first.map_or(at, |first| at.min(first + LONGEST)))
    }

    pub(super) fn settled(&mut self) {
        *self = Self { block_until: self.block_until, ..Self::default() };
    }
}

/// What was heard while calls about the mempool were on their way.
#[derive(Default)]
pub(super) struct During {
    accepted: HashSet<Txid>,
    removed: HashSet<Txid>,
}

impl During {
    pub(super) fn accept(&mut self, txid: Txid) {
        self.removed.remove(&txid);
        self.accepted.insert(txid);
    }

    pub(super) fn remove(&mut self, txid: Txid) {
        self.accepted.remove(&txid);
        self.removed.insert(txid);
    }

    /// It left the mempool meanwhile, so an answer about it is out of date.
    pub(super) fn removed(&self, txid: &Txid) -> bool {
        self.removed.contains(txid)
    }

    /// It was announced meanwhile, so nothing had to be repaired.
    pub(super) fn accepted(&self, txid: &Txid) -> bool {
        self.accepted.contains(txid)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;

    use super::*;

    fn tx(n: u32) -> (Txid, Transaction) {
        let tx = Transaction { version: Version(2), lock_time: LockTime::from_consensus(n), input: vec![], output: vec![] };
        (tx.compute_txid(), tx)
    }

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn both_halves_make_one_acceptance_in_either_order() {
        let (mut join, now) = (Join::default(), Instant::now());
        let (txid, a) = tx(1);
        assert_eq!(join.tx(txid, a.clone(), 10, now), None);
        assert_eq!(join.accepted(txid, now), Some(a.clone()));
        assert_eq!(join.accepted(txid, now), None);
        assert_eq!(join.tx(txid, a.clone(), 10, now), Some(a.clone()));
        assert_eq!(join.tx(txid, a, 10, now), None, "nothing of the first pair is left");
    }

    #[test]
    fn a_blocks_transactions_are_forgotten_and_announcements_are_not() {
        let (mut join, now) = (Join::default(), Instant::now());
        let ((one, a), (two, b)) = (tx(1), tx(2));
        join.tx(one, a, 10, now);
        join.accepted(two, now);
        join.forget_txs();
        assert_eq!(join.accepted(one, now), None);
        assert_eq!(join.tx(two, b.clone(), 10, now), Some(b));
    }

    #[test]
    fn a_removed_transaction_does_not_come_back_by_its_old_half() {
        let (mut join, now) = (Join::default(), Instant::now());
        let (txid, a) = tx(1);
        join.tx(txid, a, 10, now);
        join.forget(&txid);
        assert_eq!(join.accepted(txid, now), None);
    }

    #[test]
    fn an_announcement_without_its_transaction_is_fetched_once_and_then_dropped() {
        let (mut join, start) = (Join::default(), Instant::now());
        let (txid, a) = tx(1);
        join.accepted(txid, start);
        assert_eq!(join.expire(after(start, 50)), []);
        assert_eq!(join.next_expiry(), Some(after(start, 100)));
        assert_eq!(join.expire(after(start, 100)), [txid]);
        assert_eq!(join.expire(after(start, 200)), []);
        assert_eq!(join.expire(after(start, 3000)), []);
        assert_eq!(join.next_expiry(), None);
        assert_eq!(join.tx(txid, a, 10, after(start, 3001)), None);
    }

    #[test]
    fn what_waits_is_bounded() {
        let (mut join, now) = (Join::default(), Instant::now());
        for n in 0..10 {
            let (txid, tx) = tx(n);
            join.tx(txid, tx, BYTES / 4, now);
            join.expire(now);
        }
        assert!(join.bytes <= BYTES);
        assert!(join.halves.contains_key(&tx(9).0));
        assert!(!join.halves.contains_key(&tx(0).0));
    }

    #[test]
    fn an_eviction_is_settled_soon_after_the_last_removal() {
        let (mut settling, start) = (Settling::default(), Instant::now());
        assert_eq!(settling.due(false), None);
        settling.gone(start);
        settling.gone(after(start, 30));
        assert_eq!(settling.due(false), Some(after(start, 80)));
        settling.settled();
        assert_eq!(settling.due(false), None);
    }

    #[test]
    fn a_block_under_way_and_a_fetch_put_the_verdict_off_but_not_for_ever() {
        let (mut settling, start) = (Settling::default(), Instant::now());
        settling.gone(start);
        assert_eq!(settling.due(true), Some(after(start, 1050)));
        settling.block_begins(after(start, 1));
        assert_eq!(settling.due(false), Some(after(start, 1001)));
        settling.block_ends();
        assert_eq!(settling.due(false), Some(after(start, 50)));
        for ms in 0..100 {
            settling.gone(after(start, ms * 40));
        }
        assert_eq!(settling.due(false), Some(after(start, 2000)));
    }
}
