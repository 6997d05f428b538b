//! The open database: folder and lock, families and their options, what is checked before the first
//! read, and reading one row or a range of keys.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB,
    DBCompressionType, DBRecoveryMode, Direction, ErrorKind, IteratorMode, LogLevel,
    LruCacheOptions, Options, PrefixRange, ReadOptions, WriteBatch, WriteOptions,
};
use rustix::process::{Resource, getrlimit};

use super::log::Numbers;
use super::rows::{Malformed, Value, coinbase_entry, parse_outpoint_key};
use super::starts::Starts;
use super::{ChainInfo, Counts, FORMAT, StoreError, random_hex};
use crate::tracker::OutputRow;

pub(super) const META: &str = "meta";
pub(super) const BLOCKS: &str = "blocks";
pub(super) const WATCHES: &str = "watches";
pub(super) const OUTPUTS: &str = "outputs";
pub(super) const UNSPENT: &str = "unspent";
pub(super) const COINBASES: &str = "coinbases";
pub(super) const TXS: &str = "txs";
pub(super) const HISTORY: &str = "history";
pub(super) const MEMPOOL: &str = "mempool";
pub(super) const SINCE: &str = "since";
pub(super) const PENDING: &str = "pending";
pub(super) const SCANS: &str = "scans";
pub(super) const SCAN_SCRIPTS: &str = "scan_scripts";
pub(super) const OPEN_SCANS: &str = "open_scans";
pub(super) const EVENTS: &str = "events";
pub(super) const CURSORS: &str = "cursors";
/// RocksDB has it in every database; ours stays empty.
const DEFAULT: &str = "default";

const FAMILIES: [&str; 17] = [
    DEFAULT,
    META,
    BLOCKS,
    WATCHES,
    OUTPUTS,
    UNSPENT,
    COINBASES,
    TXS,
    HISTORY,
    MEMPOOL,
    SINCE,
    PENDING,
    SCANS,
    SCAN_SCRIPTS,
    OPEN_SCANS,
    EVENTS,
    CURSORS,
];

/// Families that are read by whole key, so that a filter saves the look into most files.
const POINT_READ: [&str; 4] = [BLOCKS, WATCHES, OUTPUTS, TXS];

/// Keys of `meta`.
pub(super) mod meta {
    pub const FORMAT: &str = "format";
    pub const CHAIN: &str = "chain";
    /// Of formats 1 and 2; the id of the first start since.
    pub const LOG_ID: &str = "log_id";
    pub const STARTS: &str = "starts";
    pub const CREATED: &str = "created";
    pub const TIP: &str = "tip";
    pub const NEXT_SEQ: &str = "next_seq";
    pub const FIRST_SEQ: &str = "first_seq";
    pub const RESERVED: &str = "reserved";
    pub const BOOT: &str = "boot";
    pub const CLEAN: &str = "clean";
    pub const COUNTS: &str = "counts";
    pub const MONITORING: &str = "monitoring";
}

/// What earlier releases wrote; read, and brought up to [`FORMAT`].
const FIRST_FORMAT: u32 = 1;
const SECOND_FORMAT: u32 = 2;
const THIRD_FORMAT: u32 = 3;
/// Rows of one batch while a store is brought up.
const BATCH: usize = 10_000;

const MIB: usize = 1 << 20;

/// Uncompressed blocks, indexes and filters in memory, all families together.
const CACHE: usize = 64 * MIB;
/// Not yet sorted into files, all families together.
const WRITE_BUFFERS: usize = 64 * MIB;
/// Tables that are kept open at most; a quarter of the files that the process may open, if that is
/// less. Sockets need most of them.
const OPEN_FILES: i32 = 256;

