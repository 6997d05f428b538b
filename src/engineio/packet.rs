//! One Engine.IO packet to and from a WebSocket message or a piece of a polling payload.
//!
//! ```text
//! text    <type digit><data>          0 open, 1 close, 2 ping, 3 pong, 4 message, 5 upgrade, 6 noop
//! binary  revision 4   WebSocket: the bytes alone, a message.   Polling, and tolerated in a text frame: `b` + base64
//!         revision 3   WebSocket and binary polling bodies: the byte 4, then the bytes.   Text: `b4` + base64
//! ```
//! Base64 is the standard one, padded.
//! Input is looked at as bytes and never cut by an index. Base64 and UTF-8 are taken strictly: the
//! reference server puts U+FFFD for what it cannot read, which turns a damaged message into a wrong
//! one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::message::{Message, Text};

/// A protocol revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Revision {
    Three,
    Four,
}

/// How packets are written for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `base64`: bytes are to come as text.
    Three {
        base64: bool,
    },
    Four,
}

impl Encoding {
    pub fn revision(self) -> Revision {
        match self {
            Self::Three { .. } => Revision::Three,
            Self::Four => Revision::Four,
        }
    }
}

/// The type of a binary packet of revision 3; only messages are binary.
const MESSAGE_BYTE: u8 = 4;

/// What one WebSocket message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Text(Utf8Bytes),
    Binary(Bytes),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// With its digit and JSON when we send it; empty when a client sends one, which means nothing.
    Open(Utf8Bytes),
    Close,
    /// `probe`: the data is exactly `probe`. Other data is not kept.
    Ping {
        probe: bool,
    },
    Pong {
        probe: bool,
    },
    Message(Message),
    Upgrade,
    Noop,
}

/// Why something is not a packet. The session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    #[error("an empty packet")]
    Empty,
    #[error("an unknown packet type")]
    UnknownType,
    #[error("a binary packet that is not base64")]
    Base64,
    #[error("text that is not UTF-8")]
    Utf8,
    #[error("a packet that is not as long as it says")]
    Length,
}

impl Packet {
    /// A WebSocket message as a packet.
    pub fn from_frame(frame: Frame, revision: Revision) -> Result<Self, PacketError> {
        match frame {
            Frame::Text(text) => Self::from_text(text, revision),
            Frame::Binary(bytes) => Self::from_bytes(bytes, revision),
        }
    }

    /// The text of one packet.
    pub fn from_text(text: Utf8Bytes, revision: Revision) -> Result<Self, PacketError> {
        let (first, data) = text.as_bytes().split_first().ok_or(PacketError::Empty)?;
        let probe = data == b"probe";
        match *first {
            b'0' => Ok(Self::Open(Utf8Bytes::default())),
            b'1' => Ok(Self::Close),
            b'2' => Ok(Self::Ping { probe }),
            b'3' => Ok(Self::Pong { probe }),
            b'4' => Text::from_frame(text)
                .map(|text| Self::Message(Message::Text(text)))
                .ok_or(PacketError::UnknownType),
            b'5' => Ok(Self::Upgrade),
            b'6' => Ok(Self::Noop),
            b'b' if revision == Revision::Four => from_base64(data),
            b'b' => data
                .strip_prefix(b"4")
                .ok_or(PacketError::UnknownType)
                .and_then(from_base64),
            _ => Err(PacketError::UnknownType),
        }
    }

    /// The bytes of one binary packet.
    pub fn from_bytes(mut bytes: Bytes, revision: Revision) -> Result<Self, PacketError> {
        if revision == Revision::Three {
            match bytes.first() {
                Some(&MESSAGE_BYTE) => drop(bytes.split_to(1)),
                Some(_) => return Err(PacketError::UnknownType),
                None => return Err(PacketError::Empty),
            }
        }
        Ok(Self::Message(Message::Binary(bytes)))
    }

    /// The WebSocket message that carries this packet. A text's bytes are shared, not copied; so
    /// are a binary message's in revision 4.
    pub fn into_frame(self, encoding: Encoding) -> Frame {
        match self {
            Self::Message(Message::Text(text)) => Frame::Text(text.into_frame()),
            Self::Message(Message::Binary(bytes)) => match encoding {
                Encoding::Four => Frame::Binary(bytes),
                Encoding::Three { base64: false } => {
                    Frame::Binary([&[MESSAGE_BYTE], &bytes[..]].concat().into())
                }
                Encoding::Three { base64: true } => Frame::Text(base64("b4", &bytes).into()),
            },
            Self::Open(text) => Frame::Text(text),
            other => Frame::Text(Utf8Bytes::from_static(other.control())),
        }
    }

    /// The text of a packet without data of its own.
    pub(super) fn control(&self) -> &'static str {
        match self {
            Self::Open(_) => "0",
            Self::Close => "1",
            Self::Ping { probe: false } => "2",
            Self::Ping { probe: true } => "2probe",
            Self::Pong { probe: false } => "3",
            Self::Pong { probe: true } => "3probe",
            Self::Message(_) => "4",
            Self::Upgrade => "5",
            Self::Noop => "6",
        }
    }
}

fn from_base64(data: &[u8]) -> Result<Packet, PacketError> {
    STANDARD
        .decode(data)
        .map(|bytes| Packet::Message(Message::Binary(bytes.into())))
        .map_err(|_| PacketError::Base64)
}

