//! A lossy line between the node's publisher and the daemon: passes messages on unchanged, counters
//! too, or loses them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::Node;
use super::node::free_port;

/// What becomes of a message, by topic and counter: true passes it on.
pub type Fate = Box<dyn FnMut(&str, u32) -> bool + Send>;

/// A running line. Dropping it ends it.
pub struct Feed {
    endpoint: String,
    end: Arc<AtomicBool>,
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Fate(Fate),
    Inject(Vec<Vec<u8>>),
    Cut,
    Mend,
    CountAnew,
}

impl Feed {
    /// A line from everything that `node` publishes. It outlives restarts of the node.
    pub fn of(node: &Node, fate: Fate) -> Self {
        let endpoint = format!("tcp://127.0.0.1:{}", free_port());
        let end = Arc::new(AtomicBool::new(false));
        let context = zmq::Context::new();
        let input = context.socket(zmq::SUB).expect("a socket can be made");
        input.set_rcvhwm(0).expect("a fresh socket takes options");
        input
            .set_rcvtimeo(50)
            .expect("a fresh socket takes options");
        input
            .set_subscribe(b"")
            .expect("a fresh socket takes options");
        input
            .connect(&node.zmq_endpoint())
            .expect("the endpoint is well-formed");
        let (orders, inbox) = channel();
        let mut line = Line {
            output: bind(&context, &endpoint),
            context,
            endpoint: endpoint.clone(),
            fate,
            bases: None,
            inbox,
        };
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || line.run(&input, &ended));
        Self {
            endpoint,
            end,
            orders,
            thread: Some(thread),
        }
    }

    /// A line that loses nothing for now.
    pub fn whole(node: &Node) -> Self {
        Self::of(node, Box::new(|_, _| true))
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The settings that make a daemon listen here.
    pub fn settings(&self) -> [(&'static str, &str); 3] {
        [
            "bitcoind.zmq_rawtx",
            "bitcoind.zmq_rawblock",
            "bitcoind.zmq_sequence",
        ]
        .map(|name| (name, self.endpoint()))
    }

    /// What becomes of messages from now on.
    pub fn set(&self, fate: impl FnMut(&str, u32) -> bool + Send + 'static) {
        self.order(Order::Fate(Box::new(fate)));
    }

    /// Loses the next `count` messages of a topic.
    pub fn lose(&self, topic: &'static str, count: usize) {
        let mut left = count;
        self.set(move |got, _| {
            let lost = got == topic && left > 0;
            left -= usize::from(lost);
            !lost
        });
    }

    /// Sends these frames as a message of its own.
    pub fn inject(&self, frames: &[&[u8]]) {
        self.order(Order::Inject(
            frames.iter().map(|frame| frame.to_vec()).collect(),
        ));
    }

    /// Ends the daemon's connection and takes none until [`Self::mend`]; what comes meanwhile is
    /// lost.
    pub fn cut(&self) {
        self.order(Order::Cut);
    }

    pub fn mend(&self) {
        self.order(Order::Mend);
    }

    /// Counts each topic from 0 from now on, as a node does that was restarted.
    pub fn count_anew(&self) {
        self.order(Order::CountAnew);
    }

    fn order(&self, order: Order) {
        self.orders
            .send(order)
            .expect("the line runs as long as this value lives");
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bind(context: &zmq::Context, endpoint: &str) -> Option<zmq::Socket> {
    let output = context.socket(zmq::PUB).expect("a socket can be made");
    output.set_sndhwm(0).expect("a fresh socket takes options");
    output.set_linger(0).expect("a fresh socket takes options");
    output.bind(endpoint).ok()?;
    Some(output)
}

struct Line {
    context: zmq::Context,
    endpoint: String,
    /// `None` while it is cut.
    output: Option<zmq::Socket>,
    fate: Fate,
    /// What is subtracted from each topic's counter.
    bases: Option<std::collections::HashMap<String, u32>>,
    inbox: Receiver<Order>,
}

impl Line {
    fn run(&mut self, input: &zmq::Socket, end: &AtomicBool) {
        while !end.load(Ordering::Relaxed) {
            let frames = input.recv_multipart(0);
            // Before the message is dealt with: a test orders first and then lets the node send.
            while let Ok(order) = self.inbox.try_recv() {
                self.obey(order);
            }
            if let Ok(frames) = frames {
                self.pass(frames);
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Fate(fate) => self.fate = fate,
            Order::Inject(frames) => self.send(frames),
            Order::Cut => self.output = None,
            Order::Mend => {
                // The old socket lets go of the port a moment after it was closed.
                self.output = Some(super::wait_until("the port is free again", || {
                    bind(&self.context, &self.endpoint)
                }));
            }
            Order::CountAnew => self.bases = Some(Default::default()),
        }
    }

    fn pass(&mut self, mut frames: Vec<Vec<u8>>) {
        let topic = frames
            .first()
            .map(|topic| String::from_utf8_lossy(topic).into_owned())
            .unwrap_or_default();
        let counter = frames
            .last()
            .and_then(|bytes| <[u8; 4]>::try_from(bytes.as_slice()).ok())
            .map_or(0, u32::from_le_bytes);
        if let (Some(bases), Some(last)) = (&mut self.bases, frames.last_mut()) {
            let base = *bases.entry(topic.clone()).or_insert(counter);
            *last = counter.wrapping_sub(base).to_le_bytes().to_vec();
        }
        if (self.fate)(&topic, counter) {
            self.send(frames);
        }
    }

    fn send(&self, frames: Vec<Vec<u8>>) {
        if let Some(output) = &self.output {
            let _ = output.send_multipart(frames, 0);
        }
    }
}
