//! Other spellings of paths: none leads past the check of a route that needs a token, out of what
//! `metrics.listen` is for, or to a file.

use super::raw;
use super::well_behaved::WellBehaved;
use crate::common::{Daemon, wait_until};

/// `ROUTE` stands for the path of a route without its first slash.
const SPELLINGS: &[&str] = &[
    "/ROUTE",
    "//ROUTE",
    "///ROUTE",
    "/./ROUTE",
    "/x/../ROUTE",
    "/../ROUTE",
    "/..%2fROUTE",
    "/%2e%2e/ROUTE",
    "/%2e/ROUTE",
    "/ROUTE/",
    "/ROUTE//",
    "/ROUTE/.",
    "/ROUTE/x/..",
    "/ROUTE;a=b",
    "/;/ROUTE",
    "/;a=b/ROUTE",
    "/ROUTE%3b",
    "/ROUTE%00",
    "/ROUTE%00.css",
    "/%00/ROUTE",
    "/ROUTE%20",
    "/%20ROUTE",
    "/ROUTE%0a",
    "/ROUTE%0d%0a",
    "/ROUTE%2f",
    "/%2fROUTE",
    "/%2f%2fROUTE",
    "/ROUTE?",
    "/ROUTE??",
    "/ROUTE#",
    "/ROUTE%3f",
    "/ROUTE%23",
    "/ROUTE.json",
    "/ROUTE%2ehtml",
    "/\\ROUTE",
    "/%5cROUTE",
    "/x\\..\\ROUTE",
    "/health/live/../../ROUTE",
    "/health/live/..;/ROUTE",
    "/health/live%2f..%2f..%2fROUTE",
    "/health/../ROUTE",
    "/socket.io/../ROUTE",
    "/socket.io/%2e%2e/ROUTE",
    "/index.html/../ROUTE",
    "/session/../ROUTE",
    "/%c0%ae%c0%ae/ROUTE",
    "/%e0%80%afROUTE",
    "/%u002fROUTE",
    "http://localhost/ROUTE",
    "http://localhost//ROUTE",
    "http://localhost/%2e%2e/ROUTE",
    "ROUTE",
    "*ROUTE",
    "/ROUTE\t",
];

/// Files of the daemon, of its folder and of the machine.
const FILES: &[&str] = &[
    "/tokens.toml",
    "/store/tokens.toml",
    "/store/CURRENT",
    "/settings.toml",
    "/log",
    "/.git/config",
    "/.env",
    "/Cargo.toml",
    "/etc/passwd",
    "/proc/self/environ",
];
const CLIMBS: &[&str] = &[
    "",
    "/..",
    "/../../../../../../../..",
    "/%2e%2e",
    "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e",
    "/..%2f..%2f..%2f..%2f..%2f..",
    "/..%252f..%252f..%252f..",
    "/..\\..\\..\\..",
    "/..%5c..%5c..%5c..",
    "/....//....//....//",
    "/%c0%ae%c0%ae/%c0%ae%c0%ae",
    "/app.js/..",
    "/health/live/../../..",
    "//",
    "/file:",
];

/// The path with its letters written otherwise.
fn rewritten(path: &str) -> [String; 5] {
    let first = path.chars().next().map_or(0, |it| it as u32);
    let rest = path.get(1..).unwrap_or_default();
    [
        path.to_owned(),
        path.to_uppercase(),
        format!("%{first:02x}{rest}"),
        format!("%25{first:02x}{rest}"),
        format!("%{first:02X}{rest}").replace('/', "%2F"),
    ]
}

fn status(answer: &str) -> u16 {
    raw::statuses(answer).first().copied().unwrap_or_default()
}

fn ask(port: u16, method: &str, path: &str, more: &str) -> String {
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n");
    raw::exchange(port, request)
}

#[test]
fn no_spelling_of_a_path_leads_past_a_check_or_to_a_file() {
    let node = super::node();
    let daemon = Daemon::with(&node, &[("metrics.listen", "127.0.0.1:0")]);
    let listen = daemon.get("/status").json["metrics_listen"][0].clone();
    let (_, metrics) = listen
        .as_str()
        .and_then(|it| it.rsplit_once(':'))
        .expect("an address");
    let metrics: u16 = metrics.parse().expect("a port");
    let [good, least] = [("good", "watch"), ("least", "metrics")]
        .map(|(name, scope)| daemon.token(&["new", "--name", name, "--scope", scope]));
    wait_until("the tokens are in force", || {
        let least = format!("Authorization: Bearer {least}\r\n");
        let is_on = status(&ask(daemon.port(), "GET", "/status", "")) == 401;
        (is_on && status(&ask(daemon.port(), "GET", "/status", &least)) == 403).then_some(())
    });
    let well_behaved = WellBehaved::with_token(&node, &daemon, Some(&good));
    let least = format!("Authorization: Bearer {least}\r\n");

    let others = "X-Original-URL: /health/live\r\nX-Rewrite-URL: /health/live\r\nX-HTTP-Method-Override: OPTIONS\r\n";
    for (method, route) in [
        ("GET", "status"),
        ("GET", "addresses"),
        ("POST", "stop"),
        ("GET", "consumers"),
        ("GET", "consumers/shop/dead_letters"),
    ] {
        let routes = rewritten(route);
        let paths = SPELLINGS
            .iter()
            .flat_map(|spelling| routes.iter().map(|route| spelling.replace("ROUTE", route)));
        for path in paths {
            for more in ["", &least, others] {
                let answer = ask(daemon.port(), method, &path, more);
                assert!(
                    (400..500).contains(&status(&answer)),
                    "{method} {path} {more}: {answer}"
                );
            }
            let answer = ask(metrics, method, &path, "");
            assert!(
                (400..500).contains(&status(&answer)),
                "{method} {path} at metrics.listen: {answer}"
            );
        }
    }
    let good = format!("Authorization: Bearer {good}\r\n");
    for (climb, file) in CLIMBS
        .iter()
        .flat_map(|it| FILES.iter().map(move |file| (it, file)))
    {
        let path = format!("{climb}{file}");
        // With a token, too: no route is a file.
        let answer = ask(daemon.port(), "GET", &path, &good);
        assert!((400..500).contains(&status(&answer)), "{path}: {answer}");
    }
    // What is meant to be open is.
    for path in ["/", "/health/live", "/health/ready"] {
        assert_eq!(status(&ask(daemon.port(), "GET", path, "")), 200, "{path}");
    }
    well_behaved.end();
}
