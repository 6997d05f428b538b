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
    /// It has no memory for entries.
    is_full: bool,
    /// Scripts that were sent, and have not arrived.
    under_way: Vec<Script>,
}

#[derive(Debug, Clone)]
enum Script {
    Take(Take, String, String),
    Append(Position, String, Vec<Written>),
}

impl Redis {
    fn look(&self, now: u64) -> Found {
        let current = self.found.current.unwrap_or_default();
        let entries = self.streams.get(&current).and_then(|all| all.last());
        let greatest = self.greatest.get(&current);
        Found {
            now,
            last: entries.map(|last| LastEntry {
                id: entry::id(last.number),
                cursor: last.cursor.clone(),
            }),
            greatest: greatest.map_or(String::new(), |number| entry::id(*number)),
            ..self.found.clone()
        }
    }

    fn held(&self, writer: &str, now: u64) -> Option<Refusal> {
        let left = self.found.expires.saturating_sub(now);
        let is_held = !self.found.writer.is_empty()
            && self.found.writer != writer
            && (1..=10_000).contains(&left);
        is_held.then(|| Refusal::Held {
            writer: self.found.writer.clone(),
            left: Duration::from_millis(left),
        })
    }

    fn run(&mut self, script: &Script, now: u64) -> Option<Refusal> {
        match script {
            Script::Take(take, writer, starts) => self.take(take, writer, starts, now),
            Script::Append(at, writer, entries) => self.append(at, writer, now, entries),
        }
    }

