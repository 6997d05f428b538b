//! What a client hears when its request is refused: one type, which becomes an HTTP answer or a
//! Socket.IO object in one place.
//!
//! On the wire it is `{"error": "<sentence>", "code": "<stable_snake_case>"}` in both protocols.
//! The sentence is for a person and says what to do; programs look at the code, which never changes
//! its meaning. Causes inside the daemon go to the log, not here. A cursor that is not good any
//! more (`cursor_unknown`, `cursor_expired`) comes with where to go on: [`Restart`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use hyper::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error_codes::{ErrorCode, is_listed, listed};
use super::json::Balance;
pub use super::secret::shortened;
use crate::socketio::EncodeError;
use crate::store::StoreError;

/// A refused request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub code: &'static str,
    pub status: StatusCode,
    pub message: String,
    /// The `Allow` header of a 405.
    pub allow: Option<String>,
    /// Seconds: the `Retry-After` header.
    pub retry_after: Option<u32>,
    /// The setting that would be exceeded, beside `error` and `code`.
    pub limit: Option<&'static str>,
    /// Beside `error` and `code` when a cursor is not good any more.
    pub restart: Option<Box<Restart>>,
    /// All of it, as the primary of an edge wrote it.
    pub written: Option<Box<Written>>,
}

/// The fields of an object, each of which goes on as it came.
#[derive(Debug, Clone, Deserialize)]
pub struct Written(BTreeMap<String, Box<RawValue>>);

impl PartialEq for Written {
    fn eq(&self, other: &Self) -> bool {
        let fields = |it: &Self| -> Vec<(String, String)> {
            let fields = it.0.iter();
            let texts = fields.map(|(name, value)| (name.clone(), value.get().to_owned()));
            texts.collect()
        };
        fields(self) == fields(other)
    }
}

/// What of a refusal of the primary is looked at here; the rest goes on as it came.
#[derive(Deserialize)]
struct ReadError {
    error: String,
    code: String,
    cursor: Option<String>,
    first: Option<String>,
}

/// Where a reader whose cursor is not good any more goes on.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Restart {
    /// What the balances say includes everything up to here.
    pub cursor: String,
    /// The oldest cursor that can still be read after.
    pub first: String,
    /// Of the addresses that were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balances: Option<Vec<Balance>>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(is_listed(code), "{code} is in the list of codes");
        Self {
            code,
            status,
            message: message.into(),
            allow: None,
            retry_after: None,
            limit: None,
            restart: None,
            written: None,
        }
    }

    /// The refusal that another daemon wrote; `None`: it is none.
    pub fn written(status: StatusCode, json: &[u8]) -> Option<Self> {
        let read: ReadError = serde_json::from_slice(json).ok()?;
        let written = serde_json::from_slice(json).ok()?;
        // The client is told the code as it came, also one that a later version has.
        let code = listed(&read.code).unwrap_or("primary_unavailable");
        let restart = read.cursor.zip(read.first).map(|(cursor, first)| {
            let balances = None;
            Box::new(Restart {
                cursor,
                first,
                balances,
            })
        });
        Some(Self {
            restart,
            written: Some(Box::new(written)),
            ..Self::new(status, code, read.error)
        })
    }

    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// A field of a request body or of an event's object is absent.
    pub fn missing_field(field: &str, what: &str) -> Self {
        Self::bad_request(
            "missing_field",
            format!("The field \"{field}\" is missing; send {what}."),
        )
    }

    /// A field is there, but not what it must be.
    pub fn invalid_field(field: &str, what: &str) -> Self {
        Self::bad_request(
            "invalid_field",
            format!("The field \"{field}\" must be {what}."),
        )
    }

    /// A known query parameter is malformed.
    pub fn invalid_parameter(name: &str, what: &str) -> Self {
        Self::bad_request(
            "invalid_parameter",
            format!("The query parameter \"{name}\" must be {what}."),
        )
    }

    /// The error of one element of a list.
    pub fn at(self, list: &str, place: usize) -> Self {
        Self {
            message: format!("{list}[{place}]: {}", self.message),
            ..self
        }
    }

    pub fn invalid_cursor() -> Self {
        let message = "This is not a cursor; send one as an event or an answer carried it.";
        Self::bad_request("invalid_cursor", message)
    }

    pub fn not_watched(address: &str) -> Self {
        let message = format!(
            "{address} is not watched. Add it with POST /add_address {{\"address\": \"{address}\"}} or the Socket.IO event subscribe_address, then ask again."
        );
        Self::not_found("not_watched", message)
    }

    pub fn no_such_route(path: &str) -> Self {
        let message = format!(
            "There is nothing at {}. The routes are listed in contrib/docs/api.md; GET /status is a good start.",
            shortened(path)
        );
        Self::not_found("not_found", message)
    }

    pub fn method_not_allowed(method: &str, allow: String) -> Self {
        let message = format!("{} is not allowed here; use {allow}.", shortened(method));
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self {
            allow: Some(allow),
            ..Self::new(status, "method_not_allowed", message)
        }
    }

    /// For now; to be asked again at once.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).retry_after(1)
    }

    pub fn retry_after(self, seconds: u32) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }

    /// `name`: as the setting is called, in the section `limits`.
    pub fn of_limit(self, name: &'static str) -> Self {
        Self {
            limit: Some(name),
            ..self
        }
    }

    pub fn gone(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, code, message)
    }

    /// The daemon is on its way down.
    pub fn stopping() -> Self {
        let message = "The daemon is stopping; try again when it is back.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", message)
    }

    /// Something broke inside; `cause` goes to the log only.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed inside the daemon");
        let message = "The daemon failed to answer; its log says why. Nothing was changed, you may try again.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

