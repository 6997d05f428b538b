//! The node's ZMQ feed: one thread that receives, stamps and counts, and does nothing else.
//!
//! The receive queue is unbounded in libzmq (a full one makes heartbeats abort the process, and
//! loses messages) and drained at once into a queue that is bounded in bytes. When that is full,
//! messages are dropped and the topic is told to have a gap. Subscriptions are sent again after a
//! reconnect only while the thread polls the socket: hence nothing else happens here.

mod message;

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

pub use message::{MessageBody, Sequence, SequenceEvent, ZmqMessage, ZmqTopic};
use message::{Order, SequenceCounter, parse};

/// No part of the interface: for the fuzz targets alone.
#[doc(hidden)]
pub mod internals {
    pub use super::message::{Order, SequenceCounter, parse};
}

use super::Endpoints;
use super::http::is_out_of_files;
use crate::clock::now_ms;

/// Bytes that may wait for the follower: some forty of the largest blocks.
const QUEUE_BYTES: usize = 160 << 20;
/// Four times the largest block. A publisher that sends more is none of ours: libzmq ends the
/// connection.
const MESSAGE_BYTES: i64 = 16 << 20;
/// What a queued notice takes beside its body.
const NOTICE_BYTES: usize = 128;
/// How long the thread sleeps at most before it looks whether it should end, in milliseconds.
const POLL: i64 = 100;
/// libzmq gives up for good on a peer that breaks the protocol; so a socket that does not come up
/// is replaced after this.
const RENEWAL: Duration = Duration::from_secs(5);
/// Messages taken from one link before the others have their turn.
const TURN: usize = 512;

#[derive(Debug, PartialEq, Eq)]
pub enum Notice {
    Message(ZmqMessage),
    /// Messages of this topic were lost before the next one.
    Gap {
        topic: ZmqTopic,
        lost: u64,
    },
    /// The topic's numbers started again: the node was restarted.
    Restarted(ZmqTopic),
    /// These topics are being received from now on; what came before may be lost.
    Connected(Vec<ZmqTopic>),
    Disconnected(Vec<ZmqTopic>),
}

/// A notice and when it was received, in milliseconds since the Unix epoch.
#[derive(Debug, PartialEq, Eq)]
pub struct Stamped {
    pub at: u64,
    pub notice: Notice,
}

