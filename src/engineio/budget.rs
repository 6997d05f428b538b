//! Bytes that all clients together may make this program hold. A client's own bound is not enough:
//! ten thousand of them, each well within its own, would still fill the machine.
//!
//! When there is no room, the newcomer is refused; nobody who has room loses it. What is small is
//! not counted, so that short messages go through whatever others hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// Bytes that a [`ByteShare`] may hold without being counted: about what a connection costs anyway.
pub const UNCOUNTED: usize = 4096;

/// A count of bytes with a limit.
#[derive(Debug)]
pub struct ByteBudget {
    used: AtomicUsize,
    max: usize,
}

impl ByteBudget {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            max,
        })
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn sub(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// `false`: no room, and nothing was counted.
    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.max);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }
}

/// What one client holds, for instance of a message that is not whole yet; given back when dropped.
#[derive(Debug)]
pub struct ByteShare {
    budget: Arc<ByteBudget>,
    held: usize,
    /// Of these, what the budget counts.
    charged: usize,
}

impl ByteShare {
    pub fn new(budget: Arc<ByteBudget>) -> Self {
        Self {
            budget,
            held: 0,
            charged: 0,
        }
    }

    /// Bytes that came since it was empty.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Counts more. `false`: there is no room, and it is refused.
    #[must_use]
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let held = self.held.saturating_add(bytes);
        let due = due(held).saturating_sub(self.charged);
        if !self.budget.take(due) {
            return false;
        }
        self.charged = self.charged.saturating_add(due);
        self.held = held;
        true
    }

    /// Gives back a part.
    pub fn shrink(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes);
        let charged = due(self.held).min(self.charged);
        self.budget
            .sub(std::mem::replace(&mut self.charged, charged) - charged);
    }

    /// The whole message takes its bytes along: they are given back when the last slice of it is
    /// gone, wherever the layer above keeps it. The share is empty then.
    pub fn charge_until_dropped(&mut self, message: Bytes) -> Bytes {
        let empty = Self::new(self.budget.clone());
        let share = std::mem::replace(self, empty);
        if share.charged == 0 {
            return message;
        }
        Bytes::from_owner(Charged {
            message,
            _share: share,
        })
    }
}

fn due(held: usize) -> usize {
    if held > UNCOUNTED { held } else { 0 }
}

impl Drop for ByteShare {
    fn drop(&mut self) {
        self.budget.sub(self.charged);
    }
}

struct Charged {
    message: Bytes,
    _share: ByteShare,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_counts_large_messages_until_their_last_slice_is_gone() {
        let budget = ByteBudget::new(10_000);
        let mut share = ByteShare::new(budget.clone());
        assert!(share.try_grow(UNCOUNTED));
        let small = share.charge_until_dropped(Bytes::from_static(b"small"));
        assert_eq!((budget.used(), &small[..]), (0, &b"small"[..]));
        assert!(share.try_grow(UNCOUNTED) && share.try_grow(1));
        assert_eq!(budget.used(), UNCOUNTED + 1);
        let large = share.charge_until_dropped(Bytes::from_static(b"large"));
        let slice = large.slice(1..3);
        drop((large, share));
        assert_eq!((&slice[..], budget.used()), (&b"ar"[..], UNCOUNTED + 1));
        drop(slice);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn budget_takes_back_a_part() {
        let budget = ByteBudget::new(10_000);
        let mut share = ByteShare::new(budget.clone());
        for _ in 0..10_000 {
            assert!(share.try_grow(8));
            share.shrink(8);
        }
        assert!(share.try_grow(5000) && share.try_grow(8));
        share.shrink(8);
        assert_eq!((budget.used(), share.held()), (5000, 5000));
        share.shrink(5000);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn budget_refuses_the_newcomer_and_leaves_the_others() {
        let budget = ByteBudget::new(10_000);
        let [mut first, mut second] = std::array::from_fn(|_| ByteShare::new(budget.clone()));
        assert!(first.try_grow(6000));
        assert!(!first.try_grow(usize::MAX), "no overflow");
        assert!(!second.try_grow(5000) && second.try_grow(UNCOUNTED));
        assert_eq!(budget.used(), 6000, "small ones go through");
        assert!(first.try_grow(4000));
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }
}
