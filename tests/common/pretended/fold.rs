//! What was told, folded: what somebody knows who has heard every event from the first one on, and
//! the laws of the story itself.

use std::collections::{HashMap, HashSet};

use bitcoin::Txid;
use satwatch::tracker::{
    ChangeSet, Derivation, DescriptorId, DescriptorRow, Diff, Event, EventKind, Phase, ScriptHash,
    Status, Subject, SubjectId, TxRow,
};

use super::status_changes::is_legal;

/// What a transaction moves for each whom it concerns: received and sent.
pub fn amounts(row: &TxRow) -> impl Iterator<Item = (SubjectId, (u64, u64))> {
    let touches = row.touches.iter();
    let touches = touches.map(|it| (SubjectId::Script(it.script), (it.received, it.sent)));
    let nets = row.nets.iter();
    touches.chain(nets.map(|it| {
        let subject = SubjectId::Descriptor(it.descriptor);
        (subject, (it.received, it.sent))
    }))
}

#[derive(Default)]
pub struct Fold {
    balances: HashMap<SubjectId, i64>,
    pub told: HashMap<(SubjectId, Txid), (Phase, u64, u64)>,
    pub tip: Option<u32>,
    /// Whose end was told.
    ended: HashSet<SubjectId>,
    /// Watched scripts, and where they stand.
    places: HashMap<ScriptHash, Vec<Derivation>>,
    descriptors: HashSet<DescriptorId>,
}

impl Fold {
    pub fn balance(&self, subject: &SubjectId) -> i64 {
        self.balances.get(subject).copied().unwrap_or_default()
    }

    /// One transition with its events.
    pub fn add(&mut self, changes: &ChangeSet, events: &[Event]) {
        self.add_rows(changes);
        check_labels(changes, events);
        for event in events {
            self.add_event(event);
            self.check_places(event);
        }
        self.add_past(changes);
    }

    fn add_rows(&mut self, changes: &ChangeSet) {
        for (script, diff) in &changes.watches {
            match &diff.new {
                Some(row) => _ = self.places.insert(*script, row.derivations.clone()),
                None => _ = self.places.remove(script),
            }
            if diff.old.is_none() {
                self.ended.remove(&SubjectId::Script(*script));
            }
        }
        for (descriptor, diff) in &changes.descriptors {
            match &diff.new {
                Some(_) => _ = self.descriptors.insert(*descriptor),
                None => _ = self.descriptors.remove(descriptor),
            }
            if diff.old.is_none() {
                self.ended.remove(&SubjectId::Descriptor(*descriptor));
            }
            check_growth(diff);
        }
    }

    /// An event about a script says where it stands in the descriptors that are watched.
    fn check_places(&self, event: &Event) {
        let ends = matches!(&event.kind, EventKind::Unwatched { subject } if !stays(subject));
        let Some(Subject::Script {
            script,
            derivations,
            ..
        }) = event.kind.subject().filter(|_| !ends)
        else {
            return;
        };
        let mut places = self.places.get(script).cloned().unwrap_or_default();
        places.retain(|place| self.descriptors.contains(&place.descriptor));
        assert_eq!(derivations, &places, "where {script:?} stands is told");
    }

    /// What a history scan finds is in the history without a word, and so is what stood in a block
    /// before somebody began to know of it. There is no word for a dead transaction that moves
    /// more.
    fn add_past(&mut self, changes: &ChangeSet) {
        for (txid, diff) in &changes.txs {
            let Some(row) = &diff.new else { continue };
            let phase = row.status.phase();
            let stands = diff
                .old
                .as_ref()
                .is_some_and(|old| old.status == row.status);
            let is_dead = !matches!(phase, Phase::Mempool | Phase::Confirmed);
            for (subject, (received, sent)) in amounts(row) {
                // A row may still name a script or a descriptor that is being forgotten.
                let is_watched = match &subject {
                    SubjectId::Script(script) => self.places.contains_key(script),
                    SubjectId::Descriptor(id) => self.descriptors.contains(id),
                };
                let is_silent = match self.told.get(&(subject, *txid)) {
                    None => !changes.scans.is_empty() || stands && phase != Phase::Mempool,
                    Some(_) => stands && is_dead,
                };
                if is_watched && is_silent {
                    self.told.insert((subject, *txid), (phase, received, sent));
                }
            }
        }
    }

