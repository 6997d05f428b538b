//! [`Tracker`]: what is kept in memory between inputs, loading it from the rows, and the dispatch
//! of inputs.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{OutPoint, Transaction, Txid};

use super::fingerprints::{FingerprintSet, Fingerprints};
use super::mempool::Mempool;
use super::{
    ApplyError, BlockId, Derivation, DescriptorId, DescriptorRow, Input, Keychain, LOOKAHEAD,
    Place, RawTx, Replacement, ScanId, ScriptHash, Transition, TxRow, View, WatchRequest, WatchRow,
};

/// Rows that one input takes away at most: some five milliseconds.
const PORTION: usize = 500;

/// The in-memory part of the state: fingerprints and the mempool's index. Everything else is rows.
#[derive(Debug)]
pub struct Tracker {
    pub(super) fingerprints: Fingerprints,
    pub(super) tip: Option<BlockId>,
    /// Watched scripts.
    pub(super) scripts: FingerprintSet,
    /// Watched outputs whose spend is not confirmed.
    pub(super) outpoints: FingerprintSet,
    pub(super) mempool: Mempool,
    /// When the verdict was given on what is being evicted.
    pub(super) evicted_at: u64,
    /// Confirmation depths beyond 1 that any script asked for, and how many scripts did.
    pub(super) depths: BTreeMap<u8, u64>,
    /// The highest block from which on any script is covered: a reorg that stays above it harms no
    /// baseline.
    pub(super) newest_coverage: u32,
    /// The script whose outputs come in portions.
    pub(super) merging: Option<Merging>,
    /// History scans that have not ended.
    pub(super) scans: BTreeSet<ScanId>,
    /// Those that have ended, or were never opened, and have scripts.
    pub(super) ended_scans: BTreeSet<ScanId>,
    /// Scripts that are new in an add which is not finished.
    pub(super) adding: BTreeSet<ScriptHash>,
    /// Scripts that are not watched any more, and have rows. Nothing counts for them.
    pub(super) forgetting: BTreeSet<ScriptHash>,
    /// Which of them is being worked on.
    pub(super) removal: Option<Removal>,
    /// Scripts whose past does not count for a descriptor yet.
    pub(super) joining: BTreeSet<Derivation>,
    /// Keychains that are to look at more of their scripts.
    pub(super) advancing: BTreeSet<(DescriptorId, Keychain)>,
    /// Which of those that join is being worked on.
    pub(super) joined_to: Option<Joining>,
    /// Descriptors that are not watched any more, and have rows.
    pub(super) leaving: BTreeSet<DescriptorId>,
    /// Which of them is being worked on.
    pub(super) left_to: Option<Leaving>,
    /// Rows that one input takes away at most.
    pub(super) portion: usize,
    /// Scripts that are watched beyond the window of a keychain, at least.
    pub(super) lookahead: u32,
    /// What the node does, as far as it was told.
    pub(super) replacement: Replacement,
}

/// What of an add an input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatchPart {
    Whole,
    Some,
    Last,
}

/// A baseline in portions. It is in memory alone: after a restart, or a reorg, it begins anew.
#[derive(Debug)]
pub(super) struct Merging {
    pub script: ScriptHash,
    pub stage: MergeStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MergeStage {
    /// Outputs come. What has come is set aside (`TransitionBuilder::is_set_aside`).
    Outputs,
    /// All have come. Those up to this one have been matched with the mempool's transactions.
    Spenders(Option<OutPoint>),
    /// It is to be left out. Those up to this one have gone.
    Dropped(Option<OutPoint>),
}

/// How far the rows of one script are gone. It is in memory alone, so that a portion need not walk
/// over what those before deleted; after a restart it begins anew.
#[derive(Debug)]
pub(super) struct Removal {
    pub script: ScriptHash,
    /// The last of each that went.
    pub scan: Option<ScanId>,
    pub unspent: Option<OutPoint>,
    pub history: Option<Place>,
    /// Transactions that have moved to another place since.
    pub moved: BTreeSet<Txid>,
}

impl Removal {
    pub fn of(script: ScriptHash) -> Self {
        Self {
            script,
            scan: None,
            unspent: None,
            history: None,
            moved: BTreeSet::new(),
        }
    }
}

/// How far the past of one script has come. It is in memory alone: after a restart it begins anew,
/// which changes nothing twice.
#[derive(Debug)]
pub(super) struct Joining {
    pub place: Derivation,
    /// The last of each that has come.
    pub history: Option<Place>,
    pub unspent: Option<OutPoint>,
}

/// How far the rows of one descriptor are gone. It is in memory alone; after a restart it begins
/// anew.
#[derive(Debug)]
pub(super) struct Leaving {
    pub descriptor: DescriptorId,
    /// The last of each that went.
    pub history: Option<Place>,
    pub output: Option<OutPoint>,
    pub derivation: Option<(Keychain, u32)>,
}

impl Tracker {
    /// An empty tracker. `key` must be random: it keys the fingerprints.
    pub fn new(key: [u8; 16]) -> Self {
        let fingerprints = Fingerprints::new(&key);
        Self {
            fingerprints,
            tip: None,
            scripts: FingerprintSet::default(),
            outpoints: FingerprintSet::default(),
            mempool: Mempool::new(fingerprints),
            evicted_at: 0,
            depths: BTreeMap::new(),
            newest_coverage: 0,
            merging: None,
            scans: BTreeSet::new(),
            ended_scans: BTreeSet::new(),
            adding: BTreeSet::new(),
            forgetting: BTreeSet::new(),
            removal: None,
            joining: BTreeSet::new(),
            advancing: BTreeSet::new(),
            joined_to: None,
            leaving: BTreeSet::new(),
            left_to: None,
            portion: PORTION,
            lookahead: LOOKAHEAD,
            replacement: Replacement::default(),
        }
    }

