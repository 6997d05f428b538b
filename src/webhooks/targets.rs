//! Where webhooks may go, and on which way. A URL is looked at when it is set and at each attempt,
//! and the addresses that its name has at every connection, so that a name that changes its mind
//! (DNS rebinding) reaches nothing that is not on the public internet.
//!
//! | target | without a proxy | with `webhooks.proxy` |
//! |---|---|---|
//! | listed in `webhooks.allowed_targets` | directly | directly |
//! | another private address | refused unless `allow_private` | the same, directly |
//! | another public address | directly | through the proxy |
//! | `.onion` | refused | through the proxy |
//! | a name that only a private network knows | directly, if its addresses are public or allowed | refused unless `allow_private`, then directly |
//! | another name | directly, if its addresses are public or allowed | through the proxy, which resolves it |
//!
//! What a name means to the proxy cannot be looked at here without telling a name server that we
//! ask for it. So the proxy must keep to the public internet by itself, as Tor does; names that can
//! only be private ones are not given to it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::addresses::is_global;
use super::lookup::Lookups;
use crate::config;
use crate::config::AllowedTarget;

/// Last parts of names that no public name server knows.
const PRIVATE_ZONES: &[&str] = &[
    "localhost",
    "local",
    "internal",
    "home.arpa",
    "lan",
    "home",
    "intranet",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Direct,
    Proxy,
}

/// The settings that say where webhooks may go.
#[derive(Debug)]
pub struct Targets {
    allow_private: bool,
    allowed: Vec<AllowedTarget>,
    has_proxy: bool,
}

impl Targets {
    pub fn new(settings: &config::Webhooks) -> Self {
        Self {
            allow_private: settings.allow_private,
            allowed: settings.allowed_targets.clone(),
            has_proxy: settings.proxy.is_some(),
        }
    }

    /// How the target of a URL is reached, or the sentence that refuses it.
    pub fn way(&self, url: &Url) -> Result<Way, String> {
        let host = bare(url.host_str().unwrap_or_default());
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return self.way_to_address(host, address);
        }
        if is_in_zone(host, "onion") {
            return match self.has_proxy {
                true => Ok(Way::Proxy),
                false => Err(format!(
                    "{host} is an onion service, which is reached through Tor only; set webhooks.proxy = \"socks5h://127.0.0.1:9050\" (Tor's SOCKS port) to post there."
                )),
            };
        }
        if !self.has_proxy || self.allows_host(host) {
            return Ok(Way::Direct);
        }
        match (is_private_name(host), self.allow_private) {
            (false, _) => Ok(Way::Proxy),
            (true, true) => Ok(Way::Direct),
            (true, false) => Err(refusal(host, &[])),
        }
    }

    fn way_to_address(&self, host: &str, address: IpAddr) -> Result<Way, String> {
        match is_global(address) {
            _ if self.lists(address) => Ok(Way::Direct),
            true if self.has_proxy => Ok(Way::Proxy),
            false if !self.allow_private => Err(refusal(host, &[address])),
            _ => Ok(Way::Direct),
        }
    }

    fn lists(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|allowed| allowed.has(address))
    }

    fn allows_host(&self, name: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed.is_host(name))
    }

    /// Of the addresses of a name, those that may be posted to.
    fn permitted(&self, host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
        let host = bare(host);
        if self.allow_private || self.allows_host(&host.to_ascii_lowercase()) {
            return Ok(found);
        }
        let is_good =
            |found: &SocketAddr| is_global(found.ip()) || self.lists(found.ip().to_canonical());
        let (good, bad): (Vec<_>, Vec<_>) = found.into_iter().partition(is_good);
        if good.is_empty() && !bad.is_empty() {
            let bad: Vec<_> = bad.iter().map(SocketAddr::ip).collect();
            return Err(refusal(host, &bad));
        }
        Ok(good)
    }
}

