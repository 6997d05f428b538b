//! WebSocket: the stream behind hyper's upgrade, frames in and out, the closing handshake.
//!
//! A connection is kept small: hyper's task is gone, and what is read goes through the stack, so
//! that an idle connection has no buffer. Extensions are not offered, so there is no compression
//! whose memory a stranger could blow up.
//!
//! Frames are gathered in one buffer, so that all messages that are given together go out in one
//! write, and the buffer is freed when they are out. A long message goes out in fragments, between
//! which pongs get through.

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::coop;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::admission::Admission;
use super::budget::{ByteBudget, ByteShare, UNCOUNTED};
use super::frames::{FrameReader, Received};
use super::packet::Frame;
use super::session::{SocketEnd, WRITE_SIZE};

/// Bytes read at once.
const READ_SIZE: usize = 4096;
/// Bytes that wait to be written, above which pongs wait; only the latest does.
const MAX_WAITING: usize = WRITE_SIZE + 1024;
/// Bytes that the buffer of what waits begins with, for two or three messages of usual length.
const FEW_MESSAGES: usize = 2048;
/// Bytes of our frames besides their data.
const MAX_HEADER: usize = 10;
/// Bytes of a client's control frame besides its data.
const CONTROL_HEADER: usize = 6;
/// Bytes on the wire that one message may take beyond `max_payload`: frames without data, or with
/// next to none, would otherwise never reach that limit and take room from others. A message of
/// full size may come in fragments of 128 bytes and more; a short one in any.
const FRAMING: usize = 64 << 10;
/// How long the closing handshake of a socket may take before it is dropped.
const CLOSING_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// A message on its way out.
struct Outgoing {
    rest: Bytes,
    opcode: Data,
}

impl Outgoing {
    fn of(frame: Frame) -> Self {
        match frame {
            Frame::Text(text) => Self {
                rest: text.into(),
                opcode: Data::Text,
            },
            Frame::Binary(rest) => Self {
                rest,
                opcode: Data::Binary,
            },
        }
    }

    /// The next fragment, and what is left behind it. Bytes are shared, not copied.
    fn next(mut self) -> (FrameHeader, Bytes, Option<Self>) {
        let mut header = FrameHeader {
            opcode: OpCode::Data(self.opcode),
            ..FrameHeader::default()
        };
        if self.rest.len() <= WRITE_SIZE {
            return (header, self.rest, None);
        }
        header.is_final = false;
        let fragment = self.rest.split_to(WRITE_SIZE);
        self.opcode = Data::Continue;
        (header, fragment, Some(self))
    }
}

/// Try again later.
const NO_ROOM: SocketEnd = SocketEnd::Failed(1013);

/// What happened on a socket.
pub(super) enum SocketEvent {
    Received(Frame),
    /// All that was given to `start` is out.
    Written,
    /// A part of it is.
    Progressed,
    Ended(SocketEnd),
}

/// How a socket ended by itself, as far as the closing handshake is concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    No,
    /// The client's close frame came; the code to answer with.
    ClosedByClient(Option<u16>),
    /// There is nobody left for a closing handshake.
    Dead,
}

/// One open WebSocket.
pub(super) struct WebSocket {
    stream: TokioIo<Upgraded>,
    /// Whole frames in order that the system has not taken yet.
    waiting: BytesMut,
    /// The stream may hold bytes that the system has not taken, as TLS does.
    unflushed: bool,
    writing: bool,
    /// What is left of a long message.
    outgoing: Option<Outgoing>,
    /// A pong that there was no room for.
    pong: Option<Bytes>,
    frames: FrameReader,
    /// What came of the message that is not whole yet.
    incoming: ByteShare,
    admission: Arc<Admission>,
    ended: Ended,
    /// That of the connection, if whoever serves it counts it so.
    _permit: Option<Arc<dyn Any + Send + Sync>>,
}

