//! The open scans are worked on in rounds of a moment: those that are through are ended, and for
//! those that go next blocks are read and searched, and what they did is merged.
//!
//! What a round has found counts when the tracker has taken it, and not before: after any refusal
//! and after any failure the batch is dropped, and made anew from the store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ScanMethod;
use super::batch::{ScanBatch, members, past_block};
use super::block_fetcher::{BlockFetcher, Fetched, list_blocks};
use super::filters::Filters;
use super::inputs::{apply, close, enter};
use super::progress::{ProgressPublisher, ToldFailure};
use super::scheduler::{Choice, OpenScan, OpenScans, ScanCandidate, choose, refresh};
use crate::bitcoind::{NodeError, NodeErrorKind, Retry, rpc};
use crate::clock::now_ms;
use crate::history::{Interrupted, NodeContext, blocking};
use crate::store::StoreError;
use crate::tracker::{BlockId, Input, ScanEnd, ScanId, ScanRow, ScannedBlock};

/// Also how long we may be off the node's tip before that is told.
const ROUND: Duration = Duration::from_millis(250);
/// Transactions of one input, and at most one block more.
const FULL: usize = 300;
/// Scans that are opened one after the other are read for together.
const GATHER: Duration = Duration::from_millis(100);
/// Between two looks at the store without being told: a wake-up may be dropped when very many come
/// at once.
const LOOK: Duration = Duration::from_secs(10);
/// The same while a baseline is to come, at least; and after a refusal.
const SOON: Duration = Duration::from_millis(200);
/// After something that only time mends; doubled up to the second one while it goes on.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After something that a person has to mend.
const LONG_PAUSE: Duration = Duration::from_secs(30);
/// Scripts of scans that are ended in one go.
const ENDS: u32 = 1000;

pub(super) struct Runner {
    context: NodeContext,
    wake: Arc<Notify>,
    progress: ProgressPublisher,
    /// Of fingerprints; random.
    key: [u8; 16],
    filters: Filters,
    scans: OpenScans,
    /// Of the scans that are being worked on.
    batch: Option<ScanBatch>,
    /// When the store is to be read again.
    look_at: Instant,
    /// Failures in a row, and what was logged of them.
    failures: u32,
    told: ToldFailure,
}

impl Runner {
    pub(super) fn new(
        context: NodeContext,
        wake: Arc<Notify>,
        progress: ProgressPublisher,
    ) -> Self {
        let mut key = [0; 16];
        getrandom::fill(&mut key).expect("the system has random numbers");
        Self {
            filters: Filters::new(context.rpc.clone()),
            context,
            wake,
            progress,
            key,
            scans: OpenScans::new(),
            batch: None,
            look_at: Instant::now(),
            failures: 0,
            told: ToldFailure::default(),
        }
    }

    pub(super) async fn serve(mut self) -> Result<(), StoreError> {
        loop {
            match self.round().await {
                Ok(()) => {}
                Err(Interrupted::Over) => return Ok(()),
                Err(Interrupted::Store(error)) => {
                    tracing::error!("cannot read the history scans: {error}");
                    return Err(error);
                }
                Err(Interrupted::Moved) => {
                    (self.batch, self.look_at) = (None, Instant::now());
                    tokio::time::sleep(SOON).await;
                }
                Err(Interrupted::Node(error)) => {
                    let concerned = self.concerned(&error);
                    self.failed(&error, |scan| concerned.contains(scan));
                }
                Err(Interrupted::Away(error)) => self.failed(&error, |_| true),
            }
        }
    }

    async fn round(&mut self) -> Result<(), Interrupted> {
        let there = self
            .context
            .wait_for(|position| position.at_node_tip && position.tip.is_some());
        let tip = match tokio::time::timeout(ROUND, there).await {
            Ok(position) => position?.tip,
            Err(_) => None,
        };
        self.progress.set_at_tip(&self.scans, tip.is_some());
        if self.is_told() {
            self.look().await?;
        }
        let Some(tip) = tip else { return Ok(()) };
        if self.grow().await? {
            return Ok(());
        }
        if self.end_scans(tip).await? {
            return Ok(());
        }
        let Some(choice) = self.choose(tip) else {
            return self.idle().await;
        };
        let running = choice.scans.iter().copied().collect();
        self.progress.set_running(&self.scans, running);
        self.scan(&choice, tip).await?;
        (self.failures, self.told) = (0, ToldFailure::default());
        // The node answers again: those whose pause is over wait for their turn only.
        let now = Instant::now();
        for open in self.scans.values_mut() {
            open.held.take_if(|held| held.until <= now);
        }
        Ok(())
    }

