//! Why a text is not taken: the cause and what to do, in a sentence that shows no key of it but
//! public ones that were read.

use bitcoin::Network;
use miniscript::AnalysisError;

/// What somebody should not have sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretShape {
    #[error("a private key")]
    PrivateKey,
    #[error("an encrypted private key")]
    EncryptedKey,
    #[error("an extended private key")]
    ExtendedPrivateKey,
    #[error("the words of a wallet's seed")]
    SeedWords,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorProblem {
    #[error(
        "This has what looks like {0} in it. It is needed nowhere here, and who has it can spend the coins: \
         if it may have been seen on its way, move them. Send the public descriptor, with extended public keys (xpub); \
         what was sent is neither kept nor logged."
    )]
    Secret(SecretShape),

    #[error("The descriptor is empty; send one, such as wpkh(xpub…/<0;1>/*).")]
    Empty,

    #[error("The descriptor is longer than {} KiB; send one that is shorter.", super::MAX_BYTES / 1024)]
    TooLong,

    #[error(
        "There are blanks or line breaks in the descriptor; send it in one piece, and of several each by itself."
    )]
    Blanks,

    #[error(
        "The character at place {place} occurs in no descriptor; write the descriptor with ASCII characters alone."
    )]
    Character { place: usize },

    #[error(
        "The checksum behind # does not fit: a character was probably mistyped; copy the descriptor again, whole, \
         or leave # and what follows out if it was changed on purpose."
    )]
    Checksum,

    #[error("A word in the descriptor is longer than any key; copy the descriptor again, whole.")]
    Word,

    #[error(
        "The checksum of an extended key is wrong, or the key is of another coin: a letter is probably mistyped or missing; \
         copy the key again, whole."
    )]
    Key,

    #[error(
        "This is not an output descriptor; send one of pkh(), wpkh(), sh(), wsh() or tr(), or an extended public key \
         (single addresses go to POST /add_address)."
    )]
    NoDescriptor,

    #[error(
        "This key alone does not say which scripts the wallet has; send the one that it uses: {pkh} or {sh_wpkh} or {wpkh} or {tr}"
    )]
    Ambiguous {
        pkh: String,
        sh_wpkh: String,
        wpkh: String,
        tr: String,
    },

    #[error(
        "The path behind the key does not say all scripts of the wallet; write /* at its end, or the key without a path."
    )]
    Path,

    #[error(
        "A {key} is the key of one of several signers; send the descriptor with the keys of all, \
         such as {head}sortedmulti(2,{key}…/<0;1>/*,{key}…/<0;1>/*){tail}."
    )]
    Multisig {
        key: &'static str,
        head: &'static str,
        tail: &'static str,
    },

    #[error(
        "A {key} is meant for {meant}, and this descriptor has other scripts; if it is right, write the key as {plain}."
    )]
    OtherScripts {
        key: &'static str,
        meant: String,
        plain: String,
    },

    #[error("{name}() is not taken: {instead}.")]
    Function {
        name: &'static str,
        instead: &'static str,
    },

    #[error(
        "Inside sh() there can be wpkh(), wsh(), multi(), sortedmulti(), pkh() or pk(), without wrappers; \
         write a script of miniscript as sh(wsh(…)), or wsh(…) if that is how the wallet makes its addresses, and tr(…) without sh()."
    )]
    InSh,

    #[error(
        "The extended keys are of different networks; send a descriptor whose keys are all of one."
    )]
    MixedNetworks,

    #[error(
        "This is a descriptor of {}, but this daemon follows {}: send the descriptor of a wallet on that network ({}).",
        found(*ours), name(*ours), prefix(*ours)
    )]
    WrongNetwork { ours: Network },

    #[error(
        "A hardened step (h or ') behind an extended public key takes the private key; send the key that the wallet \
         shows for the account, with the hardened steps before it: [fingerprint/84h/0h/0h]xpub…/<0;1>/*."
    )]
    Hardened,

    #[error(
        "A multipath has exactly two different places, the first for receiving and the second for change, and a key has at \
         most one: write /<0;1>/*, or send the descriptors of more keychains each by itself."
    )]
    Multipath,

    #[error(
        "A key occurs twice in one script; write every key once, or give each occurrence another path (/<0;1>/*, /<2;3>/*)."
    )]
    RepeatedKey,

    #[error(
        "A public key that is not compressed (04…) can stand in pkh() and sh() alone; write its compressed form (02… or 03…)."
    )]
    Uncompressed,

    #[error(
        "sortedmulti() does not say in which order a public key that is not compressed (04…) stands; \
         write multi(…) with the keys in the order of the wallet's scripts."
    )]
    SortedUncompressed,

    #[error(
        "A public key of 64 digits can stand in tr() alone; write it with its first byte (02… or 03…), and never send a private key."
    )]
    XOnly,

    /// What is kept would be another wallet, or none.
    #[error(
        "This descriptor cannot be kept as it is; send the descriptor as the wallet exports it."
    )]
    Unstable,

    #[error("The descriptor is nested too deeply; send one that is simpler.")]
    TooDeep,

    #[error(
        "The script of this descriptor is not safe, because {0}; send the descriptor as the wallet exports it."
    )]
    Unsafe(&'static str),

    /// What miniscript says, without long words and long quotations.
    #[error("This descriptor cannot be read ({0}); send it as the wallet exports it.")]
    Malformed(String),
}

