//! WebSocket frames that no good client sends, and the order in which a request is looked at.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures_util::SinkExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::engineio_rig::{Server, serve, settle};

fn frame(opcode: Data, data: &[u8], last: bool) -> Frame {
    Frame::message(data.to_vec(), OpCode::Data(opcode), last)
}

#[tokio::test]
async fn fragments_are_one_message() {
    let server = Server::start(|_| {}).await;
    let mut socket = server.open_websocket().await;
    // In the middle of a character, with an empty one and a ping between.
    for (opcode, data, last) in [
        (Data::Text, &b"4h\xc3"[..], false),
        (Data::Continue, b"", false),
        (Data::Continue, b"\xa9!", true),
    ] {
        socket
            .0
            .send(Message::Frame(frame(opcode, data, last)))
            .await
            .expect("the server reads");
        if !last {
            socket
                .0
                .send(Message::Ping(vec![1].into()))
                .await
                .expect("the server reads");
            assert_eq!(socket.next().await, Message::Pong(vec![1].into()));
        }
    }
    assert_eq!(socket.text().await, "4hé!");
}

#[tokio::test]
async fn fragments_count_together() {
    let server = Server::start(|_| {}).await;
    let mut socket = server.open_websocket().await;
    let part = [b'4'; 400];
    for opcode in [Data::Text, Data::Continue, Data::Continue] {
        socket
            .0
            .send(Message::Frame(frame(opcode, &part, false)))
            .await
            .expect("the server reads");
    }
    assert_eq!(socket.closed().await, Some(1009));
    server.echo().wait_for("close transport error").await;
}

#[tokio::test]
async fn frames_that_break_the_protocol_end_their_session_only() {
    let server = Server::start(|_| {}).await;
    let mut other = server.open_websocket().await;
    let reserved_bit = {
        let mut frame = frame(Data::Text, b"4a", true);
        frame.header_mut().rsv1 = true;
        frame
    };
    let table = [
        (reserved_bit, 1002),
        (frame(Data::Continue, b"4a", true), 1002),
        (frame(Data::Reserved(5), b"4a", true), 1002),
        (frame(Data::Text, b"4\xff", true), 1007),
    ];
    for (frame, code) in table {
        let shown = format!("{frame:?}");
        let mut socket = server.open_websocket().await;
        socket
            .0
            .send(Message::Frame(frame))
            .await
            .expect("the server reads");
        assert_eq!(socket.closed().await, Some(code), "{shown}");
    }
    other.send("4a").await;
    assert_eq!(other.text().await, "4a");
}

#[tokio::test]
async fn connection_that_breaks_ends_its_session() {
    let server = Server::start(|_| {}).await;
    drop(server.open_websocket().await);
    server.echo().wait_for("close transport close").await;
    assert_eq!(server.service.session_count(), 0);
}

#[tokio::test]
async fn request_is_looked_at_in_the_reference_servers_order() {
    let server = Server::start(|_| {}).await;
    // Each line has what the lines below it have, and one more thing wrong.
    let table = [
        ("PUT", "EIO=5&transport=x&sid=nope", 0),
        ("PUT", "EIO=5&transport=websocket&sid=nope", 1),
        ("PUT", "EIO=5&transport=websocket", 2),
        ("GET", "EIO=5&transport=websocket", 3),
        ("GET", "EIO=5&transport=polling", 5),
    ];
    for (method, query, code) in table {
        let answer = server.http(method, query, "").await;
        assert!(
            answer.body.starts_with(&format!(r#"{{"code":{code},"#)),
            "{method} {query}: {answer:?}"
        );
    }
}

/// A stream that takes bytes and passes them on when it is flushed, as TLS does, unless its gate
/// is shut.
struct Holding {
    line: DuplexStream,
    held: Vec<u8>,
    gate: Arc<Mutex<Gate>>,
}

#[derive(Default)]
struct Gate {
    is_shut: bool,
    waiting: Option<Waker>,
}

impl AsyncRead for Holding {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Holding {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut gate = this.gate.lock().expect("no test panics under this lock");
        if gate.is_shut {
            gate.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        while !this.held.is_empty() {
            match Pin::new(&mut this.line).poll_write(cx, &this.held) {
                Poll::Ready(Ok(count)) => drop(this.held.drain(..count)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_pong_that_the_stream_holds_goes_out_when_the_stream_can() {
    let server = Server::in_memory(|_| {});
    let (mut client, line) = tokio::io::duplex(64 << 10);
    let gate = Arc::new(Mutex::new(Gate::default()));
    let stream = Holding {
        line,
        held: Vec::new(),
        gate: gate.clone(),
    };
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    tokio::spawn(serve(
        server.service.clone(),
        stream,
        peer,
        server.slot.clone(),
    ));
    let request = b"GET /engine.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
    client.write_all(request).await.expect("it reads");
    let mut text = Vec::new();
    while !text.ends_with(b"}") {
        client.read_buf(&mut text).await.expect("it answers");
    }
    gate.lock().expect("no test panics under this lock").is_shut = true;
    // A ping without data, masked with zeros.
    client
        .write_all(&[0x89, 0x80, 0, 0, 0, 0])
        .await
        .expect("it reads");
    settle().await;
    let waiting = {
        let mut gate = gate.lock().expect("no test panics under this lock");
        gate.is_shut = false;
        gate.waiting.take()
    };
    waiting.expect("the pong is to be flushed").wake();
    settle().await;
    let mut pong = [0; 2];
    let read = futures_util::FutureExt::now_or_never(client.read_exact(&mut pong));
    assert!(matches!(read, Some(Ok(_))), "the pong is out: {read:?}");
    assert_eq!(pong, [0x8a, 0]);
}
