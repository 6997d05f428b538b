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

use crate::store::{ConsumerEdit, Delivery, Failing};
use crate::tracker::SubjectId;

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

/// The partition of an event: the same for all events of a script, or of a descriptor. `None`:
/// blocks and reorgs.
pub fn partition_of(subject: Option<SubjectId>) -> usize {
    let [first, ..] = match subject {
        Some(SubjectId::Script(script)) => script.0,
        Some(SubjectId::Descriptor(descriptor)) => descriptor.0,
        None => [0; 32],
    };
    usize::from(first) % PARTITIONS
}

/// One attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub partition: usize,
    pub delivery: Delivery,
    began: u64,
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
    Waits(Failing),
    /// It is settled, and a dead letter.
    GivenUp(Failing),
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
    in_flight: Option<Delivery>,
    /// Nothing is sent before.
    due: u64,
    /// Something was settled since changes were taken.
    moved: bool,
}

impl Partition {
    /// The first one, unless something is in flight.
    fn next(&self) -> Option<Delivery> {
        let resend = self.resends.first().map(|number| (true, *number));
        let next = resend.or_else(|| self.events.front().map(|number| (false, *number)));
        next.filter(|_| self.in_flight.is_none())
            .map(|(resend, number)| Delivery { resend, number })
    }

    fn has_room(&self) -> bool {
        self.events.len() < WINDOW
    }

    /// Everything of it up to this number is settled.
    fn done(&self) -> u64 {
        let first = self.events.front();
        first.map_or(self.read, |number| number.saturating_sub(1))
    }

    fn wants(&self, delivery: Delivery) -> bool {
        !delivery.resend || self.resends.contains(&delivery.number)
    }

    fn settle(&mut self, Delivery { resend, number }: Delivery) {
        if resend {
            self.resends.remove(&number);
        } else if self.events.front() == Some(&number) {
            self.events.pop_front();
            self.moved = true;
        }
        self.due = 0;
    }
}

