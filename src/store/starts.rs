//! Which start of the daemon gave which numbers, and so which cursors are of this log. Pure.
//!
//! A copy of the folder that is put back goes on with numbers that were given before, for other
//! events. So each start of the daemon draws an id and is written to a list in the store before it
//! gives any number; a cursor is `<start id>-<number>`.
//!
//! # Rules
//!
//! 1. Each start has an id, the first number that it may give, and the number `held` of the last
//!    event that the store held before it. Numbers above `held` and below the first one were given
//!    to nobody, or to events that a power loss took.
//! 2. The id of a number follows from it: the last listed start whose first number is not above it.
//!    The first start begins with 0, the place before the first event.
//! 3. A cursor is of this log if that start is listed under its id, and its number is not above
//!    the `held` of the start that follows.
//! 4. A start that gave no number is dropped at the next one: no cursor names it. No other one ever
//!    is, also when retention has taken its events.
//!
//! What another process did after the copy was taken has a start that the copy does not list, or
//! numbers above `held`: its cursors are told so. A folder that was moved is no copy. A virtual
//! machine that is rolled back together with its memory goes on with the same start, and cannot be
//! noticed.

use super::codec::{In, Malformed, Out, StoredValue, value_of_fields};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Start {
    id: String,
    first: u64,
    held: u64,
}

/// The starts of a log, oldest first; there is always one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Starts(Vec<Start>);

impl Starts {
    /// A log without events.
    pub(super) fn new(id: String) -> Self {
        Self(vec![Start {
            id,
            first: 0,
            held: 0,
        }])
    }

    /// Id, first number and `held` of each, oldest first.
    pub fn parts(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        let starts = self.0.iter();
        starts.map(|start| (start.id.as_str(), start.first, start.held))
    }

    /// The other way round; `None` when they are not the starts of a log.
    pub fn from_parts(parts: impl IntoIterator<Item = (String, u64, u64)>) -> Option<Self> {
        let start = |(id, first, held)| Start { id, first, held };
        Self::checked(parts.into_iter().map(start).collect())
    }

    fn checked(starts: Vec<Start>) -> Option<Self> {
        let begins = starts.first().is_some_and(|start| start.first == 0);
        let ascends = starts.is_sorted_by(|a, b| a.first < b.first && b.held < b.first);
        (begins && ascends).then_some(Self(starts))
    }

    /// A start: `next` is the number that the store would have given next, `first` the one that it
    /// gives, which is above it when numbers are skipped.
    pub(super) fn add(&mut self, id: String, next: u64, first: u64) {
        let held = self.head(next);
        if self.last().first == next {
            self.0.pop();
        }
        self.0.push(Start { id, first, held });
    }

    /// Number of the last event when `next` is the number that is given next; 0: there was none.
    pub(super) fn head(&self, next: u64) -> u64 {
        let last = self.last();
        if next <= last.first {
            last.held
        } else {
            next - 1
        }
    }

    fn last(&self) -> &Start {
        self.0.last().expect("there is always a start")
    }

    /// The start that a number belongs to, and the one after it.
    fn around(&self, number: u64) -> (&Start, Option<&Start>) {
        let after = self.0.partition_point(|start| start.first <= number);
        let start = self.0.get(after.saturating_sub(1));
        (
            start.expect("the first start begins with 0"),
            self.0.get(after),
        )
    }

    /// Id and number of the cursor behind event `number`. For a number that was skipped, those of
    /// the last event before it: it is the same place.
    pub fn cursor(&self, number: u64) -> (&str, u64) {
        let (start, next) = self.around(number);
        let held = next.map_or(u64::MAX, |next| next.held);
        (&start.id, number.min(held))
    }

    /// `number`; of one that was skipped, the first one that was not and comes after it.
    pub fn not_skipped(&self, number: u64) -> u64 {
        match self.around(number) {
            (_, Some(next)) if number > next.held => next.first,
            _ => number,
        }
    }

    /// How many numbers above `after` and up to `until` were skipped.
    pub fn skipped(&self, after: u64, until: u64) -> u64 {
        let starts = self.0.iter().rev();
        let near = starts.take_while(|start| start.first.saturating_sub(1) > after);
        near.map(|start| {
            let last = start.first.saturating_sub(1).min(until);
            last.saturating_sub(start.held.max(after))
        })
        .sum()
    }

    /// Whether the cursor is of this log. Whether it is ahead of it, or expired, is for the caller
    /// to ask.
    pub fn knows(&self, id: &str, number: u64) -> bool {
        let (start, next) = self.around(number);
        start.id == id && next.is_none_or(|next| number <= next.held)
    }
}

value_of_fields!(Start: id, first, held);

