//! What is decided without Redis.

use bitcoin::Network;

use super::entries::{of_primary, of_stream};
use super::place::{Next, Place, Pointed, Pointer, stretch};
use super::{OlderEvent, OlderPage};
use crate::bus::Problem;
use crate::bus::entry::Entry;
use crate::bus::keys::starts_from_json;
use crate::events::Topic;
use crate::tracker::{DescriptorId, ScriptHash};

const STARTS: &str = r#"[["a",0,0],["b",50,40]]"#;

fn pointer(current: u64, starts: &str, from: &str) -> Pointer {
    Pointer {
        current,
        starts: starts.to_owned(),
        network: "regtest".to_owned(),
        from: from.to_owned(),
    }
}

fn entry(after: u64, number: u64, cursor: &str) -> Entry<'_> {
    Entry {
        number,
        after,
        event: "block",
        subject: "",
        cursor,
        data: r#"{"timestamp":1.5}"#,
    }
}

fn at(from: &str) -> Place {
    Place::begin(pointer(1, STARTS, from), None, "regtest").expect("a place")
}

#[test]
fn who_has_nothing_begins_at_the_later_of_stream_and_log() {
    for (last, number) in [(None, 40), (Some("a-30"), 40), (Some("b-60"), 60)] {
        let last = last.map(|cursor| entry(1, 2, cursor));
        let place = Place::begin(pointer(1, STARTS, "a-40"), last.as_ref(), "regtest");
        assert_eq!(place.expect("a place").number(), number);
    }
    let begin = |pointer, last: Option<&str>| {
        let last = last.map(|cursor| entry(1, 2, cursor));
        Place::begin(pointer, last.as_ref(), "regtest").map(|place| place.number())
    };
    let foreign = begin(pointer(1, STARTS, "a-40"), Some("c-60"));
    assert!(matches!(foreign, Err(Problem::OtherKeys { .. })));
    for (starts, from) in [("", "a-40"), (STARTS, ""), (STARTS, "c-4")] {
        let begun = begin(pointer(1, starts, from), None);
        assert!(matches!(begun, Err(Problem::OtherKeys { .. })), "{begun:?}");
    }
    let mut other = pointer(1, STARTS, "a-40");
    other.network = "main".to_owned();
    let network = other.network.clone();
    assert_eq!(begin(other, None), Err(Problem::OtherNetwork { network }));
}

#[test]
fn an_entry_is_skipped_taken_or_waits_for_what_is_missing() {
    let place = at("a-40");
    for (entry, next) in [
        (entry(39, 40, "a-40"), Next::Skip),
        (entry(5, 6, "a-6"), Next::Skip),
        // Numbers were skipped.
        (entry(40, 50, "b-50"), Next::Take),
        (entry(0, 50, "b-50"), Next::Take),
        (entry(50, 51, "b-51"), Next::Gap(50)),
        (entry(40, 45, "a-45"), Next::Unknown),
        (entry(40, 50, "c-50"), Next::Unknown),
        (entry(40, 51, "b-50"), Next::Unknown),
        (entry(40, 50, "x"), Next::Unknown),
    ] {
        assert_eq!(place.next(40, &entry), next, "{entry:?}");
    }
    assert_eq!(place.next(50, &entry(50, 51, "b-51")), Next::Take);
}

#[test]
fn it_is_our_log_while_our_place_is_of_it() {
    let longer = r#"[["a",0,0],["b",50,40],["c",90,80]]"#;
    let pointed = |from: &str, starts: &str| {
        let mut place = at(from);
        let pointed = place.pointed(pointer(2, starts, "a-1"));
        (pointed, place.stream())
    };
    assert_eq!(pointed("b-80", STARTS), (Ok(Pointed::Ours), 2));
    assert_eq!(pointed("b-80", longer), (Ok(Pointed::Ours), 2));
    // A power loss took the last one, a copy was put back, another daemon.
    assert_eq!(pointed("b-81", longer), (Ok(Pointed::OtherLog), 1));
    let copy = r#"[["a",0,0],["d",31,30]]"#;
    assert_eq!(pointed("a-30", copy), (Ok(Pointed::Ours), 2));
    assert_eq!(pointed("a-31", copy), (Ok(Pointed::OtherLog), 1));
    // A replica that was behind became the master.
    let older = r#"[["a",0,0]]"#;
    assert_eq!(pointed("b-80", older), (Err(Problem::WentBack), 1));
    assert_eq!(pointed("a-30", older), (Err(Problem::WentBack), 1));
    let other = r#"[["z",0,0]]"#;
    assert_eq!(pointed("a-0", other), (Ok(Pointed::OtherLog), 1));
    assert!(matches!(
        pointed("a-30", "x"),
        (Err(Problem::OtherKeys { .. }), 1)
    ));
}

