//! Output descriptors: parsed, brought into one form, named and derived. Pure; private keys do not
//! come in, and nothing that is said repeats more of a text than short pieces of it.
//!
//! # Flow
//!
//! ```text
//! text -> secret    private keys and seeds are refused, whatever else is wrong
//!      -> spelling  checksum; SLIP-132 keys become xpub and tpub; bare keys become descriptors
//!      -> functions which of them are taken, and what to use in place of the others
//!      -> miniscript parses
//!      -> normal    network, hardened steps, multipath; one descriptor a keychain; its sanity
//!      -> WalletDescriptor: id, text, scripts
//! ```
//!
//! # Laws
//!
//! 1. Two descriptors have one id exactly if their normal forms are equal: one descriptor a
//!    keychain, in their order, each key derived as far as it is fixed, without origins, checksum
//!    and the other fields of an extended key; the keys of `sortedmulti` are sorted. Equal normal
//!    forms have equal scripts at all indexes. (The converse does not hold: the leaves of a taproot
//!    tree in another order are another id.)
//! 2. A keychain is a place in the multipath: 0 is external, 1 internal. Without a multipath there
//!    is one keychain, the external one; `…/0/*` alone is another wallet than `…/<0;1>/*`.
//! 3. Without a wildcard there is one script a keychain, at index 0.
//! 4. What is accepted is taken by bitcoind, too ([`WalletDescriptor::for_node`]), and by `parse`
//!    again as it is kept ([`WalletDescriptor::text`]): the same wallet, letter for letter.
//! 5. No text is parsed that is longer than [`MAX_BYTES`] or has a word that is longer than any
//!    key and is no row of wrappers, so that the cost is bounded.

mod derive;
mod functions;
mod normal;
mod problem;
mod secret;
mod spelling;
#[cfg(test)]
mod tests;

use std::ops::Range;

use bitcoin::{Network, ScriptBuf};
use miniscript::descriptor::checksum;
use miniscript::{Descriptor, DescriptorPublicKey};

pub use problem::{DescriptorProblem, SecretShape};
pub use secret::find as find_secret;

/// Longest text that is parsed; a wallet of fifteen keys with their origins has 3 KiB.
pub const MAX_BYTES: usize = 16 * 1024;

/// A wallet without its private keys: one or two keychains of scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletDescriptor {
    id: [u8; 32],
    text: String,
    is_ranged: bool,
    keychains: Vec<Keychain>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Keychain {
    /// With origins, without multipath.
    descriptor: Descriptor<DescriptorPublicKey>,
    /// In normal form, from which scripts are derived.
    normal: Descriptor<DescriptorPublicKey>,
}

impl WalletDescriptor {
    /// Reads a descriptor, or an extended public key whose kind says the descriptor, of the
    /// network.
    pub fn parse(text: &str, network: Network) -> Result<Self, DescriptorProblem> {
        if let Some(shape) = secret::find(text) {
            return Err(DescriptorProblem::Secret(shape));
        }
        let plain = spelling::plain(text)?;
        let wallet = |plain: &str| Self::of_plain(plain, network)?.read_again(network);
        if let Some(key) = spelling::ambiguous(&plain) {
            let of_function = |head: &str, tail: &str| {
                wallet(&format!("{head}{key}{tail}")).map(|wallet| wallet.text)
            };
            return Err(DescriptorProblem::Ambiguous {
                pkh: of_function("pkh(", ")")?,
                sh_wpkh: of_function("sh(wpkh(", "))")?,
                wpkh: of_function("wpkh(", ")")?,
                tr: of_function("tr(", ")")?,
            });
        }
        wallet(&plain)
    }

    /// Its text is what is kept (law 4).
    fn read_again(self, network: Network) -> Result<Self, DescriptorProblem> {
        let again = Self::of_plain(&spelling::plain(&self.text)?, network)?;
        match again == self {
            true => Ok(self),
            false => Err(DescriptorProblem::Unstable),
        }
    }

    fn of_plain(plain: &str, network: Network) -> Result<Self, DescriptorProblem> {
        functions::check(plain)?;
        let given: Descriptor<DescriptorPublicKey> =
            plain.parse().map_err(DescriptorProblem::of_miniscript)?;
        normal::check(&given, network)?;
        let text = canonical(&given);
        let is_ranged = given.has_wildcard();
        let singles = given
            .into_single_descriptors()
            .map_err(DescriptorProblem::of_miniscript)?;
        let keychains = singles
            .into_iter()
            .map(|descriptor| {
                let normal = normal::form(&descriptor)?;
                Ok(Keychain { descriptor, normal })
            })
            .collect::<Result<Vec<_>, DescriptorProblem>>()?;
        Ok(Self {
            id: normal::id(keychains.iter().map(|keychain| &keychain.normal)),
            text,
            is_ranged,
            keychains,
        })
    }

    /// The same for all spellings of a wallet (law 1).
    pub fn id(&self) -> [u8; 32] {
        self.id
    }

    /// As it was given, in the spelling of Bitcoin Core: origins, `h` for hardened steps, checksum.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// 1, or 2 with a multipath.
    pub fn keychains(&self) -> usize {
        self.keychains.len()
    }

    /// Whether it has a wildcard; without one there is index 0 alone.
    pub fn is_ranged(&self) -> bool {
        self.is_ranged
    }

    /// The scripts at these indexes, as far as there are any: below 2^31, or 0 alone without a
    /// wildcard; none for a keychain that there is not. Costs about 25 µs for each key of each
    /// index, so long ranges are to be asked for in portions.
    pub fn derive(&self, keychain: usize, indexes: Range<u32>) -> Vec<ScriptBuf> {
        const INDEXES: u32 = 1 << 31;
        let end = if self.is_ranged { INDEXES } else { 1 };
        let indexes = indexes.start..indexes.end.min(end);
        match self.keychains.get(keychain) {
            Some(keychain) => derive::scripts(&keychain.normal, indexes),
            None => Vec::new(),
        }
    }

    /// The keychain as `scantxoutset` and `deriveaddresses` of bitcoind take it, with its checksum;
    /// `None` for a keychain that there is not.
    pub fn for_node(&self, keychain: usize) -> Option<String> {
        let keychain = self.keychains.get(keychain)?;
        Some(canonical(&keychain.descriptor))
    }
}

/// With `h` for hardened steps, as Bitcoin Core writes it since version 25, and its checksum.
fn canonical(descriptor: &Descriptor<DescriptorPublicKey>) -> String {
    let text = format!("{descriptor:#}").replace('\'', "h");
    let mut engine = checksum::Engine::new();
    engine
        .input(&text)
        .expect("a descriptor is of the characters that have a checksum");
    let checksum = engine.checksum();
    format!("{text}#{checksum}")
}
