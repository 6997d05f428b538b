//! How much clients may do, and who they are on the network.
//!
//! # Laws
//!
//! 1. A client is its token or, without one, the address from which it comes ([`Key`]); an IPv6
//!    network of 64 bits is one address, because that is the least that anybody is given.
//! 2. Behind a proxy the address is what the proxy says, if it is one that `server.trusted_proxies`
//!    lists ([`client_address`]); what others say of themselves counts for nothing.
//! 3. Every limit has a name, which is that of its setting: refusals say it, and `/status` shows
//!    the limit beside its use ([`LimitUse`]). None is silent.
//! 4. What is kept for clients is bounded in number, and forgotten when they are idle.
//!
//! ```text
//! peer, X-Forwarded-For, Forwarded ──► client_address ──► Key ──► Rates   so many a second, so many a minute
//! token ──────────────────────────────────────────────────┘       Places  so many at the same time
//! ```

mod buckets;
mod client_address;
mod places;
mod rates;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

pub use buckets::Buckets;
pub use client_address::{Forwarding, client_address};
pub use places::{Held, Places};
pub use rates::{Exceeded, Rates};

pub use crate::server::LimitUse;

/// Identifies a token; says nothing of its secret.
pub type TokenId = [u8; 8];

/// Whose doings count together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    Token(TokenId),
    /// An address or, of IPv6, a network of 64 bits.
    Address(IpAddr),
    /// All for whom there was no room any more.
    Others,
}

impl Key {
    pub fn of_address(address: IpAddr) -> Self {
        const NETWORK: u128 = !0 << 64;
        Self::Address(match address.to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & NETWORK)),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(id) => id.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Address(IpAddr::V6(ip)) => write!(f, "{ip}/64"),
            Self::Address(ip) => write!(f, "{ip}"),
            Self::Others => f.write_str("others"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_is_an_ipv4_address_or_an_ipv6_network_of_64_bits() {
        let key = |text: &str| Key::of_address(text.parse().expect("an address"));
        assert_eq!(key("10.0.0.1"), key("::ffff:10.0.0.1"));
        assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
        assert_eq!(Key::Token([0xab; 8]).to_string(), "abababababababab");
    }
}
