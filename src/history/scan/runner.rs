//! Which scans go on when, what they wait for, and how they end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Scanning;
use super::batch::ScanBatch;
use super::block_fetcher::BlockFetcher;
use super::filters::Filters;
use super::open_scans::{OpenScan, OpenScans, refresh, survey_again};
use super::progress::{PACE, ProgressPublisher};
use super::scheduler::{Choice, ScanCandidate, choose};
use crate::bitcoind::{NodeError, Retry};
use crate::clock::now_ms;
use crate::history::{Interrupted, NodeContext, blocking};
use crate::indexer::InputRefused;
use crate::store::StoreError;
use crate::tracker::{ApplyError, BlockId, Input, ScanEnd, ScanId};

/// Scans that are opened one after the other are read for together.
const GATHER: Duration = Duration::from_millis(100);
/// Between two looks at the store without being told: a wake-up may be dropped when very many come
/// at once.
const LOOK: Duration = Duration::from_secs(10);
/// Between two looks while a baseline is to come, at least.
const SOON: Duration = Duration::from_millis(200);
/// After something that only time mends; doubled up to the second one while it goes on.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After something that a person has to mend.
const LONG_PAUSE: Duration = Duration::from_secs(30);
/// Scripts of scans that are ended in one go.
const ENDS: u32 = 1000;

/// What is in memory for the scans that are being worked on.
pub(super) struct ActiveBatch {
    pub(super) batch: ScanBatch,
    pub(super) fetcher: Option<BlockFetcher>,
    /// Blocks a second.
    pub(super) rate: Option<f64>,
}

pub(super) struct Runner {
    pub(super) context: NodeContext,
    wake: Arc<Notify>,
    pub(super) progress: ProgressPublisher,
    /// Of fingerprints; random.
    pub(super) key: [u8; 16],
    pub(super) filters: Filters,
    pub(super) scans: OpenScans,
    pub(super) active: Option<ActiveBatch>,
    /// When the store is to be read again.
    pub(super) look_at: Instant,
    /// Failures in a row, and what was logged of them.
    failures: u32,
    told: Option<String>,
}

