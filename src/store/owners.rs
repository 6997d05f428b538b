//! Which token put an address on the watch list, added a descriptor, or defined a consumer. What
//! nobody with a token did has no row. Keys and values are in the table of [`super::auth`].
//!
//! A row is written and deleted in the batch of the change that it is about, and so is the count.
//! So is the count of the scripts of a token's descriptors, whose rows say how many there are: a
//! start counts them anew, since a release that knew of no such count may have written meanwhile.

use std::collections::BTreeMap;

use rocksdb::WriteBatch;

use super::codec::{In, Malformed, Out, StoredValue, value_of_fields};
use super::db::{Db, whole_family};
use super::families::auth::{ADDRESS, CONSUMER, DERIVED, DESCRIPTOR, OWNED, key};
use super::families::{AUTH, DESCRIPTORS};
use super::{StoreError, StoreReader};
use crate::tracker::{DescriptorId, DescriptorRow, ScriptHash};

/// Identifies a token; says nothing of its secret.
pub type TokenKey = [u8; 8];

/// What a token has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owned {
    pub addresses: u64,
    pub consumers: u64,
}

value_of_fields!(Owned: addresses, consumers);

/// A token id as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner(TokenKey);

impl StoredValue for Owner {
    fn encode(&self, out: &mut Out) {
        out.put(&self.0);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self(input.get()?))
    }
}

/// What changes hands, or is of another size.
#[derive(Debug, Default)]
pub struct OwnerEdits {
    /// Rows, of which the last change counts.
    rows: BTreeMap<Vec<u8>, Option<TokenKey>>,
    /// How many scripts a descriptor had before all changes, and has after them.
    scripts: BTreeMap<DescriptorId, (u64, u64)>,
}

impl OwnerEdits {
    /// Who put an address on the list; `None`: nobody with a token, or it was taken off.
    pub fn address(&mut self, script: &ScriptHash, owner: Option<TokenKey>) {
        self.rows.insert(key(ADDRESS, &script.0), owner);
    }

    /// Likewise of a descriptor.
    pub fn descriptor(&mut self, descriptor: &DescriptorId, owner: Option<TokenKey>) {
        self.rows.insert(key(DESCRIPTOR, &descriptor.0), owner);
    }

    /// Likewise of a consumer.
    pub fn consumer(&mut self, name: &str, owner: Option<TokenKey>) {
        self.rows.insert(key(CONSUMER, name.as_bytes()), owner);
    }

    /// A descriptor has another number of scripts; none before it is added and when it is removed.
    pub fn scripts(&mut self, descriptor: &DescriptorId, before: u64, now: u64) {
        let counts = self.scripts.entry(*descriptor).or_insert((before, now));
        counts.1 = now;
    }
}

impl OwnerEdits {
    /// Into the batch of what they are about.
    pub(super) fn put(&self, db: &Db, batch: &mut WriteBatch) -> Result<(), StoreError> {
        let mut counts: BTreeMap<TokenKey, Owned> = BTreeMap::new();
        for (row, new) in &self.rows {
            let old = db.get::<Owner>(AUTH, row)?.map(|Owner(token)| token);
            if old == *new {
                continue;
            }
            match new {
                Some(token) => batch.put_cf(db.family(AUTH), row, Owner(*token).to_bytes()),
                None => batch.delete_cf(db.family(AUTH), row),
            }
            for (token, is_more) in [(old, false), (*new, true)] {
                let Some(token) = token else {
                    continue;
                };
                let before = match counts.get(&token) {
                    Some(owned) => *owned,
                    None => db.get(AUTH, &key(OWNED, &token))?.unwrap_or_default(),
                };
                counts.insert(token, counted(before, row, is_more));
            }
        }
        for (token, owned) in counts {
            let row = key(OWNED, &token);
            match owned == Owned::default() {
                true => batch.delete_cf(db.family(AUTH), row),
                false => batch.put_cf(db.family(AUTH), row, owned.to_bytes()),
            }
        }
        self.put_scripts(db, batch)
    }

