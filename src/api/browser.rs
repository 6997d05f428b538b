//! Which browsers may talk to the daemon: the `Host` and `Origin` checks, and the CORS answers that
//! match them.
//!
//! CORS alone protects nothing here: a browser sends the request and only hides the answer, and
//! WebSockets know no CORS. So
//!
//! * `Host` must be a loopback name or address, or listed in `server.allowed_hosts`: otherwise a
//!   page whose name was made to resolve to this machine (DNS rebinding) would count as our own;
//! * `Origin`, which browsers send with everything that may change state, must be the daemon's own,
//!   or a loopback origin while the daemon listens on loopback, or listed in
//!   `server.allowed_origins`. Programs send none and pass. `null` (a sandboxed frame, a file) is
//!   not loopback.
//!
//! Names compare without case. An absent port is the origin's scheme's.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HOST,
    HeaderName, HeaderValue, ORIGIN, VARY,
};
use hyper::{HeaderMap, StatusCode, Uri};

use super::error::{ApiError, shortened};
use crate::config;

/// What `server.*` says about browsers.
#[derive(Debug, Clone)]
pub struct Gate {
    allowed_origins: Vec<String>,
    allowed_hosts: Vec<String>,
    on_loopback: bool,
}

impl Gate {
    /// `listen`: the address in use.
    pub fn new(settings: &config::Server, listen: SocketAddr) -> Self {
        Self {
            allowed_origins: settings.allowed_origins.clone(),
            allowed_hosts: settings.allowed_hosts.clone(),
            on_loopback: listen.ip().to_canonical().is_loopback(),
        }
    }

    /// Lets a request pass, with the origin that its answer must name, or refuses it.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<Option<HeaderValue>, ApiError> {
        let host = self.check_host(uri, headers)?;
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(None),
            (Some(origin), None) if self.may(origin, &host) => Ok(Some(origin.clone())),
            (Some(origin), _) => Err(refused_origin(origin)),
        }
    }

    /// HTTP/1.1 says the host in `Host`, HTTP/2 in the URI's authority; where both are there, both
    /// must be right.
    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<Authority, ApiError> {
        let named = headers
            .get_all(HOST)
            .iter()
            .map(|value| value.to_str().unwrap_or("?"));
        let mut found = None;
        for text in uri
            .authority()
            .map(|authority| authority.as_str())
            .into_iter()
            .chain(named)
        {
            let host = Authority::parse(text)
                .filter(|host| host.is_loopback() || self.lists(host))
                .ok_or_else(|| refused_host(text))?;
            found = Some(host);
        }
        found.ok_or_else(|| {
            ApiError::bad_request(
                "host_missing",
                "The request has no Host header; send the address you connected to.",
            )
        })
    }

    fn lists(&self, host: &Authority) -> bool {
        let listed = |text: &String| {
            Authority::parse(text).is_some_and(|it| {
                it.name == host.name && (it.port.is_none() || it.port == host.port)
            })
        };
        self.allowed_hosts.iter().any(listed)
    }

    fn may(&self, origin: &HeaderValue, host: &Authority) -> bool {
        let Ok(text) = origin.to_str() else {
            return false;
        };
        if self
            .allowed_origins
            .iter()
            .any(|allowed| allowed == "*" || same_origin(allowed, text))
        {
            return true;
        }
        let Some(origin) = Origin::parse(text) else {
            return false;
        };
        let own = origin.authority.name == host.name
            && origin.port() == host.port.or(origin.default_port());
        own || (self.on_loopback && origin.authority.is_loopback())
    }
}

/// Puts the CORS headers on any answer, errors included: without them the browser hides the answer
/// from its page.
pub fn cors(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("Allow, ETag, Retry-After, Satwatch-Cursor"),
        );
    }
}

