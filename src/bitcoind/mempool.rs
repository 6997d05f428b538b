//! The whole mempool at one tip, corrected by what was heard while it was read.
//!
//! `getrawmempool false true` answers with a number S: the list holds exactly the `sequence` events below S (seen on 29.5; the
//! same rule in Core's doc/zmq.md). Events that we heard since the request and that are not below S are applied on top.

use std::collections::HashSet;

use bitcoin::{BlockHash, Txid};

use super::NodeError;
use super::rpc::{MempoolInfo, Rpc};

/// More news than this during one reading: it is read again later.
const NEWS: usize = 200_000;

/// What reading the mempool gave.
#[derive(Debug)]
pub(super) enum Reading {
    /// The node still loads the mempool of its last run: a list now would make evictions of what it has not loaded yet.
    Loading(MempoolInfo),
    /// The node's tip moved meanwhile.
    Moved,
    Whole(Snapshot),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// The node's tip before and after the reading.
    pub(super) tip: BlockHash,
    pub(super) txids: HashSet<Txid>,
    /// S above.
    pub(super) sequence: Option<u64>,
}

pub(super) async fn read(rpc: &Rpc) -> Result<Reading, NodeError> {
    let state = rpc.mempool_info().await?;
    if !state.loaded {
        return Ok(Reading::Loading(state));
    }
    let tip = rpc.best_block().await?;
    let list = rpc.mempool_txids().await?;
    if rpc.best_block().await? != tip {
        return Ok(Reading::Moved);
    }
    Ok(Reading::Whole(Snapshot { tip, txids: list.txids.into_iter().collect(), sequence: list.mempool_sequence }))
}

/// What was heard of the mempool since a reading was begun, in order.
#[derive(Debug, Default)]
pub(super) struct Since {
    news: Vec<News>,
    spoiled: bool,
}

#[derive(Debug, Clone, Copy)]
enum News {
    Accepted(u64, Txid),
    Removed(u64, Txid),
    /// Known to be in the mempool, or maybe so; without a number.
    Seen(Txid),
}

impl Since {
    pub(super) fn accepted(&mut self, sequence: u64, txid: Txid) {
        self.push(News::Accepted(sequence, txid));
    }

    pub(super) fn removed(&mut self, sequence: u64, txid: Txid) {
        self.push(News::Removed(sequence, txid));
    }

    pub(super) fn seen(&mut self, txid: Txid) {
        self.push(News::Seen(txid));
    }

    /// Blocks came or went, the feed broke: this reading cannot be corrected.
    pub(super) fn spoil(&mut self) {
        self.spoiled = true;
    }

    fn push(&mut self, news: News) {
        if self.news.len() >= NEWS {
            self.spoiled = true;
            return;
        }
        self.news.push(news);
    }

    /// The mempool as of now, if the reading still stands.
    pub(super) fn correct(&self, mut snapshot: Snapshot) -> Option<Snapshot> {
        if self.spoiled {
            return None;
        }
        let from = snapshot.sequence.unwrap_or(0);
        for news in &self.news {
            match *news {
                News::Accepted(sequence, txid) if sequence >= from => _ = snapshot.txids.insert(txid),
                News::Removed(sequence, txid) if sequence >= from => _ = snapshot.txids.remove(&txid),
                News::Seen(txid) => _ = snapshot.txids.insert(txid),
                News::Accepted(..) | News::Removed(..) => {}
            }
        }
        Some(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    fn id(n: u8) -> Txid {
        Txid::from_byte_array([n; 32])
    }

    fn snapshot(txids: &[u8], sequence: Option<u64>) -> Snapshot {
        Snapshot { tip: BlockHash::all_zeros(), txids: txids.iter().map(|n| id(*n)).collect(), sequence }
    }

    #[test]
    fn only_what_the_list_does_not_hold_yet_is_applied() {
        let mut since = Since::default();
        since.removed(9, id(1));
        since.accepted(10, id(2));
        since.accepted(11, id(3));
        since.removed(12, id(3));
        since.removed(13, id(4));
        // 9 is below 10: the list was made after it, and holds transaction 1 because it came back.
        assert_eq!(since.correct(snapshot(&[1, 4], Some(10))), Some(snapshot(&[1, 2], Some(10))));
    }

    #[test]
    fn a_transaction_that_left_and_came_back_is_there() {
        let mut since = Since::default();
        since.removed(10, id(1));
        since.accepted(11, id(1));
        assert_eq!(since.correct(snapshot(&[1], Some(10))), Some(snapshot(&[1], Some(10))));
    }

    #[test]
    fn without_numbers_what_was_seen_is_kept() {
        let mut since = Since::default();
        since.seen(id(5));
        assert_eq!(since.correct(snapshot(&[1], Some(10))), Some(snapshot(&[1, 5], Some(10))));
        assert_eq!(since.correct(snapshot(&[], None)), Some(snapshot(&[5], None)));
    }

    #[test]
    fn a_spoiled_reading_is_thrown_away() {
        let mut since = Since::default();
        since.spoil();
        assert_eq!(since.correct(snapshot(&[1], Some(10))), None);
    }
}
