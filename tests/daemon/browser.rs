//! What web pages may do: the daemon listens on loopback, where every page of every site can send
//! requests to it.

use crate::common::{Daemon, Node};

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
