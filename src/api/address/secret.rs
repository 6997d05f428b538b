//! Keys and seed words: what must not be shown again, neither to the client nor in the log.
//!
//! A look at the shape, so that one with a mistyped letter is found as well.

use bitcoin::base58;

use super::pasted;

/// What somebody should not have sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secret {
    PrivateKey,
    EncryptedKey,
    ExtendedPrivateKey,
    SeedWords,
}

/// Fewest words of a seed, with one left out.
const SEED_WORDS: usize = 11;
/// Letters of the longest word of a seed, in any language that has them, and some.
const LONGEST_WORD: usize = 12;

/// Whether a text is to be kept to ourselves. 64 hexadecimal digits may be a private key, too.
pub fn is_in(text: &str) -> bool {
    find(text).is_some() || words(text).any(|word| word.len() == 64 && is_hex(word))
}

/// The first key in a text, or the words of a seed.
pub fn find(text: &str) -> Option<Secret> {
    if is_seed(text) {
        return Some(Secret::SeedWords);
    }
    let shown: String = text.chars().filter(|c| !pasted::is_invisible(*c)).collect();
    let together = pasted::visible(text);
    words(&shown).chain(words(&together)).find_map(key)
}

pub fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
}

fn key(word: &str) -> Option<Secret> {
    let (first, _) = word.split_at_checked(1)?;
    match word.len() {
        // Wallet import format, of a test network, too.
        50..=54 if "5KL9c".contains(first) || is_checked_key(word) => Some(Secret::PrivateKey),
        // Its form with a passphrase (BIP 38).
        56..=60 if word.starts_with("6P") => Some(Secret::EncryptedKey),
        // Shares of a seed (BIP 93), keys of Nostr.
        40.. if pasted::starts_with(word, "ms1") || pasted::starts_with(word, "nsec1") => {
            Some(Secret::PrivateKey)
        }
        // As BIP 32 and SLIP 132 write it.
        20.. if word.get(1..4) == Some("prv") && "xyztuvYZUV".contains(first) => {
            Some(Secret::ExtendedPrivateKey)
        }
        _ => None,
    }
}

/// In the form of other coins, whose first letters are others.
fn is_checked_key(word: &str) -> bool {
    base58::decode_check(word)
        .is_ok_and(|data| matches!(data.len(), 33 | 34) && data.first() >= Some(&0x80))
}

/// Many words of letters alone, one after the other. Numbers between them do not matter.
fn is_seed(text: &str) -> bool {
    let text = text.replace("%20", " ");
    let mut count = 0_usize;
    for word in text.split(|c: char| c.is_whitespace() || ",;+-_./|:&=?\"".contains(c)) {
        let word: String = word.chars().filter(|c| !pasted::is_invisible(*c)).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str =
        "legal winner thank year wave sausage worth useful legal winner thank yellow";

    #[test]
    fn keys_and_seeds_are_found_also_when_a_letter_is_wrong() {
        use Secret::*;
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
}
