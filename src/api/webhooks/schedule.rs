//! What is sent when: a state machine without I/O. Time is in milliseconds, chance comes as an
//! argument.
//!
//! Events stand in lanes (one per script, one for blocks), oldest first; the first of a lane may be
//! in flight, the others wait for it. A lane whose first event failed waits: twice as long after
//! each failure. When [`FAILING`] attempts in a row have failed, whatever their events, the
//! receiver itself is taken to be down: then one attempt at a time finds out whether it is back,
//! and when it is, all lanes that wait are tried at once, each of them once, and not only when
//! their own wait is over.
//!
//! ```text
//!            load            next                delivered
//!   log ──────────► fresh ─────────► in flight ─────────────► settled
//!                                     │  ▲   └─ failed, too late ─► given up (a dead letter), settled
//!                              failed ▼  │ next, when due
//!                                   waiting
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Events that are loaded and not settled.
pub const WINDOW: usize = 10_000;
/// Attempts of one webhook at the same time.
pub const IN_FLIGHT: usize = 8;
/// Failures in a row after which the receiver counts as down.
const FAILING: u64 = 5;
const FIRST_WAIT: u64 = 1000;
const LONGEST_WAIT: u64 = 3_600_000;
/// Between attempts at a receiver that is down while there are events that were never tried: only
/// they tell whether it is down or refuses the events that failed.
const FRESH_WAIT: u64 = 60_000;

/// One attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flight<L> {
    pub lane: L,
    pub number: u64,
    /// A dead letter that is sent again.
    pub again: bool,
}

/// What a failure led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// It is tried again.
    Waits,
    /// It is settled, and a dead letter.
    GivenUp { attempts: u32, first_failed: u64 },
    /// Nobody wants it any more: it was a dead letter that has been forgotten.
    Forgotten,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    number: u64,
    attempts: u32,
    /// Of the first failure, once there was one.
    first_failed: u64,
}

#[derive(Debug)]
struct Lane {
    /// Dead letters that are sent again: before the others.
    again: VecDeque<Item>,
    queue: VecDeque<Item>,
    /// What is in flight is the first of `again`, not of `queue`.
    in_flight: Option<bool>,
    /// The dead letter in flight was forgotten.
    forgotten: bool,
    /// The first event waits until then if it has failed, and has waited since then if it has not.
    due: u64,
    /// It was tried before its time once; not again before this time.
    hurried: u64,
    /// How it stands in `fresh` (true) or `waiting`.
    listed: Option<(bool, u64, u64)>,
}

impl Lane {
    fn first(&self) -> Option<&Item> {
        self.again.front().or_else(|| self.queue.front())
    }
}

#[derive(Debug)]
pub struct Schedule<L> {
    give_up_after: u64,
    lanes: BTreeMap<L, Lane>,
    /// Lanes that may be tried: (time, number, lane). Never failed; failed.
    fresh: BTreeSet<(u64, u64, L)>,
    waiting: BTreeSet<(u64, u64, L)>,
    /// Events of the log that nothing has become of.
    unsettled: BTreeSet<u64>,
    /// The log was read up to this number.
    read: u64,
    in_flight: usize,
    /// In a row.
    failures: u64,
    last_failure: u64,
    /// The wait of a receiver that is down.
    down_for: u64,
    /// Somebody asked for something to be sent after the last attempt began.
    asked: bool,
    /// The receiver asked for quiet until then.
    quiet_until: u64,
}

impl<L: Ord + Copy> Schedule<L> {
    /// `read`: everything up to this number of the log is done.
    pub fn new(read: u64, give_up_after: u64) -> Self {
        Self {
            give_up_after,
            lanes: BTreeMap::new(),
            fresh: BTreeSet::new(),
            waiting: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            read,
            in_flight: 0,
            failures: 0,
            last_failure: 0,
            down_for: 0,
            asked: false,
            quiet_until: 0,
        }
    }

    /// How many events may be loaded.
    pub fn room(&self) -> usize {
        WINDOW.saturating_sub(self.unsettled.len())
    }

