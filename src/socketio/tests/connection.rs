//! Joining, leaving, refusals, and what closes a connection.

use super::*;

#[tokio::test]
async fn a_connect_is_answered_before_anything_else() {
    let mut client = Client::new();
    client.text(r#"0{"token":"x"}"#).await;
    client.text("0/custom,").await;
    assert_eq!(
        client.received(),
        [
            r#"0{"sid":"…"}"#,
            r#"2["hello",1]"#,
            r#"0/custom,{"sid":"…"}"#,
            r#"2/custom,["hello",1]"#
        ]
    );
    assert_eq!(
        client.logged(),
        [r#"connected / {"token":"x"}"#, "connected /custom {}"]
    );
    let ids: Vec<_> = client
        .app
        .sockets
        .lock()
        .unwrap()
        .iter()
        .map(|socket| socket.id().to_owned())
        .collect();
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn connect_that_asks_for_recovery_is_answered_as_any_other() {
    let mut client = Client::new();
    client
        .text(r#"0{"recover":true,"pid":"aaaaaaaaaaaaaaaaaaaa","offset":"1"}"#)
        .await;
    client.text(r#"2["echo",1]"#).await;
    assert_eq!(
        client.received(),
        [r#"0{"sid":"…"}"#, r#"2["hello",1]"#, r#"2["echo",1]"#],
        "no private id in the answer, no offset behind the argument"
    );
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_open() {
    let mut client = Client::new();
    client.text("0/random").await;
    client.text(r#"0/private,{"a":1}"#).await;
    client.text("0/private").await;
    assert!(!client.sent.is_let_in());
    client.text("0").await;
    assert!(client.sent.is_let_in());
    assert_eq!(
        client.received(),
        [
            r#"4/random,{"message":"Invalid namespace"}"#,
            r#"4/private,{"message":"not \"authorized\"","data":{"auth":{"a":1}}}"#,
            r#"4/private,{"message":"not \"authorized\"","data":{"auth":{}}}"#,
            r#"0{"sid":"…"}"#,
            r#"2["hello",1]"#,
        ]
    );
    assert_eq!(client.closing(), None);
}

#[tokio::test]
async fn packets_out_of_place_close_the_connection() {
    for (before, packet, reason) in [
        // Nothing joined.
        (&[][..], r#"2["a"]"#, CloseReason::ForcedClose),
        (&[], "2", CloseReason::ForcedClose),
        (&[], "1", CloseReason::ForcedClose),
        (&[], "31[]", CloseReason::ForcedClose),
        (
            &[],
            r#"51-["a",{"_placeholder":true,"num":0}]"#,
            CloseReason::ForcedClose,
        ),
        // Another namespace joined.
        (&["0"], r#"2/custom,["a"]"#, CloseReason::ForcedClose),
        (&["0"], "1/custom,", CloseReason::ForcedClose),
        (&["0"], "0", CloseReason::ForcedClose),
        (&["0", "0/custom"], "0/custom,{}", CloseReason::ForcedClose),
        // Refused, or left by the client.
        (
            &["0", "0/private"],
            r#"2/private,["a"]"#,
            CloseReason::ForcedClose,
        ),
        (&["0", "1"], r#"2["a"]"#, CloseReason::ForcedClose),
        (&["0", "1"], "1", CloseReason::ForcedClose),
        // Malformed.
        (&["0"], "", CloseReason::ParseError),
        (&["0"], "abc", CloseReason::ParseError),
        (&["0"], r#"2["a""#, CloseReason::ParseError),
        (&["0"], r#"2["disconnect"]"#, CloseReason::ParseError),
        (&["0"], "4{}", CloseReason::ParseError),
    ] {
        let client = Client::new();
        for text in before {
            client.text(text).await;
        }
        assert_eq!(client.closing(), None, "{before:?}");
        client.logged();
        client.text(packet).await;
        assert_eq!(client.closing(), Some(reason), "{before:?} {packet}");
        let log = client.logged();
        assert!(
            log.iter().all(|line| line.starts_with("disconnected")),
            "{before:?} {packet}: {log:?}"
        );
        // Nothing is heard from the client any more.
        client.text(r#"2["late"]"#).await;
        assert!(client.start("0/n1").is_none());
        assert_eq!(client.logged(), [""; 0]);
    }
}

#[tokio::test]
async fn a_violation_is_the_reason_that_sockets_are_told() {
    for (packet, told) in [("2x", "parse error"), ("2/x,[1]", "forced server close")] {
        let client = Client::joined().await;
        client.text("0/custom").await;
        client.logged();
        client.text(packet).await;
        assert_eq!(
            client.logged(),
            [
                format!("disconnected / {told}"),
                format!("disconnected /custom {told}")
            ]
        );
        client.end(CloseReason::TransportClose);
        assert_eq!(client.logged(), [""; 0]);
    }
    let client = Client::joined().await;
    client.end(CloseReason::PingTimeout);
    assert_eq!(client.logged(), ["disconnected / ping timeout"]);
}

#[tokio::test]
async fn a_namespace_that_is_being_joined_takes_no_packets() {
    for packet in ["0/never", r#"2/never,["a"]"#, "1/never"] {
        let client = Client::joined().await;
        let work = client.start("0/never");
        client.text(packet).await;
        assert_eq!(client.closing(), Some(CloseReason::ForcedClose), "{packet}");
        drop(work);
    }
}

#[tokio::test]
async fn whoever_leaves_while_being_admitted_was_never_there() {
    let mut client = Client::new();
    let work = client.start("0").unwrap();
    client.end(CloseReason::TransportClose);
    work.await;
    assert_eq!(client.logged(), [""; 0]);
    assert_eq!(client.received(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_joins_nothing_is_closed_in_time() {
    let config = LayerConfig {
        connect_timeout: Duration::from_secs(45),
        ..LayerConfig::default()
    };
    let mut clients = vec![Client::with(config, 100)];
    for packets in [
        &["0/private"][..],
        &["0", "1"],
        &["0", r#"2["leave"]"#],
        &["0", "1", "0/private"],
        // These are in a namespace.
        &["0", "1", "0"],
        &["0", "0/custom", "1"],
    ] {
        let client = Client::new();
        for packet in packets {
            client.text(packet).await;
        }
        clients.push(client);
    }
    let closing = || clients.iter().map(Client::closing).collect::<Vec<_>>();
    let wait = async |time| {
        tokio::time::sleep(time).await;
        clients.iter().for_each(Client::tick);
    };
    wait(Duration::from_millis(44_999)).await;
    assert_eq!(closing(), [None; 7]);
    wait(Duration::from_millis(2)).await;
    let closed = Some(CloseReason::ForcedClose);
    let expected = [closed, closed, closed, closed, closed, None, None];
    assert_eq!(closing(), expected);
    wait(Duration::from_secs(100)).await;
    assert_eq!(closing(), expected);
}

#[tokio::test(start_paused = true)]
async fn the_time_to_join_begins_when_the_last_namespace_is_left() {
    let client = Client::joined().await;
    client.wait(Duration::from_secs(100)).await;
    client.text("1").await;
    client.wait(Duration::from_millis(44_999)).await;
    assert_eq!(client.closing(), None);
    client.wait(Duration::from_millis(2)).await;
    assert_eq!(client.closing(), Some(CloseReason::ForcedClose));
}

#[tokio::test]
async fn a_client_that_is_not_wanted_leaves_everything_and_its_session_ends() {
    let mut client = Client::joined().await;
    client.text("0/custom").await;
    client.received();
    client.logged();
    let poll_end = |client: &Client| {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        client.layer.poll_end(&client.session, &mut cx)
    };
    assert_eq!(poll_end(&client), Poll::Pending);
    client
        .app
        .unwanted
        .lock()
        .unwrap()
        .push("/custom".to_owned());
    let closed = CloseReason::ForcedClose;
    assert_eq!(poll_end(&client), Poll::Ready(closed));
    assert_eq!(
        client.received(),
        ["2/custom,[\"bye\",1]", "1", "1/custom,"]
    );
    let told = "server namespace disconnect";
    assert_eq!(
        client.logged(),
        [
            format!("disconnected / {told}"),
            format!("disconnected /custom {told}")
        ]
    );
    assert_eq!(client.closing(), Some(closed));
    assert_eq!(poll_end(&client), Poll::Pending, "nobody is left");
}

#[tokio::test(start_paused = true)]
async fn a_decision_on_a_connect_is_bounded() {
    let client = Client::joined().await;
    let asked = tokio::time::Instant::now();
    client.text("0/never").await;
    assert_eq!(asked.elapsed().as_secs(), 45);
    assert_eq!(client.closing(), Some(CloseReason::ForcedClose));
    assert_eq!(client.logged(), ["disconnected / forced server close"]);
}

#[tokio::test]
async fn nothing_is_heard_from_a_client_that_is_being_closed() {
    let client = Client::joined().await;
    client.socket().close(CloseReason::SlowConsumer);
    client.text(r#"2["late"]"#).await;
    assert_eq!(client.logged(), [""; 0]);
    client.end(CloseReason::SlowConsumer);
    assert_eq!(client.logged(), ["disconnected / slow consumer"]);
}

#[tokio::test]
async fn leaving_one_namespace_leaves_the_others() {
    let mut client = Client::joined().await;
    client.text("0/custom").await;
    client.text("1").await;
    client.text(r#"2/custom,["echo"]"#).await;
    client.text("0").await;
    assert_eq!(
        client.logged(),
        [
            "connected /custom {}",
            "disconnected / client namespace disconnect",
            "event /custom echo  +0",
            "connected / {}"
        ]
    );
    assert_eq!(client.received().len(), 5);
    client.end(CloseReason::TransportClose);
    assert_eq!(
        client.logged(),
        [
            "disconnected /custom transport close",
            "disconnected / transport close"
        ]
    );
    assert_eq!(client.closing(), None);
}

#[tokio::test]
async fn packets_on_their_way_when_the_server_disconnects_are_ignored() {
    let mut client = Client::joined().await;
    let socket = client.socket();
    client.text("0/custom").await;
    client.received();
    client.logged();
    client.text(r#"2["leave"]"#).await;
    assert_eq!(
        client.logged(),
        [
            "event / leave  +0",
            "disconnected / server namespace disconnect"
        ]
    );
    assert!(matches!(socket.emit("a", &1), Err(SendError::Closed)));
    socket.disconnect(false);
    for late in [r#"2["late"]"#, "31[]", "2", r#"51-["late"]"#] {
        client.text(late).await;
    }
    client.binary(b"late").await;
    client.text("1").await;
    client.text(r#"2/custom,["echo"]"#).await;
    client.text("0").await;
    assert_eq!(
        client.received(),
        [
            "1",
            r#"2/custom,["echo"]"#,
            r#"0{"sid":"…"}"#,
            r#"2["hello",1]"#
        ]
    );
    assert_eq!(
        client.logged(),
        ["event /custom echo  +0", "connected / {}"]
    );
    assert_eq!(client.closing(), None);
}

#[tokio::test]
async fn disconnecting_with_close_tells_all_namespaces_and_ends_the_session() {
    let mut client = Client::joined().await;
    client.text("0/custom").await;
    client.received();
    client.logged();
    client.text(r#"2["leave all"]"#).await;
    assert_eq!(client.received(), ["1", "1/custom,"]);
    assert_eq!(client.closing(), Some(CloseReason::ForcedClose));
    client.end(CloseReason::ForcedClose);
    assert_eq!(
        client.logged(),
        [
            "event / leave all  +0",
            "disconnected / server namespace disconnect",
            "disconnected /custom server namespace disconnect"
        ]
    );
}

#[tokio::test]
async fn a_client_is_in_few_namespaces_at_a_time() {
    let client = Client::with(
        LayerConfig {
            max_namespaces: 3,
            ..LayerConfig::default()
        },
        1000,
    );
    for i in 0..20 {
        client.text(&format!("0/n{i}")).await;
        client
            .text(&format!(
                "{}/n{i},{}",
                if i % 2 == 0 { 1 } else { 2 },
                if i % 2 == 0 { "" } else { r#"["leave"]"# }
            ))
            .await;
    }
    for i in 0..3 {
        client.text(&format!("0/n{i}")).await;
    }
    assert_eq!(client.closing(), None);
    client.text("0/n4").await;
    assert_eq!(client.closing(), Some(CloseReason::ForcedClose));
}

#[tokio::test]
async fn whoever_is_disconnected_while_the_application_hears_of_it_leaves_behind_that() {
    let mut client = Client::new();
    client.text(r#"0{"kick":1}"#).await;
    assert_eq!(
        client.received(),
        [r#"0{"sid":"…"}"#, r#"2["hello",1]"#, "1"]
    );
    assert_eq!(
        client.logged(),
        [
            r#"connected / {"kick":1}"#,
            "kicked",
            "disconnected / server namespace disconnect"
        ]
    );
}

#[test]
fn reasons_have_the_reference_servers_words() {
    use CloseReason::*;
    let sessions = [
        TransportError,
        TransportClose,
        ForcedClose,
        PingTimeout,
        ParseError,
        ServerShuttingDown,
        SlowConsumer,
    ];
    let others = [
        DisconnectReason::ForcedServerClose,
        DisconnectReason::ClientNamespaceDisconnect,
        DisconnectReason::ServerNamespaceDisconnect,
    ];
    let all: Vec<_> = sessions
        .map(DisconnectReason::Session)
        .iter()
        .chain(&others)
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        all,
        [
            "transport error",
            "transport close",
            "forced close",
            "ping timeout",
            "parse error",
            "server shutting down",
            // Ours: the reference server lets such a queue grow.
            "slow consumer",
            "forced server close",
            "client namespace disconnect",
            "server namespace disconnect",
        ]
    );
}
