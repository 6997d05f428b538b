//! Format 8: descriptors, and what rows of format 7 become.

use satwatch::tracker::{
    Balance, Baseline, ChangeSet, Derivation, DescriptorId, DescriptorRow, Diff, Diffs, EventKind,
    Keychain, KeychainRow, Net, Subject, Transition, TxRow, WalletRow, WatchRow,
};
use tempfile::{TempDir, tempdir};

use super::format::{
    Entries, FIRST_FAMILIES, SECOND_FAMILIES, bytes, entries, folder_of, hex, meta, sixth_entries,
};
use super::{block_event, dump, open, outpoint, script, tx_row, txid, watch_row};

/// A folder of format 7, without anything of tokens.
pub(super) fn seventh_format() -> TempDir {
    let added = ["coinbases", "script_scans", "forgetting", "raw_txs", "auth"];
    let families = [&FIRST_FAMILIES[..], &SECOND_FAMILIES, &added].concat();
    folder_of(&families, &seventh_entries())
}

pub(super) fn seventh_entries() -> Entries {
    let mut held = sixth_entries();
    held.insert(meta("format"), bytes("01 07000000"));
    held
}

/// What becomes of the rows of format 7.
pub(super) fn in_eighth(held: Entries) -> Entries {
    let outputs = |script: &[u8]| {
        let rows = held.iter().filter(|((family, _), _)| family == "outputs");
        rows.filter(|(_, row)| row[1..33] == *script).count() as u64
    };
    let mut made = Entries::new();
    for ((family, key), value) in &held {
        let value = match &family[..] {
            "watches" => {
                // Behind the script it is listed and has no derivations; behind the count of what
                // is unspent is the count of all outputs.
                let (start, end) = (2 + usize::from(value[1]), value.len() - 16);
                let outputs = outputs(key).to_le_bytes();
                let listed = ("listed".to_owned(), key.clone());
                made.insert(listed, Vec::new());
                let parts = [&value[1..start], &[1, 0], &value[start..end]];
                [&[2][..], &parts.concat(), &outputs, &value[end..]].concat()
            }
            // No descriptor.
            "txs" => [&[3][..], &value[1..], &[0]].concat(),
            "meta" if key == b"counts" => [&[2][..], &value[1..9], &[0; 8], &value[9..]].concat(),
            _ => value.clone(),
        };
        made.insert((family.clone(), key.clone()), value);
    }
    made
}

/// What format 8 added.
const EIGHTH: &[(&str, &str, &str)] = &[
    (
        "descriptors",
        "d1*32",
        "01 02 01 07000000 09000000 1c000000 15000000 e4040000 00040000 \
         00 00000000 14000000 00000000 fc030000 fc030000 \
         01 14000000 02 0106 65000000 0300000000000000 \
         01 0100000000000000 0200000000000000 0300000000000000 fcffffffffffffff \
         0500000000000000 0600000000000000 0700000000000000",
    ),
    (
        "wallets",
        "d1*32",
        "01 03 777068 04 74696c6c 0168e5cf8b010000 01",
    ),
    ("derivations", "d1*32 00 00000007", "01 01*32"),
    ("owned_outputs", "d1*32 01*32 00000100", ""),
    ("joining", "d1*32 00 00000007", ""),
    ("leaving", "d2*32", ""),
    (
        "watches",
        "01*32",
        "02 03 001401 00 01 d1*32 00 07000000 06 74696c6c2031 0168e5cf8b010000 02 0106 65000000 01 \
         8813000000000000 30f8ffffffffffff 0200000000000000 0200000000000000 0300000000000000 \
         0268e5cf8b010000",
    ),
    (
        "txs",
        "01*32",
        "03 04 01 00 0368e5cf8b010000 0500000000000000 01 01*32 581b000000000000 0000000000000000 \
         01 d1*32 0100000000000000 0200000000000000",
    ),
    ("history", "01*32 fffffffffffffffa 01*32", ""),
    ("history", "d1*32 fffffffffffffffa 01*32", ""),
    (
        "events",
        "0000000000000001",
        "01 888a010000000000 01 65000000 65*32 06 ff 01 d1*32",
    ),
    (
        "events",
        "0000000000000002",
        "01 888a010000000000 01 65000000 65*32 06 ff 00 03 001401 01*32 01 d1*32 00 07000000",
    ),
    (
        "events",
        "0000000000000003",
        "01 888a010000000000 01 65000000 65*32 07 ff 01 d1*32 04 74696c6c 00",
    ),
];

fn descriptor() -> DescriptorId {
    DescriptorId([0xd1; 32])
}

fn place() -> Derivation {
    Derivation {
        descriptor: descriptor(),
        keychain: Keychain::External,
        index: 7,
    }
}

