//! The wire shapes: how domain values look to clients, the same for REST and Socket.IO.
//!
//! Amounts are integers in satoshi; a `*_btc` twin is written from the integer's digits. Times are
//! seconds since the Unix epoch as a float (milliseconds inside). Hashes are hex in display order.
//! A field that has no value is `null`, unless said otherwise.

mod descriptors;
mod events;
mod server_events;

use bitcoin::{BlockHash, OutPoint, Txid};
use schemars::{JsonSchema, json_schema};
use serde::Serialize;
use serde::ser::Serializer;
use serde_json::value::{RawValue, to_raw_value};

use crate::remedy::Remedy;
use crate::tracker::{
    self, BlockId, Coverage, Derivation, DescriptorId, DescriptorRow, OutputRow, Phase, Status,
    TxSummary, WatchRow,
};
use crate::wire::schema::{Hash, inline_schema};
pub use descriptors::{DerivedAddress, DescriptorShape, derived_address, descriptor_shape};
pub use events::{KeychainName, LOG_EVENTS, OwnerShape, event, keychain};
pub(crate) use server_events::server_events;
pub use server_events::{EventRow, NAMESPACE, ServerEvent};

/// Confirmations after which a coinbase output may be spent: it has 100 when the next block is the
/// one that may.
const COINBASE_MATURITY: u32 = 100;

/// Satoshi as a JSON number in bitcoin: exact, at most 8 decimals, at least one (`0.0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Btc(pub i64);

inline_schema!(Btc, "Btc", |_generator| json_schema!({
    "type": "number",
    "description": "The same in bitcoin, with at most 8 decimals: exact.",
}));

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

/// A block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Block {
    pub height: u32,
    #[schemars(with = "Hash")]
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

/// How much of the past is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Coverage")]
pub struct CoverageShape {
    /// The first height from which on every transaction is known; `null` before the first block.
    pub from_height: Option<u32>,
    /// The balance is whole.
    pub complete: bool,
    /// The unspent outputs from before it was watched are known.
    pub utxos_complete: bool,
    /// Something of the past is still being found out.
    pub pending: bool,
    /// Why it does not become complete by itself, and what to do.
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

    /// Of a watched address, with what to do if the node cannot tell what it owned. One that is not
    /// listed by itself is of a descriptor.
    pub fn of_address(row: &WatchRow, is_in_scan: bool) -> Self {
        let is_left_out = row.coverage.left_out && row.coverage.pending;
        let remedy = match row.derivations.first().filter(|_| !row.listed) {
            None => Remedy::WatchFromNow,
            Some(of) => Remedy::WatchDescriptorFromNow {
                descriptor: of.descriptor.to_string(),
            },
        };
        let what =
            "bitcoind cannot tell what it owned when it was added: that is too much for one answer";
        let note = is_left_out.then(|| format!("{what}: {remedy}"));
        Self {
            note,
            ..Self::new(&row.coverage, is_in_scan)
        }
    }
}

/// Whose something is.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum BalanceOf {
    /// An address.
    Address { address: String },
    /// A descriptor.
    Descriptor { descriptor_id: String },
}

