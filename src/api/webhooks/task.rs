//! One webhook at work: the log's numbers into the schedule, what is due to the sender, what became
//! of it into the store.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::attempt::{Clock, Finished, chance, deliver};
use super::failing::{self, Rows};
use super::schedule::{Attempt, Failed, Schedule, Tried};
use super::sender::Failure;
use super::{Command, Handle};
use crate::api::App;
use crate::api::consumers::Consumer;
use crate::api::error::ApiError;
use crate::api::tail::Page;
use crate::clock::now_ms;
use crate::store::{ConsumerEdit, DeadLetter, Failing, Stopped, Webhook};
use crate::tracker::{Event, ScriptHash};

/// Events whose numbers are read from the log at a time.
const PAGE: usize = 500;
/// Without news, until the place is written down although nothing was wanted.
const IDLE: Duration = Duration::from_secs(60);
/// Until another try when the store or a delivery broke.
const BROKEN: Duration = Duration::from_secs(10);
/// Dead letters of one consumer; when there are so many, nothing more is given up.
const MOST_DEAD_LETTERS: usize = 100_000;
/// Rows of done events that are removed at a time.
const TIDIED: usize = 10_000;

/// Events of one key come in order. `None`: blocks and reorgs.
pub(super) type Key = Option<ScriptHash>;
type Reading = Pin<Box<dyn Future<Output = Result<Page, ApiError>> + Send>>;

/// Until the consumer ends or the daemon stops. What is in flight then comes again.
pub async fn run(
    app: &Arc<App>,
    consumer: &Arc<Consumer>,
    webhook: &Webhook,
    handle: &Handle,
    mut inbox: mpsc::Receiver<Command>,
) {
    let webhook = Arc::new(webhook.clone());
    let work = async {
        loop {
            let Err(cause) = attend(app, consumer, &webhook, handle, &mut inbox).await;
            tracing::warn!(consumer = consumer.name, %cause, "a webhook is interrupted");
            sleep(BROKEN).await;
        }
    };
    tokio::select! {
        biased;
        () = app.stop.cancelled() => {}
        () = consumer.ended.cancelled() => {}
        () = work => {}
    }
}

async fn attend(
    app: &Arc<App>,
    consumer: &Arc<Consumer>,
    webhook: &Arc<Webhook>,
    handle: &Handle,
    inbox: &mut mpsc::Receiver<Command>,
) -> Result<Infallible, ApiError> {
    Work::begin(app, consumer, webhook, handle)
        .await?
        .work(inbox)
        .await
}

pub(super) struct Work<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) consumer: &'a Arc<Consumer>,
    webhook: &'a Arc<Webhook>,
    handle: &'a Handle,
    pub(super) clock: Clock,
    pub(super) schedule: Schedule<Key>,
    attempts: JoinSet<Result<Finished, ApiError>>,
    /// Of events that are not loaded yet.
    failing: Rows,
    /// Events up to this one may have been done before this began.
    done_before: u64,
    /// There may be rows of done events that the place has passed.
    untidy: bool,
    /// To be written with the next step.
    outdated: Vec<ConsumerEdit>,
    pub(super) dead_letters: usize,
}

impl<'a> Work<'a> {
    async fn begin(
        app: &'a Arc<App>,
        consumer: &'a Arc<Consumer>,
        webhook: &'a Arc<Webhook>,
        handle: &'a Handle,
    ) -> Result<Self, ApiError> {
        let (clock, name) = (Clock::start(), consumer.name.clone());
        let rows = app.read(move |app| {
            Ok((
                app.reader.done_events(&name, 0, u64::MAX)?,
                app.reader.dead_letter_count(&name)?,
                Rows::new(false, app.reader.failing(&name, false)?),
                Rows::new(true, app.reader.failing(&name, true)?),
                app.reader.stopped(&name)?,
            ))
        });
        let (done, dead_letters, failing, resent, stopped) = rows.await?;
        let (place, give_up_after) = (
            consumer.place().number,
            app.config.webhooks.give_up_after.saturating_mul(1000),
        );
        let mut work = Self {
            app,
            consumer,
            webhook,
            handle,
            clock,
            schedule: Schedule::new(place, give_up_after, stopped.is_some()),
            attempts: JoinSet::new(),
            failing,
            done_before: done.last().copied().unwrap_or(0),
            untidy: !done.is_empty(),
            outdated: Vec::new(),
            dead_letters,
        };
        handle.stats().stopped = stopped;
        work.begin_failing(resent).await?;
        Ok(work)
    }

