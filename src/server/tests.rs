mod limits;
mod tls;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::accept::{Arrival, Seldom};
use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    addr: SocketAddr,
    shutdown: CancellationToken,
    /// Opens the gate that requests for `/wait` stand at.
    gate: Arc<Notify>,
    waiting: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// Answers with the path, or with the length of the body; `/wait` waits for the gate, `/panic`
/// panics, `/keep` upgrades.
async fn start(limits: Limits) -> Running {
    start_with(limits, |server| server).await
}

async fn start_with(limits: Limits, change: impl FnOnce(Server) -> Server) -> Running {
    let server = Server::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))], limits)
        .await
        .expect("a free port");
    let server = change(server);
    let (addr, shutdown, gate, waiting) = (
        server.local_addrs().expect("it is bound")[0],
        CancellationToken::new(),
        Arc::new(Notify::new()),
        Arc::new(AtomicUsize::new(0)),
    );
    let (door, count) = (gate.clone(), waiting.clone());
    let handler = Arc::new(move |request: Request<Incoming>, _: Peer| {
        answer(request, door.clone(), count.clone())
    });
    let task = tokio::spawn(server.serve(handler, shutdown.clone()));
    Running {
        addr,
        shutdown,
        gate,
        waiting,
        task,
    }
}

async fn answer(
    mut request: Request<Incoming>,
    gate: Arc<Notify>,
    waiting: Arc<AtomicUsize>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/wait" => {
            waiting.fetch_add(1, Ordering::SeqCst);
            gate.notified().await;
        }
        "/panic" => panic!("asked for by the test"),
        "/keep" => {
            let slot = request
                .extensions()
                .get::<ConnectionSlot>()
                .cloned()
                .expect("an upgradable request carries its slot");
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let upgraded = upgrade.await.expect("the client upgrades");
                let parts = upgraded
                    .downcast::<TokioIo<TcpStream>>()
                    .expect("our own stream");
                let mut stream = parts.io.into_inner();
                let mut byte = [0];
                while stream.read(&mut byte).await.is_ok_and(|read| read > 0) {
                    stream.write_all(&byte).await.expect("the client reads");
                }
                drop(slot);
            });
            let switching = Response::builder()
                .status(101)
                .header("connection", "upgrade")
                .header("upgrade", "echo");
            return switching.body(Full::default()).expect("a good response");
        }
        _ => {}
    }
    let body = request
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    Response::new(Full::from(format!("{path} {}", body.len())))
}

async fn connect(running: &Running) -> TcpStream {
    TcpStream::connect(running.addr)
        .await
        .expect("the server listens")
}

/// Reads until `end` has come, and fails if the connection ends before.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&text).contains(end) {
            assert!(
                stream.read_buf(&mut text).await.expect("readable") > 0,
                "ended after {:?}",
                String::from_utf8_lossy(&text)
            );
        }
    };
    timeout(PATIENCE, reading).await.expect("an answer comes");
    String::from_utf8_lossy(&text).into_owned()
}

/// What comes until the server closes the connection.
async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    // A reset counts as an end too: the server may close with unread bytes in its buffer.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut text))
        .await
        .expect("the connection is ended");
    String::from_utf8_lossy(&text).into_owned()
}

async fn until(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .expect("the condition comes true");
}

#[tokio::test]
async fn a_request_is_seen_though_its_client_left_with_it() {
    const COUNT: usize = 50;
    let running = start(Limits::default()).await;
    for _ in 0..COUNT {
        // The request and the end of the connection are mostly one read.
        connect(&running)
            .await
            .write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .expect("the server reads");
    }
    until(|| running.waiting.load(Ordering::SeqCst) == COUNT).await;
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_order_also_when_sent_at_once() {
    let running = start(Limits::default()).await;
    let mut stream = connect(&running).await;
    stream.write_all(GET).await.expect("written");
    read_until(&mut stream, "/ 0").await;
    stream
        .write_all(b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    let text = read_until(&mut stream, "/b 0").await;
    assert!(
        text.find("/a 3").expect("the first answer") < text.find("/b 0").expect("the second"),
        "{text}"
    );
}

#[tokio::test]
async fn http_2_is_told_that_http_1_1_is_required() {
    let running = start(Limits::default()).await;
    let mut stream = connect(&running).await;
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    request.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]); // SETTINGS, empty
    stream.write_all(&request).await.expect("written");
    let mut answer = Vec::new();
    let reading = timeout(PATIENCE, stream.read_to_end(&mut answer));
    reading.await.expect("at once").expect("no reset");
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let go_away = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0d];
    assert_eq!(answer, [&settings[..], &go_away].concat());
}

