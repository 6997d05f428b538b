//! Where webhooks may go to: a URL is checked when it is set, and the addresses that its name has
//! at every connection, so that a name that changes its mind (DNS rebinding) reaches nothing that
//! is not on the public internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::StatusCode;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::lookup::Lookups;
use super::signature;
use crate::api::App;
use crate::api::error::ApiError;
use crate::store::Webhook;

const MAX_URL_BYTES: usize = 2048;

/// What a consumer's definition says about its webhook.
pub struct Target {
    url: Url,
    /// `None`: the one that the consumer has.
    secret: Option<Vec<u8>>,
}

impl Target {
    /// The webhook of a consumer that had `known` before, and the secret's text when it is made
    /// now: it is shown once.
    pub fn webhook(self, known: Option<&Webhook>) -> Result<(Webhook, Option<String>), ApiError> {
        let (secret, generated) = match (self.secret, known) {
            (Some(secret), _) => (secret, None),
            (None, Some(known)) => (known.secret.clone(), None),
            (None, None) => {
                let secret = signature::new_secret()?;
                let text = signature::secret_text(&secret);
                (secret, Some(text))
            }
        };
        Ok((
            Webhook {
                url: self.url.to_string(),
                secret,
            },
            generated,
        ))
    }
}

/// `url` and `secret` of a definition.
pub fn target(
    app: &App,
    url: Option<String>,
    secret: Option<String>,
) -> Result<Option<Target>, ApiError> {
    let Some(url) = url else {
        return match secret {
            None => Ok(None),
            Some(_) => Err(ApiError::missing_field(
                "url",
                "{\"url\": \"https://shop.example/hook\"} beside \"secret\"",
            )),
        };
    };
    let url = parse_url(&url)?;
    check_literal(&url, app.config.webhooks.allow_private).map_err(|message| {
        ApiError::new(StatusCode::BAD_REQUEST, "webhook_target_refused", message)
    })?;
    const SECRET: &str = "\"whsec_\" and 24 to 64 bytes as base64; leave it out to get one made";
    let parse = |text: String| {
        signature::parse_secret(&text).ok_or_else(|| ApiError::invalid_field("secret", SECRET))
    };
    Ok(Some(Target {
        url,
        secret: secret.map(parse).transpose()?,
    }))
}

fn parse_url(text: &str) -> Result<Url, ApiError> {
    let refused = || {
        ApiError::invalid_field(
            "url",
            "an http or https URL without user and password, such as \"https://shop.example/hook\"",
        )
    };
    let url = Url::parse(text)
        .ok()
        .filter(|_| text.len() <= MAX_URL_BYTES)
        .ok_or_else(refused)?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let good = matches!(url.scheme(), "http" | "https")
        && url.host().is_some()
        && url.port() != Some(0)
        && plain;
    if good { Ok(url) } else { Err(refused()) }
}

/// The sentence that refuses a URL whose host is an address that is not to be posted to.
pub fn check_literal(url: &Url, allow_private: bool) -> Result<(), String> {
    let host = url.host_str().unwrap_or_default();
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    match address {
        Ok(address) if !allow_private && !is_global(address) => Err(refusal(host, &[address])),
        _ => Ok(()),
    }
}

fn refusal(host: &str, addresses: &[IpAddr]) -> String {
    let addresses = addresses
        .iter()
        .map(IpAddr::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let is = if host.trim_matches(['[', ']']) == addresses {
        String::new()
    } else {
        format!(" is {addresses} and")
    };
    format!(
        "{host}{is} is not on the public internet; set webhooks.allow_private = true to post to such addresses."
    )
}

/// Resolves names with the system's resolver and drops addresses that are not to be posted to.
#[derive(Debug)]
pub struct Resolver {
    pub allow_private: bool,
    pub lookups: Lookups,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (allow_private, lookups) = (self.allow_private, self.lookups.clone());
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = lookups.find(&host).await?;
            Ok(Box::new(permitted(&host, found, allow_private)?.into_iter()) as Addrs)
        })
    }
}

fn permitted(
    host: &str,
    found: Vec<SocketAddr>,
    allow_private: bool,
) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
    let (good, bad): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|found| allow_private || is_global(found.ip()));
    if good.is_empty() && !bad.is_empty() {
        let bad: Vec<_> = bad.iter().map(SocketAddr::ip).collect();
        return Err(refusal(host, &bad).into());
    }
    Ok(good)
}

/// IPv4 that is not on the public internet (IANA's special-purpose registry, and multicast).
const NOT_GLOBAL_4: &[([u8; 4], u32)] = &[
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 3),
];

