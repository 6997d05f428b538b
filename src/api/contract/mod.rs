//! What the daemon takes and says, for programs: `GET /openapi.json` and `GET /asyncapi.json`.
//!
//! # Laws
//!
//! 1. Nothing is written here that another room knows. Routes are the rows of
//!    [`routes`](super::rest::routes), events of clients those of [`socket`](super::socket), events
//!    of the daemon the lists of their types; how each looks says the type that is serialized or
//!    parsed (`schemars`), and its comments are the descriptions.
//! 2. The documents are the same for everybody and as long as the daemon runs: made when they are
//!    first asked for, and kept as bytes.
//! 3. An answer may have more fields tomorrow, so its schema is open. A request is read strictly,
//!    so its schema is closed.
//!
//! ```text
//! rest::routes::ROUTES ─────────────────────────────► openapi  ─┐
//! socket::EVENTS, socket::ANSWERS,                              ├─► bytes
//! scans::progress::PROGRESS_EVENTS, wire::json::LOG_EVENTS ─► asyncapi ─┘
//! ```

pub mod asyncapi;
pub mod openapi;
mod schemas;

use std::sync::OnceLock;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use schemars::JsonSchema;
use serde_json::Value;

use super::rest::respond::{self, Reply};
use super::rest::route::Route;

/// A contract.
#[derive(JsonSchema)]
#[schemars(extend("type" = "object"))]
pub struct Contract(#[allow(dead_code, reason = "it looks like this")] Value);

static OPENAPI: OnceLock<Bytes> = OnceLock::new();
static ASYNCAPI: OnceLock<Bytes> = OnceLock::new();

/// `GET /openapi.json`
pub fn openapi(routes: &[Route]) -> Reply<Contract> {
    let document = OPENAPI.get_or_init(|| openapi::document(routes).to_string().into());
    reply(document)
}

/// `GET /asyncapi.json`
pub fn asyncapi() -> Reply<Contract> {
    reply(ASYNCAPI.get_or_init(|| asyncapi::document().to_string().into()))
}

/// A new daemon brings new contracts.
fn reply(document: &Bytes) -> Reply<Contract> {
    let mut answer = respond::body("application/json", document.clone());
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Reply::written(answer)
}
