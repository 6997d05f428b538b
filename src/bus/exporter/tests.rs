//! The exporter against a pretended Redis and a pretended log, and a reader of the streams beside
//! them, which does what `contrib/docs/bus.md` says.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// As many as a stream keeps.
const KEPT: u64 = 12;

/// An event is told by what no other one has: a number of its own.
#[derive(Debug, Clone)]
struct Log {
    starts: Vec<(String, u64, u64)>,
    next: u64,
    first: u64,
    events: BTreeMap<u64, u64>,
}

impl Log {
    fn starts(&self) -> Starts {
        Starts::from_parts(self.starts.iter().cloned()).expect("starts of a log")
    }

    fn head(&self) -> u64 {
        let (_, first, held) = self.starts.last().expect("a start");
        if self.next <= *first {
            *held
        } else {
            self.next - 1
        }
    }

    fn span(&self) -> Span {
        Span {
            first: self.first,
            head: self.head(),
        }
    }

    /// Another process begins, which may skip numbers.
    fn start(&mut self, id: String, skipped: u64) {
        let held = self.head();
        if self
            .starts
            .last()
            .is_some_and(|(_, first, _)| *first == self.next)
        {
            self.starts.pop();
        }
        self.next += skipped;
        // The first start begins with 0.
        let first = if self.starts.is_empty() { 0 } else { self.next };
        let held = if first == 0 { 0 } else { held };
        self.starts.push((id, first, held));
    }

    fn up_to(&self, number: u64) -> Vec<u64> {
        self.events.range(..=number).map(|(_, it)| *it).collect()
    }
}

#[derive(Debug, Clone)]
struct Written {
    number: u64,
    after: u64,
    cursor: String,
    event: u64,
}

/// As the scripts do it.
#[derive(Debug, Clone, Default)]
struct Redis {
    found: Found,
    starts: String,
    streams: BTreeMap<u64, Vec<Written>>,
    /// Greatest ids.
    greatest: BTreeMap<u64, u64>,
}

impl Redis {
    fn look(&self, now: u64) -> Found {
        let current = self.found.current.unwrap_or_default();
        let entries = self.streams.get(&current).and_then(|all| all.last());
        Found {
            now,
            last: entries.map(|last| LastEntry {
                id: entry::id(last.number),
                cursor: last.cursor.clone(),
                greatest: entry::id(self.greatest[&current]),
            }),
            ..self.found.clone()
        }
    }

    fn held(&self, writer: &str, now: u64) -> Option<Refusal> {
        let left = self.found.expires.saturating_sub(now);
        let is_held = !self.found.writer.is_empty() && self.found.writer != writer && left > 0;
        is_held.then(|| Refusal::Held {
            writer: self.found.writer.clone(),
            left: Duration::from_millis(left),
        })
    }

    fn take(&mut self, take: &Take, exporter: &Exporter, now: u64) -> Option<Refusal> {
        if let Some(held) = self.held(exporter.writer(), now) {
            return Some(held);
        }
        if self.found.current != take.expected {
            return Some(Refusal::Changed);
        }
        if self.found.current != Some(take.at.stream) {
            self.streams.remove(&take.at.stream);
            self.greatest.remove(&take.at.stream);
        }
        self.found.current = Some(take.at.stream);
        self.found.network = exporter.network.to_owned();
        self.found.writer = exporter.writer().to_owned();
        self.found.expires = now + 10_000;
        self.starts = crate::bus::keys::starts_to_json(&exporter.starts);
        None
    }

    fn append(
        &mut self,
        at: &Position,
        writer: &str,
        now: u64,
        entries: &[Written],
    ) -> Option<Refusal> {
        if let Some(held) = self.held(writer, now) {
            return Some(held);
        }
        let stream = self.streams.get(&at.stream).and_then(|all| all.last());
        let last = stream.map(|last| last.number);
        if self.found.writer != writer || self.found.current != Some(at.stream) || last != at.last {
            return Some(Refusal::Changed);
        }
        self.found.expires = now + 10_000;
        for it in entries {
            let greatest = self.greatest.entry(at.stream).or_default();
            assert!(it.number > *greatest, "ids of a stream ascend");
            *greatest = it.number;
            self.streams.entry(at.stream).or_default().push(it.clone());
        }
        None
    }
}

/// A daemon with its exporter.
struct Daemon {
    log: Log,
    exporter: Exporter,
}

impl Daemon {
    fn new(log: Log) -> Self {
        let exporter = Exporter::new(log.starts(), "regtest", KEPT);
        Self { log, exporter }
    }

