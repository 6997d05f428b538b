//! The rows that the core may read: [`View`], a map that implements it for tests, and [`Overlay`],
//! a view with changes on top.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use bitcoin::{OutPoint, Txid};

use super::{
    BlockId, BlockRow, Change, ChangeSet, OutputRow, ScanId, ScanRow, ScanState, ScriptHash, TxRow,
    WatchRow,
};

/// A row that cannot be read. Always fatal: the store is damaged or unreadable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the store: {0}")]
pub struct ViewError(pub String);

/// Where a transaction stands in histories: newer ones come first.
pub type Place = (Reverse<u64>, Txid);

/// Read access to the rows, as of the last transition.
pub trait View {
    fn watch(&self, script: &ScriptHash) -> Result<Option<WatchRow>, ViewError>;
    fn output(&self, outpoint: &OutPoint) -> Result<Option<OutputRow>, ViewError>;
    fn tx(&self, txid: &Txid) -> Result<Option<TxRow>, ViewError>;
    fn block(&self, height: u32) -> Result<Option<BlockRow>, ViewError>;
    fn tip(&self) -> Result<Option<BlockId>, ViewError>;
    /// The scripts whose coverage begins above `height`. May be slow: it is asked only when a reorg
    /// reaches below the newest watch.
    fn watches_above(&self, height: u32) -> Result<Vec<ScriptHash>, ViewError>;
    /// The outputs of a script whose spend is not confirmed, ascending, at most `limit` of those
    /// above `after`.
    fn unspent(
        &self,
        script: &ScriptHash,
        after: Option<OutPoint>,
        limit: usize,
    ) -> Result<Vec<OutPoint>, ViewError>;
    /// The transactions that touch a script, in their order, at most `limit` of those behind
    /// `after`.
    fn history(
        &self,
        script: &ScriptHash,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Place>, ViewError>;
    fn scan(&self, scan: &ScanId) -> Result<Option<ScanRow>, ViewError>;
    /// The scripts of a scan, ascending, at most `limit`.
    fn scan_scripts(&self, scan: &ScanId, limit: usize) -> Result<Vec<ScriptHash>, ViewError>;
    fn is_scan_script(&self, scan: &ScanId, script: &ScriptHash) -> Result<bool, ViewError>;
    /// The scans that a script is in, ascending.
    fn scans_of(&self, script: &ScriptHash) -> Result<Vec<ScanId>, ViewError>;
}

/// Rows in maps: the view of tests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryView {
    pub watches: HashMap<ScriptHash, WatchRow>,
    pub outputs: HashMap<OutPoint, OutputRow>,
    pub txs: HashMap<Txid, TxRow>,
    pub blocks: HashMap<u32, BlockRow>,
    pub tip: Option<BlockId>,
    pub scans: HashMap<ScanId, ScanRow>,
    pub scan_scripts: BTreeSet<(ScanId, ScriptHash)>,
    pub forgetting: BTreeSet<ScriptHash>,
    pub adding: Vec<ScriptHash>,
}

impl MemoryView {
    /// The history scans that have not ended, ascending.
    pub fn open_scans(&self) -> Vec<ScanId> {
        let scans = self.scans.iter();
        let open = scans.filter(|(_, row)| row.state == ScanState::Open);
        let mut open: Vec<ScanId> = open.map(|(scan, _)| *scan).collect();
        open.sort_unstable();
        open
    }

    pub fn commit(&mut self, changes: &ChangeSet) {
        for change in &changes.0 {
            match change.clone() {
                Change::Watch { script, new, .. } => set(&mut self.watches, script, new),
                Change::Output { outpoint, new, .. } => set(&mut self.outputs, outpoint, new),
                Change::Tx { txid, new, .. } => set(&mut self.txs, txid, new),
                Change::Block { height, new, .. } => set(&mut self.blocks, height, new),
                Change::Tip { new, .. } => self.tip = new,
                Change::Scan { scan, new, .. } => set(&mut self.scans, scan, new),
                Change::ScanScript {
                    scan, script, new, ..
                } => {
                    match new {
                        true => self.scan_scripts.insert((scan, script)),
                        false => self.scan_scripts.remove(&(scan, script)),
                    };
                }
                Change::Adding { new, .. } => self.adding = new,
                Change::Forgetting { script, new, .. } => {
                    match new {
                        true => self.forgetting.insert(script),
                        false => self.forgetting.remove(&script),
                    };
                }
            }
        }
    }
}

/// Whether an output is among those of [`View::unspent`].
fn is_unspent(row: &OutputRow, script: &ScriptHash) -> bool {
    row.script == *script && row.spent.is_none_or(|spend| spend.height.is_none())
}

pub(super) fn touches(row: &TxRow, script: &ScriptHash) -> bool {
    row.touches.iter().any(|touch| touch.script == *script)
}

