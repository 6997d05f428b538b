//! A place in the event log, as clients keep it: `<start id>-<number>`, opaque to them. All cursors
//! are written and read here; which ones are of this log says [`Starts`].

use std::fmt;

use crate::store::Starts;

/// Longer than any cursor that we wrote.
const MAX_BYTES: usize = 128;

/// The event with this number is the last one seen; 0 is the place before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor<'a> {
    start: &'a str,
    number: u64,
}

impl fmt::Display for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.number)
    }
}

/// Why a text has no number in this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadCursor {
    /// It is no cursor at all.
    Malformed,
    /// It is of another log, or behind the moment of a copy that was put back, or lost with the
    /// power.
    Unknown,
}

/// The cursor behind the event with this number.
pub fn write(starts: &Starts, number: u64) -> String {
    let (start, number) = starts.cursor(number);
    Cursor { start, number }.to_string()
}

/// The number in a cursor of this log; it may be ahead of the log, or expired.
pub fn read(starts: &Starts, text: &str) -> Result<u64, BadCursor> {
    let Cursor { start, number } = Cursor::parse(text).ok_or(BadCursor::Malformed)?;
    match starts.knows(start, number) {
        true => Ok(number),
        false => Err(BadCursor::Unknown),
    }
}

impl<'a> Cursor<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (start, number) = text.rsplit_once('-')?;
        if text.len() > MAX_BYTES || start.is_empty() {
            return None;
        }
        // As it is written: no sign, no zeros before.
        let parsed: u64 = number.parse().ok()?;
        (parsed.to_string() == number).then_some(Self {
            start,
            number: parsed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for number in [0, 1, u64::MAX] {
            let text = Cursor {
                start: "5fa3",
                number,
            }
            .to_string();
            assert_eq!(
                Cursor::parse(&text),
                Some(Cursor {
                    start: "5fa3",
                    number
                })
            );
        }
    }

    #[test]
    fn anything_else_is_no_cursor() {
        for text in [
            "",
            "-",
            "-1",
            "5fa3-",
            "5fa3",
            "5fa3-x",
            "5fa3-+1",
            "5fa3-03",
            "5fa3-1.5",
            "5fa3-18446744073709551616",
            "é-é",
            &"9".repeat(200),
        ] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
