//! For how long events have failed, across restarts: the rows that the task writes after each
//! failure and reads when it begins.

use std::collections::BTreeMap;

use super::partitions::{LONGEST_QUIET, Tried};
use crate::store::{ConsumerEdit, Failing};

/// Events of the log, or dead letters that are sent again.
pub struct Rows {
    resend: bool,
    rows: BTreeMap<u64, Failing>,
}

impl Rows {
    pub fn new(resend: bool, rows: Vec<(u64, Failing)>) -> Self {
        let rows = rows.into_iter().collect();
        Self { resend, rows }
    }

    /// When one of them was tried last.
    pub fn last_tried(&self) -> Option<u64> {
        self.rows.values().map(|failing| failing.last_tried).max()
    }

    /// Counts `off` milliseconds, in which nothing was tried, as if they had not been. What is to
    /// be written then.
    pub fn skip(&mut self, off: u64, now: u64) -> Vec<ConsumerEdit> {
        for failing in self.rows.values_mut() {
            failing.first_failed = failing.first_failed.saturating_add(off);
            failing.last_tried = now;
        }
        let edit = |(number, failing): (&u64, &Failing)| ConsumerEdit::Failing {
            number: *number,
            resend: self.resend,
            failing: *failing,
        };
        self.rows.iter().map(edit).collect()
    }

    /// What is known of an event.
    pub fn tried(&self, number: u64) -> Option<Tried> {
        self.rows.get(&number).map(|row| Tried {
            attempts: row.attempts,
            first_failed: row.first_failed,
        })
    }

    /// Forgets rows up to `number`: they are done, or nobody wanted them any more.
    pub fn remove_up_to(&mut self, number: u64) -> Vec<ConsumerEdit> {
        let left: Vec<u64> = self.rows.range(..=number).map(|(left, _)| *left).collect();
        let forget = |number: u64| {
            self.rows.remove(&number);
            ConsumerEdit::NotFailing {
                number,
                resend: self.resend,
            }
        };
        left.into_iter().map(forget).collect()
    }
}

/// For how long nothing was tried because the daemon was off: no receiver can be held to that. A
/// pause that the receiver may have asked for counts.
pub fn off_for(last_tried: Option<u64>, now: u64) -> u64 {
    let pause = last_tried.map_or(0, |last| now.saturating_sub(last));
    pause.saturating_sub(LONGEST_QUIET)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = LONGEST_QUIET;

    fn rows(list: &[(u64, u64, u64)]) -> Rows {
        let row = |&(number, first_failed, last_tried): &(u64, u64, u64)| {
            let failing = Failing {
                attempts: 3,
                first_failed,
                last_tried,
            };
            (number, failing)
        };
        Rows::new(false, list.iter().map(row).collect())
    }

    #[test]
    fn a_pause_that_the_receiver_may_ask_for_counts_and_days_in_which_the_daemon_was_off_do_not() {
        assert_eq!(off_for(None, 9 * HOUR), 0);
        assert_eq!(off_for(Some(8 * HOUR), 9 * HOUR), 0);
        assert_eq!(
            off_for(Some(10 * HOUR), 9 * HOUR),
            0,
            "the clock was set back"
        );
        assert_eq!(off_for(Some(2 * HOUR), 50 * HOUR), 47 * HOUR);

        let mut failing = rows(&[(5, HOUR, 2 * HOUR), (9, 0, HOUR)]);
        assert_eq!(failing.last_tried(), Some(2 * HOUR));
        let edits = failing.skip(47 * HOUR, 50 * HOUR);
        assert_eq!(
            edits.len(),
            2,
            "written down, lest the next start counts them"
        );
        assert_eq!(failing.last_tried(), Some(50 * HOUR));
        assert_eq!(failing.tried(5).unwrap().first_failed, 48 * HOUR);
        assert_eq!(failing.tried(9).unwrap().first_failed, 47 * HOUR);
    }

    #[test]
    fn rows_of_events_that_are_done_are_removed() {
        let mut failing = rows(&[(5, 1, 1), (9, 1, 1), (12, 1, 1)]);
        assert_eq!(failing.tried(6), None);
        let (number, resend) = (5, false);
        let removed = failing.remove_up_to(8);
        assert_eq!(removed, [ConsumerEdit::NotFailing { number, resend }]);
        assert_eq!(failing.tried(5), None);
        assert_eq!(failing.tried(12).unwrap().attempts, 3);
    }
}