    /// One step. `lost`: the answer does not come, though what was asked is done.
    fn step(&mut self, redis: &mut Redis, now: u64, batch: usize, lost: bool) {
        let Self { log, exporter } = self;
        let refused = match exporter.step().clone() {
            Step::Wait(_) => return exporter.waited(),
            Step::Look => return exporter.looked(&redis.look(now), log.span()),
            Step::Take(take) => redis.take(&take, exporter, now),
            Step::Write(at) => {
                if at.place + 1 < log.first {
                    return exporter.expired();
                }
                let starts = log.starts();
                let events = log.events.range(at.place + 1..).take(batch);
                let entries: Vec<_> = events
                    .map(|(number, event)| Written {
                        number: *number,
                        after: exporter.before(*number),
                        cursor: cursor::write(&starts, *number),
                        event: *event,
                    })
                    .collect();
                let refused = redis.append(&at, exporter.writer(), now, &entries);
                if !lost && refused.is_none() {
                    exporter.appended(entries.last().map(|it| it.number));
                }
                refused
            }
        };
        match (lost, refused) {
            (true, _) => exporter.failed(Problem::Refused {
                cause: String::new(),
            }),
            (false, Some(refusal)) => exporter.refused(refusal),
            (false, None) if matches!(exporter.step(), Step::Take(_)) => exporter.taken(),
            (false, None) => {}
        }
    }
}

/// A direct reader.
#[derive(Debug, Clone, Default)]
struct StreamReader {
    stream: u64,
    number: u64,
    cursor: String,
    seen: Vec<u64>,
}

impl StreamReader {
    /// From the daemon: its balances, and their cursor.
    fn begin_anew(&mut self, log: &Log) {
        self.number = log.head();
        self.cursor = cursor::write(&log.starts(), self.number);
        self.seen = log.up_to(self.number);
    }

    fn read(&mut self, redis: &Redis, log: &Log, count: usize) {
        let Some(current) = redis.found.current else {
            return;
        };
        let known = |starts: &Starts, cursor: &str| cursor::read(starts, cursor).is_ok();
        let Some(starts) = crate::bus::keys::starts_from_json(&redis.starts) else {
            return;
        };
        // Whose log it is, when the stream or the writer is another one.
        if !known(&starts, &self.cursor) {
            if !known(&log.starts(), &self.cursor)
                || redis.found.writer != log.starts().cursor(u64::MAX).0
            {
                self.begin_anew(log);
            }
            return;
        }
        self.stream = current;
        let entries = redis.streams.get(&current).into_iter().flatten();
        let entries: Vec<_> = entries
            .filter(|it| it.number > self.number)
            .take(count)
            .collect();
        for it in entries {
            if it.after != self.number {
                // The stretch between is the daemon's to give.
                if !known(&log.starts(), &self.cursor) || self.number + 1 < log.first {
                    return self.begin_anew(log);
                }
                let between = log.events.range(self.number + 1..it.number);
                self.seen.extend(between.map(|(_, event)| *event));
            }
            self.seen.push(it.event);
            (self.number, self.cursor) = (it.number, it.cursor.clone());
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Write(u64),
    Export {
        batch: usize,
        lost: bool,
    },
    Read(usize),
    /// Time passes.
    Pass(u64),
    Restart {
        skipped: u64,
    },
    Copy,
    PutBack,
    /// The daemon's disk loses its last events.
    PowerLoss(u64),
    Retention(u64),
    Save,
    /// Redis goes back to what it had saved: a lagging replica, an older dump.
    GoBack,
    Flush,
    Trim(usize),
    DeleteLast,
    DeletePointer,
    /// A second daemon with a copy of the folder.
    Second {
        batch: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..6_u64).prop_map(Op::Write),
        12 => (1..5_usize, prop::bool::weighted(0.15)).prop_map(|(batch, lost)| Op::Export { batch, lost }),
        4 => (1..9_usize).prop_map(Op::Read),
        2 => (0..12_000_u64).prop_map(Op::Pass),
        1 => (0..4_u64).prop_map(|skipped| Op::Restart { skipped }),
        1 => Just(Op::Copy),
        1 => Just(Op::PutBack),
        1 => (0..4_u64).prop_map(Op::PowerLoss),
        1 => (0..5_u64).prop_map(Op::Retention),
        1 => Just(Op::Save),
        1 => Just(Op::GoBack),
        1 => Just(Op::Flush),
        1 => (0..6_usize).prop_map(Op::Trim),
        1 => Just(Op::DeleteLast),
        1 => Just(Op::DeletePointer),
        2 => (1..5_usize).prop_map(|batch| Op::Second { batch }),
    ]
}

struct World {
    daemon: Daemon,
    second: Option<Daemon>,
    redis: Redis,
    saved: Redis,
    copy: Log,
    reader: StreamReader,
    now: u64,
    drawn: u64,
}

impl World {
    fn new() -> Self {
        let mut log = Log {
            starts: Vec::new(),
            next: 1,
            first: 1,
            events: BTreeMap::new(),
        };
        log.starts.push(("s0".to_owned(), 0, 0));
        let mut reader = StreamReader::default();
        reader.begin_anew(&log);
        Self {
            daemon: Daemon::new(log.clone()),
            second: None,
            redis: Redis::default(),
            saved: Redis::default(),
            copy: log,
            reader,
            now: 1_000_000_000,
            drawn: 0,
        }
    }

    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    fn start(&mut self, mut log: Log, skipped: u64) {
        let id = format!("s{}", self.draw());
        log.start(id, skipped);
        self.daemon = Daemon::new(log);
    }

