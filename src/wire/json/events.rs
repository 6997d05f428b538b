//! Events: what a subscriber gets, and what `GET /events` shows.

use bitcoin::{BlockHash, Network, Script, Txid};
use serde::Serialize;

use super::{Block, Btc, Text, Transaction, phase, seconds, to_text};
use crate::tracker::{Balance, Cause, Event, EventKind, Phase, TxSummary};
use crate::wire::address::script;

#[derive(Debug, Serialize)]
pub(super) struct CauseShape {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    txid: Option<Text<Txid>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_hash: Option<Text<BlockHash>>,
}

impl From<Cause> for CauseShape {
    fn from(cause: Cause) -> Self {
        let (kind, txid, block) = match cause {
            Cause::Transaction(txid) => ("transaction", Some(txid), None),
            Cause::Block(hash) => ("block", None, Some(hash)),
            Cause::Reorg(hash) => ("reorg", None, Some(hash)),
            Cause::Removed(txid) => ("removed", Some(txid), None),
            Cause::Baseline(hash) => ("baseline", None, Some(hash)),
        };
        Self {
            kind,
            txid: txid.map(Text),
            block_hash: block.map(Text),
        }
    }
}

#[derive(Debug, Serialize)]
struct BalanceChange {
    address: String,
    old_balance: i64,
    new_balance: i64,
    old_balance_btc: Btc,
    new_balance_btc: Btc,
    timestamp: f64,
    delta: i64,
    confirmed_balance: i64,
    unconfirmed_balance: i64,
    cause: CauseShape,
    tip: Option<Block>,
    cursor: String,
}

#[derive(Debug, Serialize)]
struct NewTransactions {
    address: String,
    transactions: Vec<Transaction>,
    count: usize,
    timestamp: f64,
    tip: Option<Block>,
    cursor: String,
}

/// `replaced_by` and `conflicted_by` are absent unless that is its status.
#[derive(Debug, Serialize)]
struct TransactionUpdate {
    address: String,
    txid: Text<Txid>,
    status: &'static str,
    previous_status: &'static str,
    block_height: Option<u32>,
    block_hash: Option<Text<BlockHash>>,
    block_time: Option<f64>,
    confirmations: u32,
    received: u64,
    sent: u64,
    net: i64,
    net_btc: Btc,
    first_seen: f64,
    replaceable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_by: Option<Text<Txid>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conflicted_by: Option<Text<Txid>>,
    timestamp: f64,
    tip: Option<Block>,
    cursor: String,
}

impl TransactionUpdate {
    fn new(
        address: String,
        event: &Event,
        previous: Phase,
        summary: &TxSummary,
        confirmations: u32,
        cursor: String,
    ) -> Self {
        let transaction = Transaction::new(summary, event.tip);
        Self {
            address,
            txid: transaction.txid,
            status: transaction.status,
            previous_status: phase(previous),
            block_height: transaction.block_height,
            block_hash: transaction.block_hash,
            block_time: transaction.block_time,
            confirmations,
            received: transaction.received,
            sent: transaction.sent,
            net: transaction.net,
            net_btc: transaction.net_btc,
            first_seen: transaction.first_seen,
            replaceable: transaction.replaceable,
            replaced_by: transaction.replaced_by,
            conflicted_by: transaction.conflicted_by,
            timestamp: seconds(event.time),
            tip: event.tip.map(Block::from),
            cursor,
        }
    }
}

#[derive(Debug, Serialize)]
struct BlockEvent {
    height: u32,
    hash: Text<BlockHash>,
    time: f64,
    tx_count: u32,
    timestamp: f64,
    tip: Option<Block>,
    cursor: String,
}

#[derive(Debug, Serialize)]
struct ReorgEvent {
    old_tip: Block,
    fork_point: Block,
    depth: u32,
    timestamp: f64,
    tip: Option<Block>,
    cursor: String,
}

