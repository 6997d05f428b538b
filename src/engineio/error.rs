//! Refusals of a request and their exact answers; why a session ends.
//!
//! Over polling: JSON `{"code": number, "message": text}`. A refused WebSocket handshake: the bare
//! message as `text/html` and the end of the connection. Codes and texts are those of the reference
//! server; the protocol document only asks for a 400.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_VERSION};
use hyper::{Response, StatusCode};
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("Transport unknown")]
    TransportUnknown,
    #[error("Session ID unknown")]
    SessionUnknown,
    #[error("Bad handshake method")]
    BadHandshakeMethod,
    #[error("Bad request")]
    BadRequest,
    #[error("Unsupported protocol version")]
    UnsupportedVersion,
    /// The body is longer than `max_payload`.
    #[error("Payload too large")]
    TooLarge,
    /// The body did not come in time.
    #[error("Request timeout")]
    BodyTimeout,
    /// All clients together have too much on its way in.
    #[error("Too much to receive")]
    Busy,
    /// No room for another session, or the service is ending.
    #[error("Too many sessions")]
    Unavailable,
}

/// Why a session ended; the words are those of the reference server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CloseReason {
    #[error("transport error")]
    TransportError,
    #[error("transport close")]
    TransportClose,
    #[error("forced close")]
    ForcedClose,
    #[error("ping timeout")]
    PingTimeout,
    #[error("parse error")]
    ParseError,
    #[error("server shutting down")]
    ServerShuttingDown,
    /// The client does not read: its queue stayed full.
    #[error("slow consumer")]
    SlowConsumer,
}

#[derive(Serialize)]
struct ErrorBody {
    code: u8,
    message: String,
}

impl Refused {
    /// The protocol's error codes; refusals it has no code for are bad requests.
    fn code(&self) -> u8 {
        match self {
            Self::TransportUnknown => 0,
            Self::SessionUnknown => 1,
            Self::BadHandshakeMethod => 2,
            Self::BadRequest
            | Self::TooLarge
            | Self::BodyTimeout
            | Self::Busy
            | Self::Unavailable => 3,
            Self::UnsupportedVersion => 5,
        }
    }

    /// The answer to a polling request.
    pub(super) fn polling(&self) -> Response<Full<Bytes>> {
        let status = match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Busy | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        let body = serde_json::to_vec(&ErrorBody {
            code: self.code(),
            message: self.to_string(),
        })
        .unwrap_or_default();
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.retry_after(&mut response);
        response
    }

    /// The answer to a WebSocket handshake.
    pub(super) fn websocket(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.to_string()));
        *response.status_mut() = match self {
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        // RFC 6455, 4.4: what a client of another version needs to know.
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        self.retry_after(&mut response);
        response
    }

    fn retry_after(&self, response: &mut Response<Full<Bytes>>) {
        if matches!(self, Self::Busy | Self::Unavailable) {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn shown(response: Response<Full<Bytes>>) -> (u16, String, String) {
        let status = response.status().as_u16();
        let kind = response.headers()[CONTENT_TYPE]
            .to_str()
            .unwrap_or_default()
            .to_owned();
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a full body cannot fail")
            .to_bytes();
        (status, kind, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn refusals_have_the_reference_servers_status_and_body() {
        let table = [
            (
                Refused::TransportUnknown,
                400,
                r#"{"code":0,"message":"Transport unknown"}"#,
                400,
                "Transport unknown",
            ),
            (
                Refused::SessionUnknown,
                400,
                r#"{"code":1,"message":"Session ID unknown"}"#,
                400,
                "Session ID unknown",
            ),
            (
                Refused::BadHandshakeMethod,
                400,
                r#"{"code":2,"message":"Bad handshake method"}"#,
                400,
                "Bad handshake method",
            ),
            (
                Refused::BadRequest,
                400,
                r#"{"code":3,"message":"Bad request"}"#,
                400,
                "Bad request",
            ),
            (
                Refused::UnsupportedVersion,
                400,
                r#"{"code":5,"message":"Unsupported protocol version"}"#,
                400,
                "Unsupported protocol version",
            ),
            (
                Refused::TooLarge,
                413,
                r#"{"code":3,"message":"Payload too large"}"#,
                400,
                "Payload too large",
            ),
            (
                Refused::Unavailable,
                503,
                r#"{"code":3,"message":"Too many sessions"}"#,
                503,
                "Too many sessions",
            ),
        ];
        for (refused, status, json, ws_status, text) in table {
            assert_eq!(
                shown(refused.polling()).await,
                (status, "application/json".into(), json.into()),
                "{refused:?}"
            );
            assert_eq!(
                shown(refused.websocket()).await,
                (ws_status, "text/html".into(), text.into()),
                "{refused:?}"
            );
        }
    }
}
