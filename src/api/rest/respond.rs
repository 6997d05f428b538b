//! Building answers.
//!
//! Every answer of a route says in `Satwatch-Cursor` up to where in the event log it has seen: what
//! it says includes all of that, and going on from there misses nothing.
//!
//! What looks like a type is a [`Reply`] of it: a route cannot answer with anything else than its
//! row says.

use std::marker::PhantomData;

use bytes::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Response, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;

use super::body::AnswerBody;
use super::budget::Budget;
use crate::wire::error::ApiError;
use crate::wire::json::to_text;

pub type Answer = Response<AnswerBody>;

pub const CURSOR: HeaderName = HeaderName::from_static("satwatch-cursor");

/// A JSON answer. Never stored by caches: the next block or transaction makes it old.
pub fn json(status: StatusCode, shape: &impl Serialize) -> Answer {
    json_text(status, AnswerBody::whole(to_text(shape)))
}

/// The answer of a route, which looks like a `T`.
pub struct Reply<T> {
    pub answer: Answer,
    shape: PhantomData<fn() -> T>,
}

impl<T> Reply<T> {
    /// `answer`: put together without a `T`, as one looks.
    pub fn written(answer: Answer) -> Self {
        Self {
            answer,
            shape: PhantomData,
        }
    }

    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.answer.headers_mut()
    }
}

impl<T: Serialize> Reply<T> {
    pub fn json(status: StatusCode, shape: &T) -> Self {
        Self::written(json(status, shape))
    }
}

pub fn ok<T: Serialize>(shape: &T) -> Reply<T> {
    Reply::json(StatusCode::OK, shape)
}

/// The same of what includes everything up to `cursor`.
pub fn ok_at<T: Serialize>(cursor: &str, shape: &T) -> Reply<T> {
    let mut reply = ok(shape);
    set_cursor(&mut reply.answer, cursor);
    reply
}

// What says in its last field up to where in the log it has seen. In the contract it is described
// as what it holds.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "{T}WithCursor")]
pub struct WithCursor<T> {
    #[serde(flatten)]
    shape: T,
    /// It includes every event up to this one.
    cursor: String,
}

/// The media type of `GET /events/stream`.
pub const EVENT_STREAM: &str = "text/event-stream";

/// The same, which says so in its last field, too.
pub fn with_cursor<T: Serialize>(
    status: StatusCode,
    cursor: &str,
    shape: T,
) -> Reply<WithCursor<T>> {
    let shape = WithCursor {
        shape,
        cursor: cursor.to_owned(),
    };
    let mut reply = Reply::json(status, &shape);
    set_cursor(&mut reply.answer, cursor);
    reply
}

/// What was done, in a sentence for a person.
#[derive(Serialize, JsonSchema)]
pub struct Done {
    pub message: String,
}

/// A JSON answer of what is text already, or will be.
pub fn json_text(status: StatusCode, body: AnswerBody) -> Answer {
    text(status, "application/json", body)
}

/// What the next block or transaction makes old, of another type.
pub fn text(status: StatusCode, content_type: &'static str, body: AnswerBody) -> Answer {
    let mut answer = with_body(status, content_type, body);
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Counts what an answer holds until its client has taken it. `may_refuse`: it is refused if there
/// is no room for it.
pub fn charge(answer: &mut Answer, budget: &Budget, may_refuse: bool) -> Result<(), ApiError> {
    let (mut charge, weight) = (budget.charge(), answer.body().weight());
    if may_refuse {
        charge.try_grow(weight)?;
    } else {
        charge.grow(weight);
    }
    answer.body_mut().hold(charge);
    Ok(())
}

pub fn error(error: &ApiError) -> Answer {
    let mut answer = json(error.status, error);
    if let Some(allow) = &error.allow {
        set_allow(&mut answer, allow);
    }
    if let Some(seconds) = error.retry_after {
        answer
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.status == StatusCode::UNAUTHORIZED {
        let value = HeaderValue::from_static("Bearer realm=\"satwatch\"");
        answer.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    if let Some(restart) = &error.restart {
        set_cursor(&mut answer, &restart.cursor);
    }
    answer
}

/// The methods that a path takes.
pub fn set_allow(answer: &mut Answer, allow: &str) {
    let value = HeaderValue::from_str(allow).expect("names of methods are a header's text");
    answer.headers_mut().insert(ALLOW, value);
}

/// Does nothing when the answer has one already.
pub fn set_cursor(answer: &mut Answer, cursor: &str) {
    let value = HeaderValue::from_str(cursor).expect("a log id and a number are a header's text");
    answer.headers_mut().entry(CURSOR).or_insert(value);
}

pub fn body(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    with_body(StatusCode::OK, content_type, AnswerBody::whole(body))
}

fn with_body(status: StatusCode, content_type: &'static str, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
