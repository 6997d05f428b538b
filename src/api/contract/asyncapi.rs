//! AsyncAPI 3.0: the events that clients and the daemon send each other over Socket.IO, and the
//! stream of events.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::schemas::Schemas;
use crate::api::scans::progress::PROGRESS_EVENTS;
use crate::api::socket::{ANSWERS, EVENTS};
use crate::wire::NAMESPACE;
use crate::wire::json::{EventRow, LOG_EVENTS};

/// What a reader of the stream is told in place of `error`, which browsers keep for themselves.
const STREAM_ERROR: &str = "satwatch_error";

pub fn document() -> Value {
    let mut schemas = Schemas::new(SchemaSettings::draft07);
    let mut messages = Map::new();
    let rows = ANSWERS.iter().chain(PROGRESS_EVENTS).chain(LOG_EVENTS);
    for row in rows.clone() {
        messages.insert(key(row.name, true), told(row, row.name, &mut schemas));
    }
    for row in ANSWERS.iter().filter(|row| row.name == "error") {
        let message = told(row, STREAM_ERROR, &mut schemas);
        messages.insert(key(STREAM_ERROR, true), message);
    }
    let mut operations = Map::new();
    for event in EVENTS {
        let message = json!({
            "name": event.name,
            "title": event.name,
            "summary": event.summary,
            "payload": schemas.taken(event.argument),
        });
        messages.insert(key(event.name, false), message);
        let replies = [event.reply, "error"].map(|name| on("socket", &key(name, true)));
        let mut operation = json!({
            "action": "receive",
            "channel": {"$ref": "#/channels/socket"},
            "summary": event.summary,
            "messages": [on("socket", &key(event.name, false))],
            "reply": {
                "channel": {"$ref": "#/channels/socket"},
                "messages": replies,
            },
        });
        if let Some(scope) = event.scope {
            operation["description"] = format!("Needs the scope `{}`.", scope.name()).into();
        }
        operations.insert(event.name.to_owned(), operation);
    }
    let socket: Vec<String> = messages.keys().cloned().collect();
    let socket = socket.iter().filter(|it| **it != key(STREAM_ERROR, true));
    let (in_log, stream_error) = (LOG_EVENTS.iter().map(|row| row.name), [STREAM_ERROR]);
    let stream: Vec<String> = in_log.chain(stream_error).map(|it| key(it, true)).collect();
    let told_names: Vec<String> = rows.map(|row| key(row.name, true)).collect();
    operations.insert("tell".to_owned(), telling("socket", &told_names));
    operations.insert("stream".to_owned(), telling("stream", &stream));
    let channels = json!({
        "socket": {
            "address": "/socket.io/",
            "title": "Socket.IO",
            "description": format!("Socket.IO 3 to 5 (and 2) on the namespace `{NAMESPACE}`. The CONNECT payload may be {{\"token\": \"sw_…\"}}. An event of a client may ask for an acknowledgement, which carries the same object as the event that answers it, or as `error`."),
            "messages": refs(socket),
        },
        "stream": {
            "address": "/events/stream",
            "title": "Server-sent events",
            "description": "`id` is the cursor, `event` the name, `data` the JSON. What a client may send is in the OpenAPI document.",
            "messages": refs(stream.iter()),
        },
    });
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "satwatch",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Events that satwatch tells, and what clients may say over Socket.IO. Amounts are integers in satoshi; a `*_btc` twin is the same in bitcoin. Times are seconds since the Unix epoch. Fields may be added, never removed or renamed.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas.named(),
        },
    })
}

/// The key of a message: who sends it, and its name.
fn key(name: &str, by_daemon: bool) -> String {
    match by_daemon {
        true => format!("told_{name}"),
        false => format!("asked_{name}"),
    }
}

/// An event of the daemon.
fn told(row: &EventRow, name: &str, schemas: &mut Schemas) -> Value {
    json!({
        "name": name,
        "title": name,
        "summary": row.summary,
        "payload": schemas.sent(row.data),
    })
}

/// The messages of a channel.
fn refs<'a>(keys: impl Iterator<Item = &'a String>) -> Value {
    let entry = |key: &String| {
        let message = json!({"$ref": format!("#/components/messages/{key}")});
        (key.clone(), message)
    };
    keys.map(entry).collect::<Map<_, _>>().into()
}

fn on(channel: &str, key: &str) -> Value {
    json!({"$ref": format!("#/channels/{channel}/messages/{key}")})
}

/// What the daemon sends on a channel by itself.
fn telling(channel: &str, keys: &[String]) -> Value {
    let messages: Vec<Value> = keys.iter().map(|key| on(channel, key)).collect();
    json!({
        "action": "send",
        "channel": {"$ref": format!("#/channels/{channel}")},
        "summary": "What the daemon tells",
        "messages": messages,
    })
}
