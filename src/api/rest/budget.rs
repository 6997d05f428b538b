//! One bound on the bytes of REST requests and answers under way, of all clients together
//! (`limits.rest_bytes`): bodies while they arrive and are worked on, answers until the client has
//! taken them. What would go beyond it is refused with 503 and `Retry-After`. The first
//! [`UNCOUNTED`] bytes of each are not counted, so that small requests are answered whatever large
//! ones others send.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::config::Limits;
use crate::wire::error::ApiError;

/// Of each body and of each answer.
pub const UNCOUNTED: usize = 4 * 1024;
/// One row of an answer, about.
const ROW: u64 = 512;
/// Rows that an answer which is rendered in parts holds at a time, about.
pub const PART_ROWS: u64 = 512;

#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: watch::Receiver<Limits>,
    held: AtomicUsize,
}

/// Bytes that are held, until it is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    /// With those that are not counted.
    bytes: usize,
}

impl Budget {
    pub fn new(limits: watch::Receiver<Limits>) -> Self {
        let held = AtomicUsize::new(0);
        Self(Arc::new(Inner { limits, held }))
    }

    fn limit(&self) -> usize {
        self.0.limits.borrow().rest_bytes
    }

    /// Bytes that count now.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// To be asked before an answer of so many rows is made, which would be refused afterwards.
    pub fn check_rows(&self, rows: u64) -> Result<(), ApiError> {
        self.check_room(rows.saturating_mul(ROW).try_into().unwrap_or(usize::MAX))
    }

    /// The same for an answer of so many bytes.
    pub fn check_room(&self, bytes: usize) -> Result<(), ApiError> {
        let (held, more) = (self.held(), counted(bytes));
        match more == 0 || held == 0 || held.saturating_add(more) <= self.limit() {
            true => Ok(()),
            false => Err(overloaded()),
        }
    }

    /// Nothing yet.
    pub fn charge(&self) -> Charge {
        Charge {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

fn counted(bytes: usize) -> usize {
    bytes.saturating_sub(UNCOUNTED)
}

impl Charge {
    /// Holds `bytes` more, if there is room for them. Who is alone has it always: what is allowed
    /// to be sent or asked for must not depend on the bound.
    pub fn try_grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        let (own, more) = (counted(self.bytes), self.counted_with(bytes));
        let (limit, held) = (self.budget.limit(), &self.budget.0.held);
        let fits = |held: usize| {
            let sum = held.checked_add(more)?;
            (more == 0 || held == own || sum <= limit).then_some(sum)
        };
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|_| overloaded())?;
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }

    /// Holds `bytes` more, whether there is room for them or not.
    pub fn grow(&mut self, bytes: usize) {
        let more = self.counted_with(bytes);
        self.budget.0.held.fetch_add(more, Ordering::Relaxed);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// How many bytes more count with `bytes` more.
    fn counted_with(&self, bytes: usize) -> usize {
        counted(self.bytes.saturating_add(bytes)) - counted(self.bytes)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let bytes = counted(self.bytes);
        self.budget.0.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A refusal is given after this time: whoever asks again at once would take that of others.
pub const PAUSE: Duration = Duration::from_secs(1);

pub fn is_overloaded(error: &ApiError) -> bool {
    error.code == OVERLOADED
}

const OVERLOADED: &str = "overloaded";

fn overloaded() -> ApiError {
    let message = "The daemon holds as many bytes of requests and answers as it may (limits.rest_bytes); try again in a moment, or send or ask for less at a time.";
    ApiError::unavailable(OVERLOADED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget_of(rest_bytes: usize) -> Budget {
        let limits = Limits {
            rest_bytes,
            ..Limits::default()
        };
        Budget::new(watch::channel(limits).1)
    }

    #[test]
    fn what_goes_beyond_the_bound_is_refused_and_room_comes_back() {
        let budget = budget_of(100);
        let mut first = budget.charge();
        first.try_grow(UNCOUNTED + 60).unwrap();
        assert_eq!(budget.held(), 60);
        let mut second = budget.charge();
        second.try_grow(UNCOUNTED + 40).unwrap();
        let refused = second.try_grow(1).unwrap_err();
        assert_eq!((refused.code, refused.retry_after), ("overloaded", Some(1)));
        assert_eq!(budget.held(), 100);
        drop(first);
        assert_eq!(budget.held(), 40);
        second.try_grow(60).unwrap();
        drop(second);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn small_ones_are_not_counted_and_never_refused() {
        let budget = budget_of(1);
        let mut large = budget.charge();
        large.grow(1 << 20);
        let mut small = budget.charge();
        for _ in 0..UNCOUNTED {
            small.try_grow(1).unwrap();
        }
        assert!(small.try_grow(1).is_err());
        assert_eq!(budget.held(), (1 << 20) - UNCOUNTED);
    }

    #[test]
    fn nothing_large_is_begun_without_room() {
        let budget = budget_of(1 << 20);
        let mut held = budget.charge();
        held.grow(UNCOUNTED + (1 << 20) - 1000);
        assert_eq!(budget.check_room(UNCOUNTED + 1000), Ok(()));
        assert!(budget.check_room(UNCOUNTED + 1001).is_err());
        assert_eq!(budget.check_rows(8), Ok(()));
        assert!(budget.check_rows(u64::MAX).is_err());
        drop(held);
        assert_eq!(budget.check_room(2 << 20), Ok(()));
        assert_eq!(budget.check_rows(u64::MAX), Ok(()));
    }

    #[test]
    fn who_is_alone_is_never_refused() {
        let budget = budget_of(1);
        let mut alone = budget.charge();
        for _ in 0..3 {
            alone.try_grow(1 << 20).unwrap();
        }
        let mut other = budget.charge();
        assert!(other.try_grow(1 << 20).is_err());
    }
}
