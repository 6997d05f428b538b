//! One transition in the making: the moves of a transaction between its states, on the rows and in
//! memory together.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bitcoin::{OutPoint, Script, Transaction, Txid};

use super::change_builder::ChangeBuilder;
use super::fingerprints::TxFingerprints;
use super::raw::object;
use super::rows::signals_replacement;
use super::{
    ApplyError, FollowUp, OutputRow, RawTx, ScriptHash, Spend, Status, Touch, Tracker, TxRow, View,
};

pub(super) struct TransitionBuilder<'a, V> {
    pub tracker: &'a mut Tracker,
    pub changes: ChangeBuilder<'a, V>,
    pub follow_ups: Vec<FollowUp>,
    /// Mempool transactions to be matched again: they spend an output, or pay a script, that we
    /// learned of after them.
    pub revisit: BTreeSet<Txid>,
}

impl<'a, V: View> TransitionBuilder<'a, V> {
    pub fn new(tracker: &'a mut Tracker, view: &'a V, now: u64) -> Self {
        Self {
            tracker,
            changes: ChangeBuilder::new(view, now),
            follow_ups: Vec::new(),
            revisit: BTreeSet::new(),
        }
    }

    /// The scripthash of `spk` if it is watched.
    pub fn watched_script(&mut self, spk: &Script) -> Result<Option<ScriptHash>, ApplyError> {
        if !self
            .tracker
            .scripts
            .contains(self.tracker.fingerprints.script(spk))
        {
            return Ok(None);
        }
        let script = ScriptHash::of(spk);
        Ok(self.changes.watch(&script)?.map(|_| script))
    }

    /// The row of an output that pays a watched script, if its spend is not confirmed (or it was
    /// met in this transition) and it is not set aside.
    pub fn watched_output(&mut self, outpoint: &OutPoint) -> Result<Option<OutputRow>, ApplyError> {
        match self.open_output(outpoint)? {
            Some(row) if !self.is_set_aside(&row)? => Ok(Some(row)),
            _ => Ok(None),
        }
    }

    /// The same, set aside or not.
    fn open_output(&mut self, outpoint: &OutPoint) -> Result<Option<OutputRow>, ApplyError> {
        if !self.changes.knows_output(outpoint)
            && !self
                .tracker
                .outpoints
                .contains(self.tracker.fingerprints.outpoint(outpoint))
        {
            return Ok(None);
        }
        let forgetting = &self.tracker.forgetting;
        let row = self.changes.output(outpoint)?;
        Ok(row.filter(|row| !forgetting.contains(&row.script)).cloned())
    }

    /// Whether it is one of a baseline of which more is to come. Until all is there, it is matched
    /// with no transaction, so that who spends many of them is told once, with all that it spends:
    /// mempool transactions are looked at again then, and what a block spends goes without a word,
    /// as if it had been spent before the baseline.
    pub fn is_set_aside(&mut self, row: &OutputRow) -> Result<bool, ApplyError> {
        let is_matched = self.tracker.has_all_found(&row.script);
        let watch = self.changes.watch(&row.script)?;
        let is_staged = watch.is_some_and(|watch| watch.coverage.is_staged(row.height));
        Ok(is_staged && row.spent.is_none() && !is_matched)
    }

    pub fn put_output(
        &mut self,
        outpoint: OutPoint,
        row: Option<OutputRow>,
    ) -> Result<(), ApplyError> {
        self.changes.put_output(outpoint, row)?;
        for (outpoint, open) in self.changes.filtered.drain(..) {
            let fingerprint = self.tracker.fingerprints.outpoint(&outpoint);
            match open {
                true => self.tracker.outpoints.insert(fingerprint),
                false => self.tracker.outpoints.remove(fingerprint),
            }
        }
        Ok(())
    }

