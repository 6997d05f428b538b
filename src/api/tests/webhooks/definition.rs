//! What a definition says of a webhook: headers, secrets, and that none of it is shown.

use super::*;

const KEY_1: &str = "whsec_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";
const KEY_2: &str = "whsec_AgICAgICAgICAgICAgICAgICAgICAgIC";

/// The value of a header of a request.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

impl Daemon {
    /// The head of a test delivery.
    async fn test_head(&self, receiver: &Receiver) -> String {
        let (status, body) = self.post("/consumers/shop/test", "").await;
        assert_eq!((status, &body["delivered"]), (200, &json!(true)), "{body}");
        receiver.heads.lock().unwrap().last().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_14_headers_are_sent_kept_and_never_shown() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(200, ANY).await);
    let url = format!("{}hook?token=opensesame", receiver.url);
    let headers = json!({ "Authorization": "Bearer hunter2", "X-Shop": "hunter3" });
    let put = async |definition: Value| daemon.define("shop", definition).await;
    let (status, made) = put(json!({ "url": url, "headers": headers })).await;
    assert_eq!(status, 201, "{made}");
    let shown = json!({ "authorization": "(hidden)", "x-shop": "(hidden)" });
    assert_eq!(made["webhook"]["headers"], shown);
    let hidden_url = format!("{}hook?token=(hidden)", receiver.url);
    assert_eq!(made["webhook"]["url"], json!(hidden_url));

    let head = daemon.test_head(&receiver).await;
    assert!(
        head.starts_with("POST /hook?token=opensesame HTTP/1.1"),
        "{head}"
    );
    assert_eq!(header(&head, "authorization"), Some("Bearer hunter2"));
    assert_eq!(header(&head, "x-shop"), Some("hunter3"));

    receiver.status.store(500, Ordering::SeqCst);
    *receiver.answer.lock().unwrap() = ("", "no hunter2, no opensesame: Bearer hunter2");
    daemon.add(1).await;
    daemon.pay(&address(1), 5_000, 1).await;
    until("its answer is there", async || {
        daemon.webhook("shop").await["last_error"].is_string()
    })
    .await;
    let (_, tested) = daemon.post("/consumers/shop/test", "").await;
    assert_eq!(tested["status"], 500, "{tested}");
    for path in ["/consumers", "/consumers/shop", "/status"] {
        let (_, body) = daemon.get(path).await;
        for secret in ["hunter2", "hunter3", "opensesame", "whsec_"] {
            assert!(!body.to_string().contains(secret), "{path}: {body}");
            assert!(!tested.to_string().contains(secret), "{tested}");
        }
    }

    let (_, same) = put(json!({ "url": url })).await;
    assert_eq!(same["webhook"]["headers"], shown, "left out, they stay");
    let counts = || daemon.reader.snapshot().counts().unwrap();
    let before = counts();
    let moved = json!({ "url": "http://127.0.0.2:9/", "addresses": [address(9).to_string()], "confirmations": [3] });
    for (definition, field) in [
        (moved, "headers"),
        (json!({ "url": hidden_url }), "url"),
        (json!({ "url": url, "headers": shown }), "headers"),
        (json!({ "url": "http://127.0.0.2:9/" }), "headers"),
        (json!({ "url": url, "headers": { "Host": "x" } }), "headers"),
        (json!({ "url": url, "headers": { "x": 5 } }), "headers"),
        (json!({ "url": url, "headers": ["x"] }), "headers"),
        (json!({ "headers": { "x": "1" } }), "url"),
    ] {
        let (status, refused) = put(definition.clone()).await;
        let error = refused["error"].as_str().unwrap_or_default();
        assert!(
            status == 400 && error.contains(field),
            "{definition}: {refused}"
        );
        assert_eq!(counts(), before, "{definition}");
    }
    let twice = r#"{"url": "http://127.0.0.1:9/", "headers": {"x": "1", "x": "2"}}"#;
    let request = Request::put("/consumers/other").header("host", "localhost:5005");
    let request = request.body(Full::from(twice.to_owned())).unwrap();
    assert_eq!(daemon.request(request).await.0, 400);

    let (status, without) = put(json!({ "url": url, "headers": {} })).await;
    assert_eq!((status, &without["webhook"]["headers"]), (200, &json!({})));
}

