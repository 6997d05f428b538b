//! The event log: numbers, writing and reading.
//!
//! # Numbers
//!
//! An event gets the next number when it is written; `next_seq` is stored in the same batch and
//! never derived from the largest key, so pruning takes no number back. A mempool commit is not
//! synced: when the machine (not only the process) goes down, events may be lost that clients have
//! seen. So a mark, `reserved`, is synced ahead of the numbers in use. When the store was not
//! closed in order and the machine's boot id has changed since, numbering goes on from the mark.
//! Numbers therefore always rise, but not always by one. A cursor of a number that was lost is
//! refused, and what was lost may come again under new numbers ([`super::starts`]).
//!
//! A reader with cursor `c` has missed nothing exactly when `c + 1 >= first_seq`.

use rocksdb::{ReadOptions, WriteBatch};

use super::codec::keys::parse_number_key;
use super::codec::{Malformed, StoredValue};
use super::db::Db;
use super::families::{EVENTS, meta};
use super::{StoreError, StoreReader};
use crate::tracker::Event;

/// How far the synced mark runs ahead.
const RESERVE: u64 = 1 << 20;

/// The numbers that are given next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub next: u64,
    /// Never below `next`; what is stored under `reserved`.
    pub reserved: u64,
}

impl Numbers {
    /// `kept`: nothing that was written can have been lost.
    pub(super) fn resume(next: u64, reserved: u64, kept: bool) -> Self {
        let next = if kept { next } else { next.max(reserved) };
        Self {
            next,
            reserved: next.saturating_add(RESERVE),
        }
    }

    /// The numbers after giving `count` more, and whether the mark moved: then they must be synced
    /// before anyone sees them. `sync`: the commit is synced anyway, a good moment to move the
    /// mark.
    pub(super) fn advance(self, count: u64, sync: bool) -> (Self, bool) {
        let next = self
            .next
            .checked_add(count)
            .expect("2^64 events do not happen");
        let left = self.reserved.saturating_sub(next);
        if next > self.reserved || (sync && left < RESERVE / 2) {
            (
                Self {
                    next,
                    reserved: next.saturating_add(RESERVE),
                },
                true,
            )
        } else {
            (Self { next, ..self }, false)
        }
    }
}

impl StoreReader {
    /// Up to `limit` events with a number above `after`, oldest first. Look at [`Self::first_seq`]
    /// afterwards, not before: retention may have taken events between the two.
    pub fn read_events(&self, after: u64, limit: usize) -> Result<Vec<(u64, Event)>, StoreError> {
        // Deleted events are slow to walk over, so start where the kept ones do.
        let Some(from) = after.checked_add(1) else {
            return Ok(Vec::new());
        };
        let from = from.max(self.first_seq()?);
        let db = self.db();
        let entries = db.scan(
            EVENTS,
            &[],
            Some(&from.to_be_bytes()),
            ReadOptions::default(),
        );
        let events = entries.take(limit).map(|entry| {
            let (key, value) = entry?;
            let number =
                parse_number_key(&key).map_err(|Malformed(what)| db.corrupt(EVENTS, &key, what))?;
            Ok((number, db.decode(EVENTS, &key, &value)?))
        });
        events.collect()
    }

    /// No event below this number is kept: a cursor `c` with `c + 1` below it has expired.
    pub fn first_seq(&self) -> Result<u64, StoreError> {
        self.db().required(meta::FIRST_SEQ)
    }
}

/// Adds the events to the batch, numbered from `first` on.
pub(super) fn put_events<'a>(
    db: &Db,
    batch: &mut WriteBatch,
    first: u64,
    events: impl Iterator<Item = &'a Event>,
) -> u64 {
    let family = db.family(EVENTS);
    let mut count = 0;
    for (number, event) in (first..).zip(events) {
        batch.put_cf(family, number.to_be_bytes(), event.to_bytes());
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_moves_before_a_number_beyond_it_is_given() {
        let numbers = Numbers {
            next: 10,
            reserved: 12,
        };
        assert_eq!(
            numbers.advance(2, false),
            (
                Numbers {
                    next: 12,
                    reserved: 12
                },
                false
            )
        );
        assert_eq!(
            numbers.advance(3, false),
            (
                Numbers {
                    next: 13,
                    reserved: 13 + RESERVE
                },
                true
            )
        );
    }

    #[test]
    fn the_mark_moves_early_when_the_commit_is_synced_anyway() {
        assert_eq!(
            Numbers {
                next: 10,
                reserved: 12
            }
            .advance(1, true),
            (
                Numbers {
                    next: 11,
                    reserved: 11 + RESERVE
                },
                true
            )
        );
        let far = Numbers {
            next: 10,
            reserved: 10 + RESERVE,
        };
        assert_eq!(far.advance(1, true), (Numbers { next: 11, ..far }, false));
    }

    #[test]
    fn numbering_goes_on_from_the_mark_when_events_may_be_lost() {
        assert_eq!(
            Numbers::resume(10, 500, true),
            Numbers {
                next: 10,
                reserved: 10 + RESERVE
            }
        );
        assert_eq!(
            Numbers::resume(10, 500, false),
            Numbers {
                next: 500,
                reserved: 500 + RESERVE
            }
        );
    }
}
