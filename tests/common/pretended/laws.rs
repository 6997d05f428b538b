//! The naive model: everything is rescanned from the node's chain and mempool, and every row and
//! every event must agree with it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::ops::RangeInclusive;

use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use satwatch::tracker::{
    Balance, BlockId, ChangeSet, Diffs, EarlierOutput, Event, EventKind, MemoryView, OutputRow,
    ScriptHash, Spend, Status, Subject, SubjectId, TxRow,
};

use super::fold::{Fold, amounts};
use super::{Node, script};

struct OutputLife {
    height: Option<u32>,
    coinbase: bool,
    spent: Option<Spend>,
}

/// What chain and mempool say about one world, for every script in it.
pub struct Truth {
    /// Every output there is and ever was on this chain and in the mempool.
    outputs: HashMap<OutPoint, (ScriptHash, u64)>,
    /// The same by script.
    paid: HashMap<ScriptHash, BTreeSet<OutPoint>>,
    /// How often each was created, if a coinbase came again: what was overwritten does not count.
    lives: HashMap<OutPoint, Vec<OutputLife>>,
    pub places: HashMap<Txid, Status>,
    txs: Vec<Transaction>,
    /// Which of them touch a script.
    touching: HashMap<ScriptHash, BTreeSet<usize>>,
}