    /// What failed before this began.
    async fn begin_failing(&mut self, mut resent: Rows) -> Result<(), ApiError> {
        let now = self.clock.now();
        let last = self.failing.last_tried().max(resent.last_tried());
        let off = failing::off_for(last, now);
        if off > 0 {
            let mut edits = self.failing.skip(off, now);
            edits.extend(resent.skip(off, now));
            self.write(edits).await?;
        }
        self.begin_resends(&mut resent).await?;
        self.outdated.extend(resent.left_up_to(u64::MAX));
        Ok(())
    }

    async fn work(&mut self, inbox: &mut mpsc::Receiver<Command>) -> Result<Infallible, ApiError> {
        let mut reading: Option<Reading> = None;
        loop {
            self.send();
            self.show();
            if reading.is_none() && self.schedule.room() > 0 {
                reading = Some(self.read_on());
            }
            let begins = self.schedule.begins_at().map(|at| self.clock.instant(at));
            tokio::select! {
                biased;
                Some(finished) = self.attempts.join_next() => {
                    let mut all = vec![finished];
                    all.extend(std::iter::from_fn(|| self.attempts.try_join_next()));
                    let all = all.into_iter().map(|finished| finished.map_err(|cause| ApiError::internal(&cause))?);
                    self.settle(all.collect::<Result<_, _>>()?).await?;
                }
                Some(command) = inbox.recv() => self.execute(command).await?,
                page = next(&mut reading) => {
                    reading = None;
                    self.load(page?).await?;
                }
                () = sleep_until(begins.unwrap_or_else(Instant::now)), if begins.is_some() => {}
            }
        }
    }

    /// Begins what may begin now.
    fn send(&mut self) {
        while let Some(attempt) = self.schedule.next(self.clock.now()) {
            self.handle.stats().attempts += 1;
            self.attempts.spawn(deliver(
                self.app.clone(),
                self.consumer.clone(),
                self.webhook.clone(),
                attempt,
            ));
        }
    }

    /// Shows how it is doing.
    pub(super) fn show(&self) {
        let (schedule, mut stats) = (&self.schedule, self.handle.stats());
        stats.failures = schedule.failures();
        stats.retrying = schedule.retrying();
        stats.in_flight = schedule.in_flight();
        stats.pending = schedule.pending();
        stats.dead_letters = Some(self.dead_letters);
        stats.next_attempt = schedule.begins_at().filter(|_| schedule.retrying() > 0);
        if !schedule.is_stopped() {
            stats.stopped = None;
        }
    }

    fn read_on(&self) -> Reading {
        let (app, filter) = (self.app.clone(), self.consumer.filter.clone());
        let (after, limit) = (self.schedule.read_up_to(), self.schedule.room().min(PAGE));
        Box::pin(async move { app.next_news(after, &filter, limit, sleep(IDLE)).await })
    }

