//! The page's session, as requests and answers carry it: the id in a cookie, the page's key in a
//! header or in the CONNECT payload. `crate::auth::sessions` says why there are two.
//!
//! Where another page asks a session counts for nothing (`super::browser` says when). The router
//! looks at that once, for all requests, and leaves in the header `Cookie` what may be the
//! session's id, or nothing: the cookies of other programs on this host are nothing to us.

use std::net::SocketAddr;

use hyper::HeaderMap;
use hyper::header::{COOKIE, HeaderName, HeaderValue, ORIGIN};

use crate::auth::{Credential, SESSION_LIFE};

pub const PAGE_KEY: HeaderName = HeaderName::from_static("satwatch-page");

/// Longer than any id or key.
const LONGEST: usize = 128;

/// Cookies of our name that are looked at: a server on another port may have set one, too.
const MOST: usize = 4;

/// What the router has found of a request, in its extensions.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    /// It is another page's, to which a session is nothing.
    pub foreign: bool,
    /// It came over TLS, to us or to a proxy in front.
    pub secure: bool,
}

/// The cookie of this daemon; others that browsers find under the same host have others.
#[derive(Debug, Clone)]
pub struct SessionCookie {
    name: String,
}

impl SessionCookie {
    /// `listen`: the addresses in use. `created`: when the store was made, in milliseconds since
    /// the Unix epoch: behind one proxy there may be two daemons that listen on the same port.
    pub fn new(listen: &[SocketAddr], created: u64) -> Self {
        let port = listen.first().map_or(0, SocketAddr::port);
        Self {
            name: format!("satwatch_{port}_{created:x}"),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// That of another daemon.
    pub fn named(name: &str) -> Self {
        let name = name.to_owned();
        Self { name }
    }

    /// Leaves of a request's cookies what may be the id of the session; nothing for a foreign page.
    pub fn reduce(&self, headers: &mut HeaderMap, foreign: bool) {
        let ids = if foreign { None } else { self.ids_in(headers) };
        headers.remove(COOKIE);
        if let Some(ids) = ids {
            headers.insert(COOKIE, ids);
        }
    }

    fn ids_in(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let values = headers.get_all(COOKIE).iter();
        let cookies = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='));
        let may_be = |id: &&str| id.len() <= LONGEST && !id.contains(' ');
        let ids = cookies.filter(|(name, _)| *name == self.name);
        let ids: Vec<&str> = ids.map(|(_, id)| id).filter(may_be).take(MOST).collect();
        if ids.is_empty() {
            return None;
        }
        HeaderValue::from_str(&ids.join(" ")).ok()
    }

    /// `Set-Cookie` of a session that began.
    pub fn set(&self, id: &str, secure: bool) -> HeaderValue {
        let (life, secure) = (SESSION_LIFE.as_secs(), if secure { "; Secure" } else { "" });
        self.header(format!(
            "{id}; HttpOnly; SameSite=Strict; Path=/; Max-Age={life}{secure}"
        ))
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

/// What may be the id, as the router left it in `Cookie`: one or several with spaces between them.
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

    fn reduced(cookies: &[&'static str], foreign: bool) -> Option<String> {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, HeaderValue::from_static(cookie));
        }
        let address: SocketAddr = "127.0.0.1:5005".parse().unwrap();
        SessionCookie::new(&[address], 7).reduce(&mut headers, foreign);
        assert!(headers.get_all(COOKIE).iter().count() <= 1);
        id(&headers).map(str::to_owned)
    }

    #[test]
    fn of_all_cookies_what_may_be_the_session_is_left_and_for_a_foreign_page_nothing() {
        for (cookies, left) in [
            (&["satwatch_5005_7=ab"][..], Some("ab")),
            (&["a=b; satwatch_5005_7=ab;c=d"], Some("ab")),
            (&["a=b", "satwatch_5005_7=ab"], Some("ab")),
            (&["satwatch_5005_7=ab; satwatch_5005_7=cd"], Some("ab cd")),
            (&["satwatch_5005_7=a b; satwatch_5005_7=cd"], Some("cd")),
            (&["satwatch_5006_7=ab"], None),
            (&["satwatch_5005_8=ab"], None),
            (&["xsatwatch_5005_7=ab"], None),
            (&["Satwatch_5005_7=ab"], None),
            (&["satwatch_5005_7"], None),
            (&["ab"], None),
            (&[], None),
        ] {
            assert_eq!(reduced(cookies, false).as_deref(), left, "{cookies:?}");
            assert_eq!(reduced(cookies, true), None, "{cookies:?}");
        }
        let six: Vec<String> = (0..6).map(|n| format!("satwatch_5005_7={n}")).collect();
        let six = reduced(&[six.join("; ").leak()], false);
        assert_eq!(six.as_deref(), Some("0 1 2 3"));
        let long = format!("satwatch_5005_7={}", "a".repeat(LONGEST + 1));
        assert_eq!(reduced(&[long.leak()], false), None);
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
        let cookie = SessionCookie::new(&["[::1]:7".parse().unwrap()], 0x1f);
        assert_eq!(
            cookie.set("ab", false),
            "satwatch_7_1f=ab; HttpOnly; SameSite=Strict; Path=/; Max-Age=2592000"
        );
        assert_eq!(
            cookie.set("ab", true),
            "satwatch_7_1f=ab; HttpOnly; SameSite=Strict; Path=/; Max-Age=2592000; Secure"
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
