//! The schedule against a model of the rows that outlive a crash, and its rules one by one.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const GIVE_UP: u64 = 60_000;

type Lanes = u8;

/// Numbers that follow from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A log, what the store would have, and what the receiver got.
struct World {
    log: Vec<Lanes>,
    chance: Chance,
    now: u64,
    schedule: Schedule<Lanes>,
    flights: Vec<Flight<Lanes>>,
    place: u64,
    done: BTreeSet<u64>,
    /// Dead letters, and whether they are to be sent again.
    letters: BTreeMap<u64, bool>,
    /// In the order in which the receiver said 2xx, or would have.
    accepted: Vec<u64>,
    /// May come again: a crash took the answer.
    lost: BTreeSet<u64>,
    first_failed: BTreeMap<u64, u64>,
}

impl World {
    fn new(log: Vec<Lanes>, seed: u64) -> Self {
        Self {
            log,
            chance: Chance(seed),
            now: 1_000_000,
            schedule: Schedule::new(0, GIVE_UP),
            flights: Vec::new(),
            place: 0,
            done: BTreeSet::new(),
            letters: BTreeMap::new(),
            accepted: Vec::new(),
            lost: BTreeSet::new(),
            first_failed: BTreeMap::new(),
        }
    }

    fn lane(&self, number: u64) -> Lanes {
        self.log[number as usize - 1]
    }

    fn load(&mut self, most: usize) {
        let from = self.schedule.read_up_to();
        for number in (from + 1..=self.log.len() as u64).take(most.min(self.schedule.room())) {
            match self.done.contains(&number) {
                true => self.schedule.read_to(number),
                false => self.schedule.load(number, self.lane(number), self.now),
            }
        }
        if self.schedule.pending() == 0 {
            self.move_on();
        }
    }

    /// What the task writes about the place.
    fn move_on(&mut self) {
        assert!(self.schedule.place() >= self.place);
        self.place = self.schedule.place();
        self.done.retain(|done| *done > self.place);
    }

    fn send(&mut self) {
        let Some(flight) = self.schedule.next(self.now) else {
            return;
        };
        assert_eq!(flight.lane, self.lane(flight.number));
        assert!(
            self.flights.iter().all(|other| other.lane != flight.lane),
            "two of a lane in flight"
        );
        if !flight.again {
            assert!(
                flight.number > self.place && !self.done.contains(&flight.number),
                "it is settled"
            );
        }
        self.flights.push(flight);
        assert!(self.flights.len() <= IN_FLIGHT);
        assert_eq!(self.flights.len(), self.schedule.in_flight());
    }

    /// One answer comes. `harsh`: how many of four attempts fail.
    fn land(&mut self, harsh: u64) {
        if self.flights.is_empty() {
            return;
        }
        let at = self.chance.below(self.flights.len() as u64) as usize;
        let flight = self.flights.swap_remove(at);
        if self.chance.below(4) >= harsh {
            self.accepted.push(flight.number);
            self.schedule.delivered(flight, self.now);
            self.write(flight, None);
            return;
        }
        let retry_after = self.chance.one_in(5).then_some(3_000);
        let jitter = self.chance.below(101) as f64 / 100.0;
        self.first_failed.entry(flight.number).or_insert(self.now);
        match self
            .schedule
            .failed(flight, self.now, retry_after, jitter, true)
        {
            Failed::Waits | Failed::Forgotten => {}
            Failed::GivenUp {
                attempts,
                first_failed,
            } => {
                assert!(
                    attempts >= 2
                        && self.now - first_failed >= GIVE_UP
                        && self.first_failed[&flight.number] <= first_failed
                );
                self.write(flight, Some(false));
            }
        }
    }

    /// What the task writes when something is settled.
    fn write(&mut self, flight: Flight<Lanes>, letter: Option<bool>) {
        let number = flight.number;
        if !flight.again {
            assert!(
                number > self.place && self.done.insert(number),
                "{number} is settled twice"
            );
        }
        match letter {
            Some(again) => _ = self.letters.insert(number, again),
            None => _ = self.letters.remove(&number),
        }
        self.first_failed.remove(&number);
        self.move_on();
    }

    fn crash(&mut self) {
        for flight in std::mem::take(&mut self.flights) {
            self.lost.insert(flight.number);
            if self.chance.one_in(2) {
                self.accepted.push(flight.number);
            }
        }
        self.first_failed.clear();
        self.schedule = Schedule::new(self.place, GIVE_UP);
        for (number, _) in self.letters.iter().filter(|(_, again)| **again) {
            self.schedule
                .again(*number, self.log[*number as usize - 1], self.now);
        }
    }

