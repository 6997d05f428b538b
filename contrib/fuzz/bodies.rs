//! What the fuzz targets do with their bytes, and what must hold for any.
//! `tests/protocol/fuzzed.rs` runs the same with random bytes in CI.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::service::service_fn;
use satwatch::engineio::internals::payload::{self, Body, Packets};
use satwatch::engineio::internals::{
    Encoding, Frame, Limits, Next, Output, Packet, PollAnswer, Session, SocketEnd, SocketRole,
    WRITE_SIZE, outbox,
};
use satwatch::engineio::{
    self, CloseReason, Handler as _, Handshake, Message, MessageGroup, Outbox, Revision, Work,
};
use satwatch::socketio::internals::SocketIoHandler;
use satwatch::socketio::{
    self, ConnectRefused, ConnectRequest, DisconnectReason, Encoded, Event, LayerConfig, Socket,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

const ENCODINGS: [Encoding; 3] = [
    Encoding::Four,
    Encoding::Three { base64: false },
    Encoding::Three { base64: true },
];

/// The first byte says which.
fn choice<T: Copy>(data: &[u8], among: &[T]) -> Option<(T, Bytes)> {
    let (first, rest) = data.split_first()?;
    Some((
        among[usize::from(*first) % among.len()],
        Bytes::copy_from_slice(rest),
    ))
}

// Engine.IO packets

/// A frame is a packet or not, and a message is written as it was read.
pub fn packet(data: &[u8]) {
    let Some((encoding, bytes)) = choice(data, &ENCODINGS) else {
        return;
    };
    let frames = [
        Some(Frame::Binary(bytes.clone())),
        String::from_utf8(bytes.to_vec())
            .ok()
            .map(|text| Frame::Text(text.into())),
    ];
    for frame in frames.into_iter().flatten() {
        let Ok(packet) = Packet::from_frame(frame, encoding.revision()) else {
            continue;
        };
        if let Packet::Message(_) = packet {
            assert_eq!(
                Packet::from_frame(packet.clone().into_frame(encoding), encoding.revision()),
                Ok(packet)
            );
        }
    }
}

/// A body has no more packets than bytes, and its messages are written so that they are read again.
pub fn payload(data: &[u8]) {
    let framings = [
        (Encoding::Four, false),
        (ENCODINGS[1], false),
        (ENCODINGS[1], true),
        (ENCODINGS[2], false),
        (ENCODINGS[2], true),
    ];
    let Some(((encoding, octets), body)) = choice(data, &framings) else {
        return;
    };
    let length = body.len();
    let (mut count, mut packets) = (0, Vec::new());
    for packet in Packets::of(body, encoding.revision(), octets) {
        count += 1;
        match packet {
            Ok(packet @ Packet::Message(_)) => packets.push(packet),
            Ok(_) => {}
            Err(_) if encoding == Encoding::Four => {}
            Err(_) => break,
        }
    }
    assert!(count <= length + 1);
    if packets.is_empty() {
        return;
    }
    let fitting = payload::fitting(packets.iter(), encoding, length.max(1));
    assert!((1..=payload::MAX_PACKETS).contains(&fitting));
    let (body, octets) = match payload::encode(packets.clone(), encoding) {
        Body::Text(body) => (body, false),
        Body::Octets(body) => (body, true),
    };
    assert_eq!(
        Packets::of(body, encoding.revision(), octets).collect::<Result<Vec<_>, _>>(),
        Ok(packets)
    );
}

// Requests

struct Mute;

impl engineio::Handler for Mute {
    type Session = Outbox;

    fn open(&self, outbox: Outbox, _: Handshake) -> Arc<Outbox> {
        Arc::new(outbox)
    }

    fn message(&self, outbox: &Arc<Outbox>, message: Message) -> Option<Work> {
        let _ = outbox.try_send(MessageGroup::One(message));
        None
    }

    fn close(&self, _: &Arc<Outbox>, _: CloseReason) {}
}

fn runtime() -> Runtime {
    // Time stands still until nobody has anything to do, and then jumps to the next deadline.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

/// A connection that says this gets answers of HTTP or none, and leaves no session behind once its
/// time is up.
pub fn request(data: &[u8]) {
    runtime().block_on(async {
        let config = engineio::Config {
            max_payload: 1000,
            path: "/e/".into(),
            ..engineio::Config::default()
        };
        let service = engineio::Service::new(config, Mute);
        let (mut client, connection) = tokio::io::duplex(1 << 20);
        client.write_all(data).await.expect("it fits");
        let answer = service_fn(|request| {
            let answer = service.handle(request, None);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let serving = hyper::server::conn::http1::Builder::new()
            .timer(hyper_util::rt::TokioTimer::new())
            .half_close(false)
            .serve_connection(hyper_util::rt::TokioIo::new(connection), answer)
            .with_upgrades();
        let reading = async {
            let mut answers = Vec::new();
            let _ =
                tokio::time::timeout(Duration::from_secs(120), client.read_to_end(&mut answers))
                    .await;
            assert!(answers.is_empty() || answers.starts_with(b"HTTP/1."));
            drop(client);
        };
        let _ = tokio::join!(serving, reading);
        // No ping is answered.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!((service.session_count(), service.received_bytes()), (0, 0));
    });
}

// Socket.IO

/// Answers events with the same arguments, and refuses one namespace.
struct Echo;

impl socketio::Handler for Echo {
    type Admitted = ();

    async fn authorize(&self, request: ConnectRequest) -> Result<(), ConnectRefused> {
        if &*request.namespace == "/no" {
            Err(ConnectRefused {
                message: "no".into(),
                data: None,
            })
        } else {
            Ok(())
        }
    }

    fn connected(&self, _: &Socket, _: &ConnectRequest, (): ()) {}

    fn event(&self, socket: &Socket, event: Event) -> Option<Work> {
        if let Ok(packet) =
            Encoded::event_with(socket.namespace(), "back", &event.args, &event.attachments)
        {
            let _ = socket.send(&packet);
        }
        if let Some(ack) = event.ack {
            let _ = ack.send_with(&event.args, &event.attachments);
        }
        None
    }

    fn disconnected(&self, _: &Socket, _: DisconnectReason) {}
}

/// A client sends messages, separated by line feeds; a line that begins with `!` is binary. The
/// first byte says the revision. What comes back keeps the rule of ten attachments, each right
/// behind its header.
pub fn socket(data: &[u8]) {
    let Some((query, bytes)) = choice(data, &["EIO=4", "EIO=3"]) else {
        return;
    };
    runtime().block_on(async {
        let layer = SocketIoHandler::new(
            LayerConfig {
                max_packet_bytes: 10_000,
                ..LayerConfig::default()
            },
            Echo,
        );
        let (sender, mut receiver) = outbox(1000, 10_000_000);
        let handshake = Handshake {
            headers: hyper::HeaderMap::new(),
            query: query.to_owned(),
            peer: None,
        };
        let session = layer.open(sender.clone(), handshake);
        for line in bytes.split(|byte| *byte == b'\n') {
            let message = match line.strip_prefix(b"!") {
                Some(bytes) => Message::Binary(Bytes::copy_from_slice(bytes)),
                None => Message::text(&String::from_utf8_lossy(line)),
            };
            if let Some(work) = layer.message(&session, message) {
                work.await;
            }
            while let Next::Group(group) = receiver.take() {
                check_group(&group);
            }
            if sender.is_closed() {
                break;
            }
        }
        layer.close(&session, CloseReason::TransportClose);
    });
}

fn check_group(group: &MessageGroup) {
    let MessageGroup::Many(messages) = group else {
        return;
    };
    let (head, attachments) = messages.split_first().expect("a group has a message");
    let Message::Text(head) = head else {
        panic!("a header first")
    };
    let count: String = head
        .as_str()
        .chars()
        .skip(1)
        .take_while(char::is_ascii_digit)
        .collect();
    assert_eq!(
        count.parse::<usize>().expect("a number of attachments"),
        attachments.len()
    );
    assert!(
        attachments.len() <= 10
            && attachments
                .iter()
                .all(|message| matches!(message, Message::Binary(_)))
    );
}

// The session machine

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
