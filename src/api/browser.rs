//! Which browsers may talk to the daemon: the checks of `Host`, `Origin` and `Sec-Fetch-Site`, and
//! the headers that go with each answer.
//!
//! CORS alone protects nothing here: a browser sends the request and only hides the answer, and
//! WebSockets know no CORS. So
//!
//! * `Host` must be a loopback name, an address, or listed in `server.allowed_hosts`: otherwise a
//!   page whose name was made to resolve to this machine (DNS rebinding) would count as our own.
//!   The health routes do without it, for load balancers;
//! * `Origin` must be the daemon's own (`https`, if the request came over TLS), listed in
//!   `server.allowed_origins`, or a loopback one while the request's `Host` is loopback too. A
//!   proxy that the daemon stands behind is reached under another `Host`: there a page of the
//!   visitor's own machine is as foreign as any other;
//! * without `Origin` come programs, and some requests of browsers (images, links, `fetch` without
//!   CORS). Of these `Sec-Fetch-Site` says where they come from: another site may only send its
//!   visitor to the page, since time and failure of an answer tell what is watched.
//!
//! Sessions of the page. A browser hands their cookie to every port of its host, whichever page
//! asks. But what speaks is the cookie with the page's key (`Satwatch-Page`, or in the CONNECT
//! payload), which is kept where only scripts of the same origin read it; and a request of another
//! origin with that header is sent only after a preflight that we answered. So nothing has to say
//! that the page is our own: a session counts for nothing only where the request says that another
//! page made it, by an `Origin` that is neither own nor listed by name, or by `Sec-Fetch-Site`.
//! Browsers that say neither (before 2023; all of them over plain HTTP to another host) can use the
//! page.
//!
//! Names compare without case. An absent port is the origin's scheme's.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, HOST, HeaderName, HeaderValue, ORIGIN,
    STRICT_TRANSPORT_SECURITY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, StatusCode, Uri};
use url::{Host, Origin};

use crate::wire::error::{ApiError, shortened};
use crate::{config, web};

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const SITE: &str = "sec-fetch-site";
const MODE: &str = "sec-fetch-mode";
const DESTINATION: &str = "sec-fetch-dest";

/// What `server.*` says about browsers.
#[derive(Debug, Clone)]
pub struct OriginPolicy {
    allowed_origins: Vec<ComparedOrigin>,
    /// The star is listed.
    every_origin: bool,
    allowed_hosts: Vec<Authority>,
}

/// An origin as it is compared; the text, in lower case, of one that has no scheme, host and port.
type ComparedOrigin = Result<Origin, String>;

/// An origin whose page may read the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin {
    origin: HeaderValue,
    /// Listed by name, not by the star: its requests may carry credentials (of a proxy, perhaps).
    listed: bool,
    /// The daemon's own, or listed by name and that of a single site: many pages have the origin
    /// `null`.
    trusted: bool,
}

/// Whether a page asks that a session of the daemon's own page is nothing to, or another site. Of a
/// request that passed [`OriginPolicy::check`] with this outcome.
pub fn is_foreign(allowed: Option<&AllowedOrigin>, headers: &HeaderMap) -> bool {
    match allowed {
        Some(origin) => !origin.trusted,
        None => of_other_site(headers),
    }
}

impl OriginPolicy {
    pub fn new(settings: &config::Server) -> Self {
        let origins = settings.allowed_origins.iter();
        let (stars, named): (Vec<_>, Vec<_>) = origins.partition(|origin| *origin == "*");
        let hosts = settings.allowed_hosts.iter();
        Self {
            allowed_origins: named.into_iter().map(|text| compared(text)).collect(),
            every_origin: !stars.is_empty(),
            allowed_hosts: hosts.filter_map(|text| Authority::parse(text)).collect(),
        }
    }

