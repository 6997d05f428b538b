//! A tokens file that is not as the daemon left it (lost, damaged, older, another daemon's, of
//! another user), and what `satwatch token`, a start, `--check`, `doctor` and the log say of it.
//! All its states are in `src/auth/judge.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use satwatch::auth::{self, Scope, TokenText, TokensFile};
use satwatch::clock::now_ms;
use satwatch::remedy::Remedy;
use satwatch::store::AuthMark;

use super::limits::lines;
use crate::common::{Daemon, Node, wait_until};

impl Daemon {
    fn tokens_file(&self) -> PathBuf {
        self.store().join("tokens.toml")
    }

    /// What a `satwatch token …` says that does what it is told.
    fn token_says(&self, words: &[&str]) -> String {
        let output = self.try_token(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        said
    }

    /// Neither of these changes the file, and each says why.
    fn tokens_are_left(&self, commands: &[&[&str]], why: &str) {
        let before = fs::read(self.tokens_file()).ok();
        for words in commands {
            let output = self.try_token(words);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
            assert!(said.contains(why), "{words:?}: {said}");
            let path = self.tokens_file().display().to_string();
            assert!(said.contains(&path), "{words:?}: {said}");
        }
        assert_eq!(fs::read(self.tokens_file()).ok(), before);
    }

    fn wait_problem(&self, token: &str) {
        wait_until("it has noticed", || {
            let status = self.get_as(token, "/status").json;
            status["authentication"]["problem"].as_str().map(drop)
        });
    }

    /// What `--check` says, and with which code.
    fn checked(&self) -> (Option<i32>, String) {
        let output = self.command_of(&["--check"]).output().expect("it is built");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    }

    fn doctor_says(&self) -> String {
        let output = self.command_of(&["doctor"]).output().expect("it is built");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

const NEW: &[&str] = &["new", "--name", "new", "--scope", "admin"];
const ANEW: &[&str] = &["new", "--anew", "--name", "anew", "--scope", "admin"];

#[test]
fn a_lost_or_damaged_file_is_put_back_or_begun_anew() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let token = daemon.new_token("me", "admin");
    daemon.wait_status("", 401);
    let path = daemon.tokens_file();
    let whole = fs::read_to_string(&path).expect("it is there");
    let remedy = Remedy::BeginTokensAnew.to_string();
    let commands = [NEW, &["revoke", "me"], &["off"], &["accept"]];
    for wrong in [None, Some(""), Some(&whole[..whole.len() - 5])] {
        match wrong {
            None => fs::remove_file(&path).expect("the folder is ours"),
            Some(text) => fs::write(&path, text).expect("the folder is ours"),
        }
        // What was in force stays, whatever is tried.
        daemon.wait_problem(&token);
        daemon.tokens_are_left(&commands, &remedy);
        assert_eq!(daemon.get("/status").status, 401);
        daemon.stop();
        let said = daemon.refused(1);
        assert!(said.contains(&remedy), "{said}");
        assert_eq!(daemon.checked().0, Some(1));
        assert!(daemon.doctor_says().contains(&remedy));
        fs::write(&path, &whole).expect("the folder is ours");
        daemon.tokens_are_left(&[ANEW], "is good");
        daemon.restart();
        daemon.wait_status(&token, 200);
    }
    // Begun anew beside the daemon, and before a start.
    fs::remove_file(&path).expect("the folder is ours");
    daemon.wait_problem(&token);
    let said = daemon.token_says(ANEW);
    assert!(
        said.contains("Every other token") && said.contains("has taken it"),
        "{said}"
    );
    assert!(!said.contains("first token"), "{said}");
    daemon.wait_status(&token, 401);
    assert_eq!(daemon.get("/status").status, 401);
    daemon.stop();
    fs::write(&path, "broken").expect("the folder is ours");
    let output = daemon.try_token(ANEW);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("No daemon runs on"), "{said}");
    let aside = said
        .split("is kept as ")
        .nth(1)
        .and_then(|it| it.split(".\n").next());
    let aside = aside.unwrap_or_else(|| panic!("{said}"));
    assert_eq!(fs::read_to_string(aside).expect("it is kept"), "broken");
    daemon.restart();
    let anew = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(daemon.get("/status").status, 401);
    assert_eq!(daemon.get_as(anew.trim(), "/status").status, 200);
    // Off, and back: neither is the first token.
    daemon.token(&["off"]);
    daemon.wait_status("", 200);
    let said = daemon.token_says(NEW);
    assert!(!said.contains("first token"), "{said}");
    daemon.wait_status("", 401);
    daemon.wait_status(anew.trim(), 200);
}

#[test]
fn an_older_file_is_refused_until_it_is_accepted() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let (stays, revoked) = (
        daemon.new_token("stays", "admin"),
        daemon.new_token("revoked", "read"),
    );
    daemon.wait_status("", 401);
    daemon.wait_status(&revoked, 200);
    let path = daemon.tokens_file();
    let copy = fs::read(&path).expect("it is there");
    daemon.token(&["revoke", "revoked"]);
    daemon.wait_status(&revoked, 401);
    let newest = fs::read(&path).expect("it is there");
    fs::write(&path, &copy).expect("the folder is ours");
    daemon.wait_problem(&stays);
    let remedy = Remedy::AcceptTokens.to_string();
    let commands = [NEW, ANEW, &["revoke", "stays"], &["off"]];
    daemon.tokens_are_left(&commands, &remedy);
    assert_eq!(daemon.get_as(&revoked, "/status").status, 401);
    daemon.stop();
    let said = daemon.refused(1);
    assert!(said.contains(&remedy), "{said}");
    daemon.tokens_are_left(&commands, &remedy);
    assert!(daemon.token_says(&["list"]).contains(&remedy));
    // The newer one is put back.
    fs::write(&path, &newest).expect("the folder is ours");
    daemon.restart();
    assert_eq!(daemon.get_as(&revoked, "/status").status, 401);
    fs::write(&path, &copy).expect("the folder is ours");
    daemon.wait_problem(&stays);
    let said = daemon.token_says(&["accept"]);
    assert!(said.contains("has taken it"), "{said}");
    daemon.wait_status(&revoked, 200);
}

