//! The commands and programs that README.md and contrib/docs show, run as they stand there: only
//! the address of the daemon and what stands for somebody's own (`bcrt1q...`, `CURSOR`,
//! `ID_OF_WALLET` …) are put in.
//!
//! Two other tests run the longer programs (`super::auth::clients`) and the lines for
//! `bitcoin.conf` (`super::remedies`, `super::doctor`).

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::common::node::free_port;
use super::common::{COIN, Daemon, Node, Program, repository, wait_until};

const SHOWN_AT: &str = "http://127.0.0.1:5005";

/// Commands that are not run here, and what runs them. What `satwatch watch` takes, `super::watch`
/// tries; a release is built for the benchmarks.
const ELSEWHERE: [(&str, &str); 11] = [
    (
        "regtest/up.sh",
        "regtest/demo_check.py, in contrib/check.sh",
    ),
    ("contrib/check.sh", "CI"),
    ("contrib/setup.sh build", "contrib/check.sh"),
    (
        "cargo build --release",
        "regtest/up.sh, with the same profile",
    ),
    ("target/release/satwatch doctor", "tests/daemon/doctor.rs"),
    ("target/release/satwatch", "every test of tests/daemon"),
    ("cp -a data data.before", "tests/daemon/copies.rs"),
    ("cargo test --lib", "contrib/check.sh"),
    ("cargo test --test tracker", "contrib/check.sh"),
    (
        "target/release/satwatch watch bc1q...",
        "tests/daemon/watch.rs",
    ),
    ("satwatch", "every test of tests/daemon"),
];

/// Of a document, a heading and the code blocks of this language below it.
fn sections(document: &str, language: &str) -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(repository().join(document)).expect("the document");
    let mut sections = vec![(String::new(), Vec::new())];
    let mut block: Option<(bool, String)> = None;
    for line in text.lines() {
        match (&mut block, line.strip_prefix("```")) {
            (Some((is_wanted, code)), Some(_)) => {
                if *is_wanted {
                    let code = std::mem::take(code);
                    sections.last_mut().expect("the first").1.push(code);
                }
                block = None;
            }
            (Some((_, code)), None) => *code += &format!("{line}\n"),
            (None, Some(found)) => block = Some((found == language, String::new())),
            (None, None) if line.starts_with('#') => sections.push((line.to_owned(), Vec::new())),
            (None, None) => {}
        }
    }
    sections.retain(|(_, blocks)| !blocks.is_empty());
    sections
}

/// A shell in which one section of a document is followed, beside a daemon of its own.
struct Shell {
    node: Node,
    daemon: Daemon,
    /// Assignments and exports so far, which each command begins with.
    variables: String,
    /// What is put in for what the document shows.
    shown: Vec<(&'static str, String)>,
}

impl Shell {
    fn new() -> Self {
        let node = Node::start();
        let daemon = Daemon::start(&node);
        let address = node.address();
        daemon.watch(&address);
        let mut shell = Self {
            node,
            daemon,
            variables: format!("A={address}\n"),
            shown: Vec::new(),
        };
        shell.shown.push((SHOWN_AT, shell.daemon.url()));
        shell.shown.push(("bcrt1q...", address));
        shell
    }

    fn follow(&mut self, section: &str, blocks: &[String]) {
        for line in blocks.iter().flat_map(|block| block.lines()) {
            // A comment stands behind two blanks.
            let command = line.split("  #").next().unwrap_or(line).trim();
            let is_watch = command.starts_with("satwatch watch ");
            let is_elsewhere = ELSEWHERE.iter().any(|(known, _)| *known == command) || is_watch;
            if !is_elsewhere && !command.is_empty() {
                self.run(section, command);
            }
        }
    }

    fn run(&mut self, section: &str, command: &str) {
        let mut command = command.to_owned();
        for (shown, own) in &self.shown {
            command = command.replace(shown, own);
        }
        if command.starts_with("A=") || command.starts_with("export ") {
            self.variables += &format!("{command}\n");
            return;
        }
        if command.contains("/events") {
            // So that there is something to come.
            self.pay();
        }
        let is_stream = command.starts_with("curl -N");
        let script = format!(
            "{}{}",
            self.variables,
            command.replace("curl -N", "curl -N --max-time 2")
        );
        let output = self.shell(&script);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let code = output.status.code();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        // 28: curl's word for the end of its time.
        let expected = if is_stream { Some(28) } else { Some(0) };
        assert_eq!(code, expected, "{section}: {command}\n{said}{errors}");
        if is_stream {
            assert!(said.contains("\nevent: new_transactions\n"), "{said}");
            let first = said.lines().find_map(|line| line.strip_prefix("id: "));
            self.shown
                .insert(0, ("CURSOR", first.expect("an id").to_owned()));
        }
        self.take(section, &command, &said);
    }

    fn pay(&self) {
        let address = self.variables.lines().next().expect("the first");
        self.node.pay(address.trim_start_matches("A="), COIN);
    }

    fn shell(&self, script: &str) -> Output {
        let mut command = Command::new("bash");
        let daemon = self.daemon.command_of(&[]);
        for (name, value) in daemon.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let folder = self.daemon.store().with_extension("at");
        fs::create_dir_all(&folder).expect("the folder is ours");
        let _ = symlink(env!("CARGO_BIN_EXE_satwatch"), folder.join("satwatch"));
        let prelude = "set -euo pipefail; PATH=$PWD:$PATH";
        command
            .args(["-c", &format!("{prelude}\n{script}")])
            .current_dir(folder)
            .stdin(Stdio::null());
        command.output().expect("bash")
    }