    /// Whether it was told before. It may touch nothing that is known now: outputs of a baseline
    /// that began anew, as after a restart, are set aside again.
    pub fn is_told(&mut self, txid: &Txid) -> Result<bool, ApplyError> {
        Ok(self.changes.tx(txid)?.is_some())
    }

    /// The transaction, if it pays a watched script, spends a watched output or was told before.
    pub fn concerning(
        &mut self,
        tx: &RawTx,
        prints: &TxFingerprints,
    ) -> Result<Option<Transaction>, ApplyError> {
        if !self.tracker.may_concern(prints) {
            return Ok(None);
        }
        let txid = tx.txid();
        let tx = object(tx.bytes()).ok_or(ApplyError::BadTransaction(txid))?;
        for output in &tx.output {
            if self.watched_script(&output.script_pubkey)?.is_some() {
                return Ok(Some(tx));
            }
        }
        for input in &tx.input {
            if self.watched_output(&input.previous_output)?.is_some() {
                return Ok(Some(tx));
            }
        }
        Ok(self.is_told(&txid)?.then_some(tx))
    }

    /// Makes the transaction's outputs and spends exist, at `height` or unconfirmed, and says what
    /// it does to which script.
    pub fn activate(
        &mut self,
        txid: Txid,
        tx: &Transaction,
        height: Option<u32>,
    ) -> Result<Vec<Touch>, ApplyError> {
        let mut touches = Touches::default();
        let coinbase = tx.is_coinbase();
        for (vout, output) in (0..).zip(&tx.output) {
            let Some(script) = self.watched_script(&output.script_pubkey)? else {
                continue;
            };
            let (outpoint, value) = (OutPoint { txid, vout }, output.value.to_sat());
            let known = self.changes.output(&outpoint)?.cloned();
            let was_matched = match &known {
                Some(row) => row.spent.is_none() && !self.is_set_aside(row)?,
                None => false,
            };
            let row = known.unwrap_or_else(|| OutputRow {
                script,
                value,
                height,
                coinbase,
                spent: None,
                earlier: Vec::new(),
            });
            let row = match height {
                Some(height) => row.created_in(height),
                None => OutputRow { height, ..row },
            };
            let is_new = !was_matched && row.spent.is_none();
            self.put_output(outpoint, Some(row))?;
            touches.add(script, value, 0)?;
            if is_new && let Some(spender) = self.tracker.mempool.spender(&outpoint) {
                self.revisit.insert(spender);
            }
        }
        if coinbase {
            return Ok(touches.into_list());
        }
        for input in &tx.input {
            let Some(row) = self.open_output(&input.previous_output)? else {
                continue;
            };
            if self.is_set_aside(&row)? {
                if height.is_some() {
                    self.put_output(input.previous_output, row.without_newest())?;
                }
                continue;
            }
            touches.add(row.script, 0, row.value)?;
            self.put_output(
                input.previous_output,
                Some(OutputRow {
                    spent: Some(Spend { txid, height }),
                    ..row
                }),
            )?;
        }
        Ok(touches.into_list())
    }

    /// Writes where an active transaction stands. Amounts that it was known to move for a script
    /// never shrink.
    pub fn record(
        &mut self,
        txid: Txid,
        tx: &Arc<Transaction>,
        status: Status,
        touches: Vec<Touch>,
    ) -> Result<(), ApplyError> {
        let row = match self.changes.tx(&txid)? {
            Some(row) => row.clone(),
            None => self.new_row(txid, tx, status)?,
        };
        self.move_to(txid, row, status, touches)
    }

    /// A transaction that was not known: it is kept, and has this row.
    pub fn new_row(
        &mut self,
        txid: Txid,
        tx: &Arc<Transaction>,
        status: Status,
    ) -> Result<TxRow, ApplyError> {
        self.changes.raw_txs(txid)?.set(Some(tx.clone()));
        Ok(TxRow {
            status,
            signals: signals_replacement(tx),
            inherits: status == Status::Mempool && self.tracker.mempool.inherits(&txid),
            first_seen: self.changes.now(),
            order: self.place_of(status),
            touches: Vec::new(),
            nets: Vec::new(),
            earlier: Vec::new(),
        })
    }

