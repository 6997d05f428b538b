//! Texts that are not taken: the cause that is said, and what helps.

use bitcoin::Network;

use super::super::{DescriptorProblem, MAX_BYTES, WalletDescriptor};
use super::*;

/// What is refused, words of its sentence, and what is taken after its advice is followed: empty if
/// that is to add addresses, which tests of the API do.
fn advised() -> Vec<(String, &'static str, String)> {
    let account = || format!("wpkh([73c5da0a/84h/0h/0h]{XPUB}/<0;1>/*)");
    let checked = wallet(&account()).text().to_owned();
    let mistyped = |text: &str| text.replace("84h", "48h");
    let keys = |tail: &str| format!("{KEY_A}/<0;1>/*,{KEY_B}/<0;1>/*{tail}");
    let multisig = |version: [u8; 4]| {
        let mut data = bitcoin::base58::decode_check(XPUB).expect("it is a key");
        data.splice(..4, version);
        bitcoin::base58::encode_check(&data)
    };
    let big = multisig([0x02, 0xaa, 0x7e, 0xd3]);
    let nested = multisig([0x02, 0x95, 0xb4, 0x3f]);
    let zpub = ZPUB;
    let plain = wallet(zpub).text()[5..116].to_owned();
    let short = POINT.to_owned();
    #[rustfmt::skip]
    let advised = vec![
        (format!("wpkh({XPRV}/0/*)"), "Send the public descriptor, with extended public keys (xpub)", account()),
        (String::new(), "send one, such as wpkh(xpub…/<0;1>/*)", account()),
        (format!("pkh({})", "a".repeat(MAX_BYTES)), "send one that is shorter", account()),
        (format!("{}\n{}", account(), account()), "send it in one piece, and of several each by itself", account()),
        (format!("wpkh({XPUB}/0/*)é"), "with ASCII characters alone", format!("wpkh({XPUB}/0/*)")),
        (mistyped(&checked), "copy the descriptor again, whole", checked.clone()),
        (mistyped(&checked), "leave # and what follows out", mistyped(&account())),
        (format!("wpkh({XPUB}{XPUB})"), "copy the descriptor again, whole", account()),
        (format!("wpkh({}/0/*)", XPUB.replace('7', "8")), "copy the key again, whole", account()),
        (XPUB.replace("FwrS", "FwrrS"), "copy the key again, whole", account()),
        ("hello".to_owned(), "send one of pkh(), wpkh(), sh(), wsh() or tr(), or an extended public key", zpub.to_owned()),
        ("bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu".to_owned(), "single addresses go to POST /add_address", String::new()),
        (format!("{zpub}/0"), "write /* at its end", format!("{zpub}/0/*")),
        (format!("{zpub}/0"), "or the key without a path", zpub.to_owned()),
        (big.clone(), "such as wsh(sortedmulti(2,Zpub…/<0;1>/*,Zpub…/<0;1>/*))", format!("wsh(sortedmulti(2,{big}/<0;1>/*,{KEY_A}/<0;1>/*))")),
        (nested.clone(), "such as sh(wsh(sortedmulti(2,Ypub…", format!("sh(wsh(sortedmulti(2,{nested}/<0;1>/*,{KEY_A}/<0;1>/*)))")),
        (format!("tr({zpub}/<0;1>/*)"), "A zpub is meant for wpkh(…), and this descriptor has other scripts; if it is right, write the key as xpub", format!("tr({plain}/<0;1>/*)")),
        ("addr(bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu)".to_owned(), "add it by itself (POST /add_address)", String::new()),
        ("raw(deadbeef)".to_owned(), "add its address by itself (POST /add_address)", String::new()),
        (format!("rawtr({POINT})"), "write tr(KEY) with the key before its tweak", format!("tr({POINT})")),
        (format!("combo({KEY_A}/*)"), "send pkh(KEY), wpkh(KEY) and sh(wpkh(KEY)) each by itself", format!("sh(wpkh({KEY_A}/*))")),
        (format!("pk({KEY_A}/*)"), "write pkh(KEY)", format!("pkh({KEY_A}/*)")),
        (format!("pk({KEY_A}/*)"), "or wsh(pk(KEY))", format!("wsh(pk({KEY_A}/*))")),
        (format!("multi(1,{})", keys("")), "write wsh(multi(…)), or sh(multi(…))", format!("sh(multi(1,{}))", keys(""))),
        (format!("sortedmulti(1,{})", keys("")), "write wsh(sortedmulti(…)), or sh(sortedmulti(…))", format!("wsh(sortedmulti(1,{}))", keys(""))),
        (format!("tr(musig({KEY_A},{KEY_B})/0/*)"), "add the addresses of the wallet by themselves (POST /add_addresses)", String::new()),
        (format!("tr({POINT},sortedmulti_a(1,{}))", keys("")), "sortedmulti_a() is not taken", format!("tr({POINT},multi_a(1,{}))", keys(""))),
        (format!("sh(and_v(v:pk({KEY_A}/*),older(9)))"), "write a script of miniscript as sh(wsh(…))", format!("sh(wsh(and_v(v:pk({KEY_A}/*),older(9))))")),
        (format!("sh(tr({KEY_A}/*))"), "and tr(…) without sh()", format!("tr({KEY_A}/*)")),
        (format!("wsh(c:expr_raw_pkh({}))", "9c".repeat(20)), "write pkh(KEY) in its place", format!("wsh(pkh({KEY_A}/*))")),
        (format!("wsh(pkh({}))", &POINT[2..]), "write it with its first byte (02… or 03…)", format!("wsh(pkh({POINT}))")),
        (format!("sh(sortedmulti(1,{LONG_POINT},{KEY_A}))"), "write multi(…) with the keys in the order of the wallet's scripts", format!("sh(multi(1,{KEY_A},{LONG_POINT}))")),
        (format!("wpkh({KEY_A}/0h/*)"), "[fingerprint/84h/0h/0h]xpub…/<0;1>/*", account()),
        (format!("wpkh({KEY_A}/*h)"), "send the key that the wallet shows for the account", account()),
        (format!("wpkh({KEY_A}/<0;1h>/*)"), "with the hardened steps before it", account()),
        (format!("wpkh({KEY_A}/<0;1;2>/*)"), "write /<0;1>/*", format!("wpkh({KEY_A}/<0;1>/*)")),
        (format!("wpkh({KEY_A}/<0;1;2>/*)"), "or send the descriptors of more keychains each by itself", format!("wpkh({KEY_A}/2/*)")),
        (format!("wsh(multi(1,{KEY_A}/*,{KEY_A}/*))"), "write every key once", format!("wsh(multi(1,{KEY_A}/*,{KEY_B}/*))")),
        (format!("wsh(or_d(pk({KEY_A}/<0;1>/*),and_v(v:pk({KEY_A}/<0;1>/*),older(9))))"), "give each occurrence another path (/<0;1>/*, /<2;3>/*)", format!("wsh(or_d(pk({KEY_A}/<0;1>/*),and_v(v:pk({KEY_A}/<2;3>/*),older(9))))")),
        (format!("wpkh({LONG_POINT})"), "write its compressed form (02… or 03…)", format!("wpkh({short})")),
        (format!( "wsh({}pk({KEY_A}/*){}", "or_i(0,".repeat(500), ")".repeat(501) ), "send one that is simpler", account()),
        (format!("wsh(or_i(pk({KEY_A}/*),older(9)))"), "because coins can be spent without a signature; send the descriptor as the wallet exports it", account()),
        (format!("wpkh({KEY_A}/0/*"), "; send it as the wallet exports it", format!("wpkh({KEY_A}/0/*)")),
    ];
    advised
}

