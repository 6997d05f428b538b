//! The blocks of a range of the chain: which ones, and fetching them a few at a time, ahead of
//! who reads them and in order.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::ScanMethod;
use crate::bitcoind::rpc::{BATCH, Prevout, Rpc};
use crate::bitcoind::{NodeError, NodeErrorKind};
use crate::tracker::{BlockId, RawBlock};

/// Blocks that are fetched at the same time.
const PARALLEL: usize = 4;
/// Bytes, and blocks, that may be fetched ahead.
const AHEAD: usize = 12 << 20;
const AHEAD_BLOCKS: usize = 64;
/// Of a block, before one was seen.
const LARGEST: usize = 4 << 20;

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

/// Blocks that are to be read, ascending. When it is dropped, no further ones are asked for.
pub(super) struct BlockFetcher {
    rpc: Rpc,
    permits: Arc<Semaphore>,
    pub(super) method: ScanMethod,
    /// Also what the blocks spend.
    prevouts: bool,
    list: VecDeque<BlockId>,
    in_flight: VecDeque<AbortOnDropHandle<Result<Fetched, NodeError>>>,
    /// When all listed blocks are read, nothing up to here is left.
    pub(super) end: BlockId,
    /// Bytes of a block with what it spends, by the last ones that were read.
    size: usize,
}

/// The node's blocks at these heights; `None` when its chain does not reach so far.
pub(super) async fn list_blocks(
    rpc: &Rpc,
    from: u32,
    stop: u32,
) -> Result<Option<Vec<BlockId>>, NodeError> {
    let last = stop.min(from.saturating_add(BATCH as u32 - 1));
    let hashes = rpc.hashes((from..=last).collect()).await?;
    Ok((from..)
        .zip(hashes)
        .map(|(height, hash)| {
            Some(BlockId {
                height,
                hash: hash?,
            })
        })
        .collect())
}

impl BlockFetcher {
    pub(super) fn new(
        rpc: Rpc,
        method: ScanMethod,
        prevouts: bool,
        list: Vec<BlockId>,
        end: BlockId,
    ) -> Self {
        let mut fetcher = Self {
            rpc,
            permits: Arc::new(Semaphore::new(PARALLEL)),
            method,
            prevouts,
            list: list.into(),
            in_flight: VecDeque::new(),
            end,
            size: LARGEST,
        };
        fetcher.fetch_ahead();
        fetcher
    }

    /// Goes on behind [`Self::end`] with further blocks.
    pub(super) fn extend(&mut self, list: Vec<BlockId>) {
        if let Some(last) = list.last() {
            self.end = *last;
        }
        self.list.extend(list);
        self.fetch_ahead();
    }

    /// Nothing is left to be asked for; what was asked for may be.
    pub(super) fn is_listed_out(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn prevouts(&self) -> bool {
        self.prevouts
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

    /// The next blocks, as many as are there; waits for one. Empty at the end. What comes before a
    /// failure is given first.
    pub(super) async fn next(&mut self) -> Result<Vec<Fetched>, NodeError> {
        let mut ready = Vec::new();
        while let Some(fetch) = self.in_flight.front_mut() {
            if !ready.is_empty() && !fetch.is_finished() {
                break;
            }
            match fetch.await.unwrap_or_else(|_| {
                Err(NodeError::new(
                    NodeErrorKind::Unreachable,
                    "the daemon stops",
                ))
            }) {
                Ok(fetched) => {
                    let spent = match &fetched.spent {
                        Some(Spent::Raw(raw)) => raw.len(),
                        _ => 0,
                    };
                    self.size = (fetched.raw.bytes().len() + spent).max(self.size / 2);
                    ready.push(fetched);
                    self.in_flight.pop_front();
                    self.fetch_ahead();
                }
                Err(error) if ready.is_empty() => return Err(error),
                Err(error) => {
                    // Told the next time.
                    if let Some(fetch) = self.in_flight.front_mut() {
                        *fetch = AbortOnDropHandle::new(tokio::spawn(async { Err(error) }));
                    }
                    break;
                }
            }
        }
        Ok(ready)
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
        let list: Vec<_> = (0..100).map(|height| BlockId { height, hash }).collect();
        let end = list[99];
        let mut fetcher = BlockFetcher::new(rpc, ScanMethod::Blocks, false, list, end);
        assert_eq!(fetcher.in_flight.len(), PARALLEL + 1);
        // They were small.
        fetcher.size = 200_000;
        fetcher.fetch_ahead();
        assert_eq!(fetcher.in_flight.len(), AHEAD / 200_000);
    }
}
