//! The node's ZMQ feed: one thread that receives, stamps and counts, and does nothing else.
//!
//! Each message has three frames (doc/zmq.md of Bitcoin Core, and seen on the wire):
//!
//! ```text
//! topic                  "rawtx" | "rawblock" | "sequence", exact; other words may share the prefix
//! body    rawtx          transaction with witness
//!         rawblock       block with witness
//!         sequence       32 bytes hash as displayed, then 'C' | 'D' (block connected, disconnected)
//!                        or 'A' | 'R' (transaction accepted, removed) and its mempool sequence, u64 little-endian
//! number  u32 little-endian, counts this topic on this address since the node's start, wraps
//! ```
//!
//! The receive queue is unbounded in libzmq (a full one makes heartbeats abort the process, and loses messages) and drained at
//! once into a queue that is bounded in bytes. When that is full, messages are dropped and the topic is told to have a gap.
//! Subscriptions are sent again after a reconnect only while the thread polls the socket: hence nothing else happens here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tokio::sync::mpsc;

use super::Endpoints;
use crate::clock::now_ms;

/// Bytes that may wait for the follower: some forty of the largest blocks.
const QUEUE_BYTES: usize = 160 << 20;
/// What a queued notice takes beside its body.
const NOTICE_BYTES: usize = 128;
/// How long the thread sleeps at most before it looks whether it should end, in milliseconds.
const POLL: i64 = 100;
/// Messages taken from one link before the others have their turn.
const TURN: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    Rawtx,
    Rawblock,
    Sequence,
}

impl Topic {
    pub const ALL: [Self; 3] = [Self::Rawtx, Self::Rawblock, Self::Sequence];

    pub fn name(self) -> &'static str {
        match self {
            Self::Rawtx => "rawtx",
            Self::Rawblock => "rawblock",
            Self::Sequence => "sequence",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Rawtx => 0,
            Self::Rawblock => 1,
            Self::Sequence => 2,
        }
    }
}

/// What a `sequence` message says. The hash is in internal byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    pub hash: [u8; 32],
    pub what: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    BlockConnected,
    BlockDisconnected,
    /// With the mempool sequence.
    Accepted(u64),
    Removed(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Tx(Vec<u8>),
    Block(Vec<u8>),
    Sequence(Sequence),
}

/// A message in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub topic: Topic,
    pub number: u32,
    pub body: Body,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Notice {
    Message(Frame),
    /// Messages of this topic were lost before the next one.
    Gap {
        topic: Topic,
        lost: u64,
    },
    /// The topic's numbers started again: the node was restarted.
    Restarted(Topic),
    /// These topics are being received from now on; what came before may be lost.
    Connected(Vec<Topic>),
    Disconnected(Vec<Topic>),
}

/// A notice and when it was received, in milliseconds since the Unix epoch.
#[derive(Debug, PartialEq, Eq)]
pub struct Stamped {
    pub at: u64,
    pub notice: Notice,
}

/// Three frames as a message; `None` for anything that is not exactly one.
pub fn parse(frames: Vec<Vec<u8>>) -> Option<Frame> {
    let [topic, body, number]: [Vec<u8>; 3] = frames.try_into().ok()?;
    let number = u32::from_le_bytes(number.try_into().ok()?);
    let (topic, body) = match topic.as_slice() {
        b"rawtx" => (Topic::Rawtx, Body::Tx(body)),
        b"rawblock" => (Topic::Rawblock, Body::Block(body)),
        b"sequence" => (Topic::Sequence, Body::Sequence(parse_sequence(&body)?)),
        _ => return None,
    };
    Some(Frame { topic, number, body })
}

fn parse_sequence(body: &[u8]) -> Option<Sequence> {
    let (hash, rest) = body.split_first_chunk::<32>()?;
    let mut hash = *hash;
    hash.reverse();
    let (label, rest) = rest.split_first()?;
    let what = match (label, rest) {
        (b'C', []) => Change::BlockConnected,
        (b'D', []) => Change::BlockDisconnected,
        (b'A', number) => Change::Accepted(u64::from_le_bytes(number.try_into().ok()?)),
        (b'R', number) => Change::Removed(u64::from_le_bytes(number.try_into().ok()?)),
        _ => return None,
    };
    Some(Sequence { hash, what })
}

/// What a message's number says about those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Next,
    Lost(u32),
    /// It went back: the node counts from 0 at its start.
    Restarted,
}

/// The numbers of one topic on one address.
#[derive(Debug, Clone, Copy, Default)]
struct Counter {
    last: Option<u32>,
}

