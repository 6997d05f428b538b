//! One webhook at work: the log's numbers into the partitions, what is due to the sender, what
//! became of it into the store.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::attempt::{Clock, Posted, chance, deliver};
use super::partitions::{Attempt, Failed, PARTITIONS, Partitions, Pause, partition_of};
use super::sender::Verdict;
use super::{Command, WebhookHandle, Webhooks};
use crate::clock::now_ms;
use crate::consumers::Consumer;
use crate::events::{Batch, PageError, Reader};
use crate::store::{ConsumerEdit, DeadLetter, Failing, WebhookStop};
use crate::tracker::Event;
use crate::wire::error::ApiError;
use crate::wire::json;

/// Events whose numbers are read from the log at a time.
const PAGE: usize = 500;
/// Without news, until the place is written down although nothing was wanted.
const IDLE: Duration = Duration::from_secs(60);
/// Until another try when the store or a delivery broke.
const BROKEN: Duration = Duration::from_secs(10);
/// Dead letters of one consumer; when there are so many, nothing more is given up.
const MOST_DEAD_LETTERS: usize = 100_000;

/// With the number up to which retention has taken events.
type ReadAhead = BoxFuture<'static, Result<(Batch, u64), ApiError>>;

/// Until the consumer ends or the daemon stops. What is in flight then comes again.
pub async fn run(
    webhooks: &Arc<Webhooks>,
    consumer: &Arc<Consumer>,
    handle: &WebhookHandle,
    mut inbox: mpsc::Receiver<Command>,
) {
    let work = async {
        loop {
            let work = async {
                let mut task = WebhookTask::begin(webhooks, consumer, handle).await?;
                task.work(&mut inbox).await
            };
            until_interrupted(&consumer.name, work).await;
            sleep(BROKEN).await;
        }
    };
    tokio::select! {
        biased;
        () = webhooks.parts.stop.cancelled() => {}
        () = consumer.ended.cancelled() => {}
        () = work => {}
    }
}

/// Whether by an error or a panic: it begins again after a while.
async fn until_interrupted(name: &str, work: impl Future<Output = Result<Infallible, ApiError>>) {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Err(cause)) => {
            tracing::warn!(consumer = name, %cause, "a webhook is interrupted and begins again");
        }
        Err(_) => tracing::error!(consumer = name, "a webhook panicked and begins again"),
    }
}

pub(super) struct WebhookTask<'a> {
    pub(super) webhooks: &'a Arc<Webhooks>,
    pub(super) consumer: &'a Arc<Consumer>,
    handle: &'a WebhookHandle,
    clock: Clock,
    reader: Arc<tokio::sync::Mutex<Reader<()>>>,
    pub(super) partitions: Partitions,
    attempts: JoinSet<Result<(Attempt, Option<Posted>), ApiError>>,
    pub(super) dead_letters: usize,
    /// Retention has taken what was not delivered up to here.
    missed: u64,
}

impl<'a> WebhookTask<'a> {
    async fn begin(
        webhooks: &'a Arc<Webhooks>,
        consumer: &'a Arc<Consumer>,
        handle: &'a WebhookHandle,
    ) -> Result<Self, ApiError> {
        let (parts, name) = (&webhooks.parts, consumer.name.clone());
        let rows = parts.reads.run_long(move |view| {
            let (mut dead_letters, mut resends) = (0_usize, Vec::new());
            for letter in view.reader.dead_letters(&name, 0) {
                let (number, letter) = letter?;
                dead_letters = dead_letters.saturating_add(1);
                if letter.again {
                    resends.push((partition_of(letter.event.kind.subject_id()), number));
                }
            }
            let (done, failing) = (
                view.reader.partitions_done(&name)?,
                view.reader.failing(&name)?,
            );
            Ok((
                done,
                failing,
                view.reader.stopped(&name)?,
                dead_letters,
                resends,
            ))
        });
        let (rows, failing, stopped, dead_letters, resends) = rows.await?;
        let unread = consumer.unread().await?;
        let begin = match unread.missed {
            Some(_) => consumer.place().number,
            None => unread.after,
        };
        let mut done = [begin; PARTITIONS];
        for (at, number) in rows {
            if let Some(done) = usize::try_from(at).ok().and_then(|at| done.get_mut(at)) {
                *done = number.max(*done);
            }
        }
        let selection = consumer.filter.clone();
        let reader = Reader::of_selection(&parts.log, &parts.dispatch, selection, begin);
        let (clock, give_up) = (Clock::start(), parts.settings.give_up_after);
        let give_up = give_up.saturating_mul(1000);
        let mut partitions = Partitions::new(done, give_up, stopped.is_some());
        partitions.restore(failing, clock.now());
        for (at, number) in resends {
            partitions.resend(at, number);
        }
        handle.stats().stopped = stopped.map(Into::into);
        let mut task = Self {
            webhooks,
            consumer,
            handle,
            clock,
            reader: Arc::new(tokio::sync::Mutex::new(reader)),
            partitions,
            attempts: JoinSet::new(),
            dead_letters,
            missed: 0,
        };
        task.write(Vec::new()).await?;
        Ok(task)
    }

