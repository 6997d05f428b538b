//! A polling body to and from packets.
//!
//! Revision 4 joins packets by U+001E. Reading is lazy: a body of a megabyte may hold half a
//! million packets, which would cost forty times the body if they were taken apart at once. Its
//! parts share the body's bytes. Writing replaces a U+001E inside a text with U+001F of the same
//! length, because what follows it would otherwise be a packet of its own. Revision 3 is `three`'s.

mod three;

use bytes::Bytes;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::message::Message;
use super::packet::{Encoding, Packet, PacketError, Revision, base64};

/// Packets in one polling answer. python-engineio disconnects when it gets more.
pub const MAX_PACKETS: usize = 16;

const SEPARATOR: u8 = 0x1e;
const SEPARATOR_STAND_IN: u8 = 0x1f;

/// A body that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Text(Bytes),
    Octets(Bytes),
}

/// The packets of a body, one after the other. Behind an error nothing means anything.
#[derive(Debug)]
pub struct Packets(Reader);

#[derive(Debug)]
enum Reader {
    /// `None` behind the last packet. An empty body is one empty packet, which is an error; so is
    /// what follows a trailing separator.
    Four(Option<Bytes>),
    Three(three::Reader),
}

impl Packets {
    /// `octets`: the body said it is binary, which only revision 3 knows.
    pub fn of(body: Bytes, revision: Revision, octets: bool) -> Self {
        Self(match revision {
            Revision::Four => Reader::Four(Some(body)),
            Revision::Three => Reader::Three(three::Reader::of(body, octets)),
        })
    }
}

impl Iterator for Packets {
    type Item = Result<Packet, PacketError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Reader::Three(reader) => reader.next(),
            Reader::Four(rest) => {
                let part = next_part(rest)?;
                Some(
                    Utf8Bytes::try_from(part)
                        .map_err(|_| PacketError::Utf8)
                        .and_then(|part| Packet::from_text(part, Revision::Four)),
                )
            }
        }
    }
}

fn next_part(body: &mut Option<Bytes>) -> Option<Bytes> {
    let mut rest = body.take()?;
    let Some(at) = rest.iter().position(|byte| *byte == SEPARATOR) else {
        return Some(rest);
    };
    let part = rest.split_to(at);
    // The separator stands at the front of what is left.
    *body = Some(rest.split_off(1));
    Some(part)
}

/// Bytes of a packet in a body of revision 4, without a separator.
pub fn encoded_len(packet: &Packet) -> usize {
    match packet {
        Packet::Message(Message::Text(text)) => text.as_packet().len(),
        Packet::Message(Message::Binary(bytes)) => {
            bytes.len().div_ceil(3).saturating_mul(4).saturating_add(1)
        }
        Packet::Open(text) => text.as_str().len(),
        other => other.control().len(),
    }
}

/// How many of the packets at the front go into one body: at most [`MAX_PACKETS`] and `max_bytes`,
/// but never none.
pub fn fitting<'a>(
    packets: impl Iterator<Item = &'a Packet>,
    encoding: Encoding,
    max_bytes: usize,
) -> usize {
    let around = if encoding == Encoding::Four {
        1
    } else {
        three::MOST_AROUND
    };
    let mut bytes = 0usize;
    packets
        .take(MAX_PACKETS)
        .enumerate()
        .take_while(|(index, packet)| {
            bytes = bytes
                .saturating_add(encoded_len(packet))
                .saturating_add(if *index > 0 { around } else { 0 });
            *index == 0 || bytes <= max_bytes
        })
        .count()
}

/// The body that holds these packets.
pub fn encode(packets: Vec<Packet>, encoding: Encoding) -> Body {
    match encoding {
        Encoding::Four => Body::Text(encode_four(packets)),
        Encoding::Three { base64 } => three::encode(packets, base64),
    }
}

