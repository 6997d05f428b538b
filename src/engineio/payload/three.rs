//! Polling bodies of revision 3.
//!
//! ```text
//! text    <length>:<packet>...            the length in UTF-16 code units; bytes as `b4` + base64
//! binary  <kind><digits>ff<packet>...     kind 0 text, 1 bytes; the length in bytes, a digit a byte; bytes begin with the byte 4
//! ```
//! A body is binary as soon as one of its packets is, unless the client asked for base64. A length
//! of 0 is no packet: the reference writes an empty body as `0:`.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::super::message::Message;
use super::super::packet::{Encoding, Frame, Packet, PacketError, Revision, base64};
use super::Body;

/// Bytes that a packet may have around it in a body: kind, digits, end, type.
pub(super) const MOST_AROUND: usize = 12;

/// Digits of a length; no body is longer.
const MAX_DIGITS: usize = 9;
const TEXT: u8 = 0;
const BYTES: u8 = 1;
const END: u8 = 0xff;

#[derive(Debug)]
pub(super) struct Reader {
    /// `None` behind the last packet.
    rest: Option<Bytes>,
    octets: bool,
    started: bool,
}

impl Reader {
    pub(super) fn of(body: Bytes, octets: bool) -> Self {
        Self {
            rest: Some(body),
            octets,
            started: false,
        }
    }

