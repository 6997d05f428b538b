//! What the store remembers of credentials.

use satwatch::store::{AuthEdit, AuthMark, RememberedAuth, SessionRow, remembered_auth};
use tempfile::tempdir;

use super::format::bytes;
use super::{dump, open};

const MARK: AuthMark = AuthMark {
    on: true,
    serial: 0x0102,
    first_taken: false,
    origin: Some([6; 8]),
};

const SESSION: SessionRow = SessionRow {
    token: [7; 8],
    page: [9; 32],
    began: 5,
};

#[test]
fn rows_of_credentials_have_the_bytes_of_the_seventh_format() {
    let folder = tempdir().unwrap();
    let (mut writer, _) = open(folder.path());
    let edits = [
        AuthEdit::Mark(MARK),
        AuthEdit::Used([7; 8], 5),
        AuthEdit::Used([8; 8], 6),
        AuthEdit::Gone([8; 8]),
        AuthEdit::Session([1; 32], SESSION),
        AuthEdit::Session([2; 32], SESSION),
        AuthEdit::SessionGone([2; 32]),
    ];
    writer.edit_auth(&edits, true).unwrap();
    drop(writer);
    let rows = dump(folder.path()).into_iter();
    let rows: Vec<_> = rows.filter(|((family, _), _)| family == "auth").collect();
    let row = |key: &str, value: &str| (("auth".to_owned(), bytes(key)), bytes(value));
    let expected = [
        row("6d", "01 01 0201000000000000 00 01 06*8"),
        row("73 01*32", "01 07*8 09*32 0500000000000000"),
        row("75 07*8", "01 0500000000000000"),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn what_is_remembered_is_read_beside_a_running_daemon() {
    let folder = tempdir().unwrap();
    assert_eq!(remembered_auth(folder.path()).unwrap(), None);
    let (mut writer, reader) = open(folder.path());
    assert_eq!(reader.remembered_auth().unwrap(), RememberedAuth::default());
    assert_eq!(
        remembered_auth(folder.path()).unwrap(),
        Some(RememberedAuth::default())
    );
    let edits = [
        AuthEdit::Mark(MARK),
        AuthEdit::Used([7; 8], 5),
        AuthEdit::Session([1; 32], SESSION),
    ];
    writer.edit_auth(&edits, false).unwrap();
    let expected = RememberedAuth {
        mark: MARK,
        used: vec![([7; 8], 5)],
        sessions: vec![([1; 32], SESSION)],
    };
    assert_eq!(
        remembered_auth(folder.path()).unwrap(),
        Some(expected.clone())
    );
    assert_eq!(reader.remembered_auth().unwrap(), expected);
}

#[test]
fn a_mark_from_before_files_had_an_origin_is_read() {
    let folder = tempdir().unwrap();
    drop(open(folder.path()));
    super::tamper(folder.path(), |raw| {
        let family = raw.cf_handle("auth").unwrap();
        let row = bytes("01 01 0201000000000000 00");
        raw.put_cf(family, b"m", row).unwrap();
    });
    let (_writer, reader) = open(folder.path());
    let before = AuthMark {
        origin: None,
        ..MARK
    };
    assert_eq!(reader.remembered_auth().unwrap().mark, before);
}

#[test]
fn a_row_of_credentials_that_is_none_is_damage() {
    let folder = tempdir().unwrap();
    drop(open(folder.path()));
    super::tamper(folder.path(), |raw| {
        let family = raw.cf_handle("auth").unwrap();
        raw.put_cf(family, b"m", [1, 2]).unwrap();
    });
    let (_writer, reader) = open(folder.path());
    let told = reader.remembered_auth().unwrap_err().to_string();
    assert!(told.contains("damaged at auth 6d"), "{told}");
}