impl Serialize for ApiError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(Written(fields)) = self.written.as_deref() {
            return fields.serialize(serializer);
        }
        let shape = ErrorShape {
            error: &self.message,
            code: self.code,
            limit: self.limit,
            restart: self.restart.as_deref(),
        };
        shape.serialize(serializer)
    }
}

/// Why a request is refused.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Error")]
struct ErrorShape<'a> {
    /// A sentence for a person, which says what to do.
    error: &'a str,
    /// For programs: it never changes its meaning.
    #[schemars(with = "ErrorCode")]
    code: &'static str,
    /// The setting that would be exceeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'static str>,
    #[serde(flatten)]
    restart: Option<&'a Restart>,
}

impl JsonSchema for ApiError {
    fn schema_name() -> Cow<'static, str> {
        ErrorShape::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        ErrorShape::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ErrorShape::json_schema(generator)
    }
}

impl From<StoreError> for ApiError {
    fn from(cause: StoreError) -> Self {
        Self::internal(&cause)
    }
}

impl From<EncodeError> for ApiError {
    fn from(cause: EncodeError) -> Self {
        Self::internal(&cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_object_in_both_protocols() {
        let error = ApiError::missing_field("address", "{\"address\": \"…\"}");
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"error":"The field \"address\" is missing; send {\"address\": \"…\"}.","code":"missing_field"}"#
        );
    }

    #[test]
    fn a_limit_that_would_be_exceeded_is_named() {
        let error = ApiError::new(StatusCode::FORBIDDEN, "quota_reached", "No.");
        assert_eq!(
            serde_json::to_string(&error.of_limit("consumers")).unwrap(),
            r#"{"error":"No.","code":"quota_reached","limit":"consumers"}"#
        );
    }

    #[test]
    fn what_another_daemon_wrote_goes_on_as_it_came() {
        let text = r#"{"balances":[{"btc":1.50}],"code":"later","cursor":"a-9","error":"No.","first":"a-4"}"#;
        let error = ApiError::written(StatusCode::GONE, text.as_bytes()).expect("a refusal");
        assert_eq!(serde_json::to_string(&error).unwrap(), text);
        let cursor = error.restart.as_ref().map(|it| it.cursor.as_str());
        assert_eq!((cursor, error.message.as_str()), (Some("a-9"), "No."));
        for text in ["", "[]", r#"{"error":"No."}"#, r#"{"error":1,"code":"x"}"#] {
            let read = ApiError::written(StatusCode::GONE, text.as_bytes());
            assert_eq!(read, None, "{text}");
        }
    }

    #[test]
    fn a_bad_cursor_comes_with_where_to_go_on() {
        let restart = Restart {
            cursor: "a-9".to_owned(),
            first: "a-4".to_owned(),
            balances: None,
        };
        let error = ApiError {
            restart: Some(Box::new(restart)),
            ..ApiError::gone("cursor_expired", "Gone.")
        };
        let text = r#"{"error":"Gone.","code":"cursor_expired","cursor":"a-9","first":"a-4"}"#;
        assert_eq!(serde_json::to_string(&error).unwrap(), text);
    }
}
