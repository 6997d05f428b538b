//! Named consumers: rows that come back as they were, edits, and that one consumer's rows are never
//! another's.

use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

use bitcoin::ScriptBuf;
use satwatch::store::{
    ConsumerEdit, ConsumerPlace, ConsumerRow, DeadLetter, Delivery, Failing, SigningSecret,
    StoreError, StoreReader, Webhook, WebhookStop, Writer,
};
use satwatch::tracker::{Balance, Cause, DescriptorId, Event, EventKind};
use tempfile::tempdir;

use super::{block_event, block_id, dump, old_by_clock, open, subject, tamper, txid};

/// Names of which each begins like another one.
const NAMES: [&str; 5] = ["a", "aa", "ab", "a-", "a_"];

fn consumer(n: u8) -> ConsumerRow {
    ConsumerRow {
        created: 1_700_000_000_000 + u64::from(n),
        scripts: Some(vec![ScriptBuf::from_bytes(vec![0, 20, n])]),
        descriptors: Some(Vec::new()),
        blocks: true,
        webhook: Some(Webhook {
            url: format!("https://shop.example/{n}"),
            secrets: vec![secret(n, None), secret(n + 1, Some(1_000))],
            headers: vec![("x".to_owned(), n.to_string())],
        }),
    }
}

fn secret(byte: u8, expires: Option<u64>) -> SigningSecret {
    let key = vec![byte; 24];
    SigningSecret { key, expires }
}

fn failing(n: u32) -> Failing {
    Failing {
        attempts: n,
        first_failed: 1_000,
        last_tried: 2_000,
    }
}

fn edit_failing(number: u64, resend: bool, n: u32) -> ConsumerEdit {
    ConsumerEdit::Failing(Delivery { resend, number }, failing(n))
}

fn stopped() -> WebhookStop {
    WebhookStop {
        since: 3_000,
        reason: "no".to_owned(),
    }
}

fn place(number: u64) -> ConsumerPlace {
    ConsumerPlace {
        number,
        moved: 1_700_000_000_000 + number,
    }
}

fn letter(n: u8) -> DeadLetter {
    let kind = EventKind::BalanceChange {
        subject: subject(n),
        old: Balance {
            confirmed: 1,
            unconfirmed: 2,
        },
        new: Balance {
            confirmed: 3,
            unconfirmed: -4,
        },
        cause: Cause::Transaction(txid(n)),
    };
    let event = Event {
        time: 101_000,
        tip: Some(block_id(101)),
        kind,
    };
    DeadLetter {
        event,
        failing: failing(7),
        error: format!("no {n}"),
        again: n.is_multiple_of(2),
    }
}

/// What a consumer is in the store.
#[derive(Debug, Clone, PartialEq)]
struct Rows {
    wants: ConsumerRow,
    place: ConsumerPlace,
    done: Vec<(u64, u64)>,
    letters: Vec<(u64, DeadLetter)>,
    failing: Vec<(u64, Failing)>,
    resent: Vec<(u64, Failing)>,
    stopped: Option<WebhookStop>,
}

fn read(reader: &StoreReader) -> BTreeMap<String, Rows> {
    let rows = reader
        .consumers()
        .unwrap()
        .into_iter()
        .map(|(name, wants, place)| {
            let done = reader.partitions_done(&name).unwrap();
            let letters: Vec<_> = reader.dead_letters(&name, 0).map(Result::unwrap).collect();
            let (resent, failing): (Vec<_>, Vec<_>) = reader
                .failing(&name)
                .unwrap()
                .into_iter()
                .partition(|(delivery, _)| delivery.resend);
            let numbered = |rows: Vec<(Delivery, Failing)>| {
                let row = |(delivery, row): (Delivery, Failing)| (delivery.number, row);
                rows.into_iter().map(row).collect()
            };
            assert_eq!(reader.dead_letter_count(&name).unwrap(), letters.len());
            for (number, letter) in &letters {
                assert_eq!(
                    reader.dead_letter(&name, *number).unwrap().as_ref(),
                    Some(letter)
                );
            }
            (
                name.clone(),
                Rows {
                    wants,
                    place,
                    done,
                    letters,
                    failing: numbered(failing),
                    resent: numbered(resent),
                    stopped: reader.stopped(&name).unwrap(),
                },
            )
        });
    rows.collect()
}

