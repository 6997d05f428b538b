//! What must hold of a descriptor beside its grammar, and the normal form of each keychain.

use std::collections::BTreeSet;

use bitcoin::bip32::{self, ChildNumber};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{Secp256k1, VerifyOnly, XOnlyPublicKey};
use bitcoin::{Network, NetworkKind};
use miniscript::descriptor::{
    DescriptorType, DescriptorXKey, ShInner, SinglePub, SinglePubKey, Wildcard, WshInner,
};
use miniscript::{
    Descriptor, DescriptorPublicKey, MiniscriptKey, TranslateErr, Translator, translate_hash_clone,
};

use super::problem::DescriptorProblem;

/// Network, hardened steps, that the places of a multipath differ, and that a key by its x
/// coordinate stands in `tr()` alone: miniscript takes it in `pkh()` everywhere, as the even one.
pub fn check(
    descriptor: &Descriptor<DescriptorPublicKey>,
    network: Network,
) -> Result<(), DescriptorProblem> {
    let ours = NetworkKind::from(network);
    let kinds: BTreeSet<bool> = descriptor
        .iter_pk()
        .filter_map(|key| key.xkey_network())
        .map(|kind| kind == ours)
        .collect();
    match (kinds.contains(&true), kinds.contains(&false)) {
        (true, true) => return Err(DescriptorProblem::MixedNetworks),
        (false, true) => return Err(DescriptorProblem::WrongNetwork { ours: network }),
        _ => {}
    }
    let is_tr = descriptor.desc_type() == DescriptorType::Tr;
    for key in descriptor.iter_pk() {
        if key.is_x_only_key() && !is_tr {
            return Err(DescriptorProblem::XOnly);
        }
        if key.has_hardened_step() || key.wildcard() == Some(Wildcard::Hardened) {
            return Err(DescriptorProblem::Hardened);
        }
        if let DescriptorPublicKey::MultiXPub(key) = &key {
            let paths = key.derivation_paths.paths();
            if paths.first() == paths.last() {
                return Err(DescriptorProblem::Multipath);
            }
        }
    }
    Ok(())
}

/// Every key derived as far as it is fixed, and nothing left of where it came from. A descriptor
/// that could not be spent from as miniscript demands is refused.
pub fn form(
    descriptor: &Descriptor<DescriptorPublicKey>,
) -> Result<Descriptor<DescriptorPublicKey>, DescriptorProblem> {
    let mut fixer = Fixer {
        secp: Secp256k1::verification_only(),
        is_tr: descriptor.desc_type() == DescriptorType::Tr,
        index: None,
    };
    let mut sane = |descriptor: &Descriptor<DescriptorPublicKey>, index| {
        fixer.index = index;
        let fixed = descriptor
            .translate_pk(&mut fixer)
            .map_err(|error| match error {
                TranslateErr::TranslatorErr(_) => DescriptorProblem::Path,
                TranslateErr::OuterError(error) => DescriptorProblem::of_miniscript(error),
            })?;
        let check = fixed.sanity_check();
        check.map_err(DescriptorProblem::of_miniscript)?;
        Ok(fixed)
    };
    let normal = sane(descriptor, None)?;
    if normal.has_wildcard() {
        // bitcoind looks at index 0 for keys that occur twice.
        sane(&normal, Some(ChildNumber::Normal { index: 0 }))?;
    }
    for leaf in normal.tap_tree_iter() {
        let satisfaction = leaf.miniscript().max_satisfaction_size();
        satisfaction.map_err(DescriptorProblem::of_miniscript)?;
    }
    Ok(normal)
}

struct Fixer {
    secp: Secp256k1<VerifyOnly>,
    /// Its keys have an x coordinate alone.
    is_tr: bool,
    /// In place of the wildcard.
    index: Option<ChildNumber>,
}

impl Translator<DescriptorPublicKey> for Fixer {
    type TargetPk = DescriptorPublicKey;
    type Error = bip32::Error;

    fn pk(&mut self, key: &DescriptorPublicKey) -> Result<DescriptorPublicKey, bip32::Error> {
        let single = |key: bitcoin::PublicKey| {
            let key = match self.is_tr {
                true => SinglePubKey::XOnly(XOnlyPublicKey::from(key.inner)),
                false => SinglePubKey::FullKey(key),
            };
            DescriptorPublicKey::Single(SinglePub { origin: None, key })
        };
        let (xkey, path, wildcard) = match key {
            DescriptorPublicKey::Single(key) => {
                return Ok(match key.key {
                    SinglePubKey::FullKey(key) => single(key),
                    SinglePubKey::XOnly(_) => DescriptorPublicKey::Single(SinglePub {
                        origin: None,
                        key: key.key.clone(),
                    }),
                });
            }
            DescriptorPublicKey::XPub(key) => (&key.xkey, &key.derivation_path, key.wildcard),
            DescriptorPublicKey::MultiXPub(_) => {
                return Err(bip32::Error::InvalidDerivationPathFormat);
            }
        };
        let mut fixed = xkey.derive_pub(&self.secp, path)?;
        if let (Some(index), true) = (self.index, wildcard != Wildcard::None) {
            fixed = fixed.ckd_pub(&self.secp, index)?;
        }
        if wildcard == Wildcard::None || self.index.is_some() {
            return Ok(single(bitcoin::PublicKey::new(fixed.public_key)));
        }
        Ok(DescriptorPublicKey::XPub(DescriptorXKey {
            origin: None,
            xkey: bip32::Xpub {
                depth: 0,
                parent_fingerprint: bip32::Fingerprint::default(),
                child_number: ChildNumber::Normal { index: 0 },
                ..fixed
            },
            derivation_path: bip32::DerivationPath::master(),
            wildcard,
        }))
    }

    translate_hash_clone!(DescriptorPublicKey);
}

/// SHA-256, tagged as in BIP 340, of the normal forms, each with a line feed behind it.
pub fn id<'a>(keychains: impl Iterator<Item = &'a Descriptor<DescriptorPublicKey>>) -> [u8; 32] {
    let tag = sha256::Hash::hash(b"satwatch/descriptor");
    let mut engine = sha256::Hash::engine();
    engine.input(tag.as_ref());
    engine.input(tag.as_ref());
    for normal in keychains {
        engine.input(text(normal).as_bytes());
        engine.input(b"\n");
    }
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// Without checksum, the keys of `sortedmulti` sorted.
fn text(normal: &Descriptor<DescriptorPublicKey>) -> String {
    let of_wsh = |inner: &WshInner<DescriptorPublicKey>| match inner {
        WshInner::SortedMulti(multi) => Some(sorted(multi.k(), multi.pks())),
        WshInner::Ms(_) => None,
    };
    let sorted = match normal {
        Descriptor::Wsh(wsh) => of_wsh(wsh.as_inner()).map(|it| format!("wsh({it})")),
        Descriptor::Sh(sh) => match sh.as_inner() {
            ShInner::Wsh(wsh) => of_wsh(wsh.as_inner()).map(|it| format!("sh(wsh({it}))")),
            ShInner::SortedMulti(multi) => Some(format!("sh({})", sorted(multi.k(), multi.pks()))),
            _ => None,
        },
        _ => None,
    };
    sorted.unwrap_or_else(|| format!("{normal:#}"))
}

fn sorted<Key: MiniscriptKey>(k: usize, keys: &[Key]) -> String {
    let mut keys: Vec<String> = keys.iter().map(Key::to_string).collect();
    keys.sort_unstable();
    format!("sortedmulti({k},{})", keys.join(","))
}
