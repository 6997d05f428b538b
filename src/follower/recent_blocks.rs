//! Which blocks came and went last, here and at the node. No I/O, no clock.

use std::collections::VecDeque;

use bitcoin::BlockHash;

use crate::tracker::BlockId;

/// Disconnected blocks that are remembered.
const DISCONNECTED: usize = 4096;
/// Connected blocks that are remembered. Of those that are fetched, no more come over ZMQ
/// meanwhile; else they are looked for again.
const CONNECTED: usize = 100;

#[derive(Default)]
pub(super) struct RecentBlocks {
    /// The last blocks that we connected, up to the tip.
    connected: VecDeque<BlockHash>,
    /// The node said over `sequence` that it disconnected these.
    told: VecDeque<BlockHash>,
    /// It said that it connected these, which are not ours.
    announced: VecDeque<BlockHash>,
    /// The same before the last look began.
    asked: VecDeque<BlockHash>,
    /// A look made us disconnect these, or the node had announced them and did not have them any
    /// more. News of them that are late may still come.
    undone: VecDeque<BlockHash>,
}

impl RecentBlocks {
    pub(super) fn is_connected(&self, hash: &BlockHash) -> bool {
        self.connected.contains(hash)
    }

    /// The node said that it disconnected it.
    pub(super) fn is_told(&self, hash: &BlockHash) -> bool {
        self.told.contains(hash)
    }

    /// Only the node's answer to a look may bring it back.
    pub(super) fn is_gone(&self, hash: &BlockHash) -> bool {
        self.told.contains(hash) || self.undone.contains(hash)
    }

    pub(super) fn connect(&mut self, hash: BlockHash) {
        self.forget(hash);
        self.undone.retain(|gone| *gone != hash);
        remember(&mut self.connected, hash, CONNECTED);
    }

    /// After a look: from our tip down to the fork.
    pub(super) fn disconnect(&mut self, tip: BlockId, fork: BlockId) {
        let count = tip.height.saturating_sub(fork.height) as usize;
        let kept = self.connected.len().saturating_sub(count);
        let mut gone = self.connected.split_off(kept);
        if gone.is_empty() {
            // It is from before the start.
            gone.push_back(tip.hash);
        }
        for hash in gone {
            remember(&mut self.undone, hash, DISCONNECTED);
        }
    }

    /// The node said over `sequence` that it connected it, maybe long ago.
    pub(super) fn announced(&mut self, hash: BlockHash) {
        self.forget(hash);
        if !self.connected.contains(&hash) {
            remember(&mut self.announced, hash, CONNECTED);
        }
    }

    /// The node said over `sequence` that it disconnected it.
    pub(super) fn taken_back(&mut self, hash: BlockHash) {
        self.forget(hash);
        remember(&mut self.told, hash, DISCONNECTED);
    }

    /// What the node said before does not count any more.
    pub(super) fn forget_notices(&mut self) {
        for told in [&mut self.told, &mut self.announced, &mut self.asked] {
            told.clear();
        }
    }

    pub(super) fn look_begins(&mut self) {
        for hash in self.announced.drain(..) {
            remember(&mut self.asked, hash, CONNECTED);
        }
    }

    /// `above`: what the node has above the last block that it has in common with us.
    pub(super) fn looked(&mut self, above: &[BlockHash]) {
        let is_there = |hash: &BlockHash| above.contains(hash) || self.connected.contains(hash);
        let gone = self.asked.iter().filter(|hash| !is_there(hash));
        for hash in gone {
            remember(&mut self.undone, *hash, DISCONNECTED);
        }
        self.asked.retain(|hash| above.contains(hash));
    }

    fn forget(&mut self, hash: BlockHash) {
        for told in [&mut self.told, &mut self.announced, &mut self.asked] {
            told.retain(|known| *known != hash);
        }
    }
}

/// As the newest of at most so many.
pub(super) fn remember(blocks: &mut VecDeque<BlockHash>, hash: BlockHash, limit: usize) {
    if blocks.len() >= limit {
        blocks.pop_front();
    }
    blocks.push_back(hash);
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    fn id(height: u32) -> BlockId {
        BlockId {
            height,
            hash: BlockHash::from_byte_array([height as u8; 32]),
        }
    }

    #[test]
    fn what_is_gone_is_what_was_above_the_fork_until_it_is_connected_again() {
        let mut recent = RecentBlocks::default();
        let gone = |recent: &RecentBlocks| -> Vec<u32> {
            let gone = (1..10).filter(|height| recent.is_gone(&id(*height).hash));
            gone.collect()
        };
        (4..8).for_each(|height| recent.connect(id(height).hash));
        recent.disconnect(id(7), id(6));
        assert_eq!(gone(&recent), [7]);
        recent.disconnect(id(6), id(4));
        assert_eq!(gone(&recent), [5, 6, 7]);
        assert!(recent.is_connected(&id(4).hash));
        recent.announced(id(5).hash);
        recent.forget_notices();
        assert_eq!(gone(&recent), [5, 6, 7]);
        recent.connect(id(5).hash);
        assert_eq!(gone(&recent), [6, 7]);
        assert!(!recent.is_told(&id(6).hash));
    }
}
