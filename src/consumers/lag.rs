//! How far behind consumers are: counted when somebody asks, and each event of the log is looked at
//! once.
//!
//! A [`Counter`] remembers the numbers that its consumer wants between its place and `counted_to`,
//! and goes on from there; all that are asked about go through the log together. What is bounded:
//! the numbers that are remembered ([`MOST`]) and the events that are looked at for one question
//! ([`LOOK_MOST`]). Where a bound was reached the count is a lower bound, and says so.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::{Consumer, Consumers};
use crate::events::Topic;
use crate::store::StoreError;
use crate::tracker::Event;
use crate::wire::error::ApiError;
use crate::wire::json::seconds;

/// Events that are counted for one consumer.
const MOST: usize = 10_000;
/// Events that are looked at for those that are near the head, and again for those that are not.
const LOOK_MOST: usize = 50_000;
const PAGE: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lag {
    /// Events that the consumer wants and that are not acknowledged.
    pub events: u64,
    /// No: there may be more.
    pub exact: bool,
    /// Age of the oldest of them; 0 when there is none.
    pub seconds: f64,
}

/// What is counted of one consumer.
#[derive(Debug)]
pub struct Counter {
    after: u64,
    counted_to: u64,
    /// The wanted ones in `(after, counted_to]` that the log still has.
    numbers: VecDeque<u64>,
    most: usize,
}

impl Default for Counter {
    fn default() -> Self {
        Self::counting_to(MOST)
    }
}

impl Counter {
    fn counting_to(most: usize) -> Self {
        Self {
            after: 0,
            counted_to: 0,
            numbers: VecDeque::new(),
            most,
        }
    }

    /// The consumer is at `place` now, and the log begins at `first`.
    fn settle(&mut self, place: u64, first: u64) {
        if place < self.after {
            *self = Self {
                after: place,
                counted_to: place,
                ..Self::counting_to(self.most)
            };
        }
        self.after = place;
        self.counted_to = self.counted_to.max(place);
        while self
            .numbers
            .front()
            .is_some_and(|number| *number <= place || *number < first)
        {
            self.numbers.pop_front();
        }
        if self.numbers.is_empty() {
            self.numbers = VecDeque::new();
        }
    }

    fn is_full(&self) -> bool {
        self.numbers.len() >= self.most
    }

    /// The next event of the log; `false` when there is no room for more.
    fn look(&mut self, number: u64, is_wanted: impl FnOnce() -> bool) {
        if number > self.counted_to && !self.is_full() {
            self.counted_to = number;
            if is_wanted() {
                self.numbers.push_back(number);
            }
        }
    }

    /// There is no event between the last one looked at and this number.
    fn nothing_up_to(&mut self, number: u64) {
        if !self.is_full() {
            self.counted_to = self.counted_to.max(number);
        }
    }

    /// Nothing that is wanted is up to here.
    fn quiet_up_to(&self) -> u64 {
        self.numbers
            .front()
            .map_or(self.counted_to, |number| number.saturating_sub(1))
    }

    fn is_behind(&self, head: u64) -> bool {
        self.counted_to < head && !self.is_full()
    }
}

/// Lets the counters go on to `head`, through at most `budget` events. `wants`: whether the one
/// with this place in the list wants it.
fn advance<C: std::ops::DerefMut<Target = Counter>, E, Error>(
    counters: &mut [(usize, C)],
    head: u64,
    budget: usize,
    wants: impl Fn(usize, &E) -> bool,
    mut read: impl FnMut(u64, usize) -> Result<Vec<(u64, E)>, Error>,
) -> Result<(), Error> {
    let mut looked_at = 0;
    while looked_at < budget {
        let behind = counters
            .iter()
            .filter(|(_, counter)| counter.is_behind(head));
        let Some(after) = behind.map(|(_, counter)| counter.counted_to).min() else {
            return Ok(());
        };
        let events = read(after, PAGE)?;
        looked_at = looked_at.saturating_add(events.len());
        for (number, event) in events.iter().take_while(|(number, _)| *number <= head) {
            for (at, counter) in counters.iter_mut() {
                counter.look(*number, || wants(*at, event));
            }
        }
        // Numbers may be skipped: none of those up to the head is left.
        if events.len() < PAGE || events.last().is_none_or(|(number, _)| *number > head) {
            counters
                .iter_mut()
                .for_each(|(_, counter)| counter.nothing_up_to(head));
        }
    }
    Ok(())
}