#[test]
fn the_file_of_another_daemon_is_refused_until_it_is_accepted() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let ours = daemon.new_token("ours", "admin");
    daemon.wait_status(&ours, 200);
    let (theirs, said) = {
        let words = [&["--data-dir", "other"], NEW].concat();
        let output = daemon.try_token(&words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        (
            String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            said,
        )
    };
    // As one finds out who has run it in the wrong folder.
    let other = daemon.store().with_file_name("other").join("tokens.toml");
    assert!(said.contains(&other.display().to_string()), "{said}");
    assert!(said.contains("There is no store"), "{said}");
    fs::copy(&other, daemon.tokens_file()).expect("the folder is ours");
    daemon.wait_problem(&ours);
    let remedy = Remedy::AcceptTokens.to_string();
    daemon.tokens_are_left(&[NEW, &["revoke", "new"], &["off"]], &remedy);
    assert_eq!(daemon.get_as(&theirs, "/status").status, 401);
    daemon.token(&["accept"]);
    daemon.wait_status(&theirs, 200);
    daemon.wait_status(&ours, 401);
}

#[test]
fn the_command_says_whether_a_daemon_has_taken_the_file() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let said = daemon.token_says(&["new", "--name", "a", "--scope", "read"]);
    let path = daemon.tokens_file().display().to_string();
    assert!(
        said.contains("first token") && said.contains(&path),
        "{said}"
    );
    assert!(said.contains("The daemon has taken it."), "{said}");
    assert_eq!(daemon.get("/status").status, 401, "as it was said");
    daemon.stop();
    let said = daemon.token_says(&["revoke", "a"]);
    assert!(said.contains("No daemon runs on"), "{said}");
    daemon.restart();
    daemon.set("auth.tokens_file", "elsewhere.toml");
    let output = daemon.try_token(ANEW);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("elsewhere.toml, so nothing has changed there"),
        "{said}"
    );
    assert_eq!(daemon.get("/status").status, 401);
}

