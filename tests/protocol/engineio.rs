//! Engine.IO over real connections: what the official suite leaves out, and what only shows with
//! sockets.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::SinkExt;
use satwatch::engineio::{CloseReason, Message, MessageGroup};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::{self, Bytes};

use super::engineio_rig::{Server, answer, fast, serve, settle, sid_of, within};

// Handshakes

#[tokio::test]
async fn handshake_over_polling_answers_the_open_packet() {
    let server = Server::start(|config| config.max_payload = 1_000_000).await;
    let answer = server
        .http_with(
            "GET",
            "EIO=4&transport=polling&t=abc&token=x",
            "User-Agent: test\r\n",
            "",
        )
        .await;
    let sid = sid_of(&answer.body);
    let expected = format!(
        r#"0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#
    );
    assert!(answer.is(200, &expected), "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=UTF-8")
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!((sid.len(), server.service.session_count()), (20, 1));
    server
        .echo()
        .wait_for("open EIO=4&transport=polling&t=abc&token=x test")
        .await;
}

#[tokio::test]
async fn handshake_over_a_websocket_sends_the_open_packet_first() {
    let server = Server::start(|_| {}).await;
    let open = server.websocket("").await.text().await;
    let sid = sid_of(&open);
    assert_eq!(
        open,
        format!(
            r#"0{{"sid":"{sid}","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000}}"#
        )
    );
}

