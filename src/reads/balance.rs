//! The balance of an address at one instant.

use crate::store::Snapshot;
use crate::tracker::WatchRow;
use crate::wire::address::KnownAddress;
use crate::wire::json::{Balance, first_immature};
use crate::wire::{ApiError, EventEncoder};

/// The row of a watched address, or 404.
pub fn watched(snapshot: &Snapshot<'_>, address: &KnownAddress) -> Result<WatchRow, ApiError> {
    snapshot
        .watch(&address.script)?
        .ok_or_else(|| ApiError::not_watched(&address.text))
}

/// The balance of an address in a snapshot.
pub fn balance_in(
    snapshot: &Snapshot<'_>,
    address: &KnownAddress,
    encoder: &EventEncoder,
) -> Result<Balance, ApiError> {
    let row = watched(snapshot, address)?;
    let tip = snapshot.tip()?;
    let immature = match row.utxo_count {
        0 => 0,
        _ => snapshot.coinbase_value(&address.script, first_immature(tip))?,
    };
    Ok(Balance::new(
        &address.text,
        &row,
        immature,
        tip,
        encoder.cursor(snapshot.head()?),
    ))
}
