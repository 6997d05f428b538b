//! The naive model: everything is rescanned from the node's chain and mempool, and every row and
//! every event must agree with it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::ops::RangeInclusive;

use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use satwatch::tracker::{
    Balance, BlockId, ChangeSet, Diffs, EarlierOutput, Event, EventKind, MemoryView, OutputRow,
    Phase, ScriptHash, Spend, Status, Subject, Touch, TxRow,
};

use super::status_changes::is_legal;
use super::{Node, script, spk};

struct OutputLife {
    height: Option<u32>,
    coinbase: bool,
    spent: Option<Spend>,
}

/// What chain and mempool say about one world, for every script in it.
pub struct Truth {
    /// Every output there is and ever was on this chain and in the mempool.
    outputs: HashMap<OutPoint, TxOut>,
    /// How often each was created, if a coinbase came again: what was overwritten does not count.
    lives: HashMap<OutPoint, Vec<OutputLife>>,
    places: HashMap<Txid, Status>,
    txs: Vec<Transaction>,
}

impl Truth {
    pub fn of(node: &Node) -> Self {
        let mut truth = Self {
            outputs: HashMap::new(),
            lives: HashMap::new(),
            places: HashMap::new(),
            txs: Vec::new(),
        };
        for (height, block) in (0..).zip(&node.chain) {
            let id = BlockId {
                height,
                hash: block.block_hash(),
            };
            for (position, tx) in (0..).zip(&block.txdata) {
                let status = Status::Confirmed {
                    block: id,
                    position,
                };
                truth.add_spends(tx, Some(height));
                truth.add(tx, status, |outpoint| {
                    !node.overwritten.contains(&(id.hash, outpoint))
                });
            }
        }
        // A child may stand before its parent.
        let mempool = node.mempool.iter();
        mempool.for_each(|tx| truth.add(tx, Status::Mempool, |_| true));
        let mempool = node.mempool.iter();
        mempool.for_each(|tx| truth.add_spends(tx, None));
        truth
    }

    fn add_spends(&mut self, tx: &Transaction, height: Option<u32>) {
        let txid = tx.compute_txid();
        for input in &tx.input {
            let lives = self.lives.get_mut(&input.previous_output);
            if let Some(newest) = lives.and_then(|lives| lives.last_mut()) {
                newest.spent = Some(Spend { txid, height });
            }
        }
    }

    fn add(&mut self, tx: &Transaction, status: Status, counts: impl Fn(OutPoint) -> bool) {
        let txid = tx.compute_txid();
        let height = match status {
            Status::Confirmed { block, .. } => Some(block.height),
            _ => None,
        };
        for (vout, out) in (0..).zip(&tx.output) {
            let outpoint = OutPoint { txid, vout };
            self.outputs.insert(outpoint, out.clone());
            if counts(outpoint) {
                self.lives.entry(outpoint).or_default().push(OutputLife {
                    height,
                    coinbase: tx.is_coinbase(),
                    spent: None,
                });
            }
        }
        self.places.insert(txid, status);
        self.txs.push(tx.clone());
    }

    fn owned(&self, number: u8) -> BTreeMap<OutPoint, OutputRow> {
        let outputs = self.outputs.iter();
        let mine = outputs.filter(|(_, out)| out.script_pubkey == spk(number));
        mine.filter_map(|(outpoint, out)| {
            let (newest, earlier) = self.lives.get(outpoint)?.split_last()?;
            let earlier = earlier.iter().map(|life| {
                let spend = life.spent.expect("only what is spent comes again");
                EarlierOutput {
                    height: life.height.expect("it was in a block"),
                    spender: spend.txid,
                    spent_at: spend.height.expect("in a block, too"),
                }
            });
            let row = OutputRow {
                script: script(number),
                value: out.value.to_sat(),
                height: newest.height,
                coinbase: newest.coinbase,
                spent: newest.spent,
                earlier: earlier.collect(),
            };
            Some((*outpoint, row))
        })
        .collect()
    }

    pub fn balance(&self, number: u8) -> Balance {
        self.balance_from(number, 0)
    }

