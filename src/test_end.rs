//! What a test that opens a store leaves behind, put away when the test's thread ends.
//!
//! The test's runtime is gone by then, and with it every task that kept the store open. So the
//! folder is not removed under an open database, and no indexer closes one while the process ends:
//! RocksDB survives neither for certain.

use std::cell::RefCell;
use std::path::Path;
use std::thread;

use tempfile::TempDir;

use crate::indexer::IndexerError;

type Indexer = thread::JoinHandle<Result<(), IndexerError>>;

thread_local!(static LEFT: Left = const { Left { indexers: RefCell::new(Vec::new()), folders: RefCell::new(Vec::new()) } });

struct Left {
    indexers: RefCell<Vec<Indexer>>,
    folders: RefCell<Vec<TempDir>>,
}

impl Drop for Left {
    fn drop(&mut self) {
        for indexer in self.indexers.take() {
            // One that panicked has failed its test already.
            _ = indexer.join();
        }
    }
}

/// The folder of a store, removed at the end of the test.
pub struct StoreFolder(Option<TempDir>);

impl StoreFolder {
    pub fn new() -> Self {
        Self(Some(tempfile::tempdir().expect("a temporary folder")))
    }

    pub fn path(&self) -> &Path {
        self.0.as_ref().expect("taken by drop alone").path()
    }
}

impl Drop for StoreFolder {
    fn drop(&mut self) {
        LEFT.with(|left| left.folders.borrow_mut().extend(self.0.take()));
    }
}

/// The thread of an indexer, waited for at the end of the test if not before.
pub struct IndexerThread(Option<Indexer>);

impl IndexerThread {
    pub fn new(thread: Indexer) -> Self {
        Self(Some(thread))
    }

    /// Waits for it without holding up the runtime.
    pub async fn join(mut self) {
        let thread = self.0.take().expect("taken once");
        let ended = tokio::task::spawn_blocking(move || thread.join().unwrap().unwrap());
        ended.await.unwrap();
    }
}

impl Drop for IndexerThread {
    fn drop(&mut self) {
        LEFT.with(|left| left.indexers.borrow_mut().extend(self.0.take()));
    }
}
