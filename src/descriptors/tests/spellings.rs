//! Which texts are the same wallet, and how it is written.

use super::super::{DescriptorProblem, MAX_BYTES};
use super::*;

fn same(texts: &[&str]) {
    let first = wallet(texts[0]);
    for text in texts {
        let other = wallet(text);
        assert_eq!(other.id(), first.id(), "{text}");
        for keychain in 0..2 {
            assert_eq!(
                other.derive(keychain, 0..3),
                first.derive(keychain, 0..3),
                "{text}"
            );
        }
    }
}

fn different(texts: &[&str]) {
    let mut ids: Vec<_> = texts.iter().map(|text| wallet(text).id()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), texts.len(), "{texts:?}");
}

/// Of an extended key, with these fields in place of its own.
fn with_fields(key: &str, depth: u8, parent: [u8; 4]) -> String {
    let mut key: bitcoin::bip32::Xpub = key.parse().expect("it is a key");
    (key.depth, key.parent_fingerprint) = (depth, parent.into());
    key.to_string()
}

/// The key at the first step.
fn child(key: &str) -> String {
    let key: bitcoin::bip32::Xpub = key.parse().expect("it is a key");
    let secp = bitcoin::secp256k1::Secp256k1::verification_only();
    let step = bitcoin::bip32::ChildNumber::Normal { index: 0 };
    key.ckd_pub(&secp, step)
        .expect("it has a child")
        .to_string()
}

#[test]
fn one_wallet_in_many_spellings_is_one() {
    let plain = wallet(ZPUB)
        .text()
        .split('#')
        .next()
        .map(str::to_owned)
        .expect("a text");
    let key = plain
        .strip_prefix("wpkh(")
        .and_then(|rest| rest.split('/').next())
        .expect("a key");
    let with = |origin: &str| format!("wpkh({origin}{key}/<0;1>/*)");
    same(&[
        ZPUB,
        &format!("\n {ZPUB}\t"),
        &format!("{ZPUB}/<0;1>/*"),
        &format!("[73c5da0a/84h/0h/0h]{ZPUB}"),
        &format!("wpkh({ZPUB}/<0;1>/*)"),
        &plain,
        wallet(ZPUB).text(),
        &with("[73c5da0a/84h/0h/0h]"),
        &with("[73c5da0a/84'/0'/0']"),
        &with("[73C5DA0A/84'/0h/0']"),
        &with("[00000000]"),
        &format!("wpkh({}/<0;1>/*)", with_fields(key, 0, [0; 4])),
        &format!("wpkh({}/<0;1>/*)", with_fields(key, 7, [1; 4])),
    ]);
}

#[test]
fn fixed_steps_may_be_taken_in_the_key() {
    same(&[
        &format!("wpkh({KEY_A}/0/*)"),
        &format!("wpkh({}/*)", child(KEY_A)),
    ]);
    same(&[&format!("tr({POINT})"), &format!("tr({})", &POINT[2..])]);
    let definite = bitcoin::bip32::Xpub::to_pub(child(KEY_A).parse().expect("a key"));
    same(&[&format!("pkh({KEY_A}/0)"), &format!("pkh({definite})")]);
}

#[test]
fn the_keys_of_sortedmulti_are_in_no_order_and_those_of_multi_are() {
    let of = |head: &str, keys: [&str; 3], tail: &str| {
        let keys = keys.map(|key| format!("{key}/<0;1>/*")).join(",");
        format!("{head}(2,{keys}){tail}")
    };
    for (head, tail) in [
        ("wsh(sortedmulti", ")"),
        ("sh(wsh(sortedmulti", "))"),
        ("sh(sortedmulti", ")"),
    ] {
        same(&[
            &of(head, [KEY_A, KEY_B, KEY_C], tail),
            &of(head, [KEY_C, KEY_A, KEY_B], tail),
            &of(head, [KEY_B, &format!("[deadbeef/1h]{KEY_A}"), KEY_C], tail),
        ]);
    }
    different(&[
        &of("wsh(multi", [KEY_A, KEY_B, KEY_C], ")"),
        &of("wsh(multi", [KEY_B, KEY_A, KEY_C], ")"),
        &of("wsh(sortedmulti", [KEY_A, KEY_B, KEY_C], ")"),
        &of("sh(sortedmulti", [KEY_A, KEY_B, KEY_C], ")"),
        &of("sh(wsh(sortedmulti", [KEY_A, KEY_B, KEY_C], "))"),
        &of("wsh(sortedmulti", [KEY_A, KEY_B, KEY_C], ")").replace("(2,", "(3,"),
    ]);
}

