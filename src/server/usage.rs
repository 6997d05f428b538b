//! How many connections are open, by address and in all, and how many are still before their first
//! request.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::sync::Notify;

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

    /// Takes over other numbers of connections. Those that are open stay: while there are more than
    /// may be, no further ones come in.
    pub fn set_limits(&self, limits: &Limits) {
        self.0.set(limits);
    }

    pub fn limits(&self) -> [LimitUse; 3] {
        let counts = &*self.0;
        [
            LimitUse {
                name: "connections",
                limit: counts.addresses.most(),
                used: counts.addresses.all(),
                // They wait.
                refused: 0,
            },
            LimitUse {
                name: "connections_per_address",
                limit: counts.addresses.most_of_one.load(Ordering::Relaxed),
                used: counts.addresses.busiest(),
                refused: counts.addresses.refused.load(Ordering::Relaxed),
            },
            LimitUse {
                name: "unfinished_handshakes",
                limit: counts.unfinished.most.load(Ordering::Relaxed),
                used: lock(&counts.unfinished.places).count,
                refused: counts.unfinished.displaced.load(Ordering::Relaxed),
            },
        ]
    }
}

#[derive(Debug)]
pub(super) struct Counts {
    pub(super) addresses: Arc<Addresses>,
    pub(super) unfinished: Arc<Unfinished>,
}

impl Counts {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        let counts = Self {
            addresses: Arc::new(Addresses {
                most: AtomicUsize::new(0),
                most_of_one: AtomicUsize::new(0),
                proxies: limits.proxies.clone(),
                open: Mutex::default(),
                changed: Notify::new(),
                refused: AtomicU64::new(0),
            }),
            unfinished: Arc::new(Unfinished {
                most: AtomicUsize::new(0),
                places: Mutex::default(),
                displaced: AtomicU64::new(0),
            }),
        };
        counts.set(limits);
        Arc::new(counts)
    }

    fn set(&self, limits: &Limits) {
        let Self {
            addresses,
            unfinished,
        } = self;
        let half = limits.connections.div_ceil(2);
        for (bound, most) in [
            (&addresses.most, limits.connections),
            (
                &addresses.most_of_one,
                limits.connections_per_address.min(half),
            ),
            (&unfinished.most, limits.unfinished_handshakes.min(half)),
        ] {
            bound.store(most, Ordering::Relaxed);
        }
        addresses.changed.notify_one();
    }
}

/// Open connections, in all and by address.
#[derive(Debug)]
pub(super) struct Addresses {
    most: AtomicUsize,
    /// Of one address.
    most_of_one: AtomicUsize,
    /// Not counted by address.
    proxies: Vec<IpNet>,
    open: Mutex<Open>,
    /// Told when one leaves, and of other limits.
    changed: Notify,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_network: HashMap<IpAddr, usize>,
}

/// One of an address's connections, until it is dropped.
#[derive(Debug)]
pub(super) struct AddressPlace {
    addresses: Arc<Addresses>,
    /// `None`: not counted by address.
    network: Option<IpAddr>,
}

impl Addresses {
    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    pub(super) fn has_room(&self) -> bool {
        self.all() < self.most()
    }

    /// Waits until there is room for one more. To be asked by one at a time.
    pub(super) async fn room(&self) {
        while !self.has_room() {
            self.changed().await;
        }
    }

    /// Waits until there may be other room than before.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// `None`: this address has as many as it may.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<AddressPlace> {
        let network = self.says_who(address).then(|| network(address));
        let mut open = lock(&self.open);
        if let Some(network) = network {
            let count = open.by_network.entry(network).or_default();
            if *count >= self.most_of_one.load(Ordering::Relaxed) {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            *count += 1;
        }
        open.all += 1;
        Some(AddressPlace {
            addresses: self.clone(),
            network,
        })
    }

    /// Not so the addresses from which everybody on this machine comes, or behind a proxy.
    fn says_who(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_own = address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST;
        !is_own && !self.proxies.iter().any(|it| it.contains(&address))
    }

    fn all(&self) -> usize {
        lock(&self.open).all
    }

    fn busiest(&self) -> usize {
        let open = lock(&self.open);
        open.by_network.values().copied().max().unwrap_or(0)
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut open = lock(&self.addresses.open);
        open.all -= 1;
        if let Some(network) = self.network
            && let Some(count) = open.by_network.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                open.by_network.remove(&network);
            }
        }
        drop(open);
        self.addresses.changed.notify_one();
    }
}

/// What counts as one address: with IPv6 a network of 64 bits, which is the least that anybody is
/// given.
fn network(address: IpAddr) -> IpAddr {
    const NETWORK: u128 = !0 << 64;
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & NETWORK).into()),
        v4 => v4,
    }
}

/// Connections before their first request.
#[derive(Debug)]
pub(super) struct Unfinished {
    most: AtomicUsize,
    places: Mutex<Places>,
    displaced: AtomicU64,
}

