//! Calls about single transactions: announced ones are fetched, ones that came over `rawtx` alone
//! are checked against the node's mempool. What was heard while a call was on its way says whether
//! its answer still stands.

use std::collections::VecDeque;

use bitcoin::{Transaction, Txid};
use tokio::time::Instant;

use super::{CallOutcome, FollowError, Follower};
use crate::bitcoind::NodeError;
use crate::bitcoind::mempool_events::InFlightFetches;
use crate::bitcoind::mempool_snapshot::parents_first;
use crate::bitcoind::rpc::BATCH;
use crate::clock::now_ms;
use crate::tracker::BlockId;
use crate::tracker::input::Seen;

/// Batches at the same time.
const FETCHES: usize = 3;
/// One after the other: the later answer about two transactions that replace one another is the
/// right one.
const CHECKS: usize = 1;
/// Checks in one batch: small, since each holds up an announced payment.
const CHECK_BATCH: usize = 100;
/// Checks that may wait for the node; what is dropped is found by the next reading.
const WAITING_CHECKS: usize = 20_000;

#[derive(Default)]
pub(super) struct TxCalls {
    in_flight: InFlightFetches,
    fetches: VecDeque<Txid>,
    fetching: usize,
    checks: VecDeque<(Txid, Transaction)>,
    checking: usize,
}

impl TxCalls {
    /// Forgets what waits. Calls that are on their way come back and are counted down; none of
    /// their answers stands.
    pub(super) fn stop(&mut self) {
        self.in_flight.deafen();
        self.fetches.clear();
        self.checks.clear();
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
    pub(super) fn check(&mut self, tx: Transaction) {
        if self.checks.len() >= WAITING_CHECKS {
            self.checks.pop_front();
        }
        self.checks.push_back((tx.compute_txid(), tx));
    }

    /// The node's mempool took it.
    pub(super) fn accepted(&mut self, txid: &Txid) {
        self.in_flight.accept(txid);
    }

    /// It left the node's mempool.
    pub(super) fn removed(&mut self, txid: &Txid) {
        self.in_flight.remove(txid);
    }

    fn next_fetch(&mut self) -> Option<Vec<Txid>> {
        if self.fetching >= FETCHES || self.fetches.is_empty() {
            return None;
        }
        let count = self.fetches.len().min(BATCH);
        let wanted: Vec<_> = self.fetches.drain(..count).collect();
        self.in_flight.ask(&wanted);
        self.fetching += 1;
        Some(wanted)
    }

    fn next_check(&mut self) -> Option<Vec<(Txid, Transaction)>> {
        if self.checking >= CHECKS || self.checks.is_empty() {
            return None;
        }
        let count = self.checks.len().min(CHECK_BATCH);
        self.checking += 1;
        Some(self.checks.drain(..count).collect())
    }
}

impl Follower {
    pub(super) fn start_fetches(&mut self) {
        while self.on
            && Instant::now() >= self.pause_until
            && let Some(wanted) = self.mempool.calls.next_fetch()
        {
            let (rpc, tip) = (self.rpc.clone(), self.tip);
            self.work.spawn(async move {
                let result = rpc.transactions(wanted.clone()).await;
                CallOutcome::Fetched {
                    wanted,
                    tip,
                    result,
                }
            });
        }
    }

    pub(super) async fn fetched(
        &mut self,
        wanted: Vec<Txid>,
        tip: Option<BlockId>,
        result: Result<Vec<Option<Transaction>>, NodeError>,
    ) -> Result<(), FollowError> {
        self.mempool.calls.fetching -= 1;
        let stands: Vec<_> = wanted
            .iter()
            .map(|txid| self.mempool.calls.in_flight.answer(txid))
            .collect();
        let found = match result {
            Ok(found) if tip == self.tip => found,
            // A block came in between, and what was found may conflict with it: ask again.
            unusable => {
                wanted
                    .into_iter()
                    .rev()
                    .for_each(|txid| self.mempool.calls.fetches.push_front(txid));
                if let Err(error) = unusable {
                    self.node_failed(&error);
                }
                return Ok(());
            }
        };
        self.node_answered();
        let found = wanted.into_iter().zip(found).zip(stands);
        let found = found
            .filter_map(|((txid, tx), stands)| Some((txid, tx.filter(|_| self.on && stands)?)))
            .collect();
        for (txid, tx) in parents_first(found) {
            if self.mempool.is_repairing() {
                tracing::debug!("{txid} has not come over ZMQ");
                self.publisher.repaired(1);
            }
            self.send(tx, Seen::Fetched, now_ms()).await?;
        }
        Ok(())
    }

    pub(super) fn start_checks(&mut self) {
        while self.on
            && Instant::now() >= self.pause_until
            && let Some(asked) = self.mempool.calls.next_check()
        {
            let (rpc, tip) = (self.rpc.clone(), self.tip);
            self.work.spawn(async move {
                let result = rpc
                    .in_mempool(asked.iter().map(|(txid, _)| *txid).collect())
                    .await;
                CallOutcome::Checked { asked, tip, result }
            });
        }
    }

    pub(super) async fn checked(
        &mut self,
        asked: Vec<(Txid, Transaction)>,
        tip: Option<BlockId>,
        result: Result<Vec<bool>, NodeError>,
    ) -> Result<(), FollowError> {
        self.mempool.calls.checking -= 1;
        match result {
            Err(error) => {
                self.mempool.calls.checks.extend(asked);
                self.node_failed(&error);
            }
            // A block came in between: as above.
            Ok(_) if tip != self.tip => self.mempool.calls.checks.extend(asked),
            Ok(held) => {
                for (_, tx) in asked
                    .into_iter()
                    .zip(held)
                    .filter_map(|(asked, held)| held.then_some(asked))
                {
                    if self.on {
                        self.send(tx, Seen::Accepted, now_ms()).await?;
                    }
                }
            }
        }
        Ok(())
    }
}
