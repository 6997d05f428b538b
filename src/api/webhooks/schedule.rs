//! What is sent when: a state machine without I/O. Time is in milliseconds, chance comes as an
//! argument.
//!
//! Events of one ordering key (a script, or all blocks) stand in a queue, oldest first; the first
//! may be in flight, the others wait for it. A queue whose first event failed waits: twice as long
//! after each failure. So does a whole receiver that says that it is overloaded; attempts that fail
//! side by side count once for it. When [`FAILING`] attempts in a row have failed, whatever their
//! events, the receiver itself is taken to be down: then one attempt at a time finds out whether it
//! is back, and when it is, all queues that wait are tried at once, each of them once, before their
//! own wait is over. A receiver that wants nothing any more (410) is left alone until a person
//! resumes it.
//!
//! ```text
//!            load            next                delivered
//!   log ──────────► fresh ─────────► in flight ─────────────► settled
//!                                     │  ▲   └─ failed, too late ─► given up (a dead letter), settled
//!                              failed ▼  │ next, when due
//!                                   waiting
//! ```

mod queue;

use std::collections::{BTreeMap, BTreeSet};

pub use queue::Tried;
use queue::{Item, Queue};

/// Events that are loaded and not settled.
pub const WINDOW: usize = 10_000;
/// Attempts of one webhook at the same time.
pub const IN_FLIGHT: usize = 8;
/// Failures in a row after which the receiver counts as down.
const FAILING: u64 = 5;
const FIRST_WAIT: u64 = 1000;
pub const LONGEST_WAIT: u64 = 3_600_000;
/// Between attempts at a receiver that is down while there are events that were never tried: only
/// they tell whether it is down or refuses the events that failed.
const FRESH_WAIT: u64 = 60_000;

/// One attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt<K> {
    pub key: K,
    pub number: u64,
    /// A dead letter that is sent again.
    pub resend: bool,
    pub began: u64,
    /// Before this attempt.
    pub tried: Tried,
}

/// Who is left alone after a failure, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// The events of this key, for as long as they failed often.
    Key,
    /// The receiver, which says that it is overloaded, for as long as it failed often.
    Receiver,
    /// The receiver, for as many milliseconds as it asked for.
    For(u64),
}

/// What a failure led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// It is tried again.
    Waits(Tried),
    /// It is settled, and a dead letter.
    GivenUp(Tried),
    /// It waits with all the others until the webhook is resumed, and does not count as failed.
    Stopped,
    /// Nobody wants it any more: it was a dead letter that has been dropped.
    Dropped,
}

#[derive(Debug)]
pub struct Schedule<K> {
    give_up_after: u64,
    queues: BTreeMap<K, Queue>,
    /// Queues that may be tried: (time, number, key). Never failed; failed.
    fresh: BTreeSet<(u64, u64, K)>,
    waiting: BTreeSet<(u64, u64, K)>,
    /// Events of the log that nothing has become of.
    unsettled: BTreeSet<u64>,
    /// The log was read up to this number.
    read: u64,
    in_flight: usize,
    /// In a row.
    failures: u64,
    /// Of those, without attempts that began before another one's failure was known.
    rounds: u64,
    last_failure: u64,
    /// The wait of a receiver that is down.
    down_for: u64,
    /// Somebody asked for something to be sent after the last attempt began.
    asked: bool,
    /// The receiver asked for quiet until then.
    quiet_until: u64,
    /// Nothing is sent until a person says so.
    stopped: bool,
}

impl<K: Ord + Copy> Schedule<K> {
    /// `read`: everything up to this number of the log is done.
    pub fn new(read: u64, give_up_after: u64, stopped: bool) -> Self {
        Self {
            give_up_after,
            queues: BTreeMap::new(),
            fresh: BTreeSet::new(),
            waiting: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            read,
            in_flight: 0,
            failures: 0,
            rounds: 0,
            last_failure: 0,
            down_for: 0,
            asked: false,
            quiet_until: 0,
            stopped,
        }
    }

    /// How many events may be loaded.
    pub fn room(&self) -> usize {
        WINDOW.saturating_sub(self.unsettled.len())
    }

    /// An event of the log that is to be delivered, later than all before.
    pub fn load(&mut self, number: u64, key: K, tried: Tried, now: u64) {
        self.read = number;
        self.unsettled.insert(number);
        self.change(key, now, |queue| {
            queue.events.push_back(Item { number, tried })
        });
    }

    /// Everything up to `number` was loaded or need not be.
    pub fn read_to(&mut self, number: u64) {
        self.read = self.read.max(number);
    }

