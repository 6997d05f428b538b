//! The session machine of Engine.IO.

use std::time::{Duration, Instant};

use bytes::Bytes;
use satwatch::engineio::internals::payload::{self, Body, Packets};
use satwatch::engineio::internals::{
    Encoding, Frame, Limits, Output, PollAnswer, Session, SocketEnd, SocketRole, WRITE_SIZE,
};
use satwatch::engineio::{CloseReason, Message, MessageGroup, Revision};

use super::protocol::ENCODINGS;

/// What a driver would know of the session; checks what must hold for any sequence of inputs.
struct Driver {
    session: Session,
    now: Instant,
    poll: bool,
    post_reading: bool,
    post: bool,
    main: bool,
    main_writing: bool,
    probe: bool,
    closed: bool,
    revision: Revision,
}

const TEXTS: [&str; 20] = [
    "", "0", "1", "2", "2probe", "3", "4a", "5", "6", "b", "bAQ==", "b4AQ==", "abc", "é",
    "4a\x1e4b", "3\x1e3", "1:2", "2:4a1:1", "0:", "4a\x1e",
];

/// Bytes as a sequence of inputs: each a byte that says what, and its arguments.
struct Steps<'a>(std::slice::Iter<'a, u8>);

impl Steps<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or_default()
    }

    /// One that is worth trying, or any.
    fn text(&mut self) -> String {
        match self.byte() {
            known if usize::from(known) < TEXTS.len() => TEXTS[usize::from(known)].to_owned(),
            length => {
                String::from_utf8_lossy(&(0..length % 24).map(|_| self.byte()).collect::<Vec<_>>())
                    .into_owned()
            }
        }
    }
}

/// The first byte says the transport and the encoding, the others what happens.
pub fn session(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let mut driver = Driver::new(
        first & 1 == 0,
        ENCODINGS[usize::from(first >> 1) % ENCODINGS.len()],
    );
    let mut steps = Steps(rest.iter());
    while !steps.0.as_slice().is_empty() {
        driver.input(&mut steps);
        driver.outputs();
        assert_eq!(driver.session.is_closed(), driver.closed);
        let most = if driver.closed {
            0
        } else {
            WRITE_SIZE + 40 * 256
        };
        assert!(driver.session.held_bytes() <= most);
    }
    driver.left_alone();
}

impl Driver {
    fn new(websocket: bool, encoding: Encoding) -> Self {
        let limits = Limits {
            ping_interval: Duration::from_millis(300),
            ping_timeout: Duration::from_millis(200),
            upgrade_timeout: Duration::from_millis(1000),
            write_timeout: Duration::from_millis(400),
            close_timeout: Duration::from_millis(3000),
            max_payload: 100,
            upgrades: true,
        };
        let now = Instant::now();
        let session = if websocket {
            Session::websocket(now, limits, encoding, "0{}".into())
        } else {
            Session::polling(now, limits, encoding)
        };
        let mut driver = Self {
            session,
            now,
            poll: false,
            post_reading: false,
            post: false,
            main: websocket,
            main_writing: false,
            probe: false,
            closed: false,
            revision: encoding.revision(),
        };
        driver.outputs();
        driver
    }

