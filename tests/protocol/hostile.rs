//! A thousand connections that mean no good, on the server that the daemon uses, while others
//! listen: those get every event in order, and what the thousand took is given back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use satwatch::engineio::{
    CloseReason, Config, Handler, Handshake, Message, MessageGroup, Outbox, Service, Work,
};
use satwatch::server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite;
use tokio_util::sync::CancellationToken;

use super::engineio_rig::{answer, sid_of};

/// Longer than the slowest machine takes for all of it.
const PATIENCE: Duration = Duration::from_secs(120);
const HOSTILE: usize = 1000;
const EVENT: usize = 1000;
/// Behind the last event of a round.
const END: &str = "end";

/// Between two events, and between two looks at a condition.
const PACE: Duration = Duration::from_millis(5);
/// Events that are told while a wave holds on: longer than the server waits for anything half.
const MEANWHILE: usize = 500;

/// Waits for what other tasks are about to do.
async fn until(mut is_true: impl FnMut() -> bool) {
    patiently(async {
        while !is_true() {
            tokio::time::sleep(PACE).await;
        }
    })
    .await;
}

async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it comes in time")
}

// The server

/// Everybody reads everything from one log, from where it ended when they came.
#[derive(Default)]
struct Broadcast {
    log: Mutex<Vec<Message>>,
    outboxes: Mutex<Vec<Outbox>>,
}

struct Reader {
    outbox: Outbox,
    /// Of the next message in the log.
    place: AtomicUsize,
}

impl Broadcast {
    fn log(&self) -> MutexGuard<'_, Vec<Message>> {
        self.log.lock().expect("no panic under this lock")
    }

    fn tell(&self, text: &str) {
        self.log().push(Message::text(text));
        let mut outboxes = self.outboxes.lock().expect("no panic under this lock");
        outboxes.retain(|outbox| !outbox.is_closed());
        outboxes.iter().for_each(Outbox::wake);
    }
}

impl Handler for Broadcast {
    type Session = Reader;

    fn open(&self, outbox: Outbox, _: Handshake) -> Arc<Reader> {
        outbox.let_in();
        let place = self.log().len().into();
        self.outboxes
            .lock()
            .expect("no panic under this lock")
            .push(outbox.clone());
        Arc::new(Reader { outbox, place })
    }

    fn message(&self, reader: &Arc<Reader>, message: Message) -> Option<Work> {
        // One who asks is answered, whether it reads or not.
        if reader.outbox.try_send(MessageGroup::One(message)).is_err() {
            reader.outbox.close(CloseReason::SlowConsumer);
        }
        None
    }

    fn poll_next(&self, reader: &Arc<Reader>, _: &mut Context<'_>) -> Poll<MessageGroup> {
        match self.log().get(reader.place.load(Ordering::Relaxed)) {
            Some(message) => {
                reader.place.fetch_add(1, Ordering::Relaxed);
                Poll::Ready(MessageGroup::One(message.clone()))
            }
            // Whoever tells more wakes everybody.
            None => Poll::Pending,
        }
    }

    fn close(&self, _: &Arc<Reader>, _: CloseReason) {}
}

struct Running {
    addr: SocketAddr,
    service: Service<Broadcast>,
    shutdown: CancellationToken,
}

async fn start() -> Running {
    let config = Config {
        ping_interval: Duration::from_secs(1),
        // The good ones answer in time on any machine.
        ping_timeout: Duration::from_secs(5),
        upgrade_timeout: Duration::from_secs(2),
        write_timeout: Duration::from_secs(2),
        body_timeout: Duration::from_secs(2),
        max_payload: 100_000,
        total_received_bytes: 1 << 20,
        ..Config::default()
    };
    let service = Service::new(config, Broadcast::default());
    let limits = server::Limits {
        header_time: Duration::from_secs(2),
        idle_time: Duration::from_secs(2),
        ..server::Limits::default()
    };
    let listening = server::Server::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))], limits)
        .await
        .expect("a free port");
    let running = Running {
        addr: listening.local_addrs().expect("it is bound")[0],
        service: service.clone(),
        shutdown: CancellationToken::new(),
    };
    let handler = Arc::new(move |request, peer: server::Peer| {
        let service = service.clone();
        async move { service.handle(request, Some(peer.address.ip())).await }
    });
    tokio::spawn(listening.serve(handler, running.shutdown.clone()));
    running
}

