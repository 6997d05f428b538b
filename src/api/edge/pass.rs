//! Passing a request on to the primary, and its answer back.

use bytes::Bytes;
use futures_util::stream;
use hyper::body::Body;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, COOKIE,
    HeaderName, HeaderValue, RETRY_AFTER, SET_COOKIE, USER_AGENT, WWW_AUTHENTICATE,
};
use hyper::header::{AUTHORIZATION, VARY};
use hyper::{HeaderMap, Method, Request, Response};
use percent_encoding::percent_decode_str;

use super::services::EdgeServices;
use crate::api::access::Caller;
use crate::api::credential;
use crate::api::rest::body::{AnswerBody, PART_BYTES};
use crate::api::rest::respond::{Answer, CURSOR};
use crate::api::rest::sent::read_to_pass_on;
use crate::api::rest::session;
use crate::api::session::{Asking, PAGE_KEY};
use crate::api::socket::Backend;
use crate::primary::{self, PrimaryAnswer};
use crate::wire::ApiError;

/// What the primary is told of a request. Neither `Host` nor `Origin`: which page asks is judged
/// here.
const TOLD: [HeaderName; 5] = [ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT, PAGE_KEY];
/// What goes back. What browsers are told is the edge's own.
const BACK: [HeaderName; 9] = [
    ALLOW,
    CACHE_CONTROL,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    CURSOR,
    RETRY_AFTER,
    SET_COOKIE,
    VARY,
    WWW_AUTHENTICATE,
];

impl EdgeServices {
    /// The primary's answer.
    pub async fn pass_on<B>(&self, caller: &Caller, request: Request<B>) -> Result<Answer, ApiError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (uri, asking) = (request.uri(), request.extensions().get::<Asking>().copied());
        let is_foreign = asking.is_none_or(|asking| asking.foreign);
        if request.method() == Method::POST && uri.path() == "/session" && is_foreign {
            return Err(session::not_of_our_page());
        }
        if !is_plain(uri.path()) {
            return Err(ApiError::no_such_route(uri.path()));
        }
        let path = uri
            .path_and_query()
            .map_or("/", |it| it.as_str())
            .to_owned();
        let method = request.method().clone();
        let is_secure = asking.is_some_and(|asking| asking.secure);
        let headers = self.told(request.headers());
        // Who is not known takes no room of those who are.
        let is_known = match request.body().is_end_stream() {
            true => false,
            false => {
                let admitted = self.backend.admit(credential(request.headers()), caller);
                admitted.await.is_ok()
            }
        };
        let (bytes, held) = read_to_pass_on(&self.intake, is_known, request).await?;
        let passed = primary::Request {
            method,
            path,
            headers,
            body: Some(bytes).filter(|it| !it.is_empty()),
        };
        let answered = self
            .backend
            .client
            .pass(passed.on_behalf_of(caller.address()))
            .await;
        drop(held);
        self.back(answered?, is_secure)
    }

    fn told(&self, headers: &HeaderMap) -> HeaderMap {
        let mut told = HeaderMap::new();
        for name in TOLD {
            for value in headers.get_all(&name) {
                let mut value = value.clone();
                value.set_sensitive(name == AUTHORIZATION || name == PAGE_KEY);
                told.append(name.clone(), value);
            }
        }
        // The router has left what may be ids of a session.
        let ids = headers.get(COOKIE).and_then(|value| value.to_str().ok());
        let cookie = ids.map(|ids| primary::cookies(&self.backend.primary.borrow().cookie, ids));
        if let Some(Ok(mut value)) = cookie.map(HeaderValue::try_from) {
            value.set_sensitive(true);
            told.insert(COOKIE, value);
        }
        told.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        told
    }

    /// Its bytes as they come.
    fn back(&self, answer: PrimaryAnswer, is_secure: bool) -> Result<Answer, ApiError> {
        let status = answer.status();
        let mut headers = HeaderMap::new();
        for name in BACK {
            for value in answer.headers().get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
        if let Some(cookie) = headers.get(SET_COOKIE).filter(|_| is_secure) {
            // It was asked over plain HTTP, the client over TLS.
            let text = cookie.to_str().unwrap_or_default();
            let with_secure = match text.ends_with("; Secure") {
                true => text.to_owned(),
                false => format!("{text}; Secure"),
            };
            if let Ok(value) = HeaderValue::try_from(with_secure) {
                headers.insert(SET_COOKIE, value);
            }
        }
        let parts = stream::try_unfold(answer, async |mut answer: PrimaryAnswer| {
            let part = answer.part().await?;
            Ok(part.map(|part| (part, answer)))
        });
        let mut answer = Response::new(AnswerBody::unending(parts, PART_BYTES));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}

/// Whether a URL with this path asks for the same: no part of it is one that URLs leave out.
fn is_plain(path: &str) -> bool {
    let parts = path
        .split('/')
        .map(|part| percent_decode_str(part).decode_utf8_lossy());
    !path.contains('\\') && parts.into_iter().all(|part| part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_urls_shorten_is_not_passed_on() {
        for (path, is) in [
            ("/balance/abc", true),
            ("/balance/", true),
            ("/balance/a.b..c", true),
            ("/balance/..", false),
            ("/balance/%2e%2E", false),
            ("/balance/.%2e/edge", false),
            ("/balance/..\\edge", false),
            ("/balance/.", false),
        ] {
            assert_eq!(is_plain(path), is, "{path}");
        }
    }
}
