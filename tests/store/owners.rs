//! Which token put what there.

use satwatch::store::{AuthEdit, AuthMark, ConsumerEdit, Owned, OwnerEdits};
use satwatch::tracker::ScriptHash;
use tempfile::tempdir;

use super::format::bytes;
use super::{dump, open};

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
