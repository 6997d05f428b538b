//! Scripts of a keychain in normal form. Nearly all the time goes into one multiplication on the
//! curve for each key and index; the steps before the wildcard are taken already.

use std::convert::Infallible;
use std::ops::Range;

use bitcoin::bip32::{ChildNumber, Xpub};
use bitcoin::secp256k1::{Secp256k1, VerifyOnly};
use bitcoin::{PublicKey, ScriptBuf};
use miniscript::descriptor::SinglePubKey;
use miniscript::{Descriptor, DescriptorPublicKey, ToPublicKey, Translator, translate_hash_clone};

/// At indexes below 2^31.
pub fn scripts(normal: &Descriptor<DescriptorPublicKey>, indexes: Range<u32>) -> Vec<ScriptBuf> {
    let mut deriver = Deriver {
        secp: Secp256k1::verification_only(),
        index: 0,
    };
    indexes
        .map(|index| {
            deriver.index = index;
            let derived = normal.translate_pk(&mut deriver);
            derived
                .expect("a key of the same kind stands where the descriptor has one")
                .script_pubkey()
        })
        .collect()
}

struct Deriver {
    secp: Secp256k1<VerifyOnly>,
    index: u32,
}

impl Deriver {
    /// As `Xpub::ckd_pub` does, without the fields that nobody reads.
    fn child(&self, parent: &Xpub) -> PublicKey {
        let step = ChildNumber::Normal { index: self.index };
        let (tweak, _) = parent
            .ckd_pub_tweak(step)
            .expect("a hash is no scalar of the curve with a chance of 1 in 2^127");
        let key = parent
            .public_key
            .add_exp_tweak(&self.secp, &tweak.into())
            .expect("a sum of points is infinity with a chance of 1 in 2^256");
        PublicKey::new(key)
    }
}

impl Translator<DescriptorPublicKey> for Deriver {
    type TargetPk = PublicKey;
    type Error = Infallible;

    fn pk(&mut self, key: &DescriptorPublicKey) -> Result<PublicKey, Infallible> {
        Ok(match key {
            DescriptorPublicKey::Single(single) => match single.key {
                SinglePubKey::FullKey(key) => key,
                SinglePubKey::XOnly(key) => key.to_public_key(),
            },
            DescriptorPublicKey::XPub(key) => self.child(&key.xkey),
            DescriptorPublicKey::MultiXPub(key) => self.child(&key.xkey),
        })
    }

    translate_hash_clone!(DescriptorPublicKey);
}