    /// Lets a request pass, with the page that may read its answer if one asked, or refuses it.
    pub fn check(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        over_tls: bool,
    ) -> Result<Option<AllowedOrigin>, ApiError> {
        let host = self.check_host(uri, headers)?;
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) if self.comes_from_elsewhere(uri, headers) => Err(refused_site()),
            (None, _) => Ok(None),
            (Some(origin), None) => self
                .allowed_origin(origin, host.as_ref(), headers, over_tls)
                .map(Some)
                .ok_or_else(|| refused_origin(origin)),
            (Some(_), Some(_)) => Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "origin_not_allowed",
                "The request has more than one Origin header, so that it is not clear which page asks.",
            )),
        }
    }

    /// The host is said in `Host`, and may be in the URI as well; where both are there, both must
    /// be right. `None`: a health route was asked for without it.
    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, ApiError> {
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
            // A port that is left out may leave its colon.
            let host = Authority::parse(text.strip_suffix(':').unwrap_or(text))
                .filter(|it| is_loopback(&it.host) || it.is_address() || self.allows_host(it))
                .ok_or_else(|| refused_host(text))?;
            found = Some(host);
        }
        if found.is_none() && !matches!(uri.path(), "/health/live" | "/health/ready") {
            return Err(ApiError::bad_request(
                "host_missing",
                "The request has no Host header; send the address you connected to.",
            ));
        }
        Ok(found)
    }

    fn allows_host(&self, host: &Authority) -> bool {
        let mut listed = self.allowed_hosts.iter();
        listed.any(|it| it.host == host.host && (it.port.is_none() || it.port == host.port))
    }

    /// A request without `Origin` that a page of another site made, and that is not a visit of our
    /// page.
    fn comes_from_elsewhere(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let is = |name, value: &str| headers.get(name).is_some_and(|it| it == value);
        let visit = is(MODE, "navigate") && is(DESTINATION, "document");
        of_other_site(headers) && !(visit && web::asset(uri.path()).is_some()) && !self.every_origin
    }

    fn allowed_origin(
        &self,
        value: &HeaderValue,
        host: Option<&Authority>,
        headers: &HeaderMap,
        over_tls: bool,
    ) -> Option<AllowedOrigin> {
        let origin = compared(value.to_str().ok()?);
        let listed = self.allowed_origins.contains(&origin);
        let of_one_site = origin.is_ok();
        let known = origin.ok().zip(host);
        let own = known
            .as_ref()
            .is_some_and(|(origin, host)| is_own(origin, host, headers, over_tls));
        let both_loopback = known.is_some_and(|(origin, host)| {
            matches!(origin, Origin::Tuple(scheme, name, _)
                if is_of_web(&scheme) && is_loopback(&name) && is_loopback(&host.host))
        });
        let passes = listed || self.every_origin || own || both_loopback;
        passes.then(|| AllowedOrigin {
            origin: value.clone(),
            listed,
            trusted: own || (listed && of_one_site),
        })
    }
}

fn is_of_web(scheme: &str) -> bool {
    matches!(scheme, "http" | "https")
}

/// Whether an origin is the one under which the daemon was asked.
fn is_own(origin: &Origin, host: &Authority, headers: &HeaderMap, over_tls: bool) -> bool {
    let Origin::Tuple(scheme, _, _) = origin else {
        return false;
    };
    let default_port = if scheme == "https" { 443 } else { 80 };
    let port = host.port.unwrap_or(default_port);
    is_of_web(scheme)
        && (!over_tls || scheme == "https")
        && *origin == Origin::Tuple(scheme.clone(), host.host.clone(), port)
        && forwarded_scheme(headers).is_none_or(|forwarded| forwarded == scheme)
        && !of_other_site(headers)
}

/// The browser says that the page is not of the origin that it asks.
fn of_other_site(headers: &HeaderMap) -> bool {
    headers
        .get_all(SITE)
        .iter()
        .any(|site| site == "cross-site" || site == "same-site")
}

/// What the proxy in front was asked over, if it says so. Nobody gains by a false one: it can only
/// make an origin foreign.
fn forwarded_scheme(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(FORWARDED_PROTO)?.to_str().unwrap_or("?");
    Some(match text.split(',').next().unwrap_or(text).trim() {
        "ws" => "http",
        "wss" => "https",
        scheme => scheme,
    })
}

