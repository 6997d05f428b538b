//! Folders that are damaged, half made or another program's: refused with a sentence, and left as
//! they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use satwatch::store::StoreError;
use tempfile::{TempDir, tempdir};

use super::crash::copy;
use super::{
    BOOT, Change, OTHER_BOOT, block_id, chain, changes, dump, events, numbers, open, open_at,
    script, tamper, watch_row,
};

/// A store with a table file of each kind of row and, after another start, commits in the
/// write-ahead log.
fn filled() -> TempDir {
    let folder = tempdir().unwrap();
    let tip = |old, new| changes(vec![Change::Tip { old, new }]);
    let watch = |n| {
        changes(vec![Change::Watch {
            script: script(n),
            old: None,
            new: Some(watch_row(n)),
        }])
    };
    let (mut writer, reader) = open(folder.path());
    writer
        .commit(
            &[watch(1), tip(None, Some(block_id(7))), events(1, 20)],
            true,
        )
        .unwrap();
    drop((writer, reader));
    let (mut writer, reader) = open(folder.path());
    for height in 8..20 {
        writer
            .commit(
                &[
                    tip(Some(block_id(height - 1)), Some(block_id(height))),
                    watch(20 + height as u8),
                    events(height, 3),
                ],
                true,
            )
            .unwrap();
    }
    drop((writer, reader));
    folder
}

