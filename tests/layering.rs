//! The layers of `src/lib.rs`, checked in the source text: who imports whom, which crates are named
//! where, and which words the reusable layers must not know. Uses nothing but `std`, so this binary
//! does not link the daemon.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Module, and what of ours it may import.
const LAYERS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("config", &["remedy"]),
    ("shutdown", &[]),
    ("web", &[]),
    ("wire", &["tracker", "store", "socketio"]),
    ("open_files", &["remedy"]),
    ("remedy", &[]),
    ("tracker", &[]),
    ("store", &["tracker"]),
    ("indexer", &["tracker", "store"]),
    (
        "bitcoind",
        &["tracker", "store", "indexer", "config", "clock", "remedy"],
    ),
    ("engineio", &[]),
    ("socketio", &["engineio"]),
    ("server", &[]),
    (
        "api",
        &[
            "tracker", "store", "indexer", "bitcoind", "socketio", "web", "wire", "config", "clock",
        ],
    ),
    ("app", EVERYTHING),
    ("cli", EVERYTHING),
    ("doctor", EVERYTHING),
    ("main", EVERYTHING),
    ("lib", EVERYTHING),
];
const EVERYTHING: &[&str] = &[
    "api",
    "app",
    "bitcoind",
    "cli",
    "clock",
    "config",
    "doctor",
    "engineio",
    "indexer",
    "open_files",
    "remedy",
    "server",
    "shutdown",
    "socketio",
    "store",
    "tracker",
    "web",
    "wire",
];

/// Crate, and the only modules that may name it.
const CRATES: &[(&str, &[&str])] = &[
    ("rocksdb", &["store"]),
    ("zmq", &["bitcoind"]),
    ("bitcoincore_rpc", &["bitcoind"]),
    ("ureq", &["bitcoind"]),
    ("bitcoin_slices", &["bitcoind"]),
    ("reqwest", &["api"]),
    ("rustls", &["api"]),
    (
        "hyper",
        &["engineio", "socketio", "server", "wire", "api", "bitcoind"],
    ),
    (
        "hyper_util",
        &["engineio", "socketio", "server", "api", "bitcoind"],
    ),
    ("tokio_tungstenite", &["engineio"]),
    ("prometheus", &["api"]),
    ("clap", &["cli", "main"]),
    ("anyhow", &["app", "doctor", "main"]),
];

/// The core names none of these.
const NOT_IN_THE_CORE: &[&str] = &[
    "tokio",
    "std::thread",
    "std::sync",
    "std::time",
    "std::fs",
    "std::net",
    "tracing",
    "rocksdb",
    "hyper",
    "zmq",
];

const REUSABLE: &[&str] = &["engineio", "socketio", "server"];
const WORDS_OF_OURS: &[&str] = &["bitcoin", "txid", "outpoint", "scripthash", "mempool"];

/// A source file: its module at the root, and its lines without comments and without the tests at
/// its bottom.
struct Source {
    path: PathBuf,
    module: String,
    whole: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 20, "only {} source files found", found.len());
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("the source folder can be read") {
        let path = entry.expect("an entry of the source folder").path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let inside = path
                .strip_prefix(root)
                .expect("the path is below the root")
                .to_path_buf();
            let first = inside
                .components()
                .next()
                .expect("a path has a first part")
                .as_os_str()
                .to_string_lossy()
                .into_owned();
            let whole = fs::read_to_string(&path).expect("a source file can be read");
            let is_test_file = inside.file_stem().is_some_and(|stem| stem == "tests")
                || inside.components().any(|part| part.as_os_str() == "tests");
            let code = if is_test_file {
                String::new()
            } else {
                code_of(&whole)
            };
            found.push(Source {
                path: inside,
                module: first.trim_end_matches(".rs").to_owned(),
                whole,
                code,
            });
        }
    }
}

/// Without comment lines, and without what follows the first `#[cfg(test)]` that begins a test
/// module.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.contains("mod ")) {
            break;
        }
        let end = line
            .find("//")
            .filter(|at| !line[..*at].contains('"'))
            .unwrap_or(line.len());
        code.push_str(&line[..end]);
        code.push('\n');
    }
    code
}

