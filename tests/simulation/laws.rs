//! What is watched while a life goes on: no event may tell what never was.

use std::collections::HashSet;

use bitcoin::{Transaction, Txid};
use satwatch::tracker::{
    Event, EventKind, Input, MemoryView, Status, Subject, SubjectId, Transition, TxSummary,
    WatchRow,
};

use crate::bitcoind::Bitcoind;
use crate::calls::Line;
use crate::clock::Now;
use crate::pretended::{script, spk};
use crate::readers::Readers;
use crate::scan_laws::Scans;
use crate::wallets::Wallets;

pub struct Witness {
    /// Scripts that a person added, and was told so.
    pub watched: HashSet<u8>,
    /// What a person asked for and was not told of yet, for which scripts.
    asked: Vec<u8>,
    pub scans: Scans,
    pub wallets: Wallets,
    pub readers: Readers,
    began: u64,
}

impl Witness {
    pub fn new(now: Now) -> Self {
        Self {
            watched: HashSet::new(),
            asked: Vec::new(),
            scans: Scans::default(),
            wallets: Wallets::default(),
            readers: Readers::default(),
            began: now.ms,
        }
    }

    /// Milliseconds of this life.
    pub fn ms(&self, now: Now) -> u64 {
        now.ms - self.began
    }

    pub fn committed(&mut self, transitions: &[Transition], head: u64, line: &Line) {
        let (node, view) = (line.bitcoind.borrow(), line.rows.borrow());
        for event in transitions.iter().flat_map(|it| &it.events) {
            check_event(event, &node, &view);
        }
        self.readers.committed(head);
    }

    /// A person asks for this.
    pub fn asked(&mut self, input: &Input) {
        self.asked.extend(numbers(input));
        self.wallets.asked(input);
    }

    /// A person hears that this was done.
    pub fn acknowledged(&mut self, input: &Input) {
        if let Input::OpenScan { scan, scripts, .. } = input {
            self.scans.opened(*scan, scripts, &self.watched);
        }
        self.wallets.answered(input, true);
        for number in numbers(input) {
            match input {
                Input::Watch { .. } => _ = self.watched.insert(number),
                _ => {
                    self.watched.remove(&number);
                    self.scans.unwatched(number);
                }
            }
            let place = self.asked.iter().position(|asked| *asked == number);
            self.asked.remove(place.expect("it was asked for"));
        }
    }

    /// The process is dead. What was asked for may have been done or not.
    pub fn died(&mut self, rows: &MemoryView) {
        self.wallets.died(rows);
        for number in std::mem::take(&mut self.asked) {
            self.scans.unwatched(number);
            let row = rows.watches.get(&script(number));
            match row.is_some_and(|row| row.listed) {
                true => _ = self.watched.insert(number),
                false => _ = self.watched.remove(&number),
            }
        }
    }
}

/// The scripts that a person asks something for.
fn numbers(input: &Input) -> Vec<u8> {
    let is_meant = |number: &u8| match input {
        Input::Watch { scripts, .. } => scripts.iter().any(|it| it.spk == spk(*number)),
        Input::Unwatch { scripts, .. } => scripts.contains(&script(*number)),
        _ => false,
    };
    (1..8).filter(is_meant).collect()
}

fn check_event(event: &Event, node: &Bitcoind, view: &MemoryView) {
    match &event.kind {
        EventKind::NewTransactions { transactions, .. } => {
            transactions.iter().for_each(|tx| check_status(tx, node));
        }
        EventKind::TransactionUpdate {
            subject,
            transaction,
            ..
        } => {
            // Only one that the node took back for a moment and gave again, while nobody looked, or
            // that a scan of the old chain found spent: of its block nothing is known here.
            let is_from_before = || {
                let covered = covered_from(subject, view);
                let before = node.node.chain.iter().take(covered as usize);
                let undone = node.disconnected.iter().map(|hash| &node.blocks[hash]);
                let is_it = |tx: &Transaction| tx.compute_txid() == transaction.txid;
                before
                    .chain(undone)
                    .any(|block| block.txdata.iter().any(is_it))
            };
            if transaction.status != Status::Evicted || !is_from_before() {
                check_status(transaction, node);
            }
        }
        EventKind::Block { block, .. } => {
            assert!(
                node.blocks.contains_key(&block.hash),
                "a block that is told was the node's"
            );
        }
        EventKind::Reorg { old_tip, .. } => assert!(
            node.disconnected.contains(&old_tip.hash),
            "a block that is taken back was taken back by the node"
        ),
        EventKind::BalanceChange { .. }
        | EventKind::ScanComplete { .. }
        | EventKind::LabelChange { .. }
        | EventKind::Unwatched { .. } => {}
    }
}

/// From this height on all scripts of somebody are covered.
fn covered_from(subject: &Subject, view: &MemoryView) -> u32 {
    match subject.id() {
        SubjectId::Script(script) => view.watches[&script].coverage.from_height,
        SubjectId::Descriptor(id) => {
            let is_of_it = |row: &&WatchRow| row.derivations.iter().any(|it| it.descriptor == id);
            let rows = view.watches.values().filter(is_of_it);
            rows.map(|row| row.coverage.from_height).max().unwrap_or(0)
        }
    }
}

/// Whether what is told of a transaction was ever true.
fn check_status(tx: &TxSummary, node: &Bitcoind) {
    let txid = tx.txid;
    assert!(
        node.known.contains_key(&txid),
        "{txid} was in the node's chain or mempool"
    );
    match tx.status {
        Status::Mempool => {}
        Status::Confirmed { block, .. } => {
            let block = node.blocks.get(&block.hash);
            let block = block.expect("a transaction is told in a block that was the node's");
            let mut txs = block.txdata.iter();
            assert!(
                txs.any(|tx| tx.compute_txid() == txid),
                "{txid} is in the block that is told"
            );
        }
        Status::Evicted => assert!(
            node.may_be_gone(&txid),
            "{txid} is told evicted and never left the node's chain and mempool"
        ),
        Status::Conflicted { by } => assert!(
            node.known.contains_key(&by) && node.may_be_gone(&txid),
            "{txid} is told to conflict with {by} and never did"
        ),
        Status::Replaced { by } => assert!(
            node.known.contains_key(&by)
                && (node.may_be_gone(&txid) || spends_first(txid, by, node)),
            "{txid} is told replaced by {by} and never was"
        ),
    }
}

/// It, or what it descends from, is in a block that did not come, and spends the first of a
/// coinbase. The block with the second did not come either, and the mempool's news that `by` spends
/// that did.
fn spends_first(txid: Txid, by: Txid, node: &Bitcoind) -> bool {
    let find = |txid: &Txid| node.known.get(txid);
    let spender = node.node.spender_of_repeated(txid, by, &find);
    spender.is_some_and(|spender| {
        let mut mined = node.blocks.values().flat_map(|block| &block.txdata);
        mined.any(|tx| tx.compute_txid() == spender)
    })
}
