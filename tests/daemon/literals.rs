//! The texts that a Rust source says: its string literals, whole, over as many lines as they take.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::repository;

/// Files below a folder of the repository, by their path in it.
pub fn files(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let root = repository();
    let (mut found, mut folders) = (Vec::new(), vec![root.join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the repository can be read") {
            let path = entry.expect("the repository can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = fs::read_to_string(&path).expect("it is text");
                let inside = path.strip_prefix(&root).expect("it is below");
                found.push((inside.to_owned(), text));
            }
        }
    }
    found
}

/// What the sources of the daemon say, without their tests.
pub fn said() -> Vec<(PathBuf, String)> {
    let is_test = |path: &Path| path.components().any(|part| part.as_os_str() == "tests");
    let sources = files("src", "rs").into_iter();
    sources
        .filter(|(path, _)| !is_test(path) && !path.ends_with("tests.rs"))
        .flat_map(|(path, text)| {
            let literals = literals(&text).into_iter();
            literals.map(move |text| (path.clone(), text))
        })
        .collect()
}

/// Without the tests at the bottom. Escaped characters stand for themselves, which is enough to
/// read a sentence.
fn literals(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let (mut found, mut rest) = (Vec::new(), code);
    while let Some(first) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some((literal, after)) = raw(rest) {
            found.push(literal.to_owned());
            rest = after;
        } else if first == '"' {
            let (literal, after) = quoted(&rest[1..]);
            found.push(literal);
            rest = after;
        } else if let Some(after) = rest.strip_prefix(r"'\").and_then(|rest| rest.get(1..)) {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("'\"'") {
            rest = after;
        } else if first.is_alphanumeric() || first == '_' {
            rest = rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

/// `r"…"`, `r#"…"#`, and the rest behind it.
fn raw(text: &str) -> Option<(&str, &str)> {
    let after = text.strip_prefix("br").or(text.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let inside = after[hashes..].strip_prefix('"')?;
    inside.split_once(&format!("\"{}", "#".repeat(hashes)))
}

/// Up to the closing quote, and the rest behind it.
fn quoted(text: &str) -> (String, &str) {
    let (mut literal, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => break,
            '\\' if rest.starts_with('\n') => rest = rest.trim_start(),
            '\\' => {
                let escaped = rest.chars().next().expect("something is escaped");
                literal.push(escaped);
                rest = &rest[escaped.len_utf8()..];
            }
            c => literal.push(c),
        }
    }
    (literal, rest)
}

#[test]
fn literals_are_read_whole() {
    let text = "// \"no\n\
                let a = \"one \\\n    line, \\\"set x\\\"\"; let c = ('\"', '\\'', b'\\\\', &'a str);\n\
                f(r#\"a \"b\" c\"#, \"after\", br\"raw\\\");\n\
                #[error(\n    \"two\n lines\"\n)]\n\
                #[cfg(test)]\nmod tests { \"not this\" }\n";
    let expected = [
        "one line, \"set x\"",
        "a \"b\" c",
        "after",
        "raw\\",
        "two\n lines",
    ];
    assert_eq!(literals(text), expected);
}