/// The receiving end. Dropping it ends the thread.
pub struct Feed {
    notices: mpsc::UnboundedReceiver<Stamped>,
    queued: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Feed {
    /// Starts the thread, if there is anything to subscribe. Connecting goes on for ever in the
    /// background.
    pub fn open(endpoints: &Endpoints) -> Result<Option<Self>, zmq::Error> {
        let context = zmq::Context::new();
        let links = group(endpoints)
            .into_iter()
            .map(|(endpoint, topics)| Link::open(&context, &endpoint, topics, 0))
            .collect::<Result<Vec<_>, _>>()?;
        if links.is_empty() {
            return Ok(None);
        }
        let (sender, notices) = mpsc::unbounded_channel();
        let (queued, stop) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let queue = NoticeQueue {
            sender,
            queued: queued.clone(),
            dropped: [0; 3],
        };
        let stopped = stop.clone();
        // The links go before the context, which waits for them.
        let run = move || {
            receive(&context, links, queue, &stopped);
            drop(context);
        };
        thread::Builder::new()
            .name("zmq".into())
            .spawn(run)
            .expect("the system can start one more thread");
        Ok(Some(Self {
            notices,
            queued,
            stop,
        }))
    }

    /// The next notice. `None` if the thread died.
    pub async fn recv(&mut self) -> Option<Stamped> {
        let stamped = self.notices.recv().await?;
        self.queued
            .fetch_sub(weight(&stamped.notice), Ordering::Relaxed);
        Some(stamped)
    }

    /// A notice that is waiting already.
    pub fn try_recv(&mut self) -> Option<Stamped> {
        let stamped = self.notices.try_recv().ok()?;
        self.queued
            .fetch_sub(weight(&stamped.notice), Ordering::Relaxed);
        Some(stamped)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn weight(notice: &Notice) -> usize {
    match notice {
        Notice::Message(ZmqMessage {
            body: MessageBody::Tx(raw) | MessageBody::Block(raw),
            ..
        }) => raw.len() + NOTICE_BYTES,
        _ => NOTICE_BYTES,
    }
}

/// The sending end: bounded in bytes, never waits.
struct NoticeQueue {
    sender: mpsc::UnboundedSender<Stamped>,
    queued: Arc<AtomicUsize>,
    /// Per topic, since there was room last.
    dropped: [u64; 3],
}

impl NoticeQueue {
    fn message(&mut self, at: u64, frame: ZmqMessage) {
        let topic = frame.topic;
        let notice = Notice::Message(frame);
        if self
            .queued
            .load(Ordering::Relaxed)
            .saturating_add(weight(&notice))
            > QUEUE_BYTES
        {
            self.dropped[topic.index()] += 1;
            return;
        }
        self.tell_losses(at);
        self.push(at, notice);
    }

    /// Tells what was dropped when there is room again: no later message may come that would.
    fn catch_breath(&mut self) {
        if self.dropped != [0; 3] && self.queued.load(Ordering::Relaxed) <= QUEUE_BYTES / 2 {
            self.tell_losses(now_ms());
        }
    }

    fn tell_losses(&mut self, at: u64) {
        for topic in ZmqTopic::ALL {
            let lost = std::mem::take(&mut self.dropped[topic.index()]);
            if lost > 0 {
                self.push(at, Notice::Gap { topic, lost });
            }
        }
    }

    /// Few and small: without a bound.
    fn push(&mut self, at: u64, notice: Notice) {
        self.queued.fetch_add(weight(&notice), Ordering::Relaxed);
        // An error means that the follower has gone; the thread is told to stop in the same moment.
        let _ = self.sender.send(Stamped { at, notice });
    }
}

/// Topics by address: two sockets on one address would double the traffic, one socket on two
/// addresses would receive a topic twice when both publish it.
fn group(endpoints: &Endpoints) -> Vec<(String, Vec<ZmqTopic>)> {
    let mut groups: Vec<(String, Vec<ZmqTopic>)> = Vec::new();
    let topics = [
        (ZmqTopic::Rawtx, &endpoints.rawtx),
        (ZmqTopic::Rawblock, &endpoints.rawblock),
        (ZmqTopic::Sequence, &endpoints.sequence),
    ];
    for (topic, endpoint) in topics {
        let Some(endpoint) = endpoint else { continue };
        match groups.iter_mut().find(|(known, _)| known == endpoint) {
            Some((_, topics)) => topics.push(topic),
            None => groups.push((endpoint.clone(), vec![topic])),
        }
    }
    groups
}

/// One address: its SUB socket, and the PAIR socket that tells of connections.
struct Link {
    endpoint: String,
    topics: Vec<ZmqTopic>,
    sub: zmq::Socket,
    monitor: zmq::Socket,
    counters: [SequenceCounter; 3],
    connected: bool,
    /// How many times the sockets were replaced.
    attempt: u32,
    /// Since when it has been as it is, connected or not.
    since: Instant,
}

impl Link {
    fn open(
        context: &zmq::Context,
        endpoint: &str,
        topics: Vec<ZmqTopic>,
        attempt: u32,
    ) -> Result<Self, zmq::Error> {
        let sub = context.socket(zmq::SUB)?;
        sub.set_ipv6(speaks_ipv6(endpoint, attempt))?;
        sub.set_linger(0)?;
        sub.set_rcvhwm(0)?;
        sub.set_maxmsgsize(MESSAGE_BYTES)?;
        sub.set_reconnect_ivl(50)?;
        sub.set_reconnect_ivl_max(1000)?;
        sub.set_handshake_ivl(5000)?;
        // A frozen node is noticed within some seconds. Safe only together with an unbounded
        // receive queue.
        sub.set_heartbeat_ivl(1000)?;
        sub.set_heartbeat_timeout(3000)?;
        // A name for each socket: that of a replaced one is still in use.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let place = format!(
            "inproc://monitor-{}",
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        sub.monitor(&place, zmq::SocketEvent::ALL as i32)?;
        let monitor = context.socket(zmq::PAIR)?;
        monitor.set_linger(0)?;
        monitor.connect(&place)?;
        for topic in &topics {
            sub.set_subscribe(topic.name().as_bytes())?;
        }
        sub.connect(endpoint)?;
        let endpoint = endpoint.to_owned();
        Ok(Self {
            endpoint,
            topics,
            sub,
            monitor,
            counters: Default::default(),
            connected: false,
            attempt,
            since: Instant::now(),
        })
    }

    /// Replaces the sockets if they have not come up for long.
    fn renew(&mut self, context: &zmq::Context) {
        if self.connected || self.since.elapsed() < RENEWAL {
            return;
        }
        self.since = Instant::now();
        // Sockets may be short for the moment; the old ones stay, and it is tried again.
        let attempt = self.attempt.wrapping_add(1);
        if let Ok(fresh) = Self::open(context, &self.endpoint, self.topics.clone(), attempt) {
            *self = Self {
                counters: self.counters,
                ..fresh
            };
        }
    }

    /// Takes what the monitor says. True if the connection came up: it may be announced after the
    /// next look at the socket.
    fn watch(&mut self, queue: &mut NoticeQueue) -> bool {
        let mut up = false;
        while let Ok(frames) = self.monitor.recv_multipart(zmq::DONTWAIT) {
            let event = event_of(&frames);
            if event == Some(zmq::SocketEvent::HANDSHAKE_SUCCEEDED as u16) {
                up = true;
                (self.connected, self.since) = (true, Instant::now());
            } else if event == Some(zmq::SocketEvent::DISCONNECTED as u16) {
                up = false;
                if std::mem::take(&mut self.connected) {
                    self.since = Instant::now();
                    queue.push(now_ms(), Notice::Disconnected(self.topics.clone()));
                }
            }
        }
        up
    }

    /// Takes what the monitor says. True if a publisher has answered.
    fn answered(&self) -> bool {
        let mut answered = false;
        while let Ok(frames) = self.monitor.recv_multipart(zmq::DONTWAIT) {
            answered |= event_of(&frames) == Some(zmq::SocketEvent::HANDSHAKE_SUCCEEDED as u16);
        }
        answered
    }

    /// Takes what waits on the socket, within its turn. True if there may be more.
    fn drain(&mut self, queue: &mut NoticeQueue) -> bool {
        for _ in 0..TURN {
            match self.sub.recv_multipart(zmq::DONTWAIT) {
                Ok(frames) => self.take(frames, queue),
                Err(zmq::Error::EINTR) => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn take(&mut self, frames: Vec<Vec<u8>>, queue: &mut NoticeQueue) {
        let at = now_ms();
        let Some(frame) = parse(frames).filter(|frame| self.topics.contains(&frame.topic)) else {
            return;
        };
        let topic = frame.topic;
        match self.counters[topic.index()].observe(frame.number) {
            Order::Next => {}
            Order::Lost(lost) => queue.push(
                at,
                Notice::Gap {
                    topic,
                    lost: lost.into(),
                },
            ),
            Order::Restarted => queue.push(at, Notice::Restarted(topic)),
        }
        queue.message(at, frame);
    }
}

/// What the monitor tells with these frames.
fn event_of(frames: &[Vec<u8>]) -> Option<u16> {
    let number = frames.first()?.first_chunk::<2>()?;
    Some(u16::from_le_bytes(*number))
}

/// Whether sockets for an endpoint are to speak IPv6, at the `attempt`th attempt: what the address
/// is, and for a name one and the other in turn. (libzmq takes only the first address of a name,
/// and with IPv6 that is not one of IPv4 as soon as the name has both, as `localhost` mostly has.)
fn speaks_ipv6(endpoint: &str, attempt: u32) -> bool {
    let Some(authority) = endpoint.strip_prefix("tcp://") else {
        return false;
    };
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    match host.strip_prefix('[') {
        Some(_) => true,
        None => host.parse::<Ipv4Addr>().is_err() && attempt % 2 == 1,
    }
}

fn receive(
    context: &zmq::Context,
    mut links: Vec<Link>,
    mut queue: NoticeQueue,
    stop: &AtomicBool,
) {
    let mut more = false;
    while !stop.load(Ordering::Relaxed) {
        let mut items: Vec<_> = links
            .iter()
            .flat_map(|link| {
                [
                    link.sub.as_poll_item(zmq::POLLIN),
                    link.monitor.as_poll_item(zmq::POLLIN),
                ]
            })
            .collect();
        // An error is a signal that came in between (EINTR); the sockets are looked at in any case.
        let _ = zmq::poll(&mut items, if more { 0 } else { POLL });
        drop(items);
        more = false;
        queue.catch_breath();
        for link in &mut links {
            link.renew(context);
            let up = link.watch(&mut queue);
            more |= link.drain(&mut queue);
            if up {
                // The look at the socket sent the subscriptions.
                queue.push(now_ms(), Notice::Connected(link.topics.clone()));
            }
        }
    }
}

/// File descriptors of a context with two subscribers and their monitors, and some more.
const SOCKET_FILES: usize = 32;

/// Whether something that speaks ZMQ answers at an endpoint within `limit`; `None`: no file
/// descriptor was left to try it with. For `doctor`; blocks.
pub fn answers(endpoint: &str, limit: Duration) -> Option<bool> {
    // Without them libzmq fails in many ways, and some end the process.
    let spare = (0..SOCKET_FILES).map(|_| File::open("/dev/null"));
    if let Err(error) = spare.collect::<io::Result<Vec<_>>>()
        && is_out_of_files(&error)
    {
        return None;
    }
    let deadline = Instant::now() + limit;
    let context = zmq::Context::new();
    let open = |attempt| Link::open(&context, endpoint, vec![ZmqTopic::Sequence], attempt).ok();
    let links: Vec<Link> = [0, 1].into_iter().filter_map(open).collect();
    while Instant::now() < deadline {
        let mut items: Vec<_> = links
            .iter()
            .map(|link| link.monitor.as_poll_item(zmq::POLLIN))
            .collect();
        let _ = zmq::poll(&mut items, 50);
        if links.iter().any(Link::answered) {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(topic: &str, body: &[u8], number: u32) -> Vec<Vec<u8>> {
        vec![
            topic.as_bytes().to_vec(),
            body.to_vec(),
            number.to_le_bytes().to_vec(),
        ]
    }

    #[test]
    fn sockets_speak_what_the_address_is_and_both_for_a_name() {
        for (endpoint, first, second) in [
            ("tcp://127.0.0.1:28332", false, false),
            ("tcp://[::1]:28332", true, true),
            ("tcp://localhost:28332", false, true),
            ("ipc:///run/zmq.sock", false, false),
        ] {
            let speaks = [0, 1, 2].map(|attempt| speaks_ipv6(endpoint, attempt));
            assert_eq!(speaks, [first, second, first], "{endpoint}");
        }
    }

    #[test]
    fn a_full_queue_drops_and_tells_the_gap_when_there_is_room() {
        let (sender, mut notices) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(QUEUE_BYTES));
        let mut queue = NoticeQueue {
            sender,
            queued: queued.clone(),
            dropped: [0; 3],
        };
        let message = |number| ZmqMessage {
            topic: ZmqTopic::Rawtx,
            number,
            body: MessageBody::Tx(vec![0; 10]),
        };
        queue.message(1, message(1));
        queue.message(2, message(2));
        queued.store(0, Ordering::Relaxed);
        queue.message(3, message(3));
        assert_eq!(
            notices.try_recv().unwrap().notice,
            Notice::Gap {
                topic: ZmqTopic::Rawtx,
                lost: 2
            }
        );
        assert_eq!(
            notices.try_recv().unwrap().notice,
            Notice::Message(message(3))
        );
        assert!(notices.try_recv().is_err());
    }

    #[test]
    fn what_a_full_queue_dropped_is_told_although_nothing_more_comes() {
        let (sender, mut notices) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(QUEUE_BYTES));
        let mut queue = NoticeQueue {
            sender,
            queued: queued.clone(),
            dropped: [0; 3],
        };
        queue.message(
            1,
            ZmqMessage {
                topic: ZmqTopic::Rawblock,
                number: 1,
                body: MessageBody::Block(vec![0; 10]),
            },
        );
        queue.catch_breath();
        assert!(notices.try_recv().is_err(), "there is no room yet");
        queued.store(0, Ordering::Relaxed);
        queue.catch_breath();
        queue.catch_breath();
        assert_eq!(
            notices.try_recv().unwrap().notice,
            Notice::Gap {
                topic: ZmqTopic::Rawblock,
                lost: 1
            }
        );
        assert!(notices.try_recv().is_err(), "it is told once");
    }

    #[test]
    fn topics_of_one_address_share_a_socket() {
        let at = |port: u16| Some(format!("tcp://127.0.0.1:{port}"));
        let endpoints = Endpoints {
            rawtx: at(1),
            rawblock: at(2),
            sequence: at(1),
        };
        let groups = group(&endpoints);
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].1, [ZmqTopic::Rawtx, ZmqTopic::Sequence]);
        assert_eq!(group(&Endpoints::default()), []);
    }

    #[tokio::test]
    async fn a_publisher_is_heard_and_its_end_is_told() {
        let context = zmq::Context::new();
        let publisher = context.socket(zmq::XPUB).unwrap();
        publisher.bind("tcp://127.0.0.1:*").unwrap();
        let endpoint = publisher.get_last_endpoint().unwrap().unwrap();
        let mut feed = Feed::open(&Endpoints {
            rawtx: Some(endpoint.clone()),
            ..Endpoints::default()
        })
        .unwrap()
        .unwrap();
        assert_eq!(
            feed.recv().await.unwrap().notice,
            Notice::Connected(vec![ZmqTopic::Rawtx])
        );
        // XPUB hears the subscription, so nothing is sent into the void.
        assert_eq!(publisher.recv_bytes(0).unwrap(), b"\x01rawtx");
        for number in [3, 5] {
            publisher
                .send_multipart(frames("rawtx", b"tx", number), 0)
                .unwrap();
        }
        let tx = |number| {
            Notice::Message(ZmqMessage {
                topic: ZmqTopic::Rawtx,
                number,
                body: MessageBody::Tx(b"tx".to_vec()),
            })
        };
        assert_eq!(feed.recv().await.unwrap().notice, tx(3));
        assert_eq!(
            feed.recv().await.unwrap().notice,
            Notice::Gap {
                topic: ZmqTopic::Rawtx,
                lost: 1
            }
        );
        assert_eq!(feed.recv().await.unwrap().notice, tx(5));
        publisher.unbind(&endpoint).unwrap();
        drop(publisher);
        assert_eq!(
            feed.recv().await.unwrap().notice,
            Notice::Disconnected(vec![ZmqTopic::Rawtx])
        );
    }

    /// libzmq never tries an address again where the protocol was broken: here by a mechanism that
    /// nobody asked for.
    #[tokio::test]
    async fn a_publisher_that_comes_where_something_else_was_is_heard() {
        use std::io::Write;
        let web = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", web.local_addr().unwrap());
        let mut feed = Feed::open(&Endpoints {
            rawtx: Some(endpoint.clone()),
            ..Endpoints::default()
        })
        .unwrap()
        .unwrap();
        let answered = thread::spawn(move || {
            let (mut socket, _) = web.accept().unwrap();
            let mut greeting = [0; 64];
            (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
            greeting[12..17].copy_from_slice(b"PLAIN");
            socket.write_all(&greeting).unwrap();
            thread::sleep(Duration::from_millis(200));
        });
        answered.join().unwrap();
        let context = zmq::Context::new();
        let publisher = context.socket(zmq::XPUB).unwrap();
        publisher.bind(&endpoint).unwrap();
        assert_eq!(
            feed.recv().await.unwrap().notice,
            Notice::Connected(vec![ZmqTopic::Rawtx])
        );
        assert_eq!(publisher.recv_bytes(0).unwrap(), b"\x01rawtx");
    }
}