    async fn work(&mut self, inbox: &mut mpsc::Receiver<Command>) -> Result<Infallible, ApiError> {
        let (mut read_after, mut reading) = (None, OptionFuture::default());
        loop {
            self.send();
            self.show();
            if read_after != self.partitions.read_after() {
                read_after = self.partitions.read_after();
                reading = read_after.map(|after| self.next_events(after)).into();
            }
            let begins = self.partitions.begins_at();
            let begins = begins.map(|at| self.clock.instant(at));
            tokio::select! {
                biased;
                Some(finished) = self.attempts.join_next() => {
                    let mut all = vec![finished];
                    all.extend(std::iter::from_fn(|| self.attempts.try_join_next()));
                    let all = all.into_iter().map(|finished| finished.map_err(|cause| ApiError::internal(&cause))?);
                    self.settle(all.collect::<Result<_, _>>()?).await?;
                }
                Some(command) = inbox.recv() => self.execute(command).await,
                Some(read) = &mut reading => {
                    reading = OptionFuture::default();
                    let (batch, gone) = read?;
                    let after = read_after.take().unwrap_or_default();
                    self.load(after, batch, gone).await?;
                }
                () = sleep_until(begins.unwrap_or_else(Instant::now)), if begins.is_some() => {}
            }
        }
    }

    /// Begins what may begin now.
    fn send(&mut self) {
        while let Some(attempt) = self.partitions.next(self.clock.now()) {
            self.handle.stats().attempts += 1;
            let (webhooks, consumer) = (self.webhooks.clone(), self.consumer.clone());
            self.attempts.spawn(deliver(webhooks, consumer, attempt));
        }
    }

    /// Shows how it is doing.
    pub(super) fn show(&self) {
        let (partitions, mut stats) = (&self.partitions, self.handle.stats());
        stats.failures = partitions.failures();
        stats.retrying = partitions.retrying();
        stats.in_flight = partitions.in_flight();
        stats.pending = partitions.pending();
        stats.dead_letters = Some(self.dead_letters);
        let next = partitions.begins_at().filter(|_| stats.retrying > 0);
        stats.next_attempt = next.map(json::seconds);
        if !partitions.is_stopped() {
            stats.stopped = None;
        }
    }

    /// The next events after a number that this webhook wants; waits for them at the log's end.
    fn next_events(&self, after: u64) -> ReadAhead {
        let (webhooks, reader) = (self.webhooks.clone(), self.reader.clone());
        Box::pin(async move {
            let mut reader = reader.lock().await;
            let batch = reader.read_batch(after, PAGE, Some(sleep(IDLE))).await;
            let first = webhooks
                .parts
                .reads
                .run(|view| Ok(view.reader.first_seq()?));
            let gone = first.await?.saturating_sub(1);
            let batch = match batch {
                // What is missed is told when it is loaded.
                Err(PageError::Expired) => Batch {
                    events: Vec::new(),
                    bytes: 0,
                    next: gone,
                    head: gone,
                },
                batch => batch?,
            };
            Ok((batch, gone))
        })
    }

    async fn load(&mut self, after: u64, batch: Batch, gone: u64) -> Result<(), ApiError> {
        if batch.events.is_empty() && self.webhooks.parts.indexer.has_stopped() {
            // There is nothing to wait for any more.
            return Err(ApiError::stopping());
        }
        if after < gone {
            self.missed(gone);
        }
        let events = batch.events.iter();
        let events = events.map(|it| (partition_of(it.topic.subject()), it.number));
        self.partitions.load(after, events, batch.next);
        if self.partitions.pending() == 0 && self.partitions.place() > self.consumer.place().number
        {
            self.write(Vec::new()).await?;
        }
        Ok(())
    }

    /// Retention has taken what was not delivered.
    fn missed(&mut self, number: u64) {
        tracing::warn!(
            consumer = self.consumer.name,
            number,
            "events were deleted (events.retention_days) before they were delivered"
        );
        self.missed = self.missed.max(number);
        let cursor = self.webhooks.encoder().cursor(self.missed);
        self.handle.stats().missed_up_to = Some(cursor);
    }

