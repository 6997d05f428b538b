//! A Socket.IO client over one WebSocket, as small as can be: what it hears is kept in order,
//! whole, for the test to look at.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{DEADLINE, Daemon};

/// A connected client; a thread reads for it.
pub struct Client {
    heard: Arc<Heard>,
    writer: Arc<Mutex<WebSocket<TcpStream>>>,
    socket: TcpStream,
    reader: Option<JoinHandle<()>>,
    next_ack: Mutex<u64>,
}

#[derive(Default)]
struct Heard {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    events: Vec<(String, Value)>,
    acks: Vec<(u64, Value)>,
    malformed: Option<String>,
    joined: bool,
    closed: bool,
}

/// A connection on which the Engine.IO WebSocket is open.
pub fn open_websocket(daemon: &Daemon) -> TcpStream {
    open_websocket_at(daemon.port(), &format!("127.0.0.1:{}", daemon.port()))
}

/// The same at a port of this machine, which may be a proxy's, under the name of `host`.
pub fn open_websocket_at(port: u16, host: &str) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
    let request = format!(
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    socket
        .write_all(request.as_bytes())
        .expect("the daemon reads");
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        socket
            .read_exact(&mut byte)
            .expect("the daemon answers the WebSocket handshake");
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head);
    assert!(head.starts_with("HTTP/1.1 101"), "no WebSocket: {head}");
    socket
}

impl Client {
    /// Connects and waits until the namespace `/` is joined.
    pub fn connect(daemon: &Daemon) -> Self {
        let socket = open_websocket(daemon);
        let heard = Arc::new(Heard::default());
        let writer = Arc::new(Mutex::new(WebSocket::from_raw_socket(
            clone(&socket),
            Role::Client,
            None,
        )));
        let client = Self {
            reader: Some(spawn_reader(
                &socket,
                Arc::clone(&writer),
                Arc::clone(&heard),
            )),
            writer,
            heard,
            socket,
            next_ack: Mutex::new(0),
        };
        client.send("40");
        client.wait("the CONNECT answer", |state| state.joined.then_some(()));
        client
    }

    /// Connects and subscribes; what follows is what the address does from now on.
    pub fn subscribed(daemon: &Daemon, address: &str) -> Self {
        let client = Self::connect(daemon);
        client.emit("subscribe_address", &json!({ "address": address }));
        client.event("subscribed", |_| true);
        client
    }

    /// Sends one Engine.IO packet as it is.
    pub fn send(&self, packet: &str) {
        let mut writer = self.writer.lock().expect("no test panics while holding it");
        writer
            .send(Message::text(packet))
            .expect("the daemon reads");
    }

    pub fn emit(&self, name: &str, data: &Value) {
        self.send(&format!("42{}", json!([name, data])));
    }

    /// Emits and waits for the acknowledgement: its first argument.
    pub fn ask(&self, name: &str, data: &Value) -> Value {
        let id = {
            let mut next = self
                .next_ack
                .lock()
                .expect("no test panics while holding it");
            *next += 1;
            *next
        };
        self.send(&format!("42{id}{}", json!([name, data])));
        self.wait(&format!("the acknowledgement of {name}"), |state| {
            state
                .acks
                .iter()
                .find(|(got, _)| *got == id)
                .map(|(_, answer)| answer[0].clone())
        })
    }

    /// The first event of that name that is `right`, heard already or waited for.
    pub fn event(&self, name: &str, right: impl Fn(&Value) -> bool) -> Value {
        self.event_after(0, name, right)
    }

    /// The same, looking only at what came after the first `known` events of that name.
    pub fn event_after(&self, known: usize, name: &str, right: impl Fn(&Value) -> bool) -> Value {
        self.wait(&format!("a fitting {name}"), |state| {
            let named = state
                .events
                .iter()
                .filter(|(got, _)| got == name)
                .skip(known);
            named
                .map(|(_, data)| data)
                .find(|data| right(data))
                .cloned()
        })
    }