    fn place_of(&self, status: Status) -> u64 {
        match status {
            Status::Confirmed { block, position } => order(block.height, position),
            _ => order(u32::MAX, seconds(self.changes.now())),
        }
    }

    /// Writes a row with another status, and what it is known to touch besides.
    pub fn move_to(
        &mut self,
        txid: Txid,
        mut row: TxRow,
        status: Status,
        touches: Vec<Touch>,
    ) -> Result<(), ApplyError> {
        let order = self.place_of(status);
        let inherits = status == Status::Mempool && self.tracker.mempool.inherits(&txid);
        if let Status::Confirmed { block, .. } = status
            && let Some(earlier) = row.confirmed_before(block.height)
            && earlier < block.height
        {
            row.add_earlier(earlier);
        }
        if row.status != status {
            (row.status, row.order, row.inherits) = (status, order, inherits);
        }
        self.tracker.mempool.set_inherits(&txid, row.inherits);
        let places = places(&row.touches);
        for new in touches {
            match places.get(&new.script) {
                Some(place) => {
                    let known = &mut row.touches[*place];
                    known.received = known.received.max(new.received);
                    known.sent = known.sent.max(new.sent);
                }
                None => row.touches.push(new),
            }
        }
        self.changes.put_tx(txid, row)
    }

    /// Takes an active transaction's outputs and spends away; it is `status` from now on.
    pub fn retire(&mut self, txid: Txid, status: Status) -> Result<(), ApplyError> {
        let Some(row) = self.changes.tx(&txid)?.cloned() else {
            return Ok(());
        };
        let tx = self.changes.transaction(&txid)?;
        for (vout, output) in (0..).zip(&tx.output) {
            let outpoint = OutPoint { txid, vout };
            if self.watched_script(&output.script_pubkey)?.is_some()
                && self.changes.output(&outpoint)?.is_some()
            {
                self.put_output(outpoint, None)?;
            }
        }
        for input in &tx.input {
            let Some(spent) = self.watched_output(&input.previous_output)? else {
                continue;
            };
            if spent.spent.is_some_and(|spend| spend.txid == txid) {
                self.put_output(
                    input.previous_output,
                    Some(OutputRow {
                        spent: None,
                        ..spent
                    }),
                )?;
            }
        }
        self.bury(txid, row, status)
    }

    /// Writes that a transaction is no more.
    pub fn bury(&mut self, txid: Txid, mut row: TxRow, status: Status) -> Result<(), ApplyError> {
        let height = self
            .tracker
            .tip
            .map_or(0, |tip| tip.height.saturating_add(1));
        row.order = order(height, seconds(self.changes.now()));
        (row.status, row.inherits) = (status, false);
        self.changes.put_tx(txid, row)
    }

    /// A transaction that the node holds enters the mempool's index.
    pub fn insert(
        &mut self,
        tx: &RawTx,
        prints: TxFingerprints,
        tracked: bool,
    ) -> Result<(), ApplyError> {
        let mempool = &mut self.tracker.mempool;
        let signals = prints.signals;
        let children = mempool.insert(tx, prints, tracked);
        if signals || mempool.inherits(&tx.txid()) {
            self.judge_descendants(&children)?;
        }
        Ok(())
    }

    /// A transaction that can be replaced came into the mempool, or left it for a block: whether
    /// these children and what descends from them inherit that is judged again.
    pub fn judge_descendants(&mut self, children: &[Txid]) -> Result<(), ApplyError> {
        let mempool = &self.tracker.mempool;
        let descendants = mempool.with_descendants(children);
        let misjudged = mempool.misjudged_of(&descendants);
        self.judge(misjudged)
    }