/// A process that died may leave half a batch at the end of the write-ahead log, never answered: it
/// counts as never written. Anything else that cannot be read there is damage, and what was
/// promised to clients would be lost with it.
pub(super) const PROCESS_DIED: DBRecoveryMode = DBRecoveryMode::TolerateCorruptedTailRecords;
/// A machine that lost power may have written the end of it in any order. All up to the first gap
/// counts: it was synced if it had to be.
pub(super) const POWER_FAILED: DBRecoveryMode = DBRecoveryMode::PointInTime;

/// Shared by the writer and all readers; the last one closes it.
pub(super) struct Db {
    // Before the lock: fields are dropped in this order, and nobody may open the database before it
    // is closed.
    raw: DB,
    _lock: File,
    path: PathBuf,
    pub(super) chain: ChainInfo,
    pub(super) starts: Arc<Starts>,
}

/// Key and value.
pub(super) type Entry = (Box<[u8]>, Box<[u8]>);

impl Db {
    pub(super) fn open(
        path: &Path,
        chain: Option<ChainInfo>,
        now: u64,
        boot: &str,
    ) -> Result<(Self, Numbers, Counts), StoreError> {
        let folder = path.join("db");
        let exists = folder.join("CURRENT").exists();
        if !exists {
            refuse_remains(path, &folder)?;
        }
        if chain.is_none() && !exists {
            return Err(StoreError::UnknownChain {
                path: path.to_owned(),
            });
        }
        let lock = lock(path)?;
        if folder.join("CURRENT").exists() {
            refuse_what_is_not_ours(path, &folder)?;
        }
        make_private(&folder).map_err(|error| io(path, "create the store", error))?;
        let raw = open_database(&folder, boot).map_err(|error| failed_open(path, &error))?;
        let genesis = bitcoin::hashes::Hash::all_zeros();
        let unknown = ChainInfo {
            network: bitcoin::Network::Regtest,
            genesis,
        };
        let mut db = Self {
            raw,
            _lock: lock,
            path: path.to_owned(),
            chain: unknown,
            starts: Arc::new(Starts::new(String::new())),
        };
        let format = db.meta::<u32>(meta::FORMAT)?;
        match format {
            None if db.is_empty()? => db.create(chain, now)?,
            None => {
                return Err(StoreError::Damaged {
                    path: path.to_owned(),
                    what: "rows without a format".to_owned(),
                });
            }
            Some(FIRST_FORMAT | SECOND_FORMAT | THIRD_FORMAT | FORMAT) => {}
            Some(found) => {
                return Err(StoreError::Format {
                    path: path.to_owned(),
                    found,
                    expected: FORMAT,
                });
            }
        }
        db.chain = db.required(meta::CHAIN)?;
        if let Some(expected) = chain.filter(|expected| *expected != db.chain) {
            return Err(StoreError::WrongChain {
                path: path.to_owned(),
                found: Box::new(db.chain),
                expected: Box::new(expected),
            });
        }
        if let Some(format) = format.filter(|format| *format < FORMAT) {
            db.bring_up(format)?;
        }
        let numbers = db.resume(boot, format.is_none())?;
        db.starts = Arc::new(db.required(meta::STARTS)?);
        let counts = db.required(meta::COUNTS)?;
        Ok((db, numbers, counts))
    }

