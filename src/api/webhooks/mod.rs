//! Webhooks: a consumer with a URL has its events posted there (Standard Webhooks:
//! standardwebhooks.com).
//!
//! # Laws
//!
//! 1. Every event that the consumer wants is posted until the receiver answers 2xx or it becomes a
//!    dead letter. What the receiver took may come again, with the same `webhook-id`, when the
//!    answer was lost or the daemon ended before it was written down.
//! 2. Events of one script come in the order of their numbers, one at a time; so do blocks and
//!    reorgs, among themselves. A failing event holds up those behind it of its lane until it is
//!    given up, and the other lanes only when [`schedule::WINDOW`] events wait in its own.
//! 3. Memory is bounded: only numbers are kept, at most [`schedule::WINDOW`] of them; the event is
//!    read again when it is sent.
//! 4. What became of an event is in the store before the next step counts on it; the consumer's
//!    place is before the oldest event that nothing has become of. What is done beyond it has rows
//!    of its own. When a failing event was first tried is kept in memory only: after a restart its
//!    time to be given up begins anew.
//! 5. Nothing is posted to addresses that are not on the public internet, whatever a name resolves
//!    to, unless a setting allows it.
//!
//! ```text
//! signature   secrets and signatures
//! target      which URLs and addresses may be posted to
//! lookup      addresses of names, apart from the reads of the store
//! schedule    what is sent when: lanes, back-off, giving up; pure
//! courier     one attempt: request, answer
//! task        one for each webhook: log -> schedule -> courier -> rows
//! letters     what people ask of dead letters: listed by `rest`, sent again and forgotten by the task
//! rest        its routes
//! ```

mod courier;
mod letters;
mod lookup;
mod rest;
mod schedule;
mod signature;
mod target;
mod task;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::App;
use super::consumers::Consumer;
use super::error::ApiError;
use super::hub::Wire;
use super::json;
use crate::config;
use courier::Courier;
pub use target::{Target, target};

/// Requests to one webhook's task that may wait.
const COMMANDS: usize = 16;

/// All webhooks that are at work.
pub struct Webhooks {
    settings: config::Webhooks,
    /// Made for the first webhook: it reads the system's root certificates.
    courier: OnceLock<Courier>,
    desks: Mutex<BTreeMap<String, Arc<Desk>>>,
}

impl Webhooks {
    pub fn new(settings: &config::Webhooks) -> Self {
        Self {
            settings: settings.clone(),
            courier: OnceLock::new(),
            desks: Mutex::default(),
        }
    }

    fn courier(&self) -> &Courier {
        self.courier.get_or_init(|| Courier::new(&self.settings))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Desk>>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is at work.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.lock().is_empty()
    }

    fn desk(&self, name: &str) -> Option<Arc<Desk>> {
        self.lock().get(name).cloned()
    }
}

/// Where one webhook's task takes requests and shows how it is doing.
struct Desk {
    commands: mpsc::Sender<Command>,
    view: Mutex<View>,
    /// The task has ended.
    closed: CancellationToken,
}

impl Desk {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the task; an error when it has ended.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, ApiError>>) -> Command,
    ) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(command(answer))
            .await
            .map_err(|_| changed())?;
        answered.await.map_err(|_| changed())?
    }
}

fn changed() -> ApiError {
    ApiError::new(
        hyper::StatusCode::CONFLICT,
        "consumer_changed",
        "The consumer was just changed, or the daemon stops; ask again.",
    )
}

/// What people ask of a webhook's dead letters. The answer is how many it was.
enum Command {
    /// Send these, or all, again.
    Resend {
        numbers: Option<Vec<u64>>,
        answer: oneshot::Sender<Result<usize, ApiError>>,
    },
    /// Forget this one, or all.
    Drop {
        number: Option<u64>,
        answer: oneshot::Sender<Result<usize, ApiError>>,
    },
}

/// How a webhook is doing; times in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Default)]
struct View {
    attempts: u64,
    failed_attempts: u64,
    /// In a row, whatever the event.
    failures: u64,
    last_error: Option<String>,
    last_success: Option<u64>,
    next_attempt: Option<u64>,
    /// Events that failed and will be tried again.
    retrying: usize,
    in_flight: usize,
    pending: usize,
    /// Unknown until the task has counted them.
    dead_letters: Option<usize>,
    missed_up_to: Option<u64>,
}

impl View {
    fn word(&self) -> &'static str {
        if self.retrying > 0 || self.failures > 0 {
            "failing"
        } else if self.pending > 0 {
            "delivering"
        } else {
            "waiting"
        }
    }
}

