//! Who keeps a session when there is no room for more, and what a client gets that ends its own.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use satwatch::engineio::Config;

use super::engineio_rig::{Server, within};

const FULL: &str = r#"{"code":3,"message":"Too many sessions"}"#;
const UNKNOWN: &str = r#"{"code":1,"message":"Session ID unknown"}"#;

/// A GET that the session has before any request that is sent after this: over a connection nobody
/// could say when it waits.
fn waiting_get(server: &Server, sid: &str) -> impl Future<Output = (u16, String)> {
    let uri = format!("/engine.io/?EIO=4&transport=polling&sid={sid}");
    let request = Request::get(uri)
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let peer = Ipv4Addr::LOCALHOST.into();
    let answer = server.service.handle(request, Some(peer));
    async move {
        let answer = within(answer).await;
        let status = answer.status().as_u16();
        let body = answer
            .into_body()
            .collect()
            .await
            .expect("a full body cannot fail")
            .to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

#[tokio::test]
async fn sessions_that_are_let_in_keep_their_room_by_whatever_way_they_came() {
    let server = Server::start(|config| config.max_sessions = 3).await;
    let mut opened = Vec::new();
    for _ in 0..3 {
        opened.push(server.open_polling().await);
    }
    // A fourth has the room of the first.
    let polled = server.open_polling().await;
    server.echo().wait_for("close ping timeout").await;
    assert!(server.get(&opened[0]).await.is(400, UNKNOWN));
    assert_eq!(server.service.session_count(), 3);
    let waiting = waiting_get(&server, &polled);
    assert!(server.post(&polled, "4polled").await.is(200, "ok"));
    assert_eq!(waiting.await, (200, "4polled".to_owned()));
    assert!(server.post(&opened[2], "4a").await.is(200, "ok"));
    let mut socket = server.websocket(&format!("&sid={}", opened[1])).await;
    for packet in ["2probe", "5", "4b"] {
        socket.send(packet).await;
    }
    assert_eq!(socket.text().await, "3probe");
    assert_eq!(socket.text().await, "4b");
    // However many come.
    for _ in 0..5 {
        let refused = server.http("GET", "EIO=4&transport=polling", "").await;
        assert!(refused.is(503, FULL), "{refused:?}");
    }
    assert!(server.get(&opened[2]).await.is(200, "4a"));
    socket.send("4c").await;
    assert_eq!(socket.text().await, "4c");
    assert_eq!(
        server
            .echo()
            .seen()
            .iter()
            .filter(|seen| seen.starts_with("close"))
            .count(),
        1
    );
}

#[tokio::test]
async fn asking_for_a_session_keeps_no_room() {
    let server = Server::start(|config| config.max_sessions = 5).await;
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(server.open_polling().await);
    }
    // By a poll that waits, a POST, a WebSocket, and badly; and a session on a WebSocket alone.
    let waiting = waiting_get(&server, &asked[0]);
    assert!(server.post(&asked[1], "3").await.is(200, "ok"));
    let mut probing = server.websocket(&format!("&sid={}", asked[2])).await;
    probing.send("2probe").await;
    assert_eq!(probing.text().await, "3probe");
    let bad = format!("EIO=4&transport=polling&sid={}", asked[3]);
    assert_eq!(server.http("DELETE", &bad, "").await.status, 400);
    let mut socket = server.open_websocket().await;

    let mut newer = Vec::new();
    for _ in 0..5 {
        newer.push(server.open_polling().await);
    }
    assert_eq!(waiting.await, (400, UNKNOWN.to_owned()));
    for sid in &asked {
        assert!(server.get(sid).await.is(400, UNKNOWN));
    }
    assert_eq!(probing.closed().await, None);
    assert_eq!(socket.closed().await, None);
    for sid in &newer {
        assert!(server.post(sid, "4a").await.is(200, "ok"));
        assert!(server.get(sid).await.is(200, "4a"));
    }
    assert_eq!(server.service.session_count(), 5);
}

#[tokio::test]
async fn sessions_on_a_websocket_have_the_room_of_a_stranger_and_keep_it_when_let_in() {
    let server = Server::start(|config| config.max_sessions = 1).await;
    let sid = server.open_polling().await;
    let mut socket = server.open_websocket().await;
    assert!(server.get(&sid).await.is(400, UNKNOWN));
    socket.send("4a").await;
    assert_eq!(socket.text().await, "4a");
    assert!(
        server
            .http("GET", "EIO=4&transport=polling", "")
            .await
            .is(503, FULL)
    );
    socket.send("4still here").await;
    assert_eq!(socket.text().await, "4still here");
    // All that were open end, each once, those that were pushed out too.
    server.service.shutdown().await;
    let closes: Vec<_> = server
        .echo()
        .seen()
        .into_iter()
        .filter(|seen| seen.starts_with("close"))
        .collect();
    assert_eq!(closes, ["close ping timeout", "close server shutting down"]);
}

#[tokio::test]
async fn other_limits_are_those_of_sessions_that_open_and_end_none() {
    let server = Server::start(|config| config.max_sessions = 2).await;
    let (older, mut socket) = (server.open_polling().await, server.open_websocket().await);
    let long = format!("4{}", "x".repeat(900));
    assert!(server.post(&older, "4a").await.is(200, "ok"));
    assert!(server.get(&older).await.is(200, "4a"));
    socket.send("4a").await;
    assert_eq!(socket.text().await, "4a");
    let config = |max_payload, max_sessions| Config {
        max_payload,
        max_sessions,
        ..Config::default()
    };
    server.service.set_limits(&config(100, 1));
    let refused = server.http("GET", "EIO=4&transport=polling", "").await;
    assert!(refused.is(503, FULL), "{refused:?}");
    // What their clients were told holds.
    assert!(server.post(&older, &long).await.is(200, "ok"));
    assert!(server.get(&older).await.is(200, &long));
    socket.send(&long).await;
    assert_eq!(socket.text().await, long);
    server.service.set_limits(&config(100, 3));
    let opened = server.http("GET", "EIO=4&transport=polling", "").await;
    assert!(opened.body.contains(r#""maxPayload":100}"#), "{opened:?}");
    let (_, rest) = opened.body.split_once(r#""sid":""#).expect("it has an id");
    let newer = rest.split('"').next().expect("the id ends");
    assert_eq!(server.post(newer, &long).await.status, 413);
    // The upgrade of an older session takes what polling took.
    let mut socket = server.websocket(&format!("&sid={older}")).await;
    for packet in ["2probe", "5", &long] {
        socket.send(packet).await;
    }
    assert_eq!(socket.text().await, "3probe");
    assert_eq!(socket.text().await, long);
}

#[tokio::test]
async fn answers_to_packets_before_a_bad_or_closing_one_are_delivered_on_both_transports() {
    let server = Server::start(|_| {}).await;
    for (last, status) in [("x", 400), ("1", 200)] {
        let sid = server.open_polling().await;
        let waiting = waiting_get(&server, &sid);
        assert_eq!(
            server.post(&sid, &format!("4good\x1e{last}")).await.status,
            status
        );
        assert_eq!(waiting.await, (200, "4good".to_owned()), "before {last:?}");
        assert!(server.get(&sid).await.is(400, UNKNOWN));

        let mut socket = server.open_websocket().await;
        socket.send("4good").await;
        socket.send(last).await;
        assert_eq!(socket.text().await, "4good");
        assert_eq!(socket.closed().await, None);
    }
}