    /// Whether no family has a row: the process that created it died before its first write.
    fn is_empty(&self) -> Result<bool, StoreError> {
        for family in FAMILIES {
            if self
                .scan(family, &[], None, ReadOptions::default())
                .next()
                .transpose()?
                .is_some()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first rows of a new store.
    fn create(&self, chain: Option<ChainInfo>, now: u64) -> Result<(), StoreError> {
        let chain = chain.ok_or_else(|| StoreError::UnknownChain {
            path: self.path.clone(),
        })?;
        let mut batch = WriteBatch::default();
        self.put_meta(&mut batch, meta::CHAIN, &chain);
        self.put_meta(&mut batch, meta::STARTS, &Starts::new(random_hex()));
        self.put_meta(&mut batch, meta::CREATED, &now);
        self.put_meta(&mut batch, meta::NEXT_SEQ, &1_u64);
        self.put_meta(&mut batch, meta::FIRST_SEQ, &1_u64);
        self.put_meta(&mut batch, meta::RESERVED, &1_u64);
        self.put_meta(&mut batch, meta::BOOT, &String::new());
        self.put_meta(&mut batch, meta::CLEAN, &true);
        self.put_meta(&mut batch, meta::COUNTS, &Counts::default());
        self.put_meta(&mut batch, meta::FORMAT, &FORMAT);
        self.write(batch, true)
    }

    /// From an earlier format. The families that it does not have were made when the database was
    /// opened. A process that dies here leaves the earlier format, and the next start does it all
    /// again.
    fn bring_up(&self, format: u32) -> Result<(), StoreError> {
        self.list_coinbases()?;
        let mut batch = WriteBatch::default();
        if format < THIRD_FORMAT {
            let starts = Starts::new(self.required(meta::LOG_ID)?);
            self.put_meta(&mut batch, meta::STARTS, &starts);
            batch.delete_cf(self.family(META), meta::LOG_ID);
        }
        self.put_meta(&mut batch, meta::FORMAT, &FORMAT);
        self.write(batch, true)
    }

    /// The lookup rows that format 4 added.
    fn list_coinbases(&self) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        for entry in self.scan(OUTPUTS, &[], None, whole_family()) {
            let (key, value) = entry?;
            let row: OutputRow = self.decode(OUTPUTS, &key, &value)?;
            let outpoint = parse_outpoint_key(&key)
                .map_err(|Malformed(what)| self.corrupt(OUTPUTS, &key, what))?;
            if let Some((key, value)) = coinbase_entry(&outpoint, &row) {
                batch.put_cf(self.family(COINBASES), key, value);
            }
            if batch.len() >= BATCH {
                self.write(std::mem::take(&mut batch), false)?;
            }
        }
        self.write(batch, false)
    }

    /// Where numbering goes on, and the mark that the store is in use from now on, by this start:
    /// the first one when the store is new.
    fn resume(&self, boot: &str, is_new: bool) -> Result<Numbers, StoreError> {
        let kept =
            self.required::<bool>(meta::CLEAN)? || self.required::<String>(meta::BOOT)? == boot;
        let next = self.required(meta::NEXT_SEQ)?;
        let numbers = Numbers::resume(next, self.required(meta::RESERVED)?, kept);
        let mut starts: Starts = self.required(meta::STARTS)?;
        if !is_new {
            starts.add(random_hex(), next, numbers.next);
        }
        let mut batch = WriteBatch::default();
        self.put_meta(&mut batch, meta::BOOT, &boot.to_owned());
        self.put_meta(&mut batch, meta::CLEAN, &false);
        self.put_meta(&mut batch, meta::NEXT_SEQ, &numbers.next);
        self.put_meta(&mut batch, meta::RESERVED, &numbers.reserved);
        self.put_meta(&mut batch, meta::STARTS, &starts);
        self.write(batch, true)?;
        Ok(numbers)
    }

    pub(super) fn family(&self, name: &'static str) -> &ColumnFamily {
        self.raw
            .cf_handle(name)
            .expect("every family is opened with the database")
    }

    pub(super) fn get<V: Value>(
        &self,
        family: &'static str,
        key: &[u8],
    ) -> Result<Option<V>, StoreError> {
        let bytes = self
            .raw
            .get_pinned_cf(self.family(family), key)
            .map_err(|error| self.failed_read(family, key, error))?;
        bytes
            .map(|bytes| self.decode(family, key, &bytes))
            .transpose()
    }

    pub(super) fn meta<V: Value>(&self, key: &str) -> Result<Option<V>, StoreError> {
        self.get(META, key.as_bytes())
    }

    /// A row of `meta` that every store has.
    pub(super) fn required<V: Value>(&self, key: &str) -> Result<V, StoreError> {
        self.meta(key)?
            .ok_or_else(|| self.corrupt(META, key.as_bytes(), "the row is missing"))
    }

    pub(super) fn decode<V: Value>(
        &self,
        family: &'static str,
        key: &[u8],
        bytes: &[u8],
    ) -> Result<V, StoreError> {
        V::from_bytes(bytes).map_err(|Malformed(what)| self.corrupt(family, key, what))
    }

    pub(super) fn put_meta<V: Value>(&self, batch: &mut WriteBatch, key: &str, value: &V) {
        batch.put_cf(self.family(META), key.as_bytes(), value.to_bytes());
    }

    /// `sync`: the batch and all before it are on the disk when this returns.
    pub(super) fn write(&self, batch: WriteBatch, sync: bool) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.raw
            .write_opt(batch, &options)
            .map_err(|error| io(&self.path, "write to the store", error))
    }

