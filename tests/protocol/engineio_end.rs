//! Sessions that the layer above wants no more end whatever their clients do. In memory, in paused
//! time.

use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Method;
use satwatch::engineio::{
    CloseReason, Config, Handler, Handshake, Message, MessageGroup, Outbox, Service, Work,
};
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;

use super::engineio_pull::{http, serve};
use super::engineio_rig::{Socket, settle, sid_of, within};

/// Wants its sessions until `end` comes.
#[derive(Default)]
struct Wanting {
    end: CancellationToken,
    seen: Arc<Mutex<Vec<String>>>,
}

struct Wanted {
    outbox: Outbox,
    end: Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// Says when it is dropped.
struct Dropped(Arc<Mutex<Vec<String>>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        note(&self.0, "work dropped".to_owned());
    }
}

fn note(seen: &Mutex<Vec<String>>, what: String) {
    seen.lock()
        .expect("no test panics under this lock")
        .push(what);
}

impl Wanting {
    fn seen(&self) -> Vec<String> {
        self.seen
            .lock()
            .expect("no test panics under this lock")
            .clone()
    }
}

impl Handler for Wanting {
    type Session = Wanted;

    fn open(&self, outbox: Outbox, _: Handshake) -> Arc<Wanted> {
        let end = Box::pin(self.end.clone().cancelled_owned());
        Arc::new(Wanted {
            outbox,
            end: Mutex::new(end),
        })
    }

    fn message(&self, session: &Arc<Wanted>, message: Message) -> Option<Work> {
        if message == Message::text("work") {
            let dropped = Dropped(self.seen.clone());
            return Some(Box::pin(async move {
                let _dropped = dropped;
                pending().await
            }));
        }
        let echo = session.outbox.try_send(MessageGroup::One(message));
        echo.expect("the outbox has room");
        None
    }

    fn poll_end(&self, session: &Arc<Wanted>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let mut end = session.end.lock().expect("no test panics under this lock");
        end.as_mut().poll(cx).map(|()| CloseReason::ForcedClose)
    }

    fn close(&self, _: &Arc<Wanted>, reason: CloseReason) {
        note(&self.seen, format!("close {reason}"));
    }
}

fn service() -> Service<Wanting> {
    Service::new(Config::default(), Wanting::default())
}

/// A session on a WebSocket past its open packet; the stream holds this many bytes each way.
async fn websocket(service: &Service<Wanting>, capacity: usize) -> Socket<DuplexStream> {
    let (ours, theirs) = tokio::io::duplex(capacity);
    tokio::spawn(serve(service.clone(), theirs));
    let url = "ws://x/engine.io/?EIO=4&transport=websocket";
    let (socket, _) = within(tokio_tungstenite::client_async(url, ours))
        .await
        .expect("a 101");
    let mut socket = Socket(socket);
    assert!(socket.text().await.starts_with("0{"));
    settle().await;
    socket
}

async fn polling(service: &Service<Wanting>) -> String {
    let sid = sid_of(&http(service, Method::GET, "", "").await);
    settle().await;
    format!("&sid={sid}")
}

/// What "within a second" leaves to a session after its end is known.
async fn moment() {
    tokio::time::sleep(Duration::from_millis(510)).await;
}

#[tokio::test(start_paused = true)]
async fn session_whose_client_does_not_poll_ends_at_once() {
    let service = service();
    polling(&service).await;
    service.handler().end.cancel();
    moment().await;
    assert_eq!(service.handler().seen(), ["close forced close"]);
    assert_eq!(service.session_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn client_that_polls_in_that_moment_is_told() {
    let service = service();
    let (waits, comes) = (polling(&service).await, polling(&service).await);
    let wait = http(&service, Method::GET, &waits, "");
    let end = async {
        settle().await;
        service.handler().end.cancel();
    };
    assert_eq!(tokio::join!(wait, end).0, "1");
    let body = http(&service, Method::GET, &comes, "").await;
    assert_eq!(body, "6\u{1e}1");
    assert_eq!(service.session_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn session_whose_client_does_not_read_ends_at_once() {
    let service = service();
    let mut socket = websocket(&service, 512).await;
    for _ in 0..6 {
        socket.send(&format!("4{}", "x".repeat(200))).await;
    }
    settle().await;
    service.handler().end.cancel();
    moment().await;
    assert_eq!(service.handler().seen(), ["close forced close"]);
    assert_eq!(service.session_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn work_under_way_is_dropped_with_the_end() {
    let service = service();
    let mut socket = websocket(&service, 1024).await;
    socket.send("4a").await;
    socket.send("4work").await;
    socket.send("4later").await;
    assert_eq!(socket.text().await, "4a");
    settle().await;
    assert_eq!(service.handler().seen(), [""; 0]);
    service.handler().end.cancel();
    assert_eq!(socket.closed().await, None);
    settle().await;
    let seen = service.handler().seen();
    assert_eq!(seen, ["work dropped", "close forced close"]);
}
