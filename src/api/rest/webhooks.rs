//! Webhooks over REST: dead letters, a test delivery, another try.

use std::collections::BTreeSet;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::consumers::ConsumerRoutes;
use super::respond::{self, Reply};
use crate::consumers::consumer_name;
use crate::store::DeadLetter;
use crate::webhooks::{Record, Retried, Tested};
use crate::wire::EventEncoder;
use crate::wire::cursor::{self, BadCursor};
use crate::wire::error::ApiError;
use crate::wire::json::{self, seconds};
use crate::wire::request::Request;
use crate::wire::request::types::Limit;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MOST: u32 = 1000;
/// Cursors in one request.
const CURSORS_MOST: usize = 10_000;

/// `GET /consumers/{name}/dead_letters`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListDeadLetters {
    /// 100 when absent.
    limit: Option<Limit<LIMIT_MOST>>,
    /// The `next` of the page before.
    after: Option<String>,
}

impl Request for ListDeadLetters {}

/// `DELETE /consumers/{name}/dead_letters`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DropDeadLetters {
    /// All of them without one.
    cursor: Option<String>,
}

impl Request for DropDeadLetters {}

/// `POST /consumers/{name}/dead_letters/resend`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResendDeadLetters {
    /// All of them without any.
    cursors: Option<Cursors>,
}

impl Request for ResendDeadLetters {
    const EXAMPLE: &'static str = "{\"cursors\": [\"<cursor>\", …]}";
}

