//! Events: what a subscriber gets, and what `GET /events` shows.

use bitcoin::{BlockHash, Network, Txid};
use schemars::JsonSchema;
use serde::Serialize;

use super::server_events::server_events;
use super::{Block, Btc, ServerEvent, Transaction, TransactionStatus, phase, seconds, to_text};
use crate::tracker::{Cause, Derivation, Event, EventKind, Keychain, Phase, Subject};
use crate::wire::address::script;
use crate::wire::schema::Hash;

/// What an event is about: an address, or a descriptor in its place. An address that is of
/// descriptors says of which, and if it is of one, by fields of its own, too.
#[derive(Serialize, JsonSchema)]
struct SubjectShape {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// In place of the address: the descriptor that it is about. Beside it: the only one that has
    /// the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    descriptor_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keychain: Option<KeychainName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    /// The descriptors that have the address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    owners: Vec<OwnerShape>,
}

/// A place of an address in a descriptor.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Owner")]
pub struct OwnerShape {
    descriptor_id: String,
    keychain: KeychainName,
    index: u32,
}

impl OwnerShape {
    pub fn new(place: &Derivation) -> Self {
        Self {
            descriptor_id: place.descriptor.to_string(),
            keychain: keychain(place.keychain),
            index: place.index,
        }
    }
}

impl SubjectShape {
    fn new(subject: &Subject, network: Network) -> Self {
        let (address, derivations) = match subject {
            Subject::Script {
                spk, derivations, ..
            } => (Some(script::text(spk, network)), &derivations[..]),
            Subject::Descriptor(_) => (None, &[][..]),
        };
        let descriptor_id = match (subject, derivations) {
            (Subject::Descriptor(descriptor), _) => Some(descriptor.to_string()),
            (_, [only]) => Some(only.descriptor.to_string()),
            _ => None,
        };
        let only = match derivations {
            [only] => Some(only),
            _ => None,
        };
        Self {
            address,
            descriptor_id,
            keychain: only.map(|only| keychain(only.keychain)),
            index: only.map(|only| only.index),
            owners: derivations.iter().map(OwnerShape::new).collect(),
        }
    }
}

/// One of the two keychains of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Keychain")]
pub enum KeychainName {
    /// For receiving.
    External,
    /// For change.
    Internal,
}

impl KeychainName {
    pub fn word(self) -> &'static str {
        match self {
            Self::External => "external",
            Self::Internal => "internal",
        }
    }
}

pub fn keychain(keychain: Keychain) -> KeychainName {
    match keychain {
        Keychain::External => KeychainName::External,
        Keychain::Internal => KeychainName::Internal,
    }
}

/// Why a balance changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum CauseKind {
    /// A transaction came into the mempool.
    Transaction,
    /// A block was connected.
    Block,
    /// Blocks were disconnected.
    Reorg,
    /// A transaction left the mempool without a block.
    Removed,
    /// What it owned before it was watched became known.
    Baseline,
}

/// What changed a balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Cause")]
pub(super) struct CauseShape {
    kind: CauseKind,
    /// Of `transaction` and `removed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Hash>")]
    txid: Option<Txid>,
    /// Of `block`, `reorg` and `baseline`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Hash>")]
    block_hash: Option<BlockHash>,
}

pub(super) fn cause_shape(cause: Cause) -> CauseShape {
    let (kind, txid, block_hash) = match cause {
        Cause::Transaction(txid) => (CauseKind::Transaction, Some(txid), None),
        Cause::Block(hash) => (CauseKind::Block, None, Some(hash)),
        Cause::Reorg(hash) => (CauseKind::Reorg, None, Some(hash)),
        Cause::Removed(txid) => (CauseKind::Removed, Some(txid), None),
        Cause::Baseline(hash) => (CauseKind::Baseline, None, Some(hash)),
    };
    CauseShape {
        kind,
        txid,
        block_hash,
    }
}

