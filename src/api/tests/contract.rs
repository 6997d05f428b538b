//! The contracts hold together: each reference leads somewhere, each name has one meaning, and each
//! route, event and shape says what it is.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::api::contract::{asyncapi, openapi};
use crate::api::rest::routes::ROUTES;
use crate::api::socket::{ANSWERS, EVENTS};
use crate::wire::json::LOG_EVENTS;

fn documents() -> [Value; 2] {
    [openapi::document(ROUTES), asyncapi::document()]
}

/// All objects in a value, each with its place.
fn objects<'a>(value: &'a Value, place: &str, found: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Array(values) => values.iter().for_each(|it| objects(it, place, found)),
        Value::Object(object) => {
            found.push((place.to_owned(), value));
            for (name, value) in object {
                objects(value, &format!("{place}/{name}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    for document in documents() {
        let mut found = Vec::new();
        objects(&document, "", &mut found);
        let references = found.iter().filter_map(|(_, it)| it["$ref"].as_str());
        let references: Vec<&str> = references.collect();
        assert!(references.len() > 40, "{}", references.len());
        for reference in references {
            let place = reference.strip_prefix('#').expect("it is in the document");
            let place = place.replace("~1", "/");
            assert!(document.pointer(&place).is_some(), "{reference}");
        }
    }
}

/// schemars numbers the second type of a name.
#[test]
fn no_two_shapes_have_the_same_name_and_each_name_is_used() {
    for document in documents() {
        let text = document.to_string();
        let shapes = document["components"]["schemas"]
            .as_object()
            .expect("shapes");
        for name in shapes.keys() {
            assert!(!name.ends_with(|it: char| it.is_ascii_digit()), "{name}");
            let reference = format!("\"#/components/schemas/{name}\"");
            assert!(text.contains(&reference), "nothing refers to {name}");
        }
    }
}

/// Sentences of comments end; what stands in a table is a phrase.
#[test]
fn what_is_said_is_said_in_one_way() {
    for document in documents() {
        let mut found = Vec::new();
        objects(&document, "", &mut found);
        for (place, object) in found {
            if let Some(summary) = object["summary"].as_str() {
                assert!(!summary.is_empty() && !summary.ends_with('.'), "{summary}");
            }
            if let Some(text) = object["description"].as_str() {
                let is_code = text.contains("](") || text.contains("crate::");
                assert!(!is_code && !text.contains('\n'), "{place}: {text}");
            }
        }
    }
}

#[test]
fn every_route_and_every_event_is_there_and_none_more() {
    let [openapi, asyncapi] = documents();
    let paths = openapi["paths"].as_object().expect("paths");
    let told: Vec<String> = paths
        .iter()
        .flat_map(|(path, methods)| methods.as_object().into_iter().map(move |it| (path, it)))
        .flat_map(|(path, it)| it.keys().map(move |method| format!("{method} {path}")))
        .collect();
    let rows = ROUTES.iter();
    let rows = rows.map(|row| format!("{} {}", row.method.as_str().to_lowercase(), row.path));
    let mut rows: Vec<String> = rows.collect();
    rows.sort_unstable();
    let mut told_sorted = told;
    told_sorted.sort_unstable();
    assert_eq!(told_sorted, rows);

    let messages = asyncapi["components"]["messages"].as_object();
    let messages = messages.expect("messages");
    let names = |prefix: &str| {
        let keys = messages.keys().filter_map(|key| key.strip_prefix(prefix));
        keys.map(str::to_owned).collect::<Vec<_>>()
    };
    let sorted = |names: Vec<&str>| {
        let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        names.sort_unstable();
        names
    };
    let asked = EVENTS.iter().map(|event| event.name).collect();
    assert_eq!(names("asked_"), sorted(asked));
    let lists = ANSWERS.iter().chain(LOG_EVENTS).map(|row| row.name);
    let told = lists.chain(["scan_progress", "satwatch_error"]).collect();
    assert_eq!(names("told_"), sorted(told));
}

/// Events are made of types that are in the lists: nothing else writes one.
#[test]
fn no_event_is_written_by_its_name() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut writers) = (vec![src.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&src).expect("it is in src");
            let name = name.to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("text");
            let is_protocol = name.starts_with("socketio") || name.contains("tests");
            if text.contains("Encoded::event") && !is_protocol {
                writers.push(name);
            }
        }
    }
    writers.sort_unstable();
    let known = [
        "api/socket/client.rs",
        "wire/encode.rs",
        "wire/json/server_events.rs",
    ];
    assert_eq!(writers, known);
}
