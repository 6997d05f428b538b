//! The partitions against a model of the rows that outlive a crash, and their rules one by one.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::tracker::{ScriptHash, SubjectId};

const GIVE_UP: u64 = 60_000;

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
    /// The partition of each event, numbers from 1.
    log: Vec<usize>,
    chance: Chance,
    now: u64,
    partitions: Partitions,
    in_flight: Vec<Attempt>,
    place: u64,
    /// Rows of partitions that are further.
    done: [u64; PARTITIONS],
    /// Dead letters, and whether they are to be sent again.
    letters: BTreeMap<u64, bool>,
    /// In the order in which the receiver said 2xx, or would have.
    accepted: Vec<u64>,
    /// May come again: a crash took the answer.
    lost: BTreeSet<u64>,
    /// Rows of failing events, and of dead letters that are sent again.
    failing: BTreeMap<Delivery, Failing>,
    /// The row that says so.
    stopped: bool,
    /// The receiver answers 410 now and then.
    stops: bool,
}

impl World {
    fn new(log: Vec<usize>, seed: u64) -> Self {
        Self {
            log,
            chance: Chance(seed),
            now: 1_000_000,
            partitions: Partitions::new([0; PARTITIONS], GIVE_UP, false),
            in_flight: Vec::new(),
            place: 0,
            done: [0; PARTITIONS],
            letters: BTreeMap::new(),
            accepted: Vec::new(),
            lost: BTreeSet::new(),
            failing: BTreeMap::new(),
            stopped: false,
            stops: false,
        }
    }

    fn at(&self, number: u64) -> usize {
        self.log[number as usize - 1]
    }

    /// Reads up to `most` events of the log.
    fn load(&mut self, most: usize) {
        let Some(after) = self.partitions.read_after() else {
            return;
        };
        let next = (after + most as u64).min(self.log.len() as u64);
        let events: Vec<_> = (after + 1..=next)
            .map(|number| (self.at(number), number))
            .collect();
        self.partitions.load(after, events, next.max(after));
        if self.partitions.pending() == 0 {
            self.move_on();
        }
    }

