//! `webhooks.allowed_targets` and `webhooks.proxy`: what their texts mean.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use url::Url;

/// An entry of `webhooks.allowed_targets`: where webhooks may go although it is not on the public
/// internet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedTarget {
    /// In lower case.
    Host(String),
    /// One address is a network of its own.
    Network(IpNet),
}

impl AllowedTarget {
    pub fn is_host(&self, name: &str) -> bool {
        matches!(self, Self::Host(host) if *host == name)
    }

    pub fn has(&self, address: IpAddr) -> bool {
        matches!(self, Self::Network(network) if network.contains(&address.to_canonical()))
    }
}

impl FromStr for AllowedTarget {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address.to_canonical().into()));
        }
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Self::Network(network));
        }
        if is_host_name(text) {
            Ok(Self::Host(text.to_ascii_lowercase()))
        } else {
            Err(())
        }
    }
}

/// A name that ends with a number is none: it is an address that is written wrongly.
pub fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(is_good)
    };
    let last = text.rsplit('.').next().unwrap_or(text);
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 253 && text.split('.').all(is_label) && !is_number
}

/// `socks5h://[user:password@]host:port`. Not `socks5`, with which names would be resolved here.
pub fn is_proxy(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        url.scheme() == "socks5h"
            && url.host_str().is_some_and(|host| !host.is_empty())
            && url.port().is_some_and(|port| port != 0)
            && url.username().is_empty() == url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_targets_are_names_addresses_and_networks() {
        let target = |text: &str| text.parse::<AllowedTarget>();
        assert_eq!(
            target("Ntfy.Lan"),
            Ok(AllowedTarget::Host("ntfy.lan".to_owned()))
        );
        assert!(target("shop").unwrap().is_host("shop"));
        for (entry, address, is_in) in [
            ("192.168.1.5", "192.168.1.5", true),
            ("192.168.1.5", "::ffff:192.168.1.5", true),
            ("192.168.1.5", "192.168.1.6", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("192.168.0.0/16", "192.168.77.1", true),
            ("192.168.1.9/24", "192.168.1.1", true),
            ("192.168.0.0/16", "192.169.0.1", false),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "10.0.0.1", false),
            ("ntfy.lan", "10.0.0.1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(target(entry).unwrap().has(address), is_in, "{entry}");
        }
        #[rustfmt::skip]
        let bad = [
            "", "a b", "http://ntfy.lan", "ntfy.lan:80", "10.0.0.0/33", "10.0.0", "1.2.3.4.5",
            "192.168.1.*", "*.lan", "[fd00::1]", "user@host", "a..b", "müll.example",
        ];
        for text in bad {
            assert!(target(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_proxy_resolves_names_itself_and_has_a_port() {
        #[rustfmt::skip]
        let cases = [
            ("socks5h://127.0.0.1:9050", true), ("socks5h://tor:9050/", true), ("socks5h://[::1]:9050", true),
            ("socks5h://user:password@127.0.0.1:9050", true), ("socks5h://user@127.0.0.1:9050", false),
            ("socks5://127.0.0.1:9050", false), ("http://127.0.0.1:8080", false), ("127.0.0.1:9050", false),
            ("socks5h://127.0.0.1", false), ("socks5h://:9050", false), ("socks5h://tor:0", false),
            ("socks5h://tor:9050/path", false), ("", false),
        ];
        for (text, good) in cases {
            assert_eq!(is_proxy(text), good, "{text}");
        }
    }
}