    /// The counts of the tokens whose descriptors have other numbers of scripts.
    fn put_scripts(&self, db: &Db, batch: &mut WriteBatch) -> Result<(), StoreError> {
        let mut counts: BTreeMap<TokenKey, u64> = BTreeMap::new();
        for (descriptor, (before, now)) in &self.scripts {
            let row = key(DESCRIPTOR, &descriptor.0);
            let old = db.get::<Owner>(AUTH, &row)?.map(|Owner(token)| token);
            let new = self.rows.get(&row).copied().unwrap_or(old);
            for (token, less, more) in [(old, *before, 0), (new, 0, *now)] {
                let Some(token) = token else {
                    continue;
                };
                let known = match counts.get(&token) {
                    Some(count) => *count,
                    None => db.get(AUTH, &key(DERIVED, &token))?.unwrap_or_default(),
                };
                let count = known.saturating_sub(less).saturating_add(more);
                counts.insert(token, count);
            }
        }
        for (token, count) in counts {
            put_derived(db, batch, &token, count);
        }
        Ok(())
    }
}

fn put_derived(db: &Db, batch: &mut WriteBatch, token: &TokenKey, count: u64) {
    let row = key(DERIVED, token);
    match count {
        0 => batch.delete_cf(db.family(AUTH), row),
        count => batch.put_cf(db.family(AUTH), row, count.to_bytes()),
    }
}

/// Counts the scripts of each token's descriptors anew.
pub(super) fn count_derived(db: &Db) -> Result<(), StoreError> {
    let mut derived: BTreeMap<TokenKey, u64> = BTreeMap::new();
    for entry in db.scan(AUTH, &[DERIVED], None, whole_family()) {
        let (key, _) = entry?;
        let token = key.get(1..).unwrap_or_default().try_into();
        derived.extend(token.ok().map(|token: TokenKey| (token, 0)));
    }
    for entry in db.scan(AUTH, &[DESCRIPTOR], None, whole_family()) {
        let (key, value) = entry?;
        let Owner(token) = db.decode(AUTH, &key, &value)?;
        let id = key.get(1..).unwrap_or_default();
        let row: Option<DescriptorRow> = db.get(DESCRIPTORS, id)?;
        let count = derived.entry(token).or_default();
        *count = count.saturating_add(row.map_or(0, |row| row.scripts()));
    }
    let mut batch = WriteBatch::default();
    for (token, count) in derived {
        put_derived(db, &mut batch, &token, count);
    }
    db.write(batch, false)
}

fn counted(mut owned: Owned, row: &[u8], is_more: bool) -> Owned {
    let count = match row.first() {
        Some(&ADDRESS) => &mut owned.addresses,
        Some(&CONSUMER) => &mut owned.consumers,
        _ => return owned,
    };
    *count = match is_more {
        true => count.saturating_add(1),
        false => count.saturating_sub(1),
    };
    owned
}

impl StoreReader {
    /// The token for which the scripts of a descriptor count.
    pub fn owner_of(&self, descriptor: &DescriptorId) -> Result<Option<TokenKey>, StoreError> {
        let owner: Option<Owner> = self.db().get(AUTH, &key(DESCRIPTOR, &descriptor.0))?;
        Ok(owner.map(|Owner(token)| token))
    }

    /// What a token has now; the scripts of its descriptors are addresses, too.
    pub fn owned(&self, token: &TokenKey) -> Result<Owned, StoreError> {
        let found: Option<Owned> = self.db().get(AUTH, &key(OWNED, token))?;
        let derived: Option<u64> = self.db().get(AUTH, &key(DERIVED, token))?;
        let mut owned = found.unwrap_or_default();
        owned.addresses = owned.addresses.saturating_add(derived.unwrap_or_default());
        Ok(owned)
    }

    /// The most of each that one token has.
    pub fn owned_most(&self) -> Result<Owned, StoreError> {
        let mut most = Owned::default();
        for kind in [OWNED, DERIVED] {
            for entry in self.db().scan(AUTH, &[kind], None, whole_family()) {
                let (key, _) = entry?;
                let token = key.get(1..).unwrap_or_default().try_into();
                let Ok(token) = token else { continue };
                let owned = self.owned(&token)?;
                most.addresses = most.addresses.max(owned.addresses);
                most.consumers = most.consumers.max(owned.consumers);
            }
        }
        Ok(most)
    }
}
