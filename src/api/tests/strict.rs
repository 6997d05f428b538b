//! Nothing that a client sends is overlooked.

use hyper::Method;
use serde_json::json;

use super::*;
use crate::api::rest::route::Route;
use crate::api::rest::routes::ROUTES;
use crate::api::socket::EVENTS;

impl Daemon {
    /// The status, the code and the sentence of an answer.
    pub(super) async fn follow_ups(
        &self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> (u16, String, String) {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost:5005")
            .header("content-type", "application/json")
            .body(Full::from(body))
            .unwrap();
        let (status, _, body) = self.request(request).await;
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        (status.as_u16(), text("code"), text("error"))
    }

    fn counts(&self) -> (u64, usize, u64) {
        let snapshot = self.reader.snapshot();
        let consumers = self.services.consumers.all().len();
        let addresses = snapshot.counts().unwrap().addresses;
        (addresses, consumers, snapshot.head().unwrap())
    }
}

/// Each way to ask for something: method and path.
fn requests() -> impl Iterator<Item = (Method, String)> {
    requests_of(ROUTES).map(|(_, method, path)| (method, path))
}

/// The same with the row of the table.
pub(super) fn requests_of(
    routes: &'static [Route],
) -> impl Iterator<Item = (&'static Route, Method, String)> {
    routes.iter().flat_map(|entry| {
        let part = match entry.path.split_once('{') {
            Some((_, part)) if part.starts_with("address}") => address(1).to_string(),
            Some(_) => "shop".to_owned(),
            None => String::new(),
        };
        let path = match (entry.path.find('{'), entry.path.find('}')) {
            (Some(from), Some(to)) => {
                let (before, after) = (&entry.path[..from], &entry.path[to + 1..]);
                format!("{before}{part}{after}")
            }
            _ => entry.path.to_owned(),
        };
        let head = (entry.method == Method::GET).then_some(Method::HEAD);
        let methods = std::iter::once(entry.method.clone()).chain(head);
        methods
            .map(|method| (entry, method, path.clone()))
            .collect::<Vec<_>>()
    })
}

#[tokio::test]
async fn case_10_every_route_refuses_what_it_does_not_know() {
    let daemon = Daemon::start().await;
    let some = address(1).to_string();
    daemon
        .post("/add_address", &json!({"address": some}).to_string())
        .await;
    let put = daemon
        .follow_ups("PUT", "/consumers/shop", &json!({}))
        .await;
    assert_eq!(put.0, 201, "{put:?}");
    let before = daemon.counts();
    let mut count = 0;
    for (method, path) in requests() {
        let with_query = format!("{path}?no_such_parameter=1");
        let refused = daemon
            .follow_ups(method.as_str(), &with_query, &Value::Null)
            .await;
        assert_eq!(refused.0, 400, "{method} {with_query} {refused:?}");
        let body = json!({"no_such_field": null});
        let in_body = daemon.follow_ups(method.as_str(), &path, &body).await;
        assert_eq!(in_body.0, 400, "{method} {path} {in_body:?}");
        if method != Method::HEAD {
            assert_eq!(
                refused.1, "unknown_field",
                "{method} {with_query} {refused:?}"
            );
            assert!(refused.2.contains("`no_such_parameter`"), "{refused:?}");
            assert_eq!(in_body.1, "unknown_field", "{method} {path} {in_body:?}");
            assert!(in_body.2.contains("`no_such_field`"), "{in_body:?}");
        }
        count += 1;
    }
    assert!(count > ROUTES.len(), "{count}");
    assert_eq!(daemon.counts(), before, "nothing was changed");
}

#[tokio::test]
async fn case_10_every_event_refuses_what_it_does_not_know() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client().await;
    let before = daemon.counts();
    for name in EVENTS.iter().map(|event| event.name) {
        for argument in [json!({"no_such_field": 1}), json!({"no_such_field": null})] {
            client.say(&format!("21{}", json!([name, argument]))).await;
            let error = client.expect("error").await;
            assert_eq!(error["code"], "unknown_field", "{name} {error}");
            let sentence = error["error"].as_str().unwrap();
            assert!(sentence.contains("`no_such_field`"), "{name} {error}");
            assert_eq!(client.acknowledgement(1).await, error, "{name}");
        }
        client
            .say(&format!("2{}", json!([name, {}, {"more": 1}])))
            .await;
        let error = client.expect("error").await;
        assert_eq!(error["code"], "unknown_field", "{name} {error}");
    }
    assert_eq!(daemon.counts(), before, "nothing was changed");
}

