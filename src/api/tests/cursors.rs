//! The cursor that each answer carries, waiting for events, cursors that are not good any more.

use hyper::Method;
use serde_json::json;
use serde_json::value::RawValue;

use super::*;
use crate::api::rest::respond::Answer;

/// A daemon that watches two addresses, of which the first was paid.
async fn paid(config: config::Config) -> (Daemon, Address, Address) {
    let daemon = Daemon::with(config).await;
    let (mine, other) = (address(1), address(2));
    for address in [&mine, &other] {
        daemon
            .post(
                "/add_address",
                &json!({"address": address.to_string(), "history": "none"}).to_string(),
            )
            .await;
    }
    daemon.pay(&mine, 1000, 8).await;
    (daemon, mine, other)
}

impl Daemon {
    async fn ask(&self, method: Method, path: &str) -> (u16, HeaderMap, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1:5005");
        let (status, headers, body) = self.request(request.body(Full::default()).unwrap()).await;
        (status.as_u16(), headers, body)
    }

    fn head(&self) -> u64 {
        self.reader.snapshot().head().unwrap()
    }

    fn cursor(&self, number: u64) -> String {
        self.services.reads.encoder.cursor(number)
    }

    /// A request that goes on by itself.
    fn begin(&self, path: &str) -> tokio::task::JoinHandle<Answer> {
        let request = Request::get(path)
            .header("host", "127.0.0.1:5005")
            .body(Full::<Bytes>::default())
            .unwrap();
        let router = self.router.clone();
        tokio::spawn(async move { router.handle(request, PEER).await })
    }

