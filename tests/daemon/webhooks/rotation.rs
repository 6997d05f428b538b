//! A secret is changed while the receivers of both languages go on, with the stock libraries.

use serde_json::{Value, json};

use super::{SETTINGS, example, put};
use crate::common::{Daemon, Node, Program};

const OLD: &str = "whsec_b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xk";
const NEW: &str = "whsec_bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3";

/// An example receiver that knows one secret, and its URL.
fn receiver(is_python: bool, secret: &str) -> (Program, String) {
    let port = crate::common::node::free_port();
    let program = example(is_python, port, secret);
    program.line("that it listens", |line| {
        line.contains("listening").then_some(())
    });
    (program, format!("http://127.0.0.1:{port}/"))
}

#[test]
fn rotation_is_without_a_gap_for_the_stock_libraries() {
    let node = Node::start();
    let daemon = Daemon::with(&node, SETTINGS);
    for is_python in [true, false] {
        let (with_old, with_new) = (receiver(is_python, OLD), receiver(is_python, NEW));
        let status = |url: &str, secrets: Value| {
            let made = put(&daemon, "shop", &json!({ "url": url, "secrets": secrets }));
            assert!(matches!(made.status, 200 | 201), "{}", made.text);
            let tested = daemon.request("POST", "/consumers/shop/test", &[], None);
            tested.json["status"].clone()
        };
        for secrets in [
            json!([NEW, OLD]),
            json!([NEW, { "secret": OLD, "expires": 4e9 }]),
        ] {
            assert_eq!(status(&with_old.1, secrets.clone()), 200, "{secrets}");
            assert_eq!(status(&with_new.1, secrets.clone()), 200, "{secrets}");
        }
        for secrets in [json!([NEW]), json!([NEW, { "secret": OLD, "expires": 1 }])] {
            assert_eq!(status(&with_old.1, secrets.clone()), 400, "{secrets}");
            assert_eq!(status(&with_new.1, secrets.clone()), 200, "{secrets}");
        }
        for program in [&with_old.0, &with_new.0] {
            program.event("test", |data| data["message"].is_string());
        }
    }
}
