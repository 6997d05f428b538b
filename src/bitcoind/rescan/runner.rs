//! Which scans go on when, what they wait for, and how they end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bitcoin::BlockHash;
use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::choose::{Candidate, Choice, choose};
use super::filters::Filters;
use super::group::Group;
use super::jobs::{Job, Jobs, refresh, survey_again};
use super::walk::{LANES, Walk};
use super::{Method, Progress, Rescans};
use crate::bitcoind::baseline::Place;
use crate::bitcoind::rpc::Rpc;
use crate::bitcoind::{Kind, NodeError, Status};
use crate::clock::now_ms;
use crate::indexer::{Handle, Refused};
use crate::store::{Reader, StoreError};
use crate::tracker::{ApplyError, BlockId, Input, ScanEnd, ScanId};

/// Scans that are opened one after the other share a walk.
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
/// Between two publications of progress that only goes on.
const PACE: Duration = Duration::from_millis(250);
/// Scripts of scans that are ended in one go.
const ENDS: u32 = 1000;

const BASELINE: &str = "the unspent outputs of its addresses are being looked up first";

/// Why a round did not go as it should.
pub(super) enum Again {
    /// The store is ahead of what we know, or a chain changed meanwhile.
    Moved,
    /// These scans cannot go on now.
    Node(NodeError),
    /// None can.
    Away(NodeError),
    /// The indexer or the follower has ended.
    Over,
    Store(StoreError),
}

impl From<NodeError> for Again {
    fn from(error: NodeError) -> Self {
        Self::Node(error)
    }
}

impl From<StoreError> for Again {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What is in memory for the scans that are being worked on.
pub(super) struct Work {
    pub(super) group: Group,
    pub(super) walk: Option<Walk>,
    /// Blocks a second.
    pub(super) rate: Option<f64>,
}

/// What subscribers hear of the scans that are being worked on.
#[derive(Default)]
struct Going {
    scans: BTreeSet<ScanId>,
    next: u32,
    method: Option<Method>,
    rate: Option<f64>,
}

pub(super) struct Runner {
    pub(super) rpc: Rpc,
    pub(super) reader: Reader,
    pub(super) indexer: Handle,
    wake: Arc<Notify>,
    place: watch::Receiver<Place>,
    status: watch::Receiver<Status>,
    progress: watch::Sender<Vec<Progress>>,
    /// Of fingerprints; random.
    pub(super) key: [u8; 16],
    pub(super) lanes: Arc<Semaphore>,
    pub(super) filters: Filters,
    pub(super) jobs: Jobs,
    pub(super) work: Option<Work>,
    /// When the store is to be read again.
    pub(super) look_at: Instant,
    going: Going,
    published: Instant,
    at_tip: bool,
    /// Failures in a row, and what was logged of them.
    failures: u32,
    told: Option<String>,
}

impl Runner {
    pub(super) fn new(rescans: Rescans, filtering: Arc<AtomicBool>) -> Self {
        let Rescans {
            rpc,
            reader,
            indexer,
            wake,
            place,
            status,
            progress,
        } = rescans;
        let mut key = [0; 16];
        getrandom::fill(&mut key).expect("the system has random numbers");
        let (now, filters) = (Instant::now(), Filters::new(rpc.clone(), filtering));
        Self {
            rpc,
            reader,
            indexer,
            wake,
            place,
            status,
            progress,
            key,
            lanes: Arc::new(Semaphore::new(LANES)),
            filters,
            jobs: Jobs::new(),
            work: None,
            look_at: now,
            going: Going::default(),
            published: now,
            at_tip: true,
            failures: 0,
            told: None,
        }
    }

    pub(super) async fn serve(mut self) -> Result<(), StoreError> {
        loop {
            match self.round().await {
                Ok(()) => {}
                Err(Again::Over) => return Ok(()),
                Err(Again::Store(error)) => {
                    tracing::error!("cannot read the history scans: {error}");
                    return Err(error);
                }
                Err(Again::Moved) => {
                    (self.work, self.look_at) = (None, Instant::now());
                    tokio::time::sleep(SOON).await;
                }
                Err(Again::Node(error)) => {
                    let held = self.concerned(&error);
                    self.failed(&error, |scan| held.contains(scan));
                }
                Err(Again::Away(error)) => self.failed(&error, |_| true),
            }
        }
    }

