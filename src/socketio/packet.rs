//! The text of Socket.IO packets, protocol revision 5.
//!
//! ```text
//! <type>[<attachments>-][<namespace>,][<ack id>][JSON payload]
//!
//! 0 CONNECT        both ways   payload: none or an object (authentication); the answer is {"sid":…}
//! 1 DISCONNECT     both ways   none
//! 2 EVENT          both ways   array, the name first: text or a number
//! 3 ACK            both ways   array; the id is that of the event
//! 4 CONNECT_ERROR  to clients  {"message":…,"data":…}
//! 5 BINARY_EVENT   both ways   as 2, with placeholders; <attachments>- is required
//! 6 BINARY_ACK     both ways   as 3, with placeholders; <attachments>- is required
//! ```
//! The namespace is left out when it is `/`; else it begins with `/` and ends at a comma or at the end of the text (`40/custom`).
//! Each attachment follows as a binary message of its own and is named by `{"_placeholder":true,"num":i}`.
//!
//! Parsing works on bytes and never cuts text by position unchecked. Where the document is silent we do as the reference
//! parser does, except: an id, a namespace or a number of arguments that only serves to use up memory is refused.

use serde::Serialize;
use serde_json::value::RawValue;

use super::json::{self, Elements, JsonError};

/// Attachments of one packet, both ways: more make the stock JavaScript client give up the connection.
pub const MAX_ATTACHMENTS: usize = 10;
/// Arguments of one event or acknowledgement. Each costs an allocation, so a megabyte of `[1,1,1,…` would become dozens.
pub const MAX_ARGS: usize = 1000;
/// Bytes of a namespace's name, which comes back in the answer.
pub const MAX_NAMESPACE_BYTES: usize = 1024;

/// Names with a meaning of their own in the client libraries; nobody may send them as events.
const RESERVED: [&str; 6] = ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
    ConnectError,
    BinaryEvent,
    BinaryAck,
}

impl Kind {
    fn from_digit(digit: u8) -> Option<Self> {
        Some(match digit {
            b'0' => Self::Connect,
            b'1' => Self::Disconnect,
            b'2' => Self::Event,
            b'3' => Self::Ack,
            b'4' => Self::ConnectError,
            b'5' => Self::BinaryEvent,
            b'6' => Self::BinaryAck,
            _ => return None,
        })
    }

    fn digit(self) -> char {
        match self {
            Self::Connect => '0',
            Self::Disconnect => '1',
            Self::Event => '2',
            Self::Ack => '3',
            Self::ConnectError => '4',
            Self::BinaryEvent => '5',
            Self::BinaryAck => '6',
        }
    }
}

/// A packet from a client; its attachments, if it announces any, come behind it.
#[derive(Debug)]
pub struct Packet<'a> {
    pub namespace: &'a str,
    /// 0 for a text packet, else 1 to [`MAX_ATTACHMENTS`].
    pub attachments: usize,
    pub body: Body,
}

#[derive(Debug)]
pub enum Body {
    /// The authentication payload, an object.
    Connect(Option<Box<RawValue>>),
    Disconnect,
    Event {
        /// A number as a name stays as it was written.
        name: String,
        args: Vec<Box<RawValue>>,
        id: Option<u64>,
    },
    /// An EVENT without any payload: legal by the grammar, means nothing.
    EmptyEvent,
    Ack {
        id: u64,
        args: Vec<Box<RawValue>>,
    },
}

