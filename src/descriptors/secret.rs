//! Private keys and seeds, known by their shape, so that one with a mistyped letter is found, too.
//!
//! A descriptor has long words and many short ones in a row itself. Only what is none of its own is
//! found here, so that a text is refused for a secret if there is one. Copies of a text are
//! overwritten when they are not needed any more, except those that the decoder of base58 makes.

use bitcoin::base58;
use zeroize::Zeroizing;

use super::problem::SecretShape;
use super::{MAX_BYTES, spelling};

/// Fewest words of a seed, with one left out.
const SEED_WORDS: usize = 11;
/// No word of a seed has more letters, whatever its language.
const LONGEST_SEED_WORD: usize = 12;

/// The first secret in a text, also in pieces: with blanks, signs or invisible characters inside.
/// What is behind the longest text that is parsed is not looked at: it is not said again either.
pub fn find(text: &str) -> Option<SecretShape> {
    let text = text.trim();
    let text = &text[..text.floor_char_boundary(MAX_BYTES)];
    if is_seed(text) {
        return Some(SecretShape::SeedWords);
    }
    let found = words(text).find_map(key);
    if found.is_some() || is_hex_key(text) {
        return found.or(Some(SecretShape::PrivateKey));
    }
    let mut shown = Zeroizing::new(String::with_capacity(text.len()));
    shown.extend(text.chars().filter(char::is_ascii_graphic));
    if *shown != text
        && let Some(shape) = words(&shown).find_map(key)
    {
        return Some(shape);
    }
    let mut pieces = Zeroizing::new(String::with_capacity(text.len()));
    pieces.extend(words(text).filter(|word| !spelling::looks_extended(word)));
    match *pieces != text {
        true => run_together(&pieces),
        false => None,
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
}

fn key(word: &str) -> Option<SecretShape> {
    if word.len() < 20 {
        return None;
    }
    if is_decoded(word, |data| data.len() == 78 && data.get(45) == Some(&0)) {
        return Some(SecretShape::ExtendedPrivateKey);
    }
    if spelling::is_extended_public_key(word) {
        return None;
    }
    let first = word.as_bytes().first()?;
    let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
    match word.len() {
        // BIP 38.
        56..=60 if begins(word, "6P") => Some(SecretShape::EncryptedKey),
        // Wallet import format, with letters left out or too many, also in letters of one size. A
        // row of wrappers of miniscript has no digit.
        48..=55 if b"5KL9c".contains(first) || has_digit && b"klC".contains(first) => {
            Some(SecretShape::PrivateKey)
        }
        // In the form of other coins, whose first letters are others.
        50..=54 if is_decoded(word, is_private) => Some(SecretShape::PrivateKey),
        // Shares of a seed (BIP 93), keys of Nostr.
        40.. if begins(word, "ms1") || begins(word, "nsec1") => Some(SecretShape::PrivateKey),
        _ => run_together(word),
    }
}

fn begins(word: &str, with: &str) -> bool {
    let head = word.get(..with.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(with))
}

/// A key with other letters before or behind it.
fn run_together(word: &str) -> Option<SecretShape> {
    if has_extended_key(word) {
        return Some(SecretShape::ExtendedPrivateKey);
    }
    has_private_key(word).then_some(SecretShape::PrivateKey)
}

/// As BIP 32 and SLIP 132 write it. A public one with a mistyped letter, which has these letters by
/// chance in one case or another, is none.
fn has_extended_key(word: &str) -> bool {
    const FEWEST_BEHIND: usize = 16;
    let is_public = spelling::looks_extended(word);
    word.as_bytes()
        .windows(4_usize.saturating_add(FEWEST_BEHIND))
        .any(|part| {
            let (Some(first), Some(head)) = (part.first(), part.get(1..4)) else {
                return false;
            };
            let is_head = head == b"prv" || !is_public && head.eq_ignore_ascii_case(b"prv");
            is_head && b"xyztuv".contains(&first.to_ascii_lowercase())
        })
}

/// In wallet import format with a right checksum.
fn has_private_key(word: &str) -> bool {
    word.char_indices().any(|(place, first)| {
        let length = match first {
            '5' | '9' => 51,
            'K' | 'L' | 'c' => 52,
            _ => return false,
        };
        let part = word.get(place..place.saturating_add(length));
        part.is_some_and(|part| is_decoded(part, is_private))
    })
}

/// The bytes of wallet import format, of every coin.
fn is_private(data: &[u8]) -> bool {
    matches!(data.len(), 33 | 34) && data.first() >= Some(&0x80)
}

/// With a right checksum, and bytes that are of this kind.
fn is_decoded(word: &str, is_kind: fn(&[u8]) -> bool) -> bool {
    word.len() <= spelling::LONGEST_WORD
        && base58::decode_check(word).is_ok_and(|data| is_kind(&Zeroizing::new(data)))
}

/// 64 hexadecimal digits by themselves; in a descriptor they are a hash or a public key.
fn is_hex_key(text: &str) -> bool {
    !text.contains('(')
        && words(text)
            .any(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Many words of letters alone, one after the other, with numbers or signs between them. Before
/// them stands the name of a function, or none.
fn is_seed(text: &str) -> bool {
    let mut count = 0_usize;
    for piece in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_alphanumeric());
        let letters = word.trim_matches(|c: char| c.is_ascii_digit());
        if letters.is_empty() {
            continue;
        }
        let length = letters.chars().count();
        // A hardened step is a number with a letter.
        let is_step = letters.len() < word.len() && letters.is_ascii() && length < 3;
        let is_word = length <= LONGEST_SEED_WORD && letters.chars().all(char::is_alphabetic);
        let is_name = piece.ends_with('(');
        count = match is_word && !is_step && !is_name {
            true => count.saturating_add(1),
            false => 0,
        };
        if count == SEED_WORDS {
            return true;
        }
    }
    false
}
