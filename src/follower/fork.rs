//! Where the node's chain and ours part, and what to do about it: the search and the decision. No
//! I/O.
//!
//! The node's tip alone says little: it may be ahead, on another branch (also of the same or a
//! lower height), rolled back by `invalidateblock`, or low because the node is rebuilding its chain
//! state. Only the first three are followed.

use std::time::Duration;

use bitcoin::BlockHash;

use super::times::{HEADERS_AHEAD, PRIVATE_INITIAL, ROLLBACK};
use crate::bitcoind::rpc::Blockchain;
use crate::remedy::Remedy;
use crate::tracker::BlockId;

/// The blocks that an empty store starts with, ascending: the first height, then hash and time of
/// each.
pub type StartWindow = (u32, Vec<(BlockHash, u32)>);

/// How the node's chain relates to ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// We have no block yet.
    Empty,
    Same,
    /// Our tip is in the node's chain, which goes on with these.
    Ahead(Vec<BlockHash>),
    /// The chains part above `fork`; the node's goes on with `next`, or ends there.
    Parted {
        fork: BlockId,
        next: Vec<BlockHash>,
    },
    /// They part below the first block that we know.
    Unrelated,
}

/// One look at the node.
#[derive(Debug, Clone)]
pub struct TipComparison {
    pub node: Blockchain,
    pub relation: Relation,
}

impl TipComparison {
    /// The node's blocks above the last common one; `None` if these are not all.
    pub(super) fn above(&self) -> Option<&[BlockHash]> {
        let above: &[BlockHash] = match &self.relation {
            Relation::Same => &[],
            Relation::Ahead(next) | Relation::Parted { next, .. } => next,
            Relation::Empty | Relation::Unrelated => return None,
        };
        let is_all = |last: &BlockHash| *last == self.node.bestblockhash;
        Some(above).filter(|above| above.last().is_none_or(is_all))
    }
}

/// What to do after a look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ChainAction {
    Nothing,
    Start,
    Connect(Vec<BlockHash>),
    Disconnect {
        to: BlockId,
        next: Vec<BlockHash>,
    },
    /// Look again soon; the text says what is waited for.
    Wait(String),
}

/// What speaks for a node that is lower than we are, or that only lost blocks, being right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RollbackEvidence {
    /// The node said over `sequence` that it disconnected our tip.
    pub(super) told: bool,
    /// How long looks have said the same, at least.
    pub(super) stood: Duration,
}

/// The decision, from hashes and from what the node says of itself.
pub(super) fn decide(
    ours: Option<BlockId>,
    look: &TipComparison,
    evidence: RollbackEvidence,
) -> ChainAction {
    let step = follow(ours, look, evidence);
    let below = match &step {
        ChainAction::Connect(_) => ours.map(|tip| tip.height),
        ChainAction::Disconnect { to, next } if !next.is_empty() => Some(to.height),
        _ => None,
    };
    match (below, look.node.pruneheight) {
        // Before anything is undone: what cannot be done whole is not begun.
        (Some(below), Some(kept)) if below.saturating_add(1) < kept => ChainAction::Wait(pruned()),
        _ => step,
    }
}

fn follow(ours: Option<BlockId>, look: &TipComparison, evidence: RollbackEvidence) -> ChainAction {
    let node = &look.node;
    match &look.relation {
        Relation::Same => ChainAction::Nothing,
        Relation::Empty if node.initialblockdownload && !node.is_private() => {
            ChainAction::Wait("bitcoind is in its initial download".into())
        }
        Relation::Empty => ChainAction::Start,
        Relation::Ahead(hashes) => ChainAction::Connect(hashes.clone()),
        Relation::Parted { fork, next } => match confirmation_wait(ours, node, next.is_empty()) {
            Some(needed) if evidence.told || evidence.stood >= needed => ChainAction::Disconnect {
                to: *fork,
                next: next.clone(),
            },
            Some(needed) if needed <= ROLLBACK => {
                ChainAction::Wait("bitcoind took back blocks".into())
            }
            _ => ChainAction::Wait(format!(
                "bitcoind is at block {} of {}, below our tip: it seems to be rebuilding its chain",
                node.blocks,
                node.headers.max(node.blocks)
            )),
        },
        Relation::Unrelated if confirmation_wait(ours, node, false) == Some(Duration::ZERO) => {
            ChainAction::Wait(format!(
                "bitcoind's chain parts from ours below the first block that satwatch knows: {}",
                Remedy::BeginAnew
            ))
        }
        Relation::Unrelated => {
            ChainAction::Wait("bitcoind seems to be rebuilding its chain".into())
        }
    }
}

