//! Descriptors as answers show them.

use schemars::JsonSchema;
use serde::Serialize;

use super::events::{KeychainName, keychain};
use super::{Btc, CoverageShape, seconds};
use crate::remedy::Remedy;
use crate::tracker::{
    Baseline, Derivation, DescriptorId, DescriptorRow, Keychain, KeychainRow, WalletRow, WatchRow,
};

impl CoverageShape {
    /// Of all scripts of a descriptor below `watched_to`.
    pub fn of_descriptor(row: &DescriptorRow, wallet: &WalletRow, is_in_scan: bool) -> Self {
        let is_pending = row.is_pending();
        let is_told = !is_pending && row.left_out.is_empty();
        let utxos_complete = wallet.baseline != Baseline::Skip && is_told;
        let whole = row.left_out.is_empty() && (utxos_complete || row.from_height == 0);
        Self {
            from_height: (row.from_height < u32::MAX).then_some(row.from_height),
            complete: whole && !is_pending && !is_in_scan,
            utxos_complete,
            pending: is_pending || is_in_scan,
            note: left_out(row),
        }
    }
}

/// The node cannot tell what some of its scripts owned: the first of them, and what to do.
fn left_out(row: &DescriptorRow) -> Option<String> {
    let first = row.left_out.first()?;
    let Derivation {
        descriptor, index, ..
    } = first;
    let keychain = keychain(first.keychain).word();
    let what = format!(
        "bitcoind cannot tell what {keychain}/{index} owned when it was added ({} such addresses): that is too much for one answer",
        row.left_out.len()
    );
    let descriptor = descriptor.to_string();
    let remedy = Remedy::WatchDescriptorFromNow { descriptor };
    Some(format!("{what}: {remedy}"))
}

/// A descriptor that is watched.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Descriptor")]
pub struct DescriptorShape {
    /// A hash of its normal form, the same for each way to spell it.
    pub descriptor_id: String,
    /// Public, with its checksum.
    pub descriptor: String,
    pub label: String,
    /// Seconds since the Unix epoch.
    pub added: f64,
    /// How many unused indexes are watched behind the last used one.
    pub gap_limit: u32,
    pub keychains: Vec<KeychainShape>,
    /// Depths that are told.
    pub confirmations: Vec<u8>,
    pub coverage: CoverageShape,
}

/// A keychain of a descriptor.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DescriptorKeychain")]
pub struct KeychainShape {
    pub keychain: KeychainName,
    /// The index of the next address that is given away.
    pub next_index: u32,
    pub last_used: Option<u32>,
    /// The last index that `coverage` speaks for.
    pub watched_to: Option<u32>,
}

pub fn descriptor_shape(
    id: DescriptorId,
    row: &DescriptorRow,
    wallet: &WalletRow,
    coverage: CoverageShape,
) -> DescriptorShape {
    let keychains = [Keychain::External, Keychain::Internal];
    let keychains = keychains.into_iter().zip(&row.keychains);
    DescriptorShape {
        descriptor_id: id.to_string(),
        descriptor: wallet.text.clone(),
        label: wallet.label.clone(),
        added: seconds(wallet.added),
        gap_limit: row.gap_limit,
        keychains: keychains
            .map(|(name, row)| KeychainShape::new(name, row))
            .collect(),
        confirmations: row.depths.clone(),
        coverage,
    }
}

impl KeychainShape {
    fn new(name: Keychain, row: &KeychainRow) -> Self {
        Self {
            keychain: keychain(name),
            next_index: row.next_index(),
            last_used: row.last_used,
            watched_to: row.watched_to.checked_sub(1),
        }
    }
}

/// An address of a descriptor. Amounts are in satoshi.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DerivedAddress {
    pub address: String,
    pub keychain: KeychainName,
    pub index: u32,
    /// It was paid to.
    pub used: bool,
    pub label: String,
    pub confirmed_balance: i64,
    pub confirmed_balance_btc: Btc,
    /// What the mempool adds to the confirmed balance, or takes from it.
    pub unconfirmed_balance: i64,
    pub unconfirmed_balance_btc: Btc,
    /// Confirmed and unconfirmed together.
    pub balance: i64,
    pub balance_btc: Btc,
    pub utxo_count: u64,
    pub transaction_count: u64,
    pub coverage: CoverageShape,
}

pub fn derived_address(
    address: &str,
    place: &Derivation,
    row: &WatchRow,
    coverage: CoverageShape,
) -> DerivedAddress {
    let (balance, total) = (row.balance, row.balance.total());
    DerivedAddress {
        address: address.to_owned(),
        keychain: keychain(place.keychain),
        index: place.index,
        used: row.outputs > 0,
        label: row.label.clone(),
        confirmed_balance: balance.confirmed,
        confirmed_balance_btc: Btc(balance.confirmed),
        unconfirmed_balance: balance.unconfirmed,
        unconfirmed_balance_btc: Btc(balance.unconfirmed),
        balance: total,
        balance_btc: Btc(total),
        utxo_count: row.utxo_count,
        transaction_count: row.tx_count,
        coverage,
    }
}
