//! How a webhook is doing, for people and for metrics.

use std::collections::{BTreeMap, VecDeque};

use schemars::JsonSchema;
use serde::Serialize;

use super::sender::Record;
use super::{Webhooks, hidden};
use crate::consumers::Consumer;
use crate::store::WebhookStop;
use crate::wire::error::ApiError;
use crate::wire::json;

/// Attempts that are remembered.
const RECENT: usize = 10;

/// What the task shows. Times in seconds; counts from the definition or the daemon's start on.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct WebhookStats {
    #[serde(skip)]
    pub attempts: u64,
    #[serde(skip)]
    pub failed_attempts: u64,
    /// In a row, whatever the event; attempts that fail side by side count once.
    pub failures: u64,
    pub last_error: Option<String>,
    /// Seconds since the Unix epoch.
    pub last_success: Option<f64>,
    /// Seconds since the Unix epoch.
    pub next_attempt: Option<f64>,
    /// Events that failed and will be tried again.
    #[serde(skip)]
    pub retrying: usize,
    pub in_flight: usize,
    /// Events that are read and not done yet, as many as are sent side by side.
    pub pending: usize,
    /// Unknown until the task has counted them.
    pub dead_letters: Option<usize>,
    /// Retention deleted events up to here before they were delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed_up_to: Option<String>,
    pub stopped: Option<Stop>,
    /// Newest first.
    #[serde(skip)]
    recent: VecDeque<Record>,
}

/// Why nothing is delivered any more.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "WebhookStop")]
pub struct Stop {
    /// Seconds since the Unix epoch.
    since: f64,
    reason: String,
}

impl From<WebhookStop> for Stop {
    fn from(stop: WebhookStop) -> Self {
        Self {
            since: json::seconds(stop.since),
            reason: stop.reason,
        }
    }
}

impl WebhookStats {
    /// `now`: milliseconds since the Unix epoch.
    pub fn remember(&mut self, record: Record, now: u64) {
        match &record.error {
            None => self.last_success = Some(json::seconds(now)),
            error => {
                self.failed_attempts += 1;
                self.last_error.clone_from(error);
            }
        }
        self.recent.truncate(RECENT - 1);
        self.recent.push_front(record);
    }

    fn word(&self) -> WebhookWord {
        if self.stopped.is_some() {
            WebhookWord::Stopped
        } else if self.retrying > 0 || self.failures > 0 {
            WebhookWord::Failing
        } else if self.pending > 0 {
            WebhookWord::Delivering
        } else {
            WebhookWord::Waiting
        }
    }
}

/// How a webhook is doing, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "WebhookStateWord")]
pub enum WebhookWord {
    /// The receiver wants nothing any more (410).
    Stopped,
    /// The last attempt failed, or an event waits to be tried again.
    Failing,
    /// Events are on their way.
    Delivering,
    /// There is nothing to deliver.
    Waiting,
}

/// The webhook of a consumer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Webhook")]
pub struct WebhookState {
    #[serde(flatten)]
    target: Option<ShownTarget>,
    state: WebhookWord,
    #[serde(flatten)]
    stats: WebhookStats,
    /// The last ones, newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<VecDeque<Record>>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct ShownTarget {
    /// Without what is secret in it.
    url: String,
    /// Names, with values that say that they are hidden.
    headers: BTreeMap<String, &'static str>,
    secrets: Vec<Expiry>,
}

/// How much of a webhook is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Nothing that says where events go: URL, headers, errors.
    Restricted,
    /// All but the last attempts.
    Brief,
    Whole,
}

/// What is shown of a secret.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "SigningSecretShown")]
struct Expiry {
    /// Seconds since the Unix epoch.
    expires: Option<f64>,
}

impl Webhooks {
    /// How the consumer's webhook is doing; `None` when it has none. May block the thread.
    pub fn state(
        &self,
        consumer: &Consumer,
        shown: Shown,
    ) -> Result<Option<WebhookState>, ApiError> {
        let Some(webhook) = &consumer.wants.webhook else {
            return Ok(None);
        };
        let handle = self.handle(&consumer.name);
        let known = handle.map(|handle| handle.stats().clone());
        let mut stats = self.counted(&consumer.name, known.unwrap_or_default())?;
        let (recent, names) = (std::mem::take(&mut stats.recent), webhook.headers.iter());
        let expiries = webhook.secrets.iter().map(|secret| Expiry {
            expires: secret.expires.map(json::seconds),
        });
        if shown == Shown::Restricted {
            stats.last_error = None;
            if let Some(stop) = &mut stats.stopped {
                stop.reason = hidden::HIDDEN.to_owned();
            }
        }
        let target = (shown != Shown::Restricted).then(|| ShownTarget {
            url: hidden::url(&webhook.url),
            headers: names
                .map(|(name, _)| (name.clone(), hidden::HIDDEN))
                .collect(),
            secrets: expiries.collect(),
        });
        Ok(Some(WebhookState {
            target,
            state: stats.word(),
            stats,
            attempts: (shown == Shown::Whole).then_some(recent),
        }))
    }

    /// With the number of dead letters.
    fn counted(&self, name: &str, stats: WebhookStats) -> Result<WebhookStats, ApiError> {
        let dead_letters = match stats.dead_letters {
            Some(count) => count,
            None => self.parts.reader.dead_letter_count(name)?,
        };
        Ok(WebhookStats {
            dead_letters: Some(dead_letters),
            ..stats
        })
    }

    /// `state` alone, for `/status`.
    pub fn state_word(&self, consumer: &Consumer) -> Option<WebhookWord> {
        consumer.wants.webhook.as_ref()?;
        let handle = self.handle(&consumer.name);
        Some(handle.map_or(WebhookWord::Waiting, |handle| handle.stats().word()))
    }

    /// How every webhook is doing. May block the thread.
    pub fn all_stats(&self) -> Result<Vec<(String, WebhookStats)>, ApiError> {
        let handles: Vec<_> = self.lock().clone().into_iter().collect();
        let stats = handles.into_iter().map(|(name, handle)| {
            let shown = handle.stats().clone();
            Ok((name.clone(), self.counted(&name, shown)?))
        });
        stats.collect()
    }
}
