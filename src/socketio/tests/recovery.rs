//! Connection state recovery: who may come back, with what, and who may not.

use super::*;

/// A client that may come back.
struct Known {
    client: Client,
    sid: String,
    pid: String,
}

type End = fn(&Known);

impl Client {
    /// Asks to be recoverable. It has heard `hello`.
    async fn recoverable(mut self) -> Known {
        self.text(r#"0{"recover":true}"#).await;
        let sent = self.raw();
        let ids: Ids = serde_json::from_str(&sent[0][1..]).unwrap();
        let (sid, pid) = (ids.sid, ids.pid.expect("it asked for one"));
        assert_ne!(sid, pid);
        assert!(sent[1].starts_with(r#"2["hello",1,""#), "{sent:?}");
        self.logged();
        Known {
            client: self,
            sid,
            pid,
        }
    }
}

#[derive(serde::Deserialize)]
struct Ids {
    sid: String,
    pid: Option<String>,
}

impl Known {
    async fn new() -> Self {
        Client::new().recoverable().await
    }

    /// Comes back on another connection with what was true before and `fields`. The answer to that.
    async fn back_with(&self, fields: &str) -> (Client, Vec<String>) {
        let mut again = self.client.beside();
        self.client.logged();
        again
            .text(&format!(r#"0{{"pid":"{}"{fields}}}"#, self.pid))
            .await;
        let sent = again.raw();
        (again, sent)
    }

    async fn back(&self, offset: &str) -> (Client, Vec<String>) {
        self.back_with(&format!(r#","offset":"{offset}""#)).await
    }

    fn answer(&self) -> String {
        format!(r#"0{{"sid":"{}","pid":"{}"}}"#, self.sid, self.pid)
    }

    fn lose(&self) {
        self.client.end(CloseReason::TransportClose);
    }
}

fn news(n: u32) -> Encoded {
    Encoded::event("/", "news", &n).unwrap()
}

#[tokio::test]
async fn who_does_not_ask_sees_nothing_of_recovery() {
    for payload in [
        "",
        "{}",
        r#"{"recover":false}"#,
        r#"{"recover":"true"}"#,
        r#"{"pid":"x","offset":"0"}"#,
        r#"{"pid":1,"offset":"0"}"#,
    ] {
        let mut client = Client::new();
        client.text(&format!("0{payload}")).await;
        client.app.publish(news(1));
        assert_eq!(
            client.received(),
            [r#"0{"sid":"…"}"#, r#"2["hello",1]"#, r#"2["news",1]"#],
            "{payload}"
        );
        client.end(CloseReason::TransportClose);
        assert_eq!(client.layer.sessions().counts(), (0, 0), "{payload}");
    }
    // Nor in a namespace or a layer that has none.
    let mut client = Client::new();
    client.text(r#"0/custom,{"recover":true}"#).await;
    assert_eq!(
        client.received(),
        [r#"0/custom,{"sid":"…"}"#, r#"2/custom,["hello",1]"#]
    );
    for config in [
        LayerConfig {
            recovery_window: Duration::ZERO,
            ..LayerConfig::default()
        },
        LayerConfig {
            max_lost_clients: 0,
            ..LayerConfig::default()
        },
    ] {
        let mut client = Client::with(config, 100);
        client.text(r#"0{"recover":true}"#).await;
        assert_eq!(client.received(), [r#"0{"sid":"…"}"#, r#"2["hello",1]"#]);
    }
}

#[tokio::test]
async fn every_event_of_a_recoverable_client_carries_its_offset_and_nothing_else_does() {
    let Known { mut client, .. } = Known::new().await;
    let socket = client.socket();
    client.app.publish(news(7));
    client.app.publish(
        Encoded::event_with(
            "/",
            "b",
            &[serde_json::value::to_raw_value(&Placeholder(0)).unwrap()],
            &[Bytes::from_static(b"x")],
        )
        .unwrap(),
    );
    socket.emit("direct", "text").unwrap();
    socket
        .send(&Encoded::event_with("/", "none", &[], &[]).unwrap())
        .unwrap();
    socket.set_offset("a \"quoted\" ☃");
    socket.emit("direct", &[0]).unwrap();
    client.text(r#"25["ack","x"]"#).await;
    drop(socket.emit_with_ack("question", "?", &[], Duration::from_secs(1)));
    assert_eq!(
        client.received(),
        [
            r#"2["news",7,"1"]"#,
            r#"51-["b",{"_placeholder":true,"num":0},"2"] + b"x""#,
            r#"2["direct","text","2"]"#,
            r#"2["none","2"]"#,
            r#"2["direct",[0],"a \"quoted\" ☃"]"#,
            r#"35["x"]"#,
            r#"21["question","?"]"#,
        ]
    );
}

#[tokio::test]
async fn a_lost_client_gets_its_old_ids_and_what_it_missed() {
    let known = Known::new().await;
    known.client.app.publish(news(1));
    known.client.app.publish(news(2));
    known.lose();
    known.client.app.publish(news(3));
    assert_eq!(known.client.logged(), ["disconnected / transport close"]);
    let (mut again, sent) = known.back("1").await;
    assert_eq!(
        sent,
        [
            known.answer(),
            r#"2["news",2,"2"]"#.to_owned(),
            r#"2["news",3,"3"]"#.to_owned()
        ]
    );
    assert_eq!(again.logged(), ["resumed / 1"]);
    // It goes on as it was.
    again.app.publish(news(4));
    again.text(r#"2["echo",1]"#).await;
    assert_eq!(
        again.received(),
        [r#"2["news",4,"4"]"#, r#"2["echo",1,"4"]"#]
    );
    assert_eq!(
        (again.socket().id(), again.socket().is_recoverable()),
        (&*known.sid, true)
    );
    again.end(CloseReason::PingTimeout);
    assert_eq!(
        again.logged(),
        [r#"event / echo 1 +0"#, "disconnected / ping timeout"]
    );
    let (third, sent) = known.back_with(r#","offset":"4","recover":true"#).await;
    assert_eq!(sent, [known.answer()], "and again, as often as it is lost");
    assert_eq!(third.layer.sessions().counts(), (1, 0));
}

#[tokio::test]
async fn a_client_that_missed_nothing_and_heard_only_the_greeting_is_recovered() {
    let known = Known::new().await;
    known.lose();
    let (again, sent) = known.back("0").await;
    assert_eq!(sent, [known.answer()]);
    assert_eq!(again.closing(), None);
}

#[tokio::test]
async fn a_claim_that_is_not_good_makes_a_new_client() {
    let new = [r#"0{"sid":"…","pid":"…"}"#, r#"2["hello",1,"0"]"#];
    for fields in [
        r#","offset":"1""#,
        r#","offset":"x""#,
        r#","offset":7"#,
        r#","offset":null"#,
        "",
    ] {
        let known = Known::new().await;
        known.lose();
        let (again, sent) = known
            .back_with(&format!(r#"{fields},"recover":true"#))
            .await;
        assert_eq!(
            sent.iter()
                .map(|line| without_ids(line))
                .collect::<Vec<_>>(),
            new,
            "{fields}"
        );
        assert_ne!(again.socket().id(), known.sid);
        assert_eq!(again.layer.sessions().counts().0, 1, "{fields}");
    }
    // Without asking anew it is a client like any other.
    let known = Known::new().await;
    known.lose();
    let (again, sent) = known.back("x").await;
    assert_eq!(
        sent.iter()
            .map(|line| without_ids(line))
            .collect::<Vec<_>>(),
        [r#"0{"sid":"…"}"#, r#"2["hello",1]"#]
    );
    assert_eq!(again.logged()[0], "forgotten", "and its session is used up");
    assert_eq!(again.layer.sessions().counts(), (0, 0));
}

#[tokio::test]
async fn a_session_is_used_up_by_its_recovery() {
    let known = Known::new().await;
    known.lose();
    let (first, sent) = known.back("0").await;
    assert_eq!(sent, [known.answer()]);
    first.text("1").await;
    assert_eq!(
        first.logged(),
        [
            "resumed / 0",
            "disconnected / client namespace disconnect",
            "forgotten"
        ]
    );
    let (second, sent) = known.back("0").await;
    assert_ne!(sent[0], known.answer());
    assert_ne!(second.socket().id(), known.sid);
}

#[tokio::test]
async fn only_a_client_that_was_lost_may_come_back() {
    use CloseReason::*;
    let ends: [(&str, End); 8] = [
        ("transport close", |known| known.client.end(TransportClose)),
        ("transport error", |known| known.client.end(TransportError)),
        ("forced close", |known| known.client.end(ForcedClose)),
        ("ping timeout", |known| known.client.end(PingTimeout)),
        ("server shutting down", |known| {
            known.client.end(ServerShuttingDown)
        }),
        ("slow consumer", |known| known.client.end(SlowConsumer)),
        ("forced server close", |known| {
            assert!(known.client.start(r#"2/elsewhere,["a"]"#).is_none())
        }),
        ("transport close", |known| {
            known.client.socket().close(ForcedClose);
            known.client.end(TransportClose);
        }),
    ];
    for (reason, end) in ends {
        let known = Known::new().await;
        end(&known);
        assert_eq!(known.client.logged(), [format!("disconnected / {reason}")]);
        assert_eq!(known.back("0").await.1, [known.answer()], "{reason}");
    }
    let ends: [(&str, End); 4] = [
        ("client namespace disconnect", |known| {
            assert!(known.client.start("1").is_none())
        }),
        ("server namespace disconnect", |known| {
            known.client.socket().disconnect(false)
        }),
        ("server namespace disconnect", |known| {
            known.client.socket().disconnect(true)
        }),
        ("parse error", |known| {
            assert!(known.client.start("2x").is_none())
        }),
    ];
    for (reason, end) in ends {
        let known = Known::new().await;
        end(&known);
        assert_eq!(
            known.client.logged(),
            [format!("disconnected / {reason}"), "forgotten".to_owned()]
        );
        assert_ne!(known.back("0").await.1[0], known.answer(), "{reason}");
    }
}

#[tokio::test]
async fn a_client_that_comes_back_before_it_was_missed_ends_its_old_connection() {
    let known = Known::new().await;
    known.client.text("0/custom").await;
    known.client.app.publish(news(1));
    let (again, sent) = known.back("0").await;
    assert_eq!(sent, [known.answer(), r#"2["news",1,"1"]"#.to_owned()]);
    assert_eq!(known.client.closing(), Some(CloseReason::ForcedClose));
    assert_eq!(
        again.logged(),
        [
            "disconnected / forced server close",
            "disconnected /custom forced server close",
            "resumed / 0"
        ]
    );
    known.lose();
    again.app.publish(news(2));
    assert_eq!((again.logged().len(), again.closing()), (0, None));
    assert_eq!(again.layer.sessions().counts(), (1, 0));
}

#[tokio::test]
async fn the_application_admits_a_client_again() {
    let known = Known::new().await;
    known.lose();
    let (_, sent) = known.back_with(r#","offset":"0","refuse":1"#).await;
    assert_eq!(sent, [r#"4{"message":"refused"}"#]);
    assert_eq!(
        known.back("0").await.1,
        [known.answer()],
        "a refusal does not use up the session"
    );
}

#[tokio::test]
async fn a_session_belongs_to_its_namespace() {
    let mut client = Client::new();
    client.text(r#"0/n1,{"recover":true}"#).await;
    let sent = client.raw();
    let ids: Ids = serde_json::from_str(sent[0].strip_prefix("0/n1,").unwrap()).unwrap();
    client.end(CloseReason::TransportClose);
    let mut again = client.beside();
    let payload = format!(r#"{{"pid":"{}","offset":"0"}}"#, ids.pid.unwrap());
    again.text(&format!("0{payload}")).await;
    assert_eq!(again.received()[0], r#"0{"sid":"…"}"#);
    again.text(&format!("0/n1,{payload}")).await;
    let sent = again.raw();
    assert!(
        sent[0].starts_with(&format!(r#"0/n1,{{"sid":"{}""#, ids.sid)),
        "{sent:?}"
    );
}

#[tokio::test]
async fn a_client_that_is_lost_again_while_it_is_recovered_may_come_back() {
    let known = Known::new().await;
    known.client.app.publish(news(1));
    known.lose();
    let mut again = known.client.beside();
    let mut work = again
        .start(&format!(
            r#"0{{"pid":"{}","offset":"0","wait":1}}"#,
            known.pid
        ))
        .unwrap();
    assert!((&mut work).now_or_never().is_none());
    assert_eq!(
        again.raw(),
        [known.answer(), r#"2["news",1,"1"]"#.to_owned()]
    );
    again.logged();
    drop(work);
    again.end(CloseReason::TransportClose);
    assert_eq!(again.logged(), ["disconnected / transport close"]);
    assert_eq!(known.back("1").await.1, [known.answer()]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_while_it_is_recovered_waits_for_the_end_of_that() {
    let known = Known::new().await;
    known.lose();
    let first = known.client.beside();
    let mut recovering = first
        .start(&format!(
            r#"0{{"pid":"{}","offset":"0","wait":1}}"#,
            known.pid
        ))
        .unwrap();
    assert!((&mut recovering).now_or_never().is_none());
    let mut second = known.client.beside();
    let mut work = second
        .start(&format!(r#"0{{"pid":"{}","offset":"0"}}"#, known.pid))
        .unwrap();
    assert!((&mut work).now_or_never().is_none());
    assert_eq!(first.closing(), Some(CloseReason::ForcedClose));
    drop(recovering);
    work.await;
    assert_eq!(second.raw(), [known.answer()]);
    // One whose end does not come is not waited for for ever.
    second.logged();
    let third = known.client.beside();
    second.end(CloseReason::TransportClose);
    third.layer.sessions().enter(&second.socket());
    let begun = tokio::time::Instant::now();
    third
        .text(&format!(r#"0{{"pid":"{}","offset":"0"}}"#, known.pid))
        .await;
    assert_eq!(begun.elapsed().as_secs(), 1);
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn a_lost_client_is_remembered_for_a_while_and_with_few_others() {
    let config = LayerConfig {
        max_lost_clients: 2,
        recovery_window: Duration::from_secs(120),
        ..LayerConfig::default()
    };
    let first = Client::with(config, 100).recoverable().await;
    let second = first.client.beside().recoverable().await;
    let third = first.client.beside().recoverable().await;
    assert_eq!(first.client.layer.sessions().counts(), (3, 0));
    first.lose();
    second.lose();
    assert_eq!(first.client.logged(), ["disconnected / transport close"; 2]);
    third.lose();
    assert_eq!(
        first.client.logged(),
        ["disconnected / transport close", "forgotten"]
    );
    assert_eq!(first.client.layer.sessions().counts(), (0, 2));
    assert_ne!(first.back("0").await.1[0], first.answer());
    tokio::time::sleep(Duration::from_secs(119)).await;
    assert_eq!(second.back("0").await.1, [second.answer()]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        first.client.logged(),
        ["resumed / 0", "forgotten"],
        "the third one's time is over"
    );
    assert_ne!(third.back("0").await.1[0], third.answer());
    assert!(first.client.app.lost.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_lost_client_does_not_keep_the_application_in_memory() {
    let known = Known::new().await;
    known.lose();
    let log = known.client.app.log.clone();
    drop(known);
    assert_eq!(Arc::strong_count(&log), 1);
}
