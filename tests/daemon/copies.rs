//! Case 21: a copy of the store that is put back. What was told after the copy was taken is not in
//! it, and its numbers are given again: whoever has a cursor from then is told so, whoever has one
//! from before goes on, and hears everything once.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{COIN, Client, Daemon, Node, ledger};

/// Blocks, and so events, between the copy and its return.
const BLOCKS: u32 = 500;

struct Life {
    node: Node,
    daemon: Daemon,
    address: String,
    folder: TempDir,
}

/// What was told before a copy was taken, and after it.
struct Told {
    before: Vec<String>,
    after: Vec<String>,
    /// The blocks that were mined after it.
    mined: Vec<String>,
}

fn cursors(log: &[Value]) -> Vec<String> {
    log.iter()
        .map(|event| event["cursor"].as_str().expect("text").to_owned())
        .collect()
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.expect("cp can be run").success());
}

impl Life {
    fn begin() -> Self {
        let node = Node::start();
        let folder = tempfile::Builder::new()
            .prefix("satwatch-store-")
            .tempdir()
            .expect("a temporary folder can be made");
        let store = folder.path().join("store").display().to_string();
        let daemon = Daemon::with(&node, &[("store.path", &store)]);
        let address = node.address();
        daemon.watch(&address);
        let put = daemon.request("PUT", "/consumers/shop", &[], Some(br#"{"blocks":true}"#));
        assert_eq!(put.status, 201, "{}", put.text);
        node.pay(&address, COIN);
        node.mine(3);
        daemon.wait_tip(&node);
        daemon.wait_balance(&address, COIN, 0);
        Self {
            node,
            daemon,
            address,
            folder,
        }
    }

    fn log(&self) -> Vec<Value> {
        ledger::read(&self.daemon)
    }

    fn take_copy(&self) {
        copy(
            &self.folder.path().join("store"),
            &self.folder.path().join("copy"),
        );
    }

    /// The daemon is down: it comes up on the copy, and catches up.
    fn put_back(&mut self) {
        let store = self.folder.path().join("store");
        std::fs::remove_dir_all(&store).expect("it is ours");
        copy(&self.folder.path().join("copy"), &store);
        self.daemon.restart();
        self.daemon.wait_tip(&self.node);
    }

    /// 500 blocks, told and read; `before`: the log when the copy was taken.
    fn go_on(&self, before: Vec<String>) -> Told {
        let mined = self.node.mine_to_nobody(BLOCKS);
        self.daemon.wait_tip(&self.node);
        let after = cursors(&self.log()).split_off(before.len());
        assert_eq!(after.len(), BLOCKS as usize);
        Told {
            before,
            after,
            mined,
        }
    }

    fn after(&self, cursor: &str) -> (u16, Value) {
        let answer = self
            .daemon
            .get(&format!("/events?limit=1000&after={cursor}"));
        (answer.status, answer.json)
    }

    /// The copy is back, and the same blocks were told again.
    fn check(&self, told: &Told) {
        let unknown = json!("cursor_unknown");
        for cursor in &told.after {
            let (status, answer) = self.after(cursor);
            assert_eq!((status, &answer["code"]), (410, &unknown), "{cursor}");
        }
        let last = told.after.last().expect("there are some");
        let ack = json!({ "cursor": last });
        let acked = self.daemon.post("/consumers/shop/ack", &ack);
        assert_eq!((acked.status, &acked.json["code"]), (410, &unknown));
        let wish = json!({ "address": self.address, "after": last });
        let subscribed = Client::connect(&self.daemon).ask("subscribe_address", &wish);
        assert_eq!(
            (&subscribed["code"], &subscribed["balance"]["balance"]),
            (&unknown, &json!(COIN))
        );

        let log = self.log();
        let (before, after) = log.split_at(told.before.len());
        assert_eq!(cursors(before), told.before);
        for (place, cursor) in told.before.iter().enumerate() {
            let (status, answer) = self.after(cursor);
            assert_eq!(
                (status, answer["events"].as_array()),
                (200, Some(&log[place + 1..].to_vec()))
            );
        }
        let again: Vec<_> = after.iter().map(|event| &event["data"]["hash"]).collect();
        assert_eq!(again, told.mined.iter().collect::<Vec<_>>());
        assert!(
            cursors(after)
                .iter()
                .all(|cursor| !told.after.contains(cursor))
        );
    }
}

#[test]
fn case_21_a_copy_from_a_stop_that_is_put_back_is_another_log_from_there_on() {
    let mut life = Life::begin();
    let before = cursors(&life.log());
    life.daemon.stop();
    life.take_copy();
    life.daemon.restart();
    let told = life.go_on(before);
    life.daemon.stop();
    life.put_back();
    life.check(&told);
    // More starts change nothing.
    life.daemon.stop();
    life.daemon.restart();
    life.check(&told);
}

#[test]
fn case_21_a_copy_of_a_running_store_that_is_put_back_is_another_log_from_there_on() {
    let mut life = Life::begin();
    let before = cursors(&life.log());
    life.take_copy();
    let told = life.go_on(before);
    life.daemon.kill();
    life.put_back();
    life.check(&told);
}

#[test]
fn case_21_a_moved_folder_is_no_copy() {
    let mut life = Life::begin();
    let told = life.go_on(cursors(&life.log()));
    life.daemon.stop();
    let moved = life.folder.path().join("moved");
    std::fs::rename(life.folder.path().join("store"), &moved).expect("it is ours");
    life.daemon = Daemon::with(&life.node, &[("store.path", &moved.display().to_string())]);
    let log = life.log();
    assert_eq!(cursors(&log), [told.before, told.after].concat());
    for (place, event) in log.iter().enumerate().step_by(50) {
        let cursor = event["cursor"].as_str().expect("text");
        let (status, answer) = life.after(cursor);
        assert_eq!(
            (status, answer["events"].as_array()),
            (200, Some(&log[place + 1..].to_vec()))
        );
    }
}