    async fn until_waiting(&self, count: usize) {
        while self.services.events.waiting() != count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn read(answer: Answer) -> (u16, Value) {
    let (parts, body) = answer.into_parts();
    (
        parts.status.as_u16(),
        serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap(),
    )
}

#[tokio::test]
async fn every_answer_of_a_route_says_up_to_where_it_has_seen() {
    let (daemon, mine, _) = paid(config::Config::default()).await;
    let expected = daemon.cursor(2);
    let named = [
        "/status".to_owned(),
        "/addresses".to_owned(),
        format!("/balance/{mine}"),
        format!("/utxos/{mine}"),
    ];
    for path in named.into_iter().chain([format!("/transactions/{mine}")]) {
        let (_, headers, body) = daemon.ask(Method::GET, &path).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (
                headers["satwatch-cursor"].to_str().unwrap(),
                &body["cursor"]
            ),
            (&*expected, &json!(expected)),
            "{path}"
        );
    }
    let (_, headers, body) = daemon.ask(Method::GET, "/events?limit=1").await;
    assert_eq!(
        headers["satwatch-cursor"],
        daemon.cursor(1),
        "what follows was not told: {body}"
    );
    for (method, path, status) in [
        (Method::GET, format!("/balance/{}", address(3)), 404),
        (Method::DELETE, "/status".to_owned(), 405),
        (Method::GET, "/events?limit=0".to_owned(), 400),
        (Method::GET, "/events?after=ffff-1".to_owned(), 410),
        (Method::GET, "/health/live".to_owned(), 200),
        (Method::GET, "/health/ready".to_owned(), 503),
        (Method::GET, "/metrics".to_owned(), 200),
        (Method::POST, "/stop".to_owned(), 200),
    ] {
        let (got, headers, body) = daemon.ask(method, &path).await;
        assert_eq!(
            (got, headers["satwatch-cursor"].to_str().unwrap()),
            (status, &*expected),
            "{path} {body}"
        );
    }
    let added = daemon
        .post(
            "/add_addresses",
            &json!({"addresses": [address(4).to_string()]}).to_string(),
        )
        .await
        .1;
    assert_eq!(added["cursor"], *daemon.cursor(daemon.head()));
}

#[tokio::test]
async fn a_browser_page_may_read_the_headers() {
    let daemon = Daemon::start().await;
    let request = Request::get("/status")
        .header("host", "localhost:5005")
        .header("origin", "http://localhost:3000");
    let (_, headers, _) = daemon.request(request.body(Full::default()).unwrap()).await;
    let exposed = headers["access-control-expose-headers"].to_str().unwrap();
    for name in ["Satwatch-Cursor", "Retry-After"] {
        assert!(exposed.split(", ").any(|it| it == name), "{exposed}");
    }
}

#[tokio::test]
async fn a_daemon_that_stops_answers_everybody_who_waits() {
    let (daemon, mine, _) = paid(config::Config::default()).await;
    let poll = daemon.begin(&format!("/events?wait=60&after={}", daemon.cursor(2)));
    let filtered = daemon.begin(&format!(
        "/events?wait=60&address={mine}&after={}",
        daemon.cursor(2)
    ));
    daemon.until_waiting(2).await;
    daemon.stop.cancel();
    while daemon.services.overview.dispatch.counts().await.is_ok() {
        tokio::task::yield_now().await;
    }
    // Dispatch has stopped, of whom it would hear of events.
    let late = daemon.begin(&format!("/events?wait=60&after={}", daemon.cursor(2)));
    for poll in [poll, filtered, late] {
        let (status, page) = read(
            tokio::time::timeout(PATIENCE, poll)
                .await
                .expect("at once")
                .unwrap(),
        )
        .await;
        assert_eq!(
            (status, &page["events"], &page["next"]),
            (200, &json!([]), &json!(daemon.cursor(2)))
        );
    }
}

#[tokio::test]
async fn waiting_requests_are_counted_and_end_with_their_client() {
    let (daemon, mine, _) = paid(config::Config::default()).await;
    let path = format!("/events?wait=60&after={}", daemon.cursor(2));
    let waiting = [
        daemon.begin(&path),
        daemon.begin(&format!("{path}&address={mine}")),
        daemon.begin(&path),
    ];
    daemon.until_waiting(3).await;
    assert_eq!(
        daemon.get("/events").await.0,
        200,
        "one that does not wait is not counted"
    );
    daemon.until_waiting(3).await;
    // hyper drops the request when its connection is gone.
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    daemon.until_waiting(0).await;
    let (waited, _) = tokio::join!(daemon.get(&path), daemon.pay(&mine, 5, 50));
    assert_eq!(waited.1["events"][0]["cursor"], daemon.cursor(3));
}

#[tokio::test]
async fn a_cursor_that_is_not_good_comes_with_balances_and_where_to_go_on() {
    let (daemon, mine, other) = paid(config::Config::default()).await;
    daemon.pay(&other, 7, 60).await;
    let balance = daemon.get(&format!("/balance/{mine}")).await.1;
    let query = format!("address={mine}&address={other}");
    let (status, error) = daemon.get(&format!("/events?after=ffff-1&{query}")).await;
    assert_eq!((status, &error["code"]), (410, &json!("cursor_unknown")));
    assert_eq!(
        (&error["cursor"], &error["first"]),
        (&json!(daemon.cursor(4)), &json!(daemon.cursor(0)))
    );
    assert_eq!(
        (
            &error["balances"][0],
            error["balances"].as_array().unwrap().len()
        ),
        (&balance, 2)
    );
    assert_eq!(
        daemon
            .get(&format!("/events?after={}&{query}", daemon.cursor(5)))
            .await
            .1["code"],
        "cursor_unknown",
        "beyond the head"
    );
    let (_, error) = daemon.get("/events?after=ffff-1").await;
    assert_eq!(
        (&error["cursor"], error.get("balances")),
        (&json!(daemon.cursor(4)), None),
        "no address was named"
    );

    // Everything so far is deleted.
    assert_eq!(
        daemon
            .indexer
            .prune_events(old_by_clock(NOW + 1))
            .await
            .unwrap(),
        4
    );
    for number in 0..4 {
        let (status, error) = daemon
            .get(&format!(
                "/events?after={}&address={mine}",
                daemon.cursor(number)
            ))
            .await;
        assert_eq!(
            (status, &error["code"], &error["balances"]),
            (410, &json!("cursor_expired"), &json!([balance])),
            "{number}"
        );
        assert_eq!(
            (&error["cursor"], &error["first"]),
            (&json!(daemon.cursor(4)), &json!(daemon.cursor(4)))
        );
    }
    assert_eq!(
        daemon
            .get(&format!("/events?after={}", daemon.cursor(4)))
            .await
            .1["events"],
        json!([])
    );
    // On the socket the error says the same, and `subscribed` has the snapshot.
    let mut client = daemon.client().await;
    client
        .emit(
            "subscribe_address",
            json!({"address": mine.to_string(), "after": daemon.cursor(3)}),
        )
        .await;
    let error = client.expect("error").await;
    assert_eq!(
        (&error["code"], &error["cursor"]),
        (&json!("cursor_expired"), &json!(daemon.cursor(4)))
    );
    assert_eq!(client.expect("subscribed").await["balance"], balance);
}

#[tokio::test]
async fn events_over_the_socket_and_over_rest_are_the_same_bytes() {
    let (daemon, mine, other) = paid(config::Config::default()).await;
    let mut client = daemon.client().await;
    client.emit("subscribe_address", json!({"address": mine.to_string(), "after": daemon.cursor(0), "confirmations": [1, 2]})).await;
    let mut packets = vec![];
    for _ in 0..4 {
        packets.push(client.hear().await);
    }
    assert!(packets.remove(3).starts_with("2[\"caught_up\""));
    packets.remove(0);
    let tx = daemon.pay(&mine, 1, 30).await;
    daemon.mine(&mine, vec![tx]).await;
    daemon.mine(&other, vec![]).await;
    daemon.told().await;
    packets.extend(std::iter::from_fn(|| client.packet()));

    #[derive(serde::Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        events: Vec<Entry<'a>>,
    }
    #[derive(serde::Deserialize)]
    struct Entry<'a> {
        event: String,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let (_, _, body) = daemon
        .ask(Method::GET, &format!("/events?address={mine}"))
        .await;
    let page: Page<'_> = serde_json::from_str(&body).unwrap();
    let entries: Vec<_> = page
        .events
        .iter()
        .map(|entry| format!("2[\"{}\",{}]", entry.event, entry.data.get()))
        .collect();
    assert!(entries.len() >= 8, "{entries:?}");
    assert_eq!(packets, entries);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_polls_gets_every_event_that_it_wants_once_however_the_polls_fall() {
    let (daemon, mine, other) = paid(config::Config::default()).await;
    let stranger = address(9);
    let filters = [
        "".to_owned(),
        format!("&address={mine}"),
        format!("&address={other}"),
        format!("&address={mine}&address={other}"),
    ];
    let last = Arc::new(std::sync::atomic::AtomicU64::new(u64::MAX));
    let number = |cursor: &Value| {
        cursor
            .as_str()
            .unwrap()
            .rsplit('-')
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let pollers: Vec<_> = (0..40usize)
        .map(|poller| {
            let (router, filter, mut next, last) = (
                daemon.router.clone(),
                filters[poller % 4].clone(),
                daemon.cursor(0),
                last.clone(),
            );
            tokio::spawn(async move {
                let mut got = Vec::new();
                loop {
                    let path = format!(
                        "/events?wait=60&limit={}&after={next}{filter}",
                        [1, 2, 7, 1000][poller / 4 % 4]
                    );
                    let request = Request::get(path)
                        .header("host", "localhost")
                        .body(Full::<Bytes>::default())
                        .unwrap();
                    let (status, page) = read(router.handle(request, PEER).await).await;
                    assert_eq!(status, 200, "{page}");
                    got.extend(
                        page["events"]
                            .as_array()
                            .unwrap()
                            .iter()
                            .map(|event| number(&event["cursor"])),
                    );
                    next = page["next"].as_str().unwrap().to_owned();
                    if number(&page["next"]) >= last.load(std::sync::atomic::Ordering::Relaxed) {
                        return (filter, number(&page["next"]), got);
                    }
                }
            })
        })
        .collect();
    for salt in 1..60 {
        match salt % 5 {
            0 => drop(daemon.mine(&stranger, vec![]).await),
            1 | 2 => drop(daemon.pay(&other, 10, salt + 100).await),
            3 => drop(daemon.pay(&mine, 10, salt + 100).await),
            _ => tokio::task::yield_now().await,
        }
        if salt % 7 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    last.store(daemon.head(), std::sync::atomic::Ordering::Relaxed);
    daemon.pay(&mine, 11, 1).await;
    daemon.pay(&other, 11, 2).await;
    for poller in pollers {
        let (filter, to, got) = tokio::time::timeout(PATIENCE, poller)
            .await
            .expect("it is woken")
            .unwrap();
        let log = daemon.get(&format!("/events?limit=1000{filter}")).await.1;
        let expected: Vec<_> = log["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| number(&event["cursor"]))
            .collect();
        assert!(expected.len() > 10);
        assert_eq!(
            got,
            expected
                .into_iter()
                .filter(|number| *number <= to)
                .collect::<Vec<_>>(),
            "{filter}"
        );
    }
}
