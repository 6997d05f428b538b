//! What is refused at the start, and how it is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network};
use satwatch::store::{ChainInfo, FORMAT, StoreError, open_at_boot};
use tempfile::tempdir;

use super::{BOOT, chain, open, tamper};

fn error(path: &std::path::Path, chain: Option<ChainInfo>) -> StoreError {
    match open_at_boot(path, chain, 0, BOOT) {
        Err(error) => error,
        Ok(_) => panic!("the store opened"),
    }
}

#[test]
fn the_database_is_for_its_user_only() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("deep/store");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    drop(open(&store));
    assert_eq!((mode(&store), mode(&store.join("db"))), (0o700, 0o700));
    // What an earlier build made.
    for (path, open_to_all) in [(store.clone(), 0o755), (store.join("db"), 0o750)] {
        fs::set_permissions(path, fs::Permissions::from_mode(open_to_all)).unwrap();
    }
    drop(open(&store));
    assert_eq!(
        (mode(&store), mode(&store.join("db"))),
        (0o755, 0o700),
        "the folder around it may have other uses"
    );
}

#[test]
fn a_second_daemon_is_told_who_uses_the_store() {
    let folder = tempdir().unwrap();
    let (writer, reader) = open(folder.path());
    let told = error(folder.path(), Some(chain()));
    assert!(
        matches!(&told, StoreError::InUse { process, .. } if *process == Some(std::process::id().to_string())),
        "{told}"
    );
    assert!(
        told.to_string().contains("another satwatch (process "),
        "{told}"
    );
    drop(writer);
    assert!(
        matches!(
            error(folder.path(), Some(chain())),
            StoreError::InUse { .. }
        ),
        "a reader still has it open"
    );
    drop(reader);
    open(folder.path());
}

#[test]
fn a_diagnosis_that_looks_at_the_store_does_not_refuse_a_daemon() {
    let folder = tempdir().unwrap();
    drop(open(folder.path()));
    let lock = fs::File::open(folder.path().join("lock")).unwrap();
    lock.lock_shared().unwrap();
    let looks = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        drop(lock);
    });
    open(folder.path());
    looks.join().unwrap();
}

#[test]
fn a_store_keeps_to_its_chain() {
    let folder = tempdir().unwrap();
    drop(open(folder.path()));
    let other_network = ChainInfo {
        network: Network::Signet,
        ..chain()
    };
    let other_genesis = ChainInfo {
        genesis: BlockHash::from_byte_array([1; 32]),
        ..chain()
    };
    for other in [other_network, other_genesis] {
        let told = error(folder.path(), Some(other));
        assert!(
            matches!(&told, StoreError::WrongChain { found, expected, .. } if **found == chain() && **expected == other),
            "{told}"
        );
    }
    let (_, reader) =
        open_at_boot(folder.path(), None, 0, BOOT).expect("without a node its own chain counts");
    assert_eq!(reader.chain(), chain());
}

#[test]
fn a_new_store_needs_to_know_the_chain_and_leaves_nothing_behind_without() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("data");
    assert!(matches!(
        error(&path, None),
        StoreError::UnknownChain { .. }
    ));
    assert!(!path.exists());
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let folder = tempdir().unwrap();
    drop(open(folder.path()));
    let newer = (FORMAT + 1).to_le_bytes();
    tamper(folder.path(), |raw| {
        raw.put_cf(
            raw.cf_handle("meta").unwrap(),
            "format",
            [&[1], &newer[..]].concat(),
        )
        .unwrap()
    });
    let told = error(folder.path(), Some(chain()));
    assert!(
        matches!(told, StoreError::Format { found, expected: FORMAT, .. } if found == FORMAT + 1),
        "{told}"
    );

    let what_to_do = "run the release that wrote it, or set store.path to another folder";
    assert!(told.to_string().contains(what_to_do), "{told}");

    // The same with a family that this release does not know.
    tamper(folder.path(), |raw| {
        raw.create_cf("parcels", &rocksdb::Options::default())
            .unwrap()
    });
    let told = error(folder.path(), Some(chain()));
    assert!(
        matches!(told, StoreError::Format { found, expected: FORMAT, .. } if found == FORMAT + 1),
        "{told}"
    );
}

#[test]
fn each_start_has_an_id_of_its_own_and_the_first_one_stays() {
    let (one, two) = (tempdir().unwrap(), tempdir().unwrap());
    let ids = |path: &std::path::Path| {
        let (_, reader) = open(path);
        let ids = [0, 1].map(|number| reader.starts().cursor(number).0.to_owned());
        for id in &ids {
            assert!(
                id.len() == 16 && id.bytes().all(|digit| digit.is_ascii_hexdigit()),
                "{id}"
            );
        }
        ids
    };
    let [first, second, third] = [(); 3].map(|()| ids(one.path()));
    assert_eq!(first[0], first[1]);
    assert_eq!([&first[0], &first[0]], [&second[0], &third[0]]);
    assert_ne!(first[1], second[1]);
    assert_ne!(second[1], third[1]);
    assert_ne!(first[0], ids(two.path())[0]);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("data");
    std::fs::write(&file, "a file, not a folder").unwrap();
    let told = error(&file, Some(chain()));
    assert!(matches!(told, StoreError::Io { .. }), "{told}");
    assert!(
        told.to_string().contains(&*file.to_string_lossy()),
        "{told}"
    );
}

#[test]
fn monitoring_is_remembered_once_somebody_decided() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    assert_eq!(reader.monitoring().unwrap(), None);
    writer.remember_monitoring(false).unwrap();
    drop((writer, reader));
    assert_eq!(open(folder.path()).1.monitoring().unwrap(), Some(false));
}
