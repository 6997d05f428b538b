//! Whether what `sequence` says that the mempool took may be older than our chain. No I/O, no
//! clock.
//!
//! A block over `rawblock`, or a fetched one, may overtake what `sequence` told before it. What
//! conflicts with that block left the mempool because of it. If it were believed, a payment that is
//! over would be told; and until its removal is heard, which a restart forgets, a disconnect would
//! take it for what has replaced the block's own transaction.

use std::collections::VecDeque;

use bitcoin::BlockHash;

use super::recent_blocks::remember;
use crate::tracker::input::Seen;

/// Blocks that are remembered, of each kind.
const REMEMBERED: usize = 100;

#[derive(Default)]
pub(super) struct Acceptances {
    /// Blocks were disconnected, or nothing was heard for a while, and the mempool was not read
    /// since: what comes may be older than that, and older than what the mempool held before.
    is_unread: bool,
    /// The mempool was read since `sequence` was connected, with the number of its next change.
    /// Blocks from before that are fetched: `sequence` is ahead of them.
    is_numbered: bool,
    /// Our newest blocks that `sequence` has not announced yet, oldest first.
    unannounced: VecDeque<BlockHash>,
    /// It has announced these, oldest first, and they are not ours yet.
    ahead: VecDeque<BlockHash>,
}

impl Acceptances {
    /// Monitoring was stopped: what had been announced by then is not known any more.
    pub(super) fn stopped() -> Self {
        Self {
            is_unread: true,
            ..Self::default()
        }
    }

    /// As what an acceptance counts: if it may be old, the node is asked.
    pub(super) fn heard_as(&self) -> Seen {
        match self.is_unread || !self.unannounced.is_empty() {
            true => Seen::Rawtx,
            false => Seen::Accepted,
        }
    }

    pub(super) fn disconnected(&mut self) {
        self.is_unread = true;
        self.forget_blocks();
    }

    /// A block became ours. If `sequence` has announced it before, so it has those below.
    pub(super) fn connected(&mut self, hash: BlockHash) {
        let place = self.ahead.iter().position(|known| *known == hash);
        if let Some(place) = place {
            self.ahead.drain(..=place);
            self.unannounced.clear();
        } else if self.is_numbered {
            remember(&mut self.unannounced, hash, REMEMBERED);
        }
    }

    /// `sequence` announced a block. `is_tip`: of ours.
    pub(super) fn announced(&mut self, hash: BlockHash, is_tip: bool) {
        let place = self.unannounced.iter().position(|known| *known == hash);
        if let Some(place) = place {
            self.unannounced.drain(..=place);
        } else if !is_tip {
            remember(&mut self.ahead, hash, REMEMBERED);
        }
    }

    /// `sequence` told that this block was disconnected.
    pub(super) fn taken_back(&mut self, hash: BlockHash) {
        self.ahead.retain(|known| *known != hash);
    }

    /// Another connection, or another run of the node: our blocks were announced before it.
    pub(super) fn count_anew(&mut self) {
        self.is_numbered = false;
        self.forget_blocks();
    }

    /// The mempool was read at our tip. `is_numbered`: what is older than that is known by its
    /// number.
    pub(super) fn read(&mut self, is_numbered: bool) {
        self.is_unread = false;
        if is_numbered {
            self.is_numbered = true;
            self.forget_blocks();
        }
    }

    fn forget_blocks(&mut self) {
        self.unannounced.clear();
        self.ahead.clear();
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    fn hash(n: u8) -> BlockHash {
        BlockHash::from_byte_array([n; 32])
    }

    /// The mempool was read since `sequence` was connected.
    fn following() -> Acceptances {
        let mut acceptances = Acceptances::default();
        acceptances.read(true);
        acceptances
    }

    #[test]
    fn the_node_is_asked_until_sequence_has_announced_our_last_block() {
        let mut acceptances = following();
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
        let mut acceptances = following();
        for n in [1, 2] {
            acceptances.announced(hash(n), false);
        }
        for n in [1, 2] {
            acceptances.connected(hash(n));
            assert_eq!(acceptances.heard_as(), Seen::Accepted);
        }
        acceptances.connected(hash(3));
        assert_eq!(acceptances.heard_as(), Seen::Rawtx);
        acceptances.read(true);
        acceptances.announced(hash(4), false);
        acceptances.taken_back(hash(4));
        acceptances.connected(hash(5));
        assert_eq!(acceptances.heard_as(), Seen::Rawtx);
    }

    #[test]
    fn who_has_announced_a_block_has_announced_those_below() {
        let mut acceptances = following();
        acceptances.announced(hash(3), false);
        for n in [1, 2] {
            acceptances.connected(hash(n));
            assert_eq!(acceptances.heard_as(), Seen::Rawtx);
        }
        acceptances.connected(hash(3));
        assert_eq!(acceptances.heard_as(), Seen::Accepted);
    }

    #[test]
    fn the_late_announcement_of_an_older_block_of_ours_does_not_speak_for_the_next_one() {
        let mut acceptances = following();
        acceptances.announced(hash(1), false);
        acceptances.connected(hash(3));
        assert_eq!(acceptances.heard_as(), Seen::Rawtx);
        acceptances.announced(hash(2), false);
        assert_eq!(acceptances.heard_as(), Seen::Rawtx);
        acceptances.announced(hash(3), true);
        assert_eq!(acceptances.heard_as(), Seen::Accepted);
    }

    #[test]
    fn the_announcement_of_another_branch_does_not_speak_for_ours() {
        let mut acceptances = following();
        acceptances.announced(hash(9), false);
        for n in [1, 2] {
            acceptances.connected(hash(n));
            assert_eq!(acceptances.heard_as(), Seen::Rawtx);
        }
        acceptances.taken_back(hash(9));
        acceptances.announced(hash(1), false);
        assert_eq!(acceptances.heard_as(), Seen::Rawtx);
        acceptances.announced(hash(2), true);
        assert_eq!(acceptances.heard_as(), Seen::Accepted);
    }

    #[test]
    fn a_block_that_is_taken_back_leaves_those_below_announced() {
        let mut acceptances = following();
        for n in [1, 2] {
            acceptances.announced(hash(n), false);
        }
        acceptances.taken_back(hash(2));
        acceptances.connected(hash(1));
        assert_eq!(acceptances.heard_as(), Seen::Accepted);
        acceptances.connected(hash(2));
        assert_eq!(acceptances.heard_as(), Seen::Rawtx);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut acceptances = following();
        (0..=REMEMBERED as u8).for_each(|n| acceptances.connected(hash(n)));
        assert_eq!(acceptances.unannounced.len(), REMEMBERED);
        acceptances.announced(hash(REMEMBERED as u8), true);
        assert_eq!(acceptances.heard_as(), Seen::Accepted);
        (0..=REMEMBERED as u8).for_each(|n| acceptances.announced(hash(n), false));
        assert_eq!(acceptances.ahead.len(), REMEMBERED);
    }
}
