//! `server.trusted_proxies`: what its texts mean.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// An address or a network from which proxies connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedProxy(IpNet);

impl TrustedProxy {
    pub fn network(&self) -> IpNet {
        self.0
    }

    /// `address` is in its canonical form.
    pub fn has(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl FromStr for TrustedProxy {
    type Err = ();

    /// A network of all addresses is refused: with it everybody could say who they are.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().into(),
            Err(_) => text.parse::<IpNet>().map_err(|_| ())?,
        };
        match network.prefix_len() {
            0 => Err(()),
            _ => Ok(Self(network)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusted_proxies_are_addresses_and_networks() {
        let has = |text: &str, address: &str| {
            let proxy: TrustedProxy = text.parse().expect("a proxy");
            proxy.has(address.parse().expect("an address"))
        };
        assert!(has("127.0.0.1", "127.0.0.1"));
        assert!(!has("127.0.0.1", "127.0.0.2"));
        assert!(has("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(has("10.0.0.0/8", "10.1.2.3"));
        assert!(has("fd00::/8", "fd12::1"));
        assert!(!has("fd00::/8", "10.1.2.3"));
        for bad in [
            "",
            "proxy.lan",
            "10.0.0.0/33",
            "0.0.0.0/0",
            "::/0",
            "10.0.0.1:80",
        ] {
            assert_eq!(bad.parse::<TrustedProxy>(), Err(()), "{bad}");
        }
    }
}
