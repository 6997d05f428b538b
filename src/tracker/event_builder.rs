//! Events: read off the difference that a transition makes, so that what is told is what changed.

use std::collections::HashMap;

use bitcoin::Txid;

use super::event::{Cause, Event, EventKind, TxSummary};
use super::transition::TransitionBuilder;
use super::{ApplyError, ScriptHash, Status, Touch, Transition, TxRow, View};

/// New transactions of each script, in the order in which they were met; scripts, too.
#[derive(Default)]
struct NewByScript {
    scripts: Vec<ScriptHash>,
    transactions: HashMap<ScriptHash, Vec<TxSummary>>,
}

impl NewByScript {
    fn add(&mut self, script: ScriptHash, transaction: TxSummary) {
        let transactions = self.transactions.entry(script).or_default();
        if transactions.is_empty() {
            self.scripts.push(script);
        }
        transactions.push(transaction);
    }

    fn into_lists(mut self) -> impl Iterator<Item = (ScriptHash, Vec<TxSummary>)> {
        let scripts = self.scripts.into_iter();
        scripts.filter_map(move |script| Some((script, self.transactions.remove(&script)?)))
    }
}

impl<V: View> TransitionBuilder<'_, V> {
    /// Ends the transition: `first` and `last` are events about the chain and depths, around those
    /// about scripts; `cause` names the cause of a balance change, given the first transaction that
    /// moved the script.
    pub fn finish(
        mut self,
        first: Vec<EventKind>,
        last: Vec<EventKind>,
        cause: impl Fn(Option<Txid>) -> Cause,
    ) -> Result<Transition, ApplyError> {
        let mut kinds = first;
        let mut new = NewByScript::default();
        for txid in self.changes.order.clone() {
            self.tx_news(txid, &mut kinds, &mut new)?;
        }
        for (script, transactions) in new.into_lists() {
            let Some(spk) = self.changes.watch(&script)?.map(|row| row.spk.clone()) else {
                continue;
            };
            kinds.push(EventKind::NewTransactions {
                spk,
                script,
                transactions,
            });
        }
        self.balance_news(&mut kinds, cause);
        kinds.extend(last);
        Ok(self.tell(kinds))
    }

    /// Ends a transition about the past: transactions that it found are not announced, only what it
    /// corrects is told.
    pub fn finish_scan_blocks(
        mut self,
        cause: impl Fn(Option<Txid>) -> Cause,
    ) -> Result<Transition, ApplyError> {
        let (mut kinds, mut unannounced) = (Vec::new(), NewByScript::default());
        for txid in self.changes.order.clone() {
            if self
                .changes
                .tx_change(&txid)
                .is_some_and(|(old, row)| old.is_some_and(|old| is_corrected(old, row)))
            {
                self.tx_news(txid, &mut kinds, &mut unannounced)?;
            }
        }
        self.balance_news(&mut kinds, cause);
        Ok(self.tell(kinds))
    }

    fn tell(self, kinds: Vec<EventKind>) -> Transition {
        let (time, tip) = (self.changes.now(), self.tracker.tip);
        let events = kinds
            .into_iter()
            .map(|kind| Event { time, tip, kind })
            .collect();
        Transition {
            changes: self.changes.into_changes(),
            events,
            follow_ups: self.follow_ups,
        }
    }

    /// What happened to one transaction, for each script that it touches: announced, moved on, or
    /// found to move more for it.
    fn tx_news(
        &mut self,
        txid: Txid,
        kinds: &mut Vec<EventKind>,
        new: &mut NewByScript,
    ) -> Result<(), ApplyError> {
        let Some((old, row)) = self.changes.tx_change(&txid) else {
            return Ok(());
        };
        let (old, row) = (old.cloned(), row.clone());
        let block_time = self.block_time(&row)?;
        let before = old.as_ref().map(by_script).unwrap_or_default();
        for touch in &row.touches {
            let Some(spk) = self
                .changes
                .watch(&touch.script)?
                .map(|watch| watch.spk.clone())
            else {
                continue;
            };
            let policy = self.tracker.replacement;
            let transaction = TxSummary::of_touch(txid, &row, touch, block_time, policy);
            match before.get(&touch.script).zip(old.as_ref()) {
                None => new.add(touch.script, transaction),
                Some((known, old)) if old.status != row.status || *known != *touch => {
                    let previous = old.status.phase();
                    let confirmations = self.confirmations(&row);
                    kinds.push(EventKind::TransactionUpdate {
                        spk,
                        script: touch.script,
                        previous,
                        transaction,
                        confirmations,
                    });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn balance_news(&mut self, kinds: &mut Vec<EventKind>, cause: impl Fn(Option<Txid>) -> Cause) {
        let mut movers: HashMap<ScriptHash, Txid> = HashMap::new();
        for txid in &self.changes.order {
            let touches = self.changes.tx_change(txid).map(|(_, row)| &row.touches);
            for touch in touches.into_iter().flatten() {
                movers.entry(touch.script).or_insert(*txid);
            }
        }
        for (script, old, new) in self
            .changes
            .watch_changes()
            .filter(|(_, old, new)| old.total() != new.balance.total())
        {
            kinds.push(EventKind::BalanceChange {
                spk: new.spk.clone(),
                script: *script,
                old,
                new: new.balance,
                cause: cause(movers.get(script).copied()),
            });
        }
    }

    /// The scripts that asked to be told when `txid` is `depth` deep, and hear so now.
    pub fn depth_updates(&mut self, txid: Txid, depth: u8) -> Result<Vec<EventKind>, ApplyError> {
        let Some(row) = self.changes.tx(&txid)?.cloned() else {
            return Ok(Vec::new());
        };
        let block_time = self.block_time(&row)?;
        let mut updates = Vec::new();
        for touch in &row.touches {
            let Some(watch) = self
                .changes
                .watch(&touch.script)?
                .filter(|watch| watch.depths.contains(&depth))
            else {
                continue;
            };
            updates.push(EventKind::TransactionUpdate {
                spk: watch.spk.clone(),
                script: touch.script,
                previous: row.status.phase(),
                transaction: TxSummary::of_touch(
                    txid,
                    &row,
                    touch,
                    block_time,
                    self.tracker.replacement,
                ),
                confirmations: u32::from(depth),
            });
        }
        Ok(updates)
    }

    fn block_time(&mut self, row: &TxRow) -> Result<Option<u32>, ApplyError> {
        let Status::Confirmed { block, .. } = row.status else {
            return Ok(None);
        };
        Ok(self.changes.block(&block.height)?.map(|block| block.time))
    }

    fn confirmations(&self, row: &TxRow) -> u32 {
        match (row.status, self.tracker.tip) {
            (Status::Confirmed { block, .. }, Some(tip)) => {
                (tip.height + 1).saturating_sub(block.height)
            }
            _ => 0,
        }
    }
}

/// What a transaction is known to move, for each script.
fn by_script(row: &TxRow) -> HashMap<ScriptHash, Touch> {
    let touches = row.touches.iter();
    touches.map(|touch| (touch.script, *touch)).collect()
}

/// Whether what was known of a transaction was wrong: that it is confirmed, or what it moves for a
/// script.
fn is_corrected(old: &TxRow, row: &TxRow) -> bool {
    let now = by_script(row);
    let stays = |touch: &Touch| now.get(&touch.script) == Some(touch);
    old.status.phase() != row.status.phase() || !old.touches.iter().all(stays)
}