#[tokio::test]
async fn request_that_is_wrong_gets_the_exact_refusal() {
    let server = Server::start(|_| {}).await;
    let polling = server.open_polling().await;
    let (unknown_transport, unknown_sid) = (
        r#"{"code":0,"message":"Transport unknown"}"#,
        r#"{"code":1,"message":"Session ID unknown"}"#,
    );
    let (method, bad) = (
        r#"{"code":2,"message":"Bad handshake method"}"#,
        r#"{"code":3,"message":"Bad request"}"#,
    );
    let version = r#"{"code":5,"message":"Unsupported protocol version"}"#;
    let mut socket = server.websocket("").await;
    let on_websocket = sid_of(&socket.text().await);
    let table = [
        ("GET", "EIO=4".to_owned(), unknown_transport),
        ("GET", "EIO=4&transport=abc".into(), unknown_transport),
        ("GET", "EIO=4&transport=__proto__".into(), unknown_transport),
        ("GET", "transport=polling".into(), version),
        ("GET", "EIO=5&transport=polling".into(), version),
        ("GET", "EIO=abc&transport=polling".into(), version),
        ("POST", "EIO=4&transport=polling".into(), method),
        ("PUT", "EIO=4&transport=polling".into(), method),
        ("OPTIONS", "EIO=4&transport=polling".into(), method),
        (
            "GET",
            "EIO=4&transport=polling&sid=nope".into(),
            unknown_sid,
        ),
        (
            "POST",
            "EIO=4&transport=polling&sid=%C3%A9".into(),
            unknown_sid,
        ),
        ("GET", "EIO=4&transport=websocket".into(), bad),
        (
            "GET",
            format!("EIO=4&transport=websocket&sid={polling}"),
            bad,
        ),
        ("GET", format!("EIO=3&transport=polling&sid={polling}"), bad),
        ("PUT", format!("EIO=4&transport=polling&sid={polling}"), bad),
        (
            "GET",
            format!("EIO=4&transport=polling&sid={on_websocket}"),
            bad,
        ),
        (
            "POST",
            format!("EIO=4&transport=polling&sid={on_websocket}"),
            bad,
        ),
    ];
    for (verb, query, body) in table {
        let answer = server.http(verb, &query, "").await;
        assert!(answer.is(400, body), "{verb} {query}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert!(
        server.post(&polling, "4a").await.is(200, "ok"),
        "none of them touched the sessions"
    );
    socket.send("4b").await;
    assert_eq!(socket.text().await, "4b");
}

#[tokio::test]
async fn handshake_that_is_wrong_gets_a_400_with_the_bare_message() {
    let server = Server::start(|_| {}).await;
    let polling = server.open_polling().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let table = [
        ("EIO=4".to_owned(), upgrade.to_owned(), "Transport unknown"),
        (
            "transport=websocket".into(),
            upgrade.into(),
            "Unsupported protocol version",
        ),
        (
            "EIO=4&transport=websocket&sid=nope".into(),
            upgrade.into(),
            "Session ID unknown",
        ),
        (
            "EIO=4&transport=websocket".into(),
            upgrade.replace("13", "8"),
            "Bad request",
        ),
        (
            "EIO=4&transport=websocket".into(),
            upgrade.replace("AA==", ""),
            "Bad request",
        ),
        (
            "EIO=4&transport=websocket".into(),
            upgrade.replace("Connection: Upgrade", "Connection: close"),
            "Bad request",
        ),
        (
            format!("EIO=4&transport=polling&sid={polling}"),
            upgrade.into(),
            "Bad request",
        ),
    ];
    for (query, headers, body) in table {
        let head = format!("GET /engine.io/?{query} HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        let answer = answer(&mut server.raw(&head).await).await;
        assert!(answer.is(400, body), "{query} {headers}: {answer:?}");
        assert_eq!(
            (answer.header("content-type"), answer.header("connection")),
            (Some("text/html"), Some("close"))
        );
    }
    assert_eq!(server.service.session_count(), 1, "no slot is left behind");
}

#[tokio::test]
async fn path_is_matched_exactly() {
    let server = Server::start(|_| {}).await;
    for path in [
        "/engine.io",
        "/engine.io-admin/",
        "/engine.io/x",
        "//engine.io/",
        "/Engine.io/",
    ] {
        let head = format!(
            "GET {path}?EIO=4&transport=polling HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(
            answer(&mut server.raw(&head).await).await.status,
            404,
            "{path}"
        );
    }
}

#[tokio::test]
async fn sessions_are_limited_and_their_room_comes_back() {
    let server = Server::start(|config| config.max_sessions = 2).await;
    let sid = server.open_polling().await;
    assert!(server.post(&sid, "4a").await.is(200, "ok"));
    let mut socket = server.open_websocket().await;
    socket.send("4a").await;
    assert_eq!(socket.text().await, "4a");
    let answer = server.http("GET", "EIO=4&transport=polling", "").await;
    assert!(
        answer.is(503, r#"{"code":3,"message":"Too many sessions"}"#),
        "{answer:?}"
    );
    assert!(answer.header("retry-after").is_some());
    assert!(server.post(&sid, "1").await.is(200, "ok"));
    server.echo().wait_for("close transport close").await;
    server.open_polling().await;
    socket.send("4still here").await;
    assert_eq!(socket.text().await, "4still here");
}

// Messages

#[tokio::test]
async fn message_of_text_or_bytes_goes_both_ways_on_both_transports() {
    let server = Server::start(|_| {}).await;
    let sid = server.open_polling().await;
    let posted = server.post(&sid, "4hellö\x1ebAQIDBA==\x1e4").await;
    assert!(posted.is(200, "ok"), "{posted:?}");
    assert_eq!(
        (
            posted.header("content-type"),
            posted.header("content-length")
        ),
        (Some("text/html"), Some("2"))
    );
    assert_eq!(posted.header("cache-control"), Some("no-store"));
    let polled = server.get(&sid).await;
    assert!(polled.is(200, "4hellö\x1ebAQIDBA==\x1e4"), "{polled:?}");
    assert_eq!(
        polled.header("content-type"),
        Some("text/plain; charset=UTF-8")
    );

    let mut socket = server.open_websocket().await;
    socket.send("4hellö").await;
    assert_eq!(socket.text().await, "4hellö");
    socket
        .0
        .send(tungstenite::Message::binary(vec![1, 2, 255]))
        .await
        .expect("the server reads");
    assert_eq!(
        socket.next().await,
        tungstenite::Message::Binary(Bytes::from_static(&[1, 2, 255]))
    );
    socket.send("bAQI=").await;
    assert_eq!(
        socket.next().await,
        tungstenite::Message::Binary(Bytes::from_static(&[1, 2]))
    );
}

#[tokio::test]
async fn message_that_is_long_arrives_whole() {
    let server = Server::start(|_| {}).await;
    let mut socket = server.open_websocket().await;
    socket.send("4big").await;
    assert_eq!(socket.text().await, format!("4{}", "é".repeat(200_000)));
    let sid = server.open_polling().await;
    server.post(&sid, "4big").await;
    assert_eq!(
        server.get(&sid).await.body.len(),
        400_001,
        "alone, though it is over the limit"
    );
}

#[tokio::test]
async fn frame_right_behind_the_handshake_is_heard() {
    let server = Server::start(|_| {}).await;
    let head = "GET /engine.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    // A masked text frame with the mask 0.
    let frame = [0x81, 0x86, 0, 0, 0, 0];
    let _stream = server
        .raw([head.as_bytes(), &frame, b"4early"].concat())
        .await;
    server.echo().wait_for("message early").await;
}

// Limits

#[tokio::test]
async fn body_over_the_limit_is_refused_while_it_streams() {
    let server = Server::start(|_| {}).await;
    let sid = server.open_polling().await;
    let exact = format!("4{}", "x".repeat(999));
    assert!(server.post(&sid, &exact).await.is(200, "ok"));
    assert!(server.get(&sid).await.is(200, &exact));
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
    let head = format!(
        "POST /engine.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    );
    let mut stream = server
        .raw(&format!(
            "{head}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
        ))
        .await;
    assert_eq!(answer(&mut stream).await.status, 413);
    server.echo().wait_for("close transport error").await;
    assert_eq!(server.get(&sid).await.status, 400);
    let sid = server.open_polling().await;
    assert_eq!(
        server.post(&sid, &"x".repeat(5000)).await.status,
        413,
        "an announced length is believed when it is too long"
    );
}

#[tokio::test]
async fn message_over_the_limit_closes_the_websocket_with_1009() {
    let server = Server::start(|_| {}).await;
    let mut socket = server.open_websocket().await;
    let exact = format!("4{}", "x".repeat(999));
    socket.send(&exact).await;
    assert_eq!(socket.text().await, exact);
    socket.send(&format!("{exact}x")).await;
    assert_eq!(socket.closed().await, Some(1009));
    server.echo().wait_for("close transport error").await;
}

#[tokio::test(start_paused = true)]
async fn write_that_nobody_reads_ends_the_session() {
    let server = Server::in_memory(|config| {
        config.write_timeout = Duration::from_secs(1);
        // More than the connection takes for a client that does not read.
        (config.outbox_messages, config.outbox_bytes) = (1000, 1 << 20);
    });
    let mut socket = server.open_websocket().await;
    socket.send("4flood").await;
    server.echo().wait_for("close transport error").await;
    assert_eq!(server.service.session_count(), 0);
    drop(socket);
}

#[tokio::test(start_paused = true)]
async fn body_that_stalls_ends_its_session() {
    let server = Server::in_memory(|config| config.body_timeout = Duration::from_secs(1));
    let sid = server.open_polling().await;
    let head = format!(
        "POST /engine.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n"
    );
    let mut stream = server
        .raw(&format!("{head}connection: close\r\n\r\n4a"))
        .await;
    assert_eq!(answer(&mut stream).await.status, 408);
    server.echo().wait_for("close transport close").await;
}

// Requests that go wrong

#[tokio::test]
async fn post_beside_another_ends_the_session() {
    let server = Server::start(|_| {}).await;
    let sid = server.open_polling().await;
    let head = format!(
        "POST /engine.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    );
    let mut first = server
        .raw(&format!("{head}content-length: 5\r\n\r\n4a"))
        .await;
    let mut second = server
        .raw(&format!("{head}content-length: 5\r\n\r\n4a"))
        .await;
    let statuses = (
        answer(&mut first).await.status,
        answer(&mut second).await.status,
    );
    assert_eq!(statuses, (400, 400));
    server.echo().wait_for("close transport error").await;
    assert!(
        server
            .get(&sid)
            .await
            .is(400, r#"{"code":1,"message":"Session ID unknown"}"#)
    );
}

#[tokio::test]
async fn poll_or_body_that_is_dropped_ends_the_session() {
    let server = Server::start(|_| {}).await;
    let sid = server.open_polling().await;
    drop(server.pending_get(&sid).await);
    server.echo().wait_for("close transport close").await;
    assert_eq!(server.get(&sid).await.status, 400);

    let server = Server::start(|_| {}).await;
    let sid = server.open_polling().await;
    let head =
        format!("POST /engine.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: x\r\n");
    drop(
        server
            .raw(&format!("{head}content-length: 5\r\n\r\n4a"))
            .await,
    );
    server.echo().wait_for("close transport close").await;
}

#[tokio::test]
async fn poll_that_is_dropped_before_it_is_read_ends_its_session_too() {
    let server = Server::start(|_| {}).await;
    for _ in 0..20 {
        let sid = server.open_polling().await;
        let closed = server.echo().seen().len();
        // The request and the end of the connection are one read.
        let (mut client, connection) = tokio::io::duplex(1024);
        let head = format!(
            "GET /engine.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: x\r\n\r\n"
        );
        client.write_all(head.as_bytes()).await.expect("it fits");
        drop(client);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        serve(
            server.service.clone(),
            connection,
            peer,
            server.slot.clone(),
        )
        .await;
        server.echo().wait_for_count(closed + 1).await;
        assert_eq!(server.echo().seen()[closed], "close transport close");
    }
}

#[tokio::test]
async fn packet_that_is_bad_ends_the_session_after_those_before_it() {
    let server = Server::start(|_| {}).await;
    let sid = server.open_polling().await;
    assert!(
        server
            .post(&sid, "4a\x1eabc")
            .await
            .is(400, r#"{"code":3,"message":"Bad request"}"#)
    );
    assert_eq!(
        server.echo().seen()[1..],
        ["message a", "close parse error"]
    );
    assert_eq!(server.get(&sid).await.status, 400);

    let sid = server.open_polling().await;
    let (query, octets) = (
        format!("EIO=4&transport=polling&sid={sid}"),
        "content-type: application/octet-stream\r\n",
    );
    assert_eq!(
        server.http_with("POST", &query, octets, "4a").await.status,
        400
    );
    assert_eq!(server.get(&sid).await.status, 400);

    let mut socket = server.open_websocket().await;
    socket.send("abc").await;
    assert_eq!(socket.closed().await, None);
    let mut socket = server.open_websocket().await;
    socket.send("1").await;
    assert_eq!(socket.closed().await, None);
}

// Upgrade

#[tokio::test]
async fn upgrade_takes_the_session_along() {
    let server = Server::start(|_| {}).await;
    let sid = server.open_polling().await;
    let mut waiting = server.pending_get(&sid).await;
    let mut socket = server.websocket(&format!("&sid={sid}")).await;
    socket.send("2probe").await;
    assert_eq!(socket.text().await, "3probe");
    assert!(answer(&mut waiting).await.is(200, "6"));
    assert!(
        server.get(&sid).await.is(200, "6"),
        "a later poll is sent home too"
    );
    assert!(server.post(&sid, "4by post").await.is(200, "ok"));
    // Three frames in one write.
    for text in ["5", "4one", "4two"] {
        socket
            .0
            .feed(tungstenite::Message::text(text))
            .await
            .expect("the server reads");
    }
    socket.0.flush().await.expect("the server reads");
    for expected in ["4by post", "4one", "4two"] {
        assert_eq!(socket.text().await, expected);
    }
    assert_eq!(
        (
            server.get(&sid).await.status,
            server.post(&sid, "4a").await.status
        ),
        (400, 400)
    );
    let mut second = server.websocket(&format!("&sid={sid}")).await;
    assert_eq!(second.closed().await, None, "101 first, then closed");
    socket.send("4still here").await;
    assert_eq!(socket.text().await, "4still here");
}

#[tokio::test(start_paused = true)]
async fn upgrade_that_fails_leaves_polling_alive() {
    let server = Server::in_memory(|_| {});
    let sid = server.open_polling().await;
    let mut socket = server.websocket(&format!("&sid={sid}")).await;
    socket.send("4a").await;
    assert_eq!(socket.closed().await, None);
    let mut lost = server.websocket(&format!("&sid={sid}")).await;
    lost.send("2probe").await;
    assert_eq!(lost.text().await, "3probe");
    drop(lost);
    settle().await;
    assert!(server.post(&sid, "4alive").await.is(200, "ok"));
    assert!(server.get(&sid).await.is(200, "4alive"));
    let mut socket = server.websocket(&format!("&sid={sid}")).await;
    socket.send("2probe").await;
    assert_eq!(socket.text().await, "3probe", "another attempt is welcome");
}

// Heartbeat

#[tokio::test(start_paused = true)]
async fn heartbeat_keeps_a_session_alive_and_silence_ends_it() {
    let server = Server::in_memory(fast);
    let mut socket = server.open_websocket().await;
    for _ in 0..3 {
        assert_eq!(socket.text().await, "2");
        socket.send("3").await;
    }
    assert_eq!(socket.text().await, "2");
    assert_eq!(socket.closed().await, None);
    server.echo().wait_for("close ping timeout").await;

    let server = Server::in_memory(fast);
    let sid = server.open_polling().await;
    assert!(server.get(&sid).await.is(200, "2"));
    server.echo().wait_for("close ping timeout").await;
    assert_eq!(server.get(&sid).await.status, 400);
}

// Closing

#[tokio::test]
async fn close_comes_behind_what_was_sent() {
    let server = Server::start(|_| {}).await;
    let mut socket = server.open_websocket().await;
    socket.send("4bye").await;
    assert_eq!(socket.text().await, "4last words");
    assert_eq!(socket.closed().await, None);
    let sid = server.open_polling().await;
    assert!(server.post(&sid, "4bye").await.is(200, "ok"));
    assert!(server.get(&sid).await.is(200, "4last words"));
    assert!(server.get(&sid).await.is(200, "6\x1e1"));
    assert!(
        server
            .get(&sid)
            .await
            .is(400, r#"{"code":1,"message":"Session ID unknown"}"#)
    );
    assert_eq!(
        server
            .echo()
            .seen()
            .iter()
            .filter(|seen| *seen == "close forced close")
            .count(),
        2
    );
}

#[tokio::test]
async fn shutdown_ends_all_sessions_and_waits_for_them() {
    let server = Server::start(|_| {}).await;
    let sid = server.open_polling().await;
    let mut waiting = server.pending_get(&sid).await;
    let idle = server.open_polling().await;
    let mut socket = server.open_websocket().await;
    let closed = tokio::spawn(async move { socket.closed().await });
    within(server.service.shutdown()).await;
    assert_eq!(server.service.session_count(), 0);
    assert_eq!(
        server
            .echo()
            .seen()
            .iter()
            .filter(|seen| *seen == "close server shutting down")
            .count(),
        3
    );
    assert_eq!(closed.await.expect("no panic"), Some(1001));
    assert_eq!(
        answer(&mut waiting).await.status,
        400,
        "no `1`: these clients are to come back"
    );
    assert_eq!(server.get(&idle).await.status, 400);
    assert_eq!(
        server
            .http("GET", "EIO=4&transport=polling", "")
            .await
            .status,
        503
    );
}

#[tokio::test]
async fn panic_of_a_handler_takes_only_its_session_along() {
    let server = Server::start(|_| {}).await;
    let mut other = server.open_websocket().await;
    let mut socket = server.open_websocket().await;
    socket.send("4panic").await;
    server.echo().wait_for("close transport error").await;
    assert_eq!(server.service.session_count(), 1);
    other.send("4a").await;
    assert_eq!(other.text().await, "4a");
}

// Work

#[tokio::test(start_paused = true)]
async fn work_holds_back_the_client_and_nothing_else() {
    let server = Server::in_memory(fast);
    let mut socket = server.open_websocket().await;
    socket.send("4work").await;
    socket.send("4next").await;
    server.echo().wait_for("message work").await;
    server
        .echo()
        .outboxes
        .lock()
        .expect("no panic under this lock")[0]
        .try_send(MessageGroup::One(Message::text("news")))
        .expect("room");
    assert_eq!(socket.text().await, "4news");
    assert_eq!(
        socket.text().await,
        "2",
        "pings go on, and without a pong that anyone reads"
    );
    settle().await;
    assert_eq!(
        server.echo().seen().len(),
        2,
        "the next message waits: {:?}",
        server.echo().seen()
    );
    server.echo().release.notify_one();
    assert_eq!(socket.text().await, "4worked");
    assert_eq!(socket.text().await, "4next");
}

#[tokio::test]
async fn work_is_dropped_before_the_session_is_closed() {
    let server = Server::start(|_| {}).await;
    let mut socket = server.open_websocket().await;
    socket.send("4work").await;
    server.echo().wait_for("message work").await;
    server
        .echo()
        .outboxes
        .lock()
        .expect("no panic under this lock")[0]
        .close(CloseReason::ForcedClose);
    assert_eq!(socket.closed().await, None);
    assert_eq!(
        server.echo().seen()[1..],
        ["message work", "work dropped", "close forced close"]
    );
}
