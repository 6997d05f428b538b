//! A client's WebSocket frames (RFC 6455, 5.2 to 5.5) to messages. Pure: bytes go in, and what they
//! say comes out. An idle connection has no memory here.

use std::io::Cursor;

use bytes::{Buf, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::packet::Frame;
use super::session::SocketEnd;

/// The client broke the protocol.
const BROKEN: SocketEnd = SocketEnd::Failed(1002);
/// Text that is not UTF-8.
const NOT_UTF8: SocketEnd = SocketEnd::Failed(1007);
/// Bytes of a control frame's data.
const MAX_CONTROL: usize = 125;

/// A frame of more bytes shares its room with nothing behind it.
const LARGE: usize = 4096;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    Message(Frame),
    Ping(Bytes),
    Pong(Bytes),
    /// It closes; the code to answer with.
    Close(Option<u16>),
}

#[derive(Debug, Default)]
pub(super) struct FrameReader {
    /// What was not looked at yet.
    bytes: BytesMut,
    /// Of the frame whose data has not all come, with the length of that.
    header: Option<(FrameHeader, usize)>,
    /// What came of a message in fragments.
    begun: Option<(Data, BytesMut)>,
}

impl FrameReader {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What comes next, if all of it is here. `max`: bytes of one message. Behind an error nothing
    /// means anything.
    pub(super) fn next(&mut self, max: usize) -> Result<Option<Received>, SocketEnd> {
        loop {
            let header = match self.header.take() {
                None => self.next_header(max)?,
                header => header,
            };
            let Some((header, len)) = header else {
                return Ok(None);
            };
            if self.bytes.len() < len {
                self.header = Some((header, len));
                return Ok(None);
            }
            let mut data = self.bytes.split_to(len);
            if self.bytes.is_empty() {
                self.bytes = BytesMut::new();
            } else if len > LARGE {
                // What follows is less than one read, and must not keep the room of the message.
                self.bytes = BytesMut::from(&self.bytes[..]);
            }
            unmask(&mut data, header.mask.ok_or(BROKEN)?);
            let received = match header.opcode {
                OpCode::Control(control) => Some(control_frame(control, data.freeze())?),
                OpCode::Data(kind) => self.data_frame(kind, data, header.is_final)?,
            };
            if received.is_some() {
                return Ok(received);
            }
        }
    }

    fn next_header(&mut self, max: usize) -> Result<Option<(FrameHeader, usize)>, SocketEnd> {
        let mut cursor = Cursor::new(&self.bytes);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| BROKEN)?;
        let read = usize::try_from(cursor.position()).map_err(|_| BROKEN)?;
        let Some((header, len)) = parsed else {
            return Ok(None);
        };
        let is_minimal = read == header.len(len);
        self.bytes.advance(read);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > max {
            return Err(SocketEnd::TooLarge);
        }
        let has_reserved_bit = header.rsv1 || header.rsv2 || header.rsv3;
        let is_legal = match header.opcode {
            OpCode::Control(_) => header.is_final && len <= MAX_CONTROL,
            // A fragment continues what has begun, and nothing else comes in between.
            OpCode::Data(kind) => (kind == Data::Continue) == self.begun.is_some(),
        };
        if header.mask.is_none() || has_reserved_bit || !is_legal || !is_minimal {
            return Err(BROKEN);
        }
        let before = match (header.opcode, &self.begun) {
            (OpCode::Data(_), Some((_, begun))) => begun.len(),
            _ => 0,
        };
        if before.saturating_add(len) > max {
            return Err(SocketEnd::TooLarge);
        }
        Ok(Some((header, len)))
    }

    fn data_frame(
        &mut self,
        kind: Data,
        data: BytesMut,
        is_final: bool,
    ) -> Result<Option<Received>, SocketEnd> {
        let (kind, data) = match self.begun.take() {
            Some((kind, mut begun)) => {
                begun.extend_from_slice(&data);
                (kind, begun)
            }
            None => (kind, data),
        };
        if !is_final {
            self.begun = Some((kind, data));
            return Ok(None);
        }
        let data = data.freeze();
        let frame = match kind {
            Data::Text => Frame::Text(Utf8Bytes::try_from(data).map_err(|_| NOT_UTF8)?),
            Data::Binary => Frame::Binary(data),
            Data::Continue | Data::Reserved(_) => return Err(BROKEN),
        };
        Ok(Some(Received::Message(frame)))
    }
}

