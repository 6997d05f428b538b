//! What the exporter does next, from what was found in Redis. Pure: time and the log are arguments.
//!
//! ```text
//! Look ──► Take ──► Write ─┐     refused because something has changed: Look
//!   ▲                 ▲    │     held by another, failed, changed again and again: Wait
//!   └───── Wait       └────┘     what follows is gone from the log: Look
//! ```

use std::fmt;
use std::time::Duration;

use super::entry;
use super::keys::log_id;
use super::problem::Problem;
use crate::store::Starts;
use crate::wire::cursor;

/// So long a lease lasts when it is not renewed.
pub const LEASE: Duration = Duration::from_secs(10);
/// It is renewed after this time without events.
pub const RENEW: Duration = Duration::from_secs(3);
/// Between two tries after failures.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Between two looks at a lease that another has.
const HELD_PAUSE: Duration = Duration::from_secs(2);
/// Looks without a pause when what was found has changed each time.
const MOST_CHANGES: u32 = 3;
/// Bytes of events in one script, about: while it runs, Redis does nothing else.
const MOST_ROOM: usize = 1 << 20;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// See what is in Redis.
    Look,
    Take(Take),
    /// Append what follows in the log.
    Write(Position),
    /// Then look.
    Wait(Duration),
}

/// Taking the lease, for a stream at this position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// The current stream, if there is one.
    pub expected: Option<u64>,
    pub at: Position,
    /// Why the next one is begun.
    pub begun: Option<Reason>,
    /// The log's head: readers without a cursor begin no earlier, whatever is still to be written.
    pub from: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The stream's number.
    pub stream: u64,
    /// Number of its last entry.
    pub last: Option<u64>,
    /// What follows this number in the log is next.
    pub place: u64,
    /// The stream that was left for it.
    pub left: Option<u64>,
}

/// Why a stream is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    None,
    Empty,
    NotOfThisLog(String),
    Expired,
    IdsBeyond,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("there was none"),
            Self::Empty => f.write_str("the one before is empty"),
            Self::NotOfThisLog(cursor) => {
                write!(
                    f,
                    "the last entry of the one before, {cursor:?}, is not of this log"
                )
            }
            Self::Expired => f.write_str(
                "what follows in the one before was deleted from the log (events.retention_days)",
            ),
            Self::IdsBeyond => f.write_str(
                "the last entries of the one before were deleted, and it refuses their ids",
            ),
        }
    }
}

/// What is in Redis.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Redis's clock, in milliseconds.
    pub now: u64,
    /// `None`: there is no pointer.
    pub current: Option<u64>,
    pub network: String,
    /// Id of the first start of the stream's log; `None`: that cannot be read.
    pub log: Option<String>,
    pub writer: String,
    pub expires: u64,
    /// The stream that was left for the current one.
    pub left: Option<u64>,
    /// Of the current stream.
    pub last: Option<LastEntry>,
    /// The greatest id that the current stream has had; empty: none.
    pub greatest: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastEntry {
    pub id: String,
    pub cursor: String,
}

/// What the log has.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// No event below this number is kept.
    pub first: u64,
    /// Number of the last event.
    pub head: u64,
}

/// Why a script has changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another writer has the lease, for so long.
    Held { writer: String, left: Duration },
    /// Something is not as it was found.
    Changed,
}

pub struct Exporter {
    starts: Starts,
    network: &'static str,
    max_length: u64,
    /// The greatest number of a stream that was seen or begun: none is used twice.
    newest: u64,
    /// The stream that was current when there was a pointer.
    known: Option<u64>,
    changes: u32,
    failures: u32,
    room: usize,
    step: Step,
    problem: Option<Problem>,
}

impl Exporter {
    pub fn new(starts: Starts, network: &'static str, max_length: u64) -> Self {
        Self {
            starts,
            network,
            max_length,
            newest: 0,
            known: None,
            changes: 0,
            failures: 0,
            room: MOST_ROOM,
            step: Step::Look,
            problem: None,
        }
    }

    pub fn step(&self) -> &Step {
        &self.step
    }

    /// What keeps it from writing.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// Bytes of events that go into one script, about; at least one event does. Fewer after each
    /// that was not answered in time, so that a slow link carries some.
    pub fn room(&self) -> usize {
        self.room
    }

    /// The id of this start, by which the lease is ours.
    pub fn writer(&self) -> &str {
        self.starts.cursor(u64::MAX).0
    }

    /// Number of the event before this one, as an entry says it; 0: it is the first.
    pub fn before(&self, number: u64) -> u64 {
        self.starts.cursor(number.saturating_sub(1)).1
    }

