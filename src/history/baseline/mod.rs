//! What added addresses owned before they were added: one scan ([`super::utxo_scan`]) for all that
//! wait.
//!
//! A scan whose answer is too long, or never comes, is followed by one for half of its scripts, so
//! that one address with very many outputs does not keep the others waiting for ever. One whose
//! outputs alone are too many for an answer is left out until it is removed and added again, or
//! until the next start, and told of: its descriptors go on without.
//!
//! It is merged in parts, each at our tip of that moment, so that what happens at that moment need
//! not wait for all of it. The outputs of one script that has very many come in portions, too, and
//! are shown with the last of them.

mod beyond;
mod failures;

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::ScriptBuf;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::utxo_scan::{Outputs, ScanPart};
use super::{Interrupted, NodeContext, blocking};
use crate::bitcoind::rpc;
use crate::bitcoind::{NodeError, NodeErrorKind};
use crate::clock::now_ms;
use crate::indexer::{IndexerStopped, InputRefused};
use crate::store::{Snapshot, StoreError};
use crate::tracker::{ApplyError, BlockId, DescriptorId, Input, Portion, ScriptHash, WatchRow};

use beyond::{Beyond, Reaches};
use failures::Failures;

/// The scripts of one scan, by their bytes in the request: it costs about the same for one and for
/// many, and the node takes 32 MB. Some 300 000 of the usual ones.
const REQUEST: usize = 16 << 20;
/// Scripts and outputs that are merged at once: the indexer needs some five milliseconds for them.
const PART: usize = 500;
/// Outputs that are looked up in one go.
const READ: usize = 20_000;
/// Scripts that are added one after the other share a scan: it begins when none has come for the
/// first of these times, or the first one has waited for the second.
const FEW: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// The same once so many wait that more of them are to be expected.
const MANY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
const ARE_MANY: usize = 1000;
/// Until what moved meanwhile is looked at again.
const AGAIN: Duration = Duration::from_millis(200);
/// Between two looks at the store without being told.
const LOOK: Duration = Duration::from_secs(10);

/// A script that waits for its baseline.
type Waiting = (ScriptBuf, Added);

/// The scripts of one scan.
#[derive(Debug, Default)]
struct Gathered {
    waiting: Vec<Waiting>,
    /// Some of them are of these.
    descriptors: BTreeSet<DescriptorId>,
}

/// When and for what a script was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Added {
    pub at: u64,
    /// It was not added by itself, but for this descriptor, or for others, too.
    pub of: Option<DescriptorId>,
}

impl Added {
    fn of(row: &WatchRow) -> Self {
        let derivations = row.derivations.first().filter(|_| !row.listed);
        Self {
            at: row.added,
            of: derivations.map(|place| place.descriptor),
        }
    }
}

/// Scripts that alone make the answer too long.
pub type LeftOut = BTreeMap<ScriptBuf, Added>;

/// Merges baselines until `shutdown`; ends a running scan of ours then. A store that cannot be read
/// ends it at once.
pub(super) async fn run(
    context: NodeContext,
    wake: Arc<Notify>,
    left_out: watch::Sender<LeftOut>,
    shutdown: CancellationToken,
) -> Result<(), StoreError> {
    let rpc = context.rpc.clone();
    let work = BaselineTask {
        context,
        wake,
        reaches: Reaches::default(),
        failures: Failures {
            left_out,
            ..Failures::default()
        },
    };
    tokio::select! {
        ended = work.serve() => ended,
        () = shutdown.cancelled() => {
            // Otherwise the node would go on scanning for minutes, and refuse the scan of our next
            // start.
            rpc.scans_ended().await;
            Ok(())
        }
    }
}

struct BaselineTask {
    context: NodeContext,
    wake: Arc<Notify>,
    reaches: Reaches,
    failures: Failures,
}