    fn packet(&mut self, rest: &mut Bytes) -> Result<Option<Packet>, PacketError> {
        if self.octets {
            let (is_text, part) = take_octets(rest)?;
            if part.is_empty() {
                return Ok(None);
            }
            let frame = if is_text {
                Frame::Text(text(part)?)
            } else {
                Frame::Binary(part)
            };
            return Packet::from_frame(frame, Revision::Three).map(Some);
        }
        let part = take_text(rest)?;
        if part.is_empty() {
            Ok(None)
        } else {
            Packet::from_text(text(part)?, Revision::Three).map(Some)
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Packet, PacketError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = self.rest.take()?;
        if rest.is_empty() {
            // At the front: no body at all.
            return (!std::mem::replace(&mut self.started, true))
                .then_some(Err(PacketError::Empty));
        }
        self.started = true;
        while !rest.is_empty() {
            match self.packet(&mut rest) {
                Ok(None) => {}
                Ok(Some(packet)) => {
                    self.rest = Some(rest);
                    return Some(Ok(packet));
                }
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

fn text(part: Bytes) -> Result<Utf8Bytes, PacketError> {
    Utf8Bytes::try_from(part).map_err(|_| PacketError::Utf8)
}

/// The number in front of `end`, with the value of a digit's byte 0; `rest` begins behind the end
/// then.
fn take_length(rest: &mut Bytes, zero: u8, end: u8) -> Result<usize, PacketError> {
    let digits = rest
        .iter()
        .take(MAX_DIGITS + 1)
        .position(|byte| *byte == end)
        .ok_or(PacketError::Length)?;
    let number = rest.split_to(digits);
    let _ = rest.split_to(1);
    if number.is_empty() {
        return Err(PacketError::Length);
    }
    number.iter().try_fold(0usize, |sum, byte| {
        let digit = byte
            .checked_sub(zero)
            .filter(|digit| *digit <= 9)
            .ok_or(PacketError::Length)?;
        Ok(sum * 10 + usize::from(digit))
    })
}

fn take_octets(rest: &mut Bytes) -> Result<(bool, Bytes), PacketError> {
    let is_text = match rest.split_to(1)[..] {
        [TEXT] => true,
        [BYTES] => false,
        _ => return Err(PacketError::Length),
    };
    let length = take_length(rest, 0, END)?;
    if length > rest.len() {
        return Err(PacketError::Length);
    }
    Ok((is_text, rest.split_to(length)))
}

fn take_text(rest: &mut Bytes) -> Result<Bytes, PacketError> {
    let units = take_length(rest, b'0', b':')?;
    let bytes = bytes_of_units(rest, units).ok_or(PacketError::Length)?;
    Ok(rest.split_to(bytes))
}

/// How many bytes of UTF-8 are this many UTF-16 code units, by the first byte of each character;
/// whether it is UTF-8 is found later.
fn bytes_of_units(text: &[u8], mut units: usize) -> Option<usize> {
    let mut bytes = 0usize;
    while units > 0 {
        let (length, count) = match text.get(bytes)? {
            0x00..=0x7f => (1, 1),
            0xc0..=0xdf => (2, 1),
            0xe0..=0xef => (3, 1),
            0xf0..=0xff => (4, 2),
            0x80..=0xbf => return None,
        };
        units = units.checked_sub(count)?;
        bytes += length;
    }
    (bytes <= text.len()).then_some(bytes)
}

pub(super) fn encode(packets: Vec<Packet>, as_base64: bool) -> Body {
    let binary = |packet: &Packet| matches!(packet, Packet::Message(Message::Binary(_)));
    let mut body = Vec::new();
    if as_base64 || !packets.iter().any(binary) {
        for packet in packets {
            append_text(&mut body, &packet);
        }
        return Body::Text(body.into());
    }
    for packet in packets {
        match packet.into_frame(Encoding::Three { base64: false }) {
            Frame::Text(text) => append_octets(&mut body, TEXT, text.as_bytes()),
            Frame::Binary(bytes) => append_octets(&mut body, BYTES, &bytes),
        }
    }
    Body::Octets(body.into())
}

fn append_text(body: &mut Vec<u8>, packet: &Packet) {
    let encoded;
    let text = match packet {
        Packet::Message(Message::Text(text)) => text.as_packet(),
        Packet::Message(Message::Binary(bytes)) => {
            encoded = base64("b4", bytes);
            &encoded
        }
        Packet::Open(text) => text.as_str(),
        other => other.control(),
    };
    let units: usize = text.chars().map(char::len_utf16).sum();
    body.extend_from_slice(format!("{units}:").as_bytes());
    body.extend_from_slice(text.as_bytes());
}

fn append_octets(body: &mut Vec<u8>, kind: u8, packet: &[u8]) {
    body.push(kind);
    body.extend(packet.len().to_string().bytes().map(|digit| digit - b'0'));
    body.push(END);
    body.extend_from_slice(packet);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::packet::PacketError::{Base64, Empty, Length, UnknownType, Utf8};
    use super::*;

    type Read = Vec<Result<Packet, PacketError>>;

    fn message(text: &str) -> Packet {
        Packet::Message(Message::text(text))
    }

    fn binary(bytes: &[u8]) -> Packet {
        Packet::Message(Message::Binary(Bytes::copy_from_slice(bytes)))
    }

    fn read(body: &[u8], octets: bool) -> Read {
        Reader::of(Bytes::copy_from_slice(body), octets).collect()
    }

    #[test]
    fn text_bodies_are_packets() {
        let table: &[(&str, Read)] = &[
            ("6:4hello", vec![Ok(message("hello"))]),
            (
                "6:4test16:4test2",
                vec![Ok(message("test1")), Ok(message("test2"))],
            ),
            (
                "6:4hello10:b4AQIDBA==",
                vec![Ok(message("hello")), Ok(binary(&[1, 2, 3, 4]))],
            ),
            (
                "3:4é€1:2",
                vec![Ok(message("é€")), Ok(Packet::Ping { probe: false })],
            ),
            (
                "3:4\u{1f4b0}1:6",
                vec![Ok(message("\u{1f4b0}")), Ok(Packet::Noop)],
            ),
            ("006:4hello", vec![Ok(message("hello"))]),
            ("0:", vec![]),
            ("0:1:10:", vec![Ok(Packet::Close)]),
            ("", vec![Err(Empty)]),
            ("abc", vec![Err(Length)]),
            (":", vec![Err(Length)]),
            ("7:4hello", vec![Err(Length)]),
            ("6:4hello7", vec![Ok(message("hello")), Err(Length)]),
            ("-1:4", vec![Err(Length)]),
            ("1e1:4hello", vec![Err(Length)]),
            ("9999999999:4", vec![Err(Length)]),
            ("18446744073709551617:4", vec![Err(Length)]),
            ("2:4\u{1f4b0}", vec![Err(Length)]),
            ("1:9", vec![Err(UnknownType)]),
            ("4:bAQI", vec![Err(UnknownType)]),
            ("3:b4A", vec![Err(Base64)]),
        ];
        for (body, expected) in table {
            assert_eq!(&read(body.as_bytes(), false), expected, "{body:?}");
        }
        assert_eq!(
            read(b"2:4\xff", false),
            [Err(Length)],
            "four bytes are announced"
        );
        assert_eq!(read(b"2:4\xc3(", false), [Err(Utf8)]);
        assert_eq!(read(b"2:4\x80", false), [Err(Length)]);
    }

    #[test]
    fn binary_bodies_are_packets() {
        let table: &[(&[u8], Read)] = &[
            (
                &[
                    0, 6, 255, b'4', b'h', b'e', b'l', b'l', b'o', 1, 5, 255, 4, 1, 2, 3, 4,
                ],
                vec![Ok(message("hello")), Ok(binary(&[1, 2, 3, 4]))],
            ),
            (&[0, 3, 255, b'4', 0xc3, 0xa9], vec![Ok(message("é"))]),
            (&[0, 0, 255, 1, 0, 1, 255, 4], vec![Ok(binary(&[]))]),
            (&[], vec![Err(Empty)]),
            (&[2, 1, 255, 4], vec![Err(Length)]),
            (&[1], vec![Err(Length)]),
            (&[1, 255], vec![Err(Length)]),
            (&[1, 10, 255, 4], vec![Err(Length)]),
            (&[1, 2, 255, 4], vec![Err(Length)]),
            (&[1, 1, 255, 5], vec![Err(UnknownType)]),
            (&[0, 2, 255, b'4', 0xff], vec![Err(Utf8)]),
            (
                &[
                    1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 255,
                ],
                vec![Err(Length)],
            ),
        ];
        for (body, expected) in table {
            assert_eq!(&read(body, true), expected, "{body:?}");
        }
    }

    #[test]
    fn packets_are_bodies() {
        let packets = || vec![message("hello"), binary(&[1, 2, 3, 4])];
        assert_eq!(
            encode(packets(), true),
            Body::Text("6:4hello10:b4AQIDBA==".into())
        );
        let octets = [
            0, 6, 255, 52, 104, 101, 108, 108, 111, 1, 5, 255, 4, 1, 2, 3, 4,
        ];
        assert_eq!(
            encode(packets(), false),
            Body::Octets(Bytes::copy_from_slice(&octets))
        );
        assert_eq!(
            encode(vec![message("é\u{1f4b0}")], false),
            Body::Text("4:4é\u{1f4b0}".into()),
            "UTF-16 code units"
        );
        assert_eq!(
            encode(vec![Packet::Noop, Packet::Close], false),
            Body::Text("1:61:1".into())
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            packets in proptest::collection::vec(
                prop_oneof![any::<String>().prop_map(|text| message(&text)), any::<Vec<u8>>().prop_map(|bytes| binary(&bytes)), Just(Packet::Noop)],
                1..10,
            ),
            as_base64 in any::<bool>(),
        ) {
            let (body, octets) = match encode(packets.clone(), as_base64) {
                Body::Text(body) => (body, false),
                Body::Octets(body) => (body, true),
            };
            prop_assert_eq!(Reader::of(body, octets).collect::<Result<Vec<_>, _>>(), Ok(packets));
        }

        #[test]
        fn no_body_panics(body in proptest::collection::vec(prop_oneof![any::<u8>(), 0u8..10, Just(255), 48u8..59], 0..60), octets in any::<bool>()) {
            prop_assert!(read(&body, octets).len() <= body.len() + 1);
        }
    }
}
