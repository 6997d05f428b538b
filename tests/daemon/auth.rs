//! Tokens as people use them: `satwatch token` beside a running daemon and before its start, REST,
//! and the stock clients of both languages. What each scope may is in `src/api/tests/auth.rs`; what
//! becomes of a file that is not as it was left, in `tokens_file.rs`.

pub mod clients;

use std::fs;
use std::process::Output;

use satwatch::remedy::Remedy;
use serde_json::Value;

use crate::common::{Answer, Daemon, Node, wait_until};
pub use clients::client;

impl Daemon {
    /// `satwatch token …` with this daemon's settings: what it prints.
    pub fn token(&self, words: &[&str]) -> String {
        let output = self.try_token(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.trim().to_owned()
    }

    pub fn try_token(&self, words: &[&str]) -> Output {
        let words = [&["token"], words].concat();
        self.command_of(&words)
            .output()
            .expect("cargo has built the binary")
    }

    pub fn new_token(&self, name: &str, scope: &str) -> String {
        self.token(&["new", "--name", name, "--scope", scope])
    }

    pub fn get_as(&self, token: &str, path: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        self.request("GET", path, &[("Authorization", &bearer)], None)
    }

    pub fn wait_status(&self, token: &str, status: u16) {
        wait_until("the daemon has taken the file", || {
            (self.get_as(token, "/status").status == status).then_some(())
        });
    }

    /// What a start says that is refused.
    pub fn refused(&self, code: i32) -> String {
        let output = self.second();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    }
}

#[test]
fn a_token_expires_by_itself_and_authentication_stays() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let token = daemon.token(&[
        "new",
        "--name",
        "short",
        "--scope",
        "admin",
        "--expires",
        "4s",
    ]);
    daemon.wait_status(&token, 200);
    let program = client("js", &daemon, &token, ["auth", "websocket"]);
    program.event("connected", |_| true);
    let told = program.event("refused", |_| true);
    program.event("disconnect", |_| true);
    let refused = daemon.get_as(&token, "/status");
    assert_eq!(
        (refused.status, &refused.json["code"]),
        (401, &Value::from("unauthorized"))
    );
    assert_eq!(told, refused.json, "over Socket.IO as over REST");
    assert_eq!(
        refused.headers["www-authenticate"],
        "Bearer realm=\"satwatch\""
    );
    assert!(daemon.token(&["list"]).contains("has expired"));
    daemon.stop();
    daemon.restart();
    assert_eq!(daemon.get("/status").status, 401);
    // Under the same name, since the other one is over.
    let token = daemon.new_token("short", "admin");
    daemon.wait_status(&token, 200);
}

/// What the list says of a token.
fn line(daemon: &Daemon, name: &str) -> String {
    let list = daemon.token(&["list"]);
    let line = list
        .lines()
        .find(|line| line.contains(&format!(" {name} ")));
    line.unwrap_or_else(|| panic!("{name} is not in\n{list}"))
        .to_owned()
}

#[test]
fn tokens_are_listed_with_their_last_use_and_revoked_by_name_or_id() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let (used, unused) = (
        daemon.new_token("used", "read"),
        daemon.new_token("unused", "watch"),
    );
    daemon.wait_status("", 401);
    daemon.wait_status(&used, 200);
    wait_until("its use is remembered", || {
        (!line(&daemon, "used").ends_with("never")).then_some(())
    });
    assert!(line(&daemon, "unused").ends_with("never"));
    let file = fs::read_to_string(daemon.store().join("tokens.toml")).expect("it is there");
    assert!(!file.contains(&used) && !file.contains(&unused), "{file}");
    let id = line(&daemon, "unused")
        .split(' ')
        .next()
        .expect("an id")
        .to_owned();
    daemon.token(&["revoke", &id]);
    let again = daemon.try_token(&["revoke", "unused"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("satwatch token list shows"));
    let twice = daemon.try_token(&["new", "--name", "used", "--scope", "read"]);
    assert!(!twice.status.success(), "a live token has this name");
    daemon.wait_status(&unused, 401);
    daemon.stop();
    assert!(
        !line(&daemon, "used").ends_with("never"),
        "kept over the stop"
    );
}

