//! The values that several requests take.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use bitcoin::Network;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};

use super::problem::kind;
use crate::wire::address::{self, KnownAddress};
use crate::wire::error::ApiError;
use crate::wire::schema::inline_schema;

/// Addresses in one request.
pub const MAX_ADDRESSES: usize = 10_000;
const MAX_LABEL_BYTES: usize = 256;
const MAX_DEPTHS: usize = 8;
/// Seconds that any request may wait.
const WAIT_MOST: u32 = 60;

/// A whole number from `MIN` to `MAX`; in JSON a number, not text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole<const MIN: u32, const MAX: u32>(pub u32);

/// The height of a block, which there may not be yet.
pub type Height = Whole<0, { u32::MAX }>;
/// How many at most.
pub type Limit<const MOST: u32> = Whole<1, MOST>;
/// Seconds that a request may wait.
pub type Wait = Whole<0, { WAIT_MOST }>;

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number<const MIN: u32, const MAX: u32>;

        impl<const MIN: u32, const MAX: u32> Visitor<'_> for Number<MIN, MAX> {
            type Value = u32;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<u32, E> {
                u32::try_from(number)
                    .ok()
                    .filter(|number| (MIN..=MAX).contains(number))
                    .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<u32, E> {
                Err(E::invalid_value(Unexpected::Signed(number), &self))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<u32, E> {
                if number.fract() == 0.0 {
                    let what = "in digits alone, without a point or an exponent";
                    let message = format!("a whole number from {MIN} to {MAX}, {what}");
                    return Err(E::custom(message));
                }
                Err(E::invalid_value(Unexpected::Float(number), &self))
            }
        }

        deserializer.deserialize_u64(Number::<MIN, MAX>).map(Self)
    }
}

inline_schema!(Whole<MIN, MAX> where [const MIN: u32, const MAX: u32], "Whole", |_generator| {
    json_schema!({"type": "integer", "minimum": MIN, "maximum": MAX})
});

impl<const MIN: u32, const MAX: u32> Whole<MIN, MAX> {
    pub fn get(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    pub fn seconds(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

/// A label.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Label(pub String);

inline_schema!(Label, "Label", |_generator| json_schema!({
    "type": "string",
    "maxLength": MAX_LABEL_BYTES,
    "pattern": "^[^\\u0000-\\u001F\\u007F-\\u009F]*$",
    "description": format!("At most {MAX_LABEL_BYTES} bytes, without control characters."),
}));

impl TryFrom<String> for Label {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len() > MAX_LABEL_BYTES {
            let length = text.len();
            return Err(format!(
                "a string of at most {MAX_LABEL_BYTES} bytes, not {length}"
            ));
        }
        match text.chars().find(|it| it.is_control()) {
            None => Ok(Self(text)),
            Some(found) => Err(format!(
                "a string without control characters, not one with U+{:04X}",
                u32::from(found)
            )),
        }
    }
}

/// `confirmations`: depths to be told about, ascending and without repetition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Whole<1, 144>>")]
pub struct Depths(pub Vec<u8>);

inline_schema!(Depths, "Depths", |generator| json_schema!({
    "type": "array",
    "items": Whole::<1, 144>::json_schema(generator),
    "maxItems": MAX_DEPTHS,
    "description": "Confirmation depths to be told about, such as [1, 3, 6].",
}));

impl TryFrom<Vec<Whole<1, 144>>> for Depths {
    type Error = String;

    fn try_from(depths: Vec<Whole<1, 144>>) -> Result<Self, String> {
        if depths.len() > MAX_DEPTHS {
            return Err(format!(
                "an array of at most {MAX_DEPTHS} whole numbers from 1 to 144, such as [1, 3, 6], not {}",
                depths.len()
            ));
        }
        let mut depths: Vec<u8> = depths
            .into_iter()
            .filter_map(|Whole(depth)| u8::try_from(depth).ok())
            .collect();
        depths.sort_unstable();
        depths.dedup();
        Ok(Self(depths))
    }
}

/// An address, as text or as `{"address"}`. It has not been looked at yet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NamedAddress")]
pub struct Unlabelled {
    pub address: String,
}

/// What may be said as text alone.
pub trait FromText: From<String> {
    /// What is expected of a client.
    const EXPECTED: &'static str;
}

const ADDRESS: &str = "an address as a string, or {\"address\": \"<address>\"}";

impl FromText for Unlabelled {
    const EXPECTED: &'static str = ADDRESS;
}

impl FromText for Labelled {
    const EXPECTED: &'static str = ADDRESS;
}

/// What says an address.
pub trait SaysAddress: FromText {
    fn address(&self) -> &str;
}

impl SaysAddress for Unlabelled {
    fn address(&self) -> &str {
        &self.address
    }
}

impl SaysAddress for Labelled {
    fn address(&self) -> &str {
        &self.address
    }
}

impl From<String> for Unlabelled {
    fn from(address: String) -> Self {
        Self { address }
    }
}

/// An address, as text or as `{"address", "label"?}`. It has not been looked at yet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "LabelledAddress")]
pub struct Labelled {
    pub address: String,
    pub label: Option<Label>,
}

impl From<String> for Labelled {
    fn from(address: String) -> Self {
        Self {
            address,
            label: None,
        }
    }
}

/// 1 to 10 000 addresses, each as text or as an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses<T>(Vec<Listed<T>>);

/// One of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Listed<T> {
    Address(T),
    /// Another kind of value. It is refused with the other bad ones of the list.
    Other(&'static str),
}

impl<T: SaysAddress> Addresses<T> {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// All of them, each with what was said of it, or a refusal that names the first bad ones by
    /// their places.
    pub fn parse(self, network: Network) -> Result<Vec<(KnownAddress, T)>, ApiError> {
        let texts = self.0.iter().map(|listed| match listed {
            Listed::Address(said) => Ok(said.address()),
            Listed::Other(kind) => Err(format!("{}, not {kind}", T::EXPECTED)),
        });
        let known = address::parse_all("addresses", texts, network)?;
        let said = self.0.into_iter().filter_map(|listed| match listed {
            Listed::Address(said) => Some(said),
            Listed::Other(_) => None,
        });
        Ok(known.into_iter().zip(said).collect())
    }
}

impl<'de, T: Deserialize<'de> + FromText> Deserialize<'de> for Addresses<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = deserializer.deserialize_any(List::new(false))?;
        Ok(Self(list.unwrap_or_default()))
    }
}

