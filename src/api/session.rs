//! The page's session, as requests and answers carry it: the id in a cookie, the page's key in a
//! header or in the CONNECT payload. `crate::auth::sessions` says why there are two.
//!
//! A cookie speaks only for pages of the daemon's own origin or a listed one
//! (`super::browser::PageKind`). The router looks at that once, for all requests, and leaves in the
//! header `Cookie` the session's id alone, or nothing: the cookies of other programs on this host
//! are nothing to us.

use std::net::SocketAddr;

use hyper::HeaderMap;
use hyper::header::{COOKIE, HeaderName, HeaderValue, ORIGIN};

use super::browser::PageKind;
use crate::auth::Credential;

pub const PAGE_KEY: HeaderName = HeaderName::from_static("satwatch-page");

/// Longer than any id or key.
const LONGEST: usize = 128;

/// What the router has found of a request, in its extensions.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    pub page: PageKind,
    /// It came over TLS, to us or to a proxy in front.
    pub secure: bool,
}

/// The cookie of this daemon; those on other ports of the host have others.
#[derive(Debug, Clone)]
pub struct SessionCookie {
    name: String,
}

impl SessionCookie {
    /// `listen`: the addresses in use.
    pub fn new(listen: &[SocketAddr]) -> Self {
        let port = listen.first().map_or(0, SocketAddr::port);
        Self {
            name: format!("satwatch_{port}"),
        }
    }

    /// Leaves of a request's cookies the id of the session; nothing unless they speak.
    pub fn reduce(&self, headers: &mut HeaderMap, speaks: bool) {
        let id = speaks.then(|| self.id_in(headers)).flatten();
        headers.remove(COOKIE);
        if let Some(id) = id {
            headers.insert(COOKIE, id);
        }
    }

    fn id_in(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let values = headers.get_all(COOKIE).iter();
        let mut cookies = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='));
        let (_, id) = cookies.find(|(name, id)| *name == self.name && id.len() <= LONGEST)?;
        HeaderValue::from_str(id).ok()
    }

    /// `Set-Cookie` of a session that began.
    pub fn set(&self, id: &str, secure: bool) -> HeaderValue {
        let secure = if secure { "; Secure" } else { "" };
        self.header(format!("{id}; HttpOnly; SameSite=Strict; Path=/{secure}"))
    }

    /// `Set-Cookie` of one that was ended.
    pub fn taken_back(&self) -> HeaderValue {
        self.header("; HttpOnly; SameSite=Strict; Path=/; Max-Age=0".to_owned())
    }

    fn header(&self, rest: String) -> HeaderValue {
        let text = format!("{}={rest}", self.name);
        HeaderValue::try_from(text).expect("hexadecimal digits and names are a header's text")
    }
}

/// The id that the router left in `Cookie`.
pub fn id(headers: &HeaderMap) -> Option<&str> {
    headers.get(COOKIE)?.to_str().ok()
}

/// Both halves, of a request that is no handshake.
pub fn credential(headers: &HeaderMap) -> Option<Credential<'_>> {
    let page_key = headers.get(PAGE_KEY)?.to_str().ok()?;
    let id = id(headers)?;
    Some(Credential::Session { id, page_key })
}

/// Whether the page came over TLS, perhaps to a proxy: it says so in its origin.
pub fn is_secure(headers: &HeaderMap) -> bool {
    let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes);
    origin.is_some_and(|origin| origin.starts_with(b"https://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduced(cookies: &[&'static str], speaks: bool) -> Option<String> {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, HeaderValue::from_static(cookie));
        }
        let address: SocketAddr = "127.0.0.1:5005".parse().unwrap();
        SessionCookie::new(&[address]).reduce(&mut headers, speaks);
        assert!(headers.get_all(COOKIE).iter().count() <= 1);
        id(&headers).map(str::to_owned)
    }

    #[test]
    fn of_all_cookies_the_session_is_left_and_that_only_if_it_speaks() {
        for (cookies, left) in [
            (&["satwatch_5005=ab"][..], Some("ab")),
            (&["a=b; satwatch_5005=ab;c=d"], Some("ab")),
            (&["a=b", "satwatch_5005=ab"], Some("ab")),
            (&["satwatch_5005=ab; satwatch_5005=cd"], Some("ab")),
            (&["satwatch_5006=ab"], None),
            (&["xsatwatch_5005=ab"], None),
            (&["Satwatch_5005=ab"], None),
            (&["satwatch_5005"], None),
            (&["ab"], None),
            (&["\u{7f}"][..0], None),
            (&[], None),
        ] {
            assert_eq!(reduced(cookies, true).as_deref(), left, "{cookies:?}");
            assert_eq!(reduced(cookies, false), None, "{cookies:?}");
        }
        let long = format!("satwatch_5005={}", "a".repeat(LONGEST + 1));
        assert_eq!(reduced(&[long.leak()], true), None);
    }

    #[test]
    fn one_half_is_no_credential() {
        let of = |cookie: bool, key: bool| {
            let mut headers = HeaderMap::new();
            if cookie {
                headers.insert(COOKIE, HeaderValue::from_static("ab"));
            }
            if key {
                headers.insert(PAGE_KEY, HeaderValue::from_static("cd"));
            }
            credential(&headers).is_some()
        };
        assert!(of(true, true) && !of(true, false) && !of(false, true) && !of(false, false));
    }

    #[test]
    fn the_cookie_is_secure_where_the_page_is() {
        let cookie = SessionCookie::new(&["[::1]:7".parse().unwrap()]);
        assert_eq!(
            cookie.set("ab", false),
            "satwatch_7=ab; HttpOnly; SameSite=Strict; Path=/"
        );
        assert_eq!(
            cookie.set("ab", true),
            "satwatch_7=ab; HttpOnly; SameSite=Strict; Path=/; Secure"
        );
        let secure = |origin: &'static str| {
            is_secure(&HeaderMap::from_iter([(
                ORIGIN,
                HeaderValue::from_static(origin),
            )]))
        };
        assert!(secure("https://shop.example") && !secure("http://localhost:5005"));
        assert!(!is_secure(&HeaderMap::new()));
    }
}
