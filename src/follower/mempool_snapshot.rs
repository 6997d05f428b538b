//! The whole mempool at one tip, corrected by what was heard while it was read. No I/O.
//!
//! `getrawmempool false true` answers with a number S: the list holds exactly the `sequence` events
//! below S (seen on 29.5; the same rule in Core's doc/zmq.md). Events that we heard since the
//! request and that are not below S are applied on top.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use bitcoin::{BlockHash, Txid};

use crate::bitcoind::rpc::MempoolInfo;
use crate::tracker::RawTx;

/// More changes than this during one reading: it is read again later.
const CHANGES: usize = 200_000;

/// What reading the mempool gave.
#[derive(Debug)]
pub enum MempoolRead {
    /// The node still loads the mempool of its last run: a list now would make evictions of what it
    /// has not loaded yet.
    Loading(MempoolInfo),
    /// The node's tip moved meanwhile.
    Moved,
    Whole(MempoolSnapshot),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MempoolSnapshot {
    /// The node's tip before and after the reading.
    pub tip: BlockHash,
    pub txids: BTreeSet<Txid>,
    /// S above.
    pub sequence: Option<u64>,
    /// What it said of its mempool before.
    pub info: MempoolInfo,
}

/// The mempool is to be read.
pub(super) struct WantedReading {
    pub(super) at: Instant,
    /// Something told us to read; otherwise what is found has not come over ZMQ.
    pub(super) prompted: bool,
}

/// It is being read.
pub(super) struct Reading {
    pub(super) since: EventsSinceRequest,
    pub(super) began: Instant,
    /// What it finds has not come over ZMQ although all was whole, or not yet.
    pub(super) repairs: bool,
    /// An acceptance was heard meanwhile, which a later reading may have to prove.
    pub(super) proof_after: bool,
}

impl Reading {
    pub(super) fn begun(began: Instant, repairs: bool) -> Self {
        Self {
            since: EventsSinceRequest::default(),
            began,
            repairs,
            proof_after: false,
        }
    }
}

/// What is decided when an answer comes, which is the next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pending {
    Snapshot,
    EndOfRound,
}

/// What a reading lacked is being fetched, or evicted.
pub(super) struct Round {
    pub(super) began: Instant,
    /// From when on the verdict may be given, for the first time or again.
    pub(super) verdict_at: Instant,
    /// As of the reading.
    pub(super) repairs: bool,
}

impl Round {
    pub(super) fn begun(began: Instant, repairs: bool) -> Self {
        Self {
            began,
            verdict_at: began,
            repairs,
        }
    }
}

/// What was heard of the mempool since a reading was begun, in order.
#[derive(Debug, Default)]
pub(super) struct EventsSinceRequest {
    changes: Vec<MempoolChange>,
    spoiled: bool,
}

#[derive(Debug, Clone, Copy)]
enum MempoolChange {
    Accepted(u64, Txid),
    Removed(u64, Txid),
    /// Known to be in the mempool, or maybe so; without a number.
    Seen(Txid),
}

impl EventsSinceRequest {
    pub(super) fn accepted(&mut self, sequence: u64, txid: Txid) {
        self.push(MempoolChange::Accepted(sequence, txid));
    }

    pub(super) fn removed(&mut self, sequence: u64, txid: Txid) {
        self.push(MempoolChange::Removed(sequence, txid));
    }

    pub(super) fn seen(&mut self, txid: Txid) {
        self.push(MempoolChange::Seen(txid));
    }

    /// Blocks came or went, the feed broke: this reading cannot be corrected.
    pub(super) fn spoil(&mut self) {
        self.spoiled = true;
    }

    fn push(&mut self, changes: MempoolChange) {
        if self.changes.len() >= CHANGES {
            self.spoiled = true;
            return;
        }
        self.changes.push(changes);
    }

    /// The mempool as of now, if the reading still stands.
    pub(super) fn correct(&self, mut snapshot: MempoolSnapshot) -> Option<MempoolSnapshot> {
        if self.spoiled {
            return None;
        }
        let from = snapshot.sequence.unwrap_or(0);
        for changes in &self.changes {
            match *changes {
                MempoolChange::Accepted(sequence, txid) if sequence >= from => {
                    _ = snapshot.txids.insert(txid)
                }
                MempoolChange::Removed(sequence, txid) if sequence >= from => {
                    _ = snapshot.txids.remove(&txid)
                }
                MempoolChange::Seen(txid) => _ = snapshot.txids.insert(txid),
                MempoolChange::Accepted(..) | MempoolChange::Removed(..) => {}
            }
        }
        Some(snapshot)
    }
}