    async fn load(&mut self, page: Page) -> Result<(), ApiError> {
        if page.events.is_empty() && self.app.indexer.has_stopped() {
            // There is nothing to wait for any more.
            return Err(ApiError::stopping());
        }
        let after = self.schedule.read_up_to();
        if self.app.expired(after)? {
            self.missed(self.app.reader.first_seq()?.saturating_sub(1));
        }
        let done = if after < self.done_before {
            let (name, next) = (self.consumer.name.clone(), page.next);
            self.app
                .read(move |app| Ok(app.reader.done_events(&name, after, next)?))
                .await?
        } else {
            Vec::new()
        };
        let now = self.clock.now();
        for (number, event) in &page.events {
            if done.binary_search(number).is_err() {
                let (key, tried) = (key_of(event), self.failing.take(*number));
                self.schedule.load(*number, key, tried, now);
            }
        }
        self.schedule.read_to(page.next);
        self.outdated.extend(self.failing.left_up_to(page.next));
        if self.schedule.pending() == 0 && self.schedule.place() > self.consumer.place().number {
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
    async fn settle(&mut self, all: Vec<Finished>) -> Result<(), ApiError> {
        let (mut settled, mut edits) = (Vec::new(), Vec::new());
        for finished in all {
            let Attempt { number, resend, .. } = finished.attempt;
            if let Some(record) = finished.record {
                let mut stats = self.handle.stats();
                stats.last_error = record.error.clone().or(stats.last_error.take());
                stats.remember(record);
            }
            let is_settled = match (finished.event, finished.result) {
                (None, _) => {
                    self.gone(finished.attempt, &mut edits);
                    true
                }
                (Some(_), Ok(())) => {
                    self.delivered(finished.attempt, &mut edits);
                    true
                }
                (Some(event), Err(failure)) => {
                    self.failed(finished.attempt, event, failure, &mut edits)
                        .await?
                }
            };
            if is_settled && !resend {
                settled.push(number);
            }
        }
        let place = self.schedule.place();
        let beyond: Vec<_> = settled
            .into_iter()
            .filter(|number| *number > place)
            .map(ConsumerEdit::Done)
            .collect();
        self.untidy |= !beyond.is_empty();
        edits.extend(beyond);
        self.write(edits).await
    }

    /// The log or the dead letter is not there any more.
    fn gone(&mut self, attempt: Attempt<Key>, edits: &mut Vec<ConsumerEdit>) {
        self.schedule.gone(attempt, self.clock.now());
        edits.extend(not_failing(&attempt));
        if !attempt.resend {
            self.missed(attempt.number);
        }
    }

    fn delivered(&mut self, attempt: Attempt<Key>, edits: &mut Vec<ConsumerEdit>) {
        let now = self.clock.now();
        let wanted = self.schedule.delivered(attempt, now);
        edits.extend(not_failing(&attempt));
        if attempt.resend && wanted {
            edits.push(ConsumerEdit::DropDeadLetter(attempt.number));
            self.dead_letters = self.dead_letters.saturating_sub(1);
        }
        self.handle.stats().last_success = Some(now);
    }

    /// True when the event is settled: it became a dead letter, or was one.
    async fn failed(
        &mut self,
        attempt: Attempt<Key>,
        event: Event,
        failure: Failure,
        edits: &mut Vec<ConsumerEdit>,
    ) -> Result<bool, ApiError> {
        let (now, Attempt { number, resend, .. }) = (self.clock.now(), attempt);
        self.handle.stats().failed_attempts += 1;
        if failure.gone && !self.schedule.is_stopped() {
            self.stop(attempt, failure.error, edits);
            return Ok(false);
        }
        let may_give_up = resend || self.dead_letters < MOST_DEAD_LETTERS;
        let failed = self
            .schedule
            .failed(attempt, now, failure.pause, chance()?, may_give_up);
        match failed {
            Failed::Stopped => Ok(false),
            Failed::Dropped => Ok(true),
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
                Ok(false)
            }
            Failed::GivenUp(tried) => {
                edits.push(ConsumerEdit::NotFailing { number, resend });
                let letter = self.given_up(&attempt, event, tried, failure.error).await?;
                edits.push(ConsumerEdit::DeadLetter(number, letter));
                Ok(true)
            }
        }
    }

    /// The first failure of a row of them.
    fn warn_of_first(&self, number: u64, error: &str) {
        if self.schedule.failures() == 1 {
            tracing::info!(
                consumer = self.consumer.name,
                number,
                error,
                "a webhook's delivery failed and will be tried again"
            );
        }
    }

    /// The receiver answered 410.
    fn stop(&mut self, attempt: Attempt<Key>, reason: String, edits: &mut Vec<ConsumerEdit>) {
        let (name, now) = (&self.consumer.name, self.clock.now());
        tracing::warn!(
            consumer = name,
            reason,
            "a webhook is stopped until POST /consumers/{name}/retry or a PUT resumes it"
        );
        self.schedule.stop(attempt, now);
        let stopped = Stopped { since: now, reason };
        self.handle.stats().stopped = Some(stopped.clone());
        edits.push(ConsumerEdit::Stop(stopped));
    }

    async fn given_up(
        &mut self,
        attempt: &Attempt<Key>,
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
    async fn write(&mut self, mut edits: Vec<ConsumerEdit>) -> Result<(), ApiError> {
        let place = self.schedule.place();
        edits.append(&mut self.outdated);
        if self.untidy {
            let name = self.consumer.name.clone();
            let passed = self
                .app
                .read(move |app| Ok(app.reader.done_events(&name, 0, place)?))
                .await?;
            edits.extend(passed.into_iter().take(TIDIED).map(ConsumerEdit::Passed));
            self.untidy =
                self.schedule.pending() > 0 || place < self.done_before || edits.len() >= TIDIED;
        }
        match self
            .consumer
            .move_to(&self.app.indexer, place, edits, now_ms())
            .await?
        {
            Some(_) => Ok(()),
            // It has ended, and this task does so at once.
            None => std::future::pending().await,
        }
    }
}

pub(super) fn key_of(event: &Event) -> Key {
    event.kind.script().copied()
}

fn not_failing(attempt: &Attempt<Key>) -> Option<ConsumerEdit> {
    (attempt.tried.attempts > 0).then_some(ConsumerEdit::NotFailing {
        number: attempt.number,
        resend: attempt.resend,
    })
}

async fn next(reading: &mut Option<Reading>) -> Result<Page, ApiError> {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}