    fn run(&mut self, op: Op) {
        self.now += 5;
        let log = self.daemon.log.clone();
        match op {
            Op::Write(count) => {
                for _ in 0..count {
                    let it = self.draw();
                    let log = &mut self.daemon.log;
                    log.events.insert(log.next, it);
                    log.next += 1;
                }
            }
            Op::Export { batch, lost } => self.daemon.step(&mut self.redis, self.now, batch, lost),
            Op::Read(count) => self.reader.read(&self.redis, &log, count),
            Op::Pass(time) => self.now += time,
            Op::Restart { skipped } => self.start(log, skipped),
            Op::Copy => self.copy = log,
            Op::PutBack => self.start(self.copy.clone(), 0),
            Op::PowerLoss(count) => {
                let mut log = log;
                let (_, first, _) = log.starts.last().expect("a start");
                let lost = log.next.saturating_sub(count).max(*first).max(log.first);
                let skipped = log.next - lost;
                log.events.split_off(&lost);
                log.next = lost;
                self.start(log, skipped);
            }
            Op::Retention(count) => {
                let log = &mut self.daemon.log;
                log.first = (log.first + count).min(log.head() + 1).max(log.first);
                // The copy in the pretended log keeps the events, for `up_to` alone.
            }
            Op::Save => self.saved = self.redis.clone(),
            Op::GoBack => self.redis = self.saved.clone(),
            Op::Flush => self.redis = Redis::default(),
            Op::Trim(left) => {
                for entries in self.redis.streams.values_mut() {
                    entries.drain(..entries.len().saturating_sub(left));
                }
            }
            Op::DeleteLast => {
                for entries in self.redis.streams.values_mut() {
                    entries.pop();
                }
            }
            Op::DeletePointer => self.redis.found = Found::default(),
            Op::Second { batch } => {
                let mut second = self.second.take().unwrap_or_else(|| {
                    let mut log = self.copy.clone();
                    log.start(format!("x{}", self.draw()), 0);
                    let (next, it) = (log.next, self.draw());
                    log.events.insert(next, it);
                    log.next += 1;
                    Daemon::new(log)
                });
                second.step(&mut self.redis, self.now, batch, false);
                self.second = Some(second);
            }
        }
    }
}

proptest! {
    /// Whatever becomes of Redis and of the daemon: a reader whose cursor is of the daemon's log
    /// has seen every event up to there and no other one, each once; and in the end, left alone,
    /// all of the log is in the stream.
    #[test]
    fn a_reader_of_the_streams_sees_the_log_in_order_and_once(ops in vec(op(), 1..120)) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
            for entries in world.redis.streams.values() {
                for (before, it) in entries.iter().zip(entries.iter().skip(1)) {
                    prop_assert_eq!(it.after, before.number, "a stretch of the log");
                }
            }
            let (log, reader) = (&world.daemon.log, &world.reader);
            if cursor::read(&log.starts(), &reader.cursor).is_ok() && reader.number <= log.head() {
                prop_assert_eq!(&reader.seen, &log.up_to(reader.number));
            }
        }
        // The other one ends, and its lease lapses.
        world.now += 20_000;
        world.run(Op::Write(1));
        for _ in 0..40 {
            world.run(Op::Export { batch: 100, lost: false });
        }
        let (log, redis) = (&world.daemon.log, &world.redis);
        let current = redis.found.current.expect("a stream");
        let last = redis.streams[&current].last().expect("it has the last event");
        prop_assert_eq!(last.number, log.head());
        for it in &redis.streams[&current] {
            prop_assert_eq!(log.events.get(&it.number), Some(&it.event));
        }
        world.run(Op::Read(usize::MAX));
        world.run(Op::Read(usize::MAX));
        let (log, reader) = (&world.daemon.log, &world.reader);
        prop_assert_eq!(&reader.seen, &log.up_to(log.head()));
    }
}

fn exporter(starts: &[(&str, u64, u64)]) -> Exporter {
    let starts = starts
        .iter()
        .map(|(id, first, held)| ((*id).to_owned(), *first, *held));
    let starts = Starts::from_parts(starts).expect("starts of a log");
    Exporter::new(starts, "main", 100)
}

