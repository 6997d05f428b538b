//! Building answers.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::error::ApiError;
use super::json;

pub type Answer = Response<Full<Bytes>>;

/// A JSON answer. Never stored by caches: the next block or transaction makes it old.
pub fn json(status: StatusCode, shape: &impl Serialize) -> Answer {
    let mut answer = body(status, "application/json", json::to_text(shape));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

pub fn error(error: &ApiError) -> Answer {
    let mut answer = json(error.status, error);
    if let Some(allow) = error.allow {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    answer
}

pub fn body(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