    /// An event of the log that is to be delivered, later than all before.
    pub fn load(&mut self, number: u64, lane: L, now: u64) {
        self.read = number;
        self.unsettled.insert(number);
        self.change(lane, now, |state| {
            state.queue.push_back(Item {
                number,
                attempts: 0,
                first_failed: 0,
            })
        });
    }

    /// Everything up to `number` was loaded or need not be.
    pub fn read_to(&mut self, number: u64) {
        self.read = self.read.max(number);
    }

    /// A dead letter is to be sent again. Who asks for that thinks that the receiver is back: it is
    /// tried at once.
    pub fn again(&mut self, number: u64, lane: L, now: u64) {
        self.asked = true;
        self.change(lane, now, |state| {
            if state
                .again
                .front()
                .is_some_and(|first| first.number == number)
            {
                // It waits already; or it was forgotten in flight, and is wanted once more.
                state.forgotten = false;
                return;
            }
            // Nothing comes before what is in flight, whatever its number. Most come in their
            // order: no search among thousands then.
            let (flying, count) = (
                usize::from(state.in_flight == Some(true)),
                state.again.len(),
            );
            let is_last = state.again.back().is_none_or(|last| last.number < number);
            let behind = || {
                state
                    .again
                    .iter()
                    .skip(flying)
                    .position(|item| item.number >= number)
            };
            let at = if is_last {
                count
            } else {
                behind().map_or(count, |at| at.saturating_add(flying))
            };
            if state.again.get(at).is_none_or(|item| item.number != number) {
                state.again.insert(
                    at,
                    Item {
                        number,
                        attempts: 0,
                        first_failed: 0,
                    },
                );
            }
        });
    }

    /// A dead letter is not to be sent again after all.
    pub fn forget(&mut self, number: u64, lane: L, now: u64) {
        self.change(lane, now, |state| {
            if state.in_flight == Some(true)
                && state
                    .again
                    .front()
                    .is_some_and(|item| item.number == number)
            {
                state.forgotten = true;
            } else if let Some(at) = state.again.iter().position(|item| item.number == number) {
                state.again.remove(at);
            }
        });
    }

    /// The next attempt to begin, if one may begin now.
    pub fn next(&mut self, now: u64) -> Option<Flight<L>> {
        if now < self.begins_at()? {
            return None;
        }
        let (fresh, waiting) = (self.fresh.first().copied(), self.waiting.first().copied());
        let chosen = if self.is_down() {
            fresh.or(waiting)
        } else {
            fresh.into_iter().chain(waiting).min()
        };
        let (_, number, lane) = chosen?;
        let state = self.lanes.get_mut(&lane)?;
        let again = !state.again.is_empty();
        self.asked = false;
        state.in_flight = Some(again);
        self.in_flight = self.in_flight.saturating_add(1);
        self.change(lane, now, |_| ());
        Some(Flight {
            lane,
            number,
            again,
        })
    }

