//! Name resolution for webhooks, apart from the reads of the store.
//!
//! The system's resolver blocks a thread, for half a minute when no name server answers, and an
//! attempt that gives up meanwhile does not free it. All reads run on the same pool of threads; so
//! lookups get [`AT_ONCE`] of them. A name that is being looked up already is not looked up a
//! second time: one that is never answered holds one thread, however many attempts wait for it.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, Shared};
use futures_util::{FutureExt, TryFutureExt};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Names that are looked up at the same time; others wait for their turn.
const AT_ONCE: usize = 16;

/// Addresses (with port 0), or why there are none.
pub type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// Lookups under way, by name.
type UnderWay = HashMap<String, Shared<BoxFuture<'static, Found>>>;

/// Looks up names; clones share the turns.
#[derive(Clone)]
pub struct Lookups(Arc<Inner>);

struct Inner {
    /// Blocks until it knows.
    resolve: fn(&str) -> io::Result<Vec<SocketAddr>>,
    turns: Semaphore,
    running: Mutex<UnderWay>,
}

impl Default for Lookups {
    /// With the system's resolver.
    fn default() -> Self {
        Self::new(|host| (host, 0).to_socket_addrs().map(Iterator::collect))
    }
}

impl Lookups {
    fn new(resolve: fn(&str) -> io::Result<Vec<SocketAddr>>) -> Self {
        Self(Arc::new(Inner {
            resolve,
            turns: Semaphore::new(AT_ONCE),
            running: Mutex::default(),
        }))
    }

    pub async fn find(&self, host: &str) -> Found {
        let lookup = self
            .0
            .running()
            .entry(host.to_owned())
            .or_insert_with(|| self.begin(host.to_owned()))
            .clone();
        lookup.await
    }

    /// In a task of its own: it frees its place also when nobody waits any more.
    fn begin(&self, host: String) -> Shared<BoxFuture<'static, Found>> {
        let inner = self.0.clone();
        let lookup = tokio::spawn(async move {
            let turn = inner.turns.acquire().await;
            let (resolve, name) = (inner.resolve, host.clone());
            let found = spawn_blocking(move || resolve(&name)).await;
            drop(turn);
            inner.running().remove(&host);
            found.unwrap_or_else(|panic| Err(io::Error::other(panic)))
        });
        let found = async {
            lookup
                .await
                .unwrap_or_else(|cut| Err(io::Error::other(cut)))
        };
        found.map_err(Arc::new).boxed().shared()
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, UnderWay> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A resolver that answers nothing until the test ends it.
    static ANSWERS: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

    fn dead(host: &str) -> io::Result<Vec<SocketAddr>> {
        let ended = ANSWERS.0.lock().expect("no panic while holding it");
        let ended = ANSWERS.1.wait_while(ended, |ended| !*ended);
        assert!(*ended.expect("no panic while holding it"));
        Err(io::Error::other(format!("{host} is not answered")))
    }

    #[test]
    fn a_dead_resolver_leaves_threads_for_reads() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(AT_ONCE + 1)
            .enable_all()
            .build()
            .expect("threads can be started");
        let read = runtime.block_on(async {
            let lookups = Lookups::new(dead);
            for number in 0..4 * AT_ONCE {
                let lookups = lookups.clone();
                tokio::spawn(async move { lookups.find(&format!("{number}.example")).await });
            }
            while lookups.0.turns.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            let read = timeout(PATIENCE, spawn_blocking(|| "read")).await;
            *ANSWERS.0.lock().expect("no panic while holding it") = true;
            ANSWERS.1.notify_all();
            read
        });
        assert_eq!(read.expect("a read gets a thread").expect("it ran"), "read");
    }

    #[tokio::test]
    async fn a_name_that_is_being_looked_up_is_not_looked_up_again() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let lookups = Lookups::new(|_| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            Ok(vec![SocketAddr::from(([192, 0, 2, 1], 0))])
        });
        let (first, second) = tokio::join!(lookups.find("a.example"), lookups.find("a.example"));
        assert_eq!(first.expect("found"), second.expect("found"));
        assert_eq!(ASKED.load(Ordering::SeqCst), 1);
        assert!(lookups.0.running().is_empty(), "nothing is kept");
        let _ = lookups.find("a.example").await;
        assert_eq!(ASKED.load(Ordering::SeqCst), 2, "names may change");
    }
}
