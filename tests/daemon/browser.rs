//! What web pages may do: the daemon listens on loopback, where every page of every site can send
//! requests to it.

use serde_json::Value;

use crate::common::node::free_port;
use crate::common::{Daemon, Node, Program};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

fn status(daemon: &Daemon, path: &str, headers: &[(&str, &str)]) -> u16 {
    daemon.request("GET", path, headers, None).status
}

#[test]
fn pages_of_other_sites_and_other_names_for_this_machine_are_refused() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[]);
    for path in ["/status", POLLING] {
        assert_eq!(
            status(&daemon, path, &[]),
            200,
            "{path}: a script sends no origin"
        );
        assert_eq!(
            status(&daemon, path, &[("Origin", &daemon.url())]),
            200,
            "{path}: its own page"
        );
        assert_eq!(
            status(&daemon, path, &[("Origin", "http://localhost:3000")]),
            200,
            "{path}: a page on this machine"
        );
        for origin in [
            "https://example.com",
            "null",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com:5005",
        ] {
            let answer = daemon.request("GET", path, &[("Origin", origin)], None);
            assert_eq!(answer.status, 403, "{path} from {origin}: {}", answer.text);
            assert!(
                answer.text.contains("allowed_origins"),
                "it names the setting: {}",
                answer.text
            );
        }
        for host in ["example.com", "localhost.example.com"] {
            let answer = daemon.request("GET", path, &[("Host", host)], None);
            assert_eq!(answer.status, 403, "{path} at {host}: {}", answer.text);
        }
        assert_eq!(
            status(&daemon, path, &[("Host", "localhost:5005")]),
            200,
            "{path}"
        );
    }
    let allowed = daemon.request(
        "GET",
        "/status",
        &[("Origin", "http://localhost:3000")],
        None,
    );
    assert_eq!(
        allowed.headers["access-control-allow-origin"],
        "http://localhost:3000"
    );
}

/// Images, links and `fetch` without CORS say no origin; of them the browser says the site.
#[test]
fn other_sites_get_no_answer_without_an_origin_either() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[]);
    let address = node.address();
    daemon.watch(&address);
    let site = |site, mode, dest| {
        [
            ("Sec-Fetch-Site", site),
            ("Sec-Fetch-Mode", mode),
            ("Sec-Fetch-Dest", dest),
        ]
    };
    let probe = format!("/events?address={address}&wait=10");
    for from in ["cross-site", "same-site"] {
        for path in [POLLING, "/status", &probe] {
            let answer = daemon.request("GET", path, &site(from, "no-cors", "image"), None);
            assert_eq!(answer.status, 403, "{path} from {from}: {}", answer.text);
            assert!(answer.text.contains("allowed_origins"), "{}", answer.text);
        }
        let visit = site(from, "navigate", "document");
        assert_eq!(status(&daemon, "/", &visit), 200, "a link to the page");
        assert_eq!(status(&daemon, "/status", &visit), 403);
        let framed = site(from, "navigate", "iframe");
        assert_eq!(status(&daemon, "/", &framed), 403);
    }
    for from in ["same-origin", "none"] {
        let own = site(from, "cors", "empty");
        assert_eq!(status(&daemon, "/status", &own), 200, "{from}");
    }
}

#[test]
fn nothing_is_to_be_embedded_or_guessed_about() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[]);
    let evil: &[(&str, &str)] = &[("Origin", "http://evil.example")];
    for (method, path, headers) in [
        ("GET", "/", &[][..]),
        ("GET", "/style.css", &[]),
        ("GET", "/status", &[]),
        ("HEAD", "/status", &[]),
        ("GET", "/nothing", &[]),
        ("OPTIONS", "/status", &[]),
        ("GET", POLLING, &[]),
        ("GET", "/metrics", &[]),
        ("GET", "/status", evil),
    ] {
        let answer = daemon.request(method, path, headers, None);
        let said = |name: &str| answer.headers.get(name).map(|value| value.as_bytes());
        assert_eq!(
            (
                said("cross-origin-resource-policy"),
                said("x-content-type-options")
            ),
            (Some(&b"same-origin"[..]), Some(&b"nosniff"[..])),
            "{method} {path} {headers:?}"
        );
    }
}

/// In a real browser: `fetch` with credentials, socket.io-client 4 with credentials over both
/// transports, and socket.io-client 2 with its defaults.
#[test]
fn case_05_pages_of_listed_origins_may_send_credentials() {
    let node = Node::start();
    let port = free_port();
    let origins = format!("http://shop.example:{port},null,file://");
    let daemon = Daemon::with(&node, &[("server.allowed_origins", &origins)]);
    let arguments = [daemon.url(), port.to_string()];
    let mut browser = Program::node("origins.mjs", &[&arguments[0], &arguments[1]]);
    let seen = browser.line("what the pages could do", |line| {
        serde_json::from_str::<Value>(line)
            .ok()
            .filter(Value::is_object)
    });
    browser.ends_well();
    for kind in ["fetch", "polling4", "websocket4", "client2"] {
        for page in ["named", "file"] {
            assert_eq!(seen[page][kind], true, "{kind} of {page}: {seen:#}");
        }
        assert!(seen["other"][kind].is_string(), "{kind}: {seen:#}");
    }
}

#[test]
fn who_opens_the_door_wide_is_told_so() {
    let node = Node::start();
    for (origins, warned) in [("*", true), ("null", true), ("https://shop.example", false)] {
        let daemon = Daemon::with(&node, &[("server.allowed_origins", origins)]);
        let warning = format!("server.allowed_origins has \"{origins}\"");
        assert_eq!(daemon.log().contains(&warning), warned, "{origins}");
    }
}
