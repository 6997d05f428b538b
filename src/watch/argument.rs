//! What the words of the command line are, by their shape alone.
//!
//! Only what looks like an address or an id comes into the path of a request, which proxies write
//! into their logs, and no text with a private key in it is sent: one that was pasted by mistake,
//! or the words of a seed, are refused here. 64 hexadecimal digits may be a private key or an id;
//! whoever sends them knows first that the daemon has such an id.

use anyhow::{Result, anyhow, bail};

use crate::descriptors;

/// The daemon takes 16 KiB before the body of a request, and all of them stand in the path of the
/// stream, with up to 76 bytes each.
const MOST: usize = 200;
/// No address is as long as an extended public key.
const LONGEST_ADDRESS: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// Of ASCII letters and digits.
    Address(String),
    /// An id of a descriptor.
    DescriptorId(String),
    /// A descriptor or an extended public key.
    Descriptor(String),
}

/// All words, or why they cannot be followed. What a word says is not shown.
pub fn parse(words: &[String]) -> Result<Vec<Argument>> {
    if words.len() > MOST {
        bail!(
            "{} addresses and wallets are too many for one satwatch watch, which follows up to {MOST}",
            words.len()
        );
    }
    let all = words.iter().zip(1..).map(|(word, place)| {
        of_word(word.trim()).ok_or_else(|| {
            anyhow!(
                "word {place} is no address, descriptor, extended public key or id of a descriptor; \
                 it was not sent, and is not shown, since it may be a private key"
            )
        })
    });
    all.collect()
}

fn of_word(word: &str) -> Option<Argument> {
    let link = word
        .split_at_checked("bitcoin:".len())
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bitcoin:"));
    if let Some((_, rest)) = link {
        return address(of_link(rest));
    }
    if word.contains('(') || word.len() > LONGEST_ADDRESS {
        let is_public = descriptors::find_secret(word).is_none();
        return is_public.then(|| Argument::Descriptor(word.to_owned()));
    }
    if word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(Argument::DescriptorId(word.to_ascii_lowercase()));
    }
    address(word)
}

/// The address in a link, which may stand in a parameter with the name of its network (BIP 321).
fn of_link(rest: &str) -> &str {
    let (address, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let address = address.trim_matches('/');
    if !address.is_empty() {
        return address;
    }
    let mut pairs = parameters.split('&').filter_map(|it| it.split_once('='));
    let is_network = |name: &str| starts_with(name, &["bc", "tb"]);
    let found = pairs.find(|(name, address)| is_network(name) && !address.is_empty());
    found.map_or("", |(_, address)| address)
}

/// Private keys begin with 5, 6, 9, c, K, L or S; a word of a seed is shorter.
fn address(text: &str) -> Option<Argument> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_good = match text.len() {
        26..=35 if text.starts_with(['1', '2', '3', 'm', 'n']) => true,
        14..=LONGEST_ADDRESS => starts_with(text, &["bc1", "tb1", "bcrt1"]),
        _ => false,
    };
    (is_plain && is_good).then(|| Argument::Address(text.to_owned()))
}

fn starts_with(text: &str, all: &[&str]) -> bool {
    all.iter().any(|start| {
        let begin = text.get(..start.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(start))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::watch::following::{Following, Subject};

    const SEGWIT: &str = "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq";

    #[test]
    fn words_are_told_apart() {
        let address = |text: &str| Some(Argument::Address(text.to_owned()));
        let descriptor = |text: &str| Some(Argument::Descriptor(text.to_owned()));
        let old = "1BoatSLRHtKNngkdXEeobR76b53LETtpyT";
        let (key, id) = (format!("xpub{}", "x".repeat(107)), "AB".repeat(32));
        let upper = SEGWIT.to_uppercase();
        for (word, argument) in [
            (SEGWIT, address(SEGWIT)),
            (&*upper, address(&upper)),
            (old, address(old)),
            (
                &format!("BITCOIN:{SEGWIT}?label={}(2)", "x".repeat(111)),
                address(SEGWIT),
            ),
            (&format!("bitcoin://{old}"), address(old)),
            (&format!("bitcoin:?lightning=l&BC={upper}"), address(&upper)),
            ("wpkh(xpub)", descriptor("wpkh(xpub)")),
            (&*key, descriptor(&key)),
            (&*id, Some(Argument::DescriptorId(id.to_lowercase()))),
            ("bitcoin:", None),
            ("bitcoin:?lightning=bc", None),
            ("é", None),
            ("", None),
        ] {
            assert_eq!(of_word(word), argument, "{word}");
        }
    }

    #[test]
    fn what_may_be_a_key_is_neither_sent_nor_shown() {
        for key in [
            "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
            "KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU73sVHnoWn",
            "L5oLkpV3aqBjhki6LmvChTCV6odsp4SXM6FfU2Gppt5kFLaHLuZ9",
            "92Pg46rUhgTT7romnV7iGW6W1gbGdeezqdbJCzShkCsYNzyyNcc",
            "cMahea7zqjxrtgAbB7LSGbcQUr1uX1ojuat9jZodMN87JcbXMTcA",
            "6PRVWUbkzzsbcVac2qwfssoUJAN1Xhrg6bNk8J7Nzm5H7kxEbn2Nh2ZoGg",
            "bitcoin:5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
            "abandon",
            "market",
            "nothing market nothing market nothing mean",
            "wpkh(tprv8ZgxMBicQKsPd7Uf69XL1XwhmjHopUGep8GuEiJDZmbQz6o58LninorQAfcKZWARbtRtfnLcJ5MQ2AtHcQJCCRUcMRvmDUjyEmNUWwx8UbK/0/*)",
            "tprv8ZgxMBicQKsPd7Uf69XL1XwhmjHopUGep8GuEiJDZmbQz6o58LninorQAfcKZWARbtRtfnLcJ5MQ2AtHcQJCCRUcMRvmDUjyEmNUWwx8UbK",
            "pkh(KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU73sVHnoWn)",
            &"market ".repeat(24),
        ] {
            let said = parse(&[SEGWIT.to_owned(), key.to_owned()]).expect_err("it is none");
            let said = said.to_string();
            assert!(said.starts_with("word 2 is no address"), "{said}");
            assert!(!said.contains(key.trim()), "{said}");
        }
    }

    #[test]
    fn no_more_are_taken_than_one_request_can_name() {
        let many = |count| vec!["ab".repeat(32); count];
        let said = parse(&many(MOST + 1)).expect_err("too many").to_string();
        assert!(said.contains("up to 200"), "{said}");
        let all = parse(&many(MOST)).expect("so many are taken");
        let subjects = vec![Subject::Descriptor("ab".repeat(32)); all.len()];
        let balances = vec![serde_json::Value::Null; all.len()];
        let path = Following::new(subjects, &balances).path();
        // What is left is for the token and the other headers.
        assert!(path.len() <= 15 * 1024 + 512, "{}", path.len());
    }

    proptest! {
        #[test]
        fn nothing_but_letters_and_digits_comes_into_a_path(word in "(bitcoin:)?(bc1|1|m)?.{0,40}") {
            if let Some(Argument::Address(text)) = of_word(&word) {
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            }
        }
    }
}
