//! How long the node is left alone after calls that failed.

use std::time::{Duration, Instant};

use super::times::{FIRST_PAUSE, FORGIVEN, LONGEST_PAUSE};

/// How failures follow one another. One call that always fails may stand between others that go
/// well, so a success ends the failure and not the memory of it.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failing: bool,
    pause: Duration,
    until: Option<Instant>,
}

impl Backoff {
    /// A call failed: none before [`Self::until`].
    pub(super) fn failed(&mut self, now: Instant) {
        self.failing = true;
        match self.until {
            // Calls that run side by side fail together: that is one failure.
            Some(until) if now < until => return,
            Some(until) if now < until + FORGIVEN => {
                self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
            }
            _ => self.pause = FIRST_PAUSE,
        }
        self.until = Some(now + self.pause);
    }

    /// A call went well. True if the one before did not.
    pub(super) fn answered(&mut self) -> bool {
        std::mem::take(&mut self.failing)
    }

    pub(super) fn failing(&self) -> bool {
        self.failing
    }

    /// When what is due at `at` may be asked.
    pub(super) fn not_before(&self, at: Instant) -> Instant {
        self.until.map_or(at, |until| at.max(until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn pauses_grow_from_failure_to_failure_whatever_goes_well_in_between() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..7 {
            backoff.failed(now);
            let until = backoff.not_before(now);
            assert!(backoff.failing());
            assert!(backoff.answered() && !backoff.answered());
            pauses.push((until - now).as_millis());
            now = after(until, 50);
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        now += FORGIVEN;
        backoff.failed(now);
        assert_eq!(
            backoff.not_before(now),
            after(now, 250),
            "a node that was well for long is asked again soon"
        );
    }

    #[test]
    fn calls_that_fail_together_are_one_failure() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        for ms in 0..10 {
            backoff.failed(after(now, ms));
            assert_eq!(backoff.not_before(now), after(now, 250));
        }
        backoff.failed(after(now, 250));
        assert_eq!(backoff.not_before(now), after(now, 750));
    }
}
