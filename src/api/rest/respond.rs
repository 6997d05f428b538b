//! Building answers.
//!
//! Every answer of a route says in `Satwatch-Cursor` up to where in the event log it has seen: what
//! it says includes all of that, and going on from there misses nothing.

use bytes::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::body::AnswerBody;
use super::budget::Budget;
use crate::wire::error::ApiError;
use crate::wire::json::{object, to_text};

pub type Answer = Response<AnswerBody>;

pub const CURSOR: HeaderName = HeaderName::from_static("satwatch-cursor");

/// A JSON answer. Never stored by caches: the next block or transaction makes it old.
pub fn json(status: StatusCode, shape: &impl Serialize) -> Answer {
    json_text(status, AnswerBody::whole(to_text(shape)))
}

pub fn ok(shape: &impl Serialize) -> Answer {
    json(StatusCode::OK, shape)
}

/// The same of what includes everything up to `cursor`.
pub fn ok_at(cursor: &str, shape: &impl Serialize) -> Answer {
    let mut answer = ok(shape);
    set_cursor(&mut answer, cursor);
    answer
}

/// The media type of `GET /events/stream`.
pub const EVENT_STREAM: &str = "text/event-stream";

/// The same, which says so in its last field, too.
pub fn with_cursor(status: StatusCode, cursor: &str, shape: &impl Serialize) -> Answer {
    let mut answer = json(status, &object! { #[serde(flatten)] shape, cursor });
    set_cursor(&mut answer, cursor);
    answer
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
