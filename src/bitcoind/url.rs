//! Parts of the address of the node, `http://host:port[/path]`.

/// `host:port`, or `host`.
pub fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// The host in `http://host:port/path`, with the brackets of an IPv6 address.
pub fn host_of(url: &str) -> &str {
    let authority = authority(url);
    match authority.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
        _ => authority,
    }
}

pub fn host_is_loopback(url: &str) -> bool {
    let host = host_of(url);
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// `host:port`, with HTTP's own port if none is said.
pub fn with_port(authority: &str) -> String {
    match authority.rsplit_once(':') {
        Some((_, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => authority.to_owned(),
        _ => format!("{authority}:80"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_has_that_of_http() {
        for (authority, address) in [
            ("localhost", "localhost:80"),
            ("localhost:8332", "localhost:8332"),
            ("[::1]", "[::1]:80"),
            ("[::1]:8332", "[::1]:8332"),
        ] {
            assert_eq!(with_port(authority), address);
        }
    }
}
