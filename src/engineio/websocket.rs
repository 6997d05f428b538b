//! WebSocket: the stream behind hyper's upgrade, frames in and out, the closing handshake.
//!
//! A connection is kept small: the TCP stream is taken back out of hyper (its wrapper and task are
//! gone then), and the read buffer is half a KiB instead of tungstenite's 128. Extensions are not
//! offered, so there is no compression whose memory a stranger could blow up.
//!
//! Frames are gathered in one buffer, so that all messages that are given together go out in one
//! write, and the buffer is freed when they are out: tungstenite's own would keep the largest size
//! that it ever had. A long message goes out in fragments, between which pongs get through.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, Stream as _};
use hyper::http::Extensions;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, FrameHeader};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::budget::{ByteBudget, ByteShare};
use super::packet::Frame;
use super::session::{SocketEnd, WRITE_SIZE};

/// Bytes read at once, and the memory an idle connection holds for reading.
const READ_BUFFER: usize = 512;
/// Bytes that wait to be written, above which tungstenite's pongs wait in its own buffer.
const MAX_WAITING: usize = WRITE_SIZE + 1024;
/// Bytes that the buffer of what waits begins with, for two or three messages of usual length.
const FEW_MESSAGES: usize = 2048;
/// Bytes of our frames besides their data.
const MAX_HEADER: usize = 10;
/// Bytes of tungstenite's own buffer, for pongs and the close frame.
const CONTROL_BUFFER: usize = 1024;
/// Bytes of a client's control frame besides its data.
const CONTROL_HEADER: usize = 6;
/// Bytes on the wire that one message may take beyond `max_payload`: frames without data, or with
/// next to none, would otherwise never reach that limit and take room from others. A message of
/// full size may come in fragments of 128 bytes and more; a short one in any.
const FRAMING: usize = 64 << 10;
/// How long the closing handshake of a socket may take before it is dropped.
const CLOSING_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// The byte stream below a WebSocket, with what came of the message that is not whole yet.
struct Io {
    stream: Stream,
    /// Whole frames in order that the system has not taken yet.
    waiting: BytesMut,
    incoming: ByteShare,
    /// Bytes on the wire of one message.
    max_raw: usize,
}

enum Stream {
    Tcp(TcpStream),
    /// Another stream than `TokioIo<TcpStream>` was served; it stays wrapped.
    Wrapped(Box<TokioIo<Upgraded>>),
}

impl Stream {
    /// The stream, and what hyper read of it already.
    fn of(upgraded: Upgraded) -> (Self, Bytes) {
        match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => (Self::Tcp(parts.io.into_inner()), parts.read_buf),
            Err(upgraded) => (
                Self::Wrapped(Box::new(TokioIo::new(upgraded))),
                Bytes::new(),
            ),
        }
    }
}

impl Io {
    /// Gives the system all that waits.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.waiting.advance(count),
            }
        }
        self.waiting = BytesMut::new();
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl AsyncRead for Io {
    /// `OutOfMemory`: there is no room for the message. `FileTooLarge`: it takes too much on the
    /// wire.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self {
            stream,
            incoming,
            max_raw,
            ..
        } = self.get_mut();
        // Before reading, because then all that was seen is of this one message; behind its end the
        // next may follow in the same read.
        if incoming.held() > *max_raw {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buf))?;
        let fits = incoming.try_grow(buf.filled().len() - before);
        Poll::Ready(if fits {
            Ok(())
        } else {
            Err(io::ErrorKind::OutOfMemory.into())
        })
    }
}