#[tokio::test(start_paused = true)]
async fn http_2_is_told_in_a_moment_and_does_not_hold_its_place() {
    let mut client = play(b"");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    client.write_all(preface).await.expect("written");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("readable");
    assert_eq!(answer, HTTP_1_1_REQUIRED);
    sleep(Duration::from_secs(2)).await;
    let more = client.write_all(preface).await;
    more.expect_err("nobody reads any more");
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_head_is_dropped() {
    let running = start(Limits {
        header_time: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    for words in [&b""[..], b"PRI * HT", b"GET / HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = connect(&running).await;
        stream.write_all(words).await.expect("written");
        assert!(
            !read_to_end(&mut stream).await.contains("200 OK"),
            "{words:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_sends_nothing_more_is_dropped_but_not_while_it_waits_for_its_answer() {
    let running = start(Limits::default()).await;
    let mut waiting = connect(&running).await;
    waiting
        .write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    let mut idle = connect(&running).await;
    idle.write_all(GET).await.expect("written");
    read_until(&mut idle, "/ 0").await;
    until(|| running.waiting.load(Ordering::SeqCst) == 1).await;
    pass(Limits::default().idle_time * 4).await;
    assert_eq!(read_to_end(&mut idle).await, "");
    running.gate.notify_one();
    read_until(&mut waiting, "/wait 0").await;
}

/// Lets `time` pass at once for the server's timers, and all that is ready run: paused time goes on
/// only when nothing is.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    sleep(Duration::from_millis(1)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn case_20_a_connection_may_idle_between_two_pongs_of_a_polling_client() {
    let running = start(Limits::default()).await;
    let mut stream = connect(&running).await;
    for _ in 0..3 {
        stream.write_all(GET).await.expect("written");
        let text = read_until(&mut stream, "/ 0").await;
        assert!(text.contains("keep-alive: timeout=90\r\n"), "{text}");
        pass(Duration::from_secs(60)).await;
    }
    stream.write_all(GET).await.expect("written");
    read_until(&mut stream, "/ 0").await;
    pass(Limits::default().idle_time).await;
    assert_eq!(read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn a_later_head_that_comes_in_pieces_is_bounded_too() {
    let running = start(Limits::default()).await;
    let mut stream = connect(&running).await;
    stream.write_all(GET).await.expect("written");
    read_until(&mut stream, "/ 0").await;
    for piece in GET.chunks(4).take(3) {
        stream.write_all(piece).await.expect("written");
        pass(Limits::default().idle_time / 3).await;
    }
    assert_eq!(read_to_end(&mut stream).await, "");
}

/// A connection over a short line, for tests in which time is played; each request is answered with
/// `answer`.
fn play(answer: &'static [u8]) -> DuplexStream {
    play_with(move || Full::from(answer))
}

fn play_with<B>(answer: impl Fn() -> B + Send + Sync + 'static) -> DuplexStream
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (client, server) = tokio::io::duplex(16 * 1024);
    let handler =
        Arc::new(move |_: Request<Incoming>, _: Peer| std::future::ready(Response::new(answer())));
    let (connections, arrival) = (connections(), arrival());
    tokio::spawn(async move { connections.http(server, arrival, false, handler).await });
    client
}

fn connections() -> Connections {
    Connections {
        builder: builder(),
        limits: Limits::default(),
        tls: None,
        shutdown: CancellationToken::new(),
        abort: CancellationToken::new(),
    }
}

fn arrival() -> Arrival {
    Arrival {
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        at: Instant::now(),
        slot: Arc::new(()),
        unfinished: Counts::new(&Limits::default())
            .unfinished
            .enter([127, 0, 0, 1].into())
            .0,
    }
}

const LONG: &[u8] = &[b'x'; 1 << 20];

#[tokio::test(start_paused = true)]
async fn an_answer_is_not_cut_off_while_its_client_takes_it() {
    let mut client = play(LONG);
    client.write_all(GET).await.expect("written");
    let (mut part, mut body) = ([0; 16 * 1024], 0);
    let began = Instant::now();
    while body < LONG.len() {
        sleep(Limits::default().idle_time / 4).await;
        let read = client.read(&mut part).await.expect("readable");
        assert!(
            read > 0,
            "cut off after {body} bytes, {:?}",
            began.elapsed()
        );
        body += part[..read].iter().filter(|byte| **byte == b'x').count();
    }
    assert!(began.elapsed() > 10 * Limits::default().idle_time);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_its_client_does_not_take_is_cut_off() {
    let mut client = play(LONG);
    client.write_all(GET).await.expect("written");
    sleep(2 * (Limits::default().idle_time + SHUTDOWN_GRACE)).await;
    let mut text = Vec::new();
    // A broken pipe counts as an end too.
    let _ = client.read_to_end(&mut text).await;
    assert!(text.starts_with(b"HTTP/1.1 200") && text.len() < LONG.len());
}

/// Gives a part and, when that is out, fails.
struct Breaking(Option<Bytes>, bool);

impl Body for Breaking {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, io::Error>>> {
        if let Some(part) = self.0.take() {
            return Poll::Ready(Some(Ok(hyper::body::Frame::data(part))));
        }
        if !std::mem::replace(&mut self.1, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
    }
}

#[tokio::test]
async fn an_answer_whose_rest_cannot_be_had_ends_the_connection_unfinished() {
    let mut client = play_with(|| Breaking(Some(Bytes::from_static(b"begun")), false));
    client.write_all(GET).await.expect("written");
    let text = read_to_end(&mut client).await;
    assert!(text.contains("transfer-encoding: chunked"), "{text}");
    assert!(text.ends_with("5\r\nbegun\r\n"), "no last chunk: {text}");
}

#[test]
fn what_would_fill_the_log_is_said_once_a_minute() {
    let (mut seldom, start) = (Seldom::default(), Instant::now());
    let said: Vec<u64> = (0..200)
        .filter(|second| seldom.may_say(start + Duration::from_secs(*second)))
        .collect();
    assert_eq!(said, [0, 60, 120, 180]);
}

#[tokio::test]
async fn one_port_is_listened_on_at_several_addresses() {
    let addrs: [SocketAddr; 3] = [
        ([127, 0, 0, 1], 0).into(),
        // Kept for documentation: no machine has it.
        ([192, 0, 2, 1], 0).into(),
        ([127, 0, 0, 2], 0).into(),
    ];
    let server = Server::bind(&addrs, Limits::default())
        .await
        .expect("one will do");
    let addrs = server.local_addrs().expect("they are bound");
    assert_eq!(addrs.len(), 2, "{addrs:?}");
    assert_eq!(addrs[0].port(), addrs[1].port());
    let handler = Arc::new(|_: Request<Incoming>, _: Peer| {
        std::future::ready(Response::new(Full::from("!")))
    });
    tokio::spawn(server.serve(handler, CancellationToken::new()));
    for addr in addrs {
        let mut stream = TcpStream::connect(addr).await.expect("it listens");
        stream.write_all(GET).await.expect("written");
        read_until(&mut stream, "!").await;
    }
    let nowhere = Server::bind(&[([192, 0, 2, 1], 0).into()], Limits::default()).await;
    assert_eq!(
        nowhere.err().expect("not ours").kind(),
        io::ErrorKind::AddrNotAvailable
    );
}

#[tokio::test]
async fn too_large_heads_are_answered_not_served() {
    let running = start(Limits::default()).await;
    let many = format!(
        "GET / HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "a: b\r\n".repeat(101)
    );
    let long = format!(
        "GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n",
        "b".repeat(20_000)
    );
    for head in [many, long] {
        let mut stream = connect(&running).await;
        // The server may close before it has read all.
        let _ = stream.write_all(head.as_bytes()).await;
        let text = read_to_end(&mut stream).await;
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 431"),
            "{text}"
        );
    }
    let mut stream = connect(&running).await;
    stream.write_all(GET).await.expect("written");
    read_until(&mut stream, "/ 0").await;
}

#[tokio::test]
async fn a_panic_ends_its_connection_only() {
    let running = start(Limits::default()).await;
    let mut other = connect(&running).await;
    other.write_all(GET).await.expect("written");
    read_until(&mut other, "/ 0").await;
    let mut stream = connect(&running).await;
    stream
        .write_all(b"GET /panic HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    assert_eq!(read_to_end(&mut stream).await, "");
    other.write_all(GET).await.expect("written");
    read_until(&mut other, "/ 0").await;
}

#[tokio::test]
async fn shutdown_finishes_what_is_in_work_and_takes_nothing_new() {
    let running = start(Limits {
        drain_time: PATIENCE,
        ..Limits::default()
    })
    .await;
    let (mut busy, mut idle, mut fresh) = (
        connect(&running).await,
        connect(&running).await,
        connect(&running).await,
    );
    busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    idle.write_all(GET).await.expect("written");
    read_until(&mut idle, "/ 0").await;
    fresh.write_all(b"GET").await.expect("written");
    until(|| running.waiting.load(Ordering::SeqCst) == 1).await;
    running.shutdown.cancel();
    assert_eq!(read_to_end(&mut idle).await, "");
    until(|| std::net::TcpStream::connect(running.addr).is_err()).await;
    running.gate.notify_one();
    assert!(read_to_end(&mut busy).await.contains("/wait 0"));
    drop(fresh);
    timeout(PATIENCE, running.task)
        .await
        .expect("serve returns")
        .expect("without a panic");
}

#[tokio::test]
async fn shutdown_drops_what_is_not_finished_in_time() {
    let running = start(Limits {
        drain_time: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let mut busy = connect(&running).await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    until(|| running.waiting.load(Ordering::SeqCst) == 1).await;
    running.shutdown.cancel();
    assert_eq!(read_to_end(&mut busy).await, "");
    timeout(PATIENCE, running.task)
        .await
        .expect("serve returns")
        .expect("without a panic");
}
