//! A webhook receiver with moods: a small HTTP server in a thread.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// One request.
#[derive(Debug, Clone)]
pub struct Post {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub json: Value,
}

/// What is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Status(u16),
    /// With one more header.
    With(u16, &'static str),
    Close,
    /// No answer for longer than the daemon waits.
    Hang,
}

type Mood = Box<dyn FnMut(&Post) -> Reply + Send>;

struct Shared {
    mood: Mutex<Mood>,
    posts: Mutex<Vec<(Post, Reply)>>,
    ended: AtomicBool,
}

pub struct Receiver {
    port: u16,
    shared: Arc<Shared>,
}

impl Receiver {
    pub fn start(mood: impl FnMut(&Post) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            mood: Mutex::new(Box::new(mood)),
            posts: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = serving.clone();
                thread::spawn(move || serve(&shared, stream));
            }
        });
        Self { port, shared }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, by a name or an address of this machine.
    pub fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/hook?shop=1", self.port)
    }

    pub fn set(&self, mood: impl FnMut(&Post) -> Reply + Send + 'static) {
        *self.shared.mood.lock().expect("no mood panics") = Box::new(mood);
    }

    /// Everything it got, with its answers.
    pub fn posts(&self) -> Vec<(Post, Reply)> {
        self.shared
            .posts
            .lock()
            .expect("nobody panics with it")
            .clone()
    }

    /// What it said 2xx to, in the order in which it said so.
    pub fn accepted(&self) -> Vec<Post> {
        let good =
            |reply: &Reply| matches!(reply, Reply::Status(200..=299) | Reply::With(200..=299, _));
        self.posts()
            .into_iter()
            .filter(|(_, reply)| good(reply))
            .map(|(post, _)| post)
            .collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn serve(shared: &Shared, stream: TcpStream) {
    let mut writer = stream.try_clone().expect("a stream can be cloned");
    let mut reader = BufReader::new(stream);
    while let Some(post) = request(&mut reader) {
        let reply = {
            let mut mood = shared.mood.lock().expect("no mood panics");
            let reply = mood(&post);
            shared
                .posts
                .lock()
                .expect("nobody panics with it")
                .push((post, reply));
            reply
        };
        let (status, header) = match reply {
            Reply::Status(status) => (status, "X-None: 0"),
            Reply::With(status, header) => (status, header),
            Reply::Close => return,
            Reply::Hang => return thread::sleep(Duration::from_secs(5)),
        };
        let body = if status == 204 {
            ""
        } else {
            "{\"why\":\n\"a mood\"}"
        };
        let length = if status == 204 {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        if writer
            .write_all(
                format!("HTTP/1.1 {status} Word\r\n{header}\r\n{length}\r\n{body}").as_bytes(),
            )
            .is_err()
        {
            return;
        }
    }
}

fn request(reader: &mut BufReader<TcpStream>) -> Option<Post> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let path = lines.first()?.split(' ').nth(1)?.to_owned();
    let pair = |line: &String| {
        line.split_once(": ")
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
    };
    let headers: BTreeMap<_, _> = lines.iter().skip(1).filter_map(pair).collect();
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    Some(Post {
        path,
        headers,
        json: serde_json::from_str(&body).unwrap_or_default(),
        body,
    })
}