/// Of the global unicast addresses 2000::/3, those that are not on the public internet: protocols
/// (with Teredo), documentation.
const NOT_GLOBAL_6: &[([u16; 2], u32)] =
    &[([0x2001, 0], 23), ([0x2001, 0xdb8], 32), ([0x3fff, 0], 20)];

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_global_4(address),
        IpAddr::V6(address) => is_global_6(address),
    }
}

fn is_global_4(address: Ipv4Addr) -> bool {
    let begins = |(net, bits): &([u8; 4], u32)| {
        (u32::from_be_bytes(*net) ^ address.to_bits()).leading_zeros() >= *bits
    };
    !NOT_GLOBAL_4.iter().any(begins)
}

/// An address that carries an IPv4 address is as global as that.
fn is_global_6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let carried = |high: u16, low: u16| {
        is_global_4(Ipv4Addr::from_bits(
            (u32::from(high) << 16) | u32::from(low),
        ))
    };
    match [a, b, c, d, e, f] {
        // Mapped, and NAT64.
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => carried(g, h),
        // 6to4.
        [0x2002, ..] => carried(b, c),
        _ => {
            let begins = |([x, y], bits): &([u16; 2], u32)| {
                let net = (u32::from(*x) << 16) | u32::from(*y);
                (net ^ ((u32::from(a) << 16) | u32::from(b))).leading_zeros() >= *bits
            };
            a & 0xe000 == 0x2000 && !NOT_GLOBAL_6.iter().any(begins)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(text: &str) -> bool {
        is_global(text.parse().unwrap())
    }

    #[test]
    fn addresses_on_the_public_internet_and_others() {
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ] {
            assert!(global(text), "{text}");
        }
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "64:ff9b::1:1.1.1.1",
            "100::1",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "2001::1",
            "2001:10::1",
            "2001:1ff::1",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ] {
            assert!(!global(text), "{text}");
        }
    }

    #[test]
    fn urls_that_are_no_targets_are_refused_with_what_they_must_be() {
        for bad in [
            "",
            "shop.example",
            "/hook",
            "ftp://shop.example/",
            "file:///etc/passwd",
            "https://",
            "http://user@shop.example/",
            "https://user:password@shop.example/",
            "https://shop.example/#part",
            "https://shop.example:0/",
            "https://shop.example:99999/",
            "http://[::1",
            "http://a b/",
        ] {
            let error = parse_url(bad).unwrap_err();
            assert_eq!(
                (error.code, error.message.contains("\"url\"")),
                ("invalid_field", true),
                "{bad}"
            );
        }
        assert!(
            parse_url(&format!(
                "https://shop.example/{}",
                "x".repeat(MAX_URL_BYTES)
            ))
            .is_err()
        );
        assert_eq!(
            parse_url("HTTPS://Shop.Example:443/Hook?a=b")
                .unwrap()
                .as_str(),
            "https://shop.example/Hook?a=b"
        );
    }

    #[test]
    fn a_literal_is_refused_in_every_spelling() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1:8080/",
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
            "https://169.254.169.254/latest/",
            "http://0/",
        ] {
            let url = parse_url(url).unwrap();
            let message = check_literal(&url, false).unwrap_err();
            assert!(
                message.contains("webhooks.allow_private")
                    && message.contains(url.host_str().unwrap()),
                "{url}: {message}"
            );
            assert_eq!(check_literal(&url, true), Ok(()), "{url}");
        }
        for url in [
            "https://1.1.1.1/",
            "https://[2606:4700::1111]/",
            "https://localhost/",
        ] {
            assert_eq!(
                check_literal(&parse_url(url).unwrap(), false),
                Ok(()),
                "names are looked at when they are resolved: {url}"
            );
        }
    }

    #[test]
    fn of_the_addresses_of_a_name_only_the_public_ones_are_used() {
        let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let mixed = vec![at("10.0.0.1"), at("1.1.1.1"), at("::1")];
        assert_eq!(
            permitted("shop.example", mixed.clone(), false).unwrap(),
            [at("1.1.1.1")]
        );
        assert_eq!(
            permitted("shop.example", mixed.clone(), true).unwrap(),
            mixed
        );
        let message = permitted("shop.example", vec![at("10.0.0.1"), at("::1")], false)
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("shop.example is 10.0.0.1, ::1 and is not on the public internet"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn a_name_that_points_to_this_machine_is_refused_when_it_is_resolved() {
        let found = Resolver {
            allow_private: false,
            lookups: Lookups::default(),
        }
        .resolve("localhost".parse().unwrap())
        .await;
        let message = found.err().expect("localhost is this machine").to_string();
        assert!(message.contains("webhooks.allow_private"), "{message}");
        assert!(
            Resolver {
                allow_private: true,
                lookups: Lookups::default(),
            }
            .resolve("localhost".parse().unwrap())
            .await
            .unwrap()
            .count()
                > 0
        );
    }
}