/// The headers of a preflight's answer: the methods of the API, and whichever request headers it
/// asks for.
pub fn preflight(request: &HeaderMap, answer: &mut HeaderMap) {
    const PRIVATE_NETWORK_ASKED: HeaderName =
        HeaderName::from_static("access-control-request-private-network");
    const PRIVATE_NETWORK: HeaderName =
        HeaderName::from_static("access-control-allow-private-network");
    let wanted = request.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    answer.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS"),
    );
    answer.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        wanted.unwrap_or(HeaderValue::from_static("Content-Type, Authorization")),
    );
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if request.contains_key(PRIVATE_NETWORK_ASKED) {
        answer.insert(PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
}

fn refused_host(text: &str) -> ApiError {
    let text = shortened(text);
    let message = format!(
        "Requests for the host {text} are refused. Use a loopback address, or add \"{text}\" to server.allowed_hosts."
    );
    ApiError::new(StatusCode::FORBIDDEN, "host_not_allowed", message)
}

fn refused_origin(origin: &HeaderValue) -> ApiError {
    let text = shortened(&String::from_utf8_lossy(origin.as_bytes()));
    let message = format!(
        "Pages from {text} may not talk to this daemon. To allow it, add \"{text}\" to server.allowed_origins."
    );
    ApiError::new(StatusCode::FORBIDDEN, "origin_not_allowed", message)
}

fn same_origin(listed: &str, origin: &str) -> bool {
    match (
        Origin::parse(listed.trim_end_matches('/')),
        Origin::parse(origin),
    ) {
        (Some(listed), Some(origin)) => {
            listed.scheme == origin.scheme
                && listed.authority.name == origin.authority.name
                && listed.port() == origin.port()
        }
        _ => listed == origin,
    }
}

/// `host[:port]`; the name in lower case, an IPv6 address without its brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    name: String,
    port: Option<u16>,
}

impl Authority {
    fn parse(text: &str) -> Option<Self> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (name, port) = rest.split_once(']')?;
                (
                    name,
                    port.strip_prefix(':')
                        .map_or_else(|| port.is_empty().then_some(None), |port| Some(Some(port)))?,
                )
            }
            None => match text.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            },
        };
        let digits = |port: &str| {
            port.bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| port.parse().ok())
                .flatten()
        };
        let port = match port {
            None => None,
            Some(port) => Some(digits(port)?),
        };
        let foreign = |c: char| {
            c.is_ascii_whitespace() || matches!(c, '/' | '@' | '?' | '#' | '\\' | '[' | ']')
        };
        (!name.is_empty() && !name.contains(foreign)).then(|| Self {
            name: name.to_ascii_lowercase(),
            port,
        })
    }

    /// `localhost` and the names below it are loopback by RFC 6761 and never go out to DNS.
    fn is_loopback(&self) -> bool {
        let name = self.name.strip_suffix('.').unwrap_or(&self.name);
        let address = self
            .name
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback());
        address || name == "localhost" || name.ends_with(".localhost")
    }
}