/// Without the dot that may end a name.
fn bare(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

fn is_in_zone(host: &str, zone: &str) -> bool {
    let before = host.strip_suffix(zone);
    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn is_private_name(host: &str) -> bool {
    !host.contains('.') || PRIVATE_ZONES.iter().any(|zone| is_in_zone(host, zone))
}

fn refusal(host: &str, addresses: &[IpAddr]) -> String {
    let plain = host.trim_matches(['[', ']']);
    let addresses = addresses
        .iter()
        .map(IpAddr::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let is = if addresses.is_empty() || plain == addresses {
        String::new()
    } else {
        format!(" is {addresses} and")
    };
    format!(
        "{host}{is} is not on the public internet; set webhooks.allowed_targets = [\"{plain}\"] to post there (webhooks.allow_private = true allows all such addresses)."
    )
}

/// Resolves names with the system's resolver and drops addresses that are not to be posted to.
pub struct Resolver {
    /// `None`: the only name is that of the proxy, which may be anywhere.
    pub targets: Option<Arc<Targets>>,
    pub lookups: Lookups,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (targets, lookups) = (self.targets.clone(), self.lookups.clone());
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = lookups.find(&host).await?;
            let permitted = match targets {
                Some(targets) => targets.permitted(&host, found)?,
                None => found,
            };
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(allowed: &[&str]) -> Targets {
        let allowed = allowed.iter().map(|text| text.parse().unwrap()).collect();
        Targets {
            allow_private: false,
            allowed,
            has_proxy: false,
        }
    }

    fn way(targets: &Targets, url: &str) -> Result<Way, String> {
        targets.way(&Url::parse(url).unwrap())
    }

    #[test]
    fn a_literal_is_refused_in_every_spelling() {
        let (strict, open) = (
            targets(&[]),
            Targets {
                allow_private: true,
                ..targets(&[])
            },
        );
        for text in [
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
            let url = Url::parse(text).unwrap();
            let message = strict.way(&url).unwrap_err();
            assert!(
                message.contains("webhooks.allow_private")
                    && message.contains(url.host_str().unwrap()),
                "{url}: {message}"
            );
            assert_eq!(open.way(&url), Ok(Way::Direct), "{url}");
        }
        for url in [
            "https://1.1.1.1/",
            "https://[2606:4700::1111]/",
            "https://localhost/",
        ] {
            assert_eq!(
                way(&strict, url),
                Ok(Way::Direct),
                "names are looked at when they are resolved: {url}"
            );
        }
    }

    #[test]
    fn case_16_listed_hosts_and_networks_are_allowed_and_no_others() {
        let targets = targets(&["192.168.1.0/24", "fd00::5", "ntfy.lan", "127.0.0.1"]);
        for url in [
            "http://192.168.1.5:8080/",
            "http://[::ffff:192.168.1.5]/",
            "http://[fd00::5]/",
            "http://127.0.0.1/",
            "http://ntfy.lan/topic",
        ] {
            assert_eq!(way(&targets, url), Ok(Way::Direct), "{url}");
        }
        for url in [
            "http://192.168.2.5/",
            "http://10.0.0.1/",
            "http://[fd00::6]/",
            "http://[::1]/",
            "http://127.0.0.2/",
        ] {
            let message = way(&targets, url).unwrap_err();
            assert!(
                message.contains("webhooks.allowed_targets = ["),
                "{url}: {message}"
            );
        }
        let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let found = vec![at("10.0.0.1"), at("192.168.1.9"), at("::ffff:192.168.1.8")];
        assert_eq!(
            targets.permitted("Ntfy.Lan.", found.clone()),
            Ok(found.clone())
        );
        assert_eq!(
            targets.permitted("shop.lan", found.clone()).unwrap(),
            found[1..]
        );
        assert!(targets.permitted("shop.lan", vec![at("10.0.0.1")]).is_err());
    }

    #[test]
    fn of_the_addresses_of_a_name_only_the_public_ones_are_used() {
        let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let mixed = vec![at("10.0.0.1"), at("1.1.1.1"), at("::1")];
        let permitted = targets(&[]).permitted("shop.example", mixed);
        assert_eq!(permitted.unwrap(), [at("1.1.1.1")]);
        let private = vec![at("10.0.0.1"), at("::1")];
        let message = targets(&[]).permitted("shop.example", private).unwrap_err();
        assert!(
            message.starts_with("shop.example is 10.0.0.1, ::1 and is not on the public internet"),
            "{message}"
        );
    }

    #[test]
    fn case_15_an_onion_is_refused_with_the_reason_unless_there_is_a_proxy() {
        let without = targets(&[]);
        for url in ["http://abc.onion/", "https://a.b.ONION.:8443/x"] {
            let message = way(&without, url).unwrap_err();
            assert!(
                message.contains("webhooks.proxy = \"socks5h://"),
                "{message}"
            );
            let with = Targets {
                has_proxy: true,
                ..targets(&[])
            };
            assert_eq!(way(&with, url), Ok(Way::Proxy), "{url}");
        }
        assert_eq!(way(&without, "http://myonion/"), Ok(Way::Direct));
    }

    #[test]
    fn a_proxy_gets_public_targets_and_private_ones_stay_refused() {
        let proxied = |allowed: &[&str], allow_private| Targets {
            has_proxy: true,
            allow_private,
            ..targets(allowed)
        };
        let strict = proxied(&["192.168.1.0/24", "ntfy.lan", "1.1.1.1"], false);
        let open = proxied(&[], true);
        for (url, of_strict, of_open) in [
            ("https://shop.example/", Some(Way::Proxy), Way::Proxy),
            ("https://8.8.8.8/", Some(Way::Proxy), Way::Proxy),
            ("https://1.1.1.1/", Some(Way::Direct), Way::Proxy),
            ("http://192.168.1.5/", Some(Way::Direct), Way::Direct),
            ("http://ntfy.lan/", Some(Way::Direct), Way::Direct),
            ("http://10.0.0.1/", None, Way::Direct),
            ("http://localhost/", None, Way::Direct),
            ("http://a.localhost./", None, Way::Direct),
            ("http://shop/", None, Way::Direct),
            ("http://printer.local/", None, Way::Direct),
            ("http://vault.internal/", None, Way::Direct),
        ] {
            assert_eq!(way(&strict, url).ok(), of_strict, "{url}");
            assert_eq!(way(&open, url), Ok(of_open), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_points_to_this_machine_is_refused_when_it_is_resolved() {
        let resolver = |targets| Resolver {
            targets,
            lookups: Lookups::default(),
        };
        let found = async |resolver: Resolver| resolver.resolve("localhost".parse().unwrap()).await;
        let refused = found(resolver(Some(Arc::new(targets(&[]))))).await;
        let message = refused
            .err()
            .expect("localhost is this machine")
            .to_string();
        assert!(message.contains("webhooks.allow_private"), "{message}");
        for allowed in [Some(Arc::new(targets(&["localhost"]))), None] {
            let found = found(resolver(allowed)).await;
            assert!(found.unwrap().count() > 0);
        }
    }
}
