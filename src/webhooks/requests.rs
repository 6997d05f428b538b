//! What people ask of a webhook. Its dead letters are changed by its task alone ([`Command`]); a
//! test delivery is posted beside it.

use std::sync::Arc;

use serde::Serialize;

use super::dead_letters::no_such_dead_letter;
use super::stats::Record;
use super::{Command, WebhookHandle, Webhooks, changed};
use crate::clock::now_ms;
use crate::consumers::Consumer;
use crate::store::ConsumerEdit;
use crate::wire::error::ApiError;
use crate::wire::json;

/// What a test delivery says.
const TEST_MESSAGE: &str =
    "A test of satwatch. Nothing happened on the chain; answer 2xx as to any event.";

/// What trying again led to.
#[derive(Debug, Clone, Copy)]
pub struct Retried {
    /// Events that waited.
    pub count: usize,
    /// It was stopped.
    pub resumed: bool,
    pub dead_letters: usize,
}

/// A test delivery.
pub struct Tested {
    pub record: Record,
    /// Events are not posted: the webhook is stopped.
    pub is_stopped: bool,
}

impl Webhooks {
    /// The task of a consumer that has a webhook.
    fn working(&self, consumer: &Consumer) -> Result<Arc<WebhookHandle>, ApiError> {
        if consumer.wants.webhook.is_none() {
            return Err(no_webhook(&consumer.name));
        }
        self.handle(&consumer.name).ok_or_else(changed)
    }

    /// Sends what waits now; a webhook that is stopped goes on.
    pub async fn retry(&self, consumer: &Consumer) -> Result<Retried, ApiError> {
        let handle = self.working(consumer)?;
        handle.ask(|answer| Command::Retry { answer }).await
    }

    /// Sends these dead letters, or all, again. How many.
    pub async fn resend(
        &self,
        consumer: &Consumer,
        numbers: Option<Vec<u64>>,
    ) -> Result<usize, ApiError> {
        let handle = self.working(consumer)?;
        let command = |answer| Command::Resend { numbers, answer };
        handle.ask(command).await
    }

    /// Forgets this dead letter, or all. How many.
    pub async fn drop_dead_letters(
        &self,
        consumer: &Consumer,
        number: Option<u64>,
    ) -> Result<usize, ApiError> {
        if consumer.wants.webhook.is_none() {
            return self.drop_without_webhook(consumer, number).await;
        }
        // While its task is about to begin nothing else may write its rows.
        let handle = self.working(consumer)?;
        let command = |answer| Command::Drop { number, answer };
        handle.ask(command).await
    }

    /// Of a consumer that had a webhook once. Nobody else writes its dead letters.
    async fn drop_without_webhook(
        &self,
        consumer: &Consumer,
        number: Option<u64>,
    ) -> Result<usize, ApiError> {
        let name = consumer.name.clone();
        let count = self.read(move |reader| match number {
            Some(number) => {
                let letter = reader.dead_letter(&name, number)?;
                letter.map(|_| 1).ok_or_else(no_such_dead_letter)
            }
            None => Ok(reader.dead_letter_count(&name)?),
        });
        let count = count.await?;
        let edit = number.map_or(ConsumerEdit::DropDeadLetters, ConsumerEdit::DropDeadLetter);
        match consumer.edit(vec![edit]).await? {
            true => Ok(count),
            false => Err(changed()),
        }
    }

    /// Posts something that is not in the log.
    pub async fn test(&self, consumer: &Consumer) -> Result<Tested, ApiError> {
        #[derive(Serialize)]
        struct Body<'a> {
            consumer: &'a str,
            cursor: Option<&'a str>,
            event: &'static str,
            data: Data,
        }
        #[derive(Serialize)]
        struct Data {
            message: &'static str,
            timestamp: f64,
        }
        let name = &consumer.name;
        let webhook = consumer.wants.webhook.as_ref();
        let webhook = webhook.ok_or_else(|| no_webhook(name))?;
        let handle = self.working(consumer)?;
        let _testing = handle.testing.try_acquire().map_err(|_| tested_now(name))?;
        let (began, id) = (now_ms(), format!("{name}_test_{}", random_hex()?));
        let body = json::to_text(&Body {
            consumer: name,
            cursor: None,
            event: "test",
            data: Data {
                message: TEST_MESSAGE,
                timestamp: json::seconds(began),
            },
        });
        let outcome = self.sender().post(webhook, &id, body, began / 1000).await;
        let is_stopped = handle.stats().stopped.is_some();
        Ok(Tested {
            record: Record::new(id, began, &outcome),
            is_stopped,
        })
    }
}

fn no_webhook(name: &str) -> ApiError {
    let message =
        format!("{name} has no webhook, so there is nowhere to post to; PUT it with a \"url\".");
    ApiError::conflict("no_webhook", message)
}

fn tested_now(name: &str) -> ApiError {
    let message = format!("A test of {name} is on its way; ask again when it is answered.");
    ApiError {
        retry_after: Some(1),
        ..ApiError::new(
            hyper::StatusCode::TOO_MANY_REQUESTS,
            "too_many_requests",
            message,
        )
    }
}

fn random_hex() -> Result<String, ApiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|cause| ApiError::internal(&cause))?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}