fn is_part_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Places behind each `path` that is a path of its own and not the end of a longer one.
fn behind<'a>(code: &'a str, path: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(path).filter_map(move |(at, _)| {
        let before = code[..at].bytes().next_back();
        let free = !before.is_some_and(|byte| is_part_of_a_name(byte) || byte == b':');
        free.then(|| &code[at + path.len()..])
    })
}

/// What of ours the code names: `crate::x`, `crate::{x, y::z}`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for rest in behind(code, "crate::") {
        match rest.strip_prefix('{') {
            Some(group) => named.extend(first_words_of_group(group)),
            None => named.extend(first_word(rest)),
        }
    }
    named
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect();
    (!word.is_empty()).then_some(word)
}

/// `a, b::{c, d}, e}` gives a, b and e.
fn first_words_of_group(text: &str) -> Vec<String> {
    let (mut depth, mut item, mut words) = (0, String::new(), Vec::new());
    for c in text.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => words.extend(first_word(std::mem::take(&mut item).trim())),
            _ if depth == 0 => item.push(c),
            _ => {}
        }
    }
    words.extend(first_word(item.trim()));
    words
}

#[test]
fn modules_import_what_their_layer_may() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some((_, allowed)) = LAYERS.iter().find(|(module, _)| *module == source.module) else {
            wrong.push(format!(
                "{}: module {} is in no layer",
                source.path.display(),
                source.module
            ));
            continue;
        };
        for import in imports(&source.code) {
            let is_ours = LAYERS.iter().any(|(module, _)| *module == import);
            if is_ours && import != source.module && !allowed.contains(&import.as_str()) {
                wrong.push(format!(
                    "{}: {} must not import {import}",
                    source.path.display(),
                    source.module
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_api_writes_nothing_and_the_indexer_alone_holds_the_writer() {
    let holders: BTreeSet<String> = sources()
        .into_iter()
        .filter(|source| {
            behind(&source.code, "Writer")
                .any(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
        })
        .map(|source| source.module)
        .collect();
    let allowed = BTreeSet::from(["store", "indexer", "app", "doctor"].map(str::to_owned));
    assert!(
        holders.is_subset(&allowed),
        "{holders:?} name the store's Writer"
    );
}

#[test]
fn crates_are_named_where_they_belong() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, allowed) in CRATES {
            let path = format!("{name}::");
            if behind(&source.code, &path).next().is_some()
                && !allowed.contains(&source.module.as_str())
            {
                wrong.push(format!(
                    "{}: the crate {name} belongs to {}",
                    source.path.display(),
                    allowed.join(", ")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_core_is_pure() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module == "tracker") {
        for name in NOT_IN_THE_CORE {
            // Shared ownership of what does not change is no lock and no channel.
            if behind(&source.code, &format!("{name}::"))
                .any(|rest| name != &"std::sync" || !rest.starts_with("Arc;"))
            {
                wrong.push(format!("{} names {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_reusable_layers_do_not_know_our_words() {
    let mut wrong = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| REUSABLE.contains(&source.module.as_str()))
    {
        for (number, line) in source.whole.lines().enumerate() {
            let line = line.to_ascii_lowercase();
            if let Some(word) = WORDS_OF_OURS.iter().find(|word| line.contains(**word)) {
                wrong.push(format!(
                    "{}:{} says {word}",
                    source.path.display(),
                    number + 1
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
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
fn comments_are_wrapped_at_100_columns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut wrong, mut folders) = (Vec::new(), vec![]);
    folders.extend(["src", "tests", "benches", "examples"].map(|name| root.join(name)));
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("an entry of the folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file can be read");
                let lines = long_comments(&text).into_iter();
                wrong.extend(lines.map(|line| format!("{}:{line}", path.display())));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let long = "x".repeat(99);
    let text = format!("// {long}\n//! ```text\n//! {long}\n//! ```\n//! | {long}\n/// {long}\n");
    assert_eq!(long_comments(&text), [1, 6]);
}

#[test]
fn this_test_sees_what_it_should() {
    let code = "use crate::{a, b::{c, d}, e::f};\nfn x() { crate::g::h(); mycrate::i(); }\n// use crate::j;\n#[cfg(test)]\nmod tests { use crate::k; }\n";
    let expected: BTreeSet<String> = ["a", "b", "e", "g"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(imports(&code_of(code)), expected);
    assert_eq!(
        behind("self::zmq::x; zmq::y", "zmq::").collect::<Vec<_>>(),
        ["y"]
    );
}
