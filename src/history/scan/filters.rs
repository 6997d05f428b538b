//! Compact block filters (BIP 158): the node says which blocks may matter, so that only those are
//! read.
//!
//! What filters say is believed only for blocks that are well below the tip, when the index is
//! synced and has come so far, when the node says that it looked at all of the range, and when the
//! range ended in the same block before and after. In all other cases, and while somebody else
//! looks through filters, blocks are read.

use std::time::Duration;

use bitcoin::ScriptBuf;
use serde_json::json;
use tokio::time::Instant;

use super::block_fetcher::BlockRange;
use crate::bitcoind::rpc::Rpc;
use crate::bitcoind::{NodeError, NodeErrorKind, Retry};
use crate::tracker::BlockId;

/// Blocks that are this far below the tip are not disconnected within a call.
const DEEP: u32 = 100;
/// Blocks of one call: what takes a second or two.
const SPANS: std::ops::RangeInclusive<u32> = 100..=50_000;
const FIRST_SPAN: u32 = 1000;
const QUICK: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(2);
/// Until a node that did not answer is asked again; reading blocks meanwhile loses nothing but
/// speed.
const LATER: Duration = Duration::from_secs(10);

pub(super) struct Filters {
    rpc: Rpc,
    span: u32,
    not_before: Option<Instant>,
}

impl Filters {
    pub(super) fn new(rpc: Rpc) -> Self {
        Self {
            rpc,
            span: FIRST_SPAN,
            not_before: None,
        }
    }

    /// The blocks that may matter to the scripts from height `from` on, at most up to height `stop`
    /// of a chain with tip height `tip`. `None`: read blocks.
    pub(super) async fn range(
        &mut self,
        spks: &[ScriptBuf],
        from: u32,
        stop: u32,
        tip: u32,
    ) -> Result<Option<BlockRange>, NodeError> {
        let deep = tip
            .checked_sub(DEEP)
            .map(|deep| deep.min(stop))
            .filter(|deep| *deep >= from);
        let Some(stop) = deep.filter(|_| self.not_before.is_none_or(|at| at <= Instant::now()))
        else {
            return Ok(None);
        };
        let why = match self.look(spks, from, stop).await {
            Ok(Some(range)) => return Ok(Some(range)),
            Ok(None) => "the node's block filters are of no help now".to_owned(),
            Err(error)
                if error.retry() == Retry::Transient && error.kind != NodeErrorKind::TimedOut =>
            {
                return Err(error);
            }
            // Unknown, forbidden, never answered, or somebody else's call runs (-8).
            Err(error) => error.message,
        };
        tracing::debug!("history scans read blocks: {why}");
        self.not_before = Some(Instant::now() + LATER);
        Ok(None)
    }

    async fn look(
        &mut self,
        spks: &[ScriptBuf],
        from: u32,
        stop: u32,
    ) -> Result<Option<BlockRange>, NodeError> {
        let index = self
            .rpc
            .filter_index()
            .await?
            .filter(|index| index.synced && index.best_block_height >= from);
        let Some(index) = index else { return Ok(None) };
        let last = stop
            .min(index.best_block_height)
            .min(from.saturating_add(self.span - 1));
        let Some(hash) = self.hash(last).await? else {
            return Ok(None);
        };
        let descriptors = spks
            .iter()
            .map(|spk| json!(format!("raw({})", spk.to_hex_string())))
            .collect();
        let began = Instant::now();
        let scan = self.rpc.scan_blocks(descriptors, from, last).await?;
        if !scan.completed || self.hash(last).await? != Some(hash) {
            return Ok(None);
        }
        self.span = next_span(self.span, began.elapsed());
        let headers = self.rpc.headers(scan.relevant_blocks).await?;
        let blocks = headers.into_iter().map(|header| {
            header.map(|header| BlockId {
                height: header.height,
                hash: header.hash,
            })
        });
        let Some(blocks) = blocks.collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        Ok(fits(&blocks, from, last).then_some(BlockRange {
            blocks,
            end: BlockId { height: last, hash },
        }))
    }

    async fn hash(&self, height: u32) -> Result<Option<bitcoin::BlockHash>, NodeError> {
        Ok(self.rpc.hashes(vec![height]).await?.pop().flatten())
    }
}

fn fits(blocks: &[BlockId], from: u32, last: u32) -> bool {
    blocks.is_sorted_by(|a, b| a.height < b.height)
        && blocks
            .iter()
            .all(|block| (from..=last).contains(&block.height))
}

fn next_span(span: u32, took: Duration) -> u32 {
    let span = match took {
        took if took < QUICK => span.saturating_mul(2),
        took if took > SLOW => span / 2,
        _ => span,
    };
    span.clamp(*SPANS.start(), *SPANS.end())
}

#[cfg(test)]
mod tests {
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;

    use super::*;

    #[test]
    fn a_call_settles_between_one_second_and_two_whatever_the_disk() {
        for per_block in [1e-5, 1e-3, 2e-2] {
            let mut span = FIRST_SPAN;
            for _ in 0..20 {
                span = next_span(span, Duration::from_secs_f64(f64::from(span) * per_block));
            }
            let took = f64::from(span) * per_block;
            assert!(
                (1.0..=2.0).contains(&took) || SPANS.end() == &span || SPANS.start() == &span,
                "{per_block}: {span}"
            );
        }
        assert_eq!(next_span(50_000, Duration::ZERO), 50_000);
    }

    #[test]
    fn blocks_out_of_order_or_out_of_the_range_are_not_believed() {
        let blocks = |heights: &[u32]| -> Vec<BlockId> {
            heights
                .iter()
                .map(|height| BlockId {
                    height: *height,
                    hash: BlockHash::all_zeros(),
                })
                .collect()
        };
        assert!(fits(&blocks(&[]), 3, 9) && fits(&blocks(&[3, 5, 9]), 3, 9));
        for wrong in [&[2, 5][..], &[5, 10], &[5, 4], &[5, 5]] {
            assert!(!fits(&blocks(wrong), 3, 9), "{wrong:?}");
        }
    }
}
