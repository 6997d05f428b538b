//! Folders of earlier formats while they are brought up: what is refused changes nothing, and what
//! is ended, killed or loses power in the middle of it goes on.

use std::path::Path;

use satwatch::store::{self, StoreError, open_at_boot};
use tempfile::{TempDir, tempdir};

use super::crash::{copy, newest_write_ahead_log};
use super::format::{
    Entries, VECTORS, bytes, fifth_format, first_format, fourth_format, meta, second_format,
    sixth_format, third_format,
};
use super::format_8::seventh_format;
use super::{BOOT, OTHER_BOOT, chain, dump, open_at, tamper};

/// Those whose transactions are in the rows.
fn earlier_formats() -> [TempDir; 5] {
    [
        first_format(),
        second_format(),
        third_format(),
        fourth_format(),
        fifth_format(),
    ]
}

/// What an earlier release looks at first: the families, and every row of those.
fn seen(folder: &Path) -> (Vec<String>, Entries) {
    let mut families =
        rocksdb::DB::list_cf(&rocksdb::Options::default(), folder.join("db")).unwrap();
    families.sort();
    (families, dump(folder))
}

#[test]
fn a_folder_of_an_earlier_format_is_not_changed_by_a_start_that_is_refused() {
    for folder in earlier_formats()
        .into_iter()
        .chain([sixth_format(), seventh_format()])
    {
        let before = seen(folder.path());
        let other = store::ChainInfo {
            network: bitcoin::Network::Signet,
            ..chain()
        };
        let told = open_at_boot(folder.path(), Some(other), 0, BOOT).err();
        assert!(
            matches!(told, Some(StoreError::WrongChain { .. })),
            "{told:?}"
        );
        assert_eq!(seen(folder.path()), before);
    }
}

#[test]
fn a_folder_of_an_earlier_format_with_a_row_that_cannot_be_read_stays_one_of_it() {
    let row = bytes(VECTORS.iter().rfind(|it| it.0 == "txs").unwrap().2);
    // Cut, one byte longer, of no version, and empty.
    let harmed = [
        row[..row.len() - 1].to_vec(),
        [&row[..], &[0]].concat(),
        [&[9], &row[1..]].concat(),
        Vec::new(),
    ];
    for (number, folder) in (1..).zip(earlier_formats()) {
        for harm in &harmed {
            tamper(folder.path(), |raw| {
                let txs = raw.cf_handle("txs").unwrap();
                raw.put_cf(txs, [7; 32], harm).unwrap();
            });
            let before = seen(folder.path());
            let told = open_at_boot(folder.path(), Some(chain()), 0, BOOT)
                .err()
                .unwrap()
                .to_string();
            let still =
                format!("still has format {number}, and the release that wrote it opens it");
            assert!(told.contains("damaged at txs 0707"), "{told}");
            assert!(told.contains(&still), "{told}");
            assert!(told.contains("Restore a copy of the folder"), "{told}");
            assert_eq!(seen(folder.path()), before);
        }
    }
}

/// A folder of format 5 that is brought up in several batches.
fn large_fifth_format() -> TempDir {
    let folder = fifth_format();
    let row = bytes("01 04 0368e5cf8b010000 0100000000000000 00 02000000 01");
    let value = |n: u8| {
        // One input that spends an output of `n`, one output with a script of 400 000 bytes.
        let input = [&[n; 32][..], &[1, 0, 0, 0, 0], &[0xfd; 4]].concat();
        let script = [&[0xfe][..], &400_000_u32.to_le_bytes(), &[n; 400_000]].concat();
        [
            &row[..],
            &input,
            &[1],
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &script,
            &[0; 4],
        ]
        .concat()
    };
    tamper(folder.path(), |raw| {
        let txs = raw.cf_handle("txs").unwrap();
        for n in 20..28 {
            raw.put_cf(txs, [n; 32], value(n)).unwrap();
        }
    });
    folder
}

