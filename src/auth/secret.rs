//! The text of a token, and what is kept of it.

use std::fmt;

use bitcoin::base58;
use bitcoin::hashes::{Hash, sha256};
use subtle::ConstantTimeEq;

/// Says what it is wherever it turns up.
const PREFIX: &str = "sw_";
const BYTES: usize = 32;

/// Identifies a token; says nothing of its text. Never given twice: it is random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 8]);

impl TokenId {
    pub fn random() -> Self {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).expect("the system has random numbers");
        Self(bytes)
    }

    pub fn parse(text: &str) -> Option<Self> {
        hex_bytes(text).map(Self)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// What is kept of a token's text: it is random enough that nobody finds a text by its hash.
#[derive(Debug, Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    pub fn of(token: &TokenText) -> Self {
        Self(sha256::Hash::hash(token.0.as_bytes()).to_byte_array())
    }

    pub fn parse(text: &str) -> Option<Self> {
        hex_bytes(text).map(Self)
    }
}

/// In a time that does not depend on where they differ.
impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// `sw_` and 32 random bytes in base58 with a checksum, so that a text with a typing error, or one
/// that was cut, is known for what it is.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText(String);

impl TokenText {
    pub fn random() -> Self {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).expect("the system has random numbers");
        Self(format!("{PREFIX}{}", base58::encode_check(&bytes)))
    }

    /// `None` for what no token can be.
    pub fn parse(text: &str) -> Option<Self> {
        // Longer than any: base58 takes a time that grows with the square of the length.
        let encoded = text.strip_prefix(PREFIX).filter(|it| it.len() <= 64)?;
        let bytes = base58::decode_check(encoded).ok()?;
        (bytes.len() == BYTES).then(|| Self(text.to_owned()))
    }

    /// For the person who is to have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Lower case, as it is written.
fn hex_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_told_from_what_looks_like_one() {
        let token = TokenText::random();
        let text = token.reveal().to_owned();
        assert!(text.starts_with("sw_") && TokenText::parse(&text) == Some(token.clone()));
        assert_ne!(TokenText::random(), token);
        assert_eq!(format!("{token:?}"), "(hidden)");
        let mut typo = text.clone().into_bytes();
        typo[10] = if typo[10] == b'x' { b'y' } else { b'x' };
        let bare = base58::encode_check(&[7; 31]);
        for wrong in [
            "",
            "sw_",
            &text[3..],
            &text[..text.len() - 1],
            &format!("{text} "),
            &format!("{text}1"),
            &String::from_utf8(typo).expect("ASCII"),
            &format!("sw_{bare}"),
            &format!("sw_{}", "1".repeat(100_000)),
            "sw_ä",
        ] {
            assert_eq!(TokenText::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ids_and_hashes_are_read_as_they_are_written() {
        let id = TokenId::random();
        assert_eq!(TokenId::parse(&id.to_string()), Some(id));
        let (one, other) = (TokenText::random(), TokenText::random());
        let hash = TokenHash::of(&one);
        assert!(TokenHash::parse(&hash.to_string()) == Some(hash));
        assert!(hash != TokenHash::of(&other));
        for wrong in [
            "",
            "0",
            "0011223344556677 ",
            "00112233445566GG",
            "0011223344556677AA",
        ] {
            assert_eq!(TokenId::parse(wrong), None, "{wrong}");
        }
        assert_eq!(TokenId::parse("00112233445566AA"), None, "one spelling");
    }
}
