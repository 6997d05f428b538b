//! Whether what `sequence` says that the mempool took may be older than our chain. No I/O, no
//! clock.
//!
//! A block over `rawblock`, or a fetched one, may overtake what `sequence` told before it. What
//! conflicts with that block left the mempool because of it. If it were believed, a payment that is
//! over would be told; and until its removal is heard, which a restart forgets, a disconnect would
//! take it for what has replaced the block's own transaction.

use std::collections::VecDeque;

use bitcoin::BlockHash;

use crate::tracker::input::Seen;

/// Blocks that are remembered.
const UNANNOUNCED: usize = 100;

#[derive(Default)]
pub(super) struct Acceptances {
    /// Blocks were disconnected, and the mempool was not read since: what comes may be older than
    /// that, and older than what the mempool held before.
    is_unread: bool,
    /// Our newest blocks that `sequence` has not announced yet, oldest first.
    unannounced: VecDeque<BlockHash>,
    /// It has announced this one, which is not ours yet.
    ahead: Option<BlockHash>,
}

impl Acceptances {
    /// As what an acceptance counts: if it may be old, the node is asked.
    pub(super) fn heard_as(&self) -> Seen {
        match self.is_unread || !self.unannounced.is_empty() {
            true => Seen::Rawtx,
            false => Seen::Accepted,
        }
    }

    pub(super) fn disconnected(&mut self) {
        (self.is_unread, self.ahead) = (true, None);
        self.unannounced.clear();
    }

    /// A block became ours. While `sequence` is ahead, it has announced this one before.
    pub(super) fn connected(&mut self, hash: BlockHash) {
        match self.ahead {
            Some(ahead) => _ = self.ahead.take_if(|_| ahead == hash),
            None => {
                if self.unannounced.len() >= UNANNOUNCED {
                    self.unannounced.pop_front();
                }
                self.unannounced.push_back(hash);
            }
        }
    }

    /// `sequence` announced a block. `is_tip`: of ours.
    pub(super) fn announced(&mut self, hash: BlockHash, is_tip: bool) {
        let place = self.unannounced.iter().position(|known| *known == hash);
        self.ahead = (place.is_none() && !is_tip).then_some(hash);
        if let Some(place) = place {
            self.unannounced.drain(..=place);
        }
    }

    /// `sequence` told that a block was disconnected.
    pub(super) fn taken_back(&mut self) {
        self.ahead = None;
    }

    /// Another connection, or another run of the node: our blocks were announced before it.
    pub(super) fn count_anew(&mut self) {
        self.ahead = None;
        self.unannounced.clear();
    }

    /// The mempool was read at our tip. `is_numbered`: what is older than that is known by its
    /// number.
    pub(super) fn read(&mut self, is_numbered: bool) {
        self.is_unread = false;
        if is_numbered {
            self.count_anew();
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    fn hash(n: u8) -> BlockHash {
        BlockHash::from_byte_array([n; 32])
    }

    #[test]
    fn the_node_is_asked_until_sequence_has_announced_our_last_block() {
        let mut acceptances = Acceptances::default();
        for n in [1, 2] {
            acceptances.connected(hash(n));
        }
        assert_eq!(acceptances.heard_as(), Seen::Rawtx);
        acceptances.announced(hash(1), false);
        assert_eq!(acceptances.heard_as(), Seen::Rawtx);
        acceptances.announced(hash(2), true);
        assert_eq!(acceptances.heard_as(), Seen::Accepted);
        acceptances.announced(hash(2), true);
        acceptances.connected(hash(3));
        assert_eq!(acceptances.heard_as(), Seen::Rawtx);
        acceptances.read(false);
        assert_eq!(acceptances.heard_as(), Seen::Rawtx);
        acceptances.read(true);
        assert_eq!(acceptances.heard_as(), Seen::Accepted);
    }

    #[test]
    fn while_sequence_is_ahead_of_our_blocks_it_is_believed() {
        let mut acceptances = Acceptances::default();
        for n in [1, 2] {
            acceptances.announced(hash(n), false);
        }
        for n in [1, 2] {
            acceptances.connected(hash(n));
            assert_eq!(acceptances.heard_as(), Seen::Accepted);
        }
        acceptances.connected(hash(3));
        assert_eq!(acceptances.heard_as(), Seen::Rawtx);
        acceptances.count_anew();
        acceptances.announced(hash(4), false);
        acceptances.taken_back();
        acceptances.connected(hash(5));
        assert_eq!(acceptances.heard_as(), Seen::Rawtx);
    }

    #[test]
    fn what_is_not_announced_is_bounded() {
        let mut acceptances = Acceptances::default();
        (0..=UNANNOUNCED as u8).for_each(|n| acceptances.connected(hash(n)));
        assert_eq!(acceptances.unannounced.len(), UNANNOUNCED);
        acceptances.announced(hash(UNANNOUNCED as u8), true);
        assert_eq!(acceptances.heard_as(), Seen::Accepted);
    }
}
