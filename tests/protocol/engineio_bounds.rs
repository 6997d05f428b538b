//! What one client, and all of them together, may take of an Engine.IO server; and its optional
//! headers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::SinkExt;
use satwatch::engineio::{Config, Message, MessageGroup};
use satwatch::server;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite;
use tokio_util::sync::CancellationToken;

use super::engineio_rig::{Server, Socket, answer, sid_of, slot, within};

/// Waits for what another task is about to do.
async fn until(mut true_at_last: impl FnMut() -> bool) {
    within(async {
        while !true_at_last() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

// Together

fn room_for_one_large_message(config: &mut Config) {
    config.max_payload = 1_000_000;
    config.total_received_bytes = 1_500_000;
}

#[tokio::test]
async fn received_bytes_are_limited_for_all_clients_together() {
    let server = Server::start(room_for_one_large_message).await;
    let sid = server.open_polling().await;
    let large = format!("4{}", "x".repeat(900_000));
    assert!(
        server.post(&sid, &large).await.is(200, "ok"),
        "whole, and waiting to be fetched"
    );

    // A second body of this size finds no room, and small messages go on.
    let other = server.open_polling().await;
    let refused = server.post(&other, &large).await;
    assert!(
        refused.is(503, r#"{"code":3,"message":"Too much to receive"}"#),
        "{refused:?}"
    );
    assert_eq!(
        server.get(&other).await.status,
        400,
        "its messages are lost, so its session is over"
    );
    let mut socket = server.open_websocket().await;
    socket.send("4small").await;
    assert_eq!(socket.text().await, "4small");
    socket
        .0
        .send(tungstenite::Message::text(large.as_str()))
        .await
        .expect("the server reads");
    assert_eq!(socket.closed().await, Some(1013));

    assert!(server.get(&sid).await.is(200, &large));
    until(|| server.service.received_bytes() == 0).await;
    let mut socket = server.open_websocket().await;
    socket.send(&large).await;
    assert_eq!(socket.text().await, large);
}

#[tokio::test]
async fn received_bytes_of_a_begun_message_keep_their_room_and_the_next_one_is_refused() {
    let server = Server::start(room_for_one_large_message).await;
    let large = format!("4{}", "y".repeat(900_000));
    let sent = frame(0x81, large.as_bytes());
    let (begun, rest) = sent.split_at(900_000);
    let mut half = server.open_websocket().await;
    let stream = half.0.get_mut();
    stream.write_all(begun).await.expect("the server reads");
    until(|| server.service.received_bytes() >= 890_000).await;
    let other = server.open_polling().await;
    let refused = server.post(&other, &large).await;
    assert!(
        refused.is(503, r#"{"code":3,"message":"Too much to receive"}"#),
        "{refused:?}"
    );
    let mut whole = server.open_websocket().await;
    whole.send(&large).await;
    assert_eq!(whole.closed().await, Some(1013));
    let stream = half.0.get_mut();
    stream.write_all(rest).await.expect("the server reads");
    assert_eq!(half.text().await, large);
    until(|| server.service.received_bytes() == 0).await;
}

/// A masked frame of a client.
fn frame(first: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(data.len()) {
        Ok(len) if len < 126 => frame.push(0x80 | len as u8),
        Ok(len) => {
            frame.push(0xfe);
            frame.extend(len.to_be_bytes());
        }
        Err(_) => {
            frame.push(0xff);
            frame.extend((data.len() as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(data);
    frame
}

#[tokio::test]
async fn received_frames_without_data_are_bounded_too() {
    let server = Server::start(|_| {}).await;
    const BEGIN: [u8; 7] = [0x01, 0x81, 0, 0, 0, 0, b'4'];
    const NOTHING: [u8; 6] = [0x00, 0x80, 0, 0, 0, 0];
    let mut fine = server.open_websocket().await;
    let sent = [
        &BEGIN[..],
        &NOTHING.repeat(10_000),
        &[0x80, 0x81, 0, 0, 0, 0, b'a'],
    ]
    .concat();
    for _ in 0..3 {
        fine.0
            .get_mut()
            .write_all(&sent)
            .await
            .expect("the server reads");
        assert_eq!(fine.text().await, "4a");
    }
    let mut endless = server.open_websocket().await;
    endless
        .0
        .get_mut()
        .write_all(&[&BEGIN[..], &NOTHING.repeat(13_000)].concat())
        .await
        .expect("the server reads");
    assert_eq!(endless.closed().await, Some(1009));
    until(|| server.service.received_bytes() == 0).await;
}

/// For which no byte of those that all clients have together is needed.
#[tokio::test]
async fn strangers_are_held_to_small_messages_where_the_layer_above_wants_it_so() {
    let server = Server::start(|config| {
        config.max_payload = 1_000_000;
        config.total_received_bytes = 100_000;
    })
    .await;
    let open = async || {
        let opened = server.http("GET", "EIO=4&transport=polling&small", "");
        sid_of(&opened.await.body)
    };
    let long = format!("4{}", "x".repeat(4096));
    let refused = server.post(&open().await, &long).await;
    let said = r#"{"code":3,"message":"Payload too large"}"#;
    assert!(refused.is(413, said), "{refused:?}");
    let sid = open().await;
    assert!(server.post(&sid, &long[..4096]).await.is(200, "ok"));
    // It is let in by that.
    assert!(server.post(&sid, &long).await.is(200, "ok"));

    // In one frame, in fragments that come to no end, and in such without data.
    const EMPTY: [u8; 6] = [0x00, 0x80, 0, 0, 0, 0];
    let begin = [0x01, 0x81, 0, 0, 0, 0, b'4'];
    let sent = [
        frame(0x81, long.as_bytes())[..100].to_vec(),
        [frame(0x01, &[b'4'; 4000]), frame(0x00, &[b'x'; 4000])].concat(),
        [&begin[..], &EMPTY.repeat(1000)].concat(),
    ];
    for (number, sent) in sent.iter().enumerate() {
        let mut socket = server.websocket("&small").await;
        assert!(socket.text().await.starts_with("0{"));
        let stream = socket.0.get_mut();
        stream.write_all(sent).await.expect("the server reads");
        assert_eq!(socket.closed().await, Some(1009), "{number}");
    }
    // Those that only begin hold nothing.
    let mut halves = Vec::new();
    for _ in 0..30 {
        let mut socket = server.websocket("&small").await;
        assert!(socket.text().await.starts_with("0{"));
        let half = &frame(0x81, &[b'4'; 4090])[..4090];
        let stream = socket.0.get_mut();
        stream.write_all(half).await.expect("the server reads");
        halves.push(socket);
    }
    let mut socket = server.websocket("&small").await;
    assert!(socket.text().await.starts_with("0{"));
    socket.send("4a").await;
    assert_eq!(socket.text().await, "4a");
    let long = format!("4{}", "x".repeat(90_000));
    socket.send(&long).await;
    assert_eq!(socket.text().await, long, "there is room for who is let in");
}

#[tokio::test]
async fn received_bytes_of_a_closed_websocket_cost_nothing() {
    let server = Server::start(|config| config.max_payload = 1_000_000).await;
    let mut socket = server.open_websocket().await;
    // Half a message, and then a frame that there is not.
    let sent = [frame(0x01, &[b'4'; 100_000]), frame(0x83, b"")].concat();
    socket
        .0
        .get_mut()
        .write_all(&sent)
        .await
        .expect("the server reads");
    assert_eq!(socket.closed().await, Some(1002));
    until(|| server.service.received_bytes() == 0).await;
    for _ in 0..64 {
        socket
            .0
            .get_mut()
            .write_all(&[0; 64 << 10])
            .await
            .expect("the server reads on");
        assert_eq!(server.service.received_bytes(), 0);
    }
}

#[tokio::test]
async fn body_that_is_announced_too_long_is_not_asked_for_and_not_waited_for() {
    let server = Server::start(|config| config.body_timeout = Duration::from_secs(3600)).await;
    for expect in ["expect: 100-continue\r\n", ""] {
        let sid = server.open_polling().await;
        let head = format!(
            "POST /engine.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        );
        let mut stream = server
            .raw(&format!("{head}{expect}content-length: 1001\r\n\r\n"))
            .await;
        let answer = answer(&mut stream).await;
        assert_eq!(answer.status, 413, "{answer:?}");
    }
}

#[tokio::test]
async fn received_bytes_count_until_the_layer_above_lets_go_of_them() {
    let server = Server::start(|config| config.max_payload = 1_000_000).await;
    let sid = server.open_polling().await;
    let large = format!("4{}", "x".repeat(100_000));
    assert!(server.post(&sid, &large).await.is(200, "ok"));
    assert!(
        server.service.received_bytes() >= 100_000,
        "the echo waits in the queue"
    );
    assert!(server.get(&sid).await.is(200, &large));
    until(|| server.service.received_bytes() == 0).await;
}

#[tokio::test]
async fn received_websocket_pings_do_not_add_up() {
    let server = Server::start(|config| config.total_received_bytes = 10_000).await;
    let mut socket = server.open_websocket().await;
    for _ in 0..300 {
        socket
            .0
            .send(tungstenite::Message::Ping(vec![0; 100].into()))
            .await
            .expect("the server reads");
        assert!(matches!(socket.next().await, tungstenite::Message::Pong(_)));
    }
    socket.send("4a").await;
    assert_eq!(socket.text().await, "4a");
}

// Connections

#[tokio::test]
async fn connection_slot_is_kept_until_the_websocket_is_closed() {
    let server = Server::start(|_| {}).await;
    let idle = Arc::strong_count(&server.slot);
    let mut direct = server.open_websocket().await;
    let sid = server.open_polling().await;
    let mut upgraded = server.websocket(&format!("&sid={sid}")).await;
    upgraded.send("2probe").await;
    assert_eq!(upgraded.text().await, "3probe");
    upgraded.send("5").await;
    for socket in [&mut direct, &mut upgraded] {
        socket.send("4a").await;
        assert_eq!(socket.text().await, "4a");
    }
    until(|| Arc::strong_count(&server.slot) == idle + 2).await;
    drop((direct, upgraded));
    until(|| Arc::strong_count(&server.slot) == idle).await;
}

#[tokio::test]
async fn connection_limit_counts_websockets() {
    let engine = Server::start(|_| {}).await;
    let service = engine.service.clone();
    let limits = server::Limits {
        connections: 2,
        ..server::Limits::default()
    };
    let listening = server::Server::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))], limits)
        .await
        .expect("a free port");
    let real = Server {
        addr: Some(listening.local_addrs().expect("it is bound")[0]),
        service: service.clone(),
        slot: slot(),
    };
    let shutdown = CancellationToken::new();
    let handler = Arc::new(move |request, peer: server::Peer| {
        let service = service.clone();
        async move { service.handle(request, Some(peer.address.ip())).await }
    });
    let serving = tokio::spawn(listening.serve(handler, shutdown.clone()));
    let (first, mut second) = (real.open_websocket().await, real.open_websocket().await);
    let mut third = real.raw("GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    for _ in 0..20 {
        second.send("4a").await;
        assert_eq!(second.text().await, "4a");
    }
    assert_eq!(
        real.service.session_count(),
        2,
        "the third waits at the door"
    );
    drop(first);
    assert_eq!(answer(&mut third).await.status, 200);
    drop(second);
    shutdown.cancel();
    within(serving).await.expect("the server ends");
}

// Slow and half

#[tokio::test]
async fn outbox_that_is_half_full_holds_its_clients_packets_back_and_loses_nothing() {
    let server = Server::start(|_| {}).await;
    let mut slow: Socket = server.open_websocket().await;
    let outbox = server.outbox(0);
    // Far more than the sockets' buffers hold, and half of the outbox behind it.
    let long = "x".repeat(15 << 20);
    let send = |text: &str| outbox.try_send(MessageGroup::One(Message::text(text)));
    send(&long).expect("any length fits");
    let half = Config::default().outbox_messages / 2;
    until(|| {
        // Until the first is on its way.
        send("b").is_ok()
    })
    .await;
    for _ in 1..half {
        send("b").expect("less than half is taken");
    }
    for number in 0..100 {
        slow.send(&format!("4{number}")).await;
    }
    let mut other = server.open_websocket().await;
    other.send("4other").await;
    assert_eq!(other.text().await, "4other", "others go on");
    let seen = || server.echo().seen();
    let handled = |text: &str| seen().iter().any(|seen| *seen == format!("message {text}"));
    assert!(handled("other") && !handled("99"), "{:?}", seen());
    assert_eq!(slow.text().await, format!("4{long}"));
    for _ in 0..half {
        assert_eq!(slow.text().await, "4b");
    }
    for number in 0..100 {
        assert_eq!(slow.text().await, format!("4{number}"));
    }
}

#[tokio::test]
async fn close_frees_the_frame_that_a_client_does_not_take() {
    let server = Server::start(|_| {}).await;
    let mut socket: Socket = server.open_websocket().await;
    let outbox = server.outbox(0);
    let long = Message::text(&"x".repeat(15 << 20));
    outbox
        .try_send(MessageGroup::One(long))
        .expect("any length fits");
    outbox.close(satwatch::engineio::CloseReason::SlowConsumer);
    server.echo().wait_for("close slow consumer").await;
    assert_eq!(server.service.session_count(), 0);
    socket
        .0
        .get_mut()
        .shutdown()
        .await
        .expect("still connected");
    until(|| Arc::strong_count(&server.slot) == 2).await;
}
