//! The blocks of a range of the chain: which ones, and fetching them a few at a time, ahead of
//! who reads them and in order.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::bitcoind::rpc::{BATCH, Prevout, Rpc};
use crate::bitcoind::{NodeError, cut_short};
use crate::tracker::{BlockId, RawBlock};

/// Blocks that are fetched at the same time.
const PARALLEL: usize = 4;
/// Bytes, and blocks, that may be fetched ahead.
const AHEAD: usize = 12 << 20;
const AHEAD_BLOCKS: usize = 64;
/// Of a block, before one was seen.
const LARGEST: usize = 4 << 20;

/// Blocks to read, ascending. When they are read, nothing up to `end` is left.
pub(super) struct BlockRange {
    pub(super) blocks: Vec<BlockId>,
    pub(super) end: BlockId,
}

/// What one block spends.
pub(super) enum Spent {
    Raw(Bytes),
    Told(Vec<Prevout>),
}

pub(super) struct Fetched {
    pub(super) block: BlockId,
    pub(super) raw: RawBlock,
    pub(super) spent: Option<Spent>,
}

impl Fetched {
    /// Whether it builds on `below`, if they are neighbours. It does not where the node's chain
    /// changed while its hashes were read.
    pub(super) fn follows(&self, below: Option<BlockId>) -> bool {
        let neighbour =
            below.filter(|below| below.height.checked_add(1) == Some(self.block.height));
        neighbour.is_none_or(|below| below.hash == self.raw.header().prev_blockhash)
    }
}

/// Fetches the blocks of a range. When it is dropped, no further ones are asked for.
pub(super) struct BlockFetcher {
    rpc: Rpc,
    permits: Arc<Semaphore>,
    /// Also what the blocks spend.
    prevouts: bool,
    list: VecDeque<BlockId>,
    in_flight: VecDeque<AbortOnDropHandle<Result<Fetched, NodeError>>>,
    /// Of the range.
    pub(super) end: BlockId,
    /// Bytes of a block with what it spends, by the last ones that were read.
    size: usize,
}

/// All blocks of the node's chain at these heights, or the first of them; `None` when it does not
/// reach so far.
pub(super) async fn list_blocks(
    rpc: &Rpc,
    from: u32,
    stop: u32,
) -> Result<Option<BlockRange>, NodeError> {
    let last = stop.min(from.saturating_add(BATCH as u32 - 1));
    let hashes = rpc.hashes((from..=last).collect()).await?;
    let blocks = (from..)
        .zip(hashes)
        .map(|(height, hash)| hash.map(|hash| BlockId { height, hash }));
    let Some(blocks) = blocks.collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    Ok(blocks.last().copied().map(|end| BlockRange { blocks, end }))
}

impl BlockFetcher {
    pub(super) fn new(rpc: Rpc, prevouts: bool, range: BlockRange) -> Self {
        let mut fetcher = Self {
            rpc,
            permits: Arc::new(Semaphore::new(PARALLEL)),
            prevouts,
            list: range.blocks.into(),
            in_flight: VecDeque::new(),
            end: range.end,
            size: LARGEST,
        };
        fetcher.fetch_ahead();
        fetcher
    }

    fn fetch_ahead(&mut self) {
        let ahead = (AHEAD / self.size.max(1)).clamp(PARALLEL + 1, AHEAD_BLOCKS);
        while self.in_flight.len() < ahead
            && let Some(block) = self.list.pop_front()
        {
            let (rpc, permits, prevouts) = (self.rpc.clone(), self.permits.clone(), self.prevouts);
            let fetch = tokio::spawn(async move {
                let _permit = permits.acquire_owned().await;
                fetch(&rpc, block, prevouts).await
            });
            self.in_flight.push_back(AbortOnDropHandle::new(fetch));
        }
    }

    /// The next block; `None` at the end. After an error it is of no use.
    pub(super) async fn next(&mut self) -> Result<Option<Fetched>, NodeError> {
        let Some(fetch) = self.in_flight.pop_front() else {
            return Ok(None);
        };
        let fetched = fetch.await.map_err(|_| cut_short())??;
        let spent = match &fetched.spent {
            Some(Spent::Raw(raw)) => raw.len(),
            _ => 0,
        };
        self.size = (fetched.raw.bytes().len() + spent).max(self.size / 2);
        self.fetch_ahead();
        Ok(Some(fetched))
    }
}

async fn fetch(rpc: &Rpc, block: BlockId, prevouts: bool) -> Result<Fetched, NodeError> {
    let raw = rpc.block(block.hash).await?;
    let spent = match prevouts {
        false => None,
        true => Some(match rpc.raw_spent_outputs(block.hash).await? {
            Some(raw) => Spent::Raw(raw),
            None => Spent::Told(rpc.prevouts(block.hash).await?),
        }),
    };
    Ok(Fetched { block, raw, spent })
}

#[cfg(test)]
mod tests {
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;

    use super::*;
    use crate::bitcoind::Credentials;
    use crate::bitcoind::url::NodeUrl;

    #[tokio::test]
    async fn before_a_block_was_seen_few_are_asked_for() {
        let url = NodeUrl::parse("127.0.0.1:1").expect("an address");
        let rpc = Rpc::new(url, Credentials::Cookie("/nowhere".into()));
        let hash = BlockHash::all_zeros();
        let blocks: Vec<_> = (0..100).map(|height| BlockId { height, hash }).collect();
        let end = blocks[99];
        let mut fetcher = BlockFetcher::new(rpc, false, BlockRange { blocks, end });
        assert_eq!(fetcher.in_flight.len(), PARALLEL + 1);
        // They were small.
        fetcher.size = 200_000;
        fetcher.fetch_ahead();
        assert_eq!(fetcher.in_flight.len(), AHEAD / 200_000);
    }
}
