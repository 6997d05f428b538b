//! Of BIP 44, 49, 84, 86, 380 to 387 and 389, and of SLIP-132. Those with private keys are here
//! with the public ones that belong to them, or among the refusals.

use bitcoin::{Address, Network};

use super::super::{DescriptorProblem, WalletDescriptor};
use super::*;

/// At keychain and index.
type Addresses = &'static [(usize, u32, &'static str)];

/// Account, and its addresses.
#[rustfmt::skip]
const ACCOUNTS: &[(&str, Network, Addresses)] = &[
    // SLIP-132: m/44'/0'/0', m/49'/0'/0', m/84'/0'/0'. BIP 44 has no vectors of its own.
    ("pkh(xpub6BosfCnifzxcFwrSzQiqu2DBVTshkCXacvNsWGYJVVhhawA7d4R5WSWGFNbi8Aw6ZRc1brxMyWMzG3DSSSSoekkudhUd9yLb6qx39T9nMdj/<0;1>/*)", Network::Bitcoin,
     &[(0, 0, "1LqBGSKuX5yYUonjxT5qGfpUsXKYYWeabA")]),
    ("ypub6Ww3ibxVfGzLrAH1PNcjyAWenMTbbAosGNB6VvmSEgytSER9azLDWCxoJwW7Ke7icmizBMXrzBx9979FfaHxHcrArf3zbeJJJUZPf663zsP", Network::Bitcoin,
     &[(0, 0, "37VucYSaXLCAsxYyAPfbSi9eh4iEcbShgf")]),
    ("zpub6rFR7y4Q2AijBEqTUquhVz398htDFrtymD9xYYfG1m4wAcvPhXNfE3EfH1r1ADqtfSdVCToUG868RvUUkgDKf31mGDtKsAYz2oz2AGutZYs", Network::Bitcoin,
     // BIP 84.
     &[(0, 0, "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"),
       (0, 1, "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g"),
       (1, 0, "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el")]),
    // BIP 49.
    ("upub5EFU65HtV5TeiSHmZZm7FUffBGy8UKeqp7vw43jYbvZPpoVsgU93oac7Wk3u6moKegAEWtGNF8DehrnHtv21XXEMYRUocHqguyjknFHYfgY", Network::Testnet,
     &[(0, 0, "2Mww8dCYPUpKHofjgcXcBCEGmniw9CoaiD2")]),
    // BIP 86.
    ("tr(xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ/<0;1>/*)", Network::Bitcoin,
     &[(0, 0, "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"),
       (0, 1, "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh"),
       (1, 0, "bc1p3qkhfews2uk44qtvauqyr2ttdsw7svhkl9nkm9s9c3x4ax5h60wqwruhk7")]),
];

