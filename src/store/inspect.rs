//! Looking at a store without changing anything in its folder: for `doctor`, which may be that of
//! another release than the one that wrote the store.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use rocksdb::{DB, ErrorKind, IteratorMode, Options};

use super::codec::{Malformed, StoredValue};
use super::families::{AUTH, META, POWER_FAILED, PROCESS_DIED, database_options, meta};
use super::folder::{FreeSpace, free_space};
use super::{ChainInfo, FORMAT, RememberedAuth, StoreError, boot_id, folder};
use crate::tracker::BlockId;

/// Looks at a store that a daemon may be using, and the pause between two.
const LOOKS: u32 = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// What the store in a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspected {
    /// Up to [`FORMAT`]. From an earlier one it is brought up when it is opened, or has been in
    /// part.
    pub format: u32,
    pub chain: ChainInfo,
    pub tip: Option<BlockId>,
}

/// Reads what the store in folder `path` is, and fails as [`super::open`] would. `None`: there is
/// no store yet. Reads no more rows than it tells.
pub fn inspect(path: &Path, chain: Option<ChainInfo>) -> Result<Option<Inspected>, StoreError> {
    refuse_if_in_use(path)?;
    let found = look(path, chain, free_space);
    if found.is_err() {
        // A daemon that has started since then changes the files that are read here.
        refuse_if_in_use(path)?;
    }
    found
}

pub(super) fn look(
    path: &Path,
    chain: Option<ChainInfo>,
    free: FreeSpace,
) -> Result<Option<Inspected>, StoreError> {
    let database = path.join("db");
    if !database.join("CURRENT").exists() {
        folder::refuse_remains(path, &database)?;
        return Ok(None);
    }
    folder::refuse_what_is_not_ours(path, &database)?;
    let raw = open(&database).map_err(|error| folder::failed_open(path, &error))?;
    let Some(format) = read::<u32>(&raw, path, meta::FORMAT)? else {
        // The process that created it died before its first write.
        return Ok(None);
    };
    if format > FORMAT {
        return Err(StoreError::Format {
            path: path.to_owned(),
            found: format,
            expected: FORMAT,
        });
    }
    let Some(found) = read::<ChainInfo>(&raw, path, meta::CHAIN)? else {
        return Err(corrupt(path, meta::CHAIN, "the row is missing"));
    };
    if let Some(expected) = chain.filter(|expected| *expected != found) {
        return Err(StoreError::WrongChain {
            path: path.to_owned(),
            found: Box::new(found),
            expected: Box::new(expected),
        });
    }
    if format < FORMAT {
        folder::refuse_without_room(path, &raw, format, free)?;
    }
    let tip = read(&raw, path, meta::TIP)?;
    Ok(Some(Inspected {
        format: read(&raw, path, meta::UPGRADING)?.unwrap_or(format),
        chain: found,
        tip,
    }))
}

/// What the store in a folder remembers of credentials, also while a daemon uses it; `None` if
/// there is no store or one of an earlier format. A daemon may have taken files away between two
/// looks at them, so an error is tried again a few times.
pub fn remembered_auth(path: &Path) -> Result<Option<RememberedAuth>, StoreError> {
    let mut tries = LOOKS;
    loop {
        tries -= 1;
        match look_at_auth(path) {
            Err(_) if tries > 0 => std::thread::sleep(LOOK_PAUSE),
            looked => return looked,
        }
    }
}

fn look_at_auth(path: &Path) -> Result<Option<RememberedAuth>, StoreError> {
    let database = path.join("db");
    if !database.join("CURRENT").exists() {
        return Ok(None);
    }
    let failed = |error: rocksdb::Error| folder::failed_open(path, &error);
    let families = DB::list_cf(&Options::default(), &database).map_err(failed)?;
    if !families.iter().any(|name| name == AUTH) {
        return Ok(None);
    }
    let options = database_options(POWER_FAILED);
    let raw = DB::open_cf_for_read_only(&options, &database, [AUTH], false).map_err(failed)?;
    let family = raw.cf_handle(AUTH).expect("it was opened with it");
    let entries = raw.iterator_cf(family, IteratorMode::Start);
    let entries = entries.map(|entry| entry.map_err(failed));
    let corrupt = |key: &[u8], Malformed(what)| StoreError::Corrupt {
        path: path.to_owned(),
        family: AUTH,
        key: String::from_utf8_lossy(key).into_owned(),
        what,
    };
    RememberedAuth::read(entries, corrupt).map(Some)
}

/// Whether a process uses the store in a folder.
pub fn is_in_use(path: &Path) -> bool {
    matches!(refuse_if_in_use(path), Err(StoreError::InUse { .. }))
}

/// The lock is let go of at once: a daemon that starts now tries for longer than that.
fn refuse_if_in_use(path: &Path) -> Result<(), StoreError> {
    let Ok(lock) = File::open(path.join("lock")) else {
        return Ok(());
    };
    let process = folder::process_in(&lock);
    match (lock.try_lock_shared(), process) {
        (Err(TryLockError::WouldBlock), process) => Err(StoreError::InUse {
            path: path.to_owned(),
            process: process.filter(|id| !id.is_empty()),
        }),
        (_, None) => Err(folder::foreign_lock(path)),
        _ => Ok(()),
    }
}

fn open(database: &Path) -> Result<DB, rocksdb::Error> {
    let families = DB::list_cf(&Options::default(), database)?;
    let open =
        |mode| DB::open_cf_for_read_only(&database_options(mode), database, families.iter(), false);
    match open(PROCESS_DIED) {
        Err(error)
            if error.kind() == ErrorKind::Corruption
                && folder::power_may_have_failed(database, &boot_id()) =>
        {
            open(POWER_FAILED)
        }
        opened => opened,
    }
}

fn read<V: StoredValue>(raw: &DB, path: &Path, key: &str) -> Result<Option<V>, StoreError> {
    let Some(family) = raw.cf_handle(META) else {
        return Ok(None);
    };
    let bytes = raw
        .get_pinned_cf(family, key)
        .map_err(|error| corrupt(path, key, error.as_ref()))?;
    bytes
        .map(|bytes| V::from_bytes(&bytes).map_err(|Malformed(what)| corrupt(path, key, &what)))
        .transpose()
}

fn corrupt(path: &Path, key: &str, what: &str) -> StoreError {
    StoreError::Corrupt {
        path: path.to_owned(),
        family: META,
        key: key.to_owned(),
        what: what.to_owned(),
    }
}