impl Counter {
    fn observe(&mut self, number: u32) -> Order {
        let Some(last) = self.last.replace(number) else { return Order::Next };
        match number.wrapping_sub(last.wrapping_add(1)) {
            0 => Order::Next,
            // Half the range, as for TCP's numbers: farther ahead is behind.
            lost if lost < u32::MAX / 2 => Order::Lost(lost),
            _ => Order::Restarted,
        }
    }
}

/// The receiving end. Dropping it ends the thread.
pub struct Feed {
    notices: mpsc::UnboundedReceiver<Stamped>,
    queued: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Feed {
    /// Starts the thread, if there is anything to subscribe. Connecting goes on for ever in the background.
    pub fn open(endpoints: &Endpoints) -> Result<Option<Self>, zmq::Error> {
        let context = zmq::Context::new();
        let links = group(endpoints)
            .into_iter()
            .map(|(endpoint, topics)| Link::open(&context, &endpoint, topics))
            .collect::<Result<Vec<_>, _>>()?;
        if links.is_empty() {
            return Ok(None);
        }
        let (sender, notices) = mpsc::unbounded_channel();
        let (queued, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let queue = Queue { sender, queued: queued.clone(), dropped: [0; 3] };
        let stopped = stop.clone();
        // The links go before the context, which waits for them.
        let run = move || {
            receive(links, queue, &stopped);
            drop(context);
        };
        thread::Builder::new().name("zmq".into()).spawn(run).expect("the system can start one more thread");
        Ok(Some(Self { notices, queued, stop }))
    }

    /// The next notice. `None` if the thread died.
    pub async fn recv(&mut self) -> Option<Stamped> {
        let stamped = self.notices.recv().await?;
        self.queued.fetch_sub(weight(&stamped.notice), Ordering::Relaxed);
        Some(stamped)
    }

    /// A notice that is waiting already.
    pub fn try_recv(&mut self) -> Option<Stamped> {
        let stamped = self.notices.try_recv().ok()?;
        self.queued.fetch_sub(weight(&stamped.notice), Ordering::Relaxed);
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
        Notice::Message(Frame { body: Body::Tx(raw) | Body::Block(raw), .. }) => raw.len() + NOTICE_BYTES,
        _ => NOTICE_BYTES,
    }
}

/// The sending end: bounded in bytes, never waits.
struct Queue {
    sender: mpsc::UnboundedSender<Stamped>,
    queued: Arc<AtomicUsize>,
    /// Per topic, since there was room last.
    dropped: [u64; 3],
}

impl Queue {
    fn message(&mut self, at: u64, frame: Frame) {
        let topic = frame.topic;
        let notice = Notice::Message(frame);
        if self.queued.load(Ordering::Relaxed).saturating_add(weight(&notice)) > QUEUE_BYTES {
            self.dropped[topic.index()] += 1;
            return;
        }
        for topic in Topic::ALL {
            let lost = std::mem::take(&mut self.dropped[topic.index()]);
            if lost > 0 {
                self.push(at, Notice::Gap { topic, lost });
            }
        }
        self.push(at, notice);
    }

    /// Few and small: without a bound.
    fn push(&mut self, at: u64, notice: Notice) {
        self.queued.fetch_add(weight(&notice), Ordering::Relaxed);
        // An error means that the follower has gone; the thread is told to stop in the same moment.
        let _ = self.sender.send(Stamped { at, notice });
    }
}

/// Topics by address: two sockets on one address would double the traffic, one socket on two addresses would receive a topic
/// twice when both publish it.
fn group(endpoints: &Endpoints) -> Vec<(String, Vec<Topic>)> {
    let mut groups: Vec<(String, Vec<Topic>)> = Vec::new();
    let topics = [(Topic::Rawtx, &endpoints.rawtx), (Topic::Rawblock, &endpoints.rawblock), (Topic::Sequence, &endpoints.sequence)];
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
    topics: Vec<Topic>,
    sub: zmq::Socket,
    monitor: zmq::Socket,
    counters: [Counter; 3],
    connected: bool,
}

impl Link {
    fn open(context: &zmq::Context, endpoint: &str, topics: Vec<Topic>) -> Result<Self, zmq::Error> {
        let sub = context.socket(zmq::SUB)?;
        sub.set_linger(0)?;
        sub.set_rcvhwm(0)?;
        sub.set_reconnect_ivl(50)?;
        sub.set_reconnect_ivl_max(1000)?;
        sub.set_handshake_ivl(5000)?;
        // A frozen node is noticed within some seconds. Safe only together with an unbounded receive queue.
        sub.set_heartbeat_ivl(1000)?;
        sub.set_heartbeat_timeout(3000)?;
        let place = format!("inproc://monitor-{}", topics.first().map_or("none", |topic| topic.name()));
        sub.monitor(&place, zmq::SocketEvent::ALL as i32)?;
        let monitor = context.socket(zmq::PAIR)?;
        monitor.set_linger(0)?;
        monitor.connect(&place)?;
        for topic in &topics {
            sub.set_subscribe(topic.name().as_bytes())?;
        }
        sub.connect(endpoint)?;
        Ok(Self { topics, sub, monitor, counters: Default::default(), connected: false })
    }

    /// Takes what the monitor says. True if the connection came up: it may be announced after the next look at the socket.
    fn watch(&mut self, queue: &mut Queue) -> bool {
        let mut up = false;
        while let Ok(frames) = self.monitor.recv_multipart(zmq::DONTWAIT) {
            let event = frames.first().and_then(|frame| frame.first_chunk::<2>()).map(|bytes| u16::from_le_bytes(*bytes));
            if event == Some(zmq::SocketEvent::HANDSHAKE_SUCCEEDED as u16) {
                up = true;
                self.connected = true;
            } else if event == Some(zmq::SocketEvent::DISCONNECTED as u16) {
                up = false;
                if std::mem::take(&mut self.connected) {
                    queue.push(now_ms(), Notice::Disconnected(self.topics.clone()));
                }
            }
        }
        up
    }

    /// Takes what waits on the socket, within its turn. True if there may be more.
    fn drain(&mut self, queue: &mut Queue) -> bool {
        for _ in 0..TURN {
            match self.sub.recv_multipart(zmq::DONTWAIT) {
                Ok(frames) => self.take(frames, queue),
                Err(zmq::Error::EINTR) => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn take(&mut self, frames: Vec<Vec<u8>>, queue: &mut Queue) {
        let at = now_ms();
        let Some(frame) = parse(frames).filter(|frame| self.topics.contains(&frame.topic)) else { return };
        let topic = frame.topic;
        match self.counters[topic.index()].observe(frame.number) {
            Order::Next => {}
            Order::Lost(lost) => queue.push(at, Notice::Gap { topic, lost: lost.into() }),
            Order::Restarted => queue.push(at, Notice::Restarted(topic)),
        }
        queue.message(at, frame);
    }
}

fn receive(mut links: Vec<Link>, mut queue: Queue, stop: &AtomicBool) {
    let mut more = false;
    while !stop.load(Ordering::Relaxed) {
        let mut items: Vec<_> =
            links.iter().flat_map(|link| [link.sub.as_poll_item(zmq::POLLIN), link.monitor.as_poll_item(zmq::POLLIN)]).collect();
        // An error is a signal that came in between (EINTR); the sockets are looked at in any case.
        let _ = zmq::poll(&mut items, if more { 0 } else { POLL });
        drop(items);
        more = false;
        for link in &mut links {
            let up = link.watch(&mut queue);
            more |= link.drain(&mut queue);
            if up {
                // The look at the socket sent the subscriptions.
                queue.push(now_ms(), Notice::Connected(link.topics.clone()));
            }
        }
    }
}

/// Whether something that speaks ZMQ answers at an endpoint within `limit`. For `doctor`; blocks.
pub fn answers(endpoint: &str, limit: std::time::Duration) -> bool {
    let deadline = std::time::Instant::now() + limit;
    let context = zmq::Context::new();
    let Ok(link) = Link::open(&context, endpoint, vec![Topic::Sequence]) else { return false };
    while std::time::Instant::now() < deadline {
        let _ = link.monitor.poll(zmq::POLLIN, 50);
        while let Ok(frames) = link.monitor.recv_multipart(zmq::DONTWAIT) {
            let event = frames.first().and_then(|frame| frame.first_chunk::<2>()).map(|bytes| u16::from_le_bytes(*bytes));
            if event == Some(zmq::SocketEvent::HANDSHAKE_SUCCEEDED as u16) {
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(topic: &str, body: &[u8], number: u32) -> Vec<Vec<u8>> {
        vec![topic.as_bytes().to_vec(), body.to_vec(), number.to_le_bytes().to_vec()]
    }

    fn sequence_body(label: u8, tail: &[u8]) -> Vec<u8> {
        let hash: Vec<u8> = (0..32).collect();
        [hash.as_slice(), &[label], tail].concat()
    }

    #[test]
    fn a_message_is_read_with_its_hash_turned_round() {
        let body = sequence_body(b'A', &7u64.to_le_bytes());
        let frame = parse(frames("sequence", &body, 5)).unwrap();
        let mut hash: [u8; 32] = std::array::from_fn(|i| i as u8);
        hash.reverse();
        assert_eq!(frame, Frame { topic: Topic::Sequence, number: 5, body: Body::Sequence(Sequence { hash, what: Change::Accepted(7) }) });
    }

    #[test]
    fn what_is_not_exactly_a_message_is_nothing() {
        for wrong in [
            frames("rawtx2", b"x", 1),
            frames("hashblock", &[0; 32], 1),
            frames("sequence", &sequence_body(b'C', b"x"), 1),
            frames("sequence", &sequence_body(b'A', &[0; 7]), 1),
            frames("sequence", &sequence_body(b'X', b""), 1),
            frames("sequence", &[0; 32], 1),
            vec![b"rawtx".to_vec(), b"x".to_vec()],
            vec![b"rawtx".to_vec(), b"x".to_vec(), vec![1, 2, 3]],
            vec![],
        ] {
            assert_eq!(parse(wrong.clone()), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_parser(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..5)) {
            let _ = parse(frames);
        }

        #[test]
        fn no_sequence_body_upsets_the_parser(body in prop::collection::vec(any::<u8>(), 0..50)) {
            let _ = parse(frames("sequence", &body, 0));
        }
    }

    #[test]
    fn numbers_tell_gaps_wraps_and_restarts() {
        let mut counter = Counter::default();
        let told: Vec<_> = [7, 8, 11, u32::MAX - 1, u32::MAX, 0, 1].into_iter().map(|number| counter.observe(number)).collect();
        use Order::{Lost, Next, Restarted};
        // From 11 to near the top is more than half the range, so it counts as going back.
        assert_eq!(told, [Next, Next, Lost(2), Restarted, Next, Next, Next]);
        assert_eq!(counter.observe(0), Restarted);
        assert_eq!(counter.observe(0), Restarted);
        assert_eq!(counter.observe(1), Next);
    }

    #[test]
    fn a_full_queue_drops_and_tells_the_gap_when_there_is_room() {
        let (sender, mut notices) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(QUEUE_BYTES));
        let mut queue = Queue { sender, queued: queued.clone(), dropped: [0; 3] };
        let message = |number| Frame { topic: Topic::Rawtx, number, body: Body::Tx(vec![0; 10]) };
        queue.message(1, message(1));
        queue.message(2, message(2));
        queued.store(0, Ordering::Relaxed);
        queue.message(3, message(3));
        assert_eq!(notices.try_recv().unwrap().notice, Notice::Gap { topic: Topic::Rawtx, lost: 2 });
        assert_eq!(notices.try_recv().unwrap().notice, Notice::Message(message(3)));
        assert!(notices.try_recv().is_err());
    }

    #[test]
    fn topics_of_one_address_share_a_socket() {
        let at = |port: u16| Some(format!("tcp://127.0.0.1:{port}"));
        let endpoints = Endpoints { rawtx: at(1), rawblock: at(2), sequence: at(1) };
        let groups = group(&endpoints);
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].1, [Topic::Rawtx, Topic::Sequence]);
        assert_eq!(group(&Endpoints::default()), []);
    }

    #[tokio::test]
    async fn a_publisher_is_heard_and_its_end_is_told() {
        let context = zmq::Context::new();
        let publisher = context.socket(zmq::XPUB).unwrap();
        publisher.bind("tcp://127.0.0.1:*").unwrap();
        let endpoint = publisher.get_last_endpoint().unwrap().unwrap();
        let mut feed = Feed::open(&Endpoints { rawtx: Some(endpoint.clone()), ..Endpoints::default() }).unwrap().unwrap();
        assert_eq!(feed.recv().await.unwrap().notice, Notice::Connected(vec![Topic::Rawtx]));
        // XPUB hears the subscription, so nothing is sent into the void.
        assert_eq!(publisher.recv_bytes(0).unwrap(), b"\x01rawtx");
        for number in [3, 5] {
            publisher.send_multipart(frames("rawtx", b"tx", number), 0).unwrap();
        }
        let tx = |number| Notice::Message(Frame { topic: Topic::Rawtx, number, body: Body::Tx(b"tx".to_vec()) });
        assert_eq!(feed.recv().await.unwrap().notice, tx(3));
        assert_eq!(feed.recv().await.unwrap().notice, Notice::Gap { topic: Topic::Rawtx, lost: 1 });
        assert_eq!(feed.recv().await.unwrap().notice, tx(5));
        publisher.unbind(&endpoint).unwrap();
        drop(publisher);
        assert_eq!(feed.recv().await.unwrap().notice, Notice::Disconnected(vec![Topic::Rawtx]));
    }
}
