//! No text stops the parser; spellings change no id; scripts are those that miniscript derives step
//! by step, in whatever portions they are asked for.

use bitcoin::Network;
use bitcoin::secp256k1::Secp256k1;
use miniscript::{Descriptor, DescriptorPublicKey};
use proptest::prelude::*;

use super::super::WalletDescriptor;
use super::*;

const KEYS: [&str; 3] = [KEY_A, KEY_B, KEY_C];

fn origin() -> impl Strategy<Value = String> {
    let path = proptest::collection::vec((0_u32..1 << 31, any::<bool>()), 0..4);
    let some = (any::<u32>(), path).prop_map(|(fingerprint, path)| {
        let path: String = path
            .into_iter()
            .map(|(step, hardened)| format!("/{step}{}", if hardened { "h" } else { "" }))
            .collect();
        format!("[{fingerprint:08x}{path}]")
    });
    prop_oneof![Just(String::new()), some]
}

/// What follows a key: fixed steps and a wildcard, with or without two places.
fn path(is_multipath: bool) -> impl Strategy<Value = String> {
    (proptest::collection::vec(0_u32..1 << 31, 0..3), 0_u32..100).prop_map(move |(steps, place)| {
        let steps: String = steps.into_iter().map(|step| format!("/{step}")).collect();
        let places = format!("/<{place};{}>", place + 1);
        format!(
            "{steps}{}/*",
            if is_multipath { places } else { String::new() }
        )
    })
}

/// Three keys in a descriptor of every form. Hardened steps of origins are marked with `h`.
#[derive(Debug, Clone)]
struct Parts {
    form: &'static str,
    origins: [String; 3],
    paths: [String; 3],
}

const FORMS: [&str; 12] = [
    "pkh($0)",
    "wpkh($0)",
    "sh(wpkh($0))",
    "tr($0)",
    "sh(multi(2,$0,$1))",
    "sh(sortedmulti(2,$0,$1,$2))",
    "sh(wsh(sortedmulti(2,$0,$1,$2)))",
    "wsh(multi(1,$0,$1,$2))",
    "wsh(sortedmulti(2,$0,$1,$2))",
    "wsh(or_d(pk($0),and_v(v:pkh($1),older(144))))",
    "wsh(thresh(2,pk($0),s:pk($1),sln:after(500000)))",
    "tr($0,{and_v(v:pk($1),older(9)),multi_a(1,$1,$2)})",
];

impl Parts {
    /// With the keys in this order, and what is made of their origins.
    fn text(&self, order: [usize; 3], origin: impl Fn(&str) -> String) -> String {
        let places = order.into_iter().zip(["$0", "$1", "$2"]);
        places.fold(self.form.to_owned(), |text, (key, place)| {
            let origin = origin(&self.origins[key]);
            text.replace(place, &format!("{origin}{}{}", KEYS[key], self.paths[key]))
        })
    }

    fn given(&self) -> String {
        self.text([0, 1, 2], str::to_owned)
    }
}

fn parts() -> impl Strategy<Value = Parts> {
    any::<bool>().prop_flat_map(|is_multipath| {
        let paths = [path(is_multipath), path(is_multipath), path(is_multipath)];
        (
            proptest::sample::select(&FORMS[..]),
            [origin(), origin(), origin()],
            paths,
        )
            .prop_map(|(form, origins, paths)| Parts {
                form,
                origins,
                paths,
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn spellings_change_no_id(parts in parts(), blanks in "[ \t\n]{0,3}") {
        let first = wallet(&parts.given());
        let (bare, _) = first.text().split_once('#').expect("it has a checksum");
        for text in [
            parts.text([0, 1, 2], |_| String::new()),
            parts.text([0, 1, 2], |origin| origin.replace('h', "'")),
            first.text().to_owned(),
            format!("{blanks}{bare}{blanks}"),
        ] {
            let other = wallet(&text);
            prop_assert_eq!(other.id(), first.id(), "{}", text);
            prop_assert_eq!(other.keychains(), first.keychains());
        }
        let turned = wallet(&parts.text([2, 0, 1], str::to_owned));
        let is_same = parts.form.contains("sortedmulti");
        prop_assert_eq!(turned.id() == first.id(), is_same);
        prop_assert_eq!(turned.derive(0, 0..2) == first.derive(0, 0..2), is_same);
    }

    #[test]
    fn scripts_are_those_that_miniscript_derives(parts in parts(), from in 0_u32..(1 << 31) - 8, cut in 0_u32..8) {
        let text = parts.given();
        let wallet = wallet(&text);
        let secp = Secp256k1::verification_only();
        let descriptor: Descriptor<DescriptorPublicKey> = text.parse().expect("it was parsed");
        let singles = descriptor.into_single_descriptors().expect("of one length");
        prop_assert_eq!(singles.len(), wallet.keychains());
        for (keychain, single) in singles.iter().enumerate() {
            let slow: Vec<_> = (from..from + 8)
                .map(|index| single.derived_descriptor(&secp, index).expect("below 2^31").script_pubkey())
                .collect();
            prop_assert_eq!(&wallet.derive(keychain, from..from + 8), &slow);
            let mut portions = wallet.derive(keychain, from..from + cut);
            portions.extend(wallet.derive(keychain, from + cut..from + 8));
            prop_assert_eq!(&portions, &slow);
            let for_node = wallet.for_node(keychain).expect("there is this keychain");
            prop_assert_eq!(&super::wallet(&for_node).derive(0, from..from + 8), &slow);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Of a descriptor with pieces cut, doubled and replaced.
    #[test]
    fn no_text_stops_the_parser(
        parts in parts(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), 0_usize..40, "[(){}\\[\\]<>;:,/*#'h0-9a-z@é]{0,8}"), 0..4),
        main in any::<bool>(),
    ) {
        let mut text: Vec<char> = parts.given().chars().collect();
        for (place, length, with) in edits {
            let from = place.index(text.len().max(1)).min(text.len());
            let to = (from + length).min(text.len());
            text.splice(from..to, with.chars());
        }
        let text: String = text.into_iter().collect();
        let network = if main { Network::Bitcoin } else { Network::Regtest };
        match WalletDescriptor::parse(&text, network) {
            Ok(wallet) => {
                let again = WalletDescriptor::parse(wallet.text(), network).expect("its own text");
                prop_assert_eq!(again.id(), wallet.id());
                let _ = wallet.derive(0, 0..1);
            }
            Err(problem) => prop_assert!(problem.to_string().len() < 700, "{}", problem),
        }
    }

    #[test]
    fn no_arbitrary_text_stops_the_parser(text in ".{0,80}") {
        let _ = parse(&text);
    }
}