    /// Writes whether these inherit.
    pub fn judge(&mut self, txids: Vec<Txid>) -> Result<(), ApplyError> {
        for txid in txids {
            let inherits = self.tracker.mempool.inherits(&txid);
            self.tracker.mempool.set_inherits(&txid, inherits);
            let known = self.changes.tx(&txid)?;
            if let Some(row) = known.filter(|row| row.status == Status::Mempool).cloned() {
                self.changes.put_tx(txid, TxRow { inherits, ..row })?;
            }
        }
        Ok(())
    }

    /// Removes `roots` and all that descends from them from the mempool; tracked ones become
    /// `status`.
    pub fn displace(&mut self, roots: &[Txid], status: Status) -> Result<(), ApplyError> {
        for txid in self.tracker.mempool.with_descendants(roots) {
            let tracked = self.tracker.mempool.is_tracked(&txid);
            self.tracker.mempool.remove(&txid);
            if tracked {
                self.retire(txid, status)?;
            }
        }
        Ok(())
    }

    /// Matches again the mempool transactions that matter more than when they came. Of those that
    /// did not matter then, only the fingerprints are here: they are asked for.
    ///
    /// What the outputs of one round lead to is the next round: a transaction that spends many of
    /// them is matched once for all.
    pub fn settle_revisits(&mut self) -> Result<(), ApplyError> {
        let mut unknown = BTreeSet::new();
        while !self.revisit.is_empty() {
            for txid in std::mem::take(&mut self.revisit) {
                if self.tracker.mempool.is_tracked(&txid) {
                    self.match_again(txid)?;
                } else if self.tracker.mempool.contains(&txid) {
                    self.tracker.mempool.want(txid);
                    unknown.insert(txid);
                }
            }
        }
        if !unknown.is_empty() {
            self.follow_ups
                .push(FollowUp::Fetch(unknown.into_iter().collect()));
        }
        Ok(())
    }

    fn match_again(&mut self, txid: Txid) -> Result<(), ApplyError> {
        let known = self.changes.tx(&txid)?;
        if known.is_none_or(|row| row.status != Status::Mempool) {
            return Ok(());
        }
        let tx = self.changes.transaction(&txid)?;
        let touches = self.activate(txid, &tx, None)?;
        self.record(txid, &tx, Status::Mempool, touches)
    }

    /// Remembers to look again at whatever in the mempool spends this outpoint.
    pub fn revisit_spender(&mut self, outpoint: &OutPoint) {
        self.revisit.extend(self.tracker.mempool.spender(outpoint));
    }
}

/// What one transaction does to scripts, in the order in which it meets them. Each script is found
/// at once: a payout has thousands.
#[derive(Debug, Default)]
pub(super) struct Touches {
    list: Vec<Touch>,
    places: HashMap<ScriptHash, usize>,
}

impl Touches {
    pub fn add(&mut self, script: ScriptHash, received: u64, sent: u64) -> Result<(), ApplyError> {
        let place = *self.places.entry(script).or_insert(self.list.len());
        if place == self.list.len() {
            self.list.push(Touch {
                script,
                received,
                sent,
            });
            return Ok(());
        }
        let add = |a: u64, b: u64| a.checked_add(b).ok_or(ApplyError::Amount(script));
        let touch = &mut self.list[place];
        (touch.received, touch.sent) = (add(touch.received, received)?, add(touch.sent, sent)?);
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn into_list(self) -> Vec<Touch> {
        self.list
    }
}

/// Where each script stands.
fn places(touches: &[Touch]) -> HashMap<ScriptHash, usize> {
    let places = touches.iter().enumerate();
    places.map(|(place, touch)| (touch.script, place)).collect()
}

pub(super) fn order(height: u32, position: u32) -> u64 {
    (u64::from(height) << 32) | u64::from(position)
}

/// Seconds of a time in milliseconds; good until 2106, when only the order of unconfirmed
/// transactions would suffer.
fn seconds(now: u64) -> u32 {
    u32::try_from(now / 1000).unwrap_or(u32::MAX)
}
