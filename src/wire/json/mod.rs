//! The wire shapes: how domain values look to clients, the same for REST and Socket.IO.
//!
//! Amounts are integers in satoshi; a `*_btc` twin is written from the integer's digits. Times are
//! seconds since the Unix epoch as a float (milliseconds inside). Hashes are hex in display order.
//! A field that has no value is `null`, unless said otherwise.

mod descriptors;
mod events;

use bitcoin::{BlockHash, OutPoint, Txid};
use serde::Serialize;
use serde::ser::Serializer;
use serde_json::value::{RawValue, to_raw_value};

use crate::tracker::{
    self, BlockId, Coverage, Derivation, DescriptorId, DescriptorRow, OutputRow, Phase, Status,
    TxSummary, WatchRow,
};
pub use descriptors::{derived_address, descriptor_shape};
pub use events::{event, keychain};

/// Confirmations after which a coinbase output may be spent: it has 100 when the next block is the
/// one that may.
const COINBASE_MATURITY: u32 = 100;

/// Satoshi as a JSON number in bitcoin: exact, at most 8 decimals, at least one (`0.0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Btc(pub i64);

impl Serialize for Btc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const COIN: u64 = 100_000_000;
        // Up to more than all money; from there on two amounts would be one float.
        if self.0 == 0 || (1_000..=1 << 51).contains(&self.0.unsigned_abs()) {
            return serializer.serialize_f64(self.0 as f64 / COIN as f64);
        }
        let (sign, magnitude) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let decimals = format!("{:08}", magnitude % COIN);
        let decimals = match decimals.trim_end_matches('0') {
            "" => "0",
            trimmed => trimmed,
        };
        let text = format!("{sign}{}.{decimals}", magnitude / COIN);
        RawValue::from_string(text)
            .expect("digits with one point are a JSON number")
            .serialize(serializer)
    }
}

/// An object of these fields, in this order; without `: value` a field is the variable of its name.
/// A field with `?` is absent when its value is `None`. Attributes are serde's.
macro_rules! object {
    ($(
        $(#[$attribute:meta])* $name:ident $(: $value:expr)?
        $(, ? $optional:ident $(: $some:expr)?)*
    ),* $(,)?) => {{
        // A type parameter for each field, with its name.
        #[allow(non_camel_case_types)]
        let object = {
            #[derive(serde::Serialize)]
            struct Object<$($name, $($optional,)*)*> {
                $(
                    $(#[$attribute])* $name: $name,
                    $(
                        #[serde(skip_serializing_if = "Option::is_none")]
                        $optional: Option<$optional>,
                    )*
                )*
            }
            Object { $($name $(: $value)?, $($optional $(: $some)?,)*)* }
        };
        object
    }};
}
pub(crate) use object;

/// Milliseconds as seconds. Exact to the millisecond for some 285 000 years.
pub fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

/// Confirmations of a block at `height` under `tip`; 0 when there is no such block on the chain.
pub fn confirmations(tip: Option<BlockId>, height: Option<u32>) -> u32 {
    match (tip, height) {
        (Some(tip), Some(height)) => tip
            .height
            .checked_sub(height)
            .map_or(0, |above| above.saturating_add(1)),
        _ => 0,
    }
}

/// The text of any of these shapes.
pub fn to_text(shape: &impl Serialize) -> String {
    serde_json::to_string(shape).expect(NEVER_FAILS)
}

/// The same, known to be JSON.
pub fn to_raw(shape: &impl Serialize) -> Box<RawValue> {
    to_raw_value(shape).expect(NEVER_FAILS)
}

const NEVER_FAILS: &str = "wire shapes have text keys and cannot fail to serialize";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Block {
    pub height: u32,
    pub hash: BlockHash,
}

impl From<BlockId> for Block {
    fn from(block: BlockId) -> Self {
        Self {
            height: block.height,
            hash: block.hash,
        }
    }
}

/// `complete`: the balance is whole. `from_height`: first height from which every transaction is
/// known; `null` before the first block. `note`: why it does not become complete by itself, and
/// what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CoverageShape {
    pub from_height: Option<u32>,
    pub complete: bool,
    pub utxos_complete: bool,
    pub pending: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl CoverageShape {
    /// `is_in_scan`: a history scan of the address has not ended.
    pub fn new(coverage: &Coverage, is_in_scan: bool) -> Self {
        let whole = coverage.utxos_complete || coverage.from_height == 0;
        Self {
            from_height: (coverage.from_height < u32::MAX).then_some(coverage.from_height),
            complete: whole && !coverage.pending && !is_in_scan,
            utxos_complete: coverage.utxos_complete,
            pending: coverage.pending || is_in_scan,
            note: None,
        }
    }
}

/// Whose something is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum BalanceOf {
    Address { address: String },
    Descriptor { descriptor_id: String },
}

/// `GET /balance/{address}`, `GET /descriptors/{id}/balance`, and `balance` of the event
/// `subscribed`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Balance {
    #[serde(flatten)]
    pub of: BalanceOf,
    pub confirmed_balance: i64,
    pub confirmed_balance_btc: Btc,
    pub unconfirmed_balance: i64,
    pub unconfirmed_balance_btc: Btc,
    pub utxo_count: u64,
    pub last_updated: f64,
    pub balance: i64,
    pub balance_btc: Btc,
    pub immature: u64,
    pub coverage: CoverageShape,
    pub tip: Option<Block>,
    pub cursor: String,
}

