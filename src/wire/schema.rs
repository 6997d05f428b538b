//! How the values of other crates, and of the tracker, look in the contracts (JSON Schema).

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// How something looks, put into a document.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The schema of a type, or a reference to it.
pub fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The schema of a type itself.
pub fn whole<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

/// A type that is written where it is used, without a name of its own.
macro_rules! inline_schema {
    ($type:ty $(where [$($parameter:tt)*])?, $name:expr, |$generator:ident| $schema:expr) => {
        impl$(<$($parameter)*>)? schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema($generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $schema
            }
        }
    };
}
pub(crate) use inline_schema;

/// The id of a transaction, or the hash of a block.
pub struct Hash;

impl JsonSchema for Hash {
    fn schema_name() -> Cow<'static, str> {
        "Hash".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
            "description": "A hash in hex digits, in the order in which bitcoind shows it.",
        })
    }
}