fn control_frame(control: Control, data: Bytes) -> Result<Received, SocketEnd> {
    match control {
        Control::Ping => Ok(Received::Ping(data)),
        Control::Pong => Ok(Received::Pong(data)),
        Control::Close => match (data.first_chunk(), data.get(2..)) {
            (Some(code), Some(reason)) => {
                str::from_utf8(reason).map_err(|_| NOT_UTF8)?;
                let code = CloseCode::from(u16::from_be_bytes(*code));
                let answer = if code.is_allowed() {
                    code
                } else {
                    CloseCode::Protocol
                };
                Ok(Received::Close(Some(answer.into())))
            }
            _ if data.is_empty() => Ok(Received::Close(None)),
            _ => Err(BROKEN),
        },
        Control::Reserved(_) => Err(BROKEN),
    }
}

fn unmask(data: &mut [u8], mask: [u8; 4]) {
    for part in data.chunks_mut(mask.len()) {
        part.iter_mut()
            .zip(mask)
            .for_each(|(byte, key)| *byte ^= key);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
    use tokio_tungstenite::tungstenite::{Error, Message};

    use super::*;

    const MAX: usize = 300;

    /// A masked frame; `first` is its first byte.
    fn frame(first: u8, data: &[u8]) -> Vec<u8> {
        let mask = [7, 0, 255, 1];
        let mut bytes = vec![first];
        match u8::try_from(data.len()) {
            Ok(len @ ..126) => bytes.push(0x80 | len),
            _ => {
                bytes.push(0x80 | 126);
                bytes.extend((data.len() as u16).to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(data.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
        bytes
    }

    /// What comes of the bytes, in parts of `part` bytes.
    fn read(bytes: &[u8], part: usize) -> (Vec<Received>, Option<SocketEnd>) {
        let (mut reader, mut all) = (FrameReader::default(), Vec::new());
        for part in bytes.chunks(part) {
            reader.push(part);
            loop {
                match reader.next(MAX) {
                    Ok(Some(received)) => all.push(received),
                    Ok(None) => break,
                    Err(end) => return (all, Some(end)),
                }
            }
        }
        (all, None)
    }

    /// The same by tungstenite.
    fn read_by_tungstenite(bytes: &[u8]) -> (Vec<Received>, Option<SocketEnd>) {
        struct Stream<'a>(&'a [u8]);
        impl io::Read for Stream<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                match self.0.is_empty() {
                    true => Err(io::ErrorKind::WouldBlock.into()),
                    false => self.0.read(buffer),
                }
            }
        }
        impl io::Write for Stream<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX))
            .max_frame_size(Some(MAX));
        let mut context = WebSocketContext::new(Role::Server, Some(config));
        let (mut stream, mut all) = (Stream(bytes), Vec::new());
        loop {
            all.push(match context.read(&mut stream) {
                Ok(Message::Text(text)) => Received::Message(Frame::Text(text)),
                Ok(Message::Binary(data)) => Received::Message(Frame::Binary(data)),
                Ok(Message::Ping(data)) => Received::Ping(data),
                Ok(Message::Pong(data)) => Received::Pong(data),
                Ok(Message::Close(frame)) => {
                    all.push(Received::Close(frame.map(|frame| frame.code.into())));
                    return (all, None);
                }
                Ok(Message::Frame(_)) => continue,
                Err(Error::Io(_)) => return (all, None),
                Err(Error::Capacity(_)) => return (all, Some(SocketEnd::TooLarge)),
                Err(Error::Utf8(_)) => return (all, Some(NOT_UTF8)),
                Err(_) => return (all, Some(BROKEN)),
            });
        }
    }

    #[test]
    fn frames_are_messages_however_their_bytes_come() {
        let bytes = [
            frame(0x81, b"4a"),
            frame(0x01, b"4\xc3"),
            frame(0x89, b"ping"),
            frame(0x00, b""),
            frame(0x80, b"\xa9"),
            frame(0x82, &[1; 200]),
            frame(0x8a, b""),
            frame(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        let expected = [
            Received::Message(Frame::Text("4a".into())),
            Received::Ping(Bytes::from_static(b"ping")),
            Received::Message(Frame::Text("4é".into())),
            Received::Message(Frame::Binary(vec![1; 200].into())),
            Received::Pong(Bytes::new()),
            Received::Close(Some(1000)),
        ];
        for part in [1, 2, 7, 64, bytes.len()] {
            let (received, end) = read(&bytes, part);
            assert_eq!((&received[..], end), (&expected[..], None), "{part}");
        }
    }

    #[test]
    fn frames_behind_a_large_message_do_not_keep_its_room() {
        let mut reader = FrameReader::default();
        let large = frame(0x82, &[1; 60_000]);
        for part in large.chunks(4096) {
            reader.push(part);
        }
        // The beginning of the next.
        reader.push(&[0x81]);
        assert!(reader.next(1 << 20).unwrap().is_some());
        assert_eq!(reader.next(1 << 20).unwrap(), None);
        assert!(
            reader.bytes.capacity() < 1000,
            "{}",
            reader.bytes.capacity()
        );
    }

    #[test]
    fn frames_that_break_the_protocol_are_refused() {
        let unmasked = vec![0x81, 0x02, b'4', b'a'];
        let longer_than_needed = vec![0x81, 0xfe, 0, 2, 0, 0, 0, 0, b'4', b'a'];
        let table = [
            (unmasked, BROKEN),
            (longer_than_needed, BROKEN),
            (frame(0xc1, b"4a"), BROKEN),
            (frame(0x80, b"4a"), BROKEN),
            (frame(0x85, b"4a"), BROKEN),
            (frame(0x8b, b""), BROKEN),
            (frame(0x09, b""), BROKEN),
            (frame(0x89, &[0; 126]), BROKEN),
            (frame(0x88, b"\x03"), BROKEN),
            ([frame(0x01, b"4"), frame(0x81, b"4")].concat(), BROKEN),
            (frame(0x81, b"\xff"), NOT_UTF8),
            (frame(0x88, b"\x03\xe8\xff"), NOT_UTF8),
            (frame(0x81, &[b'4'; MAX + 1]), SocketEnd::TooLarge),
            (
                [frame(0x01, &[b'4'; 200]), frame(0x80, &[b'4'; 200])].concat(),
                SocketEnd::TooLarge,
            ),
        ];
        for (bytes, end) in table {
            assert_eq!(read(&bytes, bytes.len()), (vec![], Some(end)), "{bytes:?}");
        }
        let answered = |data: &[u8]| read(&frame(0x88, data), 100).0;
        assert_eq!(answered(b"\x03\xec"), [Received::Close(Some(1002))]);
        assert_eq!(answered(b""), [Received::Close(None)]);
    }

    proptest! {
        /// One difference: text is looked at when it is whole, and not fragment by fragment.
        #[test]
        fn frames_are_read_as_tungstenite_reads_them(
            frames in prop::collection::vec(
                (
                    prop::sample::select(vec![0x01_u8, 0x02, 0x00, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a, 0x83, 0xc1, 0x09]),
                    prop_oneof![
                        prop::collection::vec(any::<u8>(), 0..4),
                        "[a-zé]{0,70}".prop_map(String::into_bytes),
                        (0..MAX + 2).prop_map(|len| vec![b'x'; len]),
                    ],
                ),
                0..8,
            ),
            part in 1_usize..400,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(first, data)| frame(*first, data)).collect();
            let (mut ours, mut end) = read(&bytes, part);
            let close = ours.iter().position(|it| matches!(it, Received::Close(_)));
            if let Some(place) = close {
                ours.truncate(place + 1);
                end = None;
            }
            let (theirs, their_end) = read_by_tungstenite(&bytes);
            if their_end != Some(NOT_UTF8) {
                prop_assert_eq!((ours, end), (theirs, their_end));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), part in 1_usize..20) {
            let _ = read(&bytes, part);
        }
    }
}