/// `scheme://host[:port]`, as browsers send it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    authority: Authority,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        Some(Self {
            scheme: scheme.to_ascii_lowercase(),
            authority: Authority::parse(authority)?,
        })
    }

    fn default_port(&self) -> Option<u16> {
        match self.scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        }
    }

    fn port(&self) -> Option<u16> {
        self.authority.port.or(self.default_port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(origins: &[&str], hosts: &[&str], listen: &str) -> Gate {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let listen: SocketAddr = listen.parse().unwrap();
        Gate::new(
            &config::Server {
                listen,
                allowed_origins: own(origins),
                allowed_hosts: own(hosts),
            },
            listen,
        )
    }

    fn check(
        gate: &Gate,
        host: &str,
        origin: Option<&str>,
    ) -> Result<Option<HeaderValue>, &'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        gate.check(&Uri::from_static("/status"), &headers)
            .map_err(|error| error.code)
    }

    #[test]
    fn programs_without_an_origin_pass_on_loopback_hosts() {
        let gate = gate(&[], &[], "127.0.0.1:5005");
        for host in [
            "127.0.0.1:5005",
            "localhost:5005",
            "LOCALHOST",
            "localhost.",
            "[::1]:5005",
            "[::1]",
            "127.8.9.1",
            "app.localhost:1",
        ] {
            assert_eq!(check(&gate, host, None), Ok(None), "{host}");
        }
    }

    #[test]
    fn other_hosts_are_refused_unless_listed() {
        let strict = gate(&[], &[], "127.0.0.1:5005");
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "1.2.3.4:5005",
            "x@localhost",
            "[::1",
            "localhost:x",
            "",
        ] {
            assert_eq!(
                check(&strict, host, None),
                Err("host_not_allowed"),
                "{host}"
            );
        }
        let listing = gate(
            &[],
            &["Shop.example", "other.example:8443"],
            "127.0.0.1:5005",
        );
        assert_eq!(check(&listing, "shop.example:99", None), Ok(None));
        assert_eq!(check(&listing, "other.example:8443", None), Ok(None));
        assert_eq!(
            check(&listing, "other.example", None),
            Err("host_not_allowed")
        );
    }

    #[test]
    fn a_request_without_or_with_two_hosts_is_judged_by_all() {
        let gate = gate(&[], &[], "127.0.0.1:5005");
        assert_eq!(
            gate.check(&Uri::from_static("/"), &HeaderMap::new())
                .unwrap_err()
                .code,
            "host_missing"
        );
        assert_eq!(
            gate.check(
                &Uri::from_static("http://localhost:5005/"),
                &HeaderMap::new()
            ),
            Ok(None)
        );
        let mut two = HeaderMap::new();
        two.append(HOST, HeaderValue::from_static("localhost"));
        two.append(HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(
            gate.check(&Uri::from_static("/"), &two).unwrap_err().code,
            "host_not_allowed"
        );
    }

    #[test]
    fn own_and_loopback_origins_pass_and_null_does_not() {
        let gate = gate(&[], &["shop.example"], "127.0.0.1:5005");
        let passes =
            |host, origin| check(&gate, host, Some(origin)) == Ok(Some(origin.parse().unwrap()));
        assert!(passes("localhost:5005", "http://localhost:5005"));
        assert!(passes("localhost:5005", "http://127.0.0.1:3000"));
        assert!(passes("localhost:5005", "http://[::1]:3000"));
        assert!(passes("shop.example", "https://shop.example"));
        assert!(passes("shop.example:443", "https://shop.example"));
        assert!(passes("shop.example", "https://SHOP.example:443"));
        for origin in [
            "null",
            "http://evil.example",
            "http://localhost.evil.example",
            "https://shop.example:8443",
            "localhost",
            "",
            "http://",
            "file://",
        ] {
            assert_eq!(
                check(&gate, "shop.example", Some(origin)),
                Err("origin_not_allowed"),
                "{origin}"
            );
        }
    }

    #[test]
    fn a_loopback_origin_is_foreign_when_the_daemon_listens_elsewhere() {
        let gate = gate(&[], &["10.0.0.5"], "10.0.0.5:5005");
        assert_eq!(
            check(&gate, "10.0.0.5:5005", Some("http://localhost:3000")),
            Err("origin_not_allowed")
        );
        assert!(check(&gate, "10.0.0.5:5005", Some("http://10.0.0.5:5005")).is_ok());
    }

    #[test]
    fn listed_origins_pass_whole_and_a_star_passes_all() {
        let listing = gate(&["https://app.example/"], &[], "127.0.0.1:5005");
        assert!(check(&listing, "localhost", Some("https://app.example")).is_ok());
        assert!(check(&listing, "localhost", Some("https://app.example:443")).is_ok());
        for origin in [
            "http://app.example",
            "https://app.example.evil",
            "https://app.example:444",
            "null",
        ] {
            assert_eq!(
                check(&listing, "localhost", Some(origin)),
                Err("origin_not_allowed"),
                "{origin}"
            );
        }
        let open = gate(&["*"], &[], "127.0.0.1:5005");
        assert!(check(&open, "localhost", Some("null")).is_ok());
        assert_eq!(
            check(&open, "evil.example", Some("http://evil.example")),
            Err("host_not_allowed")
        );
    }

    #[test]
    fn the_refusal_names_the_setting() {
        let gate = gate(&[], &[], "127.0.0.1:5005");
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        headers.insert(ORIGIN, HeaderValue::from_static("http://evil.example"));
        let error = gate.check(&Uri::from_static("/"), &headers).unwrap_err();
        assert_eq!(error.status, StatusCode::FORBIDDEN);
        assert!(
            error
                .message
                .contains("\"http://evil.example\" to server.allowed_origins"),
            "{}",
            error.message
        );
    }
}