fn create(writer: &mut Writer, name: &str, n: u8) {
    let edits = [
        ConsumerEdit::Forget,
        ConsumerEdit::Define(consumer(n)),
        ConsumerEdit::Move(place(10)),
        ConsumerEdit::PartitionDone(0, 12),
        ConsumerEdit::PartitionDone(7, 300),
        ConsumerEdit::DeadLetter(11, letter(n)),
        ConsumerEdit::DeadLetter(1 << 40, letter(n + 1)),
        ConsumerEdit::Stop(stopped()),
        edit_failing(13, false, 4),
        edit_failing(11, true, 5),
    ];
    writer.edit_consumer(name, &edits, true).unwrap();
}

fn created(n: u8) -> Rows {
    Rows {
        wants: consumer(n),
        place: place(10),
        done: vec![(0, 12), (7, 300)],
        letters: vec![(11, letter(n)), (1 << 40, letter(n + 1))],
        failing: vec![(13, failing(4))],
        resent: vec![(11, failing(5))],
        stopped: Some(stopped()),
    }
}

#[test]
fn what_is_written_of_consumers_has_these_bytes() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    create(&mut writer, "shop-1", 6);
    let all = ConsumerRow {
        scripts: None,
        blocks: false,
        webhook: None,
        ..consumer(0)
    };
    writer
        .edit_consumer(
            "z",
            &[ConsumerEdit::Define(all), ConsumerEdit::Move(place(0))],
            false,
        )
        .unwrap();
    drop((writer, reader));
    let event = "888a010000000000 01 65000000 65*32 01 03 0014NN NN*32 \
         0100000000000000 0200000000000000 0300000000000000 fcffffffffffffff 00 NN*32";
    let tail = "07000000 e803000000000000 d007000000000000";
    let url = "16 68747470733a2f2f73686f702e6578616d706c652f36";
    let name = "73686f702d31";
    let vectors = [
        (
            name.to_owned(),
            format!(
                "01 0668e5cf8b010000 00 01 03 001406 01 02 {url} \
                 02 18 06*24 00 18 07*24 01 e803000000000000 01 01 78 01 36"
            ),
        ),
        (
            format!("{name} 00 63"),
            "01 0a00000000000000 0a68e5cf8b010000".to_owned(),
        ),
        (
            format!("{name} 00 70 0000000000000000"),
            "000000000000000c".to_owned(),
        ),
        (
            format!("{name} 00 70 0000000000000007"),
            "000000000000012c".to_owned(),
        ),
        (
            format!("{name} 00 66 000000000000000d"),
            "01 04000000 e803000000000000 d007000000000000".to_owned(),
        ),
        (
            format!("{name} 00 72 000000000000000b"),
            "01 05000000 e803000000000000 d007000000000000".to_owned(),
        ),
        (
            format!("{name} 00 73"),
            "01 b80b000000000000 02 6e6f".to_owned(),
        ),
        (
            format!("{name} 00 64 000000000000000b"),
            format!("01 {} {tail} 04 6e6f2036 01", event.replace("NN", "06")),
        ),
        (
            format!("{name} 00 64 0000010000000000"),
            format!("01 {} {tail} 04 6e6f2037 00", event.replace("NN", "07")),
        ),
        (
            "7a".to_owned(),
            "01 0068e5cf8b010000 01 00 00 00".to_owned(),
        ),
        (
            "7a 00 63".to_owned(),
            "01 0000000000000000 0068e5cf8b010000".to_owned(),
        ),
    ];
    let found: BTreeMap<_, _> = dump(folder.path())
        .into_iter()
        .filter(|((family, _), _)| family == "cursors")
        .map(|((_, key), value)| (hex(&key), hex(&value)))
        .collect();
    let expected: BTreeMap<_, _> = vectors
        .iter()
        .map(|(key, value)| (hex(&bytes(key)), hex(&bytes(value))))
        .collect();
    assert_eq!(found, expected);
}

