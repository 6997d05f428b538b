//! What is sent when: a state machine without I/O. Time is in milliseconds, chance comes as an
//! argument.
//!
//! The events of a webhook are spread over [`PARTITIONS`] partitions by the hash of their script;
//! blocks and reorgs are in the first. Within a partition events are sent in the order of their
//! numbers, one at a time; partitions do not wait for each other. A partition whose first event
//! failed waits, twice as long after each failure; so does the whole webhook when the receiver says
//! that it is overloaded. When the receiver takes something after a row of failures, partitions
//! that wait try at once. A receiver that wants nothing any more (410) gets nothing until a person
//! resumes the webhook.
//!
//! ```text
//!          load                next                delivered
//!   log ─────────► partition ─────────► in flight ────────────► settled
//!                      ▲                 │   └─ failed, too late ─► a dead letter, settled
//!                      └─────────────────┘
//!                       failed, when due
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::tracker::ScriptHash;

pub const PARTITIONS: usize = 8;
/// Events that one partition has loaded and not settled.
pub const WINDOW: usize = 1000;
/// Failures in a row after which a success means that the receiver is back.
const DOWN: u64 = 5;
const FIRST_WAIT: u64 = 1000;
/// Of a partition.
const LONGEST_WAIT: u64 = 600_000;
/// Of the whole receiver, when it asks for it.
pub const LONGEST_QUIET: u64 = 3_600_000;

/// The partition of an event: the same for all events of a script. `None`: blocks and reorgs.
pub fn partition_of(script: Option<&ScriptHash>) -> usize {
    let [first, ..] = script.map_or([0; 32], |script| script.0);
    usize::from(first) % PARTITIONS
}

/// How often an event failed since it was last asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tried {
    pub attempts: u32,
    /// Of the first failure, once there was one.
    pub first_failed: u64,
}

/// One attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub partition: usize,
    pub number: u64,
    /// A dead letter that is sent again.
    pub resend: bool,
    began: u64,
    /// It has failed before.
    pub failed_before: bool,
}

/// Who waits after a failure, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// The partition, for as long as the event failed often.
    Partition,
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
    /// The webhook is stopped, or it was a dead letter that has been dropped: it does not count.
    Ignored,
}

#[derive(Debug, Default)]
struct Partition {
    /// The log was read up to this number for it.
    read: u64,
    /// Not settled, oldest first.
    events: VecDeque<u64>,
    /// Dead letters that are sent again: before the events.
    resends: BTreeSet<u64>,
    /// What has failed, by resend and number.
    failing: BTreeMap<(bool, u64), Tried>,
    /// Resend and number.
    in_flight: Option<(bool, u64)>,
    /// Nothing is sent before.
    due: u64,
}

impl Partition {
    fn first(&self) -> Option<(bool, u64)> {
        let resend = self.resends.first().map(|number| (true, *number));
        resend.or_else(|| self.events.front().map(|number| (false, *number)))
    }

    /// The first one, unless something is in flight.
    fn next(&self) -> Option<(bool, u64)> {
        self.first().filter(|_| self.in_flight.is_none())
    }

    fn has_room(&self) -> bool {
        self.events.len() < WINDOW
    }

    /// Everything of it up to this number is settled.
    fn done(&self) -> u64 {
        let first = self.events.front();
        first.map_or(self.read, |number| number.saturating_sub(1))
    }

    fn settle(&mut self, resend: bool, number: u64) {
        if resend {
            self.resends.remove(&number);
        } else if self.events.front() == Some(&number) {
            self.events.pop_front();
        }
        self.failing.remove(&(resend, number));
        self.due = 0;
    }
}

#[derive(Debug)]
pub struct Partitions {
    give_up_after: u64,
    partitions: [Partition; PARTITIONS],
    /// In a row; attempts that fail side by side count once.
    failures: u64,
    last_failure: u64,
    /// The receiver asked for quiet until then.
    quiet_until: u64,
    /// Nothing is sent until a person says so.
    stopped: bool,
}