/// The first `limit` of these above `after`.
fn page<T: Ord>(mut all: Vec<T>, after: Option<T>, limit: usize) -> Vec<T> {
    all.retain(|item| after.as_ref().is_none_or(|after| item > after));
    all.sort_unstable();
    all.truncate(limit);
    all
}

fn set<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

impl View for MemoryView {
    fn watch(&self, script: &ScriptHash) -> Result<Option<WatchRow>, ViewError> {
        Ok(self.watches.get(script).cloned())
    }

    fn output(&self, outpoint: &OutPoint) -> Result<Option<OutputRow>, ViewError> {
        Ok(self.outputs.get(outpoint).cloned())
    }

    fn tx(&self, txid: &Txid) -> Result<Option<TxRow>, ViewError> {
        Ok(self.txs.get(txid).cloned())
    }

    fn block(&self, height: u32) -> Result<Option<BlockRow>, ViewError> {
        Ok(self.blocks.get(&height).cloned())
    }

    fn tip(&self) -> Result<Option<BlockId>, ViewError> {
        Ok(self.tip)
    }

    fn watches_above(&self, height: u32) -> Result<Vec<ScriptHash>, ViewError> {
        Ok(self
            .watches
            .iter()
            .filter(|(_, row)| row.coverage.from_height > height)
            .map(|(script, _)| *script)
            .collect())
    }

    fn unspent(
        &self,
        script: &ScriptHash,
        after: Option<OutPoint>,
        limit: usize,
    ) -> Result<Vec<OutPoint>, ViewError> {
        let outputs = self.outputs.iter();
        let unspent = outputs.filter(|(_, row)| is_unspent(row, script));
        Ok(page(
            unspent.map(|(outpoint, _)| *outpoint).collect(),
            after,
            limit,
        ))
    }

    fn history(
        &self,
        script: &ScriptHash,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Place>, ViewError> {
        let txs = self.txs.iter();
        let history = txs.filter(|(_, row)| touches(row, script));
        let places = history.map(|(txid, row)| (Reverse(row.order), *txid));
        Ok(page(places.collect(), after, limit))
    }

    fn scan(&self, scan: &ScanId) -> Result<Option<ScanRow>, ViewError> {
        Ok(self.scans.get(scan).cloned())
    }

    fn scan_scripts(&self, scan: &ScanId, limit: usize) -> Result<Vec<ScriptHash>, ViewError> {
        let all = self.scan_scripts.iter();
        let scripts = all.filter(|(other, _)| other == scan);
        Ok(scripts.take(limit).map(|(_, script)| *script).collect())
    }

    fn is_scan_script(&self, scan: &ScanId, script: &ScriptHash) -> Result<bool, ViewError> {
        Ok(self.scan_scripts.contains(&(*scan, *script)))
    }

    fn scans_of(&self, script: &ScriptHash) -> Result<Vec<ScanId>, ViewError> {
        let all = self.scan_scripts.iter();
        let scans = all.filter(|(_, other)| other == script);
        Ok(scans.map(|(scan, _)| *scan).collect())
    }
}

/// A view with changes on top, so that several transitions see each other before they are committed
/// as one batch.
#[derive(Debug)]
pub struct Overlay<'a, V> {
    base: &'a V,
    watches: HashMap<ScriptHash, Option<WatchRow>>,
    outputs: HashMap<OutPoint, Option<OutputRow>>,
    txs: HashMap<Txid, Option<TxRow>>,
    blocks: HashMap<u32, Option<BlockRow>>,
    tip: Option<Option<BlockId>>,
    scans: HashMap<ScanId, Option<ScanRow>>,
    scan_scripts: BTreeMap<(ScanId, ScriptHash), bool>,
}

impl<'a, V: View> Overlay<'a, V> {
    pub fn new(base: &'a V) -> Self {
        Self {
            base,
            watches: HashMap::new(),
            outputs: HashMap::new(),
            txs: HashMap::new(),
            blocks: HashMap::new(),
            tip: None,
            scans: HashMap::new(),
            scan_scripts: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, changes: &ChangeSet) {
        for change in &changes.0 {
            match change.clone() {
                Change::Watch { script, new, .. } => drop(self.watches.insert(script, new)),
                Change::Output { outpoint, new, .. } => drop(self.outputs.insert(outpoint, new)),
                Change::Tx { txid, new, .. } => drop(self.txs.insert(txid, new)),
                Change::Block { height, new, .. } => drop(self.blocks.insert(height, new)),
                Change::Tip { new, .. } => self.tip = Some(new),
                Change::Scan { scan, new, .. } => drop(self.scans.insert(scan, new)),
                Change::ScanScript {
                    scan, script, new, ..
                } => drop(self.scan_scripts.insert((scan, script), new)),
                // No step reads these: the tracker has them in memory.
                Change::Forgetting { .. } | Change::Adding { .. } => {}
            }
        }
    }
}

impl<V: View> View for Overlay<'_, V> {
    fn watch(&self, script: &ScriptHash) -> Result<Option<WatchRow>, ViewError> {
        self.watches
            .get(script)
            .map_or_else(|| self.base.watch(script), |row| Ok(row.clone()))
    }

