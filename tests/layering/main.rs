//! The layers of `src/lib.rs`, checked in the source: which room imports what, which crates are
//! named where, which words the reusable layers must not know, and what the house is still to lose
//! (circles of imports, long files). Does not link the daemon.
//!
//! A room is a module at the root.

mod documents;
mod house;
mod known;
mod refused;
mod source;

use std::fs;
use std::path::Path;

use house::House;

/// Room, and what of ours it may import: rooms, or single things of a room.
const LAYERS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("shutdown", &[]),
    ("web", &[]),
    ("remedy", &[]),
    ("config", &["remedy"]),
    ("open_files", &["remedy"]),
    (
        "auth",
        &[
            "access",
            "store::AuthEdit",
            "store::AuthMark",
            "store::SessionKey",
            "store::SessionRow",
            "store::RememberedAuth",
            "store::TokenKey",
            "indexer",
            "clock",
            "remedy",
        ],
    ),
    (
        "certificates",
        &["config::Tls", "config::is_host_name", "remedy"],
    ),
    ("tracker", &[]),
    ("descriptors", &[]),
    ("store", &["tracker"]),
    ("indexer", &["tracker", "store", "clock"]),
    (
        "derivation",
        &[
            "tracker",
            "descriptors",
            "store::StoreReader",
            "store::StoreError",
            "indexer",
            "clock",
        ],
    ),
    (
        "bitcoind",
        &[
            "tracker::BlockId",
            "tracker::RawBlock",
            "tracker::RawTx",
            "tracker::Replacement",
            "store::ChainInfo",
            "config::Bitcoind",
            "config::Secret",
            "clock",
            "remedy",
        ],
    ),
    (
        "history",
        &[
            "tracker",
            "descriptors",
            "store::StoreReader",
            "store::Snapshot",
            "store::StoreError",
            "indexer",
            "bitcoind",
            "clock",
        ],
    ),
    (
        "follower",
        &[
            "tracker",
            "store::StoreReader",
            "store::StoreError",
            "indexer",
            "bitcoind",
            "history",
            "config::Bitcoind",
            "clock",
            "remedy",
        ],
    ),
    ("access", &[]),
    (
        "limits",
        &["config::Limits", "config::TrustedProxy", "server::LimitUse"],
    ),
    ("engineio", &[]),
    ("socketio", &["engineio"]),
    ("server", &[]),
    (
        "wire",
        &[
            "tracker",
            "store::Starts",
            "store::StoreError",
            "socketio::Encoded",
            "socketio::EncodeError",
            "socketio::SendError",
            "remedy",
        ],
    ),
    ("reads", &["tracker", "store", "wire"]),
    (
        "events",
        &["tracker", "store", "wire", "reads", "socketio::Encoded"],
    ),
    (
        "consumers",
        &[
            "tracker",
            "store",
            "indexer",
            "events",
            "reads",
            "wire",
            "config::Limits",
        ],
    ),
    (
        "bus",
        &[
            "store::Starts",
            "store::StoreReader",
            "tracker::ScriptHash",
            "events",
            "wire",
            "config::Bus",
            "config::BusUrl",
            "clock",
            "remedy",
        ],
    ),
    (
        "primary",
        &[
            "auth",
            "bus::stream",
            "reads::TipShape",
            "wire",
            "config::Edge",
            "config::Secret",
            "clock",
            "http_client",
            "remedy",
        ],
    ),
    (
        "webhooks",
        &[
            "tracker",
            "store",
            "indexer",
            "events",
            "reads",
            "consumers",
            "wire",
            "config",
            "clock",
        ],
    ),
    (
        "api",
        &[
            "access",
            "limits",
            "auth",
            "tracker",
            "store",
            "indexer",
            "bitcoind",
            "history",
            "descriptors",
            "derivation",
            "socketio",
            "web",
            "wire",
            "events",
            "reads",
            "consumers",
            "webhooks",
            "bus::BusState",
            "bus::BusStatus",
            "bus::Side",
            "bus::stream::PlacesTold",
            "primary",
            "server::Peer",
            "server::Usage",
            "certificates::Certificates",
            "certificates::CertificateStatus",
            "config",
            "clock",
        ],
    ),
    (
        "progress",
        &[
            "store::StoreReader",
            "store::StoreError",
            "bitcoind::NodeStatus",
            "history::ScanProgress",
        ],
    ),
    (
        "watch",
        &[
            "config::Config",
            "config::Listen",
            "descriptors::find_secret",
            "http_client",
            "remedy",
        ],
    ),
    ("http_client", &[]),
    ("app", EVERYTHING),
    ("cli", EVERYTHING),
    ("doctor", EVERYTHING),
    ("token", EVERYTHING),
    ("main", EVERYTHING),
];
const EVERYTHING: &[&str] = &["*"];