impl Truth {
    pub fn of(node: &Node) -> Self {
        let mut truth = Self {
            outputs: HashMap::new(),
            paid: HashMap::new(),
            lives: HashMap::new(),
            places: HashMap::new(),
            txs: Vec::new(),
            touching: HashMap::new(),
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
        for (place, tx) in truth.txs.iter().enumerate() {
            let paid = tx
                .output
                .iter()
                .map(|out| ScriptHash::of(&out.script_pubkey));
            let spent = tx.input.iter().map(|input| &input.previous_output);
            let spent = spent.filter_map(|outpoint| Some(truth.outputs.get(outpoint)?.0));
            for script in paid.chain(spent) {
                truth.touching.entry(script).or_default().insert(place);
            }
        }
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
            let script = ScriptHash::of(&out.script_pubkey);
            self.outputs.insert(outpoint, (script, out.value.to_sat()));
            self.paid.entry(script).or_default().insert(outpoint);
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

    fn owned(&self, script: &ScriptHash) -> BTreeMap<OutPoint, OutputRow> {
        let mine = self.paid.get(script).into_iter().flatten();
        mine.filter_map(|outpoint| {
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
                script: *script,
                value: self.outputs[outpoint].1,
                height: newest.height,
                coinbase: newest.coinbase,
                spent: newest.spent,
                earlier: earlier.collect(),
            };
            Some((*outpoint, row))
        })
        .collect()
    }

    pub fn balance(&self, script: &ScriptHash) -> Balance {
        self.balance_from(script, 0)
    }

    /// Of what is unconfirmed, or in a block from `height` on.
    fn balance_from(&self, script: &ScriptHash, height: u32) -> Balance {
        let mut balance = Balance::default();
        let owned = self.owned(script);
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
    fn moves(&self, tx: &Transaction, script: &ScriptHash) -> (u64, u64) {
        let mine = |out: &&TxOut| ScriptHash::of(&out.script_pubkey) == *script;
        let received = tx.output.iter().filter(mine).map(|out| out.value.to_sat());
        let spent = tx
            .input
            .iter()
            .filter_map(|input| self.outputs.get(&input.previous_output));
        let spent = spent.filter(|(of, _)| of == script);
        (received.sum(), spent.map(|(_, value)| value).sum())
    }

    /// The transactions that touch a script.
    pub fn touching(&self, script: &ScriptHash) -> impl Iterator<Item = &Transaction> {
        let touching = self.touching.get(script).into_iter().flatten();
        touching.map(|place| &self.txs[*place])
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
            let row = self.view.watches.get(&script(*number));
            assert!(
                row.is_some_and(|row| row.listed),
                "script {number} is watched"
            );
        }
        for script in self.view.watches.keys() {
            self.check_script(&truth, script);
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

    /// It was thought to spend the second of a coinbase, which went, and spends the first, of which
    /// nothing is known before the baseline. In a block its outputs are right and its status is not
    /// known; in the mempool the baseline puts it right.
    fn is_lost(&self, txid: &Txid, place: Status) -> bool {
        let height = match place {
            Status::Confirmed { block, .. } => Some(block.height),
            _ => None,
        };
        let is_above = |row: &OutputRow| {
            let mut earlier = row.earlier.iter().map(|earlier| earlier.height);
            height.is_some_and(|spent_at| {
                row.height.is_none_or(|height| height > spent_at)
                    && earlier.all(|height| height > spent_at)
            })
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

    fn check_script(&self, truth: &Truth, script: &ScriptHash) {
        let row = &self.view.watches[script];
        if row.coverage.staged.is_some() {
            assert!(row.coverage.pending && !row.coverage.utxos_complete);
            assert_eq!(
                row.balance,
                truth.balance_from(script, row.coverage.from_height),
                "of script {script:?} what came since is shown while its past is not whole"
            );
        }
        if !row.coverage.utxos_complete {
            return;
        }
        assert_eq!(
            row.balance,
            truth.balance(script),
            "balance of script {script:?}"
        );
        let owned = truth.owned(script);
        let mine = |row: &&OutputRow| row.script == *script;
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
        assert_eq!(row.utxo_count, free, "unspent outputs of script {script:?}");
        let history = self
            .view
            .txs
            .values()
            .filter(|row| touch_of(row, script).is_some())
            .count() as u64;
        assert_eq!(row.tx_count, history, "transactions of script {script:?}");
        for tx in truth.touching(script) {
            let txid = tx.compute_txid();
            let covered = match truth.places[&txid] {
                Status::Confirmed { block, .. } => block.height >= row.coverage.from_height,
                _ => true,
            };
            let known = self
                .view
                .txs
                .get(&txid)
                .and_then(|row| touch_of(row, script));
            assert!(
                known.is_some() || !covered,
                "{txid} is in the history of script {script:?}"
            );
            let Some((received, sent)) = known else {
                continue;
            };
            let (truly_received, truly_sent) = truth.moves(tx, script);
            assert!(
                received == truly_received && sent <= truly_sent,
                "what {txid} moves for script {script:?}"
            );
            assert!(
                sent == truly_sent || !covered,
                "what {txid} sends for script {script:?}"
            );
        }
    }

    /// Everything that the blocks of these heights do for a script is in its history.
    pub fn check_history(&self, number: u8, heights: RangeInclusive<u32>) {
        let (truth, script) = (Truth::of(self.node), &script(number));
        for tx in truth.touching(script) {
            let txid = tx.compute_txid();
            let Status::Confirmed { block, .. } = truth.places[&txid] else {
                continue;
            };
            let row = self.view.txs.get(&txid);
            assert!(
                !heights.contains(&block.height)
                    || row.is_some_and(|row| touch_of(row, script).is_some()),
                "{txid} of block {} is in the history of script {script:?}",
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
            fold.add(changes, events);
        }
        for (script, row) in &self.view.watches {
            let told = fold.balance(&SubjectId::Script(*script));
            assert_eq!(told, row.balance.total(), "the last balance told is it");
        }
        for (descriptor, row) in &self.view.descriptors {
            let told = fold.balance(&SubjectId::Descriptor(*descriptor));
            assert_eq!(told, row.told().total(), "the last balance told is it");
        }
        for ((subject, txid), told) in &fold.told {
            let row = &self.view.txs[txid];
            let amounts = amounts(row).find(|(it, _)| it == subject);
            let (_, (received, sent)) = amounts.expect("it was told to whom it touches");
            assert_eq!(
                (row.status.phase(), received, sent),
                *told,
                "the last word about {txid} is its row"
            );
        }
        let amounts: usize = self.view.txs.values().map(|row| amounts(row).count()).sum();
        assert_eq!(
            amounts,
            fold.told.len(),
            "every transaction was told to everybody whom it touches"
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
            for (subject, _) in amounts(row) {
                let depths = match &subject {
                    SubjectId::Script(script) => &self.view.watches[script].depths,
                    SubjectId::Descriptor(id) => &self.view.descriptors[id].depths,
                };
                if depth > 1 && depths.iter().any(|asked| u32::from(*asked) == depth) {
                    expected.insert((subject, *txid, depth));
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
                told.push((subject.id(), transaction.txid, *confirmations));
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
    check(&view.descriptors, &changes.descriptors);
    check(&view.wallets, &changes.wallets);
    check(&view.derivations, &changes.derivations);
    check(&view.owned_outputs, &changes.owned_outputs);
    check(&view.joining, &changes.joining);
    check(&view.leaving, &changes.leaving);
    check(&view.tip, &changes.tip);
}

fn touch_of(row: &TxRow, script: &ScriptHash) -> Option<(u64, u64)> {
    row.touches
        .iter()
        .find(|touch| touch.script == *script)
        .map(|touch| (touch.received, touch.sent))
}

/// The script that an event is about.
pub fn script_of(subject: &Subject) -> ScriptHash {
    match subject {
        Subject::Script { script, .. } => *script,
        Subject::Descriptor(descriptor) => panic!("an event of descriptor {descriptor}"),
    }
}