    pub fn load_tip(&mut self, tip: Option<BlockId>) {
        self.tip = tip;
    }

    pub fn load_watch(&mut self, row: &WatchRow) {
        self.scripts.insert(self.fingerprints.script(&row.spk));
        self.count_depths(&row.depths);
        self.newest_coverage = self.newest_coverage.max(row.coverage.from_height);
    }

    /// An output whose spend is not confirmed.
    pub fn load_outpoint(&mut self, outpoint: &OutPoint) {
        self.outpoints.insert(self.fingerprints.outpoint(outpoint));
    }

    /// A row with status `Mempool`.
    pub fn load_unconfirmed(&mut self, txid: Txid, row: &TxRow, tx: &Transaction) {
        let tx = RawTx::from(tx);
        let prints = tx.fingerprints(&self.fingerprints);
        self.mempool.insert(&tx, prints, true);
        self.mempool.set_inherits(&txid, row.inherits);
    }

    /// A history scan that has not ended.
    pub fn load_scan(&mut self, scan: ScanId) {
        self.scans.insert(scan);
    }

    /// A history scan that has ended, or was never opened, and has scripts.
    pub fn load_ended_scan(&mut self, scan: ScanId) {
        self.ended_scans.insert(scan);
    }

    /// A script that is new in an add which is not finished.
    pub fn load_adding(&mut self, script: ScriptHash) {
        self.adding.insert(script);
    }

    /// A script that is not watched any more, and has rows.
    pub fn load_forgetting(&mut self, script: ScriptHash) {
        self.forgetting.insert(script);
    }

    pub fn load_descriptor(&mut self, descriptor: DescriptorId, row: &DescriptorRow) {
        self.count_depths(&row.depths);
        let keychains = [Keychain::External, Keychain::Internal];
        self.advancing
            .extend(keychains.map(|keychain| (descriptor, keychain)));
    }

    /// A script whose past does not count for a descriptor yet.
    pub fn load_joining(&mut self, place: Derivation) {
        self.joining.insert(place);
    }

    /// A descriptor that is not watched any more, and has rows.
    pub fn load_leaving(&mut self, descriptor: DescriptorId) {
        self.leaving.insert(descriptor);
    }

    /// As many rows as one input takes away at most; a thousand, if nobody says otherwise.
    pub fn in_portions_of(self, portion: usize) -> Self {
        Self { portion, ..self }
    }

    /// As many scripts are watched beyond the window of a keychain at least; a thousand, if nobody
    /// says otherwise.
    pub fn looking_ahead(self, lookahead: u32) -> Self {
        Self { lookahead, ..self }
    }

    /// Whether there is something for [`Input::Forget`] to take away.
    pub fn has_to_forget(&self) -> bool {
        self.is_forgetting() || !self.ended_scans.is_empty() || !self.leaving.is_empty()
    }

    /// Whether there is something for [`Input::EvictMore`] to evict.
    pub fn is_evicting(&self) -> bool {
        self.mempool.next_evicted().is_some()
    }

    /// What is being evicted, and is not yet, is left in the mempool until the next verdict.
    pub fn put_off_evictions(&mut self) {
        self.mempool.put_off_evictions();
    }

    /// Whether there are rows of forgotten scripts.
    pub fn is_forgetting(&self) -> bool {
        !self.forgetting.is_empty()
    }

    /// One of the scripts that is still being forgotten: they cannot be watched now
    /// ([`ApplyError::StillForgetting`]).
    pub fn still_forgetting(&self, requests: &[WatchRequest]) -> Option<ScriptHash> {
        if !self.is_forgetting() {
            return None;
        }
        let mut scripts = requests.iter().map(|request| ScriptHash::of(&request.spk));
        scripts.find(|script| self.forgetting.contains(script))
    }

    /// Whether the rows of a removed descriptor are still going: it cannot be added now
    /// ([`ApplyError::StillLeaving`]).
    pub fn is_leaving(&self, descriptor: &DescriptorId) -> bool {
        self.leaving.contains(descriptor)
    }

