//! What a text is that is no Bitcoin address, and what to do about it.
//!
//! A sentence shows the text only when it is an address with a mistyped letter: anything else may
//! be a key.

use bitcoin::bech32::primitives::checksum::Engine;
use bitcoin::bech32::primitives::decode::UncheckedHrpstring;
use bitcoin::bech32::{Bech32, Bech32m, Checksum, Fe32};
use bitcoin::{Address, base58};

use super::pasted::{self, NETWORKS};
use crate::wire::secret::{self, SecretKind, shortened};
use crate::wire::text::{after_scheme, is_hex, starts_with};

const SINGLE: &str = "send it to POST /descriptors, which watches the wallet as one thing, or its addresses one by one";
const LIGHTNING: &str =
    "payments over Lightning are not on the chain; send the on-chain address of the wallet";
const OTHER_COIN: &str = "this daemon follows Bitcoin alone";
const SILENT: &str = "its outputs can only be found with its scan key; send single addresses";
const XPUB: &str = "an extended public key, which stands for a whole wallet";
const OF_ITS_OWN: &str = "send a Bitcoin address";

/// How things begin that are no Bitcoin addresses, in any case: what they are, and what to do.
#[rustfmt::skip]
const BEGINNINGS: &[(&[&str], &str, &str)] = &[
    (&["lightning:", "lnbc", "lni1"], "a Lightning invoice", LIGHTNING),
    (&["lntb"], "a Lightning invoice of a test network", LIGHTNING),
    (&["lnurl"], "an LNURL", LIGHTNING),
    (&["lno1"], "a Lightning offer", LIGHTNING),
    (&["lnr1"], "a Lightning invoice request", LIGHTNING),
    (&["sp1", "tsp1"], "a silent payment address", SILENT),
    (&["npub1"], "a Nostr key", OF_ITS_OWN),
    (&["ltc1", "tltc1", "rltc1", "litecoin:"], "a Litecoin address", OTHER_COIN),
    (&["bitcoincash:", "bchtest:"], "a Bitcoin Cash address", OTHER_COIN),
    (&["ecash:"], "an eCash address", OTHER_COIN),
    (&["dogecoin:"], "a Dogecoin address", OTHER_COIN),
    (&["ethereum:"], "an Ethereum address", OTHER_COIN),
    (&["monero:"], "a Monero address", OTHER_COIN),
    (&["dash:"], "a Dash address", OTHER_COIN),
    (&["zcash:", "zs1"], "a Zcash address", OTHER_COIN),
    (&["addr1"], "a Cardano address", OTHER_COIN),
    (&["cosmos1"], "a Cosmos address", OTHER_COIN),
    (&["ex1", "lq1", "tex1", "tlq1", "liquidnetwork:"], "a Liquid address", OTHER_COIN),
    (&["http:", "https:"], "a link", "send the address alone"),
    // BIP 32, SLIP 132.
    (&["xpub", "ypub", "zpub", "tpub", "upub", "vpub"], XPUB, SINGLE),
    (&["pk(", "pkh(", "wpkh(", "sh(", "wsh(", "tr(", "rawtr("], "an output descriptor", SINGLE),
    (&["combo(", "multi(", "sortedmulti(", "addr(", "raw("], "an output descriptor", SINGLE),
];

/// First bytes of base58 addresses of other coins.
#[rustfmt::skip]
const VERSIONS: &[(&[&[u8]], &str)] = &[
    (&[&[0x30], &[0x32], &[0x3a]], "a Litecoin address"),
    (&[&[0x1e], &[0x16], &[0x71]], "a Dogecoin address"),
    (&[&[0x4c], &[0x10]], "a Dash address"),
    (&[&[0x26], &[0x17]], "a Bitcoin Gold address"),
    (&[&[0x41]], "a Tron address"),
    (&[&[0x1c, 0xb8], &[0x1c, 0xbd]], "a Zcash address"),
];

/// The sentence that refuses a text. `bare` is what is left of it without what nobody sees.
pub fn sentence(text: &str, bare: &str) -> String {
    if let Some(secret) = secret::find(text).or_else(|| secret::find(bare)) {
        return of_secret(secret);
    }
    if let Some(count) = several(text) {
        return format!("These are {count} addresses in one text; send each by itself.");
    }
    if let Some((what, instead)) = named(bare) {
        return format!("This is {what}, not a Bitcoin address: {instead}.");
    }
    mistyped(bare).map_or_else(
        || "This is not a Bitcoin address; copy the address again, whole.".to_owned(),
        |fault| format!("{}: {fault}.", shortened(bare)),
    )
}

