//! Ends without a clean stop: of the process, of the machine, at any byte.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use satwatch::indexer;
use satwatch::store::StoreError;
use satwatch::tracker::{Input, SubjectId};
use tempfile::tempdir;

use super::{
    Change, OTHER_BOOT, block_id, changes, events, numbers, open, open_at, tamper, tx_row, txid,
    watch_row,
};

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_and_skips_no_number() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let watch = Change::Watch {
        script: super::script(1),
        old: None,
        new: Some(watch_row(1)),
    };
    writer
        .commit(&[changes(vec![watch]), events(1, 2)], false)
        .unwrap();
    drop((writer, reader));
    let (mut writer, reader) = open(folder.path());
    assert_eq!(
        reader.snapshot().watch(&super::script(1)).unwrap(),
        Some(watch_row(1))
    );
    assert_eq!(reader.snapshot().counts().unwrap().addresses, 1);
    assert_eq!(writer.commit(&[events(3, 1)], false).unwrap(), 3);
    assert_eq!(numbers(&reader, 0), [1, 2, 3]);
}

#[test]
fn a_clean_stop_before_a_reboot_skips_no_number() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    writer.commit(&[events(1, 2)], false).unwrap();
    writer.close().unwrap();
    drop(reader);
    let next = |boot| open_at(folder.path(), boot).0.head_after(1);
    assert_eq!(next(OTHER_BOOT), 3);
    // The mark of the clean stop holds for one start only.
    assert!(next("boot-3") > 3);
}

#[test]
fn numbers_of_events_lost_with_the_power_are_not_given_again() {
    let (folder, after_power_loss) = (tempdir().unwrap(), tempdir().unwrap());
    let (mut writer, reader) = open(folder.path());
    writer.commit(&[events(1, 2)], true).unwrap();
    // What is on the disk for certain; the two events after it reach clients, but not the disk.
    copy(folder.path(), after_power_loss.path());
    let lost = writer.commit(&[events(3, 2)], false).unwrap();
    let given = reader.starts().clone();
    drop((writer, reader));

    let (mut writer, reader) = open_at(after_power_loss.path(), OTHER_BOOT);
    assert_eq!(numbers(&reader, 0), [1, 2]);
    assert_eq!((writer.head(), reader.snapshot().head().unwrap()), (2, 2));
    let next = writer.commit(&[events(5, 1)], false).unwrap();
    assert!(next > lost, "{next} after {lost} was given");
    assert_eq!(numbers(&reader, 2), [next]);
    assert_eq!(reader.snapshot().head().unwrap(), next);
    let starts = reader.starts();
    for (number, is_kept) in [(1, true), (2, true), (3, false), (lost, false)] {
        let cursor = given.cursor(number);
        assert_eq!(starts.knows(cursor.0, cursor.1), is_kept, "{cursor:?}");
    }
}

#[test]
fn half_a_batch_at_the_end_of_the_write_ahead_log_counts_as_never_written() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let tip = |old, new| changes(vec![Change::Tip { old, new }]);
    writer
        .commit(&[tip(None, Some(block_id(7))), events(1, 1)], true)
        .unwrap();
    writer
        .commit(
            &[tip(Some(block_id(7)), Some(block_id(8))), events(2, 5)],
            false,
        )
        .unwrap();
    drop((writer, reader));
    let log = newest_write_ahead_log(folder.path());
    let whole = fs::read(&log).unwrap();
    for torn in [1, 20, 200] {
        let copied = tempdir().unwrap();
        copy(folder.path(), copied.path());
        fs::write(
            newest_write_ahead_log(copied.path()),
            &whole[..whole.len() - torn],
        )
        .unwrap();
        let (writer, reader) = open_at(copied.path(), OTHER_BOOT);
        assert_eq!(
            (numbers(&reader, 0), reader.snapshot().tip().unwrap()),
            (vec![1], Some(block_id(7))),
            "{torn} bytes torn off"
        );
        assert_eq!(writer.head(), 1);
        assert!(writer.head_after(1) > 6);
    }
}

pub(super) fn newest_write_ahead_log(path: &Path) -> PathBuf {
    let files = fs::read_dir(path.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == "log"))
        .max()
        .expect("there is a write-ahead log")
}

const CHILD: &str = "SATWATCH_TEST_STORE_CHILD";

/// Not a test by itself: the process that
/// [`a_process_killed_while_it_writes_keeps_every_finished_commit`] kills.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let (mut writer, reader) = open(Path::new(&path));
    for height in 0.. {
        let old = reader.snapshot().tip().unwrap();
        let tip = changes(vec![Change::Tip {
            old,
            new: Some(block_id(height)),
        }]);
        let head = writer
            .commit(&[tip, events(height, 3)], height % 10 == 0)
            .unwrap();
        println!("committed {head}");
    }
}

