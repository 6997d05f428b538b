//! Addresses exist only here: below the API a watched thing is a script pubkey and its hash.
//!
//! Read: what people paste ([`pasted`]: `bitcoin:` URIs, characters that nobody sees), of at most
//! 128 visible bytes; base58 (P2PKH, P2SH), bech32 (witness version 0, BIP-173) and bech32m
//! (version 1 and all later ones, BIP-350). Written: the canonical text, so an upper-case bech32
//! address is answered in lower case. Test networks share prefixes: testnet3, testnet4 and signet
//! all of them, regtest the base58 ones. What is something else is named for what it is
//! ([`mistaken`]); keys are never shown again (`super::secret`).

mod mistaken;
mod pasted;
pub(super) mod script;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Network, ScriptBuf};

use super::error::ApiError;
use crate::tracker::ScriptHash;
pub use script::text;

/// Longer than any address (a bech32 one has at most 90 characters).
const MAX_BYTES: usize = 128;

/// Bad addresses of a list that a refusal names.
const BAD_NAMED: usize = 10;

/// An address of our network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAddress {
    /// The canonical text.
    pub text: String,
    pub spk: ScriptBuf,
    pub script: ScriptHash,
}

/// Reads an address that must be one of `network`.
pub fn parse(text: &str, network: Network) -> Result<KnownAddress, ApiError> {
    let bare = pasted::bare(text).map_err(|refusal| invalid(refusal.to_string()))?;
    if bare.is_empty() {
        return Err(invalid(
            "The address is empty; send a Bitcoin address.".to_owned(),
        ));
    }
    // A longer one is none, and is not tried as one.
    let address: Option<Address<NetworkUnchecked>> = Some(&bare)
        .filter(|bare| bare.len() <= MAX_BYTES)
        .and_then(|bare| bare.parse().ok());
    let Some(address) = address else {
        return Err(invalid(mistaken::sentence(text, &bare)));
    };
    if !address.is_valid_for_network(network) {
        return Err(wrong_network(&bare, &address, network));
    }
    let address = address.assume_checked();
    let spk = address.script_pubkey();
    Ok(KnownAddress {
        text: address.to_string(),
        script: ScriptHash::of(&spk),
        spk,
    })
}

/// Reads addresses of the list of this name. The refusal names the first bad ones by their places,
/// with their code if it is the same, else `invalid_address`. What is no text comes with what must
/// be in its place.
pub fn parse_all<'a>(
    list: &str,
    texts: impl Iterator<Item = Result<&'a str, String>>,
    network: Network,
) -> Result<Vec<KnownAddress>, ApiError> {
    let (mut known, mut bad) = (Vec::new(), Vec::new());
    for (place, text) in texts.enumerate() {
        match text.map(|text| parse(text, network)) {
            Ok(Ok(address)) => known.push(address),
            Ok(Err(error)) => bad.push(error.at(list, place)),
            Err(what) => bad.push(ApiError::invalid_field(&format!("{list}[{place}]"), &what)),
        }
        if bad.len() == BAD_NAMED {
            break;
        }
    }
    let sentences: Vec<_> = bad.iter().map(|error| &*error.message).collect();
    let message = sentences.join(" ");
    let is_mixed = bad.iter().any(|error| error.code != bad[0].code);
    match bad.into_iter().next() {
        Some(_) if is_mixed => Err(invalid(message)),
        Some(first) => Err(ApiError { message, ..first }),
        None => Ok(known),
    }
}

/// So many addresses, in words.
pub fn count(count: usize) -> String {
    let plural = if count == 1 { "" } else { "es" };
    format!("{count} address{plural}")
}

/// How bitcoind calls the chain: `main`, `test`, `testnet4`, `signet`, `regtest`.
pub fn network_name(network: Network) -> &'static str {
    network.to_core_arg()
}

fn invalid(message: String) -> ApiError {
    ApiError::bad_request("invalid_address", message)
}

