//! What people ask of a webhook. Its dead letters are changed by its task alone ([`Command`]); a
//! test delivery is posted beside it.

use std::sync::Arc;

use hyper::StatusCode;

use super::dead_letters::forget;
use super::sender::Record;
use super::{Command, WebhookHandle, Webhooks, body, changed};
use crate::clock::now_ms;
use crate::consumers::Consumer;
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
        let (handle, if_stopped) = (self.working(consumer)?, false);
        let command = |answer| Command::Retry { if_stopped, answer };
        handle.ask(command).await
    }

    /// Resumes a webhook that is stopped, if it is.
    pub async fn resume(&self, name: &str) -> Result<(), ApiError> {
        // Its task knows; what it shows it may not have read yet.
        if let Some(handle) = self.handle(name) {
            let if_stopped = true;
            let command = |answer| Command::Retry { if_stopped, answer };
            handle.ask(command).await?;
        }
        Ok(())
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
            // It had one once; nobody else writes its dead letters.
            return forget(self, consumer, number).await;
        }
        // While its task is about to begin nothing else may write its rows.
        let handle = self.working(consumer)?;
        let command = |answer| Command::Drop { number, answer };
        handle.ask(command).await
    }

    /// Posts something that is not in the log.
    pub async fn test(&self, consumer: &Consumer) -> Result<Tested, ApiError> {
        let name = &consumer.name;
        let webhook = consumer.wants.webhook.as_ref();
        let webhook = webhook.ok_or_else(|| no_webhook(name))?;
        let handle = self.working(consumer)?;
        let _testing = handle.testing.try_acquire().map_err(|_| tested_now(name))?;
        let timestamp = json::seconds(now_ms());
        let data = serde_json::json!({ "message": TEST_MESSAGE, "timestamp": timestamp });
        let id = format!("{name}_test_{}", random_hex()?);
        let body = body(name, None, "test", data.to_string())?;
        let (record, _) = self.sender().post(webhook, id, body).await;
        let is_stopped = handle.stats().stopped.is_some();
        Ok(Tested { record, is_stopped })
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
        ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
    }
}

fn random_hex() -> Result<String, ApiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|cause| ApiError::internal(&cause))?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}