/// The remedy that the refusal of a URL with a password gives.
#[tokio::test(flavor = "multi_thread")]
async fn case_14_user_and_password_are_sent_as_a_header_as_the_refusal_says() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(200, ANY).await);
    let with_password = receiver.url.replace("http://", "http://user:hunter2@");
    let (status, refused) = daemon.define("shop", json!({ "url": with_password })).await;
    let error = refused["error"].as_str().unwrap();
    assert_eq!((status, &refused["code"]), (400, &json!("invalid_field")));
    assert!(!error.contains("hunter2"), "{error}");
    let (_, remedy) = error.split_once("\"headers\": ").expect("a remedy");
    let remedy = remedy
        .trim_end_matches('.')
        .replace("<user:password in base64>", "dXNlcjpodW50ZXIy");
    let headers: Value = serde_json::from_str(&remedy).expect("the remedy is JSON");
    let definition = json!({ "url": receiver.url, "headers": headers });
    assert_eq!(daemon.define("shop", definition).await.0, 201);
    let head = daemon.test_head(&receiver).await;
    assert_eq!(
        header(&head, "authorization"),
        Some("Basic dXNlcjpodW50ZXIy")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_each_secret_signs_until_it_expires_or_is_left_out() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(200, ANY).await);
    let url = &receiver.url;
    let put = async |secrets: Value| {
        let definition = json!({ "url": url, "secrets": secrets });
        let (status, body) = daemon.define("shop", definition).await;
        (
            status,
            body["webhook"]["secrets"].clone(),
            body["secret"].clone(),
        )
    };
    let signatures = async || {
        let head = daemon.test_head(&receiver).await;
        let signatures = header(&head, "webhook-signature").unwrap().to_owned();
        signatures
            .split(' ')
            .filter(|it| it.starts_with("v1,"))
            .count()
    };
    let never = json!({ "expires": null });
    assert_eq!(
        put(json!([KEY_1])).await,
        (201, json!([never]), Value::Null)
    );
    assert_eq!(signatures().await, 1);
    assert_eq!(put(json!([KEY_2, KEY_1])).await.1, json!([never, never]));
    assert_eq!(signatures().await, 2);
    let now = crate::clock::now_ms() as f64 / 1000.0;
    let old = |expires: f64| json!([KEY_2, { "secret": KEY_1, "expires": expires }]);
    let (status, shown, _) = put(old(now + 1000.0)).await;
    assert_eq!((status, &shown[0]), (200, &never));
    assert!(shown[1]["expires"].as_f64() > Some(now), "{shown}");
    assert_eq!(signatures().await, 2);
    assert_eq!(put(old(now - 1.0)).await.0, 200);
    assert_eq!(signatures().await, 1, "the old one has expired");
    let (_, kept) = daemon
        .define("shop", json!({ "url": url, "blocks": true }))
        .await;
    assert_eq!(kept["webhook"]["secrets"].as_array().map(Vec::len), Some(2));
    let only = json!({ "url": url, "secret": KEY_1 });
    let (_, replaced) = daemon.define("shop", only).await;
    assert_eq!(replaced["webhook"]["secrets"], json!([never]));

    for bad in [
        json!([]),
        json!("whsec_"),
        json!([KEY_1, KEY_1]),
        json!([{ "secret": KEY_1, "expires": now }]),
        json!([{ "secret": KEY_1, "expire": now }]),
        json!([{ "secret": KEY_1, "expires": "soon" }, KEY_2]),
        json!([5]),
    ] {
        let (status, _, _) = put(bad.clone()).await;
        assert_eq!(status, 400, "{bad}");
    }
    let both = json!({ "url": url, "secret": KEY_1, "secrets": [KEY_1] });
    assert_eq!(daemon.define("shop", both).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn case_16_targets_on_the_allow_list_are_taken_and_others_are_refused_with_the_setting() {
    let receiver = Receiver::start(200, ANY).await;
    let allowing = |target: &str| config::Config {
        webhooks: config::Webhooks {
            allowed_targets: vec![target.parse().unwrap()],
            ..config::Webhooks::default()
        },
        ..config::Config::default()
    };
    let strict = Daemon::with(config::Config::default()).await;
    let (status, refused) = strict.define("shop", json!({ "url": receiver.url })).await;
    assert_eq!(
        (status, &refused["code"]),
        (400, &json!("webhook_target_refused"))
    );
    let error = refused["error"].as_str().unwrap();
    let (_, remedy) = error.split_once("webhooks.allowed_targets = [\"").unwrap();
    let (remedy, _) = remedy.split_once('"').unwrap();

    let daemon = Daemon::with(allowing(remedy)).await;
    let (status, made) = daemon.define("shop", json!({ "url": receiver.url })).await;
    assert_eq!(status, 201, "{made}");
    daemon.test_head(&receiver).await;
    let other = json!({ "url": "http://127.0.0.2:9/" });
    assert_eq!(daemon.define("other", other).await.0, 400);

    let by_name = receiver.url.replace("127.0.0.1", "localhost");
    let named = Daemon::with(allowing("localhost")).await;
    assert_eq!(named.define("shop", json!({ "url": by_name })).await.0, 201);
    named.test_head(&receiver).await;
    assert_eq!(
        named
            .define("other", json!({ "url": receiver.url }))
            .await
            .0,
        400
    );
}