fn of_secret(secret: SecretKind) -> String {
    let what = match secret {
        SecretKind::PrivateKey => "a private key",
        SecretKind::EncryptedKey => "an encrypted private key",
        SecretKind::ExtendedPrivateKey => "an extended private key",
        SecretKind::SeedWords => "the words of a wallet's seed",
    };
    format!(
        "This looks like {what}. It is needed nowhere here, and who has it can spend the coins: if it may have been seen on its way, move them. Send the address that belongs to it; what was sent is neither kept nor logged."
    )
}

/// How many addresses there are, if it is more than one.
fn several(text: &str) -> Option<usize> {
    let parts: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || matches!(c, ',' | ';'))
        .filter(|part| !part.is_empty())
        .collect();
    let is_address =
        |part: &&str| pasted::bare(part).is_ok_and(|bare| bare.parse::<Address<_>>().is_ok());
    let all = parts.len() > 1 && parts.len() <= 100 && parts.iter().all(is_address);
    all.then_some(parts.len())
}

/// What it is, when it is something that has a name, and what to do.
fn named(text: &str) -> Option<(&'static str, &'static str)> {
    let begins = |(begins, ..): &&(&[&str], _, _)| begins.iter().any(|it| starts_with(text, it));
    if let Some((_, what, instead)) = BEGINNINGS.iter().find(begins) {
        return Some((what, instead));
    }
    hex(text)
        .or_else(|| of_other_coin(text).map(|what| (what, OTHER_COIN)))
        .or_else(|| {
            let lightning = text
                .contains('@')
                .then_some("a Lightning address, or an e-mail address");
            lightning.map(|what| (what, LIGHTNING))
        })
}

/// Numbers in hexadecimal digits.
fn hex(text: &str) -> Option<(&'static str, &'static str)> {
    if after_scheme(text, "0x").is_some_and(|rest| rest.len() == 40 && is_hex(rest)) {
        return Some(("an Ethereum address", OTHER_COIN));
    }
    let (digits, at) = text.split_once('@').unwrap_or((text, ""));
    if !is_hex(digits) {
        return None;
    }
    let key = (
        "a public key, or the name of a Lightning node",
        "send the address that belongs to it",
    );
    match (digits.len(), digits.get(..2)?) {
        (66, "02" | "03") if !at.is_empty() => Some(("the name of a Lightning node", LIGHTNING)),
        (66, "02" | "03") => Some(key),
        (130, "04") => Some(("a public key", "send the address that belongs to it")),
        (64, _) if digits.starts_with("00000000") => Some((
            "the hash of a block",
            "send an address; GET /events tells of blocks",
        )),
        (64, _) => Some((
            "a transaction id, or a key",
            "send the address that the transaction pays",
        )),
        _ => None,
    }
}

fn of_other_coin(text: &str) -> Option<&'static str> {
    // A form of Bitcoin Cash without its beginning.
    let is_charset = |text: &str| text.bytes().all(|byte| CHARSET.contains(&byte));
    if text.len() == 42 && text.starts_with(['q', 'p']) && is_charset(text) {
        return Some("a Bitcoin Cash address");
    }
    if text.len() > 50 {
        return None;
    }
    let data = base58::decode_check(text).ok()?;
    let begins = |version: &&[u8]| data.strip_prefix(*version).is_some_and(|it| it.len() == 20);
    let known = VERSIONS
        .iter()
        .find(|(versions, _)| versions.iter().any(begins));
    Some(known.map_or("an address of another coin, or a key", |(_, what)| what))
}

/// The letters of bech32.
const CHARSET: &[u8] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// What is wrong with the letters of what was a Bitcoin address once.
fn mistyped(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let of_ours = |hrp: &&&str| {
        lower
            .strip_prefix(**hrp)
            .is_some_and(|rest| rest.starts_with('1'))
    };
    if let Some(hrp) = NETWORKS.iter().find(of_ours) {
        return Some(bech32_fault(text, &lower, hrp));
    }
    let legacy = text.starts_with(['1', '3', 'm', 'n', '2'])
        && (26..=35).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    legacy.then(|| match text.chars().find(|c| "0OIl".contains(*c)) {
        Some(letter) => format!(
            "{WRONG}, the \"{letter}\" (0, O, I and l occur in no such address); copy the address again"
        ),
        None => format!("{WRONG}; copy the address again, whole"),
    })
}

