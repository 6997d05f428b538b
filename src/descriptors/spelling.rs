//! From what people paste to a descriptor without checksum whose extended keys begin with `xpub` or
//! `tpub`.
//!
//! SLIP-132, revision of 2018, table "Registered HD version bytes": the version of an extended key
//! says the descriptor that it is meant for. A bare key of a wallet with one signer becomes that
//! descriptor, with the two keychains of BIP 44 if no path follows it. In a descriptor such a key
//! is taken if it is one of the kind that it says.

use bitcoin::base58;
use miniscript::descriptor::checksum;

use super::MAX_BYTES;
use super::problem::DescriptorProblem;

/// No key and no hash has as many letters (a public key that is not compressed has 130).
pub const LONGEST_WORD: usize = 130;

/// What the version of an extended key says.
struct Version {
    bytes: [u8; 4],
    name: &'static str,
    /// Version of the same key that says nothing but its network.
    plain: [u8; 4],
    /// How the descriptor begins that it is meant for.
    head: &'static str,
    /// With more than one signer.
    is_multisig: bool,
}

const XPUB: [u8; 4] = [0x04, 0x88, 0xb2, 0x1e];
const TPUB: [u8; 4] = [0x04, 0x35, 0x87, 0xcf];

#[rustfmt::skip]
const VERSIONS: &[Version] = &[
    Version { bytes: XPUB, name: "xpub", plain: XPUB, head: "", is_multisig: false },
    Version { bytes: TPUB, name: "tpub", plain: TPUB, head: "", is_multisig: false },
    Version { bytes: [0x04, 0x9d, 0x7c, 0xb2], name: "ypub", plain: XPUB, head: "sh(wpkh(", is_multisig: false },
    Version { bytes: [0x04, 0xb2, 0x47, 0x46], name: "zpub", plain: XPUB, head: "wpkh(", is_multisig: false },
    Version { bytes: [0x04, 0x4a, 0x52, 0x62], name: "upub", plain: TPUB, head: "sh(wpkh(", is_multisig: false },
    Version { bytes: [0x04, 0x5f, 0x1c, 0xf6], name: "vpub", plain: TPUB, head: "wpkh(", is_multisig: false },
    Version { bytes: [0x02, 0x95, 0xb4, 0x3f], name: "Ypub", plain: XPUB, head: "sh(wsh(", is_multisig: true },
    Version { bytes: [0x02, 0xaa, 0x7e, 0xd3], name: "Zpub", plain: XPUB, head: "wsh(", is_multisig: true },
    Version { bytes: [0x02, 0x42, 0x89, 0xef], name: "Upub", plain: TPUB, head: "sh(wsh(", is_multisig: true },
    Version { bytes: [0x02, 0x57, 0x54, 0x83], name: "Vpub", plain: TPUB, head: "wsh(", is_multisig: true },
];

/// The version of an extended public key, and its 78 bytes.
fn decoded(word: &str) -> Option<(&'static Version, Vec<u8>)> {
    if !(100..=LONGEST_WORD).contains(&word.len()) || !looks_extended(word) {
        return None;
    }
    let data = base58::decode_check(word).ok()?;
    let version = VERSIONS.iter().find(|it| data.starts_with(&it.bytes))?;
    let is_point = matches!(data.get(45), Some(2 | 3));
    (data.len() == 78 && is_point && word.starts_with(version.name)).then_some((version, data))
}

/// With a right checksum.
pub fn is_extended_public_key(word: &str) -> bool {
    decoded(word).is_some()
}

/// The descriptor in a text, or a bare `xpub` or `tpub` ([`ambiguous`]).
pub fn plain(text: &str) -> Result<String, DescriptorProblem> {
    let blanks = text.chars().take_while(|c| c.is_whitespace()).count();
    let text = text.trim();
    if text.is_empty() {
        return Err(DescriptorProblem::Empty);
    }
    if text.len() > MAX_BYTES {
        return Err(DescriptorProblem::TooLong);
    }
    if text.contains(char::is_whitespace) {
        return Err(DescriptorProblem::Blanks);
    }
    if let Some(place) = text.chars().position(|c| !c.is_ascii_graphic()) {
        return Err(DescriptorProblem::Character {
            place: blanks.saturating_add(place).saturating_add(1),
        });
    }
    let body = checksum::verify_checksum(text).map_err(|_| DescriptorProblem::Checksum)?;
    if body.contains('(') {
        return replaced(body);
    }
    of_key(body)
}

/// A key with its origin and path, but without the function that says its scripts: `xpub…`.
pub fn ambiguous(plain: &str) -> Option<&str> {
    (!plain.contains('(')).then_some(plain)
}

/// Without a function: a key whose version says it.
fn of_key(body: &str) -> Result<String, DescriptorProblem> {
    let key = match body.split_once(']') {
        Some((origin, key)) if origin.starts_with('[') => key,
        _ => body,
    };
    let (word, path) = match key.split_once('/') {
        Some((word, path)) => (word, Some(path)),
        None => (key, None),
    };
    if !looks_extended(word) {
        return Err(DescriptorProblem::NoDescriptor);
    }
    let (version, _) = decoded(word).ok_or(DescriptorProblem::Key)?;
    if version.is_multisig {
        return Err(DescriptorProblem::Multisig {
            key: version.name,
            head: version.head,
            tail: closing(version.head),
        });
    }
    if path.is_some_and(|path| !path.contains('*')) {
        return Err(DescriptorProblem::Path);
    }
    let path = if path.is_none() { "/<0;1>/*" } else { "" };
    let (head, tail) = (version.head, closing(version.head));
    replaced(&format!("{head}{body}{path}{tail}"))
}

/// As many parentheses as are open.
fn closing(head: &str) -> &'static str {
    match head.matches('(').count() {
        0 => "",
        1 => ")",
        _ => "))",
    }
}

pub fn looks_extended(word: &str) -> bool {
    word.len() > 20 && word.get(1..4) == Some("pub")
}

/// With `xpub` or `tpub` in place of the keys of SLIP-132.
fn replaced(descriptor: &str) -> Result<String, DescriptorProblem> {
    let mut plain = String::with_capacity(descriptor.len());
    for piece in descriptor.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let behind = piece.strip_prefix(word).unwrap_or_default();
        let is_wrappers = behind == ":";
        if word.len() > LONGEST_WORD && !is_wrappers {
            return Err(DescriptorProblem::Word);
        }
        if looks_extended(word) {
            plain.push_str(&replaced_key(word, descriptor)?);
        } else {
            plain.push_str(word);
        }
        plain.push_str(behind);
    }
    Ok(plain)
}

fn replaced_key(word: &str, descriptor: &str) -> Result<String, DescriptorProblem> {
    let (version, mut data) = decoded(word).ok_or(DescriptorProblem::Key)?;
    data.splice(..4, version.plain);
    let (depth, parent) = (data.get(4).copied(), data.get_mut(5..13));
    if let (Some(0), Some(parent)) = (depth, parent) {
        // bitcoind takes no key of depth 0 that has a parent.
        parent.fill(0);
    }
    let plain = base58::encode_check(&data);
    if !descriptor.starts_with(version.head) {
        return Err(DescriptorProblem::OtherScripts {
            key: version.name,
            meant: format!("{}…{}", version.head, closing(version.head)),
            plain,
        });
    }
    Ok(plain)
}
