//! What the tracker keeps in memory must be what it would load from the rows: otherwise a restart
//! would change what it sees.

use std::collections::BTreeSet;

use satwatch::tracker::{Status, Tracker};

use crate::world::World;

impl World {
    pub fn check_memory(&self) {
        let (ours, loaded) = (
            format!("{:#?}", self.tracker),
            format!("{:#?}", self.loaded()),
        );
        for field in [
            "scripts",
            "outpoints",
            "depths",
            "scans",
            "ended_scans",
            "adding",
            "forgetting",
            "joining",
            "leaving",
            "tip",
        ] {
            assert_eq!(
                lines(&ours, field),
                lines(&loaded, field),
                "{field} in memory are those of the rows"
            );
        }
        let unconfirmed = self
            .view
            .txs
            .iter()
            .filter(|(_, row)| row.status == Status::Mempool);
        let unconfirmed: BTreeSet<String> = unconfirmed.map(|(txid, _)| txid.to_string()).collect();
        assert_eq!(
            tracked(&ours),
            unconfirmed,
            "the mempool's index tracks those that have a row"
        );
    }
}

/// Memory in one text, in an order of its own: for states that must not differ at all.
pub fn memory(tracker: &Tracker) -> Vec<String> {
    let mut lines: Vec<String> = format!("{tracker:#?}").lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// The lines of one field of the tracker, sorted: sets have no order.
fn lines<'a>(debug: &'a str, field: &str) -> Vec<&'a str> {
    let head = format!("    {field}: ");
    let mut lines: Vec<&str> = debug
        .lines()
        .skip_while(|line| !line.starts_with(&head))
        .collect();
    let end = lines
        .iter()
        .skip(1)
        .position(|line| line.starts_with("    ") && !line[4..].starts_with([' ', '}']))
        .map_or(lines.len(), |end| end + 1);
    lines.truncate(end);
    assert!(!lines.is_empty(), "the tracker has a field {field}");
    lines.sort_unstable();
    lines
}

/// The transactions of which the mempool's index says that they touch watched scripts.
fn tracked(debug: &str) -> BTreeSet<String> {
    let lines = debug.lines().map(str::trim);
    let mut lines = lines.skip_while(|line| !line.starts_with("tracked: {"));
    let head = lines.next().expect("the index has a field tracked");
    let txids = lines.take_while(|line| head == "tracked: {" && *line != "},");
    txids
        .map(|line| line.trim_end_matches(',').to_owned())
        .collect()
}
