//! Building answers.
//!
//! Every answer of a route says in `Satwatch-Cursor` up to where in the event log it has seen: what
//! it says includes all of that, and going on from there misses nothing.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::error::ApiError;
use super::json;

pub type Answer = Response<Full<Bytes>>;

pub const CURSOR: HeaderName = HeaderName::from_static("satwatch-cursor");

/// A JSON answer. Never stored by caches: the next block or transaction makes it old.
pub fn json(status: StatusCode, shape: &impl Serialize) -> Answer {
    let mut answer = body(status, "application/json", json::to_text(shape));
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A JSON answer that includes everything up to `cursor`.
pub fn json_at(status: StatusCode, cursor: &str, shape: &impl Serialize) -> Answer {
    let mut answer = json(status, shape);
    set_cursor(&mut answer, cursor);
    answer
}

pub fn error(error: &ApiError) -> Answer {
    let mut answer = json(error.status, error);
    if let Some(allow) = error.allow {
        answer
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(seconds) = error.retry_after {
        answer
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(restart) = &error.restart {
        set_cursor(&mut answer, &restart.cursor);
    }
    answer
}

/// Does nothing when the answer has one already.
pub fn set_cursor(answer: &mut Answer, cursor: &str) {
    let value = HeaderValue::from_str(cursor).expect("a log id and a number are a header's text");
    answer.headers_mut().entry(CURSOR).or_insert(value);
}

pub fn body(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
