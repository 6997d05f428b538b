//! What the layer above has beside answers is pulled by the session. In memory, in paused time.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use satwatch::engineio::{
    CloseReason, Config, Handler, Handshake, Message, MessageGroup, Outbox, Service, Work,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite;

use super::engineio_rig::{Socket, settle, sid_of, within};

/// Has what a test gave it, and echoes.
#[derive(Default)]
struct Source {
    waiting: Mutex<Waiting>,
    release: Arc<Notify>,
}

#[derive(Default)]
struct Waiting {
    groups: VecDeque<MessageGroup>,
    waker: Option<Waker>,
    outboxes: Vec<Outbox>,
    /// How often the session asked.
    asked: usize,
    /// Groups that are as many as may wait.
    limit: Option<usize>,
}

impl Source {
    fn with<T>(&self, look: impl FnOnce(&mut Waiting) -> T) -> T {
        look(&mut self.waiting.lock().expect("no test panics under this lock"))
    }

    fn give(&self, texts: impl IntoIterator<Item = String>) {
        let waker = self.with(|waiting| {
            let groups = texts
                .into_iter()
                .map(|text| MessageGroup::One(Message::text(&text)));
            waiting.groups.extend(groups);
            waiting.waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn asked(&self) -> usize {
        self.with(|waiting| waiting.asked)
    }

    fn left(&self) -> usize {
        self.with(|waiting| waiting.groups.len())
    }
}

impl Handler for Source {
    type Session = Outbox;

    fn open(&self, outbox: Outbox, _: Handshake) -> Arc<Outbox> {
        self.with(|waiting| waiting.outboxes.push(outbox.clone()));
        Arc::new(outbox)
    }

    fn message(&self, outbox: &Arc<Outbox>, message: Message) -> Option<Work> {
        if message == Message::text("work") {
            let (release, outbox) = (self.release.clone(), outbox.clone());
            return Some(Box::pin(async move {
                release.notified().await;
                answer(&outbox, Message::text("worked"));
            }));
        }
        if message == Message::text("pulled") {
            self.with(|waiting| {
                waiting.groups.push_back(MessageGroup::One(message));
                let limit = waiting.limit.unwrap_or(usize::MAX);
                assert!(waiting.groups.len() <= limit);
            });
            return None;
        }
        answer(outbox, message);
        None
    }

    fn is_full(&self, _: &Arc<Outbox>) -> bool {
        self.with(|waiting| {
            let limit = waiting.limit;
            limit.is_some_and(|limit| waiting.groups.len() >= limit)
        })
    }

    fn poll_next(&self, _: &Arc<Outbox>, cx: &mut Context<'_>) -> Poll<MessageGroup> {
        self.with(|waiting| {
            waiting.asked += 1;
            match waiting.groups.pop_front() {
                Some(group) => Poll::Ready(group),
                None => {
                    waiting.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
    }

    fn close(&self, _: &Arc<Outbox>, _: CloseReason) {}
}

fn answer(outbox: &Outbox, message: Message) {
    outbox
        .try_send(MessageGroup::One(message))
        .expect("the outbox has room");
}

fn numbers(numbers: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    numbers.map(|number| number.to_string())
}

fn service() -> Service<Source> {
    Service::new(Config::default(), Source::default())
}

pub async fn serve<H, S>(service: Service<H>, stream: S)
where
    H: Handler,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request: Request<Incoming>| {
        let answer = service.handle(request, Some(Ipv4Addr::LOCALHOST.into()));
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    // A client that leaves is an error here.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades()
        .await;
}

/// A stream that counts what is written to it.
struct Counted {
    stream: DuplexStream,
    writes: Writes,
}

/// Bytes of each write.
type Writes = Arc<Mutex<Vec<usize>>>;

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = &written {
            let mut writes = self.writes.lock().expect("no test panics under this lock");
            writes.push(*count);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn websocket(service: &Service<Source>, capacity: usize) -> Socket<DuplexStream> {
    counted_websocket(service, capacity).await.0
}

/// A session on a WebSocket past its open packet; the stream holds this many bytes each way.
async fn counted_websocket(
    service: &Service<Source>,
    capacity: usize,
) -> (Socket<DuplexStream>, Writes) {
    let (ours, stream) = tokio::io::duplex(capacity);
    let writes = Writes::default();
    let theirs = Counted {
        stream,
        writes: writes.clone(),
    };
    tokio::spawn(serve(service.clone(), theirs));
    let url = "ws://x/engine.io/?EIO=4&transport=websocket";
    let (socket, _) = within(tokio_tungstenite::client_async(url, ours))
        .await
        .expect("a 101");
    let mut socket = Socket(socket);
    assert!(socket.text().await.starts_with("0{"));
    settle().await;
    writes
        .lock()
        .expect("no test panics under this lock")
        .clear();
    (socket, writes)
}

pub async fn http<H: Handler>(
    service: &Service<H>,
    method: Method,
    sid: &str,
    body: &str,
) -> String {
    let request = Request::builder()
        .method(method)
        .uri(format!("/engine.io/?EIO=4&transport=polling{sid}"))
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .expect("all parts are legal");
    let answer = within(service.handle(request, None)).await.into_body();
    let bytes = answer.collect().await.expect("it is whole").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[tokio::test(start_paused = true)]
async fn pull_begins_at_the_opening_and_goes_on_when_woken() {
    let service = service();
    service.handler().give(numbers(0..3));
    let mut socket = websocket(&service, 1024).await;
    for expected in ["40", "41", "42"] {
        assert_eq!(socket.text().await, expected);
    }
    settle().await;
    let asked = service.handler().asked();
    settle().await;
    assert_eq!(service.handler().asked(), asked, "it waits for the waker");
    service.handler().with(|waiting| {
        waiting.waker = None;
        waiting.outboxes.iter().for_each(Outbox::wake);
    });
    settle().await;
    assert_eq!(service.handler().asked(), asked + 1, "or for this");
    service.handler().give(numbers(3..5));
    assert_eq!(socket.text().await, "43");
    assert_eq!(socket.text().await, "44");
}

#[tokio::test(start_paused = true)]
async fn pull_rests_while_work_runs_and_comes_before_the_next_packet_is_taken() {
    let service = service();
    let mut socket = websocket(&service, 1024).await;
    socket.send("4work").await;
    socket.send("4next").await;
    settle().await;
    let asked = service.handler().asked();
    service.handler().give(numbers(0..2));
    settle().await;
    assert_eq!(
        (service.handler().asked(), service.handler().left()),
        (asked, 2)
    );
    service.handler().release.notify_one();
    assert_eq!(socket.text().await, "4worked");
    for expected in ["40", "41", "4next"] {
        assert_eq!(socket.text().await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn packets_are_not_taken_while_the_layer_above_is_full() {
    let service = service();
    service.handler().with(|waiting| waiting.limit = Some(4));
    let socket = websocket(&service, 64).await;
    let (mut sink, mut stream) = socket.0.split();
    let sent = tokio::spawn(async move {
        for _ in 0..100 {
            let message = tungstenite::Message::text("4pulled");
            within(sink.send(message)).await.expect("the server reads");
        }
    });
    settle().await;
    assert!(!sent.is_finished() && service.handler().left() == 4);
    for _ in 0..100 {
        let message = within(stream.next()).await.expect("open").expect("a frame");
        assert_eq!(message.into_text().expect("text").as_str(), "4pulled");
    }
    sent.await.expect("all is read");
}

#[tokio::test(start_paused = true)]
async fn write_takes_all_that_waits_in_order() {
    let service = service();
    let (mut socket, writes) = counted_websocket(&service, 1 << 20).await;
    let written = || {
        writes
            .lock()
            .expect("no test panics under this lock")
            .split_off(0)
    };
    service.handler().give(numbers(0..2));
    for expected in ["40", "41"] {
        assert_eq!(socket.text().await, expected);
    }
    assert_eq!(written(), [2 * 4], "two messages, one write");
    let outbox = service.handler().with(|waiting| waiting.outboxes.remove(0));
    service.handler().give(numbers(2..4));
    answer(&outbox, Message::text("a"));
    answer(&outbox, Message::text("b"));
    for expected in ["4a", "4b", "42", "43"] {
        assert_eq!(socket.text().await, expected);
    }
    assert_eq!(written(), [4 * 4], "answers first");
    let long = "x".repeat(40_000);
    service
        .handler()
        .give(["a".into(), long.clone(), "b".into()]);
    for expected in ["a", &long, "b"] {
        assert_eq!(socket.text().await, format!("4{expected}"));
    }
    let size = 16 << 10;
    let rest = 40_001 - 2 * size;
    assert_eq!(
        written(),
        [4, size + 4, size + 4, rest + 4, 4],
        "a long message goes alone, in fragments"
    );
    service.handler().give((0..40).map(|_| "x".repeat(999)));
    for _ in 0..40 {
        socket.text().await;
    }
    assert_eq!(written(), [16 * 1004, 16 * 1004, 8 * 1004]);
}

#[tokio::test(start_paused = true)]
async fn pull_takes_no_more_than_a_slow_client_reads() {
    let service = service();
    let mut socket = websocket(&service, 256).await;
    let text = |number: usize| format!("{number:0>1000}");
    service.handler().give((0..100).map(text));
    settle().await;
    let left = service.handler().left();
    assert!(left >= 80, "{left}");
    for number in 0..100 {
        assert_eq!(socket.text().await, format!("4{}", text(number)));
    }
}

#[tokio::test(start_paused = true)]
async fn pull_answers_a_waiting_poll_with_all_that_fits() {
    let service = service();
    let sid = sid_of(&http(&service, Method::GET, "", "").await);
    let sid = format!("&sid={sid}");
    service.handler().give(numbers(0..20));
    settle().await;
    assert_eq!(service.handler().asked(), 0, "no poll is waiting");
    let poll = async |range| {
        let body = http(&service, Method::GET, &sid, "").await;
        let expected: Vec<_> = numbers(range).map(|number| format!("4{number}")).collect();
        assert_eq!(body, expected.join("\u{1e}"));
    };
    poll(0..16).await;
    poll(16..20).await;
    let later = async {
        settle().await;
        service.handler().give(numbers(20..22));
    };
    tokio::join!(poll(20..22), later);
    assert_eq!(http(&service, Method::POST, &sid, "4a").await, "ok");
    service.handler().give(numbers(22..23));
    let body = http(&service, Method::GET, &sid, "").await;
    assert_eq!(body, "4a\u{1e}422", "answers first");
}

#[tokio::test(start_paused = true)]
async fn pull_ends_when_the_session_is_closing() {
    let service = service();
    let mut socket = websocket(&service, 1024).await;
    settle().await;
    let asked = service.handler().asked();
    let outbox = service.handler().with(|waiting| waiting.outboxes.remove(0));
    service.handler().give(numbers(0..1));
    answer(&outbox, Message::text("last"));
    outbox.close(CloseReason::ForcedClose);
    assert_eq!(socket.text().await, "4last");
    socket.closed().await;
    assert_eq!(
        (service.handler().asked(), service.handler().left()),
        (asked, 1)
    );
}
