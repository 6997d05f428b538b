//! How many of something there may be at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::watch;

use super::LimitUse;
use crate::config::Limits;

/// Cheap to clone; all clones count the same.
#[derive(Debug, Clone)]
pub struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    limits: watch::Receiver<Limits>,
    most: fn(&Limits) -> usize,
    used: AtomicUsize,
    refused: AtomicU64,
}

/// Some of the places, until it is dropped.
#[derive(Debug)]
pub struct Held {
    places: Places,
    count: usize,
}

impl Places {
    /// `name`: that of the setting, and `most` what it says.
    pub fn new(
        name: &'static str,
        limits: watch::Receiver<Limits>,
        most: fn(&Limits) -> usize,
    ) -> Self {
        Self(Arc::new(Inner {
            name,
            limits,
            most,
            used: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    /// None yet.
    pub fn none(&self) -> Held {
        Held {
            places: self.clone(),
            count: 0,
        }
    }

    /// So many more, or none of them.
    pub fn take(&self, count: usize) -> Option<Held> {
        let most = self.most();
        let fits = |used: usize| used.checked_add(count).filter(|sum| *sum <= most);
        let taken = self
            .0
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        if taken.is_err() {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Held {
            places: self.clone(),
            count,
        })
    }

    fn most(&self) -> usize {
        (self.0.most)(&self.0.limits.borrow())
    }

    pub fn limit(&self) -> LimitUse {
        LimitUse {
            name: self.0.name,
            limit: self.most(),
            used: self.0.used.load(Ordering::Relaxed),
            refused: self.0.refused.load(Ordering::Relaxed),
        }
    }
}

impl Held {
    /// These, too.
    pub fn add(&mut self, mut more: Self) {
        self.count += std::mem::take(&mut more.count);
    }

    /// So many are free again.
    pub fn give_back(&mut self, count: usize) {
        let count = count.min(self.count);
        self.count -= count;
        self.places.0.used.fetch_sub(count, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back(self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_all_or_none_and_come_back() {
        let limits = watch::Sender::new(Limits {
            waiting_requests: 3,
            ..Limits::default()
        });
        let seen = limits.subscribe();
        let places = Places::new("waiting_requests", seen, |it| it.waiting_requests);
        let used = || (places.limit().used, places.limit().refused);
        let mut held = places.none();
        held.add(places.take(2).expect("there is room"));
        assert!(places.take(2).is_none());
        assert!(places.take(usize::MAX).is_none());
        assert_eq!(used(), (2, 2));
        held.give_back(1);
        let other = places.take(2).expect("there is room");
        assert_eq!(used(), (3, 2));
        held.give_back(9);
        assert_eq!(used().0, 2);
        limits.send_modify(|limits| limits.waiting_requests = 1);
        assert_eq!(
            (places.limit().limit, used().0),
            (1, 2),
            "who has one keeps it"
        );
        drop(other);
        assert!(places.take(2).is_none());
        drop(held);
        assert_eq!(used().0, 0);
        limits.send_modify(|limits| limits.waiting_requests = 4);
        assert!(places.take(4).is_some());
    }
}
