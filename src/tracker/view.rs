//! The rows that the core may read: [`View`], maps that implement it for tests, and [`Overlay`], a
//! view with changes on top.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, Txid};

use super::tables::for_each_table;
use super::{
    BlockId, BlockRow, ChangeSet, Derivation, DescriptorId, DescriptorRow, DescriptorScan,
    Keychain, OutputRow, ScanId, ScanRow, ScanState, ScriptHash, TxRow, WalletRow, WatchRow,
};

/// A row that cannot be read. Always fatal: the store is damaged or unreadable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the store: {0}")]
pub struct ViewError(pub String);

/// Where a transaction stands in histories: newer ones come first.
pub type Place = (Reverse<u64>, Txid);

macro_rules! views {
    ($($table:ident: $one:ident($key:ty) -> $row:ty,)*) => {
        /// Read access to single rows, as of the last transition.
        pub trait Rows {
            $(fn $one(&self, key: &$key) -> Result<Option<$row>, ViewError>;)*
        }

        /// Rows in maps: the view of tests.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct MemoryView {
            $(pub $table: HashMap<$key, $row>,)*
        }

        impl MemoryView {
            pub fn commit(&mut self, changes: &ChangeSet) {
                $(for (key, diff) in &changes.$table {
                    match diff.new.clone() {
                        Some(row) => _ = self.$table.insert(*key, row),
                        None => _ = self.$table.remove(key),
                    }
                })*
            }
        }

        impl Rows for MemoryView {
            $(fn $one(&self, key: &$key) -> Result<Option<$row>, ViewError> {
                Ok(self.$table.get(key).cloned())
            })*
        }

        impl<V: Rows> Rows for Overlay<'_, V> {
            $(fn $one(&self, key: &$key) -> Result<Option<$row>, ViewError> {
                match self.changes.$table.get(key) {
                    Some(diff) => Ok(diff.new.clone()),
                    None => self.base.$one(key),
                }
            })*
        }
    };
}

for_each_table!(views);

/// Read access to the rows, as of the last transition.
pub trait View: Rows {
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
    /// The scripts of a scan, ascending, at most `limit`.
    fn scan_scripts(&self, scan: &ScanId, limit: usize) -> Result<Vec<ScriptHash>, ViewError>;
    /// The scans that a script is in, ascending, at most `limit` of those above `after`.
    fn scans_of(
        &self,
        script: &ScriptHash,
        after: Option<ScanId>,
        limit: usize,
    ) -> Result<Vec<ScanId>, ViewError>;
    /// The same of a descriptor.
    fn descriptor_history(
        &self,
        descriptor: &DescriptorId,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Place>, ViewError>;
    /// The outputs that count for a descriptor, ascending, at most `limit` of those above `after`.
    fn owned_by(
        &self,
        descriptor: &DescriptorId,
        after: Option<OutPoint>,
        limit: usize,
    ) -> Result<Vec<OutPoint>, ViewError>;
    /// Where a descriptor has scripts, ascending, at most `limit` of those above `after`.
    fn derivations_of(
        &self,
        descriptor: &DescriptorId,
        after: Option<(Keychain, u32)>,
        limit: usize,
    ) -> Result<Vec<Derivation>, ViewError>;
    /// Why the transaction of a row cannot be read, when there is none.
    fn missing_tx(&self, txid: &Txid) -> ViewError {
        ViewError(format!("transaction {txid} is missing"))
    }
}

/// A view with changes on top, so that several transitions see each other before they are committed
/// as one batch.
#[derive(Debug)]
pub struct Overlay<'a, V> {
    base: &'a V,
    changes: ChangeSet,
}

impl<'a, V> Overlay<'a, V> {
    pub fn new(base: &'a V) -> Self {
        let changes = ChangeSet::default();
        Self { base, changes }
    }

    pub fn add(&mut self, changes: ChangeSet) {
        self.changes.add(changes);
    }

    /// All that was added, as one difference.
    pub fn into_changes(self) -> ChangeSet {
        self.changes.only_real()
    }
}

/// Whether an output is among those of [`View::unspent`].
fn is_unspent(row: &OutputRow, script: &ScriptHash) -> bool {
    row.script == *script && row.spent.is_none_or(|spend| spend.height.is_none())
}

pub(super) fn touches(row: &TxRow, script: &ScriptHash) -> bool {
    row.touches.iter().any(|touch| touch.script == *script)
}

fn nets(row: &TxRow, descriptor: &DescriptorId) -> bool {
    row.nets.iter().any(|net| net.descriptor == *descriptor)
}

