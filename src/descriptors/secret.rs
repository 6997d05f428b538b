//! Private keys and seeds, known by their shape, so that one with a mistyped letter is found, too.
//!
//! A descriptor has long words and many short ones in a row itself. Only what is none of its own is
//! found here, so that a text is refused for a secret if there is one.

use bitcoin::base58;

use super::problem::SecretShape;
use super::{MAX_BYTES, spelling};

/// Fewest words of a seed, with one left out.
const SEED_WORDS: usize = 11;

/// The first secret in a text, also with blanks or invisible characters inside. What is behind the
/// longest text that is parsed is not looked at: it is not said again either.
pub fn find(text: &str) -> Option<SecretShape> {
    let text = &text[..text.floor_char_boundary(MAX_BYTES)];
    if is_seed(text) {
        return Some(SecretShape::SeedWords);
    }
    let joined: String = text.chars().filter(char::is_ascii_graphic).collect();
    [text, &joined].into_iter().find_map(|text| {
        text.split(|c: char| !c.is_ascii_alphanumeric())
            .find_map(key)
    })
}

fn key(word: &str) -> Option<SecretShape> {
    if word.len() < 20 || spelling::is_extended_public_key(word) {
        return None;
    }
    let first = word.as_bytes().first()?;
    match word.len() {
        // BIP 38.
        56..=60 if word.starts_with("6P") => Some(SecretShape::EncryptedKey),
        // Wallet import format, with letters left out or too many.
        48..=55 if b"5KL9c".contains(first) => Some(SecretShape::PrivateKey),
        // Shares of a seed (BIP 93), keys of Nostr.
        40.. if begins(word, "ms1") || begins(word, "nsec1") => Some(SecretShape::PrivateKey),
        _ if has_extended_key(word) => Some(SecretShape::ExtendedPrivateKey),
        _ if has_private_key(word) => Some(SecretShape::PrivateKey),
        _ => None,
    }
}

fn begins(word: &str, with: &str) -> bool {
    let head = word.get(..with.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(with))
}

/// As BIP 32 and SLIP 132 write it, also run together with what stands before it.
fn has_extended_key(word: &str) -> bool {
    const FEWEST_BEHIND: usize = 16;
    word.as_bytes()
        .windows(4_usize.saturating_add(FEWEST_BEHIND))
        .any(|part| {
            part.get(1..4)
                .is_some_and(|head| head.eq_ignore_ascii_case(b"prv"))
                && part
                    .first()
                    .is_some_and(|first| b"xyztuv".contains(&first.to_ascii_lowercase()))
        })
}

/// In wallet import format with a right checksum, run together with other letters.
fn has_private_key(word: &str) -> bool {
    word.char_indices().any(|(place, first)| {
        let length = match first {
            '5' | '9' => 51,
            'K' | 'L' | 'c' => 52,
            _ => return false,
        };
        let part = word.get(place..place.saturating_add(length));
        part.and_then(|part| base58::decode_check(part).ok())
            .is_some_and(|data| matches!(data.len(), 33 | 34))
    })
}

/// Many words of letters alone, one after the other, with numbers or signs of a list between them.
/// The names of functions stand in parentheses, which no seed has.
fn is_seed(text: &str) -> bool {
    let mut count = 0_usize;
    for word in text.split(|c: char| !c.is_alphanumeric() && !"()[]{}_/*#".contains(c)) {
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        if is_number {
            continue;
        }
        let is_word = word.chars().all(char::is_alphabetic);
        count = if is_word { count.saturating_add(1) } else { 0 };
        if count == SEED_WORDS {
            return true;
        }
    }
    false
}