/// Scripts from index 0 on.
#[rustfmt::skip]
const SCRIPTS: &[(&str, &[&str])] = &[
    // BIP 381.
    ("pkh([deadbeef/1/2'/3/4']03a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd)", &["76a9149a1c78a507689f6f54b847ad1cef1e614ee23f1e88ac"]),
    ("pkh([deadbeef/1/2h/3/4h]03a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd)", &["76a9149a1c78a507689f6f54b847ad1cef1e614ee23f1e88ac"]),
    ("pkh(04a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd5b8dec5235a0fa8722476c7709c02559e3aa73aa03918ba2d492eea75abea235)", &["76a914b5bd079c4d57cc7fc28ecf8213a6b791625b818388ac"]),
    ("sh(pk(03a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd))", &["a9141857af51a5e516552b3086430fd8ce55f7c1a52487"]),
    ("sh(pkh(03a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd))", &["a9141a31ad23bf49c247dd531a623c2ef57da3c400c587"]),
    ("pkh([bd16bee5/2147483647h]xpub69H7F5dQzmVd3vPuLKtcXJziMEQByuDidnX3YdwgtNsecY5HRGtAAQC5mXTt4dsv9RzyjgDjAQs9VGVV6ydYCHnprc9vvaA5YtqWyL6hyds/0)", &["76a914ebdc90806a9c4356c1c88e42216611e1cb4c1c1788ac"]),
    // BIP 382.
    ("wpkh(03a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd)", &["00149a1c78a507689f6f54b847ad1cef1e614ee23f1e"]),
    ("wpkh([ffffffff/13']xpub69H7F5d8KSRgmmdJg2KhpAK8SR3DjMwAdkxj3ZuxV27CprR9LgpeyGmXUbC6wb7ERfvrnKZjXoUmmDznezpbZb7ap6r1D3tgFxHmwMkQTPH/1/2/*)",
     &["0014326b2249e3a25d5dc60935f044ee835d090ba859", "0014af0bd98abc2f2cae66e36896a39ffe2d32984fb7", "00141fa798efd1cbf95cebf912c031b8a4a6e9fb9f27"]),
    ("wsh(pkh(03a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd))", &["0020338e023079b91c58571b20e602d7805fb808c22473cbc391a41b1bd3a192e75b"]),
    ("wsh(pk(03a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd))", &["00202e271faa2325c199d25d22e1ead982e45b64eeb4f31e73dbdf41bd4b5fec23fa"]),
    ("sh(wsh(pkh(03a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd)))", &["a914b61b92e2ca21bac1e72a3ab859a742982bea960a87"]),
    // BIP 383.
    ("sh(multi(2,[00000000/111'/222]xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL,xpub68NZiKmJWnxxS6aaHmn81bvJeTESw724CRDs6HbuccFQN9Ku14VQrADWgqbhhTHBaohPX4CjNLf9fq9MYo6oDaPPLPxSb7gwQN3ih19Zm4Y/0))", &["a91445a9a622a8b0a1269944be477640eedc447bbd8487"]),
    ("sh(wsh(multi(16,03669b8afcec803a0d323e9a17f3ea8e68e8abe5a278020a929adbec52421adbd0,0260b2003c386519fc9eadf2b5cf124dd8eea4c4e68d5e154050a9346ea98ce600,0362a74e399c39ed5593852a30147f2959b56bb827dfa3e60e464b02ccf87dc5e8,0261345b53de74a4d721ef877c255429961b7e43714171ac06168d7e08c542a8b8,02da72e8b46901a65d4374fe6315538d8f368557dda3a1dcf9ea903f3afe7314c8,0318c82dd0b53fd3a932d16e0ba9e278fcc937c582d5781be626ff16e201f72286,0297ccef1ef99f9d73dec9ad37476ddb232f1238aff877af19e72ba04493361009,02e502cfd5c3f972fe9a3e2a18827820638f96b6f347e54d63deb839011fd5765d,03e687710f0e3ebe81c1037074da939d409c0025f17eb86adb9427d28f0f7ae0e9,02c04d3a5274952acdbc76987f3184b346a483d43be40874624b29e3692c1df5af,02ed06e0f418b5b43a7ec01d1d7d27290fa15f75771cb69b642a51471c29c84acd,036d46073cbb9ffee90473f3da429abc8de7f8751199da44485682a989a4bebb24,02f5d1ff7c9029a80a4e36b9a5497027ef7f3e73384a4a94fbfe7c4e9164eec8bc,02e41deffd1b7cce11cde209a781adcffdabd1b91c0ba0375857a2bfd9302419f3,02d76625f7956a7fc505ab02556c23ee72d832f1bac391bcd2d3abce5710a13d06,0399eb0a5487515802dc14544cf10b3666623762fbed2ec38a3975716e2c29c232)))", &["a9147fc63e13dc25e8a95a3cee3d9a714ac3afd96f1e87"]),
    // BIP 386.
    ("tr(a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd)", &["512077aab6e066f8a7419c5ab714c12c67d25007ed55a43cadcacb4d7a970a093f11"]),
    ("tr(xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL/0/*,pk(xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL/1/*))",
     &["512078bc707124daa551b65af74de2ec128b7525e10f374dc67b64e00ce0ab8b3e12", "512001f0a02a17808c20134b78faab80ef93ffba82261ccef0a2314f5d62b6438f11", "512021024954fcec88237a9386fce80ef2ced5f1e91b422b26c59ccfc174c8d1ad25"]),
    ("tr(a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd,pk(669b8afcec803a0d323e9a17f3ea8e68e8abe5a278020a929adbec52421adbd0))", &["512017cf18db381d836d8923b1bdb246cfcd818da1a9f0e6e7907f187f0b2f937754"]),
    // BIP 387.
    ("tr(a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd,multi_a(1,669b8afcec803a0d323e9a17f3ea8e68e8abe5a278020a929adbec52421adbd0))", &["5120eb5bd3894327d75093891cc3a62506df7d58ec137fcd104cdd285d67816074f3"]),
    ("tr(50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0,multi_a(2,[00000000/111'/222]xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL,xpub68NZiKmJWnxxS6aaHmn81bvJeTESw724CRDs6HbuccFQN9Ku14VQrADWgqbhhTHBaohPX4CjNLf9fq9MYo6oDaPPLPxSb7gwQN3ih19Zm4Y/0))", &["51202eea93581594a43c0c8423b70dc112e5651df63984d108d4fc8ccd3b63b4eafa"]),
];