#[derive(Debug, Serialize)]
struct ScanComplete {
    address: String,
    scan_id: String,
    status: &'static str,
    from_height: u32,
    to_height: Option<u32>,
    transaction_count: u64,
    timestamp: f64,
    tip: Option<Block>,
    cursor: String,
}

#[derive(Debug, Serialize)]
struct Unwatched {
    address: String,
    timestamp: f64,
    tip: Option<Block>,
    cursor: String,
}

/// The name of an event and its data as JSON text: what a subscriber gets and what `GET /events`
/// shows, byte for byte.
pub fn event(event: &Event, cursor: String, network: Network) -> (&'static str, String) {
    let address = |spk: &Script| script::text(spk, network);
    let (timestamp, tip) = (seconds(event.time), event.tip.map(Block::from));
    match &event.kind {
        EventKind::NewTransactions {
            spk, transactions, ..
        } => {
            let transactions: Vec<_> = transactions
                .iter()
                .map(|summary| Transaction::new(summary, event.tip))
                .collect();
            let count = transactions.len();
            (
                "new_transactions",
                to_text(&NewTransactions {
                    address: address(spk),
                    transactions,
                    count,
                    timestamp,
                    tip,
                    cursor,
                }),
            )
        }
        EventKind::BalanceChange {
            spk,
            old,
            new,
            cause,
            ..
        } => (
            "balance_change",
            to_text(&balance_change(
                address(spk),
                old,
                new,
                *cause,
                timestamp,
                tip,
                cursor,
            )),
        ),
        EventKind::TransactionUpdate {
            spk,
            previous,
            transaction,
            confirmations,
            ..
        } => {
            let update = TransactionUpdate::new(
                address(spk),
                event,
                *previous,
                transaction,
                *confirmations,
                cursor,
            );
            ("transaction_update", to_text(&update))
        }
        EventKind::ScanComplete {
            spk,
            scan,
            from,
            to,
            transactions,
            ..
        } => {
            let (scan_id, status, transaction_count) =
                (scan.to_string(), "complete", *transactions);
            // From above to: the node has none of the blocks any more.
            let (address, from_height, to_height) =
                (address(spk), *from, Some(*to).filter(|to| to >= from));
            let complete = ScanComplete {
                address,
                scan_id,
                status,
                from_height,
                to_height,
                transaction_count,
                timestamp,
                tip,
                cursor,
            };
            ("scan_complete", to_text(&complete))
        }
        EventKind::Unwatched { spk, .. } => (
            "unwatched",
            to_text(&Unwatched {
                address: address(spk),
                timestamp,
                tip,
                cursor,
            }),
        ),
        EventKind::Block {
            block,
            time,
            transactions,
        } => {
            let Block { height, hash } = Block::from(*block);
            (
                "block",
                to_text(&BlockEvent {
                    height,
                    hash,
                    time: f64::from(*time),
                    tx_count: *transactions,
                    timestamp,
                    tip,
                    cursor,
                }),
            )
        }
        EventKind::Reorg {
            old_tip,
            fork_point,
            depth,
        } => {
            let (old_tip, fork_point) = (Block::from(*old_tip), Block::from(*fork_point));
            (
                "reorg",
                to_text(&ReorgEvent {
                    old_tip,
                    fork_point,
                    depth: *depth,
                    timestamp,
                    tip,
                    cursor,
                }),
            )
        }
    }
}

fn balance_change(
    address: String,
    old: &Balance,
    new: &Balance,
    cause: Cause,
    timestamp: f64,
    tip: Option<Block>,
    cursor: String,
) -> BalanceChange {
    BalanceChange {
        address,
        old_balance: old.total(),
        new_balance: new.total(),
        old_balance_btc: Btc(old.total()),
        new_balance_btc: Btc(new.total()),
        timestamp,
        delta: new.total().saturating_sub(old.total()),
        confirmed_balance: new.confirmed,
        unconfirmed_balance: new.unconfirmed,
        cause: CauseShape::from(cause),
        tip,
        cursor,
    }
}
