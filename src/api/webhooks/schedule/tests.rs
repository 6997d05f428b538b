//! The schedule against a model of the rows that outlive a crash, and its rules one by one.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const GIVE_UP: u64 = 60_000;

type Key = u8;

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
    log: Vec<Key>,
    chance: Chance,
    now: u64,
    schedule: Schedule<Key>,
    in_flight: Vec<Attempt<Key>>,
    place: u64,
    done: BTreeSet<u64>,
    /// Dead letters, and whether they are to be sent again.
    letters: BTreeMap<u64, bool>,
    /// In the order in which the receiver said 2xx, or would have.
    accepted: Vec<u64>,
    /// May come again: a crash took the answer.
    lost: BTreeSet<u64>,
    /// Rows of failing events, and of dead letters that are sent again.
    failing: BTreeMap<(bool, u64), Tried>,
    /// The row that says so.
    stopped: bool,
    /// The receiver answers 410 now and then.
    stops: bool,
}

impl World {
    fn new(log: Vec<Key>, seed: u64) -> Self {
        Self {
            log,
            chance: Chance(seed),
            now: 1_000_000,
            schedule: Schedule::new(0, GIVE_UP, false),
            in_flight: Vec::new(),
            place: 0,
            done: BTreeSet::new(),
            letters: BTreeMap::new(),
            accepted: Vec::new(),
            lost: BTreeSet::new(),
            failing: BTreeMap::new(),
            stopped: false,
            stops: false,
        }
    }

    fn key(&self, number: u64) -> Key {
        self.log[number as usize - 1]
    }

    fn tried(&self, resend: bool, number: u64) -> Tried {
        let row = self.failing.get(&(resend, number));
        row.copied().unwrap_or_default()
    }