    /// What the task writes with the place.
    fn move_on(&mut self) {
        assert!(self.partitions.place() >= self.place);
        self.place = self.partitions.place();
        for edit in self.partitions.take_changes() {
            match edit {
                ConsumerEdit::Failing(delivery, row) => _ = self.failing.insert(delivery, row),
                ConsumerEdit::NotFailing(delivery) => _ = self.failing.remove(&delivery),
                ConsumerEdit::DropDeadLetter(number) => _ = self.letters.remove(&number),
                ConsumerEdit::PartitionDone(at, done) => {
                    assert!(done > self.place);
                    self.done[at as usize] = done;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn send(&mut self) {
        let Some(attempt) = self.partitions.next(self.now) else {
            return;
        };
        assert_eq!(attempt.partition, self.at(attempt.delivery.number));
        let mut others = self.in_flight.iter();
        assert!(
            others.all(|other| other.partition != attempt.partition),
            "two of a partition in flight"
        );
        if !attempt.delivery.resend {
            self.check_not_settled(attempt);
        }
        self.in_flight.push(attempt);
        assert_eq!(self.in_flight.len(), self.partitions.in_flight());
    }

    fn check_not_settled(&self, attempt: Attempt) {
        let done = self.place.max(self.done[attempt.partition]);
        assert!(
            attempt.delivery.number > done,
            "{} is settled",
            attempt.delivery.number
        );
    }

    /// One answer comes. `harsh`: how many of four attempts fail.
    fn land(&mut self, harsh: u64) {
        if self.in_flight.is_empty() {
            return;
        }
        let at = self.chance.below(self.in_flight.len() as u64) as usize;
        let attempt = self.in_flight.swap_remove(at);
        if self.chance.below(4) >= harsh {
            self.accepted.push(attempt.delivery.number);
            if !attempt.delivery.resend {
                self.check_not_settled(attempt);
            }
            self.partitions.delivered(attempt);
            self.move_on();
            return;
        }
        if self.stops && !self.stopped && self.chance.one_in(20) {
            self.partitions.stop(attempt);
            self.stopped = true;
            self.failing.clear();
            return;
        }
        let pause = match self.chance.below(5) {
            0 => Pause::For(3_000),
            1 => Pause::Receiver,
            _ => Pause::Partition,
        };
        let jitter = self.chance.below(101) as f64 / 100.0;
        let known = self.failing.get(&attempt.delivery).copied();
        match self
            .partitions
            .failed(attempt, self.now, pause, jitter, true)
        {
            Failed::Ignored => assert!(self.stopped || attempt.delivery.resend),
            Failed::Waits(_) => {}
            Failed::GivenUp(row) => {
                assert!(row.attempts >= 2 && self.now - row.first_failed >= GIVE_UP);
                assert_eq!(known.unwrap().first_failed, row.first_failed);
                if !attempt.delivery.resend {
                    self.check_not_settled(attempt);
                }
                self.letters.insert(attempt.delivery.number, false);
            }
        }
        self.move_on();
    }

    fn crash(&mut self) {
        for attempt in std::mem::take(&mut self.in_flight) {
            self.lost.insert(attempt.delivery.number);
            if self.chance.one_in(2) {
                self.accepted.push(attempt.delivery.number);
            }
        }
        let done = self.done.map(|done| done.max(self.place));
        self.partitions = Partitions::new(done, GIVE_UP, self.stopped);
        self.partitions.restore(self.failing.clone(), self.now);
        for (number, _) in self.letters.iter().filter(|(_, again)| **again) {
            self.partitions.resend(self.at(*number), *number);
        }
    }

    fn retry(&mut self) {
        self.stopped = false;
        let waiting = self.partitions.retry();
        let letters = self.letters.values().filter(|again| **again).count();
        assert!(waiting + self.in_flight.len() >= self.partitions.pending() + letters);
        assert!(waiting <= self.partitions.pending() + letters);
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
        let at = self.at(number);
        if self.chance.one_in(3) {
            self.letters.remove(&number);
            let resend = true;
            self.failing.remove(&Delivery { resend, number });
            self.partitions.drop_resends(Some(number));
        } else {
            self.letters.insert(number, true);
            self.lost.insert(number);
            self.partitions.resend(at, number);
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
            self.load(self.log.len());
            match self.partitions.begins_at() {
                Some(at) => self.now = self.now.max(at),
                None if self.in_flight.is_empty() => break,
                None => {}
            }
            self.send();
            self.land(0);
        }
        assert_eq!(
            (self.partitions.pending(), self.in_flight.len()),
            (0, 0),
            "something starves"
        );
        assert_eq!(self.place, self.log.len() as u64);
        assert!(
            self.letters.values().all(|again| !again),
            "a dead letter was not sent again: {:?}",
            self.letters
        );
    }

    /// Every event is with the receiver or a dead letter, in order in its partition.
    fn check(&self, forgotten_may_be_missing: bool) {
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<usize, u64> = BTreeMap::new();
        for number in &self.accepted {
            if seen.insert(*number) {
                let before = last.insert(self.at(*number), *number);
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
        log in prop::collection::vec(0..PARTITIONS, 1..80), seed: u64, steps in 0..1500_usize,
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
        log in prop::collection::vec(0..PARTITIONS, 1..80), seed: u64, steps in 0..1500_usize,
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

/// Partitions with events 1, 2, … in these.
fn loaded(at: &[usize]) -> Partitions {
    let mut partitions = Partitions::new([0; PARTITIONS], GIVE_UP, false);
    let events = (1..).zip(at).map(|(number, at)| (*at, number));
    partitions.load(0, events, at.len() as u64);
    partitions
}

fn fail(partitions: &mut Partitions, now: u64) -> Attempt {
    let attempt = partitions.next(now).expect("something may be sent");
    let failed = partitions.failed(attempt, now, Pause::Partition, 1.0, true);
    assert!(matches!(failed, Failed::Waits(_)), "{failed:?}");
    attempt
}

#[test]
fn waits_double_up_to_ten_minutes_and_jitter_takes_up_to_half() {
    let waits: Vec<_> = (1..=11).map(wait_after).collect();
    assert_eq!(waits[..4], [1_000, 2_000, 4_000, 8_000]);
    assert_eq!(
        (waits[9], waits[10], wait_after(u64::MAX)),
        (512_000, 600_000, 600_000)
    );
    let jittered = [(1_000, 0.0), (1_000, 0.5), (1_000, 1.0), (3, 0.0)]
        .map(|(wait, jitter)| jittered(wait, jitter));
    assert_eq!(jittered, [500, 750, 1_000, 1]);
}

#[test]
fn partitions_are_of_scripts_and_chain_events_are_in_the_first() {
    assert_eq!(partition_of(None), 0);
    let counts = (0..=255_u8).fold([0; PARTITIONS], |mut counts, byte| {
        counts[partition_of(Some(SubjectId::Script(ScriptHash([byte; 32]))))] += 1;
        counts
    });
    assert_eq!(counts, [32; PARTITIONS]);
}

#[test]
fn partition_a_failing_event_holds_up_its_own_and_nothing_else() {
    let mut partitions = loaded(&[1, 1, 2, 2]);
    assert_eq!(fail(&mut partitions, 0).delivery.number, 1);
    for expected in [3, 4] {
        let attempt = partitions.next(0).unwrap();
        assert_eq!(attempt.delivery.number, expected);
        partitions.delivered(attempt);
    }
    let next = partitions.next(999);
    assert_eq!(
        (next, partitions.begins_at(), partitions.place()),
        (None, Some(1_000), 0)
    );
    assert_eq!(
        partitions.take_changes().last(),
        Some(&ConsumerEdit::PartitionDone(2, 4))
    );
    let attempt = partitions.next(1_000).unwrap();
    partitions.delivered(attempt);
    assert_eq!(
        (
            partitions.place(),
            partitions.next(1_000).unwrap().delivery.number
        ),
        (1, 2)
    );
}

#[test]
fn partition_one_that_is_full_lets_the_others_go_on_and_reads_the_rest_later() {
    let window = WINDOW as u64;
    let log: Vec<_> = (1..=window + 4).map(|n| (1, n)).collect();
    let mut partitions = Partitions::new([0; PARTITIONS], GIVE_UP, false);
    partitions.load(0, log.clone(), window + 4);
    assert_eq!(partitions.pending(), WINDOW);
    let others = window + 4;
    assert_eq!(partitions.read_after(), Some(others));
    partitions.load(others, [(1, others + 1), (2, others + 2)], others + 2);
    assert_eq!(partitions.pending(), WINDOW + 1);
    let first = partitions.next(0).unwrap();
    partitions.gone(first);
    assert_eq!((first.delivery.number, partitions.failures()), (1, 0));
    // It has room again, and what is read for the others meanwhile is not its next.
    assert_eq!(partitions.read_after(), Some(others + 2));
    partitions.load(others + 2, [(1, others + 3)], others + 3);
    assert_eq!(partitions.pending(), WINDOW);
    let mut sent = Vec::new();
    for _ in 0..2 * WINDOW {
        while let Some(attempt) = partitions.next(0) {
            sent.push(attempt.delivery.number);
            partitions.delivered(attempt);
        }
        if let Some(after) = partitions.read_after().filter(|after| *after < others) {
            let rest: Vec<_> = log[after as usize..].to_vec();
            partitions.load(after, rest, others);
        }
    }
    sent.retain(|number| *number <= others);
    assert_eq!(sent, (2..=others).collect::<Vec<_>>());
}

#[test]
fn retry_after_is_quiet_for_the_whole_receiver_and_an_hour_at_most() {
    let mut partitions = loaded(&[1, 2]);
    let attempt = partitions.next(0).unwrap();
    partitions.failed(attempt, 0, Pause::For(30_000), 1.0, true);
    assert_eq!(
        (partitions.next(29_999), partitions.begins_at()),
        (None, Some(30_000))
    );
    let attempt = partitions.next(30_000).unwrap();
    partitions.failed(attempt, 30_000, Pause::For(u64::MAX), 1.0, true);
    assert_eq!(partitions.begins_at(), Some(30_000 + LONGEST_QUIET));
}

#[test]
fn a_receiver_that_was_down_gets_everything_when_it_takes_something() {
    let mut partitions = loaded(&[0, 1, 2, 3, 0, 1, 2, 3]);
    let mut now = 0;
    while partitions.failures() < 30 {
        now = partitions.begins_at().unwrap().max(now + 1);
        let attempt = partitions.next(now).unwrap();
        partitions.failed(attempt, now, Pause::Partition, 1.0, false);
    }
    now = partitions.begins_at().unwrap();
    let mut sent = 0;
    while let Some(attempt) = partitions.next(now) {
        partitions.delivered(attempt);
        sent += 1;
    }
    assert_eq!((sent, partitions.pending()), (8, 0), "all of it at once");
}

#[test]
fn events_that_the_receiver_refuses_are_not_tried_early_again_and_again() {
    let mut partitions = loaded(&[1, 2]);
    let (mut now, mut number, mut tries) = (0, 2, 0);
    while now < 3_600_000 {
        // A new event every ten seconds, which the receiver takes.
        if now % 10_000 == 0 {
            partitions.load(number, [(3, number + 1)], number + 1);
            number += 1;
        }
        while let Some(attempt) = partitions.next(now) {
            if attempt.partition == 3 {
                partitions.delivered(attempt);
            } else {
                tries += 1;
                partitions.failed(attempt, now, Pause::Partition, 1.0, false);
            }
        }
        now += 500;
    }
    assert!(tries < 2 * 20, "{tries} attempts of two events in an hour");
}

#[test]
fn an_event_is_given_up_at_its_first_failure_after_its_time_and_the_next_goes() {
    let mut partitions = loaded(&[1, 1]);
    fail(&mut partitions, 5);
    let attempt = partitions.next(5 + GIVE_UP).unwrap();
    let failed = partitions.failed(attempt, 5 + GIVE_UP, Pause::Partition, 1.0, false);
    assert!(
        matches!(failed, Failed::Waits(_)),
        "no room for a dead letter"
    );
    let now = partitions.begins_at().unwrap();
    let attempt = partitions.next(now).unwrap();
    assert_eq!(
        partitions.failed(attempt, now, Pause::Partition, 1.0, true),
        Failed::GivenUp(Failing {
            attempts: 3,
            first_failed: 5,
            last_tried: now,
        })
    );
    assert_eq!(
        (
            partitions.place(),
            partitions.next(now).unwrap().delivery.number
        ),
        (1, 2)
    );
}

#[test]
fn dead_letter_goes_before_newer_events_of_its_partition_and_can_be_dropped_even_in_flight() {
    let mut partitions = loaded(&[1]);
    let first = partitions.next(0).unwrap();
    for number in [14, 12, 13, 12] {
        partitions.resend(1, number);
    }
    partitions.drop_resends(Some(13));
    let next = partitions.next(0);
    assert_eq!(
        (first.delivery.resend, next),
        (false, None),
        "one at a time"
    );
    partitions.delivered(first);
    let second = partitions.next(0).unwrap();
    assert_eq!((second.delivery.number, second.delivery.resend), (12, true));
    partitions.drop_resends(Some(12));
    assert_eq!(
        partitions.failed(second, 0, Pause::Partition, 1.0, true),
        Failed::Ignored
    );
    let third = partitions.next(0).unwrap();
    assert_eq!(third.delivery.number, 14);
    partitions.drop_resends(None);
    assert!(!partitions.delivered(third), "nobody wants it any more");
    assert_eq!(
        (partitions.next(u64::MAX), partitions.begins_at()),
        (None, None)
    );
}

#[test]
fn dead_letters_go_in_the_order_of_their_numbers_however_people_ask_for_them() {
    let mut partitions = Partitions::new([100; PARTITIONS], GIVE_UP, false);
    partitions.resend(1, 50);
    let mut attempt = partitions.next(0).unwrap();
    for number in [3, 10, 7, 10, 50, 3, 99, 7] {
        partitions.resend(1, number);
    }
    partitions.drop_resends(Some(7));
    let mut order = Vec::new();
    loop {
        order.push(attempt.delivery.number);
        partitions.delivered(attempt);
        match partitions.next(0) {
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
    let mut partitions = Partitions::new([0; PARTITIONS], GIVE_UP, false);
    let row = Failing {
        attempts: 7,
        first_failed: 1_000,
        last_tried: 2_000,
    };
    partitions.restore(rows(&[(1, row)]), 50_000);
    partitions.load(0, [(1, 1)], 1);
    let attempt = partitions.next(50_000).expect("a start tries it at once");
    let failed = partitions.failed(attempt, 50_000, Pause::Partition, 1.0, true);
    let row = Failing {
        attempts: 8,
        last_tried: 50_000,
        ..row
    };
    assert_eq!(
        (failed, partitions.begins_at()),
        (Failed::Waits(row), Some(50_000 + wait_after(8)))
    );
    let now = partitions.begins_at().unwrap();
    let attempt = partitions.next(now).unwrap();
    let failed = partitions.failed(attempt, now, Pause::Partition, 1.0, true);
    assert!(matches!(failed, Failed::GivenUp(_)), "{failed:?}");
}

/// Of events.
fn rows(list: &[(u64, Failing)]) -> BTreeMap<Delivery, Failing> {
    let resend = false;
    let row = |(number, row): &(u64, Failing)| {
        let number = *number;
        (Delivery { resend, number }, *row)
    };
    list.iter().map(row).collect()
}

#[test]
fn a_pause_that_the_receiver_may_ask_for_counts_and_days_in_which_the_daemon_was_off_do_not() {
    const HOUR: u64 = LONGEST_QUIET;
    let row = |first_failed, last_tried| Failing {
        attempts: 3,
        first_failed,
        last_tried,
    };
    let restored = |list: &[(u64, Failing)], now| {
        let mut partitions = Partitions::new([0; PARTITIONS], GIVE_UP, false);
        partitions.restore(rows(list), now);
        partitions.take_changes()
    };
    let set_back = restored(&[(5, row(HOUR, 10 * HOUR))], 9 * HOUR);
    assert_eq!(set_back, []);
    assert_eq!(restored(&[(5, row(HOUR, 8 * HOUR))], 9 * HOUR), []);
    let expected = rows(&[
        (5, row(48 * HOUR, 50 * HOUR)),
        (9, row(47 * HOUR, 50 * HOUR)),
    ]);
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(delivery, row)| ConsumerEdit::Failing(delivery, row))
        .collect();
    let before = [(5, row(HOUR, 2 * HOUR)), (9, row(0, HOUR))];
    assert_eq!(restored(&before, 50 * HOUR), expected);
}

#[test]
fn rows_of_events_that_are_done_are_removed() {
    let mut partitions = Partitions::new([8; PARTITIONS], GIVE_UP, false);
    let row = Failing {
        attempts: 3,
        first_failed: 1,
        last_tried: 1,
    };
    partitions.restore(rows(&[(5, row), (9, row), (12, row)]), 1);
    let (number, resend) = (5, false);
    let removed = ConsumerEdit::NotFailing(Delivery { resend, number });
    assert_eq!(partitions.take_changes(), [removed]);
    assert_eq!(partitions.take_changes(), []);
    partitions.load(8, [(1, 12)], 12);
    assert_eq!(partitions.retrying(), 1);
}

#[test]
fn gone_410_stops_everything_until_a_person_resumes_it_and_failures_before_do_not_count() {
    let mut partitions = loaded(&[1, 1, 2, 3]);
    fail(&mut partitions, 0);
    let (gone, other) = (partitions.next(0).unwrap(), partitions.next(0).unwrap());
    partitions.stop(gone);
    assert_eq!(
        (partitions.begins_at(), partitions.is_stopped()),
        (None, true)
    );
    let failed = partitions.failed(other, 20, Pause::Partition, 1.0, true);
    assert_eq!(failed, Failed::Ignored, "it does not count");
    assert_eq!((partitions.next(u64::MAX), partitions.pending()), (None, 4));
    let now = 100 * GIVE_UP;
    assert_eq!(partitions.retry(), 4);
    let attempt = partitions.next(now).unwrap();
    assert_eq!(
        (attempt.delivery.number, partitions.is_failing()),
        (1, false)
    );
    let failed = partitions.failed(attempt, now, Pause::Partition, 1.0, true);
    assert!(matches!(failed, Failed::Waits(_)), "{failed:?}");

    let mut again = Partitions::new([0; PARTITIONS], GIVE_UP, true);
    again.load(0, [(1, 1)], 1);
    assert_eq!(again.next(u64::MAX), None, "also after a restart");
}

#[test]
fn retry_sends_what_waits_now_also_to_a_receiver_that_was_down_or_asked_for_quiet() {
    let mut partitions = loaded(&[0, 1, 2, 3, 4, 5, 6, 7, 0, 1]);
    let mut now = 0;
    for _ in 0..40 {
        let attempt = partitions.next(now).unwrap();
        partitions.failed(attempt, now, Pause::For(LONGEST_QUIET), 1.0, false);
        now = partitions.begins_at().unwrap();
    }
    let now = now - LONGEST_QUIET + 1;
    assert_eq!(partitions.next(now), None);
    assert_eq!(partitions.retry(), 10);
    let attempts: Vec<_> = std::iter::from_fn(|| partitions.next(now)).collect();
    assert_eq!(attempts.len(), PARTITIONS, "side by side");
    assert_eq!(partitions.retry(), 2, "the others wait");
}

#[test]
fn a_receiver_that_is_overloaded_is_left_alone_as_a_whole() {
    let mut partitions = loaded(&[1, 2, 3]);
    let attempt = partitions.next(0).unwrap();
    partitions.failed(attempt, 0, Pause::Receiver, 1.0, true);
    assert_eq!(partitions.begins_at(), Some(1_000));
    let attempt = partitions.next(1_000).unwrap();
    partitions.failed(attempt, 1_001, Pause::Receiver, 1.0, true);
    assert_eq!(partitions.begins_at(), Some(3_001), "twice as long");
    let attempt = partitions.next(3_001).unwrap();
    partitions.delivered(attempt);
    assert!(partitions.begins_at() <= Some(3_001));
}

#[test]
fn attempts_that_fail_side_by_side_count_once_for_the_wait_of_the_receiver() {
    for pause in [Pause::Receiver, Pause::Partition] {
        let mut partitions = loaded(&[0, 1, 2, 3, 4, 5, 6, 7]);
        let in_flight: Vec<_> = (0..8).map(|_| partitions.next(0).unwrap()).collect();
        for attempt in in_flight {
            partitions.failed(attempt, 10, pause, 1.0, true);
        }
        assert_eq!(partitions.failures(), 1);
        assert_eq!(partitions.begins_at(), Some(1_010), "{pause:?}");
    }
}

#[test]
fn who_asks_for_a_dead_letter_to_be_sent_again_does_not_wait_for_the_end_of_quiet() {
    let mut partitions = loaded(&[1]);
    let attempt = partitions.next(0).unwrap();
    partitions.failed(attempt, 0, Pause::For(LONGEST_QUIET), 1.0, true);
    partitions.resend(2, 7);
    let attempt = partitions.next(5).expect("at once");
    assert_eq!(
        (attempt.delivery.number, attempt.delivery.resend),
        (7, true)
    );
    partitions.failed(attempt, 6, Pause::For(LONGEST_QUIET), 1.0, true);
    assert_eq!(partitions.next(7), None);
    partitions.resend(2, 7);
    let attempt = partitions
        .next(7)
        .expect("at once, when asked for once more");
    assert_eq!(
        (attempt.delivery.number, partitions.is_failing()),
        (7, true)
    );
}