    pub(super) fn snapshot(&self) -> rocksdb::Snapshot<'_> {
        self.raw.snapshot()
    }

    /// Entries whose key starts with `prefix`, from key `from` on if given, in order of their keys.
    pub(super) fn scan(
        &self,
        family: &'static str,
        prefix: &[u8],
        from: Option<&[u8]>,
        options: ReadOptions,
    ) -> Scan<'_> {
        Scan {
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
    ) -> impl Iterator<Item = Result<Entry, rocksdb::Error>> + use<'_> {
        options.set_iterate_range(PrefixRange(prefix));
        let mode = from.map_or(IteratorMode::Start, |from| {
            IteratorMode::From(from, Direction::Forward)
        });
        self.raw.iterator_cf_opt(self.family(family), options, mode)
    }

    /// Many rows at once. `keys` in ascending order.
    pub(super) fn get_many<K: AsRef<[u8]>, V: Value>(
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

    pub(super) fn corrupt(
        &self,
        family: &'static str,
        key: &[u8],
        what: impl Into<String>,
    ) -> StoreError {
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

    pub(super) fn failed_read(
        &self,
        family: &'static str,
        key: &[u8],
        error: rocksdb::Error,
    ) -> StoreError {
        match error.kind() {
            ErrorKind::Corruption => self.corrupt(family, key, error.into_string()),
            _ => io(&self.path, "read the store", error),
        }
    }
}

/// Entries of one family, see [`Db::scan`].
pub(super) struct Scan<'a> {
    db: &'a Db,
    family: &'static str,
    entries: Box<dyn Iterator<Item = Result<Entry, rocksdb::Error>> + Send + 'a>,
}

impl Iterator for Scan<'_> {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(
            self.entries
                .next()?
                .map_err(|error| self.db.failed_read(self.family, &[], error)),
        )
    }
}

/// Options for reading a whole family once: large reads that do not push out what is in use.
pub(super) fn whole_family() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_readahead_size(2 * MIB);
    options
}

fn io(path: &Path, doing: &'static str, error: impl ToString) -> StoreError {
    StoreError::Io {
        doing,
        path: path.to_owned(),
        cause: error.to_string(),
    }
}

fn open_files() -> i32 {
    let limit = getrlimit(Resource::Nofile).current;
    let quarter = limit.and_then(|limit| i32::try_from(limit / 4).ok());
    quarter.map_or(OPEN_FILES, |quarter| quarter.min(OPEN_FILES))
}

fn make_private_if_new(folder: &Path) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made,
    }
}

/// The folder of the database: what is watched, and the secrets of webhooks, are not for every user
/// of the machine. One that is open to others (of an earlier build, or copied) is closed to them,
/// because nothing but the database is in it; the folder around it may have other uses.
fn make_private(folder: &Path) -> std::io::Result<()> {
    make_private_if_new(folder)?;
    let mode = fs::metadata(folder)?.permissions().mode();
    if mode & 0o077 != 0 {
        match fs::set_permissions(folder, Permissions::from_mode(mode & 0o700)) {
            Ok(()) => tracing::warn!(
                "{} could be read by other users of this machine: it is closed to them now",
                folder.display()
            ),
            Err(error) => tracing::warn!(
                %error,
                "{} can be read by other users of this machine: give it to the user that runs satwatch, or chmod 700",
                folder.display()
            ),
        }
    }
    Ok(())
}