server_events! {
    /// The events that are in the log.
    LOG_EVENTS {
        "new_transactions" NewTransactions, "Transactions are seen for the first time, in the mempool or in a block";
        "balance_change" BalanceChange, "A balance has changed";
        "transaction_update" TransactionUpdate, "A transaction is confirmed, or as deep as asked for, or replaced, or gone, or back";
        "scan_complete" ScanComplete, "A history scan has ended";
        "unwatched" Unwatched, "An address or a descriptor is taken off the list";
        "label_change" LabelChange<'_>, "An address or a descriptor is called something else";
        "block" BlockConnected, "A block is connected";
        "reorg" Reorg, "Blocks are disconnected";
    }
}

/// When an event was written, and after what.
#[derive(Serialize, JsonSchema)]
struct Written {
    /// Seconds since the Unix epoch.
    timestamp: f64,
    tip: Option<Block>,
    /// The place of this event in the log.
    cursor: String,
}

/// Transactions that are new to an address or a descriptor.
#[derive(Serialize, JsonSchema)]
struct NewTransactions {
    #[serde(flatten)]
    subject: SubjectShape,
    transactions: Vec<Transaction>,
    count: usize,
    #[serde(flatten)]
    written: Written,
}

/// A balance before and after. Amounts are in satoshi; a balance is confirmed and unconfirmed
/// together.
#[derive(Serialize, JsonSchema)]
struct BalanceChange {
    #[serde(flatten)]
    subject: SubjectShape,
    old_balance: i64,
    new_balance: i64,
    old_balance_btc: Btc,
    new_balance_btc: Btc,
    /// Seconds since the Unix epoch.
    timestamp: f64,
    /// The new balance without the old one.
    delta: i64,
    confirmed_balance: i64,
    unconfirmed_balance: i64,
    cause: CauseShape,
    tip: Option<Block>,
    /// The place of this event in the log.
    cursor: String,
}

/// Where a transaction stands now. Amounts are in satoshi.
#[derive(Serialize, JsonSchema)]
struct TransactionUpdate {
    #[serde(flatten)]
    subject: SubjectShape,
    #[schemars(with = "Hash")]
    txid: Txid,
    status: TransactionStatus,
    previous_status: TransactionStatus,
    block_height: Option<u32>,
    #[schemars(with = "Option<Hash>")]
    block_hash: Option<BlockHash>,
    /// Seconds since the Unix epoch, from the block's header.
    block_time: Option<f64>,
    confirmations: u32,
    received: u64,
    sent: u64,
    /// What is received without what is sent.
    net: i64,
    net_btc: Btc,
    /// Seconds since the Unix epoch.
    first_seen: f64,
    /// The node takes a replacement of it.
    replaceable: bool,
    /// The transaction that replaced it in the mempool.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Hash>")]
    replaced_by: Option<Txid>,
    /// The transaction in a block that spends the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Hash>")]
    conflicted_by: Option<Txid>,
    #[serde(flatten)]
    written: Written,
}

/// The end of a history scan.
#[derive(Serialize, JsonSchema)]
struct ScanComplete {
    #[serde(flatten)]
    subject: SubjectShape,
    scan_id: String,
    status: Complete,
    from_height: u32,
    /// `null` when nothing of what was asked for is known: the node has none of the blocks any
    /// more, or the address was left out.
    to_height: Option<u32>,
    /// Transactions that the scan has found.
    transaction_count: u64,
    #[serde(flatten)]
    written: Written,
}

/// It is done.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Complete {
    Complete,
}

/// What is not watched any more.
#[derive(Serialize, JsonSchema)]
struct Unwatched {
    #[serde(flatten)]
    subject: SubjectShape,
    #[serde(flatten)]
    written: Written,
}

/// What an address or a descriptor is called.
#[derive(Serialize, JsonSchema)]
struct LabelChange<'a> {
    #[serde(flatten)]
    subject: SubjectShape,
    label: &'a str,
    previous_label: &'a str,
    #[serde(flatten)]
    written: Written,
}

/// A block that is connected.
#[derive(Serialize, JsonSchema)]
struct BlockConnected {
    height: u32,
    #[schemars(with = "Hash")]
    hash: BlockHash,
    /// Seconds since the Unix epoch, from its header.
    time: f64,
    /// Transactions in it.
    tx_count: u32,
    #[serde(flatten)]
    written: Written,
}

