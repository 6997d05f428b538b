//! OpenAPI 3.1: the routes.

use hyper::StatusCode;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::schemas::Schemas;
use crate::api::rest::route::{Mark, Route, SentShape};
use crate::wire::error::ApiError;
use crate::wire::schema;

/// Of refusals that every route may answer with: what is sent is malformed, the origin or the host
/// is not allowed, the daemon is busy or stopping.
const ALWAYS: [u16; 3] = [400, 403, 503];

pub fn document(routes: &[Route]) -> Value {
    let mut schemas = Schemas::new(SchemaSettings::draft2020_12);
    let mut paths = Map::new();
    for route in routes {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route, &mut schemas);
    }
    let error = schemas.sent(schema::of::<ApiError>);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "satwatch",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Amounts are integers in satoshi; a `*_btc` twin is the same in bitcoin. Times are seconds since the Unix epoch. Hashes are in hex, in the order in which bitcoind shows them. A field that has no value is `null`, unless it may be absent. Fields may be added, never removed or renamed.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas.named(),
            "responses": {
                "Refusal": {
                    "description": "Why it is refused, and what to do.",
                    "content": {"application/json": {"schema": error}},
                },
            },
            "headers": {
                "Satwatch-Cursor": {
                    "description": "The answer includes every event up to this one.",
                    "schema": {"type": "string"},
                },
            },
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token (`satwatch token new`), once there is one: until then everything is open. It has a scope; the scope that a route needs stands beside it.",
                },
            },
        },
    })
}

fn operation(route: &Route, schemas: &mut Schemas) -> Value {
    let mut parameters: Vec<Value> = path_parameter(route.path).into_iter().collect();
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "tags": [tag(route.path)],
    });
    match route.sent {
        SentShape::Nothing => {}
        SentShape::Query(of) => parameters.extend(query(schemas.taken_as_text(of))),
        SentShape::Body(of) => {
            let body = schemas.taken(of);
            operation["requestBody"] = json!({
                "content": {"application/json": {"schema": body}},
                "required": is_needed(of),
            });
        }
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(scope) = route.scope {
        operation["security"] = json!([{"token": [scope.name()]}, {}]);
    }
    operation["responses"] = responses(route, schemas);
    operation
}

/// Whether a body must be there: it may be left out when all of its fields may.
fn is_needed(of: schema::SchemaOf) -> bool {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let schema = of(&mut generator).to_value();
    let required = schema["required"].as_array();
    required.is_some_and(|required| !required.is_empty())
}

/// `get_descriptors_id_balance`
fn operation_id(route: &Route) -> String {
    let path = route.path.replace(['{', '}', '.'], "_").replace('/', "_");
    let words = path.split('_').filter(|word| !word.is_empty());
    let method = route.method.as_str().to_ascii_lowercase();
    let words: Vec<&str> = std::iter::once(&*method).chain(words).collect();
    words.join("_")
}

/// The first word of its path.
fn tag(path: &str) -> &str {
    let word = path.split('/').nth(1).unwrap_or_default();
    word.split('.').next().unwrap_or_default()
}

/// The part of a path.
fn part(path: &str) -> Option<&str> {
    let (_, rest) = path.split_once('{')?;
    rest.split_once('}').map(|(name, _)| name)
}

fn path_parameter(path: &str) -> Option<Value> {
    let name = part(path)?;
    let what = match name {
        "address" => "An address of the daemon's network, or a `bitcoin:` URI.",
        "name" => "The name of a consumer.",
        _ => "An id, as an answer carried it.",
    };
    Some(json!({
        "name": name,
        "in": "path",
        "required": true,
        "description": what,
        "schema": {"type": "string", "minLength": 1},
    }))
}

fn query(mut shape: Value) -> Vec<Value> {
    let required = shape["required"].take();
    let required = required.as_array().cloned().unwrap_or_default();
    let Some(fields) = shape["properties"].as_object_mut() else {
        return Vec::new();
    };
    let fields = std::mem::take(fields).into_iter();
    fields
        .map(|(name, mut schema)| {
            let description = schema
                .as_object_mut()
                .and_then(|schema| schema.remove("description"));
            let is_required = required.iter().any(|it| *it == *name);
            let mut parameter = json!({
                "name": name,
                "in": "query",
                "required": is_required,
                "schema": schema,
            });
            if let Some(description) = description {
                parameter["description"] = description;
            }
            parameter
        })
        .collect()
}

fn responses(route: &Route, schemas: &mut Schemas) -> Value {
    let mut schema = schemas.sent(route.reply);
    let media = schema
        .as_object_mut()
        .and_then(|schema| schema.remove("contentMediaType"));
    let media = media.as_ref().and_then(Value::as_str);
    let media = media.unwrap_or("application/json");
    let answer = json!({
        "content": {media: {"schema": schema}},
        "headers": {"Satwatch-Cursor": {"$ref": "#/components/headers/Satwatch-Cursor"}},
    });
    let statuses = match route.statuses {
        [] => &[200],
        statuses => statuses,
    };
    let mut responses = Map::new();
    for status in statuses {
        let mut answer = answer.clone();
        answer["description"] = reason(*status).into();
        responses.insert(status.to_string(), answer);
    }
    for status in refusals(route) {
        let refusal = json!({"$ref": "#/components/responses/Refusal"});
        responses.insert(status.to_string(), refusal);
    }
    responses.into()
}

/// The statuses of what may be refused.
fn refusals(route: &Route) -> Vec<u16> {
    let mut statuses = [&ALWAYS[..], route.refusals].concat();
    statuses.extend(route.scope.map(|_| 401));
    statuses.extend(part(route.path).map(|_| 404));
    if !route.has(Mark::Uncounted) {
        statuses.push(429);
    }
    // A body that comes too late, is too long, or is no JSON.
    if matches!(route.sent, SentShape::Body(_)) {
        statuses.extend([408, 413, 415]);
    }
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

fn reason(status: u16) -> &'static str {
    let status = StatusCode::from_u16(status).ok();
    let reason = status.and_then(|status| status.canonical_reason());
    reason.unwrap_or_default()
}
