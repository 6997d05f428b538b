//! Clients with a token, and what they hear when it ends: the stock ones of both languages, and the
//! examples of this repository.

use std::fs;

use crate::common::{Daemon, Node, Program, repository};

pub fn client(program: &str, daemon: &Daemon, token: &str, how: [&str; 2]) -> Program {
    let url = daemon.url();
    let [how, transport] = how;
    let args = [url.as_str(), token, how, transport];
    match program {
        "js" => Program::node("with_token.js", &args),
        "js 2" => Program::node(
            "with_token.js",
            &[&args[..], &["socket.io-client-2"]].concat(),
        ),
        "python" => Program::python("with_token.py", &args),
        "python 4" => Program::python_eio3("with_token.py", &args),
        other => panic!("there is no client {other}"),
    }
}

const ALL: [(&str, [&str; 2]); 8] = [
    ("js", ["auth", "websocket"]),
    ("js", ["auth", "polling"]),
    ("js", ["header", "websocket"]),
    ("js 2", ["header", "polling"]),
    ("python", ["auth", "websocket"]),
    ("python", ["header", "polling"]),
    ("python 4", ["header", "websocket"]),
    ("python 4", ["header", "polling"]),
];

/// Waits until a client has left, before which it was told why.
fn is_told(program: &Program, why: &str) {
    program.event("disconnect", |_| true);
    let told = program.event("refused", |_| true);
    assert_eq!(told["code"], "unauthorized");
    let sentence = told["error"].as_str().unwrap_or_default();
    assert!(sentence.starts_with(why), "{told}");
}

#[test]
fn stock_clients_come_in_with_a_token_and_leave_with_it() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let anonymous = ["js", "python"].map(|name| client(name, &daemon, "", ["auth", "websocket"]));
    for program in &anonymous {
        program.event("connected", |_| true);
    }
    let (stays, goes) = (
        daemon.new_token("stays", "read"),
        daemon.new_token("goes", "read"),
    );
    for program in &anonymous {
        is_told(program, "This daemon wants a token since a moment ago");
    }
    daemon.wait_status(&stays, 200);
    daemon.wait_status("", 401);
    let refused = client("js", &daemon, "sw_nonsense", ["auth", "websocket"]);
    assert_eq!(refused.event("refused", |_| true)["code"], "unauthorized");
    let refused = client("python", &daemon, "sw_nonsense", ["auth", "websocket"]);
    assert_eq!(refused.event("refused", |_| true)["code"], "unauthorized");
    let refused = client("js 2", &daemon, "sw_nonsense", ["header", "polling"]);
    assert_eq!(refused.event("refused", |_| true)["code"], "unauthorized");

    let start = |token: &str| -> Vec<Program> {
        let all = ALL.iter();
        all.map(|(name, how)| client(name, &daemon, token, *how))
            .collect()
    };
    let (staying, going) = (start(&stays), start(&goes));
    for program in staying.iter().chain(&going) {
        program.event("ack", |_| true);
    }
    daemon.token(&["revoke", "goes"]);
    for program in &going {
        is_told(program, "This token has ended");
    }
    daemon.wait_status(&goes, 401);
    node.mine(1);
    for program in &staying {
        program.event("block", |_| true);
    }
    let heard = |program: &Program| {
        program
            .lines()
            .iter()
            .any(|line| line.contains("\"block\""))
    };
    assert!(!going.iter().any(heard), "who has left hears nothing");
    let left = |program: &Program| {
        program
            .lines()
            .iter()
            .any(|line| line.contains("disconnect"))
    };
    assert!(!staying.iter().any(left), "the others notice nothing");
}

/// The example programs.
const EXAMPLES: [&str; 5] = [
    "contrib/js/watch.js",
    "contrib/python/watch.py",
    "contrib/js/consumer.js",
    "contrib/python/consumer.py",
    "regtest/listen.py",
];

fn example(daemon: &Daemon, path: &str, token: &str, address: &str) -> Program {
    let (script, url) = (format!("../../{path}"), daemon.url());
    let mut args = vec![&*url];
    let name = if path.contains("js") { "js" } else { "python" };
    args.extend(path.contains("consumer").then_some(name));
    args.push(address);
    let environment = [("SATWATCH_TOKEN", token)];
    let environment = &environment[usize::from(token.is_empty())..];
    match path.ends_with(".js") {
        true => Program::node_in(environment, &script, &args),
        false => Program::python_in(environment, &script, &args),
    }
}

/// Waits until it ends by itself and checks that it says why, and nothing of an accident.
fn ends_for_its_token(program: &mut Program, why: &str) {
    let said = program.ends(1);
    assert!(said.contains(why), "{why} is not in\n{said}");
    assert!(
        !said.contains("Traceback") && !said.contains("    at "),
        "{said}"
    );
}

#[test]
fn the_examples_end_with_the_reason_when_their_token_does() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let (token, address) = (daemon.new_token("goes", "watch"), node.address());
    daemon.new_token("stays", "watch");
    daemon.wait_status(&token, 200);
    let start = |token: &str| EXAMPLES.map(|path| example(&daemon, path, token, &address));
    let mut programs = start(&token);
    for program in &programs {
        program.line("that it reads", |line| {
            let begins = line.contains("\"subscribed\"") || line.contains("events to catch up on");
            begins.then_some(())
        });
    }
    daemon.token(&["revoke", "goes"]);
    for program in &mut programs {
        ends_for_its_token(program, "This token has ended");
    }
    for program in &mut start(&token) {
        ends_for_its_token(program, "This token is not known here");
    }
    for program in &mut start("") {
        ends_for_its_token(program, "This daemon wants a token");
    }
}

/// The first block of this language in the API guide, for this daemon.
pub fn of_guide(daemon: &Daemon, language: &str) -> String {
    let guide = repository().join("contrib/docs/api.md");
    let text = fs::read_to_string(guide).expect("it is there");
    let start = format!("```{language}\n");
    let block = text.split(&start).nth(1).expect("it has one");
    let block = block.split("```").next().expect("it ends");
    let text = block.replace("http://127.0.0.1:5005", &daemon.url());
    assert!(text.contains(&daemon.url()), "{text}");
    text
}

#[test]
fn the_examples_of_the_guide_end_with_the_reason_when_tokens_begin() {
    let (node, folder) = (Node::start(), tempfile::tempdir().expect("a folder"));
    let daemon = Daemon::start(&node);
    let address = node.address();
    let start = |language: &str| {
        let file = folder.path().join(format!("example.{language}"));
        fs::write(&file, of_guide(&daemon, language)).expect("the folder is ours");
        let file = file.display().to_string();
        match language {
            "js" => Program::node(&file, &[&address]),
            _ => Program::python(&file, &[&address]),
        }
    };
    let mut programs = ["js", "python"].map(start);
    for program in &programs {
        program.line("the balance", |line| {
            line.contains(&format!("{address} has ")).then_some(())
        });
    }
    daemon.new_token("first", "watch");
    for program in &mut programs {
        ends_for_its_token(program, "This daemon wants a token since a moment ago");
    }
    for program in &mut ["js", "python"].map(start) {
        ends_for_its_token(program, "This daemon wants a token: send");
    }
}
