//! The rows of descriptors.

use super::{Derivation, Keychain, LOOKAHEAD};
use crate::tracker::{Balance, Baseline};

/// A descriptor as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletRow {
    /// Public, with checksum.
    pub text: String,
    pub label: String,
    pub added: u64,
    /// What is found out about the past of its scripts.
    pub baseline: Baseline,
}

/// What changes with its payments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptorRow {
    /// External, then internal if there is one.
    pub keychains: Vec<KeychainRow>,
    /// Without, it has one script in each keychain.
    pub is_ranged: bool,
    pub gap_limit: u32,
    /// Confirmation depths that subscribers asked to be told about, ascending; 1 is always among
    /// them.
    pub depths: Vec<u8>,
    /// First height from which every transaction of the scripts below `watched_to` is known.
    pub from_height: u32,
    /// Scripts whose past is not known and is awaited before the balance counts as whole.
    pub awaited: u64,
    /// Until its first baseline is whole, or while scripts with a past join it: the balance that
    /// was told last.
    pub held: Option<Balance>,
    pub balance: Balance,
    /// Outputs that no transaction we know of spends.
    pub utxo_count: u64,
    pub tx_count: u64,
    /// Time of the last change of balance or history.
    pub updated: u64,
    /// Scripts whose past the node cannot tell, ascending: it is not awaited, and not in the
    /// balance.
    pub left_out: Vec<Derivation>,
}

impl DescriptorRow {
    pub fn keychain(&self, keychain: Keychain) -> Option<&KeychainRow> {
        self.keychains.get(keychain as usize)
    }

    pub fn keychain_mut(&mut self, keychain: Keychain) -> Option<&mut KeychainRow> {
        self.keychains.get_mut(keychain as usize)
    }

    /// The balance that subscribers know.
    pub fn told(&self) -> Balance {
        self.held.unwrap_or(self.balance)
    }

    /// Whether all scripts that it wants are watched.
    pub fn is_derived(&self) -> bool {
        self.is_derived_beyond(LOOKAHEAD)
    }

    pub(in crate::tracker) fn is_derived_beyond(&self, lookahead: u32) -> bool {
        let keychains = [Keychain::External, Keychain::Internal];
        let mut keychains = keychains.into_iter();
        keychains.all(|it| self.wants_beyond(it, lookahead).is_none())
    }

    /// Whether something of its past is awaited, also of scripts that a use far away, or who asks
    /// for a range, has brought into the window: more beyond it is no reason to wait.
    pub fn is_pending(&self) -> bool {
        let is_behind = |it: &KeychainRow| it.watched_to < self.end(it.window);
        self.held.is_some() || self.awaited > 0 || self.keychains.iter().any(is_behind)
    }

    /// Scripts that are watched or, since they are wanted, soon will be.
    pub fn scripts(&self) -> u64 {
        let keychains = [Keychain::External, Keychain::Internal].into_iter();
        let counts = keychains.filter_map(|keychain| {
            let row = self.keychain(keychain)?;
            let wanted = self.wants(keychain).unwrap_or_default();
            Some(u64::from(row.derived.max(row.first).max(wanted)))
        });
        counts.sum()
    }

    /// Scripts that are watched beyond the window, in each keychain: at least so many.
    pub(super) fn lookahead(&self, least: u32) -> u32 {
        least.max(self.gap_limit.saturating_mul(2))
    }
}

/// Indexes of a keychain. Those that end something are the first one behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeychainRow {
    /// While a use that was taken back is followed by a look for the one before it: an index that
    /// this is not above.
    pub last_used: Option<u32>,
    /// First index that was never reserved, nor is below one that was. One whose use was taken back
    /// counts as reserved.
    pub reserved: u32,
    /// `gap_limit` beyond the last use and the last reservation there ever was.
    pub window: u32,
    /// What is known of all scripts below it is what the descriptor's coverage says.
    pub watched_to: u32,
    /// All scripts below it are watched.
    pub derived: u32,
    /// The scripts below it are in the first baseline.
    pub first: u32,
}

impl KeychainRow {
    /// The index that is reserved next.
    pub fn next_index(&self) -> u32 {
        let unused = self.last_used.map_or(0, |index| index.saturating_add(1));
        self.reserved.max(unused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_that_are_wanted_count_before_they_are_derived() {
        let keychain = KeychainRow {
            window: 20,
            derived: 1020,
            first: 1020,
            ..KeychainRow::default()
        };
        let mut row = DescriptorRow {
            keychains: vec![keychain; 2],
            is_ranged: true,
            gap_limit: 20,
            depths: vec![1],
            from_height: 0,
            awaited: 0,
            held: None,
            balance: Balance::default(),
            left_out: Vec::new(),
            utxo_count: 0,
            tx_count: 0,
            updated: 0,
        };
        assert_eq!(row.scripts(), 2040);
        row.keychains[0].window = 200_000;
        // With some more, which come with those.
        assert_eq!(row.scripts(), 201_100 + 1020);
        row.is_ranged = false;
        row.keychains = vec![KeychainRow::default()];
        assert_eq!(row.scripts(), 1);
    }
}
