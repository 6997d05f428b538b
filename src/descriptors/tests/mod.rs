//! Of the descriptors: vectors of the specifications, spellings, refusals, properties.

mod properties;
mod refused;
mod secrets;
mod spellings;
mod vectors;

use bitcoin::Network;

use super::{DescriptorProblem, WalletDescriptor};

/// The account of BIP 84's vectors, m/84'/0'/0'.
const ZPUB: &str = "zpub6rFR7y4Q2AijBEqTUquhVz398htDFrtymD9xYYfG1m4wAcvPhXNfE3EfH1r1ADqtfSdVCToUG868RvUUkgDKf31mGDtKsAYz2oz2AGutZYs";
/// The account of SLIP-132's vectors, m/44'/0'/0'.
const XPUB: &str = "xpub6BosfCnifzxcFwrSzQiqu2DBVTshkCXacvNsWGYJVVhhawA7d4R5WSWGFNbi8Aw6ZRc1brxMyWMzG3DSSSSoekkudhUd9yLb6qx39T9nMdj";
/// Of BIP 383's and BIP 389's vectors.
const KEY_A: &str = "xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL";
const KEY_B: &str = "xpub68NZiKmJWnxxS6aaHmn81bvJeTESw724CRDs6HbuccFQN9Ku14VQrADWgqbhhTHBaohPX4CjNLf9fq9MYo6oDaPPLPxSb7gwQN3ih19Zm4Y";
const KEY_C: &str = "xpub661MyMwAqRbcGDZQUKLqmWodYLcoBQnQH33yYkkF3jjxeLvY8qr2wWGEWkiKFaaQfJCoi3HeEq3Dc5DptfbCyjD38fNhSqtKc1UHaP4ba3t";
/// Of BIP 381's vectors: one key, compressed and not.
const POINT: &str = "03a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd";
const LONG_POINT: &str = "04a34b99f22c790c4e36b2b3c2c35a36db06226e41c692fc82b8b56ac1c540c5bd5b8dec5235a0fa8722476c7709c02559e3aa73aa03918ba2d492eea75abea235";
/// Of BIP 32's vectors.
const XPRV: &str = "xprv9s21ZrQH143K31xYSDQpPDxsXRTUcvj2iNHm5NUtrGiGG5e2DtALGdso3pGz6ssrdK4PFmM8NSpSBHNqPqm55Qn3LqFtT2emdEXVYsCzC2U";

fn parse(text: &str) -> Result<WalletDescriptor, DescriptorProblem> {
    WalletDescriptor::parse(text, Network::Bitcoin)
}

fn wallet(text: &str) -> WalletDescriptor {
    parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

fn refused(text: &str) -> DescriptorProblem {
    match parse(text) {
        Ok(_) => panic!("{text} is taken"),
        Err(problem) => problem,
    }
}

fn hex(wallet: &WalletDescriptor, keychain: usize) -> Vec<String> {
    let scripts = wallet.derive(keychain, 0..3);
    scripts.iter().map(|spk| spk.to_hex_string()).collect()
}
