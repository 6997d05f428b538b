//! A compact index of the node's whole mempool: which transaction spends which outpoint and pays
//! which script, as fingerprints. Most of it is unwatched, so a fingerprint and a number that
//! stands for the transaction are all that the index holds for an outpoint or a script: 19 to 39
//! bytes, as full as the hash table happens to be, and 8 more in the transaction's entry.
//!
//! It answers four questions without keeping transactions: what does a new transaction displace
//! (and which descendants fall with it), who spends an output that we learn of late, which
//! transactions pay a script that is watched late, and which descend from one that may be replaced.
//! Transactions that touch watched scripts are tracked; theirs are the rows in the view.

use std::collections::hash_map::Entry as Place;
use std::collections::{BTreeSet, HashMap, HashSet};

use bitcoin::{OutPoint, Txid};

use super::super::RawTx;
use super::super::fingerprints::{BuildIdentity, Fingerprints, TxFingerprints, TxidMap};

#[derive(Debug)]
struct Entry {
    txid: Txid,
    prints: TxFingerprints,
    /// Those of its parents that were, or came, into the mempool; they may have left it.
    parents: Vec<Txid>,
    /// What its row says, if it is tracked.
    inherits: bool,
    /// The reading that is gone through holds it.
    is_read: bool,
}

/// Transactions, with numbers that stand for them; those of transactions that have left are given
/// again.
#[derive(Debug, Default)]
struct Entries {
    numbers: TxidMap<u32>,
    by_number: Vec<Option<Entry>>,
    free: Vec<u32>,
}

impl Entries {
    fn contains(&self, txid: &Txid) -> bool {
        self.numbers.contains_key(txid)
    }

    fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.by_number[*self.numbers.get(txid)? as usize].as_ref()
    }

    fn get_mut(&mut self, txid: &Txid) -> Option<&mut Entry> {
        self.by_number[*self.numbers.get(txid)? as usize].as_mut()
    }

    /// It is not there yet.
    fn insert(&mut self, entry: Entry) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.by_number.push(None);
            let last = self.by_number.len() - 1;
            u32::try_from(last).expect("a mempool has less than 2^32 transactions")
        });
        self.numbers.insert(entry.txid, number);
        self.by_number[number as usize] = Some(entry);
        number
    }

    fn remove(&mut self, txid: &Txid) -> Option<(u32, Entry)> {
        let number = self.numbers.remove(txid)?;
        self.free.push(number);
        Some((number, self.by_number[number as usize].take()?))
    }

    fn txid(&self, number: u32) -> Option<Txid> {
        Some(self.by_number[number as usize].as_ref()?.txid)
    }
}

/// Which transactions pay a script. Nearly every script is paid by one.
#[derive(Debug, Default)]
struct Payers {
    one: HashMap<u64, u32, BuildIdentity>,
    /// The others, if there are any.
    more: HashMap<u64, HashSet<u32>, BuildIdentity>,
}

impl Payers {
    fn insert(&mut self, script: u64, number: u32) {
        match self.one.entry(script) {
            Place::Vacant(place) => _ = place.insert(number),
            Place::Occupied(place) if *place.get() == number => {}
            Place::Occupied(_) => _ = self.more.entry(script).or_default().insert(number),
        }
    }

    fn remove(&mut self, script: u64, number: u32) {
        let is_one = self.one.get(&script) == Some(&number);
        let Some(others) = self.more.get_mut(&script) else {
            if is_one {
                self.one.remove(&script);
            }
            return;
        };
        if is_one {
            if let Some(other) = others.iter().next().copied() {
                others.remove(&other);
                self.one.insert(script, other);
            }
        } else {
            others.remove(&number);
        }
        if others.is_empty() {
            self.more.remove(&script);
        }
    }

    fn of(&self, script: u64) -> impl Iterator<Item = u32> {
        let others = self.more.get(&script).into_iter().flatten();
        self.one.get(&script).into_iter().chain(others).copied()
    }
}

