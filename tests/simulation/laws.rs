//! What is watched while a life goes on: no event may tell what never was.

use std::collections::{HashMap, HashSet};

use bitcoin::Transaction;
use satwatch::tracker::{
    Event, EventKind, Input, MemoryView, ScanId, ScanState, Status, Transition, TxSummary,
};

use crate::bitcoind::Bitcoind;
use crate::calls::Line;
use crate::clock::Now;
use crate::pretended::{script, spk};
use crate::readers::Readers;

pub struct Witness {
    /// Scripts that a person added, and was told so.
    pub watched: HashSet<u8>,
    /// What a person asked for and was not told of yet, for which scripts.
    asked: Vec<u8>,
    /// History scans that a person opened, and was told so.
    pub scans: HashSet<ScanId>,
    pub readers: Readers,
    began: u64,
}

impl Witness {
    pub fn new(now: Now) -> Self {
        Self {
            watched: HashSet::new(),
            asked: Vec::new(),
            scans: HashSet::new(),
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
    }

    /// A person hears that this was done.
    pub fn acknowledged(&mut self, input: &Input) {
        if let Input::OpenScan { scan, .. } = input {
            self.scans.insert(*scan);
        }
        for number in numbers(input) {
            match input {
                Input::Watch { .. } => _ = self.watched.insert(number),
                _ => _ = self.watched.remove(&number),
            }
            let place = self.asked.iter().position(|asked| *asked == number);
            self.asked.remove(place.expect("it was asked for"));
        }
    }

    /// In the end every scan has ended, and what a complete one was made for is as if its scripts
    /// had been watched from its first block on: so far they are covered, and what is covered is
    /// [compared](crate::pretended::laws) with the chain.
    pub fn check_scans(&self, view: &MemoryView, log: &[(u64, Event)]) {
        for scan in &self.scans {
            let row = view.scans.get(scan);
            let row = row.expect("a scan that a person was told of is there");
            assert_ne!(row.state, ScanState::Open, "in the end {scan} has ended");
        }
        let mut complete = HashMap::new();
        for (_, event) in log {
            match &event.kind {
                EventKind::ScanComplete {
                    script, scan, from, ..
                } if view.scans[scan].to.is_none() => _ = complete.insert((*script, *from), *scan),
                EventKind::Unwatched { script, .. } => complete.retain(|(of, _), _| of != script),
                // A baseline is asked for anew, and speaks for its own block.
                EventKind::Reorg { fork_point, .. } => {
                    complete.retain(|(_, from), _| *from <= fork_point.height + 1);
                }
                _ => {}
            }
        }
        for ((script, from), scan) in complete {
            let covered = view.watches[&script].coverage.from_height;
            assert!(
                covered <= from,
                "{scan} told that the history from {from} on is known, and it is known from {covered} on"
            );
        }
    }

    /// The process is dead. What was asked for may have been done or not.
    pub fn died(&mut self, rows: &MemoryView) {
        for number in std::mem::take(&mut self.asked) {
            match rows.watches.contains_key(&script(number)) {
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
            script,
            transaction,
            ..
        } => {
            // Only one that the node took back for a moment and gave again, while nobody looked:
            // of its block nothing is known here.
            let is_from_before = || {
                let covered = view.watches[script].coverage.from_height;
                let mut before = node.node.chain.iter().take(covered as usize);
                let is_it = |tx: &Transaction| tx.compute_txid() == transaction.txid;
                before.any(|block| block.txdata.iter().any(is_it))
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
        | EventKind::Unwatched { .. } => {}
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
        Status::Replaced { by } | Status::Conflicted { by } => assert!(
            node.may_be_gone(&txid) && node.known.contains_key(&by),
            "{txid} is told displaced by {by} and never was"
        ),
    }
}