/// `65*32` is byte 65 thirty-two times.
fn bytes(text: &str) -> Vec<u8> {
    let byte = |text: &str| u8::from_str_radix(text, 16).expect("hex");
    let part = |part: &str| match part.split_once('*') {
        Some((text, times)) => vec![byte(text); times.parse().expect("a number")],
        None => (0..part.len() / 2)
            .map(|at| byte(&part[2 * at..2 * at + 2]))
            .collect(),
    };
    text.split_whitespace().flat_map(part).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn consumers_come_back_in_the_order_of_their_names_after_the_store_was_closed() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    for (n, name) in (0..).zip(NAMES) {
        create(&mut writer, name, 2 * n);
    }
    drop(reader);
    writer.close().unwrap();
    let (_writer, reader) = open(folder.path());
    let names: Vec<_> = reader
        .consumers()
        .unwrap()
        .into_iter()
        .map(|(name, ..)| name)
        .collect();
    assert_eq!(names, ["a", "a-", "a_", "aa", "ab"]);
    let rows = read(&reader);
    for (n, name) in (0..).zip(NAMES) {
        assert_eq!(rows[name], created(2 * n));
    }
}

#[test]
fn forgetting_and_rewinding_one_leaves_the_others_as_they_were() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    for (at, name) in NAMES.iter().enumerate() {
        for (n, name) in (0..).zip(NAMES) {
            create(&mut writer, name, 2 * n);
        }
        let before = read(&reader);
        writer
            .edit_consumer(name, &[ConsumerEdit::Rewind(place(3))], false)
            .unwrap();
        let mut expected = before.clone();
        let rows = expected.get_mut(*name).unwrap();
        (rows.place, rows.done, rows.failing) = (place(3), vec![], vec![]);
        assert_eq!(read(&reader), expected, "rewinding {name}");
        writer
            .edit_consumer(name, &[ConsumerEdit::Forget], at % 2 == 0)
            .unwrap();
        expected.remove(*name);
        assert_eq!(read(&reader), expected, "forgetting {name}");
        assert_eq!(
            (
                reader.partitions_done(name).unwrap(),
                reader.dead_letter_count(name).unwrap()
            ),
            (vec![], 0)
        );
    }
    for name in NAMES {
        writer
            .edit_consumer(name, &[ConsumerEdit::Forget], false)
            .unwrap();
    }
    drop((writer, reader));
    let left: Vec<_> = dump(folder.path())
        .into_keys()
        .filter(|(family, _)| family == "cursors")
        .collect();
    assert_eq!(left, [], "forgetting leaves nothing");
}

#[test]
fn a_consumer_that_is_forgotten_and_defined_in_one_step_has_nothing_of_the_old_one() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    create(&mut writer, "a", 2);
    let edits = [
        ConsumerEdit::Forget,
        ConsumerEdit::Define(consumer(9)),
        ConsumerEdit::Move(place(5)),
        ConsumerEdit::PartitionDone(3, 7),
    ];
    writer.edit_consumer("a", &edits, false).unwrap();
    assert_eq!(
        read(&reader)["a"],
        Rows {
            wants: consumer(9),
            place: place(5),
            done: vec![(3, 7)],
            letters: vec![],
            failing: vec![],
            resent: vec![],
            stopped: None,
        }
    );
}

