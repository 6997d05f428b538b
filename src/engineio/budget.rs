//! Bytes that all sessions of a service may hold together. A session's own bounds are not enough: ten thousand of them, each well within
//! its own, would still fill the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// A count of bytes with a limit.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Counts what is there already.
    pub(super) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// `false`: no room, and nothing was counted.
    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

/// Bytes that a client may send without being counted: about what a connection costs anyway.
const UNCOUNTED: usize = 4096;

/// What one client has sent of a message that is not whole yet; given back when dropped.
#[derive(Debug)]
pub(super) struct Incoming {
    budget: Arc<Budget>,
    seen: usize,
    charged: usize,
}

impl Incoming {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, seen: 0, charged: 0 }
    }

    /// Counts more of it. `false`: there is no room.
    #[must_use]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        self.seen = self.seen.saturating_add(bytes);
        let due = if self.seen > UNCOUNTED { self.seen } else { 0 };
        let more = due.saturating_sub(self.charged);
        let fits = more == 0 || self.budget.take(more);
        if fits {
            self.charged += more;
        }
        fits
    }

    /// Takes back what turned out not to be a part of a message.
    pub(super) fn forget(&mut self, bytes: usize) {
        self.seen = self.seen.saturating_sub(bytes);
        let due = if self.seen > UNCOUNTED { self.seen } else { 0 };
        let less = self.charged.saturating_sub(due);
        self.budget.sub(less);
        self.charged -= less;
    }

    /// The whole message takes its share of the budget along: it is given back when the last slice of these bytes is gone, wherever the layer
    /// above keeps them. The next message begins at zero.
    pub(super) fn carry(&mut self, message: Bytes) -> Bytes {
        let charged = std::mem::take(&mut self.charged);
        self.seen = 0;
        if charged == 0 {
            return message;
        }
        Bytes::from_owner(Carried { message, _share: Self { budget: self.budget.clone(), seen: 0, charged } })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.budget.sub(self.charged);
    }
}

struct Carried {
    message: Bytes,
    _share: Incoming,
}

impl AsRef<[u8]> for Carried {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_are_not_counted_and_large_ones_until_their_last_slice_is_gone() {
        let budget = Budget::new(10_000);
        let mut first = Incoming::new(budget.clone());
        assert!(first.grow(UNCOUNTED));
        assert_eq!((budget.used(), first.carry(Bytes::from_static(b"small"))), (0, Bytes::from_static(b"small")));
        assert!(first.grow(UNCOUNTED) && first.grow(1));
        assert_eq!(budget.used(), UNCOUNTED + 1);
        let slice = first.carry(Bytes::from_static(b"large")).slice(1..3);
        assert_eq!((&slice[..], budget.used()), (&b"ar"[..], UNCOUNTED + 1));
        drop(slice);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_not_a_message_is_forgotten() {
        let budget = Budget::new(10_000);
        let mut incoming = Incoming::new(budget.clone());
        for _ in 0..10_000 {
            assert!(incoming.grow(8));
            incoming.forget(8);
        }
        assert!(incoming.grow(5000) && incoming.grow(8));
        incoming.forget(8);
        assert_eq!(budget.used(), 5000);
        incoming.forget(5000);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn who_would_go_beyond_the_budget_is_refused_and_gives_back_what_it_had() {
        let budget = Budget::new(10_000);
        let (mut first, mut second) = (Incoming::new(budget.clone()), Incoming::new(budget.clone()));
        assert!(first.grow(6000));
        assert!(!second.grow(5000));
        assert_eq!(budget.used(), 6000);
        assert!(!first.grow(usize::MAX) && budget.used() == 6000, "no overflow");
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }
}