/// What stands beside a balance, of the same instant. `immature`: satoshi in coinbase outputs from
/// [`first_immature`] on.
#[derive(Debug)]
pub struct BalanceState {
    pub coverage: CoverageShape,
    pub immature: u64,
    pub tip: Option<BlockId>,
    pub cursor: String,
}

impl Balance {
    pub fn new(address: &str, row: &WatchRow, state: BalanceState) -> Self {
        let of = BalanceOf::Address {
            address: address.to_owned(),
        };
        Self::of(of, row.balance, row.utxo_count, row.updated, state)
    }

    pub fn of_descriptor(id: DescriptorId, row: &DescriptorRow, state: BalanceState) -> Self {
        let of = BalanceOf::Descriptor {
            descriptor_id: id.to_string(),
        };
        Self::of(of, row.told(), row.utxo_count, row.updated, state)
    }

    fn of(
        of: BalanceOf,
        balance: tracker::Balance,
        utxo_count: u64,
        updated: u64,
        state: BalanceState,
    ) -> Self {
        Self {
            of,
            confirmed_balance: balance.confirmed,
            confirmed_balance_btc: Btc(balance.confirmed),
            unconfirmed_balance: balance.unconfirmed,
            unconfirmed_balance_btc: Btc(balance.unconfirmed),
            utxo_count,
            last_updated: seconds(updated),
            balance: balance.total(),
            balance_btc: Btc(balance.total()),
            immature: state.immature,
            coverage: state.coverage,
            tip: state.tip.map(Block::from),
            cursor: state.cursor,
        }
    }
}

/// Whether the next block may spend it.
fn is_mature(output: &OutputRow, tip: Option<BlockId>) -> bool {
    !output.coinbase || confirmations(tip, output.height) >= COINBASE_MATURITY
}

/// The height from which on the next block may not spend the outputs of coinbases.
pub fn first_immature(tip: Option<BlockId>) -> u32 {
    tip.map_or(0, |tip| tip.height.saturating_sub(COINBASE_MATURITY - 2))
}

/// One element of `GET /utxos/{address}` and, with its place in the descriptor, of `GET
/// /descriptors/{id}/utxos`.
pub fn utxo_shape<'a>(
    address: &'a str,
    place: Option<&Derivation>,
    outpoint: &OutPoint,
    row: &OutputRow,
    tip: Option<BlockId>,
) -> impl Serialize + use<'a> {
    object! {
        tx_hash: outpoint.txid,
        output_index: outpoint.vout,
        value: row.value,
        value_btc: Btc(signed(row.value)),
        address,
        ?keychain: place.map(|place| keychain(place.keychain)),
        ?index: place.map(|place| place.index),
        confirmed: row.height.is_some(),
        block_height: row.height,
        confirmations: confirmations(tip, row.height),
        coinbase: row.coinbase,
        mature: is_mature(row, tip),
        // Absent unless a mempool transaction spends it.
        ?spent_by: row.spent.map(|spend| spend.txid),
    }
}

/// One element of `GET /transactions/{address}` and of `new_transactions`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Transaction {
    pub txid: Txid,
    pub received: u64,
    pub sent: u64,
    pub net: i64,
    pub net_btc: Btc,
    pub status: &'static str,
    pub confirmations: u32,
    pub block_height: Option<u32>,
    pub block_hash: Option<BlockHash>,
    pub block_time: Option<f64>,
    pub first_seen: f64,
    pub replaceable: bool,
    pub replaced_by: Option<Txid>,
    pub conflicted_by: Option<Txid>,
}

impl Transaction {
    pub fn new(summary: &TxSummary, tip: Option<BlockId>) -> Self {
        let net = signed(summary.received).saturating_sub(signed(summary.sent));
        let (block, replaced_by, conflicted_by) = match summary.status {
            Status::Confirmed { block, .. } => (Some(block), None, None),
            Status::Replaced { by } => (None, Some(by), None),
            Status::Conflicted { by } => (None, None, Some(by)),
            Status::Mempool | Status::Evicted => (None, None, None),
        };
        Self {
            txid: summary.txid,
            received: summary.received,
            sent: summary.sent,
            net,
            net_btc: Btc(net),
            status: phase(summary.status.phase()),
            confirmations: confirmations(tip, block.map(|block| block.height)),
            block_height: block.map(|block| block.height),
            block_hash: block.map(|block| block.hash),
            block_time: summary
                .block_time
                .filter(|_| block.is_some())
                .map(f64::from),
            first_seen: seconds(summary.first_seen),
            replaceable: summary.replaceable && summary.status == Status::Mempool,
            replaced_by,
            conflicted_by,
        }
    }
}

/// A transaction's status in one word.
pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Mempool => "mempool",
        Phase::Confirmed => "confirmed",
        Phase::Replaced => "replaced",
        Phase::Conflicted => "conflicted",
        Phase::Evicted => "evicted",
    }
}

/// No amount exceeds what an `i64` holds: all the satoshi there will ever be are 2.1e15.
pub fn signed(satoshi: u64) -> i64 {
    i64::try_from(satoshi).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
