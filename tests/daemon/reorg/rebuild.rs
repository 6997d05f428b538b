//! A node that is not at its best: in its initial download, rebuilding its chain, or without its
//! old blocks.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::NEVER;
use super::story::{self, Story, agrees, listener, tip};
use satwatch::remedy::Remedy;

use crate::common::node::{Node, Options};
use crate::common::{COIN, Daemon, ledger, wait_until};

/// An option that sets the node's clock three days ahead: its tip is then too old to be believed.
fn days_later() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is set")
        .as_secs();
    format!("-mocktime={}", now + 3 * 86_400)
}

/// While it says that it is in its initial download, the node publishes no block, also not the new
/// ones.
fn followed_through_the_initial_download(topics: &'static [&'static str], interval: &str) {
    let near = Node::with(Options {
        p2p: true,
        topics,
        ..Options::default()
    });
    let far = Node::with(Options {
        p2p: true,
        blocks: 0,
        topics: &[],
        ..Options::default()
    });
    near.connect(&far);
    let start = tip(&near);
    let daemon = Daemon::with(&near, &[("monitor.reconcile_interval", interval)]);
    let address = near.address();
    let client = listener(&daemon, &[&address]);
    let paid = near.send(&near.payment(&near.coin(2 * COIN), &address, COIN));
    near.mine(1);
    agrees(&daemon, &near, &address);
    near.connect(&far);

    let published = || daemon.get("/status").json["zmq"]["rawblock"]["last_sequence"].clone();
    let last = wait_until("the block was published", || {
        Some(published()).filter(|number| number.is_number())
    });
    near.stop();
    near.restart_with(&[&days_later()]);
    daemon.wait_ready();
    near.part();
    for _ in 0..2 {
        far.mine_to(&address, 3);
        near.connect(&far);
        assert_eq!(
            near.rpc("getblockchaininfo", json!([]))["initialblockdownload"],
            true
        );
        agrees(&daemon, &near, &address);
        near.part();
    }
    assert_eq!(
        published(),
        last,
        "no block was published, which is what this test is about"
    );
    assert_eq!(
        story::chain(&daemon, &near, &start),
        Vec::<i64>::new(),
        "an old tip is no reorg"
    );
    let told = Story::of(&daemon, &client, &address);
    assert_eq!(
        (told.statuses(&paid), told.balances().len()),
        (vec!["mempool", "confirmed"], 7)
    );
}

#[test]
fn in_its_initial_download_the_node_is_followed_by_its_announcements() {
    followed_through_the_initial_download(&["rawblock", "rawtx", "sequence"], "3600");
}

#[test]
fn in_its_initial_download_a_node_without_announcements_is_followed_by_the_poll() {
    followed_through_the_initial_download(&["rawblock", "rawtx"], "1");
}

/// Both kinds of rebuilding: the tip comes up again from below.
#[test]
fn a_lower_tip_of_a_node_that_rebuilds_its_chain_is_no_reorg() {
    let node = Node::start();
    node.mine_to_nobody(300);
    let daemon = Daemon::with(&node, &[("monitor.reconcile_interval", "1")]);
    let start = tip(&node);
    let address = node.address();
    let client = listener(&daemon, &[&address]);
    let confirmed = node.pay(&address, COIN);
    node.mine(1);
    let waiting = node.pay(&address, 2 * COIN);
    daemon.wait_balance(&address, COIN, 2 * COIN);
    for how in ["-reindex-chainstate", "-reindex"] {
        node.stop();
        wait_until("the daemon misses its node", || {
            (daemon.get("/health/ready").status == 503).then_some(())
        });
        let height = start["height"].as_i64().map(|height| height + 1);
        // The node checks itself at each block, so that it is seen on its way up.
        node.restart_with(&[how, "-checkblockindex=1"]);
        wait_until("the node has rebuilt its chain", || {
            (Some(node.height()) == height).then_some(())
        });
        daemon.wait_ready();
        agrees(&daemon, &node, &address);
    }
    assert_eq!(story::chain(&daemon, &node, &start), Vec::<i64>::new());
    let told = Story::of(&daemon, &client, &address);
    assert_eq!(
        (told.statuses(&confirmed), told.statuses(&waiting)),
        (vec!["mempool", "confirmed"], vec!["mempool"])
    );
    assert_eq!(told.balances(), [COIN, 3 * COIN], "nothing flickers");
    node.mine(1);
    agrees(&daemon, &node, &address);
    ledger::check(&daemon);
}

