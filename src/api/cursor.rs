//! A place in the event log, as clients keep it: `<log id>-<number>`, opaque to them.
//!
//! The log id is drawn once for each store, so the cursor of a wiped database is recognised instead
//! of pointing at other events.

use std::fmt;

/// Longer than any cursor that we wrote.
const MAX_BYTES: usize = 128;

/// The event with this number is the last one seen; 0 is the place before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor<'a> {
    pub log: &'a str,
    pub number: u64,
}

impl fmt::Display for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.log, self.number)
    }
}

impl<'a> Cursor<'a> {
    /// Reads a cursor's text; `None` when it is none. Whether its log is ours is for the caller to
    /// compare.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (log, number) = text.rsplit_once('-')?;
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if text.len() > MAX_BYTES || log.is_empty() || !digits {
            return None;
        }
        Some(Self {
            log,
            number: number.parse().ok()?,
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
                log: "5fa3",
                number,
            }
            .to_string();
            assert_eq!(
                Cursor::parse(&text),
                Some(Cursor {
                    log: "5fa3",
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
            "5fa3-1.5",
            "5fa3-18446744073709551616",
            "é-é",
            &"9".repeat(200),
        ] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
