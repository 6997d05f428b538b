//! Limits of rates, who is counted behind proxies, and the access log, with a whole daemon.

use serde_json::{Value, json};

use crate::common::{Answer, Client, Daemon, Node, wait_until};

/// A request that came through a proxy from `client`.
fn from(daemon: &Daemon, client: &str, path: &str) -> Answer {
    daemon.request("GET", path, &[("X-Forwarded-For", client)], None)
}

/// The lines of the access log.
pub fn lines(daemon: &Daemon) -> Vec<Value> {
    let log = daemon.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["target"] == "satwatch::access")
        .collect()
}

#[test]
fn who_asks_too_often_is_refused_and_another_client_notices_nothing() {
    let node = Node::start();
    let settings = [
        ("limits.requests_per_second", "1"),
        ("server.trusted_proxies", "127.0.0.1"),
        ("log.format", "json"),
    ];
    let daemon = Daemon::with(&node, &settings);
    let (flooding, other) = ("203.0.113.7", "203.0.113.8");
    let refused = wait_until("it is too often", || {
        let answer = from(&daemon, flooding, "/addresses");
        (answer.status == 429).then_some(answer)
    });
    assert_eq!(refused.json["code"], "rate_limited");
    assert_eq!(refused.json["limit"], "requests_per_second");
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(from(&daemon, other, "/addresses").status, 200);
    let line = wait_until("it is in the log", || {
        lines(&daemon)
            .into_iter()
            .find(|line| line["address"] == flooding)
    });
    assert_eq!(line["message"], "refused");
    assert_eq!(line["what"], "GET /addresses");
    assert_eq!(line["outcome"], "rate_limited");
    wait_until("it may ask again", || {
        (from(&daemon, flooding, "/addresses").status == 200).then_some(())
    });
    let limits = &from(&daemon, other, "/status").json["limits"];
    assert_eq!(limits["requests_per_second"]["limit"], 1);
    assert_ne!(limits["requests_per_second"]["refused"], 0);
}

#[test]
fn a_client_of_socket_io_that_says_too_much_is_told_so_and_stays() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[("limits.requests_per_second", "1")]);
    let client = Client::connect(&daemon);
    let address = node.address();
    let say = || client.ask("unsubscribe_address", &json!({ "address": address }));
    let refused = wait_until("it is too often", || {
        Some(say()).filter(|answer| answer["code"] == "rate_limited")
    });
    assert_eq!(refused["limit"], "requests_per_second");
    wait_until("it may say something again", || {
        (say()["address"] == *address).then_some(())
    });
}

#[test]
fn only_a_trusted_proxy_says_who_asks() {
    let node = Node::start();
    let mut daemon = Daemon::with(&node, &[("log.format", "json")]);
    let add = |daemon: &Daemon, header: (&str, &str)| {
        let address = node.address();
        let body = json!({ "address": address, "history": "none" });
        let headers = [("Content-Type", "application/json"), header];
        let body = body.to_string();
        let answer = daemon.request("POST", "/add_address", &headers, Some(body.as_bytes()));
        assert_eq!(answer.status, 200, "{}", answer.text);
        wait_until("it is in the log", || {
            lines(daemon)
                .into_iter()
                .find(|line| line["concerns"] == *address)
        })
    };
    let x_forwarded_for = ("X-Forwarded-For", "6.6.6.6, 203.0.113.7");
    let line = add(&daemon, x_forwarded_for);
    assert_eq!(line["address"], "127.0.0.1", "{line}");
    assert_eq!(line["message"], "changed");
    assert_eq!(line["who"], "anybody");
    daemon.stop();
    daemon.set("server.trusted_proxies", "127.0.0.0/8");
    daemon.restart();
    assert_eq!(add(&daemon, x_forwarded_for)["address"], "203.0.113.7");
    let forwarded = (
        "Forwarded",
        "for=6.6.6.6, for=\"[2001:db8::7]:4711\";proto=https",
    );
    assert_eq!(add(&daemon, forwarded)["address"], "2001:db8::7");
    assert_eq!(
        add(&daemon, ("Forwarded", "for=\"6.6.6.6"))["address"],
        "127.0.0.1"
    );
}

#[test]
fn a_token_has_a_quota_and_the_log_says_its_name() {
    let node = Node::start();
    let settings = [("limits.addresses_per_token", "1"), ("log.format", "json")];
    let daemon = Daemon::with(&node, &settings);
    let [shop, till] =
        ["shop", "till"].map(|name| daemon.token(&["new", "--name", name, "--scope", "watch"]));
    let ask = |token: &str, method: &str, path: &str, body: &Value| {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("Content-Type", "application/json"),
            ("Authorization", &*bearer),
        ];
        let body = (!body.is_null()).then(|| body.to_string());
        daemon.request(method, path, &headers, body.as_deref().map(str::as_bytes))
    };
    for (token, status) in [("none", 401), (&*shop, 200), (&*till, 200)] {
        wait_until("the daemon has taken the file", || {
            (ask(token, "GET", "/token", &Value::Null).status == status).then_some(())
        });
    }
    let [first, second] = [node.address(), node.address()];
    let add = |address: &str| {
        let body = json!({ "address": address, "history": "none" });
        ask(&shop, "POST", "/add_address", &body)
    };
    assert_eq!(add(&first).status, 200);
    let refused = add(&second);
    assert_eq!(
        (refused.status, &refused.json["code"]),
        (403, &json!("quota_reached"))
    );
    let sentence = refused.json["error"].as_str().expect("a sentence");
    assert!(
        sentence.contains("limits.addresses_per_token"),
        "{sentence}"
    );
    let path = format!("/addresses/{first}");
    assert_eq!(ask(&till, "DELETE", &path, &Value::Null).status, 200);
    assert_eq!(add(&second).status, 200);
    assert_eq!(ask("sw_wrong", "GET", "/status", &Value::Null).status, 401);
    let last = "unauthorized";
    let lines = wait_until("all is in the log", || {
        let lines = lines(&daemon);
        lines
            .iter()
            .any(|line| line["outcome"] == last)
            .then_some(lines)
    });
    let told: Vec<_> = lines
        .iter()
        .filter(|line| line["what"] != "tokens file" && line["what"] != "GET /token")
        .map(|line| ["message", "who", "what", "outcome"].map(|name| line[name].clone()))
        .collect();
    let line = |words: [&str; 4]| words.map(|word| json!(word));
    let expected = [
        line(["changed", "shop", "POST /add_address", "ok"]),
        line(["refused", "shop", "POST /add_address", "quota_reached"]),
        line(["changed", "till", "DELETE /addresses/{address}", "ok"]),
        line(["changed", "shop", "POST /add_address", "ok"]),
        line(["refused", "anybody", "GET /status", last]),
    ];
    assert_eq!(told, expected);
    let taken = lines.iter().filter(|line| line["what"] == "tokens file");
    assert!(taken.clone().count() >= 1 && taken.clone().all(|line| line["outcome"] == "taken"));
    let log = daemon.log();
    assert!(!log.contains(&shop) && !log.contains(&till), "{log}");
}
