//! Work that may hold up its thread: reads of the store, which may wait for the disk, and long
//! computations. All of it runs here, on threads that are not the runtime's workers and so hold up
//! nobody else, and [`MOST`] at a time: what more there is waits its turn in order, and costs no
//! thread meanwhile.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::error::ApiError;
use crate::store::{Reader, Snapshot};

/// Enough to keep a disk busy. Each may build one answer in memory.
const MOST: usize = 16;

#[derive(Clone)]
pub struct Reads {
    reader: Reader,
    permits: Arc<Semaphore>,
}

impl Reads {
    pub fn new(reader: Reader) -> Self {
        Self {
            reader,
            permits: Arc::new(Semaphore::new(MOST)),
        }
    }

    /// What the state of one instant says.
    pub async fn snapshot<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let reader = self.reader.clone();
        self.run(move || read(&reader.snapshot())).await
    }

    /// Goes on to its end if whoever asked for it has left meanwhile.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| ApiError::stopping())?;
        let work = move || {
            let _permit = permit;
            work()
        };
        match spawn_blocking(work).await {
            Ok(result) => result,
            Err(cause) => Err(ApiError::internal(&cause)),
        }
    }
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
        let (_, reader) = open(folder.path(), Some(chain), 0).expect("the store opens");
        (folder, Reads::new(reader))
    }

    #[tokio::test]
    async fn reads_take_a_bounded_number_of_threads() {
        let (_folder, reads) = reads();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..10 * MOST)
            .map(|_| {
                let (reads, now, most) = (reads.clone(), now.clone(), most.clone());
                tokio::spawn(async move {
                    let work = move |snapshot: &Snapshot<'_>| {
                        let running = now.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(running, Ordering::SeqCst);
                        let head = snapshot.head()?;
                        now.fetch_sub(1, Ordering::SeqCst);
                        Ok(head)
                    };
                    reads.snapshot(work).await
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap().is_ok());
        }
        assert!(most.load(Ordering::SeqCst) <= MOST);
    }

    #[tokio::test]
    async fn a_read_that_panics_is_an_error_of_that_request_and_frees_its_place() {
        let (_folder, reads) = reads();
        for _ in 0..2 * MOST {
            let broken: Result<(), _> = reads.run(|| panic!("as a test wants it")).await;
            assert_eq!(broken.map_err(|error| error.code), Err("internal"));
        }
        assert!(
            reads
                .snapshot(|snapshot| Ok(snapshot.head()?))
                .await
                .is_ok()
        );
    }
}