#[tokio::test]
async fn case_10_slips_of_real_users_are_refused_with_the_nearest_name() {
    let daemon = Daemon::start().await;
    let b = address(1).to_string();
    daemon
        .post("/add_address", &json!({"address": b}).to_string())
        .await;
    let before = daemon.counts();
    for (method, path, body, near) in [
        (
            "PUT",
            "/consumers/x".to_owned(),
            json!({"address": [b]}),
            "did you mean `addresses`?",
        ),
        (
            "PUT",
            "/consumers/x".to_owned(),
            json!({"addresses": [b], "confirmation": [3]}),
            "did you mean `confirmations`?",
        ),
        (
            "POST",
            "/add_address".to_owned(),
            json!({"address": b, "confirmation": [3]}),
            "did you mean `confirmations`?",
        ),
        (
            "POST",
            "/add_address".to_owned(),
            json!({"address": b, "from_height": 0}),
            "write `\"history\": {\"from_height\": 0}`",
        ),
        (
            "POST",
            "/add_addresses".to_owned(),
            json!({"addresses": [{"address": b, "lable": "x"}]}),
            "in \"addresses[0]\": did you mean `label`?",
        ),
        (
            "POST",
            format!("/scan_history/{b}"),
            json!({"from": 0}),
            "did you mean `from_height`?",
        ),
        (
            "POST",
            format!("/scan_history/{b}"),
            json!({"addresses": [b]}),
            "POST /scan_history takes a list",
        ),
        (
            "GET",
            format!("/events?addresses={b}"),
            Value::Null,
            "did you mean `address`?",
        ),
        (
            "GET",
            format!("/utxos/{b}?min_confirmations=6"),
            Value::Null,
            "each output says its `confirmations`",
        ),
        (
            "GET",
            format!("/transactions/{b}?page=2"),
            Value::Null,
            "the `next` of the page before as `before`",
        ),
        (
            "GET",
            format!("/balance/bitcoin:{b}?amount=0.01"),
            Value::Null,
            "the whole `bitcoin:` URI percent-encoded",
        ),
        (
            "GET",
            format!("/transactions/bitcoin:{b}?label=shop"),
            Value::Null,
            "the whole `bitcoin:` URI percent-encoded",
        ),
        (
            "DELETE",
            format!("/addresses/bitcoin:{b}?lightning=lnbc1"),
            Value::Null,
            "the whole `bitcoin:` URI percent-encoded",
        ),
        (
            "POST",
            format!("/scan_history/bitcoin:{b}?req-pj=x"),
            Value::Null,
            "the whole `bitcoin:` URI percent-encoded",
        ),
        (
            "DELETE",
            "/consumers/x/dead_letters?cursors=1".to_owned(),
            Value::Null,
            "did you mean `cursor`?",
        ),
        (
            "POST",
            "/consumers/x/dead_letters/resend".to_owned(),
            json!({"cursor": "1"}),
            "did you mean `cursors`?",
        ),
        (
            "POST",
            format!("/start?address={b}"),
            Value::Null,
            "no query parameter is taken here",
        ),
        (
            "POST",
            "/stop".to_owned(),
            json!({"for": 5}),
            "no field is taken here",
        ),
    ] {
        let (status, code, sentence) = daemon.follow_ups(method, &path, &body).await;
        assert_eq!(
            (status, code.as_str()),
            (400, "unknown_field"),
            "{method} {path} {body}: {sentence}"
        );
        assert!(
            sentence.contains(near),
            "{method} {path} {body}: {sentence}"
        );
    }
    let path = format!("/balance/{b}?amount=1");
    let (_, _, sentence) = daemon.follow_ups("GET", &path, &Value::Null).await;
    assert!(
        sentence.contains("percent-encoded. No query parameter is taken here."),
        "{sentence}"
    );
    let mut client = daemon.client().await;
    for (name, argument, near) in [
        (
            "subscribe_address",
            json!({"address": b, "confirmation": [3]}),
            "did you mean `confirmations`?",
        ),
        (
            "subscribe_address",
            json!({"addresses": [b]}),
            "subscribe_addresses takes a list",
        ),
        (
            "subscribe_address",
            json!({"address": b, "label": "x"}),
            "takes a label",
        ),
        (
            "subscribe_addresses",
            json!({"address": b}),
            "did you mean `addresses`?",
        ),
        (
            "unsubscribe_address",
            json!({"adress": b}),
            "did you mean `address`?",
        ),
        (
            "subscribe_blocks",
            json!({"address": b}),
            "no field is taken here",
        ),
        (
            "subscribe_consumer",
            json!({"name": "x"}),
            "there is `consumer`",
        ),
        (
            "ack",
            json!({"consumer": "x", "cursors": "1"}),
            "did you mean `cursor`?",
        ),
    ] {
        client.emit(name, argument.clone()).await;
        let error = client.expect("error").await;
        assert_eq!(error["code"], "unknown_field", "{name} {argument} {error}");
        let sentence = error["error"].as_str().unwrap();
        assert!(sentence.contains(near), "{name} {argument} {error}");
    }
    assert_eq!(daemon.counts(), before, "nothing was changed");
}

#[tokio::test]
async fn a_parameter_that_is_named_twice_is_refused() {
    let daemon = Daemon::start().await;
    for path in ["/addresses?limit=1&limit=2", "/events?after=a&after=b"] {
        let (status, code, sentence) = daemon.follow_ups("GET", path, &Value::Null).await;
        assert_eq!(
            (status, code.as_str()),
            (400, "invalid_parameter"),
            "{path} {sentence}"
        );
    }
}

#[tokio::test]
async fn what_the_contract_exempts_takes_anything() {
    let daemon = Daemon::start().await;
    for path in [
        "/?theme=dark",
        "/realtime_client.html?address=x&utm_source=y",
    ] {
        let request = Request::get(path)
            .header("host", "localhost:5005")
            .body(Full::default())
            .unwrap();
        assert_eq!(daemon.request(request).await.0, StatusCode::OK, "{path}");
    }
    for path in ["/start", "/stop"] {
        let (status, _, sentence) = daemon.follow_ups("POST", path, &json!({})).await;
        assert_eq!(status, 200, "{path} {sentence}");
    }
    let mut client = daemon.client().await;
    for packet in [r#"2["subscribe_blocks"]"#, r#"2["subscribe_blocks",null]"#] {
        client.say(packet).await;
        client.expect("subscribed_blocks").await;
    }
}
