//! Time that is passed, not waited for.

use std::time::Duration;

pub use crate::seam::Now;

pub fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn later(now: Now, ms: u64) -> Now {
    Now {
        instant: now.instant + millis(ms),
        ms: now.ms + ms,
    }
}