#[test]
fn what_is_said_of_a_refused_descriptor_helps() {
    for (text, words, instead) in advised() {
        let sentence = refused(&text).to_string();
        assert!(sentence.contains(words), "{words}: {sentence}");
        assert!(sentence.len() < 600, "{sentence}");
        if !instead.is_empty() {
            let _ = wallet(&instead);
        }
    }
}

#[test]
fn a_key_that_does_not_say_its_scripts_comes_with_the_descriptors_that_it_could_mean() {
    let key = format!("[73c5da0a/44h/0h/0h]{XPUB}");
    for text in [
        XPUB,
        &key,
        &format!("{key}/<0;1>/*"),
        &format!("{XPUB}/0/*"),
    ] {
        let DescriptorProblem::Ambiguous {
            pkh,
            sh_wpkh,
            wpkh,
            tr,
        } = refused(text)
        else {
            panic!("{text}");
        };
        let sentence = refused(text).to_string();
        assert!(sentence.contains("send the one that it uses"), "{sentence}");
        for (candidate, head) in [
            (pkh, "pkh("),
            (sh_wpkh, "sh(wpkh("),
            (wpkh, "wpkh("),
            (tr, "tr("),
        ] {
            assert!(candidate.starts_with(head), "{candidate}");
            assert_eq!(wallet(&candidate).text(), candidate);
            assert!(sentence.contains(&candidate), "{sentence}");
            assert_eq!(
                candidate.contains("[73c5da0a/44h/0h/0h]"),
                text.starts_with('[')
            );
        }
    }
    let problem = WalletDescriptor::parse(XPUB, Network::Regtest).err();
    assert_eq!(
        problem,
        Some(DescriptorProblem::WrongNetwork {
            ours: Network::Regtest
        })
    );
}