    fn add_event(&mut self, event: &Event) {
        if let Some(subject) = event.kind.subject_id() {
            assert!(!self.ended.contains(&subject), "the end is the last word");
        }
        match &event.kind {
            EventKind::BalanceChange {
                subject, old, new, ..
            } => {
                let last = self.balances.insert(subject.id(), new.total()).unwrap_or(0);
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
                assert!(!transactions.is_empty());
                for new in transactions {
                    let told = (new.status.phase(), new.received, new.sent);
                    assert_eq!(
                        self.told.insert((subject.id(), new.txid), told),
                        None,
                        "{} is announced once",
                        new.txid
                    );
                }
            }
            EventKind::TransactionUpdate { .. } => self.add_update(event),
            EventKind::ScanComplete { .. } | EventKind::LabelChange { .. } => {}
            EventKind::Unwatched { subject } if stays(subject) => {}
            EventKind::Unwatched { subject } => {
                let subject = subject.id();
                self.balances.remove(&subject);
                self.told.retain(|(told, _), _| *told != subject);
                self.ended.insert(subject);
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

    fn add_update(&mut self, event: &Event) {
        let EventKind::TransactionUpdate {
            subject,
            previous,
            transaction,
            confirmations,
        } = &event.kind
        else {
            return;
        };
        let txid = transaction.txid;
        let phase = transaction.status.phase();
        let told = (phase, transaction.received, transaction.sent);
        let before = self.told.insert((subject.id(), txid), told);
        let before = before.expect("an update follows an announcement");
        assert_eq!(
            before.0, *previous,
            "an update starts where the one before ended"
        );
        assert!(
            is_legal(&word(before.0), &word(told.0), before != told),
            "{before:?} -> {told:?}: {event:?}"
        );
        assert!(
            told.1 >= before.1 && told.2 >= before.2,
            "amounts never shrink"
        );
        let depth = match (transaction.status, event.tip) {
            (Status::Confirmed { block, .. }, Some(tip)) => tip.height + 1 - block.height,
            _ => 0,
        };
        assert_eq!(*confirmations, depth, "confirmations of {txid}");
    }
}

/// Neither windows nor reservations nor what is watched shrink.
fn check_growth(diff: &Diff<DescriptorRow>) {
    let (Some(old), Some(new)) = (&diff.old, &diff.new) else {
        return;
    };
    assert_eq!(old.keychains.len(), new.keychains.len());
    for (old, new) in old.keychains.iter().zip(&new.keychains) {
        assert!(
            new.window >= old.window
                && new.reserved >= old.reserved
                && new.derived >= old.derived
                && new.watched_to >= old.watched_to
                && new.first == old.first,
            "indexes only grow: {old:?} {new:?}"
        );
    }
    assert!(new.gap_limit >= old.gap_limit);
}

/// Each change of a label is told once, in the batch that makes it, and no other is.
fn check_labels(changes: &ChangeSet, events: &[Event]) {
    fn changed<R>(diff: &Diff<R>, label: fn(&R) -> &String) -> Option<[String; 2]> {
        let labels = [label(diff.old.as_ref()?), label(diff.new.as_ref()?)];
        (labels[0] != labels[1]).then(|| labels.map(Clone::clone))
    }
    let watches = changes.watches.iter();
    let scripts = watches.filter_map(|(script, diff)| {
        Some((SubjectId::Script(*script), changed(diff, |row| &row.label)?))
    });
    let wallets = changes.wallets.iter().filter_map(|(id, diff)| {
        Some((SubjectId::Descriptor(*id), changed(diff, |row| &row.label)?))
    });
    let mut made: Vec<_> = scripts.chain(wallets).collect();
    made.sort();
    let told = events.iter().filter_map(|event| match &event.kind {
        EventKind::LabelChange { subject, old, new } => {
            Some((subject.id(), [old.clone(), new.clone()]))
        }
        _ => None,
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    assert_eq!(made, told, "each change of a label is told once");
}

/// The phase as the table of legal changes calls it.
fn word(phase: Phase) -> String {
    format!("{phase:?}").to_lowercase()
}

/// Whether a script that is unwatched stays watched for descriptors, as the event says.
fn stays(subject: &Subject) -> bool {
    matches!(subject, Subject::Script { derivations, .. } if !derivations.is_empty())
}