/// A diagnosis ([`super::inspect`]) holds the lock for a moment, and must not refuse a daemon.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Held until the returned file is closed, by the system too when the process dies.
fn lock(path: &Path) -> Result<File, StoreError> {
    let failed = |error: std::io::Error| io(path, "create the store", error);
    match (make_private_if_new(path), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(parent).and_then(|()| make_private_if_new(path))
        }
        (made, _) => made,
    }
    .map_err(failed)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join("lock"))
        .map_err(failed)?;
    let mut locked = file.try_lock();
    for _ in 0..LOCK_TRIES {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(LOCK_PAUSE);
        locked = file.try_lock();
    }
    let process = process_in(&file);
    match (locked, process) {
        (Err(TryLockError::Error(error)), _) => Err(failed(error)),
        (Err(TryLockError::WouldBlock), process) => Err(StoreError::InUse {
            path: path.to_owned(),
            process: process.filter(|id| !id.is_empty()),
        }),
        (Ok(()), None) => Err(foreign_lock(path)),
        (Ok(()), Some(_)) => {
            file.rewind().map_err(failed)?;
            file.set_len(0).map_err(failed)?;
            writeln!(file, "{}", std::process::id()).map_err(failed)?;
            Ok(file)
        }
    }
}

/// The id of the process that wrote a lock file, or nothing; `None`: it is not ours.
pub(super) fn process_in(lock: &File) -> Option<String> {
    let mut text = String::new();
    lock.take(100).read_to_string(&mut text).ok()?;
    let id = text.trim().to_owned();
    id.bytes().all(|digit| digit.is_ascii_digit()).then_some(id)
}

pub(super) fn foreign_lock(path: &Path) -> StoreError {
    StoreError::Foreign {
        path: path.to_owned(),
        what: "the file lock in it is another program's".to_owned(),
    }
}

/// The database. What the write-ahead log cannot be read for is forgiven where it may come of a
/// power loss, and nowhere else.
fn open_database(folder: &Path, boot: &str) -> Result<DB, rocksdb::Error> {
    let open = |mode| DB::open_cf_descriptors(&database_options(mode), folder, families());
    match open(PROCESS_DIED) {
        Err(error)
            if error.kind() == ErrorKind::Corruption && power_may_have_failed(folder, boot) =>
        {
            open(POWER_FAILED)
        }
        opened => opened,
    }
}

/// Whether the machine has started anew since the store was opened last, as far as it can be read.
pub(super) fn power_may_have_failed(folder: &Path, boot: &str) -> bool {
    // An earlier format has fewer families.
    let Ok(found) = DB::list_cf(&Options::default(), folder) else {
        return false;
    };
    let Ok(raw) = DB::open_cf_for_read_only(&database_options(POWER_FAILED), folder, found, false)
    else {
        return false;
    };
    let Some(family) = raw.cf_handle(META) else {
        return false;
    };
    let known = raw.get_pinned_cf(family, meta::BOOT).ok().flatten();
    known.is_some_and(|bytes| String::from_bytes(&bytes).is_ok_and(|known| known != boot))
}

pub(super) fn failed_open(path: &Path, error: &rocksdb::Error) -> StoreError {
    let text = error.to_string();
    // A file that the database names and that is not there.
    let missing = text.contains("No such file");
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::NotFound => StoreError::Damaged {
            path: path.to_owned(),
            what: text,
        },
        _ if missing => StoreError::Damaged {
            path: path.to_owned(),
            what: text,
        },
        _ => io(path, "open the store", text),
    }
}