    /// A person sends a dead letter again, or forgets one.
    fn person(&mut self) {
        let Some(number) = self
            .letters
            .keys()
            .copied()
            .nth(self.chance.below(3) as usize)
        else {
            return;
        };
        let lane = self.lane(number);
        if self.chance.one_in(3) {
            self.letters.remove(&number);
            self.schedule.forget(number, lane, self.now);
        } else {
            self.letters.insert(number, true);
            self.lost.insert(number);
            self.schedule.again(number, lane, self.now);
        }
    }

    fn step(&mut self) {
        match self.chance.below(20) {
            0..=3 => {
                let most = self.chance.below(6) as usize;
                self.load(most);
            }
            4..=9 => self.send(),
            10..=15 => {
                let harsh = self.chance.below(5);
                self.land(harsh);
            }
            16 | 17 => self.now += self.chance.below(5_000),
            18 => self.now += self.chance.below(100_000),
            _ if self.chance.one_in(4) => self.crash(),
            _ => self.person(),
        }
    }

    /// From now on the receiver takes everything.
    fn finish(&mut self) {
        for _ in 0..self.log.len() * 20 + 1000 {
            self.load(usize::MAX);
            match self.schedule.begins_at() {
                Some(at) => self.now = self.now.max(at),
                None if self.flights.is_empty() => break,
                None => {}
            }
            self.send();
            self.land(0);
        }
        assert_eq!(
            (self.schedule.pending(), self.flights.len()),
            (0, 0),
            "something starves"
        );
        assert_eq!(
            (self.place, &self.done),
            (self.log.len() as u64, &BTreeSet::new())
        );
        assert!(
            self.letters.values().all(|again| !again),
            "a dead letter was not sent again: {:?}",
            self.letters
        );
    }

