//! The store at one instant, as answers tell of it.

use std::ops::Deref;

use bitcoin::{BlockHash, Script, ScriptBuf};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::store::{Snapshot, StoreError, StoreReader};
use crate::tracker::{BlockId, DescriptorId, DescriptorRow, ScriptHash, WalletRow, WatchRow};
use crate::wire::address::{self, KnownAddress};
use crate::wire::json::{Balance, BalanceState, CoverageShape, first_immature};
use crate::wire::request::descriptors::no_such_descriptor;
use crate::wire::schema::Hash;
use crate::wire::{ApiError, EventEncoder};

/// The tip, with the time in its header, which is `null` when the block came before the store knows
/// blocks.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Tip")]
pub struct TipShape {
    height: u32,
    #[schemars(with = "Hash")]
    hash: BlockHash,
    /// Seconds since the Unix epoch.
    time: Option<f64>,
}

/// A snapshot, and what its cursors and addresses are written with.
pub struct StoreView<'a> {
    pub reader: &'a StoreReader,
    pub encoder: &'a EventEncoder,
    snapshot: Snapshot<'a>,
}

impl<'a> Deref for StoreView<'a> {
    type Target = Snapshot<'a>;

    fn deref(&self) -> &Snapshot<'a> {
        &self.snapshot
    }
}

impl<'a> StoreView<'a> {
    pub(super) fn new(reader: &'a StoreReader, encoder: &'a EventEncoder) -> Self {
        Self {
            reader,
            encoder,
            snapshot: reader.snapshot(),
        }
    }

    /// The cursor of the last event.
    pub fn cursor(&self) -> Result<String, StoreError> {
        Ok(self.encoder.cursor(self.head()?))
    }

    /// The address of a watched script.
    pub fn address_of(&self, spk: &Script) -> String {
        address::text(spk, self.encoder.network)
    }

    pub fn known(&self, spk: ScriptBuf) -> KnownAddress {
        KnownAddress {
            text: self.address_of(&spk),
            script: ScriptHash::of(&spk),
            spk,
        }
    }

    pub fn tip_shape(&self) -> Result<Option<TipShape>, StoreError> {
        let Some(BlockId { height, hash }) = self.tip()? else {
            return Ok(None);
        };
        let time = self.block(&height)?.map(|block| f64::from(block.time));
        Ok(Some(TipShape { height, hash, time }))
    }

    /// The row of a watched address, or 404.
    pub fn watched(&self, address: &KnownAddress) -> Result<WatchRow, ApiError> {
        self.watch(&address.script)?
            .ok_or_else(|| ApiError::not_watched(&address.text))
    }

    /// The balance of a watched address.
    pub fn balance(&self, address: &KnownAddress) -> Result<Balance, ApiError> {
        let (row, tip) = (self.watched(address)?, self.tip()?);
        let immature = match row.utxo_count {
            0 => 0,
            _ => {
                let first = first_immature(tip);
                // What a baseline has brought is not in the balance before it is whole.
                let shown = match row.coverage.staged {
                    Some(_) => first.max(row.coverage.from_height),
                    None => first,
                };
                self.coinbase_value(&address.script, shown)?
            }
        };
        let state = BalanceState {
            coverage: self.coverage(&address.script, &row)?,
            immature,
            tip,
            cursor: self.cursor()?,
        };
        Ok(Balance::new(&address.text, &row, state))
    }

    /// The rows of a descriptor, or 404.
    pub fn wallet_rows(&self, id: &DescriptorId) -> Result<(DescriptorRow, WalletRow), ApiError> {
        wallet_rows(self, id)
    }

    /// Each of these descriptors once, ascending; or 404, which says which of the list is unknown.
    pub fn known_descriptors(
        &self,
        list: &str,
        mut ids: Vec<DescriptorId>,
    ) -> Result<Vec<DescriptorId>, ApiError> {
        for (place, id) in ids.iter().enumerate() {
            let known = self.wallet_rows(id);
            known.map_err(|error| error.at(list, place))?;
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// The balance of a descriptor.
    pub fn descriptor_balance(&self, id: &DescriptorId) -> Result<Balance, ApiError> {
        let ((row, wallet), tip) = (self.wallet_rows(id)?, self.tip()?);
        let immature = match tip.filter(|_| row.utxo_count > 0) {
            Some(tip) => self.descriptor_coinbase_value(id, first_immature(Some(tip)), tip)?,
            None => 0,
        };
        let state = BalanceState {
            coverage: self.descriptor_coverage(id, &row, &wallet)?,
            immature,
            tip,
            cursor: self.cursor()?,
        };
        Ok(Balance::of_descriptor(*id, &row, wallet.label, state))
    }

    /// What the rows of a descriptor say of its past, as answers show it.
    pub fn descriptor_coverage(
        &self,
        id: &DescriptorId,
        row: &DescriptorRow,
        wallet: &WalletRow,
    ) -> Result<CoverageShape, StoreError> {
        descriptor_coverage(self, id, row, wallet)
    }

    /// What a watched script's row says of its past, as answers show it.
    pub fn coverage(
        &self,
        script: &ScriptHash,
        row: &WatchRow,
    ) -> Result<CoverageShape, StoreError> {
        Ok(CoverageShape::of_address(row, self.is_in_scan(script)?))
    }
}

/// The rows of a descriptor, or 404.
pub fn wallet_rows(
    snapshot: &Snapshot<'_>,
    id: &DescriptorId,
) -> Result<(DescriptorRow, WalletRow), ApiError> {
    let rows = snapshot.descriptor(id)?.zip(snapshot.wallet(id)?);
    rows.ok_or_else(no_such_descriptor)
}

/// What the rows of a descriptor say of its past, as answers show it.
pub fn descriptor_coverage(
    snapshot: &Snapshot<'_>,
    id: &DescriptorId,
    row: &DescriptorRow,
    wallet: &WalletRow,
) -> Result<CoverageShape, StoreError> {
    let is_in_scan = snapshot.is_descriptor_in_scan(id)?;
    Ok(CoverageShape::of_descriptor(row, wallet, is_in_scan))
}