/// A database without `CURRENT` looks like none, and RocksDB would clear its files away for a new
/// one. Only the files that are there before `CURRENT` may be: then the process that created it
/// died.
pub(super) fn refuse_remains(path: &Path, folder: &Path) -> Result<(), StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // What else is wrong with the folder is told by what writes into it.
        Err(_) => return Ok(()),
    };
    for entry in entries {
        let name = entry
            .map_err(|error| io(path, "open the store", error))?
            .file_name();
        let rows = Path::new(&name).extension().is_some_and(|extension| {
            extension == "sst" || extension == "log" || extension == "ldb"
        });
        if rows {
            let what = format!(
                "db/CURRENT is missing, though there is db/{}",
                name.to_string_lossy()
            );
            return Err(StoreError::Damaged {
                path: path.to_owned(),
                what,
            });
        }
    }
    Ok(())
}

/// Another program's database is left alone. A later format may have families that we cannot open;
/// its format number says so better than RocksDB does.
pub(super) fn refuse_what_is_not_ours(path: &Path, folder: &Path) -> Result<(), StoreError> {
    let failed = |error: rocksdb::Error| failed_open(path, &error);
    let options = Options::default();
    let found = DB::list_cf(&options, folder).map_err(failed)?;
    let unknown = found.iter().find(|name| !FAMILIES.contains(&name.as_str()));
    if !found.iter().any(|name| name == META) {
        let raw = DB::open_cf_for_read_only(&options, folder, [DEFAULT], false).map_err(failed)?;
        // Without a family and a row, it is ours if anybody's: whoever created it died soon after.
        let empty = raw.iterator(IteratorMode::Start).next().is_none();
        if unknown.is_some() || !empty {
            let what = format!("the database in it has the families {}", found.join(", "));
            return Err(StoreError::Foreign {
                path: path.to_owned(),
                what,
            });
        }
        return Ok(());
    }
    let Some(unknown) = unknown else {
        return Ok(());
    };
    let raw = DB::open_cf_for_read_only(&options, folder, [META], false).map_err(failed)?;
    let family = raw
        .cf_handle(META)
        .expect("it was opened with the database");
    let bytes = raw.get_pinned_cf(family, meta::FORMAT).map_err(failed)?;
    match bytes.as_deref().map(u32::from_bytes) {
        Some(Ok(found)) if found > FORMAT => Err(StoreError::Format {
            path: path.to_owned(),
            found,
            expected: FORMAT,
        }),
        _ => Err(StoreError::Damaged {
            path: path.to_owned(),
            what: format!("its format does not allow family {unknown}"),
        }),
    }
}

pub(super) fn database_options(recovery: DBRecoveryMode) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_wal_recovery_mode(recovery);
    options.set_max_open_files(open_files());
    options.set_db_write_buffer_size(WRITE_BUFFERS);
    // Families that are seldom written would otherwise keep old logs for long, and make the next
    // start slow.
    options.set_max_total_wal_size(64 * MIB as u64);
    options.set_bytes_per_sync(MIB as u64);
    options.set_max_background_jobs(2);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(3);
    options.set_max_log_file_size(4 * MIB);
    options
}

fn families() -> impl Iterator<Item = ColumnFamilyDescriptor> {
    // Few shards: each must hold many of the largest blocks.
    let mut cache = LruCacheOptions::default();
    cache.set_capacity(CACHE);
    cache.set_num_shard_bits(2);
    let cache = Cache::new_lru_cache_opts(&cache);
    FAMILIES.into_iter().map(move |name| {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&cache);
        blocks.set_format_version(5);
        // Indexes and filters come in small parts. One of a million keys is a megabyte otherwise,
        // and pushes all else out.
        blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        blocks.set_partition_filters(true);
        blocks.set_pin_top_level_index_and_filter(true);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        if POINT_READ.contains(&name) {
            blocks.set_bloom_filter(10.0, false);
            blocks.set_optimize_filters_for_memory(true);
        }
        let mut options = Options::default();
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(16 * MIB);
        ColumnFamilyDescriptor::new(name, options)
    })
}