/// All but what each start writes anew.
fn kept(folder: &Path) -> Entries {
    let mut found = dump(folder);
    for name in ["starts", "reserved", "next_seq", "boot", "clean"] {
        found.remove(&meta(name));
    }
    found
}

/// The state of a folder of format 5 at each row at which it is asked whether to stop, in a copy.
fn moments(folder: &Path, then: &mut dyn FnMut(usize, &Path)) {
    let asked = std::cell::Cell::new(0);
    let then = std::cell::RefCell::new(then);
    let stopped = || {
        let copied = tempdir().unwrap();
        copy(folder, copied.path());
        then.borrow_mut()(asked.get(), copied.path());
        asked.set(asked.get() + 1);
        false
    };
    drop(store::open(folder, Some(chain()), 0, &stopped).unwrap());
    assert_eq!(
        asked.get(),
        2 * 21,
        "each row once to check it, once to bring it up"
    );
}

#[test]
fn wherever_it_is_killed_while_it_is_brought_up_it_goes_on_and_no_earlier_release_is_misled() {
    let folder = large_fifth_format();
    let undisturbed = tempdir().unwrap();
    copy(folder.path(), undisturbed.path());
    drop(store::open(undisturbed.path(), Some(chain()), 0, &|| false).unwrap());
    let (expected, before) = (kept(undisturbed.path()), seen(folder.path()));
    let (mut as_it_was, mut begun, mut parted) = (0, 0, std::collections::BTreeSet::new());
    moments(folder.path(), &mut |_, copied| {
        // Power that fails takes the end of the log with it.
        let log = newest_write_ahead_log(copied);
        let whole = std::fs::read(&log).unwrap();
        let lost = tempdir().unwrap();
        copy(copied, lost.path());
        std::fs::write(
            newest_write_ahead_log(lost.path()),
            &whole[..whole.len() - whole.len() / 3],
        )
        .unwrap();
        for (path, power_failed) in [(copied, false), (lost.path(), true)] {
            if power_failed {
                // What is cut may not be seen before it is opened with that in mind.
                let (writer, reader) = open_at(path, OTHER_BOOT);
                drop((writer, reader));
            } else {
                let now = seen(path);
                let format = &now.1[&meta("format")];
                if *format == bytes("01 05000000") {
                    assert!(now == before);
                    as_it_was += 1;
                } else {
                    let looked = store::inspect(path, Some(chain())).unwrap().unwrap();
                    assert_eq!((&format[1..], looked.format), (&[8, 0, 0, 0][..], 5));
                    begun += 1;
                    parted.insert(now.1.keys().filter(|key| key.0 == "raw_txs").count());
                }
                drop(store::open(path, Some(chain()), 0, &|| false).unwrap());
            }
            assert!(kept(path) == expected);
        }
    });
    assert_eq!((as_it_was, begun), (21, 21));
    assert!(parted.len() >= 3, "several batches: {parted:?}");
}

#[test]
fn a_start_that_is_ended_while_it_brings_a_store_up_ends_at_once_and_the_next_one_goes_on() {
    let folder = large_fifth_format();
    let undisturbed = tempdir().unwrap();
    copy(folder.path(), undisturbed.path());
    drop(store::open(undisturbed.path(), Some(chain()), 0, &|| false).unwrap());
    let before = seen(folder.path());
    for rows in [0_usize, 20, 30] {
        let left = std::cell::Cell::new(rows);
        let stopped = || left.replace(left.get().saturating_sub(1)) == 0;
        let told = store::open(folder.path(), Some(chain()), 0, &stopped).err();
        assert!(matches!(told, Some(StoreError::Stopped)), "{told:?}");
        // Rows are checked before the first is changed.
        assert_eq!(seen(folder.path()) == before, rows < 21);
    }
    drop(store::open(folder.path(), Some(chain()), 0, &|| false).unwrap());
    assert!(kept(folder.path()) == kept(undisturbed.path()));
}
