//! Many transactions: a full mempool, thousands that concern nobody, a node that loads them again,
//! blocks without pause.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bitcoin::consensus::encode;
use serde_json::json;

use super::stage::{COIN, Kind, Stage, free, free_coins, out, script, spend, stranger};
use crate::common::{Node, ledger, wait_until};

const FEE: u64 = 1_000;
/// Transactions that concern nobody.
const CROWD: u32 = 3_000;

/// Fills the mempool with them.
fn crowd(stage: &Stage) {
    let hex = |coin| encode::serialize_hex(&spend(&[coin], &[(&stranger("crowd"), 9_000)]));
    // All coins first: each thousand of them is confirmed by a block.
    let coins: Vec<_> = (0..CROWD / 1_000)
        .flat_map(|_| free_coins(&stage.node, 1_000, 10_000))
        .collect();
    stage
        .node
        .send_all(&coins.into_iter().map(hex).collect::<Vec<_>>());
}

/// The node's present answer about its mempool.
fn loaded(node: &Node) -> bool {
    node.rpc("getmempoolinfo", json!([]))["loaded"] == true
}

/// Lets the node, once it runs, have one sixth of the time.
fn slowed(node: &Node, end: &AtomicBool) {
    while !end.load(Ordering::Relaxed) {
        if node.is_running() {
            node.freeze();
            std::thread::sleep(Duration::from_millis(50));
            node.thaw();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The unconfirmed part is left to the lines: the oracle would ask for thousands of transactions
/// one by one.
fn right(stage: &Stage, address: &str) {
    let scan = stage.node.rpc(
        "scantxoutset",
        json!(["start", [format!("addr({address})")]]),
    );
    assert_eq!(
        (
            &scan["total_amount"],
            &stage.daemon.balance(address)["confirmed_balance"]
        ),
        (&json!(0.0), &json!(0))
    );
    ledger::check(&stage.daemon);
}

#[test]
fn a_crowded_mempool_is_fetched_in_batches_and_a_payment_meanwhile_is_told() {
    let mut stage = Stage::with(Kind::Pushed, &["-debug=http"], &[]);
    let address = stage.node.address();
    stage.daemon.watch(&address);
    stage.daemon.stop();
    // Before: mempool transactions that concern the address, its parent among the crowd.
    crowd(&stage);
    let parent = spend(&[stage.coin()], &[(&free(1).to_p2wsh(), COIN - FEE)]);
    let early = spend(&[out(&parent, 0)], &[(&script(&address), COIN - 2 * FEE)]);
    stage.send("parent", &parent);
    stage.send("early", &early);
    let log = stage.node.folder().join("regtest/debug.log");
    let before = requests(&log);
    stage.daemon.launch_again();
    stage.send(
        "meanwhile",
        &spend(&[stage.coin()], &[(&script(&address), COIN - FEE)]),
    );
    wait_until("both are told", || {
        (stage.lines(&address).len() == 4).then_some(())
    });
    stage.daemon.wait_ready();
    let lines = stage.lines(&address);
    let told = |what: &str| lines.iter().filter(|line| line.as_str() == what).count();
    assert_eq!(
        (
            told("new early mempool +9998000"),
            told("new meanwhile mempool +9999000")
        ),
        (1, 1),
        "{lines:#?}"
    );
    // Six batches of 500, a few readings and looks, and what this test asks itself.
    let asked = requests(&log) - before;
    assert!(asked < 60, "{asked} requests for {CROWD} transactions");
    wait_until("the status counts them all", || {
        (stage.daemon.get("/status").json["mempool"]["size"] == CROWD + 3).then_some(())
    });
    right(&stage, &address);
}

/// HTTP requests that the node has answered.
fn requests(log: &std::path::Path) -> usize {
    let log = fs::read_to_string(log).expect("the node writes a log");
    log.lines()
        .filter(|line| line.contains("Received a POST request for / "))
        .count()
}

/// Starts node and daemon; whether the daemon has asked the node before that had its mempool.
fn starts_while_loading(stage: &mut Stage) -> bool {
    let (node, daemon, seen) = (&stage.node, &mut stage.daemon, AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| slowed(node, &seen));
        let _end = Ends(&seen);
        node.restart();
        daemon.launch_again();
        wait_until("the daemon has asked the node", || {
            (daemon.get("/status").json["service_available"] == true).then_some(())
        });
        !loaded(node)
    })
}

/// What is still there after the node has loaded its mempool again was never away: nothing at all
/// is told.
fn loaded_again(kind: Kind) {
    let mut stage = Stage::new(kind);
    let address = stage.node.address();
    stage.daemon.watch(&address);
    crowd(&stage);
    stage.send(
        "stays",
        &spend(&[stage.coin()], &[(&script(&address), COIN - FEE)]),
    );
    let lines = ["new stays mempool +9999000", "balance 0>9999000"];
    wait_until("the payment is told", || {
        (stage.lines(&address) == lines).then_some(())
    });

    // Beside a running daemon.
    stage.node.stop();
    wait_until("the daemon has noticed", || {
        (stage.daemon.get("/status").json["service_available"] == false).then_some(())
    });
    stage.node.restart();
    stage.daemon.wait_ready();
    assert_eq!(stage.lines(&address), lines);

    // A daemon that starts while the node loads. On a busy machine the node may be done first: once
    // more then.
    let met = (0..5).any(|_| {
        stage.daemon.stop();
        stage.node.stop();
        starts_while_loading(&mut stage)
    });
    assert!(met, "the node loads slowly enough for this test");
    stage.daemon.wait_ready();
    assert!(
        loaded(&stage.node),
        "ready means that the whole mempool is known"
    );
    assert_eq!(stage.lines(&address), lines);

    stage.send(
        "marker",
        &spend(&[stage.coin()], &[(&script(&address), 1_000_000)]),
    );
    let more = [
        &lines[..],
        &["new marker mempool +1000000", "balance 9999000>10999000"],
    ]
    .concat();
    wait_until("a further payment is told", || {
        (stage.lines(&address).len() >= 4).then_some(())
    });
    assert_eq!(stage.lines(&address), more);
    right(&stage, &address);
}

#[test]
fn a_node_that_loads_its_mempool_again_evicts_nothing() {
    loaded_again(Kind::Pushed);
}

#[test]
fn a_node_that_loads_its_mempool_again_evicts_nothing_without_zmq() {
    loaded_again(Kind::Polled);
}

/// The cheapest are thrown out, and what was paid with them; one of them is mined in the end.
fn thrown_out(kind: Kind) {
    let stage = Stage::with(kind, &["-maxmempool=5"], &[]);
    let (first, second) = (stage.watched(), stage.watched());
    let cheap = spend(
        &[stage.coin()],
        &[
            (&first.script, 1_000_000),
            (&free(1).to_p2wsh(), COIN - 1_000_000 - FEE),
        ],
    );
    let child = spend(
        &[out(&cheap, 1)],
        &[(&second.script, COIN - 1_000_000 - 2 * FEE)],
    );
    stage.send("cheap", &cheap);
    stage.send("child", &child);
    let mut lines = vec!["new cheap mempool +1000000", "balance 0>1000000"];
    let mut others = vec!["new child mempool +8998000", "balance 0>8998000"];
    first.is(&lines);
    second.is(&others);
    let txid = cheap.compute_txid().to_string();
    // Each pays a little more than the one before, so the newest is never the cheapest.
    let (big, mut value) = (stranger("big"), 2_000);
    while stage.node.in_mempool(&txid) {
        stage.send("big", &spend(&[stage.coin()], &vec![(&big, value); 2_000]));
        value -= 15;
    }
    lines.extend(["cheap mempool>evicted", "balance 1000000>0"]);
    others.extend(["child mempool>evicted", "balance 8998000>0"]);
    first.is(&lines);
    second.is(&others);
    stage.mine(&[&cheap]);
    lines.extend(["cheap evicted>confirmed", "balance 0>1000000"]);
    first.is(&lines);
    stage.end(&[first, second]);
}

#[test]
fn what_a_full_mempool_throws_out_is_told_as_evicted() {
    thrown_out(Kind::Pushed);
}

#[test]
fn what_a_full_mempool_throws_out_is_found_by_the_poll() {
    thrown_out(Kind::Unnumbered);
}

/// Blocks come faster than one in a hundred milliseconds; what waits in the mempool is found and
/// told all the same.
fn without_pause(kind: Kind) {
    let mut stage = Stage::new(kind);
    let address = stage.node.address();
    stage.daemon.watch(&address);
    stage.daemon.stop();
    stage.send(
        "waits",
        &spend(&[stage.coin()], &[(&script(&address), COIN - FEE)]),
    );
    stage.daemon.launch_again();
    let told = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !told.load(Ordering::Relaxed) {
                stage.mine(&[]);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        // The blocks end when this thread does, however it ends.
        let _end = Ends(&told);
        wait_until("the payment is told while blocks come", || {
            (stage.lines(&address).len() == 2).then_some(())
        });
        wait_until("the daemon is ready while blocks come", || {
            (stage.daemon.get("/health/ready").status == 200).then_some(())
        });
    });
    assert_eq!(
        stage.lines(&address),
        ["new waits mempool +9999000", "balance 0>9999000"]
    );
    stage.end(&[]);
    right(&stage, &address);
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn blocks_without_pause_do_not_keep_the_mempool_from_being_read() {
    without_pause(Kind::Pushed);
}

#[test]
fn blocks_without_pause_do_not_keep_the_mempool_from_being_read_without_zmq() {
    without_pause(Kind::Polled);
}
