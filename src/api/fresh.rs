//! How new an answer is: reading one's own tip with `min_cursor`, and `ETag` for clients that ask
//! again and again.
//!
//! `?min_cursor=<cursor>`: the answer waits (`wait` seconds at most) until the state includes
//! everything up to that cursor. Events are committed before anybody hears of them, so a client
//! with a cursor that this daemon gave out never waits. Only one that computes the cursor of an
//! event that is still to come does.
//!
//! An `ETag` is the hash of an answer without its cursor: it stays the same while the log grows by
//! what does not concern the answer. It is weak, because the bodies of two such answers differ in
//! their cursor. Who is told 304 keeps its body; going on from that body's cursor and from the
//! newer one in the 304's `Satwatch-Cursor` lead to the same state.

use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Method, StatusCode};
use tokio::sync::SemaphorePermit;

use super::App;
use super::error::ApiError;
use super::request::types::Wait;
use super::respond::Answer;

/// `min_cursor` waits this long when nobody says how long.
const WAIT_DEFAULT: Duration = Duration::from_secs(5);
/// Bytes of the hash that a tag shows.
const TAG: usize = 16;

impl App {
    /// Waits until the state includes `min_cursor`, if there is one.
    pub(super) async fn reach(
        &self,
        min_cursor: Option<&str>,
        wait: Option<Wait>,
    ) -> Result<(), ApiError> {
        let Some(text) = min_cursor else {
            return Ok(());
        };
        let wait = wait.map_or(WAIT_DEFAULT, Wait::seconds);
        let number = self.number(text)?;
        if number <= self.reader.snapshot().head()? {
            return Ok(());
        }
        let _waiting = self.may_wait()?;
        let mut head = self.indexer.head();
        tokio::select! {
            biased;
            reached = head.wait_for(|head| *head >= number) => reached.map(drop).map_err(|_| ApiError::stopping()),
            () = self.stop.cancelled() => Err(ApiError::stopping()),
            () = tokio::time::sleep(wait) => Err(not_yet()),
        }
    }

    /// To be held by a request that waits for news. HTTP/2 carries many requests on one connection,
    /// so connections bound them too little.
    pub(super) fn may_wait(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        let message = "Too many requests wait for news already (as many as limits.connections allows connections); use Socket.IO, or try again later.";
        let full = |_| ApiError {
            retry_after: Some(1),
            ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_waiting", message)
        };
        self.waiting.try_acquire().map_err(full)
    }

    pub(super) fn waiting_requests(&self) -> usize {
        self.config
            .limits
            .connections
            .saturating_sub(self.waiting.available_permits())
    }
}

fn not_yet() -> ApiError {
    let message = "The daemon's state does not include this min_cursor yet; ask again later, or without min_cursor for what it knows now.";
    ApiError {
        retry_after: Some(1),
        ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_yet", message)
    }
}

/// The `ETag` of an answer whose last field is `cursor`.
pub fn tag(text: &str) -> HeaderValue {
    let content = text
        .rsplit_once(",\"cursor\":")
        .map_or(text, |(content, _)| content);
    let hash = sha256::Hash::hash(content.as_bytes()).to_string();
    let tag = format!("W/\"{}\"", hash.get(..TAG * 2).unwrap_or_default());
    HeaderValue::from_str(&tag).expect("hex digits in quotes are a header's text")
}

/// The condition of a request.
#[derive(Debug, Default)]
pub struct Condition(Vec<HeaderValue>);

impl Condition {
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        match *method {
            Method::GET | Method::HEAD => {
                Self(headers.get_all(IF_NONE_MATCH).iter().cloned().collect())
            }
            _ => Self::default(),
        }
    }

    /// The answer, or 304 without a body when the client has it already.
    pub fn apply(&self, mut answer: Answer) -> Answer {
        let Some(tag) = answer.headers().get(ETAG) else {
            return answer;
        };
        if answer.status() == StatusCode::OK
            && self
                .0
                .iter()
                .any(|list| names(list.as_bytes(), tag.as_bytes()))
        {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            *answer.body_mut() = Full::default();
            answer.headers_mut().remove(CONTENT_TYPE);
        }
        answer
    }
}

/// Whether a value of `If-None-Match` names this tag or any (`*`); compared weakly (RFC 9110,
/// 8.8.3.2 and 13.1.2). From the first malformed element on a list names nothing.
fn names(list: &[u8], tag: &[u8]) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let opaque = |tag: &'_ [u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    let wanted = opaque(tag);
    let mut rest = list;
    loop {
        let is_between = |byte: &u8| matches!(byte, b' ' | b'\t' | b',');
        let skipped = rest.iter().take_while(|byte| is_between(byte)).count();
        rest = rest.get(skipped..).unwrap_or_default();
        let quoted = rest.strip_prefix(b"W/").unwrap_or(rest);
        let Some(text) = quoted.strip_prefix(b"\"") else {
            return false;
        };
        let Some(end) = text.iter().position(|byte| *byte == b'"') else {
            return false;
        };
        // With both quotes.
        if quoted.get(..end.saturating_add(2)) == Some(&wanted) {
            return true;
        }
        rest = text.get(end.saturating_add(1)..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_of_the_content_and_not_of_the_cursor() {
        let text = |balance: u32, cursor: &str| {
            format!("{{\"balance\":{balance},\"cursor\":\"{cursor}\"}}")
        };
        assert_eq!(tag(&text(1, "a-1")), tag(&text(1, "a-200")));
        assert_ne!(tag(&text(1, "a-1")), tag(&text(2, "a-1")));
        assert_eq!(
            tag(&text(1, "a-1")),
            "W/\"08b2a887bb053f08734bf117c0b1962d\""
        );
    }

    #[test]
    fn a_condition_names_a_tag_in_any_of_its_forms() {
        let tag = b"W/\"abc\"";
        for list in [
            "W/\"abc\"",
            "\"abc\"",
            "*",
            " * ",
            "\"x\", W/\"abc\"",
            "\"x\",\"abc\"",
            ",,\t\"abc\" ,",
            "\"a,b\", \"abc\"",
        ] {
            assert!(names(list.as_bytes(), tag), "{list}");
        }
        for list in [
            "",
            "abc",
            "W/abc",
            "\"abcd\"",
            "\"ab\"",
            "\"abc",
            "w/\"abc\"",
            "\"x\" y \"abc\"",
            "\"*\"",
            "*, \"x\"",
            "\"W/abc\"",
            "\"ABC\"",
            "W/",
        ] {
            assert!(!names(list.as_bytes(), tag), "{list}");
        }
        assert!(!names(b"\xff\"abc\"", tag));
        assert!(
            names(b"\"\xff\xfe\", \"abc\"", tag),
            "a tag may have any bytes above the ASCII ones"
        );
    }
}