fn settled(consumer: &Consumer, first: u64) -> MutexGuard<'_, Counter> {
    let mut counter = consumer
        .counter
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    counter.settle(consumer.place().number, first);
    counter
}

impl Consumers {
    /// How far behind each of these is, in the same order; they must be in the order of their
    /// names, or else two who ask could wait for each other for good. Blocks the thread.
    pub fn lags(&self, consumers: &[Arc<Consumer>], now: u64) -> Result<Vec<Lag>, ApiError> {
        let (head, first) = (self.reader.snapshot().head()?, self.reader.first_seq()?);
        let counters = consumers
            .iter()
            .enumerate()
            .map(|(at, consumer)| (at, settled(consumer, first)));
        // One that is far behind must not keep those at the head from being counted to the end.
        let (mut near, mut far): (Vec<_>, Vec<_>) = counters
            .partition(|(_, counter)| head.saturating_sub(counter.counted_to) <= LOOK_MOST as u64);
        let wants = |at: usize, event: &Event| {
            consumers
                .get(at)
                .is_some_and(|consumer| consumer.filter.wants(&Topic::of(&event.kind)))
        };
        for counters in [&mut near, &mut far] {
            advance(counters, head, LOOK_MOST, wants, |after, limit| {
                self.reader.read_events(after, limit)
            })?;
        }
        near.append(&mut far);
        near.sort_unstable_by_key(|(at, _)| *at);
        let lags = near.iter().map(|(_, counter)| {
            Ok(Lag {
                events: counter.numbers.len() as u64,
                exact: counter.counted_to >= head,
                seconds: match counter.numbers.front() {
                    None => 0.0,
                    // Retention may just have taken it.
                    Some(oldest) => self
                        .reader
                        .event(*oldest)?
                        .map_or(0.0, |event| seconds(now.saturating_sub(event.time))),
                },
            })
        });
        lags.collect::<Result<_, StoreError>>().map_err(Into::into)
    }

    /// Moves a consumer to right before the next event that it wants, as far as its lag was counted
    /// last. When it was acknowledged is still the time to show.
    pub async fn pass_unwanted(&self, consumer: &Consumer) -> Result<(), ApiError> {
        let quiet = settled(consumer, 0).quiet_up_to();
        consumer
            .move_to(quiet, Vec::new(), consumer.place().moved)
            .await?;
        Ok(())
    }

