//! A line between the daemon and the node's RPC that has moods, and counts what is asked.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine;
use serde_json::Value;

use super::node::free_port;
use super::{Node, http};

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Pass,
    /// Nobody listens, and what was connected is not any more. For all methods at once only.
    Refuse,
    /// HTTP status and body, at once.
    Answer(u16, &'static str),
    /// The node's answer, this much later.
    Slow(Duration),
    /// As `Slow`, but only as many answers as the test has granted (`RpcProxy::grant`): while the
    /// test does something else, nothing moves, however long that takes on a busy machine.
    Granted(Duration),
    /// The node's answer of now, handed over this much later.
    Late(Duration),
    /// The first half of the node's answer, then silence.
    Half,
    /// Silence.
    Hang,
    /// An answer that goes on and on, a gigabyte of it.
    Flood,
    /// An answer of so many bytes begins.
    Begun(u64),
    /// As a node whose `rpcwhitelist` lacks the method.
    NotPermitted,
    /// The node's answer, with another name for this field.
    Without(&'static str),
    /// The node's answer, with another chain in `getblockchaininfo`.
    Chain(&'static str),
}

pub const BUSY: Mood = Mood::Answer(503, "Work queue depth exceeded");
pub const UNAUTHORIZED: Mood = Mood::Answer(401, "");
pub const FORBIDDEN: Mood = Mood::Answer(403, "");
pub const WARMING_UP: Mood = Mood::Answer(
    500,
    r#"{"result":null,"error":{"code":-28,"message":"Loading block index…"},"id":0}"#,
);
pub const NONSENSE: Mood = Mood::Answer(200, r#"{"result":{"chain":7},"error":null,"id":0}"#);
pub const GARBAGE: Mood = Mood::Answer(200, "<html><body>It works!</body></html>");

/// A running line. Dropping it ends it.
pub struct RpcProxy {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    end: AtomicBool,
    state: Mutex<State>,
}

struct State {
    mood: Mood,
    /// Methods that have a mood of their own.
    moods: HashMap<String, Mood>,
    /// How many answers `Mood::Granted` may give.
    granted: usize,
    calls: BTreeMap<String, u64>,
    answers: BTreeMap<String, u64>,
    target: String,
    /// The cookie that replaces the daemon's; for another node than the one whose cookie the daemon
    /// reads.
    cookie: Option<std::path::PathBuf>,
    open: Vec<TcpStream>,
}

impl RpcProxy {
    pub fn of(node: &Node) -> Self {
        let state = State {
            mood: Mood::Pass,
            moods: HashMap::new(),
            granted: 0,
            calls: BTreeMap::new(),
            answers: BTreeMap::new(),
            target: node.rpc_url(),
            cookie: None,
            open: Vec::new(),
        };
        let shared = Arc::new(Shared {
            end: AtomicBool::new(false),
            state: Mutex::new(state),
        });
        let port = free_port();
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || listen(port, &shared)
        });
        Self {
            port,
            shared,
            thread: Some(thread),
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What is asked from now on is answered like this.
    pub fn set(&self, mood: Mood) {
        let mut state = self.shared.state();
        state.mood = mood;
        state.moods.clear();
        if mood == Mood::Refuse {
            state.hang_up();
        }
    }

    /// The same for one method only (`rest` for REST).
    pub fn set_for(&self, method: &str, mood: Mood) {
        self.shared.state().moods.insert(method.to_owned(), mood);
    }

    /// `Mood::Granted` gives so many answers from now on, whatever is left of earlier grants.
    pub fn grant(&self, answers: usize) {
        self.shared.state().granted = answers;
    }

    /// Leads to another node from now on.
    pub fn lead_to(&self, node: &Node) {
        let mut state = self.shared.state();
        state.target = node.rpc_url();
        state.cookie = Some(node.cookie_file());
        state.hang_up();
    }

    /// HTTP requests up to now, by method; those that a mood answers too.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.shared.state().calls.clone()
    }

    /// How many answers of the node it has had, by method; it may not have passed them on yet.
    pub fn answers(&self) -> BTreeMap<String, u64> {
        self.shared.state().answers.clone()
    }

    pub fn total(&self) -> u64 {
        self.calls().values().sum()
    }
}

impl Drop for RpcProxy {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        self.shared.state().hang_up();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while holding it")
    }

    /// The mood in which this method is answered now.
    fn mood(&self, method: &str) -> Mood {
        let state = self.state();
        state.moods.get(method).copied().unwrap_or(state.mood)
    }

    /// Waits until an answer is granted, or this method is not answered by grants any more.
    fn wait_for_grant(&self, method: &str) {
        while !self.ended() && matches!(self.mood(method), Mood::Granted(_)) {
            let mut state = self.state();
            if state.granted > 0 {
                state.granted -= 1;
                return;
            }
            drop(state);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn ended(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }
}

impl State {
    fn hang_up(&mut self) {
        for socket in self.open.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn listen(port: u16, shared: &Arc<Shared>) {
    let mut listener: Option<TcpListener> = None;
    while !shared.ended() {
        if shared.state().mood == Mood::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(("127.0.0.1", port)).ok();
            if let Some(listener) = &listener {
                listener
                    .set_nonblocking(true)
                    .expect("a fresh listener takes options");
            }
        }
        match listener
            .as_ref()
            .and_then(|listener| listener.accept().ok())
        {
            None => std::thread::sleep(Duration::from_millis(5)),
            Some((socket, _)) => {
                socket
                    .set_nonblocking(false)
                    .expect("a fresh socket takes options");
                shared
                    .state()
                    .open
                    .push(socket.try_clone().expect("a socket handle can be cloned"));
                let shared = Arc::clone(shared);
                std::thread::spawn(move || serve(&socket, &shared));
            }
        }
    }
}

/// Answers the requests of one connection until it ends.
fn serve(socket: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(socket);
    while let Some(request) = read(&mut reader) {
        *shared
            .state()
            .calls
            .entry(request.method.clone())
            .or_default() += 1;
        let mood = shared.mood(&request.method);
        if answer(socket, &request, mood, shared).is_none() {
            break;
        }
    }
    let _ = socket.shutdown(Shutdown::Both);
}

struct Request {
    /// The method of the call, or of the first call of a batch; `rest` for REST.
    method: String,
    path: String,
    authorization: Option<String>,
    body: Vec<u8>,
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .ok()
        .filter(|count| *count > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut line = String::new();
        reader
            .read_line(&mut line)
            .ok()
            .filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "authorization" => authorization = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    let method = json["method"]
        .as_str()
        .or(json[0]["method"].as_str())
        .unwrap_or("rest")
        .to_owned();
    Some(Request {
        method,
        path,
        authorization,
        body,
    })
}

/// `None` when the connection is of no further use.
fn answer(mut socket: &TcpStream, request: &Request, mood: Mood, shared: &Shared) -> Option<()> {
    match mood {
        Mood::Refuse => return None,
        Mood::Answer(status, body) => return send(socket, status, body.as_bytes()),
        Mood::Hang => return hang(shared),
        Mood::NotPermitted => {
            let status = request.authorization.as_ref().map_or(401, |_| 403);
            return send(socket, status, b"");
        }
        Mood::Flood => {
            socket
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n[")
                .ok()?;
            let blanks = vec![b' '; 1 << 20];
            return (0..1024).try_for_each(|_| socket.write_all(&blanks)).ok();
        }
        Mood::Begun(length) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{{");
            socket.write_all(head.as_bytes()).ok()?;
            return hang(shared);
        }
        Mood::Slow(time) => std::thread::sleep(time),
        Mood::Granted(time) => {
            shared.wait_for_grant(&request.method);
            std::thread::sleep(time);
        }
        Mood::Pass | Mood::Late(_) | Mood::Half | Mood::Without(_) | Mood::Chain(_) => {}
    }
    let (status, body) = forward(request, shared)?;
    *shared
        .state()
        .answers
        .entry(request.method.clone())
        .or_default() += 1;
    match mood {
        Mood::Late(time) => {
            std::thread::sleep(time);
            send(socket, status, &body)
        }
        Mood::Half => {
            let head = format!(
                "HTTP/1.1 {status} OK\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            socket
                .write_all(&[head.as_bytes(), &body[..body.len() / 2]].concat())
                .ok()?;
            hang(shared)
        }
        Mood::Without(field) => {
            let body =
                String::from_utf8_lossy(&body).replace(&format!("\"{field}\":"), "\"gone\":");
            send(socket, status, body.as_bytes())
        }
        Mood::Chain(other) => {
            let body = String::from_utf8_lossy(&body)
                .replace(r#""chain":"regtest""#, &format!(r#""chain":"{other}""#));
            send(socket, status, body.as_bytes())
        }
        _ => send(socket, status, &body),
    }
}

/// Until the end of the test, whatever the mood becomes: what hangs does not recover.
fn hang(shared: &Shared) -> Option<()> {
    while !shared.ended() {
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

fn forward(request: &Request, shared: &Shared) -> Option<(u16, Vec<u8>)> {
    let (target, cookie) = {
        let state = shared.state();
        (state.target.clone(), state.cookie.clone())
    };
    let authorization = match cookie.and_then(|path| std::fs::read_to_string(path).ok()) {
        Some(cookie) => Some(format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(cookie.trim())
        )),
        None => request.authorization.clone(),
    };
    let url = format!("{target}{}", request.path);
    let (method, authorization) = match request.method.as_str() {
        "rest" => ("GET", None),
        _ => ("POST", Some(authorization.unwrap_or_default())),
    };
    let headers: Vec<_> = authorization
        .iter()
        .map(|value| ("Authorization", value.as_str()))
        .collect();
    let minute = Duration::from_secs(60);
    let answer = http::send(method, &url, &headers, &request.body, minute).ok()?;
    Some((answer.status, answer.body))
}

fn send(mut socket: &TcpStream, status: u16, body: &[u8]) -> Option<()> {
    let head = format!(
        "HTTP/1.1 {status} So\r\nContent-Length: {}\r\nContent-Type: application/json\r\n\r\n",
        body.len()
    );
    socket.write_all(&[head.as_bytes(), body].concat()).ok()
}