    /// Whether the store is to be read: scans were opened or ended, or it is time.
    fn is_told(&mut self) -> bool {
        if self.wake.notified().now_or_never().is_some() {
            self.look_at = Instant::now();
        }
        self.look_at <= Instant::now()
    }

    async fn look(&mut self) -> Result<(), Interrupted> {
        let (reader, known) = (self.context.reader.clone(), std::mem::take(&mut self.scans));
        let began = Instant::now();
        self.scans = blocking(move || Ok(refresh(&reader, known)?)).await?;
        let waits = |open: &OpenScan| open.pending || open.missing > 0;
        let pause = match self.scans.values().any(waits) {
            true => SOON.max(began.elapsed() * 10),
            false => LOOK,
        };
        self.look_at = Instant::now() + pause;
        self.progress.publish(&self.scans);
        Ok(())
    }

    fn choose(&self, tip: BlockId) -> Option<Choice> {
        let now = Instant::now();
        let free = self.scans.iter().filter(|(_, open)| open.is_free(now));
        let candidates = free.map(|(scan, open)| ScanCandidate {
            scan: *scan,
            next: open.row.next,
            end: open.end().min(tip.height.saturating_add(1)),
            scripts: open.row.scripts,
        });
        choose(&candidates.collect::<Vec<_>>())
    }

    /// Waits for scans, or for the time when one can go on.
    async fn idle(&mut self) -> Result<(), Interrupted> {
        if self.scans.is_empty() {
            self.batch = None;
        }
        self.progress.set_running(&self.scans, BTreeSet::new());
        let held = self.scans.values().filter_map(|open| open.held.as_ref());
        let until = held
            .map(|held| held.until)
            .filter(|until| *until > Instant::now())
            .fold(self.look_at, Instant::min);
        tokio::select! {
            () = self.wake.notified() => {
                tokio::time::sleep(GATHER).await;
                self.look_at = Instant::now();
            }
            () = tokio::time::sleep_until(until) => {}
        }
        Ok(())
    }

    /// Scripts enter the scans of their descriptors, as far as their baselines are merged; whether
    /// any did. A scan that is through and waits for others waits for their baseline.
    async fn grow(&mut self) -> Result<bool, Interrupted> {
        let now = Instant::now();
        let grows = self.scans.iter();
        let grows = grows.filter(|(_, open)| open.is_free(now) && open.has_to_grow());
        let scans: Vec<_> = grows.map(|(scan, _)| *scan).collect();
        let mut has_grown = false;
        for scan in scans {
            has_grown |= enter(&self.context, scan).await?;
            if let Some(open) = self.scans.get_mut(&scan)
                && open.row.next >= open.end()
            {
                open.pending = true;
            }
        }
        if has_grown {
            self.look_at = Instant::now();
        }
        Ok(has_grown)
    }

    /// Ends scans that have nothing left to do, as many as go at once; false: there are none.
    async fn end_scans(&mut self, tip: BlockId) -> Result<bool, Interrupted> {
        let (now, mut scripts) = (Instant::now(), 0_u32);
        let done = self
            .scans
            .iter()
            .filter(|(_, open)| open.is_free(now) && open.row.next >= open.end());
        let done = done.take_while(|(_, open)| {
            let fits = scripts < ENDS;
            scripts = scripts.saturating_add(open.row.scripts.max(1));
            fits
        });
        let mut ends = Vec::new();
        for (scan, open) in done {
            let end = ScanEnd::Complete(self.last_block(open, tip).await?);
            ends.push((*scan, open.row.next, end));
        }
        let closing =
            |(scan, next, end): &(ScanId, u32, ScanEnd)| close(&self.context, *scan, *next, *end);
        let ended = join_all(ends.iter().map(closing)).await;
        for (scan, ..) in &ends {
            // One that cannot end yet is read anew: it is then known what it waits for.
            self.scans.remove(scan);
        }
        let ended = ended.into_iter().collect::<Result<Vec<bool>, _>>()?;
        let count = ended.into_iter().filter(|has_ended| *has_ended).count();
        if count > 0 {
            tracing::info!("{count} history scans have ended");
        }
        if !ends.is_empty() {
            self.progress.publish(&self.scans);
        }
        Ok(!ends.is_empty())
    }