/// One thing of a room, and the only other rooms that may import it.
const KEPT: &[(&str, &[&str])] = &[("store::Writer", &["indexer", "app", "doctor"])];

/// Crate, and the only rooms that may name it.
const CRATES: &[(&str, &[&str])] = &[
    ("rocksdb", &["store"]),
    ("zmq", &["bitcoind"]),
    ("bitcoincore_rpc", &["bitcoind"]),
    ("bitcoin_slices", &["tracker", "history"]),
    ("miniscript", &["descriptors"]),
    ("redis", &["bus"]),
    ("reqwest", &["webhooks", "watch", "primary", "http_client"]),
    (
        "rustls",
        &[
            "bus",
            "webhooks",
            "server",
            "certificates",
            "watch",
            "http_client",
        ],
    ),
    ("tokio_rustls", &["server"]),
    ("rcgen", &["certificates"]),
    ("x509_cert", &["certificates"]),
    (
        "hyper",
        &[
            "engineio", "socketio", "server", "wire", "api", "bitcoind", "webhooks", "primary",
        ],
    ),
    ("hyper_util", &["engineio", "server", "api", "bitcoind"]),
    ("tokio_tungstenite", &["engineio"]),
    ("governor", &["limits"]),
    ("ipnet", &["server", "config", "webhooks"]),
    ("prometheus", &["api", "indexer"]),
    (
        "schemars",
        &["wire", "reads", "auth", "webhooks", "api", "primary"],
    ),
    ("clap", &["cli", "main"]),
    ("indicatif", &["progress"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("anyhow", &["app", "doctor", "main", "token", "watch"]),
];

/// Room without I/O, clock, thread and lock, and all the crates that it may name.
const PURE: &[(&str, &[&str])] = &[
    (
        "tracker",
        &[
            "bitcoin",
            "bitcoin_slices",
            "bytes",
            "siphasher",
            "thiserror",
        ],
    ),
    (
        "descriptors",
        &["bitcoin", "miniscript", "thiserror", "zeroize"],
    ),
    (
        "wire",
        &[
            "bitcoin",
            "form_urlencoded",
            "hyper",
            "percent_encoding",
            "schemars",
            "serde",
            "serde_json",
            "serde_path_to_error",
            "strsim",
            "thiserror",
            "tracing",
            "zeroize",
        ],
    ),
];
const NOT_PURE: &[&str] = &[
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::sync",
    "std::thread",
    "std::time",
];
/// Shared ownership of what does not change is no lock; a length of time is no clock.
const PURE_ALL_THE_SAME: &[&str] = &["std::sync::Arc", "std::time::Duration"];

/// Files of `bitcoind` that decide for the follower, and what they must not name: no runtime, no
/// channel, no clock, no call, no store.
const MACHINES: &[&str] = &[
    "follower/mod.rs",
    "follower/acceptances.rs",
    "follower/actions.rs",
    "follower/backoff.rs",
    "follower/chain_sync.rs",
    "follower/feed_check.rs",
    "follower/mempool_sync.rs",
    "follower/node_link.rs",
    "follower/recent_blocks.rs",
    "follower/status_builder.rs",
    "follower/times.rs",
    "follower/tx_calls.rs",
    "follower/mempool_events.rs",
    "follower/mempool_snapshot.rs",
    "follower/fork.rs",
    "bus/exporter.rs",
    "bus/stream/place.rs",
];
const NOT_OF_MACHINES: &[&str] = &[
    "tokio",
    "tokio_util",
    "zmq",
    "std::io",
    "std::net",
    "std::sync",
    "std::thread",
    "std::time::Instant::now",
    "std::time::SystemTime",
    "clock",
    "bitcoind::rpc::Rpc",
    "bitcoind::zmq::Feed",
    "indexer::Handle",
    "store::StoreReader",
    "store::Snapshot",
];

const REUSABLE: &[&str] = &["engineio", "socketio", "server"];
const WORDS_OF_OURS: &[&str] = &["bitcoin", "txid", "outpoint", "scripthash", "mempool"];

/// All source files below a folder of the project.
fn files(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("an entry of the folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(&root).expect("it is below the root");
                let text = fs::read_to_string(&path).expect("a source file can be read");
                found.push((inside.display().to_string(), text));
            }
        }
    }
    found
}

