//! Requests, bodies and frames that come a byte at a time, or never to their end; and clients that
//! leave in the middle.

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::raw;
use super::well_behaved::WellBehaved;
use crate::common::{Daemon, wait_until};

/// Connections of each kind.
const EACH: usize = 40;
/// Between two bytes of each.
const PACE: Duration = Duration::from_millis(250);

struct Slow {
    stream: TcpStream,
    /// What it sends, a byte at a time; the last one over and over.
    bytes: &'static [u8],
    sent: usize,
}

impl Slow {
    /// Begins with `first` at once.
    fn begin(port: u16, first: &str, bytes: &'static [u8]) -> Self {
        let stream = raw::connect(port);
        assert!(raw::send(&stream, first));
        Self {
            stream,
            bytes,
            sent: 0,
        }
    }

    fn step(&mut self) {
        let byte = self.bytes.get(self.sent).or(self.bytes.last());
        self.sent += 1;
        // Whether it is open still is seen by reading.
        raw::send(&self.stream, byte.map(std::slice::from_ref).unwrap_or(&[]));
    }

    fn is_open(&self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket");
        let open = matches!((&self.stream).read(&mut [0; 4096]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).expect("a socket");
        open
    }
}

fn begin(port: u16) -> Vec<Slow> {
    let host = "HTTP/1.1\r\nHost: localhost\r\n";
    let json = "Content-Type: application/json\r\n";
    let mut all = Vec::new();
    for _ in 0..EACH {
        let sid = raw::polling_session(port);
        let packets = format!("POST /socket.io/?EIO=4&transport=polling&sid={sid} {host}");
        for (first, bytes) in [
            // Heads that stand still, and that go on.
            ("GET /sta".to_owned(), &b""[..]),
            (format!("GET /status {host}X-Long: "), b"x"),
            // Bodies, of a length and in chunks of one byte.
            (
                format!("POST /add_address {host}{json}Content-Length: 4000\r\n\r\n"),
                b" ",
            ),
            (
                format!("POST /add_address {host}{json}Transfer-Encoding: chunked\r\n\r\n"),
                b"1\r\n \r\n1\r\n \r\n1\r\n \r\n1\r\n \r\n1;xxxxxxxxxxxxxxxx",
            ),
            (format!("{packets}Content-Length: 4000\r\n\r\n"), b"4"),
        ] {
            all.push(Slow::begin(port, &first, bytes));
        }
    }
    all
}

#[test]
fn slow_heads_and_bodies_are_ended_and_hold_nobody_up() {
    let node = super::node();
    let daemon = Daemon::start(&node);
    let well_behaved = WellBehaved::begin(&node, &daemon);
    let mut slow = begin(daemon.port());
    // Half frames of WebSockets: they stay until a ping is not answered.
    let half = [raw::frame(0x81, &[b'4'; 500]), raw::frame(0x01, b"42[")].concat();
    let frames: Vec<_> = (0..EACH)
        .map(|_| {
            let stream = raw::websocket(daemon.port());
            assert!(raw::send(&stream, &half[..200]));
            stream
        })
        .collect();
    well_behaved.hear();
    let mut is_over = 0;
    wait_until("the daemon has ended all of them", || {
        slow.iter_mut().for_each(Slow::step);
        slow.retain(Slow::is_open);
        is_over += 1;
        if is_over % 8 == 0 {
            well_behaved.hear();
        }
        std::thread::sleep(PACE);
        slow.is_empty().then_some(())
    });
    drop(frames);
    well_behaved.end();
}

/// Requests whose client has closed its sending side, or has left, are in work no longer.
#[test]
fn who_leaves_while_a_long_poll_waits_holds_no_place() {
    let node = super::node();
    let daemon = Daemon::start(&node);
    let well_behaved = WellBehaved::begin(&node, &daemon);
    let waiting = || {
        let status = daemon.get("/status");
        status.json["limits"]["waiting_requests"]["used"].as_u64()
    };
    let wait = "GET /events?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // An address at which nothing happens.
    let address = node.address();
    daemon.watch(&address);
    let wait = wait.replace("wait=60", &format!("address={address}&wait=60"));
    let polls: Vec<_> = (0..EACH)
        .map(|_| {
            let stream = raw::connect(daemon.port());
            assert!(raw::send(&stream, &wait));
            stream
        })
        .collect();
    wait_until("they wait", || {
        (waiting() >= Some(EACH as u64)).then_some(())
    });
    for stream in &polls {
        stream.shutdown(Shutdown::Write).expect("it is open");
    }
    wait_until("their places are free", || {
        (waiting() <= Some(1)).then_some(())
    });
    for stream in &polls {
        assert_eq!(raw::rest(stream), "");
    }
    well_behaved.end();
}