fn wrong_network(text: &str, address: &Address<NetworkUnchecked>, expected: Network) -> ApiError {
    let found = if address.is_valid_for_network(Network::Bitcoin) {
        "mainnet"
    } else if !address.is_valid_for_network(Network::Regtest) {
        "testnet or signet"
    } else if address.is_valid_for_network(Network::Testnet) {
        "a test network (testnet, signet or regtest)"
    } else {
        "regtest"
    };
    let ours = match expected {
        Network::Bitcoin => "mainnet",
        Network::Testnet => "testnet3",
        Network::Testnet4 => "testnet4",
        Network::Signet => "signet",
        Network::Regtest => "regtest",
    };
    let message = format!(
        "{text} is an address of {found}, but this daemon follows {ours}: send an address of {ours}."
    );
    ApiError::bad_request("wrong_network", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From BIP-173, BIP-350, BIP-341 and Core's key_io tests; each with its networks.
    const MAIN: [&str; 6] = [
        "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
        "3P14159f73E4gFr7JterCCQh9QjiTjiZrG",
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3",
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        "bc1sw50qgdz25j",
    ];
    const TEST: [&str; 5] = [
        "n43gfthwVPBopwaTMjmpMAT4Nqzf95NKcy",
        "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc",
        "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
        "tb1qqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesrxh6hy",
        "tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c",
    ];
    const REGTEST: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

    fn code(text: &str, network: Network) -> &'static str {
        parse(text, network).expect_err("must be refused").code
    }

    #[test]
    fn every_address_kind_is_read_on_its_network_and_refused_on_another() {
        for text in MAIN {
            assert_eq!(parse(text, Network::Bitcoin).unwrap().text, text);
            assert_eq!(code(text, Network::Regtest), "wrong_network", "{text}");
        }
        for text in TEST {
            for network in [Network::Testnet, Network::Testnet4, Network::Signet] {
                assert_eq!(parse(text, network).unwrap().text, text);
            }
            assert_eq!(code(text, Network::Bitcoin), "wrong_network", "{text}");
        }
        assert_eq!(parse(REGTEST, Network::Regtest).unwrap().text, REGTEST);
        assert_eq!(code(REGTEST, Network::Signet), "wrong_network");
        assert!(
            parse(TEST[0], Network::Regtest).is_ok(),
            "regtest shares the base58 prefixes of the test networks"
        );
    }

    #[test]
    fn of_a_list_the_first_ten_bad_ones_are_named() {
        let refused = |texts: &[&str]| {
            let texts = texts.iter().copied().map(Ok);
            let parsed = parse_all("addresses", texts, Network::Regtest);
            parsed.expect_err("some are bad")
        };
        let error = refused(&[REGTEST, MAIN[0], REGTEST, "hello"]);
        assert_eq!(error.code, "invalid_address");
        let alike = refused(&[MAIN[0], REGTEST, MAIN[1]]);
        assert_eq!((alike.status.as_u16(), alike.code), (400, "wrong_network"));
        let sentence = |text| parse(text, Network::Regtest).unwrap_err().message;
        let expected = format!(
            "addresses[1]: {} addresses[3]: {}",
            sentence(MAIN[0]),
            sentence("hello")
        );
        assert_eq!(error.message, expected);
        let message = refused(&["hello"; 12]).message;
        assert_eq!(message.matches("addresses[").count(), BAD_NAMED);
        assert!(message.contains("addresses[9]: "), "{message}");
    }

    #[test]
    fn the_sentence_names_both_networks() {
        let said = |text, network| parse(text, network).expect_err("must be refused").message;
        assert!(
            said(MAIN[2], Network::Regtest).contains("of mainnet, but this daemon follows regtest")
        );
        assert!(
            said(TEST[2], Network::Regtest)
                .contains("of testnet or signet, but this daemon follows regtest")
        );
        assert!(said(TEST[0], Network::Bitcoin).contains(
            "of a test network (testnet, signet or regtest), but this daemon follows mainnet"
        ));
        assert!(
            said(REGTEST, Network::Testnet4)
                .contains("of regtest, but this daemon follows testnet4")
        );
    }

    #[test]
    fn upper_case_bech32_and_surrounding_space_are_accepted_and_answered_canonically() {
        let read = parse(&format!(" {}\n", REGTEST.to_uppercase()), Network::Regtest).unwrap();
        assert_eq!(read.text, REGTEST);
        assert_eq!(read, parse(REGTEST, Network::Regtest).unwrap());
    }

    #[test]
    fn the_text_of_a_script_is_the_address_that_it_came_from() {
        for address in MAIN {
            assert_eq!(
                text(
                    &parse(address, Network::Bitcoin).unwrap().spk,
                    Network::Bitcoin
                ),
                address
            );
        }
    }

    #[test]
    fn anything_else_is_invalid_whatever_its_size_or_script() {
        let long = "1".repeat(100_000);
        let mixed = "bcrt1Qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
        let wrong_checksum = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt081";
        for text in [
            "",
            " ",
            "hello",
            "é1234",
            "\0",
            "bc1",
            "bitcoin:x",
            &long,
            mixed,
            wrong_checksum,
        ] {
            let error = parse(text, Network::Regtest).expect_err("must be refused");
            assert_eq!(error.code, "invalid_address");
            assert!(error.message.len() < 600, "{}", error.message);
        }
    }
}
