//! The open database: reading one row, several, or a range of keys, and writing a batch.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network, Txid};
use rocksdb::{
    ColumnFamily, DB, DBPinnableSlice, Direction, ErrorKind, IteratorMode, PrefixRange,
    ReadOptions, WriteBatch, WriteOptions, properties,
};

use super::codec::keys::StoredKey;
use super::codec::{Malformed, StoredValue};
use super::families::{META, MIB, RAW_TXS, families, prefix_len};
use super::folder::{self, FreeSpace};
use super::{ChainInfo, Starts, StoreError};

/// Shared by the writer and all readers; the last one closes it.
pub struct Db {
    // Before the lock: fields are dropped in this order, and nobody may open the database before it
    // is closed.
    raw: DB,
    _lock: File,
    path: PathBuf,
    pub chain: ChainInfo,
    pub starts: Arc<Starts>,
}

/// Key and value.
pub type KeyValue = (Box<[u8]>, Box<[u8]>);

impl Db {
    /// A database that was opened under this lock. Chain and starts are to be filled in from its
    /// rows.
    pub fn new(raw: DB, lock: File, path: &Path) -> Self {
        Self {
            raw,
            _lock: lock,
            path: path.to_owned(),
            chain: ChainInfo {
                network: Network::Regtest,
                genesis: BlockHash::all_zeros(),
            },
            starts: Arc::new(Starts::new(String::new())),
        }
    }

    pub fn family(&self, name: &'static str) -> &ColumnFamily {
        self.raw
            .cf_handle(name)
            .expect("every family is opened with the database")
    }

    /// Those that an earlier format does not have.
    pub fn make_families(&mut self) -> Result<(), StoreError> {
        for (name, options) in families() {
            if self.raw.cf_handle(name).is_none() {
                let made = self.raw.create_cf(name, &options);
                made.map_err(|error| StoreError::io(&self.path, "write to the store", error))?;
            }
        }
        Ok(())
    }

    /// Before it is brought up from an earlier format.
    pub fn refuse_without_room(&self, format: u32, free: FreeSpace) -> Result<(), StoreError> {
        folder::refuse_without_room(&self.path, &self.raw, format, free)
    }

    /// Rows of a family, as RocksDB guesses.
    pub fn about(&self, family: &'static str) -> u64 {
        let rows = self
            .raw
            .property_int_value_cf(self.family(family), properties::ESTIMATE_NUM_KEYS);
        rows.ok().flatten().unwrap_or_default()
    }

    pub fn get<V: StoredValue>(
        &self,
        family: &'static str,
        key: &[u8],
    ) -> Result<Option<V>, StoreError> {
        let bytes = self.bytes(family, key)?;
        bytes
            .map(|bytes| self.decode(family, key, &bytes))
            .transpose()
    }

