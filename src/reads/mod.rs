//! Reading the store for whoever asks over the network, and other work that may hold up its thread.
//!
//! # The rule
//!
//! Nothing is read from the store, and nothing long is computed, on a thread of the runtime: it is
//! given to [`Reads`], which hands a [`StoreView`] to it. The work runs on threads of its own, a
//! bounded number at a time; what more there is waits its turn in order and costs no thread
//! meanwhile. Short work (a bounded number of rows, as `/status` reads them) does not wait for long
//! work (lists, large bodies). Only what is in memory is read on the spot: the newest events (by
//! `events`), and tip and head ([`Reads::on_the_spot`]).

mod view;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

pub use view::{StoreView, TipShape, descriptor_coverage, wallet_rows};

use crate::store::StoreReader;
use crate::wire::address::{self, KnownAddress};
use crate::wire::{ApiError, EventEncoder};

/// Short ones at a time: enough to keep a disk busy.
const SHORT: usize = 16;
/// Long ones at a time. Each may build one answer in memory.
const LONG: usize = 8;
/// Rows that short work looks at.
const SHORT_ROWS: usize = 1000;

/// Where work is done that may hold up its thread.
#[derive(Clone)]
pub struct Threads {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl Default for Threads {
    fn default() -> Self {
        Self {
            short: Arc::new(Semaphore::new(SHORT)),
            long: Arc::new(Semaphore::new(LONG)),
        }
    }
}

impl Threads {
    /// Long work.
    pub async fn run_long<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.run(usize::MAX, work).await
    }

    /// Short or long work, as the number of rows says that it looks at, or of what it parses. It
    /// goes on to its end if whoever asked for it has left meanwhile.
    pub async fn run<T: Send + 'static>(
        &self,
        rows: usize,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let is_short = rows <= SHORT_ROWS;
        let permits = if is_short { &self.short } else { &self.long };
        let permit = permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| ApiError::stopping())?;
        let work = move || {
            // What the work holds, the store perhaps, is let go before the place.
            let _permit = permit;
            work()
        };
        match spawn_blocking(work).await {
            Ok(result) => result,
            Err(cause) => Err(ApiError::internal(&cause)),
        }
    }
}

#[derive(Clone)]
pub struct Reads {
    reader: StoreReader,
    pub encoder: EventEncoder,
    pub threads: Threads,
}

impl Reads {
    pub fn new(reader: StoreReader) -> Self {
        Self {
            encoder: EventEncoder::new(reader.starts().clone(), reader.chain().network),
            reader,
            threads: Threads::default(),
        }
    }

    /// An address that a client named.
    pub fn address(&self, text: &str) -> Result<KnownAddress, ApiError> {
        address::parse(text, self.encoder.network)
    }

    /// Read on the spot: for the rows of tip and head alone, which every commit writes, so that
    /// they are in memory.
    pub fn on_the_spot<T>(&self, read: impl FnOnce(&StoreView<'_>) -> T) -> T {
        read(&StoreView::new(&self.reader, &self.encoder))
    }

    /// No work is under way.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        let left = (
            self.threads.short.available_permits(),
            self.threads.long.available_permits(),
        );
        left == (SHORT, LONG)
    }

    /// Short work.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&StoreView<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.run_rows(0, work).await
    }

    /// Long work.
    pub async fn run_long<T: Send + 'static>(
        &self,
        work: impl FnOnce(&StoreView<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.run_rows(usize::MAX, work).await
    }

    /// Short or long work, as the number of rows that it looks at says. It goes on to its end if
    /// whoever asked for it has left meanwhile.
    pub async fn run_rows<T: Send + 'static>(
        &self,
        rows: usize,
        work: impl FnOnce(&StoreView<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (reader, encoder) = (self.reader.clone(), self.encoder.clone());
        let work = move || work(&StoreView::new(&reader, &encoder));
        self.threads.run(rows, work).await
    }
}

/// Does it all, also when the client that asked for it leaves meanwhile: what is in the store and
/// what is in memory must not part.
pub async fn run_detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(work)
        .await
        .map_err(|cause| ApiError::internal(&cause))?
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bitcoin::hashes::Hash;

    use super::*;
    use crate::store::{ChainInfo, open};

    fn reads() -> (tempfile::TempDir, Reads) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let chain = ChainInfo {
            network: bitcoin::Network::Regtest,
            genesis: bitcoin::BlockHash::all_zeros(),
        };
        let (_, reader) = open(folder.path(), Some(chain), 0, &|| false).expect("the store opens");
        (folder, Reads::new(reader))
    }

    #[tokio::test]
    async fn reads_take_a_bounded_number_of_threads() {
        let (_folder, reads) = reads();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..10 * SHORT)
            .map(|_| {
                let (reads, now, most) = (reads.clone(), now.clone(), most.clone());
                tokio::spawn(async move {
                    let work = move |view: &StoreView<'_>| {
                        let running = now.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(running, Ordering::SeqCst);
                        let head = view.head()?;
                        now.fetch_sub(1, Ordering::SeqCst);
                        Ok(head)
                    };
                    reads.run(work).await
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap().is_ok());
        }
        assert!(most.load(Ordering::SeqCst) <= SHORT);
    }

    #[tokio::test]
    async fn short_work_does_not_wait_for_long_work() {
        let (_folder, reads) = reads();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let long: Vec<_> = (0..10 * LONG)
            .map(|_| {
                let (reads, held) = (reads.clone(), held.clone());
                let wait = move |_: &StoreView<'_>| {
                    Ok(held.lock().map(|held| held.recv().is_ok()).is_ok())
                };
                tokio::spawn(async move { reads.run_long(wait).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(reads.run(|view| Ok(view.head()?)).await.is_ok());
        assert!(!long.iter().any(|task| task.is_finished()));
        drop(hold);
        for task in long {
            assert_eq!(task.await.unwrap(), Ok(true));
        }
    }

    #[tokio::test]
    async fn a_read_that_panics_is_an_error_of_that_request_and_frees_its_place() {
        let (_folder, reads) = reads();
        for _ in 0..2 * SHORT {
            let broken: Result<(), _> = reads.run(|_| panic!("as a test wants it")).await;
            assert_eq!(broken.map_err(|error| error.code), Err("internal"));
        }
        assert!(reads.run(|view| Ok(view.head()?)).await.is_ok());
    }
}