impl BaselineTask {
    async fn serve(mut self) -> Result<(), StoreError> {
        let mut told = None;
        loop {
            match self.round().await {
                Ok(()) => (told, self.failures.in_a_row) = (None, 0),
                Err(Interrupted::Moved) => tokio::time::sleep(AGAIN).await,
                Err(Interrupted::Over) => return Ok(()),
                Err(Interrupted::Store(error)) => {
                    tracing::error!("cannot read which addresses wait for their outputs: {error}");
                    return Err(error);
                }
                Err(Interrupted::Node(error) | Interrupted::Away(error)) => {
                    let text = error.to_string();
                    if told.as_ref() != Some(&text) {
                        tracing::warn!(
                            "the unspent outputs of added addresses are not known yet: {text}"
                        );
                        told = Some(text);
                    }
                    tokio::time::sleep(self.failures.pause(&error)).await;
                }
            }
        }
    }

    /// Waits for work, scans, merges.
    async fn round(&mut self) -> Result<(), Interrupted> {
        self.context
            .wait_for(|position| position.at_node_tip)
            .await?;
        for script in self.forget_left_out()? {
            // What has come of it before goes in portions.
            loop {
                let now = now_ms();
                _ = self.apply(Input::LeaveOut { script, now }).await?;
                let row = self.context.reader.snapshot().watch(&script)?;
                if row.is_none_or(|row| !row.coverage.in_portions) {
                    break;
                }
            }
        }
        if self.pending(1).await?.waiting.is_empty() {
            self.failures.later.clear();
            // A wake-up may be dropped when very many come at once.
            let _ = tokio::time::timeout(LOOK, self.wake.notified()).await;
        }
        let gathered = self.gather().await?;
        let count = gathered.waiting.len();
        // Much may have happened while there was nothing to do: then wait again.
        if count == 0 || !self.context.is_at_node_tip() {
            return Ok(());
        }
        let mut outputs = self.scan(gathered).await?;
        while !outputs.parts.is_empty() {
            // Nothing is told while monitoring is stopped.
            self.context
                .wait_for(|position| position.at_node_tip)
                .await?;
            outputs.roll_forward(&mut self.context).await?;
            let Some(mut part) = outputs.parts.pop() else {
                break;
            };
            let is_large = part.found.len() > PART && part.spks.len() == 1;
            let is_merged = match part.begun || is_large {
                true => self.merge_portion(outputs.block, &mut part).await?,
                false => self.merge(outputs.block, &part).await?,
            };
            if !is_merged {
                outputs.parts.push(part);
            }
        }
        tracing::info!(
            "the baselines of {count} added addresses are merged at block {}",
            outputs.block.height
        );
        Ok(())
    }

    /// What the scripts own. Uses of their descriptors beyond them are told of first, so that those
    /// are not called whole before they are.
    async fn scan(&mut self, gathered: Gathered) -> Result<Outputs, Interrupted> {
        let Gathered {
            waiting,
            descriptors,
        } = gathered;
        let (reader, reaches) = (self.context.reader.clone(), self.reaches.clone());
        let is_plain = self.failures.is_plain || descriptors.is_empty();
        let beyond: Vec<Beyond> = match is_plain {
            true => Vec::new(),
            false => blocking(move || beyond::read(&reader, &descriptors, &reaches)).await?,
        };
        tracing::debug!(
            "scanning the node's unspent outputs for {} added addresses, and beyond those of {} keychains",
            waiting.len(),
            beyond.len()
        );
        let spks = waiting.iter().map(|(spk, _)| spk.clone()).collect();
        let ranges = beyond.iter().filter_map(Beyond::request).collect();
        let outputs = Outputs::scan(&self.context.rpc, spks, ranges, Vec::new(), PART).await;
        let mut outputs = outputs.inspect_err(|error| {
            if beyond.is_empty() || !self.failures.scan_beyond_failed(error.kind) {
                self.failures.scan_failed(error.kind, &waiting);
            }
        })?;
        self.failures.scanned();
        let found = std::mem::take(&mut outputs.beyond).into_iter();
        let found: HashSet<ScriptBuf> = found.map(|output| output.spk).collect();
        let mut reaches = self.reaches.clone();
        let used = blocking(move || Ok((beyond::used(&beyond, &found, &mut reaches), reaches)));
        let (used, reaches) = used.await?;
        self.reaches = reaches;
        for place in used {
            let (descriptor, index) = (place.descriptor, place.index);
            tracing::info!(
                "descriptor {descriptor} is used at index {index}: its scripts are derived up to there"
            );
            let now = now_ms();
            match self
                .context
                .indexer
                .apply(Input::Reach { place, now })
                .await
            {
                // It may have been removed.
                Ok(_) | Err(InputRefused::Apply(_)) => {}
                Err(InputRefused::Stopped(IndexerStopped)) => return Err(Interrupted::Over),
            }
        }
        Ok(outputs)
    }