fn house() -> House {
    let files = files("src");
    assert!(files.len() > 20, "only {} source files found", files.len());
    House::new(
        files
            .iter()
            .map(|(file, text)| (file.as_str(), text.as_str())),
    )
}

fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn starts_with(path: &[String], head: &str) -> bool {
    head.split("::")
        .eq(path.iter().take(head.split("::").count()))
}

/// Where a room imports what its layer may not.
fn forbidden_imports(house: &House) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in &house.sources {
        let room = source.room();
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == room) else {
            if room != "lib" {
                wrong.push(format!("{}: {room} is in no layer", source.file));
            }
            continue;
        };
        for (module, path) in &source.paths {
            let named = house.resolve(module, path).ours;
            // What another room gives on is its own affair.
            let Some(other) = named
                .iter()
                .find(|full| full.first().is_some_and(|first| *first != room))
            else {
                continue;
            };
            // The room itself is named so that things of it can be: they are looked at.
            let may = allowed.iter().any(|head| {
                *head == "*"
                    || starts_with(other, head)
                    || (other.len() == 1 && head.split("::").next() == Some(&other[0]))
            });
            let kept = KEPT
                .iter()
                .any(|(thing, rooms)| starts_with(other, thing) && !rooms.contains(&room));
            if !may || kept {
                wrong.push(format!(
                    "{}: {room} must not import {}",
                    source.file,
                    other.join("::")
                ));
            }
        }
    }
    wrong
}

/// Where a crate is named that belongs elsewhere, or a pure room names what is not pure.
fn forbidden_crates(house: &House) -> Vec<String> {
    let dependencies = dependencies();
    let mut wrong = Vec::new();
    for source in &house.sources {
        let room = source.room();
        let pure = PURE
            .iter()
            .find(|(name, _)| *name == room)
            .map(|(_, crates)| *crates);
        for (module, path) in &source.paths {
            let Some(path) = house.resolve(module, path).elsewhere else {
                continue;
            };
            let Some(first) = path.first() else { continue };
            let belongs = CRATES
                .iter()
                .all(|(name, rooms)| name != first || rooms.contains(&room));
            let is_pure = pure.is_none_or(|crates| {
                let of_std = NOT_PURE.iter().any(|head| starts_with(&path, head))
                    && !PURE_ALL_THE_SAME
                        .iter()
                        .any(|head| starts_with(&path, head));
                !of_std && (!dependencies.contains(first) || crates.contains(&first.as_str()))
            });
            if !belongs || !is_pure {
                wrong.push(format!(
                    "{}: {room} must not name {}",
                    source.file,
                    path.join("::")
                ));
            }
        }
    }
    wrong
}

/// Where a machine names what waits or asks.
fn impure_machines(house: &House) -> Vec<String> {
    let machines = |file: &&str| house.sources.iter().find(|source| source.file == **file);
    let found: Vec<_> = MACHINES.iter().filter_map(machines).collect();
    let mut wrong = Vec::new();
    for source in found {
        for (module, path) in &source.paths {
            let named = house.resolve(module, path);
            let all = named.ours.iter().chain(&named.elsewhere);
            let refused = all
                .filter(|path| NOT_OF_MACHINES.iter().any(|head| starts_with(path, head)))
                .map(|path| {
                    format!(
                        "{}: a machine must not name {}",
                        source.file,
                        path.join("::")
                    )
                });
            wrong.extend(refused);
        }
    }
    wrong
}

/// The crates of `Cargo.toml`, as code names them.
fn dependencies() -> Vec<String> {
    let manifest = include_str!("../../Cargo.toml");
    let names = manifest
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1);
    let names = names.take_while(|line| !line.starts_with('['));
    let names = names.filter_map(|line| line.split_once(" = "));
    names.map(|(name, _)| name.replace('-', "_")).collect()
}