    /// All events of that name up to now.
    pub fn all(&self, name: &str) -> Vec<Value> {
        let state = self
            .heard
            .state
            .lock()
            .expect("no test panics while holding it");
        state
            .events
            .iter()
            .filter(|(got, _)| got == name)
            .map(|(_, data)| data.clone())
            .collect()
    }

    /// All events up to now, in order.
    pub fn heard(&self) -> Vec<(String, Value)> {
        let state = self.heard.state.lock();
        state
            .expect("no test panics while holding it")
            .events
            .clone()
    }

    /// Whether the daemon has ended this connection.
    pub fn is_closed(&self) -> bool {
        let state = self.heard.state.lock();
        state.expect("no test panics while holding it").closed
    }

    /// The names of all events up to now.
    pub fn names(&self) -> BTreeSet<String> {
        let state = self
            .heard
            .state
            .lock()
            .expect("no test panics while holding it");
        state.events.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Waits until the daemon has ended this connection.
    pub fn wait_closed(&self) {
        self.wait("the end of the connection", |state| {
            state.closed.then_some(())
        });
    }

    fn wait<T>(&self, what: &str, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self
            .heard
            .state
            .lock()
            .expect("no test panics while holding it");
        loop {
            let malformed = state.malformed.clone();
            if let Some(found) = look(&state).filter(|_| malformed.is_none()) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO || malformed.is_some() {
                // Released first: whoever unwinds past us must not find it poisoned.
                let (closed, events) = (state.closed, state.events.clone());
                drop(state);
                panic!(
                    "not within {DEADLINE:?}: {what}. Closed: {closed}. Malformed: {malformed:?}. Heard: {events:#?}"
                );
            }
            state = self
                .heard
                .changed
                .wait_timeout(state, left)
                .expect("no test panics while holding it")
                .0;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn clone(socket: &TcpStream) -> TcpStream {
    socket.try_clone().expect("a socket handle can be cloned")
}

/// Reading and writing are two WebSocket values on one socket: each uses only its half.
fn spawn_reader(
    socket: &TcpStream,
    writer: Arc<Mutex<WebSocket<TcpStream>>>,
    heard: Arc<Heard>,
) -> JoinHandle<()> {
    let mut reader = WebSocket::from_raw_socket(clone(socket), Role::Client, None);
    std::thread::spawn(move || {
        loop {
            let message = match reader.read() {
                Ok(Message::Text(text)) => text,
                Ok(Message::Close(_)) => break,
                Ok(_) => continue,
                Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            if message.as_str() == "2"
                && writer
                    .lock()
                    .expect("no test panics while holding it")
                    .send(Message::text("3"))
                    .is_err()
            {
                break;
            }
            let mut state = heard.state.lock().expect("no test panics while holding it");
            state.hear(message.as_str());
            heard.changed.notify_all();
        }
        heard
            .state
            .lock()
            .expect("no test panics while holding it")
            .closed = true;
        heard.changed.notify_all();
    })
}

impl State {
    fn hear(&mut self, packet: &str) {
        let understood = match packet.get(..2) {
            Some("40") => {
                self.joined = true;
                Some(())
            }
            Some("42") => self.hear_event(&packet[2..]),
            Some("43") => self.hear_ack(&packet[2..]),
            // What Engine.IO itself says.
            _ => Some(()),
        };
        if understood.is_none() {
            self.malformed.get_or_insert_with(|| packet.to_owned());
        }
    }

    /// An event has a name and exactly one argument: handlers are written for one.
    fn hear_event(&mut self, text: &str) -> Option<()> {
        let (name, data): (String, Value) = serde_json::from_str(text).ok()?;
        self.events.push((name, data));
        Some(())
    }

    fn hear_ack(&mut self, text: &str) -> Option<()> {
        let (id, data) = text.split_at(text.find('[')?);
        self.acks
            .push((id.parse().ok()?, serde_json::from_str(data).ok()?));
        Some(())
    }
}