#[derive(Debug)]
pub struct Partitions {
    give_up_after: u64,
    partitions: [Partition; PARTITIONS],
    /// What has failed since it was last asked for.
    failing: BTreeMap<Delivery, Failing>,
    /// What is to be written down, besides the place.
    changes: Vec<ConsumerEdit>,
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
            failing: BTreeMap::new(),
            changes: Vec::new(),
            failures: 0,
            last_failure: 0,
            quiet_until: 0,
            stopped,
        }
    }

    /// Takes over what failed before a restart. Time in which the daemon was off does not count: no
    /// receiver can be held to that. A pause that it may have asked for counts.
    pub fn restore(&mut self, failing: BTreeMap<Delivery, Failing>, now: u64) {
        let last_tried = failing.values().map(|it| it.last_tried).max();
        let pause = now.saturating_sub(last_tried.unwrap_or(now));
        let off = pause.saturating_sub(LONGEST_QUIET);
        self.failing = failing;
        for (delivery, failing) in self.failing.iter_mut().filter(|_| off > 0) {
            failing.first_failed = failing.first_failed.saturating_add(off);
            failing.last_tried = now;
            self.changes
                .push(ConsumerEdit::Failing(*delivery, *failing));
        }
    }

    /// What is to be written with the place.
    pub fn take_changes(&mut self) -> Vec<ConsumerEdit> {
        let (place, mut changes) = (self.place(), std::mem::take(&mut self.changes));
        let (resend, number) = (false, place);
        let passed = ..=Delivery { resend, number };
        // What nobody wants any more was not settled.
        let left = self.failing.extract_if(passed, |_, _| true);
        changes.extend(left.map(|(delivery, _)| ConsumerEdit::NotFailing(delivery)));
        for (at, partition) in (0..).zip(&mut self.partitions) {
            if std::mem::take(&mut partition.moved) && partition.done() > place {
                changes.push(ConsumerEdit::PartitionDone(at, partition.done()));
            }
        }
        changes
    }

    /// After which number the log is to be read on: where the first of those partitions is that
    /// are not half full. One that was full is read on in pages, not event by event.
    pub fn read_after(&self) -> Option<u64> {
        let partitions = self.partitions.iter();
        let low = partitions.filter(|it| it.events.len() <= WINDOW / 2);
        low.map(|it| it.read).min()
    }

    /// Takes what was read after `after`, up to `next`: partition and number. Partitions that are
    /// further already, or are not so far, or have no room, leave theirs.
    pub fn load(&mut self, after: u64, events: impl IntoIterator<Item = (usize, u64)>, next: u64) {
        let takes = |it: &Partition| it.read >= after && it.has_room();
        for (at, number) in events {
            if let Some(partition) = self.partitions.get_mut(at)
                && takes(partition)
                && number > partition.read
            {
                partition.events.push_back(number);
                partition.read = number;
            }
        }
        for partition in self.partitions.iter_mut().filter(|it| takes(it)) {
            partition.read = partition.read.max(next);
        }
    }

    /// A dead letter is to be sent again. Who asks for that thinks that the receiver is back: it is
    /// tried at once.
    pub fn resend(&mut self, at: usize, number: u64) {
        self.quiet_until = 0;
        if let Some(partition) = self.partitions.get_mut(at) {
            partition.resends.insert(number);
            partition.due = 0;
        }
    }

    /// This dead letter, or none at all, is to be sent again after all.
    pub fn drop_resends(&mut self, number: Option<u64>) {
        let is_dropped = |it: &u64| number.is_none_or(|number| *it == number);
        for partition in &mut self.partitions {
            for number in partition.resends.extract_if(.., is_dropped) {
                let resend = true;
                self.failing.remove(&Delivery { resend, number });
                partition.due = 0;
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
            let delivery = partition.next().filter(|_| partition.due <= now)?;
            partition.in_flight = Some(delivery);
            Some(Attempt {
                partition: at,
                delivery,
                began: now,
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
        partition.wants(attempt.delivery).then_some(partition)
    }

    fn settle(&mut self, attempt: Attempt) -> bool {
        if self.failing.remove(&attempt.delivery).is_some() {
            let done = ConsumerEdit::NotFailing(attempt.delivery);
            self.changes.push(done);
        }
        let settle = |it: &mut Partition| it.settle(attempt.delivery);
        self.finish(attempt).map(settle).is_some()
    }

    /// The receiver took it. Whether it was a dead letter, and is none any more.
    pub fn delivered(&mut self, attempt: Attempt) -> bool {
        let Delivery { resend, number } = attempt.delivery;
        let is_resent = self.settle(attempt) && resend;
        if is_resent {
            self.changes.push(ConsumerEdit::DropDeadLetter(number));
        }
        if self.failures >= DOWN {
            self.retry_all_now();
        }
        self.failures = 0;
        is_resent
    }

    /// Nothing is left to be sent: the log or the dead letter is gone. Says nothing about the
    /// receiver.
    pub fn gone(&mut self, attempt: Attempt) {
        self.settle(attempt);
    }

    /// The receiver wants nothing any more. What failed before does not count when it is resumed.
    pub fn stop(&mut self, attempt: Attempt) {
        self.stopped = true;
        self.finish(attempt);
        self.failing.clear();
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
        if self.finish(attempt).is_none() {
            return Failed::Ignored;
        }
        let failing = self.failing.entry(attempt.delivery).or_insert(Failing {
            attempts: 0,
            first_failed: now,
            last_tried: now,
        });
        failing.attempts = failing.attempts.saturating_add(1);
        failing.last_tried = now;
        let failing = *failing;
        if may_give_up && now.saturating_sub(failing.first_failed) >= self.give_up_after {
            self.settle(attempt);
            return Failed::GivenUp(failing);
        }
        let wait = jittered(wait_after(u64::from(failing.attempts)), jitter);
        if let Some(partition) = self.partitions.get_mut(attempt.partition) {
            partition.due = now.saturating_add(wait);
        }
        let row = ConsumerEdit::Failing(attempt.delivery, failing);
        self.changes.push(row);
        Failed::Waits(failing)
    }

    /// All events of the log up to this number are settled.
    pub fn place(&self) -> u64 {
        let done = self.partitions.iter().map(Partition::done);
        done.min().unwrap_or_default()
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
        let next = self.partitions.iter().filter_map(Partition::next);
        next.filter(|next| self.failing.contains_key(next)).count()
    }

    /// Something has failed and is not settled yet.
    pub fn is_failing(&self) -> bool {
        !self.failing.is_empty()
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