impl WebSocket {
    /// The WebSocket on a connection whose 101 is out. `permit` lives as long as it does.
    pub(super) fn open(
        upgraded: Upgraded,
        admission: Arc<Admission>,
        budget: Arc<ByteBudget>,
        permit: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Box<Self> {
        Box::new(Self {
            stream: TokioIo::new(upgraded),
            waiting: BytesMut::new(),
            unflushed: false,
            writing: false,
            outgoing: None,
            pong: None,
            frames: FrameReader::default(),
            incoming: ByteShare::new(budget),
            admission,
            ended: Ended::No,
            _permit: permit,
        })
    }

    /// Begins to write a message behind those given before; `poll` goes on with it. Nothing comes
    /// behind a message longer than [`WRITE_SIZE`] until it is out.
    pub(super) fn start(&mut self, frame: Frame) {
        self.writing = true;
        debug_assert!(self.outgoing.is_none(), "the session machine sees to it");
        self.put(Outgoing::of(frame));
    }

    /// Puts the next fragment behind what waits.
    fn put(&mut self, outgoing: Outgoing) {
        let (header, fragment, rest) = outgoing.next();
        self.outgoing = rest;
        self.put_frame(&header, &fragment);
    }

    fn put_frame(&mut self, header: &FrameHeader, data: &[u8]) {
        let waiting = &mut self.waiting;
        let needed = data.len() + MAX_HEADER;
        waiting.reserve(match waiting.capacity() {
            0 => needed.max(FEW_MESSAGES),
            _ => needed,
        });
        header
            .format(data.len() as u64, &mut waiting.writer())
            .expect("memory takes what is written to it");
        waiting.extend_from_slice(data);
    }

    fn put_pong(&mut self) {
        if self.waiting.len() <= MAX_WAITING
            && let Some(data) = self.pong.take()
        {
            self.put_control(Control::Pong, &data);
        }
    }

    fn put_control(&mut self, control: Control, data: &[u8]) {
        let header = FrameHeader {
            opcode: OpCode::Control(control),
            ..FrameHeader::default()
        };
        self.put_frame(&header, data);
    }

    /// The next event. Reading stops while `read` is false.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<SocketEvent> {
        if self.ended != Ended::No {
            return Poll::Pending;
        }
        if self.writing
            && let Poll::Ready(written) = self.poll_write(cx)
        {
            return Poll::Ready(match written {
                Ok(true) => SocketEvent::Written,
                Ok(false) => SocketEvent::Progressed,
                Err(_) => self.dead(),
            });
        }
        if !read {
            return Poll::Pending;
        }
        self.poll_read(cx).map(|received| match received {
            Ok(frame) => SocketEvent::Received(frame),
            Err(SocketEnd::Closed) if self.ended == Ended::No => self.dead(),
            Err(end) => SocketEvent::Ended(end),
        })
    }

    fn dead(&mut self) -> SocketEvent {
        self.ended = Ended::Dead;
        SocketEvent::Ended(SocketEnd::Closed)
    }

