//! One round of about a second for the scans of a batch: blocks are read and searched, and what
//! they did is merged.
//!
//! What a round has found counts when the tracker has taken it, and not before: after any refusal,
//! and after anything that does not fit, the batch is dropped, and made anew from the store.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bitcoin::OutPoint;
use bitcoin::block::Header;
use tokio::time::Instant;

use super::ScanMethod;
use super::batch::ScanBatch;
use super::block_fetcher::{BlockFetcher, Fetched, Spent, list_blocks};
use super::block_matcher::{Hit, MalformedBlock};
use super::filters::DEEP;
use super::merge_inputs::{FULL, merge_inputs};
use super::runner::{ActiveBatch, Runner};
use super::scheduler::Choice;
use crate::bitcoind::rpc::{self, Prevout};
use crate::bitcoind::{NodeError, NodeErrorKind};
use crate::clock::now_ms;
use crate::history::{Interrupted, blocking};
use crate::indexer::InputRefused;
use crate::tracker::input::FoundOutput;
use crate::tracker::{BlockId, Input, PastBlock, PastTx};

const ROUND: Duration = Duration::from_secs(1);
/// Over about so many seconds the rate is smoothed.
const SMOOTH: f64 = 5.0;

/// A block that was searched.
struct Searched {
    block: BlockId,
    header: Header,
    hits: Vec<Hit>,
    told: Option<Vec<Prevout>>,
}

impl From<MalformedBlock> for Interrupted {
    fn from(MalformedBlock(what): MalformedBlock) -> Self {
        Self::Node(NodeError::new(
            NodeErrorKind::Shape,
            format!("bitcoind answered with {what}: is its REST or RPC port another program's?"),
        ))
    }
}

impl Runner {
    /// Works on the chosen scans for a while.
    pub(super) async fn scan(&mut self, choice: &Choice, tip: BlockId) -> Result<(), Interrupted> {
        let mut active = self.assemble(choice).await?;
        if active.fetcher.is_none() && self.skips_pruned(&active.batch).await? {
            return Ok(());
        }
        let began = Instant::now();
        let first = active.batch.next;
        let (found, failure) = self.gather(&mut active, choice.stop, tip).await?;
        if let Some(upto) = active.batch.below.filter(|below| below.height >= first) {
            self.merge(&mut active, first, found, upto).await?;
            let (done, took) = (
                f64::from(active.batch.next - first),
                began.elapsed().as_secs_f64().max(1e-3),
            );
            let weight = 1.0 - (-took / SMOOTH).exp();
            active.rate = Some(
                active
                    .rate
                    .map_or(done / took, |rate| rate + (done / took - rate) * weight),
            );
        }
        if let Some(error) = failure {
            active.fetcher = None;
            self.active = Some(active);
            if rpc::is_pruned(&error) {
                return self.skip(choice).await;
            }
            return Err(Interrupted::Node(error));
        }
        self.active = Some(active);
        Ok(())
    }

    /// What is in memory for these scans, made or brought up to date.
    async fn assemble(&mut self, choice: &Choice) -> Result<ActiveBatch, Interrupted> {
        let kept = self
            .active
            .take()
            .filter(|active| active.batch.next == choice.next);
        let key = self.key;
        let mut active = kept.unwrap_or_else(|| ActiveBatch {
            batch: ScanBatch::new(choice.next, &key),
            fetcher: None,
            rate: None,
        });
        let rows: Vec<_> = choice
            .scans
            .iter()
            .filter_map(|scan| self.scans.get(scan).map(|open| (*scan, open.row.clone())))
            .collect();
        let reader = self.context.reader.clone();
        let rate = active.rate;
        let mut batch = active.batch;
        let before: BTreeSet<_> = batch.scans().into_iter().collect();
        active.batch = blocking(move || {
            if !batch.set_members(&reader, &rows)? {
                batch = ScanBatch::new(batch.next, &key);
                batch.set_members(&reader, &rows)?;
            }
            Ok(batch)
        })
        .await?;
        active.rate = rate;
        let prevouts = active.batch.needs_prevouts();
        // Filters named the blocks of those who went along then.
        let joined = active
            .batch
            .scans()
            .iter()
            .any(|scan| !before.contains(scan));
        let serves = |fetcher: &BlockFetcher| {
            fetcher.prevouts() == prevouts
                && fetcher.end.height <= choice.stop
                && !(joined && fetcher.method == ScanMethod::Filters)
        };
        active.fetcher = active.fetcher.filter(serves);
        Ok(active)
    }