/// The place behind which those of a page are.
fn behind(descriptor: &DescriptorId, after: Option<(Keychain, u32)>) -> Option<Derivation> {
    after.map(|(keychain, index)| Derivation {
        descriptor: *descriptor,
        keychain,
        index,
    })
}

/// The first `limit` of these above `after`.
fn page<T: Ord>(all: impl Iterator<Item = T>, after: Option<T>, limit: usize) -> Vec<T> {
    let is_above = |item: &T| after.as_ref().is_none_or(|after| item > after);
    let mut all: Vec<T> = all.filter(is_above).collect();
    all.sort_unstable();
    all.truncate(limit);
    all
}

impl MemoryView {
    pub fn tip(&self) -> Option<BlockId> {
        self.tip.get(&()).copied()
    }

    /// The history scans that have not ended, ascending.
    pub fn open_scans(&self) -> Vec<ScanId> {
        let scans = self.scans.iter();
        let open = scans.filter(|(_, row)| row.state == ScanState::Open);
        page(open.map(|(scan, _)| *scan), None, usize::MAX)
    }
}

impl View for MemoryView {
    fn watches_above(&self, height: u32) -> Result<Vec<ScriptHash>, ViewError> {
        let watches = self.watches.iter();
        let above = watches.filter(|(_, row)| row.coverage.from_height > height);
        Ok(above.map(|(script, _)| *script).collect())
    }

    fn unspent(
        &self,
        script: &ScriptHash,
        after: Option<OutPoint>,
        limit: usize,
    ) -> Result<Vec<OutPoint>, ViewError> {
        let outputs = self.outputs.iter();
        let unspent = outputs.filter(|(_, row)| is_unspent(row, script));
        Ok(page(unspent.map(|(outpoint, _)| *outpoint), after, limit))
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
        Ok(page(places, after, limit))
    }

    fn scan_scripts(&self, scan: &ScanId, limit: usize) -> Result<Vec<ScriptHash>, ViewError> {
        let all = self.scan_scripts.keys();
        let scripts = all.filter(|(other, _)| other == scan);
        Ok(page(scripts.map(|(_, script)| *script), None, limit))
    }

    fn scans_of(
        &self,
        script: &ScriptHash,
        after: Option<ScanId>,
        limit: usize,
    ) -> Result<Vec<ScanId>, ViewError> {
        let all = self.scan_scripts.keys();
        let scans = all.filter(|(_, other)| other == script);
        Ok(page(scans.map(|(scan, _)| *scan), after, limit))
    }

    fn descriptor_history(
        &self,
        descriptor: &DescriptorId,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Place>, ViewError> {
        let txs = self.txs.iter();
        let history = txs.filter(|(_, row)| nets(row, descriptor));
        let places = history.map(|(txid, row)| (Reverse(row.order), *txid));
        Ok(page(places, after, limit))
    }

    fn owned_by(
        &self,
        descriptor: &DescriptorId,
        after: Option<OutPoint>,
        limit: usize,
    ) -> Result<Vec<OutPoint>, ViewError> {
        let all = self.owned_outputs.keys();
        let owned = all.filter(|(other, _)| other == descriptor);
        Ok(page(owned.map(|(_, outpoint)| *outpoint), after, limit))
    }

    fn derivations_of(
        &self,
        descriptor: &DescriptorId,
        after: Option<(Keychain, u32)>,
        limit: usize,
    ) -> Result<Vec<Derivation>, ViewError> {
        let all = self.derivations.keys();
        let places = all.filter(|place| place.descriptor == *descriptor);
        Ok(page(places.copied(), behind(descriptor, after), limit))
    }
}

/// Of the base as many are asked for as the changes may take away.
impl<V: View> View for Overlay<'_, V> {
    fn watches_above(&self, height: u32) -> Result<Vec<ScriptHash>, ViewError> {
        let ours = &self.changes.watches;
        let mut scripts = self.base.watches_above(height)?;
        scripts.retain(|script| !ours.contains_key(script));
        let is_above = |row: &WatchRow| row.coverage.from_height > height;
        let above = ours
            .iter()
            .filter(|(_, it)| it.new.as_ref().is_some_and(is_above));
        scripts.extend(above.map(|(script, _)| *script));
        Ok(scripts)
    }