#[test]
fn a_process_killed_while_it_writes_keeps_every_finished_commit() {
    let folder = tempdir().unwrap();
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crash::child_that_writes_until_it_is_killed",
                "--nocapture",
            ])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let heads = lines
            .by_ref()
            .map(|line| line.unwrap())
            .filter_map(|line| Some(line.split_once("committed ")?.1.parse::<u64>().unwrap()));
        let told = heads.take(200 * round).last().expect("the child commits");
        child.kill().unwrap();
        child.wait().unwrap();

        let (writer, reader) = open(folder.path());
        let head = writer.head();
        assert!(
            head >= told && head.is_multiple_of(3),
            "head {head}, {told} was told: commits are whole"
        );
        assert_eq!(numbers(&reader, 0), (1..=head).collect::<Vec<_>>());
        let (_, last) = reader.read_events(head - 1, 1).unwrap().remove(0);
        let tip = reader
            .snapshot()
            .tip()
            .unwrap()
            .expect("a tip was committed");
        assert_eq!(
            last.tip.unwrap().height,
            tip.height + 2,
            "tip and events are of the same commit"
        );
    }
}

#[test]
fn a_damaged_row_is_named() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let row = tx_row(satwatch::tracker::Status::Mempool, 5, &[1]);
    writer
        .commit(
            &[changes(vec![Change::Tx {
                txid: txid(1),
                old: None,
                new: Some(row),
            }])],
            true,
        )
        .unwrap();
    drop((writer, reader));
    tamper(folder.path(), |raw| {
        raw.put_cf(raw.cf_handle("txs").unwrap(), [1; 32], [3, 9])
            .unwrap()
    });
    let (_writer, reader) = open(folder.path());
    let told = reader.snapshot().tx(&txid(1)).unwrap_err();
    assert!(
        matches!(&told, StoreError::Corrupt { family: "txs", key, .. } if *key == "01".repeat(32)),
        "{told}"
    );
    assert!(told.to_string().contains("status 9 is unknown"), "{told}");
}

#[test]
fn a_lookup_row_without_its_row_is_named() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let row = tx_row(satwatch::tracker::Status::Mempool, 5, &[1]);
    writer
        .commit(
            &[changes(vec![Change::Tx {
                txid: txid(1),
                old: None,
                new: Some(row),
            }])],
            true,
        )
        .unwrap();
    drop((writer, reader));
    tamper(folder.path(), |raw| {
        raw.delete_cf(raw.cf_handle("txs").unwrap(), [1; 32])
            .unwrap()
    });
    let (_writer, reader) = open(folder.path());
    let told = reader
        .snapshot()
        .history(&SubjectId::Script(super::script(1)), None, 10)
        .unwrap_err();
    assert!(
        matches!(
            told,
            StoreError::Corrupt {
                family: "history",
                ..
            }
        ),
        "{told}"
    );
}

#[test]
fn a_row_without_its_transaction_is_told_with_folder_and_remedy() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let (script, watch) = (super::script(1), super::watch_row(1));
    let row = tx_row(satwatch::tracker::Status::Mempool, 5, &[1]);
    let rows = changes(vec![
        Change::Tx {
            txid: txid(1),
            old: None,
            new: Some(row),
        },
        Change::Watch {
            script,
            old: None,
            new: Some(watch.clone()),
        },
    ]);
    writer.commit(&[rows], true).unwrap();
    drop((writer, reader));
    tamper(folder.path(), |raw| {
        raw.delete_cf(raw.cf_handle("raw_txs").unwrap(), [1; 32])
            .unwrap()
    });
    let (writer, reader) = open(folder.path());
    let mut tracker = satwatch::tracker::Tracker::new([7; 16]);
    tracker.load_watch(&watch);
    let (scripts, now) = (vec![script], 1);
    let unwatch = satwatch::tracker::Input::Unwatch { scripts, now };
    for told in [
        tracker.apply(&writer, unwatch).unwrap_err().to_string(),
        reader
            .unconfirmed_txs()
            .find_map(Result::err)
            .unwrap()
            .to_string(),
    ] {
        assert!(
            told.contains(&format!("raw_txs {}", "01".repeat(32)))
                && told.contains("Restore a copy of the folder"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_damaged_row_ends_the_indexer() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let row = |height| satwatch::tracker::BlockRow {
        hash: block_id(height).hash,
        time: 1,
        touched: vec![],
        found: vec![],
    };
    let block = |height| Change::Block {
        height,
        old: None,
        new: Some(row(height)),
    };
    writer
        .commit(
            &[changes(vec![
                block(1),
                block(2),
                Change::Tip {
                    old: None,
                    new: Some(block_id(2)),
                },
            ])],
            true,
        )
        .unwrap();
    drop((writer, reader));
    tamper(folder.path(), |raw| {
        raw.put_cf(raw.cf_handle("blocks").unwrap(), 1_u32.to_be_bytes(), [2])
            .unwrap()
    });

    let (writer, reader) = open(folder.path());
    let (asks, _asked) = tokio::sync::mpsc::channel(1);
    let tracker = indexer::load(&reader, [7; 16]).unwrap();
    let (handle, thread) = indexer::spawn(tracker, writer, 0, asks);
    let refused = handle
        .apply(Input::Disconnect {
            to: block_id(1),
            now: 0,
        })
        .await;
    assert_eq!(
        refused,
        Err(indexer::InputRefused::Stopped(indexer::IndexerStopped))
    );
    handle.stopped().await;
    let told = thread.join().unwrap().unwrap_err().to_string();
    assert!(
        told.contains("blocks 00000001") && told.contains("version 2"),
        "{told}"
    );
}