/// Why a packet was refused; the connection is closed for it.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error("empty packet")]
    Empty,
    #[error("unknown packet type")]
    UnknownType,
    #[error("a client may not send CONNECT_ERROR")]
    ConnectError,
    #[error("the number of attachments must be 1 to {MAX_ATTACHMENTS}, followed by a hyphen")]
    Attachments,
    #[error("the namespace is longer than {MAX_NAMESPACE_BYTES} bytes or contains U+001E")]
    Namespace,
    #[error("the acknowledgement id is too large")]
    Id,
    #[error("an acknowledgement without an id")]
    NoId,
    #[error("the payload is not the JSON this packet type asks for: {0}")]
    Payload(String),
    #[error("the event's name is neither text nor a number")]
    Name,
    #[error("the event's name is reserved")]
    Reserved,
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// Parses a packet that a client sent.
pub fn parse(text: &str) -> Result<Packet<'_>, ParseError> {
    let (&digit, rest) = text.as_bytes().split_first().ok_or(ParseError::Empty)?;
    let kind = Kind::from_digit(digit).ok_or(ParseError::UnknownType)?;
    let (attachments, rest) = match kind {
        Kind::ConnectError => return Err(ParseError::ConnectError),
        Kind::BinaryEvent | Kind::BinaryAck => attachment_count(rest)?,
        _ => (0, rest),
    };
    let namespace_at = text.len().saturating_sub(rest.len());
    let (namespace_len, rest) = namespace(rest)?;
    let namespace = match namespace_len {
        0 => "/",
        len => text.get(namespace_at..namespace_at.saturating_add(len)).unwrap_or_default(),
    };
    let (id, payload) = number(rest).map_err(|TooLarge| ParseError::Id)?;
    let payload_at = text.len().saturating_sub(payload.len());
    let payload = text.get(payload_at..).unwrap_or_default();
    json::check(payload.as_bytes(), attachments)?;
    let body = match kind {
        Kind::Connect => Body::Connect(object(payload)?),
        Kind::Disconnect if payload.is_empty() => Body::Disconnect,
        Kind::Disconnect => return Err(ParseError::Payload("DISCONNECT has none".to_owned())),
        Kind::Event if payload.is_empty() => Body::EmptyEvent,
        Kind::Event | Kind::BinaryEvent => event(id, payload)?,
        Kind::Ack | Kind::BinaryAck => Body::Ack { id: id.ok_or(ParseError::NoId)?, args: ack_args(payload)? },
        Kind::ConnectError => return Err(ParseError::ConnectError),
    };
    Ok(Packet { namespace, attachments, body })
}

struct TooLarge;

/// Leading decimal digits as a number; leading zeros fold. `None` when there is no digit.
fn number(bytes: &[u8]) -> Result<(Option<u64>, &[u8]), TooLarge> {
    let mut value = None;
    let mut rest = bytes;
    while let Some((&digit @ b'0'..=b'9', tail)) = rest.split_first() {
        let digit = u64::from(digit.wrapping_sub(b'0'));
        value = Some(value.unwrap_or(0_u64).checked_mul(10).and_then(|tens| tens.checked_add(digit)).ok_or(TooLarge)?);
        rest = tail;
    }
    Ok((value, rest))
}

fn attachment_count(bytes: &[u8]) -> Result<(usize, &[u8]), ParseError> {
    let (count, rest) = number(bytes).map_err(|TooLarge| ParseError::Attachments)?;
    let rest = rest.strip_prefix(b"-").ok_or(ParseError::Attachments)?;
    let count = count.and_then(|count| usize::try_from(count).ok()).filter(|count| (1..=MAX_ATTACHMENTS).contains(count));
    Ok((count.ok_or(ParseError::Attachments)?, rest))
}

/// The length of the namespace's name, 0 when there is none, and what comes behind its comma.
fn namespace(bytes: &[u8]) -> Result<(usize, &[u8]), ParseError> {
    if bytes.first() != Some(&b'/') {
        return Ok((0, bytes));
    }
    let len = bytes.iter().position(|&byte| byte == b',').unwrap_or(bytes.len());
    // The name comes back in the answer, where U+001E would end an Engine.IO packet.
    if len > MAX_NAMESPACE_BYTES || bytes.iter().take(len).any(|&byte| byte == 0x1e) {
        return Err(ParseError::Namespace);
    }
    Ok((len, bytes.get(len.saturating_add(1)..).unwrap_or_default()))
}

fn payload_error(error: serde_json::Error) -> ParseError {
    ParseError::Payload(error.to_string())
}