impl Runner {
    pub(super) fn new(scanning: Scanning) -> Self {
        let Scanning {
            context,
            wake,
            status,
            progress,
        } = scanning;
        let mut key = [0; 16];
        getrandom::fill(&mut key).expect("the system has random numbers");
        let (now, filters) = (Instant::now(), Filters::new(context.rpc.clone()));
        Self {
            context,
            wake,
            progress: ProgressPublisher::new(progress, status),
            key,
            filters,
            scans: OpenScans::new(),
            active: None,
            look_at: now,
            failures: 0,
            told: None,
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
                    (self.active, self.look_at) = (None, Instant::now());
                    tokio::time::sleep(SOON).await;
                }
                Err(Interrupted::Node(error)) => {
                    let held = self.concerned(&error);
                    self.failed(&error, |scan| held.contains(scan));
                }
                Err(Interrupted::Away(error)) => self.failed(&error, |_| true),
            }
        }
    }

    async fn round(&mut self) -> Result<(), Interrupted> {
        let tip = self.tip().await?;
        if self.is_told() || self.look_at <= Instant::now() {
            self.look().await?;
        }
        self.end_scans(tip).await?;
        let Some(choice) = self.choose(tip) else {
            return self.idle().await;
        };
        self.start(&choice);
        self.scan(&choice, tip).await?;
        (self.failures, self.told) = (0, None);
        // The node answers again: those whose pause is over wait for their turn only.
        let now = Instant::now();
        for open in self.scans.values_mut() {
            open.held.take_if(|held| held.until <= now);
        }
        Ok(())
    }

    /// Our tip, once it is the node's.
    async fn tip(&mut self) -> Result<BlockId, Interrupted> {
        loop {
            let there = tokio::time::timeout(
                PACE,
                self.context
                    .position
                    .wait_for(|position| position.at_node_tip),
            )
            .await;
            match there.map(|position| position.map(|position| position.tip)) {
                Ok(Ok(Some(tip))) => {
                    self.progress.set_at_tip(&self.scans, true);
                    return Ok(tip);
                }
                Ok(Ok(None)) => tokio::time::sleep(SOON).await,
                Ok(Err(_)) => return Err(Interrupted::Over),
                Err(_) => {
                    self.progress.set_at_tip(&self.scans, false);
                    if self.is_told() || self.look_at <= Instant::now() {
                        self.look().await?;
                    }
                }
            }
        }
    }

    /// Whether scans were opened or ended; then the store is to be read.
    pub(super) fn is_told(&mut self) -> bool {
        if self.wake.notified().now_or_never().is_some() {
            self.look_at = Instant::now();
        }
        self.look_at <= Instant::now()
    }

    async fn look(&mut self) -> Result<(), Interrupted> {
        let (reader, mut scans) = (self.context.reader.clone(), std::mem::take(&mut self.scans));
        let began = Instant::now();
        self.scans = blocking(move || {
            refresh(&reader, &mut scans)?;
            Ok(scans)
        })
        .await?;
        let waits = self.scans.values().any(|open| open.pending.is_some());
        self.look_at = Instant::now()
            + if waits {
                SOON.max(began.elapsed() * 10)
            } else {
                LOOK
            };
        self.progress.publish(&self.scans);
        Ok(())
    }

    fn choose(&self, tip: BlockId) -> Option<Choice> {
        let now = Instant::now();
        let candidates =
            self.scans
                .iter()
                .filter(|(_, open)| open.is_free(now))
                .map(|(scan, open)| ScanCandidate {
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
            self.active = None;
        }
        self.progress.stop(&self.scans);
        let holds = self
            .scans
            .values()
            .filter_map(|open| open.held.as_ref().map(|held| held.until));
        let until = holds
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

    /// Ends the scans that have nothing left to do.
    async fn end_scans(&mut self, tip: BlockId) -> Result<(), Interrupted> {
        let now = Instant::now();
        let done: Vec<_> = self
            .scans
            .iter()
            .filter(|(_, open)| open.is_free(now) && open.row.next >= open.end())
            .map(|(scan, _)| *scan)
            .collect();
        let mut position = 0;
        while position < done.len() {
            let (mut ends, mut scripts) = (JoinSet::new(), 0);
            while let Some(scan) = done.get(position).filter(|_| scripts < ENDS) {
                position += 1;
                let Some(open) = self.scans.get(scan) else {
                    continue;
                };
                scripts = scripts.saturating_add(open.row.scripts.max(1));
                let upto = self.last_block(open, tip).await?;
                let (scan, indexer) = (*scan, self.context.indexer.clone());
                let input = Input::CloseScan {
                    scan,
                    end: ScanEnd::Complete(upto),
                    now: now_ms(),
                };
                ends.spawn(async move { (scan, indexer.apply(input).await.map(|_| ())) });
            }
            for (scan, ended) in ends.join_all().await {
                self.ended(scan, ended)?;
            }
        }
        if !done.is_empty() {
            self.progress.publish(&self.scans);
        }
        Ok(())
    }

    fn ended(&mut self, scan: ScanId, ended: Result<(), InputRefused>) -> Result<(), Interrupted> {
        match ended {
            Ok(()) | Err(InputRefused::Apply(ApplyError::NoSuchScan(_))) => {
                self.scans.remove(&scan);
                tracing::info!("history scan {scan} has ended");
                Ok(())
            }
            Err(InputRefused::Stopped(_)) => Err(Interrupted::Over),
            Err(InputRefused::Apply(error)) => {
                tracing::debug!("history scan {scan} cannot end yet: {error}");
                self.look_at = Instant::now();
                let Some(open) = self.scans.get_mut(&scan) else {
                    return Ok(());
                };
                survey_again(&self.context.reader, &scan, open)?;
                // Not before it is known what it waits for.
                open.hold(SOON, error.to_string());
                Ok(())
            }
        }
    }

    /// The block up to which a scan that is through knows everything.
    async fn last_block(&self, open: &OpenScan, tip: BlockId) -> Result<BlockId, Interrupted> {
        let scanned = open
            .row
            .next
            .checked_sub(1)
            .filter(|_| open.row.next > open.row.first());
        let height = open
            .row
            .to
            .or(scanned)
            .map_or(tip.height, |height| height.min(tip.height));
        if height == tip.height {
            return Ok(tip);
        }
        let hash: Option<BlockHash> = self
            .context
            .reader
            .snapshot()
            .block(height)?
            .map(|row| row.hash);
        let hash = match hash {
            Some(hash) => Some(hash),
            None => self
                .context
                .rpc
                .hashes(vec![height])
                .await
                .map_err(Interrupted::Away)?
                .pop()
                .flatten(),
        };
        hash.map(|hash| BlockId { height, hash })
            .ok_or(Interrupted::Moved)
    }

    /// Of the scans that are being worked on, those that a failure keeps from going on. It may be
    /// only about what blocks spend, which those from height 0 need not be told; if it is not, they
    /// meet it alone.
    fn concerned(&self, error: &NodeError) -> BTreeSet<ScanId> {
        let running = self.progress.running();
        let told: BTreeSet<_> = running
            .iter()
            .filter(|scan| {
                self.scans
                    .get(scan)
                    .is_some_and(|open| open.row.first() > 0)
            })
            .copied()
            .collect();
        if error.retry() == Retry::Persistent && !told.is_empty() {
            told
        } else {
            running.clone()
        }
    }

    /// The node, or what it offers, keeps scans from going on.
    fn failed(&mut self, error: &NodeError, concerns: impl Fn(&ScanId) -> bool) {
        let text = error.to_string();
        if self.told.as_ref() != Some(&text) {
            tracing::warn!("history scans wait: {text}");
            self.told = Some(text.clone());
        }
        let pause = match error.retry() {
            Retry::Persistent => LONG_PAUSE,
            Retry::Transient => (PAUSE * 2_u32.pow(self.failures.min(8))).min(LONGEST_PAUSE),
        };
        self.failures = self.failures.saturating_add(1);
        self.scans
            .iter_mut()
            .filter(|(scan, _)| concerns(scan))
            .for_each(|(_, open)| open.hold(pause, text.clone()));
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.fetcher.is_some())
        {
            self.active = None;
        }
        self.progress.stop(&self.scans);
    }

    /// The chosen scans are being worked on from now on.
    fn start(&mut self, choice: &Choice) {
        let scans: BTreeSet<_> = choice.scans.iter().copied().collect();
        if scans == *self.progress.running() {
            return;
        }
        let active = self.active.as_ref();
        let rate = active
            .filter(|active| active.batch.next == choice.next)
            .and_then(|active| active.rate);
        self.progress.start(&self.scans, scans, choice.next, rate);
    }
}
