//! Many Socket.IO clients in one thread, each subscribed to one address, all over WebSocket.
//!
//! Orders, each answered by a line of JSON:
//!
//! - `connect FILE`: one more client for each line, which is its address; answered once all are
//!   subscribed;
//! - `wait N`: answered once all clients together have had N events since the start, with
//!   `total`, `counts` (how many clients have how many events) and `zmq` (when the last message
//!   came);
//! - `times`: when each event came that has not been told in such a list, in microseconds of the
//!   same clock;
//! - `events N`: the texts of the events of the first address, without the first N.
//!
//! All clients of an address must have the same events, byte for byte and in the same order, and
//! their cursors must rise. What comes otherwise ends the program.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::net;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::json;

use crate::{ws, zmtp};

const ORDERS: Token = Token(usize::MAX);
/// Clients that connect at the same time.
const AT_ONCE: usize = 64;

struct Client {
    stream: TcpStream,
    /// The beginning of what is not there as a whole.
    inbox: Vec<u8>,
    is_upgraded: bool,
    is_subscribed: bool,
    address: usize,
    events: usize,
}

#[derive(Default)]
struct Address {
    name: String,
    events: Vec<Box<[u8]>>,
    cursor: u64,
}

struct Load {
    port: u16,
    poll: Poll,
    clients: Vec<Client>,
    addresses: Vec<Address>,
    numbers: HashMap<String, usize>,
    /// Addresses of clients still to connect, and how many are on their way.
    waiting: Vec<usize>,
    connecting: usize,
    epoch: Instant,
    zmq: Option<Arc<AtomicU64>>,
    total: usize,
    awaited: Option<usize>,
    times: Vec<u64>,
}

pub fn run(port: u16, zmq_port: Option<u16>) -> io::Result<()> {
    let (poll, epoch) = (Poll::new()?, Instant::now());
    let orders = crate::orders(&poll, ORDERS)?;
    let zmq = zmq_port
        .map(|port| zmtp::subscribe(port, &["rawtx", "rawblock"], epoch))
        .transpose()?;
    let mut load = Load {
        port,
        poll,
        clients: Vec::new(),
        addresses: Vec::new(),
        numbers: HashMap::new(),
        waiting: Vec::new(),
        connecting: 0,
        epoch,
        zmq,
        total: 0,
        awaited: None,
        times: Vec::new(),
    };
    let (mut events, mut chunk) = (Events::with_capacity(1024), vec![0; 1 << 18]);
    loop {
        if let Err(error) = load.poll.poll(&mut events, None)
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error);
        }
        for event in &events {
            match event.token() {
                ORDERS if !load.take(&orders)? => return Ok(()),
                ORDERS => {}
                Token(at) => load.read(at, &mut chunk)?,
            }
        }
        load.answer();
    }
}

