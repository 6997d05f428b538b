//! Descriptors as answers show them.

use serde::Serialize;

use super::{Btc, CoverageShape, events::keychain, object, seconds};
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
    let keychain = keychain(first.keychain);
    let what = format!(
        "bitcoind cannot tell what {keychain}/{index} owned when it was added ({} such addresses): that is too much for one answer",
        row.left_out.len()
    );
    let descriptor = descriptor.to_string();
    let remedy = Remedy::WatchDescriptorFromNow { descriptor };
    Some(format!("{what}: {remedy}"))
}

/// One element of `GET /descriptors`, and the answer to `POST /descriptors`.
pub fn descriptor_shape(
    id: DescriptorId,
    row: &DescriptorRow,
    wallet: &WalletRow,
    coverage: CoverageShape,
) -> impl Serialize + use<> {
    let keychains = [Keychain::External, Keychain::Internal];
    let keychains = keychains.into_iter().zip(&row.keychains);
    object! {
        descriptor_id: id.to_string(),
        descriptor: wallet.text.clone(),
        label: wallet.label.clone(),
        added: seconds(wallet.added),
        gap_limit: row.gap_limit,
        keychains: keychains.map(|(name, row)| keychain_shape(name, row)).collect::<Vec<_>>(),
        confirmations: row.depths.clone(),
        coverage,
    }
}

/// `watched_to`: the last index that `coverage` speaks for.
fn keychain_shape(name: Keychain, row: &KeychainRow) -> impl Serialize + use<> {
    object! {
        keychain: keychain(name),
        next_index: row.next_index(),
        last_used: row.last_used,
        watched_to: row.watched_to.checked_sub(1),
    }
}

/// One element of `GET /descriptors/{id}/addresses`.
pub fn derived_address(
    address: &str,
    place: &Derivation,
    row: &WatchRow,
    coverage: CoverageShape,
) -> impl Serialize + use<> {
    let (balance, total) = (row.balance, row.balance.total());
    object! {
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