#[derive(Debug, Default)]
struct Places {
    /// Those of one address in the order of their beginning; none is without any.
    by_network: HashMap<IpAddr, BTreeMap<u64, Arc<Notify>>>,
    count: usize,
    last: u64,
}

impl Places {
    fn remove(&mut self, network: IpAddr, number: u64) -> Option<Arc<Notify>> {
        let of_one = self.by_network.get_mut(&network)?;
        let removed = of_one.remove(&number)?;
        if of_one.is_empty() {
            self.by_network.remove(&network);
        }
        self.count -= 1;
        Some(removed)
    }

    /// Takes out the oldest of whoever has most, the older one of two that have as many.
    fn remove_of_busiest(&mut self) -> Option<Arc<Notify>> {
        let oldest = |(network, places): (&IpAddr, &BTreeMap<u64, _>)| {
            let (number, _) = places.first_key_value()?;
            Some((places.len(), Reverse(*number), *network))
        };
        let (_, Reverse(number), network) = self.by_network.iter().filter_map(oldest).max()?;
        self.remove(network, number)
    }
}

/// One of them, until its first request has come.
#[derive(Debug)]
pub(super) struct UnfinishedPlace {
    unfinished: Arc<Unfinished>,
    network: IpAddr,
    number: u64,
    /// Told when it has to make room.
    pub(super) displaced: Arc<Notify>,
}

impl Unfinished {
    /// Beyond the limit the oldest of the address that has most makes room: who means well is done
    /// in a moment. The flag says whether one had to.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> (UnfinishedPlace, bool) {
        let (network, displaced) = (network(address), Arc::new(Notify::new()));
        let mut places = lock(&self.places);
        let is_full = places.count >= self.most.load(Ordering::Relaxed);
        let oldest = is_full.then(|| places.remove_of_busiest()).flatten();
        places.last += 1;
        places.count += 1;
        let number = places.last;
        let of_one = places.by_network.entry(network).or_default();
        of_one.insert(number, displaced.clone());
        drop(places);
        if let Some(oldest) = &oldest {
            self.displaced.fetch_add(1, Ordering::Relaxed);
            oldest.notify_one();
        }
        let place = UnfinishedPlace {
            unfinished: self.clone(),
            network,
            number,
            displaced,
        };
        (place, oldest.is_some())
    }
}

impl Drop for UnfinishedPlace {
    fn drop(&mut self) {
        lock(&self.unfinished.places).remove(self.network, self.number);
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
        assert!(first.is_some() && second.is_some());
        assert!(enter("192.0.2.1").is_none());
        assert!(enter("192.0.2.2").is_some(), "another has its own");
        drop(first);
        assert!(enter("192.0.2.1").is_some(), "it came back");

        let _held = [enter("2001:db8::1"), enter("2001:db8::ffff:0:0:1")];
        assert!(enter("2001:db8::5").is_none());
        assert!(enter("2001:db8:0:1::1").is_some());
        let used = Usage(counts.clone()).limits()[1];
        assert_eq!((used.limit, used.used, used.refused), (2, 2, 2));
        for free in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let many: Vec<_> = (0..9).map(|_| enter(free)).collect();
            assert!(many.iter().all(Option::is_some), "{free}");
        }
        drop((second, _held));
        let open = lock(&counts.addresses.open);
        assert_eq!((open.all, open.by_network.len()), (0, 0), "nothing is left");
    }

    #[tokio::test]
    async fn the_oldest_that_has_not_begun_makes_room() {
        let counts = counts(2);
        let enter = || counts.unfinished.enter(IpAddr::from([192, 0, 2, 1]));
        let ((oldest, _), (newer, _)) = (enter(), enter());
        let (newest, made_room) = enter();
        assert!(made_room);
        oldest.displaced.notified().await;
        drop(oldest);
        drop(newer);
        let (_other, made_room) = enter();
        assert!(!made_room, "one that has begun has left its place");
        let used = Usage(counts.clone()).limits()[2];
        assert_eq!((used.limit, used.used, used.refused), (2, 2, 1));
        drop(newest);
    }
    #[test]
    fn who_has_most_unfinished_connections_makes_room_not_the_oldest_of_all() {
        let counts = counts(4);
        let enter = |last| counts.unfinished.enter(IpAddr::from([192, 0, 2, last])).0;
        let (slow, _flood) = (enter(1), [(); 9].map(|()| enter(2)));
        let places = lock(&counts.unfinished.places);
        let held = |last| places.by_network[&IpAddr::from([192, 0, 2, last])].len();
        assert_eq!((held(1), held(2)), (1, 3));
        drop(places);
        drop((slow, _flood));
        let places = lock(&counts.unfinished.places);
        assert_eq!((places.count, places.by_network.len()), (0, 0));
    }
}
