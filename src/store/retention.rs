//! Which events are old enough to be deleted (`events.retention_days`).
//!
//! The machine's clock alone is not trusted: it may be a year ahead until the network sets it, and
//! so may be the times of events. An event is old when the clock and the chain say so. The chain's
//! time is the median time of its last eleven blocks (BIP 113), which never falls; of the first ten
//! blocks that we know it is the median of fewer, which may. An event is at least as old as the
//! block that came after it.

use super::db::{EVENTS, meta};
use super::log::PRUNE_LIMIT;
use super::{Snapshot, StoreError};
use crate::tracker::Event;

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
            times.extend(self.block(height)?.map(|block| block.time));
        }
        times.sort_unstable();
        let median = times.get(times.len() / 2);
        median.copied().ok_or_else(|| self.missing_block(height))
    }
}