#[test]
fn an_entry_of_a_new_start_is_known_once_the_pointer_was_looked_at() {
    let mut place = at("b-80");
    let new = entry(80, 90, "c-90");
    assert_eq!(place.next(80, &new), Next::Unknown);
    let starts = r#"[["a",0,0],["b",50,40],["c",90,80]]"#;
    assert_eq!(place.pointed(pointer(1, starts, "b-80")), Ok(Pointed::Ours));
    assert_eq!(place.next(80, &new), Next::Take);
}

#[test]
fn a_stretch_begins_at_its_number_and_ends_where_something_is_missing() {
    let starts = starts_from_json(STARTS).expect("starts");
    let numbers = |after, head, all: &[Entry<'_>]| {
        let found = stretch(&starts, after, head, all.iter().copied());
        found.map(|all| all.iter().map(|it| it.number).collect::<Vec<_>>())
    };
    let all = [
        entry(37, 38, "a-38"),
        entry(38, 40, "a-40"),
        entry(40, 50, "b-50"),
    ];
    assert_eq!(numbers(37, 99, &all), Some(vec![38, 40, 50]));
    assert_eq!(numbers(37, 40, &all), Some(vec![38, 40]));
    assert_eq!(numbers(36, 99, &all), None, "37 is missing");
    assert_eq!(
        numbers(37, 37, &all),
        Some(vec![]),
        "nothing is up to there"
    );
    assert_eq!(numbers(37, 99, &[]), None);
    let torn = [all[0], all[2]];
    assert_eq!(numbers(37, 99, &torn), Some(vec![38]));
    let foreign = [all[0], entry(38, 40, "x-40")];
    assert_eq!(numbers(37, 99, &foreign), Some(vec![38]));
}

fn event(cursor: &str, data: &str) -> OlderEvent {
    OlderEvent {
        cursor: cursor.to_owned(),
        event: "balance_change".to_owned(),
        data: data.to_owned(),
    }
}

#[test]
fn what_the_primary_gives_is_the_same_as_what_is_in_the_stream() {
    let address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
    let script = address.parse::<bitcoin::Address<_>>().expect("an address");
    let script = ScriptHash::of(&script.assume_checked().script_pubkey());
    let id = DescriptorId([7; 32]);
    let of_address = format!(r#"{{"address":"{address}","timestamp":1754336318.173}}"#);
    let of_wallet = format!(r#"{{"descriptor_id":"{id}","timestamp":2}}"#);
    let page = OlderPage {
        events: vec![
            event("a-38", &of_address),
            event("a-40", &of_wallet),
            event("b-50", r#"{"timestamp":3}"#),
            event("c-60", r#"{"timestamp":3}"#),
        ],
        next: "c-60".to_owned(),
    };
    let starts = starts_from_json(STARTS).expect("starts");
    let (found, next) = of_primary(&page, &starts, (37, 99), Network::Regtest).expect("a page");
    assert_eq!(next, 50, "the last one is not of the log as we know it");
    let told: Vec<_> = found
        .iter()
        .map(|it| (it.number, it.topic, it.time))
        .collect();
    let expected = [
        (38, Topic::Script(script), 1_754_336_318_173),
        (40, Topic::Descriptor(id), 2000),
        (50, Topic::Blocks, 3000),
    ];
    assert_eq!(told, expected);
    for (event, expected) in page.events.iter().zip(expected) {
        let subject = match expected.1 {
            Topic::Script(_) => address.to_owned(),
            Topic::Descriptor(id) => id.to_string(),
            _ => String::new(),
        };
        let entry = Entry {
            number: expected.0,
            after: 0,
            event: &event.event,
            subject: &subject,
            cursor: &event.cursor,
            data: &event.data,
        };
        let read = of_stream(&entry, Network::Regtest).expect("an entry");
        assert_eq!((read.number, read.topic, read.time), expected);
    }
    let (found, next) = of_primary(&page, &starts, (37, 40), Network::Regtest).expect("a page");
    assert_eq!((found.len(), next), (2, 40));
    // None behind the place: only the cursor goes on.
    let none = OlderPage {
        events: Vec::new(),
        next: "a-40".to_owned(),
    };
    let (found, next) = of_primary(&none, &starts, (38, 99), Network::Regtest).expect("a page");
    assert_eq!((found.len(), next), (0, 40));
}

#[test]
fn what_cannot_be_read_is_said() {
    let strange = [("-", "{\"timestamp\":1}"), ("", "{}"), ("", "x")];
    for (subject, data) in strange {
        let entry = Entry {
            subject,
            data,
            ..entry(39, 40, "a-40")
        };
        let read = of_stream(&entry, Network::Regtest);
        assert!(
            matches!(read, Err(Problem::OtherKeys { .. })),
            "{subject:?} {data}"
        );
    }
}
