//! A look over JSON text without building a tree: how deep it nests, and where it refers to
//! attachments.
//!
//! Arguments stay [`RawValue`]s, so that numbers and strings reach the other side as they were
//! written (a lone surrogate, `1e400` or a 20-digit integer is legal JSON text). serde_json skips
//! over raw values without its depth limit; the limit is kept here, because whoever decodes such a
//! value later does so recursively.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Levels of arrays and objects that a payload may have; the same as serde_json allows to typed
/// values.
pub const MAX_DEPTH: usize = 127;

/// Why a payload was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("the payload nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("a placeholder without a valid attachment number")]
    BadPlaceholder,
}

/// An object or array that is open while scanning.
#[derive(Default)]
struct OpenValue {
    is_object: bool,
    /// The next string in this object is a key.
    expects_key: bool,
    /// What the value that follows the last key means for a placeholder.
    key: Key,
    is_placeholder: bool,
    number: Option<u64>,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Key {
    #[default]
    Other,
    Placeholder,
    Number,
}

/// Checks the nesting of JSON text, and, when the packet has attachments, that every
/// `{"_placeholder":true,"num":i}` names one of them. Works on any bytes; says nothing about text
/// that is not JSON.
pub fn check(json: &[u8], attachments: usize) -> Result<(), JsonError> {
    let mut open: Vec<OpenValue> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        let start = at;
        at = at.saturating_add(1);
        match byte {
            b'{' | b'[' => {
                if open.len() >= MAX_DEPTH {
                    return Err(JsonError::TooDeep);
                }
                if let Some(parent) = open.last_mut() {
                    parent.value(b"");
                }
                let is_object = byte == b'{';
                open.push(OpenValue {
                    is_object,
                    expects_key: is_object,
                    ..OpenValue::default()
                });
            }
            b'}' | b']' => {
                if let Some(frame) = open.pop()
                    && frame.is_placeholder
                    && attachments > 0
                    && frame
                        .number
                        .is_none_or(|number| number >= attachments as u64)
                {
                    return Err(JsonError::BadPlaceholder);
                }
            }
            b',' => {
                if let Some(frame) = open.last_mut() {
                    frame.expects_key = frame.is_object;
                }
            }
            b'"' => {
                at = string_end(json, at);
                if let Some(frame) = open.last_mut() {
                    frame.string(json.get(start..at).unwrap_or_default());
                }
            }
            b':' | b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => {
                while json.get(at).is_some_and(|byte| {
                    !matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')
                }) {
                    at = at.saturating_add(1);
                }
                if let Some(frame) = open.last_mut() {
                    frame.value(json.get(start..at).unwrap_or_default());
                }
            }
        }
    }
    Ok(())
}

/// The position behind the quote that ends the string whose inside begins at `at`.
fn string_end(json: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = json.get(at) {
        at = at.saturating_add(1);
        match byte {
            b'\\' => at = at.saturating_add(1),
            b'"' => break,
            _ => {}
        }
    }
    at.min(json.len())
}

impl OpenValue {
    fn string(&mut self, token: &[u8]) {
        if !self.expects_key {
            return self.value(token);
        }
        self.expects_key = false;
        // Escapes are rare; a key that does not decode is none of ours.
        let is = |name: &str| match token.contains(&b'\\') {
            false => {
                token
                    .strip_prefix(b"\"")
                    .and_then(|rest| rest.strip_suffix(b"\""))
                    == Some(name.as_bytes())
            }
            true => serde_json::from_slice::<Cow<'_, str>>(token).is_ok_and(|key| key == name),
        };
        self.key = match () {
            () if is("_placeholder") => Key::Placeholder,
            () if is("num") => Key::Number,
            () => Key::Other,
        };
    }

    /// A value ends the effect of the key before it. As in JavaScript, the last of equal keys
    /// counts.
    fn value(&mut self, token: &[u8]) {
        match std::mem::take(&mut self.key) {
            Key::Placeholder => self.is_placeholder = token == b"true",
            Key::Number => self.number = serde_json::from_slice(token).ok(),
            Key::Other => {}
        }
    }
}

