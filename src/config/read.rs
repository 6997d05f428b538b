//! How a value is read, from text or from a value of the `config` crate.
//!
//! A reader is a function that gives the value, or what is wrong: what came, and what is expected.
//! Where a value of the wrong type came it is not shown, because it may be a secret.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use ::config::ValueKind;

use super::Secret;

/// What a source gives for a setting.
pub enum Given<'a> {
    /// In the environment and in flags all is text.
    Text(&'a str),
    /// In a file each value has a type.
    Typed(&'a ValueKind),
}

type Reading<T> = Result<T, String>;

impl Given<'_> {
    fn text(&self) -> Reading<&str> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Typed(ValueKind::String(text)) => Ok(text),
            Self::Typed(other) => Err(format!("is {}", kind(other))),
        }
    }
}

fn kind(value: &ValueKind) -> &'static str {
    match value {
        ValueKind::String(_) => "a text",
        ValueKind::I64(_) | ValueKind::U64(_) | ValueKind::I128(_) | ValueKind::U128(_) => {
            "a whole number"
        }
        ValueKind::Float(_) => "a number with a point",
        ValueKind::Boolean(_) => "a boolean",
        ValueKind::Array(_) => "a list",
        ValueKind::Table(_) => "a section",
        ValueKind::Nil => "nothing",
    }
}

fn not_valid(shown: &str) -> String {
    format!("= {shown} is not valid")
}

/// An address with a user and a password in it must not be printed.
fn shown(text: &str) -> String {
    match text.contains('@') {
        true => "(hidden)".to_owned(),
        false => format!("{text:?}"),
    }
}

fn expecting<T>(reading: Reading<T>, expected: &str) -> Reading<T> {
    reading.map_err(|came| format!("{came}: expected {expected}"))
}

/// A value that is a text in TOML, too.
pub fn one<T>(
    parse: impl Fn(&str) -> Option<T>,
    expected: &str,
) -> impl Fn(&Given<'_>) -> Reading<T> {
    move |given| {
        let read = |text| parse(text).ok_or_else(|| not_valid(&shown(text)));
        expecting(given.text().and_then(read), expected)
    }
}

/// For [`one`] and [`list`]: a text of this form.
pub fn text(check: fn(&str) -> bool) -> impl Fn(&str) -> Option<String> {
    move |text| check(text).then(|| text.to_owned())
}

/// For [`one`] and [`list`].
pub fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

pub fn path(given: &Given<'_>) -> Reading<PathBuf> {
    let path = |text: &str| (!text.is_empty()).then(|| text.into());
    one(path, "a path")(given)
}

pub fn optional<T>(
    read: impl Fn(&Given<'_>) -> Reading<T>,
) -> impl Fn(&Given<'_>) -> Reading<Option<T>> {
    move |given| read(given).map(Some)
}

/// A text that is not shown, because it is a secret or may hold one.
pub fn hidden(check: fn(&str) -> bool, expected: &str) -> impl Fn(&Given<'_>) -> Reading<String> {
    move |given| {
        let read = |text: &str| match check(text) {
            true => Ok(text.to_owned()),
            false => Err(not_valid("(hidden)")),
        };
        expecting(given.text().and_then(read), expected)
    }
}

/// The same of what is parsed.
pub fn hidden_parsed<T: FromStr>(expected: &str) -> impl Fn(&Given<'_>) -> Reading<T> {
    move |given| {
        let read = |text: &str| text.parse().map_err(|_| not_valid("(hidden)"));
        expecting(given.text().and_then(read), expected)
    }
}

pub fn secret(
    check: fn(&str) -> bool,
    expected: &str,
) -> impl Fn(&Given<'_>) -> Reading<Option<Secret>> {
    let read = hidden(check, expected);
    move |given| read(given).map(Secret).map(Some)
}

/// Of `parse`d texts.
pub fn list<T>(
    parse: impl Fn(&str) -> Option<T>,
    expected: &str,
) -> impl Fn(&Given<'_>) -> Reading<Vec<T>> {
    let read = move |given: &Given<'_>| {
        let items = match given {
            Given::Text(text) => {
                let items = text.split(',').map(str::trim);
                items.filter(|item| !item.is_empty()).collect()
            }
            Given::Typed(ValueKind::Array(items)) => {
                let items = items.iter().map(|item| match &item.kind {
                    ValueKind::String(text) => Ok(text.as_str()),
                    other => Err(format!("has {} in it", kind(other))),
                });
                items.collect::<Result<Vec<_>, _>>()?
            }
            Given::Typed(other) => return Err(format!("is {}", kind(other))),
        };
        let wrong: Vec<_> = items.iter().filter(|item| parse(item).is_none()).collect();
        match wrong.is_empty() {
            true => Ok(items.into_iter().filter_map(&parse).collect()),
            false => {
                let wrong: Vec<_> = wrong.into_iter().map(|item| shown(item)).collect();
                Err(not_valid(&wrong.join(", ")))
            }
        }
    };
    move |given| expecting(read(given), &format!("a list of {expected}"))
}

pub fn boolean(given: &Given<'_>) -> Reading<bool> {
    let read = match given {
        Given::Typed(ValueKind::Boolean(value)) => Ok(*value),
        Given::Typed(other) => Err(format!("is {}", kind(other))),
        Given::Text(text) => text.parse().map_err(|_| not_valid(&shown(text))),
    };
    expecting(read, "true or false")
}

pub fn whole<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(&Given<'_>) -> Reading<T> {
    move |given| {
        let came = match given {
            Given::Typed(ValueKind::I64(number)) => {
                Ok((u64::try_from(*number).ok(), number.to_string()))
            }
            Given::Typed(other) => Err(format!("is {}", kind(other))),
            Given::Text(text) => Ok((text.parse().ok(), shown(text))),
        };
        let read = came.and_then(|(number, shown)| {
            let number = number.filter(|number| range.contains(number));
            let number = number.and_then(|number| T::try_from(number).ok());
            number.ok_or_else(|| not_valid(&shown))
        });
        let (first, last) = (range.start(), range.end());
        expecting(read, &format!("a whole number from {first} to {last}"))
    }
}

/// One of these words.
pub fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Given<'_>) -> Reading<T> {
    move |given| {
        let named = |text: &str| words.iter().find(|(word, _)| *word == text);
        let quoted: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        one(
            |text| named(text).map(|(_, value)| *value),
            &quoted.join(" or "),
        )(given)
    }
}
