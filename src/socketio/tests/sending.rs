//! What is sent, and what is answered.

use std::sync::atomic::{AtomicUsize, Ordering};

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

#[tokio::test]
async fn what_cannot_be_a_packet_is_not_sent() {
    let mut client = Client::joined().await;
    let socket = client.socket();
    let args = |json: &str| [serde_json::value::RawValue::from_string(json.to_owned()).unwrap()];
    let one = args(r#"{"_placeholder":true,"num":1}"#);
    let zero = args(r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#);
    let data = [Bytes::from_static(b"x")];
    assert!(matches!(
        socket.emit("connect", &1),
        Err(SendError::Encode(_))
    ));
    assert!(matches!(
        socket.emit("a", &std::collections::HashMap::from([((1, 2), 3)])),
        Err(SendError::Encode(_))
    ));
    assert!(Encoded::event_with("/", "a", &one, &data).is_err());
    assert!(Encoded::event_with("/", "a", &zero, &vec![Bytes::new(); 11]).is_err());
    assert!(Encoded::event_raw("/", "a", "1,2").is_err());
    assert_eq!(client.received(), [""; 0]);
    for event in [
        Encoded::event_with("/", "é", &zero, &data),
        Encoded::event_raw("/", "a", r#" {"b":1.0} "#),
    ] {
        socket.send(&event.unwrap()).unwrap();
    }
    assert_eq!(
        client.received(),
        [
            r#"51-["é",[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]] + b"x""#,
            r#"2["a",{"b":1.0}]"#
        ]
    );
}

#[tokio::test]
async fn answer_to_a_connect_without_room_closes_the_client() {
    let client = Client::with(LayerConfig::default(), 1);
    client.text("0/unknown").await;
    client.text("0").await;
    assert_eq!(client.closing(), Some(CloseReason::SlowConsumer));
    client.end(CloseReason::SlowConsumer);
    assert_eq!(client.logged(), [""; 0]);
}

#[tokio::test]
async fn ack_of_a_client_is_dropped() {
    let mut client = Client::joined().await;
    client.text("31").await;
    client.text(r#"399[2]"#).await;
    client.text(r#"61-1[{"_placeholder":true,"num":0}]"#).await;
    client.binary(b"y").await;
    client.text(r#"2["echo",1]"#).await;
    assert_eq!(client.received(), [r#"2["echo",1]"#]);
    assert_eq!(client.closing(), None);
}

#[tokio::test]
async fn encoded_event_is_shared_by_all_who_get_it() {
    let clients = [Client::joined().await, Client::joined().await];
    let event = Encoded::event_with("/", "all", &[], &[Bytes::from_static(b"x")]).unwrap();
    let mut told = Vec::new();
    for mut client in clients {
        client.socket().send(&event).unwrap();
        let Next::Group(MessageGroup::Many(messages)) = client.sent.take() else {
            panic!("it has an attachment")
        };
        told.push(messages);
    }
    assert!(Arc::ptr_eq(&told[0], &told[1]), "both share the bytes");
}

#[tokio::test]
async fn nothing_is_sent_behind_a_disconnect_whoever_sends_meanwhile() {
    for _ in 0..50 {
        let mut client = Client::with(LayerConfig::default(), 1_000_000);
        client.text("0").await;
        let socket = client.socket();
        let sent = Arc::new(AtomicUsize::new(0));
        let sender = std::thread::spawn({
            let socket = socket.clone();
            let sent = sent.clone();
            move || {
                while socket.emit("a", &1).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        while sent.load(Ordering::Relaxed) < 100 {
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