/// Puts on any answer, errors included, what browsers are to know: who may read it (without CORS
/// headers the browser hides it from its page), and that it is nothing to embed or to guess about.
pub fn mark(headers: &mut HeaderMap, allowed: Option<AllowedOrigin>) {
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.append(VARY, HeaderValue::from_static("Origin"));
    let Some(AllowedOrigin { origin, listed, .. }) = allowed else {
        return;
    };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Allow, Retry-After, Satwatch-Cursor"),
    );
    if listed {
        headers.insert(
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
}

/// Browsers that were here over TLS keep to it for so many seconds, if any.
pub fn insist_on_tls(headers: &mut HeaderMap, seconds: u64) {
    let value = HeaderValue::from_str(&format!("max-age={seconds}"));
    if let (true, Ok(value)) = (seconds > 0, value) {
        headers.insert(STRICT_TRANSPORT_SECURITY, value);
    }
}

/// The headers of a preflight's answer: the methods of the API, and whichever request headers it
/// asks for.
pub fn preflight(request: &HeaderMap, answer: &mut HeaderMap) {
    let wanted = request.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    answer.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    );
    answer.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        wanted.unwrap_or(HeaderValue::from_static("Content-Type, Authorization")),
    );
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
}

fn refused_host(text: &str) -> ApiError {
    let message = if config::is_host(text) && Authority::parse(text).is_some() {
        // Whatever the port is.
        let name = text.rsplit_once(':').map_or(text, |(name, _)| name);
        format!(
            "Requests for the host {text} are refused. Use a loopback address, or add \"{name}\" to server.allowed_hosts."
        )
    } else {
        format!(
            "The Host header is \"{}\", which is no host.",
            shortened(text)
        )
    };
    ApiError::new(StatusCode::FORBIDDEN, "host_not_allowed", message)
}

fn refused_origin(origin: &HeaderValue) -> ApiError {
    let text = String::from_utf8_lossy(origin.as_bytes());
    let message = if text != "*" && config::is_origin(&text) {
        format!(
            "Pages from {text} may not talk to this daemon. To allow it, add \"{text}\" to server.allowed_origins."
        )
    } else {
        format!(
            "The Origin header is \"{}\", which is no origin.",
            shortened(&text)
        )
    };
    ApiError::new(StatusCode::FORBIDDEN, "origin_not_allowed", message)
}

fn refused_site() -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "origin_not_allowed",
        "A page of another site asked without saying which (no Origin header). Have it ask with CORS, as fetch and Socket.IO \
         clients do, and add its origin to server.allowed_origins.",
    )
}

fn compared(text: &str) -> ComparedOrigin {
    origin_of(text).ok_or_else(|| text.to_ascii_lowercase())
}

/// `scheme://host[:port]` and nothing else, as browsers write it. `None`: not that, or of a scheme
/// whose port we do not know.
fn origin_of(text: &str) -> Option<Origin> {
    let (scheme, authority) = text.split_once("://")?;
    let (scheme, authority) = (scheme.to_ascii_lowercase(), Authority::parse(authority)?);
    let port = match &*scheme {
        "http" => authority.port.unwrap_or(80),
        "https" => authority.port.unwrap_or(443),
        _ => authority.port?,
    };
    Some(Origin::Tuple(scheme, authority.host, port))
}

/// `host[:port]`
#[derive(Debug, Clone)]
struct Authority {
    host: Host,
    port: Option<u16>,
}

impl Authority {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        if host.contains('%') {
            return None;
        }
        // Digits as browsers write them: no sign, no zeros before.
        let as_written = |text: &str| {
            text.parse()
                .ok()
                .filter(|port: &u16| port.to_string() == text)
        };
        let port = match port {
            Some(text) => Some(as_written(text)?),
            None => None,
        };
        // What is no name in a URL, such as `node.1`, may be one of a local network.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let host = match Host::parse(host) {
            Ok(host) => host,
            Err(_) if !host.is_empty() && host.bytes().all(plain) => {
                Host::Domain(host.to_ascii_lowercase())
            }
            Err(_) => return None,
        };
        Some(Self { host, port })
    }

    /// An address, which no name server can make mean something else.
    fn is_address(&self) -> bool {
        !matches!(self.host, Host::Domain(_))
    }
}

