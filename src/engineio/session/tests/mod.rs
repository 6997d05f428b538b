//! The machine without network or sleep. Times are milliseconds since the opening; pings are due
//! every 300, answers within 200. Any sequence of inputs is `contrib/fuzz`'s, which
//! `tests/protocol/fuzzed.rs` runs too.

mod close;
mod ends;
mod heartbeat;
mod polling;
mod revision_3;
mod upgrade;
mod websocket;
mod work;

use bytes::Bytes;

use super::super::error::Refused;
use super::super::message::MessageGroup;
use super::*;

const LIMITS: Limits = Limits {
    ping_interval: Duration::from_millis(300),
    ping_timeout: Duration::from_millis(200),
    upgrade_timeout: Duration::from_millis(1000),
    write_timeout: Duration::from_millis(400),
    close_timeout: Duration::from_millis(3000),
    max_payload: 100,
    upgrades: true,
};

struct Rig {
    session: Session,
    start: Instant,
    now: Instant,
}

impl Rig {
    fn polling() -> Self {
        Self::polling_in(Encoding::Four)
    }

    fn polling_in(encoding: Encoding) -> Self {
        let now = Instant::now();
        Self {
            session: Session::polling(now, LIMITS, encoding),
            start: now,
            now,
        }
    }

    fn websocket() -> Self {
        Self::websocket_in(Encoding::Four)
    }

    fn websocket_in(encoding: Encoding) -> Self {
        let now = Instant::now();
        let mut rig = Self {
            session: Session::websocket(now, LIMITS, encoding, "0{}".into()),
            start: now,
            now,
        };
        assert_eq!(rig.out(), ["main 0{}"]);
        rig.written();
        rig
    }

    /// A polling session with a WebSocket that has been probed.
    fn probed() -> Self {
        let mut rig = Self::polling();
        assert!(rig.socket());
        rig.frame(SocketRole::Probe, "2probe");
        assert_eq!(rig.out(), ["probe 3probe"]);
        rig.session.written(rig.now, SocketRole::Probe);
        rig
    }

    /// Moves the clock and does what is due.
    fn at(&mut self, ms: u64) -> Vec<String> {
        self.now = self.start + Duration::from_millis(ms);
        self.session.tick(self.now);
        self.out()
    }

    /// When the next deadline is.
    fn due(&self) -> Option<u64> {
        self.session
            .deadline()
            .map(|at| u64::try_from((at - self.start).as_millis()).expect("small"))
    }

    fn poll(&mut self) -> bool {
        self.session.poll_opened(self.now).is_ok()
    }

    fn post(&mut self, body: &str) -> Vec<String> {
        assert_eq!(self.session.post_opened(self.now, false), Ok(()));
        self.session
            .post_body(self.now, Bytes::copy_from_slice(body.as_bytes()));
        self.out()
    }

    fn socket(&mut self) -> bool {
        self.session.socket_opened(self.now)
    }

    fn frame(&mut self, role: SocketRole, text: &str) {
        self.session.frame(self.now, role, Frame::Text(text.into()));
    }

    fn main(&mut self, text: &str) -> Vec<String> {
        self.frame(SocketRole::Main, text);
        self.out()
    }

    fn send(&mut self, text: &str) {
        self.session.send(MessageGroup::One(Message::text(text)));
    }

    fn written(&mut self) {
        self.session.written(self.now, SocketRole::Main);
    }

    fn close(&mut self, reason: CloseReason) -> Vec<String> {
        self.session.close(self.now, reason);
        self.out()
    }

    fn out(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.session.next_output(self.now))
            .map(|output| shown(&output))
            .collect()
    }
}

fn shown(output: &Output) -> String {
    let role = |role: &SocketRole| {
        if *role == SocketRole::Main {
            "main"
        } else {
            "probe"
        }
    };
    match output {
        Output::Poll(PollAnswer::Payload(Body::Octets(body))) => format!("poll {body:?}"),
        Output::Poll(PollAnswer::Payload(Body::Text(body))) => format!(
            "poll {}",
            String::from_utf8_lossy(body).replace('\x1e', "|")
        ),
        Output::Poll(PollAnswer::Gone) => "poll 400".into(),
        Output::Post(answer) => format!("post {answer:?}"),
        Output::Write(to, Frame::Text(text)) => format!("{} {text}", role(to)),
        Output::Write(to, Frame::Binary(bytes)) => format!("{} {bytes:?}", role(to)),
        Output::CloseSocket(of, Some(code)) => format!("close {} {code}", role(of)),
        Output::CloseSocket(of, None) => format!("close {}", role(of)),
        Output::Promote => "promote".into(),
        Output::Deliver(Message::Text(text)) => format!("deliver {}", text.as_str()),
        Output::Deliver(Message::Binary(bytes)) => format!("deliver {bytes:?}"),
        Output::Closed(reason) => format!("closed {reason}"),
    }
}