fn object(payload: &str) -> Result<Option<Box<RawValue>>, ParseError> {
    if payload.is_empty() {
        return Ok(None);
    }
    let raw: Box<RawValue> = serde_json::from_str(payload).map_err(payload_error)?;
    match raw.get().starts_with('{') {
        true => Ok(Some(raw)),
        false => Err(ParseError::Payload("CONNECT takes an object".to_owned())),
    }
}

fn event(id: Option<u64>, payload: &str) -> Result<Body, ParseError> {
    let Elements::<{ MAX_ARGS + 1 }>(mut args) = serde_json::from_str(payload).map_err(payload_error)?;
    if args.is_empty() {
        return Err(ParseError::Name);
    }
    let name = args.remove(0);
    let name = match name.get().as_bytes().first() {
        // Escapes are legal in names, so the text is decoded, not borrowed.
        Some(b'"') => serde_json::from_str::<String>(name.get()).map_err(payload_error)?,
        Some(b'-' | b'0'..=b'9') => name.get().to_owned(),
        _ => return Err(ParseError::Name),
    };
    if is_reserved(&name) {
        return Err(ParseError::Reserved);
    }
    Ok(Body::Event { name, args, id })
}

/// An acknowledgement without payload is one without arguments, as in the reference server.
fn ack_args(payload: &str) -> Result<Vec<Box<RawValue>>, ParseError> {
    if payload.is_empty() {
        return Ok(Vec::new());
    }
    let Elements::<MAX_ARGS>(args) = serde_json::from_str(payload).map_err(payload_error)?;
    Ok(args)
}

/// Appends what comes in front of a packet's payload.
pub fn push_head(text: &mut String, kind: Kind, attachments: usize, namespace: &str, id: Option<u64>) {
    text.push(kind.digit());
    if attachments > 0 {
        text.push_str(&attachments.to_string());
        text.push('-');
    }
    if namespace != "/" {
        text.push_str(namespace);
        text.push(',');
    }
    if let Some(id) = id {
        text.push_str(&id.to_string());
    }
}

