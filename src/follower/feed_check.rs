//! Whether a feed is our node's. An endpoint in the settings may be another node's, which publishes
//! blocks and transactions that ours does not have; nothing in a message says whose it is.
//!
//! An endpoint that the node itself lists (`getzmqnotifications`) is its own. Any other one, such
//! as a forwarded port, has to prove it: the node's next mempool sequence is S, so the acceptance
//! numbered S - 1 must have come over the feed, of a transaction that the node's mempool holds.
//! Until then, what the feed says is a hint: something to ask the node about.

use std::collections::VecDeque;

use bitcoin::Txid;

use crate::bitcoind::Endpoints;
use crate::bitcoind::zmq::ZmqTopic;
use crate::follower::mempool_snapshot::MempoolSnapshot;

/// Acceptances remembered: what comes while the mempool is read.
const HEARD: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct FeedCheck {
    /// The node lists the endpoint of `rawblock`, of `sequence`.
    listed: (bool, bool),
    proved: bool,
    heard: VecDeque<(u64, Txid)>,
}

impl FeedCheck {
    pub(super) fn list(&mut self, rawblock: bool, sequence: bool) {
        self.listed = (rawblock, sequence);
    }

    /// The feed broke off, or its numbers began anew: whoever publishes now has to prove it again.
    pub(super) fn forget(&mut self) {
        *self = Self {
            listed: self.listed,
            ..Self::default()
        };
    }

    pub(super) fn believes(&self, topic: ZmqTopic, endpoints: &Endpoints) -> bool {
        match topic {
            // Its content proves itself; whether the mempool holds it is asked elsewhere.
            ZmqTopic::Rawtx => true,
            ZmqTopic::Sequence => self.listed.1 || self.proved,
            ZmqTopic::Rawblock => {
                self.listed.0
                    || (self.believes(ZmqTopic::Sequence, endpoints)
                        && endpoints.rawblock == endpoints.sequence)
            }
        }
    }

    /// Remembers an acceptance for the proof.
    pub(super) fn accepted(&mut self, number: u64, txid: Txid) {
        if self.heard.len() >= HEARD {
            self.heard.pop_front();
        }
        self.heard.push_back((number, txid));
    }

    /// Compares what was heard with what the node says of its mempool. True if that is the proof.
    pub(super) fn judge(&mut self, snapshot: &MempoolSnapshot) -> bool {
        let Some(last) = snapshot
            .sequence
            .and_then(|next| next.checked_sub(1))
            .filter(|_| !self.proved)
        else {
            return false;
        };
        self.proved = self
            .heard
            .iter()
            .any(|(number, txid)| *number == last && snapshot.txids.contains(txid));
        if self.proved {
            self.heard.clear();
        }
        self.proved
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;

    use super::*;
    use crate::bitcoind::rpc::MempoolInfo;

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

    fn heard(acceptances: &[(u64, u8)]) -> FeedCheck {
        let mut feed = FeedCheck::default();
        for (number, n) in acceptances {
            feed.accepted(*number, id(*n));
        }
        feed
    }

    fn endpoints(rawblock: &str, sequence: &str) -> Endpoints {
        Endpoints {
            rawtx: None,
            rawblock: Some(rawblock.into()),
            sequence: Some(sequence.into()),
        }
    }

    #[test]
    fn the_last_acceptance_before_the_next_number_is_the_proof() {
        let mut feed = heard(&[(7, 1), (8, 2), (9, 3)]);
        let (shared, apart) = (endpoints("a", "a"), endpoints("b", "a"));
        assert!(
            !feed.believes(ZmqTopic::Sequence, &shared)
                && !feed.believes(ZmqTopic::Rawblock, &shared)
        );
        assert!(feed.judge(&snapshot(&[1, 2], Some(9))));
        assert!(
            feed.believes(ZmqTopic::Sequence, &shared)
                && feed.believes(ZmqTopic::Rawblock, &shared)
        );
        assert!(
            !feed.believes(ZmqTopic::Rawblock, &apart),
            "another address may be another node's"
        );
        feed.forget();
        assert!(!feed.believes(ZmqTopic::Sequence, &shared));
    }

    #[test]
    fn other_numbers_and_other_transactions_prove_nothing() {
        for wrong in [
            snapshot(&[9], Some(9)),
            snapshot(&[1, 2], Some(8)),
            snapshot(&[1, 2], None),
            snapshot(&[1, 2], Some(0)),
        ] {
            assert!(!heard(&[(8, 2)]).judge(&wrong), "{wrong:?}");
        }
        assert!(!heard(&[]).judge(&snapshot(&[1], Some(2))));
    }

    #[test]
    fn an_endpoint_that_the_node_lists_needs_no_proof() {
        let (mut feed, apart) = (FeedCheck::default(), endpoints("b", "a"));
        feed.list(true, true);
        feed.forget();
        assert!(
            feed.believes(ZmqTopic::Sequence, &apart) && feed.believes(ZmqTopic::Rawblock, &apart)
        );
    }
}
