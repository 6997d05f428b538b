//! Three clients as they should be, the payments that they are to hear of, and what must be so when
//! the hostile ones have gone.

use std::collections::HashSet;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

use crate::common::http::{self, Response};
use crate::common::node::bitcoin;
use crate::common::{DEADLINE, Daemon, Node, tls, wait_until};

/// What the last payment is worth, and no other.
const LAST: i64 = 7_777_777;
/// Between two payments.
const PACE: Duration = Duration::from_millis(100);
/// Payments of one block: the mempool takes chains of 25.
const A_BLOCK: usize = 10;
/// The names of what is told of the address.
pub const TOLD: [&str; 3] = ["new_transactions", "balance_change", "transaction_update"];
const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

pub trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// How the daemon is reached.
#[derive(Clone)]
pub struct Reach {
    port: u16,
    trusted: Option<PathBuf>,
    token: Option<String>,
}

impl Reach {
    pub fn of(daemon: &Daemon, token: Option<&str>) -> Self {
        Self {
            port: daemon.port(),
            trusted: daemon.certificate(),
            token: token.map(str::to_owned),
        }
    }

    fn open(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.trusted {
            Some(trusted) => Box::new(tls::connect(self.port, trusted, tls::VERSIONS)?),
            None => {
                let stream = TcpStream::connect(("127.0.0.1", self.port))?;
                stream.set_read_timeout(Some(DEADLINE))?;
                Box::new(stream)
            }
        })
    }

    fn head(&self, method: &str, path: &str, more: &str) -> String {
        let port = self.port;
        let token = self.token.as_ref();
        let token = token.map_or(String::new(), |it| {
            format!("Authorization: Bearer {it}\r\n")
        });
        format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{token}{more}\r\n")
    }

    /// The CONNECT packet.
    fn connect(&self) -> String {
        match &self.token {
            Some(token) => format!("40{}", json!({ "token": token })),
            None => "40".to_owned(),
        }
    }

    /// One request on a connection of its own: the JSON of a 200.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = Kept::open(self).and_then(|mut kept| kept.ask(method, path, body));
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }
}

/// A connection that stays open from one request to the next.
struct Kept {
    reach: Reach,
    stream: BufReader<Box<dyn Stream>>,
}

impl Kept {
    fn open(reach: &Reach) -> io::Result<Self> {
        Ok(Self {
            reach: reach.clone(),
            stream: BufReader::new(reach.open()?),
        })
    }

    fn send(&mut self, method: &str, path: &str, body: &str) -> io::Result<Response> {
        let more = match (method, body) {
            ("GET", _) => String::new(),
            _ => format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            ),
        };
        let head = self.reach.head(method, path, &more);
        self.stream.get_mut().write_all((head + body).as_bytes())?;
        http::read(&mut self.stream, false)
    }

    /// The text of a 200.
    fn text(&mut self, method: &str, path: &str, body: &str) -> io::Result<String> {
        let answer = self.send(method, path, body)?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        match answer.status {
            200 => Ok(text),
            status => Err(io::Error::other(format!("{status} {text}"))),
        }
    }

    fn ask(&mut self, method: &str, path: &str, body: &Value) -> io::Result<Value> {
        let body = (!body.is_null()).then(|| body.to_string());
        let text = self.text(method, path, &body.unwrap_or_default())?;
        serde_json::from_str(&text).map_err(io::Error::other)
    }
}

/// An event that a client was told: its name, its cursor, and the transactions that it announces.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    name: String,
    cursor: String,
    announces: Vec<(String, i64)>,
}

impl Told {
    fn of(name: &str, data: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let transactions = data["transactions"].as_array().into_iter().flatten();
        let announces = transactions.map(|it| {
            let received = it["received"].as_i64().unwrap_or_default();
            (text(&it["txid"]), received)
        });
        Self {
            name: name.to_owned(),
            cursor: text(&data["cursor"]),
            announces: announces.collect(),
        }
    }

    fn is_last(&self) -> bool {
        self.announces.iter().any(|(_, received)| *received == LAST)
    }
}

/// What a client was told so far, and when; and why it ended, if it has.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Hearing>>);

#[derive(Default)]
struct Hearing {
    told: Vec<(Told, Instant)>,
    end: Option<io::Result<()>>,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Hearing> {
        self.0.lock().expect("no panic under it")
    }