impl DescriptorProblem {
    pub(super) fn of_miniscript(error: miniscript::Error) -> Self {
        use miniscript::{Error, ParseError, ParseTreeError};
        match error {
            Error::MaxRecursiveDepthExceeded | Error::TapTreeDepthError(_) => Self::TooDeep,
            Error::Parse(ParseError::Tree(ParseTreeError::MaxRecursionDepthExceeded {
                ..
            })) => Self::TooDeep,
            Error::AnalysisError(AnalysisError::RepeatedPubkeys) => Self::RepeatedKey,
            Error::AnalysisError(error) => Self::Unsafe(danger(&error)),
            Error::NonTopLevel(_) => {
                Self::Malformed("a script of another kind is needed".to_owned())
            }
            Error::Unexpected(_) | Error::Trailing(_) => {
                Self::Malformed("something stands where it must not".to_owned())
            }
            error => Self::Malformed(shortened(&unquoted(&error.to_string()))),
        }
    }
}

fn danger(error: &AnalysisError) -> &'static str {
    match error {
        AnalysisError::SiglessBranch => "coins can be spent without a signature",
        AnalysisError::RepeatedPubkeys => "a key occurs twice",
        AnalysisError::BranchExceedResouceLimits => {
            "it is too large to be spent from, or cannot be spent at all"
        }
        AnalysisError::HeightTimelockCombination => {
            "it demands a height and a time at once, which no transaction can fulfil"
        }
        AnalysisError::Malleable => "others can change the transactions that spend from it",
        AnalysisError::ContainsRawPkh => "it has the hash of a key in place of the key",
    }
}

/// Longest word, and longest quotation, that is said again.
const LONGEST: usize = 16;

/// Without what stands between the first quotation mark and the last one, if it is long: a key or a
/// seed can stand there in many short words.
fn unquoted(detail: &str) -> String {
    const MARKS: [char; 4] = ['\'', '`', '«', '»'];
    let behind_first = detail.split_once(MARKS).map(|(_, behind)| behind);
    let quotation = behind_first.and_then(|behind| behind.rsplit_once(MARKS));
    match quotation {
        Some((quotation, _)) if quotation.chars().count() > LONGEST => {
            detail.replacen(quotation, "…", 1)
        }
        _ => detail.to_owned(),
    }
}

/// At most 100 characters, without words that could be keys.
fn shortened(detail: &str) -> String {
    const MOST: usize = 100;
    let pieces = detail.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    let short = pieces.map(|piece| {
        let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        match word.len() > LONGEST {
            true => format!("…{}", piece.strip_prefix(word).unwrap_or_default()),
            false => piece.to_owned(),
        }
    });
    let line = short.collect::<String>();
    let line = line.trim().trim_end_matches('.');
    let mut shown: String = line
        .chars()
        .filter(|c| !c.is_control())
        .take(MOST)
        .collect();
    if line.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

/// The only other one that a key can be of.
fn found(ours: Network) -> &'static str {
    match ours {
        Network::Bitcoin => "a test network",
        _ => "mainnet",
    }
}

fn name(network: Network) -> &'static str {
    match network {
        Network::Bitcoin => "mainnet",
        Network::Testnet => "testnet3",
        Network::Testnet4 => "testnet4",
        Network::Signet => "signet",
        Network::Regtest => "regtest",
    }
}

fn prefix(ours: Network) -> &'static str {
    match ours {
        Network::Bitcoin => "xpub, ypub or zpub",
        _ => "tpub, upub or vpub",
    }
}
