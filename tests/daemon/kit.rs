//! A node and a daemon for other people's tests: `regtest/up.sh --detach`, `regtest/down.sh`, and
//! the examples that use them, as their users run them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::program::{node_command, python_command};
use crate::common::repository;

const BIN: &str = env!("CARGO_BIN_EXE_satwatch");

fn script(name: &str, arguments: &[&str]) -> Output {
    let script = repository().join("regtest").join(name);
    let output = Command::new(script).args(arguments).output();
    output.expect("it can be run")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn ends_well(mut command: Command) {
    let output = command.env("SATWATCH_BIN", BIN).output().expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", said(&output));
}

#[test]
fn what_was_started_goes_on_until_it_is_ended() {
    let up = script("up.sh", &["--detach", "--json", "--bin", BIN]);
    assert!(up.status.success(), "{}", said(&up));
    let kit: Value = serde_json::from_slice(&up.stdout).expect("one JSON object");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let (url, folder) = (text(&kit["url"]), text(&kit["folder"]));
    let asked = crate::common::daemon::request("GET", &format!("{url}/health/ready"), &[], None);
    assert_eq!(asked.expect("it answers").status, 200);
    // One that has ended and waits for its parent has no command line.
    let alive = |pid: &Value| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline"));
        line.is_ok_and(|line| !line.is_empty())
    };
    assert!(alive(&kit["pid"]) && alive(&kit["node"]["pid"]));
    let down = script("down.sh", &[&folder]);
    assert!(down.status.success(), "{}", said(&down));
    assert!(!alive(&kit["pid"]) && !alive(&kit["node"]["pid"]));
    assert!(!Path::new(&folder).exists());
    // Nothing that somebody else has made is removed.
    let other = tempfile::tempdir().expect("a temporary folder can be made");
    for folder in [&folder, &other.path().display().to_string()] {
        let again = script("down.sh", &[folder]);
        assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    }
    assert!(other.path().exists());
    let wrong = script("up.sh", &["--json"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
}

#[test]
fn the_fixture_for_pytest_waits_for_a_payment() {
    let mut command = python_command();
    command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
    command.arg(repository().join("contrib/python/test_payment.py"));
    ends_well(command);
}

#[test]
fn the_test_for_node_waits_for_a_payment() {
    let mut command = node_command();
    command.arg("--test");
    command.arg(repository().join("contrib/js/payment.test.js"));
    ends_well(command);
}
