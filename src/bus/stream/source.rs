//! Pages on demand: of the stream, and of the primary what the stream has no more.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::super::connection::{Connection, Place as RedisPlace};
use super::super::problem::Problem;
use super::commands;
use super::entries::{of_primary, of_stream};
use super::place::stretch;
use super::{Older, OlderError};
use crate::events::{PAGE, PAGE_BYTES, Page, PageError, Source};
use crate::store::Starts;
use crate::wire::{LogStarts, cursor};

/// Entries asked for at a time: one may be long.
const STEP: usize = 100;
/// Reads at a time: one that waits for an absent primary keeps its turn meanwhile.
const READS: usize = 64;
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// What the task knows of the log.
#[derive(Debug, Clone)]
pub struct Known {
    pub stream: u64,
    pub starts: Arc<Starts>,
}

#[derive(Debug)]
pub struct KnownStarts(pub watch::Receiver<Known>);

impl LogStarts for KnownStarts {
    fn now(&self) -> Arc<Starts> {
        self.0.borrow().starts.clone()
    }
}

/// Reads the stream beside the task.
#[derive(Clone)]
pub struct StreamSource {
    pub(super) redis: RedisPlace,
    pub(super) network: Network,
    pub(super) older: Arc<dyn Older>,
    pub(super) known: watch::Receiver<Known>,
    pub(super) head: watch::Receiver<u64>,
    pub(super) connection: Arc<Mutex<Option<Connection>>>,
    /// The task has ended.
    pub(super) ended: CancellationToken,
}

impl Source for StreamSource {
    fn reads(&self) -> usize {
        READS
    }

    fn read(&self, after: u64) -> BoxFuture<'static, Result<Page, PageError>> {
        let source = self.clone();
        async move {
            let ended = source.ended.clone();
            let read = ended.run_until_cancelled(source.page(after));
            read.await.unwrap_or(Err(PageError::Stopped))
        }
        .boxed()
    }

    fn read_near(&self, after: u64, head: u64) -> Option<Result<Page, PageError>> {
        (after >= head).then(|| Ok(Page::new(after, after, [])))
    }
}

impl StreamSource {
    async fn page(&self, after: u64) -> Result<Page, PageError> {
        loop {
            let head = *self.head.borrow();
            if after >= head {
                return Ok(Page::new(after, after, []));
            }
            match self.of_redis(after, head).await {
                Ok(Some(page)) => return Ok(page),
                Ok(None) => {}
                Err(cause) => tracing::debug!(after, %cause, "not read from Redis"),
            }
            match self.of_primary(after, head).await {
                Ok(page) if page.next > after => return Ok(page),
                Ok(_) => {}
                // Why says the primary, to whoever is answered then.
                Err(OlderError::Expired | OlderError::Unknown) => return Err(PageError::Expired),
                Err(cause) => tracing::debug!(after, %cause, "not read from the primary"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// `None`: the stream has not what follows.
    async fn of_redis(&self, after: u64, head: u64) -> Result<Option<Page>, Problem> {
        let mut held = self.connection.lock().await;
        let mut redis = match held.take() {
            Some(redis) => redis,
            None => Connection::open(&self.redis).await?,
        };
        let known = self.known.borrow().clone();
        let (mut all, mut bytes, mut place) = (Vec::new(), 0_usize, after);
        while place < head && all.len() < PAGE && bytes < PAGE_BYTES {
            let found = commands::range(&mut redis, known.stream, place, STEP).await?;
            let found: Vec<_> = found
                .iter()
                .map(commands::Raw::entry)
                .collect::<Result<_, _>>()?;
            let Some(entries) = stretch(&known.starts, place, head, found) else {
                break;
            };
            // None: the entry behind the head follows the place.
            place = entries.last().map_or(head, |last| last.number);
            for entry in &entries {
                bytes = bytes.saturating_add(entry.data.len());
                all.push(of_stream(entry, self.network)?);
            }
        }
        // After an error it is not used again.
        *held = Some(redis);
        Ok((place > after).then(|| Page::new(after, place, all)))
    }

    async fn of_primary(&self, after: u64, head: u64) -> Result<Page, OlderError> {
        let starts = self.known.borrow().starts.clone();
        let page = self.older.page(cursor::write(&starts, after)).await?;
        let read = of_primary(&page, &starts, (after, head), self.network);
        let (entries, next) = read.map_err(|cause| OlderError::Refused(cause.to_string()))?;
        Ok(Page::new(after, next, entries))
    }
}
