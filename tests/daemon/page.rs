//! The web page: what is served, and what a person sees of it in a real browser.

use std::process::Command;

use serde_json::{Value, json};

use crate::common::node::free_port;
use crate::common::{COIN, Daemon, Node, Program};

/// The page in headless Chromium, with the address added through its form.
pub struct Browser {
    program: Program,
}

impl Browser {
    pub fn open(url: &str, address: &str, flags: &[&str]) -> Self {
        let browser = Self {
            program: Program::node("page.mjs", &[&[url, address], flags].concat()),
        };
        browser.wait_for("READY");
        browser
    }

    fn wait_for(&self, mark: &str) {
        self.program.line(mark, |line| (line == mark).then_some(()));
    }

    /// What it saw; printed only if nothing went wrong in the browser.
    pub fn seen(mut self) -> Value {
        let seen = self.program.line("what it saw", |line| {
            serde_json::from_str::<Value>(line)
                .ok()
                .filter(Value::is_object)
        });
        self.program.ends_well();
        seen
    }
}

#[test]
fn a_payment_appears_on_the_page() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    node.pay(&address, COIN);
    node.mine(1);
    daemon.wait_tip(&node);

    let browser = Browser::open(&format!("{}/", daemon.url()), &address, &[]);
    let txid = node.pay(&address, 12_345_678);
    let seen = browser.seen();

    assert_eq!(seen["payment"]["txid"], txid, "{seen}");
    assert_eq!(seen["payment"]["amount"], "12345678", "{seen}");
    let status = seen["payment"]["status"].as_str().unwrap_or_default();
    assert!(status.starts_with("seen, "), "{seen}");
    assert_eq!(
        seen["before"], "100000000",
        "the balance from before the address was added: {seen}"
    );
    assert_eq!(seen["balance"], "112345678", "{seen}");
    assert_eq!(
        (&seen["confirmed"], &seen["unconfirmed"]),
        (&json!("100000000"), &json!("12345678")),
        "{seen}"
    );
    assert_eq!(
        (&seen["connection"], &seen["label"]),
        (&json!("Connected"), &json!("test"))
    );
    assert_eq!(
        (&seen["network"], &seen["height"]),
        (&json!("regtest"), &json!(node.height()))
    );
}

#[test]
fn a_confirmation_moves_the_amount_from_unconfirmed_to_confirmed() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();

    let browser = Browser::open(&format!("{}/", daemon.url()), &address, &["--confirm"]);
    let txid = node.pay(&address, 12_345_678);
    browser.wait_for("SEEN");
    node.mine(1);
    let seen = browser.seen();

    assert_eq!(
        seen["payment"],
        json!({ "txid": txid, "amount": "12345678", "status": "1 of 6 confirmations" })
    );
    assert_eq!(
        (&seen["confirmed"], &seen["balance"]),
        (&json!("12345678"), &json!("12345678")),
        "{seen}"
    );
    assert_eq!(
        seen["received"],
        json!([txid]),
        "a confirmation is no second payment"
    );
}

#[test]
fn the_page_comes_back_by_itself_and_shows_what_it_missed() {
    let node = Node::start();
    // The same port again, as in real life.
    let listen = format!("127.0.0.1:{}", free_port());
    let mut daemon = Daemon::with(&node, &[("server.listen", &listen)]);
    let address = node.address();

    let browser = Browser::open(
        &format!("{}/realtime_client.html", daemon.url()),
        &address,
        &["--restart"],
    );
    let first = node.pay(&address, 1_000);
    browser.wait_for("SEEN");
    daemon.stop();
    browser.wait_for("RECONNECTING");
    let missed = node.pay(&address, 20_000);
    daemon.restart();
    let seen = browser.seen();

    assert_eq!(seen["payment"]["txid"], missed, "{seen}");
    assert_eq!(
        seen["received"],
        json!([missed, first]),
        "each payment once, the newest first"
    );
    assert_eq!(
        (&seen["balance"], &seen["connection"]),
        (&json!("21000"), &json!("Connected")),
        "{seen}"
    );
}

#[test]
fn every_file_of_the_page_comes_with_its_type_and_policy() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    for (path, expected) in satwatch::web::files() {
        let answer = daemon.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        assert_eq!(answer.text, expected.body, "{path}");
        assert_eq!(
            answer.headers["content-type"], expected.content_type,
            "{path}"
        );
        assert_eq!(
            answer.headers["x-content-type-options"], "nosniff",
            "{path}"
        );
        for (name, value) in satwatch::web::HEADERS {
            assert_eq!(answer.headers[name], value, "{path}");
        }
        let url = format!("{}{path}", daemon.url());
        let output = Command::new("curl")
            .args(["-s", "--compressed", "-D", "-", &url])
            .output();
        let said = String::from_utf8(output.expect("curl").stdout).expect("text");
        let (headers, body) = said.split_once("\r\n\r\n").expect("headers");
        assert!(headers.contains("content-encoding: gzip"), "{headers}");
        assert_eq!(body, expected.body, "{path}");
        assert_eq!(
            daemon.get(&format!("{path}?v=1")).text,
            expected.body,
            "{path} with a query"
        );
    }
    let refused = daemon.post("/app.js", &Value::Null);
    assert_eq!(
        (refused.status, refused.headers.contains_key("allow")),
        (405, true),
        "{}",
        refused.text
    );
}