    /// Of what is unconfirmed, or in a block from `height` on.
    fn balance_from(&self, number: u8, height: u32) -> Balance {
        let mut balance = Balance::default();
        let owned = self.owned(number);
        let since = |row: &&OutputRow| row.height.is_none_or(|created| created >= height);
        for row in owned.values().filter(since) {
            let value = row.value as i64;
            match (row.height, row.spent) {
                (Some(_), None) => balance.confirmed += value,
                (Some(_), Some(Spend { height: None, .. })) => {
                    balance.confirmed += value;
                    balance.unconfirmed -= value;
                }
                (None, None) => balance.unconfirmed += value,
                (_, Some(_)) => {}
            }
        }
        balance
    }

    /// What a transaction moves for a script: received and sent.
    fn moves(&self, tx: &Transaction, number: u8) -> (u64, u64) {
        let mine = |out: &&TxOut| out.script_pubkey == spk(number);
        let received = tx
            .output
            .iter()
            .filter(mine)
            .map(|out| out.value.to_sat())
            .sum();
        let spent = tx
            .input
            .iter()
            .filter_map(|input| self.outputs.get(&input.previous_output));
        (
            received,
            spent.filter(mine).map(|out| out.value.to_sat()).sum(),
        )
    }

    fn touches(&self, tx: &Transaction, number: u8) -> bool {
        let mine = |out: &TxOut| out.script_pubkey == spk(number);
        let spends = |outpoint| self.outputs.get(outpoint).is_some_and(mine);
        tx.output.iter().any(mine) || tx.input.iter().any(|input| spends(&input.previous_output))
    }
}

/// What is kept of a node: the rows, the scripts that are watched, and every transition with the
/// events that it told.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    pub node: &'a Node,
    pub view: &'a MemoryView,
    pub watched: &'a HashSet<u8>,
    pub past: &'a [(ChangeSet, Vec<Event>)],
}

