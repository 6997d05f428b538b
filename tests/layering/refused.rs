//! Small sources that must be refused, and their neighbours that must not be.

use super::{House, forbidden_crates, forbidden_imports, impure_machines};

/// What is said of one file in a room beside a few others.
fn said(file: &str, text: &str) -> Vec<String> {
    let house = House::new([
        ("lib.rs", "pub mod tracker; pub mod store; pub mod api;"),
        ("tracker/mod.rs", "mod event; pub use event::Event;"),
        ("tracker/event.rs", "pub struct Event;"),
        (
            "store/mod.rs",
            "mod writer; mod reader; pub use {reader::StoreReader, writer::Writer};",
        ),
        (
            "api/mod.rs",
            "mod hub; use crate::store; pub use crate::tracker::Event as Fact;",
        ),
        (file, text),
    ]);
    [
        forbidden_imports(&house),
        forbidden_crates(&house),
        impure_machines(&house),
    ]
    .concat()
}

fn refused(file: &str, text: &str, path: &str) {
    let wrong = said(file, text);
    let named = wrong
        .iter()
        .any(|line| line.starts_with(file) && line.ends_with(&format!(" {path}")));
    assert!(named, "{text}: {wrong:?}");
}

fn passes(file: &str, text: &str) {
    assert_eq!(said(file, text), [""; 0], "{text}");
}

#[test]
fn imports_are_seen_however_they_are_written() {
    for text in [
        "use crate::store::StoreReader;",
        "use crate::{tracker::{self, Event}, store::{StoreReader as R}};",
        "fn f() -> crate::store::StoreReader { loop {} }",
        "fn f() { let x = 0..crate::store::StoreReader; }",
        "fn f() { g::<u8>(|x| x.y, crate::store::StoreReader); }",
        "fn f() { assert!(x, \"{}\", crate::store::StoreReader); }",
        "macro_rules! m { () => { $crate::store::StoreReader } }",
        "use super::super::store::StoreReader;",
        "mod inner { use super::super::super::store::StoreReader; }",
        "mod inner { pub(in crate::tracker) fn f(x: super::super::super::store::StoreReader) {} }",
        "use crate::store; fn f(x: store::StoreReader) {}",
        "use crate::store as s; fn f(x: s::StoreReader) {}",
        "fn f() { use crate::store::StoreReader; }",
        "#[cfg(test)] mod tests { use crate::api::x; } fn f(x: crate::store::StoreReader) {}",
        "#[cfg(test)] use crate::api::{x}; use crate::store::StoreReader;",
        "#[cfg(test)] fn t(a: u8) -> u8 where u8: Copy, { a } use crate::store::StoreReader;",
        "#[cfg(not(test))] use crate::store::StoreReader;",
        "struct S { #[cfg(test)] a: u8, b: crate::store::StoreReader }",
        "struct S(pub (crate::store::StoreReader, u8));",
    ] {
        refused("tracker/state.rs", text, "store::StoreReader");
    }
    refused("tracker/state.rs", "use crate::store::*;", "store::*");
    refused("tracker/state.rs", "use crate::api::Fact;", "api::Fact");
    refused(
        "store/db.rs",
        "use crate::api::store::StoreReader;",
        "api::store::StoreReader",
    );
}

#[test]
fn imports_that_are_none_or_allowed_pass() {
    for text in [
        "// use crate::store::StoreReader;\n/// [`crate::store::StoreReader`]\nfn f() {}",
        "fn f() { let x = \"crate::store::StoreReader\"; }",
        "#[cfg(test)] mod tests { use crate::store::StoreReader; }",
        "#[cfg(all(test, unix))] fn f(x: crate::store::StoreReader) {}",
        "pub(in crate::tracker) struct S; pub(crate) struct T;",
        "use crate::tracker::Event; use super::event; fn f(x: event::Event) {}",
        "fn f(store: S) { store.x::<u8>(); mystore::f(); }",
    ] {
        passes("tracker/state.rs", text);
    }
    passes(
        "store/db.rs",
        "use crate::tracker::{self, Event}; use crate::tracker;",
    );
    passes(
        "api/hub.rs",
        "use super::store::StoreReader; use super::Fact;",
    );
}

