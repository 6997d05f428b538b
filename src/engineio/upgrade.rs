//! The headers of a WebSocket handshake (RFC 6455, 4.2).

use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Whether a request asks for the WebSocket protocol, well or badly.
pub(super) fn is_wanted<B>(request: &Request<B>) -> bool {
    has_token(request.headers(), &UPGRADE, "websocket")
}

/// The `Sec-WebSocket-Accept` of a handshake that is right in all points (RFC 6455, 4.2.1).
pub(super) fn accept<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let key = headers.get(SEC_WEBSOCKET_KEY)?;
    let right = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && is_wanted(request)
        && has_token(headers, &CONNECTION, "upgrade")
        && headers
            .get(SEC_WEBSOCKET_VERSION)
            .is_some_and(|version| version == "13")
        && is_key(key.as_bytes());
    right
        .then(|| HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok())
        .flatten()
}

/// The headers of a 101.
pub(super) fn accepted(accept: HeaderValue) -> [(HeaderName, HeaderValue); 3] {
    [
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ]
}

/// 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    use base64::Engine;
    let mut bytes = [0; 18];
    key.len() == 24
        && base64::engine::general_purpose::STANDARD
            .decode_slice(key, &mut bytes)
            .is_ok_and(|count| count == 16)
}

/// Whether a comma-separated header has this word in it.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: &str) -> Request<()> {
        let mut request = Request::builder()
            .method(if change == "method" { "POST" } else { "GET" })
            .version(if change == "version" {
                Version::HTTP_10
            } else {
                Version::HTTP_11
            });
        let headers = [
            ("upgrade", "WebSocket", "h2c"),
            ("connection", "keep-alive, Upgrade", "keep-alive"),
            ("sec-websocket-version", "13", "8"),
            (
                "sec-websocket-key",
                "dGhlIHNhbXBsZSBub25jZQ==",
                "dGhlIHNhbXBsZSBub25j",
            ),
        ];
        for (name, good, bad) in headers {
            request = request.header(name, if change == name { bad } else { good });
        }
        request.body(()).expect("all parts are legal")
    }

    #[test]
    fn a_handshake_is_right_in_all_points_or_refused() {
        assert_eq!(
            accept(&request("")).expect("the example of RFC 6455, 1.3"),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        for change in [
            "method",
            "version",
            "upgrade",
            "connection",
            "sec-websocket-version",
            "sec-websocket-key",
        ] {
            assert!(accept(&request(change)).is_none(), "{change}");
        }
    }

    #[test]
    fn a_key_is_sixteen_bytes() {
        assert!(is_key(b"AAAAAAAAAAAAAAAAAAAAAA=="));
        for bad in [
            "",
            "AAAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAA===",
            "!!!!!!!!!!!!!!!!!!!!!!==",
            "é",
        ] {
            assert!(!is_key(bad.as_bytes()), "{bad}");
        }
    }
}