impl Kept<'_> {
    /// Compares rows and events with the truth; every broken law is a panic with its name.
    pub fn check(&self) {
        let truth = Truth::of(self.node);
        assert_eq!(
            self.view.tip(),
            Some(self.node.tip()),
            "the tip is the node's"
        );
        for number in self.watched {
            self.check_script(&truth, *number);
        }
        let (rows, raw) = (&self.view.txs, &self.view.raw_txs);
        assert_eq!(rows.len(), raw.len(), "a transaction goes with its row");
        for (txid, row) in &self.view.txs {
            let place = truth.places.get(txid);
            match row.status {
                // A scan says in which block, but not where in it.
                Status::Confirmed {
                    block,
                    position: u32::MAX,
                } => {
                    assert!(
                        matches!(place, Some(Status::Confirmed { block: known, .. }) if *known == block),
                        "{txid} is where its row says"
                    );
                }
                Status::Confirmed { block, position } if place != Some(&row.status) => {
                    let held = &self.node.chain[block.height as usize];
                    assert!(
                        held.block_hash() == block.hash
                            && held.txdata[position as usize] == *self.view.raw_txs[txid]
                            && place.is_some_and(|place| self.is_past(row, *place)),
                        "{txid} is where its row says, or came again where nothing is known of"
                    );
                }
                Status::Confirmed { .. } | Status::Mempool => {
                    assert_eq!(place, Some(&row.status), "{txid} is where its row says")
                }
                _ => {
                    assert!(
                        place.is_none_or(
                            |place| self.is_past(row, *place) || self.is_lost(txid, *place)
                        ),
                        "{txid} is gone, and not at {place:?}"
                    )
                }
            }
            assert_eq!(self.view.raw_txs[txid].compute_txid(), *txid);
            if row.status == Status::Mempool
                && self.has_signalling_ancestor(&self.view.raw_txs[txid])
            {
                assert!(row.inherits, "{txid} can be replaced with an ancestor");
            }
            assert!(!row.touches.is_empty(), "{txid} matters to somebody");
            self.check_earlier(txid, row);
            assert!(
                row.status != Status::Mempool || !self.view.raw_txs[txid].is_coinbase(),
                "no coinbase is ever unconfirmed"
            );
        }
        self.check_blocks();
        self.check_events();
    }

    /// Blocks that hold a transaction besides the one where it stands do.
    fn check_earlier(&self, txid: &Txid, row: &TxRow) {
        let tx = &*self.view.raw_txs[txid];
        let heights = row.earlier.iter().copied();
        let all: Vec<u32> = match row.status {
            Status::Confirmed { block, .. } => heights.chain([block.height]).collect(),
            _ => heights.collect(),
        };
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        for height in &row.earlier {
            assert!(self.node.chain[*height as usize].txdata.contains(tx));
        }
    }

    /// What is said to inherit does: true when the tracker heard of everything at once.
    pub fn check_inherited(&self) {
        for (txid, row) in &self.view.txs {
            let truly = row.status == Status::Mempool
                && self.has_signalling_ancestor(&self.view.raw_txs[txid]);
            assert_eq!(
                row.inherits, truly,
                "{txid} can be replaced with an ancestor"
            );
        }
    }

    fn has_signalling_ancestor(&self, tx: &Transaction) -> bool {
        let is_parent = |other: &&Transaction| {
            let parent = other.compute_txid();
            let mut inputs = tx.input.iter();
            inputs.any(|input| input.previous_output.txid == parent)
        };
        self.node
            .mempool
            .iter()
            .filter(is_parent)
            .any(|parent| parent.is_explicitly_rbf() || self.has_signalling_ancestor(parent))
    }

    /// What a disconnect has to take back: every transaction of a block, in its order.
    fn check_blocks(&self) {
        for (txid, row) in &self.view.txs {
            let Status::Confirmed { block, .. } = row.status else {
                continue;
            };
            assert!(
                self.view.blocks[&block.height].touched.contains(txid),
                "{txid} goes back with its block {}",
                block.height
            );
        }
        for (height, block) in &self.view.blocks {
            let positions =
                block
                    .touched
                    .iter()
                    .filter_map(|txid| match self.view.txs.get(txid)?.status {
                        Status::Confirmed { block, position }
                            if block.height == *height && position != u32::MAX =>
                        {
                            Some(position)
                        }
                        _ => None,
                    });
            assert!(
                positions.is_sorted_by(|a, b| a < b),
                "the transactions of block {height} stand in its order, once"
            );
        }
    }

    /// It is in a block from before anything was known of the scripts that it touches. One that the
    /// node took back for a moment and gave again, while nobody looked, was never connected here:
    /// its outputs may be right and its status is not known.
    fn is_past(&self, row: &TxRow, place: Status) -> bool {
        let Status::Confirmed { block, .. } = place else {
            return false;
        };
        row.touches
            .iter()
            .all(|touch| block.height < self.view.watches[&touch.script].coverage.from_height)
    }

    /// It was thought to spend the second of a coinbase, which went, and is in a block that spends
    /// the first, of which nothing is known before the baseline. Its outputs are right, its status
    /// is not known.
    fn is_lost(&self, txid: &Txid, place: Status) -> bool {
        let Status::Confirmed { block, .. } = place else {
            return false;
        };
        let is_above = |row: &OutputRow| {
            let mut earlier = row.earlier.iter().map(|earlier| earlier.height);
            row.height.is_none_or(|height| height > block.height)
                && earlier.all(|height| height > block.height)
        };
        let mut inputs = self.view.raw_txs[txid].input.iter();
        inputs.any(|input| {
            let spent = &input.previous_output;
            self.node.repeated.contains(&spent.txid)
                && self.view.outputs.get(spent).is_none_or(is_above)
        })
    }

    /// It, or what it descends from, spends a coinbase that came again.
    fn is_of_second(&self, txid: &Txid) -> bool {
        let tx = self.view.raw_txs.get(txid);
        let mut parents = tx.into_iter().flat_map(|tx| &tx.input);
        parents.any(|input| {
            let parent = &input.previous_output.txid;
            self.node.repeated.contains(parent) || self.is_of_second(parent)
        })
    }

    fn check_script(&self, truth: &Truth, number: u8) {
        let row = &self.view.watches[&script(number)];
        if row.coverage.staged.is_some() {
            assert!(row.coverage.pending && !row.coverage.utxos_complete);
            assert_eq!(
                row.balance,
                truth.balance_from(number, row.coverage.from_height),
                "of script {number} what came since is shown while its past is not whole"
            );
        }
        if !row.coverage.utxos_complete {
            return;
        }
        assert_eq!(
            row.balance,
            truth.balance(number),
            "balance of script {number}"
        );
        let owned = truth.owned(number);
        let mine = |row: &&OutputRow| row.script == script(number);
        for (outpoint, known) in self.view.outputs.iter().filter(|(_, row)| mine(row)) {
            let truly = owned.get(outpoint).expect("what is known is there");
            check_output(outpoint, known, truly, row.coverage.from_height);
        }
        let covered =
            |height: Option<u32>| height.is_none_or(|height| height >= row.coverage.from_height);
        for (outpoint, output) in owned
            .iter()
            .filter(|(_, row)| row.spent.is_none_or(|spend| covered(spend.height)))
        {
            assert_eq!(
                self.view.outputs.get(outpoint).map(newest),
                Some(newest(output)),
                "{outpoint} is known"
            );
        }
        let free = owned.values().filter(|row| row.spent.is_none()).count() as u64;
        assert_eq!(row.utxo_count, free, "unspent outputs of script {number}");
        let history = self
            .view
            .txs
            .values()
            .filter(|row| touch_of(row, number).is_some())
            .count() as u64;
        assert_eq!(row.tx_count, history, "transactions of script {number}");
        for tx in truth.txs.iter().filter(|tx| truth.touches(tx, number)) {
            let txid = tx.compute_txid();
            let covered = match truth.places[&txid] {
                Status::Confirmed { block, .. } => block.height >= row.coverage.from_height,
                _ => true,
            };
            let known = self
                .view
                .txs
                .get(&txid)
                .and_then(|row| touch_of(row, number));
            assert!(
                known.is_some() || !covered,
                "{txid} is in the history of script {number}"
            );
            let Some((received, sent)) = known else {
                continue;
            };
            let (truly_received, truly_sent) = truth.moves(tx, number);
            assert!(
                received == truly_received && sent <= truly_sent,
                "what {txid} moves for script {number}"
            );
            assert!(
                sent == truly_sent || !covered,
                "what {txid} sends for script {number}"
            );
        }
    }

    /// Everything that the blocks of these heights do for a script is in its history.
    pub fn check_history(&self, number: u8, heights: RangeInclusive<u32>) {
        let truth = Truth::of(self.node);
        for tx in truth.txs.iter().filter(|tx| truth.touches(tx, number)) {
            let txid = tx.compute_txid();
            let Status::Confirmed { block, .. } = truth.places[&txid] else {
                continue;
            };
            let row = self.view.txs.get(&txid);
            assert!(
                !heights.contains(&block.height)
                    || row.is_some_and(|row| touch_of(row, number).is_some()),
                "{txid} of block {} is in the history of script {number}",
                block.height
            );
        }
    }

    /// Deaths have the cause that the node had for them: true when the tracker heard of everything
    /// at once.
    pub fn check_fates(&self) {
        let truth = Truth::of(self.node);
        for (txid, row) in
            self.view.txs.iter().filter(|(_, row)| {
                !matches!(row.status, Status::Confirmed { .. } | Status::Mempool)
            })
        {
            let fate = self.node.fates.get(txid);
            let is_excused = match (row.status, fate) {
                (Status::Evicted, None) => {
                    let place = truth.places.get(txid);
                    place.is_some_and(|place| self.is_lost(txid, *place))
                }
                // That a stranger's coinbase came again is not known: when a reorg takes it back,
                // who had spent the first comes back in the place of who spent the second.
                (Status::Replaced { .. } | Status::Conflicted { .. }, Some(Status::Evicted)) => {
                    self.is_of_second(txid)
                }
                _ => false,
            };
            assert!(
                fate == Some(&row.status) || is_excused,
                "why {txid} is gone: {:?}, and truly {fate:?}",
                row.status
            );
        }
    }

    /// What subscribers were told, folded from the first event on, is what the rows say.
    fn check_events(&self) {
        let mut fold = Fold::default();
        for (changes, events) in self.past {
            events.iter().for_each(|event| fold.add(event));
            fold.add_past(changes);
        }
        for number in self.watched {
            let told = fold
                .balances
                .get(&script(*number))
                .copied()
                .unwrap_or_default();
            assert_eq!(
                told,
                self.view.watches[&script(*number)].balance.total(),
                "the last balance told is the balance"
            );
        }
        for ((script, txid), told) in &fold.told {
            let row = &self.view.txs[txid];
            let touch = row
                .touches
                .iter()
                .find(|touch| touch.script == *script)
                .expect("it was told to a script that it touches");
            assert_eq!(
                (row.status.phase(), touch.received, touch.sent),
                *told,
                "the last word about {txid} is its row"
            );
        }
        let touches: usize = self.view.txs.values().map(|row| row.touches.len()).sum();
        assert_eq!(
            touches,
            fold.told.len(),
            "every transaction was told to every script that it touches"
        );
        assert!(
            fold.tip.is_none() || fold.tip == self.view.tip().map(|tip| tip.height),
            "blocks and reorgs told lead to the tip"
        );
    }

    /// Depths that scripts asked for are told by the block that brings them, once, with the right
    /// number; no other ones are.
    pub fn check_depths(&self, events: &[Event]) {
        let mut expected = HashSet::new();
        let tip = self.node.tip().height;
        for (txid, row) in &self.view.txs {
            let Status::Confirmed { block, .. } = row.status else {
                continue;
            };
            let depth = tip + 1 - block.height;
            for touch in &row.touches {
                let depths = &self.view.watches[&touch.script].depths;
                if depth > 1 && depths.iter().any(|asked| u32::from(*asked) == depth) {
                    expected.insert((touch.script, *txid, depth));
                }
            }
        }
        let mut told = Vec::new();
        for event in events {
            if let EventKind::TransactionUpdate {
                subject,
                transaction,
                confirmations,
                ..
            } = &event.kind
                && *confirmations > 1
            {
                told.push((script_of(subject), transaction.txid, *confirmations));
            }
        }
        assert_eq!(told.len(), expected.len(), "each depth is told once");
        assert_eq!(
            told.into_iter().collect::<HashSet<_>>(),
            expected,
            "the depths asked for"
        );
    }

    /// The rows are the fold of the change sets, from nothing; and their inverses lead back through
    /// every earlier state.
    pub fn check_change_sets(&self) {
        let mut view = MemoryView::default();
        let mut states = Vec::new();
        for (changes, _) in self.past {
            states.push(view.clone());
            check_against(&view, changes);
            view.commit(changes);
        }
        assert_eq!(&view, self.view, "the rows are the fold of the change sets");
        for ((changes, _), before) in self.past.iter().zip(&states).rev() {
            let inverse = changes.clone().inverse();
            check_against(&view, &inverse);
            view.commit(&inverse);
            assert_eq!(&view, before, "the inverse restores the state exactly");
        }
    }
}

