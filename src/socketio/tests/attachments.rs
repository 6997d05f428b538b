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

#[tokio::test(start_paused = true)]
async fn attachments_are_bounded_in_bytes_and_time() {
    const HEADER: &str = r#"53-["a"]"#;
    let config = LayerConfig {
        max_packet_bytes: 20_000,
        max_incomplete_bytes: 20_000,
        ..LayerConfig::default()
    };
    let large = Client::with(config.clone(), 100);
    large.text("0").await;
    large.text(HEADER).await;
    large.binary(&[0; 20_000 - HEADER.len()]).await;
    assert_eq!(large.closing(), None);
    large.binary(b"1").await;
    assert_eq!(large.closing(), Some(CloseReason::ParseError));

    let app = App::default();
    let layer = Layer::new(config, app.clone());
    let clients: Vec<_> = (0..3)
        .map(|_| Client::of(layer.clone(), app.clone(), 100))
        .collect();
    for client in &clients {
        client.text("0").await;
        client.text(HEADER).await;
        client.binary(&[0; 8000]).await;
    }
    let closed: Vec<_> = clients.iter().map(Client::closing).collect();
    assert_eq!(
        closed,
        [None, None, Some(CloseReason::ParseError)],
        "none of them is slower than the last"
    );

    // The first goes on slowly, the second gives up.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        clients[0].binary(b"x").await;
    }
    let closed: Vec<_> = clients.iter().map(Client::closing).collect();
    assert_eq!(
        closed,
        [
            None,
            Some(CloseReason::ParseError),
            Some(CloseReason::ParseError)
        ]
    );
    assert_eq!(layer.budget().used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_packet_whose_parts_keep_coming_must_be_whole_at_last() {
    let client = Client::joined().await;
    client.text(r#"510-["a"]"#).await;
    for part in 1..=4 {
        tokio::time::sleep(Duration::from_secs(40)).await;
        client.binary(b"x").await;
        assert_eq!(client.closing(), None, "{part}");
    }
    tokio::time::sleep(Duration::from_secs(21)).await;
    assert_eq!(client.closing(), Some(CloseReason::ParseError));
}

#[tokio::test(start_paused = true)]
async fn when_incomplete_packets_fill_the_room_the_slowest_pays_and_small_ones_never_do() {
    static ZEROS: [u8; 11_000] = [0; 11_000];
    let (app, config) = (
        App::default(),
        LayerConfig {
            max_incomplete_bytes: 20_000,
            ..LayerConfig::default()
        },
    );
    let layer = Layer::new(config, app.clone());
    let clients: Vec<_> = (0..4)
        .map(|_| Client::of(layer.clone(), app.clone(), 100))
        .collect();
    for (client, bytes) in clients.iter().zip([11_000, 8000, 4000, 9000]) {
        client.text("0").await;
        client.text(r#"52-["a"]"#).await;
        client.binary(&ZEROS[..bytes]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let closed: Vec<_> = clients.iter().map(Client::closing).collect();
    assert_eq!(closed, [Some(CloseReason::ParseError), None, None, None]);
    assert_eq!(layer.budget().used(), 8008 + 9008);
    for client in &clients {
        client.binary(b"x").await;
    }
    assert_eq!(layer.budget().used(), 0);
    assert_eq!(
        clients[1]
            .logged()
            .iter()
            .filter(|line| line.starts_with("event / a"))
            .count(),
        3
    );
}