const WRONG: &str = "the checksum is wrong: a letter is mistyped";

fn bech32_fault(text: &str, lower: &str, hrp: &str) -> String {
    if text != lower && text != text.to_ascii_uppercase() {
        return "capitals and small letters are mixed, and such an address has either; copy it again".to_owned();
    }
    let begin = hrp.len().saturating_add(1);
    let strange = |(_, letter): &(usize, char)| {
        !u8::try_from(*letter).is_ok_and(|byte| CHARSET.contains(&byte))
    };
    if let Some((place, letter)) = lower.chars().enumerate().skip(begin).find(strange) {
        return format!(
            "{WRONG}, the \"{letter}\" at place {} (it occurs in no such address); copy the address again",
            place.saturating_add(1)
        );
    }
    let Ok(parts) = UncheckedHrpstring::new(lower) else {
        return format!("{WRONG}; copy the address again, whole");
    };
    let first = lower.as_bytes().get(begin);
    match first {
        Some(b'q') => checksum_fault::<Bech32, Bech32m>(&parts, lower),
        _ => checksum_fault::<Bech32m, Bech32>(&parts, lower),
    }
}

/// `Right`: the checksum that an address of this version has.
fn checksum_fault<Right: Checksum<MidstateRepr = u32>, Other: Checksum>(
    parts: &UncheckedHrpstring<'_>,
    text: &str,
) -> String {
    if parts.has_valid_checksum::<Right>() {
        return "its checksum is right, but Bitcoin has no address of this version and length; ask where you have it from".to_owned();
    }
    if parts.has_valid_checksum::<Other>() {
        return "its checksum is of the wrong kind for its version (bech32 or bech32m); ask where you have it from".to_owned();
    }
    let usual =
        [42, 62].map(|length: usize| length.saturating_sub(2).saturating_add(parts.hrp().len()));
    if !usual.contains(&text.len()) {
        return format!(
            "{WRONG}, left out or too many (it has {}, such an address has {} or {}); copy it again, whole",
            text.len(),
            usual[0],
            usual[1]
        );
    }
    match located::<Right>(parts) {
        Some((place, letter)) => {
            format!(
                "{WRONG}, most likely the \"{letter}\" at place {place}; copy the address again"
            )
        }
        None => format!("{WRONG}, or several are; copy the address again, whole"),
    }
}

/// The place of the letter, from 1 on, that alone explains the checksum; in so short a text no two
/// do. What should be there is not told: whoever wrote the address knows, and a guess may be
/// another's address.
fn located<Right: Checksum<MidstateRepr = u32>>(
    parts: &UncheckedHrpstring<'_>,
) -> Option<(usize, char)> {
    let (begin, letters) = (parts.hrp().len().saturating_add(1), parts.data_part_ascii());
    let mut engine = Engine::<Right>::new();
    engine.input_hrp(parts.hrp());
    for letter in letters {
        engine.input_fe(Fe32::from_char((*letter).into()).ok()?);
    }
    let wrong = engine.residue() ^ Right::TARGET_RESIDUE;
    // What each other letter would change of the residue, at the last place and then before it.
    let mut changes: Vec<u32> = (1..32).collect();
    for (place, letter) in (begin.saturating_add(1)..)
        .zip(letters)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        if changes.contains(&wrong) {
            return Some((place, (*letter).into()));
        }
        for change in &mut changes {
            *change = one_place_on::<Right>(*change);
        }
    }
    None
}