    /// A value that is not decoded.
    pub fn bytes(
        &self,
        family: &'static str,
        key: &[u8],
    ) -> Result<Option<DBPinnableSlice<'_>>, StoreError> {
        let bytes = self.raw.get_pinned_cf(self.family(family), key);
        bytes.map_err(|error| self.failed_read(family, key, error))
    }

    pub fn row<V: StoredValue>(
        &self,
        table: &'static str,
        key: &impl StoredKey,
    ) -> Result<Option<V>, StoreError> {
        let (family, key) = key.place(table);
        self.get(family, &key)
    }

    pub fn meta<V: StoredValue>(&self, key: &str) -> Result<Option<V>, StoreError> {
        self.get(META, key.as_bytes())
    }

    /// A row of `meta` that every store has.
    pub fn required<V: StoredValue>(&self, key: &str) -> Result<V, StoreError> {
        self.meta(key)?
            .ok_or_else(|| self.corrupt(META, key.as_bytes(), "the row is missing"))
    }

    pub fn decode<V: StoredValue>(
        &self,
        family: &'static str,
        key: &[u8],
        bytes: &[u8],
    ) -> Result<V, StoreError> {
        V::from_bytes(bytes).map_err(|Malformed(what)| self.corrupt(family, key, what))
    }

    pub fn put_meta<V: StoredValue>(&self, batch: &mut WriteBatch, key: &str, value: &V) {
        batch.put_cf(self.family(META), key.as_bytes(), value.to_bytes());
    }

    /// `sync`: the batch and all before it are on the disk when this returns.
    pub fn write(&self, batch: WriteBatch, sync: bool) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.raw
            .write_opt(batch, &options)
            .map_err(|error| StoreError::io(&self.path, "write to the store", error))
    }

    pub fn snapshot(&self) -> rocksdb::Snapshot<'_> {
        self.raw.snapshot()
    }

    /// Entries whose key starts with `prefix`, from key `from` on if given, in order of their keys.
    pub fn scan(
        &self,
        family: &'static str,
        prefix: &[u8],
        from: Option<&[u8]>,
        options: ReadOptions,
    ) -> Entries<'_> {
        Entries {
            db: self,
            family,
            entries: Box::new(self.entries(family, prefix, from, options)),
        }
    }

    fn entries(
        &self,
        family: &'static str,
        prefix: &[u8],
        from: Option<&[u8]>,
        mut options: ReadOptions,
    ) -> impl Iterator<Item = Result<KeyValue, rocksdb::Error>> + use<'_> {
        options.set_iterate_range(PrefixRange(prefix));
        // Filters know whole prefixes only.
        match prefix_len(family).is_some_and(|len| prefix.len() >= len) {
            true => options.set_prefix_same_as_start(true),
            false => options.set_total_order_seek(true),
        }
        let mode = IteratorMode::From(from.unwrap_or(prefix), Direction::Forward);
        self.raw.iterator_cf_opt(self.family(family), options, mode)
    }

    /// Many rows at once. `keys` in ascending order.
    pub fn get_many<K: AsRef<[u8]>, V: StoredValue>(
        &self,
        family: &'static str,
        keys: &[K],
        options: &ReadOptions,
    ) -> Result<Vec<Option<V>>, StoreError> {
        let values = self
            .raw
            .batched_multi_get_cf_opt(self.family(family), keys, true, options);
        let rows = keys.iter().map(K::as_ref).zip(values).map(|(key, value)| {
            let bytes = value.map_err(|error| self.failed_read(family, key, error))?;
            bytes
                .map(|bytes| self.decode(family, key, &bytes))
                .transpose()
        });
        rows.collect()
    }

    pub fn corrupt(&self, family: &'static str, key: &[u8], what: impl Into<String>) -> StoreError {
        let key = match std::str::from_utf8(key) {
            Ok(name) if family == META => name.to_owned(),
            _ => key.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        StoreError::Corrupt {
            path: self.path.clone(),
            family,
            key,
            what: what.into(),
        }
    }

    /// There is no such transaction, though it has a row.
    pub fn missing_tx(&self, txid: &Txid) -> StoreError {
        self.corrupt(RAW_TXS, txid.as_ref(), "the transaction is missing")
    }

    pub fn failed_read(
        &self,
        family: &'static str,
        key: &[u8],
        error: rocksdb::Error,
    ) -> StoreError {
        match error.kind() {
            ErrorKind::Corruption => self.corrupt(family, key, error.into_string()),
            _ => StoreError::io(&self.path, "read the store", error),
        }
    }
}

/// Entries of one family, see [`Db::scan`].
pub struct Entries<'a> {
    db: &'a Db,
    family: &'static str,
    entries: Box<dyn Iterator<Item = Result<KeyValue, rocksdb::Error>> + Send + 'a>,
}

impl Iterator for Entries<'_> {
    type Item = Result<KeyValue, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(
            self.entries
                .next()?
                .map_err(|error| self.db.failed_read(self.family, &[], error)),
        )
    }
}

/// Options for reading a whole family once: large reads that do not push out what is in use.
pub fn whole_family() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_readahead_size(2 * MIB);
    options
}
