//! The list of tables: each kind of row, by what it is found. Whatever holds rows of all kinds is
//! made from it, here, in [`super::view`], in [`super::change_builder`] and in `crate::store`: a
//! new kind of row is a line of the list, and in the store its bytes and the lookup rows that lead
//! to it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, Txid};

use super::{
    BlockId, BlockRow, Derivation, DescriptorId, DescriptorRow, DescriptorScan, OutputRow, ScanId,
    ScanRow, ScriptHash, TxRow, WalletRow, WatchRow,
};

/// Hands the list to a macro: each table, what reads a row of it, its key and its row. What only is
/// there or not has `()` for a row; what is there once has it for a key.
macro_rules! for_each_table {
    ($then:ident) => {
        $then! {
            watches: watch(ScriptHash) -> WatchRow,
            outputs: output(OutPoint) -> OutputRow,
            txs: tx(Txid) -> TxRow,
            // The transactions themselves: written once, however often their rows change.
            raw_txs: raw_tx(Txid) -> Arc<Transaction>,
            blocks: block(u32) -> BlockRow,
            scans: scan(ScanId) -> ScanRow,
            scan_scripts: scan_script((ScanId, ScriptHash)) -> (),
            // Of those that are for a descriptor.
            descriptor_scans: descriptor_scan(ScanId) -> DescriptorScan,
            // Scripts that are not watched any more, and some of whose rows are still there.
            forgetting: forgotten(ScriptHash) -> (),
            // The scripts, ascending, that are new in an add which is not finished.
            adding: adding_row(()) -> Vec<ScriptHash>,
            descriptors: descriptor(DescriptorId) -> DescriptorRow,
            // What was asked for: written seldom, beside rows that change with each payment.
            wallets: wallet(DescriptorId) -> WalletRow,
            derivations: derivation(Derivation) -> ScriptHash,
            // Outputs that count for a descriptor, and whose spend is not confirmed.
            owned_outputs: owned_output((DescriptorId, OutPoint)) -> (),
            // Scripts that had a past when they came to a descriptor: it does not count yet.
            joining: joining_script(Derivation) -> (),
            // Descriptors that are not watched any more, and some of whose rows are still there.
            leaving: leaving_descriptor(DescriptorId) -> (),
            tip: tip_row(()) -> BlockId,
        }
    };
}

pub(crate) use for_each_table;

/// A row as it was and as it is; `None`: it does not exist there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff<R> {
    pub old: Option<R>,
    pub new: Option<R>,
}

/// What changed in one table.
pub type Diffs<K, R> = HashMap<K, Diff<R>>;

fn add<K: Eq + Hash, R>(diffs: &mut Diffs<K, R>, later: Diffs<K, R>) {
    if diffs.is_empty() {
        *diffs = later;
        return;
    }
    for (key, diff) in later {
        match diffs.entry(key) {
            Entry::Occupied(mut known) => known.get_mut().new = diff.new,
            Entry::Vacant(free) => _ = free.insert(diff),
        }
    }
}

macro_rules! change_set {
    ($($table:ident: $one:ident($key:ty) -> $row:ty,)*) => {
        /// The difference between two states.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct ChangeSet {
            $(pub $table: Diffs<$key, $row>,)*
        }

        impl ChangeSet {
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Rows that change.
            pub fn len(&self) -> usize {
                [$(self.$table.len()),*].iter().sum()
            }

            /// Both, one after the other.
            pub fn add(&mut self, later: Self) {
                $(add(&mut self.$table, later.$table);)*
            }

            /// Without rows that are as they were.
            pub fn only_real(mut self) -> Self {
                $(self.$table.retain(|_, diff| diff.old != diff.new);)*
                self
            }

            /// The change set that takes this one back.
            pub fn inverse(mut self) -> Self {
                $(self.$table.values_mut().for_each(|it| std::mem::swap(&mut it.old, &mut it.new));)*
                self
            }
        }
    };
}

for_each_table!(change_set);