    fn input(&mut self, steps: &mut Steps<'_>) {
        let (what, now) = (steps.byte(), self.now);
        let session = &mut self.session;
        let role = if what & 0x80 == 0 {
            SocketRole::Main
        } else {
            SocketRole::Probe
        };
        let has = if role == SocketRole::Main {
            self.main
        } else {
            self.probe
        };
        match what & 0x1f {
            // A refused poll is answered apart from the waiting one.
            0..=3 => {
                let accepted = session.poll_opened(now).is_ok();
                assert!(!(accepted && self.poll), "one poll at a time");
                self.poll |= accepted;
            }
            4..=6 => self.post_reading = session.post_opened(now, steps.byte() > 250).is_ok(),
            7..=9 if std::mem::take(&mut self.post_reading) => {
                self.post = true;
                session.post_body(now, steps.text().into());
            }
            10 if std::mem::take(&mut self.post_reading) => session.post_refused(now),
            11 => session.request_lost(now),
            12 | 13 => {
                let welcome = session.socket_opened(now);
                assert!(!(welcome && self.probe), "one probing WebSocket at a time");
                self.probe |= welcome;
            }
            14..=17 if has && session.wants_frame(role) => {
                session.frame(now, role, Frame::Text(steps.text().into()))
            }
            18 if has && session.wants_frame(role) => {
                session.frame(now, role, Frame::Binary(Bytes::from(vec![steps.byte()])))
            }
            19..=21 => {
                self.main_writing &= role == SocketRole::Probe;
                session.written(now, role);
            }
            22 => session.write_progressed(now, role),
            23 if has => {
                let end = [
                    SocketEnd::Closed,
                    SocketEnd::Failed(1002),
                    SocketEnd::TooLarge,
                ][usize::from(steps.byte() % 3)];
                session.socket_ended(now, role, end);
            }
            24..=26 if session.wants_message() => {
                let message = Message::text(&"x".repeat(steps.byte().into()));
                session.send(MessageGroup::Many(
                    vec![message; usize::from(steps.byte() % 20)].into(),
                ));
            }
            27 => session.pause(),
            28 => session.resume(now),
            29 => {
                let reason = [CloseReason::ForcedClose, CloseReason::ServerShuttingDown]
                    [usize::from(steps.byte() % 2)];
                session.close(now, reason);
            }
            30 if steps.byte() > 200 => session.abandon(CloseReason::SlowConsumer),
            31 => session.hold_back(now, steps.byte() < 128),
            _ => {
                self.now += Duration::from_millis(u64::from(steps.byte()) * 4);
                session.tick(self.now);
            }
        }
    }

    fn outputs(&mut self) {
        let may_write = !self.main_writing;
        while let Some(output) = self.session.next_output(self.now) {
            self.output(output, may_write);
        }
    }

    fn output(&mut self, output: Output, may_write: bool) {
        if self.closed {
            assert!(
                matches!(
                    output,
                    Output::Poll(_) | Output::Post(_) | Output::CloseSocket(..)
                ),
                "{output:?} after the end"
            );
        }
        match output {
            Output::Poll(answer) => {
                assert!(std::mem::take(&mut self.poll), "a poll is waiting");
                self.check_body(answer);
            }
            Output::Post(_) => assert!(std::mem::take(&mut self.post), "a POST is waiting"),
            Output::Write(SocketRole::Main, frame) => {
                assert!(self.main && may_write, "one write at a time");
                self.main_writing = true;
                let text = if let Frame::Text(text) = &frame {
                    text.as_str()
                } else {
                    ""
                };
                assert!(
                    !text.starts_with(['1', '6']),
                    "never a close or noop on a WebSocket"
                );
            }
            Output::Write(SocketRole::Probe, frame) => {
                assert_eq!((self.probe, frame), (true, Frame::Text("3probe".into())))
            }
            Output::CloseSocket(SocketRole::Main, _) => assert!(std::mem::take(&mut self.main)),
            Output::CloseSocket(SocketRole::Probe, _) => assert!(std::mem::take(&mut self.probe)),
            Output::Promote => {
                assert!(std::mem::take(&mut self.probe) && !self.main);
                self.main = true;
            }
            Output::Deliver(_) => {}
            Output::Closed(_) => self.closed = true,
        }
    }

    /// Sixteen packets at most, and over the limit only alone.
    fn check_body(&self, answer: PollAnswer) {
        let PollAnswer::Payload(body) = answer else {
            return;
        };
        let (body, octets) = match body {
            Body::Text(body) => (body, false),
            Body::Octets(body) => (body, true),
        };
        let length = body.len();
        let packets = Packets::of(body, self.revision, octets)
            .collect::<Result<Vec<_>, _>>()
            .expect("our own body");
        assert!(
            packets.len() == 1 || (packets.len() <= payload::MAX_PACKETS && length <= 100),
            "{packets:?}"
        );
    }

    /// Without another input every session ends, and everybody who waits is told.
    fn left_alone(mut self) {
        self.session.resume(self.now);
        self.session.hold_back(self.now, false);
        for _ in 0..20 {
            if let Some(deadline) = self.session.deadline() {
                self.now = self.now.max(deadline);
                self.session.tick(self.now);
            }
            self.outputs();
        }
        assert!(self.closed && !self.poll && !self.post && !self.main && !self.probe);
    }
}