    async fn round(&mut self) -> Result<(), Again> {
        let tip = self.tip().await?;
        if self.is_told() || self.look_at <= Instant::now() {
            self.look().await?;
        }
        self.end_scans(tip).await?;
        let Some(choice) = self.choose(tip) else {
            return self.idle().await;
        };
        self.goes(&choice);
        self.go(&choice, tip).await?;
        (self.failures, self.told) = (0, None);
        Ok(())
    }

    /// Our tip, once it is the node's.
    async fn tip(&mut self) -> Result<BlockId, Again> {
        loop {
            let there =
                tokio::time::timeout(PACE, self.place.wait_for(|place| place.at_node_tip)).await;
            match there.map(|place| place.map(|place| place.tip)) {
                Ok(Ok(Some(tip))) => {
                    if !std::mem::replace(&mut self.at_tip, true) {
                        self.publish();
                    }
                    return Ok(tip);
                }
                Ok(Ok(None)) => tokio::time::sleep(SOON).await,
                Ok(Err(_)) => return Err(Again::Over),
                Err(_) => {
                    self.at_tip = false;
                    self.stands();
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

    async fn look(&mut self) -> Result<(), Again> {
        let (reader, mut jobs) = (self.reader.clone(), std::mem::take(&mut self.jobs));
        let began = Instant::now();
        self.jobs = blocking(move || {
            refresh(&reader, &mut jobs)?;
            Ok(jobs)
        })
        .await?;
        let waits = self.jobs.values().any(|job| job.pending.is_some());
        self.look_at = Instant::now()
            + if waits {
                SOON.max(began.elapsed() * 10)
            } else {
                LOOK
            };
        self.publish();
        Ok(())
    }

    fn choose(&self, tip: BlockId) -> Option<Choice> {
        let now = Instant::now();
        let candidates = self
            .jobs
            .iter()
            .filter(|(_, job)| job.is_free(now))
            .map(|(scan, job)| Candidate {
                scan: *scan,
                next: job.row.next,
                end: job.end().min(tip.height.saturating_add(1)),
                scripts: job.row.scripts,
            });
        choose(&candidates.collect::<Vec<_>>())
    }

    /// Waits for scans, or for the time when one can go on.
    async fn idle(&mut self) -> Result<(), Again> {
        if self.jobs.is_empty() {
            self.work = None;
        }
        self.stands();
        let holds = self
            .jobs
            .values()
            .filter_map(|job| job.held.as_ref().map(|held| held.until));
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
    async fn end_scans(&mut self, tip: BlockId) -> Result<(), Again> {
        let now = Instant::now();
        let done: Vec<_> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.is_free(now) && job.row.next >= job.end())
            .map(|(scan, _)| *scan)
            .collect();
        let mut place = 0;
        while place < done.len() {
            let (mut ends, mut scripts) = (JoinSet::new(), 0);
            while let Some(scan) = done.get(place).filter(|_| scripts < ENDS) {
                place += 1;
                let Some(job) = self.jobs.get(scan) else {
                    continue;
                };
                scripts = scripts.saturating_add(job.row.scripts.max(1));
                let upto = self.last_block(job, tip).await?;
                let (scan, indexer) = (*scan, self.indexer.clone());
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
            self.publish();
        }
        Ok(())
    }

    fn ended(&mut self, scan: ScanId, ended: Result<(), Refused>) -> Result<(), Again> {
        match ended {
            Ok(()) | Err(Refused::Apply(ApplyError::NoSuchScan(_))) => {
                self.jobs.remove(&scan);
                tracing::info!("history scan {scan} has ended");
                Ok(())
            }
            Err(Refused::Stopped(_)) => Err(Again::Over),
            Err(Refused::Apply(error)) => {
                tracing::debug!("history scan {scan} cannot end yet: {error}");
                self.look_at = Instant::now();
                let Some(job) = self.jobs.get_mut(&scan) else {
                    return Ok(());
                };
                survey_again(&self.reader, &scan, job)?;
                // Not before it is known what it waits for.
                job.hold(SOON, error.to_string());
                Ok(())
            }
        }
    }

    /// The block up to which a scan that is through knows everything.
    async fn last_block(&self, job: &Job, tip: BlockId) -> Result<BlockId, Again> {
        let scanned = job
            .row
            .next
            .checked_sub(1)
            .filter(|_| job.row.next > job.row.first());
        let height = job
            .row
            .to
            .or(scanned)
            .map_or(tip.height, |height| height.min(tip.height));
        if height == tip.height {
            return Ok(tip);
        }
        let hash: Option<BlockHash> = self.reader.snapshot().block(height)?.map(|row| row.hash);
        let hash = match hash {
            Some(hash) => Some(hash),
            None => self
                .rpc
                .hashes(vec![height])
                .await
                .map_err(Again::Away)?
                .pop()
                .flatten(),
        };
        hash.map(|hash| BlockId { height, hash })
            .ok_or(Again::Moved)
    }

    /// Of the scans that are being worked on, those that a failure keeps from going on. It may be
    /// only about what blocks spend, which those from height 0 need not be told; if it is not, they
    /// meet it alone.
    fn concerned(&self, error: &NodeError) -> BTreeSet<ScanId> {
        let going = &self.going.scans;
        let told: BTreeSet<_> = going
            .iter()
            .filter(|scan| self.jobs.get(scan).is_some_and(|job| job.row.first() > 0))
            .copied()
            .collect();
        if error.kind == Kind::Persistent && !told.is_empty() {
            told
        } else {
            going.clone()
        }
    }

    /// The node, or what it offers, keeps scans from going on.
    fn failed(&mut self, error: &NodeError, concerns: impl Fn(&ScanId) -> bool) {
        let text = error.to_string();
        if self.told.as_ref() != Some(&text) {
            tracing::warn!("history scans wait: {text}");
            self.told = Some(text.clone());
        }
        let pause = match error.kind {
            Kind::Persistent => LONG_PAUSE,
            Kind::Transient => (PAUSE * 2_u32.pow(self.failures.min(8))).min(LONGEST_PAUSE),
        };
        self.failures = self.failures.saturating_add(1);
        self.jobs
            .iter_mut()
            .filter(|(scan, _)| concerns(scan))
            .for_each(|(_, job)| job.hold(pause, text.clone()));
        if self.work.as_ref().is_some_and(|work| work.walk.is_some()) {
            self.work = None;
        }
        self.stands();
    }

    /// These scans are being worked on from now on.
    fn goes(&mut self, choice: &Choice) {
        let scans: BTreeSet<_> = choice.scans.iter().copied().collect();
        if scans == self.going.scans {
            return;
        }
        let rate = self
            .work
            .as_ref()
            .filter(|work| work.group.next == choice.next)
            .and_then(|work| work.rate);
        self.going = Going {
            scans,
            next: choice.next,
            method: None,
            rate,
        };
        self.publish();
    }

    pub(super) fn method(&mut self, work: &Work, method: Method) {
        if self.going.method.replace(method) != Some(method) {
            self.going(work, self.going.next);
            self.publish();
        }
    }

    /// The scans that are being worked on have come to height `next`.
    pub(super) fn going(&mut self, work: &Work, next: u32) {
        (self.going.next, self.going.rate) = (next, work.rate);
        if self.published.elapsed() >= PACE {
            self.publish();
        }
    }

    /// Nothing is being worked on now.
    fn stands(&mut self) {
        self.going = Going::default();
        self.publish();
    }

    fn publish(&mut self) {
        self.published = Instant::now();
        let now = self.published;
        let progress = self.jobs.iter().map(|(scan, job)| {
            let running = self.going.scans.contains(scan);
            let going = Some(&self.going).filter(|_| running);
            Progress {
                scan: *scan,
                target: job.end().saturating_sub(1),
                next: going.map_or(job.row.next, |going| going.next.max(job.row.next)),
                running,
                method: going.and_then(|going| going.method),
                rate: going.and_then(|going| going.rate),
                waits_for: self.waits_for(job, now),
            }
        });
        let progress = progress.collect();
        self.progress.send_if_modified(|known| {
            let differs = *known != progress;
            *known = progress;
            differs
        });
    }

    fn not_at_tip(&self) -> String {
        match &self.status.borrow().reason {
            Some(reason) => format!("satwatch is not at the node's tip: {reason}"),
            None => "satwatch is not at the node's tip: it is catching up".to_owned(),
        }
    }

    fn waits_for(&self, job: &Job, now: Instant) -> Option<String> {
        let held = || {
            job.held
                .as_ref()
                .filter(|held| held.until > now)
                .map(|held| held.why.clone())
        };
        match (self.at_tip, job.pending) {
            (false, _) => Some(self.not_at_tip()),
            (true, Some(_)) => Some(BASELINE.to_owned()),
            (true, None) => held(),
        }
    }
}

/// Work that takes long or reads much, beside the runtime.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Again> + Send + 'static,
) -> Result<T, Again> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is going down.
        Err(_) => Err(Again::Over),
    }
}