/// The elements of a JSON array, at most `N` of them, because every element costs an allocation.
pub struct Elements<const N: usize>(pub Vec<Box<RawValue>>);

impl<'de, const N: usize> de::Deserialize<'de> for Elements<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array<const N: usize>;
        impl<'de, const N: usize> Visitor<'de> for Array<N> {
            type Value = Elements<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of at most {N} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = array.next_element()? {
                    if elements.len() == N {
                        return Err(de::Error::invalid_length(N.saturating_add(1), &self));
                    }
                    elements.push(element);
                }
                Ok(Elements(elements))
            }
        }
        deserializer.deserialize_seq(Array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_that_of_serde_json() {
        for depth in [1, 126, 127, 128, 200, 100_000] {
            for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
                let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                let ours = check(text.as_bytes(), 0).is_ok();
                assert_eq!(
                    ours,
                    serde_json::from_str::<serde_json::Value>(&text).is_ok(),
                    "{depth} × {open}"
                );
            }
        }
        let brackets_in_text = format!(r#"["{}\"{}"]"#, "[".repeat(500), "{".repeat(500));
        assert_eq!(check(brackets_in_text.as_bytes(), 0), Ok(()));
    }

    #[test]
    fn placeholders_name_an_attachment() {
        let bad = Err(JsonError::BadPlaceholder);
        for (json, attachments, expected) in [
            (r#"[{"_placeholder":true,"num":0}]"#, 1, Ok(())),
            (
                r#"[{"num":1,"_placeholder":true},{"_placeholder":true,"num":0}]"#,
                2,
                Ok(()),
            ),
            (
                r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#,
                1,
                Ok(()),
            ),
            (
                r#"[[[{"a":{"_placeholder":true,"extra":{"num":9},"num":0}}]]]"#,
                1,
                Ok(()),
            ),
            (r#"[{"_placeholder" : true , "num" : 0 }]"#, 1, Ok(())),
            (r#"[{"_placeholder":false,"num":9}]"#, 1, Ok(())),
            (r#"[{"_placeholder":"true","num":9}]"#, 1, Ok(())),
            (r#"[{"x":"_placeholder","num":9}]"#, 1, Ok(())),
            (r#"["_placeholder",true,"num",9]"#, 1, Ok(())),
            // No attachments: only data that looks like one.
            (r#"[{"_placeholder":true,"num":9}]"#, 0, Ok(())),
            (r#"[{"_placeholder":true,"num":9,"num":0}]"#, 1, Ok(())),
            (r#"[{"_placeholder":true,"num":0,"num":9}]"#, 1, bad),
            (r#"[{"_placeholder":true,"num":1}]"#, 1, bad),
            (r#"[{"_placeholder":true}]"#, 1, bad),
            (r#"[{"_placeholder":true,"num":-1}]"#, 1, bad),
            (r#"[{"_placeholder":true,"num":0.5}]"#, 1, bad),
            (r#"[{"_placeholder":true,"num":"0"}]"#, 1, bad),
            (r#"[{"_placeholder":true,"num":[0]}]"#, 1, bad),
            (r#"[{"_placeholder":true,"num":null}]"#, 1, bad),
            (
                r#"[{"_placeholder":true,"num":99999999999999999999}]"#,
                1,
                bad,
            ),
            (r#"[{"_placehold\u0065r":true,"num":9}]"#, 1, bad),
            (r#"[{"\ud83d":1,"_placeholder":true,"num":9}]"#, 1, bad),
        ] {
            assert_eq!(check(json.as_bytes(), attachments), expected, "{json}");
        }
    }

    #[test]
    fn arrays_are_bounded() {
        assert_eq!(
            serde_json::from_str::<Elements<3>>("[1,[2],{}]")
                .unwrap()
                .0
                .len(),
            3
        );
        assert!(serde_json::from_str::<Elements<3>>("[1,2,3,4]").is_err());
        assert!(serde_json::from_str::<Elements<3>>(r#"{"a":1}"#).is_err());
    }
}