    /// What later commands of the section refer to.
    fn take(&mut self, section: &str, command: &str, said: &str) {
        if let Some(token) = said.split_whitespace().find(|word| word.starts_with("sw_")) {
            self.shown.insert(0, ("sw_…", token.to_owned()));
        }
        let Ok(answer) = serde_json::from_str::<Value>(said) else {
            return;
        };
        // A scan of regtest is over before anybody can cancel it.
        let is_late = answer["code"] == "scan_ended";
        assert!(
            answer["error"].is_null() || is_late,
            "{section}: {command}\n{said}"
        );
        if let Some(wallet) = answer["descriptor_id"].as_str() {
            // A reader has taken longer than the machine of a test in a hurry.
            wait_until("its past is known", || {
                let wallet = self.daemon.get(&format!("/descriptors/{wallet}")).json;
                (wallet["coverage"]["pending"] == false).then_some(())
            });
        }
        let cursor = answer["events"][0]["cursor"].as_str();
        for (shown, found) in [
            ("ID_OF_WALLET", answer["descriptor_id"].as_str()),
            ("ID_OF_SCAN", answer["scan_id"].as_str()),
            ("CURSOR", cursor.or(answer["cursor"].as_str())),
        ] {
            if let Some(found) = found {
                self.shown.insert(0, (shown, found.to_owned()));
            }
        }
    }
}

fn every_command_of(document: &str) -> usize {
    let sections = sections(document, "sh");
    for (section, blocks) in &sections {
        Shell::new().follow(&format!("{document} {section}"), blocks);
    }
    sections.len()
}

#[test]
fn the_commands_of_readme_can_be_followed() {
    assert_eq!(every_command_of("README.md"), 3);
}

#[test]
fn the_commands_of_the_api_guide_can_be_followed() {
    assert_eq!(every_command_of("contrib/docs/api.md"), 7);
}

#[test]
fn the_commands_of_other_documents_can_be_followed() {
    for (document, sections) in [
        ("troubleshooting", 2),
        ("upgrading", 1),
        ("architecture", 1),
    ] {
        let document = format!("contrib/docs/{document}.md");
        assert_eq!(every_command_of(&document), sections, "{document}");
    }
}

#[test]
fn the_commands_for_tokens_and_tls_can_be_followed() {
    let sections = sections("contrib/docs/running.md", "sh");
    let names: Vec<_> = sections.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["## With your node", "## Tokens", "## TLS"]);
    for (section, blocks) in &sections[..2] {
        Shell::new().follow(section, blocks);
    }
    let mut shell = Shell::new();
    shell.daemon.stop();
    let [before, elsewhere] = &sections[2].1[..] else {
        panic!("two blocks");
    };
    let (before, start) = before.trim().rsplit_once('\n').expect("some lines");
    let port = free_port().to_string();
    let start = start.replace("5005", &port);
    // The name is found by the router, which the test has none of.
    let asked = elsewhere
        .replace("5005", &port)
        .replace("sw_…", "$TOKEN")
        .replace(
            "curl ",
            &format!("curl --silent --retry 20 --retry-connrefused --resolve satwatch.lan:{port}:127.0.0.1 "),
        );
    let script = format!(
        "{{ {before}\n}} > said\nTOKEN=$(grep -o 'sw_[^ ]*' said | head -1)\n{start} & pid=$!\ntrap 'kill $pid; wait $pid' EXIT\n{asked}"
    );
    let output = shell.shell(&script);
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{said}\n{errors}");
    let status: Value = serde_json::from_str(&said).expect("the status");
    assert_eq!(status["network"], "regtest", "{said}");
}

/// The first block of JavaScript below a heading, for this daemon, with what it takes for granted.
fn javascript(daemon: &Daemon, document: &str, heading: &str, before: &str) -> String {
    let sections = sections(document, "js");
    let found = sections.iter().find(|(name, _)| name == heading);
    let block = &found.expect("the heading").1[0];
    format!("{before}{block}").replace(SHOWN_AT, &daemon.url())
}

#[test]
fn the_javascript_of_readme_and_of_consumers_works() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    let folder = tempfile::tempdir().expect("a folder");
    let run = |name: &str, text: String| {
        let file = folder.path().join(name);
        fs::write(&file, text).expect("the folder is ours");
        Program::node(&file.display().to_string(), &[&address])
    };
    let heading = "## Three examples";
    let shown = run("shown.js", javascript(&daemon, "README.md", heading, ""));
    let has = format!("{address} has 0 BTC");
    shown.line("the balance", |line| (line == has).then_some(()));
    daemon.request("PUT", "/consumers/shop", &[], None);
    let before = format!(
        "const {{ io }} = require('socket.io-client');\nconst socket = io('{SHOWN_AT}');\nconst bookPayment = (data) => console.log('booked', data.delta);\n"
    );
    let heading = "## Named consumers";
    let text = javascript(&daemon, "contrib/docs/api.md", heading, &before);
    let consumer = run("consumer.js", text);
    node.pay(&address, COIN);
    shown.line("the payment", |line| line.ends_with("1 BTC").then_some(()));
    consumer.line("it is booked", |line| {
        (line == "booked 100000000").then_some(())
    });
}