/// The same transactions, none before another of them that it spends: the tracker then knows at
/// once what each one moves.
pub(super) fn parents_first(found: Vec<RawTx>) -> Vec<RawTx> {
    let order: Vec<Txid> = found.iter().map(RawTx::txid).collect();
    let mut waiting: HashMap<_, _> = found.into_iter().map(|tx| (tx.txid(), tx)).collect();
    let mut sorted = Vec::with_capacity(order.len());
    for txid in order {
        let mut path = vec![txid];
        while let Some(&last) = path.last() {
            let parent = |tx: &RawTx| tx.parents().find(|txid| waiting.contains_key(txid));
            match waiting.get(&last).and_then(parent) {
                Some(parent) => path.push(parent),
                None => {
                    path.pop();
                    sorted.extend(waiting.remove(&last));
                }
            }
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash;
    use bitcoin::transaction::Version;
    use bitcoin::{OutPoint, Transaction, TxIn};

    use super::*;

    fn spends(parents: &[Txid], n: u32) -> RawTx {
        let input = parents
            .iter()
            .map(|txid| TxIn {
                previous_output: OutPoint {
                    txid: *txid,
                    vout: n,
                },
                ..TxIn::default()
            })
            .collect();
        RawTx::from(&Transaction {
            version: Version(2),
            lock_time: LockTime::from_consensus(n),
            input,
            output: vec![],
        })
    }

    #[test]
    fn parents_come_before_their_children_and_nothing_is_lost_or_doubled() {
        let a = spends(&[id(1)], 0);
        let b = spends(&[a.txid()], 1);
        let c = spends(&[id(2), b.txid(), a.txid()], 2);
        let d = spends(&[c.txid(), b.txid()], 3);
        let alone = spends(&[id(3)], 4);
        let found = vec![
            d.clone(),
            c.clone(),
            alone.clone(),
            b.clone(),
            d.clone(),
            a.clone(),
        ];
        assert_eq!(parents_first(found), [a, b, c, d, alone]);
    }

    fn id(n: u8) -> Txid {
        Txid::from_byte_array([n; 32])
    }

    fn snapshot(txids: &[u8], sequence: Option<u64>) -> MempoolSnapshot {
        MempoolSnapshot {
            tip: BlockHash::all_zeros(),
            txids: txids.iter().map(|n| id(*n)).collect(),
            sequence,
            info: MempoolInfo::default(),
        }
    }

    #[test]
    fn only_what_the_list_does_not_hold_yet_is_applied() {
        let mut since = EventsSinceRequest::default();
        since.removed(9, id(1));
        since.accepted(10, id(2));
        since.accepted(11, id(3));
        since.removed(12, id(3));
        since.removed(13, id(4));
        // 9 is below 10: the list was made after it, and holds transaction 1 because it came back.
        assert_eq!(
            since.correct(snapshot(&[1, 4], Some(10))),
            Some(snapshot(&[1, 2], Some(10)))
        );
    }

    #[test]
    fn a_transaction_that_left_and_came_back_is_there() {
        let mut since = EventsSinceRequest::default();
        since.removed(10, id(1));
        since.accepted(11, id(1));
        assert_eq!(
            since.correct(snapshot(&[1], Some(10))),
            Some(snapshot(&[1], Some(10)))
        );
    }

    #[test]
    fn without_numbers_what_was_seen_is_kept() {
        let mut since = EventsSinceRequest::default();
        since.seen(id(5));
        assert_eq!(
            since.correct(snapshot(&[1], Some(10))),
            Some(snapshot(&[1, 5], Some(10)))
        );
        assert_eq!(
            since.correct(snapshot(&[], None)),
            Some(snapshot(&[5], None))
        );
    }

    #[test]
    fn a_spoiled_reading_is_thrown_away() {
        let mut since = EventsSinceRequest::default();
        since.spoil();
        assert_eq!(since.correct(snapshot(&[1], Some(10))), None);
    }
}
