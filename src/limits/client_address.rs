//! The address from which a client comes when proxies stand in between.
//!
//! Each proxy adds, at the right, who has connected to it: to `X-Forwarded-For`, or to `Forwarded`
//! (RFC 7239). So the list is read from the right for as long as trusted proxies are named there;
//! the first address that is none of them is the client's. What stands to the left of it the client
//! may have written itself, and is not looked at. Where the list cannot be understood, the address
//! that connected to us counts.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::TrustedProxy;

/// The values of the two headers of a request, as they came, line by line.
#[derive(Debug, Default)]
pub struct Forwarding<'a> {
    pub x_forwarded_for: Vec<&'a [u8]>,
    pub forwarded: Vec<&'a [u8]>,
}

/// `peer`: who has connected to us.
pub fn client_address(
    trusted: &[TrustedProxy],
    peer: IpAddr,
    forwarding: &Forwarding<'_>,
) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|proxy| proxy.has(address));
    if !is_trusted(peer) {
        return peer;
    }
    let named = |lines: &[&[u8]], read: fn(&[u8]) -> Nodes| {
        let mut farthest = Some(peer);
        for node in lines.iter().rev().flat_map(|line| read(line)) {
            farthest = node;
            match node {
                Some(address) if is_trusted(address) => {}
                Some(_) | None => break,
            }
        }
        farthest
    };
    let x_forwarded_for = named(&forwarding.x_forwarded_for, x_forwarded_for);
    let forwarded = named(&forwarding.forwarded, forwarded);
    // A proxy that writes one of the headers may let the other one through as the client sent it.
    let client = match (&*forwarding.x_forwarded_for, &*forwarding.forwarded) {
        (_, []) => x_forwarded_for,
        ([], _) => forwarded,
        _ if x_forwarded_for == forwarded => forwarded,
        _ => None,
    };
    client.unwrap_or(peer)
}

/// What a line names, from the right; `None` where it cannot be understood.
type Nodes = Vec<Option<IpAddr>>;

fn x_forwarded_for(line: &[u8]) -> Nodes {
    let nodes = line.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let nodes = nodes.filter(|node| !node.is_empty());
    nodes
        .map(|node| std::str::from_utf8(node).ok().and_then(address))
        .collect()
}

fn forwarded(line: &[u8]) -> Nodes {
    let elements = std::str::from_utf8(line).ok().and_then(elements);
    match elements {
        Some(elements) => elements.iter().rev().map(|node| address(node)).collect(),
        None => vec![None],
    }
}

/// The `for` of each element of a line of `Forwarded`, empty where there is none. `None`: the line
/// is not what it must be.
fn elements(line: &str) -> Option<Vec<String>> {
    let mut elements = Vec::new();
    let mut rest = line.trim_ascii();
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix(',') {
            rest = behind.trim_ascii_start();
            continue;
        }
        let mut node = None;
        loop {
            let (name, behind) = rest.split_once('=')?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return None;
            }
            let (value, behind) = value(behind)?;
            if name.eq_ignore_ascii_case("for") && node.replace(value).is_some() {
                return None;
            }
            rest = behind.trim_ascii_start();
            match rest.strip_prefix(';') {
                Some(next) => rest = next.trim_ascii_start(),
                None => break,
            }
        }
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
        elements.push(node.unwrap_or_default());
    }
    Some(elements)
}

/// A token or a quoted text at the beginning, and what comes behind it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| !u8::try_from(c).is_ok_and(is_token));
        let (value, behind) = text.split_at_checked(end.unwrap_or(text.len()))?;
        return (!value.is_empty()).then(|| (value.to_owned(), behind));
    };
    let (mut value, mut chars) = (String::new(), quoted.chars());
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next()?),
            c => value.push(c),
        }
    }
}

/// RFC 9110, and the colon of a port, which many write without quotes.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:".contains(&byte)
}

