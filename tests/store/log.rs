//! Reading the event log, and retention.

use satwatch::store::PRUNE_LIMIT;
use tempfile::tempdir;

use super::{block_event, events, numbers, old_by_clock, open};

#[test]
fn numbers_start_at_one_and_rise_by_one_over_commits_and_restarts() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    assert_eq!(
        (
            writer.head(),
            reader.snapshot().head().unwrap(),
            numbers(&reader, 0)
        ),
        (0, 0, vec![])
    );
    assert_eq!(
        writer.commit(&[events(1, 2), events(3, 1)], false).unwrap(),
        3
    );
    assert_eq!(writer.commit(&[], false).unwrap(), 3);
    writer.close().unwrap();
    drop(reader);
    let (mut writer, reader) = open(folder.path());
    assert_eq!(writer.commit(&[events(4, 1)], true).unwrap(), 4);
    assert_eq!(numbers(&reader, 0), [1, 2, 3, 4]);
    assert_eq!(reader.snapshot().head().unwrap(), 4);
}

#[test]
fn pages_join_without_gap_or_overlap() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    // More than 256, so that numbers differ in more than their last byte.
    writer.commit(&[events(1, 600)], false).unwrap();
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let page = reader.read_events(after, 7).unwrap();
        let Some((last, _)) = page.last() else { break };
        after = *last;
        seen.extend(page);
    }
    assert_eq!(seen.len(), 600);
    for ((number, event), expected) in seen.into_iter().zip(1..) {
        assert_eq!(
            (number, event),
            (u64::from(expected), block_event(expected))
        );
    }
}

#[test]
fn nothing_follows_the_head() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    writer.commit(&[events(1, 3)], false).unwrap();
    for after in [3, 4, u64::MAX - 1, u64::MAX] {
        assert_eq!(numbers(&reader, after), Vec::<u64>::new(), "after {after}");
    }
    assert_eq!(reader.read_events(0, 0).unwrap(), []);
}

#[test]
fn retention_takes_the_oldest_up_to_the_first_that_is_young_enough() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    // Event n happened at second n, but the fifth at second 2: the clock was set back.
    writer
        .commit(&[events(1, 4), events(2, 1), events(6, 1)], false)
        .unwrap();
    assert_eq!(reader.first_seq().unwrap(), 1);
    assert_eq!(writer.prune_events(&old_by_clock(1_000)).unwrap(), 0);
    assert_eq!(writer.prune_events(&old_by_clock(3_000)).unwrap(), 2);
    assert_eq!(
        (numbers(&reader, 0), reader.first_seq().unwrap()),
        (vec![3, 4, 5, 6], 3)
    );
    assert_eq!(writer.prune_events(&old_by_clock(5_000)).unwrap(), 3);
    assert_eq!(
        (numbers(&reader, 0), reader.first_seq().unwrap()),
        (vec![6], 6)
    );
}

#[test]
fn numbers_go_on_when_everything_was_pruned() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    writer.commit(&[events(1, 3)], false).unwrap();
    assert_eq!(writer.prune_events(&old_by_clock(u64::MAX)).unwrap(), 3);
    assert_eq!(
        (
            numbers(&reader, 0),
            reader.first_seq().unwrap(),
            writer.head()
        ),
        (vec![], 4, 3)
    );
    drop((writer, reader));
    let (mut writer, reader) = open(folder.path());
    assert_eq!(writer.commit(&[events(4, 1)], false).unwrap(), 4);
    assert_eq!(numbers(&reader, 0), [4]);
}

#[test]
fn one_call_of_retention_is_bounded() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let more = u32::try_from(PRUNE_LIMIT).unwrap() + 3;
    writer.commit(&[events(1, more)], false).unwrap();
    assert_eq!(
        writer.prune_events(&old_by_clock(u64::MAX)).unwrap(),
        PRUNE_LIMIT
    );
    assert_eq!(numbers(&reader, 0).len(), 3);
    assert_eq!(writer.prune_events(&old_by_clock(u64::MAX)).unwrap(), 3);
}
