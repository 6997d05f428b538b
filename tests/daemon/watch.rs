//! `satwatch watch` beside a real node: what it prints, and what it says of daemons that it cannot
//! follow.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use satwatch::remedy::Remedy;
use serde_json::{Value, json};

use crate::common::program::python_command;
use crate::common::tls::Files;
use crate::common::{COIN, Daemon, Node, Program};

/// `satwatch watch` in a folder without settings.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_satwatch"));
    let variables = std::env::vars_os();
    for (name, _) in variables.filter(|(name, _)| name.to_string_lossy().starts_with("SATWATCH")) {
        command.env_remove(name);
    }
    command.current_dir(std::env::temp_dir());
    command.arg("watch").args(arguments);
    command
}

fn watch(arguments: &[&str]) -> Program {
    Program::of(command(arguments), "satwatch watch")
}

/// The same with a terminal of its own, which runs the command that follows.
const ON_TERMINAL: &str =
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

fn watch_on_terminal(arguments: &[&str]) -> Program {
    let inner = command(arguments);
    let mut outer = python_command();
    outer
        .args(["-c", ON_TERMINAL])
        .arg(inner.get_program())
        .args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    Program::of(outer, "satwatch watch on a terminal")
}

/// Names and cursors of what was printed as JSON, balances aside.
fn printed(program: &Program) -> Vec<(Value, Value)> {
    let lines = program.lines();
    let lines = lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let events = lines.filter(|line| line["event"] != "balance");
    events
        .map(|line| (line["event"].clone(), line["data"].clone()))
        .collect()
}

/// The log as `GET /events` has it.
fn logged(daemon: &Daemon, query: &str) -> Vec<(Value, Value)> {
    let page = daemon.get(&format!("/events?limit=1000&{query}"));
    let events = page.json["events"].as_array().expect("a list").iter();
    events
        .map(|entry| (entry["event"].clone(), entry["data"].clone()))
        .collect()
}

/// A daemon that has the same port after a restart.
fn with_port(node: &Node) -> Daemon {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let listen = free.expect("the system has a free port").to_string();
    Daemon::with(node, &[("server.listen", &listen)])
}

#[test]
fn watch_prints_each_event_once_over_kills_of_the_daemon() {
    let node = Node::start();
    let mut daemon = with_port(&node);
    let (address, other) = (node.address(), node.address());
    let mut program = watch(&["--url", &daemon.url(), &address, &other]);
    let balance = program.event("balance", |data| data["address"] == *address);
    assert_eq!(balance["balance"], 0, "what was not watched is added");
    program.event("balance", |data| data["address"] == *other);
    let coin = node.coin(5 * COIN);
    let first = node.send(&node.payment(&coin, &address, COIN));
    program.event("balance_change", |data| data["new_balance"] == COIN);
    // What it leaves over is a greater fee.
    let outputs = [(&*address, coin.satoshi - 50_000)];
    let second = node.send(&node.signed(std::slice::from_ref(&coin.outpoint), &outputs));
    program.event("transaction_update", |data| {
        data["txid"] == *first && data["replaced_by"] == *second
    });
    daemon.kill();
    node.pay(&other, COIN);
    node.mine(1);
    daemon.restart();
    program.event("transaction_update", |data| {
        data["txid"] == *second && data["status"] == "confirmed"
    });
    daemon.kill();
    daemon.restart();
    node.pay(&other, COIN);
    program.event("balance_change", |data| {
        data["address"] == *other && data["new_balance"] == 2 * COIN
    });
    let log = logged(&daemon, &format!("address={address}&address={other}"));
    assert!(log.len() >= 10, "{log:#?}");
    assert_eq!(printed(&program), log);
    let again = "connected again: what was missed comes first";
    let lines = program.lines();
    assert_eq!(
        lines.iter().filter(|line| *line == again).count(),
        2,
        "{lines:#?}"
    );
    let ended = program.interrupt();
    assert_eq!(ended.signal(), Some(2), "{ended}");
}

