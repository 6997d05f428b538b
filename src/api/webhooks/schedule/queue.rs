//! The events of one ordering key, oldest first; only the first may be in flight.

use std::collections::VecDeque;

/// How often an event failed since it was last asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tried {
    pub attempts: u32,
    /// Of the first failure, once there was one.
    pub first_failed: u64,
}

impl Tried {
    pub(super) fn fail(&mut self, now: u64) {
        if self.attempts == 0 {
            self.first_failed = now;
        }
        self.attempts = self.attempts.saturating_add(1);
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub number: u64,
    pub tried: Tried,
}

#[derive(Debug)]
pub(super) struct Queue {
    /// Dead letters that are sent again: before the others.
    pub resends: VecDeque<Item>,
    pub events: VecDeque<Item>,
    /// What is in flight is the first of `resends`, not of `events`.
    pub in_flight: Option<bool>,
    /// The dead letter in flight is not wanted any more.
    pub dropped: bool,
    /// The first event waits until then if it has failed, and has waited since then if it has not.
    pub due: u64,
    /// It was tried before its time, which this is; not early again until then.
    pub retried_early: u64,
    /// How the schedule lists it: never failed, time, number.
    pub listed: Option<(bool, u64, u64)>,
}

impl Queue {
    pub fn new(now: u64) -> Self {
        Self {
            resends: VecDeque::new(),
            events: VecDeque::new(),
            in_flight: None,
            dropped: false,
            due: now,
            retried_early: 0,
            listed: None,
        }
    }

    pub fn len(&self) -> usize {
        self.resends.len().saturating_add(self.events.len())
    }

    pub fn first(&self) -> Option<&Item> {
        self.resends.front().or_else(|| self.events.front())
    }

    pub fn part(&mut self, resend: bool) -> &mut VecDeque<Item> {
        if resend {
            &mut self.resends
        } else {
            &mut self.events
        }
    }

    /// The dead letter in flight was dropped meanwhile.
    pub fn dropped_in_flight(&self, resend: bool) -> bool {
        resend && self.dropped
    }

    /// Adds a dead letter in the order of numbers, unless it is there.
    pub fn resend(&mut self, item: Item) {
        if let Some(first) = self.resends.front_mut()
            && first.number == item.number
        {
            // It waits already; or it was dropped in flight, and is wanted once more.
            if std::mem::take(&mut self.dropped) {
                first.tried = item.tried;
            }
            return;
        }
        // Nothing comes before what is in flight, whatever its number. Most come in their order: no
        // search among thousands then.
        let (in_flight, count) = (
            usize::from(self.in_flight == Some(true)),
            self.resends.len(),
        );
        let is_last = |last: &Item| last.number < item.number;
        let at = if self.resends.back().is_none_or(is_last) {
            count
        } else {
            let mut waiting = self.resends.iter().skip(in_flight);
            waiting
                .position(|other| other.number >= item.number)
                .map_or(count, |at| at.saturating_add(in_flight))
        };
        let there = self.resends.get(at).map(|there| there.number);
        if there != Some(item.number) {
            self.resends.insert(at, item);
        }
    }

    /// A dead letter is not to be sent again after all.
    pub fn drop_resend(&mut self, number: u64) {
        let at = self.resends.iter().position(|item| item.number == number);
        match at {
            Some(0) if self.in_flight == Some(true) => self.dropped = true,
            Some(at) => _ = self.resends.remove(at),
            None => {}
        }
    }

    /// Nothing of it failed so far.
    pub fn forget_failures(&mut self, now: u64) {
        for item in self.resends.iter_mut().chain(&mut self.events) {
            item.tried = Tried::default();
        }
        (self.due, self.retried_early) = (now, 0);
    }
}
