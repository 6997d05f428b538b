//! One webhook at work: the log's numbers into the schedule, what is due to the courier, what
//! became of it into the store.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::courier::Failure;
use super::schedule::{Failed, Flight, Schedule};
use super::{Command, Desk, body};
use crate::api::App;
use crate::api::consumers::Consumer;
use crate::api::error::ApiError;
use crate::api::tail::Page;
use crate::clock::now_ms;
use crate::store::{ConsumerEdit, DeadLetter, Webhook};
use crate::tracker::{Event, ScriptHash};

/// Events whose numbers are read from the log at a time.
const PAGE: usize = 500;
/// Without news, until the place is written down although nothing was wanted.
const IDLE: Duration = Duration::from_secs(60);
/// Until another try when the store or a delivery broke.
const BROKEN: Duration = Duration::from_secs(10);
/// Dead letters of one consumer; when there are so many, nothing more is given up.
const MOST_LETTERS: usize = 100_000;
/// Rows of done events that are removed at a time.
const TIDIED: usize = 10_000;

/// `None`: blocks and reorgs.
pub(super) type Lane = Option<ScriptHash>;
type Reading = Pin<Box<dyn Future<Output = Result<Page, ApiError>> + Send>>;

/// Until the consumer ends or the daemon stops. What is in flight then comes again.
pub async fn run(
    app: &Arc<App>,
    consumer: &Arc<Consumer>,
    webhook: &Webhook,
    desk: &Desk,
    mut inbox: mpsc::Receiver<Command>,
) {
    let webhook = Arc::new(webhook.clone());
    let work = async {
        loop {
            let Err(cause) = attend(app, consumer, &webhook, desk, &mut inbox).await;
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
    desk: &Desk,
    inbox: &mut mpsc::Receiver<Command>,
) -> Result<Infallible, ApiError> {
    Work::begin(app, consumer, webhook, desk)
        .await?
        .work(inbox)
        .await
}

/// Time for the schedule: begins with the wall clock and is never set back.
pub(super) struct Clock {
    epoch: u64,
    began: Instant,
}

impl Clock {
    pub(super) fn now(&self) -> u64 {
        self.epoch
            .saturating_add(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn instant(&self, at: u64) -> Instant {
        self.began + Duration::from_millis(at.saturating_sub(self.epoch))
    }
}

/// What came of an attempt; without an event when it is gone.
struct Landed {
    flight: Flight<Lane>,
    event: Option<Event>,
    result: Result<(), Failure>,
}

pub(super) struct Work<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) consumer: &'a Arc<Consumer>,
    webhook: &'a Arc<Webhook>,
    desk: &'a Desk,
    pub(super) clock: Clock,
    pub(super) schedule: Schedule<Lane>,
    flights: JoinSet<Result<Landed, ApiError>>,
    /// Events up to this one may have been done before this began.
    done_before: u64,
    /// There may be rows of done events that the place has passed.
    untidy: bool,
    pub(super) letters: usize,
}

impl<'a> Work<'a> {
    async fn begin(
        app: &'a Arc<App>,
        consumer: &'a Arc<Consumer>,
        webhook: &'a Arc<Webhook>,
        desk: &'a Desk,
    ) -> Result<Self, ApiError> {
        let clock = Clock {
            epoch: now_ms(),
            began: Instant::now(),
        };
        let (place, give_up_after) = (
            consumer.place().number,
            app.config.webhooks.give_up_after.saturating_mul(1000),
        );
        let name = consumer.name.clone();
        let (done, letters) = app
            .read(move |app| {
                Ok((
                    app.reader.done_events(&name, 0, u64::MAX)?,
                    app.reader.dead_letter_count(&name)?,
                ))
            })
            .await?;
        let mut work = Self {
            app,
            consumer,
            webhook,
            desk,
            clock,
            schedule: Schedule::new(place, give_up_after),
            flights: JoinSet::new(),
            done_before: done.last().copied().unwrap_or(0),
            untidy: !done.is_empty(),
            letters,
        };
        work.resume_letters().await?;
        Ok(work)
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
                Some(landed) = self.flights.join_next() => {
                    let mut all = vec![landed];
                    all.extend(std::iter::from_fn(|| self.flights.try_join_next()));
                    let all = all.into_iter().map(|landed| landed.map_err(|cause| ApiError::internal(&cause))?);
                    self.settle(all.collect::<Result<_, _>>()?).await?;
                }
                Some(command) = inbox.recv() => self.obey(command).await?,
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
        while let Some(flight) = self.schedule.next(self.clock.now()) {
            self.desk.view().attempts += 1;
            self.flights.spawn(attempt(
                self.app.clone(),
                self.consumer.clone(),
                self.webhook.clone(),
                flight,
            ));
        }
    }

    /// Shows how it is doing.
    fn show(&self) {
        let (schedule, mut view) = (&self.schedule, self.desk.view());
        view.failures = schedule.failures();
        view.retrying = schedule.retrying();
        view.in_flight = schedule.in_flight();
        view.pending = schedule.pending();
        view.dead_letters = Some(self.letters);
        view.next_attempt = schedule.begins_at().filter(|_| schedule.retrying() > 0);
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
                self.schedule
                    .load(*number, event.kind.script().copied(), now);
            }
        }
        self.schedule.read_to(page.next);
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
        let mut view = self.desk.view();
        view.missed_up_to = view.missed_up_to.max(Some(number));
    }

    /// Writes down what became of attempts.
    async fn settle(&mut self, all: Vec<Landed>) -> Result<(), ApiError> {
        let (mut settled, mut edits) = (Vec::new(), Vec::new());
        let mut failed = None;
        for landed in all {
            let (now, Flight { number, again, .. }) = (self.clock.now(), landed.flight);
            let is_settled = match (landed.event, landed.result) {
                (None, _) => {
                    self.schedule.gone(landed.flight, now);
                    if !again {
                        self.missed(number);
                    }
                    true
                }
                (Some(_), Ok(())) => {
                    let wanted = self.schedule.delivered(landed.flight, now);
                    if again && wanted {
                        edits.push(ConsumerEdit::DropDeadLetter(number));
                        self.letters = self.letters.saturating_sub(1);
                    }
                    self.desk.view().last_success = Some(now);
                    true
                }
                (Some(event), Err(failure)) => {
                    let letter = self.failed(landed.flight, event, &failure, now).await?;
                    failed = Some(failure.error);
                    edits.extend(letter.map(|letter| ConsumerEdit::DeadLetter(number, letter)));
                    edits.last().is_some_and(|edit| matches!(edit, ConsumerEdit::DeadLetter(given_up, _) if *given_up == number))
                }
            };
            if is_settled && !again {
                settled.push(number);
            }
        }
        if let Some(error) = failed {
            self.desk.view().last_error = Some(error);
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

    /// The dead letter, if the event becomes one now.
    async fn failed(
        &mut self,
        flight: Flight<Lane>,
        event: Event,
        failure: &Failure,
        now: u64,
    ) -> Result<Option<DeadLetter>, ApiError> {
        let (name, error) = (&self.consumer.name, &failure.error);
        let may_give_up = flight.again || self.letters < MOST_LETTERS;
        let failed = self
            .schedule
            .failed(flight, now, failure.retry_after, chance()?, may_give_up);
        self.desk.view().failed_attempts += 1;
        if self.schedule.failures() == 1 {
            tracing::info!(
                consumer = name,
                number = flight.number,
                error,
                "a webhook's delivery failed and will be tried again"
            );
        }
        let Failed::GivenUp {
            attempts,
            first_failed,
        } = failed
        else {
            return Ok(None);
        };
        tracing::warn!(
            consumer = name,
            number = flight.number,
            attempts,
            error,
            "an event becomes a dead letter"
        );
        if !flight.again {
            // After a step back there may be one of the same event.
            let known = self.letter(flight.number).await?.is_some();
            self.letters = self.letters.saturating_add(usize::from(!known));
        }
        Ok(Some(DeadLetter {
            event,
            attempts,
            first_failed,
            last_tried: now,
            error: error.clone(),
            again: false,
        }))
    }

    /// Writes edits and the place.
    async fn write(&mut self, mut edits: Vec<ConsumerEdit>) -> Result<(), ApiError> {
        let place = self.schedule.place();
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

async fn next(reading: &mut Option<Reading>) -> Result<Page, ApiError> {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}

async fn attempt(
    app: Arc<App>,
    consumer: Arc<Consumer>,
    webhook: Arc<Webhook>,
    flight: Flight<Lane>,
) -> Result<Landed, ApiError> {
    let (name, number) = (consumer.name.clone(), flight.number);
    let event = app.read(move |app| match flight.again {
        true => Ok(app
            .reader
            .dead_letter(&name, number)?
            .map(|letter| letter.event)),
        false => Ok(app.reader.event(number)?),
    });
    let Some(event) = event.await? else {
        return Ok(Landed {
            flight,
            event: None,
            result: Ok(()),
        });
    };
    let body = body(&app.wire, &consumer.name, number, &event)?;
    let id = format!("{}_{}", consumer.name, app.wire.cursor(number));
    let result = app
        .webhooks
        .courier()
        .post(&webhook, &id, body, now_ms() / 1000)
        .await;
    Ok(Landed {
        flight,
        event: Some(event),
        result,
    })
}

/// From 0 to 1.
fn chance() -> Result<f64, ApiError> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|cause| ApiError::internal(&cause))?;
    Ok(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}
