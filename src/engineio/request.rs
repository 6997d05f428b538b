//! The request line: what a request asks for, before anything is known of its session.

use std::borrow::Cow;

use super::packet::Encoding;

/// The parameters that mean something to the protocol. All others, such as the cache buster `t`,
/// are the application's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query<'a> {
    pub(super) transport: Option<TransportName>,
    /// `EIO` is exactly `4` or `3`. (The reference server takes anything but `4` for 3.)
    pub(super) encoding: Option<Encoding>,
    /// Absent or empty: a handshake, as the reference server has it.
    pub(super) sid: Option<Cow<'a, str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransportName {
    Polling,
    WebSocket,
}

impl<'a> Query<'a> {
    /// A parameter given twice is one with a value that nothing accepts.
    pub(super) fn parse(query: &'a str) -> Self {
        let (mut transport, mut version, mut sid, mut base64) = (None, None, None, false);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let slot = match &*key {
                "transport" => &mut transport,
                "EIO" => &mut version,
                "sid" => &mut sid,
                // Any value but none, as the reference server has it.
                "b64" => {
                    base64 |= !value.is_empty();
                    continue;
                }
                _ => continue,
            };
            *slot = Some(if slot.is_some() {
                Cow::Borrowed(",")
            } else {
                value
            });
        }
        Self {
            transport: match transport.as_deref() {
                Some("polling") => Some(TransportName::Polling),
                Some("websocket") => Some(TransportName::WebSocket),
                _ => None,
            },
            encoding: match version.as_deref() {
                Some("4") => Some(Encoding::Four),
                Some("3") => Some(Encoding::Three { base64 }),
                _ => None,
            },
            sid: sid.filter(|sid| !sid.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_query_says_transport_version_and_session() {
        use TransportName::{Polling, WebSocket};
        let (four, three) = (Some(Encoding::Four), |base64| {
            Some(Encoding::Three { base64 })
        });
        let table = [
            ("EIO=4&transport=polling", Some(Polling), four, None),
            (
                "EIO=4&transport=websocket&sid=abc&t=xyz",
                Some(WebSocket),
                four,
                Some("abc"),
            ),
            (
                "t=1&transport=polling&sid=&EIO=4",
                Some(Polling),
                four,
                None,
            ),
            ("EIO=3&transport=polling", Some(Polling), three(false), None),
            (
                "EIO=3&transport=polling&b64=1",
                Some(Polling),
                three(true),
                None,
            ),
            (
                "b64=0&EIO=3&transport=polling&b64=",
                Some(Polling),
                three(true),
                None,
            ),
            (
                "EIO=3&transport=polling&b64",
                Some(Polling),
                three(false),
                None,
            ),
            ("EIO=4&transport=polling&b64=1", Some(Polling), four, None),
            ("EIO=2&transport=polling", Some(Polling), None, None),
            ("EIO=03&transport=polling", Some(Polling), None, None),
            ("EIO=3&EIO=4&transport=polling", Some(Polling), None, None),
            ("EIO=04&transport=Polling", None, None, None),
            ("EIO=%34&transport=poll%69ng", Some(Polling), four, None),
            ("EIO=4&EIO=4&transport=polling", Some(Polling), None, None),
            (
                "EIO=4&transport=polling&transport=polling",
                None,
                four,
                None,
            ),
            ("sid=a&sid=b", None, None, Some(",")),
            ("sid=%C3%A9", None, None, Some("é")),
            ("", None, None, None),
            ("&&=&;%", None, None, None),
        ];
        for (query, transport, encoding, sid) in table {
            let expected = Query {
                transport,
                encoding,
                sid: sid.map(Cow::Borrowed),
            };
            assert_eq!(Query::parse(query), expected, "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_query_panics(query in any::<String>()) {
            let _ = Query::parse(&query);
        }
    }
}