impl Running {
    /// How many messages everybody was told.
    fn told(&self) -> usize {
        self.service.handler().log().len()
    }

    /// Tells everybody `count` events, in haste but so that readers can follow.
    async fn events(&self, from: usize, count: usize) {
        let padding = "x".repeat(EVENT);
        for number in from..from + count {
            self.service.handler().tell(&format!("{number} {padding}"));
            tokio::time::sleep(PACE).await;
            assert!(self.service.received_bytes() <= 1 << 20);
        }
    }
}

// Clients as they should be

/// Which events came, up to the end.
#[derive(Default)]
struct Seen(Vec<usize>);

impl Seen {
    /// `true` at the end.
    fn take(&mut self, packet: &str) -> bool {
        let text = packet
            .strip_prefix('4')
            .unwrap_or_else(|| panic!("a message, not {}", &packet[..packet.len().min(40)]));
        if text != END {
            self.0.push(
                text.split(' ')
                    .next()
                    .and_then(|number| number.parse().ok())
                    .expect("a number"),
            );
        }
        text == END
    }
}

async fn good_websocket(addr: SocketAddr, first_polling: bool) -> Vec<usize> {
    let sid = if first_polling {
        format!("&sid={}", open_polling(addr).await)
    } else {
        String::new()
    };
    let url = format!("ws://x/engine.io/?EIO=4&transport=websocket{sid}");
    let stream = TcpStream::connect(addr).await.expect("the server listens");
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream)
        .await
        .expect("a 101");
    if first_polling {
        socket
            .send(tungstenite::Message::text("2probe"))
            .await
            .expect("the server reads");
        assert_eq!(
            socket.next().await.expect("open").expect("a frame"),
            tungstenite::Message::text("3probe")
        );
        socket
            .send(tungstenite::Message::text("5"))
            .await
            .expect("the server reads");
    } else {
        assert!(
            socket
                .next()
                .await
                .expect("open")
                .expect("a frame")
                .to_text()
                .expect("text")
                .starts_with('0')
        );
    }
    let mut seen = Seen::default();
    loop {
        match socket
            .next()
            .await
            .expect("still open")
            .expect("a frame")
            .to_text()
            .expect("text")
        {
            "2" => socket
                .send(tungstenite::Message::text("3"))
                .await
                .expect("the server reads"),
            packet if seen.take(packet) => return seen.0,
            _ => {}
        }
    }
}