#[test]
fn aliases_of_miniscript_are_the_same() {
    same(&[
        &format!("wsh(and_v(v:pk({KEY_A}/*),older(10)))"),
        &format!("wsh(and_v(vc:pk_k({KEY_A}/*),older(10)))"),
    ]);
}

#[test]
fn other_keychains_scripts_and_paths_are_other_wallets() {
    different(&[
        &format!("wpkh({KEY_A}/0/*)"),
        &format!("wpkh({KEY_A}/1/*)"),
        &format!("wpkh({KEY_A}/*)"),
        &format!("wpkh({KEY_A}/0)"),
        &format!("wpkh({KEY_A}/<0;1>/*)"),
        &format!("wpkh({KEY_A}/<1;0>/*)"),
        &format!("wpkh({KEY_A}/<0;2>/*)"),
        &format!("wpkh({KEY_B}/<0;1>/*)"),
        &format!("pkh({KEY_A}/<0;1>/*)"),
        &format!("sh(wpkh({KEY_A}/<0;1>/*))"),
        &format!("tr({KEY_A}/<0;1>/*)"),
        &format!("wsh(pk({KEY_A}/<0;1>/*))"),
    ]);
    let chain_code = |key: &str| {
        let mut key: bitcoin::bip32::Xpub = key.parse().expect("it is a key");
        key.chain_code = [7; 32].into();
        format!("wpkh({key}/*)")
    };
    different(&[&format!("wpkh({KEY_A}/*)"), &chain_code(KEY_A)]);
}

/// They are stored: another one would be another wallet.
#[test]
fn an_id_stays_the_same_over_versions() {
    let id: String = wallet(ZPUB)
        .id()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        id,
        "abfce13766f500e1c88026211200e61560f4f9b647f06219fa317d8b9015a128"
    );
    let multi = format!("wsh(sortedmulti(2,{KEY_B}/<0;1>/*,{KEY_A}/<0;1>/*))");
    let id: String = wallet(&multi)
        .id()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        id,
        "a6a40225609cb6cd583ac201f72c2630cff452b314627088595fb56cf640748d"
    );
}

#[test]
fn a_text_keeps_its_origins_and_is_written_as_bitcoin_core_does() {
    let given = wallet(&format!("[73C5DA0A/84'/0'/0']{ZPUB}"));
    assert_eq!(
        given.text(),
        "wpkh([73c5da0a/84h/0h/0h]xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V/<0;1>/*)#qf45pmyh"
    );
    assert_eq!(
        given.for_node(1).as_deref(),
        Some(
            "wpkh([73c5da0a/84h/0h/0h]xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V/1/*)#vatdkr6g"
        )
    );
    assert_eq!(wallet(given.text()).text(), given.text());
}

#[test]
fn without_a_wildcard_there_is_index_0_alone() {
    let single = wallet(&format!("wpkh({KEY_A}/<0;1>)"));
    assert!(!single.is_ranged());
    assert_eq!(single.derive(0, 0..1000).len(), 1);
    assert!(single.derive(0, 1..1000).is_empty());
    assert_ne!(single.derive(0, 0..1), single.derive(1, 0..1));
}

#[test]
fn indexes_end_below_2_to_the_31() {
    let last = (1_u32 << 31) - 1;
    let ranged = wallet(ZPUB);
    assert_eq!(ranged.derive(0, last..u32::MAX).len(), 1);
    assert!(ranged.derive(0, last + 1..u32::MAX).is_empty());
    #[expect(clippy::reversed_empty_ranges, reason = "a client can send one")]
    let backwards = 7..3;
    assert!(ranged.derive(0, backwards).is_empty());
}

