//! Engine.IO packets, bodies and requests, Socket.IO packets.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::service::service_fn;
use satwatch::engineio::internals::payload::{self, Body, Packets};
use satwatch::engineio::internals::{Encoding, Frame, Next, Packet, outbox};
use satwatch::engineio::{
    self, CloseReason, Handler as _, Handshake, Message, MessageGroup, Outbox, Work,
};
use satwatch::socketio::internals::SocketIoHandler;
use satwatch::socketio::{
    self, ConnectRefused, ConnectRequest, DisconnectReason, Encoded, Event, LayerConfig, Socket,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

pub(super) const ENCODINGS: [Encoding; 3] = [
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
