//! Copies of the folder that are put back, and folders that are moved: which cursors stay good.

use std::fs;
use std::path::Path;

use satwatch::store::StoreReader;
use tempfile::tempdir;

use super::crash::copy;
use super::{OTHER_BOOT, events, numbers, open, open_at};

/// The cursor behind an event, as a client keeps it.
fn cursor(reader: &StoreReader, number: u64) -> (String, u64) {
    let (id, number) = reader.starts().cursor(number);
    (id.to_owned(), number)
}

fn is_good(reader: &StoreReader, (id, number): &(String, u64)) -> bool {
    reader.starts().knows(id, *number) && *number <= reader.snapshot().head().unwrap()
}

fn put_back(copied: &Path, folder: &Path) {
    fs::remove_dir_all(folder).unwrap();
    copy(copied, folder);
}

/// 1000 events, a copy, 500 events, the copy again, 500 other events.
fn case_21(while_it_runs: bool, boot: &str) {
    let folder = tempdir().unwrap();
    let (path, copied) = (folder.path().join("store"), folder.path().join("copy"));
    let (mut writer, mut reader) = open(&path);
    writer.commit(&[events(1, 1000)], true).unwrap();
    let old = [0, 1, 999, 1000].map(|number| cursor(&reader, number));
    if while_it_runs {
        copy(&path, &copied);
    } else {
        writer.close().unwrap();
        drop(reader);
        copy(&path, &copied);
        (writer, reader) = open(&path);
    }
    writer.commit(&[events(1001, 500)], true).unwrap();
    let late = [1001, 1500].map(|number| cursor(&reader, number));
    drop((writer, reader));

    put_back(&copied, &path);
    let (mut writer, reader) = open_at(&path, boot);
    let check = |reader: &StoreReader| {
        for cursor in &old {
            assert!(
                is_good(reader, cursor),
                "{cursor:?} is from before the copy"
            );
        }
        for cursor in &late {
            assert!(
                !is_good(reader, cursor),
                "{cursor:?} is from after the copy"
            );
        }
    };
    check(&reader);
    writer.commit(&[events(2001, 500)], true).unwrap();
    check(&reader);
    // Whoever goes on from a cursor that is good hears all that came since.
    assert_eq!(numbers(&reader, 1000).len(), 500);
    let new = cursor(&reader, writer.head());
    assert!(is_good(&reader, &new) && !late.contains(&new));
    drop((writer, reader));
    let (_writer, reader) = open_at(&path, boot);
    check(&reader);
    assert!(is_good(&reader, &new));
}

#[test]
fn case_21_a_copy_from_a_stop_that_is_put_back_is_another_log_from_there_on() {
    case_21(false, super::BOOT);
    case_21(false, OTHER_BOOT);
}

#[test]
fn case_21_a_copy_of_a_running_store_that_is_put_back_is_another_log_from_there_on() {
    case_21(true, super::BOOT);
    case_21(true, OTHER_BOOT);
}

#[test]
fn case_21_a_moved_folder_is_no_copy() {
    let folder = tempdir().unwrap();
    let mut path = folder.path().join("store-0");
    let mut good = Vec::new();
    for life in 1..5 {
        let (mut writer, reader) = open(&path);
        let head = writer.commit(&[events(life * 10, 3)], false).unwrap();
        good.extend([head - 1, head].map(|number| cursor(&reader, number)));
        assert!(good.iter().all(|cursor| is_good(&reader, cursor)));
        drop((writer, reader));
        let moved = folder.path().join(format!("store-{life}"));
        fs::rename(&path, &moved).unwrap();
        path = moved;
    }
    let (_writer, reader) = open(&path);
    assert!(good.iter().all(|cursor| is_good(&reader, cursor)));
}

#[test]
fn the_head_is_the_last_event_also_behind_numbers_that_were_skipped() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    writer.commit(&[events(1, 3)], true).unwrap();
    let last = cursor(&reader, 3);
    drop((writer, reader));
    for boot in ["boot-2", "boot-3"] {
        let (writer, reader) = open_at(folder.path(), boot);
        assert_eq!((writer.head(), reader.snapshot().head().unwrap()), (3, 3));
        assert_eq!(cursor(&reader, writer.head()), last);
        assert!(is_good(&reader, &last));
        // A place between the events that are there is that of the one before it.
        assert_eq!(cursor(&reader, writer.head_after(1) - 1), last);
    }
}
