//! One webhook at work: the log's numbers into the partitions, what is due to the sender, what
//! became of it into the store.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::attempt::{AttemptResult, Clock, chance, deliver};
use super::failing::{self, Rows};
use super::partitions::{Attempt, Failed, PARTITIONS, Partitions, Tried, partition_of};
use super::sender::Failure;
use super::{Command, WebhookHandle, Webhooks};
use crate::clock::now_ms;
use crate::consumers::Consumer;
use crate::events::{Batch, BatchReader, PageError};
use crate::store::{ConsumerEdit, DeadLetter, Failing, Stopped, Webhook};
use crate::tracker::Event;
use crate::wire::error::ApiError;

/// Events whose numbers are read from the log at a time.
const PAGE: usize = 500;
/// Without news, until the place is written down although nothing was wanted.
const IDLE: Duration = Duration::from_secs(60);
/// Until another try when the store or a delivery broke.
const BROKEN: Duration = Duration::from_secs(10);
/// Dead letters of one consumer; when there are so many, nothing more is given up.
const MOST_DEAD_LETTERS: usize = 100_000;

type Reading = Pin<Box<dyn Future<Output = Result<Batch, ApiError>> + Send>>;

/// Until the consumer ends or the daemon stops. What is in flight then comes again.
pub async fn run(
    webhooks: &Arc<Webhooks>,
    consumer: &Arc<Consumer>,
    webhook: &Webhook,
    handle: &WebhookHandle,
    mut inbox: mpsc::Receiver<Command>,
) {
    let webhook = Arc::new(webhook.clone());
    let work = async {
        loop {
            let Err(cause) = attend(webhooks, consumer, &webhook, handle, &mut inbox).await;
            tracing::warn!(consumer = consumer.name, %cause, "a webhook is interrupted");
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

async fn attend(
    webhooks: &Arc<Webhooks>,
    consumer: &Arc<Consumer>,
    webhook: &Arc<Webhook>,
    handle: &WebhookHandle,
    inbox: &mut mpsc::Receiver<Command>,
) -> Result<Infallible, ApiError> {
    WebhookTask::begin(webhooks, consumer, webhook, handle)
        .await?
        .work(inbox)
        .await
}

pub(super) struct WebhookTask<'a> {
    pub(super) webhooks: &'a Arc<Webhooks>,
    pub(super) consumer: &'a Arc<Consumer>,
    webhook: &'a Arc<Webhook>,
    handle: &'a WebhookHandle,
    pub(super) clock: Clock,
    /// Known to dispatch for as long as nothing is read again.
    reader: Arc<tokio::sync::Mutex<BatchReader>>,
    pub(super) partitions: Partitions,
    attempts: JoinSet<Result<AttemptResult, ApiError>>,
    /// Of events that failed before this began.
    failing: Rows,
    pub(super) dead_letters: usize,
}

impl<'a> WebhookTask<'a> {
    async fn begin(
        webhooks: &'a Arc<Webhooks>,
        consumer: &'a Arc<Consumer>,
        webhook: &'a Arc<Webhook>,
        handle: &'a WebhookHandle,
    ) -> Result<Self, ApiError> {
        let name = consumer.name.clone();
        let rows = webhooks.read(move |reader| {
            Ok((
                reader.partitions_done(&name)?,
                reader.dead_letter_count(&name)?,
                Rows::new(false, reader.failing(&name, false)?),
                Rows::new(true, reader.failing(&name, true)?),
                reader.stopped(&name)?,
            ))
        });
        let (rows, dead_letters, failing, resent, stopped) = rows.await?;
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
        let (parts, selection) = (&webhooks.parts, consumer.filter.clone());
        let reader = BatchReader::new(&parts.log, &parts.dispatch, selection, begin);
        let give_up_after = webhooks.parts.settings.give_up_after.saturating_mul(1000);
        let mut task = Self {
            webhooks,
            consumer,
            webhook,
            handle,
            clock: Clock::start(),
            reader: Arc::new(tokio::sync::Mutex::new(reader)),
            partitions: Partitions::new(done, give_up_after, stopped.is_some()),
            attempts: JoinSet::new(),
            failing,
            dead_letters,
        };
        handle.stats().stopped = stopped;
        task.begin_failing(resent).await?;
        Ok(task)
    }

    /// What failed before this began.
    async fn begin_failing(&mut self, mut resent: Rows) -> Result<(), ApiError> {
        let now = self.clock.now();
        let mut edits = self.failing.remove_up_to(self.partitions.place());
        let last = self.failing.last_tried().max(resent.last_tried());
        let off = failing::off_for(last, now);
        if off > 0 {
            edits.extend(self.failing.skip(off, now));
            edits.extend(resent.skip(off, now));
        }
        edits.push(ConsumerEdit::DropDone);
        self.write(edits).await?;
        self.begin_resends(&resent).await
    }

    async fn work(&mut self, inbox: &mut mpsc::Receiver<Command>) -> Result<Infallible, ApiError> {
        let mut reading: Option<(u64, Reading)> = None;
        loop {
            self.send();
            self.show();
            let after = self.partitions.read_after();
            if reading.as_ref().map(|(from, _)| *from) != after {
                reading = after.map(|after| (after, self.next_events(after)));
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
                Some(command) = inbox.recv() => self.execute(command).await?,
                (after, page) = read(&mut reading) => {
                    reading = None;
                    self.load(after, page?).await?;
                }
                () = sleep_until(begins.unwrap_or_else(Instant::now)), if begins.is_some() => {}
            }
        }
    }

    /// Begins what may begin now.
    fn send(&mut self) {
        while let Some(attempt) = self.partitions.next(self.clock.now()) {
            self.handle.stats().attempts += 1;
            self.attempts.spawn(deliver(
                self.webhooks.clone(),
                self.consumer.clone(),
                self.webhook.clone(),
                attempt,
            ));
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
        stats.next_attempt = partitions.begins_at().filter(|_| stats.retrying > 0);
        if !partitions.is_stopped() {
            stats.stopped = None;
        }
    }

    /// The next events after a number that this webhook wants; waits for them at the log's end.
    fn next_events(&self, after: u64) -> Reading {
        let (webhooks, reader) = (self.webhooks.clone(), self.reader.clone());
        Box::pin(async move {
            let (parts, mut reader) = (&webhooks.parts, reader.lock().await);
            match reader.read(after, PAGE, Some(sleep(IDLE))).await {
                // What is missed is told when it is loaded.
                Err(PageError::Expired) => Ok(Batch {
                    events: Vec::new(),
                    bytes: 0,
                    next: parts.reader.first_seq()?.saturating_sub(1),
                    head: parts.log.head(),
                }),
                batch => Ok(batch?),
            }
        })
    }

    async fn load(&mut self, after: u64, page: Batch) -> Result<(), ApiError> {
        if page.events.is_empty() && self.webhooks.parts.indexer.has_stopped() {
            // There is nothing to wait for any more.
            return Err(ApiError::stopping());
        }
        let expired = self.webhooks.parts.reader.first_seq()?.saturating_sub(1);
        if after < expired {
            self.missed(expired);
        }
        let failing = &self.failing;
        let events = page.events.iter().map(|entry| {
            let partition = partition_of(entry.event.kind.script());
            (partition, entry.number, failing.tried(entry.number))
        });
        self.partitions.load(after, events, page.next);
        if self.partitions.pending() == 0 && self.partitions.place() > self.consumer.place().number
        {
            self.write(Vec::new()).await?;
        }
        Ok(())
    }

    /// Retention has taken what was not delivered.
    fn missed(&self, number: u64) {
        tracing::warn!(
            consumer = self.consumer.name,
            number,
            "events were deleted (events.retention_days) before they were delivered"
        );
        let mut stats = self.handle.stats();
        stats.missed_up_to = stats.missed_up_to.max(Some(number));
    }

    /// Writes down what became of attempts.
    async fn settle(&mut self, all: Vec<AttemptResult>) -> Result<(), ApiError> {
        let (mut moved, mut edits) = (Vec::new(), Vec::new());
        for finished in all {
            let attempt = finished.attempt;
            if let Some(record) = finished.record {
                let mut stats = self.handle.stats();
                stats.last_error = record.error.clone().or(stats.last_error.take());
                stats.remember(record);
            }
            match (finished.event, finished.result) {
                // The log or the dead letter is not there any more.
                (None, _) => {
                    self.partitions.gone(attempt);
                    edits.extend(not_failing(&attempt));
                    if !attempt.resend {
                        self.missed(attempt.number);
                    }
                }
                (Some(_), Ok(())) => self.delivered(attempt, &mut edits),
                (Some(event), Err(failure)) => {
                    self.failed(attempt, event, failure, &mut edits).await?;
                }
            }
            moved.push(attempt.partition);
        }
        let place = self.partitions.place();
        let done = moved.into_iter().map(|at| (at, self.partitions.done(at)));
        edits.extend(
            done.filter(|(_, number)| *number > place)
                .map(|(at, number)| ConsumerEdit::PartitionDone(at as u64, number)),
        );
        self.write(edits).await
    }

    fn delivered(&mut self, attempt: Attempt, edits: &mut Vec<ConsumerEdit>) {
        let is_wanted = self.partitions.delivered(attempt);
        edits.extend(not_failing(&attempt));
        if attempt.resend && is_wanted {
            edits.push(ConsumerEdit::DropDeadLetter(attempt.number));
            self.dead_letters = self.dead_letters.saturating_sub(1);
        }
        self.handle.stats().last_success = Some(self.clock.now());
    }

    async fn failed(
        &mut self,
        attempt: Attempt,
        event: Event,
        failure: Failure,
        edits: &mut Vec<ConsumerEdit>,
    ) -> Result<(), ApiError> {
        let (now, Attempt { number, resend, .. }) = (self.clock.now(), attempt);
        self.handle.stats().failed_attempts += 1;
        if failure.gone && !self.partitions.is_stopped() {
            self.stop(attempt, failure.error, edits);
            return Ok(());
        }
        let may_give_up = resend || self.dead_letters < MOST_DEAD_LETTERS;
        let failed = self
            .partitions
            .failed(attempt, now, failure.pause, chance()?, may_give_up);
        match failed {
            Failed::Ignored => {}
            Failed::Waits(tried) => {
                self.warn_of_first(number, &failure.error);
                edits.push(ConsumerEdit::Failing {
                    number,
                    resend,
                    failing: Failing {
                        attempts: tried.attempts,
                        first_failed: tried.first_failed,
                        last_tried: now,
                    },
                });
            }
            Failed::GivenUp(tried) => {
                edits.extend(not_failing(&attempt));
                let letter = self.given_up(&attempt, event, tried, failure.error).await?;
                edits.push(ConsumerEdit::DeadLetter(number, letter));
            }
        }
        Ok(())
    }

    /// The first failure of a row of them.
    fn warn_of_first(&self, number: u64, error: &str) {
        if self.partitions.failures() == 1 {
            tracing::info!(
                consumer = self.consumer.name,
                number,
                error,
                "a webhook's delivery failed and will be tried again"
            );
        }
    }

    /// The receiver answered 410.
    fn stop(&mut self, attempt: Attempt, reason: String, edits: &mut Vec<ConsumerEdit>) {
        let (name, now) = (&self.consumer.name, self.clock.now());
        tracing::warn!(
            consumer = name,
            reason,
            "a webhook is stopped until POST /consumers/{name}/retry or a PUT resumes it"
        );
        self.partitions.stop(attempt);
        self.failing = Rows::new(false, Vec::new());
        let stopped = Stopped { since: now, reason };
        self.handle.stats().stopped = Some(stopped.clone());
        edits.push(ConsumerEdit::Stop(stopped));
    }

    async fn given_up(
        &mut self,
        attempt: &Attempt,
        event: Event,
        tried: Tried,
        error: String,
    ) -> Result<DeadLetter, ApiError> {
        tracing::warn!(
            consumer = self.consumer.name,
            number = attempt.number,
            attempts = tried.attempts,
            error,
            "an event becomes a dead letter"
        );
        if !attempt.resend {
            // After a step back there may be one of the same event.
            let known = self.dead_letter(attempt.number).await?.is_some();
            self.dead_letters = self.dead_letters.saturating_add(usize::from(!known));
        }
        Ok(DeadLetter {
            event,
            attempts: tried.attempts,
            first_failed: tried.first_failed,
            last_tried: self.clock.now(),
            error,
            again: false,
        })
    }

    /// Writes edits and the place.
    async fn write(&self, edits: Vec<ConsumerEdit>) -> Result<(), ApiError> {
        let place = self.partitions.place();
        match self.consumer.move_to(place, edits, now_ms()).await? {
            Some(_) => Ok(()),
            // It has ended, and this task does so at once.
            None => std::future::pending().await,
        }
    }
}

fn not_failing(attempt: &Attempt) -> Option<ConsumerEdit> {
    attempt.failed_before.then_some(ConsumerEdit::NotFailing {
        number: attempt.number,
        resend: attempt.resend,
    })
}

async fn read(reading: &mut Option<(u64, Reading)>) -> (u64, Result<Batch, ApiError>) {
    match reading {
        Some((after, reading)) => (*after, reading.await),
        None => std::future::pending().await,
    }
}