    /// A dead letter is to be sent again. Who asks for that thinks that the receiver is back: it is
    /// tried at once.
    pub fn resend(&mut self, number: u64, key: K, tried: Tried, now: u64) {
        (self.asked, self.quiet_until) = (true, 0);
        self.change(key, now, |queue| {
            queue.resend(Item { number, tried });
            if queue.first().is_some_and(|first| first.tried.attempts > 0) {
                // It was asked for before, and failed again.
                (queue.due, queue.retried_early) = (now, 0);
            }
        });
    }

    /// A dead letter is not to be sent again after all.
    pub fn drop_resend(&mut self, number: u64, key: K, now: u64) {
        self.change(key, now, |queue| queue.drop_resend(number));
    }

    /// A person says that the receiver is back: everything that waits may go now, also of a webhook
    /// that was stopped. How many events wait.
    pub fn retry(&mut self, now: u64) -> usize {
        (self.stopped, self.asked) = (false, true);
        (self.failures, self.rounds, self.quiet_until) = (0, 0, 0);
        for (_, _, key) in self.waiting.clone() {
            self.change(key, now, |queue| {
                (queue.due, queue.retried_early) = (now, 0)
            });
        }
        let all: usize = self.queues.values().map(Queue::len).sum();
        all.saturating_sub(self.in_flight)
    }

    /// The next attempt to begin, if one may begin now.
    pub fn next(&mut self, now: u64) -> Option<Attempt<K>> {
        if now < self.begins_at()? {
            return None;
        }
        let (fresh, waiting) = (self.fresh.first().copied(), self.waiting.first().copied());
        let chosen = if self.is_down() {
            fresh.or(waiting)
        } else {
            fresh.into_iter().chain(waiting).min()
        };
        let (_, number, key) = chosen?;
        let queue = self.queues.get_mut(&key)?;
        let (resend, tried) = (!queue.resends.is_empty(), queue.first()?.tried);
        self.asked = false;
        queue.in_flight = Some(resend);
        self.in_flight = self.in_flight.saturating_add(1);
        self.change(key, now, |_| ());
        Some(Attempt {
            key,
            number,
            resend,
            began: now,
            tried,
        })
    }

    /// When the next attempt may begin; `None` when there is nothing to send, or too much in
    /// flight. May be in the past.
    pub fn begins_at(&self) -> Option<u64> {
        if self.stopped {
            return None;
        }
        let first = |list: &BTreeSet<(u64, u64, K)>| list.first().map(|(at, ..)| *at);
        let earliest = first(&self.fresh)
            .into_iter()
            .chain(first(&self.waiting))
            .min()?;
        let at = match (self.is_down(), self.in_flight) {
            (false, 0..IN_FLIGHT) => earliest,
            (true, 0) if self.asked => earliest.min(self.last_failure),
            (true, 0) if self.fresh.is_empty() => self.last_failure.saturating_add(self.down_for),
            (true, 0) => self
                .last_failure
                .saturating_add(self.down_for.min(FRESH_WAIT)),
            _ => return None,
        };
        Some(at.max(self.quiet_until))
    }

    fn is_down(&self) -> bool {
        self.failures >= FAILING
    }

    /// The receiver took it. False when it was a dead letter that has been dropped.
    pub fn delivered(&mut self, attempt: Attempt<K>, now: u64) -> bool {
        let (was_down, wanted) = (self.is_down(), !self.is_dropped(&attempt));
        (self.failures, self.rounds) = (0, 0);
        self.settle(attempt, now);
        if was_down {
            self.retry_all_now(now);
        }
        wanted
    }

    /// Nothing is left to be sent: the log or the dead letter is gone. Says nothing about the
    /// receiver.
    pub fn gone(&mut self, attempt: Attempt<K>, now: u64) {
        self.settle(attempt, now);
    }

    /// The receiver wants nothing any more. What failed before does not count when it is resumed.
    pub fn stop(&mut self, attempt: Attempt<K>, now: u64) {
        self.stopped = true;
        self.finish_stopped(attempt, now);
        let keys: Vec<_> = self.queues.keys().copied().collect();
        for key in keys {
            self.change(key, now, |queue| queue.forget_failures(now));
        }
    }

    fn finish_stopped(&mut self, attempt: Attempt<K>, now: u64) -> Failed {
        if self.is_dropped(&attempt) {
            self.settle(attempt, now);
            return Failed::Dropped;
        }
        self.finish(attempt, now);
        Failed::Stopped
    }