    fn load(&mut self, most: usize) {
        let from = self.schedule.read_up_to();
        for number in (from + 1..=self.log.len() as u64).take(most.min(self.schedule.room())) {
            match self.done.contains(&number) {
                true => self.schedule.read_to(number),
                false => {
                    let (key, tried) = (self.key(number), self.tried(false, number));
                    self.schedule.load(number, key, tried, self.now);
                }
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
        let Some(attempt) = self.schedule.next(self.now) else {
            return;
        };
        assert_eq!(attempt.key, self.key(attempt.number));
        assert!(
            self.in_flight.iter().all(|other| other.key != attempt.key),
            "two of a key in flight"
        );
        if !attempt.resend {
            assert!(
                attempt.number > self.place && !self.done.contains(&attempt.number),
                "it is settled"
            );
        }
        self.in_flight.push(attempt);
        assert!(self.in_flight.len() <= IN_FLIGHT);
        assert_eq!(self.in_flight.len(), self.schedule.in_flight());
    }

    /// One answer comes. `harsh`: how many of four attempts fail.
    fn land(&mut self, harsh: u64) {
        if self.in_flight.is_empty() {
            return;
        }
        let at = self.chance.below(self.in_flight.len() as u64) as usize;
        let attempt = self.in_flight.swap_remove(at);
        if self.chance.below(4) >= harsh {
            self.accepted.push(attempt.number);
            self.schedule.delivered(attempt, self.now);
            self.write(attempt, None);
            return;
        }
        if self.stops && !self.stopped && self.chance.one_in(20) {
            self.schedule.stop(attempt, self.now);
            self.stopped = true;
            self.failing.clear();
            return;
        }
        let pause = match self.chance.below(5) {
            0 => Pause::For(3_000),
            1 => Pause::Receiver,
            _ => Pause::Key,
        };
        let jitter = self.chance.below(101) as f64 / 100.0;
        let row = (attempt.resend, attempt.number);
        match self.schedule.failed(attempt, self.now, pause, jitter, true) {
            Failed::Dropped => {}
            Failed::Stopped => assert!(self.stopped),
            Failed::Waits(tried) => _ = self.failing.insert(row, tried),
            Failed::GivenUp(tried) => {
                assert!(tried.attempts >= 2 && self.now - tried.first_failed >= GIVE_UP);
                assert_eq!(self.failing[&row].first_failed, tried.first_failed);
                self.write(attempt, Some(false));
            }
        }
    }

    /// What the task writes when something is settled.
    fn write(&mut self, attempt: Attempt<Key>, letter: Option<bool>) {
        let number = attempt.number;
        if !attempt.resend {
            assert!(
                number > self.place && self.done.insert(number),
                "{number} is settled twice"
            );
        }
        match letter {
            Some(again) => _ = self.letters.insert(number, again),
            None => _ = self.letters.remove(&number),
        }
        self.failing.remove(&(attempt.resend, number));
        self.move_on();
    }

    fn crash(&mut self) {
        for attempt in std::mem::take(&mut self.in_flight) {
            self.lost.insert(attempt.number);
            if self.chance.one_in(2) {
                self.accepted.push(attempt.number);
            }
        }
        self.schedule = Schedule::new(self.place, GIVE_UP, self.stopped);
        for (number, _) in self.letters.iter().filter(|(_, again)| **again) {
            let (key, tried) = (self.log[*number as usize - 1], self.tried(true, *number));
            self.schedule.resend(*number, key, tried, self.now);
        }
    }

    fn retry(&mut self) {
        self.stopped = false;
        let waiting = self.schedule.retry(self.now);
        let letters = self.letters.values().filter(|again| **again).count();
        // One that was dropped in flight is in neither.
        let in_flight = self.in_flight.iter().filter(|it| !it.resend).count();
        assert!(waiting + self.in_flight.len() >= self.schedule.pending() + letters);
        assert!(waiting >= self.schedule.pending() - in_flight);
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
        let key = self.key(number);
        if self.chance.one_in(3) {
            self.letters.remove(&number);
            self.failing.remove(&(true, number));
            self.schedule.drop_resend(number, key, self.now);
        } else {
            self.letters.insert(number, true);
            self.lost.insert(number);
            self.schedule
                .resend(number, key, Tried::default(), self.now);
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
            _ if self.chance.one_in(3) => self.retry(),
            _ => self.person(),
        }
    }

    /// From now on the receiver takes everything.
    fn finish(&mut self) {
        self.retry();
        for _ in 0..self.log.len() * 20 + 1000 {
            self.load(usize::MAX);
            match self.schedule.begins_at() {
                Some(at) => self.now = self.now.max(at),
                None if self.in_flight.is_empty() => break,
                None => {}
            }
            self.send();
            self.land(0);
        }
        assert_eq!(
            (self.schedule.pending(), self.in_flight.len()),
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

    /// Every event is with the receiver or a dead letter, in order in its key.
    fn check(&self, forgotten_may_be_missing: bool) {
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<Key, u64> = BTreeMap::new();
        for number in &self.accepted {
            if seen.insert(*number) {
                let before = last.insert(self.key(*number), *number);
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
        world.stops = true;
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

fn loaded(keys: &[Key]) -> Schedule<Key> {
    let mut schedule = Schedule::new(0, GIVE_UP, false);
    for (number, key) in (1..).zip(keys) {
        schedule.load(number, *key, Tried::default(), 0);
    }
    schedule
}

fn fail(schedule: &mut Schedule<Key>, now: u64) -> Attempt<Key> {
    let attempt = schedule.next(now).expect("something may be sent");
    let failed = schedule.failed(attempt, now, Pause::Key, 1.0, true);
    assert!(matches!(failed, Failed::Waits(_)), "{failed:?}");
    attempt
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
fn a_failing_event_holds_up_its_key_and_nothing_else() {
    let mut schedule = loaded(&[1, 1, 2, 2]);
    assert_eq!(fail(&mut schedule, 0).number, 1);
    for expected in [3, 4] {
        let attempt = schedule.next(0).unwrap();
        assert_eq!(attempt.number, expected);
        schedule.delivered(attempt, 0);
    }
    assert_eq!(
        (schedule.next(999), schedule.begins_at(), schedule.place()),
        (None, Some(1_000), 0)
    );
    let attempt = schedule.next(1_000).unwrap();
    schedule.delivered(attempt, 1_000);
    assert_eq!(
        (schedule.place(), schedule.next(1_000).unwrap().number),
        (1, 2)
    );
}

#[test]
fn retry_after_is_quiet_for_the_whole_receiver_and_an_hour_at_most() {
    let mut schedule = loaded(&[1, 2]);
    let attempt = schedule.next(0).unwrap();
    schedule.failed(attempt, 0, Pause::For(30_000), 1.0, true);
    assert_eq!(
        (schedule.next(29_999), schedule.begins_at()),
        (None, Some(30_000))
    );
    let attempt = schedule.next(30_000).unwrap();
    schedule.failed(attempt, 30_000, Pause::For(u64::MAX), 1.0, true);
    assert_eq!(schedule.begins_at(), Some(30_000 + LONGEST_WAIT));
}

#[test]
fn a_receiver_that_is_down_is_tried_by_one_attempt_at_a_time_and_gets_everything_when_it_is_back() {
    let mut schedule = loaded(&(0..100).collect::<Vec<_>>());
    let in_flight: Vec<_> = (0..IN_FLIGHT).map(|_| schedule.next(0).unwrap()).collect();
    assert_eq!(schedule.next(0), None);
    for attempt in in_flight {
        schedule.failed(attempt, 0, Pause::Key, 1.0, true);
    }
    let mut now = 0;
    for _ in 0..10 {
        now = schedule.begins_at().unwrap();
        let attempt = schedule.next(now).unwrap();
        assert_eq!(
            (
                attempt.number > 8,
                schedule.next(u64::MAX),
                schedule.begins_at()
            ),
            (true, None, None),
            "one, that was never tried"
        );
        schedule.failed(attempt, now, Pause::Key, 1.0, true);
    }
    assert!(schedule.begins_at().unwrap() <= now + FRESH_WAIT);
    now += FRESH_WAIT;
    let attempt = schedule.next(now).unwrap();
    schedule.delivered(attempt, now);
    let mut sent = 0;
    while let Some(attempt) = schedule.next(now) {
        schedule.delivered(attempt, now);
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
        let attempt = schedule.next(now).unwrap();
        schedule.failed(attempt, now, Pause::Key, 1.0, false);
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
        let attempt = schedule.next(now).unwrap();
        schedule.failed(attempt, now, Pause::Key, 1.0, false);
    }
    let now = schedule.begins_at().unwrap();
    let in_flight = schedule.next(now).unwrap();
    schedule.resend(7, 9, Tried::default(), now);
    assert_eq!(schedule.next(now + 1000), None, "one at a time");
    schedule.failed(in_flight, now + 1000, Pause::Key, 1.0, false);
    let attempt = schedule.next(now + 1000).unwrap();
    assert_eq!((attempt.number, attempt.resend), (7, true));
    schedule.failed(attempt, now + 1000, Pause::Key, 1.0, false);
    assert!(
        schedule.begins_at().unwrap() > now + 3_000_000,
        "a failure more, and it is left alone as before"
    );
}

#[test]
fn events_that_the_receiver_refuses_neither_stop_others_nor_are_tried_early_again_and_again() {
    let poisoned = 0..10;
    let mut schedule = loaded(&poisoned.clone().collect::<Vec<_>>());
    let (mut now, mut number, mut tries, mut delays) = (0, 10, 0, Vec::new());
    while now < 3_600_000 {
        // When the ten have been tried, a new key every ten seconds, which the receiver takes.
        if now > 100_000 && now % 10_000 == 0 {
            number += 1;
            schedule.load(number, 100 + (number % 100) as u8, Tried::default(), now);
            delays.push((number, now));
        }
        while let Some(attempt) = schedule.next(now) {
            if poisoned.contains(&attempt.key) {
                tries += 1;
                schedule.failed(attempt, now, Pause::Key, 1.0, false);
            } else {
                let at = delays
                    .iter()
                    .position(|(number, _)| *number == attempt.number)
                    .unwrap();
                let (_, loaded) = delays.remove(at);
                assert!(
                    now - loaded <= FRESH_WAIT,
                    "{} waited {} ms",
                    attempt.number,
                    now - loaded
                );
                schedule.delivered(attempt, now);
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
    let attempt = schedule.next(5 + GIVE_UP).unwrap();
    let failed = schedule.failed(attempt, 5 + GIVE_UP, Pause::Key, 1.0, false);
    assert!(
        matches!(failed, Failed::Waits(_)),
        "no room for a dead letter"
    );
    let now = schedule.begins_at().unwrap();
    let attempt = schedule.next(now).unwrap();
    assert_eq!(
        schedule.failed(attempt, now, Pause::Key, 1.0, true),
        Failed::GivenUp(Tried {
            attempts: 3,
            first_failed: 5
        })
    );
    assert_eq!(
        (schedule.place(), schedule.next(now).unwrap().number),
        (1, 2)
    );
}

#[test]
fn a_dead_letter_goes_before_newer_events_of_its_key_and_can_be_dropped_even_in_flight() {
    let mut schedule = Schedule::new(5, GIVE_UP, false);
    schedule.load(6, 1, Tried::default(), 0);
    let first = schedule.next(0).unwrap();
    for number in [4, 2, 3, 2] {
        schedule.resend(number, 1, Tried::default(), 0);
    }
    schedule.drop_resend(3, 1, 0);
    assert_eq!(
        (first.resend, schedule.next(0)),
        (false, None),
        "one of a key at a time"
    );
    schedule.delivered(first, 0);
    let second = schedule.next(0).unwrap();
    assert_eq!(
        (second.number, second.resend, schedule.place()),
        (2, true, 6)
    );
    schedule.drop_resend(2, 1, 0);
    assert_eq!(
        schedule.failed(second, 0, Pause::Key, 1.0, true),
        Failed::Dropped
    );
    let third = schedule.next(0).unwrap();
    assert_eq!((third.number, schedule.pending()), (4, 0));
    schedule.delivered(third, 0);
    assert_eq!(
        (
            schedule.next(u64::MAX),
            schedule.begins_at(),
            schedule.queues.len()
        ),
        (None, None, 0),
        "nothing is kept of a key that is done"
    );
}

#[test]
fn no_more_than_the_window_is_loaded() {
    let mut schedule = loaded(&vec![1; WINDOW]);
    assert_eq!((schedule.room(), schedule.pending()), (0, WINDOW));
    let attempt = schedule.next(0).unwrap();
    schedule.gone(attempt, 0);
    assert_eq!(
        (schedule.room(), schedule.place(), schedule.failures()),
        (1, 1, 0)
    );
}

#[test]
fn dead_letters_go_in_the_order_of_their_numbers_however_people_ask_for_them() {
    let mut schedule = Schedule::new(100, GIVE_UP, false);
    schedule.resend(50, 1, Tried::default(), 0);
    let mut attempt = schedule.next(0).unwrap();
    for number in [3, 10, 7, 10, 50, 3, 99, 7] {
        schedule.resend(number, 1, Tried::default(), 0);
    }
    schedule.drop_resend(7, 1, 0);
    let mut order = Vec::new();
    loop {
        order.push(attempt.number);
        schedule.delivered(attempt, 0);
        match schedule.next(0) {
            Some(next) => attempt = next,
            None => break,
        }
    }
    assert_eq!(
        order,
        [50, 3, 10, 99],
        "each once, behind the one that was in flight"
    );
}

#[test]
fn how_often_an_event_failed_before_a_restart_counts() {
    let mut schedule = Schedule::new(0, GIVE_UP, false);
    let tried = Tried {
        attempts: 7,
        first_failed: 1_000,
    };
    schedule.load(1, 1, tried, 50_000);
    let attempt = schedule.next(50_000).expect("a start tries it at once");
    assert_eq!(attempt.tried, tried);
    let failed = schedule.failed(attempt, 50_000, Pause::Key, 1.0, true);
    let tried = Tried {
        attempts: 8,
        ..tried
    };
    assert_eq!(
        (failed, schedule.begins_at()),
        (Failed::Waits(tried), Some(50_000 + wait_after(8)))
    );
    let now = schedule.begins_at().unwrap();
    let attempt = schedule.next(now).unwrap();
    let failed = schedule.failed(attempt, now, Pause::Key, 1.0, true);
    assert!(matches!(failed, Failed::GivenUp(_)), "{failed:?}");
}

#[test]
fn gone_410_stops_everything_until_a_person_resumes_it_and_failures_before_do_not_count() {
    let mut schedule = loaded(&[1, 1, 2, 3]);
    fail(&mut schedule, 0);
    let (gone, other) = (schedule.next(0).unwrap(), schedule.next(0).unwrap());
    schedule.stop(gone, 10);
    assert_eq!((schedule.begins_at(), schedule.is_stopped()), (None, true));
    let failed = schedule.failed(other, 20, Pause::Key, 1.0, true);
    assert_eq!(failed, Failed::Stopped, "it does not count");
    assert_eq!((schedule.next(u64::MAX), schedule.pending()), (None, 4));
    let now = 100 * GIVE_UP;
    assert_eq!(schedule.retry(now), 4);
    let attempt = schedule.next(now).unwrap();
    assert_eq!((attempt.number, attempt.tried), (1, Tried::default()));
    let failed = schedule.failed(attempt, now, Pause::Key, 1.0, true);
    assert!(matches!(failed, Failed::Waits(_)), "{failed:?}");

    let mut again = Schedule::new(0, GIVE_UP, true);
    again.load(1, 1, Tried::default(), 0);
    assert_eq!(again.next(u64::MAX), None, "also after a restart");
}

#[test]
fn retry_sends_what_waits_now_also_to_a_receiver_that_was_down_or_asked_for_quiet() {
    let mut schedule = loaded(&(0..20).collect::<Vec<_>>());
    let mut now = 0;
    for _ in 0..40 {
        let attempt = schedule.next(now).unwrap();
        schedule.failed(attempt, now, Pause::For(LONGEST_WAIT), 1.0, false);
        now = schedule.begins_at().unwrap();
    }
    let now = now - LONGEST_WAIT + 1;
    assert_eq!(schedule.next(now), None);
    assert_eq!(schedule.retry(now), 20);
    let attempts: Vec<_> = std::iter::from_fn(|| schedule.next(now)).collect();
    assert_eq!(attempts.len(), IN_FLIGHT, "side by side");
    assert_eq!(schedule.retry(now), 20 - IN_FLIGHT, "the others wait");
}

#[test]
fn a_receiver_that_is_overloaded_is_left_alone_as_a_whole() {
    let mut schedule = loaded(&[1, 2, 3]);
    let attempt = schedule.next(0).unwrap();
    schedule.failed(attempt, 0, Pause::Receiver, 1.0, true);
    assert_eq!(schedule.begins_at(), Some(1_000));
    let attempt = schedule.next(1_000).unwrap();
    schedule.failed(attempt, 1_000, Pause::Receiver, 1.0, true);
    assert_eq!(schedule.begins_at(), Some(3_000), "twice as long");
    let attempt = schedule.next(3_000).unwrap();
    schedule.delivered(attempt, 3_000);
    assert!(schedule.begins_at() <= Some(3_000));
}

#[test]
fn attempts_that_fail_side_by_side_count_once_for_the_wait_of_the_receiver() {
    for pause in [Pause::Receiver, Pause::Key] {
        let mut schedule = loaded(&(0..8).collect::<Vec<_>>());
        let in_flight: Vec<_> = (0..8).map(|_| schedule.next(0).unwrap()).collect();
        for attempt in in_flight {
            schedule.failed(attempt, 10, pause, 1.0, true);
        }
        assert_eq!(schedule.failures(), 8);
        assert_eq!(schedule.begins_at(), Some(1_010), "{pause:?}");
    }
}

#[test]
fn who_asks_for_a_dead_letter_to_be_sent_again_does_not_wait_for_the_end_of_quiet() {
    let mut schedule = loaded(&[1]);
    let attempt = schedule.next(0).unwrap();
    schedule.failed(attempt, 0, Pause::For(LONGEST_WAIT), 1.0, true);
    schedule.resend(7, 9, Tried::default(), 5);
    let attempt = schedule.next(5).expect("at once");
    assert_eq!((attempt.number, attempt.resend), (7, true));
    schedule.failed(attempt, 6, Pause::For(LONGEST_WAIT), 1.0, true);
    assert_eq!(schedule.next(7), None);
    schedule.resend(7, 9, Tried::default(), 7);
    let attempt = schedule.next(7).expect("at once, when asked for once more");
    assert_eq!((attempt.number, attempt.tried.attempts), (7, 1));
}
