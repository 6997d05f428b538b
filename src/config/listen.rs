//! Where to listen: `host:port`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;

use super::targets::is_host_name;

/// A host, which may be a name, and a port. Which addresses a name has is asked at the start.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Listen {
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
}

/// Not a host and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a host and a port, such as \"127.0.0.1:5005\", \"localhost:5005\" or \"[::1]:5005\" (port 0 picks a free one)"
)]
pub struct NotListen;

impl Listen {
    /// The host, if it is an address.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl FromStr for Listen {
    type Err = NotListen;

    fn from_str(text: &str) -> Result<Self, NotListen> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let (host, port) = text.rsplit_once(':').ok_or(NotListen)?;
        if !is_host_name(host.strip_suffix('.').unwrap_or(host)) {
            return Err(NotListen);
        }
        Ok(Self {
            host: host.to_owned(),
            port: port.parse().map_err(|_| NotListen)?,
        })
    }
}

impl TryFrom<String> for Listen {
    type Error = NotListen;

    fn try_from(text: String) -> Result<Self, NotListen> {
        text.parse()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(address) => SocketAddr::new(address, self.port).fmt(f),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}
