//! The least that a server can do: one thread, no session, one write call a socket and payment.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc::TryRecvError;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::ws;

const LISTENER: Token = Token(usize::MAX);
const ORDERS: Token = Token(usize::MAX - 1);

struct Connection {
    stream: TcpStream,
    inbox: Vec<u8>,
    unsent: Vec<u8>,
    is_upgraded: bool,
}

pub fn run() -> io::Result<()> {
    let mut poll = Poll::new()?;
    let orders = crate::orders(&poll, ORDERS)?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("{}", listener.local_addr()?.port());
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    loop {
        if let Err(error) = poll.poll(&mut events, None)
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error);
        }
        for event in &events {
            match event.token() {
                LISTENER => accept(&listener, &poll, &mut connections)?,
                ORDERS => loop {
                    match orders.try_recv() {
                        Ok(line) => broadcast(&line, &mut connections)?,
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => return Ok(()),
                    }
                },
                Token(at) => {
                    let slot = &mut connections[at];
                    if slot
                        .as_mut()
                        .is_some_and(|connection| connection.serve().is_err())
                    {
                        *slot = None;
                    }
                }
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nodelay(true)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut stream, Token(connections.len()), both)?;
        let (inbox, unsent) = (Vec::new(), Vec::new());
        connections.push(Some(Connection {
            stream,
            inbox,
            unsent,
            is_upgraded: false,
        }));
    }
}

/// Writes all packets of a payment to each client at once.
fn broadcast(line: &str, connections: &mut [Option<Connection>]) -> io::Result<()> {
    let texts: Vec<String> = serde_json::from_str(line)?;
    let mut bytes = Vec::new();
    for text in &texts {
        ws::frame(ws::TEXT, text.as_bytes(), false, &mut bytes);
    }
    for slot in connections {
        if slot
            .as_mut()
            .is_some_and(|connection| connection.send(&bytes).is_err())
        {
            *slot = None;
        }
    }
    Ok(())
}

impl Connection {
    /// Reads and answers what there is, and sends what waits.
    fn serve(&mut self) -> io::Result<()> {
        self.send(&[])?;
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.inbox.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let mut answer = Vec::new();
        let mut inbox = std::mem::take(&mut self.inbox);
        if !self.is_upgraded
            && let Some(end) = ws::head(&inbox)
        {
            inbox.drain(..end);
            self.is_upgraded = true;
            answer.extend_from_slice(ws::UPGRADED.as_bytes());
            let open = br#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
            ws::frame(ws::TEXT, open, false, &mut answer);
        }
        while self.is_upgraded
            && let Some((_, payload)) = ws::parse(&inbox)
        {
            let text = &inbox[payload.clone()];
            if text == b"40" {
                ws::frame(ws::TEXT, br#"40{"sid":"x"}"#, false, &mut answer);
                ws::frame(ws::TEXT, br#"42["connected",{}]"#, false, &mut answer);
            } else if text.starts_with(b"42[") {
                ws::frame(ws::TEXT, br#"42["subscribed",{}]"#, false, &mut answer);
            }
            inbox.drain(..payload.end);
        }
        if !inbox.is_empty() {
            self.inbox = inbox;
        }
        if answer.is_empty() {
            Ok(())
        } else {
            self.send(&answer)
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            let count = self.write_some(&self.unsent)?;
            self.unsent.drain(..count);
        } else if !bytes.is_empty() {
            let count = self.write_some(bytes)?;
            self.unsent.extend_from_slice(&bytes[count..]);
        }
        Ok(())
    }

    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        match (&self.stream).write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }
}
