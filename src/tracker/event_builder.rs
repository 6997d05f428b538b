//! Events: read off the difference that a transition makes, so that what is told is what changed.

use std::collections::HashMap;

use bitcoin::Txid;

use super::event::{Cause, Event, EventKind, Part, Subject, SubjectId, TxSummary};
use super::transition::TransitionBuilder;
use super::{ApplyError, Status, Transition, TxRow, View};

/// New transactions of each subject, in the order in which they were met; subjects, too.
#[derive(Default)]
struct NewBySubject {
    subjects: Vec<SubjectId>,
    transactions: HashMap<SubjectId, Vec<TxSummary>>,
}

impl NewBySubject {
    fn add(&mut self, subject: SubjectId, transaction: TxSummary) {
        let transactions = self.transactions.entry(subject).or_default();
        if transactions.is_empty() {
            self.subjects.push(subject);
        }
        transactions.push(transaction);
    }

    fn into_lists(mut self) -> impl Iterator<Item = (SubjectId, Vec<TxSummary>)> {
        let subjects = self.subjects.into_iter();
        subjects.filter_map(move |subject| Some((subject, self.transactions.remove(&subject)?)))
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
        self.settle_uses()?;
        let mut kinds = first;
        let mut new = NewBySubject::default();
        for txid in self.changes.order.clone() {
            self.tx_news(txid, &mut kinds, &mut new)?;
        }
        self.announce(new, &mut kinds)?;
        self.balance_news(&mut kinds, cause)?;
        self.label_news(&mut kinds)?;
        kinds.extend(last);
        Ok(self.tell(kinds))
    }

    fn announce(
        &mut self,
        new: NewBySubject,
        kinds: &mut Vec<EventKind>,
    ) -> Result<(), ApplyError> {
        for (subject, transactions) in new.into_lists() {
            if let Some(subject) = self.subject(&subject)? {
                kinds.push(EventKind::NewTransactions {
                    subject,
                    transactions,
                });
            }
        }
        Ok(())
    }

    /// Ends a transition about the past: transactions that it found are not announced, only what it
    /// corrects is told.
    pub fn finish_scan_blocks(
        mut self,
        cause: impl Fn(Option<Txid>) -> Cause,
    ) -> Result<Transition, ApplyError> {
        self.settle_uses()?;
        let (mut kinds, mut unannounced) = (Vec::new(), NewBySubject::default());
        for txid in self.changes.order.clone() {
            if self
                .changes
                .tx_change(&txid)
                .is_some_and(|(old, row)| old.is_some_and(|old| is_corrected(old, row)))
            {
                self.tx_news(txid, &mut kinds, &mut unannounced)?;
            }
        }
        self.balance_news(&mut kinds, cause)?;
        Ok(self.tell(kinds))
    }