    /// The block up to which a scan that is through knows everything.
    async fn last_block(&self, open: &OpenScan, tip: BlockId) -> Result<BlockId, Interrupted> {
        let row = &open.row;
        let scanned = row.next.checked_sub(1).filter(|_| row.next > row.first());
        let height = row
            .to
            .or(scanned)
            .map_or(tip.height, |height| height.min(tip.height));
        if height == tip.height {
            return Ok(tip);
        }
        if let Some(row) = self.context.reader.snapshot().block(&height)? {
            let hash = row.hash;
            return Ok(BlockId { height, hash });
        }
        let listed = list_blocks(&self.context.rpc, height, height).await;
        let listed = listed.map_err(Interrupted::Away)?;
        listed.map(|range| range.end).ok_or(Interrupted::Moved)
    }

    /// Of the scans that are being worked on, those that a failure keeps from going on. It may be
    /// only about what blocks spend, which those from height 0 need not be told; if it is not, they
    /// meet it alone.
    fn concerned(&self, error: &NodeError) -> BTreeSet<ScanId> {
        let mut concerned = self.progress.running().clone();
        if error.retry() == Retry::Persistent {
            let above_0 = |scan: &ScanId| {
                let open = self.scans.get(scan);
                let is_late =
                    |open: &OpenScan| open.descriptor.as_ref().is_some_and(|it| it.late.is_some());
                open.is_some_and(|open| open.row.first() > 0 || is_late(open))
            };
            if concerned.iter().any(above_0) {
                concerned.retain(above_0);
            }
        }
        concerned
    }

    /// The node, or what it offers, keeps scans from going on.
    fn failed(&mut self, error: &NodeError, concerns: impl Fn(&ScanId) -> bool) {
        let text = self.told.tell(error);
        let pause = match error.retry() {
            Retry::Persistent => LONG_PAUSE,
            Retry::Transient => (PAUSE * 2_u32.pow(self.failures.min(8))).min(LONGEST_PAUSE),
        };
        self.failures = self.failures.saturating_add(1);
        for (_, open) in self.scans.iter_mut().filter(|(scan, _)| concerns(scan)) {
            open.hold(pause, text.clone());
        }
        self.progress.set_running(&self.scans, BTreeSet::new());
    }

