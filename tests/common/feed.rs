//! A lossy line between the node's publisher and the daemon: passes messages on unchanged, counters too, or loses them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::Node;
use super::node::free_port;

/// What becomes of a message, by topic and counter: true passes it on.
pub type Fate = Box<dyn FnMut(&str, u32) -> bool + Send>;

/// A running line. Dropping it ends it.
pub struct Feed {
    endpoint: String,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// A line from everything that `node` publishes. It outlives restarts of the node.
    pub fn of(node: &Node, fate: Fate) -> Self {
        let endpoint = format!("tcp://127.0.0.1:{}", free_port());
        let end = Arc::new(AtomicBool::new(false));
        let context = zmq::Context::new();
        let input = context.socket(zmq::SUB).expect("a socket can be made");
        input.set_rcvhwm(0).expect("a fresh socket takes options");
        input.set_rcvtimeo(50).expect("a fresh socket takes options");
        input.set_subscribe(b"").expect("a fresh socket takes options");
        input.connect(&node.zmq_endpoint()).expect("the endpoint is well-formed");
        let output = context.socket(zmq::PUB).expect("a socket can be made");
        output.set_sndhwm(0).expect("a fresh socket takes options");
        output.set_linger(0).expect("a fresh socket takes options");
        output.bind(&endpoint).expect("the port was free a moment ago");
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || run(&input, &output, fate, &ended));
        Self { endpoint, end, thread: Some(thread) }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The settings that make a daemon listen here.
    pub fn settings(&self) -> [(&'static str, &str); 3] {
        ["bitcoind.zmq_rawtx", "bitcoind.zmq_rawblock", "bitcoind.zmq_sequence"].map(|name| (name, self.endpoint()))
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

fn run(input: &zmq::Socket, output: &zmq::Socket, mut fate: Fate, end: &AtomicBool) {
    while !end.load(Ordering::Relaxed) {
        let Ok(frames) = input.recv_multipart(0) else { continue };
        let topic = frames.first().map(|topic| String::from_utf8_lossy(topic).into_owned()).unwrap_or_default();
        let counter = frames.last().and_then(|bytes| <[u8; 4]>::try_from(bytes.as_slice()).ok()).map_or(0, u32::from_le_bytes);
        if fate(&topic, counter) {
            let _ = output.send_multipart(frames, 0);
        }
    }
}