/// With or without a port; IPv6 in brackets or, without a port, bare.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.parse::<IpAddr>().ok();
    let bracketed = || {
        let inside = text.strip_prefix('[')?.strip_suffix(']')?;
        inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = bare.or_else(bracketed).or_else(with_port)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trusted() -> Vec<TrustedProxy> {
        ["10.0.0.0/8", "fd00::1"]
            .map(|text| text.parse().expect("a proxy"))
            .to_vec()
    }

    fn client(peer: &str, x_forwarded_for: &[&str], forwarded: &[&str]) -> String {
        let forwarding = Forwarding {
            x_forwarded_for: x_forwarded_for.iter().map(|line| line.as_bytes()).collect(),
            forwarded: forwarded.iter().map(|line| line.as_bytes()).collect(),
        };
        let peer = peer.parse().expect("an address");
        client_address(&trusted(), peer, &forwarding).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_says_who_asks() {
        assert_eq!(client("9.9.9.9", &["1.2.3.4"], &[]), "9.9.9.9");
        assert_eq!(client("9.9.9.9", &[], &["for=1.2.3.4"]), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &["1.2.3.4"], &[]), "1.2.3.4");
        assert_eq!(client("::ffff:10.0.0.1", &["1.2.3.4"], &[]), "1.2.3.4");
        assert_eq!(client("fd00::1", &[], &["for=1.2.3.4"]), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &[], &[]), "10.0.0.1");
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_counts_whatever_stands_left_of_it() {
        for (lines, expected) in [
            (&["6.6.6.6, 1.2.3.4"][..], "1.2.3.4"),
            (&["\u{0}garbage\", 1.2.3.4"], "1.2.3.4"),
            (&["6.6.6.6, 1.2.3.4, 10.2.2.2"], "1.2.3.4"),
            (&["6.6.6.6", "1.2.3.4", "10.2.2.2, 10.3.3.3"], "1.2.3.4"),
            (&["10.5.5.5, 10.6.6.6"], "10.5.5.5"),
            (&["1.2.3.4, ,"], "1.2.3.4"),
            (&[""], "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", lines, &[]), expected, "{lines:?}");
        }
    }

    #[test]
    fn addresses_come_with_and_without_ports_and_brackets() {
        for (node, expected) in [
            ("1.2.3.4:5678", "1.2.3.4"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
        ] {
            assert_eq!(client("10.0.0.1", &[node], &[]), expected);
            let quoted = format!("for=\"{node}\"");
            assert_eq!(client("10.0.0.1", &[], &[&quoted]), expected);
        }
    }

    #[test]
    fn what_cannot_be_understood_counts_for_nothing() {
        for node in [
            "unknown",
            "_hidden",
            "1.2.3",
            "1.2.3.4:",
            "1.2.3.4:99999",
            "[1.2.3.4]",
            "[::1",
            "fe80::1%eth0",
            "shop.example",
            "1.2.3.4 5.6.7.8",
        ] {
            assert_eq!(client("10.0.0.1", &[node], &[]), "10.0.0.1", "{node}");
            let quoted = format!("for=\"{node}\"");
            assert_eq!(client("10.0.0.1", &[], &[&quoted]), "10.0.0.1", "{node}");
            // Nobody gets past it to what the client wrote.
            let behind = format!("6.6.6.6, {node}");
            assert_eq!(client("10.0.0.1", &[&behind], &[]), "10.0.0.1", "{node}");
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_has_it() {
        for (line, expected) in [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=6.6.6.6, for=198.51.100.17", "198.51.100.17"),
            ("for=6.6.6.6,for=1.2.3.4 , for=10.1.1.1;host=a", "1.2.3.4"),
            ("proto=https; for = 1.2.3.4", "10.0.0.1"),
            ("proto=https;for=\"1.2\\.3.4\"", "1.2.3.4"),
            ("proto=https", "10.0.0.1"),
            ("for=1.2.3.4;for=6.6.6.6", "10.0.0.1"),
            ("for=\"1.2.3.4", "10.0.0.1"),
            ("for=1.2.3.4 for=6.6.6.6", "10.0.0.1"),
            ("for=1.2.3.4;", "10.0.0.1"),
            ("for=", "10.0.0.1"),
            ("1.2.3.4", "10.0.0.1"),
            // A quote that a client leaves open takes nothing of what a proxy adds.
            ("for=6.6.6.6;x=\", for=1.2.3.4", "10.0.0.1"),
            ("for=6.6.6.6;x=\", for=\"1.2.3.4\"", "10.0.0.1"),
            ("for=6.6.6.6;x=\"\\, for=\"1.2.3.4\"", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", &[], &[line]), expected, "{line}");
        }
        let lines = ["for=\"6.6.6.6", "for=1.2.3.4"];
        assert_eq!(client("10.0.0.1", &[], &lines), "1.2.3.4");
    }

    #[test]
    fn two_headers_count_only_when_they_agree() {
        let both = |x, f| client("10.0.0.1", &[x], &[f]);
        assert_eq!(both("1.2.3.4", "for=1.2.3.4"), "1.2.3.4");
        assert_eq!(both("1.2.3.4", "for=6.6.6.6"), "10.0.0.1");
        assert_eq!(both("6.6.6.6", "for=1.2.3.4"), "10.0.0.1");
        assert_eq!(both("1.2.3.4", "garbage"), "10.0.0.1");
    }

    /// Bytes, mostly those that mean something here.
    fn line() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..4),
            "(for=|FOR=|by=|,|;|\"|\\\\| |\\[|\\]|:|[0-9a-f.]{1,9}|10\\.0\\.0\\.1|1\\.2\\.3\\.4)"
                .prop_map(String::into_bytes),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn whatever_a_client_writes_before_a_proxy_the_proxy_is_believed_or_nobody(
            lines in proptest::collection::vec(line(), 0..3), same_line: bool,
        ) {
            let peer: IpAddr = "10.0.0.1".parse().expect("an address");
            let client: IpAddr = "203.0.113.7".parse().expect("an address");
            let adds = |what: &[u8]| {
                let mut lines = lines.clone();
                match lines.last_mut() {
                    Some(last) if same_line => {
                        if !last.is_empty() {
                            last.extend(b", ");
                        }
                        last.extend(what);
                    }
                    _ => lines.push(what.to_vec()),
                }
                lines
            };
            for (x_forwarded_for, forwarded) in [
                (adds(b"203.0.113.7"), Vec::new()),
                (Vec::new(), adds(b"for=203.0.113.7;proto=https")),
                (Vec::new(), adds(b"for=\"203.0.113.7:80\"")),
                (adds(b"203.0.113.7"), lines.clone()),
                (lines.clone(), adds(b"for=203.0.113.7")),
            ] {
                let found = client_address(&trusted(), peer, &Forwarding {
                    x_forwarded_for: x_forwarded_for.iter().map(Vec::as_slice).collect(),
                    forwarded: forwarded.iter().map(Vec::as_slice).collect(),
                });
                prop_assert!(found == client || found == peer, "{found}");
            }
            // Who is not trusted is who they are.
            let found = client_address(&trusted(), client, &Forwarding {
                x_forwarded_for: lines.iter().map(Vec::as_slice).collect(),
                forwarded: lines.iter().map(Vec::as_slice).collect(),
            });
            prop_assert_eq!(found, client);
        }

        #[test]
        fn what_a_proxy_adds_to_x_forwarded_for_is_always_believed(
            before in line(), client: [u8; 4],
        ) {
            let client = IpAddr::from(client);
            prop_assume!(!trusted().iter().any(|proxy| proxy.has(client)));
            let line = [&before[..], format!(", {client}").as_bytes()].concat();
            let forwarding = Forwarding { x_forwarded_for: vec![&line], forwarded: Vec::new() };
            let peer = "10.0.0.1".parse().expect("an address");
            prop_assert_eq!(client_address(&trusted(), peer, &forwarding), client);
        }
    }
}