/// How long a parted chain must stand still before it is believed. A node that rebuilds its chain
/// state (`-reindex`) passes our chain from below, maybe along branches that lost: not a reorg.
/// `None`: wait for the node.
fn confirmation_wait(
    ours: Option<BlockId>,
    node: &Blockchain,
    rolled_back: bool,
) -> Option<Duration> {
    let lower = ours.is_some_and(|tip| node.blocks < tip.height);
    match (lower, node.initialblockdownload) {
        (true, true) if !node.is_private() => None,
        // A header that is ahead may belong to a block that is being fetched, or to one that was
        // declared invalid.
        (true, _) if node.blocks < node.headers => Some(HEADERS_AHEAD),
        (true, true) => Some(PRIVATE_INITIAL),
        _ if rolled_back => Some(ROLLBACK),
        _ => Some(Duration::ZERO),
    }
}

/// A block that the node has thrown away cannot be followed.
pub(super) fn pruned() -> String {
    format!(
        "bitcoind has pruned blocks that satwatch has not seen: {}",
        Remedy::BeginAnew
    )
}

/// What a height says in the search for the fork point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    /// Both chains have the same block, or we do not know ours (it is below our first).
    Common,
    Different,
}

/// Search for the last common height of two chains: downwards in growing steps, then by halves. A
/// few dozen heights for any depth, and one for a node that is simply ahead.
#[derive(Debug)]
pub(super) struct ForkSearch {
    /// Greatest height known to be common; `None` while there is none.
    pub(super) common: Option<u32>,
    /// Smallest height known to be different.
    different: u32,
    step: u32,
}

impl ForkSearch {
    /// `high`: the lower one of both tips.
    pub(super) fn new(high: u32) -> Self {
        Self {
            common: None,
            different: high.saturating_add(1),
            step: 1,
        }
    }

    /// The next height to compare; `None` when it is decided.
    pub(super) fn next(&self) -> Option<u32> {
        match self.common {
            Some(common) if self.different - common <= 1 => None,
            Some(common) => Some(common + (self.different - common) / 2),
            None if self.different == 0 => None,
            None => Some(self.different.saturating_sub(self.step)),
        }
    }

    pub(super) fn tell(&mut self, height: u32, compared: Compared) {
        match compared {
            Compared::Common => self.common = Some(height),
            Compared::Different => {
                self.different = height;
                self.step = self.step.saturating_mul(2);
            }
        }
    }
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

    fn look_at(blocks: u32, headers: u32, initial: bool, relation: Relation) -> TipComparison {
        let node = Blockchain {
            chain: "main".into(),
            blocks,
            headers,
            bestblockhash: id(blocks).hash,
            time: None,
            mediantime: None,
            verificationprogress: None,
            initialblockdownload: initial,
            signet_challenge: None,
            pruned: false,
            pruneheight: None,
        };
        TipComparison { node, relation }
    }

    /// Finds the fork of two chains whose blocks differ from `parts` on, with our rows starting at
    /// `first`; and counts the looks.
    fn search(high: u32, parts: u32, first: u32) -> (Option<u32>, u32) {
        let mut search = ForkSearch::new(high);
        let mut looks = 0;
        while let Some(height) = search.next() {
            looks += 1;
            assert!(looks < 100 && height <= high);
            search.tell(
                height,
                if height >= first && height >= parts {
                    Compared::Different
                } else {
                    Compared::Common
                },
            );
        }
        (search.common, looks)
    }

    #[test]
    fn the_fork_is_found_at_any_depth_with_few_looks() {
        for high in [0, 1, 2, 9, 100, 900_000] {
            for parts in (1..=high + 1).rev().take(40).chain([1, high / 2 + 1]) {
                let (fork, looks) = search(high, parts, 0);
                assert_eq!(fork, Some(parts - 1), "high {high}, parts at {parts}");
                assert!(looks <= 50);
            }
        }
        assert_eq!(
            search(500, 501, 0).1,
            1,
            "a node that is simply ahead costs one look"
        );
    }

    #[test]
    fn chains_without_a_common_block_are_told_apart() {
        assert_eq!(search(300, 0, 0).0, None);
        // Our rows begin at 200 and all differ: the search ends below them.
        assert_eq!(search(300, 0, 200).0, Some(199));
    }