    /// The scripts of the next scan, once no more of them seem to come.
    async fn gather(&self) -> Result<Gathered, Interrupted> {
        let began = Instant::now();
        self.gather_until(began, FEW).await;
        if self.pending(ARE_MANY).await?.waiting.len() == ARE_MANY {
            self.gather_until(began, MANY).await;
        }
        self.pending(self.failures.most.unwrap_or(usize::MAX)).await
    }

    async fn gather_until(&self, began: Instant, (quiet, most): (Duration, Duration)) {
        while began.elapsed() < most
            && tokio::time::timeout(quiet, self.wake.notified())
                .await
                .is_ok()
        {}
    }

    /// A script that does not wait any more may be added again. Answers those that the tracker has
    /// not been told of.
    fn forget_left_out(&self) -> Result<Vec<ScriptHash>, StoreError> {
        let snapshot = self.context.reader.snapshot();
        let (mut kept, mut untold) = (LeftOut::new(), Vec::new());
        for (spk, added) in &*self.failures.left_out.borrow() {
            let script = ScriptHash::of(spk);
            let row = snapshot.watch(&script)?;
            if let Some(row) = row.filter(|row| row.coverage.pending && row.added == added.at) {
                kept.insert(spk.clone(), Added::of(&row));
                untold.extend(row.coverage.is_awaited().then_some(script));
            }
        }
        self.failures.left_out.send_if_modified(|known| {
            let is_changed = *known != kept;
            *known = kept;
            is_changed
        });
        Ok(untold)
    }

    /// Scripts that wait, at most `limit` and as many as fit into a request. Those of a descriptor
    /// do when all that it wants are derived.
    async fn pending(&self, limit: usize) -> Result<Gathered, Interrupted> {
        let reader = self.context.reader.clone();
        let later = self.failures.later.clone();
        let left_out = self.failures.left_out.borrow().clone();
        blocking(move || {
            let (mut room, mut gathered) = (REQUEST, Gathered::default());
            let (snapshot, mut derived) = (reader.snapshot(), HashMap::new());
            for pending in snapshot.pending_baselines() {
                let (_, row) = pending?;
                if gathered.waiting.len() >= limit {
                    break;
                }
                if !is_derived(&snapshot, &row, &mut derived)? && !row.listed {
                    continue;
                }
                let is_left_out = left_out.get(&row.spk).is_some_and(|it| it.at == row.added);
                if is_left_out || later.contains(&row.spk) {
                    continue;
                }
                let Some(left) = room.checked_sub(rpc::scan_bytes(&row.spk)) else {
                    break;
                };
                room = left;
                let descriptors = row.derivations.iter().map(|it| it.descriptor);
                gathered.descriptors.extend(descriptors);
                let added = Added::of(&row);
                gathered.waiting.push((row.spk, added));
            }
            Ok(gathered)
        })
        .await
    }

    /// Answers whether it was merged; otherwise there is a new block.
    async fn merge(&self, block: BlockId, part: &ScanPart) -> Result<bool, Interrupted> {
        let scripts = part.spks.iter().map(|spk| ScriptHash::of(spk)).collect();
        let outputs = part.found.values().cloned().collect();
        let input = Input::Baseline {
            block,
            scripts,
            outputs,
            now: now_ms(),
        };
        Ok(self.apply(input).await?.unwrap_or(true))
    }

    /// Whether it was merged, or there is a new block; `None` for portions that nothing waits for
    /// (any more).
    async fn apply(&self, input: Input) -> Result<Option<bool>, Interrupted> {
        match self.context.indexer.apply(input).await {
            Ok(_) => Ok(Some(true)),
            Err(InputRefused::Apply(ApplyError::NotOurTip { .. })) => Ok(Some(false)),
            Err(InputRefused::Apply(ApplyError::NotMerging(_))) => Ok(None),
            Err(InputRefused::Apply(error)) => {
                Err(NodeError::new(NodeErrorKind::Shape, error.to_string()).into())
            }
            Err(InputRefused::Stopped(IndexerStopped)) => Err(Interrupted::Over),
        }
    }

