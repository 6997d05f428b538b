//! Private keys and seeds are found in every spelling, and nothing of them is said again.

use super::super::{DescriptorProblem, MAX_BYTES, SecretShape};
use super::*;

const WIF: &str = "L4rK1yDtCWekvXuE6oXD9jCYfFNV2cWRpVuPLBcCU2z8TrisoyY1";
const LONG_WIF: &str = "5KYZdUEo39z3FPrtuX2QbbwGnNP5zTd7yyr2SC1j299sBCnWjss";
const SEED: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

/// No piece of the secret that is long enough to help anybody is said.
fn says_nothing_of(secret: &str, sentence: &str) {
    let bytes = secret.as_bytes();
    let pieces = bytes
        .windows(8)
        .filter_map(|piece| std::str::from_utf8(piece).ok());
    for piece in pieces {
        assert!(!sentence.contains(piece), "{piece}: {sentence}");
    }
}

#[test]
fn secrets_are_refused_wherever_they_stand_and_not_said_again() {
    use SecretShape::*;
    let at = |version: [u8; 4]| {
        let mut data = bitcoin::base58::decode_check(XPRV).expect("it is a key");
        data.splice(..4, version);
        bitcoin::base58::encode_check(&data)
    };
    let (yprv, zprv) = (at([0x04, 0x9d, 0x78, 0x78]), at([0x04, 0xb2, 0x43, 0x0c]));
    let (tprv, vprv) = (at([0x04, 0x35, 0x83, 0x94]), at([0x02, 0x57, 0x50, 0x48]));
    let bip38 = "6PRVWUbkzzsbcVac2qwfssoUJAN1Xhrg6bNk8J7Nzm5H7kxEbn2Nh2ZoGg";
    let test_wif = "cMzLdeGd5vEqxB8B6VFQoRopQ3sLAAvEzDAoQgvX54xwofSWj1fx";
    for (secret, shape) in [
        (WIF, PrivateKey),
        (LONG_WIF, PrivateKey),
        (test_wif, PrivateKey),
        (&WIF[..50], PrivateKey),
        (&WIF.replace('D', "0"), PrivateKey),
        (bip38, EncryptedKey),
        (XPRV, ExtendedPrivateKey),
        (&yprv, ExtendedPrivateKey),
        (&zprv, ExtendedPrivateKey),
        (&tprv, ExtendedPrivateKey),
        (&vprv, ExtendedPrivateKey),
        (&XPRV[..80], ExtendedPrivateKey),
        (&XPRV.replace('Q', "0"), ExtendedPrivateKey),
        (SEED, SeedWords),
    ] {
        let (head, tail) = secret.split_at(9);
        for text in [
            secret.to_owned(),
            format!("wpkh({secret}/0/*)"),
            format!("wpkh([73c5da0a/84h/0h/0h]{secret}/<0;1>/*)#89f8spxm"),
            format!("wsh(multi(2,{KEY_A}/*,{secret}))"),
            format!("tr({KEY_A}/*,{{pk({KEY_B}),pk({secret}"),
            format!("é{secret}é"),
            format!("nonsense({secret}"),
            format!("wpkh({secret})  {KEY_A}"),
            format!("{head}\u{200b}{tail}"),
        ] {
            let problem = refused(&text);
            assert_eq!(problem, DescriptorProblem::Secret(shape), "{text}");
            says_nothing_of(secret, &format!("{problem} {problem:?}"));
        }
    }
    for text in [
        format!("wpkh{WIF})"),
        format!("pkh{XPRV}/0/*"),
        SEED.replace(' ', ","),
        SEED.replace(' ', "-"),
        SEED.replace(' ', "\n2. "),
        format!("{head} {tail}", head = &WIF[..20], tail = &WIF[20..]),
    ] {
        assert!(
            matches!(refused(&text), DescriptorProblem::Secret(_)),
            "{text}"
        );
    }
}

#[test]
fn descriptors_are_no_secrets() {
    let deep = (0..12).fold(format!("pk({KEY_A}/*)"), |inner, _| {
        format!("or_i(0,{inner})")
    });
    assert!(!matches!(
        parse(&format!("wsh({deep})")),
        Err(DescriptorProblem::Secret(_))
    ));
    let hash = "5c".repeat(32);
    let _ = wallet(&format!("wsh(and_v(v:pk({KEY_A}/*),sha256({hash})))"));
    let _ = wallet(&format!(
        "wsh(and_v(v:pk({KEY_A}/*),hash160({})))",
        "9c".repeat(20)
    ));
}

const LEGAL: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";

/// In pieces of four letters.
fn grouped(secret: &str, sign: &str) -> String {
    let groups = secret.as_bytes().chunks(4);
    let groups: Vec<_> = groups
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(sign)
}

