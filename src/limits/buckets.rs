//! One token bucket for each client.
//!
//! The counting is `governor`'s. The table is ours, because theirs has no bound: here there are at
//! most [`MOST`] clients, and those that come when it is full share one bucket. Who has not used
//! anything for as long as a bucket takes to fill is forgotten.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::Key;

/// Clients with a bucket of their own.
const MOST: usize = 65_536;
/// Seconds between two looks for those who are idle, and while the table is full.
const SWEEP: u64 = 10;
const SWEEP_FULL: u64 = 1;

/// Of clients, each with `most` things to use, which come back at a steady rate.
#[derive(Debug)]
pub struct Buckets {
    limiter: RateLimiter<Key, Table, SinceStart, NoOpMiddleware<Duration>>,
    table: Table,
    clock: SinceStart,
    most: u32,
    /// For one to come back.
    each: Duration,
    /// In seconds since the start.
    swept: AtomicU64,
}

impl Buckets {
    /// `most` at once, and `count` of them come back in `period`.
    pub fn new(count: NonZeroU32, period: Duration, most: NonZeroU32) -> Self {
        Self::of_clients(count, period, most, MOST)
    }

    fn of_clients(count: NonZeroU32, period: Duration, most: NonZeroU32, clients: usize) -> Self {
        let each = period / count.get();
        let quota = Quota::with_period(each).unwrap_or_else(|| Quota::per_second(count));
        let clock = SinceStart(Instant::now());
        let table = Table(Arc::new(Rows {
            most: clients,
            rows: Mutex::default(),
        }));
        Self {
            limiter: RateLimiter::new(quota.allow_burst(most), table.clone(), clock),
            table,
            clock,
            most: most.get(),
            each,
            swept: AtomicU64::new(0),
        }
    }

    /// Uses one, or says how long it takes until there is one.
    pub fn take(&self, key: &Key) -> Result<(), Duration> {
        self.sweep();
        let taken = self.limiter.check_key(key);
        taken.map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// What the client who has used most has used of its bucket.
    pub fn used_most(&self) -> u32 {
        let now = self.clock.now().as_nanos();
        let latest = self.table.lock().values().copied().max();
        let latest = latest.map_or(0, |at| u128::from(at.as_u64()));
        let each = self.each.as_nanos().max(1);
        let used = latest.saturating_sub(now).div_ceil(each);
        u32::try_from(used).map_or(self.most, |used| used.min(self.most))
    }

    fn sweep(&self) {
        let (now, order) = (self.clock.now().as_secs(), Ordering::Relaxed);
        let pause = match self.table.is_full() {
            true => SWEEP_FULL,
            false => SWEEP,
        };
        let swept = self.swept.load(order);
        if now >= swept.saturating_add(pause)
            && self
                .swept
                .compare_exchange(swept, now, order, order)
                .is_ok()
        {
            self.limiter.retain_recent();
        }
    }
}

/// When the bucket of each client will be full again.
#[derive(Debug, Clone)]
struct Table(Arc<Rows>);

#[derive(Debug)]
struct Rows {
    most: usize,
    rows: Mutex<HashMap<Key, Nanos>>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Nanos>> {
        self.0.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self) -> bool {
        self.lock().len() >= self.0.most
    }
}

impl StateStore for Table {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut rows = self.lock();
        let has_room = match key {
            // They are as many as the tokens file has; strangers take no bucket of theirs.
            Key::Token(_) => true,
            _ => rows.len() < self.0.most || rows.contains_key(key),
        };
        let key = if has_room { *key } else { Key::Others };
        let (outcome, full_at) = measure(rows.get(&key).copied())?;
        rows.insert(key, full_at);
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<Key> for Table {
    fn retain_recent(&self, drop_below: Nanos) {
        let mut rows = self.lock();
        rows.retain(|_, full_at| *full_at > drop_below);
        rows.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

/// Time since a moment; tokio's, which tests can wind on.
#[derive(Debug, Clone, Copy)]
struct SinceStart(Instant);

impl Clock for SinceStart {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn key(number: u8) -> Key {
        Key::Token([number; 8])
    }

    /// Three at once, one a second.
    fn three(clients: usize) -> Buckets {
        let (one, three) = (NonZeroU32::MIN, NonZeroU32::MIN.saturating_add(2));
        Buckets::of_clients(one, Duration::from_secs(1), three, clients)
    }

    #[tokio::test(start_paused = true)]
    async fn each_client_has_a_bucket_and_it_fills_again() {
        let buckets = three(10);
        for used in 1..=3 {
            assert_eq!(buckets.take(&key(1)), Ok(()));
            assert_eq!(buckets.used_most(), used);
        }
        let wait = buckets.take(&key(1)).expect_err("it is empty");
        assert!(
            wait > Duration::ZERO && wait <= Duration::from_secs(1),
            "{wait:?}"
        );
        assert_eq!(buckets.used_most(), 3);
        assert_eq!(buckets.take(&key(2)), Ok(()));
        advance(wait).await;
        assert_eq!(buckets.take(&key(1)), Ok(()));
        assert!(buckets.take(&key(1)).is_err());
        advance(Duration::from_secs(3)).await;
        assert_eq!(buckets.used_most(), 0);
    }

    fn address(number: u8) -> Key {
        Key::of_address(std::net::Ipv4Addr::new(203, 0, 113, number).into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_has_its_own_bucket_however_full_the_table_is() {
        let buckets = three(2);
        for number in 1..=5 {
            assert_eq!(buckets.take(&address(number)), Ok(()));
        }
        assert!(buckets.take(&address(6)).is_err());
        for _ in 0..3 {
            assert_eq!(buckets.take(&key(1)), Ok(()));
        }
        assert!(buckets.take(&key(1)).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_to_a_full_table_shares_a_bucket_and_the_idle_are_forgotten() {
        let buckets = three(2);
        for number in [1, 2] {
            assert_eq!(buckets.take(&address(number)), Ok(()));
        }
        for number in [3, 4, 5] {
            assert_eq!(buckets.take(&address(number)), Ok(()));
        }
        assert!(buckets.take(&address(6)).is_err());
        assert_eq!(buckets.take(&address(1)), Ok(()), "it has its own");
        assert_eq!(buckets.table.len(), 3);
        advance(Duration::from_secs(60)).await;
        assert_eq!(buckets.take(&address(6)), Ok(()));
        assert_eq!(buckets.table.len(), 1);
    }
}
