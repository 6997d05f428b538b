//! The names of consumers.

use crate::wire::error::{ApiError, shortened};

const MAX_NAME: usize = 64;

/// Checks a consumer's name.
pub fn consumer_name(text: &str) -> Result<&str, ApiError> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_good) {
        return Ok(text);
    }
    let shown = match text {
        "" => "An empty text".to_owned(),
        text => shortened(text),
    };
    let message = format!(
        "{shown} is no name of a consumer; use 1 to {MAX_NAME} of the characters A-Z a-z 0-9 _ -."
    );
    Err(ApiError::bad_request("invalid_name", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_has_a_plain_name() {
        for good in ["a", "shop-1", "_", "-", "A_9", &"x".repeat(64)] {
            assert_eq!(consumer_name(good), Ok(good));
        }
        for bad in [
            "",
            " ",
            "a b",
            "a/b",
            "é",
            "a.b",
            "a\0",
            "../x",
            "\u{fffd}",
            &"x".repeat(65),
        ] {
            let error = consumer_name(bad).unwrap_err();
            assert_eq!(error.code, "invalid_name", "{bad}");
        }
        let empty = consumer_name("").unwrap_err().message;
        assert!(
            empty.starts_with("An empty text is no name of a consumer"),
            "{empty}"
        );
    }
}
