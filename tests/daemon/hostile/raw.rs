//! Bytes on a connection, as nobody who means well sends them.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::common::DEADLINE;

/// The head of the upgrade to a WebSocket.
pub const UPGRADE: &str = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    patient(stream)
}

pub fn patient(stream: TcpStream) -> TcpStream {
    let set = stream.set_read_timeout(Some(DEADLINE));
    set.and(stream.set_write_timeout(Some(DEADLINE)))
        .expect("a socket takes options");
    stream
}

/// Whether the other side took them.
pub fn send(mut stream: impl Write, bytes: impl AsRef<[u8]>) -> bool {
    stream.write_all(bytes.as_ref()).is_ok()
}

/// All that comes until the other side closes the connection, which it must.
pub fn rest(mut stream: impl Read) -> String {
    let mut all = Vec::new();
    let end = stream.read_to_end(&mut all);
    let text = String::from_utf8_lossy(&all).into_owned();
    if let Err(error) = end {
        let is_open = matches!(
            error.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        );
        assert!(!is_open, "the connection is still open; it said {text:?}");
    }
    text
}

/// What these bytes are answered with on a connection of their own.
pub fn exchange(port: u16, bytes: impl AsRef<[u8]>) -> String {
    let stream = connect(port);
    // A refusal may come before all is taken.
    send(&stream, bytes);
    rest(&stream)
}

/// What comes up to the end of a head, or of the connection.
pub fn head(mut stream: &TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
        head.extend(byte);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// The statuses of the answers on a connection.
pub fn statuses(text: &str) -> Vec<u16> {
    let answers = text.split("HTTP/1.").skip(1);
    // Behind the minor version.
    let codes = answers.filter_map(|answer| answer.get(2..5)?.parse().ok());
    codes.collect()
}

/// A masked frame of a client; the mask is zero.
pub fn frame(first: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    // The shortest form of the length: any other is refused, whatever the frame says.
    match u16::try_from(data.len()) {
        Ok(length) if length < 126 => frame.push(0x80 | length as u8),
        Ok(length) => {
            frame.push(0xfe);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0xff);
            frame.extend((data.len() as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(data);
    frame
}

/// A connection on which the WebSocket of a session is open.
pub fn websocket(port: u16) -> TcpStream {
    let stream = connect(port);
    assert!(send(&stream, UPGRADE));
    let head = head(&stream);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

/// The id of a polling session that was begun.
pub fn polling_session(port: u16) -> String {
    let answer = exchange(
        port,
        "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    let (_, rest) = answer.split_once("\"sid\":\"").expect("a session");
    rest.split('"').next().expect("an id").to_owned()
}