    pub fn tell(self, kinds: Vec<EventKind>) -> Transition {
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

    /// What happened to one transaction, for each subject that it touches: announced, moved on, or
    /// found to move more for it.
    fn tx_news(
        &mut self,
        txid: Txid,
        kinds: &mut Vec<EventKind>,
        new: &mut NewBySubject,
    ) -> Result<(), ApplyError> {
        let Some((old, row)) = self.changes.tx_change(&txid) else {
            return Ok(());
        };
        let (old, row) = (old.cloned(), row.clone());
        let block_time = self.block_time(&row)?;
        let before = old.as_ref().map(by_subject).unwrap_or_default();
        for part in row.parts() {
            let Some(subject) = self.subject(&part.subject)? else {
                continue;
            };
            let policy = self.tracker.replacement;
            let transaction = TxSummary::of_part(txid, &row, &part, block_time, policy);
            match before.get(&part.subject).zip(old.as_ref()) {
                // What stood in a block before is history, no news.
                None if old.as_ref().is_some_and(|old| stands(old, &row)) => {}
                None => new.add(part.subject, transaction),
                // Nor is there a word for one that is no more and turns out to move more.
                Some((_, old)) if stands(old, &row) && !row.is_active() => {}
                Some((known, old)) if old.status != row.status || *known != part => {
                    let previous = old.status.phase();
                    let confirmations = self.confirmations(&row);
                    kinds.push(EventKind::TransactionUpdate {
                        subject,
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

    fn balance_news(
        &mut self,
        kinds: &mut Vec<EventKind>,
        cause: impl Fn(Option<Txid>) -> Cause,
    ) -> Result<(), ApplyError> {
        let mut movers: HashMap<SubjectId, Txid> = HashMap::new();
        for txid in &self.changes.order {
            let row = self.changes.tx_change(txid).map(|(_, row)| row);
            for part in row.into_iter().flat_map(TxRow::parts) {
                movers.entry(part.subject).or_insert(*txid);
            }
        }
        let scripts = self.changes.watch_changes();
        let scripts = scripts.map(|(id, old, row)| (SubjectId::Script(*id), old, row.balance));
        let descriptors = self.changes.descriptor_changes();
        let descriptors =
            descriptors.map(|(id, old, row)| (SubjectId::Descriptor(*id), old, row.told()));
        let all = scripts.chain(descriptors);
        let moved: Vec<_> = all
            .filter(|(_, old, new)| old.total() != new.total())
            .collect();
        for (id, old, new) in moved {
            if let Some(subject) = self.subject(&id)? {
                kinds.push(EventKind::BalanceChange {
                    subject,
                    old,
                    new,
                    cause: cause(movers.get(&id).copied()),
                });
            }
        }
        Ok(())
    }

    /// `None`: not watched.
    pub fn subject(&mut self, id: &SubjectId) -> Result<Option<Subject>, ApplyError> {
        let script = match id {
            SubjectId::Script(script) => *script,
            SubjectId::Descriptor(descriptor) => {
                let row = self.changes.descriptor(descriptor)?;
                return Ok(row.map(|_| Subject::Descriptor(*descriptor)));
            }
        };
        let Some(watch) = self.changes.watch(&script)? else {
            return Ok(None);
        };
        let spk = watch.spk.clone();
        let mut derivations = watch.derivations.clone();
        derivations.retain(|place| !self.tracker.leaving.contains(&place.descriptor));
        Ok(Some(Subject::Script {
            spk,
            script,
            derivations,
        }))
    }

    /// The subjects that asked to be told when `txid` is `depth` deep, and hear so now.
    pub fn depth_updates(&mut self, txid: Txid, depth: u8) -> Result<Vec<EventKind>, ApplyError> {
        let Some(row) = self.changes.tx(&txid)?.cloned() else {
            return Ok(Vec::new());
        };
        let block_time = self.block_time(&row)?;
        let policy = self.tracker.replacement;
        let mut updates = Vec::new();
        for part in row.parts() {
            let depths = match &part.subject {
                SubjectId::Script(script) => self.changes.watch(script)?.map(|it| &it.depths),
                SubjectId::Descriptor(id) => self.changes.descriptor(id)?.map(|it| &it.depths),
            };
            if !depths.is_some_and(|depths| depths.contains(&depth)) {
                continue;
            }
            if let Some(subject) = self.subject(&part.subject)? {
                updates.push(EventKind::TransactionUpdate {
                    subject,
                    previous: row.status.phase(),
                    transaction: TxSummary::of_part(txid, &row, &part, block_time, policy),
                    confirmations: u32::from(depth),
                });
            }
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

/// What a transaction is known to move, for each subject.
fn by_subject(row: &TxRow) -> HashMap<SubjectId, Part> {
    row.parts().map(|part| (part.subject, part)).collect()
}

/// Whether nothing has happened to a transaction that is not in the mempool.
fn stands(old: &TxRow, row: &TxRow) -> bool {
    old.status == row.status && row.status != Status::Mempool
}

/// Whether what was known of a transaction was wrong: that it is confirmed, or what it moves for
/// somebody.
fn is_corrected(old: &TxRow, row: &TxRow) -> bool {
    let now = by_subject(row);
    let stays = |part: Part| now.get(&part.subject) == Some(&part);
    old.status.phase() != row.status.phase() || !old.parts().all(stays)
}
