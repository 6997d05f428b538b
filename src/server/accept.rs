//! Taking connections from the system, and turning away those that are too many.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::usage::{Counts, UnfinishedPlace};
use super::{ConnectionSlot, tls};

/// Between two log lines that say the same.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// How many that are turned away are told why at a time, without a slot; the rest is dropped.
const TOLD: usize = 64;
/// How long that may take for one of them.
pub(super) const TELLING: Duration = Duration::from_secs(1);

/// Seconds after which somebody who was turned away may try again.
const RETRY_AFTER: u32 = 10;

/// A connection that may be served.
pub(super) struct Accepted {
    pub stream: TcpStream,
    pub arrival: Arrival,
}

/// Who has come when, and what is held for them.
pub(super) struct Arrival {
    pub address: SocketAddr,
    pub at: Instant,
    pub slot: ConnectionSlot,
    pub unfinished: UnfinishedPlace,
}

/// Takes connections, one after the other.
pub(super) struct Acceptor<'a> {
    listeners: &'a [TcpListener],
    counts: Arc<Counts>,
    /// Whether clients can be told something before they have shaken hands.
    plain: bool,
    telling: Arc<Semaphore>,
    full: Seldom,
    failing: Seldom,
    crowded: Seldom,
    displacing: Seldom,
}

impl<'a> Acceptor<'a> {
    pub(super) fn new(listeners: &'a [TcpListener], counts: Arc<Counts>, plain: bool) -> Self {
        Self {
            listeners,
            counts,
            plain,
            telling: Arc::new(Semaphore::new(TOLD)),
            full: Seldom::default(),
            failing: Seldom::default(),
            crowded: Seldom::default(),
            displacing: Seldom::default(),
        }
    }

    /// The next connection. Those that are turned away are told so in `tasks`.
    pub(super) async fn next(&mut self, tasks: &TaskTracker) -> Accepted {
        loop {
            self.wait_for_room().await;
            let addresses = self.counts.addresses.clone();
            let (stream, address) = tokio::select! {
                biased;
                accepted = self.accept() => accepted,
                // The limit may be lower now.
                () = addresses.changed() => continue,
            };
            let Some(place) = self.counts.addresses.enter(address.ip()) else {
                self.turn_away(stream, address, tasks);
                continue;
            };
            let (unfinished, displaced) = self.counts.unfinished.enter(address.ip());
            let now = Instant::now();
            if displaced && self.displacing.may_say(now) {
                tracing::warn!(
                    "limits.unfinished_handshakes is reached: each further connection costs the oldest one, of the address that has most of them, that has not sent its first request"
                );
            }
            let arrival = Arrival {
                address,
                at: now,
                slot: Arc::new(place),
                unfinished,
            };
            return Accepted { stream, arrival };
        }
    }

    fn turn_away(&mut self, stream: TcpStream, address: SocketAddr, tasks: &TaskTracker) {
        if self.crowded.may_say(Instant::now()) {
            let address = address.ip().to_canonical();
            tracing::warn!(%address, "limits.connections_per_address is reached: further connections from this address are refused");
        }
        if let (true, Ok(turn)) = (self.plain, self.telling.clone().try_acquire_owned()) {
            tasks.spawn(async move {
                let _ = timeout(TELLING, tell(stream)).await;
                drop(turn);
            });
        }
    }

    async fn wait_for_room(&mut self) {
        let addresses = &self.counts.addresses;
        if !addresses.has_room() && self.full.may_say(Instant::now()) {
            tracing::warn!(
                limit = addresses.most(),
                "the limit of open connections is reached: new clients wait until others leave"
            );
        }
        addresses.room().await;
    }

    /// Errors of one connection are skipped; those of the system (out of file descriptors) are
    /// waited out.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let mut pause = Duration::from_millis(10);
        loop {
            let accepted = poll_fn(|context| {
                let mut polled = self
                    .listeners
                    .iter()
                    .map(|listener| listener.poll_accept(context));
                polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
            });
            match accepted.await {
                Ok((stream, address)) => {
                    // Events are small and must not wait for more. An error here means that the
                    // client has gone already.
                    let _ = stream.set_nodelay(true);
                    return (stream, address);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if self.failing.may_say(Instant::now()) {
                        tracing::warn!(%error, "cannot accept connections; trying again and again");
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        }
    }
}

/// 429, to whatever the client asks. What it still sends is read and thrown away, because closing a
/// TCP connection with unread bytes resets it and the client may not see the answer.
async fn tell(mut stream: TcpStream) -> io::Result<()> {
    let mut discarded = [0; 1024];
    if stream.read(&mut discarded).await? == 0 || tls::is_handshake(discarded.first().copied()) {
        return Ok(());
    }
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Retry-After: {RETRY_AFTER}\r\nConnection: close\r\n\r\n{TOO_MANY}",
        TOO_MANY.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    while stream.read(&mut discarded).await? > 0 {}
    Ok(())
}

const TOO_MANY: &str = r#"{"error": "Your address has as many connections open as limits.connections_per_address allows.", "code": "too_many_connections"}"#;

/// When something was said last that is not to fill the log.
#[derive(Debug, Default)]
pub(super) struct Seldom(Option<Instant>);

impl Seldom {
    pub(super) fn may_say(&mut self, now: Instant) -> bool {
        let may = self.0.is_none_or(|last| now - last >= LOG_INTERVAL);
        if may {
            self.0 = Some(now);
        }
        may
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