    /// Whether that was the last.
    fn take(&self, told: Told) -> bool {
        let is_last = told.is_last();
        self.lock().told.push((told, Instant::now()));
        is_last
    }

    fn end(&self, how: io::Result<()>) {
        self.lock().end = Some(how);
    }

    fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// When a transaction was announced.
    fn announced(&self, txid: &str) -> Option<Instant> {
        let told = &self.lock().told;
        let announces = |told: &Told| told.announces.iter().any(|(it, _)| it == txid);
        let found = told.iter().find(|(told, _)| announces(told));
        found.map(|(_, at)| *at)
    }

    /// A packet of Socket.IO; `Some(true)` at the end, `None` for one that nobody who means well
    /// is sent.
    fn take_packet(&self, packet: &str) -> Option<bool> {
        let (name, data): (String, Value) = match packet.strip_prefix("42") {
            Some(event) => serde_json::from_str(event).ok()?,
            None => return packet.starts_with("40").then_some(false),
        };
        match name.as_str() {
            "connected" | "subscribed" => Some(false),
            name if TOLD.contains(&name) => Some(self.take(Told::of(name, &data))),
            _ => None,
        }
    }

    fn all(&self) -> Vec<Told> {
        let told = &self.lock().told;
        told.iter().map(|(told, _)| told.clone()).collect()
    }
}

/// What one of the clients does until the last payment was told to it.
type Life = fn(&Reach, &str, &Heard, &AtomicBool) -> io::Result<()>;

fn fault<T>(what: impl Into<String>) -> io::Result<T> {
    Err(io::Error::other(what.into()))
}

fn websocket(reach: &Reach, address: &str, heard: &Heard, begun: &AtomicBool) -> io::Result<()> {
    let mut stream = reach.open()?;
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let head = reach.head("GET", "/socket.io/?EIO=4&transport=websocket", upgrade);
    stream.write_all(head.as_bytes())?;
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        answer.extend(byte);
    }
    if !answer.starts_with(b"HTTP/1.1 101") {
        return fault(String::from_utf8_lossy(&answer));
    }
    let mut socket = WebSocket::from_raw_socket(stream, Role::Client, None);
    for packet in [reach.connect(), subscribe(address)] {
        socket
            .send(Message::text(packet))
            .map_err(io::Error::other)?;
    }
    loop {
        let message = socket.read().map_err(io::Error::other)?;
        let packet = message.to_text().map_err(io::Error::other)?;
        if packet == "2" {
            socket.send(Message::text("3")).map_err(io::Error::other)?;
        } else if packet.starts_with("0{") {
        } else {
            begun.fetch_or(packet.contains("subscribed"), Ordering::Relaxed);
            match heard.take_packet(packet) {
                Some(true) => return Ok(()),
                Some(false) => {}
                None => return fault(packet),
            }
        }
    }
}

fn polling(reach: &Reach, address: &str, heard: &Heard, begun: &AtomicBool) -> io::Result<()> {
    let mut kept = Kept::open(reach)?;
    let open = kept.text("GET", POLLING, "")?;
    let open: Value = serde_json::from_str(&open[1..]).map_err(io::Error::other)?;
    let path = format!("{POLLING}&sid={}", open["sid"].as_str().unwrap_or_default());
    kept.text("POST", &path, &reach.connect())?;
    kept.text("POST", &path, &subscribe(address))?;
    loop {
        let payload = kept.text("GET", &path, "")?;
        for packet in payload.split('\x1e') {
            if packet == "2" {
                kept.text("POST", &path, "3")?;
                continue;
            }
            begun.fetch_or(packet.contains("subscribed"), Ordering::Relaxed);
            match heard.take_packet(packet) {
                Some(true) => return Ok(()),
                Some(false) => {}
                None => return fault(packet),
            }
        }
    }
}

fn subscribe(address: &str) -> String {
    format!("42{}", json!(["subscribe_address", { "address": address }]))
}

fn rest(reach: &Reach, address: &str, heard: &Heard, begun: &AtomicBool) -> io::Result<()> {
    let mut kept = Kept::open(reach)?;
    let balance = kept.ask("GET", &format!("/balance/{address}"), &Value::Null)?;
    let mut after = balance["cursor"].as_str().unwrap_or_default().to_owned();
    begun.store(true, Ordering::Relaxed);
    loop {
        let path = format!("/events?address={address}&after={after}&wait=5");
        let page = kept.ask("GET", &path, &Value::Null)?;
        after = page["next"].as_str().unwrap_or_default().to_owned();
        for event in page["events"].as_array().into_iter().flatten() {
            let name = event["event"].as_str().unwrap_or_default();
            if heard.take(Told::of(name, &event["data"])) {
                return Ok(());
            }
        }
        stays_ready(&mut kept)?;
    }
}

