//! Which token put an address on the watch list, added a descriptor, or defined a consumer. What
//! nobody with a token did has no row. Keys and values are in the table of [`super::auth`].
//!
//! A row is written and deleted in the batch of the change that it is about, and so is the count.
//! The scripts of descriptors are not counted here: their rows say how many there are.

use std::collections::BTreeMap;

use rocksdb::WriteBatch;

use super::codec::{In, Malformed, Out, StoredValue, value_of_fields};
use super::db::{Db, whole_family};
use super::families::auth::{ADDRESS, CONSUMER, DESCRIPTOR, OWNED, key};
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

/// Rows that change hands, of which the last change counts.
#[derive(Debug, Default)]
pub struct OwnerEdits(BTreeMap<Vec<u8>, Option<TokenKey>>);

impl OwnerEdits {
    /// Who put an address on the list; `None`: nobody with a token, or it was taken off.
    pub fn address(&mut self, script: &ScriptHash, owner: Option<TokenKey>) {
        self.0.insert(key(ADDRESS, &script.0), owner);
    }

    /// Likewise of a descriptor.
    pub fn descriptor(&mut self, descriptor: &DescriptorId, owner: Option<TokenKey>) {
        self.0.insert(key(DESCRIPTOR, &descriptor.0), owner);
    }

    /// Likewise of a consumer.
    pub fn consumer(&mut self, name: &str, owner: Option<TokenKey>) {
        self.0.insert(key(CONSUMER, name.as_bytes()), owner);
    }
}

impl OwnerEdits {
    /// Into the batch of what they are about.
    pub(super) fn put(&self, db: &Db, batch: &mut WriteBatch) -> Result<(), StoreError> {
        let mut counts: BTreeMap<TokenKey, Owned> = BTreeMap::new();
        for (row, new) in &self.0 {
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
        Ok(())
    }
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
        let mut owned = found.unwrap_or_default();
        let derived = self.derived_of(Some(token))?;
        let derived = derived.get(token).copied().unwrap_or_default();
        owned.addresses = owned.addresses.saturating_add(derived);
        Ok(owned)
    }

    /// Scripts of the descriptors of each token, or of one. Looks at all descriptors that were
    /// added with a token.
    fn derived_of(&self, only: Option<&TokenKey>) -> Result<BTreeMap<TokenKey, u64>, StoreError> {
        let mut derived: BTreeMap<TokenKey, u64> = BTreeMap::new();
        for entry in self.db().scan(AUTH, &[DESCRIPTOR], None, whole_family()) {
            let (key, value) = entry?;
            let Owner(token) = self.db().decode(AUTH, &key, &value)?;
            if only.is_some_and(|only| *only != token) {
                continue;
            }
            let id = key.get(1..).unwrap_or_default();
            let row: Option<DescriptorRow> = self.db().get(DESCRIPTORS, id)?;
            let count = derived.entry(token).or_default();
            *count = count.saturating_add(row.map_or(0, |row| row.scripts()));
        }
        Ok(derived)
    }

    /// The most of each that one token has.
    pub fn owned_most(&self) -> Result<Owned, StoreError> {
        let (mut most, mut derived) = (Owned::default(), self.derived_of(None)?);
        for entry in self.db().scan(AUTH, &[OWNED], None, whole_family()) {
            let (key, value) = entry?;
            let owned: Owned = self.db().decode(AUTH, &key, &value)?;
            let token = key.get(1..).unwrap_or_default();
            let derived = token
                .try_into()
                .ok()
                .and_then(|token: TokenKey| derived.remove(&token));
            let addresses = owned.addresses.saturating_add(derived.unwrap_or_default());
            most.addresses = most.addresses.max(addresses);
            most.consumers = most.consumers.max(owned.consumers);
        }
        // Of those that have nothing else.
        let derived = derived.into_values().max().unwrap_or_default();
        most.addresses = most.addresses.max(derived);
        Ok(most)
    }
}
