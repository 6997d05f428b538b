//! What a request carries to say who asks.

use std::fmt;

use zeroize::Zeroizing;

/// Of the `Authorization` header.
const SCHEME: &str = "bearer";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// Nothing that is meant for us: another scheme may be that of a proxy.
    None,
    /// The text of a token.
    Token(&'a str),
    /// Both halves of a session of the page; `id` may be several, with spaces between them, of
    /// which one is it.
    Session { id: &'a str, page_key: &'a str },
}

impl<'a> Credential<'a> {
    /// The values of the `Authorization` header, as they came. More than one says nothing.
    pub fn of_header(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut values = values.into_iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Self::None;
        };
        let text = std::str::from_utf8(value).unwrap_or_default();
        match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => {
                Self::Token(token.trim())
            }
            _ => Self::None,
        }
    }
}

/// A credential that is kept, to be shown to another daemon for its client. It is overwritten when
/// it is dropped.
pub enum KeptCredential {
    Token(Zeroizing<String>),
    Session {
        id: Zeroizing<String>,
        page_key: Zeroizing<String>,
    },
}

impl KeptCredential {
    /// `None`: nothing was shown.
    pub fn of(credential: Credential<'_>) -> Option<Self> {
        let keep = |text: &str| Zeroizing::new(text.to_owned());
        match credential {
            Credential::None => None,
            Credential::Token(text) => Some(Self::Token(keep(text))),
            Credential::Session { id, page_key } => Some(Self::Session {
                id: keep(id),
                page_key: keep(page_key),
            }),
        }
    }

    pub fn shown(&self) -> Credential<'_> {
        match self {
            Self::Token(text) => Credential::Token(text),
            Self::Session { id, page_key } => Credential::Session { id, page_key },
        }
    }
}

impl fmt::Debug for KeptCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_follows_bearer() {
        let of = |values: &[&'static str]| match Credential::of_header(
            values.iter().map(|value| value.as_bytes()),
        ) {
            Credential::Token(text) => Some(text),
            Credential::None | Credential::Session { .. } => None,
        };
        for (values, found) in [
            (&["Bearer sw_x"][..], Some("sw_x")),
            (&["bearer  sw_x "], Some("sw_x")),
            (&["Bearer "], Some("")),
            (&["Bearer"], None),
            (&["Basic dTpw"], None),
            (&["sw_x"], None),
            (&[""], None),
            (&[], None),
            (&["Bearer a", "Bearer b"], None),
        ] {
            assert_eq!(of(values), found, "{values:?}");
        }
        assert!(Credential::of_header([&b"Bearer \xff"[..]]) == Credential::None);
    }

    #[test]
    fn what_is_kept_is_shown_as_it_came_and_never_printed() {
        let session = Credential::Session {
            id: "ab cd",
            page_key: "ef",
        };
        for credential in [Credential::Token("sw_x"), session] {
            let kept = KeptCredential::of(credential).expect("something was shown");
            assert!(kept.shown() == credential);
            assert_eq!(format!("{kept:?}"), "(hidden)");
        }
        assert!(KeptCredential::of(Credential::None).is_none());
    }
}
