//! Which events retention takes: what the machine's clock and the chain both call old.

use satwatch::store::{StoreReader, Writer};
use satwatch::tracker::{BlockRow, Event, EventKind, Transition};
use tempfile::{TempDir, tempdir};

use super::{Change, block_id, changes, numbers, open};

const DAY: u64 = 24 * 3600;
const YEAR: u64 = 365 * DAY;
/// When the first block was mined, in seconds.
const BEGIN: u64 = 1_600_000_000;
const TIP: u32 = 99;
/// When the tip was.
const NOW: u64 = BEGIN + TIP as u64 * DAY;
/// Retention of thirty days; in seconds.
const KEEP: u64 = 30 * DAY;
/// The last block that is thirty days older than the tip, both by the median of eleven blocks.
const LAST_OLD: u32 = 68;

struct Log {
    _folder: TempDir,
    writer: Writer,
    reader: StoreReader,
}

/// A chain with one block a day, and an event in front of each next block; `time` says when that of
/// height n happened, in seconds.
fn log(time: impl Fn(u32) -> u64) -> Log {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let block = |height: u32| Change::Block {
        height,
        old: None,
        new: Some(BlockRow {
            hash: block_id(height).hash,
            time: u32::try_from(BEGIN + u64::from(height) * DAY).unwrap(),
            touched: vec![],
            found: vec![],
        }),
    };
    let mut rows: Vec<_> = (0..=TIP).map(block).collect();
    rows.push(Change::Tip {
        old: None,
        new: Some(block_id(TIP)),
    });
    let events = (0..=TIP).map(|height| event(Some(height), time(height)));
    let transition = Transition {
        events: events.collect(),
        ..changes(rows)
    };
    writer.commit(&[transition], false).unwrap();
    Log {
        _folder: folder,
        writer,
        reader,
    }
}

fn event(tip: Option<u32>, seconds: u64) -> Event {
    Event {
        time: seconds * 1000,
        tip: tip.map(block_id),
        kind: EventKind::Block {
            block: block_id(0),
            time: 0,
            transactions: 1,
        },
    }
}

fn at(height: u32) -> u64 {
    BEGIN + u64::from(height) * DAY
}

impl Log {
    /// The height of the first event that is left when the clock says that it is `now`.
    fn kept_from(&mut self, now: u64) -> Option<u32> {
        let cutoff = self.reader.snapshot().cutoff(now * 1000, KEEP * 1000);
        self.writer.prune_events(&cutoff.unwrap()).unwrap();
        let first = numbers(&self.reader, 0).first().copied()?;
        Some(u32::try_from(first - 1).unwrap())
    }
}

#[test]
fn an_event_goes_when_the_block_after_it_is_old() {
    assert_eq!(log(at).kept_from(NOW), Some(LAST_OLD));
    // The clock is a little behind: it decides where the chain says less.
    assert_eq!(log(at).kept_from(NOW - 3 * DAY), Some(LAST_OLD - 2));
}

#[test]
fn b10_a_clock_that_is_ahead_deletes_nothing_that_the_chain_calls_young() {
    for now in [NOW + YEAR, u64::MAX / 1000] {
        assert_eq!(log(at).kept_from(now), Some(LAST_OLD));
    }
    // It was ahead, or behind, when the events were written.
    for wrong in [NOW + YEAR, 0] {
        assert_eq!(log(|_| wrong).kept_from(NOW), Some(LAST_OLD));
    }
    // It is a year behind: all events are from its future.
    assert_eq!(log(at).kept_from(NOW - YEAR), Some(LAST_OLD));
}

#[test]
fn b10_an_event_from_the_future_does_not_stop_retention() {
    let time = |height| at(height) + u64::from(height == 10) * YEAR;
    assert_eq!(log(time).kept_from(NOW), Some(LAST_OLD));
}

#[test]
fn what_was_written_lately_about_old_blocks_is_kept() {
    // The daemon was away for months and caught up today, after its first twenty events.
    let time = |height| if height < 20 { at(height) } else { NOW };
    assert_eq!(log(time).kept_from(NOW), Some(20));
}

#[test]
fn an_event_without_a_tip_goes_with_the_one_after_it() {
    let mut log = log(at);
    let more = [event(None, NOW), event(Some(3), at(3)), event(None, 0)];
    log.writer
        .commit(
            &[Transition {
                events: more.to_vec(),
                ..Transition::default()
            }],
            false,
        )
        .unwrap();
    let everything = satwatch::store::Cutoff {
        before: u64::MAX,
        now: u64::MAX,
        young: TIP + 2,
    };
    log.writer.prune_events(&everything).unwrap();
    assert_eq!(numbers(&log.reader, 0), [u64::from(TIP) + 4]);
}

#[test]
fn without_a_block_nothing_is_old() {
    let folder = tempdir().unwrap();
    let (_writer, reader) = open(folder.path());
    let cutoff = reader.snapshot().cutoff(NOW * 1000, KEEP * 1000).unwrap();
    assert_eq!(cutoff.young, 0);
}