#[test]
fn a_secret_in_pieces_is_found_wherever_it_stands() {
    use SecretShape::*;
    for sign in [
        "-", "_", "/", ".", "+", "=", "*", "#", "%20", " ", "\"", ")",
    ] {
        for (secret, shape) in [
            (LEGAL.replace(' ', sign), SeedWords),
            (grouped(WIF, sign), PrivateKey),
            (grouped(LONG_WIF, sign), PrivateKey),
            (grouped(XPRV, sign), ExtendedPrivateKey),
        ] {
            if sign == "%20" && shape != SeedWords {
                continue;
            }
            for text in [
                secret.clone(),
                format!("wsh({secret})"),
                format!("tr({KEY_A},{secret})"),
                format!("wpkh({KEY_A}/{secret}/*)"),
                format!("wsh(multi(2,[73c5da0a/84h]{KEY_A}/*,{secret}))"),
            ] {
                let problem = refused(&text);
                assert_eq!(problem, DescriptorProblem::Secret(shape), "{text}");
            }
        }
    }
    for text in [
        format!("wpkh({LEGAL})"),
        format!("1) {}", LEGAL.replace(' ', " 2) ")),
        format!("(1) {}", LEGAL.replace(' ', " (2) ")),
        format!("1.{}", LEGAL.replace(' ', "2.")),
    ] {
        let problem = refused(&text);
        assert_eq!(problem, DescriptorProblem::Secret(SeedWords), "{text}");
    }
}

#[test]
fn a_secret_is_found_in_letters_of_one_size_of_other_coins_and_behind_blanks() {
    use SecretShape::*;
    let private = {
        let mut data = bitcoin::base58::decode_check(XPRV).expect("it is a key");
        data.splice(..4, [0x04, 0xb2, 0x47, 0x46]);
        bitcoin::base58::encode_check(&data)
    };
    let bip38 = "6PRVWUbkzzsbcVac2qwfssoUJAN1Xhrg6bNk8J7Nzm5H7kxEbn2Nh2ZoGg";
    let other_coin = "T35wFyAkeVxYy4ynXVE1tjcuGy6UxAc36bQSskpxAk38SatWjNF1";
    for (secret, shape) in [
        (&WIF.to_lowercase(), PrivateKey),
        (&WIF.to_uppercase(), PrivateKey),
        (&XPRV.to_lowercase(), ExtendedPrivateKey),
        (&XPRV.to_uppercase(), ExtendedPrivateKey),
        (&bip38.to_lowercase(), EncryptedKey),
        (&other_coin.to_owned(), PrivateKey),
        // Named like a public one.
        (&private, ExtendedPrivateKey),
    ] {
        for text in [
            secret.clone(),
            format!("wpkh({secret}/0/*)"),
            format!("tr({secret})"),
            format!("{}wpkh({secret}/0/*)", " ".repeat(MAX_BYTES)),
        ] {
            let problem = refused(&text);
            assert_eq!(problem, DescriptorProblem::Secret(shape), "{text}");
        }
    }
    for text in ["1f".repeat(32), format!("0x {}", "1F".repeat(32))] {
        let problem = refused(&text);
        assert_eq!(problem, DescriptorProblem::Secret(PrivateKey), "{text}");
    }
}

/// One that is mistyped or cut is not always known.
#[test]
fn what_is_not_known_as_a_secret_is_not_said_again_either() {
    let mistyped = format!("{}{}", &WIF[..20], WIF[20..].replace('D', "E"));
    let words: Vec<&str> = LEGAL.split(' ').take(10).collect();
    for sign in ["-", "_", ".", "=", "'", "`", "/"] {
        for secret in [grouped(&mistyped, sign), words.join(sign)] {
            for text in [
                format!("wsh({secret})"),
                format!("tr({KEY_A},{secret})"),
                format!("wsh(and_v(v:{secret}({KEY_A}),older(9)))"),
                format!("wpkh({KEY_A}/{secret}/*)"),
                format!("wpkh([{secret}]{KEY_A}/*)"),
                format!("wpkh({secret})"),
            ] {
                let problem = refused(&text);
                says_nothing_of(&secret, &format!("{problem} {problem:?}"));
            }
        }
    }
}

#[test]
fn a_public_key_with_a_mistyped_letter_is_no_secret() {
    for letters in ["XPrv", "zPRV", "upRv"] {
        let mistyped = format!("{}{letters}{}", &XPUB[..50], &XPUB[54..]);
        assert_eq!(
            refused(&format!("wpkh({mistyped}/*)")),
            DescriptorProblem::Key,
            "{letters}"
        );
    }
}
