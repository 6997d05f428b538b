//! The request line: what a request asks for, before anything is known of its session.

use std::borrow::Cow;

/// The parameters that mean something to the protocol. All others, such as the cache buster `t`, are the application's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query<'a> {
    pub(super) transport: Option<TransportName>,
    /// `EIO` is exactly `4`.
    pub(super) version_4: bool,
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
        let (mut transport, mut version, mut sid) = (None, None, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let slot = match &*key {
                "transport" => &mut transport,
                "EIO" => &mut version,
                "sid" => &mut sid,
                _ => continue,
            };
            *slot = Some(if slot.is_some() { Cow::Borrowed(",") } else { value });
        }
        Self {
            transport: match transport.as_deref() {
                Some("polling") => Some(TransportName::Polling),
                Some("websocket") => Some(TransportName::WebSocket),
                _ => None,
            },
            version_4: version.as_deref() == Some("4"),
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
        let table: &[(&str, Option<TransportName>, bool, Option<&str>)] = &[
            ("EIO=4&transport=polling", Some(Polling), true, None),
            ("EIO=4&transport=websocket&sid=abc&t=xyz", Some(WebSocket), true, Some("abc")),
            ("t=1&transport=polling&sid=&EIO=4", Some(Polling), true, None),
            ("EIO=3&transport=polling", Some(Polling), false, None),
            ("EIO=04&transport=Polling", None, false, None),
            ("EIO=%34&transport=poll%69ng", Some(Polling), true, None),
            ("EIO=4&EIO=4&transport=polling", Some(Polling), false, None),
            ("EIO=4&transport=polling&transport=polling", None, true, None),
            ("sid=a&sid=b", None, false, Some(",")),
            ("sid=%C3%A9", None, false, Some("é")),
            ("", None, false, None),
            ("&&=&;%", None, false, None),
        ];
        for (query, transport, version_4, sid) in table {
            let expected = Query { transport: *transport, version_4: *version_4, sid: sid.map(Cow::Borrowed) };
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
