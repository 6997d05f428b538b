//! What requests say of descriptors.

use std::fmt;

use schemars::json_schema;
use serde::de::{Deserializer, Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, de};
use zeroize::Zeroizing;

use super::types::Whole;
use crate::tracker::{DescriptorId, Keychain};
use crate::wire::error::ApiError;
use crate::wire::json::KeychainName;
use crate::wire::schema::inline_schema;
use crate::wire::text::is_hex;

/// Longest list of descriptors in one request.
const MOST: usize = 1000;
/// Indexes above are hardened (BIP 32).
const LAST_INDEX: u32 = (1 << 31) - 1;

/// How many unused indexes are watched behind the last used one.
pub type GapLimit = Whole<1, 10_000>;
/// An index of a keychain.
pub type Index = Whole<0, LAST_INDEX>;

/// A descriptor as somebody sent it. It may hold a private key: it is not shown, and is overwritten
/// when it is dropped.
#[derive(Clone)]
pub struct DescriptorText(Zeroizing<String>);

inline_schema!(
    DescriptorText,
    "DescriptorText",
    |_generator| json_schema!({
        "type": "string",
        "description": "An output descriptor or an extended public key; never a private one.",
    })
);

impl DescriptorText {
    /// To be parsed.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DescriptorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl<'de> Deserialize<'de> for DescriptorText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

/// `range`: the first and the last index, both included, as bitcoind takes it. What is below the
/// first is watched, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Index>")]
pub struct IndexRange {
    pub last: u32,
}

inline_schema!(IndexRange, "IndexRange", |generator| json_schema!({
    "type": "array",
    "items": Index::json_schema(generator),
    "minItems": 2,
    "maxItems": 2,
    "description": "The first and the last index, such as [0, 999].",
}));

impl TryFrom<Vec<Index>> for IndexRange {
    type Error = String;

    fn try_from(ends: Vec<Index>) -> Result<Self, String> {
        match ends[..] {
            [Whole(first), Whole(last)] if first <= last => Ok(Self { last }),
            _ => Err("two indexes, the first and the last one, such as [0, 999]".to_owned()),
        }
    }
}

/// Of a descriptor, `"external"` or `"internal"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeychainWord(pub Keychain);

inline_schema!(KeychainWord, "KeychainWord", |generator| {
    KeychainName::json_schema(generator)
});

impl<'de> Deserialize<'de> for KeychainWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        match word.as_str() {
            "external" => Ok(Self(Keychain::External)),
            "internal" => Ok(Self(Keychain::Internal)),
            _ => Err(D::Error::custom("\"external\" or \"internal\"")),
        }
    }
}

/// The id in a path or a field, as we write it; the error of one that there cannot be.
pub fn descriptor_id(text: &str) -> Result<DescriptorId, ApiError> {
    let is_written_so = text.len() == 64 && is_hex(text);
    let digits = Some(text).filter(|_| is_written_so);
    let byte = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits).ok()?;
        u8::from_str_radix(digits, 16).ok()
    };
    let bytes: Option<Vec<u8>> =
        digits.and_then(|digits| digits.as_bytes().chunks(2).map(byte).collect());
    let id = bytes.and_then(|bytes| bytes.try_into().ok());
    id.map(DescriptorId)
        .filter(|id| id.to_string() == text)
        .ok_or_else(no_such_descriptor)
}

/// What was sent is not repeated: 64 digits may be a private key.
pub fn no_such_descriptor() -> ApiError {
    let message = "There is no descriptor with this id. Ids have 64 hex digits in lower case; GET /descriptors lists them.";
    ApiError::not_found("no_such_descriptor", message)
}

/// Of the descriptors: all of them (`None`), or a part, which may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptorSelection(pub Option<Vec<String>>);

inline_schema!(
    DescriptorSelection,
    "DescriptorSelection",
    |_generator| json_schema!({
        "anyOf": [
            {"const": "all"},
            {"type": "array", "items": {"type": "string"}, "maxItems": MOST},
        ],
    })
);

impl<'de> Deserialize<'de> for DescriptorSelection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AllOrIds;

        impl<'de> Visitor<'de> for AllOrIds {
            type Value = Option<Vec<String>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"all\" or an array of up to {MOST} ids of descriptors")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
                match word {
                    "all" => Ok(None),
                    _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(id) = ids.next_element()? {
                    list.push(id);
                }
                match list.len() {
                    ..=MOST => Ok(Some(list)),
                    length => Err(A::Error::invalid_length(length, &self)),
                }
            }
        }

        deserializer.deserialize_any(AllOrIds).map(Self)
    }
}

impl DescriptorSelection {
    /// The ids as they were sent; `None` for all. `list`: where they stand.
    pub fn parse(&self, list: &str) -> Result<Option<Vec<DescriptorId>>, ApiError> {
        let Some(texts) = &self.0 else {
            return Ok(None);
        };
        let ids = texts.iter().enumerate();
        let ids =
            ids.map(|(place, text)| descriptor_id(text).map_err(|error| error.at(list, place)));
        ids.collect::<Result<Vec<_>, _>>().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_sixty_four_lower_case_hex_digits() {
        let id = DescriptorId([0xab; 32]);
        assert_eq!(descriptor_id(&id.to_string()), Ok(id));
        let upper = id.to_string().to_uppercase();
        let long = format!("{id}0");
        for text in [
            "",
            "ab",
            &upper,
            &long,
            "é",
            &"é".repeat(32),
            &"g".repeat(64),
            &"+a".repeat(32),
        ] {
            let error = descriptor_id(text).unwrap_err();
            assert_eq!(
                (error.code, error.status.as_u16()),
                ("no_such_descriptor", 404),
                "{text}"
            );
            assert!(text.len() < 64 || !error.message.contains(text), "{error}");
        }
    }

    #[test]
    fn a_descriptor_does_not_show_in_debug_output() {
        let text: DescriptorText = serde_json::from_str("\"wpkh(xprv)\"").unwrap();
        assert_eq!(
            (text.reveal(), format!("{text:?}").as_str()),
            ("wpkh(xprv)", "(hidden)")
        );
    }
}
