//! What clients send: the JSON object of a body or an event, and the query string.
//!
//! Each is a type with `Deserialize`, next to what answers it, and is read strictly: a name that
//! the type does not have is refused with the nearest one, a name that comes twice and a value of
//! another type are refused with the path of the field and what belongs there. What a value means
//! (an address of our network, a cursor of our log) is looked at afterwards, by who needs it.
//!
//! ```text
//! bytes ──► json::Json  ──┐
//!                         ├──► serde, with Problem as the error ──► a type, or an ApiError
//! text ───► query::QueryString ┘
//! ```

pub mod descriptors;
pub mod history;
mod json;
mod problem;
mod query;
pub mod types;

use hyper::StatusCode;
use schemars::{JsonSchema, json_schema};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};

use json::{Json, VALUES_MOST};
use problem::{Problem, RequestPart};
use query::QueryString;

use crate::wire::error::ApiError;
use crate::wire::schema::inline_schema;

/// What a body, an event or a query may say.
///
/// The types derive `Deserialize` with `deny_unknown_fields`. Those of routes and events derive
/// `JsonSchema` too, which is how the contracts show them.
pub trait Request: DeserializeOwned {
    /// One as a client may send it.
    const EXAMPLE: &'static str = "{}";
    /// Names that people try here, each with what to do instead.
    const INSTEAD: &'static [(&'static str, &'static str)] = &[];

    /// Whom or what it is about, for the access log. Nothing secret.
    fn concerns(&self) -> Option<String> {
        None
    }
}

/// Nothing at all.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl Request for Nothing {}

/// An object within a request, whose type another field says.
pub struct Later(Json);

inline_schema!(
    Later,
    "Later",
    |_generator| json_schema!({"type": "object"})
);

impl<'de> Deserialize<'de> for Later {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Json::deserialize(deserializer).map(Self)
    }
}

/// Reads it as that type, with the errors of one that was sent alone; one that is absent as
/// [`body`] does.
pub fn later<T: Request>(sent: Option<Later>) -> Result<T, ApiError> {
    match sent {
        Some(Later(json)) => read(json, RequestPart::Object),
        None => body(None),
    }
}

/// Reads the JSON of a body or of an event's argument.
pub fn object<T: Request>(text: &[u8]) -> Result<T, ApiError> {
    let json: Json = serde_json::from_slice(text).map_err(|cause| {
        // Any JSON will do here but one that is too much of it.
        if cause.is_data() {
            return too_many_values();
        }
        ApiError::bad_request(
            "invalid_json",
            format!("The request is not valid JSON: {cause}."),
        )
    })?;
    read(json, RequestPart::Object)
}

fn too_many_values() -> ApiError {
    let message = format!("The request has more than {VALUES_MOST} values; send less at a time.");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
}

/// Reads a body or an argument that a client may leave out where every field is optional.
pub fn body<T: Request>(text: Option<&[u8]>) -> Result<T, ApiError> {
    match text {
        Some(text) => object(text),
        None => object(b"{}").map_err(|_| {
            ApiError::bad_request(
                "invalid_json",
                format!(
                    "Nothing was sent; send a JSON object such as {}.",
                    T::EXAMPLE
                ),
            )
        }),
    }
}

/// Reads a query string, percent-decoded. `of_address`: the path ends with an address.
pub fn query<T: Request>(text: &str, of_address: bool) -> Result<T, ApiError> {
    read(QueryString::parse(text), RequestPart::Query { of_address })
}

fn read<'de, T, D>(source: D, part: RequestPart) -> Result<T, ApiError>
where
    T: Request,
    D: Deserializer<'de, Error = Problem>,
{
    serde_path_to_error::deserialize(source).map_err(|error| {
        let path = error.path().clone();
        problem::refusal::<T>(error.into_inner(), &path, part)
    })
}

#[cfg(test)]
mod tests;