/// `webhook` of `GET /consumers/{name}`. `state`: `failing` when the last attempt failed or an
/// event waits to be tried again, `delivering` when others are on their way, `waiting` for events
/// otherwise. `pending`: events that are read and not done, at most [`schedule::WINDOW`].
#[derive(Debug, Clone, Serialize)]
pub struct State {
    url: String,
    state: &'static str,
    failures: u64,
    last_error: Option<String>,
    last_success: Option<f64>,
    next_attempt: Option<f64>,
    in_flight: usize,
    pending: usize,
    dead_letters: usize,
    /// Retention deleted events up to here before they were delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed_up_to: Option<String>,
}

/// How the consumer's webhook is doing; `None` when it has none. May block the thread.
pub fn state(app: &App, consumer: &Consumer) -> Result<Option<State>, ApiError> {
    let Some(webhook) = &consumer.wants.webhook else {
        return Ok(None);
    };
    let view = app
        .webhooks
        .desk(&consumer.name)
        .map(|desk| desk.view().clone())
        .unwrap_or_default();
    Ok(Some(State {
        url: webhook.url.clone(),
        state: view.word(),
        failures: view.failures,
        dead_letters: count(app, &consumer.name, &view)?,
        last_error: view.last_error,
        last_success: view.last_success.map(json::seconds),
        next_attempt: view.next_attempt.map(json::seconds),
        in_flight: view.in_flight,
        pending: view.pending,
        missed_up_to: view.missed_up_to.map(|number| app.wire.cursor(number)),
    }))
}

fn count(app: &App, name: &str, view: &View) -> Result<usize, ApiError> {
    view.dead_letters
        .map_or_else(|| Ok(app.reader.dead_letter_count(name)?), Ok)
}

/// `state` alone, for `/status`.
pub fn word(app: &App, consumer: &Consumer) -> Option<&'static str> {
    let desk = app.webhooks.desk(&consumer.name);
    consumer
        .wants
        .webhook
        .as_ref()
        .map(|_| desk.map_or("waiting", |desk| desk.view().word()))
}

/// Figures of one webhook for metrics; the first two count from the definition or the daemon's
/// start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    pub attempts: u64,
    pub failures: u64,
    pub dead_letters: usize,
    pub in_flight: usize,
}

/// Of every webhook. May block the thread.
pub fn counters(app: &App) -> Result<Vec<(String, Counters)>, ApiError> {
    let views: Vec<_> = app
        .webhooks
        .lock()
        .iter()
        .map(|(name, desk)| (name.clone(), desk.view().clone()))
        .collect();
    let counters = views.into_iter().map(|(name, view)| {
        let dead_letters = count(app, &name, &view)?;
        Ok((
            name,
            Counters {
                attempts: view.attempts,
                failures: view.failed_attempts,
                dead_letters,
                in_flight: view.in_flight,
            },
        ))
    });
    counters.collect()
}

/// Starts to post the consumer's events if it has a webhook; ends with the consumer, or when the
/// daemon stops.
pub fn spawn(app: &Arc<App>, consumer: &Arc<Consumer>) {
    let Some(webhook) = consumer.wants.webhook.clone() else {
        return;
    };
    let (commands, inbox) = mpsc::channel(COMMANDS);
    let desk = Arc::new(Desk {
        commands,
        view: Mutex::default(),
        closed: CancellationToken::new(),
    });
    let before = {
        let mut desks = app.webhooks.lock();
        if consumer.ended.is_cancelled() {
            // A newer definition has overtaken this one: its desk must stay.
            return;
        }
        desks.insert(consumer.name.clone(), desk.clone())
    };
    let (app, consumer) = (app.clone(), consumer.clone());
    tokio::spawn(async move {
        let _closed = desk.closed.clone().drop_guard();
        if let Some(before) = before {
            // Two at once could send two events of a lane at once.
            before.closed.cancelled().await;
        }
        task::run(&app, &consumer, &webhook, &desk, inbox).await;
        let mut desks = app.webhooks.lock();
        if desks
            .get(&consumer.name)
            .is_some_and(|now| Arc::ptr_eq(now, &desk))
        {
            desks.remove(&consumer.name);
        }
    });
}

/// The body of a delivery: `data` is byte for byte what subscribers of the socket get.
fn body(
    wire: &Wire,
    name: &str,
    number: u64,
    event: &crate::tracker::Event,
) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Body<'a> {
        consumer: &'a str,
        cursor: &'a str,
        event: &'static str,
        data: Box<serde_json::value::RawValue>,
    }
    let cursor = wire.cursor(number);
    let (event, data) = json::event(event, cursor.clone(), wire.network);
    let data = serde_json::value::RawValue::from_string(data)
        .map_err(|cause| ApiError::internal(&cause))?;
    Ok(json::to_text(&Body {
        consumer: name,
        cursor: &cursor,
        event,
        data,
    }))
}