    /// How far behind one is. Blocks the thread.
    pub fn lag_of(&self, consumer: &Arc<Consumer>, now: u64) -> Result<Lag, ApiError> {
        let lags = self.lags(std::slice::from_ref(consumer), now)?;
        lags.into_iter()
            .next()
            .ok_or_else(|| ApiError::internal(&"no lag for a consumer"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The log as the store has it: numbers rise, may jump, and the oldest go away. An event is
    /// wanted by those whose bit is set.
    #[derive(Debug, Default)]
    struct Log {
        events: Vec<(u64, u8)>,
        head: u64,
        first: u64,
    }

    impl Log {
        fn read(
            &self,
            after: u64,
            limit: usize,
        ) -> Result<Vec<(u64, u8)>, std::convert::Infallible> {
            Ok(self
                .events
                .iter()
                .filter(|(number, _)| *number > after && *number >= self.first)
                .take(limit)
                .copied()
                .collect())
        }

        /// What one counts who looks at everything.
        fn lag(&self, who: usize, place: u64) -> usize {
            let wanted = |(number, bits): &&(u64, u8)| {
                *number > place && *number >= self.first && bits >> who & 1 == 1
            };
            self.events.iter().filter(wanted).count()
        }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Write(u8),
        /// A power loss: numbers go on far ahead.
        Jump,
        Forget(u8),
        /// A consumer's place: an ack forward, or a PUT anywhere. As a part of the log.
        Move {
            who: usize,
            to: u8,
        },
        Ask {
            who: Vec<usize>,
            budget: usize,
        },
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            8 => any::<u8>().prop_map(Op::Write),
            1 => Just(Op::Jump),
            1 => any::<u8>().prop_map(Op::Forget),
            3 => (0..3usize, any::<u8>()).prop_map(|(who, to)| Op::Move { who, to }),
            4 => (prop::sample::subsequence(vec![0, 1, 2], 1..=3), 0..30usize).prop_map(|(who, budget)| Op::Ask { who, budget }),
        ]
    }

    fn part(of: u64, byte: u8) -> u64 {
        of.saturating_mul(u64::from(byte)) / 255
    }

    proptest! {
        /// What a counter says is what a plain count says when it says that it is exact, and never
        /// more when it does not.
        #[test]
        fn counting_on_is_as_good_as_counting_everything(ops in prop::collection::vec(op(), 1..150), most in 1..12usize) {
            let mut log = Log { first: 1, ..Log::default() };
            let mut counters = [0; 3].map(|_| Counter::counting_to(most));
            let mut places = [0; 3];
            let mut check = |log: &Log, who: &[usize], places: &[u64; 3], budget: usize| {
                let mut asked: Vec<_> = counters.iter_mut().enumerate().filter(|(at, _)| who.contains(at)).collect();
                asked.iter_mut().for_each(|(at, counter)| counter.settle(places[*at], log.first));
                let Ok(()) = advance(&mut asked, log.head, budget, |at, bits| bits >> at & 1 == 1, |after, limit| log.read(after, limit));
                for (at, counter) in asked {
                    let (counted, real, exact) = (counter.numbers.len(), log.lag(at, places[at]), counter.counted_to >= log.head);
                    prop_assert!(counted <= most.min(real), "{counted} of {real}");
                    prop_assert!(!exact || counted == real, "{counted} of {real}");
                    prop_assert!(exact || budget <= log.events.len() || counted == most, "it gave up early");
                }
                Ok(())
            };
            for op in ops {
                match op {
                    Op::Write(bits) => {
                        log.head += 1;
                        log.events.push((log.head, bits));
                    }
                    Op::Jump => log.head += 1_000_000,
                    Op::Forget(byte) => {
                        log.first = log.first.max(part(log.head, byte));
                        let first = log.first;
                        log.events.retain(|(number, _)| *number >= first);
                    }
                    Op::Move { who, to } => places[who] = part(log.head, to),
                    Op::Ask { who, budget } => check(&log, &who, &places, budget)?,
                }
            }
            check(&log, &[0, 1, 2], &places, usize::MAX)?;
        }
    }

    #[test]
    fn one_that_is_full_holds_nobody_up_and_counts_on_when_there_is_room() {
        let log = Log {
            events: (1..=50).map(|number| (number, 3)).collect(),
            head: 50,
            first: 1,
        };
        let (mut full, mut other) = (Counter::counting_to(10), Counter::counting_to(100));
        let count = |full: &mut Counter, other: &mut Counter| {
            let Ok(()) = advance(
                &mut [(0, full), (1, other)],
                50,
                1000,
                |_, _| true,
                |after, limit| log.read(after, limit),
            );
        };
        count(&mut full, &mut other);
        assert_eq!(
            (full.numbers.len(), full.counted_to, other.numbers.len()),
            (10, 10, 50)
        );
        full.settle(45, 1);
        count(&mut full, &mut other);
        assert_eq!((full.numbers.len(), full.counted_to), (5, 50));
    }
}