    /// An attempt failed. `jitter`: from 0 to 1. `may_give_up`: there is room for a dead letter.
    pub fn failed(
        &mut self,
        attempt: Attempt<K>,
        now: u64,
        pause: Pause,
        jitter: f64,
        may_give_up: bool,
    ) -> Failed {
        if self.stopped {
            return self.finish_stopped(attempt, now);
        }
        self.failures = self.failures.saturating_add(1);
        if self.rounds == 0 || attempt.began > self.last_failure {
            self.rounds = self.rounds.saturating_add(1);
        }
        self.last_failure = now;
        let since_down = self.rounds.saturating_sub(FAILING).saturating_add(1);
        self.down_for = jittered(wait_after(since_down), jitter);
        let quiet = match pause {
            Pause::Key => 0,
            Pause::Receiver => jittered(wait_after(self.rounds), jitter),
            Pause::For(wait) => wait.min(LONGEST_WAIT),
        };
        self.quiet_until = self.quiet_until.max(now.saturating_add(quiet));
        let is_dropped = self.is_dropped(&attempt);
        let Some(queue) = self.queues.get_mut(&attempt.key) else {
            return Failed::Dropped;
        };
        let Some(item) = queue.part(attempt.resend).front_mut() else {
            return Failed::Dropped;
        };
        item.tried.fail(now);
        let tried = item.tried;
        let due = now.saturating_add(jittered(wait_after(u64::from(tried.attempts)), jitter));
        queue.due = due.max(queue.retried_early);
        if is_dropped {
            self.settle(attempt, now);
            return Failed::Dropped;
        }
        let too_late = now.saturating_sub(tried.first_failed) >= self.give_up_after;
        if may_give_up && too_late {
            self.settle(attempt, now);
            return Failed::GivenUp(tried);
        }
        self.finish(attempt, now);
        Failed::Waits(tried)
    }

    fn is_dropped(&self, attempt: &Attempt<K>) -> bool {
        let queue = self.queues.get(&attempt.key);
        queue.is_some_and(|queue| queue.dropped_in_flight(attempt.resend))
    }

    /// It is not in flight any more.
    fn finish(&mut self, attempt: Attempt<K>, now: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.change(attempt.key, now, |queue| queue.in_flight = None);
    }

    /// The first of its key is done, and the one behind it may go.
    fn settle(&mut self, attempt: Attempt<K>, now: u64) {
        self.finish(attempt, now);
        self.change(attempt.key, now, |queue| {
            queue.part(attempt.resend).pop_front();
            queue.dropped = false;
            queue.retried_early = 0;
            queue.due = now;
        });
        if !attempt.resend {
            self.unsettled.remove(&attempt.number);
        }
    }

    /// The receiver is back: what waits need not wait.
    fn retry_all_now(&mut self, now: u64) {
        for (due, _, key) in self.waiting.clone() {
            self.change(key, now, |queue| {
                if due > now && queue.retried_early <= now {
                    (queue.retried_early, queue.due) = (due, now);
                }
            });
        }
    }

    /// Changes a queue and where it is listed.
    fn change(&mut self, key: K, now: u64, change: impl FnOnce(&mut Queue)) {
        let queue = self.queues.entry(key).or_insert_with(|| Queue::new(now));
        if let Some((is_fresh, at, number)) = queue.listed.take() {
            let list = if is_fresh {
                &mut self.fresh
            } else {
                &mut self.waiting
            };
            list.remove(&(at, number, key));
        }
        change(queue);
        match queue.first().copied() {
            None => _ = self.queues.remove(&key),
            Some(_) if queue.in_flight.is_some() => {}
            Some(item) => {
                let is_fresh = item.tried.attempts == 0;
                let (list, at) = if is_fresh {
                    (&mut self.fresh, queue.due.min(now))
                } else {
                    (&mut self.waiting, queue.due)
                };
                queue.listed = Some((is_fresh, at, item.number));
                list.insert((at, item.number, key));
            }
        }
    }

    /// All events of the log up to this number are settled.
    pub fn place(&self) -> u64 {
        self.unsettled
            .first()
            .map_or(self.read, |number| number.saturating_sub(1))
    }

    /// The log was read up to this number.
    pub fn read_up_to(&self) -> u64 {
        self.read
    }

    /// Events that are loaded and not settled.
    pub fn pending(&self) -> usize {
        self.unsettled.len()
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Queues whose first event has failed and will be tried again.
    pub fn retrying(&self) -> usize {
        self.waiting.len()
    }

    /// Failures in a row.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Nothing is sent until a person says so.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }
}

/// The whole wait after the `failures`th failure.
fn wait_after(failures: u64) -> u64 {
    let doublings = u32::try_from(failures.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .min(12);
    FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT)
}

/// Half of the wait to the whole of it.
fn jittered(wait: u64, jitter: f64) -> u64 {
    let half = wait / 2;
    half.saturating_add(((wait - half) as f64 * jitter.clamp(0.0, 1.0)) as u64)
}

#[cfg(test)]
mod tests;