#[test]
fn a_daemon_that_stays_on_takes_away_what_a_newer_file_lacks() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    daemon.stop();
    let [lost, stays] = ["lost", "stays"].map(|name| daemon.new_token(name, "admin"));
    // Others reach it by what only its service knows.
    daemon.set("server.listen", "0.0.0.0:0");
    daemon.restart();
    daemon.set("server.listen", "127.0.0.1:0");
    daemon.wait_status(&lost, 200);
    let goes_on = "goes on asking for tokens";
    for words in [&["off"][..], &["revoke", "lost"]] {
        let said = daemon.token_says(words);
        assert!(said.contains(goes_on), "{words:?}: {said}");
    }
    assert_eq!(
        daemon.get_as(&lost, "/status").status,
        401,
        "as it was said"
    );
    assert_eq!(daemon.get_as(&stays, "/status").status, 200);
    assert_eq!(daemon.get("/status").status, 401);
    let said = daemon.token_says(NEW);
    assert!(said.contains("has taken it"), "{said}");
    assert_eq!(daemon.get_as(&stays, "/status").status, 200);
}

#[test]
fn the_log_tells_of_a_change_who_it_concerns_and_of_a_start_who_may_come_in() {
    let node = Node::start();
    let mut daemon = Daemon::with(&node, &[("log.format", "json")]);
    assert!(daemon.log().contains("there never was a token"));
    let token = daemon.new_token("shop", "read");
    daemon.wait_status(&token, 200);
    let session = {
        let client = super::auth::client("js", &daemon, &token, ["auth", "websocket"]);
        client.event("connected", |_| true);
        client
    };
    daemon.token(&[
        "new",
        "--name",
        "short",
        "--scope",
        "read",
        "--expires",
        "1s",
    ]);
    let of_file = |daemon: &Daemon| -> Vec<String> {
        let lines = lines(daemon).into_iter();
        let lines = lines.filter(|line| line["what"] == "tokens file");
        let text = |line: serde_json::Value| line["concerns"].as_str().map(str::to_owned);
        lines.filter_map(text).collect()
    };
    daemon.token(&["revoke", "shop"]);
    session.event("disconnect", |_| true);
    wait_until("the expiry has its line", || {
        let mut lines = lines(&daemon).into_iter();
        lines.find(|line| line["who"] == "short" && line["outcome"] == "expired")
    });
    assert_eq!(
        of_file(&daemon),
        [
            "made shop; sessions ended: 0, requests ended: 0",
            "made short; sessions ended: 0, requests ended: 0",
            "revoked shop; sessions ended: 1, requests ended: 0",
        ]
    );
    let on = |daemon: &Daemon| daemon.log().matches("authentication is on").count();
    assert_eq!(on(&daemon), 1, "it was switched on once");
    daemon.stop();
    daemon.restart();
    // The log of this start.
    assert_eq!(on(&daemon), 1, "{}", daemon.log());
    assert!(
        daemon.log().contains("\"live\":0,\"expired\":1"),
        "{}",
        daemon.log()
    );
    daemon.token(&["off"]);
    daemon.wait_status("", 200);
    let said = |outcome: &str| lines(&daemon).iter().any(|line| line["outcome"] == outcome);
    assert!(said("off") && !said("expired"), "an old expiry is no news");
    daemon.stop();
    daemon.restart();
    let warned = |line: &&str| line.contains("authentication is off, as the tokens file");
    let log = daemon.log();
    let line = log.lines().find(warned).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("WARN"), "{line}");
}

#[test]
fn a_token_that_ends_soon_is_said_until_there_is_another_one() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    daemon.stop();
    let remedy = Remedy::AnotherToken.to_string();
    const DAY: u64 = 86_400_000;
    let (now, path) = (now_ms(), daemon.tokens_file());
    let made = auth::change(&path, AuthMark::default(), now, |_| {
        let (text, mut file) = (TokenText::random(), TokensFile::default());
        let (made, ends) = (now - 88 * DAY, (now + 2 * DAY) / 1000);
        file.add("soon", Scope::Read, &text, Some(ends), made)?;
        Ok((file, ()))
    });
    made.expect("the folder is ours");
    daemon.restart();
    wait_until("the log says so", || {
        daemon.log().contains("token soon ends on").then_some(())
    });
    daemon.stop();
    let said = daemon.doctor_says();
    assert!(said.contains(" BAD  tokens: soon ends on"), "{said}");
    assert!(said.contains(&remedy), "{said}");
    daemon.new_token("another", "read");
    daemon.token(&["revoke", "soon"]);
    let said = daemon.doctor_says();
    assert!(
        !said.contains(&remedy) && said.contains("1 that are good"),
        "{said}"
    );
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
}