    pub fn looked(&mut self, found: &Found, log: Span) {
        self.newest = self.newest.max(found.current.unwrap_or_default());
        self.known = found.current.or(self.known);
        // Readers could not go on, and two such daemons would begin one stream after the other.
        let is_other = |log: &&String| log_id(&self.starts) != Some(log.as_str());
        if let (Some(_), Some(log)) = (found.current, found.log.as_ref().filter(is_other)) {
            self.problem = Some(Problem::OtherLog { log: log.clone() });
            self.step = Step::Wait(LONGEST_PAUSE);
            return;
        }
        let left = Duration::from_millis(found.expires.saturating_sub(found.now));
        // More is left than a lease lasts: Redis's clock was set back.
        if found.writer != self.writer() && !left.is_zero() && left <= LEASE {
            return self.held(found.writer.clone(), left);
        }
        if found.current.is_some() && found.network != self.network {
            let network = found.network.clone();
            self.problem = Some(Problem::OtherNetwork { network });
            self.step = Step::Wait(LONGEST_PAUSE);
            return;
        }
        let (at, begun) = match self.continued(found, log) {
            Ok(at) => (at, None),
            Err(reason) => (self.next_stream(found, log), Some(reason)),
        };
        self.step = Step::Take(Take {
            expected: found.current,
            at,
            begun,
            from: log.head,
        });
    }

    /// Where the current stream goes on.
    fn continued(&self, found: &Found, log: Span) -> Result<Position, Reason> {
        let stream = found.current.ok_or(Reason::None)?;
        let Some(last) = &found.last else {
            // Begun by this start, it is of this log and may have any ids.
            let is_ours = found.greatest.is_empty() && found.writer == self.writer();
            return is_ours
                .then(|| Position {
                    stream,
                    last: None,
                    place: self.beginning(log),
                    left: found.left,
                })
                .ok_or(Reason::Empty);
        };
        let number = cursor::read(&self.starts, &last.cursor).ok();
        let number =
            number.filter(|number| entry::number(&last.id) == Some(*number) && *number <= log.head);
        let number = number.ok_or_else(|| Reason::NotOfThisLog(last.cursor.clone()))?;
        if found.greatest != last.id {
            return Err(Reason::IdsBeyond);
        }
        if number.saturating_add(1) < log.first {
            return Err(Reason::Expired);
        }
        Ok(Position {
            stream,
            last: Some(number),
            place: number,
            left: found.left,
        })
    }

    /// Its number is above all that were seen, and also above those that a flush or a failover has
    /// hidden: these were begun before now.
    fn next_stream(&mut self, found: &Found, log: Span) -> Position {
        self.newest = self.newest.saturating_add(1).max(found.now / 1000);
        Position {
            stream: self.newest,
            last: None,
            place: self.beginning(log),
            left: found.current.or(self.known),
        }
    }

    /// A stream begins with as much of the log as it keeps.
    fn beginning(&self, log: Span) -> u64 {
        let mut place = match self.max_length {
            0 => 0,
            _ => log.head,
        };
        loop {
            let skipped = self.starts.skipped(place, log.head);
            let kept = log.head.saturating_sub(place).saturating_sub(skipped);
            let missing = self.max_length.saturating_sub(kept);
            if missing == 0 || place == 0 {
                return place.max(log.first.saturating_sub(1));
            }
            // Numbers that were skipped are passed at once.
            place = self.starts.cursor(place.saturating_sub(missing)).1;
        }
    }

    /// The lease is ours.
    pub fn taken(&mut self) {
        if let Step::Take(take) = &self.step {
            self.known = Some(take.at.stream);
            self.step = Step::Write(take.at);
        }
    }

    /// The stream goes up to this number now.
    pub fn appended(&mut self, number: Option<u64>) {
        (self.changes, self.failures, self.problem) = (0, 0, None);
        if let (Step::Write(at), Some(number)) = (&mut self.step, number) {
            (at.last, at.place) = (Some(number), number);
            self.room = self.room.saturating_add(self.room / 8 + 1).min(MOST_ROOM);
        }
    }

    pub fn refused(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Held { writer, left } => self.held(writer, left),
            Refusal::Changed => {
                self.changes = self.changes.saturating_add(1);
                self.step = Step::Look;
                if self.changes > MOST_CHANGES {
                    let cause = "they change again and again".to_owned();
                    self.problem = Some(Problem::OtherKeys { cause });
                    self.step = Step::Wait(LONGEST_PAUSE);
                }
            }
        }
    }

    fn held(&mut self, writer: String, left: Duration) {
        self.problem = Some(Problem::Held { writer });
        self.step = Step::Wait(left.clamp(FIRST_PAUSE, HELD_PAUSE));
    }

    /// Retention has taken what follows.
    pub fn expired(&mut self) {
        self.step = Step::Look;
    }

    /// Redis cannot be reached, or refuses.
    pub fn failed(&mut self, problem: Problem) {
        if let (Step::Write(_), Problem::Unreachable { .. }) = (&self.step, &problem) {
            self.room /= 2;
        }
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        self.problem = Some(problem);
        self.step = Step::Wait(pause.min(LONGEST_PAUSE));
    }

    pub fn waited(&mut self) {
        self.step = Step::Look;
    }
}

#[cfg(test)]
mod tests;
