//! How a webhook is doing, for people and for metrics.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::sender::Outcome;
use super::{Webhooks, hidden};
use crate::consumers::Consumer;
use crate::store::{SigningSecret, Stopped, Webhook};
use crate::wire::error::ApiError;
use crate::wire::json;

/// Attempts that are remembered.
const RECENT: usize = 10;

/// What the task shows; times in milliseconds since the Unix epoch. Counts from the definition or
/// the daemon's start on.
#[derive(Debug, Clone, Default)]
pub struct WebhookStats {
    pub attempts: u64,
    pub failed_attempts: u64,
    /// In a row, whatever the event; attempts that fail side by side count once.
    pub failures: u64,
    pub last_error: Option<String>,
    pub last_success: Option<u64>,
    pub next_attempt: Option<u64>,
    /// Events that failed and will be tried again.
    pub retrying: usize,
    pub in_flight: usize,
    pub pending: usize,
    /// Unknown until the task has counted them.
    pub dead_letters: Option<usize>,
    pub missed_up_to: Option<u64>,
    pub stopped: Option<Stopped>,
    /// Newest first.
    recent: VecDeque<Record>,
}

impl WebhookStats {
    pub fn remember(&mut self, record: Record) {
        self.recent.truncate(RECENT - 1);
        self.recent.push_front(record);
    }

    fn state_word(&self) -> &'static str {
        if self.stopped.is_some() {
            "stopped"
        } else if self.retrying > 0 || self.failures > 0 {
            "failing"
        } else if self.pending > 0 {
            "delivering"
        } else {
            "waiting"
        }
    }
}

/// One attempt and its answer. Times in seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    pub webhook_id: String,
    /// When it began.
    time: f64,
    duration: f64,
    /// Null without an answer.
    status: Option<u16>,
    /// The beginning of the answer's body.
    answer: String,
    /// Null when the receiver took it.
    pub error: Option<String>,
}

impl Record {
    /// `began`: milliseconds since the Unix epoch.
    pub fn new(webhook_id: String, began: u64, outcome: &Outcome) -> Self {
        Self {
            webhook_id,
            time: json::seconds(began),
            duration: outcome.duration.as_millis() as f64 / 1000.0,
            status: outcome.status.map(|status| status.as_u16()),
            answer: outcome.answer.clone(),
            error: outcome.result.as_ref().err().map(|it| it.error.clone()),
        }
    }
}

/// `webhook` of a consumer. `state`: `stopped` when the receiver wants nothing any more (410),
/// `failing` when the last attempt failed or an event waits to be tried again, `delivering` when
/// others are on their way, `waiting` for events otherwise. `pending`: events that are read and not
/// done, at most [`super::partitions::WINDOW`] in each partition.
#[derive(Debug, Clone, Serialize)]
pub struct State {
    url: String,
    /// Names, with values that say that they are hidden.
    headers: BTreeMap<String, &'static str>,
    secrets: Vec<SecretShape>,
    state: &'static str,
    stopped: Option<StoppedShape>,
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
    /// The last ones, newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<VecDeque<Record>>,
}

#[derive(Debug, Clone, Serialize)]
struct SecretShape {
    expires: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
struct StoppedShape {
    since: f64,
    reason: String,
}

impl Webhooks {
    /// How the consumer's webhook is doing; `None` when it has none. `whole`: with the last
    /// attempts. May block the thread.
    pub fn state(&self, consumer: &Consumer, whole: bool) -> Result<Option<State>, ApiError> {
        let Some(webhook) = &consumer.wants.webhook else {
            return Ok(None);
        };
        let handle = self.handle(&consumer.name);
        let stats = handle
            .map(|handle| handle.stats().clone())
            .unwrap_or_default();
        Ok(Some(State {
            url: hidden::url(&webhook.url),
            headers: header_names(webhook),
            secrets: webhook.secrets.iter().map(shape_of_secret).collect(),
            state: stats.state_word(),
            dead_letters: self.dead_letter_count(&consumer.name, &stats)?,
            stopped: stats.stopped.map(|stopped| StoppedShape {
                since: json::seconds(stopped.since),
                reason: stopped.reason,
            }),
            failures: stats.failures,
            last_error: stats.last_error,
            last_success: stats.last_success.map(json::seconds),
            next_attempt: stats.next_attempt.map(json::seconds),
            in_flight: stats.in_flight,
            pending: stats.pending,
            missed_up_to: stats.missed_up_to.map(|number| self.wire().cursor(number)),
            attempts: whole.then_some(stats.recent),
        }))
    }

    fn dead_letter_count(&self, name: &str, stats: &WebhookStats) -> Result<usize, ApiError> {
        stats
            .dead_letters
            .map_or_else(|| Ok(self.parts.reader.dead_letter_count(name)?), Ok)
    }

    /// `state` alone, for `/status`.
    pub fn state_word(&self, consumer: &Consumer) -> Option<&'static str> {
        consumer.wants.webhook.as_ref()?;
        let handle = self.handle(&consumer.name);
        Some(handle.map_or("waiting", |handle| handle.stats().state_word()))
    }

    /// Figures of every webhook. May block the thread.
    pub fn counters(&self) -> Result<Vec<(String, Counters)>, ApiError> {
        let all = self.all_stats();
        let counters = all.into_iter().map(|(name, stats)| {
            let dead_letters = self.dead_letter_count(&name, &stats)?;
            Ok((
                name,
                Counters {
                    attempts: stats.attempts,
                    failures: stats.failed_attempts,
                    dead_letters,
                    in_flight: stats.in_flight,
                },
            ))
        });
        counters.collect()
    }
}

fn header_names(webhook: &Webhook) -> BTreeMap<String, &'static str> {
    let names = webhook.headers.iter().map(|(name, _)| name.clone());
    names.map(|name| (name, hidden::HIDDEN)).collect()
}

fn shape_of_secret(secret: &SigningSecret) -> SecretShape {
    SecretShape {
        expires: secret.expires.map(json::seconds),
    }
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
