//! Engine.IO 3 over whole connections. What the machine alone shows is in `engineio::session`'s
//! tests.

use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::{self, Bytes};

use super::engineio_rig::{Server, fast, sid_of};

const POLLING: &str = "EIO=3&transport=polling";

/// The session id of a handshake's answer, whose length must be right.
fn opened(body: &str) -> String {
    let (length, packet) = body.split_once(':').expect("a length");
    assert_eq!(length.parse(), Ok(packet.len()));
    sid_of(packet)
}

async fn open(server: &Server, more: &str) -> String {
    format!(
        "{POLLING}&sid={}",
        opened(
            &server
                .http("GET", &format!("{POLLING}{more}"), "")
                .await
                .body
        )
    )
}

#[tokio::test]
async fn handshake_is_framed_with_its_length() {
    let server = Server::start(|_| {}).await;
    let answer = server.http("GET", POLLING, "").await;
    let sid = opened(&answer.body);
    let open = format!(
        r#"0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000}}"#
    );
    assert!(
        answer.is(200, &format!("{}:{open}", open.len())),
        "{answer:?}"
    );
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=UTF-8")
    );
    let mut socket = server.websocket_of(3, "").await;
    assert!(
        socket.text().await.starts_with("0{"),
        "no length on a WebSocket"
    );
}

#[tokio::test]
async fn revision_3_can_be_off_and_no_request_mixes_revisions() {
    let server = Server::start(|config| config.revision_3 = false).await;
    let refused = server.http("GET", POLLING, "").await;
    assert!(
        refused.is(
            400,
            r#"{"code":5,"message":"Unsupported protocol version"}"#
        ),
        "{refused:?}"
    );
    let server = Server::start(|_| {}).await;
    let (four, three) = (server.open_polling().await, open(&server, "").await);
    let bad = r#"{"code":3,"message":"Bad request"}"#;
    assert!(
        server
            .http("GET", &format!("{POLLING}&sid={four}"), "")
            .await
            .is(400, bad)
    );
    assert!(
        server
            .http("POST", &three.replace("EIO=3", "EIO=4"), "4a")
            .await
            .is(400, bad)
    );
    assert!(
        server.post(&four, "4a").await.is(200, "ok")
            && server.http("POST", &three, "2:4a").await.is(200, "ok"),
        "both live on"
    );
}

#[tokio::test]
async fn message_of_text_or_bytes_goes_both_ways() {
    let server = Server::start(|_| {}).await;
    let with_base64 = open(&server, "&b64=1").await;
    for body in [
        "6:4hello",
        "6:4test16:4test26:4test3",
        "6:4hello10:b4AQIDBA==",
        "4:4é€\u{e9}",
        "3:4\u{1f4b0}",
    ] {
        assert!(
            server.http("POST", &with_base64, body).await.is(200, "ok"),
            "{body}"
        );
        let polled = server.http("GET", &with_base64, "").await;
        assert!(polled.is(200, body), "{body}: {polled:?}");
    }
    let binary = open(&server, "").await;
    assert!(
        server
            .http("POST", &binary, "6:4hello10:b4AQIDBA==")
            .await
            .is(200, "ok")
    );
    let (kind, body) = server.http_bytes("GET", &binary, "", b"").await;
    assert_eq!(
        (kind.as_str(), &body[..]),
        (
            "application/octet-stream",
            &[
                0, 6, 255, 52, 104, 101, 108, 108, 111, 1, 5, 255, 4, 1, 2, 3, 4
            ][..]
        )
    );
    let (kind, body) = server
        .http_bytes(
            "POST",
            &binary,
            "content-type: application/octet-stream\r\n",
            &[1, 3, 255, 4, 8, 9],
        )
        .await;
    assert_eq!((kind.as_str(), &body[..]), ("text/html", &b"ok"[..]));
    assert_eq!(
        server.http_bytes("GET", &binary, "", b"").await.1[..],
        [1, 3, 255, 4, 8, 9]
    );

    let mut socket = server.websocket_of(3, "").await;
    assert!(socket.text().await.starts_with("0{"));
    socket.send("4hellö").await;
    assert_eq!(socket.text().await, "4hellö");
    socket
        .0
        .send(tungstenite::Message::binary(vec![4, 1, 255]))
        .await
        .expect("the server reads");
    assert_eq!(
        socket.next().await,
        tungstenite::Message::Binary(Bytes::from_static(&[4, 1, 255]))
    );
}

#[tokio::test(start_paused = true)]
async fn heartbeat_is_the_clients_and_silence_ends_its_session() {
    let server = Server::in_memory(fast);
    let query = open(&server, "").await;
    let mut socket = server.websocket_of(3, "").await;
    socket.text().await;
    for _ in 0..3 {
        assert!(server.http("POST", &query, "1:2").await.is(200, "ok"));
        assert!(server.http("GET", &query, "").await.is(200, "1:3"));
        socket.send("2").await;
        assert_eq!(socket.text().await, "3");
    }
    server.echo().wait_for_count(4).await;
    assert_eq!(server.http("POST", &query, "1:2").await.status, 400);
    assert_eq!(socket.closed().await, None, "and the server does not ping");
}

#[tokio::test]
async fn upgrade_takes_the_session_along() {
    let server = Server::start(|_| {}).await;
    let query = open(&server, "").await;
    let sid = query.rsplit('=').next().expect("an id").to_owned();
    let mut socket = server.websocket_of(3, &format!("&sid={sid}")).await;
    socket.send("2probe").await;
    assert_eq!(socket.text().await, "3probe");
    assert!(server.http("GET", &query, "").await.is(200, "1:6"));
    socket.send("5").await;
    socket.send("4hello").await;
    assert_eq!(socket.text().await, "4hello");
    assert_eq!(server.http("GET", &query, "").await.status, 400);
    assert_eq!(
        server
            .websocket_of(3, &format!("&sid={sid}"))
            .await
            .closed()
            .await,
        None
    );
}