impl Load {
    /// False at the end of the orders.
    fn take(&mut self, orders: &Receiver<String>) -> io::Result<bool> {
        loop {
            let line = match orders.try_recv() {
                Ok(line) => line,
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            };
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("connect", file) => {
                    for name in std::fs::read_to_string(file)?.lines() {
                        let number = self.number(name);
                        self.waiting.push(number);
                    }
                    self.connect()?;
                }
                ("wait", total) => self.awaited = Some(total.parse().map_err(io::Error::other)?),
                ("times", _) => println!("{}", json!(std::mem::take(&mut self.times))),
                ("events", from) => {
                    let from = from.parse().map_err(io::Error::other)?;
                    let address = self.addresses.first().map(|address| &address.events);
                    let texts = address.into_iter().flatten().skip(from);
                    let texts: Vec<_> = texts.map(|text| String::from_utf8_lossy(text)).collect();
                    println!("{}", json!(texts));
                }
                _ => return Err(io::Error::other(line)),
            }
        }
    }

    fn number(&mut self, name: &str) -> usize {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        self.addresses.push(Address {
            name: name.to_owned(),
            ..Address::default()
        });
        self.numbers
            .insert(name.to_owned(), self.addresses.len() - 1);
        self.addresses.len() - 1
    }

    fn connect(&mut self) -> io::Result<()> {
        while self.connecting < AT_ONCE
            && let Some(address) = self.waiting.pop()
        {
            let mut stream = net::TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_nodelay(true)?;
            stream.write_all(ws::upgrade(self.port).as_bytes())?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            let token = Token(self.clients.len());
            self.poll
                .registry()
                .register(&mut stream, token, Interest::READABLE)?;
            self.clients.push(Client {
                stream,
                inbox: Vec::new(),
                is_upgraded: false,
                is_subscribed: false,
                address,
                events: 0,
            });
            self.connecting += 1;
        }
        Ok(())
    }

    fn read(&mut self, at: usize, chunk: &mut [u8]) -> io::Result<()> {
        loop {
            let client = &mut self.clients[at];
            let begin = client.inbox.len();
            chunk[..begin].copy_from_slice(&client.inbox);
            client.inbox.clear();
            let count = match client.stream.read(&mut chunk[begin..]) {
                Ok(0) => return Err(io::Error::other(format!("the server closed client {at}"))),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            let bytes = &chunk[..begin + count];
            let used = self.take_in(at, bytes)?;
            self.clients[at].inbox.extend_from_slice(&bytes[used..]);
            // A short read of a stream says that it is empty.
            if count < chunk.len() - begin {
                return Ok(());
            }
        }
    }

    /// How much of it was whole.
    fn take_in(&mut self, at: usize, bytes: &[u8]) -> io::Result<usize> {
        let mut used = 0;
        if !self.clients[at].is_upgraded {
            let Some(end) = ws::head(bytes) else {
                return Ok(0);
            };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                return Err(refused(&bytes[..end]));
            }
            self.clients[at].is_upgraded = true;
            used = end;
        }
        while let Some((opcode, payload)) = ws::parse(&bytes[used..]) {
            let text = &bytes[used..][payload.clone()];
            match opcode {
                ws::TEXT => self.packet(at, text)?,
                ws::PING => self.send(at, ws::PONG, text)?,
                _ => return Err(refused(text)),
            }
            used += payload.end;
        }
        Ok(used)
    }

    fn packet(&mut self, at: usize, text: &[u8]) -> io::Result<()> {
        let event = text.strip_prefix(b"42[\"").unwrap_or_default();
        let is = |name: &str| event.starts_with(name.as_bytes());
        match text {
            b"2" => self.send(at, ws::TEXT, b"3"),
            [b'0', ..] => self.send(at, ws::TEXT, b"40"),
            [b'4', b'0', ..] => Ok(()),
            _ if is("connected\"") => {
                let name = &self.addresses[self.clients[at].address].name;
                let wish = format!("42{}", json!(["subscribe_address", { "address": name }]));
                self.send(at, ws::TEXT, wish.as_bytes())
            }
            _ if is("subscribed\"") => {
                if std::mem::replace(&mut self.clients[at].is_subscribed, true) {
                    return Err(refused(text));
                }
                self.connecting -= 1;
                self.connect()?;
                if self.connecting == 0 {
                    println!("{}", json!({ "clients": self.clients.len() }));
                }
                Ok(())
            }
            _ if is("lagged\"") || is("caught_up\"") => Ok(()),
            _ if event.is_empty() || is("error\"") => Err(refused(text)),
            _ => self.event(at, text),
        }
    }

    fn event(&mut self, at: usize, text: &[u8]) -> io::Result<()> {
        let client = &mut self.clients[at];
        let address = &mut self.addresses[client.address];
        match address.events.get(client.events) {
            Some(known) if **known == *text => {}
            Some(_) => return Err(refused(text)),
            None => {
                let cursor = cursor(text).filter(|&cursor| cursor > address.cursor);
                address.cursor = cursor.ok_or_else(|| refused(text))?;
                address.events.push(text.into());
            }
        }
        client.events += 1;
        self.total += 1;
        self.times.push(self.epoch.elapsed().as_micros() as u64);
        Ok(())
    }

    fn answer(&mut self) {
        if self.awaited.is_none_or(|awaited| self.total < awaited) {
            return;
        }
        self.awaited = None;
        let mut counts = BTreeMap::new();
        for client in &self.clients {
            *counts.entry(client.events.to_string()).or_insert(0) += 1;
        }
        let zmq = self.zmq.as_ref().map(|last| last.load(Ordering::Acquire));
        println!(
            "{}",
            json!({ "total": self.total, "zmq": zmq, "counts": counts })
        );
    }

    fn send(&mut self, at: usize, opcode: u8, text: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::new();
        ws::frame(opcode, text, true, &mut bytes);
        self.clients[at].stream.write_all(&bytes)
    }
}

fn refused(text: &[u8]) -> io::Error {
    io::Error::other(format!("unexpected: {}", String::from_utf8_lossy(text)))
}

/// The number in the event's cursor.
fn cursor(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, rest) = text.rsplit_once("\"cursor\":\"")?;
    rest.split('"').next()?.rsplit_once('-')?.1.parse().ok()
}
