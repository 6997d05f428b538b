//! How often a client may ask.
//!
//! A limit that is changed begins with full buckets.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::watch;

use super::{Buckets, Key, LimitUse};
use crate::config::Limits;

/// Seconds that a client may be idle and ask for as much at once afterwards.
const BURST: u32 = 10;

/// Of requests and events, and of costly ones among them.
#[derive(Debug)]
pub struct Rates {
    limits: watch::Receiver<Limits>,
    requests: Rate,
    costly: Rate,
}

/// A client has asked too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("limits.{name} ({most})")]
pub struct Exceeded {
    /// As the setting is called.
    pub name: &'static str,
    pub most: NonZeroU32,
    pub wait: Duration,
}

impl Rates {
    pub fn new(limits: watch::Receiver<Limits>) -> Self {
        let rate = |name, most, period, at_once| Rate {
            name,
            most,
            period,
            at_once,
            built: RwLock::new(Built::new(NonZeroU32::MIN, period, at_once)),
            refused: AtomicU64::new(0),
        };
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        Self {
            limits,
            requests: rate(
                "requests_per_second",
                |it| it.requests_per_second,
                second,
                BURST,
            ),
            costly: rate("costly_per_minute", |it| it.costly_per_minute, minute, 1),
        }
    }

    /// Counts a request or an event.
    pub fn request(&self, key: &Key) -> Result<(), Exceeded> {
        self.requests.take(&self.limits, key)
    }

    /// Counts something that costs much.
    pub fn costly(&self, key: &Key) -> Result<(), Exceeded> {
        self.costly.take(&self.limits, key)
    }

    /// What is used: by the client who has used most, of requests on the average of the seconds
    /// that a bucket holds.
    pub fn limits(&self) -> [LimitUse; 2] {
        [&self.requests, &self.costly].map(|rate| rate.limit(&self.limits))
    }
}

/// One of the limits.
#[derive(Debug)]
struct Rate {
    name: &'static str,
    /// What the setting says: so many in a period.
    most: fn(&Limits) -> u32,
    period: Duration,
    /// Of so many periods at once.
    at_once: u32,
    built: RwLock<Built>,
    refused: AtomicU64,
}

/// Buckets for a limit.
#[derive(Debug)]
struct Built {
    most: NonZeroU32,
    buckets: Buckets,
}

impl Built {
    fn new(most: NonZeroU32, period: Duration, at_once: u32) -> Self {
        let burst = NonZeroU32::new(at_once).unwrap_or(NonZeroU32::MIN);
        let buckets = Buckets::new(most, period, most.saturating_mul(burst));
        Self { most, buckets }
    }
}

impl Rate {
    fn take(&self, limits: &watch::Receiver<Limits>, key: &Key) -> Result<(), Exceeded> {
        let built = self.in_force(limits);
        built.buckets.take(key).map_err(|wait| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            Exceeded {
                name: self.name,
                most: built.most,
                wait,
            }
        })
    }

    fn limit(&self, limits: &watch::Receiver<Limits>) -> LimitUse {
        let built = self.in_force(limits);
        LimitUse {
            name: self.name,
            limit: built.most.get() as usize,
            used: built.buckets.used_most().div_ceil(self.at_once) as usize,
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Those for the limit in force.
    fn in_force(&self, limits: &watch::Receiver<Limits>) -> RwLockReadGuard<'_, Built> {
        let most = NonZeroU32::new((self.most)(&limits.borrow())).unwrap_or(NonZeroU32::MIN);
        let built = self.built.read().unwrap_or_else(PoisonError::into_inner);
        if built.most == most {
            return built;
        }
        drop(built);
        let mut built = self.built.write().unwrap_or_else(PoisonError::into_inner);
        if built.most != most {
            *built = Built::new(most, self.period, self.at_once);
        }
        drop(built);
        self.built.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(requests_per_second: u32, costly_per_minute: u32) -> Limits {
        Limits {
            requests_per_second,
            costly_per_minute,
            ..Limits::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_may_come_in_a_burst_and_costly_ones_all_in_their_minute() {
        let rates = Rates::new(watch::channel(limits(2, 3)).1);
        let key = Key::Token([1; 8]);
        for _ in 0..20 {
            assert_eq!(rates.request(&key), Ok(()));
        }
        let exceeded = rates.request(&key).expect_err("it is too often");
        assert_eq!(exceeded.to_string(), "limits.requests_per_second (2)");
        assert!(exceeded.wait <= Duration::from_millis(500));
        for _ in 0..3 {
            assert_eq!(rates.costly(&key), Ok(()));
        }
        let exceeded = rates.costly(&key).expect_err("it is too often");
        assert_eq!(exceeded.to_string(), "limits.costly_per_minute (3)");
        assert!(exceeded.wait <= Duration::from_secs(20));
        let uses = rates
            .limits()
            .map(|it| (it.name, it.limit, it.used, it.refused));
        assert_eq!(
            uses,
            [
                ("requests_per_second", 2, 2, 1),
                ("costly_per_minute", 3, 3, 1)
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_changed_counts_at_once_and_the_other_goes_on() {
        let in_force = watch::Sender::new(limits(1, 1));
        let rates = Rates::new(in_force.subscribe());
        let key = Key::Token([1; 8]);
        let requests = |rates: &Rates| (0..99).filter(|_| rates.request(&key).is_ok()).count();
        assert_eq!((requests(&rates), rates.costly(&key)), (10, Ok(())));
        in_force.send_replace(limits(2, 1));
        assert_eq!(requests(&rates), 20);
        assert!(rates.costly(&key).is_err());
        in_force.send_replace(limits(1, 1));
        assert_eq!(requests(&rates), 10);
        let uses = rates.limits().map(|it| (it.limit, it.used, it.refused));
        assert_eq!(uses, [(1, 1, 89 + 79 + 89), (1, 1, 1)]);
    }
}
