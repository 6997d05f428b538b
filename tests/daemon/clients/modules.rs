//! `contrib/js/satwatch.js` and `contrib/python/satwatch.py` as modules of other programs.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{COIN, Daemon, Node, Program, installed, repository, wait_until};

const CLIENTS: [&str; 2] = ["../../contrib/js/watch.js", "../../contrib/python/watch.py"];

pub(super) fn start(script: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Program {
    match script.ends_with(".py") {
        true => Program::python_in(environment, script, arguments),
        false => Program::node_in(environment, script, arguments),
    }
}

/// The cursors of what concerns money, as they were printed.
fn cursors(program: &Program) -> Vec<Value> {
    let lines = program.lines();
    let events = lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let events =
        events.filter(|it| it["event"] == "new_transactions" || it["event"] == "balance_change");
    events
        .map(|event| event["data"]["cursor"].clone())
        .collect()
}

#[test]
fn a_file_for_the_cursor_takes_a_client_over_kills_of_it_and_of_the_daemon() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let address = node.address();
    daemon.watch(&address);
    let file = |script: &str| {
        let name = script.rsplit('/').next().expect("a name");
        folder.path().join(name).display().to_string()
    };
    let begin = |daemon: &Daemon| {
        let url = daemon.url();
        CLIENTS.map(|script| start(script, &[("CURSOR_FILE", &file(script))], &[&url, &address]))
    };
    let mut heard = CLIENTS.map(|_| Vec::new());
    for round in 1..=3 {
        let mut clients = begin(&daemon);
        for client in &clients {
            client.event("subscribed", |_| true);
        }
        node.pay(&address, COIN);
        for (client, heard) in clients.iter_mut().zip(&mut heard) {
            client.event("balance_change", |data| {
                data["new_balance"] == (2 * round - 1) * COIN
            });
            client.kill();
            heard.push(cursors(client));
        }
        daemon.kill();
        node.pay(&address, COIN);
        daemon.restart();
        daemon.wait_balance(&address, 0, 2 * round * COIN);
    }
    let last = begin(&daemon);
    for (client, heard) in last.iter().zip(&mut heard) {
        client.event("balance_change", |data| data["new_balance"] == 6 * COIN);
        heard.push(cursors(client));
    }
    let page = daemon.get(&format!("/events?address={address}")).json;
    let log = page["events"].as_array().expect("a list").iter();
    let log: Vec<Value> = log.map(|entry| entry["cursor"].clone()).collect();
    for heard in heard {
        let mut told: Vec<Value> = Vec::new();
        for part in heard {
            // The event whose work may not have been done when it was killed.
            let is_again = part.first().is_some_and(|first| told.last() == Some(first));
            told.extend(part.into_iter().skip(usize::from(is_again)));
        }
        assert_eq!(told, log, "each once, but for the last of a run");
    }
}

const OF_JS: &str = r#"
import { consume, follow, Refused } from "SATWATCH";
const [url, address] = process.argv.slice(2);
for await (const { event } of follow(url, [address])) {
    if (event === "subscribed") break;
}
try {
    for await (const event of follow(url, ["nonsense"])) console.log(event);
} catch (error) {
    console.log(JSON.stringify({ event: "refused", data: error instanceof Refused && error.code }));
}
for await (const event of consume(url, "js", { addresses: [], descriptors: "all", blocks: true })) {
    console.log(JSON.stringify(event));
}
"#;

const OF_PYTHON: &str = r#"
import asyncio, json, sys
sys.path.insert(0, "FOLDER")
from satwatch import Refused, consume, follow

async def main(url, address):
    async for event in follow(url, [address]):
        if event["event"] == "subscribed":
            break
    try:
        async for event in follow(url, ["nonsense"]):
            print(event)
    except Refused as refused:
        print(json.dumps({"event": "refused", "data": refused.code}))
    async for event in consume(url, "python", {"addresses": [], "descriptors": "all", "blocks": True}):
        print(json.dumps(event))

asyncio.run(main(*sys.argv[1:]))
"#;

#[test]
fn programs_import_the_modules_and_work_on_wallets() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let all = node.owner("listdescriptors", json!([]));
    let all = all["descriptors"].as_array().expect("a list");
    let wallet = all
        .iter()
        .find_map(|it| it["desc"].as_str().filter(|it| it.starts_with("wpkh(")));
    let added = daemon.post("/descriptors", &json!({ "descriptor": wallet }));
    assert_eq!(added.status, 201, "{}", added.text);
    let (address, url) = (node.address(), daemon.url());
    let js = repository()
        .join("contrib/js/satwatch.js")
        .display()
        .to_string();
    let python = repository().join("contrib/python").display().to_string();
    let texts = [
        ("program.mjs", OF_JS.replace("SATWATCH", &js)),
        ("program.py", OF_PYTHON.replace("FOLDER", &python)),
    ];
    let programs = texts.map(|(name, text)| {
        let file = folder.path().join(name);
        fs::write(&file, text).expect("the folder is ours");
        start(&file.display().to_string(), &[], &[&url, &address])
    });
    for program in &programs {
        program.event("refused", |data| data == "invalid_address");
        program.line("that it reads", |line| {
            line.contains("events to catch up on").then_some(())
        });
    }
    node.pay(&address, COIN);
    node.mine_to_nobody(1);
    for (program, name) in programs.iter().zip(["js", "python"]) {
        program.event("balance_change", |data| {
            data["descriptor_id"] == added.json["descriptor_id"] && data["delta"] == COIN
        });
        program.event("block", |data| data["hash"] == *node.tip());
        wait_until("its work is acknowledged", || {
            (daemon.get(&format!("/consumers/{name}")).json["lag"] == 0).then_some(())
        });
    }
}

#[test]
fn the_types_of_the_javascript_module_hold_and_refuse_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let packages = installed().join("js/node_modules");
    symlink(&packages, folder.path().join("node_modules")).expect("the folder is ours");
    let all = [
        "satwatch.js",
        "satwatch.d.ts",
        "watch.js",
        "consumer.js",
        "webhook.js",
    ];
    for name in all {
        let from = repository().join("contrib/js").join(name);
        fs::copy(from, folder.path().join(name)).expect("the folder is ours");
    }
    let check = |files: &[&str]| {
        let mut tsc = Command::new("node");
        tsc.arg(packages.join("typescript/bin/tsc"));
        tsc.args([
            "--noEmit",
            "--strict",
            "--allowJs",
            "--checkJs",
            "--skipLibCheck",
        ]);
        tsc.args(["--module", "nodenext", "--target", "es2022"])
            .args(files);
        let output = tsc
            .current_dir(folder.path())
            .output()
            .expect("Node.js is there");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let scripts: Vec<&str> = all
        .into_iter()
        .filter(|name| name.ends_with(".js"))
        .collect();
    assert_eq!(check(&scripts), "");
    let wrong = "import { follow } from './satwatch.js';\nfor await (const { evnt } of follow('url', 'address')) console.log(evnt);\n";
    fs::write(folder.path().join("wrong.mts"), wrong).expect("the folder is ours");
    let said = check(&["wrong.mts"]);
    assert!(
        said.contains("'evnt'") && said.contains("'string[]'"),
        "{said}"
    );
}
