//! About a second of work for the scans of a group: blocks are read, searched, and what they did is
//! merged.
//!
//! What a stretch has found counts when the tracker has taken it, and not before: after any
//! refusal, and after anything that does not fit, the group is dropped, and made anew from the
//! store.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bitcoin::OutPoint;
use bitcoin::block::Header;
use tokio::time::Instant;

use super::Method;
use super::choose::Choice;
use super::filters::DEEP;
use super::finder::{Hit, Malformed};
use super::group::Group;
use super::portions::{FULL, portions};
use super::runner::{Again, Runner, Work, blocking};
use super::walk::{Fetched, Spent, Walk, checked_header, list_blocks};
use crate::bitcoind::rpc::{self, Prevout};
use crate::bitcoind::{Cause, NodeError};
use crate::clock::now_ms;
use crate::indexer::Refused;
use crate::tracker::input::FoundOutput;
use crate::tracker::{BlockId, Input, PastBlock, PastTx};

const STRETCH: Duration = Duration::from_secs(1);
/// Over about so many seconds the rate is smoothed.
const SMOOTH: f64 = 5.0;

/// A block that was searched.
struct Searched {
    block: BlockId,
    header: Header,
    hits: Vec<Hit>,
    raw: Vec<u8>,
    told: Option<Vec<Prevout>>,
}

impl From<Malformed> for Again {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Node(NodeError::persistent(
            Cause::Shape,
            format!("bitcoind answered with {what}: is its REST or RPC port another program's?"),
        ))
    }
}

impl Runner {
    /// Works on the chosen scans for a while.
    pub(super) async fn go(&mut self, choice: &Choice, tip: BlockId) -> Result<(), Again> {
        let mut work = self.assemble(choice).await?;
        if work.walk.is_none() && self.skips_pruned(&work.group).await? {
            return Ok(());
        }
        let began = Instant::now();
        let first = work.group.next;
        let (found, failure) = self.gather(&mut work, choice.stop, tip).await?;
        if let Some(upto) = work.group.below.filter(|below| below.height >= first) {
            self.merge(&mut work, first, found, upto).await?;
            let (done, took) = (
                f64::from(work.group.next - first),
                began.elapsed().as_secs_f64().max(1e-3),
            );
            let weight = 1.0 - (-took / SMOOTH).exp();
            work.rate = Some(
                work.rate
                    .map_or(done / took, |rate| rate + (done / took - rate) * weight),
            );
        }
        if let Some(error) = failure {
            work.walk = None;
            self.work = Some(work);
            if rpc::is_pruned(&error) {
                return self.skip(choice).await;
            }
            return Err(Again::Node(error));
        }
        self.work = Some(work);
        Ok(())
    }

    /// What is in memory for these scans, made or brought up to date.
    async fn assemble(&mut self, choice: &Choice) -> Result<Work, Again> {
        let kept = self
            .work
            .take()
            .filter(|work| work.group.next == choice.next);
        let key = self.key;
        let mut work = kept.unwrap_or_else(|| Work {
            group: Group::new(choice.next, &key),
            walk: None,
            rate: None,
        });
        let rows: Vec<_> = choice
            .scans
            .iter()
            .filter_map(|scan| self.jobs.get(scan).map(|job| (*scan, job.row.clone())))
            .collect();
        let reader = self.reader.clone();
        let rate = work.rate;
        let mut group = work.group;
        let before: BTreeSet<_> = group.scans().into_iter().collect();
        work.group = blocking(move || {
            if !group.set_members(&reader, &rows)? {
                group = Group::new(group.next, &key);
                group.set_members(&reader, &rows)?;
            }
            Ok(group)
        })
        .await?;
        work.rate = rate;
        let prevouts = work.group.needs_prevouts();
        // Filters named the blocks of those who went along then.
        let joined = work.group.scans().iter().any(|scan| !before.contains(scan));
        let serves = |walk: &Walk| {
            walk.prevouts() == prevouts
                && walk.end.height <= choice.stop
                && !(joined && walk.method == Method::Filters)
        };
        work.walk = work.walk.filter(serves);
        Ok(work)
    }