/// `localhost` and the names below it are loopback by RFC 6761 and never go out to DNS.
fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.to_canonical().is_loopback(),
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy_of(origins: &[&str], hosts: &[&str]) -> OriginPolicy {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        OriginPolicy::new(&config::Server {
            allowed_origins: own(origins),
            allowed_hosts: own(hosts),
            ..config::Server::default()
        })
    }

    fn headers_of(headers: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    /// Who may read the answer to a request with these headers, or the code of the refusal.
    fn ask(
        policy: &OriginPolicy,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Option<AllowedOrigin>, &'static str> {
        let map = headers_of(headers);
        policy
            .check(&path.parse().unwrap(), &map, false)
            .map_err(|error| error.code)
    }

    fn check(
        policy: &OriginPolicy,
        host: &str,
        origin: Option<&str>,
    ) -> Result<Option<AllowedOrigin>, &'static str> {
        let mut headers = vec![("host", host)];
        headers.extend(origin.map(|origin| ("origin", origin)));
        ask(policy, "/status", &headers)
    }

    #[test]
    fn programs_without_an_origin_pass_on_loopback_hosts_and_addresses() {
        let policy = policy_of(&[], &[]);
        for host in [
            "127.0.0.1:5005",
            "localhost:5005",
            "LOCALHOST",
            "localhost.",
            "[::1]:5005",
            "[::1]",
            "127.8.9.1",
            "app.localhost:1",
            "10.0.0.5:5005",
            "[fd00::5]:5005",
            "localhost:",
            "[::1]:",
        ] {
            assert_eq!(check(&policy, host, None), Ok(None), "{host}");
        }
    }

    #[test]
    fn other_hosts_are_refused_unless_listed() {
        let strict = policy_of(&[], &[]);
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "1.2.3.4.5:5005",
            "x@localhost",
            "[::1",
            "localhost:x",
            "localhost:+5005",
            "localhost:05005",
            "localhost::",
            "[::1]evil.example:80",
            "%6cocalhost",
            "node.1:5005",
            "",
        ] {
            assert_eq!(
                check(&strict, host, None),
                Err("host_not_allowed"),
                "{host}"
            );
        }
        let listing = policy_of(&[], &["Shop.example", "other.example:8443", "Node.1"]);
        assert_eq!(check(&listing, "node.1:5005", None), Ok(None));
        assert_eq!(check(&listing, "shop.example:99", None), Ok(None));
        assert_eq!(check(&listing, "other.example:8443", None), Ok(None));
        assert_eq!(
            check(&listing, "other.example", None),
            Err("host_not_allowed")
        );
    }

    #[test]
    fn a_request_without_or_with_two_hosts_is_judged_by_all() {
        let policy = policy_of(&[], &[]);
        assert_eq!(ask(&policy, "/", &[]), Err("host_missing"));
        assert_eq!(ask(&policy, "http://localhost:5005/", &[]), Ok(None));
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(ask(&policy, "/", &two), Err("host_not_allowed"));
    }

    #[test]
    fn health_routes_are_answered_without_a_host_but_not_for_a_foreign_one() {
        let policy = policy_of(&[], &[]);
        for path in ["/health/live", "/health/ready"] {
            assert_eq!(ask(&policy, path, &[]), Ok(None), "{path}");
            assert_eq!(
                ask(&policy, path, &[("host", "evil.example")]),
                Err("host_not_allowed"),
                "{path}"
            );
        }
        assert_eq!(ask(&policy, "/health/other", &[]), Err("host_missing"));
    }

    #[test]
    fn own_and_loopback_origins_pass_and_others_do_not() {
        let policy = policy_of(&[], &["shop.example"]);
        for (host, origin) in [
            ("localhost:5005", "http://localhost:5005"),
            ("localhost:5005", "http://127.0.0.1:3000"),
            ("localhost:5005", "https://[::1]:3000"),
            ("shop.example", "https://shop.example"),
            ("shop.example", "http://shop.example"),
            ("shop.example:443", "https://shop.example"),
            ("shop.example", "https://SHOP.example:443"),
            ("10.0.0.5:5005", "http://10.0.0.5:5005"),
        ] {
            let allowed = check(&policy, host, Some(origin));
            let expected = AllowedOrigin {
                origin: origin.parse().unwrap(),
                listed: false,
                trusted: !origin.ends_with(":3000"),
            };
            assert_eq!(allowed, Ok(Some(expected)), "{origin} at {host}");
        }
        for (host, origins) in [
            (
                "shop.example",
                &[
                    "null",
                    "http://evil.example",
                    "http://localhost.evil.example",
                    "https://shop.example:8443",
                    "localhost",
                    "",
                    "http://",
                    "file://",
                    "ftp://shop.example",
                    "app://shop.example",
                    // The visitor's own machine is not ours.
                    "http://localhost",
                    "http://127.0.0.1:3000",
                    "http://[::1]",
                ][..],
            ),
            (
                "10.0.0.5:5005",
                &["http://localhost:3000", "http://10.0.0.5"],
            ),
            (
                "localhost:5005",
                &[
                    "tauri://localhost",
                    "capacitor://localhost",
                    "http://x@localhost:1",
                    "http://localhost/any?q#f",
                    "http://localhost/",
                    "http:localhost",
                    "blob:http://localhost:3000/1",
                    "http://%6cocalhost",
                    "http://localhost:03000",
                    "http://localhost:",
                    "*",
                    "null",
                    "file://",
                    "http://evil.example",
                ],
            ),
        ] {
            for origin in origins {
                assert_eq!(
                    check(&policy, host, Some(origin)),
                    Err("origin_not_allowed"),
                    "{origin} at {host}"
                );
            }
        }
    }

    #[test]
    fn an_own_origin_has_the_scheme_of_the_proxy_in_front() {
        let policy = policy_of(&[], &["shop.example"]);
        let ask = |proto, origin| {
            let headers = [
                ("host", "shop.example"),
                ("x-forwarded-proto", proto),
                ("origin", origin),
            ];
            ask(&policy, "/status", &headers).is_ok()
        };
        for proto in ["https", "wss", "https, http"] {
            assert!(ask(proto, "https://shop.example"), "{proto}");
            assert!(!ask(proto, "http://shop.example"), "{proto}");
        }
        assert!(ask("http", "http://shop.example") && !ask("http", "https://shop.example"));
    }

    #[test]
    fn an_own_origin_of_which_the_browser_says_that_it_is_not_is_foreign() {
        let policy = policy_of(&[], &["shop.example"]);
        for (site, passes) in [
            ("same-origin", true),
            ("same-site", false),
            ("cross-site", false),
        ] {
            let headers = [
                ("host", "shop.example"),
                ("origin", "http://shop.example"),
                ("sec-fetch-site", site),
            ];
            assert_eq!(ask(&policy, "/status", &headers).is_ok(), passes, "{site}");
        }
    }

    #[test]
    fn without_an_origin_other_sites_may_only_visit_the_page() {
        let strict = policy_of(&["https://app.example"], &[]);
        let ask = |policy, path, site, mode, destination| {
            let headers = [
                ("host", "127.0.0.1:5005"),
                ("sec-fetch-site", site),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", destination),
            ];
            ask(policy, path, &headers)
        };
        let refused = Err("origin_not_allowed");
        for site in ["cross-site", "same-site"] {
            for path in ["/status", "/events?wait=10", "/socket.io/?EIO=4", "/x"] {
                for (mode, destination) in [
                    ("no-cors", "empty"),
                    ("no-cors", "image"),
                    ("navigate", "document"),
                    ("navigate", "iframe"),
                ] {
                    assert_eq!(
                        ask(&strict, path, site, mode, destination),
                        refused,
                        "{path}: {site}, {mode}, {destination}"
                    );
                }
            }
            for path in ["/", "/realtime_client.html?a"] {
                assert_eq!(ask(&strict, path, site, "navigate", "document"), Ok(None));
                for destination in ["iframe", "object", "embed"] {
                    assert_eq!(ask(&strict, path, site, "navigate", destination), refused);
                }
                assert_eq!(ask(&strict, path, site, "no-cors", "image"), refused);
            }
        }
        for site in ["same-origin", "none"] {
            assert_eq!(
                ask(&strict, "/status", site, "navigate", "document"),
                Ok(None)
            );
            assert_eq!(ask(&strict, "/status", site, "cors", "empty"), Ok(None));
        }
        let open = policy_of(&["*"], &[]);
        assert_eq!(
            ask(&open, "/status", "cross-site", "no-cors", "empty"),
            Ok(None)
        );
    }

    #[test]
    fn listed_origins_pass_whole_and_a_star_passes_all() {
        let listing = policy_of(&["https://App.example", "null", "file://"], &[]);
        for origin in [
            "https://app.example",
            "https://app.example:443",
            "null",
            "file://",
        ] {
            let allowed = check(&listing, "localhost", Some(origin));
            assert!(allowed.unwrap().unwrap().listed, "{origin}");
        }
        for origin in [
            "http://app.example",
            "https://app.example.evil",
            "https://app.example:444",
            "file:///etc",
        ] {
            assert_eq!(
                check(&listing, "localhost", Some(origin)),
                Err("origin_not_allowed"),
                "{origin}"
            );
        }
        let open = policy_of(&["*", "https://app.example"], &[]);
        let listed = |origin| {
            check(&open, "localhost", Some(origin))
                .unwrap()
                .unwrap()
                .listed
        };
        assert!(!listed("null") && !listed("https://evil.example"));
        assert!(listed("https://app.example"), "it is named, too");
        assert_eq!(
            check(&open, "evil.example", Some("http://evil.example")),
            Err("host_not_allowed")
        );
    }

    #[test]
    fn a_page_is_foreign_unless_it_is_own_or_listed_by_name_or_nothing_is_said_of_it() {
        let kind = |policy: &OriginPolicy, headers: &[(&'static str, &str)], over_tls| {
            let map = headers_of(headers);
            let allowed = policy.check(&Uri::from_static("/status"), &map, over_tls);
            is_foreign(allowed.unwrap().as_ref(), &map)
        };
        let host = ("host", "localhost:5005");
        let listing = policy_of(&["https://shop.example", "null", "file://", "*"], &[]);
        for (headers, plain, tls) in [
            (
                &[host, ("origin", "http://localhost:5005")][..],
                false,
                true,
            ),
            (&[host, ("origin", "https://localhost:5005")], false, false),
            (&[host, ("origin", "https://shop.example")], false, false),
            (&[host, ("origin", "https://other.example")], true, true),
            (&[host, ("origin", "null")], true, true),
            (&[host, ("origin", "file://")], true, true),
            (&[host, ("origin", "http://localhost:5006")], true, true),
            (&[host, ("sec-fetch-site", "same-origin")], false, false),
            (&[host, ("sec-fetch-site", "cross-site")], true, true),
            (&[host, ("sec-fetch-site", "same-site")], true, true),
            (&[host, ("sec-fetch-site", "none")], false, false),
            (&[host], false, false),
            (&[("host", "10.0.0.5")], false, false),
        ] {
            assert_eq!(kind(&listing, headers, false), plain, "{headers:?}");
            assert_eq!(kind(&listing, headers, true), tls, "{headers:?} over TLS");
        }
    }

    #[test]
    fn credentials_are_for_origins_that_are_listed_by_name() {
        let allowed = |listed| {
            let mut headers = HeaderMap::new();
            let origin = HeaderValue::from_static("https://app.example");
            let trusted = false;
            mark(
                &mut headers,
                Some(AllowedOrigin {
                    origin,
                    listed,
                    trusted,
                }),
            );
            assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
            headers
                .get(ACCESS_CONTROL_ALLOW_CREDENTIALS)
                .is_some_and(|value| value == "true")
        };
        assert!(allowed(true) && !allowed(false));
    }

    #[test]
    fn the_refusal_names_the_setting() {
        let policy = policy_of(&[], &[]);
        let message = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("localhost"));
            headers.insert(name, HeaderValue::from_static(value));
            let error = policy
                .check(&Uri::from_static("/"), &headers, false)
                .unwrap_err();
            assert_eq!(error.status, StatusCode::FORBIDDEN);
            error.message
        };
        let refused = message("origin", "http://evil.example");
        assert!(
            refused.contains("\"http://evil.example\" to server.allowed_origins"),
            "{refused}"
        );
        // What could not be listed, or would not help, is not advised.
        for (name, value) in [
            ("origin", "http://x@localhost:1"),
            ("origin", "*"),
            ("host", "localhost:+1"),
            ("host", "x@localhost"),
            ("host", ""),
        ] {
            let refused = message(name, value);
            assert!(
                refused.contains(&format!("\"{value}\", which is no")) && !refused.contains("add"),
                "{refused}"
            );
        }
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (HOST, "localhost"),
            (ORIGIN, "http://localhost"),
            (ORIGIN, "http://evil.example"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let error = policy
            .check(&Uri::from_static("/"), &headers, false)
            .unwrap_err();
        assert!(
            error.message.contains("more than one Origin header"),
            "{}",
            error.message
        );
        let refused = message(SITE, "cross-site");
        assert!(refused.contains("server.allowed_origins"), "{refused}");
    }
}