/// What tungstenite writes: control frames, each at once and whole.
impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        if io.waiting.len() > MAX_WAITING {
            ready!(io.poll_out(cx))?;
        }
        io.waiting.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_out(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Wrapped(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Wrapped(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Wrapped(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Wrapped(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

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
    /// The client's close frame came; tungstenite has the reply ready.
    ClosedByClient,
    /// There is nobody left for a closing handshake.
    Dead,
}

/// One open WebSocket.
pub(super) struct WebSocket {
    stream: WebSocketStream<Io>,
    writing: bool,
    /// What is left of a long message.
    outgoing: Option<Outgoing>,
    ended: Ended,
    /// The extensions of the request that opened it: whoever serves the connection may have put
    /// something there that counts it.
    _kept: Extensions,
}

impl WebSocket {
    /// The WebSocket on a connection whose 101 is out. `kept` lives as long as it does.
    pub(super) async fn open(
        upgraded: Upgraded,
        max_payload: usize,
        budget: Arc<ByteBudget>,
        kept: Extensions,
    ) -> Box<Self> {
        let (stream, read) = Stream::of(upgraded);
        let io = Io {
            stream,
            waiting: BytesMut::new(),
            incoming: ByteShare::new(budget),
            max_raw: max_payload.saturating_add(FRAMING),
        };
        // The whole message counts, its type digit too.
        let limit = Some(max_payload);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(CONTROL_BUFFER)
            .max_message_size(limit)
            .max_frame_size(limit);
        let stream =
            WebSocketStream::from_partially_read(io, read.to_vec(), Role::Server, Some(config))
                .await;
        Box::new(Self {
            stream,
            writing: false,
            outgoing: None,
            ended: Ended::No,
            _kept: kept,
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
        let waiting = &mut self.stream.get_mut().waiting;
        let needed = fragment.len() + MAX_HEADER;
        waiting.reserve(match waiting.capacity() {
            0 => needed.max(FEW_MESSAGES),
            _ => needed,
        });
        header
            .format(fragment.len() as u64, &mut waiting.writer())
            .expect("memory takes what is written to it");
        waiting.extend_from_slice(&fragment);
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
                Err(error) => SocketEvent::Ended(self.end(&error)),
            });
        }
        if read {
            self.poll_read(cx)
        } else {
            Poll::Pending
        }
    }

    /// `true`: all is out. `false`: one more fragment is.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        ready!(self.stream.get_mut().poll_out(cx))?;
        if let Some(outgoing) = self.outgoing.take() {
            self.put(outgoing);
            return Poll::Ready(Ok(false));
        }
        self.writing = false;
        Poll::Ready(Ok(true))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<SocketEvent> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(Message::Text(text))) => {
                    let carried = self
                        .stream
                        .get_mut()
                        .incoming
                        .charge_until_dropped(text.into());
                    match Utf8Bytes::try_from(carried) {
                        Ok(text) => SocketEvent::Received(Frame::Text(text)),
                        Err(_) => SocketEvent::Ended(SocketEnd::Failed(1007)),
                    }
                }
                Some(Ok(Message::Binary(bytes))) => SocketEvent::Received(Frame::Binary(
                    self.stream.get_mut().incoming.charge_until_dropped(bytes),
                )),
                // tungstenite answers pings.
                Some(Ok(Message::Ping(data) | Message::Pong(data))) => {
                    self.stream
                        .get_mut()
                        .incoming
                        .shrink(CONTROL_HEADER + data.len());
                    continue;
                }
                Some(Ok(Message::Frame(_))) => continue,
                Some(Ok(Message::Close(_))) => {
                    self.ended = Ended::ClosedByClient;
                    SocketEvent::Ended(SocketEnd::Closed)
                }
                Some(Err(error)) => SocketEvent::Ended(self.end(&error)),
                None => {
                    self.ended = Ended::Dead;
                    SocketEvent::Ended(SocketEnd::Closed)
                }
            });
        }
    }

    fn end(&mut self, error: &Error) -> SocketEnd {
        match error {
            Error::Capacity(_) => SocketEnd::TooLarge,
            Error::Utf8(_) => SocketEnd::Failed(1007),
            Error::Io(error) if error.kind() == io::ErrorKind::OutOfMemory => NO_ROOM,
            Error::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => SocketEnd::TooLarge,
            Error::Protocol(
                tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )
            | Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Io(_) => {
                self.ended = Ended::Dead;
                SocketEnd::Closed
            }
            _ => SocketEnd::Failed(1002),
        }
    }

    /// Sends the close frame and drops the connection, in [`CLOSING_HANDSHAKE_TIMEOUT`] at most.
    /// What the client still sends is read and thrown away: closing a TCP connection with unread
    /// bytes resets it, and the client would not see our last frames.
    pub(super) async fn close_gracefully(mut self: Box<Self>, code: Option<u16>) {
        if self.ended == Ended::Dead {
            return;
        }
        let _ = timeout(CLOSING_HANDSHAKE_TIMEOUT, async move {
            if self.ended == Ended::No {
                let frame = code.map(|code| CloseFrame {
                    code: code.into(),
                    reason: Utf8Bytes::default(),
                });
                self.stream.send(Message::Close(frame)).await.ok();
            } else {
                self.stream.flush().await.ok();
            }
            let mut io = self.stream.into_inner();
            // tungstenite does not flush its answer to the client's close frame.
            poll_fn(|cx| io.poll_out(cx)).await.ok();
            // The unfinished message is dropped here and gives its share of the budget back; what
            // is thrown away costs nothing.
            let Io {
                mut stream,
                incoming,
                ..
            } = io;
            drop(incoming);
            stream.shutdown().await.ok();
            let mut discarded = [0; READ_BUFFER];
            while stream
                .read(&mut discarded)
                .await
                .is_ok_and(|count| count > 0)
            {}
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
