use serde_json::json;

use super::*;

impl Daemon {
    /// The lines of `GET /metrics`.
    async fn metrics(&self) -> Vec<String> {
        let request = Request::get("/metrics")
            .header("host", "127.0.0.1:5005")
            .body(Full::default())
            .unwrap();
        let (status, headers, body) = self.request(request).await;
        assert_eq!(
            (status.as_u16(), &headers["cache-control"]),
            (200, &"no-store".parse().unwrap()),
            "{body}"
        );
        assert_eq!(
            headers["content-type"],
            "text/plain; version=0.0.4; charset=utf-8"
        );
        body.lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn every_metric_has_its_prefix_its_help_and_its_type() {
    let daemon = Daemon::start().await;
    daemon.node.send_modify(|node| {
        (node.last_answer, node.zmq.rawtx.last_message) = (Some(NOW), Some(NOW))
    });
    let lines = daemon.metrics().await;
    let mut families = 0;
    for (at, line) in lines.iter().enumerate() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(
                name.starts_with("satwatch_") && help.ends_with(['.', ',']),
                "{line}"
            );
            let kind = lines[at + 1]
                .strip_prefix(&format!("# TYPE {name} "))
                .unwrap();
            assert_eq!(
                kind,
                match name {
                    "satwatch_indexer_step_seconds" => "histogram",
                    _ if name.ends_with("_total") => "counter",
                    _ => "gauge",
                },
                "{line}"
            );
            assert!(lines[at + 2].starts_with(name), "{line}");
            families += 1;
        } else {
            assert!(
                line.starts_with("# TYPE ") || line.starts_with("satwatch_"),
                "{line}"
            );
        }
    }
    assert!(families > 20, "{lines:#?}");
}

#[tokio::test]
async fn what_is_not_known_is_left_out() {
    let daemon = Daemon::start().await;
    let has = |lines: &[String], name: &str| lines.iter().any(|line| line.starts_with(name));
    let before = daemon.metrics().await;
    for name in [
        "satwatch_data_age_seconds",
        "satwatch_node_blocks",
        "satwatch_zmq_last_message_age_seconds",
    ] {
        assert!(!has(&before, name), "{name}");
    }
    daemon.node.send_modify(|node| {
        (node.last_answer, node.current_at, node.node.blocks) = (Some(NOW), Some(NOW), 7);
        node.zmq.sequence.last_message = Some(NOW);
    });
    let after = daemon.metrics().await;
    for name in [
        "satwatch_data_age_seconds ",
        "satwatch_node_blocks 7",
        "satwatch_zmq_last_message_age_seconds{topic=\"sequence\"} ",
    ] {
        assert!(has(&after, name), "{name}");
    }
}

#[tokio::test]
async fn consumers_are_counted_by_name_until_they_are_gone() {
    let daemon = Daemon::start().await;
    let mine = address(1);
    daemon
        .post(
            "/add_address",
            &json!({"address": mine.to_string(), "history": "none"}).to_string(),
        )
        .await;
    let request = |method: &str| {
        Request::builder()
            .method(method)
            .uri("/consumers/shop-1")
            .header("host", "localhost")
    };
    let (status, _, body) = daemon
        .request(request("PUT").body(Full::default()).unwrap())
        .await;
    assert_eq!(status, 201, "{body}");
    daemon.pay(&mine, 5, 9).await;
    let lines = daemon.metrics().await;
    for line in [
        "satwatch_consumer_lag{consumer=\"shop-1\"} 2",
        "satwatch_consumer_readers{consumer=\"shop-1\"} 0",
    ] {
        assert!(lines.iter().any(|it| it == line), "{line} {lines:#?}");
    }
    assert!(
        lines
            .iter()
            .any(|it| it.starts_with("satwatch_consumer_lag_seconds{consumer=\"shop-1\"} ")),
        "{lines:#?}"
    );
    daemon
        .request(request("DELETE").body(Full::default()).unwrap())
        .await;
    assert!(
        !daemon
            .metrics()
            .await
            .iter()
            .any(|it| it.contains("shop-1")),
        "nothing is left of it"
    );
}

#[tokio::test]
async fn open_scans_are_counted_with_what_is_left_of_them() {
    let daemon = Daemon::start().await;
    daemon.watch_from_now(1).await;
    let scans = [
        daemon.scan(1, json!({})).await,
        daemon.scan(1, json!({})).await,
    ];
    // One is not known to the node's side yet.
    daemon
        .scans
        .send_replace(vec![super::scans::running(scans[0], 90)]);
    let lines = daemon.metrics().await;
    for line in ["satwatch_scans_open 2", "satwatch_scan_blocks_left 10"] {
        assert!(lines.iter().any(|it| it == line), "{line}: {lines:#?}");
    }
}

#[tokio::test]
async fn overview_does_not_wait_for_long_answers() {
    let daemon = Daemon::start().await;
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    let long: Vec<_> = (0..64)
        .map(|_| {
            let (reads, held) = (daemon.services.reads.clone(), held.clone());
            let wait = move |_: &crate::reads::StoreView<'_>| {
                let _ = held.lock().unwrap().recv();
                Ok(())
            };
            tokio::spawn(async move { reads.run_long(wait).await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(daemon.get("/status").await.0, 200);
    assert!(!daemon.metrics().await.is_empty());
    assert!(!long.iter().any(|task| task.is_finished()));
    drop(hold);
    for task in long {
        assert_eq!(task.await.unwrap(), Ok(()));
    }
}
