//! Packets that come in parts.

use super::*;

#[tokio::test]
async fn attachments_are_put_together() {
    let mut client = Client::joined().await;
    client
        .text(r#"52-["echo",{"_placeholder":true,"num":1},{"a":[{"_placeholder":true,"num":0}]}]"#)
        .await;
    client.binary(b"one").await;
    assert_eq!(client.logged(), [""; 0]);
    client.binary(b"two").await;
    client
        .text(r#"51-12["ack",{"_placeholder":true,"num":0}]"#)
        .await;
    client.binary(b"").await;
    client
        .text(r#"2["echo",{"_placeholder":true,"num":0}]"#)
        .await;
    assert_eq!(
        client.received(),
        [
            r#"52-["echo",{"_placeholder":true,"num":1},{"a":[{"_placeholder":true,"num":0}]}] + b"one" + b"two""#,
            r#"61-12[{"_placeholder":true,"num":0}] + b"""#,
            r#"2["echo",{"_placeholder":true,"num":0}]"#,
        ]
    );
    assert_eq!(client.layer.budget().used(), 0);
}

#[tokio::test]
async fn attachments_come_alone_and_announced() {
    const HEADER: &str = r#"52-["a",{"_placeholder":true,"num":1}]"#;
    for between in [r#"2["a"]"#, "1", "0/custom", HEADER] {
        let client = Client::joined().await;
        client.text(HEADER).await;
        client.binary(b"one").await;
        client.text(between).await;
        assert_eq!(client.closing(), Some(CloseReason::ParseError), "{between}");
        assert_eq!(client.layer.budget().used(), 0);
    }
    let client = Client::joined().await;
    client.binary(b"one").await;
    assert_eq!(client.closing(), Some(CloseReason::ParseError));
    let client = Client::joined().await;
    client.text(r#"51-["a"]"#).await;
    client.binary(b"one").await;
    client.binary(b"two").await;
    assert_eq!(client.closing(), Some(CloseReason::ParseError));
    assert_eq!(
        client.logged(),
        ["event / a  +1", "disconnected / parse error"]
    );
}

#[tokio::test]
async fn attachments_of_one_packet_are_bounded_in_bytes() {
    const HEADER: &str = r#"53-["a"]"#;
    let config = LayerConfig {
        max_packet_bytes: 20_000,
        ..LayerConfig::default()
    };
    let client = Client::with(config, 100);
    client.text("0").await;
    client.text(HEADER).await;
    client.binary(&[0; 20_000 - HEADER.len()]).await;
    assert_eq!(client.closing(), None);
    client.binary(b"1").await;
    assert_eq!(client.closing(), Some(CloseReason::ParseError));
    assert_eq!(client.layer.budget().used(), 0);
}

#[tokio::test(start_paused = true)]
async fn attachments_must_all_be_there_in_time() {
    let client = Client::joined().await;
    client.text(r#"52-["a"]"#).await;
    client.wait(Duration::from_secs(44)).await;
    client.binary(b"x").await;
    client.binary(b"x").await;
    client.wait(Duration::from_secs(2)).await;
    client.text(r#"510-["a"]"#).await;
    for _ in 0..4 {
        client.wait(Duration::from_secs(10)).await;
        client.binary(b"x").await;
        assert_eq!(client.closing(), None);
    }
    client.wait(Duration::from_secs(6)).await;
    assert_eq!(client.closing(), Some(CloseReason::ParseError));
}

#[tokio::test]
async fn attachments_of_all_clients_are_bounded_and_small_ones_always_pass() {
    static ZEROS: [u8; 11_000] = [0; 11_000];
    let config = LayerConfig {
        max_incomplete_bytes: 20_000,
        ..LayerConfig::default()
    };
    let app = App::default();
    let layer = SocketIoHandler::new(config, app.clone());
    let clients: Vec<_> = (0..4)
        .map(|_| Client::of(layer.clone(), app.clone(), 100))
        .collect();
    for (client, bytes) in clients.iter().zip([11_000, 8000, 9000, 4000]) {
        client.text("0").await;
        client.text(r#"52-["a"]"#).await;
        client.binary(&ZEROS[..bytes]).await;
    }
    let closed: Vec<_> = clients.iter().map(Client::closing).collect();
    assert_eq!(closed, [None, None, Some(CloseReason::ParseError), None]);
    assert_eq!(layer.budget().used(), 11_008 + 8008);
    for client in &clients {
        client.binary(b"x").await;
    }
    assert_eq!(layer.budget().used(), 0);
}

#[tokio::test]
async fn attachments_that_the_application_does_not_take_are_dropped_as_they_come() {
    static ZEROS: [u8; 11_000] = [0; 11_000];
    let config = LayerConfig {
        keep_attachments: false,
        max_packet_bytes: 1000,
        max_incomplete_bytes: 1000,
        ..LayerConfig::default()
    };
    let mut client = Client::with(config, 100);
    client.text("0").await;
    client.received();
    client
        .text(r#"52-["echo",{"_placeholder":true,"num":1}]"#)
        .await;
    client.binary(&ZEROS).await;
    client.binary(&ZEROS).await;
    assert_eq!(
        client.received(),
        [r#"52-["echo",{"_placeholder":true,"num":1}] + b"" + b"""#],
        "their number is known, their bytes are not kept"
    );
    assert_eq!(client.closing(), None);
}
