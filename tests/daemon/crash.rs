//! The daemon is killed at moments spread over whatever it may be doing. Afterwards it goes on
//! exactly: balances are the node's, the log has no hole, nothing is told twice, and what a reader
//! saw before is still there as it was.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bitcoin::Network;
use satwatch::store::ChainInfo;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::daemon::request;
use crate::common::oracle::{self, Balances};
use crate::common::{COIN, Daemon, Node, ledger, wait_until};

/// Kills are spread over a start: opening the store, loading, the first look, the first blocks.
const MOMENTS: [u64; 8] = [1, 5, 15, 40, 80, 130, 200, 320];

fn moment(round: usize) -> Duration {
    Duration::from_millis(MOMENTS[round % MOMENTS.len()])
}

/// A daemon on a store that outlives it, what it watches, and what was read of its log.
struct Life {
    node: Node,
    daemon: Daemon,
    addresses: Vec<String>,
    seen: Vec<Value>,
    store: TempDir,
}

impl Life {
    fn begin(addresses: usize) -> Self {
        let node = Node::start();
        let store = tempfile::Builder::new()
            .prefix("satwatch-store-")
            .tempdir()
            .expect("a temporary folder can be made");
        let path = store.path().display().to_string();
        let daemon = Daemon::with(
            &node,
            &[("store.path", &path), ("monitor.reconcile_interval", "1")],
        );
        let addresses: Vec<_> = (0..addresses).map(|_| node.address()).collect();
        addresses.iter().for_each(|address| daemon.watch(address));
        Self {
            node,
            daemon,
            addresses,
            seen: Vec::new(),
            store,
        }
    }

    /// Reads the log: what was read before must be its beginning.
    fn read(&mut self) {
        let events = ledger::read(&self.daemon);
        for (now, before) in events.iter().zip(&self.seen) {
            // How deep it is buried is counted from the present tip.
            assert_eq!(
                without_depth(now),
                without_depth(before),
                "what was told is told again as it was"
            );
        }
        assert!(
            events.len() >= self.seen.len(),
            "events that were read are gone: {} of {}",
            events.len(),
            self.seen.len()
        );
        self.seen = events;
    }

    fn kill(&mut self) {
        self.read();
        self.daemon.kill();
    }

    fn height(&self) -> i64 {
        self.daemon.get("/status").json["tip"]["height"]
            .as_i64()
            .unwrap_or(0)
    }

    /// One payment to each address in a transaction.
    fn pay_all(&self, satoshi: i64) {
        let amount = crate::common::node::bitcoin(satoshi);
        let outputs: serde_json::Map<_, _> = self
            .addresses
            .iter()
            .map(|address| (address.clone(), json!(amount)))
            .collect();
        self.node.payer("sendmany", json!(["", outputs]));
    }

