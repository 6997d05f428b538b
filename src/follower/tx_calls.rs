//! Calls about single transactions: announced ones are fetched, ones that came over `rawtx` alone
//! are checked against the node's mempool. What was heard while a call was on its way says whether
//! its answer still stands.

use std::collections::VecDeque;

use bitcoin::Txid;

use super::actions::{Action, Call};
use crate::bitcoind::rpc::BATCH;
use crate::follower::mempool_events::{InFlightTxs, Worth};
use crate::tracker::{BlockId, RawTx};

/// Batches at the same time.
const FETCHES: usize = 3;
/// One after the other: the later answer about two transactions that replace one another is the
/// right one.
const CHECKS: usize = 1;
/// Checks in one batch: small, since each holds up an announced payment.
const CHECK_BATCH: usize = 100;
/// Checks, and bytes of them, that may wait for the node; what is dropped is found by the next
/// reading.
const WAITING_CHECKS: usize = 20_000;
const WAITING_BYTES: usize = 64 << 20;

#[derive(Default)]
pub(super) struct TxCalls {
    fetched: InFlightTxs,
    fetches: VecDeque<Txid>,
    fetching: usize,
    checked: InFlightTxs,
    checks: VecDeque<RawTx>,
    check_bytes: usize,
    checking: usize,
}

impl TxCalls {
    /// Forgets what waits. Calls that are on their way come back and are counted down; none of
    /// their answers stands.
    pub(super) fn stop(&mut self) {
        self.doubt_all();
        self.fetches.clear();
        self.checks.clear();
        self.check_bytes = 0;
    }

    pub(super) fn fetch(&mut self, txids: Vec<Txid>) {
        self.fetches.extend(txids);
    }

    /// Ahead of others.
    pub(super) fn fetch_first(&mut self, txid: Txid) {
        self.fetches.push_front(txid);
    }

    /// Fetches are on their way or due.
    pub(super) fn fetching(&self) -> bool {
        self.fetching > 0 || !self.fetches.is_empty()
    }

    /// The same of checks.
    pub(super) fn checking(&self) -> bool {
        self.checking > 0 || !self.checks.is_empty()
    }

    /// A transaction that came over `rawtx` alone and matters.
    pub(super) fn check(&mut self, tx: RawTx) {
        self.check_bytes += tx.bytes().len();
        self.checks.push_back(tx);
        while self.checks.len() > WAITING_CHECKS || self.check_bytes > WAITING_BYTES {
            self.next_check();
        }
    }

    fn next_check(&mut self) -> Option<RawTx> {
        let tx = self.checks.pop_front()?;
        self.check_bytes -= tx.bytes().len();
        Some(tx)
    }

    /// The node's mempool took it. (A check does not count on that: without `sequence` it may be
    /// old news.)
    pub(super) fn accepted(&mut self, txid: &Txid) {
        self.fetched.accept(txid);
    }

    /// What is being fetched or checked may be from before it left the node's mempool, or came
    /// back.
    pub(super) fn doubt(&mut self, txid: &Txid) {
        self.checked.doubt(txid);
        self.fetched.doubt(txid);
    }

    /// The same of all.
    pub(super) fn doubt_all(&mut self) {
        self.checked.doubt_all();
        self.fetched.doubt_all();
    }

    /// Begins the calls that are due, with our `tip`.
    pub(super) fn start(&mut self, tip: Option<BlockId>, actions: &mut Vec<Action>) {
        while self.fetching < FETCHES && !self.fetches.is_empty() {
            let count = self.fetches.len().min(BATCH);
            let due = self.fetches.drain(..count);
            let txids: Vec<_> = due.filter(|txid| self.fetched.ask(*txid)).collect();
            if txids.is_empty() {
                continue;
            }
            self.fetching += 1;
            actions.push(Action::Call(Call::Transactions { txids, tip }));
        }
        while self.checking < CHECKS && !self.checks.is_empty() {
            let next = std::iter::from_fn(|| self.next_check());
            let due: Vec<_> = next.take(CHECK_BATCH).collect();
            let asked = due.into_iter().filter(|tx| self.checked.ask(tx.txid()));
            let txs = asked.collect();
            self.checking += 1;
            actions.push(Action::Call(Call::InMempool { txs, tip }));
        }
    }

    /// A fetch has its answer. What that is worth for each of the transactions.
    pub(super) fn fetched(&mut self, txids: &[Txid]) -> Vec<Worth> {
        self.fetching = self.fetching.saturating_sub(1);
        txids.iter().map(|txid| self.fetched.answer(txid)).collect()
    }

    /// Those that were found and stand. Others that are worth it are fetched once more.
    pub(super) fn standing(
        &mut self,
        answers: impl Iterator<Item = ((Txid, Option<RawTx>), Worth)>,
    ) -> Vec<RawTx> {
        let (mut standing, mut again) = (Vec::new(), Vec::new());
        for ((txid, found), worth) in answers {
            match found.filter(|_| worth.stands) {
                Some(tx) => standing.push(tx),
                None if worth.again => again.push(txid),
                None => {}
            }
        }
        self.fetch_again(again);
        standing
    }

    /// These are fetched once more, ahead of others.
    pub(super) fn fetch_again(&mut self, txids: Vec<Txid>) {
        for txid in txids.into_iter().rev() {
            self.fetches.push_front(txid);
        }
    }

    /// A check has its answer. What that is worth, as above.
    pub(super) fn checked(&mut self, txs: &[RawTx]) -> Vec<Worth> {
        self.checking = self.checking.saturating_sub(1);
        let answers = txs.iter().map(|tx| self.checked.answer(&tx.txid()));
        answers.collect()
    }

    /// Those that are held, and stand. Others that are worth it are checked once more.
    pub(super) fn held(
        &mut self,
        answers: impl Iterator<Item = ((RawTx, bool), Worth)>,
    ) -> Vec<RawTx> {
        let (mut standing, mut again) = (Vec::new(), Vec::new());
        for ((tx, held), worth) in answers {
            match () {
                () if held && worth.stands => standing.push(tx),
                () if worth.again => again.push(tx),
                () => {}
            }
        }
        self.check_again(again);
        standing
    }

    /// These are checked once more.
    pub(super) fn check_again(&mut self, txs: Vec<RawTx>) {
        txs.into_iter().for_each(|tx| self.check(tx));
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, ScriptBuf, Transaction, TxOut};

    use super::*;

    #[test]
    fn checks_that_wait_are_bounded_in_bytes() {
        let large = |n| {
            RawTx::from(&Transaction {
                version: Version::TWO,
                lock_time: LockTime::from_consensus(n),
                input: vec![],
                output: vec![TxOut {
                    value: Amount::ZERO,
                    script_pubkey: ScriptBuf::from_bytes(vec![0; WAITING_BYTES / 4]),
                }],
            })
        };
        let (mut calls, mut actions) = (TxCalls::default(), Vec::new());
        (0..9).for_each(|n| calls.check(large(n)));
        assert_eq!(calls.checks, [6, 7, 8].map(large));
        calls.start(None, &mut actions);
        assert_eq!((calls.check_bytes, calls.checks.len()), (0, 0));
    }
}