/// Followed with a key of the other network.
#[test]
fn a_descriptor_of_another_network_is_named_and_one_of_this_network_is_taken() {
    let upub = "upub5EFU65HtV5TeiSHmZZm7FUffBGy8UKeqp7vw43jYbvZPpoVsgU93oac7Wk3u6moKegAEWtGNF8DehrnHtv21XXEMYRUocHqguyjknFHYfgY";
    for (text, network, words) in [
        (
            ZPUB,
            Network::Regtest,
            "of mainnet, but this daemon follows regtest: send the descriptor of a wallet on that network (tpub, upub or vpub)",
        ),
        (
            ZPUB,
            Network::Signet,
            "of mainnet, but this daemon follows signet",
        ),
        (
            upub,
            Network::Bitcoin,
            "of a test network, but this daemon follows mainnet: send the descriptor of a wallet on that network (xpub, ypub or zpub)",
        ),
    ] {
        let problem = WalletDescriptor::parse(text, network).expect_err("it is of another network");
        assert!(problem.to_string().contains(words), "{problem}");
    }
    for network in [
        Network::Testnet,
        Network::Testnet4,
        Network::Signet,
        Network::Regtest,
    ] {
        assert!(WalletDescriptor::parse(upub, network).is_ok(), "{network}");
    }
    let tpub = WalletDescriptor::parse(upub, Network::Regtest).expect("it is taken");
    let tpub = &tpub.text()["sh(wpkh(".len()..][..111];
    let mixed = refused(&format!("wsh(multi(1,{KEY_A}/*,{tpub}/*))"));
    assert!(
        mixed
            .to_string()
            .contains("send a descriptor whose keys are all of one")
    );
    assert_eq!(mixed, DescriptorProblem::MixedNetworks);
    // A key that is not extended is of every network.
    assert!(WalletDescriptor::parse(&format!("wpkh({POINT})"), Network::Regtest).is_ok());
}

#[test]
fn multipaths_are_one_a_key_of_two_different_places() {
    for steps in [
        "<0;1;2>/*",
        "<0;0>/*",
        "<0;1>/<2;3>/*",
        "<>/*",
        "<0>/*",
        "0>/*",
        "<0/*",
        "<0;>/*",
    ] {
        let problem = refused(&format!("wpkh({KEY_A}/{steps})"));
        assert_eq!(problem, DescriptorProblem::Multipath, "{steps}");
    }
    for text in [
        format!("wsh(multi(2,{KEY_A}/<0;1>/*,{KEY_B}/<0;1;2>/*))"),
        format!("tr({KEY_A}/<6;7;8;9>/*,{{pk({KEY_B}/<1;2;3>/0/*),pk({KEY_C}/0/0/<3;4;5>/*)}})"),
        format!("pkh([deadbeef/<0;1>]{KEY_A}/0)"),
    ] {
        let problem = refused(&text);
        assert_eq!(problem, DescriptorProblem::Multipath, "{text}");
    }
    // Others are as they are in all keychains.
    assert_eq!(
        wallet(&format!(
            "wsh(multi(2,{KEY_A}/<0;1>/*,{KEY_B}/5/*,{POINT}))"
        ))
        .keychains(),
        2
    );
}