    /// Writes down what became of attempts.
    async fn settle(&mut self, all: Vec<(Attempt, Option<Posted>)>) -> Result<(), ApiError> {
        let mut edits = Vec::new();
        for (attempt, posted) in all {
            match posted {
                Some(posted) => edits.extend(self.answered(attempt, posted).await?),
                // The log or the dead letter is not there any more.
                None => {
                    self.partitions.gone(attempt);
                    if !attempt.delivery.resend {
                        self.missed(attempt.delivery.number);
                    }
                }
            }
        }
        self.write(edits).await
    }

    /// What is to be written besides what the partitions say.
    async fn answered(
        &mut self,
        attempt: Attempt,
        posted: Posted,
    ) -> Result<Option<ConsumerEdit>, ApiError> {
        let (now, was_failing) = (self.clock.now(), self.partitions.is_failing());
        let error = posted.record.error.clone().unwrap_or_default();
        self.handle.stats().remember(posted.record, now);
        let pause = match posted.verdict {
            Verdict::Taken => {
                let is_resent = self.partitions.delivered(attempt);
                self.dead_letters = self.dead_letters.saturating_sub(usize::from(is_resent));
                if was_failing && !self.partitions.is_failing() {
                    tracing::info!(consumer = self.consumer.name, "a webhook delivers again");
                }
                return Ok(None);
            }
            Verdict::Gone if !self.partitions.is_stopped() => {
                return Ok(Some(self.stop(attempt, error)));
            }
            Verdict::Gone => Pause::Partition,
            Verdict::Failed(pause) => pause,
        };
        let may_give_up = attempt.delivery.resend || self.dead_letters < MOST_DEAD_LETTERS;
        let failed = self
            .partitions
            .failed(attempt, now, pause, chance(), may_give_up);
        match failed {
            Failed::Ignored => {}
            Failed::Waits(_) => self.log_failure(attempt.delivery.number, &error, !was_failing),
            Failed::GivenUp(failing) => {
                let letter = self.give_up(attempt, posted.event, failing, error);
                return Ok(Some(letter.await?));
            }
        }
        Ok(None)
    }

    /// Once, until it delivers again.
    fn log_failure(&self, number: u64, error: &str, is_first: bool) {
        let consumer = &self.consumer.name;
        if is_first {
            tracing::warn!(
                consumer,
                number,
                error,
                "a webhook's delivery failed and is tried again; GET /consumers/{consumer} shows how it goes on"
            );
        } else {
            tracing::debug!(consumer, number, error, "a webhook's delivery failed");
        }
    }

    /// The receiver answered 410.
    fn stop(&mut self, attempt: Attempt, reason: String) -> ConsumerEdit {
        let name = &self.consumer.name;
        tracing::warn!(
            consumer = name,
            reason,
            "a webhook is stopped until POST /consumers/{name}/retry or a PUT resumes it"
        );
        self.partitions.stop(attempt);
        let since = self.clock.now();
        let stop = WebhookStop { since, reason };
        self.handle.stats().stopped = Some(stop.clone().into());
        ConsumerEdit::Stop(stop)
    }

    async fn give_up(
        &mut self,
        attempt: Attempt,
        event: Event,
        failing: Failing,
        error: String,
    ) -> Result<ConsumerEdit, ApiError> {
        let (name, number) = (self.consumer.name.clone(), attempt.delivery.number);
        tracing::warn!(
            consumer = name,
            number,
            attempts = failing.attempts,
            error,
            "an event becomes a dead letter"
        );
        if !attempt.delivery.resend {
            // After a step back there may be one of the same event.
            let reads = &self.webhooks.parts.reads;
            let known =
                reads.run(move |view| Ok(view.reader.dead_letter(&name, number)?.is_some()));
            let new = usize::from(!known.await?);
            self.dead_letters = self.dead_letters.saturating_add(new);
        }
        let letter = DeadLetter {
            event,
            failing,
            error,
            again: false,
        };
        Ok(ConsumerEdit::DeadLetter(number, letter))
    }

    /// Writes the place and what goes with it.
    async fn write(&mut self, more: Vec<ConsumerEdit>) -> Result<(), ApiError> {
        let mut edits = self.partitions.take_changes();
        edits.extend(more);
        let place = self.partitions.place();
        match self.consumer.move_to(place, None, edits, now_ms()).await? {
            Ok(_) => Ok(()),
            // It has ended, and this task does so at once.
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn webhook_that_panics_or_is_interrupted_begins_again() {
        until_interrupted("shop", async { panic!("a test") }).await;
        until_interrupted("shop", async { Err(ApiError::stopping()) }).await;
    }
}
