//! What is pulled: who is asked, in what order, and what can be sent that way.

use super::*;

impl Client {
    /// What the session gets when it asks once.
    fn pull(&self) -> Option<String> {
        let group = self.layer.poll_next(
            &self.session,
            &mut Context::from_waker(std::task::Waker::noop()),
        );
        match group {
            Poll::Ready(MessageGroup::One(Message::Text(text))) => Some(text.as_str().to_owned()),
            Poll::Ready(other) => panic!("{other:?}"),
            Poll::Pending => None,
        }
    }

    fn pull_all(&self) -> Vec<String> {
        std::iter::from_fn(|| self.pull()).collect()
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.app.asked.lock().unwrap())
    }

    /// Puts one event for each namespace where it can be pulled.
    fn put(&self, namespaces: &[&str]) {
        let events = namespaces
            .iter()
            .map(|namespace| Encoded::event(namespace, "pulled", &1).unwrap());
        self.app.waiting.lock().unwrap().extend(events);
    }
}

#[tokio::test]
async fn pull_asks_the_sockets_that_are_there() {
    let client = Client::new();
    assert_eq!((client.pull(), client.asked().len()), (None, 0));
    client.text("0").await;
    client.put(&["/", "/custom"]);
    assert_eq!(client.pull_all(), [r#"2["pulled",1]"#]);
    assert_eq!(client.asked(), ["/", "/"]);
    client.text("0/custom").await;
    client.text("1").await;
    assert_eq!(client.pull_all(), [r#"2/custom,["pulled",1]"#]);
    client.text(r#"2/custom,["leave"]"#).await;
    client.put(&["/", "/custom"]);
    client.asked();
    assert_eq!(client.pull(), None);
    assert_eq!(client.asked(), [""; 0], "both have left");
}

#[tokio::test]
async fn pull_asks_the_sockets_of_a_connection_in_turn() {
    let client = Client::new();
    for connect in ["0", "0/n1", "0/n2"] {
        client.text(connect).await;
    }
    client.put(&["/", "/", "/n1", "/n1", "/n1", "/n2"]);
    assert_eq!(
        client.pull_all(),
        [
            r#"2["pulled",1]"#,
            r#"2/n1,["pulled",1]"#,
            r#"2/n2,["pulled",1]"#,
            r#"2["pulled",1]"#,
            r#"2/n1,["pulled",1]"#,
            r#"2/n1,["pulled",1]"#,
        ]
    );
}

#[tokio::test]
async fn pull_that_is_full_for_one_socket_is_full_for_the_connection() {
    let client = Client::new();
    client.text("0").await;
    client.put(&["/", "/", "/"]);
    assert!(!client.layer.is_full(&client.session));
    client.text("0/custom").await;
    assert!(client.layer.is_full(&client.session));
    client.pull();
    assert!(!client.layer.is_full(&client.session));
}

#[tokio::test]
async fn pull_asks_in_turn_also_while_one_socket_is_full() {
    let client = Client::new();
    client.text("0/custom").await;
    client.text("0").await;
    client.put(&["/custom", "/custom", "/", "/", "/", "/", "/"]);
    let pulled: Vec<_> = (0..4)
        .map(|_| {
            assert!(client.layer.is_full(&client.session));
            client.pull().unwrap()
        })
        .collect();
    let (custom, main) = (r#"2/custom,["pulled",1]"#, r#"2["pulled",1]"#);
    assert_eq!(pulled, [custom, main, custom, main]);
}

#[tokio::test]
async fn pull_shares_the_bytes_of_an_event() {
    let client = Client::joined().await;
    let event = Encoded::event("/", "shared", &1).unwrap();
    let address = |text: &str| text.as_ptr();
    client.app.waiting.lock().unwrap().push(event.clone());
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let Poll::Ready(MessageGroup::One(Message::Text(text))) =
        client.layer.poll_next(&client.session, &mut cx)
    else {
        panic!("it was put there")
    };
    assert_eq!(address(text.as_str()), address(event.text()));
}

#[tokio::test]
async fn kept_value_is_read_without_a_lock_and_goes_with_the_socket() {
    let client = Client::joined().await;
    let socket = client.socket();
    let value = Arc::new(7);
    assert_eq!(socket.kept::<Arc<i32>>(), None);
    socket.keep(value.clone());
    socket.keep(Arc::new(8));
    assert_eq!(socket.kept::<Arc<i32>>(), Some(&value), "the first stays");
    assert_eq!(socket.kept::<i32>(), None, "another type");
    client.app.sockets.lock().unwrap().clear();
    client.end(CloseReason::TransportClose);
    drop(socket);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[tokio::test]
async fn ack_becomes_a_packet_that_is_sent_in_its_place() {
    let mut client = Client::joined().await;
    client.text(r#"25["later",{"a":1}]"#).await;
    let ack = client.app.acks.lock().unwrap().pop().unwrap();
    assert_eq!(client.received(), [""; 0]);
    let json: Box<serde_json::value::RawValue> = serde_json::from_str(r#"{"a": 1.0}"#).unwrap();
    let packet = ack.into_packet(&json).unwrap();
    assert_eq!(packet.text(), r#"35[{"a": 1.0}]"#);
    client.socket().send(&packet).unwrap();
    assert_eq!(client.received(), [r#"35[{"a": 1.0}]"#]);
}
