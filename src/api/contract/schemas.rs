//! The schemas of what is sent and of what is taken, in one set of names.

use schemars::SchemaGenerator;
use schemars::generate::{Contract, SchemaSettings};
use serde_json::{Map, Value};

use crate::wire::schema::SchemaOf;

/// Where a document keeps them.
const PLACE: &str = "/components/schemas";

/// Collects schemas for one document.
pub struct Schemas {
    sent: SchemaGenerator,
    taken: SchemaGenerator,
}

impl Schemas {
    /// In the dialect of these settings.
    pub fn new(dialect: fn() -> SchemaSettings) -> Self {
        let generator = |contract: Contract| {
            let mut settings = dialect();
            settings.definitions_path = PLACE.into();
            settings.contract = contract;
            settings.into_generator()
        };
        Self {
            sent: generator(Contract::Serialize),
            taken: generator(Contract::Deserialize),
        }
    }

    /// What the daemon sends. A field that may be absent is never `null`.
    pub fn sent(&mut self, of: SchemaOf) -> Value {
        let mut schema = tidy(of(&mut self.sent).to_value());
        absent_is_not_null(&mut schema);
        schema
    }

    /// What clients send in JSON, where `null` is as good as absent.
    pub fn taken(&mut self, of: SchemaOf) -> Value {
        tidy(of(&mut self.taken).to_value())
    }

    /// What clients send as text.
    pub fn taken_as_text(&mut self, of: SchemaOf) -> Value {
        let mut schema = self.taken(of);
        absent_is_not_null(&mut schema);
        schema
    }

    /// All that have names.
    pub fn named(mut self) -> Map<String, Value> {
        let taken = self.taken.take_definitions(true).into_iter();
        let mut named: Map<_, _> = taken.map(|(name, it)| (name, tidy(it))).collect();
        for (name, schema) in self.sent.take_definitions(true) {
            let mut schema = tidy(schema);
            absent_is_not_null(&mut schema);
            if let Some(other) = named.insert(name.clone(), schema.clone()) {
                assert_eq!(other, schema, "two types are called {name}");
            }
        }
        named
    }
}

/// Descriptions without the line breaks of comments.
fn tidy(mut schema: Value) -> Value {
    match &mut schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(|it| *it = tidy(it.take())),
        Value::Object(object) => {
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            object.values_mut().for_each(|it| *it = tidy(it.take()));
        }
        _ => {}
    }
    schema
}

/// Takes `null` from all fields that need not be there.
fn absent_is_not_null(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(absent_is_not_null),
        Value::Object(object) => {
            let required = object.get("required").cloned().unwrap_or_default();
            let required = required.as_array().cloned().unwrap_or_default();
            if let Some(Value::Object(fields)) = object.get_mut("properties") {
                let optional = fields
                    .iter_mut()
                    .filter(|(name, _)| !required.iter().any(|it| it == name.as_str()));
                optional.for_each(|(_, field)| not_null(field));
            }
            object.values_mut().for_each(absent_is_not_null);
        }
        _ => {}
    }
}

/// As schemars writes an `Option`: `null` among the types, or beside a reference.
fn not_null(field: &mut Value) {
    let null = Value::from("null");
    if let Some(Value::Array(types)) = field.get_mut("type") {
        types.retain(|it| *it != null);
        if let [only] = &types[..] {
            field["type"] = only.clone();
        }
    }
    let Some(Value::Array(choices)) = field.get_mut("anyOf") else {
        return;
    };
    choices.retain(|it| it.get("type") != Some(&null));
    let [Value::Object(only)] = &choices[..] else {
        return;
    };
    let only = only.clone();
    if let Value::Object(field) = field {
        field.remove("anyOf");
        for (name, value) in only {
            field.entry(name).or_insert(value);
        }
    }
}
