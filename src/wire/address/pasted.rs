//! From what people paste to the bare text of an address.

use crate::wire::secret::shortened;
use crate::wire::text::{after_scheme, starts_with, visible};

/// Human-readable parts of the addresses of Bitcoin's networks.
pub(super) const NETWORKS: [&str; 3] = ["bc", "tb", "bcrt"];

/// Why there is no address in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "This bitcoin: URI has no address in it, at most a way to pay over Lightning or by silent payment; send the on-chain address."
    )]
    NoAddress,
    #[error(
        "This bitcoin: URI has the parameter {0}, which has to be understood (BIP 21) and is not known here; send the address alone."
    )]
    Required(String),
}

/// The text without what nobody sees and, if it is a `bitcoin:` URI, without what surrounds the
/// address in it. Parameters that are not required are ignored, as BIP 21 has it.
pub fn bare(text: &str) -> Result<String, Refusal> {
    let seen = visible(text);
    let Some(rest) = after_scheme(&seen, "bitcoin:") else {
        return Ok(seen);
    };
    let (address, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let required = |name: &&str| starts_with(name, "req-");
    if let Some(name) = names(parameters).find(required) {
        return Err(Refusal::Required(shortened(name)));
    }
    let address = Some(address.trim_matches('/')).filter(|it| !it.is_empty());
    address
        .or_else(|| of_parameter(parameters))
        .map(str::to_owned)
        .ok_or(Refusal::NoAddress)
}

/// The first address that stands as a parameter, under the name of its network (BIP 321).
fn of_parameter(parameters: &str) -> Option<&str> {
    let mut pairs = parameters.split('&').filter_map(|it| it.split_once('='));
    let is_network = |name: &str| NETWORKS.iter().any(|hrp| name.eq_ignore_ascii_case(hrp));
    let (_, address) = pairs.find(|(name, address)| is_network(name) && !address.is_empty())?;
    Some(address)
}

fn names(parameters: &str) -> impl Iterator<Item = &str> {
    parameters.split('&').map(|parameter| {
        parameter
            .split_once('=')
            .map_or(parameter, |(name, _)| name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitcoin_uri_is_read_in_any_case_and_its_parameters_are_ignored() {
        for text in [
            "bitcoin:ADDR",
            "BITCOIN:ADDR",
            "Bitcoin:ADDR?amount=0.01",
            "bitcoin:ADDR?label=a%20b&message=req-&amount=0.01",
            "bitcoin:ADDR?",
            "bitcoin://ADDR",
            " bitcoin:ADDR?pj=https://shop.example/ \n",
            "bitcoin:ADDR?bc=OTHER",
            "bitcoin:?bc=ADDR",
            "BITCOIN:?LIGHTNING=LNBC1&TB=ADDR",
            "bitcoin:?bc=&bcrt=ADDR&bcrt=OTHER",
        ] {
            assert_eq!(bare(text).as_deref(), Ok("ADDR"), "{text}");
        }
        for text in [
            "bitcoin:",
            "bitcoin:?lightning=lnbc1",
            "BITCOIN://",
            "bitcoin:?bc=",
        ] {
            assert_eq!(bare(text), Err(Refusal::NoAddress), "{text}");
        }
    }

    #[test]
    fn a_required_parameter_is_refused() {
        for text in [
            "bitcoin:ADDR?req-somethingyoudontunderstand=50",
            "bitcoin:ADDR?amount=1&REQ-x",
        ] {
            assert!(matches!(bare(text), Err(Refusal::Required(_))), "{text}");
        }
    }

    #[test]
    fn what_nobody_sees_is_taken_off_around_and_inside() {
        for invisible in [
            "\u{200b}",
            "\u{feff}",
            "\u{200e}",
            "\u{200f}",
            "\u{ad}",
            "\u{a0}",
            "\u{202f}",
            "\u{2060}",
            "\u{202a}",
            "\u{202c}",
            "\u{2066}",
            "\u{2069}",
            "\u{fe0f}",
            "\u{3000}",
            "\u{2009}",
            " ",
            "\t",
            "\r\n",
            "\0",
            "\u{e0001}",
        ] {
            let text = format!("{invisible}AD{invisible}DR{invisible}");
            assert_eq!(bare(&text).as_deref(), Ok("ADDR"), "{invisible:?}");
            let text = format!("{invisible}bit{invisible}coin:ADDR?amount=1");
            assert_eq!(bare(&text).as_deref(), Ok("ADDR"), "{invisible:?}");
        }
        assert_eq!(bare("é1234").as_deref(), Ok("é1234"));
    }
}