impl Partitions {
    /// `done`: up to where the events of each partition are done.
    pub fn new(done: [u64; PARTITIONS], give_up_after: u64, stopped: bool) -> Self {
        let begin = |read| Partition {
            read,
            ..Partition::default()
        };
        Self {
            give_up_after,
            partitions: done.map(begin),
            failures: 0,
            last_failure: 0,
            quiet_until: 0,
            stopped,
        }
    }

    /// After which number the log is to be read on: where the first of those partitions is that
    /// are not half full. One that was full is read on in pages, not event by event.
    pub fn read_after(&self) -> Option<u64> {
        let partitions = self.partitions.iter();
        let low = partitions.filter(|it| it.events.len() <= WINDOW / 2);
        low.map(|it| it.read).min()
    }

    /// Takes what was read after `after`, up to `next`: partition, number and what is known of its
    /// failures. Partitions that are further already, or are not so far, or have no room, leave
    /// theirs.
    pub fn load(
        &mut self,
        after: u64,
        events: impl IntoIterator<Item = (usize, u64, Option<Tried>)>,
        next: u64,
    ) {
        let takes = |it: &Partition| it.read >= after && it.has_room();
        for (at, number, tried) in events {
            let Some(partition) = self.partitions.get_mut(at) else {
                continue;
            };
            if takes(partition) && number > partition.read {
                partition.events.push_back(number);
                partition.read = number;
                if let Some(tried) = tried {
                    partition.failing.insert((false, number), tried);
                }
            }
        }
        for partition in self.partitions.iter_mut().filter(|it| takes(it)) {
            partition.read = partition.read.max(next);
        }
    }

    /// A dead letter is to be sent again. Who asks for that thinks that the receiver is back: it is
    /// tried at once.
    pub fn resend(&mut self, at: usize, number: u64, tried: Option<Tried>) {
        self.quiet_until = 0;
        if let Some(partition) = self.partitions.get_mut(at) {
            partition.resends.insert(number);
            if let Some(tried) = tried {
                partition.failing.insert((true, number), tried);
            }
            partition.due = 0;
        }
    }

    /// A dead letter is not to be sent again after all.
    pub fn drop_resend(&mut self, at: usize, number: u64) {
        if let Some(partition) = self.partitions.get_mut(at)
            && partition.resends.contains(&number)
        {
            partition.settle(true, number);
        }
    }

    /// No dead letter is to be sent again after all.
    pub fn drop_all_resends(&mut self) {
        for partition in &mut self.partitions {
            for number in std::mem::take(&mut partition.resends) {
                partition.settle(true, number);
            }
        }
    }

    /// A person says that the receiver is back: everything that waits may go now, also of a webhook
    /// that was stopped. How many events wait.
    pub fn retry(&mut self) -> usize {
        (self.stopped, self.failures, self.quiet_until) = (false, 0, 0);
        self.retry_all_now();
        let waiting = self.partitions.iter().map(|it| {
            let all = it.events.len().saturating_add(it.resends.len());
            all.saturating_sub(usize::from(it.in_flight.is_some()))
        });
        waiting.sum()
    }

    fn retry_all_now(&mut self) {
        for partition in &mut self.partitions {
            partition.due = 0;
        }
    }

    /// The next attempt to begin, if one may begin now.
    pub fn next(&mut self, now: u64) -> Option<Attempt> {
        if self.stopped || now < self.quiet_until {
            return None;
        }
        let mut partitions = self.partitions.iter_mut().enumerate();
        partitions.find_map(|(at, partition)| {
            let (resend, number) = partition.next().filter(|_| partition.due <= now)?;
            partition.in_flight = Some((resend, number));
            Some(Attempt {
                partition: at,
                number,
                resend,
                began: now,
                failed_before: partition.failing.contains_key(&(resend, number)),
            })
        })
    }

    /// When the next attempt may begin; `None` when there is nothing to send. May be in the past.
    pub fn begins_at(&self) -> Option<u64> {
        let ready = self.partitions.iter().filter(|it| it.next().is_some());
        let due = ready.map(|it| it.due).min().filter(|_| !self.stopped)?;
        Some(due.max(self.quiet_until))
    }

