//! The folder of a store: its lock and permissions, and whose database is in it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rocksdb::{DB, ErrorKind, IteratorMode, Options, properties};
use rustix::fs::{StatVfs, statvfs};

use super::codec::StoredValue;
use super::families::{
    BESIDE_FILES, DEFAULT, FAMILIES, META, MIB, POWER_FAILED, PROCESS_DIED, TXS, WATCHES,
    database_options, families, meta,
};
use super::{FORMAT, StoreError};

fn make_private_if_new(folder: &Path) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made,
    }
}

/// The folder of the database: what is watched, and the secrets of webhooks, are not for every user
/// of the machine. One that is open to others (of an earlier build, or copied) is closed to them,
/// because nothing but the database is in it; the folder around it may have other uses.
pub fn make_private(folder: &Path) -> std::io::Result<()> {
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
pub fn lock(path: &Path) -> Result<File, StoreError> {
    let failed = |error: std::io::Error| StoreError::io(path, "create the store", error);
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
pub fn process_in(lock: &File) -> Option<String> {
    let mut text = String::new();
    lock.take(100).read_to_string(&mut text).ok()?;
    let id = text.trim().to_owned();
    id.bytes().all(|digit| digit.is_ascii_digit()).then_some(id)
}

pub fn foreign_lock(path: &Path) -> StoreError {
    StoreError::Foreign {
        path: path.to_owned(),
        what: "the file lock in it is another program's".to_owned(),
    }
}

/// The database with the families that were found in it, or with all if none were. What the
/// write-ahead log cannot be read for is forgiven where it may come of a power loss, and nowhere
/// else.
pub fn open_database(folder: &Path, boot: &str, found: &[String]) -> Result<DB, rocksdb::Error> {
    let open = |mode| {
        let families =
            families().filter(|(name, _)| found.is_empty() || found.iter().any(|it| it == name));
        DB::open_cf_with_opts(&database_options(mode), folder, families)
    };
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
pub fn power_may_have_failed(folder: &Path, boot: &str) -> bool {
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

pub fn failed_open(path: &Path, error: &rocksdb::Error) -> StoreError {
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
        _ => StoreError::io(path, "open the store", text),
    }
}

/// A database without `CURRENT` looks like none, and RocksDB would clear its files away for a new
/// one. Only the files that are there before `CURRENT` may be: then the process that created it
/// died.
pub fn refuse_remains(path: &Path, folder: &Path) -> Result<(), StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // What else is wrong with the folder is told by what writes into it.
        Err(_) => return Ok(()),
    };
    for entry in entries {
        let name = entry
            .map_err(|error| StoreError::io(path, "open the store", error))?
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
/// its format number says so better than RocksDB does. The families are returned, none for one that
/// was being created.
pub fn refuse_what_is_not_ours(path: &Path, folder: &Path) -> Result<Vec<String>, StoreError> {
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
        return Ok(Vec::new());
    }
    let Some(unknown) = unknown else {
        return Ok(found);
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

/// The first format whose rows of transactions and scripts are as they are now.
const REWRITTEN_BEFORE: u32 = 8;

/// How many bytes the disk of a folder has free; `None` where it does not say so.
pub type FreeSpace = fn(&Path) -> Option<u64>;

pub fn free_space(folder: &Path) -> Option<u64> {
    free_of(&statvfs(folder).ok()?)
}

/// A file system that tells nothing says that it has no blocks at all.
fn free_of(told: &StatVfs) -> Option<u64> {
    let told = Some(told).filter(|told| told.f_blocks > 0)?;
    told.f_bavail.checked_mul(told.f_frsize)
}

/// A folder of a format before [`REWRITTEN_BEFORE`] needs room before it can be brought up: its
/// rows are written anew, and until the end the old ones are there too. `free` is asked of
/// the folder that they are in, which may be on a disk of its own.
pub fn refuse_without_room(
    path: &Path,
    raw: &DB,
    format: u32,
    free: FreeSpace,
) -> Result<(), StoreError> {
    if format >= REWRITTEN_BEFORE {
        return Ok(());
    }
    let sizes = [
        properties::LIVE_SST_FILES_SIZE,
        properties::CUR_SIZE_ALL_MEM_TABLES,
    ];
    let size = |family, name| {
        let family = raw.cf_handle(family)?;
        raw.property_int_value_cf(family, name).ok()?
    };
    let sizes = sizes.map(|name| [size(TXS, name), size(WATCHES, name)]);
    let needed = needed_for(sizes.into_iter().flatten().flatten().sum());
    match free(&path.join("db")) {
        Some(free) if free < needed => Err(StoreError::io(
            path,
            "bring the store up to the format of this release",
            format!(
                "that takes {} MiB more, and {} MiB are free",
                needed.div_ceil(MIB as u64),
                free / MIB as u64
            ),
        )),
        _ => Ok(()),
    }
}

fn needed_for(rows: u64) -> u64 {
    rows + rows.min(BESIDE_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_written_anew_take_more_than_their_files() {
        assert_eq!(needed_for(10), 20);
        assert_eq!(needed_for(1 << 40), (1 << 40) + (128 << 20));
    }

    #[test]
    fn a_file_system_that_tells_nothing_is_not_full() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut told = statvfs(folder.path()).expect("it is there");
        (told.f_blocks, told.f_bavail, told.f_frsize) = (100, 5, 4096);
        assert_eq!(free_of(&told), Some(5 * 4096));
        told.f_bavail = 0;
        assert_eq!(free_of(&told), Some(0));
        (told.f_blocks, told.f_frsize) = (0, 0);
        assert_eq!(free_of(&told), None);
    }
}