    /// Some of the scripts that are new in an add that is not finished.
    pub fn some_adding(&self, most: usize) -> Vec<ScriptHash> {
        self.adding.iter().take(most).copied().collect()
    }

    pub fn tip(&self) -> Option<BlockId> {
        self.tip
    }

    /// Transactions in the mempool's index, watched or not.
    pub fn mempool_len(&self) -> usize {
        self.mempool.len()
    }

    /// Whether all outputs of the script that come in portions have come.
    pub(super) fn has_all_found(&self, script: &ScriptHash) -> bool {
        let merging = self.merging.as_ref().filter(|it| it.script == *script);
        merging.is_some_and(|merging| matches!(merging.stage, MergeStage::Spenders(_)))
    }

    pub(super) fn count_depths(&mut self, depths: &[u8]) {
        for depth in depths.iter().filter(|depth| **depth > 1) {
            *self.depths.entry(*depth).or_default() += 1;
        }
    }

    pub(super) fn uncount_depths(&mut self, depths: &[u8]) {
        for depth in depths.iter().filter(|depth| **depth > 1) {
            if let Some(count) = self.depths.get_mut(depth) {
                *count = count.saturating_sub(1);
            }
        }
        self.depths.retain(|_, count| *count > 0);
    }

    /// Takes one input. `view` must hold every transition before this one, committed or in an
    /// [`Overlay`](super::Overlay).
    pub fn apply(&mut self, view: &impl View, input: Input) -> Result<Transition, ApplyError> {
        let transition = self.transition(view, input)?;
        self.note_moved(&transition.changes);
        Ok(transition)
    }

    fn transition(&mut self, view: &impl View, input: Input) -> Result<Transition, ApplyError> {
        match input {
            Input::Start {
                first_height,
                blocks,
                now,
            } => self.start(view, first_height, &blocks, now),
            Input::Connect { block, height, now } => self.connect(view, &block, height, now),
            Input::Disconnect { to, now } => self.disconnect(view, to, now),
            Input::TxSeen { tx, seen, now } => self.tx_seen(view, tx, seen, now),
            Input::TxRemoved { txids } => Ok(self.tx_removed(&txids)),
            Input::EvictMissing { spared, now } => self.evict_missing(view, &spared, now),
            Input::EvictMore => self.evict_portion(view),
            Input::MempoolSnapshot { tip, txids, .. } => Ok(self.snapshot(tip, &txids)),
            Input::Watch { scripts, now } => self.watch(view, scripts, WatchPart::Whole, now),
            Input::WatchPart {
                scripts,
                is_last,
                now,
            } => {
                let part = if is_last {
                    WatchPart::Last
                } else {
                    WatchPart::Some
                };
                self.watch(view, scripts, part, now)
            }
            Input::Baseline {
                block,
                scripts,
                outputs,
                now,
            } => self.baseline(view, block, &scripts, &outputs, now),
            Input::BaselinePart {
                block,
                script,
                portion,
                outputs,
                now,
            } => self.baseline_part(view, block, script, portion, &outputs, now),
            Input::Unwatch { scripts, now } => self.unwatch(view, &scripts, now),
            Input::Forget { now } => self.forget(view, now),
            Input::AddDescriptor {
                descriptor,
                request,
                now,
            } => self.add_descriptor(view, descriptor, request, now),
            Input::Derived {
                descriptor,
                keychain,
                first,
                spks,
                now,
            } => self.derived(view, (descriptor, keychain, first), spks, now),
            Input::Reserve { place, label, now } => self.reserve(view, place, label, now),
            Input::Label {
                subject,
                label,
                now,
            } => self.label(view, subject, label, now),
            Input::Reach { place, now } => self.reach(view, place, now),
            Input::LeaveOut { script, now } => self.leave_out(view, script, now),
            Input::Join { now } => self.join(view, now),
            Input::RemoveDescriptor { descriptor, now } => {
                self.remove_descriptor(view, descriptor, now)
            }
            Input::OpenDescriptorScan {
                scan,
                descriptor,
                from,
                to,
                now,
            } => self.open_descriptor_scan(view, (scan, descriptor), (from, to), now),
            Input::EnterScan { scan } => self.enter_scan_of(view, scan),
            Input::ScanScripts { scan, scripts } => self.scan_scripts(view, scan, scripts),
            Input::OpenScan {
                scan,
                scripts,
                from,
                to,
                now,
            } => self.open_scan(view, scan, scripts, from, to, now),
            Input::SkipPruned {
                scans,
                horizon,
                now,
            } => self.skip_pruned(view, &scans, horizon, now),
            Input::ScanBlocks {
                scans,
                scripts,
                first,
                blocks,
                upto,
                now,
            } => self.scan_blocks(view, &scans, scripts, first, &blocks, upto, now),
            Input::CloseScan { scan, end, now } => self.close_scan(view, scan, end, now),
            Input::Policy(replacement) => {
                self.replacement = replacement;
                Ok(Transition::default())
            }
        }
    }
}
