//! Keys, seed words and tokens: what must not be shown again, neither to the client nor in the log.
//!
//! They are known by their shape, so that one with a mistyped letter is found, too. Copies of a
//! text are overwritten when they are not needed any more, except those that the decoder of base58
//! makes.

use bitcoin::base58;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::text::{after_scheme, is_hex, is_invisible, starts_with};

/// What somebody should not have sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    PrivateKey,
    EncryptedKey,
    ExtendedPrivateKey,
    SeedWords,
}

/// Fewest words of a seed, with one left out.
const SEED_WORDS: usize = 11;
/// No word of a seed has more letters, whatever its language.
const LONGEST_WORD: usize = 12;

/// Whether a text must not be shown. 64 hexadecimal digits may be a private key, too.
pub fn is_in(text: &str) -> bool {
    let is_key = |word: &str| {
        let digits = after_scheme(word, "0x").unwrap_or(word);
        digits.len() == 64 && is_hex(digits)
    };
    let is_secret = |text: &Zeroizing<String>| is_token(text) || words(text).any(is_key);
    find(text).is_some() || forms(text).iter().any(is_secret)
}

/// Of ours (`crate::auth`).
fn is_token(text: &str) -> bool {
    let length = |text: &str| text.bytes().take_while(u8::is_ascii_alphanumeric).count();
    text.split("sw_").skip(1).any(|behind| length(behind) >= 40)
}

/// The first key in a text, or the words of a seed.
pub fn find(text: &str) -> Option<SecretKind> {
    let forms = forms(text);
    if forms.iter().any(|text| is_seed(text)) {
        return Some(SecretKind::SeedWords);
    }
    forms.iter().find_map(|text| words(text).find_map(key))
}

/// The part of a text that is looked at: nothing behind it is shown, and no key is as long.
fn beginning(text: &str) -> &str {
    const MOST_BYTES: usize = 4096;
    &text[..text.floor_char_boundary(MOST_BYTES)]
}

/// A text as it came and percent-decoded, each also without what nobody sees and without space.
fn forms(text: &str) -> Vec<Zeroizing<String>> {
    let text = beginning(text);
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    bytes.extend(percent_decode_str(text));
    let decoded = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
    [text, &decoded]
        .iter()
        .flat_map(|text| {
            [
                kept(text, |_| true),
                kept(text, |c| !is_invisible(c)),
                kept(text, |c| !c.is_whitespace() && !is_invisible(c)),
            ]
        })
        .collect()
}

/// In one place of memory, which is overwritten.
fn kept(text: &str, is_kept: fn(char) -> bool) -> Zeroizing<String> {
    let mut kept = Zeroizing::new(String::with_capacity(text.len()));
    kept.extend(text.chars().filter(|c| is_kept(*c)));
    kept
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
}

fn key(word: &str) -> Option<SecretKind> {
    let (first, behind) = word.split_at_checked(1)?;
    match word.len() {
        // Wallet import format, of a test network, too, and in letters of one size.
        50..=54 if "5KL9c".contains(first) || is_checked_key(word) => Some(SecretKind::PrivateKey),
        50..=54 if "klC".contains(first) && has_digit(word) => Some(SecretKind::PrivateKey),
        // Its form with a passphrase (BIP 38).
        56..=60 if starts_with(word, "6P") => Some(SecretKind::EncryptedKey),
        // Shares of a seed (BIP 93), keys of Nostr.
        40.. if starts_with(word, "ms1") || starts_with(word, "nsec1") => {
            Some(SecretKind::PrivateKey)
        }
        // As BIP 32 and SLIP 132 write it.
        20.. if "xyztuvXYZTUV".contains(first) && starts_with(behind, "prv") => {
            Some(SecretKind::ExtendedPrivateKey)
        }
        _ => None,
    }
}

fn has_digit(word: &str) -> bool {
    word.bytes().any(|byte| byte.is_ascii_digit())
}

/// In the form of other coins, whose first letters are others.
fn is_checked_key(word: &str) -> bool {
    base58::decode_check(word).is_ok_and(|data| {
        let data = Zeroizing::new(data);
        matches!(data.len(), 33 | 34) && data.first() >= Some(&0x80)
    })
}