/// A daemon that is ready says otherwise only for the moment that a new block takes.
fn stays_ready(kept: &mut Kept) -> io::Result<()> {
    let until = Instant::now() + DEADLINE;
    loop {
        let answer = kept.send("GET", "/health/ready", "")?;
        let text = String::from_utf8_lossy(&answer.body);
        match answer.status {
            200 => return Ok(()),
            503 if text.contains("catching up") && Instant::now() < until => {}
            status => return fault(format!("{status} {text}")),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The three clients, and what they are to be told.
pub struct WellBehaved {
    node: Arc<Node>,
    reach: Reach,
    pid: u32,
    address: String,
    /// The log's place before the first payment.
    from: String,
    clients: Vec<(&'static str, Heard, JoinHandle<()>)>,
    /// What was paid, and when the node had taken it.
    paid: Arc<Mutex<Vec<(String, Instant)>>>,
    paying: Paying,
}

impl WellBehaved {
    pub fn begin(node: &Arc<Node>, daemon: &Daemon) -> Self {
        Self::with_token(node, daemon, None)
    }

    /// The same where a token is needed, of scope watch.
    pub fn with_token(node: &Arc<Node>, daemon: &Daemon, token: Option<&str>) -> Self {
        let (reach, address) = (Reach::of(daemon, token), node.address());
        reach.ask("POST", "/add_address", &json!({ "address": address }));
        let balance = format!("/balance/{address}");
        let from = wait_until("the address is known whole", || {
            let balance = reach.ask("GET", &balance, &Value::Null);
            let is_whole = balance["coverage"]["complete"] == true;
            is_whole.then(|| balance["cursor"].as_str().unwrap_or_default().to_owned())
        });
        let lives: [(_, Life); 3] = [
            ("websocket", websocket),
            ("polling", polling),
            ("rest", rest),
        ];
        let clients = lives.map(|(name, life)| {
            let (heard, begun) = (Heard::default(), Arc::new(AtomicBool::new(false)));
            let own = (reach.clone(), address.clone(), heard.clone(), begun.clone());
            let client = spawn(move || own.2.end(life(&own.0, &own.1, &own.2, &own.3)));
            wait_until(name, || {
                (begun.load(Ordering::Relaxed) || heard.has_ended()).then_some(())
            });
            (name, heard, client)
        });
        let (paid, is_over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let own = (
            node.clone(),
            address.clone(),
            Arc::clone(&paid),
            is_over.clone(),
        );
        let this = Self {
            node: node.clone(),
            reach,
            pid: daemon.pid(),
            address,
            from,
            clients: clients.into(),
            paid,
            paying: Paying {
                is_over,
                thread: Some(spawn(move || keep_paying(&own.0, &own.1, &own.2, &own.3))),
            },
        };
        this.hear();
        this
    }

    /// Waits until each client was told of a payment that is made only now.
    pub fn hear(&self) {
        let next = self.paid.lock().expect("no panic under it").len() + 1;
        let txid = wait_until("another payment", || {
            let paid = self.paid.lock().expect("no panic under it");
            paid.get(next).map(|(txid, _)| txid.clone())
        });
        for (name, heard, _) in &self.clients {
            wait_until(name, || {
                (heard.has_ended() || heard.announced(&txid).is_some()).then_some(())
            });
            let end = &heard.lock().end;
            assert!(end.is_none(), "{name} has ended: {end:?}");
        }
    }

    /// Waits until only what these clients have is in use.
    pub fn given_back(&self) {
        let mut last = Value::Null;
        let is_back = crate::common::wait_for(DEADLINE, || {
            last = self.in_use();
            (last == json!([4, 0, 0, 0, 2, 2, 4])).then_some(())
        });
        assert!(
            is_back.is_some(),
            "of connections, of the busiest address, unfinished, bytes, subscriptions, sessions and open files is in use: {last}"
        );
    }

    fn in_use(&self) -> Value {
        let status = self.reach.ask("GET", "/status", &Value::Null);
        let used = |name: &str| status["limits"][name]["used"].clone();
        json!([
            used("connections"),
            used("connections_per_address"),
            used("unfinished_handshakes"),
            used("rest_bytes"),
            used("subscriptions_in_all"),
            status["clients"]["sessions"],
            // The request for the status has gone by now.
            accepted(self.pid, self.reach.port).len() + 1,
        ])
    }

    /// The last payment; and nobody has noticed anything.
    pub fn end(mut self) {
        self.hear();
        self.given_back();
        self.paying.stop().expect("the node takes payments");
        let mut paid = self.paid.lock().expect("no panic under it").clone();
        paid.push((pay(&self.node, &self.address, LAST), Instant::now()));
        let (mut heard, mut times) = (Vec::new(), Vec::new());
        for (name, told, client) in self.clients {
            client.join().expect("it does not panic");
            let end = told.lock().end.take();
            assert!(matches!(end, Some(Ok(()))), "{name}: {end:?}");
            times.extend(paid.iter().filter_map(|(txid, at)| {
                let announced = told.announced(txid)?;
                Some(announced.saturating_duration_since(*at))
            }));
            heard.push((name, told.all()));
        }
        let log = log(&self.reach, &self.address, &self.from);
        for (name, told) in heard {
            assert_eq!(
                told, log,
                "{name} was told what is in the log, once, in order"
            );
        }
        let announced = log.iter().flat_map(|it| &it.announces);
        let mut announced: Vec<&str> = announced.map(|(txid, _)| txid.as_str()).collect();
        let mut txids: Vec<&str> = paid.iter().map(|(txid, _)| txid.as_str()).collect();
        announced.sort_unstable();
        txids.sort_unstable();
        assert_eq!(announced, txids, "what was paid was announced, once");
        times.sort();
        println!(
            "{} payments, {} events to each of three clients; from the payment to its announcement: half within {:?}, all within {:?}",
            paid.len(),
            log.len(),
            times[times.len() / 2],
            times[times.len() - 1],
        );
    }
}

/// The payments that go on. Dropped when a test fails, it lets go of the node.
struct Paying {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Paying {
    fn stop(&mut self) -> std::thread::Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), JoinHandle::join)
    }
}

impl Drop for Paying {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Another test on the same node may mine it at once.
fn pay(node: &Node, address: &str, satoshi: i64) -> String {
    let txid = node.payer("sendtoaddress", json!([address, bitcoin(satoshi)]));
    txid.as_str().expect("an id").to_owned()
}

fn keep_paying(
    node: &Node,
    address: &str,
    paid: &Mutex<Vec<(String, Instant)>>,
    is_over: &AtomicBool,
) {
    while !is_over.load(Ordering::Relaxed) {
        let txid = pay(node, address, 10_000);
        let mut paid = paid.lock().expect("no panic under it");
        paid.push((txid, Instant::now()));
        let is_full = paid.len().is_multiple_of(A_BLOCK);
        drop(paid);
        if is_full {
            node.mine(1);
        }
        std::thread::sleep(PACE);
    }
}

/// The log of an address after a place, up to the last payment.
fn log(reach: &Reach, address: &str, from: &str) -> Vec<Told> {
    let (mut log, mut after) = (Vec::new(), from.to_owned());
    loop {
        let path = format!("/events?address={address}&after={after}&limit=1000");
        let page = reach.ask("GET", &path, &Value::Null);
        let events = page["events"].as_array().expect("a list");
        assert!(!events.is_empty(), "the last payment is in the log");
        after = page["next"].as_str().expect("a cursor").to_owned();
        for event in events {
            let told = Told::of(event["event"].as_str().expect("a name"), &event["data"]);
            log.push(told);
            if log.last().is_some_and(Told::is_last) {
                return log;
            }
        }
    }
}

/// The open files of the daemon that are connections to its port.
fn accepted(pid: u32, port: u16) -> Vec<String> {
    let sockets = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("it runs");
    let end = format!(":{port:04X}");
    // Local address, remote address, state (10: listening), …, inode.
    let ours = sockets.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_ours = words[1].ends_with(&end) && words[3] != "0A";
        is_ours.then(|| format!("socket:[{}]", words[9]))
    });
    let ours: HashSet<String> = ours.collect();
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let names = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| ours.contains(name)).collect()
}
