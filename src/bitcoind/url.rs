//! Where a node's RPC is, parsed once.

use std::fmt;

use hyper::Uri;

use super::{NodeError, NodeErrorKind};
use crate::remedy::Remedy;

/// `http://host[:port][/path]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeUrl {
    /// As it is shown: without a slash at the end.
    text: String,
    uri: Uri,
}

impl NodeUrl {
    /// The scheme may be left out.
    pub fn parse(text: &str) -> Result<Self, NodeError> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let rest = rest.trim_end_matches('/');
        let text = format!("http://{rest}");
        let wrong = |why: &str| {
            NodeError::new(NodeErrorKind::Setup, format!("bitcoind.rpc_url {why}"))
                .advise(Remedy::NameRpcPort)
        };
        if scheme != "http" {
            return Err(wrong(
                "must start with http:// (bitcoind speaks nothing else)",
            ));
        }
        if rest.contains('@') {
            return Err(wrong(
                "must not hold a password; bitcoind.rpc_user and bitcoind.rpc_password are for that",
            ));
        }
        if rest.is_empty() {
            return Err(wrong("is empty"));
        }
        match text.parse::<Uri>() {
            // A port that is none is left out of the parts, and 80 would be asked.
            Ok(uri) if uri.host() == Some("") || uri.port().is_none() && has_colon(&uri) => Err(
                wrong(&format!("{text:?} has no host, or a port that is none")),
            ),
            Ok(uri) => Ok(Self { text, uri }),
            Err(error) => Err(wrong(&format!("{text:?} is not an address ({error})"))),
        }
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// `host:port`, or `host`.
    pub(super) fn authority(&self) -> &str {
        self.uri
            .authority()
            .map_or("", |authority| authority.as_str())
    }

    /// With the brackets of an IPv6 address.
    pub(crate) fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    pub(super) fn is_loopback(&self) -> bool {
        let host = self.host().trim_matches(['[', ']']);
        host == "localhost"
            || host
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    }
}

/// Behind the host.
fn has_colon(uri: &Uri) -> bool {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    authority.len() > uri.host().unwrap_or_default().len()
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        for (text, shown, authority, host, is_loopback) in [
            (
                "127.0.0.1:8332/",
                "http://127.0.0.1:8332",
                "127.0.0.1:8332",
                "127.0.0.1",
                true,
            ),
            (
                "http://[::1]:8332/wallet",
                "http://[::1]:8332/wallet",
                "[::1]:8332",
                "[::1]",
                true,
            ),
            (
                "http://localhost",
                "http://localhost",
                "localhost",
                "localhost",
                true,
            ),
            ("http://node", "http://node", "node", "node", false),
        ] {
            let url = NodeUrl::parse(text).expect(text);
            assert_eq!((&*url.to_string(), url.authority()), (shown, authority));
            assert_eq!(
                (url.host(), url.is_loopback()),
                (host, is_loopback),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_address_of_a_node_is_refused_with_the_reason() {
        for (text, why) in [
            ("https://127.0.0.1:8332", "must start with http://"),
            ("http://a:b@127.0.0.1:8332", "must not hold a password"),
            ("http://", "is empty"),
            ("", "is empty"),
            ("http://a b:8332", "is not an address"),
            ("http://a:83320", "a port that is none"),
            ("http://:8332", "has no host"),
        ] {
            let error = NodeUrl::parse(text).expect_err(text);
            assert!(error.message.contains(why), "{text}: {error}");
        }
    }
}
