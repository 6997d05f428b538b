//! The event log: numbers, bytes, reading, retention.
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
//!
//! # Bytes of an event
//!
//! After the version byte: time u64, (height u32, hash)? tip, kind u8, then by kind:
//!
//! | kind | | fields |
//! |---|---|---|
//! | 0 | new transactions | spk, script hash, list of transactions |
//! | 1 | balance change | spk, script hash, old and new balance (i64 and i64 each), cause |
//! | 2 | transaction update | spk, script hash, previous phase u8, transaction, confirmations u32 |
//! | 3 | block | height u32, hash, time u32, transactions u32 |
//! | 4 | reorg | old tip (height u32, hash), fork point (height u32, hash), depth u32 |
//! | 5 | scan complete | spk, script hash, scan id u64, from u32, to u32, transactions u64 |
//! | 6 | unwatched | spk, script hash |
//!
//! A balance: confirmed, unconfirmed. A transaction: txid, received u64, sent u64, status, u32?
//! block time, first_seen u64, replaceable bool. A cause: 0 transaction, 1 block, 2 reorg, 3
//! removed, 4 baseline, then 32 bytes of its hash. A phase has the number of its status.

use rocksdb::{ReadOptions, WriteBatch};

use super::db::{Db, EVENTS, meta};
use super::rows::{In, Malformed, Out, Value, parse_number_key};
use super::{Cutoff, Reader, StoreError, Writer};
use crate::tracker::{Cause, Event, EventKind, Phase, ScanId, TxSummary};

/// How far the synced mark runs ahead.
const RESERVE: u64 = 1 << 20;

/// Events that one call of [`Writer::prune_events`] deletes at most, so that it does not hold up
/// the indexer.
pub const PRUNE_LIMIT: usize = 50_000;

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

impl Reader {
    /// Up to `limit` events with a number above `after`, oldest first. Look at
    /// [`Reader::first_seq`] afterwards, not before: retention may have taken events between the
    /// two.
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

impl Writer {
    /// Deletes the oldest events, up to the first one that is not old, at most [`PRUNE_LIMIT`] of
    /// them; call again when as many were deleted. Answers how many were.
    pub fn prune_events(&mut self, cutoff: &Cutoff) -> Result<usize, StoreError> {
        let db = self.db();
        let first: u64 = db.required(meta::FIRST_SEQ)?;
        let (mut next_first, mut count, mut seen) = (first, 0, 0);
        for entry in db
            .scan(
                EVENTS,
                &[],
                Some(&first.to_be_bytes()),
                ReadOptions::default(),
            )
            .take(PRUNE_LIMIT)
        {
            let (key, value) = entry?;
            seen += 1;
            match cutoff.is_old(&db.decode::<Event>(EVENTS, &key, &value)?) {
                None => continue,
                Some(false) => break,
                Some(true) => {}
            }
            let number =
                parse_number_key(&key).map_err(|Malformed(what)| db.corrupt(EVENTS, &key, what))?;
            (next_first, count) = (number.saturating_add(1), seen);
        }
        if count > 0 {
            let mut batch = WriteBatch::default();
            batch.delete_range_cf(
                db.family(EVENTS),
                first.to_be_bytes(),
                next_first.to_be_bytes(),
            );
            db.put_meta(&mut batch, meta::FIRST_SEQ, &next_first);
            db.write(batch, false)?;
        }
        Ok(count)
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

impl Value for TxSummary {
    fn encode(&self, out: &mut Out) {
        out.put(&self.txid)
            .put(&self.received)
            .put(&self.sent)
            .part(&self.status);
        out.option(self.block_time.as_ref(), |out, time| _ = out.put(time))
            .put(&self.first_seen)
            .put(&self.replaceable);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            txid: input.get()?,
            received: input.get()?,
            sent: input.get()?,
            status: input.part()?,
            block_time: input.option(In::get)?,
            first_seen: input.get()?,
            replaceable: input.get()?,
        })
    }
}

impl Value for Cause {
    fn encode(&self, out: &mut Out) {
        match self {
            Self::Transaction(txid) => out.tag(0).put(txid),
            Self::Block(hash) => out.tag(1).put(hash),
            Self::Reorg(hash) => out.tag(2).put(hash),
            Self::Removed(txid) => out.tag(3).put(txid),
            Self::Baseline(hash) => out.tag(4).put(hash),
        };
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(match input.tag()? {
            0 => Self::Transaction(input.get()?),
            1 => Self::Block(input.get()?),
            2 => Self::Reorg(input.get()?),
            3 => Self::Removed(input.get()?),
            4 => Self::Baseline(input.get()?),
            tag => return Err(Malformed(format!("cause {tag} is unknown"))),
        })
    }
}

impl Value for Phase {
    fn encode(&self, out: &mut Out) {
        out.tag(match self {
            Self::Mempool => 0,
            Self::Confirmed => 1,
            Self::Replaced => 2,
            Self::Conflicted => 3,
            Self::Evicted => 4,
        });
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(match input.tag()? {
            0 => Self::Mempool,
            1 => Self::Confirmed,
            2 => Self::Replaced,
            3 => Self::Conflicted,
            4 => Self::Evicted,
            tag => return Err(Malformed(format!("phase {tag} is unknown"))),
        })
    }
}

impl Value for Event {
    fn encode(&self, out: &mut Out) {
        out.put(&self.time)
            .option(self.tip.as_ref(), |out, tip| _ = out.part(tip))
            .part(&self.kind);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            time: input.get()?,
            tip: input.option(In::part)?,
            kind: input.part()?,
        })
    }
}

