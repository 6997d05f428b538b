//! The headers that let a page of another origin read our answers.
//!
//! They protect nothing: a browser sends the request all the same, and WebSockets know no CORS.
//! That is what `Config::allow` is for.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_LENGTH, HeaderMap,
    HeaderValue, ORIGIN, VARY,
};
use hyper::{Response, StatusCode};

/// Which origins may read answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    Any,
    /// Exactly these, as browsers write them: `https://example.org`.
    These(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    pub origins: Origins,
    /// Whether the page's requests may carry cookies. The answer then names the origin, because
    /// browsers refuse `*` with cookies.
    pub credentials: bool,
}

impl Cors {
    /// Puts the headers on any answer, refusals included: without them the browser hides the answer
    /// from its page.
    pub(super) fn mark(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        let allowed = match &self.origins {
            Origins::Any if !self.credentials => Some(HeaderValue::from_static("*")),
            Origins::Any => origin.cloned(),
            Origins::These(origins) => origin
                .filter(|origin| origins.iter().any(|allowed| allowed == *origin))
                .cloned(),
        };
        if self.origins != Origins::Any || self.credentials {
            answer.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(allowed) = allowed else { return };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            answer.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
    }

    /// The answer to `OPTIONS`; no session is touched.
    pub(super) fn preflight(&self, request: &HeaderMap) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST"),
        );
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        if let Some(asked) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            headers.append(
                VARY,
                HeaderValue::from_static("Access-Control-Request-Headers"),
            );
        }
        response
    }
}

/// A request's origin.
pub(super) fn origin(request: &HeaderMap) -> Option<HeaderValue> {
    request.get(ORIGIN).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(cors: &Cors, origin: Option<&'static str>) -> (Option<String>, bool, bool) {
        let mut headers = HeaderMap::new();
        cors.mark(origin.map(HeaderValue::from_static).as_ref(), &mut headers);
        let allowed = headers
            .get(ACCESS_CONTROL_ALLOW_ORIGIN)
            .map(|value| value.to_str().expect("text").to_owned());
        (
            allowed,
            headers.contains_key(VARY),
            headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS),
        )
    }

    #[test]
    fn an_answer_names_the_origins_that_may_read_it() {
        let any = Cors {
            origins: Origins::Any,
            credentials: false,
        };
        assert_eq!(
            marked(&any, Some("http://a")),
            (Some("*".into()), false, false)
        );
        let any = Cors {
            origins: Origins::Any,
            credentials: true,
        };
        assert_eq!(
            marked(&any, Some("http://a")),
            (Some("http://a".into()), true, true),
            "never `*` with credentials"
        );
        assert_eq!(marked(&any, None), (None, true, false));
        let these = Cors {
            origins: Origins::These(vec!["http://a".into(), "http://b".into()]),
            credentials: true,
        };
        assert_eq!(
            marked(&these, Some("http://b")),
            (Some("http://b".into()), true, true)
        );
        assert_eq!(
            marked(&these, Some("http://c")),
            (None, true, false),
            "an answer to one origin must not be kept for another"
        );
    }
}