    fn unspent(
        &self,
        script: &ScriptHash,
        after: Option<OutPoint>,
        limit: usize,
    ) -> Result<Vec<OutPoint>, ViewError> {
        let ours = &self.changes.outputs;
        let of_base = limit.saturating_add(ours.len());
        let mut outpoints = self.base.unspent(script, after, of_base)?;
        outpoints.retain(|outpoint| !ours.contains_key(outpoint));
        let is_unspent = |row: &OutputRow| is_unspent(row, script);
        let unspent = ours
            .iter()
            .filter(|(_, it)| it.new.as_ref().is_some_and(is_unspent));
        outpoints.extend(unspent.map(|(outpoint, _)| *outpoint));
        Ok(page(outpoints.into_iter(), after, limit))
    }

    fn history(
        &self,
        script: &ScriptHash,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Place>, ViewError> {
        let ours = &self.changes.txs;
        let of_base = limit.saturating_add(ours.len());
        let mut places = self.base.history(script, after, of_base)?;
        places.retain(|(_, txid)| !ours.contains_key(txid));
        places.extend(ours.iter().filter_map(|(txid, it)| {
            let row = it.new.as_ref().filter(|row| touches(row, script))?;
            Some((Reverse(row.order), *txid))
        }));
        Ok(page(places.into_iter(), after, limit))
    }

    fn scan_scripts(&self, scan: &ScanId, limit: usize) -> Result<Vec<ScriptHash>, ViewError> {
        let ours = &self.changes.scan_scripts;
        let of_base = limit.saturating_add(ours.len());
        let mut scripts = self.base.scan_scripts(scan, of_base)?;
        scripts.retain(|script| !ours.contains_key(&(*scan, *script)));
        let is_in = ours.iter().filter(|(_, it)| it.new.is_some());
        let of_scan = is_in.filter(|((other, _), _)| other == scan);
        scripts.extend(of_scan.map(|((_, script), _)| *script));
        Ok(page(scripts.into_iter(), None, limit))
    }

    fn scans_of(
        &self,
        script: &ScriptHash,
        after: Option<ScanId>,
        limit: usize,
    ) -> Result<Vec<ScanId>, ViewError> {
        let ours = &self.changes.scan_scripts;
        let of_base = limit.saturating_add(ours.len());
        let mut scans = self.base.scans_of(script, after, of_base)?;
        scans.retain(|scan| !ours.contains_key(&(*scan, *script)));
        let is_in = ours.iter().filter(|(_, it)| it.new.is_some());
        let of_script = is_in.filter(|((_, other), _)| other == script);
        scans.extend(of_script.map(|((scan, _), _)| *scan));
        Ok(page(scans.into_iter(), after, limit))
    }

    fn descriptor_history(
        &self,
        descriptor: &DescriptorId,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Place>, ViewError> {
        let ours = &self.changes.txs;
        let of_base = limit.saturating_add(ours.len());
        let mut places = self.base.descriptor_history(descriptor, after, of_base)?;
        places.retain(|(_, txid)| !ours.contains_key(txid));
        places.extend(ours.iter().filter_map(|(txid, it)| {
            let row = it.new.as_ref().filter(|row| nets(row, descriptor))?;
            Some((Reverse(row.order), *txid))
        }));
        Ok(page(places.into_iter(), after, limit))
    }

    fn owned_by(
        &self,
        descriptor: &DescriptorId,
        after: Option<OutPoint>,
        limit: usize,
    ) -> Result<Vec<OutPoint>, ViewError> {
        let ours = &self.changes.owned_outputs;
        let of_base = limit.saturating_add(ours.len());
        let mut outpoints = self.base.owned_by(descriptor, after, of_base)?;
        outpoints.retain(|outpoint| !ours.contains_key(&(*descriptor, *outpoint)));
        let is_there = ours.iter().filter(|(_, it)| it.new.is_some());
        let owned = is_there.filter(|((other, _), _)| other == descriptor);
        outpoints.extend(owned.map(|((_, outpoint), _)| *outpoint));
        Ok(page(outpoints.into_iter(), after, limit))
    }

    fn derivations_of(
        &self,
        descriptor: &DescriptorId,
        after: Option<(Keychain, u32)>,
        limit: usize,
    ) -> Result<Vec<Derivation>, ViewError> {
        let ours = &self.changes.derivations;
        let of_base = limit.saturating_add(ours.len());
        let mut places = self.base.derivations_of(descriptor, after, of_base)?;
        places.retain(|place| !ours.contains_key(place));
        let is_there = ours.iter().filter(|(_, it)| it.new.is_some());
        let of_descriptor = is_there.filter(|(place, _)| place.descriptor == *descriptor);
        places.extend(of_descriptor.map(|(place, _)| *place));
        Ok(page(places.into_iter(), behind(descriptor, after), limit))
    }

    fn missing_tx(&self, txid: &Txid) -> ViewError {
        self.base.missing_tx(txid)
    }
}