#[test]
fn accounts_of_wallets_have_the_addresses_of_the_specifications() {
    for (account, network, addresses) in ACCOUNTS {
        let wallet = WalletDescriptor::parse(account, *network).expect("it is taken");
        assert_eq!((wallet.keychains(), wallet.is_ranged()), (2, true));
        for (keychain, index, address) in *addresses {
            let scripts = wallet.derive(*keychain, *index..*index + 1);
            let found = Address::from_script(&scripts[0], *network).expect("it has an address");
            assert_eq!(found.to_string(), *address, "{account}");
        }
    }
}

#[test]
fn scripts_are_those_of_bip_381_to_387() {
    for (text, scripts) in SCRIPTS {
        assert_eq!(hex(&wallet(text), 0), *scripts, "{text}");
    }
}

/// BIP 383 has the scripts themselves, which are taken inside `wsh()` alone here.
#[test]
fn sorted_keys_are_those_of_bip_383() {
    let text = format!("wsh(sortedmulti(2,{KEY_A}/*,{KEY_B}/0/0/*))");
    let inner = [
        "5221025d5fc65ebb8d44a5274b53bac21ff8307fec2334a32df05553459f8b1f7fe1b62102fbd47cc8034098f0e6a94c6aeee8528abf0a2153a5d8e46d325b7284c046784652ae",
        "52210264fd4d1f5dea8ded94c61e9641309349b62f27fbffe807291f664e286bfbe6472103f4ece6dfccfa37b211eb3d0af4d0c61dba9ef698622dc17eecdf764beeb005a652ae",
        "5221022ccabda84c30bad578b13c89eb3b9544ce149787e5b538175b1d1ba259cbb83321024d902e1a2fc7a8755ab5b694c575fce742c48d9ff192e63df5193e4c7afe1f9c52ae",
    ];
    let expected = inner.map(|script| {
        let script = bitcoin::ScriptBuf::from_hex(script).expect("it is hexadecimal");
        script.to_p2wsh().to_hex_string()
    });
    assert_eq!(hex(&wallet(&text), 0), expected);
}