    /// When the next attempt may begin; `None` when there is nothing to send, or too much in
    /// flight. May be in the past.
    pub fn begins_at(&self) -> Option<u64> {
        let first = |list: &BTreeSet<(u64, u64, L)>| list.first().map(|(at, ..)| *at);
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

    /// The receiver took it. False when it was a dead letter that has been forgotten.
    pub fn delivered(&mut self, flight: Flight<L>, now: u64) -> bool {
        let was_down = self.is_down();
        let wanted = !(flight.again
            && self
                .lanes
                .get(&flight.lane)
                .is_some_and(|lane| lane.forgotten));
        self.failures = 0;
        self.land(flight, now);
        self.settle(flight, now);
        if was_down {
            self.hurry_all(now);
        }
        wanted
    }

    /// Nothing is left to be sent: the log or the dead letter is gone. Says nothing about the
    /// receiver.
    pub fn gone(&mut self, flight: Flight<L>, now: u64) {
        self.land(flight, now);
        self.settle(flight, now);
    }

    /// An attempt failed. `jitter`: from 0 to 1. `may_give_up`: there is room for a dead letter.
    pub fn failed(
        &mut self,
        flight: Flight<L>,
        now: u64,
        retry_after: Option<u64>,
        jitter: f64,
        may_give_up: bool,
    ) -> Failed {
        self.failures = self.failures.saturating_add(1);
        self.last_failure = now;
        self.down_for = jittered(
            wait_after(self.failures.saturating_sub(FAILING).saturating_add(1)),
            jitter,
        );
        if let Some(wait) = retry_after {
            self.quiet_until = self
                .quiet_until
                .max(now.saturating_add(wait.min(LONGEST_WAIT)));
        }
        let Some(state) = self.lanes.get_mut(&flight.lane) else {
            return Failed::Forgotten;
        };
        let queue = if flight.again {
            &mut state.again
        } else {
            &mut state.queue
        };
        let Some(item) = queue.front_mut() else {
            return Failed::Forgotten;
        };
        if item.attempts == 0 {
            item.first_failed = now;
        }
        item.attempts = item.attempts.saturating_add(1);
        let item = *item;
        let due = now.saturating_add(jittered(wait_after(u64::from(item.attempts)), jitter));
        state.due = due.max(state.hurried);
        if flight.again && state.forgotten {
            self.land(flight, now);
            self.settle(flight, now);
            return Failed::Forgotten;
        }
        let given_up = may_give_up && now.saturating_sub(item.first_failed) >= self.give_up_after;
        self.land(flight, now);
        if !given_up {
            return Failed::Waits;
        }
        self.settle(flight, now);
        Failed::GivenUp {
            attempts: item.attempts,
            first_failed: item.first_failed,
        }
    }

    fn land(&mut self, flight: Flight<L>, now: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.change(flight.lane, now, |state| state.in_flight = None);
    }

    /// The first of its lane is done, and the one behind it may go.
    fn settle(&mut self, flight: Flight<L>, now: u64) {
        self.change(flight.lane, now, |state| {
            let queue = if flight.again {
                &mut state.again
            } else {
                &mut state.queue
            };
            queue.pop_front();
            state.forgotten = false;
            state.hurried = 0;
            state.due = now;
        });
        if !flight.again {
            self.unsettled.remove(&flight.number);
        }
    }

    /// The receiver is back: what waits need not wait.
    fn hurry_all(&mut self, now: u64) {
        for (due, _, lane) in self.waiting.clone() {
            self.change(lane, now, |state| {
                if due > now && state.hurried <= now {
                    (state.hurried, state.due) = (due, now);
                }
            });
        }
    }

    /// Changes a lane and where it is listed.
    fn change(&mut self, lane: L, now: u64, change: impl FnOnce(&mut Lane)) {
        let new = || Lane {
            again: VecDeque::new(),
            queue: VecDeque::new(),
            in_flight: None,
            forgotten: false,
            due: now,
            hurried: 0,
            listed: None,
        };
        let state = self.lanes.entry(lane).or_insert_with(new);
        if let Some((is_fresh, at, number)) = state.listed.take() {
            let list = if is_fresh {
                &mut self.fresh
            } else {
                &mut self.waiting
            };
            list.remove(&(at, number, lane));
        }
        change(state);
        match state.first().copied() {
            None => _ = self.lanes.remove(&lane),
            Some(_) if state.in_flight.is_some() => {}
            Some(item) => {
                let is_fresh = item.attempts == 0;
                let at = if is_fresh {
                    state.due.min(now)
                } else {
                    state.due
                };
                state.listed = Some((is_fresh, at, item.number));
                let list = if is_fresh {
                    &mut self.fresh
                } else {
                    &mut self.waiting
                };
                list.insert((at, item.number, lane));
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

    /// Lanes whose first event has failed and will be tried again.
    pub fn retrying(&self) -> usize {
        self.waiting.len()
    }

    /// Failures in a row.
    pub fn failures(&self) -> u64 {
        self.failures
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
