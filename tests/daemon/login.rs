//! The web page of a daemon with tokens, in a real browser: logging in and out, and what others on
//! this machine gain by the session of a person who has.

use serde_json::{Value, json};

use crate::common::node::free_port;
use crate::common::{Daemon, Node, Program};

struct Browser(Program);

impl Browser {
    fn open(daemon: &Daemon, words: &[&str]) -> Self {
        let url = format!("{}/", daemon.url());
        Self(Program::node("login.mjs", &[&[&*url], words].concat()))
    }

    fn wait_for(&self, mark: &str) {
        self.0.line(mark, |line| (line == mark).then_some(()));
    }

    fn seen(mut self) -> Value {
        let seen = self.0.line("what it saw", |line| {
            serde_json::from_str::<Value>(line)
                .ok()
                .filter(Value::is_object)
        });
        self.0.ends_well();
        seen
    }
}

/// The text alone of a new token.
fn new_token(daemon: &Daemon, name: &str, scope: &str) -> String {
    let printed = daemon.token(&["new", "--name", name, "--scope", scope]);
    let token = printed.trim();
    assert!(token.starts_with("sw_"), "{printed}");
    // An answer without a token may be cut when the daemon notices, so its log is asked.
    crate::common::wait_until("the first token is in force", || {
        daemon.log().contains("authentication is on").then_some(())
    });
    token.to_owned()
}

#[test]
fn a_session_of_the_page_lasts_until_it_is_ended_by_its_person_or_with_its_token() {
    let node = Node::start();
    // The same port again, as in real life.
    let listen = format!("127.0.0.1:{}", free_port());
    let mut daemon = Daemon::with(&node, &[("server.listen", &listen)]);
    let token = new_token(&daemon, "browser", "watch");
    let browser = Browser::open(&daemon, &[&token, &node.address()]);
    browser.wait_for("RESTART");
    daemon.stop();
    daemon.restart();
    browser.wait_for("REVOKE");
    daemon.token(&["revoke", "browser"]);
    let seen = browser.seen();
    assert_eq!(seen["who"], "Logged in as browser (scope watch)");
    let elsewhere = seen["elsewhere"].as_str().unwrap_or_default();
    assert!(elsewhere.contains("another tab"), "{seen:#}");
    let revoked = seen["revoked"].as_str().unwrap_or_default();
    assert!(revoked.contains("was revoked or has expired"), "{seen:#}");
    // What the session was is nowhere in the clear.
    assert!(!daemon.log().contains(&token));
}

#[test]
fn the_page_says_what_a_token_may_not_do() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[]);
    let address = node.address();
    daemon.watch(&address);
    let stopped = daemon.request("POST", "/stop", &[], None);
    assert_eq!(stopped.status, 200, "{}", stopped.text);
    let token = new_token(&daemon, "wall", "read");
    let seen = Browser::open(&daemon, &[&token, &address, "--read"]).seen();
    assert_eq!(seen["who"], "Logged in as wall (scope read)");
    assert_eq!(seen["disabled"], json!([true, true, true]), "{seen:#}");
    let said = |name: &str| seen[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        said("add"),
        "Your token has scope read; adding addresses needs one of scope watch."
    );
    assert!(
        said("start").ends_with("has scope read; starting it needs one of scope admin."),
        "{seen:#}"
    );
}

#[test]
fn the_page_says_when_its_token_expires_and_asks_for_another() {
    let (node, folder) = (Node::start(), tempfile::tempdir().expect("a folder"));
    let daemon = Daemon::with(&node, &[]);
    new_token(&daemon, "stays", "read");
    let (file, written) = (folder.path().join("token"), folder.path().join("new"));
    let file = file.display().to_string();
    let browser = Browser::open(&daemon, &[&file, &node.address(), "--expires"]);
    browser.wait_for("TOKEN");
    let short = ["new", "--name", "short", "--scope", "read", "--expires"];
    let token = daemon.token(&[&short[..], &["15s"]].concat());
    std::fs::write(&written, token).expect("the folder is ours");
    std::fs::rename(&written, &file).expect("the folder is ours");
    let seen = browser.seen();
    let expired = seen["expired"].as_str().unwrap_or_default();
    assert!(expired.contains("has expired. Log in again"), "{seen:#}");
}

/// Neither reads the log without its session, nor logs the other out.
#[test]
fn two_daemons_in_folders_of_one_listed_origin_have_a_session_each() {
    let (node, port) = (Node::start(), free_port());
    let origin = format!("http://shop.example:{}", free_port());
    let daemons = ["127.0.0.1", "127.0.0.2"].map(|host| {
        let listen = format!("{host}:{port}");
        let settings = [
            ("server.listen", &*listen),
            ("server.allowed_origins", &origin),
        ];
        (Daemon::with(&node, &settings), listen)
    });
    let tokens = ["one", "two"].into_iter().zip(&daemons);
    let tokens: Vec<_> = tokens
        .map(|(name, (daemon, _))| new_token(daemon, name, "read"))
        .collect();
    let (_, at) = origin.rsplit_once(':').expect("a port");
    let [(_, first), (_, second)] = &daemons;
    let args = [at, first, &tokens[0], second, &tokens[1]];
    let seen = Browser(Program::node("login_proxied.mjs", &args)).seen();
    let who = ["one", "two"].map(|name| format!("Logged in as {name} (scope read)"));
    assert_eq!(seen["who"], json!(who), "{seen:#}");
    assert_eq!(
        seen["keys"],
        json!(["satwatch.page_key/a", "satwatch.page_key/b"])
    );
}

/// Browsers send a cookie to every port of its host.
#[test]
fn another_port_of_the_host_gains_nothing_by_a_session() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[]);
    let token = new_token(&daemon, "browser", "admin");
    let seen = Browser::open(&daemon, &[&token, &node.address(), "--others"]).seen();
    assert_eq!(seen["cookie"], true, "it is handed to the other server");
    let refused = "44{\"message\":";
    for how in ["fetch", "withoutCors", "key", "add", "logIn", "logOut"] {
        assert_eq!(seen["page"][how], "hidden", "{how}: {seen:#}");
    }
    for (by, how, status) in [
        ("page", "form", 401),
        ("page", "without", 401),
        ("page", "logInWithout", 403),
        ("page", "stored", 0),
        ("server", "status", 401),
        ("server", "addresses", 401),
        ("server", "start", 401),
        ("server", "bearer", 401),
        // Nobody is logged out by it, which the browser looks at.
        ("server", "out", 200),
        ("server", "both", 200),
    ] {
        assert_eq!(seen[by][how], status, "{how} by {by}: {seen:#}");
    }
    for (by, how) in [
        ("page", "webSocket"),
        ("page", "polling"),
        ("server", "polling"),
        ("server", "guessed"),
    ] {
        let text = seen[by][how].as_str().unwrap_or_default();
        assert!(
            text.starts_with(refused) && text.contains("\"unauthorized\""),
            "{how} by {by}: {seen:#}"
        );
    }
    assert_eq!(seen["server"]["bothPolling"], "40", "{seen:#}");
    let bearer = format!("Bearer {token}");
    let answer = daemon.request("GET", "/addresses", &[("Authorization", &bearer)], None);
    assert_eq!(answer.json["total"], 0, "{}", answer.text);
}