#[test]
fn watch_tells_people_in_words() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    let program = watch_on_terminal(&["--url", &daemon.url(), &address]);
    let says = |words: &str| {
        program.line(words, |line| line.contains(words).then_some(()));
    };
    says(&format!(
        "at {} follows regtest at height {}",
        daemon.url(),
        node.height()
    ));
    // What it had before is known at once, or a little later.
    says(&format!("{address} has 0.00000000 BTC (complete)"));
    let txid = node.pay(&address, COIN / 2);
    says(&format!("replaceable  {txid}"));
    says("UTC    +0.50000000 BTC  balance is 0.50000000 BTC, +0.50000000 of it unconfirmed");
    node.mine(1);
    let height = node.height();
    says(&format!(
        "UTC    +0.50000000 BTC  confirmed in block {height}  {txid}"
    ));
    assert!(!program.lines().iter().any(|line| line.starts_with('{')));
}

#[test]
fn watch_follows_a_wallet_as_one_thing() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let all = node.owner("listdescriptors", json!([]));
    let mut all = all["descriptors"].as_array().expect("a list").iter();
    let descriptor = all.find(|it| {
        it["desc"]
            .as_str()
            .is_some_and(|it| it.starts_with("wpkh("))
    });
    let descriptor = descriptor
        .and_then(|it| it["desc"].as_str())
        .expect("it has one");
    let program = watch(&["--url", &daemon.url(), descriptor]);
    let balance = program.event("balance", |_| true);
    let id = balance["descriptor_id"].as_str().expect("an id");
    let by_id = watch(&["--url", &daemon.url(), id, descriptor]);
    by_id.event("balance", |_| true);
    node.pay(&node.address(), COIN);
    for program in [&program, &by_id] {
        program.event("balance_change", |data| {
            data["descriptor_id"] == id && data["delta"] == COIN
        });
        assert_eq!(
            printed(program),
            logged(&daemon, &format!("descriptor={id}"))
        );
    }
}

#[test]
fn watch_says_what_cannot_be_told_and_when_nothing_is_left() {
    let node = Node::start();
    let mut daemon = with_port(&node);
    let address = node.address();
    daemon.watch(&address);
    daemon.stop();
    let (store, other) = (daemon.store(), daemon.store().with_extension("other"));
    daemon.set("store.path", &other.display().to_string());
    daemon.restart();
    let mut program = watch(&["--url", &daemon.url(), &address]);
    program.event("balance", |data| data["coverage"]["complete"] == true);
    node.pay(&address, COIN);
    program.event("balance_change", |_| true);
    daemon.stop();
    // Another log, which knows the address.
    daemon.set("store.path", &store.display().to_string());
    daemon.restart();
    program.line("what cannot be told", |line| {
        line.contains("What happened meanwhile is not told; now:")
            .then_some(())
    });
    node.pay(&address, COIN);
    program.event("balance_change", |data| data["new_balance"] == 2 * COIN);
    let path = format!("/addresses/{address}");
    let removed = daemon.request("DELETE", &path, &[], None);
    assert_eq!(removed.status, 200, "{}", removed.text);
    let said = program.ends(1);
    assert!(said.contains("\"event\":\"unwatched\""), "{said}");
    assert!(said.contains("nothing of it is watched any more"), "{said}");
}

/// What it says when it fails with 1.
fn failure(arguments: &[&str]) -> String {
    watch(arguments).ends(1)
}

