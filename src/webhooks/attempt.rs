//! One attempt of the task: the event is read again, posted, and what came of it said; and what the
//! partitions take as arguments, time and chance.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::partitions::Attempt;
use super::sender::{Failure, Outcome};
use super::stats::Record;
use super::{Webhooks, body};
use crate::clock::now_ms;
use crate::consumers::Consumer;
use crate::store::Webhook;
use crate::tracker::Event;
use crate::wire::error::ApiError;

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

/// What came of an attempt; without an event when it is gone.
pub struct AttemptResult {
    pub attempt: Attempt,
    pub event: Option<Event>,
    pub result: Result<(), Failure>,
    pub record: Option<Record>,
}

/// Reads the event and posts it.
pub async fn deliver(
    webhooks: Arc<Webhooks>,
    consumer: Arc<Consumer>,
    webhook: Arc<Webhook>,
    attempt: Attempt,
) -> Result<AttemptResult, ApiError> {
    let (name, number) = (consumer.name.clone(), attempt.number);
    let event = webhooks.read(move |reader| match attempt.resend {
        true => Ok(reader.dead_letter(&name, number)?.map(|it| it.event)),
        false => Ok(reader.event(number)?),
    });
    let Some(event) = event.await? else {
        return Ok(AttemptResult {
            attempt,
            event: None,
            result: Ok(()),
            record: None,
        });
    };
    let body = body(webhooks.wire(), &consumer.name, number, &event)?;
    let (id, began) = (
        format!("{}_{}", consumer.name, webhooks.wire().cursor(number)),
        now_ms(),
    );
    let sender = webhooks.sender();
    let outcome: Outcome = sender.post(&webhook, &id, body, began / 1000).await;
    Ok(AttemptResult {
        attempt,
        event: Some(event),
        record: Some(Record::new(id, began, &outcome)),
        result: outcome.result,
    })
}

/// From 0 to 1.
pub fn chance() -> Result<f64, ApiError> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|cause| ApiError::internal(&cause))?;
    Ok(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}