/// Many words of letters alone, one after the other. Numbers between them do not matter.
fn is_seed(text: &str) -> bool {
    let mut count = 0_usize;
    for word in text.split(|c: char| c.is_whitespace() || c.is_ascii_punctuation()) {
        let word = kept(word, |c| !is_invisible(c));
        if word.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // Marks that are written apart from their letters are no letters.
        let letters = word.chars().filter(|c| c.is_alphabetic()).count();
        let ascii_others = word.chars().any(|c| c.is_ascii() && !c.is_alphabetic());
        if ascii_others || letters == 0 || letters > LONGEST_WORD {
            count = 0;
            continue;
        }
        count = count.saturating_add(1);
        if count == SEED_WORDS {
            return true;
        }
    }
    false
}

/// As long as a key, of small and capital letters and digits: it may have a key inside.
fn may_hold_key(word: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| word.as_bytes().iter().any(kind);
    word.len() >= 50
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_uppercase)
        && has_digit(word)
}

/// Text that a client sent, fit to be shown in a sentence: at most 100 characters, without control
/// characters, and no key.
pub fn shortened(text: &str) -> String {
    let may_hold_key = |text: &Zeroizing<String>| words(text).any(may_hold_key);
    if is_in(text) || forms(text).iter().any(may_hold_key) {
        return "(not shown: it may be a key)".to_owned();
    }
    const MOST: usize = 100;
    let mut shown: String = beginning(text)
        .chars()
        .filter(|c| !c.is_control())
        .take(MOST)
        .collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

    use super::*;

    const SEED: &str =
        "legal winner thank year wave sausage worth useful legal winner thank yellow";

    #[test]
    fn keys_and_seeds_are_found_also_when_a_letter_is_wrong() {
        use SecretKind::*;
        for (text, what) in [
            (
                "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
                PrivateKey,
            ),
            (
                "KwdMAjGmerYanjeui5SHS7JkmpZvVipYvB2LJGU1ZxJwYvP98617",
                PrivateKey,
            ),
            (
                "KwdMAjGmerYanjeui5SHS7JkmpZvVipYvB2LJGU1ZxJwYvP9861O",
                PrivateKey,
            ),
            (
                "KwdMAjGmerYanjeui5SHS7JkmpZvVipYvB2LJGU1ZxJwYvP9861",
                PrivateKey,
            ),
            (
                "cMzLdeGd5vEqxB8B6VFQoRopQ3sLAAvEzDAoQgvX54xwofSWj1fx",
                PrivateKey,
            ),
            (
                "T35wFyAkeVxYy4ynXVE1tjcuGy6UxAc36bQSskpxAk38SatWjNF1",
                PrivateKey,
            ),
            (
                "/balance/KwdMAjGm\u{200b}erYanjeui5SHS7JkmpZvVipYvB2LJGU1ZxJwYvP98617?x",
                PrivateKey,
            ),
            (
                "KwdMAj GmerYa njeui5SHS7JkmpZvVipYvB2LJGU1ZxJwYvP98617",
                PrivateKey,
            ),
            (
                "wpkh(KwdMAjGmerYanjeui5SHS7JkmpZvVipYvB2LJGU1ZxJwYvP98617)",
                PrivateKey,
            ),
            (
                "6PRVWUbkzzsbcVac2qwfssoUJAN1Xhrg6bNk8J7Nzm5H7kxEbn2Nh2ZoGg",
                EncryptedKey,
            ),
            (
                "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi",
                ExtendedPrivateKey,
            ),
            (
                "wpkh([00000000/84h]tprv8ZgxMBicQKsPd7Uf69XL1XwhmjHopUGep8GuEiJDZmbQz6o58LninorQAfcKZWARbtRtfnLcJ5MQ2AtHcQJCCRUcMRvmDUjyEmNUWwx8UbK/0/*)",
                ExtendedPrivateKey,
            ),
            (SEED, SeedWords),
            (
                "/balance/legal%20winner%20thank%20year%20wave%20sausage%20worth%20useful%20legal%20winner%20thank%20yellow",
                SeedWords,
            ),
            (
                "1. legal 2. winner 3. thank 4. year 5. wave 6. sausage 7. worth 8. useful 9. legal 10. winner 11. thank 12. yellow",
                SeedWords,
            ),
            (
                "あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あいこくしん　あおぞら",
                SeedWords,
            ),
        ] {
            assert_eq!(find(text), Some(what), "{text}");
            assert!(is_in(text), "{text}");
        }
        assert!(is_in(&"1f".repeat(32)));
    }

    #[test]
    fn a_key_is_not_shown_either_when_it_is_run_together_with_other_letters() {
        let key = "KwdMAjGmerYanjeui5SHS7JkmpZvVipYvB2LJGU1ZxJwYvP98617";
        for text in [format!("req-x{key}"), format!("{key}yes=1")] {
            assert_eq!(find(&text), None, "it is no key");
            assert!(shortened(&text).starts_with("(not shown"), "{text}");
        }
        for address in [
            "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
            "BC1QRP33G0Q5C5TXSP9ARYSRX4K6ZDKFS4NCE4XJ0GDCCCEFVPYSXF3QCCFMV3",
        ] {
            assert_eq!(shortened(address), address);
        }
    }

    #[test]
    fn case_b6_a_key_in_letters_of_one_size_or_in_groups_is_not_shown_either() {
        let key = "KwdMAjGmerYanjeui5SHS7JkmpZvVipYvB2LJGU1ZxJwYvP98617";
        let extended = "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi";
        let encrypted = "6PRVWUbkzzsbcVac2qwfssoUJAN1Xhrg6bNk8J7Nzm5H7kxEbn2Nh2ZoGg";
        for text in [
            key.to_lowercase(),
            key.to_uppercase(),
            extended.to_uppercase(),
            extended.to_lowercase(),
            encrypted.to_lowercase(),
        ] {
            assert!(find(&text).is_some(), "{text}");
            assert!(shortened(&text).starts_with("(not shown"), "{text}");
        }
        let groups = key.as_bytes().chunks(4);
        let groups: Vec<_> = groups
            .filter_map(|group| std::str::from_utf8(group).ok())
            .collect();
        let text = format!("key {}", groups.join(" "));
        assert!(shortened(&text).starts_with("(not shown"), "{text}");
    }

    #[test]
    fn no_more_of_a_long_text_is_looked_at_than_may_be_shown() {
        let key = "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ";
        let long = |before: &str| format!("{} {key}", before.repeat(3000));
        assert_eq!(shortened(&long("é")), format!("{}…", "é".repeat(100)));
        assert_eq!(
            shortened(&long("\u{1}\u{2}")),
            "…",
            "what is behind is not shown"
        );
        assert_eq!(
            shortened(&format!("{key}{}", "é".repeat(3000)))[..10],
            "(not shown"[..]
        );
    }

    #[test]
    fn case_09_keys_are_found_also_in_what_an_encoded_path_or_a_name_holds() {
        let hex = "1f".repeat(32);
        let (head, tail) = hex.split_at(9);
        let japanese = ["あいこくしん"; 12].join("　");
        let encoded = utf8_percent_encode(&japanese, NON_ALPHANUMERIC).to_string();
        for text in [
            &format!("/adress/0x{hex}"),
            &format!("0X{hex}"),
            &format!("/adress/{head}%E2%80%8B{tail}"),
            &format!("{head} {tail}"),
            &format!("/adress/{}", SEED.replace(' ', "%0A")),
            &format!("/adress/{}", SEED.replace(' ', "%2C")),
            &SEED.replace(' ', "\n"),
            &format!("['{}']", SEED.replace(' ', "', '")),
            &format!("/adress/{encoded}"),
            "/adress/KwdMAjGm%E2%80%8BerYanjeui5SHS7JkmpZvVipYvB2LJGU1ZxJwYvP98617",
            "KwdMAjGmerYanjeui5SHS7JkmpZvVipYvB2LJGU1ZxJwYvP98617\nmy key",
        ] {
            assert!(is_in(text), "{text}");
        }
    }

    #[test]
    fn what_is_public_is_no_secret() {
        for text in [
            "",
            "hello",
            "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
            "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
            "xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8NqtwybGhePY2gZ29ESFjqJoCu1Rupje8YtGqsefD265TMg7usUDFdp6W1EGMcet8",
            "/consumers/shop/dead_letters/resend",
            "no_such_event",
            "one two three four five six seven eight nine ten",
        ] {
            assert_eq!(find(text), None, "{text}");
            assert!(!is_in(text), "{text}");
        }
    }

    #[test]
    fn shows_remote_text_bounded_and_without_control_characters() {
        assert_eq!(shortened("a\u{1b}[31mb\n"), "a[31mb");
        assert_eq!(shortened(&"é".repeat(101)).chars().count(), 101);
        assert_eq!(shortened(&"é".repeat(100)), "é".repeat(100));
        let key = "KwdMAjGmerYanjeui5SHS7JkmpZvVipYvB2LJGU1ZxJwYvP98617";
        assert!(!shortened(&format!("/adress/{key}")).contains("Kwd"));
    }
}
