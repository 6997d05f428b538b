//! WebSocket frames that no good client sends, and the order in which a request is looked at.

use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::engineio_rig::Server;

fn frame(opcode: Data, data: &[u8], last: bool) -> Frame {
    Frame::message(data.to_vec(), OpCode::Data(opcode), last)
}

#[tokio::test]
async fn fragments_are_one_message() {
    let server = Server::start(|_| {}).await;
    let mut socket = server.open_websocket().await;
    // In the middle of a character, with an empty one and a ping between.
    for (opcode, data, last) in [
        (Data::Text, &b"4h\xc3"[..], false),
        (Data::Continue, b"", false),
        (Data::Continue, b"\xa9!", true),
    ] {
        socket
            .0
            .send(Message::Frame(frame(opcode, data, last)))
            .await
            .expect("the server reads");
        if !last {
            socket
                .0
                .send(Message::Ping(vec![1].into()))
                .await
                .expect("the server reads");
            assert_eq!(socket.next().await, Message::Pong(vec![1].into()));
        }
    }
    assert_eq!(socket.text().await, "4hé!");
}

#[tokio::test]
async fn fragments_count_together() {
    let server = Server::start(|_| {}).await;
    let mut socket = server.open_websocket().await;
    let part = [b'4'; 400];
    for opcode in [Data::Text, Data::Continue, Data::Continue] {
        socket
            .0
            .send(Message::Frame(frame(opcode, &part, false)))
            .await
            .expect("the server reads");
    }
    assert_eq!(socket.closed().await, Some(1009));
    server.echo().wait_for("close transport error").await;
}

#[tokio::test]
async fn frames_that_break_the_protocol_end_their_session_only() {
    let server = Server::start(|_| {}).await;
    let mut other = server.open_websocket().await;
    let reserved_bit = {
        let mut frame = frame(Data::Text, b"4a", true);
        frame.header_mut().rsv1 = true;
        frame
    };
    let table = [
        (reserved_bit, 1002),
        (frame(Data::Continue, b"4a", true), 1002),
        (frame(Data::Reserved(5), b"4a", true), 1002),
        (frame(Data::Text, b"4\xff", true), 1007),
    ];
    for (frame, code) in table {
        let shown = format!("{frame:?}");
        let mut socket = server.open_websocket().await;
        socket
            .0
            .send(Message::Frame(frame))
            .await
            .expect("the server reads");
        assert_eq!(socket.closed().await, Some(code), "{shown}");
    }
    other.send("4a").await;
    assert_eq!(other.text().await, "4a");
}

#[tokio::test]
async fn connection_that_breaks_ends_its_session() {
    let server = Server::start(|_| {}).await;
    drop(server.open_websocket().await);
    server.echo().wait_for("close transport close").await;
    assert_eq!(server.service.session_count(), 0);
}

#[tokio::test]
async fn request_is_looked_at_in_the_reference_servers_order() {
    let server = Server::start(|_| {}).await;
    // Each line has what the lines below it have, and one more thing wrong.
    let table = [
        ("PUT", "EIO=5&transport=x&sid=nope", 0),
        ("PUT", "EIO=5&transport=websocket&sid=nope", 1),
        ("PUT", "EIO=5&transport=websocket", 2),
        ("GET", "EIO=5&transport=websocket", 3),
        ("GET", "EIO=5&transport=polling", 5),
    ];
    for (method, query, code) in table {
        let answer = server.http(method, query, "").await;
        assert!(
            answer.body.starts_with(&format!(r#"{{"code":{code},"#)),
            "{method} {query}: {answer:?}"
        );
    }
}
