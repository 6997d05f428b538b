//! `SIGHUP`: the limits are those of the settings as they are now, and clients that are there
//! notice nothing.

use std::fs;
use std::thread;

use serde_json::{Value, json};

use crate::common::{Client, Daemon, Node, wait_until};

fn limit(daemon: &Daemon, name: &str) -> Value {
    daemon.get("/status").json["limits"][name]["limit"].clone()
}

#[test]
fn limits_are_lowered_and_raised_under_open_clients_who_notice_nothing() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let [first, second, third] = [node.address(), node.address(), node.address()];
    let client = Client::subscribed(&daemon, &first);
    let other = Client::subscribed(&daemon, &second);
    client.emit("subscribe_address", &json!({ "address": second }));
    client.event("subscribed", |data| data["address"] == *second);

    daemon.reread(Some("[limits]\nsubscriptions = 1\npacket_bytes = 2000"));
    assert_eq!(limit(&daemon, "subscriptions"), 1);
    assert_eq!(limit(&daemon, "packet_bytes"), 2000);
    let ask = || client.ask("subscribe_address", &json!({ "address": third }));
    assert_eq!(ask()["code"], "too_many_subscriptions");
    let opened = daemon.get("/socket.io/?EIO=4&transport=polling");
    assert!(
        opened.text.contains("\"maxPayload\":2000"),
        "{}",
        opened.text
    );
    // Longer than a session may send that opens now.
    let long = json!({ "addresses": vec![&first; 100] });
    let answer = client.ask("subscribe_addresses", &long);
    assert_eq!(answer["addresses"], json!([first]), "it has it already");
    node.pay(&first, 1000);
    client.event("balance_change", |data| data["address"] == *first);

    daemon.reread(Some("[limits]\nrequests_per_second = 1"));
    let refused = wait_until("it is too often", || {
        Some(daemon.get("/addresses")).filter(|answer| answer.status == 429)
    });
    assert_eq!(refused.json["limit"], "requests_per_second");
    node.pay(&second, 1000);
    other.event("balance_change", |data| data["address"] == *second);
    daemon.reread(Some("[limits]\nbody_bytes = 1024"));
    for _ in 0..20 {
        assert_eq!(daemon.get("/addresses").status, 200, "the default again");
    }
    let body = json!({ "addresses": vec![&third; 100] });
    assert_eq!(daemon.post("/add_addresses", &body).status, 413);
    assert_eq!(ask()["address"], *third, "this, too");
    daemon.reread(Some(""));
    assert_eq!(daemon.post("/add_addresses", &body).status, 200);
}

#[test]
fn waiting_requests_and_connections_that_are_there_go_on_when_fewer_may_be() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    let clients = [
        Client::subscribed(&daemon, &address),
        Client::subscribed(&daemon, &address),
    ];
    let path = format!("/events?wait=60&address={address}");
    let head = daemon.get(&path.replace("wait=60&", "")).json["head"].clone();
    let path = format!("{path}&after={}", head.as_str().expect("a cursor"));
    let waiting = |count: usize| {
        wait_until("they wait", || {
            let limit = &daemon.get("/status").json["limits"]["waiting_requests"];
            (limit["used"] == count).then_some(())
        });
    };
    thread::scope(|scope| {
        let ask = || scope.spawn(|| daemon.get(&path));
        let polls = [ask(), ask()];
        waiting(2);
        daemon.reread(Some("[limits]\nwaiting_requests = 1"));
        let refused = daemon.get(&path);
        assert_eq!(
            (refused.status, &refused.json["limit"]),
            (429, &json!("waiting_requests"))
        );
        daemon.reread(Some("[limits]\nwaiting_requests = 3"));
        let third = ask();
        waiting(3);

        daemon.reread(Some("[limits]\nconnections = 2"));
        let late = scope.spawn(|| daemon.get("/health/live"));
        wait_until("it waits for room", || {
            let log = daemon.log();
            log.contains("the limit of open connections is reached")
                .then_some(())
        });
        node.pay(&address, 1000);
        for client in &clients {
            client.event("balance_change", |data| data["address"] == *address);
        }
        for poll in polls.into_iter().chain([third]) {
            let answer = poll.join().expect("an answer");
            let events = answer.json["events"].as_array().expect("events");
            assert!(
                answer.status == 200 && !events.is_empty(),
                "{}",
                answer.text
            );
        }
        // Both clients are there as yet, and as many may be.
        let again = clients[0].ask("unsubscribe_address", &json!({ "address": address }));
        assert_eq!(again["address"], *address);
        assert!(!late.is_finished(), "there is no room for it");
        daemon.reread(Some("[limits]\nconnections = 20"));
        assert_eq!(late.join().expect("an answer").status, 200);
    });
    assert_eq!(limit(&daemon, "connections"), 20);
}

#[test]
fn a_file_that_is_bad_or_gone_leaves_all_as_it_is_and_what_takes_a_restart_is_named() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    daemon.stop();
    fs::write(daemon.settings_file(), "[limits]\naddresses_per_token = 1")
        .expect("the folder is ours");
    daemon.restart();
    let token = daemon.token(&["new", "--name", "shop", "--scope", "watch"]);
    let bearer = format!("Bearer {token}");
    let ask = |method: &str, path: &str, body: Option<Value>| {
        let headers = [
            ("Authorization", &*bearer),
            ("Content-Type", "application/json"),
        ];
        let body = body.map(|body| body.to_string());
        daemon.request(method, path, &headers, body.as_deref().map(str::as_bytes))
    };
    wait_until("the daemon has taken the token", || {
        (ask("GET", "/token", None).status == 200).then_some(())
    });
    let add = || {
        let body = json!({ "address": node.address(), "history": "none" });
        ask("POST", "/add_address", Some(body)).status
    };
    let settings = || ask("GET", "/status", None).json["settings"].clone();
    assert_eq!(settings(), json!({ "problem": null, "take_restart": [] }));
    assert_eq!([add(), add()], [200, 403]);
    daemon.reread(Some(
        "[limits]\naddresses_per_token = 2\n[monitor]\nreconcile_interval = 7",
    ));
    let log = daemon.log();
    assert!(
        log.contains("limits.addresses_per_token from 1 to 2")
            && log.contains("take a restart: monitor.reconcile_interval"),
        "{log}"
    );
    let expected = json!({ "problem": null, "take_restart": ["monitor.reconcile_interval"] });
    assert_eq!(settings(), expected);
    assert_eq!([add(), add()], [200, 403]);

    let wrong = [
        "limits.connections = 0 is not valid",
        "limits.conections: unknown setting",
    ];
    daemon.reread(Some(
        "[limits]\naddresses_per_token = 9\nconnections = 0\nconections = 5",
    ));
    let (log, problem) = (daemon.log(), settings()["problem"].clone());
    let problem = problem.as_str().expect("a problem");
    for words in wrong {
        assert!(log.contains(words) && problem.contains(words), "{log}");
    }
    assert_eq!(add(), 403);
    daemon.reread(None);
    let problem = settings()["problem"].clone();
    let problem = problem.as_str().expect("a problem");
    assert!(
        problem.contains("cannot read the settings file"),
        "{problem}"
    );
    assert_eq!(add(), 403);
    daemon.reread(Some("[limits]\naddresses_per_token = 3"));
    assert_eq!(settings(), json!({ "problem": null, "take_restart": [] }));
    assert_eq!([add(), add()], [200, 403]);
}
