//! Which token put an address on the watch list, and which defined a consumer. What nobody with a
//! token did has no row. Keys and values are in the table of [`super::auth`].
//!
//! A row is written and deleted in the batch of the change that it is about, and so is the count.

use std::collections::BTreeMap;

use rocksdb::WriteBatch;

use super::codec::{In, Malformed, Out, StoredValue, value_of_fields};
use super::db::{Db, whole_family};
use super::families::AUTH;
use super::families::auth::{ADDRESS, CONSUMER, OWNED, key};
use super::{StoreError, StoreReader};
use crate::tracker::ScriptHash;

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
        _ => &mut owned.consumers,
    };
    *count = match is_more {
        true => count.saturating_add(1),
        false => count.saturating_sub(1),
    };
    owned
}

impl StoreReader {
    /// What a token has now.
    pub fn owned(&self, token: &TokenKey) -> Result<Owned, StoreError> {
        let found = self.db().get(AUTH, &key(OWNED, token))?;
        Ok(found.unwrap_or_default())
    }

    /// The most of each that one token has.
    pub fn owned_most(&self) -> Result<Owned, StoreError> {
        let mut most = Owned::default();
        for entry in self.db().scan(AUTH, &[OWNED], None, whole_family()) {
            let (key, value) = entry?;
            let owned: Owned = self.db().decode(AUTH, &key, &value)?;
            most.addresses = most.addresses.max(owned.addresses);
            most.consumers = most.consumers.max(owned.consumers);
        }
        Ok(most)
    }
}
