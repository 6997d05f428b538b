//! What the named lives share: a world with script 1 watched, and events in short.

use bitcoin::{OutPoint, Transaction};
use satwatch::tracker::{Balance, BlockId, Event, EventKind, Phase, Status};

use crate::world::{World, script};

/// A world in which script 1 is watched.
pub fn watching() -> World {
    let mut world = World::new();
    world.watch(1, &[]);
    world
}

/// The n-th output of the first block: a million satoshi of a stranger.
pub fn coin(world: &World, vout: u32) -> OutPoint {
    OutPoint {
        txid: world.chain[0].txdata[0].compute_txid(),
        vout,
    }
}

/// Events in short: `new 1`, `update mempool>confirmed 1`, `balance 0>700`, `block`, `reorg 2`.
pub fn told(events: &[Event]) -> Vec<String> {
    let word = |phase: Phase| format!("{phase:?}").to_lowercase();
    let line = |event: &Event| match &event.kind {
        EventKind::NewTransactions { transactions, .. } => format!("new {}", transactions.len()),
        EventKind::BalanceChange { old, new, .. } => {
            format!("balance {}>{}", old.total(), new.total())
        }
        EventKind::TransactionUpdate {
            previous,
            transaction,
            confirmations,
            ..
        } => {
            format!(
                "{}>{} {confirmations}",
                word(*previous),
                word(transaction.status.phase())
            )
        }
        EventKind::ScanComplete { transactions, .. } => format!("scanned {transactions}"),
        EventKind::Unwatched { .. } => "unwatched".to_owned(),
        EventKind::LabelChange { old, new, .. } => format!("label {old:?}>{new:?}"),
        EventKind::Block { .. } => "block".to_owned(),
        EventKind::Reorg { depth, .. } => format!("reorg {depth}"),
    };
    events.iter().map(line).collect()
}

pub fn status(world: &World, tx: &Transaction) -> Status {
    world.view.txs[&tx.compute_txid()].status
}

/// The n-th output of a transaction.
pub fn out(tx: &Transaction, vout: u32) -> OutPoint {
    OutPoint {
        txid: tx.compute_txid(),
        vout,
    }
}

pub fn balance(world: &World, number: u8) -> Balance {
    world.view.watches[&script(number)].balance
}

/// The place in its block, what it received and what it sent, of each transaction of a script,
/// oldest first.
pub fn history(world: &World, number: u8) -> Vec<(u32, u64, u64)> {
    let mut rows: Vec<_> = world.view.txs.values().collect();
    rows.sort_by_key(|row| row.order);
    let mut history = Vec::new();
    for row in rows {
        let Some(touch) = row
            .touches
            .iter()
            .find(|touch| touch.script == script(number))
        else {
            continue;
        };
        let Status::Confirmed { block, .. } = row.status else {
            panic!("{:?}", row.status)
        };
        history.push((block.height, touch.received, touch.sent));
    }
    history
}

/// Mines one block for each of these lists.
pub fn mine(world: &mut World, blocks: &[&[&Transaction]]) {
    for txs in blocks {
        let txs: Vec<Transaction> = txs.iter().map(|tx| (*tx).clone()).collect();
        let _ = world.mine(9, &txs);
    }
}

pub fn block_id(world: &World, height: usize) -> BlockId {
    BlockId {
        height: height as u32,
        hash: world.chain[height].block_hash(),
    }
}
