//! Which functions of descriptors are taken, and what to use in place of the others; and what is
//! told better here than by miniscript.

use super::problem::DescriptorProblem;

/// Inside `sh()`; bitcoind knows miniscript in `wsh()` and `tr()` alone.
const IN_SH: &[&str] = &["wpkh", "wsh", "multi", "sortedmulti", "pk", "pkh"];

/// Functions that are not taken at all: where they stand, and what to do.
#[rustfmt::skip]
const OTHERS: &[(&str, &str)] = &[
    ("addr", "it is one address; add it by itself (POST /add_address)"),
    ("raw", "it is one script; add its address by itself (POST /add_address)"),
    ("rawtr", "it is one key as it stands on the chain; write tr(KEY) with the key before its tweak, or add its addresses by themselves (POST /add_address)"),
    ("combo", "it is four wallets in one; send pkh(KEY), wpkh(KEY) and sh(wpkh(KEY)) each by itself"),
    ("pk", "its scripts have no address; write pkh(KEY), or wsh(pk(KEY)) if that is how the wallet makes its addresses"),
    ("multi", "its scripts have no address; write wsh(multi(…)), or sh(multi(…)) if that is how the wallet makes its addresses"),
    ("sortedmulti", "its scripts have no address; write wsh(sortedmulti(…)), or sh(sortedmulti(…)) if that is how the wallet makes its addresses"),
];

/// Wherever they stand.
#[rustfmt::skip]
const UNKNOWN: &[(&str, &str)] = &[
    ("musig", "it is not known here; add the addresses of the wallet by themselves (POST /add_addresses)"),
    ("sortedmulti_a", "it is not known here; add the addresses of the wallet by themselves (POST /add_addresses)"),
    ("expr_raw_pkh", "it is the hash of a key; write pkh(KEY) in its place"),
];

pub fn check(plain: &str) -> Result<(), DescriptorProblem> {
    let mut parts = plain.split(['(', ',', '{']);
    let mut names = parts
        .clone()
        .map(|part| part.rsplit_once(':').map_or(part, |(_, name)| name));
    let unknown = |name: &str| UNKNOWN.iter().find(|(unknown, _)| *unknown == name);
    if let Some((name, instead)) = names.clone().find_map(unknown) {
        return Err(DescriptorProblem::Function { name, instead });
    }
    // With wrappers they are miniscript.
    let (first, second) = (parts.next(), parts.next());
    let (Some(first), Some(second)) = (first, second) else {
        return Err(DescriptorProblem::NoDescriptor);
    };
    if let Some((name, instead)) = OTHERS.iter().find(|(name, _)| *name == first) {
        return Err(DescriptorProblem::Function { name, instead });
    }
    let is_segwit = match first {
        "pkh" => false,
        "wpkh" | "wsh" | "tr" => true,
        "sh" if IN_SH.contains(&second) => second.starts_with('w'),
        "sh" => return Err(DescriptorProblem::InSh),
        _ => return Err(DescriptorProblem::NoDescriptor),
    };
    let is_uncompressed = |word: &str| word.len() == 130 && word.starts_with("04");
    let mut words = plain.split(|c: char| !c.is_ascii_alphanumeric());
    if words.any(is_uncompressed) {
        if is_segwit {
            return Err(DescriptorProblem::Uncompressed);
        }
        if names.any(|name| name == "sortedmulti") {
            return Err(DescriptorProblem::SortedUncompressed);
        }
    }
    let mut keys = plain.split(['(', ')', '{', '}', ',']);
    match keys.all(has_right_multipath) {
        true => Ok(()),
        false => Err(DescriptorProblem::Multipath),
    }
}

/// Whether there is none in a key, or one of two places behind it (BIP 389 allows more places).
fn has_right_multipath(key: &str) -> bool {
    const SIGNS: [char; 3] = ['<', ';', '>'];
    let two_places = || {
        let (before, rest) = key.split_once('<')?;
        let (first, rest) = rest.split_once(';')?;
        let (second, behind) = rest.split_once('>')?;
        let is_single = [before, first, second, behind]
            .iter()
            .all(|part| !part.contains(SIGNS));
        let is_origin = behind.contains(']');
        Some(is_single && !is_origin && !first.is_empty() && !second.is_empty())
    };
    !key.contains(SIGNS) || two_places().unwrap_or(false)
}
