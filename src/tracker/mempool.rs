//! A compact index of the node's whole mempool: which transaction spends which outpoint and pays
//! which script, as fingerprints.
//!
//! It answers four questions without keeping transactions: what does a new transaction displace
//! (and which descendants fall with it), who spends an output that we learn of late, which
//! transactions pay a script that is watched late, and which descend from one that may be replaced.
//! Transactions that touch watched scripts are `tracked`; theirs are the rows in the view.

use std::collections::{BTreeSet, HashMap, HashSet};

use bitcoin::{OutPoint, Transaction, Txid};

use super::filter::{BuildIdentity, Fingerprints, Prints};
use super::rows::signals_replacement;

#[derive(Debug)]
struct Entry {
    prints: Prints,
    tracked: bool,
    /// It says itself that it may be replaced.
    signals: bool,
    /// Those of its parents that were, or came, into the mempool; they may have left it.
    parents: Vec<Txid>,
    /// What its row says, if it is tracked.
    inherits: bool,
}

#[derive(Debug)]
pub struct Mempool {
    fingerprints: Fingerprints,
    entries: HashMap<Txid, Entry>,
    spender: HashMap<u64, Txid, BuildIdentity>,
    /// Said to be gone, reason not known yet.
    leaving: BTreeSet<Txid>,
    /// Asked for, because they matter now that more is watched or known. The answer may get lost (a
    /// call fails, monitoring stops), so each snapshot asks again until they come.
    wanted: BTreeSet<Txid>,
}