#[test]
fn dead_letters_are_read_in_parts() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let edits: Vec<_> = [1, 255, 256, u64::MAX]
        .into_iter()
        .map(|n| ConsumerEdit::DeadLetter(n, letter(1)))
        .collect();
    writer.edit_consumer("a", &edits, false).unwrap();
    let letters = |after, limit| {
        let letters = reader.dead_letters("a", after).take(limit);
        letters.map(|letter| letter.unwrap().0).collect::<Vec<_>>()
    };
    assert_eq!(
        (letters(0, 2), letters(255, 9), letters(u64::MAX, 9)),
        (vec![1, 255], vec![256, u64::MAX], vec![])
    );
    writer
        .edit_consumer("a", &[ConsumerEdit::DropDeadLetter(256)], false)
        .unwrap();
    assert_eq!(letters(0, 9), [1, 255, u64::MAX]);
    assert_eq!(
        (
            reader.dead_letter("a", 256).unwrap(),
            reader.dead_letter("b", 1).unwrap()
        ),
        (None, None)
    );
}

#[test]
fn failing_events_are_forgotten_one_by_one_and_all_when_the_webhook_is_stopped() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    create(&mut writer, "a", 2);
    create(&mut writer, "aa", 4);
    let mut edit = |edits: &[ConsumerEdit]| writer.edit_consumer("a", edits, false).unwrap();
    let rows = || read(&reader)["a"].clone();
    edit(&[edit_failing(13, false, 6), edit_failing(15, false, 1)]);
    assert_eq!(rows().failing, [(13, failing(6)), (15, failing(1))]);
    let (number, resend) = (13, false);
    edit(&[ConsumerEdit::NotFailing(Delivery { resend, number })]);
    assert_eq!(rows().failing, [(15, failing(1))]);
    edit(&[ConsumerEdit::Resume]);
    assert_eq!(
        (rows().stopped, rows().failing.len(), rows().resent.len()),
        (None, 1, 1)
    );
    edit(&[edit_failing(16, false, 1), ConsumerEdit::Stop(stopped())]);
    assert_eq!(
        (rows().stopped, rows().failing, rows().resent),
        (Some(stopped()), vec![], vec![])
    );
    assert_eq!(read(&reader)["aa"], created(4), "those of others stay");
}

/// As format 2 wrote them.
#[test]
fn a_webhook_of_an_older_release_has_its_one_secret_and_no_headers() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    create(&mut writer, "a", 6);
    drop((writer, reader));
    let url = "16 68747470733a2f2f73686f702e6578616d706c652f36";
    let old = bytes(&format!(
        "01 0668e5cf8b010000 00 01 03 001406 01 01 {url} 18 06*24"
    ));
    tamper(folder.path(), |raw| {
        let family = raw.cf_handle("cursors").unwrap();
        raw.put_cf(family, "a", &old).unwrap();
    });
    let (_writer, reader) = open(folder.path());
    let webhook = Webhook {
        url: "https://shop.example/6".to_owned(),
        secrets: vec![secret(6, None)],
        headers: vec![],
    };
    assert!(read(&reader)["a"].wants.webhook == Some(webhook));
}

#[test]
fn one_event_is_read_by_its_number_until_retention_takes_it() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    writer.commit(&[super::events(1, 3)], false).unwrap();
    assert_eq!(
        (
            reader.event(2).unwrap(),
            reader.event(0).unwrap(),
            reader.event(4).unwrap()
        ),
        (Some(block_event(2)), None, None)
    );
    writer.prune_events(&old_by_clock(2_500)).unwrap();
    assert_eq!(
        (reader.event(2).unwrap(), reader.event(3).unwrap()),
        (None, Some(block_event(3)))
    );
}

fn arbitrary_consumer() -> impl Strategy<Value = ConsumerRow> {
    let spks = vec(
        vec(any::<u8>(), 0..80).prop_map(ScriptBuf::from_bytes),
        0..5,
    );
    let scripts = prop::option::of(spks);
    let secret = (vec(any::<u8>(), 0..70), any::<Option<u64>>())
        .prop_map(|(key, expires)| SigningSecret { key, expires });
    let headers = vec(any::<(String, String)>(), 0..3);
    let webhook =
        (any::<String>(), vec(secret, 0..3), headers).prop_map(|(url, secrets, headers)| Webhook {
            url,
            secrets,
            headers,
        });
    let id = any::<[u8; 32]>().prop_map(DescriptorId);
    (
        any::<u64>(),
        scripts,
        prop::option::of(vec(id, 0..3)),
        any::<bool>(),
        prop::option::of(webhook),
    )
        .prop_map(
            |(created, scripts, descriptors, blocks, webhook)| ConsumerRow {
                created,
                scripts,
                descriptors,
                blocks,
                webhook,
            },
        )
}

