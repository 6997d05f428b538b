//! What was found, cut into inputs that the indexer takes without holding up anybody for long.
//! Pure.

use crate::tracker::{BlockId, PastBlock};

/// Transactions of one input, if not a single block has more.
pub(super) const FULL: usize = 300;

/// One input: what the blocks from height `first` up to `upto` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MergeInput {
    pub(super) first: u32,
    pub(super) blocks: Vec<PastBlock>,
    pub(super) upto: BlockId,
}

/// All finds between `first` and `upto`, blocks ascending, cut between blocks.
pub(super) fn merge_inputs(first: u32, found: Vec<PastBlock>, upto: BlockId) -> Vec<MergeInput> {
    let mut all: Vec<MergeInput> = Vec::new();
    let (mut first, mut blocks, mut count) = (first, Vec::<PastBlock>::new(), 0);
    for block in found {
        count += block.transactions.len();
        if let Some(last) = blocks
            .last()
            .map(|last| last.block)
            .filter(|_| count > FULL)
        {
            all.push(MergeInput {
                first,
                blocks: std::mem::take(&mut blocks),
                upto: last,
            });
            (first, count) = (last.height.saturating_add(1), block.transactions.len());
        }
        blocks.push(block);
    }
    all.push(MergeInput {
        first,
        blocks,
        upto,
    });
    all
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::{BlockHash, Transaction, absolute, transaction};

    use super::*;
    use crate::tracker::PastTx;

    fn id(height: u32) -> BlockId {
        BlockId {
            height,
            hash: BlockHash::from_byte_array([height as u8; 32]),
        }
    }

    fn found(height: u32, count: u32) -> PastBlock {
        let tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: Vec::new(),
            output: Vec::new(),
        };
        let transactions = (0..count)
            .map(|position| PastTx {
                position,
                tx: tx.clone(),
                spent: Vec::new(),
            })
            .collect();
        PastBlock {
            block: id(height),
            time: 1,
            transactions,
        }
    }

    /// First height, blocks with the number of finds in them, last height.
    type Cut = (u32, Vec<(u32, usize)>, u32);

    fn cut(first: u32, all: Vec<PastBlock>, upto: u32) -> Vec<Cut> {
        let merge_inputs = merge_inputs(first, all, id(upto));
        assert!(
            merge_inputs
                .iter()
                .all(|input| input.upto == id(input.upto.height))
        );
        let shape = |input: &MergeInput| {
            input
                .blocks
                .iter()
                .map(|block| (block.block.height, block.transactions.len()))
                .collect()
        };
        merge_inputs
            .iter()
            .map(|input| (input.first, shape(input), input.upto.height))
            .collect()
    }

    #[test]
    fn few_finds_are_one_portion_and_none_too() {
        assert_eq!(
            cut(5, vec![found(7, 2), found(9, 1)], 20),
            [(5, vec![(7, 2), (9, 1)], 20)]
        );
        assert_eq!(cut(5, vec![], 20), [(5, vec![], 20)]);
    }

    #[test]
    fn a_block_that_does_not_fit_begins_the_next_portion() {
        assert_eq!(
            cut(
                5,
                vec![found(7, 200), found(8, 100), found(11, 1), found(12, 299)],
                20
            ),
            [
                (5, vec![(7, 200), (8, 100)], 8),
                (9, vec![(11, 1), (12, 299)], 20)
            ]
        );
    }

    #[test]
    fn a_block_with_very_many_finds_is_a_portion_by_itself() {
        assert_eq!(
            cut(0, vec![found(0, 900), found(1, 900), found(2, 1)], 2),
            [
                (0, vec![(0, 900)], 0),
                (1, vec![(1, 900)], 1),
                (2, vec![(2, 1)], 2)
            ]
        );
    }
}
