//! The contracts beside what the daemon says: every route is walked, and the events of payments,
//! blocks, a reorg and a wallet are heard. Each answer and event must be as its document says,
//! without a field more (`tests/clients/contract.py`).

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::program::python_command;
use crate::common::{Answer, Client, Daemon, Node, repository, wait_until};

/// Of nobody.
const WALLET: &str = "wpkh(tpubD6NzVbkrYhZ4Y1kFvWKvyS8zsTiTAoHTpfeGuJoPPeVrPdbFD4h85ww4kno6n5XeTCjiKcoWmvsGJFiSHXSSsAfLCG818NYZBy4hLRZVLD7/<0;1>/*)";
const SETTINGS: &[(&str, &str)] = &[
    ("webhooks.allow_private", "true"),
    ("webhooks.give_up_after", "1"),
    ("monitor.reconcile_interval", "1"),
];

/// The documents of a daemon, and what it said.
struct Contracts {
    openapi: Value,
    asyncapi: Value,
    said: Vec<Value>,
}

impl Contracts {
    fn of(daemon: &Daemon) -> Self {
        let [openapi, asyncapi] =
            ["/openapi.json", "/asyncapi.json"].map(|path| daemon.get(path).json);
        Self {
            openapi,
            asyncapi,
            said: Vec::new(),
        }
    }

    /// Keeps an event that a client was told.
    fn told(&mut self, name: &str, value: &Value) {
        let schema = &self.asyncapi["components"]["messages"][format!("told_{name}")]["payload"];
        assert!(schema.is_object(), "the event {name} is not told");
        self.said.push(json!({
            "what": format!("event {name}"), "document": "asyncapi", "schema": schema, "value": value
        }));
    }

    fn compare(&self) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("said.json");
        let said = json!({
            "openapi": self.openapi, "asyncapi": self.asyncapi, "cases": self.said
        });
        fs::write(&file, said.to_string()).expect("it is written");
        let mut command: Command = python_command();
        command.arg(repository().join("tests/clients/contract.py"));
        let output = command.arg(file).output().expect("Python runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}{error}");
    }
}

/// Events that tests elsewhere bring about are as the contract says.
pub fn events_are_as_told<'a>(
    daemon: &Daemon,
    events: impl IntoIterator<Item = (&'a str, &'a Value)>,
) {
    let mut contracts = Contracts::of(daemon);
    for (name, value) in events {
        contracts.told(name, value);
    }
    assert!(!contracts.said.is_empty(), "there are events");
    contracts.compare();
}

struct Walk {
    daemon: Daemon,
    contracts: Contracts,
    /// Method and path of those that were answered well.
    answered: BTreeSet<String>,
    heard: BTreeSet<String>,
    token: Option<String>,
}

impl Walk {
    fn new(daemon: Daemon) -> Self {
        Self {
            contracts: Contracts::of(&daemon),
            daemon,
            answered: BTreeSet::new(),
            heard: BTreeSet::new(),
            token: None,
        }
    }

    /// Asks, and keeps the answer to be compared. `route`: as the document has it; `part` stands in
    /// place of its `{…}`, `query` behind it.
    fn ask(&mut self, route: &str, part: &str, query: &str, body: Option<Value>) -> Answer {
        let (method, template) = route.split_once(' ').expect("method and path");
        let begin = template.find('{').unwrap_or(template.len());
        let end = template.find('}').map_or(template.len(), |end| end + 1);
        let path = format!("{}{part}{}{query}", &template[..begin], &template[end..]);
        let text = body.map(|body| body.to_string());
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
        let bytes = text.as_deref().map(str::as_bytes);
        let answer = self.daemon.request(method, &path, &headers, bytes);
        let what = format!("{method} {path}: {}", answer.status);
        let Contracts { openapi, said, .. } = &mut self.contracts;
        let operation = &openapi["paths"][template][method.to_lowercase()];
        let mut told = &operation["responses"][answer.status.to_string()];
        if let Some(reference) = told["$ref"].as_str() {
            let place = reference.trim_start_matches('#');
            told = openapi.pointer(place).expect("a response");
        }
        let media = answer.headers["content-type"].to_str().expect("text");
        let media = media.split(';').next().unwrap_or_default();
        let schema = &told["content"][media]["schema"];
        assert!(schema.is_object(), "{what} is not told: {}", answer.text);
        let value = match media {
            "application/json" => answer.json.clone(),
            _ => answer.text.clone().into(),
        };
        said.push(json!({
            "what": what, "document": "openapi", "schema": schema, "value": value
        }));
        if answer.status < 300 {
            self.answered.insert(route.to_owned());
        }
        answer
    }

