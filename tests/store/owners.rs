//! Which token put what there.

use satwatch::store::{AuthEdit, AuthMark, ConsumerEdit, Owned, OwnerEdits};
use satwatch::tracker::{
    ChangeSet, DescriptorId, DescriptorRow, Diff, KeychainRow, ScriptHash, Transition,
};
use tempfile::tempdir;

use super::format::bytes;
use super::format_8::descriptor_row;
use super::{dump, open, tamper};

const ONE: [u8; 8] = [1; 8];
const TWO: [u8; 8] = [2; 8];

fn script(number: u8) -> ScriptHash {
    ScriptHash([number; 32])
}

fn owned(addresses: u64, consumers: u64) -> Owned {
    Owned {
        addresses,
        consumers,
    }
}

#[test]
fn rows_of_owners_have_these_bytes_and_counts_follow_them() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let mut edits = OwnerEdits::default();
    for number in 3..6 {
        edits.address(&script(number), Some(ONE));
    }
    edits.address(&script(6), Some(TWO));
    // The last word counts.
    edits.address(&script(5), None);
    edits.address(&script(4), Some(TWO));
    writer.commit_owned(&[], &edits, true).unwrap();
    writer
        .edit_consumer("shop", &[ConsumerEdit::Owner(TWO)], true)
        .unwrap();
    assert_eq!(reader.owned(&ONE).unwrap(), owned(1, 0));
    assert_eq!(reader.owned(&TWO).unwrap(), owned(2, 1));
    assert_eq!(reader.owned_most().unwrap(), owned(2, 1));
    drop((writer, reader));
    let rows = dump(folder.path()).into_iter();
    let rows: Vec<_> = rows.filter(|((family, _), _)| family == "auth").collect();
    let row = |key: &str, value: &str| (("auth".to_owned(), bytes(key)), bytes(value));
    let expected = [
        row("76 01*8", "01 0100000000000000 0000000000000000"),
        row("76 02*8", "01 0200000000000000 0100000000000000"),
        row("77 03*32", "01 01*8"),
        row("77 04*32", "01 02*8"),
        row("77 06*32", "01 02*8"),
        row("78 73686f70", "01 02*8"),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn what_changes_hands_is_counted_once_and_what_goes_counts_for_nobody() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let give = |number, owner| {
        let mut edits = OwnerEdits::default();
        edits.address(&script(number), owner);
        edits
    };
    for owner in [Some(ONE), Some(ONE), Some(TWO), None, None] {
        writer.commit_owned(&[], &give(3, owner), false).unwrap();
        let of = |token| u64::from(owner == Some(token));
        assert_eq!(reader.owned(&ONE).unwrap(), owned(of(ONE), 0));
        assert_eq!(reader.owned(&TWO).unwrap(), owned(of(TWO), 0));
    }
    for (edit, count) in [
        (ConsumerEdit::Owner(ONE), 1),
        (ConsumerEdit::Forget, 0),
        (ConsumerEdit::Forget, 0),
    ] {
        writer.edit_consumer("shop", &[edit], false).unwrap();
        assert_eq!(reader.owned(&ONE).unwrap(), owned(0, count));
    }
    let anew = [ConsumerEdit::Forget, ConsumerEdit::Owner(TWO)];
    writer.edit_consumer("shop", &anew, false).unwrap();
    assert_eq!(reader.owned(&TWO).unwrap(), owned(0, 1));
    // They are beside what is remembered of credentials, and not in its way.
    let mark = AuthMark {
        on: true,
        serial: 7,
        first_taken: false,
        origin: None,
    };
    writer.edit_auth(&[AuthEdit::Mark(mark)], false).unwrap();
    assert_eq!(reader.remembered_auth().unwrap().mark, mark);
    assert_eq!(reader.owned_most().unwrap(), owned(0, 1));
}

/// With so many scripts.
fn of_size(derived: u32) -> DescriptorRow {
    let keychain = KeychainRow {
        derived,
        ..KeychainRow::default()
    };
    DescriptorRow {
        keychains: vec![keychain],
        is_ranged: false,
        ..descriptor_row()
    }
}

#[test]
fn scripts_of_descriptors_count_for_who_added_them_and_are_counted_anew_by_each_start() {
    let folder = tempdir().unwrap();
    let mut known = std::collections::BTreeMap::new();
    // (descriptor, of whom, how many scripts), committed together.
    let batches: [&[_]; 5] = [
        &[(1, Some(ONE), Some(1000)), (2, Some(TWO), Some(7))],
        &[(3, Some(ONE), Some(20)), (1, Some(ONE), Some(1200))],
        &[
            (1, None, None),
            (1, Some(TWO), Some(50)),
            (4, None, Some(9)),
        ],
        &[(2, None, None), (3, Some(ONE), Some(30)), (3, None, None)],
        &[(3, Some(ONE), Some(40)), (1, Some(TWO), Some(60))],
    ];
    for (number, batch) in (0..).zip(batches) {
        let (mut writer, reader) = open(folder.path());
        let (mut edits, mut transitions) = (OwnerEdits::default(), Vec::new());
        for (id, owner, size) in batch {
            let (id, new) = (DescriptorId([*id; 32]), size.map(of_size));
            let scripts = |row: &Option<DescriptorRow>| row.as_ref().map_or(0, |row| row.scripts());
            let old = known.insert(id, (*owner, new.clone()));
            let old = old.and_then(|(_, row)| row);
            edits.scripts(&id, scripts(&old), scripts(&new));
            if old.is_none() != new.is_none() {
                edits.descriptor(&id, *owner);
            }
            let descriptors = [(id, Diff { old, new })].into();
            transitions.push(Transition {
                changes: ChangeSet {
                    descriptors,
                    ..ChangeSet::default()
                },
                ..Transition::default()
            });
        }
        writer.commit_owned(&transitions, &edits, false).unwrap();
        let of = |token| {
            let rows = known.values().filter(|(owner, _)| *owner == Some(token));
            let rows = rows.filter_map(|(_, row)| row.as_ref());
            rows.map(DescriptorRow::scripts).sum::<u64>()
        };
        let counts = [ONE, TWO].map(of);
        assert_eq!(
            [ONE, TWO].map(|it| reader.owned(&it).unwrap().addresses),
            counts
        );
        let most = counts.into_iter().max().unwrap();
        assert_eq!(reader.owned_most().unwrap(), owned(most, 0));
        drop((writer, reader));
        // An earlier release, or none of them, wrote meanwhile.
        tamper(folder.path(), |raw| {
            let auth = raw.cf_handle("auth").unwrap();
            match number % 2 {
                0 => raw.delete_cf(auth, [&b"z"[..], &ONE].concat()),
                _ => raw.put_cf(
                    auth,
                    [&b"z"[..], &ONE].concat(),
                    bytes("01 0900000000000000"),
                ),
            }
            .unwrap();
        });
        let (_writer, reader) = open(folder.path());
        assert_eq!(
            [ONE, TWO].map(|it| reader.owned(&it).unwrap().addresses),
            counts
        );
    }
}