/// A row without the earlier outputs in its place.
fn newest(row: &OutputRow) -> OutputRow {
    OutputRow {
        earlier: Vec::new(),
        ..row.clone()
    }
}

/// What is known of an output is true, and whole from this height on.
fn check_output(outpoint: &OutPoint, known: &OutputRow, truly: &OutputRow, from: u32) {
    let is_covered = |earlier: &&EarlierOutput| earlier.spent_at >= from;
    let mut all = known.earlier.clone();
    if newest(known) != newest(truly) {
        // It came again, and was spent again, in blocks that nothing is known of.
        let spent_at = truly.spent.and_then(|spend| spend.height);
        assert!(
            spent_at.is_some_and(|at| at < from),
            "{outpoint} is {truly:?}, not {known:?}"
        );
        let spend = known.spent.expect("an earlier one was spent");
        all.push(EarlierOutput {
            height: known.height.expect("in a block"),
            spender: spend.txid,
            spent_at: spend.height.expect("in a block"),
        });
        assert_eq!((known.value, known.coinbase), (truly.value, truly.coinbase));
    }
    assert!(all.is_sorted_by(|a, b| a.height < b.height));
    let mut places = all.iter();
    assert!(
        places.all(|earlier| truly.earlier.contains(earlier)),
        "earlier ones of {outpoint}: {all:?}, and truly {:?}",
        truly.earlier
    );
    let mut covered = truly.earlier.iter().filter(is_covered);
    assert!(
        covered.all(|earlier| all.contains(earlier)),
        "earlier ones of {outpoint} are known"
    );
}