impl Mempool {
    pub fn new(fingerprints: Fingerprints) -> Self {
        Self {
            fingerprints,
            entries: HashMap::new(),
            spender: HashMap::default(),
            leaving: BTreeSet::new(),
            wanted: BTreeSet::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn contains(&self, txid: &Txid) -> bool {
        self.entries.contains_key(txid)
    }

    pub fn is_tracked(&self, txid: &Txid) -> bool {
        self.entries.get(txid).is_some_and(|entry| entry.tracked)
    }

    /// What conflicts with it must be gone; if not, an outpoint stays with the spender that was
    /// there first.
    pub fn insert(&mut self, txid: Txid, tx: &Transaction, prints: Prints, tracked: bool) {
        self.leaving.remove(&txid);
        self.wanted.remove(&txid);
        if let Some(known) = self.entries.get_mut(&txid) {
            known.tracked |= tracked;
            return;
        }
        for fingerprint in prints.spends() {
            self.spender.entry(*fingerprint).or_insert(txid);
        }
        for child in self.children(txid, tx) {
            if let Some(child) = self.entries.get_mut(&child)
                && !child.parents.contains(&txid)
            {
                child.parents.push(txid);
            }
        }
        let entry = Entry {
            prints,
            tracked,
            signals: signals_replacement(tx),
            parents: self.parents(tx),
            inherits: false,
        };
        self.entries.insert(txid, entry);
    }

    fn parents(&self, tx: &Transaction) -> Vec<Txid> {
        let mut parents = Vec::new();
        for input in &tx.input {
            let parent = input.previous_output.txid;
            if self.entries.contains_key(&parent) && !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        parents
    }

    /// Those that spend an output of this transaction.
    pub fn children(&self, txid: Txid, tx: &Transaction) -> Vec<Txid> {
        let outpoints = (0..)
            .zip(&tx.output)
            .map(|(vout, _)| OutPoint { txid, vout });
        outpoints
            .filter_map(|outpoint| self.spender(&outpoint))
            .collect()
    }

    /// Notes what the row of a tracked transaction says.
    pub fn set_inherits(&mut self, txid: &Txid, inherits: bool) {
        if let Some(entry) = self.entries.get_mut(txid) {
            entry.inherits = inherits;
        }
    }

    /// Tracked transactions whose rows do not say what is so: all of them.
    pub fn misjudged(&self) -> Vec<Txid> {
        self.misjudged_of(self.entries.keys())
    }

    /// Those among these.
    pub fn misjudged_of<'a>(&self, txids: impl IntoIterator<Item = &'a Txid>) -> Vec<Txid> {
        let is_misjudged = |txid: &&Txid| {
            self.entries
                .get(*txid)
                .is_some_and(|entry| entry.tracked && entry.inherits != self.inherits(txid))
        };
        let mut found: Vec<Txid> = txids.into_iter().filter(is_misjudged).copied().collect();
        found.sort_unstable();
        found
    }

    /// Whether an ancestor in the mempool signals that it may be replaced.
    pub fn inherits(&self, txid: &Txid) -> bool {
        let (mut next, mut seen) = (vec![*txid], HashSet::new());
        while let Some(entry) = next.pop().and_then(|txid| self.entries.get(&txid)) {
            for parent in &entry.parents {
                match self.entries.get(parent) {
                    Some(parent) if parent.signals => return true,
                    Some(_) if seen.insert(*parent) => next.push(*parent),
                    _ => {}
                }
            }
        }
        false
    }

    /// It stays in the index, but matters to nobody any more.
    pub fn untrack(&mut self, txid: &Txid) {
        if let Some(entry) = self.entries.get_mut(txid) {
            entry.tracked = false;
        }
    }

    pub fn remove(&mut self, txid: &Txid) {
        self.leaving.remove(txid);
        self.wanted.remove(txid);
        let Some(entry) = self.entries.remove(txid) else {
            return;
        };
        for fingerprint in entry.prints.spends() {
            if self.spender.get(fingerprint) == Some(txid) {
                self.spender.remove(fingerprint);
            }
        }
    }

    /// The transaction in the mempool that spends this outpoint.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.spender
            .get(&self.fingerprints.outpoint(outpoint))
            .copied()
    }

    /// What a transaction with these spends cannot coexist with: their other spenders.
    pub fn conflicts(&self, txid: &Txid, spends: impl IntoIterator<Item = u64>) -> Vec<Txid> {
        let mut found = Vec::new();
        for fingerprint in spends {
            if let Some(other) = self.spender.get(&fingerprint)
                && other != txid
                && !found.contains(other)
            {
                found.push(*other);
            }
        }
        found
    }

    /// `roots` and everything that spends them, directly or not, in the order in which they are
    /// found.
    pub fn with_descendants(&self, roots: &[Txid]) -> Vec<Txid> {
        let mut seen: HashSet<Txid> = roots.iter().copied().collect();
        let mut found = roots.to_vec();
        let mut next = 0;
        while let Some(&txid) = found.get(next) {
            next += 1;
            let outputs = self
                .entries
                .get(&txid)
                .map_or(0, |entry| entry.prints.pays().len());
            for vout in 0..outputs as u32 {
                if let Some(child) = self.spender(&OutPoint { txid, vout })
                    && seen.insert(child)
                {
                    found.push(child);
                }
            }
        }
        found
    }

    /// Transactions that pay one of these scripts (by fingerprint), ordered by txid.
    pub fn paying(&self, scripts: &HashSet<u64, BuildIdentity>) -> Vec<Txid> {
        let pays = |entry: &Entry| {
            entry
                .prints
                .pays()
                .iter()
                .any(|fingerprint| scripts.contains(fingerprint))
        };
        let mut found: Vec<Txid> = self
            .entries
            .iter()
            .filter(|(_, entry)| pays(entry))
            .map(|(txid, _)| *txid)
            .collect();
        found.sort_unstable();
        found
    }

    pub fn want(&mut self, txid: Txid) {
        self.wanted.insert(txid);
    }

    pub fn is_wanted(&self, txid: &Txid) -> bool {
        self.wanted.contains(txid)
    }

    pub fn mark_leaving(&mut self, txid: Txid) {
        if self.entries.contains_key(&txid) {
            self.leaving.insert(txid);
        }
    }

    pub fn stays(&mut self, txid: &Txid) {
        self.leaving.remove(txid);
    }

    pub fn is_leaving(&self, txid: &Txid) -> bool {
        self.leaving.contains(txid)
    }

    pub fn leaving(&self) -> impl Iterator<Item = &Txid> {
        self.leaving.iter()
    }

    pub fn txids(&self) -> impl Iterator<Item = &Txid> {
        self.entries.keys()
    }
}
