//! A bare ZMQ subscriber (ZMTP 3.0, NULL): a thread that notes when the last message came.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// Microseconds from `epoch` to the last message of one of the topics, once it is there as a whole.
pub fn subscribe(port: u16, topics: &[&str], epoch: Instant) -> io::Result<Arc<AtomicU64>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut greeting = [0; 64];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[12..16].copy_from_slice(b"NULL");
    stream.write_all(&greeting)?;
    // What comes with the greeting can make libzmq close the connection.
    stream.read_exact(&mut greeting)?;
    stream.write_all(b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB")?;
    for topic in topics {
        stream.write_all(&[0, topic.len() as u8 + 1, 1])?;
        stream.write_all(topic.as_bytes())?;
    }
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let last = Arc::new(AtomicU64::new(0));
    let noted = last.clone();
    std::thread::spawn(move || {
        let mut body = Vec::new();
        while let Ok(flags) = frame(&mut reader, &mut body) {
            if flags & (MORE | COMMAND) == 0 {
                noted.store(epoch.elapsed().as_micros() as u64, Ordering::Release);
            }
        }
    });
    Ok(last)
}

fn frame(reader: &mut impl Read, body: &mut Vec<u8>) -> io::Result<u8> {
    let mut flags = [0; 1];
    reader.read_exact(&mut flags)?;
    let mut length = [0; 8];
    let begin = if flags[0] & LONG != 0 { 0 } else { 7 };
    reader.read_exact(&mut length[begin..])?;
    body.resize(u64::from_be_bytes(length) as usize, 0);
    reader.read_exact(body)?;
    Ok(flags[0])
}
