//! The blocks of a range of the chain: which ones, and fetching them a few at a time, ahead of
//! who reads them and in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bitcoin::block::Header;
use bitcoin::consensus::encode;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::ScanMethod;
use super::block_matcher::MalformedBlock;
use crate::bitcoind::rpc::{BATCH, Prevout, Rpc};
use crate::bitcoind::{NodeError, NodeErrorKind};
use crate::tracker::BlockId;

/// Blocks that are fetched at the same time.
pub(super) const PARALLEL: usize = 4;
/// Bytes, and blocks, that may be fetched ahead.
const AHEAD: usize = 12 << 20;
const AHEAD_BLOCKS: usize = 64;

/// What one block spends.
pub(super) enum Spent {
    Raw(Vec<u8>),
    Told(Vec<Prevout>),
}

pub(super) struct Fetched {
    pub(super) block: BlockId,
    pub(super) raw: Vec<u8>,
    pub(super) spent: Option<Spent>,
}

/// Blocks that are to be read, ascending. After it is dropped no further block is asked for.
pub(super) struct BlockFetcher {
    rpc: Rpc,
    permits: Arc<Semaphore>,
    pub(super) method: ScanMethod,
    /// Also what the blocks spend.
    prevouts: bool,
    list: VecDeque<BlockId>,
    in_flight: VecDeque<(BlockId, JoinHandle<Result<Fetched, NodeError>>)>,
    /// When all listed blocks are read, nothing up to here is left.
    pub(super) end: BlockId,
    /// Of the block that was read last.
    size: usize,
    dropped: Arc<AtomicBool>,
    /// Room for blocks, from those that were searched.
    buffers: Vec<Vec<u8>>,
}

impl Drop for BlockFetcher {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
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
        permits: Arc<Semaphore>,
        method: ScanMethod,
        prevouts: bool,
        list: Vec<BlockId>,
        end: BlockId,
    ) -> Self {
        let (list, in_flight, dropped, buffers) =
            (list.into(), VecDeque::new(), Arc::default(), Vec::new());
        let mut fetcher = Self {
            rpc,
            permits,
            method,
            prevouts,
            list,
            in_flight,
            end,
            size: 0,
            dropped,
            buffers,
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

    /// Takes back what a searched block was in.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        if self.buffers.len() < AHEAD_BLOCKS && buffer.len() * self.buffers.len() < AHEAD {
            self.buffers.push(buffer);
        }
    }

    fn fetch_ahead(&mut self) {
        let ahead = (AHEAD / self.size.max(1)).clamp(PARALLEL + 1, AHEAD_BLOCKS);
        while self.in_flight.len() < ahead
            && let Some(block) = self.list.pop_front()
        {
            let buffer = self.buffers.pop().unwrap_or_default();
            let (rpc, permits, prevouts, dropped) = (
                self.rpc.clone(),
                self.permits.clone(),
                self.prevouts,
                self.dropped.clone(),
            );
            let fetch = async move {
                // Held to the end of the call, also when nobody waits for it any more.
                let _permit = permits.acquire_owned().await;
                match dropped.load(Ordering::Relaxed) {
                    false => fetch(&rpc, block, prevouts, buffer).await,
                    true => Err(NodeError::transient(
                        NodeErrorKind::Unreachable,
                        "nobody wants this block any more".into(),
                    )),
                }
            };
            self.in_flight.push_back((block, tokio::spawn(fetch)));
        }
    }

    /// The next blocks, as many as are there; waits for one. Empty at the end. What comes before a
    /// failure is given first.
    pub(super) async fn next(&mut self) -> Result<Vec<Fetched>, NodeError> {
        let mut ready = Vec::new();
        while let Some((_, fetch)) = self.in_flight.front_mut() {
            if !ready.is_empty() && !fetch.is_finished() {
                break;
            }
            match fetch.await.unwrap_or_else(|_| {
                Err(NodeError::transient(
                    NodeErrorKind::Unreachable,
                    "the daemon stops".into(),
                ))
            }) {
                Ok(fetched) => {
                    self.size = fetched.raw.len();
                    ready.push(fetched);
                    self.in_flight.pop_front();
                    self.fetch_ahead();
                }
                Err(error) if ready.is_empty() => return Err(error),
                Err(error) => {
                    // Told the next time.
                    if let Some((_, fetch)) = self.in_flight.front_mut() {
                        *fetch = tokio::spawn(async move { Err(error) });
                    }
                    break;
                }
            }
        }
        Ok(ready)
    }
}

async fn fetch(
    rpc: &Rpc,
    block: BlockId,
    prevouts: bool,
    buffer: Vec<u8>,
) -> Result<Fetched, NodeError> {
    let raw = rpc.raw_block(block.hash, buffer).await?;
    let spent = match prevouts {
        false => None,
        true => Some(match rpc.raw_spent_outputs(block.hash).await? {
            Some(raw) => Spent::Raw(raw),
            None => Spent::Told(rpc.prevouts(block.hash).await?),
        }),
    };
    Ok(Fetched { block, raw, spent })
}

/// Header of a block that is the one that was asked for and, if they are neighbours, builds on
/// `below`. `Ok(None)`: it does not, because the node's chain changed while its hashes were read.
pub(super) fn checked_header(
    fetched: &Fetched,
    below: Option<BlockId>,
) -> Result<Option<Header>, MalformedBlock> {
    let bytes = fetched
        .raw
        .get(..80)
        .ok_or(MalformedBlock("a block without a header"))?;
    let header: Header =
        encode::deserialize(bytes).map_err(|_| MalformedBlock("a block without a header"))?;
    if header.block_hash() != fetched.block.hash {
        return Err(MalformedBlock("another block than it was asked for"));
    }
    let neighbour = below.filter(|below| below.height.checked_add(1) == Some(fetched.block.height));
    Ok(Some(header)
        .filter(|header| neighbour.is_none_or(|below| below.hash == header.prev_blockhash)))
}