impl StoredValue for Starts {
    fn encode(&self, out: &mut Out) {
        out.part(&self.0);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Self::checked(input.part()?)
            .ok_or_else(|| Malformed("the starts do not ascend from 0".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::log::Numbers;
    use super::*;

    fn starts(list: &[(&str, u64, u64)]) -> Starts {
        let start = |(id, first, held): &(&str, u64, u64)| Start {
            id: (*id).to_owned(),
            first: *first,
            held: *held,
        };
        Starts(list.iter().map(start).collect())
    }

    #[test]
    fn a_number_belongs_to_the_last_start_that_may_have_given_it() {
        let starts = starts(&[("a", 0, 0), ("b", 5, 4), ("c", 100, 7)]);
        let cursors = [0, 4, 5, 7, 8, 99, 100, u64::MAX].map(|number| starts.cursor(number));
        let expected = [
            ("a", 0),
            ("a", 4),
            ("b", 5),
            ("b", 7),
            ("b", 7),
            ("b", 7),
            ("c", 100),
            ("c", u64::MAX),
        ];
        assert_eq!(cursors, expected);
        for (id, number) in expected {
            assert!(starts.knows(id, number), "{id}-{number}");
        }
        for (id, number) in [
            ("b", 0),
            ("a", 5),
            ("b", 8),
            ("b", 99),
            ("b", 100),
            ("c", 99),
            ("d", 100),
            ("", 0),
        ] {
            assert!(!starts.knows(id, number), "{id}-{number}");
        }
    }

    #[test]
    fn skipped_numbers_between_two_are_counted() {
        let starts = starts(&[("a", 0, 0), ("b", 5, 4), ("c", 100, 7), ("d", 300, 199)]);
        for (after, until) in [(0, 400), (6, 120), (7, 99), (50, 60), (99, 199), (250, 350)] {
            let is_skipped = |number: &u64| matches!(number, 8..=99 | 200..=299);
            let skipped = (after + 1..=until).filter(is_skipped).count();
            assert_eq!(
                starts.skipped(after, until),
                skipped as u64,
                "{after} {until}"
            );
        }
    }

    #[test]
    fn a_start_that_gave_no_number_is_dropped_but_for_the_first() {
        let mut list = Starts::new("a".to_owned());
        assert_eq!(list.head(1), 0);
        list.add("b".to_owned(), 1, 1);
        assert_eq!(list, starts(&[("a", 0, 0), ("b", 1, 0)]));
        list.add("c".to_owned(), 1, 1);
        assert_eq!(list, starts(&[("a", 0, 0), ("c", 1, 0)]));
        // Numbers are skipped, and none of those after them is given.
        list.add("d".to_owned(), 9, 1000);
        assert_eq!((list.head(1000), list.head(1001)), (8, 1000));
        list.add("e".to_owned(), 1000, 2000);
        assert_eq!(list, starts(&[("a", 0, 0), ("c", 1, 0), ("e", 2000, 8)]));
        assert_eq!(list.head(2000), 8);
    }

    #[test]
    fn rows_that_do_not_ascend_are_refused() {
        for list in [
            &[][..],
            &[("a", 1, 0)],
            &[("a", 0, 0), ("b", 0, 0)],
            &[("a", 0, 0), ("b", 5, 5)],
            &[("a", 0, 0), ("b", 5, 4), ("c", 4, 3)],
        ] {
            let bytes = starts(list).to_bytes();
            assert!(Starts::from_bytes(&bytes).is_err(), "{list:?}");
        }
        let list = starts(&[("a", 0, 0), ("b", 5, 4)]);
        let parts = list
            .parts()
            .map(|(id, first, held)| (id.to_owned(), first, held));
        assert_eq!(Starts::from_parts(parts), Some(list.clone()));
        assert_eq!(Starts::from_parts([("a".to_owned(), 1, 0)]), None);
        assert_eq!(Starts::from_bytes(&list.to_bytes()), Ok(list));
    }

    /// What is on a disk. An event is told by what no other one has: a number of its own.
    #[derive(Debug, Clone)]
    struct Disk {
        starts: Starts,
        numbers: Numbers,
        events: BTreeMap<u64, u64>,
        clean: bool,
        boot: u32,
    }

    impl Disk {
        fn head(&self) -> u64 {
            self.starts.head(self.numbers.next)
        }

        fn takes(&self, reader: &StoreReader) -> bool {
            self.starts.knows(&reader.id, reader.number) && reader.number <= self.head()
        }

        fn up_to(&self, number: u64) -> Vec<u64> {
            self.events.range(..=number).map(|(_, it)| *it).collect()
        }
    }

    /// A client with its cursor, and all events that it or the balance it began with knows of.
    #[derive(Debug, Clone)]
    struct StoreReader {
        id: String,
        number: u64,
        seen: Vec<u64>,
    }

    #[derive(Debug, Clone)]
    enum Op {
        /// Events are written; only what is synced survives a power loss.
        Write { count: u64, sync: bool },
        /// The process ends, and another one begins.
        Restart { clean: bool },
        /// The machine loses its power, and with it some of what was not synced.
        PowerLoss { kept: usize },
        /// The folder is copied, while the process runs or with it stopped.
        Copy { stopped: bool },
        /// A copy is put in place of the folder, on the same machine or on another one.
        PutBack { copy: usize, same_boot: bool },
        /// A new reader, from here on.
        Join,
        /// A reader reads up to so many events.
        Read { reader: usize, count: usize },
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..5_u64, any::<bool>()).prop_map(|(count, sync)| Op::Write { count, sync }),
            2 => any::<bool>().prop_map(|clean| Op::Restart { clean }),
            1 => (0..9_usize).prop_map(|kept| Op::PowerLoss { kept }),
            1 => any::<bool>().prop_map(|stopped| Op::Copy { stopped }),
            1 => (0..9_usize, any::<bool>())
                .prop_map(|(copy, same_boot)| Op::PutBack { copy, same_boot }),
            2 => Just(Op::Join),
            3 => (0..9_usize, 1..4_usize).prop_map(|(reader, count)| Op::Read { reader, count }),
        ]
    }

    /// One folder, whatever is done to it, and its readers.
    struct World {
        disk: Disk,
        /// The states that a power loss may leave, the last one that is synced first.
        synced: Vec<Disk>,
        copies: Vec<Disk>,
        readers: Vec<StoreReader>,
        drawn: u64,
        boots: u32,
    }

    impl World {
        fn new() -> Self {
            let disk = Disk {
                starts: Starts::new("s0".to_owned()),
                numbers: Numbers {
                    next: 1,
                    reserved: 1,
                },
                events: BTreeMap::new(),
                clean: true,
                boot: 0,
            };
            let mut world = Self {
                disk: disk.clone(),
                synced: Vec::new(),
                copies: Vec::new(),
                readers: Vec::new(),
                drawn: 0,
                boots: 0,
            };
            world.open(disk, 0);
            world
        }

        fn draw(&mut self) -> u64 {
            self.drawn += 1;
            self.drawn
        }

        /// A start on what the disk holds. It takes the readers that the disk as it lies there
        /// would have taken, and no other ones.
        fn open(&mut self, disk: Disk, boot: u32) {
            let next = disk.numbers.next;
            let kept = disk.clean || disk.boot == boot;
            let numbers = Numbers::resume(next, disk.numbers.reserved, kept);
            let before = disk.clone();
            self.disk = Disk {
                numbers,
                clean: false,
                boot,
                ..disk
            };
            let id = format!("s{}", self.draw());
            self.disk.starts.add(id, next, numbers.next);
            self.synced = vec![self.disk.clone()];
            for reader in &self.readers {
                assert_eq!(self.disk.takes(reader), before.takes(reader), "{reader:?}");
            }
        }

        fn write(&mut self, count: u64, sync: bool) {
            for number in self.disk.numbers.next..self.disk.numbers.next + count {
                let it = self.draw();
                self.disk.events.insert(number, it);
            }
            let (numbers, reserve) = self.disk.numbers.advance(count, sync);
            self.disk.numbers = numbers;
            if sync || reserve {
                self.synced.clear();
            }
            self.synced.push(self.disk.clone());
        }

        fn read(&mut self, reader: usize, count: usize) {
            let (disk, readers) = (&self.disk, self.readers.len());
            let Some(reader) = self.readers.get_mut(reader % readers.max(1)) else {
                return;
            };
            if disk.takes(reader) {
                for (number, it) in disk.events.range(reader.number + 1..).take(count) {
                    let (id, number) = disk.starts.cursor(*number);
                    (reader.id, reader.number) = (id.to_owned(), number);
                    reader.seen.push(*it);
                }
            }
        }

        fn run(&mut self, op: Op) {
            match op {
                Op::Write { count, sync } => self.write(count, sync),
                Op::Restart { clean } => {
                    let disk = Disk {
                        clean,
                        ..self.disk.clone()
                    };
                    self.open(disk, self.boots);
                }
                Op::PowerLoss { kept } => {
                    self.boots += 1;
                    let disk = self.synced[kept % self.synced.len()].clone();
                    self.open(disk, self.boots);
                }
                Op::Copy { stopped } => self.copies.push(Disk {
                    clean: stopped,
                    ..self.disk.clone()
                }),
                Op::PutBack { copy, same_boot } => {
                    let copies = self.copies.len().max(1);
                    let Some(disk) = self.copies.get(copy % copies).cloned() else {
                        return;
                    };
                    self.boots += u32::from(!same_boot);
                    self.open(disk, self.boots);
                }
                Op::Join => {
                    let (id, number) = self.disk.starts.cursor(self.disk.head());
                    self.readers.push(StoreReader {
                        id: id.to_owned(),
                        number,
                        seen: self.disk.up_to(number),
                    });
                }
                Op::Read { reader, count } => self.read(reader, count),
            }
        }
    }

    proptest! {
        /// Whatever becomes of the folder: a reader that is taken has seen all events up to its
        /// cursor and no other ones, so that from there it skips none and hears none twice.
        #[test]
        fn no_reader_that_is_taken_skips_an_event_or_hears_it_twice(
            ops in vec(op(), 1..80),
        ) {
            let mut world = World::new();
            for op in ops {
                world.run(op);
                for reader in world.readers.iter().filter(|reader| world.disk.takes(reader)) {
                    prop_assert_eq!(&reader.seen, &world.disk.up_to(reader.number));
                }
            }
        }
    }
}