    /// Works on the chosen scans for a moment.
    async fn scan(&mut self, choice: &Choice, tip: BlockId) -> Result<(), Interrupted> {
        let rows: Vec<_> = choice
            .scans
            .iter()
            .filter_map(|scan| Some((*scan, self.scans.get(scan)?.row.clone())))
            .collect();
        let same = self
            .batch
            .take()
            .filter(|batch| batch.next == choice.next && batch.members == members(&rows));
        let mut batch = match same {
            Some(batch) => batch,
            None if self.skip_pruned(&choice.scans).await? => return Ok(()),
            None => self.load(rows, choice.next).await?,
        };
        batch
            .fetcher
            .take_if(|fetcher| fetcher.end.height > choice.stop);
        match self.advance(batch, choice.stop, tip).await {
            Ok(batch) => {
                self.batch = Some(batch);
                Ok(())
            }
            // The node threw a block away before we came to it.
            Err(Interrupted::Node(error)) if rpc::is_pruned(&error) => {
                match self.skip_pruned(&choice.scans).await? {
                    true => Ok(()),
                    false => Err(Interrupted::Node(NodeError::new(
                        NodeErrorKind::Busy,
                        "bitcoind is throwing away blocks that a scan came to",
                    ))),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn load(
        &self,
        rows: Vec<(ScanId, ScanRow)>,
        next: u32,
    ) -> Result<ScanBatch, Interrupted> {
        let (reader, key) = (self.context.reader.clone(), self.key);
        blocking(move || Ok(ScanBatch::load(&reader, &rows, next, &key)?)).await
    }

    /// Tells scans at the same height where the node's blocks begin, if that is above them; whether
    /// it is.
    async fn skip_pruned(&mut self, scans: &[ScanId]) -> Result<bool, Interrupted> {
        let node = self.context.rpc.blockchain().await;
        let node = node.map_err(Interrupted::Away)?;
        let next = scans
            .first()
            .and_then(|scan| self.scans.get(scan))
            .map_or(0, |open| open.row.next);
        let Some(horizon) = node
            .pruneheight
            .filter(|height| node.pruned && *height > next)
        else {
            return Ok(false);
        };
        tracing::info!(
            "bitcoind has no blocks below height {horizon} any more: {} history scans begin there",
            scans.len()
        );
        let input = Input::SkipPruned {
            scans: scans.to_vec(),
            horizon,
            now: now_ms(),
        };
        apply(&self.context, input).await?;
        self.look_at = Instant::now();
        Ok(true)
    }

    /// Reads, searches and merges blocks for a moment, up to height `stop` at most. A failure of
    /// the node takes nothing away from what came before it.
    async fn advance(
        &mut self,
        mut batch: ScanBatch,
        stop: u32,
        tip: BlockId,
    ) -> Result<ScanBatch, Interrupted> {
        let (until, first) = (Instant::now() + ROUND, batch.next);
        let (mut found, mut count) = (Vec::new(), 0);
        let failure = loop {
            match self.fetch(&mut batch, stop, tip).await {
                Ok(Some(fetched)) => {
                    let (searched, fetched, hits) = batch.search(fetched).await?;
                    batch = searched;
                    if !hits.is_empty() {
                        count += hits.len();
                        found.push(past_block(&self.context.rpc, fetched, hits).await?);
                    }
                }
                Ok(None) => {}
                Err(Interrupted::Node(error)) => break Some(error),
                Err(other) => return Err(other),
            }
            if batch.next > stop || count >= FULL || Instant::now() >= until || self.is_told() {
                break None;
            }
        };
        if let Some(upto) = batch.below.filter(|below| below.height >= first) {
            self.merge(&batch, first, found, upto).await?;
        }
        match failure {
            None => Ok(batch),
            Some(error) => Err(error.into()),
        }
    }

    /// The next block that may matter, up to height `stop`; `None` at the end of a range.
    async fn fetch(
        &mut self,
        batch: &mut ScanBatch,
        stop: u32,
        tip: BlockId,
    ) -> Result<Option<Fetched>, Interrupted> {
        let (rpc, next) = (&self.context.rpc, batch.next);
        let fetcher = match &mut batch.fetcher {
            Some(fetcher) => fetcher,
            unplanned => {
                let named = match &batch.spks {
                    Some(spks) => self.filters.range(spks, next, stop, tip.height).await?,
                    None => None,
                };
                let (method, range) = match named {
                    Some(range) => (ScanMethod::Filters, Some(range)),
                    None => (ScanMethod::Blocks, list_blocks(rpc, next, stop).await?),
                };
                let range = range.ok_or(Interrupted::Moved)?;
                self.progress.set_method(&self.scans, method);
                unplanned.insert(BlockFetcher::new(rpc.clone(), batch.needs_prevouts, range))
            }
        };
        let fetched = fetcher.next().await?;
        if fetched.is_none() {
            let end = fetcher.end;
            batch.advance(end);
            batch.fetcher = None;
        }
        Ok(fetched)
    }

    /// What the blocks from height `first` up to `upto` did.
    async fn merge(
        &mut self,
        batch: &ScanBatch,
        first: u32,
        blocks: Vec<ScannedBlock>,
        upto: BlockId,
    ) -> Result<(), Interrupted> {
        let scans: Vec<_> = batch.members.iter().map(|(scan, _)| *scan).collect();
        let now = now_ms();
        let input = Input::ScanBlocks {
            scans: scans.clone(),
            scripts: batch.scripts.clone(),
            first,
            blocks,
            upto,
            now,
        };
        apply(&self.context, input).await?;
        for scan in &scans {
            if let Some(open) = self.scans.get_mut(scan) {
                (open.row.next, open.row.updated, open.held) = (batch.next, now, None);
            }
        }
        self.progress.advance(&self.scans, batch.next - first);
        Ok(())
    }
}
