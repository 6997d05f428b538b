//! Deleting events that are older than `events.retention_days`, once an hour. When all are kept,
//! consumers write down how far they have nothing to read all the same.

use std::time::Duration;

use anyhow::Result;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::store::StoreReader;
use crate::{api, indexer};

/// Between two looks for events that are too old.
const PAUSE: Duration = Duration::from_secs(3600);

/// Deletes old events.
pub struct Retention {
    pub reader: StoreReader,
    pub indexer: indexer::Handle,
    pub upkeep: api::Upkeep,
    /// Milliseconds; 0: for ever.
    pub keep: u64,
}

impl Retention {
    /// Until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(repeat(|| self.pass())).await;
    }

    async fn pass(&self) -> Result<()> {
        if self.keep == 0 {
            self.upkeep.retain(|| async { Ok(0) }).await?;
            return Ok(());
        }
        if let Some(note) = self.upkeep.clock_note().await? {
            tracing::warn!("{note}");
        }
        let (reader, keep) = (self.reader.clone(), self.keep);
        let cutoff = spawn_blocking(move || reader.snapshot().cutoff(now_ms(), keep)).await??;
        let prune = || self.indexer.prune_events(cutoff);
        let count = self.upkeep.retain(prune).await?;
        if count > 0 {
            tracing::info!(count, "events older than events.retention_days deleted");
        }
        Ok(())
    }
}

/// Again and again, also when it fails.
async fn repeat<Pass: Future<Output = Result<()>>>(pass: impl Fn() -> Pass) {
    loop {
        if let Err(cause) = pass().await {
            tracing::warn!("old events could not be deleted, trying again in an hour: {cause:#}");
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::anyhow;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn retention_that_fails_is_tried_again() {
        let passes = Cell::new(0);
        let pass = || {
            passes.set(passes.get() + 1);
            let fails = passes.get() == 1;
            async move {
                match fails {
                    true => Err(anyhow!("the store cannot be read")),
                    false => Ok(()),
                }
            }
        };
        let day = tokio::time::timeout(PAUSE * 47 / 2, repeat(pass));
        assert!(day.await.is_err(), "it never ends by itself");
        assert_eq!(passes.get(), 24);
    }
}