/// Each change is a real one, from what the row was.
pub fn check_against(view: &MemoryView, changes: &ChangeSet) {
    fn check<K: Debug + Eq + Hash, R: Debug + PartialEq>(
        rows: &HashMap<K, R>,
        diffs: &Diffs<K, R>,
    ) {
        for (key, diff) in diffs {
            let is_real = diff.old != diff.new && rows.get(key) == diff.old.as_ref();
            assert!(is_real, "a change says what was before: {key:?} {diff:?}");
        }
    }
    check(&view.watches, &changes.watches);
    check(&view.outputs, &changes.outputs);
    check(&view.txs, &changes.txs);
    check(&view.raw_txs, &changes.raw_txs);
    check(&view.blocks, &changes.blocks);
    check(&view.scans, &changes.scans);
    check(&view.scan_scripts, &changes.scan_scripts);
    check(&view.forgetting, &changes.forgetting);
    check(&view.adding, &changes.adding);
    check(&view.tip, &changes.tip);
}

#[derive(Default)]
struct Fold {
    watched: HashSet<ScriptHash>,
    balances: HashMap<ScriptHash, i64>,
    told: HashMap<(ScriptHash, Txid), (Phase, u64, u64)>,
    tip: Option<u32>,
}

impl Fold {
    /// What a history scan finds is in the history without a word.
    fn add_past(&mut self, changes: &ChangeSet) {
        for (script, diff) in &changes.watches {
            match diff.new {
                Some(_) => _ = self.watched.insert(*script),
                None => _ = self.watched.remove(script),
            }
        }
        if changes.scans.is_empty() {
            return;
        }
        for (txid, diff) in &changes.txs {
            let Some(row) = &diff.new else { continue };
            // A row may still name a script that is being forgotten.
            let watched = |touch: &&Touch| self.watched.contains(&touch.script);
            for touch in row.touches.iter().filter(watched) {
                let found = (row.status.phase(), touch.received, touch.sent);
                self.told.entry((touch.script, *txid)).or_insert(found);
            }
        }
    }

