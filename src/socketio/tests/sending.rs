//! What is sent, and what is answered.

use super::*;

#[tokio::test]
async fn events_come_in_order_and_are_acknowledged() {
    let mut client = Client::joined().await;
    client.text(r#"2["work",1]"#).await;
    client.text(r#"20["ack",1,"x",[2]]"#).await;
    client.text(r#"2["echo",1e400,"\ud83d"]"#).await;
    client.text("2").await;
    assert_eq!(
        client.logged(),
        [
            "event / work 1 +0",
            "work done",
            r#"event / ack 1 "x" [2] +0"#,
            r#"event / echo 1e400 "\ud83d" +0"#
        ]
    );
    assert_eq!(
        client.received(),
        [r#"30[1,"x",[2]]"#, r#"2["echo",1e400,"\ud83d"]"#]
    );
}

#[tokio::test(start_paused = true)]
async fn the_server_can_ask_for_an_answer() {
    const LIMIT: Duration = Duration::from_secs(10);
    let mut client = Client::joined().await;
    let socket = client.socket();
    let (first, second, third) = (
        socket.emit_with_ack("a", &[1], &[], LIMIT),
        socket.emit_with_ack("b", "x", &[], LIMIT),
        socket.emit_with_ack("c", "", &[], LIMIT),
    );
    assert_eq!(
        client.received(),
        [r#"21["a",[1]]"#, r#"22["b","x"]"#, r#"23["c",""]"#]
    );
    // Out of order, twice, and for nobody.
    client
        .text(r#"62-2["é",{"_placeholder":true,"num":1}]"#)
        .await;
    client.binary(b"one").await;
    client.binary(b"two").await;
    client.text("31").await;
    client.text("31[2]").await;
    client.text("399[2]").await;
    assert_eq!(first.await.unwrap().args.len(), 0);
    let reply = second.await.unwrap();
    assert_eq!(
        (
            reply.arg::<String>(0).unwrap().as_str(),
            reply.attachments.len()
        ),
        ("é", 2)
    );
    assert!(matches!(third.await, Err(AckError::Timeout)));
    client.text("33[]").await;

    let leaving = socket.emit_with_ack("d", &1, &[], LIMIT);
    client.text("1").await;
    assert!(matches!(leaving.await, Err(AckError::Disconnected)));
    assert!(matches!(
        socket.emit_with_ack("e", &1, &[], LIMIT).await,
        Err(AckError::Send(SendError::Closed))
    ));
    assert_eq!(client.closing(), None);
}

#[tokio::test]
async fn what_cannot_be_a_packet_is_not_sent() {
    let mut client = Client::joined().await;
    let socket = client.socket();
    let data = [Bytes::from_static(b"x")];
    let eleven = vec![Bytes::new(); 11];
    assert!(matches!(
        socket.emit("connect", &1),
        Err(SendError::Encode(_))
    ));
    assert!(matches!(
        socket.emit("a", &std::collections::HashMap::from([((1, 2), 3)])),
        Err(SendError::Encode(_))
    ));
    assert!(matches!(
        socket.emit_binary("a", &Placeholder(1), &data),
        Err(SendError::Encode(_))
    ));
    assert!(matches!(
        socket.emit_binary("a", &Placeholder(0), &eleven),
        Err(SendError::Encode(_))
    ));
    assert!(Encoded::event_raw("/", "a", "1,2").is_err());
    assert_eq!(client.received(), [""; 0]);
    socket
        .emit_binary("é", &[Placeholder(0), Placeholder(0)], &data)
        .unwrap();
    socket
        .send(&Encoded::event_raw("/", "a", r#" {"b":1.0} "#).unwrap())
        .unwrap();
    assert_eq!(
        client.received(),
        [
            r#"51-["é",[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]] + b"x""#,
            r#"2["a",{"b":1.0}]"#
        ]
    );
}

#[tokio::test]
async fn a_client_without_room_for_an_answer_is_closed() {
    let client = Client::with(LayerConfig::default(), 1);
    client.text("0/unknown").await;
    client.text("0").await;
    assert_eq!(client.closing(), Some(CloseReason::SlowConsumer));
    client.end(CloseReason::SlowConsumer);
    assert_eq!(client.logged(), [""; 0]);
}

#[tokio::test]
async fn an_event_for_many_is_encoded_once_and_told_once() {
    let mut clients = [Client::joined().await];
    let mut more: Vec<_> = (0..3).map(|_| clients[0].beside()).collect();
    for client in &mut more {
        client.text("0").await;
        client.received();
    }
    more[2].session.disconnect_all();
    more[2].received();
    let sockets = clients[0].app.sockets.lock().unwrap().clone();
    let event = Encoded::event_with("/", "all", &[], &[Bytes::from_static(b"x")]).unwrap();
    let twice = sockets.iter().chain(&sockets);
    let failed = event.send_to_all(twice);
    assert!(
        matches!(failed[..], [(socket, SendError::Closed)] if socket.key() == sockets[3].key()),
        "{failed:?}"
    );
    let mut told = Vec::new();
    for client in clients.iter_mut().chain(&mut more) {
        while let Some(group) = client.sent.try_recv() {
            let Group::Many(messages) = group else {
                panic!("it has an attachment")
            };
            told.push(messages);
        }
    }
    assert_eq!(told.len(), 3);
    assert!(
        told.iter().all(|messages| Arc::ptr_eq(messages, &told[0])),
        "all share the bytes"
    );
}

#[tokio::test]
async fn a_question_and_its_answer_may_have_attachments() {
    let mut client = Client::joined().await;
    let reply = client.socket().emit_with_ack(
        "q",
        &[Placeholder(0)],
        &[Bytes::from_static(b"x")],
        Duration::from_secs(1),
    );
    assert_eq!(
        client.received(),
        [r#"51-1["q",[{"_placeholder":true,"num":0}]] + b"x""#]
    );
    client.text(r#"61-1[{"_placeholder":true,"num":0}]"#).await;
    client.binary(b"y").await;
    assert_eq!(reply.await.unwrap().attachments, [Bytes::from_static(b"y")]);
}

#[tokio::test]
async fn nothing_is_sent_behind_a_disconnect_whoever_sends_meanwhile() {
    for _ in 0..50 {
        let mut client = Client::with(LayerConfig::default(), 1_000_000);
        client.text("0").await;
        let socket = client.socket();
        let sender = std::thread::spawn({
            let socket = socket.clone();
            move || while socket.emit("a", &1).is_ok() {}
        });
        while socket.queued_bytes() < 1000 {
            std::thread::yield_now();
        }
        socket.disconnect(false);
        sender.join().unwrap();
        let sent = client.received();
        assert_eq!(
            sent.iter().position(|packet| packet == "1"),
            Some(sent.len() - 1)
        );
    }
}