/// The residue when a letter that is 0 follows.
fn one_place_on<Right: Checksum<MidstateRepr = u32>>(residue: u32) -> u32 {
    let (high, low) = (residue >> 25, residue & 0x01ff_ffff);
    let bits = Right::GENERATOR_SH.iter().enumerate();
    let set = bits.filter(|(bit, _)| high >> bit & 1 == 1);
    set.fold(low << 5, |residue, (_, term)| residue ^ term)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a text.
    fn said(text: &str) -> String {
        let bare = pasted::bare(text).expect(text);
        assert!(bare.parse::<Address<_>>().is_err(), "{text}");
        sentence(text, &bare)
    }

    #[test]
    fn a_mistyped_letter_of_a_bech32_address_is_located() {
        for good in [
            "bc1qqqqsyqcyq5rqwzqfpg9scrgwpugpzysn4v0345",
            "bc1pqqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0sg5tmnz",
            "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
        ] {
            assert!(good.parse::<Address<_>>().is_ok(), "{good}");
            let begin = good.find('1').unwrap() + 2;
            for place in begin..good.len() {
                let mut bytes = good.as_bytes().to_vec();
                bytes[place] = if bytes[place] == b'z' { b'x' } else { b'z' };
                let text = String::from_utf8(bytes).unwrap();
                let letter = &text[place..=place];
                let expected = format!(
                    "{text}: the checksum is wrong: a letter is mistyped, most likely the \"{letter}\" at place {}; copy the address again.",
                    place + 1
                );
                assert_eq!(said(&text), expected);
            }
        }
        let two = said("bc1qzqqsyqczq5rqwzqfpg9scrgwpugpzysn4v0345");
        assert!(
            two.contains("a letter is mistyped, or several are"),
            "{two}"
        );
    }

    #[test]
    fn what_is_wrong_with_the_letters_is_said() {
        for (text, words) in [
            (
                "bc1qqqqsyqcyq5rqwzqfpg9scrgwpugpzysn4v034",
                "left out or too many (it has 41, such an address has 42 or 62)",
            ),
            ("bc1qqqqsyqcyq5rqwzqfpg9scrgwpugpzysn4v0345q", "it has 43"),
            (
                "bc1Qqqqsyqcyq5rqwzqfpg9scrgwpugpzysn4v0345",
                "capitals and small letters are mixed",
            ),
            (
                "bc1qqqqsyqcyq5rqwzqfpg9scrgwpugpzysn4v034b",
                "the \"b\" at place 42 (it occurs in no such address)",
            ),
            (
                "bc1qqqqsyqcyq5rqwzqfpg9scrgwpugpzysé4v0345",
                "\"é\" at place",
            ),
            ("bc1", "it has 3"),
            ("bc1q", "it has 4"),
            (
                "bc1qqqqsyqcyq5rqwzqfpg9scrgwpugpzysnqslask",
                "wrong kind for its version",
            ),
            (
                "bc1qqqqsyqcyq5rqwzqfpg9scrgwpugpzysnzsf6edgu",
                "no address of this version and length",
            ),
            (
                "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb",
                "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb: the checksum is wrong: a letter is mistyped",
            ),
            (
                "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vd",
                "the checksum is wrong",
            ),
            (
                "1A1zP1eP5QGefi2DMPTfTL5SLmv7D0vfNa",
                "a letter is mistyped, the \"0\" (0, O, I and l",
            ),
        ] {
            let sentence = said(text);
            assert!(sentence.contains(words), "{sentence}");
        }
    }

    #[test]
    fn other_things_are_named_for_what_they_are_and_not_shown() {
        let node = format!("02{}", "ab".repeat(32));
        for (text, what) in [
            (
                "ltc1qqqqsyqcyq5rqwzqfpg9scrgwpugpzysn3s44dy",
                "a Litecoin address",
            ),
            ("LKDyUEtTR1HXamkiEphisSiBJu6o3ZPE34", "a Litecoin address"),
            ("M7uBSTV2qNDHDe2tHfNMqhFkZucgRMpJQk", "a Litecoin address"),
            ("D597kHXGdkwkryF9oGhz9Bp1ypTpD1u99Z", "a Dogecoin address"),
            ("Xags3HEXJ4G4Uuf8va2eSxLCw2KCyEhiJ7", "a Dash address"),
            ("T9yED5xMV5ARV98BexN97aLZ1UUq7eKSxm", "a Tron address"),
            ("t1HsdDMzmJfq4vc7T17XYjEkLMLvbgM1fCi", "a Zcash address"),
            (
                "bitcoincash:qpm2qsznhks23z7629mms6s4cwef74vcwvy22gdx6a",
                "a Bitcoin Cash address",
            ),
            (
                "qpm2qsznhks23z7629mms6s4cwef74vcwvy22gdx6a",
                "a Bitcoin Cash address",
            ),
            (
                "0x52908400098527886E0F7030069857D2E4169EE7",
                "an Ethereum address",
            ),
            (
                "ethereum:0x52908400098527886E0F7030069857D2E4169EE7",
                "an Ethereum address",
            ),
            (
                "xpub661MyMwAqRbcEZ1tju49pvCdvM1xxkw4iH9G78jHoPpjFmKSP2tkxBAbd3rS6o44DU5j37h2n5fDpL5PiZmQnKMcq2cfBCaN1M9qjfmniB3",
                "an extended public key",
            ),
            (
                "zpub6jftahH18ngZw9Q8QcdQF6PeGHJrqzv4YWBhfvX4ZQaVMxwttMDtCJUsfTmc6cMu2kKLY4t9hQNKauJX9xbSNnipZi1WM2DLYoH8WoFQWZ3",
                "an extended public key",
            ),
            (
                "wpkh([d34db33f/84h/0h/0h]xpub661MyM/0/*)#abc",
                "an output descriptor",
            ),
            (
                "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b",
                "a transaction id",
            ),
            (
                "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
                "the hash of a block",
            ),
            (&node, "a public key"),
            (
                &format!("{node}@127.0.0.1:9735"),
                "the name of a Lightning node",
            ),
            (&format!("04{}", "ab".repeat(64)), "a public key"),
            (
                "lnbc20u1p3y0x3hpp5743k2g0fsqqxj7n8qzuhns5gmkk4djeejk3wkp64ppevgekvc0js",
                "a Lightning invoice",
            ),
            (
                "LNBC20U1P3Y0X3HPP5743K2G0FSQQXJ7N8QZUHNS5GMKK4DJEEJK3WKP64PPEVGEKVC0JS",
                "a Lightning invoice",
            ),
            ("lightning:lnbc20u1p3y0x3h", "a Lightning invoice"),
            (
                "LNURL1DP68GURN8GHJ7UM9WFMXJCM99E3K7MF0V9CXJ0M385EKVCENXC6R2C35XVUKXEFCV5MKVV34X5EKZD3EV56NYD3HXQURZEPEXEJXXEPNXSCRVWFNV9NXZCN9XQ6XYEFHVGCXXCMYXYMNSERXFQ5FNS",
                "an LNURL",
            ),
            (
                "someone@shop.example",
                "a Lightning address, or an e-mail address",
            ),
            (
                "sp1qqgqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqcqqypqxpq9qcrsszg2pvxq6rs0zqg3yyc5z5tpwxqergd3c8g7rureafuq",
                "a silent payment address",
            ),
            (
                "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa, bc1qqqqsyqcyq5rqwzqfpg9scrgwpugpzysn4v0345",
                "2 addresses in one text",
            ),
            ("hello", "not a Bitcoin address; copy"),
            ("é1234", "not a Bitcoin address; copy"),
        ] {
            let sentence = said(text);
            assert!(sentence.contains(what), "{text}: {sentence}");
            assert!(!sentence.contains(text), "{sentence}");
        }
    }

    #[test]
    fn keys_and_seeds_are_named_and_not_shown() {
        for (text, what) in [
            (
                "KwFfpDsaF7yxCELuyrH9gP5XL7TAt5b9HPWC1xCQbmrxvhJgMQHb",
                "a private key",
            ),
            (
                "bitcoin:KwFfpDsaF7yxCELuyrH9gP5XL7TAt5b9HPWC1xCQbmrxvhJgMQHb",
                "a private key",
            ),
            (
                "6PRVWUbkzzsbcVac2qwfssoUJAN1Xhrg6bNk8J7Nzm5H7kxEbn2Nh2ZoGg",
                "an encrypted private key",
            ),
            (
                "xprv9s21ZrQH143K24wRdsX9TnFuNKBUZJDDM4DfJkKgF4HkNxzHqVaWQNr7mnpffA1Q6tHGs2QhJAfmJFL3zg3Rj45hjkA4qaPX6BFpzGf4WsL",
                "an extended private key",
            ),
            (
                "legal winner thank year wave sausage worth useful legal winner thank yellow",
                "the words of a wallet's seed",
            ),
        ] {
            let sentence = said(text);
            assert!(sentence.contains(what), "{sentence}");
            for word in text.split(' ') {
                assert!(word.len() < 5 || !sentence.contains(word), "{sentence}");
            }
        }
    }
}