#[test]
fn credentials_that_others_may_read_or_change_are_named() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    daemon.stop();
    let first = daemon.store().with_file_name("first");
    daemon.set("auth.first_token_file", &first.display().to_string());
    fs::write(&first, daemon.token(&["generate"])).expect("the folder is ours");
    let named = |daemon: &Daemon, path: &Path, mode: u32, is_named: bool| {
        set_mode(path, mode);
        let remedy = Remedy::CloseFile {
            path: path.to_owned(),
        };
        let remedy = remedy.to_string();
        let (code, said) = daemon.checked();
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said.contains(&remedy), is_named, "{mode:o}: {said}");
        let said = daemon.doctor_says();
        assert_eq!(said.contains(&remedy), is_named, "{mode:o}: {said}");
    };
    for mode in [0o644, 0o620, 0o602] {
        named(&daemon, &first, mode, true);
    }
    daemon.restart();
    let said = "may read or change the token in";
    assert_eq!(daemon.log().matches(said).count(), 1, "{}", daemon.log());
    daemon.stop();
    for mode in [0o600, 0o400, 0o440] {
        named(&daemon, &first, mode, false);
    }
    let file = daemon.tokens_file();
    for (mode, is_named) in [(0o660, true), (0o606, true), (0o644, false), (0o600, false)] {
        named(&daemon, &file, mode, is_named);
    }
}

#[test]
fn files_of_another_user_are_named_and_given_to_who_runs_satwatch() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    daemon.stop();
    let folder = daemon.store().with_file_name("roots");
    daemon.set("store.path", &folder.display().to_string());
    daemon.new_token("me", "admin");
    set_mode(folder.parent().expect("it has one"), 0o755);
    let as_nobody = |words: &[&str]| {
        let command = daemon.command_of(words);
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        nobody.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => nobody.env(name, value),
                None => nobody.env_remove(name),
            };
        }
        nobody.current_dir(folder.parent().expect("it has one"));
        let output = nobody.output().expect("setpriv can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let file = folder.join("tokens.toml");
    let (check, new) = (&["--check"][..], &[&["token"], NEW].concat()[..]);
    // As root leaves it that runs the command before the first start, and what may come of that.
    for (path, commands) in [
        (&folder, &[check, new][..]),
        (&file, &[check]),
        (&folder.join("tokens.toml.lock"), &[new]),
    ] {
        std::os::unix::fs::chown(path, Some(0), None).expect("as root");
        let remedy = Remedy::GiveTo {
            path: path.clone(),
            owner: 0,
            user: 65534,
        };
        let remedy = remedy.to_string();
        for words in commands {
            let (code, said) = as_nobody(words);
            assert_eq!(code, Some(1), "{words:?}: {said}");
            assert!(said.contains(&remedy), "{words:?}: {said}");
            assert!(
                !said.contains("--anew") && !said.contains("token off"),
                "{said}"
            );
        }
        let line = remedy.split("to this one: ").nth(1).expect("a line");
        let given = Command::new("sh").args(["-c", line]).status();
        assert!(given.expect("sh can be run").success(), "{line}");
    }
    let (code, said) = as_nobody(new);
    assert_eq!(code, Some(0), "{said}");
    set_mode(&file, 0o200);
    let (_, said) = as_nobody(check);
    let remedy = Remedy::CloseFile { path: file }.to_string();
    assert!(said.contains(&remedy), "{said}");
    // Nothing is left that the owner of the folder could not read.
    let (theirs, gone) = (
        folder.with_file_name("theirs"),
        folder.with_file_name("theirs/tokens.toml"),
    );
    fs::create_dir(&theirs).expect("ours");
    set_mode(&theirs, 0o777);
    std::os::unix::fs::chown(&theirs, Some(1), None).expect("as root");
    let words = [new, &["--data-dir", "theirs"]].concat();
    let (code, said) = as_nobody(&words);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("belongs to another user") && !gone.exists(),
        "{said}"
    );
}