fn found(last: Option<(&str, &str, &str)>) -> Found {
    Found {
        now: 1_700_000_000_000,
        current: Some(7),
        network: "main".to_owned(),
        last: last.map(|(id, cursor, greatest)| LastEntry {
            id: id.to_owned(),
            cursor: cursor.to_owned(),
            greatest: greatest.to_owned(),
        }),
        ..Found::default()
    }
}

#[test]
fn a_stream_is_continued_only_where_the_log_goes_on() {
    let all = Span {
        first: 1,
        head: 500,
    };
    let begun = |last, log| {
        let mut exporter = exporter(&[("a", 0, 0), ("b", 300, 250)]);
        exporter.looked(&found(last), log);
        match exporter.step() {
            Step::Take(take) => (take.at.stream == 7, take.at.place, take.begun.clone()),
            other => panic!("{other:?}"),
        }
    };
    let last = |id, cursor| Some((id, cursor, id));
    assert_eq!(begun(last("400-0", "b-400"), all), (true, 400, None));
    assert_eq!(begun(last("200-0", "a-200"), all), (true, 200, None));
    let other = |cursor: &str| Some(Reason::NotOfThisLog(cursor.to_owned()));
    for (id, cursor) in [
        ("260-0", "a-260"),
        ("400-0", "c-400"),
        ("400-1", "b-400"),
        ("401-0", "b-400"),
        ("501-0", "b-501"),
        ("400-0", ""),
    ] {
        assert_eq!(
            begun(last(id, cursor), all),
            (false, 400, other(cursor)),
            "{id} {cursor}"
        );
    }
    assert_eq!(begun(None, all), (false, 400, Some(Reason::Empty)));
    let beyond = Some(("400-0", "b-400", "450-0"));
    assert_eq!(begun(beyond, all), (false, 400, Some(Reason::IdsBeyond)));
    let later = Span {
        first: 450,
        head: 500,
    };
    assert_eq!(begun(last("449-0", "b-449"), later), (true, 449, None));
    let expired = (false, 449, Some(Reason::Expired));
    assert_eq!(begun(last("448-0", "b-448"), later), expired);
}

#[test]
fn numbers_of_streams_are_never_used_twice() {
    let log = Span { first: 1, head: 0 };
    let mut exporter = exporter(&[("a", 0, 0)]);
    let mut seen = Vec::new();
    for now in [
        1_700_000_000_000,
        1_700_000_000_000,
        1_600_000_000_000,
        1_700_000_009_000,
    ] {
        // Flushed each time.
        exporter.looked(
            &Found {
                now,
                ..Found::default()
            },
            log,
        );
        let Step::Take(take) = exporter.step() else {
            panic!("{:?}", exporter.step());
        };
        seen.push(take.at.stream);
    }
    assert_eq!(
        seen,
        [1_700_000_000, 1_700_000_001, 1_700_000_002, 1_700_000_009]
    );
}

#[test]
fn a_lease_of_another_and_a_stream_of_another_network_are_left_alone() {
    let log = Span { first: 1, head: 5 };
    let mut it = exporter(&[("a", 0, 0)]);
    let mut other = found(None);
    (other.writer, other.expires) = ("b".to_owned(), other.now + 9000);
    it.looked(&other, log);
    let held = Problem::Held {
        writer: "b".to_owned(),
    };
    assert_eq!(
        (it.step(), it.problem()),
        (&Step::Wait(HELD_PAUSE), Some(&held))
    );
    it.waited();
    assert_eq!(it.step(), &Step::Look);
    other.expires = other.now;
    it.looked(&other, log);
    assert!(matches!(it.step(), Step::Take(_)));
    it.taken();
    assert!(matches!(it.step(), Step::Write(_)) && it.problem().is_none());
    // It was taken while we did nothing for long.
    it.refused(Refusal::Held {
        writer: "b".to_owned(),
        left: LEASE,
    });
    assert_eq!(it.problem(), Some(&held));

    other.network = "signet".to_owned();
    it.looked(&other, log);
    let network = "signet".to_owned();
    assert_eq!(it.problem(), Some(&Problem::OtherNetwork { network }));
    assert!(matches!(it.step(), Step::Wait(_)));
}

#[test]
fn failures_pause_longer_and_longer_and_changes_do_not_run_hot() {
    let mut it = exporter(&[("a", 0, 0)]);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        it.failed(Problem::Replica { at: String::new() });
        let Step::Wait(pause) = it.step() else {
            panic!("{:?}", it.step())
        };
        pauses.push(pause.as_millis());
    }
    assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 5000, 5000]);
    let mut steps = Vec::new();
    for _ in 0..5 {
        it.refused(Refusal::Changed);
        steps.push(*it.step() == Step::Look);
    }
    assert_eq!(steps, [true, true, true, false, false]);
}