#[test]
fn what_watch_says_of_a_daemon_that_it_cannot_follow_helps() {
    let node = Node::start();
    let mut daemon = with_port(&node);
    let (address, url) = (node.address(), daemon.url());
    let advises = |said: &str, remedy: &Remedy| {
        assert!(said.ends_with(&remedy.to_string()), "{remedy}: {said}");
    };
    daemon.stop();
    let said = failure(&["--url", &url, &address]);
    assert!(said.contains("Connection refused"), "{said}");
    advises(&said, &Remedy::StartDaemon);
    daemon.restart();
    watch(&["--url", &url, &address]).event("balance", |_| true);
    // Settings that name the port are enough.
    let of_settings = daemon.command_of(&["watch", &address]);
    Program::of(of_settings, "satwatch watch").event("balance", |_| true);

    for other in [node.rpc_url(), url.replace("http:", "https:")] {
        advises(&failure(&["--url", &other, &address]), &Remedy::NameDaemon);
    }
    let without_port = command(&[&address])
        .env("SATWATCH__SERVER__LISTEN", "127.0.0.1:0")
        .output();
    let said = String::from_utf8(without_port.expect("it runs").stderr).expect("text");
    advises(said.trim(), &Remedy::NameDaemon);

    let said = failure(&["--url", &url, "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"]);
    assert!(said.contains("send an address of regtest"), "{said}");
    let said = failure(&["--url", &url, "wpkh(nonsense)"]);
    assert!(said.contains("descriptor"), "{said}");
    let key = "5e".repeat(32);
    let said = failure(&["--url", &url, &key]);
    assert!(said.contains("the id of no wallet"), "{said}");
    assert!(!said.contains(&key), "{said}");
    assert_eq!(
        daemon.get("/status").json["address_count"],
        1,
        "nothing was changed"
    );

    let token = daemon.new_token("me", "read");
    daemon.wait_status(&token, 200);
    advises(&failure(&["--url", &url, &address]), &Remedy::GiveToken);
    let with_token = |token: &str, words: &[&str]| {
        let mut watch = command(&[&["--url", &url], words].concat());
        watch.env("SATWATCH_TOKEN", token);
        Program::of(watch, "satwatch watch")
    };
    advises(
        &with_token("sw_wrong", &[&address]).ends(1),
        &Remedy::GiveToken,
    );
    advises(
        &with_token("sw wrong", &[&address]).ends(1),
        &Remedy::GiveToken,
    );
    with_token(&token, &[&address]).event("balance", |_| true);
    // What is not watched yet takes more than reading.
    let said = with_token(&token, &[&node.address()]).ends(1);
    assert!(
        said.contains("\"watch\"") || said.contains("scope watch"),
        "{said}"
    );
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    writeln!(file, "{token}").expect("it is ours");
    let path = file.path().display().to_string();
    let mut watching = watch(&["--url", &url, "--token-file", &path, &address]);
    watching.event("balance", |_| true);
    daemon.token(&["revoke", "me"]);
    advises(&watching.ends(1), &Remedy::GiveToken);
}

#[test]
fn watch_trusts_the_certificate_that_it_is_given() {
    let (node, files) = (Node::start(), Files::new());
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let listen = free.expect("the system has a free port").to_string();
    let mut settings = files.settings().map(|(name, value)| (name, value)).to_vec();
    settings.push(("server.listen", listen));
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let daemon = Daemon::with(&node, &settings);
    let (address, url) = (node.address(), daemon.url());
    let said = failure(&["--url", &url, &address]);
    assert!(said.ends_with(&Remedy::TrustDaemon.to_string()), "{said}");
    let cert = files.cert().display().to_string();
    let trusting = watch(&["--url", &url, "--cacert", &cert, &address]);
    trusting.event("balance", |_| true);
    // Those of the daemon's settings are enough.
    let of_settings = daemon.command_of(&["watch", &address]);
    Program::of(of_settings, "satwatch watch").event("balance", |_| true);
    node.pay(&address, COIN);
    trusting.event("balance_change", |data| data["new_balance"] == COIN);
    let plain = failure(&["--url", &url.replace("https:", "http:"), &address]);
    assert!(
        plain.contains(&format!("https://127.0.0.1:{}", daemon.port())),
        "{plain}"
    );
}