    /// Every event is with the receiver or a dead letter, in order in its lane.
    fn check(&self, forgotten_may_be_missing: bool) {
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<Lanes, u64> = BTreeMap::new();
        for number in &self.accepted {
            if seen.insert(*number) {
                let before = last.insert(self.lane(*number), *number);
                // A dead letter comes behind those that went on without it.
                assert!(
                    before.is_none_or(|before| before < *number) || self.lost.contains(number),
                    "{number} behind {before:?}"
                );
            } else {
                assert!(
                    self.lost.contains(number),
                    "{number} came twice without a crash"
                );
            }
        }
        for number in 1..=self.log.len() as u64 {
            assert!(
                forgotten_may_be_missing
                    || seen.contains(&number)
                    || self.letters.contains_key(&number),
                "{number} is lost"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_event_settles_once_and_in_its_order_whatever_fails_and_crashes(
        log in prop::collection::vec(0..6_u8, 1..80), seed: u64, steps in 0..1500_usize,
    ) {
        let mut world = World::new(log, seed);
        for _ in 0..steps {
            world.step();
        }
        world.finish();
        world.check(true);
    }

    #[test]
    fn without_people_and_crashes_each_event_is_accepted_once_or_a_dead_letter(
        log in prop::collection::vec(0..6_u8, 1..80), seed: u64, steps in 0..1500_usize,
    ) {
        let mut world = World::new(log, seed);
        for step in 0..steps {
            match step % 4 {
                0 => world.load(3),
                1 => world.send(),
                2 => world.land(3),
                _ => world.now += world.chance.below(40_000),
            }
        }
        world.finish();
        world.check(false);
        prop_assert_eq!(world.accepted.len() + world.letters.len(), world.log.len());
    }
}

fn loaded(lanes: &[Lanes]) -> Schedule<Lanes> {
    let mut schedule = Schedule::new(0, GIVE_UP);
    for (number, lane) in (1..).zip(lanes) {
        schedule.load(number, *lane, 0);
    }
    schedule
}

fn fail(schedule: &mut Schedule<Lanes>, now: u64) -> Flight<Lanes> {
    let flight = schedule.next(now).expect("something may be sent");
    assert_eq!(schedule.failed(flight, now, None, 1.0, true), Failed::Waits);
    flight
}

#[test]
fn waits_double_up_to_an_hour_and_jitter_takes_up_to_half() {
    let waits: Vec<_> = (1..=14).map(wait_after).collect();
    assert_eq!(waits[..4], [1_000, 2_000, 4_000, 8_000]);
    assert_eq!(
        (waits[11], waits[12], wait_after(u64::MAX)),
        (2_048_000, 3_600_000, 3_600_000)
    );
    assert_eq!(
        (
            jittered(1_000, 0.0),
            jittered(1_000, 0.5),
            jittered(1_000, 1.0),
            jittered(3, 0.0)
        ),
        (500, 750, 1_000, 1)
    );
}

#[test]
fn a_failing_event_holds_up_its_lane_and_nothing_else() {
    let mut schedule = loaded(&[1, 1, 2, 2]);
    assert_eq!(fail(&mut schedule, 0).number, 1);
    for expected in [3, 4] {
        let flight = schedule.next(0).unwrap();
        assert_eq!(flight.number, expected);
        schedule.delivered(flight, 0);
    }
    assert_eq!(
        (schedule.next(999), schedule.begins_at(), schedule.place()),
        (None, Some(1_000), 0)
    );
    let flight = schedule.next(1_000).unwrap();
    schedule.delivered(flight, 1_000);
    assert_eq!(
        (schedule.place(), schedule.next(1_000).unwrap().number),
        (1, 2)
    );
}

#[test]
fn retry_after_is_quiet_for_the_whole_receiver_and_an_hour_at_most() {
    let mut schedule = loaded(&[1, 2]);
    let flight = schedule.next(0).unwrap();
    schedule.failed(flight, 0, Some(30_000), 1.0, true);
    assert_eq!(
        (schedule.next(29_999), schedule.begins_at()),
        (None, Some(30_000))
    );
    let flight = schedule.next(30_000).unwrap();
    schedule.failed(flight, 30_000, Some(u64::MAX), 1.0, true);
    assert_eq!(schedule.begins_at(), Some(30_000 + LONGEST_WAIT));
}

#[test]
fn a_receiver_that_is_down_is_tried_by_one_attempt_at_a_time_and_gets_everything_when_it_is_back() {
    let mut schedule = loaded(&(0..100).collect::<Vec<_>>());
    let flights: Vec<_> = (0..IN_FLIGHT).map(|_| schedule.next(0).unwrap()).collect();
    assert_eq!(schedule.next(0), None);
    for flight in flights {
        schedule.failed(flight, 0, None, 1.0, true);
    }
    let mut now = 0;
    for _ in 0..10 {
        now = schedule.begins_at().unwrap();
        let flight = schedule.next(now).unwrap();
        assert_eq!(
            (
                flight.number > 8,
                schedule.next(u64::MAX),
                schedule.begins_at()
            ),
            (true, None, None),
            "one, that was never tried"
        );
        schedule.failed(flight, now, None, 1.0, true);
    }
    assert!(schedule.begins_at().unwrap() <= now + FRESH_WAIT);
    now += FRESH_WAIT;
    let flight = schedule.next(now).unwrap();
    schedule.delivered(flight, now);
    let mut sent = 0;
    while let Some(flight) = schedule.next(now) {
        schedule.delivered(flight, now);
        sent += 1;
    }
    assert_eq!((sent, schedule.pending()), (99, 0), "all of it at once");
}

#[test]
fn without_untried_events_a_receiver_that_is_down_is_left_alone_for_longer_and_longer() {
    let mut schedule = loaded(&[1]);
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..20 {
        let flight = schedule.next(now).unwrap();
        schedule.failed(flight, now, None, 1.0, false);
        let next = schedule.begins_at().unwrap();
        waits.push((next - now) / 1000);
        now = next;
    }
    assert_eq!(waits[..10], [1, 2, 4, 8, 1, 2, 4, 8, 16, 32]);
    assert_eq!(waits[19], 3_600);
}

#[test]
fn who_asks_for_a_dead_letter_to_be_sent_again_does_not_wait_for_the_next_look_at_a_receiver_that_is_down()
 {
    let mut schedule = loaded(&[1]);
    for _ in 0..20 {
        let now = schedule.begins_at().unwrap();
        let flight = schedule.next(now).unwrap();
        schedule.failed(flight, now, None, 1.0, false);
    }
    let now = schedule.begins_at().unwrap();
    let flying = schedule.next(now).unwrap();
    schedule.again(7, 9, now);
    assert_eq!(schedule.next(now + 1000), None, "one at a time");
    schedule.failed(flying, now + 1000, None, 1.0, false);
    let flight = schedule.next(now + 1000).unwrap();
    assert_eq!((flight.number, flight.again), (7, true));
    schedule.failed(flight, now + 1000, None, 1.0, false);
    assert!(
        schedule.begins_at().unwrap() > now + 3_000_000,
        "a failure more, and it is left alone as before"
    );
}

#[test]
fn events_that_the_receiver_refuses_neither_stop_others_nor_are_hurried_again_and_again() {
    let poisoned = 0..10;
    let mut schedule = loaded(&poisoned.clone().collect::<Vec<_>>());
    let (mut now, mut number, mut tries, mut delays) = (0, 10, 0, Vec::new());
    while now < 3_600_000 {
        // When the ten have been tried, a new lane every ten seconds, which the receiver takes.
        if now > 100_000 && now % 10_000 == 0 {
            number += 1;
            schedule.load(number, 100 + (number % 100) as u8, now);
            delays.push((number, now));
        }
        while let Some(flight) = schedule.next(now) {
            if poisoned.contains(&flight.lane) {
                tries += 1;
                schedule.failed(flight, now, None, 1.0, false);
            } else {
                let at = delays
                    .iter()
                    .position(|(number, _)| *number == flight.number)
                    .unwrap();
                let (_, loaded) = delays.remove(at);
                assert!(
                    now - loaded <= FRESH_WAIT,
                    "{} waited {} ms",
                    flight.number,
                    now - loaded
                );
                schedule.delivered(flight, now);
            }
        }
        now += 500;
    }
    assert!(
        tries < 10 * 2 * 14,
        "{tries} attempts of ten events in an hour"
    );
}

#[test]
fn an_event_is_given_up_at_its_first_failure_after_its_time_and_the_next_goes() {
    let mut schedule = loaded(&[1, 1]);
    fail(&mut schedule, 5);
    let flight = schedule.next(5 + GIVE_UP).unwrap();
    assert_eq!(
        schedule.failed(flight, 5 + GIVE_UP, None, 1.0, false),
        Failed::Waits,
        "no room for a dead letter"
    );
    let now = schedule.begins_at().unwrap();
    let flight = schedule.next(now).unwrap();
    assert_eq!(
        schedule.failed(flight, now, None, 1.0, true),
        Failed::GivenUp {
            attempts: 3,
            first_failed: 5
        }
    );
    assert_eq!(
        (schedule.place(), schedule.next(now).unwrap().number),
        (1, 2)
    );
}

#[test]
fn a_dead_letter_goes_before_newer_events_of_its_lane_and_can_be_forgotten_even_in_flight() {
    let mut schedule = Schedule::new(5, GIVE_UP);
    schedule.load(6, 1, 0);
    let first = schedule.next(0).unwrap();
    for number in [4, 2, 3, 2] {
        schedule.again(number, 1, 0);
    }
    schedule.forget(3, 1, 0);
    assert_eq!(
        (first.again, schedule.next(0)),
        (false, None),
        "one of a lane at a time"
    );
    schedule.delivered(first, 0);
    let second = schedule.next(0).unwrap();
    assert_eq!(
        (second.number, second.again, schedule.place()),
        (2, true, 6)
    );
    schedule.forget(2, 1, 0);
    assert_eq!(
        schedule.failed(second, 0, None, 1.0, true),
        Failed::Forgotten
    );
    let third = schedule.next(0).unwrap();
    assert_eq!((third.number, schedule.pending()), (4, 0));
    schedule.delivered(third, 0);
    assert_eq!(
        (
            schedule.next(u64::MAX),
            schedule.begins_at(),
            schedule.lanes.len()
        ),
        (None, None, 0),
        "nothing is kept of a lane that is done"
    );
}

#[test]
fn no_more_than_the_window_is_loaded() {
    let mut schedule = loaded(&vec![1; WINDOW]);
    assert_eq!((schedule.room(), schedule.pending()), (0, WINDOW));
    let flight = schedule.next(0).unwrap();
    schedule.gone(flight, 0);
    assert_eq!(
        (schedule.room(), schedule.place(), schedule.failures()),
        (1, 1, 0)
    );
}

#[test]
fn dead_letters_go_in_the_order_of_their_numbers_however_people_ask_for_them() {
    let mut schedule = Schedule::new(100, GIVE_UP);
    schedule.again(50, 1, 0);
    let mut flight = schedule.next(0).unwrap();
    for number in [3, 10, 7, 10, 50, 3, 99, 7] {
        schedule.again(number, 1, 0);
    }
    schedule.forget(7, 1, 0);
    let mut order = Vec::new();
    loop {
        order.push(flight.number);
        schedule.delivered(flight, 0);
        match schedule.next(0) {
            Some(next) => flight = next,
            None => break,
        }
    }
    assert_eq!(
        order,
        [50, 3, 10, 99],
        "each once, behind the one that was in flight"
    );
}