/// Prunes by hand; block files are small, so that there is something to prune.
fn pruned_node() -> Node {
    let extra = vec!["-prune=1".into(), "-fastprune".into()];
    Node::with(Options {
        extra,
        ..Options::default()
    })
}

#[test]
fn a_pruned_node_is_followed_and_what_addresses_own_is_found_below_its_first_block() {
    let node = pruned_node();
    let address = node.address();
    node.pay(&address, COIN);
    node.mine_to_nobody(600);
    let last = node
        .rpc("pruneblockchain", json!([400]))
        .as_i64()
        .expect("a height");
    assert!(last > 126, "the payment's block is gone: {last}");
    let daemon = Daemon::with(&node, &[NEVER]);
    daemon.watch(&address);
    daemon.wait_balance(&address, COIN, 0);
    node.pay(&address, 2 * COIN);
    let lost = node.mine(2).remove(0);
    agrees(&daemon, &node, &address);
    node.rpc("invalidateblock", json!([lost]));
    agrees(&daemon, &node, &address);
    node.mine(3);
    agrees(&daemon, &node, &address);
    ledger::check(&daemon);
}

#[test]
fn a_daemon_that_was_down_for_longer_than_a_pruned_node_remembers_says_what_to_do() {
    let node = pruned_node();
    let mut daemon = Daemon::with(&node, &[("monitor.reconcile_interval", "1")]);
    let address = node.address();
    daemon.watch(&address);
    node.pay(&address, COIN);
    node.mine(1);
    agrees(&daemon, &node, &address);
    let (known, log) = (
        daemon.get("/status").json["tip"].clone(),
        ledger::check(&daemon).len(),
    );
    daemon.stop();
    node.pay(&address, 2 * COIN);
    node.mine_to_nobody(600);
    node.rpc("pruneblockchain", json!([400]));

    daemon.launch_again();
    let told = || {
        let answer = daemon.get("/health/ready");
        (answer.status == 503 && answer.text.contains("pruned")).then_some(answer.json)
    };
    let reason = wait_until("it says that blocks are missing", told)["error"]
        .as_str()
        .expect("a sentence")
        .to_owned();
    assert!(
        reason.contains("store.path"),
        "it says what helps: {reason}"
    );
    assert_eq!(
        daemon.balance(&address)["balance"],
        COIN,
        "what it knows is still served"
    );
    assert_eq!(
        daemon.balance(&address)["tip"]["hash"],
        known["hash"],
        "and says of when it is"
    );
    let status = daemon.get("/status").json;
    assert_eq!(
        (&status["following"], &status["service_available"]),
        (&json!(false), &json!(true)),
        "the node itself answers: {status}"
    );
    // The state stands while time goes by and blocks come.
    for _ in 0..3 {
        node.mine(1);
        wait_until("it still says so", told);
    }
    assert_eq!(
        ledger::check(&daemon).len(),
        log,
        "nothing is told that is not whole"
    );
    let repeated = daemon.log().matches("pruned").count();
    assert!(repeated < 10, "it says so once, not {repeated} times");

    assert!(reason.ends_with(&Remedy::BeginAnew.to_string()), "{reason}");
    daemon.stop();
    let other = daemon.store().with_extension("other");
    daemon.set("store.path", &other.display().to_string());
    daemon.restart();
    daemon.watch(&address);
    agrees(&daemon, &node, &address);
}
