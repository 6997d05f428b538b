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
//! The namespace is left out when it is `/`; else it begins with `/` and ends at a comma or at the
//! end of the text (`40/custom`). Each attachment follows as a binary message of its own and is
//! named by `{"_placeholder":true,"num":i}`.
//!
//! Parsing works on bytes and never cuts text by position unchecked. Where the document is silent
//! we do as the reference parser does, except: an id, a namespace or a number of arguments that
//! only serves to use up memory is refused.

use serde::Serialize;
use serde_json::value::RawValue;

use super::json::{self, Elements, JsonError};

/// Attachments of one packet, both ways: more make the stock JavaScript client give up the
/// connection.
pub const MAX_ATTACHMENTS: usize = 10;
/// Arguments of one event or acknowledgement. Each costs an allocation, so a megabyte of `[1,1,1,…`
/// would become dozens.
pub const MAX_ARGS: usize = 1000;
/// Bytes of a namespace's name, which comes back in the answer.
pub const MAX_NAMESPACE_BYTES: usize = 1024;

/// Names with a meaning of their own in the client libraries; nobody may send them as events.
const RESERVED: [&str; 6] = [
    "connect",
    "connect_error",
    "disconnect",
    "disconnecting",
    "newListener",
    "removeListener",
];

pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketType {
    Connect,
    Disconnect,
    Event,
    Ack,
    ConnectError,
    BinaryEvent,
    BinaryAck,
}

impl PacketType {
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
    pub body: PacketBody,
}

#[derive(Debug)]
pub enum PacketBody {
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
    /// Nobody asks clients for an acknowledgement; one that comes is checked and dropped.
    Ack,
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
    let kind = PacketType::from_digit(digit).ok_or(ParseError::UnknownType)?;
    let (attachments, rest) = match kind {
        PacketType::ConnectError => return Err(ParseError::ConnectError),
        PacketType::BinaryEvent | PacketType::BinaryAck => attachment_count(rest)?,
        _ => (0, rest),
    };
    let namespace_at = text.len().saturating_sub(rest.len());
    let (namespace_len, rest) = namespace(rest)?;
    let namespace = match namespace_len {
        0 => "/",
        len => text
            .get(namespace_at..namespace_at.saturating_add(len))
            .unwrap_or_default(),
    };
    let (id, payload) = number(rest).map_err(|TooLarge| ParseError::Id)?;
    let payload_at = text.len().saturating_sub(payload.len());
    let payload = text.get(payload_at..).unwrap_or_default();
    json::check(payload.as_bytes(), attachments)?;
    let body = match kind {
        PacketType::Connect => PacketBody::Connect(object(payload)?),
        PacketType::Disconnect if payload.is_empty() => PacketBody::Disconnect,
        PacketType::Disconnect => {
            return Err(ParseError::Payload("DISCONNECT has none".to_owned()));
        }
        PacketType::Event if payload.is_empty() => PacketBody::EmptyEvent,
        PacketType::Event | PacketType::BinaryEvent => event(id, payload)?,
        PacketType::Ack | PacketType::BinaryAck => {
            id.ok_or(ParseError::NoId)?;
            check_ack_args(payload)?;
            PacketBody::Ack
        }
        PacketType::ConnectError => return Err(ParseError::ConnectError),
    };
    Ok(Packet {
        namespace,
        attachments,
        body,
    })
}

struct TooLarge;

/// Leading decimal digits as a number; leading zeros fold. `None` when there is no digit.
fn number(bytes: &[u8]) -> Result<(Option<u64>, &[u8]), TooLarge> {
    let mut value = None;
    let mut rest = bytes;
    while let Some((&digit @ b'0'..=b'9', tail)) = rest.split_first() {
        let digit = u64::from(digit.wrapping_sub(b'0'));
        value = Some(
            value
                .unwrap_or(0_u64)
                .checked_mul(10)
                .and_then(|tens| tens.checked_add(digit))
                .ok_or(TooLarge)?,
        );
        rest = tail;
    }
    Ok((value, rest))
}

fn attachment_count(bytes: &[u8]) -> Result<(usize, &[u8]), ParseError> {
    let (count, rest) = number(bytes).map_err(|TooLarge| ParseError::Attachments)?;
    let rest = rest.strip_prefix(b"-").ok_or(ParseError::Attachments)?;
    let count = count
        .and_then(|count| usize::try_from(count).ok())
        .filter(|count| (1..=MAX_ATTACHMENTS).contains(count));
    Ok((count.ok_or(ParseError::Attachments)?, rest))
}

/// The length of the namespace's name, 0 when there is none, and what comes behind its comma.
fn namespace(bytes: &[u8]) -> Result<(usize, &[u8]), ParseError> {
    if bytes.first() != Some(&b'/') {
        return Ok((0, bytes));
    }
    let len = bytes
        .iter()
        .position(|&byte| byte == b',')
        .unwrap_or(bytes.len());
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

fn event(id: Option<u64>, payload: &str) -> Result<PacketBody, ParseError> {
    let Elements::<{ MAX_ARGS + 1 }>(mut args) =
        serde_json::from_str(payload).map_err(payload_error)?;
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
    Ok(PacketBody::Event { name, args, id })
}

/// An acknowledgement without payload is one without arguments, as in the reference server.
fn check_ack_args(payload: &str) -> Result<(), ParseError> {
    if !payload.is_empty() {
        let Elements::<MAX_ARGS>(_) = serde_json::from_str(payload).map_err(payload_error)?;
    }
    Ok(())
}

/// Appends what comes in front of a packet's payload.
pub fn push_head(
    text: &mut String,
    kind: PacketType,
    attachments: usize,
    namespace: &str,
    id: Option<u64>,
) {
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
pub fn push_json<T: Serialize + ?Sized>(
    text: &mut String,
    value: &T,
) -> Result<(), serde_json::Error> {
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
mod tests;