    fn good(&mut self, route: &str, part: &str, query: &str, body: Option<Value>) -> Value {
        let answer = self.ask(route, part, query, body);
        assert!(answer.status < 300, "{route} {part}: {}", answer.text);
        answer.json
    }

    /// Keeps all that a client has heard.
    fn hear(&mut self, client: &Client) {
        for name in client.names() {
            for value in client.all(&name) {
                self.contracts.told(&name, &value);
            }
            self.heard.insert(name);
        }
    }

    /// Says something, and keeps the acknowledgement.
    fn emit(&mut self, client: &Client, name: &str, argument: &Value) -> Value {
        let answer = client.ask(name, argument);
        let Contracts { asyncapi, said, .. } = &mut self.contracts;
        let reply = &asyncapi["operations"][name]["reply"]["messages"][0]["$ref"];
        let key = reply.as_str().and_then(|it| it.rsplit('/').next());
        let schema = &asyncapi["components"]["messages"][key.expect("a reply")]["payload"];
        said.push(json!({
            "what": format!("answer to {name}"), "document": "asyncapi", "schema": schema, "value": answer
        }));
        answer
    }
}

/// The addresses, and what is known of them.
fn addresses(walk: &mut Walk, node: &Node, address: &str) {
    let others = [node.address(), node.address()];
    let history = json!({ "from_height": 0 });
    let body =
        json!({ "address": address, "label": "a", "history": history, "confirmations": [1, 2] });
    walk.good("POST /add_address", "", "", Some(body));
    walk.good(
        "POST /add_addresses",
        "",
        "",
        Some(json!({ "addresses": others })),
    );
    walk.daemon.wait_complete(address);
    node.pay(address, 50_000);
    node.mine(1);
    node.pay(address, 60_000);
    walk.daemon.wait_balance(address, 50_000, 60_000);
    let label = json!({ "label": "b" });
    walk.good("PATCH /addresses/{address}", address, "", Some(label));
    walk.good("GET /addresses", "", "?limit=1", None);
    walk.good("GET /balance/{address}", address, "", None);
    walk.good("GET /transactions/{address}", address, "?limit=1", None);
    walk.good(
        "GET /utxos/{address}",
        address,
        "?include_spent=true&limit=1",
        None,
    );
    walk.good("POST /audit/{address}", address, "", None);
    let scan = json!({ "from_height": 0 });
    walk.good("POST /scan_history/{address}", address, "", Some(scan));
    let scan = json!({ "addresses": [address], "blocks_back": 5 });
    let begun = walk.good("POST /scan_history", "", "", Some(scan));
    walk.good("GET /scans", "", "", None);
    let scan = begun["scan_id"].as_str().expect("an id").to_owned();
    walk.good("GET /scans/{id}", &scan, "", None);
    wait_until("a scan is cancelled, or one has ended", || {
        walk.ask("DELETE /scans/{id}", &scan, "", None);
        let begun = walk.ask(
            "POST /scan_history",
            "",
            "",
            Some(json!({ "addresses": [others[0]] })),
        );
        let scan = begun.json["scan_id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (walk.ask("DELETE /scans/{id}", &scan, "", None).status == 200).then_some(())
    });
    walk.good("DELETE /addresses/{address}", &others[1], "", None);
}

fn wallet(walk: &mut Walk, node: &Node) -> String {
    let added = walk.good(
        "POST /descriptors",
        "",
        "",
        Some(json!({ "descriptor": WALLET })),
    );
    let id = added["descriptor_id"].as_str().expect("an id").to_owned();
    walk.good(
        "POST /descriptors",
        "",
        "",
        Some(json!({ "descriptor": WALLET, "label": "w" })),
    );
    let label = json!({ "label": null });
    walk.good("PATCH /descriptors/{id}", &id, "", Some(label));
    wait_until("the past of the wallet is known", || {
        let wallet = walk.daemon.get(&format!("/descriptors/{id}"));
        (wallet.json["coverage"]["pending"] == false).then_some(())
    });
    let given = walk.good(
        "POST /descriptors/{id}/next_address",
        &id,
        "",
        Some(json!({})),
    );
    let address = given["address"].as_str().expect("an address");
    node.pay(address, 70_000);
    wait_until("the wallet is paid", || {
        let balance = walk.daemon.get(&format!("/descriptors/{id}/balance"));
        (balance.json["balance"] == 70_000).then_some(())
    });
    for (route, query) in [
        ("GET /descriptors", "?limit=1"),
        ("GET /descriptors/{id}", ""),
        ("GET /descriptors/{id}/balance", ""),
        ("GET /descriptors/{id}/transactions", ""),
        ("GET /descriptors/{id}/utxos", ""),
        (
            "GET /descriptors/{id}/addresses",
            "?keychain=internal&from=1&limit=2",
        ),
        ("POST /audit/descriptors/{id}", ""),
    ] {
        let part = if route.contains('{') { &id[..] } else { "" };
        walk.good(route, part, query, None);
    }
    let scan = json!({ "descriptor_id": id, "blocks_back": 3 });
    walk.good("POST /scan_history", "", "", Some(scan));
    id
}

fn consumers(walk: &mut Walk, node: &Node, address: &str) {
    // Nobody listens there.
    let hook =
        json!({ "url": "http://127.0.0.1:1/", "headers": { "X-Shop": "1" }, "blocks": true });
    walk.good("PUT /consumers/{name}", "hook", "", Some(hook.clone()));
    walk.good("PUT /consumers/{name}", "hook", "", Some(hook));
    let till = json!({ "addresses": [address], "blocks": true });
    walk.good("PUT /consumers/{name}", "till", "", Some(till));
    node.mine(1);
    wait_until("the consumer has something to read", || {
        let read = walk.good("GET /events", "", "?consumer=till&wait=1", None);
        let next = read["events"][0]["cursor"].as_str()?.to_owned();
        walk.good(
            "POST /consumers/{name}/ack",
            "till",
            "",
            Some(json!({ "cursor": next })),
        );
        Some(())
    });
    wait_until("the receiver has been given up on", || {
        node.mine(1);
        let letters = walk.good("GET /consumers/{name}/dead_letters", "hook", "", None);
        (letters["count"] != 0).then_some(())
    });
    walk.good("GET /consumers", "", "", None);
    walk.good("GET /consumers/{name}", "hook", "", None);
    walk.good("POST /consumers/{name}/test", "hook", "", None);
    walk.good("POST /consumers/{name}/retry", "hook", "", None);
    walk.good(
        "POST /consumers/{name}/dead_letters/resend",
        "hook",
        "",
        Some(json!({})),
    );
    walk.good("DELETE /consumers/{name}/dead_letters", "hook", "", None);
    walk.good("GET /status", "", "", None);
    walk.good("DELETE /consumers/{name}", "hook", "", None);
}

fn the_rest(walk: &mut Walk) {
    walk.good("GET /events", "", "?limit=1000", None);
    // A stream that ends.
    let ended = walk.ask("GET /events/stream", "", "?after=gone-1", None);
    let (_, refusal) = ended
        .text
        .split_once("event: satwatch_error\ndata: ")
        .expect("why");
    let refusal = serde_json::from_str(refusal.trim_end()).expect("JSON");
    walk.contracts.told("satwatch_error", &refusal);
    walk.heard.insert("satwatch_error".to_owned());
    walk.ask("GET /events", "", "?after=gone-1", None);
    for route in [
        "GET /status",
        "POST /stop",
        "POST /start",
        "GET /token",
        "DELETE /session",
        "GET /metrics",
        "GET /health/live",
        "GET /openapi.json",
        "GET /asyncapi.json",
        "GET /edge",
    ] {
        walk.good(route, "", "", None);
        let refused = walk.ask(route, "", "?nonsense=1", None);
        assert_eq!(refused.status, 400, "{route}");
    }
    for (event, argument) in [
        ("subscribe_blocks", json!({})),
        ("subscribe_addresses", json!({ "addresses": [] })),
    ] {
        let body = json!({ "event": event, "argument": argument });
        walk.ask("POST /edge/subscription", "", "", Some(body));
    }
    wait_until("it follows again", || {
        (walk.ask("GET /health/ready", "", "", None).status == 200).then_some(())
    });
    let token = walk.daemon.new_token("page", "admin");
    walk.daemon.wait_status(&token, 200);
    walk.ask("GET /status", "", "", None);
    walk.good("POST /session", "", "", Some(json!({ "token": token })));
    walk.token = Some(token);
    walk.good("GET /token", "", "", None);
}

#[test]
fn what_the_daemon_says_is_what_its_contracts_say() {
    let node = Node::start();
    let mut walk = Walk::new(Daemon::with(&node, SETTINGS));
    let (client, reader) = (Client::connect(&walk.daemon), Client::connect(&walk.daemon));
    let address = node.address();
    walk.emit(&client, "subscribe_blocks", &json!({}));
    walk.emit(&client, "subscribe_address", &json!({ "address": address }));
    addresses(&mut walk, &node, &address);
    let list = json!({ "addresses": [address, node.address()] });
    walk.emit(&client, "subscribe_addresses", &list);
    let id = wallet(&mut walk, &node);
    let first = walk.good("GET /events", "", "?limit=1", None);
    let from_first = json!({ "descriptor_id": id, "after": first["next"] });
    walk.emit(&client, "subscribe_descriptor", &from_first);
    consumers(&mut walk, &node, &address);
    walk.emit(
        &reader,
        "subscribe_consumer",
        &json!({ "consumer": "till" }),
    );
    let told = reader.event("block", |_| true);
    let ack = json!({ "consumer": "till", "cursor": told["cursor"] });
    walk.emit(&reader, "ack", &ack);
    walk.emit(
        &reader,
        "unsubscribe_consumer",
        &json!({ "consumer": "till" }),
    );
    reader.emit("subscribe_address", &json!({ "adress": address }));
    reader.event("error", |_| true);
    let tip = node.tip();
    node.rpc("invalidateblock", json!([tip]));
    node.mine(2);
    client.event("reorg", |_| true);
    walk.emit(
        &client,
        "unsubscribe_address",
        &json!({ "address": address }),
    );
    walk.good("DELETE /addresses/{address}", &address, "", None);
    walk.good("DELETE /descriptors/{id}", &id, "", None);
    client.event("unwatched", |told| told["descriptor_id"] == id);
    walk.emit(
        &client,
        "unsubscribe_descriptor",
        &json!({ "descriptor_id": id }),
    );
    the_rest(&mut walk);
    walk.hear(&client);
    walk.hear(&reader);
    let paths = walk.contracts.openapi["paths"].as_object().expect("paths");
    let routes = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods").keys();
        methods.map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    assert_eq!(walk.answered, routes.collect(), "routes that answered well");
    let messages = walk.contracts.asyncapi["components"]["messages"].as_object();
    let told = messages.expect("messages").keys();
    let told = told.filter_map(|key| key.strip_prefix("told_"));
    // Tests of who reads slowly and of scans that take longer compare theirs.
    let elsewhere = ["lagged", "scan_progress"];
    let told = told.filter(|name| !elsewhere.contains(name));
    let heard = walk.heard.iter().map(String::as_str);
    let heard = heard.filter(|name| !elsewhere.contains(name));
    assert_eq!(heard.collect::<Vec<_>>(), told.collect::<Vec<_>>());
    walk.contracts.compare();
}

/// Whatever the document allows, and what it does not: `tests/clients/schemathesis.toml`.
#[test]
fn schemathesis_finds_nothing() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[("limits.costly_per_minute", "1000000")]);
    daemon.watch(&node.address());
    assert_eq!(
        daemon
            .post("/descriptors", &json!({ "descriptor": WALLET }))
            .status,
        201
    );
    let mut command = python_command();
    command.args(["-m", "schemathesis.cli", "--no-color", "--config-file"]);
    command.arg(repository().join("tests/clients/schemathesis.toml"));
    // It keeps what it has found in the folder where it runs.
    let folder = tempfile::tempdir().expect("a folder");
    let output = command
        .current_dir(folder.path())
        .args(["run", &format!("{}/openapi.json", daemon.url())])
        .output()
        .expect("Python runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{error}");
}