    /// Merges some of the outputs of a script that has very many. Answers whether that is over.
    async fn merge_portion(
        &self,
        block: BlockId,
        part: &mut ScanPart,
    ) -> Result<bool, Interrupted> {
        let script = part.spks.iter().next().map(|spk| ScriptHash::of(spk));
        let script = script.expect("a part has a script");
        let portion = match part.order.len() {
            _ if !part.begun => Portion::First,
            0 => Portion::Last,
            _ => Portion::Next,
        };
        let rest = part.order.len().saturating_sub(PART);
        let outputs: Vec<_> = match portion {
            // From now on the tracker would notice that the script is removed and added again.
            Portion::First => Vec::new(),
            Portion::Next => {
                let next = part.order[rest..].iter();
                next.filter_map(|(_, outpoint)| part.found.get(outpoint).cloned())
                    .collect()
            }
            Portion::Last => part.found.values().cloned().collect(),
        };
        let sent: Vec<_> = outputs.iter().map(|found| found.outpoint).collect();
        let input = Input::BaselinePart {
            block,
            script,
            portion,
            outputs,
            now: now_ms(),
        };
        match self.apply(input).await? {
            Some(true) => {}
            Some(false) => return Ok(false),
            // The last portion has come as often as it had to. Or the script was removed, or a
            // reorg took what had come: if it waits, then for a scan of its own.
            None => return Ok(true),
        }
        if portion == Portion::Last {
            return Ok(false);
        }
        for outpoint in sent {
            part.found.remove(&outpoint);
        }
        part.order.truncate(rest);
        if portion == Portion::First {
            part.begun = true;
            self.order(script, part).await?;
        }
        Ok(false)
    }

    /// Drops what the store has in a block already, and says in which order the others are sent
    /// before the last ones: block by block, so that each portion is in few of them. What is shown
    /// moves in one step only and goes with the last ones: payments that we hold for unconfirmed,
    /// and all that a reorg has brought.
    async fn order(&self, script: ScriptHash, part: &mut ScanPart) -> Result<(), Interrupted> {
        let Some(row) = self.context.reader.snapshot().watch(&script)? else {
            part.found.clear();
            return Ok(());
        };
        let is_staged = row.coverage.staged.is_some();
        let all = part.found.values();
        let mut all: Vec<_> = all
            .map(|found| (Reverse(found.height), found.outpoint))
            .collect();
        while !all.is_empty() {
            let some = all.split_off(all.len().saturating_sub(READ));
            let reader = self.context.reader.clone();
            let looked_up = blocking(move || {
                let snapshot = reader.snapshot();
                let look = |(height, outpoint)| {
                    let row = snapshot.output(&outpoint)?;
                    Ok((height, outpoint, row.map(|row| row.height.is_some())))
                };
                some.into_iter()
                    .map(look)
                    .collect::<Result<Vec<_>, Interrupted>>()
            });
            for (height, outpoint, is_in_block) in looked_up.await? {
                match is_in_block {
                    Some(true) => _ = part.found.remove(&outpoint),
                    None if is_staged => part.order.push((height, outpoint)),
                    _ => {}
                }
            }
        }
        let mut order = std::mem::take(&mut part.order);
        part.order = blocking(move || {
            order.sort_unstable();
            Ok(order)
        })
        .await?;
        Ok(())
    }
}

/// Whether the descriptors of a script have all the scripts that they want, as far as is `known`.
fn is_derived(
    snapshot: &Snapshot<'_>,
    row: &WatchRow,
    known: &mut HashMap<DescriptorId, bool>,
) -> Result<bool, StoreError> {
    for place in &row.derivations {
        let is_derived = match known.entry(place.descriptor) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(unknown) => {
                let row = snapshot.descriptor(&place.descriptor)?;
                *unknown.insert(row.is_none_or(|row| row.is_derived()))
            }
        };
        if !is_derived {
            return Ok(false);
        }
    }
    Ok(true)
}