    fn output(&self, outpoint: &OutPoint) -> Result<Option<OutputRow>, ViewError> {
        self.outputs
            .get(outpoint)
            .map_or_else(|| self.base.output(outpoint), |row| Ok(row.clone()))
    }

    fn tx(&self, txid: &Txid) -> Result<Option<TxRow>, ViewError> {
        self.txs
            .get(txid)
            .map_or_else(|| self.base.tx(txid), |row| Ok(row.clone()))
    }

    fn block(&self, height: u32) -> Result<Option<BlockRow>, ViewError> {
        self.blocks
            .get(&height)
            .map_or_else(|| self.base.block(height), |row| Ok(row.clone()))
    }

    fn tip(&self) -> Result<Option<BlockId>, ViewError> {
        self.tip.map_or_else(|| self.base.tip(), Ok)
    }

    fn watches_above(&self, height: u32) -> Result<Vec<ScriptHash>, ViewError> {
        let mut scripts = self.base.watches_above(height)?;
        scripts.retain(|script| !self.watches.contains_key(script));
        let above = |row: &Option<WatchRow>| {
            row.as_ref()
                .is_some_and(|row| row.coverage.from_height > height)
        };
        scripts.extend(
            self.watches
                .iter()
                .filter(|(_, row)| above(row))
                .map(|(script, _)| *script),
        );
        Ok(scripts)
    }

    fn unspent(
        &self,
        script: &ScriptHash,
        after: Option<OutPoint>,
        limit: usize,
    ) -> Result<Vec<OutPoint>, ViewError> {
        // As many of those as this may take away.
        let of_base = limit.saturating_add(self.outputs.len());
        let mut outpoints = self.base.unspent(script, after, of_base)?;
        outpoints.retain(|outpoint| !self.outputs.contains_key(outpoint));
        let ours = self
            .outputs
            .iter()
            .filter(|(_, row)| row.as_ref().is_some_and(|row| is_unspent(row, script)));
        outpoints.extend(ours.map(|(outpoint, _)| *outpoint));
        Ok(page(outpoints, after, limit))
    }

    fn history(
        &self,
        script: &ScriptHash,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Place>, ViewError> {
        let of_base = limit.saturating_add(self.txs.len());
        let mut places = self.base.history(script, after, of_base)?;
        places.retain(|(_, txid)| !self.txs.contains_key(txid));
        places.extend(self.txs.iter().filter_map(|(txid, row)| {
            let row = row.as_ref().filter(|row| touches(row, script))?;
            Some((Reverse(row.order), *txid))
        }));
        Ok(page(places, after, limit))
    }

    fn scan(&self, scan: &ScanId) -> Result<Option<ScanRow>, ViewError> {
        self.scans
            .get(scan)
            .map_or_else(|| self.base.scan(scan), |row| Ok(row.clone()))
    }

    fn scan_scripts(&self, scan: &ScanId, limit: usize) -> Result<Vec<ScriptHash>, ViewError> {
        let ours = self.scan_scripts.iter();
        let ours = ours.filter(|((other, _), _)| other == scan);
        let ours = ours.map(|((_, script), is_in)| (*script, *is_in));
        let of_base = limit.saturating_add(self.scan_scripts.len());
        let mut scripts = with_ours(self.base.scan_scripts(scan, of_base)?, ours);
        scripts.truncate(limit);
        Ok(scripts)
    }

    fn is_scan_script(&self, scan: &ScanId, script: &ScriptHash) -> Result<bool, ViewError> {
        self.scan_scripts.get(&(*scan, *script)).map_or_else(
            || self.base.is_scan_script(scan, script),
            |is_in| Ok(*is_in),
        )
    }

    fn scans_of(&self, script: &ScriptHash) -> Result<Vec<ScanId>, ViewError> {
        let ours = self.scan_scripts.iter();
        let ours = ours.filter(|((_, other), _)| other == script);
        let ours = ours.map(|((scan, _), is_in)| (*scan, *is_in));
        Ok(with_ours(self.base.scans_of(script)?, ours))
    }
}

/// What is in a list of the base, or came or left since.
fn with_ours<T: Ord>(base: Vec<T>, ours: impl Iterator<Item = (T, bool)>) -> Vec<T> {
    let mut all: BTreeSet<T> = base.into_iter().collect();
    for (item, is_in) in ours {
        match is_in {
            true => all.insert(item),
            false => all.remove(&item),
        };
    }
    all.into_iter().collect()
}