    fn add(&mut self, event: &Event) {
        match &event.kind {
            EventKind::BalanceChange {
                subject, old, new, ..
            } => {
                let last = self
                    .balances
                    .insert(script_of(subject), new.total())
                    .unwrap_or(0);
                assert_eq!(
                    old.total(),
                    last,
                    "each balance change starts where the one before ended"
                );
                assert_ne!(
                    old.total(),
                    new.total(),
                    "a balance change changes the balance"
                );
            }
            EventKind::NewTransactions {
                subject,
                transactions,
            } => {
                let script = script_of(subject);
                assert!(!transactions.is_empty());
                for new in transactions {
                    let told = (new.status.phase(), new.received, new.sent);
                    assert_eq!(
                        self.told.insert((script, new.txid), told),
                        None,
                        "{} is announced once",
                        new.txid
                    );
                }
            }
            EventKind::TransactionUpdate {
                subject,
                previous,
                transaction,
                confirmations,
            } => {
                let told = (
                    transaction.status.phase(),
                    transaction.received,
                    transaction.sent,
                );
                let before = self
                    .told
                    .insert((script_of(subject), transaction.txid), told)
                    .expect("an update follows an announcement");
                assert_eq!(
                    before.0, *previous,
                    "an update starts where the one before ended"
                );
                assert!(
                    is_legal(&word(before.0), &word(told.0), before != told),
                    "{before:?} -> {told:?}: {event:?}"
                );
                assert!(
                    (told.1, told.2) >= (before.1, before.2),
                    "amounts never shrink"
                );
                let depth = match (transaction.status, event.tip) {
                    (Status::Confirmed { block, .. }, Some(tip)) => tip.height + 1 - block.height,
                    _ => 0,
                };
                assert_eq!(
                    *confirmations, depth,
                    "confirmations of {}",
                    transaction.txid
                );
            }
            EventKind::ScanComplete { .. } => {}
            EventKind::Unwatched { subject } => {
                let script = script_of(subject);
                self.balances.remove(&script);
                self.told.retain(|(told, _), _| *told != script);
            }
            EventKind::Block { block, .. } => {
                assert!(
                    self.tip.is_none_or(|tip| tip + 1 == block.height),
                    "blocks are told in order"
                );
                self.tip = Some(block.height);
            }
            EventKind::Reorg {
                old_tip,
                fork_point,
                depth,
            } => {
                assert!(
                    self.tip.is_none_or(|tip| tip == old_tip.height)
                        && fork_point.height + depth == old_tip.height
                );
                self.tip = Some(fork_point.height);
            }
        }
    }
}

/// The phase as the table of legal changes calls it.
fn word(phase: Phase) -> String {
    format!("{phase:?}").to_lowercase()
}

fn touch_of(row: &TxRow, number: u8) -> Option<(u64, u64)> {
    row.touches
        .iter()
        .find(|touch| touch.script == script(number))
        .map(|touch| (touch.received, touch.sent))
}

/// The script that an event is about.
pub fn script_of(subject: &Subject) -> ScriptHash {
    match subject {
        Subject::Script { script, .. } => *script,
        Subject::Descriptor(descriptor) => panic!("an event of descriptor {descriptor}"),
    }
}