/// Blocks that are not in the chain any more.
#[derive(Serialize, JsonSchema)]
struct Reorg {
    old_tip: Block,
    /// The last block that both chains have.
    fork_point: Block,
    /// How many blocks are disconnected.
    depth: u32,
    #[serde(flatten)]
    written: Written,
}

/// The name of an event and its data as JSON text: what a subscriber gets and what `GET /events`
/// shows, byte for byte.
pub fn event(event: &Event, cursor: String, network: Network) -> (&'static str, String) {
    let of = |subject: &Subject| SubjectShape::new(subject, network);
    let (timestamp, tip) = (seconds(event.time), event.tip.map(Block::from));
    let written = Written {
        timestamp,
        tip,
        cursor,
    };
    match &event.kind {
        EventKind::NewTransactions {
            subject,
            transactions,
        } => {
            let shape = |summary| Transaction::new(summary, event.tip);
            let transactions: Vec<_> = transactions.iter().map(shape).collect();
            named(&NewTransactions {
                subject: of(subject),
                count: transactions.len(),
                transactions,
                written,
            })
        }
        EventKind::BalanceChange {
            subject,
            old,
            new,
            cause,
        } => {
            let (before, now) = (old.total(), new.total());
            named(&BalanceChange {
                subject: of(subject),
                old_balance: before,
                new_balance: now,
                old_balance_btc: Btc(before),
                new_balance_btc: Btc(now),
                timestamp,
                delta: now.saturating_sub(before),
                confirmed_balance: new.confirmed,
                unconfirmed_balance: new.unconfirmed,
                cause: cause_shape(*cause),
                tip,
                cursor: written.cursor,
            })
        }
        EventKind::TransactionUpdate {
            subject,
            previous,
            transaction,
            confirmations,
        } => {
            let now = Transaction::new(transaction, event.tip);
            named(&update(
                of(subject),
                *previous,
                now,
                *confirmations,
                written,
            ))
        }
        EventKind::ScanComplete {
            subject,
            scan,
            from,
            to,
            transactions,
        } => named(&ScanComplete {
            subject: of(subject),
            scan_id: scan.to_string(),
            status: Complete::Complete,
            from_height: *from,
            // From above to: the node has none of the blocks any more, or cannot tell what was
            // owned before.
            to_height: Some(*to).filter(|to| to >= from),
            transaction_count: *transactions,
            written,
        }),
        EventKind::Unwatched { subject } => named(&Unwatched {
            subject: of(subject),
            written,
        }),
        EventKind::LabelChange { subject, old, new } => named(&LabelChange {
            subject: of(subject),
            label: new,
            previous_label: old,
            written,
        }),
        EventKind::Block {
            block,
            time,
            transactions,
        } => named(&BlockConnected {
            height: block.height,
            hash: block.hash,
            time: f64::from(*time),
            tx_count: *transactions,
            written,
        }),
        EventKind::Reorg {
            old_tip,
            fork_point,
            depth,
        } => named(&Reorg {
            old_tip: Block::from(*old_tip),
            fork_point: Block::from(*fork_point),
            depth: *depth,
            written,
        }),
    }
}

fn named<E: ServerEvent>(event: &E) -> (&'static str, String) {
    (E::NAME, to_text(event))
}

fn update(
    subject: SubjectShape,
    previous: Phase,
    now: Transaction,
    confirmations: u32,
    written: Written,
) -> TransactionUpdate {
    TransactionUpdate {
        subject,
        txid: now.txid,
        status: now.status,
        previous_status: phase(previous),
        block_height: now.block_height,
        block_hash: now.block_hash,
        block_time: now.block_time,
        confirmations,
        received: now.received,
        sent: now.sent,
        net: now.net,
        net_btc: now.net_btc,
        first_seen: now.first_seen,
        replaceable: now.replaceable,
        replaced_by: now.replaced_by,
        conflicted_by: now.conflicted_by,
        written,
    }
}