    /// Before the first block is read: whether the node still has it. Otherwise the scans are told
    /// where its blocks begin.
    async fn skips_pruned(&mut self, batch: &ScanBatch) -> Result<bool, Interrupted> {
        let node = self
            .context
            .rpc
            .blockchain()
            .await
            .map_err(Interrupted::Away)?;
        match node
            .pruneheight
            .filter(|height| node.pruned && *height > batch.next)
        {
            Some(horizon) => self.skip_to(batch.scans(), horizon).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// The node threw a block away before we came to it.
    async fn skip(&mut self, choice: &Choice) -> Result<(), Interrupted> {
        let node = self
            .context
            .rpc
            .blockchain()
            .await
            .map_err(Interrupted::Away)?;
        let next = self
            .active
            .as_ref()
            .map_or(choice.next, |active| active.batch.next);
        match node.pruneheight.filter(|height| *height > next) {
            Some(horizon) => self.skip_to(choice.scans.clone(), horizon).await,
            None => Err(Interrupted::Node(NodeError::new(
                NodeErrorKind::Busy,
                "bitcoind is throwing away blocks that a scan came to",
            ))),
        }
    }

    async fn skip_to(
        &mut self,
        scans: Vec<crate::tracker::ScanId>,
        horizon: u32,
    ) -> Result<(), Interrupted> {
        tracing::info!(
            "bitcoind has no blocks below height {horizon} any more: {} history scans begin there",
            scans.len()
        );
        self.apply(Input::SkipPast {
            scans,
            horizon,
            now: now_ms(),
        })
        .await?;
        self.active = None;
        self.look_at = Instant::now();
        Ok(())
    }

    /// Reads and searches blocks for about a second, up to height `stop` at most. The batch says
    /// how far it came. A failure of the node takes nothing away from what came before it.
    async fn gather(
        &mut self,
        active: &mut ActiveBatch,
        stop: u32,
        tip: BlockId,
    ) -> Result<(Vec<PastBlock>, Option<NodeError>), Interrupted> {
        let (until, mut found, mut count) = (Instant::now() + ROUND, Vec::new(), 0);
        let mut next = active.batch.next;
        loop {
            if let Err(error) = self.plan(active, next, stop, tip).await {
                return match error {
                    Interrupted::Node(error) => Ok((found, Some(error))),
                    other => Err(other),
                };
            }
            let Some(fetcher) = &mut active.fetcher else {
                return Err(Interrupted::Moved);
            };
            let fetched = match fetcher.next().await {
                Ok(fetched) => fetched,
                Err(error) => return Ok((found, Some(error))),
            };
            if fetched.is_empty() {
                // All that the range names is read.
                active.batch.below = Some(fetcher.end);
                active.fetcher = None;
            }
            for searched in search(&mut active.batch, fetched).await? {
                active.batch.below = Some(searched.block);
                count += searched.hits.len();
                if !searched.hits.is_empty() {
                    found.push(self.known(searched).await?);
                }
            }
            next = active
                .batch
                .below
                .map_or(next, |below| below.height.saturating_add(1));
            self.progress.advance(&self.scans, next, active.rate);
            if next > stop || count >= FULL || Instant::now() >= until || self.is_told() {
                return Ok((found, None));
            }
        }
    }

    /// Sees to it that blocks from height `next` on are on their way.
    async fn plan(
        &mut self,
        active: &mut ActiveBatch,
        next: u32,
        stop: u32,
        tip: BlockId,
    ) -> Result<(), Interrupted> {
        let prevouts = active.batch.needs_prevouts();
        let deep = stop.min(tip.height.saturating_sub(DEEP));
        let filtered = self.filters.may_help() && active.batch.is_filtered();
        if let Some(fetcher) = &mut active.fetcher {
            let from = fetcher.end.height.saturating_add(1);
            let goes_on =
                fetcher.method == ScanMethod::Blocks && from <= stop && !(filtered && from <= deep);
            if goes_on && fetcher.is_listed_out() {
                fetcher.extend(
                    list_blocks(&self.context.rpc, from, stop)
                        .await?
                        .ok_or(Interrupted::Moved)?,
                );
            }
            if fetcher.end.height >= next {
                return Ok(());
            }
        }
        active.fetcher = None;
        let range = match filtered && next <= deep && tip.height >= DEEP {
            true => {
                self.filters
                    .range(active.batch.descriptors(), next, deep)
                    .await?
            }
            false => None,
        };
        let (method, list, end) = match range {
            Some(range) => (ScanMethod::Filters, range.blocks, range.end),
            None => {
                let list = list_blocks(&self.context.rpc, next, stop)
                    .await?
                    .ok_or(Interrupted::Moved)?;
                let end = *list.last().ok_or(Interrupted::Moved)?;
                (ScanMethod::Blocks, list, end)
            }
        };
        active.fetcher = Some(BlockFetcher::new(
            self.context.rpc.clone(),
            method,
            prevouts,
            list,
            end,
        ));
        self.progress.set_method(&self.scans, method, active.rate);
        Ok(())
    }

    /// The block for the tracker. What only the node knows of outputs that it spends is asked for.
    async fn known(&self, searched: Searched) -> Result<PastBlock, Interrupted> {
        let Searched {
            block,
            header,
            hits,
            told,
            ..
        } = searched;
        let mut prevouts = HashMap::new();
        if hits.iter().any(|hit| !hit.unknown_prevouts.is_empty()) {
            let told = match told {
                Some(told) => told,
                None => self.context.rpc.prevouts(block.hash).await?,
            };
            prevouts.extend(told.into_iter().map(|prevout| (prevout.outpoint, prevout)));
        }
        let spent = |outpoint: OutPoint| {
            let Prevout {
                spk,
                value,
                height,
                coinbase,
                ..
            } = prevouts.get(&outpoint)?.clone();
            Some(FoundOutput {
                outpoint,
                spk,
                value,
                height,
                coinbase,
            })
        };
        let transactions = hits.into_iter().map(
            |Hit {
                 position,
                 tx,
                 unknown_prevouts,
             }| {
                let spent = unknown_prevouts
                    .into_iter()
                    .map(spent)
                    .collect::<Option<Vec<_>>>();
                Ok(PastTx {
                    position,
                    tx,
                    spent: spent.ok_or(MalformedBlock("a block without an input that it has"))?,
                })
            },
        );
        let transactions = transactions.collect::<Result<_, MalformedBlock>>()?;
        Ok(PastBlock {
            block,
            time: header.time,
            transactions,
        })
    }

    async fn merge(
        &mut self,
        active: &mut ActiveBatch,
        first: u32,
        found: Vec<PastBlock>,
        upto: BlockId,
    ) -> Result<(), Interrupted> {
        let scans = active.batch.scans();
        for input in merge_inputs(first, found, upto) {
            let (scripts, now) = (active.batch.scripts(), now_ms());
            let next = input.upto.height.saturating_add(1);
            let (first, blocks, upto) = (input.first, input.blocks, input.upto);
            self.apply(Input::Past {
                scans: scans.clone(),
                scripts,
                first,
                blocks,
                upto,
                now,
            })
            .await?;
            active.batch.next = next;
            for scan in &scans {
                if let Some(open) = self.scans.get_mut(scan) {
                    (open.row.next, open.row.updated, open.held) = (next, now, None);
                }
            }
        }
        Ok(())
    }

    /// Anything but a fatal refusal means that the store is ahead of what we know.
    pub(super) async fn apply(&self, input: Input) -> Result<(), Interrupted> {
        match self.context.indexer.apply(input).await {
            Ok(_) => Ok(()),
            Err(InputRefused::Stopped(_)) => Err(Interrupted::Over),
            Err(InputRefused::Apply(error)) => {
                tracing::debug!("a history scan is read anew: {error}");
                Err(Interrupted::Moved)
            }
        }
    }
}

/// Searches blocks in order, beside the runtime.
async fn search(
    batch: &mut ScanBatch,
    fetched: Vec<Fetched>,
) -> Result<Vec<Searched>, Interrupted> {
    let mut below = batch.below;
    let Some(mut matcher) = batch.matcher.take() else {
        return Err(Interrupted::Moved);
    };
    let (matcher, searched) = blocking(move || {
        let mut all = Vec::with_capacity(fetched.len());
        for fetched in fetched {
            if !fetched.follows(below) {
                return Err(Interrupted::Moved);
            }
            let spends = match &fetched.spent {
                None => None,
                Some(Spent::Raw(raw)) => Some(matcher.spends(raw)?),
                Some(Spent::Told(told)) => {
                    Some(matcher.spends_of(told.iter().map(|prevout| prevout.spk.as_script())))
                }
            };
            let hits = matcher.scan(fetched.raw.bytes(), spends.as_ref())?;
            let told = fetched.spent.and_then(|spent| {
                if let Spent::Told(told) = spent {
                    Some(told)
                } else {
                    None
                }
            });
            below = Some(fetched.block);
            all.push(Searched {
                block: fetched.block,
                header: *fetched.raw.header(),
                hits,
                told,
            });
        }
        Ok((matcher, all))
    })
    .await?;
    batch.matcher = Some(matcher);
    Ok(searched)
}