#[test]
fn imports_of_a_single_thing_do_not_open_its_room() {
    passes(
        "wire/a.rs",
        "use crate::store::Starts; fn f() { Starts::new(); }",
    );
    passes(
        "wire/a.rs",
        "use crate::store; fn f() { store::Starts::new(); }",
    );
    refused(
        "wire/a.rs",
        "use crate::store::StoreReader;",
        "store::StoreReader",
    );
    refused(
        "wire/a.rs",
        "use crate::store; fn f(x: store::StoreReader) {}",
        "store::StoreReader",
    );
    refused("api/hub.rs", "use crate::store::Writer;", "store::Writer");
    refused("api/hub.rs", "use super::store::Writer;", "store::Writer");
    passes("indexer.rs", "use crate::store::Writer;");
    assert_eq!(
        said("elsewhere.rs", ""),
        ["elsewhere.rs: elsewhere is in no layer"]
    );
}

#[test]
fn crates_are_seen_however_they_are_written() {
    refused("api/hub.rs", "use rocksdb::DB;", "rocksdb::DB");
    refused(
        "api/hub.rs",
        "fn f() { ::rocksdb::DB::open(); }",
        "rocksdb::DB::open",
    );
    refused(
        "api/hub.rs",
        "use rocksdb as r; fn f(x: r::DB) {}",
        "rocksdb::DB",
    );
    refused(
        "socketio/a.rs",
        "use tokio_tungstenite::x;",
        "tokio_tungstenite::x",
    );
    refused(
        "tracker/state.rs",
        "use tokio::sync::watch;",
        "tokio::sync::watch",
    );
    refused(
        "tracker/state.rs",
        "use std::{fmt, time::Instant};",
        "std::time::Instant",
    );
    refused(
        "tracker/state.rs",
        "use std::sync::Mutex;",
        "std::sync::Mutex",
    );
    passes(
        "tracker/state.rs",
        "use std::{sync::Arc, time::Duration}; use bitcoin::Txid;",
    );
    passes("store/db.rs", "use rocksdb::DB;");
    // A module of that name is no crate.
    passes(
        "api/hub.rs",
        "mod rocksdb { pub fn f() {} } use rocksdb::f;",
    );
}

#[test]
fn circles_are_of_more_than_two_files_and_lead_to_where_things_are() {
    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let house = House::new(files.iter().copied());
        let circles = house.circles();
        circles.iter().map(|circle| circle.join(" ")).collect()
    }
    let three = [
        ("x/a.rs", "fn f() { crate::x::b::f(); }"),
        ("x/b.rs", "use super::c; fn f() { c::f(); }"),
        ("x/c.rs", "use crate::x::A;"),
    ];
    let gives_on = ("x/mod.rs", "mod a; mod b; mod c; pub use a::A;");
    assert_eq!(
        circles(&[three[0], three[1], three[2], gives_on]),
        ["x/a.rs x/b.rs x/c.rs"]
    );
    let defines = (
        "x/mod.rs",
        "mod a; mod b; mod c; pub struct A; fn f() { a::f(); }",
    );
    assert_eq!(circles(&[three[0], three[1], three[2], defines]), [""; 0]);
    let two = [
        ("x/a.rs", "use super::b::B;"),
        ("x/b.rs", "use super::a::A;"),
    ];
    assert_eq!(circles(&two), [""; 0]);
    let in_tests = ("x/c.rs", "#[cfg(test)] mod tests { use super::super::a; }");
    assert_eq!(circles(&[three[0], three[1], in_tests]), [""; 0]);
    let test_file = (
        "x/mod.rs",
        "mod a; mod b; #[cfg(test)] mod c; pub use a::A;",
    );
    assert_eq!(circles(&[three[0], three[1], three[2], test_file]), [""; 0]);
}

#[test]
fn lines_of_tests_are_not_counted_wherever_they_stand() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\nfn b() {}\n#[cfg(test)]\nuse x::y;\n";
    let house = House::new([("a.rs", text)]);
    assert_eq!(house.sources[0].lines(), 2);
}

#[test]
fn machines_name_nothing_that_waits() {
    let file = "follower/chain_sync.rs";
    for (text, path) in [
        ("use tokio::time::Instant;", "tokio::time::Instant"),
        (
            "use std::time::Instant; fn f() { Instant::now(); }",
            "std::time::Instant::now",
        ),
        ("fn f() -> u64 { crate::clock::now_ms() }", "clock::now_ms"),
        ("use crate::store::StoreReader;", "store::StoreReader"),
    ] {
        refused(file, text, path);
    }
    passes(file, "use std::time::{Duration, Instant};");
}