    /// Starts a daemon on the store and kills it before anybody could know that it listens.
    fn kill_at_start(&self, round: usize) {
        let mut child = spawn(&mut daemon_on(
            &self.node,
            &self.store.path().display().to_string(),
        ));
        std::thread::sleep(moment(round));
        assert!(
            child.try_wait().expect("it is our child").is_none(),
            "it ended by itself"
        );
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    /// It follows, every balance is the node's, and the log is whole.
    fn check(&mut self) {
        self.daemon.wait_ready();
        self.daemon.wait_tip(&self.node);
        for address in &self.addresses {
            let Balances {
                confirmed,
                unconfirmed,
            } = oracle::balances(&self.node, address);
            self.daemon.wait_balance(address, confirmed, unconfirmed);
        }
        self.read();
        ledger::check(&self.daemon);
    }
}

fn without_depth(event: &Value) -> Value {
    let mut event = event.clone();
    strip(&mut event);
    event
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("confirmations");
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// The daemon as a bare process; its log goes nowhere.
fn daemon_on(node: &Node, store: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_satwatch"));
    settings(&mut command, node, store);
    command.arg("run");
    command
}

fn settings(command: &mut Command, node: &Node, store: &str) {
    command
        .env("SATWATCH__SERVER__LISTEN", "127.0.0.1:0")
        .env("SATWATCH__STORE__PATH", store)
        .env("SATWATCH__BITCOIND__RPC_URL", node.rpc_url())
        .env("SATWATCH__BITCOIND__COOKIE_FILE", node.cookie_file())
        .current_dir(node.folder());
}

fn spawn(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("cargo has built the binary")
}

#[test]
fn killed_at_any_moment_of_start_and_catch_up_it_goes_on_exactly() {
    let mut life = Life::begin(3);
    life.pay_all(COIN);
    life.node.mine(1);
    life.check();
    life.kill();
    let base = life.node.height();
    const BLOCKS: i64 = 240;
    for block in 0..BLOCKS {
        if block % 3 != 0 {
            life.pay_all(10_000 + block);
        }
        match block % 20 {
            7 => drop(life.node.mine_to(&life.addresses[0], 1)),
            _ => drop(life.node.mine(1)),
        }
    }
    life.pay_all(70_000);
    const ROUNDS: i64 = 6;
    let mut midway = 0;
    for round in 0..ROUNDS {
        life.kill_at_start(round as usize);
        life.daemon.launch_again();
        let goal = base + BLOCKS * round / ROUNDS;
        wait_until("the daemon catches up", || {
            (life.height() >= goal).then_some(())
        });
        midway += usize::from(life.height() < base + BLOCKS);
        life.kill();
    }
    println!("{midway} kills of {ROUNDS} in the middle of the catch-up");
    life.daemon.restart();
    life.check();
}

#[test]
fn killed_in_the_middle_of_deep_reorganizations_it_goes_on_exactly() {
    const DEPTH: u32 = 100;
    let mut life = Life::begin(3);
    let fork = life.node.height();
    let grow = |life: &Life, blocks: u32, satoshi: i64| {
        for block in 0..blocks {
            if block % 6 == 0 {
                life.pay_all(satoshi + i64::from(block));
            }
            match block % 25 {
                3 => drop(life.node.mine_to(&life.addresses[1], 1)),
                _ => drop(life.node.mine(1)),
            }
        }
    };
    grow(&life, DEPTH, COIN / 100);
    life.check();
    let block_at = |node: &Node, height: i64| node.rpc("getblockhash", json!([height]));
    let first = block_at(&life.node, fork + 1);
    life.kill();
    life.node.rpc("invalidateblock", json!([first]));
    grow(&life, DEPTH + 5, COIN / 50);
    let second = block_at(&life.node, fork + 1);
    life.node.rpc("reconsiderblock", json!([first]));
    // Taking the longer branch away and giving it back changes between the two.
    for round in 0..4 {
        let switch = if round % 2 == 0 {
            "invalidateblock"
        } else {
            "reconsiderblock"
        };
        if round < 2 {
            life.node.rpc(switch, json!([second]));
            life.kill_at_start(round + 3);
            life.daemon.launch_again();
        } else {
            life.daemon.launch_again();
            life.node.rpc(switch, json!([second]));
        }
        std::thread::sleep(moment(round));
        life.kill();
    }
    life.daemon.restart();
    life.check();
}

#[test]
fn killed_in_a_burst_of_payments_it_tells_each_once() {
    let mut life = Life::begin(2);
    for round in 0..6 {
        for payment in 0..12 {
            life.node
                .pay(&life.addresses[payment % 2], 50_000 + payment as i64);
            if payment == 7 {
                std::thread::sleep(moment(round) / 4);
                life.kill();
                if round % 2 == 0 {
                    life.daemon.launch_again();
                }
            }
        }
        match round % 2 {
            0 => {
                life.kill();
                life.node.mine(1);
            }
            _ => life.kill_at_start(round),
        }
        life.daemon.launch_again();
    }
    life.check();
    let announced: usize = life
        .seen
        .iter()
        .filter(|event| event["event"] == "new_transactions")
        .count();
    assert_eq!(announced, 72, "each payment is told once");
}

#[test]
fn an_address_that_was_answered_for_is_watched_and_whole_after_a_kill() {
    let mut life = Life::begin(1);
    let added: Vec<_> = (0..8).map(|_| life.node.address()).collect();
    for (place, address) in added.iter().enumerate() {
        life.node.pay(address, COIN + place as i64);
    }
    life.node.mine(1);
    life.node.pay(&added[2], 5_000);
    life.daemon.wait_tip(&life.node);
    for (round, address) in added.iter().enumerate() {
        let answer = life
            .daemon
            .post("/add_address", &json!({ "address": address }));
        assert_eq!(answer.status, 200, "{}", answer.text);
        std::thread::sleep(moment(round) / 2);
        life.kill();
        if round % 3 == 0 {
            life.node.pay(address, 7_000);
            life.node.mine(1);
        }
        life.kill_at_start(round);
        life.daemon.launch_again();
    }
    added
        .iter()
        .for_each(|address| life.daemon.wait_complete(address));
    life.addresses.extend(added);
    life.check();
}

/// A disk of the smallest kind: no file of this process may grow beyond so many blocks of 512
/// bytes, and no signal hides the error.
fn on_a_small_disk(life: &Life, blocks: &str) -> Command {
    let mut command = Command::new("sh");
    settings(
        &mut command,
        &life.node,
        &life.store.path().display().to_string(),
    );
    command.args([
        "-c",
        "trap '' XFSZ; ulimit -f \"$1\"; exec \"$0\" run",
        env!("CARGO_BIN_EXE_satwatch"),
        blocks,
    ]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Waits until it ends by itself; it must say what is wrong with which folder, and 1.
fn ends_for_want_of_room(mut child: Child, store: &std::path::Path) -> String {
    let ended = wait_until("the daemon ends when it cannot write", || {
        child.try_wait().expect("it is our child")
    });
    let mut said = String::new();
    std::io::Read::read_to_string(child.stderr.as_mut().expect("it is piped"), &mut said)
        .expect("the log is text");
    assert_eq!(ended.code(), Some(1), "{said}");
    let errors: Vec<_> = said.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(!errors.is_empty(), "no reason: {said}");
    // The first and the last word are the reason, not what came of it.
    let reason =
        |line: &&str| line.contains("has room") && line.contains(&*store.to_string_lossy());
    assert!(errors.iter().all(reason), "{said}");
    said
}

#[test]
fn a_full_disk_at_the_start_or_in_a_catch_up_ends_it_with_a_reason_and_nothing_is_lost() {
    let mut life = Life::begin(3);
    life.pay_all(COIN);
    life.node.mine(1);
    life.check();
    life.kill();
    for block in 0..120 {
        life.pay_all(20_000 + block);
        life.pay_all(30_000 + block);
        life.node.mine(1);
    }
    // Table files and the manifest, the options (78 KB), and the write-ahead log of the catch-up.
    for blocks in ["2", "64", "180", "240"] {
        let child = on_a_small_disk(&life, blocks)
            .spawn()
            .expect("sh can be run");
        let said = ends_for_want_of_room(child, life.store.path());
        println!(
            "{blocks} blocks: {}",
            said.lines().last().unwrap_or_default()
        );
    }
    life.daemon.restart();
    life.check();
}

#[test]
fn a_disk_that_fills_up_under_a_living_daemon_ends_it_and_nothing_is_told_twice() {
    let mut life = Life::begin(2);
    life.check();
    for round in 0..3 {
        life.kill();
        let mut child = on_a_small_disk(&life, "unlimited")
            .spawn()
            .expect("sh can be run");
        let port = port_told_by(&mut child);
        let told = |path: &str| {
            let url = format!("http://127.0.0.1:{port}{path}");
            let answer = request("GET", &url, &[], None).ok()?;
            Some(answer.json)
        };
        wait_until("it follows", || {
            (told("/health/ready")?["ready"] == true).then_some(())
        });
        let before = life.node.pay(&life.addresses[0], 30_000 + round);
        wait_until("the payment is told", || {
            told("/events?limit=1000")?
                .to_string()
                .contains(&before)
                .then_some(())
        });
        life.seen = told("/events?limit=1000").expect("it answers")["events"]
            .as_array()
            .expect("a list")
            .clone();
        // From now on no write finds room.
        let full = Command::new("prlimit")
            .args(["--fsize=1", "--pid", &child.id().to_string()])
            .status()
            .expect("prlimit can be run");
        assert!(full.success());
        match round {
            0 => drop(life.node.pay(&life.addresses[1], 40_000)),
            1 => drop(life.node.mine(1)),
            _ => life.pay_all(50_000),
        }
        ends_for_want_of_room(child, life.store.path());
        life.daemon.restart();
        life.check();
    }
}

/// Reads the log up to the line that names the port; the rest stays in the pipe.
fn port_told_by(child: &mut Child) -> u16 {
    let log = child.stderr.as_mut().expect("it is piped");
    let mut line = Vec::new();
    for byte in std::io::Read::bytes(log) {
        match byte.expect("the log can be read") {
            b'\n' => {
                let text = String::from_utf8_lossy(&line);
                if let Some((_, port)) = text.split_once("listening on http://127.0.0.1:") {
                    return port.trim().parse().expect("a port is a number");
                }
                line.clear();
            }
            other => line.push(other),
        }
    }
    panic!("the daemon ended at its start");
}

#[test]
fn a_folder_that_cannot_be_used_is_refused_by_name_and_with_a_remedy() {
    let node = Node::start();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let at = |name: &str| folder.path().join(name);
    let create = |name: &str, network: Network, genesis: &str| {
        let chain = ChainInfo {
            network,
            genesis: genesis.parse().expect("a hash"),
        };
        drop(
            satwatch::store::open(&at(name), Some(chain), 0, &|| false)
                .expect("a new store can be made"),
        );
    };
    let genesis = node.rpc("getblockhash", json!([0]));
    let genesis = genesis.as_str().expect("a hash is text");
    create("network", Network::Signet, genesis);
    create("genesis", Network::Regtest, &"11".repeat(32));
    create("damaged", Network::Regtest, genesis);
    std::fs::remove_file(at("damaged/db/CURRENT")).expect("every database has it");
    std::fs::create_dir(at("theirs")).expect("the folder is ours");
    std::fs::write(at("theirs/lock"), "host 5\n").expect("the folder is ours");
    std::fs::write(at("file"), "").expect("the folder is ours");
    let cases = [
        (at("network"), ["signet", "right node"]),
        (at("genesis"), ["genesis", "right node"]),
        (at("damaged"), ["CURRENT is missing", "restore a copy"]),
        (at("theirs"), ["not a store of satwatch", "store.path"]),
        (at("file"), ["File exists", "written by this user"]),
        (
            at("file/below"),
            ["Not a directory", "written by this user"],
        ),
        // Where not even root may make a folder.
        (
            "/proc/satwatch".into(),
            ["No such file", "written by this user"],
        ),
    ];
    for (path, words) in cases {
        let path = path.display().to_string();
        let output = daemon_on(&node, &path)
            .stdin(Stdio::null())
            .output()
            .expect("cargo has built the binary");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{path}: {said}");
        let sentence = said
            .lines()
            .find(|line| line.contains("ERROR"))
            .unwrap_or_else(|| panic!("{path}: no reason: {said}"));
        assert!(
            sentence.contains(&path) && words.iter().all(|word| sentence.contains(word)),
            "{words:?}: {sentence}"
        );
    }
}
