//! What README.md and contrib/docs refer to is there: other documents, headings in them, files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("contrib/docs")).expect("the folder");
    let mut found: Vec<_> = folder
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect();
    found.extend([root().join("README.md"), root().join("CHANGELOG.md")]);
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("a document")
}

/// The anchors of a document's headings, as they are made where repositories are shown.
fn anchors(path: &Path) -> BTreeSet<String> {
    let text = text(path);
    let mut is_code = false;
    let headings = text.lines().filter(|line| {
        is_code ^= line.starts_with("```");
        line.starts_with('#') && !is_code
    });
    headings
        .map(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let kept = words
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for document in documents() {
        let text = text(&document);
        for part in text.split("](").skip(1) {
            let target = part.split(')').next().expect("the first");
            if target.contains("://") {
                continue;
            }
            count += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => document.clone(),
                file => document.parent().expect("a folder").join(file),
            };
            let is_there = path.exists() && (anchor.is_empty() || anchors(&path).contains(anchor));
            if !is_there {
                wrong.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 20, "{count} links");
}

/// Paths in code spans, such as `src/lib.rs`, but for patterns.
#[test]
fn every_file_that_the_documents_name_is_there() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    let folders = ["src/", "tests/", "contrib/", "regtest/"];
    for document in documents() {
        if document.ends_with("CHANGELOG.md") {
            continue; // It tells of what was.
        }
        let text = text(&document);
        for span in text.split('`').skip(1).step_by(2) {
            let path = span.split_whitespace().next().unwrap_or_default();
            let is_path = folders.iter().any(|folder| path.starts_with(folder));
            count += usize::from(is_path);
            if is_path && !path.contains(['*', '<']) && !root().join(path).exists() {
                wrong.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 40, "{count} paths");
}
