//! The example clients under limits of rates: they say what is wrong, come back by themselves, and
//! miss nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::{COIN, Daemon, Node, Program, wait_until};

/// What each of them says when it is refused.
const REFUSED: [&str; 4] = [
    "cannot connect",
    "cannot reach",
    "no connection",
    "You ask more often",
];

/// Asks for what its client has used up until `stop`.
fn flood(daemon: &Daemon, token: &str, stop: &AtomicBool) {
    let bearer = format!("Bearer {token}");
    while !stop.load(Ordering::Relaxed) {
        daemon.request("GET", "/scans", &[("Authorization", &bearer)], None);
    }
}

/// Sets it when it is dropped, by a panic, too.
struct StopGuard<'a>(&'a AtomicBool);

impl Drop for StopGuard<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something while nobody else with this token gets anything.
fn flooded(daemon: &Daemon, token: &str, act: impl FnOnce()) {
    daemon.reread(Some("[limits]\nrequests_per_second = 1"));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = StopGuard(&stop);
        scope.spawn(|| flood(daemon, token, &stop));
        wait_until("it is too often", || {
            let bearer = format!("Bearer {token}");
            let answer = daemon.request("GET", "/scans", &[("Authorization", &bearer)], None);
            (answer.status == 429).then_some(())
        });
        act();
    });
    daemon.reread(Some(""));
}

/// `token`: an empty one is none.
fn example_clients_come_back(daemon: &Daemon, node: &Node, token: &str) {
    let (address, url) = (node.address(), daemon.url());
    let environment = [("SATWATCH_TOKEN", token)];
    let environment = match token {
        "" => &[][..],
        _ => &environment[..],
    };
    let ask = |method: &str, path: &str| {
        let bearer = format!("Bearer {token}");
        daemon.request(method, path, &[("Authorization", &bearer)], None)
    };
    let mut clients = Vec::new();
    flooded(daemon, token, || {
        for (script, name) in [
            ("../../contrib/js/watch.js", None),
            ("../../contrib/js/consumer.js", Some("js")),
            ("../../contrib/python/watch.py", None),
            ("../../contrib/python/consumer.py", Some("py")),
            ("../../regtest/listen.py", None),
        ] {
            let arguments: Vec<&str> = [Some(&*url), name, Some(&*address)]
                .into_iter()
                .flatten()
                .collect();
            let start = match script.ends_with(".js") {
                true => Program::node_in,
                false => Program::python_in,
            };
            clients.push(start(environment, script, &arguments));
        }
        for client in &clients {
            client.line("why it is refused", |line| {
                REFUSED
                    .iter()
                    .any(|words| line.contains(words))
                    .then_some(())
            });
        }
    });
    for client in &clients {
        client.line("that it is there", |line| {
            ["\"subscribed\"", "events to catch up on"]
                .iter()
                .any(|words| line.contains(words))
                .then_some(())
        });
    }
    // What consumers acknowledge is refused now; the rest hears as ever.
    flooded(daemon, token, || {
        node.pay(&address, COIN);
        for client in &clients {
            client.event("balance_change", |data| data["new_balance"] == COIN);
        }
    });
    node.pay(&address, COIN);
    for client in &clients {
        client.event("balance_change", |data| data["new_balance"] == 2 * COIN);
    }
    for name in ["js", "py"] {
        wait_until("its work is acknowledged", || {
            (ask("GET", &format!("/consumers/{name}")).json["lag"] == 0).then_some(())
        });
    }
}

#[test]
fn example_clients_that_are_refused_by_address_come_back() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    example_clients_come_back(&daemon, &node, "");
}

#[test]
fn example_clients_that_are_refused_by_token_come_back() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let token = daemon.token(&["new", "--name", "shop", "--scope", "watch"]);
    let bearer = format!("Bearer {token}");
    wait_until("the daemon has taken the token", || {
        let answer = daemon.request("GET", "/scans", &[("Authorization", &bearer)], None);
        (answer.status == 200).then_some(())
    });
    example_clients_come_back(&daemon, &node, &token);
}
