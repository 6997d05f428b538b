//! How many connections are open, by address and in all, and how many are still before their first
//! request.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

use super::Limits;

/// One limit and its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitUse {
    /// As the setting is called.
    pub name: &'static str,
    pub limit: usize,
    pub used: usize,
    /// Whom it has kept out since the start.
    pub refused: u64,
}

/// What is in use of a server's limits.
#[derive(Debug, Clone)]
pub struct Usage(pub(super) Arc<Counts>);

impl Usage {
    /// Of a server that nobody connects to.
    pub fn of_nobody() -> Self {
        Self(Counts::new(&Limits::default()))
    }

    pub fn limits(&self) -> [LimitUse; 3] {
        let counts = &*self.0;
        [
            LimitUse {
                name: "connections",
                limit: counts.connections,
                used: counts.connections - counts.slots.available_permits(),
                // They wait.
                refused: 0,
            },
            LimitUse {
                name: "connections_per_address",
                limit: counts.addresses.most,
                used: counts.addresses.busiest(),
                refused: counts.addresses.refused.load(Ordering::Relaxed),
            },
            LimitUse {
                name: "unfinished_handshakes",
                limit: counts.unfinished.most,
                used: lock(&counts.unfinished.places).by_number.len(),
                refused: counts.unfinished.displaced.load(Ordering::Relaxed),
            },
        ]
    }
}

#[derive(Debug)]
pub(super) struct Counts {
    connections: usize,
    pub(super) slots: Arc<Semaphore>,
    pub(super) addresses: Arc<Addresses>,
    pub(super) unfinished: Arc<Unfinished>,
}

impl Counts {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        let connections = limits.connections.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            connections,
            slots: Arc::new(Semaphore::new(connections)),
            addresses: Arc::new(Addresses {
                most: limits.connections_per_address,
                open: Mutex::default(),
                refused: AtomicU64::new(0),
            }),
            unfinished: Arc::new(Unfinished {
                most: limits.unfinished_handshakes,
                places: Mutex::default(),
                displaced: AtomicU64::new(0),
            }),
        })
    }
}

/// Open connections by address.
#[derive(Debug)]
pub(super) struct Addresses {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
    refused: AtomicU64,
}

/// One of an address's connections, until it is dropped.
#[derive(Debug)]
pub(super) struct AddressPlace {
    addresses: Arc<Addresses>,
    key: IpAddr,
}

impl Addresses {
    /// `Ok(None)`: connections of this address are not counted. `Err`: it has as many as it may.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Option<AddressPlace>, ()> {
        let Some(key) = key(address) else {
            return Ok(None);
        };
        let mut open = lock(&self.open);
        let count = open.entry(key).or_default();
        if *count >= self.most {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(());
        }
        *count += 1;
        Ok(Some(AddressPlace {
            addresses: self.clone(),
            key,
        }))
    }

    fn busiest(&self) -> usize {
        lock(&self.open).values().copied().max().unwrap_or(0)
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut open = lock(&self.addresses.open);
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}

/// What counts as one address: with IPv6 a network of 64 bits, which is the least that anybody is
/// given. `None`: the address from which everybody on this machine comes says nothing about who it
/// is; a proxy here may have thousands of clients.
fn key(address: IpAddr) -> Option<IpAddr> {
    const NETWORK: u128 = !0 << 64;
    match address.to_canonical() {
        IpAddr::V4(ip) if ip == std::net::Ipv4Addr::LOCALHOST => None,
        IpAddr::V6(ip) if ip == std::net::Ipv6Addr::LOCALHOST => None,
        IpAddr::V6(ip) => Some(IpAddr::V6((u128::from(ip) & NETWORK).into())),
        v4 => Some(v4),
    }
}

/// Connections before their first request.
#[derive(Debug)]
pub(super) struct Unfinished {
    most: usize,
    places: Mutex<Places>,
    displaced: AtomicU64,
}

#[derive(Debug, Default)]
struct Places {
    /// In the order of their beginning.
    by_number: BTreeMap<u64, Arc<Notify>>,
    last: u64,
}

/// One of them, until its first request has come.
#[derive(Debug)]
pub(super) struct UnfinishedPlace {
    unfinished: Arc<Unfinished>,
    number: u64,
    /// Told when it has to make room.
    pub(super) displaced: Arc<Notify>,
}

impl Unfinished {
    /// Beyond the limit the oldest makes room: who means well is done in a moment. The flag says
    /// whether one had to.
    pub(super) fn enter(self: &Arc<Self>) -> (UnfinishedPlace, bool) {
        let displaced = Arc::new(Notify::new());
        let mut places = lock(&self.places);
        let is_full = places.by_number.len() >= self.most;
        let oldest = is_full.then(|| places.by_number.pop_first()).flatten();
        places.last += 1;
        let number = places.last;
        places.by_number.insert(number, displaced.clone());
        drop(places);
        if let Some((_, oldest)) = &oldest {
            self.displaced.fetch_add(1, Ordering::Relaxed);
            oldest.notify_one();
        }
        let place = UnfinishedPlace {
            unfinished: self.clone(),
            number,
            displaced,
        };
        (place, oldest.is_some())
    }
}

impl Drop for UnfinishedPlace {
    fn drop(&mut self) {
        lock(&self.unfinished.places).by_number.remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No call under these locks can leave them half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(most: usize) -> Arc<Counts> {
        Counts::new(&Limits {
            connections_per_address: most,
            unfinished_handshakes: most,
            ..Limits::default()
        })
    }

    #[test]
    fn an_address_has_its_own_places_and_an_ipv6_network_is_one() {
        let counts = counts(2);
        let enter = |text: &str| {
            let address = text.parse().expect("an address");
            counts.addresses.enter(address)
        };
        let (first, second) = (enter("192.0.2.1"), enter("::ffff:192.0.2.1"));
        assert!(first.is_ok() && second.is_ok());
        assert!(enter("192.0.2.1").is_err());
        assert!(enter("192.0.2.2").is_ok(), "another has its own");
        drop(first);
        assert!(enter("192.0.2.1").is_ok(), "it came back");

        let _held = [enter("2001:db8::1"), enter("2001:db8::ffff:0:0:1")];
        assert!(enter("2001:db8::5").is_err());
        assert!(enter("2001:db8:0:1::1").is_ok());
        let used = Usage(counts.clone()).limits()[1];
        assert_eq!((used.limit, used.used, used.refused), (2, 2, 2));
        for free in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let many: Vec<_> = (0..9).map(|_| enter(free)).collect();
            assert!(many.iter().all(|it| matches!(it, Ok(None))), "{free}");
        }
        drop((second, _held));
        assert_eq!(lock(&counts.addresses.open).len(), 0, "nothing is left");
    }

    #[tokio::test]
    async fn the_oldest_that_has_not_begun_makes_room() {
        let counts = counts(2);
        let ((oldest, _), (newer, _)) = (counts.unfinished.enter(), counts.unfinished.enter());
        let (newest, made_room) = counts.unfinished.enter();
        assert!(made_room);
        oldest.displaced.notified().await;
        drop(oldest);
        drop(newer);
        let (_other, made_room) = counts.unfinished.enter();
        assert!(!made_room, "one that has begun has left its place");
        let used = Usage(counts.clone()).limits()[2];
        assert_eq!((used.limit, used.used, used.refused), (2, 2, 1));
        drop(newest);
    }
}
