//! Which events are old enough to be deleted (`events.retention_days`).
//!
//! The machine's clock alone is not trusted: it may be a year ahead until the network sets it, and
//! so may be the times of events. An event is old when the clock and the chain say so. The chain's
//! time is the median time of its last eleven blocks (BIP 113), which never falls; of the first ten
//! blocks that we know it is the median of fewer, which may. An event is at least as old as the
//! block that came after it.

use rocksdb::{ReadOptions, WriteBatch};

use super::codec::Malformed;
use super::codec::keys::parse_number_key;
use super::families::{EVENTS, meta};
use super::{Snapshot, StoreError, Writer};
use crate::tracker::Event;

/// Events that one call of [`Writer::prune_events`] deletes at most, so that it does not hold up
/// the indexer.
pub const PRUNE_LIMIT: usize = 50_000;

/// Blocks whose median is the chain's time.
const MEDIAN_OF: u32 = 11;

/// What is old. Times in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutoff {
    /// Old by the clock is what happened before this.
    pub before: u64,
    /// Of what says that it happened after this the time is wrong, and the chain alone counts.
    pub now: u64,
    /// Height of the first block that is young by the chain.
    pub young: u32,
}

impl Cutoff {
    /// `None`: only what follows it can tell, since no block was known when it happened.
    pub(super) fn is_old(&self, event: &Event) -> Option<bool> {
        let is_young_by_clock = (self.before..=self.now).contains(&event.time);
        let next = event.tip?.height.saturating_add(1);
        Some(!is_young_by_clock && next < self.young)
    }
}

impl Snapshot<'_> {
    /// Which events are to be deleted when the last `keep` milliseconds are kept.
    pub fn cutoff(&self, now: u64, keep: u64) -> Result<Cutoff, StoreError> {
        Ok(Cutoff {
            before: now.saturating_sub(keep),
            now,
            young: self.first_young_block(keep / 1000)?,
        })
    }

    /// Height of the first block of the last `keep` seconds before the tip, as far as it matters to
    /// the events that are kept; 0 when all of them are young.
    fn first_young_block(&self, keep: u64) -> Result<u32, StoreError> {
        let (Some(tip), Some(lowest)) = (self.tip()?, self.first_tip()?) else {
            return Ok(0);
        };
        let limit = u64::from(self.median_time(tip.height)?).saturating_sub(keep);
        // All blocks between the two are known, since both were our tip.
        let (mut low, mut high) = (lowest, tip.height);
        while low < high {
            let middle = low + (high - low) / 2;
            match u64::from(self.median_time(middle)?) < limit {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(if low > lowest { low } else { 0 })
    }

    /// Height of the tip of the first event that has one.
    fn first_tip(&self) -> Result<Option<u32>, StoreError> {
        let first: u64 = self.required(meta::FIRST_SEQ)?;
        let events = self.scan_entries(EVENTS, &[], Some(&first.to_be_bytes()));
        for entry in events.take(PRUNE_LIMIT) {
            let (key, value) = entry?;
            if let Some(tip) = self.decode::<Event>(EVENTS, &key, &value)?.tip {
                return Ok(Some(tip.height));
            }
        }
        Ok(None)
    }

    /// The chain's time at this height, in seconds. At the first blocks that we know fewer than
    /// eleven count.
    fn median_time(&self, height: u32) -> Result<u32, StoreError> {
        let mut times = Vec::with_capacity(MEDIAN_OF as usize);
        for height in height.saturating_sub(MEDIAN_OF - 1)..=height {
            times.extend(self.block(&height)?.map(|block| block.time));
        }
        times.sort_unstable();
        let median = times.get(times.len() / 2);
        median.copied().ok_or_else(|| self.missing_block(height))
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