    /// Before the first block is read: whether the node still has it. Otherwise the scans are told
    /// where its blocks begin.
    async fn skips_pruned(&mut self, group: &Group) -> Result<bool, Again> {
        self.rpc.forget_offers();
        let node = self.rpc.blockchain().await.map_err(Again::Away)?;
        match node
            .pruneheight
            .filter(|height| node.pruned && *height > group.next)
        {
            Some(horizon) => self.skip_to(group.scans(), horizon).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// The node threw a block away before we came to it.
    async fn skip(&mut self, choice: &Choice) -> Result<(), Again> {
        let node = self.rpc.blockchain().await.map_err(Again::Away)?;
        let next = self
            .work
            .as_ref()
            .map_or(choice.next, |work| work.group.next);
        match node.pruneheight.filter(|height| *height > next) {
            Some(horizon) => self.skip_to(choice.scans.clone(), horizon).await,
            None => Err(Again::Node(NodeError::transient(
                Cause::Busy,
                "bitcoind is throwing away blocks that a scan came to".into(),
            ))),
        }
    }

    async fn skip_to(
        &mut self,
        scans: Vec<crate::tracker::ScanId>,
        horizon: u32,
    ) -> Result<(), Again> {
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
        self.work = None;
        self.look_at = Instant::now();
        Ok(())
    }

    /// Reads and searches blocks for about a second, up to height `stop` at most. The group says
    /// how far it came. A failure of the node takes nothing away from what came before it.
    async fn gather(
        &mut self,
        work: &mut Work,
        stop: u32,
        tip: BlockId,
    ) -> Result<(Vec<PastBlock>, Option<NodeError>), Again> {
        let (until, mut found, mut count) = (Instant::now() + STRETCH, Vec::new(), 0);
        let mut next = work.group.next;
        loop {
            if let Err(error) = self.plan(work, next, stop, tip).await {
                return match error {
                    Again::Node(error) => Ok((found, Some(error))),
                    other => Err(other),
                };
            }
            let Some(walk) = &mut work.walk else {
                return Err(Again::Moved);
            };
            let fetched = match walk.next().await {
                Ok(fetched) => fetched,
                Err(error) => return Ok((found, Some(error))),
            };
            if fetched.is_empty() {
                // All that the range names is read.
                work.group.below = Some(walk.end);
                work.walk = None;
            }
            for mut searched in search(&mut work.group, fetched).await? {
                work.group.below = Some(searched.block);
                count += searched.hits.len();
                if let Some(walk) = &mut work.walk {
                    walk.take_room(std::mem::take(&mut searched.raw));
                }
                if !searched.hits.is_empty() {
                    found.push(self.known(searched).await?);
                }
            }
            next = work
                .group
                .below
                .map_or(next, |below| below.height.saturating_add(1));
            self.going(work, next);
            if next > stop || count >= FULL || Instant::now() >= until || self.is_told() {
                return Ok((found, None));
            }
        }
    }

    /// Sees to it that blocks from height `next` on are on their way.
    async fn plan(
        &mut self,
        work: &mut Work,
        next: u32,
        stop: u32,
        tip: BlockId,
    ) -> Result<(), Again> {
        let prevouts = work.group.needs_prevouts();
        let deep = stop.min(tip.height.saturating_sub(DEEP));
        let filtered = self.filters.may_help() && work.group.is_filtered();
        if let Some(walk) = &mut work.walk {
            let from = walk.end.height.saturating_add(1);
            let goes_on =
                walk.method == Method::Blocks && from <= stop && !(filtered && from <= deep);
            if goes_on && walk.is_listed_out() {
                walk.extend(
                    list_blocks(&self.rpc, from, stop)
                        .await?
                        .ok_or(Again::Moved)?,
                );
            }
            if walk.end.height >= next {
                return Ok(());
            }
        }
        work.walk = None;
        let range = match filtered && next <= deep && tip.height >= DEEP {
            true => {
                self.filters
                    .range(work.group.descriptors(), next, deep)
                    .await?
            }
            false => None,
        };
        let (method, list, end) = match range {
            Some(range) => (Method::Filters, range.blocks, range.end),
            None => {
                let list = list_blocks(&self.rpc, next, stop)
                    .await?
                    .ok_or(Again::Moved)?;
                let end = *list.last().ok_or(Again::Moved)?;
                (Method::Blocks, list, end)
            }
        };
        work.walk = Some(Walk::new(
            self.rpc.clone(),
            self.lanes.clone(),
            method,
            prevouts,
            list,
            end,
        ));
        self.method(work, method);
        Ok(())
    }

    /// The block for the tracker. What only the node knows of outputs that it spends is asked for.
    async fn known(&self, searched: Searched) -> Result<PastBlock, Again> {
        let Searched {
            block,
            header,
            hits,
            told,
            ..
        } = searched;
        let mut prevouts = HashMap::new();
        if hits.iter().any(|hit| !hit.strangers.is_empty()) {
            let told = match told {
                Some(told) => told,
                None => self.rpc.prevouts(block.hash).await?,
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
                 strangers,
             }| {
                let spent = strangers.into_iter().map(spent).collect::<Option<Vec<_>>>();
                Ok(PastTx {
                    position,
                    tx,
                    spent: spent.ok_or(Malformed("a block without an input that it has"))?,
                })
            },
        );
        let transactions = transactions.collect::<Result<_, Malformed>>()?;
        Ok(PastBlock {
            block,
            time: header.time,
            transactions,
        })
    }

    async fn merge(
        &mut self,
        work: &mut Work,
        first: u32,
        found: Vec<PastBlock>,
        upto: BlockId,
    ) -> Result<(), Again> {
        let scans = work.group.scans();
        for portion in portions(first, found, upto) {
            let (scripts, now) = (work.group.scripts(), now_ms());
            let next = portion.upto.height.saturating_add(1);
            let (first, blocks, upto) = (portion.first, portion.blocks, portion.upto);
            self.apply(Input::Past {
                scans: scans.clone(),
                scripts,
                first,
                blocks,
                upto,
                now,
            })
            .await?;
            work.group.next = next;
            for scan in &scans {
                if let Some(job) = self.jobs.get_mut(scan) {
                    (job.row.next, job.row.updated, job.held) = (next, now, None);
                }
            }
        }
        Ok(())
    }

    /// Anything but a fatal refusal means that the store is ahead of what we know.
    pub(super) async fn apply(&self, input: Input) -> Result<(), Again> {
        match self.indexer.apply(input).await {
            Ok(_) => Ok(()),
            Err(Refused::Stopped(_)) => Err(Again::Over),
            Err(Refused::Apply(error)) => {
                tracing::debug!("a history scan is read anew: {error}");
                Err(Again::Moved)
            }
        }
    }
}

/// Searches blocks in order, beside the runtime.
async fn search(group: &mut Group, fetched: Vec<Fetched>) -> Result<Vec<Searched>, Again> {
    let mut below = group.below;
    let Some(mut finder) = group.finder.take() else {
        return Err(Again::Moved);
    };
    let (finder, searched) = blocking(move || {
        let mut all = Vec::with_capacity(fetched.len());
        for fetched in fetched {
            let Some(header) = checked_header(&fetched, below)? else {
                return Err(Again::Moved);
            };
            let spends = match &fetched.spent {
                None => None,
                Some(Spent::Raw(raw)) => Some(finder.spends(raw)?),
                Some(Spent::Told(told)) => {
                    Some(finder.spends_of(told.iter().map(|prevout| prevout.spk.as_script())))
                }
            };
            let hits = finder.scan(&fetched.raw, spends.as_ref())?;
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
                header,
                hits,
                raw: fetched.raw,
                told,
            });
        }
        Ok((finder, all))
    })
    .await?;
    group.finder = Some(finder);
    Ok(searched)
}
