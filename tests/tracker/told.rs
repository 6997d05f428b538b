//! What the named lives share: a world with script 1 watched, and events in short.

use bitcoin::{OutPoint, Transaction};
use satwatch::tracker::{Event, EventKind, Phase, Status};

use crate::world::World;

/// A world in which script 1 is watched.
pub fn watching() -> World {
    let mut world = World::new();
    world.watch(1, &[]);
    world
}

/// The n-th output of the first block: a million satoshi of a stranger.
pub fn coin(world: &World, vout: u32) -> OutPoint {
    OutPoint { txid: world.chain[0].txdata[0].compute_txid(), vout }
}

/// Events in short: `new 1`, `update mempool>confirmed 1`, `balance 0>700`, `block`, `reorg 2`.
pub fn told(events: &[Event]) -> Vec<String> {
    let word = |phase: Phase| format!("{phase:?}").to_lowercase();
    let line = |event: &Event| match &event.kind {
        EventKind::NewTransactions { transactions, .. } => format!("new {}", transactions.len()),
        EventKind::BalanceChange { old, new, .. } => format!("balance {}>{}", old.total(), new.total()),
        EventKind::TransactionUpdate { previous, transaction, confirmations, .. } => {
            format!("{}>{} {confirmations}", word(*previous), word(transaction.status.phase()))
        }
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
    OutPoint { txid: tx.compute_txid(), vout }
}