    fn take(&mut self, take: &Take, writer: &str, starts: &str, now: u64) -> Option<Refusal> {
        if let Some(held) = self.held(writer, now) {
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
        self.found.left = take.at.left;
        self.found.network = "regtest".to_owned();
        self.found.writer = writer.to_owned();
        self.found.expires = now + 10_000;
        self.starts = starts.to_owned();
        let starts = crate::bus::keys::starts_from_json(starts).expect("starts of a log");
        self.found.log = log_id(&starts).map(str::to_owned);
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

    fn step(&mut self, redis: &mut Redis, now: u64, batch: usize, lost: Lost) {
        let Self { log, exporter } = self;
        let writer = exporter.writer().to_owned();
        let script = match exporter.step().clone() {
            Step::Wait(_) => return exporter.waited(),
            Step::Look => return exporter.looked(&redis.look(now), log.span()),
            Step::Take(take) => {
                let starts = crate::bus::keys::starts_to_json(&exporter.starts);
                Script::Take(take, writer, starts)
            }
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
                if redis.is_full {
                    let cause = String::new();
                    return exporter.failed(Problem::Memory { cause });
                }
                Script::Append(at, writer, entries)
            }
        };
        let refused = match lost {
            Lost::No | Lost::Answer => redis.run(&script, now),
            Lost::OnTheWay => {
                redis.under_way.push(script.clone());
                None
            }
        };
        match (lost, refused, script) {
            (Lost::Answer | Lost::OnTheWay, ..) => exporter.failed(Problem::Refused {
                cause: String::new(),
            }),
            (Lost::No, Some(refusal), _) => exporter.refused(refusal),
            (Lost::No, None, Script::Take(..)) => exporter.taken(),
            (Lost::No, None, Script::Append(_, _, entries)) => {
                exporter.appended(entries.last().map(|it| it.number));
            }
        }
    }
}

/// What does not come.
#[derive(Debug, Clone, Copy)]
enum Lost {
    No,
    /// What was asked is done.
    Answer,
    /// It is done later.
    OnTheWay,
}

/// A direct reader.
#[derive(Debug, Clone, Default)]
struct StreamReader {
    stream: u64,
    number: u64,
    cursor: String,
    seen: Vec<u64>,
    /// From streams.
    heard: Vec<u64>,
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
        // The one that was left is read to its end before the next one.
        if self.stream == 0 {
            self.stream = redis.found.left.unwrap_or(current);
        }
        let entries = redis.streams.get(&self.stream).into_iter().flatten();
        let entries: Vec<_> = entries
            .filter(|it| it.number > self.number)
            .take(count)
            .collect();
        if entries.is_empty() {
            self.stream = current;
        }
        for it in entries {
            let is_known = known(&starts, &it.cursor);
            if self.stream != current && !(is_known && it.after == self.number) {
                self.stream = current;
                return;
            }
            if it.after != self.number {
                // The stretch between is the daemon's to give.
                if !known(&log.starts(), &self.cursor) || self.number + 1 < log.first {
                    return self.begin_anew(log);
                }
                let between = log.events.range(self.number + 1..it.number);
                self.seen.extend(between.map(|(_, event)| *event));
            }
            self.seen.push(it.event);
            self.heard.push(it.event);
            (self.number, self.cursor) = (it.number, it.cursor.clone());
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Write(u64),
    Export {
        batch: usize,
        lost: Lost,
    },
    /// What is under way arrives.
    Arrive,
    Full(bool),
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

fn lost() -> impl Strategy<Value = Lost> {
    prop_oneof![
        8 => Just(Lost::No),
        1 => Just(Lost::Answer),
        1 => Just(Lost::OnTheWay),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..6_u64).prop_map(Op::Write),
        12 => (1..5_usize, lost()).prop_map(|(batch, lost)| Op::Export { batch, lost }),
        2 => Just(Op::Arrive),
        1 => any::<bool>().prop_map(Op::Full),
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
            Op::Arrive => {
                for script in std::mem::take(&mut self.redis.under_way) {
                    let _ = self.redis.run(&script, self.now);
                }
            }
            Op::Full(is_full) => self.redis.is_full = is_full,
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
                second.step(&mut self.redis, self.now, batch, Lost::No);
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
        world.run(Op::Arrive);
        world.run(Op::Full(false));
        world.now += 20_000;
        for _ in 0..40 {
            world.run(Op::Export { batch: 100, lost: Lost::No });
        }
        let (log, redis) = (&world.daemon.log, &world.redis);
        let current = redis.found.current.expect("a stream");
        let last = redis.streams[&current].last().expect("it has the last event");
        prop_assert_eq!(last.number, log.head());
        for it in &redis.streams[&current] {
            prop_assert_eq!(log.events.get(&it.number), Some(&it.event));
        }
        for _ in 0..4 {
            world.run(Op::Read(usize::MAX));
        }
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

/// Id and cursor of the last entry, and the greatest id.
fn found(last: Option<(&str, &str, &str)>) -> Found {
    Found {
        now: 1_700_000_000_000,
        current: Some(7),
        network: "main".to_owned(),
        last: last.map(|(id, cursor, _)| LastEntry {
            id: id.to_owned(),
            cursor: cursor.to_owned(),
        }),
        greatest: last.map_or(String::new(), |(_, _, greatest)| greatest.to_owned()),
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
    assert!(matches!(it.step(), Step::Write(_)));
    assert_eq!(it.problem(), Some(&held), "nothing is written yet");
    it.appended(None);
    assert_eq!(it.problem(), None);
    // Redis's clock was set back: no lease is given for so long.
    other.expires = other.now + 10_001;
    it.looked(&other, log);
    assert!(matches!(it.step(), Step::Take(_)));
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
fn a_stream_of_another_log_is_left_alone_and_one_of_a_copy_is_not() {
    let log = Span { first: 1, head: 5 };
    let mut it = exporter(&[("a", 0, 0), ("c", 6, 5)]);
    let mut other = found(Some(("9-0", "b-9", "9-0")));
    other.log = Some("x".to_owned());
    // Also while another has the lease: waiting for it would be in vain.
    for writer in ["", "b"] {
        (other.writer, other.expires) = (writer.to_owned(), other.now + 9000);
        it.looked(&other, log);
        let log = "x".to_owned();
        assert_eq!(it.problem(), Some(&Problem::OtherLog { log }));
        assert_eq!(it.step(), &Step::Wait(LONGEST_PAUSE));
    }
    other.expires = 0;
    for known in [Some("a".to_owned()), None] {
        other.log = known;
        it.looked(&other, log);
        let reason = Reason::NotOfThisLog("b-9".to_owned());
        assert_eq!(taken(&it).begun, Some(reason));
    }
    // The key was deleted.
    let none = Found {
        log: Some("x".to_owned()),
        ..Found::default()
    };
    it.looked(&none, log);
    assert_eq!(taken(&it).begun, Some(Reason::None));
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
    let said = it.problem().expect("a problem").to_string();
    assert!(said.contains("again and again"), "{said}");
}

fn taken(it: &Exporter) -> Take {
    match it.step() {
        Step::Take(take) => take.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stream_that_this_start_has_begun_and_could_not_write_is_not_begun_again() {
    let log = Span { first: 1, head: 5 };
    let mut it = exporter(&[("a", 0, 0)]);
    it.looked(&Found::default(), log);
    let begun = taken(&it);
    assert_eq!(begun.from, 5, "readers without a cursor begin no earlier");
    it.taken();
    it.failed(Problem::Memory {
        cause: String::new(),
    });
    let mut empty = found(None);
    (empty.current, empty.writer) = (Some(begun.at.stream), "a".to_owned());
    it.looked(&empty, log);
    let again = taken(&it);
    assert_eq!((again.begun, again.at), (None, begun.at));
    // One that was emptied refuses ids, and one of another start may be of another log.
    empty.greatest = "4-0".to_owned();
    it.looked(&empty, log);
    assert_eq!(taken(&it).begun, Some(Reason::Empty));
    (empty.greatest, empty.writer) = (String::new(), "b".to_owned());
    it.looked(&empty, log);
    assert_eq!(taken(&it).begun, Some(Reason::Empty));
}

#[test]
fn the_stream_that_is_left_is_known_also_without_a_pointer() {
    let log = Span { first: 1, head: 5 };
    let mut it = exporter(&[("a", 0, 0)]);
    it.looked(&Found::default(), log);
    assert_eq!(taken(&it).at.left, None);
    it.taken();
    let Step::Write(at) = *it.step() else {
        panic!("{:?}", it.step())
    };
    it.looked(&Found::default(), log);
    assert_eq!(taken(&it).at.left, Some(at.stream));
    // Whoever goes on with a stream hears of it from the pointer.
    let mut gone_on = found(Some(("5-0", "a-5", "5-0")));
    gone_on.left = Some(3);
    it.looked(&gone_on, log);
    assert_eq!(taken(&it).at.left, Some(3));
}

#[test]
fn a_stream_begins_with_as_many_events_as_it_keeps_whatever_numbers_were_skipped() {
    let begins = |starts: &[(&str, u64, u64)], head| {
        let mut it = exporter(starts);
        it.looked(&Found::default(), Span { first: 1, head });
        taken(&it).at.place
    };
    assert_eq!(begins(&[("a", 0, 0)], 500), 400);
    assert_eq!(begins(&[("a", 0, 0)], 50), 0);
    // 40 events after a power loss, and 60 before it.
    let far = 1 << 40;
    let skipped = [("a", 0, 0), ("b", far, 500)];
    assert_eq!(begins(&skipped, far + 39), 440);
    assert_eq!(begins(&skipped, far + 99), 500);
    assert_eq!(begins(&skipped, far + 139), far + 39);
}

#[test]
fn less_is_sent_at_once_when_it_is_not_answered_in_time() {
    let mut it = exporter(&[("a", 0, 0)]);
    let most = it.room();
    let log = Span { first: 1, head: 5 };
    let silent = || Problem::Unreachable {
        at: String::new(),
        cause: "timed out".to_owned(),
    };
    it.failed(silent());
    assert_eq!(it.room(), most, "nothing was sent");
    for _ in 0..30 {
        it.looked(&Found::default(), log);
        it.taken();
        it.failed(silent());
    }
    assert_eq!(it.room(), 0, "an event at a time");
    it.looked(&Found::default(), log);
    it.taken();
    for number in 1..200 {
        it.appended(Some(number));
    }
    assert_eq!(it.room(), most);
}

#[test]
fn a_stream_that_was_left_is_read_to_its_end() {
    let mut world = World::new();
    let export = |world: &mut World| {
        for _ in 0..6 {
            world.run(Op::Export {
                batch: 100,
                lost: Lost::No,
            });
        }
    };
    world.run(Op::Write(6));
    export(&mut world);
    world.run(Op::Read(2));
    // Redis is away for longer than retention.
    world.run(Op::Write(4));
    world.run(Op::Retention(8));
    export(&mut world);
    assert_eq!(world.redis.streams.len(), 2);
    world.reader.stream = 0;
    for _ in 0..4 {
        world.run(Op::Read(100));
    }
    assert_eq!(world.reader.heard, [1, 2, 3, 4, 5, 6]);
}
