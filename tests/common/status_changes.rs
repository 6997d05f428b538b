//! The legal changes of a transaction's status, read from the table in the documentation of
//! `satwatch::tracker::event`. The soak's check of the log (`regtest/soak/log_check.py`) reads the
//! same file.

use std::collections::HashMap;
use std::sync::LazyLock;

static TABLE: LazyLock<HashMap<(String, String), String>> =
    LazyLock::new(|| read(include_str!("../../src/tracker/status_changes.md")));

/// Whether a transaction that was told as `from` may be told as `to`. `is_corrected`: with other
/// amounts than before.
pub fn is_legal(from: &str, to: &str, is_corrected: bool) -> bool {
    let change = (from.to_owned(), to.to_owned());
    match TABLE.get(&change).map(String::as_str) {
        None => panic!("{from} or {to} is no status"),
        Some("") => false,
        // Depths are checked where it is known which of them were asked for.
        Some("yes" | "deeper, or new amounts") => true,
        Some("new amounts") => is_corrected,
        Some(other) => panic!("the table says: {other}"),
    }
}

/// What the table says of each pair of statuses, without the numbers of its notes.
fn read(table: &str) -> HashMap<(String, String), String> {
    let mut lines = table.lines().map(|line| {
        let cells = line.trim().trim_matches('|').split('|');
        cells.map(cell).collect::<Vec<_>>()
    });
    let statuses = lines.next().expect("a head");
    let rows = lines.skip(1);
    rows.flat_map(|row| {
        let pairs = statuses.iter().zip(row.clone()).skip(1);
        let says = pairs.map(|(to, says)| ((row[0].clone(), to.clone()), says));
        says.collect::<Vec<_>>()
    })
    .collect()
}

fn cell(text: &str) -> String {
    let text = text.trim().trim_matches('`');
    let without_note = text.rsplit_once(" (").map_or(text, |(text, _)| text);
    without_note.to_owned()
}