fn encode_four(packets: Vec<Packet>) -> Bytes {
    let mut body = Vec::new();
    for (index, packet) in packets.into_iter().enumerate() {
        if index > 0 {
            body.push(SEPARATOR);
        }
        match packet {
            Packet::Message(Message::Text(text)) => {
                let text = text.as_packet().as_bytes();
                body.reserve(text.len());
                body.extend(text.iter().map(|byte| {
                    if *byte == SEPARATOR {
                        SEPARATOR_STAND_IN
                    } else {
                        *byte
                    }
                }));
            }
            Packet::Message(Message::Binary(bytes)) => {
                body.extend_from_slice(base64("b", &bytes).as_bytes())
            }
            Packet::Open(text) => body.extend_from_slice(text.as_str().as_bytes()),
            other => body.extend_from_slice(other.control().as_bytes()),
        }
    }
    body.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Packet {
        Packet::Message(Message::text(text))
    }

    fn binary(bytes: &[u8]) -> Packet {
        Packet::Message(Message::Binary(Bytes::copy_from_slice(bytes)))
    }

    fn four(packets: impl IntoIterator<Item = Packet>) -> Bytes {
        match encode(packets.into_iter().collect(), Encoding::Four) {
            Body::Text(body) => body,
            Body::Octets(_) => panic!("revision 4 knows no binary bodies"),
        }
    }

    fn read(body: &[u8]) -> Vec<Result<Packet, PacketError>> {
        Packets::of(Bytes::copy_from_slice(body), Revision::Four, false).collect()
    }

    #[test]
    fn bodies_are_packets() {
        type Read = Vec<Result<Packet, PacketError>>;
        let table: &[(&[u8], Read)] = &[
            (b"4hello", vec![Ok(text("hello"))]),
            (b"4a\x1e4b", vec![Ok(text("a")), Ok(text("b"))]),
            (
                b"4hello\x1ebAQIDBA==",
                vec![Ok(text("hello")), Ok(binary(&[1, 2, 3, 4]))],
            ),
            ("4é\x1e4€".as_bytes(), vec![Ok(text("é")), Ok(text("€"))]),
            (b"6\x1e1", vec![Ok(Packet::Noop), Ok(Packet::Close)]),
            (b"", vec![Err(PacketError::Empty)]),
            (b"4a\x1e", vec![Ok(text("a")), Err(PacketError::Empty)]),
            (b"\x1e4a", vec![Err(PacketError::Empty), Ok(text("a"))]),
            (
                b"4a\x1eabc\x1e4b",
                vec![Ok(text("a")), Err(PacketError::UnknownType), Ok(text("b"))],
            ),
            (
                b"4\xc3\x1e\xa9",
                vec![Err(PacketError::Utf8), Err(PacketError::Utf8)],
            ),
            (b"4\xff", vec![Err(PacketError::Utf8)]),
        ];
        for (body, expected) in table {
            assert_eq!(&read(body), expected, "{body:?}");
        }
    }

    #[test]
    fn packets_are_bodies() {
        assert_eq!(
            four([text("hello"), binary(&[1, 2, 3, 4])]),
            "4hello\x1ebAQIDBA=="
        );
        assert_eq!(four([Packet::Ping { probe: false }]), "2");
        assert_eq!(four([Packet::Noop, Packet::Close]), "6\x1e1");
        assert_eq!(
            four([text("a\x1e1")]),
            "4a\x1f1",
            "a separator inside a text must not make a packet"
        );
    }

    #[test]
    fn an_answer_holds_sixteen_packets_and_the_payload_limit() {
        let small: Vec<_> = (0..40).map(|_| text("x")).collect();
        assert_eq!(fitting(small.iter(), Encoding::Four, 1000), 16);
        assert_eq!(
            fitting(small.iter(), Encoding::Four, 8),
            3,
            "2 + 3 + 3 bytes"
        );
        assert_eq!(fitting(small.iter(), Encoding::Four, 7), 2);
        let large = [text(&"x".repeat(100)), text("y")];
        assert_eq!(
            fitting(large.iter(), Encoding::Four, 10),
            1,
            "a packet over the limit goes alone"
        );
        assert_eq!(fitting([].iter(), Encoding::Four, 10), 0);
    }

    fn packets() -> impl Strategy<Value = Vec<Packet>> {
        let packet = prop_oneof![
            any::<String>().prop_map(|content| text(&content.replace('\x1e', ""))),
            proptest::collection::vec(any::<u8>(), 0..50).prop_map(|content| binary(&content)),
            Just(Packet::Noop),
            Just(Packet::Close),
            any::<bool>().prop_map(|probe| Packet::Ping { probe }),
        ];
        proptest::collection::vec(packet, 1..30)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_measured(packets in packets()) {
            let body = four(packets.clone());
            let measured = packets.iter().map(encoded_len).sum::<usize>() + packets.len() - 1;
            prop_assert_eq!(body.len(), measured);
            prop_assert_eq!(Packets::of(body, Revision::Four, false).collect::<Result<Vec<_>, _>>(), Ok(packets));
        }

        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let count = body.iter().filter(|byte| **byte == SEPARATOR).count() + 1;
            prop_assert_eq!(read(&body).len(), count);
        }

        #[test]
        fn what_fits_stays_within_the_limits(packets in packets(), max in 0usize..300) {
            let count = fitting(packets.iter(), Encoding::Four, max);
            let body = four(packets.into_iter().take(count));
            prop_assert!(count == 1 || (count <= MAX_PACKETS && body.len() <= max));
        }
    }
}
