//! What is wrong with something that a client sent, and how we say it.

use std::fmt::Display;

use serde::de::{self, Expected, Unexpected};
use serde_path_to_error::{Path, Segment};

use super::Request;
use crate::wire::error::{ApiError, shortened};

/// Names less like each other than this are not suggested (1 is equal).
const NEAR: f64 = 0.85;

/// Parameters of `bitcoin:` URIs (BIP 21, 321, 72, 78, 351).
const OF_URIS: [&str; 15] = [
    "amount",
    "bc",
    "bcrt",
    "label",
    "lightning",
    "lno",
    "message",
    "pay",
    "pj",
    "pjos",
    "pop",
    "r",
    "sp",
    "tb",
    "tsp",
];
const ADDRESS_ALONE: &str =
    "write the address alone into the path, or the whole `bitcoin:` URI percent-encoded";

/// Why serde could not make a type of what a client sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("unknown field `{name}`")]
    Unknown {
        name: String,
        known: &'static [&'static str],
    },
    #[error("missing field `{0}`")]
    Missing(&'static str),
    #[error("named more than once")]
    /// The field, unless the path ends with it.
    Repeated(Option<&'static str>),
    #[error("must be {expected}")]
    Wrong {
        expected: String,
        found: Option<String>,
    },
}

impl de::Error for Problem {
    /// The message says what the value must be.
    fn custom<T: Display>(message: T) -> Self {
        Self::Wrong {
            expected: message.to_string(),
            found: None,
        }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Wrong {
            expected: expectation(expected),
            found: Some(kind(unexpected).to_owned()),
        }
    }

    /// Numbers are shown; text is not, it may be a secret.
    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match unexpected {
            Unexpected::Unsigned(number) => Some(number.to_string()),
            Unexpected::Signed(number) => Some(number.to_string()),
            Unexpected::Float(number) => Some(number.to_string()),
            _ => None,
        };
        Self::Wrong {
            expected: expectation(expected),
            found,
        }
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::Wrong {
            expected: expectation(expected),
            found: Some(length.to_string()),
        }
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::Unknown {
            name: name.to_owned(),
            known,
        }
    }

    fn missing_field(name: &'static str) -> Self {
        Self::Missing(name)
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::Repeated(Some(name))
    }
}

/// In our words where serde's are a programmer's.
fn expectation(expected: &dyn Expected) -> String {
    match expected.to_string().as_str() {
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "an array".to_owned(),
        other => other.to_owned(),
    }
}

pub(super) fn kind(value: Unexpected<'_>) -> &'static str {
    match value {
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Str(_) | Unexpected::Char(_) => "a string",
        Unexpected::Seq => "an array",
        _ => "an object",
    }
}

/// Where a client said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestPart {
    /// A body or an event's argument.
    Object,
    /// Perhaps of a path that ends with an address.
    Query { of_address: bool },
}

impl RequestPart {
    fn word(self) -> &'static str {
        match self {
            Self::Object => "field",
            Self::Query { .. } => "query parameter",
        }
    }

    fn invalid(self, name: &str, what: &str) -> ApiError {
        match self {
            Self::Object => ApiError::invalid_field(name, what),
            Self::Query { .. } => ApiError::invalid_parameter(name, what),
        }
    }
}

/// The answer to a client whose request could not be read as a `T`.
pub(super) fn refusal<T: Request>(problem: Problem, path: &Path, part: RequestPart) -> ApiError {
    let names: Vec<String> = path.iter().map(segment).collect();
    match problem {
        // The last name of the path is the unknown one.
        Problem::Unknown { name, known } => {
            let (_, parents) = names.split_last().unzip();
            unknown::<T>(&name, known, &place(parents.unwrap_or_default()), part)
        }
        Problem::Missing(name) => missing::<T>(&field(&names, Some(name))),
        Problem::Repeated(name) => part.invalid(&field(&names, name), "named once, not more often"),
        Problem::Wrong { found, .. } if names.is_empty() => {
            let found = found.unwrap_or_else(|| "something else".to_owned());
            let message = format!(
                "A JSON object is expected, such as {}, not {found}.",
                T::EXAMPLE
            );
            ApiError::bad_request("invalid_json", message)
        }
        // As good as absent.
        Problem::Wrong { found, .. } if found.as_deref() == Some("null") && names.len() == 1 => {
            missing::<T>(&field(&names, None))
        }
        Problem::Wrong { expected, found } => {
            let what = match found {
                Some(found) => format!("{expected}, not {found}"),
                None => expected,
            };
            part.invalid(&field(&names, None), &what)
        }
    }
}

fn missing<T: Request>(field: &str) -> ApiError {
    ApiError::missing_field(field, T::EXAMPLE)
}

fn unknown<T: Request>(
    name: &str,
    known: &'static [&'static str],
    place: &str,
    part: RequestPart,
) -> ApiError {
    let word = part.word();
    let hint = match (instead::<T>(name, part), nearest(name, known)) {
        (Some(instead), _) => format!("{instead}. {}", there_are("There", known, part)),
        (None, Some(near)) if known.len() == 1 => format!("did you mean `{near}`?"),
        (None, Some(near)) => {
            format!("did you mean `{near}`? {}", there_are("There", known, part))
        }
        (None, None) => there_are("there", known, part),
    };
    let message = format!("Unknown {word} `{}`{place}: {hint}", shortened(name));
    ApiError::bad_request("unknown_field", message)
}

fn instead<T: Request>(name: &str, part: RequestPart) -> Option<&'static str> {
    let found = T::INSTEAD.iter().find(|(known, _)| *known == name);
    let instead = found.map(|(_, instead)| *instead);
    let of_address = part == RequestPart::Query { of_address: true };
    instead.or_else(|| (of_address && is_of_uri(name)).then_some(ADDRESS_ALONE))
}

/// Whether a `bitcoin:` URI in the path may have brought this parameter.
fn is_of_uri(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    OF_URIS.contains(&name.as_str()) || name.starts_with("req-")
}

/// The known name that is most like this one, if any is.
fn nearest(name: &str, known: &'static [&'static str]) -> Option<&'static str> {
    // Longer ones resemble nothing, and comparing takes the product of the lengths.
    let name = Some(name).filter(|name| name.len() <= 64)?.to_lowercase();
    let likeness = |known: &&'static str| (strsim::jaro_winkler(&name, known), *known);
    let near = known.iter().map(likeness).filter(|(near, _)| *near > NEAR);
    near.max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, it)| it)
}

fn there_are(there: &str, known: &'static [&'static str], part: RequestPart) -> String {
    let quoted: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    match (quoted.split_last(), part) {
        (None, _) => {
            let no = if there == "There" { "No" } else { "no" };
            format!("{no} {} is taken here.", part.word())
        }
        (Some((last, [])), _) => format!("{there} is {last}."),
        (Some((last, others)), _) => format!("{there} are {} and {last}.", others.join(", ")),
    }
}

fn segment(segment: &Segment) -> String {
    match segment {
        Segment::Seq { index } => format!("[{index}]"),
        Segment::Map { key } => shortened(key),
        Segment::Enum { variant } => shortened(variant),
        Segment::Unknown => "?".to_owned(),
    }
}

/// The path as a client would write it: `addresses[2].label`.
fn field(names: &[String], last: Option<&str>) -> String {
    let mut text = String::new();
    for name in names.iter().map(String::as_str).chain(last) {
        if !text.is_empty() && !name.starts_with('[') {
            text.push('.');
        }
        text.push_str(name);
    }
    text
}

/// Where an object that is not the outermost one stands.
fn place(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!(" in \"{}\"", field(names, None)),
    }
}
