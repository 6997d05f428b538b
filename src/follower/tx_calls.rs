//! Calls about single transactions: announced ones are fetched, ones that came over `rawtx` alone
//! are checked against the node's mempool. What was heard while a call was on its way says whether
//! its answer still stands.

use std::collections::VecDeque;

use bitcoin::Txid;

use super::actions::{Action, Call};
use crate::bitcoind::rpc::BATCH;
use crate::follower::mempool_events::{InFlightFetches, Worth};
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
    in_flight: InFlightFetches,
    fetches: VecDeque<Txid>,
    fetching: usize,
    checks: VecDeque<RawTx>,
    check_bytes: usize,
    checking: usize,
    /// The answer of the check that is on its way may be older than a reading.
    is_check_doubtful: bool,
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

    /// The node's mempool took it.
    pub(super) fn accepted(&mut self, txid: &Txid) {
        self.in_flight.accept(txid);
    }

    /// What is being fetched may be from before it left the node's mempool, or came back.
    pub(super) fn doubt(&mut self, txid: &Txid) {
        self.in_flight.doubt(txid);
    }

    /// The same of all, and of what is being checked.
    pub(super) fn doubt_all(&mut self) {
        self.is_check_doubtful = self.checking > 0;
        self.in_flight.doubt_all();
    }

    /// Begins the calls that are due, with our `tip`.
    pub(super) fn start(&mut self, tip: Option<BlockId>, actions: &mut Vec<Action>) {
        while self.fetching < FETCHES && !self.fetches.is_empty() {
            let count = self.fetches.len().min(BATCH);
            let due = self.fetches.drain(..count);
            let txids: Vec<_> = due.filter(|txid| self.in_flight.ask(*txid)).collect();
            if txids.is_empty() {
                continue;
            }
            self.fetching += 1;
            actions.push(Action::Call(Call::Transactions { txids, tip }));
        }
        while self.checking < CHECKS && !self.checks.is_empty() {
            self.checking += 1;
            let next = std::iter::from_fn(|| self.next_check());
            let txs = next.take(CHECK_BATCH).collect();
            actions.push(Action::Call(Call::InMempool { txs, tip }));
        }
    }

    /// A fetch has its answer. What that is worth for each of the transactions.
    pub(super) fn fetched(&mut self, txids: &[Txid]) -> Vec<Worth> {
        self.fetching = self.fetching.saturating_sub(1);
        txids
            .iter()
            .map(|txid| self.in_flight.answer(txid))
            .collect()
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

    /// A check has its answer. Whether it stands.
    pub(super) fn checked(&mut self) -> bool {
        self.checking = self.checking.saturating_sub(1);
        !std::mem::take(&mut self.is_check_doubtful)
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