#[test]
fn others_are_listened_to_once_there_is_a_token() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    daemon.stop();
    let remedy = Remedy::TokenOrLoopback { port: 0 }.to_string();
    daemon.set("server.listen", "0.0.0.0:0");
    let said = daemon.refused(2);
    assert!(said.contains(&remedy), "{said}");
    let checked = daemon
        .command_of(&["--check"])
        .output()
        .expect("cargo has built the binary");
    assert_eq!(checked.status.code(), Some(2));
    let token = daemon.new_token("me", "admin");
    let checked = daemon
        .command_of(&["--check"])
        .output()
        .expect("cargo has built the binary");
    assert!(checked.status.success(), "{checked:?}");
    daemon.restart();
    assert_eq!(daemon.get("/status").status, 401);
    daemon.wait_status(&token, 200);
    // Not while others reach it: neither by the command, nor by a file from elsewhere.
    let off = daemon.try_token(&["off"]);
    assert!(!off.status.success());
    daemon.stop();
    daemon.set("server.listen", "127.0.0.1:0");
    daemon.token(&["off"]);
    daemon.set("server.listen", "0.0.0.0:0");
    assert!(daemon.refused(2).contains(&remedy));
    // The other line.
    daemon.set("server.listen", "127.0.0.1:0");
    daemon.restart();
    assert_eq!(daemon.get("/status").status, 200);
}

#[test]
fn the_first_token_may_come_from_the_service_manager() {
    let (node, credentials) = (Node::start(), tempfile::tempdir().expect("a folder"));
    let variable = format!("CREDENTIALS_DIRECTORY={}", credentials.path().display());
    let mut daemon = Daemon::launched_by(&["env", &variable], &node, &[]);
    daemon.stop();
    let file = credentials.path().join("satwatch_first_token");
    // One that cannot be looked at is not overlooked.
    std::os::unix::fs::symlink(&file, &file).expect("the folder is ours");
    let said = daemon.refused(2);
    let remedy = Remedy::GenerateFirstToken.to_string();
    assert!(said.contains(&remedy), "{said}");
    fs::remove_file(&file).expect("the folder is ours");
    let token = daemon.token(&["generate"]);
    fs::write(&file, &token).expect("the folder is ours");
    daemon.restart();
    assert_eq!(daemon.get_as(&token, "/token").json["name"], "first");
    assert_eq!(daemon.get("/status").status, 401);
}

#[test]
fn the_first_token_comes_from_a_file_once_a_store() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    daemon.stop();
    let first = daemon.store().with_file_name("first");
    daemon.set("auth.first_token_file", &first.display().to_string());
    daemon.set("server.listen", "0.0.0.0:0");
    for wrong in [None, Some("sw_nonsense")] {
        if let Some(text) = wrong {
            fs::write(&first, text).expect("the folder is ours");
        }
        let said = daemon.refused(2);
        assert!(
            said.contains(&Remedy::GenerateFirstToken.to_string()),
            "{said}"
        );
    }
    let token = daemon.token(&["generate"]);
    assert!(
        !daemon.store().join("tokens.toml").exists(),
        "nothing is kept"
    );
    fs::write(&first, format!("{token}\n")).expect("the folder is ours");
    daemon.restart();
    let told = daemon.get_as(&token, "/token").json;
    assert_eq!(
        (&told["name"], &told["scopes"][3]),
        (&"first".into(), &"admin".into())
    );
    assert_eq!(daemon.get("/status").status, 401);
    // Once: it is not asked for again, nor does it come back.
    fs::remove_file(&first).expect("the folder is ours");
    daemon.stop();
    daemon.restart();
    daemon.wait_status(&token, 200);
    fs::write(&first, &token).expect("the folder is ours");
    daemon.token(&["revoke", "first"]);
    daemon.wait_status(&token, 401);
    daemon.stop();
    daemon.restart();
    assert_eq!(daemon.get_as(&token, "/status").status, 401);
}

#[test]
fn two_who_change_the_file_at_once_both_have_their_way() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let tokens: Vec<String> = std::thread::scope(|scope| {
        let makers = (0..8).map(|n| {
            let daemon = &daemon;
            scope.spawn(move || daemon.new_token(&format!("n{n}"), "read"))
        });
        let makers: Vec<_> = makers.collect();
        makers
            .into_iter()
            .map(|it| it.join().expect("it is made"))
            .collect()
    });
    for token in &tokens {
        daemon.wait_status(token, 200);
    }
    assert_eq!(daemon.token(&["list"]).lines().count(), 1 + tokens.len());
}