/// Of BIP 381 to 383, 386 and 387.
#[test]
fn what_stands_where_it_must_not_is_refused() {
    let x_only = &POINT[2..];
    for text in [
        format!("pkh(pk({POINT}))"),
        format!("sh({POINT})"),
        format!("sh(sh(pkh({POINT})))"),
        format!("wsh(wpkh({POINT}))"),
        format!("wsh(wsh(pkh({POINT})))"),
        format!("sh(wsh(wsh(pkh({POINT}))))"),
        format!("wpkh(wsh(pkh({POINT})))"),
        format!("wsh({POINT})"),
        format!("sh(wpkh({LONG_POINT}))"),
        format!("wsh(pk({LONG_POINT}))"),
        format!("tr({LONG_POINT})"),
        format!("wsh(tr({x_only}))"),
        format!("sh(tr({x_only}))"),
        format!("pkh({x_only})"),
        format!("wpkh({x_only})"),
        format!("multi_a(1,{POINT})"),
        format!("sh(multi_a(1,{POINT}))"),
        format!("wsh(multi_a(1,{POINT}))"),
        format!("tr({POINT},multi(1,{KEY_A}))"),
        format!("wsh(multi(a,{POINT}))"),
        format!("wsh(multi(0,{POINT}))"),
        format!("wsh(multi(2,{POINT}))"),
        format!("tr({x_only},multi_a(0,{POINT}))"),
        format!("wsh(multi(1{}))", format!(",{KEY_A}/*").repeat(21)),
        format!("wpkh({KEY_A}/*,{KEY_B}/*)"),
        format!("wpkh({KEY_A}/*)wpkh({KEY_A}/*)"),
        format!("wpkh({KEY_A}/*/0)"),
        "wpkh()".to_owned(),
        "wpkh".to_owned(),
        "tr(,)".to_owned(),
        "(".to_owned(),
        "wsh(1)".to_owned(),
        "wsh(0)".to_owned(),
        format!("wsh(and_v(v:pk({KEY_A}/*),and_v(v:after(100),after(1700000000))))"),
    ] {
        let problem = refused(&text);
        assert!(!problem.to_string().contains(&POINT[..20]), "{problem}");
    }
    let keys: String = (0..16).map(|index| format!(",{KEY_A}/{index}/*")).collect();
    let _ = refused(&format!("sh(multi(1{keys}))"));
    let _ = wallet(&format!("wsh(multi(1{keys}))"));
}

/// Miniscript takes it for the key whose y coordinate is even, which may be another one.
#[test]
fn a_key_by_its_x_coordinate_stands_in_tr_alone() {
    let x = &POINT[2..];
    for text in [
        format!("wsh(pkh({x}))"),
        format!("sh(pkh({x}))"),
        format!("sh(wsh(pkh([73c5da0a/84h]{x})))"),
        format!("wsh(and_v(v:pkh({x}),older(9)))"),
        format!("wsh(or_d(pk({KEY_A}/<0;1>/*),and_v(v:pkh({x}),older(9))))"),
    ] {
        assert_eq!(refused(&text), DescriptorProblem::XOnly, "{text}");
    }
    let _ = wallet(&format!("tr({x},pkh({KEY_A}/*))"));
    let _ = wallet(&format!("tr({KEY_A}/*,and_v(v:pkh({x}),older(9)))"));
}

/// Bitcoin Core sorts it behind all others, miniscript by its compressed form.
#[test]
fn a_key_that_is_not_compressed_is_not_sorted() {
    let text = format!("sh(sortedmulti(1,{LONG_POINT},{KEY_A}/<0;1>/*))");
    assert_eq!(refused(&text), DescriptorProblem::SortedUncompressed);
    let _ = wallet(&text.replace("sortedmulti", "multi"));
}

/// Bitcoin Core knows miniscript in `wsh()` and `tr()` alone.
#[test]
fn wrappers_do_not_stand_in_sh() {
    for inner in [
        format!("n:pk({KEY_A}/*)"),
        format!("l:pk({KEY_A}/*)"),
        format!("u:pkh({KEY_A}/*)"),
        format!("tv:pk({KEY_A}/*)"),
        format!("j:multi(1,{KEY_A}/*,{KEY_B}/*)"),
        format!("n:wpkh({KEY_A}/*)"),
    ] {
        let problem = refused(&format!("sh({inner})"));
        assert_eq!(problem, DescriptorProblem::InSh, "{inner}");
        let problem = refused(&inner);
        assert_eq!(problem, DescriptorProblem::NoDescriptor, "{inner}");
    }
}