    /// `true`: all is out. `false`: one more fragment is.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        ready!(self.poll_out(cx))?;
        if let Some(outgoing) = self.outgoing.take() {
            self.put(outgoing);
            return Poll::Ready(Ok(false));
        }
        self.writing = false;
        Poll::Ready(Ok(true))
    }

    /// Gives the system all that waits.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            self.unflushed = true;
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.waiting.advance(count),
            }
        }
        self.waiting = BytesMut::new();
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// The next message. Pings are answered.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, SocketEnd>> {
        loop {
            // A read has room for hundreds of frames; each of them counts as a step of this task.
            let step = ready!(coop::poll_proceed(cx));
            let Some(received) = self.frames.next(self.admission.max_payload())? else {
                drop(step);
                self.put_pong();
                if (self.unflushed || !self.waiting.is_empty())
                    && let Poll::Ready(Err(_)) = self.poll_out(cx)
                {
                    return Poll::Ready(Err(SocketEnd::Closed));
                }
                ready!(self.poll_in(cx))?;
                continue;
            };
            step.made_progress();
            match received {
                Received::Message(frame) => return Poll::Ready(self.charged(frame)),
                Received::Pong(data) => self.incoming.shrink(CONTROL_HEADER + data.len()),
                Received::Ping(data) => {
                    self.incoming.shrink(CONTROL_HEADER + data.len());
                    self.pong = Some(data);
                }
                Received::Close(answer) => {
                    self.ended = Ended::ClosedByClient(answer);
                    return Poll::Ready(Err(SocketEnd::Closed));
                }
            }
        }
    }

    /// Reads some bytes.
    fn poll_in(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketEnd>> {
        // Before reading, because then all that was seen is of this one message; behind its end the
        // next may follow in the same read.
        let most = match self.admission.is_held_small() {
            // The next byte would count.
            true => UNCOUNTED - 1,
            false => self.admission.max_payload().saturating_add(FRAMING),
        };
        if self.incoming.held() > most {
            return Poll::Ready(Err(SocketEnd::TooLarge));
        }
        // What is short is read without being counted, whatever follows it.
        let size = match UNCOUNTED.saturating_sub(self.incoming.held()) {
            0 => READ_SIZE,
            free => free.min(READ_SIZE),
        };
        let mut room = [MaybeUninit::uninit(); READ_SIZE];
        let mut read = ReadBuf::uninit(&mut room[..size]);
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read));
        let bytes = read.filled();
        if result.is_err() || bytes.is_empty() {
            return Poll::Ready(Err(SocketEnd::Closed));
        }
        if !self.incoming.try_grow(bytes.len()) {
            return Poll::Ready(Err(NO_ROOM));
        }
        self.frames.push(bytes);
        Poll::Ready(Ok(()))
    }

    /// The message takes along what it holds of the budget.
    fn charged(&mut self, frame: Frame) -> Result<Frame, SocketEnd> {
        Ok(match frame {
            Frame::Binary(bytes) => Frame::Binary(self.incoming.charge_until_dropped(bytes)),
            Frame::Text(text) => {
                let bytes = self.incoming.charge_until_dropped(text.into());
                Frame::Text(Utf8Bytes::try_from(bytes).map_err(|_| SocketEnd::Failed(1007))?)
            }
        })
    }

    /// Sends the close frame and drops the connection, in [`CLOSING_HANDSHAKE_TIMEOUT`] at most.
    /// What the client still sends is read and thrown away: closing a TCP connection with unread
    /// bytes resets it, and the client would not see our last frames.
    pub(super) async fn close_gracefully(mut self: Box<Self>, code: Option<u16>) {
        let code = match self.ended {
            Ended::No => code,
            Ended::ClosedByClient(answer) => answer,
            Ended::Dead => return,
        };
        self.put_pong();
        let code = code.map(u16::to_be_bytes);
        self.put_control(Control::Close, code.as_ref().map_or(&[], |code| &code[..]));
        // The unfinished message gives its share of the budget back; what is thrown away costs
        // nothing.
        self.frames = FrameReader::default();
        self.incoming.shrink(usize::MAX);
        let _ = timeout(CLOSING_HANDSHAKE_TIMEOUT, async move {
            poll_fn(|cx| self.poll_out(cx)).await?;
            self.stream.shutdown().await?;
            let mut discarded = [0; 512];
            while self.stream.read(&mut discarded).await? > 0 {}
            io::Result::Ok(())
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_goes_out_in_fragments() {
        let text = "x".repeat(WRITE_SIZE * 2 + 1);
        let mut parts = Vec::new();
        let mut next = Some(Outgoing::of(Frame::Text(text.as_str().into())));
        while let Some(outgoing) = next {
            let (header, fragment, rest) = outgoing.next();
            parts.push((header.opcode, header.is_final, fragment.len()));
            next = rest;
        }
        let (text, more) = (OpCode::Data(Data::Text), OpCode::Data(Data::Continue));
        assert_eq!(
            parts,
            [
                (text, false, WRITE_SIZE),
                (more, false, WRITE_SIZE),
                (more, true, 1)
            ]
        );
        let (header, _, rest) = Outgoing::of(Frame::Binary(Bytes::new())).next();
        assert!(
            header.is_final && rest.is_none(),
            "an empty message is one frame"
        );
    }
}