/// A key of SLIP-132 stands in a descriptor of the kind that it says.
#[test]
fn keys_of_slip_132_are_taken_where_they_belong() {
    let with_version = |key: &str, version: [u8; 4]| {
        let mut data = bitcoin::base58::decode_check(key).expect("it is a key");
        data.splice(..4, version);
        bitcoin::base58::encode_check(&data)
    };
    for (version, name, head, tail) in [
        ([0x04, 0x9d, 0x7c, 0xb2], "ypub", "sh(wpkh(", "))"),
        ([0x04, 0xb2, 0x47, 0x46], "zpub", "wpkh(", ")"),
        ([0x02, 0x95, 0xb4, 0x3f], "Ypub", "sh(wsh(pk(", ")))"),
        ([0x02, 0xaa, 0x7e, 0xd3], "Zpub", "wsh(pk(", "))"),
    ] {
        let key = with_version(XPUB, version);
        assert!(key.starts_with(name), "{key}");
        let with = |key: &str| format!("{head}{key}/<0;1>/*{tail}");
        assert_eq!(wallet(&with(&key)).text(), wallet(&with(XPUB)).text());
    }
}

/// The text is what is kept and read at every start.
#[test]
fn what_is_taken_is_taken_again_from_its_own_text() {
    let nested = |count: usize| {
        let (open, close) = ("or_i(0,".repeat(count), ")".repeat(count));
        format!("tr({KEY_A}/*,{open}pk({KEY_B}/*){close})")
    };
    for text in [
        nested(1),
        nested(130),
        nested(131),
        nested(400),
        format!("wpkh({KEY_A}/+0/007/*)"),
        format!("wsh(andor(pk({KEY_A}/*),pk({KEY_B}/*),0))"),
        format!("wsh(and_v(or_c(pk({KEY_A}/*),v:older(9)),pk({KEY_B}/*)))"),
        format!("wsh(and_v(vc:pk_k({KEY_A}/*),and_v(v:older(9),1)))"),
        format!("tr({KEY_A}/<0;1>/*,{{c:pk_h({KEY_B}/<2;3>/*),pk({POINT})}})"),
    ] {
        let (first, again) = (wallet(&text), wallet(wallet(&text).text()));
        assert_eq!(again, first, "{text}");
    }
    let raw = format!("wsh(c:expr_raw_pkh({}))", "9c".repeat(20));
    assert!(matches!(
        refused(&raw),
        DescriptorProblem::Function {
            name: "expr_raw_pkh",
            ..
        }
    ));
}

/// Also with its checksum.
#[test]
fn a_text_is_never_longer_than_what_is_parsed() {
    let of = |length: usize| {
        let text = |steps: &str| format!("wpkh([73c5da0a{steps}]{KEY_A}/*)");
        let steps = length - text("").len();
        let odd = if steps.is_multiple_of(2) { "" } else { "/10" };
        text(&format!("{odd}{}", "/0".repeat((steps - odd.len()) / 2)))
    };
    let longest = of(MAX_BYTES - 9);
    assert_eq!(wallet(&longest).text().len(), MAX_BYTES);
    assert_eq!(wallet(wallet(&longest).text()), wallet(&longest));
    for length in MAX_BYTES - 8..=MAX_BYTES {
        let text = of(length);
        assert_eq!(text.len(), length);
        assert_eq!(refused(&text), DescriptorProblem::TooLong);
    }
}

/// Bitcoin Core takes no key of depth 0 that has a parent or is a child (BIP 32, vector 5).
#[test]
fn a_key_of_depth_0_is_written_without_a_parent() {
    let mut key: bitcoin::bip32::Xpub = KEY_A.parse().expect("it is a key");
    key.depth = 0;
    let text = wallet(&format!("wpkh({key}/*)")).text().to_owned();
    key.parent_fingerprint = [0; 4].into();
    key.child_number = bitcoin::bip32::ChildNumber::Normal { index: 0 };
    assert!(text.starts_with(&format!("wpkh({key}/*)")), "{text}");
}
