//! One attempt of the task: the event is read again and posted; and what the partitions take as
//! arguments, time and chance.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::partitions::Attempt;
use super::sender::{Record, Verdict};
use super::{Webhooks, body};
use crate::clock::now_ms;
use crate::consumers::Consumer;
use crate::store::Delivery;
use crate::tracker::Event;
use crate::wire::error::ApiError;
use crate::wire::json;

/// Time for the partitions: begins with the wall clock and is never set back.
pub struct Clock {
    epoch: u64,
    began: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self {
            epoch: now_ms(),
            began: Instant::now(),
        }
    }

    pub fn now(&self) -> u64 {
        self.epoch
            .saturating_add(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub fn instant(&self, at: u64) -> Instant {
        self.began + Duration::from_millis(at.saturating_sub(self.epoch))
    }
}

/// What was posted and what came of it.
pub struct Posted {
    pub event: Event,
    pub record: Record,
    pub verdict: Verdict,
}

/// Reads the event and posts it; nothing when it is gone.
pub async fn deliver(
    webhooks: Arc<Webhooks>,
    consumer: Arc<Consumer>,
    attempt: Attempt,
) -> Result<(Attempt, Option<Posted>), ApiError> {
    let (name, encoder) = (consumer.name.clone(), webhooks.encoder().clone());
    let Delivery { resend, number } = attempt.delivery;
    let read = webhooks.parts.reads.run(move |view| {
        let event = match resend {
            true => view.reader.dead_letter(&name, number)?.map(|it| it.event),
            false => view.reader.event(number)?,
        };
        let Some(event) = event else {
            return Ok(None);
        };
        let cursor = encoder.cursor(number);
        let (kind, data) = json::event(&event, cursor.clone(), encoder.network);
        let body = body(&name, Some(&cursor), kind, data)?;
        Ok(Some((event, format!("{name}_{cursor}"), body)))
    });
    let (Some((event, id, body)), Some(webhook)) = (read.await?, &consumer.wants.webhook) else {
        return Ok((attempt, None));
    };
    let (record, verdict) = webhooks.sender().post(webhook, id, body).await;
    let posted = Posted {
        event,
        record,
        verdict,
    };
    Ok((attempt, Some(posted)))
}

/// From 0 to 1.
pub fn chance() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}
