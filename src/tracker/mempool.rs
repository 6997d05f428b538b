//! A compact index of the node's whole mempool: which transaction spends which outpoint and pays which script, as fingerprints.
//!
//! It answers three questions without keeping transactions: what does a new transaction displace (and which descendants fall
//! with it), who spends an output that we learn of late, and which transactions pay a script that is watched late. Transactions
//! that touch watched scripts are `tracked`; theirs are the rows in the view.

use std::collections::{BTreeSet, HashMap, HashSet};

use bitcoin::{OutPoint, Transaction, Txid};

use super::filter::{BuildIdentity, Fingerprints};

#[derive(Debug)]
struct Entry {
    spends: Box<[u64]>,
    pays: Box<[u64]>,
    tracked: bool,
}

#[derive(Debug)]
pub struct Mempool {
    fingerprints: Fingerprints,
    entries: HashMap<Txid, Entry>,
    spender: HashMap<u64, Txid, BuildIdentity>,
    /// Said to be gone, reason not known yet.
    leaving: BTreeSet<Txid>,
}

impl Mempool {
    pub fn new(fingerprints: Fingerprints) -> Self {
        Self { fingerprints, entries: HashMap::new(), spender: HashMap::default(), leaving: BTreeSet::new() }
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

    pub fn insert(&mut self, txid: Txid, tx: &Transaction, tracked: bool) {
        self.leaving.remove(&txid);
        if let Some(entry) = self.entries.get_mut(&txid) {
            entry.tracked |= tracked;
            return;
        }
        let spends: Box<[u64]> = tx.input.iter().map(|input| self.fingerprints.outpoint(&input.previous_output)).collect();
        let pays = tx.output.iter().map(|output| self.fingerprints.script(&output.script_pubkey)).collect();
        for fingerprint in &spends {
            self.spender.insert(*fingerprint, txid);
        }
        self.entries.insert(txid, Entry { spends, pays, tracked });
    }

    pub fn remove(&mut self, txid: &Txid) {
        self.leaving.remove(txid);
        let Some(entry) = self.entries.remove(txid) else { return };
        for fingerprint in &entry.spends {
            if self.spender.get(fingerprint) == Some(txid) {
                self.spender.remove(fingerprint);
            }
        }
    }

    /// The transaction in the mempool that spends this outpoint.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.spender.get(&self.fingerprints.outpoint(outpoint)).copied()
    }

    /// What `tx` cannot coexist with: the other spenders of its inputs.
    pub fn conflicts(&self, txid: &Txid, tx: &Transaction) -> Vec<Txid> {
        let mut found = Vec::new();
        for input in &tx.input {
            if let Some(other) = self.spender(&input.previous_output)
                && other != *txid
                && !found.contains(&other)
            {
                found.push(other);
            }
        }
        found
    }

    /// `roots` and everything that spends them, directly or not, in the order in which they are found.
    pub fn with_descendants(&self, roots: &[Txid]) -> Vec<Txid> {
        let mut seen: HashSet<Txid> = roots.iter().copied().collect();
        let mut found = roots.to_vec();
        let mut next = 0;
        while let Some(&txid) = found.get(next) {
            next += 1;
            let outputs = self.entries.get(&txid).map_or(0, |entry| entry.pays.len());
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

    /// Transactions that pay one of these scripts (by fingerprint).
    pub fn paying(&self, scripts: &HashSet<u64, BuildIdentity>) -> Vec<Txid> {
        let pays = |entry: &Entry| entry.pays.iter().any(|fingerprint| scripts.contains(fingerprint));
        self.entries.iter().filter(|(_, entry)| pays(entry)).map(|(txid, _)| *txid).collect()
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