async fn http(
    addr: SocketAddr,
    method: &str,
    query: &str,
    body: &str,
) -> super::engineio_rig::Answer {
    let head = format!(
        "{method} /engine.io/?EIO=4&transport=polling{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    );
    let mut stream = TcpStream::connect(addr).await.expect("the server listens");
    stream
        .write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .await
        .expect("the server reads");
    answer(&mut stream).await
}

async fn open_polling(addr: SocketAddr) -> String {
    sid_of(&http(addr, "GET", "", "").await.body)
}

async fn good_polling(addr: SocketAddr) -> Vec<usize> {
    let query = format!("&sid={}", open_polling(addr).await);
    let mut seen = Seen::default();
    loop {
        let polled = http(addr, "GET", &query, "").await;
        assert_eq!(polled.status, 200, "{}", polled.body);
        for packet in polled.body.split('\x1e') {
            if packet == "2" {
                assert_eq!(http(addr, "POST", &query, "3").await.status, 200);
            } else if seen.take(packet) {
                return seen.0;
            }
        }
    }
}

// Clients as they should not be

const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

/// Does its worst and holds the connection until the server ends it or `over`. What goes wrong for
/// it is as it should be.
async fn hostile(addr: SocketAddr, number: usize, over: CancellationToken) {
    let Ok(mut stream) = TcpStream::connect(addr).await else {
        return;
    };
    let get = |query: &str, headers: &str| {
        format!("GET /engine.io/?EIO=4{query} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")
    };
    let begun_text_frame = [0x81, 0xfe, 0xc3, 0x50, 0, 0, 0, 0, b'4'];
    let mut bytes: Vec<u8> = match number % 10 {
        // Bytes without a meaning.
        0 => (0..2000usize)
            .map(|at| (at.wrapping_mul(number + 7) >> 3) as u8)
            .collect(),
        // Half a request.
        1 => b"GET /engine.io/?EIO=4&transp".to_vec(),
        // Half a body.
        2 => {
            let sid = open_polling(addr).await;
            let head = "POST /engine.io/?EIO=4&transport=polling&sid=";
            format!(
                "{head}{sid} HTTP/1.1\r\nhost: x\r\ncontent-length: 90000\r\n\r\n4{}",
                "x".repeat(50_000)
            )
            .into_bytes()
        }
        // Half a frame of a WebSocket, frames that are none, one that reads nothing.
        3 => [
            get("&transport=websocket", UPGRADE).into_bytes(),
            begun_text_frame.to_vec(),
            vec![b'x'; 40_000],
        ]
        .concat(),
        4 => [
            get("&transport=websocket", UPGRADE).into_bytes(),
            vec![0xff; 3000],
        ]
        .concat(),
        5 => get("&transport=websocket", UPGRADE).into_bytes(),
        // Half an upgrade: without a probe, and behind it.
        6 => get(
            &format!("&transport=websocket&sid={}", open_polling(addr).await),
            UPGRADE,
        )
        .into_bytes(),
        7 => {
            let head = get(
                &format!("&transport=websocket&sid={}", open_polling(addr).await),
                UPGRADE,
            );
            [head.as_bytes(), &[0x81, 0x86, 0, 0, 0, 0], b"2probe"].concat()
        }
        // A poll that is left.
        8 => get(
            &format!("&transport=polling&sid={}", open_polling(addr).await),
            "",
        )
        .into_bytes(),
        // A session that nobody polls.
        _ => get("&transport=polling", "").into_bytes(),
    };
    bytes.shrink_to_fit();
    if stream.write_all(&bytes).await.is_err() || number % 10 == 8 {
        return;
    }
    let reads = number.is_multiple_of(2);
    let mut buffer = [0; 512];
    tokio::select! {
        () = over.cancelled() => {}
        () = async {
            if !reads {
                std::future::pending::<()>().await;
            }
            while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
        } => {}
    }
}

/// Tasks of this test's own runtime.
fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

/// How many connections fit this process's limit of open files at a time; each is two of them.
fn at_once() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("Linux");
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .expect("a limit");
    let soft = line
        .split_whitespace()
        .next()
        .and_then(|soft| soft.parse().ok())
        .unwrap_or(usize::MAX);
    (soft.saturating_sub(300) / 3).clamp(50, HOSTILE)
}

/// Waves of hostile connections, each as large as the limit of open files lets it be.
async fn attack(running: &Running) {
    let mut number = 0;
    while number < HOSTILE {
        let (mut wave, over) = (JoinSet::new(), CancellationToken::new());
        for _ in 0..at_once().min(HOSTILE - number) {
            wave.spawn(hostile(running.addr, number, over.clone()));
            number += 1;
            if number.is_multiple_of(20) {
                tokio::time::sleep(PACE).await;
            }
        }
        let told = running.told();
        until(|| running.told() >= told + MEANWHILE).await;
        over.cancel();
        wave.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_connections_harm_nobody_and_leave_nothing() {
    let running = start().await;
    let idle = tasks();
    let mut good = JoinSet::new();
    good.spawn(good_websocket(running.addr, false));
    good.spawn(good_websocket(running.addr, true));
    good.spawn(good_polling(running.addr));
    until(|| running.service.session_count() >= 3).await;

    let is_over = AtomicBool::new(false);
    let attack = async {
        attack(&running).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let telling = async {
        let mut number = 0;
        while !is_over.load(Ordering::Relaxed) {
            running.events(number, 20).await;
            number += 20;
        }
        number
    };
    let ((), next) = patiently(async { tokio::join!(attack, telling) }).await;
    running.service.handler().tell(END);
    let expected: Vec<_> = (0..next).collect();
    for seen in patiently(good.join_all()).await {
        // Those that joined when telling had begun miss nothing from there on.
        assert!(
            !seen.is_empty() && expected.ends_with(&seen),
            "{} of {}",
            seen.len(),
            expected.len()
        );
    }
    // Nothing is left of anybody.
    until(|| running.service.session_count() == 0).await;
    until(|| running.service.received_bytes() == 0).await;
    until(|| tasks() == idle).await;
    running.shutdown.cancel();
    patiently(running.service.shutdown()).await;
}