/// Bytes as text, behind what says so.
pub(super) fn base64(prefix: &str, bytes: &[u8]) -> String {
    let mut text = String::with_capacity(prefix.len() + bytes.len().div_ceil(3) * 4);
    text.push_str(prefix);
    STANDARD.encode_string(bytes, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Result<Packet, PacketError> {
        Packet::from_frame(Frame::Text(text.into()), Revision::Four)
    }

    fn binary(bytes: &[u8]) -> Packet {
        Packet::Message(Message::Binary(Bytes::copy_from_slice(bytes)))
    }

    #[test]
    fn text_frames_are_packets() {
        let message = |text: &str| Ok(Packet::Message(Message::text(text)));
        let table: &[(&str, Result<Packet, PacketError>)] = &[
            ("", Err(PacketError::Empty)),
            ("0", Ok(Packet::Open(Utf8Bytes::default()))),
            ("0{\"sid\":\"x\"}", Ok(Packet::Open(Utf8Bytes::default()))),
            ("1", Ok(Packet::Close)),
            ("2", Ok(Packet::Ping { probe: false })),
            ("2probe", Ok(Packet::Ping { probe: true })),
            ("2probed", Ok(Packet::Ping { probe: false })),
            ("3", Ok(Packet::Pong { probe: false })),
            ("3probe", Ok(Packet::Pong { probe: true })),
            ("4", message("")),
            ("4hello", message("hello")),
            ("4é1234", message("é1234")),
            ("44€\u{1f4b0}", message("4€\u{1f4b0}")),
            ("5", Ok(Packet::Upgrade)),
            ("6", Ok(Packet::Noop)),
            ("7", Err(PacketError::UnknownType)),
            ("é1234", Err(PacketError::UnknownType)),
            ("\u{1f4b0}", Err(PacketError::UnknownType)),
            (" 4x", Err(PacketError::UnknownType)),
            ("abc", Err(PacketError::UnknownType)),
            ("B", Err(PacketError::UnknownType)),
            ("b", Ok(binary(b""))),
            ("bAQIDBA==", Ok(binary(&[1, 2, 3, 4]))),
            ("bAQIDBA", Err(PacketError::Base64)),
            ("b!!!", Err(PacketError::Base64)),
            ("bé", Err(PacketError::Base64)),
        ];
        for (input, expected) in table {
            assert_eq!(&text(input), expected, "{input:?}");
        }
    }

    #[test]
    fn packets_are_frames() {
        let table = [
            (Packet::Close, "1"),
            (Packet::Ping { probe: false }, "2"),
            (Packet::Pong { probe: true }, "3probe"),
            (Packet::Message(Message::text("hellö")), "4hellö"),
            (Packet::Noop, "6"),
            (Packet::Open("0{}".into()), "0{}"),
        ];
        for (packet, expected) in table {
            assert_eq!(
                packet.into_frame(Encoding::Four),
                Frame::Text(expected.into())
            );
        }
        assert_eq!(
            binary(&[0, 255]).into_frame(Encoding::Four),
            Frame::Binary(Bytes::from_static(&[0, 255]))
        );
    }

    #[test]
    fn revision_3_marks_bytes_as_a_message() {
        let read = |frame| Packet::from_frame(frame, Revision::Three);
        let bytes = |bytes: &'static [u8]| Frame::Binary(Bytes::from_static(bytes));
        let table = [
            (bytes(&[4, 1, 2]), Ok(binary(&[1, 2]))),
            (bytes(&[4]), Ok(binary(&[]))),
            (bytes(&[]), Err(PacketError::Empty)),
            (bytes(&[0, 1]), Err(PacketError::UnknownType)),
            (bytes(b"4a"), Err(PacketError::UnknownType)),
            (Frame::Text("b4AQI=".into()), Ok(binary(&[1, 2]))),
            (Frame::Text("b4".into()), Ok(binary(&[]))),
            (Frame::Text("bAQI=".into()), Err(PacketError::UnknownType)),
            (Frame::Text("b".into()), Err(PacketError::UnknownType)),
            (Frame::Text("b4A".into()), Err(PacketError::Base64)),
            (Frame::Text("bé".into()), Err(PacketError::UnknownType)),
            (
                Frame::Text("4a".into()),
                Ok(Packet::Message(Message::text("a"))),
            ),
        ];
        for (frame, expected) in table {
            assert_eq!(read(frame.clone()), expected, "{frame:?}");
        }
        assert_eq!(
            binary(&[1, 2]).into_frame(Encoding::Three { base64: false }),
            bytes(&[4, 1, 2])
        );
        assert_eq!(
            binary(&[1, 2]).into_frame(Encoding::Three { base64: true }),
            Frame::Text("b4AQI=".into())
        );
    }

    #[test]
    fn a_text_message_is_written_without_a_copy() {
        let message = Text::new("shared");
        let Frame::Text(frame) =
            Packet::Message(Message::Text(message.clone())).into_frame(Encoding::Four)
        else {
            panic!("a text")
        };
        assert_eq!(frame.as_str().as_ptr(), message.as_packet().as_ptr());
    }

    fn any_dialect() -> impl Strategy<Value = Encoding> {
        prop::sample::select(vec![
            Encoding::Four,
            Encoding::Three { base64: false },
            Encoding::Three { base64: true },
        ])
    }

    proptest! {
        #[test]
        fn messages_come_back(encoding in any_dialect(), input in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            for packet in [Packet::Message(Message::text(&input)), binary(&bytes)] {
                prop_assert_eq!(Packet::from_frame(packet.clone().into_frame(encoding), encoding.revision()), Ok(packet));
            }
        }

        #[test]
        fn no_frame_panics(encoding in any_dialect(), input in prop_oneof![any::<String>(), "b4?[A-Za-z0-9+/=é]{0,16}"]) {
            let _ = Packet::from_bytes(input.clone().into(), encoding.revision());
            let _ = Packet::from_text(input.into(), encoding.revision());
        }
    }
}