/// Cursors of dead letters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<String>")]
struct Cursors(#[schemars(length(min = 1, max = CURSORS_MOST))] Vec<String>);

impl TryFrom<Vec<String>> for Cursors {
    type Error = String;

    fn try_from(cursors: Vec<String>) -> Result<Self, String> {
        match cursors.len() {
            1..=CURSORS_MOST => Ok(Self(cursors)),
            length => Err(format!(
                "an array of 1 to {CURSORS_MOST} strings, not {length}"
            )),
        }
    }
}

/// A page of dead letters, oldest first.
#[derive(Serialize, JsonSchema)]
pub struct DeadLetterPage {
    count: usize,
    dead_letters: Vec<DeadLetterShape>,
    /// On all pages.
    total: usize,
    /// The `after` of the next page; `null` on the last one.
    next: Option<String>,
}

/// An event that the receiver did not take in the time that it has.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeadLetter")]
struct DeadLetterShape {
    cursor: String,
    /// Its name.
    event: &'static str,
    /// As subscribers got it.
    data: Box<RawValue>,
    attempts: u32,
    /// Seconds since the Unix epoch.
    first_failed: f64,
    /// Seconds since the Unix epoch.
    last_tried: f64,
    error: String,
    /// It is sent again.
    resending: bool,
}

/// How many are concerned.
#[derive(Serialize, JsonSchema)]
pub struct Counted {
    count: usize,
    message: String,
}

/// The answer of a receiver to a test.
#[derive(Serialize, JsonSchema)]
pub struct TestedWebhook {
    delivered: bool,
    #[serde(flatten)]
    attempt: Record,
    message: String,
}

/// `GET /consumers/{name}/dead_letters?limit=&after=`
pub async fn dead_letters(
    routes: &ConsumerRoutes,
    name: &str,
    query: ListDeadLetters,
) -> Result<Reply<DeadLetterPage>, ApiError> {
    let consumer = routes.consumers.get(consumer_name(name)?)?;
    let limit = query.limit.map_or(LIMIT_DEFAULT, Limit::get);
    let encoder = &routes.reads.encoder;
    let after = query
        .after
        .map_or(Ok(0), |text| number_of(encoder, &text))?;
    let page = routes.reads.run(move |view| {
        let (reader, encoder) = (view.reader, view.encoder);
        let total = reader.dead_letter_count(&consumer.name)?;
        let letters = reader.dead_letters(&consumer.name, after);
        let letters = letters.take(limit.saturating_add(1));
        let mut letters = letters.collect::<Result<Vec<_>, _>>()?;
        let more = letters.len() > limit;
        letters.truncate(limit);
        let last = letters.last().filter(|_| more);
        let next = last.map(|(number, _)| encoder.cursor(*number));
        let shapes = letters.into_iter();
        let shapes = shapes.map(|(number, letter)| letter_shape(encoder, number, letter));
        let dead_letters = shapes.collect::<Result<Vec<_>, _>>()?;
        Ok(DeadLetterPage {
            count: dead_letters.len(),
            dead_letters,
            total,
            next,
        })
    });
    Ok(respond::ok(&page.await?))
}

fn letter_shape(
    encoder: &EventEncoder,
    number: u64,
    letter: DeadLetter,
) -> Result<DeadLetterShape, ApiError> {
    let cursor = encoder.cursor(number);
    let (event, data) = json::event(&letter.event, cursor.clone(), encoder.network);
    Ok(DeadLetterShape {
        cursor,
        event,
        data: RawValue::from_string(data).map_err(|cause| ApiError::internal(&cause))?,
        attempts: letter.failing.attempts,
        first_failed: seconds(letter.failing.first_failed),
        last_tried: seconds(letter.failing.last_tried),
        error: letter.error,
        resending: letter.again,
    })
}

/// `DELETE /consumers/{name}/dead_letters?cursor=`
pub async fn drop_dead_letters(
    routes: &ConsumerRoutes,
    name: &str,
    query: DropDeadLetters,
) -> Result<Reply<Counted>, ApiError> {
    let consumer = routes.consumers.get(consumer_name(name)?)?;
    let number = query
        .cursor
        .map(|text| number_of(&routes.reads.encoder, &text))
        .transpose()?;
    let count = routes.webhooks.drop_dead_letters(&consumer, number).await?;
    let message = match count {
        0 => "There are no dead letters; nothing was deleted.".to_owned(),
        1 => "The dead letter is deleted.".to_owned(),
        _ => format!("{count} dead letters are deleted."),
    };
    Ok(respond::ok(&Counted { count, message }))
}

/// `POST /consumers/{name}/dead_letters/resend`
pub async fn resend_dead_letters(
    routes: &ConsumerRoutes,
    name: &str,
    asked: ResendDeadLetters,
) -> Result<Reply<Counted>, ApiError> {
    let consumer = routes.consumers.get(consumer_name(name)?)?;
    let number = |text: &String| number_of(&routes.reads.encoder, text);
    let numbers = asked
        .cursors
        .map(|Cursors(texts)| texts.iter().map(number).collect());
    let numbers: Option<BTreeSet<u64>> = numbers.transpose()?;
    let numbers = numbers.map(|numbers| numbers.into_iter().collect());
    let count = routes.webhooks.resend(&consumer, numbers).await?;
    let message = match count {
        0 => format!(
            "There are no dead letters; nothing is sent. What failed and is tried again by itself is sent now with POST /consumers/{name}/retry."
        ),
        1 => "The dead letter is sent again, also after a restart; when the receiver takes it, it disappears from the list.".to_owned(),
        _ => format!(
            "{count} dead letters are sent again, also after a restart; those that the receiver takes disappear from the list."
        ),
    };
    Ok(counted(count, message))
}

/// `POST /consumers/{name}/retry`
pub async fn retry_webhook(
    routes: &ConsumerRoutes,
    name: &str,
) -> Result<Reply<Counted>, ApiError> {
    let consumer = routes.consumers.get(consumer_name(name)?)?;
    let retried = routes.webhooks.retry(&consumer).await?;
    Ok(counted(retried.count, retried_message(name, retried)))
}

/// `POST /consumers/{name}/test`
pub async fn test_webhook(
    routes: &ConsumerRoutes,
    name: &str,
) -> Result<Reply<TestedWebhook>, ApiError> {
    let consumer = routes.consumers.get(consumer_name(name)?)?;
    let Tested { record, is_stopped } = routes.webhooks.test(&consumer).await?;
    let message = match &record.error {
        Some(error) => format!("The test was not delivered: {error}."),
        None if is_stopped => format!(
            "The receiver took the test, but the webhook is stopped; POST /consumers/{name}/retry resumes it."
        ),
        None => "The receiver took the test.".to_owned(),
    };
    let delivered = record.error.is_none();
    Ok(respond::ok(&TestedWebhook {
        delivered,
        attempt: record,
        message,
    }))
}

/// The number of a dead letter's cursor, which may be older than the log.
fn number_of(encoder: &EventEncoder, text: &str) -> Result<u64, ApiError> {
    let refused = |code, status| {
        ApiError::new(
            status,
            code,
            "This is not a cursor of a dead letter here; send one as the list carried it.",
        )
    };
    cursor::read(&encoder.starts(), text).map_err(|bad| match bad {
        BadCursor::Malformed => refused("invalid_cursor", StatusCode::BAD_REQUEST),
        BadCursor::Unknown => refused("cursor_unknown", StatusCode::GONE),
    })
}

fn counted(count: usize, message: String) -> Reply<Counted> {
    let status = if count == 0 {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Reply::json(status, &Counted { count, message })
}

fn retried_message(name: &str, retried: Retried) -> String {
    let resumed = if retried.resumed {
        "The webhook, which was stopped, goes on. "
    } else {
        ""
    };
    let waiting = match retried.count {
        0 => "Nothing waits to be sent.".to_owned(),
        1 => format!("One event waits and is tried now; GET /consumers/{name} shows the answer."),
        count => {
            format!(
                "{count} events wait and are tried now; GET /consumers/{name} shows the answers."
            )
        }
    };
    let dead = match retried.dead_letters {
        0 => String::new(),
        count => format!(
            " Dead letters ({count}) are sent with POST /consumers/{name}/dead_letters/resend only."
        ),
    };
    format!("{resumed}{waiting}{dead}")
}