/// What an address or a descriptor owns. Amounts are in satoshi.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Balance {
    #[serde(flatten)]
    pub of: BalanceOf,
    pub label: String,
    /// Of an address: the descriptors that have it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<OwnerShape>,
    /// With coinbase outputs that may not be spent yet (`immature`).
    pub confirmed_balance: i64,
    pub confirmed_balance_btc: Btc,
    /// What the mempool adds to the confirmed balance, or takes from it.
    pub unconfirmed_balance: i64,
    pub unconfirmed_balance_btc: Btc,
    /// Unspent outputs that no mempool transaction spends.
    pub utxo_count: u64,
    /// Seconds since the Unix epoch.
    pub last_updated: f64,
    /// Confirmed and unconfirmed together.
    pub balance: i64,
    pub balance_btc: Btc,
    /// In coinbase outputs that the next block may not spend.
    pub immature: u64,
    pub coverage: CoverageShape,
    pub tip: Option<Block>,
    /// It includes every event up to this one.
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
        let owners = row.derivations.iter().map(OwnerShape::new).collect();
        let label = row.label.clone();
        let balance = Self::of(of, row.balance, row.utxo_count, row.updated, state);
        Self {
            label,
            owners,
            ..balance
        }
    }

    pub fn of_descriptor(
        id: DescriptorId,
        row: &DescriptorRow,
        label: String,
        state: BalanceState,
    ) -> Self {
        let of = BalanceOf::Descriptor {
            descriptor_id: id.to_string(),
        };
        let balance = Self::of(of, row.told(), row.utxo_count, row.updated, state);
        Self { label, ..balance }
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
            label: String::new(),
            owners: Vec::new(),
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

/// An unspent output. Amounts are in satoshi.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Utxo<'a> {
    #[schemars(with = "Hash")]
    pub tx_hash: Txid,
    pub output_index: u32,
    pub value: u64,
    pub value_btc: Btc,
    pub address: &'a str,
    /// Of a descriptor: the keychain of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keychain: Option<KeychainName>,
    /// Of a descriptor: the index of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    pub confirmed: bool,
    pub block_height: Option<u32>,
    /// 0 in the mempool.
    pub confirmations: u32,
    pub coinbase: bool,
    /// The next block may spend it.
    pub mature: bool,
    /// The mempool transaction that spends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Hash>")]
    pub spent_by: Option<Txid>,
}

/// `place`: with its place in the descriptor.
pub fn utxo_shape<'a>(
    address: &'a str,
    place: Option<&Derivation>,
    outpoint: &OutPoint,
    row: &OutputRow,
    tip: Option<BlockId>,
) -> Utxo<'a> {
    Utxo {
        tx_hash: outpoint.txid,
        output_index: outpoint.vout,
        value: row.value,
        value_btc: Btc(signed(row.value)),
        address,
        keychain: place.map(|place| keychain(place.keychain)),
        index: place.map(|place| place.index),
        confirmed: row.height.is_some(),
        block_height: row.height,
        confirmations: confirmations(tip, row.height),
        coinbase: row.coinbase,
        mature: is_mature(row, tip),
        spent_by: row.spent.map(|spend| spend.txid),
    }
}

/// A transaction as an address or a descriptor sees it. Amounts are in satoshi.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Transaction {
    #[schemars(with = "Hash")]
    pub txid: Txid,
    pub received: u64,
    pub sent: u64,
    /// What is received without what is sent.
    pub net: i64,
    pub net_btc: Btc,
    pub status: TransactionStatus,
    /// 0 unless it is in a block of the chain.
    pub confirmations: u32,
    pub block_height: Option<u32>,
    #[schemars(with = "Option<Hash>")]
    pub block_hash: Option<BlockHash>,
    /// Seconds since the Unix epoch, from the block's header.
    pub block_time: Option<f64>,
    /// Seconds since the Unix epoch.
    pub first_seen: f64,
    /// The node takes a replacement of it.
    pub replaceable: bool,
    /// The transaction that replaced it in the mempool.
    #[schemars(with = "Option<Hash>")]
    pub replaced_by: Option<Txid>,
    /// The transaction in a block that spends the same.
    #[schemars(with = "Option<Hash>")]
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

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TransactionStatus {
    /// It waits in the mempool.
    Mempool,
    /// It is in a block of the chain.
    Confirmed,
    /// Another one took its place in the mempool.
    Replaced,
    /// A block has one that spends the same.
    Conflicted,
    /// The node dropped it.
    Evicted,
}

pub fn phase(phase: Phase) -> TransactionStatus {
    match phase {
        Phase::Mempool => TransactionStatus::Mempool,
        Phase::Confirmed => TransactionStatus::Confirmed,
        Phase::Replaced => TransactionStatus::Replaced,
        Phase::Conflicted => TransactionStatus::Conflicted,
        Phase::Evicted => TransactionStatus::Evicted,
    }
}

/// No amount exceeds what an `i64` holds: all the satoshi there will ever be are 2.1e15.
pub fn signed(satoshi: u64) -> i64 {
    i64::try_from(satoshi).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
