//! How often a client may ask.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Buckets, Key, LimitUse};
use crate::config::Limits;

const REQUESTS: &str = "requests_per_second";
const COSTLY: &str = "costly_per_minute";
/// Seconds that a client may be idle and ask for as much at once afterwards.
const BURST: u32 = 10;

/// Of requests and events, and of costly ones among them.
#[derive(Debug)]
pub struct Rates {
    requests: Buckets,
    costly: Buckets,
    requests_per_second: NonZeroU32,
    costly_per_minute: NonZeroU32,
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
    pub fn new(limits: &Limits) -> Self {
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let requests = at_least_one(limits.requests_per_second);
        let costly = at_least_one(limits.costly_per_minute);
        let burst = requests.saturating_mul(NonZeroU32::MIN.saturating_add(BURST - 1));
        Self {
            requests: Buckets::new(requests, Duration::from_secs(1), burst),
            costly: Buckets::new(costly, Duration::from_secs(60), costly),
            requests_per_second: requests,
            costly_per_minute: costly,
        }
    }

    /// Counts a request or an event.
    pub fn request(&self, key: &Key) -> Result<(), Exceeded> {
        self.requests.take(key).map_err(|wait| Exceeded {
            name: REQUESTS,
            most: self.requests_per_second,
            wait,
        })
    }

    /// Counts something that costs much.
    pub fn costly(&self, key: &Key) -> Result<(), Exceeded> {
        self.costly.take(key).map_err(|wait| Exceeded {
            name: COSTLY,
            most: self.costly_per_minute,
            wait,
        })
    }

    /// What is used: by the client who has used most, of requests on the average of the seconds
    /// that a bucket holds.
    pub fn limits(&self) -> [LimitUse; 2] {
        let of = |name, most: NonZeroU32, used: u32, buckets: &Buckets| LimitUse {
            name,
            limit: most.get() as usize,
            used: used as usize,
            refused: buckets.refused(),
        };
        let requests = self.requests.used_most().div_ceil(BURST);
        let costly = self.costly.used_most();
        [
            of(REQUESTS, self.requests_per_second, requests, &self.requests),
            of(COSTLY, self.costly_per_minute, costly, &self.costly),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_may_come_in_a_burst_and_costly_ones_all_in_their_minute() {
        let rates = Rates::new(&Limits {
            requests_per_second: 2,
            costly_per_minute: 3,
            ..Limits::default()
        });
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
        assert_eq!(uses, [(REQUESTS, 2, 2, 1), (COSTLY, 3, 3, 1)]);
    }
}