fn files(path: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(path.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

/// Name and bytes of every file that holds or describes rows.
fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(path.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let named = files.map(|file| {
        (
            file.file_name().unwrap().to_string_lossy().into_owned(),
            file,
        )
    });
    let rows = named.filter(|(name, _)| {
        [".sst", ".log", "CURRENT", "MANIFEST"]
            .iter()
            .any(|part| name.contains(part))
    });
    rows.map(|(name, file)| (name, fs::read(file).unwrap()))
        .collect()
}

/// Opens it and reads every row, as a start does and more.
fn read_all(path: &Path, boot: &str) -> Result<(u64, usize), StoreError> {
    let (writer, reader) = satwatch::store::open_at_boot(path, Some(chain()), 0, boot)?;
    let watches = reader.watches().collect::<Result<Vec<_>, _>>()?;
    let known = reader.read_events(0, usize::MAX)?;
    assert_eq!(
        reader.snapshot().tip()?.unwrap().height,
        writer.head() as u32 / 3 + 1,
        "tip and events are of the same commit"
    );
    Ok((known.len() as u64, watches.len()))
}

fn refused(path: &Path) -> String {
    let told = satwatch::store::open_at_boot(path, Some(chain()), 0, BOOT)
        .err()
        .expect("a damaged store does not open");
    assert!(matches!(told, StoreError::Damaged { .. }), "{told}");
    let told = told.to_string();
    assert!(
        told.contains(&*path.to_string_lossy()) && told.contains("restore a copy"),
        "{told}"
    );
    told
}

#[test]
fn a_database_without_its_current_file_is_not_taken_for_a_new_one() {
    let folder = filled();
    let current = folder.path().join("db/CURRENT");
    let content = fs::read(&current).unwrap();
    fs::remove_file(&current).unwrap();
    let before = contents(folder.path());
    assert!(refused(folder.path()).contains("CURRENT"));
    let without_node = satwatch::store::open_at_boot(folder.path(), None, 0, BOOT)
        .err()
        .unwrap();
    assert!(
        matches!(without_node, StoreError::Damaged { .. }),
        "{without_node}"
    );
    assert_eq!(contents(folder.path()), before);
    // What was taken away comes back.
    fs::write(&current, content).unwrap();
    assert_eq!(read_all(folder.path(), BOOT).unwrap(), (56, 13));
}

type Damage<'a> = &'a dyn Fn(&Path);

#[test]
fn a_missing_or_shortened_file_is_told_and_nothing_is_cleared_away() {
    let table = |path: &Path| files(path, "sst").remove(0);
    let manifest = |path: &Path| {
        let current = fs::read_to_string(path.join("db/CURRENT")).unwrap();
        path.join("db").join(current.trim())
    };
    let shorten = |file: PathBuf| {
        let whole = fs::read(&file).unwrap();
        fs::write(file, &whole[..whole.len() / 2]).unwrap();
    };
    let remove = |file: PathBuf| fs::remove_file(file).unwrap();
    let cases: [(&str, Damage<'_>); 5] = [
        ("a table file is missing", &|path| remove(table(path))),
        ("a table file is shortened", &|path| shorten(table(path))),
        ("the manifest is missing", &|path| remove(manifest(path))),
        ("the manifest is shortened", &|path| shorten(manifest(path))),
        ("CURRENT is empty", &|path| {
            fs::write(path.join("db/CURRENT"), "").unwrap()
        }),
    ];
    let whole = filled();
    for (case, damage) in cases {
        let folder = tempdir().unwrap();
        copy(whole.path(), folder.path());
        damage(folder.path());
        let before = contents(folder.path());
        println!("{case}: {}", refused(folder.path()));
        assert_eq!(
            contents(folder.path()),
            before,
            "{case}: the folder is as it was"
        );
    }
}

/// Somewhere in each file that holds rows a byte is changed: nobody may go on from other rows than
/// those that were written.
#[test]
fn a_flipped_byte_never_leads_to_other_rows() {
    let whole = filled();
    let right = (56, 13);
    let mut told = 0;
    for (name, bytes) in contents(whole.path()) {
        for part in 0..6 {
            let at = bytes.len() * part / 6 + bytes.len() / 13;
            let folder = tempdir().unwrap();
            copy(whole.path(), folder.path());
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            fs::write(folder.path().join("db").join(&name), damaged).unwrap();
            match read_all(folder.path(), BOOT) {
                // It lies where nothing is kept.
                Ok(found) => assert_eq!(found, right, "byte {at} of {} in {name}", bytes.len()),
                Err(error) => {
                    assert!(
                        matches!(
                            error,
                            StoreError::Damaged { .. } | StoreError::Corrupt { .. }
                        ),
                        "byte {at} of {name}: {error}"
                    );
                    told += 1;
                }
            }
        }
    }
    assert!(told > 20, "only {told} changed bytes were noticed");
}

/// The same boot of the machine means that the page cache was not lost: nothing may be missing in
/// the middle of the log.
#[test]
fn a_hole_in_the_write_ahead_log_is_damage_unless_the_machine_lost_its_power() {
    let folder = filled();
    let log = files(folder.path(), "log").pop().unwrap();
    let whole = fs::read(&log).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(&log, damaged).unwrap();
    let before = contents(folder.path());
    refused(folder.path());
    assert_eq!(contents(folder.path()), before);

    let after_power_loss = tempdir().unwrap();
    copy(folder.path(), after_power_loss.path());
    let (writer, reader) = open_at(after_power_loss.path(), OTHER_BOOT);
    let kept = numbers(&reader, 0);
    assert!(
        kept.len() >= 20 && kept.len() < 56 && *kept.last().unwrap() == kept.len() as u64,
        "up to the hole: {kept:?}"
    );
    let next = writer.head_after(1);
    assert!(
        next > 56,
        "numbers that may have been told are not given again: {next}"
    );

    fs::write(&log, whole).unwrap();
    assert_eq!(read_all(folder.path(), BOOT).unwrap(), (56, 13));
}

#[test]
fn what_a_killed_creation_left_is_gone_on_with() {
    let whole = filled();
    // Before CURRENT is written.
    let early = tempdir().unwrap();
    fs::create_dir_all(early.path().join("db")).unwrap();
    for (name, bytes) in contents(whole.path())
        .into_iter()
        .filter(|(name, _)| name.contains("MANIFEST"))
    {
        fs::write(
            early.path().join("db").join(name),
            &bytes[..bytes.len() / 3],
        )
        .unwrap();
    }
    fs::write(early.path().join("db/LOCK"), "").unwrap();
    // Before our families are made, and before our first write.
    let (bare, families) = (tempdir().unwrap(), tempdir().unwrap());
    tamper(bare.path(), |_| {});
    tamper(families.path(), |raw| {
        for family in ["meta", "blocks", "watches"] {
            raw.create_cf(family, &rocksdb::Options::default()).unwrap();
        }
    });
    for folder in [early, bare, families] {
        let unknown = satwatch::store::open_at_boot(folder.path(), None, 0, BOOT)
            .err()
            .unwrap();
        assert!(
            matches!(unknown, StoreError::UnknownChain { .. }),
            "{unknown}"
        );
        let (mut writer, reader) = open(folder.path());
        assert_eq!(writer.commit(&[events(1, 1)], true).unwrap(), 1);
        assert_eq!(reader.chain(), chain());
    }
}

#[test]
fn rows_without_a_format_are_not_taken_for_a_new_store() {
    let folder = filled();
    tamper(folder.path(), |raw| {
        raw.delete_cf(raw.cf_handle("meta").unwrap(), "format")
            .unwrap()
    });
    assert!(refused(folder.path()).contains("format"));
}

#[test]
fn another_programs_folder_is_left_alone() {
    let put = |raw: &mut rocksdb::DB| raw.put("theirs", "1").unwrap();
    let create = |raw: &mut rocksdb::DB| {
        raw.create_cf("parcels", &rocksdb::Options::default())
            .unwrap()
    };
    for make in [&put as &dyn Fn(&mut rocksdb::DB), &create] {
        let folder = tempdir().unwrap();
        tamper(folder.path(), make);
        let before = dump(folder.path());
        let told = satwatch::store::open_at_boot(folder.path(), Some(chain()), 0, BOOT)
            .err()
            .unwrap();
        assert!(matches!(told, StoreError::Foreign { .. }), "{told}");
        assert!(told.to_string().contains("store.path"), "{told}");
        assert_eq!(dump(folder.path()), before);
        let families =
            rocksdb::DB::list_cf(&rocksdb::Options::default(), folder.path().join("db")).unwrap();
        assert!(!families.iter().any(|name| name == "meta"), "{families:?}");
    }
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("lock"), "host 5\n").unwrap();
    let told = satwatch::store::open_at_boot(folder.path(), Some(chain()), 0, BOOT)
        .err()
        .unwrap();
    assert!(matches!(told, StoreError::Foreign { .. }), "{told}");
    assert_eq!(
        fs::read_to_string(folder.path().join("lock")).unwrap(),
        "host 5\n"
    );
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    // Below a file, and where not even root may make folders.
    for path in [
        folder.path().join("file/store"),
        PathBuf::from("/proc/satwatch"),
    ] {
        let told = satwatch::store::open_at_boot(&path, Some(chain()), 0, BOOT)
            .err()
            .unwrap();
        assert!(matches!(told, StoreError::Io { .. }), "{told}");
        assert!(
            told.to_string().contains(&*path.to_string_lossy())
                && told.to_string().contains("room"),
            "{told}"
        );
    }
}