#[derive(Debug)]
pub struct Mempool {
    fingerprints: Fingerprints,
    entries: Entries,
    /// Those among them that touch watched scripts.
    tracked: BTreeSet<Txid>,
    spender: HashMap<u64, u32, BuildIdentity>,
    payers: Payers,
    /// Said to be gone, reason not known yet.
    leaving: BTreeSet<Txid>,
    /// Of them, those on which the verdict is given: they go in portions.
    evicting: BTreeSet<Txid>,
    /// Asked for, because they matter now that more is watched or known. The answer may get lost (a
    /// call fails, monitoring stops), so each snapshot asks again until they come.
    wanted: BTreeSet<Txid>,
}

impl Mempool {
    pub fn new(fingerprints: Fingerprints) -> Self {
        Self {
            fingerprints,
            entries: Entries::default(),
            tracked: BTreeSet::new(),
            spender: HashMap::default(),
            payers: Payers::default(),
            leaving: BTreeSet::new(),
            evicting: BTreeSet::new(),
            wanted: BTreeSet::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.entries.numbers.len()
    }

    pub fn contains(&self, txid: &Txid) -> bool {
        self.entries.contains(txid)
    }

    pub fn is_tracked(&self, txid: &Txid) -> bool {
        self.tracked.contains(txid)
    }

    /// What conflicts with it must be gone; if not, an outpoint stays with the spender that was
    /// there first. Answers its children.
    pub fn insert(&mut self, tx: &RawTx, prints: TxFingerprints, tracked: bool) -> Vec<Txid> {
        let txid = tx.txid();
        self.stays(&txid);
        self.wanted.remove(&txid);
        if tracked {
            self.tracked.insert(txid);
        }
        let children = self.children(txid, &prints);
        if self.entries.contains(&txid) {
            return children;
        }
        for child in &children {
            if let Some(child) = self.entries.get_mut(child)
                && !child.parents.contains(&txid)
            {
                child.parents.push(txid);
            }
        }
        let number = self.entries.insert(Entry {
            txid,
            prints,
            parents: self.parents(tx),
            inherits: false,
            is_read: false,
        });
        if let Some(entry) = &self.entries.by_number[number as usize] {
            for fingerprint in entry.prints.spends() {
                self.spender.entry(*fingerprint).or_insert(number);
            }
            for fingerprint in entry.prints.pays() {
                self.payers.insert(*fingerprint, number);
            }
        }
        children
    }

    fn parents(&self, tx: &RawTx) -> Vec<Txid> {
        let mut parents = Vec::new();
        for parent in tx.parents() {
            if self.entries.contains(&parent) && !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        parents
    }

    /// Those that spend an output of this transaction.
    pub fn children(&self, txid: Txid, prints: &TxFingerprints) -> Vec<Txid> {
        let outpoints = (0..)
            .zip(prints.pays())
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
        self.misjudged_of(&self.tracked)
    }

    /// Those among these.
    pub fn misjudged_of<'a>(&self, txids: impl IntoIterator<Item = &'a Txid>) -> Vec<Txid> {
        let is_misjudged = |txid: &&Txid| {
            let entry = self.entries.get(txid);
            self.is_tracked(txid) && entry.is_some_and(|it| it.inherits != self.inherits(txid))
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
                    Some(parent) if parent.prints.signals => return true,
                    Some(_) if seen.insert(*parent) => next.push(*parent),
                    _ => {}
                }
            }
        }
        false
    }

    /// It stays in the index, but matters to nobody any more.
    pub fn untrack(&mut self, txid: &Txid) {
        self.tracked.remove(txid);
    }

    pub fn remove(&mut self, txid: &Txid) {
        self.stays(txid);
        self.wanted.remove(txid);
        self.tracked.remove(txid);
        let Some((number, entry)) = self.entries.remove(txid) else {
            return;
        };
        for fingerprint in entry.prints.spends() {
            if self.spender.get(fingerprint) == Some(&number) {
                self.spender.remove(fingerprint);
            }
        }
        for fingerprint in entry.prints.pays() {
            self.payers.remove(*fingerprint, number);
        }
    }

    /// The transaction in the mempool that spends this outpoint.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        let number = self.spender.get(&self.fingerprints.outpoint(outpoint))?;
        self.entries.txid(*number)
    }

    /// What a transaction with these spends cannot coexist with: their other spenders.
    pub fn conflicts(&self, txid: &Txid, spends: &[u64]) -> Vec<Txid> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        let spenders = spends.iter().filter_map(|it| self.spender.get(it));
        for other in spenders.filter_map(|number| self.entries.txid(*number)) {
            if other != *txid && seen.insert(other) {
                found.push(other);
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
            let entry = self.entries.get(&txid);
            let children = entry.map(|entry| self.children(txid, &entry.prints));
            let children = children.into_iter().flatten();
            found.extend(children.filter(|child| seen.insert(*child)));
        }
        found
    }

    /// Transactions that pay one of these scripts (by fingerprint), ordered by txid.
    pub fn paying(&self, scripts: impl IntoIterator<Item = u64>) -> Vec<Txid> {
        let numbers = scripts
            .into_iter()
            .flat_map(|script| self.payers.of(script));
        let txids = numbers.filter_map(|number| self.entries.txid(number));
        let mut found: Vec<Txid> = txids.collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    pub fn want(&mut self, txid: Txid) {
        self.wanted.insert(txid);
    }

    pub fn is_wanted(&self, txid: &Txid) -> bool {
        self.wanted.contains(txid)
    }

    /// How many inputs it has.
    pub fn inputs(&self, txid: &Txid) -> usize {
        let entry = self.entries.get(txid);
        entry.map_or(0, |entry| entry.prints.spends().len())
    }

    pub fn mark_leaving(&mut self, txid: Txid) {
        if self.entries.contains(&txid) && !self.evicting.contains(&txid) {
            self.leaving.insert(txid);
        }
    }

    fn stays(&mut self, txid: &Txid) {
        _ = self.leaving.remove(txid) || self.evicting.remove(txid);
    }

    /// What is marked as leaving, and not spared, is to be evicted.
    pub fn begin_eviction(&mut self, spared: &[Txid]) {
        let mut judged = std::mem::take(&mut self.leaving);
        let spared = spared.iter().filter_map(|txid| judged.take(txid));
        self.leaving = spared.collect();
        if self.evicting.is_empty() {
            self.evicting = judged;
        } else {
            self.evicting.append(&mut judged);
        }
    }

    /// What is to be evicted waits for another verdict, or for a reading.
    pub fn put_off_evictions(&mut self) {
        self.leaving.append(&mut self.evicting);
    }

    /// Which is to be evicted next: parents go first, so that what a child took from them is never
    /// given back.
    pub fn next_evicted(&self) -> Option<Txid> {
        let mut next = *self.evicting.first()?;
        while let Some(entry) = self.entries.get(&next)
            && let Some(parent) = entry.parents.iter().find(|it| self.evicting.contains(*it))
        {
            next = *parent;
        }
        Some(next)
    }

    /// What is leaving and descends from it left because of it, and is evicted after it.
    pub fn evict(&mut self, txid: &Txid) {
        let entry = self.entries.get(txid).filter(|_| !self.leaving.is_empty());
        let children = entry.map(|entry| self.children(*txid, &entry.prints));
        for child in children.into_iter().flatten() {
            self.evicting.extend(self.leaving.take(&child));
        }
        self.remove(txid);
    }

    /// What the node holds: marks what it lacks as leaving, and nothing else; the verdict is still
    /// to come. Answers what of it is
    /// not here, or wanted.
    pub fn read(&mut self, txids: &BTreeSet<Txid>) -> Vec<Txid> {
        let wanted = self.wanted.intersection(txids);
        let wanted = wanted.filter(|txid| self.entries.contains(txid));
        let mut missing: Vec<Txid> = wanted.copied().collect();
        for txid in txids {
            match self.entries.get_mut(txid) {
                Some(entry) => entry.is_read = true,
                None => missing.push(*txid),
            }
        }
        let left = |entry: &mut Entry| {
            let is_read = std::mem::take(&mut entry.is_read);
            (!is_read).then_some(entry.txid)
        };
        let entries = self.entries.by_number.iter_mut().flatten();
        self.leaving = entries.filter_map(left).collect();
        self.evicting.clear();
        missing
    }

    pub fn is_leaving(&self, txid: &Txid) -> bool {
        self.leaving.contains(txid) || self.evicting.contains(txid)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::Transaction;

    use super::*;

    fn insert(mempool: &mut Mempool, tx: &Transaction, tracked: bool) {
        let tx = RawTx::from(tx);
        let prints = tx.fingerprints(&mempool.fingerprints);
        mempool.insert(&tx, prints, tracked);
    }

    #[test]
    fn payers_of_a_script_are_those_that_pay_it_and_have_not_left() {
        let mut payers = Payers::default();
        let of = |payers: &Payers, script| payers.of(script).collect::<BTreeSet<_>>();
        for number in [1, 2, 3, 1] {
            payers.insert(7, number);
        }
        payers.insert(8, 1);
        assert_eq!(of(&payers, 7), BTreeSet::from([1, 2, 3]));
        payers.remove(7, 1);
        payers.remove(7, 1);
        assert_eq!(of(&payers, 7), BTreeSet::from([2, 3]));
        assert_eq!(of(&payers, 8), BTreeSet::from([1]));
        payers.insert(7, 1);
        for number in [2, 3, 1] {
            payers.remove(7, number);
        }
        payers.remove(8, 1);
        assert!(payers.one.is_empty() && payers.more.is_empty());
    }

    #[test]
    fn numbers_of_those_that_left_are_given_again() {
        use bitcoin::hashes::Hash;
        let txid = |n: u8| Txid::from_byte_array([n; 32]);
        let mut entries = Entries::default();
        let insert = |entries: &mut Entries, n| {
            entries.insert(Entry {
                txid: txid(n),
                prints: TxFingerprints::new(Vec::new(), 0, false),
                parents: Vec::new(),
                inherits: false,
                is_read: false,
            })
        };
        let (first, second) = (insert(&mut entries, 1), insert(&mut entries, 2));
        entries.remove(&txid(1));
        assert_eq!(entries.txid(first), None);
        assert_eq!(insert(&mut entries, 3), first);
        let txids = [first, second].map(|number| entries.txid(number));
        assert_eq!(txids, [3, 2].map(|n| Some(txid(n))));
    }

    fn transaction(spends: &[OutPoint], pays: &[u8]) -> Transaction {
        use bitcoin::{Amount, ScriptBuf, TxIn, TxOut, absolute, transaction};
        let input = |previous_output: &OutPoint| TxIn {
            previous_output: *previous_output,
            ..TxIn::default()
        };
        let output = |script: &u8| TxOut {
            value: Amount::from_sat(1),
            script_pubkey: ScriptBuf::from_bytes(vec![*script]),
        };
        Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: spends.iter().map(input).collect(),
            output: pays.iter().map(output).collect(),
        }
    }

    fn outpoint(vout: u32) -> OutPoint {
        OutPoint {
            vout,
            ..OutPoint::null()
        }
    }

    fn scripts_of(mempool: &Mempool, tx: &Transaction) -> HashSet<u64> {
        let scripts = tx.output.iter().map(|output| &output.script_pubkey);
        scripts
            .map(|script| mempool.fingerprints.script(script))
            .collect()
    }

    /// Transactions share scripts and numbers, conflict and come and go; the index always says what
    /// a walk over those that are there says, and nothing stays of those that left.
    #[test]
    fn what_is_indexed_is_that_of_the_transactions_that_are_there() {
        let mut mempool = Mempool::new(Fingerprints::new(&[7; 16]));
        let mut there: Vec<Transaction> = Vec::new();
        let mut state = 1_u32;
        let mut random = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % below
        };
        for step in 0..4_000 {
            // The first half mostly comes, the second mostly goes.
            let comes = random(10) < if step < 2_000 { 7 } else { 3 };
            if comes {
                let spends = [outpoint(random(3_000)), outpoint(3_000 + step)];
                let pays = [random(40) as u8, random(250) as u8, 255];
                let tx = transaction(&spends, &pays);
                insert(&mut mempool, &tx, random(2) == 0);
                there.push(tx);
            } else if !there.is_empty() {
                let left = there.swap_remove(random(there.len() as u32) as usize);
                mempool.remove(&left.compute_txid());
            }
            if step % 100 == 0 {
                let mut walk: HashMap<u64, BTreeSet<Txid>> = HashMap::new();
                for tx in &there {
                    let (txid, own) = (tx.compute_txid(), tx.input[1].previous_output);
                    assert_eq!(mempool.spender(&own), Some(txid));
                    for script in scripts_of(&mempool, tx) {
                        walk.entry(script).or_default().insert(txid);
                    }
                }
                for script in 0..=255_u8 {
                    let script = bitcoin::ScriptBuf::from_bytes(vec![script]);
                    let script = mempool.fingerprints.script(&script);
                    let paying: Vec<Txid> = walk.remove(&script).into_iter().flatten().collect();
                    assert_eq!(mempool.paying([script]), paying);
                }
            }
        }
        for tx in there {
            mempool.remove(&tx.compute_txid());
        }
        assert!(mempool.entries.numbers.is_empty() && mempool.tracked.is_empty());
        assert!(mempool.spender.is_empty());
        assert!(mempool.payers.one.is_empty() && mempool.payers.more.is_empty());
        let free: HashSet<u32> = mempool.entries.free.iter().copied().collect();
        assert_eq!(free.len(), mempool.entries.free.len());
        assert_eq!(free.len(), mempool.entries.by_number.len());
        assert!(free.len() < 2_000, "numbers are given again");
    }

    #[test]
    fn only_tracked_transactions_are_misjudged() {
        let mut mempool = Mempool::new(Fingerprints::new(&[7; 16]));
        let mut parent = transaction(&[outpoint(1)], &[1]);
        parent.input[0].sequence = bitcoin::Sequence::ENABLE_RBF_NO_LOCKTIME;
        let spend = OutPoint {
            txid: parent.compute_txid(),
            vout: 0,
        };
        let child = transaction(&[spend], &[2]);
        let txid = child.compute_txid();
        let mut insert = |tx: &Transaction, tracked| {
            insert(&mut mempool, tx, tracked);
            mempool.misjudged()
        };
        assert_eq!(insert(&parent, true), []);
        assert_eq!(insert(&child, false), []);
        assert_eq!(insert(&child, true), [txid]);
        assert_eq!(insert(&child, false), [txid], "it stays tracked");
        mempool.untrack(&txid);
        assert!(!mempool.is_tracked(&txid) && mempool.misjudged().is_empty());
    }

    #[test]
    fn each_conflict_is_named_once_in_the_order_of_the_spends() {
        let mut mempool = Mempool::new(Fingerprints::new(&[7; 16]));
        let rivals = [
            transaction(&[outpoint(1), outpoint(2)], &[1]),
            transaction(&[outpoint(3), outpoint(4)], &[1]),
        ];
        for rival in &rivals {
            insert(&mut mempool, rival, false);
        }
        let [first, second] = rivals.map(|rival| rival.compute_txid());
        let conflicts = |txid: &Txid| {
            let spends = [4, 1, 2, 3, 5].map(outpoint);
            let spends = spends.map(|spend| mempool.fingerprints.outpoint(&spend));
            mempool.conflicts(txid, &spends)
        };
        use bitcoin::hashes::Hash;
        assert_eq!(conflicts(&Txid::all_zeros()), [second, first]);
        assert_eq!(conflicts(&second), [first]);
    }
}