#[test]
fn what_cannot_be_spent_is_refused_in_every_leaf() {
    for text in [
        format!("tr({KEY_A}/*,0)"),
        format!("tr({KEY_A}/*,and_v(v:pk({KEY_B}/*),0))"),
        format!("tr({KEY_A}/*,{{pk({KEY_C}/*),and_v(v:pk({KEY_B}/*),0)}})"),
        "wsh(0)".to_owned(),
        format!("wsh(and_v(v:pk({KEY_A}/*),0))"),
    ] {
        let problem = refused(&text);
        assert!(
            matches!(
                problem,
                DescriptorProblem::Unsafe(_) | DescriptorProblem::Malformed(_)
            ),
            "{text}: {problem:?}"
        );
    }
    let _ = wallet(&format!("tr({KEY_A}/*,or_i(0,pk({KEY_B}/*)))"));
}

#[test]
fn the_place_of_a_character_counts_blanks_before_it() {
    let problem = refused("  wpkh(é)");
    assert_eq!(problem, DescriptorProblem::Character { place: 8 });
    assert_eq!(refused(&format!("{ZPUB}/")), DescriptorProblem::Path);
}

/// Bitcoin Core compares keys at index 0.
#[test]
fn a_key_that_occurs_twice_at_index_0_is_refused() {
    let child: bitcoin::bip32::Xpub = KEY_A.parse().expect("it is a key");
    let secp = bitcoin::secp256k1::Secp256k1::verification_only();
    let step = bitcoin::bip32::ChildNumber::Normal { index: 0 };
    let child = child.ckd_pub(&secp, step).expect("it has a child").to_pub();
    for text in [
        format!("wsh(and_v(v:pk({KEY_A}/0),pk({KEY_A}/*)))"),
        format!("wsh(and_v(v:pk({KEY_A}/<0;1>),pk({KEY_A}/*)))"),
        format!("wsh(and_v(v:pk({KEY_A}/<1;0>),pk({KEY_A}/*)))"),
        format!("wsh(and_v(v:pk({child}),pkh({KEY_A}/*)))"),
        format!("tr({KEY_B},multi_a(2,{KEY_A}/0,{KEY_A}/*))"),
        format!("tr({KEY_B},multi_a(2,{child},{KEY_A}/*))"),
    ] {
        assert_eq!(refused(&text), DescriptorProblem::RepeatedKey, "{text}");
    }
    let _ = wallet(&format!("tr({KEY_A}/0,{{pk({KEY_A}/*),pk({KEY_B})}})"));
}

/// On a thread with the stack that threads have.
#[test]
fn nothing_is_too_deep_or_too_long_for_the_stack() {
    let work = || {
        for (open, close) in [
            ("or_i(0,", ")"),
            ("{", "}"),
            ("(", ")"),
            ("sh(", ")"),
            ("v", ""),
            ("n", ":"),
        ] {
            // Deepest that miniscript takes, and as deep as a text can be.
            // About as deep as miniscript takes it, and as deep as a text can be.
            for (count, head) in [(401, "tr"), (402, "tr"), (403, "wsh"), (2000, "sh(wsh")] {
                let (open, close) = (open.repeat(count), close.repeat(count));
                let _ = parse(&format!("{head}({open}{close})"));
                let _ = parse(&format!("{head}({open}:pk({KEY_A}/*){close})"));
                let _ = parse(&format!("{head}({KEY_A},{open}pk({KEY_B}/*){close})"));
            }
        }
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(work);
    thread
        .expect("a thread starts")
        .join()
        .expect("its stack is large enough");
    let path = "/0".repeat(255);
    let _ = refused(&format!("wpkh({KEY_C}{path}/*)"));
    let _ = wallet(&format!("wpkh({KEY_C}{}/*)", "/0".repeat(250)));
    assert_eq!(
        refused(&" ".repeat(MAX_BYTES + 1)),
        DescriptorProblem::Empty
    );
    assert_eq!(refused(&"é".repeat(MAX_BYTES)), DescriptorProblem::TooLong);
}