    /// It is not in flight any more. Its partition, and whether it is wanted: a dead letter may
    /// have been dropped.
    fn finish(&mut self, attempt: Attempt) -> Option<&mut Partition> {
        let partition = self.partitions.get_mut(attempt.partition)?;
        partition.in_flight = None;
        let is_wanted = !attempt.resend || partition.resends.contains(&attempt.number);
        is_wanted.then_some(partition)
    }

    /// The receiver took it. False when it was a dead letter that has been dropped.
    pub fn delivered(&mut self, attempt: Attempt) -> bool {
        let is_wanted = self.gone(attempt);
        if self.failures >= DOWN {
            self.retry_all_now();
        }
        self.failures = 0;
        is_wanted
    }

    /// Nothing is left to be sent: the log or the dead letter is gone. Says nothing about the
    /// receiver.
    pub fn gone(&mut self, attempt: Attempt) -> bool {
        let partition = self.finish(attempt);
        let settle = |it: &mut Partition| it.settle(attempt.resend, attempt.number);
        partition.map(settle).is_some()
    }

    /// The receiver wants nothing any more. What failed before does not count when it is resumed.
    pub fn stop(&mut self, attempt: Attempt) {
        self.stopped = true;
        self.finish(attempt);
        for partition in &mut self.partitions {
            partition.failing.clear();
        }
        self.retry_all_now();
    }

    /// An attempt failed. `jitter`: from 0 to 1. `may_give_up`: there is room for a dead letter.
    pub fn failed(
        &mut self,
        attempt: Attempt,
        now: u64,
        pause: Pause,
        jitter: f64,
        may_give_up: bool,
    ) -> Failed {
        if self.stopped {
            self.finish(attempt);
            return Failed::Ignored;
        }
        if self.failures == 0 || attempt.began > self.last_failure {
            self.failures = self.failures.saturating_add(1);
        }
        self.last_failure = now;
        let quiet = match pause {
            Pause::Partition => 0,
            Pause::Receiver => jittered(wait_after(self.failures), jitter),
            Pause::For(wait) => wait.min(LONGEST_QUIET),
        };
        self.quiet_until = self.quiet_until.max(now.saturating_add(quiet));
        let give_up_after = self.give_up_after;
        let Some(partition) = self.finish(attempt) else {
            return Failed::Ignored;
        };
        let tried = partition
            .failing
            .entry((attempt.resend, attempt.number))
            .or_insert(Tried {
                attempts: 0,
                first_failed: now,
            });
        tried.attempts = tried.attempts.saturating_add(1);
        let tried = *tried;
        if may_give_up && now.saturating_sub(tried.first_failed) >= give_up_after {
            partition.settle(attempt.resend, attempt.number);
            return Failed::GivenUp(tried);
        }
        partition.due = now.saturating_add(jittered(wait_after(u64::from(tried.attempts)), jitter));
        Failed::Waits(tried)
    }

    /// All events of the log up to this number are settled.
    pub fn place(&self) -> u64 {
        let done = self.partitions.iter().map(Partition::done);
        done.min().unwrap_or_default()
    }

    /// Everything of this partition up to this number is settled.
    pub fn done(&self, at: usize) -> u64 {
        self.partitions.get(at).map_or(0, Partition::done)
    }

    /// Events that are loaded and not settled.
    pub fn pending(&self) -> usize {
        self.partitions.iter().map(|it| it.events.len()).sum()
    }

    pub fn in_flight(&self) -> usize {
        let in_flight = self.partitions.iter().filter_map(|it| it.in_flight);
        in_flight.count()
    }

    /// Partitions whose first event has failed and will be tried again.
    pub fn retrying(&self) -> usize {
        let failed = |it: &&Partition| {
            it.next()
                .is_some_and(|first| it.failing.contains_key(&first))
        };
        self.partitions.iter().filter(failed).count()
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
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST_WAIT
        .saturating_mul(1 << doublings.min(12))
        .min(LONGEST_WAIT)
}

/// Half of the wait to the whole of it.
fn jittered(wait: u64, jitter: f64) -> u64 {
    let half = wait / 2;
    half.saturating_add(((wait - half) as f64 * jitter.clamp(0.0, 1.0)) as u64)
}

#[cfg(test)]
mod tests;
