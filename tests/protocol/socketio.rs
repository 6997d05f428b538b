//! Socket.IO over loopback: the whole way from bytes on a socket to the application and back, on
//! both transports.

use futures_util::SinkExt;
use satwatch::socketio::{CloseReason, DisconnectReason, Encoded};
use tokio_tungstenite::tungstenite::Message;

use crate::socketio_rig::{Polling, Server, Ws, request, within};

#[tokio::test]
async fn websocket_client_gets_events_answers_and_attachments() {
    let server = Server::start().await;
    let mut ws = Ws::join(server.at).await;
    ws.send(r#"42["echo","é",1e400]"#).await;
    ws.send(r#"427["slow"]"#).await;
    ws.send(r#"452-["echo",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#)
        .await;
    ws.0.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    ws.0.send(Message::binary(vec![])).await.unwrap();
    assert_eq!(ws.text().await, r#"42["echo","é",1e400]"#);
    assert_eq!(ws.text().await, r#"437["slow"]"#);
    assert_eq!(
        ws.text().await,
        r#"452-["echo",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#
    );
    assert_eq!(
        (ws.binary().await, ws.binary().await),
        (vec![1, 2, 3], vec![])
    );
}

#[tokio::test]
async fn polling_client_gets_events_answers_and_attachments() {
    let server = Server::start().await;
    let client = Polling::join(server.at).await;
    client
        .post("42[\"echo\",\"é\"]\u{1e}427[\"slow\"]\u{1e}451-[\"echo\",{\"_placeholder\":true,\"num\":0}]\u{1e}bAQID")
        .await;
    let expected = [
        r#"42["echo","é"]"#,
        r#"437["slow"]"#,
        r#"451-["echo",{"_placeholder":true,"num":0}]"#,
        "bAQID",
    ];
    assert_eq!(client.packets(expected.len()).await, expected);
}

#[tokio::test]
async fn events_keep_their_order_over_an_upgrade() {
    let server = Server::start().await;
    let client = Polling::join(server.at).await;
    let socket = server.app.sockets.lock().unwrap()[0].clone();
    client.post(r#"42["echo",0]"#).await;
    assert_eq!(client.packets(1).await, [r#"42["echo",0]"#]);
    let mut ws = Ws::open(server.at, Some(&client.sid)).await;
    ws.send("2probe").await;
    assert_eq!(ws.text().await, "3probe");
    for i in 1..=25 {
        socket.emit("n", &i).unwrap();
    }
    ws.send("5").await;
    for i in 26..=50 {
        socket.emit("n", &i).unwrap();
    }
    ws.send(r#"42["echo",1]"#).await;
    for i in 1..=50 {
        assert_eq!(ws.text().await, format!(r#"42["n",{i}]"#));
    }
    assert_eq!(ws.text().await, r#"42["echo",1]"#);
    assert_eq!(client.get().await.0, 400);
}

#[tokio::test]
async fn encoded_event_goes_to_all_clients_once() {
    const EVENTS: usize = 40;
    let server = Server::start().await;
    let (mut clients, mut polling) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        clients.push(Ws::join(server.at).await);
        polling.push(Polling::join(server.at).await);
    }
    server.joined(10).await;
    let sockets = server.app.sockets.lock().unwrap().clone();
    for i in 0..EVENTS {
        let event = Encoded::event("/", "all", &i).unwrap();
        for socket in &sockets {
            socket.send(&event).unwrap();
        }
    }
    let expected: Vec<_> = (0..EVENTS).map(|i| format!(r#"42["all",{i}]"#)).collect();
    for client in &mut clients {
        for line in &expected {
            assert_eq!(&client.text().await, line);
        }
    }
    for client in &polling {
        assert_eq!(client.packets(EVENTS).await, expected);
    }
}

#[tokio::test]
async fn violation_closes_only_the_connection_it_came_on() {
    let mut server = Server::start().await;
    let (mut good, mut bad) = (Ws::join(server.at).await, Ws::join(server.at).await);
    let polling = Polling::join(server.at).await;
    bad.send("42{}").await;
    assert!(bad.next().await.is_none());
    assert_eq!(
        server.left().await,
        DisconnectReason::Session(CloseReason::ParseError)
    );
    request(server.at, "POST", &polling.sid, r#"42/elsewhere,["a"]"#).await;
    assert_eq!(server.left().await, DisconnectReason::ForcedServerClose);
    good.send(r#"42["echo"]"#).await;
    assert_eq!(good.text().await, r#"42["echo"]"#);
}

#[tokio::test]
async fn disconnect_with_close_comes_before_the_end() {
    let mut server = Server::start().await;
    let mut ws = Ws::join(server.at).await;
    ws.send(r#"42["kick",true]"#).await;
    assert_eq!(ws.text().await, "41");
    assert!(ws.next().await.is_none());
    assert_eq!(
        server.left().await,
        DisconnectReason::ServerNamespaceDisconnect
    );
}

#[tokio::test]
async fn disconnect_reason_tells_a_lost_connection_from_a_stopping_server() {
    let mut server = Server::start().await;
    let ws = Ws::join(server.at).await;
    drop(ws);
    assert_eq!(
        server.left().await,
        DisconnectReason::Session(CloseReason::TransportClose)
    );
    let mut ws = Ws::join(server.at).await;
    let service = server.service.clone();
    let stopping = tokio::spawn(async move { service.shutdown().await });
    assert!(ws.next().await.is_none());
    assert_eq!(
        server.left().await,
        DisconnectReason::Session(CloseReason::ServerShuttingDown)
    );
    within(stopping).await.unwrap();
    assert_eq!(server.service.session_count(), 0);
}

#[tokio::test]
async fn connect_holds_back_what_comes_behind_it() {
    let mut server = Server::start().await;
    let mut ws = Ws::join(server.at).await;
    for packet in ["40/slow", r#"42/slow,["echo",1]"#, r#"42["echo",2]"#] {
        ws.send(packet).await;
    }
    server.app.gate.notify_one();
    assert!(ws.text().await.starts_with("40/slow,{\"sid\":\""));
    assert!(ws.text().await.starts_with("42/slow,[\"hello\","));
    assert_eq!(ws.text().await, r#"42/slow,["echo",1]"#);
    assert_eq!(ws.text().await, r#"42["echo",2]"#);
    // A second one is one too many, also when it comes right behind the first.
    ws.send("40/custom").await;
    ws.send("40/custom").await;
    assert!(ws.text().await.starts_with("40/custom,{\"sid\":\""));
    while ws.next().await.is_some() {}
    for _ in 0..3 {
        assert_eq!(server.left().await, DisconnectReason::ForcedServerClose);
    }
}

#[tokio::test]
async fn connect_is_implied_for_a_client_of_socket_io_2() {
    let server = Server::start().await;
    let mut ws = Ws::asking(server.at, "EIO=3").await;
    assert!(ws.text().await.starts_with("0{"));
    assert_eq!(ws.text().await, "40");
    assert!(ws.text().await.starts_with("42[\"hello\","));
    ws.send("40/custom?token=1,").await;
    assert_eq!(ws.text().await, "40/custom,");
    assert!(ws.text().await.starts_with("42/custom,[\"hello\","));
    ws.send("40/elsewhere").await;
    assert_eq!(
        ws.text().await,
        r#"44/elsewhere,{"message":"Invalid namespace"}"#
    );
    ws.send(r#"451-["echo",{"_placeholder":true,"num":0}]"#)
        .await;
    ws.0.send(Message::binary(vec![4, 7, 8])).await.unwrap();
    assert_eq!(
        ws.text().await,
        r#"451-["echo",{"_placeholder":true,"num":0}]"#
    );
    assert_eq!(ws.binary().await, [4, 7, 8]);
    ws.send("2").await;
    assert_eq!(ws.text().await, "3");
    ws.send("40").await;
    assert!(
        ws.next().await.is_none(),
        "it is in the main namespace already"
    );
}