impl Value for EventKind {
    fn encode(&self, out: &mut Out) {
        match self {
            Self::NewTransactions {
                spk,
                script,
                transactions,
            } => out
                .tag(0)
                .put(spk)
                .part(script)
                .list(transactions, |out, transaction| _ = out.part(transaction)),
            Self::BalanceChange {
                spk,
                script,
                old,
                new,
                cause,
            } => out
                .tag(1)
                .put(spk)
                .part(script)
                .part(old)
                .part(new)
                .part(cause),
            Self::TransactionUpdate {
                spk,
                script,
                previous,
                transaction,
                confirmations,
            } => out
                .tag(2)
                .put(spk)
                .part(script)
                .part(previous)
                .part(transaction)
                .put(confirmations),
            Self::Block {
                block,
                time,
                transactions,
            } => out.tag(3).part(block).put(time).put(transactions),
            Self::Reorg {
                old_tip,
                fork_point,
                depth,
            } => out.tag(4).part(old_tip).part(fork_point).put(depth),
            Self::ScanComplete {
                spk,
                script,
                scan,
                from,
                to,
                transactions,
            } => out
                .tag(5)
                .put(spk)
                .part(script)
                .put(&scan.0)
                .put(from)
                .put(to)
                .put(transactions),
            Self::Unwatched { spk, script } => out.tag(6).put(spk).part(script),
        };
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(match input.tag()? {
            0 => Self::NewTransactions {
                spk: input.get()?,
                script: input.part()?,
                transactions: input.list(In::part)?,
            },
            1 => Self::BalanceChange {
                spk: input.get()?,
                script: input.part()?,
                old: input.part()?,
                new: input.part()?,
                cause: input.part()?,
            },
            2 => Self::TransactionUpdate {
                spk: input.get()?,
                script: input.part()?,
                previous: input.part()?,
                transaction: input.part()?,
                confirmations: input.get()?,
            },
            3 => Self::Block {
                block: input.part()?,
                time: input.get()?,
                transactions: input.get()?,
            },
            4 => Self::Reorg {
                old_tip: input.part()?,
                fork_point: input.part()?,
                depth: input.get()?,
            },
            5 => Self::ScanComplete {
                spk: input.get()?,
                script: input.part()?,
                scan: ScanId(input.get()?),
                from: input.get()?,
                to: input.get()?,
                transactions: input.get()?,
            },
            6 => Self::Unwatched {
                spk: input.get()?,
                script: input.part()?,
            },
            tag => return Err(Malformed(format!("event kind {tag} is unknown"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::super::arbitrary::{balance, block_hash, block_id, script, spk, status, txid};
    use super::*;

    fn summary() -> impl Strategy<Value = TxSummary> {
        (
            txid(),
            any::<[u64; 3]>(),
            status(),
            option::of(any::<u32>()),
            any::<bool>(),
        )
            .prop_map(
                |(txid, [received, sent, first_seen], status, block_time, replaceable)| TxSummary {
                    txid,
                    received,
                    sent,
                    status,
                    block_time,
                    first_seen,
                    replaceable,
                },
            )
    }

    fn cause() -> impl Strategy<Value = Cause> {
        prop_oneof![
            txid().prop_map(Cause::Transaction),
            block_hash().prop_map(Cause::Block),
            block_hash().prop_map(Cause::Reorg),
            txid().prop_map(Cause::Removed),
            block_hash().prop_map(Cause::Baseline),
        ]
    }

    fn kind() -> impl Strategy<Value = EventKind> {
        prop_oneof![
            (spk(), script(), vec(summary(), 0..3)).prop_map(|(spk, script, transactions)| {
                EventKind::NewTransactions {
                    spk,
                    script,
                    transactions,
                }
            }),
            (spk(), script(), balance(), balance(), cause()).prop_map(
                |(spk, script, old, new, cause)| EventKind::BalanceChange {
                    spk,
                    script,
                    old,
                    new,
                    cause
                }
            ),
            (spk(), script(), status(), summary(), any::<u32>()).prop_map(
                |(spk, script, previous, transaction, confirmations)| {
                    EventKind::TransactionUpdate {
                        spk,
                        script,
                        previous: previous.phase(),
                        transaction,
                        confirmations,
                    }
                }
            ),
            (block_id(), any::<u32>(), any::<u32>()).prop_map(|(block, time, transactions)| {
                EventKind::Block {
                    block,
                    time,
                    transactions,
                }
            }),
            (block_id(), block_id(), any::<u32>()).prop_map(|(old_tip, fork_point, depth)| {
                EventKind::Reorg {
                    old_tip,
                    fork_point,
                    depth,
                }
            }),
            (spk(), script(), any::<[u64; 2]>(), any::<[u32; 2]>()).prop_map(
                |(spk, script, [scan, transactions], [from, to])| {
                    EventKind::ScanComplete {
                        spk,
                        script,
                        scan: ScanId(scan),
                        from,
                        to,
                        transactions,
                    }
                }
            ),
            (spk(), script()).prop_map(|(spk, script)| EventKind::Unwatched { spk, script }),
        ]
    }

    proptest! {
        #[test]
        fn every_event_comes_back_as_it_was(time: u64, tip in option::of(block_id()), kind in kind()) {
            let event = Event { time, tip, kind };
            prop_assert_eq!(Event::from_bytes(&event.to_bytes()), Ok(event));
        }
    }

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