#[test]
fn a_multipath_is_its_two_descriptors_as_bip_389_expands_it() {
    for (text, first, second) in [
        (
            "wpkh([ffffffff/13h]xpub69H7F5d8KSRgmmdJg2KhpAK8SR3DjMwAdkxj3ZuxV27CprR9LgpeyGmXUbC6wb7ERfvrnKZjXoUmmDznezpbZb7ap6r1D3tgFxHmwMkQTPH/<1;3>/2/*)".to_owned(),
            "/1/2/*",
            "/3/2/*",
        ),
        (format!("wsh(multi(2,{KEY_A}/<1;2>/*,{KEY_B}/<3;4>/0/*))"), "/3/0/*", "/4/0/*"),
    ] {
        let both = wallet(&text);
        assert_eq!(both.keychains(), 2);
        for (keychain, path) in [first, second].into_iter().enumerate() {
            let single = both.for_node(keychain).expect("it is one of the two");
            assert!(single.contains(path), "{single}");
            assert_eq!(hex(&both, keychain), hex(&wallet(&single), 0));
        }
        assert_ne!(hex(&both, 0), hex(&both, 1));
        assert_eq!((both.for_node(2), both.derive(2, 0..3)), (None, vec![]));
    }
}

/// With a function around it, where one is needed.
#[test]
fn keys_are_valid_or_not_as_bip_380_says() {
    let point = "0260b2003c386519fc9eadf2b5cf124dd8eea4c4e68d5e154050a9346ea98ce600";
    for key in [
        point.to_owned(),
        LONG_POINT.to_owned(),
        format!("[deadbeef/0h/0h/0h]{point}"),
        format!("[deadbeef/0'/0'/0']{point}"),
        format!("[deadbeef/0'/0h/0']{point}"),
        KEY_A.to_owned(),
        format!("[deadbeef/0h/1h/2h]{KEY_A}"),
        format!("[deadbeef/0h/1h/2h]{KEY_A}/3/4/5"),
        format!("[deadbeef/0h/1h/2h]{KEY_A}/3/4/5/*"),
    ] {
        let _ = wallet(&format!("pkh({key})"));
    }
    for key in [
        format!("[deadbeef/0h/0h/0h/*]{point}"),
        format!("[deadbeef/0h/0h/0h/]{point}"),
        format!("[deadbef/0h/0h/0h]{point}"),
        format!("[deadbeeef/0h/0h/0h]{point}"),
        format!("[deadbeef/0f/0f/0f]{point}"),
        format!("[deadbeef/0H/0H/0H]{point}"),
        format!("[deadbeef/-0/-0/-0]{point}"),
        format!("{KEY_A}/2147483648"),
        format!("{KEY_A}/1aa"),
        format!("[aaaaaaaa][aaaaaaaa]{KEY_A}/0"),
        format!("aaaaaaaa]{KEY_A}/0"),
        format!("[gaaaaaaa]{KEY_A}/0"),
        "[deadbeef]".to_owned(),
    ] {
        let problem = refused(&format!("pkh({key})"));
        assert!(
            matches!(problem, DescriptorProblem::Malformed(_)),
            "{key}: {problem:?}"
        );
    }
    for steps in ["3h/4h/5h/*", "3h/4h/5h/*h", "0/*'"] {
        assert_eq!(
            refused(&format!("pkh({KEY_A}/{steps})")),
            DescriptorProblem::Hardened
        );
    }
}

/// Their texts are of `raw()`, which is not taken, so that the checksum alone is compared.
#[test]
fn checksums_are_right_or_wrong_as_bip_380_says() {
    let problem = |text| refused(text);
    for text in ["raw(deadbeef)#89f8spxm", "raw(deadbeef)"] {
        assert!(
            matches!(
                problem(text),
                DescriptorProblem::Function { name: "raw", .. }
            ),
            "{text}"
        );
    }
    for text in [
        "raw(deadbeef)#",
        "raw(deadbeef)#89f8spxmx",
        "raw(deadbeef)#89f8spx",
        "raw(deedbeef)#89f8spxm",
        "raw(deedbeef)##9f8spxm",
    ] {
        assert_eq!(problem(text), DescriptorProblem::Checksum, "{text}");
    }
    assert_eq!(
        problem("raw(Ü)#00000000"),
        DescriptorProblem::Character { place: 5 }
    );
}