/// From `least` to 10 000 of them.
fn list_schema<T: JsonSchema>(least: usize, generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {"anyOf": [{"type": "string"}, generator.subschema_for::<T>()]},
        "minItems": least,
        "maxItems": MAX_ADDRESSES,
    })
}

inline_schema!(Addresses<T> where [T: JsonSchema], "Addresses", |generator| list_schema::<T>(1, generator));

inline_schema!(
    AddressSelection,
    "AddressSelection",
    |generator| json_schema!({
        "anyOf": [{"const": "all"}, list_schema::<Unlabelled>(0, generator)],
    })
);

/// Of the watch list: all of it (`None`), or a part, which may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressSelection(pub Option<Addresses<Unlabelled>>);

impl<'de> Deserialize<'de> for AddressSelection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = deserializer.deserialize_any(List::new(true))?;
        Ok(Self(list.map(Addresses)))
    }
}

impl<'de, T: Deserialize<'de> + FromText> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + FromText> Visitor<'de> for Any<T> {
            type Value = Listed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Listed<T>, E> {
                Ok(Listed::Address(T::from(text.to_owned())))
            }

            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Listed<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(entries)).map(Listed::Address)
            }

            fn visit_unit<E: Error>(self) -> Result<Listed<T>, E> {
                Ok(Listed::Other(kind(Unexpected::Unit)))
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<Listed<T>, E> {
                Ok(Listed::Other(kind(Unexpected::Bool(flag))))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Listed<T>, E> {
                Ok(Listed::Other(kind(Unexpected::Unsigned(number))))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Listed<T>, E> {
                Ok(Listed::Other(kind(Unexpected::Signed(number))))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Listed<T>, E> {
                Ok(Listed::Other(kind(Unexpected::Float(number))))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut inner: A) -> Result<Listed<T>, A::Error> {
                while inner.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Listed::Other(kind(Unexpected::Seq)))
            }
        }

        deserializer.deserialize_any(Any(PhantomData))
    }
}

/// Reads a list, or nothing when the word `"all"` may stand in its place, and does.
struct List<T> {
    or_all: bool,
    elements: PhantomData<T>,
}

impl<T> List<T> {
    fn new(or_all: bool) -> Self {
        Self {
            or_all,
            elements: PhantomData,
        }
    }
}

impl<'de, T: Deserialize<'de> + FromText> Visitor<'de> for List<T> {
    type Value = Option<Vec<Listed<T>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = if self.or_all { "\"all\" or " } else { "" };
        write!(f, "{all}an array of 1 to {MAX_ADDRESSES} addresses")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Self::Value, E> {
        match (self.or_all, word) {
            (true, "all") => Ok(None),
            (true, _) => Err(E::invalid_value(Unexpected::Str(word), &self)),
            (false, _) => Err(E::invalid_type(Unexpected::Str(word), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        match list.len() {
            0 if !self.or_all => Err(A::Error::invalid_length(0, &self)),
            ..=MAX_ADDRESSES => Ok(Some(list)),
            length => Err(A::Error::invalid_length(length, &self)),
        }
    }
}

/// One value as text, or as an object that can say more.
pub struct TextOrObject<T>(pub T);

inline_schema!(TextOrObject<T> where [T: JsonSchema], "TextOrObject", |generator| json_schema!({
    "anyOf": [{"type": "string"}, generator.subschema_for::<T>()],
}));

impl<'de, T: Deserialize<'de> + FromText> Deserialize<'de> for TextOrObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + FromText> Visitor<'de> for Either<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
                Ok(T::from(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(entries))
            }
        }

        deserializer.deserialize_any(Either(PhantomData)).map(Self)
    }
}