pub fn descriptor_row() -> DescriptorRow {
    let external = KeychainRow {
        last_used: Some(7),
        reserved: 9,
        window: 28,
        watched_to: 21,
        derived: 1252,
        first: 1024,
    };
    let internal = KeychainRow {
        window: 20,
        derived: 1020,
        first: 1020,
        ..KeychainRow::default()
    };
    DescriptorRow {
        keychains: vec![external, internal],
        is_ranged: true,
        gap_limit: 20,
        depths: vec![1, 6],
        from_height: 101,
        awaited: 3,
        held: Some(Balance {
            confirmed: 1,
            unconfirmed: 2,
        }),
        balance: Balance {
            confirmed: 3,
            unconfirmed: -4,
        },
        utxo_count: 5,
        tx_count: 6,
        updated: 7,
        left_out: Vec::new(),
    }
}

fn added<K: Eq + std::hash::Hash, R>(key: K, row: R) -> Diffs<K, R> {
    let new = Some(row);
    [(key, Diff { old: None, new })].into()
}

fn wallet() -> Transition {
    let changes = ChangeSet {
        descriptors: added(descriptor(), descriptor_row()),
        wallets: added(
            descriptor(),
            WalletRow {
                text: "wph".to_owned(),
                label: "till".to_owned(),
                added: 1_700_000_000_001,
                baseline: Baseline::IfMissing,
            },
        ),
        derivations: added(place(), script(1)),
        owned_outputs: added((descriptor(), outpoint(1, 256)), ()),
        joining: added(place(), ()),
        leaving: added(DescriptorId([0xd2; 32]), ()),
        watches: added(
            script(1),
            WatchRow {
                listed: false,
                derivations: vec![place()],
                ..watch_row(1)
            },
        ),
        txs: added(
            txid(1),
            TxRow {
                nets: vec![Net {
                    descriptor: descriptor(),
                    received: 1,
                    sent: 2,
                }],
                ..tx_row(satwatch::tracker::Status::Evicted, 5, &[1])
            },
        ),
        ..ChangeSet::default()
    };
    let subjects = [
        Subject::Descriptor(descriptor()),
        Subject::Script {
            spk: watch_row(1).spk,
            script: script(1),
            derivations: vec![place()],
        },
    ];
    let labelled = EventKind::LabelChange {
        subject: subjects[0].clone(),
        old: "till".to_owned(),
        new: String::new(),
    };
    let unwatched = subjects.map(|subject| EventKind::Unwatched { subject });
    let event = |kind| satwatch::tracker::Event {
        kind,
        ..block_event(101)
    };
    Transition {
        changes,
        events: unwatched.into_iter().chain([labelled]).map(event).collect(),
        ..Transition::default()
    }
}

#[test]
fn what_is_written_of_descriptors_has_the_bytes_of_the_schema() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    writer.commit(&[wallet()], true).unwrap();
    let counts = reader.snapshot().counts().unwrap();
    assert_eq!((counts.addresses, counts.derived), (0, 1));
    assert_eq!(reader.snapshot().watches(None, 9).unwrap(), []);
    let row = reader.snapshot().descriptor(&descriptor()).unwrap();
    assert_eq!(row, Some(descriptor_row()));
    assert_eq!(reader.read_events(0, 9).unwrap().len(), 3);
    let found = dump(folder.path());
    for (entry, value) in entries(EIGHTH) {
        assert_eq!(
            found.get(&entry).map(|bytes| hex(bytes)),
            Some(hex(&value)),
            "{} {}",
            entry.0,
            hex(&entry.1)
        );
    }
    let back = Transition {
        changes: wallet().changes.inverse(),
        ..Transition::default()
    };
    writer.commit(&[back], true).unwrap();
    let left = dump(folder.path());
    let is_left = |entry: &(String, Vec<u8>)| entry.0 != "events" && left.contains_key(entry);
    assert!(!entries(EIGHTH).keys().any(is_left));
}

#[test]
fn a_process_that_died_while_it_counted_outputs_is_gone_on_with() {
    let folder = seventh_format();
    super::tamper(folder.path(), |raw| {
        let options = rocksdb::Options::default();
        raw.create_cf("listed", &options).unwrap();
        // These were brought up already.
        for ((family, key), value) in in_eighth(seventh_entries()) {
            let is_early = matches!(&family[..], "watches" | "listed" | "txs") && key[0] <= 2;
            if is_early {
                let family = raw.cf_handle(&family).unwrap();
                raw.put_cf(family, key, value).unwrap();
            }
        }
        let meta = raw.cf_handle("meta").unwrap();
        raw.put_cf(meta, "format", bytes("01 08000000")).unwrap();
        raw.put_cf(meta, "upgrading", bytes("01 07000000")).unwrap();
    });
    drop(open(folder.path()));
    let found = dump(folder.path());
    for (entry, value) in in_eighth(seventh_entries()) {
        if matches!(&entry.0[..], "watches" | "listed" | "txs") || entry.1 == b"counts" {
            assert_eq!(found.get(&entry), Some(&value), "{}", hex(&entry.1));
        }
    }
}