/// Rows of tables and what stands in a block of code (diagrams) may be longer, because they cannot
/// be wrapped.
fn long_comments(text: &str) -> Vec<usize> {
    let (mut found, mut in_block) = (Vec::new(), false);
    for (number, line) in (1..).zip(text.lines()) {
        let Some(comment) = line.trim_start().strip_prefix("//") else {
            in_block = false;
            continue;
        };
        let comment = comment.trim_start_matches(['/', '!']).trim_start();
        in_block ^= comment.starts_with("```");
        if line.chars().count() > 100 && !in_block && !comment.starts_with('|') {
            found.push(number);
        }
    }
    found
}

#[test]
fn layers_rooms_import_what_they_may() {
    none(forbidden_imports(&house()));
}

#[test]
fn layers_crates_are_named_where_they_belong_and_pure_rooms_are_pure() {
    none(forbidden_crates(&house()));
}

#[test]
fn layers_machines_are_pure() {
    let house = house();
    let is_there = |file: &&&str| house.sources.iter().any(|source| source.file == ***file);
    assert_eq!(MACHINES.iter().filter(is_there).count(), MACHINES.len());
    none(impure_machines(&house));
}

#[test]
fn layers_reusable_ones_do_not_know_our_words() {
    let mut wrong = Vec::new();
    for room in REUSABLE {
        for (file, text) in files(&format!("src/{room}")) {
            for (number, line) in (1..).zip(text.lines()) {
                let line = line.to_ascii_lowercase();
                let words = WORDS_OF_OURS.iter().filter(|word| line.contains(**word));
                wrong.extend(words.map(|word| format!("{room}/{file}:{number} says {word}")));
            }
        }
    }
    none(wrong);
}

/// What is found and not known is new; what is known and not found is to be taken off.
fn compare(found: &[String], known: &[String]) {
    let new = found.iter().filter(|one| !known.contains(one));
    let gone = known.iter().filter(|one| !found.contains(one));
    let new = new.map(|one| format!("wrong, and not known in tests/layering/known.rs: {one}"));
    let gone = gone.map(|one| format!("repaired, take it off in tests/layering/known.rs: {one}"));
    none(new.chain(gone).collect());
}

#[test]
fn circles_of_imports_are_the_known_ones() {
    let house = house();
    let found: Vec<_> = house
        .circles()
        .iter()
        .map(|circle| circle.join(" "))
        .collect();
    let known: Vec<_> = known::CIRCLES
        .iter()
        .map(|circle| circle.join(" "))
        .collect();
    compare(&found, &known);
}

#[test]
fn long_files_are_the_known_ones() {
    let house = house();
    let long = house.sources.iter().filter(|source| source.lines() > 500);
    let found: Vec<_> = long.map(|source| source.file.clone()).collect();
    let known: Vec<_> = known::LONG_FILES
        .iter()
        .map(|file| (*file).to_owned())
        .collect();
    compare(&found, &known);
}

#[test]
fn comments_are_wrapped_at_100_columns() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "benches", "examples"] {
        for (file, text) in files(folder) {
            let lines = long_comments(&text).into_iter();
            wrong.extend(lines.map(|line| format!("{folder}/{file}:{line}")));
        }
    }
    none(wrong);
    let long = "x".repeat(99);
    let text = format!("// {long}\n//! ```text\n//! {long}\n//! ```\n//! | {long}\n/// {long}\n");
    assert_eq!(long_comments(&text), [1, 6]);
}

/// A code that is said and not listed panics where it is said (`wire::error`).
#[test]
fn each_code_of_an_error_that_is_listed_is_said_somewhere() {
    let is_list = |file: &str| file == "wire/error_codes.rs";
    let (list, rest): (Vec<_>, Vec<_>) = files("src")
        .into_iter()
        .partition(|(file, _)| is_list(file));
    let rows = list.iter().flat_map(|(_, text)| text.lines());
    let codes = rows.filter_map(|line| line.trim().strip_prefix("(\"")?.split('"').next());
    let codes: Vec<&str> = codes.collect();
    assert!(codes.len() > 50, "only {} codes found", codes.len());
    assert!(codes.is_sorted(), "{codes:?}");
    let said = |code: &&str| {
        let code = format!("\"{code}\"");
        rest.iter().any(|(_, text)| text.contains(&code))
    };
    none(
        codes
            .into_iter()
            .filter(|code| !said(code))
            .map(str::to_owned)
            .collect(),
    );
}