    #[test]
    fn a_node_ahead_is_followed_even_while_it_syncs() {
        let next = vec![id(11).hash];
        let step = decide(
            Some(id(10)),
            &look_at(11, 90, true, Relation::Ahead(next.clone())),
            RollbackEvidence::default(),
        );
        assert_eq!(step, ChainAction::Connect(next));
    }

    #[test]
    fn another_branch_is_followed_at_once_whatever_its_height() {
        for blocks in [8, 10, 12] {
            let next = vec![id(99).hash];
            let parted = Relation::Parted {
                fork: id(7),
                next: next.clone(),
            };
            let step = decide(
                Some(id(10)),
                &look_at(blocks, blocks, false, parted),
                RollbackEvidence::default(),
            );
            assert_eq!(step, ChainAction::Disconnect { to: id(7), next });
        }
    }

    #[test]
    fn a_node_that_rebuilds_is_waited_for() {
        for (headers, initial) in [(900, true), (900, false), (240, true)] {
            for next in [vec![], vec![id(99).hash]] {
                let parted = Relation::Parted {
                    fork: id(200),
                    next,
                };
                let evidence = RollbackEvidence {
                    told: false,
                    stood: Duration::from_secs(3),
                };
                let step = decide(
                    Some(id(250)),
                    &look_at(240, headers, initial, parted),
                    evidence,
                );
                assert!(matches!(step, ChainAction::Wait(_)), "{step:?}");
            }
        }
    }

    #[test]
    fn blocks_that_the_node_has_pruned_are_neither_fetched_nor_undone_for() {
        let next = vec![id(8).hash, id(9).hash];
        let steps = |kept, relation: Relation| {
            let mut look = look_at(12, 12, false, relation);
            (look.node.pruned, look.node.pruneheight) = (true, Some(kept));
            decide(Some(id(7)), &look, RollbackEvidence::default())
        };
        let parted = || Relation::Parted {
            fork: id(7),
            next: next.clone(),
        };
        assert_eq!(
            steps(9, Relation::Ahead(next.clone())),
            ChainAction::Wait(pruned())
        );
        assert_eq!(steps(9, parted()), ChainAction::Wait(pruned()));
        assert_eq!(
            steps(8, Relation::Ahead(next.clone())),
            ChainAction::Connect(next.clone())
        );
        assert_eq!(
            steps(8, parted()),
            ChainAction::Disconnect {
                to: id(7),
                next: next.clone()
            }
        );
        assert_eq!(steps(12, Relation::Same), ChainAction::Nothing);
    }

    #[test]
    fn a_rollback_needs_a_witness_or_a_second_look() {
        let parted = || Relation::Parted {
            fork: id(7),
            next: vec![],
        };
        let back = ChainAction::Disconnect {
            to: id(7),
            next: vec![],
        };
        let decide = |told, seconds| {
            decide(
                Some(id(10)),
                &look_at(7, 7, false, parted()),
                RollbackEvidence {
                    told,
                    stood: Duration::from_secs(seconds),
                },
            )
        };
        assert!(matches!(decide(false, 0), ChainAction::Wait(_)));
        assert_eq!(decide(false, 1), back);
        assert_eq!(decide(true, 0), back);
    }

    #[test]
    fn headers_of_an_invalid_branch_do_not_hold_a_rollback_for_ever() {
        let parted = || Relation::Parted {
            fork: id(7),
            next: vec![],
        };
        let decide = |seconds| {
            decide(
                Some(id(10)),
                &look_at(7, 10, false, parted()),
                RollbackEvidence {
                    told: false,
                    stood: Duration::from_secs(seconds),
                },
            )
        };
        assert!(matches!(decide(30), ChainAction::Wait(_)));
        assert!(matches!(decide(61), ChainAction::Disconnect { .. }));
    }

    #[test]
    fn an_empty_store_waits_for_the_initial_download_except_on_regtest() {
        assert!(matches!(
            decide(
                None,
                &look_at(7, 90, true, Relation::Empty),
                RollbackEvidence::default()
            ),
            ChainAction::Wait(_)
        ));
        let mut regtest = look_at(0, 0, true, Relation::Empty);
        regtest.node.chain = "regtest".into();
        assert_eq!(
            decide(None, &regtest, RollbackEvidence::default()),
            ChainAction::Start
        );
    }
}