/// Appends a value as JSON; after an error the text is as it was.
pub fn push_json<T: Serialize + ?Sized>(text: &mut String, value: &T) -> Result<(), serde_json::Error> {
    let mut bytes = std::mem::take(text).into_bytes();
    let before = bytes.len();
    let written = serde_json::to_writer(&mut bytes, value);
    if written.is_err() {
        bytes.truncate(before);
    }
    *text = String::from_utf8(bytes).expect("serde_json writes UTF-8");
    written
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What was understood, in one line.
    fn shown(text: &str) -> String {
        fn joined(args: &[Box<RawValue>]) -> String {
            args.iter().map(|arg| arg.get()).collect::<Vec<_>>().join(" ")
        }
        let packet = match parse(text) {
            Ok(packet) => packet,
            Err(error) => return format!("refused: {error}"),
        };
        let (namespace, n) = (packet.namespace, packet.attachments);
        match packet.body {
            Body::Connect(auth) => format!("connect {namespace} {}", auth.map_or("-".to_owned(), |auth| auth.get().to_owned())),
            Body::Disconnect => format!("disconnect {namespace}"),
            Body::Event { name, args, id } => format!("event {namespace} {n} {id:?} {name:?} {}", joined(&args)),
            Body::EmptyEvent => format!("empty {namespace}"),
            Body::Ack { id, args } => format!("ack {namespace} {n} {id} {}", joined(&args)),
        }
    }

    #[test]
    fn accepts_what_the_grammar_allows() {
        for (text, expected) in [
            ("0", "connect / -"),
            ("0{}", "connect / {}"),
            (r#"0{"token":"ü"}"#, r#"connect / {"token":"ü"}"#),
            ("0/,", "connect / -"),
            ("0/custom", "connect /custom -"),
            ("0/custom,", "connect /custom -"),
            (r#"0/custom,{"a":1}"#, r#"connect /custom {"a":1}"#),
            ("0/custom?x=1,", "connect /custom?x=1 -"),
            ("0/é€😀,{}", "connect /é€😀 {}"),
            ("1", "disconnect /"),
            ("1/custom,", "disconnect /custom"),
            ("1/custom", "disconnect /custom"),
            (r#"2["a"]"#, r#"event / 0 None "a" "#),
            (r#"2["a",1,null,"x",{"b":[]}]"#, r#"event / 0 None "a" 1 null "x" {"b":[]}"#),
            (r#"212["a"]"#, r#"event / 0 Some(12) "a" "#),
            (r#"20["a"]"#, r#"event / 0 Some(0) "a" "#),
            (r#"2007["a"]"#, r#"event / 0 Some(7) "a" "#),
            (r#"2/custom,5["a",1]"#, r#"event /custom 0 Some(5) "a" 1"#),
            (r#"2["mess\u0061ge"]"#, r#"event / 0 None "message" "#),
            (r#"2["名前","é1234"]"#, r#"event / 0 None "名前" "é1234""#),
            (r#"2[1,2]"#, r#"event / 0 None "1" 2"#),
            (r#"2[-1.5e3]"#, r#"event / 0 None "-1.5e3" "#),
            ("2", "empty /"),
            ("27", "empty /"),
            ("2/custom,", "empty /custom"),
            // Values reach the application as they were written.
            (r#"2["a","\ud83d",1e400,1.0,-0,12345678901234567890]"#, r#"event / 0 None "a" "\ud83d" 1e400 1.0 -0 12345678901234567890"#),
            (r#"2["a",{"_placeholder":true,"num":7}]"#, r#"event / 0 None "a" {"_placeholder":true,"num":7}"#),
            ("31[]", "ack / 0 1 "),
            ("31", "ack / 0 1 "),
            (r#"3/custom,12["ok"]"#, r#"ack /custom 0 12 "ok""#),
            (r#"51-["a",{"_placeholder":true,"num":0}]"#, r#"event / 1 None "a" {"_placeholder":true,"num":0}"#),
            (r#"502-["a"]"#, r#"event / 2 None "a" "#),
            (r#"510-/custom,3["a"]"#, r#"event /custom 10 Some(3) "a" "#),
            (r#"61-9[{"_placeholder":true,"num":0}]"#, r#"ack / 1 9 {"_placeholder":true,"num":0}"#),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        let deep = format!("2[\"a\",{}{}]", "[".repeat(127), "]".repeat(127));
        let many = format!("2[\"a\"{}]", ",1".repeat(MAX_ARGS + 1));
        let long = format!("0/{},", "n".repeat(MAX_NAMESPACE_BYTES));
        for text in [
            "",
            "7",
            "9[]",
            "a",
            "é",
            "é1234",
            "é12345",
            "-1",
            " 2[\"a\"]",
            // CONNECT: an object or nothing. DISCONNECT: nothing.
            "0[]",
            "0null",
            "0\"x\"",
            "01.5",
            "0{",
            "0{}{}",
            "0/custom,[]",
            "0/a\u{1e}b,",
            &long,
            "1{}",
            "1[]",
            "1/custom,x",
            // EVENT: an array with a name.
            "2[]",
            "2[null]",
            "2[{}]",
            "2[[]]",
            "2[true]",
            "2{}",
            "2\"x\"",
            "2null",
            "2x",
            "2[\"a\"",
            "2[\"a\"]]",
            "2[\"a\",]",
            "2[\"a\",é]",
            "2[\"\\ud83d\"]",
            "2[NaN]",
            "2[\"a\",NaN]",
            "2[\"a\",Infinity]",
            "2[\"a\",\"\u{1}\"]",
            &deep,
            &many,
            "2[\"connect\"]",
            "2[\"connect_error\"]",
            "2[\"disconnect\"]",
            "2[\"disconnecting\"]",
            "2[\"newListener\"]",
            "2[\"removeListener\"]",
            "2[\"conn\\u0065ct\"]",
            "51-[\"disconnect\"]",
            // Ids: digits that fit.
            "2-1[\"a\"]",
            "21.5[\"a\"]",
            "2abc[\"a\"]",
            "299999999999999999999[\"a\"]",
            "3[]",
            "3",
            "3x[]",
            "3-1[]",
            "31{}",
            "31\"x\"",
            "31[",
            // CONNECT_ERROR is the server's.
            "4",
            "4{}",
            "4{\"message\":\"x\"}",
            "4/custom,{}",
            // Attachments: 1 to 10, a hyphen, placeholders within.
            "5",
            "5[\"a\"]",
            "5-[\"a\"]",
            "50-[\"a\"]",
            "511-[\"a\"]",
            "5-1-[\"a\"]",
            "51.0-[\"a\"]",
            "51",
            "51-",
            "5x-[\"a\"]",
            "599999999999999999999999999-[\"a\"]",
            "6-1[]",
            "60-1[]",
            "61-[]",
            "51-[\"a\",{\"_placeholder\":true,\"num\":1}]",
            "51-[\"a\",{\"_placeholder\":true,\"num\":-1}]",
            "51-[\"a\",{\"_placeholder\":true}]",
        ] {
            assert!(shown(text).starts_with("refused"), "{text}: {}", shown(text));
        }
    }

    #[test]
    fn heads_are_written_by_the_same_grammar() {
        for (kind, attachments, namespace, id, expected) in [
            (Kind::Connect, 0, "/", None, "0"),
            (Kind::Disconnect, 0, "/custom", None, "1/custom,"),
            (Kind::Event, 0, "/", Some(0), "20"),
            (Kind::Ack, 0, "/é", Some(12), "3/é,12"),
            (Kind::ConnectError, 0, "/x", None, "4/x,"),
            (Kind::BinaryEvent, 2, "/", None, "52-"),
            (Kind::BinaryAck, 10, "/custom", Some(u64::MAX), "610-/custom,18446744073709551615"),
        ] {
            let mut text = String::new();
            push_head(&mut text, kind, attachments, namespace, id);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_value_that_is_no_json_leaves_the_text_alone() {
        let mut text = "before".to_owned();
        let bad = std::collections::HashMap::from([((1, 2), 3)]);
        assert!(push_json(&mut text, &bad).is_err());
        assert_eq!(text, "before");
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::hash_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_text_is_accepted_or_refused(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn any_text_that_looks_like_a_packet_is_accepted_or_refused(text in "[0-7]{1,3}-?(/[a-zé]{0,3},?)?[0-9]{0,3}[\\[{\"a,:é\\\\}\\]0-9_true]{0,24}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_is_read_back(
            binary in 0_usize..=MAX_ATTACHMENTS, is_ack in any::<bool>(), namespace in "(/|/[^,\u{1e}]{1,12})", id in any::<Option<u64>>(),
            name in any::<String>(), args in prop::collection::vec(json(), 0..5),
        ) {
            prop_assume!(!is_reserved(&name) && (!is_ack || id.is_some()));
            let kind = match (is_ack, binary) {
                (true, 0) => Kind::Ack,
                (true, _) => Kind::BinaryAck,
                (false, 0) => Kind::Event,
                (false, _) => Kind::BinaryEvent,
            };
            let mut text = String::new();
            push_head(&mut text, kind, binary, &namespace, id);
            let name_first = (!is_ack).then(|| serde_json::Value::from(name.clone()));
            push_json(&mut text, &name_first.into_iter().chain(args.iter().cloned()).collect::<Vec<_>>()).unwrap();
            let packet = parse(&text).unwrap();
            prop_assert_eq!(packet.namespace, &namespace);
            prop_assert_eq!(packet.attachments, binary);
            let (got, got_id) = match packet.body {
                Body::Event { name: got, args, id } => { prop_assert_eq!(got, name); (args, id) }
                Body::Ack { id, args } => (args, Some(id)),
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert_eq!(got_id, id);
            let got: Vec<serde_json::Value> = got.iter().map(|raw| serde_json::from_str(raw.get()).unwrap()).collect();
            prop_assert_eq!(got, args);
        }
    }
}