fn arbitrary_letter() -> impl Strategy<Value = DeadLetter> {
    (
        any::<u8>(),
        any::<(u32, u64, u64)>(),
        any::<String>(),
        any::<bool>(),
    )
        .prop_map(
            |(n, (attempts, first_failed, last_tried), error, again)| DeadLetter {
                failing: Failing {
                    attempts,
                    first_failed,
                    last_tried,
                },
                error,
                again,
                ..letter(n)
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_consumer_and_dead_letter_comes_back_as_it_was(
        wants in arbitrary_consumer(), (number, moved) in any::<(u64, u64)>(), letters in prop::collection::btree_map(1_u64.., arbitrary_letter(), 0..4),
    ) {
        let folder = tempdir().unwrap();
        let (mut writer, reader) = open(folder.path());
        let place = ConsumerPlace { number, moved };
        let mut edits = vec![ConsumerEdit::Define(wants.clone()), ConsumerEdit::Move(place)];
        edits.extend(letters.iter().map(|(number, letter)| ConsumerEdit::DeadLetter(*number, letter.clone())));
        writer.edit_consumer("a", &edits, false).unwrap();
        let letters = letters.into_iter().collect();
        let expected = Rows {
            wants, place, done: vec![], letters, failing: vec![], resent: vec![], stopped: None,
        };
        prop_assert_eq!(&read(&reader)["a"], &expected);
    }
}

#[test]
fn damaged_rows_are_errors_that_name_them_and_never_other_values() {
    type Look = fn(&StoreReader) -> Option<StoreError>;
    let consumers: Look = |reader| reader.consumers().err();
    let done: Look = |reader| reader.partitions_done("a").err();
    let letters: Look = |reader| reader.dead_letters("a", 0).find_map(Result::err);
    let count: Look = |reader| reader.dead_letter_count("a").err();
    type Case<'a> = (&'a [u8], Option<&'a [u8]>, Look);
    let cases: [Case; 9] = [
        (b"a", Some(b""), consumers),
        (b"a", Some(b"\x02"), consumers),
        (b"a\0c", None, consumers),
        (b"a\0c", Some(b"\x01\x02"), consumers),
        (b"\xff", Some(b""), consumers),
        (b"a\0p\x01", Some(b""), done),
        (b"a\0d\x01", Some(b""), count),
        (b"a\0d\0\0\0\0\0\0\0\x0b", Some(b"\x01\x00"), letters),
        (b"a\0d\0\0\0\0\0\0\0\x0b\x01", Some(b""), letters),
    ];
    for (key, value, look) in cases {
        let folder = tempdir().unwrap();
        let (mut writer, reader) = open(folder.path());
        create(&mut writer, "a", 2);
        assert!(look(&reader).is_none());
        drop((writer, reader));
        tamper(folder.path(), |raw| {
            let family = raw.cf_handle("cursors").expect("it was opened");
            match value {
                Some(value) => raw.put_cf(family, key, value).unwrap(),
                None => raw.delete_cf(family, key).unwrap(),
            }
        });
        let (_writer, reader) = open(folder.path());
        let error = look(&reader).unwrap_or_else(|| panic!("{} was read", hex(key)));
        assert!(
            matches!(&error, StoreError::Corrupt { .. }) && error.to_string().contains("cursors"),
            "{}: {error}",
            hex(key)
        );
    }
}

#[test]
fn a_secret_does_not_show() {
    let shown = format!("{:?}", consumer(0xab));
    assert!(
        !shown.contains("shop.example") && !shown.contains("171, 171") && !shown.contains("abab"),
        "{shown}"
    );
}
